/* attention_block.h - what the forward and the backward tiles of attention share. Scores are made transposed: a row for
 * each key, queries along the vectors. So keys and values are read as they lie (any row stride), the softmax runs down
 * the rows with no step across lanes, and only blocks of queries are ever transposed. */
#ifndef MN_CPU_ATTENTION_BLOCK_H
#define MN_CPU_ATTENTION_BLOCK_H

#include "backend/cpu/isa/attention.h"
#include "backend/cpu/isa/tile.h"
#include "backend/cpu/isa/vecmath.h"
#include "base/blocks.h"
#include "base/f16.h"

enum { QB = MN_ATTN_QUERIES, KB = MN_ATTN_KEYS }; /* queries and keys of a block */
enum { PANEL = 16 };                              /* lanes that a half-masked block is done in, each with its own range of keys */
#define LOG2E 1.44269504088896341f
#define LN2   0.69314718055994531f

MN_INLINE const void *attn_row(const mn_attn_tensor *x, bool bf16, int64_t b, int64_t t, int64_t h) {
  return (const char *)x->data + (b * x->b + t * x->t + h * x->h) * (bf16 ? 2 : 4);
}

/* ---- caches in types of their own ---- */
MN_INLINE vf vf_load_f16(const uint16_t *p) {
#if defined(MN_VEC_512)
  return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
#elif defined(MN_VEC_256) && defined(__F16C__)
  return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
#else
  vf r;
  for (int i = 0; i < MN_VL; i++) r[i] = mn_f16_to_float(p[i]);
  return r;
#endif
}
MN_INLINE float attn_half(uint16_t h) {
#if defined(__F16C__)
  return _cvtsh_ss(h);
#else
  return mn_f16_to_float(h);
#endif
}
MN_INLINE vf vf_load_i8(const int8_t *p) { /* their values */
#if defined(MN_VEC_512)
  return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
#elif defined(MN_VEC_256)
  return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
#else
  vf r;
  for (int i = 0; i < MN_VL; i++) r[i] = p[i];
  return r;
#endif
}

/* Of keys or values. */
MN_INLINE const void *attn_kv_row(const mn_attn_args *p, const mn_attn_tensor *x, int64_t b, int64_t t, int64_t h) {
  const int64_t at = b * x->b + t * x->t + h * x->h;
  return (const char *)x->data + (p->kv == MN_F32 ? at * 4 : p->kv == MN_Q8_0 ? at / MN_BLOCK * (int64_t)sizeof(mn_q8_0) : at * 2);
}
/* A row of keys or values as f32, padded with zeros to tile_pad(n). */
MN_INLINE void attn_widen(float *dst, const void *src, mn_dtype kv, int64_t n) {
  const uint16_t *h = src;
  int64_t i = 0;
  if (kv == MN_Q8_0) {
    for (const mn_q8_0 *block = src; i < n; block++) {
      const vf d = vf_set1(attn_half(block->d));
      TILE_UNROLL
      for (int j = 0; j < MN_BLOCK; j += MN_VL) vf_store(dst + i + j, vf_load_i8(block->qs + j) * d);
      i += MN_BLOCK;
    }
  } else if (kv == MN_F16) {
    for (; i + MN_VL <= n; i += MN_VL) vf_store(dst + i, vf_load_f16(h + i));
    for (; i < n; i++) dst[i] = mn_f16_to_float(h[i]);
  } else {
    tile_row_in(dst, src, kv == MN_BF16, n);
    return;
  }
  for (; i < tile_pad(n); i++) dst[i] = 0;
}

