/* tensors.c - examples made elsewhere: a safetensors file whose tensors are fields by name (tokens, target, soft_ids, soft_weights, span,
 * label, images, ...), each with the examples along its first axis. What `mneme eval --soft-targets` writes is such a file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/nearest.h"
#include "format/safetensors.h"
#include "source/examples.h"

typedef struct config {
  const char *file, *test_file;
  double validation;
  bool text;
} config;
static const mn_field fields[] = {
    MN_FIELD_STRING_REQUIRED(config, file, "a safetensors file: each tensor is a field, its first axis the examples"),
    MN_FIELD_STRING(config, test_file, NULL, "another of the same fields, for the test"),
    MN_FIELD_FLOAT(config, validation, 0.05, 0, 0.9, "fraction of the examples that is held out"),
    MN_FIELD_BOOL(config, text, false, "tokens are those of the recipe's tokenizer, which is kept with the model"), MN_FIELD_END};

typedef struct column { /* a field of all examples */
  const char *name;
  mn_dtype dtype; /* MN_I32 or MN_F32 */
  mn_shape shape; /* of one example, without an axis for the examples */
  void *data[2];  /* of file and test_file */
} column;

typedef struct tensors {
  int64_t n[2]; /* examples of file and test_file */
  int n_columns;
  column columns[MN_SOURCE_FIELDS];
  mn_held_out held_out;
} tensors;

/* ---- how long a row is ---- */
/* Fields whose second axis is the row's: the first that is there says it. */
static const char *const sequences[] = {"tokens", "frames", "series", "target", "soft_ids"};

static int64_t length_of(const mn_st *st) {
  for (size_t i = 0; i < sizeof sequences / sizeof *sequences; i++) {
    const mn_st_tensor *t = mn_st_find(st, sequences[i]);
    if (t && t->shape.ndim > 1) return t->shape.dim[1];
  }
  return 1;
}

static mn_status seq_len(const void *c, int64_t *out) {
  mn_st *st;
  MN_TRY(mn_context(mn_st_open(((const config *)c)->file, &st), "data.file"));
  *out = length_of(st);
  mn_st_close(st);
  return *out > 0 ? MN_OK : mn_fail(MN_ERR_CONFIG, "data.file: %s: its rows hold nothing", ((const config *)c)->file);
}

static bool reads_text(const void *c) { return ((const config *)c)->text; }

/* ---- what a field may be ---- */
/* All that models' ports and objectives take of data. A name that none of them has is a misspelt one, and would be read by nobody. */
static const char *const known[] = {"tokens", "target",       "label",         "span",          "length",   "images",
                                    "frames", "series",       "source",        "source_length", "soft_ids", "masks",
                                    "masked", "soft_weights", "masked_target", "evidence",      "gaps",     "condition",
                                    "types",  "reset",        "turn_ends",     "target_gaps"};
enum { KNOWN = sizeof known / sizeof *known };

static mn_status check_name(const mn_st *st, const char *name) {
  for (int i = 0; i < KNOWN; i++)
    if (!strcmp(known[i], name)) return MN_OK;
  const char *near = mn_nearest(name, known, KNOWN);
  return mn_fail(MN_ERR_CONFIG, "%s: no model and no objective reads a field '%s'; %s%s%s", mn_st_path(st), name,
                 near ? "did you mean '" : "leave it out of the file", near ? near : "", near ? "'?" : "");
}

typedef struct
    bound { /* integers below `least` are refused in these fields; in all others negative ones say that nothing is asked or told */
  const char *name;
  int32_t least;
} bound;
static const bound bounds[] = {{"tokens", 0}, {"source", 0},    {"masked", 0}, {"types", 0},        {"masks", 0},
                               {"reset", 0},  {"turn_ends", 0}, {"length", 1}, {"source_length", 1}};

static int32_t least_of(const char *name) {
  for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
    if (!strcmp(bounds[i].name, name)) return bounds[i].least;
  return INT32_MIN;
}

