/* fused_norm.h - normalisation over the last axis. */
#ifndef MN_FUSED_NORM_H
#define MN_FUSED_NORM_H

#include "graph/graph.h"

typedef enum mn_norm_kind { MN_NORM_RMS, MN_NORM_LAYER, MN_NORM_L2 } mn_norm_kind;
/* Over the last axis. RMS: x*rsqrt(mean x^2 + eps)*weight. LAYER: (x-mean)*rsqrt(var+eps)*weight + bias.
 * L2: x*rsqrt(sum x^2 + eps). weight, bias [D] (f32 or f64) or NULL. Inner arithmetic f32 (f64). Output type `out`. */
mn_tensor *mn_norm(mn_graph *g, mn_norm_kind kind, mn_tensor *x, mn_tensor *weight, mn_tensor *bias, double eps, mn_dtype out);

/* For kernels and passes: operands and results in order. */
MN_ATTRS_BEGIN
extern const mn_op mn_op_norm;      /* (x, [weight], [bias]) -> y */
extern const mn_op mn_op_norm_grad; /* (x, [weight], [bias], dy) -> (dx, [dweight], [dbias]); dx has x's type */
typedef struct mn_norm_attr {
  mn_norm_kind kind;
  bool has_weight, has_bias;
  uint8_t unused[2];
  double eps;
} mn_norm_attr;
MN_ATTRS_END

#endif
