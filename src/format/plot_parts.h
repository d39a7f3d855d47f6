/* plot_parts.h - what the plot files share: axes and their ticks, which know nothing of drawing, and the cairo canvas. */
#ifndef MN_PLOT_PARTS_H
#define MN_PLOT_PARTS_H

#include <cairo.h>

#include "format/plot.h"

/* ---- axes ---- */
enum { MN_MAX_TICKS = 64, MN_TICK_CHARS = 24 };
typedef struct mn_axis {
  double low, high; /* of the data, widened; low < high */
  bool log;
  int n;
  double tick[MN_MAX_TICKS];
  char label[MN_MAX_TICKS][MN_TICK_CHARS];
} mn_axis;
/* Range and ticks for values from low to high, about `want` ticks. `widen`: margin on both sides, a fraction of the
 * range. NaN or an empty range is made into one that can be drawn. */
void mn_axis_make(mn_axis *axis, double low, double high, bool logarithmic, double widen, int want);
double mn_axis_place(const mn_axis *axis, double value);            /* 0 at low, 1 at high; outside, cut to -2 .. 3 */
void mn_number_text(double v, int digits, char out[MN_TICK_CHARS]); /* digits 0: as needed, thousands as k, M, G */
/* The range of all that can be drawn; false when there is nothing. The y of smoothed series are those of the points. */
bool mn_plot_range(const mn_plot *plot, double x[2], double y[2]);
/* The moving average of series->smooth points around each, gaps left out; malloc'ed. */
double *mn_plot_smoothed(const mn_plot_series *series);

/* ---- canvas ---- */
typedef struct mn_rgb {
  double r, g, b;
} mn_rgb;
enum { MN_PALETTE = 8 };
extern const mn_rgb mn_palette[MN_PALETTE]; /* one per series, in turn */
extern const int mn_palette_ansi[MN_PALETTE];
mn_rgb mn_ramp(double t); /* the colours of a heat map, 0..1: dark blue, green, yellow */
double mn_luminance(mn_rgb c);

typedef struct mn_canvas {
  cairo_t *cr;
  double width, height;
} mn_canvas;
typedef void (*mn_paint)(mn_canvas *canvas, const void *what);
mn_status mn_canvas_write(const char *path, double width, double height, mn_paint paint, const void *what);

enum { MN_LEFT = 0, MN_CENTER = 1, MN_RIGHT = 2 };
void mn_set_color(mn_canvas *c, mn_rgb color, double alpha);
void mn_set_ink(mn_canvas *c, double alpha); /* the colour of text and axes */
void mn_set_font(mn_canvas *c, double size, bool bold);
double mn_text_width(mn_canvas *c, const char *text);
/* The middle of capital letters at y; cut with an ellipsis where it would be wider than `room` (<= 0: no limit). */
void mn_text(mn_canvas *c, double x, double y, int align, const char *text, double room);
void mn_text_up(mn_canvas *c, double x, double y, const char *text, double room); /* turned by 90 degrees, centred */
/* Title, subtitle and legend from the top; returns the y below them. `marks` as colours by index; dashed may be NULL. */
double mn_header(mn_canvas *c, double left, double right, const char *title, const char *subtitle, const char *const *legend,
                 const bool *dashed, int n_legend);

#endif
