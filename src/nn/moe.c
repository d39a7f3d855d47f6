/* moe.c - a channel part of many small networks, of which each token goes through a few (mixture of experts; Shazeer et al. 2017,
 * arXiv 1701.06538; Fedus et al. 2021, arXiv 2101.03961; sigmoid scores and a bias of the choice: DeepSeek-AI 2024, arXiv 2412.19437).
 *
 *     s = softmax(W_r x) or sigmoid(W_r x)    chosen: the top_k largest of s + b    w_e = s_e (/ sum of the chosen s) * scale
 *     y = sum over chosen e of w_e f_e(x) (+ sigmoid(w_s x)) f_shared(x)            f(x) = W_down (silu(W_gate x) * W_up x)
 *
 * b [E] only moves the choice, and no gradient reaches it. In training `balance` times E sum_e f_e P_e is made small, where f_e is the
 * share of the choices that fell on e and P_e the mean of its score. */
#include "graph/fused_experts.h"
#include "graph/fused_softmax.h"
#include "nn/channel.h"

typedef struct moe_config {
  int64_t experts, top_k, shared;
  int score; /* SCORE_... */
  double scale, balance;
  bool normalize, choice_bias, shared_gate;
} moe_config;

enum { SCORE_SOFTMAX, SCORE_SIGMOID };
static const char *const scores[] = {"softmax", "sigmoid", NULL};

#define S moe_config
static const mn_field fields[] = {
    MN_FIELD_INT(S, experts, 8, 2, 65536, "experts E, each of the block's hidden width"),
    MN_FIELD_INT(S, top_k, 2, 1, 256, "experts that a token goes through"),
    MN_FIELD_ENUM(S, score, scores, SCORE_SOFTMAX, "what is made of the router's numbers"),
    MN_FIELD_BOOL(S, normalize, true, "the scores of the chosen add up to 1"),
    MN_FIELD_FLOAT(S, scale, 1, DBL_MIN, 1e6, "of what the experts say"),
    MN_FIELD_BOOL(S, choice_bias, false, "a bias for each expert that moves the choice and nothing else"),
    MN_FIELD_INT(S, shared, 0, 0, 1 << 24, "hidden width of a network that every token goes through besides; 0: none"),
    MN_FIELD_BOOL(S, shared_gate, false, "what it says is scaled by a sigmoid"),
    MN_FIELD_FLOAT(S, balance, 0.01, 0, 1e3, "weight of the loss that spreads the choices over the experts"),
    MN_FIELD_END};
#undef S

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  moe_config *c = config;
  (void)d_model;
  if (c->top_k > c->experts) return mn_config_fail(map, where, "top_k", "must be at most experts, which is %lld", (long long)c->experts);
  if (c->shared_gate && !c->shared)
    return mn_config_fail(map, where, "shared_gate",
                          "has no effect without a shared network; set shared, its hidden width, or leave it out");
  return MN_OK;
}

/* Choices should fall on all experts alike. share [B,T,E]: each expert's score, of all, adding up to 1; index [B,T,k]. */
static void balance(mn_scope *s, const moe_config *c, mn_tensor *share, mn_tensor *index) {
  mn_graph *g = mn_scope_graph(s);
  const mn_dtype exact = mn_scope_exact(s);
  const int64_t B = mn_dim(share, 0), T = mn_dim(share, 1), E = c->experts, k = c->top_k;
  mn_tensor *ones = mn_full(g, exact, MN_SHAPE(B, T, k), 1), *none = mn_full(g, exact, MN_SHAPE(B, T, E), 0);
  mn_tensor *chosen = mn_scope_masked(s, mn_put(g, none, index, ones, 2, MN_PUT_ADD), 0);                            /* [B,T,E] */
  mn_tensor *n = mn_sum(g, mn_scope_masked(s, mn_full(g, exact, MN_SHAPE(B, T, 1), 1), 0), MN_AXIS(0) | MN_AXIS(1)); /* [1,1,1] */
  n = mn_maximum(g, n, mn_scalar(g, exact, 1));
  mn_tensor *f = mn_div(g, mn_sum(g, chosen, MN_AXIS(0) | MN_AXIS(1)), mn_mul_scalar(g, n, (double)k));
  mn_tensor *p = mn_div(g, mn_sum(g, mn_scope_masked(s, share, 0), MN_AXIS(0) | MN_AXIS(1)), n);
  mn_tensor *sum = mn_sum(g, mn_mul(g, mn_stop_gradient(g, f), p), MN_ALL_AXES);
  mn_loss(s, "balance", mn_mul_scalar(g, mn_reshape(g, sum, (mn_shape){0}), (double)E), c->balance);
}

