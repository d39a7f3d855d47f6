/* draft.c - taking a private copy of a graph, rebuilding it, and the lowering pass. */
#include "compile/draft.h"
#include "graph/compose.h"

#include <stdlib.h>

static void mark(mn_rebuild *r) {
  const mn_draft *p = r->old;
  for (int i = 0; i < p->n_roots; i++) {
    r->needed[p->roots[i]->node->id] = true;
    r->uses[r->base[p->roots[i]->node->id] + p->roots[i]->out]++;
  }
  for (int i = p->g->n_nodes - 1; i >= 0; i--) {
    const mn_node *n = p->g->nodes[i];
    mn_ahead(p->g, i, -1);
    if (!r->needed[i] && !mn_node_has_effect(n)) continue;
    r->needed[i] = true;
    for (int k = 0; k < n->n_in; k++) {
      r->needed[n->in[k]->node->id] = true;
      r->uses[r->base[n->in[k]->node->id] + n->in[k]->out]++;
    }
  }
}

/* What of the old graph is needed. */
static mn_status look(mn_rebuild *r, const mn_draft *old) {
  *r = (mn_rebuild){.old = old};
  int total = 0, n = old->g->n_nodes;
  r->base = mn_alloc(((size_t)n + 1) * sizeof *r->base);
  if (!r->base) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) r->base[i] = total, total += old->g->nodes[i]->n_out;
  r->base[n] = total;
  r->needed = mn_calloc((size_t)n + 1, sizeof *r->needed);
  r->uses = mn_calloc((size_t)total + 1, sizeof *r->uses);
  if (!r->needed || !r->uses) return MN_ERR_MEMORY;
  mark(r);
  return MN_OK;
}

static mn_status open_new(mn_rebuild *r, mn_draft *now, mn_arena *arena) {
  const mn_draft *old = r->old;
  const int n = old->g->n_nodes;
  r->now = now;
  *now = *old;
  now->g = mn_graph_in(arena, 0);
  now->roots = mn_arena_alloc(arena, (size_t)(old->n_roots + 1) * sizeof *now->roots);
  now->leaves = mn_arena_alloc(arena, (size_t)(old->n_leaves + 1) * sizeof *now->leaves);
  if (!now->g || !now->roots || !now->leaves) return MN_ERR_MEMORY;
  now->g->nodes = mn_arena_alloc(arena, ((size_t)n + 1) * sizeof *now->g->nodes); /* most passes keep as many */
  if (!now->g->nodes) return MN_ERR_MEMORY;
  now->g->cap_nodes = n + 1;
  r->at = mn_calloc((size_t)r->base[n] + 1, sizeof *r->at);
  return r->at ? MN_OK : MN_ERR_MEMORY;
}

mn_status mn_rebuild_begin(mn_rebuild *r, const mn_draft *old, mn_draft *now, mn_arena *arena) {
  MN_TRY(look(r, old));
  return open_new(r, now, arena);
}

static void rebuild_free(mn_rebuild *r) {
  free(r->base);
  free(r->at);
  free(r->needed);
  free(r->uses);
}

mn_status mn_rebuild_end(mn_rebuild *r, mn_status status) {
  if (status == MN_OK) status = mn_graph_status(r->now->g);
  if (status == MN_OK) {
    for (int i = 0; i < r->old->n_roots; i++) r->now->roots[i] = *mn_rebuilt(r, r->old->roots[i]);
    for (int i = 0; i < r->old->n_leaves; i++) r->now->leaves[i] = r->old->leaves[i] ? *mn_rebuilt(r, r->old->leaves[i]) : NULL;
  }
  rebuild_free(r);
  return status;
}

mn_status mn_draft_sweep(mn_draft *p, const mn_waiting *waiting, bool *alone) {
  mn_rebuild r;
  mn_status status = look(&r, p);
  mn_graph *g = p->g;
  const int n = g->n_nodes;
  for (; waiting && status == MN_OK; waiting = waiting->next) {
    const mn_node *w = waiting->node;
    const bool there = w->id < n && g->nodes[w->id] == w && r.needed[w->id];
    for (int k = 0; k < w->n_in && there; k++) *alone |= mn_uses(&r, w->in[k]) == 1;
  }
  if (status == MN_OK) g->n_nodes = 0;
  for (int i = 0; i < n && status == MN_OK; i++) {
    mn_node *node = g->nodes[i];
    if (!r.needed[i] && !node->op->bound) continue;
    node->id = g->n_nodes;
    g->nodes[g->n_nodes++] = node;
  }
  rebuild_free(&r);
  return status;
}

mn_node *mn_rebuild_copy(mn_rebuild *r, const mn_node *n) {
  enum { FEW = 16 }; /* passes copy every node many times: what only the call needs would fill the arena */
  mn_graph *g = r->now->g;
  mn_tensor *few[FEW], **in = n->n_in <= FEW ? few : mn_arena_alloc(g->arena, (size_t)n->n_in * sizeof *in);
  if (!in) {
    mn_graph_fault(g, MN_ERR_MEMORY, "%s", mn_message());
    return NULL;
  }
  const mn_const_attr *constant = mn_is(n, MN_IS_CONST) ? n->attr : NULL;
  if (constant && constant->is_full && n->out[0]->shape.ndim == 0) { /* a pass may have made it: its memory goes with it */
    mn_tensor *t = mn_scalar(g, n->out[0]->dtype, constant->value);
    if (!t) return NULL;
    t->node->phase = n->phase;
    t->name = n->out[0]->name;
    *mn_rebuilt(r, n->out[0]) = t;
    return t->node;
  }
  mn_ahead(r->old->g, n->id, 1);
  for (int k = 0; k < n->n_in; k++) in[k] = *mn_rebuilt(r, n->in[k]);
  mn_node *copy = mn_node_again(g, n, in);
  for (int j = 0; copy && j < n->n_out; j++) *mn_rebuilt(r, n->out[j]) = copy->out[j];
  return copy;
}

