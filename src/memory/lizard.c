/* lizard.c - Lizard (Nguyen, Nguyen, Zhang, Deilamsalehy, Mathur, Lai, Wang, Subramanian, Rossi, Bui, Vlassis, Dernoncourt & Nguyen 2025,
 * arXiv 2507.09025): what a trained softmax attention is replaced by, so that it remembers in a fixed size. The whole past is a gated
 * linear attention with learned feature maps, the last tokens a softmax of their own, beside which a few learned logits without values
 * (meta memory) stand. q, k, v are those of the attention, without rotary positions:
 *
 *     gamma_t = sigmoid(w . x_t + b)                                         one number per token, for all heads
 *     phi_q(q) = [exp(F_q q), exp(-F_q q)]     phi_k(k) = [exp(F_k k), exp(-F_k k)]
 *     S_t = gamma_t S_{t-1} + phi_k(k_t) v_t^T     z_t = gamma_t z_{t-1} + phi_k(k_t)
 *     G_t = phi_q(q_t)^T S_t / phi_q(q_t)^T z_t
 *     A_t = sum_i e^{q_t . k_i / sqrt(d)} v_i / (sum_j e^{s_j} + sum_i e^{q_t . k_i / sqrt(d)}),    i in (t - window, t]
 *     y_t = W_o concat_h [ G_t + alpha A_t ]
 * Exponentials are kept small as in a running softmax: with e_t the largest |F_k k_t| and mu_t = max(mu_{t-1} + log gamma_t, e_t), the
 * memory holds S e^{-mu} and z e^{-mu}, which fade by e^{mu_{t-1} + log gamma_t - mu_t} and are written by e^{+-F_k k_t - mu_t}. The last
 * column of the memory is z: the value there is 1. A head of keys has one memory, whatever the number of query heads that read it. */
#include "graph/fused_recurrence.h"
#include "graph/fused_softmax.h"
#include "memory/attention.h"
#include "nn/heads.h"
#include "nn/mixer.h"
#include "nn/prefix.h"

#include <math.h>

typedef struct lizard_config {
  int64_t heads, kv_heads, head_dim, window, meta_tokens, features, rope_original_context, rope_dim;
  double gate_bias, alpha_init, rope_theta, rope_factor;
  int branches, feature_act, norm, gate, alpha, rope_scaling;
  bool feature_per_head, window_rope, bias;
} lizard_config;

