/* recurrence.c - the chunked linear recurrence forward: whole sequences piece by piece, and single tokens. */
#include "backend/cpu/isa/recurrence_piece.h"
#include "graph/fused_recurrence.h"

/* ---- one token: a pass over the state, nothing else ---- */
static void step(const mn_rec_args *p, work *w, int64_t b, int64_t h) {
  const int64_t K = p->K, V = p->V, vp = w->vp;
  float beta, a = 0, eta = 0;
  gates_in(&beta, &p->beta, b, 0, h, 1);
  if (p->decay) gates_in(&a, &p->log_a, b, 0, h, 1);
  if (p->momentum) gates_in(&eta, &p->log_eta, b, 0, h, 1);
  a = p->decay ? expf(a) : 1.0f;
  eta = p->momentum ? expf(eta) : 0.0f;
  w->q = rows_at(&p->q, b, 0, h, 1, K, w->qs);
  w->k = rows_at(&p->k, b, 0, h, 1, K, w->ks);
  w->o = rows_to(&p->o, b, 0, h, V, w->os);
  rows_in(w->u, vp, &p->v, b, 0, h, 1, V);
  state_in(w->w, vp, &p->w0, b, h, K, V);
  if (p->momentum) state_in(w->s, vp, &p->s0, b, h, K, V);
  if (p->write == MN_WRITE_ANCHOR) {
    bool opens = first_phase(p, b) == 0;
    if (!opens) state_in(w->anc, vp, &p->a0, b, h, K, V);
    const float *anc = opens ? w->w : w->anc;
    if (!ends_chunk(p, first_phase(p, b))) state_out(&p->a, b, h, anc, vp, K, V);
    tile_gemm(1, V, K, w->k.p, w->k.ld, 1, anc, vp, w->u, vp, TILE_SUB, TILE_FULL);
    if (p->grad_clamp > 0) clamp_writes(p, w, 1);
  }
  if (p->write == MN_WRITE_DELTA) {
    for (int64_t i = 0; i < K; i++) w->x[i] = (p->plain ? 1 : a) * w->k.p[i];
    tile_gemm(1, V, K, w->x, w->kp, 1, w->w, vp, w->u, vp, TILE_SUB, TILE_FULL);
  }
  if (p->read_before) tile_gemm(1, V, K, w->q.p, w->q.ld, 1, w->w, vp, w->o.p, w->o.ld, TILE_SET, TILE_FULL);
  for (int64_t i = 0; i < K; i++) {
    vf ki = vf_set1(beta * w->k.p[i]), va = vf_set1(a), ve = vf_set1(eta);
    float *W = w->w + i * vp, *S = w->s + i * vp;
    for (int64_t j = 0; j < vp; j += MN_VL) {
      vf s = ki * vf_load(w->u + j);
      if (p->momentum) {
        s += ve * vf_load(S + j);
        vf_store(S + j, s);
      }
      vf_store(W + j, va * vf_load(W + j) + s);
    }
  }
  if (!p->read_before) tile_gemm(1, V, K, w->q.p, w->q.ld, 1, w->w, vp, w->o.p, w->o.ld, TILE_SET, TILE_FULL);
  rows_done(&p->o, b, 0, h, w->o, 1, V);
  state_out(&p->w, b, h, w->w, vp, K, V);
  if (p->momentum) state_out(&p->s, b, h, w->s, vp, K, V);
  if (p->write == MN_WRITE_ANCHOR && ends_chunk(p, first_phase(p, b))) state_out(&p->a, b, h, w->w, vp, K, V);
  if (p->plain) state_out(&p->a, b, h, w->w, vp, K, V);
}

/* ---- forward ---- */
static bool forward(const mn_rec_args *p, int64_t b, int64_t h, int64_t turn, void *kept, void *scratch) {
  (void)turn, (void)kept;
  take s = {scratch, 0};
  work w;
  take_work(&w, &s, p);
  if (p->T == 1) {
    step(p, &w, b, h);
    return false;
  }
  const int64_t K = p->K, V = p->V, kp = w.kp, vp = w.vp;
  const int64_t phase = first_phase(p, b);
  const bool anchor = p->write == MN_WRITE_ANCHOR;
  state_in(w.w, vp, &p->w0, b, h, K, V);
  if (p->momentum) state_in(w.s, vp, &p->s0, b, h, K, V);
  if (anchor && phase) state_in(w.anc, vp, &p->a0, b, h, K, V);
  for (int64_t t0 = 0; t0 < p->T;) {
    piece s1 = piece_at(p, phase, t0);
    const int64_t n = s1.n;
    coefs *c = &w.c;
    make_coefs(p, &w, b, h, s1);
    const int64_t np = w.np;
    w.q = rows_at(&p->q, b, t0, h, n, K, w.qs);
    w.k = rows_at(&p->k, b, t0, h, n, K, w.ks);
    w.o = rows_to(&p->o, b, t0, h, V, w.os);
    rows_in(w.u, vp, &p->v, b, t0, h, n, V);
    if (anchor && s1.opens) copy(w.anc, w.w, K * vp);
    written_values(p, &w, n, w.w, w.s, w.anc);
    if (p->write != MN_WRITE_DELTA) tile_transpose(w.kt, np, w.k.p, w.k.ld, n, K, 0);

    /* O = diag(A_r) Q W + diag(b_r) Q S + ((Q K^T) o M_r) Y */
    const int64_t r = p->read_before ? 0 : 1;
    scale_rows(w.x, kp, w.q.p, w.q.ld, c->A + r, n);
    tile_gemm(n, V, K, w.x, kp, 1, w.w, vp, w.o.p, w.o.ld, TILE_SET, TILE_FULL);
    if (p->momentum) {
      scale_rows(w.x, kp, w.q.p, w.q.ld, c->b + r, n);
      tile_gemm(n, V, K, w.x, kp, 1, w.s, vp, w.o.p, w.o.ld, TILE_ADD, TILE_FULL);
    }
    tile_gemm(n, n, K, w.q.p, w.q.ld, 1, w.kt, np, w.g, np, TILE_SET, TILE_OUT_LOWER);
    for (int64_t t = 0; t < n; t++)
      for (int64_t m = 0; m < np && m < tile_lower(t); m += MN_VL)
        vf_store(w.g + t * np + m, vf_load(w.g + t * np + m) * vf_load(c->M + (t + r) * np + m));
    tile_gemm(n, V, n, w.g, np, 1, w.y, vp, w.o.p, w.o.ld, TILE_ADD, TILE_A_LOWER);
    rows_done(&p->o, b, t0, h, w.o, n, V);
    advance(p, &w, n, w.w, w.s, w.w, w.s);
    t0 += n;
  }
  state_out(&p->w, b, h, w.w, vp, K, V);
  if (p->momentum) state_out(&p->s, b, h, w.s, vp, K, V);
  if (anchor) state_out(&p->a, b, h, ends_chunk(p, phase) ? w.w : w.anc, vp, K, V);
  if (p->plain) state_out(&p->a, b, h, w.w, vp, K, V); /* each token ends its chunk */
  return false;
}

static void sizes(const mn_rec_args *p, size_t *kept, size_t *scratch) {
  take s = {NULL, 0};
  work w;
  take_work(&w, &s, p);
  *kept = 0;
  *scratch = s.used;
}
const mn_recurrence_isa MN_ISA_NAME(mn_recurrence) = {sizes, forward};
