/* pass_simplify.c - common subexpressions, constants, algebra; then what nothing needs any more goes. */
#include "compile/draft.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- common subexpressions: a hash table of the nodes rebuilt so far. A node's place is beside those of the nodes whose latest operand is
 * about as old as its own, so that what is looked for lies where the graph is being built, not anywhere in memory. ---- */
typedef struct entry {
  int at;        /* node number + 1; 0: free                                   */
  uint32_t hash; /* the upper half: nodes themselves lie far from one another */
} entry;
typedef struct table {
  entry *at;
  size_t size, used; /* a power of two, of which at most three quarters are used */
} table;

static bool is_pure(const mn_op *op) { return !op->effect && !op->distinct; }

static bool same_node(const mn_node *a, const mn_node *b) {
  if (a->op != b->op || a->n_in != b->n_in || a->n_out != b->n_out) return false;
  for (int i = 0; i < a->n_in; i++)
    if (a->in[i] != b->in[i]) return false;
  for (int j = 0; j < a->n_out; j++)
    if (a->out[j]->dtype != b->out[j]->dtype || !mn_shape_equal(&a->out[j]->shape, &b->out[j]->shape)) return false;
  size_t na, nb;
  const void *x = mn_identity_of(a, &na), *y = mn_identity_of(b, &nb);
  return x && y && na == nb && memcmp(x, y, na) == 0;
}

static uint64_t node_hash(const mn_node *n) {
  uint64_t h = mn_hash_mix(0, (uint64_t)(uintptr_t)n->op);
  for (int i = 0; i < n->n_in; i++) h = mn_hash_mix(h, (uint64_t)(uintptr_t)n->in[i]);
  for (int d = 0; d < n->out[0]->shape.ndim; d++) h = mn_hash_mix(h, (uint64_t)n->out[0]->shape.dim[d]);
  size_t bytes;
  const void *identity = mn_identity_of(n, &bytes);
  return identity && bytes ? mn_hash_words(identity, bytes, h) : h; /* slices of one tensor differ in this alone */
}

/* The earlier node equal to n, or n itself, now remembered. A phase later than the twin's is its own: what the backward
 * pass makes again must not be tied back to the forward pass. */
static mn_node *unify(table *t, const mn_graph *g, mn_node *n) {
  enum { NEAR = 8, EACH = 2 }; /* places beside the latest operand, and for each node; after these it may be any */
  size_t bytes;
  if (!is_pure(n->op) || !mn_identity_of(n, &bytes)) return n;
  const uint64_t hash = node_hash(n);
  int latest = -1;
  for (int k = 0; k < n->n_in; k++) latest = n->in[k]->node->id > latest ? n->in[k]->node->id : latest;
  size_t place = latest < 0 ? (size_t)hash : (size_t)latest * EACH;
  for (int tries = 1;; tries++) {
    entry *e = &t->at[place & (t->size - 1)];
    if (!e->at) {
      if (t->used < t->size / 4 * 3) *e = (entry){n->id + 1, (uint32_t)(hash >> 32)}, t->used++;
      return n;
    }
    mn_node *known = e->hash == (uint32_t)(hash >> 32) ? g->nodes[e->at - 1] : NULL;
    if (known && same_node(known, n)) return known;
    place = tries == NEAR ? (size_t)hash : place + 1;
  }
}

/* ---- one node ---- */
typedef struct simplification {
  mn_rebuild r;
  mn_draft now;
  table known;
  bool changed, waits; /* once more is simpler, perhaps what is given later is there */
  mn_waiting *waiting; /* what would be simpler if it alone read its operands, a list */
} simplification;

static void wait_for_readers(simplification *s, const mn_node *n) {
  mn_waiting *w = mn_arena_alloc(s->now.g->arena, sizeof *w);
  if (w) *w = (mn_waiting){n, s->waiting}, s->waiting = w;
  else mn_graph_fault(s->now.g, MN_ERR_MEMORY, "%s", mn_message());
}

/* old: the node of the draft that n is the copy of; NULL where n was made on the way. */
static mn_tensor *simpler(simplification *s, const mn_node *old, mn_node *n) {
  enum { FEW = 16 };
  bool only[FEW] = {false}, alone[FEW], shared = false;
  mn_graph *g = s->now.g;
  if (!n->op->simplify || n->op->effect || n->n_in > FEW) return NULL;
  for (int k = 0; k < n->n_in; k++) {
    only[k] = old && mn_uses(&s->r, old->in[k]) == 1;
    shared |= !only[k];
    alone[k] = true;
  }
  mn_tensor *t = n->op->simplify(&(mn_simplifying){.g = g, .only_reader = only}, n);
  if (t || !shared) return t;
  const int before = g->n_nodes;
  if (n->op->simplify(&(mn_simplifying){.g = g, .only_reader = alone}, n)) wait_for_readers(s, n);
  g->n_nodes = before;
  return NULL;
}

/* What t comes to, where node number `first` and later ones were made for it just now: something simpler, and simpler than that while there
 * is any. Earlier nodes have come to an end themselves, so that one walk through the graph mostly suffices. */
static mn_tensor *simplest(simplification *s, const mn_node *old, mn_tensor *t, int first, int steps) {
  mn_node *n = t->node;
  if (n->id < first || n->n_out != 1 || steps == 0 || s->now.g->status != MN_OK) return t;
  for (int k = 0; k < n->n_in; k++) n->in[k] = simplest(s, NULL, n->in[k], first, steps - 1);
  mn_tensor *next = simpler(s, old, n);
  if (!next) return t;
  s->changed = true;
  return simplest(s, NULL, next, first, steps - 1);
}

