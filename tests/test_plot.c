/* test_plot.c - plots: ticks that people would choose, curves where the data are, colours that read on light and dark
 * pages, text that fits the terminal, and files written whole or not at all. */
#include "format/plot.h"

#include <cairo.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "format/plot_parts.h"
#include "test.h"

static char dir[64] = P_tmpdir "/mneme-test-plot-XXXXXX";
static const char *at(const char *name) {
  static char path[4][256];
  static int i;
  i = (i + 1) % 4;
  snprintf(path[i], sizeof path[i], "%s/%s", dir, name);
  return path[i];
}

static void ticks_are_what_people_would_choose(void) {
  static const struct {
    double low, high;
    bool log;
    int want;
    const char *expect;
  } cases[] = {{0, 10, false, 5, "0 2 4 6 8 10"},
               {0, 1, false, 5, "0 0.2 0.4 0.6 0.8 1.0"},
               {-0.013, 0.021, false, 4, "-0.01 0 0.01 0.02"},
               {0, 50000, false, 5, "0 10k 20k 30k 40k 50k"},
               {0, 2500000, false, 5, "0 0.5M 1.0M 1.5M 2.0M 2.5M"},
               {1, 1000, true, 4, "1 10 100 1000"},
               {1, 1e6, true, 6, "1 10 100 1k 10k 100k 1M"},
               {2, 9, true, 6, "2 5"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    mn_axis axis;
    char got[512] = "";
    mn_axis_make(&axis, cases[i].low, cases[i].high, cases[i].log, 0, cases[i].want);
    for (int k = 0; k < axis.n; k++) strcat(strcat(got, k ? " " : ""), axis.label[k]);
    if (i < 7) CHECK(!strcmp(got, cases[i].expect), "%g..%g: %s, expected %s", cases[i].low, cases[i].high, got, cases[i].expect);
    else CHECK(axis.n >= 3, "less than a decade still has ticks: %s", got);
  }
  static const double ranges[][2] = {{0, 0},     {5, 5},        {-3, -3}, {1e-300, 2e-300}, {-1e300, 1e300}, {1e15, 1e15 + 1},
                                     {NAN, NAN}, {INFINITY, 3}, {3, 2},   {0, 1e-9},        {1e-12, 1e12},   {0, 5e-324}};
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
    for (int log = 0; log < 2; log++) {
      mn_axis axis;
      mn_axis_make(&axis, ranges[i][0], ranges[i][1], log, 0.05, 6);
      CHECK(axis.low < axis.high && axis.n <= MN_MAX_TICKS, "%g..%g", ranges[i][0], ranges[i][1]);
      for (int k = 1; k < axis.n; k++) CHECK(axis.tick[k] > axis.tick[k - 1], "ticks rise: %g %g", axis.tick[k - 1], axis.tick[k]);
      for (int k = 0; k < axis.n; k++) {
        double place = mn_axis_place(&axis, axis.tick[k]);
        CHECK(place > -1e-6 && place < 1 + 1e-6, "%g..%g: tick %g outside", ranges[i][0], ranges[i][1], axis.tick[k]);
      }
    }
}

static double contrast(double a, double b) { return (fmax(a, b) + 0.05) / (fmin(a, b) + 0.05); }

static void colours_read_on_light_and_dark(void) {
  double dark = mn_luminance((mn_rgb){0x0d / 255.0, 0x11 / 255.0, 0x17 / 255.0});
  for (int i = 0; i < MN_PALETTE; i++) {
    double l = mn_luminance(mn_palette[i]);
    CHECK(contrast(l, 1) >= 3 && contrast(l, dark) >= 3, "colour %d: %.2f on white, %.2f on dark", i, contrast(l, 1), contrast(l, dark));
  }
  for (double t = 0.05; t <= 1.0; t += 0.05)
    CHECK(mn_luminance(mn_ramp(t)) > mn_luminance(mn_ramp(t - 0.05)), "the ramp gets lighter at %.2f", t);
}

/* The pixel of a PNG, not premultiplied, as 0..1; alpha in *a. */
static mn_rgb pixel(cairo_surface_t *s, int x, int y, double *a) {
  const unsigned char *p = cairo_image_surface_get_data(s) + y * cairo_image_surface_get_stride(s) + 4 * x;
  uint32_t v;
  memcpy(&v, p, 4);
  *a = (v >> 24) / 255.0;
  double scale = *a > 0 ? 255.0 * *a : 1;
  return (mn_rgb){(v >> 16 & 255) / scale, (v >> 8 & 255) / scale, (v & 255) / scale};
}

static bool close_to(mn_rgb a, mn_rgb b) { return fabs(a.r - b.r) + fabs(a.g - b.g) + fabs(a.b - b.b) < 0.06; }

static void curves_are_where_the_data_are(void) {
  double x[101], up[101], flat[101];
  for (int i = 0; i <= 100; i++) x[i] = i, up[i] = i / 100.0, flat[i] = 0.5;
  flat[50] = (double)NAN;
  mn_plot_series s[2] = {{.label = "up", .x = x, .y = up, .n = 101}, {.label = "flat", .x = x, .y = flat, .n = 101}};
  mn_plot p = {.title = "title", .x_label = "x", .y_label = "y", .series = s, .n_series = 2, .width = 400, .height = 300};
  CHECK_OK(mn_plot_write(&p, at("curve.png")));
  cairo_surface_t *png = cairo_image_surface_create_from_png(at("curve.png"));
  CHECK(cairo_image_surface_get_width(png) == 800 && cairo_image_surface_get_height(png) == 600, "twice the size");
  double a;
  pixel(png, 2, 2, &a);
  CHECK(a == 0, "no background");
  /* Below the header, the first colour must rise from left to right and the second stay level. */
  double first_up[2] = {0}, first_flat[2] = {0};
  int n_up[2] = {0}, n_flat[2] = {0};
  for (int yy = 130; yy < 500; yy++)
    for (int xx = 100; xx < 780; xx++) {
      mn_rgb c = pixel(png, xx, yy, &a);
      int side = xx > 440;
      if (a > 0.9 && close_to(c, mn_palette[0])) first_up[side] += yy, n_up[side]++;
      if (a > 0.9 && close_to(c, mn_palette[1])) first_flat[side] += yy, n_flat[side]++;
    }
  CHECK(n_up[0] > 300 && n_up[1] > 300 && first_up[0] / n_up[0] > first_up[1] / n_up[1] + 100, "rises: %d %d", n_up[0], n_up[1]);
  CHECK(n_flat[0] > 300 && n_flat[1] > 300 && fabs(first_flat[0] / n_flat[0] - first_flat[1] / n_flat[1]) < 2, "level");
  cairo_surface_destroy(png);
}

static void svg_is_small_and_whole(void) {
  enum { N = 200000 };
  double *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
  for (int i = 0; i < N; i++) x[i] = i, y[i] = 2 + mn_random_normal(1, 2, (uint64_t)i);
  mn_plot_series s = {.label = "noise", .x = x, .y = y, .n = N, .smooth = 500};
  mn_plot p = {.title = "a < b & \"c\"", .subtitle = "\xff bytes that are not text \xc3", .series = &s, .n_series = 1};
  CHECK_OK(mn_plot_write(&p, at("big.svg")));
  char *text;
  size_t n;
  CHECK_OK(mn_file_read(at("big.svg"), 1 << 24, &text, &n));
  CHECK(n < 400000, "%zu bytes for 200,000 points", n);
  CHECK(strstr(text, "<svg") && strstr(text, "width=\"800px\"") && strstr(text, "</svg>"), "an svg file");
  free(text);
  free(x);
  free(y);
}

static void hostile_data_still_make_a_picture(void) {
  double x[4] = {0, 1, 2, 3}, none[4] = {NAN, NAN, NAN, NAN}, huge[4] = {-1e308, 1e308, 0, INFINITY}, neg[4] = {-1, -2, 0, 5};
  mn_plot_series s[3] = {{.label = "none", .x = x, .y = none, .n = 4},
                         {.label = "huge", .x = x, .y = huge, .n = 4},
                         {.label = "negative", .x = x, .y = neg, .n = 4, .smooth = 100}};
  for (int first = 0; first < 3; first++)
    for (int n = 0; n <= 3 - first; n++)
      for (int log = 0; log < 4; log++) {
        mn_plot p = {.series = s + first, .n_series = n, .x_log = log & 1, .y_log = log & 2, .width = 200, .height = 120};
        CHECK_OK(mn_plot_write(&p, at("hostile.png")));
        char *text = mn_plot_text(&p, 40, 10, log & 1);
        CHECK(text && strchr(text, '\n'), "text");
        if (n == 0 || (first == 0 && n == 1)) CHECK(strstr(text, "no data"), "says so: %s", text);
        free(text);
      }
  const char *name = "a name that is far too long for the picture that it is a name in, by any measure at all, really";
  const char *names[] = {name, name};
  double v[4] = {1, NAN, -2, 1e9};
  mn_bars b = {.title = name, .groups = names, .series = names, .n_groups = 2, .n_series = 2, .values = v, .width = 200};
  CHECK_OK(mn_bars_write(&b, at("bars.png")));
  mn_heatmap m = {.title = name, .x_names = names, .y_names = names, .n_x = 2, .n_y = 2, .values = v, .width = 200};
  CHECK_OK(mn_heatmap_write(&m, at("heat.svg")));
  m.n_x = 0;
  CHECK(mn_heatmap_write(&m, at("heat.svg")) == MN_ERR_ARG, "nothing to draw");
}

static void files_whole_or_not_at_all(void) {
  mn_plot p = {.title = "t"};
  CHECK(mn_plot_write(&p, at("x.jpg")) == MN_ERR_CONFIG && strstr(mn_message(), ".svg or .png"), "%s", mn_message());
  CHECK(mn_plot_write(&p, at("nonsuch/x.png")) == MN_ERR_IO && strstr(mn_message(), "nonsuch"), "%s", mn_message());
  CHECK(!mn_file_exists(at("x.jpg")), "nothing is left");
}

/* Columns of a line, escape sequences aside. */
static int width_of(const char *line, size_t n) {
  int columns = 0;
  for (size_t i = 0; i < n; i++) {
    if (line[i] == '\033') {
      while (i < n && line[i] != 'm') i++;
      continue;
    }
    columns += (line[i] & 0xC0) != 0x80;
  }
  return columns;
}

static void check_text(char *text, int columns, int rows, bool color, const char *what) {
  int lines = 0;
  CHECK(text, "%s: no text", what);
  if (!text) return;
  for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1, lines++)
    CHECK(width_of(line, (size_t)(end - line)) <= columns, "%s: %d columns: %.*s", what, width_of(line, (size_t)(end - line)),
          (int)(end - line), line);
  CHECK(lines <= rows && lines >= 2, "%s: %d lines", what, lines);
  CHECK((strchr(text, '\033') != NULL) == color, "%s: colours", what);
  free(text);
}

