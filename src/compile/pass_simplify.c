/* pass_simplify.c - common subexpressions, constants, algebra. Rebuilding drops what nothing needs. */
#include "compile/draft.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- common subexpressions: a hash table of the nodes rebuilt so far ---- */
typedef struct entry {
  int at;        /* node number + 1; 0: free                                   */
  uint32_t hash; /* the upper half: nodes themselves lie far from one another */
} entry;
typedef struct table {
  entry *at;
  size_t size; /* power of two */
} table;

static bool is_pure(const mn_op *op) { return !op->effect && !op->distinct; }

/* What tells n apart from another application to the same operands; NULL: everything. */
static const void *identity_of(const mn_node *n, size_t *bytes) {
  *bytes = n->op->attr_size;
  return n->op->identity ? n->op->identity(n, bytes) : *bytes ? n->attr : "";
}

static bool same_node(const mn_node *a, const mn_node *b) {
  if (a->op != b->op || a->n_in != b->n_in || a->n_out != b->n_out) return false;
  for (int i = 0; i < a->n_in; i++)
    if (a->in[i] != b->in[i]) return false;
  for (int j = 0; j < a->n_out; j++)
    if (a->out[j]->dtype != b->out[j]->dtype || !mn_shape_equal(&a->out[j]->shape, &b->out[j]->shape)) return false;
  size_t na, nb;
  const void *x = identity_of(a, &na), *y = identity_of(b, &nb);
  return x && y && na == nb && memcmp(x, y, na) == 0;
}

static uint64_t node_hash(const mn_node *n) {
  uint64_t h = mn_splitmix64((uint64_t)(uintptr_t)n->op);
  for (int i = 0; i < n->n_in; i++) h = mn_splitmix64(h ^ (uint64_t)(uintptr_t)n->in[i]);
  for (int d = 0; d < n->out[0]->shape.ndim; d++) h = mn_splitmix64(h ^ (uint64_t)n->out[0]->shape.dim[d]);
  size_t bytes;
  const void *identity = identity_of(n, &bytes);
  return identity && bytes ? mn_hash_bytes(identity, bytes, h) : h; /* slices of one tensor differ in this alone */
}

/* The earlier node equal to n, or n itself, now remembered. A phase later than the twin's is its own: what the backward
 * pass makes again must not be tied back to the forward pass. */
static mn_node *unify(table *t, const mn_graph *g, mn_node *n) {
  size_t bytes;
  if (!is_pure(n->op) || !identity_of(n, &bytes)) return n;
  const uint64_t hash = node_hash(n);
  for (size_t i = hash & (t->size - 1);; i = (i + 1) & (t->size - 1)) {
    entry *e = &t->at[i];
    if (!e->at) {
      *e = (entry){n->id + 1, (uint32_t)(hash >> 32)};
      return n;
    }
    mn_node *known = e->hash == (uint32_t)(hash >> 32) ? g->nodes[e->at - 1] : NULL;
    if (known && same_node(known, n)) return known;
  }
}

/* ---- what a later node gives anyway: the loss and its gradient need the same logits ---- */
static mn_node *twin_of(const mn_draft *p, const mn_rebuild *r, const mn_node *early) {
  for (int i = early->id + 1; i < p->g->n_nodes; i++) {
    mn_node *n = p->g->nodes[i];
    if (n->op != early->op->given_by || !r->needed[i]) continue;
    bool same = true;
    for (int k = 0; k < early->n_in; k++) same &= n->in[k] == early->in[k];
    if (same) return n;
  }
  return NULL;
}

/* Is t made of constants only? Then it can be built early. */
static bool of_constants(const mn_tensor *t, int depth) {
  const mn_node *n = t->node;
  if (n->op->cls == MN_OP_LEAF) return !n->op->bound;
  if (depth == 0 || n->n_in == 0 || (n->op->cls != MN_OP_VIEW && n->op->cls != MN_OP_ELEMENTWISE)) return false;
  for (int i = 0; i < n->n_in; i++)
    if (!of_constants(n->in[i], depth - 1)) return false;
  return true;
}

