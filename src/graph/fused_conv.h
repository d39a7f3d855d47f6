/* fused_conv.h - causal depthwise convolution over time. */
#ifndef MN_FUSED_CONV_H
#define MN_FUSED_CONV_H

#include "graph/graph.h"

/* Causal depthwise convolution over time: x[B,T,D], w[D,W], prefix[B,W-1,D] (the inputs before x; NULL: zeros) -> y[B,T,D];
 * y_t = sum_j w[:,j] * x_{t-W+1+j}. */
mn_tensor *mn_causal_conv(mn_graph *g, mn_tensor *x, mn_tensor *w, mn_tensor *bias, mn_tensor *prefix);

/* For kernels and passes: operands and results in order. */
MN_ATTRS_BEGIN
extern const mn_op mn_op_conv;      /* (x, w, [bias], [prefix]) -> y */
extern const mn_op mn_op_conv_grad; /* (x, w, [bias], [prefix], dy) -> (dx, dw, [dbias], [dprefix]) */
typedef struct mn_conv_attr {
  bool has_bias, has_prefix;
} mn_conv_attr;
MN_ATTRS_END

#endif
