/* task_eval_streamed.c - see task_eval.h: a task of token ids in parallel form and as a stream that goes through a file. */
#include "base/file.h"
#include "eval/task_eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 16, LOGITS = 1 << 24 /* of the parallel form, at once */ };

typedef struct streamed {
  const mn_task *task;
  const mn_stream_eval_config *config;
  mn_stream_eval *out;
  int64_t B, T, vocab_size;
  mn_program *parallel;
  mn_session *first, *second;
  int32_t *input, *target; /* [B, T]               */
  int32_t *guess[2];       /* [B, T] parallel, streamed */
  int32_t *step;           /* [B]                  */
  float *logits;           /* [B, T, vocab_size] of the parallel form */
  double *scale, *worst;   /* [B]                  */
  mn_rng rng;
} streamed;

static mn_status build(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  mn_model_io in = {0}, out = {0}; /* of any kind that reads tokens */
  mn_io_put(&in, "tokens", mn_parts_feed(parts, "tokens", MN_I32, MN_SHAPE(form->batch, form->length)));
  mn_model_build(s, ctx, &in, &out);
  mn_parts_give(parts, "logits", mn_cast(mn_scope_graph(s), mn_model_answer(s, &out), MN_F32));
  return MN_OK;
}

static mn_status open_parallel(streamed *s, const mn_model *model, const mn_params *params) {
  void *ctx;
  memcpy(&ctx, &model, sizeof ctx); /* the builder reads it */
  const mn_program_config c = {
      .backend = params->backend,
      .params = params,
      .build = {.param = params->dtype, .compute = s->config->compute, .forget = s->config->forget},
      .builder = build,
      .ctx = ctx,
      .settled = true,
  };
  return mn_program_new(&c, &s->parallel);
}

static mn_status open_all(streamed *s, const mn_model *model, const mn_params *params) {
  size_t n = (size_t)(s->B * s->T), B = (size_t)s->B;
  s->input = mn_calloc(n, sizeof *s->input);
  s->target = mn_calloc(n, sizeof *s->target);
  s->guess[0] = mn_calloc(n, sizeof **s->guess);
  s->guess[1] = mn_calloc(n, sizeof **s->guess);
  s->step = mn_calloc(B, sizeof *s->step);
  s->scale = mn_calloc(B, sizeof *s->scale);
  s->worst = mn_calloc(B, sizeof *s->worst);
  s->logits = mn_alloc(n * (size_t)s->vocab_size * sizeof *s->logits);
  if (!s->input || !s->target || !s->guess[0] || !s->guess[1] || !s->step || !s->scale || !s->worst || !s->logits) return MN_ERR_MEMORY;
  char fingerprint[33];
  MN_TRY(mn_model_fingerprint(model, params, fingerprint));
  mn_session_config config = {
      .batch = s->B, .prefill = 1, .compute = s->config->compute, .forget = s->config->forget, .fingerprint = fingerprint};
  MN_TRY(mn_session_new(model, params, &config, &s->first));
  MN_TRY(mn_session_fork(s->first, &s->second));
  s->out->state_bytes = mn_session_room_bytes(s->first) / B;
  return open_parallel(s, model, params);
}

static mn_status guess(const float *logits, int64_t vocab_size, int32_t *out) {
  int64_t best = mn_greedy(logits, vocab_size, NULL);
  *out = (int32_t)best;
  return best < 0 ? mn_fail(MN_ERR_NUMERIC, "the model's output is not a number") : MN_OK;
}

static mn_status in_parallel(streamed *s) {
  mn_routine *r;
  MN_TRY(mn_program_enter(s->parallel, &(mn_form){.batch = s->B, .length = s->T}, &r));
  mn_status status = mn_routine_put(r, 0, s->input);
  if (status == MN_OK) status = mn_routine_run(r, NULL);
  if (status == MN_OK) status = mn_routine_get_all(r, 0, s->logits);
  mn_program_leave(s->parallel);
  MN_TRY(status);
  int64_t row = s->T * s->vocab_size;
  for (int64_t i = 0; i < s->B * s->T; i++) MN_TRY(guess(s->logits + i * s->vocab_size, s->vocab_size, &s->guess[0][i]));
  for (int64_t b = 0; b < s->B; b++) {
    s->scale[b] = 1e-30;
    s->worst[b] = 0;
    for (int64_t k = 0; k < row; k++) s->scale[b] = fmax(s->scale[b], fabs((double)s->logits[b * row + k]));
  }
  return MN_OK;
}

