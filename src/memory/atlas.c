/* atlas.c - ATLAS: learning to optimally memorize the context at test time (Behrouz, Li, Kacham, Daliri, Deng, Zhong, Razaviyayn &
 * Mirrokni 2025), and the simpler memories of its family.
 *
 * What it remembers: as Titans the weights M of a small network per head, but a token's step lowers the loss of the last c pairs,
 * not of its own alone (the Omega rule), keys and queries are lifted to polynomials phi, and what the memory moves by may be made
 * orthogonal (Muon):
 *     k_t = l2norm(silu(conv(W_K x_t)))   q_t likewise   v_t = silu(conv(W_V x_t))
 *     theta_t = lr_max sigmoid(lr_proj x_t)     eta_t = sigmoid(momentum_proj x_t)     alpha_t = sigmoid(decay_proj x_t)
 *     gamma_{t,j} = sigmoid(window_proj x_t)_j / min(c, t)       over the pairs that exist, so that c is not a step size
 *     g_t = sum_{j < c} gamma_{t,j} grad l(M_anchor; k_{t-j}, v_{t-j})                 anchor: M before the chunk's first token
 *     S_t = eta_t S_{t-1} - theta_t g_t
 *     M_t = (1 - alpha_t) M_{t-1} + S_t                                                dla, swla, omeganet
 *     M_t = (1 - alpha_t) M_{t-1} + [t ends a period] rho_t NS(S_t)                    atlas; rho_t = step_max sigmoid(step_proj x_t)
 *     o_t = W_O (RMSNorm_head(M_t(q_t)) * silu(W_G x_t))
 * By type:
 *     dla        l = -M(k) . v, c = 1      deep linear attention
 *     swla       l = -M(k) . v             sliding-window linear attention
 *     omeganet   l = 1/2 |M(k) - v|^2      the Omega rule by gradient descent, with momentum if asked
 *     atlas      l = 1/2 |M(k) - v|^2      the same with Muon; memory_net gated is ATLAS++; atlas_mag, atlas_mal, atlas_mac beside attention
 * Chunk, window and period are parts of the model. */
#include "memory/beside_attention.h"
#include "nn/fast_layer.h"
#include "nn/feature_map.h"
#include "nn/heads.h"
#include "nn/mixer.h"

typedef struct atlas_config {
  mn_beside_attention with; /* first */
  int64_t memory_expand, chunk, memory_window, ns_every, conv;
  int memory_net, features, ns_steps;
  bool memory_residual, momentum, decay, window_gate, features_normed, output_gate;
  double lr_max, step_max, grad_clamp;
  bool attracts, orthogonal; /* of the type: the loss is -M(k) . v; steps are orthogonal */
} atlas_config;

enum { EXPAND = 4 };
enum { NET_LINEAR, NET_MLP, NET_GATED };
static const char *const nets[] = {"linear", "mlp", "gated", NULL};
enum { FEATURES_PLAIN, FEATURES_POLY2 };
static const char *const feature_maps[] = {"plain", "poly2", NULL};

#define S atlas_config
#define MEMORY(net, features_of)                                                                                                           \
  MN_KEY_HEADS, MN_KEY_HEAD_DIM,                                                                                                           \
      MN_FIELD_ENUM(S, memory_net, nets, net, "what the memory is: one matrix, an MLP of two, or a gated one of three"),                   \
      MN_FIELD_INT(S, memory_expand, EXPAND, 1, 64, "hidden width of the memory over head_dim; linear has none"),                          \
      MN_FIELD_BOOL(S, memory_residual, true, "mlp and gated: M(x) = x + ..."),                                                            \
      MN_FIELD_ENUM(S, features, feature_maps, features_of, "keys and queries as they are, or lifted to polynomials of degree 2"),         \
      MN_FIELD_BOOL(S, features_normed, true, "lifted keys and queries have length 1"),                                                    \
      MN_FIELD_INT(S, chunk, 16, 1, 65536, "tokens between anchors; part of the model, keep it when streaming", MN_TOKENS),                \
      MN_FIELD_FLOAT(S, lr_max, -1, -1, 1e6, "upper bound of the learned step size; -1: 0.1, with chunks over 16 1.6 / chunk"),            \
      MN_FIELD_BOOL(S, decay, true, "forgetting"),                                                                                         \
      MN_FIELD_FLOAT(S, grad_clamp, 1, 0, 1e9, "m: a pair's gradient of norm n becomes m tanh(n/m); 0: off"),                              \
      MN_FIELD_INT(S, conv, 4, 0, 1 << 20, "kernel of the causal depthwise convolution on q, k and v; 0: none"),                           \
      MN_FIELD_BOOL(S, output_gate, true, "what is read is gated by silu(x W_g)")
