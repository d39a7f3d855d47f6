/* plot.c - line plots, bar charts and heat maps on the canvas of plot_parts.h. */
#include "format/plot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/plot_parts.h"

static double widest_label(mn_canvas *c, const mn_axis *axis) {
  double w = 0;
  for (int i = 0; i < axis->n; i++) w = fmax(w, mn_text_width(c, axis->label[i]));
  return w;
}

static void line(mn_canvas *c, double x0, double y0, double x1, double y1) {
  cairo_move_to(c->cr, x0, y0);
  cairo_line_to(c->cr, x1, y1);
  cairo_stroke(c->cr);
}

/* ---- line plots --------------------------------------------------------------------------------------------------- */

typedef struct frame { /* the rectangle that the data are drawn in, and its axes */
  double left, top, right, bottom;
  mn_axis x, y;
} frame;

static double at_x(const frame *f, double v) { return f->left + mn_axis_place(&f->x, v) * (f->right - f->left); }
static double at_y(const frame *f, double v) { return f->bottom - mn_axis_place(&f->y, v) * (f->bottom - f->top); }

static void draw_axes(mn_canvas *c, const frame *f, const char *x_label, const char *y_label, double y_label_x) {
  mn_set_font(c, 12, false);
  cairo_set_line_width(c->cr, 1);
  for (int i = 0; i < f->y.n; i++) {
    double y = at_y(f, f->y.tick[i]);
    mn_set_ink(c, 0.22);
    if (y < f->bottom - 2) line(c, f->left, y, f->right, y);
    mn_set_ink(c, 1);
    mn_text(c, f->left - 8, y, MN_RIGHT, f->y.label[i], 0);
  }
  double last = -INFINITY;
  for (int i = 0; i < f->x.n; i++) {
    double x = at_x(f, f->x.tick[i]), half = mn_text_width(c, f->x.label[i]) / 2;
    mn_set_ink(c, 0.7);
    line(c, x, f->bottom, x, f->bottom + 4);
    if (x - half < last + 8) continue; /* a label never touches the one before */
    mn_set_ink(c, 1);
    mn_text(c, x, f->bottom + 15, MN_CENTER, f->x.label[i], 0);
    last = x + half;
  }
  mn_set_ink(c, 0.7);
  line(c, f->left, f->bottom, f->right, f->bottom);
  mn_set_ink(c, 1);
  if (x_label && *x_label) mn_text(c, (f->left + f->right) / 2, f->bottom + 36, MN_CENTER, x_label, f->right - f->left);
  if (y_label && *y_label) mn_text_up(c, y_label_x, (f->top + f->bottom) / 2, y_label, f->bottom - f->top);
}

/* A curve with gaps. Where there are many points in one column of pixels, only their first, lowest, highest and last are
 * drawn: the picture is the same and the file small. */
static void draw_curve(mn_canvas *c, const frame *f, const double *xs, const double *ys, size_t n) {
  const double column = 0.5;
  bool pen = false;
  size_t i = 0;
  while (i < n) {
    bool good = isfinite(xs[i]) && isfinite(ys[i]) && !(f->x.log && xs[i] <= 0) && !(f->y.log && ys[i] <= 0);
    if (!good) {
      pen = false;
      i++;
      continue;
    }
    double x = at_x(f, xs[i]), y = at_y(f, ys[i]), low = y, high = y, end = y;
    size_t j = i + 1;
    for (; j < n && isfinite(ys[j]) && isfinite(xs[j]) && !(f->y.log && ys[j] <= 0) && !(f->x.log && xs[j] <= 0); j++) {
      if (fabs(at_x(f, xs[j]) - x) > column) break;
      end = at_y(f, ys[j]);
      low = fmin(low, end);
      high = fmax(high, end);
    }
    bool alone = !pen && j < n && !isfinite(ys[j]);
    if (alone || (!pen && j == n)) { /* a point with no neighbour is a dot */
      cairo_move_to(c->cr, x, y);
      cairo_line_to(c->cr, x + 0.01, y);
    } else if (pen) cairo_line_to(c->cr, x, y);
    else cairo_move_to(c->cr, x, y);
    if (j > i + 1) {
      cairo_line_to(c->cr, x, low);
      cairo_line_to(c->cr, x, high);
      cairo_line_to(c->cr, x, end);
    }
    pen = true;
    i = j;
  }
  cairo_stroke(c->cr);
}

