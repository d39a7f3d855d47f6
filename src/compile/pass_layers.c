/* pass_layers.c - the passes on a few layers instead of all. In a deep model each layer is the same nodes again (repeats.h), and each pass looks
 * at nodes that are near each other. So the passes are given a graph of a few layers from either end; what they make of it repeats itself, too,
 * and is drawn out to as many layers as there are. That this is what they would have made of all is not taken on trust: they are also
 * given one layer more, and must make of it what comes of drawing the smaller one out by one. Where they do not, or nothing repeats
 * itself, they get the graph as it is. */
#include "compile/repeats.h"
#include "compile/plan_internal.h"
#include "graph/compose.h"
#include "graph/loops_alike.h"

#include <stdlib.h>
#include <string.h>

enum {
  KEPT = 32,  /* layers that passes are given: more than a pass counts, so that what it counts to is seen */
  LEAST = 96, /* and of so many at least */
  SEEN = 4    /* of which so many must look alike afterwards */
};

_Static_assert((int)KEPT > (int)MN_MADE_AGAIN, "a limit of the passes is met in the layers that they are given");

/* ---- fewer layers ---- */
typedef struct shorter { /* a request with another number of layers */
  mn_resize z;           /* from the given one */
  mn_plan_request q;
  const mn_tensor **root; /* of each of its roots: the given one */
} shorter;

/* What stands in the layers on both sides of the gap where t stands in one that is left out; false: it stands in none. */
static bool around_gap(const mn_resize *z, const mn_graph *g, const mn_tensor *t, const mn_tensor **low, const mn_tensor **high) {
  mn_layer_place below = mn_layers_place(&z->old, t->node->id), above = below;
  if (below.stretch < 0) return false;
  below.layer = z->cut - 1, above.layer = z->cut - z->more;
  const int a = mn_layers_at(&z->old, below), b = mn_layers_at(&z->old, above);
  if (a < 0 || b < 0) return false;
  *low = g->nodes[a]->out[t->out], *high = g->nodes[b]->out[t->out];
  return true;
}

/* Outputs of the layers that stay. */
static void take_roots(const mn_plan_request *q, shorter *s, mn_tensor **root) {
  s->q.n_outputs = 0;
  for (int i = 0; i < q->n_outputs; i++) {
    const mn_tensor *t = q->outputs[i];
    const int id = mn_resized_id(&s->z, t->node->id);
    if (id < 0) continue;
    s->root[s->q.n_outputs] = t;
    root[s->q.n_outputs++] = s->q.graph->nodes[id]->out[t->out];
  }
  s->q.outputs = root;
}

static mn_status shorten(const mn_plan_request *q, const mn_layers *l, int cut, int more, mn_arena *arena, shorter *s, bool *ok) {
  const size_t n = (size_t)q->n_outputs + 1;
  *s = (shorter){.z = mn_resize_of(l, cut, more), .q = *q};
  s->q.graph = mn_graph_in(arena, mn_graph_keep_bytes);
  s->root = mn_arena_alloc(arena, n * sizeof *s->root);
  mn_tensor **root = mn_arena_alloc(arena, n * sizeof *root);
  if (!s->q.graph || !s->root || !root) return MN_ERR_MEMORY;
  MN_TRY(mn_layers_resize(&s->z, q->graph, s->q.graph, ok));
  if (*ok) take_roots(q, s, root);
  return MN_OK;
}

/* Is what a layer that is left out gives to the caller given by those on both sides of the gap, too? *ok. */
static mn_status roots_repeat(const mn_plan_request *q, const mn_resize *z, mn_arena *arena, bool *ok) {
  mn_table roots = {.arena = arena};
  for (int i = 0; i < q->n_outputs; i++) MN_TRY(mn_table_put(&roots, q->outputs[i], i));
  for (int i = 0; i < q->n_outputs && *ok; i++) {
    const mn_tensor *t = q->outputs[i];
    if (mn_resized_id(z, t->node->id) >= 0) continue;
    const mn_tensor *low, *high;
    *ok = around_gap(z, q->graph, t, &low, &high) && mn_table_find(&roots, low, -1) >= 0 && mn_table_find(&roots, high, -1) >= 0;
  }
  return MN_OK;
}

