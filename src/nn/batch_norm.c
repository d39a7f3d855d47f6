/* batch_norm.c - see batch_norm.h. */
#include "nn/batch_norm.h"

/* running + momentum (now - running), without gradient */
static mn_tensor *moved(mn_graph *g, mn_tensor *running, mn_tensor *now, double momentum) {
  mn_tensor *step = mn_sub(g, mn_stop_gradient(g, mn_reshape(g, now, mn_shape_as(running))), running);
  return mn_add(g, running, mn_mul_scalar(g, step, momentum));
}

/* The places that count, and how many they are. */
typedef struct sample {
  mn_tensor *live; /* of [B,T,C]: [B,T,1], 0 behind the end of a row, else 1; NULL: all count */
  mn_tensor *n;    /* scalar, at least 1 */
} sample;

static sample sample_of(mn_scope *s, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *live = mn_ndim(x) == 3 && mn_dim(x, 0) == mn_scope_batch(s) ? mn_scope_live(s, mn_dim(x, 1)) : NULL;
  if (!live) {
    const mn_shape shape = mn_shape_as(x);
    const int64_t C = mn_dim(x, -1), n = C ? mn_shape_count(&shape) / C : 0;
    return (sample){NULL, mn_scalar(g, mn_type(x), n > 1 ? (double)n : 1)};
  }
  live = mn_unsqueeze(g, mn_cast(g, live, mn_type(x)), 2);
  mn_tensor *n = mn_reshape(g, mn_sum(g, live, MN_AXIS(0) | MN_AXIS(1) | MN_AXIS(2)), (mn_shape){0});
  return (sample){live, mn_maximum(g, n, mn_scalar(g, mn_type(x), 1))};
}

/* Mean of x [...,C] over all axes but the last, which stay with size 1. */
static mn_tensor *mean_over(mn_graph *g, const sample *all, mn_tensor *x) {
  if (!x) return NULL;
  const unsigned others = (1u << (mn_ndim(x) - 1)) - 1;
  return mn_div(g, mn_sum(g, all->live ? mn_mul(g, x, all->live) : x, others), all->n);
}

mn_tensor *mn_batch_norm(mn_scope *s, const char *name, mn_tensor *x, double eps, double momentum) {
  mn_scope *in = mn_scope_in(s, "%s", name);
  mn_graph *g = mn_scope_graph(in);
  const mn_dtype exact = mn_scope_exact(in);
  const mn_shape shape = MN_SHAPE(mn_dim(x, -1));
  mn_tensor *weight = mn_cast(g, mn_param(in, "weight", shape, MN_ONES, MN_PARAM_NO_DECAY, "norm's gain"), exact);
  mn_tensor *bias = mn_cast(g, mn_param(in, "bias", shape, MN_ZEROS, MN_PARAM_NO_DECAY, "norm's bias"), exact);
  mn_tensor *mean = mn_model_buffer(in, "running_mean", exact, shape, 0, "mean of each channel, in evaluation");
  mn_tensor *var = mn_model_buffer(in, "running_var", exact, shape, 1, "variance of each channel, in evaluation");
  mn_tensor *y = mn_cast(g, x, exact);
  if (mn_scope_training(in)) {
    const sample all = sample_of(in, y);
    mn_tensor *centre = mean_over(g, &all, y), *spread = mean_over(g, &all, mn_square(g, mn_sub(g, y, centre)));
    mn_tensor *one = mn_scalar(g, exact, 1), *others = mn_maximum(g, mn_sub(g, all.n, one), one);
    mn_model_buffer_set(in, "running_mean", moved(g, mean, centre, momentum));
    mn_model_buffer_set(in, "running_var", moved(g, var, mn_mul(g, spread, mn_div(g, all.n, others)), momentum));
    mean = centre;
    var = spread;
  }
  y = mn_mul(g, mn_sub(g, y, mean), mn_rsqrt(g, mn_add_scalar(g, var, eps)));
  return mn_cast(g, mn_add(g, mn_mul(g, y, weight), bias), mn_type(x));
}
