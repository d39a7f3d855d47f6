/* fused_norm.c - normalisations over the last axis, softmax and rotary embedding: shape rule, meaning, gradient. */
#include "graph/compose.h"
#include "graph/ops.h"

static mn_dtype inner_type(mn_dtype t) { return t == MN_F64 ? MN_F64 : MN_F32; }

/* ---- norm: RMSNorm (Zhang & Sennrich 2019), LayerNorm (Ba et al. 2016), L2 ---- */
static void norm_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  const mn_norm_attr *a = n->attr;
  mn_dtype t = inner_type(in[0]->dtype);
  mn_tensor *x = mn_cast(g, in[0], t), *y;
  unsigned last = 1u << (x->shape.ndim - 1);
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
  mn_tensor *in[4];
  mn_dtype types[3];
  mn_shape shapes[3];
  for (int i = 0; i < n->n_in; i++) in[i] = n->in[i], types[i] = n->in[i]->dtype, shapes[i] = n->in[i]->shape;
  in[n->n_in] = dout[0];
  mn_node *d = mn_node_new(g, &mn_op_norm_grad, n->n_in + 1, in, n->n_in, types, shapes, n->attr);
  for (int i = 0; d && i < n->n_in; i++) din[i] = d->out[i];
}
const mn_op mn_op_norm = {.name = "norm",
                          .cls = MN_OP_FUSED,
                          .attr_size = sizeof(mn_norm_attr),
                          .grad = norm_grad,
                          .compose = norm_compose,
                          .remake = MN_REMAKE_NORM};

static void norm_grad_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  int k = n->n_in - 1;
  bool need[3] = {true, true, true};
  mn_vjp_of(g, &mn_op_norm, n->attr, k, in, 1, &in[k]->dtype, &in[k]->shape, &in[k], need, out, NULL);
}
const mn_op mn_op_norm_grad = {.name = "norm_grad", .cls = MN_OP_FUSED, .attr_size = sizeof(mn_norm_attr), .compose = norm_grad_compose};

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

/* ---- softmax ---- */
static void softmax_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  mn_tensor *x = mn_cast(g, in[0], inner_type(in[0]->dtype));
  unsigned last = 1u << (x->shape.ndim - 1);
  mn_tensor *e = mn_exp(g, mn_sub(g, x, mn_stop_gradient(g, mn_max(g, x, last))));
  out[0] = mn_cast(g, mn_div(g, e, mn_sum(g, e, last)), n->out[0]->dtype);
}
static void softmax_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)need;
  din[0] = mn_node1(g, &mn_op_softmax_grad, 2, (mn_tensor *[]){n->out[0], dout[0]}, n->in[0]->dtype, n->in[0]->shape, NULL);
}
const mn_op mn_op_softmax = {.name = "softmax", .cls = MN_OP_FUSED, .grad = softmax_grad, .compose = softmax_compose};

static void softmax_grad_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  mn_dtype t = inner_type(in[0]->dtype);
  mn_tensor *y = mn_cast(g, in[0], t), *dy = mn_cast(g, in[1], t);
  mn_tensor *dot = mn_sum(g, mn_mul(g, y, dy), 1u << (y->shape.ndim - 1));
  out[0] = mn_cast(g, mn_mul(g, y, mn_sub(g, dy, dot)), n->out[0]->dtype);
}
const mn_op mn_op_softmax_grad = {.name = "softmax_grad", .cls = MN_OP_FUSED, .compose = softmax_grad_compose};

mn_tensor *mn_softmax(mn_graph *g, mn_tensor *x) {
  if (x && x->shape.ndim == 0) {
    mn_graph_fault(g, MN_ERR_SHAPE, "softmax: needs an axis");
    return NULL;
  }
  return mn_node1(g, &mn_op_softmax, 1, &x, x ? x->dtype : MN_F32, x ? x->shape : (mn_shape){0}, NULL);
}

/* ---- rotary position embedding ---- */
static mn_tensor *angle(mn_graph *g, mn_tensor *t, mn_dtype type) { /* [T or B,T, K/2] -> [1 or B, T, 1, K/2] */
  t = mn_cast(g, t, type);
  if (t->shape.ndim == 2) t = mn_unsqueeze(g, t, 0);
  return mn_unsqueeze(g, t, 2);
}
static void rope_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  const mn_rope_attr *a = n->attr;
  mn_dtype t = inner_type(in[0]->dtype);
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

mn_tensor *mn_rope(mn_graph *g, mn_tensor *x, mn_tensor *cos, mn_tensor *sin, bool interleaved) {
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
  mn_rope_attr a = {.interleaved = interleaved};
  return mn_node1(g, &mn_op_rope, 3, in, x ? x->dtype : MN_F32, x ? x->shape : (mn_shape){0}, &a);
}
