/* rwkv7.c - RWKV-7's time mixing (Peng et al. 2025, arXiv 2503.14456): a matrix memory that forgets by key channel and takes away
 * what it holds along a direction of its own, apart from the key that is written.
 *
 *     x^c_t = x_t + mu_c * (x_{t-1} - x_t)                                       c = r, w, k, v, a, g
 *     r = W_r x^r    k = W_k x^k    v = W_v x^v    g = G_2 sigmoid(G_1 x^g)      a = sigmoid(a_0 + A_2 A_1 x^a)
 *     w = exp(-exp(-1/2) sigmoid(w_0 + D_2 tanh(D_1 x^w)))                       decay [K], in (0.54, 1)
 *     kappa = l2norm(k * xi)    k~ = k * (1 + (a - 1) * alpha)
 *     W_t = diag(w_t) W_{t-1} - (a_t * kappa_t)^T (kappa_t W_{t-1}) + k~_t^T v_t  (rows: o_t = r_t W_t; the paper's S is W transposed)
 *     y_t = W_o [ g_t * (GroupNorm(r_t W_t) + (sum r_t * rho * k~_t) v_t) ]
 * The paper's value residual mixes in the first layer's values: that layer says `values: first`, which hands its v to those above, and
 * they say `values: mixed`:
 *     v_t <- v_t + (v^first_t - v_t) * sigmoid(v_0 + V_2 V_1 x^v)
 * Its channel part sees the token before, too:   out = W_v relu(W_k (x_t + mu * (x_{t-1} - x_t)))^2 */
#include "graph/fused_norm.h"
#include "graph/fused_recurrence.h"
#include "nn/channel.h"
#include "nn/heads.h"
#include "nn/mixer.h"

typedef struct rwkv7_config {
  int64_t heads, head_dim, decay_rank, rate_rank, gate_rank, value_rank;
  double norm_eps;
  int values; /* VALUES_... */
} rwkv7_config;

enum { VALUES_OWN, VALUES_FIRST, VALUES_MIXED };
static const char *const values_words[] = {"own", "first", "mixed", NULL};
#define FIRST_VALUES "rwkv7_values" /* shared by the layer that says so: [B,T,H,K], exact type */

#define S rwkv7_config
static const mn_field fields[] = {
    MN_FIELD_INT(S, heads, 4, 1, 4096, "heads H"),
    MN_FIELD_INT(S, head_dim, 0, 0, 4096, "width K of a head; 0: d_model / heads"),
    MN_FIELD_INT(S, decay_rank, 32, 1, 4096, "width between the two projections of the decay w"),
    MN_FIELD_INT(S, rate_rank, 32, 1, 4096, "width between the two projections of the rate a"),
    MN_FIELD_INT(S, gate_rank, 64, 1, 4096, "width between the two projections of the gate g"),
    MN_FIELD_ENUM(S, values, values_words, VALUES_OWN,
                  "own: of this layer alone; first: and layers above may mix them in; mixed: they are mixed in", MN_SPARSE),
    MN_FIELD_INT(S, value_rank, 32, 1, 4096, "values mixed: width between the two projections of their share", MN_SPARSE),
    MN_FIELD_FLOAT(S, norm_eps, 64e-5, DBL_MIN, 1, "of the norm of what is read", MN_SPARSE),
    MN_FIELD_END};
#undef S

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  rwkv7_config *c = config;
  if (c->values != VALUES_MIXED && mn_config_given(map, "value_rank"))
    return mn_config_fail(map, where, "value_rank", "has no effect without values: mixed; leave it out");
  return mn_check_heads(map, where, d_model, c->heads, &c->head_dim);
}

static const mn_init init = {MN_INIT_NORMAL, 0.02, 0};

