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

/* What is read next is asked for in the order in which it lies, whatever the order of reading (which goes from head to head): memory and the
 * processor's own prefetching are fastest so. While keys are scored their block's values are brought nearer, and while values are summed
 * the next block's keys, be they another share's. */
typedef struct asked {
  const char *from;
  int64_t bytes; /* with each call of a kernel; 0: none */
} asked;
MN_INLINE void ask(const char *from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i, 0, 2);
}

/* Rows of keys or values, of all heads, and where in each the one head begins. */
typedef struct some_rows {
  const char *const *row;
  int64_t from;
} some_rows;

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
MN_INLINE void score_keys(const mn_dtype t, const int R, const some_rows *k, int64_t K, const float *q, int64_t kp, float *score,
                          asked next) {
  const char *const k0 = k->row[0] + k->from, *const k1 = k->row[1] + k->from, *const k2 = k->row[2] + k->from,
                    *const k3 = k->row[3] + k->from;
  vf a[QUERIES * KEYS];
  int64_t x = 0;
  ask(next.from, next.bytes);
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
    for (int i = 0; i < R * KEYS; i++) a[i] += load_some(k->row[i % KEYS] + k->from, t, x, (int)(K - x)) * vf_load(q + i / KEYS * kp + x);
  }
  TILE_UNROLL
  for (int r = 0; r < R; r++) four_sums(a + r * KEYS, score + r * KB);
}
/* C vectors of the outputs of R queries, from value y on, of which `left` are there, get n more values. With each of them so many
 * bytes of `next` are asked for. */
MN_INLINE void add_vectors(const mn_dtype t, const int R, const int C, const bool whole, const some_rows *v, int64_t n, int64_t y, int left,
                           const float *score, float *o, int64_t vp, asked next) {
  vf a[QUERIES * WIDE];
  TILE_UNROLL
  for (int i = 0; i < R * C; i++) a[i] = vf_load(o + i / C * vp + y + i % C * MN_VL);
  for (int64_t j = 0; j < n; j++) {
    const char *row = v->row[j] + v->from;
    vf by[QUERIES];
    ask(next.from + j * next.bytes, next.bytes);
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
MN_INLINE void add_values(const mn_dtype t, const int R, const some_rows *v, int64_t n, int64_t V, const float *score, float *o, int64_t vp,
                          asked next) {
  const int64_t columns = V / (WIDE * MN_VL), share = columns ? next.bytes / (n * columns) : next.bytes / n;
  asked part = {next.from, share ? (share + 63) / 64 * 64 : 0};
  int64_t y = 0;
  for (; y + WIDE * MN_VL <= V; y += WIDE * MN_VL, part.from += n * part.bytes)
    add_vectors(t, R, WIDE, true, v, n, y, 0, score, o, vp, part);
  if (columns) part.bytes = 0;
  for (; y + MN_VL <= V; y += MN_VL, part.bytes = 0) add_vectors(t, R, 1, true, v, n, y, 0, score, o, vp, part);
  if (y < V) add_vectors(t, R, 1, false, v, n, y, (int)(V - y), score, o, vp, part);
}

/* Functions of their own, whose registers nobody else wants: [type][queries - 1]. */
#define VARIANTS(X) X(MN_F32, 1) X(MN_F32, 2) X(MN_F32, 3) X(MN_BF16, 1) X(MN_BF16, 2) X(MN_BF16, 3) X(MN_F16, 1) X(MN_F16, 2) X(MN_F16, 3)
#define X(t, R)                                                                                                                            \
  static __attribute__((noinline)) void score_##t##_##R(const some_rows *k, int64_t K, const float *q, int64_t kp, float *score,           \
                                                        asked next) {                                                                      \
    score_keys(t, R, k, K, q, kp, score, next);                                                                                            \
  }                                                                                                                                        \
  static __attribute__((noinline)) void add_##t##_##R(const some_rows *v, int64_t n, int64_t V, const float *score, float *o, int64_t vp,  \
                                                      asked next) {                                                                        \
    add_values(t, R, v, n, V, score, o, vp, next);                                                                                         \
  }
VARIANTS(X)
#undef X
typedef void score_fn(const some_rows *, int64_t, const float *, int64_t, float *, asked);
typedef void add_fn(const some_rows *, int64_t, int64_t, const float *, float *, int64_t, asked);
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

