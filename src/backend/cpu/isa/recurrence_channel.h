/* recurrence_channel.h - the linear recurrence with a decay for each key channel, and with erase vectors: what forward and
 * backward share. As in recurrence_piece.h one call does the whole sequence of one (batch, head) in pieces of PIECE tokens.
 *
 * With a_t [K] and P(m,p] = prod_{m<j<=p} a_j, channel by channel, a piece of tokens 1..n that begins with the state W has
 *
 *     W_t = diag(P(0,t]) W + sum_{m<=t} diag(P(m,t]) (k_m y_m^T + e_m z_m^T)          y_m = beta_m u_m
 *     O   = Q' W + G_qk Y + G_qe Z        G_xc[t,m] = sum_i x_t[i] P(m,p][i] c_m[i]   p = t (after) or t - 1 (before), m <= p
 *     U   = V                                                     VALUE, no e
 *     U   = V - K' W - G_kk Y                                     DELTA, no e: solved from the top row down, as a * k read W_{t-1}
 *     U   = V,   Z = -(F' W + G_fk Y + G_fe Z)                    ERASE: f reads before its token; solved likewise
 *
 * where a primed reader x'_t = x_t P(0,p]. A decay inside the sum over channels does not come out of a product, and
 * P(m,p] = P(0,p] / P(0,m] overflows. So no quotient is formed: a pair (m, p) with a boundary c between them has
 * P(m,p] = P(m,c] P(c,p], both factors in [0,1]. The triangle is cut like that over and over:
 *
 *     blocks of 4 tokens: pairs one by one;  then blocks of s = 4, 8, 16, ...: the square of the second block's readers
 *     and the first block's writers is one product, (x_p P(c,p]) (c_m P(m,c]), c the first token of the second block.
 *
 * A reader holds the decays from the start of its block on, a writer those up to the end of its block; when two blocks
 * join, the second's readers are multiplied by the decay of the whole first block and the first's writers by that of the
 * second. At the end the block is the piece: readers are Q', F', K', which read W, and writers are what W_n is made of. Only
 * products of numbers in [0,1]: exact for a = 0, nothing overflows, and in backward no difference of large sums is taken. */
#ifndef MN_CPU_RECURRENCE_CHANNEL_H
#define MN_CPU_RECURRENCE_CHANNEL_H

#include "backend/cpu/chains.h"
#include "backend/cpu/isa/recurrence_ahead.h"
#include "backend/cpu/isa/recurrence_piece.h"
#include "backend/cpu/isa/vecmath.h"
#include "graph/fused_recurrence.h"

enum { TURN = 2 };                                             /* pieces of a turn at least */
enum { QUAD = 4, QUADS = PIECE / QUAD, JOINS = 3, SIDES = 2 }; /* PIECE = QUAD << JOINS */

typedef struct channel_side { /* readers, or writers, of a piece */
  float *x;                   /* [PIECE + 1, kp]: as they are, by token; zero after the last                */
  float *scaled;              /* the same with their decays                                                 */
  float *kept[JOINS];         /* backward: [PIECE, kp] by position, before blocks of QUAD << join were joined */
  int64_t later;              /* 1: the reader of token t stands at position t - 1, the last that it sees   */
} channel_side;

typedef struct channel_work {
  int64_t kp, vp, np, n, n4; /* n tokens, rounded up to quads; np: padded n4 */
  int n_readers, n_writers;  /* q, then k or f; k, then e */
  channel_side reader[SIDES], writer[SIDES];
  float *a;                /* [n4, kp] decays */
  float *total[JOINS + 1]; /* [blocks, kp]: decay of each block of QUAD << join tokens */
  float *g[SIDES][SIDES];  /* [n4 + 1, np] by reader and writer */
  float *beta, *ones;      /* [np] */
  float *u, *y, *z;        /* [n, vp] */
  float *os;               /* [n, vp] */
  float *t;                /* [kp, np]: writers transposed */
  float *w;                /* [K, vp] */
  ahead ahead;             /* rows of the next piece, and of what this one gives */
} channel_work;

TILE_FN void take_side(channel_side *side, take *s, int64_t kp, bool backward) {
  side->x = take_floats(s, (PIECE + 1) * kp);
  side->scaled = take_floats(s, (PIECE + 1) * kp);
  for (int j = 0; j < JOINS; j++) side->kept[j] = backward ? take_floats(s, PIECE * kp) : NULL;
}

