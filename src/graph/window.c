/* window.c - patches and their adjoint (shape rule, meaning, gradient), and what is made of them. */
#include "graph/window.h"
#include "graph/compose.h"
#include "graph/ops.h"

static int64_t reach(const mn_window *w, int a) { return (w->size[a] - 1) * w->dilation[a] + 1; }
static int64_t places(const mn_window *w, int a, int64_t n) {
  const int64_t room = n + w->before[a] + w->after[a] - reach(w, a);
  return room < 0 ? 0 : room / w->stride[a] + 1;
}

static bool complete(mn_graph *g, const char *op, const mn_tensor *x, mn_window *w) { /* defaults; false: a fault */
  bool ok = x->shape.ndim == 4;
  for (int a = 0; a < 2; a++) {
    if (!w->size[a]) w->size[a] = 1;
    if (!w->stride[a]) w->stride[a] = 1;
    if (!w->dilation[a]) w->dilation[a] = 1;
    const int64_t most = 1 << 20;
    ok = ok && w->size[a] > 0 && w->stride[a] > 0 && w->dilation[a] > 0 && w->before[a] >= 0 && w->after[a] >= 0 && w->size[a] < most &&
         w->dilation[a] < most && w->before[a] < most && w->after[a] < most && w->stride[a] < most;
    ok = ok && places(w, a, mn_dim(x, 1 + a)) > 0;
  }
  if (ok) return true;
  char s[96];
  mn_graph_fault(g, MN_ERR_SHAPE, "%s: a window of %lld x %lld (stride %lld, %lld) does not fit into %s ([B,H,W,C] with what is around)",
                 op, (long long)w->size[0], (long long)w->size[1], (long long)w->stride[0], (long long)w->stride[1],
                 mn_shape_str(&x->shape, s));
  return false;
}

/* ---- patches ---- */
/* i32 [rows, places * size]: which element of n each place's window reads along an axis; outside [0, n): none */
static mn_tensor *indices(mn_graph *g, const mn_window *w, int a, int64_t n, int64_t rows) {
  const int64_t out = places(w, a, n);
  mn_tensor *place = mn_mul_scalar(g, mn_iota(g, MN_I32, MN_SHAPE(out, w->size[a]), 0), (double)w->stride[a]);
  mn_tensor *inside = mn_mul_scalar(g, mn_iota(g, MN_I32, MN_SHAPE(out, w->size[a]), 1), (double)w->dilation[a]);
  mn_tensor *at = mn_add_scalar(g, mn_add(g, place, inside), (double)-w->before[a]);
  return mn_expand(g, mn_reshape(g, at, MN_SHAPE(1, out * w->size[a])), MN_SHAPE(rows, out * w->size[a]));
}

static mn_tensor *patches_of(mn_graph *g, mn_tensor *x, const mn_window *w) { /* by look-ups, first along H, then along W */
  const int64_t B = mn_dim(x, 0), H = mn_dim(x, 1), W = mn_dim(x, 2), C = mn_dim(x, 3);
  const int64_t OH = places(w, 0, H), OW = places(w, 1, W), rows = B * OH * w->size[0];
  mn_tensor *y = mn_take(g, x, indices(g, w, 0, H, B), 1);
  y = mn_take(g, mn_reshape(g, y, MN_SHAPE(rows, W, C)), indices(g, w, 1, W, rows), 1);
  y = mn_reshape(g, y, MN_SHAPE(B, OH, w->size[0], OW, w->size[1] * C));
  return mn_reshape(g, mn_transpose(g, y, 2, 3), MN_SHAPE(B, OH, OW, w->size[0] * w->size[1] * C));
}

static void patches_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) { out[0] = patches_of(g, in[0], n->attr); }
static void patches_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)need;
  din[0] = mn_unpatch(g, dout[0], *(const mn_window *)n->attr, mn_dim(n->in[0], 1), mn_dim(n->in[0], 2));
}
const mn_op mn_op_patches = {
    .name = "patches", .cls = MN_OP_FUSED, .attr_size = sizeof(mn_window), .grad = patches_grad, .compose = patches_compose};

