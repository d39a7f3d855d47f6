/* fused_attention.c - softmax attention and the masked product: shape rules, meanings, gradients. */
#include "graph/compose.h"
#include "graph/ops.h"

#include <math.h>

static int64_t attention_flops(const mn_node *n) { /* scores and values; a causal mask halves it */
  const mn_attention_attr *a = n->attr;
  int64_t B = mn_dim(n->in[0], 0), T = mn_dim(n->in[0], 1), H = mn_dim(n->in[0], 2), S = mn_dim(n->in[1], 1);
  double seen = (double)S;
  if (a->window > 0 && a->window + a->prefix + a->sinks < S) seen = (double)(a->window + a->prefix + a->sinks);
  else if (a->causal && T == S - a->prefix && T > 1) seen = (double)a->prefix + 0.5 * (double)T;
  return (int64_t)(2.0 * (double)(B * T * H) * seen * (double)(mn_dim(n->in[0], 3) + mn_dim(n->in[2], 3)));
}

/* visible[B or 1, 1, 1, T, S]: which key each query may see */
static mn_tensor *visibility(mn_graph *g, const mn_attention_attr *a, mn_tensor *q, mn_tensor *k, mn_tensor *q_pos, mn_tensor *k_pos) {
  int64_t B = mn_dim(q, 0), T = mn_dim(q, 1), S = mn_dim(k, 1);
  mn_tensor *slot = mn_iota(g, MN_I32, MN_SHAPE(1, 1, 1, 1, S), 4);
  mn_tensor *kp = k_pos ? mn_reshape(g, k_pos, MN_SHAPE(B, 1, 1, 1, S)) : mn_add_scalar(g, slot, (double)-a->prefix);
  mn_tensor *qp = mn_iota(g, MN_I32, MN_SHAPE(1, 1, 1, T, 1), 3);
  qp = q_pos ? mn_add(g, qp, mn_reshape(g, q_pos, MN_SHAPE(B, 1, 1, 1, 1))) : mn_add_scalar(g, qp, (double)a->q_start);
  mn_tensor *zero = mn_scalar(g, MN_I32, 0);
  mn_tensor *seen = mn_expand(g, mn_le(g, zero, kp), MN_SHAPE(k_pos || q_pos ? B : 1, 1, 1, T, S));
  if (a->causal) seen = mn_and(g, seen, mn_le(g, kp, qp));
  if (a->window > 0) {
    mn_tensor *near = mn_lt(g, mn_add_scalar(g, qp, (double)-a->window), kp);
    if (a->sinks > 0) near = mn_or(g, near, mn_lt(g, kp, mn_scalar(g, MN_I32, (double)a->sinks)));
    seen = mn_and(g, seen, near);
  }
  if (a->prefix > 0) seen = mn_or(g, seen, mn_lt(g, slot, mn_scalar(g, MN_I32, (double)a->prefix)));
  return seen;
}

static void attention_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  const mn_attention_attr *a = n->attr;
  mn_dtype t = in[0]->dtype == MN_F64 ? MN_F64 : MN_F32;
  int64_t B = mn_dim(in[0], 0), T = mn_dim(in[0], 1), H = mn_dim(in[0], 2), K = mn_dim(in[0], 3);
  int64_t S = mn_dim(in[1], 1), G = mn_dim(in[1], 2), V = mn_dim(in[2], 3), R = H / G;
  mn_tensor *q_pos = a->has_pos ? in[3] : NULL, *k_pos = a->has_pos ? in[4] : NULL;
  mn_tensor *bias = a->has_bias ? in[3 + 2 * a->has_pos] : NULL;
  /* [B,G,R,T,K], [B,G,1,K,S], [B,G,1,S,V] */
  mn_tensor *q = mn_permute(g, mn_reshape(g, mn_cast(g, in[0], t), MN_SHAPE(B, T, G, R, K)), (int[]){0, 2, 3, 1, 4});
  mn_tensor *k = mn_unsqueeze(g, mn_permute(g, mn_cast(g, in[1], t), (int[]){0, 2, 3, 1}), 2);
  mn_tensor *v = mn_unsqueeze(g, mn_permute(g, mn_cast(g, in[2], t), (int[]){0, 2, 1, 3}), 2);
  mn_tensor *s = mn_mul_scalar(g, mn_matmul(g, q, k), a->scale);
  if (bias) s = mn_add(g, s, mn_reshape(g, mn_expand(g, mn_cast(g, bias, t), MN_SHAPE(B, H, T, S)), MN_SHAPE(B, G, R, T, S)));
  mn_tensor *seen = visibility(g, a, in[0], in[1], q_pos, k_pos);
  s = mn_select(g, seen, s, mn_scalar(g, t, -1e30));
  mn_tensor *m = mn_stop_gradient(g, mn_max(g, s, 1u << 4));
  mn_tensor *p = mn_select(g, seen, mn_exp(g, mn_sub(g, s, m)), mn_scalar(g, t, 0));
  mn_tensor *l = mn_sum(g, p, 1u << 4);
  mn_tensor *any = mn_lt(g, mn_scalar(g, t, 0), l);
  mn_tensor *safe = mn_select(g, any, l, mn_scalar(g, t, 1));
  mn_tensor *o = mn_div(g, mn_matmul(g, p, v), safe); /* [B,G,R,T,V] */
  out[0] = mn_cast(g, mn_reshape(g, mn_permute(g, o, (int[]){0, 3, 1, 2, 4}), MN_SHAPE(B, T, H, V)), n->out[0]->dtype);
  mn_tensor *lse = mn_select(g, any, mn_add(g, m, mn_log(g, safe)), mn_scalar(g, t, -INFINITY));
  out[1] = mn_reshape(g, lse, MN_SHAPE(B, H, T));
}

