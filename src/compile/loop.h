/* loop.h - a loop while its body is looked at: what leaves it (loop_choices.c), and what becomes of it (pass_loops.c). */
#ifndef MN_LOOP_H
#define MN_LOOP_H

#include "compile/draft.h"

typedef struct mn_loop {
  mn_graph *g;           /* the loop's new surroundings */
  const mn_scan_attr *a; /* as it was                   */
  mn_tensor **in;        /* its operands, in g          */
  mn_draft body;         /* cleaned; roots: the new carries, then the ys */
  int n_nodes, n_tensors;
  int *base;           /* flat number of each node's first result    */
  int *operand;        /* per node: which operand of the loop it is, -1 none */
  int *readers;        /* per tensor: nodes and roots                */
  bool *fixed;         /* per node: depends on constants alone       */
  bool *early;         /* per node: on slices and constants, and can be made of all steps at once */
  bool *late;          /* per node: no later step reads it, and it can be made of all steps at once */
  bool *before;        /* per node: is made before the loop          */
  mn_tensor **outside; /* per tensor: its value in g; of what varies: of all steps, [length, ...] */
  int *stack;          /* per tensor: its number among the stacked, -1 none */
  int n_stacked;
  mn_tensor **stacked; /* of the body */
  bool *gone;          /* per root: made after the loop */
  int64_t bytes;       /* of stacks so far */
  bool *needed;        /* per node: of the new body, or one of its operands  */
  bool *is_slice;      /* per node: a slice of the new loop                  */
  int n_captured;      /* by the new body, one after the other, perhaps the same ... */
  int *captured;       /* ... whose numbers among the new loop's constants are these; -1: none, it was copied */
} mn_loop;

enum { MN_LOOP_TERMS = 16 }; /* of a sum over the steps, at most */

static inline int64_t mn_loop_bytes(const mn_tensor *t) { return (int64_t)mn_shape_bytes(&t->shape, t->dtype); }
static inline int mn_loop_at(const mn_loop *l, const mn_tensor *t) { return l->base[t->node->id] + t->out; }
static inline bool mn_is_view(const mn_node *n) { return n->op->cls == MN_OP_VIEW; }

/* In the graph's arena; a lack of memory is the graph's fault, so that nobody takes what was not made for something left out. */
static inline void *mn_loop_room(mn_graph *g, size_t n, size_t size) {
  void *p = mn_arena_alloc(g->arena, (n + 1) * size);
  if (!p) mn_graph_fault(g, MN_ERR_MEMORY, "%s", mn_message());
  return p;
}

/* What leaves the loop, before it and after it: fills in what the arrays of l say. */
void mn_loop_choose(mn_loop *l);
/* Carry i is a sum over the steps and nothing else: its new value is itself plus so many terms; 0: it is not. */
int mn_loop_sum_over_steps(const mn_loop *l, int i, const mn_tensor **terms);

/* Values outside of what is in the body: of what depends on constants alone, as it is; of what varies, of all steps [length, ...]; the sum
 * over all steps of a term. NULL: a fault is set. */
mn_tensor *mn_loop_fixed(mn_loop *l, const mn_tensor *t);
mn_tensor *mn_loop_all_steps(mn_loop *l, const mn_tensor *t);
mn_tensor *mn_loop_total(mn_loop *l, const mn_tensor *t, mn_dtype type);
/* Node n on other operands; of another shape where there is one. Its results to out, the first is returned. */
mn_tensor *mn_loop_copy_node(mn_graph *g, const mn_node *n, mn_tensor **in, const mn_shape *shape, mn_tensor **out);

#endif
