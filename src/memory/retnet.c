/* retnet.c - RetNet's retention (Sun, Dong, Huang, Ma, Xia, Xue, Wang & Wei 2023, arXiv 2307.08621): linear attention whose past
 * fades at one fixed rate per head, from near to far, with rotated queries and keys.
 *
 *     q_t = R_t W_q x_t / sqrt(K)    k_t = R_t W_k x_t    v_t = W_v x_t         R_t turns pairs of channels by the position
 *     gamma_h = 1 - 2^(-5-h),  h = 0, 1, ...
 *     W_t = gamma W_{t-1} + k_t^T v_t                                           (rows: o_t = q_t W_t)
 *     y_t = W_o [ RMSNorm(q_t W_t) * silu(W_g x_t) ]                            (the norm of the authors' code) */
#include "graph/fused_recurrence.h"
#include "graph/fused_rope.h"
#include "nn/heads.h"
#include "nn/mixer.h"

#include <math.h>

typedef struct retnet_config {
  int64_t heads, key_dim, value_dim;
  double rope_theta;
} retnet_config;

#define S retnet_config
static const mn_field fields[] = {MN_FIELD_INT(S, heads, 4, 1, 40, "heads H"),
                                  MN_FIELD_INT(S, key_dim, 0, 0, 4096, "width K of a head's keys, even; 0: d_model / heads"),
                                  MN_FIELD_INT(S, value_dim, 0, 0, 4096, "width V of a head's values; 0: 2 d_model / heads"),
                                  MN_FIELD_FLOAT(S, rope_theta, 10000, 1, 1e9, "base of the rotations"), MN_FIELD_END};
#undef S

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  retnet_config *c = config;
  MN_TRY(mn_head_width(map, where, "key_dim", d_model, c->heads, 1, &c->key_dim));
  MN_TRY(mn_head_width(map, where, "value_dim", d_model, c->heads, 2, &c->value_dim));
  if (c->key_dim % 2)
    return mn_config_fail(map, where, "key_dim", "must be even, as its channels turn in pairs; %lld", (long long)c->key_dim);
  return MN_OK;
}

/* log gamma of each head, for every token: [B,T,H] */
static mn_tensor *fading(mn_graph *g, mn_dtype t, int64_t B, int64_t T, int64_t H) {
  mn_tensor *h = mn_iota(g, t, MN_SHAPE(H), 0);
  mn_tensor *rate = mn_exp(g, mn_mul_scalar(g, mn_add_scalar(g, h, 5), -0.69314718055994530942)); /* 2^(-5-h) */
  return mn_expand(g, mn_log1p(g, mn_neg(g, rate)), MN_SHAPE(B, T, H));
}

static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) {
  const retnet_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  mn_init init = MN_NORMAL(0.02);
  int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), H = c->heads, K = c->key_dim, V = c->value_dim;
  mn_tensor *cosine, *sine;
  mn_rope_tables(s, &(mn_rope_config){.theta = c->rope_theta}, K, T, &cosine, &sine);
  /* exact: what a stream's first tokens read is short, and its norm enlarges what rounding did to it */
  mn_tensor *q = mn_split_heads(s, mn_linear_exact(s, "q_proj", x, H * K, MN_NO_BIAS, init, MN_ZEROS), H); /* [B,T,H,K] */
  mn_tensor *k = mn_split_heads(s, mn_linear_exact(s, "k_proj", x, H * K, MN_NO_BIAS, init, MN_ZEROS), H);
  mn_recurrence_io io = {
      .q = mn_mul_scalar(g, mn_rope(g, q, cosine, sine, MN_ROPE_HALVES), 1 / sqrt((double)K)),
      .k = mn_rope(g, k, cosine, sine, MN_ROPE_HALVES),
      .v = mn_split_heads(s, mn_linear_exact(s, "v_proj", x, H * V, MN_NO_BIAS, init, MN_ZEROS), H),
      .log_a = fading(g, mn_scope_exact(s), B, T, H),
      .w0 = mn_state(s, "W", mn_scope_exact(s), MN_SHAPE(B, H, K, V), NULL, "memory: a query q reads q W"),
  };
  mn_linear_memory(s, &io, (mn_recurrence_attr){.write = MN_WRITE_VALUE, .chunk = 64});
  mn_state_set(s, "W", io.w);
  return mn_gated_heads(s, io.o, x, 1e-6);
}

const mn_mixer_def mn_mixer_retnet = {
    .name = "retnet",
    .kind = "state",
    .summary = "retention: linear attention that fades at a fixed rate per head",
    .paper = "Sun, Dong, Huang, Ma, Xia, Xue, Wang & Wei 2023, arXiv 2307.08621",
    .config_size = sizeof(retnet_config),
    .fields = fields,
    .check = check,
    .apply = apply,
};
