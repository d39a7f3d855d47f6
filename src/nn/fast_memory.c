/* fast_memory.c - see fast_memory.h. The chunk step in products: with W, S the weights at the start of n <= chunk tokens,
 *     La[t,m] = prod_{m<j<=t} (1 - alpha_j)    Le[t,m] = prod_{m<j<=t} eta_j    (lower triangles, diagonal 1)
 *     R = Le diag(theta)    P = La R    E_t = prod_{j<=t} eta_j    b = La E    a_t = prod_{j<=t} (1 - alpha_j)
 *     delta_l(i), x_l(i): backward and forward of token i at the anchor; its gradient of W_l is x_l(i)^T delta_l(i)
 *     r W_l(t) = a_t r W_l + b_t r S_l - sum_i P[t,i] (r . x_l(i)) delta_l(i)            reading without forming W_l(t)
 *     W_l <- a_n W_l + b_n S_l - X_l^T (P[n,:] * Delta_l)      S_l <- E_n S_l - X_l^T (R[n,:] * Delta_l)
 *
 * A segment that begins in the middle of a chunk is known only by data (phase): its blocks of `chunk` tokens are taken in
 * two masked halves, before and after the one boundary inside. A masked token has theta = 0, alpha = 0, eta = 1, and its S is
 * not added to W. */
#include "nn/fast_memory.h"
#include "nn/fast_net.h"

#include <math.h>
#include <stdio.h>

int mn_fast_parts(const mn_fast_config *c) { return (int)c->depth + (c->net == MN_FAST_LN_MLP && !c->gamma); }

mn_shape mn_fast_shape(const mn_fast_config *c, int part, int64_t B) {
  int64_t d = c->head_dim, hidden = d * c->expand, out = c->value_dim ? c->value_dim : d;
  if (part == c->depth) return MN_SHAPE(B, c->heads, out);
  return MN_SHAPE(B, c->heads, part == 0 ? d : hidden, part == c->depth - 1 ? out : hidden);
}

const char *mn_fast_name(const mn_fast_config *c, int part) {
  static const char *const digits[MN_FAST_DEPTH] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"};
  return part == c->depth ? "norm" : digits[part];
}

static bool is_matrix(const mn_fast_config *c, int part) { return part < c->depth; }
/* sum_i weight_i grad_i of every part; weight [B,H,n,1] */
static mn_tensor *weighted(mn_graph *g, const mn_fast_config *c, const mn_fast_writes *w, int part, mn_tensor *weight) {
  mn_tensor *d = mn_mul(g, w->delta[part], weight);
  return is_matrix(c, part) ? mn_matmul(g, mn_transpose(g, w->x[part], 2, 3), d) : mn_squeeze(g, mn_sum(g, d, 4u), 2);
}

/* a value per batch or per batch and head, shaped to scale a part */
static mn_tensor *beside(mn_graph *g, const mn_fast_config *c, int part, mn_tensor *x) {
  if (!x) return NULL;
  int64_t B = mn_dim(x, 0), H = mn_shape_count(&x->shape) / (B ? B : 1);
  return mn_reshape(g, x, is_matrix(c, part) ? MN_SHAPE(B, H, 1, 1) : MN_SHAPE(B, H, 1));
}

static void choose(mn_graph *g, const mn_fast_config *c, mn_tensor *cond, mn_tensor *const *yes, mn_tensor *const *no, mn_tensor **out) {
  for (int p = 0; p < mn_fast_parts(c); p++) out[p] = mn_select(g, beside(g, c, p, cond), yes[p], no[p]);
}

static void copy_parts(const mn_fast_config *c, mn_tensor **to, mn_tensor *const *from) {
  for (int p = 0; p < mn_fast_parts(c); p++) to[p] = from[p];
}

/* ---- n <= chunk tokens ---- */
typedef struct tokens {
  mn_tensor *q, *k, *v;        /* [B,H,n,d]                           */
  mn_tensor *theta;            /* [B,H,n]                             */
  mn_tensor *momentum, *decay; /* [B,H,n]: log eta, log(1 - alpha); per_chunk: the sigmoids' arguments */
} tokens;

typedef struct halves { /* of a block that begins in the middle of a chunk, or ends before its end */
  mn_tensor *first;     /* bool [B,1,n]: before the boundary                       */
  mn_tensor *second;    /* bool [B,1,n]: after it                                  */
  mn_tensor *updated;   /* bool [B,1,n]: reads before the boundary's update        */
  mn_tensor *reaches;   /* bool [B]: the chunk ends inside the block or with it    */
} halves;

