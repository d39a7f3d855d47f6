/* attention.c - softmax attention forward: one block of queries against all keys it may see, block by block, with the
 * running maximum and sum of the online softmax (Milakov & Gimelshein 2018; Dao et al. 2022). No score is kept. Also
 * one query at a time (decoding), which is bound by the reading of keys and values. */
#include "backend/cpu/isa/attention_block.h"
#include "graph/fused_attention.h"

/* ---- a block of queries ---- */
typedef struct work {
  int64_t *head;        /* [1] the key head, counted over the batch from 1, whose keys and values are widened; 0: none */
  bool *wide;           /* [S / KB] which blocks of them are there */
  float *qt;            /* [K, N], or pairs [K/2, N]     */
  float *st;            /* scores, then weights [KB, N]  */
  uint32_t *p2;         /* weights as pairs [KB/2, N]    */
  uint32_t *v2;         /* values as pairs [KB/2, vp]    */
  float *ot;            /* output [V, N]                 */
  float *bt;            /* bias [KB, N]                  */
  float *kw, *vw;       /* widened keys, values [S, .], or of one block [KB, .] */
  float *tmp;           /* [QB, max(kp, vp, KB)]         */
  float *m, *l, *alpha; /* [N]                        */
  int32_t *q_pos;       /* [N]                        */
  uint16_t *listed;     /* [QB / PANEL, blocks of keys] */
} work;

static bool widens(const mn_attn_args *p) { return p->kv != MN_F32 && !attn_pairs(p); }
/* A head's keys and values are widened once for all blocks of its queries that a thread does one after the other, where they stay near. */
static bool widens_once(const mn_attn_args *p) {
  enum { NEAR = 1 << 20 };
  return widens(p) && p->T > QB && p->S * (tile_pad(p->K) + tile_pad(p->V)) * (int64_t)sizeof(float) <= NEAR;
}

static void take_work(work *w, take *s, const mn_attn_args *p) {
  const int64_t kp = tile_pad(p->K), vp = tile_pad(p->V), held = !widens(p) ? 0 : widens_once(p) ? p->S : KB;
  int64_t wide = kp > vp ? kp : vp;
  if (wide < KB) wide = KB;
  const bool pairs = attn_pairs(p);
  w->head = take_bytes(s, sizeof *w->head); /* the first: forward_begin */
  w->wide = take_bytes(s, widens_once(p) ? p->S / attn_key_step(p) + 1 : 0);
  w->qt = take_floats(s, kp * QB);
  w->st = take_floats(s, KB * QB);
  w->p2 = take_bytes(s, pairs ? KB / 2 * QB * 4 : 0);
  w->v2 = take_bytes(s, pairs ? KB / 2 * vp * 4 : 0);
  w->ot = take_floats(s, vp * QB);
  w->bt = take_floats(s, attn_biased(p) ? KB * QB : 0);
  w->kw = take_floats(s, held * kp);
  w->vw = take_floats(s, held * vp);
  w->tmp = take_floats(s, QB * wide);
  w->m = take_floats(s, QB);
  w->l = take_floats(s, QB);
  w->alpha = take_floats(s, QB);
  w->q_pos = take_bytes(s, QB * sizeof *w->q_pos);
  w->listed = take_bytes(s, QB / PANEL * attn_key_blocks(p) * (int64_t)sizeof *w->listed);
}
static size_t forward_scratch(const mn_attn_args *p) {
  take s = {NULL, 0};
  work w;
  take_work(&w, &s, p);
  return s.used;
}

static void forward_begin(void *scratch) { *(int64_t *)scratch = 0; }

