/* trainer.c - all that a training needs, opened and closed: tokenizer, source, model, parameters, and of each stage the program of its
 * step (step_graph.c), which step.c runs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "format/json.h"
#include "format/seal.h"
#include "train/recipe_stages.h"
#include "train/trainer_internal.h"

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
  const mn_param_info *largest = NULL;
  for (int i = 0, n = status == MN_OK ? mn_scope_params(s, &info, NULL) : 0; i < n; i++) {
    count += (double)mn_shape_count(&info[i].shape);
    if (!largest || mn_shape_count(&info[i].shape) > mn_shape_count(&largest->shape)) largest = &info[i];
  }
  char text[96];
  double has = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
  if (status == MN_OK && 16 * count > has)
    status = mn_fail(MN_ERR_MEMORY,
                     "the model has %.3g parameters, and training them needs more than %.0f GiB; this machine has %.0f GiB: lower "
                     "model.d_model, model.layers, vocab_size, or what makes the largest of them, %s %s",
                     count, 16 * count / gib, has / gib, largest->name, mn_shape_str(&largest->shape, text));
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

/* What whoever uses the model must know of the data it was trained on. Stages that differ in it leave nothing to be said. */
static mn_status say_reads(mn_trainer *t, const mn_source *source, bool first) {
  mn_model *m = t->model;
  const mn_value *reads = source->def->reads ? source->def->reads(source, m->arena) : NULL;
  if (source->def->reads && !reads) return MN_ERR_MEMORY;
  m->reads = first || mn_value_equal(m->reads, reads) ? reads : NULL;
  if (!m->reads || !first) return MN_OK;
  const mn_value *root = mn_model_to_config(m->arena, m); /* before a training whose model nobody could open */
  return !root ? MN_ERR_MEMORY
               : mn_context(mn_json_try("config.json", root),
                            "data.type %s: the trained model keeps what its columns or classes are called, and "
                            "these are too many, or have names that are too long",
                            source->def->name);
}

/* ---- stages: what each has of its own ---- */

/* A single pair that is held out has none to be told apart from, which would be found at the end. */
static mn_status check_pairs(const mn_recipe *r, const mn_source *source) {
  const bool one = source->rows == 2 && source->def->count && source->def->count(source, MN_SPLIT_VALIDATION) == 1;
  for (int k = 0; one && k < r->objectives.n; k++)
    if (r->objectives.list[k].def->pairs)
      return mn_value_fail(
          r->objective ? r->objective : r->model,
          "data.validation holds out one pair, and objective %s tells a pair apart from others: hold out two or more, or none "
          "(0)",
          r->objectives.list[k].def->name);
  return MN_OK;
}

static mn_status check_data(const mn_trainer *t, const mn_recipe *r, mn_source *source) {
  const mn_train_config *c = &r->train;
  (void)t;
  MN_TRY(mn_source_check(source, MN_SPLIT_TRAIN, c->batch, c->seq_len));
  MN_TRY(check_pairs(r, source));
  return c->validate_every ? mn_source_check(source, MN_SPLIT_VALIDATION, c->batch, c->seq_len) : MN_OK;
}

static mn_status match(const mn_trainer *t, const mn_recipe *r, mn_source *source) {
  const mn_model *m = t->model;
  mn_batch layout;
  if (m->def->trunk == MN_TRUNK_TOKENS && m->config.vocab_size && source->vocab_size > m->config.vocab_size)
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
  return mn_at_objective(r, mn_teachers_open(&r->objectives, t->model, t->backend, tokenizer, out));
}

