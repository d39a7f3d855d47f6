/* eval_source.c - see eval_source.h. */
#include "cli/eval_source.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/train_view.h"
#include "eval/acting.h"
#include "eval/answers.h"
#include "eval/soft_targets.h"
#include "objective/teacher.h"

/* ---- figures of whole segments ---- */

static mn_status print_segments(mn_eval_run *e, const mn_source *source, const mn_evaluation *r) {
  char hex[33], tokens[16];
  const mn_task *task = mn_task_of_source(source);
  MN_TRY(mn_model_fingerprint(e->bundle.model, e->bundle.params, hex));
  double low = 0, high = 0;
  if (r->score.examples)
    mn_wilson_interval((int64_t)llround(mn_task_acc(&r->score) * (double)r->score.positions), r->score.positions, &low, &high);
  if (e->cli->json) {
    json_t *j = mn_evaluation_json(r);
    json_object_update_new(j,
                           json_pack("{s:o,s:o,s:I,s:I,s:b,s:s,s:I}", "model", mn_cli_text(mn_cli_get(e->cli, "model")), "on",
                                     mn_cli_text(e->what), "seq_len", (json_int_t)e->seq_len, "batch", (json_int_t)e->batch, "carry_state",
                                     e->carry, "fingerprint", hex, "parameters", (json_int_t)mn_params_count(e->bundle.params)));
    if (task) json_object_set_new(j, "task", json_string(task->def->name));
    if (r->score.examples) json_object_set_new(j, "accuracy_interval", json_pack("[f,f]", low, high));
    return mn_cli_json(e->cli, j);
  }
  if (!mn_source_corpus(source))
    mn_print("%s: %s %s\n", e->what, mn_human_count((double)r->tokens, tokens),
             mn_objectives_usual(&e->objectives) ? "targets" : "examples");
  else
    mn_print("%s: %s targets in segments of %lld%s\n", e->what, mn_human_count((double)r->tokens, tokens), (long long)e->seq_len,
             e->carry ? ", state carried from one to the next" : ", each from a fresh state");
  mn_print("loss %.4f%s", r->loss, mn_objectives_usual(&e->objectives) ? " nats per token" : "");
  for (int i = 0; i < r->n_metrics; i++) mn_print(", %s %.4f", r->metrics[i].name, r->metrics[i].value);
  mn_print("\n");
  if (isfinite(r->bits_per_byte)) mn_print("%.4f bits per byte of text\n", r->bits_per_byte);
  if (r->score.examples)
    mn_print("accuracy %.4f (95 %%: %.4f to %.4f), whole examples %.4f, of %lld examples\n", mn_task_acc(&r->score), low, high,
             mn_task_seq_acc(&r->score), (long long)r->score.examples);
  return MN_OK;
}

/* What was never looked at, where the data says so; else what training looks at on the way. */
static int split_of(const mn_eval_run *e, const mn_source *source) {
  if (mn_task_of_source(source)) return MN_SPLIT_TEST;
  if (mn_source_corpus(source)) return MN_SPLIT_VALIDATION;
  return mn_source_check(source, MN_SPLIT_TEST, e->batch, e->seq_len) == MN_OK ? MN_SPLIT_TEST : MN_SPLIT_VALIDATION;
}

/* A changed file changes what was held out, and what a source works out of its training part (means, deviations). */
static mn_status check_data(const mn_eval_run *e, const mn_source *source, const mn_teachers *teachers) {
  const char *trained = e->bundle.params->origin.data;
  char now[MN_HASH_HEX];
  mn_source_hash(source, now);
  MN_TRY(mn_teachers_hash(teachers, now));
  if (!e->held_out || !*trained || !strcmp(trained, now)) return MN_OK;
  return mn_fail(MN_ERR_CONFIG, "%s is not what the model was trained on: a file of `data`, or a teacher, has changed since; put it back%s",
                 e->what, mn_source_is_tokens(&e->last->source) ? ", or give --data FILE" : "");
}

static mn_status open_teachers(const mn_eval_run *e, mn_teachers *out) {
  return mn_teachers_open(&e->objectives, e->bundle.model, e->bundle.params->backend, e->bundle.params->origin.tokenizer, out);
}

