/* repeats.h - what repeats itself in a graph. The layers of a deep model are the same nodes again and again, forwards and then backwards, on
 * parameters of their own: so what the compiler makes of a few tells what it makes of a thousand (pass_layers.c).
 *
 * A stretch is `count` repetitions of `period` nodes, one after the other. Node k of each repetition is the same operation with the same
 * attributes as node k of the one before, and each of its operands is either the same tensor for all of them, or lies in a stretch, always as
 * many layers away. A repetition belongs to a layer; those of a stretch are in rising or, as backwards, in falling order. Other nodes
 * belong to none. */
#ifndef MN_REPEATS_H
#define MN_REPEATS_H

#include "graph/graph.h"

enum { MN_STRETCHES = 8 };

typedef struct mn_stretch {
  int start, period, count; /* nodes [start, start + period count) */
  int way;                  /* 1: each repetition belongs to the next layer, -1: to the one before */
  int first;                /* the layer of the first */
} mn_stretch;

typedef struct mn_layers {
  int n;
  mn_stretch stretch[MN_STRETCHES]; /* by start */
  int low, high;                    /* layers [low, high) are in all stretches */
} mn_layers;

/* Where a node stands. */
typedef struct mn_layer_place {
  int stretch;  /* -1: in none */
  int layer, k; /* in none: k is its number */
} mn_layer_place;

/* Stretches of at least `fewest` layers. l->n 0: there are none. MN_ERR_MEMORY. */
mn_status mn_layers_find(const mn_graph *g, int fewest, mn_layers *l);
mn_layer_place mn_layers_place(const mn_layers *l, int id);
/* The number of a node at a place; -1: there is none. */
int mn_layers_at(const mn_layers *l, mn_layer_place p);

/* Another number of layers: `more` from layer `cut` on (below 0: so many less). Layers below the cut stay what they are, others move; new
 * ones are like the last below it. */
typedef struct mn_resize {
  mn_layers old, now;
  int cut, more;
} mn_resize;
mn_resize mn_resize_of(const mn_layers *l, int cut, int more);
/* The number that node `id` of the old graph then has; -1: it is gone. */
int mn_resized_id(const mn_resize *z, int id);
/* The old node that new node `now` is made of, and the new one that stands to `now` as old node `other` to that. -1: there is none. */
int mn_resized_from(const mn_resize *z, int now);
int mn_resized_beside(const mn_resize *z, int now, int other);
/* The graph with so many layers, in `to`, which is empty. *ok false: it has none, since what layers read at the cut, or at the ends, is not
 * as far from all of them. */
mn_status mn_layers_resize(const mn_resize *z, const mn_graph *g, mn_graph *to, bool *ok);

#endif