/* Fields that have a value for each place of a row. */
static bool is_per_place(const column *c) {
  static const char *const names[] = {"tokens",        "target",   "soft_ids", "soft_weights", "masks",      "masked",
                                      "masked_target", "evidence", "types",    "gaps",         "target_gaps"};
  if (c->shape.ndim < 1 || (c->dtype != MN_I32 && !strcmp(c->name, "target"))) return false; /* a forecast is as long as it is */
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (!strcmp(names[i], c->name)) return true;
  return false;
}

/* ---- reading ---- */
/* Targets are tokens where tokens are read; beside frames they are classes. */
static bool is_id(const tensors *x, const char *name) {
  bool reads = false;
  for (int i = 0; i < x->n_columns; i++) reads = reads || !strcmp(x->columns[i].name, "tokens") || !strcmp(x->columns[i].name, "soft_ids");
  return !strcmp(name, "tokens") || !strcmp(name, "soft_ids") || (reads && !strcmp(name, "target"));
}

static mn_status shape_of(const mn_st *st, const mn_st_tensor *t, column *out) {
  char shape[96];
  if (t->shape.ndim < 1 || t->shape.dim[0] < 1)
    return mn_fail(MN_ERR_CONFIG, "%s: %s is %s; its first axis must be the examples, one at least", mn_st_path(st), t->name,
                   mn_shape_str(&t->shape, shape));
  const bool floats = t->dtype == MN_DTYPES || mn_dtype_is_float(t->dtype); /* F16 and what cannot be read is said when it is read */
  *out = (column){.dtype = floats ? MN_F32 : MN_I32, .shape = {.ndim = t->shape.ndim - 1}};
  for (int i = 1; i < t->shape.ndim; i++) out->shape.dim[i - 1] = t->shape.dim[i];
  return MN_OK;
}

/* The tensor's values into columns[i].data[part]; files of one source have the same fields of the same shapes. */
static mn_status read_column(mn_source *s, const mn_st *st, const mn_st_tensor *t, int part) {
  tensors *x = s->data;
  column found;
  char a[96], b[96];
  MN_TRY(check_name(st, t->name));
  MN_TRY(shape_of(st, t, &found));
  int i = 0;
  while (i < x->n_columns && strcmp(x->columns[i].name, t->name) != 0) i++;
  if (part && i == x->n_columns)
    return mn_fail(MN_ERR_CONFIG, "data.test_file: %s has a tensor %s that data.file has not", mn_st_path(st), t->name);
  if (part && (found.dtype != x->columns[i].dtype || !mn_shape_equal(&found.shape, &x->columns[i].shape)))
    return mn_fail(MN_ERR_CONFIG, "data.test_file: %s: an example's %s is %s %s, and in data.file %s %s", mn_st_path(st), t->name,
                   mn_dtype_name(found.dtype), mn_shape_str(&found.shape, a), mn_dtype_name(x->columns[i].dtype),
                   mn_shape_str(&x->columns[i].shape, b));
  if (!part) {
    x->columns[x->n_columns++] = found;
    if (!(x->columns[i].name = mn_arena_strdup(s->arena, t->name))) return MN_ERR_MEMORY;
  }
  if (x->n[part] && t->shape.dim[0] != x->n[part])
    return mn_fail(MN_ERR_CONFIG, "%s: %s has %lld examples along its first axis, and %s has %lld", mn_st_path(st), t->name,
                   (long long)t->shape.dim[0], x->columns[0].name, (long long)x->n[part]);
  x->n[part] = t->shape.dim[0];
  x->columns[i].data[part] = mn_alloc((size_t)mn_shape_count(&t->shape) * mn_dtype_size(found.dtype) + 1);
  return x->columns[i].data[part] ? mn_st_read_finite(st, t, found.dtype, x->columns[i].data[part]) : MN_ERR_MEMORY;
}

