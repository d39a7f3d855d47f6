/* batch_norm.c - see batch_norm.h. */
#include "nn/batch_norm.h"

/* running + momentum (now - running), without gradient */
static mn_tensor *moved(mn_graph *g, mn_tensor *running, mn_tensor *now, double momentum) {
  mn_tensor *step = mn_sub(g, mn_stop_gradient(g, mn_reshape(g, now, running->shape)), running);
  return mn_add(g, running, mn_mul_scalar(g, step, momentum));
}

mn_tensor *mn_batch_norm(mn_scope *s, const char *name, mn_tensor *x, double eps, double momentum) {
  if (!x) return NULL;
  mn_scope *in = mn_scope_in(s, "%s", name);
  mn_graph *g = mn_scope_graph(in);
  const mn_dtype exact = mn_scope_exact(in);
  const int64_t C = mn_dim(x, -1);
  const mn_shape shape = MN_SHAPE(C);
  mn_tensor *weight = mn_cast(g, mn_param(in, "weight", shape, MN_ONES, MN_PARAM_NO_DECAY, "norm's gain"), exact);
  mn_tensor *bias = mn_cast(g, mn_param(in, "bias", shape, MN_ZEROS, MN_PARAM_NO_DECAY, "norm's bias"), exact);
  mn_tensor *mean = mn_model_buffer(in, "running_mean", exact, shape, 0, "mean of each channel, in evaluation");
  mn_tensor *var = mn_model_buffer(in, "running_var", exact, shape, 1, "variance of each channel, in evaluation");
  mn_tensor *y = mn_cast(g, x, exact);
  if (!weight || !bias || !mean || !var) return NULL;
  if (mn_scope_training(in)) {
    const unsigned others = (1u << (x->shape.ndim - 1)) - 1;
    const double n = C ? (double)mn_shape_count(&x->shape) / (double)C : 0;
    mn_tensor *centre = mn_mean(g, y, others), *spread = mn_mean(g, mn_square(g, mn_sub(g, y, centre)), others);
    mn_model_buffer_set(in, "running_mean", moved(g, mean, centre, momentum));
    mn_model_buffer_set(in, "running_var", moved(g, var, n > 1 ? mn_mul_scalar(g, spread, n / (n - 1)) : spread, momentum));
    mean = centre;
    var = spread;
  }
  y = mn_mul(g, mn_sub(g, y, mean), mn_rsqrt(g, mn_add_scalar(g, var, eps)));
  return mn_cast(g, mn_add(g, mn_mul(g, y, weight), bias), x->dtype);
}
