/* deltanet.c - DeltaNet (Schlag, Irie & Schmidhuber 2021, arXiv 2102.11174; Yang, Wang, Zhang, Shen & Kim 2024, arXiv 2406.06484): a
 * matrix memory that replaces what it holds under a key, by the delta rule, and forgets nothing else.
 *
 *     q_t = l2norm(silu(conv4(W_q x)))_t / sqrt(d)   k_t = l2norm(silu(conv4(W_k x)))_t   v_t = silu(conv4(W_v x))_t
 *     beta_t = sigmoid(w_b x_t)
 *     W_t = W_{t-1} + beta_t k_t^T (v_t - k_t W_{t-1})                        (rows: o_t = q_t W_t)
 *     y_t = W_o RMSNorm(q_t W_t) */
#include "graph/fused_norm.h"
#include "graph/fused_recurrence.h"
#include "nn/heads.h"
#include "nn/mixer.h"

#include <math.h>

typedef struct deltanet_config {
  int64_t heads, head_dim, conv;
} deltanet_config;

#define S deltanet_config
static const mn_field fields[] = {
    MN_FIELD_INT(S, heads, 4, 1, 4096, "heads H"), MN_FIELD_INT(S, head_dim, 0, 0, 4096, "width d of a head; 0: d_model / heads"),
    MN_FIELD_INT(S, conv, 4, 1, 1 << 20, "kernel of the causal depthwise convolution on q, k and v; 1: a gain alone"), MN_FIELD_END};
#undef S

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  deltanet_config *c = config;
  return mn_check_heads(map, where, d_model, c->heads, &c->head_dim);
}

static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) {
  const deltanet_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  mn_dtype exact = mn_scope_exact(s);
  mn_init init = MN_NORMAL(0.02);
  int64_t B = mn_dim(x, 0), D = mn_dim(x, 2), H = c->heads, d = c->head_dim;
  mn_tensor *q = mn_norm(g, MN_NORM_L2, mn_conv_heads(s, "q", x, H, d, c->conv), NULL, NULL, 1e-6, exact); /* [B,T,H,d] */
  mn_recurrence_io io = {
      .q = mn_mul_scalar(g, q, 1 / sqrt((double)d)),
      .k = mn_norm(g, MN_NORM_L2, mn_conv_heads(s, "k", x, H, d, c->conv), NULL, NULL, 1e-6, exact),
      .v = mn_conv_heads(s, "v", x, H, d, c->conv),
      .beta = mn_sigmoid(g, mn_linear_exact(s, "b_proj", x, H, MN_NO_BIAS, init, MN_ZEROS)), /* [B,T,H] */
      .w0 = mn_state(s, "W", exact, MN_SHAPE(B, H, d, d), NULL, "memory: a query q reads q W"),
  };
  mn_linear_memory(s, &io, (mn_recurrence_attr){.write = MN_WRITE_DELTA, .chunk = 64});
  mn_state_set(s, "W", io.w);
  return mn_linear(s, "o_proj", mn_normed_heads(s, io.o), D, MN_NO_BIAS, init);
}

const mn_mixer_def mn_mixer_deltanet = {
    .name = "deltanet",
    .kind = "state",
    .summary = "matrix memory with the delta rule",
    .paper = "Yang, Wang, Zhang, Shen & Kim 2024, arXiv 2406.06484",
    .config_size = sizeof(deltanet_config),
    .fields = fields,
    .check = check,
    .apply = apply,
};
