/* events.c - the next event: the log-likelihood of its gap under a mixture of log-normal densities, and of its mark.
 *     -log p(s) = log s - log sum_k exp(log w_k - ((log s - m_k) / d_k)^2 / 2 - log d_k - log(2 pi) / 2)
 * What is expected of the gap, for its error: sum_k w_k exp(m_k + d_k^2 / 2). */
#include "objective/objective.h"

static const mn_port outputs[] = {{"density", MN_F32, "BTK", false, "logits of weights, means and log deviations of log gap"},
                                  {"logits", MN_F32, "BTN", false, "one number for each mark"},
                                  {0}};
static const mn_port data[] = {
    {"target", MN_I32, "BT", false, "mark of the next event"}, {"target_gaps", MN_F32, "BT", false, "time until it"}, {0}};

static void needs(const void *c, const mn_port **out, const mn_port **fields) {
  (void)c;
  *out = outputs;
  *fields = data;
}

static const char *target(const void *c, int *axes) {
  (void)c;
  *axes = 2;
  return "target";
}

/* log sum_k exp(x_k) of x [N,K]: [N,1] */
static mn_tensor *log_sum_exp(mn_graph *g, mn_tensor *x) {
  mn_tensor *most = mn_stop_gradient(g, mn_max(g, x, MN_AXIS(1)));
  return mn_add(g, most, mn_log(g, mn_sum(g, mn_exp(g, mn_sub(g, x, most)), MN_AXIS(1))));
}

static void build(mn_scope *s, const void *c, const mn_judge *judge, mn_verdict *out) {
  (void)c;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *density = mn_io_get(judge->outputs, "density"), *logits = mn_io_get(judge->outputs, "logits");
  mn_tensor *mark = mn_io_get(judge->data, "target"), *gap = mn_io_get(judge->data, "target_gaps");
  if (!density || !logits || !mark || !gap) return;
  const int64_t N = mn_shape_count(&mark->shape), K = mn_dim(density, 2) / 3, M = mn_dim(logits, 2);
  mn_dtype t = mn_scope_exact(s);
  density = mn_reshape(g, density, MN_SHAPE(N, 3 * K));
  mn_tensor *w = mn_log_softmax(g, mn_slice(g, density, 1, 0, K)), *m = mn_slice(g, density, 1, K, K),
            *log_d = mn_slice(g, density, 1, 2 * K, K);
  gap = mn_maximum(g, mn_reshape(g, mn_cast(g, gap, t), MN_SHAPE(N, 1)), mn_scalar(g, t, 1e-6));
  mn_tensor *z = mn_log(g, gap), *d = mn_exp(g, log_d), *e = mn_div(g, mn_sub(g, z, m), d);
  mn_tensor *each = mn_sub(g, mn_sub(g, w, log_d), mn_mul_scalar(g, mn_square(g, e), 0.5));
  mn_tensor *log_p = mn_add_scalar(g, log_sum_exp(g, each), -0.9189385332046727); /* log(2 pi) / 2 */
  mn_tensor *of_gap = mn_reshape(g, mn_sub(g, z, log_p), MN_SHAPE(N));
  mark = mn_reshape(g, mark, MN_SHAPE(N));
  logits = mn_reshape(g, mn_cast(g, logits, t), MN_SHAPE(N, M));
  mn_tensor *of_mark = mn_neg(g, mn_pick(g, mn_log_softmax(g, logits), mark));
  out->each = mn_add(g, of_gap, of_mark);
  out->loss = mn_weighted_sum(g, out->each, judge->weight);
  if (!judge->measure) return;
  mn_tensor *mean = mn_exp(g, mn_add(g, mn_add(g, w, m), mn_mul_scalar(g, mn_square(g, d), 0.5)));
  mean = mn_sum(g, mean, MN_AXIS(1));
  out->metric[0] = of_gap;
  out->metric[1] = mn_square(g, mn_reshape(g, mn_sub(g, mean, gap), MN_SHAPE(N)));
  out->metric[2] = mn_cast(g, mn_eq(g, mn_argmax(g, logits), mark), t);
}

static const mn_metric_def metrics[] = {{"gap_nll", MN_METRIC_MEAN, false, false, "negative log-likelihood of the gap alone"},
                                        {"gap_rmse", MN_METRIC_ROOT, false, false, "root of the mean squared error of the expected gap"},
                                        {"mark_accuracy", MN_METRIC_MEAN, false, true, "fraction whose likeliest mark is the right one"},
                                        {0}};

const mn_objective_def mn_objective_events = {
    .name = "events",
    .summary = "the next event: log-likelihood of its gap (a log-normal mixture) and of its mark",
    .paper = "Shchur, Bilos & Guennemann 2020, arXiv 1909.12127",
    .metrics = metrics,
    .needs = needs,
    .target = target,
    .build = build,
};
