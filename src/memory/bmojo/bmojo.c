/* bmojo.c - B'MOJO (Zancato, Seshadri, Dukler, Golatkar, Shen, Bowman, Trager, Achille & Soatto 2024, arXiv 2407.06324): one softmax over
 * the last tokens as they are, further back over what a memory that fades said of its tokens, and over a few old tokens that it could
 * not have told. With f the output of any recurrence that reads the same input, w the window:
 *
 *     f_t = fading(x)_t
 *     q_t = W_q x_t      k_t = W_k x_t      v_t = W_v x_t
 *     k'_t = W_k f_t     v'_t = W_v f_t                                     tie: false has W_q', W_k', W_v' of its own
 *     I(t) = {t - w + 1 .. t} of k, v     F(t) = {t - 2w + 1 .. t - w} of k', v'     E(t): old tokens with their k, v (eidetic.h)
 *     o_t = softmax over I, F and E together of q_t . k / sqrt(d), of their values
 *     y_t = W_o o_t
 * Queries and keys are rotated at their positions; tokens of E stand 2w back for every query (positions: clamp). The parts are attentions
 * of their own, joined by their sums of weights, which is the one softmax.
 *
 * E holds what surprises most, which is measured by a small predictor that is trained beside the model, by its own loss alone (sg: no
 * gradient):
 *     token     e_t = |sg(R x_t) - P rms(sg(f_{t-1}))|^2 / D'         R: the identity, or fixed and drawn, [D',D]; rms: f at length sqrt(D)
 *     output    e_t = |f_t - sum_{j=1..J} c_j f_{t-j}|^2 / (|f_t|^2 + 1e-3)
 *     loss      predict_weight * mean e_t
 * bmojo_f is B'MOJO-F: there is no E. */
#include "graph/fused_norm.h"
#include "memory/attention.h"
#include "memory/bmojo/eidetic.h"

#include <math.h>
#include <string.h>

typedef struct bmojo_config {
  mn_attention_config attention; /* first: the window */
  const mn_value *fading;
  mn_mixer memory; /* what fades; empty: nothing, or the tokens themselves */
  bool tie, qk_norm, faded;
  int64_t slots, chunk, predict_dim, taps, store, retrieve; /* slots 0: B'MOJO-F */
  int test, positions;
  double threshold, predict_weight;
} bmojo_config;

enum { TOKEN, OUTPUT };
static const char *const tests[] = {"token", "output", NULL};
enum { CLAMPED, OWN_POSITIONS };
static const char *const position_words[] = {"clamp", "own", NULL};
static const char *const instead[] = {"identity", "none", NULL}; /* of a memory */
#define A mn_attention_config
#define S bmojo_config
#define WINDOW_AND_FADING                                                                                                                  \
  MN_FIELD_INT(A, heads, 4, 1, 4096, "query heads H"),                                                                                     \
      MN_FIELD_INT(A, kv_heads, 0, 0, 4096, "key/value heads G, a divisor of heads; 0: as many as heads"),                                 \
      MN_FIELD_INT(A, head_dim, 0, 0, 4096, "width d of a head; 0: d_model / heads"),                                                      \
      MN_FIELD_INT(A, window, 128, 1, 1 << 24,                                                                                             \
                   "w: the last tokens that are seen as they are, and as many before them as the memory saw them", MN_TOKENS),             \
      MN_FIELD_VALUE(S, fading,                                                                                                            \
                     "the memory that fades: any causal mixer, as a type or a map such as {type: gla, key_dim: 16}; identity: the tokens " \
                     "themselves; none: they are not seen. Left out: gla"),                                                                \
      MN_FIELD_BOOL(S, tie, true, "keys and values of what the memory said are made by the tokens' projections"),                          \
      MN_FIELD_BOOL(S, qk_norm, false, "RMSNorm of each head's queries and keys"),                                                         \
      MN_FIELD_INT(A, conv, 0, 0, 1 << 20, "kernel of a causal depthwise convolution on the tokens' q, k and v; 0: none", MN_SPARSE),      \
      MN_FIELD_BOOL(A, rope, true, "rotary position embedding"),                                                                           \
      MN_FIELD_FLOAT(A, rope_theta, 10000, 1, 1e12, "base of the rotary frequencies")