/* live: i32 [B], tokens of the block that count; NULL: all n */
static halves halves_of(mn_graph *g, const mn_fast_config *c, mn_tensor *phase, mn_tensor *live, int64_t n) {
  int64_t B = mn_dim(phase, 0);
  mn_tensor *left = mn_sub(g, mn_scalar(g, MN_I32, (double)c->chunk), phase); /* tokens of the chunk still to come */
  mn_tensor *i = mn_iota(g, MN_I32, MN_SHAPE(1, 1, n), 2), *cut = mn_reshape(g, left, MN_SHAPE(B, 1, 1));
  halves h = {.first = mn_lt(g, i, cut),
              .updated = mn_lt(g, i, c->read_before ? cut : mn_add_scalar(g, cut, -1)),
              .reaches = mn_le(g, left, live ? live : mn_scalar(g, MN_I32, (double)n))};
  h.second = mn_not(g, h.first);
  if (live) {
    mn_tensor *counts = mn_lt(g, i, mn_reshape(g, live, MN_SHAPE(B, 1, 1)));
    h.first = mn_and(g, h.first, counts);
    h.second = mn_and(g, h.second, counts);
  }
  return h;
}

static mn_tensor *masked(mn_graph *g, mn_tensor *mask, mn_tensor *x) { /* zero where the mask is false */
  return mask && x ? mn_select(g, mask, x, mn_full(g, x->dtype, x->shape, 0)) : x;
}

/* exp of differences of a running sum of logs [B,H,n] in the lower triangle: [B,H,n,n] */
static mn_tensor *products_between(mn_graph *g, mn_tensor *sum) {
  if (!sum) return NULL;
  int64_t n = mn_dim(sum, 2);
  mn_tensor *t = mn_iota(g, MN_I32, MN_SHAPE(n, 1), 0), *m = mn_iota(g, MN_I32, MN_SHAPE(1, n), 1);
  mn_tensor *d = mn_sub(g, mn_unsqueeze(g, sum, 3), mn_unsqueeze(g, sum, 2));
  return mn_exp(g, mn_select(g, mn_le(g, m, t), d, mn_scalar(g, sum->dtype, -1e30)));
}

typedef struct decays {             /* per token: how much of W and S at the start, and of each gradient, is in the memory */
  mn_tensor *a, *b, *P;             /* as read: [B,H,n,1], [B,H,n,1] or NULL, [B,H,n,n]      */
  mn_tensor *a_end, *b_end, *P_end; /* W after the last token: [B,H,1,1] twice, [B,H,n,1]    */
  mn_tensor *E_end, *R_end;         /* S after the last token: the same                      */
} decays;

static mn_tensor *last_row(mn_graph *g, mn_tensor *x) { /* of [B,H,n,m]: [B,H,m,1] */
  return x ? mn_transpose(g, mn_slice(g, x, 2, mn_dim(x, 2) - 1, 1), 2, 3) : NULL;
}
static mn_tensor *one_later(mn_graph *g, mn_tensor *x) { /* row t becomes row t - 1's; zeros come in */
  return x ? mn_pad(g, mn_slice(g, x, 2, 0, mn_dim(x, 2) - 1), 2, 1, 0) : NULL;
}

