/* ahead.h - for walks over a graph: it is larger than the caches, and a walk would wait for each node, so what will be looked at is asked for
 * some nodes before its turn. Inlined always: to GCC a function that only asks for memory does nothing. */
#ifndef MN_AHEAD_H
#define MN_AHEAD_H

#include "graph/graph.h"

/* All of the node `by` after node i; false: there is none. */
static inline __attribute__((always_inline)) bool mn_node_ahead(const mn_graph *g, int i, int by) {
  enum { LINE = 64 };
  if (i + by >= g->n_nodes) return false;
  __builtin_prefetch(g->nodes[i + by]);
  __builtin_prefetch((const char *)g->nodes[i + by] + LINE);
  __builtin_prefetch((const char *)g->nodes[i + by] + 2 * LINE);
  return true;
}

/* The first of the tensors that n reads; n has come. */
static inline __attribute__((always_inline)) void mn_operands_ahead(const mn_node *n) {
  enum { FEW = 4 };
  for (int k = 0; k < n->n_in && k < FEW; k++) __builtin_prefetch(n->in[k]);
}

#endif
