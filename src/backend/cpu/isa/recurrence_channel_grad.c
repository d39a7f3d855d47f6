/* recurrence_channel_grad.c - the linear recurrence with decays by key channel and with erase vectors, backward: over the pieces from the
 * last, each from the state before it, which the forward pass has kept, or which is made again from the last that it kept. What was solved for is solved for again. Inside
 * a piece the joins of recurrence_channel.h are undone, the largest first: what a joined block's rows got from outside goes
 * to them and to the decay of the block they were joined with, and the square between the blocks adds its own share. */
#include "backend/cpu/isa/recurrence_channel.h"
#include "graph/fused_recurrence.h"

typedef struct channel_back {
  channel_work f;
  float *dw;                   /* [K, vp]         */
  float *run;                  /* [pieces from one kept state to the next, K, vp]: the states before them */
  float *d_reader[SIDES];      /* [PIECE + 1, kp] */
  float *d_writer[SIDES];      /* [PIECE + 1, kp] */
  float *dg[SIDES][SIDES];     /* [PIECE + 1, np] */
  float *d_total[JOINS + 1];   /* [blocks, kp]: of the logarithms of the blocks' decays */
  float *d_log;                /* [PIECE, kp] */
  float *d_o, *dy, *dz, *du;   /* [PIECE, vp] */
  float *d_ot, *yt, *zt, *dut; /* [vp, np]    */
  float *rt;                   /* [kp, np]    */
  float *dbeta;                /* [np]        */
} channel_back;

static void take_back(channel_back *w, take *s, take *across, const mn_rec_args *p) {
  channel_work *f = &w->f;
  take_channel(f, s, across, p, true);
  const int64_t kp = f->kp, vp = f->vp, np = tile_pad(PIECE), erase = p->write == MN_WRITE_ERASE;
  w->dw = take_floats(across, p->K * vp);
  w->run = take_floats(s, kept_pieces(p) * p->K * vp);
  for (int i = 0; i < f->n_readers; i++) w->d_reader[i] = take_floats(s, (PIECE + 1) * kp);
  for (int i = 0; i < f->n_writers; i++) w->d_writer[i] = take_floats(s, (PIECE + 1) * kp);
  for (int i = 0; i < f->n_readers; i++)
    for (int j = 0; j < f->n_writers; j++) w->dg[i][j] = take_floats(s, (PIECE + 1) * np + TILE_PAD);
  for (int j = 0; j <= JOINS; j++) w->d_total[j] = take_floats(s, (QUADS >> j) * kp);
  w->d_log = take_floats(s, PIECE * kp);
  w->d_o = take_floats(s, PIECE * vp);
  w->dy = take_floats(s, PIECE * vp);
  w->du = take_floats(s, PIECE * vp);
  w->dz = take_floats(s, erase ? PIECE * vp : 0);
  w->d_ot = take_floats(s, vp * np);
  w->yt = take_floats(s, vp * np);
  w->zt = take_floats(s, erase ? vp * np : 0);
  w->dut = take_floats(s, vp * np);
  w->rt = take_floats(s, kp * np);
  w->dbeta = take_floats(s, np);
}

static float dot(const float *x, const float *y, int64_t n) { /* n whole vectors */
  vf s0 = {0}, s1 = {0};
  int64_t i = 0;
  for (; i + 2 * MN_VL <= n; i += 2 * MN_VL) {
    s0 += vf_load(x + i) * vf_load(y + i);
    s1 += vf_load(x + i + MN_VL) * vf_load(y + i + MN_VL);
  }
  if (i < n) s0 += vf_load(x + i) * vf_load(y + i);
  return vf_sum(s0 + s1);
}

/* dX [n, kp] = D M^T from the state-like M [K, vp] and D^T [vp, np]; rows after the last become zero */
static void through_state(const mn_rec_args *p, channel_back *w, const float *M, const float *dt, float *dx) {
  channel_work *f = &w->f;
  product(f, p->K, f->n, p->V, M, f->vp, 1, dt, f->np, w->rt, f->np, TILE_SET);
  tile_transpose(dx, f->kp, w->rt, f->np, p->K, f->n, 0);
  zero(dx + f->n * f->kp, (f->n4 + 1 - f->n) * f->kp);
}
/* dG [n, n] = D Y^T, lower triangle; y transposed [vp, np] */
static void d_triangle(const mn_rec_args *p, channel_back *w, const float *d, const float *yt, float *dg) {
  const channel_work *f = &w->f;
  zero(dg, (f->n4 + 1) * f->np);
  tile_gemm(f->n, f->n, p->V, d, f->vp, 1, yt, f->np, dg, f->np, TILE_SET, TILE_OUT_LOWER);
}