/* Keys and values j0 .. j0 + n of a head, widened unless they are there */
static void take_rows(const mn_attn_args *p, work *w, int64_t b, int64_t g, int64_t j0, int64_t n, rows *k, rows *v) {
  const bool pairs = attn_pairs(p), once = widens_once(p);
  const int64_t kp = tile_pad(p->K), vp = tile_pad(p->V), step = attn_key_step(p);
  float *kw = w->kw + (once ? j0 * kp : 0), *vw = w->vw + (once ? j0 * vp : 0);
  if (once && w->wide[j0 / step]) {
    *k = (rows){kw, NULL, kp}, *v = (rows){vw, NULL, vp};
    return;
  }
  *k = attn_rows(p, &p->k, pairs, b, j0, g, n, p->K, kw), *v = attn_rows(p, &p->v, pairs, b, j0, g, n, p->V, vw);
  if (once) w->wide[j0 / step] = true;
}

/* Scores st [n, N] to weights for `cols` vectors of lanes starting at lane t: new maximum m and sum l (in units of ln
 * 2), alpha = the factor for what was summed before. c: scale times log2(e). */
MN_INLINE void soften(work *w, const int cols, const bool rough, float *st, int64_t t, int64_t n, int64_t N, float c) {
  vf top[4], sum[4], m[4];
  TILE_UNROLL
  for (int i = 0; i < cols; i++) top[i] = vf_set1(HIDDEN);
  for (int64_t j = 0; j < n; j++) {
    TILE_UNROLL
    for (int i = 0; i < cols; i++) top[i] = vf_max(top[i], vf_load(st + j * N + t + i * MN_VL));
  }
  TILE_UNROLL
  for (int i = 0; i < cols; i++) {
    vf old = vf_load(w->m + t + i * MN_VL), now = vf_max(old, top[i] * c);
    vf_store(w->m + t + i * MN_VL, now);
    m[i] = vf_select(vf_lt(now, vf_set1(HIDDEN / 2)), vf_zero(), now); /* nothing seen so far: weights 0 */
    vf_store(w->alpha + t + i * MN_VL, attn_exp2(old - m[i], false));
    sum[i] = vf_zero();
  }
  for (int64_t j = 0; j < n; j++) {
    TILE_UNROLL
    for (int i = 0; i < cols; i++) {
      float *s = st + j * N + t + i * MN_VL;
      vf x = attn_exp2(vf_fma(vf_load(s), vf_set1(c), -m[i]), rough);
      sum[i] += x;
      vf_store(s, x);
    }
  }
  TILE_UNROLL
  for (int i = 0; i < cols; i++) {
    float *l = w->l + t + i * MN_VL;
    vf_store(l, vf_fma(vf_load(l), vf_load(w->alpha + t + i * MN_VL), sum[i]));
  }
}

