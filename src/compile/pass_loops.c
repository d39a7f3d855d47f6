/* pass_loops.c - what a loop does at every step and need not. In the body of each loop
 *   - what depends on constants alone leaves it: casts of weights, masks, products of weights;
 *   - a product of few rows that depends on the slices alone is made of all slices at once, before the loop;
 *   - a product whose result no later step reads, such as the gradient of the slices, is made of all steps at once, after it;
 *   - a sum over the steps of products a_t d_t, such as the gradient of a weight, is one product of the stacked a and d after it.
 * What an operation is for all steps at once it says itself (mn_over_steps).
 * Stacks take memory: MOST_BYTES a loop at most, beyond which things stay as they are. A gradient of a long loop runs in
 * segments, each a loop, and then this holds for a segment. Loops of one step, and with a live length, are left alone: there
 * what is not live must cost nothing. Inner loops come first, so that what is constant in all leaves all. Loops that do the same, as those of
 * a deep model's layers do, are looked at once, and share what becomes of their body. */
#include "base/table.h"
#include "compile/loop.h"
#include "graph/compose.h"
#include "graph/loops_alike.h"

#include <stdlib.h>
#include <string.h>

typedef mn_loop loop;

/* ---- the new loop ---- */
typedef struct rebuilt_body {
  mn_scan_builder *b;
  mn_graph *g;
  mn_tensor **now; /* per tensor of the old body */
  int n_carry, n_xs;
  mn_tensor **carry, **carry_in, **xs, **xs_in;
} rebuilt_body;

/* Worth passing in: what is made of much smaller things by arithmetic alone is made where it is read. */
static bool worth_passing(const mn_node *n) {
  if (n->op->cls == MN_OP_LEAF || mn_is_view(n)) return false;
  if (n->op->cls != MN_OP_ELEMENTWISE) return true;
  int64_t from = 0;
  for (int k = 0; k < n->n_in; k++) {
    const mn_tensor *t = n->in[k];
    while (mn_is_view(t->node)) t = t->node->in[0];
    from += mn_loop_bytes(t);
  }
  return mn_loop_bytes(n->out[0]) <= 4 * from;
}

/* Which nodes the new body has. What is made outside is not looked into. */
static void mark_body(loop *l) {
  bool *needed = l->needed;
  for (int r = 0; r < l->body.n_roots; r++)
    if (!l->gone[r]) needed[l->body.roots[r]->node->id] = true;
  for (int k = 0; k < l->n_stacked; k++) needed[l->stacked[k]->node->id] = true;
  for (int i = l->n_nodes - 1; i >= 0; i--) {
    const mn_node *n = l->body.g->nodes[i];
    needed[i] |= mn_node_has_effect(n);
    if (!needed[i] || l->before[i] || (l->fixed[i] && worth_passing(n))) continue;
    for (int k = 0; k < n->n_in; k++) needed[n->in[k]->node->id] = true;
  }
}

/* Carries and slices of the new loop. */
static void open_loop(loop *l, rebuilt_body *r) {
  for (int i = 0; i < l->a->n_carry; i++)
    if (!l->gone[i]) r->carry[r->n_carry++] = l->in[i];
  for (int i = 0; i < l->n_nodes && l->g->status == MN_OK; i++) {
    const mn_node *n = l->body.g->nodes[i];
    const bool slice = l->operand[i] >= l->a->n_carry && l->operand[i] < l->a->n_carry + l->a->n_xs;
    if (!l->needed[i] || (!slice && !l->before[i])) continue;
    l->is_slice[i] = true;
    r->xs[r->n_xs++] = mn_loop_all_steps(l, n->out[0]);
  }
  r->b = mn_scan_begin(l->g, l->a->length, l->a->reverse ? MN_BACKWARD : MN_FORWARD, r->n_carry, r->carry, r->n_xs, r->xs, r->carry_in,
                       r->xs_in);
  r->g = mn_scan_body(r->b);
  for (int i = 0, k = 0; i < l->n_nodes; i++)
    if (l->is_slice[i]) r->now[l->base[i]] = r->xs_in[k++];
}

/* Is it a constant of the new loop? */
static bool is_captured(const loop *l, int i) {
  const int operand = l->operand[i];
  return l->needed[i] && !l->is_slice[i] && !(operand >= 0 && operand < l->a->n_carry) && l->fixed[i] &&
         (operand >= 0 || worth_passing(l->body.g->nodes[i]));
}

static mn_tensor *capture(loop *l, mn_graph *body, const mn_tensor *t) {
  mn_tensor *as = mn_capture(body, mn_loop_fixed(l, t));
  int k = body->n_captured - 1;
  while (k >= 0 && body->captured_as[k] != as) k--;
  l->captured[l->n_captured++] = k;
  return as;
}