/* Undoes one join: see the top. */
static void part(const mn_rec_args *p, channel_back *w, int j, int64_t i, int64_t size, int64_t second) {
  channel_work *f = &w->f;
  const int64_t kp = f->kp, np = f->np, mid = i + size;
  const float *t0 = f->total[j] + i / size * kp, *t1 = t0 + kp, *d = w->d_total[j + 1] + i / (2 * size) * kp;
  float *d0 = w->d_total[j] + i / size * kp, *d1 = d0 + kp;
  for (int64_t x = 0; x < kp; x += MN_VL) {
    vf s0 = vf_load(d + x), s1 = s0, v0 = vf_load(t0 + x), v1 = vf_load(t1 + x);
    for (int r = 0; r < f->n_readers; r++) {
      float *dx = positions(&f->reader[r], w->d_reader[r], kp) + mid * kp + x;
      const float *kept = f->reader[r].kept[j] + mid * kp + x;
      for (int64_t k = 0; k < second; k++) {
        vf g = v0 * vf_load(dx + k * kp);
        vf_store(dx + k * kp, g);
        s0 += g * vf_load(kept + k * kp);
      }
    }
    for (int c = 0; c < f->n_writers; c++) {
      float *dx = w->d_writer[c] + i * kp + x;
      const float *kept = f->writer[c].kept[j] + i * kp + x;
      for (int64_t k = 0; k < size; k++) {
        vf g = v1 * vf_load(dx + k * kp);
        vf_store(dx + k * kp, g);
        s1 += g * vf_load(kept + k * kp);
      }
    }
    vf_store(d0 + x, s0);
    vf_store(d1 + x, s1);
  }
  for (int r = 0; r < f->n_readers; r++)
    for (int c = 0; c < f->n_writers; c++) {
      const float *g = positions(&f->reader[r], w->dg[r][c], np) + mid * np + i;
      product(f, second, p->K, size, g, np, 1, f->writer[c].kept[j] + i * kp, kp, positions(&f->reader[r], w->d_reader[r], kp) + mid * kp,
              kp, TILE_ADD);
      product(f, size, p->K, second, g, 1, np, f->reader[r].kept[j] + mid * kp, kp, w->d_writer[c] + i * kp, kp, TILE_ADD);
    }
}

