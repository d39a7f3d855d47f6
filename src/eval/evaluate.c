/* evaluate.c - see evaluate.h. One graph gives the units' losses and metrics; what counts is averaged here, in doubles. */
#include "eval/evaluate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/finite.h"
#include "objective/teacher.h"
#include "run/program.h"

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
  mn_program *program;
  mn_states *states; /* NULL: every batch begins anew */
  mn_limit limit;
  mn_batch batch;
  mn_scope *teacher[MN_OBJECTIVES];     /* of the graph that was built last */
  float *weight[MN_OBJECTIVES], *value; /* [units], the largest units */
  int n_figures, prediction;            /* output of predictions; -1: none */
  figure figures[MN_OBJECTIVES * (MN_METRICS + 1)];
  int32_t *predicted; /* [B, T] */
};

/* What is given, in the figures' order. */
static void list_figures(mn_evaluator *e, const mn_judged *j, mn_parts *parts) {
  int n = 0;
  e->n_figures = 0;
  for (int k = 0; k < e->objectives->n; k++) {
    const mn_metric_def *defs = e->objectives->list[k].def->metrics;
    int loss = n++;
    mn_parts_give(parts, "loss", j->verdict[k].each);
    e->figures[e->n_figures++] = (figure){.objective = k, .output = loss};
    for (int i = 0; defs && defs[i].name; i++) {
      mn_tensor *t = j->verdict[k].metric[i];
      if (!t && !defs[i].of_loss) continue;
      e->figures[e->n_figures++] = (figure){.objective = k, .def = &defs[i], .output = t ? n : loss};
      if (t) mn_parts_give(parts, defs[i].name, t), n++;
    }
  }
  e->prediction = j->verdict[0].prediction ? n : -1;
  if (e->prediction >= 0) mn_parts_give(parts, "prediction", j->verdict[0].prediction);
}

static mn_status build(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  mn_evaluator *e = ctx;
  mn_judged j;
  (void)form; /* there is one */
  MN_TRY(mn_judge_in(s, e->objectives, e->config.teachers, e->model, &e->batch, true, mn_task_of_source(e->source) != NULL, &j));
  for (int i = 0; i < j.data.n; i++) mn_parts_fed(parts, j.data.tensor[i]);
  memcpy(e->teacher, j.teacher, sizeof e->teacher);
  list_figures(e, &j, parts);
  return MN_OK;
}

/* While the graph is there, the teachers' scopes are. */
static void bound(void *ctx, mn_plan *plan) {
  const mn_evaluator *e = ctx;
  mn_judged j = {0};
  memcpy(j.teacher, e->teacher, sizeof j.teacher);
  if (e->config.teachers) mn_teachers_bind(e->config.teachers, &j, plan);
}

static mn_form form_of(const mn_evaluator *e) {
  return (mn_form){.batch = e->config.batch, .length = e->config.seq_len, .multiple = e->config.carry_state ? e->config.seq_len : 1};
}

static mn_status open_program(mn_evaluator *e, const mn_params *p) {
  const mn_program_config c = {
      .backend = p->backend,
      .params = p,
      .build = {.param = p->dtype, .compute = e->config.compute, .carried = e->config.carry_state, .forget = e->config.forget},
      .builder = build,
      .bound = bound,
      .ctx = e,
      .learn = form_of(e),
      .settled = true,
  };
  mn_routine *r;
  MN_TRY(mn_program_new(&c, &e->program));
  if (e->config.carry_state) MN_TRY(mn_program_states(e->program, e->config.batch, &e->states));
  MN_TRY(mn_program_limit(e->program, &e->limit));
  MN_TRY(mn_program_enter(e->program, &c.learn, &r)); /* what cannot be built is said now */
  mn_program_leave(e->program);
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
  return e->value && e->predicted ? open_program(e, p) : MN_ERR_MEMORY;
}

mn_status mn_evaluator_new(const mn_model *m, const mn_params *p, mn_source *source, const mn_objectives *objectives,
                           const mn_evaluator_config *config, mn_evaluator **out) {
  *out = NULL;
  mn_evaluator *e = mn_calloc(1, sizeof *e);
  if (!e) return MN_ERR_MEMORY;
  *e = (mn_evaluator){.model = m, .source = source, .objectives = objectives, .config = *config};
  mn_status status = make(e, p);
  if (status != MN_OK) mn_evaluator_free(e);
  else *out = e;
  return status;
}

