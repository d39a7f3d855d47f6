/* linearize_end.c - what is left after the two trainings of a linearization (linearize.h): the student's matrices are merged, what became
 * of each layer is measured, and the model is written. The teacher's directory is not needed for it: the first training has its weights. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dir.h"
#include "base/file.h"
#include "format/json.h"
#include "run/merge.h"
#include "run/program.h"
#include "train/groups.h"
#include "train/linearize.h"

typedef struct trained { /* one of the two runs */
  mn_recipe *recipe;
  mn_tokenizer *tok;
  mn_source *source;
  mn_model *model;
  mn_params *params;
} trained;

typedef struct ending {
  const char *out_dir;
  const mn_watch *watch;
  mn_arena *arena;
  mn_backend *backend;
  trained match, tune;
  mn_params *start; /* the matching's parameters as the first training began */
  mn_model *model;  /* merged */
  mn_params *params;
  mn_linearized *out;
} ending;

static mn_status open_run(const ending *e, const char *word, trained *t) {
  const char *dir = mn_arena_format(e->arena, "%s/%s", e->out_dir, word), *file = mn_arena_format(e->arena, "%s.json", dir);
  const char *saved = mn_arena_format(e->arena, "%s/tokenizer.json", dir);
  if (!dir || !file || !saved) return MN_ERR_MEMORY;
  MN_TRY(mn_recipe_read(file, NULL, 0, &t->recipe));
  MN_TRY(mn_recipe_tokenizer(t->recipe, mn_file_exists(saved) ? saved : NULL, e->watch, &t->tok));
  MN_TRY(mn_source_open(&t->recipe->source, t->tok, e->watch, &t->source));
  return mn_model_load_dir(dir, e->backend, MN_F32, &t->model, &t->params);
}

static void close_run(trained *t) {
  mn_params_free(t->params);
  mn_model_free(t->model);
  mn_source_close(t->source);
  mn_tokenizer_free(t->tok);
  mn_recipe_free(t->recipe);
}

/* What was trained is as it was drawn, the rest as it still is. */
static mn_status first_values(ending *e) {
  const mn_params *p = e->match.params;
  const mn_param_group **group = mn_calloc((size_t)p->n_all + 1, sizeof *group);
  mn_status status = group ? mn_params_declare(e->match.model, e->backend, MN_F32, &e->start) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_params_draw(e->start, (uint64_t)e->match.recipe->seed);
  if (status == MN_OK) status = mn_groups_assign(&e->match.recipe->train.groups, p->info, p->n, group);
  for (int i = 0; status == MN_OK && i < p->n_all; i++) {
    void *host = NULL;
    if (group[i] && !group[i]->frozen) continue;
    status = mn_params_on_host(p, i, &host);
    if (status == MN_OK) status = e->backend->upload(e->backend, e->start->data[i], host, mn_params_bytes(p, i));
    free(host);
  }
  free(group);
  return status;
}

/* ---- how much of each layer is matched ---- */
typedef struct measuring {
  const mn_model *model;
  mn_sizes sizes;
} measuring;

static mn_status build(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  const measuring *m = ctx;
  static const char *const names[] = {"match_error", "match_size"};
  mn_model_io in, out;
  (void)form;
  mn_model_inputs(s, m->model, m->sizes, MN_INPUTS_NEEDED, &in);
  mn_model_build(s, m->model, &in, &out);
  for (int i = 0; i < in.n; i++) mn_parts_fed(parts, in.tensor[i]);
  for (int i = 0; i < 2; i++) mn_parts_give(parts, names[i], mn_io_get(&out, names[i]));
  return MN_OK;
}

