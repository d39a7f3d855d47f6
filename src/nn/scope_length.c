/* scope_length.c - rows of different lengths: which tokens count; see scope.h. */
#include "nn/scope_internal.h"

mn_shape mn_rows_shape(int ndim, int64_t B, int64_t T) {
  mn_shape s = {.ndim = ndim, .dim = {B, T}};
  for (int i = 2; i < MN_MAX_DIMS; i++) s.dim[i] = 1;
  return s;
}

static mn_tensor *clamped(mn_graph *g, mn_tensor *x, int64_t most) { /* to [0, most] */
  return mn_minimum(g, mn_maximum(g, x, mn_scalar(g, MN_I32, 0)), mn_scalar(g, MN_I32, (double)most));
}

mn_tensor *mn_length_part(mn_graph *g, mn_tensor *length, int64_t start, int64_t most) {
  return length ? clamped(g, mn_add_scalar(g, length, -(double)start), most) : NULL;
}

mn_tensor *mn_length_parts(mn_graph *g, mn_tensor *length, int64_t n, int64_t most) {
  const int64_t B = mn_dim(length, 0);
  mn_tensor *start = mn_mul_scalar(g, mn_iota(g, MN_I32, MN_SHAPE(n, 1), 0), (double)most);
  return clamped(g, mn_sub(g, mn_reshape(g, length, MN_SHAPE(1, B)), start), most);
}

mn_tensor *mn_moved(mn_graph *g, mn_tensor *position, mn_tensor *length, int64_t T) {
  return length ? mn_add(g, position, length) : mn_add_scalar(g, position, (double)T);
}

mn_tensor *mn_scope_length(mn_scope *s) { return mn_capture(s->r->graph, s->frame->length); }

void mn_scope_set_length(mn_scope *s, mn_tensor *length) {
  mn_scope_frame *f = s->frame;
  mn_graph *g = s->r->graph;
  if (!length) return;
  const mn_shape rows = MN_SHAPE(f->batch);
  if (length->dtype != MN_I32 || !mn_shape_equal(&length->shape, &rows))
    mn_graph_fault(g, MN_ERR_SHAPE, "the lengths of %s are an i32 [%lld]", *s->path ? mn_scope_place(s->r, s->path) : "a stream",
                   (long long)f->batch);
  else f->length = f->length ? mn_minimum(g, f->length, length) : length;
}

mn_tensor *mn_scope_live(mn_scope *s, int64_t T) {
  mn_graph *g = s->r->graph;
  mn_tensor *length = mn_scope_length(s);
  if (!length) return NULL;
  return mn_lt(g, mn_iota(g, MN_I32, MN_SHAPE(1, T), 1), mn_reshape(g, length, MN_SHAPE(s->frame->batch, 1)));
}

mn_tensor *mn_scope_masked(mn_scope *s, mn_tensor *x, double value) {
  mn_graph *g = s->r->graph;
  mn_tensor *live = x ? mn_scope_live(s, mn_dim(x, 1)) : NULL;
  if (!live) return x;
  const mn_shape wide = mn_rows_shape(mn_ndim(x), s->frame->batch, mn_dim(x, 1));
  return mn_select(g, mn_reshape(g, live, wide), x, mn_full(g, x->dtype, x->shape, value));
}

mn_tensor *mn_scope_last(mn_scope *s, mn_tensor *before, mn_tensor *x) {
  mn_graph *g = s->r->graph;
  const int64_t n = mn_dim(before, 1), T = mn_dim(x, 1);
  mn_tensor *length = mn_scope_length(s);
  if (!length && T >= n) return mn_slice(g, x, 1, T - n, n);
  if (!length) return mn_concat(g, 2, (mn_tensor *[]){mn_slice(g, before, 1, T, n - T), x}, 1);
  mn_tensor *at = mn_add(g, mn_reshape(g, length, MN_SHAPE(s->frame->batch, 1)), mn_iota(g, MN_I32, MN_SHAPE(1, n), 1));
  return mn_take(g, mn_concat(g, 2, (mn_tensor *[]){before, x}, 1), at, 1);
}