static void attention_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  const mn_attention_attr *a = n->attr;
  mn_tensor *in[10];
  mn_dtype types[4];
  mn_shape shapes[4];
  int n_in = n->n_in, n_out = 3;
  (void)need;
  for (int i = 0; i < n_in; i++) in[i] = n->in[i];
  in[n_in++] = n->out[0];
  in[n_in++] = n->out[1];
  in[n_in++] = dout[0] ? dout[0] : mn_zeros_like(g, n->out[0]);
  in[n_in++] = dout[1] ? dout[1] : mn_zeros_like(g, n->out[1]);
  for (int i = 0; i < 3; i++) types[i] = n->in[i]->dtype, shapes[i] = n->in[i]->shape;
  int bias = 3 + 2 * a->has_pos;
  if (a->has_bias) types[3] = n->in[bias]->dtype, shapes[3] = n->in[bias]->shape, n_out = 4;
  mn_node *d = mn_node_new(g, &mn_op_attention_grad, n_in, in, n_out, types, shapes, a);
  if (!d) return;
  for (int i = 0; i < 3; i++) din[i] = d->out[i];
  if (a->has_bias) din[bias] = d->out[3];
}
const mn_op mn_op_attention = {.name = "attention",
                               .cls = MN_OP_FUSED,
                               .attr_size = sizeof(mn_attention_attr),
                               .grad = attention_grad,
                               .compose = attention_compose,
                               .flops = attention_flops};

static int64_t attention_grad_flops(const mn_node *n) { return attention_flops(n) * 5 / 2; }

static void attention_grad_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  const mn_attention_attr *a = n->attr;
  int k = n->n_in - 4, bias = 3 + 2 * a->has_pos;
  bool need[6] = {true, true, true};
  mn_tensor *din[6] = {NULL}, *dout[2] = {in[k + 2], in[k + 3]};
  mn_dtype types[2] = {in[k]->dtype, in[k + 1]->dtype};
  mn_shape shapes[2] = {in[k]->shape, in[k + 1]->shape};
  if (a->has_bias) need[bias] = true;
  mn_vjp_of(g, &mn_op_attention, a, k, in, 2, types, shapes, dout, need, din, NULL);
  for (int i = 0; i < 3; i++) out[i] = din[i];
  if (a->has_bias) out[3] = din[bias];
}
const mn_op mn_op_attention_grad = {.name = "attention_grad",
                                    .cls = MN_OP_FUSED,
                                    .attr_size = sizeof(mn_attention_attr),
                                    .compose = attention_grad_compose,
                                    .flops = attention_grad_flops};