/* ---- 2^x for x <= 0 (and a little above) and NaN; exactly 0 far below ---- */
#define HIDDEN (-1e30f)                          /* the score of a key that a query does not see: finite, so that no difference is NaN */
MN_INLINE vf attn_exp2(vf x, const bool rough) { /* rough: for weights that are rounded to bf16 (relative error 4e-6) */
#if !defined(MN_VEC_512)
  x = vf_max(vf_set1(-127.0f), x); /* 2^-127 is made of the bits of 0; NaN passes: it is the second operand */
#endif
  vf n = vf_round(x), f = x - n; /* |f| <= 1/2: 2^f by its Chebyshev interpolation */
  vf p;
  if (rough) {
    p = vf_fma(vf_set1(0.0096760371f), f, vf_set1(0.0559220356f));
    p = vf_fma(p, f, vf_set1(0.240221074f));
    p = vf_fma(p, f, vf_set1(0.693121034f));
  } else {
    p = vf_fma(vf_set1(0.00134004322f), f, vf_set1(0.0096760371f));
    p = vf_fma(p, f, vf_set1(0.0555032721f));
    p = vf_fma(p, f, vf_set1(0.240221074f));
    p = vf_fma(p, f, vf_set1(0.693147207f));
  }
  p = vf_fma(p, f, vf_set1(1.0f));
#if defined(MN_VEC_512)
  return (vf)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  return p * (vf)((vi_of(n) + 127) << 23);
#endif
}
/* Of differences that f32 may not hold: 0 where they are -inf. */
MN_INLINE vf attn_exp2_far(vf x) { return attn_exp2(vf_max(vf_set1(-1000.0f), x), false); }
/* Weights are 2^(s c - m), m the largest s c. A fused multiply-add does not round s c, while m was rounded: all weights of a row are off by
 * one factor, 2 to what m lost, which leaves their shares as they are. But of large m that is more than f32 has exponents. Is any of these so
 * large? Of queries that see nothing m is HIDDEN, and does not count. */
MN_INLINE bool attn_any_huge(vf m) {
  const vf most = vf_set1(0x1p20f);
  return vm_any(vm_and(vf_lt(vf_set1(HIDDEN / 2), m), vf_lt(most, vf_abs(m))));
}

/* ---- who sees whom ---- */
typedef enum seen { SEEN_NONE, SEEN_SOME, SEEN_ALL } seen;

/* The latest of the positions sinks + r, sinks + r + R, ... that is below `written`, R slots of a ring; -1: none. */
MN_INLINE int64_t attn_ring_pos(const mn_attn_args *p, int64_t r, int64_t written) {
  const int64_t R = p->S - p->prefix - p->sinks, last = written - p->sinks - 1;
  return last < r ? -1 : p->sinks + r + (last - r) / R * R;
}
/* -1: the slot is empty */
MN_INLINE int64_t attn_key_pos(const mn_attn_args *p, int64_t b, int64_t j) {
  const int64_t i = j - p->prefix, written = mn_attn_length(p, b);
  if (p->ring && i >= p->sinks) return attn_ring_pos(p, i - p->sinks, written);
  if (i >= written) return -1;
  return p->k_pos ? p->k_pos[b * p->k_pos_b + j * p->k_pos_s] : i;
}
MN_INLINE int64_t attn_query_pos(const mn_attn_args *p, int64_t b, int64_t t) {
  if (!p->q_pos) return p->q_start + t;
  return p->q_pos_t ? p->q_pos[b * p->q_pos_b + t * p->q_pos_t] : p->q_pos[b * p->q_pos_b] + t;
}
/* Positions of the N lanes of a block of nq queries; lanes of no query repeat the last. */
MN_INLINE void attn_query_positions(const mn_attn_args *p, int64_t b, int64_t t0, int64_t nq, int32_t *q_pos, int64_t N) {
  for (int64_t t = 0; t < N; t++) q_pos[t] = (int32_t)attn_query_pos(p, b, t0 + (t < nq ? t : nq - 1));
}
typedef struct span {
  int64_t lo, hi;
} span;
MN_INLINE span attn_span(const int32_t *q_pos, int64_t t0, int64_t t1) { /* lowest and highest position of lanes [t0, t1) */
  span s = {q_pos[t0], q_pos[t0]};
  for (int64_t t = t0 + 1; t < t1; t++) {
    s.lo = q_pos[t] < s.lo ? q_pos[t] : s.lo;
    s.hi = q_pos[t] > s.hi ? q_pos[t] : s.hi;
  }
  return s;
}
MN_INLINE bool attn_sees(const mn_attn_args *p, int64_t k, int64_t q) { /* positions; k is not of the prefix */
  return k >= 0 && (!p->causal || k <= q) && (p->window <= 0 || k > q - p->window || k < p->sinks);
}
MN_INLINE void widen_to(span *s, int64_t x) {
  s->lo = x < s->lo ? x : s->lo;
  s->hi = x > s->hi ? x : s->hi;
}
/* Positions of keys [j0, j1), none of the prefix; *empty: some of them are not there. hi < 0: none is. */
MN_INLINE span attn_keys_span(const mn_attn_args *p, int64_t b, int64_t j0, int64_t j1, bool *empty) {
  const int64_t filled = mn_attn_filled(p, b), end = j1 < filled ? j1 : filled;
  span s = {INT64_MAX, -1};
  *empty = end < j1;
  if (p->k_pos) {
    for (int64_t j = j0; j < end; j++) {
      const int64_t x = attn_key_pos(p, b, j);
      if (x < 0) *empty = true;
      else widen_to(&s, x);
    }
  } else if (j0 < end) { /* they rise, but where the ring turns: from its newest key to its oldest */
    widen_to(&s, attn_key_pos(p, b, j0));
    widen_to(&s, attn_key_pos(p, b, end - 1));
    if (p->ring) {
      const int64_t first = p->prefix + p->sinks, written = mn_attn_length(p, b) - p->sinks, R = p->S - first;
      const int64_t newest = first + (written > 0 ? (written - 1) % R : 0);
      if (newest >= j0 && newest < end) widen_to(&s, attn_key_pos(p, b, newest));
      if (newest + 1 > j0 && newest + 1 < end) widen_to(&s, attn_key_pos(p, b, newest + 1));
    }
  }
  return s;
}
/* Keys [j0, j0 + n) for queries at positions q.lo .. q.hi. */
TILE_FN seen attn_block_seen(const mn_attn_args *p, int64_t b, int64_t j0, int64_t n, span q) {
  const int64_t fixed = p->prefix > j0 ? (p->prefix - j0 < n ? p->prefix - j0 : n) : 0;
  const int64_t q_lo = q.lo, q_hi = q.hi;
  bool empty = false;
  span keys = {INT64_MAX, -1};
  if (fixed < n) keys = attn_keys_span(p, b, j0 + fixed, j0 + n, &empty);
  const int64_t lo = keys.lo, hi = keys.hi;
  if (hi < 0) return fixed == n ? SEEN_ALL : fixed ? SEEN_SOME : SEEN_NONE;
  bool all = (!p->causal || hi <= q_lo) && (p->window <= 0 || lo > q_hi - p->window || hi < p->sinks);
  bool some = (!p->causal || lo <= q_hi) && (p->window <= 0 || hi > q_lo - p->window || lo < p->sinks);
  if (all && !empty) return SEEN_ALL;
  return some || fixed ? SEEN_SOME : SEEN_NONE;
}

