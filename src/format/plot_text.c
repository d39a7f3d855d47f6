/* plot_text.c - plots for a terminal: curves in braille dots (2 x 4 to a character), or in one mark per series where
 * there are no colours to tell them apart; bars in eighths of a character; heat maps as coloured numbers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/plot_parts.h"

/* ---- a growing string --------------------------------------------------------------------------------------------- */

typedef struct text {
  char *s;
  size_t n, room;
  bool failed;
} text;

static void put(text *t, const char *fmt, ...) MN_PRINTF(2, 3);
static void put(text *t, const char *fmt, ...) {
  va_list ap;
  for (;;) {
    va_start(ap, fmt);
    int n = t->failed ? 0 : vsnprintf(t->s ? t->s + t->n : NULL, t->room - t->n, fmt, ap);
    va_end(ap);
    if (t->failed || n < 0) return;
    if (t->n + (size_t)n < t->room) {
      t->n += (size_t)n;
      return;
    }
    size_t room = t->room * 2 + (size_t)n + 1024;
    char *s = mn_realloc(t->s, room);
    t->failed = !s;
    if (s) t->s = s, t->room = room;
  }
}

static char *finish(text *t) {
  if (!t->failed) return t->s;
  free(t->s);
  return NULL;
}

static int columns_of(const char *s) { /* one column per code point: labels here are names and numbers */
  int n = 0;
  for (; *s; s++) n += (*s & 0xC0) != 0x80;
  return n;
}

/* `s` in exactly `width` columns, to the right or to the left; cut with an ellipsis. */
static void put_field(text *t, const char *s, int width, bool right) {
  int n = columns_of(s);
  if (n <= width) {
    put(t, "%*s%s%*s", right ? width - n : 0, "", s, right ? 0 : width - n, "");
    return;
  }
  for (int i = 0; i < width - 1; i++) {
    int length = 1;
    while ((s[length] & 0xC0) == 0x80) length++;
    put(t, "%.*s", length, s);
    s += length;
  }
  if (width > 0) put(t, "…");
}

/* ---- curves ------------------------------------------------------------------------------------------------------- */

static const char *const marks[MN_PALETTE] = {"●", "+", "×", "◆", "○", "▲", "■", "◇"};

typedef struct grid {
  int columns, rows;
  bool dots;           /* braille, otherwise marks */
  unsigned char *dot;  /* [rows, columns]: bits of the braille pattern */
  signed char *series; /* [rows, columns]: who drew here last; -1: nobody */
} grid;

