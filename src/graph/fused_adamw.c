/* fused_adamw.c - the AdamW step of one tensor. A gradient scale that is not a number says: no step, everything stays as it is. */
#include "graph/fused_adamw.h"
#include "graph/ops.h"

static void adamw_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  const mn_adamw_attr *a = n->attr;
  mn_tensor *p = in[0], *m = in[2], *v = in[3], *s[5];
  for (int i = 0; i < 5; i++) s[i] = mn_cast(g, mn_reshape(g, mn_slice(g, in[4], 0, i, 1), (mn_shape){0}), p->dtype);
  mn_tensor *grad = mn_mul(g, mn_cast(g, in[1], p->dtype), s[3]);
  m = mn_add(g, mn_mul_scalar(g, m, a->beta1), mn_mul_scalar(g, grad, 1 - a->beta1));
  v = mn_add(g, mn_mul_scalar(g, v, a->beta2), mn_mul_scalar(g, mn_square(g, grad), 1 - a->beta2));
  mn_tensor *update = mn_div(g, mn_div(g, m, s[1]), mn_add_scalar(g, mn_sqrt(g, mn_div(g, v, s[2])), a->eps));
  mn_tensor *moves = mn_eq(g, s[3], s[3]); /* not NaN */
  out[0] = mn_select(g, moves, mn_sub(g, p, mn_mul(g, s[0], mn_add(g, update, mn_mul(g, s[4], p)))), p);
  out[1] = mn_select(g, moves, m, in[2]);
  out[2] = mn_select(g, moves, v, in[3]);
}
static int adamw_inplace(const mn_node *n, int j) {
  (void)n;
  return j == 0 ? 0 : j + 1;
}
static int64_t adamw_flops(const mn_node *n) { return 14 * mn_shape_count(&n->in[0]->shape); }
const mn_op mn_op_adamw = {.name = "adamw",
                           .cls = MN_OP_FUSED,
                           .attr_size = sizeof(mn_adamw_attr),
                           .compose = adamw_compose,
                           .inplace = adamw_inplace,
                           .flops = adamw_flops};

void mn_adamw(mn_graph *g, mn_tensor *p, mn_tensor *grad, mn_tensor *m, mn_tensor *v, mn_tensor *scalars, mn_adamw_attr attr,
              mn_tensor **p1, mn_tensor **m1, mn_tensor **v1) {
  *p1 = *m1 = *v1 = NULL;
  if (!p || !grad || !m || !v || !scalars) return;
  if (!mn_shape_equal(&p->shape, &grad->shape) || !mn_shape_equal(&p->shape, &m->shape) || !mn_shape_equal(&p->shape, &v->shape) ||
      mn_shape_count(&scalars->shape) != 5) {
    mn_graph_fault(g, MN_ERR_SHAPE, "adamw: parameter, gradient and moments must have one shape; 5 scalars");
    return;
  }
  mn_node *n = mn_node_new(g, &mn_op_adamw, 5, (mn_tensor *[]){p, grad, m, v, scalars}, 3, (mn_dtype[]){p->dtype, m->dtype, v->dtype},
                           (mn_shape[]){p->shape, p->shape, p->shape}, &attr);
  if (!n) return;
  *p1 = n->out[0];
  *m1 = n->out[1];
  *v1 = n->out[2];
}
