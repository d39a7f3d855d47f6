/* encoder.c - a stack of blocks over a whole sequence, tokens or frames, of which every place is described by what stands around it
 * (Devlin et al. 2018, arXiv 1810.04805): with attention that is not causal. What is behind `length` is padding and seen by nobody.
 *     h = Norm(blocks(E[tokens]))   or   h = Norm(blocks(W frames + b))
 * With token_types a vector of each token's type is added to E: which of several texts in one row it is of; without the input `types` all
 * are of type 0.
 * Over tokens, hidden and head are what an objective that asks for hidden tokens needs. */
#include "model/model.h"

#include <string.h>

typedef struct encoder_config {
  int64_t channels, token_types;
} encoder_config;
static const mn_field fields[] = {MN_FIELD_INT(encoder_config, channels, 0, 0, 1 << 20, "reads frames of so many numbers; 0: tokens"),
                                  MN_FIELD_INT(encoder_config, token_types, 0, 0, 1 << 16,
                                               "tokens are of so many types, each with a vector that is added; 0: of none", MN_SPARSE),
                                  MN_FIELD_END};

static bool reads_tokens(const mn_model *m) { return !((const encoder_config *)m->own)->channels; }

static int64_t size(const mn_model *m, char axis) {
  const encoder_config *c = m->own;
  return axis == 'V' ? m->config.vocab_size : axis == 'D' ? m->config.d_model : axis == 'C' ? c->channels : 0;
}

#define LENGTH                                                                                                                             \
  { "length", MN_I32, "B", true, "places of each row that are there; left out: all" }
#define HIDDEN                                                                                                                             \
  { "hidden", MN_F32, "BTD", false, "after the last norm, in the compute type" }
#define MASKS                                                                                                                              \
  { "masks", MN_I32, "BT", true, "1 where a place is there, 0 where it is not; left out: all are" }
static const mn_port of_tokens[] = {{"tokens", MN_I32, "BT", false, "token ids"}, LENGTH, MASKS, {0}};
static const mn_port of_typed[] = {{"tokens", MN_I32, "BT", false, "token ids"},
                                   {"types", MN_I32, "BT", true, "of which type each token is; left out: 0"},
                                   LENGTH,
                                   MASKS,
                                   {0}};
static const mn_port of_frames[] = {{"frames", MN_F32, "BTC", false, "numbers for each place"}, LENGTH, MASKS, {0}};
static const mn_port with_head[] = {HIDDEN, {"head", MN_F32, "VD", false, "the projection to the vocabulary"}, {0}};
static const mn_port without_head[] = {HIDDEN, {0}};

static mn_status check(mn_model *m, const mn_value *map, const char *where) {
  const bool typed = ((const encoder_config *)m->own)->token_types > 0;
  if (typed && !reads_tokens(m))
    return mn_config_fail(map, where, "token_types", "has no effect: this model reads no tokens; leave it out");
  m->inputs = typed ? of_typed : reads_tokens(m) ? of_tokens : of_frames;
  m->outputs = reads_tokens(m) ? with_head : without_head;
  return MN_OK;
}

static int64_t ids(const mn_model *m, const mn_port *port) {
  const encoder_config *c = m->own;
  return !strcmp(port->name, "types") ? c->token_types : !strcmp(port->name, "tokens") ? m->config.vocab_size : 0;
}

/* E[tokens] and the vectors of their types, placed. */
static mn_tensor *read_typed(mn_scope *s, const mn_model *m, mn_tensor *tokens, mn_tensor *types) {
  mn_graph *g = mn_scope_graph(s);
  const mn_dtype exact = mn_scope_exact(s);
  mn_tensor *table = mn_param(s, "embed_types.weight", MN_SHAPE(((const encoder_config *)m->own)->token_types, m->config.d_model),
                              MN_NORMAL(m->config.init_std), 0, "a vector for each type of token [token_types, d_model]");
  if (!types) types = mn_full(g, MN_I32, tokens->shape, 0);
  mn_tensor *x = mn_model_scaled(s, m, mn_cast(g, mn_take(g, mn_model_embedding(s, m), tokens, 0), exact));
  return mn_model_place(s, m, mn_add(g, x, mn_cast(g, mn_take(g, table, types, 0), exact)));
}

static void build(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out) {
  const bool typed = ((const encoder_config *)m->own)->token_types > 0;
  mn_tensor *x = typed ? read_typed(s, m, mn_io_get(in, "tokens"), mn_io_get(in, "types")) : mn_model_read(s, m, in);
  const mn_places there = mn_model_places(s, m, mn_io_get(in, "masks"), mn_io_get(in, "length"));
  const mn_beside beside = {.condition = mn_model_condition(s, m, in)};
  mn_scope_set_length(s, there.length);
  x = mn_stack_apply(s, &m->stack, mn_places_gather(s, &there, x), &beside);
  mn_scope_advance(s, mn_dim(x, 1));
  mn_io_put(out, "hidden", mn_places_spread(s, &there, mn_model_norm(s, m, x)));
  if (reads_tokens(m)) mn_io_put(out, "head", mn_model_head(s, m));
}

const mn_model_def mn_model_encoder = {
    .name = "encoder",
    .summary = "a stack of blocks over a whole sequence of tokens or frames",
    .paper = "Devlin et al. 2018, arXiv 1810.04805",
    .trunk = MN_TRUNK_TOKENS,
    .conditioned = true,
    .config_size = sizeof(encoder_config),
    .fields = fields,
    .inputs = of_tokens,
    .outputs = with_head,
    .size = size,
    .ids = ids,
    .reads_tokens = reads_tokens,
    .check = check,
    .build = build,
};
