/* layers.h - the usual layers, made of a scope's parameters and the graph's operations. Weights are [out, in] as in
 * Hugging Face: y = x W^T. */
#ifndef MN_LAYERS_H
#define MN_LAYERS_H

#include "format/config.h"
#include "graph/fused_gated_norm.h"
#include "graph/fused_norm.h"
#include "graph/fused_recurrence.h"
#include "graph/fused_rope.h"
#include "nn/scope.h"

enum { MN_NO_BIAS, MN_BIAS }; /* of a projection */

/* x[..., in] -> [..., out] in the compute type. Parameters `name`.weight [out,in], drawn by init, and, with bias, `name`.bias [out],
 * zeros at the start. */
mn_tensor *mn_linear(mn_scope *s, const char *name, mn_tensor *x, int64_t out, bool bias, mn_init init);
/* The same with the result in the exact type (gates, scores) and its own start for the bias. */
mn_tensor *mn_linear_exact(mn_scope *s, const char *name, mn_tensor *x, int64_t out, bool bias, mn_init init, mn_init bias_init);
/* mn_param for arithmetic with gates, states and norms: in the exact type, whatever memory holds. */
mn_tensor *mn_param_exact(mn_scope *s, const char *name, mn_shape shape, mn_init init, unsigned flags, const char *help);
/* n such projections of one x, each of width `out`: y[i] [..., out]. One product reads x once for all of them, which is what
 * narrow ones cost. */
typedef struct mn_projection {
  const char *name;
  bool bias;
  mn_init init, bias_init;
} mn_projection;
void mn_linears_exact(mn_scope *s, mn_tensor *x, int64_t out, int n, const mn_projection *projections, mn_tensor **y);
/* Parameter `name`.weight (and .bias for LAYER). Result of type `out`. */
mn_tensor *mn_norm_layer(mn_scope *s, const char *name, mn_norm_kind kind, mn_tensor *x, double eps, mn_dtype out);
/* Its parameter `name`.weight [width] alone, for who norms by other means. */
mn_tensor *mn_norm_gain(mn_scope *s, const char *name, int64_t width);

/* A causal depthwise convolution over the stream, kernel `width`: parameter `name`.weight [D,width], state `name`
 * [B,width-1,D] (the last inputs, oldest first). x [B,T,D] -> [B,T,D]. */
mn_tensor *mn_conv_layer(mn_scope *s, const char *name, mn_tensor *x, int64_t width);
/* The same weights over another stream, whose last inputs are the state `state`. */
mn_tensor *mn_conv_layer_of(mn_scope *s, const char *name, const char *state, mn_tensor *x, int64_t width);

/* Rotary tables [T or B,T, head_dim/2] for the tokens of this segment. Scaling as in Hugging Face's rope_scaling: linear,
 * NTK-aware base, yarn (Peng et al. 2023), llama3. */
typedef enum mn_rope_scaling { MN_ROPE_PLAIN, MN_ROPE_LINEAR, MN_ROPE_NTK, MN_ROPE_YARN, MN_ROPE_LLAMA3 } mn_rope_scaling;
typedef struct mn_rope_config {
  double theta;
  mn_rope_scaling scaling;
  double factor;            /* how many times longer than the original context */
  int64_t original_context; /* yarn, llama3                                    */
  mn_floats divisors;       /* each frequency is divided by its own, too, [head_dim/2]; empty: by 1 */
  double gain;              /* what is turned grows so much, too; 0: yarn's own, else 1 */
} mn_rope_config;
void mn_rope_tables(mn_scope *s, const mn_rope_config *c, int64_t head_dim, int64_t T, mn_tensor **cos, mn_tensor **sin);
/* The same for tokens start, start + 1, ...: i32 [B], or NULL for 0, 1, ... */
void mn_rope_tables_at(mn_scope *s, const mn_rope_config *c, int64_t head_dim, int64_t T, mn_tensor *start, mn_tensor **cos,
                       mn_tensor **sin);

/* mn_linear_recurrence (fused_recurrence.h has the equations, the operands' shapes and types) in a scope: padding behind a row's length neither
 * writes nor fades (no momentum then). Reads io's inputs, fills io->o, w, s, a. */
void mn_linear_memory(mn_scope *s, mn_recurrence_io *io, mn_recurrence_attr attr);

mn_tensor *mn_split_heads(mn_scope *s, mn_tensor *x, int64_t heads); /* [B,T,H*K] -> [B,T,H,K] */
mn_tensor *mn_join_heads(mn_scope *s, mn_tensor *x);                 /* and back              */

#endif
