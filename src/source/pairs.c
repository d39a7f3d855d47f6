/* pairs.c - pairs of texts: a source and what it should become, from files of tab-separated lines, from two files with a line each, or
 * from a task of text. As a sequence for an encoder-decoder (fields source, source_length; tokens and target, which are the
 * second text behind and before the end token, and length), or as twins, two rows of one batch that belong together (tokens, length), for
 * a contrastive objective. */
#include <stdlib.h>
#include <string.h>

#include "source/examples.h"
#include "source/token_lists.h"

typedef struct config {
  mn_strings files, first, second, test_files;
  const mn_value *task;
  int layout, too_long;
  int64_t source_len, target_len;
  double validation;
} config;
enum { SEQUENCE, TWINS };
enum { REFUSE, LEAVE_OUT };
static const char *const layouts[] = {"sequence", "twins", NULL}, *const lengths[] = {"refuse", "leave_out", NULL};
static const mn_field fields[] = {
    MN_FIELD_STRINGS(config, files, "text files of two columns with a tab between them; *, ?, [ ], {a,b} and ~ are patterns"),
    MN_FIELD_STRINGS(config, first, "or files of first texts, a line each"),
    MN_FIELD_STRINGS(config, second, "and files of second texts, line by line beside them"),
    MN_FIELD_STRINGS(config, test_files, "files of two columns for the test"),
    MN_FIELD_VALUE(config, task, "or a task of text, whose prompt and answer are the pair: {name: number_words}"),
    MN_FIELD_ENUM(config, layout, layouts, SEQUENCE, "sequence: source and target of one row; twins: two rows of a batch"),
    MN_FIELD_ENUM(config, too_long, lengths, REFUSE, "pairs that do not fit: a mistake, or left out"),
    MN_FIELD_INT(config, source_len, 64, 1, 1 << 20, "tokens S of the first text, at most"),
    MN_FIELD_INT(config, target_len, 64, 2, 1 << 20, "tokens T of the second text with its end, at most; twins: of either text"),
    MN_FIELD_FLOAT(config, validation, 0.05, 0, 0.9, "fraction of the pairs that is held out"),
    MN_FIELD_END};

typedef struct pairs {
  mn_token_lists part[2]; /* of training and validation, of the test: first and second texts by turns */
  mn_held_out held_out;
  mn_task *task;
  mn_encoder *enc;
  mn_ids scratch;
  int32_t eos;
} pairs;

static mn_status check(const mn_value *map, const char *where, void *c) {
  const config *o = c;
  int ways = (o->files.count > 0) + (o->first.count > 0 || o->second.count > 0) + (o->task != NULL);
  if (ways != 1) return mn_config_fail(map, where, "files", "or first and second, or task: one of them must be given");
  if (!o->first.count != !o->second.count)
    return mn_config_fail(map, where, o->first.count ? "second" : "first", "is missing: both texts of a pair are needed");
  if (o->layout == TWINS && mn_config_given(map, "source_len"))
    return mn_config_fail(map, where, "source_len", "has no effect on twins; set target_len");
  if (!o->task) return MN_OK;
  static const char *const of_files[] = {"test_files", "validation", "too_long"};
  for (size_t i = 0; i < sizeof of_files / sizeof *of_files; i++)
    if (mn_config_given(map, of_files[i]))
      return mn_config_fail(map, where, of_files[i], "has no effect on a task, whose examples are made");
  const mn_value *name = mn_value_get(o->task, "name");
  if (!name || name->kind != MN_TEXT) return mn_config_fail(map, where, "task", "needs a name, as in {name: number_words}");
  return mn_task_check(name->as.text, o->task);
}

static mn_status seq_len(const void *c, int64_t *out) {
  *out = ((const config *)c)->target_len;
  return MN_OK;
}

static bool always(const void *c) {
  (void)c;
  return true;
}

static mn_strings texts(const void *c) {
  const config *o = c;
  return o->files.count ? o->files : o->second;
}

/* ---- reading ---- */