/* Lanes [t0, t1) against rows [j0, j1) of the block of keys that starts at key `base`. */
static void panel(const mn_attn_args *p, work *w, int64_t b, int64_t base, seen see, span q, int64_t N, int64_t t0, int64_t t1, int64_t j0,
                  int64_t j1, rows k, rows v, tile_ahead next[2]) {
  const bool pairs = attn_pairs(p);
  if (pairs) j0 &= ~(int64_t)1; /* whole pairs of keys; what is hidden gets weight 0 */
  const int64_t n = j1 - j0, lanes = t1 - t0;
  float *st = w->st + j0 * N;

  /* scores [n, lanes] = K Q^T */
#if TILE_PAIRS
  if (pairs)
    tile_gemm_pairs(n, lanes, p->K / 2, k.h + j0 * k.stride, k.stride, 2, (const uint32_t *)(void *)w->qt + t0, N, st + t0, N, false);
  else
#endif
    tile_gemm_asking(n, lanes, p->K, k.f + j0 * k.stride, k.stride, 1, w->qt + t0, N, st + t0, N, TILE_SET, &next[0]);
  float c = p->scale;
  if (see == SEEN_SOME || attn_biased(p) || p->gate || p->softcap > 0 || p->scale <= 0) { /* the softmax below wants a positive scale */
    for (int64_t j = j0; j < j1; j++) {
      float *row = w->st + j * N;
      for (int64_t t = t0; t < t1; t += MN_VL) {
        vf x = vf_load(row + t) * c;
        if (p->softcap > 0) x = vf_tanh(x / p->softcap) * p->softcap;
        if (attn_biased(p)) x = vf_max(vf_set1(HIDDEN), x + vf_load(w->bt + j * N + t)); /* a bias may be -inf */
        vf_store(row + t, x);
      }
      if (see == SEEN_SOME) attn_mask_row(p, b, base + j, w->q_pos + t0, q, row + t0, lanes, vf_set1(HIDDEN));
      if (see == SEEN_SOME && p->has_blocks) attn_hide_unlisted(p, w->listed, base + j, t0, row + t0, lanes, vf_set1(HIDDEN));
    }
    if (p->gate) attn_gate_scores(p, base, w->q_pos, w->st, N, t0, t1, j0, j1);
    c = 1;
  }
  int64_t t = t0;
  if (pairs) {
    for (; t + 4 * MN_VL <= t1; t += 4 * MN_VL) soften(w, 4, true, st, t, n, N, c * LOG2E);
    for (; t < t1; t += MN_VL) soften(w, 1, true, st, t, n, N, c * LOG2E);
  } else {
    for (; t + 4 * MN_VL <= t1; t += 4 * MN_VL) soften(w, 4, false, st, t, n, N, c * LOG2E);
    for (; t < t1; t += MN_VL) soften(w, 1, false, st, t, n, N, c * LOG2E);
  }

  /* output [V, lanes] += V^T weights, where what there is shrinks by alpha if the maximum has grown */
  bool grown = false;
  for (t = t0; t < t1; t += MN_VL) grown |= vm_any(vm_not(vf_eq(vf_load(w->alpha + t), vf_set1(1))));
  for (int64_t i = 0; grown && i < p->V; i++)
    for (t = t0; t < t1; t += MN_VL) vf_store(w->ot + i * N + t, vf_load(w->ot + i * N + t) * vf_load(w->alpha + t));
#if TILE_PAIRS
  if (pairs) {
    for (int64_t j = j0; j < j1; j += 2)
      for (t = t0; t < t1; t += MN_VL)
        tile_pair_round(w->p2 + j / 2 * N + t, vf_load(w->st + j * N + t), j + 1 < j1 ? vf_load(w->st + (j + 1) * N + t) : vf_zero());
    const int64_t vp = tile_pad(p->V);
    tile_gemm_pairs(p->V, lanes, (n + 1) / 2, (const uint16_t *)(void *)(w->v2 + j0 / 2 * vp), 2, 2 * vp, w->p2 + j0 / 2 * N + t0, N,
                    w->ot + t0, N, true);
    return;
  }
#endif
  tile_gemm_asking(p->V, lanes, n, v.f + j0 * v.stride, 1, v.stride, st + t0, N, w->ot + t0, N, TILE_ADD, &next[1]);
}

