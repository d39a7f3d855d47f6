/* params.c - the parameters' memory: made and initialised once, bound to any number of plans, saved and loaded. */
#include "model/model.h"

#include "backend/ref/element.h"
#include "base/file.h"
#include "base/finite.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "format/seal.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
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

static size_t param_bytes(const mn_params *p, int i) { return (size_t)mn_shape_count(&p->info[i].shape) * mn_dtype_size(p->type[i]); }

/* ---- making ---- */

enum { DRAWN = 16384 }; /* elements drawn at a time */

typedef struct drawing {
  mn_params *p;
  uint64_t *key;       /* of each parameter                        */
  int64_t *first;      /* number of its first piece; [n]: of pieces */
  atomic_bool stopped; /* the caller's thread, which works too, was interrupted */
  mn_status *status;   /* [threads] */
} drawing;

static int param_of_piece(const drawing *d, int64_t piece) {
  int low = 0, high = d->p->n_all;
  while (high - low > 1) {
    int middle = low + (high - low) / 2;
    if (d->first[middle] <= piece) low = middle;
    else high = middle;
  }
  return low;
}

static void draw_piece(void *ctx, int64_t piece, int thread) {
  drawing *d = ctx;
  mn_params *p = d->p;
  mn_status *status = &d->status[thread];
  if (mn_stopped()) atomic_store(&d->stopped, true);
  if (*status != MN_OK || atomic_load(&d->stopped)) return;
  int i = param_of_piece(d, piece);
  int64_t begin = (piece - d->first[i]) * DRAWN, n = mn_shape_count(&p->info[i].shape) - begin;
  if (n > DRAWN) n = DRAWN;
  const mn_dtype type = p->type[i];
  size_t size = mn_dtype_size(type);
  void *host = mn_alloc((size_t)n * size);
  if (!host) {
    *status = MN_ERR_MEMORY;
    return;
  }
  for (int64_t k = 0; k < n; k++) mn_element_store(host, type, k, initial_value(&p->info[i], d->key[i], begin + k));
  *status = p->backend->upload(p->backend, (char *)p->data[i] + (size_t)begin * size, host, (size_t)n * size);
  free(host);
}

mn_status mn_params_draw(mn_params *p, uint64_t seed) {
  int threads = mn_pool_threads(p->backend->pool);
  drawing d = {.p = p};
  d.key = mn_alloc((size_t)(p->n_all + 1) * sizeof *d.key);
  d.first = mn_alloc((size_t)(p->n_all + 1) * sizeof *d.first);
  d.status = mn_calloc((size_t)threads, sizeof *d.status);
  mn_status status = d.key && d.first && d.status ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK) {
    d.first[0] = 0;
    for (int i = 0; i < p->n_all; i++) {
      d.key[i] = mn_random_key(seed, p->info[i].name);
      d.first[i + 1] = d.first[i] + (mn_shape_count(&p->info[i].shape) + DRAWN - 1) / DRAWN;
    }
    mn_pool_run(p->backend->pool, d.first[p->n_all], draw_piece, &d);
    for (int k = 0; k < threads && status == MN_OK; k++)
      if (d.status[k] != MN_OK) status = mn_fail(d.status[k], "the parameters' first values could not be drawn: no memory is left");
    if (status == MN_OK) status = mn_stop_check("drawing the parameters' first values");
  }
  free(d.key);
  free(d.first);
  free(d.status);
  return status;
}

/* Tensor i, which is the next: its description copied, memory allocated. */
static mn_status declare(mn_params *p, const mn_param_info *info, mn_dtype type) {
  const int i = p->n_all;
  mn_param_info *to = &p->info[i];
  *to = *info;
  to->name = mn_arena_strdup(p->arena, info->name);
  to->help = mn_arena_strdup(p->arena, info->help ? info->help : "");
  to->copy = info->copy ? mn_arena_strdup(p->arena, info->copy) : NULL;
  if (!to->name || !to->help || (info->copy && !to->copy)) return MN_ERR_MEMORY;
  if (mn_params_find(p, info->name) >= 0) return mn_fail(MN_ERR_INTERNAL, "%s is a parameter and a buffer", info->name);
  p->type[i] = type;
  p->data[i] = p->backend->alloc(p->backend, param_bytes(p, i));
  if (!p->data[i]) return mn_context(MN_ERR_MEMORY, "parameter %s", info->name);
  p->n_all = i + 1;
  return mn_table_put(&p->at, to->name, i);
}

