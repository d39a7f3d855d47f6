/* gla.c - Gated Linear Attention (Yang, Wang, Shen, Panda & Kim 2023, arXiv 2312.06635): a matrix memory each of whose rows, one
 * per key channel, forgets at a rate of its own that depends on the token.
 *
 *     q_t = W_q x_t / sqrt(K)    k_t = W_k x_t    v_t = W_v x_t
 *     a_t = sigmoid(W_2 W_1 x_t + b)^(1/tau)                                  [K] per head, W_1 narrow
 *     W_t = diag(a_t) W_{t-1} + k_t^T v_t                                     (rows: o_t = q_t W_t)
 *     y_t = W_o [ RMSNorm(q_t W_t) * silu(W_g x_t) ] */
#include "graph/fused_recurrence.h"
#include "nn/heads.h"
#include "nn/mixer.h"

#include <math.h>

typedef struct gla_config {
  int64_t heads, key_dim, value_dim, decay_rank;
  double decay_temperature;
} gla_config;

#define S gla_config
static const mn_field fields[] = {
    MN_FIELD_INT(S, heads, 4, 1, 4096, "heads H"),
    MN_FIELD_INT(S, key_dim, 0, 0, 4096, "width K of a head's keys; 0: d_model / heads / 2"),
    MN_FIELD_INT(S, value_dim, 0, 0, 4096, "width V of a head's values; 0: d_model / heads"),
    MN_FIELD_INT(S, decay_rank, 16, 1, 4096, "width between the two projections of the decay"),
    MN_FIELD_FLOAT(S, decay_temperature, 16, 1e-3, 1e6, "tau: the decay is the tau-th root of a sigmoid; larger forgets more slowly"),
    MN_FIELD_END};
#undef S

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  gla_config *c = config;
  MN_TRY(mn_head_width(map, where, "key_dim", d_model, c->heads, 0.5, &c->key_dim));
  return mn_head_width(map, where, "value_dim", d_model, c->heads, 1, &c->value_dim);
}

static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) {
  const gla_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  mn_init init = MN_NORMAL(0.02);
  int64_t B = mn_dim(x, 0), H = c->heads, K = c->key_dim, V = c->value_dim;
  mn_tensor *q = mn_split_heads(s, mn_linear(s, "q_proj", x, H * K, MN_NO_BIAS, init), H); /* [B,T,H,K] */
  mn_tensor *low = mn_linear(s, "a_down", x, c->decay_rank, MN_NO_BIAS, init);
  mn_tensor *a = mn_log_sigmoid(g, mn_linear_exact(s, "a_up", low, H * K, MN_BIAS, init, MN_ZEROS));
  mn_recurrence_io io = {
      .q = mn_mul_scalar(g, q, 1 / sqrt((double)K)),
      .k = mn_split_heads(s, mn_linear(s, "k_proj", x, H * K, MN_NO_BIAS, init), H),
      .v = mn_split_heads(s, mn_linear(s, "v_proj", x, H * V, MN_NO_BIAS, init), H),
      .log_a = mn_split_heads(s, mn_mul_scalar(g, a, 1 / c->decay_temperature), H),
      .w0 = mn_state(s, "W", mn_scope_exact(s), MN_SHAPE(B, H, K, V), NULL, "memory: a query q reads q W"),
  };
  mn_linear_memory(s, &io, (mn_recurrence_attr){.write = MN_WRITE_VALUE, .chunk = 64});
  mn_state_set(s, "W", io.w);
  return mn_gated_heads(s, io.o, x, 1e-6);
}

static void remedy(const void *config, mn_text *out) {
  const gla_config *c = config;
  mn_text_addf(out, "lower decay_temperature (%g now), so that it forgets faster, or train with a lower lr or a longer warm-up",
               c->decay_temperature);
}

const mn_mixer_def mn_mixer_gla = {
    .name = "gla",
    .kind = "state",
    .summary = "gated linear attention: a matrix memory that forgets by key channel",
    .paper = "Yang, Wang, Shen, Panda & Kim 2023, arXiv 2312.06635",
    .config_size = sizeof(gla_config),
    .fields = fields,
    .check = check,
    .apply = apply,
    .remedy = remedy,
};
