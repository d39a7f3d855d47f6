/* elementwise.c - the element-wise operations: table, broadcasting builders, gradients, and the activations made of them. */
#include "graph/fused_loss.h"
#include "graph/ops.h"
#include "graph/stored.h"

#include <math.h>

/* ---- gradients: one function, in the order of the codes ---- */
static mn_tensor *c(mn_graph *g, mn_tensor *like, double v) { return mn_scalar(g, like->dtype, v); }

static void ew_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  mn_tensor *a = n->in[0], *b = n->n_in > 1 ? n->in[1] : NULL, *y = n->out[0], *d = dout[0];
  switch ((mn_ew_code)n->op->code) {
  case MN_EW_NEG:
    din[0] = mn_neg(g, d);
    break;
  case MN_EW_ABS:
    din[0] = mn_mul(g, d, mn_sign(g, a));
    break;
  case MN_EW_SQRT:
    din[0] = mn_div(g, mn_mul_scalar(g, d, 0.5), y);
    break;
  case MN_EW_RSQRT:
    din[0] = mn_mul(g, mn_mul_scalar(g, d, -0.5), mn_mul(g, y, mn_mul(g, y, y)));
    break;
  case MN_EW_RECIP:
    din[0] = mn_neg(g, mn_mul(g, d, mn_mul(g, y, y)));
    break;
  case MN_EW_EXP:
    din[0] = mn_mul(g, d, y);
    break;
  case MN_EW_LOG:
    din[0] = mn_div(g, d, a);
    break;
  case MN_EW_LOG1P:
    din[0] = mn_div(g, d, mn_add_scalar(g, a, 1));
    break;
  case MN_EW_SIN:
    din[0] = mn_mul(g, d, mn_cos(g, a));
    break;
  case MN_EW_COS:
    din[0] = mn_neg(g, mn_mul(g, d, mn_sin(g, a)));
    break;
  case MN_EW_TANH:
    din[0] = mn_mul(g, d, mn_sub(g, c(g, y, 1), mn_mul(g, y, y)));
    break;
  case MN_EW_SIGMOID:
    din[0] = mn_mul(g, d, mn_mul(g, y, mn_sub(g, c(g, y, 1), y)));
    break;
  case MN_EW_ERF:
    din[0] = mn_mul(g, d, mn_mul_scalar(g, mn_exp(g, mn_neg(g, mn_mul(g, a, a))), 2 / sqrt(M_PI)));
    break;
  case MN_EW_SOFTPLUS:
    din[0] = mn_mul(g, d, mn_sigmoid(g, a));
    break;
  case MN_EW_SILU:
    din[0] = mn_mul(g, d, mn_silu_slope(g, a));
    break;
  case MN_EW_SILU_SLOPE: { /* s (1 - s) (2 + x (1 - 2 s)), s = sigmoid(x) */
    mn_tensor *s = mn_sigmoid(g, a), *rest = mn_sub(g, c(g, a, 1), s);
    mn_tensor *bend = mn_add_scalar(g, mn_mul(g, a, mn_sub(g, rest, s)), 2);
    din[0] = mn_mul(g, d, mn_mul(g, mn_mul(g, s, rest), bend));
    break;
  }
  case MN_EW_NORMAL_CDF:
    din[0] = mn_mul(g, d, mn_normal_pdf(g, a));
    break;
  case MN_EW_NORMAL_PDF:
    din[0] = mn_neg(g, mn_mul(g, mn_mul(g, d, y), a));
    break;
  case MN_EW_ADD:
    din[0] = d, din[1] = d;
    break;
  case MN_EW_SUB:
    din[0] = d;
    if (need[1]) din[1] = mn_neg(g, d);
    break;
  case MN_EW_MUL:
    if (need[0]) din[0] = mn_mul(g, d, b);
    if (need[1]) din[1] = mn_mul(g, d, a);
    break;
  case MN_EW_DIV:
    if (need[0]) din[0] = mn_div(g, d, b);
    if (need[1]) din[1] = mn_neg(g, mn_div(g, mn_mul(g, d, y), b));
    break;
  case MN_EW_MAXIMUM:
  case MN_EW_MINIMUM: { /* ties go to the first */
    mn_tensor *first = n->op->code == MN_EW_MAXIMUM ? mn_le(g, b, a) : mn_le(g, a, b);
    if (need[0]) din[0] = mn_select(g, first, d, c(g, d, 0));
    if (need[1]) din[1] = mn_select(g, first, c(g, d, 0), d);
    break;
  }
  case MN_EW_POW:
    if (need[0]) din[0] = mn_mul(g, d, mn_mul(g, b, mn_pow(g, a, mn_add_scalar(g, b, -1))));
    if (need[1]) din[1] = mn_mul(g, d, mn_mul(g, y, mn_log(g, a)));
    break;
  case MN_EW_MOD: /* a - b*floor(a/b) */
    din[0] = d;
    if (need[1]) din[1] = mn_neg(g, mn_mul(g, d, mn_floor(g, mn_div(g, a, b))));
    break;
  case MN_EW_SELECT:
    if (need[1]) din[1] = mn_select(g, a, d, c(g, d, 0));
    if (need[2]) din[2] = mn_select(g, a, c(g, d, 0), d);
    break;
  case MN_EW_CAST:
    din[0] = mn_cast(g, d, a->dtype);
    break;
  default:
    break;
  }
}

