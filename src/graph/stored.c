/* stored.c - reading types of storage: shape rules, meaning, gradients. */
#include "graph/stored.h"

#include "graph/ops.h"

const mn_op mn_op_unpack = {.name = "unpack", .cls = MN_OP_CORE, .no_grad = true, .stored = 1};

/* ---- rows ---- */
static void rows_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  out[0] = mn_take(g, mn_cast(g, in[0], n->out[0]->dtype), in[1], 0);
}
const mn_op mn_op_stored_rows = {.name = "stored_rows", .cls = MN_OP_FUSED, .compose = rows_compose, .no_grad = true, .stored = 1};

mn_tensor *mn_stored_rows(mn_graph *g, mn_tensor *table, mn_tensor *index, mn_dtype type) {
  mn_tensor *in[2] = {table, index};
  if (!table || !index) return mn_node1(g, &mn_op_stored_rows, 2, in, MN_F32, (mn_shape){0}, NULL);
  mn_shape s = index->shape;
  if (!mn_dtype_is_stored(table->dtype) || table->shape.ndim != 2 || index->dtype != MN_I32 || s.ndim == MN_MAX_DIMS ||
      !mn_dtype_is_float(type)) {
    char a[96], b[96];
    mn_graph_fault(g, MN_ERR_SHAPE, "stored_rows: %s %s of %s %s in %s: it reads rows of a matrix in a type of storage by i32 indices",
                   mn_dtype_name(index->dtype), mn_shape_str(&s, a), mn_dtype_name(table->dtype), mn_shape_str(&table->shape, b),
                   mn_dtype_name(type));
    return NULL;
  }
  s.dim[s.ndim++] = table->shape.dim[1];
  return mn_node1(g, &mn_op_stored_rows, 2, in, type, s, NULL);
}

/* ---- product ---- */
static void product_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  const mn_dtype t = n->out[0]->dtype;
  mn_tensor **y = mn_arena_alloc(g->arena, (size_t)n->n_in * sizeof *y);
  if (!y) {
    mn_graph_fault(g, MN_ERR_MEMORY, "%s", mn_message());
    return;
  }
  for (int i = 1; i < n->n_in; i++) y[i - 1] = mn_matmul_as(g, in[0], mn_transpose(g, mn_cast(g, in[i], in[0]->dtype), 0, 1), t);
  out[0] = mn_concat(g, n->n_in - 1, y, 1);
}
static int64_t product_flops(const mn_node *n) { return 2 * mn_shape_count(&n->out[0]->shape) * mn_dim(n->in[0], -1); }
static mn_tensor *product_all(mn_graph *g, const mn_node *n, mn_tensor *const *in, int64_t length) { /* x [length,M,K] */
  const mn_shape *y = &n->out[0]->shape;
  mn_tensor *x = mn_reshape(g, in[0], MN_SHAPE(length * y->dim[0], mn_dim(n->in[0], 1)));
  const bool exact = ((const mn_stored_product_attr *)n->attr)->exact;
  return mn_reshape(g, mn_stored_product(g, x, n->n_in - 1, in + 1, exact, n->out[0]->dtype), MN_SHAPE(length, y->dim[0], y->dim[1]));
}
static const mn_over_steps product_steps = {.same = ~1u, .all = product_all, .product = true};
static bool product_slices(const mn_node *n, int axis, int *in_axis) {
  (void)n, (void)axis, (void)in_axis;
  return false; /* weights are better read once, for all rows */
}
const mn_op mn_op_stored_product = {.name = "stored_product",
                                    .traits = MN_IS_STORED_PRODUCT,
                                    .cls = MN_OP_FUSED,
                                    .attr_size = sizeof(mn_stored_product_attr),
                                    .compose = product_compose,
                                    .flops = product_flops,
                                    .steps = &product_steps,
                                    .slices = product_slices,
                                    .stored = ~1u};

mn_tensor *mn_stored_product(mn_graph *g, mn_tensor *x, int n, mn_tensor *const *w, bool exact, mn_dtype result) {
  mn_tensor *in[1 + MN_STORED_MOST] = {x};
  if (n < 1 || n > MN_STORED_MOST) {
    mn_graph_fault(g, MN_ERR_ARG, "stored_product: of %d matrices; it takes 1 to %d", n, MN_STORED_MOST);
    return NULL;
  }
  bool there = x != NULL;
  for (int i = 0; i < n; i++) there = (in[1 + i] = w[i]) != NULL && there;
  if (!there) return mn_node1(g, &mn_op_stored_product, 1 + n, in, MN_F32, (mn_shape){0}, NULL);
  int64_t columns = 0;
  bool fits = x->shape.ndim == 2 && mn_dtype_is_float(x->dtype) && mn_dtype_is_float(result);
  for (int i = 0; i < n; i++) {
    const mn_shape *s = &w[i]->shape;
    if (!fits || s->ndim != 2 || s->dim[1] != x->shape.dim[1] || !mn_dtype_is_stored(w[i]->dtype)) {
      char a[96], b[96];
      mn_graph_fault(g, MN_ERR_SHAPE, "stored_product: %s %s by %s %s, in %s: it takes real numbers [M,K] by [N,K] in a type of storage",
                     mn_dtype_name(x->dtype), mn_shape_str(&x->shape, a), mn_dtype_name(w[i]->dtype), mn_shape_str(s, b),
                     mn_dtype_name(result));
      return NULL;
    }
    columns += s->dim[0];
  }
  return mn_node1(g, &mn_op_stored_product, 1 + n, in, result, MN_SHAPE(x->shape.dim[0], columns), &(mn_stored_product_attr){exact});
}
