/* plot_parts.c - axes with sensible ticks, and a small canvas over cairo: colours, measured text, header and legend. */
#include "format/plot_parts.h"

#include <cairo-svg.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

/* ---- numbers and ticks -------------------------------------------------------------------------------------------- */

static void strip_zeros(char *s) { /* "1.50" -> "1.5", "2.00" -> "2" */
  if (!strchr(s, '.') || strpbrk(s, "eE")) return;
  char *end = s + strlen(s);
  while (end[-1] == '0') *--end = 0;
  if (end[-1] == '.') end[-1] = 0;
}

void mn_number_text(double v, int digits, char out[MN_TICK_CHARS]) {
  static const char *const suffix[] = {"", "k", "M", "G", "T", "P"};
  double a = fabs(v);
  if (!isfinite(v)) snprintf(out, MN_TICK_CHARS, "-");
  else if (digits > 0 && a < 1e7) snprintf(out, MN_TICK_CHARS, "%.*f", digits > 9 ? 9 : digits, v);
  else if (a == 0) snprintf(out, MN_TICK_CHARS, "0");
  else if (a < 1e-3 || a >= 1e18) snprintf(out, MN_TICK_CHARS, "%.3g", v);
  else {
    int i = 0;
    while (a >= (i ? 999.95 : 9999.5) && i < 5) a /= 1000, v /= 1000, i++;
    snprintf(out, MN_TICK_CHARS, "%.*f", a >= 999.5 ? 0 : a >= 99.95 ? 1 : a >= 9.995 ? 2 : a >= 0.9995 ? 3 : 4, v);
    strip_zeros(out);
    strcat(out, suffix[i]);
  }
}

/* A tick's label shows the digits that tell it from its neighbours, and no more. */
static void tick_text(double v, double step, double largest, char out[MN_TICK_CHARS]) {
  static const char *const suffix[] = {"", "k", "M", "G", "T", "P"};
  if (fabs(v) < step * 1e-6) v = 0;
  if (largest < 1e-3 || largest >= 1e18) {
    snprintf(out, MN_TICK_CHARS, "%.3g", v);
    return;
  }
  int i = 0;
  for (; largest >= (i ? 1000 : 10000) && i < 5; i++) largest /= 1000, step /= 1000, v /= 1000;
  int digits = step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-9);
  while (digits < 9 && fabs(step * pow(10, digits) - round(step * pow(10, digits))) > 1e-6) digits++; /* 2.5 */
  snprintf(out, MN_TICK_CHARS, "%.*f%s", digits, v, v == 0 ? "" : suffix[i]);
  if (v == 0) strcpy(out, "0");
}

static void linear_ticks(mn_axis *axis, int want) {
  double range = axis->high - axis->low, raw = range / want, power = pow(10, floor(log10(raw))), step = power;
  static const double nice[] = {1, 2, 2.5, 5, 10};
  for (int i = 0; i < 5; i++)
    if (nice[i] * power >= raw * (1 - 1e-9)) {
      step = nice[i] * power;
      break;
    }
  double first = ceil(axis->low / step - 1e-9), largest = fmax(fabs(axis->low), fabs(axis->high));
  for (axis->n = 0; axis->n < MN_MAX_TICKS; axis->n++) {
    double v = (first + axis->n) * step;
    if (v > axis->high + step * 1e-9) break;
    axis->tick[axis->n] = v;
    tick_text(v, step, largest, axis->label[axis->n]);
  }
}

