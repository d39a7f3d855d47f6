/* scan_internal.h - what building a loop (scan.c) and its gradient (scan_grad.c) share. */
#ifndef MN_SCAN_INTERNAL_H
#define MN_SCAN_INTERNAL_H

#include "graph/ops.h"

/* Shapes without their first dimension, and with one more before it; ndim -1: there would be too many. */
mn_shape mn_shape_without_first(const mn_shape *s);
mn_shape mn_shape_with_first(const mn_shape *s, int64_t n);

/* n zeroed objects and one more in the graph's arena; NULL: the graph has failed. */
void *mn_graph_grab(mn_graph *g, size_t n, size_t size);
#define NEW(g, type, n) ((type *)mn_graph_grab(g, (size_t)(n), sizeof(type)))

/* Inputs that the body has, too; what follows is the live length. */
int mn_scan_body_inputs(const mn_scan_attr *a);
/* Makes the node of an attr whose body is complete. in: carries, xs, constants, the live length. */
mn_node *mn_scan_node(mn_graph *g, const mn_scan_attr *a, mn_tensor *const *in);
/* Adds the outputs that hold the carries at segment starts to an existing node. */
void mn_scan_save_carries(mn_graph *g, mn_node *n, int64_t every);
void mn_scan_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din);

#endif
