/* compare_measure.c - see compare_measure.h. */
#include "cli/compare_measure.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/progress.h"
#include "eval/evaluate.h"
#include "eval/task_eval.h"
#include "eval/verbatim_eval.h"
#include "checkpoint/bundle.h"

enum { EVAL_BATCH = 8, PREFILL = 256 };

static void give(mn_measured_list *out, double value, const char *title, const char *more) {
  if (out->n == MN_MEASURED) return;
  snprintf(out->item[out->n].name, sizeof out->item[out->n].name, "%s%s", title, more);
  out->item[out->n++].value = value;
}

/* ---- tasks ---- */

static mn_status generated(const mn_measuring *w, const mn_bundle *b, mn_task *task, mn_watch watch, mn_measured_list *out) {
  mn_generator *generator;
  mn_text_eval e;
  MN_TRY(mn_bundle_need_tokenizer(b, w->model));
  MN_TRY(mn_generator_new(b->model, b->params, b->tokenizer, PREFILL, MN_F32, false, &generator));
  mn_responder who = mn_generator_responder(generator);
  mn_status status =
      mn_eval_text(task, &who, &(mn_text_eval_config){.examples = w->measure->examples, .split = MN_SPLIT_TEST, .watch = watch}, &e);
  mn_generator_free(generator);
  MN_TRY(status);
  give(out, e.score, w->measure->title, "");
  give(out, e.low, w->measure->title, ".low");
  give(out, e.high, w->measure->title, ".high");
  return MN_OK;
}

static mn_status judged(const mn_measuring *w, const mn_bundle *b, const mn_task *task, mn_arena *arena, mn_measured_list *out) {
  mn_data_config data;
  mn_objectives objectives;
  mn_source *source = NULL;
  mn_evaluator *evaluator = NULL;
  mn_evaluation e;
  const int64_t batch = w->measure->examples < EVAL_BATCH ? w->measure->examples : EVAL_BATCH;
  if (task->vocab_size > b->model->config.vocab_size)
    return mn_fail(MN_ERR_CONFIG, "task %s has ids up to %lld, but the model was trained for %lld", task->def->name,
                   (long long)task->vocab_size - 1, (long long)b->model->config.vocab_size);
  mn_config_defaults(mn_data_fields, &data);
  data.task = w->measure->task;
  mn_source_config config = {&mn_source_task, &data, data.seed};
  MN_TRY(mn_objectives_parse(arena, NULL, "objective", &objectives));
  MN_TRY(mn_source_open(&config, NULL, NULL, &source));
  mn_evaluator_config how = {.batch = batch, .seq_len = task->seq_len, .compute = MN_F32, .seed = 1};
  mn_status status = mn_evaluator_new(b->model, b->params, source, &objectives, &how, &evaluator);
  if (status == MN_OK)
    status = mn_evaluate(evaluator, MN_SPLIT_TEST, (w->measure->examples + batch - 1) / batch, &(mn_watch){.stop = mn_cli_stop_flag()}, &e);
  mn_evaluator_free(evaluator);
  mn_source_close(source);
  MN_TRY(status);
  double low, high;
  const double acc = mn_task_acc(&e.score);
  mn_wilson_interval((int64_t)llround(acc * (double)e.score.positions), e.score.positions, &low, &high);
  give(out, acc, w->measure->title, "");
  give(out, low, w->measure->title, ".low");
  give(out, high, w->measure->title, ".high");
  return MN_OK;
}

static mn_status of_task(const mn_measuring *w, const mn_bundle *b, mn_watch watch, mn_measured_list *out) {
  mn_task *task;
  mn_arena *arena = mn_arena_new();
  mn_status status = arena ? mn_task_open(mn_value_get(w->measure->task, "name")->as.text, w->measure->task, &task) : MN_ERR_MEMORY;
  if (status == MN_OK) {
    if (task->def->sample_text) status = generated(w, b, task, watch, out);
    else if (task->def->sample) status = judged(w, b, task, arena, out);
    else status = mn_fail(MN_ERR_CONFIG, "task %s has no accuracy of tokens; measure one that has", task->def->name);
    mn_task_close(task);
  }
  mn_arena_free(arena);
  return status;
}

/* ---- lists that come again ---- */

static mn_status of_verbatim(const mn_measuring *w, const mn_bundle *b, mn_watch watch, mn_measured_list *out) {
  mn_verbatim_config c;
  mn_verbatim_eval e;
  mn_arena *arena = mn_arena_new();
  mn_status status = arena ? mn_config_read(arena, w->measure->verbatim, "verbatim", mn_verbatim_fields, &c) : MN_ERR_MEMORY;
  if (status == MN_OK)
    status =
        mn_eval_verbatim(b->model, b->params, b->tokenizer, &c, &(mn_verbatim_run){.vignettes = w->measure->examples, .watch = watch}, &e);
  mn_arena_free(arena);
  MN_TRY(status);
  give(out, e.cells[0].repeat.value, w->measure->title, "");
  give(out, e.cells[0].repeat.low, w->measure->title, ".low");
  give(out, e.cells[0].repeat.high, w->measure->title, ".high");
  mn_verbatim_free(&e);
  return MN_OK;
}

