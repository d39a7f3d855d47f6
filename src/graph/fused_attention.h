/* fused_attention.h - softmax attention: causal or not, over windows, rings, lists of blocks, keys anywhere. */
#ifndef MN_FUSED_ATTENTION_H
#define MN_FUSED_ATTENTION_H

#include "graph/graph.h"

/* Softmax attention. q[B,T,H,K], k[B,S,G,K], v[B,S,G,V], G divides H -> o[B,T,H,V], lse f32 [B,H,T]. k and v are of q's type, or both of a
 * type of cache (base/narrow.h), and then have no gradient.
 * Where keys are: key j at k_pos[b,j] (i32 [B,S]; a negative position is an empty slot) or, without k_pos, at j - prefix. With
 * length (i32 [B]) keys j with j - prefix >= length[b] are not there. With `ring` the slots after the prefix are a cache into which
 * length[b] tokens have been written, one after the other: the first `sinks` of them into the first slots, the others in turn into the
 * R = S - prefix - sinks slots of a ring, so that a slot holds the latest of its tokens; cost follows what is filled, not S.
 * Where queries are: query t at q_pos[b] + t (i32 [B]) or at q_pos[b,t] (i32 [B,T], any order); NULL: q_start + t.
 * The first `prefix` keys are visible to all. Other keys are visible when they are there, (causal) k_pos <= q_pos, and (window > 0)
 * k_pos > q_pos - window or k_pos < sinks. Without causal, T and S of any relation: cross-attention, encoders. bias (f32, broadcasts to
 * [B,H,T,S]) or NULL is added to the scores. Patterns: with blocks (i32 [B or 1, H or 1, ceil(T / block_q), n], constant or computed)
 * queries of block i see, of the keys after the prefix, only those of the n blocks of block_k keys that blocks[b,h,i] lists (in any
 * order; a number that is none of a block lists nothing; twice is once): what is not listed costs nothing. A query that sees nothing gives zeros and lse = -inf.
 * By distance: with by_distance (f32, [H,N]; instead of a bias) the score of a key after the prefix gets by_distance[h, i], i = q_pos -
 * k_pos + distance_zero, at least 0 and at most N - 1. No [T,S] is made of it, in its gradient neither. softcap c > 0: scaled scores s
 * become c tanh(s / c) before a bias is added; not with a gate. gate: see mn_gated_attention. */
MN_ATTRS_BEGIN
typedef struct mn_attention_attr {
  double scale, softcap;
  int64_t window, prefix, sinks, q_start;
  int64_t block_q, block_k; /* with blocks */
  int64_t distance_zero;    /* with by_distance */
  int64_t gate;             /* keys of a gated block, the last one the gate; 0: none. With causal and q_start alone */
  bool causal, ring;
  bool has_q_pos, has_k_pos, has_length, has_blocks, has_bias, by_distance; /* set by the builder; of the last two one */
} mn_attention_attr;
MN_ATTRS_END
typedef struct mn_attention_io {
  mn_tensor *q, *k, *v;                                            /* in */
  mn_tensor *q_pos, *k_pos, *length, *blocks, *bias, *by_distance; /* in, or NULL */
  mn_tensor *o, *lse;                                              /* out; NULL when a fault is set */
} mn_attention_io;
void mn_attend(mn_graph *g, mn_attention_io *io, mn_attention_attr attr);
/* Two-level softmax (Landmark Attention, Mohtashami & Jaggi 2023, arXiv 2305.16300): keys lie in blocks of `block` whose last one is the
 * block's gate. A query at t sees the keys of its own block up to t and the gates of the blocks before it in one softmax, and what a
 * gate gets is shared out among its block by a softmax over the block's other keys; a gate's value is never read. q [B,T,H,K],
 * k [B,S,G,K], v [B,S,G,V] (S a multiple of block; query t is at q_start + t) -> o [B,T,H,V]. A query without any key gives zeros. */
mn_tensor *mn_gated_attention(mn_graph *g, mn_tensor *q, mn_tensor *k, mn_tensor *v, double scale, int64_t block, int64_t q_start);
/* mn_attend where all keys are there; lse may be NULL. */
mn_tensor *mn_attention(mn_graph *g, mn_tensor *q, mn_tensor *k, mn_tensor *v, mn_tensor *q_pos, mn_tensor *k_pos, mn_tensor *bias,
                        mn_attention_attr attr, mn_tensor **lse);

/* For kernels and passes: operands and results in order. */
/* (q, k, v, [q_pos], [k_pos], [length], [blocks], [bias or by_distance]) -> (o, lse); attr mn_attention_attr */
extern const mn_op mn_op_attention;
/* (the same inputs.., o, lse, do, dlse) -> (dq, dk, dv, [dbias f32, the bias's own (broadcast) shape; or of by_distance]) */
extern const mn_op mn_op_attention_grad;
int mn_attention_operands(const mn_attention_attr *a); /* inputs before the bias */
static inline bool mn_attention_biased(const mn_attention_attr *a) { return a->has_bias || a->by_distance; }

#endif
