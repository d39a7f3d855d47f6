/* beside_attention.h - three ways to use a fast memory and attention together (Titans, Behrouz et al. 2024, section 4), whatever the
 * memory is. With LMM(x) the memory as a layer of its own:
 *     gate (MAG)     o = RMSNorm_a(attention(x)) * sigmoid(RMSNorm_b(LMM(x)))
 *     layer (MAL)    o = attention(LMM(x))
 *     context (MAC)  by segments, M_{s-1} the memory at a segment's start, hq_j = M_{s-1}(q_j):
 *                    y_i = attention of x_i over [persistent | hq_0..hq_i | x_0..x_i] of the segment
 *                    o = RMSNorm_a(y) * sigmoid(RMSNorm_b(LMM(y)))
 * In MAC row i sees the memory rows up to its own only: hq_j is read with token j, so later rows would tell row i its
 * future. So the layer is causal and streams token by token. */
#ifndef MN_BESIDE_ATTENTION_H
#define MN_BESIDE_ATTENTION_H

#include "format/config.h"
#include "nn/fast_layer.h"

typedef struct mn_beside_attention {
  int64_t heads, head_dim;
  int64_t persistent;          /* learned pairs that every query sees                   */
  int64_t window, max_context; /* MAG, MAL: of the attention                            */
  int64_t segment;             /* MAC: tokens of a segment                              */
  double rope_theta;
  mn_init projection; /* start of its projections */
  /* the memory, in scope "memory" */
  const void *config;
  mn_tensor *(*lmm)(mn_scope *s, const void *config, mn_tensor *x);       /* [B,T,D] -> [B,T,D]              */
  mn_fast_config (*fast)(mn_scope *s, const void *config);                /* MAC: what it is                 */
  mn_tensor *(*questions)(mn_scope *s, const void *config, mn_tensor *x); /* MAC: q [B,n,H,d] of tokens that it does not learn */
} mn_beside_attention;

mn_tensor *mn_memory_as_gate(mn_scope *s, const mn_beside_attention *c, mn_tensor *x);
mn_tensor *mn_memory_as_layer(mn_scope *s, const mn_beside_attention *c, mn_tensor *x);
mn_tensor *mn_memory_as_context(mn_scope *s, const mn_beside_attention *c, mn_tensor *x);

/* What a recipe may not ask for: a head_dim that does not rotate; MAC, called `type`: heads that together are not as wide as a token. */
mn_status mn_check_rotary(const mn_value *map, const char *where, int64_t head_dim);
mn_status mn_check_context_width(const mn_value *map, const char *where, int64_t d_model, int64_t heads, int64_t head_dim,
                                 const char *type);

/* Their keys, for a config struct S with members of these names. */
#define MN_KEY_WINDOW(S)      MN_FIELD_INT(S, window, 0, 0, 1 << 24, "the attention's window; 0: all tokens")
#define MN_KEY_PERSISTENT(S)  MN_FIELD_INT(S, persistent, 0, 0, 65536, "learned key/value pairs that every query sees")
#define MN_KEY_SEGMENT(S)     MN_FIELD_INT(S, segment, 256, 1, 1 << 20, "tokens of a segment", MN_TOKENS)
#define MN_KEY_ROPE_THETA(S)  MN_FIELD_FLOAT(S, rope_theta, 10000, 1, 1e12, "base of the attention's rotary frequencies")
#define MN_KEY_MAX_CONTEXT(S) MN_FIELD_INT(S, max_context, 4096, 1, 1 << 28, "without a window: how many tokens a stream's cache holds")

#endif