/* sum[0][l], sum[1][l] += squared errors and sizes of one batch; buffer [B T L]. */
static mn_status add_batch(const mn_batch *batch, mn_routine *r, int64_t L, float *buffer, double *sum[2]) {
  for (int k = 0; k < mn_routine_feeds(r); k++) {
    const void *data = mn_batch_get(batch, mn_routine_feed_name(r, k));
    if (!data) return mn_fail(MN_ERR_CONFIG, "the data has no %s to match on", mn_routine_feed_name(r, k));
    MN_TRY(mn_routine_put(r, k, data));
  }
  MN_TRY(mn_routine_run(r, NULL));
  for (int k = 0; k < 2; k++) {
    MN_TRY(mn_routine_get(r, k, 0, batch->rows * batch->T * L, buffer));
    for (int64_t i = 0; i < batch->rows * batch->T * L; i++) sum[k][i % L] += (double)buffer[i];
  }
  return MN_OK;
}

static mn_status measure(const ending *e, const mn_params *p, double *relative, int64_t L) {
  const mn_train_config *c = &e->match.recipe->train;
  measuring m = {e->match.model, {.B = c->batch, .T = c->seq_len, .S = 1}};
  const mn_form form = {.batch = c->batch, .length = c->seq_len, .multiple = 1};
  const mn_program_config how = {.backend = e->backend,
                                 .params = p,
                                 .build = {.param = MN_F32, .compute = mn_precision_type(c->precision)},
                                 .builder = build,
                                 .ctx = &m,
                                 .learn = form};
  double *sum[2] = {mn_calloc((size_t)(2 * L) + 1, sizeof(double)), NULL};
  float *buffer = mn_alloc((size_t)(c->batch * c->seq_len * L) * sizeof *buffer);
  mn_batch batch = {0};
  mn_program *program = NULL;
  mn_routine *r;
  mn_status status = sum[0] && buffer ? mn_batch_new(e->match.source, c->batch, c->seq_len, &batch) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_program_new(&how, &program);
  if (status == MN_OK) status = mn_program_enter(program, &form, &r);
  if (status == MN_OK) {
    int64_t n = mn_source_steps(e->match.source, MN_SPLIT_VALIDATION, c->batch, c->seq_len);
    if (n > c->validation_batches) n = c->validation_batches;
    sum[1] = sum[0] + L;
    for (int64_t i = 0; i < n && status == MN_OK; i++) {
      status = mn_watch_stops(e->watch) ? mn_fail(MN_ERR_CANCELLED, "measuring was interrupted") : MN_OK;
      if (status == MN_OK) status = mn_source_fill(e->match.source, MN_SPLIT_VALIDATION, i, &batch);
      if (status == MN_OK) status = add_batch(&batch, r, L, buffer, sum);
    }
    mn_program_leave(program);
  }
  for (int64_t l = 0; status == MN_OK && l < L; l++) relative[l] = sum[0][l] / sum[1][l];
  mn_program_free(program);
  mn_batch_free(&batch);
  free(sum[0]);
  free(buffer);
  return status;
}

static bool held_out(const trained *t) {
  return mn_source_check(t->source, MN_SPLIT_VALIDATION, t->recipe->train.batch, t->recipe->train.seq_len) == MN_OK;
}

/* Nats per unit of what the second recipe holds out. */
static mn_status loss_of(const ending *e, const mn_model *m, const mn_params *p, double *out) {
  const mn_train_config *c = &e->tune.recipe->train;
  const mn_evaluator_config how = {.batch = c->batch, .seq_len = c->seq_len, .compute = mn_precision_type(c->precision)};
  mn_evaluator *evaluator = NULL;
  mn_evaluation found;
  mn_status status = mn_evaluator_new(m, p, e->tune.source, &e->tune.recipe->objectives, &how, &evaluator);
  if (status == MN_OK) status = mn_evaluate(evaluator, MN_SPLIT_VALIDATION, c->validation_batches, e->watch, &found);
  if (status == MN_OK) *out = found.loss;
  mn_evaluator_free(evaluator);
  return status;
}

