/* fused_rope.c - rotary position embedding: shape rule, meaning, gradient. */
#include "graph/compose.h"
#include "graph/fused_rope.h"
#include "graph/ops.h"

static mn_tensor *angle(mn_graph *g, mn_tensor *t, mn_dtype type) { /* [T or B,T, K/2] -> [1 or B, T, 1, K/2] */
  t = mn_cast(g, t, type);
  if (t->shape.ndim == 2) t = mn_unsqueeze(g, t, 0);
  return mn_unsqueeze(g, t, 2);
}
static void rope_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  const mn_rope_attr *a = n->attr;
  mn_dtype t = mn_inner_type(in[0]->dtype);
  mn_tensor *x = mn_cast(g, in[0], t), *cos = angle(g, in[1], t), *sin = angle(g, in[2], t), *x1, *x2;
  int64_t half = mn_dim(x, -1) / 2;
  mn_shape s = x->shape, pairs = s;
  if (a->inverse) sin = mn_neg(g, sin);
  if (a->interleaved) {
    pairs.dim[3] = half, pairs.dim[4] = 2, pairs.ndim = 5;
    mn_tensor *p = mn_reshape(g, x, pairs);
    x1 = mn_squeeze(g, mn_slice(g, p, 4, 0, 1), 4);
    x2 = mn_squeeze(g, mn_slice(g, p, 4, 1, 1), 4);
  } else {
    x1 = mn_slice(g, x, 3, 0, half);
    x2 = mn_slice(g, x, 3, half, half);
  }
  mn_tensor *y[2] = {mn_sub(g, mn_mul(g, x1, cos), mn_mul(g, x2, sin)), mn_add(g, mn_mul(g, x2, cos), mn_mul(g, x1, sin))};
  if (a->interleaved) {
    y[0] = mn_unsqueeze(g, y[0], 4);
    y[1] = mn_unsqueeze(g, y[1], 4);
    out[0] = mn_reshape(g, mn_concat(g, 2, y, 4), s);
  } else {
    out[0] = mn_concat(g, 2, y, 3);
  }
  out[0] = mn_cast(g, out[0], n->out[0]->dtype);
}
static void rope_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  mn_rope_attr a = *(mn_rope_attr *)n->attr;
  if (need[1] || need[2]) {
    mn_vjp_composed(g, n, n->in, dout, need, din);
    return;
  }
  a.inverse = !a.inverse;
  din[0] = mn_node1(g, &mn_op_rope, 3, (mn_tensor *[]){dout[0], n->in[1], n->in[2]}, n->in[0]->dtype, n->in[0]->shape, &a);
}
const mn_op mn_op_rope = {.name = "rope",
                          .cls = MN_OP_FUSED,
                          .attr_size = sizeof(mn_rope_attr),
                          .grad = rope_grad,
                          .compose = rope_compose,
                          .remake = MN_REMAKE_NORM};

mn_tensor *mn_rope(mn_graph *g, mn_tensor *x, mn_tensor *cos, mn_tensor *sin, mn_rope_pairs pairs) {
  mn_tensor *in[3] = {x, cos, sin};
  if (x && cos && sin) {
    bool ok = x->shape.ndim == 4 && mn_dim(x, 3) % 2 == 0 && mn_shape_equal(&cos->shape, &sin->shape) &&
              mn_dim(cos, -1) == mn_dim(x, 3) / 2 && mn_dim(cos, -2) == mn_dim(x, 1) &&
              (cos->shape.ndim == 2 || (cos->shape.ndim == 3 && mn_dim(cos, 0) == mn_dim(x, 0)));
    if (!ok) {
      char a[96], b[96];
      mn_graph_fault(g, MN_ERR_SHAPE, "rope: tables %s do not fit %s (head width must be even)", mn_shape_str(&cos->shape, a),
                     mn_shape_str(&x->shape, b));
      return NULL;
    }
  }
  mn_rope_attr a = {.interleaved = pairs == MN_ROPE_INTERLEAVED};
  return mn_node1(g, &mn_op_rope, 3, in, x ? x->dtype : MN_F32, x ? x->shape : (mn_shape){0}, &a);
}
