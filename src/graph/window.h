/* window.h - what a window that moves over an image or a series sees: patches, and what is made of them: strided convolution in one
 * and two dimensions, pooling.
 *
 * Images are [B,H,W,C], series [B,T,C], channels last. Along each axis a window of `size` elements, `dilation` apart, begins
 * `before` elements in front of the first and moves by `stride` as long as it ends at most `after` elements behind the last:
 * (n + before + after - ((size - 1) dilation + 1)) / stride + 1 places. Outside there are zeros. */
#ifndef MN_WINDOW_H
#define MN_WINDOW_H

#include "graph/graph.h"

MN_ATTRS_BEGIN
typedef struct mn_window {                 /* [0] along H (or T), [1] along W */
  int64_t size[2], stride[2], dilation[2]; /* 0: 1 */
  int64_t before[2], after[2];
} mn_window;
MN_ATTRS_END

/* x [B,H,W,C] -> [B,OH,OW, size[0] size[1] C]: each place's elements, row after row, channels innermost. */
mn_tensor *mn_patches(mn_graph *g, mn_tensor *x, mn_window w);
/* Its adjoint: y [B,OH,OW, size[0] size[1] C] -> [B,H,W,C], every element added where it came from. */
mn_tensor *mn_unpatch(mn_graph *g, mn_tensor *y, mn_window w, int64_t H, int64_t W);

/* x [B,H,W,C], weight [O,size[0],size[1],C], bias [O] or NULL (both of x's type) -> [B,OH,OW,O]; w.size is taken from the weight.
 * A product over patches (LeCun et al. 1998; the kernel is not mirrored). */
mn_tensor *mn_conv2d(mn_graph *g, mn_tensor *x, mn_tensor *weight, mn_tensor *bias, mn_window w);
/* x [B,T,C], weight [O,size,C], bias [O] or NULL -> [B,OT,O]; of w the first axis counts. Neither causal nor depthwise: see mn_causal_conv. */
mn_tensor *mn_conv1d(mn_graph *g, mn_tensor *x, mn_tensor *weight, mn_tensor *bias, mn_window w);
/* The largest, or the mean, of each channel in each window, of what lies inside: x [B,H,W,C] -> [B,OH,OW,C], or [B,T,C] -> [B,OT,C].
 * Equal maxima share the gradient. */
mn_tensor *mn_max_pool(mn_graph *g, mn_tensor *x, mn_window w);
mn_tensor *mn_mean_pool(mn_graph *g, mn_tensor *x, mn_window w);

/* For kernels and passes: operands and results in order. */
extern const mn_op mn_op_patches, mn_op_unpatch; /* (x [B,H,W,C]) -> y [B,OH,OW,area C], and its adjoint; attr mn_window */

#endif
