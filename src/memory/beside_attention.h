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

#include "memory/attention.h"
#include "nn/fast_layer.h"

typedef struct mn_lmm { /* a memory that can stand there, built in the scope "memory" from the mixer's config */
  mn_init projection;   /* start of its projections, and of the attention's */
  mn_tensor *(*layer)(mn_scope *s, const void *config, mn_tensor *x);     /* [B,T,D] -> [B,T,D]              */
  mn_fast_config (*fast)(mn_scope *s, const void *config);                /* MAC: what it is                 */
  mn_tensor *(*questions)(mn_scope *s, const void *config, mn_tensor *x); /* MAC: q [B,n,H,d] of tokens that it does not learn */
} mn_lmm;

/* The first member of the config of every mixer whose memory stands so: `check` says which memory. */
typedef struct mn_beside_attention {
  const mn_lmm *lmm;
  int64_t heads, head_dim;     /* of the memory and of the attention                    */
  int64_t persistent;          /* learned pairs that every query sees                   */
  int64_t window, max_context; /* MAG, MAL: of the attention                            */
  int64_t segment;             /* MAC: tokens of a segment                              */
  double rope_theta;
} mn_beside_attention;

/* A mixer's `apply`, whatever the memory: config begins with a mn_beside_attention. The first is the memory alone. */
mn_tensor *mn_memory_alone(mn_scope *s, const void *config, mn_tensor *x);
mn_tensor *mn_memory_as_gate(mn_scope *s, const void *config, mn_tensor *x);
mn_tensor *mn_memory_as_layer(mn_scope *s, const void *config, mn_tensor *x);
mn_tensor *mn_memory_as_context(mn_scope *s, const void *config, mn_tensor *x);

/* What a recipe may not ask for: a head_dim that does not rotate, a cache's length beside a window; MAC, called `type`: heads that together
 * are not as wide as a token. */
mn_status mn_check_beside(const mn_value *map, const char *where, const void *config);
mn_status mn_check_context_width(const mn_value *map, const char *where, int64_t d_model, const void *config, const char *type);

/* Their keys: fields of any config that begins so. */
#define MN_KEY_HEADS      MN_FIELD_INT(mn_beside_attention, heads, 4, 1, 4096, "heads H, each with a memory of its own")
#define MN_KEY_HEAD_DIM   MN_FIELD_INT(mn_beside_attention, head_dim, 0, 0, 4096, "width d of a head; 0: d_model / heads")
#define MN_KEY_WINDOW     MN_FIELD_INT(mn_beside_attention, window, 0, 0, 1 << 24, "the attention's window; 0: all tokens")
#define MN_KEY_PERSISTENT MN_FIELD_INT(mn_beside_attention, persistent, 0, 0, 65536, "learned key/value pairs that every query sees")
#define MN_KEY_SEGMENT    MN_FIELD_INT(mn_beside_attention, segment, 256, 1, 1 << 20, "tokens of a segment", MN_TOKENS)
#define MN_KEY_ROPE_THETA MN_FIELD_FLOAT(mn_beside_attention, rope_theta, 10000, 1, 1e12, "base of the attention's rotary frequencies")
#define MN_KEY_MAX_CONTEXT                                                                                                                 \
  MN_FIELD_INT(mn_beside_attention, max_context, MN_USUAL_CONTEXT, 1, 1 << 28, "without a window: how many tokens a stream's cache holds")

#endif
