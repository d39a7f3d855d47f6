/* fused_softmax.c - softmax over the last axis: shape rule, meaning, gradient. */
#include "graph/fused_softmax.h"
#include "graph/ops.h"

static void softmax_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  mn_tensor *x = mn_cast(g, in[0], mn_inner_type(in[0]->dtype));
  unsigned last = mn_last_axis(x);
  mn_tensor *e = mn_exp(g, mn_sub(g, x, mn_stop_gradient(g, mn_max(g, x, last))));
  out[0] = mn_cast(g, mn_div(g, e, mn_sum(g, e, last)), n->out[0]->dtype);
}
static void softmax_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)need;
  din[0] = mn_node1(g, &mn_op_softmax_grad, 2, (mn_tensor *[]){n->out[0], dout[0]}, n->in[0]->dtype, n->in[0]->shape, NULL);
}
static bool softmax_slices(const mn_node *n, int axis, int *in_axis) {
  for (int i = 0; i < n->n_in; i++) in_axis[i] = axis;
  return axis != n->out[0]->shape.ndim - 1;
}
const mn_op mn_op_softmax = {
    .name = "softmax", .cls = MN_OP_FUSED, .grad = softmax_grad, .compose = softmax_compose, .slices = softmax_slices};

static void softmax_grad_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  mn_dtype t = mn_inner_type(in[0]->dtype);
  mn_tensor *y = mn_cast(g, in[0], t), *dy = mn_cast(g, in[1], t);
  mn_tensor *dot = mn_sum(g, mn_mul(g, y, dy), mn_last_axis(y));
  out[0] = mn_cast(g, mn_mul(g, y, mn_sub(g, dy, dot)), n->out[0]->dtype);
}
const mn_op mn_op_softmax_grad = {.name = "softmax_grad", .cls = MN_OP_FUSED, .compose = softmax_grad_compose, .slices = softmax_slices};

mn_tensor *mn_softmax(mn_graph *g, mn_tensor *x) {
  if (x && x->shape.ndim == 0) {
    mn_graph_fault(g, MN_ERR_SHAPE, "softmax: needs an axis");
    return NULL;
  }
  return mn_node1(g, &mn_op_softmax, 1, &x, x ? x->dtype : MN_F32, x ? x->shape : (mn_shape){0}, NULL);
}