/* x and the token before each, mixed by what each projection likes: x^c [B,T,D] for c in `names` */
static void mixed(mn_scope *s, mn_tensor *x, int n, const char *const *names, mn_tensor **out) {
  mn_graph *g = mn_scope_graph(s);
  int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), D = mn_dim(x, 2);
  mn_tensor *last = mn_state(s, "x", mn_scope_exact(s), MN_SHAPE(B, 1, D), NULL, "the last token's input");
  mn_tensor *before = mn_cast(g, last, mn_type(x));
  mn_state_set(s, "x", mn_cast(g, mn_scope_last(s, before, x), mn_scope_exact(s)));
  if (T > 1) before = mn_concat(g, 2, (mn_tensor *[]){before, mn_slice(g, x, 1, 0, T - 1)}, 1);
  mn_tensor *change = mn_sub(g, before, x);
  for (int i = 0; i < n; i++) {
    mn_tensor *mu =
        mn_param(s, names[i], MN_SHAPE(D), (mn_init){MN_INIT_CONSTANT, 0.5, 0}, MN_PARAM_NO_DECAY, "share of the token before [D]");
    out[i] = mn_add(g, x, mn_mul(g, change, mn_cast(g, mu, mn_type(x))));
  }
}

/* by heads, a parameter [H,K] in the exact type */
static mn_tensor *by_channel(mn_scope *s, const char *name, const rwkv7_config *c, double start, const char *help) {
  return mn_param_exact(s, name, MN_SHAPE(c->heads, c->head_dim), (mn_init){MN_INIT_CONSTANT, start, 0}, MN_PARAM_NO_DECAY, help);
}

/* Values v [B,T,H,K] of x^v with those of the first layer, as the keys say. */
static mn_tensor *values_of(mn_scope *s, const rwkv7_config *c, mn_tensor *v, mn_tensor *xv) {
  mn_graph *g = mn_scope_graph(s);
  if (c->values == VALUES_FIRST) mn_share(s, FIRST_VALUES, v);
  if (c->values != VALUES_MIXED) return v;
  mn_tensor *first = mn_shared(s, FIRST_VALUES);
  if (!first || !mn_shape_equal(&first->shape, &v->shape)) {
    mn_graph_fault(g, MN_ERR_CONFIG, "%svalues: mixed needs a layer below it with values: first, and as many heads of the same head_dim",
                   mn_scope_path(s));
    return v;
  }
  mn_tensor *share = mn_linear_exact(s, "v_up", mn_linear(s, "v_down", xv, c->value_rank, MN_NO_BIAS, init), c->heads * c->head_dim,
                                     MN_BIAS, init, MN_ZEROS);
  return mn_add(g, v, mn_mul(g, mn_sub(g, first, v), mn_split_heads(s, mn_sigmoid(g, share), c->heads)));
}

