/* fused_experts.h - the gated networks of a mixture of experts, of which each token goes through a few. */
#ifndef MN_FUSED_EXPERTS_H
#define MN_FUSED_EXPERTS_H

#include "graph/graph.h"

/* y_n = sum_j weight[n,j] f_e(x_n), e = index[n,j], with f_e(x) = down_e (silu(gate_e x) * up_e x): x [N,D], gate and up [E,F,D], down
 * [E,D,F], each of x's type or kept in one of storage (stored.h; no gradient reaches it then); index i32 [N,k], weight f32 (f64 beside f64)
 * [N,k] -> y [N,D] in x's type. An index outside [0, E) adds nothing. The composition sends every token through every expert, and its
 * gradient likewise; the kernel's cost is that of the experts that were chosen. Where matrices are in blocks, kernels may round what
 * meets them to 8 bits; `exact`: never. */
mn_tensor *mn_experts(mn_graph *g, mn_tensor *x, mn_tensor *gate, mn_tensor *up, mn_tensor *down, mn_tensor *index, mn_tensor *weight,
                      bool exact);

/* For kernels and passes: operands and results in order. */
MN_ATTRS_BEGIN
typedef struct mn_experts_attr {
  int exact;
} mn_experts_attr;
MN_ATTRS_END
extern const mn_op mn_op_experts; /* (x, gate, up, down, index, weight) -> y */

#endif
