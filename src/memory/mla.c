/* mla.c - multi-head latent attention (DeepSeek-AI 2024, arXiv 2405.04434): softmax attention whose cache holds, of each token, one short
 * vector for all heads.
 *
 *     c_t = RMSNorm(W_DKV x_t)  [R]      p_t = R_t W_KR x_t  [P]      [q_t; r_t] = W_Q x_t, or W_UQ RMSNorm(W_DQ x_t); r_t turned as p_t
 *     k_t^h = [W_UK^h c_t; p_t]          v_t^h = W_UV^h c_t
 *     y_t = W_O concat_h softmax_j([q_t^h; r_t^h] . k_j^h / sqrt(N + P)) v_j^h,   j visible to t
 *
 * A sequence that is whole makes every head's keys and values. A stream keeps [c_t; p_t] alone and reads it as it lies: q . W_UK c is
 * (W_UK^T q) . c, and what a head reads of c goes through W_UV afterwards. So there is one head of keys of the width R + P, which are the
 * values, too. */
#include "memory/attention.h"
#include "nn/heads.h"

#include <math.h>

typedef struct mla_config {
  int64_t heads, q_lora_rank, kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim, window, max_context;
  double rope_theta, norm_eps;
  bool rope;
} mla_config;

#define S mla_config
static const mn_field fields[] = {
    MN_FIELD_INT(S, heads, 4, 1, 4096, "heads H"),
    MN_FIELD_INT(S, q_lora_rank, 0, 0, 65536, "width between the two projections of queries; 0: there is one"),
    MN_FIELD_INT(S, kv_lora_rank, 0, 0, 65536, "width R of what is kept of a token for all heads; 0: 4 qk_nope_head_dim"),
    MN_FIELD_INT(S, qk_nope_head_dim, 0, 0, 4096, "width N of a head's own queries and keys; 0: d_model / heads"),
    MN_FIELD_INT(S, qk_rope_head_dim, 0, 0, 4096,
                 "width P of queries and keys that are turned, keys alike in all heads; 0: about half of N"),
    MN_FIELD_INT(S, v_head_dim, 0, 0, 4096, "width V of a head's values; 0: qk_nope_head_dim"),
    MN_FIELD_INT(S, window, 0, 0, 1 << 24, "a query sees the last `window` tokens, itself among them; 0: all"),
    MN_FIELD_INT(S, max_context, MN_USUAL_CONTEXT, 1, 1 << 28, "without a window: how many tokens a stream's cache holds"),
    MN_FIELD_BOOL(S, rope, true, "rotary position embedding of the P; false: no position at all"),
    MN_FIELD_FLOAT(S, rope_theta, 10000, 1, 1e12, "base of the rotary frequencies"),
    MN_FIELD_FLOAT(S, norm_eps, 1e-6, DBL_MIN, 1, "of the norms of what is narrow"),
    MN_FIELD_END};
#undef S

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  mla_config *c = config;
  MN_TRY(mn_head_width(map, where, "qk_nope_head_dim", d_model, c->heads, 1, &c->qk_nope_head_dim));
  const int64_t N = c->qk_nope_head_dim;
  if (!c->qk_rope_head_dim) c->qk_rope_head_dim = 2 * ((N + 3) / 4);
  if (!c->kv_lora_rank) c->kv_lora_rank = 4 * N;
  if (!c->v_head_dim) c->v_head_dim = N;
  if (c->rope && c->qk_rope_head_dim % 2)
    return mn_config_fail(map, where, "qk_rope_head_dim", "must be even for rotary positions, it is %lld", (long long)c->qk_rope_head_dim);
  if (!c->rope && mn_config_given(map, "rope_theta"))
    return mn_config_fail(map, where, "rope_theta", "has no effect with rope: false; leave it out");
  return mn_attention_check_context(map, where, c->window, c->max_context);
}

static const mn_init xavier = {MN_INIT_XAVIER_UNIFORM, 1, 0};

/* A projection of every head from the same narrow vector, [H, width, R] in the compute type. */
static mn_tensor *of_heads(mn_scope *s, const mla_config *c, const char *name, int64_t width, const char *help) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *w = mn_param(s, name, MN_SHAPE(c->heads * width, c->kv_lora_rank), xavier, MN_PARAM_MATRIX, help);
  return mn_reshape(g, mn_cast(g, w, mn_scope_compute(s)), MN_SHAPE(c->heads, width, c->kv_lora_rank));
}

/* x [B,T,H,n] times a matrix of each head's own, w [H,n,m]: [B,T,H,m]. */
static mn_tensor *by_head(mn_graph *g, mn_tensor *x, mn_tensor *w) {
  const int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), H = mn_dim(x, 2), n = mn_dim(x, 3), m = mn_dim(w, 2);
  mn_tensor *rows = mn_permute(g, mn_reshape(g, x, MN_SHAPE(B * T, H, n)), (int[]){1, 0, 2}); /* [H,B T,n] */
  return mn_reshape(g, mn_permute(g, mn_matmul(g, rows, w), (int[]){1, 0, 2}), MN_SHAPE(B, T, H, m));
}

/* What attention works with: q [B,T,H,N], turned r [B,T,H,P], latent c [B,T,R], turned p [B,T,1,P]. */
typedef struct parts {
  mn_tensor *q, *r, *c, *p;
} parts;

