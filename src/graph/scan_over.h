/* scan_over.h - a loop over pieces as one call: the scan's book-keeping in one place. */
#ifndef MN_SCAN_OVER_H
#define MN_SCAN_OVER_H

#include "graph/graph.h"

/* One step: from carry and x the values after it, written over carry, and what it gives, into y. Operands that are NULL outside are NULL
 * here. g is the loop's body. */
typedef void (*mn_step_function)(mn_graph *g, const void *ctx, mn_tensor **carry, mn_tensor *const *x, mn_tensor **y);
typedef struct mn_loop_over {
  int64_t steps;
  mn_step_function f;
  const void *ctx;
  mn_tensor *live; /* i32 []: only so many steps run (mn_scan_set_live); NULL: all. steps 1: a condition */
  int n_carry, n_xs, n_ys;
  mn_tensor **carry;    /* in: before the first step, out: after the last; NULL entries stay NULL */
  mn_tensor *const *xs; /* [steps, ...] each, or NULL                                              */
  mn_tensor **ys;       /* out: [steps, ...] each                                                  */
} mn_loop_over;
enum { MN_LOOP_MOST = 128 }; /* carries, slices and results of a loop, each */
void mn_scan_over(mn_graph *g, const mn_loop_over *loop);

#endif