#define WINDOWED                                                                                                                           \
  MN_FIELD_INT(S, memory_window, 16, 1, 65536, "pairs whose loss a token's step lowers, c"),                                               \
      MN_FIELD_BOOL(S, window_gate, true, "each pair of the window has a learned weight")
#define MOMENTUM MN_FIELD_BOOL(S, momentum, false, "past surprise")
#define ORTHOGONAL                                                                                                                         \
  MN_FIELD_INT(S, ns_steps, 5, 0, 20, "Newton-Schulz steps towards an orthogonal momentum; 0: the momentum as it is"),                     \
      MN_FIELD_INT(S, ns_every, 0, 0, 65536, "tokens between two steps of the memory, divides chunk; 0: chunk"),                           \
      MN_FIELD_FLOAT(S, step_max, 0.1, 0, 1e6, "upper bound of the learned size of an orthogonal step")
static const mn_field dla_fields[] = {MEMORY(NET_MLP, FEATURES_PLAIN), MN_FIELD_END};
static const mn_field swla_fields[] = {MEMORY(NET_LINEAR, FEATURES_POLY2), WINDOWED, MN_FIELD_END};
static const mn_field omeganet_fields[] = {MEMORY(NET_MLP, FEATURES_POLY2), WINDOWED, MOMENTUM, MN_FIELD_END};
#define ATLAS_FIELDS MEMORY(NET_MLP, FEATURES_POLY2), WINDOWED, ORTHOGONAL
static const mn_field atlas_fields[] = {ATLAS_FIELDS, MN_FIELD_END};
static const mn_field attended_fields[] = {ATLAS_FIELDS,      MN_KEY_WINDOW,      MN_KEY_PERSISTENT,
                                           MN_KEY_ROPE_THETA, MN_KEY_MAX_CONTEXT, MN_FIELD_END}; /* MAG, MAL */
static const mn_field mac_fields[] = {ATLAS_FIELDS, MN_KEY_PERSISTENT, MN_KEY_SEGMENT, MN_KEY_ROPE_THETA, MN_FIELD_END};
#undef S

#define PROJECTION                                                                                                                         \
  { MN_INIT_XAVIER_UNIFORM, 1, 0 }
static const mn_init projection = PROJECTION;

/* ---- what a recipe may ask for ---- */
static const mn_lmm memory;

