/* fast_step.c - a fast memory that moves at every token, a block in products. With W, S the weights at the start and the decays of
 * fast_block.h,
 *     x_l(i), delta_l(i): forward and backward of pair i at the anchor; its gradient of W_l is x_l(i)^T delta_l(i)
 *     r W_l(t) = a_t r W_l + b_t r S_l - sum_i P[t,i] (r . x_l(i)) delta_l(i)            reading without forming W_l(t)
 *     W_l <- a_n W_l + b_n S_l - X_l^T (P[n,:] * Delta_l)      S_l <- E_n S_l - X_l^T (R[n,:] * Delta_l) */
#include "graph/fused_masked_product.h"
#include "nn/fast_block.h"

/* ---- reading ---- */
typedef struct token_weights { /* W(t) of every token, never formed */
  const mn_fast_config *c;
  const mn_fast_state *start;
  const mn_fast_gradients *grad;
  const mn_fast_decays *d;
} token_weights;

static mn_tensor *token_product(mn_graph *g, const void *ctx, int l, mn_tensor *r) {
  const token_weights *w = ctx;
  mn_tensor *z = mn_mul(g, w->d->a, mn_matmul(g, r, w->start->W[l]));
  if (w->d->b) z = mn_add(g, z, mn_mul(g, w->d->b, mn_matmul(g, r, w->start->S[l])));
  return mn_sub(g, z, mn_masked_product(g, r, w->grad->x[l], w->d->P, w->grad->delta[l]));
}
static mn_tensor *token_gamma(mn_graph *g, const void *ctx) {
  const token_weights *w = ctx;
  const int part = mn_fast_parts(w->c) - 1;
  mn_tensor *gamma = mn_mul(g, w->d->a, mn_unsqueeze(g, w->start->W[part], 2));
  if (w->d->b) gamma = mn_add(g, gamma, mn_mul(g, w->d->b, mn_unsqueeze(g, w->start->S[part], 2)));
  return mn_sub(g, gamma, mn_matmul(g, w->d->P, w->grad->delta[part]));
}

/* ---- writing ---- */
static mn_tensor *scaled(mn_graph *g, const mn_fast_config *c, int part, mn_tensor *by, mn_tensor *x) {
  return by ? mn_mul(g, mn_fast_beside(g, c, part, by), x) : x;
}
/* The state after the last token. */
static mn_fast_state moved(mn_graph *g, const mn_fast_config *c, mn_fast_state s, const mn_fast_gradients *grad, const mn_fast_decays *d) {
  mn_fast_state after = s;
  for (int p = 0; p < mn_fast_parts(c); p++) {
    mn_tensor *step = mn_fast_weighted(g, c, grad, p, d->P_end), *W = scaled(g, c, p, d->a_end, s.W[p]);
    if (c->momentum) W = mn_add(g, W, scaled(g, c, p, d->b_end, s.S[p]));
    after.W[p] = mn_sub(g, W, step);
    if (!c->momentum) continue;
    if (d->R_end != d->P_end) step = mn_fast_weighted(g, c, grad, p, d->R_end);
    after.S[p] = mn_sub(g, scaled(g, c, p, d->E_end, s.S[p]), step);
  }
  return after;
}

static mn_tensor *own_losses(mn_graph *g, const mn_fast_config *c, const mn_fast_tokens *t, mn_tensor *loss) { /* [B,H,N] -> [B,H,n] */
  return mn_fast_past(c) ? mn_slice(g, loss, 2, mn_fast_past(c), mn_dim(t->q, 2)) : loss;
}

/* W and S move on by the tokens under the mask (NULL: all), with gradients at the anchor. */
static mn_fast_written write_tokens(mn_graph *g, const mn_fast_config *c, mn_fast_state s, mn_tensor *const *anchor,
                                    const mn_fast_tokens *t, mn_tensor *mask) {
  const mn_fast_gradients grad = mn_fast_gradient(g, c, anchor, t->k, t->v);
  const mn_fast_decays d = mn_fast_decays_of(g, c, t, mask);
  const token_weights of_tokens = {c, &s, &grad, &d};
  return (mn_fast_written){.y = mn_fast_answer(g, c, (mn_fast_weights){token_product, token_gamma, &of_tokens}, t->q),
                           .loss = own_losses(g, c, t, grad.loss),
                           .state = moved(g, c, s, &grad, &d)};
}

/* One token: the same numbers without triangles, and a memory that is there to be read. */
static mn_fast_written write_one(mn_graph *g, const mn_fast_config *c, mn_fast_state s, mn_tensor *const *anchor, const mn_fast_tokens *t) {
  const mn_fast_gradients grad = mn_fast_gradient(g, c, anchor, t->k, t->v);
  mn_tensor *sizes = mn_fast_step_sizes(g, c, t, NULL);
  mn_fast_decays d = {.P_end = mn_fast_past(c) ? mn_transpose(g, sizes, 2, 3) : sizes};
  d.R_end = d.P_end;
  if (t->decay) d.a_end = mn_unsqueeze(g, mn_exp(g, t->decay), 3);
  if (t->momentum) d.b_end = d.E_end = mn_unsqueeze(g, mn_exp(g, t->momentum), 3);
  const mn_fast_state after = moved(g, c, s, &grad, &d);
  return (mn_fast_written){
      .y = mn_fast_read(g, c, c->read == MN_FAST_BEFORE ? s.W : after.W, t->q), .loss = own_losses(g, c, t, grad.loss), .state = after};
}

static mn_fast_written inside_a_chunk(mn_graph *g, const mn_fast_config *c, mn_fast_state s, mn_tensor *const *anchor,
                                      const mn_fast_tokens *t, mn_tensor *mask) {
  return mn_dim(t->q, 2) == 1 && !mask ? write_one(g, c, s, anchor, t) : write_tokens(g, c, s, anchor, t, mask);
}

mn_fast_written mn_fast_by_token(mn_graph *g, const mn_fast_config *c, mn_fast_state s, const mn_fast_tokens *t) {
  const int64_t n = mn_dim(t->q, 2);
  if (!t->phase) {
    mn_fast_written out = inside_a_chunk(g, c, s, s.W, t, NULL);
    mn_fast_copy(c, out.state.A, n == c->chunk ? out.state.W : s.W);
    return out;
  }
  const mn_fast_halves h = mn_fast_halves_of(g, c, t, t->phase, c->chunk);
  const bool whole = n == 1 && !t->live;
  mn_fast_written first = inside_a_chunk(g, c, s, s.A, t, whole ? NULL : h.first);
  mn_fast_choose(g, c, h.reaches, first.state.W, s.A, first.state.A);
  if (n == 1) return first;
  mn_fast_written second = inside_a_chunk(g, c, first.state, first.state.W, t, h.second);
  second.y = mn_select(g, mn_unsqueeze(g, h.first, 3), first.y, second.y);
  second.loss = mn_select(g, h.first, first.loss, second.loss);
  return second;
}