/* Who is chosen, i32 [B,T,k], and with which weights, [B,T,k] exact type. */
static mn_tensor *route(mn_scope *s, const moe_config *c, mn_tensor *x, mn_init init, mn_tensor **weight) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *logits = mn_linear_exact(s, "router", x, c->experts, MN_NO_BIAS, init, MN_ZEROS), *choice; /* [B,T,E] */
  mn_tensor *score = choice = c->score == SCORE_SIGMOID ? mn_sigmoid(g, logits) : mn_softmax(g, logits);
  if (c->choice_bias)
    choice = mn_add(g, score,
                    mn_param_exact(s, "choice_bias", MN_SHAPE(c->experts), MN_ZEROS, MN_PARAM_NO_DECAY | MN_PARAM_FROZEN,
                                   "what is added to the scores for the choice [E]"));
  mn_tensor *index = mn_topk(g, mn_stop_gradient(g, choice), c->top_k), *w = mn_take(g, score, index, 2);
  if (c->normalize) w = mn_div(g, w, mn_add_scalar(g, mn_sum(g, w, MN_AXIS(2)), 1e-20));
  if (c->balance > 0 && mn_scope_training(s))
    balance(s, c, c->score == SCORE_SIGMOID ? mn_div(g, score, mn_add_scalar(g, mn_sum(g, score, MN_AXIS(2)), 1e-20)) : score, index);
  *weight = c->scale == 1 ? w : mn_mul_scalar(g, w, c->scale);
  return index;
}

static mn_tensor *matrices(mn_scope *s, const char *name, int64_t E, int64_t out, int64_t in, mn_init init) {
  mn_tensor *w = mn_param(s, name, MN_SHAPE(E, out, in), init, MN_PARAM_STORED, "projections of the experts [E, out, in]");
  return w && mn_dtype_is_stored(w->dtype) ? w : mn_cast(mn_scope_graph(s), w, mn_scope_compute(s));
}

static mn_tensor *apply(mn_scope *s, const void *config, int64_t hidden, mn_tensor *x) {
  const moe_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  const mn_init init = MN_NORMAL(0.02);
  const int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), D = mn_dim(x, 2), E = c->experts, k = c->top_k;
  mn_tensor *weight, *index = route(s, c, x, init, &weight);
  mn_tensor *gate = matrices(s, "experts.gate_proj.weight", E, hidden, D, init);
  mn_tensor *up = matrices(s, "experts.up_proj.weight", E, hidden, D, init);
  mn_tensor *down = matrices(s, "experts.down_proj.weight", E, D, hidden, init);
  mn_tensor *y = mn_experts(g, mn_reshape(g, x, MN_SHAPE(B * T, D)), gate, up, down, mn_reshape(g, index, MN_SHAPE(B * T, k)),
                            mn_reshape(g, weight, MN_SHAPE(B * T, k)), mn_scope_exact_products(s));
  y = mn_reshape(g, y, MN_SHAPE(B, T, D));
  if (!c->shared) return y;
  mn_tensor *also = mn_gated_units(mn_scope_in(s, "shared"), c->shared, MN_SILU, MN_NO_BIAS, x);
  if (c->shared_gate) {
    mn_tensor *open = mn_sigmoid(g, mn_linear_exact(s, "shared_gate", x, 1, MN_NO_BIAS, init, MN_ZEROS));
    also = mn_mul(g, also, mn_cast(g, open, mn_type(also)));
  }
  return mn_add(g, y, also);
}

const mn_channel_def mn_channel_moe = {
    .name = "moe",
    .summary = "many gated networks, of which each token goes through a few",
    .expand = 8.0 / 3.0,
    .config_size = sizeof(moe_config),
    .fields = fields,
    .check = check,
    .apply = apply,
};
