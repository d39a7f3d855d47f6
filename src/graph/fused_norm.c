/* fused_norm.c - normalisations over the last axis: shape rule, meaning, gradient. RMSNorm: Zhang & Sennrich 2019; LayerNorm: Ba et al.
 * 2016. */
#include "graph/compose.h"
#include "graph/fused_norm.h"
#include "graph/ops.h"

static void norm_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  const mn_norm_attr *a = n->attr;
  mn_dtype t = mn_inner_type(in[0]->dtype);
  mn_tensor *x = mn_cast(g, in[0], t), *y;
  unsigned last = mn_last_axis(x);
  if (a->kind == MN_NORM_LAYER) x = mn_sub(g, x, mn_mean(g, x, last));
  mn_tensor *square = mn_square(g, x);
  mn_tensor *size = a->kind == MN_NORM_L2 ? mn_sum(g, square, last) : mn_mean(g, square, last);
  y = mn_mul(g, x, mn_rsqrt(g, mn_add_scalar(g, size, a->eps)));
  if (a->has_weight) y = mn_mul(g, y, mn_cast(g, in[1], t));
  if (a->has_bias) y = mn_add(g, y, mn_cast(g, in[1 + a->has_weight], t));
  out[0] = mn_cast(g, y, n->out[0]->dtype);
}

static void norm_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)need;
  mn_grad_by_node(g, n, &mn_op_norm_grad, dout, din);
}
static bool norm_slices(const mn_node *n, int axis, int *in_axis) { /* a gradient of weights sums over all rows */
  for (int i = 0; i < n->n_in; i++) in_axis[i] = i == 0 || n->in[i]->shape.ndim == n->out[0]->shape.ndim ? axis : -1;
  return n->n_out == 1 && axis != n->out[0]->shape.ndim - 1;
}
const mn_op mn_op_norm = {.name = "norm",
                          .cls = MN_OP_FUSED,
                          .attr_size = sizeof(mn_norm_attr),
                          .grad = norm_grad,
                          .compose = norm_compose,
                          .remake = MN_REMAKE_NORM,
                          .slices = norm_slices};

static void norm_grad_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  mn_grad_by_node_compose(g, n, &mn_op_norm, in, out);
}
const mn_op mn_op_norm_grad = {
    .name = "norm_grad", .cls = MN_OP_FUSED, .attr_size = sizeof(mn_norm_attr), .compose = norm_grad_compose, .slices = norm_slices};

mn_tensor *mn_norm(mn_graph *g, mn_norm_kind kind, mn_tensor *x, mn_tensor *weight, mn_tensor *bias, double eps, mn_dtype out) {
  mn_tensor *in[3] = {x};
  int n = 1;
  if (weight) in[n++] = weight;
  if (bias) in[n++] = bias;
  for (int i = 1; i < n && x; i++)
    if (in[i]->shape.ndim != 1 || in[i]->shape.dim[0] != mn_dim(x, -1)) {
      char a[96], b[96];
      mn_graph_fault(g, MN_ERR_SHAPE, "norm: weight %s does not fit the last axis of %s", mn_shape_str(&in[i]->shape, a),
                     mn_shape_str(&x->shape, b));
      return NULL;
    }
  mn_norm_attr a = {.kind = kind, .has_weight = weight != NULL, .has_bias = bias != NULL, .eps = eps};
  return mn_node1(g, &mn_op_norm, n, in, out, x ? x->shape : (mn_shape){0}, &a);
}