static decays decays_of(mn_graph *g, const mn_fast_config *c, const tokens *t, mn_tensor *mask) {
  decays d = {0};
  mn_tensor *theta = masked(g, mask, t->theta);
  if (!theta) return d;
  mn_dtype type = theta->dtype;
  int64_t B = mn_dim(theta, 0), H = mn_dim(theta, 1), n = mn_dim(theta, 2);
  mn_tensor *log_a = t->decay ? masked(g, mask, t->decay) : mn_full(g, type, theta->shape, 0);
  mn_tensor *sum_a = mn_cumsum(g, log_a, 2, false), *La = products_between(g, sum_a);
  if (mask) La = mn_mul(g, La, mn_reshape(g, mn_cast(g, mask, type), MN_SHAPE(B, 1, 1, n)));
  d.a = mn_unsqueeze(g, mn_exp(g, sum_a), 3);
  d.a_end = mn_slice(g, d.a, 2, n - 1, 1);
  mn_tensor *theta_row = mn_reshape(g, theta, MN_SHAPE(B, H, 1, n));
  if (t->momentum) {
    mn_tensor *sum_e = mn_cumsum(g, masked(g, mask, t->momentum), 2, false), *E = mn_unsqueeze(g, mn_exp(g, sum_e), 3);
    mn_tensor *R = mn_mul(g, products_between(g, sum_e), theta_row);
    d.P = mn_matmul(g, La, R);
    d.b = mn_matmul(g, La, E);
    d.b_end = mn_slice(g, d.b, 2, n - 1, 1);
    d.E_end = mn_slice(g, E, 2, n - 1, 1);
    d.R_end = last_row(g, R);
  } else d.P = mn_mul(g, La, theta_row);
  d.P_end = last_row(g, d.P);
  if (c->read_before) { /* token t reads what token t - 1 left */
    d.a = mn_unsqueeze(g, mn_exp(g, mn_sub(g, sum_a, log_a)), 3);
    d.b = one_later(g, d.b);
    d.P = one_later(g, d.P);
  }
  return d;
}

/* One token: the same numbers without triangles. */
static decays decays_of_one(mn_graph *g, const tokens *t) {
  decays d = {.P_end = mn_unsqueeze(g, t->theta, 3)};
  if (t->decay) d.a_end = mn_unsqueeze(g, mn_exp(g, t->decay), 3);
  if (t->momentum) d.b_end = d.E_end = mn_unsqueeze(g, mn_exp(g, t->momentum), 3), d.R_end = d.P_end;
  return d;
}

/* The memory of each token, read without being formed: [B,H,n,d]. */
static mn_tensor *read_inside(mn_graph *g, const mn_fast_config *c, mn_tensor *const *W, mn_tensor *const *S, const mn_fast_writes *w,
                              const decays *d, mn_tensor *q) {
  mn_tensor *r = q, *gamma = NULL;
  int L = (int)c->depth;
  for (int l = 0; l < L; l++) {
    mn_tensor *z = mn_mul(g, d->a, mn_matmul(g, r, W[l]));
    if (d->b) z = mn_add(g, z, mn_mul(g, d->b, mn_matmul(g, r, S[l])));
    z = mn_sub(g, z, mn_masked_product(g, r, w->x[l], d->P, w->delta[l]));
    r = l < L - 1 ? mn_fast_gelu(g, z) : z;
  }
  if (c->gamma) gamma = mn_fast_gamma(g, c, W);
  else if (c->net == MN_FAST_LN_MLP) {
    gamma = mn_mul(g, d->a, mn_unsqueeze(g, W[L], 2));
    if (d->b) gamma = mn_add(g, gamma, mn_mul(g, d->b, mn_unsqueeze(g, S[L], 2)));
    gamma = mn_sub(g, gamma, mn_matmul(g, d->P, w->delta[L]));
  }
  return mn_fast_finish(g, c, r, gamma, q);
}

/* W and S move on by the tokens under the mask (NULL: all); returns what they read. */
static mn_tensor *write_tokens(mn_graph *g, const mn_fast_config *c, mn_tensor **W, mn_tensor **S, mn_tensor *const *anchor,
                               const tokens *t, mn_tensor *mask, mn_tensor **loss) {
  mn_fast_writes w = {0};
  mn_fast_gradient(g, c, anchor, t->k, t->v, &w);
  if (!w.loss) return NULL;
  *loss = w.loss;
  bool one = mn_dim(t->q, 2) == 1 && !mask;
  decays d = one ? decays_of_one(g, t) : decays_of(g, c, t, mask);
  mn_tensor *y = NULL, *W1[MN_FAST_PARTS];
  if (!one) y = read_inside(g, c, W, S, &w, &d, t->q);
  for (int p = 0; p < mn_fast_parts(c); p++) {
    W1[p] = d.a_end ? mn_mul(g, beside(g, c, p, d.a_end), W[p]) : W[p];
    if (c->momentum) W1[p] = mn_add(g, W1[p], mn_mul(g, beside(g, c, p, d.b_end), S[p]));
    mn_tensor *step = weighted(g, c, &w, p, d.P_end);
    W1[p] = mn_sub(g, W1[p], step);
    if (c->momentum) {
      if (!one) step = weighted(g, c, &w, p, d.R_end);
      S[p] = mn_sub(g, mn_mul(g, beside(g, c, p, d.E_end), S[p]), step);
    }
  }
  if (one) y = mn_fast_read(g, c, c->read_before ? W : W1, t->q);
  copy_parts(c, W, W1);
  return y;
}

