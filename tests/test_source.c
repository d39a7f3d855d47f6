/* test_source.c - what must be true of sources, in order: a batch is a pure function of (split, seed, step); every example of an
 * epoch comes once; splits do not overlap; series have the standard splits and a scaler of the training rows; pictures and sounds
 * with their classes; no field that nobody takes; a file that is not what it says is refused by key and name. */
#include <cairo.h>
#include <math.h>

#include "model/model.h"
#include "objective/objective.h"
#include "source/mel.h"
#include "source/source.h"
#include "train_helpers.h"
#include "wav_file.h"

static mn_arena *arena;
static mn_tokenizer *bytes; /* ids are bytes, 256 ends */

static mn_status try_open(const char *yaml, mn_source **out) {
  const mn_value *v = NULL;
  mn_source_config *c = mn_arena_alloc(arena, sizeof *c);
  *out = NULL;
  MN_TRY(mn_yaml_parse(arena, "recipe.yaml", yaml, strlen(yaml), &v));
  MN_TRY(mn_source_parse(arena, v, "data", 3, c));
  return mn_source_open(c, bytes, NULL, out);
}

static mn_source *open_source(const char *yaml) {
  mn_source *s = NULL;
  CHECK_OK(try_open(yaml, &s));
  return s;
}

static const char *yaml_of(const char *fmt, const char *a, const char *b) { return mn_arena_format(arena, fmt, a, b); }

static uint64_t hash_of(const mn_batch *b) {
  uint64_t h = (uint64_t)b->rows;
  for (int i = 0; i < b->n; i++)
    h = mn_hash_bytes(b->data[i], (size_t)mn_shape_count(&b->field[i].shape) * mn_dtype_size(b->field[i].dtype), h);
  return h;
}

static bool has_port(const mn_port *p, const char *name) {
  for (; p && p->name; p++)
    if (!strcmp(p->name, name)) return true;
  return false;
}

/* Does a kind of model, as it is without keys, or an objective take what has this name? The trainer itself takes `reset`. */
static bool is_taken(const char *name) {
  bool taken = !strcmp(name, "reset");
  for (int i = 0; i < mn_model_count(); i++) taken |= has_port(mn_model_at(i)->inputs, name);
  for (int i = 0; i < mn_objective_count(); i++) {
    const mn_objective_def *o = mn_objective_at(i);
    const mn_port *outputs = NULL, *data = NULL;
    o->needs(mn_arena_alloc(arena, o->config_size + 1), &outputs, &data); /* zeros */
    taken |= has_port(data, name);
  }
  return taken;
}

static void check_taken(const mn_source *s) {
  mn_batch layout = {.B = 4, .T = 8};
  s->def->layout(s, &layout);
  for (int i = 0; i < layout.n; i++) CHECK(is_taken(layout.field[i].name), "%s: nobody takes %s", s->def->name, layout.field[i].name);
  CHECK(layout.n > 0 && !is_taken("nothing"), "%s", s->def->name);
}

/* The batch of a step is the same whatever was asked before, and another for another step. */
static void check_pure(mn_source *s, int64_t T) {
  mn_batch b;
  check_taken(s);
  CHECK_OK(mn_batch_new(s, 4, T, &b));
  uint64_t h[3];
  for (int k = 0; k < 3; k++) {
    CHECK_OK(mn_source_fill(s, MN_SPLIT_TRAIN, (int64_t[]){2, 1000003, 2}[k], &b));
    h[k] = hash_of(&b);
  }
  CHECK(h[0] == h[2] && h[0] != h[1], "%s: a batch is not a function of its step", s->def->name);
  CHECK(mn_source_fill(s, MN_SPLIT_TRAIN, -1, &b) == MN_ERR_ARG && mn_source_fill(s, MN_SPLIT_TRAIN, INT64_MAX, &b) == MN_ERR_ARG,
        "impossible steps");
  mn_batch_free(&b);
}

/* ---- series ---- */

/* Column a counts rows, b is a wave, c is constant. */
static const char *write_series(const char *name, int rows) {
  mn_text t = {0};
  mn_text_add(&t, "date,a,b,c\n");
  for (int i = 0; i < rows; i++) mn_text_addf(&t, "2016-07-01 %02d:00,%d,%.6f,5\n", i % 24, i, sin(0.1 * i));
  const char *path = mn_arena_strdup(arena, test_path(name));
  CHECK_OK(mn_file_write(path, t.data, t.len));
  mn_text_free(&t);
  return path;
}