static int ew_inplace(const mn_node *n, int j) {
  (void)j;
  for (int i = 0; i < n->n_in; i++)
    if (mn_dtype_size(n->in[i]->dtype) == mn_dtype_size(n->out[0]->dtype)) return i;
  return -1;
}

/* ---- constants and algebra ---- */
static bool fold(mn_ew_code code, mn_dtype t, const double *x, double *y) {
  switch (code) {
  case MN_EW_NEG:
    *y = -x[0];
    break;
  case MN_EW_ABS:
    *y = fabs(x[0]);
    break;
  case MN_EW_SQRT:
    *y = sqrt(x[0]);
    break;
  case MN_EW_EXP:
    *y = exp(x[0]);
    break;
  case MN_EW_LOG:
    *y = log(x[0]);
    break;
  case MN_EW_ADD:
    *y = x[0] + x[1];
    break;
  case MN_EW_SUB:
    *y = x[0] - x[1];
    break;
  case MN_EW_MUL:
    *y = x[0] * x[1];
    break;
  case MN_EW_DIV:
    if (x[1] == 0 || !mn_dtype_is_float(t)) return false;
    *y = x[0] / x[1];
    break;
  case MN_EW_CAST:
    if (!mn_dtype_is_float(t)) return false;
    *y = x[0];
    break;
  default:
    return false;
  }
  if (t == MN_F32) *y = (double)(float)*y;
  return mn_dtype_is_float(t) ? isfinite(*y) && t != MN_BF16 : fabs(*y) < 2147483647.0 && t == MN_I32;
}

/* cast(matmul) with no other reader: the product itself gives the wanted type. And a gradient that was summed in f32 is
 * not rounded to the type of a rounded weight on its way to the weight. */
static mn_tensor *simplify_cast_of_product(const mn_simplifying *s, mn_node *n) {
  mn_graph *g = s->g;
  mn_node *p = n->in[0]->node;
  if (n->op->code != MN_EW_CAST || !s->only_reader[0]) return NULL;
  mn_dtype to = n->out[0]->dtype;
  if (p->op->code == MN_EW_CAST && p->op->cls == MN_OP_ELEMENTWISE && p->in[0]->node->op == &mn_op_linear_ce_grad && p->in[0]->dtype == to)
    return p->in[0];
  if (p->op != &mn_op_matmul) return NULL;
  mn_dtype in = p->in[0]->dtype;
  if (in != MN_BF16 || (to != MN_F32 && to != MN_BF16)) return NULL;
  return mn_matmul_as(g, p->in[0], p->in[1], to);
}