static void fill_body(loop *l, rebuilt_body *r) {
  const int *kept = l->operand;
  for (int i = 0; i < l->n_nodes && r->g->status == MN_OK; i++) {
    const mn_node *n = l->body.g->nodes[i];
    if (!l->needed[i] || l->is_slice[i]) continue;
    if (kept[i] >= 0 && kept[i] < l->a->n_carry) {
      int k = 0;
      for (int c = 0; c < kept[i]; c++) k += !l->gone[c];
      r->now[l->base[i]] = r->carry_in[k];
    } else if (is_captured(l, i)) {
      for (int j = 0; j < n->n_out; j++)
        if (l->readers[l->base[i] + j]) r->now[l->base[i] + j] = capture(l, r->g, n->out[j]);
    } else {
      mn_tensor **in = mn_loop_room(r->g, (size_t)n->n_in, sizeof *in);
      for (int k = 0; in && k < n->n_in; k++) in[k] = r->now[mn_loop_at(l, n->in[k])];
      if (!in) return;
      r->g->phase = n->phase;
      mn_loop_copy_node(r->g, n, in, NULL, &r->now[l->base[i]]);
      r->g->phase = 0;
    }
  }
}

/* What was made after the loop, from what it stacked. */
static void finish(loop *l, mn_tensor **result) {
  const mn_tensor *terms[MN_LOOP_TERMS];
  for (int r = 0; r < l->body.n_roots && l->g->status == MN_OK; r++) {
    if (!l->gone[r]) continue;
    if (r >= l->a->n_carry) {
      result[r] = mn_loop_all_steps(l, l->body.roots[r]);
      continue;
    }
    mn_tensor *sum = l->in[r];
    for (int k = 0, n = mn_loop_sum_over_steps(l, r, terms); k < n; k++) {
      mn_tensor *t = mn_loop_total(l, terms[k], sum->dtype);
      sum = mn_add(l->g, sum, t ? mn_cast(l->g, t, sum->dtype) : NULL);
    }
    result[r] = sum;
  }
}

/* The results of the new loop, then what is made of them. */
static void take_results(loop *l, const mn_node *node, mn_tensor **result) {
  int carry = 0, y = 0;
  for (int i = 0; i < l->a->n_carry; i++) y += !l->gone[i];
  for (int i = 0; i < l->body.n_roots; i++)
    if (!l->gone[i]) result[i] = node->out[i < l->a->n_carry ? carry++ : y++];
  for (int k = 0; k < l->n_stacked; k++) l->outside[mn_loop_at(l, l->stacked[k])] = node->out[y++];
  for (int i = 0; l->a->save_every && i < l->a->n_carry; i++) result[l->body.n_roots + i] = node->out[node->n_out - l->a->n_carry + i];
  finish(l, result);
}

/* Its node, or NULL: a fault is set. */
static mn_node *new_loop(loop *l, mn_tensor **result) {
  const size_t t = (size_t)(l->n_tensors + l->body.n_roots + 1);
  mn_tensor **space = mn_calloc(9 * t, sizeof *space);
  if (!space) {
    mn_graph_fault(l->g, MN_ERR_MEMORY, "%s", mn_message());
    return NULL;
  }
  rebuilt_body r = {.now = space, .carry = space + t, .carry_in = space + 2 * t, .xs = space + 3 * t, .xs_in = space + 4 * t};
  mn_tensor **outs = space + 5 * t, **ys = space + 6 * t, ** final = space + 7 * t, **stacked = space + 8 * t;
  mark_body(l);
  open_loop(l, &r);
  if (r.g) fill_body(l, &r);
  int n_out = 0, n_y = 0;
  for (int i = 0; i < l->body.n_roots; i++) {
    if (l->gone[i]) continue;
    mn_tensor *y = r.now[mn_loop_at(l, l->body.roots[i])];
    if (i < l->a->n_carry) outs[n_out++] = y;
    else ys[n_y++] = y;
  }
  for (int k = 0; k < l->n_stacked; k++) ys[n_y++] = r.now[mn_loop_at(l, l->stacked[k])];
  mn_node *node = mn_scan_end_settled(r.b, outs, n_y, ys, l->a->save_every, final, stacked);
  if (node) take_results(l, node, result);
  free(space);
  return node;
}

/* ---- loops that do the same ---- */
typedef struct earlier { /* a loop that was looked at, and what it became */
  const mn_node *node;
  mn_node *made;
  uint64_t hash;
  loop l;
  int moved;
  mn_arena *scratch, *taken;
  struct earlier *before;
} earlier;

/* Loop l does what the earlier one does: outside all is made of its own operands, the body is the same. NULL: what it captures are not as
 * many, or in another order, or there is a fault. */
