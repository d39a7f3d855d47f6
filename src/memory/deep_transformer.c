/* deep_transformer.c - the memories of ATLAS whose features are those of the exponential (Behrouz et al. 2025): phi*(q) . phi*(k) = exp(q . k),
 * infinitely many, and never formed. A first matrix that has learnt by gradient steps is its start and a sum over what it was shown, so
 * what is kept is each token's key and gradient, as attention keeps keys and values:
 *     q_t, k_t = rms-normed W_Q x_t, W_K x_t     v_t = W_V x_t     theta_t = lr_max sigmoid(lr_proj x_t)
 *     M(z) = gelu(z W_0 + sum_i kappa(z, k_i) P_i) (W_1 + sum_i a_i^T Q_i)             mlp
 *     M(z) = sum_i kappa(z, k_i) P_i                                                   linear
 *     kappa(z, k) = exp(z . k / sqrt(d)), or its share of the sum over i with normalize
 *     token t appends k_t, P_t = -theta_t delta_1, a_t = gelu(...), Q_t = -theta_t delta_2: the gradient of l at the anchor, factored
 *     o_t = W_O RMSNorm_head(M_t(q_t))
 * The sums are over tokens before the chunk where a gradient is taken (the anchor), and up to the token's own where it reads; with a
 * window over the last c tokens alone. By type:
 *     deep_transformer  l = -M(k) . v           linear: attention, unnormalised, or softmax with normalize
 *     swdt              the same, of the last c tokens
 *     dot               l = 1/2 |M(k) - v|^2    linear: the delta rule on exponential features */
#include <math.h>

#include "graph/fused_softmax.h"
#include "nn/fast_layer.h"
#include "nn/heads.h"
#include "nn/mixer.h"

typedef struct kernel_config {
  int64_t heads, head_dim, memory_expand, chunk, memory_window, max_context;
  int memory_net;
  bool normalize;
  double lr_max, grad_clamp;
  bool attracts; /* of the type: the loss is -M(k) . v */
} kernel_config;

enum { NET_LINEAR, NET_MLP };
static const char *const nets[] = {"linear", "mlp", NULL};

enum { EXPAND = 4 };
#define S kernel_config
#define MEMORY                                                                                                                             \
  MN_FIELD_INT(S, heads, 4, 1, 4096, "heads H, each with a memory of its own"),                                                            \
      MN_FIELD_INT(S, head_dim, 0, 0, 4096, "width d of a head; 0: d_model / heads"),                                                      \
      MN_FIELD_ENUM(S, memory_net, nets, NET_MLP, "what the memory is: one matrix, or an MLP of two"),                                     \
      MN_FIELD_INT(S, memory_expand, EXPAND, 1, 64, "hidden width of the memory over head_dim; linear has none"),                          \
      MN_FIELD_INT(S, chunk, 16, 1, 65536, "tokens between anchors; part of the model, keep it when streaming", MN_TOKENS),                \
      MN_FIELD_BOOL(S, normalize, true, "the kernel's values of a query sum to 1"),                                                        \
      MN_FIELD_FLOAT(S, lr_max, 0.1, 0, 1e6, "upper bound of the learned step size"),                                                      \
      MN_FIELD_FLOAT(S, grad_clamp, 1, 0, 1e9, "m: a gradient of norm n becomes m tanh(n/m), each matrix by itself; 0: off")
#define MAX_CONTEXT MN_FIELD_INT(S, max_context, 4096, 1, 1 << 28, "tokens that a stream's memory holds")
static const mn_field whole_fields[] = {MEMORY, MAX_CONTEXT, MN_FIELD_END};
static const mn_field window_fields[] = {MEMORY, MN_FIELD_INT(S, memory_window, 64, 1, 1 << 20, "tokens that the memory is made of, c"),
                                         MN_FIELD_END};
#undef S

static const mn_init projection = {MN_INIT_XAVIER_UNIFORM, 1, 0};

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  kernel_config *c = config;
  MN_TRY(mn_fast_check_net(map, where, c->memory_net == NET_LINEAR, c->memory_expand, EXPAND, true, true));
  return mn_check_heads(map, where, d_model, c->heads, &c->head_dim);
}
static mn_status check_attracts(const mn_value *map, const char *where, int64_t d_model, void *config) {
  ((kernel_config *)config)->attracts = true;
  return check(map, where, d_model, config);
}

