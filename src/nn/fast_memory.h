/* fast_memory.h - a memory whose state is the weights of a small network, trained by its own stream.
 *
 * Per head, on row vectors (a matrix is [in, out], M(x) = phi(x) W for one matrix), for every token:
 *     g_t = sum_{j < window} gamma_{t,j} grad l(M_anchor; k_{t-j}, v_{t-j})        one pair, gamma = 1 with window 1
 *     S_t = eta_t S_{t-1} - theta_t g_t
 *     M_t = (1 - alpha_t) M_{t-1} + S_t                     y_t = M_t(q_t), or M_{t-1}(q_t) reading before
 * M_anchor is the memory before the first token of the current chunk: inside a chunk every gradient is of rank one per
 * pair and taken at the same weights, so a chunk is matrix products (Titans, Behrouz et al. 2024, arXiv 2501.00663, section 3.2; the
 * window is the Omega rule of ATLAS, Behrouz et al. 2025, arXiv 2505.23735). How the memory moves is `step`:
 *     MN_FAST_EVERY_TOKEN  as above
 *     MN_FAST_EVERY_CHUNK  theta_i grad_i are summed over a chunk into one step after its last token, eta and alpha from the gates' mean
 *     MN_FAST_ORTHOGONAL   M_t = (1 - alpha_t) M_{t-1}, and at every `period`-th token + rate_t NS(S_t), S_t made orthogonal: Muon
 *
 * What a configuration has no use for (a gate, a window, lengths) is NULL, and what is made of it is NULL; a tensor that a fault has made
 * NULL needs no care, as the graph says what happened.
 * Everything here is a value: a state goes in and another comes out, names and carrying are the caller's (fast_layer.h). */
#ifndef MN_FAST_MEMORY_H
#define MN_FAST_MEMORY_H

#include "graph/graph.h"

typedef enum mn_fast_net {
  MN_FAST_LINEAR, /* M(x) = phi(x) W                                                                 */
  MN_FAST_MLP,    /* M(x) = gelu(... gelu(phi(x) W_0) ...) W_{L-1}                (+ x with residual) */
  MN_FAST_LN_MLP, /* M(x) = LayerNorm(mlp(x)) (1 + gamma) + x, gamma an inner parameter too, or given */
  MN_FAST_GATED   /* M(x) = (gelu(phi(x) W_gate) * phi(x) W_up) W_down            (+ x with residual) */
} mn_fast_net;
typedef enum mn_fast_loss {
  MN_FAST_L2, /* l = 1/2 |M(k) - v|^2 */
  MN_FAST_DOT /* l = -M(k) . v        */
} mn_fast_loss;
typedef enum mn_fast_step { MN_FAST_EVERY_TOKEN, MN_FAST_EVERY_CHUNK, MN_FAST_ORTHOGONAL } mn_fast_step;
typedef enum mn_fast_reading { MN_FAST_AFTER, MN_FAST_BEFORE } mn_fast_reading; /* a token's own write */

typedef struct mn_fast_config {
  mn_fast_net net;
  int64_t depth, expand; /* matrices L (MLP, LN_MLP); hidden width over head_dim */
  bool residual;
  int64_t heads, head_dim, chunk;
  int64_t value_dim; /* width of v and y; 0: head_dim. Another only where the input is not added: no residual, no norm */
  mn_fast_loss loss;
  mn_fast_step step;
  mn_fast_reading read;
  bool momentum, decay;
  int64_t window;           /* pairs of a loss; 0, 1: the token's own              */
  int64_t period;           /* ORTHOGONAL: tokens between steps, divides chunk; 0: chunk */
  int steps;                /* ORTHOGONAL: of Newton and Schulz (graph/orthogonal.h); 0: the momentum as it is */
  double grad_clamp;        /* m > 0: a pair's gradient of norm n is scaled to m tanh(n/m) */
  int64_t trunc_bptt;       /* n > 0: outer gradients of the memory stop every n chunks     */
  mn_tensor *gamma, *shift; /* LN_MLP: [H,d] each, a gain and a bias that the stream does not train; NULL: gamma is a part */
  mn_tensor *lift;          /* [H,3], the scales of phi = poly2 (feature_map.h); NULL: phi(x) = x */
  bool lift_normed;         /* phi(x) / |phi(x)|                                   */
} mn_fast_config;

enum { MN_FAST_PARTS = 17, MN_FAST_DEPTH = 16 };

/* Inner parameters are numbered: the matrices, then gamma. */
int mn_fast_parts(const mn_fast_config *c);
mn_shape mn_fast_shape(const mn_fast_config *c, int part, int64_t B); /* [B,H,in,out]; gamma [B,H,d] */
const char *mn_fast_name(const mn_fast_config *c, int part);          /* "0", "1", ... "norm"; "gate", "up", "down" */
int64_t mn_fast_out(const mn_fast_config *c);                         /* width of v and y            */
int64_t mn_fast_past(const mn_fast_config *c);                        /* pairs before a segment that its losses see: window - 1 */

/* The state between two segments. What a configuration has no use for is NULL. */
typedef union mn_fast_state {
  struct {
    mn_tensor *W[MN_FAST_PARTS];         /* the memory                                          */
    mn_tensor *S[MN_FAST_PARTS];         /* momentum                                            */
    mn_tensor *A[MN_FAST_PARTS];         /* the anchor; equal to W between chunks               */
    mn_tensor *G[MN_FAST_PARTS];         /* EVERY_CHUNK, instead: sum of -theta_i grad_i of the unfinished chunk */
    mn_tensor *momentum_sum, *decay_sum; /* EVERY_CHUNK: [B,H], sums of the gates' arguments    */
    mn_tensor *past_k, *past_v;          /* [B,window-1,H,d] the last pairs, oldest first       */
  };
  mn_tensor *each[4 * MN_FAST_PARTS + 4];
} mn_fast_state;
enum { MN_FAST_STATES = sizeof(mn_fast_state) / sizeof(mn_tensor *) };

typedef union mn_fast_input { /* all of one type, f32 or f64 */
  struct {
    mn_tensor *q, *k, *v;        /* [B,T,H,d]; v [B,T,H,value_dim]                              */
    mn_tensor *theta;            /* [B,T,H] step size                                           */
    mn_tensor *momentum, *decay; /* [B,T,H] arguments of the sigmoids eta and alpha; or NULL    */
    mn_tensor *rate;             /* [B,T,H] ORTHOGONAL: size of what is added                   */
    mn_tensor *window;           /* [B,T,H,window] with a window: gamma, the token's own pair last; 0 where a pair does not exist */
    mn_tensor *length;           /* i32 [B]: tokens of this segment that count, the others move nothing; NULL: all */
    mn_tensor *phase;            /* i32 [B]: tokens of the current chunk before this segment; NULL: a chunk begins */
  };
  mn_tensor *each[10];
} mn_fast_input;
enum { MN_FAST_STREAMS = 8 }; /* of them, those with a time axis */

typedef struct mn_fast_result {
  mn_tensor *y;        /* [B,T,H,value_dim] */
  mn_tensor *surprise; /* [B,T]: l of the token's own pair at the anchor, mean over the heads. Costs nothing unless it is read. */
  mn_fast_state state; /* after the segment */
} mn_fast_result;
/* A segment of any length. */
mn_fast_result mn_fast_memory(mn_graph *g, const mn_fast_config *c, const mn_fast_state *state, const mn_fast_input *in);
/* M(x) for x [B,H,n,d], the memory left as it is. */
mn_tensor *mn_fast_read(mn_graph *g, const mn_fast_config *c, mn_tensor *const *W, mn_tensor *x);

#endif