/* Of the nodes from number `first` on those that n needs, operands first; their number, -1: more than `most`. */
static int needed_for(mn_node *n, int first, mn_node **list, int count, int most) {
  if (n->id < first || count < 0) return count;
  for (int i = 0; i < count; i++)
    if (list[i] == n) return count;
  for (int k = 0; k < n->n_in; k++) count = needed_for(n->in[k]->node, first, list, count, most);
  if (count < 0 || count == most) return -1;
  list[count] = n;
  return count + 1;
}

/* Leaves of the nodes from number `first` on those that t needs, and of equal ones the earliest; what stands for t then. */
static mn_tensor *gathered(simplification *s, mn_tensor *t, int first) {
  enum { MOST = 32 };
  mn_graph *g = s->now.g;
  mn_node *made[MOST], *stands[MOST];
  const int n = needed_for(t->node, first, made, 0, MOST);
  if (n < 0) return t;
  g->n_nodes = first;
  for (int i = 0; i < n; i++) {
    for (int k = 0; k < made[i]->n_in; k++)
      for (int j = 0; j < i; j++)
        if (made[i]->in[k]->node == made[j]) made[i]->in[k] = stands[j]->out[made[i]->in[k]->out], j = i;
    made[i]->id = g->n_nodes;
    g->nodes[g->n_nodes++] = made[i];
    stands[i] = unify(&s->known, g, made[i]);
    if (stands[i] == made[i]) continue;
    g->n_nodes--;
    s->changed = true;
  }
  return n && t->node == made[n - 1] ? stands[n - 1]->out[t->out] : t;
}

/* The copy of node `old`, or what stands for it. */
static void rebuild(simplification *s, const mn_node *old) {
  mn_graph *g = s->now.g;
  enum { STEPS = 8 };
  const int first = g->n_nodes;
  mn_node *copy = mn_rebuild_copy(&s->r, old);
  if (!copy || copy->n_out == 0) return;
  g->phase = old->phase;
  mn_tensor *t = simplest(s, old, copy->out[0], first, STEPS);
  g->phase = 0;
  if (g->status != MN_OK) return;
  t = gathered(s, t, first);
  for (int j = 0; j < old->n_out; j++) *mn_rebuilt(&s->r, old->out[j]) = j ? t->node->out[j] : t;
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

static void build_early(simplification *s, const mn_tensor *t) {
  if (*mn_rebuilt(&s->r, t)) return;
  for (int i = 0; i < t->node->n_in; i++) build_early(s, t->node->in[i]);
  if (s->now.g->status == MN_OK) rebuild(s, t->node);
}

static bool merge_with_later(simplification *s, const mn_node *early) {
  mn_rebuild *r = &s->r;
  mn_node *twin = twin_of(r->old, r, early);
  if (!twin) return false;
  for (int k = early->n_in; k < twin->n_in; k++)
    if (!of_constants(twin->in[k], 8)) return false;
  for (int k = early->n_in; k < twin->n_in; k++) build_early(s, twin->in[k]);
  if (s->now.g->status != MN_OK) return true;
  mn_node *made = mn_rebuild_copy(r, twin);
  if (!made) return false;
  made->phase = early->phase;
  for (int j = 0; j < early->n_out; j++) *mn_rebuilt(r, early->out[j]) = made->out[early->op->given_at + j];
  return true;
}

/* Whether another walk may find more. */
static bool pass_once(mn_arena *arena, mn_draft *p, mn_status *status) {
  simplification s = {.known = {.size = 64}};
  *status = mn_rebuild_begin(&s.r, p, &s.now, arena);
  while (s.known.size < 2 * (size_t)(p->g->n_nodes + 64)) s.known.size *= 2;
  s.known.at = mn_calloc(s.known.size, sizeof *s.known.at);
  if (!s.known.at) *status = MN_ERR_MEMORY;
  for (int i = 0; i < p->g->n_nodes && *status == MN_OK && s.now.g->status == MN_OK; i++) {
    const mn_node *n = p->g->nodes[i];
    if (!s.r.needed[i] && !n->op->bound) continue;
    if (n->n_out && *mn_rebuilt(&s.r, n->out[0])) continue; /* built early */
    if (n->op->given_by && merge_with_later(&s, n)) {
      s.changed = true;
      continue;
    }
    s.waits |= n->op->given_by != NULL;
    rebuild(&s, n);
  }
  *status = mn_rebuild_end(&s.r, *status);
  free(s.known.at);
  if (*status != MN_OK) return false;
  *p = s.now;
  bool alone = false;
  *status = mn_draft_sweep(p, s.waiting, &alone);
  return s.changed && (s.waits || alone);
}

mn_status mn_pass_simplify(mn_arena **arena, mn_draft *p) {
  enum { ROUNDS = 8 };
  mn_status status = MN_OK;
  bool more = true;
  for (int round = 0; round < ROUNDS && more && status == MN_OK; round++) {
    mn_arena *now = mn_arena_new();
    if (!now) return MN_ERR_MEMORY;
    more = pass_once(now, p, &status);
    mn_arena_free(status == MN_OK ? *arena : now);
    if (status == MN_OK) *arena = now;
  }
  return status;
}