static void log_ticks(mn_axis *axis, int want) {
  int from = (int)floor(log10(axis->low)), to = (int)ceil(log10(axis->high));
  int decades = to - from;
  int stride = decades > want ? (decades + want - 1) / want : 1;
  static const double one[] = {1}, three[] = {1, 2, 5};
  bool more = decades * 3 <= 2 * want;
  axis->n = 0;
  for (int d = from; d <= to; d += stride)
    for (int i = 0; i < (more ? 3 : 1) && axis->n < MN_MAX_TICKS; i++) {
      double v = (more ? three : one)[i] * pow(10, d);
      if (v < axis->low * (1 - 1e-9) || v > axis->high * (1 + 1e-9)) continue;
      axis->tick[axis->n] = v;
      char *label = axis->label[axis->n++];
      if (v >= 999 && v < 9999 && axis->high >= 10000) snprintf(label, MN_TICK_CHARS, "%gk", round(v) / 1000);
      else if (v < 1e-3) snprintf(label, MN_TICK_CHARS, "%.0e", v);
      else mn_number_text(v, 0, label);
    }
  if (axis->n < 3 && axis->high < 30 * axis->low) linear_ticks(axis, want); /* less than a decade or so */
}

void mn_axis_make(mn_axis *axis, double low, double high, bool logarithmic, double widen, int want) {
  memset(axis, 0, sizeof *axis);
  if (want < 2) want = 2;
  if (!(isfinite(low) && isfinite(high) && low <= high) || (logarithmic && low <= 0)) {
    low = logarithmic ? 1 : 0;
    high = logarithmic ? 10 : 1;
  }
  low = fmax(fmin(low, 1e300), logarithmic ? 1e-290 : -1e300); /* so that no arithmetic below overflows */
  high = fmax(fmin(high, 1e300), logarithmic ? 1e-290 : -1e300);
  if (high - low <= fmax(1e-12 * fmax(fabs(low), fabs(high)), 1e-290)) { /* one value */
    double d = logarithmic ? 0 : low != 0 ? 0.1 * fabs(low) : 1;
    low = logarithmic ? low / 2 : low - d;
    high = logarithmic ? high * 2 : high + d;
  }
  axis->log = logarithmic;
  if (logarithmic) {
    double f = exp((log(high) - log(low)) * widen);
    axis->low = fmax(low / f, 1e-300);
    axis->high = fmin(high * f, 1e305);
    log_ticks(axis, want);
  } else {
    if (widen == 0 && low > 0 && low < 0.04 * high) low = 0; /* steps that begin at 1, say */
    double d = (high - low) * widen;
    axis->low = low - d;
    axis->high = high + d;
    if (low >= 0 && axis->low < 0) axis->low = 0; /* what is never negative is not drawn below zero */
    linear_ticks(axis, want);
  }
}

double mn_axis_place(const mn_axis *axis, double v) {
  double place = axis->log ? (log(v) - log(axis->low)) / (log(axis->high) - log(axis->low)) : (v - axis->low) / (axis->high - axis->low);
  return place < -2 ? -2 : place > 3 ? 3 : place; /* what is far outside stays small enough to be drawn and cut off */
}

bool mn_plot_range(const mn_plot *plot, double x[2], double y[2]) {
  x[0] = y[0] = INFINITY;
  x[1] = y[1] = -INFINITY;
  for (int s = 0; s < plot->n_series; s++)
    for (size_t i = 0; i < plot->series[s].n; i++) {
      double vx = plot->series[s].x[i], vy = plot->series[s].y[i];
      if (!isfinite(vx) || !isfinite(vy) || (plot->x_log && vx <= 0) || (plot->y_log && vy <= 0)) continue;
      x[0] = fmin(x[0], vx);
      x[1] = fmax(x[1], vx);
      y[0] = fmin(y[0], vy);
      y[1] = fmax(y[1], vy);
    }
  bool any = x[0] <= x[1];
  if (plot->y_zero && any && !plot->y_log) y[0] = fmin(y[0], 0), y[1] = fmax(y[1], 0);
  if (plot->y_min < plot->y_max) y[0] = plot->y_min, y[1] = plot->y_max;
  return any;
}