static mn_status check(const mn_value *map, const char *where, int64_t d_model, atlas_config *c) {
  c->with.lmm = &memory;
  MN_TRY(mn_check_heads(map, where, d_model, c->with.heads, &c->with.head_dim));
  MN_TRY(mn_fast_check_lr(map, where, c->chunk, &c->lr_max));
  const bool linear = c->memory_net == NET_LINEAR;
  MN_TRY(mn_fast_check_net(map, where, linear, c->memory_expand, EXPAND, !linear, c->memory_residual));
  if (c->features == FEATURES_PLAIN && !c->features_normed && mn_config_given(map, "features_normed"))
    return mn_config_fail(map, where, "features_normed", "has no effect with features: plain, which is no lift; leave it out");
  if (c->memory_window == 1 && !c->window_gate && mn_config_given(map, "window_gate"))
    return mn_config_fail(map, where, "window_gate", "has no effect with memory_window: 1, which has no weights; leave it out");
  if (c->ns_every && c->chunk % c->ns_every)
    return mn_config_fail(map, where, "ns_every", "must divide chunk %lld, it is %lld", (long long)c->chunk, (long long)c->ns_every);
  return MN_OK;
}
static mn_status check_dla(const mn_value *map, const char *where, int64_t d_model, void *config) {
  ((atlas_config *)config)->attracts = true;
  return check(map, where, d_model, config);
}
static mn_status check_omeganet(const mn_value *map, const char *where, int64_t d_model, void *config) {
  return check(map, where, d_model, config);
}
static mn_status check_atlas(const mn_value *map, const char *where, int64_t d_model, void *config) {
  atlas_config *c = config;
  c->orthogonal = c->momentum = true;
  return check(map, where, d_model, config);
}
static mn_status check_attended(const mn_value *map, const char *where, int64_t d_model, void *config) {
  MN_TRY(check_atlas(map, where, d_model, config));
  return mn_check_beside(map, where, config);
}
static mn_status check_mac(const mn_value *map, const char *where, int64_t d_model, void *config) {
  MN_TRY(check_attended(map, where, d_model, config));
  return mn_check_context_width(map, where, d_model, config, "atlas_mac");
}

/* ---- the memory ---- */
static mn_fast_config memory_of(mn_scope *s, const void *config) {
  static const mn_fast_net as[] = {[NET_LINEAR] = MN_FAST_LINEAR, [NET_MLP] = MN_FAST_MLP, [NET_GATED] = MN_FAST_GATED};
  const atlas_config *c = config;
  mn_fast_config f = {.net = as[c->memory_net],
                      .depth = 2,
                      .expand = c->memory_expand,
                      .residual = c->memory_residual,
                      .heads = c->with.heads,
                      .head_dim = c->with.head_dim,
                      .chunk = c->chunk,
                      .loss = c->attracts ? MN_FAST_DOT : MN_FAST_L2,
                      .step = c->orthogonal ? MN_FAST_ORTHOGONAL : MN_FAST_EVERY_TOKEN,
                      .momentum = c->momentum,
                      .decay = c->decay,
                      .window = c->memory_window,
                      .period = c->ns_every,
                      .steps = c->ns_steps,
                      .grad_clamp = c->grad_clamp,
                      .lift_normed = c->features_normed};
  if (c->features == FEATURES_POLY2)
    f.lift = mn_poly2_scales(s, "features.scale", c->with.heads, "phi's scales of degrees 0, 1 and 2, over those of exp [H,3]");
  return f;
}

static mn_fast_projection projection_of(const atlas_config *c) {
  return (mn_fast_projection){c->with.heads, c->with.head_dim, c->conv, projection};
}

/* gamma [B,T,H,c], the token's own pair last: 0 where there is no such pair yet, and divided by how many there are. */
static mn_tensor *window_of(mn_scope *s, const atlas_config *c, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), H = c->with.heads, window = c->memory_window;
  if (window < 2) return NULL;
  mn_tensor *t = mn_iota(g, MN_I32, MN_SHAPE(1, T, 1, 1), 1), *start = mn_scope_position(s); /* tokens before each */
  if (start) t = mn_add(g, mn_reshape(g, start, MN_SHAPE(B, 1, 1, 1)), t);
  mn_tensor *age = mn_sub(g, mn_scalar(g, MN_I32, (double)(window - 1)), mn_iota(g, MN_I32, MN_SHAPE(1, 1, 1, window), 3));
  mn_tensor *pairs = mn_minimum(g, mn_add_scalar(g, t, 1), mn_scalar(g, MN_I32, (double)window)); /* that exist */
  mn_tensor *share = mn_recip(g, mn_cast(g, pairs, mn_scope_exact(s)));
  mn_tensor *each = mn_mul(g, mn_cast(g, mn_le(g, age, t), mn_scope_exact(s)), share);
  if (!c->window_gate) return mn_expand(g, each, MN_SHAPE(B, T, H, window));
  mn_tensor *gate = mn_linear_exact(s, "window_proj", x, H * window, MN_BIAS, MN_ZEROS, (mn_init){MN_INIT_CONSTANT, 2, 0});
  return mn_mul(g, mn_reshape(g, mn_sigmoid(g, gate), MN_SHAPE(B, T, H, window)), each);
}

