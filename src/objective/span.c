/* span.c - where an answer begins and ends (as in Rajpurkar et al. 2016, arXiv:1606.05250): of two logits for each position, the
 * first says begin, the second end; each is a distribution over the positions of the row (those that are there, by its `length` and
 * `masks`, where the source says so), and the loss is the mean of both cross-entropies. */
#include "objective/objective.h"

static void needs(const void *c, const mn_port **outputs, const mn_port **data) {
  static const mn_port out[] = {{"logits", MN_F32, "BTC", false, "two numbers for each position: begin, end"}, {0}};
  static const mn_port in[] = {{"span", MN_I32, "B2", false, "first and last position of the answer; negative: there is none"},
                               {"length", MN_I32, "B", true, "positions of the row that are there"},
                               {"masks", MN_I32, "BT", true, "1 where a position is there"},
                               {0}};
  (void)c;
  *outputs = out;
  *data = in;
}

static const char *target(const void *c, int *axes) {
  (void)c;
  *axes = 1;
  return "span";
}

static void build(mn_scope *s, const void *c, const mn_judge *judge, mn_verdict *out) {
  (void)c;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *x = mn_io_get(judge->outputs, "logits"), *span = mn_io_get(judge->data, "span");
  if (!x || !span) return;
  if (x->shape.ndim != 3 || mn_dim(x, 2) != 2) {
    mn_graph_fault(g, MN_ERR_CONFIG,
                   "objective span: a model of two classes for each position is needed, this one's logits are not [B, T, 2]");
    return;
  }
  int64_t B = mn_dim(x, 0), T = mn_dim(x, 1);
  x = mn_transpose(g, mn_cast(g, x, mn_scope_exact(s)), 1, 2); /* [B,2,T] */
  mn_tensor *places = mn_places_there(s, judge, B, T);
  if (places) {
    places = mn_lt(g, mn_scalar(g, mn_type(places), 0), mn_reshape(g, places, MN_SHAPE(B, 1, T)));
    x = mn_select(g, places, x, mn_scalar(g, mn_type(x), -1e9));
  }
  x = mn_reshape(g, x, MN_SHAPE(2 * B, T));
  span = mn_reshape(g, span, MN_SHAPE(2 * B));
  mn_tensor *hit = mn_reshape(g, mn_pick(g, mn_log_softmax(g, x), span), MN_SHAPE(B, 2));
  out->each = mn_reshape(g, mn_mul_scalar(g, mn_sum(g, hit, MN_AXIS(1)), -0.5), MN_SHAPE(B));
  out->loss = mn_weighted_sum(g, out->each, judge->weight);
  if (!judge->measure) return;
  mn_tensor *right = mn_reshape(g, mn_cast(g, mn_eq(g, mn_argmax(g, x), span), mn_type(x)), MN_SHAPE(B, 2));
  out->metric[0] = mn_reshape(g, mn_mul(g, mn_slice(g, right, 1, 0, 1), mn_slice(g, right, 1, 1, 1)), MN_SHAPE(B));
  out->metric[1] = mn_reshape(g, mn_mean(g, right, MN_AXIS(1)), MN_SHAPE(B));
}

static const mn_metric_def metrics[] = {{"exact_match", MN_METRIC_MEAN, false, true, "fraction of rows with both ends right"},
                                        {"ends_right", MN_METRIC_MEAN, false, true, "fraction of ends that are right"},
                                        {0}};

const mn_objective_def mn_objective_span = {
    .name = "span",
    .summary = "where an answer begins and ends: two cross-entropies over the positions of a row",
    .paper = "Rajpurkar et al. 2016, arXiv:1606.05250",
    .metrics = metrics,
    .needs = needs,
    .target = target,
    .build = build,
};
