/* scope_random.c - numbers drawn while a model runs; see scope.h. */
#include "nn/scope_internal.h"

static mn_tensor *draw(mn_scope *s, const char *name, mn_shape shape, bool normal) {
  mn_scope_root *r = s->r;
  const char *full = mn_scope_full_state(s, name);
  if (!full) return NULL;
  r->draws = true;
  uint64_t key = mn_random_key(r->build.seed, full);
  mn_tensor *step = r->build.step ? r->build.step : mn_scalar(r->graph, MN_I64, 0);
  mn_tensor *x =
      normal ? mn_random_normal_op(r->graph, shape, key, step, r->tick) : mn_random_uniform_op(r->graph, shape, key, step, r->tick);
  return mn_cast(r->graph, x, mn_scope_exact(s));
}

mn_tensor *mn_draw_uniform(mn_scope *s, const char *name, mn_shape shape) { return draw(s, name, shape, false); }
mn_tensor *mn_draw_normal(mn_scope *s, const char *name, mn_shape shape) { return draw(s, name, shape, true); }

/* x times 1 / (1 - p) where a uniform number of `shape` is at least p, else 0 */
static mn_tensor *drop(mn_scope *s, const char *name, mn_tensor *x, double p, mn_shape shape) {
  mn_graph *g = s->r->graph;
  if (!(p >= 0 && p < 1)) {
    mn_graph_fault(g, MN_ERR_ARG, "%s%s drops with probability %g; it must be at least 0 and below 1", s->path, name, p);
    return NULL;
  }
  if (!x || p == 0 || !mn_scope_training(s)) return x;
  mn_tensor *u = mn_draw_uniform(s, name, shape), *keep = mn_le(g, mn_scalar(g, mn_scope_exact(s), p), u);
  return mn_mul(g, x, mn_cast(g, mn_mul_scalar(g, mn_cast(g, keep, mn_scope_exact(s)), 1 / (1 - p)), mn_type(x)));
}

mn_tensor *mn_dropout(mn_scope *s, const char *name, mn_tensor *x, double p) { return drop(s, name, x, p, mn_shape_as(x)); }

mn_tensor *mn_drop_path(mn_scope *s, const char *name, mn_tensor *x, double p) {
  return drop(s, name, x, p, mn_rows_shape(mn_ndim(x), mn_dim(x, 0), 1));
}
