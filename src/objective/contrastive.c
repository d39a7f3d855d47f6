/* contrastive.c - InfoNCE (van den Oord et al. 2018, arXiv:1807.03748): rows of a batch are pairs (0,1), (2,3), ...; the embedding
 * of each row should be nearer to its partner's than to those of the other pairs:
 *     loss_i = -log exp(<z_i, z_j> / t) / sum over k of exp(<z_i, z_k> / t),   z of length 1, j the partner of i
 * over all rows k but i itself (`negatives: all`, NT-Xent of Chen et al. 2020, arXiv:2002.05709), or over the other side's rows only
 * (`negatives: other_side`). Rows that are not there (no place of them is) are nobody's negatives. In validation and test the last batch is filled up
 * with pairs that were judged before, so that all are told apart from as many. */
#include "graph/fused_norm.h"
#include "objective/objective.h"

#include <string.h>

typedef struct config {
  double temperature;
  int negatives;
  const char *output;
  mn_port port[2]; /* the output, as what is needed */
} config;
enum { ALL, OTHER_SIDE };
static const char *const sides[] = {"all", "other_side", NULL};
static const mn_field fields[] = {
    MN_FIELD_FLOAT(config, temperature, 0.05, 1e-6, 1e6, "that similarities are divided by"),
    MN_FIELD_ENUM(config, negatives, sides, ALL,
                  "what a row is told apart from: all others, or the rows that stand where its partner does"),
    MN_FIELD_STRING(config, output, "hidden", "the model's output: [B, D], or [B, T, D], which is averaged over the places that are there"),
    MN_FIELD_END};

static mn_status check(const mn_value *map, const char *where, void *c) {
  config *o = c;
  (void)map, (void)where;
  o->port[0] = (mn_port){o->output, MN_F32, "B..D", false, "what stands for a row"};
  return MN_OK;
}

static void needs(const void *c, const mn_port **outputs, const mn_port **data) {
  static const mn_port in[] = {
      {"length", MN_I32, "B", true, "places of the row that are there"}, {"masks", MN_I32, "BT", true, "1 where a place is there"}, {0}};
  *outputs = ((const config *)c)->port;
  *data = in;
}

/* [B,T,D] -> [B,D], the mean over those places [B,T] that are there; NULL: over all. */
static mn_tensor *pool(mn_graph *g, mn_tensor *x, mn_tensor *places) {
  int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), D = mn_dim(x, 2);
  if (!places) return mn_reshape(g, mn_mean(g, x, MN_AXIS(1)), MN_SHAPE(B, D));
  places = mn_reshape(g, places, MN_SHAPE(B, T, 1));
  mn_tensor *n = mn_maximum(g, mn_sum(g, places, MN_AXIS(1)), mn_scalar(g, mn_type(x), 1));
  return mn_reshape(g, mn_div(g, mn_sum(g, mn_mul(g, x, places), MN_AXIS(1)), n), MN_SHAPE(B, D));
}

/* Does the output have a vector for each place of the row? */
static bool is_by_place(const config *o, const mn_judge *judge, const mn_tensor *z) {
  const mn_port *port = judge->model ? mn_model_output(judge->model, o->output) : NULL;
  return mn_ndim(z) == 3 && (!judge->model || (port && !strncmp(port->axes, "BT", 2)));
}

static void build(mn_scope *s, const void *c, const mn_judge *judge, mn_verdict *out) {
  const config *o = c;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *z = mn_io_get(judge->outputs, o->output);
  if (!z || z->shape.ndim < 2 || mn_dim(z, 0) % 2 || mn_dim(z, 0) < 4) {
    mn_graph_fault(g, MN_ERR_CONFIG,
                   z ? "objective contrastive: batches are of pairs, two at least: train.batch must be even and 4 or more"
                     : "objective contrastive: the model has no output %s",
                   o->output);
    return;
  }
  const mn_tensor *masks = mn_io_get(judge->data, "masks");
  const bool by_place = is_by_place(o, judge, z);
  const int64_t B = mn_dim(z, 0), T = by_place ? mn_dim(z, 1) : masks && masks->shape.ndim == 2 ? mn_dim(masks, 1) : 1;
  mn_tensor *places = mn_places_there(s, judge, B, T);
  z = mn_cast(g, z, mn_scope_exact(s));
  if (mn_ndim(z) == 3) z = pool(g, z, by_place ? places : NULL);
  z = mn_norm(g, MN_NORM_L2, z, NULL, NULL, 1e-12, mn_type(z));
  mn_tensor *near = mn_mul_scalar(g, mn_matmul(g, z, mn_transpose(g, z, 0, 1)), 1 / o->temperature); /* [B,B] */
  mn_tensor *row = mn_iota(g, MN_I32, MN_SHAPE(B, 1), 0), *column = mn_iota(g, MN_I32, MN_SHAPE(1, B), 1);
  mn_tensor *two = mn_scalar(g, MN_I32, 2);
  mn_tensor *out_of_it = o->negatives == ALL ? mn_eq(g, row, column) : mn_eq(g, mn_mod(g, row, two), mn_mod(g, column, two));
  if (places) { /* of the rows that fill up a data set's last batch the length is 0 */
    mn_tensor *n = mn_reshape(g, mn_sum(g, places, MN_AXIS(1)), MN_SHAPE(1, B));
    out_of_it = mn_or(g, out_of_it, mn_lt(g, n, mn_scalar(g, mn_type(n), 1)));
  }
  near = mn_select(g, out_of_it, mn_scalar(g, mn_type(near), -1e9), near);
  mn_tensor *i = mn_iota(g, MN_I32, MN_SHAPE(B), 0); /* partner: i + 1 - 2 (i mod 2) */
  mn_tensor *partner = mn_sub(g, mn_add(g, i, mn_scalar(g, MN_I32, 1)), mn_mul(g, two, mn_mod(g, i, two)));
  out->each = mn_neg(g, mn_pick(g, mn_log_softmax(g, near), partner));
  out->loss = mn_weighted_sum(g, out->each, judge->weight);
  if (judge->measure) out->metric[0] = mn_cast(g, mn_eq(g, mn_argmax(g, near), partner), mn_type(near));
}

static const mn_metric_def metrics[] = {{"retrieval", MN_METRIC_MEAN, false, true, "fraction of rows whose nearest is their partner"}, {0}};

const mn_objective_def mn_objective_contrastive = {
    .name = "contrastive",
    .summary = "pairs of rows are nearer to each other than to others: InfoNCE",
    .paper = "van den Oord et al. 2018, arXiv:1807.03748",
    .config_size = sizeof(config),
    .fields = fields,
    .metrics = metrics,
    .pairs = true,
    .of_places = true,
    .check = check,
    .needs = needs,
    .build = build,
};
