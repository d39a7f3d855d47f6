/* recurrence_piece.h - the chunked linear recurrence (mn_linear_recurrence) as small matrix products: what forward and
 * backward share. One call does the whole sequence of one (batch, head): its state stays in the cache.
 *
 * The sequence is cut into pieces of at most PIECE tokens that never cross a chunk of the ANCHOR rule. Inside a piece,
 * with t = 1..n and W, S the state at its start,
 *
 *     W_t = A_t W + b_t S + sum_{m<=t} M[t,m]  k_m y_m^T        y_m = beta_m u_m
 *     S_t =         E_t S + sum_{m<=t} L[t,m]  k_m y_m^T
 *     L[t,m] = prod_{j=m+1..t} eta_j,  E_t = prod_{j<=t} eta_j,  A_t = prod_{j<=t} a_j
 *     M[t,m] = a_t M[t-1,m] + L[t,m],  b_t = a_t b_{t-1} + E_t       (no momentum: M[t,m] = prod_{j=m+1..t} a_j, b = 0)
 *
 * All coefficients are sums of products of factors in [0,1], made row by row: no division, no logarithm of zero, exact
 * for a_t = 0. Reads and written values are products with those triangles:
 *
 *     O = diag(A_r) Q W + diag(b_r) Q S + ((Q K^T) o M_r) Y          r_t = t (after) or t-1 (before)
 *     U = V                                                          VALUE
 *     U = F (V - K Anchor)                                           ANCHOR; F = diag(f), all 1 without grad_clamp
 *     U = V - diag(A) K W - diag(a b_-) K S - ((K K^T) o (a M_-)) Y  DELTA, solved from the top row down;
 *                                                                    plain: without the a, A_- for A */
#ifndef MN_CPU_RECURRENCE_PIECE_H
#define MN_CPU_RECURRENCE_PIECE_H

#include "backend/cpu/isa/recurrence.h"

#include <math.h>

#include "backend/cpu/isa/tile.h"
#include "graph/fused_recurrence.h"

enum { PIECE = 32 }; /* tokens; more only adds triangle work, fewer passes over the state less often */

/* The coefficients of one piece. */
typedef struct coefs {
  float *a, *eta, *beta; /* [n]                                                    */
  float *A, *b, *E;      /* [n+1], row 0 is the state at the start: 1, 0, 1        */
  float *M, *L;          /* [n+1, np], row 0 is zero; L only with momentum         */
} coefs;

typedef struct mat { /* rows of whole vectors */
  float *p;
  int64_t ld;
} mat;

typedef struct work {
  int64_t kp, vp, np; /* padded widths of K, V and the piece at hand */
  coefs c;
  mat q, k, o;        /* [n, K], [n, K], [n, V]: in place, or in the next two lines */
  float *qs, *ks;     /* [n, kp]                 */
  float *os, *u, *y;  /* [n, vp]                 */
  float *clamp;       /* [n], f: with grad_clamp */
  float *x;           /* [n, max(kp, vp)]        */
  float *kt;          /* [kp, np]                */
  float *g;           /* [n, np]                 */
  float *w, *s, *anc; /* [K, vp]                 */
} work;

TILE_FN int64_t longest(const mn_rec_args *p) {
  int64_t n = p->T < PIECE ? p->T : PIECE;
  if (p->write == MN_WRITE_ANCHOR && p->chunk < n) n = p->chunk;
  return n < 1 ? 1 : n;
}

