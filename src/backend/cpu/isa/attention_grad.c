/* attention_grad.c - softmax attention backward (Dao et al. 2022): the weights P of a block are made again from the
 * scores and lse; with delta_t = sum_v do o - dlse, dV += P^T dO     dP = dO V^T     dS = P o (dP - delta)     dK +=
 * scale dS^T Q     dQ += scale dS K     dbias += dS Blocks are transposed as in the forward pass: a row for each key.
 * dk and dv of one key head are summed over all query heads that share it, in a fixed order. */
#include "backend/cpu/isa/attention_block.h"

typedef struct work {
  float *qt, *dot;    /* [K, N], [V, N]; or pairs along the width            */
  float *q, *d_o;     /* [QB, kp], [QB, vp]; or pairs of queries [QB/2, .]   */
  float *st, *dst;    /* [KB, N]: scores, weights; dP, dS                    */
  uint16_t *ph, *dsh; /* [KB, N] bf16                                        */
  uint32_t *ds2, *k2; /* pairs of keys [KB/2, N], [KB/2, kp]                 */
  float *dqt;         /* [K, N]          */
  float *bt;          /* [KB, N]         */
  float *kw, *vw;     /* widened keys, values [S, .]: every block of queries reads them */
  bool *wide;         /* [S / KB] which blocks of them are there */
  float *tmp;         /* [QB, max(kp, vp, KB)] */
  float *lse, *delta; /* [N]             */
  float *top, *rest;  /* [N] where scores are huge: the largest, and log2 of the sum of the weights beside it */
  int32_t *q_pos;     /* [N]             */
  uint16_t *listed;   /* [QB / PANEL, blocks of keys] */
} work;

static void take_work(work *w, take *s, const mn_attn_args *p) {
  const int64_t kp = tile_pad(p->K), vp = tile_pad(p->V);
  int64_t wide = kp > vp ? kp : vp;
  if (wide < KB) wide = KB;
  const bool pairs = attn_pairs(p), widen = p->bf16 && !pairs;
  w->qt = take_floats(s, kp * QB);
  w->dot = take_floats(s, vp * QB);
  w->q = take_floats(s, kp * QB);
  w->d_o = take_floats(s, vp * QB);
  w->st = take_floats(s, KB * QB);
  w->dst = take_floats(s, KB * QB);
  w->ph = take_bytes(s, pairs ? KB * QB * 2 : 0);
  w->dsh = take_bytes(s, pairs ? KB * QB * 2 : 0);
  w->ds2 = take_bytes(s, pairs ? KB / 2 * QB * 4 : 0);
  w->k2 = take_bytes(s, pairs ? KB / 2 * kp * 4 : 0);
  w->dqt = take_floats(s, kp * QB);
  w->bt = take_floats(s, attn_biased(p) ? KB * QB : 0);
  w->kw = take_floats(s, widen ? p->S * kp : 0);
  w->vw = take_floats(s, widen ? p->S * vp : 0);
  w->wide = take_bytes(s, p->S / attn_key_step(p) + 1);
  w->tmp = take_floats(s, QB * wide);
  w->lse = take_floats(s, QB);
  w->delta = take_floats(s, QB);
  w->top = take_floats(s, QB);
  w->rest = take_floats(s, QB);
  w->q_pos = take_bytes(s, QB * sizeof *w->q_pos);
  w->listed = take_bytes(s, QB / PANEL * attn_key_blocks(p) * (int64_t)sizeof *w->listed);
}
static size_t scratch_size(const mn_attn_args *p) {
  take s = {NULL, 0};
  work w;
  take_work(&w, &s, p);
  return s.used;
}
static int64_t sum_floats(const mn_attn_args *p) { return p->S * (tile_pad(p->K) + tile_pad(p->V)); }

/* The rows of a block of queries, as they are multiplied by blocks whose rows are keys. */
static void straight(const mn_attn_args *p, const mn_attn_tensor *x, bool pairs, int64_t b, int64_t t0, int64_t h, int64_t n, int64_t width,
                     float *dst) {
  const int64_t ld = tile_pad(width);
#if TILE_PAIRS
  if (pairs) {
    for (int64_t t = 0; t < n; t += 2)
      tile_pair_rows((uint32_t *)(void *)dst + t / 2 * ld, attn_row(x, true, b, t0 + t, h),
                     t + 1 < n ? attn_row(x, true, b, t0 + t + 1, h) : NULL, width);
    return;
  }
#else
  (void)pairs;
#endif
  for (int64_t t = 0; t < n; t++) tile_row_in(dst + t * ld, attn_row(x, p->bf16, b, t0 + t, h), p->bf16, width);
}

