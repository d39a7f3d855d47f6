/* fused_loss.c - cross-entropy of a projection without its logits. */
#include "graph/compose.h"
#include "graph/fused_loss.h"
#include "graph/ops.h"
#include "graph/stored.h"

/* ---- heads with a cap ---- */
static void capped_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  (void)g, (void)n;
  out[0] = in[0];
}
static void capped_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)g, (void)n, (void)need;
  din[0] = dout[0];
}
const mn_op mn_op_capped_head = {.name = "capped_head",
                                 .cls = MN_OP_FUSED,
                                 .attr_size = sizeof(mn_loss_attr),
                                 .stored = 1,
                                 .grad = capped_grad,
                                 .compose = capped_compose};

mn_tensor *mn_head_capped(mn_graph *g, mn_tensor *w, double cap) {
  if (!w || cap <= 0) return w;
  mn_node *n = mn_node_new(g, &mn_op_capped_head, 1, &w, 1, &w->dtype, &w->shape, &(mn_loss_attr){cap});
  return n ? n->out[0] : NULL;
}

double mn_head_cap(mn_tensor **w) {
  if (!*w || !(*w)->node || (*w)->node->op != &mn_op_capped_head) return 0;
  const double cap = ((const mn_loss_attr *)(*w)->node->attr)->cap;
  *w = (*w)->node->in[0];
  return cap;
}

/* ---- the loss ---- */
static void ce_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  mn_dtype t = n->out[0]->dtype;
  int64_t N = mn_dim(in[0], 0), vocab_size = mn_dim(in[1], 0);
  mn_tensor *zero = mn_scalar(g, t, 0), *w = mn_cast(g, mn_cast(g, in[1], in[0]->dtype), t);
  mn_tensor *logits = mn_matmul(g, mn_cast(g, in[0], t), mn_transpose(g, w, 0, 1)); /* [N,vocab] */
  const double cap = ((const mn_loss_attr *)n->attr)->cap;
  if (cap > 0) logits = mn_mul_scalar(g, mn_tanh(g, mn_mul_scalar(g, logits, 1 / cap)), cap);
  mn_tensor *m = mn_stop_gradient(g, mn_max(g, logits, MN_AXIS(1)));
  mn_tensor *lse = mn_add(g, m, mn_log(g, mn_sum(g, mn_exp(g, mn_sub(g, logits, m)), MN_AXIS(1))));
  mn_tensor *target = mn_reshape(g, in[2], MN_SHAPE(N, 1));
  mn_tensor *hit = mn_eq(g, mn_iota(g, MN_I32, MN_SHAPE(1, vocab_size), 1), target);
  mn_tensor *picked = mn_sum(g, mn_select(g, hit, logits, zero), MN_AXIS(1));
  mn_tensor *counted = mn_le(g, mn_scalar(g, MN_I32, 0), in[2]);
  out[1] = mn_select(g, counted, mn_reshape(g, mn_sub(g, lse, picked), MN_SHAPE(N)), zero);
  out[0] = mn_reshape(g, mn_sum(g, mn_mul(g, mn_cast(g, in[3], t), out[1]), MN_AXIS(0)), (mn_shape){0});
}

static void ce_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  mn_dtype t = n->out[0]->dtype;
  mn_tensor *h = n->in[0], *w = n->in[1];
  mn_tensor *dloss = dout[0] ? dout[0] : mn_scalar(g, t, 0);
  mn_tensor *dnll = dout[1] ? dout[1] : mn_zeros_like(g, n->out[1]);
  mn_tensor *in[6] = {h, w, n->in[2], n->in[3], dloss, dnll};
  mn_dtype types[4] = {h->dtype, t, t, t}; /* the gradient of w is summed over all tokens: in f32, and rounded once */
  mn_shape shapes[4] = {h->shape, w->shape, n->out[0]->shape, n->out[1]->shape};
  mn_node *d = mn_node_new(g, &mn_op_linear_ce_grad, 6, in, 4, types, shapes, n->attr);
  if (!d) return;
  din[0] = d->out[0];
  din[1] = mn_cast(g, d->out[1], w->dtype);
  if (need[3]) din[3] = mn_cast(g, mn_mul(g, dloss, n->out[1]), n->in[3]->dtype);
}
static int64_t ce_flops(const mn_node *n) { return 2 * mn_dim(n->in[0], 0) * mn_dim(n->in[0], 1) * mn_dim(n->in[1], 0); }
static int64_t ce_grad_flops(const mn_node *n) { return 3 * ce_flops(n); }
const mn_op mn_op_linear_ce = {.name = "linear_cross_entropy",
                               .cls = MN_OP_FUSED,
                               .attr_size = sizeof(mn_loss_attr),
                               .grad = ce_grad,
                               .compose = ce_compose,
                               .flops = ce_flops,
                               .given_by = &mn_op_linear_ce_grad,
                               .given_at = 2};