static void test_series(void) {
  const char *path = write_series("plain.csv", 100);
  mn_source *s = open_source(yaml_of("{type: series, file: '%s', input: 10, horizon: 5, scale: false}%s", path, ""));
  if (!s) return;
  mn_batch b;
  CHECK_OK(mn_batch_new(s, 4, 10, &b));
  CHECK(b.n == 2 && b.field[0].shape.dim[1] == 10 && b.field[0].shape.dim[2] == 3 && b.field[1].shape.dim[1] == 5, "fields");
  /* 70, 10, 20 rows: windows of 15 rows; those of validation and test begin 10 rows before their part */
  CHECK(mn_source_steps(s, MN_SPLIT_TRAIN, 1, 10) == 56 && mn_source_steps(s, MN_SPLIT_VALIDATION, 1, 10) == 6 &&
            mn_source_steps(s, MN_SPLIT_TEST, 1, 10) == 16,
        "windows: %lld %lld %lld", (long long)mn_source_steps(s, 0, 1, 10), (long long)mn_source_steps(s, 1, 1, 10),
        (long long)mn_source_steps(s, 2, 1, 10));
  int seen[56] = {0};
  for (int step = 0; step < 14; step++) {
    CHECK_OK(mn_source_fill(s, MN_SPLIT_TRAIN, step, &b));
    for (int r = 0; r < 4; r++) {
      const float *x = mn_batch_row(&b, 0, r), *y = mn_batch_row(&b, 1, r);
      int first = (int)x[0];
      if (first >= 0 && first < 56) seen[first]++;
      CHECK((int)x[9 * 3] == first + 9 && (int)y[0] == first + 10 && (int)y[4 * 3] == first + 14 && y[2] == 5,
            "the target follows the window");
    }
  }
  for (int i = 0; i < 56; i++) CHECK(seen[i] == 1, "window %d came %d times in an epoch", i, seen[i]);
  CHECK_OK(mn_source_fill(s, MN_SPLIT_VALIDATION, 1, &b));
  CHECK(b.rows == 2 && *(const float *)mn_batch_row(&b, 0, 0) == 64 && *(const float *)mn_batch_row(&b, 0, 3) == 0,
        "a short last batch: %lld rows", (long long)b.rows);
  CHECK_OK(mn_source_fill(s, MN_SPLIT_TEST, 0, &b));
  CHECK(*(const float *)mn_batch_row(&b, 1, 0) == 80, "the test begins with its first row");
  check_pure(s, 10);
  mn_batch_free(&b);
  mn_source_close(s);
}

static void test_series_scaler_and_standard_splits(void) {
  const char *path = write_series("ett.csv", 15000);
  mn_source *s = open_source(yaml_of("{type: series, file: '%s', columns: [b, a], split: ett_hour, input: 96, horizon: 24}%s", path, ""));
  if (!s) return;
  CHECK(mn_source_steps(s, MN_SPLIT_TRAIN, 1, 96) == 8640 - 96 - 24 + 1 &&
            mn_source_steps(s, MN_SPLIT_VALIDATION, 1, 96) == 2880 - 24 + 1 && mn_source_steps(s, MN_SPLIT_TEST, 1, 96) == 2880 - 24 + 1,
        "12, 4 and 4 months of 30 days");
  mn_batch b;
  CHECK_OK(mn_batch_new(s, 1, 96, &b));
  CHECK_OK(mn_source_fill(s, MN_SPLIT_TEST, 0, &b));
  double mean = 8639 / 2.0, deviation = sqrt((8640.0 * 8640.0 - 1) / 12), got = (double)((const float *)mn_batch_row(&b, 1, 0))[1];
  CHECK(fabs(got - (11520 - mean) / deviation) < 1e-5, "row 11520 by the scaler of rows 0 to 8639: %g", got);
  mn_batch_free(&b);
  mn_source_close(s);
}

/* Columns far from 0, far smaller than 1, and constant: what varies is what comes out, to f32's last places, whatever it stands beside. */
static void test_series_keeps_what_varies(void) {
  enum { ROWS = 100, TRAIN = 70, COLUMNS = 5, VARY = 3 };
  static const double at[COLUMNS] = {1e8, 1.7e9, 0, 0.1, 0.3},
                      size[COLUMNS] = {1, 1e-3, 1e-42, 0, DBL_EPSILON / 4}; /* the last: by rounding */
  mn_text t = {0};
  mn_text_add(&t, "far,time,small,constant,rounded\n");
  for (int r = 0; r < ROWS; r++)
    for (int c = 0; c < COLUMNS; c++) mn_text_addf(&t, "%.17g%s", at[c] + size[c] * sin(r), c + 1 < COLUMNS ? "," : "\n");
  CHECK_OK(mn_file_write(test_path("far.csv"), t.data, t.len));
  mn_text_free(&t);
  mn_source *s = open_source(yaml_of("{type: series, file: '%s', input: 1, horizon: 1}%s", test_path("far.csv"), ""));
  if (!s) return;
  mn_batch b;
  CHECK_OK(mn_batch_new(s, 1, 1, &b));
  double mean = 0, square = 0;
  for (int r = 0; r < TRAIN; r++) mean += sin(r) / TRAIN;
  for (int r = 0; r < TRAIN; r++) square += (sin(r) - mean) * (sin(r) - mean) / TRAIN;
  for (int i = 0; i < 20; i++) {
    CHECK_OK(mn_source_fill(s, MN_SPLIT_TEST, i, &b));
    const float *y = mn_batch_row(&b, 1, 0);
    const double want = (sin(80 + i) - mean) / sqrt(square);
    for (int c = 0; c < VARY; c++) CHECK(fabs((double)y[c] - want) < 2e-3, "row %d, column %d: %g for %g", 80 + i, c, (double)y[c], want);
    CHECK(y[VARY] == 0 && fabs((double)y[VARY + 1]) < 1e-15, "constant columns: %g, %g", (double)y[VARY], (double)y[VARY + 1]);
  }
  mn_batch_free(&b);
  mn_source_close(s);
}