static mn_status too_long(const config *o, const char *place, int64_t first, int64_t second) {
  bool twins = o->layout == TWINS;
  return mn_fail(MN_ERR_CONFIG, "%s: the pair has %lld and %lld tokens, more than data.%s %lld or data.target_len %lld%s; raise it%s",
                 place, (long long)first, (long long)second, twins ? "target_len" : "source_len",
                 (long long)(twins ? o->target_len : o->source_len), (long long)o->target_len, twins ? "" : " with its end",
                 o->task ? "" : ", or set data.too_long: leave_out");
}

static bool fits(const config *o, int64_t first, int64_t second) {
  if (first < 1 || second < 1) return false;
  return o->layout == TWINS ? first <= o->target_len && second <= o->target_len : first <= o->source_len && second + 1 <= o->target_len;
}

typedef struct reading {
  mn_source *s;
  mn_token_lists *out;
  int64_t *left_out;
} reading;

/* Adds a pair, of texts a and b. */
static mn_status add_pair(const reading *r, const char *place, const char *a, size_t na, const char *b, size_t nb) {
  const config *o = r->s->config;
  pairs *x = r->s->data;
  mn_token_lists *out = r->out;
  size_t before = out->ids.len;
  MN_TRY(mn_context(mn_encoder_add(x->enc, a, na, 0, &out->ids), "%s", place));
  size_t middle = out->ids.len;
  MN_TRY(mn_context(mn_encoder_add(x->enc, b, nb, 0, &out->ids), "%s", place));
  int64_t first = (int64_t)(middle - before), second = (int64_t)(out->ids.len - middle);
  if (first < 1 || second < 1) return mn_fail(MN_ERR_CONFIG, "%s: a text of the pair is empty", place);
  if (!fits(o, first, second)) {
    if (o->too_long == REFUSE) return too_long(o, place, first, second);
    out->ids.len = before;
    ++*r->left_out;
    return MN_OK;
  }
  size_t all = out->ids.len;
  out->ids.len = middle;
  MN_TRY(mn_token_lists_close_one(out));
  out->ids.len = all;
  return mn_token_lists_close_one(out);
}

static mn_status on_columns(void *ctx, const char *place, const char *line, size_t n) {
  if (!n) return MN_OK;
  const char *tab = memchr(line, '\t', n);
  if (!tab || memchr(tab + 1, '\t', n - (size_t)(tab + 1 - line)))
    return mn_fail(MN_ERR_FORMAT, "%s: has %s tab; a pair is two texts with one between them", place, tab ? "more than one" : "no");
  return add_pair(ctx, place, line, (size_t)(tab - line), tab + 1, n - (size_t)(tab + 1 - line));
}

static mn_status read_columns(const reading *r, const mn_strings *patterns, const char *key) {
  mn_strings files;
  MN_TRY(mn_example_files(r->s, patterns, key, &files));
  for (int i = 0; i < files.count; i++) MN_TRY(mn_context(mn_each_line(files.items[i], on_columns, (void *)(uintptr_t)r), "data.%s", key));
  return MN_OK;
}

typedef struct line_list { /* the lines of files */
  mn_arena *arena;
  const char **line;
  size_t n, cap;
} line_list;

static mn_status on_line(void *ctx, const char *place, const char *line, size_t n) {
  line_list *l = ctx;
  (void)place;
  if (l->n == l->cap) {
    const char **more = mn_realloc(l->line, (l->cap = l->cap ? 2 * l->cap : 256) * sizeof *more);
    if (!more) return MN_ERR_MEMORY;
    l->line = more;
  }
  char *copy = mn_arena_alloc(l->arena, n + 1);
  if (!copy) return MN_ERR_MEMORY;
  memcpy(copy, line, n);
  l->line[l->n++] = copy;
  return MN_OK;
}

static mn_status read_beside(const reading *r, const config *o) {
  line_list list[2] = {{.arena = r->s->arena}, {.arena = r->s->arena}};
  mn_strings files;
  mn_status status = MN_OK;
  for (int k = 0; k < 2 && status == MN_OK; k++) {
    status = mn_example_files(r->s, k ? &o->second : &o->first, k ? "second" : "first", &files);
    for (int i = 0; i < files.count && status == MN_OK; i++) status = mn_each_line(files.items[i], on_line, &list[k]);
  }
  if (status == MN_OK && list[0].n != list[1].n)
    status = mn_fail(MN_ERR_CONFIG, "data.first has %zu lines, data.second %zu: each line of the one belongs to one of the other",
                     list[0].n, list[1].n);
  for (size_t i = 0; i < list[0].n && status == MN_OK; i++) {
    char *place = mn_format("data.first and data.second, line %zu", i + 1);
    status = place ? add_pair(r, place, list[0].line[i], strlen(list[0].line[i]), list[1].line[i], strlen(list[1].line[i])) : MN_ERR_MEMORY;
    free(place);
  }
  free(list[0].line);
  free(list[1].line);
  return status;
}

