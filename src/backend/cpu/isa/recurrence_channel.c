/* recurrence_channel.c - the linear recurrence with decays by key channel and with erase vectors, forward: whole sequences
 * piece by piece, and single tokens. */
#include "backend/cpu/isa/recurrence_channel.h"
#include "graph/fused_recurrence.h"

/* The state before token t0, for backward if it asks for it */
static void keep_state(const mn_rec_args *p, const channel_work *w, int64_t b, int64_t t0, int64_t h) {
  if (!is_kept(p, t0)) return;
  const mn_rec_tensor to = kept_at(p, t0);
  state_out(&to, b, h, w->w, w->vp, p->K, p->V);
}

/* ---- one token: a pass over the state ---- */
static void step(const mn_rec_args *p, channel_work *w, int64_t b, int64_t h) {
  const int64_t K = p->K, V = p->V, vp = w->vp;
  float beta;
  gates_in(&beta, &p->beta, b, 0, h, 1);
  decay_in(p, w->a, w->kp, b, 0, h);
  float *q = w->reader[0].x, *k = w->writer[0].x, *f = w->reader[1].x, *e = w->writer[1].x;
  rows_in(q, w->kp, &p->q, b, 0, h, 1, K);
  rows_in(k, w->kp, &p->k, b, 0, h, 1, K);
  rows_in(w->u, vp, &p->v, b, 0, h, 1, V);
  state_in(w->w, vp, &p->w0, b, h, K, V);
  keep_state(p, w, b, 0, h);
  mat o = rows_to(&p->o, b, 0, h, V, w->os);
  if (p->write == MN_WRITE_DELTA) {
    for (int64_t i = 0; i < K; i++) f[i] = w->a[i] * k[i];
    tile_gemm(1, V, K, f, w->kp, 1, w->w, vp, w->u, vp, TILE_SUB, TILE_FULL);
  }
  if (p->write == MN_WRITE_ERASE) {
    rows_in(f, w->kp, &p->probe, b, 0, h, 1, K);
    rows_in(e, w->kp, &p->erase, b, 0, h, 1, K);
    tile_gemm(1, V, K, f, w->kp, 1, w->w, vp, w->z, vp, TILE_SET, TILE_FULL);
  }
  if (p->read_before) tile_gemm(1, V, K, q, w->kp, 1, w->w, vp, o.p, o.ld, TILE_SET, TILE_FULL);
  for (int64_t i = 0; i < K; i++) {
    const vf ki = vf_set1(beta * k[i]), ai = vf_set1(w->a[i]);
    float *W = w->w + i * vp;
    if (p->write == MN_WRITE_ERASE) {
      const vf ei = vf_set1(e[i]);
      for (int64_t j = 0; j < vp; j += MN_VL) vf_store(W + j, ai * vf_load(W + j) + ki * vf_load(w->u + j) - ei * vf_load(w->z + j));
    } else {
      for (int64_t j = 0; j < vp; j += MN_VL) vf_store(W + j, ai * vf_load(W + j) + ki * vf_load(w->u + j));
    }
  }
  if (!p->read_before) tile_gemm(1, V, K, q, w->kp, 1, w->w, vp, o.p, o.ld, TILE_SET, TILE_FULL);
  rows_done(&p->o, b, 0, h, o, 1, V);
  state_out(&p->w, b, h, w->w, vp, K, V);
}

static bool forward(const mn_rec_args *p, int64_t b, int64_t h, int64_t turn, void *kept, void *scratch) {
  take s = {scratch, 0}, k = {kept, 0};
  channel_work w;
  take_channel(&w, &s, &k, p, false);
  if (p->T == 1) {
    step(p, &w, b, h);
    return false;
  }
  const int64_t K = p->K, V = p->V, kp = w.kp, vp = w.vp, pieces = (p->T + PIECE - 1) / PIECE;
  const int64_t first = mn_turn_begin(pieces, TURN, turn) * PIECE, end = mn_turn_begin(pieces, TURN, turn + 1) * PIECE;
  if (turn == 0) state_in(w.w, vp, &p->w0, b, h, K, V);
  for (int64_t t0 = first; t0 < p->T && t0 < end; t0 += PIECE) {
    const int64_t n = p->T - t0 < PIECE ? p->T - t0 : PIECE;
    load_piece(p, &w, b, t0, h, n);
    ahead_begin(&w.ahead);
    note_rows(p, &w, &p->o, b, t0, h, V, true);
    note_kept(p, &w, b, t0, h, true);
    note_piece(p, &w, b, t0 + n, h);
    const float *total = make_triangles(p, &w);
    write_piece(p, &w, w.w, w.z);

    /* O = Q' W + G_qk Y + G_qe Z */
    mat o = rows_to(&p->o, b, t0, h, V, w.os);
    product(&w, n, V, K, w.reader[0].scaled, kp, 1, w.w, vp, o.p, o.ld, TILE_SET);
    tile_gemm(n, V, n, w.g[0][0], w.np, 1, w.y, vp, o.p, o.ld, TILE_ADD, TILE_A_LOWER);
    if (p->write == MN_WRITE_ERASE) tile_gemm(n, V, n, w.g[0][1], w.np, 1, w.z, vp, o.p, o.ld, TILE_ADD, TILE_A_LOWER);
    rows_done(&p->o, b, t0, h, o, n, V);
    keep_state(p, &w, b, t0, h);
    advance_channels(p, &w, total, w.w, w.w, w.z);
  }
  if (end < p->T) return true;
  state_out(&p->w, b, h, w.w, vp, K, V);
  return false;
}

static void sizes(const mn_rec_args *p, size_t *kept, size_t *scratch) {
  take s = {NULL, 0}, k = {NULL, 0};
  channel_work w;
  take_channel(&w, &s, &k, p, false);
  *kept = k.used;
  *scratch = s.used;
}
const mn_recurrence_isa MN_ISA_NAME(mn_recurrence_channel) = {sizes, forward};