/* dbias += dS of queries [t0, t1) and keys [j0, j1) of the blocks at q0 and base */
static void add_dbias(const mn_attn_args *p, const work *w, int64_t b, int64_t h, int64_t q0, int64_t base, int64_t N, int64_t t0,
                      int64_t t1, int64_t j0, int64_t j1) {
  float *dst = p->dbias + b * p->dbias_b + h * p->dbias_h + (q0 + t0) * p->dbias_t + (base + j0) * p->dbias_s;
  const float *ds = w->dst + j0 * N + t0;
  const int64_t n = j1 - j0, nt = t1 - t0;
  if (p->dbias_t != 0 && p->dbias_s != 0) {
    tile_transpose(w->tmp, KB, ds, N, n, nt, 0);
    for (int64_t t = 0; t < nt; t++)
      for (int64_t j = 0; j < n; j++) dst[t * p->dbias_t + j * p->dbias_s] += w->tmp[t * KB + j];
    return;
  }
  for (int64_t j = 0; j < n; j++)
    for (int64_t t = 0; t < nt; t++) dst[t * p->dbias_t + j * p->dbias_s] += ds[j * N + t];
}

/* by_distance: the same into the row of the head's table that each pair's distance names */
static void add_distances(const mn_attn_args *p, const work *w, int64_t b, int64_t h, int64_t base, int64_t N, int64_t t0, int64_t t1,
                          int64_t j0, int64_t j1) {
  float *table = p->dbias + h * p->dbias_h;
  const int64_t nt = t1 - t0;
  const bool in_order = attn_in_order(w->q_pos + t0, nt);
  for (int64_t j = j0; j < j1; j++) {
    if (base + j < p->prefix) continue;
    const float *ds = w->dst + j * N + t0;
    const int64_t k = attn_key_pos(p, b, base + j), first = w->q_pos[t0] - k + p->distance_zero;
    if (in_order && first >= 0 && first + nt <= p->distances) {
      for (int64_t t = 0; t < nt; t++) table[first + t] += ds[t];
    } else {
      for (int64_t t = 0; t < nt; t++) table[attn_apart(p, k, w->q_pos[t0 + t])] += ds[t];
    }
  }
}

/* ---- scores whose lse is so large that what it was rounded by counts beside 1 ---- They are made once more: the largest of each row, and the
 * sum of the weights beside it, are kept apart. */
static bool is_huge(const work *w, int64_t N) {
  for (int64_t t = 0; t < N; t++)
    if (w->lse[t] != -HIDDEN && fabsf(w->lse[t]) > 0x1p12f) return true;
  return false;
}
/* Products times c become scores of one unit; returns what makes them exponents of 2. Hidden where a query does not see a key. */
static float finish_scores(const mn_attn_args *p, work *w, int64_t b, int64_t base, seen see, int64_t N, int64_t t0, int64_t lanes,
                           int64_t j0, int64_t j1, float c) {
  const span q = see == SEEN_SOME ? attn_span(w->q_pos, t0, t0 + lanes) : (span){0, 0};
  const bool natural = attn_biased(p) || c <= 0;
  for (int64_t j = j0; j < j1; j++) {
    float *s = w->st + j * N + t0;
    for (int64_t t = 0; natural && t < lanes; t += MN_VL) {
      vf x = vf_load(s + t) * c;
      if (attn_biased(p)) x = vf_max(vf_set1(HIDDEN), x + vf_load(w->bt + j * N + t0 + t));
      vf_store(s + t, x);
    }
    if (see == SEEN_SOME) attn_mask_row(p, b, base + j, w->q_pos + t0, q, s, lanes, vf_set1(HIDDEN));
    if (see == SEEN_SOME && p->has_blocks) attn_hide_unlisted(p, w->listed, base + j, t0, s, lanes, vf_set1(HIDDEN));
  }
  return natural ? LOG2E : c * LOG2E;
}
/* The largest, and the sum beside it, with one panel more. */
static void measure(work *w, int64_t N, int64_t t0, int64_t lanes, int64_t j0, int64_t j1, float unit) {
  for (int64_t t = t0; t < t0 + lanes; t += MN_VL) {
    const vf old = vf_load(w->top + t);
    vf top = old;
    for (int64_t j = j0; j < j1; j++) top = vf_max(top, vf_load(w->st + j * N + t));
    vf sum = vf_load(w->rest + t) * attn_exp2_far((old - top) * unit);
    for (int64_t j = j0; j < j1; j++) sum += attn_exp2_far((vf_load(w->st + j * N + t) - top) * unit);
    vf_store(w->top + t, top);
    vf_store(w->rest + t, sum);
  }
}