double *mn_plot_smoothed(const mn_plot_series *s) {
  double *out = mn_alloc((s->n + 1) * sizeof *out), *sum = mn_alloc((s->n + 1) * sizeof *sum);
  size_t *count = mn_alloc((s->n + 1) * sizeof *count);
  if (out && sum && count) {
    sum[0] = 0;
    count[0] = 0;
    for (size_t i = 0; i < s->n; i++) {
      bool good = isfinite(s->y[i]);
      sum[i + 1] = sum[i] + (good ? s->y[i] : 0);
      count[i + 1] = count[i] + good;
    }
    size_t half = s->smooth / 2;
    for (size_t i = 0; i < s->n; i++) {
      /* Narrower at the beginning, where a loss falls steeply, so that it stays centred there; cut off at the end, where
       * a narrow one would only end in noise. */
      size_t back = half > i ? i : half, ahead = back;
      if (ahead > s->n - 1 - i) ahead = s->n - 1 - i;
      size_t n = count[i + ahead + 1] - count[i - back];
      out[i] = n && isfinite(s->y[i]) ? (sum[i + ahead + 1] - sum[i - back]) / (double)n : (double)NAN;
    }
  } else {
    free(out);
    out = NULL;
  }
  free(sum);
  free(count);
  return out;
}

/* ---- colours ------------------------------------------------------------------------------------------------------ */

#define RGB(hex)                                                                                                                           \
  { ((hex) >> 16 & 255) / 255.0, ((hex) >> 8 & 255) / 255.0, ((hex)&255) / 255.0 }

/* Relative luminance between 0.15 and 0.30: a contrast of at least 3 on white and on the dark pages of code hosts. */
const mn_rgb mn_palette[MN_PALETTE] = {RGB(0x3B7DED), RGB(0xE0700F), RGB(0x1E9E5F), RGB(0xD6409F),
                                       RGB(0x8F63E8), RGB(0x1597A5), RGB(0xD94A45), RGB(0x9A7B1E)};
const int mn_palette_ansi[MN_PALETTE] = {34, 33, 32, 35, 95, 36, 31, 93};
static const mn_rgb ink = RGB(0x757C85);

double mn_luminance(mn_rgb c) { /* WCAG 2 */
  double v[3] = {c.r, c.g, c.b};
  for (int i = 0; i < 3; i++) v[i] = v[i] <= 0.04045 ? v[i] / 12.92 : pow((v[i] + 0.055) / 1.055, 2.4);
  return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2];
}

mn_rgb mn_ramp(double t) { /* lightness rises evenly, so that it reads in grey and by the colour-blind too */
  static const mn_rgb stop[] = {RGB(0x2B2A6B), RGB(0x2C4F8F), RGB(0x21758F), RGB(0x1D9A84), RGB(0x55BA6A), RGB(0xA6D34F), RGB(0xF5E55A)};
  t = !(t > 0) ? 0 : t > 1 ? 1 : t;
  double at = t * 6;
  int i = at >= 6 ? 5 : (int)at;
  double f = at - i;
  return (mn_rgb){stop[i].r + f * (stop[i + 1].r - stop[i].r), stop[i].g + f * (stop[i + 1].g - stop[i].g),
                  stop[i].b + f * (stop[i + 1].b - stop[i].b)};
}

void mn_set_color(mn_canvas *c, mn_rgb color, double alpha) { cairo_set_source_rgba(c->cr, color.r, color.g, color.b, alpha); }
void mn_set_ink(mn_canvas *c, double alpha) { mn_set_color(c, ink, alpha); }

/* ---- text --------------------------------------------------------------------------------------------------------- */

