/* gated_attention.c - the two-level softmax of Landmark Attention: what attention with gated blocks means, in core operations. */
#include "graph/gated_attention.h"
#include "graph/fused_attention.h"

#include <math.h>

/* Softmax along `axis` over what is seen (bool, broadcasts); nothing seen: zeros, and lse far below any score. */
static mn_tensor *softmax_seen(mn_graph *g, mn_tensor *score, mn_tensor *seen, int axis, mn_tensor **lse) {
  if (!score || !seen) return NULL;
  const unsigned along = MN_AXIS(axis);
  mn_tensor *hidden = mn_scalar(g, score->dtype, -1e30), *none = mn_scalar(g, score->dtype, 0), *one = mn_scalar(g, score->dtype, 1);
  mn_tensor *s = mn_select(g, seen, score, hidden);
  mn_tensor *top = mn_stop_gradient(g, mn_max(g, s, along));
  mn_tensor *e = mn_select(g, seen, mn_exp(g, mn_sub(g, s, top)), none);
  mn_tensor *sum = mn_sum(g, e, along), *any = mn_lt(g, none, sum), *safe = mn_select(g, any, sum, one);
  if (lse) *lse = mn_select(g, any, mn_add(g, top, mn_log(g, safe)), hidden);
  return mn_div(g, e, safe);
}

void mn_gated_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  const mn_attention_attr *a = n->attr;
  mn_tensor *q = in[0], *k = in[1], *v = in[2];
  const int64_t B = mn_dim(q, 0), T = mn_dim(q, 1), H = mn_dim(q, 2), K = mn_dim(q, 3), S = mn_dim(k, 1), G = mn_dim(k, 2),
                V = mn_dim(v, 3), block = a->gate;
  const mn_dtype exact = mn_inner_type(q->dtype);
  const int64_t R = H / G, blocks = S / block;
  mn_tensor *rows = mn_reshape(g, mn_permute(g, mn_cast(g, q, exact), (int[]){0, 2, 1, 3}), MN_SHAPE(B, G, R * T, K));
  mn_tensor *cols = mn_permute(g, mn_cast(g, k, exact), (int[]){0, 2, 3, 1}); /* [B,G,K,S] */
  mn_tensor *values = mn_permute(g, mn_cast(g, v, exact), (int[]){0, 2, 1, 3});
  mn_tensor *score = mn_mul_scalar(g, mn_matmul(g, rows, cols), a->scale);
  score = mn_reshape(g, score, MN_SHAPE(B * G * R, T, blocks, block));

  /* who is where: t, the block of t, each block, each place in a block */
  mn_tensor *t = mn_add_scalar(g, mn_iota(g, MN_I32, MN_SHAPE(1, T, 1, 1), 1), (double)a->q_start);
  mn_tensor *own = mn_div(g, t, mn_full(g, MN_I32, MN_SHAPE(1, T, 1, 1), (double)block));
  mn_tensor *at = mn_iota(g, MN_I32, MN_SHAPE(1, 1, blocks, 1), 2), *place = mn_iota(g, MN_I32, MN_SHAPE(1, 1, 1, block), 3);
  mn_tensor *j = mn_add(g, mn_mul_scalar(g, at, (double)block), place);
  mn_tensor *is_token = mn_lt(g, place, mn_scalar(g, MN_I32, (double)(block - 1)));

  mn_tensor *lse, *seen = mn_and(g, is_token, mn_le(g, j, t));
  mn_tensor *inner = softmax_seen(g, score, seen, 3, &lse); /* of each block, by itself */
  mn_tensor *gate = mn_slice(g, score, 3, block - 1, 1);    /* [.,T,blocks,1] */
  mn_tensor *before = mn_lt(g, at, own), *local = mn_eq(g, at, own);
  mn_tensor *has_local = mn_and(g, local, mn_lt(g, mn_scalar(g, exact, -1e29), lse));
  mn_tensor *all, *outer = softmax_seen(g, mn_select(g, before, gate, lse), mn_or(g, before, has_local), 2, &all);
  mn_tensor *weight = mn_reshape(g, mn_mul(g, inner, outer), MN_SHAPE(B, G, R * T, S));
  mn_tensor *o = mn_reshape(g, mn_matmul(g, weight, values), MN_SHAPE(B, H, T, V));
  out[0] = mn_cast(g, mn_permute(g, o, (int[]){0, 2, 1, 3}), n->out[0]->dtype);
  mn_tensor *none = mn_lt(g, all, mn_scalar(g, exact, -1e29));
  out[1] = mn_reshape(g, mn_select(g, none, mn_scalar(g, exact, -INFINITY), all), MN_SHAPE(B, H, T));
}

mn_tensor *mn_gated_attention(mn_graph *g, mn_tensor *q, mn_tensor *k, mn_tensor *v, double scale, int64_t block, int64_t q_start) {
  mn_attention_io io = {.q = q, .k = k, .v = v};
  mn_attend(g, &io, (mn_attention_attr){.scale = scale, .causal = true, .gate = block < 2 ? -1 : block, .q_start = q_start});
  return io.o;
}