enum { BOTH, GATED, WINDOW };
enum { EXP, SOFTMAX };
enum { ROW, UNNORMED, JOINT };
enum { TOKEN, NO_GATE };
enum { LEARNED, PER_HEAD, FIXED };
static const char *const branches[] = {"both", "gated", "window", NULL};
static const char *const acts[] = {"exp", "softmax", NULL};
static const char *const norms[] = {"row", "none", "joint", NULL};
static const char *const gate_words[] = {"token", "none", NULL};
static const char *const alphas[] = {"learned", "per_head", "fixed", NULL};
static const char *const scalings[] = {"none", "linear", "ntk", "yarn", "llama3", NULL}; /* in the order of mn_rope_scaling */
#define S lizard_config
static const mn_field fields[] = {
    MN_FIELD_INT(S, heads, 4, 1, 4096, "query heads H"),
    MN_FIELD_INT(S, kv_heads, 0, 0, 4096, "key/value heads G, a divisor of heads; 0: as many as heads"),
    MN_FIELD_INT(S, head_dim, 0, 0, 4096, "width d of a head; 0: d_model / heads"),
    MN_FIELD_BOOL(S, bias, false, "biases in the projections"),
    MN_FIELD_ENUM(S, branches, branches, BOTH, "the gated memory and the window, or one of them alone"),
    MN_FIELD_INT(S, features, 0, 0, 65536,
                 "width F of the feature maps, whose features are 2 F; 0: head_dim, and they start as the identity"),
    MN_FIELD_ENUM(S, feature_act, acts, EXP, "of F_q q and -F_q q: exp, or softmax over the F entries of each"),
    MN_FIELD_BOOL(S, feature_per_head, true, "a feature map for each head, or one for all heads of the layer"),
    MN_FIELD_ENUM(S, norm, norms, ROW, "divide the memory's reading by its own sum of weights, by none, or both branches by one sum"),
    MN_FIELD_ENUM(S, gate, gate_words, TOKEN, "gamma of each token, or none: nothing is forgotten"),
    MN_FIELD_FLOAT(S, gate_bias, 3, -1e9, 1e9,
                   "where the gate's bias starts: gamma is its sigmoid then; 0: there is no bias, as in the paper"),
    MN_FIELD_INT(S, window, 128, 1, 1 << 24, "tokens that the softmax sees, the present one among them", MN_TOKENS),
    MN_FIELD_INT(S, meta_tokens, 4, 0, 65536, "meta memory: m learned logits beside the window, keys without values; they start at 0"),
    MN_FIELD_ENUM(S, alpha, alphas, LEARNED, "the weight of the window: one number, one for each head, or fixed"),
    MN_FIELD_FLOAT(S, alpha_init, 1, -1e6, 1e6, "where alpha starts, or stays"),
    MN_FIELD_BOOL(S, window_rope, false, "rotary positions in the window"),
    MN_FIELD_FLOAT(S, rope_theta, 10000, 1, 1e12, "base of the rotary frequencies"),
    MN_FIELD_ENUM(S, rope_scaling, scalings, 0, "how rotary frequencies are stretched for longer contexts"),
    MN_FIELD_FLOAT(S, rope_factor, 1, 1, 1e6, "how many times longer than rope_original_context"),
    MN_FIELD_INT(S, rope_original_context, 4096, 1, 1 << 28, "context before stretching"),
    MN_FIELD_INT(S, rope_dim, 0, 0, 4096, "entries of a head that are rotated, the first ones; 0: all"),
    MN_FIELD_END};
#undef S

/* The window as an attention. */
static mn_attention_config attention_of(const lizard_config *c) {
  return (mn_attention_config){.heads = c->heads,
                               .kv_heads = c->kv_heads,
                               .head_dim = c->head_dim,
                               .window = c->window,
                               .causal = true,
                               .max_context = MN_USUAL_CONTEXT,
                               .rope = c->window_rope,
                               .rope_dim = c->rope_dim,
                               .rope_theta = c->rope_theta,
                               .rope_scaling = c->rope_scaling,
                               .rope_factor = c->rope_factor,
                               .rope_original_context = c->rope_original_context};
}

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  lizard_config *c = config;
  static const char *const of_window[] = {"window", "meta_tokens", "window_rope", "alpha", "alpha_init"};
  static const char *const of_memory[] = {"gate", "gate_bias", "features", "feature_act", "feature_per_head", "norm"};
  static const char *const of_rope[] = {"rope_theta", "rope_scaling", "rope_factor", "rope_original_context", "rope_dim"};
  for (int i = 0; i < 5; i++)
    if (c->branches == GATED && mn_config_given(map, of_window[i]))
      return mn_config_fail(map, where, of_window[i], "has no effect with branches: gated, which has no window; leave it out");
  for (int i = 0; i < 6; i++)
    if (c->branches == WINDOW && mn_config_given(map, of_memory[i]))
      return mn_config_fail(map, where, of_memory[i], "has no effect with branches: window, which has no memory; leave it out");
  for (int i = 0; i < 5; i++)
    if (!c->window_rope && mn_config_given(map, of_rope[i]))
      return mn_config_fail(map, where, of_rope[i], "has no effect without window_rope: true; leave it out");
  if (c->gate == NO_GATE && mn_config_given(map, "gate_bias"))
    return mn_config_fail(map, where, "gate_bias", "has no effect with gate: none; leave it out");
  if (c->norm == JOINT && c->branches != BOTH)
    return mn_config_fail(map, where, "norm", "joint is one sum for both branches, and branches: %s has one", branches[c->branches]);
  mn_attention_config a = attention_of(c);
  MN_TRY(mn_attention_check(map, where, d_model, &a));
  c->kv_heads = a.kv_heads, c->head_dim = a.head_dim;
  if (!c->features) c->features = c->head_dim;
  return MN_OK;
}