/* s: memory of a turn; across: of a sequence, from turn to turn */
TILE_FN void take_channel(channel_work *w, take *s, take *across, const mn_rec_args *p, bool backward) {
  const int64_t kp = tile_pad(p->K), vp = tile_pad(p->V), np = tile_pad(PIECE);
  *w = (channel_work){.kp = kp, .vp = vp, .np = np};
  w->n_readers = p->write == MN_WRITE_VALUE ? 1 : 2;
  w->n_writers = p->write == MN_WRITE_ERASE ? 2 : 1;
  for (int i = 0; i < w->n_readers; i++) take_side(&w->reader[i], s, kp, backward);
  for (int i = 0; i < w->n_writers; i++) take_side(&w->writer[i], s, kp, backward);
  for (int i = 0; i < w->n_readers; i++)
    for (int j = 0; j < w->n_writers; j++) w->g[i][j] = take_floats(s, (PIECE + 1) * np + 2 * TILE_PAD);
  w->reader[0].later = p->read_before ? 1 : 0;
  w->reader[1].later = p->write == MN_WRITE_ERASE ? 1 : 0;
  for (int j = 0; j <= JOINS; j++) w->total[j] = take_floats(s, (QUADS >> j) * kp);
  w->beta = take_floats(s, np);
  w->ones = take_floats(s, np);
  w->u = take_floats(s, PIECE * vp);
  w->y = take_floats(s, PIECE * vp);
  w->z = take_floats(s, p->write == MN_WRITE_ERASE ? PIECE * vp : 0);
  w->os = take_floats(s, PIECE * vp);
  w->t = take_floats(s, kp * np);
  w->w = backward ? NULL : take_floats(p->T > 1 ? across : s, p->K * vp);
  w->a = take_floats(s, (PIECE + QUAD) * kp);
}

/* ---- loading a piece ---- */
/* exp of the logs of token t; a factor that no sum would notice is zero, so that products do not end in denormals */
TILE_FN vf flushed(vf x) { return vf_select(vf_lt(x, vf_set1(1e-30f)), vf_zero(), x); }
TILE_FN void decay_in(const mn_rec_args *p, float *a, int64_t kp, int64_t b, int64_t t, int64_t h) {
  if (!p->decay || !p->by_channel) {
    float x = p->decay ? expf(tile_scalar_in(at(&p->log_a, b, t, h), p->log_a.bf16, 0)) : 1.0f;
    for (int64_t j = 0; j < kp; j += MN_VL) vf_store(a + j, flushed(vf_set1(x)));
    return;
  }
  tile_row_in(a, at(&p->log_a, b, t, h), p->log_a.bf16, p->K);
  for (int64_t j = 0; j < kp; j += MN_VL) vf_store(a + j, flushed(vf_exp(vf_load(a + j))));
}
TILE_FN void decays_in(const mn_rec_args *p, float *a, int64_t kp, int64_t b, int64_t t0, int64_t h, int64_t n, int64_t n4) {
  for (int64_t t = 0; t < n; t++) decay_in(p, a + t * kp, kp, b, t0 + t, h);
  for (int64_t j = n * kp; j < n4 * kp; j += MN_VL) vf_store(a + j, vf_set1(1));
}
TILE_FN void side_in(const mn_rec_args *p, channel_side *side, const channel_work *w, const mn_rec_tensor *t, int64_t b, int64_t t0,
                     int64_t h) {
  rows_in(side->x, w->kp, t, b, t0, h, w->n, p->K);
  zero(side->x + w->n * w->kp, (w->n4 + 1 - w->n) * w->kp);
}

