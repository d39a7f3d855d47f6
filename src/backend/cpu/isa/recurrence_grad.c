/* recurrence_grad.c - the chunked linear recurrence backward: the states forward once (saving one in every `every`
 * pieces and all u), then back over the pieces. Products with W^T are made transposed, with tokens along the vector, so
 * that only chunk-sized operands are ever transposed, never a state. */
#include "backend/cpu/isa/recurrence_piece.h"
#include "graph/fused_recurrence.h"

typedef struct back {
  work f;
  int64_t pieces, every;         /* at most; a saved state every `every` pieces */
  int64_t state;                 /* floats of one saved state: W, S and the anchor, as many as there are */
  float *saved;                  /* [ceil(pieces / every), state] */
  float *run;                    /* [every, state]: the states at the starts of the pieces of one run */
  float *u_all;                  /* [T, vp] */
  float *clamp_all;              /* [T]: the factors of clamped writes */
  int64_t *start;                /* [pieces + 1]: first token of each piece */
  float *dw, *ds, *danc;         /* [K, vp] */
  mat d_o, dq, dk;               /* [n, V], [n, K], [n, K]: in place, or in scratch */
  float *dos, *dy, *du;          /* [n, vp] */
  float *dqs, *dks;              /* [n, kp] */
  float *qt;                     /* [kp, np] */
  float *dot, *yt, *dut;         /* [vp, np] */
  float *r1, *r2, *xt;           /* [kp, np] */
  float *dg, *h;                 /* [n, np] */
  float *dM;                     /* [n+1, np] */
  float *dL;                     /* [np] */
  float *dA, *db;                /* [n+1] */
  float *da, *deta, *dbeta, *bd; /* [np] */
  float *along_k;                /* [np]: what clamping sends to each k, in units of k */
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
  w->every = saved_every(w->pieces, w->state);
  w->saved = take_floats(s, (w->pieces + w->every - 1) / w->every * w->state);
  w->run = take_floats(s, w->every > 1 ? w->every * w->state : 0);
  w->u_all = take_floats(s, p->T * vp);
  w->clamp_all = take_floats(s, p->grad_clamp > 0 ? p->T : 0);
  w->start = (int64_t *)(void *)take_floats(s, 2 * (w->pieces + 1));
  w->dw = take_floats(s, one);
  w->ds = take_floats(s, p->momentum ? one : 0);
  w->danc = take_floats(s, p->write == MN_WRITE_ANCHOR ? one : 0);
  w->dos = take_floats(s, n * vp);
  w->dy = take_floats(s, n * vp);
  w->du = take_floats(s, n * vp);
  w->dqs = take_floats(s, n * kp);
  w->dks = take_floats(s, n * kp);
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
  w->dbeta = take_floats(s, np);
  w->bd = take_floats(s, np);
  w->along_k = take_floats(s, p->grad_clamp > 0 ? np : 0);
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

/* Through u = f(r) e: the gradient of u, in du, becomes that of e, and k has a share along itself. With c = (du . e) f'(r) / (m^2 r),
 *     de = f du + c |k|^2 e        dk += c |e|^2 k        f'(r) / r = ((1 - tanh^2 r) - f) / r^2, near zero -2/3 + 8/15 r^2 */
static void clamp_backward(const mn_rec_args *p, back *w, int64_t n, const float *u, const float *factor) {
  const int64_t vp = w->f.vp, kw = whole_vectors(p->K);
  const double m = (double)p->grad_clamp;
  for (int64_t t = 0; t < n; t++) {
    const float *k = w->f.k.p + t * w->f.k.ld, *ut = u + t * vp;
    float *du = w->du + t * vp;
    const double f = (double)factor[t], k2 = (double)row_dot(k, k, kw), e2 = (double)row_dot(ut, ut, vp) / (f * f);
    const double r2 = (k2 * e2 + 1e-12) / (m * m), th = tanh(sqrt(r2));
    const double slope = r2 < 1e-4 ? -2.0 / 3 + 8.0 / 15 * r2 : ((1 - th * th) - th / sqrt(r2)) / r2;
    const double c = (double)row_dot(du, ut, vp) / f * slope / (m * m);
    w->along_k[t] = (float)(c * e2);
    const vf by_du = vf_set1(factor[t]), by_u = vf_set1((float)(c * k2 / f));
    for (int64_t j = 0; j < vp; j += MN_VL) vf_store(du + j, by_du * vf_load(du + j) + by_u * vf_load(ut + j));
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
  f->q = rows_at(&p->q, b, s1.t0, h, n, K, f->qs);
  f->k = rows_at(&p->k, b, s1.t0, h, n, K, f->ks);
  w->d_o = rows_at(&p->o, b, s1.t0, h, n, V, w->dos);
  w->dq = rows_to(&p->dq, b, s1.t0, h, K, w->dqs);
  w->dk = rows_to(&p->dk, b, s1.t0, h, K, w->dks);
  const float *u = w->u_all + s1.t0 * vp;
  scale_rows(f->y, vp, u, vp, c->beta, n);
  tile_transpose(f->kt, np, f->k.p, f->k.ld, n, K, 0);
  tile_transpose(w->qt, np, f->q.p, f->q.ld, n, K, 0);
  tile_transpose(w->dot, np, w->d_o.p, w->d_o.ld, n, V, 0);
  tile_transpose(w->yt, np, f->y, vp, n, V, 0);
  zero(w->dM, (n + 1) * np);
  zero(w->dL, np);
  zero(w->dA, n + 1);
  zero(w->db, n + 1);
  zero(w->da, np);

  /* scores and their gradient: g = (Q K^T) o M_r; dN = dO Y^T; dg = dN o M_r; dM_r += dN o (Q K^T) */
  tile_gemm(n, n, K, f->q.p, f->q.ld, 1, f->kt, np, f->g, np, TILE_SET, TILE_OUT_LOWER);
  tile_gemm(n, n, V, w->d_o.p, w->d_o.ld, 1, w->yt, np, w->dg, np, TILE_SET, TILE_OUT_LOWER);
  for (int64_t t = 0; t < n; t++)
    for (int64_t i = t * np; i < (t + 1) * np && i < t * np + tile_lower(t); i += MN_VL) {
      vf g = vf_load(f->g + i), d = vf_load(w->dg + i), m = vf_load(c->M + r * np + i);
      vf_store(w->dM + r * np + i, d * g);
      vf_store(f->g + i, g * m);
      vf_store(w->dg + i, d * m);
    }

  /* dY = g^T dO + diag(M_n) K dW + diag(L_n) K dS, and through the DELTA rule; dU = beta dY */
  tile_gemm(n, V, n, f->g, 1, np, w->d_o.p, w->d_o.ld, w->dy, vp, TILE_SET, TILE_A_UPPER);
  scale_rows(f->x, kp, f->k.p, f->k.ld, c->M + n * np, n);
  tile_gemm(n, V, K, f->x, kp, 1, w->dw, vp, w->dy, vp, TILE_ADD, TILE_FULL);
  if (p->momentum) {
    scale_rows(f->x, kp, f->k.p, f->k.ld, c->L + n * np, n);
    tile_gemm(n, V, K, f->x, kp, 1, w->ds, vp, w->dy, vp, TILE_ADD, TILE_FULL);
  }
  if (delta) {
    tile_gemm(n, n, K, f->k.p, f->k.ld, 1, f->kt, np, f->g, np, TILE_SET, TILE_FULL); /* K K^T; g is used up */
    for (int64_t t = 0; t < n; t++)
      for (int64_t m = 0; m < np; m += MN_VL)
        vf_store(w->h + t * np + m, vf_load(f->g + t * np + m) * (vf_set1(predicted(p, f, t)) * vf_load(c->M + t * np + m)));
    solve_rows_back(w->h, np, n, V, vp, c->beta, w->dy, w->du); /* later rows have seen these */
  } else {
    scale_rows(w->du, vp, w->dy, vp, c->beta, n);
  }
  for (int64_t m = 0; m < n; m++) w->dbeta[m] = dot(w->dy + m * vp, u + m * vp, vp);
  if (p->grad_clamp > 0) clamp_backward(p, w, n, u, w->clamp_all + s1.t0);

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
  tile_gemm(n, K, n, w->dg, np, 1, f->k.p, f->k.ld, w->dq.p, w->dq.ld, TILE_SET, TILE_A_LOWER);
  tile_transpose(w->dq.p, w->dq.ld, w->r1, np, K, n, 1);

  /* dK = dg^T Q + diag(M_n) Y dW^T + diag(L_n) Y dS^T and the write rule's part */
  tile_gemm(n, K, n, w->dg, 1, np, f->q.p, f->q.ld, w->dk.p, w->dk.ld, TILE_SET, TILE_A_UPPER);
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
    /* U = V - diag(c A_-) K W - diag(bd) K S - (K K^T o Md) Y with bd_t = c_t b_{t-1}, Md[t,m] = c_t M[t-1,m]; c = a,
     * or 1 */
    const float *ca = predicted_w(p, f);
    const int64_t next = p->plain ? 0 : 1;
    zero(f->x, np);
    tile_gemm(K, n, V, W, vp, 1, w->dut, np, w->xt, np, TILE_SET, TILE_FULL);
    column_dots(f->x, f->kt, w->xt, K, np, -1);
    for (int64_t t = 0; t < n; t++) w->dA[t + next] += f->x[t];
    for (int64_t i = 0; i < K; i++)
      for (int64_t t = 0; t < np; t += MN_VL)
        vf_store(w->r1 + i * np + t, vf_load(w->r1 + i * np + t) - vf_load(ca + t) * vf_load(w->xt + i * np + t));
    if (p->momentum) {
      for (int64_t t = 0; t < n; t++) w->bd[t] = predicted(p, f, t) * c->b[t];
      zero(f->x, np);
      tile_gemm(K, n, V, S, vp, 1, w->dut, np, w->xt, np, TILE_SET, TILE_FULL);
      column_dots(f->x, f->kt, w->xt, K, np, -1);
      for (int64_t t = 0; t < n; t++) {
        if (!p->plain) w->da[t] += f->x[t] * c->b[t];
        w->db[t] += f->x[t] * predicted(p, f, t);
      }
      for (int64_t i = 0; i < K; i++)
        for (int64_t t = 0; t < np; t += MN_VL)
          vf_store(w->r1 + i * np + t, vf_load(w->r1 + i * np + t) - vf_load(w->bd + t) * vf_load(w->xt + i * np + t));
    }
    tile_gemm(n, n, V, w->du, vp, 1, w->yt, np, w->dg, np, TILE_SET, TILE_FULL); /* minus the gradient of the triangle */
    for (int64_t t = 0; t < n; t++) {
      vf a = vf_set1(predicted(p, f, t)), sum = {0};
      for (int64_t m = 0; m < np; m += MN_VL) {
        vf d = vf_load(w->dg + t * np + m), hk = vf_load(f->g + t * np + m), mm = vf_load(c->M + t * np + m);
        sum += d * hk * mm;
        vf_store(w->dM + t * np + m, vf_load(w->dM + t * np + m) - a * d * hk);
        vf_store(w->dg + t * np + m, d * a * mm);
      }
      if (!p->plain) w->da[t] -= vf_sum(sum);
    }
    tile_gemm(n, K, n, w->dg, np, 1, f->k.p, f->k.ld, w->dk.p, w->dk.ld, TILE_SUB, TILE_A_LOWER);
    tile_gemm(n, K, n, w->dg, 1, np, f->k.p, f->k.ld, w->dk.p, w->dk.ld, TILE_SUB, TILE_A_UPPER);
  }
  tile_transpose(w->dk.p, w->dk.ld, w->r1, np, K, n, 1);
  for (int64_t t = 0; t < n && p->grad_clamp > 0; t++) {
    const vf share = vf_set1(w->along_k[t]);
    float *dk = w->dk.p + t * w->dk.ld;
    for (int64_t i = 0; i < whole_vectors(K); i += MN_VL) vf_store(dk + i, vf_load(dk + i) + share * vf_load(f->k.p + t * f->k.ld + i));
  }

  /* the ends of the coefficient rows meet the whole state, then the state's own gradient */
  float dE = 0;
  w->dA[n] += dot(w->dw, W, K * vp);
  if (p->momentum) {
    w->db[n] += dot(w->dw, S, K * vp);
    dE = dot(w->ds, S, K * vp);
    scale_rows(f->x, vp, w->d_o.p, w->d_o.ld, c->b + r, n);
    tile_gemm_linear(K, V, n, f->q.p, 1, f->q.ld, f->x, vp, w->ds, vp, c->E[n], w->ds, c->b[n], w->dw);
  }
  scale_rows(f->x, vp, w->d_o.p, w->d_o.ld, c->A + r, n);
  tile_gemm_linear(K, V, n, f->q.p, 1, f->q.ld, f->x, vp, w->dw, vp, c->A[n], w->dw, 0, NULL);
  if (delta) {
    scale_rows(f->x, vp, w->du, vp, predicted_w(p, f), n);
    tile_gemm(K, V, n, f->k.p, 1, f->k.ld, f->x, vp, w->dw, vp, TILE_SUB, TILE_FULL);
    if (p->momentum) {
      scale_rows(f->x, vp, w->du, vp, w->bd, n);
      tile_gemm(K, V, n, f->k.p, 1, f->k.ld, f->x, vp, w->ds, vp, TILE_SUB, TILE_FULL);
    }
  }
  if (anchor) {
    tile_gemm(K, V, n, f->k.p, 1, f->k.ld, w->du, vp, w->danc, vp, TILE_SUB, TILE_FULL);
    if (s1.opens) { /* the anchor of these tokens was the state before the first of them */
      for (int64_t i = 0; i < K * vp; i += MN_VL) vf_store(w->dw + i, vf_load(w->dw + i) + vf_load(w->danc + i));
      zero(w->danc, K * vp);
    }
  }
  if (p->dlog_a.data || p->dlog_eta.data) coefs_backward(p, w, n, dE);

  rows_done(&p->dq, b, s1.t0, h, w->dq, n, K);
  rows_done(&p->dk, b, s1.t0, h, w->dk, n, K);
  rows_out(&p->dv, b, s1.t0, h, w->du, vp, n, V);
  gates_out(&p->dbeta, b, s1.t0, h, w->dbeta, n);
  gates_out(&p->dlog_a, b, s1.t0, h, w->da, n);
  gates_out(&p->dlog_eta, b, s1.t0, h, w->deta, n);
}

static bool backward(const mn_rec_args *p, int64_t b, int64_t h, int64_t turn, void *kept, void *scratch) {
  (void)turn, (void)kept;
  take s = {scratch, 0};
  back w;
  take_back(&w, &s, p);
  work *f = &w.f;
  const int64_t K = p->K, V = p->V, vp = f->vp, phase = first_phase(p, b);
  const bool anchor = p->write == MN_WRITE_ANCHOR;
  /* A piece in the middle of a chunk needs the anchor: a phase may put even a one-piece chunk there, once, at the
   * start; that anchor stays in f->anc until the first chunk opens. */
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
    f->k = rows_at(&p->k, b, t0, h, s1.n, K, f->ks);
    f->u = w.u_all + t0 * vp;
    f->clamp = w.clamp_all + t0;
    rows_in(f->u, vp, &p->v, b, t0, h, s1.n, V);
    written_values(p, f, s1.n, f->w, f->s, f->anc);
    if (t0 + s1.n < p->T) advance(p, f, s1.n, f->w, f->s, f->w, f->s);
    t0 += s1.n;
  }

  /* back, run by run: first the states at the starts of the run's pieces, then its pieces from the last */
  state_in(w.dw, vp, &p->w, b, h, K, V);
  if (p->momentum) state_in(w.ds, vp, &p->s, b, h, K, V);
  if (p->plain) { /* each token is a chunk: the anchor handed on is the final state, the one handed in is not seen */
    state_in(f->anc, vp, &p->a, b, h, K, V);
    for (int64_t i = 0; i < K * vp; i += MN_VL) vf_store(w.dw + i, vf_load(w.dw + i) + vf_load(f->anc + i));
  }
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
    const float *saved = w.saved + run * w.state;
    for (int64_t i = 0; i + 1 < count; i++) {
      piece s1 = piece_at(p, phase, w.start[first + i]);
      const float *from = i ? w.run + i * w.state : saved;
      float *to = w.run + (i + 1) * w.state;
      make_coefs(p, f, b, h, s1);
      f->k = rows_at(&p->k, b, s1.t0, h, s1.n, K, f->ks);
      scale_rows(f->y, vp, w.u_all + s1.t0 * vp, vp, f->c.beta, s1.n);
      advance(p, f, s1.n, from, from + K * vp, to, to + K * vp);
      if (anchor && p->chunk > PIECE) {
        const int64_t a = (p->momentum ? 2 : 1) * K * vp;
        copy(to + a, piece_at(p, phase, s1.t0 + s1.n).opens ? to : from + a, K * vp);
      }
    }
    for (int64_t i = count - 1; i >= 0; i--) {
      piece s1 = piece_at(p, phase, w.start[first + i]);
      const float *W = i ? w.run + i * w.state : saved;
      const float *anc = saved_anchor(p, &w, W, s1.opens);
      piece_backward(p, &w, b, h, s1, W, p->momentum ? W + K * vp : NULL, anc ? anc : f->anc);
    }
  }
  state_out(&p->dw0, b, h, w.dw, vp, K, V);
  if (p->momentum) state_out(&p->ds0, b, h, w.ds, vp, K, V);
  if (anchor) state_out(&p->da0, b, h, w.danc, vp, K, V);
  if (p->plain) {
    zero(f->anc, K * vp);
    state_out(&p->da0, b, h, f->anc, vp, K, V);
  }
  return false;
}

static void sizes(const mn_rec_args *p, size_t *kept, size_t *scratch) {
  take s = {NULL, 0};
  back w;
  take_back(&w, &s, p);
  *kept = 0;
  *scratch = s.used;
}
const mn_recurrence_isa MN_ISA_NAME(mn_recurrence_grad) = {sizes, backward};