/* F x of each head: x [B,T,h,d] -> [B,T,h,F], exact. Where it can be, F is kept as what is added to the identity. */
static mn_tensor *mapped(mn_scope *s, const lizard_config *c, const char *name, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), h = mn_dim(x, 2), d = c->head_dim, F = c->features, n = c->feature_per_head ? h : 1;
  const bool square = F == d;
  mn_tensor *map = mn_param_exact(s, name, MN_SHAPE(n, F, d), square ? MN_ZEROS : MN_NORMAL(0.02), MN_PARAM_NO_DECAY,
                                  "feature map of a head [heads or 1, F, d]; where F is d, less the identity");
  if (square) {
    mn_tensor *row = mn_iota(g, MN_I32, MN_SHAPE(1, F, d), 1), *column = mn_iota(g, MN_I32, MN_SHAPE(1, F, d), 2);
    map = mn_add(g, map, mn_cast(g, mn_eq(g, row, column), mn_type(map)));
  }
  map = mn_transpose(g, map, 1, 2); /* [n,d,F] */
  if (n == 1) return mn_reshape(g, mn_matmul(g, mn_reshape(g, x, MN_SHAPE(1, B * T * h, d)), map), MN_SHAPE(B, T, h, F));
  mn_tensor *by_head = mn_reshape(g, mn_permute(g, x, (int[]){2, 0, 1, 3}), MN_SHAPE(h, B * T, d));
  return mn_permute(g, mn_reshape(g, mn_matmul(g, by_head, map), MN_SHAPE(h, B, T, F)), (int[]){1, 2, 0, 3});
}

static mn_tensor *both_signs(mn_graph *g, mn_tensor *z, mn_tensor *less) { /* [exp(z - less), exp(-z - less)] */
  return mn_exp(g, mn_concat(g, 2, (mn_tensor *[]){mn_sub(g, z, less), mn_sub(g, mn_neg(g, z), less)}, 3));
}
static mn_tensor *both_softmax(mn_graph *g, mn_tensor *z) {
  return mn_concat(g, 2, (mn_tensor *[]){mn_softmax(g, z), mn_softmax(g, mn_neg(g, z))}, 3);
}
static mn_tensor *largest(mn_graph *g, mn_tensor *z) { return mn_max(g, mn_abs(g, z), MN_AXIS(3)); } /* [B,T,h,1] */

/* log gamma [B,T,1], exact; NULL: nothing is forgotten. */
static mn_tensor *log_gate(mn_scope *s, const lizard_config *c, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  if (c->gate == NO_GATE) return NULL;
  const mn_init start = {MN_INIT_CONSTANT, c->gate_bias, 0};
  mn_tensor *z = mn_linear_exact(s, "gate_proj", x, 1, c->gate_bias != 0 ? MN_BIAS : MN_NO_BIAS, MN_ZEROS, start);
  mn_report(s, "gamma", mn_sigmoid(g, mn_reshape(g, z, MN_SHAPE(mn_dim(x, 0), mn_dim(x, 1)))));
  return mn_scope_masked(s, mn_log_sigmoid(g, z), 0);
}

/* What is written and how it fades: of features with exponents, beside the running offset mu. */
typedef struct written {
  mn_tensor *phi, *log_a, *mu; /* [B,T,G,2F], [B,T,G] or NULL, [B,T,G] or NULL: 0 */
} written;