/* A simpler tensor for element-wise node n or NULL. */
static mn_tensor *ew_simplify(const mn_simplifying *s, mn_node *n) {
  mn_graph *g = s->g;
  mn_tensor *y = n->out[0];
  double c[3], v;
  bool is_c[3] = {false};
  int constants = 0;
  for (int i = 0; i < n->n_in; i++) constants += is_c[i] = mn_is_full(n->in[i], &c[i]);
  if (constants == n->n_in && fold((mn_ew_code)n->op->code, y->dtype, c, &v)) return mn_full(g, y->dtype, y->shape, v);
  switch (n->op->code) {
  case MN_EW_ADD:
    if (is_c[0] && c[0] == 0) return n->in[1];
    if (is_c[1] && c[1] == 0) return n->in[0];
    break;
  case MN_EW_SUB:
    if (is_c[1] && c[1] == 0) return n->in[0];
    break;
  case MN_EW_MUL:
    if (is_c[0] && c[0] == 1) return n->in[1];
    if (is_c[1] && c[1] == 1) return n->in[0];
    /* a gradient that is zero everywhere; 0 * inf is not an outcome we promise to keep */
    if ((is_c[0] && c[0] == 0) || (is_c[1] && c[1] == 0)) return mn_full(g, y->dtype, y->shape, 0);
    break;
  case MN_EW_DIV:
    if (is_c[1] && c[1] == 1) return n->in[0];
    break;
  case MN_EW_NEG:
    if (n->in[0]->node->op->code == MN_EW_NEG && n->in[0]->node->op->cls == MN_OP_ELEMENTWISE) return n->in[0]->node->in[0];
    break;
  case MN_EW_CAST: { /* widening and back is the identity */
    mn_node *p = n->in[0]->node;
    if (p->op == n->op && p->in[0]->dtype == y->dtype && mn_dtype_is_float(y->dtype) && mn_dtype_is_float(p->out[0]->dtype) &&
        mn_dtype_size(p->out[0]->dtype) >= mn_dtype_size(y->dtype))
      return p->in[0];
    break;
  }
  default:
    break;
  }
  return n->op->code == MN_EW_CAST ? simplify_cast_of_product(s, n) : NULL;
}

