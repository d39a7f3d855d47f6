/* fast_net.c - see fast_net.h. */
#include "nn/fast_net.h"
#include "graph/fused_norm.h"

#include "nn/feature_map.h"
#include "nn/layers.h"

static const double norm_eps = 1e-6; /* of the memory's LayerNorm and of phi's norm */
enum { GATE, UP, DOWN };             /* the matrices of a gated network */

/* ---- its parts ---- */
static bool trains_gamma(const mn_fast_config *c) { return c->net == MN_FAST_LN_MLP && !c->gamma; }
static int matrices(const mn_fast_config *c) { return c->net == MN_FAST_LINEAR ? 1 : c->net == MN_FAST_GATED ? 3 : (int)c->depth; }
int mn_fast_parts(const mn_fast_config *c) { return matrices(c) + trains_gamma(c); }
bool mn_fast_is_matrix(const mn_fast_config *c, int part) { return part < matrices(c); }
int64_t mn_fast_out(const mn_fast_config *c) { return c->value_dim ? c->value_dim : c->head_dim; }
int64_t mn_fast_past(const mn_fast_config *c) { return c->window > 1 ? c->window - 1 : 0; }

mn_shape mn_fast_shape(const mn_fast_config *c, int part, int64_t B) {
  const int64_t hidden = c->head_dim * c->expand, in = c->lift ? mn_poly2_width(c->head_dim) : c->head_dim;
  if (!mn_fast_is_matrix(c, part)) return MN_SHAPE(B, c->heads, mn_fast_out(c));
  const bool first = part == 0 || (c->net == MN_FAST_GATED && part == UP), last = part == matrices(c) - 1;
  return MN_SHAPE(B, c->heads, first ? in : hidden, last ? mn_fast_out(c) : hidden);
}

const char *mn_fast_name(const mn_fast_config *c, int part) {
  static const char *const digits[MN_FAST_DEPTH] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"};
  static const char *const gated[] = {"gate", "up", "down"};
  if (!mn_fast_is_matrix(c, part)) return "norm";
  return c->net == MN_FAST_GATED ? gated[part] : digits[part];
}

/* ---- between the products ---- */
mn_tensor *mn_fast_lifted(mn_graph *g, const mn_fast_config *c, mn_tensor *x) {
  if (!c->lift) return x;
  mn_tensor *phi = mn_poly2(g, x, c->lift);
  if (!c->lift_normed) return phi;
  mn_tensor *size = mn_sum(g, mn_square(g, phi), MN_AXIS(3));
  return mn_mul(g, phi, mn_rsqrt(g, mn_add_scalar(g, size, norm_eps)));
}

static mn_tensor *of_heads(mn_graph *g, const mn_fast_config *c, mn_tensor *x) { /* [H,d] beside [B,H,n,d] */
  return mn_reshape(g, x, MN_SHAPE(1, c->heads, 1, c->head_dim));
}
static mn_tensor *shifted(mn_graph *g, const mn_fast_config *c, mn_tensor *x) { /* x and the norm's bias, if there is one */
  return c->shift ? mn_add(g, x, of_heads(g, c, c->shift)) : x;
}

/* What follows the last matrix: z [B,H,n,d], gamma [B,H,1 or n,d] (NULL but for ln_mlp), x the network's input. */
static mn_tensor *finished(mn_graph *g, const mn_fast_config *c, mn_tensor *z, mn_tensor *gamma, mn_tensor *x) {
  if (c->net == MN_FAST_LN_MLP) {
    mn_tensor *normed = mn_norm(g, MN_NORM_LAYER, z, NULL, NULL, norm_eps, mn_type(x));
    return mn_add(g, mn_mul(g, normed, mn_add_scalar(g, gamma, 1)), shifted(g, c, x));
  }
  return c->net != MN_FAST_LINEAR && c->residual ? mn_add(g, z, x) : z;
}