static written to_write(mn_scope *s, const lizard_config *c, mn_tensor *z, mn_tensor *log_gamma) {
  mn_graph *g = mn_scope_graph(s);
  const mn_dtype t = mn_scope_exact(s);
  const int64_t B = mn_dim(z, 0), T = mn_dim(z, 1), G = c->kv_heads;
  const mn_shape gates = MN_SHAPE(B, T, G), last = MN_SHAPE(B, G);
  if (c->feature_act == SOFTMAX) return (written){.phi = both_softmax(g, z), .log_a = log_gamma ? mn_expand(g, log_gamma, gates) : NULL};
  mn_tensor *e = mn_scope_masked(s, mn_reshape(g, largest(g, z), gates), MN_NOTHING);
  mn_tensor *mu0 =
      mn_state(s, "mu", t, last, mn_full(g, t, last, MN_NOTHING), "the memory holds its sums times e^-mu; -1e30: no token yet");
  mn_tensor *all = mn_running_max(g, mu0, e, log_gamma); /* [B,1+T,G] */
  mn_tensor *mu = mn_slice(g, all, 1, 1, T), *before = mn_slice(g, all, 1, 0, T), *nothing = mn_scalar(g, t, MN_NOTHING / 2);
  mn_state_set(s, "mu", mn_reshape(g, mn_slice(g, all, 1, T, 1), last));
  mn_tensor *fade = mn_sub(g, log_gamma ? mn_add(g, before, log_gamma) : before, mu);
  /* what is further below than an f32 (f64) reaches is 0; where nothing was, nothing fades */
  fade = mn_maximum(g, mn_minimum(g, fade, mn_scalar(g, t, 0)), mn_scalar(g, t, t == MN_F64 ? -600 : -80));
  fade = mn_scope_masked(s, mn_select(g, mn_lt(g, before, nothing), mn_scalar(g, t, 0), fade), 0);
  mu = mn_select(g, mn_lt(g, mu, nothing), mn_scalar(g, t, 0), mu); /* padding in front of everything */
  return (written){both_signs(g, z, mn_reshape(g, mu, MN_SHAPE(B, T, G, 1))), fade, mu};
}

/* The R heads that read one memory stand one behind the other as steps of it: x [B,T,G,R,W] -> [B,T R,G,W]. */
static mn_tensor *in_turn(mn_graph *g, mn_tensor *x) {
  const int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), G = mn_dim(x, 2), R = mn_dim(x, 3), W = mn_dim(x, 4);
  return mn_reshape(g, mn_permute(g, x, (int[]){0, 1, 3, 2, 4}), MN_SHAPE(B, T * R, G, W));
}
static mn_tensor *for_each(mn_graph *g, mn_tensor *x, int64_t R) { /* [B,T,G,W], the same for each of them */
  const mn_shape s = MN_SHAPE(mn_dim(x, 0), mn_dim(x, 1), mn_dim(x, 2), R, mn_dim(x, 3));
  return in_turn(g, mn_expand(g, mn_unsqueeze(g, x, 3), s));
}
static mn_tensor *first_alone(mn_graph *g, mn_tensor *x, int64_t R) { /* [B,T,G]: the first writes and fades, the others only read */
  const int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), G = mn_dim(x, 2);
  return mn_reshape(g, mn_pad(g, mn_reshape(g, x, MN_SHAPE(B, T, 1, G)), 2, 0, R - 1), MN_SHAPE(B, T * R, G));
}

