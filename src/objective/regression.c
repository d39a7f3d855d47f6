/* regression.c - numbers: the mean of squared or absolute errors, or Huber's loss, over all of a row; or quantiles (the pinball
 * loss, Koenker & Bassett 1978): for quantile q and error d = target - forecast, q d where d > 0, (q - 1) d elsewhere. Of an output that has
 * numbers for each place of the row, those of the places that are there count (fields `length` and `masks`). */
#include "objective/objective.h"

#include <string.h>

/* The named output and the field `target`, as [B, numbers of a row]. False: a fault was set. */
static bool pair(mn_scope *s, const mn_judge *judge, const char *who, const char *name, int64_t copies, mn_tensor **forecast,
                 mn_tensor **target) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *y = mn_io_get(judge->outputs, name), *t = mn_io_get(judge->data, "target");
  if (!y || !t) {
    mn_graph_fault(g, MN_ERR_CONFIG, "objective %s: the model has no output %s to compare with the field target", who, name);
    return false;
  }
  int64_t B = mn_dim(t, 0), n = mn_shape_count(&t->shape) / B;
  char a[96], b[96];
  if (mn_shape_count(&y->shape) != B * n * copies || mn_dim(y, 0) != B) {
    mn_graph_fault(g, MN_ERR_CONFIG, "objective %s: the model's %s is %s, and the field target %s: %s", who, name,
                   mn_shape_str(&y->shape, a), mn_shape_str(&t->shape, b),
                   copies > 1 ? "each number of the target needs one for every quantile, last"
                              : "the two must be of one shape, as a forecaster's horizon and channels and the data's horizon and columns");
    return false;
  }
  *forecast = mn_cast(g, mn_reshape(g, y, copies > 1 ? MN_SHAPE(B, n, copies) : MN_SHAPE(B, n)), mn_scope_exact(s));
  *target = mn_cast(g, mn_reshape(g, t, MN_SHAPE(B, n)), mn_scope_exact(s));
  return true;
}

/* Places of an output that has numbers for each place of the row; NULL: all count. */
static mn_tensor *places_of(mn_scope *s, const mn_judge *judge, const char *name) {
  const mn_port *port = judge->model ? mn_model_output(judge->model, name) : NULL;
  const mn_tensor *y = mn_io_get(judge->outputs, name);
  return port && !strncmp(port->axes, "BT", 2) ? mn_places_there(s, judge, mn_dim(y, 0), mn_dim(y, 1)) : NULL;
}

/* d [B,n], 0 at places that are not there: what stands there instead may be huge, and its square no number. */
static mn_tensor *where_it_counts(mn_graph *g, mn_tensor *d, mn_tensor *places) {
  if (!places) return d;
  const int64_t B = mn_dim(d, 0), n = mn_dim(d, 1), T = mn_dim(places, 1);
  d = mn_mul(g, mn_reshape(g, d, MN_SHAPE(B, T, n / T)), mn_reshape(g, places, MN_SHAPE(B, T, 1)));
  return mn_reshape(g, d, MN_SHAPE(B, n));
}

static const mn_port target_port[] = {{"target", MN_F32, "BHC", false, "what should come out"},
                                      {"length", MN_I32, "B", true, "places of the row that are there"},
                                      {"masks", MN_I32, "BT", true, "1 where a place is there"},
                                      {0}};

/* ---- errors ---- */
typedef struct config {
  int loss;
  double delta;
  const char *output;
  mn_port port[2]; /* the output, as what is needed */
} config;
enum { MSE, MAE, HUBER };
static const char *const losses[] = {"mse", "mae", "huber", NULL};
static const mn_field fields[] = {
    MN_FIELD_ENUM(config, loss, losses, MSE, "mean squared error, mean absolute error, or Huber's loss"),
    MN_FIELD_FLOAT(config, delta, 1, DBL_MIN, 1e9, "huber: errors above it count absolutely, those below squared"),
    MN_FIELD_STRING(config, output, "forecast", "the model's output that is compared"), MN_FIELD_END};
static const mn_key_use uses[] = {{"delta", "huber"}, {0}};

static mn_status check(const mn_value *map, const char *where, void *c) {
  config *o = c;
  o->port[0] = (mn_port){o->output, MN_F32, "BHC", false, "numbers like the target's"};
  return mn_config_uses(map, where, uses, losses[o->loss]);
}

static void needs(const void *c, const mn_port **outputs, const mn_port **data) {
  *outputs = ((const config *)c)->port;
  *data = target_port;
}

/* Huber 1964: d^2/2 up to delta, then delta (|d| - delta/2). */
static mn_tensor *huber(mn_graph *g, mn_tensor *d, double delta) {
  mn_tensor *a = mn_abs(g, d), *low = mn_minimum(g, a, mn_scalar(g, mn_type(a), delta));
  return mn_mul(g, low, mn_sub(g, a, mn_mul_scalar(g, low, 0.5)));
}

