/* fast_muon.c - a fast memory that moves by its momentum made orthogonal (Muon, as in ATLAS). Tokens gather S and fade W,
 *     S_t = eta_t S_{t-1} - theta_t g_t      M_t = (1 - alpha_t) M_{t-1}
 * and every `period`-th token of the stream adds rate_t NS(S_t) to M_t, NS of each matrix, and of gamma as a matrix of one row.
 * The gradients of a chunk are all at its anchor, so they are taken at once, and only periods follow one another. */
#include "graph/orthogonal.h"
#include "graph/scan_over.h"
#include "nn/fast_block.h"
#include "nn/layers.h"

int64_t mn_fast_period(const mn_fast_config *c) { return c->period ? c->period : c->chunk; }

/* ---- the step ---- */
static mn_tensor *direction(mn_graph *g, const mn_fast_config *c, int part, mn_tensor *S) { /* NS(S) */
  if (!c->steps) return S;
  if (mn_fast_is_matrix(c, part)) return mn_orthogonal(g, S, c->steps);
  return mn_squeeze(g, mn_orthogonal(g, mn_unsqueeze(g, S, 2), c->steps), 2);
}
static mn_fast_state stepped(mn_graph *g, const mn_fast_config *c, mn_fast_state s, mn_tensor *rate) { /* rate [B,H] */
  for (int p = 0; p < mn_fast_parts(c); p++)
    s.W[p] = mn_add(g, s.W[p], mn_mul(g, mn_fast_beside(g, c, p, rate), direction(g, c, p, s.S[p])));
  return s;
}

/* ---- tokens between two steps ---- */
typedef struct faded { /* a_t W of every token */
  const mn_fast_config *c;
  const mn_fast_state *start;
  mn_tensor *a; /* [B,H,n,1] */
} faded;
static mn_tensor *faded_product(mn_graph *g, const void *ctx, int l, mn_tensor *r) {
  const faded *f = ctx;
  return mn_mul(g, f->a, mn_matmul(g, r, f->start->W[l]));
}
static mn_tensor *faded_gamma(mn_graph *g, const void *ctx) {
  const faded *f = ctx;
  return mn_mul(g, f->a, mn_unsqueeze(g, f->start->W[mn_fast_parts(f->c) - 1], 2));
}

/* The state after the tokens under the mask, and what each reads. */
static mn_fast_written gathered(mn_graph *g, const mn_fast_config *c, mn_fast_state s, const mn_fast_gradients *grad,
                                const mn_fast_tokens *t, mn_tensor *mask) {
  const mn_fast_decays d = mn_fast_decays_of(g, c, t, mask);
  const faded now = {c, &s, d.a};
  mn_fast_written out = {.y = mn_fast_answer(g, c, (mn_fast_weights){faded_product, faded_gamma, &now}, t->q), .state = s};
  for (int p = 0; p < mn_fast_parts(c); p++) {
    out.state.W[p] = mn_mul(g, mn_fast_beside(g, c, p, d.a_end), s.W[p]);
    out.state.S[p] = mn_sub(g, mn_mul(g, mn_fast_beside(g, c, p, d.E_end), s.S[p]), mn_fast_weighted(g, c, grad, p, d.R_end));
  }
  return out;
}

/* ---- a block that begins a chunk ---- */
/* Tokens [start, start + n) of t, their pairs and gradients. */
static mn_tensor *rows(mn_graph *g, mn_tensor *x, int64_t start, int64_t n) { return mn_slice(g, x, 2, start, n); }
static mn_fast_tokens tokens_at(mn_graph *g, const mn_fast_tokens *t, int64_t start, int64_t n) {
  return (mn_fast_tokens){.q = rows(g, t->q, start, n),
                          .theta = rows(g, t->theta, start, n),
                          .momentum = rows(g, t->momentum, start, n),
                          .decay = rows(g, t->decay, start, n),
                          .rate = rows(g, t->rate, start, n),
                          .window = rows(g, t->window, start, n)};
}
static mn_fast_gradients gradients_at(mn_graph *g, const mn_fast_config *c, const mn_fast_gradients *all, int64_t start, int64_t n) {
  mn_fast_gradients out = {0};
  for (int p = 0; p < mn_fast_parts(c); p++) {
    out.x[p] = rows(g, all->x[p], start, n + mn_fast_past(c));
    out.delta[p] = rows(g, all->delta[p], start, n + mn_fast_past(c));
  }
  return out;
}

/* n tokens after a step: a period, which ends in one, or less. */
static mn_fast_written period_of(mn_graph *g, const mn_fast_config *c, mn_fast_state s, const mn_fast_gradients *all,
                                 const mn_fast_tokens *t, int64_t start, int64_t n) {
  const mn_fast_tokens some = tokens_at(g, t, start, n);
  const mn_fast_gradients grad = gradients_at(g, c, all, start, n);
  mn_fast_written out = gathered(g, c, s, &grad, &some, NULL);
  if (n < mn_fast_period(c)) return out;
  out.state = stepped(g, c, out.state, mn_squeeze(g, rows(g, some.rate, n - 1, 1), 2));
  if (c->read == MN_FAST_BEFORE) return out;
  mn_tensor *last = mn_fast_read(g, c, out.state.W, rows(g, t->q, start + n - 1, 1));
  out.y = n == 1 ? last : mn_concat(g, 2, (mn_tensor *[]){rows(g, out.y, 0, n - 1), last}, 2);
  return out;
}