/* What the gated memory says, [B,T,H,d] exact, and, for who wants it, the log of its sum of weights [B,T,H,1]. */
static mn_tensor *gated(mn_scope *s, const lizard_config *c, mn_tensor *x, mn_tensor *q, mn_tensor *k, mn_tensor *v, mn_tensor **log_sum) {
  mn_graph *g = mn_scope_graph(s);
  const mn_dtype t = mn_scope_exact(s);
  const int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), H = c->heads, G = c->kv_heads, R = H / G, d = c->head_dim, K = 2 * c->features;
  mn_tensor *zq = mapped(s, c, "feature_q", q), *zk = mapped(s, c, "feature_k", k); /* [B,T,H,F], [B,T,G,F] */
  const written w = to_write(s, c, zk, log_gate(s, c, x));
  mn_tensor *top = c->feature_act == EXP ? largest(g, zq) : NULL, *one = mn_full(g, t, MN_SHAPE(B, T, G, 1), 1);
  mn_tensor *phi = top ? both_signs(g, zq, top) : both_softmax(g, zq);
  mn_tensor *beta = mn_scope_masked(s, mn_full(g, t, MN_SHAPE(B, T, G), 1), 0);
  mn_recurrence_io io = {
      .q = in_turn(g, mn_reshape(g, phi, MN_SHAPE(B, T, G, R, K))),
      .k = for_each(g, w.phi, R),
      .v = for_each(g, mn_concat(g, 2, (mn_tensor *[]){mn_cast(g, v, t), one}, 3), R),
      .beta = first_alone(g, beta, R),
      .log_a = w.log_a ? first_alone(g, w.log_a, R) : NULL,
      .w0 = mn_state(s, "S", t, MN_SHAPE(B, G, K, d + 1), NULL, "the memory of each key/value head [2F, d+1]; the last column is z"),
  };
  mn_linear_recurrence(g, &io, (mn_recurrence_attr){.write = MN_WRITE_VALUE, .chunk = 64});
  mn_state_set(s, "S", io.w);
  mn_tensor *read =
      mn_reshape(g, mn_permute(g, mn_reshape(g, io.o, MN_SHAPE(B, T, R, G, d + 1)), (int[]){0, 1, 3, 2, 4}), MN_SHAPE(B, T, H, d + 1));
  mn_tensor *sum = mn_slice(g, read, 3, 0, d), *weights = mn_maximum(g, mn_slice(g, read, 3, d, 1), mn_scalar(g, t, 1e-30));
  if (c->norm == ROW) return mn_div(g, sum, weights);
  mn_tensor *scale = mn_scalar(g, t, 0); /* log of what the sums have to be multiplied by */
  if (w.mu) {
    mn_tensor *mu = mn_expand(g, mn_reshape(g, w.mu, MN_SHAPE(B, T, G, 1)), MN_SHAPE(B, T, G, R));
    scale = mn_add(g, mn_reshape(g, mu, MN_SHAPE(B, T, H, 1)), top);
  }
  if (c->norm == UNNORMED) return mn_mul(g, sum, mn_exp(g, scale));
  *log_sum = mn_add(g, mn_log(g, weights), scale);
  return mn_div(g, sum, weights);
}

/* What the window says beside its meta tokens, [B,T,H,d] exact, and the log of its sum of weights [B,T,H,1]. */
static mn_tensor *window(mn_scope *s, const lizard_config *c, mn_tensor *q, mn_tensor *k, mn_tensor *v, mn_tensor **log_sum) {
  mn_graph *g = mn_scope_graph(s);
  const mn_dtype t = mn_scope_exact(s);
  const mn_attention_config a = attention_of(c);
  mn_tensor *lse;
  q = mn_cast(g, q, mn_type(v)), k = mn_cast(g, k, mn_type(v));
  if (a.rope) mn_attention_rotate(s, &a, &q, &k);
  mn_tensor *o = mn_cast(g, mn_attention_heads(s, &a, q, k, v, &lse), t);
  lse = mn_unsqueeze(g, mn_transpose(g, mn_cast(g, lse, t), 1, 2), 3);
  *log_sum = lse;
  if (!c->meta_tokens) return o;
  mn_tensor *meta = mn_param_exact(s, "meta_logits", MN_SHAPE(c->meta_tokens), MN_ZEROS, MN_PARAM_NO_DECAY,
                                   "logits of the meta tokens [m], keys without values");
  mn_tensor *top = mn_stop_gradient(g, mn_max(g, meta, MN_AXIS(0)));
  mn_tensor *sum = mn_add(g, mn_log(g, mn_sum(g, mn_exp(g, mn_sub(g, meta, top)), MN_AXIS(0))), top); /* [1] */
  mn_tensor *over = mn_sub(g, lse, sum);
  *log_sum = mn_sub(g, lse, mn_log_sigmoid(g, over));
  return mn_mul(g, o, mn_sigmoid(g, over));
}

