/* classifier.c - what a sequence of tokens or frames is, as one of several classes; or what each of its places is.
 *     h = Norm(blocks(E[tokens]))     p = mean, last or first of h, or h itself     logits = W p + b
 * What is behind `length` is padding: it is not pooled, and attention with causal: false does not see it. Where no mixer sees later places,
 * mean and last are known at every place: running_t = W mean_{i <= t} h_i + b, or W h_t + b. A stream keeps the sum, or the last h, and its
 * `logits` are at any moment what a sequence that ends here is. */
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
                                      {"running", MN_F32, "BTN", true, "logits of what came up to each place, where none sees a later one"},
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

static mn_tensor *judged(mn_scope *s, const classifier_config *c, mn_tensor *p) {
  return mn_linear_exact(s, "classifier", p, c->num_classes, MN_BIAS, MN_NORMAL(0.02), MN_ZEROS);
}

/* Means of h [B,T,D] up to each place, in f64, after what a stream saw before; *now [B,D]: after its last place. */
static mn_tensor *running_mean(mn_scope *s, mn_tensor *h, mn_tensor *position, mn_tensor **now) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(h, 0), T = mn_dim(h, 1), D = mn_dim(h, 2);
  const bool stream = mn_scope_is_stream(s);
  mn_tensor *was =
      stream ? mn_state(s, "sum", MN_F64, MN_SHAPE(B, D), NULL, "of what was judged so far") : mn_full(g, MN_F64, MN_SHAPE(B, D), 0);
  was = mn_unsqueeze(g, was, 1);
  mn_tensor *sum = mn_add(g, mn_cumsum(g, mn_scope_masked(s, mn_cast(g, h, MN_F64), 0), 1, MN_FORWARD), was);
  mn_tensor *all = mn_reshape(g, mn_scope_last(s, was, sum), MN_SHAPE(B, D)), *length = mn_scope_length(s);
  if (stream) mn_state_set(s, "sum", all);
  mn_tensor *before = position ? mn_unsqueeze(g, position, 1) : mn_full(g, MN_I32, MN_SHAPE(B, 1), 0);
  mn_tensor *end = mn_add(g, before, length ? mn_unsqueeze(g, length, 1) : mn_full(g, MN_I32, MN_SHAPE(1), (double)T));
  mn_tensor *one = mn_full(g, MN_I32, MN_SHAPE(1), 1), *count = mn_add(g, mn_add(g, before, mn_iota(g, MN_I32, MN_SHAPE(1, T), 1)), one);
  *now = mn_div(g, all, mn_cast(g, mn_maximum(g, end, one), MN_F64));
  return mn_div(g, sum, mn_unsqueeze(g, mn_cast(g, mn_minimum(g, count, mn_maximum(g, end, one)), MN_F64), 2));
}

/* The last place's h [B,D]. */
static mn_tensor *last_of_stream(mn_scope *s, mn_tensor *h) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(h, 0), D = mn_dim(h, 2);
  mn_tensor *was = mn_state(s, "last", mn_scope_exact(s), MN_SHAPE(B, D), NULL, "what is judged if nothing follows");
  mn_tensor *now = mn_scope_last(s, mn_unsqueeze(g, was, 1), mn_cast(g, h, mn_scope_exact(s)));
  now = mn_reshape(g, now, MN_SHAPE(B, D));
  mn_state_set(s, "last", now);
  return now;
}

static void build(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out) {
  const classifier_config *c = m->own;
  mn_tensor *x = mn_model_read(s, m, in);
  const mn_places there = mn_model_places(s, m, mn_io_get(in, "masks"), mn_io_get(in, "length"));
  const mn_beside beside = {.condition = mn_model_condition(s, m, in)};
  mn_scope_set_length(s, there.length);
  x = mn_stack_apply(s, &m->stack, mn_places_gather(s, &there, x), &beside);
  mn_graph *g = mn_scope_graph(s);
  const bool stream = mn_scope_is_stream(s),
             early = (c->pooling == MN_POOL_MEAN || c->pooling == MN_POOL_LAST) && !mn_stack_not_causal(&m->stack);
  mn_tensor *h = mn_model_norm(s, m, x), *now = NULL, *running = h;
  if (early && c->pooling == MN_POOL_MEAN) running = mn_cast(g, running_mean(s, h, mn_scope_position(s), &now), mn_type(h));
  if (early && c->pooling == MN_POOL_LAST && stream) now = last_of_stream(s, h);
  mn_tensor *p = stream && now ? mn_cast(g, now, mn_type(h)) : mn_pooled(s, (mn_pooling)c->pooling, h, there.length);
  mn_scope_advance(s, mn_dim(x, 1));
  h = mn_places_spread(s, &there, h);
  if (c->pooling == MN_POOL_NONE) p = h;
  mn_io_put(out, "logits", judged(s, c, p));
  if (c->pooling != MN_POOL_NONE) mn_io_put(out, "pooled", p);
  mn_io_put(out, "hidden", h);
  if (early && !there.rank) mn_io_put(out, "running", judged(s, c, running));
}

static const char *not_causal(const mn_model *m) {
  const classifier_config *c = m->own;
  return c->pooling == MN_POOL_FIRST ? "it judges a whole sequence by its first place" : NULL;
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