static mn_status declare_all(mn_params *p, const mn_scope *s) {
  const mn_param_info *info;
  const mn_built_buffer *buffers;
  const int n = mn_scope_params(s, &info, NULL), m = mn_scope_buffers(s, &buffers);
  p->info = mn_arena_alloc(p->arena, (size_t)(n + m + 1) * sizeof *p->info);
  p->type = mn_arena_alloc(p->arena, (size_t)(n + m + 1) * sizeof *p->type);
  p->data = mn_arena_alloc(p->arena, (size_t)(n + m + 1) * sizeof *p->data);
  if (!p->info || !p->type || !p->data) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) {
    MN_TRY(declare(p, &info[i], p->dtype));
    p->n = i + 1;
  }
  for (int i = 0; i < m; i++) {
    const mn_buffer_info *b = &buffers[i].info;
    const mn_param_info as = {.name = b->name, .shape = b->shape, .init = {MN_INIT_CONSTANT, b->init, 0}, .help = b->help};
    MN_TRY(declare(p, &as, b->dtype));
  }
  return MN_OK;
}

mn_status mn_params_declare_scope(const mn_scope *s, mn_backend *b, mn_dtype dtype, mn_params **out) {
  *out = NULL;
  mn_params *p = mn_calloc(1, sizeof *p);
  if (!p) return MN_ERR_MEMORY;
  *p = (mn_params){.backend = b, .arena = mn_arena_new(), .dtype = dtype};
  p->at = (mn_table){.arena = p->arena, .names = true};
  mn_status status = p->arena ? declare_all(p, s) : MN_ERR_MEMORY;
  if (status != MN_OK) mn_params_free(p);
  else *out = p;
  return status;
}

mn_status mn_params_declare(const mn_model *m, mn_backend *b, mn_dtype dtype, mn_params **out) {
  mn_graph *g = mn_graph_new(); /* built once as small as can be, to learn the names */
  *out = NULL;
  if (!g) return MN_ERR_MEMORY;
  mn_scope *s = mn_scope_new(g, (mn_build){.param = dtype, .compute = dtype}, 1);
  mn_status status = s ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK) {
    mn_model_declare(s, m);
    status = mn_graph_status(g);
  }
  if (status == MN_OK) status = mn_params_declare_scope(s, b, dtype, out);
  mn_graph_free(g);
  return status;
}

static mn_status drawn(mn_status status, uint64_t seed, mn_params **p) {
  if (status == MN_OK) status = mn_params_draw(*p, seed);
  if (status == MN_OK) return MN_OK;
  mn_params_free(*p);
  *p = NULL;
  return status;
}

mn_status mn_params_new(const mn_model *m, mn_backend *b, mn_dtype dtype, uint64_t seed, mn_params **out) {
  return drawn(mn_params_declare(m, b, dtype, out), seed, out);
}

mn_status mn_params_of_scope(const mn_scope *s, mn_backend *b, mn_dtype dtype, uint64_t seed, mn_params **out) {
  return drawn(mn_params_declare_scope(s, b, dtype, out), seed, out);
}

void mn_params_free(mn_params *p) {
  if (!p) return;
  for (int i = 0; i < p->n_all; i++)
    if (p->data[i]) p->backend->free(p->backend, p->data[i], param_bytes(p, i));
  mn_arena_free(p->arena);
  free(p);
}

int64_t mn_params_count(const mn_params *p) {
  int64_t n = 0;
  for (int i = 0; i < p->n; i++) n += mn_shape_count(&p->info[i].shape);
  return n;
}

