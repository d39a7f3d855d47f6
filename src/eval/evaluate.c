/* evaluate.c - see evaluate.h. One graph gives the units' losses and metrics; what counts is averaged here, in doubles. */
#include "eval/evaluate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/finite.h"
#include "run/buffers.h"

typedef struct figure { /* one output of the graph: values of the units of an objective */
  int objective;
  const mn_metric_def *def; /* NULL: the loss */
  int output;
  double sum, weight, rows_sum; /* over units; over rows the mean of each */
  int64_t rows;
} figure;

struct mn_evaluator {
  const mn_model *model;
  mn_source *source;
  const mn_objectives *objectives;
  mn_evaluator_config config;
  mn_backend *backend;
  mn_graph *graph;
  mn_plan *plan;
  mn_buffers inputs, states;
  mn_limit limit;
  mn_batch batch;
  float *weight[MN_OBJECTIVES], *value; /* [units], the largest units */
  int n_figures, prediction;            /* output of predictions; -1: none */
  figure figures[MN_OBJECTIVES * (MN_METRICS + 1)];
  int32_t *predicted; /* [B, T] */
};

static int list_figures(mn_evaluator *e, const mn_judged *j, mn_tensor **outputs) {
  int n = 0;
  for (int k = 0; k < e->objectives->n; k++) {
    const mn_metric_def *defs = e->objectives->list[k].def->metrics;
    int loss = n;
    outputs[n++] = j->verdict[k].each;
    e->figures[e->n_figures++] = (figure){.objective = k, .output = loss};
    for (int i = 0; defs && defs[i].name; i++) {
      mn_tensor *t = j->verdict[k].metric[i];
      if (!t && !defs[i].of_loss) continue;
      e->figures[e->n_figures++] = (figure){.objective = k, .def = &defs[i], .output = t ? n : loss};
      if (t) outputs[n++] = t;
    }
  }
  e->prediction = j->verdict[0].prediction ? n : -1;
  if (e->prediction >= 0) outputs[n++] = j->verdict[0].prediction;
  return n;
}

static mn_status build(mn_evaluator *e, const mn_params *p) {
  mn_graph *g = e->graph = mn_graph_new();
  if (!g) return MN_ERR_MEMORY;
  mn_build how = {.param = p->dtype,
                  .compute = e->config.compute,
                  .carried = e->config.carry_state,
                  .position_multiple = e->config.seq_len,
                  .forget = e->config.forget};
  mn_judged j;
  mn_tensor *outputs[MN_OBJECTIVES * (MN_METRICS + 1) + 1];
  MN_TRY(mn_judge_build(e->objectives, e->model, &e->batch, g, how, true, mn_task_of_source(e->source) != NULL, &j));
  e->limit = mn_scope_limit_of(j.scope);
  int n_outputs = list_figures(e, &j, outputs);
  const mn_built_state *states;
  int n = e->config.carry_state ? mn_scope_states(j.scope, &states) : 0;
  mn_tensor **variables = mn_arena_alloc(g->arena, (size_t)(2 * n + 1) * sizeof *variables), **values = variables + n;
  if (!variables) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) variables[i] = states[i].leaf, values[i] = states[i].value;
  mn_plan_request q = {.graph = g,
                       .n_outputs = n_outputs,
                       .outputs = outputs,
                       .n_assigns = n,
                       .variables = variables,
                       .values = values,
                       .backend = e->backend};
  MN_TRY(mn_plan_compile(&q, &e->plan));
  mn_params_bind(p, j.scope, e->plan);
  for (int i = 0; i < j.data.n; i++) MN_TRY(mn_buffers_add(&e->inputs, e->backend, e->plan, j.data.tensor[i], NULL));
  if (j.reset) MN_TRY(mn_buffers_add(&e->inputs, e->backend, e->plan, j.reset, NULL));
  for (int i = 0; i < n; i++) MN_TRY(mn_buffers_add(&e->states, e->backend, e->plan, states[i].leaf, NULL));
  return MN_OK;
}