static void draw_series(mn_canvas *c, const frame *f, const mn_plot_series *s, int index) {
  mn_rgb color = mn_palette[index % MN_PALETTE];
  const double dash[] = {6, 5}, fine[] = {2, 4};
  double *smooth = s->smooth > 1 ? mn_plot_smoothed(s) : NULL;
  if (smooth) {
    mn_set_color(c, color, 0.28);
    cairo_set_line_width(c->cr, 1);
    draw_curve(c, f, s->x, s->y, s->n);
  }
  mn_set_color(c, color, 1);
  cairo_set_line_width(c->cr, s->n == 1 ? 6 : 2);
  if (s->dashed) cairo_set_dash(c->cr, dash, 2, 0);
  else if (index >= MN_PALETTE) cairo_set_dash(c->cr, fine, 2, 0); /* the colours come round again */
  draw_curve(c, f, s->x, smooth ? smooth : s->y, s->n);
  cairo_set_dash(c->cr, NULL, 0, 0);
  free(smooth);
}

static void paint_plot(mn_canvas *c, const void *what) {
  const mn_plot *p = what;
  const char *legend[64];
  bool dashed[64];
  int labelled = 0, n_legend = p->n_series < 64 ? p->n_series : 64;
  for (int i = 0; i < n_legend; i++) {
    legend[i] = p->series[i].label;
    dashed[i] = p->series[i].dashed;
    labelled += legend[i] && *legend[i];
  }
  frame f = {.right = c->width - 18};
  bool y_label = p->y_label && *p->y_label, x_label = p->x_label && *p->x_label;
  double top = mn_header(c, 16, f.right, p->title, p->subtitle, legend, dashed, labelled > 1 ? n_legend : 0);
  f.top = top + 12;
  f.bottom = c->height - (x_label ? 54 : 32);
  double x[2], y[2];
  bool any = mn_plot_range(p, x, y);
  bool fixed = p->y_min < p->y_max;
  mn_axis_make(&f.y, any || fixed ? y[0] : (double)NAN, y[1], p->y_log, fixed ? 0 : 0.05, (int)((f.bottom - f.top) / 50));
  mn_set_font(c, 12, false);
  f.left = 16 + (y_label ? 24 : 0) + widest_label(c, &f.y) + 8;
  mn_axis_make(&f.x, any ? x[0] : (double)NAN, x[1], p->x_log, 0, (int)((f.right - f.left) / 85));
  for (int i = 0; i < f.x.n; i++) /* room for the last label, which is centred under its tick */
    f.right = fmin(f.right, c->width - 8 - (at_x(&f, f.x.tick[i]) >= f.right - 30 ? mn_text_width(c, f.x.label[i]) / 2 : 0));
  draw_axes(c, &f, p->x_label, p->y_label, 16 + 8);
  if (!any) {
    mn_set_font(c, 14, false);
    mn_set_ink(c, 1);
    mn_text(c, (f.left + f.right) / 2, (f.top + f.bottom) / 2, MN_CENTER, "no data", 0);
    return;
  }
  cairo_save(c->cr);
  cairo_rectangle(c->cr, f.left - 2, f.top - 2, f.right - f.left + 4, f.bottom - f.top + 4);
  cairo_clip(c->cr);
  for (int i = 0, own = 0; i < p->n_series; i++) draw_series(c, &f, &p->series[i], p->series[i].beside ? own : (own = i));
  cairo_restore(c->cr);
}

mn_status mn_plot_write(const mn_plot *plot, const char *path) {
  return mn_canvas_write(path, plot->width > 0 ? plot->width : 800, plot->height > 0 ? plot->height : 450, paint_plot, plot);
}

/* ---- bars --------------------------------------------------------------------------------------------------------- */

enum { BAR = 20, BAR_GAP = 3, GROUP_GAP = 16 };

static double bars_top(const mn_bars *b) { /* what mn_header takes, but for legends of several rows */
  return 12 + (b->title && *b->title ? 24 : 0) + (b->subtitle && *b->subtitle ? 20 : 0) + (b->n_series > 1 && b->series ? 22 : 0) + 14;
}

