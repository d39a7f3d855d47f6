/* step_graph.c - what a training step computes. Forward, backward, clipping and the optimizer are one graph and one plan: what is
 * small (rates, batches) is fed, what lasts (parameters, moments, carried state) is assigned in place. Of several batches that make
 * one update, one plan adds up gradients and another updates. */
#include <string.h>

#include "train/diagnose.h"
#include "train/trainer_internal.h"

/* With carried state a row is a stream from end to end: one that the model cannot hold is refused before the first step. */
static mn_status check_streams(const mn_trainer *t, const mn_scope *s) {
  const mn_train_config *c = &t->recipe->train;
  mn_limit limit = mn_scope_limit_of(s);
  if (!t->source->def->order) return MN_OK; /* every row begins a stream */
  for (int split = MN_SPLIT_TRAIN; split <= MN_SPLIT_VALIDATION; split++) {
    bool validation = split == MN_SPLIT_VALIDATION;
    if (validation && mn_source_check(t->source, split, c->batch, c->seq_len) != MN_OK) continue; /* there is none */
    int64_t segments = mn_source_steps(t->source, split, c->batch, c->seq_len), most = c->validation_batches;
    if (!validation) most = c->steps <= INT64_MAX / c->accumulate ? c->steps * c->accumulate : INT64_MAX;
    if (most > 0 && most < segments) segments = most;
    int64_t longest = mn_source_longest(t->source, split), all = segments <= INT64_MAX / c->seq_len ? segments * c->seq_len : INT64_MAX;
    MN_TRY(mn_limit_check(&limit, false, 0, all < longest ? all : longest));
  }
  return MN_OK;
}

/* Of batches that make one update together, each gives its part. */
static void add_losses_of_rooms(const mn_trainer *t, mn_graph *g, mn_step_graph *x) {
  mn_tensor *rooms = mn_scope_total_loss(x->judged.scope);
  if (!rooms) return;
  if (t->recipe->train.accumulate > 1) rooms = mn_mul_scalar(g, rooms, 1.0 / (double)t->recipe->train.accumulate);
  x->judged.loss = mn_add(g, x->judged.loss, rooms);
}

mn_status mn_at_objective(const mn_recipe *r, mn_status status) {
  const mn_value *v = r->objective;
  bool own = status != MN_OK && v && v->file && !strncmp(mn_message(), "objective", 9);
  if (!own) return status;
  return v->line > 0 ? mn_context(status, "%s:%d", v->file, v->line) : mn_context(status, "%s", v->file);
}

/* The parameters that the step reads, in the set's order. */
static mn_status list_params(const mn_trainer *t, mn_graph *g, mn_step_graph *x) {
  const mn_param_info *info;
  mn_tensor *const *tensors;
  const int n = t->params->n, n_built = mn_scope_params(x->judged.scope, &info, &tensors);
  x->params = mn_arena_alloc(g->arena, (size_t)(2 * n + 1) * sizeof *x->params);
  if (!x->params) return MN_ERR_MEMORY;
  x->grads = x->params + n;
  for (int i = 0; i < n_built; i++) {
    int k = mn_params_find(t->params, info[i].name);
    if (k < 0) return mn_fail(MN_ERR_INTERNAL, "parameter %s appears in one form of the step only", info[i].name);
    x->params[k] = tensors[i];
  }
  return MN_OK;
}

/* used[id]: the node's result is part of what makes x. */
static bool *nodes_behind(mn_graph *g, const mn_tensor *x) {
  bool *used = mn_arena_alloc(g->arena, (size_t)g->n_nodes + 1);
  if (!used) return NULL;
  memset(used, 0, (size_t)g->n_nodes + 1);
  used[x->node->id] = true;
  for (int id = x->node->id; id >= 0; id--)
    for (int k = 0; used[id] && k < g->nodes[id]->n_in; k++) used[g->nodes[id]->in[k]->node->id] = true;
  return used;
}

/* Of what moves and is part of the loss; others have none. A parameter that the step does not use keeps its value: a gradient of zeros
 * would let it decay. */