static mn_status make(mn_evaluator *e, const mn_params *p) {
  int64_t most = 1;
  MN_TRY(mn_batch_new(e->source, e->config.batch, e->config.seq_len, &e->batch));
  for (int k = 0; k < e->objectives->n; k++) {
    int64_t units = mn_objective_units(&e->objectives->list[k], &e->batch);
    if (units > most) most = units;
    if (!(e->weight[k] = mn_alloc((size_t)units * sizeof(float)))) return MN_ERR_MEMORY;
  }
  e->value = mn_alloc((size_t)most * sizeof *e->value);
  e->predicted = mn_alloc((size_t)most * sizeof *e->predicted);
  return e->value && e->predicted ? build(e, p) : MN_ERR_MEMORY;
}

mn_status mn_evaluator_new(const mn_model *m, const mn_params *p, mn_source *source, const mn_objectives *objectives,
                           const mn_evaluator_config *config, mn_evaluator **out) {
  *out = NULL;
  mn_evaluator *e = mn_calloc(1, sizeof *e);
  if (!e) return MN_ERR_MEMORY;
  *e = (mn_evaluator){.model = m, .source = source, .objectives = objectives, .config = *config, .backend = p->backend};
  mn_status status = make(e, p);
  if (status != MN_OK) mn_evaluator_free(e);
  else *out = e;
  return status;
}

void mn_evaluator_free(mn_evaluator *e) {
  if (!e) return;
  mn_plan_free(e->plan);
  mn_buffers_free(&e->inputs);
  mn_buffers_free(&e->states);
  if (e->graph) mn_graph_free(e->graph);
  mn_batch_free(&e->batch);
  for (int k = 0; k < MN_OBJECTIVES; k++) free(e->weight[k]);
  free(e->value);
  free(e->predicted);
  free(e);
}

/* ---- one batch ---- */

static mn_status add_figure(mn_evaluator *e, figure *f, int64_t batch) {
  int64_t units = mn_objective_units(&e->objectives->list[f->objective], &e->batch), per_row = units / e->batch.B;
  const float *w = e->weight[f->objective];
  MN_TRY(e->backend->download(e->backend, e->value, mn_plan_output(e->plan, f->output)->data, (size_t)units * sizeof *e->value));
  int64_t bad = mn_first_not_finite(MN_F32, e->value, units);
  if (bad >= 0)
    return mn_fail(MN_ERR_NUMERIC, "the model's output is not a number: batch %lld, row %lld, token %lld: the loss is %s", (long long)batch,
                   (long long)(bad / per_row), (long long)(bad % per_row), mn_not_finite_name(MN_F32, e->value, bad));
  for (int64_t b = 0; b < e->batch.B; b++) {
    double sum = 0, weight = 0;
    for (int64_t i = b * per_row; i < (b + 1) * per_row; i++) {
      if (w[i] <= 0) continue;
      f->sum += (double)w[i] * (double)e->value[i];
      f->weight += (double)w[i];
      sum += (double)w[i] * (double)e->value[i];
      weight += (double)w[i];
    }
    if (weight > 0) f->rows_sum += sum / weight, f->rows++;
  }
  return MN_OK;
}