static mn_status open_files(mn_source *s, pairs *x) {
  const config *o = s->config;
  int64_t left_out = 0;
  char hex[MN_HASH_HEX];
  for (int k = 0; k < 2; k++) {
    reading r = {s, &x->part[k], &left_out};
    if (k) MN_TRY(read_columns(&r, &o->test_files, "test_files"));
    else MN_TRY(o->files.count ? read_columns(&r, &o->files, "files") : read_beside(&r, o));
    mn_content_hash(x->part[k].ids.data, x->part[k].ids.len * sizeof *x->part[k].ids.data, hex);
    mn_text_addf(&s->identity, "%s %lld ", hex, (long long)x->part[k].n);
  }
  if (!x->part[0].n) return mn_fail(MN_ERR_CONFIG, "data: no pair is there to train on%s", left_out ? ": all are too long" : "");
  if (left_out) mn_log_write(MN_LOG_WARN, "data: %lld pairs are longer than source_len or target_len and left out", (long long)left_out);
  x->held_out = mn_hold_out(x->part[0].n / 2, o->validation);
  mn_text_addf(&s->identity, "held out %lld ", (long long)x->held_out.held);
  return MN_OK;
}

static mn_status open_task(mn_source *s, pairs *x) {
  const config *o = s->config;
  MN_TRY(mn_task_open(mn_value_get(o->task, "name")->as.text, o->task, &x->task));
  if (!mn_value_get(o->task, "seed")) x->task->seed = (uint64_t)s->seed;
  if (!x->task->def->sample_text)
    return mn_value_fail(o->task, "task %s makes no text: a pair is a prompt and its answer", x->task->def->name);
  return mn_value_to_json(o->task, 0, &s->identity);
}

static mn_status open_pairs(mn_source *s, const mn_watch *watch) {
  (void)watch;
  const config *o = s->config;
  pairs *x = s->data = mn_arena_alloc(s->arena, sizeof *x);
  if (!x) return MN_ERR_MEMORY;
  x->eos = mn_tokenizer_eos(s->tok);
  if (x->eos < 0) return mn_fail(MN_ERR_CONFIG, "data.type pairs needs a tokenizer with an end token");
  MN_TRY(mn_encoder_new(s->tok, &x->enc));
  MN_TRY(o->task ? open_task(s, x) : open_files(s, x));
  s->seq_len = o->target_len;
  s->source_len = o->layout == TWINS ? 0 : o->source_len;
  s->vocab_size = mn_tokenizer_vocab_size(s->tok);
  s->rows = o->layout == TWINS ? 2 : 1;
  mn_text_addf(&s->identity, "layout %d lengths %lld %lld", o->layout, (long long)o->source_len, (long long)o->target_len);
  return MN_OK;
}

static void close_pairs(mn_source *s) {
  pairs *x = s->data;
  if (!x) return;
  for (int k = 0; k < 2; k++) mn_token_lists_free(&x->part[k]);
  mn_task_close(x->task);
  mn_encoder_free(x->enc);
  mn_ids_free(&x->scratch);
}

/* ---- batches ---- */

static void layout(const mn_source *s, mn_batch *batch) {
  const config *o = s->config;
  int64_t B = batch->B, T = o->target_len;
  if (o->layout == SEQUENCE) {
    mn_batch_add(batch, "source", MN_I32, MN_SHAPE(B, o->source_len), "the first text");
    mn_batch_add(batch, "source_length", MN_I32, MN_SHAPE(B), "tokens of it");
    mn_batch_add(batch, "target", MN_I32, MN_SHAPE(B, T), "the second text and its end");
  }
  mn_batch_add(batch, "tokens", MN_I32, MN_SHAPE(B, T), o->layout == SEQUENCE ? "the end token and the second text" : "a text of the pair");
  mn_batch_add(batch, "length", MN_I32, MN_SHAPE(B), "tokens of the row that are there");
}

