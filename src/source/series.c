/* series.c - numbers over time from a CSV file: windows of the past, and the numbers that follow them. The standard splits of the
 * ETT data (Zhou et al. 2021, arXiv:2012.07436; 12, 4 and 4 months of 30 days) or fractions; every column is scaled by mean and
 * deviation of its training rows, before it is rounded to f32: what matters of a column may be small beside its mean. A window of
 * validation or test begins `input` rows before its part, so that every number of the part is forecast. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/nearest.h"
#include "format/csv.h"
#include "source/source.h"

typedef struct config {
  const char *file;
  mn_strings columns;
  bool header, scale;
  int64_t input, horizon;
  double gaps;
  int split;
  mn_floats fractions;
} config;
enum { FRACTIONS, ETT_HOUR, ETT_MINUTE };
static const char *const splits[] = {"fractions", "ett_hour", "ett_minute", NULL};
static const mn_field fields[] = {
    MN_FIELD_STRING_REQUIRED(config, file, "a CSV file, a row for each moment in order of time"),
    MN_FIELD_STRINGS(config, columns, "names of the columns that are used; none: all that hold numbers"),
    MN_FIELD_BOOL(config, header, true, "the first line holds the columns' names; else they are called 1, 2, ..."),
    MN_FIELD_BOOL(config, scale, true, "each column becomes (x - mean) / deviation of its training rows"),
    MN_FIELD_INT(config, input, 96, 1, 1 << 20, "rows that the model sees"),
    MN_FIELD_INT(config, horizon, 96, 1, 1 << 20, "rows after them that it is to forecast"),
    MN_FIELD_FLOAT(config, gaps, 0, 0, 0.99, "fraction of the rows seen that are missing, drawn by chance; masks says which are there"),
    MN_FIELD_ENUM(config, split, splits, FRACTIONS, "which rows are for training, validation and test; ett: 12, 4 and 4 months of 30 days"),
    MN_FIELD_FLOATS(config, fractions, 0, 1, "of the rows, in order of time; none: [0.7, 0.1, 0.2]"),
    MN_FIELD_END};
static const mn_key_use uses[] = {{"fractions", "fractions"}, {0}};

typedef struct series {
  int64_t rows, begin[3], end[3]; /* rows of each split, the window before it included */
  int C;
  double *raw;              /* [rows, C], as it was read; freed when x is made */
  float *x;                 /* [rows, C] */
  const char **name;        /* [C] */
  double *mean, *deviation; /* [C]: x is (raw - mean) / deviation */
} series;

static mn_status check(const mn_value *map, const char *where, void *c) {
  static const double usual[3] = {0.7, 0.1, 0.2};
  config *o = c;
  MN_TRY(mn_config_uses(map, where, uses, splits[o->split]));
  if (!o->fractions.count) o->fractions = (mn_floats){usual, 3};
  double sum = 0;
  for (int i = 0; i < o->fractions.count; i++) sum += o->fractions.items[i];
  if (o->fractions.count != 3 || o->fractions.items[0] <= 0 || sum > 1 + 1e-9)
    return mn_config_fail(map, where, "fractions", "must be three numbers for training, validation and test, such as [0.7, 0.1, 0.2]");
  return MN_OK;
}

static mn_status seq_len(const void *c, int64_t *out) {
  *out = ((const config *)c)->input;
  return MN_OK;
}

/* ---- reading ---- */

static mn_status unknown_column(const mn_csv *csv, const config *o, const char *name) {
  const char *names[256];
  int n = mn_csv_columns(csv) < 256 ? mn_csv_columns(csv) : 256;
  for (int i = 0; i < n; i++) names[i] = mn_csv_name(csv, i);
  const char *near = o->header ? mn_nearest(name, names, n) : NULL;
  return mn_fail(MN_ERR_CONFIG, "data.columns: %s has no column '%s'%s%s%s; it has %d", o->file, name, near ? "; did you mean '" : "",
                 near ? near : "", near ? "'?" : "", mn_csv_columns(csv));
}