/* Ids are of the vocabulary that the file was made with, where it says so. */
static mn_status check_tokenizer(const mn_source *s, const mn_st *st) {
  const char *was = mn_st_meta(st, "tokenizer");
  char is[33];
  if (!was || !*was || !s->tok) return MN_OK;
  mn_tokenizer_hash(s->tok, is);
  if (!strcmp(was, is)) return MN_OK;
  return mn_fail(MN_ERR_CONFIG,
                 "%s was made with another tokenizer: give this training the one of the model that made it (tokenizer: {type: file, file: "
                 "DIR/tokenizer.json})",
                 mn_st_path(st));
}

static mn_status read_file(mn_source *s, const char *path, const char *key, int part) {
  tensors *x = s->data;
  mn_st *st;
  MN_TRY(mn_context(mn_st_open(path, &st), "data.%s", key));
  mn_status status = check_tokenizer(s, st);
  if (status == MN_OK && !mn_st_count(st)) status = mn_fail(MN_ERR_CONFIG, "%s holds no tensor", path);
  if (status == MN_OK && mn_st_count(st) > MN_SOURCE_FIELDS)
    status = mn_fail(MN_ERR_CONFIG, "%s has %d tensors; a source has at most %d fields", path, mn_st_count(st), MN_SOURCE_FIELDS);
  for (int i = 0; i < mn_st_count(st) && status == MN_OK; i++) status = read_column(s, st, mn_st_at(st, i), part);
  if (status == MN_OK && part && mn_st_count(st) != x->n_columns)
    status = mn_fail(MN_ERR_CONFIG, "data.test_file: %s has %d fields, and data.file has %d", path, mn_st_count(st), x->n_columns);
  if (status == MN_OK && !part) s->seq_len = length_of(st);
  mn_st_close(st);
  return mn_context(status, "data.%s", key);
}

/* The largest value of an integer field, plus 1. */
static int64_t above(const tensors *x, const column *c) {
  int64_t most = 0;
  for (int part = 0; part < 2; part++)
    for (int64_t i = 0, n = c->data[part] ? x->n[part] * mn_shape_count(&c->shape) : 0; i < n; i++)
      if (((const int32_t *)c->data[part])[i] >= most) most = (int64_t)((const int32_t *)c->data[part])[i] + 1;
  return most;
}

/* Every integer of a field from `least` to `most`; `allowed` says in words what is. */
static mn_status check_values(const mn_source *s, const column *c, int64_t least, int64_t most, const char *allowed) {
  const tensors *x = s->data;
  const config *o = s->config;
  const int64_t per = mn_shape_count(&c->shape);
  char place[48] = "";
  for (int part = 0; part < 2; part++)
    for (int64_t i = 0, n = c->data[part] ? x->n[part] * per : 0; i < n; i++) {
      const int64_t value = ((const int32_t *)c->data[part])[i];
      if (value >= least && value <= most) continue;
      if (per > 1) snprintf(place, sizeof place, ", place %lld", (long long)(i % per));
      return mn_fail(MN_ERR_CONFIG, "data.%s: %s: %s holds %lld in row %lld%s (counted from 0), and %s", part ? "test_file" : "file",
                     part ? o->test_file : o->file, c->name, (long long)value, (long long)(i / per), place, allowed);
    }
  return MN_OK;
}

/* Places lie within the row: a span's ends, and how much of it is there. Ids are none below 0. */
static mn_status check_range(const mn_source *s, const column *c) {
  const bool span = !strcmp(c->name, "span"), source = !strcmp(c->name, "source_length"), length = source || !strcmp(c->name, "length");
  const int64_t room = source ? s->source_len : s->seq_len, least = least_of(c->name);
  char allowed[96];
  if ((span || length) && c->dtype != MN_I32)
    return mn_fail(MN_ERR_CONFIG, "data.file: %s: %s must be integers", ((const config *)s->config)->file, c->name);
  if (c->dtype != MN_I32) return MN_OK;
  if (span || length)
    snprintf(allowed, sizeof allowed, "a row has %lld places%s", (long long)room,
             span ? ", counted from 0" : ", of which one at least is there");
  else snprintf(allowed, sizeof allowed, "%s are not below 0", c->name);
  return check_values(s, c, least, span ? room - 1 : length ? room : INT64_MAX, allowed);
}