void mn_evaluator_free(mn_evaluator *e) {
  if (!e) return;
  mn_states_free(e->states);
  mn_program_free(e->program);
  mn_batch_free(&e->batch);
  for (int k = 0; k < MN_OBJECTIVES; k++) free(e->weight[k]);
  free(e->value);
  free(e->predicted);
  free(e);
}

/* ---- one batch ---- */

static mn_status add_figure(mn_evaluator *e, const mn_routine *r, figure *f, int64_t batch) {
  int64_t units = mn_objective_units(&e->objectives->list[f->objective], &e->batch), per_row = units / e->batch.B;
  const float *w = e->weight[f->objective];
  MN_TRY(mn_routine_get(r, f->output, 0, units, e->value));
  int64_t bad = mn_first_not_finite(MN_F32, e->value, units);
  if (bad >= 0)
    return mn_fail(MN_ERR_NUMERIC, "the model's output is not a number: batch %lld, row %lld, token %lld: the loss is %s", (long long)batch,
                   (long long)(bad / per_row), (long long)(bad % per_row), mn_not_finite_name(MN_F32, e->value, bad));
  const bool alike = f->def && !f->def->of_loss; /* what is weighed is the loss: a fraction is of all that counts */
  for (int64_t b = 0; b < e->batch.B; b++) {
    double sum = 0, weight = 0;
    for (int64_t i = b * per_row; i < (b + 1) * per_row; i++) {
      if (w[i] <= 0) continue;
      const double each = alike ? 1 : (double)w[i];
      sum += each * (double)e->value[i];
      weight += each;
    }
    f->sum += sum;
    f->weight += weight;
    if (weight > 0) f->rows_sum += sum / weight, f->rows++;
  }
  return MN_OK;
}

/* What is no target has no bytes. */
static bool judged_by_target(const mn_objective *o) {
  int axes;
  const char *field = o->def->target ? o->def->target(o->config, &axes) : NULL;
  return field && !strcmp(field, "target");
}

static mn_status judge_batch(mn_evaluator *e, mn_routine *r, int64_t i, mn_evaluation *out) {
  for (int k = 0; k < mn_routine_feeds(r); k++) {
    const void *data = mn_batch_get(&e->batch, mn_routine_feed_name(r, k));
    if (!data)
      return mn_fail(MN_ERR_CONFIG, "the model reads %s, which data of type %s does not give", mn_routine_feed_name(r, k),
                     e->source->def->name);
    MN_TRY(mn_routine_put(r, k, data));
  }
  MN_TRY(mn_routine_run(r, e->states));
  for (int k = 0; k < e->n_figures; k++) MN_TRY(add_figure(e, r, &e->figures[k], i));
  for (int64_t k = 0, n = mn_objective_units(&e->objectives->list[0], &e->batch); k < n; k++) out->tokens += e->weight[0][k] > 0;
  if (judged_by_target(&e->objectives->list[0])) out->bytes += mn_source_target_bytes(e->source, &e->batch);
  if (e->prediction < 0) return MN_OK;
  int64_t B = e->batch.B, T = e->batch.T;
  const int32_t *target = mn_batch_get(&e->batch, "target");
  MN_TRY(mn_routine_get(r, e->prediction, 0, B * T, e->predicted));
  for (int64_t b = 0; b < B; b++) mn_task_score_add(&out->score, target + b * T, e->predicted + b * T, T);
  return MN_OK;
}

/* Rows that begin a stream in this batch begin anew. */
static mn_status begin_rows(mn_evaluator *e) {
  const mn_states *first;
  if (!e->states) return MN_OK;
  MN_TRY(mn_program_first(e->program, &first));
  return mn_states_reset(e->states, first, mn_batch_get(&e->batch, "reset"));
}

