/* trainer.c - the training step. Forward, backward, clipping and the optimizer are one graph and one plan: what is small
 * (rates, batches) comes in as inputs, what lasts (parameters, moments, carried state) is assigned in place. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "format/seal.h"
#include "train/diagnose.h"
#include "train/recipe_stages.h"
#include "train/trainer_internal.h"

/* ---- building ---- */

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
    MN_TRY(mn_limit_check(&limit, false, 0, segments <= INT64_MAX / c->seq_len ? segments * c->seq_len : INT64_MAX));
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

/* A fault that an objective found, with the place where the recipe asks for it. */
static mn_status at_objective(const mn_recipe *r, mn_status status) {
  const mn_value *v = r->objective;
  bool own = status != MN_OK && v && v->file && !strncmp(mn_message(), "objective", 9);
  if (!own) return status;
  return v->line > 0 ? mn_context(status, "%s:%d", v->file, v->line) : mn_context(status, "%s", v->file);
}

static void list_inputs(mn_step_graph *x, int n_objectives) {
  const mn_judged *j = &x->judged;
  for (int i = 0; i < j->data.n; i++) x->inputs[x->n_inputs++] = j->data.tensor[i];
  for (int k = 0; k < n_objectives; k++) x->inputs[x->n_inputs++] = j->weight[k];
  if (j->reset) x->inputs[x->n_inputs++] = j->reset;
  x->inputs[x->n_inputs++] = x->step;
}

/* Of what moves and is part of the step; others have none. A parameter that the step does not use keeps its value. */
static mn_status gradients(const mn_trainer *t, mn_graph *g, mn_step_graph *x) {
  int n = t->params->n, m = 0;
  mn_tensor **wrt = mn_arena_alloc(g->arena, (size_t)(2 * n + 1) * sizeof *wrt), **d = wrt + n;
  if (!wrt) return MN_ERR_MEMORY;
  for (int k = 0; k < n; k++)
    if (x->params[k] && mn_optimizer_moves(t->optimizer, k)) wrt[m++] = x->params[k];
  if (!m) return mn_value_fail(t->recipe->train.groups_list, "train.groups: every parameter is frozen: there is nothing to train");
  MN_TRY(mn_grad(g, 1, &x->judged.loss, NULL, m, wrt, d));
  for (int k = 0, i = 0; k < n; k++)
    if (x->params[k] && mn_optimizer_moves(t->optimizer, k)) x->grads[k] = d[i++];
  return MN_OK;
}

mn_status mn_trainer_build_gradient(mn_trainer *t, mn_graph *g, mn_step_graph *x) {
  const mn_train_config *c = &t->recipe->train;
  const mn_objectives *o = &t->recipe->objectives;
  *x = (mn_step_graph){.g = g};
  mn_build build = {.param = MN_F32,
                    .compute = c->precision == MN_PRECISION_BF16 ? MN_BF16 : MN_F32,
                    .carried = c->carry_state,
                    .position_multiple = c->seq_len,
                    .training = true,
                    .seed = (uint64_t)t->recipe->seed,
                    .step = x->step = mn_input(g, "step", MN_I64, (mn_shape){0})};
  MN_TRY(at_objective(t->recipe, mn_judge_build(o, &t->teachers, t->model, &t->batches[0], g, build, false, false, &x->judged)));
  mn_scope *s = x->judged.scope;
  if (c->carry_state) MN_TRY(check_streams(t, s));
  add_losses_of_rooms(t, g, x);
  int n = t->params->n;
  const mn_param_info *info;
  mn_tensor *const *tensors;
  int n_built = mn_scope_params(s, &info, &tensors);
  x->params = mn_arena_alloc(g->arena, (size_t)(2 * n + 1) * sizeof *x->params);
  x->inputs = mn_arena_alloc(g->arena, (MN_IO_MAX + MN_OBJECTIVES + 2) * sizeof *x->inputs);
  if (!x->params || !x->inputs) return MN_ERR_MEMORY;
  list_inputs(x, o->n);
  x->grads = x->params + n;
  for (int i = 0; i < n_built; i++) {
    int k = mn_params_find(t->params, info[i].name);
    if (k < 0) return mn_fail(MN_ERR_INTERNAL, "parameter %s appears in the step only", info[i].name);
    x->params[k] = tensors[i];
  }
  MN_TRY(gradients(t, g, x));
  x->n_states = c->carry_state ? mn_scope_states(s, &x->states) : 0;
  x->n_buffers = mn_scope_buffers(s, &x->buffers);
  return MN_OK;
}