static mn_tensor *block_by_token(mn_graph *g, const mn_fast_config *c, mn_fast_state *s, const tokens *t, mn_tensor *phase, mn_tensor *live,
                                 mn_tensor **loss) {
  int64_t n = mn_dim(t->q, 2);
  mn_tensor *anchor[MN_FAST_PARTS], *y, *loss2 = NULL;
  if (!phase) {
    copy_parts(c, anchor, s->W);
    y = write_tokens(g, c, s->W, s->S, anchor, t, NULL, loss);
    copy_parts(c, s->A, n == c->chunk ? s->W : anchor);
    return y;
  }
  halves h = halves_of(g, c, phase, live, n);
  y = write_tokens(g, c, s->W, s->S, s->A, t, n > 1 || live ? h.first : NULL, loss);
  choose(g, c, h.reaches, s->W, s->A, s->A);
  if (n == 1 || !y) return y;
  mn_tensor *wide = mn_unsqueeze(g, h.first, 3);
  copy_parts(c, anchor, s->W);
  mn_tensor *y2 = write_tokens(g, c, s->W, s->S, anchor, t, h.second, &loss2);
  *loss = mn_select(g, h.first, *loss, loss2);
  return mn_select(g, wide, y, y2);
}

/* ---- one step per chunk ---- */
static mn_tensor *total(mn_graph *g, mn_tensor *x, mn_tensor *mask) { /* over the tokens: [B,H,n] -> [B,H] */
  return x ? mn_squeeze(g, mn_sum(g, masked(g, mask, x), 4u), 2) : NULL;
}
static mn_tensor *plus(mn_graph *g, mn_tensor *a, mn_tensor *b) { return a && b ? mn_add(g, a, b) : a ? a : b; }

/* -sum theta_i grad_i over the tokens under the mask, added to G; so are the gates' arguments. G NULL: zero so far. */
static void gather(mn_graph *g, const mn_fast_config *c, mn_tensor *const *anchor, const tokens *t, mn_tensor *mask, bool more,
                   mn_fast_state *s, mn_tensor **loss) {
  mn_fast_writes w = {0};
  mn_fast_gradient(g, c, anchor, t->k, t->v, &w);
  if (!w.loss) return;
  *loss = w.loss;
  mn_tensor *weight = mn_unsqueeze(g, mn_neg(g, masked(g, mask, t->theta)), 3);
  for (int p = 0; p < mn_fast_parts(c); p++) s->G[p] = plus(g, more ? s->G[p] : NULL, weighted(g, c, &w, p, weight));
  s->momentum_sum = plus(g, more ? s->momentum_sum : NULL, total(g, t->momentum, mask));
  s->decay_sum = plus(g, more ? s->decay_sum : NULL, total(g, t->decay, mask));
}

/* The step that ends a chunk: W1, S1 from W, S and G. */
static void close_chunk(mn_graph *g, const mn_fast_config *c, const mn_fast_state *s, mn_tensor **W1, mn_tensor **S1) {
  double per = 1 / (double)c->chunk;
  mn_tensor *eta = c->momentum ? mn_sigmoid(g, mn_mul_scalar(g, s->momentum_sum, per)) : NULL;
  mn_tensor *keep = c->decay ? mn_sigmoid(g, mn_mul_scalar(g, s->decay_sum, -per)) : NULL; /* 1 - alpha */
  for (int p = 0; p < mn_fast_parts(c); p++) {
    S1[p] = eta ? mn_add(g, mn_mul(g, beside(g, c, p, eta), s->S[p]), s->G[p]) : s->G[p];
    W1[p] = mn_add(g, keep ? mn_mul(g, beside(g, c, p, keep), s->W[p]) : s->W[p], S1[p]);
  }
}

static void clear(mn_graph *g, const mn_fast_config *c, mn_tensor *where, mn_fast_state *s) { /* where NULL: everywhere */
  mn_tensor **all[MN_FAST_PARTS + 2];
  int n = 0, parts = mn_fast_parts(c);
  for (; n < parts; n++) all[n] = &s->G[n];
  if (s->momentum_sum) all[n++] = &s->momentum_sum;
  if (s->decay_sum) all[n++] = &s->decay_sum;
  for (int i = 0; i < n; i++) {
    mn_tensor *x = *all[i], *zero = mn_zeros_like(g, x);
    if (!x) return;
    mn_shape wide = {.ndim = x->shape.ndim, .dim = {mn_dim(x, 0), 1, 1, 1}};
    *all[i] = where ? mn_select(g, mn_reshape(g, where, wide), zero, x) : zero;
  }
}

