/* views.c - operations that rename elements without moving them. Each states how its output lies in its input's memory;
 * where the layout does not allow it (a reshape of a transposed tensor) the compiler puts a copy in front. */
#include "graph/ops.h"

/* ---- something simpler of the same value ---- */
/* A product whose last two axes are exchanged is the product of the exchanged operands, which costs nothing. */
static mn_tensor *simplify_transposed_product(const mn_simplifying *s, mn_node *n) {
  mn_graph *g = s->g;
  mn_node *p = n->in[0]->node;
  if (n->op != &mn_op_permute || p->op != &mn_op_matmul || !s->only_reader[0]) return NULL;
  const mn_permute_attr *a = n->attr;
  const int d = n->out[0]->shape.ndim;
  for (int i = 0; i < d; i++)
    if (a->axes[i] != (i == d - 2 ? d - 1 : i == d - 1 ? d - 2 : i)) return NULL;
  mn_tensor *x = p->in[0], *y = p->in[1];
  const int m = x->shape.ndim, k = y->shape.ndim;
  return mn_matmul_as(g, mn_transpose(g, y, k - 2, k - 1), mn_transpose(g, x, m - 2, m - 1), n->out[0]->dtype);
}

static mn_tensor *view_simplify(const mn_simplifying *s, mn_node *n) {
  mn_graph *g = s->g;
  mn_tensor *x = n->in[0], *y = n->out[0];
  mn_node *p = x->node;
  double v;
  if (mn_shape_equal(&x->shape, &y->shape) && (n->op == &mn_op_reshape || n->op == &mn_op_expand || n->op == &mn_op_slice ||
                                               n->op == &mn_op_stop_gradient || n->op == &mn_op_identity))
    return x;
  if (mn_is_full(x, &v) && x->shape.ndim > 0) return mn_full(g, y->dtype, y->shape, v);
  if (n->op == &mn_op_reshape && p->op == &mn_op_reshape) return mn_reshape(g, p->in[0], y->shape);
  if (n->op == &mn_op_permute && p->op == &mn_op_permute) {
    const mn_permute_attr *a = n->attr, *b = p->attr;
    int axes[MN_MAX_DIMS];
    for (int i = 0; i < y->shape.ndim; i++) axes[i] = b->axes[a->axes[i]];
    return mn_permute(g, p->in[0], axes);
  }
  return simplify_transposed_product(s, n);
}

/* ---- reshape ---- */
static bool reshape_view(const mn_node *n, const mn_layout *in, mn_layout *out) {
  /* Group the input's axes into runs that are dense relative to each other; each output axis must fall inside a run. */
  const mn_shape *si = &n->in[0]->shape, *so = &n->out[0]->shape;
  int64_t size[MN_MAX_DIMS], stride[MN_MAX_DIMS];
  int ni = 0;
  for (int i = 0; i < so->ndim; i++) out->stride[i] = 0;
  if (mn_shape_count(so) == 0) return out->offset = in->offset, true; /* nothing lies anywhere */
  for (int i = 0; i < si->ndim; i++)
    if (si->dim[i] != 1) size[ni] = si->dim[i], stride[ni++] = in->stride[i];
  out->offset = in->offset;
  int i = 0;
  for (int o = 0; o < so->ndim;) {
    if (so->dim[o] == 1) {
      out->stride[o++] = 0;
      continue;
    }
    if (i == ni) return false;
    int first_o = o, first_i = i;
    int64_t po = so->dim[o++], pi = size[i++];
    while (po != pi) {
      if (po < pi) {
        if (o == so->ndim) return false;
        po *= so->dim[o++];
      } else {
        if (i == ni) return false;
        pi *= size[i++];
      }
    }
    for (int j = first_i; j + 1 < i; j++)
      if (stride[j] != size[j + 1] * stride[j + 1]) return false;
    int64_t step = stride[i - 1];
    for (int j = o - 1; j >= first_o; j--) {
      out->stride[j] = step;
      step *= so->dim[j];
    }
  }
  return true;
}
static void reshape_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)need;
  din[0] = mn_reshape(g, dout[0], n->in[0]->shape);
}
static mn_shape stack_of(const mn_node *n, int64_t length) {
  const mn_shape *s = &n->out[0]->shape;
  mn_shape all = {.ndim = s->ndim + 1, .dim = {length}};
  for (int i = 0; i < s->ndim; i++) all.dim[i + 1] = s->dim[i];
  return all;
}
static mn_tensor *reshape_all(mn_graph *g, const mn_node *n, mn_tensor *const *in, int64_t length) {
  return mn_reshape(g, in[0], stack_of(n, length));
}
static mn_tensor *reshape_of(mn_graph *g, const mn_node *n, mn_tensor *x) { return mn_reshape(g, x, n->out[0]->shape); }
static const mn_over_steps reshape_steps = {.all = reshape_all, .of = reshape_of};
const mn_op mn_op_reshape = {.name = "reshape",
                             .traits = MN_RESHAPES,
                             .cls = MN_OP_VIEW,
                             .grad = reshape_grad,
                             .view = reshape_view,
                             .simplify = view_simplify,
                             .steps = &reshape_steps};