/* Of keys [j0, j0 + n), those that some query at a position q_lo .. q_hi may see: rows [*first, *last). */
MN_INLINE void attn_rows_seen(const mn_attn_args *p, int64_t j0, int64_t n, int64_t q_lo, int64_t q_hi, int64_t *first, int64_t *last) {
  *first = 0, *last = n;
  if (p->k_pos || p->ring || j0 < p->prefix) return;
  const int64_t k0 = j0 - p->prefix;
  if (p->causal && q_hi - k0 + 1 < n) *last = q_hi - k0 + 1 < 0 ? 0 : q_hi - k0 + 1;
  if (p->window > 0 && k0 >= p->sinks && q_lo - p->window + 1 > k0) *first = q_lo - p->window + 1 - k0;
  if (*first > *last) *first = *last;
}

/* Row of key j: lanes of the queries (at positions q_pos, which span q) that do not see it get `hidden`. */
MN_INLINE void attn_mask_row(const mn_attn_args *p, int64_t b, int64_t j, const int32_t *q_pos, span q, float *row, int64_t N, vf hidden) {
  if (j < p->prefix) return;
  const int64_t k = attn_key_pos(p, b, j);
  if (k < 0) {
    for (int64_t t = 0; t < N; t += MN_VL) vf_store(row + t, hidden);
    return;
  }
  /* seen by queries at first .. last only */
  const int64_t first = p->causal ? k : INT32_MIN, end = k + p->window - 1;
  const int64_t last = p->window > 0 && k >= p->sinks && end < INT32_MAX ? end : INT32_MAX;
  if (first <= q.lo && q.hi <= last) return;
  vi a = vi_set1((int32_t)first), z = vi_set1((int32_t)last);
  for (int64_t t = 0; t < N; t += MN_VL) {
    const vi i = vi_load(q_pos + t);
    vm out = vm_or(vi_lt(i, a), vi_lt(z, i));
    vf_store(row + t, vf_select(out, hidden, vf_load(row + t)));
  }
}

