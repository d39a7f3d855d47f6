/* gated_deltanet.c - Gated DeltaNet (Yang, Kautz & Hatamizadeh 2024, arXiv 2412.06464): a matrix memory that forgets by a
 * gate and corrects what it holds under a key by the delta rule. The baseline Titans is measured against.
 *
 *     q_t = l2norm(silu(conv4(W_q x)))_t / sqrt(d)   k_t = l2norm(silu(conv4(W_k x)))_t   v_t = silu(conv4(W_v x))_t
 *     alpha_t = exp(-exp(A_log) softplus(w_a x_t + dt_bias))       beta_t = sigmoid(w_b x_t)
 *     W_t = alpha_t W_{t-1} + beta_t k_t (v_t - alpha_t k_t W_{t-1})       (rows; S_t = W_t^T of the paper)
 *     y_t = W_o [ RMSNorm(q_t W_t) * silu(W_g x_t) ]
 * Values may be of another width than keys, and G < H key heads may each serve H/G value heads next to each other. */
#include "graph/fused_norm.h"
#include "graph/fused_recurrence.h"
#include "nn/heads.h"
#include "nn/mixer.h"

#include <math.h>

typedef struct gated_deltanet_config {
  int64_t heads, head_dim, conv, chunk, key_heads, value_dim;
  double norm_eps;
} gated_deltanet_config;

#define S gated_deltanet_config
static const mn_field fields[] = {
    MN_FIELD_INT(S, heads, 4, 1, 4096, "heads H"),
    MN_FIELD_INT(S, head_dim, 0, 0, 4096, "width d of a head; 0: d_model / heads"),
    MN_FIELD_INT(S, conv, 4, 1, 1 << 20, "kernel of the causal depthwise convolution on q, k and v; 1: a gain alone"),
    MN_FIELD_INT(S, chunk, 64, 1, 4096, "tokens worked on together; changes speed, not results", MN_TOKENS),
    MN_FIELD_INT(S, key_heads, 0, 0, 4096, "query and key heads G, a divisor of heads; 0: as many as heads", MN_SPARSE),
    MN_FIELD_INT(S, value_dim, 0, 0, 4096, "width V of a head's values; 0: head_dim", MN_SPARSE),
    MN_FIELD_FLOAT(S, norm_eps, 1e-6, DBL_MIN, 1, "of the norm of what is read", MN_SPARSE),
    MN_FIELD_END};
#undef S

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  gated_deltanet_config *c = config;
  if (c->key_heads && c->heads % c->key_heads)
    return mn_config_fail(map, where, "key_heads", "must divide heads: %lld does not divide %lld", (long long)c->key_heads,
                          (long long)c->heads);
  return mn_check_heads(map, where, d_model, c->heads, &c->head_dim);
}

static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) {
  const gated_deltanet_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  mn_dtype exact = mn_scope_exact(s);
  mn_init init = MN_NORMAL(0.02);
  int64_t B = mn_dim(x, 0), H = c->heads, d = c->head_dim;
  int64_t G = c->key_heads ? c->key_heads : H, V = c->value_dim ? c->value_dim : d;
  mn_tensor *q = mn_norm(g, MN_NORM_L2, mn_conv_heads(s, "q", x, G, d, c->conv), NULL, NULL, 1e-6, exact); /* [B,T,G,d] */
  mn_tensor *A_log =
      mn_param_exact(s, "A_log", MN_SHAPE(H), (mn_init){MN_INIT_LOG_UNIFORM, 1, 16}, MN_PARAM_NO_DECAY, "log of the decay's rate [H]");
  mn_tensor *dt_bias =
      mn_param_exact(s, "dt_bias", MN_SHAPE(H), (mn_init){MN_INIT_TIME_STEP, 0.001, 0.1}, MN_PARAM_NO_DECAY, "time step's bias [H]");
  mn_tensor *gates[2];
  mn_linears_exact(s, x, H, 2, (mn_projection[]){{"a_proj", MN_NO_BIAS, init, MN_ZEROS}, {"b_proj", MN_NO_BIAS, init, MN_ZEROS}}, gates);
  mn_tensor *step = mn_softplus(g, mn_add(g, gates[0], dt_bias)); /* [B,T,H] */
  mn_recurrence_io io = {
      .q = mn_mul_scalar(g, q, 1 / sqrt((double)d)),
      .k = mn_norm(g, MN_NORM_L2, mn_conv_heads(s, "k", x, G, d, c->conv), NULL, NULL, 1e-6, exact),
      .v = mn_conv_heads(s, "v", x, H, V, c->conv),
      .beta = mn_sigmoid(g, gates[1]),
      .log_a = mn_neg(g, mn_mul(g, mn_exp(g, A_log), step)),
      .w0 = mn_state(s, "W", exact, MN_SHAPE(B, H, d, V), NULL, "memory: a query q reads q W"),
  };
  mn_linear_memory(s, &io, (mn_recurrence_attr){.write = MN_WRITE_DELTA, .chunk = c->chunk});
  mn_state_set(s, "W", io.w);
  return mn_gated_heads(s, io.o, x, c->norm_eps);
}

static void remedy(const void *config, mn_text *out) {
  (void)config;
  mn_text_add(out, "its memory forgets at least as fast as it is written, so its weights have grown: train with more weight decay, or with "
                   "a lower lr or a longer warm-up");
}

const mn_mixer_def mn_mixer_gated_deltanet = {
    .name = "gated_deltanet",
    .kind = "state",
    .summary = "matrix memory with a forget gate and the delta rule",
    .paper = "Yang, Kautz & Hatamizadeh 2024, arXiv 2412.06464",
    .config_size = sizeof(gated_deltanet_config),
    .fields = fields,
    .check = check,
    .apply = apply,
    .remedy = remedy,
};
