/* fast_memory.h - a memory whose state is the weights of a small network, trained by its own stream.
 *
 * Per head, on row vectors (a matrix is [in, out], M(x) = x W), for every token:
 *     l(M; k, v) = 1/2 |M(k) - v|^2
 *     S_t = eta_t S_{t-1} - theta_t grad l(M_anchor; k_t, v_t)
 *     M_t = (1 - alpha_t) M_{t-1} + S_t                     y_t = M_t(q_t), or M_{t-1}(q_t) with read_before
 * M_anchor is the memory before the first token of the current chunk: inside a chunk every gradient is of rank one per
 * token and taken at the same weights, so a chunk is matrix products (Titans, Behrouz et al. 2024, section 3.2; with
 * momentum and for networks of any depth as in docs/systems/titans.md).
 * per_chunk: theta_i grad_i are summed over a chunk into one step after its last token, eta and alpha from the gates' mean.
 *
 * Everything here is a value: the state goes in and comes out, names and carrying are the caller's. */
#ifndef MN_FAST_MEMORY_H
#define MN_FAST_MEMORY_H

#include "graph/graph.h"

typedef enum mn_fast_net {
  MN_FAST_LINEAR, /* M(x) = x W                                                            */
  MN_FAST_MLP,    /* M(x) = gelu(... gelu(x W_0) ...) W_{L-1}  (+ x with residual)          */
  MN_FAST_LN_MLP  /* M(x) = LayerNorm(mlp(x)) (1 + gamma) + x, gamma an inner parameter too, or given */
} mn_fast_net;

typedef enum mn_fast_loss {
  MN_FAST_L2, /* l = 1/2 |M(k) - v|^2 */
  MN_FAST_DOT /* l = -M(k) . v        */
} mn_fast_loss;

typedef struct mn_fast_config {
  int net;               /* mn_fast_net                                        */
  int64_t depth, expand; /* matrices L; hidden width over head_dim             */
  bool residual;
  int64_t heads, head_dim, chunk;
  int64_t value_dim; /* width of v and y; 0: head_dim. Another only where the input is not added: no residual, no norm */
  int loss;          /* mn_fast_loss */
  bool per_chunk, read_before, momentum, decay;
  double grad_clamp;        /* m > 0: a token's gradient of norm n is scaled to m tanh(n/m) */
  int64_t trunc_bptt;       /* n > 0: outer gradients of the memory stop every n chunks     */
  mn_tensor *gamma, *shift; /* LN_MLP: [H,d] each, a gain and a bias that the stream does not train; NULL: gamma is a part */
} mn_fast_config;

enum { MN_FAST_PARTS = 17, MN_FAST_DEPTH = 16 };

/* Inner parameters are numbered: the matrices, then gamma. */
int mn_fast_parts(const mn_fast_config *c);
mn_shape mn_fast_shape(const mn_fast_config *c, int part, int64_t B); /* [B,H,in,out]; gamma [B,H,d] */
const char *mn_fast_name(const mn_fast_config *c, int part);          /* "0", "1", ... "norm"        */

typedef struct mn_fast_state {
  mn_tensor *W[MN_FAST_PARTS];         /* the memory                                          */
  mn_tensor *S[MN_FAST_PARTS];         /* momentum; NULL without                              */
  mn_tensor *A[MN_FAST_PARTS];         /* the anchor; equal to W between chunks               */
  mn_tensor *G[MN_FAST_PARTS];         /* per_chunk, instead: sum of -theta_i grad_i of the unfinished chunk */
  mn_tensor *momentum_sum, *decay_sum; /* per_chunk: [B,H], sums of the gates' arguments, or NULL    */
} mn_fast_state;

typedef struct mn_fast_input { /* all of one type, f32 or f64 */
  mn_tensor *q, *k, *v;        /* [B,T,H,d]; v [B,T,H,value_dim]                             */
  mn_tensor *theta;            /* [B,T,H] step size                                          */
  mn_tensor *momentum, *decay; /* [B,T,H] arguments of the sigmoids eta and alpha; or NULL   */
  mn_tensor *phase;            /* i32 [B]: tokens of the current chunk before this segment; NULL: a chunk begins */
  mn_tensor *length;           /* i32 [B]: tokens of this segment that count, the others move nothing; NULL: all */
} mn_fast_input;

/* A segment of any length: y [B,T,H,value_dim], and the state after it. surprise (may be NULL): l at the anchor, mean over the heads,
 * [B,T]. */
mn_tensor *mn_fast_memory(mn_graph *g, const mn_fast_config *c, mn_fast_state *state, const mn_fast_input *in, mn_tensor **surprise);
/* M(x) for x [B,H,n,d], the memory left as it is. */
mn_tensor *mn_fast_read(mn_graph *g, const mn_fast_config *c, mn_tensor *const *W, mn_tensor *x);

#endif