static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) {
  const rwkv7_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  mn_dtype exact = mn_scope_exact(s);
  enum { R, W, K_, V, A, G, MIXED };
  static const char *const names[MIXED] = {"mu_r", "mu_w", "mu_k", "mu_v", "mu_a", "mu_g"};
  mn_tensor *xs[MIXED];
  int64_t B = mn_dim(x, 0), D = mn_dim(x, 2), H = c->heads, K = c->head_dim;
  mixed(s, x, MIXED, names, xs);
  mn_tensor *r = mn_split_heads(s, mn_linear_exact(s, "r_proj", xs[R], H * K, MN_NO_BIAS, init, MN_ZEROS), H); /* [B,T,H,K] */
  mn_tensor *k = mn_split_heads(s, mn_linear_exact(s, "k_proj", xs[K_], H * K, MN_NO_BIAS, init, MN_ZEROS), H);
  mn_tensor *v = mn_split_heads(s, mn_linear_exact(s, "v_proj", xs[V], H * K, MN_NO_BIAS, init, MN_ZEROS), H);
  v = values_of(s, c, v, xs[V]);
  mn_tensor *low = mn_tanh(g, mn_linear(s, "w_down", xs[W], c->decay_rank, MN_NO_BIAS, init));
  mn_tensor *w = mn_linear_exact(s, "w_up", low, H * K, MN_BIAS, init, (mn_init){MN_INIT_CONSTANT, -2, 0});
  mn_tensor *log_w = mn_mul_scalar(g, mn_split_heads(s, mn_sigmoid(g, w), H), -0.60653065971263342360); /* exp(-1/2) */
  mn_tensor *rate =
      mn_linear_exact(s, "a_up", mn_linear(s, "a_down", xs[A], c->rate_rank, MN_NO_BIAS, init), H * K, MN_BIAS, init, MN_ZEROS);
  mn_tensor *a = mn_split_heads(s, mn_sigmoid(g, rate), H);
  mn_tensor *kappa = mn_norm(g, MN_NORM_L2, mn_mul(g, k, by_channel(s, "xi", c, 0.85, "what the erased direction takes of the key [H,K]")),
                             NULL, NULL, 1e-6, exact);
  mn_tensor *less = mn_mul(g, mn_add_scalar(g, a, -1), by_channel(s, "alpha", c, 1, "how far the rate shortens the written key [H,K]"));
  mn_tensor *written = mn_mul(g, k, mn_add_scalar(g, less, 1)); /* k~ */
  mn_recurrence_io io = {
      .q = r,
      .k = written,
      .v = v,
      .log_a = log_w,
      .erase = mn_mul(g, a, kappa),
      .probe = kappa,
      .w0 = mn_state(s, "W", exact, MN_SHAPE(B, H, K, K), NULL, "memory: a query r reads r W"),
  };
  mn_linear_memory(s, &io, (mn_recurrence_attr){.write = MN_WRITE_ERASE, .chunk = 64});
  mn_state_set(s, "W", io.w);
  mn_tensor *gain = by_channel(s, "norm.weight", c, 1, "norm's gain [H,K]"), *bias = by_channel(s, "norm.bias", c, 0, "norm's bias [H,K]");
  mn_tensor *o = mn_norm(g, MN_NORM_LAYER, io.o, NULL, NULL, c->norm_eps, exact);
  o = mn_add(g, mn_mul(g, o, gain), bias);
  mn_tensor *now = mn_mul(g, mn_mul(g, r, written), by_channel(s, "rho", c, 0, "how much of the current value is read by itself [H,K]"));
  o = mn_add(g, o, mn_mul(g, mn_sum(g, now, MN_AXIS(3)), v));
  mn_tensor *gate = mn_linear_exact(s, "g_up", mn_sigmoid(g, mn_linear(s, "g_down", xs[G], c->gate_rank, MN_NO_BIAS, init)), H * K,
                                    MN_NO_BIAS, init, MN_ZEROS);
  return mn_linear(s, "o_proj", mn_cast(g, mn_mul(g, mn_join_heads(s, o), gate), mn_scope_compute(s)), D, MN_NO_BIAS, init);
}

const mn_mixer_def mn_mixer_rwkv7 = {
    .name = "rwkv7",
    .kind = "state",
    .summary = "matrix memory that forgets by key channel and erases along a direction of its own",
    .paper = "Peng et al. 2025, arXiv 2503.14456",
    .config_size = sizeof(rwkv7_config),
    .fields = fields,
    .check = check,
    .apply = apply,
};

static mn_tensor *channel_mix(mn_scope *s, const void *config, int64_t hidden, mn_tensor *x) {
  (void)config;
  static const char *const names[] = {"mu_k"};
  mn_tensor *xk;
  mixed(s, x, 1, names, &xk);
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *k = mn_relu(g, mn_linear(s, "k_proj", xk, hidden, MN_NO_BIAS, init));
  return mn_linear(s, "v_proj", mn_mul(g, k, k), mn_dim(x, 2), MN_NO_BIAS, init);
}

const mn_channel_def mn_channel_channel_mix = {
    .name = "channel_mix",
    .summary = "RWKV's: squared relu of a mix with the token before, which is its state",
    .expand = 4,
    .apply = channel_mix,
};