static void ce_grad_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  bool need[4] = {true, true};
  mn_tensor *din[4] = {NULL}, *values[2] = {NULL};
  mn_dtype types[2] = {n->out[2]->dtype, n->out[3]->dtype};
  mn_shape shapes[2] = {n->out[2]->shape, n->out[3]->shape};
  mn_vjp_of(g, &mn_op_linear_ce, n->attr, 4, in, 2, types, shapes, &in[4], need, din, values);
  out[0] = din[0];
  out[1] = mn_cast(g, din[1], n->out[1]->dtype);
  out[2] = values[0];
  out[3] = values[1];
}
const mn_op mn_op_linear_ce_grad = {.name = "linear_cross_entropy_grad",
                                    .cls = MN_OP_FUSED,
                                    .attr_size = sizeof(mn_loss_attr),
                                    .compose = ce_grad_compose,
                                    .flops = ce_grad_flops};

/* Of a head in a type of storage: the logits of some rows at a time are there, of f32 activations, and gone before the next. */
static mn_tensor *ce_stored(mn_graph *g, mn_tensor *h, mn_tensor *w, mn_tensor *target, mn_tensor *weight, double cap, mn_tensor **nll) {
  enum { ROWS = 64 };
  const mn_dtype t = weight->dtype;
  const int64_t N = mn_dim(h, 0), pieces = (N + ROWS - 1) / ROWS;
  mn_tensor **each = mn_arena_alloc(g->arena, (size_t)(pieces + 1) * sizeof *each), *zero = mn_scalar(g, t, 0);
  if (!each || !N) {
    mn_graph_fault(g, each ? MN_ERR_SHAPE : MN_ERR_MEMORY, "linear_cross_entropy: %s", each ? "of no rows" : mn_message());
    return NULL;
  }
  for (int64_t i = 0; i < pieces; i++) {
    const int64_t at = i * ROWS, n = N - at < ROWS ? N - at : ROWS;
    mn_tensor *logits = mn_stored_product(g, mn_slice(g, h, 0, at, n), 1, &w, true, t), *want = mn_slice(g, target, 0, at, n);
    if (cap > 0) logits = mn_mul_scalar(g, mn_tanh(g, mn_mul_scalar(g, logits, 1 / cap)), cap);
    mn_tensor *m = mn_stop_gradient(g, mn_max(g, logits, MN_AXIS(1)));
    mn_tensor *lse = mn_add(g, m, mn_log(g, mn_sum(g, mn_exp(g, mn_sub(g, logits, m)), MN_AXIS(1))));
    mn_tensor *picked = mn_take(g, logits, mn_reshape(g, want, MN_SHAPE(n, 1)), 1);
    mn_tensor *counted = mn_le(g, mn_scalar(g, MN_I32, 0), want);
    each[i] = mn_select(g, counted, mn_reshape(g, mn_sub(g, lse, picked), MN_SHAPE(n)), zero);
  }
  mn_tensor *all = mn_concat(g, (int)pieces, each, 0);
  if (nll) *nll = all;
  return mn_reshape(g, mn_sum(g, mn_mul(g, weight, all), MN_AXIS(0)), (mn_shape){0});
}

mn_tensor *mn_linear_cross_entropy(mn_graph *g, mn_tensor *h, mn_tensor *w, mn_tensor *target, mn_tensor *weight, mn_tensor **nll) {
  if (nll) *nll = NULL;
  if (!h || !w || !target) return NULL;
  const mn_loss_attr attr = {mn_head_cap(&w)};
  mn_dtype t = h->dtype == MN_F64 ? MN_F64 : MN_F32;
  if (!weight) weight = mn_full(g, t, target->shape, 1);
  bool ok = h->shape.ndim == 2 && w->shape.ndim == 2 && mn_dim(h, 1) == mn_dim(w, 1) &&
            (h->dtype == w->dtype || w->dtype == t || mn_dtype_is_stored(w->dtype)) && target->dtype == MN_I32 && target->shape.ndim == 1 &&
            mn_dim(target, 0) == mn_dim(h, 0) && weight && weight->dtype == t && mn_shape_equal(&weight->shape, &target->shape);
  if (!ok) {
    char a[96], b[96], c[96];
    mn_graph_fault(g, MN_ERR_SHAPE, "linear_cross_entropy: h %s %s, w %s %s, target %s do not fit", mn_dtype_name(h->dtype),
                   mn_shape_str(&h->shape, a), mn_dtype_name(w->dtype), mn_shape_str(&w->shape, b), mn_shape_str(&target->shape, c));
    return NULL;
  }
  if (mn_dtype_is_stored(w->dtype)) return ce_stored(g, h, w, target, weight, attr.cap, nll);
  mn_node *n = mn_node_new(g, &mn_op_linear_ce, 4, (mn_tensor *[]){h, w, target, weight}, 2, (mn_dtype[]){t, t},
                           (mn_shape[]){{0}, target->shape}, &attr);
  if (!n) return NULL;
  if (nll) *nll = n->out[1];
  return n->out[0];
}
