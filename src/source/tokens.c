/* tokens.c - the sources of tokens whose every next one is asked for: text files, and tasks. Both stand on data.h; a task that
 * labels whole sequences, or asks where in one an answer stands, gives them with their lengths and one label or span each. */
#include <string.h>

#include "source/data.h"

mn_corpus *mn_source_corpus(const mn_source *s) { return s->def == &mn_source_text || s->def == &mn_source_task ? s->data : NULL; }

int64_t mn_source_longest(const mn_source *s, int split) {
  const mn_corpus *c = mn_source_corpus(s);
  return c ? mn_corpus_longest(c, split) : INT64_MAX;
}

bool mn_source_is_tokens(const mn_source_config *c) { return c->def == &mn_source_text || c->def == &mn_source_task; }

static bool labels(const mn_source *s) {
  const mn_task *task = mn_corpus_task(s->data);
  return task && task->def->sample_label;
}

static bool spans(const mn_source *s) {
  const mn_task *task = mn_corpus_task(s->data);
  return task && task->def->sample_span;
}

static bool shows_evidence(const mn_source *s) {
  const mn_task *task = mn_corpus_task(s->data);
  return task && task->def->evidence;
}

/* Keys of text have no effect on a task, and what is held out by name is not held out by a fraction. */
static mn_status check(const mn_value *map, const char *where, void *config) {
  static const char *const of_text[] = {"validation_files", "validation", "separator", "order", "documents"};
  mn_data_config *c = config;
  const mn_value *type = mn_value_get(map, "type");
  c->type = NULL; /* the other keys say as much */
  bool text = type && type->kind == MN_TEXT && !strcmp(type->as.text, "text");
  if (c->files.count && c->task) return mn_config_fail(map, where, "task", "and files are both given; remove one");
  if (text && c->task) return mn_config_fail(map, where, "task", "is no text; leave out type: text");
  if (type && type->kind == MN_TEXT && !text && !c->task) return mn_config_fail(map, where, "type", "is task, but there is no key task");
  for (size_t i = 0; i < sizeof of_text / sizeof *of_text; i++)
    if (c->task && mn_config_given(map, of_text[i]))
      return mn_config_fail(map, where, of_text[i], "has no effect on a task, whose examples are made; leave it out");
  if (c->validation_files.count && mn_config_given(map, "validation"))
    return mn_config_fail(map, where, "validation", "has no effect beside validation_files; leave one of them out");
  if (!c->task) return MN_OK;
  const mn_value *name = mn_value_get(c->task, "name");
  if (!name) MN_TRY(mn_config_misspelt(c->task, "name"));
  if (!name || name->kind != MN_TEXT) return mn_config_fail(map, where, "task", "needs a name, as in {name: mqar, len: 64}");
  return mn_task_check(name->as.text, c->task);
}

static mn_status seq_len_of(const void *config, int64_t *out) {
  const mn_data_config *c = config;
  mn_task *task;
  MN_TRY(mn_task_open(mn_value_get(c->task, "name")->as.text, c->task, &task));
  *out = task->seq_len;
  mn_task_close(task);
  return MN_OK;
}

static bool always(const void *config) {
  (void)config;
  return true;
}

static bool task_reads_text(const void *config) {
  const mn_data_config *c = config;
  const mn_value *name = mn_value_get(c->task, "name");
  const mn_task_def *d = name && name->kind == MN_TEXT ? mn_task_find(name->as.text) : NULL;
  return !d || d->sample_text;
}

static mn_strings texts(const void *config) { return ((const mn_data_config *)config)->files; }

static mn_status open_tokens(mn_source *s, const mn_watch *watch) {
  mn_corpus *c;
  MN_TRY(mn_corpus_open(s->config, s->tok, watch, &c));
  s->data = c;
  const mn_task *task = mn_corpus_task(c);
  s->vocab_size = mn_corpus_vocab_size(c);
  s->seq_len = task ? task->seq_len : 0;
  s->classes = task ? task->n_classes : 0;
  mn_corpus_hash(c, s->hash);
  return MN_OK;
}

