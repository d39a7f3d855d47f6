/* train_view.c - see train_view.h. */
#include "cli/train_view.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

bool mn_train_view_data(void *ctx, const char *what, int64_t done, int64_t total) {
  mn_train_view *v = ctx;
  bool vocabulary = what == mn_progress_vocabulary;
  mn_progress **p = vocabulary ? &v->vocabulary : &v->data;
  if (!*p) *p = mn_progress_new(v->cli, vocabulary ? "tokenizer" : "tokenise", vocabulary ? "merges" : "bytes", total);
  if (!vocabulary) mn_progress_fields(*p, "%s", what);
  mn_progress_update(*p, done);
  return !mn_cli_interrupted();
}

void mn_train_view_end(mn_train_view *v) {
  mn_progress_free(v->vocabulary);
  mn_progress_free(v->data);
  mn_progress_free(v->steps);
  v->vocabulary = v->data = v->steps = NULL;
}

static void show_step(mn_train_view *v, const mn_train_event *e) {
  char rate[16];
  v->loss = v->loss > 0 ? 0.9 * v->loss + 0.1 * e->result->loss : e->result->loss;
  if (v->validation_loss > 0)
    mn_progress_fields(v->steps, "loss %.3f  validation %.3f  %s %s/s", v->loss, v->validation_loss,
                       mn_human_count(e->tokens_per_second, rate), e->unit);
  else mn_progress_fields(v->steps, "loss %.3f  %s %s/s", v->loss, mn_human_count(e->tokens_per_second, rate), e->unit);
  mn_progress_update(v->steps, e->step);
}

void mn_train_view_event(void *ctx, const mn_train_event *e) {
  mn_train_view *v = ctx;
  switch (e->kind) {
  case MN_EVENT_BEGIN:
    mn_train_view_end(v);
    v->steps = mn_progress_new(v->cli, v->label, "steps", e->steps);
    mn_progress_begin_at(v->steps, e->step);
    break;
  case MN_EVENT_STEP:
    show_step(v, e);
    break;
  case MN_EVENT_VALIDATION:
    v->validation_loss = e->validation->loss;
    break;
  case MN_EVENT_CHECKPOINT:
    break;
  case MN_EVENT_REMARK:
    mn_progress_clear(v->steps);
    mn_cli_note(v->cli, "%s", e->text);
    break;
  }
}

mn_status mn_train_settings(const mn_cli *cli, const char ***set, int *n) {
  static char seed[40];
  *set = mn_alloc((size_t)(cli->n_set + 1) * sizeof **set);
  if (!*set) return MN_ERR_MEMORY;
  for (*n = 0; *n < cli->n_set; (*n)++) (*set)[*n] = cli->set[*n];
  if (!cli->seed_given) return MN_OK;
  snprintf(seed, sizeof seed, "seed=%llu", (unsigned long long)cli->seed);
  (*set)[(*n)++] = seed;
  return MN_OK;
}

json_t *mn_evaluation_json(const mn_evaluation *e) {
  if (!e->batches) return json_null();
  json_t *j =
      json_pack("{s:I,s:I,s:o,s:o,s:o}", "batches", (json_int_t)e->batches, "tokens", (json_int_t)e->tokens, "loss", mn_cli_number(e->loss),
                "perplexity", mn_cli_number(e->perplexity), "bits_per_byte", mn_cli_number(e->bits_per_byte));
  if (e->score.examples) {
    json_object_set_new(j, "accuracy", mn_cli_number(mn_task_acc(&e->score)));
    json_object_set_new(j, "sequence_accuracy", mn_cli_number(mn_task_seq_acc(&e->score)));
    json_object_set_new(j, "examples", json_integer(e->score.examples));
  }
  for (int i = 0; i < e->n_metrics; i++) json_object_set_new(j, e->metrics[i].name, mn_cli_number(e->metrics[i].value));
  return j;
}