static void paint_bars(mn_canvas *c, const void *what) {
  const mn_bars *b = what;
  int n_series = b->n_series > 0 ? b->n_series : 1;
  double right = c->width - 18;
  double y = mn_header(c, 16, right, b->title, b->subtitle, b->series, NULL, b->series && n_series > 1 ? n_series : 0);
  y = fmax(y + 14, bars_top(b));
  double low = 0, high = b->reference > 0 ? b->reference : 0;
  for (int i = 0; i < b->n_groups * n_series; i++)
    if (isfinite(b->values[i])) low = fmin(low, b->values[i]), high = fmax(high, b->values[i]);
  mn_set_font(c, 12, false);
  double label_room = 0, value_room = 0;
  char text[MN_TICK_CHARS];
  for (int i = 0; i < b->n_groups; i++) label_room = fmax(label_room, mn_text_width(c, b->groups[i]));
  for (int i = 0; i < b->n_groups * n_series; i++) {
    mn_number_text(b->values[i], b->digits, text);
    value_room = fmax(value_room, mn_text_width(c, text));
  }
  label_room = fmin(label_room, c->width * 0.35);
  frame f = {.left = 16 + label_room + 12, .top = y, .bottom = c->height - (b->value_label && *b->value_label ? 54 : 32)};
  f.right = right - value_room - 8;
  mn_axis_make(&f.x, low, high > low ? high : low + 1, false, 0, (int)((f.right - f.left) / 90));
  cairo_set_line_width(c->cr, 1);
  for (int i = 0; i < f.x.n; i++) {
    double x = at_x(&f, f.x.tick[i]);
    mn_set_ink(c, f.x.tick[i] == 0 ? 0.7 : 0.22);
    line(c, x, f.top - 4, x, f.bottom);
    mn_set_ink(c, 1);
    mn_text(c, x, f.bottom + 15, MN_CENTER, f.x.label[i], 0);
  }
  if (b->value_label && *b->value_label) mn_text(c, (f.left + f.right) / 2, f.bottom + 36, MN_CENTER, b->value_label, f.right - f.left);
  y = f.top + GROUP_GAP / 2.0;
  for (int g = 0; g < b->n_groups; g++) {
    double group = n_series * (BAR + BAR_GAP) - BAR_GAP;
    mn_set_ink(c, 1);
    mn_text(c, f.left - 10, y + group / 2, MN_RIGHT, b->groups[g], label_room);
    for (int s = 0; s < n_series; s++, y += BAR + BAR_GAP) {
      double v = b->values[g * n_series + s], x0 = at_x(&f, 0), x1 = at_x(&f, v);
      if (!isfinite(v)) continue;
      mn_set_color(c, mn_palette[s % MN_PALETTE], 1);
      cairo_rectangle(c->cr, fmin(x0, x1), y, fmax(fabs(x1 - x0), 1), BAR);
      cairo_fill(c->cr);
      mn_number_text(v, b->digits, text);
      mn_set_ink(c, 1);
      mn_text(c, fmax(x0, x1) + 7, y + BAR / 2.0, MN_LEFT, text, 0);
    }
    y += GROUP_GAP - BAR_GAP;
  }
  if (b->reference != 0) {
    const double dash[] = {5, 4};
    double x = at_x(&f, b->reference);
    mn_set_ink(c, 1);
    cairo_set_line_width(c->cr, 1.5);
    cairo_set_dash(c->cr, dash, 2, 0);
    line(c, x, f.top - 4, x, f.bottom);
    cairo_set_dash(c->cr, NULL, 0, 0);
    if (b->reference_label) { /* above the line, on the side where there is room */
      double w = mn_text_width(c, b->reference_label);
      mn_text(c, x + w / 2 > right ? right : x, f.top - 12, x + w / 2 > right ? MN_RIGHT : MN_CENTER, b->reference_label, 0);
    }
  }
}

mn_status mn_bars_write(const mn_bars *b, const char *path) {
  int n_series = b->n_series > 0 ? b->n_series : 1;
  double height =
      bars_top(b) + b->n_groups * (n_series * (BAR + BAR_GAP) - BAR_GAP + GROUP_GAP) + (b->value_label && *b->value_label ? 54 : 32);
  return mn_canvas_write(path, b->width > 0 ? b->width : 800, fmin(height, 16000), paint_bars, b);
}

/* ---- heat maps ---------------------------------------------------------------------------------------------------- */

static void heat_range(const mn_heatmap *m, double *low, double *high) {
  *low = INFINITY;
  *high = -INFINITY;
  for (size_t i = 0; i < (size_t)m->n_x * (size_t)m->n_y; i++)
    if (isfinite(m->values[i])) *low = fmin(*low, m->values[i]), *high = fmax(*high, m->values[i]);
  if (m->low < m->high) *low = m->low, *high = m->high;
  if (!(*low < *high)) *high = (*low = isfinite(*low) ? *low : 0) + 1;
}