static mn_fast_written from_the_start(mn_graph *g, const mn_fast_config *c, mn_fast_state s, const mn_fast_tokens *t) {
  const int64_t n = mn_dim(t->q, 2), period = mn_fast_period(c);
  const mn_fast_gradients grad = mn_fast_gradient(g, c, s.W, t->k, t->v);
  mn_fast_written out = {.state = s};
  for (int64_t start = 0; start < n; start += period) { /* at most chunk / period of them, whatever T */
    const mn_fast_written part = period_of(g, c, out.state, &grad, t, start, n - start < period ? n - start : period);
    out.y = out.y ? mn_concat(g, 2, (mn_tensor *[]){out.y, part.y}, 2) : part.y;
    out.state = part.state;
  }
  out.loss = rows(g, grad.loss, mn_fast_past(c), n);
  mn_fast_copy(c, out.state.A, n == c->chunk ? out.state.W : s.W);
  return out;
}

/* ---- a block that begins anywhere: at most one period long, so that one step at most lies in it ---- */
static void step_in_loop(mn_graph *g, const void *ctx, mn_tensor **carry, mn_tensor *const *x, mn_tensor **y) {
  (void)y;
  mn_fast_state s = {0};
  for (int p = 0; p < mn_fast_parts(ctx); p++) s.W[p] = carry[p], s.S[p] = x[1 + p];
  s = stepped(g, ctx, s, x[0]);
  for (int p = 0; p < mn_fast_parts(ctx); p++) carry[p] = s.W[p];
}
/* W where no row has reached its step, else W + rate NS(S): what nobody needs costs nothing. */
static mn_fast_state stepped_if_any(mn_graph *g, const mn_fast_config *c, mn_fast_state s, mn_tensor *rate, mn_tensor *reaches) {
  mn_tensor *x[1 + MN_FAST_PARTS] = {mn_unsqueeze(g, rate, 0)}, *W[MN_FAST_PARTS];
  for (int p = 0; p < mn_fast_parts(c); p++) x[1 + p] = mn_unsqueeze(g, s.S[p], 0), W[p] = s.W[p];
  mn_tensor *any = mn_reshape(g, mn_max(g, mn_cast(g, reaches, MN_I32), MN_AXIS(0)), (mn_shape){.ndim = 0});
  mn_scan_over(g, &(mn_loop_over){.steps = 1,
                                  .f = step_in_loop,
                                  .ctx = c,
                                  .live = any,
                                  .n_carry = mn_fast_parts(c),
                                  .carry = W,
                                  .n_xs = 1 + mn_fast_parts(c),
                                  .xs = x});
  mn_fast_copy(c, s.W, W);
  return s;
}

/* rate of the token before the boundary, [B,H] */
static mn_tensor *rate_at(mn_graph *g, const mn_fast_tokens *t, const mn_fast_halves *h) {
  const int64_t B = mn_dim(t->rate, 0), n = mn_dim(t->rate, 2);
  mn_tensor *last = mn_eq(g, mn_iota(g, MN_I32, MN_SHAPE(1, 1, n), 2), mn_reshape(g, mn_add_scalar(g, h->left, -1), MN_SHAPE(B, 1, 1)));
  return mn_squeeze(g, mn_sum(g, mn_fast_masked(g, last, t->rate), MN_AXIS(2)), 2);
}

mn_fast_written mn_fast_by_orthogonal(mn_graph *g, const mn_fast_config *c, mn_fast_state s, const mn_fast_tokens *t) {
  if (!t->phase) return from_the_start(g, c, s, t);
  const int64_t n = mn_dim(t->q, 2), period = mn_fast_period(c);
  mn_tensor *since = mn_mod(g, t->phase, mn_scalar(g, MN_I32, (double)period)); /* tokens since the last step */
  const mn_fast_halves h = mn_fast_halves_of(g, c, t, since, period);
  const mn_fast_gradients grad = mn_fast_gradient(g, c, s.A, t->k, t->v);
  mn_fast_written first = gathered(g, c, s, &grad, t, n == 1 && !t->live ? NULL : h.first);
  const mn_fast_state after = stepped_if_any(g, c, first.state, rate_at(g, t, &h), h.reaches);
  mn_fast_state between = first.state;
  mn_fast_choose(g, c, h.reaches, after.W, first.state.W, between.W);
  /* the step is a chunk's end, too */
  mn_tensor *ends = mn_le(g, mn_scalar(g, MN_I32, (double)c->chunk), mn_add(g, t->phase, h.left));
  mn_fast_choose(g, c, mn_and(g, h.reaches, ends), between.W, s.A, between.A);
  mn_tensor *loss = rows(g, grad.loss, mn_fast_past(c), n), *old = first.y, *new = mn_fast_read(g, c, between.W, t->q);
  mn_tensor *updated = mn_unsqueeze(g, h.updated, 3);
  if (n == 1) return (mn_fast_written){mn_select(g, updated, old, new), loss, between};
  const mn_fast_gradients grad2 = mn_fast_gradient(g, c, between.A, t->k, t->v);
  mn_fast_written second = gathered(g, c, between, &grad2, t, h.second);
  /* the token that steps reads what the step left, those after it what has faded since */
  second.y = mn_select(g, updated, old, mn_select(g, mn_unsqueeze(g, h.first, 3), new, second.y));
  second.loss = mn_select(g, h.first, loss, rows(g, grad2.loss, mn_fast_past(c), n));
  return second;
}
