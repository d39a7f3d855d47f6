/* mamba2.c - Mamba-2 (Dao & Gu 2024, arXiv 2405.21060): a state space model whose state matrix is a number per head and token,
 * which makes it a linear attention (SSD) with keys B, queries C and values x.
 *
 *     [z, u] = W_in x    [x, B, C] = silu(conv4(u))    dt_t = softplus(w_dt x_t + dt_bias)           dt per head
 *     h_t = exp(-exp(A_log) dt_t) h_{t-1} + dt_t B_t^T x_t          h [N,P] per head; B, C shared by H/G heads each
 *     y_t = C_t h_t + D x_t
 *     out = W_out RMSNorm(y * silu(z))
 * What checkpoints of this family have besides is keys: an inner width that no whole `expand` gives, biases, limits of dt, and where the
 * norm stands: over groups of channels, before the gate (RMSNorm(y) * silu(z)), or nowhere. */
#include "graph/fused_norm.h"
#include "graph/fused_recurrence.h"
#include "nn/heads.h"
#include "nn/mixer.h"

typedef struct mamba2_config {
  int64_t expand, head_dim, state, groups, conv, inner, norm_groups;
  int norm; /* NORM_... */
  double norm_eps, dt_min, dt_max;
  bool bias, conv_bias;
} mamba2_config;

enum { NORM_AFTER_GATE, NORM_BEFORE_GATE, NORM_NONE };
static const char *const norms[] = {"after_gate", "before_gate", "none", NULL};

#define S mamba2_config
static const mn_field fields[] = {
    MN_FIELD_INT(S, expand, 2, 1, 64, "inner width over d_model"),
    MN_FIELD_INT(S, head_dim, 64, 1, 4096, "width P of a head"),
    MN_FIELD_INT(S, state, 128, 1, 4096, "width N of B and C: rows of a head's state"),
    MN_FIELD_INT(S, groups, 1, 1, 4096, "groups G of heads that share B and C"),
    MN_FIELD_INT(S, conv, 4, 1, 1 << 20, "kernel of the causal depthwise convolution on x, B and C; 1: a gain alone"),
    MN_FIELD_INT(S, inner, 0, 0, 1 << 24, "inner width E; 0: expand * d_model", MN_SPARSE),
    MN_FIELD_BOOL(S, bias, false, "biases in the projections", MN_SPARSE),
    MN_FIELD_BOOL(S, conv_bias, true, "a bias in the convolution", MN_SPARSE),
    MN_FIELD_ENUM(S, norm, norms, NORM_AFTER_GATE, "RMSNorm(y silu(z)), RMSNorm(y) silu(z), or y silu(z) without a norm", MN_SPARSE),
    MN_FIELD_INT(S, norm_groups, 1, 1, 4096, "groups of inner channels that are normalised apart", MN_SPARSE),
    MN_FIELD_FLOAT(S, norm_eps, 1e-6, DBL_MIN, 1, "added to the mean square", MN_SPARSE),
    MN_FIELD_FLOAT(S, dt_min, 0, 0, 1e6, "no time step dt is smaller", MN_SPARSE),
    MN_FIELD_FLOAT(S, dt_max, 0, 0, 1e6, "no time step dt is larger; 0: no limit", MN_SPARSE),
    MN_FIELD_END};
#undef S

static int64_t inner_of(const mamba2_config *c, int64_t d_model) { return c->inner ? c->inner : c->expand * d_model; }

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  mamba2_config *c = config;
  if (c->inner && mn_config_given(map, "expand"))
    return mn_config_fail(map, where, "expand", "has no effect beside inner: %lld; leave one of them out", (long long)c->inner);
  const int64_t inner = inner_of(c, d_model), heads = inner / c->head_dim;
  if (inner % c->head_dim)
    return mn_config_fail(map, where, "head_dim", "must divide %s, %lld", c->inner ? "inner" : "expand * d_model", (long long)inner);
  if (heads % c->groups) return mn_config_fail(map, where, "groups", "must divide the number of heads, %lld", (long long)heads);
  static const char *const of_norm[] = {"norm_groups", "norm_eps"};
  for (int i = 0; i < 2; i++)
    if (c->norm == NORM_NONE && mn_config_given(map, of_norm[i]))
      return mn_config_fail(map, where, of_norm[i], "has no effect with norm: none; leave it out");
  if (inner % c->norm_groups) return mn_config_fail(map, where, "norm_groups", "must divide the inner width, %lld", (long long)inner);
  if (c->dt_max && c->dt_max < c->dt_min) return mn_config_fail(map, where, "dt_max", "must be at least dt_min, %g", c->dt_min);
  return MN_OK;
}

/* dt [B,T,H] from x, exact type. */
static mn_tensor *time_step(mn_scope *s, const mamba2_config *c, mn_tensor *x, int64_t H, mn_init init) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *bias =
      mn_param_exact(s, "dt_bias", MN_SHAPE(H), (mn_init){MN_INIT_TIME_STEP, 0.001, 0.1}, MN_PARAM_NO_DECAY, "time step's bias [H]");
  mn_tensor *dt = mn_softplus(g, mn_add(g, mn_linear_exact(s, "dt_proj", x, H, c->bias, init, MN_ZEROS), bias));
  if (c->dt_min) dt = mn_maximum(g, dt, mn_scalar(g, mn_scope_exact(s), c->dt_min));
  return c->dt_max ? mn_minimum(g, dt, mn_scalar(g, mn_scope_exact(s), c->dt_max)) : dt;
}