/* What a call of decode works with; arrays are the thread's. */
typedef struct decoding {
  const mn_attn_args *p;
  int64_t b, q_pos, r, kp, vp; /* r: queries of a head of keys */
  bool by_key;                 /* all heads of a key before the next key: the nearer neighbour in memory first */
  mn_dtype kind;               /* of rows as they are read */
  kept keys, values;
  float *q, *score, *o;       /* [H,kp], [H,KB], [H,vp] */
  float *top, *before, *wide; /* [H] each, and by_row */
  int64_t *list;              /* [KB] */
  const char **k, **v;        /* [KB + KEYS] rows of a block's keys, and of their values */
} decoding;

static size_t decoding_of(const mn_attn_args *p, void *scratch, decoding *d) {
  take s = {scratch, 0};
  const int64_t H = p->H, kp = tile_pad(p->K), vp = tile_pad(p->V), list = (KB + KEYS) * (int64_t)sizeof(char *);
  *d = (decoding){.p = p, .r = H / p->G, .kp = kp, .vp = vp, .kind = by_row(p) ? MN_F32 : p->kv};
  d->q = take_floats(&s, H * kp);
  d->score = take_floats(&s, H * KB);
  d->o = take_floats(&s, H * vp);
  d->top = take_floats(&s, tile_pad(H));
  d->before = take_floats(&s, tile_pad(H));
  d->wide = take_floats(&s, widest_rows(p));
  d->list = take_bytes(&s, KB * 8);
  d->k = take_bytes(&s, list), d->v = take_bytes(&s, list);
  return s.used;
}
static size_t decode_scratch(const mn_attn_args *p) {
  decoding d;
  return decoding_of(p, NULL, &d);
}

/* The keys of a block that are seen, in list; how many. */
MN_INLINE int64_t seen_keys(const decoding *d, int64_t j0, int64_t block) {
  const mn_attn_args *p = d->p;
  const seen see = attn_block_seen(p, d->b, j0, block, (span){d->q_pos, d->q_pos});
  int64_t n = 0;
  for (int64_t j = j0; see != SEEN_NONE && j < j0 + block; j++) /* most blocks are seen whole, and where a key lies need not be asked */
    if (see == SEEN_ALL || j < p->prefix || attn_sees(p, attn_key_pos(p, d->b, j), d->q_pos)) d->list[n++] = j;
  return n;
}
/* Where they lie; the last one fills up. */
MN_INLINE void rows_of_keys(const decoding *d, int64_t n) {
  for (int64_t j = 0; j < n; j++) {
    d->k[j] = d->keys.first + d->list[j] * d->keys.t;
    d->v[j] = d->values.first + d->list[j] * d->values.t;
  }
  for (int64_t j = n; j < n + KEYS; j++) d->k[j] = d->k[n - 1], d->v[j] = d->v[n - 1];
}
/* n keys or values of all heads, from so many on. */
typedef struct range {
  kept at;
  int64_t from, n;
} range;
/* Part i of so many equal ones. */
MN_INLINE asked part_of(const decoding *d, const range *x, int64_t i, int64_t parts) {
  const int64_t G = d->p->G, each = d->by_key ? x->n * x->at.t / parts : x->n * x->at.t * G / parts;
  if (d->by_key) return (asked){x->at.first + x->from * x->at.t + i * each, each};
  const int64_t of_head = parts / G; /* heads lie apart */
  return (asked){x->at.first + i / of_head * x->at.g + x->from * x->at.t + i % of_head * each, each};
}
/* Keys that are read after those from j0 on: of the next block, or of the next request, which is often the same share's. */
MN_INLINE range next_keys(const decoding *d, int64_t j0) {
  const mn_attn_args *p = d->p;
  const int64_t last = mn_attn_filled(p, d->b), left = last - (j0 + KB);
  if (left > 0) return (range){d->keys, j0 + KB, left < KB ? left : KB};
  if (d->b + 1 == p->B) return (range){d->keys, 0, 0};
  const int64_t n = mn_attn_filled(p, d->b + 1);
  return (range){kept_of(p, &p->k, d->b + 1), 0, n < KB ? n : KB};
}
MN_INLINE void score_block(const decoding *d, int64_t j0, int64_t n) {
  const mn_attn_args *p = d->p;
  const int64_t G = p->G, fours = (n + KEYS - 1) / KEYS;
  const range values = {d->values, j0, n};
  for (int64_t x = 0; x < (d->by_key ? n : G * KEYS); x += KEYS)
    for (int64_t y = 0; y < (d->by_key ? G * KEYS : n); y += KEYS) {
      const int64_t j = d->by_key ? x : y, g = (d->by_key ? y : x) / KEYS;
      const char *wide[KEYS];
      some_rows k = {d->k + j, g * d->keys.g};
      asked next = part_of(d, &values, d->by_key ? j / KEYS * G + g : g * fours + j / KEYS, G * fours);
      if (by_row(p)) {
        for (int64_t e = 0; e < KEYS; e++) {
          float *to = d->wide + e * d->kp;
          attn_widen(to, k.row[e] + k.from, p->kv, p->K);
          wide[e] = (const char *)to;
        }
        k = (some_rows){wide, 0};
      }
      for (int64_t h = g * d->r, end = h + d->r, few; h < end; h += few, next.bytes = 0) {
        few = some_queries(end - h);
        score_of[d->kind][few - 1](&k, p->K, d->q + h * d->kp, d->kp, d->score + h * KB + j, next);
      }
    }
}
/* Caps and biases; where there is no key, no weight. */
MN_INLINE void finish_scores(const decoding *d, int64_t h, int64_t n) {
  const mn_attn_args *p = d->p;
  float *sc = d->score + h * KB;
  for (int64_t j = 0; p->softcap > 0 && j < n; j += MN_VL)
    vf_store(sc + j, vf_tanh(vf_load(sc + j) / (p->softcap * LOG2E)) * (p->softcap * LOG2E));
  for (int64_t j = 0; p->bias && j < n; j++) {
    const float y = sc[j] + LOG2E * p->bias[d->b * p->bias_b + h * p->bias_h + d->list[j] * p->bias_s];
    sc[j] = y < HIDDEN ? HIDDEN : y;
  }
  for (int64_t j = 0; p->by_distance && j < n; j++)
    if (d->list[j] >= p->prefix) sc[j] += LOG2E * attn_distances(p, h)[attn_apart(p, attn_key_pos(p, d->b, d->list[j]), d->q_pos)];
  for (int64_t j = n; j < KB; j++) sc[j] = HIDDEN;
}
/* Scores become weights, and what was summed before is weighed by the new maximum. All maxima come first, then what follows from them, so
 * that no head waits for another's. */
