/* step.c - a training step taken: batches filled and fed, the plans run, what came out judged; and undone when it is left. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "train/diagnose.h"
#include "train/trainer_internal.h"

static mn_status read_scalar(const mn_routine *r, int j, double *out) {
  float x;
  MN_TRY(mn_routine_get_all(r, j, &x));
  *out = isnan(x) ? (double)NAN : (double)x; /* which has no sign: nobody is told of -nan */
  return MN_OK;
}

/* ---- what a batch feeds ---- */

/* weight[k]: of the units of batch a, so that those of all batches of the update sum to 1. */
static const float *weights_of(mn_trainer *t, int64_t a, int k) {
  const mn_objective *o = &t->recipe->objectives.list[k];
  mn_objective_weights(o, &t->batches[a], t->weight[k]);
  for (int64_t i = 0, n = mn_objective_units(o, &t->batches[a]); i < n; i++)
    t->weight[k][i] = t->total[k] > 0 ? (float)(t->weight[k][i] / t->total[k]) : 0;
  return t->weight[k];
}

/* What the update asks for, over all its batches. */
static void count_asked(mn_trainer *t) {
  const mn_objectives *o = &t->recipe->objectives;
  for (int k = 0; k < o->n; k++) {
    t->total[k] = 0;
    for (int64_t a = 0; a < t->recipe->train.accumulate; a++)
      t->total[k] += mn_objective_weights(&o->list[k], &t->batches[a], t->weight[k]);
  }
}

/* By name: of the step, a field of the batch, or an objective's weights. NULL: nobody has it. */
static const void *value_of(mn_trainer *t, const char *name, int64_t a, const int64_t *step) {
  char weight[MN_OBJECTIVE_WEIGHT];
  if (strcmp(name, "step") == 0) return step;
  for (int k = 0; k < t->recipe->objectives.n; k++)
    if (strcmp(name, mn_objective_weight_name(k, weight)) == 0) return weights_of(t, a, k);
  return mn_batch_get(&t->batches[a], name);
}

mn_status mn_trainer_run_batch(mn_trainer *t, mn_routine *r, int64_t a, mn_states *states) {
  const int64_t step = t->state.step * t->recipe->train.accumulate + a;
  for (int i = 0; i < mn_routine_feeds(r); i++) {
    const char *name = mn_routine_feed_name(r, i);
    if (strcmp(name, "rate") == 0) continue; /* the update's, which is fed once */
    const void *data = value_of(t, name, a, &step);
    if (!data) return mn_fail(MN_ERR_CONFIG, "the training step reads %s, which data of type %s does not give", name, t->source->def->name);
    MN_TRY(mn_routine_put(r, i, data));
  }
  return states ? mn_routine_run_resets(r, states, mn_batch_get(&t->batches[a], "reset")) : mn_routine_run(r, NULL);
}

/* ---- when it fails ---- */

/* The failure, where it began and what to do about it. */
static mn_status diverged(mn_trainer *t, const char *what) {
  mn_text text = {0};
  mn_text_addf(&text, "step %lld: %s", (long long)t->state.step, what);
  mn_diagnose(t, &text);
  mn_status status = mn_fail(MN_ERR_NUMERIC, "%s", mn_text_status(&text) == MN_OK ? text.data : what);
  mn_text_free(&text);
  return status;
}

static mn_status not_finite(mn_trainer *t, const mn_step_result *r) {
  char what[160];
  snprintf(what, sizeof what, "the loss is %g and the gradient's norm %g", r->loss, r->grad_norm);
  return diverged(t, what);
}

static mn_status check_divergence(mn_trainer *t, double loss) {
  mn_loss_watch *w = &t->state.watch;
  char what[300];
  if (!mn_loss_watch_add(w, loss)) return MN_OK;
  snprintf(
      what, sizeof what,
      "the loss runs away: %g on average lately; it began at %g, was %g at best and moved by %g from step to step, and %g is far above",
      w->mean, w->first, w->low, w->spread, mn_loss_watch_bar(w));
  return diverged(t, what);
}

enum { SILENT = 16 }; /* steps that ask for nothing say little where they are a pass over the data */

/* A sum over nothing is no loss of 0. Some steps of streams and of hidden tokens ask for nothing; a whole pass over the data, or a whole
 * stage, that does not is a mistake. */
static mn_status check_asked(mn_trainer *t, mn_step_result *out) {
  const mn_train_config *c = &t->recipe->train;
  const mn_objectives *o = &t->recipe->objectives;
  bool any = false;
  for (int k = 0; k < o->n; k++) {
    any = any || t->total[k] > 0;
    t->unasked[k] = t->total[k] > 0 ? 0 : t->unasked[k] + 1;
    out->unasked = out->unasked || t->unasked[k];
    if (k < out->n_parts && t->unasked[k]) out->part[k] = (double)NAN;
  }
  if (!any) out->loss = (double)NAN;
  for (int k = 0; k < o->n && out->unasked; k++) {
    const int64_t batches = mn_source_steps(t->source, MN_SPLIT_TRAIN, c->batch, c->seq_len), n = t->unasked[k];
    char where[96];
    if (!n || (n < c->steps && (n < SILENT || n - 1 < (batches - 1) / c->accumulate))) continue;
    snprintf(where, sizeof where, "the last %lld step%s of training", (long long)n, n == 1 ? "" : "s");
    return mn_at_objective(t->recipe, mn_objective_nothing(&o->list[k], where));
  }
  return MN_OK;
}

