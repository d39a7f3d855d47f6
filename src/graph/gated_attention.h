/* gated_attention.h - for fused_attention.c: what attention with gated blocks means. */
#ifndef MN_GATED_ATTENTION_H
#define MN_GATED_ATTENTION_H

#include "graph/graph.h"

/* The composition of an attention node whose attr has a gate: (q, k, v) -> (o, lse), lse of the softmax over own keys and gates. */
void mn_gated_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out);

#endif
