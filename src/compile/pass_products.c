/* pass_products.c - products take over what follows them. In f32
 *   - a product that is only multiplied by a number has that factor, and so has one whose operand was;
 *   - a product that is only added to a tensor of its shape, or subtracted from one, is summed up where that tensor lies.
 * Each spares a pass over the result. But for a x x^T, half of which is a mirror of the other half to a kernel that gives nothing but it. A sum stays
 * with its neighbours where they are element-wise on both sides: what comes before and what comes after it are one pass then, and would be two. */
#include "compile/draft.h"
#include "graph/fused_product.h"

#include <stdlib.h>

typedef struct products {
  mn_rebuild r;
  mn_backend *backend;
  bool *by_products; /* per node: read by products alone, perhaps through views       */
  bool *by_ew;       /* per node: read by an element-wise node, perhaps through views */
} products;

static bool is_ew(const mn_node *n, mn_ew_code code) { return n->op->cls == MN_OP_ELEMENTWISE && n->op->code == (int)code; }
static bool is_f32(const mn_tensor *t) { return t->dtype == MN_F32; }
static bool is_product(const mn_node *n) { return mn_is(n, MN_IS_PRODUCT) && is_f32(n->in[0]) && is_f32(n->out[0]); }
static bool is_renaming(const mn_node *n) { return mn_is(n, MN_RESHAPES | MN_PERMUTES); }

/* The factor of x * number, and x. */
static const mn_tensor *unscaled(const mn_tensor *t, double *factor) {
  const mn_node *n = t->node;
  if (!is_ew(n, MN_EW_MUL) || !is_f32(t)) return NULL;
  for (int k = 0; k < 2; k++)
    if (mn_is_full(n->in[k], factor) && mn_shape_equal(&n->in[1 - k]->shape, &t->shape)) return n->in[1 - k];
  return NULL;
}

/* ---- who reads what ---- */
static void look_back(products *p) {
  const mn_graph *g = p->r.old->g;
  for (int i = 0; i < g->n_nodes; i++) p->by_products[i] = true;
  for (int k = 0; k < p->r.old->n_roots; k++) p->by_products[p->r.old->roots[k]->node->id] = false;
  for (int i = g->n_nodes - 1; i >= 0; i--) {
    const mn_node *n = g->nodes[i];
    if (!p->r.needed[i]) continue;
    const bool multiplies = is_product(n) || (is_renaming(n) && p->by_products[i]);
    const bool ew = n->op->cls == MN_OP_ELEMENTWISE || (n->op->cls == MN_OP_VIEW && p->by_ew[i]);
    for (int k = 0; k < n->n_in; k++) {
      p->by_products[n->in[k]->node->id] &= multiplies;
      p->by_ew[n->in[k]->node->id] |= ew;
    }
  }
}

/* ---- taking over ---- */
typedef struct product { /* alpha a b, in the new graph */
  double alpha;
  mn_tensor *a, *b;
} product;
static bool product_at(const mn_tensor *now, product *x) {
  const mn_node *n = now->node;
  if (!is_product(n) || n->n_in != 2) return false;
  *x = (product){mn_is(n, MN_IS_SCALED) ? ((const mn_scaled_product_attr *)n->attr)->alpha : 1, n->in[0], n->in[1]};
  return true;
}

/* The result where the backend has a kernel for it, else NULL. */
static mn_tensor *made(products *p, const product *x, mn_tensor *c) {
  mn_tensor *y = mn_scaled_product(p->r.now->g, x->alpha, x->a, x->b, c);
  if (!y || !mn_backend_find(p->backend, y->node, NULL)) return NULL;
  return y;
}

/* A view as it was, of another tensor. */
static mn_tensor *renamed(products *p, const mn_node *view, mn_tensor *x) {
  return x ? mn_node1(p->r.now->g, view->op, 1, &x, view->out[0]->dtype, view->out[0]->shape, view->attr) : NULL;
}

/* An operand that is x times a number for products alone: x, seen through the same views. */
static mn_tensor *operand_without(products *p, const mn_tensor *t, double *factor) {
  if (!p->by_products[t->node->id]) return NULL;
  const mn_tensor *x = unscaled(t, factor);
  if (x) return *mn_rebuilt(&p->r, x);
  return is_renaming(t->node) ? renamed(p, t->node, operand_without(p, t->node->in[0], factor)) : NULL;
}
static mn_tensor *with_factors(products *p, const mn_node *n) {
  product x;
  double factor, alpha = 1;
  mn_tensor *side[2];
  for (int k = 0; k < 2; k++) {
    side[k] = operand_without(p, n->in[k], &factor);
    if (side[k]) alpha *= factor;
    else side[k] = *mn_rebuilt(&p->r, n->in[k]);
  }
  x = (product){alpha, side[0], side[1]};
  return alpha != 1 ? made(p, &x, NULL) : NULL;
}

