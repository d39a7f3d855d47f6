/* pass_simplify.c - common subexpressions, constants, algebra. Rebuilding drops what nothing needs. */
#include "compile/draft.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- common subexpressions: a hash table of the nodes rebuilt so far ---- */
typedef struct table {
  int *at;     /* node number + 1; 0: free */
  size_t size; /* power of two             */
} table;

static bool is_pure(const mn_op *op) { return !op->effect && op != &mn_op_input && op != &mn_op_variable && op != &mn_op_scan; }

static bool const_equal(const mn_node *a, const mn_node *b) {
  const mn_const_attr *x = a->attr, *y = b->attr;
  return x->is_full && y->is_full && memcmp(&x->value, &y->value, sizeof x->value) == 0;
}

static bool same_node(const mn_node *a, const mn_node *b) {
  if (a->op != b->op || a->n_in != b->n_in || a->n_out != b->n_out) return false;
  for (int i = 0; i < a->n_in; i++)
    if (a->in[i] != b->in[i]) return false;
  for (int j = 0; j < a->n_out; j++)
    if (a->out[j]->dtype != b->out[j]->dtype || !mn_shape_equal(&a->out[j]->shape, &b->out[j]->shape)) return false;
  if (a->op == &mn_op_const) return const_equal(a, b);
  return a->op->attr_size == 0 || memcmp(a->attr, b->attr, a->op->attr_size) == 0;
}

static uint64_t node_hash(const mn_node *n) {
  uint64_t h = mn_splitmix64((uint64_t)(uintptr_t)n->op);
  for (int i = 0; i < n->n_in; i++) h = mn_splitmix64(h ^ (uint64_t)(uintptr_t)n->in[i]);
  if (n->op == &mn_op_const) return mn_hash_bytes(&((mn_const_attr *)n->attr)->value, sizeof(double), h);
  for (int d = 0; d < n->out[0]->shape.ndim; d++) h = mn_splitmix64(h ^ (uint64_t)n->out[0]->shape.dim[d]);
  return n->op->attr_size ? mn_hash_bytes(n->attr, n->op->attr_size, h) : h; /* slices of one tensor differ in this alone */
}

/* The earlier node equal to n, or n itself, now remembered. A phase later than the twin's is its own: what the backward
 * pass makes again must not be tied back to the forward pass. */
static mn_node *unify(table *t, const mn_graph *g, mn_node *n) {
  if (!is_pure(n->op) || (n->op == &mn_op_const && !((mn_const_attr *)n->attr)->is_full)) return n;
  for (size_t i = node_hash(n) & (t->size - 1);; i = (i + 1) & (t->size - 1)) {
    if (!t->at[i]) {
      t->at[i] = n->id + 1;
      return n;
    }
    mn_node *known = g->nodes[t->at[i] - 1];
    if (same_node(known, n)) return known;
  }
}

/* ---- constants and algebra ---- */
static bool full_value(const mn_tensor *t, double *value) { /* a constant with one value, perhaps seen through views */
  const mn_node *n = t->node;
  while (n->op->cls == MN_OP_VIEW && n->op != &mn_op_stop_gradient) n = n->in[0]->node;
  if (n->op != &mn_op_const || !((const mn_const_attr *)n->attr)->is_full) return false;
  *value = ((const mn_const_attr *)n->attr)->value;
  return true;
}

static bool fold(mn_ew_code code, mn_dtype t, const double *x, double *y) {
  switch (code) {
  case MN_EW_NEG:
    *y = -x[0];
    break;
  case MN_EW_ABS:
    *y = fabs(x[0]);
    break;
  case MN_EW_SQRT:
    *y = sqrt(x[0]);
    break;
  case MN_EW_EXP:
    *y = exp(x[0]);
    break;
  case MN_EW_LOG:
    *y = log(x[0]);
    break;
  case MN_EW_ADD:
    *y = x[0] + x[1];
    break;
  case MN_EW_SUB:
    *y = x[0] - x[1];
    break;
  case MN_EW_MUL:
    *y = x[0] * x[1];
    break;
  case MN_EW_DIV:
    if (x[1] == 0 || !mn_dtype_is_float(t)) return false;
    *y = x[0] / x[1];
    break;
  case MN_EW_CAST:
    if (!mn_dtype_is_float(t)) return false;
    *y = x[0];
    break;
  default:
    return false;
  }
  if (t == MN_F32) *y = (double)(float)*y;
  return mn_dtype_is_float(t) ? isfinite(*y) && t != MN_BF16 : fabs(*y) < 2147483647.0 && t == MN_I32;
}

