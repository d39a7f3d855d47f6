/* recurrence.c - the chunked linear recurrence (mn_linear_recurrence) as small matrix products. One call does the whole
 * sequence of one (batch, head): its state stays in the cache.
 *
 * The sequence is cut into pieces of at most PIECE tokens that never cross a chunk of the ANCHOR rule. Inside a piece,
 * with t = 1..n and W, S the state at its start,
 *
 *     W_t = A_t W + b_t S + sum_{m<=t} M[t,m]  k_m y_m^T        y_m = theta_m u_m
 *     S_t =         E_t S + sum_{m<=t} L[t,m]  k_m y_m^T
 *     L[t,m] = prod_{j=m+1..t} eta_j,  E_t = prod_{j<=t} eta_j,  A_t = prod_{j<=t} a_j
 *     M[t,m] = a_t M[t-1,m] + L[t,m],  b_t = a_t b_{t-1} + E_t       (no momentum: M[t,m] = prod_{j=m+1..t} a_j, b = 0)
 *
 * All coefficients are sums of products of factors in [0,1], made row by row: no division, no logarithm of zero, exact for
 * a_t = 0. Reads and written values are products with those triangles:
 *
 *     O = diag(A_r) Q W + diag(b_r) Q S + ((Q K^T) o M_r) Y          r_t = t (after) or t-1 (before)
 *     U = V                                                          VALUE
 *     U = V - K Anchor                                               ANCHOR
 *     U = V - diag(A) K W - diag(a b_-) K S - ((K K^T) o (a M_-)) Y  DELTA, solved from the top row down
 *
 * Backward runs the states forward once (saving one in every `every` pieces and all u), then goes back over the pieces.
 * Products with W^T are made transposed, with tokens along the vector, so that only chunk-sized operands are ever
 * transposed, never a state. */
#include "backend/cpu/isa/recurrence.h"

#include <math.h>

#include "backend/cpu/isa/tile.h"

enum { PIECE = 32 }; /* tokens; more only adds triangle work, fewer passes over the state less often */

/* ---- scratch ---- */
typedef struct take { /* hands out pieces of the scratch; with base NULL it only counts */
  char *base;
  size_t used;
} take;
static float *take_floats(take *s, int64_t n) {
  float *p = s->base ? (float *)(void *)(s->base + s->used) : NULL;
  s->used += ((size_t)n * sizeof(float) + 63) / 64 * 64;
  return p;
}

/* The coefficients of one piece. */
typedef struct coefs {
  float *a, *eta, *theta;  /* [n]                                                    */
  float *A, *b, *E;        /* [n+1], row 0 is the state at the start: 1, 0, 1        */
  float *M, *L;            /* [n+1, np], row 0 is zero; L only with momentum         */
} coefs;

typedef struct work {
  int64_t kp, vp, np; /* padded widths of K, V and the piece at hand */
  coefs c;
  float *q, *k;       /* [n, kp]                 */
  float *u, *o, *y;   /* [n, vp]                 */
  float *x;           /* [n, max(kp, vp)]        */
  float *kt;          /* [kp, np]                */
  float *g;           /* [n, np]                 */
  float *w, *s, *anc; /* [K, vp]                 */
} work;

static int64_t longest(const mn_rec_args *p) {
  int64_t n = p->T < PIECE ? p->T : PIECE;
  if (p->write == MN_WRITE_ANCHOR && p->chunk < n) n = p->chunk;
  return n < 1 ? 1 : n;
}

static void take_work(work *w, take *s, const mn_rec_args *p) {
  int64_t n = longest(p);
  w->kp = tile_pad(p->K);
  w->vp = tile_pad(p->V);
  w->np = tile_pad(n);
  int64_t wide = w->kp > w->vp ? w->kp : w->vp;
  w->c.a = take_floats(s, w->np);
  w->c.eta = take_floats(s, w->np);
  w->c.theta = take_floats(s, w->np);
  w->c.A = take_floats(s, w->np + TILE_PAD); /* whole vectors are read from element 1 on */
  w->c.b = take_floats(s, w->np + TILE_PAD);
  w->c.E = take_floats(s, n + 1);
  w->c.M = take_floats(s, (n + 1) * w->np);
  w->c.L = take_floats(s, (n + 1) * w->np);
  w->q = take_floats(s, n * w->kp);
  w->k = take_floats(s, n * w->kp);
  w->u = take_floats(s, n * w->vp);
  w->o = take_floats(s, n * w->vp);
  w->y = take_floats(s, n * w->vp);
  w->x = take_floats(s, n * wide);
  w->kt = take_floats(s, w->kp * w->np);
  w->g = take_floats(s, n * w->np);
  w->w = take_floats(s, p->K * w->vp);
  w->s = take_floats(s, p->momentum ? p->K * w->vp : 0);
  w->anc = take_floats(s, p->write == MN_WRITE_ANCHOR ? p->K * w->vp : 0);
}