static mn_status gradients(const mn_trainer *t, mn_graph *g, mn_step_graph *x) {
  int n = t->params->n, m = 0, moving = 0;
  MN_TRY(mn_graph_status(g));
  mn_tensor **wrt = mn_arena_alloc(g->arena, (size_t)(2 * n + 1) * sizeof *wrt), **d = wrt + n;
  const bool *used = nodes_behind(g, x->judged.loss);
  if (!wrt || !used) return MN_ERR_MEMORY;
  for (int k = 0; k < n; k++) {
    if (!x->params[k] || !mn_optimizer_moves(t->optimizer, k)) continue;
    moving++;
    if (used[x->params[k]->node->id]) wrt[m++] = x->params[k];
  }
  if (!moving) return mn_value_fail(t->recipe->train.groups_list, "train.groups: every parameter is frozen: there is nothing to train");
  MN_TRY(mn_grad(g, 1, &x->judged.loss, NULL, m, wrt, d));
  for (int k = 0, i = 0; k < n && i < m; k++)
    if (x->params[k] == wrt[i]) x->grads[k] = d[i++];
  return MN_OK;
}

static mn_status judge(mn_trainer *t, mn_scope *s) {
  const mn_objectives *o = &t->recipe->objectives;
  return mn_at_objective(t->recipe, mn_judge_in(s, o, &t->teachers, t->model, &t->batches[0], false, false, &t->graph->judged));
}

/* The loss of one batch, and its gradients. */
static mn_status differentiate(mn_trainer *t, mn_scope *s, mn_parts *parts) {
  mn_step_graph *x = t->graph;
  mn_graph *g = mn_scope_graph(s);
  const mn_objectives *o = &t->recipe->objectives;
  MN_TRY(judge(t, s));
  if (t->recipe->train.carry_state) MN_TRY(check_streams(t, s));
  add_losses_of_rooms(t, g, x);
  for (int i = 0; i < x->judged.data.n; i++) mn_parts_fed(parts, x->judged.data.tensor[i]);
  for (int k = 0; k < o->n; k++) mn_parts_fed(parts, x->judged.weight[k]);
  MN_TRY(list_params(t, g, x));
  return gradients(t, g, x);
}

/* The loss, and of several objectives each one's own. */
static void give_losses(const mn_trainer *t, mn_parts *parts) {
  const mn_step_graph *x = t->graph;
  const int n = t->recipe->objectives.n;
  mn_parts_give(parts, "loss", x->judged.loss);
  for (int k = 0; k < n && n > 1; k++) mn_parts_give(parts, "part", x->judged.verdict[k].loss);
}

/* Buffers that rooms of the model set: what a batch changes besides weights and states. */
static mn_status move_buffers(mn_trainer *t, mn_parts *parts) {
  const mn_built_buffer *buffers;
  const int n = mn_scope_buffers(t->graph->judged.scope, &buffers);
  t->moved_at = mn_arena_alloc(t->arena, (size_t)(n + 1) * sizeof *t->moved_at);
  if (!t->moved_at) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) {
    if (buffers[i].value == buffers[i].leaf) continue;
    const int k = mn_params_find(t->params, buffers[i].info.name);
    if (k < 0) return mn_fail(MN_ERR_INTERNAL, "buffer %s appears in the step only", buffers[i].info.name);
    t->moved_at[t->moved.n] = k;
    MN_TRY(mn_buffers_add(&t->moved, t->backend, NULL, buffers[i].leaf, NULL));
    t->moved.list[t->moved.n - 1].name = t->params->info[k].name; /* the graph ends with compiling */
    mn_parts_move(parts, buffers[i].leaf, buffers[i].value);
  }
  return MN_OK;
}

static void update(const mn_trainer *t, mn_scope *s, mn_parts *parts) {
  mn_step_graph *x = t->graph;
  mn_optimizer_build(t->optimizer, s, x->params, x->grads, t->recipe->train.clip_norm, &x->update);
  mn_parts_fed(parts, x->update.rate);
  mn_parts_give(parts, "norm", x->update.norm);
  for (int i = 0; i < x->update.n_assigns; i++) mn_parts_assign(parts, x->update.variables[i], x->update.values[i]);
}

static mn_tensor *sum_of(const mn_trainer *t, mn_graph *g, mn_parts *parts, int i) {
  const mn_param_info *p = &t->params->info[i];
  return mn_parts_keep(parts, mn_arena_format(g->arena, "sum.%s", p->name), MN_F32, p->shape);
}

static mn_status add_up(mn_trainer *t, mn_graph *g, mn_parts *parts) {
  t->summed = mn_arena_alloc(t->arena, (size_t)(t->params->n + 1) * sizeof *t->summed);
  if (!t->summed) return MN_ERR_MEMORY;
  for (int i = 0; i < t->params->n; i++) {
    t->summed[i] = t->graph->grads[i] != NULL;
    if (!t->summed[i]) continue;
    mn_tensor *sum = sum_of(t, g, parts, i);
    mn_parts_move(parts, sum, mn_add(g, sum, t->graph->grads[i]));
  }
  return MN_OK;
}

