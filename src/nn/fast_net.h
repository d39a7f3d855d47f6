/* fast_net.h - the network that is a fast memory: what it answers, and its gradient at fixed weights.
 *
 * A network is a chain of products between which something happens that no stream trains. Forwards, product l takes x_l and gives
 * z_l = x_l W_l. Who walks the chain says what a product is: of one set of weights (a read), or of each token's own weights that are
 * never formed (fast_step.c). */
#ifndef MN_FAST_NET_H
#define MN_FAST_NET_H

#include "nn/fast_memory.h"

bool mn_fast_is_matrix(const mn_fast_config *c, int part);
mn_tensor *mn_fast_lifted(mn_graph *g, const mn_fast_config *c, mn_tensor *x); /* phi(x), x [B,H,n,d] */

/* x W_part of each token, [B,H,n,in] -> [B,H,n,out]; and the gain of the norm less 1, [B,H,1 or n,d]. */
typedef struct mn_fast_weights {
  mn_tensor *(*product)(mn_graph *g, const void *ctx, int part, mn_tensor *x);
  mn_tensor *(*gamma)(mn_graph *g, const void *ctx);
  const void *ctx;
} mn_fast_weights;
/* M(x), x [B,H,n,d]. */
mn_tensor *mn_fast_answer(mn_graph *g, const mn_fast_config *c, mn_fast_weights weights, mn_tensor *x);

typedef struct mn_fast_gradients { /* of N pairs, factored: that of W_l by pair i is x_l(i)^T delta_l(i) */
  mn_tensor *x[MN_FAST_PARTS];     /* [B,H,N,in]: inputs of each matrix                  */
  mn_tensor *delta[MN_FAST_PARTS]; /* [B,H,N,out], clamped; gamma: the gradient itself   */
  mn_tensor *loss;                 /* [B,H,N]                                            */
} mn_fast_gradients;
/* The gradients of l(M; k, v) at the weights `anchor`, for k [B,H,N,d], v [B,H,N,value_dim]. */
mn_fast_gradients mn_fast_gradient(mn_graph *g, const mn_fast_config *c, mn_tensor *const *anchor, mn_tensor *k, mn_tensor *v);
/* sum_i weight_i grad_i of a part, of its shape; weight [B,H,N,1] */
mn_tensor *mn_fast_weighted(mn_graph *g, const mn_fast_config *c, const mn_fast_gradients *grad, int part, mn_tensor *weight);

#endif
