/* attention.c - softmax attention forward: one block of queries against all keys it may see, block by block, with the
 * running maximum and sum of the online softmax (Milakov & Gimelshein 2018; Dao et al. 2022). No score is kept. Also
 * one query at a time (decoding), which is bound by the reading of keys and values. */
#include "backend/cpu/isa/attention_block.h"
#include "backend/cpu/isa/attention_decode.h"
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

/* Scores of a vector of lanes to weights where some are too large for soften: they become what c makes of them before anything is compared, so
 * that the largest less itself is 0. */
static __attribute__((noinline)) void soften_huge(work *w, float *st, int64_t t, int64_t n, int64_t N, float c) {
  vf top = vf_set1(-INFINITY), sum = vf_zero();
  for (int64_t j = 0; j < n; j++) {
    float *s = st + j * N + t;
    vf_store(s, vf_load(s) * c * LOG2E);
    top = vf_max(top, vf_load(s));
  }
  const vf old = vf_load(w->m + t), now = vf_max(old, top), m = vf_select(vf_lt(now, vf_set1(HIDDEN / 2)), vf_zero(), now);
  const vf alpha = attn_exp2_far(old - m);
  vf_store(w->m + t, now);
  vf_store(w->alpha + t, alpha);
  for (int64_t j = 0; j < n; j++) {
    float *s = st + j * N + t;
    const vf x = attn_exp2_far(vf_load(s) - m);
    sum += x;
    vf_store(s, x);
  }
  vf_store(w->l + t, vf_fma(vf_load(w->l + t), alpha, sum));
}

/* Scores st [n, N] to weights for `cols` vectors of lanes starting at lane t: new maximum m and sum l (in units of ln
 * 2), alpha = the factor for what was summed before. c: the scale, 1 where scores have theirs. */
MN_INLINE void soften(work *w, const int cols, const bool rough, float *st, int64_t t, int64_t n, int64_t N, float c) {
  vf top[4], sum[4], m[4];
  bool huge = false;
  TILE_UNROLL
  for (int i = 0; i < cols; i++) top[i] = vf_set1(-INFINITY);
  for (int64_t j = 0; j < n; j++) {
    TILE_UNROLL
    for (int i = 0; i < cols; i++) top[i] = vf_max(top[i], vf_load(st + j * N + t + i * MN_VL));
  }
  TILE_UNROLL
  for (int i = 0; i < cols; i++) {
    top[i] = vf_max(vf_load(w->m + t + i * MN_VL), top[i] * c * LOG2E); /* as soften_huge rounds it */
    huge |= attn_any_huge(top[i]);
  }
  if (huge) {
    for (int i = 0; i < cols; i++) soften_huge(w, st, t + i * MN_VL, n, N, c);
    return;
  }
  c *= LOG2E;
  TILE_UNROLL
  for (int i = 0; i < cols; i++) {
    vf old = vf_load(w->m + t + i * MN_VL), now = top[i];
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
  /* What only has a scale gets it with the softmax below, masked or not: equal scores stay equal. The softmax wants a positive one. */
  const bool changed = attn_biased(p) || p->gate || p->softcap > 0 || p->scale < 1e-6f;
  const float c = changed ? 1 : p->scale;
  const vf hidden = vf_set1(HIDDEN / c);
  for (int64_t j = j0; (changed || see == SEEN_SOME) && j < j1; j++) {
    float *row = w->st + j * N;
    for (int64_t t = t0; changed && t < t1; t += MN_VL) {
      vf x = vf_load(row + t) * p->scale;
      if (p->softcap > 0) x = vf_tanh(x / p->softcap) * p->softcap;
      if (attn_biased(p)) x = vf_max(vf_set1(HIDDEN), x + vf_load(w->bt + j * N + t)); /* a bias may be -inf */
      vf_store(row + t, x);
    }
    if (see == SEEN_SOME) attn_mask_row(p, b, base + j, w->q_pos + t0, q, row + t0, lanes, hidden);
    if (see == SEEN_SOME && p->has_blocks) attn_hide_unlisted(p, w->listed, base + j, t0, row + t0, lanes, hidden);
  }
  if (p->gate) attn_gate_scores(p, base, w->q_pos, w->st, N, t0, t1, j0, j1);
  int64_t t = t0;
  if (pairs) {
    for (; t + 4 * MN_VL <= t1; t += 4 * MN_VL) soften(w, 4, true, st, t, n, N, c);
    for (; t < t1; t += MN_VL) soften(w, 1, true, st, t, n, N, c);
  } else {
    for (; t + 4 * MN_VL <= t1; t += 4 * MN_VL) soften(w, 4, false, st, t, n, N, c);
    for (; t < t1; t += MN_VL) soften(w, 1, false, st, t, n, N, c);
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

const mn_attention_isa MN_ISA_NAME(mn_attention) = {forward_scratch, forward_begin, forward, decode_scratch, decode, decode_join};