static void forward(const mn_attn_args *p, int64_t b, int64_t h, int64_t t0, void *scratch) {
  take s = {scratch, 0};
  work w;
  take_work(&w, &s, p);
  const bool pairs = attn_pairs(p);
  const int64_t nq = p->T - t0 < QB ? p->T - t0 : QB, N = tile_pad(nq), g = h / (p->H / p->G);
  const int64_t vp = tile_pad(p->V);
  if (widens_once(p) && *w.head != b * p->G + g + 1) {
    *w.head = b * p->G + g + 1;
    memset(w.wide, 0, (size_t)(p->S / attn_key_step(p) + 1));
  }
  attn_query_positions(p, b, t0, nq, w.q_pos, N);
  const span all = attn_span(w.q_pos, 0, N);
  const int64_t filled = mn_attn_filled(p, b);
  if (p->has_blocks) attn_take_lists(p, b, h, t0, nq, N, w.listed);
  attn_turned(p, &p->q, pairs, b, t0, h, nq, p->K, w.qt, N, w.tmp);
  for (int64_t t = 0; t < N; t++) w.m[t] = HIDDEN, w.l[t] = 0;
  memset(w.ot, 0, (size_t)(p->V * N) * sizeof(float));
  const int64_t step = attn_key_step(p);
  for (int64_t j0 = 0; j0 < filled; j0 += step) {
    const int64_t n = filled - j0 < step ? filled - j0 : step;
    seen see = attn_block_seen(p, b, j0, n, all);
    if (see != SEEN_NONE && p->has_blocks) {
      const seen listed = attn_listed(p, w.listed, 0, N, j0, n);
      see = listed == SEEN_ALL ? see : listed;
    }
    if (see == SEEN_NONE) continue;
    rows k, v;
    take_rows(p, &w, b, g, j0, n, &k, &v);
    if (attn_biased(p)) attn_added(p, b, h, t0, w.q_pos, nq, j0, n, w.bt, N, w.tmp);
#if TILE_PAIRS
    for (int64_t j = 0; pairs && j < n; j += 2)
      tile_pair_rows(w.v2 + j / 2 * vp, v.h + j * v.stride, j + 1 < n ? v.h + (j + 1) * v.stride : NULL, p->V);
#endif
    tile_ahead next[2] = {attn_ahead(p, &p->k, b, j0 + n, g, filled, p->K), attn_ahead(p, &p->v, b, j0 + n, g, filled, p->V)};
    const int64_t width = see == SEEN_ALL ? N : PANEL;
    for (int64_t t = 0; t < N; t += width) {
      int64_t first = 0, last = n;
      const int64_t end = t + width < N ? t + width : N;
      const span q = see == SEEN_ALL ? all : attn_span(w.q_pos, t, end);
      if (see == SEEN_SOME) attn_rows_seen(p, j0, n, q.lo, q.hi, &first, &last);
      if (p->has_blocks && first < last && attn_listed(p, w.listed, t, end, j0 + first, last - first) == SEEN_NONE) continue;
      if (first < last) panel(p, &w, b, j0, see, q, N, t, end, first, last, k, v, next);
    }
  }

  for (int64_t t = 0; t < nq; t++) p->lse[b * p->lse_b + h * p->lse_h + t0 + t] = w.l[t] > 0 ? (w.m[t] + log2f(w.l[t])) * LN2 : -INFINITY;
  for (int64_t t = 0; t < N; t += MN_VL) {
    vf l = vf_load(w.l + t);
    vf_store(w.alpha + t, vf_select(vf_lt(vf_zero(), l), 1.0f / l, vf_zero()));
  }
  for (int64_t i = 0; i < p->V; i++)
    for (int64_t t = 0; t < N; t += MN_VL) vf_store(w.ot + i * N + t, vf_load(w.ot + i * N + t) * vf_load(w.alpha + t));
  tile_transpose(w.tmp, vp, w.ot, N, p->V, nq, 0);
  for (int64_t t = 0; t < nq; t++) tile_row_out((void *)(uintptr_t)attn_row(&p->o, p->bf16, b, t0 + t, h), w.tmp + t * vp, p->bf16, p->V);
}

/* ---- one query ---- keys and values are read once, in the order in which they lie: it is the reading that takes time
 */
/* bf16 is widened on its way into a register; other types, which more than one query may read, once for all of them. */
MN_INLINE bool by_row(const mn_attn_args *p) { return p->kv == MN_F16 || p->kv == MN_Q8_0; }
MN_INLINE int64_t widest_row(const mn_attn_args *p) { /* floats: a key, or four values */
  const int64_t kp = tile_pad(p->K), vp = 4 * tile_pad(p->V);
  return !by_row(p) ? 0 : kp > vp ? kp : vp;
}