/* ---- layers ---- */
static mn_status state_bytes(const mn_model *m, int layers, int64_t *bytes) {
  mn_graph *g = mn_graph_new();
  mn_scope *s = g ? mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32, .carried = true}, 1) : NULL;
  const mn_built_state *states;
  if (s) mn_model_declare(s, m);
  mn_status status = s ? mn_graph_status(g) : MN_ERR_MEMORY;
  for (int i = 0; i < layers; i++) bytes[i] = 0;
  for (int i = 0, n = status == MN_OK ? mn_scope_states(s, &states) : 0; i < n; i++) {
    int layer = 0, end = 0;
    if (sscanf(states[i].info.name, "layers.%d.%n", &layer, &end) == 1 && end && layer >= 0 && layer < layers)
      bytes[layer] += mn_shape_count(&states[i].info.shape) * (int64_t)mn_dtype_size(states[i].info.dtype);
  }
  mn_graph_free(g);
  return status;
}

/* Mean of parameter `name` of a layer's mixer, or the sum of its exponentials; NaN: there is none. */
static mn_status number_of(const ending *e, int layer, const char *name, bool exponentials, double *out) {
  const char *full = mn_arena_format(e->arena, "layers.%d.mixer.%s", layer, name);
  const int i = full ? mn_params_find(e->params, full) : -1;
  void *host = NULL;
  double sum = 0;
  *out = (double)NAN;
  if (!full) return MN_ERR_MEMORY;
  if (i < 0) return MN_OK;
  MN_TRY(mn_params_on_host(e->params, i, &host));
  const int64_t n = mn_shape_count(&e->params->info[i].shape);
  for (int64_t k = 0; k < n; k++) sum += exponentials ? exp((double)((float *)host)[k]) : (double)((float *)host)[k] / (double)n;
  free(host);
  *out = sum;
  return MN_OK;
}

static mn_status describe(ending *e) {
  const mn_model *base = e->match.model->base, *now = e->model;
  const int n = now->stack.n;
  mn_linearized *o = e->out;
  int64_t *bytes = mn_arena_alloc(e->arena, (size_t)(2 * n) * sizeof *bytes), L = 0;
  double *relative = mn_arena_alloc(e->arena, (size_t)(2 * n) * sizeof *relative);
  *o = (mn_linearized){.n = n,
                       .layers = mn_arena_alloc(e->arena, (size_t)n * sizeof *o->layers),
                       .teacher_loss = (double)NAN,
                       .loss = (double)NAN,
                       .merged = o->merged};
  if (!bytes || !relative || !o->layers) return MN_ERR_MEMORY;
  MN_TRY(state_bytes(base, n, bytes));
  MN_TRY(state_bytes(now, n, bytes + n));
  for (int i = 0; i < n; i++) L += strcmp(now->stack.blocks[i].mixer.def->name, base->stack.blocks[i].mixer.def->name) != 0;
  for (int i = 0; i < 2 * n; i++) relative[i] = (double)NAN;
  if (held_out(&e->match)) {
    MN_TRY(measure(e, e->start, relative, L));
    MN_TRY(measure(e, e->match.params, relative + n, L));
  }
  for (int i = 0, at = 0; i < n; i++) {
    mn_linearized_layer *l = &o->layers[i];
    const char *name = now->stack.blocks[i].mixer.def->name;
    const bool converted = strcmp(name, base->stack.blocks[i].mixer.def->name) != 0;
    *l = (mn_linearized_layer){.mixer = name, .converted = converted, .state_before = bytes[i], .state_after = bytes[n + i]};
    l->before = converted ? relative[at] : (double)NAN;
    l->after = converted ? relative[n + at++] : (double)NAN;
    MN_TRY(number_of(e, i, "alpha", false, &l->alpha));
    MN_TRY(number_of(e, i, "meta_logits", true, &l->meta));
  }
  if (!held_out(&e->tune)) return MN_OK;
  MN_TRY(loss_of(e, e->match.model, e->match.params, &o->teacher_loss));
  return loss_of(e, now, e->params, &o->loss);
}

