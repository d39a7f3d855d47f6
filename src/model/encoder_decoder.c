/* encoder_decoder.c - a sequence read whole, its source, and another said token by token while looking at it (Vaswani et al. 2017,
 * arXiv 1706.03762): translation, transcription, summary.
 *     m = Norm_e(encoder blocks(E_s[source]))     h = Norm(blocks(E[tokens], cross m))     logits = h W^T
 * What is said is a stream: the source comes with its first segment, every block keeps the source's keys and values, and later
 * segments leave the source out. */
#include "graph/fused_norm.h"
#include "model/encoder_keys.h"

#include <string.h>

typedef struct encoder_decoder_config {
  const mn_value *encoder; /* while parsing */
  int64_t source_vocab_size, channels, max_source;
  mn_stack stack; /* the encoder's */
} encoder_decoder_config;
#define S encoder_decoder_config
static const mn_field fields[] = {
    MN_FIELD_VALUE(S, encoder, "who reads the source: {layers: 2, block: {mixer: {type: attention, causal: false}}} or {blocks: [...]}"),
    MN_FIELD_INT(S, source_vocab_size, 0, 0, 1 << 26, "tokens of the source, with an embedding of their own; 0: those of the target"),
    MN_FIELD_INT(S, channels, 0, 0, 1 << 20, "the source is frames of so many numbers; 0: tokens"),
    MN_FIELD_INT(S, max_source, 1024, 1, 1 << 24, "places of a source that a stream has room for"), MN_FIELD_END};
#undef S

static int64_t size(const mn_model *m, char axis) {
  const encoder_decoder_config *c = m->own;
  return axis == 'V' ? m->config.vocab_size : axis == 'D' ? m->config.d_model : axis == 'C' ? c->channels : 0;
}

static int64_t most(const mn_model *m, char axis) {
  const encoder_decoder_config *c = m->own;
  if (axis != 'S') return INT64_MAX;
  return m->config.positions == MN_POSITIONS_LEARNED && m->config.max_positions < c->max_source ? m->config.max_positions : c->max_source;
}

static int64_t ids(const mn_model *m, const mn_port *p) {
  const encoder_decoder_config *c = m->own;
  if (!strcmp(p->name, "source")) return c->source_vocab_size ? c->source_vocab_size : m->config.vocab_size;
  return !strcmp(p->name, "tokens") ? m->config.vocab_size : 0;
}

static const mn_port of_tokens[] = {{"tokens", MN_I32, "BT", false, "what has been said: token ids"},
                                    {"source", MN_I32, "BS", false, "what is read: token ids"},
                                    {"source_length", MN_I32, "B", true, "places of each source that are there; left out: all"},
                                    {0}};
static const mn_port of_frames[] = {{"tokens", MN_I32, "BT", false, "what has been said: token ids"},
                                    {"source", MN_F32, "BSC", false, "what is read: numbers for each place"},
                                    {"source_length", MN_I32, "B", true, "places of each source that are there; left out: all"},
                                    {0}};
static const mn_port outputs[] = {{"hidden", MN_F32, "BTD", false, "after the last norm, in the compute type: what the head projects"},
                                  {"head", MN_F32, "VD", false, "the projection to the vocabulary"},
                                  {0}};

static mn_status check(mn_model *m, const mn_value *map, const char *where) {
  encoder_decoder_config *c = m->own;
  if (c->channels && c->source_vocab_size)
    return mn_config_fail(map, where, "source_vocab_size",
                          "has no effect beside channels, which make the source frames; leave one of them out");
  MN_TRY(mn_encoder_parse(m, map, where, c->encoder, &c->stack));
  c->encoder = NULL;
  m->inputs = c->channels ? of_frames : of_tokens;
  return MN_OK;
}

static mn_status spell(mn_arena *arena, const mn_model *m, void *own) {
  const encoder_decoder_config *c = m->own;
  ((encoder_decoder_config *)own)->encoder = mn_encoder_to_value(arena, &c->stack);
  return ((encoder_decoder_config *)own)->encoder ? MN_OK : MN_ERR_MEMORY;
}

/* The source as the encoder's blocks read it: [B,S,D], exact type. s: the model's scope, below: the encoder's. */
static mn_tensor *read_source(mn_scope *s, mn_scope *below, const mn_model *m, mn_tensor *source) {
  const encoder_decoder_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  mn_dtype exact = mn_scope_exact(s);
  mn_tensor *x, *table;
  if (c->channels) {
    x = mn_cast(g, source, mn_scope_compute(s));
    x = mn_cast(g, mn_linear(below, "embed_frames", x, m->config.d_model, MN_BIAS, (mn_init){MN_INIT_XAVIER_UNIFORM, 1, 0}), exact);
  } else {
    mn_shape shape = MN_SHAPE(c->source_vocab_size, m->config.d_model);
    table = c->source_vocab_size ? mn_param(below, "embed_tokens.weight", shape, MN_NORMAL(m->config.init_std), 0,
                                            "embedding of the source's tokens [source_vocab_size, d_model]")
                                 : mn_model_embedding(s, m);
    x = mn_model_scaled(s, m, mn_cast(g, mn_take(g, table, source, 0), exact));
  }
  return mn_model_place(below, m, x);
}

static mn_tensor *encoded(mn_scope *s, const mn_model *m, mn_tensor *source, mn_tensor *length) {
  const encoder_decoder_config *c = m->own;
  mn_scope *below = mn_scope_call(s, "encoder", (mn_call_options){.fresh = true, .length = length});
  mn_tensor *x = mn_stack_apply(below, &c->stack, read_source(s, below, m, source), NULL);
  if (!mn_stack_wants_norm(&c->stack)) return mn_cast(mn_scope_graph(s), x, mn_scope_compute(s));
  return mn_norm_layer(below, "norm", (mn_norm_kind)m->config.norm, x, m->config.norm_eps, mn_scope_compute(s));
}

static void build(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out) {
  const encoder_decoder_config *c = m->own;
  mn_tensor *tokens = mn_io_get(in, "tokens"), *source = mn_io_get(in, "source");
  mn_cross_source from = {.length = mn_io_get(in, "source_length"), .most = c->max_source};
  if (source) from.x = encoded(s, m, source, from.length);
  mn_tensor *x = mn_stack_apply(s, &m->stack, mn_model_embed(s, m, tokens), &(mn_beside){.source = &from});
  mn_scope_advance(s, mn_dim(tokens, 1));
  mn_io_put(out, "hidden", mn_model_norm(s, m, x));
  mn_io_put(out, "head", mn_model_head(s, m));
}

const mn_model_def mn_model_encoder_decoder = {
    .name = "encoder_decoder",
    .summary = "reads a source whole and says another sequence token by token while looking at it",
    .paper = "Vaswani et al. 2017, arXiv 1706.03762",
    .trunk = MN_TRUNK_TOKENS,
    .source = true,
    .config_size = sizeof(encoder_decoder_config),
    .fields = fields,
    .inputs = of_tokens,
    .outputs = outputs,
    .kept = "source",
    .size = size,
    .most = most,
    .ids = ids,
    .check = check,
    .spell = spell,
    .build = build,
};
