/* pass_siblings.c - products of the same few rows with matrices in types of storage become one: the rows are rounded once, and threads
 * meet once where they would for each matrix. Of many rows a product is longer than that, and what reads a part of the joined result
 * would find its rows apart. */
#include "compile/draft.h"
#include "graph/stored.h"

enum { FEW = 12 /* rows */, FAR = 256 /* nodes between the first and the last of them */ };

static bool is_product(const mn_node *n) {
  if (!mn_is(n, MN_IS_STORED_PRODUCT) || n->out[0]->shape.dim[0] > FEW) return false;
  for (int i = 1; i < n->n_in; i++)
    if (!n->in[i]->node->op->bound) return false;
  return true;
}
static bool are_siblings(const mn_node *a, const mn_node *b) {
  return b->op == a->op && b->in[0] == a->in[0] && b->phase == a->phase && b->out[0]->dtype == a->out[0]->dtype && is_product(b) &&
         ((const mn_stored_product_attr *)b->attr)->exact == ((const mn_stored_product_attr *)a->attr)->exact;
}

/* A leaf before its turn: nothing it could wait for. */
static mn_tensor *leaf(mn_rebuild *r, const mn_tensor *t) {
  if (!*mn_rebuilt(r, t)) mn_rebuild_copy(r, t->node);
  return *mn_rebuilt(r, t);
}

/* Node `first` and its siblings as one product, of which each reads its columns. false: it has none. */
static bool joined(mn_rebuild *r, int first) {
  const mn_graph *old = r->old->g;
  const mn_node *n = old->nodes[first], *of[MN_STORED_MOST];
  mn_tensor *w[MN_STORED_MOST];
  int count = 0, matrices = 0;
  if (!is_product(n) || *mn_rebuilt(r, n->out[0])) return false;
  for (int i = first; i < old->n_nodes && i < first + FAR; i++) {
    const mn_node *b = old->nodes[i];
    if (!r->needed[i] || !are_siblings(n, b) || *mn_rebuilt(r, b->out[0]) || matrices + b->n_in - 1 > MN_STORED_MOST) continue;
    for (int k = 1; k < b->n_in; k++) w[matrices++] = leaf(r, b->in[k]);
    of[count++] = b;
  }
  if (count < 2) return false;
  mn_graph *g = r->now->g;
  const bool exact = ((const mn_stored_product_attr *)n->attr)->exact;
  mn_tensor *y = mn_stored_product(g, *mn_rebuilt(r, n->in[0]), matrices, w, exact, n->out[0]->dtype);
  int64_t at = 0;
  for (int i = 0; i < count; i++) {
    mn_tensor *part = mn_slice(g, y, 1, at, mn_dim(of[i]->out[0], 1));
    if (part) part->name = of[i]->out[0]->name;
    *mn_rebuilt(r, of[i]->out[0]) = part;
    at += mn_dim(of[i]->out[0], 1);
  }
  return true;
}

bool mn_has_siblings(const mn_draft *draft) {
  for (int i = 0; i < draft->g->n_nodes; i++)
    if (is_product(draft->g->nodes[i])) return true;
  return false;
}

mn_status mn_pass_siblings(mn_arena *arena, mn_draft *draft) {
  mn_rebuild r;
  mn_draft now;
  mn_status status = mn_rebuild_begin(&r, draft, &now, arena);
  for (int i = 0; i < draft->g->n_nodes && status == MN_OK && now.g->status == MN_OK; i++) {
    const mn_node *node = draft->g->nodes[i];
    if (!r.needed[i] && !node->op->bound) continue;
    if (node->n_out && *mn_rebuilt(&r, node->out[0])) continue; /* of a product that came earlier, or a leaf of one */
    now.g->phase = node->phase;
    if (!joined(&r, i)) mn_rebuild_copy(&r, node);
    now.g->phase = 0;
  }
  status = mn_rebuild_end(&r, status);
  if (status == MN_OK) *draft = now;
  return status;
}
