/* params.c - the parameters' memory: made and initialised once, bound to any number of plans, saved and loaded. */
#include "model/model.h"

#include "backend/ref/element.h"
#include "base/file.h"
#include "format/json.h"
#include "format/safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double initial_value(const mn_param_info *p, uint64_t key, int64_t i) {
  const mn_init *t = &p->init;
  switch (t->kind) {
  case MN_INIT_CONSTANT:
    return t->a;
  case MN_INIT_NORMAL:
    return t->a * mn_random_normal(key, 0, (uint64_t)i);
  case MN_INIT_UNIFORM:
    return t->a * (2 * mn_random_uniform(key, 0, (uint64_t)i) - 1);
  case MN_INIT_XAVIER_UNIFORM: {
    int n = p->shape.ndim;
    double fan = n >= 2 ? (double)(p->shape.dim[n - 1] + p->shape.dim[n - 2]) : 2.0 * (double)mn_shape_count(&p->shape);
    return t->a * sqrt(6 / fan) * (2 * mn_random_uniform(key, 0, (uint64_t)i) - 1);
  }
  case MN_INIT_LOG_UNIFORM:
    return log(t->a + (t->b - t->a) * mn_random_uniform(key, 0, (uint64_t)i));
  case MN_INIT_TIME_STEP: {
    double dt = exp(log(t->a) + (log(t->b) - log(t->a)) * mn_random_uniform(key, 0, (uint64_t)i));
    return dt + log(-expm1(-dt)); /* the inverse of softplus */
  }
  }
  return 0;
}

static size_t param_bytes(const mn_params *p, int i) { return (size_t)mn_shape_count(&p->info[i].shape) * mn_dtype_size(p->dtype); }

static mn_status fill(mn_params *p, uint64_t seed) {
  for (int i = 0; i < p->n; i++) {
    int64_t n = mn_shape_count(&p->info[i].shape);
    uint64_t key = mn_random_key(seed, p->info[i].name);
    void *host = mn_alloc(param_bytes(p, i));
    if (!host) return MN_ERR_MEMORY;
    for (int64_t k = 0; k < n; k++) mn_element_store(host, p->dtype, k, initial_value(&p->info[i], key, k));
    mn_status status = p->backend->upload(p->backend, p->data[i], host, param_bytes(p, i));
    free(host);
    MN_TRY(status);
  }
  return MN_OK;
}

mn_status mn_params_of_scope(const mn_scope *s, mn_backend *b, mn_dtype dtype, uint64_t seed, mn_params **out) {
  const mn_param_info *info;
  *out = NULL;
  mn_params *p = mn_calloc(1, sizeof *p);
  if (!p) return MN_ERR_MEMORY;
  int n = mn_scope_params(s, &info, NULL);
  *p = (mn_params){.backend = b, .arena = mn_arena_new(), .dtype = dtype};
  if (p->arena) {
    p->info = mn_arena_alloc(p->arena, (size_t)(n + 1) * sizeof *p->info);
    p->data = mn_arena_alloc(p->arena, (size_t)(n + 1) * sizeof *p->data);
  }
  mn_status status = p->arena && p->info && p->data ? MN_OK : MN_ERR_MEMORY;
  for (int i = 0; i < n && status == MN_OK; i++) {
    p->info[i] = info[i];
    p->info[i].name = mn_arena_strdup(p->arena, info[i].name);
    p->info[i].help = mn_arena_strdup(p->arena, info[i].help ? info[i].help : "");
    p->n = i + 1;
    p->data[i] = p->info[i].name && p->info[i].help ? b->alloc(b, param_bytes(p, i)) : NULL;
    if (!p->data[i]) status = mn_context(MN_ERR_MEMORY, "parameter %s", info[i].name);
  }
  if (status == MN_OK) status = fill(p, seed);
  if (status != MN_OK) mn_params_free(p);
  else *out = p;
  return status;
}

