/* fused_attention.c - softmax attention: shape rule, meaning, gradient. */
#include "base/narrow.h"
#include "graph/compose.h"
#include "graph/fused_attention.h"
#include "graph/gated_attention.h"
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

/* ---- who sees whom ---- Positions are i32, [B or 1, 1, 1, S] of keys and [B or 1, 1, T, 1] of queries; conditions broadcast. */
typedef struct operands { /* what there is besides q, k, v; NULL: not given */
  mn_tensor *q_pos, *k_pos, *length, *blocks, *bias, *by_distance;
} operands;

static operands operands_of(const mn_attention_attr *a, mn_tensor **in) {
  operands o = {0};
  int i = 3;
  if (a->has_q_pos) o.q_pos = in[i++];
  if (a->has_k_pos) o.k_pos = in[i++];
  if (a->has_length) o.length = in[i++];
  if (a->has_blocks) o.blocks = in[i++];
  if (a->has_bias) o.bias = in[i];
  if (a->by_distance) o.by_distance = in[i];
  return o;
}
int mn_attention_operands(const mn_attention_attr *a) { return 3 + a->has_q_pos + a->has_k_pos + a->has_length + a->has_blocks; }

static mn_tensor *query_positions(mn_graph *g, const mn_attention_attr *a, mn_tensor *q_pos, int64_t T) {
  mn_tensor *t = mn_iota(g, MN_I32, MN_SHAPE(1, 1, T, 1), 2);
  if (!q_pos) return mn_add_scalar(g, t, (double)a->q_start);
  if (q_pos->shape.ndim == 2) return mn_reshape(g, q_pos, MN_SHAPE(mn_dim(q_pos, 0), 1, T, 1));
  return mn_add(g, t, mn_reshape(g, q_pos, MN_SHAPE(mn_dim(q_pos, 0), 1, 1, 1)));
}

/* A ring of R slots after the sinks: slot i holds the latest of the positions i, i + R, ... below `written`. */
static mn_tensor *ring_positions(mn_graph *g, const mn_attention_attr *a, mn_tensor *i, mn_tensor *written, int64_t S) {
  mn_tensor *R = mn_scalar(g, MN_I32, (double)(S - a->prefix - a->sinks)), *sinks = mn_scalar(g, MN_I32, (double)a->sinks);
  mn_tensor *last = mn_add_scalar(g, written, -1);
  mn_tensor *p = mn_sub(g, last, mn_mod(g, mn_sub(g, last, i), R));
  p = mn_select(g, mn_le(g, i, p), p, mn_scalar(g, MN_I32, -1));
  return a->sinks ? mn_select(g, mn_lt(g, i, sinks), i, p) : p;
}

/* -1: not there */
static mn_tensor *key_positions(mn_graph *g, const mn_attention_attr *a, const operands *o, int64_t S) {
  mn_tensor *i = mn_add_scalar(g, mn_iota(g, MN_I32, MN_SHAPE(1, 1, 1, S), 3), (double)-a->prefix), *p = i;
  if (o->k_pos) p = mn_reshape(g, o->k_pos, MN_SHAPE(mn_dim(o->k_pos, 0), 1, 1, S));
  if (!o->length) return p;
  mn_tensor *written = mn_reshape(g, o->length, MN_SHAPE(mn_dim(o->length, 0), 1, 1, 1));
  if (a->ring) p = ring_positions(g, a, i, written, S);
  return mn_select(g, mn_lt(g, i, written), p, mn_scalar(g, MN_I32, -1));
}