/* ---- drawing out what the passes made ---- */
typedef struct drawing {
  const shorter *s;
  const mn_draft *made; /* of the shorter graph */
  mn_resize z;          /* from `made` to the draft as it should be */
  mn_graph *to;
  mn_table root_at, leaf_at; /* given tensor -> its number among those of `made` */
} drawing;

/* Tensor t of `made` stands for a tensor in a given layer; where is it, that many layers further? -1: nowhere. */
static int further(const drawing *d, const mn_tensor *t, int layers, bool same) {
  mn_layer_place p = mn_layers_place(&d->z.old, t->node->id);
  if (p.stretch < 0) return same ? mn_resized_id(&d->z, t->node->id) : -1;
  p.layer += layers;
  return mn_layers_at(&d->z.now, p);
}

/* What stands for given tensor t in the draft that is drawn out; NULL: nothing, or not the same thing in all layers. */
static mn_tensor *drawn(const drawing *d, const mn_table *at, mn_tensor *const *made, const mn_graph *given, const mn_tensor *t) {
  const mn_resize *z = &d->s->z;
  const mn_layer_place p = mn_layers_place(&z->old, t->node->id);
  const int known = mn_table_find(at, t, -1);
  int id;
  if (known >= 0) {
    t = made[known];
    id = t ? further(d, t, p.stretch >= 0 && p.layer >= z->cut ? -z->more : 0, true) : -1;
  } else { /* it is of a layer that was left out: as those on both sides of the gap */
    const mn_tensor *low, *high;
    if (!around_gap(z, given, t, &low, &high)) return NULL;
    const int a = mn_table_find(at, low, -1), b = mn_table_find(at, high, -1);
    if (a < 0 || b < 0 || !made[a] || !made[b] || made[a]->out != made[b]->out) return NULL;
    t = made[a];
    id = further(d, t, p.layer - (z->cut - 1), made[a] == made[b]);
    if (id != further(d, made[b], p.layer - z->cut, made[a] == made[b])) return NULL;
  }
  return id < 0 ? NULL : d->to->nodes[id]->out[t->out];
}

static mn_status find_known(drawing *d, const mn_graph *given) {
  for (int j = 0; j < d->made->n_roots; j++) MN_TRY(mn_table_put(&d->root_at, d->s->root[j], j));
  for (int k = 0; k < d->made->n_leaves; k++) {
    const mn_tensor *t = d->made->given[k];
    const int id = mn_resized_from(&d->s->z, t->node->id);
    if (id >= 0) MN_TRY(mn_table_put(&d->leaf_at, given->nodes[id]->out[t->out], k));
  }
  return MN_OK;
}

/* Leaves of the draft: each is one of the given graph's, and made of one. due: per node, whether it is to be one. */
static bool draw_leaves(const drawing *d, const mn_graph *given, bool *due, int n_due, mn_draft *p) {
  for (int i = 0; i < given->n_nodes; i++) {
    if (!given->nodes[i]->op->bound) continue;
    mn_tensor *t = drawn(d, &d->leaf_at, d->made->leaves, given, given->nodes[i]->out[0]);
    if (!t) continue; /* it is not needed */
    if (!due[t->node->id]) return false;
    due[t->node->id] = false;
    t->name = given->nodes[i]->out[0]->name;
    p->given[p->n_leaves] = given->nodes[i]->out[0];
    p->leaves[p->n_leaves++] = t;
  }
  return p->n_leaves == n_due;
}

