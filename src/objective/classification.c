/* classification.c - one class for each sequence, or for each position: cross-entropy, with smoothed labels (Szegedy et al. 2016,
 * arXiv:1512.00567) and a weight for each class:
 *     loss = -(1 - e) log p(label) - e / C sum over classes of log p,   averaged with the weights of the labels */
#include "objective/objective.h"

typedef struct config {
  int per;
  double label_smoothing;
  mn_floats class_weights;
} config;
enum { PER_SEQUENCE, PER_POSITION };
static const char *const pers[] = {"sequence", "position", NULL};
static const mn_field fields[] = {
    MN_FIELD_ENUM(config, per, pers, PER_SEQUENCE, "what has a class: the whole sequence (field label) or each position (field target)"),
    MN_FIELD_FLOAT(config, label_smoothing, 0, 0, 0.999, "probability that is spread evenly over all classes"),
    MN_FIELD_FLOATS(config, class_weights, 0, 1e9, "how much an example of each class counts in the loss; of 0: nowhere; none: all alike"),
    MN_FIELD_END};

static mn_status check(const mn_value *map, const char *where, void *c) {
  const mn_floats *w = &((const config *)c)->class_weights;
  for (int i = 0; i < w->count; i++)
    if (w->items[i] > 0) return MN_OK;
  return w->count ? mn_config_fail(map, where, "class_weights", "are all 0: no example would count") : MN_OK;
}

static const mn_port logits_port[] = {{"logits", MN_F32, "BC", true, "one number for each class; or hidden and head"},
                                      {"running", MN_F32, "BTC", true, "the same at each place, of a model that says early what it sees"},
                                      {0}};
static const mn_port of_sequences[] = {{"label", MN_I32, "B", false, "class of the whole sequence"}, {0}};
static const mn_port of_positions[] = {{"target", MN_I32, "BT", false, "class of each position"}, {0}};

static void needs(const void *c, const mn_port **outputs, const mn_port **data) {
  *outputs = logits_port;
  *data = ((const config *)c)->per == PER_POSITION ? of_positions : of_sequences;
}

static const char *target(const void *c, int *axes) {
  bool positions = ((const config *)c)->per == PER_POSITION;
  *axes = positions ? 2 : 1;
  return positions ? "target" : "label";
}

static double weigh(const void *c, const int32_t *label) {
  const mn_floats *w = &((const config *)c)->class_weights;
  return *label < w->count ? w->items[*label] : w->count ? 0 : 1;
}

/* How many have it right by then: x [B,T,C], after T times `part` places. */
static mn_tensor *early(mn_graph *g, mn_tensor *x, mn_tensor *label, double part) {
  const int64_t at = (int64_t)(part * (double)mn_dim(x, 1)) - 1;
  mn_tensor *then = mn_reshape(g, mn_slice(g, x, 1, at > 0 ? at : 0, 1), MN_SHAPE(mn_dim(x, 0), mn_dim(x, 2)));
  return mn_cast(g, mn_eq(g, mn_argmax(g, then), label), mn_type(x));
}

static void build(mn_scope *s, const void *c, const mn_judge *judge, mn_verdict *out) {
  const config *o = c;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *x = mn_judge_logits(s, judge->outputs, ""), *label = mn_io_get(judge->data, o->per == PER_POSITION ? "target" : "label");
  if (!x || !label) return;
  int64_t N = mn_shape_count(&label->shape), C = mn_dim(x, 1);
  if (mn_dim(x, 0) != N) {
    mn_graph_fault(g, MN_ERR_CONFIG, "objective classification: %lld labels, but the model's logits are for %lld %ss", (long long)N,
                   (long long)mn_dim(x, 0), pers[o->per]);
    return;
  }
  if (o->class_weights.count && o->class_weights.count != C) {
    mn_graph_fault(g, MN_ERR_CONFIG, "objective.class_weights has %d numbers, but the model has %lld classes", o->class_weights.count,
                   (long long)C);
    return;
  }
  label = mn_reshape(g, label, MN_SHAPE(N));
  mn_tensor *log_p = mn_log_softmax(g, x); /* [N,C] */
  mn_tensor *hit = mn_pick(g, log_p, label);
  double e = o->label_smoothing;
  out->each = mn_neg(g, hit);
  if (e > 0) {
    mn_tensor *even = mn_reshape(g, mn_mean(g, log_p, MN_AXIS(1)), MN_SHAPE(N));
    out->each = mn_neg(g, mn_add(g, mn_mul_scalar(g, hit, 1 - e), mn_mul_scalar(g, even, e)));
  }
  out->loss = mn_weighted_sum(g, out->each, judge->weight);
  if (!judge->measure) return;
  out->metric[0] = mn_cast(g, mn_eq(g, mn_argmax(g, x), label), mn_type(x));
  mn_tensor *running = mn_io_get(judge->outputs, "running");
  for (int i = 1; i <= 3 && running && o->per == PER_SEQUENCE; i++) out->metric[i] = early(g, running, label, 0.25 * i);
}

static const mn_metric_def metrics[] = {{"accuracy", MN_METRIC_MEAN, false, true, "fraction whose likeliest class is the right one"},
                                        {"accuracy_quarter", MN_METRIC_MEAN, false, true, "the same when a quarter of a sequence is known"},
                                        {"accuracy_half", MN_METRIC_MEAN, false, true, "when half of it is"},
                                        {"accuracy_three_quarters", MN_METRIC_MEAN, false, true, "when three quarters are"},
                                        {0}};

const mn_objective_def mn_objective_classification = {
    .name = "classification",
    .summary = "one class for each sequence or position: cross-entropy of the model's logits",
    .paper = "label smoothing: Szegedy et al. 2016, arXiv:1512.00567",
    .config_size = sizeof(config),
    .fields = fields,
    .metrics = metrics,
    .check = check,
    .needs = needs,
    .target = target,
    .weigh = weigh,
    .build = build,
};
