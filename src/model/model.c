/* model.c - recipe -> model: parsing the `model` map, and applying a stack of blocks. */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const norms[] = {"rms", "layer", NULL}; /* in the order of mn_norm_kind */
static const char *const channels[] = {"none", "swiglu", "geglu", "mlp", NULL};

#define S mn_model_config
const mn_field mn_model_fields[] = {MN_FIELD_INT(S, vocab_size, 0, 0, 1 << 26, "tokens; 0: the tokenizer's"),
                                    MN_FIELD_INT(S, d_model, 256, 1, 1 << 20, "width D of the residual stream"),
                                    MN_FIELD_INT(S, layers, 2, 1, 4096, "how many times `block` stands in the stack"),
                                    MN_FIELD_BOOL(S, tie_embeddings, true, "the head is the embedding"),
                                    MN_FIELD_ENUM(S, norm, norms, 0, "normalisation of blocks and before the head"),
                                    MN_FIELD_FLOAT(S, norm_eps, 1e-6, 0, 1, "added to the mean square before the root"),
                                    MN_FIELD_FLOAT(S, init_std, 0.02, 0, 10, "standard deviation of the embedding at the start"),
                                    MN_FIELD_VALUE(S, block, "one block: {mixer: {type: ...}, channel: swiglu, hidden: n}"),
                                    MN_FIELD_VALUE(S, blocks, "several: a list of blocks, each with repeat: n"),
                                    MN_FIELD_END};
#undef S

typedef struct block_config {
  const mn_value *mixer;
  int channel, norm;
  int64_t hidden, repeat;
  double norm_eps;
} block_config;
#define S block_config
const mn_field mn_block_fields[] = {
    MN_FIELD_VALUE(S, mixer, "how tokens meet the past: {type: attention, ...}"),
    MN_FIELD_ENUM(S, channel, channels, 1, "the part that looks at one token alone"),
    MN_FIELD_INT(S, hidden, 0, 0, 1 << 24, "its width F; 0: 8/3 d_model (gated) or 4 d_model, rounded up to 32"),
    MN_FIELD_INT(S, repeat, 1, 1, 4096, "how many times this block stands here"), MN_FIELD_END};
#undef S

static mn_status parse_block(mn_model *m, const mn_value *map, const char *where, mn_block *out, int64_t *repeat) {
  block_config c = {0};
  MN_TRY(mn_config_read(m->arena, map, where, mn_block_fields, &c));
  if (!c.mixer || c.mixer->kind != MN_MAP) return mn_config_fail(map, where, "mixer", "must be a map such as {type: attention}");
  *out = (mn_block){.channel = c.channel, .hidden = c.hidden, .norm = m->config.norm, .norm_eps = m->config.norm_eps};
  if (out->hidden == 0) {
    double f = (c.channel == MN_CHANNEL_MLP ? 4.0 : 8.0 / 3.0) * (double)m->config.d_model;
    out->hidden = ((int64_t)ceil(f) + 31) / 32 * 32;
  }
  if (c.channel == MN_CHANNEL_NONE && mn_config_given(map, "hidden"))
    return mn_config_fail(map, where, "hidden", "has no effect with channel none; leave it out");
  *repeat = c.repeat;
  return mn_mixer_parse(m->arena, c.mixer, NULL, m->config.d_model, &out->mixer);
}

static mn_status parse_blocks(mn_model *m, const mn_value *map, const char *where) {
  const mn_model_config *c = &m->config;
  if (!c->block == !c->blocks)
    return mn_config_fail(map, where, "block", "give either `block` (one, repeated `layers` times) or `blocks` (a list)");
  if (c->blocks && (c->blocks->kind != MN_LIST || c->blocks->count == 0))
    return mn_config_fail(map, where, "blocks", "must be a list of blocks");
  if (c->block && mn_config_given(c->block, "repeat"))
    return mn_config_fail(c->block, NULL, "repeat", "has no effect: `block` stands `layers` times; set layers, or write a list `blocks`");
  size_t n = c->blocks ? c->blocks->count : 1;
  for (int pass = 0; pass < 2; pass++) {
    int64_t total = 0;
    for (size_t i = 0; i < n; i++) {
      mn_block b;
      int64_t repeat = 1;
      MN_TRY(parse_block(m, c->blocks ? c->blocks->as.items[i] : c->block, NULL, &b, &repeat));
      if (!c->blocks) repeat = c->layers;
      for (int64_t k = 0; k < repeat && pass; k++) m->blocks[total + k] = b;
      total += repeat;
      if (total > 4096) return mn_config_fail(map, where, "blocks", "make more than 4096 layers");
    }
    if (pass) break;
    if (c->blocks && mn_config_given(map, "layers") && c->layers != total)
      return mn_config_fail(map, where, "layers", "is %lld, but `blocks` makes %lld; leave it out", (long long)c->layers, (long long)total);
    m->n_blocks = (int)total;
    m->config.layers = total;
    m->blocks = mn_arena_alloc(m->arena, (size_t)total * sizeof *m->blocks);
    if (!m->blocks) return MN_ERR_MEMORY;
  }
  return MN_OK;
}

