/* fused_masked_product.h - two products with a mask between them. */
#ifndef MN_FUSED_MASKED_PRODUCT_H
#define MN_FUSED_MASKED_PRODUCT_H

#include "graph/graph.h"

/* ((x y^T) * p) z for x[...,M,K], y[...,N,K], p[...,M,N], z[...,N,V] -> [...,M,V]: attention without softmax. What p has
 * zeros for may be left out: a score there that is not finite need not come through. */
mn_tensor *mn_masked_product(mn_graph *g, mn_tensor *x, mn_tensor *y, mn_tensor *p, mn_tensor *z);

/* For kernels and passes: operands and results in order. */
extern const mn_op mn_op_masked_product; /* (x, y, p, z) -> o */

#endif