static mn_tensor *lmm(mn_scope *s, const void *config, mn_tensor *x) {
  const atlas_config *c = config;
  const mn_fast_config f = memory_of(s, c);
  const mn_fast_lmm_config how = {
      .projection = projection_of(c), .lr_max = c->lr_max, .step_max = c->step_max, .output_gate = c->output_gate};
  return mn_fast_lmm(s, &f, &how, window_of(s, c, x), x);
}

/* ---- its uses ---- */
static mn_tensor *questions(mn_scope *s, const void *config, mn_tensor *x) {
  return mn_fast_stream(s, projection_of(config), "q", "x_conv", x);
}
static const mn_lmm memory = {.projection = PROJECTION, .layer = lmm, .fast = memory_of, .questions = questions};

static void remedy(const void *config, mn_text *out) {
  const atlas_config *c = config;
  mn_fast_remedy(c->grad_clamp, c->lr_max, out);
  if (c->orthogonal) mn_text_addf(out, ", or lower step_max (%g now)", c->step_max);
}

static void doubt(const void *config, mn_text *out) { /* orthogonal steps have a size of their own */
  const atlas_config *c = config;
  if (!c->orthogonal) mn_fast_doubt(c->grad_clamp, c->lr_max, c->chunk, c->momentum, out);
}

#define ATLAS                                                                                                                              \
  .page = "atlas", .kind = "state", .paper = "Behrouz, Li, Kacham, Daliri, Deng, Zhong, Razaviyayn & Mirrokni 2025, arXiv 2505.23735",     \
  .config_size = sizeof(atlas_config), .remedy = remedy, .doubt = doubt
const mn_mixer_def mn_mixer_dla = {
    .name = "dla",
    ATLAS,
    .summary = "deep linear attention: a network that is moved towards each token's value",
    .fields = dla_fields,
    .check = check_dla,
    .apply = mn_memory_alone,
};
const mn_mixer_def mn_mixer_swla = {
    .name = "swla",
    ATLAS,
    .summary = "sliding-window linear attention: each step writes the last c pairs",
    .fields = swla_fields,
    .check = check_dla,
    .apply = mn_memory_alone,
};
const mn_mixer_def mn_mixer_omeganet = {
    .name = "omeganet",
    ATLAS,
    .summary = "a memory whose weights learn the last c pairs at every token",
    .fields = omeganet_fields,
    .check = check_omeganet,
    .apply = mn_memory_alone,
};
const mn_mixer_def mn_mixer_atlas = {
    .name = "atlas",
    ATLAS,
    .summary = "ATLAS: OmegaNet whose steps are orthogonal (Muon); with a gated memory ATLAS++",
    .fields = atlas_fields,
    .check = check_atlas,
    .apply = mn_memory_alone,
};
const mn_mixer_def mn_mixer_atlas_mag = {
    .name = "atlas_mag",
    ATLAS,
    .summary = "ATLAS, memory as gate: what attention says is gated by what the memory says",
    .fields = attended_fields,
    .check = check_attended,
    .apply = mn_memory_as_gate,
};
const mn_mixer_def mn_mixer_atlas_mal = {
    .name = "atlas_mal",
    ATLAS,
    .summary = "ATLAS, memory as layer: attention over what the memory says",
    .fields = attended_fields,
    .check = check_attended,
    .apply = mn_memory_as_layer,
};
const mn_mixer_def mn_mixer_atlas_mac = {
    .name = "atlas_mac",
    ATLAS,
    .summary = "ATLAS, memory as context: segments attend to what the memory reads for them",
    .fields = mac_fields,
    .check = check_mac,
    .apply = mn_memory_as_context,
};