static const mn_field f_fields[] = {WINDOW_AND_FADING, MN_FIELD_END};
static const mn_field fields[] = {
    WINDOW_AND_FADING,
    MN_FIELD_INT(S, slots, 32, 1, 1 << 20, "M: old tokens that are kept as they are"),
    MN_FIELD_INT(S, chunk, 0, 0, 1 << 24, "C: tokens between two choices of them; 0: window", MN_TOKENS),
    MN_FIELD_ENUM(S, test, tests, TOKEN, "what must be hard to predict for a token to be kept: the token, or what the memory says of it"),
    MN_FIELD_FLOAT(S, threshold, 0, 0, 1e9,
                   "tau: tokens of less surprise are not kept; 0: the most surprising ones are, whatever they are"),
    MN_FIELD_ENUM(S, positions, position_words, CLAMPED,
                  "where old tokens stand for a query: just behind all it sees otherwise, or where they stood"),
    MN_FIELD_INT(S, predict_dim, 0, 0, 65536, "test token: D', width of the random projection that is predicted; 0: the token itself"),
    MN_FIELD_INT(S, taps, 4, 1, 4096, "test output: J, outputs of the memory that the next one is predicted from"),
    MN_FIELD_FLOAT(S, predict_weight, 0.1, 0, 1e6, "weight of the predictor's loss, which reaches the predictor alone"),
    MN_FIELD_INT(S, store, 0, 0, 1 << 28, "S: tokens that had to go and are kept outside of attention, the last ones; 0: none"),
    MN_FIELD_INT(S, retrieve, 0, 0, 1 << 20, "R: tokens of the store that are seen in a chunk: those the last one asked for most"),
    MN_FIELD_END};
#undef S
#undef A

static int64_t chunk_of(const bmojo_config *c) { return c->chunk ? c->chunk : c->attention.window; }

static mn_status check_eidetic(const mn_value *map, const char *where, const bmojo_config *c) {
  if (c->test != OUTPUT && mn_config_given(map, "taps"))
    return mn_config_fail(map, where, "taps", "has no effect with test: token; leave it out");
  if (c->test != TOKEN && mn_config_given(map, "predict_dim"))
    return mn_config_fail(map, where, "predict_dim", "has no effect with test: output; leave it out");
  if (!c->attention.rope && mn_config_given(map, "positions"))
    return mn_config_fail(map, where, "positions", "has no effect with rope: false; leave it out");
  if (!c->store != !c->retrieve)
    return mn_config_fail(map, where, c->store ? "retrieve" : "store",
                          "must be given, too: store says how many tokens are kept, retrieve how "
                          "many of them are seen");
  if (c->store && c->store < chunk_of(c))
    return mn_config_fail(map, where, "store", "must hold what one chunk may put there, %lld tokens", (long long)chunk_of(c));
  if (c->retrieve > c->store) return mn_config_fail(map, where, "retrieve", "must be at most store, %lld", (long long)c->store);
  return MN_OK;
}

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  bmojo_config *c = config;
  c->attention.causal = true;
  c->attention.max_context = MN_USUAL_CONTEXT;
  c->attention.rope_factor = 1;
  c->faded = c->memory.def || strcmp(c->fading->as.text, "none") != 0;
  const char *why = c->memory.def && c->memory.def->not_causal ? c->memory.def->not_causal(c->memory.config) : NULL;
  if (why) return mn_config_fail(map, where, "fading", "cannot be a memory of the past: %s", why);
  if (!c->faded && mn_config_given(map, "tie"))
    return mn_config_fail(map, where, "tie", "has no effect with fading: none, of which no keys are made; leave it out");
  MN_TRY(mn_attention_check(map, where, d_model, &c->attention));
  return c->slots ? check_eidetic(map, where, c) : MN_OK;
}

