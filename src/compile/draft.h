/* draft.h - what passes work on: the nodes a plan needs. Each pass rebuilds it into a new graph, so
 * that building order is always a topological order and nothing is ever unlinked. */
#ifndef MN_DRAFT_H
#define MN_DRAFT_H

#include "graph/ahead.h"
#include "graph/ops.h"
#include "compile/plan.h"

enum { MN_MADE_AGAIN = 24 }; /* nodes that are made again one from the other, at most (pass_recompute.c) */

typedef struct mn_draft {
  mn_graph *g;
  int n_roots;
  mn_tensor **roots; /* outputs, then assigned values */
  int n_leaves;
  const mn_tensor **given; /* leaves of the user's graph ... */
  mn_tensor **leaves;      /* ... and what they are here     */
} mn_draft;

/* Old tensor -> new tensor while rebuilding. */
typedef struct mn_rebuild {
  const mn_draft *old;
  mn_draft *now;
  int *base;
  mn_tensor **at;
  bool *needed; /* per old node: reachable from the roots */
  int *uses;    /* per old tensor (flat): consumers among needed nodes, plus roots */
} mn_rebuild;

/* For a walk along a graph's edges (ahead.h). way: 1 forwards, -1 backwards. */
static inline __attribute__((always_inline)) void mn_ahead(const mn_graph *g, int i, int way) {
  enum { NODES = 24, OPERANDS = 16, OF_OPERANDS = 8, FEW = 4 };
  if (i + way * NODES < 0 || i + way * NODES >= g->n_nodes) return;
  __builtin_prefetch(g->nodes[i + way * NODES]);
  const mn_node *n = g->nodes[i + way * OPERANDS], *m = g->nodes[i + way * OF_OPERANDS];
  mn_operands_ahead(n);
  for (int k = 0; k < m->n_in && k < FEW; k++) __builtin_prefetch(m->in[k]->node);
}

mn_status mn_rebuild_begin(mn_rebuild *r, const mn_draft *old, mn_draft *now, mn_arena *arena);
mn_status mn_rebuild_end(mn_rebuild *r, mn_status status); /* maps roots and leaves; frees */
static inline mn_tensor **mn_rebuilt(mn_rebuild *r, const mn_tensor *t) { return &r->at[r->base[t->node->id] + t->out]; }
static inline int mn_uses(const mn_rebuild *r, const mn_tensor *t) { return r->uses[r->base[t->node->id] + t->out]; }
/* The node as it is, on rebuilt inputs (all must be rebuilt already). */
mn_node *mn_rebuild_copy(mn_rebuild *r, const mn_node *n);
/* The same of a loop, without the results that nobody reads. */
mn_node *mn_rebuild_trimmed(mn_rebuild *r, const mn_node *n);

/* The reachable part of the user's graph, or that graph itself, which passes read like any other; `operations`: how many are needed. */
mn_status mn_draft_take(const mn_plan_request *q, mn_arena *arena, mn_draft *p, int *operations);
/* The nodes that nothing needs go from the draft, where it lies. *alone: one of those that wait is now the only reader of an operand. */
typedef struct mn_waiting {
  const mn_node *node;
  struct mn_waiting *next;
} mn_waiting;
mn_status mn_draft_sweep(mn_draft *p, const mn_waiting *waiting, bool *alone);
/* Moves it to an arena; the data of constants and the bodies of loops stay where the user's graph, or lowering, made them. */
mn_status mn_draft_keep(mn_arena *arena, mn_draft *p);
/* What the user's graph, or arenas of passes, still hold of a draft in `arena`: which leaves were given, and their names. */
mn_status mn_draft_settle(mn_arena *arena, mn_draft *p);
mn_status mn_pass_lower(mn_backend *b, mn_arena *arena, mn_draft *p);
/* Its arena must live as long as the draft: new bodies of loops lie in it. */
mn_status mn_pass_loops(const mn_plan_request *q, mn_arena *keep, mn_draft *p, int *moved);
mn_status mn_pass_simplify(mn_arena **arena, mn_draft *p); /* round by round, each in an arena of its own; *arena: the last */
/* Values of q->prologue in place of what depends on fixed leaves alone. arena: of the new draft; keep: the plan's. */
typedef struct mn_prologue_use { /* leaves of the draft that lie in the prologue's memory */
  int n;
  mn_tensor **leaf;
  void **data;
} mn_prologue_use;
mn_status mn_pass_prologue(const mn_plan_request *q, mn_arena *arena, mn_arena *keep, mn_draft *p, mn_prologue_use *use);
mn_status mn_pass_recompute(mn_activation_policy policy, mn_arena *arena, mn_draft *p, int *recomputed);
mn_status mn_pass_products(mn_backend *backend, mn_arena *arena, mn_draft *p);
bool mn_has_siblings(const mn_draft *p); /* is there anything for the next one? */
mn_status mn_pass_siblings(mn_arena *arena, mn_draft *p);
mn_status mn_pass_fuse(mn_arena *arena, mn_draft *p, mn_plan_report *report);

/* The memory pass: offsets so that buffers with overlapping lifetimes do not overlap. first/last are step numbers. */
typedef struct mn_lifetime {
  size_t bytes;
  int first, last;
  size_t offset; /* out */
} mn_lifetime;
mn_status mn_pass_memory(int n, mn_lifetime *buffers, bool share, size_t *total);

#endif
