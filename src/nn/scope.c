/* scope.c - roots and names; parameters, buffers and named inputs; see scope.h. */
#include "nn/scope_internal.h"

#include <stdio.h>
#include <string.h>

bool mn_scope_grow(mn_scope_root *r, void *list, int n, int *cap, size_t size) {
  if (n < *cap) return true;
  int c = *cap ? 2 * *cap : 16;
  void *old, *p = mn_scope_alloc(r, (size_t)c, size);
  if (!p) return false;
  memcpy(&old, list, sizeof old);
  if (n) memcpy(p, old, (size_t)n * size);
  memcpy(list, &p, sizeof p);
  *cap = c;
  return true;
}

void *mn_scope_alloc(mn_scope_root *r, size_t n, size_t size) {
  void *p = mn_arena_alloc(r->arena, (n + 1) * size);
  if (!p) mn_graph_fault(r->graph, MN_ERR_MEMORY, "%s", mn_message());
  return p;
}

bool mn_scope_remember(mn_scope_root *r, mn_table *t, const char *name, int number) {
  if (mn_table_put(t, name, number) == MN_OK) return true;
  mn_graph_fault(r->graph, MN_ERR_MEMORY, "%s", mn_message());
  return false;
}

/* The three, one after the other: a model has many names. */
static const char *joined(mn_arena *arena, const char *a, const char *b, const char *c) {
  const size_t na = strlen(a), nb = strlen(b), nc = strlen(c) + 1;
  char *p = mn_arena_room(arena, na + nb + nc);
  if (!p) return NULL;
  memcpy(p, a, na);
  memcpy(p + na, b, nb);
  memcpy(p + na + nb, c, nc);
  return p;
}

const char *mn_scope_full(mn_scope *s, const char *name) {
  const char *full = joined(s->r->arena, s->path, name, "");
  if (!full) mn_graph_fault(s->r->graph, MN_ERR_MEMORY, "%s", mn_message());
  return full;
}

const char *mn_scope_full_state(mn_scope *s, const char *name) {
  const char *full = joined(s->r->arena, s->state_path, name, "");
  if (!full) mn_graph_fault(s->r->graph, MN_ERR_MEMORY, "%s", mn_message());
  return full;
}

const char *mn_scope_place(mn_scope_root *r, const char *path) {
  char *place = mn_arena_strdup(r->arena, path);
  if (place && *place) place[strlen(place) - 1] = 0;
  return place;
}

mn_scope *mn_scope_new(mn_graph *g, mn_build build, int64_t batch) {
  mn_scope_root *r = mn_arena_alloc(g->arena, sizeof *r);
  mn_scope_frame *f = mn_arena_alloc(g->arena, sizeof *f);
  mn_scope *s = mn_arena_alloc(g->arena, sizeof *s);
  if (!r || !f || !s) return NULL;
  *r = (mn_scope_root){.arena = g->arena, .build = build, .graph = g, .outer = g};
  r->param_at = r->buffer_at = r->feed_at = (mn_table){.arena = g->arena, .names = true};
  *f = (mn_scope_frame){.batch = batch, .alignment = 1, .position_state = -1, .limit = {.tokens = MN_LIMIT_NONE}};
  f->store = mn_state_store_new(r, g, build.carried);
  *s = (mn_scope){r, f, "", "", NULL};
  if (!f->store) return NULL;
  if (batch < 1) mn_graph_fault(g, MN_ERR_SHAPE, "a batch holds at least one sequence");
  if (build.step && (build.step->dtype != MN_I64 || build.step->shape.ndim != 0))
    mn_graph_fault(g, MN_ERR_SHAPE, "the step of a build is an i64 scalar");
  const mn_shape rows = MN_SHAPE(batch);
  if (build.length && (build.length->dtype != MN_I32 || !mn_shape_equal(&build.length->shape, &rows)))
    mn_graph_fault(g, MN_ERR_SHAPE, "the lengths of a build are an i32 [%lld]", (long long)batch);
  f->length = build.length;
  if (build.carried) {
    f->store->reset = build.reset;
    f->position_state = 0;
    f->position = mn_state(s, "position", MN_I32, MN_SHAPE(batch), NULL, "tokens of the stream so far");
    f->multiple = build.position_multiple > 0 ? build.position_multiple : 1;
  }
  return s;
}