static mn_node *same_again(const earlier *e, loop *l) {
  const mn_scan_attr *made = e->made->attr;
  mn_tensor **in = mn_loop_room(l->g, (size_t)e->made->n_in, sizeof *in);
  int n = 0, x = 0;
  if (!in) return NULL;
  for (int i = 0; i < l->a->n_carry; i++)
    if (!l->gone[i]) in[n++] = l->in[i];
  for (int i = 0; i < l->n_nodes; i++)
    if (l->is_slice[i]) in[n++] = mn_loop_all_steps(l, l->body.g->nodes[i]->out[0]);
  mn_tensor **consts = in + n;
  n = 0;
  for (int i = 0; i < l->n_nodes && l->g->status == MN_OK; i++)
    for (int j = 0; is_captured(l, i) && j < l->body.g->nodes[i]->n_out; j++) {
      if (!l->readers[l->base[i] + j]) continue;
      mn_tensor *t = mn_loop_fixed(l, l->body.g->nodes[i]->out[j]);
      int k = 0;
      while (k < n && consts[k] != t) k++;
      if (!t || k != l->captured[x++] || k == made->n_const || (mn_is(t->node, MN_IS_CONST) && t->shape.ndim == 0)) return NULL;
      if (k == n) consts[n++] = t;
    }
  return n == made->n_const && l->g->status == MN_OK ? mn_node_again(l->g, e->made, in) : NULL;
}

static bool as_earlier(const earlier *e, const mn_node *n, mn_graph *g, mn_tensor **in, mn_tensor **result) {
  loop l = e->l;
  l.a = n->attr;
  l.in = in;
  l.outside = mn_loop_room(g, (size_t)l.n_tensors, sizeof *l.outside);
  for (int i = 0; l.outside && i < l.n_nodes; i++)
    if (l.operand[i] >= l.a->n_carry) l.outside[l.base[i]] = in[l.operand[i]];
  mn_node *node = l.outside ? same_again(e, &l) : NULL;
  if (node) take_results(&l, node, result);
  return node != NULL;
}

/* ---- the pass ---- */
/* The body without what the compiler would drop anyway, its own loops done. Loops inside it keep something of the graph that they were
 * taken into; without any, that graph is needed for this one loop. */
static mn_status clean_body(const mn_plan_request *q, mn_arena *keep, mn_arena *taken, mn_arena **scratch, loop *l, int *moved) {
  const mn_scan_attr *a = l->a;
  bool inner = false;
  for (int i = 0; i < a->body->n_nodes && !inner; i++) inner = mn_is(a->body->nodes[i], MN_IS_LOOP);
  mn_plan_request body = *q;
  body.graph = a->body;
  body.n_outputs = a->n_carry + a->n_ys;
  body.outputs = a->body_out;
  body.n_assigns = 0;
  int operations;
  MN_TRY(mn_draft_take(&body, inner ? keep : taken, &l->body, &operations));
  MN_TRY(mn_pass_lower(q->backend, keep, &l->body));
  if (!(q->passes_off & MN_PASS_SIMPLIFY)) MN_TRY(mn_pass_simplify(scratch, &l->body));
  return mn_pass_loops(q, keep, &l->body, moved);
}

static mn_status loop_init(loop *l) {
  const mn_scan_attr *a = l->a;
  const int n = l->n_nodes = l->body.g->n_nodes, n_in = a->n_carry + a->n_xs + a->n_const;
  mn_arena *arena = l->g->arena;
  l->base = mn_arena_alloc(arena, (size_t)(n + 1) * sizeof *l->base);
  l->operand = mn_arena_alloc(arena, (size_t)(n + 1) * sizeof *l->operand);
  bool *flags = mn_arena_alloc(arena, 6 * (size_t)(n + 1));
  if (!l->base || !l->operand || !flags) return MN_ERR_MEMORY;
  l->fixed = flags, l->early = flags + n + 1, l->late = l->early + n + 1, l->before = l->late + n + 1;
  l->needed = l->before + n + 1, l->is_slice = l->needed + n + 1;
  for (int i = 0; i < n; i++) {
    l->base[i] = l->n_tensors;
    l->operand[i] = -1;
    l->n_tensors += l->body.g->nodes[i]->n_out;
  }
  const size_t tensors = (size_t)l->n_tensors + 1;
  l->readers = mn_arena_alloc(arena, tensors * sizeof *l->readers);
  l->outside = mn_arena_alloc(arena, tensors * sizeof *l->outside);
  l->stack = mn_arena_alloc(arena, tensors * sizeof *l->stack);
  l->stacked = mn_arena_alloc(arena, tensors * sizeof *l->stacked);
  l->gone = mn_arena_alloc(arena, (size_t)l->body.n_roots + 1);
  l->captured = mn_arena_alloc(arena, tensors * sizeof *l->captured);
  if (!l->readers || !l->outside || !l->stack || !l->stacked || !l->gone || !l->captured) return MN_ERR_MEMORY;
  for (int t = 0; t < l->n_tensors; t++) l->stack[t] = -1;
  mn_table number = {.arena = arena};
  for (int i = 0; i < n_in; i++) MN_TRY(mn_table_put(&number, a->body_in[i], i));
  for (int k = 0; k < l->body.n_leaves; k++) {
    const mn_tensor *leaf = l->body.leaves[k];
    const int i = mn_table_find(&number, l->body.given[k], -1);
    if (!leaf || i < 0) continue;
    l->operand[leaf->node->id] = i;
    if (i >= a->n_carry) l->outside[mn_loop_at(l, leaf)] = l->in[i];
  }
  return MN_OK;
}

