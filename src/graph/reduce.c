/* reduce.c - sums, maxima, running sums and the matrix product. */
#include "graph/ops.h"

static mn_shape reduced(const mn_shape *s, unsigned axes) {
  mn_shape out = *s;
  for (int i = 0; i < s->ndim; i++)
    if (axes >> i & 1) out.dim[i] = 1;
  return out;
}

static int64_t reduce_flops(const mn_node *n) { return mn_shape_count(&n->in[0]->shape); }

static void sum_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)need;
  din[0] = mn_expand(g, dout[0], n->in[0]->shape);
}
static mn_tensor *sum_total(mn_graph *g, const mn_node *n, mn_tensor *const *in, mn_dtype type) {
  mn_tensor *x = in[0];
  if (x && mn_dtype_size(x->dtype) < mn_dtype_size(type)) x = mn_cast(g, x, type);
  return mn_reshape(g, mn_sum(g, x, ((const mn_reduce_attr *)n->attr)->axes << 1 | 1u), n->out[0]->shape);
}
static int64_t sum_depth(const mn_node *n) {
  (void)n;
  return 1; /* its operands of all steps cost what those of each do */
}
static bool reduce_slices(const mn_node *n, int axis, int *in_axis) {
  in_axis[0] = axis;
  return !(((const mn_reduce_attr *)n->attr)->axes >> axis & 1);
}
static const mn_over_steps sum_steps = {.total = sum_total, .depth = sum_depth};
const mn_op mn_op_sum = {.name = "sum",
                         .cls = MN_OP_CORE,
                         .attr_size = sizeof(mn_reduce_attr),
                         .code = MN_REDUCE_SUM,
                         .grad = sum_grad,
                         .flops = reduce_flops,
                         .steps = &sum_steps,
                         .slices = reduce_slices};

static void max_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  /* shared equally by the elements that attain the maximum */
  (void)need;
  mn_tensor *x = n->in[0];
  unsigned axes = ((mn_reduce_attr *)n->attr)->axes;
  mn_tensor *hit = mn_cast(g, mn_eq(g, x, n->out[0]), x->dtype);
  din[0] = mn_mul(g, hit, mn_div(g, dout[0], mn_sum(g, hit, axes)));
}
const mn_op mn_op_max = {.name = "max",
                         .cls = MN_OP_CORE,
                         .attr_size = sizeof(mn_reduce_attr),
                         .code = MN_REDUCE_MAX,
                         .grad = max_grad,
                         .flops = reduce_flops,
                         .slices = reduce_slices};

static mn_tensor *reduce(mn_graph *g, const mn_op *op, mn_tensor *x, unsigned axes) {
  if (!x) return NULL;
  unsigned live = 0;
  for (int i = 0; i < x->shape.ndim; i++)
    if (axes >> i & 1 && x->shape.dim[i] != 1) live |= 1u << i;
  if (!live) return x;
  return mn_node1(g, op, 1, &x, x->dtype, reduced(&x->shape, axes), &(mn_reduce_attr){axes});
}

mn_tensor *mn_sum(mn_graph *g, mn_tensor *x, unsigned axes) { return reduce(g, &mn_op_sum, x, axes); }
mn_tensor *mn_max(mn_graph *g, mn_tensor *x, unsigned axes) { return reduce(g, &mn_op_max, x, axes); }

mn_tensor *mn_mean(mn_graph *g, mn_tensor *x, unsigned axes) {
  if (!x) return NULL;
  double n = 1;
  for (int i = 0; i < x->shape.ndim; i++)
    if (axes >> i & 1) n *= (double)x->shape.dim[i];
  return mn_mul_scalar(g, mn_sum(g, x, axes), 1 / n);
}

mn_tensor *mn_sum_to(mn_graph *g, mn_tensor *x, mn_shape s) {
  if (!x || mn_shape_equal(&x->shape, &s)) return x;
  unsigned axes = 0;
  for (int o = x->shape.ndim - 1, i = s.ndim - 1; o >= 0; o--, i--)
    if (i < 0 || s.dim[i] != x->shape.dim[o]) axes |= 1u << o;
  return mn_reshape(g, mn_sum(g, x, axes), s);
}