/* What is read next: keys and values of the next block, then queries, gradients and outputs of the next block of queries */
enum { NEXT_K, NEXT_V, NEXT_Q, NEXT_DO, NEXT_O, NEXTS };

/* How a row's weights are made: of its lse; of what is first measured where that is huge. */
typedef enum weighing { BY_LSE, MEASURING, BY_TOP } weighing;

/* Queries [t0, t1) of the block at q0 with keys [j0, j1) of the block at base, whose sums are dk and dv. */
static void panel(const mn_attn_args *p, work *w, weighing how, int64_t b, int64_t h, int64_t q0, int64_t base, seen see, int64_t N,
                  int64_t t0, int64_t t1, int64_t j0, int64_t j1, rows k, rows v, float *dk, float *dv, tile_ahead next[NEXTS]) {
  const bool pairs = attn_pairs(p);
  if (pairs) j0 &= ~(int64_t)1; /* whole pairs of keys; what is hidden gets weight 0 */
  const int64_t K = p->K, V = p->V, kp = tile_pad(K), vp = tile_pad(V), n = j1 - j0, nt = t1 - t0;
  const int64_t lanes = tile_pad(nt);
  const span q_span = see == SEEN_SOME ? attn_span(w->q_pos, t0, t0 + lanes) : (span){0, 0};
  float *st = w->st + j0 * N + t0, *dst = w->dst + j0 * N + t0;
#if TILE_PAIRS
  if (pairs) {
    tile_gemm_pairs(n, lanes, K / 2, k.h + j0 * k.stride, k.stride, 2, (const uint32_t *)(void *)w->qt + t0, N, st, N, false);
    tile_gemm_pairs(n, lanes, V / 2, v.h + j0 * v.stride, v.stride, 2, (const uint32_t *)(void *)w->dot + t0, N, dst, N, false);
  } else
#endif
  {
    tile_gemm_asking(n, lanes, K, k.f + j0 * k.stride, k.stride, 1, w->qt + t0, N, st, N, TILE_SET, &next[NEXT_K]);
    if (how != MEASURING) tile_gemm_asking(n, lanes, V, v.f + j0 * v.stride, v.stride, 1, w->dot + t0, N, dst, N, TILE_SET, &next[NEXT_V]);
  }
  float c = p->scale * LOG2E;
  const float scale = p->dbias ? 1 : p->scale;
  if (p->gate) {
    for (int64_t j = 0; j < n; j++)
      for (int64_t t = 0; t < lanes; t += MN_VL) vf_store(st + j * N + t, vf_load(st + j * N + t) * p->scale);
    attn_gate_scores(p, base, w->q_pos, w->st, N, t0, t0 + lanes, j0, j1);
    c = LOG2E;
  }
  for (int64_t j = 0; p->softcap > 0 && j < n; j++) { /* y = c tanh(s / c), and dP - delta falls by dy / ds = 1 - (y / c)^2 */
    float *s = st + j * N, *d = dst + j * N;
    for (int64_t t = 0; t < lanes; t += MN_VL) {
      const vf y = vf_tanh(vf_load(s + t) * (p->scale / p->softcap));
      vf_store(s + t, y * p->softcap);
      if (how == MEASURING) continue;
      vf_store(d + t, (vf_load(d + t) - vf_load(w->delta + t0 + t)) * (vf_set1(1) - y * y));
    }
    c = LOG2E;
  }
  if (how != BY_LSE) c = finish_scores(p, w, b, base, see, N, t0, lanes, j0, j1, p->gate || p->softcap > 0 ? 1 : p->scale);
  if (how == MEASURING) {
    measure(w, N, t0, lanes, j0, j1, c);
    return;
  }
  for (int64_t j = 0; j < n; j++) {
    float *s = st + j * N, *d = dst + j * N;
    for (int64_t t = 0; how == BY_TOP && t < lanes; t += MN_VL)
      vf_store(s + t, attn_exp2_far((vf_load(s + t) - vf_load(w->top + t0 + t)) * c - vf_load(w->rest + t0 + t)));
    for (int64_t t = 0; how == BY_LSE && t < lanes; t += MN_VL) {
      vf x = vf_fma(vf_load(s + t), vf_set1(c), -vf_load(w->lse + t0 + t));
      if (attn_biased(p)) x = vf_max(vf_set1(HIDDEN), vf_fma(vf_load(w->bt + (j0 + j) * N + t0 + t), vf_set1(LOG2E), x));
      vf_store(s + t, attn_exp2(x, TILE_PAIRS && pairs));
    }
    if (see == SEEN_SOME) attn_mask_row(p, b, base + j0 + j, w->q_pos + t0, q_span, s, lanes, vf_zero());
    if (see == SEEN_SOME && p->has_blocks) attn_hide_unlisted(p, w->listed, base + j0 + j, t0, s, lanes, vf_zero());
    for (int64_t t = 0; t < lanes; t += MN_VL) {
      const vf slope = p->softcap > 0 ? vf_load(d + t) : vf_load(d + t) - vf_load(w->delta + t0 + t);
      vf_store(d + t, vf_load(s + t) * slope * scale);
    }
  }
  if (p->gate) attn_gate_back(p, base, w->q_pos, w->st, w->dst, N, t0, t0 + lanes, j0, j1);
  if (p->dbias) {
    if (p->by_distance) add_distances(p, w, b, h, base, N, t0, t1, j0, j1);
    else add_dbias(p, w, b, h, q0, base, N, t0, t1, j0, j1);
    for (int64_t j = 0; j < n; j++)
      for (int64_t t = 0; t < lanes; t += MN_VL) vf_store(dst + j * N + t, vf_load(dst + j * N + t) * p->scale);
  }
#if TILE_PAIRS
  if (pairs) {
    uint16_t *ph = w->ph + j0 * N + t0, *dsh = w->dsh + j0 * N + t0;
    uint32_t *ds2 = w->ds2 + j0 / 2 * N + t0;
    for (int64_t j = 0; j < n; j += 2) {
      const bool two = j + 1 < n;
      for (int64_t t = 0; t < lanes; t += MN_VL) {
        vf d0 = vf_load(dst + j * N + t), d1 = two ? vf_load(dst + (j + 1) * N + t) : vf_zero();
        tile_pair_round(ds2 + j / 2 * N + t, d0, d1);
        vf_store_bf16(dsh + j * N + t, d0);
        vf_store_bf16(ph + j * N + t, vf_load(st + j * N + t));
        if (two) {
          vf_store_bf16(dsh + (j + 1) * N + t, d1);
          vf_store_bf16(ph + (j + 1) * N + t, vf_load(st + (j + 1) * N + t));
        }
      }
    }
    const uint32_t *d_o = (const uint32_t *)(void *)w->d_o + t0 / 2 * vp, *q = (const uint32_t *)(void *)w->q + t0 / 2 * kp;
    tile_gemm_pairs(n, V, (nt + 1) / 2, ph, N, 2, d_o, vp, dv + j0 * vp, vp, true);
    tile_gemm_pairs(n, K, (nt + 1) / 2, dsh, N, 2, q, kp, dk + j0 * kp, kp, true);
    tile_gemm_pairs(K, lanes, (n + 1) / 2, (const uint16_t *)(void *)(w->k2 + j0 / 2 * kp), 2, 2 * kp, ds2, N, w->dqt + t0, N, true);
    return;
  }
#endif
  tile_gemm_asking(n, V, nt, st, N, 1, w->d_o + t0 * vp, vp, dv + j0 * vp, vp, TILE_ADD, &next[NEXT_Q]);
  tile_gemm_asking(n, K, nt, dst, N, 1, w->q + t0 * kp, kp, dk + j0 * kp, kp, TILE_ADD, &next[NEXT_DO]);
  tile_gemm_asking(K, lanes, n, k.f + j0 * k.stride, 1, k.stride, dst, N, w->dqt + t0, N, TILE_ADD, &next[NEXT_O]);
}