static parts project(mn_scope *s, const mla_config *c, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t H = c->heads, N = c->qk_nope_head_dim, P = c->qk_rope_head_dim, R = c->kv_lora_rank;
  const mn_dtype t = mn_scope_compute(s);
  mn_tensor *q = x;
  if (c->q_lora_rank)
    q = mn_norm_layer(s, "q_norm", MN_NORM_RMS, mn_linear(s, "q_down", x, c->q_lora_rank, MN_NO_BIAS, xavier), c->norm_eps, t);
  q = mn_split_heads(s, mn_linear(s, c->q_lora_rank ? "q_up" : "q_proj", q, H * (N + P), MN_NO_BIAS, xavier), H);
  mn_tensor *narrow = mn_linear(s, "kv_down", x, R + P, MN_NO_BIAS, xavier);
  parts y = {.q = mn_slice(g, q, 3, 0, N), .r = mn_slice(g, q, 3, N, P)};
  y.c = mn_norm_layer(s, "kv_norm", MN_NORM_RMS, mn_slice(g, narrow, 2, 0, R), c->norm_eps, t);
  y.p = mn_split_heads(s, mn_slice(g, narrow, 2, R, P), 1);
  const mn_attention_config turn = {.head_dim = P, .rope_theta = c->rope_theta, .rope_factor = 1};
  if (c->rope) mn_attention_rotate(s, &turn, &y.r, &y.p);
  return y;
}

/* Every head has keys and values of its own. */
static mn_tensor *whole(mn_scope *s, const mn_attention_config *as, const parts *x, mn_tensor *up, mn_tensor *values) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(x->q, 0), T = mn_dim(x->q, 1), H = mn_dim(x->q, 2), R = mn_dim(x->c, 2), P = mn_dim(x->p, 3);
  mn_tensor *c = mn_expand(g, mn_reshape(g, x->c, MN_SHAPE(B, T, 1, R)), MN_SHAPE(B, T, H, R));
  mn_tensor *own = by_head(g, c, mn_transpose(g, up, 1, 2)), *shared = mn_expand(g, x->p, MN_SHAPE(B, T, H, P));
  mn_tensor *q = mn_concat(g, 2, (mn_tensor *[]){x->q, x->r}, 3), *k = mn_concat(g, 2, (mn_tensor *[]){own, shared}, 3);
  mn_attention_config heads = *as;
  heads.kv_heads = heads.heads;
  heads.head_dim = mn_dim(q, 3);
  return mn_attention_heads(s, &heads, q, k, by_head(g, c, mn_transpose(g, values, 1, 2)), NULL);
}

/* The cache is one head's keys, and its values. */
static mn_tensor *streamed(mn_scope *s, const mn_attention_config *as, const parts *x, mn_tensor *up, mn_tensor *values) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(x->q, 0), T = mn_dim(x->q, 1), R = mn_dim(x->c, 2);
  mn_tensor *k = mn_concat(g, 2, (mn_tensor *[]){mn_reshape(g, x->c, MN_SHAPE(B, T, 1, R)), x->p}, 3);
  mn_tensor *q = mn_concat(g, 2, (mn_tensor *[]){by_head(g, x->q, up), x->r}, 3);
  mn_attention_config one = *as;
  one.kv_heads = 1;
  one.head_dim = mn_dim(k, 3);
  one.one_cache = true;
  mn_tensor *o = mn_attention_heads(s, &one, q, k, k, NULL); /* [B,T,H,R+P] */
  return by_head(g, mn_slice(g, o, 3, 0, R), mn_transpose(g, values, 1, 2));
}

static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) {
  const mla_config *c = config;
  const parts y = project(s, c, x);
  mn_tensor *up = of_heads(s, c, "k_up.weight", c->qk_nope_head_dim, "W_UK: a head's own keys from what is kept [H N, R]");
  mn_tensor *values = of_heads(s, c, "v_up.weight", c->v_head_dim, "W_UV: a head's values from what is kept [H V, R]");
  const mn_attention_config as = {.heads = c->heads,
                                  .window = c->window,
                                  .max_context = c->max_context,
                                  .causal = true,
                                  .score_scale = 1 / sqrt((double)(c->qk_nope_head_dim + c->qk_rope_head_dim))};
  mn_tensor *o = mn_scope_is_stream(s) ? streamed(s, &as, &y, up, values) : whole(s, &as, &y, up, values);
  return mn_linear(s, "o_proj", mn_join_heads(s, o), mn_dim(x, 2), MN_NO_BIAS, xavier);
}

static void remedy(const void *config, mn_text *out) {
  (void)config;
  mn_text_add(out,
              "its scores q . k grow with the square of its weights: train with more weight decay, or with a lower lr or a longer warm-up");
}

const mn_mixer_def mn_mixer_mla = {
    .name = "mla",
    .kind = "context",
    .summary = "multi-head latent attention: a cache of one short vector per token for all heads",
    .paper = "DeepSeek-AI 2024, arXiv 2405.04434",
    .config_size = sizeof(mla_config),
    .fields = fields,
    .check = check,
    .apply = apply,
    .remedy = remedy,
};