/* The rows of t for the piece at t0 are noted: those of the one that comes next, or that this one will write. */
TILE_FN void note_rows(const mn_rec_args *p, channel_work *w, const mn_rec_tensor *t, int64_t b, int64_t t0, int64_t h, int64_t width,
                       bool written) {
  const int64_t n = p->T - t0 < PIECE ? p->T - t0 : PIECE, size = t->bf16 ? 2 : 4;
  if (t->data && n > 0) ahead_note(&w->ahead, at(t, b, t0, h), size * t->t, size * width, n, written);
}
TILE_FN void note_piece(const mn_rec_args *p, channel_work *w, int64_t b, int64_t t0, int64_t h) {
  note_rows(p, w, &p->k, b, t0, h, p->K, false);
  note_rows(p, w, &p->v, b, t0, h, p->V, false);
  note_rows(p, w, &p->q, b, t0, h, p->K, false);
  if (p->decay && p->by_channel) note_rows(p, w, &p->log_a, b, t0, h, p->K, false);
  if (p->write != MN_WRITE_ERASE) return;
  note_rows(p, w, &p->erase, b, t0, h, p->K, false);
  note_rows(p, w, &p->probe, b, t0, h, p->K, false);
}
/* The states that are kept before the piece at t0, one for each (b, h) */
_Static_assert((int)PIECE == (int)MN_RECURRENCE_PIECE, "states are kept before pieces");
TILE_FN int64_t kept_pieces(const mn_rec_args *p) { return mn_recurrence_every(p->K, p->V) / PIECE; } /* from one to the next */
TILE_FN bool is_kept(const mn_rec_args *p, int64_t t0) { return p->kept.data && t0 / PIECE % kept_pieces(p) == 0; }
TILE_FN mn_rec_tensor kept_at(const mn_rec_args *p, int64_t t0) {
  mn_rec_tensor at = p->kept;
  at.data = (float *)at.data + t0 / (PIECE * kept_pieces(p)) * at.t;
  return at;
}
TILE_FN void note_kept(const mn_rec_args *p, channel_work *w, int64_t b, int64_t t0, int64_t h, bool written) {
  if (!is_kept(p, t0)) return;
  const int64_t size = (int64_t)sizeof(float);
  const mn_rec_tensor kept = kept_at(p, t0);
  ahead_note(&w->ahead, (const float *)kept.data + b * kept.b + h * kept.h, size * kept.r, size * p->V, p->K, written);
}
/* A product between whose rows memory is asked for */
TILE_FN void product(channel_work *w, int64_t M, int64_t N, int64_t K, const float *A, int64_t ra, int64_t ca, const float *B, int64_t ldb,
                     float *C, int64_t ldc, tile_mode mode) {
  for (int64_t i = 0, rows; i < M; i += rows) {
    rows = tile_rows(M - i);
    ahead_ask(&w->ahead);
    tile_gemm(rows, N, K, A + i * ra, ra, ca, B, ldb, C + i * ldc, ldc, mode, TILE_FULL);
  }
}
/* C = diag(x) X + A B; X may be C. Scaled row by row, so that what is not near comes while the product goes on. */
TILE_FN void product_scaled(channel_work *w, int64_t M, int64_t N, int64_t K, const float *A, int64_t ra, int64_t ca, const float *B,
                            int64_t ldb, float *C, int64_t ldc, const float *x, const float *X) {
  for (int64_t i = 0, rows; i < M; i += rows) {
    rows = tile_rows(M - i);
    scale_rows(C + i * ldc, ldc, X + i * ldc, ldc, x + i, rows);
    product(w, rows, N, K, A + i * ra, ra, ca, B, ldb, C + i * ldc, ldc, TILE_ADD);
  }
}
/* The piece of n tokens at t0: decays, readers and writers; v in u. */
TILE_FN void load_piece(const mn_rec_args *p, channel_work *w, int64_t b, int64_t t0, int64_t h, int64_t n) {
  const int64_t kp = w->kp;
  w->n = n;
  w->n4 = (n + QUAD - 1) / QUAD * QUAD;
  w->np = tile_pad(w->n4);
  gates_in(w->beta, &p->beta, b, t0, h, n);
  for (int64_t i = 0; i < n; i++) w->ones[i] = 1;
  side_in(p, &w->writer[0], w, &p->k, b, t0, h);
  if (p->write == MN_WRITE_ERASE) side_in(p, &w->writer[1], w, &p->erase, b, t0, h);
  side_in(p, &w->reader[0], w, &p->q, b, t0, h);
  if (p->write == MN_WRITE_DELTA) copy(w->reader[1].x, w->writer[0].x, (w->n4 + 1) * kp);
  if (p->write == MN_WRITE_ERASE) side_in(p, &w->reader[1], w, &p->probe, b, t0, h);
  rows_in(w->u, w->vp, &p->v, b, t0, h, n, p->V);
  decays_in(p, w->a, kp, b, t0, h, n, w->n4);
}

