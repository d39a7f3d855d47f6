/* layers.c - see layers.h. */
#include "nn/layers.h"
#include "nn/scope_numbers.h"

#include <math.h>
#include <stdlib.h>
#include <stdio.h>

#include "graph/fused_conv.h"
#include "graph/fused_norm.h"
#include "graph/fused_recurrence.h"
#include "graph/fused_rope.h"
#include "graph/stored.h"
#include "nn/linear.h"

static mn_tensor *named_param(mn_scope *s, const char *name, const char *what, mn_shape shape, mn_init init, unsigned flags,
                              const char *help) {
  char full[160];
  snprintf(full, sizeof full, "%s.%s", name, what);
  return mn_param(s, full, shape, init, flags, help);
}

mn_tensor *mn_param_exact(mn_scope *s, const char *name, mn_shape shape, mn_init init, unsigned flags, const char *help) {
  mn_tensor *p = mn_param(s, name, shape, init, flags, help);
  return mn_cast(mn_scope_graph(s), p, mn_scope_exact(s));
}

static void linears(mn_scope *s, mn_tensor *x, int64_t out, int n, const mn_projection *p, mn_dtype result, mn_tensor **y);

/* Projections for which the model has another policy than a dense matrix are made one by one. */
static bool by_policy(mn_scope *s, mn_tensor *x, int64_t out, int n, const mn_projection *p, mn_dtype result, mn_tensor **y) {
  bool any = false;
  for (int i = 0; i < n; i++) any |= mn_linear_rule_of(s, p[i].name) != NULL;
  for (int i = 0; any && i < n; i++) {
    const mn_linear_rule *rule = mn_linear_rule_of(s, p[i].name);
    const mn_linear_use use = {p[i].name, out, p[i].bias, p[i].init, p[i].bias_init, result};
    if (rule) y[i] = rule->def->apply(s, rule->config, &use, x);
    else linears(s, x, out, 1, &p[i], result, &y[i]);
  }
  return any;
}

static void linears(mn_scope *s, mn_tensor *x, int64_t out, int n, const mn_projection *p, mn_dtype result, mn_tensor **y) {
  enum { MOST = 8 };
  mn_graph *g = mn_scope_graph(s);
  for (int i = 0; i < n; i++) y[i] = NULL;
  if (!x) return;
  if (n > MOST) {
    linears(s, x, out, MOST, p, result, y);
    linears(s, x, out, n - MOST, p + MOST, result, y + MOST);
    return;
  }
  if (by_policy(s, x, out, n, p, result, y)) return;
  mn_dtype t = mn_scope_compute(s);
  int64_t in = mn_dim(x, -1);
  mn_tensor *w[MOST], *b[MOST] = {NULL};
  bool stored = true;
  for (int i = 0; i < n; i++) {
    w[i] = named_param(s, p[i].name, "weight", MN_SHAPE(out, in), p[i].init, MN_PARAM_MATRIX | MN_PARAM_STORED, "projection [out, in]");
    stored = stored && w[i] && mn_dtype_is_stored(w[i]->dtype);
    if (p[i].bias) b[i] = named_param(s, p[i].name, "bias", MN_SHAPE(out), p[i].bias_init, MN_PARAM_NO_DECAY, "bias [out]");
  }
  mn_shape rows = MN_SHAPE(mn_shape_count(&x->shape) / (in ? in : 1), in), shape = x->shape;
  shape.dim[shape.ndim - 1] = out;
  mn_tensor *all;
  x = mn_reshape(g, mn_cast(g, x, t), rows);
  if (stored) {
    all = mn_stored_product(g, x, n, w, mn_scope_exact_products(s), result);
  } else {
    for (int i = 0; i < n; i++) w[i] = mn_cast(g, w[i], t);
    all = mn_matmul_as(g, x, mn_transpose(g, n == 1 ? w[0] : mn_concat(g, n, w, 0), 0, 1), result);
  }
  for (int i = 0; i < n; i++) {
    y[i] = mn_reshape(g, n == 1 ? all : mn_slice(g, all, 1, i * out, out), shape);
    if (b[i]) y[i] = mn_add(g, y[i], mn_cast(g, b[i], result));
  }
}

mn_tensor *mn_linear(mn_scope *s, const char *name, mn_tensor *x, int64_t out, bool bias, mn_init init) {
  mn_tensor *y;
  linears(s, x, out, 1, &(mn_projection){name, bias, init, MN_ZEROS}, mn_scope_compute(s), &y);
  return y;
}

mn_tensor *mn_linear_exact(mn_scope *s, const char *name, mn_tensor *x, int64_t out, bool bias, mn_init init, mn_init bias_init) {
  mn_tensor *y;
  linears(s, x, out, 1, &(mn_projection){name, bias, init, bias_init}, mn_scope_exact(s), &y);
  return y;
}