/* ---- tensors in and out ---- */
static const void *at(const mn_rec_tensor *t, int64_t b, int64_t time, int64_t h) {
  int64_t i = b * t->b + time * t->t + h * t->h;
  return (const char *)t->data + i * (t->bf16 ? 2 : 4);
}
static void rows_in(float *dst, int64_t ld, const mn_rec_tensor *t, int64_t b, int64_t t0, int64_t h, int64_t n,
                    int64_t width) {
  for (int64_t i = 0; i < n; i++) tile_row_in(dst + i * ld, at(t, b, t0 + i, h), t->bf16, width);
}
static void rows_out(const mn_rec_tensor *t, int64_t b, int64_t t0, int64_t h, const float *src, int64_t ld, int64_t n,
                     int64_t width) {
  for (int64_t i = 0; i < n; i++) tile_row_out((void *)(uintptr_t)at(t, b, t0 + i, h), src + i * ld, t->bf16, width);
}
static void gates_in(float *dst, const mn_rec_tensor *t, int64_t b, int64_t t0, int64_t h, int64_t n) {
  for (int64_t i = 0; i < n; i++) dst[i] = tile_scalar_in(at(t, b, t0 + i, h), t->bf16, 0);
}
static void gates_out(const mn_rec_tensor *t, int64_t b, int64_t t0, int64_t h, const float *src, int64_t n) {
  if (t->data)
    for (int64_t i = 0; i < n; i++) tile_scalar_out((void *)(uintptr_t)at(t, b, t0 + i, h), t->bf16, 0, src[i]);
}
static void state_in(float *dst, int64_t ld, const mn_rec_tensor *t, int64_t b, int64_t h, int64_t K, int64_t V) {
  const float *src = (const float *)t->data + b * t->b + h * t->h;
  for (int64_t i = 0; i < K; i++) tile_row_in(dst + i * ld, src + i * t->r, 0, V);
}
static void state_out(const mn_rec_tensor *t, int64_t b, int64_t h, const float *src, int64_t ld, int64_t K, int64_t V) {
  float *dst = (float *)t->data + b * t->b + h * t->h;
  for (int64_t i = 0; i < K; i++) tile_row_out(dst + i * t->r, src + i * ld, 0, V);
}
static void copy(float *dst, const float *src, int64_t n) { memcpy(dst, src, (size_t)n * sizeof(float)); }
static void zero(float *dst, int64_t n) { memset(dst, 0, (size_t)n * sizeof(float)); }

/* dst[i,:] = c[i] * src[i,:] */
static void scale_rows(float *dst, const float *src, const float *c, int64_t n, int64_t ld) {
  for (int64_t i = 0; i < n; i++) {
    vf s = vf_set1(c[i]);
    for (int64_t j = 0; j < ld; j += MN_VL) vf_store(dst + i * ld + j, s * vf_load(src + i * ld + j));
  }
}

/* ---- pieces ---- */
typedef struct piece {
  int64_t t0, n;
  bool opens; /* its first token opens a chunk: the anchor becomes the state before it */
} piece;

static int64_t first_phase(const mn_rec_args *p, int64_t b) {
  if (p->write != MN_WRITE_ANCHOR || !p->phase) return 0;
  int64_t f = p->phase[b * p->phase_stride] % p->chunk;
  return f < 0 ? f + p->chunk : f;
}
/* The last token ends a chunk: the anchor handed on is the final state. */
static bool ends_chunk(const mn_rec_args *p, int64_t phase) { return (phase + p->T) % p->chunk == 0; }
/* The piece that starts at token t0. */
static piece piece_at(const mn_rec_args *p, int64_t phase, int64_t t0) {
  piece r = {t0, p->T - t0 < PIECE ? p->T - t0 : PIECE, false};
  if (p->write == MN_WRITE_ANCHOR) {
    int64_t in_chunk = (phase + t0) % p->chunk;
    r.opens = in_chunk == 0;
    if (r.n > p->chunk - in_chunk) r.n = p->chunk - in_chunk;
  }
  return r;
}

