/* source.c - see source.h: what all sources share. */
#include "source/source.h"

#include <stdlib.h>
#include <string.h>

#include "source/data.h"

/* ---- batches ---- */

int mn_batch_find(const mn_batch *batch, const char *name) {
  for (int i = 0; i < batch->n; i++)
    if (!strcmp(batch->field[i].name, name)) return i;
  return -1;
}

void *mn_batch_get(const mn_batch *batch, const char *name) {
  int i = mn_batch_find(batch, name);
  return i < 0 ? NULL : batch->data[i];
}

void *mn_batch_row(const mn_batch *batch, int field, int64_t b) {
  const mn_source_field *f = &batch->field[field];
  return (char *)batch->data[field] + (size_t)(b * (mn_shape_count(&f->shape) / f->shape.dim[0])) * mn_dtype_size(f->dtype);
}

void mn_batch_add(mn_batch *batch, const char *name, mn_dtype dtype, mn_shape shape, const char *help) {
  if (batch->n < MN_SOURCE_FIELDS) batch->field[batch->n++] = (mn_source_field){name, dtype, shape, help};
}

mn_status mn_batch_new(const mn_source *s, int64_t B, int64_t T, mn_batch *out) {
  *out = (mn_batch){.B = B, .T = T, .rows = B, .present = B};
  s->def->layout(s, out);
  for (int i = 0; i < out->n; i++) {
    size_t bytes = (size_t)mn_shape_count(&out->field[i].shape) * mn_dtype_size(out->field[i].dtype);
    if (!(out->data[i] = mn_calloc(1, bytes ? bytes : 1))) {
      mn_batch_free(out);
      return MN_ERR_MEMORY;
    }
  }
  return MN_OK;
}

void mn_batch_free(mn_batch *batch) {
  for (int i = 0; i < batch->n; i++) free(batch->data[i]);
  *batch = (mn_batch){0};
}

/* A row that is not there: nothing in it counts. */
static void empty_row(const mn_batch *batch, int64_t b) {
  for (int i = 0; i < batch->n; i++) {
    const mn_source_field *f = &batch->field[i];
    int64_t n = mn_shape_count(&f->shape) / f->shape.dim[0];
    void *row = mn_batch_row(batch, i, b);
    memset(row, 0, (size_t)n * mn_dtype_size(f->dtype));
    bool asked = f->dtype == MN_I32 &&
                 (!strcmp(f->name, "target") || !strcmp(f->name, "label") || !strcmp(f->name, "span") || !strcmp(f->name, "soft_ids"));
    for (int64_t k = 0; asked && k < n; k++) ((int32_t *)row)[k] = MN_IGNORE;
  }
}

/* ---- the section `data` ---- */

typedef struct common {
  const char *type;
  int64_t seed;
} common;
static const mn_field common_fields[] = {MN_FIELD_STRING(common, type, NULL, "which source"),
                                         MN_FIELD_INT(common, seed, 1, 0, INT64_MAX, "of the order of examples"), MN_FIELD_END};

/* Text and tasks share their table, which was there before types were. */
static bool owns_all_keys(const mn_source_def *d) { return d->fields == mn_data_fields; }

static const char *name_at(int i) { return mn_source_at(i)->name; }

static mn_status find_source(const mn_value *map, const char *where, const mn_source_def **out) {
  const mn_value *v = mn_value_get(map, "type");
  const mn_value *task = mn_value_get(map, "task");
  const char *type = task && task->kind != MN_NULL ? "task" : "text";
  int i;
  if (v && v->kind == MN_NULL) v = NULL;
  if (v && v->kind != MN_TEXT) return mn_config_fail(map, where, "type", "must name a source, e.g. type: text");
  if (v) type = v->as.text;
  MN_TRY(mn_config_choose(v, "source", type, mn_source_count(), name_at, &i));
  *out = mn_source_at(i);
  return MN_OK;
}

mn_status mn_source_parse(mn_arena *arena, const mn_value *map, const char *where, int64_t seed, mn_source_config *out) {
  *out = (mn_source_config){.seed = seed};
  MN_TRY(find_source(map, where, &out->def));
  const mn_source_def *d = out->def;
  out->config = mn_arena_alloc(arena, d->config_size + 1);
  if (!out->config) return MN_ERR_MEMORY;
  common c;
  const mn_config_part parts[] = {{d->fields, out->config}, {common_fields, &c}};
  int n = owns_all_keys(d) ? 1 : 2;
  for (int i = 0; i < n; i++) mn_config_defaults(parts[i].fields, parts[i].target);
  MN_TRY(mn_config_parse(arena, map, where, parts, n));
  if (mn_value_get(map, "seed")) out->seed = n == 1 ? ((mn_data_config *)out->config)->seed : c.seed;
  if (n == 1) ((mn_data_config *)out->config)->seed = out->seed;
  return d->check ? d->check(map, where, out->config) : MN_OK;
}