/* From a quad's scaled rows to the rows and the decays: d_log starts from the quad's own decay. */
static void quads_back(channel_back *w) {
  channel_work *f = &w->f;
  const int64_t kp = f->kp;
  for (int64_t i = 0; i < f->n4; i += QUAD) {
    ahead_ask(&f->ahead);
    for (int64_t x = 0; x < kp; x += MN_VL) {
      vf a[QUAD], d[QUAD], whole = vf_load(w->d_total[0] + i / QUAD * kp + x);
      TILE_UNROLL
      for (int m = 0; m < QUAD; m++) a[m] = vf_load(f->a + (i + m) * kp + x), d[m] = whole;
      for (int r = 0; r < f->n_readers; r++) {
        float *dx = positions(&f->reader[r], w->d_reader[r], kp) + i * kp + x;
        const float *rows = positions(&f->reader[r], f->reader[r].x, kp) + i * kp + x;
        vf decay = vf_set1(1);
        TILE_UNROLL
        for (int m = 0; m < QUAD; m++) {
          decay *= a[m];
          vf g = decay * vf_load(dx + m * kp), c = g * vf_load(rows + m * kp);
          vf_store(dx + m * kp, g);
          TILE_UNROLL
          for (int k = 0; k <= m; k++) d[k] += c;
        }
      }
      for (int r = 0; r < f->n_writers; r++) {
        float *dx = w->d_writer[r] + i * kp + x;
        const float *rows = f->writer[r].x + i * kp + x;
        vf decay = vf_set1(1);
        TILE_UNROLL
        for (int m = QUAD - 1; m >= 0; m--) {
          vf g = decay * vf_load(dx + m * kp), c = g * vf_load(rows + m * kp);
          vf_store(dx + m * kp, g);
          TILE_UNROLL
          for (int k = m + 1; k < QUAD; k++) d[k] += c;
          decay *= a[m];
        }
      }
      TILE_UNROLL
      for (int m = 0; m < QUAD; m++) vf_store(w->d_log + (i + m) * kp + x, d[m]);
    }
  }
}
/* The pairs inside each quad, of one reader and one writer; strict: not those of a token with itself. */
static void quad_pairs_back(channel_back *w, int r, int c, bool strict) {
  channel_work *f = &w->f;
  const int64_t kp = f->kp, np = f->np;
  float *dx = positions(&f->reader[r], w->d_reader[r], kp), *dc = w->d_writer[c];
  const float *xs = positions(&f->reader[r], f->reader[r].x, kp), *cs = f->writer[c].x;
  for (int64_t i = 0; i < f->n4; i += QUAD) {
    const float *g = positions(&f->reader[r], w->dg[r][c], np) + i * np + i;
    ahead_ask(&f->ahead);
    for (int64_t x = i * kp; x < i * kp + kp; x += MN_VL) {
      vf a[QUAD], cv[QUAD], dcv[QUAD], d[QUAD];
      TILE_UNROLL
      for (int m = 0; m < QUAD; m++) {
        a[m] = vf_load(f->a + x + m * kp), cv[m] = vf_load(cs + x + m * kp), dcv[m] = vf_load(dc + x + m * kp);
        d[m] = vf_load(w->d_log + x + m * kp);
      }
      TILE_UNROLL
      for (int q = 0; q < QUAD; q++) {
        const vf xv = vf_load(xs + x + q * kp);
        vf decay = vf_set1(1), sum = vf_load(dx + x + q * kp), crossed = {0};
        if (!strict) {
          const vf gv = vf_set1(g[q * np + q]);
          sum += gv * cv[q];
          dcv[q] += gv * xv;
        }
        vf through[QUAD]; /* g x_q P c_m, by m */
        TILE_UNROLL
        for (int m = q - 1; m >= 0; m--) {
          decay *= a[m + 1];
          const vf gv = vf_set1(g[q * np + m]) * decay, back = gv * cv[m];
          sum += back;
          dcv[m] += gv * xv;
          through[m] = back * xv;
        }
        TILE_UNROLL
        for (int m = 0; m < q; m++) { /* a pair (m, q) crosses the decays of m + 1 .. q */
          crossed += through[m];
          d[m + 1] += crossed;
        }
        vf_store(dx + x + q * kp, sum);
      }
      TILE_UNROLL
      for (int m = 0; m < QUAD; m++) vf_store(dc + x + m * kp, dcv[m]), vf_store(w->d_log + x + m * kp, d[m]);
    }
  }
}

static void joins_back(const mn_rec_args *p, channel_back *w) {
  channel_work *f = &w->f;
  const int64_t kp = f->kp;
  int j = 0;
  int64_t size = QUAD;
  for (; size < f->n4; size *= 2) j++;
  while (j-- > 0) {
    size /= 2;
    for (int64_t i = 0; i < f->n4; i += 2 * size) {
      const int64_t mid = i + size;
      if (mid >= f->n4) copy(w->d_total[j] + i / size * kp, w->d_total[j + 1] + i / (2 * size) * kp, kp);
      else part(p, w, j, i, size, f->n4 - mid < size ? f->n4 - mid : size);
    }
  }
  quads_back(w);
  for (int r = 0; r < f->n_readers; r++)
    for (int c = 0; c < f->n_writers; c++) quad_pairs_back(w, r, c, p->write == MN_WRITE_DELTA && r == 1);
}

static void gates_back(const mn_rec_args *p, channel_back *w, int64_t b, int64_t t0, int64_t h) {
  const channel_work *f = &w->f;
  if (!p->dlog_a.data) return;
  if (p->by_channel) {
    rows_out(&p->dlog_a, b, t0, h, w->d_log, f->kp, f->n, p->K);
    return;
  }
  float one[PIECE];
  for (int64_t t = 0; t < f->n; t++) {
    one[t] = 0;
    for (int64_t i = 0; i < p->K; i++) one[t] += w->d_log[t * f->kp + i];
  }
  gates_out(&p->dlog_a, b, t0, h, one, f->n);
}