/* Who asks the trained model is told how its numbers were scaled. */
static void test_series_says_its_scale(void) {
  const char *path = write_series("said.csv", 100);
  for (int scaled = 0; scaled < 2; scaled++) {
    mn_source *s =
        open_source(yaml_of("{type: series, file: '%s', columns: [c, a], input: 10, horizon: 5%s}", path, scaled ? "" : ", scale: false"));
    if (!s) return;
    const mn_value *v = s->def->reads ? s->def->reads(s, arena) : NULL, *name = mn_value_get(v, "columns"), *mean = mn_value_get(v, "mean"),
                   *deviation = mn_value_get(v, "deviation");
    CHECK(name && mean && deviation && name->count == 2 && mean->count == 2 && deviation->count == 2, "three lists of two");
    if (!name || !mean || !deviation) return;
    CHECK(!strcmp(name->as.items[0]->as.text, "c") && !strcmp(name->as.items[1]->as.text, "a"), "in the model's order");
    const double of_a = scaled ? 34.5 : 0, wide = scaled ? sqrt((70.0 * 70 - 1) / 12) : 1;
    CHECK(fabs(mean->as.items[1]->as.real - of_a) < 1e-9 && fabs(deviation->as.items[1]->as.real - wide) < 1e-9, "%g, %g",
          mean->as.items[1]->as.real, deviation->as.items[1]->as.real);
    CHECK(mean->as.items[0]->as.real == (scaled ? 5 : 0) && deviation->as.items[0]->as.real == 1, "of a constant column");
    mn_source_close(s);
  }
}