mn_tensor *mn_reshape(mn_graph *g, mn_tensor *x, mn_shape s) {
  if (!x) return mn_node1(g, &mn_op_reshape, 1, &x, MN_F32, s, NULL);
  if (mn_shape_equal(&x->shape, &s)) return x;
  if (s.ndim < 0 || mn_shape_count(&x->shape) != mn_shape_count(&s)) {
    char a[96], b[96];
    mn_graph_fault(g, MN_ERR_SHAPE, "reshape: %s does not hold as many elements as %s", mn_shape_str(&x->shape, a), mn_shape_str(&s, b));
    return NULL;
  }
  return mn_node1(g, &mn_op_reshape, 1, &x, x->dtype, s, NULL);
}

static mn_tensor *no_axis(mn_graph *g, const char *op, int axis) {
  mn_graph_fault(g, MN_ERR_SHAPE, "%s: no axis %d", op, axis);
  return NULL;
}

mn_tensor *mn_unsqueeze(mn_graph *g, mn_tensor *x, int axis) {
  if (!x) return NULL;
  mn_shape s = x->shape;
  if (axis < 0) axis += s.ndim + 1;
  if (axis < 0 || axis > s.ndim || s.ndim == MN_MAX_DIMS) return no_axis(g, "unsqueeze", axis);
  for (int i = s.ndim; i > axis; i--) s.dim[i] = s.dim[i - 1];
  s.dim[axis] = 1;
  s.ndim++;
  return mn_reshape(g, x, s);
}

mn_tensor *mn_squeeze(mn_graph *g, mn_tensor *x, int axis) {
  if (!x) return NULL;
  mn_shape s = x->shape;
  if (axis < 0) axis += s.ndim;
  if (axis < 0 || axis >= s.ndim || s.dim[axis] != 1) return no_axis(g, "squeeze (of size 1)", axis);
  for (int i = axis; i + 1 < s.ndim; i++) s.dim[i] = s.dim[i + 1];
  s.ndim--;
  return mn_reshape(g, x, s);
}

/* ---- permute ---- */
static bool permute_view(const mn_node *n, const mn_layout *in, mn_layout *out) {
  const mn_permute_attr *a = n->attr;
  out->offset = in->offset;
  for (int i = 0; i < n->out[0]->shape.ndim; i++) out->stride[i] = in->stride[a->axes[i]];
  return true;
}
static void permute_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)need;
  const mn_permute_attr *a = n->attr;
  int inverse[MN_MAX_DIMS];
  for (int i = 0; i < n->out[0]->shape.ndim; i++) inverse[a->axes[i]] = i;
  din[0] = mn_permute(g, dout[0], inverse);
}
static mn_tensor *permute_all(mn_graph *g, const mn_node *n, mn_tensor *const *in, int64_t length) {
  int axes[MN_MAX_DIMS] = {0};
  (void)length;
  for (int i = 0; i < n->out[0]->shape.ndim; i++) axes[i + 1] = ((const mn_permute_attr *)n->attr)->axes[i] + 1;
  return mn_permute(g, in[0], axes);
}
static mn_tensor *permute_of(mn_graph *g, const mn_node *n, mn_tensor *x) {
  return mn_permute(g, x, ((const mn_permute_attr *)n->attr)->axes);
}
static const mn_over_steps permute_steps = {.all = permute_all, .of = permute_of};
const mn_op mn_op_permute = {.name = "permute",
                             .traits = MN_PERMUTES,
                             .cls = MN_OP_VIEW,
                             .attr_size = sizeof(mn_permute_attr),
                             .grad = permute_grad,
                             .view = permute_view,
                             .simplify = view_simplify,
                             .steps = &permute_steps};

mn_tensor *mn_permute(mn_graph *g, mn_tensor *x, const int *axes) {
  mn_permute_attr a = {{0}};
  mn_shape s = {0};
  unsigned seen = 0;
  bool identity = true;
  if (!x) return mn_node1(g, &mn_op_permute, 1, &x, MN_F32, s, &a);
  s.ndim = x->shape.ndim;
  for (int i = 0; i < s.ndim; i++) {
    if (axes[i] < 0 || axes[i] >= s.ndim || seen >> axes[i] & 1) return no_axis(g, "permute", axes[i]);
    seen |= 1u << axes[i];
    a.axes[i] = axes[i];
    s.dim[i] = x->shape.dim[axes[i]];
    identity &= axes[i] == i;
  }
  return identity ? x : mn_node1(g, &mn_op_permute, 1, &x, x->dtype, s, &a);
}