static void set_dot(grid *g, int x, int y, int series) { /* in dots, or in characters when marks are drawn */
  static const unsigned char bit[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
  int column = g->dots ? x / 2 : x, row = g->dots ? y / 4 : y;
  if (x < 0 || y < 0 || column >= g->columns || row >= g->rows) return;
  size_t at = (size_t)row * (size_t)g->columns + (size_t)column;
  if (g->dots) g->dot[at] |= bit[y % 4][x % 2];
  g->series[at] = (signed char)(series % MN_PALETTE);
}

static void set_line(grid *g, int x0, int y0, int x1, int y1, int series) { /* Bresenham */
  int dx = abs(x1 - x0), dy = -abs(y1 - y0), sx = x0 < x1 ? 1 : -1, sy = y0 < y1 ? 1 : -1, error = dx + dy;
  for (;;) {
    set_dot(g, x0, y0, series);
    if (x0 == x1 && y0 == y1) return;
    int twice = 2 * error;
    if (twice >= dy) error += dy, x0 += sx;
    if (twice <= dx) error += dx, y0 += sy;
  }
}

static void draw_series(grid *g, const mn_axis *x, const mn_axis *y, const mn_plot_series *s, int index) {
  double *smooth = s->smooth > 1 ? mn_plot_smoothed(s) : NULL;
  const double *ys = smooth ? smooth : s->y;
  int width = g->columns * (g->dots ? 2 : 1), height = g->rows * (g->dots ? 4 : 1), px = 0, py = 0;
  bool pen = false;
  for (size_t i = 0; i < s->n; i++) {
    bool good = isfinite(s->x[i]) && isfinite(ys[i]) && !(x->log && s->x[i] <= 0) && !(y->log && ys[i] <= 0);
    double fx = good ? mn_axis_place(x, s->x[i]) : 0, fy = good ? mn_axis_place(y, ys[i]) : 0;
    int cx = (int)lround(fx * (width - 1)), cy = (int)lround((1 - fy) * (height - 1));
    if (good && pen) set_line(g, px, py, cx, cy, index);
    else if (good) set_dot(g, cx, cy, index);
    pen = good;
    px = cx;
    py = cy;
  }
  free(smooth);
}

static void put_row(text *t, const grid *g, int row, bool color) {
  int open = -1, last = g->columns - 1;
  while (last >= 0 && g->series[row * g->columns + last] < 0) last--;
  for (int c = 0; c <= last; c++) {
    int at = row * g->columns + c, who = g->series[at];
    if (color && who != open && who >= 0) put(t, "\033[%dm", mn_palette_ansi[who]), open = who;
    if (who < 0) put(t, " ");
    else if (g->dots) { /* U+2800 + pattern */ unsigned v = 0x2800u + g->dot[at];
      put(t, "%c%c%c", (char)(0xE0 | v >> 12), (char)(0x80 | (v >> 6 & 0x3F)), (char)(0x80 | (v & 0x3F)));
    } else put(t, "%s", marks[who]);
  }
  if (open >= 0) put(t, "\033[0m");
}

static void put_legend(text *t, const mn_plot *p, const grid *g, int columns, bool color) {
  int used = 0, labelled = 0;
  for (int i = 0; i < p->n_series; i++) labelled += p->series[i].label && *p->series[i].label;
  if (labelled < 2) return;
  for (int i = 0; i < p->n_series; i++) {
    const char *label = p->series[i].label;
    if (!label || !*label) continue;
    int width = columns_of(label) + 2;
    if (width > columns) width = columns;
    if (used && used + 3 + width > columns) {
      put(t, "\n");
      used = 0;
    }
    if (used) put(t, "   ");
    if (color) put(t, "\033[%dm", mn_palette_ansi[i % MN_PALETTE]);
    put(t, "%s ", g->dots ? "━" : marks[i % MN_PALETTE]);
    if (color) put(t, "\033[0m");
    put_field(t, label, width - 2, false);
    used += width + (used ? 3 : 0);
  }
  put(t, "\n");
}

char *mn_plot_text(const mn_plot *p, int columns, int rows, bool color) {
  text t = {0};
  if (columns < 24) columns = 24;
  if (rows < 6) rows = 6;
  double xr[2], yr[2];
  bool any = mn_plot_range(p, xr, yr), fixed = p->y_min < p->y_max;
  int head = (p->title && *p->title) + (p->y_label && *p->y_label), foot = 2 + (p->x_label && *p->x_label);
  int height = rows - head - foot - 1;
  if (height < 3) height = 3;
  mn_axis x, y;
  mn_axis_make(&y, any || fixed ? yr[0] : (double)NAN, yr[1], p->y_log, fixed ? 0 : 0.02, height / 3);
  int label = 0;
  for (int i = 0; i < y.n; i++) label = columns_of(y.label[i]) > label ? columns_of(y.label[i]) : label;
  int width = columns - label - 2;
  if (width < 8) width = 8;
  mn_axis_make(&x, any ? xr[0] : (double)NAN, xr[1], p->x_log, 0, width / 12);
  int with_marks = 0;
  for (int i = 0; i < p->n_series; i++) with_marks += p->series[i].n > 0;
  size_t cells = (size_t)width * (size_t)height;
  grid g = {width, height, color || with_marks < 2, mn_calloc(cells, 1), mn_alloc(cells)};
  if (!g.dot || !g.series) {
    free(g.dot);
    free(g.series);
    return NULL;
  }
  memset(g.series, -1, cells);
  for (int i = 0, own = 0; i < p->n_series; i++) draw_series(&g, &x, &y, &p->series[i], p->series[i].beside ? own : (own = i));

  if (p->title && *p->title) {
    if (color) put(&t, "\033[1m");
    put_field(&t, p->title, columns_of(p->title) < columns ? columns_of(p->title) : columns, false);
    put(&t, "%s\n", color ? "\033[0m" : "");
  }
  put_legend(&t, p, &g, columns, color);
  if (p->y_label && *p->y_label) {
    put_field(&t, p->y_label, columns_of(p->y_label) < columns ? columns_of(p->y_label) : columns, false);
    put(&t, "\n");
  }
  for (int r = 0; r < height; r++) {
    const char *name = "";
    for (int i = 0; i < y.n; i++)
      if ((int)lround((1 - mn_axis_place(&y, y.tick[i])) * (height - 1)) == r) name = y.label[i];
    put_field(&t, name, label, true);
    put(&t, " %s", *name ? "┤" : "│");
    if (!any && r == height / 2) put(&t, "  no data");
    else put_row(&t, &g, r, color);
    put(&t, "\n");
  }
  char *under = mn_alloc((size_t)columns + 1);
  bool *tick = mn_calloc((size_t)width, sizeof *tick);
  if (under && tick) {
    memset(under, ' ', (size_t)columns);
    under[columns] = 0;
    int free_from = 0;
    for (int i = 0; i < x.n; i++) {
      int at = (int)lround(mn_axis_place(&x, x.tick[i]) * (width - 1)), n = (int)strlen(x.label[i]);
      int from = label + 2 + at - n / 2;
      if (at < 0 || at >= width) continue;
      if (from + n > columns) from = columns - n;
      if (from < free_from) continue; /* a label never touches the one before */
      tick[at] = true;
      memcpy(under + from, x.label[i], (size_t)n);
      free_from = from + n + 1;
    }
    put(&t, "%*s └", label, "");
    for (int c = 0; c < width; c++) put(&t, "%s", tick[c] ? "┬" : "─");
    for (int n = columns; n > 0 && under[n - 1] == ' ';) under[--n] = 0;
    put(&t, "\n%s\n", under);
  }
  if (p->x_label && *p->x_label) {
    int n = columns_of(p->x_label), pad = label + 2 + (width - n) / 2;
    put(&t, "%*s", pad > 0 && n < columns ? pad : 0, "");
    put_field(&t, p->x_label, n < columns ? n : columns, false);
    put(&t, "\n");
  }
  free(under);
  free(tick);
  free(g.dot);
  free(g.series);
  return finish(&t);
}

/* ---- bars and heat maps ------------------------------------------------------------------------------------------- */

char *mn_bars_text(const mn_bars *b, int columns, bool color) {
  static const char *const eighth[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  text t = {0};
  int n_series = b->n_series > 0 ? b->n_series : 1, label = 0, value = 0;
  double high = b->reference > 0 ? b->reference : 0;
  char number[MN_TICK_CHARS];
  for (int i = 0; i < b->n_groups * n_series; i++) {
    double v = fabs(b->values[i]);
    if (isfinite(v) && v > high) high = v;
    mn_number_text(b->values[i], b->digits, number);
    if ((int)strlen(number) > value) value = (int)strlen(number);
  }
  for (int i = 0; i < b->n_groups; i++) label = columns_of(b->groups[i]) > label ? columns_of(b->groups[i]) : label;
  int series = 0;
  for (int i = 0; n_series > 1 && b->series && i < n_series; i++)
    series = columns_of(b->series[i]) > series ? columns_of(b->series[i]) : series;
  if (label > columns / 3) label = columns / 3;
  if (series > columns / 4) series = columns / 4;
  int width = columns - label - (series ? series + 2 : 0) - value - 4;
  if (width < 8) width = 8;
  if (b->title && *b->title) put(&t, "%s%s%s\n", color ? "\033[1m" : "", b->title, color ? "\033[0m" : "");
  for (int g = 0; g < b->n_groups; g++)
    for (int s = 0; s < n_series; s++) {
      double v = b->values[g * n_series + s];
      put_field(&t, s == 0 ? b->groups[g] : "", label, false);
      if (series) put(&t, "  "), put_field(&t, b->series[s], series, false);
      put(&t, "  ");
      int n = isfinite(v) && high > 0 ? (int)lround(fabs(v) / high * width * 8) : 0;
      if (color) put(&t, "\033[%dm", mn_palette_ansi[s % MN_PALETTE]);
      for (int i = 0; i < n / 8; i++) put(&t, "█");
      put(&t, "%s%s", eighth[n % 8], color ? "\033[0m" : "");
      mn_number_text(v, b->digits, number);
      put(&t, " %s\n", number);
    }
  if (b->value_label && *b->value_label) put(&t, "%*s%s\n", label + (series ? series + 2 : 0) + 2, "", b->value_label);
  return finish(&t);
}

char *mn_heatmap_text(const mn_heatmap *m, int columns, bool color) {
  text t = {0};
  char number[MN_TICK_CHARS];
  double low = INFINITY, high = -INFINITY;
  int label = 0, width = 3;
  for (int i = 0; i < m->n_y; i++) label = columns_of(m->y_names[i]) > label ? columns_of(m->y_names[i]) : label;
  for (int i = 0; i < m->n_x; i++) width = columns_of(m->x_names[i]) > width ? columns_of(m->x_names[i]) : width;
  for (int i = 0; i < m->n_x * m->n_y; i++) {
    if (isfinite(m->values[i])) low = fmin(low, m->values[i]), high = fmax(high, m->values[i]);
    mn_number_text(m->values[i], m->digits > 0 ? m->digits : 2, number);
    if ((int)strlen(number) > width) width = (int)strlen(number);
  }
  if (m->low < m->high) low = m->low, high = m->high;
  if (label > columns / 3) label = columns / 3;
  if (width > 10) width = 10;
  int shown = (columns - label) / (width + 2);
  if (shown > m->n_x) shown = m->n_x;
  if (m->title && *m->title) put(&t, "%s%s%s\n", color ? "\033[1m" : "", m->title, color ? "\033[0m" : "");
  put_field(&t, "", label, false);
  for (int k = 0; k < shown; k++) put(&t, "  "), put_field(&t, m->x_names[k], width, true);
  put(&t, "\n");
  for (int r = 0; r < m->n_y; r++) {
    put_field(&t, m->y_names[r], label, true);
    for (int k = 0; k < shown; k++) {
      double v = m->values[r * m->n_x + k];
      mn_number_text(v, m->digits > 0 ? m->digits : 2, number);
      if (color && isfinite(v)) {
        mn_rgb c = mn_ramp(high > low ? (v - low) / (high - low) : 0.5);
        put(&t, " \033[48;2;%d;%d;%d;%sm ", (int)(c.r * 255), (int)(c.g * 255), (int)(c.b * 255),
            mn_luminance(c) > 0.18 ? "38;2;12;18;25" : "38;2;255;255;255");
        put_field(&t, number, width, true);
        put(&t, "\033[0m");
      } else put(&t, "  "), put_field(&t, number, width, true);
    }
    put(&t, "\n");
  }
  if (shown < m->n_x) put(&t, "(%d more columns: a wider terminal shows them)\n", m->n_x - shown);
  if (m->x_label && *m->x_label) put(&t, "%*s  %s\n", label, "", m->x_label);
  return finish(&t);
}