/* One token of every row. */
static mn_status step(streamed *s, mn_session *session, int64_t t) {
  const float *logits;
  MN_TRY(mn_stop_check("streaming an example"));
  for (int64_t b = 0; b < s->B; b++) s->step[b] = s->input[b * s->T + t];
  MN_TRY(mn_session_feed(session, s->step, 1, &logits));
  for (int64_t b = 0; b < s->B; b++) {
    const float *here = logits + b * s->vocab_size, *there = s->logits + (b * s->T + t) * s->vocab_size;
    MN_TRY(guess(here, s->vocab_size, &s->guess[1][b * s->T + t]));
    for (int64_t k = 0; k < s->vocab_size; k++) s->worst[b] = fmax(s->worst[b], fabs((double)here[k] - (double)there[k]));
  }
  return MN_OK;
}

static mn_status as_a_stream(streamed *s) {
  int64_t cut = s->T > 1 ? 1 + (int64_t)mn_rng_below(&s->rng, (uint64_t)(s->T - 1)) : 0;
  MN_TRY(mn_session_reset(s->first));
  for (int64_t t = 0; t < cut; t++) MN_TRY(step(s, s->first, t));
  MN_TRY(mn_session_save(s->first, s->config->scratch));
  MN_TRY(mn_session_load(s->second, s->config->scratch));
  for (int64_t t = cut; t < s->T; t++) MN_TRY(step(s, s->second, t));
  s->out->restores++;
  return MN_OK;
}

static mn_status one_batch(streamed *s, int64_t first) {
  const mn_stream_eval_config *c = s->config;
  for (int64_t b = 0; b < s->B; b++)
    MN_TRY(mn_task_sample(s->task, c->split, (uint64_t)(first + b), s->input + b * s->T, s->target + b * s->T));
  MN_TRY(in_parallel(s));
  MN_TRY(as_a_stream(s));
  for (int64_t b = 0; b < s->B && first + b < c->examples; b++) { /* the last batch may reach further than was asked */
    mn_task_score_add(&s->out->parallel, s->target + b * s->T, s->guess[0] + b * s->T, s->T);
    mn_task_score_add(&s->out->streamed, s->target + b * s->T, s->guess[1] + b * s->T, s->T);
    s->out->difference = fmax(s->out->difference, s->worst[b] / s->scale[b]);
  }
  return MN_OK;
}

mn_status mn_eval_streamed(const mn_model *model, const mn_params *params, const mn_task *task, const mn_stream_eval_config *config,
                           mn_stream_eval *out) {
  *out = (mn_stream_eval){0};
  streamed s = {.task = task, .config = config, .out = out, .T = task->seq_len, .vocab_size = model->config.vocab_size};
  if (!task->def->sample) return mn_fail(MN_ERR_ARG, "task %s makes text; parity is of token ids", task->def->name);
  if (!config->scratch || config->examples < 1)
    return mn_fail(MN_ERR_ARG, "parity needs a path for the session file and at least one example");
  if (task->vocab_size > s.vocab_size)
    return mn_fail(MN_ERR_CONFIG, "task %s has token ids up to %lld, but the model's vocab_size is %lld", task->def->name,
                   (long long)task->vocab_size - 1, (long long)s.vocab_size);
  s.B = config->batch > 0 ? config->batch : LOGITS / (s.T * s.vocab_size);
  if (config->batch <= 0 && s.B > BATCH) s.B = BATCH;
  if (s.B > config->examples) s.B = config->examples;
  if (s.B < 1) s.B = 1;
  mn_rng_seed(&s.rng, config->seed);
  mn_status status = open_all(&s, model, params);
  bool goes_on = true;
  for (int64_t i = 0; i < config->examples && status == MN_OK; i += s.B) {
    if (!goes_on || mn_watch_stops(&config->watch))
      status = mn_fail(MN_ERR_CANCELLED, "task %s: interrupted after %lld examples", task->def->name, (long long)i);
    if (status == MN_OK) status = one_batch(&s, i);
    goes_on = mn_watch_tell(&config->watch, NULL, i + s.B < config->examples ? i + s.B : config->examples, config->examples);
  }
  mn_file_remove(config->scratch);
  mn_session_free(s.first);
  mn_session_free(s.second);
  mn_program_free(s.parallel);
  free(s.input);
  free(s.target);
  free(s.guess[0]);
  free(s.guess[1]);
  free(s.step);
  free(s.scale);
  free(s.worst);
  free(s.logits);
  return status;
}
