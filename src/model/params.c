/* params.c - the parameters' memory: made and initialised once, bound to any number of plans. */
#include "model/params.h"

#include "base/element.h"
#include "base/finite.h"

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

size_t mn_params_bytes(const mn_params *p, int i) { return mn_shape_bytes(&p->info[i].shape, p->type[i]); }

/* ---- making ---- */

enum { DRAWN = 16384 }; /* elements drawn at a time */

typedef struct drawing {
  mn_params *p;
  int begin, end;      /* of the tensors that are drawn            */
  uint64_t *key;       /* of each parameter                        */
  int64_t *first;      /* number of its first piece; [n]: of pieces */
  atomic_bool stopped; /* the caller's thread, which works too, was interrupted */
  mn_status *status;   /* [threads] */
} drawing;

static int param_of_piece(const drawing *d, int64_t piece) {
  int low = d->begin, high = d->end;
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

static mn_status draw(mn_params *p, int begin, int end, uint64_t seed) {
  int threads = mn_pool_threads(p->backend->pool);
  drawing d = {.p = p, .begin = begin, .end = end};
  for (int i = begin; i < end; i++) {
    if (p->owner[i] == MN_PARAM_SHARED) continue;
    if (mn_dtype_is_stored(p->type[i]))
      return mn_fail(MN_ERR_ARG, "parameter %s is kept as %s: such values are read from a file, never drawn", p->info[i].name,
                     mn_dtype_name(p->type[i]));
    MN_TRY(mn_params_writable(p, i));
  }
  d.key = mn_alloc((size_t)(p->n_all + 1) * sizeof *d.key);
  d.first = mn_alloc((size_t)(p->n_all + 1) * sizeof *d.first);
  d.status = mn_calloc((size_t)threads, sizeof *d.status);
  mn_status status = d.key && d.first && d.status ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK) {
    d.first[begin] = 0;
    for (int i = begin; i < end; i++) {
      d.key[i] = mn_random_key(seed, p->info[i].name);
      const int64_t n = p->owner[i] == MN_PARAM_SHARED ? 0 : mn_shape_count(&p->info[i].shape);
      d.first[i + 1] = d.first[i] + (n + DRAWN - 1) / DRAWN;
    }
    mn_pool_run(p->backend->pool, d.first[end], draw_piece, &d);
    for (int k = 0; k < threads && status == MN_OK; k++)
      if (d.status[k] != MN_OK) status = mn_fail(d.status[k], "the parameters' first values could not be drawn: no memory is left");
    if (status == MN_OK) status = mn_stop_check("drawing the parameters' first values");
  }
  free(d.key);
  free(d.first);
  free(d.status);
  return status;
}

mn_status mn_params_draw(mn_params *p, uint64_t seed) { return draw(p, 0, p->n_all, seed); }

/* Tensor i, which is the next: its description copied. */
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
  p->data[i] = NULL;
  p->owner[i] = MN_PARAM_EMPTY;
  p->n_all = i + 1;
  return mn_table_put(&p->at, to->name, i);
}

static mn_status declare_all(mn_params *p, const mn_scope *s) {
  const mn_param_info *info;
  const mn_built_buffer *buffers;
  mn_tensor *const *tensors;
  const int n = mn_scope_params(s, &info, &tensors), m = mn_scope_buffers(s, &buffers);
  p->info = mn_arena_alloc(p->arena, (size_t)(n + m + 1) * sizeof *p->info);
  p->type = mn_arena_alloc(p->arena, (size_t)(n + m + 1) * sizeof *p->type);
  p->data = mn_arena_alloc(p->arena, (size_t)(n + m + 1) * sizeof *p->data);
  p->owner = mn_arena_alloc(p->arena, (size_t)(n + m + 1) * sizeof *p->owner);
  if (!p->info || !p->type || !p->data || !p->owner) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) {
    MN_TRY(declare(p, &info[i], tensors[i] ? tensors[i]->dtype : p->dtype));
    p->n = p->n_model = i + 1;
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
  atomic_store(&p->holders, 1);
  mn_status status = p->arena ? declare_all(p, s) : MN_ERR_MEMORY;
  if (status != MN_OK) mn_params_free(p);
  else *out = p;
  return status;
}