static void paint_heatmap(mn_canvas *c, const void *what) {
  const mn_heatmap *m = what;
  double low, high, right = c->width - 18;
  heat_range(m, &low, &high);
  double top = mn_header(c, 16, right, m->title, m->subtitle, NULL, NULL, 0) + 14;
  bool x_label = m->x_label && *m->x_label, y_label = m->y_label && *m->y_label;
  double bottom = c->height - (x_label ? 54 : 32);
  mn_axis bar;
  mn_axis_make(&bar, low, high, false, 0, 5);
  mn_set_font(c, 12, false);
  double names = 0, widest_x = 0;
  for (int i = 0; i < m->n_y; i++) names = fmax(names, mn_text_width(c, m->y_names[i]));
  for (int i = 0; i < m->n_x; i++) widest_x = fmax(widest_x, mn_text_width(c, m->x_names[i]));
  names = fmin(names, c->width * 0.3);
  double left = 16 + (y_label ? 24 : 0) + names + 8;
  double bar_width = 14, bar_right = right - widest_label(c, &bar) - 8 - (m->value_label && *m->value_label ? 22 : 0);
  double area_right = bar_right - bar_width - 22;
  double cw = (area_right - left) / m->n_x, ch = (bottom - top) / m->n_y, gap = cw > 12 && ch > 12 ? 1 : 0;
  char text[MN_TICK_CHARS];
  mn_number_text(m->low < 0 || low < 0 ? low : high, m->digits > 0 ? m->digits : 2, text);
  mn_set_font(c, 11, false);
  bool values = cw >= mn_text_width(c, text) + 8 && ch >= 17;
  for (int r = 0; r < m->n_y; r++)
    for (int k = 0; k < m->n_x; k++) {
      double v = m->values[r * m->n_x + k], x = left + k * cw, y = top + r * ch;
      cairo_rectangle(c->cr, x + gap, y + gap, cw - 2 * gap + (gap ? 0 : 0.3), ch - 2 * gap + (gap ? 0 : 0.3));
      if (!isfinite(v)) { /* not measured: an empty frame */
        mn_set_ink(c, 0.35);
        cairo_set_line_width(c->cr, 1);
        cairo_stroke(c->cr);
        continue;
      }
      mn_rgb color = mn_ramp((v - low) / (high - low));
      mn_set_color(c, color, 1);
      cairo_fill(c->cr);
      if (!values) continue;
      mn_number_text(v, m->digits > 0 ? m->digits : 2, text);
      mn_set_color(c, mn_luminance(color) > 0.18 ? (mn_rgb){0.05, 0.07, 0.1} : (mn_rgb){1, 1, 1}, 1);
      mn_text(c, x + cw / 2, y + ch / 2, MN_CENTER, text, cw);
    }
  mn_set_font(c, 12, false);
  mn_set_ink(c, 1);
  int every_x = (int)ceil((widest_x + 10) / cw), every_y = (int)ceil(15 / ch);
  for (int k = 0; k < m->n_x; k += every_x)
    mn_text(c, left + (k + 0.5) * cw, bottom + 15, MN_CENTER, m->x_names[k], fmax(cw * every_x - 4, 8));
  for (int r = 0; r < m->n_y; r += every_y) mn_text(c, left - 8, top + (r + 0.5) * ch, MN_RIGHT, m->y_names[r], names);
  if (x_label) mn_text(c, (left + area_right) / 2, bottom + 36, MN_CENTER, m->x_label, area_right - left);
  if (y_label) mn_text_up(c, 24, (top + bottom) / 2, m->y_label, bottom - top);
  for (int i = 0; i < 128; i++) { /* the scale */
    double y0 = bottom - (bottom - top) * (i + 1) / 128;
    mn_set_color(c, mn_ramp((i + 0.5) / 128), 1);
    cairo_rectangle(c->cr, bar_right - bar_width, y0, bar_width, (bottom - top) / 128 + 0.4);
    cairo_fill(c->cr);
  }
  mn_set_ink(c, 1);
  for (int i = 0; i < bar.n; i++)
    mn_text(c, bar_right + 6, bottom - mn_axis_place(&bar, bar.tick[i]) * (bottom - top), MN_LEFT, bar.label[i], 0);
  if (m->value_label && *m->value_label) mn_text_up(c, right - 4, (top + bottom) / 2, m->value_label, bottom - top);
}

mn_status mn_heatmap_write(const mn_heatmap *m, const char *path) {
  if (m->n_x < 1 || m->n_y < 1) return mn_fail(MN_ERR_ARG, "%s: a heat map needs at least one row and one column", path);
  double height = m->height > 0 ? m->height : fmin(fmax(160 + 34.0 * m->n_y, 280), 700);
  return mn_canvas_write(path, m->width > 0 ? m->width : 800, height, paint_heatmap, m);
}