/* ---- what is kept: a row for each token ---- */
static int64_t hidden_of(const kernel_config *c) { return c->memory_net == NET_MLP ? c->memory_expand * c->head_dim : 0; }

typedef struct rows { /* of m tokens, [B,H,m,...]; of a linear memory there are k and P alone */
  mn_tensor *k, *P, *a, *Q;
} rows;
/* side by side, [B,m,H,width] */
static mn_tensor *packed(mn_graph *g, rows r) {
  mn_tensor *each[] = {r.k, r.P, r.a, r.Q};
  return mn_transpose(g, mn_concat(g, r.a ? 4 : 2, each, 3), 1, 2);
}
static int64_t width_of(const kernel_config *c) {
  const int64_t d = c->head_dim, h = hidden_of(c);
  return h ? d + h + h + d : d + d;
}
static rows unpacked(mn_graph *g, const kernel_config *c, mn_tensor *store) {
  const int64_t d = c->head_dim, h = hidden_of(c);
  mn_tensor *all = mn_transpose(g, store, 1, 2);
  rows r = {.k = mn_slice(g, all, 3, 0, d), .P = mn_slice(g, all, 3, d, h ? h : d)};
  if (h) r.a = mn_slice(g, all, 3, d + h, h), r.Q = mn_slice(g, all, 3, d + h + h, d);
  return r;
}

/* ---- the memory at a point: start and rows that are visible to each of n inputs ---- */
typedef struct memory {
  const kernel_config *c;
  mn_tensor *W0, *W1; /* [1,H,d,h], [1,H,h,d]; linear: NULL */
  rows kept;          /* [B,H,S,...]                        */
  mn_tensor *visible; /* bool [B,1,n,S]                     */
} memory;

static mn_tensor *shown(mn_graph *g, const memory *m, mn_tensor *x) { /* x where a row is visible, else 0; x [B,H,n,S] */
  return mn_select(g, m->visible, x, mn_zeros_like(g, x));
}
/* x W_0 + sum_i kappa(x, k_i) P_i, [B,H,n,h] */
static mn_tensor *first(mn_graph *g, const memory *m, mn_tensor *x) {
  mn_tensor *score = mn_mul_scalar(g, mn_matmul(g, x, mn_transpose(g, m->kept.k, 2, 3)), 1 / sqrt((double)m->c->head_dim));
  mn_tensor *hidden = mn_select(g, m->visible, score, mn_scalar(g, mn_type(x), -1e30));
  mn_tensor *kappa = m->c->normalize ? shown(g, m, mn_softmax(g, hidden)) : mn_exp(g, hidden);
  mn_tensor *sum = mn_matmul(g, kappa, m->kept.P);
  return m->W0 ? mn_add(g, mn_matmul(g, x, m->W0), sum) : sum;
}
/* a (W_1 + sum_i a_i^T Q_i), and its transpose: both are (a r^T) s over the visible rows. */
static mn_tensor *over_rows(mn_graph *g, const memory *m, mn_tensor *x, mn_tensor *r, mn_tensor *s) {
  return mn_matmul(g, shown(g, m, mn_matmul(g, x, mn_transpose(g, r, 2, 3))), s);
}
static mn_tensor *second(mn_graph *g, const memory *m, mn_tensor *a) {
  return mn_add(g, mn_matmul(g, a, m->W1), over_rows(g, m, a, m->kept.a, m->kept.Q));
}
static mn_tensor *second_back(mn_graph *g, const memory *m, mn_tensor *delta) {
  return mn_add(g, mn_matmul(g, delta, mn_transpose(g, m->W1, 2, 3)), over_rows(g, m, delta, m->kept.Q, m->kept.a));
}
static mn_tensor *answer(mn_graph *g, const memory *m, mn_tensor *x) {
  mn_tensor *z = first(g, m, x);
  return m->W1 ? second(g, m, mn_gelu(g, z)) : z;
}