void mn_linears_exact(mn_scope *s, mn_tensor *x, int64_t out, int n, const mn_projection *projections, mn_tensor **y) {
  linears(s, x, out, n, projections, mn_scope_exact(s), y);
}

mn_tensor *mn_norm_gain(mn_scope *s, const char *name, int64_t width) {
  return named_param(s, name, "weight", MN_SHAPE(width), MN_ONES, MN_PARAM_NO_DECAY, "norm's gain");
}

mn_tensor *mn_norm_layer(mn_scope *s, const char *name, mn_norm_kind kind, mn_tensor *x, double eps, mn_dtype out) {
  mn_shape shape = MN_SHAPE(mn_dim(x, -1));
  mn_tensor *w = NULL, *b = NULL;
  if (kind != MN_NORM_L2) w = mn_norm_gain(s, name, shape.dim[0]);
  if (kind == MN_NORM_LAYER) b = named_param(s, name, "bias", shape, MN_ZEROS, MN_PARAM_NO_DECAY, "norm's bias");
  return mn_norm(mn_scope_graph(s), kind, x, w, b, eps, out);
}

mn_tensor *mn_conv_layer(mn_scope *s, const char *name, mn_tensor *x, int64_t width) { return mn_conv_layer_of(s, name, name, x, width); }

mn_tensor *mn_conv_layer_of(mn_scope *s, const char *name, const char *state, mn_tensor *x, int64_t width) {
  mn_graph *g = mn_scope_graph(s);
  int64_t B = mn_dim(x, 0), D = mn_dim(x, 2), tail = width - 1;
  mn_tensor *w = named_param(s, name, "weight", MN_SHAPE(D, width), (mn_init){MN_INIT_UNIFORM, 1 / sqrt((double)width), 0}, 0,
                             "causal depthwise kernel; the last column multiplies the current token");
  if (tail == 0) return mn_causal_conv(g, x, w, NULL, NULL);
  mn_tensor *before = mn_state(s, state, mn_scope_exact(s), MN_SHAPE(B, tail, D), NULL, "the convolution's last inputs, oldest first");
  mn_tensor *prefix = mn_cast(g, before, mn_type(x)), *y = mn_causal_conv(g, x, w, NULL, prefix);
  mn_state_set(s, state, mn_cast(g, mn_scope_last(s, prefix, x), mn_scope_exact(s)));
  return y;
}

/* ---- rotary tables ---- */
static double scaled_frequency(const mn_rope_config *c, int64_t head_dim, int64_t i) {
  const double two_pi = 6.283185307179586476925;
  double d = (double)head_dim, theta = c->theta, f = pow(theta, -2.0 * (double)i / d), L = (double)c->original_context;
  switch (c->scaling) {
  case MN_ROPE_LINEAR:
    return f / c->factor;
  case MN_ROPE_NTK:
    return d > 2 ? pow(theta * pow(c->factor, d / (d - 2)), -2.0 * (double)i / d) : f;
  case MN_ROPE_LLAMA3: { /* low_freq_factor 1, high_freq_factor 4 */
    double wave = two_pi / f;
    if (wave < L / 4) return f;
    if (wave > L) return f / c->factor;
    double smooth = (L / wave - 1) / (4 - 1);
    return (1 - smooth) * f / c->factor + smooth * f;
  }
  case MN_ROPE_YARN: { /* beta_fast 32, beta_slow 1 */
    double lo = floor(d * log(L / (32 * two_pi)) / (2 * log(theta))), hi = ceil(d * log(L / two_pi) / (2 * log(theta)));
    lo = fmax(lo, 0);
    hi = fmin(hi, d - 1);
    double ramp = fmin(1, fmax(0, ((double)i - lo) / (hi > lo ? hi - lo : 0.001)));
    return f / c->factor * ramp + f * (1 - ramp);
  }
  default:
    return f;
  }
}

static double inverse_frequency(const mn_rope_config *c, int64_t head_dim, int64_t i) {
  const double f = scaled_frequency(c, head_dim, i);
  return i < c->divisors.count ? f / c->divisors.items[i] : f;
}

/* What tables are made of: what cosine and sine are multiplied by, then the frequencies of the pairs. */
enum { OF_GAIN, OF_FREQUENCIES };
static mn_status frequencies(const double *of, const mn_shape *shape, double *to) {
  for (int64_t j = 0; j < shape->dim[0]; j++) to[j] = of[OF_FREQUENCIES + j];
  return MN_OK;
}
static double angle_at(const double *of, const mn_shape *shape, int64_t i) { /* of positions 0, 1, ... */
  const int64_t half = shape->dim[1];
  return (double)(i / half) * of[OF_FREQUENCIES + i % half];
}
static mn_status cosines(const double *of, const mn_shape *shape, double *to) {
  for (int64_t i = 0; i < mn_shape_count(shape); i++) to[i] = cos(angle_at(of, shape, i)) * of[OF_GAIN];
  return MN_OK;
}
static mn_status sines(const double *of, const mn_shape *shape, double *to) {
  for (int64_t i = 0; i < mn_shape_count(shape); i++) to[i] = sin(angle_at(of, shape, i)) * of[OF_GAIN];
  return MN_OK;
}