TILE_FN void take_work(work *w, take *s, const mn_rec_args *p) {
  int64_t n = longest(p);
  w->kp = tile_pad(p->K);
  w->vp = tile_pad(p->V);
  w->np = tile_pad(n);
  int64_t wide = w->kp > w->vp ? w->kp : w->vp;
  w->c.a = take_floats(s, w->np);
  w->c.eta = take_floats(s, w->np);
  w->c.beta = take_floats(s, w->np);
  w->c.A = take_floats(s, w->np + TILE_PAD); /* whole vectors are read from element 1 on */
  w->c.b = take_floats(s, w->np + TILE_PAD);
  w->c.E = take_floats(s, n + 1);
  w->c.M = take_floats(s, (n + 1) * w->np);
  w->c.L = take_floats(s, (n + 1) * w->np);
  w->qs = take_floats(s, n * w->kp);
  w->ks = take_floats(s, n * w->kp);
  w->u = take_floats(s, n * w->vp);
  w->os = take_floats(s, n * w->vp);
  w->y = take_floats(s, n * w->vp);
  w->clamp = take_floats(s, p->grad_clamp > 0 ? w->np : 0);
  w->x = take_floats(s, n * wide);
  w->kt = take_floats(s, w->kp * w->np);
  w->g = take_floats(s, n * w->np);
  w->w = take_floats(s, p->K * w->vp);
  w->s = take_floats(s, p->momentum ? p->K * w->vp : 0);
  w->anc = take_floats(s, p->write == MN_WRITE_ANCHOR || p->plain ? p->K * w->vp : 0);
}

/* Backward needs the state before each piece, from the last to the first. Where all of them take at most SAVED bytes each is kept (1):
 * reading one back costs less than making it again. Else one in every so many, and the runs between, which stay in half of a
 * second-level cache, are made again. state: floats of one. */
enum { SAVED = 2 << 20, RUN = 512 << 10 };
TILE_FN int64_t saved_every(int64_t pieces, int64_t state) {
  const int64_t bytes = state * (int64_t)sizeof(float);
  if (pieces * bytes <= SAVED) return 1;
  const int64_t every = RUN / bytes < 4 ? 4 : RUN / bytes;
  return every < pieces ? every : pieces;
}

/* ---- tensors in and out ---- */
TILE_FN const void *at(const mn_rec_tensor *t, int64_t b, int64_t time, int64_t h) {
  int64_t i = b * t->b + time * t->t + h * t->h;
  return (const char *)t->data + i * (t->bf16 ? 2 : 4);
}
TILE_FN void rows_in(float *dst, int64_t ld, const mn_rec_tensor *t, int64_t b, int64_t t0, int64_t h, int64_t n, int64_t width) {
  for (int64_t i = 0; i < n; i++) tile_row_in(dst + i * ld, at(t, b, t0 + i, h), t->bf16, width);
}
TILE_FN void rows_out(const mn_rec_tensor *t, int64_t b, int64_t t0, int64_t h, const float *src, int64_t ld, int64_t n, int64_t width) {
  for (int64_t i = 0; i < n; i++) tile_row_out((void *)(uintptr_t)at(t, b, t0 + i, h), src + i * ld, t->bf16, width);
}
/* f32 rows of whole vectors are used where they lie; others are brought into `scratch`. */
TILE_FN bool in_place(const mn_rec_tensor *t, int64_t width) { return !t->bf16 && width % MN_VL == 0; }
TILE_FN mat rows_at(const mn_rec_tensor *t, int64_t b, int64_t t0, int64_t h, int64_t n, int64_t width, float *scratch) {
  if (in_place(t, width)) return (mat){(float *)(uintptr_t)at(t, b, t0, h), t->t};
  rows_in(scratch, tile_pad(width), t, b, t0, h, n, width);
  return (mat){scratch, tile_pad(width)};
}
/* Where rows of a result are made: their place, or scratch that rows_done then writes out. */
TILE_FN mat rows_to(const mn_rec_tensor *t, int64_t b, int64_t t0, int64_t h, int64_t width, float *scratch) {
  if (in_place(t, width)) return (mat){(float *)(uintptr_t)at(t, b, t0, h), t->t};
  return (mat){scratch, tile_pad(width)};
}
TILE_FN void rows_done(const mn_rec_tensor *t, int64_t b, int64_t t0, int64_t h, mat src, int64_t n, int64_t width) {
  if (!in_place(t, width)) rows_out(t, b, t0, h, src.p, src.ld, n, width);
}
TILE_FN void gates_in(float *dst, const mn_rec_tensor *t, int64_t b, int64_t t0, int64_t h, int64_t n) {
  for (int64_t i = 0; i < n; i++) dst[i] = tile_scalar_in(at(t, b, t0 + i, h), t->bf16, 0);
}
TILE_FN void gates_out(const mn_rec_tensor *t, int64_t b, int64_t t0, int64_t h, const float *src, int64_t n) {
  if (t->data)
    for (int64_t i = 0; i < n; i++) tile_scalar_out((void *)(uintptr_t)at(t, b, t0 + i, h), t->bf16, 0, src[i]);
}
TILE_FN void state_in(float *dst, int64_t ld, const mn_rec_tensor *t, int64_t b, int64_t h, int64_t K, int64_t V) {
  const float *src = (const float *)t->data + b * t->b + h * t->h;
  for (int64_t i = 0; i < K; i++) tile_row_in(dst + i * ld, src + i * t->r, 0, V);
}
TILE_FN void state_out(const mn_rec_tensor *t, int64_t b, int64_t h, const float *src, int64_t ld, int64_t K, int64_t V) {
  float *dst = (float *)t->data + b * t->b + h * t->h;
  for (int64_t i = 0; i < K; i++) tile_row_out(dst + i * t->r, src + i * ld, 0, V);
}
TILE_FN void copy(float *dst, const float *src, int64_t n) { memcpy(dst, src, (size_t)n * sizeof(float)); }
TILE_FN void zero(float *dst, int64_t n) { memset(dst, 0, (size_t)n * sizeof(float)); }