/* What will be wanted: the rows that this piece gives, and those of the one before it, which comes next, with the state before that. */
static void note_backward(const mn_rec_args *p, channel_back *w, int64_t b, int64_t t0, int64_t h) {
  channel_work *f = &w->f;
  ahead_begin(&f->ahead);
  note_rows(p, f, &p->dv, b, t0, h, p->V, true);
  note_rows(p, f, &p->dq, b, t0, h, p->K, true);
  note_rows(p, f, &p->dk, b, t0, h, p->K, true);
  note_rows(p, f, &p->dprobe, b, t0, h, p->K, true);
  note_rows(p, f, &p->derase, b, t0, h, p->K, true);
  if (p->by_channel) note_rows(p, f, &p->dlog_a, b, t0, h, p->K, true);
  if (t0 == 0) return;
  note_piece(p, f, b, t0 - PIECE, h);
  note_rows(p, f, &p->o, b, t0 - PIECE, h, p->V, false);
  note_kept(p, f, b, t0 - PIECE, h, false);
}

/* The piece at t0 backwards, from the state W before it; w->dw: the gradient of the state after it, and then of that before it. */
static void piece_backward(const mn_rec_args *p, channel_back *w, int64_t b, int64_t h, int64_t t0, const float *W) {
  channel_work *f = &w->f;
  const int64_t K = p->K, V = p->V, kp = f->kp, vp = f->vp, n = p->T - t0 < PIECE ? p->T - t0 : PIECE;
  const bool delta = p->write == MN_WRITE_DELTA, erase = p->write == MN_WRITE_ERASE;
  const float *const u = f->u, *const z = f->z;
  load_piece(p, f, b, t0, h, n);
  note_backward(p, w, b, t0, h);
  const int64_t np = f->np;
  const float *total = make_triangles(p, f);
  write_piece(p, f, W, f->z);
  rows_in(w->d_o, vp, &p->o, b, t0, h, n, V);
  tile_transpose(w->d_ot, np, w->d_o, vp, n, V, 0);
  tile_transpose(w->yt, np, f->y, vp, n, V, 0);
  if (erase) tile_transpose(w->zt, np, z, vp, n, V, 0);

  /* dY = G_qk^T dO + K' dW and what is solved for: U of DELTA, with du for dU; Z of ERASE, with du for the sum it is minus */
  tile_gemm(n, V, n, f->g[0][0], 1, np, w->d_o, vp, w->dy, vp, TILE_SET, TILE_A_UPPER);
  product(f, n, V, K, f->writer[0].scaled, kp, 1, w->dw, vp, w->dy, vp, TILE_ADD);
  if (delta) solve_rows_back(f->g[1][0], np, n, V, vp, f->beta, w->dy, w->du);
  if (erase) {
    tile_gemm(n, V, n, f->g[0][1], 1, np, w->d_o, vp, w->dz, vp, TILE_SET, TILE_A_UPPER);
    product(f, n, V, K, f->writer[1].scaled, kp, 1, w->dw, vp, w->dz, vp, TILE_ADD);
    solve_rows_back(f->g[1][1], np, n, V, vp, f->ones, w->dz, w->dz);
    tile_gemm(n, V, n, f->g[1][0], 1, np, w->dz, vp, w->dy, vp, TILE_SUB, TILE_A_UPPER);
  }
  for (int64_t m = 0; m < n; m++) w->dbeta[m] = dot(w->dy + m * vp, u + m * vp, vp);
  gates_out(&p->dbeta, b, t0, h, w->dbeta, n);
  if (!delta) scale_rows(w->du, vp, w->dy, vp, f->beta, n);
  rows_out(&p->dv, b, t0, h, w->du, vp, n, V);

  /* the scaled rows: readers from W, writers from dW, triangles from the tokens */
  through_state(p, w, W, w->d_ot, w->d_reader[0]);
  d_triangle(p, w, w->d_o, w->yt, w->dg[0][0]);
  through_state(p, w, w->dw, w->yt, w->d_writer[0]);
  float *minus = delta ? w->du : w->dz; /* the gradient of what the second reader read */
  if (delta || erase) {
    for (int64_t i = 0; i < n * vp; i += MN_VL) vf_store(minus + i, -vf_load(minus + i));
    tile_transpose(w->dut, np, minus, vp, n, V, 0);
    through_state(p, w, W, w->dut, w->d_reader[1]);
    d_triangle(p, w, minus, w->yt, w->dg[1][0]);
  }
  if (erase) {
    d_triangle(p, w, w->d_o, w->zt, w->dg[0][1]);
    d_triangle(p, w, minus, w->zt, w->dg[1][1]);
    through_state(p, w, w->dw, w->zt, w->d_writer[1]);
  }
  int top = 0;
  for (int64_t size = QUAD; size < f->n4; size *= 2) top++;
  zero(w->d_total[top], kp);
  for (int64_t i = 0; i < K; i++) w->d_total[top][i] = total[i] * dot(w->dw + i * vp, W + i * vp, vp);
  product_scaled(f, K, V, n, f->reader[0].scaled, 1, kp, w->d_o, vp, w->dw, vp, total, w->dw);
  if (delta || erase) product(f, K, V, n, f->reader[1].scaled, 1, kp, minus, vp, w->dw, vp, TILE_ADD);

  joins_back(p, w);
  rows_out(&p->dq, b, t0, h, w->d_reader[0], kp, n, K);
  if (delta)
    for (int64_t i = 0; i < n * kp; i += MN_VL) vf_store(w->d_writer[0] + i, vf_load(w->d_writer[0] + i) + vf_load(w->d_reader[1] + i));
  rows_out(&p->dk, b, t0, h, w->d_writer[0], kp, n, K);
  if (erase) {
    rows_out(&p->dprobe, b, t0, h, w->d_reader[1], kp, n, K);
    rows_out(&p->derase, b, t0, h, w->d_writer[1], kp, n, K);
  }
  gates_back(p, w, b, t0, h);
}

