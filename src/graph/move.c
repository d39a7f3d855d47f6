/* move.c - operations that move elements: copy, concat, pad, take, put, top-k. */
#include "graph/ops.h"
#include "graph/stored.h"

static int on_first(const mn_node *n, int j) {
  (void)n, (void)j;
  return 0;
}

/* ---- copy ---- */
static void copy_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)g, (void)n, (void)need;
  din[0] = dout[0];
}
static bool copy_slices(const mn_node *n, int axis, int *in_axis) {
  (void)n;
  in_axis[0] = axis;
  return true;
}
const mn_op mn_op_copy = {.name = "copy", .traits = MN_IS_COPY, .cls = MN_OP_CORE, .grad = copy_grad, .slices = copy_slices, .stored = 1};
mn_tensor *mn_copy(mn_graph *g, mn_tensor *x) {
  return mn_node1(g, &mn_op_copy, 1, &x, x ? x->dtype : MN_F32, x ? x->shape : (mn_shape){0}, NULL);
}

/* ---- concat ---- */
static void concat_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  int axis = ((mn_axis_attr *)n->attr)->axis;
  int64_t at = 0;
  for (int i = 0; i < n->n_in; i++) {
    int64_t len = n->in[i]->shape.dim[axis];
    if (need[i]) din[i] = mn_slice(g, dout[0], axis, at, len);
    at += len;
  }
}
static bool concat_slices(const mn_node *n, int axis, int *in_axis) {
  for (int i = 0; i < n->n_in; i++) in_axis[i] = axis;
  return ((const mn_axis_attr *)n->attr)->axis != axis;
}
const mn_op mn_op_concat = {
    .name = "concat", .cls = MN_OP_CORE, .attr_size = sizeof(mn_axis_attr), .grad = concat_grad, .slices = concat_slices};

mn_tensor *mn_concat(mn_graph *g, int n, mn_tensor *const *xs, int axis) {
  if (n < 1) {
    mn_graph_fault(g, MN_ERR_ARG, "concat: of no tensors");
    return NULL;
  }
  if (n == 1) return xs[0];
  for (int i = 0; i < n; i++)
    if (!xs[i]) return mn_node1(g, &mn_op_concat, n, xs, MN_F32, (mn_shape){0}, NULL);
  mn_shape s = xs[0]->shape;
  if (axis < 0) axis += s.ndim;
  if (axis < 0 || axis >= s.ndim) {
    mn_graph_fault(g, MN_ERR_SHAPE, "concat: no axis %d", axis);
    return NULL;
  }
  s.dim[axis] = 0;
  for (int i = 0; i < n; i++) {
    bool ok = xs[i]->dtype == xs[0]->dtype && xs[i]->shape.ndim == s.ndim;
    for (int d = 0; ok && d < s.ndim; d++) ok = d == axis || xs[i]->shape.dim[d] == s.dim[d];
    if (!ok) {
      char a[96], b[96];
      mn_graph_fault(g, MN_ERR_SHAPE, "concat: part %d (%s %s) does not fit part 0 (%s %s) along axis %d", i, mn_dtype_name(xs[i]->dtype),
                     mn_shape_str(&xs[i]->shape, a), mn_dtype_name(xs[0]->dtype), mn_shape_str(&xs[0]->shape, b), axis);
      return NULL;
    }
    s.dim[axis] += xs[i]->shape.dim[axis];
  }
  return mn_node1(g, &mn_op_concat, n, xs, xs[0]->dtype, s, &(mn_axis_attr){axis});
}

/* ---- pad ---- */
static void pad_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)need;
  const mn_pad_attr *a = n->attr;
  din[0] = mn_slice(g, dout[0], a->axis, a->before, n->in[0]->shape.dim[a->axis]);
}
static bool pad_slices(const mn_node *n, int axis, int *in_axis) {
  in_axis[0] = axis;
  return ((const mn_pad_attr *)n->attr)->axis != axis;
}
const mn_op mn_op_pad = {.name = "pad", .cls = MN_OP_CORE, .attr_size = sizeof(mn_pad_attr), .grad = pad_grad, .slices = pad_slices};

mn_tensor *mn_pad(mn_graph *g, mn_tensor *x, int axis, int64_t before, int64_t after) {
  if (!x || (before == 0 && after == 0)) return x;
  mn_shape s = x->shape;
  if (axis < 0) axis += s.ndim;
  if (axis < 0 || axis >= s.ndim || before < 0 || after < 0 || before > INT64_MAX / 4 || after > INT64_MAX / 4) {
    mn_graph_fault(g, MN_ERR_SHAPE, "pad: axis %d by %lld, %lld", axis, (long long)before, (long long)after);
    return NULL;
  }
  s.dim[axis] += before + after;
  return mn_node1(g, &mn_op_pad, 1, &x, x->dtype, s, &(mn_pad_attr){axis, before, after});
}

