/* fused_loss.h - the cross-entropy of a projection whose logits are never kept. */
#ifndef MN_FUSED_LOSS_H
#define MN_FUSED_LOSS_H

#include "graph/graph.h"

/* A head w[vocab,D] whose logits z = h w^T are softly capped, c tanh(z / c) (Riviere et al. 2024, Gemma 2). It has the same values, and what
 * makes logits of a head asks it. */
mn_tensor *mn_head_capped(mn_graph *g, mn_tensor *w, double cap); /* cap 0: w */
/* The cap of the head *w, which becomes the head without it; 0: it has none. */
double mn_head_cap(mn_tensor **w);

/* Mean-free cross-entropy of a projection: logits = h[N,D] W[vocab,D]^T are never kept. target i32 [N] (negative:
 * ignored), weight f32 [N] or NULL (ones). loss = sum_i weight_i * nll_i, a scalar; nll f32 [N] (0 where ignored). h and W
 * are of one type, or h is bf16 and W f32, which is then rounded to bf16 before it is multiplied and never copied; or W is of a type of
 * storage (stored.h), and no gradient goes to it. */
mn_tensor *mn_linear_cross_entropy(mn_graph *g, mn_tensor *h, mn_tensor *w, mn_tensor *target, mn_tensor *weight, mn_tensor **nll);

/* For kernels and passes: operands and results in order. */
extern const mn_op mn_op_capped_head; /* (w) -> w; attr mn_loss_attr */
MN_ATTRS_BEGIN
typedef struct mn_loss_attr {
  double cap; /* of the logits; 0: none */
} mn_loss_attr;
MN_ATTRS_END
/* (h, w, target, weight) -> (loss [], nll [N]), all f32 (f64) but h and w; w of f32 is rounded to h's type. attr mn_loss_attr, here and below */
extern const mn_op mn_op_linear_ce;
/* (h, w, target, weight, dloss [], dnll [N]) -> (dh, dw, loss, nll): the gradient, and the forward values as it needs them
 * anyway. dh has h's type, dw is f32 (f64). The coefficient of token i is dloss*weight_i + dnll_i. */
extern const mn_op mn_op_linear_ce_grad;

#endif
