/* encoder.c - a stack of blocks over a whole sequence, tokens or frames, of which every place is described by what stands around it
 * (Devlin et al. 2018, arXiv 1810.04805): with attention that is not causal. What is behind `length` is padding and seen by nobody.
 *     h = Norm(blocks(E[tokens]))   or   h = Norm(blocks(W frames + b))
 * Over tokens, hidden and head are what an objective that asks for hidden tokens needs. */
#include "model/model.h"

typedef struct encoder_config {
  int64_t channels;
} encoder_config;
static const mn_field fields[] = {MN_FIELD_INT(encoder_config, channels, 0, 0, 1 << 20, "reads frames of so many numbers; 0: tokens"),
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
static const mn_port of_frames[] = {{"frames", MN_F32, "BTC", false, "numbers for each place"}, LENGTH, MASKS, {0}};
static const mn_port with_head[] = {HIDDEN, {"head", MN_F32, "VD", false, "the projection to the vocabulary"}, {0}};
static const mn_port without_head[] = {HIDDEN, {0}};

static mn_status check(mn_model *m, const mn_value *map, const char *where) {
  (void)map;
  (void)where;
  m->inputs = reads_tokens(m) ? of_tokens : of_frames;
  m->outputs = reads_tokens(m) ? with_head : without_head;
  return MN_OK;
}

static void build(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out) {
  mn_tensor *x = mn_model_read(s, m, in);
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
    .reads_tokens = reads_tokens,
    .check = check,
    .build = build,
};
