/* answers.c - see answers.h. */
#include "eval/answers.h"

#include <stdlib.h>
#include <string.h>

typedef struct answering {
  const mn_model *model;
  mn_source *source;
  const mn_answers_config *c;
  mn_batch batch;
  int source_at, length_at, tokens_at, target_at; /* fields */
  mn_session *session, *spare;
  mn_beam_answer *answers; /* [batch] */
  char *sources;           /* [batch * beams] rows of the field source */
  int32_t *lengths, *begin;
} answering;

static mn_status find_fields(answering *a) {
  const struct {
    const char *name;
    int *at;
  } field[] = {{"source", &a->source_at}, {"source_length", &a->length_at}, {"tokens", &a->tokens_at}, {"target", &a->target_at}};
  for (int i = 0; i < 4; i++)
    if ((*field[i].at = mn_batch_find(&a->batch, field[i].name)) < 0)
      return mn_fail(MN_ERR_CONFIG, "data of type %s has no field %s: whole answers are of pairs of a source and a target",
                     a->source->def->name, field[i].name);
  if (a->batch.field[a->source_at].dtype != MN_I32)
    return mn_fail(MN_ERR_CONFIG, "whole answers are about sources of tokens, and these are numbers");
  if (mn_model_input(a->model, "source")) return MN_OK;
  return mn_fail(MN_ERR_CONFIG, "a model of type %s reads no source that it could answer", a->model->def->name);
}

static mn_status open(answering *a, const mn_params *params) {
  const mn_answers_config *c = a->c;
  MN_TRY(mn_batch_new(a->source, c->batch, a->source->seq_len, &a->batch));
  MN_TRY(find_fields(a));
  const int64_t rows = c->batch * c->beams;
  mn_session_config how = {.batch = rows, .prefill = 1, .compute = c->compute, .passing = true};
  MN_TRY(mn_session_new(a->model, params, &how, &a->session));
  if (c->beams > 1) MN_TRY(mn_session_fork(a->session, &a->spare));
  const mn_source_field *f = &a->batch.field[a->source_at];
  a->sources = mn_alloc((size_t)(mn_shape_count(&f->shape) * c->beams) * mn_dtype_size(f->dtype));
  a->lengths = mn_alloc((size_t)rows * sizeof *a->lengths);
  a->begin = mn_alloc((size_t)rows * sizeof *a->begin);
  a->answers = mn_calloc((size_t)c->batch, sizeof *a->answers);
  return a->sources && a->lengths && a->begin && a->answers ? MN_OK : MN_ERR_MEMORY;
}

/* Every example's source for each of its beams, and the token that begins an answer. Rows that are not there repeat the first. */
static void lay_out(answering *a) {
  const mn_source_field *f = &a->batch.field[a->source_at];
  const size_t row = (size_t)(mn_shape_count(&f->shape) / f->shape.dim[0]) * mn_dtype_size(f->dtype);
  for (int64_t i = 0; i < a->c->batch * a->c->beams; i++) {
    const int64_t b = i / a->c->beams < a->batch.rows ? i / a->c->beams : 0;
    memcpy(a->sources + (size_t)i * row, mn_batch_row(&a->batch, a->source_at, b), row);
    a->lengths[i] = *(int32_t *)mn_batch_row(&a->batch, a->length_at, b);
    a->begin[i] = *(int32_t *)mn_batch_row(&a->batch, a->tokens_at, b);
  }
}

/* The target's tokens that are asked for: the answer, then its end. */
static int64_t target_length(const answering *a, int64_t b) {
  const int32_t *target = mn_batch_row(&a->batch, a->target_at, b);
  const int64_t T = a->batch.field[a->target_at].shape.dim[1];
  int64_t n = 0;
  while (n < T && target[n] != MN_IGNORE) n++;
  return n;
}

static bool right(const answering *a, int64_t b) {
  const mn_beam_answer *x = &a->answers[b];
  const int32_t *target = mn_batch_row(&a->batch, a->target_at, b);
  const int64_t n = target_length(a, b) - 1;
  if (!x->ended || (int64_t)x->tokens.len != n) return false;
  return n == 0 || !memcmp(x->tokens.data, target, (size_t)n * sizeof *target);
}

static mn_status one_batch(answering *a, int64_t step, mn_answers *out) {
  const mn_answers_config *c = a->c;
  const float *logits;
  MN_TRY(mn_source_fill(a->source, c->split, step, &a->batch));
  lay_out(a);
  const int32_t *target = mn_batch_row(&a->batch, a->target_at, 0);
  if (target_length(a, 0) < 1)
    return mn_fail(MN_ERR_CONFIG, "data of type %s has targets that do not begin at their row's first place: they are no whole answers",
                   a->source->def->name);
  const mn_beam_config how = {.beams = c->beams,
                              .max_tokens = a->batch.field[a->target_at].shape.dim[1],
                              .length_penalty = c->length_penalty,
                              .ends = &target[target_length(a, 0) - 1],
                              .n_ends = 1,
                              .tokens = a->source->tok};
  MN_TRY(mn_session_reset(a->session));
  MN_TRY(mn_session_source(a->session, (const int32_t *)a->sources, a->batch.field[a->source_at].shape.dim[1], a->lengths));
  MN_TRY(mn_session_feed(a->session, a->begin, 1, &logits));
  MN_TRY(mn_beam_search(a->session, a->spare, &how, c->batch, logits, a->answers));
  for (int64_t b = 0; b < a->batch.rows && out->examples < c->examples; b++) {
    out->examples++;
    out->right += right(a, b);
  }
  mn_beam_answers_free(a->answers, c->batch);
  memset(a->answers, 0, (size_t)c->batch * sizeof *a->answers);
  return MN_OK;
}

mn_status mn_eval_answers(const mn_model *model, const mn_params *params, mn_source *source, const mn_answers_config *config,
                          mn_answers *out) {
  mn_answers_config c = *config;
  *out = (mn_answers){0};
  if (c.batch < 1) c.batch = 16;
  if (c.beams < 1) c.beams = 1;
  answering a = {.model = model, .source = source, .c = &c};
  mn_status status = open(&a, params);
  const int64_t steps = status == MN_OK ? mn_source_steps(source, c.split, c.batch, source->seq_len) : 0;
  bool goes_on = true;
  for (int64_t i = 0; status == MN_OK && i < steps && out->examples < c.examples; i++) {
    if (!goes_on || mn_watch_stops(&c.watch))
      status = mn_fail(MN_ERR_CANCELLED, "answering was interrupted after %lld examples", (long long)out->examples);
    else status = one_batch(&a, i, out);
    goes_on = mn_watch_tell(&c.watch, NULL, out->examples, c.examples);
  }
  if (status == MN_OK) mn_wilson_interval(out->right, out->examples, &out->low, &out->high);
  mn_beam_answers_free(a.answers, c.batch);
  free(a.answers);
  free(a.sources);
  free(a.lengths);
  free(a.begin);
  mn_session_free(a.session);
  mn_session_free(a.spare);
  mn_batch_free(&a.batch);
  return status;
}
