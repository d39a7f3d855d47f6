/* linear_attention.c - linear attention (Katharopoulos, Vyas, Pappas & Fleuret 2020, arXiv 2006.16236): softmax's exponential is
 * replaced by a product of positive features, so that the whole past is one sum of a fixed size.
 *
 *     phi(x) = elu(x) + 1      q_t = phi(W_q x_t)    k_t = phi(W_k x_t)    v_t = W_v x_t
 *     W_t = W_{t-1} + k_t^T [v_t, 1]                                          (the last column is the sum of the keys)
 *     [n_t, z_t] = q_t W_t      o_t = n_t / (z_t + 1e-6)      y_t = W_o o_t
 * W only ever grows, and an f32 stops counting: as state it is f64. What a segment adds is made from zero. */
#include "graph/fused_recurrence.h"
#include "nn/heads.h"
#include "nn/mixer.h"

typedef struct linear_attention_config {
  int64_t heads, head_dim;
} linear_attention_config;

#define S linear_attention_config
static const mn_field fields[] = {MN_FIELD_INT(S, heads, 4, 1, 4096, "heads H"),
                                  MN_FIELD_INT(S, head_dim, 0, 0, 4096, "width d of a head; 0: d_model / heads"), MN_FIELD_END};
#undef S

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  linear_attention_config *c = config;
  return mn_check_heads(map, where, d_model, c->heads, &c->head_dim);
}

static mn_tensor *features(mn_graph *g, mn_tensor *x) { /* elu(x) + 1 = exp(min(x, 0)) + max(0, x) */
  /* At 0 the slope of the first is 1 and that of relu 0. */
  return mn_add(g, mn_exp(g, mn_minimum(g, x, mn_scalar(g, mn_type(x), 0))), mn_relu(g, x));
}

static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) {
  const linear_attention_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  mn_dtype exact = mn_scope_exact(s);
  mn_init init = MN_NORMAL(0.02);
  int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), D = mn_dim(x, 2), H = c->heads, d = c->head_dim;
  mn_tensor *qkv[3];
  static const mn_projection projections[] = {{"q_proj", MN_NO_BIAS, {MN_INIT_NORMAL, 0.02, 0}, {MN_INIT_CONSTANT, 0, 0}},
                                              {"k_proj", MN_NO_BIAS, {MN_INIT_NORMAL, 0.02, 0}, {MN_INIT_CONSTANT, 0, 0}},
                                              {"v_proj", MN_NO_BIAS, {MN_INIT_NORMAL, 0.02, 0}, {MN_INIT_CONSTANT, 0, 0}}};
  mn_linears_exact(s, x, H * d, 3, projections, qkv);
  for (int i = 0; i < 3; i++) qkv[i] = mn_split_heads(s, qkv[i], H); /* [B,T,H,d] */
  mn_tensor *q = features(g, qkv[0]), *ones = mn_full(g, exact, MN_SHAPE(B, T, H, 1), 1);
  mn_shape shape = MN_SHAPE(B, H, d, d + 1);
  mn_recurrence_io io = {
      .q = q, .k = features(g, qkv[1]), .v = mn_concat(g, 2, (mn_tensor *[]){qkv[2], ones}, 3), .w0 = mn_full(g, exact, shape, 0)};
  mn_linear_memory(s, &io, (mn_recurrence_attr){.write = MN_WRITE_VALUE, .chunk = 64});
  mn_tensor *W = mn_state(s, "W", MN_F64, shape, NULL, "sum of keys times values; the last column: sum of keys");
  mn_state_set(s, "W", mn_add(g, W, mn_cast(g, io.w, MN_F64)));
  mn_tensor *read = io.o;
  if (mn_scope_is_stream(s)) {                                                      /* there may be a past */
    mn_tensor *past = mn_matmul(g, mn_transpose(g, q, 1, 2), mn_cast(g, W, exact)); /* [B,H,T,d+1] */
    read = mn_add(g, read, mn_transpose(g, past, 1, 2));
  }
  mn_tensor *o = mn_div(g, mn_slice(g, read, 3, 0, d), mn_add_scalar(g, mn_slice(g, read, 3, d, 1), 1e-6));
  return mn_linear(s, "o_proj", mn_cast(g, mn_join_heads(s, o), mn_scope_compute(s)), D, MN_NO_BIAS, init);
}

const mn_mixer_def mn_mixer_linear_attention = {
    .name = "linear_attention",
    .kind = "state",
    .summary = "attention by positive features instead of softmax, in a state of fixed size",
    .paper = "Katharopoulos, Vyas, Pappas & Fleuret 2020, arXiv 2006.16236",
    .config_size = sizeof(linear_attention_config),
    .fields = fields,
    .check = check,
    .apply = apply,
};
