/* fast_block.c - see fast_block.h. */
#include "nn/fast_block.h"

/* ---- lists of parts ---- */
mn_tensor *mn_fast_beside(mn_graph *g, const mn_fast_config *c, int part, mn_tensor *x) {
  const int64_t B = mn_dim(x, 0), H = mn_ndim(x) > 1 ? mn_dim(x, 1) : 1;
  return mn_reshape(g, x, mn_fast_is_matrix(c, part) ? MN_SHAPE(B, H, 1, 1) : MN_SHAPE(B, H, 1));
}
void mn_fast_choose(mn_graph *g, const mn_fast_config *c, mn_tensor *condition, mn_tensor *const *yes, mn_tensor *const *no,
                    mn_tensor **to) {
  for (int p = 0; p < mn_fast_parts(c); p++) to[p] = mn_select(g, mn_fast_beside(g, c, p, condition), yes[p], no[p]);
}
void mn_fast_copy(const mn_fast_config *c, mn_tensor **to, mn_tensor *const *from) {
  for (int p = 0; p < mn_fast_parts(c); p++) to[p] = from[p];
}

/* ---- two halves ---- */
mn_fast_halves mn_fast_halves_of(mn_graph *g, const mn_fast_config *c, const mn_fast_tokens *t, mn_tensor *phase, int64_t period) {
  const int64_t B = mn_dim(phase, 0), n = mn_dim(t->q, 2);
  mn_fast_halves h = {.left = mn_sub(g, mn_scalar(g, MN_I32, (double)period), phase)};
  mn_tensor *i = mn_iota(g, MN_I32, MN_SHAPE(1, 1, n), 2), *cut = mn_reshape(g, h.left, MN_SHAPE(B, 1, 1));
  h.first = mn_lt(g, i, cut);
  h.second = mn_not(g, h.first);
  h.updated = mn_lt(g, i, c->read == MN_FAST_BEFORE ? cut : mn_add_scalar(g, cut, -1));
  h.reaches = mn_le(g, h.left, t->live ? t->live : mn_scalar(g, MN_I32, (double)n));
  if (t->live) {
    mn_tensor *counts = mn_lt(g, i, mn_reshape(g, t->live, MN_SHAPE(B, 1, 1)));
    h.first = mn_and(g, h.first, counts);
    h.second = mn_and(g, h.second, counts);
  }
  return h;
}

mn_tensor *mn_fast_masked(mn_graph *g, mn_tensor *mask, mn_tensor *x) { return mask && x ? mn_select(g, mask, x, mn_zeros_like(g, x)) : x; }

/* ---- decays ---- */
/* exp of differences of a running sum of logs [B,H,n] in the lower triangle: [B,H,n,n] */
static mn_tensor *products_between(mn_graph *g, mn_tensor *sum) {
  const int64_t n = mn_dim(sum, 2);
  mn_tensor *t = mn_iota(g, MN_I32, MN_SHAPE(n, 1), 0), *m = mn_iota(g, MN_I32, MN_SHAPE(1, n), 1);
  mn_tensor *d = mn_sub(g, mn_unsqueeze(g, sum, 3), mn_unsqueeze(g, sum, 2));
  return mn_exp(g, mn_select(g, mn_le(g, m, t), d, mn_scalar(g, mn_type(sum), -1e30)));
}

static mn_tensor *running_sum(mn_graph *g, mn_tensor *x) { /* over the tokens of [B,H,n] */
  return mn_cumsum(g, x, 2, MN_FORWARD);
}
static mn_tensor *last_row(mn_graph *g, mn_tensor *x) { /* of [B,H,n,m]: [B,H,1,m] */
  return mn_slice(g, x, 2, mn_dim(x, 2) - 1, 1);
}
static mn_tensor *last_row_as_column(mn_graph *g, mn_tensor *x) { return mn_transpose(g, last_row(g, x), 2, 3); }
static mn_tensor *one_later(mn_graph *g, mn_tensor *x) { /* row t becomes row t - 1's; zeros come in */
  return mn_pad(g, mn_slice(g, x, 2, 0, mn_dim(x, 2) - 1), 2, 1, 0);
}