static const column *find_column(const tensors *x, const char *name, int64_t per_row) {
  for (int i = 0; i < x->n_columns; i++)
    if (!strcmp(x->columns[i].name, name) && mn_shape_count(&x->columns[i].shape) == per_row) return &x->columns[i];
  return NULL;
}

/* An answer has both ends or neither, in order, within what is there of its row. */
static mn_status check_spans(const mn_source *s, const column *c) {
  const tensors *x = s->data;
  const config *o = s->config;
  const column *length = find_column(x, "length", 1), *masks = find_column(x, "masks", s->seq_len);
  if (strcmp(c->name, "span") != 0 || mn_shape_count(&c->shape) != 2) return MN_OK; /* other shapes are refused by name */
  for (int part = 0; part < 2 && c->data[part]; part++)
    for (int64_t i = 0; i < x->n[part]; i++) {
      const int32_t *end = (const int32_t *)c->data[part] + 2 * i;
      const int64_t room = length ? ((const int32_t *)length->data[part])[i] : s->seq_len;
      const bool none = end[0] < 0 && end[1] < 0, within = end[0] >= 0 && end[0] <= end[1] && end[1] < room;
      const char *file = part ? o->test_file : o->file, *key = part ? "test_file" : "file";
      if (!none && !within)
        return mn_fail(MN_ERR_CONFIG,
                       "data.%s: %s: span is from %d to %d in row %lld (counted from 0), of which %lld places are there: its first place "
                       "comes before its last, or both are below 0 where there is none",
                       key, file, (int)end[0], (int)end[1], (long long)i, (long long)room);
      const int32_t *there = masks && !none ? (const int32_t *)masks->data[part] + i * s->seq_len : NULL;
      if (there && (there[end[0]] < 1 || there[end[1]] < 1)) /* as objectives read them */
        return mn_fail(MN_ERR_CONFIG,
                       "data.%s: %s: span is from %d to %d in row %lld (counted from 0), and masks say that place %d is not there", key,
                       file, (int)end[0], (int)end[1], (long long)i, (int)end[there[end[0]] < 1 ? 0 : 1]);
    }
  return MN_OK;
}

static mn_status check_length(const mn_source *s, const column *c) {
  const tensors *x = s->data;
  const config *o = s->config;
  if (!is_per_place(c) || c->shape.dim[0] == s->seq_len) return MN_OK;
  const char *first = NULL;
  for (size_t i = 0; i < sizeof sequences / sizeof *sequences && !first; i++)
    for (int k = 0; k < x->n_columns && !first; k++)
      if (!strcmp(sequences[i], x->columns[k].name) && x->columns[k].shape.ndim) first = sequences[i];
  return mn_fail(MN_ERR_CONFIG, "data.file: %s: rows of %s have %lld places, and those of %s have %lld: both have one for each of a row's",
                 o->file, c->name, (long long)c->shape.dim[0], first ? first : "this file", (long long)s->seq_len);
}

static mn_status look(mn_source *s, const column *c) {
  const tensors *x = s->data;
  char hex[MN_HASH_HEX];
  for (int part = 0; part < 2 && c->data[part]; part++) {
    mn_content_hash(c->data[part], (size_t)(x->n[part] * mn_shape_count(&c->shape)) * mn_dtype_size(c->dtype), hex);
    mn_text_addf(&s->identity, "%s %s ", c->name, hex);
  }
  const int64_t most = c->dtype == MN_I32 ? above(x, c) : 0;
  if (is_id(x, c->name) && most > s->vocab_size) s->vocab_size = most, s->vocab_field = c->name;
  if (!strcmp(c->name, "label")) s->classes = most;
  if (!strcmp(c->name, "target")) s->targets = most;
  if (!strcmp(c->name, "source")) s->source_vocab_size = most;
  if (!strcmp(c->name, "condition")) s->conditions = most;
  if (!strcmp(c->name, "masks") && (c->dtype != MN_I32 || most > 2))
    return mn_fail(MN_ERR_CONFIG, "data.file: masks must be integers, 1 where a place is there and 0 where it is not");
  MN_TRY(check_length(s, c));
  return check_range(s, c);
}