static mn_tensor *block_by_chunk(mn_graph *g, const mn_fast_config *c, mn_fast_state *s, const tokens *t, mn_tensor *phase, mn_tensor *live,
                                 mn_tensor **loss) {
  int64_t n = mn_dim(t->q, 2);
  mn_tensor *W1[MN_FAST_PARTS], *S1[MN_FAST_PARTS], *old[MN_FAST_PARTS], *y;
  copy_parts(c, old, s->W);
  if (!phase) {
    gather(g, c, old, t, NULL, false, s, loss);
    if (n < c->chunk) return mn_fast_read(g, c, old, t->q);
    close_chunk(g, c, s, s->W, S1);
    if (c->momentum) copy_parts(c, s->S, S1);
    clear(g, c, NULL, s);
    if (c->read_before) return mn_fast_read(g, c, old, t->q);
    y = mn_fast_read(g, c, s->W, mn_slice(g, t->q, 2, n - 1, 1)); /* the last token reads the new memory */
    return n == 1 ? y : mn_concat(g, 2, (mn_tensor *[]){mn_fast_read(g, c, old, mn_slice(g, t->q, 2, 0, n - 1)), y}, 2);
  }
  halves h = halves_of(g, c, phase, live, n);
  gather(g, c, old, t, n > 1 || live ? h.first : NULL, true, s, loss);
  close_chunk(g, c, s, W1, S1);
  choose(g, c, h.reaches, W1, s->W, s->W);
  if (c->momentum) choose(g, c, h.reaches, S1, s->S, s->S);
  clear(g, c, h.reaches, s);
  if (n == 1) return mn_fast_read(g, c, c->read_before ? old : s->W, t->q);
  mn_tensor *loss2 = NULL;
  gather(g, c, s->W, t, h.second, true, s, &loss2);
  *loss = mn_select(g, h.first, *loss, loss2);
  return mn_select(g, mn_unsqueeze(g, h.updated, 3), mn_fast_read(g, c, old, t->q), mn_fast_read(g, c, s->W, t->q));
}

static mn_tensor *block(mn_graph *g, const mn_fast_config *c, mn_fast_state *s, const tokens *t, mn_tensor *phase, mn_tensor *live,
                        mn_tensor **loss) {
  return c->per_chunk ? block_by_chunk(g, c, s, t, phase, live, loss) : block_by_token(g, c, s, t, phase, live, loss);
}

/* ---- a segment: a loop over blocks of `chunk` tokens, and the rest ---- */

/* The state as a list; every: also what changes only inside a chunk. Returns how many. */
static int listed(const mn_fast_config *c, mn_fast_state *s, bool every, mn_tensor ***list) {
  int n = 0, parts = mn_fast_parts(c);
  for (int p = 0; p < parts; p++) list[n++] = &s->W[p];
  for (int p = 0; p < parts && c->momentum; p++) list[n++] = &s->S[p];
  for (int p = 0; p < parts && every; p++) list[n++] = c->per_chunk ? &s->G[p] : &s->A[p];
  if (every && c->per_chunk && c->momentum) list[n++] = &s->momentum_sum;
  if (every && c->per_chunk && c->decay) list[n++] = &s->decay_sum;
  return n;
}
enum { LISTED = 3 * MN_FAST_PARTS + 2, INPUTS = 6 };

/* Of lengths [B] (or NULL) of a segment, those of its tokens [start, start + most), and of n pieces of it, [n,B]. */
static mn_tensor *to_room(mn_graph *g, mn_tensor *length, int64_t most) {
  return mn_minimum(g, mn_maximum(g, length, mn_scalar(g, MN_I32, 0)), mn_scalar(g, MN_I32, (double)most));
}
static mn_tensor *length_from(mn_graph *g, mn_tensor *length, int64_t start, int64_t most) {
  return length ? to_room(g, mn_add_scalar(g, length, -(double)start), most) : NULL;
}
static mn_tensor *lengths_from(mn_graph *g, mn_tensor *length, int64_t start, int64_t n, int64_t most) {
  mn_tensor *at = mn_add_scalar(g, mn_mul_scalar(g, mn_iota(g, MN_I32, MN_SHAPE(n, 1), 0), (double)most), (double)start);
  return to_room(g, mn_sub(g, mn_unsqueeze(g, length, 0), at), most);
}

