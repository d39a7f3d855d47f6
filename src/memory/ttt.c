/* ttt.c - TTT-Linear and TTT-MLP (Sun, Li, Dalal, Xu, Vikram, Zhang, Dubois, Chen, Wang, Koyejo, Hashimoto & Guestrin 2024, arXiv
 * 2407.04620): the state is the weights of a small model, which every token trains to tell its value from its key.
 *
 *     f(x; W) = x + LN(f_res(x; W))     f_res = x W (ttt_linear), or gelu(x W_0) W_1 with four times the width (ttt_mlp)
 *     l_t = 1/2 |f(k_t; W) - v_t|^2     k_t, v_t, q_t = W_k x_t, W_v x_t, W_q x_t          eta_t = eta sigmoid(w x_t + b) / d
 *     W_t = W_{t-1} - eta_t grad l_t(W_{t'})     t' the end of the mini-batch before: all its gradients are taken at one place
 *     y_t = W_o RMSNorm(f(q_t; W_t))
 * The gain and the bias of LN are of the outer model; the inner one has no biases. Mini-batches are counted from the stream's
 * first token, wherever a segment begins. */
#include "nn/fast_layer.h"
#include "nn/heads.h"
#include "nn/mixer.h"

typedef struct ttt_config {
  int64_t heads, head_dim, mini_batch;
  double eta;
} ttt_config;

#define S ttt_config
#define SHARED                                                                                                                             \
  MN_FIELD_INT(S, heads, 4, 1, 4096, "heads H"), MN_FIELD_INT(S, head_dim, 0, 0, 4096, "width d of a head; 0: d_model / heads"),           \
      MN_FIELD_INT(S, mini_batch, 16, 1, 4096, "tokens whose gradients are taken at one place", MN_TOKENS)
static const mn_field linear_fields[] = {SHARED, MN_FIELD_FLOAT(S, eta, 1, 0, 100, "bound of the inner learning rate, over d"),
                                         MN_FIELD_END};
static const mn_field mlp_fields[] = {SHARED, MN_FIELD_FLOAT(S, eta, 0.1, 0, 100, "bound of the inner learning rate, over d"),
                                      MN_FIELD_END};
#undef S

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  ttt_config *c = config;
  return mn_check_heads(map, where, d_model, c->heads, &c->head_dim);
}

static const mn_fast_names names = {"the inner model at the start of a stream [H,in,out]", "the inner model's weights",
                                    "the weights where the mini-batch began", 1};

static mn_tensor *by_heads(mn_scope *s, const ttt_config *c, const char *name, mn_tensor *x) { /* [B,T,H,d], exact */
  return mn_split_heads(s, mn_linear_exact(s, name, x, c->heads * c->head_dim, MN_NO_BIAS, MN_NORMAL(0.02), MN_ZEROS), c->heads);
}

static mn_tensor *ttt(mn_scope *s, const ttt_config *c, int64_t depth, int64_t expand, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t D = mn_dim(x, 2), H = c->heads, d = c->head_dim;
  mn_fast_config f = {.net = MN_FAST_LN_MLP, .depth = depth, .expand = expand, .heads = H, .head_dim = d, .chunk = c->mini_batch};
  f.gamma =
      mn_param_exact(s, "inner_norm.weight", MN_SHAPE(H, d), MN_ZEROS, MN_PARAM_NO_DECAY, "gain of the inner model's norm, less 1 [H,d]");
  f.shift = mn_param_exact(s, "inner_norm.bias", MN_SHAPE(H, d), MN_ZEROS, MN_PARAM_NO_DECAY, "bias of the inner model's norm [H,d]");
  mn_tensor *rate = mn_sigmoid(g, mn_linear_exact(s, "lr_proj", x, H, MN_BIAS, MN_NORMAL(0.02), MN_ZEROS)); /* [B,T,H] */
  const mn_fast_input in = {
      .q = by_heads(s, c, "q_proj", x),
      .k = by_heads(s, c, "k_proj", x),
      .v = by_heads(s, c, "v_proj", x),
      .theta = mn_mul_scalar(g, rate, c->eta / (double)d),
  };
  mn_tensor *y = mn_fast_layer(s, &f, &names, in); /* [B,T,H,d] */
  return mn_linear(s, "o_proj", mn_normed_heads(s, y), D, MN_NO_BIAS, MN_NORMAL(0.02));
}

static mn_tensor *apply_linear(mn_scope *s, const void *config, mn_tensor *x) { return ttt(s, config, 1, 1, x); }
static mn_tensor *apply_mlp(mn_scope *s, const void *config, mn_tensor *x) { return ttt(s, config, 2, 4, x); }

static void remedy(const void *config, mn_text *out) {
  const ttt_config *c = config;
  mn_text_addf(out, "lower eta (%g now) or mini_batch (%lld now): the steps of a mini-batch add up", c->eta, (long long)c->mini_batch);
}

#define PAPER "Sun, Li, Dalal, Xu, Vikram, Zhang, Dubois, Chen, Wang, Koyejo, Hashimoto & Guestrin 2024, arXiv 2407.04620"
const mn_mixer_def mn_mixer_ttt_linear = {
    .name = "ttt_linear",
    .page = "ttt",
    .kind = "state",
    .summary = "test-time training: the state is a linear model that learns values from keys",
    .paper = PAPER,
    .config_size = sizeof(ttt_config),
    .fields = linear_fields,
    .check = check,
    .apply = apply_linear,
    .remedy = remedy,
};
const mn_mixer_def mn_mixer_ttt_mlp = {
    .name = "ttt_mlp",
    .page = "ttt",
    .kind = "state",
    .summary = "test-time training: the state is a network of two layers that learns values from keys",
    .paper = PAPER,
    .config_size = sizeof(ttt_config),
    .fields = mlp_fields,
    .check = check,
    .apply = apply_mlp,
    .remedy = remedy,
};
