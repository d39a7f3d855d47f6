/* fused_conv.c - the causal depthwise convolution: shape rule, meaning (a sum of shifted taps), gradient. */
#include "graph/compose.h"
#include "graph/fused_conv.h"
#include "graph/ops.h"

static void conv_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  const mn_conv_attr *a = n->attr;
  mn_dtype t = mn_inner_type(in[0]->dtype);
  mn_tensor *x = mn_cast(g, in[0], t), *w = mn_cast(g, in[1], t), *y = NULL;
  int64_t T = mn_dim(x, 1), D = mn_dim(x, 2), W = mn_dim(w, 1);
  mn_tensor *prefix = a->has_prefix ? mn_cast(g, in[2 + a->has_bias], t) : NULL;
  mn_tensor *padded = prefix ? mn_concat(g, 2, (mn_tensor *[]){prefix, x}, 1) : mn_pad(g, x, 1, W - 1, 0);
  for (int64_t j = 0; j < W; j++) {
    mn_tensor *tap = mn_mul(g, mn_slice(g, padded, 1, j, T), mn_reshape(g, mn_slice(g, w, 1, j, 1), MN_SHAPE(D)));
    y = y ? mn_add(g, y, tap) : tap;
  }
  if (a->has_bias) y = mn_add(g, y, mn_cast(g, in[2], t));
  out[0] = mn_cast(g, y, n->out[0]->dtype);
}
static void conv_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  mn_tensor *in[5];
  mn_dtype types[4];
  mn_shape shapes[4];
  (void)need;
  for (int i = 0; i < n->n_in; i++) in[i] = n->in[i], types[i] = n->in[i]->dtype, shapes[i] = n->in[i]->shape;
  in[n->n_in] = dout[0];
  mn_node *d = mn_node_new(g, &mn_op_conv_grad, n->n_in + 1, in, n->n_in, types, shapes, n->attr);
  for (int i = 0; d && i < n->n_in; i++) din[i] = d->out[i];
}
static int64_t conv_flops(const mn_node *n) { return 2 * mn_shape_count(&n->in[0]->shape) * mn_dim(n->in[1], 1); }
const mn_op mn_op_conv = {.name = "causal_conv",
                          .cls = MN_OP_FUSED,
                          .attr_size = sizeof(mn_conv_attr),
                          .grad = conv_grad,
                          .compose = conv_compose,
                          .flops = conv_flops};

static void conv_grad_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  int k = n->n_in - 1;
  bool need[4] = {true, true, true, true};
  mn_vjp_of(g, &mn_op_conv, n->attr, k, in, 1, &in[k]->dtype, &in[k]->shape, &in[k], need, out, NULL);
}
static int64_t conv_grad_flops(const mn_node *n) { return 2 * conv_flops(n); }
const mn_op mn_op_conv_grad = {.name = "causal_conv_grad",
                               .cls = MN_OP_FUSED,
                               .attr_size = sizeof(mn_conv_attr),
                               .compose = conv_grad_compose,
                               .flops = conv_grad_flops};

mn_tensor *mn_causal_conv(mn_graph *g, mn_tensor *x, mn_tensor *w, mn_tensor *bias, mn_tensor *prefix) {
  mn_tensor *in[4] = {x, w};
  int n = 2;
  if (!x || !w) return NULL;
  bool ok = x->shape.ndim == 3 && w->shape.ndim == 2 && mn_dim(w, 0) == mn_dim(x, 2) && mn_dim(w, 1) >= 1 &&
            (!bias || (bias->shape.ndim == 1 && mn_dim(bias, 0) == mn_dim(x, 2))) &&
            (!prefix || (prefix->shape.ndim == 3 && mn_dim(prefix, 0) == mn_dim(x, 0) && mn_dim(prefix, 1) == mn_dim(w, 1) - 1 &&
                         mn_dim(prefix, 2) == mn_dim(x, 2)));
  if (!ok) {
    char a[96], b[96];
    mn_graph_fault(g, MN_ERR_SHAPE, "causal_conv: x %s and w %s do not fit ([B,T,D], [D,W]; bias [D], prefix [B,W-1,D])",
                   mn_shape_str(&x->shape, a), mn_shape_str(&w->shape, b));
    return NULL;
  }
  if (bias) in[n++] = bias;
  if (prefix) in[n++] = prefix;
  return mn_node1(g, &mn_op_conv, n, in, x->dtype, x->shape, &(mn_conv_attr){bias != NULL, prefix != NULL});
}