static const mn_init xavier = {MN_INIT_XAVIER_UNIFORM, 1, 0};

/* W x, already made, by heads, normed where asked: [B,T,h,d] */
static mn_tensor *by_heads(mn_scope *s, const char *norm, mn_tensor *y, int64_t heads) {
  y = mn_split_heads(s, y, heads);
  return norm ? mn_norm_layer(s, norm, MN_NORM_RMS, y, 1e-6, mn_scope_compute(s)) : y;
}
static mn_tensor *heads_of(mn_scope *s, const char *name, const char *norm, mn_tensor *x, int64_t heads, int64_t d) {
  return by_heads(s, norm, mn_linear(s, name, x, heads * d, MN_NO_BIAS, xavier), heads);
}
/* Of tokens: convolved before that, where asked. */
static mn_tensor *tokens_heads(mn_scope *s, const bmojo_config *c, const char *const names[3], mn_tensor *x, int64_t heads) {
  mn_tensor *y = mn_linear(s, names[0], x, heads * c->attention.head_dim, MN_NO_BIAS, xavier);
  if (c->attention.conv) y = mn_conv_layer(s, names[1], y, c->attention.conv);
  return by_heads(s, c->qk_norm ? names[2] : NULL, y, heads);
}

/* What a query reads of one set of keys: o [B,T,H,d] in the exact type, lse [B,H,T]. */
typedef struct reading {
  mn_tensor *o, *lse;
} reading;
static reading read_window(mn_scope *s, const mn_attention_config *a, mn_tensor *q, mn_tensor *k, mn_tensor *v) {
  reading r;
  if (a->rope) mn_attention_rotate(s, a, &q, &k);
  r.o = mn_cast(mn_scope_graph(s), mn_attention_heads(s, a, q, k, v, &r.lse), mn_scope_exact(s));
  return r;
}
static reading join(mn_graph *g, reading a, reading b) {
  reading r;
  r.o = mn_attention_join(g, a.o, a.lse, b.o, b.lse, &r.lse);
  return r;
}

/* The tokens (t - 2w, t - w] as the memory saw them. */
static reading read_faded(mn_scope *s, const bmojo_config *c, mn_tensor *x, mn_tensor *q, mn_tensor *f) {
  mn_attention_config a = c->attention;
  const int64_t H = a.heads, G = a.kv_heads, d = a.head_dim;
  const char *q_norm = c->qk_norm ? c->tie ? "q_norm" : "fading_q_norm" : NULL,
             *k_norm = c->qk_norm ? c->tie ? "k_norm" : "fading_k_norm" : NULL;
  if (!c->tie) q = heads_of(s, "fading_q_proj", q_norm, x, H, d);
  mn_tensor *k = heads_of(s, c->tie ? "k_proj" : "fading_k_proj", k_norm, f, G, d);
  mn_tensor *v = heads_of(s, c->tie ? "v_proj" : "fading_v_proj", NULL, f, G, d);
  a.delay = a.window;
  return read_window(mn_scope_in(s, "faded"), &a, q, k, v);
}