/* ---- take and put: each is the other's adjoint ---- */
static void take_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  const mn_take_attr *a = n->attr;
  mn_tensor *x = n->in[0], *idx = n->in[1];
  if (!need[0]) return;
  int b = a->batch_dims, t = idx->shape.ndim - b;
  if (t != 1) { /* flatten the index axes into one, as put wants them */
    mn_shape si = {.ndim = b + 1}, su = {.ndim = b + 1};
    int64_t rows = 1;
    for (int i = b; i < idx->shape.ndim; i++) rows *= idx->shape.dim[i];
    for (int i = 0; i < b; i++) si.dim[i] = su.dim[i] = idx->shape.dim[i];
    si.dim[b] = su.dim[b] = rows;
    for (int i = b + 1; i < x->shape.ndim; i++) su.dim[su.ndim++] = x->shape.dim[i];
    din[0] = mn_put(g, mn_zeros_like(g, x), mn_reshape(g, idx, si), mn_reshape(g, dout[0], su), b, MN_PUT_ADD);
  } else {
    din[0] = mn_put(g, mn_zeros_like(g, x), idx, dout[0], b, MN_PUT_ADD);
  }
}
const mn_op mn_op_take = {
    .name = "take", .cls = MN_OP_CORE, .attr_size = sizeof(mn_take_attr), .grad = take_grad, .remake = MN_REMAKE_NORM};

static bool index_fits(mn_graph *g, const char *op, mn_tensor *x, mn_tensor *idx, int batch_dims) {
  bool ok = idx->dtype == MN_I32 && batch_dims >= 0 && batch_dims < x->shape.ndim && batch_dims <= idx->shape.ndim;
  for (int i = 0; ok && i < batch_dims; i++) ok = x->shape.dim[i] == idx->shape.dim[i];
  if (ok) return true;
  char a[96], b[96];
  mn_graph_fault(g, MN_ERR_SHAPE, "%s: indices %s %s do not fit %s with %d shared axes", op, mn_dtype_name(idx->dtype),
                 mn_shape_str(&idx->shape, a), mn_shape_str(&x->shape, b), batch_dims);
  return false;
}

mn_tensor *mn_take(mn_graph *g, mn_tensor *x, mn_tensor *idx, int batch_dims) {
  if (!x || !idx) return mn_node1(g, &mn_op_take, 2, (mn_tensor *[]){x, idx}, MN_F32, (mn_shape){0}, NULL);
  if (mn_dtype_is_stored(x->dtype) && batch_dims == 0) return mn_stored_rows(g, x, idx, MN_F32);
  if (!index_fits(g, "take", x, idx, batch_dims)) return NULL;
  mn_shape s = idx->shape;
  for (int i = batch_dims + 1; i < x->shape.ndim; i++) {
    if (s.ndim == MN_MAX_DIMS) {
      mn_graph_fault(g, MN_ERR_SHAPE, "take: the result would have more than %d axes", MN_MAX_DIMS);
      return NULL;
    }
    s.dim[s.ndim++] = x->shape.dim[i];
  }
  return mn_node1(g, &mn_op_take, 2, (mn_tensor *[]){x, idx}, x->dtype, s, &(mn_take_attr){.batch_dims = batch_dims});
}

static void put_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  const mn_take_attr *a = n->attr;
  if (need[0]) din[0] = a->add ? dout[0] : mn_put(g, dout[0], n->in[1], mn_zeros_like(g, n->in[2]), a->batch_dims, MN_PUT_SET);
  if (need[2]) din[2] = mn_take(g, dout[0], n->in[1], a->batch_dims);
}
const mn_op mn_op_put = {.name = "put", .cls = MN_OP_CORE, .attr_size = sizeof(mn_take_attr), .grad = put_grad, .inplace = on_first};

mn_tensor *mn_put(mn_graph *g, mn_tensor *base, mn_tensor *idx, mn_tensor *upd, int batch_dims, mn_put_how how) {
  mn_tensor *in[3] = {base, idx, upd};
  if (!base || !idx || !upd) return mn_node1(g, &mn_op_put, 3, in, MN_F32, (mn_shape){0}, NULL);
  if (!index_fits(g, "put", base, idx, batch_dims)) return NULL;
  bool ok = idx->shape.ndim == batch_dims + 1 && upd->dtype == base->dtype && upd->shape.ndim == base->shape.ndim;
  for (int i = 0; ok && i < base->shape.ndim; i++) ok = upd->shape.dim[i] == (i == batch_dims ? idx->shape.dim[i] : base->shape.dim[i]);
  if (!ok) {
    char a[96], b[96];
    mn_graph_fault(g, MN_ERR_SHAPE, "put: rows %s %s do not fit %s %s", mn_dtype_name(upd->dtype), mn_shape_str(&upd->shape, a),
                   mn_dtype_name(base->dtype), mn_shape_str(&base->shape, b));
    return NULL;
  }
  return mn_node1(g, &mn_op_put, 3, in, base->dtype, base->shape, &(mn_take_attr){.batch_dims = batch_dims, .add = how == MN_PUT_ADD});
}

const mn_op mn_op_topk = {.name = "topk", .cls = MN_OP_CORE, .no_grad = true};
mn_tensor *mn_topk(mn_graph *g, mn_tensor *x, int64_t k) {
  mn_shape s = x ? x->shape : (mn_shape){0};
  if (x && (s.ndim == 0 || k < 1 || k > s.dim[s.ndim - 1])) {
    mn_graph_fault(g, MN_ERR_SHAPE, "topk: k = %lld of %lld", (long long)k, (long long)mn_dim(x, -1));
    return NULL;
  }
  if (x) s.dim[s.ndim - 1] = k;
  return mn_node1(g, &mn_op_topk, 1, &x, MN_I32, s, NULL);
}