/* put_back: the last so many of the n assignments (put_back below) */
static mn_status compile(mn_trainer *t, mn_graph *g, int n_outputs, mn_tensor **outputs, int n, int put_back, mn_tensor **variables,
                         mn_tensor **values, mn_plan **out) {
  MN_TRY(mn_graph_status(g));
  mn_plan_request q = {.graph = g,
                       .n_outputs = n_outputs,
                       .outputs = outputs,
                       .n_assigns = n,
                       .variables = variables,
                       .values = values,
                       .n_put_back = put_back,
                       .backend = t->backend,
                       .activations = (mn_activation_policy)t->recipe->train.activations};
  return mn_plan_compile(&q, out);
}

static mn_status bind_batch(mn_trainer *t, const mn_step_graph *x) {
  mn_params_bind(t->params, x->judged.scope, t->plan);
  mn_teachers_bind(&t->teachers, &x->judged, t->plan);
  for (int i = 0; i < x->n_inputs; i++) MN_TRY(mn_buffers_add(&t->inputs, t->backend, t->plan, x->inputs[i], NULL));
  for (int i = 0; i < x->n_states; i++) MN_TRY(mn_buffers_add(&t->carried, t->backend, t->plan, x->states[i].leaf, NULL));
  for (int i = 0; i < x->n_states; i++) MN_TRY(mn_buffers_add(&t->before, t->backend, NULL, x->states[i].leaf, NULL));
  t->moved_at = mn_arena_alloc(x->g->arena, (size_t)(x->n_buffers + 1) * sizeof *t->moved_at);
  if (!t->moved_at) return MN_ERR_MEMORY;
  for (int i = 0; i < x->n_buffers; i++) {
    if (x->buffers[i].value == x->buffers[i].leaf) continue;
    t->moved_at[t->moved.n] = mn_params_find(t->params, x->buffers[i].info.name);
    if (t->moved_at[t->moved.n] < 0) return mn_fail(MN_ERR_INTERNAL, "buffer %s appears in the step only", x->buffers[i].info.name);
    MN_TRY(mn_buffers_add(&t->moved, t->backend, NULL, x->buffers[i].leaf, NULL));
  }
  return MN_OK;
}

/* What a batch changes besides weights, as assignments number n and on: carried state, and buffers that rooms of the model set. */
static int assign_moved(const mn_step_graph *x, int n, mn_tensor **variables, mn_tensor **values) {
  for (int i = 0; i < x->n_states; i++, n++) variables[n] = x->states[i].leaf, values[n] = x->states[i].value;
  for (int i = 0; i < x->n_buffers; i++) {
    if (x->buffers[i].value == x->buffers[i].leaf) continue;
    variables[n] = x->buffers[i].leaf;
    values[n++] = x->buffers[i].value;
  }
  return n;
}

/* Of several objectives each one's own loss comes out too. Returns how many. */
static int list_parts(const mn_trainer *t, const mn_step_graph *x, mn_tensor **outputs) {
  int n = t->recipe->objectives.n;
  for (int k = 0; k < n && n > 1; k++) outputs[k] = x->judged.verdict[k].loss;
  return n > 1 ? n : 0;
}

