/* titans.c - Titans: learning to memorize at test time (Behrouz, Zhong & Mirrokni 2024).
 *
 * What it remembers: the weights M of a small network per head, which every token trains by one step of gradient descent
 * with momentum S ("past surprise") and weight decay (forgetting) on a key-to-value regression:
 *     k_t = l2norm(silu(conv(W_K x_t)))   q_t likewise   v_t = silu(conv(W_V x_t))
 *     theta_t = lr_max sigmoid(lr_proj x_t)   eta_t = sigmoid(momentum_proj x_t)   alpha_t = sigmoid(decay_proj x_t)
 *     S_t = eta_t S_{t-1} - theta_t grad 1/2 |M_anchor(k_t) - v_t|^2       anchor: M before the chunk's first token
 *     M_t = (1 - alpha_t) M_{t-1} + S_t                                    M_0 is learned
 *     o_t = W_O (RMSNorm_head(M_t(q_t)) * silu(W_G x_t))
 * The chunk is part of the model: it decides where gradients are taken.
 *
 * Four uses, by type: the memory alone (titans_lmm, titans), and as gate, layer and context of attention (titans_mag, titans_mal,
 * titans_mac: beside_attention.h). */
#include "graph/fused_norm.h"
#include "nn/mixer.h"

#include <stdio.h>

#include "memory/beside_attention.h"
#include "nn/fast_layer.h"
#include "nn/heads.h"

typedef struct titans_config {
  mn_beside_attention with; /* first */
  int64_t memory_depth, memory_expand, chunk, conv, trunc_bptt;
  int memory_net, granularity, read;
  bool memory_residual, momentum, decay, output_gate;
  double lr_max, grad_clamp;
} titans_config;

static const char *const nets[] = {"linear", "mlp", "ln_mlp", NULL}; /* as mn_fast_net */
static const char *const granularities[] = {"token", "chunk", NULL}; /* as mn_fast_step    */
static const char *const reads[] = {"after", "before", NULL};        /* as mn_fast_reading */

enum { EXPAND = 4 };
#define S titans_config
#define MEMORY                                                                                                                             \
  MN_KEY_HEADS, MN_KEY_HEAD_DIM,                                                                                                           \
      MN_FIELD_ENUM(S, memory_net, nets, MN_FAST_LINEAR, "what the memory is: one matrix, an MLP, or an MLP with LayerNorm"),              \
      MN_FIELD_INT(S, memory_depth, 2, 1, MN_FAST_DEPTH, "matrices of the memory; linear has one"),                                        \
      MN_FIELD_INT(S, memory_expand, EXPAND, 1, 64, "hidden width of the memory over head_dim; linear has none"),                          \
      MN_FIELD_BOOL(S, memory_residual, true, "mlp: M(x) = x + ..."),                                                                      \
      MN_FIELD_INT(S, chunk, 64, 1, 65536, "tokens between anchors; part of the model, keep it when streaming", MN_TOKENS),                \
      MN_FIELD_ENUM(S, granularity, granularities, 0, "one step of the memory per token, or per chunk"),                                   \
      MN_FIELD_ENUM(S, read, reads, 0, "a token reads the memory after or before its own write"),                                          \
      MN_FIELD_FLOAT(S, lr_max, -1, -1, 1e6, "upper bound theta_max of the learned step size; -1: 0.1, with chunks over 16 1.6 / chunk"),  \
      MN_FIELD_BOOL(S, momentum, true, "past surprise"), MN_FIELD_BOOL(S, decay, true, "forgetting"),                                      \
      MN_FIELD_FLOAT(S, grad_clamp, 1, 0, 1e9, "m: a token's gradient of norm n becomes m tanh(n/m); 0: off"),                             \
      MN_FIELD_INT(S, conv, 4, 0, 1 << 20, "kernel of the causal depthwise convolution on q, k and v; 0: none"),                           \
      MN_FIELD_BOOL(S, output_gate, true, "what is read is gated by silu(x W_g)")
#define TRUNC_BPTT MN_FIELD_INT(S, trunc_bptt, 0, 0, 1 << 24, "the memory's outer gradient stops every so many chunks; 0: never")
static const mn_field lmm_fields[] = {MEMORY, TRUNC_BPTT, MN_FIELD_END};
static const mn_field attended_fields[] = {MEMORY,     MN_KEY_WINDOW, MN_KEY_PERSISTENT, MN_KEY_ROPE_THETA, MN_KEY_MAX_CONTEXT,
                                           TRUNC_BPTT, MN_FIELD_END}; /* MAG, MAL */
static const mn_field mac_fields[] = {MEMORY, MN_KEY_PERSISTENT, MN_KEY_SEGMENT, MN_KEY_ROPE_THETA, TRUNC_BPTT, MN_FIELD_END};
static const mn_field written[] = {MEMORY,     MN_KEY_WINDOW, MN_KEY_PERSISTENT, MN_KEY_SEGMENT, MN_KEY_ROPE_THETA, MN_KEY_MAX_CONTEXT,
                                   TRUNC_BPTT, MN_FIELD_END};
#undef S

