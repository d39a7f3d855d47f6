/* fused_gated_norm.h - a norm over the last axis, let through by a gate. */
#ifndef MN_FUSED_GATED_NORM_H
#define MN_FUSED_GATED_NORM_H

#include "graph/graph.h"

typedef enum mn_gated_kind { MN_GATED_BY_SILU, MN_GATED_BY_SIGMOID } mn_gated_kind;
/* x * rsqrt(mean x^2 + eps) * weight * act(gate), the mean over the last axis of x [...,D], gate of x's shape and of type `out`, weight [D]
 * (f32 or f64) or NULL. Inner arithmetic f32 (f64). What a memory read, as Yang et al. 2023 (arXiv 2312.06635) and others let it out. */
mn_tensor *mn_gated_norm(mn_graph *g, mn_tensor *x, mn_tensor *weight, mn_tensor *gate, mn_gated_kind kind, double eps, mn_dtype out);

/* For kernels and passes: operands and results in order. */
extern const mn_op mn_op_gated_norm;      /* (x, gate, [weight]) -> y */
extern const mn_op mn_op_gated_norm_grad; /* (x, gate, [weight], dy) -> (dx, dgate, [dweight]), each of its operand's type */
MN_ATTRS_BEGIN
typedef struct mn_gated_norm_attr {
  mn_gated_kind kind;
  bool has_weight;
  uint8_t unused[3];
  double eps;
} mn_gated_norm_attr;
MN_ATTRS_END

#endif