/* The state after the whole piece at t0, forward again */
static void piece_again(const mn_rec_args *p, channel_back *w, int64_t b, int64_t h, int64_t t0, const float *W, float *after) {
  channel_work *f = &w->f;
  load_piece(p, f, b, t0, h, PIECE);
  ahead_begin(&f->ahead);
  note_piece(p, f, b, t0 + PIECE, h);
  const float *total = make_triangles(p, f);
  write_piece(p, f, W, f->z);
  advance_channels(p, f, total, W, after, f->z);
}

/* Pieces [first, end) from the last on; the state before the first is kept. */
static void run_backward(const mn_rec_args *p, channel_back *w, int64_t b, int64_t h, int64_t first, int64_t end) {
  const int64_t state = p->K * w->f.vp;
  const mn_rec_tensor kept = kept_at(p, first * PIECE);
  state_in(w->run, w->f.vp, &kept, b, h, p->K, p->V);
  for (int64_t i = first; i + 1 < end; i++)
    piece_again(p, w, b, h, i * PIECE, w->run + (i - first) * state, w->run + (i - first + 1) * state);
  for (int64_t i = end - 1; i >= first; i--) piece_backward(p, w, b, h, i * PIECE, w->run + (i - first) * state);
}

static bool backward(const mn_rec_args *p, int64_t b, int64_t h, int64_t turn, void *across, void *scratch) {
  take s = {scratch, 0}, a = {across, 0};
  channel_back w;
  take_back(&w, &s, &a, p);
  const int64_t pieces = (p->T + PIECE - 1) / PIECE, every = kept_pieces(p), runs = (pieces + every - 1) / every;
  const int64_t least = (TURN + every - 1) / every, end = runs - mn_turn_begin(runs, least, turn),
                first = runs - mn_turn_begin(runs, least, turn + 1);
  if (turn == 0) state_in(w.dw, w.f.vp, &p->w, b, h, p->K, p->V);
  for (int64_t i = end - 1; i >= first; i--) run_backward(p, &w, b, h, i * every, (i + 1) * every < pieces ? (i + 1) * every : pieces);
  if (first > 0) return true;
  state_out(&p->dw0, b, h, w.dw, w.f.vp, p->K, p->V);
  return false;
}

static void sizes(const mn_rec_args *p, size_t *kept, size_t *scratch) {
  take s = {NULL, 0}, k = {NULL, 0};
  channel_back w;
  take_back(&w, &s, &k, p);
  *kept = k.used;
  *scratch = s.used;
}

const mn_recurrence_isa MN_ISA_NAME(mn_recurrence_channel_grad) = {sizes, backward};