const mn_value *mn_source_to_value(mn_arena *arena, const mn_source_config *s) {
  common c = {s->def->name, s->seed};
  const mn_config_part parts[] = {{common_fields, &c}, {s->def->fields, s->config}};
  return owns_all_keys(s->def) ? mn_config_to_value(arena, parts + 1, 1) : mn_config_to_value(arena, parts, 2);
}

/* ---- opening ---- */

mn_status mn_source_open(const mn_source_config *config, const mn_tokenizer *tok, const mn_watch *watch, mn_source **out) {
  *out = NULL;
  mn_arena *arena = mn_arena_new();
  mn_source *s = arena ? mn_arena_alloc(arena, sizeof *s) : NULL;
  if (!s) {
    mn_arena_free(arena);
    return MN_ERR_MEMORY;
  }
  *s = (mn_source){.def = config->def, .config = config->config, .seed = config->seed, .tok = tok, .arena = arena};
  bool text = s->def->reads_text && s->def->reads_text(s->config);
  mn_status status = text && !tok ? mn_fail(MN_ERR_ARG, "data: text needs a tokenizer") : s->def->open(s, watch);
  if (status == MN_OK && s->identity.len) { /* else the definition has set the hash itself */
    mn_text_addf(&s->identity, " %s seed %lld", s->def->name, (long long)s->seed);
    status = mn_text_status(&s->identity);
    if (status == MN_OK) mn_content_hash(s->identity.data, s->identity.len, s->hash);
  }
  if (status != MN_OK) mn_source_close(s);
  else *out = s;
  return status;
}

void mn_source_close(mn_source *s) {
  if (!s) return;
  if (s->def->close) s->def->close(s);
  mn_text_free(&s->identity);
  mn_arena_free(s->arena);
}

void mn_source_hash(const mn_source *s, char hex[MN_HASH_HEX]) { memcpy(hex, s->hash, MN_HASH_HEX); }

const mn_task *mn_task_of_source(const mn_source *s) {
  const mn_corpus *c = mn_source_corpus(s);
  return c ? mn_corpus_task(c) : NULL;
}

/* ---- reading ---- */

static int64_t rows_of(const mn_source *s) { return s->rows > 1 ? s->rows : 1; }

static const char *split_name(int split) {
  return split == MN_SPLIT_TRAIN ? "training" : split == MN_SPLIT_VALIDATION ? "validation" : "test";
}

/* What can be done where a part is empty, by the keys of this source that make one. */
static void add_remedy(const mn_source *s, int split, mn_text *out) {
  const char *part = split_name(split), *between = split == MN_SPLIT_TEST ? "set " : "raise ";
  if (split == MN_SPLIT_TRAIN) {
    mn_text_add(out, "name more data, or hold out less");
    return;
  }
  for (const mn_field *f = s->def->fields; f->name; f++)
    if (!strncmp(f->name, part, strlen(part)) || !strcmp(f->name, "fractions")) {
      mn_text_addf(out, "%sdata.%s", between, f->name);
      between = " or ";
    }
  mn_text_addf(out, "%s more data", *between == ' ' ? ", or name" : "name");
  if (split == MN_SPLIT_VALIDATION) mn_text_add(out, ", or train without (train.validate_every: 0)");
}

mn_status mn_source_check(const mn_source *s, int split, int64_t B, int64_t T) {
  if (B < 1 || T < 1 || B > INT32_MAX || T > INT32_MAX)
    return mn_fail(MN_ERR_CONFIG, "a batch of %lld rows of %lld tokens is impossible", (long long)B, (long long)T);
  if (s->def->fits) return s->def->fits(s, split, B, T);
  if (s->seq_len && s->seq_len != T)
    return mn_fail(MN_ERR_CONFIG, "train.seq_len is %lld, but the rows of data.type %s have %lld steps; leave it out", (long long)T,
                   s->def->name, (long long)s->seq_len);
  if (B % rows_of(s))
    return mn_fail(MN_ERR_CONFIG, "train.batch is %lld, but examples of data.type %s fill %d rows; choose a multiple", (long long)B,
                   s->def->name, s->rows);
  if (s->def->count(s, split) > 0) return MN_OK;
  mn_text remedy = {0};
  add_remedy(s, split, &remedy);
  mn_fail(MN_ERR_CONFIG, "data.type %s: there is no %s example; %s", s->def->name, split_name(split), remedy.data ? remedy.data : "");
  mn_text_free(&remedy);
  return MN_ERR_CONFIG;
}