static mn_status one_batch(mn_evaluator *e, int split, int64_t i, mn_evaluation *out) {
  mn_routine *r;
  const mn_form form = form_of(e);
  MN_TRY(mn_source_fill(e->source, split, i, &e->batch));
  MN_TRY(mn_objectives_prepare(e->objectives, e->model, e->config.seed, split, i, &e->batch));
  for (int k = 0; k < e->objectives->n; k++) mn_objective_weights(&e->objectives->list[k], &e->batch, e->weight[k]);
  MN_TRY(begin_rows(e));
  MN_TRY(mn_program_enter(e->program, &form, &r));
  mn_status status = judge_batch(e, r, i, out);
  mn_program_leave(e->program);
  return status;
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

void mn_metric_title(const mn_objectives *o, int k, const mn_metric_def *def, char out[72]) {
  const char *name = def ? def->name : "loss";
  char title[64];
  if (o->n > 1) snprintf(out, 72, "%.40s.%.30s", mn_objective_title(o, k, title), name);
  else snprintf(out, 72, "%s", name);
}

int mn_evaluation_figures(const mn_evaluation *e, mn_figure out[MN_EVALUATION_FIGURES]) {
  int n = 0;
  if (!e->batches) return 0;
  out[n++] = (mn_figure){"loss", MN_FIGURE_LOSS, false, e->loss};
  if (e->bytes) out[n++] = (mn_figure){"bits_per_byte", MN_FIGURE_BITS, false, e->bits_per_byte};
  if (e->score.examples) {
    out[n++] = (mn_figure){"accuracy", MN_FIGURE_METRIC, true, mn_task_acc(&e->score)};
    out[n++] = (mn_figure){"sequence_accuracy", MN_FIGURE_METRIC, true, mn_task_seq_acc(&e->score)};
  }
  for (int i = 0; i < e->n_metrics; i++) {
    const mn_measured *m = &e->metrics[i];
    mn_figure_kind kind = !m->def ? MN_FIGURE_LOSS : m->def->of_loss ? MN_FIGURE_OF_LOSS : MN_FIGURE_METRIC;
    out[n++] = (mn_figure){m->name, kind, m->def && m->def->rises, m->value};
  }
  return n;
}

/* A mean over nothing is no figure. */
static mn_status check_asked(const mn_evaluator *e, int split, const mn_evaluation *out) {
  static const char *const names[] = {"training", "validation", "test"};
  char where[96];
  for (int k = 0; k < e->n_figures; k++) {
    if (e->figures[k].weight > 0) continue;
    snprintf(where, sizeof where, "%lld batch%s of the %s data", (long long)out->batches, out->batches == 1 ? "" : "es", names[split]);
    return mn_objective_nothing(&e->objectives->list[e->figures[k].objective], where);
  }
  return MN_OK;
}

static void conclude(const mn_evaluator *e, mn_evaluation *out) {
  bool several = e->objectives->n > 1;
  for (int k = 0; k < e->n_figures; k++) {
    const figure *f = &e->figures[k];
    const mn_objective *o = &e->objectives->list[f->objective];
    double value = value_of(f);
    if (!f->def) out->loss += o->weight * value;
    if (out->n_metrics == MN_EVALUATION_METRICS || (!f->def && !several)) continue;
    mn_measured *m = &out->metrics[out->n_metrics++];
    *m = (mn_measured){.def = f->def, .value = value};
    mn_metric_title(e->objectives, f->objective, f->def, m->name);
  }
  out->bits_per_byte = out->bytes ? e->figures[0].sum / (double)out->bytes / log(2) : (double)NAN;
}

static mn_status evaluate(mn_evaluator *e, int split, int64_t max_batches, const mn_watch *watch, mn_evaluation *out) {
  int64_t B = e->config.batch, T = e->config.seq_len;
  MN_TRY(mn_source_check(e->source, split, B, T));
  int64_t n = mn_source_steps(e->source, split, B, T);
  if (max_batches > 0 && max_batches < n) n = max_batches;
  if (n == INT64_MAX) return mn_fail(MN_ERR_ARG, "a task never ends: say how many batches to evaluate");
  const int64_t most = mn_source_longest(e->source, split);
  if (e->config.carry_state) MN_TRY(mn_limit_check(&e->limit, e->config.forget, 0, n <= most / T ? n * T : most));
  for (int k = 0; k < e->n_figures; k++) e->figures[k].sum = e->figures[k].weight = e->figures[k].rows_sum = 0, e->figures[k].rows = 0;
  MN_TRY(mn_program_refresh(e->program)); /* the model may have been trained since */
  for (int64_t i = 0; i < n; i++) {
    if (mn_watch_stops(watch)) return mn_fail(MN_ERR_CANCELLED, "evaluation was interrupted");
    MN_TRY(one_batch(e, split, i, out));
    out->batches++;
  }
  int64_t longest = e->config.carry_state && !mn_task_of_source(e->source) ? out->batches * T : T;
  if (longest > most) longest = most;
  out->forgot = longest > e->limit.tokens;
  MN_TRY(check_asked(e, split, out));
  conclude(e, out);
  return MN_OK;
}

mn_status mn_evaluate(mn_evaluator *e, int split, int64_t max_batches, const mn_watch *watch, mn_evaluation *out) {
  *out = (mn_evaluation){0};
  mn_status status = evaluate(e, split, max_batches, watch, out);
  if (status != MN_OK) *out = (mn_evaluation){0}; /* a part of the batches is no figure */
  return status;
}