static size_t decode_scratch(const mn_attn_args *p) {
  take s = {NULL, 0};
  take_floats(&s, p->H * tile_pad(p->K));
  take_floats(&s, p->H * KB);
  take_floats(&s, p->H * tile_pad(p->V));
  take_bytes(&s, KB * 8);
  take_floats(&s, widest_row(p));
  return s.used;
}

MN_INLINE vf load_some(const void *row, const bool bf16, int64_t i, int64_t n) { /* elements i .. of a row of n */
  const int left = n - i < MN_VL ? (int)(n - i) : MN_VL;
  if (left == MN_VL) return bf16 ? vf_load_bf16((const uint16_t *)row + i) : vf_load((const float *)row + i);
  return bf16 ? vf_load_bf16n((const uint16_t *)row + i, left) : vf_loadn((const float *)row + i, left);
}

/* Scores of one key for the r queries that share it. */
MN_INLINE void score_key(const void *k, const bool bf16, int64_t K, const float *q, int64_t r, float *score) {
  const int64_t kp = tile_pad(K);
  for (int64_t i = 0; i < r; i++, q += kp, score += KB) {
    vf a[2] = {vf_zero(), vf_zero()};
    int64_t x = 0;
    for (; x + 2 * MN_VL <= K; x += 2 * MN_VL) {
      a[0] += load_some(k, bf16, x, K) * vf_load(q + x);
      a[1] += load_some(k, bf16, x + MN_VL, K) * vf_load(q + x + MN_VL);
    }
    for (; x < K; x += MN_VL) a[0] += load_some(k, bf16, x, K) * vf_load(q + x);
    *score = vf_sum(a[0] + a[1]);
  }
}
/* Their outputs get n more values, at most 4: rows v, v + step, ... (in elements). */
MN_INLINE void add_values(const void *v, const bool bf16, int64_t V, int64_t step, int64_t n, float *o, int64_t r, const float *score) {
  const int64_t vp = tile_pad(V), bytes = step * (bf16 ? 2 : 4);
  const char *row = v;
  for (int64_t i = 0; i < r; i++, o += vp, score += KB)
    for (int64_t y = 0; y < V; y += MN_VL) {
      vf sum = vf_load(o + y);
      if (n == 4) {
        TILE_UNROLL
        for (int j = 0; j < 4; j++) sum += vf_set1(score[j]) * load_some(row + j * bytes, bf16, y, V);
      } else {
        for (int j = 0; j < n; j++) sum += vf_set1(score[j]) * load_some(row + j * bytes, bf16, y, V);
      }
      vf_store(o + y, sum);
    }
}

/* The processor's own prefetching loses its way between heads: while keys are scored their values are brought nearer,
 * and the next block's keys while values are summed. */
MN_INLINE void fetch_ahead(const void *row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)row + i, 0, 2);
}

/* The usual widths as constants: their loops unroll. */
#define COMMON_WIDTHS(f, row, width, ...)                                                                                                  \
  do {                                                                                                                                     \
    const bool bf16 = p->kv == MN_BF16;                                                                                                    \
    if (bf16 && (width) == 64) f(row, true, 64, __VA_ARGS__);                                                                              \
    else if (bf16 && (width) == 128) f(row, true, 128, __VA_ARGS__);                                                                       \
    else if (bf16) f(row, true, width, __VA_ARGS__);                                                                                       \
    else if ((width) == 64) f(row, false, 64, __VA_ARGS__);                                                                                \
    else if ((width) == 128) f(row, false, 128, __VA_ARGS__);                                                                              \
    else f(row, false, width, __VA_ARGS__);                                                                                                \
  } while (0)

MN_INLINE size_t kv_bytes(const mn_attn_args *p, int64_t n) { /* of a row of n */
  return p->kv == MN_F32 ? (size_t)n * 4 : p->kv == MN_Q8_0 ? (size_t)n / MN_BLOCK * sizeof(mn_q8_0) : (size_t)n * 2;
}

