/* fused_gated_norm.c - a gated norm: shape rule, meaning, gradient. */
#include "graph/fused_gated_norm.h"
#include "graph/compose.h"
#include "graph/fused_norm.h"
#include "graph/ops.h"

static void gated_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  const mn_gated_norm_attr *a = n->attr;
  const mn_dtype t = mn_inner_type(in[0]->dtype);
  mn_tensor *y = mn_norm(g, MN_NORM_RMS, in[0], a->has_weight ? in[2] : NULL, NULL, a->eps, t);
  mn_tensor *gate = mn_cast(g, in[1], t);
  y = mn_mul(g, y, a->kind == MN_GATED_BY_SILU ? mn_silu(g, gate) : mn_sigmoid(g, gate));
  out[0] = mn_cast(g, y, n->out[0]->dtype);
}

static void gated_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)need;
  mn_grad_by_node(g, n, &mn_op_gated_norm_grad, dout, din);
}
static bool gated_slices(const mn_node *n, int axis, int *in_axis) { /* a gradient of weights sums over all rows */
  for (int i = 0; i < n->n_in; i++) in_axis[i] = n->in[i]->shape.ndim == n->out[0]->shape.ndim ? axis : -1;
  return n->n_out <= 2 && n->out[0]->shape.ndim > 1 && axis != n->out[0]->shape.ndim - 1;
}
const mn_op mn_op_gated_norm = {.name = "gated_norm",
                                .cls = MN_OP_FUSED,
                                .attr_size = sizeof(mn_gated_norm_attr),
                                .grad = gated_grad,
                                .compose = gated_compose,
                                .remake = MN_REMAKE_NORM,
                                .slices = gated_slices};

static void gated_grad_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  mn_grad_by_node_compose(g, n, &mn_op_gated_norm, in, out);
}
const mn_op mn_op_gated_norm_grad = {.name = "gated_norm_grad",
                                     .cls = MN_OP_FUSED,
                                     .attr_size = sizeof(mn_gated_norm_attr),
                                     .compose = gated_grad_compose,
                                     .slices = gated_slices};

mn_tensor *mn_gated_norm(mn_graph *g, mn_tensor *x, mn_tensor *weight, mn_tensor *gate, mn_gated_kind kind, double eps, mn_dtype out) {
  mn_tensor *in[3] = {x, gate, weight};
  if (!x || !gate) return NULL;
  char a[96], b[96];
  if (!mn_shape_equal(&x->shape, &gate->shape) || gate->dtype != out) {
    mn_graph_fault(g, MN_ERR_SHAPE, "gated_norm: the gate is %s %s, and not %s %s", mn_dtype_name(gate->dtype),
                   mn_shape_str(&gate->shape, a), mn_dtype_name(out), mn_shape_str(&x->shape, b));
    return NULL;
  }
  if (weight && (weight->shape.ndim != 1 || weight->shape.dim[0] != mn_dim(x, -1))) {
    mn_graph_fault(g, MN_ERR_SHAPE, "gated_norm: weight %s does not fit the last axis of %s", mn_shape_str(&weight->shape, a),
                   mn_shape_str(&x->shape, b));
    return NULL;
  }
  const mn_gated_norm_attr attr = {.kind = kind, .has_weight = weight != NULL, .eps = eps};
  return mn_node1(g, &mn_op_gated_norm, weight ? 3 : 2, in, out, x->shape, &attr);
}