/* The recipe's objective needs what a text has not (soft targets of a file): a text is judged by its next tokens then, if it can be. */
static mn_status by_next_token(mn_eval_run *e, const mn_source *source, const mn_batch *layout) {
  mn_objectives plain;
  char *why = mn_strdup(mn_message());
  mn_status status = why ? mn_objectives_parse(e->arena, NULL, "objective", &plain) : MN_ERR_MEMORY;
  if (status == MN_OK) {
    status = mn_objectives_match(&plain, NULL, e->bundle.model, source, layout);
    if (status != MN_OK) status = mn_fail(status, "%s", why); /* the first says what is wrong */
    else mn_cli_note(e->cli, "judged by the next token: %s", why);
  }
  if (status == MN_OK) e->objectives = plain;
  free(why);
  return status;
}

static mn_status evaluate_source(mn_eval_run *e, mn_source *source, mn_evaluation *r) {
  const mn_model *m = e->bundle.model;
  if (source->seq_len && mn_cli_given(e->cli, "seq-len") && e->seq_len != source->seq_len)
    return mn_fail(MN_ERR_CONFIG, "--seq-len %lld: rows of this data have %lld places", (long long)e->seq_len, (long long)source->seq_len);
  if (source->seq_len) e->seq_len = source->seq_len;
  if (m->config.vocab_size && source->vocab_size > m->config.vocab_size)
    return mn_fail(MN_ERR_CONFIG, "%s has token ids up to %lld, but the model was trained for %lld", e->what,
                   (long long)source->vocab_size - 1, (long long)m->config.vocab_size);
  mn_evaluator_config how = {.batch = e->batch,
                             .seq_len = e->seq_len,
                             .compute = e->compute,
                             .carry_state = e->carry,
                             .forget = mn_cli_given(e->cli, "forget"),
                             .seed = e->recipe ? (uint64_t)e->last->seed : 1};
  int split = split_of(e, source);
  bool endless = mn_source_steps(source, split, e->batch, e->seq_len) == INT64_MAX;
  bool some = endless || mn_cli_given(e->cli, "examples");
  int64_t batches = some ? (e->examples + e->batch - 1) / e->batch : e->batches;
  mn_batch layout;
  mn_evaluator *evaluator = NULL;
  MN_TRY(mn_source_check(source, split, e->batch, e->seq_len));
  MN_TRY(mn_batch_new(source, e->batch, e->seq_len, &layout));
  mn_status status = mn_objectives_match(&e->objectives, NULL, m, source, &layout);
  if (status != MN_OK && mn_cli_given(e->cli, "data")) status = by_next_token(e, source, &layout);
  mn_batch_free(&layout);
  mn_teachers teachers = {0};
  if (status == MN_OK) status = open_teachers(e, &teachers);
  how.teachers = &teachers;
  if (status == MN_OK) status = check_data(e, source, &teachers);
  if (status == MN_OK) status = mn_evaluator_new(m, e->bundle.params, source, &e->objectives, &how, &evaluator);
  if (status == MN_OK) status = mn_evaluate(evaluator, split, batches, &(mn_watch){.stop = mn_cli_stop_flag()}, r);
  mn_evaluator_free(evaluator);
  mn_teachers_close(&teachers);
  return status;
}

/* ---- whole answers, and soft targets ---- */

/* Token by token. */
static mn_status answer(mn_eval_run *e, mn_source *source) {
  mn_answers r;
  mn_answers_config c = {.split = split_of(e, source),
                         .examples = e->examples,
                         .batch = mn_cli_given(e->cli, "batch") ? e->batch : 0,
                         .beams = 1,
                         .length_penalty = 0.6,
                         .compute = e->compute,
                         .watch = {mn_cli_stop_flag(), mn_progress_told, NULL}};
  MN_TRY(mn_cli_int(e->cli, "beams", 1, 256, &c.beams));
  c.watch.ctx = mn_progress_new(e->cli, "answers", "examples", c.examples);
  mn_status status = mn_eval_answers(e->bundle.model, e->bundle.params, source, &c, &r);
  mn_progress_free(c.watch.ctx);
  MN_TRY(status);
  const double part = r.examples ? (double)r.right / (double)r.examples : (double)NAN;
  if (e->cli->json)
    return mn_cli_json(e->cli, json_pack("{s:s,s:o,s:I,s:I,s:I,s:[f,f]}", "metric", "exact", "value", mn_cli_number(part), "examples",
                                         (json_int_t)r.examples, "right", (json_int_t)r.right, "beams", (json_int_t)c.beams, "interval",
                                         r.low, r.high));
  mn_print("%s: %" PRId64 " of %" PRId64 " answers are right as a whole: %.4f (95 %%: %.3f to %.3f), %s\n", e->what, r.right, r.examples,
           part, r.low, r.high, c.beams > 1 ? "by beams" : "greedy");
  return MN_OK;
}