/* ---- lists of blocks ---- For a block of queries: bit i of listed[panel, block of keys] tells whether lane i of the panel sees it. */
MN_INLINE int64_t attn_key_blocks(const mn_attn_args *p) { return p->has_blocks ? (p->S - p->prefix + p->block_k - 1) / p->block_k : 0; }
TILE_FN void attn_take_lists(const mn_attn_args *p, int64_t b, int64_t h, int64_t t0, int64_t nq, int64_t N, uint16_t *listed) {
  const int64_t all = attn_key_blocks(p);
  memset(listed, 0, (size_t)(QB / PANEL * all) * sizeof *listed);
  for (int64_t t = 0, end; t < nq; t = end) { /* one list serves lanes [t, end) */
    const int64_t row = (t0 + t) / p->block_q;
    end = (row + 1) * p->block_q - t0;
    if (end >= nq) end = N; /* lanes of no query see what the last one sees */
    const int32_t *list = p->blocks + b * p->blocks_b + h * p->blocks_h + row * p->blocks_q;
    for (int64_t i = 0; i < p->listed; i++) {
      const int64_t block = list[i * p->blocks_n];
      if (block < 0 || block >= all) continue;
      for (int64_t x = t / PANEL; x * PANEL < end; x++) {
        const int64_t from = t > x * PANEL ? t - x * PANEL : 0, to = end - x * PANEL < PANEL ? end - x * PANEL : PANEL;
        listed[x * all + block] |= (uint16_t)((1u << to) - (1u << from));
      }
    }
  }
}
/* Lanes [t0, t1), whole panels, and keys [j0, j0 + n): in the lists or of the prefix. */
TILE_FN seen attn_listed(const mn_attn_args *p, const uint16_t *listed, int64_t t0, int64_t t1, int64_t j0, int64_t n) {
  const int64_t all = attn_key_blocks(p), first = j0 > p->prefix ? j0 - p->prefix : 0, end = j0 + n - p->prefix;
  bool some = j0 < p->prefix, every = true;
  for (int64_t x = t0 / PANEL; x * PANEL < t1; x++)
    for (int64_t block = first / p->block_k; block * p->block_k < end; block++) {
      some |= listed[x * all + block] != 0;
      every &= listed[x * all + block] == 0xffff;
    }
  return every ? SEEN_ALL : some ? SEEN_SOME : SEEN_NONE;
}
/* Row of key j: lanes [t0, t0 + N) whose lists do not have it get `hidden`. */
MN_INLINE void attn_hide_unlisted(const mn_attn_args *p, const uint16_t *listed, int64_t j, int64_t t0, float *row, int64_t N, vf hidden) {
  if (j < p->prefix) return;
  const int64_t all = attn_key_blocks(p), block = (j - p->prefix) / p->block_k;
  for (int64_t t = 0; t < N; t += MN_VL) {
    const uint16_t bits = listed[(t0 + t) / PANEL * all + block];
    if (bits == 0xffff) continue;
    const vi mine = vi_set1(bits >> (t0 + t) % PANEL) & (vi_set1(1) << vi_iota());
    vf_store(row + t, vf_select(vi_eq(mine, vi_set1(0)), hidden, vf_load(row + t)));
  }
}

/* bt[j, t] = bias of key j0 + j and query t0 + t; tmp [QB, KB] */
TILE_FN void attn_bias_block(const mn_attn_args *p, int64_t b, int64_t h, int64_t t0, int64_t nq, int64_t j0, int64_t n, float *bt,
                             int64_t N, float *tmp) {
  const float *src = p->bias + b * p->bias_b + h * p->bias_h + t0 * p->bias_t + j0 * p->bias_s;
  if (p->bias_s == 1 && p->bias_t != 0) {
    for (int64_t t = 0; t < nq; t++) tile_row_in(tmp + t * KB, src + t * p->bias_t, 0, n);
    tile_transpose(bt, N, tmp, KB, nq, n, 0);
    return;
  }
  for (int64_t j = 0; j < n; j++) {
    if (p->bias_t == 0) {
      for (int64_t t = 0; t < N; t += MN_VL) vf_store(bt + j * N + t, vf_set1(src[j * p->bias_s]));
    } else {
      for (int64_t t = 0; t < N; t++) bt[j * N + t] = t < nq ? src[t * p->bias_t + j * p->bias_s] : 0;
    }
  }
}

