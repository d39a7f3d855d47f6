/* fused_experts.c - gated networks, of which each row goes through a few: shape rule, meaning. */
#include "graph/compose.h"
#include "graph/fused_experts.h"
#include "graph/ops.h"

/* All experts side by side are one wide network, whose hidden units are weighed by who was chosen. */
static void experts_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  mn_tensor *x = in[0], *index = in[4], *weight = in[5];
  const int64_t N = mn_dim(x, 0), D = mn_dim(x, 1), E = mn_dim(in[1], 0), F = mn_dim(in[1], 1);
  const mn_dtype t = mn_inner_type(x->dtype);
  mn_tensor *m[3]; /* gate, up, down */
  for (int i = 0; i < 3; i++) m[i] = mn_cast(g, in[1 + i], x->dtype);
  mn_tensor *gate = mn_matmul_as(g, x, mn_transpose(g, mn_reshape(g, m[0], MN_SHAPE(E * F, D)), 0, 1), t);
  mn_tensor *up = mn_matmul_as(g, x, mn_transpose(g, mn_reshape(g, m[1], MN_SHAPE(E * F, D)), 0, 1), t);
  mn_tensor *share = mn_put(g, mn_full(g, weight->dtype, MN_SHAPE(N, E), 0), index, weight, 1, MN_PUT_ADD); /* [N,E] */
  mn_tensor *h = mn_reshape(g, mn_mul(g, mn_silu(g, gate), up), MN_SHAPE(N, E, F));
  h = mn_cast(g, mn_mul(g, h, mn_unsqueeze(g, mn_cast(g, share, t), 2)), x->dtype);
  mn_tensor *down = mn_reshape(g, mn_transpose(g, m[2], 1, 2), MN_SHAPE(E * F, D));
  out[0] = mn_matmul_as(g, mn_reshape(g, h, MN_SHAPE(N, E * F)), down, n->out[0]->dtype);
}
static int64_t experts_flops(const mn_node *n) { return 6 * mn_shape_count(&n->in[4]->shape) * mn_dim(n->in[1], 1) * mn_dim(n->in[1], 2); }
const mn_op mn_op_experts = {.name = "experts",
                             .cls = MN_OP_FUSED,
                             .attr_size = sizeof(mn_experts_attr),
                             .compose = experts_compose,
                             .flops = experts_flops,
                             .stored = 1u << 1 | 1u << 2 | 1u << 3};

static bool fits(const mn_tensor *x, const mn_tensor *matrix) { return matrix->dtype == x->dtype || mn_dtype_is_stored(matrix->dtype); }

mn_tensor *mn_experts(mn_graph *g, mn_tensor *x, mn_tensor *gate, mn_tensor *up, mn_tensor *down, mn_tensor *index, mn_tensor *weight,
                      bool exact) {
  if (!x || !gate || !up || !down || !index || !weight) return NULL;
  const bool ok = x->shape.ndim == 2 && gate->shape.ndim == 3 && mn_dim(gate, 2) == mn_dim(x, 1) &&
                  mn_shape_equal(&gate->shape, &up->shape) && down->shape.ndim == 3 && mn_dim(down, 0) == mn_dim(gate, 0) &&
                  mn_dim(down, 1) == mn_dim(x, 1) && mn_dim(down, 2) == mn_dim(gate, 1) && index->shape.ndim == 2 &&
                  mn_dim(index, 0) == mn_dim(x, 0) && mn_shape_equal(&index->shape, &weight->shape) && index->dtype == MN_I32 &&
                  mn_dtype_is_float(x->dtype) && fits(x, gate) && fits(x, up) && fits(x, down) && weight->dtype == mn_inner_type(x->dtype);
  if (!ok) {
    char a[96], b[96], c[96], d[96];
    mn_graph_fault(
        g, MN_ERR_SHAPE,
        "experts: x %s, gate %s, down %s, index %s do not fit ([N,D], gate and up [E,F,D], down [E,D,F] of its type or one of storage, index i32 and "
        "weight [N,k])",
        mn_shape_str(&x->shape, a), mn_shape_str(&gate->shape, b), mn_shape_str(&down->shape, c), mn_shape_str(&index->shape, d));
    return NULL;
  }
  return mn_node1(g, &mn_op_experts, 6, (mn_tensor *[]){x, gate, up, down, index, weight}, x->dtype, x->shape, &(mn_experts_attr){exact});
}