/* A column that holds no number at all is text, such as dates; where one begins with something else, a number is missing. */
static mn_status leave_out_column(const mn_csv *csv, int column, mn_text *left_out) {
  double x;
  for (int64_t r = 1; r < mn_csv_rows(csv); r++)
    if (mn_csv_is_number(csv, r, column)) {
      mn_status status = mn_csv_number(csv, 0, column, &x);
      char *why = mn_strdup(mn_message());
      if (why)
        mn_fail(status, "data.file: %s, as in row %lld; repair the file, or name the columns that are meant in data.columns", why,
                (long long)r + 1);
      free(why);
      return status;
    }
  mn_text_addf(left_out, "%s%s", left_out->len ? ", " : "", mn_csv_name(csv, column));
  return MN_OK;
}

/* All that hold numbers; the others are named. */
static mn_status columns_of_numbers(const config *o, const mn_csv *csv, int *which, int *n) {
  mn_text left_out = {0};
  mn_status status = MN_OK;
  for (int i = 0; status == MN_OK && i < mn_csv_columns(csv); i++)
    if (mn_csv_is_number(csv, 0, i)) which[(*n)++] = i;
    else status = leave_out_column(csv, i, &left_out);
  if (status == MN_OK) status = mn_text_status(&left_out);
  if (status == MN_OK && left_out.len && *n)
    mn_log_write(MN_LOG_WARN, "%s: columns that hold no numbers are left out: %.200s", o->file, left_out.data);
  mn_text_free(&left_out);
  return status;
}

static mn_status choose_columns(mn_source *s, const mn_csv *csv, int **out, int *n) {
  const config *o = s->config;
  int all = mn_csv_columns(csv), *which = mn_arena_alloc(s->arena, (size_t)(all + o->columns.count) * sizeof *which);
  *n = 0;
  if (!which) return MN_ERR_MEMORY;
  for (int i = 0; i < o->columns.count; i++) {
    int at = mn_csv_find(csv, o->columns.items[i]);
    if (at < 0) return unknown_column(csv, o, o->columns.items[i]);
    for (int k = 0; k < *n; k++)
      if (which[k] == at) return mn_fail(MN_ERR_CONFIG, "data.columns: '%s' stands there twice", o->columns.items[i]);
    which[(*n)++] = at;
  }
  if (!o->columns.count) MN_TRY(columns_of_numbers(o, csv, which, n));
  *out = which;
  return *n ? MN_OK : mn_fail(MN_ERR_CONFIG, "%s: no column holds numbers%s", o->file, mn_csv_remedy(csv));
}

/* Rows [begin, end) of each split without the windows before. */
static mn_status place_splits(const config *o, series *x) {
  int64_t month = 30 * 24 * (o->split == ETT_MINUTE ? 4 : 1), cut[4] = {0, 12 * month, 16 * month, 20 * month};
  if (o->split == FRACTIONS) {
    cut[1] = (int64_t)((double)x->rows * o->fractions.items[0]);
    int64_t test = (int64_t)((double)x->rows * o->fractions.items[2]);
    double sum = o->fractions.items[0] + o->fractions.items[1] + o->fractions.items[2];
    cut[3] = sum > 1 - 1e-9 ? x->rows : (int64_t)((double)x->rows * sum);
    cut[2] = cut[3] - test;
    if (cut[2] < cut[1]) cut[2] = cut[1];
  }
  if (cut[3] > x->rows)
    return mn_fail(MN_ERR_CONFIG, "data.split: %s needs %lld rows, and %s has %lld; set split: fractions", splits[o->split],
                   (long long)cut[3], o->file, (long long)x->rows);
  for (int k = 0; k < 3; k++) {
    x->begin[k] = k ? cut[k] - o->input : 0;
    x->end[k] = cut[k + 1];
    if (x->begin[k] < 0) x->begin[k] = 0;
  }
  return MN_OK;
}

/* About the column's first value, so that a constant one has no deviation and a small one is not lost beside its mean. What only the
 * last digits of its numbers do is how they were computed: such a column is constant. */
static void measure(series *x, int c) {
  const int64_t n = x->end[0];
  const double first = x->raw[c];
  double sum = 0, square = 0;
  for (int64_t r = 0; r < n; r++) sum += x->raw[r * x->C + c] - first;
  const double mean = sum / (double)n;
  for (int64_t r = 0; r < n; r++) square += (x->raw[r * x->C + c] - first - mean) * (x->raw[r * x->C + c] - first - mean);
  x->mean[c] = first + mean;
  x->deviation[c] = sqrt(square / (double)n);
  if (!(x->deviation[c] > 16 * DBL_EPSILON * fabs(x->mean[c]))) x->deviation[c] = 1; /* a constant column */
}