static void tables_of(mn_scope *s, int n_of, const double *of, int64_t T, mn_tensor *start, mn_tensor **cos_out, mn_tensor **sin_out) {
  mn_graph *g = mn_scope_graph(s);
  const mn_dtype t = mn_scope_exact(s);
  const int64_t half = n_of - OF_FREQUENCIES;
  if (!start) { /* known now: constants */
    *cos_out = mn_scope_numbers(s, cosines, n_of, of, t, MN_SHAPE(T, half));
    *sin_out = mn_scope_numbers(s, sines, n_of, of, t, MN_SHAPE(T, half));
    return;
  }
  /* angles in f64, taken modulo 2 pi before they are narrowed: exact at position ten million, too */
  const int64_t B = mn_dim(start, 0);
  mn_tensor *at = mn_add(g, mn_reshape(g, start, MN_SHAPE(B, 1, 1)), mn_iota(g, MN_I32, MN_SHAPE(1, T, 1), 1));
  mn_tensor *angle = mn_mul(g, mn_cast(g, at, MN_F64), mn_scope_numbers(s, frequencies, n_of, of, MN_F64, MN_SHAPE(half)));
  angle = mn_cast(g, mn_mod(g, angle, mn_scalar(g, MN_F64, 6.283185307179586476925)), t);
  *cos_out = mn_mul_scalar(g, mn_cos(g, angle), of[OF_GAIN]);
  *sin_out = mn_mul_scalar(g, mn_sin(g, angle), of[OF_GAIN]);
}

void mn_rope_tables_at(mn_scope *s, const mn_rope_config *c, int64_t head_dim, int64_t T, mn_tensor *start, mn_tensor **cos_out,
                       mn_tensor **sin_out) {
  const int half = (int)(head_dim / 2), n_of = OF_FREQUENCIES + half;
  double *of = mn_alloc((size_t)n_of * sizeof *of);
  *cos_out = *sin_out = NULL;
  if (!of) {
    mn_graph_fault(mn_scope_graph(s), MN_ERR_MEMORY, "%s", mn_message());
    return;
  }
  of[OF_GAIN] = c->gain ? c->gain : c->scaling == MN_ROPE_YARN && c->factor > 1 ? 0.1 * log(c->factor) + 1 : 1;
  for (int i = 0; i < half; i++) of[OF_FREQUENCIES + i] = inverse_frequency(c, head_dim, i);
  tables_of(s, n_of, of, T, start, cos_out, sin_out);
  free(of);
}

void mn_rope_tables(mn_scope *s, const mn_rope_config *c, int64_t head_dim, int64_t T, mn_tensor **cos_out, mn_tensor **sin_out) {
  mn_rope_tables_at(s, c, head_dim, T, mn_scope_position(s), cos_out, sin_out);
}

void mn_linear_memory(mn_scope *s, mn_recurrence_io *io, mn_recurrence_attr attr) {
  mn_graph *g = mn_scope_graph(s);
  if (mn_scope_length(s) && io->v) {
    mn_shape gate = MN_SHAPE(mn_dim(io->v, 0), mn_dim(io->v, 1), mn_dim(io->v, 2));
    if (io->log_eta)
      mn_graph_fault(g, MN_ERR_UNSUPPORTED, "%smomentum: in rows of different lengths it would go on writing behind their ends",
                     mn_scope_path(s));
    if (!io->beta) io->beta = mn_full(g, mn_scope_exact(s), gate, 1);
    io->beta = mn_scope_masked(s, io->beta, 0);
    io->log_a = mn_scope_masked(s, io->log_a, 0);
    io->erase = mn_scope_masked(s, io->erase, 0);
  }
  mn_linear_recurrence(g, io, attr);
}

mn_tensor *mn_split_heads(mn_scope *s, mn_tensor *x, int64_t heads) {
  if (!x || heads < 1) return NULL; /* a graph with a fault: what should say how many heads there are is not there, either */
  return mn_reshape(mn_scope_graph(s), x, MN_SHAPE(mn_dim(x, 0), mn_dim(x, 1), heads, mn_dim(x, 2) / heads));
}

mn_tensor *mn_join_heads(mn_scope *s, mn_tensor *x) {
  return mn_reshape(mn_scope_graph(s), x, MN_SHAPE(mn_dim(x, 0), mn_dim(x, 1), mn_dim(x, 2) * mn_dim(x, 3)));
}