mn_status mn_params_new(const mn_model *m, mn_backend *b, mn_dtype dtype, uint64_t seed, mn_params **out) {
  mn_graph *g = mn_graph_new(); /* built once over one token, to learn the names */
  if (!g) return MN_ERR_MEMORY;
  mn_scope *s = mn_scope_new(g, (mn_build){.param = dtype, .compute = dtype}, 1);
  mn_status status = s ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK) {
    mn_model_hidden(s, m, mn_input(g, "tokens", MN_I32, MN_SHAPE(1, 1)));
    mn_model_head(s, m);
    status = mn_graph_status(g);
  }
  if (status == MN_OK) status = mn_params_of_scope(s, b, dtype, seed, out);
  mn_graph_free(g);
  return status;
}

void mn_params_free(mn_params *p) {
  if (!p) return;
  for (int i = 0; i < p->n; i++)
    if (p->data[i]) p->backend->free(p->backend, p->data[i], param_bytes(p, i));
  mn_arena_free(p->arena);
  free(p);
}

int64_t mn_params_count(const mn_params *p) {
  int64_t n = 0;
  for (int i = 0; i < p->n; i++) n += mn_shape_count(&p->info[i].shape);
  return n;
}

int mn_params_find(const mn_params *p, const char *name) {
  for (int i = 0; i < p->n; i++)
    if (strcmp(p->info[i].name, name) == 0) return i;
  return -1;
}

void mn_params_bind(const mn_params *p, const mn_scope *s, mn_plan *plan) {
  const mn_param_info *info;
  mn_tensor *const *tensors;
  int n = mn_scope_params(s, &info, &tensors);
  for (int i = 0; i < n; i++) {
    int k = mn_params_find(p, info[i].name);
    if (k >= 0) mn_plan_bind(plan, tensors[i], p->data[k]);
  }
}

static mn_status on_host(const mn_params *p, int i, void **host) {
  *host = mn_alloc(param_bytes(p, i));
  return *host ? p->backend->download(p->backend, *host, p->data[i], param_bytes(p, i)) : MN_ERR_MEMORY;
}

mn_status mn_params_check_finite(const mn_params *p) {
  for (int i = 0; i < p->n; i++) {
    void *host;
    MN_TRY(on_host(p, i, &host));
    int64_t n = mn_shape_count(&p->info[i].shape), k = 0;
    while (k < n && isfinite(mn_element_load(host, p->dtype, k))) k++;
    free(host);
    if (k < n) return mn_fail(MN_ERR_NUMERIC, "parameter %s is not finite (element %lld)", p->info[i].name, (long long)k);
  }
  return MN_OK;
}

/* ---- files ---- */
static mn_status source(void *ctx, size_t offset, size_t n, void *dst) {
  const void **pair = ctx;
  mn_backend *b = (mn_backend *)pair[0];
  return b->download(b, dst, (const char *)pair[1] + offset, n);
}

mn_status mn_params_save(const mn_params *p, const char *path) {
  mn_st_writer *w = mn_st_writer_new();
  const void **pairs = mn_alloc((size_t)(2 * p->n + 1) * sizeof *pairs);
  mn_status status = w && pairs ? mn_st_writer_meta(w, "format", "mneme") : MN_ERR_MEMORY;
  for (int i = 0; i < p->n && status == MN_OK; i++) {
    pairs[2 * i] = p->backend;
    pairs[2 * i + 1] = p->data[i];
    status = mn_st_writer_add_source(w, p->info[i].name, p->dtype, &p->info[i].shape, source, &pairs[2 * i]);
  }
  if (status == MN_OK) status = mn_st_writer_save(w, path);
  mn_st_writer_free(w);
  free(pairs);
  return status;
}

