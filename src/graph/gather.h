/* gather.h - order and groups: sorting, running maxima, sums by segment, weighted rows of tables. */
#ifndef MN_GATHER_H
#define MN_GATHER_H

#include "graph/graph.h"

/* x sorted along its last axis, rising or falling; equals keep their order. index (may be NULL): i32, where each came from. Gradients
 * go back to where the values came from. */
mn_tensor *mn_sort(mn_graph *g, mn_tensor *x, bool falling, mn_tensor **index);
/* y_t = max of x_i over i <= t along the axis. index (may be NULL): i32, the first i that attains it; the gradient goes there. */
mn_tensor *mn_cummax(mn_graph *g, mn_tensor *x, int axis, mn_tensor **index);
/* Sums of rows by group: x [b..., S, r...], segment i32 [b..., S] -> [b..., n, r...]; the first batch_dims axes are shared. Rows of
 * segments outside [0, n) are left out; a segment without rows is 0. */
mn_tensor *mn_segment_sum(mn_graph *g, mn_tensor *x, mn_tensor *segment, int64_t n, int batch_dims);
/* Weighted rows of a table, y = sum_j weight_j table[index_j] (product-key memories, hashed embeddings): table [N,D], index i32
 * [..., n], weight f32 (f64 beside an f64 table) [..., n] -> [..., D] in the table's type. An index outside the table adds nothing.
 * Gradients reach table and weights. */
mn_tensor *mn_bag(mn_graph *g, mn_tensor *table, mn_tensor *index, mn_tensor *weight);

/* For kernels and passes: operands and results in order. */
extern const mn_op mn_op_cummax;   /* (x) -> (y, index i32), last axis */
extern const mn_op mn_op_bag;      /* (table [N,D], index i32 [...,n], weight [...,n]) -> y [...,D] */
extern const mn_op mn_op_bag_grad; /* (table, index, weight, dy) -> (dtable, dweight) */

#endif