/* ---- scores by distance ---- table[q_pos - k_pos + zero], at either end its last element */
MN_INLINE const float *attn_distances(const mn_attn_args *p, int64_t h) { return p->distance + h * p->distance_h; }
MN_INLINE int64_t attn_apart(const mn_attn_args *p, int64_t k_pos, int64_t q_pos) {
  const int64_t i = q_pos - k_pos + p->distance_zero;
  return i < 0 ? 0 : i < p->distances ? i : p->distances - 1;
}
/* The queries stand one behind the other: a key's row of scores is a piece of the table. */
MN_INLINE bool attn_in_order(const int32_t *q_pos, int64_t nq) {
  for (int64_t t = 1; t < nq; t++)
    if (q_pos[t] != q_pos[0] + t) return false;
  return true;
}
/* bt[j, t] = the score of key j0 + j and the query at q_pos[t], as attn_bias_block's */
TILE_FN void attn_distance_block(const mn_attn_args *p, int64_t b, int64_t h, const int32_t *q_pos, int64_t nq, int64_t j0, int64_t n,
                                 float *bt, int64_t N) {
  const float *table = attn_distances(p, h);
  const bool in_order = attn_in_order(q_pos, nq);
  for (int64_t j = 0; j < n; j++) {
    float *row = bt + j * N;
    const int64_t k = attn_key_pos(p, b, j0 + j), first = q_pos[0] - k + p->distance_zero;
    if (j0 + j < p->prefix) {
      memset(row, 0, (size_t)N * sizeof *row);
    } else if (in_order && first >= 0 && first + N <= p->distances) {
      memcpy(row, table + first, (size_t)N * sizeof *row);
    } else {
      for (int64_t t = 0; t < N; t++) row[t] = table[attn_apart(p, k, q_pos[t])];
    }
  }
}
MN_INLINE bool attn_biased(const mn_attn_args *p) { return p->has_bias || p->by_distance; }
TILE_FN void attn_added(const mn_attn_args *p, int64_t b, int64_t h, int64_t t0, const int32_t *q_pos, int64_t nq, int64_t j0, int64_t n,
                        float *bt, int64_t N, float *tmp) {
  if (p->bias) attn_bias_block(p, b, h, t0, nq, j0, n, bt, N, tmp);
  else attn_distance_block(p, b, h, q_pos, nq, j0, n, bt, N);
}

/* ---- gated blocks ---- (Mohtashami & Jaggi 2023) In a block before the query's own, with scores s_j of its keys and g of its gate,
 * key j gets e^g softmax_j(s) of the whole: with L = log sum_j e^s_j its score is
 *
 *     s'_j = s_j + g - L
 *
 * in one softmax over all. So gating changes scores, and what follows is attention as it always is; the gate itself has no weight.
 * Blocks of keys are whole gated blocks. */