/* dst[i,:] = c[i] * src[i,:] */
TILE_FN void scale_rows(float *dst, int64_t ld, const float *src, int64_t lds, const float *c, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    vf s = vf_set1(c[i]);
    for (int64_t j = 0; j < ld; j += MN_VL) vf_store(dst + i * ld + j, s * vf_load(src + i * lds + j));
  }
}

/* ---- pieces ---- */
typedef struct piece {
  int64_t t0, n;
  bool opens; /* its first token opens a chunk: the anchor becomes the state before it */
} piece;

TILE_FN int64_t first_phase(const mn_rec_args *p, int64_t b) {
  if (p->write != MN_WRITE_ANCHOR || !p->phase) return 0;
  int64_t f = p->phase[b * p->phase_stride] % p->chunk;
  return f < 0 ? f + p->chunk : f;
}
/* The last token ends a chunk: the anchor handed on is the final state. */
TILE_FN bool ends_chunk(const mn_rec_args *p, int64_t phase) { return (phase + p->T) % p->chunk == 0; }
/* The piece that starts at token t0. */
TILE_FN piece piece_at(const mn_rec_args *p, int64_t phase, int64_t t0) {
  piece r = {t0, p->T - t0 < PIECE ? p->T - t0 : PIECE, false};
  if (p->write == MN_WRITE_ANCHOR) {
    int64_t in_chunk = (phase + t0) % p->chunk;
    r.opens = in_chunk == 0;
    if (r.n > p->chunk - in_chunk) r.n = p->chunk - in_chunk;
  }
  return r;
}

/* The coefficients of piece s; also sets w->np, the padded width of this piece. */
TILE_FN void make_coefs(const mn_rec_args *p, work *w, int64_t b, int64_t h, piece s) {
  coefs *c = &w->c;
  const int64_t n = s.n, np = w->np = tile_pad(n);
  gates_in(c->beta, &p->beta, b, s.t0, h, n);
  if (p->decay) gates_in(c->a, &p->log_a, b, s.t0, h, n);
  if (p->momentum) gates_in(c->eta, &p->log_eta, b, s.t0, h, n);
  for (int64_t t = 0; t < n; t++) {
    c->a[t] = p->decay ? expf(c->a[t]) : 1.0f;
    c->eta[t] = p->momentum ? expf(c->eta[t]) : 0.0f;
  }
  c->A[0] = 1, c->b[0] = 0, c->E[0] = p->momentum ? 1.0f : 0.0f;
  zero(c->M, np);
  if (p->momentum) zero(c->L, np);
  for (int64_t t = 1; t <= n; t++) {
    const float a = c->a[t - 1], e = c->eta[t - 1];
    const float *m0 = c->M + (t - 1) * np, *l0 = c->L + (t - 1) * np;
    float *m1 = c->M + t * np, *l1 = c->L + t * np;
    c->A[t] = a * c->A[t - 1];
    c->E[t] = e * c->E[t - 1];
    c->b[t] = a * c->b[t - 1] + c->E[t];
    vf va = vf_set1(a), ve = vf_set1(e);
    if (p->momentum) {
      for (int64_t m = 0; m < np; m += MN_VL) {
        vf l = ve * vf_load(l0 + m);
        vf_store(l1 + m, l);
        vf_store(m1 + m, va * vf_load(m0 + m) + l);
      }
      l1[t - 1] = 1;
    } else {
      for (int64_t m = 0; m < np; m += MN_VL) vf_store(m1 + m, va * vf_load(m0 + m));
    }
    m1[t - 1] = 1;
  }
}