/* A mistake in a later stage is found before the first one begins. */
static mn_status check_later_stages(mn_trainer *t) {
  for (int i = 1; i < t->whole->n_stages; i++) {
    const mn_recipe *r = t->whole->stages[i].recipe;
    mn_source *source;
    mn_status status = mn_source_open(&r->source, t->tok, &t->watch, &source);
    if (status == MN_OK) status = check_data(t, r, source);
    if (status == MN_OK) status = match(t, r, source);
    if (status == MN_OK) status = say_reads(t, source, false);
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
  MN_TRY(mn_trainer_open_program(t));
  MN_TRY(mn_optimizer_new(&c->optimizer, &c->groups, t->params, &t->optimizer));
  MN_TRY(mn_trainer_compile(t));
  mn_release_free_memory();
  t->state.optimizer = t->optimizer;
  t->state.carried = t->carried;
  mn_source_hash(t->source, t->state.data_hash);
  return mn_teachers_hash(&t->teachers, t->state.data_hash);
}

static void close_stage(mn_trainer *t) {
  mn_evaluator_free(t->evaluator);
  mn_program_free(t->program);
  mn_states_free(t->carried);
  mn_states_free(t->before);
  mn_buffers_free(&t->moved);
  mn_optimizer_free(t->optimizer);
  if (t->params) mn_params_shrink(t->params);
  for (int64_t a = 0; t->batches && a < t->recipe->train.accumulate; a++) mn_batch_free(&t->batches[a]);
  free(t->batches);
  for (int k = 0; k < MN_OBJECTIVES; k++) free(t->weight[k]), t->weight[k] = NULL;
  mn_source_close(t->source);
  mn_teachers_close(&t->teachers);
  t->evaluator = NULL;
  t->program = NULL;
  t->step = NULL;
  t->carried = t->before = NULL;
  t->moved = (mn_buffers){0};
  t->optimizer = NULL;
  t->state.optimizer = NULL;
  t->state.carried = NULL;
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
  MN_TRY(mn_source_open(&t->recipe->source, t->tok, &t->watch, &t->source));
  t->state.watch = (mn_loss_watch){0};
  memset(t->unasked, 0, sizeof t->unasked);
  MN_TRY(mn_context(build_stage(t), "stages[%d]", i));
  memcpy(t->params->origin.data, t->state.data_hash, sizeof t->params->origin.data);
  return MN_OK;
}

mn_status mn_trainer_at(mn_trainer *t, int64_t step) {
  int i = mn_stage_of(t->whole, step);
  return i == t->stage ? MN_OK : enter_stage(t, i);
}

int mn_trainer_stage(const mn_trainer *t) { return t->stage; }

/* Ids of a file that has no tokenizer: what is too large is named by its field. */
static mn_status check_ids(const mn_recipe *r, const mn_source *s) {
  const mn_value *v = s->vocab_field ? mn_value_get(r->model, "vocab_size") : NULL;
  if (!v || v->kind != MN_INTEGER || v->as.integer < 1 || v->as.integer >= s->vocab_size) return MN_OK;
  return mn_value_fail(v, "data.%s holds %lld, and model.vocab_size is %lld: ids are from 0 to %lld", s->vocab_field,
                       (long long)s->vocab_size - 1, (long long)v->as.integer, (long long)v->as.integer - 1);
}

/* ---- opening all ---- */

static mn_status open_parts(mn_trainer *t, const char *saved_tokenizer) {
  const mn_recipe *r = t->recipe;
  mn_model *early; /* a mistake in the model should not be found after minutes of tokenising */
  MN_TRY(mn_recipe_model(r, 1, &early));
  mn_model_free(early);
  char *kept = NULL;
  mn_status status = kept_tokenizer(t, saved_tokenizer, &kept);
  if (status == MN_OK) status = mn_recipe_tokenizer(r, kept, &t->watch, &t->tok);
  free(kept);
  MN_TRY(status);
  MN_TRY(mn_source_open(&r->source, t->tok, &t->watch, &t->source));
  mn_source_hash(t->source, t->run_data);
  MN_TRY(check_data(t, r, t->source));
  MN_TRY(check_ids(r, t->source));
  MN_TRY(mn_recipe_model(r, t->source->vocab_size, &t->model));
  MN_TRY(match(t, r, t->source));
  MN_TRY(say_reads(t, t->source, true));
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

static mn_status open_trainer(const mn_recipe *recipe, bool goes_on, int threads, const char *saved_tokenizer, const mn_watch *watch,
                              mn_trainer **out) {
  *out = NULL;
  mn_trainer *t = mn_calloc(1, sizeof *t);
  if (!t) return MN_ERR_MEMORY;
  *t = (mn_trainer){.whole = recipe, .goes_on = goes_on, .threads = threads};
  if (watch) t->watch = *watch;
  choose_stage(t, 0);
  mn_status status = open_parts(t, saved_tokenizer);
  if (status != MN_OK) mn_trainer_free(t);
  else *out = t;
  return status;
}

mn_status mn_trainer_new(const mn_recipe *recipe, int threads, const char *saved_tokenizer, const mn_watch *watch, mn_trainer **out) {
  return open_trainer(recipe, false, threads, saved_tokenizer, watch, out);
}

mn_status mn_trainer_reopen(const mn_recipe *recipe, int threads, const char *saved_tokenizer, const mn_watch *watch, mn_trainer **out) {
  return open_trainer(recipe, true, threads, saved_tokenizer, watch, out);
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

mn_status mn_trainer_validate(mn_trainer *t, const mn_watch *watch, mn_evaluation *out) {
  const mn_train_config *c = &t->recipe->train;
  *out = (mn_evaluation){0};
  if (mn_source_check(t->source, MN_SPLIT_VALIDATION, c->batch, c->seq_len) != MN_OK) return MN_OK;
  mn_evaluator_config how = {.batch = c->batch,
                             .seq_len = c->seq_len,
                             .compute = mn_precision_type(c->precision),
                             .carry_state = c->carry_state,
                             .seed = (uint64_t)t->recipe->seed,
                             .teachers = &t->teachers};
  if (!t->evaluator) MN_TRY(mn_evaluator_new(t->model, t->params, t->source, &t->recipe->objectives, &how, &t->evaluator));
  return mn_evaluate(t->evaluator, MN_SPLIT_VALIDATION, c->validation_batches, watch, out);
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
const mn_plan *mn_trainer_plan(const mn_trainer *t) { return mn_routine_plan(t->step); }
const mn_source *mn_trainer_source(const mn_trainer *t) { return t->source; }
