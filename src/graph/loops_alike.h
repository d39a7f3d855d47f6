/* loops_alike.h - loops that do the same, as those of a deep model's layers do: their bodies have the same nodes in the same order. What is made
 * of one of them is then made of the others, too: its gradient, what leaves it (compile/pass_loops.c), its plan (compile/plan_bodies.c). */
#ifndef MN_LOOPS_ALIKE_H
#define MN_LOOPS_ALIKE_H

#include "graph/graph.h"

bool mn_loop_hash(const mn_scan_attr *a, uint64_t *hash); /* false: it is like no other */
bool mn_loop_same(const mn_scan_attr *a, const mn_scan_attr *b);
bool mn_node_alike(const mn_node *a, const mn_node *b); /* the same operation with the same attributes, whatever it reads */

/* Loops that a call of mn_grad has differentiated (g->reversed), the last first: `made` runs backwards through `loop`, and `there` are n answers to
 * what of its operands and results there is. In the graph's arena. */
typedef struct mn_reversed {
  const mn_node *loop, *made;
  int n;
  const bool *there;
  struct mn_reversed *before;
} mn_reversed;

/* The reverse loop of `loop` where that of one that does the same is known: on operands `in`, of which n_in are there (carries, slices) and
 * constants are added, so many as the loop itself has at most. NULL: none is known, or a fault is set. */
mn_node *mn_reversed_again(mn_graph *g, const mn_node *loop, int n, const bool *there, mn_tensor **in, int n_in);

/* Do two tensors stand at the same place, of one graph or of two? */
static inline bool mn_same_place(const mn_tensor *a, const mn_tensor *b) { return a->node->id == b->node->id && a->out == b->out; }

#endif