/* ---- the old tokens ---- */
/* e of each token, [B,T]: x [B,T,D], past and present of what fades [B,J+T,D], all exact. */
static mn_tensor *error_of(mn_scope *s, const bmojo_config *c, mn_tensor *x, mn_tensor *f) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), D = mn_dim(x, 2), J = mn_dim(f, 1) - T;
  if (c->test == TOKEN) {
    mn_tensor *want = x;
    if (c->predict_dim) {
      mn_tensor *R = mn_param_exact(s, "predicted", MN_SHAPE(c->predict_dim, D), MN_NORMAL(1 / sqrt((double)D)),
                                    MN_PARAM_NO_DECAY | MN_PARAM_FROZEN, "R: what of a token is predicted [D',D]; it stays as it is drawn");
      want = mn_matmul(g, x, mn_unsqueeze(g, mn_transpose(g, R, 0, 1), 0));
    }
    mn_tensor *past = mn_norm(g, MN_NORM_RMS, mn_slice(g, f, 1, 0, T), NULL, NULL, 1e-6, mn_scope_exact(s));
    mn_tensor *said = mn_linear_exact(s, "predict_proj", past, mn_dim(want, 2), MN_NO_BIAS, xavier, MN_ZEROS);
    return mn_reshape(g, mn_mean(g, mn_square(g, mn_sub(g, want, said)), MN_AXIS(2)), MN_SHAPE(B, T));
  }
  mn_tensor *weight = mn_param_exact(s, "taps", MN_SHAPE(J), (mn_init){MN_INIT_CONSTANT, 1 / (double)J, 0}, MN_PARAM_NO_DECAY,
                                     "c: weights of the last outputs, the latest first [J]");
  mn_tensor *now = mn_slice(g, f, 1, J, T), *rest = now;
  for (int64_t j = 1; j <= J; j++) rest = mn_sub(g, rest, mn_mul(g, mn_slice(g, weight, 0, j - 1, 1), mn_slice(g, f, 1, J - j, T)));
  mn_tensor *size = mn_add_scalar(g, mn_sum(g, mn_square(g, now), MN_AXIS(2)), 1e-3);
  return mn_reshape(g, mn_div(g, mn_sum(g, mn_square(g, rest), MN_AXIS(2)), size), MN_SHAPE(B, T));
}
/* The same for the choice and, without a gradient to what is predicted and to what from, for the predictor's loss. */
static mn_tensor *surprise_of(mn_scope *s, const bmojo_config *c, mn_tensor *x, mn_tensor *f) {
  mn_graph *g = mn_scope_graph(s);
  const mn_dtype t = mn_scope_exact(s);
  const int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), D = mn_dim(x, 2), J = c->test == TOKEN ? 1 : c->taps;
  x = mn_cast(g, x, t), f = mn_cast(g, f, t);
  mn_tensor *past = mn_state(s, "past", t, MN_SHAPE(B, J, D), NULL, "what the memory said last, oldest first");
  mn_state_set(s, "past", mn_scope_last(s, past, f));
  f = mn_concat(g, 2, (mn_tensor *[]){past, f}, 1);
  mn_tensor *apart = error_of(s, c, mn_stop_gradient(g, x), mn_stop_gradient(g, f)), *live = mn_scope_live(s, T), *sum, *count;
  sum = mn_sum(g, mn_scope_masked(s, apart, 0), MN_ALL_AXES);
  count = live ? mn_maximum(g, mn_sum(g, mn_cast(g, live, t), MN_ALL_AXES), mn_scalar(g, t, 1)) : mn_scalar(g, t, (double)(B * T));
  mn_loss(s, "prediction", mn_div(g, mn_reshape(g, sum, (mn_shape){0}), mn_reshape(g, count, (mn_shape){0})), c->predict_weight);
  mn_report(s, "surprise", apart);
  return mn_with_gradient(g, apart, error_of(s, c, x, f));
}

/* x [B,T,h,d] rotated as if every token stood at `position`. */
static mn_tensor *rotated_to(mn_scope *s, const mn_attention_config *a, mn_tensor *x, int64_t position) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), d = a->head_dim;
  mn_tensor *cos, *sin;
  const mn_rope_config r = {.theta = a->rope_theta, .factor = 1};
  mn_rope_tables_at(s, &r, d, 1, mn_full(g, MN_I32, MN_SHAPE(B), (double)position), &cos, &sin);
  const mn_shape all = MN_SHAPE(B, T, d / 2);
  return mn_rope(g, x, mn_expand(g, cos, all), mn_expand(g, sin, all), MN_ROPE_HALVES);
}