static mn_status update_from_sums(const mn_trainer *t, mn_scope *s, mn_parts *parts) {
  mn_graph *g = mn_scope_graph(s);
  const int n = t->params->n;
  mn_step_graph *x = t->graph;
  mn_tensor **params = mn_arena_alloc(g->arena, (size_t)(2 * n + 1) * sizeof *params), **sums = params + n;
  if (!params) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) {
    const mn_param_info *p = &t->params->info[i];
    if (!t->summed[i]) continue;
    params[i] = mn_param(s, p->name, p->shape, p->init, p->flags, p->help);
    sums[i] = sum_of(t, g, parts, i);
  }
  x->params = params;
  x->grads = sums;
  mn_parts_no_states(parts);
  update(t, s, parts);
  for (int i = 0; i < n; i++)
    if (sums[i]) mn_parts_assign(parts, sums[i], mn_zeros_like(g, sums[i]));
  return MN_OK;
}

static mn_status build(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  mn_trainer *t = ctx;
  mn_graph *g = mn_scope_graph(s);
  *t->graph = (mn_step_graph){0};
  if (form->what == MN_STEP_DECLARE) return judge(t, s);
  if (form->what == MN_STEP_UPDATE) return update_from_sums(t, s, parts);
  MN_TRY(differentiate(t, s, parts));
  if (form->what == MN_STEP_LOOK) return mn_diagnose_give(t, parts);
  give_losses(t, parts);
  if (form->what == MN_STEP_WHOLE) update(t, s, parts);
  else MN_TRY(add_up(t, g, parts));
  return move_buffers(t, parts);
}

/* What of a graph is nobody's feed, parameter or state: moments and teachers. */
static void bind(void *ctx, mn_plan *plan) {
  const mn_trainer *t = ctx;
  if (t->graph->update.rate) mn_optimizer_bind(t->optimizer, &t->graph->update, plan);
  mn_teachers_bind(&t->teachers, &t->graph->judged, plan);
}

static mn_form form_of(const mn_trainer *t, int what) {
  const mn_train_config *c = &t->recipe->train;
  return (mn_form){
      .batch = c->batch, .length = c->seq_len, .multiple = c->carry_state ? c->seq_len : 1, .what = what, .resets = c->carry_state};
}

mn_status mn_trainer_enter(mn_trainer *t, int what, mn_routine **out) {
  const mn_form form = form_of(t, what);
  mn_step_graph x = {0};
  t->graph = &x;
  mn_status status = mn_program_enter(t->program, &form, out);
  t->graph = NULL;
  return status;
}

static mn_status compile(mn_trainer *t, int what, mn_routine **out) {
  MN_TRY(mn_trainer_enter(t, what, out));
  mn_program_leave(t->program);
  return MN_OK;
}

/* Parameters that only the step has, such as the head of an auxiliary loss. */
static mn_status learn_params(void *ctx, const mn_scope *s) {
  mn_trainer *t = ctx;
  return mn_params_extend(t->params, s, (uint64_t)t->recipe->seed);
}

mn_status mn_trainer_open_program(mn_trainer *t) {
  const mn_train_config *c = &t->recipe->train;
  const mn_program_config config = {
      .backend = t->backend,
      .params = t->params,
      .build = {.param = MN_F32,
                .compute = mn_precision_type(c->precision),
                .carried = c->carry_state,
                .training = true,
                .seed = (uint64_t)t->recipe->seed},
      .builder = build,
      .bound = bind,
      .ctx = t,
      .activations = (mn_activation_policy)c->activations,
      .put_back = true,
  };
  const mn_form form = form_of(t, MN_STEP_DECLARE);
  mn_step_graph x;
  MN_TRY(mn_program_new(&config, &t->program));
  t->graph = &x;
  mn_status status = mn_program_look(t->program, &form, learn_params, t);
  t->graph = NULL;
  return status;
}

mn_status mn_trainer_compile(mn_trainer *t) {
  const mn_train_config *c = &t->recipe->train;
  mn_routine *other;
  const bool adds = c->accumulate > 1;
  MN_TRY(compile(t, adds ? MN_STEP_ADD : MN_STEP_WHOLE, &t->step));
  if (adds) MN_TRY(compile(t, MN_STEP_UPDATE, &other));
  if (c->carry_state) MN_TRY(mn_program_blank(t->program, c->batch, &t->carried));
  return c->carry_state ? mn_program_blank(t->program, c->batch, &t->before) : MN_OK;
}
