/* memory_mean.c - what a memory should become when it is written, before anybody reads it (Filipek 2025, arXiv 2510.03561): near a mean of
 * what it was and of what was read,
 *     target_t = (1 - w_t) M_{t-1} + w_t X_t     w_0 = first, w_t = next - fall t, each moved by up to `jitter` in training
 *     loss = - mean over slots of cos(M_t, target_t)
 * where X_t is what was read, brought to as many places as there are slots. A row is as good as its turns that wrote, on average; its
 * first turn writes with w_0. A row whose first turn is empty wrote nothing, and does not count. No gradient flows to M_{t-1} and X_t. */
#include <math.h>

#include "objective/objective.h"

typedef struct config {
  double first, next, fall, jitter, noise, still;
} config;
static const mn_field fields[] = {
    MN_FIELD_FLOAT(config, first, 0.9, 0, 1, "share w_0 of what was read, in a dialogue's first turn"),
    MN_FIELD_FLOAT(config, next, 0.5, 0, 1, "w_t of later ones, less `fall` for each turn before"),
    MN_FIELD_FLOAT(config, fall, 0.05, 0, 1, "by how much a turn's share falls"),
    MN_FIELD_FLOAT(config, jitter, 0.15, 0, 1, "in training each row's share is moved by up to so much"),
    MN_FIELD_FLOAT(config, noise, 0, 0, 100, "in training: of the noise on the target"),
    MN_FIELD_FLOAT(config, still, 0, 0, 1e6, "weight of sqrt(t + 1) mean (M_t - M_{t-1})^2, which holds the memory still; 0: left out"),
    MN_FIELD_END};

static void needs(const void *c, const mn_port **outputs, const mn_port **data) {
  static const mn_port out[] = {{"memory_before", MN_F32, "BNMD", false, "slots that were written to"},
                                {"memory_after", MN_F32, "BNMD", false, "what was written"},
                                {"memory_read", MN_F32, "BNMD", false, "what was read"},
                                {"memory_written", MN_F32, "BN", false, "1 where something was"},
                                {0}};
  static const mn_port in[] = {{"masks", MN_I32, "BT", true, "1 where a place of a turn is there"}, {0}};
  (void)c;
  *outputs = out;
  *data = in;
}

static const char *target(const void *c, int *axes) {
  (void)c;
  *axes = 1;
  return "masks";
}

/* By its first turn's first place: turns are filled from their beginning. */
static double weigh(const void *c, const int32_t *masks) {
  (void)c;
  return *masks > 0 ? 1 : 0;
}

/* cos of a and b along the last axis: [B,N,M]. */
static mn_tensor *cosine(mn_graph *g, mn_tensor *a, mn_tensor *b) {
  const unsigned last = mn_last_axis(a);
  mn_tensor *ab = mn_sum(g, mn_mul(g, a, b), last);
  mn_tensor *n = mn_mul(g, mn_sum(g, mn_square(g, a), last), mn_sum(g, mn_square(g, b), last));
  return mn_div(g, ab, mn_sqrt(g, mn_add_scalar(g, n, 1e-12)));
}

/* w_t [B,N,1,1]: turn n writes what turn n - 1 said, so t = n - 1. */
static mn_tensor *shares(mn_scope *s, const config *c, int64_t B, int64_t N) {
  mn_graph *g = mn_scope_graph(s);
  const mn_dtype exact = mn_scope_exact(s);
  const mn_shape shape = MN_SHAPE(B, N, 1, 1);
  double *w = mn_arena_alloc(g->arena, (size_t)N * sizeof *w);
  if (!w) return NULL;
  for (int64_t n = 0; n < N; n++) w[n] = n <= 1 ? c->first : fmax(c->next - c->fall * (double)(n - 1), 0);
  mn_tensor *x = mn_expand(g, mn_const(g, exact, MN_SHAPE(1, N, 1, 1), w), shape), *zero = mn_scalar(g, exact, 0),
            *one = mn_scalar(g, exact, 1);
  if (c->jitter == 0 || !mn_scope_training(s)) return x;
  mn_tensor *u = mn_draw_uniform(mn_scope_in(s, "memory_mean"), "jitter", shape);
  x = mn_add(g, x, mn_mul_scalar(g, mn_add_scalar(g, u, -0.5), 2 * c->jitter));
  return mn_minimum(g, mn_maximum(g, x, zero), one);
}

static void build(mn_scope *s, const void *keys, const mn_judge *judge, mn_verdict *out) {
  const config *c = keys;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *before = mn_io_get(judge->outputs, "memory_before"), *after = mn_io_get(judge->outputs, "memory_after");
  mn_tensor *read = mn_io_get(judge->outputs, "memory_read"), *there = mn_io_get(judge->outputs, "memory_written");
  if (!before || !after || !read || !there) return;
  const int64_t B = mn_dim(after, 0), N = mn_dim(after, 1);
  if (N < 2) {
    mn_graph_fault(g, MN_ERR_CONFIG,
                   "objective memory_mean: a row has one turn, and what it says is written when the next begins: give "
                   "train.seq_len room for two of the model's turns");
    return;
  }
  mn_tensor *w = shares(s, c, B, N);
  if (!w) return;
  before = mn_stop_gradient(g, before);
  mn_tensor *target = mn_add(g, before, mn_mul(g, w, mn_sub(g, mn_stop_gradient(g, read), before)));
  if (c->noise > 0 && mn_scope_training(s))
    target = mn_add(g, target, mn_mul_scalar(g, mn_draw_normal(mn_scope_in(s, "memory_mean"), "noise", mn_shape_as(target)), c->noise));
  mn_tensor *cos = mn_reshape(g, mn_mean(g, cosine(g, after, target), MN_AXIS(2)), MN_SHAPE(B, N)), *loss = mn_neg(g, cos);
  if (c->still > 0) {
    double *grow = mn_arena_alloc(g->arena, (size_t)N * sizeof *grow);
    if (!grow) return;
    for (int64_t n = 0; n < N; n++) grow[n] = c->still * sqrt((double)(n < 1 ? 1 : n));
    mn_tensor *moved = mn_reshape(g, mn_mean(g, mn_square(g, mn_sub(g, after, before)), MN_AXIS(2) | MN_AXIS(3)), MN_SHAPE(B, N));
    loss = mn_add(g, loss, mn_mul(g, moved, mn_const(g, mn_scope_exact(s), MN_SHAPE(1, N), grow)));
  }
  mn_tensor *count = mn_maximum(g, mn_sum(g, there, MN_AXIS(1)), mn_scalar(g, mn_scope_exact(s), 1));
  const mn_shape rows = MN_SHAPE(B);
  out->each = mn_reshape(g, mn_div(g, mn_sum(g, mn_mul(g, loss, there), MN_AXIS(1)), count), rows);
  out->loss = mn_weighted_sum(g, out->each, judge->weight);
  if (judge->measure) out->metric[0] = mn_reshape(g, mn_div(g, mn_sum(g, mn_mul(g, cos, there), MN_AXIS(1)), count), rows);
}

static const mn_metric_def metrics[] = {{"cosine", MN_METRIC_MEAN, false, true, "of what was written and its target, mean over slots"},
                                        {0}};

const mn_objective_def mn_objective_memory_mean = {
    .name = "memory_mean",
    .summary = "a memory that is written becomes a mean of what it was and what was read",
    .paper = "Filipek 2025, arXiv 2510.03561",
    .config_size = sizeof(config),
    .fields = fields,
    .metrics = metrics,
    .needs = needs,
    .target = target,
    .weigh = weigh,
    .build = build,
};