/* [B,T,H(,d)] tokens [start, start + n*len) -> [n,B,H,len(,d)] */
static mn_tensor *in_blocks(mn_graph *g, mn_tensor *x, int64_t start, int64_t n, int64_t len) {
  if (!x) return NULL;
  int64_t B = mn_dim(x, 0), H = mn_dim(x, 2);
  mn_tensor *y = mn_slice(g, x, 1, start, n * len);
  if (x->shape.ndim == 3) return mn_permute(g, mn_reshape(g, y, MN_SHAPE(B, n, len, H)), (int[]){1, 0, 3, 2});
  return mn_permute(g, mn_reshape(g, y, MN_SHAPE(B, n, len, H, mn_dim(x, 3))), (int[]){1, 0, 3, 2, 4});
}
static mn_tensor *out_of_blocks(mn_graph *g, mn_tensor *y) { /* [n,B,H,len,d] -> [B,n*len,H,d] */
  if (!y) return NULL;
  mn_shape s = MN_SHAPE(mn_dim(y, 1), mn_dim(y, 0) * mn_dim(y, 3), mn_dim(y, 2), mn_dim(y, 4));
  return mn_reshape(g, mn_permute(g, y, (int[]){1, 0, 3, 2, 4}), s);
}

static mn_tensor *by_blocks(mn_graph *g, const mn_fast_config *c, mn_fast_state *s, const mn_fast_input *in, mn_tensor **surprise) {
  int64_t T = mn_dim(in->q, 1), C = c->chunk, n = T / C;
  mn_tensor *source[INPUTS] = {in->q, in->k, in->v, in->theta, in->momentum, in->decay}, *ys[2], *losses[2], **list[LISTED];
  int joined = 0;
  if (!c->per_chunk) { /* the gates as logarithms; clamped, so that forgetting everything stays finite */
    mn_tensor *floor = mn_scalar(g, in->q->dtype, -50);
    if (source[4]) source[4] = mn_maximum(g, mn_log_sigmoid(g, source[4]), floor);
    if (source[5]) source[5] = mn_maximum(g, mn_neg(g, mn_softplus(g, source[5])), floor);
  }
  if (n > 1) {
    mn_tensor *xs[INPUTS + 1], *x[INPUTS + 1], *carry[LISTED], *carried[LISTED], *out[LISTED], *final[LISTED];
    mn_tensor *y[2] = {0}, *stacked[2] = {0};
    int where[INPUTS], n_xs = 0, n_carry = listed(c, s, in->phase != NULL, list);
    for (int i = 0; i < INPUTS; i++) {
      where[i] = source[i] ? n_xs : -1;
      if (source[i]) xs[n_xs++] = in_blocks(g, source[i], 0, n, C);
    }
    if (in->length) xs[n_xs++] = lengths_from(g, in->length, 0, n, C);
    for (int i = 0; i < n_carry; i++) carry[i] = *list[i];
    mn_scan_builder *b = mn_scan_begin(g, n, false, n_carry, carry, n_xs, xs, carried, x);
    mn_graph *body = mn_scan_body(b);
    if (!body) return NULL;
    for (int i = 0; i < n_carry; i++) *list[i] = carried[i];
    tokens t = {x[0], x[1], x[2], x[3], where[4] < 0 ? NULL : x[where[4]], where[5] < 0 ? NULL : x[where[5]]};
    y[0] = block(body, c, s, &t, mn_capture(body, in->phase), in->length ? x[n_xs - 1] : NULL, &y[1]);
    for (int i = 0; i < n_carry; i++) out[i] = *list[i];
    mn_scan_end(b, out, 2, y, final, stacked);
    if (g->status != MN_OK) return NULL;
    for (int i = 0; i < n_carry; i++) *list[i] = final[i];
    if (!in->phase) { /* between chunks: the anchor is the memory, nothing is gathered */
      if (!c->per_chunk) copy_parts(c, s->A, s->W);
      else clear(g, c, NULL, s);
    }
    ys[joined] = out_of_blocks(g, stacked[0]);
    losses[joined++] = out_of_blocks(g, mn_unsqueeze(g, stacked[1], 4));
  }
  for (int64_t start = n > 1 ? n * C : 0; start < T;) { /* one whole block, or what is left */
    int64_t len = T - start < C ? T - start : C;
    mn_tensor *p[INPUTS], *loss = NULL;
    for (int i = 0; i < INPUTS; i++) p[i] = source[i] ? mn_squeeze(g, in_blocks(g, source[i], start, 1, len), 0) : NULL;
    tokens t = {p[0], p[1], p[2], p[3], p[4], p[5]};
    mn_tensor *y = block(g, c, s, &t, in->phase, length_from(g, in->length, start, len), &loss);
    if (!y || !loss) return NULL;
    ys[joined] = mn_transpose(g, y, 1, 2);
    losses[joined++] = mn_transpose(g, mn_unsqueeze(g, loss, 3), 1, 2);
    start += len;
  }
  if (surprise) {
    mn_tensor *l = joined > 1 ? mn_concat(g, 2, losses, 1) : losses[0]; /* [B,T,H,1] */
    *surprise = mn_reshape(g, mn_mean(g, l, 4u), MN_SHAPE(mn_dim(in->q, 0), T));
  }
  return joined > 1 ? mn_concat(g, 2, ys, 1) : ys[0];
}