static mn_tensor *build_early(mn_rebuild *r, const mn_tensor *t) {
  mn_tensor **s = mn_rebuilt(r, t);
  if (*s) return *s;
  for (int i = 0; i < t->node->n_in; i++) build_early(r, t->node->in[i]);
  mn_rebuild_copy(r, t->node);
  return *s;
}

static bool merge_with_later(mn_rebuild *r, const mn_node *early) {
  mn_node *twin = twin_of(r->old, r, early);
  if (!twin) return false;
  for (int k = early->n_in; k < twin->n_in; k++)
    if (!of_constants(twin->in[k], 8)) return false;
  for (int k = early->n_in; k < twin->n_in; k++) build_early(r, twin->in[k]);
  mn_node *made = mn_rebuild_copy(r, twin);
  if (!made) return false;
  made->phase = early->phase;
  for (int j = 0; j < early->n_out; j++) *mn_rebuilt(r, early->out[j]) = made->out[early->op->given_at + j];
  return true;
}

static mn_tensor *simpler(mn_rebuild *r, const mn_node *old, mn_node *n) {
  enum { FEW = 16 };
  bool only[FEW] = {false};
  if (!n->op->simplify || n->op->effect || n->n_in > FEW) return NULL;
  for (int k = 0; k < n->n_in; k++) only[k] = mn_uses(r, old->in[k]) == 1;
  return n->op->simplify(&(mn_simplifying){.g = r->now->g, .only_reader = only}, n);
}

/* Whether anything became simpler. What nothing needs goes, too, but lets nothing else become simpler: it was no reader of anything. */
static bool pass_once(mn_arena *arena, mn_draft *p, mn_status *status) {
  mn_rebuild r;
  mn_draft now;
  *status = mn_rebuild_begin(&r, p, &now, arena);
  table t = {.size = 64};
  while (t.size < 2 * (size_t)(p->g->n_nodes + 64)) t.size *= 2;
  t.at = mn_calloc(t.size, sizeof *t.at);
  if (!t.at) *status = MN_ERR_MEMORY;
  bool changed = false;
  for (int i = 0; i < p->g->n_nodes && *status == MN_OK && now.g->status == MN_OK; i++) {
    mn_node *n = p->g->nodes[i];
    if (!r.needed[i] && !n->op->bound) continue;
    if (n->n_out && *mn_rebuilt(&r, n->out[0])) continue; /* built early */
    if (n->op->given_by && merge_with_later(&r, n)) {
      changed = true;
      continue;
    }
    int before = now.g->n_nodes;
    mn_node *copy = mn_rebuild_copy(&r, n);
    if (!copy) break;
    now.g->phase = n->phase;
    mn_tensor *simple = simpler(&r, n, copy);
    now.g->phase = 0;
    if (simple) {
      *mn_rebuilt(&r, n->out[0]) = simple;
      changed = true;
      continue;
    }
    mn_node *twin = unify(&t, now.g, copy);
    if (twin != copy) {
      changed = true;
      for (int j = 0; j < n->n_out; j++) *mn_rebuilt(&r, n->out[j]) = twin->out[j];
      if (now.g->n_nodes == before + 1) now.g->n_nodes = before; /* the copy was the last node: take it back */
    }
  }
  *status = mn_rebuild_end(&r, *status);
  free(t.at);
  if (*status == MN_OK) *p = now;
  return changed;
}

mn_status mn_pass_simplify(mn_arena **arena, mn_draft *p) {
  mn_status status = MN_OK;
  bool changed = true;
  for (int round = 0; round < 8 && changed && status == MN_OK; round++) {
    mn_arena *now = mn_arena_new();
    if (!now) return MN_ERR_MEMORY;
    changed = pass_once(now, p, &status);
    mn_arena_free(status == MN_OK ? *arena : now);
    if (status == MN_OK) *arena = now;
  }
  return status;
}
