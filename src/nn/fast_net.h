/* fast_net.h - the inner network of fast_memory.c and its gradient. */
#ifndef MN_FAST_NET_H
#define MN_FAST_NET_H

#include "nn/fast_memory.h"

mn_tensor *mn_fast_gelu(mn_graph *g, mn_tensor *z);
/* The gain of the norm less 1, [B or 1,H,1,d]: a part of W, or given; NULL without a norm. */
mn_tensor *mn_fast_gamma(mn_graph *g, const mn_fast_config *c, mn_tensor *const *W);
/* What follows the last matrix: z [B,H,n,d], gamma [B,H,1 or n,d] (NULL but for ln_mlp), x the network's input. */
mn_tensor *mn_fast_finish(mn_graph *g, const mn_fast_config *c, mn_tensor *z, mn_tensor *gamma, mn_tensor *x);

typedef struct mn_fast_writes {    /* the inner gradients of n tokens, factored */
  mn_tensor *x[MN_FAST_PARTS];     /* [B,H,n,in]: inputs of each matrix                  */
  mn_tensor *delta[MN_FAST_PARTS]; /* [B,H,n,out], clamped; gamma: the gradient itself   */
  mn_tensor *loss;                 /* [B,H,n]                                            */
} mn_fast_writes;
/* The gradients of l(M; k, v) at the weights `anchor`, for k [B,H,n,d], v [B,H,n,value_dim]; nothing where building has failed. */
void mn_fast_gradient(mn_graph *g, const mn_fast_config *c, mn_tensor *const *anchor, mn_tensor *k, mn_tensor *v, mn_fast_writes *w);

#endif