/* ---- a token's gradient, as rows ---- */
static mn_tensor *sumsq(mn_graph *g, mn_tensor *x) { return mn_sum(g, mn_square(g, x), MN_AXIS(3)); }
/* -theta delta, of norm m tanh(n / m) where n^2 = size2 */
static mn_tensor *moved(mn_graph *g, const kernel_config *c, mn_tensor *theta, mn_tensor *delta, mn_tensor *size2) {
  mn_tensor *step = mn_neg(g, mn_mul(g, delta, theta));
  if (!(c->grad_clamp > 0)) return step;
  mn_tensor *ratio = mn_mul_scalar(g, mn_sqrt(g, mn_add_scalar(g, size2, 1e-12)), 1 / c->grad_clamp);
  return mn_mul(g, step, mn_div(g, mn_tanh(g, ratio), ratio));
}
static rows learnt(mn_graph *g, const memory *m, mn_tensor *k, mn_tensor *v, mn_tensor *theta) { /* theta [B,H,n,1] */
  const kernel_config *c = m->c;
  mn_tensor *z = first(g, m, k);
  rows r = {.k = k};
  if (!m->W1) {
    mn_tensor *delta = c->attracts ? mn_neg(g, v) : mn_sub(g, z, v);
    r.P = moved(g, c, theta, delta, sumsq(g, delta));
    return r;
  }
  r.a = mn_gelu(g, z);
  mn_tensor *delta2 = c->attracts ? mn_neg(g, v) : mn_sub(g, second(g, m, r.a), v);
  mn_tensor *delta1 = mn_mul(g, second_back(g, m, delta2), mn_gelu_slope(g, z));
  r.P = moved(g, c, theta, delta1, sumsq(g, delta1));
  r.Q = moved(g, c, theta, delta2, mn_mul(g, sumsq(g, delta2), sumsq(g, r.a)));
  return r;
}

/* ---- n tokens of one chunk ---- */
typedef struct context {
  const kernel_config *c;
  int64_t slots; /* rows that are kept */
} context;

static mn_tensor *start(mn_scope *s, const char *name, int64_t H, int64_t in, int64_t out, double gain) {
  mn_graph *g = mn_scope_graph(s);
  const mn_init init = {MN_INIT_XAVIER_UNIFORM, gain, 0};
  mn_tensor *W = mn_param(s, name, MN_SHAPE(H, in, out), init, 0, "the memory at the start of a stream [H,in,out]");
  return mn_unsqueeze(g, mn_cast(g, W, mn_scope_exact(s)), 0);
}

static mn_tensor *normed(mn_scope *s, mn_tensor *x) { /* root mean square 1, so that exp stays within bounds */
  return mn_norm(mn_scope_graph(s), MN_NORM_RMS, x, NULL, NULL, 1e-6, mn_scope_exact(s));
}
static mn_tensor *by_heads(mn_scope *s, const kernel_config *c, const char *name, mn_tensor *x) { /* [B,n,H,d], exact */
  return mn_split_heads(s, mn_linear_exact(s, name, x, c->heads * c->head_dim, MN_NO_BIAS, projection, MN_ZEROS), c->heads);
}

/* Which token each slot holds when `count` [B] have been written, one after the other, round and round: the last one of its slot; negative
 * where there is none yet. [B,1,1,slots] */
static mn_tensor *tokens_of(mn_graph *g, mn_tensor *count, int64_t slots) {
  mn_tensor *last = mn_add_scalar(g, mn_reshape(g, count, MN_SHAPE(mn_dim(count, 0), 1, 1, 1)), -1);
  mn_tensor *ago = mn_sub(g, last, mn_iota(g, MN_I32, MN_SHAPE(1, 1, 1, slots), 3));
  return mn_sub(g, last, mn_mod(g, ago, mn_scalar(g, MN_I32, (double)slots)));
}