static mn_status build_whole(mn_trainer *t) {
  mn_step_graph x;
  mn_update u;
  mn_graph *g = t->graph;
  MN_TRY(mn_trainer_build_gradient(t, g, &x));
  mn_optimizer_build(t->optimizer, g, x.params, x.grads, t->recipe->train.clip_norm, &u);
  MN_TRY(mn_graph_status(g));
  int n = u.n_assigns;
  mn_tensor **variables = mn_arena_alloc(g->arena, (size_t)(n + x.n_states + x.n_buffers + 1) * sizeof *variables);
  mn_tensor **values = mn_arena_alloc(g->arena, (size_t)(n + x.n_states + x.n_buffers + 1) * sizeof *values);
  if (!variables || !values) return MN_ERR_MEMORY;
  memcpy(variables, u.variables, (size_t)n * sizeof *variables);
  memcpy(values, u.values, (size_t)n * sizeof *values);
  n = assign_moved(&x, n, variables, values);
  mn_tensor *outputs[2 + MN_OBJECTIVES] = {x.judged.loss, u.norm};
  MN_TRY(compile(t, g, 2 + list_parts(t, &x, outputs + 2), outputs, n, n - u.n_assigns, variables, values, &t->plan));
  MN_TRY(bind_batch(t, &x));
  mn_optimizer_bind(t->optimizer, &u, t->plan);
  return mn_buffers_add(&t->inputs, t->backend, t->plan, u.rate, &t->in_rate);
}

/* One plan adds a batch's gradients to their sums, another updates from the sums and clears them. */
static mn_status build_accumulating(mn_trainer *t) {
  mn_step_graph x;
  mn_graph *g = t->graph;
  int n = t->params->n;
  MN_TRY(mn_trainer_build_gradient(t, g, &x));
  mn_tensor **lists = mn_arena_alloc(g->arena, (size_t)(2 * (n + x.n_states + x.n_buffers) + n + 1) * sizeof *lists);
  if (!lists) return MN_ERR_MEMORY;
  mn_tensor **variables = lists, **values = lists + n + x.n_states + x.n_buffers;
  int s = 0; /* sums: one for each parameter that moves */
  int *which = mn_arena_alloc(g->arena, (size_t)(n + 1) * sizeof *which);
  if (!which) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) {
    if (!x.grads[i]) continue;
    variables[s] = mn_variable(g, mn_arena_format(g->arena, "sum.%s", t->params->info[i].name), MN_F32, t->params->info[i].shape);
    values[s] = mn_add(g, variables[s], x.grads[i]);
    which[s++] = i;
  }
  const int assigns = assign_moved(&x, s, variables, values);
  mn_tensor *outputs[1 + MN_OBJECTIVES] = {x.judged.loss};
  MN_TRY(compile(t, g, 1 + list_parts(t, &x, outputs + 1), outputs, assigns, assigns, variables, values, &t->plan));
  MN_TRY(bind_batch(t, &x));
  for (int i = 0; i < s; i++) MN_TRY(mn_buffers_add(&t->sums, t->backend, t->plan, variables[i], NULL));

  mn_graph *h = t->update_graph = mn_graph_new();
  if (!h) return MN_ERR_MEMORY;
  mn_update u;
  mn_tensor **params = mn_arena_alloc(h->arena, (size_t)(2 * n + 1) * sizeof *params), **sums = params + n;
  if (!params) return MN_ERR_MEMORY;
  for (int k = 0; k < s; k++) {
    int i = which[k];
    params[i] = mn_variable(h, t->params->info[i].name, MN_F32, t->params->info[i].shape);
    sums[i] = mn_variable(h, t->sums.list[k].name, MN_F32, t->params->info[i].shape);
  }
  mn_optimizer_build(t->optimizer, h, params, sums, t->recipe->train.clip_norm, &u);
  MN_TRY(mn_graph_status(h));
  int m = u.n_assigns;
  variables = mn_arena_alloc(h->arena, (size_t)(2 * (m + s) + 1) * sizeof *variables);
  if (!variables) return MN_ERR_MEMORY;
  values = variables + m + s;
  memcpy(variables, u.variables, (size_t)m * sizeof *variables);
  memcpy(values, u.values, (size_t)m * sizeof *values);
  for (int k = 0; k < s; k++, m++) variables[m] = sums[which[k]], values[m] = mn_zeros_like(h, sums[which[k]]);
  MN_TRY(compile(t, h, 1, &u.norm, m, 0, variables, values, &t->update_plan));
  mn_optimizer_bind(t->optimizer, &u, t->update_plan);
  for (int k = 0; k < s; k++) {
    mn_plan_bind(t->update_plan, params[which[k]], t->params->data[which[k]]);
    mn_plan_bind(t->update_plan, sums[which[k]], t->sums.list[k].data);
  }
  return mn_buffers_add(&t->inputs, t->backend, t->update_plan, u.rate, &t->in_rate);
}