/* ---- triangles ---- */
/* A reader gets the decays of its quad up to itself, a writer those after it; total: of the whole quad. */
TILE_FN void scale_readers(channel_work *w, channel_side *side) {
  const int64_t kp = w->kp, at0 = side->later * kp;
  if (side->later) copy(side->scaled, side->x, kp);
  for (int64_t i = 0; i < w->n4; i += QUAD) {
    ahead_ask(&w->ahead);
    for (int64_t j = 0; j < kp; j += MN_VL) {
      vf f = vf_set1(1);
      TILE_UNROLL
      for (int64_t p = i; p < i + QUAD; p++) {
        f *= vf_load(w->a + p * kp + j);
        vf_store(side->scaled + at0 + p * kp + j, f * vf_load(side->x + at0 + p * kp + j));
      }
    }
  }
}
TILE_FN void scale_writers(channel_work *w, channel_side *side) {
  const int64_t kp = w->kp;
  for (int64_t i = 0; i < w->n4; i += QUAD) {
    ahead_ask(&w->ahead);
    for (int64_t j = 0; j < kp; j += MN_VL) {
      vf f = vf_set1(1);
      TILE_UNROLL
      for (int64_t m = i + QUAD - 1; m >= i; m--) {
        vf_store(side->scaled + m * kp + j, f * vf_load(side->x + m * kp + j));
        f *= vf_load(w->a + m * kp + j);
      }
    }
  }
}
TILE_FN void quad_totals(const channel_work *w) {
  const int64_t kp = w->kp;
  for (int64_t i = 0; i < w->n4; i += QUAD)
    for (int64_t j = 0; j < kp; j += MN_VL) {
      const float *a = w->a + i * kp + j;
      vf_store(w->total[0] + i / QUAD * kp + j, flushed(vf_load(a) * vf_load(a + kp) * (vf_load(a + 2 * kp) * vf_load(a + 3 * kp))));
    }
}
/* The pairs inside each quad. g: row of position 0. */
TILE_FN void quad_scores(channel_work *w, const float *x, const float *c, float *g) {
  const int64_t kp = w->kp, np = w->np;
  for (int64_t i = 0; i < w->n4; i += QUAD) {
    vf s[QUAD][QUAD] = {{{0}}};
    ahead_ask(&w->ahead);
    for (int64_t j = 0; j < kp; j += MN_VL) {
      vf cs[QUAD], as[QUAD];
      TILE_UNROLL
      for (int m = 0; m < QUAD; m++) cs[m] = vf_load(c + (i + m) * kp + j), as[m] = vf_load(w->a + (i + m) * kp + j);
      TILE_UNROLL
      for (int p = 0; p < QUAD; p++) {
        vf r = vf_load(x + (i + p) * kp + j);
        TILE_UNROLL
        for (int m = p; m >= 0; m--) {
          s[p][m] += r * cs[m];
          r *= as[m];
        }
      }
    }
    TILE_UNROLL
    for (int p = 0; p < QUAD; p++) {
      TILE_UNROLL
      for (int m = 0; m <= p; m++) g[(i + p) * np + i + m] = vf_sum(s[p][m]);
    }
  }
}

TILE_FN void scale_block(float *x, int64_t rows, int64_t kp, const float *by) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < kp; j += MN_VL) vf_store(x + i * kp + j, vf_load(by + j) * vf_load(x + i * kp + j));
}
TILE_FN float *positions(const channel_side *side, float *rows, int64_t width) { return rows + side->later * width; }