/* ---- clamped writes ---- f(r) = tanh(r) / r, r = sqrt(|k|^2 |e|^2 + 1e-12) / m, of u = f e, e = v - Anchor^T k */
TILE_FN float row_dot(const float *x, const float *y, int64_t n) { /* n a multiple of the vector's length */
  vf s = {0};
  for (int64_t i = 0; i < n; i += MN_VL) s += vf_load(x + i) * vf_load(y + i);
  return vf_sum(s);
}
TILE_FN int64_t whole_vectors(int64_t width) { return (width + MN_VL - 1) / MN_VL * MN_VL; }

/* e in w->u becomes u, its factors go to w->clamp. */
TILE_FN void clamp_writes(const mn_rec_args *p, work *w, int64_t n) {
  for (int64_t t = 0; t < n; t++) {
    const float *k = w->k.p + t * w->k.ld;
    float *u = w->u + t * w->vp;
    const double n2 = (double)row_dot(k, k, whole_vectors(p->K)) * (double)row_dot(u, u, w->vp) + 1e-12;
    const double r = sqrt(n2) / (double)p->grad_clamp;
    w->clamp[t] = (float)(tanh(r) / r);
    const vf f = vf_set1(w->clamp[t]);
    for (int64_t j = 0; j < w->vp; j += MN_VL) vf_store(u + j, f * vf_load(u + j));
  }
}

/* What the DELTA rule predicts of v_t is c_t W_{t-1}^T k_t. */
TILE_FN float predicted(const mn_rec_args *p, const work *w, int64_t t) { return p->plain ? 1.0f : w->c.a[t]; }
/* c_t A_{t-1}, for all t */
TILE_FN const float *predicted_w(const mn_rec_args *p, const work *w) { return p->plain ? w->c.A : w->c.A + 1; }

/* g[t,m] = (K K^T)[t,m] c_t M[t-1,m]: what a row of the DELTA rule sees of the y before it (strictly lower). */
TILE_FN void delta_triangle(const mn_rec_args *p, work *w, int64_t n, float *g) {
  tile_gemm(n, n, p->K, w->k.p, w->k.ld, 1, w->kt, w->np, g, w->np, TILE_SET, TILE_FULL);
  for (int64_t t = 0; t < n; t++) {
    vf a = vf_set1(predicted(p, w, t));
    for (int64_t m = 0; m < w->np; m += MN_VL)
      vf_store(g + t * w->np + m, vf_load(g + t * w->np + m) * (a * vf_load(w->c.M + t * w->np + m)));
  }
}

enum { SOLVE = 8 }; /* rows of a diagonal block of the triangular solve */