/* Rows of a window stand where their pairs do: [B,H,n,c] -> [B,H,n,n+c-1], row t from column t on. Rows one longer than that, read as if
 * they were not, move on by one column each. */
static mn_tensor *band(mn_graph *g, mn_tensor *rows) {
  const int64_t B = mn_dim(rows, 0), H = mn_dim(rows, 1), n = mn_dim(rows, 2), window = mn_dim(rows, 3), N = n + window - 1;
  mn_tensor *longer = mn_reshape(g, mn_pad(g, rows, 3, 0, n), MN_SHAPE(B, H, n * (N + 1)));
  return mn_reshape(g, mn_slice(g, longer, 2, 0, n * N), MN_SHAPE(B, H, n, N));
}

/* theta_t gamma(t,i) of the tokens under the mask, where no triangle stands between: the window's band. */
static mn_tensor *windowed(mn_graph *g, const mn_fast_tokens *t, mn_tensor *theta) {
  return band(g, mn_mul(g, t->window, mn_unsqueeze(g, theta, 3)));
}
mn_tensor *mn_fast_step_sizes(mn_graph *g, const mn_fast_config *c, const mn_fast_tokens *t, mn_tensor *mask) {
  mn_tensor *theta = mn_fast_masked(g, mask, t->theta);
  return mn_fast_past(c) ? windowed(g, t, theta) : mn_unsqueeze(g, theta, 3);
}
/* L G for a triangle L [B,H,n,n]; without a window G is a diagonal. */
static mn_tensor *spread_by(mn_graph *g, const mn_fast_config *c, const mn_fast_tokens *t, mn_tensor *theta, mn_tensor *L) {
  if (mn_fast_past(c)) return mn_matmul(g, L, windowed(g, t, theta));
  return mn_mul(g, L, mn_unsqueeze(g, theta, 2));
}

mn_fast_decays mn_fast_decays_of(mn_graph *g, const mn_fast_config *c, const mn_fast_tokens *t, mn_tensor *mask) {
  mn_fast_decays d = {0};
  mn_tensor *theta = mn_fast_masked(g, mask, t->theta);
  mn_tensor *log_a = t->decay ? mn_fast_masked(g, mask, t->decay) : mn_zeros_like(g, t->theta);
  mn_tensor *sum_a = running_sum(g, log_a), *La = products_between(g, sum_a);
  if (mask) La = mn_mul(g, La, mn_unsqueeze(g, mn_cast(g, mask, mn_type(t->q)), 2)); /* columns of masked tokens */
  d.a = mn_unsqueeze(g, mn_exp(g, sum_a), 3);
  d.a_end = last_row(g, d.a);
  if (t->momentum) {
    mn_tensor *sum_e = running_sum(g, mn_fast_masked(g, mask, t->momentum)), *E = mn_unsqueeze(g, mn_exp(g, sum_e), 3);
    mn_tensor *R = spread_by(g, c, t, theta, products_between(g, sum_e));
    d.P = mn_matmul(g, La, R);
    d.b = mn_matmul(g, La, E);
    d.b_end = last_row(g, d.b);
    d.E_end = last_row(g, E);
    d.R_end = last_row_as_column(g, R);
  } else d.P = spread_by(g, c, t, theta, La);
  d.P_end = last_row_as_column(g, d.P);
  if (c->read == MN_FAST_BEFORE) { /* token t reads what token t - 1 left */
    d.a = mn_unsqueeze(g, mn_exp(g, mn_sub(g, sum_a, log_a)), 3);
    d.b = one_later(g, d.b);
    d.P = one_later(g, d.P);
  }
  return d;
}