/* alpha, [1] or [H,1], exact */
static mn_tensor *weight_of_window(mn_scope *s, const lizard_config *c) {
  if (c->alpha == FIXED) return mn_full(mn_scope_graph(s), mn_scope_exact(s), MN_SHAPE(1), c->alpha_init);
  const mn_shape shape = c->alpha == PER_HEAD ? MN_SHAPE(c->heads, 1) : MN_SHAPE(1);
  return mn_param_exact(s, "alpha", shape, (mn_init){MN_INIT_CONSTANT, c->alpha_init, 0}, MN_PARAM_NO_DECAY, "weight of the window");
}

/* G + alpha A, or both as means under one sum of weights, where the window's counts |alpha| times. */
static mn_tensor *joined(mn_scope *s, const lizard_config *c, mn_tensor *G, mn_tensor *A, mn_tensor *log_g, mn_tensor *log_w) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *alpha = weight_of_window(s, c);
  if (c->norm != JOINT || !G) {
    A = mn_mul(g, A, alpha);
    return G ? mn_add(g, G, A) : A;
  }
  mn_tensor *log_alpha = mn_log(g, mn_maximum(g, mn_abs(g, alpha), mn_scalar(g, mn_type(alpha), 1e-30)));
  mn_tensor *share = mn_sigmoid(g, mn_sub(g, mn_add(g, log_w, log_alpha), log_g));
  return mn_add(g, G, mn_mul(g, share, mn_sub(g, A, G)));
}

static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) {
  const lizard_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  const mn_init xavier = {MN_INIT_XAVIER_UNIFORM, 1, 0};
  const int64_t D = mn_dim(x, 2), H = c->heads, M = c->kv_heads, d = c->head_dim;
  mn_tensor *q = mn_split_heads(s, mn_linear_exact(s, "q_proj", x, H * d, c->bias, xavier, MN_ZEROS), H);
  mn_tensor *k = mn_split_heads(s, mn_linear_exact(s, "k_proj", x, M * d, c->bias, xavier, MN_ZEROS), M);
  mn_tensor *v = mn_split_heads(s, mn_linear(s, "v_proj", x, M * d, c->bias, xavier), M);
  mn_tensor *log_g = NULL, *log_w = NULL;
  mn_tensor *G = c->branches == WINDOW ? NULL : gated(s, c, x, q, k, v, &log_g);
  mn_tensor *A = c->branches == GATED ? NULL : window(s, c, q, k, v, &log_w);
  mn_tensor *y = mn_cast(g, A ? joined(s, c, G, A, log_g, log_w) : G, mn_scope_compute(s));
  mn_share(s, MN_ATTENTION_HEADS, y);
  return mn_linear(s, "o_proj", mn_join_heads(s, y), D, c->bias, xavier);
}

static void remedy(const void *config, mn_text *out) {
  const lizard_config *c = config;
  if (c->branches != WINDOW && c->norm == UNNORMED) mn_text_add(out, "set norm: row (none now), ");
  mn_text_add(out, "train with a longer warm-up or a lower lr: features are exponentials of queries and keys");
}

const mn_mixer_def mn_mixer_lizard = {
    .name = "lizard",
    .kind = "state + context",
    .summary = "gated linear attention with learned feature maps beside a softmax over the last tokens: what attention is converted to",
    .paper = "Nguyen et al. 2025, arXiv 2507.09025",
    .config_size = sizeof(lizard_config),
    .fields = fields,
    .check = check,
    .apply = apply,
    .remedy = remedy,
};