const mn_op mn_op_argmax = {.name = "argmax", .cls = MN_OP_CORE, .no_grad = true, .flops = reduce_flops};
mn_tensor *mn_argmax(mn_graph *g, mn_tensor *x) {
  mn_shape s = x ? x->shape : (mn_shape){0};
  if (x && s.ndim == 0) {
    mn_graph_fault(g, MN_ERR_SHAPE, "argmax: needs an axis");
    return NULL;
  }
  if (x) s.ndim--;
  return mn_node1(g, &mn_op_argmax, 1, &x, MN_I32, s, NULL);
}

static void cumsum_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)need;
  const mn_cumsum_attr *a = n->attr;
  din[0] = mn_cumsum(g, dout[0], a->axis, a->reverse ? MN_FORWARD : MN_BACKWARD);
}
static bool cumsum_slices(const mn_node *n, int axis, int *in_axis) {
  in_axis[0] = axis;
  return ((const mn_cumsum_attr *)n->attr)->axis != axis;
}
const mn_op mn_op_cumsum = {
    .name = "cumsum", .cls = MN_OP_CORE, .attr_size = sizeof(mn_cumsum_attr), .grad = cumsum_grad, .slices = cumsum_slices};
mn_tensor *mn_cumsum(mn_graph *g, mn_tensor *x, int axis, mn_direction direction) {
  if (!x) return NULL;
  if (axis < 0) axis += x->shape.ndim;
  if (axis < 0 || axis >= x->shape.ndim) {
    mn_graph_fault(g, MN_ERR_SHAPE, "cumsum: no axis %d", axis);
    return NULL;
  }
  return mn_node1(g, &mn_op_cumsum, 1, &x, x->dtype, x->shape, &(mn_cumsum_attr){.axis = axis, .reverse = direction == MN_BACKWARD});
}

static void sumsq_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)need;
  mn_tensor *x = n->in[0], *d = mn_cast(g, mn_mul_scalar(g, dout[0], 2), x->dtype);
  din[0] = mn_mul(g, x, d);
}
static void sumsq_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  mn_tensor *x = mn_cast(g, in[0], n->out[0]->dtype);
  out[0] = mn_reshape(g, mn_sum(g, mn_square(g, x), MN_ALL_AXES), (mn_shape){0});
}
const mn_op mn_op_sumsq = {.name = "sumsq", .cls = MN_OP_FUSED, .grad = sumsq_grad, .compose = sumsq_compose, .flops = reduce_flops};
mn_tensor *mn_sumsq(mn_graph *g, mn_tensor *x) {
  mn_dtype t = x && x->dtype == MN_F64 ? MN_F64 : MN_F32;
  return mn_node1(g, &mn_op_sumsq, 1, &x, t, (mn_shape){0}, NULL);
}

/* ---- matrix product ---- */
static int64_t matmul_flops(const mn_node *n) { return 2 * mn_shape_count(&n->out[0]->shape) * mn_dim(n->in[0], -1); }

/* Products of a batch are apart where each has operands of its own: one matrix for all is better read once. */
bool mn_product_slices(const mn_node *n, int axis, int *in_axis) {
  const mn_shape *y = &n->out[0]->shape;
  if (axis >= y->ndim - 2) return false;
  for (int i = 0; i < n->n_in; i++) {
    in_axis[i] = axis - (y->ndim - n->in[i]->shape.ndim);
    if (in_axis[i] < 0 || n->in[i]->shape.dim[in_axis[i]] != y->dim[axis]) return false;
  }
  return true;
}

