/* orthogonal.h - matrices made orthogonal by products alone. */
#ifndef MN_ORTHOGONAL_H
#define MN_ORTHOGONAL_H

#include "graph/graph.h"

/* The orthogonal factor U V^T of each matrix U S V^T in x [..., m, n], nearly: `steps` (1 to 20; usually 5) Newton-Schulz steps of a quintic
 * whose slope at 0 is steep (Jordan et al. 2024), singular values near 1 and not at 1. A scale of x has no influence. */
mn_tensor *mn_orthogonal(mn_graph *g, mn_tensor *x, int steps);

#endif