static mn_status scale(const config *o, series *x) {
  size_t n;
  if (!mn_size_mul((size_t)x->rows, (size_t)x->C * sizeof *x->x, &n) || !(x->x = mn_alloc(n))) return MN_ERR_MEMORY;
  for (int c = 0; c < x->C; c++) {
    x->mean[c] = 0, x->deviation[c] = 1;
    if (o->scale) measure(x, c);
    for (int64_t r = 0; r < x->rows; r++) {
      float *to = &x->x[r * x->C + c];
      *to = (float)((x->raw[r * x->C + c] - x->mean[c]) / x->deviation[c]);
      if (!isfinite(*to))
        return mn_fail(MN_ERR_FORMAT, "data.file: %s: row %lld of column %s is %g, too large for a number of 32 bits%s", o->file,
                       (long long)r + 1, x->name[c], x->raw[r * x->C + c], o->scale ? " when it is scaled" : "");
    }
  }
  free(x->raw);
  x->raw = NULL;
  return MN_OK;
}

static mn_status fill_table(mn_source *s, const mn_csv *csv, series *x) {
  int *which = NULL;
  MN_TRY(choose_columns(s, csv, &which, &x->C));
  x->rows = mn_csv_rows(csv);
  x->name = mn_arena_alloc(s->arena, (size_t)x->C * sizeof *x->name);
  x->mean = mn_arena_alloc(s->arena, 2 * (size_t)x->C * sizeof *x->mean);
  size_t n;
  if (!x->name || !x->mean) return MN_ERR_MEMORY;
  x->deviation = x->mean + x->C;
  if (!mn_size_mul((size_t)x->rows, (size_t)x->C * sizeof *x->raw, &n) || !(x->raw = mn_alloc(n))) return MN_ERR_MEMORY;
  for (int c = 0; c < x->C; c++)
    if (!(x->name[c] = mn_arena_strdup(s->arena, mn_csv_name(csv, which[c])))) return MN_ERR_MEMORY;
  for (int64_t r = 0; r < x->rows; r++)
    for (int c = 0; c < x->C; c++) {
      double *v = &x->raw[r * x->C + c];
      MN_TRY(mn_context(mn_csv_number(csv, r, which[c], v), "data.file"));
      if (!isfinite((float)*v))
        return mn_fail(MN_ERR_FORMAT, "data.file: %s: row %lld of column %s is %g, too large for a number of 32 bits",
                       ((const config *)s->config)->file, (long long)r + 1, x->name[c], *v);
    }
  char hex[MN_HASH_HEX];
  mn_content_hash(x->raw, n, hex);
  mn_text_addf(&s->identity, "%s columns %d", hex, x->C);
  return MN_OK;
}

static mn_status open_series(mn_source *s, const mn_watch *watch) {
  (void)watch;
  const config *o = s->config;
  series *x = s->data = mn_arena_alloc(s->arena, sizeof *x);
  mn_csv *csv;
  if (!x) return MN_ERR_MEMORY;
  MN_TRY(mn_context(mn_csv_read(o->file, o->header, &csv), "data.file"));
  mn_status status = fill_table(s, csv, x);
  mn_csv_free(csv);
  MN_TRY(status);
  MN_TRY(place_splits(o, x));
  if (x->end[0] < 1) return mn_fail(MN_ERR_CONFIG, "data.fractions: no row of %s is left for training", o->file);
  if (x->end[0] - x->begin[0] < o->input + o->horizon)
    return mn_fail(
        MN_ERR_CONFIG,
        "data.file: %s has %lld rows, of which %lld are for training; a window takes %lld (data.input %lld + data.horizon %lld): lower "
        "them, or give more rows",
        o->file, (long long)x->rows, (long long)(x->end[0] - x->begin[0]), (long long)(o->input + o->horizon), (long long)o->input,
        (long long)o->horizon);
  MN_TRY(scale(o, x));
  s->seq_len = o->input;
  mn_text_addf(&s->identity, " cut %lld %lld %lld scale %d input %lld horizon %lld", (long long)x->end[0], (long long)x->end[1],
               (long long)x->end[2], o->scale, (long long)o->input, (long long)o->horizon);
  if (o->gaps > 0) mn_text_addf(&s->identity, " gaps %.17g seed %lld", o->gaps, (long long)s->seed);
  return MN_OK;
}

