/* mamba2.c - Mamba-2 (Dao & Gu 2024, arXiv 2405.21060): a state space model whose state matrix is a number per head and token,
 * which makes it a linear attention (SSD) with keys B, queries C and values x.
 *
 *     [z, u] = W_in x    [x, B, C] = silu(conv4(u))    dt_t = softplus(w_dt x_t + dt_bias)           dt per head
 *     h_t = exp(-exp(A_log) dt_t) h_{t-1} + dt_t B_t^T x_t          h [N,P] per head; B, C shared by H/G heads each
 *     y_t = C_t h_t + D x_t
 *     out = W_out RMSNorm(y * silu(z)) */
#include "graph/fused_norm.h"
#include "graph/fused_recurrence.h"
#include "nn/heads.h"
#include "nn/mixer.h"

typedef struct mamba2_config {
  int64_t expand, head_dim, state, groups, conv;
} mamba2_config;

#define S mamba2_config
static const mn_field fields[] = {
    MN_FIELD_INT(S, expand, 2, 1, 64, "inner width over d_model"),
    MN_FIELD_INT(S, head_dim, 64, 1, 4096, "width P of a head"),
    MN_FIELD_INT(S, state, 128, 1, 4096, "width N of B and C: rows of a head's state"),
    MN_FIELD_INT(S, groups, 1, 1, 4096, "groups G of heads that share B and C"),
    MN_FIELD_INT(S, conv, 4, 1, 1 << 20, "kernel of the causal depthwise convolution on x, B and C; 1: a gain alone"),
    MN_FIELD_END};
#undef S

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  mamba2_config *c = config;
  int64_t inner = c->expand * d_model;
  if (inner % c->head_dim) return mn_config_fail(map, where, "head_dim", "must divide expand * d_model, %lld", (long long)inner);
  if (inner / c->head_dim % c->groups)
    return mn_config_fail(map, where, "groups", "must divide the number of heads, %lld", (long long)(inner / c->head_dim));
  return MN_OK;
}

static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) {
  const mamba2_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  mn_dtype exact = mn_scope_exact(s);
  mn_init init = MN_NORMAL(0.02);
  int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), D = mn_dim(x, 2), inner = c->expand * D;
  int64_t P = c->head_dim, H = inner / P, N = c->state, G = c->groups;
  mn_tensor *zu = mn_linear(s, "in_proj", x, 2 * inner + 2 * G * N, MN_NO_BIAS, init);
  mn_tensor *z = mn_slice(g, zu, 2, 0, inner), *u = mn_conv_layer(s, "conv", mn_slice(g, zu, 2, inner, inner + 2 * G * N), c->conv);
  mn_tensor *bias = mn_param(s, "conv.bias", MN_SHAPE(inner + 2 * G * N), MN_ZEROS, MN_PARAM_NO_DECAY, "bias of the convolution");
  u = mn_silu(g, mn_add(g, u, mn_cast(g, bias, mn_scope_compute(s))));
  mn_tensor *v = mn_reshape(g, mn_slice(g, u, 2, 0, inner), MN_SHAPE(B, T, H, P));
  mn_tensor *A_log =
      mn_param_exact(s, "A_log", MN_SHAPE(H), (mn_init){MN_INIT_LOG_UNIFORM, 1, 16}, MN_PARAM_NO_DECAY, "log of the decay's rate [H]");
  mn_tensor *dt_bias =
      mn_param_exact(s, "dt_bias", MN_SHAPE(H), (mn_init){MN_INIT_TIME_STEP, 0.001, 0.1}, MN_PARAM_NO_DECAY, "time step's bias [H]");
  mn_tensor *skip = mn_param_exact(s, "D", MN_SHAPE(H, 1), MN_ONES, MN_PARAM_NO_DECAY, "a head's share of its own input [H,1]");
  mn_tensor *dt = mn_softplus(g, mn_add(g, mn_linear_exact(s, "dt_proj", x, H, MN_NO_BIAS, init, MN_ZEROS), dt_bias));
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
  y = mn_mul(g, mn_join_heads(s, y), mn_silu(g, z));
  return mn_linear(s, "out_proj", mn_norm_layer(s, "norm", MN_NORM_RMS, y, 1e-6, mn_scope_compute(s)), D, MN_NO_BIAS, init);
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