static mn_tensor *piece(mn_scope *s, void *ctx, mn_tensor *x) {
  const context *in = ctx;
  const kernel_config *c = in->c;
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(x, 0), n = mn_dim(x, 1), H = c->heads, d = c->head_dim, h = hidden_of(c), slots = in->slots;
  mn_tensor *q = mn_transpose(g, normed(s, by_heads(s, c, "q_proj", x)), 1, 2);
  mn_tensor *k = mn_transpose(g, normed(s, by_heads(s, c, "k_proj", x)), 1, 2), *v = mn_transpose(g, by_heads(s, c, "v_proj", x), 1, 2);
  mn_tensor *rate = mn_sigmoid(g, mn_linear_exact(s, "lr_proj", x, H, MN_BIAS, MN_ZEROS, MN_ZEROS)); /* [B,n,H] */
  mn_tensor *theta = mn_mul_scalar(g, mn_unsqueeze(g, mn_transpose(g, rate, 1, 2), 3), c->lr_max);
  memory m = {.c = c};
  if (h) m.W0 = start(s, "init.0.weight", H, d, h, 1), m.W1 = start(s, "init.1.weight", H, h, d, 1);

  mn_tensor *kept = mn_state(s, "rows", mn_scope_exact(s), MN_SHAPE(B, slots, H, width_of(c)), NULL, "key and gradient of each token");
  mn_tensor *before = mn_scope_position(s), *length = mn_scope_length(s);
  if (!before) before = mn_full(g, MN_I32, MN_SHAPE(B), 0);
  mn_tensor *position = mn_add(g, mn_reshape(g, before, MN_SHAPE(B, 1)), mn_iota(g, MN_I32, MN_SHAPE(1, n), 1)); /* [B,n] */
  mn_tensor *of_chunk = mn_mod(g, position, mn_scalar(g, MN_I32, (double)c->chunk)), *anchor = mn_sub(g, position, of_chunk);
  mn_tensor *t = mn_reshape(g, position, MN_SHAPE(B, 1, n, 1)), *from = mn_reshape(g, anchor, MN_SHAPE(B, 1, n, 1));

  /* a row of token j is visible where j < anchor, or j <= t; with a window where j > t - c */
  mn_tensor *none = mn_scalar(g, MN_I32, -1), *at = tokens_of(g, before, slots);
  mn_tensor *oldest = c->memory_window ? mn_maximum(g, mn_add_scalar(g, t, -(double)c->memory_window), none) : none;
  m.kept = unpacked(g, c, kept);
  m.visible = mn_and(g, mn_lt(g, oldest, at), mn_lt(g, at, from));
  mn_tensor *new = packed(g, learnt(g, &m, k, v, theta));

  mn_tensor *slot = mn_mod(g, position, mn_scalar(g, MN_I32, (double)slots)), *live = mn_scope_live(s, n);
  if (live) slot = mn_select(g, live, slot, mn_scalar(g, MN_I32, -1)); /* padding writes nothing */
  kept = mn_put(g, kept, slot, new, 1, MN_PUT_SET);
  mn_state_set(s, "rows", kept);
  at = tokens_of(g, length ? mn_add(g, before, length) : mn_add_scalar(g, before, (double)n), slots);
  m.kept = unpacked(g, c, kept);
  m.visible = mn_and(g, mn_lt(g, oldest, at), mn_le(g, at, t));
  mn_tensor *y = mn_transpose(g, answer(g, &m, q), 1, 2); /* [B,n,H,d] */
  return mn_linear(s, "o_proj", mn_normed_heads(s, y), mn_dim(x, 2), MN_NO_BIAS, projection);
}

/* Pieces that never cross an anchor: whole chunks where the position is known to begin one, else token by token. A window's ring holds it
 * and the piece that is being written. */
static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) {
  const kernel_config *c = config;
  const int64_t T = mn_dim(x, 1);
  context in = {c, mn_scope_is_stream(s) ? c->max_context : T};
  if (c->memory_window) in.slots = c->memory_window - 1 + c->chunk;
  else mn_scope_limit(s, c->max_context, "max_context", "raise max_context, or take swdt, which has a window");
  int64_t length = c->chunk;
  while (length > 1 && (c->chunk % length || !mn_scope_aligned(s, length))) length--;
  return mn_scope_loop(s, length, piece, &in, x);
}

static void remedy(const void *config, mn_text *out) {
  const kernel_config *c = config;
  mn_text_addf(out, "lower lr_max (%g now)%s%s", c->lr_max, c->grad_clamp > 0 ? "" : ", set grad_clamp: 1 (off now)",
               c->normalize ? "" : ", set normalize: true");
}

#define KERNEL                                                                                                                             \
  .page = "deep_transformer", .kind = "context",                                                                                           \
  .paper = "Behrouz, Li, Kacham, Daliri, Deng, Zhong, Razaviyayn & Mirrokni 2025, arXiv 2505.23735", .config_size = sizeof(kernel_config), \
  .apply = apply, .remedy = remedy
const mn_mixer_def mn_mixer_deep_transformer = {
    .name = "deep_transformer",
    KERNEL,
    .summary = "DeepTransformer: a network with exponential features that is moved towards each token's value",
    .fields = whole_fields,
    .check = check_attracts,
};
const mn_mixer_def mn_mixer_swdt = {
    .name = "swdt",
    KERNEL,
    .summary = "sliding-window DeepTransformer: the same, made of the last c tokens",
    .fields = window_fields,
    .check = check_attracts,
};
const mn_mixer_def mn_mixer_dot = {
    .name = "dot",
    KERNEL,
    .summary = "a network with exponential features that learns each token's value by its error",
    .fields = whole_fields,
    .check = check,
};
