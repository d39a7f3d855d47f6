/* ops.h - the descriptors of the core operations and their attributes: what kernels are written against. Their builders are in graph.h;
 * a fused operation has a header of its own (fused_*.h, window.h, gather.h) with builder, descriptor and attributes. Input and output
 * orders are given beside each operation. */
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
extern const mn_op mn_op_sumsq;  /* (x) -> the sum of all squares, f32 (f64) [] */
extern const mn_op mn_op_argmax; /* (x) -> i32, last axis dropped */
extern const mn_op mn_op_cumsum; /* (x) -> y */
typedef struct mn_cumsum_attr {
  int axis;
  bool reverse;
  uint8_t unused[3];
} mn_cumsum_attr;

bool mn_product_slices(const mn_node *n, int axis, int *in_axis); /* of what is a batch of products */
extern const mn_op mn_op_matmul; /* (a [...,M,K], b [...,K,N]) -> [...,M,N]; batch axes equal or broadcast (stride 0) */

extern const mn_op mn_op_scan; /* (carries.., xs.., consts.., [live i32 []]) -> (carries.., ys..); attr mn_scan_attr */

MN_ATTRS_END

#endif
