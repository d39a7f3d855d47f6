/* hgrn2.c - HGRN2 (Qin, Yang, Sun, Shen, Li, Sun & Zhong 2024, arXiv 2404.07904): a gated linear RNN whose state is expanded to a
 * matrix by outer products. What a channel forgets is what it has room to learn: the key is 1 - f, so it needs no projection.
 *
 *     q_t = sigmoid(W_q x_t + b_q)    v_t = silu(W_v x_t + b_v)               (the paper's output gate o_t and input i_t)
 *     f_t = l + (1 - l) sigmoid(W_f x_t + b_f)                                [K] per head, l the layer's lower bound
 *     W_t = diag(f_t) W_{t-1} + (1 - f_t)^T v_t                               (rows: o_t = q_t W_t)
 *     y_t = W_o RMSNorm(q_t W_t) */
#include "graph/fused_recurrence.h"
#include "nn/heads.h"
#include "nn/mixer.h"

typedef struct hgrn2_config {
  int64_t heads, key_dim, value_dim;
  double lower_bound;
} hgrn2_config;

#define S hgrn2_config
static const mn_field fields[] = {
    MN_FIELD_INT(S, heads, 4, 1, 4096, "heads H"),
    MN_FIELD_INT(S, key_dim, 0, 0, 4096, "width K of a head's forget gates, the state's expansion; 0: d_model / heads"),
    MN_FIELD_INT(S, value_dim, 0, 0, 4096, "width V of a head's values; 0: d_model / heads"),
    MN_FIELD_FLOAT(S, lower_bound, 0, 0, 0.9999, "l: no forget gate falls below it; larger in higher layers, which then remember longer"),
    MN_FIELD_END};
#undef S

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  hgrn2_config *c = config;
  MN_TRY(mn_head_width(map, where, "key_dim", d_model, c->heads, 1, &c->key_dim));
  return mn_head_width(map, where, "value_dim", d_model, c->heads, 1, &c->value_dim);
}

/* log f of the gate's argument z. With a bound f stays above it; without one f may underflow, its logarithm does not. */
static mn_tensor *log_forget(mn_graph *g, mn_tensor *z, double bound) {
  if (bound == 0) return mn_log_sigmoid(g, z);
  return mn_log(g, mn_add_scalar(g, mn_mul_scalar(g, mn_sigmoid(g, z), 1 - bound), bound));
}

static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) {
  const hgrn2_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  mn_init init = MN_NORMAL(0.02);
  int64_t B = mn_dim(x, 0), H = c->heads, K = c->key_dim, V = c->value_dim;
  mn_tensor *z = mn_split_heads(s, mn_linear_exact(s, "f_proj", x, H * K, MN_BIAS, init, MN_ZEROS), H); /* [B,T,H,K] */
  mn_recurrence_io io = {
      .q = mn_split_heads(s, mn_sigmoid(g, mn_linear(s, "q_proj", x, H * K, MN_BIAS, init)), H),
      .k = mn_mul_scalar(g, mn_sigmoid(g, mn_neg(g, z)), 1 - c->lower_bound), /* 1 - f */
      .v = mn_split_heads(s, mn_silu(g, mn_linear(s, "v_proj", x, H * V, MN_BIAS, init)), H),
      .log_a = log_forget(g, z, c->lower_bound),
      .w0 = mn_state(s, "W", mn_scope_exact(s), MN_SHAPE(B, H, K, V), NULL, "memory: a query q reads q W"),
  };
  mn_linear_memory(s, &io, (mn_recurrence_attr){.write = MN_WRITE_VALUE, .chunk = 64});
  mn_state_set(s, "W", io.w);
  return mn_linear(s, "o_proj", mn_normed_heads(s, io.o), mn_dim(x, 2), MN_NO_BIAS, init);
}

const mn_mixer_def mn_mixer_hgrn2 = {
    .name = "hgrn2",
    .kind = "state",
    .summary = "gated linear RNN with an expanded state: keys are what the forget gates let go",
    .paper = "Qin, Yang, Sun, Shen, Li, Sun & Zhong 2024, arXiv 2404.07904",
    .config_size = sizeof(hgrn2_config),
    .fields = fields,
    .check = check,
    .apply = apply,
};