mn_tensor *mn_attention(mn_graph *g, mn_tensor *q, mn_tensor *k, mn_tensor *v, mn_tensor *q_pos, mn_tensor *k_pos, mn_tensor *bias,
                        mn_attention_attr attr, mn_tensor **lse) {
  mn_tensor *in[6] = {q, k, v};
  int n = 3;
  if (lse) *lse = NULL;
  if (!q || !k || !v) return NULL;
  int64_t B = mn_dim(q, 0), T = mn_dim(q, 1), H = mn_dim(q, 2), S = mn_dim(k, 1), G = mn_dim(k, 2);
  char x[96], y[96], z[96];
  bool ok = q->shape.ndim == 4 && k->shape.ndim == 4 && v->shape.ndim == 4 && mn_dim(k, 0) == B && mn_dim(v, 0) == B && mn_dim(v, 1) == S &&
            mn_dim(v, 2) == G && G > 0 && H % G == 0 && mn_dim(q, 3) == mn_dim(k, 3) && q->dtype == k->dtype && q->dtype == v->dtype &&
            mn_dtype_is_float(q->dtype);
  if (!ok) {
    mn_graph_fault(g, MN_ERR_SHAPE, "attention: q %s, k %s, v %s do not fit ([B,T,H,K], [B,S,G,K], [B,S,G,V], G divides H, one type)",
                   mn_shape_str(&q->shape, x), mn_shape_str(&k->shape, y), mn_shape_str(&v->shape, z));
    return NULL;
  }
  if (!q_pos != !k_pos || (q_pos && (q_pos->dtype != MN_I32 || k_pos->dtype != MN_I32 || q_pos->shape.ndim != 1 || mn_dim(q_pos, 0) != B ||
                                     k_pos->shape.ndim != 2 || mn_dim(k_pos, 0) != B || mn_dim(k_pos, 1) != S))) {
    mn_graph_fault(g, MN_ERR_SHAPE, "attention: positions come in pairs, q_pos i32 [B] and k_pos i32 [B,S]");
    return NULL;
  }
  attr.has_pos = q_pos != NULL;
  attr.has_bias = bias != NULL;
  if (q_pos) in[n++] = q_pos, in[n++] = k_pos;
  if (bias) in[n++] = bias;
  mn_shape so = q->shape, sl = MN_SHAPE(B, H, T);
  so.dim[3] = mn_dim(v, 3);
  mn_dtype types[2] = {q->dtype, q->dtype == MN_F64 ? MN_F64 : MN_F32};
  mn_node *node = mn_node_new(g, &mn_op_attention, n, in, 2, types, (mn_shape[]){so, sl}, &attr);
  if (!node) return NULL;
  if (lse) *lse = node->out[1];
  return node->out[0];
}

/* ---- masked product: ((x y^T) * p) z ---- */
static void masked_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  (void)n;
  mn_tensor *a = mn_mul(g, mn_matmul(g, in[0], mn_transpose(g, in[1], -1, -2)), in[2]);
  out[0] = mn_matmul(g, a, in[3]);
}
static void masked_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  mn_tensor *x = n->in[0], *y = n->in[1], *p = n->in[2], *z = n->in[3], *d = dout[0];
  mn_tensor *pt = mn_transpose(g, p, -1, -2);
  if (need[0]) din[0] = mn_masked_product(g, d, z, p, y);
  if (need[1]) din[1] = mn_masked_product(g, z, d, pt, x);
  if (need[2]) din[2] = mn_mul(g, mn_matmul(g, d, mn_transpose(g, z, -1, -2)), mn_matmul(g, x, mn_transpose(g, y, -1, -2)));
  if (need[3]) din[3] = mn_masked_product(g, y, x, pt, d);
}
static int64_t masked_flops(const mn_node *n) {
  return 2 * mn_shape_count(&n->in[2]->shape) * (mn_dim(n->in[0], -1) + mn_dim(n->in[3], -1));
}
const mn_op mn_op_masked_product = {
    .name = "masked_product", .cls = MN_OP_FUSED, .grad = masked_grad, .compose = masked_compose, .flops = masked_flops};

mn_tensor *mn_masked_product(mn_graph *g, mn_tensor *x, mn_tensor *y, mn_tensor *p, mn_tensor *z) {
  mn_tensor *in[4] = {x, y, p, z};
  if (!x || !y || !p || !z) return NULL;
  int nd = x->shape.ndim;
  bool ok = nd >= 2 && y->shape.ndim == nd && p->shape.ndim == nd && z->shape.ndim == nd && x->dtype == y->dtype && x->dtype == p->dtype &&
            x->dtype == z->dtype && mn_dim(x, -1) == mn_dim(y, -1) && mn_dim(p, -2) == mn_dim(x, -2) && mn_dim(p, -1) == mn_dim(y, -2) &&
            mn_dim(z, -2) == mn_dim(y, -2);
  for (int i = 0; ok && i < nd - 2; i++)
    ok = x->shape.dim[i] == y->shape.dim[i] && x->shape.dim[i] == p->shape.dim[i] && x->shape.dim[i] == z->shape.dim[i];
  if (!ok) {
    char a[96], b[96], c[96], d[96];
    mn_graph_fault(g, MN_ERR_SHAPE, "masked_product: x %s, y %s, p %s, z %s do not fit", mn_shape_str(&x->shape, a),
                   mn_shape_str(&y->shape, b), mn_shape_str(&p->shape, c), mn_shape_str(&z->shape, d));
    return NULL;
  }
  mn_shape s = x->shape;
  s.dim[nd - 1] = mn_dim(z, -1);
  return mn_node1(g, &mn_op_masked_product, 4, in, x->dtype, s, NULL);
}
