/* attention_decode.h - one query at a time (decoding): keys and values are read once, in the order in which they lie, and the reading is
 * what takes time. So that it is, four keys meet all queries of their head at once: each vector of a key is loaded (and widened) once for up
 * to three queries, sums stay in registers, and four sums are added across their lanes together. Values meet sixteen weights of up to three
 * queries before an output is written. */
#ifndef MN_CPU_ATTENTION_DECODE_H
#define MN_CPU_ATTENTION_DECODE_H

#include "backend/cpu/isa/attention_block.h"
#include "graph/fused_attention.h"

enum { KEYS = 4 /* scored at a time */, VALUES = 16 /* added at a time */, QUERIES = 3 /* at a time */, WIDE = 4 /* vectors of values */ };

/* What no load widens: rows are made f32 once for all queries. */
MN_INLINE bool by_row(const mn_attn_args *p) {
#if defined(MN_VEC_512) || defined(__F16C__)
  return p->kv == MN_Q8_0;
#else
  return p->kv == MN_F16 || p->kv == MN_Q8_0;
#endif
}
MN_INLINE int64_t widest_rows(const mn_attn_args *p) { /* floats of so many keys or values */
  const int64_t kp = KEYS * tile_pad(p->K), vp = VALUES * tile_pad(p->V);
  return !by_row(p) ? 0 : kp > vp ? kp : vp;
}

static size_t decode_scratch(const mn_attn_args *p) {
  take s = {NULL, 0};
  take_floats(&s, p->H * tile_pad(p->K));
  take_floats(&s, p->H * KB);
  take_floats(&s, p->H * tile_pad(p->V));
  take_bytes(&s, KB * 8);
  take_floats(&s, widest_rows(p));
  return s.used;
}

/* Elements i .. of a row; of one that ends within them, its first n. */
MN_INLINE vf load_all(const void *row, const mn_dtype t, int64_t i) {
  if (t == MN_F32) return vf_load((const float *)row + i);
  return t == MN_BF16 ? vf_load_bf16((const uint16_t *)row + i) : vf_load_f16((const uint16_t *)row + i);
}
MN_INLINE vf load_some(const void *row, const mn_dtype t, int64_t i, int n) {
  if (t == MN_F32) return vf_loadn((const float *)row + i, n);
  if (t == MN_BF16) return vf_load_bf16n((const uint16_t *)row + i, n);
  uint16_t some[MN_VL] = {0};
  memcpy(some, (const uint16_t *)row + i, (size_t)n * 2);
  return vf_load_f16(some);
}

/* The processor's own prefetching loses its way between heads: while keys are scored their values are brought nearer, and the next
 * block's keys, be they another share's, while weights are made (of the first head) and values are summed. */
MN_INLINE void fetch_ahead(const void *row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)row + i, 0, 2);
}

/* Sums across the lanes of four vectors. */
MN_INLINE void four_sums(const vf *a, float *to) {
#if defined(MN_VEC_256)
  const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps((__m256)a[0], (__m256)a[1]), _mm256_hadd_ps((__m256)a[2], (__m256)a[3]));
  _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
#else
  for (int j = 0; j < KEYS; j++) to[j] = vf_sum(a[j]);
#endif
}
/* Scores of KEYS keys of type t for R queries, kp floats apart; those of one query follow each other, of the next KB further. */
MN_INLINE void score_keys(const mn_dtype t, const int R, const void *const *k, int64_t K, const float *q, int64_t kp, float *score) {
  const char *const k0 = k[0], *const k1 = k[1], *const k2 = k[2], *const k3 = k[3];
  vf a[QUERIES * KEYS];
  int64_t x = 0;
  TILE_UNROLL
  for (int i = 0; i < R * KEYS; i++) a[i] = vf_zero();
  for (; x + MN_VL <= K; x += MN_VL) {
    vf of[QUERIES];
    TILE_UNROLL
    for (int r = 0; r < R; r++) of[r] = vf_load(q + r * kp + x);
    TILE_UNROLL
    for (int j = 0; j < KEYS; j++) {
      const vf key = load_all(j == 0 ? k0 : j == 1 ? k1 : j == 2 ? k2 : k3, t, x);
      TILE_UNROLL
      for (int r = 0; r < R; r++) a[r * KEYS + j] += key * of[r];
    }
  }
  if (x < K) {
    TILE_UNROLL
    for (int i = 0; i < R * KEYS; i++) a[i] += load_some(k[i % KEYS], t, x, (int)(K - x)) * vf_load(q + i / KEYS * kp + x);
  }
  TILE_UNROLL
  for (int r = 0; r < R; r++) four_sums(a + r * KEYS, score + r * KB);
}
/* C vectors of the outputs of R queries, from value y on, of which `left` are there, get n more values. next: keys that are asked for meanwhile,
 * so many bytes of each; 0: none. */