MN_INLINE void weigh_block(const decoding *d, int64_t n, float *partial) {
  const mn_attn_args *p = d->p;
  const int64_t H = p->H, V = p->V, one = V + 2;
  for (int64_t h = 0; h < H; h++) {
    const float *sc = d->score + h * KB;
    vf most = vf_set1(partial[h * one + V]);
    finish_scores(d, h, n);
    for (int64_t j = 0; j < n; j += MN_VL) most = vf_max(most, vf_load(sc + j));
    const float top = vf_hmax(most);
    d->before[h] = partial[h * one + V];
    partial[h * one + V] = top;
    d->top[h] = top < HIDDEN / 2 ? 0 : top; /* nothing seen so far: weights 0 */
  }
  for (int64_t h = 0; h < H; h += MN_VL) vf_store(d->before + h, attn_exp2_far(vf_load(d->before + h) - vf_load(d->top + h)));
  for (int64_t h = 0; h < H; h++) {
    float *sc = d->score + h * KB, *l = partial + h * one + V + 1, *o = d->o + h * d->vp;
    const float top = d->top[h], alpha = d->before[h];
    vf sum = vf_zero();
    for (int64_t j = 0; j < n; j += MN_VL) {
      const vf x = attn_exp2_far(vf_load(sc + j) - top);
      sum += x;
      vf_store(sc + j, x);
    }
    *l = *l * alpha + vf_sum(sum);
    for (int64_t x = 0; alpha != 1 && x < d->vp; x += MN_VL) vf_store(o + x, vf_load(o + x) * alpha);
  }
}
MN_INLINE void add_block(const decoding *d, int64_t n, const range *beyond) {
  const mn_attn_args *p = d->p;
  const int64_t most = by_row(p) ? VALUES : KB, some = (n + most - 1) / most;
  for (int64_t g = 0; g < p->G; g++)
    for (int64_t j = 0; j < n; j += most) {
      const int64_t end = j + most < n ? j + most : n;
      const char *wide[VALUES];
      some_rows v = {d->v + j, g * d->values.g};
      asked next = part_of(d, beyond, g * some + j / most, p->G * some);
      if (by_row(p)) {
        for (int64_t e = 0; e < end - j; e++) {
          float *to = d->wide + e * d->vp;
          attn_widen(to, v.row[e] + v.from, p->kv, p->V);
          wide[e] = (const char *)to;
        }
        v = (some_rows){wide, 0};
      }
      for (int64_t h = g * d->r, last = h + d->r, few; h < last; h += few, next.bytes = 0) {
        few = some_queries(last - h);
        add_of[d->kind][few - 1](&v, end - j, p->V, d->score + h * KB + j, d->o + h * d->vp, d->vp, next);
      }
    }
}