/* ---- opening ---- */

/* Parameter, gradient and two moments: what no plan can do without. Refused here, it is a message and not a killed process. */
static mn_status check_memory(const mn_model *m) {
  mn_graph *g = mn_graph_new();
  mn_scope *s = g ? mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32}, 1) : NULL;
  mn_status status = s ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK) {
    mn_model_declare(s, m);
    status = mn_graph_status(g);
  }
  const mn_param_info *info;
  double count = 0, gib = 1024.0 * 1024 * 1024;
  for (int i = 0, n = status == MN_OK ? mn_scope_params(s, &info, NULL) : 0; i < n; i++) count += (double)mn_shape_count(&info[i].shape);
  double has = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
  if (status == MN_OK && 16 * count > has)
    status = mn_fail(MN_ERR_MEMORY,
                     "the model has %.3g parameters, and training them needs more than %.0f GiB; this machine has %.0f GiB: lower "
                     "model.d_model, model.layers or vocab_size",
                     count, 16 * count / gib, has / gib);
  mn_graph_free(g);
  return status;
}

/* What is written beside the weights. */
static mn_status say_origin(mn_trainer *t) {
  mn_origin *o = &t->params->origin;
  const mn_value *config = mn_model_to_config(t->arena, t->model);
  if (!config) return MN_ERR_MEMORY;
  MN_TRY(mn_value_hash(config, o->config));
  MN_TRY(mn_recipe_hash(t->state.recipe, o->recipe));
  if (t->tok) mn_tokenizer_hash(t->tok, o->tokenizer);
  memcpy(o->data, t->state.data_hash, sizeof o->data);
  o->run = t->recipe->name;
  return MN_OK;
}

/* The tokenizer to keep to: that of the run that goes on, or of the model that this one begins with. malloc'ed; NULL: none. */
static mn_status kept_tokenizer(const mn_trainer *t, const char *saved, char **out) {
  const char *from = t->recipe->init.from ? t->recipe->init.from : t->recipe->train.from;
  const char *key = t->recipe->init.from ? "init.from" : "train.from";
  *out = saved ? mn_strdup(saved) : from ? mn_path_join(from, "tokenizer.json") : NULL;
  if ((saved || from) && !*out) return MN_ERR_MEMORY;
  if (saved || !from) return MN_OK;
  mn_file_info info;
  MN_TRY(mn_file_stat(from, &info));
  if (!info.is_dir) return mn_fail(MN_ERR_CONFIG, "%s: %s is not the directory of a trained model", key, from);
  if (mn_file_exists(*out)) return MN_OK;
  free(*out);
  *out = NULL;
  return MN_OK;
}

static mn_status first_values(mn_trainer *t) {
  const char *from = t->recipe->train.from;
  if (t->recipe->init.from) return mn_init_load(&t->recipe->init, t->params, (uint64_t)t->recipe->seed, &t->drawn);
  if (!from) return mn_params_draw(t->params, (uint64_t)t->recipe->seed);
  char *path = mn_path_join(from, "model.safetensors");
  mn_status status = path ? mn_params_load(t->params, path) : MN_ERR_MEMORY;
  free(path);
  return mn_context(status, "train.from");
}