static void build(mn_scope *s, const void *c, const mn_judge *judge, mn_verdict *out) {
  const config *o = c;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *y, *t;
  if (!pair(s, judge, "regression", o->output, 1, &y, &t)) return;
  mn_tensor *places = places_of(s, judge, o->output), *d = where_it_counts(g, mn_sub(g, y, t), places);
  mn_tensor *square = mn_row_mean(g, mn_square(g, d), places), *absolute = mn_row_mean(g, mn_abs(g, d), places);
  out->each = o->loss == MSE ? square : o->loss == MAE ? absolute : mn_row_mean(g, huber(g, d, o->delta), places);
  out->loss = mn_weighted_sum(g, out->each, judge->weight);
  if (judge->measure) out->metric[0] = out->metric[2] = square, out->metric[1] = absolute;
}

static const mn_metric_def metrics[] = {{"mse", MN_METRIC_MEAN, false, false, "mean squared error"},
                                        {"mae", MN_METRIC_MEAN, false, false, "mean absolute error"},
                                        {"rmse", MN_METRIC_ROOT, true, false, "root of the mean squared error"},
                                        {0}};

const mn_objective_def mn_objective_regression = {
    .name = "regression",
    .summary = "numbers: squared, absolute or Huber's error of an output against the field target",
    .config_size = sizeof(config),
    .fields = fields,
    .metrics = metrics,
    .check = check,
    .needs = needs,
    .build = build,
};

/* ---- quantiles ---- */
typedef struct quantile_config {
  mn_floats quantiles;
  const char *output;
  mn_port port[2];
} quantile_config;
static const mn_field quantile_fields[] = {
    MN_FIELD_FLOATS(quantile_config, quantiles, 0, 1, "which, in rising order; none: [0.1, 0.5, 0.9]"),
    MN_FIELD_STRING(quantile_config, output, "forecast", "the model's output: for each number of the target one for every quantile, last"),
    MN_FIELD_END};

static mn_status check_quantiles(const mn_value *map, const char *where, void *c) {
  static const double usual[3] = {0.1, 0.5, 0.9};
  quantile_config *o = c;
  o->port[0] = (mn_port){o->output, MN_F32, "BHC", false, "for each number of the target one for every quantile"};
  if (!o->quantiles.count) o->quantiles = (mn_floats){usual, 3};
  for (int i = 0; i < o->quantiles.count; i++)
    if (o->quantiles.items[i] <= 0 || o->quantiles.items[i] >= 1 || (i && o->quantiles.items[i] <= o->quantiles.items[i - 1]))
      return mn_config_fail(map, where, "quantiles", "must rise, between 0 and 1 and without either");
  return MN_OK;
}

static void needs_quantiles(const void *c, const mn_port **outputs, const mn_port **data) {
  *outputs = ((const quantile_config *)c)->port;
  *data = target_port;
}

static void build_quantiles(mn_scope *s, const void *c, const mn_judge *judge, mn_verdict *out) {
  const quantile_config *o = c;
  mn_graph *g = mn_scope_graph(s);
  int Q = o->quantiles.count;
  mn_tensor *y, *t;
  if (!pair(s, judge, "quantile", o->output, Q, &y, &t)) return;
  int64_t B = mn_dim(t, 0), n = mn_dim(t, 1);
  mn_tensor *places = places_of(s, judge, o->output);
  if (Q == 1) y = mn_reshape(g, y, MN_SHAPE(B, n, 1));
  mn_tensor *total = NULL, *covered = NULL;
  for (int i = 0; i < Q; i++) {
    double q = o->quantiles.items[i];
    mn_tensor *yi = mn_reshape(g, mn_slice(g, y, 2, i, 1), MN_SHAPE(B, n)), *d = where_it_counts(g, mn_sub(g, t, yi), places);
    mn_tensor *pinball = mn_maximum(g, mn_mul_scalar(g, d, q), mn_mul_scalar(g, d, q - 1));
    total = total ? mn_add(g, total, pinball) : pinball;
    if (i == 0) covered = mn_le(g, yi, t);
    if (i == Q - 1) covered = mn_and(g, covered, mn_le(g, t, yi));
  }
  out->each = mn_row_mean(g, mn_mul_scalar(g, total, 1.0 / Q), places);
  out->loss = mn_weighted_sum(g, out->each, judge->weight);
  if (judge->measure) out->metric[0] = mn_row_mean(g, mn_cast(g, covered, mn_type(y)), places);
}

static const mn_metric_def quantile_metrics[] = {
    {"coverage", MN_METRIC_MEAN, false, true, "fraction of the target between the lowest and the highest quantile"}, {0}};

const mn_objective_def mn_objective_quantile = {
    .name = "quantile",
    .summary = "quantiles of numbers: the pinball loss",
    .paper = "Koenker & Bassett 1978",
    .config_size = sizeof(quantile_config),
    .fields = quantile_fields,
    .metrics = quantile_metrics,
    .check = check_quantiles,
    .needs = needs_quantiles,
    .build = build_quantiles,
};