int mn_params_find(const mn_params *p, const char *name) { return mn_table_find(&p->at, name, -1); }

void mn_params_bind(const mn_params *p, const mn_scope *s, mn_plan *plan) {
  const mn_param_info *info;
  mn_tensor *const *tensors;
  int n = mn_scope_params(s, &info, &tensors);
  for (int i = 0; i < n; i++) {
    int k = mn_params_find(p, info[i].name);
    if (k >= 0) mn_plan_bind(plan, tensors[i], p->data[k]);
  }
  const mn_built_buffer *buffers;
  n = mn_scope_buffers(s, &buffers);
  for (int i = 0; i < n; i++) {
    int k = mn_params_find(p, buffers[i].info.name);
    if (k >= 0) mn_plan_bind(plan, buffers[i].leaf, p->data[k]);
  }
}

static mn_status on_host(const mn_params *p, int i, void **host) {
  *host = mn_alloc(param_bytes(p, i));
  return *host ? p->backend->download(p->backend, *host, p->data[i], param_bytes(p, i)) : MN_ERR_MEMORY;
}

mn_status mn_params_check_finite(const mn_params *p) {
  for (int i = 0; i < p->n_all; i++) {
    void *host;
    MN_TRY(on_host(p, i, &host));
    int64_t bad = mn_first_not_finite(p->type[i], host, mn_shape_count(&p->info[i].shape));
    if (bad >= 0)
      mn_fail(MN_ERR_NUMERIC, "parameter %s is not finite (element %lld is %s)", p->info[i].name, (long long)bad,
              mn_not_finite_name(p->type[i], host, bad));
    free(host);
    if (bad >= 0) return MN_ERR_NUMERIC;
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
  const void **pairs = mn_alloc((size_t)(2 * p->n_all + 1) * sizeof *pairs);
  mn_status status = w && pairs ? mn_st_writer_meta(w, "format", "mneme") : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_origin_write(&p->origin, w);
  for (int i = 0; i < p->n_all && status == MN_OK; i++) {
    pairs[2 * i] = p->backend;
    pairs[2 * i + 1] = p->data[i];
    status = mn_st_writer_add_source(w, p->info[i].name, p->type[i], &p->info[i].shape, source, &pairs[2 * i]);
  }
  if (status == MN_OK) status = mn_st_writer_save(w, path);
  mn_st_writer_free(w);
  free(pairs);
  return status;
}

/* Every tensor of a file goes from its pages to its place, checked on the way, in as many threads as there are. */
typedef struct reading {
  mn_params *p;
  const mn_st *st;
  const mn_st_tensor **from;
  atomic_bool stopped;
  struct outcome {
    mn_status status;
    char *why; /* a message belongs to its thread */
  } * outcome; /* [n] */
} reading;

typedef struct place {
  mn_backend *backend;
  char *data;
} place;

static mn_status put(void *ctx, size_t offset, size_t n, const void *bytes) {
  const place *x = ctx;
  return x->backend->upload(x->backend, x->data + offset, bytes, n);
}

static void read_one(void *ctx, int64_t i, int thread) {
  reading *r = ctx;
  mn_params *p = r->p;
  (void)thread;
  if (mn_stopped()) atomic_store(&r->stopped, true);
  if (atomic_load(&r->stopped)) return;
  place x = {p->backend, p->data[i]};
  mn_status status = mn_st_read_to(r->st, r->from[i], p->type[i], true, put, &x);
  if (status != MN_OK) r->outcome[i] = (struct outcome){status, mn_strdup(mn_message())};
}

static mn_status read_all(mn_params *p, const mn_st *st, const mn_st_tensor **from) {
  reading r = {.p = p, .st = st, .from = from};
  r.outcome = mn_calloc((size_t)p->n_all + 1, sizeof *r.outcome);
  if (!r.outcome) return MN_ERR_MEMORY;
  mn_pool_run(p->backend->pool, p->n_all, read_one, &r);
  mn_status status = mn_stop_check("reading the weights");
  for (int i = 0; i < p->n_all; i++) {
    if (status == MN_OK && r.outcome[i].status != MN_OK)
      status = mn_fail(r.outcome[i].status, "%s", r.outcome[i].why ? r.outcome[i].why : mn_status_name(r.outcome[i].status));
    free(r.outcome[i].why);
  }
  free(r.outcome);
  return status;
}

/* A tensor that is stored twice, as a tied head is by some programs, must be the same twice. */
static mn_status check_copy(const mn_params *p, int i, const mn_st *st, const mn_st_tensor *first) {
  const mn_st_tensor *copy = p->info[i].copy ? mn_st_find(st, p->info[i].copy) : NULL;
  if (!copy) return MN_OK;
  MN_TRY(mn_st_need(st, copy->name, &p->info[i].shape, &copy));
  size_t bytes = param_bytes(p, i);
  void *a = mn_alloc(bytes), *b = mn_alloc(bytes);
  mn_status status = a && b ? mn_st_read(st, first, p->type[i], a) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_st_read(st, copy, p->type[i], b);
  if (status == MN_OK && memcmp(a, b, bytes) != 0) {
    size_t size = mn_dtype_size(p->type[i]), k = 0;
    while (memcmp((char *)a + k * size, (char *)b + k * size, size) == 0) k++;
    status = mn_fail(MN_ERR_FORMAT,
                     "%s: tensor '%s' should repeat '%s', which this model uses in its place, but differs from it (element %zu); if the "
                     "model has a head of its own, its configuration must say so (tie_embeddings: false)",
                     mn_st_path(st), copy->name, first->name, k);
  }
  free(a);
  free(b);
  return status;
}

static mn_status load(mn_params *p, const mn_st *st) {
  const mn_st_tensor **from = mn_calloc((size_t)p->n_all + 1, sizeof *from);
  const char **names = mn_calloc((size_t)(2 * p->n_all) + 1, sizeof *names);
  mn_status status = from && names ? MN_OK : MN_ERR_MEMORY;
  int n = 0;
  for (int i = 0; i < p->n_all && status == MN_OK; i++) {
    names[n++] = p->info[i].name;
    if (p->info[i].copy) names[n++] = p->info[i].copy;
  }
  if (status == MN_OK) status = mn_st_only(st, names, n, "a parameter of this model");
  for (int i = 0; i < p->n_all && status == MN_OK; i++) status = mn_st_need(st, p->info[i].name, &p->info[i].shape, &from[i]);
  for (int i = 0; i < p->n_all && status == MN_OK; i++) status = check_copy(p, i, st, from[i]);
  if (status == MN_OK) status = read_all(p, st, from);                /* nothing is overwritten before all is known to fit */
  for (int i = 0; i < p->n_all && p->digests && status == MN_OK; i++) /* what was read has just been held against its checksum */
    snprintf(p->digests[i], sizeof p->digests[i], "%s", from[i]->dtype == p->type[i] ? from[i]->checksum : "");
  free(from);
  free(names);
  return status;
}

mn_status mn_params_load(mn_params *p, const char *path) {
  mn_st *st;
  MN_TRY(mn_st_open(path, &st));
  mn_status status = load(p, st);
  mn_st_close(st);
  return status;
}

const mn_value *mn_model_to_config(mn_arena *arena, const mn_model *m) {
  const mn_value *model = mn_model_to_value(arena, m);
  return model ? mn_value_map(arena, 1, (const char *const[]){"model"}, &model) : NULL;
}

mn_status mn_model_save_dir(const mn_model *m, const mn_params *p, const char *dir) {
  mn_arena *arena = mn_arena_new();
  const mn_value *root = arena ? mn_model_to_config(arena, m) : NULL;
  char *config = mn_path_join(dir, "config.json"), *weights = mn_path_join(dir, "model.safetensors");
  mn_status status = root && config && weights ? mn_make_dirs(dir) : MN_ERR_MEMORY;
  mn_params with = *p;
  if (status == MN_OK) status = mn_value_hash(root, with.origin.config);
  if (status == MN_OK) status = mn_params_save(&with, weights);
  if (status == MN_OK) status = mn_json_write(config, root);
  free(config);
  free(weights);
  mn_arena_free(arena);
  return status;
}

/* Of values that never change, each is worked out once, when it is first asked for. */
static mn_status keep_digests(mn_params *p) {
  p->digests = mn_arena_alloc(p->arena, (size_t)(p->n_all + 1) * sizeof *p->digests);
  return p->digests ? MN_OK : MN_ERR_MEMORY;
}

static mn_status digest_of(const mn_params *p, int i, char hex[MN_HASH_HEX]) {
  char *kept = p->digests ? p->digests[i] : NULL;
  if (!kept || !*kept) {
    void *host;
    mn_status status = on_host(p, i, &host);
    if (status == MN_OK) mn_content_hash(host, param_bytes(p, i), hex);
    free(host);
    MN_TRY(status);
    if (kept) memcpy(kept, hex, MN_HASH_HEX);
  } else {
    memcpy(hex, kept, MN_HASH_HEX);
  }
  return MN_OK;
}

static mn_status keep_origin(mn_params *p, const mn_st *st) {
  mn_origin_read(st, &p->origin);
  if (p->origin.run && !(p->origin.run = mn_arena_strdup(p->arena, p->origin.run))) return MN_ERR_MEMORY;
  return MN_OK;
}

/* config.json's model, and nothing else. */
static mn_status read_config(mn_arena *arena, const char *path, const mn_value **root, bool *sealed) {
  MN_TRY(mn_json_read_sealed(arena, path, root, sealed));
  if (!mn_value_get(*root, "model")) return mn_fail(MN_ERR_FORMAT, "%s: has no 'model'; is it a directory made by mneme train?", path);
  for (size_t i = 0; i < (*root)->count; i++) {
    const mn_entry *e = &(*root)->as.entries[i];
    char shown[MN_PRINTABLE];
    if (strcmp(e->key, "model") != 0)
      return mn_fail(MN_ERR_FORMAT, "%s:%d: unknown key '%s'; it has a model and a checksum", path, e->line, mn_printable(e->key, shown));
  }
  return MN_OK;
}

mn_status mn_model_load_dir(const char *dir, mn_backend *b, mn_dtype dtype, mn_model **model, mn_params **params) {
  *model = NULL;
  *params = NULL;
  char *config = mn_path_join(dir, "config.json"), *weights = mn_path_join(dir, "model.safetensors");
  mn_arena *arena = mn_arena_new();
  const mn_value *root = NULL;
  bool sealed;
  mn_origin origin;
  mn_st *st = NULL;
  mn_status status = config && weights && arena ? read_config(arena, config, &root, &sealed) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_st_open(weights, &st);
  if (status == MN_OK) mn_origin_read(st, &origin);
  if (status == MN_OK) status = mn_origin_check_config(&origin, weights, config, root, sealed);
  if (status == MN_OK) status = mn_model_parse(mn_value_get(root, "model"), NULL, 0, model);
  if (status == MN_OK) status = mn_params_declare(*model, b, dtype, params);
  if (status == MN_OK) status = keep_digests(*params);
  if (status == MN_OK) status = load(*params, st);
  if (status == MN_OK) status = keep_origin(*params, st);
  if (status != MN_OK) {
    mn_params_free(*params);
    mn_model_free(*model);
    *params = NULL;
    *model = NULL;
  }
  mn_st_close(st);
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
  for (int i = 0; i < p->n_all && status == MN_OK; i++) {
    char digest[MN_HASH_HEX], shape[96];
    status = digest_of(p, i, digest);
    if (status != MN_OK) break;
    mn_text_addf(&text, "\n%s %s %s %s", p->info[i].name, mn_dtype_name(p->type[i]), mn_shape_str(&p->info[i].shape, shape), digest);
  }
  if (status == MN_OK) status = mn_text_status(&text);
  if (status == MN_OK) mn_content_hash(text.data, text.len, hex);
  mn_text_free(&text);
  mn_arena_free(arena);
  return status;
}