static mn_status parse(mn_model *m, const mn_value *map, const char *where, int64_t vocab_size) {
  MN_TRY(mn_config_read(m->arena, map, where, mn_model_fields, &m->config));
  if (m->config.vocab_size == 0) m->config.vocab_size = vocab_size;
  if (m->config.vocab_size <= 0) return mn_config_fail(map, where, "vocab_size", "must be given: there is no tokenizer to take it from");
  if (vocab_size > m->config.vocab_size)
    return mn_config_fail(map, where, "vocab_size", "is %lld, but the tokenizer has %lld tokens", (long long)m->config.vocab_size,
                          (long long)vocab_size);
  return parse_blocks(m, map, where);
}

mn_status mn_model_parse(const mn_value *map, const char *where, int64_t vocab_size, mn_model **out) {
  mn_arena *arena = mn_arena_new();
  mn_model *m = arena ? mn_arena_alloc(arena, sizeof *m) : NULL;
  *out = NULL;
  mn_status status = MN_ERR_MEMORY;
  if (m) {
    m->arena = arena;
    status = parse(m, map, where, vocab_size);
    m->config.block = m->config.blocks = NULL; /* the tree is the caller's; all that counts was copied */
  }
  if (status != MN_OK) mn_arena_free(arena);
  else *out = m;
  return status;
}

void mn_model_free(mn_model *m) {
  if (m) mn_arena_free(m->arena);
}

/* ---- back to a value: every block spelled out, equal neighbours joined by repeat ---- */
static const mn_value *block_value(mn_arena *arena, const mn_block *b, int64_t repeat) {
  block_config c = {.mixer = mn_mixer_to_value(arena, &b->mixer), .channel = b->channel, .hidden = b->hidden, .repeat = repeat};
  const mn_config_part part = {mn_block_fields, &c};
  return c.mixer ? mn_config_to_value(arena, &part, 1) : NULL;
}

static bool same_block(const mn_block *a, const mn_block *b) {
  return a->mixer.config == b->mixer.config && a->channel == b->channel && a->hidden == b->hidden;
}

const mn_value *mn_model_to_value(mn_arena *arena, const mn_model *m) {
  const mn_value **items = mn_arena_alloc(arena, (size_t)m->n_blocks * sizeof *items);
  size_t n = 0;
  if (!items) return NULL;
  for (int i = 0; i < m->n_blocks;) {
    int k = 1;
    while (i + k < m->n_blocks && same_block(&m->blocks[i], &m->blocks[i + k])) k++;
    items[n++] = block_value(arena, &m->blocks[i], k);
    i += k;
  }
  mn_model_config c = m->config;
  c.block = NULL;
  c.blocks = mn_value_list(arena, n, items);
  const mn_config_part part = {mn_model_fields, &c};
  return c.blocks ? mn_config_to_value(arena, &part, 1) : NULL;
}

/* ---- applying ---- */
static mn_tensor *channel_part(mn_scope *s, const mn_block *b, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  mn_init init = MN_NORMAL(0.02);
  int64_t D = mn_dim(x, -1);
  if (b->channel == MN_CHANNEL_MLP)
    return mn_linear(s, "down_proj", mn_gelu(g, mn_linear(s, "up_proj", x, b->hidden, true, init)), D, true, init);
  mn_tensor *gate = mn_linear(s, "gate_proj", x, b->hidden, false, init), *up = mn_linear(s, "up_proj", x, b->hidden, false, init);
  gate = b->channel == MN_CHANNEL_SWIGLU ? mn_silu(g, gate) : mn_gelu(g, gate);
  return mn_linear(s, "down_proj", mn_mul(g, gate, up), D, false, init);
}