/* The coefficients of piece s; also sets w->np, the padded width of this piece. */
static void make_coefs(const mn_rec_args *p, work *w, int64_t b, int64_t h, piece s) {
  coefs *c = &w->c;
  const int64_t n = s.n, np = w->np = tile_pad(n);
  gates_in(c->theta, &p->theta, b, s.t0, h, n);
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

/* g[t,m] = (K K^T)[t,m] a_t M[t-1,m]: what a row of the DELTA rule sees of the y before it (strictly lower). */
static void delta_triangle(work *w, int64_t n, int64_t K, float *g) {
  tile_gemm(n, n, K, w->k, w->kp, 1, w->kt, w->np, g, w->np, TILE_SET, TILE_FULL);
  for (int64_t t = 0; t < n; t++) {
    vf a = vf_set1(w->c.a[t]);
    for (int64_t m = 0; m < w->np; m += MN_VL)
      vf_store(g + t * w->np + m, vf_load(g + t * w->np + m) * (a * vf_load(w->c.M + t * w->np + m)));
  }
}

enum { SOLVE = 8 }; /* rows of a diagonal block of the triangular solve */

/* U from V (already in w->u), the state and the anchor; then Y = diag(theta) U. Uses x; DELTA also kt and g. */
static void written_values(const mn_rec_args *p, work *w, int64_t n, const float *W, const float *S, const float *anc) {
  coefs *c = &w->c;
  const int64_t kp = w->kp, vp = w->vp, np = w->np;
  if (p->write == MN_WRITE_ANCHOR)
    tile_gemm(n, p->V, p->K, w->k, kp, 1, anc, vp, w->u, vp, TILE_SUB, TILE_FULL);
  if (p->write == MN_WRITE_DELTA) {
    scale_rows(w->x, w->k, c->A + 1, n, kp);
    tile_gemm(n, p->V, p->K, w->x, kp, 1, W, vp, w->u, vp, TILE_SUB, TILE_FULL);
    if (p->momentum) {
      for (int64_t t = 0; t < n; t++) {
        vf s = vf_set1(c->a[t] * c->b[t]);
        for (int64_t j = 0; j < kp; j += MN_VL) vf_store(w->x + t * kp + j, s * vf_load(w->k + t * kp + j));
      }
      tile_gemm(n, p->V, p->K, w->x, kp, 1, S, vp, w->u, vp, TILE_SUB, TILE_FULL);
    }
    tile_transpose(w->kt, np, w->k, kp, n, p->K, 0);
    delta_triangle(w, n, p->K, w->g);
    for (int64_t i = 0; i < n; i += SOLVE) {
      int64_t rows = n - i < SOLVE ? n - i : SOLVE;
      tile_gemm(rows, p->V, i, w->g + i * np, np, 1, w->y, vp, w->u + i * vp, vp, TILE_SUB, TILE_FULL);
      for (int64_t t = i; t < i + rows; t++) {
        vf theta = vf_set1(c->theta[t]);
        for (int64_t j = 0; j < vp; j += MN_VL) {
          vf u = vf_load(w->u + t * vp + j);
          for (int64_t m = i; m < t; m++) u -= vf_set1(w->g[t * np + m]) * vf_load(w->y + m * vp + j);
          vf_store(w->u + t * vp + j, u);
          vf_store(w->y + t * vp + j, theta * u);
        }
      }
    }
    return;
  }
  scale_rows(w->y, w->u, c->theta, n, vp);
}

/* W, S at the piece's end, in place. Uses x. */
static void advance(const mn_rec_args *p, work *w, int64_t n, float *W, float *S) {
  coefs *c = &w->c;
  scale_rows(w->x, w->y, c->M + n * w->np, n, w->vp);
  tile_gemm_linear(p->K, p->V, n, w->k, 1, w->kp, w->x, w->vp, W, w->vp, c->A[n], c->b[n], p->momentum ? S : NULL);
  if (p->momentum) {
    scale_rows(w->x, w->y, c->L + n * w->np, n, w->vp);
    tile_gemm_linear(p->K, p->V, n, w->k, 1, w->kp, w->x, w->vp, S, w->vp, c->E[n], 0, NULL);
  }
}

/* ---- one token: a pass over the state, nothing else ---- */
static void step(const mn_rec_args *p, work *w, int64_t b, int64_t h) {
  const int64_t K = p->K, V = p->V, vp = w->vp;
  float theta, a = 0, eta = 0;
  gates_in(&theta, &p->theta, b, 0, h, 1);
  if (p->decay) gates_in(&a, &p->log_a, b, 0, h, 1);
  if (p->momentum) gates_in(&eta, &p->log_eta, b, 0, h, 1);
  a = p->decay ? expf(a) : 1.0f;
  eta = p->momentum ? expf(eta) : 0.0f;
  rows_in(w->q, w->kp, &p->q, b, 0, h, 1, K);
  rows_in(w->k, w->kp, &p->k, b, 0, h, 1, K);
  rows_in(w->u, vp, &p->v, b, 0, h, 1, V);
  state_in(w->w, vp, &p->w0, b, h, K, V);
  if (p->momentum) state_in(w->s, vp, &p->s0, b, h, K, V);
  if (p->write == MN_WRITE_ANCHOR) {
    bool opens = first_phase(p, b) == 0;
    if (!opens) state_in(w->anc, vp, &p->a0, b, h, K, V);
    const float *anc = opens ? w->w : w->anc;
    if (!ends_chunk(p, first_phase(p, b))) state_out(&p->a, b, h, anc, vp, K, V);
    tile_gemm(1, V, K, w->k, w->kp, 1, anc, vp, w->u, vp, TILE_SUB, TILE_FULL);
  }
  if (p->write == MN_WRITE_DELTA) {
    for (int64_t i = 0; i < K; i++) w->x[i] = a * w->k[i];
    tile_gemm(1, V, K, w->x, w->kp, 1, w->w, vp, w->u, vp, TILE_SUB, TILE_FULL);
  }
  if (p->read_before) tile_gemm(1, V, K, w->q, w->kp, 1, w->w, vp, w->o, vp, TILE_SET, TILE_FULL);
  for (int64_t i = 0; i < K; i++) {
    vf ki = vf_set1(theta * w->k[i]), va = vf_set1(a), ve = vf_set1(eta);
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
  if (!p->read_before) tile_gemm(1, V, K, w->q, w->kp, 1, w->w, vp, w->o, vp, TILE_SET, TILE_FULL);
  rows_out(&p->o, b, 0, h, w->o, vp, 1, V);
  state_out(&p->w, b, h, w->w, vp, K, V);
  if (p->momentum) state_out(&p->s, b, h, w->s, vp, K, V);
  if (p->write == MN_WRITE_ANCHOR && ends_chunk(p, first_phase(p, b))) state_out(&p->a, b, h, w->w, vp, K, V);
}

/* ---- forward ---- */
static void forward(const mn_rec_args *p, int64_t b, int64_t h, void *scratch) {
  take s = {scratch, 0};
  work w;
  take_work(&w, &s, p);
  if (p->T == 1) {
    step(p, &w, b, h);
    return;
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
    rows_in(w.q, kp, &p->q, b, t0, h, n, K);
    rows_in(w.k, kp, &p->k, b, t0, h, n, K);
    rows_in(w.u, vp, &p->v, b, t0, h, n, V);
    if (anchor && s1.opens) copy(w.anc, w.w, K * vp);
    written_values(p, &w, n, w.w, w.s, w.anc);
    if (p->write != MN_WRITE_DELTA) tile_transpose(w.kt, np, w.k, kp, n, K, 0);

    /* O = diag(A_r) Q W + diag(b_r) Q S + ((Q K^T) o M_r) Y */
    const int64_t r = p->read_before ? 0 : 1;
    scale_rows(w.x, w.q, c->A + r, n, kp);
    tile_gemm(n, V, K, w.x, kp, 1, w.w, vp, w.o, vp, TILE_SET, TILE_FULL);
    if (p->momentum) {
      scale_rows(w.x, w.q, c->b + r, n, kp);
      tile_gemm(n, V, K, w.x, kp, 1, w.s, vp, w.o, vp, TILE_ADD, TILE_FULL);
    }
    tile_gemm(n, n, K, w.q, kp, 1, w.kt, np, w.g, np, TILE_SET, TILE_FULL);
    for (int64_t i = 0; i < n * np; i += MN_VL)
      vf_store(w.g + i, vf_load(w.g + i) * vf_load(c->M + r * np + i));
    tile_gemm(n, V, n, w.g, np, 1, w.y, vp, w.o, vp, TILE_ADD, TILE_A_LOWER);
    rows_out(&p->o, b, t0, h, w.o, vp, n, V);
    advance(p, &w, n, w.w, w.s);
    t0 += n;
  }
  state_out(&p->w, b, h, w.w, vp, K, V);
  if (p->momentum) state_out(&p->s, b, h, w.s, vp, K, V);
  if (anchor) state_out(&p->a, b, h, ends_chunk(p, phase) ? w.w : w.anc, vp, K, V);
}

/* ---- backward ---- */
typedef struct back {
  work f;
  int64_t pieces, every; /* at most; a saved state every `every` pieces */
  int64_t state;         /* floats of one saved state: W, S and the anchor, as many as there are */
  float *saved;          /* [ceil(pieces / every), state] */
  float *run;            /* [every, state]: the states at the starts of the pieces of one run */
  float *u_all;          /* [T, vp] */
  int64_t *start;        /* [pieces + 1]: first token of each piece */
  float *dw, *ds, *danc; /* [K, vp] */
  float *d_o, *dy, *du;  /* [n, vp] */
  float *dq, *dk, *xk;   /* [n, kp] */
  float *qt;             /* [kp, np] */
  float *dot, *yt, *dut; /* [vp, np] */
  float *r1, *r2, *xt;   /* [kp, np] */
  float *dg, *h;         /* [n, np] */
  float *dM;             /* [n+1, np] */
  float *dL;             /* [np] */
  float *dA, *db;        /* [n+1] */
  float *da, *deta, *dtheta, *bd; /* [np] */
} back;

static int64_t max_pieces(const mn_rec_args *p) { /* over all phases */
  if (p->write != MN_WRITE_ANCHOR) return (p->T + PIECE - 1) / PIECE;
  int64_t per_chunk = (p->chunk + PIECE - 1) / PIECE;
  if (p->chunk >= p->T) per_chunk = (p->T + PIECE - 1) / PIECE;
  return (p->T / p->chunk + 2) * per_chunk + 2;
}

static void take_back(back *w, take *s, const mn_rec_args *p) {
  take_work(&w->f, s, p);
  const int64_t n = longest(p), kp = w->f.kp, vp = w->f.vp, np = w->f.np;
  const int64_t one = p->K * vp;
  w->state = one * (1 + (p->momentum ? 1 : 0) + (p->write == MN_WRITE_ANCHOR && p->chunk > PIECE ? 1 : 0));
  w->pieces = max_pieces(p);
  w->every = (int64_t)(512 * 1024 / sizeof(float)) / w->state; /* half of a second-level cache */
  if (w->every < 4) w->every = 4;
  if (w->every > w->pieces) w->every = w->pieces;
  w->saved = take_floats(s, (w->pieces + w->every - 1) / w->every * w->state);
  w->run = take_floats(s, w->every * w->state);
  w->u_all = take_floats(s, p->T * vp);
  w->start = (int64_t *)(void *)take_floats(s, 2 * (w->pieces + 1));
  w->dw = take_floats(s, one);
  w->ds = take_floats(s, p->momentum ? one : 0);
  w->danc = take_floats(s, p->write == MN_WRITE_ANCHOR ? one : 0);
  w->d_o = take_floats(s, n * vp);
  w->dy = take_floats(s, n * vp);
  w->du = take_floats(s, n * vp);
  w->dq = take_floats(s, n * kp);
  w->dk = take_floats(s, n * kp);
  w->xk = take_floats(s, n * kp);
  w->qt = take_floats(s, kp * np);
  w->dot = take_floats(s, vp * np);
  w->yt = take_floats(s, vp * np);
  w->dut = take_floats(s, vp * np);
  w->r1 = take_floats(s, kp * np);
  w->r2 = take_floats(s, kp * np);
  w->xt = take_floats(s, kp * np);
  w->dg = take_floats(s, n * np);
  w->h = take_floats(s, n * np);
  w->dM = take_floats(s, (n + 1) * np);
  w->dL = take_floats(s, np);
  w->dA = take_floats(s, n + 1);
  w->db = take_floats(s, n + 1);
  w->da = take_floats(s, np);
  w->deta = take_floats(s, np);
  w->dtheta = take_floats(s, np);
  w->bd = take_floats(s, np);
}

static void save_state(const mn_rec_args *p, back *w, float *to, const float *W, const float *S, const float *anc) {
  const int64_t one = p->K * w->f.vp;
  copy(to, W, one);
  if (p->momentum) copy(to + one, S, one);
  if (p->write == MN_WRITE_ANCHOR && p->chunk > PIECE) copy(to + (p->momentum ? 2 : 1) * one, anc, one);
}
/* The anchor that the tokens of a piece saw. While a chunk is one piece it is the state at the piece's start. */
static const float *saved_anchor(const mn_rec_args *p, const back *w, const float *from, bool opens) {
  if (opens || p->write != MN_WRITE_ANCHOR) return from;
  return p->chunk > PIECE ? from + (p->momentum ? 2 : 1) * p->K * w->f.vp : NULL;
}

/* sums over rows of x[rows, np] * y[rows, np], one per column, added to out[np] times sign */
static void column_dots(float *out, const float *x, const float *y, int64_t rows, int64_t np, float sign) {
  for (int64_t j = 0; j < np; j += MN_VL) {
    vf s0 = {0}, s1 = {0};
    int64_t i = 0;
    for (; i + 2 <= rows; i += 2) {
      s0 += vf_load(x + i * np + j) * vf_load(y + i * np + j);
      s1 += vf_load(x + (i + 1) * np + j) * vf_load(y + (i + 1) * np + j);
    }
    if (i < rows) s0 += vf_load(x + i * np + j) * vf_load(y + i * np + j);
    vf_store(out + j, vf_load(out + j) + vf_set1(sign) * (s0 + s1));
  }
}
static float dot(const float *x, const float *y, int64_t n) { /* n a multiple of TILE_PAD; padding is zero */
  vf s[4] = {{0}, {0}, {0}, {0}};
  int64_t i = 0;
  for (; i + 4 * MN_VL <= n; i += 4 * MN_VL) {
    TILE_UNROLL
    for (int j = 0; j < 4; j++) s[j] += vf_load(x + i + j * MN_VL) * vf_load(y + i + j * MN_VL);
  }
  for (; i < n; i += MN_VL) s[0] += vf_load(x + i) * vf_load(y + i);
  return vf_sum((s[0] + s[1]) + (s[2] + s[3]));
}

/* The gradient of log_a and log_eta from those of the coefficients: the rows of M and L, last to first. dE: of E_n. */
static void coefs_backward(const mn_rec_args *p, back *w, int64_t n, float dE) {
  coefs *c = &w->f.c;
  const int64_t np = w->f.np;
  float *dL = w->dL;
  for (int64_t t = n; t >= 1; t--) {
    const float a = c->a[t - 1], e = c->eta[t - 1];
    float *g = w->dM + t * np, *g0 = g - np;
    const float *m0 = c->M + (t - 1) * np, *l0 = c->L + (t - 1) * np;
    vf va = vf_set1(a), ve = vf_set1(e), sa = {0}, se = {0};
    for (int64_t m = 0; m < np; m += MN_VL) {
      vf gm = vf_load(g + m);
      sa += gm * vf_load(m0 + m);
      vf_store(g0 + m, vf_load(g0 + m) + va * gm);
      if (p->momentum) {
        vf gl = vf_load(dL + m) + gm;
        se += gl * vf_load(l0 + m);
        vf_store(dL + m, ve * gl);
      }
    }
    w->da[t - 1] += vf_sum(sa) + w->dA[t] * c->A[t - 1] + w->db[t] * c->b[t - 1];
    w->dA[t - 1] += a * w->dA[t];
    w->db[t - 1] += a * w->db[t];
    if (p->momentum) {
      dE += w->db[t];
      w->deta[t - 1] = (vf_sum(se) + dE * c->E[t - 1]) * e;
      dE *= e;
    }
    w->da[t - 1] *= a; /* with respect to the logarithm */
  }
}

/* dU from dY (in dy, still without what later rows of the DELTA rule send back): dY_m -= sum_{t>m} h[t,m] dU_t,
 * dU = theta dY, from the last row up. */
static void solve_back(back *w, int64_t n, int64_t V) {
  const int64_t vp = w->f.vp, np = w->f.np;
  for (int64_t end = n; end > 0;) {
    int64_t i = (end - 1) / SOLVE * SOLVE, rows = end - i;
    tile_gemm(rows, V, n - end, w->h + end * np + i, 1, np, w->du + end * vp, vp, w->dy + i * vp, vp, TILE_SUB,
              TILE_FULL);
    for (int64_t m = end - 1; m >= i; m--) {
      vf theta = vf_set1(w->f.c.theta[m]);
      for (int64_t j = 0; j < vp; j += MN_VL) {
        vf y = vf_load(w->dy + m * vp + j);
        for (int64_t t = m + 1; t < end; t++) y -= vf_set1(w->h[t * np + m]) * vf_load(w->du + t * vp + j);
        vf_store(w->dy + m * vp + j, y);
        vf_store(w->du + m * vp + j, theta * y);
      }
    }
    end = i;
  }
}

/* Gradients of one piece. dw, ds, danc hold those of the state after it and leave with those of the state before it. */
static void piece_backward(const mn_rec_args *p, back *w, int64_t b, int64_t h, piece s1, const float *W, const float *S,
                           const float *anc) {
  work *f = &w->f;
  coefs *c = &f->c;
  make_coefs(p, f, b, h, s1);
  const int64_t n = s1.n, K = p->K, V = p->V, kp = f->kp, vp = f->vp, np = f->np, r = p->read_before ? 0 : 1;
  const bool delta = p->write == MN_WRITE_DELTA, anchor = p->write == MN_WRITE_ANCHOR;
  rows_in(f->q, kp, &p->q, b, s1.t0, h, n, K);
  rows_in(f->k, kp, &p->k, b, s1.t0, h, n, K);
  rows_in(w->d_o, vp, &p->o, b, s1.t0, h, n, V);
  const float *u = w->u_all + s1.t0 * vp;
  scale_rows(f->y, u, c->theta, n, vp);
  tile_transpose(f->kt, np, f->k, kp, n, K, 0);
  tile_transpose(w->qt, np, f->q, kp, n, K, 0);
  tile_transpose(w->dot, np, w->d_o, vp, n, V, 0);
  tile_transpose(w->yt, np, f->y, vp, n, V, 0);
  zero(w->dM, (n + 1) * np);
  zero(w->dL, np);
  zero(w->dA, n + 1);
  zero(w->db, n + 1);
  zero(w->da, np);

  /* scores and their gradient: g = (Q K^T) o M_r; dN = dO Y^T; dg = dN o M_r; dM_r += dN o (Q K^T) */
  tile_gemm(n, n, K, f->q, kp, 1, f->kt, np, f->g, np, TILE_SET, TILE_FULL);
  tile_gemm(n, n, V, w->d_o, vp, 1, w->yt, np, w->dg, np, TILE_SET, TILE_FULL);
  for (int64_t i = 0; i < n * np; i += MN_VL) {
    vf g = vf_load(f->g + i), d = vf_load(w->dg + i), m = vf_load(c->M + r * np + i);
    vf_store(w->dM + r * np + i, d * g);
    vf_store(f->g + i, g * m);
    vf_store(w->dg + i, d * m);
  }

  /* dY = g^T dO + diag(M_n) K dW + diag(L_n) K dS, and through the DELTA rule; dU = theta dY */
  tile_gemm(n, V, n, f->g, 1, np, w->d_o, vp, w->dy, vp, TILE_SET, TILE_A_UPPER);
  scale_rows(f->x, f->k, c->M + n * np, n, kp);
  tile_gemm(n, V, K, f->x, kp, 1, w->dw, vp, w->dy, vp, TILE_ADD, TILE_FULL);
  if (p->momentum) {
    scale_rows(f->x, f->k, c->L + n * np, n, kp);
    tile_gemm(n, V, K, f->x, kp, 1, w->ds, vp, w->dy, vp, TILE_ADD, TILE_FULL);
  }
  if (delta) {
    tile_gemm(n, n, K, f->k, kp, 1, f->kt, np, f->g, np, TILE_SET, TILE_FULL); /* K K^T; g is used up */
    for (int64_t t = 0; t < n; t++)
      for (int64_t m = 0; m < np; m += MN_VL)
        vf_store(w->h + t * np + m,
                   vf_load(f->g + t * np + m) * (vf_set1(c->a[t]) * vf_load(c->M + t * np + m)));
    solve_back(w, n, V);
  } else {
    scale_rows(w->du, w->dy, c->theta, n, vp);
  }
  for (int64_t m = 0; m < n; m++) w->dtheta[m] = dot(w->dy + m * vp, u + m * vp, vp);

  /* dQ = diag(A_r) dO W^T + diag(b_r) dO S^T + dg K, transposed but for the last */
  zero(f->x, np);
  tile_gemm(K, n, V, W, vp, 1, w->dot, np, w->r1, np, TILE_SET, TILE_FULL);
  column_dots(f->x, w->qt, w->r1, K, np, 1);
  for (int64_t t = 0; t < n; t++) w->dA[t + r] += f->x[t];
  if (p->momentum) {
    zero(f->x, np);
    tile_gemm(K, n, V, S, vp, 1, w->dot, np, w->r2, np, TILE_SET, TILE_FULL);
    column_dots(f->x, w->qt, w->r2, K, np, 1);
    for (int64_t t = 0; t < n; t++) w->db[t + r] += f->x[t];
  }
  for (int64_t i = 0; i < K; i++)
    for (int64_t t = 0; t < np; t += MN_VL) {
      vf x = vf_load(c->A + r + t) * vf_load(w->r1 + i * np + t);
      if (p->momentum) x += vf_load(c->b + r + t) * vf_load(w->r2 + i * np + t);
      vf_store(w->r1 + i * np + t, x);
    }
  tile_gemm(n, K, n, w->dg, np, 1, f->k, kp, w->dq, kp, TILE_SET, TILE_A_LOWER);
  tile_transpose(w->dq, kp, w->r1, np, K, n, 1);

  /* dK = dg^T Q + diag(M_n) Y dW^T + diag(L_n) Y dS^T and the write rule's part */
  tile_gemm(n, K, n, w->dg, 1, np, f->q, kp, w->dk, kp, TILE_SET, TILE_A_UPPER);
  tile_gemm(K, n, V, w->dw, vp, 1, w->yt, np, w->r1, np, TILE_SET, TILE_FULL);
  column_dots(w->dM + n * np, f->kt, w->r1, K, np, 1);
  if (p->momentum) {
    tile_gemm(K, n, V, w->ds, vp, 1, w->yt, np, w->r2, np, TILE_SET, TILE_FULL);
    column_dots(w->dL, f->kt, w->r2, K, np, 1);
  }
  for (int64_t i = 0; i < K; i++)
    for (int64_t t = 0; t < np; t += MN_VL) {
      vf x = vf_load(c->M + n * np + t) * vf_load(w->r1 + i * np + t);
      if (p->momentum) x += vf_load(c->L + n * np + t) * vf_load(w->r2 + i * np + t);
      vf_store(w->r1 + i * np + t, x);
    }
  if (anchor || delta) tile_transpose(w->dut, np, w->du, vp, n, V, 0);
  if (anchor) tile_gemm(K, n, V, anc, vp, 1, w->dut, np, w->r1, np, TILE_SUB, TILE_FULL);
  if (delta) {
    /* U = V - diag(A) K W - diag(bd) K S - (K K^T o Md) Y with bd_t = a_t b_{t-1}, Md[t,m] = a_t M[t-1,m] */
    zero(f->x, np);
    tile_gemm(K, n, V, W, vp, 1, w->dut, np, w->xt, np, TILE_SET, TILE_FULL);
    column_dots(f->x, f->kt, w->xt, K, np, -1);
    for (int64_t t = 0; t < n; t++) w->dA[t + 1] += f->x[t];
    for (int64_t i = 0; i < K; i++)
      for (int64_t t = 0; t < np; t += MN_VL)
        vf_store(w->r1 + i * np + t,
                   vf_load(w->r1 + i * np + t) - vf_load(c->A + 1 + t) * vf_load(w->xt + i * np + t));
    if (p->momentum) {
      for (int64_t t = 0; t < n; t++) w->bd[t] = c->a[t] * c->b[t];
      zero(f->x, np);
      tile_gemm(K, n, V, S, vp, 1, w->dut, np, w->xt, np, TILE_SET, TILE_FULL);
      column_dots(f->x, f->kt, w->xt, K, np, -1);
      for (int64_t t = 0; t < n; t++) {
        w->da[t] += f->x[t] * c->b[t];
        w->db[t] += f->x[t] * c->a[t];
      }
      for (int64_t i = 0; i < K; i++)
        for (int64_t t = 0; t < np; t += MN_VL)
          vf_store(w->r1 + i * np + t,
                     vf_load(w->r1 + i * np + t) - vf_load(w->bd + t) * vf_load(w->xt + i * np + t));
    }
    tile_gemm(n, n, V, w->du, vp, 1, w->yt, np, w->dg, np, TILE_SET, TILE_FULL); /* minus the gradient of the triangle */
    for (int64_t t = 0; t < n; t++) {
      vf a = vf_set1(c->a[t]), sum = {0};
      for (int64_t m = 0; m < np; m += MN_VL) {
        vf d = vf_load(w->dg + t * np + m), hk = vf_load(f->g + t * np + m), mm = vf_load(c->M + t * np + m);
        sum += d * hk * mm;
        vf_store(w->dM + t * np + m, vf_load(w->dM + t * np + m) - a * d * hk);
        vf_store(w->dg + t * np + m, d * a * mm);
      }
      w->da[t] -= vf_sum(sum);
    }
    tile_gemm(n, K, n, w->dg, np, 1, f->k, kp, w->dk, kp, TILE_SUB, TILE_A_LOWER);
    tile_gemm(n, K, n, w->dg, 1, np, f->k, kp, w->dk, kp, TILE_SUB, TILE_A_UPPER);
  }
  tile_transpose(w->dk, kp, w->r1, np, K, n, 1);

  /* the ends of the coefficient rows meet the whole state, then the state's own gradient */
  float dE = 0;
  w->dA[n] += dot(w->dw, W, K * vp);
  if (p->momentum) {
    w->db[n] += dot(w->dw, S, K * vp);
    dE = dot(w->ds, S, K * vp);
    scale_rows(f->x, w->d_o, c->b + r, n, vp);
    tile_gemm_linear(K, V, n, f->q, 1, kp, f->x, vp, w->ds, vp, c->E[n], c->b[n], w->dw);
  }
  scale_rows(f->x, w->d_o, c->A + r, n, vp);
  tile_gemm_linear(K, V, n, f->q, 1, kp, f->x, vp, w->dw, vp, c->A[n], 0, NULL);
  if (delta) {
    scale_rows(f->x, w->du, c->A + 1, n, vp);
    tile_gemm(K, V, n, f->k, 1, kp, f->x, vp, w->dw, vp, TILE_SUB, TILE_FULL);
    if (p->momentum) {
      scale_rows(f->x, w->du, w->bd, n, vp);
      tile_gemm(K, V, n, f->k, 1, kp, f->x, vp, w->ds, vp, TILE_SUB, TILE_FULL);
    }
  }
  if (anchor) {
    tile_gemm(K, V, n, f->k, 1, kp, w->du, vp, w->danc, vp, TILE_SUB, TILE_FULL);
    if (s1.opens) { /* the anchor of these tokens was the state before the first of them */
      for (int64_t i = 0; i < K * vp; i += MN_VL)
        vf_store(w->dw + i, vf_load(w->dw + i) + vf_load(w->danc + i));
      zero(w->danc, K * vp);
    }
  }
  if (p->dlog_a.data || p->dlog_eta.data) coefs_backward(p, w, n, dE);

  rows_out(&p->dq, b, s1.t0, h, w->dq, kp, n, K);
  rows_out(&p->dk, b, s1.t0, h, w->dk, kp, n, K);
  rows_out(&p->dv, b, s1.t0, h, w->du, vp, n, V);
  gates_out(&p->dtheta, b, s1.t0, h, w->dtheta, n);
  gates_out(&p->dlog_a, b, s1.t0, h, w->da, n);
  gates_out(&p->dlog_eta, b, s1.t0, h, w->deta, n);
}

static void backward(const mn_rec_args *p, int64_t b, int64_t h, void *scratch) {
  take s = {scratch, 0};
  back w;
  take_back(&w, &s, p);
  work *f = &w.f;
  const int64_t K = p->K, V = p->V, kp = f->kp, vp = f->vp, phase = first_phase(p, b);
  const bool anchor = p->write == MN_WRITE_ANCHOR;
  /* A piece in the middle of a chunk needs the anchor: a phase may put even a one-piece chunk there, once, at the start;
   * that anchor stays in f->anc until the first chunk opens. */
  state_in(f->w, vp, &p->w0, b, h, K, V);
  if (p->momentum) state_in(f->s, vp, &p->s0, b, h, K, V);
  if (anchor && phase) state_in(f->anc, vp, &p->a0, b, h, K, V);

  /* forward over the states; u of every token is kept */
  int64_t pieces = 0;
  for (int64_t t0 = 0; t0 < p->T; pieces++) {
    piece s1 = piece_at(p, phase, t0);
    w.start[pieces] = t0;
    if (anchor && s1.opens) copy(f->anc, f->w, K * vp);
    if (pieces % w.every == 0) save_state(p, &w, w.saved + pieces / w.every * w.state, f->w, f->s, f->anc);
    make_coefs(p, f, b, h, s1);
    rows_in(f->k, kp, &p->k, b, t0, h, s1.n, K);
    rows_in(f->u, vp, &p->v, b, t0, h, s1.n, V);
    written_values(p, f, s1.n, f->w, f->s, f->anc);
    copy(w.u_all + t0 * vp, f->u, s1.n * vp);
    if (t0 + s1.n < p->T) advance(p, f, s1.n, f->w, f->s);
    t0 += s1.n;
  }

  /* back, run by run: first the states at the starts of the run's pieces, then its pieces from the last */
  state_in(w.dw, vp, &p->w, b, h, K, V);
  if (p->momentum) state_in(w.ds, vp, &p->s, b, h, K, V);
  if (anchor) {
    state_in(w.danc, vp, &p->a, b, h, K, V);
    if (ends_chunk(p, phase)) {
      for (int64_t i = 0; i < K * vp; i += MN_VL) vf_store(w.dw + i, vf_load(w.dw + i) + vf_load(w.danc + i));
      zero(w.danc, K * vp);
    }
    if (phase) state_in(f->anc, vp, &p->a0, b, h, K, V);
  }
  for (int64_t run = (pieces - 1) / w.every; run >= 0; run--) {
    const int64_t first = run * w.every;
    const int64_t count = pieces - first < w.every ? pieces - first : w.every;
    copy(w.run, w.saved + run * w.state, w.state);
    for (int64_t i = 0; i + 1 < count; i++) {
      piece s1 = piece_at(p, phase, w.start[first + i]);
      float *from = w.run + i * w.state, *to = from + w.state;
      copy(to, from, w.state);
      make_coefs(p, f, b, h, s1);
      rows_in(f->k, kp, &p->k, b, s1.t0, h, s1.n, K);
      scale_rows(f->y, w.u_all + s1.t0 * vp, f->c.theta, s1.n, vp);
      advance(p, f, s1.n, to, p->momentum ? to + K * vp : NULL);
      if (anchor && p->chunk > PIECE && piece_at(p, phase, s1.t0 + s1.n).opens)
        copy(to + (p->momentum ? 2 : 1) * K * vp, to, K * vp);
    }
    for (int64_t i = count - 1; i >= 0; i--) {
      piece s1 = piece_at(p, phase, w.start[first + i]);
      const float *W = w.run + i * w.state;
      const float *anc = saved_anchor(p, &w, W, s1.opens);
      piece_backward(p, &w, b, h, s1, W, p->momentum ? W + K * vp : NULL, anc ? anc : f->anc);
    }
  }
  state_out(&p->dw0, b, h, w.dw, vp, K, V);
  if (p->momentum) state_out(&p->ds0, b, h, w.ds, vp, K, V);
  if (anchor) state_out(&p->da0, b, h, w.danc, vp, K, V);
}

static size_t forward_scratch(const mn_rec_args *p) {
  take s = {NULL, 0};
  work w;
  take_work(&w, &s, p);
  return s.used;
}
static size_t backward_scratch(const mn_rec_args *p) {
  take s = {NULL, 0};
  back w;
  take_back(&w, &s, p);
  return s.used;
}

const mn_recurrence_isa MN_ISA_NAME(mn_recurrence) = {forward_scratch, backward_scratch, forward, backward};