/* ---- the answer ---- */
mn_tensor *mn_fast_answer(mn_graph *g, const mn_fast_config *c, mn_fast_weights w, mn_tensor *x) {
  mn_tensor *r = mn_fast_lifted(g, c, x), *gamma = NULL;
  const int L = matrices(c);
  if (c->net == MN_FAST_GATED) {
    r = mn_mul(g, mn_gelu(g, w.product(g, w.ctx, GATE, r)), w.product(g, w.ctx, UP, r));
    r = w.product(g, w.ctx, DOWN, r);
  } else
    for (int l = 0; l < L; l++) {
      r = w.product(g, w.ctx, l, r);
      if (l < L - 1) r = mn_gelu(g, r);
    }
  if (c->net == MN_FAST_LN_MLP) gamma = c->gamma ? of_heads(g, c, c->gamma) : w.gamma(g, w.ctx);
  return finished(g, c, r, gamma, x);
}

typedef struct fixed { /* one set of weights for all tokens */
  const mn_fast_config *c;
  mn_tensor *const *W;
} fixed;
static mn_tensor *fixed_product(mn_graph *g, const void *ctx, int part, mn_tensor *x) {
  return mn_matmul(g, x, ((const fixed *)ctx)->W[part]);
}
static mn_tensor *gain_at(mn_graph *g, const mn_fast_config *c, mn_tensor *const *W) { /* of the norm less 1, [B or 1,H,1,d] */
  return c->gamma ? of_heads(g, c, c->gamma) : mn_unsqueeze(g, W[matrices(c)], 2);
}
static mn_tensor *fixed_gamma(mn_graph *g, const void *ctx) {
  const fixed *f = ctx;
  return gain_at(g, f->c, f->W);
}
mn_tensor *mn_fast_read(mn_graph *g, const mn_fast_config *c, mn_tensor *const *W, mn_tensor *x) {
  const fixed at = {c, W};
  return mn_fast_answer(g, c, (mn_fast_weights){fixed_product, fixed_gamma, &at}, x);
}

/* ---- the gradient ---- */
static mn_tensor *row_sumsq(mn_graph *g, mn_tensor *x) { return mn_sum(g, mn_square(g, x), MN_AXIS(3)); } /* [B,H,N,1] */

/* delta scaled so that the gradient's norm n = sqrt(n2) becomes m tanh(n/m) */
static mn_tensor *clamped(mn_graph *g, const mn_fast_config *c, mn_tensor *delta, mn_tensor *n2) {
  mn_tensor *ratio = mn_mul_scalar(g, mn_sqrt(g, mn_add_scalar(g, n2, 1e-12)), 1 / c->grad_clamp);
  return mn_mul(g, delta, mn_div(g, mn_tanh(g, ratio), ratio));
}
static mn_tensor *written(mn_graph *g, const mn_fast_config *c, mn_tensor *x, mn_tensor *delta) { /* delta, clamped */
  return c->grad_clamp > 0 ? clamped(g, c, delta, mn_mul(g, row_sumsq(g, delta), row_sumsq(g, x))) : delta;
}

/* dl/dM(k) for y = M(k), and l [B,H,N] */
static mn_tensor *slope_of_loss(mn_graph *g, const mn_fast_config *c, mn_tensor *y, mn_tensor *v, mn_tensor **loss) {
  if (c->loss == MN_FAST_DOT) {
    *loss = mn_squeeze(g, mn_neg(g, mn_sum(g, mn_mul(g, y, v), MN_AXIS(3))), 3);
    return mn_neg(g, v);
  }
  mn_tensor *error = mn_sub(g, y, v);
  *loss = mn_squeeze(g, mn_mul_scalar(g, row_sumsq(g, error), 0.5), 3);
  return error;
}