static mn_status open_tensors(mn_source *s, const mn_watch *watch) {
  (void)watch;
  const config *o = s->config;
  tensors *x = s->data = mn_arena_alloc(s->arena, sizeof *x);
  if (!x) return MN_ERR_MEMORY;
  MN_TRY(read_file(s, o->file, "file", 0));
  if (o->test_file) MN_TRY(read_file(s, o->test_file, "test_file", 1));
  for (int i = 0; i < x->n_columns; i++)
    if (!strcmp(x->columns[i].name, "source") && x->columns[i].shape.ndim) s->source_len = x->columns[i].shape.dim[0];
  for (int i = 0; i < x->n_columns; i++) MN_TRY(look(s, &x->columns[i]));
  for (int i = 0; i < x->n_columns; i++) MN_TRY(check_spans(s, &x->columns[i]));
  if (s->tok && mn_tokenizer_vocab_size(s->tok) >= s->vocab_size) s->vocab_size = mn_tokenizer_vocab_size(s->tok), s->vocab_field = NULL;
  x->held_out = mn_hold_out(x->n[0], o->validation);
  for (int i = 0; i < x->n_columns; i++)
    if (!strcmp(x->columns[i].name, "label") && !x->columns[i].shape.ndim && x->columns[i].dtype == MN_I32)
      MN_TRY(mn_held_out_warn(&x->held_out, x->columns[i].data[0], sizeof(int32_t), s->classes, NULL));
  mn_text_addf(&s->identity, "held out %lld", (long long)x->held_out.held);
  return MN_OK;
}

static void close_tensors(mn_source *s) {
  tensors *x = s->data;
  for (int i = 0; x && i < x->n_columns; i++) free(x->columns[i].data[0]), free(x->columns[i].data[1]);
}

/* ---- batches ---- */
static void layout(const mn_source *s, mn_batch *batch) {
  const tensors *x = s->data;
  for (int i = 0; i < x->n_columns; i++) {
    mn_shape shape = {.ndim = x->columns[i].shape.ndim + 1, .dim = {batch->B}};
    for (int k = 1; k < shape.ndim; k++) shape.dim[k] = x->columns[i].shape.dim[k - 1];
    mn_batch_add(batch, x->columns[i].name, x->columns[i].dtype, shape, "a tensor of the file");
  }
}

static int64_t count(const mn_source *s, int split) {
  const tensors *x = s->data;
  return split == MN_SPLIT_TEST ? x->n[1] : mn_held_out_count(&x->held_out, split == MN_SPLIT_VALIDATION);
}

static mn_status example(mn_source *s, int split, int64_t index, uint64_t epoch, mn_batch *batch, int64_t b) {
  (void)epoch;
  const tensors *x = s->data;
  const int part = split == MN_SPLIT_TEST;
  const int64_t at = part ? index : mn_held_out_at(&x->held_out, split == MN_SPLIT_VALIDATION, index);
  for (int i = 0; i < x->n_columns; i++) {
    const column *c = &x->columns[i];
    const size_t bytes = (size_t)mn_shape_count(&c->shape) * mn_dtype_size(c->dtype);
    memcpy(mn_batch_row(batch, i, b), (const char *)c->data[part] + (size_t)at * bytes, bytes);
  }
  return MN_OK;
}

const mn_source_def mn_source_tensors = {
    .name = "tensors",
    .summary = "examples made elsewhere: the tensors of a safetensors file are the fields, by name",
    .config_size = sizeof(config),
    .fields = fields,
    .seq_len = seq_len,
    .reads_text = reads_text,
    .open = open_tensors,
    .close = close_tensors,
    .layout = layout,
    .count = count,
    .example = example,
};