mn_tensor *mn_transpose(mn_graph *g, mn_tensor *x, int a, int b) {
  if (!x) return NULL;
  int nd = x->shape.ndim, axes[MN_MAX_DIMS];
  if (a < 0) a += nd;
  if (b < 0) b += nd;
  if (a < 0 || a >= nd) return no_axis(g, "transpose", a);
  if (b < 0 || b >= nd) return no_axis(g, "transpose", b);
  for (int i = 0; i < nd; i++) axes[i] = i == a ? b : i == b ? a : i;
  return mn_permute(g, x, axes);
}

/* ---- expand ---- */
static bool expand_view(const mn_node *n, const mn_layout *in, mn_layout *out) {
  const mn_shape *si = &n->in[0]->shape, *so = &n->out[0]->shape;
  out->offset = in->offset;
  for (int o = 0; o < so->ndim; o++) {
    int i = o - (so->ndim - si->ndim);
    out->stride[o] = i < 0 || (si->dim[i] == 1 && so->dim[o] != 1) ? 0 : in->stride[i];
  }
  return true;
}
static void expand_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)need;
  din[0] = mn_sum_to(g, dout[0], n->in[0]->shape);
}
static mn_tensor *expand_all(mn_graph *g, const mn_node *n, mn_tensor *const *in, int64_t length) {
  const mn_shape all = stack_of(n, length), *s = &n->in[0]->shape;
  const int missing = n->out[0]->shape.ndim - s->ndim;
  mn_shape x = {.ndim = all.ndim, .dim = {length}};
  for (int i = 0; i + 1 < all.ndim; i++) x.dim[i + 1] = i < missing ? 1 : s->dim[i - missing];
  return mn_expand(g, mn_reshape(g, in[0], x), all);
}
static const mn_over_steps expand_steps = {.all = expand_all};
const mn_op mn_op_expand = {
    .name = "expand", .cls = MN_OP_VIEW, .grad = expand_grad, .view = expand_view, .simplify = view_simplify, .steps = &expand_steps};

mn_tensor *mn_expand(mn_graph *g, mn_tensor *x, mn_shape s) {
  if (!x) return mn_node1(g, &mn_op_expand, 1, &x, MN_F32, s, NULL);
  if (mn_shape_equal(&x->shape, &s)) return x;
  bool ok = x->shape.ndim <= s.ndim;
  for (int o = s.ndim - 1, i = x->shape.ndim - 1; ok && i >= 0; i--, o--) ok = x->shape.dim[i] == s.dim[o] || x->shape.dim[i] == 1;
  if (!ok) {
    char a[96], b[96];
    mn_graph_fault(g, MN_ERR_SHAPE, "expand: %s does not broadcast to %s", mn_shape_str(&x->shape, a), mn_shape_str(&s, b));
    return NULL;
  }
  return mn_node1(g, &mn_op_expand, 1, &x, x->dtype, s, NULL);
}

/* ---- slice ---- */
static bool slice_view(const mn_node *n, const mn_layout *in, mn_layout *out) {
  const mn_slice_attr *a = n->attr;
  *out = *in;
  out->offset += a->start * in->stride[a->axis];
  return true;
}
static void slice_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)need;
  const mn_slice_attr *a = n->attr;
  int64_t full = n->in[0]->shape.dim[a->axis], len = n->out[0]->shape.dim[a->axis];
  din[0] = mn_pad(g, dout[0], a->axis, a->start, full - a->start - len);
}
static mn_tensor *slice_all(mn_graph *g, const mn_node *n, mn_tensor *const *in, int64_t length) {
  const mn_slice_attr *a = n->attr;
  (void)length;
  return mn_slice(g, in[0], a->axis + 1, a->start, n->out[0]->shape.dim[a->axis]);
}
static const mn_over_steps slice_steps = {.all = slice_all};
const mn_op mn_op_slice = {.name = "slice",
                           .cls = MN_OP_VIEW,
                           .attr_size = sizeof(mn_slice_attr),
                           .grad = slice_grad,
                           .view = slice_view,
                           .simplify = view_simplify,
                           .steps = &slice_steps,
                           .stored = 1};