/* U -= G Y from the top row down, G [n,np] strictly lower, Y = diag(beta) U. */
TILE_FN void solve_rows(const float *g, int64_t np, int64_t n, int64_t V, int64_t vp, const float *beta, float *us, float *y) {
  for (int64_t i = 0; i < n; i += SOLVE) {
    int64_t rows = n - i < SOLVE ? n - i : SOLVE;
    tile_gemm(rows, V, i, g + i * np, np, 1, y, vp, us + i * vp, vp, TILE_SUB, TILE_FULL);
    for (int64_t t = i; t < i + rows; t++) {
      vf b = vf_set1(beta[t]);
      for (int64_t j = 0; j < vp; j += MN_VL) {
        vf u = vf_load(us + t * vp + j);
        for (int64_t m = i; m < t; m++) u -= vf_set1(g[t * np + m]) * vf_load(y + m * vp + j);
        vf_store(us + t * vp + j, u);
        vf_store(y + t * vp + j, b * u);
      }
    }
  }
}
/* Backward through that: dY -= G^T dU from the last row up, dU = diag(beta) dY. */
TILE_FN void solve_rows_back(const float *g, int64_t np, int64_t n, int64_t V, int64_t vp, const float *beta, float *dy, float *du) {
  for (int64_t end = n; end > 0;) {
    int64_t i = (end - 1) / SOLVE * SOLVE, rows = end - i;
    tile_gemm(rows, V, n - end, g + end * np + i, 1, np, du + end * vp, vp, dy + i * vp, vp, TILE_SUB, TILE_FULL);
    for (int64_t m = end - 1; m >= i; m--) {
      vf b = vf_set1(beta[m]);
      for (int64_t j = 0; j < vp; j += MN_VL) {
        vf y = vf_load(dy + m * vp + j);
        for (int64_t t = m + 1; t < end; t++) y -= vf_set1(g[t * np + m]) * vf_load(du + t * vp + j);
        vf_store(dy + m * vp + j, y);
        vf_store(du + m * vp + j, b * y);
      }
    }
    end = i;
  }
}

/* U from V (already in w->u), the state and the anchor; then Y = diag(beta) U. Uses x; DELTA also kt and g. */
TILE_FN void written_values(const mn_rec_args *p, work *w, int64_t n, const float *W, const float *S, const float *anc) {
  coefs *c = &w->c;
  const int64_t kp = w->kp, vp = w->vp, np = w->np;
  if (p->write == MN_WRITE_ANCHOR) tile_gemm(n, p->V, p->K, w->k.p, w->k.ld, 1, anc, vp, w->u, vp, TILE_SUB, TILE_FULL);
  if (p->grad_clamp > 0) clamp_writes(p, w, n);
  if (p->write == MN_WRITE_DELTA) {
    scale_rows(w->x, kp, w->k.p, w->k.ld, predicted_w(p, w), n);
    tile_gemm(n, p->V, p->K, w->x, kp, 1, W, vp, w->u, vp, TILE_SUB, TILE_FULL);
    if (p->momentum) {
      for (int64_t t = 0; t < n; t++) {
        vf s = vf_set1(predicted(p, w, t) * c->b[t]);
        for (int64_t j = 0; j < kp; j += MN_VL) vf_store(w->x + t * kp + j, s * vf_load(w->k.p + t * w->k.ld + j));
      }
      tile_gemm(n, p->V, p->K, w->x, kp, 1, S, vp, w->u, vp, TILE_SUB, TILE_FULL);
    }
    tile_transpose(w->kt, np, w->k.p, w->k.ld, n, p->K, 0);
    delta_triangle(p, w, n, w->g);
    solve_rows(w->g, np, n, p->V, vp, c->beta, w->u, w->y);
    return;
  }
  scale_rows(w->y, vp, w->u, vp, c->beta, n);
}

/* W1, S1 = the state at the piece's end from that at its start, W, S; may be in place. Uses x. */
TILE_FN void advance(const mn_rec_args *p, work *w, int64_t n, const float *W, const float *S, float *W1, float *S1) {
  coefs *c = &w->c;
  scale_rows(w->x, w->vp, w->y, w->vp, c->M + n * w->np, n);
  tile_gemm_linear(p->K, p->V, n, w->k.p, 1, w->k.ld, w->x, w->vp, W1, w->vp, c->A[n], W, c->b[n], p->momentum ? S : NULL);
  if (p->momentum) {
    scale_rows(w->x, w->vp, w->y, w->vp, c->L + n * w->np, n);
    tile_gemm_linear(p->K, p->V, n, w->k.p, 1, w->k.ld, w->x, w->vp, S1, w->vp, c->E[n], S, 0, NULL);
  }
}

#endif