#define OTHER(upper, lower)                                                                                                                \
  [MN_EW_##upper] = {                                                                                                                      \
      .name = #lower, .cls = MN_OP_ELEMENTWISE, .code = MN_EW_##upper, .grad = ew_grad, .inplace = ew_inplace, .simplify = ew_simplify},
#define CONSTANT(upper)                                                                                                                    \
  (MN_EW_##upper == MN_EW_SIGN || MN_EW_##upper == MN_EW_FLOOR || MN_EW_##upper == MN_EW_NOT || MN_EW_##upper == MN_EW_LT ||               \
   MN_EW_##upper == MN_EW_LE || MN_EW_##upper == MN_EW_EQ || MN_EW_##upper == MN_EW_AND || MN_EW_##upper == MN_EW_OR)
#define X(upper, lower)                                                                                                                    \
  [MN_EW_##upper] = {.name = #lower,                                                                                                       \
                     .cls = MN_OP_ELEMENTWISE,                                                                                             \
                     .code = MN_EW_##upper,                                                                                                \
                     .grad = ew_grad,                                                                                                      \
                     .inplace = ew_inplace,                                                                                                \
                     .simplify = ew_simplify,                                                                                              \
                     .no_grad = CONSTANT(upper)},
const mn_op mn_op_ew_table[MN_EW_CODES] = {MN_EW_UNARY(X) MN_EW_BINARY(X) OTHER(SELECT, select) OTHER(CAST, cast)};
#undef X

/* ---- broadcasting ---- */
static bool broadcast(mn_graph *g, const char *op, const mn_shape *a, const mn_shape *b, mn_shape *out) {
  int nd = a->ndim > b->ndim ? a->ndim : b->ndim;
  out->ndim = nd;
  for (int i = 0; i < nd; i++) {
    int ia = i - (nd - a->ndim), ib = i - (nd - b->ndim);
    int64_t da = ia >= 0 ? a->dim[ia] : 1, db = ib >= 0 ? b->dim[ib] : 1;
    if (da != db && da != 1 && db != 1) {
      char x[96], y[96];
      mn_graph_fault(g, MN_ERR_SHAPE, "%s: shapes %s and %s do not broadcast", op, mn_shape_str(a, x), mn_shape_str(b, y));
      return false;
    }
    out->dim[i] = da == 1 ? db : da;
  }
  return true;
}

static mn_tensor *unary(mn_graph *g, mn_ew_code code, mn_tensor *x) {
  const mn_op *op = &mn_op_ew_table[code];
  if (x && code == MN_EW_NOT ? x->dtype != MN_BOOL : x && x->dtype == MN_BOOL) {
    mn_graph_fault(g, MN_ERR_SHAPE, "%s: wrong type %s", op->name, mn_dtype_name(x->dtype));
    return NULL;
  }
  return mn_node1(g, op, 1, &x, x ? x->dtype : MN_F32, x ? x->shape : (mn_shape){0}, NULL);
}

static mn_tensor *binary(mn_graph *g, mn_ew_code code, mn_tensor *a, mn_tensor *b) {
  const mn_op *op = &mn_op_ew_table[code];
  mn_shape s;
  if (!a || !b) return mn_node1(g, op, 2, (mn_tensor *[]){a, b}, MN_F32, (mn_shape){0}, NULL);
  if (a->dtype != b->dtype) {
    mn_graph_fault(g, MN_ERR_SHAPE, "%s: operands of types %s and %s; cast one", op->name, mn_dtype_name(a->dtype),
                   mn_dtype_name(b->dtype));
    return NULL;
  }
  if (!broadcast(g, op->name, &a->shape, &b->shape, &s)) return NULL;
  bool logical = code == MN_EW_LT || code == MN_EW_LE || code == MN_EW_EQ || code == MN_EW_AND || code == MN_EW_OR;
  return mn_node1(g, op, 2, (mn_tensor *[]){mn_expand(g, a, s), mn_expand(g, b, s)}, logical ? MN_BOOL : a->dtype, s, NULL);
}

#define X(upper, lower)                                                                                                                    \
  mn_tensor *mn_##lower(mn_graph *g, mn_tensor *x) { return unary(g, MN_EW_##upper, x); }
MN_EW_UNARY(X)
#undef X
#define X(upper, lower)                                                                                                                    \
  mn_tensor *mn_##lower(mn_graph *g, mn_tensor *a, mn_tensor *b) { return binary(g, MN_EW_##upper, a, b); }
MN_EW_BINARY(X)
#undef X

mn_tensor *mn_select(mn_graph *g, mn_tensor *cond, mn_tensor *a, mn_tensor *b) {
  const mn_op *op = &mn_op_ew_table[MN_EW_SELECT];
  mn_shape s, t;
  if (!cond || !a || !b) return mn_node1(g, op, 3, (mn_tensor *[]){cond, a, b}, MN_F32, (mn_shape){0}, NULL);
  if (cond->dtype != MN_BOOL || a->dtype != b->dtype) {
    mn_graph_fault(g, MN_ERR_SHAPE, "select: needs a bool condition and two operands of one type, got %s, %s, %s",
                   mn_dtype_name(cond->dtype), mn_dtype_name(a->dtype), mn_dtype_name(b->dtype));
    return NULL;
  }
  if (!broadcast(g, op->name, &a->shape, &b->shape, &s) || !broadcast(g, op->name, &s, &cond->shape, &t)) return NULL;
  mn_tensor *in[3] = {mn_expand(g, cond, t), mn_expand(g, a, t), mn_expand(g, b, t)};
  return mn_node1(g, op, 3, in, a->dtype, t, NULL);
}

mn_tensor *mn_cast(mn_graph *g, mn_tensor *x, mn_dtype t) {
  if (x && x->dtype == t) return x;
  if (x && mn_dtype_is_stored(x->dtype) && mn_dtype_is_float(t)) return mn_node1(g, &mn_op_unpack, 1, &x, t, x->shape, NULL);
  return mn_node1(g, &mn_op_ew_table[MN_EW_CAST], 1, &x, t, x ? x->shape : (mn_shape){0}, NULL);
}

mn_tensor *mn_add_scalar(mn_graph *g, mn_tensor *x, double v) { return x ? mn_add(g, x, c(g, x, v)) : NULL; }
mn_tensor *mn_mul_scalar(mn_graph *g, mn_tensor *x, double v) { return x ? mn_mul(g, x, c(g, x, v)) : NULL; }
mn_tensor *mn_square(mn_graph *g, mn_tensor *x) { return mn_mul(g, x, x); }
mn_tensor *mn_relu(mn_graph *g, mn_tensor *x) { return x ? mn_maximum(g, c(g, x, 0), x) : NULL; } /* slope 0 at 0, as usual */

mn_tensor *mn_gelu(mn_graph *g, mn_tensor *x) { return mn_mul(g, x, mn_normal_cdf(g, x)); }
mn_tensor *mn_gelu_slope(mn_graph *g, mn_tensor *x) { return mn_add(g, mn_normal_cdf(g, x), mn_mul(g, x, mn_normal_pdf(g, x))); }

mn_tensor *mn_gelu_tanh(mn_graph *g, mn_tensor *x) {
  mn_tensor *cube = mn_mul(g, x, mn_mul(g, x, x));
  mn_tensor *inner = mn_mul_scalar(g, mn_add(g, x, mn_mul_scalar(g, cube, 0.044715)), sqrt(2 / M_PI));
  return mn_mul(g, mn_mul_scalar(g, x, 0.5), mn_add_scalar(g, mn_tanh(g, inner), 1));
}

mn_tensor *mn_log_sigmoid(mn_graph *g, mn_tensor *x) { return mn_neg(g, mn_softplus(g, mn_neg(g, x))); }
