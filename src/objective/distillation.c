/* distillation.c - a student learns what a teacher says (Hinton et al. 2015, arXiv:1503.02531). One of
 *     logits    t^2 KL(softmax(teacher / t) || softmax(student / t)), at each position that counts
 *     features  mean squared difference of the last hidden vectors (of one width)
 *     sparse    - sum over k of w_k log p(id_k) - (1 - sum w) log(1 - sum p(id_k)): a few likeliest tokens with the teacher's probabilities,
 *               from the source, and all others together; where all are listed it is the cross-entropy with the teacher
 * The teacher is a trained model in a directory, or part of the model (outputs named teacher.*); no gradient reaches it. */
#include "objective/objective.h"

typedef struct config {
  int from;
  double temperature;
  const char *teacher;
} config;
enum { LOGITS, FEATURES, SPARSE };
static const char *const froms[] = {"logits", "features", "sparse", NULL};
static const mn_field fields[] = {
    MN_FIELD_ENUM(config, from, froms, LOGITS,
                  "what the student is to match: the teacher's logits or features, or sparse targets of the source"),
    MN_FIELD_STRING(config, teacher, NULL, "directory of the trained model that teaches; it is neither trained nor saved"),
    MN_FIELD_FLOAT(config, temperature, 1, 1e-6, 1e6, "logits: both are divided by it"), MN_FIELD_END};
static const mn_key_use uses[] = {{"temperature", "logits"}, {"teacher", "logits features"}, {0}};

static mn_status check(const mn_value *map, const char *where, void *c) {
  return mn_config_uses(map, where, uses, froms[((const config *)c)->from]);
}

static void needs(const void *c, const mn_port **outputs, const mn_port **data) {
  static const mn_port from_logits[] = {{"hidden", MN_F32, "BTD", true, "the student's; or logits"},
                                        {"teacher.hidden", MN_F32, "BTD", true, "the teacher's; or teacher.logits"},
                                        {0}};
  static const mn_port features[] = {
      {"hidden", MN_F32, "BTD", false, "the student's features"}, {"teacher.hidden", MN_F32, "BTD", false, "the teacher's features"}, {0}};
  static const mn_port target_only[] = {{"target", MN_I32, "BT", true, "which positions count; without it all of a row's"},
                                        {"length", MN_I32, "B", true, "places of the row that are there"},
                                        {"masks", MN_I32, "BT", true, "1 where a place is there"},
                                        {0}};
  static const mn_port sparse[] = {{"soft_ids", MN_I32, "BTE", false, "the likeliest tokens; negative: no more"},
                                   {"soft_weights", MN_F32, "BTE", false, "and their probabilities"},
                                   {0}};
  int from = ((const config *)c)->from;
  *outputs = from == FEATURES ? features : from_logits;
  *data = from == SPARSE ? sparse : target_only;
}

static const char *teacher(const void *c) { return ((const config *)c)->teacher; }

static const char *target(const void *c, int *axes) {
  *axes = 2;
  return ((const config *)c)->from == SPARSE ? "soft_ids" : "target";
}

/* [N]: t^2 KL(teacher || student) */
static mn_tensor *divergence(mn_scope *s, const mn_judge *judge, double t, mn_tensor **agree) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *x = mn_judge_logits(s, judge->outputs, ""), *y = mn_judge_logits(s, judge->outputs, "teacher.");
  if (!x || !y) return NULL;
  if (!mn_shape_equal(&x->shape, &y->shape)) {
    mn_graph_fault(g, MN_ERR_CONFIG,
                   "objective distillation: the teacher chooses among %lld, the student among %lld: their vocabularies differ",
                   (long long)mn_dim(y, 1), (long long)mn_dim(x, 1));
    return NULL;
  }
  y = mn_stop_gradient(g, y);
  if (judge->measure) *agree = mn_cast(g, mn_eq(g, mn_argmax(g, x), mn_argmax(g, y)), mn_type(x));
  mn_tensor *p = mn_log_softmax(g, mn_mul_scalar(g, x, 1 / t)), *q = mn_log_softmax(g, mn_mul_scalar(g, y, 1 / t));
  mn_tensor *kl = mn_sum(g, mn_mul(g, mn_exp(g, q), mn_sub(g, q, p)), MN_AXIS(1));
  return mn_mul_scalar(g, mn_reshape(g, kl, MN_SHAPE(mn_dim(x, 0))), t * t);
}