MN_INLINE void add_vectors(const mn_dtype t, const int R, const int C, const bool whole, const void *const *v, int64_t n, int64_t y,
                           int left, const float *score, float *o, int64_t vp, const void *const *next, int64_t bytes) {
  vf a[QUERIES * WIDE];
  TILE_UNROLL
  for (int i = 0; i < R * C; i++) a[i] = vf_load(o + i / C * vp + y + i % C * MN_VL);
  for (int64_t j = 0; j < n; j++) {
    const void *row = v[j];
    vf by[QUERIES];
    if (bytes) fetch_ahead(next[j], bytes);
    TILE_UNROLL
    for (int r = 0; r < R; r++) by[r] = vf_set1(score[r * KB + j]);
    TILE_UNROLL
    for (int c = 0; c < C; c++) {
      const vf value = whole ? load_all(row, t, y + c * MN_VL) : load_some(row, t, y, left);
      TILE_UNROLL
      for (int r = 0; r < R; r++) a[r * C + c] += by[r] * value;
    }
  }
  TILE_UNROLL
  for (int i = 0; i < R * C; i++) vf_store(o + i / C * vp + y + i % C * MN_VL, a[i]);
}
MN_INLINE void add_values(const mn_dtype t, const int R, const void *const *v, int64_t n, int64_t V, const float *score, float *o,
                          int64_t vp, const void *const *next, int64_t bytes) {
  int64_t y = 0;
  for (; y + WIDE * MN_VL <= V; y += WIDE * MN_VL, bytes = 0) add_vectors(t, R, WIDE, true, v, n, y, 0, score, o, vp, next, bytes);
  for (; y + MN_VL <= V; y += MN_VL, bytes = 0) add_vectors(t, R, 1, true, v, n, y, 0, score, o, vp, next, bytes);
  if (y < V) add_vectors(t, R, 1, false, v, n, y, (int)(V - y), score, o, vp, next, bytes);
}

/* Functions of their own, whose registers nobody else wants: [type][queries - 1]. */
#define VARIANTS(X) X(MN_F32, 1) X(MN_F32, 2) X(MN_F32, 3) X(MN_BF16, 1) X(MN_BF16, 2) X(MN_BF16, 3) X(MN_F16, 1) X(MN_F16, 2) X(MN_F16, 3)
#define X(t, R)                                                                                                                            \
  static __attribute__((noinline)) void score_##t##_##R(const void *const *k, int64_t K, const float *q, int64_t kp, float *score) {       \
    score_keys(t, R, k, K, q, kp, score);                                                                                                  \
  }                                                                                                                                        \
  static __attribute__((noinline)) void add_##t##_##R(const void *const *v, int64_t n, int64_t V, const float *score, float *o,            \
                                                      int64_t vp, const void *const *next, int64_t bytes) {                                \
    add_values(t, R, v, n, V, score, o, vp, next, bytes);                                                                                  \
  }
VARIANTS(X)
#undef X
typedef void score_fn(const void *const *, int64_t, const float *, int64_t, float *);
typedef void add_fn(const void *const *, int64_t, int64_t, const float *, float *, int64_t, const void *const *, int64_t);
#define X(t, R) [t][R - 1] = score_##t##_##R,
static score_fn *const score_of[MN_ALL_TYPES][QUERIES] = {VARIANTS(X)};
#undef X
#define X(t, R) [t][R - 1] = add_##t##_##R,
static add_fn *const add_of[MN_ALL_TYPES][QUERIES] = {VARIANTS(X)};
#undef X
#undef VARIANTS
/* How many of r queries are next: four are twice two. */
MN_INLINE int64_t some_queries(int64_t r) { return r == 4 ? 2 : r < QUERIES ? r : QUERIES; }

MN_INLINE size_t kv_bytes(const mn_attn_args *p, int64_t n) { /* of a row of n */
  return p->kv == MN_F32 ? (size_t)n * 4 : p->kv == MN_Q8_0 ? (size_t)n / MN_BLOCK * sizeof(mn_q8_0) : (size_t)n * 2;
}

