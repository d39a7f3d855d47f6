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
  char rate[16], validation[128] = "";
  const double loss = e->result->loss; /* NAN: the step asked for nothing */
  if (isfinite(loss)) v->loss = v->stepped ? 0.9 * v->loss + 0.1 * loss : loss;
  v->stepped = v->stepped || isfinite(loss);
  int k = v->validated ? snprintf(validation, sizeof validation, "  validation %.3f", v->validation_loss) : 0;
  if (v->validated && *v->metric_name) snprintf(validation + k, sizeof validation - (size_t)k, " %s %.3f", v->metric_name, v->metric);
  char shown[32] = "-";
  if (v->stepped) snprintf(shown, sizeof shown, "%.3f", v->loss);
  mn_progress_fields(v->steps, "loss %s%s  %s %s/s", shown, validation, mn_human_count(e->tokens_per_second, rate), e->unit);
  mn_progress_update(v->steps, e->step);
}

static void keep_validation(mn_train_view *v, const mn_evaluation *e) {
  mn_figure figures[MN_EVALUATION_FIGURES];
  int n = mn_evaluation_figures(e, figures), i = 0;
  v->validated = n > 0;
  v->validation_loss = e->loss;
  while (i < n && figures[i].kind != MN_FIGURE_METRIC) i++;
  snprintf(v->metric_name, sizeof v->metric_name, "%s", i < n ? figures[i].name : "");
  v->metric = i < n ? figures[i].value : 0;
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
    keep_validation(v, e->validation);
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
  mn_figure figures[MN_EVALUATION_FIGURES];
  int n = mn_evaluation_figures(e, figures);
  if (!n) return json_null();
  json_t *j = json_pack("{s:I,s:I}", "batches", (json_int_t)e->batches, "tokens", (json_int_t)e->tokens);
  for (int i = 0; i < n; i++) json_object_set_new(j, figures[i].name, mn_cli_number(figures[i].value));
  if (e->score.examples) json_object_set_new(j, "examples", json_integer(e->score.examples));
  return j;
}