/* Each group of channels of y [B,T,E] by its own root mean square; one gain for each channel. Compute type. */
static mn_tensor *normed(mn_scope *s, const mamba2_config *c, mn_tensor *y) {
  mn_graph *g = mn_scope_graph(s);
  const mn_shape shape = mn_shape_as(y);
  if (c->norm_groups == 1) return mn_norm_layer(s, "norm", MN_NORM_RMS, y, c->norm_eps, mn_scope_compute(s));
  mn_tensor *gain = mn_param_exact(s, "norm.weight", MN_SHAPE(mn_dim(y, 2)), MN_ONES, MN_PARAM_NO_DECAY, "norm's gain");
  y = mn_reshape(g, y, MN_SHAPE(mn_dim(y, 0), mn_dim(y, 1), c->norm_groups, mn_dim(y, 2) / c->norm_groups));
  y = mn_reshape(g, mn_norm(g, MN_NORM_RMS, y, NULL, NULL, c->norm_eps, mn_scope_exact(s)), shape);
  return mn_cast(g, mn_mul(g, y, gain), mn_scope_compute(s));
}

/* What z lets through of y, both [B,T,E]. */
static mn_tensor *gated(mn_scope *s, const mamba2_config *c, mn_tensor *y, mn_tensor *z) {
  mn_graph *g = mn_scope_graph(s);
  z = mn_silu(g, z);
  if (c->norm == NORM_BEFORE_GATE) return mn_mul(g, normed(s, c, y), z);
  y = mn_mul(g, y, z);
  return c->norm == NORM_NONE ? y : normed(s, c, y);
}

static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) {
  const mamba2_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  mn_dtype exact = mn_scope_exact(s);
  mn_init init = MN_NORMAL(0.02);
  int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), D = mn_dim(x, 2), inner = inner_of(c, D);
  int64_t P = c->head_dim, H = inner / P, N = c->state, G = c->groups;
  mn_tensor *zu = mn_linear(s, "in_proj", x, 2 * inner + 2 * G * N, c->bias, init);
  mn_tensor *z = mn_slice(g, zu, 2, 0, inner), *u = mn_conv_layer(s, "conv", mn_slice(g, zu, 2, inner, inner + 2 * G * N), c->conv);
  if (c->conv_bias) {
    mn_tensor *bias = mn_param(s, "conv.bias", MN_SHAPE(inner + 2 * G * N), MN_ZEROS, MN_PARAM_NO_DECAY, "bias of the convolution");
    u = mn_add(g, u, mn_cast(g, bias, mn_scope_compute(s)));
  }
  u = mn_silu(g, u);
  mn_tensor *v = mn_reshape(g, mn_slice(g, u, 2, 0, inner), MN_SHAPE(B, T, H, P));
  mn_tensor *A_log =
      mn_param_exact(s, "A_log", MN_SHAPE(H), (mn_init){MN_INIT_LOG_UNIFORM, 1, 16}, MN_PARAM_NO_DECAY, "log of the decay's rate [H]");
  mn_tensor *skip = mn_param_exact(s, "D", MN_SHAPE(H, 1), MN_ONES, MN_PARAM_NO_DECAY, "a head's share of its own input [H,1]");
  mn_tensor *dt = time_step(s, c, x, H, init);
  mn_recurrence_io io = {
      .q = mn_reshape(g, mn_slice(g, u, 2, inner + G * N, G * N), MN_SHAPE(B, T, G, N)), /* C */
      .k = mn_reshape(g, mn_slice(g, u, 2, inner, G * N), MN_SHAPE(B, T, G, N)),         /* B */
      .v = v,
      .beta = dt, /* [B,T,H] */
      .log_a = mn_neg(g, mn_mul(g, mn_exp(g, A_log), dt)),
      .w0 = mn_state(s, "h", exact, MN_SHAPE(B, H, N, P), NULL, "state: C reads C h"),
  };
  mn_linear_memory(s, &io, (mn_recurrence_attr){.write = MN_WRITE_VALUE, .chunk = 64});
  mn_state_set(s, "h", io.w);
  mn_tensor *y = mn_add(g, io.o, mn_mul(g, v, mn_cast(g, skip, mn_scope_compute(s))));
  return mn_linear(s, "out_proj", gated(s, c, mn_join_heads(s, y), z), D, c->bias, init);
}

const mn_mixer_def mn_mixer_mamba2 = {
    .name = "mamba2",
    .kind = "state",
    .summary = "state space model with a number as state matrix, as a linear attention",
    .paper = "Dao & Gu 2024, arXiv 2405.21060",
    .config_size = sizeof(mamba2_config),
    .fields = fields,
    .check = check,
    .apply = apply,
};