/* A simpler tensor for element-wise node n (already on rebuilt inputs), or NULL. */
static mn_tensor *simplify_elementwise(mn_graph *g, mn_node *n) {
  mn_tensor *y = n->out[0];
  double c[3], v;
  bool is_c[3] = {false};
  int constants = 0;
  for (int i = 0; i < n->n_in; i++) constants += is_c[i] = full_value(n->in[i], &c[i]);
  if (constants == n->n_in && fold((mn_ew_code)n->op->code, y->dtype, c, &v)) return mn_full(g, y->dtype, y->shape, v);
  switch (n->op->code) {
  case MN_EW_ADD:
    if (is_c[0] && c[0] == 0) return n->in[1];
    if (is_c[1] && c[1] == 0) return n->in[0];
    break;
  case MN_EW_SUB:
    if (is_c[1] && c[1] == 0) return n->in[0];
    break;
  case MN_EW_MUL:
    if (is_c[0] && c[0] == 1) return n->in[1];
    if (is_c[1] && c[1] == 1) return n->in[0];
    /* a gradient that is zero everywhere; 0 * inf is not an outcome we promise to keep */
    if ((is_c[0] && c[0] == 0) || (is_c[1] && c[1] == 0)) return mn_full(g, y->dtype, y->shape, 0);
    break;
  case MN_EW_DIV:
    if (is_c[1] && c[1] == 1) return n->in[0];
    break;
  case MN_EW_NEG:
    if (n->in[0]->node->op->code == MN_EW_NEG && n->in[0]->node->op->cls == MN_OP_ELEMENTWISE) return n->in[0]->node->in[0];
    break;
  case MN_EW_CAST: { /* widening and back is the identity */
    mn_node *p = n->in[0]->node;
    if (p->op == n->op && p->in[0]->dtype == y->dtype && mn_dtype_is_float(y->dtype) && mn_dtype_is_float(p->out[0]->dtype) &&
        mn_dtype_size(p->out[0]->dtype) >= mn_dtype_size(y->dtype))
      return p->in[0];
    break;
  }
  default:
    break;
  }
  return NULL;
}

/* A product whose last two axes are exchanged is the product of the exchanged operands, which costs nothing. */
static mn_tensor *simplify_transposed_product(mn_rebuild *r, const mn_node *old, mn_node *n) {
  mn_graph *g = r->now->g;
  mn_node *p = n->in[0]->node;
  if (n->op != &mn_op_permute || p->op != &mn_op_matmul || mn_uses(r, old->in[0]) != 1) return NULL;
  const mn_permute_attr *a = n->attr;
  const int d = n->out[0]->shape.ndim;
  for (int i = 0; i < d; i++)
    if (a->axes[i] != (i == d - 2 ? d - 1 : i == d - 1 ? d - 2 : i)) return NULL;
  mn_tensor *x = p->in[0], *y = p->in[1];
  const int m = x->shape.ndim, k = y->shape.ndim;
  return mn_matmul_as(g, mn_transpose(g, y, k - 2, k - 1), mn_transpose(g, x, m - 2, m - 1), n->out[0]->dtype);
}

static mn_tensor *simplify_view(mn_graph *g, mn_node *n) {
  mn_tensor *x = n->in[0], *y = n->out[0];
  mn_node *p = x->node;
  double v;
  if (mn_shape_equal(&x->shape, &y->shape) && (n->op == &mn_op_reshape || n->op == &mn_op_expand || n->op == &mn_op_slice ||
                                               n->op == &mn_op_stop_gradient || n->op == &mn_op_identity))
    return x;
  if (full_value(x, &v) && x->shape.ndim > 0) return mn_full(g, y->dtype, y->shape, v);
  if (n->op == &mn_op_reshape && p->op == &mn_op_reshape) return mn_reshape(g, p->in[0], y->shape);
  if (n->op == &mn_op_permute && p->op == &mn_op_permute) {
    const mn_permute_attr *a = n->attr, *b = p->attr;
    int axes[MN_MAX_DIMS];
    for (int i = 0; i < y->shape.ndim; i++) axes[i] = b->axes[a->axes[i]];
    return mn_permute(g, p->in[0], axes);
  }
  return NULL;
}