static void decode(const mn_attn_args *p, int64_t b, int64_t s0, int64_t s1, float *partial, void *scratch) {
  const int64_t H = p->H, G = p->G, V = p->V, r = H / G, kp = tile_pad(p->K), vp = tile_pad(V), one = V + 2;
  const int64_t q_pos = attn_query_pos(p, b, 0), k_bytes = (int64_t)kv_bytes(p, p->K), v_bytes = (int64_t)kv_bytes(p, V);
  take s = {scratch, 0};
  float *q = take_floats(&s, H * kp), *score = take_floats(&s, H * KB), *o = take_floats(&s, H * vp);
  int64_t *list = take_bytes(&s, KB * 8);
  float *wide = take_floats(&s, widest_row(p));
  for (int64_t h = 0; h < H; h++) {
    tile_row_in(q + h * kp, attn_row(&p->q, p->bf16, b, 0, h), p->bf16, p->K);
    for (int64_t x = 0; x < kp; x += MN_VL) vf_store(q + h * kp + x, vf_load(q + h * kp + x) * (p->scale * LOG2E));
    for (int64_t x = 0; x < vp; x += MN_VL) vf_store(o + h * vp + x, vf_zero());
    partial[h * one + V] = HIDDEN;
    partial[h * one + V + 1] = 0;
  }
  for (int64_t j0 = s0; j0 < s1; j0 += KB) {
    const int64_t block = s1 - j0 < KB ? s1 - j0 : KB;
    const seen see = attn_block_seen(p, b, j0, block, (span){q_pos, q_pos});
    int64_t n = 0;
    for (int64_t j = j0; see != SEEN_NONE && j < j0 + block; j++) /* most blocks are seen whole, and where a key lies need not be asked */
      if (see == SEEN_ALL || j < p->prefix || attn_sees(p, attn_key_pos(p, b, j), q_pos)) list[n++] = j;
    if (n == 0) continue;
    const bool by_key = p->k.t >= p->k.h; /* the nearer neighbour in memory first */
    for (int64_t x = 0; x < (by_key ? n : G); x++)
      for (int64_t y = 0; y < (by_key ? G : n); y++) {
        const int64_t j = by_key ? x : y, g = by_key ? y : x;
        const void *k = attn_kv_row(p, &p->k, b, list[j], g);
        fetch_ahead(attn_kv_row(p, &p->v, b, list[j], g), v_bytes);
        if (by_row(p)) attn_widen(wide, k, p->kv, p->K), k = wide;
        COMMON_WIDTHS(score_key, k, p->K, q + g * r * kp, r, score + g * r * KB + j);
      }
    for (int64_t h = 0; h < H; h++) {
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
      const float alpha = exp2f(ml[0] - use);
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
    for (int64_t j = 0, m; j < n; j += m) { /* runs of up to four neighbours */
      for (m = 1; m < 4 && j + m < n && list[j + m] == list[j] + m;) m++;
      for (int64_t g = 0; g < G; g++) {
        const void *v = attn_kv_row(p, &p->v, b, list[j], g);
        for (int64_t y = 0; y < m && list[j + y] + KB < s1; y++) /* this key's neighbour of the next block */
          fetch_ahead(attn_kv_row(p, &p->k, b, list[j + y] + KB, g), k_bytes);
        for (int64_t y = 0; by_row(p) && y < m; y++) attn_widen(wide + y * vp, attn_kv_row(p, &p->v, b, list[j + y], g), p->kv, V);
        if (by_row(p)) v = wide;
        COMMON_WIDTHS(add_values, v, V, by_row(p) ? vp : p->v.t, m, o + g * r * vp, r, score + g * r * KB + j);
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

const mn_attention_isa MN_ISA_NAME(mn_attention) = {forward_scratch, forward_begin, forward, decode_scratch, decode, decode_join};