/* ---- speed ---- */

/* Any tokens do: a model takes as long for one as for another. */
static void some_tokens(int64_t vocab_size, uint64_t from, int32_t *out, int64_t n) {
  for (int64_t i = 0; i < n; i++) out[i] = (int32_t)(mn_splitmix64(from + (uint64_t)i) % (uint64_t)vocab_size);
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Brings the stream to `position`, then times `repeats` single tokens; their median, in microseconds. */
static mn_status time_at(mn_session *s, int64_t position, int64_t repeats, double *seconds, mn_watch watch, int64_t end, double *out) {
  int32_t tokens[PREFILL];
  const int64_t vocab_size = mn_session_vocab_size(s);
  while (mn_session_position(s) < position) {
    const int64_t at = mn_session_position(s), left = position - at, n = left < PREFILL ? left : PREFILL;
    some_tokens(vocab_size, (uint64_t)at, tokens, n);
    MN_TRY(mn_session_feed(s, tokens, n, NULL));
    if (mn_watch_stops(&watch) || !mn_watch_tell(&watch, NULL, at, end))
      return mn_fail(MN_ERR_CANCELLED, "interrupted at token %lld", (long long)at);
  }
  for (int64_t i = 0; i < repeats; i++) {
    some_tokens(vocab_size, (uint64_t)(position + i), tokens, 1);
    const double began = mn_now();
    MN_TRY(mn_session_feed(s, tokens, 1, NULL));
    seconds[i] = mn_now() - began;
  }
  qsort(seconds, (size_t)repeats, sizeof *seconds, by_value);
  *out = 1e6 * (repeats % 2 ? seconds[repeats / 2] : (seconds[repeats / 2 - 1] + seconds[repeats / 2]) / 2);
  return MN_OK;
}

static mn_status of_speed(const mn_measuring *w, const mn_bundle *b, mn_watch watch, mn_measured_list *out) {
  const mn_measure *m = w->measure;
  const int last = m->positions.count - 1;
  mn_session *s = NULL;
  double *seconds = mn_alloc((size_t)m->repeats * sizeof *seconds);
  mn_status status = seconds ? mn_session_new(b->model, b->params, &(mn_session_config){.prefill = PREFILL}, &s) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_session_warm_up(s, false, m->positions.items[last] + m->repeats);
  if (status != MN_OK) s ? mn_session_free(s) : (void)0;
  if (status != MN_OK) {
    free(seconds);
    return status;
  }
  const mn_limit limit = mn_session_limit(s);
  for (int i = 0; i <= last && status == MN_OK; i++) {
    char at[32];
    double us = (double)NAN;
    snprintf(at, sizeof at, "@%lld", (long long)m->positions.items[i]);
    if (mn_session_room(s) == MN_LIMIT_NONE || mn_session_room(s) >= m->positions.items[i] + m->repeats - mn_session_position(s))
      status = time_at(s, m->positions.items[i], m->repeats, seconds, watch, m->positions.items[last], &us);
    if (status == MN_OK) give(out, us, m->title, at);
  }
  if (status == MN_OK) {
    give(out, (double)mn_session_room_bytes(s), m->title, ".state_bytes");
    give(out, limit.tokens == MN_LIMIT_NONE ? (double)NAN : (double)limit.tokens, m->title, ".limit");
  }
  mn_session_free(s);
  free(seconds);
  return status;
}

/* ---- one of them ---- */

mn_status mn_compare_measure(void *ctx, void *out) {
  const mn_measuring *w = ctx;
  mn_measured_list *list = out;
  mn_bundle b = {0};
  mn_watch watch = {mn_cli_stop_flag(), mn_progress_told, NULL};
  *list = (mn_measured_list){0};
  mn_status status = mn_bundle_open(w->model, w->cli->backend, w->cli->threads, &b);
  if (status == MN_OK) {
    watch.ctx = mn_progress_new(w->cli, w->label, w->measure->kind == MN_MEASURE_SPEED ? "tokens" : "examples",
                                w->measure->kind == MN_MEASURE_SPEED ? w->measure->positions.items[w->measure->positions.count - 1]
                                                                     : w->measure->examples);
    switch (w->measure->kind) {
    case MN_MEASURE_TASK:
      status = of_task(w, &b, watch, list);
      break;
    case MN_MEASURE_VERBATIM:
      status = of_verbatim(w, &b, watch, list);
      break;
    case MN_MEASURE_SPEED:
      status = of_speed(w, &b, watch, list);
      break;
    default:
      status = mn_fail(MN_ERR_INTERNAL, "%s: a figure of the training is not measured", w->measure->title);
    }
    mn_progress_free(watch.ctx);
  }
  mn_bundle_close(&b);
  return status;
}
