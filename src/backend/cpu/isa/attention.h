/* attention.h - softmax attention, tile by tile: what the two kernels hand to the vector code. */
#ifndef MN_CPU_ISA_ATTENTION_H
#define MN_CPU_ISA_ATTENTION_H

#include "backend/backend.h"
#include "backend/cpu/isa.h"
#include "backend/cpu/lean.h"
#include "graph/fused_attention.h"

enum { MN_ATTN_QUERIES = 64 }; /* queries of one block: forward tasks and backward parts are made of whole blocks */
enum { MN_ATTN_KEYS = 64 };    /* keys of one block, at most */

typedef struct mn_attn_tensor { /* [B,T,H,*] with the last axis dense; strides in elements */
  void *data;
  int64_t b, t, h;
} mn_attn_tensor;

typedef struct mn_attn_args {
  int64_t B, T, S, H, G, K, V;
  float scale, softcap; /* 0: none */
  int64_t window, prefix, sinks, q_start;
  int64_t gate;                                   /* keys of a gated block; 0: none */
  bool causal, ring, has_bias, by_distance, bf16; /* bf16: type of q, o and their gradients; else f32 */
  mn_dtype kv;                                    /* of k and v: that type, or one of caches (base/narrow.h) */
  mn_attn_tensor q, k, v, o;
  const int32_t *q_pos, *k_pos; /* NULL: q_start + t, j - prefix or where the ring holds it */
  int64_t q_pos_b, q_pos_t;     /* strides; of q_pos [B]: q_pos_t is 0 and query t is at q_pos[b] + t */
  int64_t k_pos_b, k_pos_s;
  const int32_t *length; /* [B]; NULL: all keys are there */
  int64_t length_b;
  bool has_blocks; /* lists of blocks of keys, [B,H,blocks of queries,listed] */
  const int32_t *blocks;
  int64_t blocks_b, blocks_h, blocks_q, blocks_n, listed; /* strides, and how many one list has */
  int64_t block_q, block_k;                               /* queries and keys of a block; of keys the prefix does not count */
  const float *bias;                                      /* NULL: none */
  int64_t bias_b, bias_h, bias_t, bias_s;                 /* strides, 0 where it is broadcast */
  const float *distance;                                  /* by_distance: [H, distances], last axis dense */
  int64_t distance_h, distances, distance_zero;
  float *lse; /* [B,H,T], last axis dense */
  int64_t lse_b, lse_h, dlse_b, dlse_h;
  /* backward */
  mn_attn_tensor d_o, dq, dk, dv;
  const float *dlse; /* [B,H,T], last axis dense */
  float *dbias;      /* of the bias, or of by_distance (dbias_h its only stride but 1); zeroed by the caller; NULL: not asked for */
  bool whole_blocks; /* a part takes blocks of queries for all heads of the key head: their rows of dbias are one */
  int64_t dbias_b, dbias_h, dbias_t, dbias_s;
} mn_attn_args;

/* How many keys after the prefix have been written; those of a ring beyond its size have been overwritten. */
static inline int64_t mn_attn_length(const mn_attn_args *p, int64_t b) { return p->length ? p->length[b * p->length_b] : p->S; }
/* Keys at and beyond this one are not there. */
static inline int64_t mn_attn_filled(const mn_attn_args *p, int64_t b) {
  const int64_t n = mn_attn_length(p, b), all = p->prefix + (n < 0 ? 0 : n);
  return all < p->S ? all : p->S;
}

typedef struct mn_attention_isa {
  size_t (*forward_scratch)(const mn_attn_args *a); /* bytes for one thread; a multiple of 64 */
  void (*forward_begin)(void *scratch);             /* of each thread, before its first block: keys and values may have changed */
  void (*forward)(const mn_attn_args *a, int64_t b, int64_t h, int64_t t0, void *scratch); /* one block of queries */
  /* T = 1: keys [s0, s1) for all heads. partial [H, V + 2]: the output before it is divided, the largest score in units of ln 2, the sum of
   * the weights: (o, m, l) of a set of keys, and of disjoint sets they are joined in any order (Sanovar et al. 2024, arXiv 2405.10480). */
  size_t (*decode_scratch)(const mn_attn_args *a);
  void (*decode)(const mn_attn_args *a, int64_t b, int64_t s0, int64_t s1, float *partial, void *scratch);
  void (*decode_join)(const mn_attn_args *a, int64_t b, int64_t n, const float *const *partials); /* 0 <= n <= MN_LEAN_SHARES */
} mn_attention_isa;
MN_ISA_DECLARE(mn_attention_isa, mn_attention);

typedef struct mn_attention_grad_isa {
  size_t (*scratch)(const mn_attn_args *a);
  int64_t (*sum_floats)(const mn_attn_args *a); /* of the sums of one key head: dk and dv in f32 */
  /* Part `part` of `parts` of the query blocks of key head g: writes their dq, dbias, and their share of dk and dv to
   * sums. */
  void (*part)(const mn_attn_args *a, int64_t b, int64_t g, int64_t part, int64_t parts, float *sums, void *scratch);
  /* dk and dv from the sums of all parts, in their order. */
  void (*finish)(const mn_attn_args *a, int64_t b, int64_t g, int64_t parts, float *sums);
} mn_attention_grad_isa;
MN_ISA_DECLARE(mn_attention_grad_isa, mn_attention_grad);

#endif