/* cast(matmul) with no other reader: the product itself gives the wanted type. And a gradient that was summed in f32 is
 * not rounded to the type of a rounded weight on its way to the weight. */
static mn_tensor *simplify_cast_of_product(mn_rebuild *r, const mn_node *old, mn_node *n) {
  mn_graph *g = r->now->g;
  mn_node *p = n->in[0]->node;
  if (n->op->cls != MN_OP_ELEMENTWISE || n->op->code != MN_EW_CAST || mn_uses(r, old->in[0]) != 1) return NULL;
  mn_dtype to = n->out[0]->dtype;
  if (p->op->code == MN_EW_CAST && p->op->cls == MN_OP_ELEMENTWISE && p->in[0]->node->op == &mn_op_linear_ce_grad && p->in[0]->dtype == to)
    return p->in[0];
  if (p->op != &mn_op_matmul) return NULL;
  mn_dtype in = p->in[0]->dtype;
  if (in != MN_BF16 || (to != MN_F32 && to != MN_BF16)) return NULL;
  return mn_matmul_as(g, p->in[0], p->in[1], to);
}

/* ---- the loss and its gradient need the same logits: once the gradient is there, it also gives the loss ---- */
static mn_node *loss_twin(const mn_draft *p, const mn_rebuild *r, const mn_node *loss) {
  for (int i = loss->id + 1; i < p->g->n_nodes; i++) {
    mn_node *n = p->g->nodes[i];
    if (n->op != &mn_op_linear_ce_grad || !r->needed[i]) continue;
    bool same = true;
    for (int k = 0; k < 4; k++) same &= n->in[k] == loss->in[k];
    if (same) return n;
  }
  return NULL;
}

/* Is t made of constants only? Then it can be built early. */
static bool of_constants(const mn_tensor *t, int depth) {
  const mn_node *n = t->node;
  if (n->op == &mn_op_const) return true;
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

static bool merge_loss(mn_rebuild *r, const mn_node *loss) {
  mn_node *twin = loss_twin(r->old, r, loss);
  if (!twin || !of_constants(twin->in[4], 8) || !of_constants(twin->in[5], 8)) return false;
  build_early(r, twin->in[4]);
  build_early(r, twin->in[5]);
  mn_node *made = mn_rebuild_copy(r, twin);
  if (!made) return false;
  made->phase = loss->phase;
  *mn_rebuilt(r, loss->out[0]) = made->out[2];
  *mn_rebuilt(r, loss->out[1]) = made->out[3];
  return true;
}

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
    bool leaf = n->op == &mn_op_input || n->op == &mn_op_variable;
    if (!r.needed[i] && !leaf) {
      changed = true;
      continue;
    }
    if (n->n_out && *mn_rebuilt(&r, n->out[0])) continue; /* built early */
    if (n->op == &mn_op_linear_ce && merge_loss(&r, n)) {
      changed = true;
      continue;
    }
    int before = now.g->n_nodes;
    mn_node *copy = mn_rebuild_copy(&r, n);
    if (!copy) break;
    mn_tensor *simple = NULL;
    now.g->phase = n->phase;
    now.g->block = n->block;
    if (n->op->cls == MN_OP_ELEMENTWISE && !n->op->effect) {
      simple = simplify_elementwise(now.g, copy);
      if (!simple) simple = simplify_cast_of_product(&r, n, copy);
    } else if (n->op->cls == MN_OP_VIEW) {
      simple = simplify_view(now.g, copy);
      if (!simple) simple = simplify_transposed_product(&r, n, copy);
    }
    now.g->phase = 0;
    now.g->block = -1;
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