static void unpatch_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) { /* the gradient of the look-ups */
  mn_tensor *x = mn_identity(g, mn_full(g, in[0]->dtype, n->out[0]->shape, 0));
  mn_tensor *y = patches_of(g, x, n->attr);
  mn_grad(g, 1, &y, in, 1, &x, out);
}
static void unpatch_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)need;
  din[0] = mn_patches(g, dout[0], *(const mn_window *)n->attr);
}
const mn_op mn_op_unpatch = {
    .name = "unpatch", .cls = MN_OP_FUSED, .attr_size = sizeof(mn_window), .grad = unpatch_grad, .compose = unpatch_compose};

static bool side_by_side(const mn_window *w, const mn_tensor *x) { /* windows that neither overlap nor leave anything out */
  for (int a = 0; a < 2; a++)
    if (w->stride[a] != w->size[a] || (w->size[a] > 1 && w->dilation[a] != 1) || w->before[a] || w->after[a] ||
        mn_dim(x, 1 + a) % w->size[a])
      return false;
  return true;
}

mn_tensor *mn_patches(mn_graph *g, mn_tensor *x, mn_window w) {
  if (!x || !complete(g, "patches", x, &w)) return NULL;
  const int64_t B = mn_dim(x, 0), C = mn_dim(x, 3), OH = places(&w, 0, mn_dim(x, 1)), OW = places(&w, 1, mn_dim(x, 2));
  const mn_shape out = MN_SHAPE(B, OH, OW, w.size[0] * w.size[1] * C);
  if (side_by_side(&w, x)) { /* nothing but an order */
    mn_tensor *y = mn_reshape(g, x, MN_SHAPE(B, OH, w.size[0], OW, w.size[1] * C));
    return mn_reshape(g, mn_transpose(g, y, 2, 3), out);
  }
  return mn_node1(g, &mn_op_patches, 1, &x, x->dtype, out, &w);
}

mn_tensor *mn_unpatch(mn_graph *g, mn_tensor *y, mn_window w, int64_t H, int64_t W) {
  if (!y) return NULL;
  for (int a = 0; a < 2; a++) {
    if (!w.size[a]) w.size[a] = 1;
    if (!w.stride[a]) w.stride[a] = 1;
    if (!w.dilation[a]) w.dilation[a] = 1;
  }
  const int64_t area = w.size[0] * w.size[1];
  if (y->shape.ndim != 4 || H < 1 || W < 1 || places(&w, 0, H) != mn_dim(y, 1) || places(&w, 1, W) != mn_dim(y, 2) || mn_dim(y, 3) % area) {
    char s[96];
    mn_graph_fault(g, MN_ERR_SHAPE, "unpatch: %s are not the patches of an image of %lld x %lld", mn_shape_str(&y->shape, s), (long long)H,
                   (long long)W);
    return NULL;
  }
  return mn_node1(g, &mn_op_unpatch, 1, &y, y->dtype, MN_SHAPE(mn_dim(y, 0), H, W, mn_dim(y, 3) / area), &w);
}

/* ---- convolution ---- */
mn_tensor *mn_conv2d(mn_graph *g, mn_tensor *x, mn_tensor *weight, mn_tensor *bias, mn_window w) {
  if (!x || !weight) return NULL;
  const int64_t O = mn_dim(weight, 0), C = mn_dim(x, -1);
  if (weight->shape.ndim != 4 || x->shape.ndim != 4 || mn_dim(weight, 3) != C || weight->dtype != x->dtype ||
      (bias && (bias->shape.ndim != 1 || mn_dim(bias, 0) != O || bias->dtype != x->dtype))) {
    char s[96], t[96];
    mn_graph_fault(g, MN_ERR_SHAPE, "convolution: weight %s does not fit x %s ([O,size,size,C], bias [O], x [B,H,W,C], one type)",
                   mn_shape_str(&weight->shape, s), mn_shape_str(&x->shape, t));
    return NULL;
  }
  w.size[0] = mn_dim(weight, 1), w.size[1] = mn_dim(weight, 2);
  mn_tensor *p = mn_patches(g, x, w);
  if (!p) return NULL;
  mn_tensor *flat = mn_reshape(g, weight, MN_SHAPE(O, mn_dim(p, 3)));
  mn_tensor *rows = mn_reshape(g, p, MN_SHAPE(mn_dim(p, 0) * mn_dim(p, 1) * mn_dim(p, 2), mn_dim(p, 3)));
  mn_tensor *y = mn_reshape(g, mn_matmul(g, rows, mn_transpose(g, flat, 0, 1)), MN_SHAPE(mn_dim(p, 0), mn_dim(p, 1), mn_dim(p, 2), O));
  return bias ? mn_add(g, y, bias) : y;
}

