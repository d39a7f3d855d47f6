/* orthogonal.c - see orthogonal.h. */
#include "graph/orthogonal.h"

mn_tensor *mn_orthogonal(mn_graph *g, mn_tensor *x, int steps) {
  const double a = 3.4445, b = -4.7750, c = 2.0315;
  if (!x) return NULL;
  const int last = x->shape.ndim - 1;
  if (last < 1 || steps < 1 || steps > 20 || !mn_dtype_is_float(x->dtype)) {
    char s[96];
    mn_graph_fault(g, MN_ERR_SHAPE, "orthogonal: %d steps for %s %s, which is 1 to 20 for floats [..., m, n]", steps,
                   mn_dtype_name(x->dtype), mn_shape_str(&x->shape, s));
    return NULL;
  }
  const bool tall = mn_dim(x, -2) > mn_dim(x, -1);
  if (tall) x = mn_transpose(g, x, last - 1, last);
  mn_tensor *size = last == 1 ? mn_sumsq(g, x) : mn_sum(g, mn_square(g, x), MN_AXIS(last) | MN_AXIS(last - 1));
  x = mn_div(g, x, mn_add_scalar(g, mn_sqrt(g, size), 1e-7));
  for (int i = 0; i < steps; i++) {
    mn_tensor *xx = mn_matmul(g, x, mn_transpose(g, x, last - 1, last));                             /* X X^T */
    mn_tensor *poly = mn_add(g, mn_mul_scalar(g, xx, b), mn_mul_scalar(g, mn_matmul(g, xx, xx), c)); /* b A + c A^2 */
    x = mn_add(g, mn_mul_scalar(g, x, a), mn_matmul(g, poly, x));
  }
  return tall ? mn_transpose(g, x, last - 1, last) : x;
}
