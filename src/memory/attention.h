/* attention.h - softmax attention for systems that contain it (Titans' MAG, MAC, MAL ...). */
#ifndef MN_MEMORY_ATTENTION_H
#define MN_MEMORY_ATTENTION_H

#include "nn/mixer.h"

typedef struct mn_attention_config {
  int64_t heads, kv_heads, head_dim, window, sinks, persistent, max_context, conv, rope_original_context;
  int64_t rope_dim, relative_bias, relative_distance;
  int64_t delay; /* no key: with a window, a query at t sees the tokens (t - delay - window, t - delay]; 0 */
  double rope_theta, rope_factor, rope_gain, qk_norm_eps, score_scale, softcap;
  mn_floats rope_divisors;
  int rope_scaling; /* mn_rope_scaling */
  int qk_norm;      /* mn_qk_norm */
  bool causal, rope, bias, qkv_bias, output_gate;
  bool one_cache; /* no key: values are the keys, and a stream keeps them once, as the state `latent` */
} mn_attention_config;

typedef enum mn_qk_norm { MN_QK_PLAIN, MN_QK_NORM_HEADS, MN_QK_NORM_ALL } mn_qk_norm;

extern const mn_field mn_attention_fields[];
enum { MN_USUAL_CONTEXT = 4096 }; /* max_context that nobody chose */
/* max_context beside a window has no effect: only its usual value, which every written configuration has, is let pass. */
mn_status mn_attention_check_context(const mn_value *map, const char *where, int64_t window, int64_t max_context);
mn_status mn_attention_check(const mn_value *map, const char *where, int64_t d_model, mn_attention_config *c);
mn_tensor *mn_attention_apply(mn_scope *s, const mn_attention_config *c, mn_tensor *x);
/* Its two halves, for who has queries, keys and values already: q [B,T,H,K] and k [B,T,G,K] turned as the rope_ keys say ... */
void mn_attention_rotate(mn_scope *s, const mn_attention_config *c, mn_tensor **q, mn_tensor **k);
/* ... and what causal heads read of the segment and of the cache, which they keep: o [B,T,H,K] of values v [B,T,G,K]. *lse (may be
 * NULL): log of the sum of exp(scores) [B,H,T], exact type. */
mn_tensor *mn_attention_heads(mn_scope *s, const mn_attention_config *c, mn_tensor *q, mn_tensor *k, mn_tensor *v, mn_tensor **lse);
/* Softmax over two sets of keys from the softmax over each, o [B,T,H,K] and lse [B,H,T] (-inf or -1e30: it sees nothing, and has no
 * share): both are weighed by their sums e^lse. *lse: log of the sum of the two, -1e30 where neither sees anything; may be lse_b. */
mn_tensor *mn_attention_join(mn_graph *g, mn_tensor *o_a, mn_tensor *lse_a, mn_tensor *o_b, mn_tensor *lse_b, mn_tensor **lse);
/* What the heads of the last attention gave, [B,T,H,K], before the output projection: shared (mn_shared) under this name. */
#define MN_ATTENTION_HEADS "attention_heads"

#endif