/* The block of queries (or their gradients, or outputs) that begins at t0 */
static tile_ahead queries_ahead(const mn_attn_args *p, const mn_attn_tensor *x, int64_t b, int64_t t0, int64_t h, int64_t width) {
  const int64_t size = p->bf16 ? 2 : 4;
  if (t0 >= p->T) return (tile_ahead){0};
  return (tile_ahead){attn_row(x, p->bf16, b, t0, h), x->t * size, width * size, p->T - t0 < QB ? p->T - t0 : QB};
}

/* All blocks of keys that a block of queries sees. */
static void key_blocks(const mn_attn_args *p, work *w, weighing how, int64_t b, int64_t h, int64_t t0, int64_t nq, float *dk, float *dv) {
  const bool pairs = attn_pairs(p);
  const int64_t N = tile_pad(nq), g = h / (p->H / p->G), K = p->K, V = p->V, kp = tile_pad(K), vp = tile_pad(V);
  const int64_t filled = mn_attn_filled(p, b), step = attn_key_step(p);
  const span all = attn_span(w->q_pos, 0, N);
  tile_ahead next[NEXTS] = {[NEXT_Q] = queries_ahead(p, &p->q, b, t0 + QB, h, K),
                            [NEXT_DO] = queries_ahead(p, &p->d_o, b, t0 + QB, h, V),
                            [NEXT_O] = queries_ahead(p, &p->o, b, t0 + QB, h, V)};
  for (int64_t j0 = 0; j0 < filled; j0 += step) {
    const int64_t n = filled - j0 < step ? filled - j0 : step;
    seen see = attn_block_seen(p, b, j0, n, all);
    if (see != SEEN_NONE && p->has_blocks) {
      const seen listed = attn_listed(p, w->listed, 0, N, j0, n);
      see = listed == SEEN_ALL ? see : listed;
    }
    if (see == SEEN_NONE) continue;
    float *kw = w->kw + j0 * kp, *vw = w->vw + j0 * vp;
    const bool wide = w->wide[j0 / step];
    rows k = wide ? (rows){kw, NULL, kp} : attn_rows(p, &p->k, pairs, b, j0, g, n, K, kw);
    rows v = wide ? (rows){vw, NULL, vp} : attn_rows(p, &p->v, pairs, b, j0, g, n, V, vw);
    w->wide[j0 / step] = p->bf16 && !pairs;
    if (attn_biased(p)) attn_added(p, b, h, t0, w->q_pos, nq, j0, n, w->bt, N, w->tmp);
#if TILE_PAIRS
    for (int64_t j = 0; pairs && j < n; j += 2)
      tile_pair_rows(w->k2 + j / 2 * kp, k.h + j * k.stride, j + 1 < n ? k.h + (j + 1) * k.stride : NULL, K);
#endif
    next[NEXT_K] = attn_ahead(p, &p->k, b, j0 + n, g, filled, K), next[NEXT_V] = attn_ahead(p, &p->v, b, j0 + n, g, filled, V);
    const int64_t width = see == SEEN_ALL ? N : PANEL;
    for (int64_t t = 0; t < nq; t += width) {
      int64_t first = 0, last = n;
      const int64_t end = t + width < nq ? t + width : nq;
      const span q = attn_span(w->q_pos, t, end);
      if (see == SEEN_SOME) attn_rows_seen(p, j0, n, q.lo, q.hi, &first, &last);
      if (p->has_blocks && first < last && attn_listed(p, w->listed, t, end, j0 + first, last - first) == SEEN_NONE) continue;
      if (first < last) panel(p, w, how, b, h, t0, j0, see, N, t, end, first, last, k, v, dk + j0 * kp, dv + j0 * vp, next);
    }
  }
}

