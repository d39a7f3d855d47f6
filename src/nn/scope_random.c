/* scope_random.c - numbers drawn while a model runs; see scope.h. */
#include "nn/scope_internal.h"

/* Numbers are another draw at each piece of a loop; one a step of this call; or one a step of a parameter, whoever calls with it. */
typedef enum often { ANEW, HELD, OF_A_PARAMETER } often;

static mn_tensor *draw(mn_scope *s, const char *name, mn_shape shape, bool normal, often how) {
  mn_scope_root *r = s->r;
  const char *full = how == OF_A_PARAMETER ? mn_scope_full(s, name) : mn_scope_full_state(s, name);
  if (!full) return NULL;
  if (how == ANEW) r->draws = true;
  uint64_t key = mn_random_key(r->build.seed, full);
  mn_tensor *step = r->build.step ? r->build.step : mn_scalar(r->graph, MN_I64, 0), *tick = how == ANEW ? r->tick : NULL;
  mn_tensor *x = normal ? mn_random_normal_op(r->graph, shape, key, step, tick) : mn_random_uniform_op(r->graph, shape, key, step, tick);
  return mn_cast(r->graph, x, mn_scope_exact(s));
}

mn_tensor *mn_draw_uniform(mn_scope *s, const char *name, mn_shape shape) { return draw(s, name, shape, false, ANEW); }
mn_tensor *mn_draw_normal(mn_scope *s, const char *name, mn_shape shape) { return draw(s, name, shape, true, ANEW); }

/* x times 1 / (1 - p) where a uniform number of `shape` is at least p, else 0 */
static mn_tensor *drop(mn_scope *s, const char *name, mn_tensor *x, double p, mn_shape shape, often how) {
  mn_graph *g = s->r->graph;
  if (!(p >= 0 && p < 1)) {
    mn_graph_fault(g, MN_ERR_ARG, "%s%s drops with probability %g; it must be at least 0 and below 1", s->path, name, p);
    return NULL;
  }
  if (!x || p == 0 || !mn_scope_training(s)) return x;
  mn_tensor *u = draw(s, name, shape, false, how), *keep = mn_le(g, mn_scalar(g, mn_scope_exact(s), p), u);
  return mn_mul(g, x, mn_cast(g, mn_mul_scalar(g, mn_cast(g, keep, mn_scope_exact(s)), 1 / (1 - p)), mn_type(x)));
}

mn_tensor *mn_dropout(mn_scope *s, const char *name, mn_tensor *x, double p) { return drop(s, name, x, p, mn_shape_as(x), ANEW); }

mn_tensor *mn_drop_weights(mn_scope *s, const char *name, mn_tensor *w, double p) {
  return drop(s, name, w, p, mn_shape_as(w), OF_A_PARAMETER);
}

/* [B,T,...]: all tokens of a row share what is dropped */
mn_tensor *mn_dropout_locked(mn_scope *s, const char *name, mn_tensor *x, double p) {
  mn_shape shape = mn_shape_as(x);
  if (shape.ndim > 1) shape.dim[1] = 1;
  return drop(s, name, x, p, shape, HELD);
}

mn_tensor *mn_drop_path(mn_scope *s, const char *name, mn_tensor *x, double p) {
  return drop(s, name, x, p, mn_rows_shape(mn_ndim(x), mn_dim(x, 0), 1), ANEW);
}

mn_tensor *mn_scope_step(mn_scope *s) { return mn_capture(s->r->graph, s->r->build.step); }

/* ---- rounding by chance ---- */
/* The neighbours of x among numbers of `bits` significant binary digits, r one of them, the nearest. With u the unit of r's last place,
 * r 2^-bits is in [u/2, u) away from zero: r (1 - 2^-bits) is nearest to the neighbour below (where r is a power of 2 and the
 * numbers below lie at u/2, it is that neighbour), r (1 + 3/2 2^-bits) to the one above, as 3/2 of [u/2, u) is within (u/2, 3/2 u).
 * Both products are exact in x's type. */
static mn_tensor *neighbour(mn_graph *g, mn_tensor *r, double scale, mn_dtype dtype) {
  return mn_cast(g, mn_cast(g, mn_mul_scalar(g, r, scale), dtype), mn_type(r));
}

mn_tensor *mn_round_stochastic(mn_scope *s, const char *name, mn_tensor *x, mn_dtype dtype) {
  mn_graph *g = s->r->graph;
  const mn_dtype wide = mn_type(x);
  if (!x) return NULL;
  if (!mn_dtype_is_float(dtype) || !mn_dtype_is_float(wide)) {
    mn_graph_fault(g, MN_ERR_ARG, "%s%s rounds %s to %s; both must be types of real numbers", s->path, name, mn_dtype_name(wide),
                   mn_dtype_name(dtype));
    return NULL;
  }
  const bool narrower = dtype == MN_BF16 ? wide != MN_BF16 : dtype == MN_F32 && wide == MN_F64;
  mn_tensor *nearest = mn_cast(g, x, dtype);
  if (!narrower || !mn_scope_training(s)) return nearest;
  const double unit = dtype == MN_BF16 ? 0x1p-8 : 0x1p-24;
  mn_tensor *value = mn_stop_gradient(g, x), *size = mn_abs(g, value); /* |x|: rounding is symmetric */
  mn_tensor *r = mn_cast(g, mn_cast(g, size, dtype), wide), *above = mn_lt(g, size, r);
  mn_tensor *low = mn_select(g, above, neighbour(g, r, 1 - unit, dtype), r);
  mn_tensor *high = mn_select(g, above, r, neighbour(g, r, 1 + 1.5 * unit, dtype));
  mn_tensor *u = mn_cast(g, mn_draw_uniform(s, name, mn_shape_as(x)), wide);
  mn_tensor *up = mn_lt(g, mn_mul(g, u, mn_sub(g, high, low)), mn_sub(g, size, low));
  mn_tensor *chosen = mn_select(g, up, high, low), *negative = mn_lt(g, value, mn_scalar(g, wide, 0));
  return mn_with_gradient(g, mn_cast(g, mn_select(g, negative, mn_neg(g, chosen), chosen), dtype), nearest);
}

/* ---- sampling ---- argmax of logits + G, with G = -log(-log U) of Gumbel's distribution, has the distribution softmax(logits).
 * U is u = k 2^-24 moved to within (0,1), so that no G is infinite; written as 1 - U, whose small values are those that decide. */
mn_tensor *mn_draw_categorical(mn_scope *s, const char *name, mn_tensor *logits) {
  mn_graph *g = s->r->graph;
  const mn_dtype exact = mn_scope_exact(s);
  if (!logits) return NULL;
  if (!mn_dtype_is_float(mn_type(logits)) || mn_ndim(logits) == 0) {
    mn_graph_fault(g, MN_ERR_ARG, "%s%s draws from logits [..., N] of real numbers, not from %s of %d axes", s->path, name,
                   mn_dtype_name(mn_type(logits)), mn_ndim(logits));
    return NULL;
  }
  mn_tensor *u = mn_add_scalar(g, mn_draw_uniform(s, name, mn_shape_as(logits)), 0x1p-25);
  u = mn_minimum(g, u, mn_scalar(g, exact, 1 - 0x1p-24)); /* in f32 the largest sum rounds to 1 */
  mn_tensor *gumbel = mn_neg(g, mn_log(g, mn_neg(g, mn_log1p(g, mn_neg(g, u)))));
  return mn_argmax(g, mn_add(g, mn_cast(g, logits, exact), gumbel));
}