static mn_status one_batch(mn_evaluator *e, int split, int64_t i, mn_evaluation *out) {
  MN_TRY(mn_source_fill(e->source, split, i, &e->batch));
  MN_TRY(mn_objectives_prepare(e->objectives, e->model, e->config.seed, split, i, &e->batch));
  for (int k = 0; k < e->inputs.n; k++) MN_TRY(mn_buffers_put(&e->inputs, k, mn_batch_get(&e->batch, e->inputs.list[k].name)));
  for (int k = 0; k < e->objectives->n; k++) mn_objective_weights(&e->objectives->list[k], &e->batch, e->weight[k]);
  MN_TRY(mn_plan_run(e->plan));
  for (int k = 0; k < e->n_figures; k++) MN_TRY(add_figure(e, &e->figures[k], i));
  for (int64_t k = 0, n = mn_objective_units(&e->objectives->list[0], &e->batch); k < n; k++) out->tokens += e->weight[0][k] > 0;
  out->bytes += mn_source_target_bytes(e->source, &e->batch);
  if (e->prediction < 0) return MN_OK;
  int64_t B = e->batch.B, T = e->batch.T;
  const int32_t *target = mn_batch_get(&e->batch, "target");
  MN_TRY(
      e->backend->download(e->backend, e->predicted, mn_plan_output(e->plan, e->prediction)->data, (size_t)(B * T) * sizeof *e->predicted));
  for (int64_t b = 0; b < B; b++) mn_task_score_add(&out->score, target + b * T, e->predicted + b * T, T);
  return MN_OK;
}

/* ---- all of them ---- */

static double value_of(const figure *f) {
  double mean = f->weight > 0 ? f->sum / f->weight : (double)NAN;
  if (!f->def) return mean;
  switch (f->def->form) {
  case MN_METRIC_ROOT:
    return sqrt(mean);
  case MN_METRIC_EXP:
    return exp(mean);
  case MN_METRIC_ROWS:
    return f->rows ? f->rows_sum / (double)f->rows : (double)NAN;
  default:
    return mean;
  }
}

static void conclude(const mn_evaluator *e, mn_evaluation *out) {
  bool several = e->objectives->n > 1;
  out->perplexity = (double)NAN;
  for (int k = 0; k < e->n_figures; k++) {
    const figure *f = &e->figures[k];
    const mn_objective *o = &e->objectives->list[f->objective];
    double value = value_of(f);
    if (!f->def) out->loss += o->weight * value;
    if (f->def && !strcmp(f->def->name, "perplexity")) out->perplexity = value;
    if (out->n_metrics == MN_EVALUATION_METRICS || (!f->def && !several)) continue;
    mn_measured *m = &out->metrics[out->n_metrics++];
    *m = (mn_measured){.def = f->def, .value = value};
    const char *name = f->def ? f->def->name : "loss";
    if (several) snprintf(m->name, sizeof m->name, "%s.%s", o->def->name, name);
    else snprintf(m->name, sizeof m->name, "%s", name);
  }
  out->bits_per_byte = out->bytes ? e->figures[0].sum / (double)out->bytes / log(2) : (double)NAN;
}

mn_status mn_evaluate(mn_evaluator *e, int split, int64_t max_batches, const volatile sig_atomic_t *stop, mn_evaluation *out) {
  int64_t B = e->config.batch, T = e->config.seq_len;
  *out = (mn_evaluation){0};
  MN_TRY(mn_source_check(e->source, split, B, T));
  int64_t n = mn_source_steps(e->source, split, B, T);
  if (max_batches > 0 && max_batches < n) n = max_batches;
  if (n == INT64_MAX) return mn_fail(MN_ERR_ARG, "a task never ends: say how many batches to evaluate");
  if (e->config.carry_state) MN_TRY(mn_limit_check(&e->limit, e->config.forget, 0, n <= INT64_MAX / T ? n * T : INT64_MAX));
  for (int k = 0; k < e->n_figures; k++) e->figures[k].sum = e->figures[k].weight = e->figures[k].rows_sum = 0, e->figures[k].rows = 0;
  for (int64_t i = 0; i < n; i++) {
    if (stop && *stop) return mn_fail(MN_ERR_CANCELLED, "evaluation was interrupted");
    MN_TRY(one_batch(e, split, i, out));
    out->batches++;
  }
  int64_t longest = e->config.carry_state && !mn_task_of_source(e->source) ? out->batches * T : T;
  out->forgot = longest > e->limit.tokens;
  conclude(e, out);
  return MN_OK;
}