mn_scope *mn_scope_in(mn_scope *s, const char *fmt, ...) {
  char name[128];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(name, sizeof name, fmt, ap);
  va_end(ap);
  mn_scope *in = mn_scope_alloc(s->r, 1, sizeof *in);
  const char *path = in ? joined(s->r->arena, s->path, name, ".") : NULL, *state_path = path;
  if (path && s->state_path != s->path) state_path = joined(s->r->arena, s->state_path, name, ".");
  if (!state_path) {
    mn_graph_fault(s->r->graph, MN_ERR_MEMORY, "%s", mn_message());
    return s;
  }
  *in = *s;
  in->path = path;
  in->state_path = state_path;
  return in;
}

const mn_linear_rules *mn_scope_linear(const mn_scope *s) { return s->linear; }
const mn_linear_rules *mn_scope_set_linear(mn_scope *s, const mn_linear_rules *rules) {
  const mn_linear_rules *before = s->linear;
  s->linear = rules;
  return before;
}

mn_graph *mn_scope_graph(mn_scope *s) { return s->r->graph; }
int64_t mn_scope_batch(const mn_scope *s) { return s->frame->batch; }
mn_dtype mn_scope_compute(const mn_scope *s) { return s->r->build.compute; }
mn_dtype mn_scope_exact(const mn_scope *s) { return s->r->build.exact == MN_F64 || s->r->build.param == MN_F64 ? MN_F64 : MN_F32; }
bool mn_scope_exact_products(const mn_scope *s) { return s->r->build.exact_products; }
bool mn_scope_training(const mn_scope *s) { return s->r->build.training; }
const char *mn_scope_path(const mn_scope *s) { return s->path; }

/* ---- parameters ---- */
bool mn_scope_can_hold(mn_scope_root *r, const char *what, const char *full, const mn_shape *shape, mn_dtype type) {
  size_t bytes = mn_dtype_is_stored(type) ? 1 : mn_dtype_size(type);
  char text[96];
  for (int i = 0; i < shape->ndim; i++)
    if (!mn_size_mul(bytes, (size_t)(shape->dim[i] > 0 ? shape->dim[i] : 1), &bytes) || bytes > (size_t)1 << 46) {
      mn_graph_fault(r->graph, MN_ERR_SHAPE, "%s %s would be %s, more than 64 TiB; lower the sizes of the recipe that make it", what, full,
                     mn_shape_str(shape, text));
      return false;
    }
  return true;
}

mn_tensor *mn_param(mn_scope *s, const char *name, mn_shape shape, mn_init init, unsigned flags, const char *help) {
  mn_scope_root *r = s->r;
  const char *full = mn_scope_full(s, name);
  if (!full) return NULL;
  int i = mn_table_find(&r->param_at, full, -1);
  if (i < 0) {
    i = r->n_params;
    int cap = r->cap_params;
    if (!mn_scope_can_hold(r, "parameter", full, &shape, r->build.param) ||
        !mn_scope_grow(r, &r->param_tensors, i, &cap, sizeof *r->param_tensors) ||
        !mn_scope_grow(r, &r->params, i, &r->cap_params, sizeof *r->params) || !mn_scope_remember(r, &r->param_at, full, i))
      return NULL;
    r->params[i] = (mn_param_info){full, shape, init, flags, help, NULL};
    const mn_param_types *types = &r->build.types;
    const mn_dtype type = types->of ? types->of(types->ctx, full, r->build.param) : r->build.param;
    r->param_tensors[r->n_params++] = mn_variable(r->outer, full, type, shape);
  } else if (!mn_shape_equal(&r->params[i].shape, &shape)) {
    mn_graph_fault(r->graph, MN_ERR_INTERNAL, "parameter %s is used with two shapes", full);
  }
  return mn_capture(r->graph, r->param_tensors[i]);
}

void mn_param_copy(mn_scope *s, const char *name, const char *copy) {
  mn_scope_root *r = s->r;
  const char *full = mn_scope_full(s, name);
  int i = full ? mn_table_find(&r->param_at, full, -1) : -1;
  if (i >= 0) r->params[i].copy = mn_scope_full(s, copy);
}

