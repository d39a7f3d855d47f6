/* fused_product.c - alpha a b + c: shape rule, meaning. Its gradient is that of the composition. */
#include "graph/fused_product.h"

#include "graph/ops.h"

static void product_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  const double alpha = ((const mn_scaled_product_attr *)n->attr)->alpha;
  mn_tensor *y = mn_matmul(g, in[0], in[1]);
  if (alpha != 1) y = mn_mul_scalar(g, y, alpha);
  out[0] = n->n_in == 3 ? mn_add(g, in[2], y) : y;
}
static int on_c(const mn_node *n, int j) { return j == 0 && n->n_in == 3 ? 2 : -1; }
static int64_t product_flops(const mn_node *n) { return 2 * mn_shape_count(&n->out[0]->shape) * mn_dim(n->in[0], -1); }
const mn_op mn_op_scaled_product = {.name = "scaled_product",
                                    .traits = MN_IS_PRODUCT | MN_IS_SCALED,
                                    .cls = MN_OP_FUSED,
                                    .attr_size = sizeof(mn_scaled_product_attr),
                                    .compose = product_compose,
                                    .inplace = on_c,
                                    .flops = product_flops,
                                    .slices = mn_product_slices};

mn_tensor *mn_scaled_product(mn_graph *g, double alpha, mn_tensor *a, mn_tensor *b, mn_tensor *c) {
  const mn_tensor *y = mn_matmul(g, a, b); /* its rule says what fits */
  if (!y) return NULL;
  if (c && (c->dtype != y->dtype || !mn_shape_equal(&c->shape, &y->shape))) {
    char x[96], z[96];
    mn_graph_fault(g, MN_ERR_SHAPE, "scaled_product: c is %s %s, the product %s %s", mn_dtype_name(c->dtype), mn_shape_str(&c->shape, x),
                   mn_dtype_name(y->dtype), mn_shape_str(&y->shape, z));
    return NULL;
  }
  return mn_node1(g, &mn_op_scaled_product, c ? 3 : 2, (mn_tensor *[]){a, b, c}, y->dtype, y->shape, &(mn_scaled_product_attr){alpha});
}