/* [B or 1, H or 1, T, S - prefix]: which keys the lists name, each block as wide as it is */
static mn_tensor *listed(mn_graph *g, const mn_attention_attr *a, mn_tensor *blocks, int64_t T, int64_t S) {
  const int64_t B = mn_dim(blocks, 0), H = mn_dim(blocks, 1), rows = mn_dim(blocks, 2), cols = (S + a->block_k - 1) / a->block_k;
  mn_tensor *hits = mn_eq(g, mn_unsqueeze(g, blocks, 4), mn_iota(g, MN_I32, MN_SHAPE(1, 1, 1, 1, cols), 4)); /* [B,H,rows,n,cols] */
  mn_tensor *some = mn_lt(g, mn_scalar(g, MN_I32, 0), mn_sum(g, mn_cast(g, hits, MN_I32), MN_AXIS(3)));
  mn_tensor *wide = mn_expand(g, mn_unsqueeze(g, some, 5), MN_SHAPE(B, H, rows, a->block_q, cols, a->block_k));
  wide = mn_reshape(g, wide, MN_SHAPE(B, H, rows * a->block_q, cols * a->block_k));
  return mn_slice(g, mn_slice(g, wide, 2, 0, T), 3, 0, S);
}

/* [B or 1, H or 1, T, S]: which key each query may see */
static mn_tensor *visibility(mn_graph *g, const mn_attention_attr *a, const operands *o, int64_t T, int64_t S) {
  mn_tensor *qp = query_positions(g, a, o->q_pos, T), *kp = key_positions(g, a, o, S);
  mn_tensor *seen = mn_le(g, mn_scalar(g, MN_I32, 0), kp);
  if (a->causal) seen = mn_and(g, seen, mn_le(g, kp, qp));
  if (a->window > 0) {
    mn_tensor *near = mn_lt(g, mn_add_scalar(g, qp, (double)-a->window), kp);
    if (a->sinks > 0) near = mn_or(g, near, mn_lt(g, kp, mn_scalar(g, MN_I32, (double)a->sinks)));
    seen = mn_and(g, seen, near);
  }
  if (o->blocks) {
    mn_tensor *named = listed(g, a, o->blocks, T, S - a->prefix);
    if (a->prefix > 0)
      named =
          mn_concat(g, 2, (mn_tensor *[]){mn_full(g, MN_BOOL, MN_SHAPE(mn_dim(named, 0), mn_dim(named, 1), T, a->prefix), 1), named}, 3);
    seen = mn_and(g, seen, named);
  }
  if (a->prefix > 0) {
    mn_tensor *slot = mn_iota(g, MN_I32, MN_SHAPE(1, 1, 1, S), 3);
    seen = mn_or(g, seen, mn_lt(g, slot, mn_scalar(g, MN_I32, (double)a->prefix)));
  }
  return mn_expand(g, seen, MN_SHAPE(mn_dim(seen, 0), mn_dim(seen, 1), T, S));
}

/* [B or 1, H, T, S]: what the table has at each distance; keys of the prefix stand nowhere and get 0 */
static mn_tensor *bias_by_distance(mn_graph *g, const mn_attention_attr *a, const operands *o, int64_t T, int64_t S) {
  const double last = (double)mn_dim(o->by_distance, 1) - 1;
  mn_tensor *apart = mn_sub(g, query_positions(g, a, o->q_pos, T), key_positions(g, a, o, S)); /* [B or 1, 1, T, S] */
  mn_tensor *at = mn_maximum(g, mn_add_scalar(g, apart, (double)a->distance_zero), mn_scalar(g, MN_I32, 0));
  at = mn_reshape(g, mn_minimum(g, at, mn_scalar(g, MN_I32, last)), MN_SHAPE(mn_dim(apart, 0), T, S));
  mn_tensor *bias = mn_permute(g, mn_take(g, mn_transpose(g, o->by_distance, 0, 1), at, 0), (int[]){0, 3, 1, 2});
  if (!a->prefix) return bias;
  mn_tensor *fixed = mn_lt(g, mn_iota(g, MN_I32, MN_SHAPE(1, 1, 1, S), 3), mn_scalar(g, MN_I32, (double)a->prefix));
  return mn_select(g, fixed, mn_scalar(g, o->by_distance->dtype, 0), bias);
}

