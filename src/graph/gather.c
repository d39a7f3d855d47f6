/* gather.c - order and groups: shape rules, meanings, gradients. */
#include "graph/gather.h"
#include "graph/compose.h"
#include "graph/ops.h"

/* ---- sorting ---- all of the largest, in order */
mn_tensor *mn_sort(mn_graph *g, mn_tensor *x, bool falling, mn_tensor **index) {
  if (index) *index = NULL;
  if (!x) return NULL;
  mn_tensor *at = mn_topk(g, falling ? x : mn_neg(g, x), mn_dim(x, -1));
  if (index) *index = at;
  return mn_take(g, x, at, x->shape.ndim - 1);
}

/* ---- running maximum ---- along the last axis: (x) -> (y, index i32) */
static mn_tensor *later(mn_graph *g, mn_tensor *x, int64_t by) { /* moved back by `by` places, whose first elements stay */
  const int axis = x->shape.ndim - 1;
  const int64_t n = mn_dim(x, -1);
  return mn_concat(g, 2, (mn_tensor *[]){mn_slice(g, x, axis, 0, by), mn_slice(g, x, axis, 0, n - by)}, axis);
}
static void cummax_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) { /* of 1, 2, 4, ... elements up to each */
  (void)n;
  mn_tensor *y = in[0], *at = mn_iota(g, MN_I32, in[0]->shape, in[0]->shape.ndim - 1);
  for (int64_t by = 1; by < mn_dim(in[0], -1); by *= 2) {
    mn_tensor *y0 = later(g, y, by), *at0 = later(g, at, by), *keep = mn_lt(g, y0, y);
    y = mn_select(g, keep, y, y0);
    at = mn_select(g, keep, at, at0);
  }
  out[0] = y;
  out[1] = at;
}
static void cummax_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)need;
  if (dout[0]) din[0] = mn_put(g, mn_zeros_like(g, n->in[0]), n->out[1], dout[0], n->in[0]->shape.ndim - 1, MN_PUT_ADD);
}
const mn_op mn_op_cummax = {.name = "cummax", .cls = MN_OP_FUSED, .grad = cummax_grad, .compose = cummax_compose};

mn_tensor *mn_cummax(mn_graph *g, mn_tensor *x, int axis, mn_tensor **index) {
  if (index) *index = NULL;
  if (!x) return NULL;
  const int last = x->shape.ndim - 1;
  if (axis < 0) axis += x->shape.ndim;
  if (axis < 0 || axis > last) {
    mn_graph_fault(g, MN_ERR_SHAPE, "cummax: no such axis among %d", x->shape.ndim);
    return NULL;
  }
  mn_tensor *turned = axis == last ? x : mn_transpose(g, x, axis, last);
  if (!turned) return NULL;
  mn_dtype types[2] = {x->dtype, MN_I32};
  mn_node *n = mn_node_new(g, &mn_op_cummax, 1, &turned, 2, types, (mn_shape[]){turned->shape, turned->shape}, NULL);
  if (!n) return NULL;
  if (index) *index = axis == last ? n->out[1] : mn_transpose(g, n->out[1], axis, last);
  return axis == last ? n->out[0] : mn_transpose(g, n->out[0], axis, last);
}

/* ---- sums by segment ---- */
mn_tensor *mn_segment_sum(mn_graph *g, mn_tensor *x, mn_tensor *segment, int64_t n, int batch_dims) {
  if (!x || !segment) return NULL;
  if (n < 1 || batch_dims < 0 || batch_dims >= x->shape.ndim) {
    mn_graph_fault(g, MN_ERR_SHAPE, "segment_sum: %lld segments along axis %d of %d", (long long)n, batch_dims, x->shape.ndim);
    return NULL;
  }
  mn_shape out = x->shape;
  out.dim[batch_dims] = n;
  return mn_put(g, mn_full(g, x->dtype, out, 0), segment, x, batch_dims, MN_PUT_ADD);
}

/* ---- bag ---- (table, index, weight) -> y */
static void bag_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  mn_tensor *rows = mn_cast(g, mn_take(g, in[0], in[1], 0), in[2]->dtype); /* [...,n,D] */
  mn_tensor *y = mn_matmul(g, mn_unsqueeze(g, in[2], -2), rows);           /* [...,1,D] */
  out[0] = mn_cast(g, mn_reshape(g, y, n->out[0]->shape), n->out[0]->dtype);
}
static void bag_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  mn_tensor *table = n->in[0], *weight = n->in[2], *in[4] = {table, n->in[1], weight, dout[0]};
  (void)need;
  mn_node *d =
      mn_node_new(g, &mn_op_bag_grad, 4, in, 2, (mn_dtype[]){table->dtype, weight->dtype}, (mn_shape[]){table->shape, weight->shape}, NULL);
  if (!d) return;
  din[0] = d->out[0];
  din[2] = d->out[1];
}
static int64_t bag_flops(const mn_node *n) { return 2 * mn_shape_count(&n->in[1]->shape) * mn_dim(n->in[0], 1); }
const mn_op mn_op_bag = {.name = "bag", .cls = MN_OP_FUSED, .grad = bag_grad, .compose = bag_compose, .flops = bag_flops};

static void bag_grad_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  const bool need[3] = {true, false, true};
  mn_tensor *din[3] = {NULL};
  (void)n;
  mn_vjp_of(g, &mn_op_bag, NULL, 3, in, 1, &in[3]->dtype, &in[3]->shape, &in[3], need, din, NULL);
  out[0] = din[0];
  out[1] = din[2];
}
static int64_t bag_grad_flops(const mn_node *n) { return 2 * bag_flops(n); }
const mn_op mn_op_bag_grad = {.name = "bag_grad", .cls = MN_OP_FUSED, .compose = bag_grad_compose, .flops = bag_grad_flops};

mn_tensor *mn_bag(mn_graph *g, mn_tensor *table, mn_tensor *index, mn_tensor *weight) {
  if (!table || !index || !weight) return NULL;
  const int nd = index->shape.ndim;
  if (table->shape.ndim != 2 || nd < 1 || nd + 1 > MN_MAX_DIMS || index->dtype != MN_I32 ||
      !mn_shape_equal(&index->shape, &weight->shape) || !mn_dtype_is_float(table->dtype) || weight->dtype != mn_inner_type(table->dtype)) {
    char a[96], b[96], c[96];
    mn_graph_fault(g, MN_ERR_SHAPE, "bag: table %s, index %s %s, weight %s %s do not fit ([N,D], i32 [...,n], f32 or f64 like the table)",
                   mn_shape_str(&table->shape, a), mn_dtype_name(index->dtype), mn_shape_str(&index->shape, b),
                   mn_dtype_name(weight->dtype), mn_shape_str(&weight->shape, c));
    return NULL;
  }
  mn_shape out = index->shape;
  out.dim[nd - 1] = mn_dim(table, 1);
  return mn_node1(g, &mn_op_bag, 3, (mn_tensor *[]){table, index, weight}, table->dtype, out, NULL);
}