static mn_status make_batches(mn_trainer *t) {
  const mn_train_config *c = &t->recipe->train;
  const mn_objectives *o = &t->recipe->objectives;
  t->batches = mn_calloc((size_t)c->accumulate, sizeof *t->batches);
  if (!t->batches) return MN_ERR_MEMORY;
  for (int64_t a = 0; a < c->accumulate; a++) MN_TRY(mn_batch_new(t->source, c->batch, c->seq_len, &t->batches[a]));
  for (int k = 0; k < o->n; k++) {
    t->weight[k] = mn_alloc((size_t)mn_objective_units(&o->list[k], &t->batches[0]) * sizeof(float));
    if (!t->weight[k]) return MN_ERR_MEMORY;
  }
  return MN_OK;
}

/* ---- stages: what each has of its own ---- */

static mn_status check_data(const mn_trainer *t, const mn_recipe *r, mn_source *source) {
  const mn_train_config *c = &r->train;
  (void)t;
  MN_TRY(mn_source_check(source, MN_SPLIT_TRAIN, c->batch, c->seq_len));
  return c->validate_every ? mn_source_check(source, MN_SPLIT_VALIDATION, c->batch, c->seq_len) : MN_OK;
}

static mn_status match(const mn_trainer *t, const mn_recipe *r, mn_source *source) {
  const mn_model *m = t->model;
  mn_batch layout;
  if (m->def->trunk == MN_TRUNK_TOKENS && source->vocab_size > m->config.vocab_size)
    return mn_fail(MN_ERR_CONFIG, "the data has %lld tokens, and the model %lld: a stage cannot change the model's shape",
                   (long long)source->vocab_size, (long long)m->config.vocab_size);
  MN_TRY(mn_batch_new(source, r->train.batch, r->train.seq_len, &layout));
  mn_status status = mn_objectives_match(&r->objectives, r->objective ? r->objective : r->model, m, source, &layout);
  mn_batch_free(&layout);
  return status;
}

static mn_status open_teachers(const mn_trainer *t, const mn_recipe *r, mn_teachers *out) {
  char tokenizer[33] = "";
  if (t->tok) mn_tokenizer_hash(t->tok, tokenizer);
  return at_objective(r, mn_teachers_open(&r->objectives, t->model, t->backend, tokenizer, out));
}

/* A mistake in a later stage is found before the first one begins. */
static mn_status check_later_stages(mn_trainer *t) {
  for (int i = 1; i < t->whole->n_stages; i++) {
    const mn_recipe *r = t->whole->stages[i].recipe;
    mn_source *source;
    mn_status status = mn_source_open(&r->source, t->tok, t->progress, t->progress_ctx, &source);
    if (status == MN_OK) status = check_data(t, r, source);
    if (status == MN_OK) status = match(t, r, source);
    mn_teachers teachers = {0};
    if (status == MN_OK) status = open_teachers(t, r, &teachers);
    mn_teachers_close(&teachers);
    mn_optimizer *o = NULL;
    if (status == MN_OK) status = mn_optimizer_new(&r->train.optimizer, &r->train.groups, t->params, &o);
    mn_optimizer_free(o);
    mn_source_close(source);
    MN_TRY(mn_context(status, "stages[%d]", i));
  }
  return MN_OK;
}

/* The stage's graphs and memory, over its source, which is open. */
static mn_status build_stage(mn_trainer *t) {
  const mn_train_config *c = &t->recipe->train;
  MN_TRY(make_batches(t));
  MN_TRY(open_teachers(t, t->recipe, &t->teachers));
  MN_TRY(mn_optimizer_new(&c->optimizer, &c->groups, t->params, &t->optimizer));
  t->graph = mn_graph_new();
  if (!t->graph) return MN_ERR_MEMORY;
  MN_TRY(c->accumulate > 1 ? build_accumulating(t) : build_whole(t));
  mn_release_free_memory();
  t->state.optimizer = t->optimizer;
  t->state.carried = &t->carried;
  mn_source_hash(t->source, t->state.data_hash);
  return mn_teachers_hash(&t->teachers, t->state.data_hash);
}

