/* fused_rope.h - rotary position embedding. */
#ifndef MN_FUSED_ROPE_H
#define MN_FUSED_ROPE_H

#include "graph/graph.h"

/* Rotary position embedding, Su et al. 2021: x[B,T,H,K], cos/sin tables f32 [T or B,T, K/2] at the tokens' positions.
 * What turns together: the halves (i, i+K/2), as in Hugging Face Llama, or neighbours (2i, 2i+1). */
typedef enum mn_rope_pairs { MN_ROPE_HALVES, MN_ROPE_INTERLEAVED } mn_rope_pairs;
mn_tensor *mn_rope(mn_graph *g, mn_tensor *x, mn_tensor *cos, mn_tensor *sin, mn_rope_pairs pairs);

/* For kernels and passes: operands and results in order. */
MN_ATTRS_BEGIN
extern const mn_op mn_op_rope; /* (x [B,T,H,K], cos, sin [T or B,T, K/2]) -> y. The gradient is rope with inverse set. */
typedef struct mn_rope_attr {
  bool interleaved, inverse; /* inverse: rotate by the negative angle */
} mn_rope_attr;
MN_ATTRS_END

#endif