static mn_status find_roots(const mn_plan_request *q, mn_draft *user) {
  for (int i = 0; i < user->n_roots; i++) {
    const bool output = i < q->n_outputs;
    user->roots[i] = output ? q->outputs[i] : q->values[i - q->n_outputs];
    if (!user->roots[i] || user->roots[i]->node->graph != q->graph)
      return mn_fail(MN_ERR_ARG, "plan: %s %d is %s", output ? "output" : "assigned value", output ? i : i - q->n_outputs,
                     user->roots[i] ? "of another graph" : "missing");
  }
  for (int i = 0; i < q->n_assigns; i++)
    if (!q->variables[i] || q->variables[i]->node->graph != q->graph)
      return mn_fail(MN_ERR_ARG, "plan: assigned variable %d is not of the graph", i);
  return MN_OK;
}

/* May the first pass read the user's graph itself? Not where most of it is of no need, or a loop has results that nobody reads, or where
 * nothing would leave out what is not needed. */
static bool good_as_it_is(const mn_plan_request *q, const mn_rebuild *r) {
  int needed = 0;
  for (int i = 0; i < q->graph->n_nodes; i++) {
    const mn_node *n = q->graph->nodes[i];
    if (!r->needed[i]) continue;
    needed++;
    for (int j = 0; mn_is(n, MN_IS_LOOP) && j < n->n_out; j++)
      if (r->uses[r->base[i] + j] == 0) return false;
  }
  return needed > q->graph->n_nodes / 2 && !(q->passes_off & MN_PASS_SIMPLIFY);
}

static mn_status copy_needed(mn_rebuild *r, mn_draft *p, mn_arena *arena) {
  const mn_graph *g = r->old->g;
  mn_status status = open_new(r, p, arena);
  for (int i = 0; i < g->n_nodes && status == MN_OK; i++)
    if (r->needed[i] && !(mn_is(g->nodes[i], MN_IS_LOOP) ? mn_rebuild_trimmed(r, g->nodes[i]) : mn_rebuild_copy(r, g->nodes[i]))) break;
  return status;
}

mn_status mn_draft_take(const mn_plan_request *q, mn_arena *arena, mn_draft *p, int *operations) {
  mn_draft user = {.g = q->graph, .n_roots = q->n_outputs + q->n_assigns};
  user.roots = mn_arena_alloc(arena, (size_t)(user.n_roots + 1) * sizeof *user.roots);
  if (!user.roots) return MN_ERR_MEMORY;
  MN_TRY(find_roots(q, &user));
  mn_rebuild r;
  mn_status status = look(&r, &user);
  int bound = 0;
  *operations = 0;
  for (int i = 0; i < q->n_assigns && status == MN_OK; i++) r.needed[q->variables[i]->node->id] = true;
  for (int i = 0; i < q->graph->n_nodes && status == MN_OK; i++) {
    const mn_op *op = q->graph->nodes[i]->op;
    if (!r.needed[i]) continue;
    bound += op->bound;
    *operations += op->cls != MN_OP_LEAF && op->cls != MN_OP_VIEW;
  }
  user.given = mn_arena_alloc(arena, (size_t)(bound + 1) * sizeof *user.given);
  user.leaves = mn_arena_alloc(arena, (size_t)(bound + 1) * sizeof *user.leaves);
  if (!user.given || !user.leaves) status = MN_ERR_MEMORY;
  for (int i = 0; i < q->graph->n_nodes && status == MN_OK; i++) {
    const mn_node *n = q->graph->nodes[i];
    if (r.needed[i] && n->op->bound) user.given[user.n_leaves] = user.leaves[user.n_leaves] = n->out[0], user.n_leaves++;
  }
  if (status == MN_OK && good_as_it_is(q, &r)) {
    rebuild_free(&r);
    *p = user;
    return MN_OK;
  }
  if (status == MN_OK) status = copy_needed(&r, p, arena);
  return mn_rebuild_end(&r, status);
}

/* The plan outlives the user's graph and the passes. */
mn_status mn_draft_settle(mn_arena *arena, mn_draft *p) {
  const mn_tensor **given = mn_arena_alloc(arena, (size_t)(p->n_leaves + 1) * sizeof *given);
  if (!given) return MN_ERR_MEMORY;
  for (int i = 0; i < p->n_leaves; i++) {
    mn_tensor *t = p->leaves[i]; /* a message may name it when the user's graph is gone */
    given[i] = p->given[i];
    if (t && t->name && !(t->name = mn_arena_strdup(arena, t->name))) return MN_ERR_MEMORY;
  }
  p->given = given;
  return MN_OK;
}

mn_status mn_draft_keep(mn_arena *arena, mn_draft *p) {
  mn_rebuild r;
  mn_draft now;
  mn_status status = mn_rebuild_begin(&r, p, &now, arena);
  for (int i = 0; i < p->g->n_nodes && status == MN_OK && now.g->status == MN_OK; i++) {
    const mn_node *n = p->g->nodes[i];
    if (r.needed[i] || n->op->bound) mn_rebuild_copy(&r, n);
  }
  status = mn_rebuild_end(&r, status);
  if (status == MN_OK) *p = now;
  return status;
}
