/* fast_layer.h - a fast memory in a scope: its learned start, its states by name, rows of different lengths, chunks that are counted from
 * the stream's first token. */
#ifndef MN_FAST_LAYER_H
#define MN_FAST_LAYER_H

#include "nn/fast_memory.h"
#include "nn/layers.h"

typedef struct mn_fast_names { /* what a system calls it in its help */
  const char *start, *memory, *anchor;
  double last_gain; /* of the last matrix's Xavier uniform start; the others' is 1 */
} mn_fast_names;

/* The states before this segment: W.<part>, S.<part>, A.<part> ... [B,H,in,out]. Parameters: init.<part>.weight [H,in,out], M_0. */
mn_fast_state mn_fast_load(mn_scope *s, const mn_fast_config *c, const mn_fast_names *names);
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
/* A state of a part under a name of its own, "F.<part>": zeros at the start of a stream. */
mn_tensor *mn_fast_part(mn_scope *s, const mn_fast_config *c, char kind, int part, const char *help);
void mn_fast_part_set(mn_scope *s, const mn_fast_config *c, char kind, int part, mn_tensor *value);

#endif