int64_t mn_source_steps(const mn_source *s, int split, int64_t B, int64_t T) {
  if (s->def->steps) return s->def->steps(s, split, B, T);
  int64_t n = s->def->count(s, split), each = B / rows_of(s);
  return n == INT64_MAX ? n : (n + each - 1) / each;
}

/* Behind the last example of a split: rows that belong together stand against others, and those of an earlier batch do; else nothing. */
static mn_status fill_up(mn_source *s, int split, int64_t first, int64_t beyond, mn_batch *batch, int64_t b) {
  const int64_t rows = rows_of(s);
  if (rows > 1 && beyond < first) {
    batch->present = b + rows;
    return s->def->example(s, split, beyond, 0, batch, b);
  }
  for (int64_t r = 0; r < rows; r++) empty_row(batch, b + r);
  return MN_OK;
}

/* Training goes through the examples in an order drawn anew for every epoch, other splits in their order and once. */
static mn_status fill_examples(mn_source *s, int split, int64_t step, mn_batch *batch) {
  int64_t n = s->def->count(s, split), rows = rows_of(s), first = step * (batch->B / rows);
  batch->rows = 0;
  for (int64_t b = 0; b < batch->B; b += rows) {
    int64_t i = first + b / rows;
    if (split != MN_SPLIT_TRAIN && i >= n) {
      MN_TRY(fill_up(s, split, first, i - n, batch, b));
      continue;
    }
    uint64_t epoch = (uint64_t)(i / n), key = mn_splitmix64(mn_random_key((uint64_t)s->seed, "examples") ^ epoch);
    bool drawn = split == MN_SPLIT_TRAIN && n < INT64_MAX;
    MN_TRY(s->def->example(s, split, drawn ? mn_shuffled(key, n, i % n) : i, epoch, batch, b));
    batch->rows = batch->present = b + rows;
  }
  return MN_OK;
}

mn_status mn_source_fill(mn_source *s, int split, int64_t step, mn_batch *batch) {
  int64_t first;
  if (step < 0) return mn_fail(MN_ERR_ARG, "the batch of step %lld", (long long)step);
  if (__builtin_mul_overflow(step, batch->B, &first) || first > INT64_MAX - batch->B)
    return mn_fail(MN_ERR_ARG, "the batch of step %lld is beyond the end of numbers", (long long)step);
  MN_TRY(mn_source_check(s, split, batch->B, batch->T));
  batch->rows = batch->present = batch->B;
  return s->def->fill ? s->def->fill(s, split, step, batch) : fill_examples(s, split, step, batch);
}

const char *mn_source_unit(const mn_source *s) {
  static const char *const units[][2] = {{"tokens", "tokens"}, {"frames", "frames"}, {"series", "rows"}, {"images", "images"}};
  mn_batch layout = {.B = 1, .T = 1};
  s->def->layout(s, &layout);
  for (size_t i = 0; i < sizeof units / sizeof *units; i++)
    if (mn_batch_find(&layout, units[i][0]) >= 0) return units[i][1];
  return "examples";
}

int64_t mn_source_target_bytes(const mn_source *s, const mn_batch *batch) {
  int i = mn_batch_find(batch, "target");
  const mn_task *task = mn_task_of_source(s);
  if (i < 0 || batch->field[i].dtype != MN_I32 || !s->tok || (task && !task->def->sample_text)) return 0;
  return mn_target_bytes(s->tok, batch->data[i], mn_shape_count(&batch->field[i].shape));
}

/* A Feistel network over the next even power of two, walked until it lands inside (Black & Rogaway 2002). */
int64_t mn_shuffled(uint64_t key, int64_t n, int64_t i) {
  int half = 1;
  while (half < 31 && (uint64_t)1 << (2 * half) < (uint64_t)n) half++;
  uint64_t mask = ((uint64_t)1 << half) - 1, x = (uint64_t)i;
  do {
    uint64_t left = x >> half, right = x & mask;
    for (uint64_t round = 0; round < 6; round++) {
      uint64_t next = left ^ (mn_splitmix64(mn_splitmix64(key + round) ^ right) & mask);
      left = right;
      right = next;
    }
    x = left << half | right;
  } while (x >= (uint64_t)n);
  return (int64_t)x;
}