static int64_t count(const mn_source *s, int split) {
  const pairs *x = s->data;
  if (x->task) return INT64_MAX;
  return split == MN_SPLIT_TEST ? x->part[1].n / 2 : mn_held_out_count(&x->held_out, split == MN_SPLIT_VALIDATION);
}

static void put(const mn_batch *batch, const char *field, int64_t b, const int32_t *ids, int64_t n, int32_t rest) {
  int i = mn_batch_find(batch, field);
  int32_t *to = mn_batch_row(batch, i, b);
  int64_t all = batch->field[i].shape.ndim > 1 ? batch->field[i].shape.dim[1] : 1;
  for (int64_t k = 0; k < all; k++) to[k] = k < n ? ids[k] : rest;
}

static mn_status fill_row(const mn_source *s, mn_batch *batch, int64_t b, const int32_t *a, int64_t na, const int32_t *c, int64_t nc) {
  const config *o = s->config;
  const pairs *x = s->data;
  if (o->layout == TWINS) {
    for (int k = 0; k < 2; k++) {
      int32_t n = (int32_t)(k ? nc : na);
      put(batch, "tokens", b + k, k ? c : a, n, 0);
      put(batch, "length", b + k, &n, 1, 0);
    }
    return MN_OK;
  }
  int32_t first = (int32_t)na, length = (int32_t)nc + 1;
  put(batch, "source", b, a, na, 0);
  put(batch, "source_length", b, &first, 1, 0);
  put(batch, "target", b, c, nc, MN_IGNORE);
  ((int32_t *)mn_batch_row(batch, mn_batch_find(batch, "target"), b))[nc] = x->eos;
  int32_t *tokens = mn_batch_row(batch, mn_batch_find(batch, "tokens"), b);
  memset(tokens, 0, (size_t)o->target_len * sizeof *tokens);
  tokens[0] = x->eos;
  memcpy(tokens + 1, c, (size_t)nc * sizeof *tokens);
  put(batch, "length", b, &length, 1, 0);
  return MN_OK;
}

static mn_status made(mn_source *s, int split, int64_t index, mn_batch *batch, int64_t b) {
  const config *o = s->config;
  pairs *x = s->data;
  mn_task_text t;
  MN_TRY(mn_task_sample_text(x->task, split, (uint64_t)index, &t));
  x->scratch.len = 0;
  mn_status status = mn_encoder_add(x->enc, t.prompt, strlen(t.prompt), 0, &x->scratch);
  int64_t first = (int64_t)x->scratch.len;
  if (status == MN_OK) status = mn_encoder_add(x->enc, t.answer, strlen(t.answer), 0, &x->scratch);
  int64_t second = (int64_t)x->scratch.len - first;
  if (status == MN_OK && !fits(o, first, second)) status = too_long(o, x->task->def->name, first, second);
  if (status == MN_OK) status = fill_row(s, batch, b, x->scratch.data, first, x->scratch.data + first, second);
  mn_task_text_free(&t);
  return status;
}

static mn_status example(mn_source *s, int split, int64_t index, uint64_t epoch, mn_batch *batch, int64_t b) {
  (void)epoch;
  const pairs *x = s->data;
  if (x->task) return made(s, split, index, batch, b);
  const mn_token_lists *part = &x->part[split == MN_SPLIT_TEST];
  int64_t i = split == MN_SPLIT_TEST ? index : mn_held_out_at(&x->held_out, split == MN_SPLIT_VALIDATION, index);
  const int32_t *first, *second;
  int64_t na = mn_token_list(part, 2 * i, &first), nc = mn_token_list(part, 2 * i + 1, &second);
  return fill_row(s, batch, b, first, na, second, nc);
}

const mn_source_def mn_source_pairs = {
    .name = "pairs",
    .summary = "pairs of texts: a source and what it should become, or two that belong together",
    .config_size = sizeof(config),
    .fields = fields,
    .check = check,
    .seq_len = seq_len,
    .reads_text = always,
    .texts = texts,
    .open = open_pairs,
    .close = close_pairs,
    .layout = layout,
    .count = count,
    .example = example,
};
