/* pass_trim.c - loops without the results that nobody reads: what a body works out for them alone goes, and so do the slices and
 * constants that only it read. A report out of a loop costs nothing to those who do not ask for it. */
#include "compile/draft.h"

#include <string.h>

static void *some(mn_graph *g, int n, size_t size) {
  void *p = mn_arena_alloc(g->arena, ((size_t)n + 1) * size);
  if (!p) mn_graph_fault(g, MN_ERR_MEMORY, "%s", mn_message());
  return p;
}

/* Which nodes of the body its results need, and its effects. */
static bool *needed_in(mn_graph *g, const mn_scan_attr *a, int n_ys, mn_tensor *const *ys) {
  bool *needed = some(g, a->body->n_nodes, sizeof *needed);
  if (!needed) return NULL;
  for (int i = 0; i < a->n_carry; i++) needed[a->body_out[i]->node->id] = true;
  for (int j = 0; j < n_ys; j++) needed[ys[j]->node->id] = true;
  for (int i = a->body->n_nodes - 1; i >= 0; i--) {
    const mn_node *n = a->body->nodes[i];
    if (!needed[i] && !mn_node_has_effect(n)) continue;
    needed[i] = true;
    for (int k = 0; k < n->n_in; k++) needed[n->in[k]->node->id] = true;
  }
  return needed;
}

mn_node *mn_rebuild_trimmed(mn_rebuild *r, const mn_node *n) {
  const mn_scan_attr *a = n->attr;
  mn_graph *g = r->now->g;
  int n_ys = 0;
  for (int j = 0; j < a->n_ys; j++) n_ys += mn_uses(r, n->out[a->n_carry + j]) > 0;
  if (n_ys == a->n_ys) return mn_rebuild_copy(r, n);

  const int given = a->n_carry + a->n_xs + a->n_const, n_out = n->n_out - a->n_ys + n_ys;
  mn_scan_attr now = *a;
  now.n_xs = now.n_const = now.n_ys = 0;
  now.body_in = some(g, given, sizeof *now.body_in);
  now.body_out = some(g, a->n_carry + n_ys, sizeof *now.body_out);
  mn_tensor **in = some(g, n->n_in, sizeof *in);
  const mn_tensor **out = some(g, n_out, sizeof *out);
  mn_dtype *types = some(g, n_out, sizeof *types);
  mn_shape *shapes = some(g, n_out, sizeof *shapes);
  if (!now.body_in || !now.body_out || !in || !out || !types || !shapes) return NULL;

  int o = 0;
  for (int j = 0; j < n->n_out; j++) {
    const bool y = j >= a->n_carry && j < a->n_carry + a->n_ys;
    if (y && mn_uses(r, n->out[j]) == 0) continue;
    if (j < a->n_carry + a->n_ys) now.body_out[o] = a->body_out[j];
    now.n_ys += y;
    types[o] = n->out[j]->dtype;
    shapes[o] = n->out[j]->shape;
    out[o++] = n->out[j];
  }
  const bool *needed = needed_in(g, a, now.n_ys, now.body_out + a->n_carry);
  if (!needed) return NULL;
  int k = 0;
  for (int i = 0; i < n->n_in; i++) {
    const bool x = i >= a->n_carry && i < a->n_carry + a->n_xs, constant = i >= a->n_carry + a->n_xs && i < given;
    if ((x || constant) && !needed[a->body_in[i]->node->id]) continue;
    if (i < given) now.body_in[k] = a->body_in[i];
    now.n_xs += x;
    now.n_const += constant;
    in[k++] = *mn_rebuilt(r, n->in[i]);
  }
  mn_node *copy = mn_node_new(g, n->op, k, in, o, types, shapes, &now);
  if (!copy) return NULL;
  copy->phase = n->phase;
  copy->mute = n->mute;
  for (int j = 0; j < o; j++) {
    copy->out[j]->name = out[j]->name;
    *mn_rebuilt(r, out[j]) = copy->out[j];
  }
  return copy;
}