static void close_series(mn_source *s) {
  series *x = s->data;
  if (x) free(x->x), free(x->raw);
}

/* What a forecast is counted in: whoever asks a trained model scales what it reads, and brings back what it says. */
static const mn_value *reads(const mn_source *s, mn_arena *arena) {
  static const char *const keys[] = {"type", "columns", "mean", "deviation"};
  const series *x = s->data;
  const mn_value **item = mn_arena_alloc(arena, 3 * (size_t)x->C * sizeof *item), *part[4] = {mn_value_text(arena, "series")};
  for (int c = 0; item && c < x->C; c++) {
    mn_text t = {0};
    mn_text_add_utf8(&t, x->name[c], strlen(x->name[c]));
    item[c] = mn_text_status(&t) == MN_OK ? mn_value_text(arena, t.len ? t.data : "") : NULL;
    item[x->C + c] = mn_value_real(arena, x->mean[c]);
    item[2 * x->C + c] = mn_value_real(arena, x->deviation[c]);
    mn_text_free(&t);
    if (!item[c] || !item[x->C + c] || !item[2 * x->C + c]) return NULL;
  }
  for (int k = 1; k < 4; k++) part[k] = item ? mn_value_list(arena, (size_t)x->C, item + (k - 1) * x->C) : NULL;
  return part[0] && part[1] && part[2] && part[3] ? mn_value_map(arena, 4, keys, part) : NULL;
}

/* ---- batches ---- */

static void layout(const mn_source *s, mn_batch *batch) {
  const config *o = s->config;
  const series *x = s->data;
  mn_batch_add(batch, "series", MN_F32, MN_SHAPE(batch->B, o->input, x->C), "the rows that the model sees");
  mn_batch_add(batch, "target", MN_F32, MN_SHAPE(batch->B, o->horizon, x->C), "the rows that follow");
  if (o->gaps > 0) mn_batch_add(batch, "masks", MN_I32, MN_SHAPE(batch->B, o->input), "1 where a row is there, 0 where it is missing");
}

static int64_t count(const mn_source *s, int split) {
  const config *o = s->config;
  const series *x = s->data;
  int64_t n = x->end[split] - x->begin[split] - o->input - o->horizon + 1;
  return n > 0 ? n : 0;
}

/* Rows that are missing from a window, in training others each time it is seen; what would stand there is 0. */
static void leave_out(const mn_source *s, int split, int64_t index, uint64_t epoch, mn_batch *batch, int64_t b) {
  const config *o = s->config;
  const series *x = s->data;
  const uint64_t key = mn_random_key((uint64_t)s->seed, "gaps");
  float *seen = mn_batch_row(batch, 0, b);
  int32_t *there = mn_batch_row(batch, 2, b);
  for (int64_t t = 0; t < o->input; t++) {
    there[t] = mn_random_uniform(key, 3 * epoch + (uint64_t)split, (uint64_t)(index * o->input + t)) >= o->gaps;
    for (int c = 0; c < x->C && !there[t]; c++) seen[t * x->C + c] = 0;
  }
}

static mn_status example(mn_source *s, int split, int64_t index, uint64_t epoch, mn_batch *batch, int64_t b) {
  const config *o = s->config;
  const series *x = s->data;
  const float *from = x->x + (x->begin[split] + index) * x->C;
  memcpy(mn_batch_row(batch, 0, b), from, (size_t)(o->input * x->C) * sizeof *from);
  memcpy(mn_batch_row(batch, 1, b), from + o->input * x->C, (size_t)(o->horizon * x->C) * sizeof *from);
  if (o->gaps > 0) leave_out(s, split, index, epoch, batch, b);
  return MN_OK;
}

const mn_source_def mn_source_series = {
    .name = "series",
    .summary = "numbers over time from a CSV file: windows of the past and what follows them",
    .config_size = sizeof(config),
    .fields = fields,
    .check = check,
    .seq_len = seq_len,
    .open = open_series,
    .close = close_series,
    .reads = reads,
    .layout = layout,
    .count = count,
    .example = example,
};
