/* fused_masked_product.c - ((x y^T) * p) z, attention without softmax: shape rule, meaning, gradient. */
#include "graph/fused_masked_product.h"
#include "graph/ops.h"

static void masked_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  (void)n;
  mn_tensor *a = mn_mul(g, mn_matmul(g, in[0], mn_transpose(g, in[1], -1, -2)), in[2]);
  out[0] = mn_matmul(g, a, in[3]);
}
static void masked_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  mn_tensor *x = n->in[0], *y = n->in[1], *p = n->in[2], *z = n->in[3], *d = dout[0];
  mn_tensor *pt = mn_transpose(g, p, -1, -2);
  if (need[0]) din[0] = mn_masked_product(g, d, z, p, y);
  if (need[1]) din[1] = mn_masked_product(g, z, d, pt, x);
  if (need[2]) din[2] = mn_mul(g, mn_matmul(g, d, mn_transpose(g, z, -1, -2)), mn_matmul(g, x, mn_transpose(g, y, -1, -2)));
  if (need[3]) din[3] = mn_masked_product(g, y, x, pt, d);
}
static int64_t masked_flops(const mn_node *n) {
  return 2 * mn_shape_count(&n->in[2]->shape) * (mn_dim(n->in[0], -1) + mn_dim(n->in[3], -1));
}
const mn_op mn_op_masked_product = {.name = "masked_product",
                                    .cls = MN_OP_FUSED,
                                    .grad = masked_grad,
                                    .compose = masked_compose,
                                    .flops = masked_flops,
                                    .slices = mn_product_slices};

mn_tensor *mn_masked_product(mn_graph *g, mn_tensor *x, mn_tensor *y, mn_tensor *p, mn_tensor *z) {
  mn_tensor *in[4] = {x, y, p, z};
  if (!x || !y || !p || !z) return NULL;
  int nd = x->shape.ndim;
  bool ok = nd >= 2 && y->shape.ndim == nd && p->shape.ndim == nd && z->shape.ndim == nd && x->dtype == y->dtype && x->dtype == p->dtype &&
            x->dtype == z->dtype && mn_dim(x, -1) == mn_dim(y, -1) && mn_dim(p, -2) == mn_dim(x, -2) && mn_dim(p, -1) == mn_dim(y, -2) &&
            mn_dim(z, -2) == mn_dim(y, -2);
  for (int i = 0; ok && i < nd - 2; i++)
    ok = x->shape.dim[i] == y->shape.dim[i] && x->shape.dim[i] == p->shape.dim[i] && x->shape.dim[i] == z->shape.dim[i];
  if (!ok) {
    char a[96], b[96], c[96], d[96];
    mn_graph_fault(g, MN_ERR_SHAPE, "masked_product: x %s, y %s, p %s, z %s do not fit", mn_shape_str(&x->shape, a),
                   mn_shape_str(&y->shape, b), mn_shape_str(&p->shape, c), mn_shape_str(&z->shape, d));
    return NULL;
  }
  mn_shape s = x->shape;
  s.dim[nd - 1] = mn_dim(z, -1);
  return mn_node1(g, &mn_op_masked_product, 4, in, x->dtype, s, NULL);
}
