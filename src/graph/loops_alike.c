/* loops_alike.c - see loops_alike.h. */
#include "graph/loops_alike.h"
#include "graph/ahead.h"
#include "graph/compose.h"
#include "graph/ops.h"

#include <string.h>

/* As mn_identity_of, but that constants are the same number by number: each layer makes its own. */
static const void *identity_of(const mn_node *n, size_t *bytes) {
  const mn_const_attr *constant = mn_is(n, MN_IS_CONST) ? n->attr : NULL;
  if (constant && !constant->is_full) {
    *bytes = mn_shape_bytes(&n->out[0]->shape, n->out[0]->dtype);
    return *bytes ? constant->data : "";
  }
  return mn_identity_of(n, bytes);
}

static uint64_t place_of(const mn_tensor *t) { return (uint64_t)t->node->id * 64 + (uint64_t)t->out; }

static bool hash_node(const mn_node *n, uint64_t *h) {
  *h = mn_hash_mix(*h, (uint64_t)(uintptr_t)n->op);
  *h = mn_hash_mix(*h, (uint64_t)n->phase * 2 + n->mute);
  for (int i = 0; i < n->n_in; i++) *h = mn_hash_mix(*h, place_of(n->in[i]));
  for (int j = 0; j < n->n_out; j++) {
    *h = mn_hash_mix(*h, (uint64_t)n->out[j]->dtype);
    for (int d = 0; d < n->out[j]->shape.ndim; d++) *h = mn_hash_mix(*h, (uint64_t)n->out[j]->shape.dim[d]);
  }
  if (mn_is(n, MN_IS_LOOP)) return mn_loop_hash(n->attr, h);
  enum { BEGINNING = 4096 }; /* bytes: enough to tell most apart */
  size_t bytes;
  const void *identity = identity_of(n, &bytes);
  if (identity && bytes) *h = mn_hash_words(identity, bytes < BEGINNING ? bytes : BEGINNING, *h);
  return identity != NULL;
}
bool mn_loop_hash(const mn_scan_attr *a, uint64_t *h) { /* false: it is like no other */
  *h = mn_hash_mix(*h, (uint64_t)a->length);
  for (int i = 0; i < a->body->n_nodes; i++)
    if (!hash_node(a->body->nodes[i], h)) return false;
  return true;
}

bool mn_node_alike(const mn_node *a, const mn_node *b) {
  if (a->op != b->op || a->n_in != b->n_in || a->n_out != b->n_out || a->phase != b->phase || a->mute != b->mute) return false;
  for (int j = 0; j < a->n_out; j++)
    if (a->out[j]->dtype != b->out[j]->dtype || !mn_shape_equal(&a->out[j]->shape, &b->out[j]->shape)) return false;
  if (mn_is(a, MN_IS_LOOP)) return mn_loop_same(a->attr, b->attr);
  size_t na, nb;
  const void *x = identity_of(a, &na), *y = identity_of(b, &nb);
  return x && y && na == nb && memcmp(x, y, na) == 0;
}

static bool same_node(const mn_node *a, const mn_node *b) {
  if (!mn_node_alike(a, b)) return false;
  for (int i = 0; i < a->n_in; i++)
    if (!mn_same_place(a->in[i], b->in[i])) return false;
  return true;
}

bool mn_loop_same(const mn_scan_attr *a, const mn_scan_attr *b) {
  enum { NODES = 8 }; /* bodies of earlier layers lie far away */
  if (a->n_carry != b->n_carry || a->n_xs != b->n_xs || a->n_const != b->n_const || a->n_ys != b->n_ys || a->length != b->length ||
      a->has_live != b->has_live || a->reverse != b->reverse || a->settled != b->settled || a->save_every != b->save_every ||
      a->body->n_nodes != b->body->n_nodes)
    return false;
  if (a->body == b->body && a->body_in == b->body_in && a->body_out == b->body_out) return true;
  for (int i = 0; i < a->n_carry + a->n_xs + a->n_const; i++)
    if (!mn_same_place(a->body_in[i], b->body_in[i])) return false;
  for (int j = 0; j < a->n_carry + a->n_ys; j++)
    if (!mn_same_place(a->body_out[j], b->body_out[j])) return false;
  for (int i = 0; i < a->body->n_nodes; i++) {
    mn_node_ahead(a->body, i, NODES);
    mn_node_ahead(b->body, i, NODES);
    if (!same_node(a->body->nodes[i], b->body->nodes[i])) return false;
  }
  return true;
}

/* ---- gradients ---- */
static bool is_number(const mn_tensor *t, double *value) { /* which a body copies where it would capture another tensor */
  return mn_is(t->node, MN_IS_CONST) && t->shape.ndim == 0 && mn_is_full(t, value);
}

/* What a body captures of x, one after the other, if it captures of y as many in the same order; -1: it does not. */
static int captured_alike(mn_tensor *const *x, mn_tensor *const *y, int n, mn_tensor **captured) {
  int count = 0;
  for (int i = 0; i < n; i++) {
    double a = 0, b = 0;
    const bool number = is_number(x[i], &a);
    if (number != is_number(y[i], &b) || a != b) return -1;
    int j = 0, k = 0;
    while (x[j] != x[i]) j++;
    while (y[k] != y[i]) k++;
    if (j != k) return -1;
    if (j == i && !number) captured[count++] = x[i];
  }
  return count;
}

mn_node *mn_reversed_again(mn_graph *g, const mn_node *loop, int n, const bool *there, mn_tensor **in, int n_in) {
  const mn_scan_attr *a = loop->attr;
  const int first = a->n_carry + a->n_xs;
  for (const mn_reversed *r = g->reversed; r; r = r->before) {
    const mn_scan_attr *made = r->made->attr;
    if (r->n != n || memcmp(r->there, there, (size_t)n) != 0 || r->made->phase != g->phase || made->save_every ||
        !mn_loop_same(a, r->loop->attr))
      continue;
    if (captured_alike(loop->in + first, r->loop->in + first, a->n_const, in + n_in) == made->n_const) return mn_node_again(g, r->made, in);
  }
  return NULL;
}
