/* plot.h - pictures of numbers: line plots, bar charts and heat maps, as SVG and PNG files and as text in a terminal.
 *
 * Fill a struct (every field may be left zero but the data), then write it or print it. Pictures have no background and
 * use tones of middle lightness, so that they read on white and on dark pages alike; every text is measured before it
 * is placed, so that nothing overlaps whatever font the machine has (cairo brings one where there is none). */
#ifndef MN_PLOT_H
#define MN_PLOT_H

#include "base/base.h"

typedef struct mn_plot_series {
  const char *label;   /* NULL or "": not in the legend                                                     */
  const double *x, *y; /* n values; a y that is NaN or infinite is a gap                                     */
  size_t n;
  size_t smooth; /* > 1: a moving average over so many points is drawn, and the points faintly behind it */
  bool dashed;   /* for a reference                                                                   */
  bool beside;   /* in the colour of the last series before it that is not: a bound of its interval   */
} mn_plot_series;

typedef struct mn_plot {
  const char *title, *subtitle, *x_label, *y_label;
  bool x_log, y_log;   /* values <= 0 are gaps                        */
  bool y_zero;         /* the y axis begins at 0                      */
  double y_min, y_max; /* when y_min < y_max: the range of the y axis */
  const mn_plot_series *series;
  int n_series;
  int width, height; /* pixels of the SVG, half those of the PNG; 0: 800 x 450 */
} mn_plot;

typedef struct mn_bars { /* horizontal bars, in groups */
  const char *title, *subtitle, *value_label;
  const char *const *groups; /* [n_groups] */
  const char *const *series; /* [n_series]; may be NULL when n_series is 1 */
  int n_groups, n_series;    /* n_series 0 counts as 1 */
  const double *values;      /* [n_groups, n_series]; NaN: no bar */
  int digits;                /* after the decimal point, of the values beside the bars; 0: as needed */
  double reference;          /* when not 0: a line at this value */
  const char *reference_label;
  int width; /* the height follows from the number of bars */
} mn_bars;

typedef struct mn_heatmap {
  const char *title, *subtitle, *x_label, *y_label, *value_label;
  const char *const *x_names, *const *y_names; /* [n_x], [n_y] */
  int n_x, n_y;
  const double *values; /* [n_y, n_x], first row on top; NaN: no cell */
  double low, high;     /* when low < high: the range of the colours */
  int digits;           /* of the values in the cells; 0: 2          */
  int width, height;
} mn_heatmap;

mn_status mn_plot_check_name(const char *path); /* before the work: does it end in .svg or .png? (MN_ERR_CONFIG) */
/* Writes a file, whole or not at all; its name's end says which: .svg or .png (MN_ERR_CONFIG otherwise). */
mn_status mn_plot_write(const mn_plot *plot, const char *path);
mn_status mn_bars_write(const mn_bars *bars, const char *path);
mn_status mn_heatmap_write(const mn_heatmap *map, const char *path);

/* The same as text for a terminal of so many columns (and rows), malloc'ed, NULL when out of memory. UTF-8; with `color`
 * ANSI colours tell the series apart, without it different marks do. */
char *mn_plot_text(const mn_plot *plot, int columns, int rows, bool color);
char *mn_bars_text(const mn_bars *bars, int columns, bool color);
char *mn_heatmap_text(const mn_heatmap *map, int columns, bool color);

#endif