/* Rows of a key or value x [B,S,G,K] that stand nowhere become 0: nothing was ever written there, and whatever it is times 0 may not be. */
static mn_tensor *written_rows(mn_graph *g, const mn_attention_attr *a, const operands *o, mn_tensor *x) {
  if (!o->length && !o->k_pos) return x;
  const int64_t S = mn_dim(x, 1);
  mn_tensor *there = mn_le(g, mn_scalar(g, MN_I32, 0), key_positions(g, a, o, S)); /* [B or 1, 1, 1, S] */
  if (a->prefix) there = mn_or(g, there, mn_lt(g, mn_iota(g, MN_I32, MN_SHAPE(1, 1, 1, S), 3), mn_scalar(g, MN_I32, (double)a->prefix)));
  return mn_select(g, mn_reshape(g, there, MN_SHAPE(mn_dim(there, 0), S, 1, 1)), x, mn_zeros_like(g, x));
}

static void attention_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  const mn_attention_attr *a = n->attr;
  if (a->gate) {
    mn_gated_compose(g, n, in, out);
    return;
  }
  mn_dtype t = mn_inner_type(in[0]->dtype);
  int64_t B = mn_dim(in[0], 0), T = mn_dim(in[0], 1), H = mn_dim(in[0], 2), K = mn_dim(in[0], 3);
  int64_t S = mn_dim(in[1], 1), G = mn_dim(in[1], 2), V = mn_dim(in[2], 3), R = H / G;
  operands op = operands_of(a, in);
  if (a->by_distance) op.bias = bias_by_distance(g, a, &op, T, S);
  /* [B,G,R,T,K], [B,G,1,K,S], [B,G,1,S,V] */
  mn_tensor *q = mn_permute(g, mn_reshape(g, mn_cast(g, in[0], t), MN_SHAPE(B, T, G, R, K)), (int[]){0, 2, 3, 1, 4});
  mn_tensor *k = written_rows(g, a, &op, mn_cast(g, in[1], t)), *v = written_rows(g, a, &op, mn_cast(g, in[2], t));
  k = mn_unsqueeze(g, mn_permute(g, k, (int[]){0, 2, 3, 1}), 2);
  v = mn_unsqueeze(g, mn_permute(g, v, (int[]){0, 2, 1, 3}), 2);
  mn_tensor *s = mn_mul_scalar(g, mn_matmul(g, q, k), a->scale);
  if (a->softcap > 0) s = mn_mul_scalar(g, mn_tanh(g, mn_mul_scalar(g, s, 1 / a->softcap)), a->softcap);
  if (op.bias) s = mn_add(g, s, mn_reshape(g, mn_expand(g, mn_cast(g, op.bias, t), MN_SHAPE(B, H, T, S)), MN_SHAPE(B, G, R, T, S)));
  mn_tensor *seen = visibility(g, a, &op, T, S);
  const bool by_head = mn_dim(seen, 1) == H;
  seen = mn_reshape(g, seen, MN_SHAPE(mn_dim(seen, 0), by_head ? G : 1, by_head ? R : 1, T, S));
  s = mn_select(g, seen, s, mn_scalar(g, t, -1e30));
  mn_tensor *m = mn_stop_gradient(g, mn_max(g, s, MN_AXIS(4)));
  mn_tensor *p = mn_select(g, seen, mn_exp(g, mn_sub(g, s, m)), mn_scalar(g, t, 0));
  mn_tensor *l = mn_sum(g, p, MN_AXIS(4));
  mn_tensor *any = mn_lt(g, mn_scalar(g, t, 0), l);
  mn_tensor *safe = mn_select(g, any, l, mn_scalar(g, t, 1));
  mn_tensor *o = mn_div(g, mn_matmul(g, p, v), safe); /* [B,G,R,T,V] */
  out[0] = mn_cast(g, mn_reshape(g, mn_permute(g, o, (int[]){0, 3, 1, 2, 4}), MN_SHAPE(B, T, H, V)), n->out[0]->dtype);
  mn_tensor *lse = mn_select(g, any, mn_add(g, m, mn_log(g, safe)), mn_scalar(g, t, -INFINITY));
  out[1] = mn_reshape(g, lse, MN_SHAPE(B, H, T));
}

