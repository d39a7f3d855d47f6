/* fast_gather.c - a fast memory that moves once a chunk. G is the sum of -theta_i grad_i over the chunk's tokens, eta and alpha are the
 * sigmoids of their arguments' means, and after the last token
 *     S <- eta S + G      W <- (1 - alpha) W + S
 * Within the chunk every token reads W as it was at the start, but the last one, which reads after its own write. */
#include "nn/fast_block.h"
#include "nn/layers.h"

static mn_tensor *total(mn_graph *g, mn_tensor *mask, mn_tensor *x) { /* over the tokens under the mask: [B,H,n] -> [B,H] */
  return x ? mn_squeeze(g, mn_sum(g, mn_fast_masked(g, mask, x), MN_AXIS(2)), 2) : NULL;
}

/* What the tokens under the mask (NULL: all) add to G and to the gates' sums, in the state's places; *loss of each. */
static mn_fast_state gathered(mn_graph *g, const mn_fast_config *c, mn_tensor *const *at, const mn_fast_tokens *t, mn_tensor *mask,
                              mn_tensor **loss) {
  const mn_fast_gradients grad = mn_fast_gradient(g, c, at, t->k, t->v);
  mn_tensor *sizes = mn_neg(g, mn_fast_step_sizes(g, c, t, mask)); /* [B,H,n,N], or [B,H,n,1] of a diagonal */
  if (mn_fast_past(c)) sizes = mn_transpose(g, mn_sum(g, sizes, MN_AXIS(2)), 2, 3);
  mn_fast_state sum = {.momentum_sum = total(g, mask, t->momentum), .decay_sum = total(g, mask, t->decay)};
  for (int p = 0; p < mn_fast_parts(c); p++) sum.G[p] = mn_fast_weighted(g, c, &grad, p, sizes);
  *loss = mn_fast_past(c) ? mn_slice(g, grad.loss, 2, mn_fast_past(c), mn_dim(t->q, 2)) : grad.loss;
  return sum;
}

static mn_tensor *plus(mn_graph *g, mn_tensor *a, mn_tensor *b) { return a ? mn_add(g, a, b) : NULL; }
static mn_fast_state with_sums(mn_graph *g, const mn_fast_config *c, mn_fast_state s, const mn_fast_state *more) {
  for (int p = 0; p < mn_fast_parts(c); p++) s.G[p] = mn_add(g, s.G[p], more->G[p]);
  s.momentum_sum = plus(g, s.momentum_sum, more->momentum_sum);
  s.decay_sum = plus(g, s.decay_sum, more->decay_sum);
  return s;
}

/* The step that ends a chunk, with the sums given. */
static mn_fast_state closed(mn_graph *g, const mn_fast_config *c, mn_fast_state s, const mn_fast_state *sums) {
  const double per = 1 / (double)c->chunk;
  mn_tensor *eta = c->momentum ? mn_sigmoid(g, mn_mul_scalar(g, sums->momentum_sum, per)) : NULL;
  mn_tensor *keep = c->decay ? mn_sigmoid(g, mn_mul_scalar(g, sums->decay_sum, -per)) : NULL; /* 1 - alpha */
  for (int p = 0; p < mn_fast_parts(c); p++) {
    mn_tensor *S = eta ? mn_add(g, mn_mul(g, mn_fast_beside(g, c, p, eta), s.S[p]), sums->G[p]) : sums->G[p];
    if (c->momentum) s.S[p] = S;
    s.W[p] = mn_add(g, keep ? mn_mul(g, mn_fast_beside(g, c, p, keep), s.W[p]) : s.W[p], S);
  }
  return s;
}

/* zero where the condition [B] holds; everywhere: NULL */
static mn_tensor *emptied(mn_graph *g, mn_tensor *where, mn_tensor *x) {
  if (!x) return NULL;
  const mn_shape wide = {.ndim = x->shape.ndim, .dim = {mn_dim(x, 0), 1, 1, 1}};
  return where ? mn_select(g, mn_reshape(g, where, wide), mn_zeros_like(g, x), x) : mn_zeros_like(g, x);
}
static mn_fast_state without_sums(mn_graph *g, const mn_fast_config *c, mn_fast_state s, mn_tensor *where) {
  for (int p = 0; p < mn_fast_parts(c); p++) s.G[p] = emptied(g, where, s.G[p]);
  s.momentum_sum = emptied(g, where, s.momentum_sum);
  s.decay_sum = emptied(g, where, s.decay_sum);
  return s;
}

/* A block that begins a chunk. */
static mn_fast_written from_the_start(mn_graph *g, const mn_fast_config *c, mn_fast_state s, const mn_fast_tokens *t) {
  const int64_t n = mn_dim(t->q, 2);
  mn_fast_written out = {.state = s};
  const mn_fast_state sums = gathered(g, c, s.W, t, NULL, &out.loss);
  if (n < c->chunk) {
    mn_fast_copy(c, out.state.G, sums.G);
    out.state.momentum_sum = sums.momentum_sum;
    out.state.decay_sum = sums.decay_sum;
    out.y = mn_fast_read(g, c, s.W, t->q);
    return out;
  }
  out.state = without_sums(g, c, closed(g, c, s, &sums), NULL);
  if (c->read == MN_FAST_BEFORE) {
    out.y = mn_fast_read(g, c, s.W, t->q);
    return out;
  }
  mn_tensor *last = mn_fast_read(g, c, out.state.W, mn_slice(g, t->q, 2, n - 1, 1));
  out.y = n == 1 ? last : mn_concat(g, 2, (mn_tensor *[]){mn_fast_read(g, c, s.W, mn_slice(g, t->q, 2, 0, n - 1)), last}, 2);
  return out;
}

mn_fast_written mn_fast_by_chunk(mn_graph *g, const mn_fast_config *c, mn_fast_state s, const mn_fast_tokens *t) {
  if (!t->phase) return from_the_start(g, c, s, t);
  const int64_t n = mn_dim(t->q, 2);
  const mn_fast_halves h = mn_fast_halves_of(g, c, t, t->phase, c->chunk);
  mn_tensor *loss, *loss2;
  const mn_fast_state more = gathered(g, c, s.W, t, n == 1 && !t->live ? NULL : h.first, &loss), full = with_sums(g, c, s, &more);
  const mn_fast_state after = closed(g, c, full, &full);
  mn_fast_state between = full;
  mn_fast_choose(g, c, h.reaches, after.W, s.W, between.W);
  if (c->momentum) mn_fast_choose(g, c, h.reaches, after.S, s.S, between.S);
  between = without_sums(g, c, between, h.reaches);
  if (n == 1) return (mn_fast_written){mn_fast_read(g, c, c->read == MN_FAST_BEFORE ? s.W : between.W, t->q), loss, between};
  const mn_fast_state rest = gathered(g, c, between.W, t, h.second, &loss2);
  mn_tensor *old = mn_fast_read(g, c, s.W, t->q), *new = mn_fast_read(g, c, between.W, t->q);
  return (mn_fast_written){mn_select(g, mn_unsqueeze(g, h.updated, 3), old, new), mn_select(g, h.first, loss, loss2),
                           with_sums(g, c, between, &rest)};
}