/* ---- the linear memory: one fused operation ---- */
static bool is_recurrence(const mn_fast_config *c) { return c->net == MN_FAST_LINEAR && !c->per_chunk && c->loss == MN_FAST_L2; }

static mn_tensor *by_recurrence(mn_graph *g, const mn_fast_config *c, mn_fast_state *s, const mn_fast_input *in) {
  mn_tensor *floor = mn_scalar(g, in->q->dtype, -50);
  mn_recurrence_io io = {.q = in->q, .k = in->k, .v = in->v, .beta = in->theta, .w0 = s->W[0], .a0 = s->A[0], .phase = in->phase};
  if (c->decay) io.log_a = mn_maximum(g, mn_neg(g, mn_softplus(g, in->decay)), floor);
  if (c->momentum) {
    io.log_eta = mn_maximum(g, mn_log_sigmoid(g, in->momentum), floor);
    io.s0 = s->S[0];
  }
  mn_linear_recurrence(
      g, &io,
      (mn_recurrence_attr){.write = MN_WRITE_ANCHOR, .chunk = c->chunk, .read_before = c->read_before, .grad_clamp = c->grad_clamp});
  s->W[0] = io.w;
  s->S[0] = io.s;
  s->A[0] = io.a;
  return io.o;
}

static mn_tensor *segment(mn_graph *g, const mn_fast_config *c, mn_fast_state *s, const mn_fast_input *in, mn_tensor **surprise) {
  if (!in->q || !in->k || !in->v || !in->theta) return NULL;
  return is_recurrence(c) && !in->length ? by_recurrence(g, c, s, in) : by_blocks(g, c, s, in, surprise);
}

/* ---- truncated backpropagation: a loop over pieces of n chunks ---- */
static mn_tensor *pieces_of(mn_graph *g, mn_tensor *x, int64_t n, int64_t len) { /* [B,n*len,...] -> [n,B,len,...] */
  mn_shape s = {.ndim = x->shape.ndim + 1, .dim = {mn_dim(x, 0), n, len, mn_dim(x, 2), mn_dim(x, 3)}};
  return mn_transpose(g, mn_reshape(g, x, s), 0, 1);
}
static mn_tensor *joined_pieces(mn_graph *g, mn_tensor *x) { /* [n,B,len,...] -> [B,n*len,...] */
  mn_shape s = {.ndim = x->shape.ndim - 1, .dim = {mn_dim(x, 1), mn_dim(x, 0) * mn_dim(x, 2), mn_dim(x, 3), mn_dim(x, 4)}};
  return mn_reshape(g, mn_transpose(g, x, 0, 1), s);
}