static void close_stage(mn_trainer *t) {
  mn_evaluator_free(t->evaluator);
  mn_plan_free(t->plan);
  mn_plan_free(t->update_plan);
  mn_buffers_free(&t->inputs);
  mn_buffers_free(&t->sums);
  mn_buffers_free(&t->carried);
  mn_buffers_free(&t->before);
  mn_buffers_free(&t->moved);
  if (t->graph) mn_graph_free(t->graph);
  if (t->update_graph) mn_graph_free(t->update_graph);
  mn_optimizer_free(t->optimizer);
  for (int64_t a = 0; t->batches && a < t->recipe->train.accumulate; a++) mn_batch_free(&t->batches[a]);
  free(t->batches);
  for (int k = 0; k < MN_OBJECTIVES; k++) free(t->weight[k]), t->weight[k] = NULL;
  mn_source_close(t->source);
  mn_teachers_close(&t->teachers);
  t->evaluator = NULL;
  t->plan = t->update_plan = NULL;
  t->inputs = t->sums = t->carried = t->before = t->moved = (mn_buffers){0};
  t->graph = t->update_graph = NULL;
  t->optimizer = NULL;
  t->batches = NULL;
  t->source = NULL;
}

static void choose_stage(mn_trainer *t, int i) {
  const mn_recipe *w = t->whole;
  t->stage = i;
  t->recipe = w->n_stages ? w->stages[i].recipe : w;
  t->begin = w->n_stages ? w->stages[i].begin : 0;
}

/* Weights and the count of steps go on; moments, schedule, streams and the judgement of divergence begin anew. */
static mn_status enter_stage(mn_trainer *t, int i) {
  close_stage(t);
  choose_stage(t, i);
  MN_TRY(mn_source_open(&t->recipe->source, t->tok, t->progress, t->progress_ctx, &t->source));
  t->state.watch = (mn_loss_watch){0};
  MN_TRY(mn_context(build_stage(t), "stages[%d]", i));
  memcpy(t->params->origin.data, t->state.data_hash, sizeof t->params->origin.data);
  return MN_OK;
}

mn_status mn_trainer_at(mn_trainer *t, int64_t step) {
  int i = mn_stage_of(t->whole, step);
  return i == t->stage ? MN_OK : enter_stage(t, i);
}

int mn_trainer_stage(const mn_trainer *t) { return t->stage; }

/* ---- opening all ---- */

static mn_status open_parts(mn_trainer *t, const char *saved_tokenizer) {
  const mn_recipe *r = t->recipe;
  mn_model *early; /* a mistake in the model should not be found after minutes of tokenising */
  MN_TRY(mn_recipe_model(r, 1, &early));
  mn_model_free(early);
  char *kept = NULL;
  mn_status status = kept_tokenizer(t, saved_tokenizer, &kept);
  if (status == MN_OK) status = mn_recipe_tokenizer(r, kept, t->progress, t->progress_ctx, &t->tok);
  free(kept);
  MN_TRY(status);
  MN_TRY(mn_source_open(&r->source, t->tok, t->progress, t->progress_ctx, &t->source));
  MN_TRY(check_data(t, r, t->source));
  MN_TRY(mn_recipe_model(r, t->source->vocab_size, &t->model));
  MN_TRY(match(t, r, t->source));
  MN_TRY(check_memory(t->model));
  MN_TRY(mn_backend_open(NULL, t->threads > 0 ? t->threads : (int)r->train.threads, &t->backend));
  MN_TRY(mn_params_declare(t->model, t->backend, MN_F32, &t->params));
  if (!t->goes_on) MN_TRY(first_values(t));
  MN_TRY(check_later_stages(t));
  t->arena = mn_arena_new();
  if (!t->arena) return MN_ERR_MEMORY;
  t->state = (mn_train_state){.params = t->params};
  MN_TRY(build_stage(t));
  t->state.recipe = mn_recipe_to_value(t->arena, t->whole, t->model);
  return t->state.recipe ? say_origin(t) : MN_ERR_MEMORY;
}