mn_status mn_params_declare(const mn_model *m, mn_backend *b, mn_dtype dtype, mn_params **out) {
  mn_graph *g = mn_graph_new(); /* built once as small as can be, to learn the names */
  *out = NULL;
  if (!g) return MN_ERR_MEMORY;
  mn_scope *s = mn_scope_new(g, (mn_build){.param = dtype, .compute = dtype, .names_only = true}, 1);
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

/* ---- what only a training step has ---- */

/* The lists with room for `more`, in the arena: the old ones end with the set. */
static mn_status make_room(mn_params *p, int more) {
  const size_t n = (size_t)(p->n_all + more) + 1;
  mn_param_info *info = mn_arena_alloc(p->arena, n * sizeof *info);
  mn_dtype *type = mn_arena_alloc(p->arena, n * sizeof *type);
  void **data = mn_arena_alloc(p->arena, n * sizeof *data);
  mn_param_owner *owner = mn_arena_alloc(p->arena, n * sizeof *owner);
  if (!info || !type || !data || !owner) return MN_ERR_MEMORY;
  for (int i = 0; i < p->n_all; i++) info[i] = p->info[i], type[i] = p->type[i], data[i] = p->data[i], owner[i] = p->owner[i];
  p->info = info;
  p->type = type;
  p->data = data;
  p->owner = owner;
  return MN_OK;
}

static void move(mn_params *p, int to, int from) {
  p->info[to] = p->info[from];
  p->type[to] = p->type[from];
  p->data[to] = p->data[from];
  p->owner[to] = p->owner[from];
}

/* Tensor n_all - 1, which is empty, becomes number n, and the buffers move up. */
static mn_status before_buffers(mn_params *p) {
  const int last = p->n_all - 1;
  const mn_param_info info = p->info[last];
  const mn_dtype type = p->type[last];
  for (int i = last; i > p->n; i--) move(p, i, i - 1);
  p->info[p->n] = info;
  p->type[p->n] = type;
  p->data[p->n] = NULL;
  p->owner[p->n++] = MN_PARAM_EMPTY;
  for (int i = p->n - 1; i < p->n_all; i++) MN_TRY(mn_table_put(&p->at, p->info[i].name, i));
  return MN_OK;
}

mn_status mn_params_extend(mn_params *p, const mn_scope *s, uint64_t seed) {
  const mn_param_info *info;
  const mn_built_buffer *buffers;
  const int n = mn_scope_params(s, &info, NULL), m = mn_scope_buffers(s, &buffers), first = p->n;
  for (int i = 0; i < m; i++)
    if (mn_params_find(p, buffers[i].info.name) < 0)
      return mn_fail(MN_ERR_CONFIG, "buffer %s stands in the training step only: a model's buffers are part of it", buffers[i].info.name);
  int more = 0;
  for (int i = 0; i < n; i++) more += mn_params_find(p, info[i].name) < 0;
  if (!more) return MN_OK;
  MN_TRY(make_room(p, more));
  for (int i = 0; i < n; i++) {
    if (mn_params_find(p, info[i].name) >= 0) continue;
    MN_TRY(declare(p, &info[i], p->dtype));
    MN_TRY(before_buffers(p));
  }
  return draw(p, first, p->n, seed);
}

void mn_params_shrink(mn_params *p) {
  const int more = p->n - p->n_model;
  for (int i = p->n_model; i < p->n; i++) {
    if (p->owner[i] == MN_PARAM_ALLOCATED) p->backend->free(p->backend, p->data[i], mn_params_bytes(p, i));
    mn_table_put(&p->at, p->info[i].name, -1); /* there is room: the name is known */
  }
  for (int i = p->n; more && i < p->n_all; i++) {
    move(p, i - more, i);
    mn_table_put(&p->at, p->info[i].name, i - more);
  }
  p->n -= more;
  p->n_all -= more;
}

int64_t mn_params_count(const mn_params *p) {
  int64_t n = 0;
  for (int i = 0; i < p->n_model; i++) n += mn_shape_count(&p->info[i].shape);
  return n;
}

int mn_params_find(const mn_params *p, const char *name) { return mn_table_find(&p->at, name, -1); }

static mn_status bind(const mn_params *p, int i, const mn_tensor *leaf, mn_plan *plan) {
  if (i < 0) return MN_OK;
  if (leaf->dtype != p->type[i])
    return mn_fail(MN_ERR_ARG, "parameter %s is kept as %s, and the graph reads it as %s", p->info[i].name, mn_dtype_name(p->type[i]),
                   mn_dtype_name(leaf->dtype));
  const bool assigned = mn_plan_assigns(plan, leaf);
  MN_TRY(assigned ? mn_params_writable(p, i) : mn_params_need(p, i));
  if (assigned && p->digests) p->digests[i][0] = MN_DIGEST_CHANGES;
  mn_plan_bind(plan, leaf, p->data[i]);
  return MN_OK;
}

mn_status mn_params_bind(const mn_params *p, const mn_scope *s, mn_plan *plan) {
  const mn_param_info *info;
  mn_tensor *const *tensors;
  int n = mn_scope_params(s, &info, &tensors);
  for (int i = 0; i < n; i++) MN_TRY(bind(p, mn_params_find(p, info[i].name), tensors[i], plan));
  const mn_built_buffer *buffers;
  n = mn_scope_buffers(s, &buffers);
  for (int i = 0; i < n; i++) MN_TRY(bind(p, mn_params_find(p, buffers[i].info.name), buffers[i].leaf, plan));
  return MN_OK;
}

static mn_dtype type_of(const void *ctx, const char *name, mn_dtype otherwise) {
  const mn_params *p = ctx;
  const int i = mn_params_find(p, name);
  return i >= 0 && i < p->n ? p->type[i] : otherwise;
}
mn_param_types mn_params_types(const mn_params *p) { return (mn_param_types){p ? type_of : NULL, p}; }

mn_status mn_params_on_host(const mn_params *p, int i, void **host) {
  *host = NULL;
  if (!p->data[i]) return mn_fail(MN_ERR_ARG, "parameter %s has no value yet: draw or load it first", p->info[i].name);
  if (!(*host = mn_alloc(mn_params_bytes(p, i)))) return MN_ERR_MEMORY;
  mn_status status = p->backend->download(p->backend, *host, p->data[i], mn_params_bytes(p, i));
  if (status == MN_OK) status = mn_params_check_files(p);
  if (status != MN_OK) {
    free(*host);
    *host = NULL;
  }
  return status;
}

mn_status mn_params_check_finite(const mn_params *p) {
  for (int i = 0; i < p->n_all; i++) {
    void *host;
    MN_TRY(mn_params_on_host(p, i, &host));
    int64_t bad = mn_first_not_finite(p->type[i], host, mn_shape_count(&p->info[i].shape));
    if (bad >= 0)
      mn_fail(MN_ERR_NUMERIC, "parameter %s is not finite (element %lld is %s)", p->info[i].name, (long long)bad,
              mn_not_finite_name(p->type[i], host, bad));
    free(host);
    if (bad >= 0) return MN_ERR_NUMERIC;
  }
  return MN_OK;
}