mn_tensor *mn_block_apply(mn_scope *s, const mn_block *b, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  mn_dtype t = mn_scope_compute(s), exact = mn_scope_exact(s);
  mn_tensor *h = mn_norm_layer(s, "mixer_norm", (mn_norm_kind)b->norm, x, b->norm_eps, t);
  h = mn_mixer_apply(mn_scope_in(s, "mixer"), &b->mixer, h);
  mn_report(s, "mixer.output", h);
  x = mn_add(g, x, mn_cast(g, h, exact));
  if (b->channel == MN_CHANNEL_NONE) return x;
  h = mn_norm_layer(s, "channel_norm", (mn_norm_kind)b->norm, x, b->norm_eps, t);
  h = channel_part(mn_scope_in(s, "channel"), b, h);
  mn_report(s, "channel.output", h);
  return mn_add(g, x, mn_cast(g, h, exact));
}

mn_tensor *mn_model_hidden(mn_scope *s, const mn_model *m, mn_tensor *tokens) {
  mn_graph *g = mn_scope_graph(s);
  int64_t T = mn_dim(tokens, 1);
  mn_tensor *e = mn_param(s, "embed_tokens.weight", MN_SHAPE(m->config.vocab_size, m->config.d_model), MN_NORMAL(m->config.init_std), 0,
                          "token embedding [vocab_size, d_model]");
  mn_tensor *x = mn_take(g, mn_capture(g, e), tokens, 0); /* [B,T,D] */
  int block = g->block;
  for (int i = 0; i < m->n_blocks; i++) {
    g->block = i;
    x = mn_block_apply(mn_scope_in(s, "layers.%d", i), &m->blocks[i], x);
  }
  g->block = block;
  mn_scope_advance(s, T);
  return mn_norm_layer(s, "norm", (mn_norm_kind)m->config.norm, x, m->config.norm_eps, mn_scope_compute(s));
}

mn_tensor *mn_model_head(mn_scope *s, const mn_model *m) {
  mn_shape shape = MN_SHAPE(m->config.vocab_size, m->config.d_model);
  if (m->config.tie_embeddings) {
    mn_tensor *e = mn_param(s, "embed_tokens.weight", shape, MN_NORMAL(m->config.init_std), 0, "token embedding [vocab_size, d_model]");
    mn_param_copy(s, "embed_tokens.weight", "lm_head.weight");
    return e;
  }
  return mn_param(s, "lm_head.weight", shape, MN_NORMAL(m->config.init_std), 0, "output projection [vocab_size, d_model]");
}

mn_tensor *mn_model_apply(mn_scope *s, const mn_model *m, mn_tensor *tokens) {
  mn_graph *g = mn_scope_graph(s);
  int64_t B = mn_dim(tokens, 0), T = mn_dim(tokens, 1), D = m->config.d_model;
  mn_tensor *h = mn_model_hidden(s, m, tokens), *w = mn_capture(g, mn_model_head(s, m));
  if (!h || !w) return NULL;
  mn_tensor *logits =
      mn_matmul_as(g, mn_reshape(g, h, MN_SHAPE(B * T, D)), mn_transpose(g, mn_cast(g, w, h->dtype), 0, 1), mn_scope_exact(s));
  return mn_reshape(g, logits, MN_SHAPE(B, T, m->config.vocab_size));
}

mn_tensor *mn_model_loss(mn_scope *s, const mn_model *m, mn_tensor *tokens, mn_tensor *target, mn_tensor *weight, mn_tensor **nll) {
  mn_graph *g = mn_scope_graph(s);
  mn_shape flat = MN_SHAPE(mn_dim(tokens, 0) * mn_dim(tokens, 1));
  mn_tensor *h = mn_model_hidden(s, m, tokens), *w = mn_capture(g, mn_model_head(s, m));
  if (!h || !w || !target) return NULL;
  h = mn_reshape(g, h, MN_SHAPE(flat.dim[0], m->config.d_model));
  if (weight) weight = mn_reshape(g, weight, flat);
  return mn_linear_cross_entropy(g, h, w, mn_reshape(g, target, flat), weight, nll);
}
