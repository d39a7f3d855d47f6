/* fused_product.h - a product with a factor, added to what is there. */
#ifndef MN_FUSED_PRODUCT_H
#define MN_FUSED_PRODUCT_H

#include "graph/graph.h"

/* alpha a b + c for a[...,M,K], b[...,K,N], whose batch axes broadcast, and c of the product's shape and type (NULL: none).
 * It may run in place on c. */
mn_tensor *mn_scaled_product(mn_graph *g, double alpha, mn_tensor *a, mn_tensor *b, mn_tensor *c);

/* For kernels and passes. */
MN_ATTRS_BEGIN
typedef struct mn_scaled_product_attr {
  double alpha;
} mn_scaled_product_attr;
MN_ATTRS_END
extern const mn_op mn_op_scaled_product; /* (a, b[, c]) -> y */

#endif