void mn_set_font(mn_canvas *c, double size, bool bold) {
  cairo_select_font_face(c->cr, "sans-serif", CAIRO_FONT_SLANT_NORMAL, bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_font_size(c->cr, size);
}

/* cairo stops drawing for good at a byte that is not UTF-8: such bytes become '?'. Control characters become spaces. */
static void clean_text(const char *text, char *out, size_t size) {
  size_t n = 0;
  const unsigned char *s = (const unsigned char *)text;
  while (*s && n + 5 < size) {
    int length = *s < 0x80 ? 1 : *s >= 0xC2 && *s < 0xE0 ? 2 : (*s & 0xF0) == 0xE0 ? 3 : *s >= 0xF0 && *s < 0xF5 ? 4 : 0;
    bool good = length > 0;
    for (int i = 1; good && i < length; i++) good = (s[i] & 0xC0) == 0x80;
    if (good && length == 3) good = !(s[0] == 0xE0 && s[1] < 0xA0) && !(s[0] == 0xED && s[1] >= 0xA0);
    if (good && length == 4) good = !(s[0] == 0xF0 && s[1] < 0x90) && !(s[0] == 0xF4 && s[1] >= 0x90);
    if (!good) out[n++] = '?', s++;
    else if (*s < 0x20 || *s == 0x7F) out[n++] = ' ', s++;
    else
      for (int i = 0; i < length; i++) out[n++] = (char)*s++;
  }
  out[n] = 0;
}

static double raw_width(mn_canvas *c, const char *text) {
  cairo_text_extents_t e;
  cairo_text_extents(c->cr, text, &e);
  return e.x_advance;
}

double mn_text_width(mn_canvas *c, const char *text) {
  char clean[512];
  clean_text(text, clean, sizeof clean);
  return raw_width(c, clean);
}

static void fit(mn_canvas *c, char *text, size_t size, double room) {
  if (room <= 0 || raw_width(c, text) <= room) return;
  size_t n = strlen(text);
  if (n + 4 > size) n = size - 4;
  do {
    while (n > 0 && ((unsigned char)text[n - 1] & 0xC0) == 0x80) n--;
    if (n > 0) n--;
    strcpy(text + n, "…");
  } while (n > 0 && raw_width(c, text) > room);
}

void mn_text(mn_canvas *c, double x, double y, int align, const char *text, double room) {
  char clean[512];
  clean_text(text, clean, sizeof clean);
  fit(c, clean, sizeof clean, room);
  cairo_font_extents_t f;
  cairo_font_extents(c->cr, &f);
  double width = raw_width(c, clean);
  cairo_move_to(c->cr, x - width * align / 2, y + 0.36 * (f.ascent + f.descent) * 0.86);
  cairo_show_text(c->cr, clean);
  cairo_new_path(c->cr);
}

void mn_text_up(mn_canvas *c, double x, double y, const char *text, double room) {
  cairo_save(c->cr);
  cairo_translate(c->cr, x, y);
  cairo_rotate(c->cr, -1.5707963267948966);
  mn_text(c, 0, 0, MN_CENTER, text, room);
  cairo_restore(c->cr);
}

double mn_header(mn_canvas *c, double left, double right, const char *title, const char *subtitle, const char *const *legend,
                 const bool *dashed, int n_legend) {
  double y = 12;
  if (title && *title) {
    mn_set_font(c, 16, true);
    mn_set_ink(c, 1);
    mn_text(c, left, y + 8, MN_LEFT, title, right - left);
    y += 24;
  }
  if (subtitle && *subtitle) {
    mn_set_font(c, 12, false);
    mn_set_ink(c, 1);
    mn_text(c, left, y + 7, MN_LEFT, subtitle, right - left);
    y += 20;
  }
  double x = left;
  bool any = false;
  mn_set_font(c, 12, false);
  for (int i = 0; i < n_legend; i++) {
    if (!legend[i] || !*legend[i]) continue;
    double width = fmin(24 + mn_text_width(c, legend[i]), right - left);
    if (any && x + width > right) {
      x = left;
      y += 18;
    }
    if (!any) y += 4;
    mn_set_color(c, mn_palette[i % MN_PALETTE], 1);
    if (dashed) { /* a line */
      double dash[] = {4, 3};
      cairo_set_dash(c->cr, dash, dashed[i] ? 2 : 0, 0);
      cairo_set_line_width(c->cr, 2.4);
      cairo_move_to(c->cr, x, y + 7);
      cairo_line_to(c->cr, x + 18, y + 7);
      cairo_stroke(c->cr);
      cairo_set_dash(c->cr, NULL, 0, 0);
    } else { /* a patch */
      cairo_rectangle(c->cr, x + 4, y + 1.5, 11, 11);
      cairo_fill(c->cr);
    }
    mn_set_ink(c, 1);
    mn_text(c, x + 24, y + 7, MN_LEFT, legend[i], right - x - 24);
    x += width + 20;
    any = true;
  }
  return y + (any ? 18 : 0);
}

/* fontconfig, below cairo, keeps a few small patterns until the process ends; they are not ours to report. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MN_LEAK_CHECK 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define MN_LEAK_CHECK 1
#endif
#ifdef MN_LEAK_CHECK
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libfontconfig\n"; }
const char *__lsan_default_options(void);
const char *__lsan_default_options(void) { return "print_suppressions=0"; }
#endif

/* ---- files -------------------------------------------------------------------------------------------------------- */

typedef struct sink {
  mn_file_writer *file;
  mn_status status;
} sink;

static cairo_status_t write_bytes(void *closure, const unsigned char *data, unsigned length) {
  sink *s = closure;
  if (s->status == MN_OK) s->status = mn_file_writer_append(s->file, data, length);
  return s->status == MN_OK ? CAIRO_STATUS_SUCCESS : CAIRO_STATUS_WRITE_ERROR;
}

static bool ends_in(const char *path, const char *end) {
  size_t n = strlen(path), m = strlen(end);
  return n > m && !strcmp(path + n - m, end);
}

mn_status mn_plot_check_name(const char *path) {
  if (ends_in(path, ".svg") || ends_in(path, ".png")) return MN_OK;
  return mn_fail(MN_ERR_CONFIG, "%s: a picture's name ends in .svg or .png", path);
}

mn_status mn_canvas_write(const char *path, double width, double height, mn_paint paint, const void *what) {
  MN_TRY(mn_plot_check_name(path));
  bool svg = ends_in(path, ".svg"), png = !svg;
  const double scale = svg ? 1 : 2;
  sink s = {0};
  MN_TRY(mn_file_writer_open(path, &s.file));
  cairo_surface_t *surface = svg ? cairo_svg_surface_create_for_stream(write_bytes, &s, width, height)
                                 : cairo_image_surface_create(CAIRO_FORMAT_ARGB32, (int)(width * scale), (int)(height * scale));
#if CAIRO_VERSION >= CAIRO_VERSION_ENCODE(1, 16, 0)
  if (svg) cairo_svg_surface_set_document_unit(surface, CAIRO_SVG_UNIT_PX);
#endif
  mn_canvas canvas = {cairo_create(surface), width, height};
  cairo_scale(canvas.cr, scale, scale);
  cairo_font_options_t *options = cairo_font_options_create(); /* the same widths whatever the machine's settings */
  cairo_font_options_set_antialias(options, CAIRO_ANTIALIAS_GRAY);
  cairo_font_options_set_hint_style(options, CAIRO_HINT_STYLE_NONE);
  cairo_font_options_set_hint_metrics(options, CAIRO_HINT_METRICS_OFF);
  cairo_set_font_options(canvas.cr, options);
  cairo_font_options_destroy(options);
  cairo_set_line_join(canvas.cr, CAIRO_LINE_JOIN_ROUND);
  cairo_set_line_cap(canvas.cr, CAIRO_LINE_CAP_ROUND);
  paint(&canvas, what);
  cairo_status_t drawn = cairo_status(canvas.cr);
  cairo_destroy(canvas.cr);
  if (png && drawn == CAIRO_STATUS_SUCCESS) drawn = cairo_surface_write_to_png_stream(surface, write_bytes, &s);
  cairo_surface_finish(surface);
  if (drawn == CAIRO_STATUS_SUCCESS) drawn = cairo_surface_status(surface);
  cairo_surface_destroy(surface);
  if (s.status == MN_OK && drawn == CAIRO_STATUS_SUCCESS) return mn_file_writer_commit(s.file);
  mn_file_writer_abort(s.file);
  if (s.status != MN_OK) return s.status;
  return mn_fail(drawn == CAIRO_STATUS_NO_MEMORY ? MN_ERR_MEMORY : MN_ERR_INTERNAL, "%s: the picture could not be drawn: %s", path,
                 cairo_status_to_string(drawn));
}