/* ---- buffers ---- */
mn_tensor *mn_model_buffer(mn_scope *s, const char *name, mn_dtype dtype, mn_shape shape, double init, const char *help) {
  mn_scope_root *r = s->r;
  const char *full = mn_scope_full(s, name);
  if (!full) return NULL;
  int i = mn_table_find(&r->buffer_at, full, -1);
  if (i < 0) {
    i = r->n_buffers;
    int cap = r->cap_buffers;
    if (!mn_scope_can_hold(r, "buffer", full, &shape, dtype) || !mn_scope_grow(r, &r->buffer_written, i, &cap, sizeof *r->buffer_written) ||
        !mn_scope_grow(r, &r->buffers, i, &r->cap_buffers, sizeof *r->buffers) || !mn_scope_remember(r, &r->buffer_at, full, i))
      return NULL;
    mn_tensor *leaf = mn_variable(r->outer, full, dtype, shape);
    r->buffers[r->n_buffers++] = (mn_built_buffer){.info = {full, dtype, shape, init, help}, .leaf = leaf, .value = leaf};
  } else if (r->buffers[i].info.dtype != dtype || !mn_shape_equal(&r->buffers[i].info.shape, &shape)) {
    mn_graph_fault(r->graph, MN_ERR_INTERNAL, "buffer %s is used with two types or shapes", full);
  }
  return mn_capture(r->graph, r->buffers[i].value);
}

void mn_model_buffer_set(mn_scope *s, const char *name, mn_tensor *value) {
  mn_scope_root *r = s->r;
  const char *full = mn_scope_full(s, name);
  int i = full ? mn_table_find(&r->buffer_at, full, -1) : -1;
  if (!value || !full) return;
  if (i < 0) mn_graph_fault(r->graph, MN_ERR_INTERNAL, "buffer %s is set before it is asked for", full);
  else if (value->dtype != r->buffers[i].info.dtype || !mn_shape_equal(&value->shape, &r->buffers[i].info.shape))
    mn_graph_fault(r->graph, MN_ERR_INTERNAL, "buffer %s is set to another type or shape than it has", full);
  else if (r->build.training) r->buffers[i].value = mn_stop_gradient(r->graph, value);
}

/* ---- named inputs ---- */
mn_tensor *mn_feed(mn_scope *s, const char *name, mn_dtype dtype, mn_shape shape, const char *help) {
  mn_scope_root *r = s->r;
  int i = mn_table_find(&r->feed_at, name, -1);
  if (i < 0) {
    const char *own = mn_arena_strdup(r->arena, name);
    int cap = r->cap_feeds;
    i = r->n_feeds;
    if (!own || !mn_scope_grow(r, &r->feed_tensors, i, &cap, sizeof *r->feed_tensors) ||
        !mn_scope_grow(r, &r->feeds, i, &r->cap_feeds, sizeof *r->feeds) || !mn_scope_remember(r, &r->feed_at, own, i))
      return NULL;
    r->feeds[i] = (mn_feed_info){own, dtype, shape, help};
    r->feed_tensors[r->n_feeds++] = mn_input(r->outer, own, dtype, shape);
  } else if (r->feeds[i].dtype != dtype || !mn_shape_equal(&r->feeds[i].shape, &shape)) {
    mn_graph_fault(r->graph, MN_ERR_INTERNAL, "input %s is used with two types or shapes", name);
  }
  return mn_capture(r->graph, r->feed_tensors[i]);
}

/* ---- what was built ---- */
int mn_scope_params(const mn_scope *s, const mn_param_info **info, mn_tensor *const **tensors) {
  if (info) *info = s->r->params;
  if (tensors) *tensors = s->r->param_tensors;
  return s->r->n_params;
}

int mn_scope_buffers(const mn_scope *s, const mn_built_buffer **buffers) {
  *buffers = s->r->buffers;
  return s->r->n_buffers;
}

int mn_scope_feeds(const mn_scope *s, const mn_feed_info **info, mn_tensor *const **tensors) {
  if (info) *info = s->r->feeds;
  if (tensors) *tensors = s->r->feed_tensors;
  return s->r->n_feeds;
}