/* Keys or values of request b: of head g at t. */
typedef struct kept {
  const char *first;
  int64_t t, g; /* bytes from one to the next */
} kept;
MN_INLINE kept kept_of(const mn_attn_args *p, const mn_attn_tensor *x, int64_t b) {
  const char *first = attn_kv_row(p, x, b, 0, 0);
  return (kept){first, (const char *)attn_kv_row(p, x, b, 1, 0) - first, (const char *)attn_kv_row(p, x, b, 0, 1) - first};
}
MN_INLINE const void *kept_row(const kept *x, int64_t t, int64_t g) { return x->first + t * x->t + g * x->g; }

static void decode(const mn_attn_args *p, int64_t b, int64_t s0, int64_t s1, float *partial, void *scratch) {
  const int64_t H = p->H, G = p->G, V = p->V, r = H / G, kp = tile_pad(p->K), vp = tile_pad(V), one = V + 2;
  const int64_t q_pos = attn_query_pos(p, b, 0), k_bytes = (int64_t)kv_bytes(p, p->K), v_bytes = (int64_t)kv_bytes(p, V);
  take s = {scratch, 0};
  float *q = take_floats(&s, H * kp), *score = take_floats(&s, H * KB), *o = take_floats(&s, H * vp);
  int64_t *list = take_bytes(&s, KB * 8);
  float *wide = take_floats(&s, widest_rows(p));
  const kept keys = kept_of(p, &p->k, b), values = kept_of(p, &p->v, b);
  const mn_dtype kind = by_row(p) ? MN_F32 : p->kv; /* of rows as they are read */
  for (int64_t h = 0; h < H; h++) {
    tile_row_in(q + h * kp, attn_row(&p->q, p->bf16, b, 0, h), p->bf16, p->K);
    for (int64_t x = 0; x < kp; x += MN_VL) vf_store(q + h * kp + x, vf_load(q + h * kp + x) * (p->scale * LOG2E));
    for (int64_t x = 0; x < vp; x += MN_VL) vf_store(o + h * vp + x, vf_zero());
    partial[h * one + V] = HIDDEN;
    partial[h * one + V + 1] = 0;
  }
  const int64_t last = mn_attn_filled(p, b);
  for (int64_t j0 = s0; j0 < s1; j0 += KB) {
    const int64_t block = s1 - j0 < KB ? s1 - j0 : KB;
    const seen see = attn_block_seen(p, b, j0, block, (span){q_pos, q_pos});
    int64_t n = 0;
    for (int64_t j = j0; see != SEEN_NONE && j < j0 + block; j++) /* most blocks are seen whole, and where a key lies need not be asked */
      if (see == SEEN_ALL || j < p->prefix || attn_sees(p, attn_key_pos(p, b, j), q_pos)) list[n++] = j;
    if (n == 0) continue;
    const bool by_key = p->k.t >= p->k.h; /* the nearer neighbour in memory first */
    for (int64_t x = 0; x < (by_key ? n : G * KEYS); x += KEYS)
      for (int64_t y = 0; y < (by_key ? G * KEYS : n); y += KEYS) {
        const int64_t j = by_key ? x : y, g = (by_key ? y : x) / KEYS;
        const void *k[KEYS];
        for (int64_t e = 0; e < KEYS; e++) { /* at the end the last key fills up; its other scores count for nothing */
          const int64_t at = list[j + e < n ? j + e : n - 1];
          k[e] = kept_row(&keys, at, g);
          if (j + e < n) fetch_ahead(kept_row(&values, at, g), v_bytes);
          if (by_row(p)) attn_widen(wide + e * kp, k[e], p->kv, p->K), k[e] = wide + e * kp;
        }
        for (int64_t h = g * r, end = h + r, few; h < end; h += few) {
          few = some_queries(end - h);
          score_of[kind][few - 1](k, p->K, q + h * kp, kp, score + h * KB + j);
        }
      }
    for (int64_t h = 0; h < H; h++) {
      for (int64_t j = h * n / H; j < (h + 1) * n / H; j++)
        if (list[j] + KB < last) fetch_ahead(kept_row(&keys, list[j] + KB, 0), k_bytes);
      float *ml = partial + h * one + V, *sc = score + h * KB;
      for (int64_t j = 0; p->softcap > 0 && j < n; j += MN_VL)
        vf_store(sc + j, vf_tanh(vf_load(sc + j) / (p->softcap * LOG2E)) * (p->softcap * LOG2E));
      for (int64_t j = 0; p->bias && j < n; j++) {
        float y = sc[j] + LOG2E * p->bias[b * p->bias_b + h * p->bias_h + list[j] * p->bias_s];
        sc[j] = y < HIDDEN ? HIDDEN : y;
      }
      for (int64_t j = 0; p->by_distance && j < n; j++)
        if (list[j] >= p->prefix) sc[j] += LOG2E * attn_distances(p, h)[attn_apart(p, attn_key_pos(p, b, list[j]), q_pos)];
      for (int64_t j = n; j < KB; j++) sc[j] = HIDDEN;
      vf most = vf_set1(ml[0]), sum = vf_zero();
      for (int64_t j = 0; j < n; j += MN_VL) most = vf_max(most, vf_load(sc + j));
      const float top = vf_hmax(most), use = top < HIDDEN / 2 ? 0 : top; /* nothing seen so far: weights 0 */
      const float alpha = ml[0] < HIDDEN / 2 ? 1 : exp2f(ml[0] - use);   /* 1: there is nothing yet */
      for (int64_t j = 0; j < n; j += MN_VL) {
        vf x = attn_exp2(vf_load(sc + j) - use, false);
        sum += x;
        vf_store(sc + j, x);
      }
      ml[0] = top;
      ml[1] = ml[1] * alpha + vf_sum(sum);
      if (alpha != 1)
        for (int64_t x = 0; x < vp; x += MN_VL) vf_store(o + h * vp + x, vf_load(o + h * vp + x) * alpha);
    }
    for (int64_t j = 0; j < n; j += VALUES)
      for (int64_t g = 0; g < G; g++) {
        const int64_t some = n - j < VALUES ? n - j : VALUES;
        const void *v[VALUES], *next[VALUES]; /* neighbours of the keys in the next block */
        int64_t bytes = g ? k_bytes : 0;
        for (int64_t e = 0; e < some; e++) {
          const int64_t at = list[j + e];
          v[e] = kept_row(&values, at, g);
          next[e] = kept_row(&keys, at + KB < last ? at + KB : at, g);
          if (by_row(p)) attn_widen(wide + e * vp, v[e], p->kv, V), v[e] = wide + e * vp;
        }
        if (list[j] + KB >= last) bytes = 0;
        for (int64_t h = g * r, end = h + r, few; h < end; h += few, bytes = 0) {
          few = some_queries(end - h);
          add_of[kind][few - 1](v, some, V, score + h * KB + j, o + h * vp, vp, next, bytes);
        }
      }
  }
  for (int64_t h = 0; h < H; h++) tile_row_out(partial + h * one, o + h * vp, 0, V);
}