/* Which nodes of the draft are to be its leaves: those made of leaves. */
static mn_status find_due(const drawing *d, bool **due, int *n_due) {
  bool *leaf = mn_calloc((size_t)d->made->g->n_nodes + 1, sizeof *leaf);
  *due = mn_calloc((size_t)d->to->n_nodes + 1, sizeof **due);
  *n_due = 0;
  for (int k = 0; k < d->made->n_leaves && leaf; k++)
    if (d->made->leaves[k]) leaf[d->made->leaves[k]->node->id] = true;
  for (int i = 0; i < d->to->n_nodes && leaf && *due; i++) {
    (*due)[i] = d->to->nodes[i]->op->bound && leaf[mn_resized_from(&d->z, i)];
    *n_due += (*due)[i];
  }
  const bool ok = leaf && *due;
  free(leaf);
  return ok ? MN_OK : MN_ERR_MEMORY;
}

static mn_status draw_ends(drawing *d, const mn_plan_request *q, mn_arena *arena, mn_draft *p, bool *ok) {
  bool *due;
  int n_due;
  *p = (mn_draft){.g = d->to, .n_roots = q->n_outputs};
  mn_status status = find_due(d, &due, &n_due);
  p->roots = mn_arena_alloc(arena, ((size_t)p->n_roots + 1) * sizeof *p->roots);
  p->given = mn_arena_alloc(arena, ((size_t)n_due + 1) * sizeof *p->given);
  p->leaves = mn_arena_alloc(arena, ((size_t)n_due + 1) * sizeof *p->leaves);
  if (!p->roots || !p->given || !p->leaves) status = MN_ERR_MEMORY;
  if (status == MN_OK) status = find_known(d, q->graph);
  for (int i = 0; i < p->n_roots && status == MN_OK && *ok; i++) {
    p->roots[i] = drawn(d, &d->root_at, d->made->roots, q->graph, q->outputs[i]);
    *ok = p->roots[i] != NULL;
  }
  if (status == MN_OK && *ok) *ok = draw_leaves(d, q->graph, due, n_due, p);
  free(due);
  return status;
}

/* `made` of s with the layers of request q, in `arena`. */
static mn_status draw_out(const mn_plan_request *q, const shorter *s, const mn_draft *made, mn_arena *arena, mn_draft *p, bool *ok) {
  mn_layers l;
  MN_TRY(mn_layers_find(made->g, SEEN, &l));
  *ok = l.n > 0;
  if (!*ok) return MN_OK;
  drawing d = {
      .s = s, .made = made, .z = mn_resize_of(&l, (l.low + l.high) / 2, -s->z.more), .to = mn_graph_in(arena, mn_graph_keep_bytes)};
  if (!d.to) return MN_ERR_MEMORY;
  MN_TRY(mn_layers_resize(&d.z, made->g, d.to, ok));
  if (!*ok) return MN_OK;
  mn_arena *tables = mn_arena_new();
  d.root_at = d.leaf_at = (mn_table){.arena = tables};
  const mn_status status = tables ? draw_ends(&d, q, arena, p, ok) : MN_ERR_MEMORY;
  mn_arena_free(tables);
  return status;
}

/* ---- is it what the passes make themselves? ---- */
static bool same_drafts(const mn_draft *a, const mn_draft *b) {
  if (a->g->n_nodes != b->g->n_nodes || a->n_roots != b->n_roots || a->n_leaves != b->n_leaves) return false;
  for (int i = 0; i < a->g->n_nodes; i++) {
    const mn_node *m = a->g->nodes[i], *n = b->g->nodes[i];
    if (!mn_node_alike(m, n)) return false;
    for (int k = 0; k < m->n_in; k++)
      if (!mn_same_place(m->in[k], n->in[k])) return false;
  }
  for (int j = 0; j < a->n_roots; j++)
    if (!mn_same_place(a->roots[j], b->roots[j])) return false;
  for (int k = 0; k < a->n_leaves; k++) /* both are in the order of the given graph */
    if (a->given[k] != b->given[k] || !a->leaves[k] || !b->leaves[k] || !mn_same_place(a->leaves[k], b->leaves[k])) return false;
  return true;
}