static void attention_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  const mn_attention_attr *a = n->attr;
  mn_tensor *in[13];
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
  int bias = mn_attention_operands(a);
  if (mn_attention_biased(a)) types[3] = n->in[bias]->dtype, shapes[3] = n->in[bias]->shape, n_out = 4;
  mn_node *d = mn_node_new(g, &mn_op_attention_grad, n_in, in, n_out, types, shapes, a);
  if (!d) return;
  for (int i = 0; i < 3; i++) din[i] = d->out[i];
  if (mn_attention_biased(a)) din[bias] = d->out[3];
}
const mn_op mn_op_attention = {.name = "attention",
                               .cls = MN_OP_FUSED,
                               .attr_size = sizeof(mn_attention_attr),
                               .grad = attention_grad,
                               .compose = attention_compose,
                               .flops = attention_flops,
                               .stored = 1 << 1 | 1 << 2};

static int64_t attention_grad_flops(const mn_node *n) { return attention_flops(n) * 5 / 2; }

static void attention_grad_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  const mn_attention_attr *a = n->attr;
  int k = n->n_in - 4, bias = mn_attention_operands(a);
  bool need[9] = {true, true, true};
  mn_tensor *din[9] = {NULL}, *dout[2] = {in[k + 2], in[k + 3]};
  mn_dtype types[2] = {in[k]->dtype, in[k + 1]->dtype};
  mn_shape shapes[2] = {in[k]->shape, in[k + 1]->shape};
  if (mn_attention_biased(a)) need[bias] = true;
  mn_vjp_of(g, &mn_op_attention, a, k, in, 2, types, shapes, dout, need, din, NULL);
  for (int i = 0; i < 3; i++) out[i] = din[i];
  if (mn_attention_biased(a)) out[3] = din[bias];
}
const mn_op mn_op_attention_grad = {.name = "attention_grad",
                                    .cls = MN_OP_FUSED,
                                    .attr_size = sizeof(mn_attention_attr),
                                    .compose = attention_grad_compose,
                                    .flops = attention_grad_flops};

static bool is_i32(const mn_tensor *t, int ndim, int64_t B, int64_t n) {
  return t->dtype == MN_I32 && t->shape.ndim == ndim && mn_dim(t, 0) == B && (ndim == 1 || mn_dim(t, 1) == n);
}