MN_INLINE int64_t attn_key_step(const mn_attn_args *p) { return p->gate ? KB / p->gate * p->gate : KB; }
/* Lanes whose query's own block comes after that of key j. */
MN_INLINE vm attn_gated_lanes(const mn_attn_args *p, int64_t j, const int32_t *q_pos) {
  return vi_lt(vi_set1((int32_t)(j / p->gate * p->gate + p->gate - 1)), vi_load(q_pos));
}
/* Scores st[j, .] of keys base + j, j in [j0, j1), at lanes [t0, t1), whose queries are at q_pos: s to s'. */
TILE_FN void attn_gate_scores(const mn_attn_args *p, int64_t base, const int32_t *q_pos, float *st, int64_t N, int64_t t0, int64_t t1,
                              int64_t j0, int64_t j1) {
  for (int64_t first = j0; first + p->gate <= j1; first += p->gate) {
    const int64_t gate = first + p->gate - 1;
    for (int64_t t = t0; t < t1; t += MN_VL) {
      vf top = vf_set1(HIDDEN), sum = vf_zero();
      for (int64_t j = first; j < gate; j++) top = vf_max(top, vf_load(st + j * N + t));
      for (int64_t j = first; j < gate; j++) sum += attn_exp2((vf_load(st + j * N + t) - top) * LOG2E, false);
      const vf shift = vf_load(st + gate * N + t) - (top + vf_log(sum)); /* g - L */
      const vm gated = attn_gated_lanes(p, base + first, q_pos + t);
      for (int64_t j = first; j < gate; j++) {
        const vf s = vf_load(st + j * N + t);
        vf_store(st + j * N + t, vf_select(gated, s + shift, s));
      }
      vf_store(st + gate * N + t, vf_set1(HIDDEN));
    }
  }
}
/* Backward: from dS' [., N] and weights P to dS. With c = sum_j dS'_j the gate gets c, and key j, by L, -softmax_j(s) c = -P_j c / sum P. */
TILE_FN void attn_gate_back(const mn_attn_args *p, int64_t base, const int32_t *q_pos, const float *st, float *dst, int64_t N, int64_t t0,
                            int64_t t1, int64_t j0, int64_t j1) {
  for (int64_t first = j0; first + p->gate <= j1; first += p->gate) {
    const int64_t gate = first + p->gate - 1;
    for (int64_t t = t0; t < t1; t += MN_VL) {
      vf all = vf_zero(), c = vf_zero();
      for (int64_t j = first; j < gate; j++) all += vf_load(st + j * N + t), c += vf_load(dst + j * N + t);
      const vm gated = vm_and(attn_gated_lanes(p, base + first, q_pos + t), vf_lt(vf_zero(), all));
      const vf share = vf_select(gated, c / all, vf_zero());
      for (int64_t j = first; j < gate; j++) {
        const vf d = vf_load(dst + j * N + t);
        vf_store(dst + j * N + t, vf_fnma(vf_load(st + j * N + t), share, d));
      }
      vf_store(dst + gate * N + t, vf_select(gated, c, vf_zero()));
    }
  }
}

/* ---- a block of keys or values ---- f32: as it lies; others, without pair products: widened into `wide` [KB, pad] */
typedef struct rows {
  const float *f;
  const uint16_t *h; /* bf16, when pairs are used */
  int64_t stride;
} rows;
MN_INLINE rows attn_rows(const mn_attn_args *p, const mn_attn_tensor *x, bool pairs, int64_t b, int64_t j0, int64_t g, int64_t n,
                         int64_t width, float *wide) {
  const void *src = attn_kv_row(p, x, b, j0, g);
  if (p->kv == MN_F32) return (rows){src, NULL, x->t};
  if (pairs) return (rows){NULL, src, x->t};
  const int64_t ld = tile_pad(width);
  for (int64_t j = 0; j < n; j++) attn_widen(wide + j * ld, attn_kv_row(p, x, b, j0 + j, g), p->kv, width);
  return (rows){wide, NULL, ld};
}

/* The block of keys or values that begins at j0: a head's rows lie apart, and the processor does not see where the next one will be. */
MN_INLINE tile_ahead attn_ahead(const mn_attn_args *p, const mn_attn_tensor *x, int64_t b, int64_t j0, int64_t g, int64_t filled,
                                int64_t width) {
  if (p->kv == MN_Q8_0 || j0 >= filled) return (tile_ahead){0};
  const int64_t size = p->kv == MN_F32 ? 4 : 2;
  return (tile_ahead){attn_kv_row(p, x, b, j0, g), x->t * size, width * size, filled - j0 < KB ? filled - j0 : KB};
}

/* Queries (or their gradients) t0 .. t0+n transposed: f32 [width, N], or pairs along the width [width/2, N]. */
TILE_FN void attn_turned(const mn_attn_args *p, const mn_attn_tensor *x, bool pairs, int64_t b, int64_t t0, int64_t h, int64_t n,
                         int64_t width, float *dst, int64_t N, float *tmp) {
  const int64_t ld = tile_pad(width);
  if (pairs) {
    for (int64_t t = 0; t < n; t++) tile_row_in(tmp + t * ld, attn_row(x, true, b, t0 + t, h), 0, width / 2);
    tile_transpose(dst, N, tmp, ld, n, width / 2, 0); /* moves 32-bit words */
    return;
  }
  for (int64_t t = 0; t < n; t++) tile_row_in(tmp + t * ld, attn_row(x, p->bf16, b, t0 + t, h), p->bf16, width);
  tile_transpose(dst, N, tmp, ld, n, width, 0);
}

/* Pair products need even widths: a pair must not straddle a row's end. */
MN_INLINE bool attn_pairs(const mn_attn_args *p) { return TILE_PAIRS && p->bf16 && p->kv == MN_BF16 && p->K % 2 == 0 && p->V % 2 == 0; }

#endif
