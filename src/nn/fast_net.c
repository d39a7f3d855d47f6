/* fast_net.c - the network that is a fast memory: what it answers, and its gradient at fixed weights, a factor for each token. */
#include "nn/fast_net.h"

static const double norm_eps = 1e-6; /* of the memory's LayerNorm */

static mn_tensor *normal_cdf(mn_graph *g, mn_tensor *z) {
  return mn_mul_scalar(g, mn_add_scalar(g, mn_erf(g, mn_mul_scalar(g, z, 0.70710678118654752440)), 1), 0.5);
}
mn_tensor *mn_fast_gelu(mn_graph *g, mn_tensor *z) { return mn_mul(g, z, normal_cdf(g, z)); }
static mn_tensor *gelu_slope(mn_graph *g, mn_tensor *z) {
  mn_tensor *density = mn_mul_scalar(g, mn_exp(g, mn_mul_scalar(g, mn_square(g, z), -0.5)), 0.39894228040143267794);
  return mn_add(g, normal_cdf(g, z), mn_mul(g, z, density));
}

/* The gain of the norm less 1, [B or 1,H,1,d]: a part of W, or given. */
mn_tensor *mn_fast_gamma(mn_graph *g, const mn_fast_config *c, mn_tensor *const *W) {
  if (c->net != MN_FAST_LN_MLP) return NULL;
  return c->gamma ? mn_reshape(g, mn_capture(g, c->gamma), MN_SHAPE(1, c->heads, 1, c->head_dim)) : mn_unsqueeze(g, W[c->depth], 2);
}
static mn_tensor *shifted(mn_graph *g, const mn_fast_config *c, mn_tensor *x) { /* x and the norm's bias, if there is one */
  return c->shift ? mn_add(g, x, mn_reshape(g, mn_capture(g, c->shift), MN_SHAPE(1, c->heads, 1, c->head_dim))) : x;
}

/* What follows the last matrix: z [B,H,n,d], gamma [B,H,1 or n,d] (NULL but for ln_mlp), x the network's input. */
mn_tensor *mn_fast_finish(mn_graph *g, const mn_fast_config *c, mn_tensor *z, mn_tensor *gamma, mn_tensor *x) {
  if (!z) return NULL;
  if (c->net == MN_FAST_LN_MLP) {
    mn_tensor *y = mn_mul(g, mn_norm(g, MN_NORM_LAYER, z, NULL, NULL, norm_eps, z->dtype), mn_add_scalar(g, gamma, 1));
    return mn_add(g, y, shifted(g, c, x));
  }
  return c->net == MN_FAST_MLP && c->residual ? mn_add(g, z, x) : z;
}

mn_tensor *mn_fast_read(mn_graph *g, const mn_fast_config *c, mn_tensor *const *W, mn_tensor *x) {
  mn_tensor *r = x;
  for (int64_t l = 0; l < c->depth; l++) {
    r = mn_matmul(g, r, W[l]);
    if (l < c->depth - 1) r = mn_fast_gelu(g, r);
  }
  return mn_fast_finish(g, c, r, mn_fast_gamma(g, c, W), x);
}

static mn_tensor *row_sumsq(mn_graph *g, mn_tensor *x) { return mn_sum(g, mn_square(g, x), 8u); } /* [B,H,n,1] */

/* delta scaled so that the gradient's norm n = sqrt(n2) becomes m tanh(n/m) */
static mn_tensor *clamped(mn_graph *g, const mn_fast_config *c, mn_tensor *delta, mn_tensor *n2) {
  mn_tensor *ratio = mn_mul_scalar(g, mn_sqrt(g, mn_add_scalar(g, n2, 1e-12)), 1 / c->grad_clamp);
  return mn_mul(g, delta, mn_div(g, mn_tanh(g, ratio), ratio));
}

/* dl/dM(k) for y = M(k), and l [B,H,n] */
static mn_tensor *slope_of_loss(mn_graph *g, const mn_fast_config *c, mn_tensor *y, mn_tensor *v, mn_tensor **loss) {
  if (!y || !v) return NULL;
  if (c->loss == MN_FAST_DOT) {
    *loss = mn_squeeze(g, mn_neg(g, mn_sum(g, mn_mul(g, y, v), 8u)), 3);
    return mn_neg(g, v);
  }
  mn_tensor *error = mn_sub(g, y, v);
  *loss = mn_squeeze(g, mn_mul_scalar(g, row_sumsq(g, error), 0.5), 3);
  return error;
}

void mn_fast_gradient(mn_graph *g, const mn_fast_config *c, mn_tensor *const *anchor, mn_tensor *k, mn_tensor *v, mn_fast_writes *w) {
  int L = (int)c->depth;
  mn_tensor *z[MN_FAST_PARTS], *delta;
  w->x[0] = k;
  for (int l = 0; l < L; l++) {
    z[l] = mn_matmul(g, w->x[l], anchor[l]);
    if (l < L - 1) w->x[l + 1] = mn_fast_gelu(g, z[l]);
  }
  if (c->net == MN_FAST_LN_MLP) {
    mn_tensor *centred = mn_sub(g, z[L - 1], mn_mean(g, z[L - 1], 8u));
    mn_tensor *inverse = mn_rsqrt(g, mn_add_scalar(g, mn_mean(g, mn_square(g, centred), 8u), norm_eps));
    mn_tensor *normed = mn_mul(g, centred, inverse), *gain = mn_add_scalar(g, mn_fast_gamma(g, c, anchor), 1);
    mn_tensor *error = slope_of_loss(g, c, mn_add(g, mn_mul(g, normed, gain), shifted(g, c, k)), v, &w->loss);
    if (!c->gamma) w->delta[L] = mn_mul(g, error, normed);
    if (!c->gamma && c->grad_clamp > 0) w->delta[L] = clamped(g, c, w->delta[L], row_sumsq(g, w->delta[L]));
    mn_tensor *dn = mn_mul(g, error, gain), *along = mn_mean(g, mn_mul(g, dn, normed), 8u);
    delta = mn_mul(g, mn_sub(g, mn_sub(g, dn, mn_mean(g, dn, 8u)), mn_mul(g, normed, along)), inverse);
  } else {
    delta = slope_of_loss(g, c, mn_fast_finish(g, c, z[L - 1], NULL, k), v, &w->loss);
  }
  if (!delta) return;
  for (int l = L - 1; l >= 0; l--) {
    w->delta[l] = c->grad_clamp > 0 ? clamped(g, c, delta, mn_mul(g, row_sumsq(g, delta), row_sumsq(g, w->x[l]))) : delta;
    if (l > 0) delta = mn_mul(g, mn_matmul(g, delta, mn_transpose(g, anchor[l], 2, 3)), gelu_slope(g, z[l - 1]));
  }
}
