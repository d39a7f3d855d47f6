/* pooling.c - one vector for a whole sequence. */
#include "model/model.h"

mn_tensor *mn_pooled(mn_scope *s, mn_pooling how, mn_tensor *h, mn_tensor *length) {
  mn_graph *g = mn_scope_graph(s);
  if (!h || how == MN_POOL_NONE) return h;
  int64_t B = mn_dim(h, 0), T = mn_dim(h, 1), D = mn_dim(h, 2);
  mn_shape row = MN_SHAPE(B, D);
  if (how == MN_POOL_FIRST) return mn_reshape(g, mn_slice(g, h, 1, 0, 1), row);
  if (how == MN_POOL_LAST && !length) return mn_reshape(g, mn_slice(g, h, 1, T - 1, 1), row);
  if (how == MN_POOL_LAST) return mn_take(g, h, mn_add_scalar(g, length, -1), 1); /* nothing of an empty row: zeros */
  mn_dtype exact = mn_scope_exact(s);
  mn_tensor *x = mn_cast(g, h, exact);
  if (!length) return mn_cast(g, mn_reshape(g, mn_mean(g, x, MN_AXIS(1)), row), mn_type(h));
  mn_tensor *n = mn_reshape(g, length, MN_SHAPE(B, 1)), *there = mn_lt(g, mn_iota(g, MN_I32, MN_SHAPE(1, T), 1), n); /* [B,T] */
  x = mn_mul(g, x, mn_reshape(g, mn_cast(g, there, exact), MN_SHAPE(B, T, 1)));
  mn_tensor *count = mn_cast(g, mn_maximum(g, n, mn_scalar(g, MN_I32, 1)), exact);
  return mn_cast(g, mn_div(g, mn_reshape(g, mn_sum(g, x, MN_AXIS(1)), row), count), mn_type(h));
}
