/* kimi_delta.c - Kimi Delta Attention (Kimi Team 2025, arXiv 2510.26692): the delta rule on a memory that forgets by key channel.
 *
 *     q_t = l2norm(silu(conv4(W_q x)))_t / sqrt(d)   k_t = l2norm(silu(conv4(W_k x)))_t   v_t = silu(conv4(W_v x))_t
 *     alpha_t = exp(-exp(A_log) softplus(W_2 W_1 x_t + dt_bias))   [d] per head     beta_t = sigmoid(w_b x_t)
 *     W_t = (I - beta_t k_t^T k_t) diag(alpha_t) W_{t-1} + beta_t k_t^T v_t         (rows: o_t = q_t W_t)
 *     y_t = W_o [ RMSNorm(q_t W_t) * sigmoid(W_4 W_3 x_t) ] */
#include "graph/fused_norm.h"
#include "graph/fused_recurrence.h"
#include "nn/heads.h"
#include "nn/mixer.h"

#include <math.h>

typedef struct kimi_delta_config {
  int64_t heads, head_dim, conv, rank;
  double norm_eps;
} kimi_delta_config;

#define S kimi_delta_config
static const mn_field fields[] = {
    MN_FIELD_INT(S, heads, 4, 1, 4096, "heads H"),
    MN_FIELD_INT(S, head_dim, 0, 0, 4096, "width d of a head; 0: d_model / heads"),
    MN_FIELD_INT(S, conv, 4, 1, 1 << 20, "kernel of the causal depthwise convolution on q, k and v; 1: a gain alone"),
    MN_FIELD_INT(S, rank, 0, 0, 4096, "width between the two projections of the decay, and of the gate; 0: head_dim"),
    MN_FIELD_FLOAT(S, norm_eps, 1e-6, DBL_MIN, 1, "of the norm of what is read", MN_SPARSE),
    MN_FIELD_END};
#undef S

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  kimi_delta_config *c = config;
  MN_TRY(mn_check_heads(map, where, d_model, c->heads, &c->head_dim));
  if (c->rank == 0) c->rank = c->head_dim;
  return MN_OK;
}

static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) {
  const kimi_delta_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  mn_dtype exact = mn_scope_exact(s);
  mn_init init = MN_NORMAL(0.02);
  int64_t B = mn_dim(x, 0), D = mn_dim(x, 2), H = c->heads, d = c->head_dim;
  mn_tensor *q = mn_norm(g, MN_NORM_L2, mn_conv_heads(s, "q", x, H, d, c->conv), NULL, NULL, 1e-6, exact); /* [B,T,H,d] */
  mn_tensor *A_log =
      mn_param_exact(s, "A_log", MN_SHAPE(H, 1), (mn_init){MN_INIT_LOG_UNIFORM, 1, 16}, MN_PARAM_NO_DECAY, "log of the decay's rate [H,1]");
  mn_tensor *dt_bias =
      mn_param_exact(s, "dt_bias", MN_SHAPE(H * d), (mn_init){MN_INIT_TIME_STEP, 0.001, 0.1}, MN_PARAM_NO_DECAY, "time step's bias [H d]");
  mn_tensor *a = mn_linear_exact(s, "a_up", mn_linear(s, "a_down", x, c->rank, MN_NO_BIAS, init), H * d, MN_NO_BIAS, init, MN_ZEROS);
  mn_tensor *step = mn_split_heads(s, mn_softplus(g, mn_add(g, a, dt_bias)), H); /* [B,T,H,d] */
  mn_recurrence_io io = {
      .q = mn_mul_scalar(g, q, 1 / sqrt((double)d)),
      .k = mn_norm(g, MN_NORM_L2, mn_conv_heads(s, "k", x, H, d, c->conv), NULL, NULL, 1e-6, exact),
      .v = mn_conv_heads(s, "v", x, H, d, c->conv),
      .beta = mn_sigmoid(g, mn_linear_exact(s, "b_proj", x, H, MN_NO_BIAS, init, MN_ZEROS)), /* [B,T,H] */
      .log_a = mn_neg(g, mn_mul(g, mn_exp(g, A_log), step)),
      .w0 = mn_state(s, "W", exact, MN_SHAPE(B, H, d, d), NULL, "memory: a query q reads q W"),
  };
  mn_linear_memory(s, &io, (mn_recurrence_attr){.write = MN_WRITE_DELTA, .chunk = 64});
  mn_state_set(s, "W", io.w);
  mn_tensor *gate = mn_linear(s, "gate_up", mn_linear(s, "gate_down", x, c->rank, MN_NO_BIAS, init), H * d, MN_NO_BIAS, init);
  return mn_linear(s, "o_proj", mn_gated_heads_by(s, io.o, gate, MN_GATED_BY_SIGMOID, c->norm_eps), D, MN_NO_BIAS, init);
}

const mn_mixer_def mn_mixer_kimi_delta = {
    .name = "kimi_delta",
    .kind = "state",
    .summary = "the delta rule on a matrix memory that forgets by key channel",
    .paper = "Kimi Team 2025, arXiv 2510.26692",
    .config_size = sizeof(kimi_delta_config),
    .fields = fields,
    .check = check,
    .apply = apply,
};