/* o = sum_k o_k 2^(m_k - m) / l, l = sum_k l_k 2^(m_k - m), m the largest m_k */
static void decode_join(const mn_attn_args *p, int64_t b, int64_t n, const float *const *partials) {
  const int64_t V = p->V, one = V + 2;
  for (int64_t h = 0; h < p->H; h++) {
    const float *x[MN_LEAN_SHARES];
    float m = HIDDEN, l = 0, share[MN_LEAN_SHARES];
    for (int64_t k = 0; k < n; k++) x[k] = partials[k] + h * one, m = x[k][V] > m ? x[k][V] : m;
    for (int64_t k = 0; k < n; k++) {
      share[k] = exp2f(x[k][V] - m);
      l += x[k][V + 1] * share[k];
    }
    for (int64_t k = 0; k < n; k++) share[k] = l > 0 ? share[k] / l : 0;
    void *o = (void *)(uintptr_t)attn_row(&p->o, p->bf16, b, 0, h);
    for (int64_t y = 0; y < V; y += MN_VL) {
      const int left = V - y < MN_VL ? (int)(V - y) : MN_VL;
      vf sum = vf_zero();
      for (int64_t k = 0; k < n; k++) sum += vf_loadn(x[k] + y, left) * share[k];
      if (p->bf16) vf_store_bf16n((uint16_t *)o + y, sum, left);
      else vf_storen((float *)o + y, sum, left);
    }
    p->lse[b * p->lse_b + h * p->lse_h] = l > 0 ? (m + log2f(l)) * LN2 : -INFINITY;
  }
}

#endif
