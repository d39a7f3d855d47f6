/* match.c - students that stand beside the mixers of a trained model (the kind `matching`) learn to say what those say: the mean over
 * layers and tokens of the squared difference, a row being a unit. The first stage of Lizard (Nguyen et al. 2025, arXiv 2507.09025):
 *     (1 / L) sum over l of mean (Z_l - Y_l)^2
 * Places that are not there do not count. `relative` is that over the mean square of what the model says: 1 where nothing is matched. */
#include "objective/objective.h"

static void needs(const void *c, const mn_port **outputs, const mn_port **data) {
  static const mn_port errors[] = {{"match_error", MN_F32, "BTL", false, "of each layer, squared"},
                                   {"match_size", MN_F32, "BTL", false, "of what is matched, squared"},
                                   {0}},
                       places[] = {{"length", MN_I32, "B", true, "places of the row that are there"},
                                   {"masks", MN_I32, "BT", true, "1 where a place is there"},
                                   {0}};
  (void)c;
  *outputs = errors;
  *data = places;
}

static void build(mn_scope *s, const void *c, const mn_judge *judge, mn_verdict *out) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *error = mn_io_get(judge->outputs, "match_error"), *size = mn_io_get(judge->outputs, "match_size");
  (void)c;
  if (!error || !size) {
    mn_graph_fault(g, MN_ERR_CONFIG, "objective match: the model has no students; it must be of type matching");
    return;
  }
  const int64_t B = mn_dim(error, 0), n = mn_shape_count(&error->shape) / B;
  mn_tensor *there = mn_places_there(s, judge, B, mn_dim(error, 1));
  error = mn_row_mean(g, mn_reshape(g, mn_cast(g, error, mn_scope_exact(s)), MN_SHAPE(B, n)), there);
  size = mn_row_mean(g, mn_reshape(g, mn_cast(g, size, mn_scope_exact(s)), MN_SHAPE(B, n)), there);
  out->each = error;
  out->loss = mn_weighted_sum(g, out->each, judge->weight);
  if (judge->measure) out->metric[0] = mn_div(g, error, mn_maximum(g, size, mn_scalar(g, mn_type(size), 1e-30)));
}

static const mn_metric_def metrics[] = {
    {"relative", MN_METRIC_MEAN, false, false, "squared difference over what is matched, squared: 0 is equal, 1 as if nothing was said"},
    {0}};

const mn_objective_def mn_objective_match = {
    .name = "match",
    .summary = "students of a model of type matching say what the mixers beside them say",
    .paper = "Nguyen et al. 2025, arXiv 2507.09025",
    .metrics = metrics,
    .of_places = true,
    .needs = needs,
    .build = build,
};