/* Two blocks become one: keeps what backward needs of them, then moves their decays on. */
TILE_FN void join(channel_work *w, int join, int64_t i, int64_t size, int64_t second) {
  const int64_t kp = w->kp, mid = i + size;
  const float *t0 = w->total[join] + i / size * kp, *t1 = t0 + kp;
  float *t = w->total[join + 1] + i / (2 * size) * kp;
  ahead_ask(&w->ahead);
  for (int r = 0; r < w->n_readers; r++) {
    float *x = positions(&w->reader[r], w->reader[r].scaled, kp) + mid * kp;
    if (w->reader[r].kept[join]) copy(w->reader[r].kept[join] + mid * kp, x, second * kp);
    scale_block(x, second, kp, t0);
  }
  for (int c = 0; c < w->n_writers; c++) {
    float *x = w->writer[c].scaled + i * kp;
    if (w->writer[c].kept[join]) copy(w->writer[c].kept[join] + i * kp, x, size * kp);
    scale_block(x, size, kp, t1);
  }
  for (int64_t j = 0; j < kp; j += MN_VL) vf_store(t + j, flushed(vf_load(t0 + j) * vf_load(t1 + j)));
}

/* All triangles of the piece; then readers and writers hold the decays from its start and to its end, and the result is
 * the decay of the whole piece [kp]. */
TILE_FN const float *make_triangles(const mn_rec_args *p, channel_work *w) {
  const int64_t kp = w->kp, np = w->np, n4 = w->n4;
  quad_totals(w);
  for (int r = 0; r < w->n_readers; r++) scale_readers(w, &w->reader[r]);
  for (int c = 0; c < w->n_writers; c++) scale_writers(w, &w->writer[c]);
  for (int r = 0; r < w->n_readers; r++)
    for (int c = 0; c < w->n_writers; c++) {
      zero(w->g[r][c], (n4 + 1) * np + TILE_PAD);
      quad_scores(w, positions(&w->reader[r], w->reader[r].x, kp), w->writer[c].x, positions(&w->reader[r], w->g[r][c], np));
    }
  int j = 0;
  for (int64_t size = QUAD; size < n4; size *= 2, j++)
    for (int64_t i = 0; i < n4; i += 2 * size) {
      if (i + size >= n4) { /* the last block stays alone */
        copy(w->total[j + 1] + i / (2 * size) * kp, w->total[j] + i / size * kp, kp);
        continue;
      }
      const int64_t mid = i + size, second = n4 - mid < size ? n4 - mid : size, ld = tile_pad(size);
      for (int c = 0; c < w->n_writers; c++) {
        tile_transpose(w->t, ld, w->writer[c].scaled + i * kp, kp, size, p->K, 0);
        for (int r = 0; r < w->n_readers; r++)
          product(w, second, size, p->K, positions(&w->reader[r], w->reader[r].scaled, kp) + mid * kp, kp, 1, w->t, ld,
                  positions(&w->reader[r], w->g[r][c], np) + mid * np + i, np, TILE_ADD);
      }
      join(w, j, i, size, second);
    }
  return w->total[j];
}

/* ---- what is written ---- u holds v, then u; y and, with ERASE, z are what the writers write. */
TILE_FN void write_piece(const mn_rec_args *p, channel_work *w, const float *W, float *z) {
  const int64_t n = w->n, kp = w->kp, vp = w->vp, np = w->np;
  if (p->write == MN_WRITE_DELTA) {
    product(w, n, p->V, p->K, w->reader[1].scaled, kp, 1, W, vp, w->u, vp, TILE_SUB);
    solve_rows(w->g[1][0], np, n, p->V, vp, w->beta, w->u, w->y);
    return;
  }
  scale_rows(w->y, vp, w->u, vp, w->beta, n);
  if (p->write != MN_WRITE_ERASE) return;
  zero(z, n * vp);
  product(w, n, p->V, p->K, w->reader[1].scaled, kp, 1, W, vp, z, vp, TILE_SUB);
  tile_gemm(n, p->V, n, w->g[1][0], np, 1, w->y, vp, z, vp, TILE_SUB, TILE_A_LOWER);
  solve_rows(w->g[1][1], np, n, p->V, vp, w->ones, z, z);
}

/* W1 = the state at the piece's end from that at its start; may be in place. total: the piece's decay. */
TILE_FN void advance_channels(const mn_rec_args *p, channel_work *w, const float *total, const float *W, float *W1, const float *z) {
  const int64_t vp = w->vp, kp = w->kp;
  product_scaled(w, p->K, p->V, w->n, w->writer[0].scaled, 1, kp, w->y, vp, W1, vp, total, W);
  if (p->write == MN_WRITE_ERASE) product(w, p->K, p->V, w->n, w->writer[1].scaled, 1, kp, z, vp, W1, vp, TILE_ADD);
}

#endif
