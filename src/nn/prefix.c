/* prefix.c - see prefix.h. */
#include "nn/prefix.h"

mn_tensor *mn_later(mn_graph *g, mn_tensor *x, int64_t d, double fill) {
  mn_tensor *front = mn_full(g, mn_type(x), MN_SHAPE(mn_dim(x, 0), d, mn_dim(x, 2)), fill);
  return mn_concat(g, 2, (mn_tensor *[]){front, mn_slice(g, x, 1, 0, mn_dim(x, 1) - d)}, 1);
}

/* After the step with d, m at t covers (t - 2d, t], and faded is the sum of fade over the last 2d places. */
mn_tensor *mn_running_max(mn_graph *g, mn_tensor *first, mn_tensor *x, mn_tensor *fade) {
  const int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), H = mn_dim(x, 2);
  mn_tensor *m = mn_concat(g, 2, (mn_tensor *[]){mn_reshape(g, first, MN_SHAPE(B, 1, H)), x}, 1);
  mn_tensor *faded = fade ? mn_pad(g, fade, 1, 1, 0) : NULL;
  for (int64_t d = 1; d <= T; d *= 2) {
    mn_tensor *before = mn_later(g, m, d, MN_NOTHING);
    m = mn_maximum(g, m, faded ? mn_add(g, before, faded) : before);
    if (faded) faded = mn_add(g, faded, mn_later(g, faded, d, 0));
  }
  return m;
}