static mn_tensor *feature_error(mn_scope *s, const mn_judge *judge) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *x = mn_io_get(judge->outputs, "hidden"), *y = mn_io_get(judge->outputs, "teacher.hidden");
  if (!x || !y || !mn_shape_equal(&x->shape, &y->shape)) {
    mn_graph_fault(g, MN_ERR_CONFIG,
                   "objective distillation: features of teacher and student must be of one width; from: logits needs no such thing");
    return NULL;
  }
  mn_dtype exact = mn_scope_exact(s);
  mn_tensor *d = mn_square(g, mn_sub(g, mn_cast(g, x, exact), mn_stop_gradient(g, mn_cast(g, y, exact))));
  return mn_reshape(g, mn_mean(g, d, MN_AXIS(2)), MN_SHAPE(mn_dim(x, 0) * mn_dim(x, 1)));
}

static mn_tensor *sparse_error(mn_scope *s, const mn_judge *judge) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *x = mn_judge_logits(s, judge->outputs, ""), *ids = mn_io_get(judge->data, "soft_ids"),
            *w = mn_io_get(judge->data, "soft_weights");
  if (!x) return NULL;
  const int64_t N = mn_dim(x, 0), E = mn_dim(ids, 2);
  const mn_dtype t = mn_type(x);
  ids = mn_reshape(g, ids, MN_SHAPE(N, E));
  mn_tensor *listed = mn_le(g, mn_scalar(g, MN_I32, 0), ids), *zero = mn_scalar(g, t, 0), *one = mn_scalar(g, t, 1);
  w = mn_select(g, listed, mn_cast(g, mn_reshape(g, w, MN_SHAPE(N, E)), t), zero);
  mn_tensor *log_p = mn_take(g, mn_log_softmax(g, x), ids, 1);  /* [N,E]; outside: 0 */
  mn_tensor *said = mn_sum(g, mn_mul(g, log_p, w), MN_AXIS(1)); /* [N,1] */
  mn_tensor *other_w = mn_maximum(g, mn_sub(g, one, mn_sum(g, w, MN_AXIS(1))), zero);
  mn_tensor *other_p =
      mn_maximum(g, mn_sub(g, one, mn_sum(g, mn_select(g, listed, mn_exp(g, log_p), zero), MN_AXIS(1))), mn_scalar(g, t, 1e-7));
  return mn_neg(g, mn_reshape(g, mn_add(g, said, mn_mul(g, other_w, mn_log(g, other_p))), MN_SHAPE(N)));
}

static void build(mn_scope *s, const void *c, const mn_judge *judge, mn_verdict *out) {
  const config *o = c;
  mn_graph *g = mn_scope_graph(s);
  out->each = o->from == LOGITS     ? divergence(s, judge, o->temperature, &out->metric[0])
              : o->from == FEATURES ? feature_error(s, judge)
                                    : sparse_error(s, judge);
  if (!out->each) return;
  if (mn_dim(out->each, 0) != mn_dim(judge->weight, 0)) { /* logits of whole rows, or no target: units are rows */
    int64_t units = mn_dim(judge->weight, 0), n = mn_dim(out->each, 0) / units;
    mn_tensor *places = mn_places_there(s, judge, units, n);
    out->each = mn_row_mean(g, mn_reshape(g, out->each, MN_SHAPE(units, n)), places);
    if (out->metric[0]) out->metric[0] = mn_row_mean(g, mn_reshape(g, out->metric[0], MN_SHAPE(units, n)), places);
  }
  out->loss = mn_weighted_sum(g, out->each, judge->weight);
}

static const mn_metric_def metrics[] = {
    {"agreement", MN_METRIC_MEAN, false, true, "fraction of positions where the student chooses as the teacher; from logits only"}, {0}};

const mn_objective_def mn_objective_distillation = {
    .name = "distillation",
    .summary = "what a teacher says: its logits, its features, or a few likeliest tokens from the source",
    .paper = "Hinton et al. 2015, arXiv:1503.02531",
    .config_size = sizeof(config),
    .fields = fields,
    .metrics = metrics,
    .of_places = true,
    .check = check,
    .needs = needs,
    .target = target,
    .teacher = teacher,
    .build = build,
};