/* ---- writing ---- */
static void number(mn_text *t, const char *key, double x) {
  mn_text_addf(t, ", \"%s\": ", key);
  if (isfinite(x)) mn_json_real(t, x);
  else mn_text_add(t, "null");
}

static mn_status write_report(const ending *e, const char *path) {
  const mn_linearized *o = e->out;
  const mn_value *v = NULL;
  mn_text t = {0};
  mn_text_addf(&t, "{\"merged\": %d", o->merged);
  number(&t, "teacher_loss", o->teacher_loss);
  number(&t, "loss", o->loss);
  mn_text_add(&t, ", \"layers\": [");
  for (int i = 0; i < o->n; i++) {
    const mn_linearized_layer *l = &o->layers[i];
    mn_text_addf(&t, "%s{\"layer\": %d, \"mixer\": \"%s\", \"converted\": %s", i ? ", " : "", i, l->mixer, l->converted ? "true" : "false");
    number(&t, "match_before", l->before);
    number(&t, "match_after", l->after);
    number(&t, "alpha", l->alpha);
    number(&t, "meta", l->meta);
    mn_text_addf(&t, ", \"state_before\": %lld, \"state_after\": %lld}", (long long)l->state_before, (long long)l->state_after);
  }
  mn_text_add(&t, "]}");
  mn_status status = mn_text_status(&t);
  if (status == MN_OK) status = mn_json_parse(e->arena, path, t.data, t.len, &v);
  if (status == MN_OK) status = mn_json_write(path, v);
  mn_text_free(&t);
  return status;
}

/* The second recipe with the merged model in place of its own, which has no groups to train. */
static mn_status recipe_of(const ending *e, const mn_value **out) {
  mn_recipe *r = e->tune.recipe;
  const mn_param_groups groups = r->train.groups;
  r->train.groups = (mn_param_groups){0};
  *out = mn_recipe_to_value(e->arena, r, e->model);
  r->train.groups = groups;
  return *out ? MN_OK : MN_ERR_MEMORY;
}

static mn_status write_model(const ending *e) {
  const mn_value *recipe;
  const char *paths[3];
  static const char *const names[3] = {"recipe.json", "tokenizer.json", "linearize.json"};
  for (int i = 0; i < 3; i++)
    if (!(paths[i] = mn_arena_format(e->arena, "%s/%s", e->out_dir, names[i]))) return MN_ERR_MEMORY;
  MN_TRY(recipe_of(e, &recipe));
  e->params->origin = e->tune.params->origin;
  MN_TRY(mn_recipe_hash(recipe, e->params->origin.recipe));
  if (e->tune.tok) MN_TRY(mn_tokenizer_save(e->tune.tok, paths[1]));
  MN_TRY(mn_json_write(paths[0], recipe));
  MN_TRY(mn_model_save_dir(e->model, e->params, e->out_dir));
  return write_report(e, paths[2]);
}

mn_status mn_linearize_end(const char *out_dir, int threads, const mn_watch *watch, mn_arena *arena, mn_linearized *out) {
  ending e = {.out_dir = out_dir, .watch = watch, .arena = arena, .out = out};
  *out = (mn_linearized){0};
  mn_status status = mn_backend_open(NULL, threads, &e.backend);
  if (status == MN_OK) status = open_run(&e, "match", &e.match);
  if (status == MN_OK) status = open_run(&e, "tune", &e.tune);
  if (status == MN_OK) status = first_values(&e);
  if (status == MN_OK) status = mn_merge_linear(e.tune.model, e.tune.params, &e.model, &e.params, &out->merged);
  if (status == MN_OK) status = describe(&e);
  if (status == MN_OK) status = write_model(&e);
  mn_params_free(e.params);
  mn_model_free(e.model);
  mn_params_free(e.start);
  close_run(&e.match);
  close_run(&e.tune);
  if (e.backend) mn_backend_free(e.backend);
  return status;
}
