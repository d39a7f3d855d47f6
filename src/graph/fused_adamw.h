/* fused_adamw.h - one update of AdamW. */
#ifndef MN_FUSED_ADAMW_H
#define MN_FUSED_ADAMW_H

#include "graph/graph.h"

/* AdamW (Loshchilov & Hutter 2019), one tensor: p, g, m, v (same shape); scalars f32 [5] =
 * {lr, beta1-correction 1-b1^t, beta2-correction 1-b2^t, gradient scale, weight decay factor of this tensor}. */
MN_ATTRS_BEGIN
typedef struct mn_adamw_attr {
  double beta1, beta2, eps;
} mn_adamw_attr;
MN_ATTRS_END
void mn_adamw(mn_graph *g, mn_tensor *p, mn_tensor *grad, mn_tensor *m, mn_tensor *v, mn_tensor *scalars, mn_adamw_attr attr,
              mn_tensor **p1, mn_tensor **m1, mn_tensor **v1);

/* For kernels and passes: operands and results in order. */
extern const mn_op mn_op_adamw; /* (p, g, m, v, scalars [5]) -> (p', m', v'), each may run in place */

#endif
