/* orthogonal.c - see orthogonal.h. On a wide matrix X of norm 1, each step is, with P symmetric,
 *     A = X X^T      P = b A + c A^2      X' = a X + P X
 * and for D that reaches X', as A is symmetric, too,
 *     G = D X^T + (D X^T)^T      M = G A      H = b G + c (M + M^T)      what reaches X is a D + P D + H X */
#include "graph/orthogonal.h"
#include "graph/ops.h"

static const double a = 3.4445, b = -4.7750, c = 2.0315;

enum { MOST_STEPS = 20 };

typedef struct newton_attr {
  int steps;
} newton_attr;

static mn_tensor *transposed(mn_graph *g, mn_tensor *x) { return mn_transpose(g, x, -1, -2); }
static mn_tensor *scaled(mn_graph *g, mn_tensor *x, double by) { return mn_mul_scalar(g, x, by); }

static mn_tensor *gram_of(mn_graph *g, mn_tensor *x) { return mn_matmul(g, x, transposed(g, x)); }
static mn_tensor *polynomial(mn_graph *g, mn_tensor *A) { /* A^2 as A A^T: a product of this form is known to be symmetric */
  return mn_add(g, scaled(g, A, b), scaled(g, gram_of(g, A), c));
}

static void newton_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  mn_tensor *x = in[0];
  for (int i = 0; i < ((const newton_attr *)n->attr)->steps; i++) {
    mn_tensor *P = polynomial(g, gram_of(g, x));
    x = mn_add(g, scaled(g, x, a), mn_matmul(g, P, x));
  }
  out[0] = x;
}

static void newton_grad_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  mn_tensor *x[MOST_STEPS], *A[MOST_STEPS], *P[MOST_STEPS], *d = in[1];
  const int steps = ((const newton_attr *)n->attr)->steps;
  for (int i = 0; i < steps; i++) {
    x[i] = i ? mn_add(g, scaled(g, x[i - 1], a), mn_matmul(g, P[i - 1], x[i - 1])) : in[0];
    A[i] = gram_of(g, x[i]);
    P[i] = polynomial(g, A[i]);
  }
  for (int i = steps - 1; i >= 0; i--) {
    mn_tensor *dx = mn_matmul(g, d, transposed(g, x[i])), *G = mn_add(g, dx, transposed(g, dx)), *M = mn_matmul(g, G, A[i]);
    mn_tensor *H = mn_add(g, scaled(g, G, b), scaled(g, mn_add(g, M, transposed(g, M)), c));
    d = mn_add(g, mn_add(g, scaled(g, d, a), mn_matmul(g, P[i], d)), mn_matmul(g, H, x[i]));
  }
  out[0] = d;
}
static const mn_op op_newton_grad = {
    .name = "newton_schulz_grad", .cls = MN_OP_FUSED, .attr_size = sizeof(newton_attr), .compose = newton_grad_compose};

static void newton_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)need;
  din[0] = mn_node1(g, &op_newton_grad, 2, (mn_tensor *[]){n->in[0], dout[0]}, n->in[0]->dtype, n->in[0]->shape, n->attr);
}
static const mn_op op_newton = {
    .name = "newton_schulz", .cls = MN_OP_FUSED, .attr_size = sizeof(newton_attr), .grad = newton_grad, .compose = newton_compose};

mn_tensor *mn_orthogonal(mn_graph *g, mn_tensor *x, int steps) {
  if (!x) return NULL;
  const int last = x->shape.ndim - 1;
  if (last < 1 || steps < 1 || steps > MOST_STEPS || !mn_dtype_is_float(x->dtype)) {
    char s[96];
    mn_graph_fault(g, MN_ERR_SHAPE, "orthogonal: %d steps for %s %s, which is 1 to 20 for floats [..., m, n]", steps,
                   mn_dtype_name(x->dtype), mn_shape_str(&x->shape, s));
    return NULL;
  }
  const bool tall = mn_dim(x, -2) > mn_dim(x, -1);
  if (tall) x = transposed(g, x);
  mn_tensor *size = last == 1 ? mn_sumsq(g, x) : mn_sum(g, mn_square(g, x), MN_AXIS(last) | MN_AXIS(last - 1));
  size = mn_sqrt(g, mn_add_scalar(g, size, 1e-30)); /* a root's slope at 0 is infinite: zeros had a gradient that is NaN */
  x = mn_div(g, x, mn_add_scalar(g, size, 1e-7));
  if (!x) return NULL;
  x = mn_node1(g, &op_newton, 1, &x, x->dtype, x->shape, &(newton_attr){steps});
  return tall ? transposed(g, x) : x;
}