/* ---- a step ---- */

/* What a step changes before its update, so that it can be looked at again when it fails, and undone when it is left. */
static mn_status keep_before(mn_trainer *t) {
  if (t->carried) MN_TRY(mn_states_copy(t->before, t->carried));
  for (int i = 0; i < t->moved.n; i++)
    MN_TRY(t->backend->copy(t->backend, t->moved.list[i].data, t->params->data[t->moved_at[i]], t->moved.list[i].bytes));
  return MN_OK;
}

static mn_status put_back(mn_trainer *t) {
  if (t->carried) MN_TRY(mn_states_put_back(t->carried, t->before));
  for (int i = 0; i < t->moved.n; i++)
    MN_TRY(t->backend->copy(t->backend, t->params->data[t->moved_at[i]], t->moved.list[i].data, t->moved.list[i].bytes));
  return mn_program_clear(t->program);
}

/* The routine has been entered; its last result is the gradients' norm where it updates. */
static mn_status run_batches(mn_trainer *t, mn_routine *r, mn_step_result *out) {
  double x;
  for (int64_t a = 0; a < t->recipe->train.accumulate; a++) {
    MN_TRY(mn_trainer_run_batch(t, r, a, t->carried));
    MN_TRY(read_scalar(r, 0, &x));
    out->loss += x;
    for (int k = 0; k < out->n_parts; k++) {
      MN_TRY(read_scalar(r, 1 + k, &x));
      out->part[k] += x;
    }
  }
  return MN_OK;
}

static mn_status put_rate(mn_trainer *t, mn_routine *r, const mn_step_result *out, int64_t update) {
  float rate[3];
  mn_optimizer_rate(t->optimizer, out->learning_rate, update, rate);
  return mn_routine_put(r, mn_routine_feed(r, "rate"), rate);
}

/* update: its number in the stage, from 1. */
static mn_status take_step(mn_trainer *t, int64_t update, mn_step_result *out) {
  const bool adds = t->recipe->train.accumulate > 1;
  mn_routine *r;
  MN_TRY(mn_trainer_enter(t, adds ? MN_STEP_ADD : MN_STEP_WHOLE, &r));
  mn_status status = adds ? MN_OK : put_rate(t, r, out, update);
  if (status == MN_OK) status = run_batches(t, r, out);
  if (status == MN_OK && !adds) status = read_scalar(r, mn_routine_results(r) - 1, &out->grad_norm);
  mn_program_leave(t->program);
  if (status != MN_OK || !adds) return status;
  MN_TRY(mn_trainer_enter(t, MN_STEP_UPDATE, &r));
  status = put_rate(t, r, out, update);
  if (status == MN_OK) status = mn_routine_run(r, NULL);
  if (status == MN_OK) status = read_scalar(r, 0, &out->grad_norm);
  mn_program_leave(t->program);
  return status;
}

mn_status mn_trainer_step(mn_trainer *t, mn_step_result *out) {
  *out = (mn_step_result){0};
  MN_TRY(mn_trainer_at(t, t->state.step + 1));
  const mn_train_config *c = &t->recipe->train;
  int64_t done = t->state.step - t->begin; /* updates of this stage */
  out->n_parts = t->recipe->objectives.n > 1 ? t->recipe->objectives.n : 0;
  for (int64_t a = 0; a < c->accumulate; a++) {
    int64_t step = done * c->accumulate + a;
    MN_TRY(mn_source_fill(t->source, MN_SPLIT_TRAIN, step, &t->batches[a]));
    MN_TRY(mn_objectives_prepare(&t->recipe->objectives, t->model, (uint64_t)t->recipe->seed, MN_SPLIT_TRAIN, step, &t->batches[a]));
  }
  count_asked(t);
  MN_TRY(keep_before(t));
  out->learning_rate = c->optimizer.lr * mn_schedule_factor(&c->schedule, done, c->steps);
  mn_status status = take_step(t, done + 1, out);
  if (status == MN_ERR_CANCELLED) MN_TRY(put_back(t));
  if (status != MN_OK) return status;
  t->state.step++;
  t->state.tokens += c->accumulate * c->batch * c->seq_len;
  if (!isfinite(out->loss) || !isfinite(out->grad_norm)) return not_finite(t, out);
  MN_TRY(check_asked(t, out));
  return out->unasked ? MN_OK : check_divergence(t, out->loss);
}