static void close_tokens(mn_source *s) { mn_corpus_close(s->data); }

static void layout(const mn_source *s, mn_batch *batch) {
  int64_t B = batch->B, T = batch->T;
  mn_batch_add(batch, "tokens", MN_I32, MN_SHAPE(B, T), "token ids");
  if (labels(s) || spans(s)) {
    mn_batch_add(batch, "length", MN_I32, MN_SHAPE(B), "tokens of the row that are there");
    if (labels(s)) mn_batch_add(batch, "label", MN_I32, MN_SHAPE(B), "class of the whole row");
    else mn_batch_add(batch, "span", MN_I32, MN_SHAPE(B, 2), "first and last position of the answer");
  } else {
    mn_batch_add(batch, "target", MN_I32, MN_SHAPE(B, T), "the token after each, or MN_IGNORE");
    mn_batch_add(batch, "reset", MN_BOOL, MN_SHAPE(B), "rows that do not continue the row of the step before");
    if (mn_corpus_separate(s->data)) mn_batch_add(batch, "length", MN_I32, MN_SHAPE(B), "tokens of the row that are there");
    if (shows_evidence(s)) mn_batch_add(batch, "evidence", MN_I32, MN_SHAPE(B, T), "where in the row what is asked for was said, or -1");
  }
}

static mn_status fits(const mn_source *s, int split, int64_t B, int64_t T) { return mn_corpus_check(s->data, split, B, T); }
static int64_t steps(const mn_source *s, int split, int64_t B, int64_t T) { return mn_corpus_steps(s->data, split, B, T); }

/* Where each document is alone, every token of a row is asked for its next one, and behind it nothing is. */
static void add_lengths(mn_batch *batch) {
  const int32_t *target = batch->data[1];
  int32_t *length = batch->data[3];
  for (int64_t b = 0; b < batch->B; b++)
    for (length[b] = 0; length[b] < batch->T && target[b * batch->T + length[b]] != MN_IGNORE;) length[b]++;
}

static mn_status fill(mn_source *s, int split, int64_t step, mn_batch *batch) {
  const mn_task *task = mn_corpus_task(s->data);
  int32_t *tokens = batch->data[0], *length = batch->data[1], *said = batch->data[2];
  uint64_t first = (uint64_t)step * (uint64_t)batch->B;
  if (!labels(s) && !spans(s)) {
    MN_TRY(mn_corpus_batch(s->data, split, step, batch->B, batch->T, batch->data[0], batch->data[1], batch->data[2]));
    if (mn_corpus_separate(s->data)) add_lengths(batch);
    int32_t *evidence = mn_batch_get(batch, "evidence");
    for (int64_t b = 0; evidence && b < batch->B; b++) task->def->evidence(task, tokens + b * batch->T, evidence + b * batch->T);
    return MN_OK;
  }
  for (int64_t b = 0; b < batch->B; b++)
    MN_TRY(labels(s) ? mn_task_sample_label(task, split, first + (uint64_t)b, tokens + b * batch->T, &length[b], &said[b])
                     : mn_task_sample_span(task, split, first + (uint64_t)b, tokens + b * batch->T, &length[b], said + 2 * b));
  return MN_OK;
}

const mn_source_def mn_source_text = {
    .name = "text",
    .summary = "text files, tokenised once and mapped: every next token is asked for",
    .config_size = sizeof(mn_data_config),
    .fields = mn_data_fields,
    .check = check,
    .reads_text = always,
    .texts = texts,
    .order = true,
    .open = open_tokens,
    .close = close_tokens,
    .layout = layout,
    .fits = fits,
    .steps = steps,
    .fill = fill,
};

const mn_source_def mn_source_task = {
    .name = "task",
    .summary = "a task, whose examples are made",
    .config_size = sizeof(mn_data_config),
    .fields = mn_data_fields,
    .check = check,
    .seq_len = seq_len_of,
    .reads_text = task_reads_text,
    .open = open_tokens,
    .close = close_tokens,
    .layout = layout,
    .fits = fits,
    .steps = steps,
    .fill = fill,
};