#define PROJECTION                                                                                                                         \
  { MN_INIT_XAVIER_UNIFORM, 1, 0 }
static const mn_init projection = PROJECTION; /* near 1/sqrt(d_model), narrow models too */

static const mn_lmm memory;

static mn_status check_lmm(const mn_value *map, const char *where, int64_t d_model, void *config) {
  titans_config *c = config;
  c->with.lmm = &memory;
  MN_TRY(mn_check_heads(map, where, d_model, c->with.heads, &c->with.head_dim));
  if (c->memory_net == MN_FAST_LINEAR && c->memory_depth != 1 && mn_config_given(map, "memory_depth"))
    return mn_config_fail(map, where, "memory_depth",
                          "has no effect with memory_net: linear, which is one matrix; leave it out, or choose "
                          "memory_net: mlp");
  if (c->memory_net == MN_FAST_LINEAR) c->memory_depth = 1;
  MN_TRY(mn_fast_check_net(map, where, c->memory_depth == 1, c->memory_expand, EXPAND, c->memory_net == MN_FAST_MLP, c->memory_residual));
  return mn_fast_check_lr(map, where, c->chunk, &c->lr_max);
}

static mn_status check_attended(const mn_value *map, const char *where, int64_t d_model, void *config) {
  MN_TRY(check_lmm(map, where, d_model, config));
  return mn_check_beside(map, where, config);
}

static mn_status check_mac(const mn_value *map, const char *where, int64_t d_model, void *config) {
  MN_TRY(check_attended(map, where, d_model, config));
  return mn_check_context_width(map, where, d_model, config, "titans_mac");
}

/* ---- the neural long-term memory ---- */
static mn_fast_config memory_of(mn_scope *s, const void *config) {
  const titans_config *c = config;
  (void)s;
  return (mn_fast_config){.net = c->memory_net,
                          .depth = c->memory_depth,
                          .expand = c->memory_expand,
                          .residual = c->memory_residual,
                          .heads = c->with.heads,
                          .head_dim = c->with.head_dim,
                          .chunk = c->chunk,
                          .step = c->granularity,
                          .read = c->read,
                          .momentum = c->momentum,
                          .decay = c->decay,
                          .grad_clamp = c->grad_clamp,
                          .trunc_bptt = c->trunc_bptt};
}

static mn_fast_projection projection_of(const titans_config *c) {
  return (mn_fast_projection){c->with.heads, c->with.head_dim, c->conv, projection};
}

static mn_tensor *lmm(mn_scope *s, const void *config, mn_tensor *x) {
  const titans_config *c = config;
  const mn_fast_config f = memory_of(s, c);
  const mn_fast_lmm_config how = {.projection = projection_of(c), .lr_max = c->lr_max, .output_gate = c->output_gate};
  return mn_fast_lmm(s, &f, &how, NULL, x);
}

/* ---- its uses ---- */
static mn_tensor *questions(mn_scope *s, const void *config, mn_tensor *x) {
  return mn_fast_stream(s, projection_of(config), "q", "x_conv", x);
}

static const mn_lmm memory = {.projection = PROJECTION, .layer = lmm, .fast = memory_of, .questions = questions};

static void remedy(const void *config, mn_text *out) {
  const titans_config *c = config;
  mn_fast_remedy(c->grad_clamp, c->lr_max, out);
  if (c->chunk > 16) mn_text_addf(out, ", or take a smaller chunk (%lld now), over which steps add up", (long long)c->chunk);
}

static void doubt(const void *config, mn_text *out) {
  const titans_config *c = config;
  mn_fast_doubt(c->grad_clamp, c->lr_max, c->chunk, c->momentum, out);
}

#define TITANS                                                                                                                             \
  .page = "titans", .kind = "state", .paper = "Behrouz, Zhong & Mirrokni 2024, arXiv 2501.00663", .config_size = sizeof(titans_config),    \
  .written = written, .remedy = remedy, .doubt = doubt
#define LMM                                                                                                                                \
  .summary = "Titans: a memory whose weights are trained while it reads", .fields = lmm_fields, .check = check_lmm, .apply = mn_memory_alone

const mn_mixer_def mn_mixer_titans = {.name = "titans", TITANS, LMM};
const mn_mixer_def mn_mixer_titans_lmm = {.name = "titans_lmm", TITANS, LMM};
const mn_mixer_def mn_mixer_titans_mag = {
    .name = "titans_mag",
    TITANS,
    .summary = "Titans, memory as gate: what attention says is gated by what the memory says",
    .fields = attended_fields,
    .check = check_attended,
    .apply = mn_memory_as_gate,
};
const mn_mixer_def mn_mixer_titans_mal = {
    .name = "titans_mal",
    TITANS,
    .summary = "Titans, memory as layer: attention over what the memory says",
    .fields = attended_fields,
    .check = check_attended,
    .apply = mn_memory_as_layer,
};
const mn_mixer_def mn_mixer_titans_mac = {
    .name = "titans_mac",
    TITANS,
    .summary = "Titans, memory as context: segments attend to what the memory reads for them",
    .fields = mac_fields,
    .check = check_mac,
    .apply = mn_memory_as_context,
};