static reading read_kept(mn_scope *s, const bmojo_config *c, mn_tensor *x, mn_tensor *f, mn_tensor *q, mn_tensor *k, mn_tensor *v) {
  const mn_attention_config *a = &c->attention;
  const mn_eidetic how = {.slots = c->slots,
                          .chunk = chunk_of(c),
                          .span = c->faded ? 2 * a->window : a->window,
                          .store = c->store,
                          .retrieve = c->retrieve,
                          .threshold = c->threshold};
  reading r;
  if (a->rope && c->positions == OWN_POSITIONS) mn_attention_rotate(s, a, &q, &k);
  if (a->rope && c->positions == CLAMPED) q = rotated_to(s, a, q, how.span);
  mn_eidetic_read(s, &how, q, k, v, surprise_of(s, c, x, f), &r.o, &r.lse);
  return r;
}

static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) {
  const bmojo_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  static const char *const of_q[] = {"q_proj", "q_conv", "q_norm"}, *const of_k[] = {"k_proj", "k_conv", "k_norm"},
                           *const of_v[] = {"v_proj", "v_conv", NULL};
  const int64_t H = c->attention.heads, G = c->attention.kv_heads;
  mn_tensor *f = c->memory.def ? mn_mixer_apply(mn_scope_in(s, "fading"), &c->memory, x) : x;
  mn_tensor *q = tokens_heads(s, c, of_q, x, H), *k = tokens_heads(s, c, of_k, x, G), *v = tokens_heads(s, c, of_v, x, G);
  reading r = read_window(s, &c->attention, q, k, v);
  if (c->faded) r = join(g, read_faded(s, c, x, q, f), r);
  if (c->slots) r = join(g, read_kept(s, c, x, f, q, k, v), r);
  mn_tensor *o = mn_cast(g, r.o, mn_scope_compute(s));
  mn_share(s, MN_ATTENTION_HEADS, o);
  return mn_linear(s, "o_proj", mn_join_heads(s, o), mn_dim(x, 2), MN_NO_BIAS, xavier);
}

static void remedy(const void *config, mn_text *out) {
  const bmojo_config *c = config;
  const mn_mixer_def *d = c->memory.def;
  if (!c->qk_norm) mn_text_add(out, "set qk_norm: true (false now), or ");
  mn_text_add(out, "train with a lower lr or a longer warm-up");
  if (d && d->remedy) {
    mn_text_addf(out, "; of the memory that fades, %s: ", d->name);
    d->remedy(c->memory.config, out);
  }
}

static const mn_mixer_without without[] = {
    {"shared", "each layer keeps what surprised it, and has a predictor of its own"},
    {"eidetic", "slots, chunk, test, threshold and positions are keys of the mixer, and each layer chooses for itself"},
    {"storage", "store and retrieve are keys of the mixer; the store is a state of the stream"},
    {"async", "the store is a state of the stream, so that what is called back depends on the stream alone; set store and retrieve"},
    {NULL, NULL}};

#define BMOJO                                                                                                                              \
  .page = "bmojo", .kind = "state + context", .paper = "Zancato et al. 2024, arXiv 2407.06324", .config_size = sizeof(bmojo_config),       \
  .check = check, .base = offsetof(bmojo_config, memory), .base_key = "fading", .base_type = "gla", .base_words = instead, .apply = apply, \
  .remedy = remedy

const mn_mixer_def mn_mixer_bmojo_f = {
    .name = "bmojo_f",
    BMOJO,
    .summary = "B'MOJO-F: one softmax over a window and, further back, over what a memory that fades said",
    .fields = f_fields,
};
const mn_mixer_def mn_mixer_bmojo = {
    .name = "bmojo",
    BMOJO,
    .summary = "B'MOJO: the same, and over a few old tokens that were hard to predict, chosen by an innovation test",
    .fields = fields,
    .without = without,
};