/* One block of queries of one head: dq, and its share of dk, dv in sums. */
static void query_block(const mn_attn_args *p, work *w, int64_t b, int64_t h, int64_t t0, float *dk, float *dv) {
  const bool pairs = attn_pairs(p);
  const int64_t nq = p->T - t0 < QB ? p->T - t0 : QB, N = tile_pad(nq);
  const int64_t K = p->K, V = p->V, kp = tile_pad(K);
  attn_query_positions(p, b, t0, nq, w->q_pos, N);
  if (p->has_blocks) attn_take_lists(p, b, h, t0, nq, N, w->listed);
  attn_turned(p, &p->q, pairs, b, t0, h, nq, K, w->qt, N, w->tmp);
  attn_turned(p, &p->d_o, pairs, b, t0, h, nq, V, w->dot, N, w->tmp);
  straight(p, &p->q, pairs, b, t0, h, nq, K, w->q);
  straight(p, &p->d_o, pairs, b, t0, h, nq, V, w->d_o);
  for (int64_t t = 0; t < N; t++) {
    w->lse[t] = -HIDDEN, w->delta[t] = 0; /* weight 0: lanes of no query, and queries that see nothing */
    if (t >= nq) continue;
    const float lse = p->lse[b * p->lse_b + h * p->lse_h + t0 + t];
    if (lse == -INFINITY) continue;
    const void *o = attn_row(&p->o, p->bf16, b, t0 + t, h), *d_o = attn_row(&p->d_o, p->bf16, b, t0 + t, h);
    vf sum = vf_zero();
    int64_t v = 0;
    for (; v + MN_VL <= V; v += MN_VL)
      sum += p->bf16 ? vf_load_bf16((const uint16_t *)o + v) * vf_load_bf16((const uint16_t *)d_o + v)
                     : vf_load((const float *)o + v) * vf_load((const float *)d_o + v);
    float rest = 0;
    for (; v < V; v++) rest += tile_scalar_in(o, p->bf16, v) * tile_scalar_in(d_o, p->bf16, v);
    w->lse[t] = lse * LOG2E;
    w->delta[t] = vf_sum(sum) + rest - p->dlse[b * p->dlse_b + h * p->dlse_h + t0 + t];
  }
  memset(w->dqt, 0, (size_t)(K * N) * sizeof(float));
  if (!is_huge(w, N)) {
    key_blocks(p, w, BY_LSE, b, h, t0, nq, dk, dv);
  } else {
    for (int64_t t = 0; t < N; t++) w->top[t] = HIDDEN, w->rest[t] = 0;
    key_blocks(p, w, MEASURING, b, h, t0, nq, dk, dv);
    for (int64_t t = 0; t < N; t++) {
      const bool none = w->lse[t] == -HIDDEN;
      w->top[t] = none ? 0 : w->top[t], w->rest[t] = none ? -HIDDEN : log2f(w->rest[t]);
    }
    key_blocks(p, w, BY_TOP, b, h, t0, nq, dk, dv);
  }
  tile_transpose(w->tmp, kp, w->dqt, N, K, nq, 0);
  for (int64_t t = 0; t < nq; t++) tile_row_out((void *)(uintptr_t)attn_row(&p->dq, p->bf16, b, t0 + t, h), w->tmp + t * kp, p->bf16, K);
}