static mn_status open_trainer(const mn_recipe *recipe, bool goes_on, int threads, const char *saved_tokenizer, mn_data_progress progress,
                              void *ctx, mn_trainer **out) {
  *out = NULL;
  mn_trainer *t = mn_calloc(1, sizeof *t);
  if (!t) return MN_ERR_MEMORY;
  *t = (mn_trainer){.whole = recipe, .goes_on = goes_on, .threads = threads, .progress = progress, .progress_ctx = ctx};
  choose_stage(t, 0);
  mn_status status = open_parts(t, saved_tokenizer);
  if (status != MN_OK) mn_trainer_free(t);
  else *out = t;
  return status;
}

mn_status mn_trainer_new(const mn_recipe *recipe, int threads, const char *saved_tokenizer, mn_data_progress progress, void *ctx,
                         mn_trainer **out) {
  return open_trainer(recipe, false, threads, saved_tokenizer, progress, ctx, out);
}

mn_status mn_trainer_reopen(const mn_recipe *recipe, int threads, const char *saved_tokenizer, mn_data_progress progress, void *ctx,
                            mn_trainer **out) {
  return open_trainer(recipe, true, threads, saved_tokenizer, progress, ctx, out);
}

void mn_trainer_free(mn_trainer *t) {
  if (!t) return;
  close_stage(t);
  mn_params_free(t->params);
  mn_model_free(t->model);
  mn_tokenizer_free(t->tok);
  if (t->backend) mn_backend_free(t->backend);
  mn_arena_free(t->arena);
  free(t);
}

/* ---- a step ---- */

static mn_status read_scalar(mn_trainer *t, const mn_plan *plan, int j, double *out) {
  float x;
  MN_TRY(t->backend->download(t->backend, &x, mn_plan_output(plan, j)->data, sizeof x));
  *out = (double)x;
  return MN_OK;
}

/* weight[k]: of the units of batch a, so that those of all batches of the update sum to 1. */
static mn_status put_weights(mn_trainer *t, int64_t a, int k, int input) {
  const mn_objective *o = &t->recipe->objectives.list[k];
  double total = 0;
  for (int64_t i = 0; i < t->recipe->train.accumulate; i++) total += mn_objective_weights(o, &t->batches[i], t->weight[k]);
  if (a + 1 < t->recipe->train.accumulate) mn_objective_weights(o, &t->batches[a], t->weight[k]);
  for (int64_t i = 0, n = mn_objective_units(o, &t->batches[a]); i < n; i++)
    t->weight[k][i] = total > 0 ? (float)(t->weight[k][i] / total) : 0;
  return mn_buffers_put(&t->inputs, input, t->weight[k]);
}

/* The plan's inputs are the batch's fields by name, and the weights of the objectives. */
mn_status mn_trainer_put_batch(mn_trainer *t, int64_t a) {
  int k = 0;
  for (int i = 0; i < t->inputs.n; i++) {
    if (i == t->in_rate) continue;
    const char *name = t->inputs.list[i].name;
    int64_t step = t->state.step * t->recipe->train.accumulate + a;
    void *data = strcmp(name, "step") ? mn_batch_get(&t->batches[a], name) : &step;
    MN_TRY(data ? mn_buffers_put(&t->inputs, i, data) : put_weights(t, a, k++, i));
  }
  return MN_OK;
}

static mn_status run_batch(mn_trainer *t, int64_t a, mn_step_result *out) {
  MN_TRY(mn_trainer_put_batch(t, a));
  MN_TRY(mn_plan_run(t->plan));
  double loss, part;
  MN_TRY(read_scalar(t, t->plan, 0, &loss));
  out->loss += loss;
  for (int k = 0; k < out->n_parts; k++) {
    MN_TRY(read_scalar(t, t->plan, (t->update_plan ? 1 : 2) + k, &part));
    out->part[k] += part;
  }
  return MN_OK;
}

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