/* In the world that the data is from. */
static mn_status act(mn_eval_run *e, const mn_source *source) {
  mn_acting r;
  mn_acting_config c = {.compute = e->compute, .ask = 1, .watch = {.stop = mn_cli_stop_flag()}};
  MN_TRY(mn_cli_int(e->cli, "act", 1, 1 << 24, &c.episodes));
  MN_TRY(mn_cli_float(e->cli, "ask", -10, 10, &c.ask));
  MN_TRY(mn_eval_acting(e->bundle.model, e->bundle.params, source, &c, &r));
  if (e->cli->json)
    return mn_cli_json(e->cli,
                       json_pack("{s:I,s:f,s:f,s:o,s:f,s:f,s:f}", "episodes", (json_int_t)r.episodes, "ask", c.ask, "score", r.score,
                                 "error", mn_cli_number(r.error), "return", r.achieved, "chance", r.chance, "expert", r.expert));
  mn_print("%s: return %.3f on average over %" PRId64 " episodes; by chance %.3f, who knows the world %.3f: score %.1f of 100", e->what,
           r.achieved, r.episodes, r.chance, r.expert, r.score);
  if (isfinite(r.error)) mn_print(" (standard error %.1f)", r.error);
  mn_print("\n");
  return MN_OK;
}

/* What the model says of its training data, into a file. */
static mn_status keep_soft_targets(mn_eval_run *e, mn_source *source) {
  const char *path = mn_cli_get(e->cli, "soft-targets");
  mn_soft_targets_config c = {.batch = e->batch,
                              .seq_len = source->seq_len ? source->seq_len : e->seq_len,
                              .batches = e->batches,
                              .compute = e->compute,
                              .tokenizer = e->bundle.params->origin.tokenizer,
                              .watch = {mn_cli_stop_flag(), mn_progress_told, NULL}};
  int64_t rows = 0, batches;
  MN_TRY(mn_cli_int(e->cli, "top", 1, 4096, &c.top));
  batches = mn_soft_targets_batches(source, &c);
  if (batches < 0) return mn_fail(MN_ERR_CONFIG, "--soft-targets: examples of a task are made without end; give --batches N");
  c.watch.ctx = mn_progress_new(e->cli, "soft targets", "batches", batches);
  mn_status status = mn_soft_targets_write(e->bundle.model, e->bundle.params, source, &c, path, &rows);
  mn_progress_free(c.watch.ctx);
  MN_TRY(status);
  if (e->cli->json)
    return mn_cli_json(e->cli, json_pack("{s:o,s:I,s:I,s:I}", "soft_targets", mn_cli_text(path), "rows", (json_int_t)rows, "seq_len",
                                         (json_int_t)c.seq_len, "top", (json_int_t)c.top));
  mn_print("%s: the %" PRId64 " likeliest tokens at each of %" PRId64 " places of %" PRId64 " rows, and what was read\n", path, c.top,
           c.seq_len, rows);
  return MN_OK;
}

/* ---- one of them ---- */

mn_status mn_eval_on_source(mn_eval_run *e, const mn_source_config *config) {
  mn_train_view view = {.cli = e->cli, .label = "eval"};
  mn_source *source = NULL;
  mn_evaluation r;
  mn_status status = mn_source_open(config, e->bundle.tokenizer, &(mn_watch){mn_cli_stop_flag(), mn_train_view_data, &view}, &source);
  mn_train_view_end(&view);
  if (status == MN_OK && mn_cli_given(e->cli, "act")) {
    status = act(e, source);
    mn_source_close(source);
    return status;
  }
  const bool answers = mn_cli_given(e->cli, "answers"), soft = mn_cli_given(e->cli, "soft-targets");
  if (status == MN_OK && (answers || soft || e->contexts.n)) {
    mn_teachers teachers;
    status = open_teachers(e, &teachers);
    if (status == MN_OK) status = check_data(e, source, &teachers);
    mn_teachers_close(&teachers);
    if (status == MN_OK) status = answers ? answer(e, source) : soft ? keep_soft_targets(e, source) : mn_eval_view_contexts(e, source);
    mn_source_close(source);
    return status;
  }
  if (status == MN_OK) status = evaluate_source(e, source, &r);
  if (status == MN_OK && r.forgot) mn_cli_note(e->cli, "rows were longer than the model holds: their oldest tokens were forgotten");
  if (status == MN_OK) status = print_segments(e, source, &r);
  mn_source_close(source);
  return status;
}