static void decode(const mn_attn_args *p, int64_t b, int64_t s0, int64_t s1, float *partial, void *scratch) {
  const int64_t H = p->H, V = p->V, one = V + 2;
  decoding d;
  decoding_of(p, scratch, &d);
  d.by_key = p->k.t >= p->k.h;
  d.b = b, d.q_pos = attn_query_pos(p, b, 0), d.keys = kept_of(p, &p->k, b), d.values = kept_of(p, &p->v, b);
  for (int64_t h = 0; h < H; h++) {
    float *q = d.q + h * d.kp, *o = d.o + h * d.vp;
    tile_row_in(q, attn_row(&p->q, p->bf16, b, 0, h), p->bf16, p->K);
    for (int64_t x = 0; x < d.kp; x += MN_VL) vf_store(q + x, vf_load(q + x) * (p->scale * LOG2E));
    for (int64_t x = 0; x < d.vp; x += MN_VL) vf_store(o + x, vf_zero());
    partial[h * one + V] = HIDDEN;
    partial[h * one + V + 1] = 0;
  }
  for (int64_t h = H; h < tile_pad(H); h++) d.top[h] = d.before[h] = 0; /* heads that are none */
  for (int64_t j0 = s0; j0 < s1; j0 += KB) {
    const int64_t n = seen_keys(&d, j0, s1 - j0 < KB ? s1 - j0 : KB);
    if (n == 0) continue;
    const range beyond = next_keys(&d, j0);
    rows_of_keys(&d, n);
    score_block(&d, j0, n);
    weigh_block(&d, n, partial);
    add_block(&d, n, &beyond);
  }
  for (int64_t h = 0; h < H; h++) tile_row_out(partial + h * one, d.o + h * d.vp, 0, V);
}

/* A product that is rounded before it is added: sum + x y rounds once where the processor does both at once, and then x y + u v is not
 * u v + x y. */
#if defined(__x86_64__)
#define APART(x) __asm__("" : "+x"(x))
#else
#define APART(x) __asm__("" : "+w"(x))
#endif

/* o = sum_k o_k 2^(m_k - m) / l, l = sum_k l_k 2^(m_k - m), m the largest m_k: of two either may come first, to the bit */
static void decode_join(const mn_attn_args *p, int64_t b, int64_t n, const float *const *partials) {
  const int64_t V = p->V, one = V + 2;
  for (int64_t h = 0; h < p->H; h++) {
    const float *x[MN_LEAN_SHARES];
    float m = HIDDEN, l = 0, share[MN_LEAN_SHARES];
    for (int64_t k = 0; k < n; k++) x[k] = partials[k] + h * one, m = x[k][V] > m ? x[k][V] : m;
    for (int64_t k = 0; k < n; k++) {
      share[k] = exp2f(x[k][V] - m);
      float weight = x[k][V + 1] * share[k];
      APART(weight);
      l += weight;
    }
    for (int64_t k = 0; k < n; k++) share[k] = l > 0 ? share[k] / l : 0;
    void *o = (void *)(uintptr_t)attn_row(&p->o, p->bf16, b, 0, h);
    for (int64_t y = 0; y < V; y += MN_VL) {
      const int left = V - y < MN_VL ? (int)(V - y) : MN_VL;
      vf sum = vf_zero();
      for (int64_t k = 0; k < n; k++) {
        vf part = vf_loadn(x[k] + y, left) * share[k];
        APART(part);
        sum += part;
      }
      if (p->bf16) vf_store_bf16n((uint16_t *)o + y, sum, left);
      else vf_storen((float *)o + y, sum, left);
    }
    p->lse[b * p->lse_b + h * p->lse_h] = l > 0 ? (m + log2f(l)) * LN2 : -INFINITY;
  }
}

#endif