mn_tensor *mn_conv1d(mn_graph *g, mn_tensor *x, mn_tensor *weight, mn_tensor *bias, mn_window w) {
  if (!x || !weight) return NULL;
  if (x->shape.ndim != 3 || weight->shape.ndim != 3) {
    char s[96], t[96];
    mn_graph_fault(g, MN_ERR_SHAPE, "convolution: weight %s does not fit x %s ([O,size,C], x [B,T,C])", mn_shape_str(&weight->shape, s),
                   mn_shape_str(&x->shape, t));
    return NULL;
  }
  w.stride[1] = w.dilation[1] = 1, w.before[1] = w.after[1] = 0;
  mn_tensor *y = mn_conv2d(g, mn_unsqueeze(g, x, 2), mn_unsqueeze(g, weight, 2), bias, w);
  return y ? mn_squeeze(g, y, 2) : NULL;
}

/* ---- pooling ---- */
/* 1 where a place's window reads an element, 0 outside: x's type, [1,OH,OW,area,1] */
static mn_tensor *inside(mn_graph *g, const mn_window *w, const mn_tensor *x) {
  mn_tensor *ones = mn_full(g, x->dtype, MN_SHAPE(1, mn_dim(x, 1), mn_dim(x, 2), 1), 1), *p = mn_patches(g, ones, *w);
  return mn_unsqueeze(g, p, 4);
}

static mn_tensor *pool(mn_graph *g, mn_tensor *x, mn_window w, bool largest) {
  if (!x) return NULL;
  if (x->shape.ndim == 3) {
    w.size[1] = w.stride[1] = w.dilation[1] = 1, w.before[1] = w.after[1] = 0;
    mn_tensor *y = pool(g, mn_unsqueeze(g, x, 2), w, largest);
    return y ? mn_squeeze(g, y, 2) : NULL;
  }
  mn_tensor *p = mn_patches(g, x, w);
  if (!p) return NULL;
  const int64_t C = mn_dim(x, 3), area = mn_dim(p, 3) / C, around = w.before[0] + w.after[0] + w.before[1] + w.after[1];
  const mn_shape out = MN_SHAPE(mn_dim(p, 0), mn_dim(p, 1), mn_dim(p, 2), C);
  p = mn_reshape(g, p, MN_SHAPE(out.dim[0], out.dim[1], out.dim[2], area, C));
  mn_tensor *in = around ? inside(g, &w, x) : NULL;
  if (largest) {
    if (in) p = mn_select(g, mn_lt(g, mn_scalar(g, x->dtype, 0), in), p, mn_scalar(g, x->dtype, -1e30));
    return mn_reshape(g, mn_max(g, p, MN_AXIS(3)), out);
  }
  mn_tensor *sum = mn_sum(g, p, MN_AXIS(3));
  if (!in) return mn_reshape(g, mn_mul_scalar(g, sum, 1 / (double)area), out);
  mn_tensor *count = mn_maximum(g, mn_sum(g, in, MN_AXIS(3)), mn_scalar(g, x->dtype, 1));
  return mn_reshape(g, mn_div(g, sum, count), out);
}
mn_tensor *mn_max_pool(mn_graph *g, mn_tensor *x, mn_window w) { return pool(g, x, w, true); }
mn_tensor *mn_mean_pool(mn_graph *g, mn_tensor *x, mn_window w) { return pool(g, x, w, false); }
