/* fast_layer.h - a fast memory in a scope: its learned start, its states by name, rows of different lengths, chunks that are counted from
 * the stream's first token. */
#ifndef MN_FAST_LAYER_H
#define MN_FAST_LAYER_H

#include "format/config.h"
#include "nn/fast_memory.h"
#include "nn/layers.h"

typedef struct mn_fast_names { /* what a system calls it in its help */
  const char *start, *memory, *anchor;
  double last_gain; /* of the last matrix's Xavier uniform start; the others' is 1 */
} mn_fast_names;

/* The states before this segment: W.<part>, S.<part>, A.<part> ... [B,H,in,out]. Parameters: init.<part>.weight [H,in,out], M_0. */
mn_fast_state mn_fast_load(mn_scope *s, const mn_fast_config *c, const mn_fast_names *names);
/* Where `here` (bool [B]) they are constants to the outer gradient: it stops at this segment's start. */
void mn_fast_cut(mn_scope *s, const mn_fast_config *c, const mn_fast_names *names, mn_tensor *here);
/* The memory reads and learns a segment: y [B,T,H,value_dim]. `in` without length and phase, which are the scope's. Reports "surprise". */
mn_tensor *mn_fast_layer(mn_scope *s, const mn_fast_config *c, const mn_fast_names *names, mn_fast_input in);
/* Tokens of this segment's first period before it, i32 [B]; NULL when known to be 0. */
mn_tensor *mn_fast_phase(mn_scope *s, int64_t period);
/* q, k or v of a memory, silu(conv(W x)), q and k of length 1: x [B,T,D] -> [B,T,H,d], exact type. `name`: "q", "k" or "v"; parameters
 * `name`_proj.weight and `name`_conv.weight; `state`: the convolution's last inputs. */
typedef struct mn_fast_projection {
  int64_t heads, head_dim, conv; /* conv 0: none */
  mn_init init;
} mn_fast_projection;
mn_tensor *mn_fast_stream(mn_scope *s, mn_fast_projection how, const char *name, const char *state, mn_tensor *x);
/* The memory as a layer of its own, LMM of Titans, with gates by head from x [B,T,D]: theta = lr_max sigmoid(lr_proj x), and where the memory
 * has them eta = sigmoid(momentum_proj x), alpha = sigmoid(decay_proj x), rho = step_max sigmoid(step_proj x) of orthogonal steps:
 *     y = W_O (RMSNorm_head(what it reads) * silu(W_G x))        [B,T,D]
 * window: mn_fast_input's, NULL: none. Parameters besides those above: norm.weight [d], gate_proj.weight, o_proj.weight. */
typedef struct mn_fast_lmm_config {
  mn_fast_projection projection;
  double lr_max, step_max;
  bool output_gate;
} mn_fast_lmm_config;
extern const mn_fast_names mn_fast_lmm_names;
mn_tensor *mn_fast_lmm(mn_scope *s, const mn_fast_config *c, const mn_fast_lmm_config *how, mn_tensor *window, mn_tensor *x);
/* lr_max that nobody chose (-1) becomes 0.1, with chunks over 16 tokens 1.6 / chunk; between -1 and 0 it is refused. Inside a chunk all
 * gradients are taken at one place, so their steps add up: by the sum over the chunk of theta_i / (1 - eta) times the square of what the
 * keys have in common, which after a silu is most of them. Above 2 a chunk overshoots and a stream of chunks would run away; at the start
 * (theta half its bound, eta half) 1.6 / chunk makes it 1.6 at most. Trained gates may leave that behind, and the curvature of a network
 * grows with its own weights, so no step size is safe for ever: grad_clamp is, as it bounds what a token can write. */
mn_status mn_fast_check_lr(const mn_value *map, const char *where, int64_t chunk, double *lr_max);
/* The first half of a remedy: of the clamp and the step size. */
void mn_fast_remedy(double grad_clamp, double lr_max, mn_text *out);
/* The doubt of a memory without a clamp whose chunks are steps above 2 from the start: theta half of lr_max, eta half where there is
 * momentum. */
void mn_fast_doubt(double grad_clamp, double lr_max, int64_t chunk, bool momentum, mn_text *out);
/* A memory of one matrix has no hidden width: memory_expand, `standard` unless given, is refused beside it; and memory_residual: false where the
 * network has no choice (free: it has). */
mn_status mn_fast_check_net(const mn_value *map, const char *where, bool one_matrix, int64_t expand, int64_t standard, bool free,
                            bool residual);
/* A state of a part under a name of its own, "F.<part>": zeros at the start of a stream. */
mn_tensor *mn_fast_part(mn_scope *s, const mn_fast_config *c, char kind, int part, const char *help);
void mn_fast_part_set(mn_scope *s, const mn_fast_config *c, char kind, int part, mn_tensor *value);

#endif