/* What a step changes before its update, so that it can be looked at again when it fails, and undone when it is left. */
static mn_status keep_before(mn_trainer *t) {
  for (int i = 0; i < t->carried.n; i++)
    MN_TRY(t->backend->copy(t->backend, t->before.list[i].data, t->carried.list[i].data, t->carried.list[i].bytes));
  for (int i = 0; i < t->moved.n; i++)
    MN_TRY(t->backend->copy(t->backend, t->moved.list[i].data, t->params->data[t->moved_at[i]], t->moved.list[i].bytes));
  return MN_OK;
}

static mn_status put_back(mn_trainer *t) {
  for (int i = 0; i < t->carried.n; i++)
    MN_TRY(t->backend->copy(t->backend, t->carried.list[i].data, t->before.list[i].data, t->carried.list[i].bytes));
  for (int i = 0; i < t->moved.n; i++)
    MN_TRY(t->backend->copy(t->backend, t->params->data[t->moved_at[i]], t->moved.list[i].data, t->moved.list[i].bytes));
  for (int i = 0; i < t->sums.n; i++) MN_TRY(t->backend->zero(t->backend, t->sums.list[i].data, t->sums.list[i].bytes));
  return MN_OK;
}

static mn_status take_step(mn_trainer *t, mn_step_result *out) {
  for (int64_t a = 0; a < t->recipe->train.accumulate; a++) MN_TRY(run_batch(t, a, out));
  return t->update_plan ? mn_plan_run(t->update_plan) : MN_OK;
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
  MN_TRY(keep_before(t));
  float rate[3];
  out->learning_rate = c->optimizer.lr * mn_schedule_factor(&c->schedule, done, c->steps);
  mn_optimizer_rate(t->optimizer, out->learning_rate, done + 1, rate);
  MN_TRY(mn_buffers_put(&t->inputs, t->in_rate, rate));
  mn_status status = take_step(t, out);
  if (status == MN_ERR_CANCELLED) MN_TRY(put_back(t));
  if (status != MN_OK) return status;
  MN_TRY(read_scalar(t, t->update_plan ? t->update_plan : t->plan, t->update_plan ? 0 : 1, &out->grad_norm));
  t->state.step++;
  t->state.tokens += c->accumulate * c->batch * c->seq_len;
  if (!isfinite(out->loss) || !isfinite(out->grad_norm)) return not_finite(t, out);
  return check_divergence(t, out->loss);
}

mn_status mn_trainer_validate(mn_trainer *t, const volatile sig_atomic_t *stop, mn_evaluation *out) {
  const mn_train_config *c = &t->recipe->train;
  *out = (mn_evaluation){0};
  if (mn_source_check(t->source, MN_SPLIT_VALIDATION, c->batch, c->seq_len) != MN_OK) return MN_OK;
  mn_evaluator_config how = {.batch = c->batch,
                             .seq_len = c->seq_len,
                             .compute = c->precision == MN_PRECISION_BF16 ? MN_BF16 : MN_F32,
                             .carry_state = c->carry_state,
                             .seed = (uint64_t)t->recipe->seed,
                             .teachers = &t->teachers};
  if (!t->evaluator) MN_TRY(mn_evaluator_new(t->model, t->params, t->source, &t->recipe->objectives, &how, &t->evaluator));
  return mn_evaluate(t->evaluator, MN_SPLIT_VALIDATION, c->validation_batches, stop, out);
}

int64_t mn_trainer_steps_done(const mn_trainer *t) { return t->state.step; }
int64_t mn_trainer_tokens(const mn_trainer *t) { return t->state.tokens; }
const mn_model *mn_trainer_model(const mn_trainer *t) { return t->model; }
mn_params *mn_trainer_params(mn_trainer *t) {
  t->params->origin.step = t->state.step;
  t->params->origin.tokens = t->state.tokens;
  return t->params;
}
const mn_tokenizer *mn_trainer_tokenizer(const mn_trainer *t) { return t->tok; }
const mn_plan *mn_trainer_plan(const mn_trainer *t) { return t->plan; }
const mn_source *mn_trainer_source(const mn_trainer *t) { return t->source; }
