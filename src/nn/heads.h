/* heads.h - what memories with heads have in common: widths that follow from d_model, queries, keys and values through short
 * convolutions, and the gated output. */
#ifndef MN_HEADS_H
#define MN_HEADS_H

#include "format/config.h"
#include "nn/layers.h"

/* Fills *width, the setting `key` of a recipe that was left open (0), with `share` d_model / heads; refuses what is no whole
 * number at `heads`, with both remedies. */
mn_status mn_head_width(const mn_value *map, const char *where, const char *key, int64_t d_model, int64_t heads, double share,
                        int64_t *width);

/* silu(conv(W x)) by heads: x [B,T,D] -> [B,T,H,K], in the exact type, as the norm of a short vector enlarges what rounding did
 * to it. Parameters `name`_proj.weight [H K, D], `name`_conv.weight [H K, width]; state `name`_conv. */
mn_tensor *mn_conv_heads(mn_scope *s, const char *name, mn_tensor *x, int64_t heads, int64_t head_dim, int64_t width);

/* RMSNorm of each head of o [B,T,H,V] with one gain for all, eps 1e-6: [B,T,H V] in the compute type, heads joined, ready for an output
 * projection. Parameter norm.weight [V]. */
mn_tensor *mn_normed_heads(mn_scope *s, mn_tensor *o);
/* RMSNorm(o) * act(gate) with one gain for all heads: o [B,T,H,V], gate [B,T,H V] in the compute type -> [B,T,H V]. Parameter norm.weight [V]. */
mn_tensor *mn_gated_heads_by(mn_scope *s, mn_tensor *o, mn_tensor *gate, mn_gated_kind kind, double eps);
/* W_o [ RMSNorm(o) * silu(W_g x) ]: [B,T,D]. Parameters norm.weight, gate_proj.weight, o_proj.weight. */
mn_tensor *mn_gated_heads(mn_scope *s, mn_tensor *o, mn_tensor *x, double eps);

#endif
