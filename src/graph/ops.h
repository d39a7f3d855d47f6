/* ops.h - the descriptors of all operations and their attributes: what kernels are written against. The builders that
 * users call are in graph.h. Input and output orders are given beside each operation. */
#ifndef MN_OPS_H
#define MN_OPS_H

#include "graph/graph.h"

MN_ATTRS_BEGIN
/* leaves: no kernels */
extern const mn_op mn_op_input, mn_op_variable, mn_op_const;
typedef struct mn_const_attr {
  const void *data; /* count elements of the tensor's type, in the arena */
  bool is_full;     /* all elements equal `value` (as a double)           */
  uint8_t unused[7];
  double value;
} mn_const_attr;

/* made from nothing */
extern const mn_op mn_op_iota; /* () -> x */
typedef struct mn_iota_attr {
  int axis;
} mn_iota_attr;
/* (step i64 [], [tick i64 []]) -> x f32; element i = mn_random_{uniform,normal}(mn_random_tick_key(key, tick) or key, step, i) */
extern const mn_op mn_op_random;
typedef struct mn_random_attr {
  uint64_t key;
  bool normal;
  uint8_t unused[7];
} mn_random_attr;

/* element-wise; op->code is the mn_ew_code. Operands were already broadcast to the output's shape with mn_expand. */
extern const mn_op mn_op_ew_table[MN_EW_CODES]; /* (x) | (a, b) | (cond, a, b) -> y */

/* views: no kernels; reshape falls back to copy + view */
extern const mn_op mn_op_reshape, mn_op_permute, mn_op_expand, mn_op_slice, mn_op_stop_gradient, mn_op_identity;
extern const mn_op mn_op_with_gradient, mn_op_custom_gradient; /* (value, surrogate), (value, x0 .. xn-1) -> value */
typedef struct mn_custom_attr {
  mn_gradient_rule rule;
  void *ctx;
} mn_custom_attr;
typedef struct mn_permute_attr {
  int axes[MN_MAX_DIMS];
} mn_permute_attr;
typedef struct mn_slice_attr {
  int64_t axis, start;
} mn_slice_attr;

/* moving data */
extern const mn_op mn_op_copy;   /* (x any layout) -> y dense */
extern const mn_op mn_op_concat; /* (x0 .. xn-1) -> y */
typedef struct mn_axis_attr {
  int axis;
} mn_axis_attr;
extern const mn_op mn_op_pad; /* (x) -> y, zeros around */
typedef struct mn_pad_attr {
  int64_t axis, before, after;
} mn_pad_attr;
extern const mn_op mn_op_take; /* (x, idx) -> y   (see mn_take) */
extern const mn_op mn_op_put;  /* (base, idx, upd) -> y; may run in place on base */
typedef struct mn_take_attr {
  int batch_dims;
  bool add; /* put only */
  uint8_t unused[3];
} mn_take_attr;
extern const mn_op mn_op_topk; /* (x) -> idx i32 [..., k] */

/* reductions; op->code is the mn_reduce_code */
extern const mn_op mn_op_sum, mn_op_max; /* (x) -> y, reduced axes kept with size 1 */
typedef struct mn_reduce_attr {
  unsigned axes;
} mn_reduce_attr;
extern const mn_op mn_op_argmax; /* (x) -> i32, last axis dropped */
extern const mn_op mn_op_cumsum; /* (x) -> y */
typedef struct mn_cumsum_attr {
  int axis;
  bool reverse;
  uint8_t unused[3];
} mn_cumsum_attr;

extern const mn_op mn_op_matmul; /* (a [...,M,K], b [...,K,N]) -> [...,M,N]; batch axes equal or broadcast (stride 0) */

extern const mn_op mn_op_scan; /* (carries.., xs.., consts.., [live i32 []]) -> (carries.., ys..); attr mn_scan_attr */

/* ---- fused ---- */
extern const mn_op mn_op_norm;      /* (x, [weight], [bias]) -> y */
extern const mn_op mn_op_norm_grad; /* (x, [weight], [bias], dy) -> (dx, [dweight], [dbias]); dx has x's type */
typedef struct mn_norm_attr {
  mn_norm_kind kind;
  bool has_weight, has_bias;
  uint8_t unused[2];
  double eps;
} mn_norm_attr;

extern const mn_op mn_op_softmax;      /* (x) -> y, last axis */
extern const mn_op mn_op_softmax_grad; /* (y, dy) -> dx */

extern const mn_op mn_op_rope; /* (x [B,T,H,K], cos, sin [T or B,T, K/2]) -> y. The gradient is rope with inverse set. */
typedef struct mn_rope_attr {
  bool interleaved, inverse; /* inverse: rotate by the negative angle */
} mn_rope_attr;

/* (q, k, v, [q_pos], [k_pos], [length], [blocks], [bias or by_distance]) -> (o, lse); attr mn_attention_attr */
extern const mn_op mn_op_attention;
/* (the same inputs.., o, lse, do, dlse) -> (dq, dk, dv, [dbias f32, the bias's own (broadcast) shape; or of by_distance]) */
extern const mn_op mn_op_attention_grad;
int mn_attention_operands(const mn_attention_attr *a); /* inputs before the bias */
static inline bool mn_attention_biased(const mn_attention_attr *a) { return a->has_bias || a->by_distance; }

extern const mn_op mn_op_patches, mn_op_unpatch; /* (x [B,H,W,C]) -> y [B,OH,OW,area C], and its adjoint; attr mn_window */
extern const mn_op mn_op_cummax;                 /* (x) -> (y, index i32), last axis */
extern const mn_op mn_op_bag;                    /* (table [N,D], index i32 [...,n], weight [...,n]) -> y [...,D] */
extern const mn_op mn_op_bag_grad;               /* (table, index, weight, dy) -> (dtable, dweight) */

/* (h, w, target, weight) -> (loss [], nll [N]), all f32 (f64) but h and w; w of f32 is rounded to h's type */
extern const mn_op mn_op_linear_ce;
/* (h, w, target, weight, dloss [], dnll [N]) -> (dh, dw, loss, nll): the gradient, and the forward values as it needs them
 * anyway. dh has h's type, dw is f32 (f64). The coefficient of token i is dloss*weight_i + dnll_i. */
extern const mn_op mn_op_linear_ce_grad;

extern const mn_op mn_op_conv;      /* (x, w, [bias], [prefix]) -> y */
extern const mn_op mn_op_conv_grad; /* (x, w, [bias], [prefix], dy) -> (dx, dw, [dbias], [dprefix]) */
typedef struct mn_conv_attr {
  bool has_bias, has_prefix;
} mn_conv_attr;

extern const mn_op mn_op_masked_product; /* (x, y, p, z) -> o */

/* (q, k, v, theta, [log_a], [log_eta], w0, [s0], [a0], [phase]) -> (o, w, [s], [a]); which are present: see
 * mn_recurrence_attr (decay: log_a; momentum: log_eta, s0, s; write ANCHOR: a0, a; has_phase: phase) */
extern const mn_op mn_op_recurrence;
/* (the same inputs.., do, dw, [ds], [da]) -> (dq, dk, dv, dtheta, [dlog_a], [dlog_eta], dw0, [ds0], [da0]) */
extern const mn_op mn_op_recurrence_grad;

extern const mn_op mn_op_adamw; /* (p, g, m, v, scalars [5]) -> (p', m', v'), each may run in place */

/* x += sum of squares etc. used by clipping: sum of squares of one tensor -> f32 []  */
extern const mn_op mn_op_sumsq;

MN_ATTRS_END

#endif
