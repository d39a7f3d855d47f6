/* classifier.c - what a sequence of tokens or frames is, as one of several classes; or what each of its places is.
 *     h = Norm(blocks(E[tokens]))     p = mean, last or first of h, or h itself     logits = W p + b
 * What is behind `length` is padding: it is not pooled, and attention with causal: false does not see it. */
#include "model/model.h"

typedef struct classifier_config {
  int64_t channels, num_classes;
  int pooling; /* mn_pooling */
} classifier_config;
static const char *const poolings[] = {"mean", "last", "first", "none", NULL}; /* in the order of mn_pooling */
#define S classifier_config
static const mn_field fields[] = {
    MN_FIELD_INT_REQUIRED(S, num_classes, 1, 1 << 24, "classes N"),
    MN_FIELD_ENUM(S, pooling, poolings, MN_POOL_MEAN, "what is judged: the mean of all places, the last, the first; none: each place"),
    MN_FIELD_INT(S, channels, 0, 0, 1 << 20, "reads frames of so many numbers; 0: tokens"), MN_FIELD_END};
#undef S

static bool reads_tokens(const mn_model *m) { return !((const classifier_config *)m->own)->channels; }

static int64_t size(const mn_model *m, char axis) {
  const classifier_config *c = m->own;
  return axis == 'N' ? c->num_classes : axis == 'D' ? m->config.d_model : axis == 'C' ? c->channels : 0;
}

#define LENGTH                                                                                                                             \
  { "length", MN_I32, "B", true, "places of each row that are there; left out: all" }
#define MASKS                                                                                                                              \
  { "masks", MN_I32, "BT", true, "1 where a place is there, 0 where it is not; left out: all are" }
static const mn_port of_tokens[] = {{"tokens", MN_I32, "BT", false, "token ids"}, LENGTH, MASKS, {0}};
static const mn_port of_frames[] = {{"frames", MN_F32, "BTC", false, "numbers for each place"}, LENGTH, MASKS, {0}};
static const mn_port of_sequence[] = {{"logits", MN_F32, "BN", false, "one number for each class"},
                                      {"pooled", MN_F32, "BD", false, "what is judged, in the compute type"},
                                      {"hidden", MN_F32, "BTD", false, "what was pooled, in the compute type"},
                                      {0}};
static const mn_port of_places[] = {{"logits", MN_F32, "BTN", false, "one number for each class at each place"},
                                    {"hidden", MN_F32, "BTD", false, "what is judged, in the compute type"},
                                    {0}};

static mn_status check(mn_model *m, const mn_value *map, const char *where) {
  const classifier_config *c = m->own;
  (void)map;
  (void)where;
  m->inputs = reads_tokens(m) ? of_tokens : of_frames;
  m->outputs = c->pooling == MN_POOL_NONE ? of_places : of_sequence;
  return MN_OK;
}

static void build(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out) {
  const classifier_config *c = m->own;
  mn_tensor *x = mn_model_read(s, m, in);
  const mn_places there = mn_model_places(s, m, mn_io_get(in, "masks"), mn_io_get(in, "length"));
  const mn_beside beside = {.condition = mn_model_condition(s, m, in)};
  mn_scope_set_length(s, there.length);
  x = mn_stack_apply(s, &m->stack, mn_places_gather(s, &there, x), &beside);
  mn_scope_advance(s, mn_dim(x, 1));
  mn_tensor *h = mn_model_norm(s, m, x), *p = mn_pooled(s, (mn_pooling)c->pooling, h, there.length);
  h = mn_places_spread(s, &there, h);
  if (c->pooling == MN_POOL_NONE) p = h;
  mn_io_put(out, "logits", mn_linear_exact(s, "classifier", p, c->num_classes, MN_BIAS, MN_NORMAL(0.02), MN_ZEROS));
  if (c->pooling != MN_POOL_NONE) mn_io_put(out, "pooled", p);
  mn_io_put(out, "hidden", h);
}

static const char *not_causal(const mn_model *m) {
  const classifier_config *c = m->own;
  return c->pooling == MN_POOL_NONE ? NULL : "it judges a whole sequence";
}

const mn_model_def mn_model_classifier = {
    .name = "classifier",
    .summary = "the class of a sequence of tokens or frames, or of each of its places",
    .trunk = MN_TRUNK_TOKENS,
    .conditioned = true,
    .config_size = sizeof(classifier_config),
    .fields = fields,
    .inputs = of_tokens,
    .outputs = of_sequence,
    .size = size,
    .reads_tokens = reads_tokens,
    .check = check,
    .build = build,
    .not_causal = not_causal,
};
