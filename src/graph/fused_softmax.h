/* fused_softmax.h - softmax over the last axis. */
#ifndef MN_FUSED_SOFTMAX_H
#define MN_FUSED_SOFTMAX_H

#include "graph/graph.h"

mn_tensor *mn_softmax(mn_graph *g, mn_tensor *x); /* last axis */

/* For kernels and passes: operands and results in order. */
extern const mn_op mn_op_softmax;      /* (x) -> y, last axis */
extern const mn_op mn_op_softmax_grad; /* (y, dy) -> dx */

#endif