mn_tensor *mn_slice(mn_graph *g, mn_tensor *x, int axis, int64_t start, int64_t len) {
  if (!x) return NULL;
  mn_shape s = x->shape;
  if (axis < 0) axis += s.ndim;
  if (axis < 0 || axis >= s.ndim) return no_axis(g, "slice", axis);
  if (start < 0 || len < 0 || start > s.dim[axis] || len > s.dim[axis] - start) {
    mn_graph_fault(g, MN_ERR_SHAPE, "slice: [%lld, %lld) lies outside axis %d of size %lld", (long long)start, (long long)(start + len),
                   axis, (long long)s.dim[axis]);
    return NULL;
  }
  if (len == s.dim[axis]) return x;
  s.dim[axis] = len;
  return mn_node1(g, &mn_op_slice, 1, &x, x->dtype, s, &(mn_slice_attr){axis, start});
}

/* ---- stop_gradient, and its opposite: a new name that everything flows through ---- */
static bool same_view(const mn_node *n, const mn_layout *in, mn_layout *out) {
  (void)n;
  *out = *in;
  return true;
}
/* Where steps are brought together, nothing is differentiated any more. */
static mn_tensor *same_all(mn_graph *g, const mn_node *n, mn_tensor *const *in, int64_t length) {
  (void)g, (void)n, (void)length;
  return in[0];
}
static mn_tensor *same_of(mn_graph *g, const mn_node *n, mn_tensor *x) {
  (void)g, (void)n;
  return x;
}
static const mn_over_steps same_steps = {.all = same_all, .of = same_of};
const mn_op mn_op_stop_gradient = {.name = "stop_gradient",
                                   .cls = MN_OP_VIEW,
                                   .no_grad = true,
                                   .view = same_view,
                                   .simplify = view_simplify,
                                   .steps = &same_steps,
                                   .stored = 1};

static void identity_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)g, (void)n, (void)need;
  din[0] = dout[0];
}
const mn_op mn_op_identity = {.name = "identity",
                              .cls = MN_OP_VIEW,
                              .grad = identity_grad,
                              .view = same_view,
                              .simplify = view_simplify,
                              .steps = &same_steps,
                              .stored = 1};

mn_tensor *mn_identity(mn_graph *g, mn_tensor *x) { return x ? mn_node1(g, &mn_op_identity, 1, &x, x->dtype, x->shape, NULL) : NULL; }

mn_tensor *mn_stop_gradient(mn_graph *g, mn_tensor *x) {
  return x ? mn_node1(g, &mn_op_stop_gradient, 1, &x, x->dtype, x->shape, NULL) : NULL;
}

/* ---- the value of one tensor, the gradient of others ---- */
static mn_tensor *value_alone(const mn_simplifying *s, mn_node *n) { /* once gradients are made, who they went to does not matter */
  (void)s;
  return n->in[0];
}

static void surrogate_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)g, (void)n, (void)need;
  din[1] = dout[0];
}
const mn_op mn_op_with_gradient = {
    .name = "with_gradient", .cls = MN_OP_VIEW, .grad = surrogate_grad, .view = same_view, .simplify = value_alone};

mn_tensor *mn_with_gradient(mn_graph *g, mn_tensor *value, mn_tensor *surrogate) {
  if (value && surrogate && (value->dtype != surrogate->dtype || !mn_shape_equal(&value->shape, &surrogate->shape))) {
    char a[96], b[96];
    mn_graph_fault(g, MN_ERR_SHAPE, "with_gradient: the value is %s %s, what takes its gradient %s %s", mn_dtype_name(value->dtype),
                   mn_shape_str(&value->shape, a), mn_dtype_name(surrogate->dtype), mn_shape_str(&surrogate->shape, b));
    return NULL;
  }
  mn_tensor *in[2] = {value, surrogate};
  return mn_node1(g, &mn_op_with_gradient, 2, in, value ? value->dtype : MN_F32, value ? value->shape : (mn_shape){0}, NULL);
}

static void custom_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  const mn_custom_attr *a = n->attr;
  a->rule(g, a->ctx, n->n_in - 1, n->in + 1, n->in[0], dout[0], need + 1, din + 1);
}
const mn_op mn_op_custom_gradient = {.name = "custom_gradient",
                                     .cls = MN_OP_VIEW,
                                     .attr_size = sizeof(mn_custom_attr),
                                     .grad = custom_grad,
                                     .view = same_view,
                                     .simplify = value_alone};

mn_tensor *mn_custom_gradient(mn_graph *g, mn_tensor *value, int n, mn_tensor *const *x, mn_gradient_rule rule, void *ctx) {
  mn_tensor **in = mn_arena_alloc(g->arena, (size_t)(n + 1) * sizeof *in);
  if (!in) {
    mn_graph_fault(g, MN_ERR_MEMORY, "%s", mn_message());
    return NULL;
  }
  in[0] = value;
  for (int i = 0; i < n; i++) in[i + 1] = x[i];
  return mn_node1(g, &mn_op_custom_gradient, n + 1, in, value ? value->dtype : MN_F32, value ? value->shape : (mn_shape){0},
                  &(mn_custom_attr){rule, ctx});
}