static bool operands_fit(mn_graph *g, const mn_attention_io *io, const mn_attention_attr *a) {
  const int64_t B = mn_dim(io->q, 0), T = mn_dim(io->q, 1), H = mn_dim(io->q, 2), S = mn_dim(io->k, 1), G = mn_dim(io->k, 2);
  const mn_tensor *q = io->q, *k = io->k, *v = io->v;
  char x[96], y[96], z[96];
  if (!(q->shape.ndim == 4 && k->shape.ndim == 4 && v->shape.ndim == 4 && mn_dim(k, 0) == B && mn_dim(v, 0) == B && mn_dim(v, 1) == S &&
        mn_dim(v, 2) == G && G > 0 && H % G == 0 && mn_dim(q, 3) == mn_dim(k, 3) && k->dtype == v->dtype &&
        (q->dtype == k->dtype || mn_is_narrow(k->dtype)) && mn_dtype_is_float(q->dtype))) {
    mn_graph_fault(
        g, MN_ERR_SHAPE,
        "attention: q %s, k %s, v %s do not fit ([B,T,H,K], [B,S,G,K], [B,S,G,V], G divides H; k and v of q's type or a cache's)",
        mn_shape_str(&q->shape, x), mn_shape_str(&k->shape, y), mn_shape_str(&v->shape, z));
    return false;
  }
  if ((io->q_pos && !is_i32(io->q_pos, 1, B, 0) && !is_i32(io->q_pos, 2, B, T)) || (io->k_pos && !is_i32(io->k_pos, 2, B, S)) ||
      (io->length && !is_i32(io->length, 1, B, 0))) {
    mn_graph_fault(g, MN_ERR_SHAPE, "attention: positions are i32, of queries [B] or [B,T], of keys [B,S]; the length of keys is i32 [B]");
    return false;
  }
  const mn_tensor *l = io->blocks;
  if (l && (a->block_q < 1 || a->block_k < 1 || a->prefix >= S || l->dtype != MN_I32 || l->shape.ndim != 4 ||
            (mn_dim(l, 0) != 1 && mn_dim(l, 0) != B) || (mn_dim(l, 1) != 1 && mn_dim(l, 1) != H) ||
            mn_dim(l, 2) != (T + a->block_q - 1) / a->block_q)) {
    mn_graph_fault(g, MN_ERR_SHAPE,
                   "attention: lists of blocks %s %s do not fit (i32 [B or 1, H or 1, ceil(T / block_q), n], block_q and block_k positive)",
                   mn_dtype_name(l->dtype), mn_shape_str(&l->shape, x));
    return false;
  }
  const mn_tensor *far = io->by_distance;
  if (far && (io->bias || far->shape.ndim != 2 || mn_dim(far, 0) != H || mn_dim(far, 1) < 1 ||
              far->dtype != (q->dtype == MN_F64 ? MN_F64 : MN_F32))) {
    mn_graph_fault(g, MN_ERR_SHAPE, "attention: by_distance %s %s does not fit (f32 [H,N], and no bias beside it)",
                   mn_dtype_name(far->dtype), mn_shape_str(&far->shape, x));
    return false;
  }
  if (a->gate && (a->gate < 2 || S % a->gate || !a->causal || a->window || a->prefix || a->sinks || a->ring || io->q_pos || io->k_pos ||
                  io->length || l || io->bias || far || a->softcap > 0)) {
    mn_graph_fault(g, MN_ERR_SHAPE,
                   "attention: gated blocks of %lld keys (of %lld) have at least 2 and fill S, and go with causal and q_start alone",
                   (long long)a->gate, (long long)S);
    return false;
  }
  if (a->ring && (!io->length || io->k_pos || a->prefix + a->sinks >= S)) {
    mn_graph_fault(g, MN_ERR_SHAPE,
                   "attention: a ring needs its length, keys beyond its prefix %lld and sinks %lld (of %lld), and no k_pos",
                   (long long)a->prefix, (long long)a->sinks, (long long)S);
    return false;
  }
  return true;
}

void mn_attend(mn_graph *g, mn_attention_io *io, mn_attention_attr attr) {
  mn_tensor *in[9] = {io->q, io->k, io->v}, *q = io->q;
  int n = 3;
  io->o = io->lse = NULL;
  if (!q || !io->k || !io->v || !operands_fit(g, io, &attr)) return;
  attr.has_q_pos = io->q_pos != NULL;
  attr.has_k_pos = io->k_pos != NULL;
  attr.has_length = io->length != NULL;
  attr.has_blocks = io->blocks != NULL;
  attr.has_bias = io->bias != NULL;
  attr.by_distance = io->by_distance != NULL;
  if (io->q_pos) in[n++] = io->q_pos;
  if (io->k_pos) in[n++] = io->k_pos;
  if (io->length) in[n++] = io->length;
  if (io->blocks) in[n++] = io->blocks;
  if (io->bias) in[n++] = io->bias;
  if (io->by_distance) in[n++] = io->by_distance;
  mn_shape so = q->shape, sl = MN_SHAPE(mn_dim(q, 0), mn_dim(q, 2), mn_dim(q, 1));
  so.dim[3] = mn_dim(io->v, 3);
  mn_dtype types[2] = {q->dtype, mn_inner_type(q->dtype)};
  mn_node *node = mn_node_new(g, &mn_op_attention, n, in, 2, types, (mn_shape[]){so, sl}, &attr);
  if (!node) return;
  io->o = node->out[0];
  io->lse = node->out[1];
}

mn_tensor *mn_attention(mn_graph *g, mn_tensor *q, mn_tensor *k, mn_tensor *v, mn_tensor *q_pos, mn_tensor *k_pos, mn_tensor *bias,
                        mn_attention_attr attr, mn_tensor **lse) {
  mn_attention_io io = {.q = q, .k = k, .v = v, .q_pos = q_pos, .k_pos = k_pos, .bias = bias};
  mn_attend(g, &io, attr);
  if (lse) *lse = io.lse;
  return io.o;
}
