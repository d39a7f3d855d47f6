/* feature_map.h - keys and queries lifted to polynomials of their entries, so that a memory tells more of them apart. */
#ifndef MN_FEATURE_MAP_H
#define MN_FEATURE_MAP_H

#include "nn/scope.h"

/* phi(x) = [s_0, s_1 x, s_2 x_i^2, s_2 sqrt(2) x_i x_j (i < j)], so that phi(x) . phi(y) = s_0^2 + s_1^2 x.y + s_2^2 (x.y)^2: the exponential
 * to second order where s^2 = 1, 1, 1/2, and x itself where s = 0, 1, 0. (Behrouz et al. 2025, arXiv 2505.23735, section 3.1.) */
int64_t mn_poly2_width(int64_t d); /* 1 + d + d (d + 1) / 2 */
/* x [B,H,n,d], s [H,3] -> [B,H,n,width] */
mn_tensor *mn_poly2(mn_graph *g, mn_tensor *x, mn_tensor *s);
/* s, learned: parameter `name` [H,3] times sqrt(1 / i!), in the exact type; ones at the start. */
mn_tensor *mn_poly2_scales(mn_scope *s, const char *name, int64_t heads, const char *help);

#endif