/* t is `factor` times a product that nobody else reads, perhaps renamed. */
static mn_tensor *times(products *p, const mn_tensor *t, double factor, int phase) {
  product x;
  if (mn_uses(&p->r, t) != 1 || t->node->phase != phase) return NULL;
  if (is_renaming(t->node)) return renamed(p, t->node, times(p, t->node->in[0], factor, phase));
  if (!is_product(t->node) || !product_at(*mn_rebuilt(&p->r, t), &x)) return NULL;
  x.alpha *= factor;
  return made(p, &x, NULL);
}

/* x and its transpose? */
static bool is_square_of(const mn_tensor *x, const mn_tensor *y) {
  const int d = mn_ndim(x);
  const bool turned = mn_is(y->node, MN_PERMUTES), other = mn_is(x->node, MN_PERMUTES);
  if (!turned && other) return is_square_of(y, x);
  if (!turned || y->node->in[0] != x) return false;
  for (int i = 0; i < d; i++)
    if (((const mn_permute_attr *)y->node->attr)->axes[i] != (i < d - 2 ? i : 2 * d - 3 - i)) return false;
  return true;
}

/* c + sign y for a product y that nobody else reads; c dies here. */
static mn_tensor *summed(products *p, const mn_node *n, const mn_tensor *c, const mn_tensor *y, double sign) {
  product x;
  mn_tensor *there = *mn_rebuilt(&p->r, c);
  while (mn_is(y->node, MN_RESHAPES) && mn_uses(&p->r, y) == 1) y = y->node->in[0];
  const mn_node *made_by = there->node;
  while (made_by->op->cls == MN_OP_VIEW) made_by = made_by->in[0]->node;
  if (mn_uses(&p->r, y) != 1 || y->node->phase != n->phase || mn_uses(&p->r, c) != 1 || !mn_shape_equal(&c->shape, &n->out[0]->shape) ||
      made_by->op->cls == MN_OP_LEAF || (made_by->op->cls == MN_OP_ELEMENTWISE && p->by_ew[n->id]) ||
      !product_at(*mn_rebuilt(&p->r, y), &x) || is_square_of(x.a, x.b) || mn_shape_count(&y->shape) != mn_shape_count(&c->shape))
    return NULL;
  x.alpha *= sign;
  mn_tensor *sum = made(p, &x, mn_reshape(p->r.now->g, there, y->shape));
  return sum ? mn_reshape(p->r.now->g, sum, n->out[0]->shape) : NULL;
}

static mn_tensor *better(products *p, const mn_node *n) {
  double factor;
  if (!mn_is(n, MN_IS_SCALED) && is_product(n)) return with_factors(p, n);
  if (n->op->cls != MN_OP_ELEMENTWISE || !is_f32(n->out[0])) return NULL;
  const mn_tensor *x = unscaled(n->out[0], &factor);
  if (x) return times(p, x, factor, n->phase);
  if (is_ew(n, MN_EW_SUB)) return summed(p, n, n->in[0], n->in[1], -1);
  if (!is_ew(n, MN_EW_ADD)) return NULL;
  mn_tensor *y = summed(p, n, n->in[0], n->in[1], 1);
  return y ? y : summed(p, n, n->in[1], n->in[0], 1);
}

mn_status mn_pass_products(mn_backend *backend, mn_arena *arena, mn_draft *draft) {
  products p = {.backend = backend};
  mn_draft now;
  const int n = draft->g->n_nodes;
  mn_status status = mn_rebuild_begin(&p.r, draft, &now, arena);
  p.by_products = mn_calloc((size_t)n + 1, sizeof *p.by_products);
  p.by_ew = mn_calloc((size_t)n + 1, sizeof *p.by_ew);
  if (!p.by_products || !p.by_ew) status = MN_ERR_MEMORY;
  if (status == MN_OK) look_back(&p);
  for (int i = 0; i < n && status == MN_OK && now.g->status == MN_OK; i++) {
    const mn_node *node = draft->g->nodes[i];
    if (!p.r.needed[i] && !node->op->bound) continue;
    now.g->phase = node->phase;
    mn_tensor *y = better(&p, node);
    now.g->phase = 0;
    if (y) {
      *mn_rebuilt(&p.r, node->out[0]) = y;
      if (!y->name) y->name = node->out[0]->name;
    } else mn_rebuild_copy(&p.r, node);
  }
  status = mn_rebuild_end(&p.r, status);
  free(p.by_products);
  free(p.by_ew);
  if (status == MN_OK) *draft = now;
  return status;
}