static void test_series_is_refused(void) {
  static const struct {
    const char *text, *rest, *part, *more;
  } bad[] = {{"a,b\n1,2\n3,nan\n", "", "bad.csv:3: column b", "finite number"},
             {"a,b\n1,2\n3\n", "", "bad.csv:3", "1 columns"},
             {"a,b\n1,2\n3,4\n", ", columns: [bb]", "no column 'bb'", "did you mean 'b'"},
             {"a\nx\n", "", "bad.csv", "no column holds numbers"},
             {"a;b\n1;2\n3;4\n", "", "bad.csv", "apart by semicolons"},
             {"a;b\n1,5;2,0\n", "", "bad.csv", "apart by semicolons"},
             {"a\tb\n1\t2\n", "", "bad.csv", "apart by tabs"},
             {"a,b\r1,2\r3,4\r", "", "bad.csv", "end with CR alone"},
             {"a,b\n,2\n3,4\n", "", "bad.csv:2: column a holds ''", "data.columns"},
             {"a,b\n-,2\n5,3\n3,4\n", "", "bad.csv:2: column a holds '-'", "data.columns"},
             {"a,b,a\n1,2,3\n3,4,5\n", "", "bad.csv:1", "two columns are called 'a'"},
             {"2016-07-01,1.5\n2016-07-02,2\n2016-07-03,3\n", "", "bad.csv:1: the first line should name the columns", "header: false"},
             {"1,2.5\n2,3\n4,5\n", "", "bad.csv:1", "holds values"},
             {"a,b\n1,2\n3,4\n", ", columns: [b, a, b]", "data.columns", "'b' stands there twice"},
             {"a,b\n1,2\n3,4\n", ", split: ett_hour", "needs 14400 rows", "has 2"},
             {"a,b\n1,2\n3,4\n", "", "bad.csv has 2 rows, of which 1 are for training", "data.input 1 + data.horizon 1"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    const char *path = mn_arena_strdup(arena, test_path("bad.csv"));
    mn_source *s;
    CHECK_OK(mn_file_write(path, bad[i].text, strlen(bad[i].text)));
    mn_status status = try_open(yaml_of("{type: series, file: '%s', input: 1, horizon: 1%s}", path, bad[i].rest), &s);
    CHECK(status != MN_OK && strstr(mn_message(), bad[i].part) && strstr(mn_message(), bad[i].more), "%s: %s", bad[i].text, mn_message());
  }
}

/* The remedy names a key that this source has. */
static void test_an_empty_part_has_a_remedy(void) {
  const char *path = mn_arena_strdup(arena, test_path("short.csv"));
  mn_text rows = {0};
  for (int i = 0; i < 20; i++) mn_text_addf(&rows, "%d.5\n", i);
  CHECK_OK(mn_file_write(path, rows.data, rows.len));
  mn_text_free(&rows);
  mn_source *s = open_source(yaml_of("{type: series, file: '%s', header: false, input: 2, horizon: 6%s}", path, ""));
  if (!s) return;
  CHECK(mn_source_check(s, MN_SPLIT_VALIDATION, 1, 2) == MN_ERR_CONFIG &&
            strstr(mn_message(), "no validation example; raise data.fractions") && strstr(mn_message(), "train.validate_every: 0") &&
            !strstr(mn_message(), "data.validation"),
        "%s", mn_message());
  mn_source_close(s);
}

/* ---- pictures ---- */

static void write_idx(const char *name, int ndim, const int *dim, const uint8_t *data) {
  uint8_t head[20] = {0, 0, 8, (uint8_t)ndim};
  mn_text t = {0};
  size_t n = 1;
  for (int i = 0; i < ndim; i++) head[4 + 4 * i + 2] = (uint8_t)(dim[i] >> 8), head[4 + 4 * i + 3] = (uint8_t)dim[i], n *= (size_t)dim[i];
  mn_text_add_bytes(&t, (const char *)head, 4 + 4 * (size_t)ndim);
  mn_text_add_bytes(&t, (const char *)data, n);
  CHECK_OK(mn_file_write(test_path(name), t.data, t.len));
  mn_text_free(&t);
}

static void test_images(void) {
  static uint8_t pixels[40 * 12], labels[40];
  for (int i = 0; i < 40; i++) {
    labels[i] = (uint8_t)(i % 5);
    for (int k = 0; k < 12; k++) pixels[i * 12 + k] = (uint8_t)(6 * i + k % 3);
  }
  write_idx("i.idx", 3, (const int[]){40, 3, 4}, pixels);
  write_idx("l.idx", 1, (const int[]){40}, labels);
  write_idx("l39.idx", 1, (const int[]){39}, labels);
  const char *set = "{type: images, images: '%s', labels: '%s', validation: 0.25, mean: 0, deviation: 1}";
  const char *images = mn_arena_strdup(arena, test_path("i.idx")), *classes = mn_arena_strdup(arena, test_path("l.idx"));
  mn_source *s = open_source(yaml_of(set, images, classes));
  if (!s) return;
  CHECK(s->classes == 5 && mn_source_steps(s, MN_SPLIT_TRAIN, 1, 1) == 30 && mn_source_steps(s, MN_SPLIT_VALIDATION, 1, 1) == 10, "splits");
  mn_batch b;
  int seen[40] = {0};
  CHECK_OK(mn_batch_new(s, 1, 1, &b));
  for (int i = 0; i < 40; i++) {
    CHECK_OK(mn_source_fill(s, i < 30 ? MN_SPLIT_TRAIN : MN_SPLIT_VALIDATION, i < 30 ? i : i - 30, &b));
    const float *x = b.data[0];
    int which = (int)lround((double)x[0] * 255) / 6;
    if (which >= 0 && which < 40) seen[which]++;
    CHECK(*(const int32_t *)b.data[1] == which % 5 && fabs((double)x[5] * 255 - (6 * which + 2)) < 1e-3, "picture %d", which);
  }
  for (int i = 0; i < 40; i++) CHECK(seen[i] == 1, "picture %d came %d times in training and validation", i, seen[i]);
  check_pure(s, 1);
  mn_batch_free(&b);
  mn_source_close(s);
  s = open_source(yaml_of("{type: images, images: '%s', labels: '%s', shift: 1, mirror: true}", images, classes));
  if (s) check_pure(s, 1);
  if (s) { /* scaled by the training pictures: mean 0, deviation 1 over them, before pixels move in */
    mn_source_close(s);
  }
  /* row by row: the same numbers as a sequence */
  mn_batch whole, rows;
  mn_source *by_rows = open_source(yaml_of("{type: images, images: '%s', labels: '%s', validation: 0.25, rows: 3}", images, classes));
  s = open_source(yaml_of("{type: images, images: '%s', labels: '%s', validation: 0.25}", images, classes));
  if (s && by_rows && mn_batch_new(s, 5, 1, &whole) == MN_OK && mn_batch_new(by_rows, 5, 3, &rows) == MN_OK) {
    CHECK_OK(mn_source_fill(s, MN_SPLIT_TRAIN, 2, &whole));
    CHECK_OK(mn_source_fill(by_rows, MN_SPLIT_TRAIN, 2, &rows));
    const int at = mn_batch_find(&rows, "frames");
    CHECK(at >= 0 && rows.field[at].shape.ndim == 3 && rows.field[at].shape.dim[1] == 3 && mn_batch_find(&rows, "images") < 0,
          "rows of pixels");
    CHECK(at >= 0 && !memcmp(mn_batch_get(&rows, "frames"), mn_batch_get(&whole, "images"), 60 * sizeof(float)), "the same pixels");
    mn_batch_free(&whole);
    mn_batch_free(&rows);
  }
  mn_source_close(s);
  mn_source_close(by_rows);
  CHECK(try_open(yaml_of("{type: images, images: '%s', labels: '%s', rows: 4}", images, classes), &s) == MN_ERR_CONFIG &&
            strstr(mn_message(), "rows is 4, but the pictures have 3"),
        "%s", mn_message());
  const char *short_list = mn_arena_strdup(arena, test_path("l39.idx"));
  CHECK(try_open(yaml_of(set, images, short_list), &s) == MN_ERR_FORMAT && strstr(mn_message(), "40 pictures") &&
            strstr(mn_message(), "39 classes"),
        "%s", mn_message());
  CHECK(strstr(mn_message(), "data.images") && strstr(mn_message(), "data.labels"), "both files and their keys: %s", mn_message());
  CHECK(try_open(yaml_of(set, images, images), &s) == MN_ERR_FORMAT && strstr(mn_message(), "data.labels") &&
            strstr(mn_message(), "3 axes"),
        "%s", mn_message());
  CHECK(try_open("{type: images}", &s) == MN_ERR_CONFIG && strstr(mn_message(), "folder"), "%s", mn_message());
}

static void write_png(const char *name, cairo_format_t format) {
  cairo_surface_t *p = cairo_image_surface_create(format, 4, 4);
  CHECK(cairo_surface_write_to_png(p, test_path(name)) == CAIRO_STATUS_SUCCESS, "%s", name);
  cairo_surface_destroy(p);
}

/* Grey and coloured pictures side by side become one of the two when it is said which. */
static void test_pictures_are_of_one_kind(void) {
  mn_source *s;
  CHECK_OK(mn_make_dirs(test_path("mixed/a")));
  for (int i = 0; i < 4; i++)
    write_png((const char *[]){"mixed/a/0.png", "mixed/a/1.png", "mixed/a/2.png", "mixed/a/3.png"}[i],
              i == 2 ? CAIRO_FORMAT_RGB24 : CAIRO_FORMAT_A8);
  const char *dir = mn_arena_strdup(arena, test_path("mixed"));
  CHECK(try_open(yaml_of("{type: images, folder: '%s'%s}", dir, ""), &s) == MN_ERR_FORMAT && strstr(mn_message(), "2.png is in colours") &&
            strstr(mn_message(), "data.folder") && strstr(mn_message(), "data.channels: 1"),
        "%s", mn_message());
  for (int channels = 1; channels <= 3; channels += 2) {
    s = open_source(yaml_of("{type: images, folder: '%s', channels: %s}", dir, channels == 1 ? "1" : "3"));
    mn_source_close(s);
  }
}

/* ---- sounds ---- */

static void test_audio(void) {
  static const double hz[] = {300, 1000, 2500};
  char name[64];
  CHECK_OK(mn_make_dirs(test_path("sounds")));
  for (int i = 0; i < 18; i++) {
    snprintf(name, sizeof name, "sounds/%s_x_%d.wav", (const char *[]){"low", "middle", "top"}[i % 3], i / 3);
    wav_write(test_path(name), 8000, hz[i % 3], 400 + 200 * (i / 3));
  }
  const char *files = mn_arena_strdup(arena, test_path("sounds/*.wav"));
  mn_source *s =
      open_source(yaml_of("{type: audio, files: ['%s'], test_names: '*_[0-1].wav', frames: 12, bands: 20, validation: 0.25%s}", files, ""));
  if (!s) return;
  CHECK(s->classes == 3 && mn_source_steps(s, MN_SPLIT_TRAIN, 1, 12) == 9 && mn_source_steps(s, MN_SPLIT_VALIDATION, 1, 12) == 3 &&
            mn_source_steps(s, MN_SPLIT_TEST, 1, 12) == 6,
        "splits");
  mn_batch b;
  CHECK_OK(mn_batch_new(s, 1, 12, &b));
  CHECK_OK(mn_source_fill(s, MN_SPLIT_TEST, 0, &b)); /* low_x_0: 400 samples, windows of 200 every 80: 3 frames */
  const float *x = mn_batch_get(&b, "frames");
  CHECK(*(const int32_t *)mn_batch_get(&b, "length") == 3 && *(const int32_t *)mn_batch_get(&b, "label") == 0, "length and label");
  CHECK(x[3 * 20 - 1] != 0 && x[3 * 20] == 0 && x[12 * 20 - 1] == 0, "zeros behind the sound");
  check_pure(s, 12);
  mn_batch_free(&b);
  mn_source_close(s);
  wav_write(test_path("sounds/low_other_9.wav"), 16000, 300, 400);
  CHECK(try_open(yaml_of("{type: audio, files: ['%s']%s}", files, ""), &s) == MN_ERR_FORMAT && strstr(mn_message(), "low_other_9.wav") &&
            strstr(mn_message(), "16000") && strstr(mn_message(), "data.rate"),
        "%s", mn_message());
}

/* The transform against its definition, and a tone in the band where it belongs. */
static void test_mel(void) {
  enum { N = 64 };
  double re[N], im[N], a[N], b[N];
  for (int i = 0; i < N; i++) a[i] = re[i] = mn_random_normal(1, 0, (uint64_t)i), b[i] = im[i] = mn_random_normal(2, 0, (uint64_t)i);
  mn_fft(N, re, im);
  for (int k = 0; k < N; k++) {
    double r = 0, m = 0;
    for (int t = 0; t < N; t++) {
      double angle = -2 * 3.14159265358979323846 * k * t / N;
      r += a[t] * cos(angle) - b[t] * sin(angle);
      m += a[t] * sin(angle) + b[t] * cos(angle);
    }
    CHECK(fabs(r - re[k]) < 1e-12 * N && fabs(m - im[k]) < 1e-12 * N, "bin %d: %g %g, must be %g %g", k, re[k], im[k], r, m);
  }
  mn_mel *mel;
  CHECK_OK(mn_mel_new(8000, 200, 80, 20, 0, 4000, &mel));
  float tone[1000], out[11 * 20];
  for (int i = 0; i < 1000; i++) tone[i] = (float)sin(2 * 3.141592653589793 * 1000 * i / 8000);
  CHECK(mn_mel_frames(mel, 1000) == 11 && mn_mel_frames(mel, 10) == 1 && mn_mel_frames(mel, 280) == 2, "frames");
  CHECK_OK(mn_mel_run(mel, tone, 1000, 11, out));
  double top = 2595 * log10(1 + 4000 / 700.0), at = 2595 * log10(1 + 1000 / 700.0) / top * 21 - 1; /* the band whose middle is nearest */
  int best = 0;
  for (int c = 1; c < 20; c++)
    if (out[5 * 20 + c] > out[5 * 20 + best]) best = c;
  CHECK(abs(best - (int)lround(at)) <= 1, "1000 Hz is loudest in band %d, must be near %.2f", best, at);
  mn_mel_free(mel);
  CHECK(mn_mel_new(8000, 200, 80, 20, 5000, 4000, &mel) == MN_ERR_ARG, "bands that fall are refused");
}

/* ---- pairs and dialogues ---- */

static const char *write_text(const char *name, const char *text) {
  const char *path = mn_arena_strdup(arena, test_path(name));
  CHECK_OK(mn_file_write(path, text, strlen(text)));
  return path;
}

static void test_pairs(void) {
  const char *path = write_text("pairs.tsv", "one\teins\ntwo\tzwei\r\n\nthree\tdrei\nfour\tvier\n");
  mn_source *s = open_source(yaml_of("{type: pairs, files: ['%s'], source_len: 6, target_len: 8, validation: 0.25%s}", path, ""));
  if (!s) return;
  CHECK(mn_source_steps(s, MN_SPLIT_TRAIN, 1, 8) == 3 && mn_source_steps(s, MN_SPLIT_VALIDATION, 1, 8) == 1, "splits");
  mn_batch b;
  CHECK_OK(mn_batch_new(s, 3, 8, &b));
  CHECK_OK(mn_source_fill(s, MN_SPLIT_TRAIN, 0, &b));
  int seen = 0;
  for (int r = 0; r < 3; r++) {
    const int32_t *source = mn_batch_row(&b, mn_batch_find(&b, "source"), r), *tokens = mn_batch_row(&b, mn_batch_find(&b, "tokens"), r);
    const int32_t *target = mn_batch_row(&b, mn_batch_find(&b, "target"), r);
    int32_t n = ((const int32_t *)mn_batch_get(&b, "source_length"))[r], m = ((const int32_t *)mn_batch_get(&b, "length"))[r];
    bool is_three = source[0] == 't' && source[1] == 'h';
    seen += is_three;
    CHECK(n >= 3 && n <= 5 && source[n] == 0 && tokens[0] == 256 && m == 5, "a row begins with the end token");
    CHECK(target[m - 1] == 256 && target[m] == MN_IGNORE && !memcmp(tokens + 1, target, 4 * sizeof *tokens),
          "the target is the text and its end");
    if (is_three) CHECK(n == 5 && target[0] == 'd' && target[3] == 'i', "three becomes drei");
  }
  CHECK(seen <= 1, "a pair came twice");
  check_pure(s, 8);
  mn_batch_free(&b);
  mn_source_close(s);
  CHECK(try_open(yaml_of("{type: pairs, files: ['%s'], source_len: 4%s}", path, ""), &s) == MN_ERR_CONFIG &&
            strstr(mn_message(), "pairs.tsv:4") && strstr(mn_message(), "source_len 4"),
        "%s", mn_message());
  s = open_source(yaml_of("{type: pairs, files: ['%s'], source_len: 4, too_long: leave_out, validation: 0%s}", path, ""));
  CHECK(s && mn_source_steps(s, MN_SPLIT_TRAIN, 1, 64) == 3, "what is too long is left out");
  mn_source_close(s);
  const char *bad = write_text("bad.tsv", "one\teins\ntwo zwei\n");
  CHECK(try_open(yaml_of("{type: pairs, files: ['%s']%s}", bad, ""), &s) == MN_ERR_FORMAT && strstr(mn_message(), "bad.tsv:2"), "%s",
        mn_message());
  const char *left = write_text("left", "a\nb\nc\n"), *right = write_text("right", "x\ny\n");
  CHECK(try_open(yaml_of("{type: pairs, first: ['%s'], second: ['%s']}", left, right), &s) == MN_ERR_CONFIG &&
            strstr(mn_message(), "3 lines"),
        "%s", mn_message());
  s = open_source("{type: pairs, task: {name: number_words}, source_len: 200, target_len: 200}");
  if (s) check_pure(s, 200);
  mn_source_close(s);
}

static void test_twins_stand_side_by_side(void) {
  const char *left = write_text("l", "ab\ncd\nef\ngh\n"), *right = write_text("r", "AB\nCD\nEF\nGH\n");
  mn_source *s =
      open_source(yaml_of("{type: pairs, layout: twins, first: ['%s'], second: ['%s'], target_len: 4, validation: 0}", left, right));
  if (!s) return;
  mn_batch b;
  CHECK(mn_source_check(s, MN_SPLIT_TRAIN, 3, 4) == MN_ERR_CONFIG && strstr(mn_message(), "multiple"), "%s", mn_message());
  CHECK(mn_source_steps(s, MN_SPLIT_TRAIN, 4, 4) == 2, "two pairs a batch");
  CHECK_OK(mn_batch_new(s, 4, 4, &b));
  for (int step = 0; step < 4; step++) {
    CHECK_OK(mn_source_fill(s, MN_SPLIT_TRAIN, step, &b));
    for (int r = 0; r < 4; r += 2) {
      const int32_t *x = mn_batch_row(&b, 0, r), *y = mn_batch_row(&b, 0, r + 1);
      CHECK(x[0] == y[0] + 32 && x[1] == y[1] + 32 && x[0] >= 'a', "rows %d and %d are no pair", r, r + 1);
    }
  }
  mn_batch_free(&b);
  mn_source_close(s);
}

/* The last batch of a test: pairs of an earlier one stand against its own, and do not count. */
static void test_a_last_batch_of_twins_is_filled_up(void) {
  const char *lines = write_text("t.tsv", "ab\tAB\ncd\tCD\nef\tEF\ngh\tGH\nij\tIJ\n"), *one = write_text("one.tsv", "ab\tAB\n");
  for (int alone = 0; alone < 2; alone++) {
    mn_source *s =
        open_source(yaml_of("{type: pairs, layout: twins, files: ['%s'], test_files: ['%s'], target_len: 4}", lines, alone ? one : lines));
    if (!s) return;
    mn_batch b;
    CHECK_OK(mn_batch_new(s, 8, 4, &b));
    const int64_t last = mn_source_steps(s, MN_SPLIT_TEST, 8, 4) - 1;
    CHECK_OK(mn_source_fill(s, MN_SPLIT_TEST, last, &b));
    CHECK(last == !alone && b.rows == 2 && b.present == (alone ? 2 : 8), "%lld rows count, %lld are there", (long long)b.rows,
          (long long)b.present);
    const char *first = alone ? "a\0\0\0" : "iace";
    for (int r = 0; r < 8; r++) {
      const int32_t *x = mn_batch_row(&b, 0, r);
      CHECK(x[0] == (r % 2 && first[r / 2] ? first[r / 2] - 32 : first[r / 2]), "row %d is %d", r, x[0]);
    }
    CHECK_OK(mn_source_fill(s, MN_SPLIT_TRAIN, 0, &b));
    CHECK(b.rows == 8 && b.present == 8, "of training all count");
    mn_batch_free(&b);
    mn_source_close(s);
  }
}

static void test_dialogues(void) {
  const char *path = write_text(
      "d.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"Yo\"}]}\n");
  mn_source *s = open_source(yaml_of("{type: dialogues, files: ['%s'], user: 'U:', assistant: 'A:', validation: 0%s}", path, ""));
  if (!s) return;
  mn_batch b;
  CHECK_OK(mn_batch_new(s, 1, 16, &b));
  CHECK_OK(mn_source_fill(s, MN_SPLIT_TRAIN, 0, &b));
  /* U : H i \n A : Y o <end> (\n) */
  static const int32_t want[] = {'U', ':', 'H', 'i', '\n', 'A', ':', 'Y', 'o', 256};
  const int32_t *tokens = mn_batch_get(&b, "tokens"), *target = mn_batch_get(&b, "target");
  CHECK(!memcmp(tokens, want, sizeof want) && *(const int32_t *)mn_batch_get(&b, "length") == 10, "the dialogue as tokens");
  for (int t = 0; t < 16; t++) {
    int32_t asked = t == 6 ? 'Y' : t == 7 ? 'o' : t == 8 ? 256 : MN_IGNORE;
    CHECK(target[t] == asked, "at %d %d is asked for, must be %d", t, target[t], asked);
  }
  check_taken(s);
  char answers[MN_HASH_HEX], all[MN_HASH_HEX];
  mn_source_hash(s, answers);
  mn_source *every =
      open_source(yaml_of("{type: dialogues, files: ['%s'], user: 'U:', assistant: 'A:', validation: 0, learn: all%s}", path, ""));
  if (every) {
    CHECK_OK(mn_source_fill(every, MN_SPLIT_TRAIN, 0, &b));
    CHECK(!memcmp(tokens, want, sizeof want), "what is read does not depend on what is asked for");
    for (int t = 0; t < 16; t++) {
      int32_t asked = t < 9 ? want[t + 1] : t == 9 ? '\n' : MN_IGNORE;
      CHECK(target[t] == asked, "of all, at %d %d is asked for, must be %d", t, target[t], asked);
    }
    mn_source_hash(every, all);
    CHECK(strcmp(answers, all) != 0, "a run would go on with other targets");
  }
  mn_source_close(every);
  mn_batch_free(&b);
  CHECK_OK(mn_batch_new(s, 1, 8, &b));
  CHECK(mn_source_fill(s, MN_SPLIT_TRAIN, 0, &b) == MN_ERR_CONFIG && strstr(mn_message(), "11 tokens"), "%s", mn_message());
  mn_batch_free(&b);
  mn_source_close(s);
  static const char *const bad[][2] = {{"{\"messages\": []}", "messages"},
                                       {"{\"messages\": [{\"role\": \"robot\", \"content\": \"x\"}]}", "robot"},
                                       {"{\"messages\": [{\"role\": \"user\"}]}", "message 1"},
                                       {"{\"messages\"", "bad.jsonl:1"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    const char *file = write_text("bad.jsonl", bad[i][0]);
    CHECK(try_open(yaml_of("{type: dialogues, files: ['%s']%s}", file, ""), &s) != MN_OK && strstr(mn_message(), bad[i][1]) &&
              strstr(mn_message(), "bad.jsonl:1"),
          "%s: %s", bad[i][0], mn_message());
  }
}

/* Turn by turn in places of its own: what stands where, what is asked for, and what a turn must have. */
static void test_turns_of_dialogues(void) {
  const char *path =
      write_text("turns.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"H\"}, {\"role\": \"assistant\", \"content\": \"Yo\"}, "
                                "{\"role\": \"user\", \"content\": \"\"}, {\"role\": \"assistant\", \"content\": \"\"}]}\n");
#define OF(more) yaml_of("{type: dialogues, files: ['%s'], user: 'U', assistant: 'A', validation: 0%s}", path, more)
  mn_source *s = open_source(OF(", turn: 10"));
  mn_batch b;
  if (!s) return;
  CHECK_OK(mn_batch_new(s, 1, 32, &b));
  CHECK_OK(mn_source_fill(s, MN_SPLIT_TRAIN, 0, &b));
  static const int32_t first[] = {'U', 'H', '\n', 'A', 'Y', 'o', 256, '\n'}, second[] = {'U', '\n', 'A', 256, '\n'};
  const int32_t *tokens = mn_batch_get(&b, "tokens"), *target = mn_batch_get(&b, "target"), *masks = mn_batch_get(&b, "masks");
  const int32_t *masked = mn_batch_get(&b, "masked"), *hidden = mn_batch_get(&b, "masked_target");
  CHECK(masks && masked && hidden && *(const int32_t *)mn_batch_get(&b, "length") == 20, "two turns of ten places");
  for (int t = 0; t < 32 && masks; t++) {
    const int n = t < 10 ? 8 : t < 20 ? 5 : 0, k = t % 10;
    const int32_t *want = t < 10 ? first : second;
    const int32_t asked = t == 3 ? 'Y' : t == 4 ? 'o' : t == 5 || t == 12 ? 256 : MN_IGNORE;
    CHECK(masks[t] == (k < n && t < 20) && tokens[t] == (k < n ? want[k] : 0) && masked[t] == tokens[t] && hidden[t] == MN_IGNORE,
          "place %d", t);
    CHECK(target[t] == asked, "at %d %d is asked for, must be %d", t, target[t], asked);
  }
  mn_batch_free(&b);
  CHECK_OK(mn_batch_new(s, 1, 10, &b));
  CHECK(mn_source_fill(s, MN_SPLIT_TRAIN, 0, &b) == MN_ERR_CONFIG && strstr(mn_message(), "2 turns") && strstr(mn_message(), "room for 1"),
        "%s", mn_message());
  mn_batch_free(&b);
  mn_source_close(s);
  CHECK(try_open(OF(", turn: 7"), &s) == MN_ERR_CONFIG && strstr(mn_message(), "turns.jsonl:1") &&
            strstr(mn_message(), "turn 1 has 8 tokens"),
        "%s", mn_message());
  s = open_source(OF(", turn: 7, too_long: cut"));
  if (s) {
    CHECK_OK(mn_batch_new(s, 1, 7, &b));
    CHECK_OK(mn_source_fill(s, MN_SPLIT_TRAIN, 0, &b));
    CHECK(!memcmp(mn_batch_get(&b, "tokens"), first, 7 * sizeof *first), "cut behind its places");
    mn_batch_free(&b);
  }
  mn_source_close(s);
#undef OF
  const char *open =
      write_text("open.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"H\"}, {\"role\": \"assistant\", \"content\": \"Y\"}, "
                               "{\"role\": \"user\", \"content\": \"and\"}]}\n");
  CHECK(try_open(yaml_of("{type: dialogues, files: ['%s'], turn: 30%s}", open, ""), &s) == MN_ERR_FORMAT &&
            strstr(mn_message(), "open.jsonl:1") && strstr(mn_message(), "a turn without an end"),
        "%s", mn_message());
}

/* ---- which source ---- */

static void test_sources_by_name(void) {
  mn_source *s;
  CHECK(try_open("{type: serie, file: x}", &s) == MN_ERR_CONFIG && strstr(mn_message(), "did you mean 'series'"), "%s", mn_message());
  CHECK(try_open("{type: series, file: x, imput: 3}", &s) == MN_ERR_CONFIG && strstr(mn_message(), "input"), "%s", mn_message());
  CHECK(try_open("{type: series}", &s) == MN_ERR_CONFIG && strstr(mn_message(), "file"), "%s", mn_message());
  CHECK(try_open("{type: text, task: {name: mqar}}", &s) == MN_ERR_CONFIG && strstr(mn_message(), "task"), "%s", mn_message());
  s = open_source("{task: {name: listops}}");
  if (!s) return;
  mn_batch b;
  CHECK_OK(mn_batch_new(s, 4, s->seq_len, &b));
  CHECK_OK(mn_source_fill(s, MN_SPLIT_TRAIN, 0, &b));
  const int32_t *length = mn_batch_get(&b, "length"), *label = mn_batch_get(&b, "label");
  for (int i = 0; length && label && i < 4; i++)
    CHECK(length[i] > 0 && length[i] <= s->seq_len && label[i] >= 0 && label[i] < s->classes, "a labelled sequence");
  CHECK(length && label && mn_batch_find(&b, "target") < 0, "a task that labels sequences gives length and label");
  check_pure(s, s->seq_len);
  mn_batch_free(&b);
  mn_source_close(s);
}

int main(void) {
  test_setup("source");
  arena = mn_arena_new();
  static const char *const end[] = {"<|endoftext|>"};
  CHECK_OK(mn_tokenizer_bytes(end, 1, &bytes));
  RUN(test_series);
  RUN(test_series_scaler_and_standard_splits);
  RUN(test_series_keeps_what_varies);
  RUN(test_series_says_its_scale);
  RUN(test_series_is_refused);
  RUN(test_an_empty_part_has_a_remedy);
  RUN(test_images);
  RUN(test_audio);
  RUN(test_pictures_are_of_one_kind);
  RUN(test_mel);
  RUN(test_pairs);
  RUN(test_twins_stand_side_by_side);
  RUN(test_a_last_batch_of_twins_is_filled_up);
  RUN(test_dialogues);
  RUN(test_turns_of_dialogues);
  RUN(test_sources_by_name);
  mn_arena_free(arena);
  mn_tokenizer_free(bytes);
  test_cleanup();
  return test_end();
}