static int count_moved(const loop *l) {
  int n = 0;
  for (int i = 0; i < l->n_nodes; i++) n += l->before[i] || (l->fixed[i] && worth_passing(l->body.g->nodes[i]));
  for (int r = 0; r < l->body.n_roots; r++) n += l->gone[r];
  return n;
}

static void loop_free(const earlier *e) {
  mn_arena_free(e->scratch);
  mn_arena_free(e->taken);
}

static mn_status look_at(const mn_plan_request *q, mn_arena *keep, earlier *e, mn_tensor **result, int *moved) {
  loop *l = &e->l;
  MN_TRY(clean_body(q, keep, e->taken, &e->scratch, l, moved));
  MN_TRY(loop_init(l));
  mn_loop_choose(l);
  e->made = new_loop(l, result);
  *moved += count_moved(l);
  return mn_graph_status(l->g);
}

/* known: those that others may be like. */
static mn_status rebuild_loop(const mn_plan_request *q, mn_arena *keep, mn_rebuild *r, const mn_node *n, earlier **known, int *moved) {
  mn_graph *g = r->now->g;
  const mn_scan_attr *a = n->attr;
  mn_tensor **in = mn_arena_alloc(keep, (size_t)(n->n_in + 1) * sizeof *in);
  mn_tensor **result = mn_arena_alloc(keep, (size_t)(n->n_out + 1) * sizeof *result);
  earlier *e = mn_arena_alloc(keep, sizeof *e);
  if (!in || !result || !e) return MN_ERR_MEMORY;
  for (int k = 0; k < n->n_in; k++) in[k] = *mn_rebuilt(r, n->in[k]);
  uint64_t hash = 0;
  const bool comparable = !a->body->effects && mn_loop_hash(a, &hash);
  bool done = false;
  g->phase = n->phase;
  for (const earlier *x = comparable ? *known : NULL; x && !done; x = x->before) {
    if (x->hash != hash || x->node->phase != n->phase || !mn_loop_same(a, x->node->attr)) continue;
    done = as_earlier(x, n, g, in, result);
    if (done) *moved += x->moved;
  }
  mn_status status = mn_graph_status(g);
  if (!done && status == MN_OK) {
    const int before = *moved;
    *e = (earlier){.node = n, .hash = hash, .l = {.g = g, .a = a, .in = in}, .taken = mn_arena_new(), .before = *known};
    *known = e;
    status = e->taken ? look_at(q, keep, e, result, moved) : MN_ERR_MEMORY;
    e->moved = *moved - before;
    if (!comparable) *known = e->before, loop_free(e);
  }
  g->phase = 0;
  for (int j = 0; j < n->n_out && status == MN_OK; j++) *mn_rebuilt(r, n->out[j]) = result[j];
  return status;
}

static bool to_do(const mn_node *n) {
  const mn_scan_attr *a = mn_is(n, MN_IS_LOOP) ? n->attr : NULL;
  return a && !a->settled && !a->has_live && a->length > 1 && !n->mute;
}

mn_status mn_pass_loops(const mn_plan_request *q, mn_arena *keep, mn_draft *p, int *moved) {
  mn_rebuild r;
  mn_draft now;
  earlier *known = NULL;
  bool any = false;
  for (int i = 0; i < p->g->n_nodes && !any; i++) any = to_do(p->g->nodes[i]);
  if (!any) return MN_OK;
  mn_status status = mn_rebuild_begin(&r, p, &now, keep);
  for (int i = 0; i < p->g->n_nodes && status == MN_OK && now.g->status == MN_OK; i++) {
    const mn_node *n = p->g->nodes[i];
    if (!r.needed[i] && !n->op->bound) continue;
    if (to_do(n)) status = rebuild_loop(q, keep, &r, n, &known, moved);
    else mn_rebuild_copy(&r, n);
  }
  status = mn_rebuild_end(&r, status);
  for (; known; known = known->before) loop_free(known);
  if (status == MN_OK) *p = now;
  return status;
}