static void part(const mn_attn_args *p, int64_t b, int64_t g, int64_t which, int64_t parts, float *sums, void *scratch) {
  take s = {scratch, 0};
  work w;
  take_work(&w, &s, p);
  const int64_t r = p->H / p->G, blocks = (p->T + QB - 1) / QB, kp = tile_pad(p->K);
  memset(sums, 0, (size_t)sum_floats(p) * sizeof(float));
  memset(w.wide, 0, (size_t)(p->S / attn_key_step(p) + 1));
  for (int64_t i = 0; i < r * blocks; i++) /* strided: with a causal mask late blocks are longer */
    if ((p->whole_blocks ? i % blocks : i) % parts == which)
      query_block(p, &w, b, g * r + i / blocks, i % blocks * QB, sums, sums + p->S * kp);
}

static void finish(const mn_attn_args *p, int64_t b, int64_t g, int64_t parts, float *sums) {
  const int64_t kp = tile_pad(p->K), vp = tile_pad(p->V), n = sum_floats(p);
  for (int64_t i = 1; i < parts; i++)
    for (int64_t x = 0; x < n; x += MN_VL) vf_store(sums + x, vf_load(sums + x) + vf_load(sums + i * n + x));
  for (int64_t j = 0; j < p->S; j++) {
    tile_row_out((void *)(uintptr_t)attn_row(&p->dk, p->bf16, b, j, g), sums + j * kp, p->bf16, p->K);
    tile_row_out((void *)(uintptr_t)attn_row(&p->dv, p->bf16, b, j, g), sums + p->S * kp + j * vp, p->bf16, p->V);
  }
}

const mn_attention_grad_isa MN_ISA_NAME(mn_attention_grad) = {scratch_size, sum_floats, part, finish};