/* ---- what was done, as the report counts it ---- */
static void report_all(const mn_plan_report *one, const mn_plan_report *next, int layers, mn_plan_report *r) {
#define COUNT(field) r->field = one->field + layers * (next->field - one->field)
  COUNT(nodes_given);
  COUNT(nodes_lowered);
  COUNT(nodes_moved);
  COUNT(nodes_simplified);
  COUNT(nodes_recomputed);
  COUNT(nodes_fused);
  COUNT(elementwise_before);
  COUNT(elementwise_after);
#undef COUNT
}

/* ---- the pass ---- */
/* With assigned values, as a training step has them, it never is: its norm of all gradients is summed several terms at a time. */
static bool may_be_shorter(const mn_plan_request *q) {
  if (q->graph->effects || q->prologue || q->n_assigns || q->passes_off & MN_PASS_LAYERS) return false;
  for (int i = 0; i < q->n_outputs; i++) /* what is wrong is said where all is taken */
    if (!q->outputs[i] || q->outputs[i]->node->graph != q->graph) return false;
  return true;
}

/* What passes make of the longer request must be what they made of the shorter, drawn out by one layer. */
static mn_status check(const shorter *longer, const shorter *s, const mn_plan *made, mn_arena *scratch, mn_plan_report *r, bool *ok) {
  mn_plan plan = {.arena = scratch, .backend = made->backend};
  mn_draft p;
  shorter by_one = *s;
  by_one.z = mn_resize_of(&longer->z.now, longer->z.cut, -1);
  mn_arena *inner = mn_arena_new();
  mn_status status = inner ? mn_plan_passes(&plan, &longer->q, inner) : MN_ERR_MEMORY;
  for (int j = 0; j < s->q.n_outputs && status == MN_OK; j++) { /* roots as the longer one has them */
    const mn_tensor *t = s->q.outputs[j];
    const int id = mn_resized_from(&by_one.z, t->node->id);
    by_one.root[j] = longer->q.graph->nodes[id]->out[t->out];
  }
  if (status == MN_OK) status = draw_out(&longer->q, &by_one, &made->program, scratch, &p, ok);
  if (status == MN_OK && *ok) *ok = same_drafts(&p, &plan.program);
  *r = plan.report;
  mn_arena_free(inner);
  return status;
}

mn_status mn_pass_layers(mn_plan *p, const mn_plan_request *q, mn_arena *scratch, bool *done) {
  mn_layers l;
  *done = false;
  if (p->is_body || !may_be_shorter(q)) return MN_OK;
  MN_TRY(mn_layers_find(q->graph, LEAST, &l));
  if (l.n == 0) return MN_OK;
  const int cut = l.low + KEPT / 2, more = KEPT - (l.high - l.low);
  mn_plan made = {.arena = mn_arena_new(), .backend = p->backend};
  mn_arena *other = mn_arena_new();
  mn_plan_report next = {0};
  shorter s, longer;
  bool ok = true;
  mn_status status = made.arena && other ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK) {
    const mn_resize z = mn_resize_of(&l, cut, more);
    status = roots_repeat(q, &z, other, &ok);
  }
  if (status == MN_OK && ok) status = shorten(q, &l, cut, more, scratch, &s, &ok);
  if (status == MN_OK && ok) status = shorten(q, &l, cut, more + 1, other, &longer, &ok);
  if (status == MN_OK && ok) status = mn_plan_passes(&made, &s.q, scratch);
  if (status == MN_OK && ok) {
    shorter copy = s;
    copy.root = mn_arena_alloc(other, ((size_t)s.q.n_outputs + 1) * sizeof *copy.root);
    status = copy.root ? check(&longer, &copy, &made, other, &next, &ok) : MN_ERR_MEMORY;
  }
  if (status == MN_OK && ok) status = draw_out(q, &s, &made.program, p->arena, &p->program, &ok);
  if (status == MN_OK && ok) {
    report_all(&made.report, &next, -more, &p->report);
    p->report.layers_alike = -more;
    *done = true;
  }
  mn_arena_free(made.arena);
  mn_arena_free(other);
  return status;
}
