/* fast_block.h - inside a fast memory: a block of tokens that lie in one chunk, or around the boundary of two.
 *
 * A segment that begins in the middle of a chunk is known only by data (phase): its blocks are taken in two masked halves, before
 * and after the one boundary inside. A masked token has theta = 0, alpha = 0, eta = 1, and its S is not added to W. */
#ifndef MN_FAST_BLOCK_H
#define MN_FAST_BLOCK_H

#include "nn/fast_net.h"

/* n tokens, head by head. k and v have N = past + n rows: with a window the pairs before the block come first. */
typedef struct mn_fast_tokens {
  mn_tensor *q, *k, *v;        /* [B,H,n,d], [B,H,N,d], [B,H,N,value_dim] */
  mn_tensor *theta;            /* [B,H,n]                                 */
  mn_tensor *momentum, *decay; /* [B,H,n]: log eta, log(1 - alpha); EVERY_CHUNK: the sigmoids' arguments */
  mn_tensor *rate;             /* [B,H,n] or NULL                         */
  mn_tensor *window;           /* [B,H,n,window] or NULL                  */
  mn_tensor *live;             /* i32 [B], tokens that count; NULL: all n */
  mn_tensor *phase;            /* i32 [B], tokens of the chunk before the block; NULL: it begins a chunk */
} mn_fast_tokens;

/* The block's results, y [B,H,n,value_dim] and loss [B,H,n], and the state after it. */
typedef struct mn_fast_written {
  mn_tensor *y, *loss;
  mn_fast_state state;
} mn_fast_written;
mn_fast_written mn_fast_by_token(mn_graph *g, const mn_fast_config *c, mn_fast_state s, const mn_fast_tokens *t);      /* fast_step.c */
mn_fast_written mn_fast_by_chunk(mn_graph *g, const mn_fast_config *c, mn_fast_state s, const mn_fast_tokens *t);      /* fast_gather.c */
mn_fast_written mn_fast_by_orthogonal(mn_graph *g, const mn_fast_config *c, mn_fast_state s, const mn_fast_tokens *t); /* fast_muon.c */
int64_t mn_fast_period(const mn_fast_config *c); /* ORTHOGONAL: tokens between two steps */

/* ---- a block in two halves ---- */
typedef struct mn_fast_halves {
  mn_tensor *first;   /* bool [B,1,n]: before the boundary                       */
  mn_tensor *second;  /* bool [B,1,n]: after it                                  */
  mn_tensor *updated; /* bool [B,1,n]: reads before the boundary's update        */
  mn_tensor *reaches; /* bool [B]: the boundary lies inside the block or at its end */
  mn_tensor *left;    /* i32 [B]: tokens until the boundary                      */
} mn_fast_halves;
/* phase: i32 [B], tokens since the last boundary; boundaries are `period` tokens apart. */
mn_fast_halves mn_fast_halves_of(mn_graph *g, const mn_fast_config *c, const mn_fast_tokens *t, mn_tensor *phase, int64_t period);
mn_tensor *mn_fast_masked(mn_graph *g, mn_tensor *mask, mn_tensor *x); /* zero where the mask is false; mask NULL: x */

/* ---- what the tokens under a mask do to the weights ---- */
/* With La[t,m] = prod_{m<j<=t} (1 - alpha_j), Le[t,m] = prod_{m<j<=t} eta_j (lower triangles, diagonal 1) and G[t,i] = theta_t gamma(t,i):
 *     S(t) = E_t S - sum_i R[t,i] grad_i       E_t = prod_{j<=t} eta_j            R = Le G
 *     W(t) = a_t W + b_t S - sum_i P[t,i] grad_i    a_t = prod_{j<=t} (1 - alpha_j), b = La E, P = La R */
typedef struct mn_fast_decays {
  mn_tensor *a, *b, *P;             /* as read: [B,H,n,1], [B,H,n,1] or NULL, [B,H,n,N]      */
  mn_tensor *a_end, *b_end, *P_end; /* W after the last token: [B,H,1,1] twice, [B,H,N,1]    */
  mn_tensor *E_end, *R_end;         /* S after the last token: the same                      */
} mn_fast_decays;
mn_fast_decays mn_fast_decays_of(mn_graph *g, const mn_fast_config *c, const mn_fast_tokens *t, mn_tensor *mask);
/* G [B,H,n,N] as it is: of one token, whose triangles are 1 */
mn_tensor *mn_fast_step_sizes(mn_graph *g, const mn_fast_config *c, const mn_fast_tokens *t, mn_tensor *mask);

/* ---- lists of parts ---- */
/* a value per batch, or per batch and head, shaped to scale a part */
mn_tensor *mn_fast_beside(mn_graph *g, const mn_fast_config *c, int part, mn_tensor *x);
/* to[p] = condition ? yes[p] : no[p], for a condition [B]; `to` may be one of them */
void mn_fast_choose(mn_graph *g, const mn_fast_config *c, mn_tensor *condition, mn_tensor *const *yes, mn_tensor *const *no,
                    mn_tensor **to);
void mn_fast_copy(const mn_fast_config *c, mn_tensor **to, mn_tensor *const *from);

#endif