/* dl/dz for the last product z [B,H,N,out], and what the loss does to gamma. */
static mn_tensor *slope_at_last(mn_graph *g, const mn_fast_config *c, mn_tensor *const *anchor, mn_tensor *z, mn_tensor *k, mn_tensor *v,
                                mn_fast_gradients *out) {
  if (c->net != MN_FAST_LN_MLP) return slope_of_loss(g, c, finished(g, c, z, NULL, k), v, &out->loss);
  mn_tensor *centred = mn_sub(g, z, mn_mean(g, z, MN_AXIS(3)));
  mn_tensor *inverse = mn_rsqrt(g, mn_add_scalar(g, mn_mean(g, mn_square(g, centred), MN_AXIS(3)), norm_eps));
  mn_tensor *normed = mn_mul(g, centred, inverse), *gain = mn_add_scalar(g, gain_at(g, c, anchor), 1);
  mn_tensor *error = slope_of_loss(g, c, mn_add(g, mn_mul(g, normed, gain), shifted(g, c, k)), v, &out->loss);
  if (trains_gamma(c)) {
    mn_tensor *d = mn_mul(g, error, normed);
    out->delta[matrices(c)] = c->grad_clamp > 0 ? clamped(g, c, d, row_sumsq(g, d)) : d;
  }
  mn_tensor *dn = mn_mul(g, error, gain), *along = mn_mean(g, mn_mul(g, dn, normed), MN_AXIS(3));
  return mn_mul(g, mn_sub(g, mn_sub(g, dn, mn_mean(g, dn, MN_AXIS(3))), mn_mul(g, normed, along)), inverse);
}

static mn_tensor *backwards(mn_graph *g, mn_tensor *delta, mn_tensor *W) { return mn_matmul(g, delta, mn_transpose(g, W, 2, 3)); }

mn_fast_gradients mn_fast_gradient(mn_graph *g, const mn_fast_config *c, mn_tensor *const *anchor, mn_tensor *k, mn_tensor *v) {
  mn_fast_gradients out = {.x = {mn_fast_lifted(g, c, k)}};
  const int L = matrices(c);
  mn_tensor *z[MN_FAST_PARTS] = {NULL}, *delta[MN_FAST_PARTS];
  if (c->net == MN_FAST_GATED) {
    out.x[UP] = out.x[GATE];
    z[GATE] = mn_matmul(g, out.x[GATE], anchor[GATE]);
    z[UP] = mn_matmul(g, out.x[UP], anchor[UP]);
    mn_tensor *open = mn_gelu(g, z[GATE]);
    out.x[DOWN] = mn_mul(g, open, z[UP]);
    delta[DOWN] = slope_at_last(g, c, anchor, mn_matmul(g, out.x[DOWN], anchor[DOWN]), k, v, &out);
    mn_tensor *hidden = backwards(g, delta[DOWN], anchor[DOWN]);
    delta[UP] = mn_mul(g, hidden, open);
    delta[GATE] = mn_mul(g, mn_mul(g, hidden, z[UP]), mn_gelu_slope(g, z[GATE]));
  } else {
    for (int l = 0; l < L; l++) {
      z[l] = mn_matmul(g, out.x[l], anchor[l]);
      if (l < L - 1) out.x[l + 1] = mn_gelu(g, z[l]);
    }
    delta[L - 1] = slope_at_last(g, c, anchor, z[L - 1], k, v, &out);
    for (int l = L - 1; l > 0; l--) delta[l - 1] = mn_mul(g, backwards(g, delta[l], anchor[l]), mn_gelu_slope(g, z[l - 1]));
  }
  for (int l = 0; l < L; l++) out.delta[l] = written(g, c, out.x[l], delta[l]);
  return out;
}

mn_tensor *mn_fast_weighted(mn_graph *g, const mn_fast_config *c, const mn_fast_gradients *grad, int part, mn_tensor *weight) {
  mn_tensor *d = mn_mul(g, grad->delta[part], weight);
  if (mn_fast_is_matrix(c, part)) return mn_matmul(g, mn_transpose(g, grad->x[part], 2, 3), d);
  return mn_squeeze(g, mn_sum(g, d, MN_AXIS(2)), 2);
}