static void text_fits_the_terminal(void) {
  double x[500], a[500], b[500];
  for (int i = 0; i < 500; i++) x[i] = i * 1000, a[i] = 5 * exp(-i / 100.0), b[i] = 6 * exp(-i / 150.0);
  mn_plot_series s[2] = {{.label = "titans", .x = x, .y = a, .n = 500}, {.label = "its windowed twin", .x = x, .y = b, .n = 500}};
  mn_plot p = {.title = "loss", .x_label = "tokens", .y_label = "nats", .series = s, .n_series = 2};
  for (int columns = 24; columns <= 160; columns += 17)
    for (int color = 0; color < 2; color++) check_text(mn_plot_text(&p, columns, 20, color), columns, 20 + 2, color, "plot");
  char *text = mn_plot_text(&p, 60, 16, false);
  CHECK(strstr(text, "●") && strstr(text, "+") && !strstr(text, "\xe2\xa0"), "marks without colours: %s", text);
  CHECK(strstr(text, "400k") && strstr(text, "└"), "ticks: %s", text);
  /* The first curve is the lower one: its mark must be below the other's in the middle. */
  free(text);
  text = mn_plot_text(&p, 60, 16, true);
  CHECK(strstr(text, "\xe2\xa0") || strstr(text, "\xe2\xa1") || strstr(text, "\xe2\xa2"), "braille with colours");
  free(text);
  const char *groups[] = {"attention", "titans"}, *series[] = {"seed 1", "seed 2"};
  double v[4] = {0.25, 0.3, 1, 0.9};
  mn_bars bars = {.title = "recall", .groups = groups, .series = series, .n_groups = 2, .n_series = 2, .values = v, .digits = 2};
  text = mn_bars_text(&bars, 60, false);
  int cells[4] = {0}, row = -1;
  for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1, row++)
    for (char *c = line; row >= 0 && row < 4 && c < end; c++) cells[row] += !strncmp(c, "█", 3);
  CHECK(cells[2] > 3 * cells[0] && cells[2] <= 4 * cells[0] + 4 && strstr(text, "0.25"), "lengths as the values: %d %d", cells[0],
        cells[2]);
  free(text);
  check_text(mn_bars_text(&bars, 60, true), 60, 10, true, "bars");
  mn_heatmap m = {.title = "recall", .x_label = "length", .x_names = series, .y_names = groups, .n_x = 2, .n_y = 2, .values = v};
  check_text(mn_heatmap_text(&m, 40, true), 40, 10, true, "heat map");
  check_text(mn_heatmap_text(&m, 40, false), 40, 10, false, "heat map");
}

static void averages_are_centred(void) {
  double x[101], y[101];
  for (int i = 0; i <= 100; i++) x[i] = i, y[i] = 3 * i + (i % 2 ? 1 : -1);
  y[40] = (double)NAN;
  mn_plot_series s = {.x = x, .y = y, .n = 101, .smooth = 21};
  double *m = mn_plot_smoothed(&s);
  CHECK(isnan(m[40]), "gaps stay");
  for (int i = 0; i <= 85; i++)
    if (i < 30 || i > 50) CHECK(fabs(m[i] - 3 * i) <= 1.0, "%d: %g", i, m[i]);
  free(m);
}

int main(void) {
  if (!mkdtemp(dir)) return 1;
  RUN(ticks_are_what_people_would_choose);
  RUN(colours_read_on_light_and_dark);
  RUN(curves_are_where_the_data_are);
  RUN(svg_is_small_and_whole);
  RUN(hostile_data_still_make_a_picture);
  RUN(files_whole_or_not_at_all);
  RUN(text_fits_the_terminal);
  RUN(averages_are_centred);
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", dir);
  return system(command) == 0 ? test_end() : 1;
}