/* The gradient of a batch-broadcast operand sums over the batch. */
static void matmul_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  mn_tensor *a = n->in[0], *b = n->in[1], *d = mn_cast(g, dout[0], a->dtype);
  if (need[0]) din[0] = mn_matmul_as(g, d, mn_transpose(g, b, -1, -2), a->dtype);
  if (need[1]) din[1] = mn_matmul_as(g, mn_transpose(g, a, -1, -2), d, b->dtype);
}
static mn_tensor *matmul_all(mn_graph *g, const mn_node *n, mn_tensor *const *in, int64_t length) {
  (void)length;
  return mn_matmul_as(g, in[0], in[1], n->out[0]->dtype);
}
/* sum over t of a_t [M,K] d_t [K,N] is one product, over the steps and K. */
static mn_tensor *matmul_total(mn_graph *g, const mn_node *n, mn_tensor *const *in, mn_dtype type) {
  if (!in[0] || !in[1]) return NULL;
  const mn_shape *a = &in[0]->shape, *d = &in[1]->shape; /* [length,M,K], [length,K,N] */
  const int64_t depth = a->dim[0] * a->dim[2];
  mn_tensor *rows = mn_reshape(g, mn_permute(g, in[0], (int[]){0, 2, 1}), MN_SHAPE(depth, a->dim[1]));
  const mn_dtype from = n->in[0]->dtype;
  return mn_matmul_as(g, mn_transpose(g, rows, 0, 1), mn_reshape(g, in[1], MN_SHAPE(depth, d->dim[2])),
                      from == MN_BF16 && type == MN_F32 ? MN_F32 : from);
}
static int64_t matmul_depth(const mn_node *n) { return n->out[0]->shape.ndim == 2 ? n->in[0]->shape.dim[1] : 0; }
static const mn_over_steps matmul_steps = {.same = 2, .all = matmul_all, .product = true, .total = matmul_total, .depth = matmul_depth};
const mn_op mn_op_matmul = {.name = "matmul",
                            .traits = MN_IS_PRODUCT,
                            .cls = MN_OP_CORE,
                            .grad = matmul_grad,
                            .flops = matmul_flops,
                            .steps = &matmul_steps,
                            .slices = mn_product_slices};

mn_tensor *mn_matmul_as(mn_graph *g, mn_tensor *a, mn_tensor *b, mn_dtype out) {
  mn_tensor *in[2] = {a, b};
  if (!a || !b) return mn_node1(g, &mn_op_matmul, 2, in, MN_F32, (mn_shape){0}, NULL);
  const mn_shape *sa = &a->shape, *sb = &b->shape;
  char x[96], y[96];
  if (a->dtype != b->dtype || !mn_dtype_is_float(a->dtype) || sa->ndim < 2 || sb->ndim < 2 ||
      sa->dim[sa->ndim - 1] != sb->dim[sb->ndim - 2]) {
    mn_graph_fault(g, MN_ERR_SHAPE, "matmul: %s %s x %s %s does not fit", mn_dtype_name(a->dtype), mn_shape_str(sa, x),
                   mn_dtype_name(b->dtype), mn_shape_str(sb, y));
    return NULL;
  }
  mn_shape s = {.ndim = sa->ndim > sb->ndim ? sa->ndim : sb->ndim}, ea, eb;
  for (int i = 0; i < s.ndim - 2; i++) {
    int ia = i - (s.ndim - sa->ndim), ib = i - (s.ndim - sb->ndim);
    int64_t da = ia >= 0 ? sa->dim[ia] : 1, db = ib >= 0 ? sb->dim[ib] : 1;
    if (da != db && da != 1 && db != 1) {
      mn_graph_fault(g, MN_ERR_SHAPE, "matmul: the batches of %s and %s do not broadcast", mn_shape_str(sa, x), mn_shape_str(sb, y));
      return NULL;
    }
    s.dim[i] = da == 1 ? db : da;
  }
  ea = eb = s;
  for (int i = 0; i < 2; i++) {
    ea.dim[s.ndim - 2 + i] = sa->dim[sa->ndim - 2 + i];
    eb.dim[s.ndim - 2 + i] = sb->dim[sb->ndim - 2 + i];
  }
  s.dim[s.ndim - 2] = sa->dim[sa->ndim - 2];
  s.dim[s.ndim - 1] = sb->dim[sb->ndim - 1];
  in[0] = mn_expand(g, a, ea);
  in[1] = mn_expand(g, b, eb);
  return mn_node1(g, &mn_op_matmul, 2, in, out, s, NULL);
}

mn_tensor *mn_matmul(mn_graph *g, mn_tensor *a, mn_tensor *b) { return mn_matmul_as(g, a, b, a ? a->dtype : MN_F32); }
