/* compose.h - for the fused operations' own files: gradients through a composition. And what the compiler and scopes ask of graphs. */
#ifndef MN_COMPOSE_H
#define MN_COMPOSE_H

#include "graph/graph.h"

/* The gradient of fused node n by differentiating its composition, rebuilt on `in` (tensors like n's inputs). dout,
 * need, din as in mn_op.grad. */
void mn_vjp_composed(mn_graph *g, mn_node *n, mn_tensor *const *in, mn_tensor **dout, const bool *need, mn_tensor **din);

/* The same for an operation that is not a node yet: builds `op` with attr on in[], gives the gradients of its outputs
 * dout (NULL: none) for the inputs. Used by compositions of "_grad" operations. */
void mn_vjp_of(mn_graph *g, const mn_op *op, const void *attr, int n_in, mn_tensor *const *in, int n_out, const mn_dtype *types,
               const mn_shape *shapes, mn_tensor **dout, const bool *need, mn_tensor **din, mn_tensor **out);

/* Of an operation of one result whose gradient `grad` is an operation, too: (its inputs, 8 at most, dy) -> the gradient of each, in its type.
 * The rule of the operation, and the composition of its gradient. */
void mn_grad_by_node(mn_graph *g, mn_node *n, const mn_op *grad, mn_tensor **dout, mn_tensor **din);
void mn_grad_by_node_compose(mn_graph *g, mn_node *n, const mn_op *op, mn_tensor **in, mn_tensor **out);

/* A loop of attr's body (results asked for as attr says; in: carries, xs, constants, the live length) with the effects left out: what a gradient
 * runs once more. NULL when a fault is set. */
mn_node *mn_scan_without_effects(mn_graph *g, const mn_scan_attr *attr, mn_tensor *const *in);

/* For the compiler: closes a loop as mn_scan_end does, with the carries kept every save_every steps (0: not) as its last results,
 * and marks it as one that needs no looking at again. Its node, or NULL. */
mn_node *mn_scan_end_settled(mn_scan_builder *b, mn_tensor *const *carry_out, int n_ys, mn_tensor *const *y_out, int64_t save_every,
                             mn_tensor **final, mn_tensor **ys);

/* An empty graph in an arena, with which it goes: not for mn_graph_free. keep_bytes: what loops of its gradients may keep (graph.h); new
 * graphs have mn_graph_keep_bytes. NULL: out of memory. */
mn_graph *mn_graph_in(mn_arena *arena, int64_t keep_bytes);

/* Node n again in graph g, attributes, names and phase included, on operands of the same types and shapes. */
mn_node *mn_node_again(mn_graph *g, const mn_node *n, mn_tensor *const *in);

#endif