/* The first piece keeps its gradient (to M_0); the others begin from constants. */
static mn_tensor *truncated(mn_graph *g, const mn_fast_config *c, mn_fast_state *s, const mn_fast_input *in, mn_tensor **surprise) {
  int64_t T = mn_dim(in->q, 1), len = c->trunc_bptt * c->chunk, n = T / len;
  mn_tensor *const *source = (mn_tensor *const[]){in->q, in->k, in->v, in->theta, in->momentum, in->decay};
  mn_tensor *parts[3], *losses[3], **list[LISTED];
  int joined = 0, n_list = listed(c, s, true, list);
  for (int64_t start = 0; start < T;) {
    mn_tensor *at[INPUTS];
    bool loop = start > 0 && n > 2 && start + 2 * len <= T;
    int64_t pieces = loop ? n - 1 : 1, size = T - start < len ? T - start : len;
    for (int i = 0; i < INPUTS; i++) at[i] = source[i] ? mn_slice(g, source[i], 1, start, pieces * size) : NULL;
    if (!loop) {
      mn_fast_input one = {at[0], at[1], at[2], at[3], at[4], at[5], in->phase, length_from(g, in->length, start, size)};
      for (int i = 0; i < n_list && start > 0; i++) *list[i] = mn_stop_gradient(g, *list[i]);
      parts[joined] = segment(g, c, s, &one, surprise ? &losses[joined] : NULL);
    } else {
      mn_tensor *xs[INPUTS + 1], *x[INPUTS + 1], *carry[LISTED], *carried[LISTED], *out[LISTED], *final[LISTED], *y[2], *ys[2];
      int n_xs = 0, n_ys = surprise ? 2 : 1, where[INPUTS];
      for (int i = 0; i < INPUTS; i++)
        if (at[i]) where[i] = n_xs, xs[n_xs++] = pieces_of(g, at[i], pieces, size);
      if (in->length) xs[n_xs++] = lengths_from(g, in->length, start, pieces, size);
      for (int i = 0; i < n_list; i++) carry[i] = *list[i];
      mn_scan_builder *b = mn_scan_begin(g, pieces, false, n_list, carry, n_xs, xs, carried, x);
      mn_graph *body = mn_scan_body(b);
      if (!body) return NULL;
      for (int i = 0; i < n_list; i++) *list[i] = mn_stop_gradient(body, carried[i]);
      mn_fast_input one = {.q = x[0], .k = x[1], .v = x[2], .theta = x[3], .phase = mn_capture(body, in->phase)};
      if (at[4]) one.momentum = x[where[4]];
      if (at[5]) one.decay = x[where[5]];
      if (in->length) one.length = x[n_xs - 1];
      y[0] = segment(body, c, s, &one, surprise ? &y[1] : NULL);
      for (int i = 0; i < n_list; i++) out[i] = *list[i];
      mn_scan_end(b, out, n_ys, y, final, ys);
      if (g->status != MN_OK) return NULL;
      for (int i = 0; i < n_list; i++) *list[i] = final[i];
      parts[joined] = joined_pieces(g, ys[0]);
      if (surprise) losses[joined] = joined_pieces(g, ys[1]);
    }
    if (g->status != MN_OK) return NULL;
    joined++;
    start += pieces * size;
  }
  if (surprise) *surprise = mn_concat(g, joined, losses, 1);
  return mn_concat(g, joined, parts, 1);
}

mn_tensor *mn_fast_memory(mn_graph *g, const mn_fast_config *c, mn_fast_state *s, const mn_fast_input *given, mn_tensor **surprise) {
  mn_fast_input input = *given, *in = &input;
  if (surprise) *surprise = NULL;
  if (!in->q) return NULL;
  if (c->value_dim && c->value_dim != c->head_dim && (c->net == MN_FAST_LN_MLP || (c->net == MN_FAST_MLP && c->residual))) {
    mn_graph_fault(g, MN_ERR_CONFIG, "a fast memory that adds its input cannot answer with %lld values for %lld: leave out the residual",
                   (long long)c->value_dim, (long long)c->head_dim);
    return NULL;
  }
  if (in->length && !in->phase) in->phase = mn_full(g, MN_I32, MN_SHAPE(mn_dim(in->q, 0)), 0); /* a chunk may end unfinished */
  if (surprise && is_recurrence(c) && !in->length) { /* the fused operation does not tell: worked out beside it, for those who ask */
    mn_fast_state beside_it = *s;
    by_blocks(g, c, &beside_it, in, surprise);
    surprise = NULL;
  }
  if (c->trunc_bptt > 0 && mn_dim(in->q, 1) > c->trunc_bptt * c->chunk) return truncated(g, c, s, in, surprise);
  return segment(g, c, s, in, surprise);
}