mn_status mn_params_load(mn_params *p, const char *path) {
  mn_st *st;
  MN_TRY(mn_st_open(path, &st));
  mn_status status = MN_OK;
  for (int i = 0; i < mn_st_count(st) && status == MN_OK; i++)
    if (mn_params_find(p, mn_st_at(st, i)->name) < 0)
      status = mn_fail(MN_ERR_FORMAT, "%s: tensor '%s' is not a parameter of this model", path, mn_st_at(st, i)->name);
  const mn_st_tensor *t;
  for (int i = 0; i < p->n && status == MN_OK; i++) status = mn_st_need(st, p->info[i].name, &p->info[i].shape, &t);
  for (int i = 0; i < p->n && status == MN_OK; i++) { /* nothing is overwritten before all is known to fit */
    status = mn_st_need(st, p->info[i].name, &p->info[i].shape, &t);
    void *host = status == MN_OK ? mn_alloc(param_bytes(p, i)) : NULL;
    if (status == MN_OK && !host) status = MN_ERR_MEMORY;
    if (status == MN_OK) status = mn_st_read(st, t, p->dtype, host);
    if (status == MN_OK) status = p->backend->upload(p->backend, p->data[i], host, param_bytes(p, i));
    free(host);
  }
  mn_st_close(st);
  return status;
}

mn_status mn_model_save_dir(const mn_model *m, const mn_params *p, const char *dir) {
  mn_arena *arena = mn_arena_new();
  const mn_value *model = arena ? mn_model_to_value(arena, m) : NULL;
  const mn_value *root = model ? mn_value_map(arena, 1, (const char *const[]){"model"}, &model) : NULL;
  char *config = mn_path_join(dir, "config.json"), *weights = mn_path_join(dir, "model.safetensors");
  mn_status status = root && config && weights ? mn_make_dirs(dir) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_params_save(p, weights);
  if (status == MN_OK) status = mn_json_write(config, root);
  free(config);
  free(weights);
  mn_arena_free(arena);
  return status;
}

mn_status mn_model_load_dir(const char *dir, mn_backend *b, mn_dtype dtype, mn_model **model, mn_params **params) {
  *model = NULL;
  *params = NULL;
  char *config = mn_path_join(dir, "config.json"), *weights = mn_path_join(dir, "model.safetensors");
  mn_arena *arena = mn_arena_new();
  const mn_value *root = NULL;
  mn_status status = config && weights && arena ? mn_json_read(arena, config, &root) : MN_ERR_MEMORY;
  if (status == MN_OK && !mn_value_get(root, "model"))
    status = mn_fail(MN_ERR_FORMAT, "%s: has no 'model'; is it a directory made by mneme train?", config);
  if (status == MN_OK) status = mn_model_parse(mn_value_get(root, "model"), NULL, 0, model);
  if (status == MN_OK) status = mn_params_new(*model, b, dtype, 0, params);
  if (status == MN_OK) status = mn_params_load(*params, weights);
  if (status != MN_OK) {
    mn_params_free(*params);
    mn_model_free(*model);
    *params = NULL;
    *model = NULL;
  }
  mn_arena_free(arena);
  free(config);
  free(weights);
  return status;
}

mn_status mn_model_fingerprint(const mn_model *m, const mn_params *p, char hex[33]) {
  mn_arena *arena = mn_arena_new();
  mn_text text = {0};
  const mn_value *v = arena ? mn_model_to_value(arena, m) : NULL;
  mn_status status = v ? mn_value_to_json(v, 0, &text) : MN_ERR_MEMORY;
  for (int i = 0; i < p->n && status == MN_OK; i++) {
    void *host;
    char digest[33], shape[96];
    status = on_host(p, i, &host);
    if (status != MN_OK) break;
    mn_content_hash(host, param_bytes(p, i), digest);
    free(host);
    mn_text_addf(&text, "\n%s %s %s %s", p->info[i].name, mn_dtype_name(p->dtype), mn_shape_str(&p->info[i].shape, shape), digest);
  }
  if (status == MN_OK) status = mn_text_status(&text);
  if (status == MN_OK) mn_content_hash(text.data, text.len, hex);
  mn_text_free(&text);
  mn_arena_free(arena);
  return status;
}
