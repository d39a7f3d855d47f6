/* orthogonal.c - see orthogonal.h. On a wide matrix X of norm 1 a step is
 *     A = X X^T      P = b A + c A^2      X' = (a + P) X,
 * and where X is much wider than it is high, several of them are done on its Gram matrix alone before X is touched. For A' of X', and for
 * R with (a + P_k) ... (a + P_1) = a^k + R_k,
 *     B = (a + P) A      A' = (a + P) B      R_1 = P_1      R_k = a R_{k-1} + a^(k-1) P_k + P_k R_{k-1}      X_k = a^k X + R_k X.
 * All of these are polynomials of one symmetric A: symmetric, and in any order. So are their gradients: for D that reaches X_k,
 *     R_k has G_k = sym(D X^T)      P_k has a^(k-1) G_k + sym(G_k R_{k-1})      R_{k-1} has G_{k-1} = sym((a + P_k) G_k)
 *     from H of A':    P has 2 sym(H B)      A has (a + P) H (a + P)
 *     from K of P:     A has b K + 2 c sym(K A)
 * where sym(M) = (M + M^T) / 2; what reaches X is a^k D + R_k D + 2 H X, H that of the first A. All of them are kept twice as large. */
#include <math.h>

#include "graph/orthogonal.h"
#include "graph/ops.h"

static const double a = 3.4445, b = -4.7750, c = 2.0315;

/* A Gram matrix has the squares of the singular values and what is small among them for rounding; a step makes both 12 times as large. Three
 * steps leave as much of that as steps on X do (in f32 some 1e-5); five leave thirty times as much. */
enum { MOST_STEPS = 20, LONGEST_RUN = 3, WIDE = 2 };

typedef struct newton_attr {
  int steps;
} newton_attr;

static mn_tensor *transposed(mn_graph *g, mn_tensor *x) { return mn_transpose(g, x, -1, -2); }
static mn_tensor *scaled(mn_graph *g, mn_tensor *x, double by) { return mn_mul_scalar(g, x, by); }

static mn_tensor *combined(mn_graph *g, double x, mn_tensor *u, double y, mn_tensor *v) {
  return mn_add(g, x == 1 ? u : scaled(g, u, x), y == 1 ? v : scaled(g, v, y));
}
static mn_tensor *plus_product(mn_graph *g, double x, mn_tensor *u, mn_tensor *P) { return combined(g, x, u, 1, mn_matmul(g, P, u)); }
static mn_tensor *twice_sym(mn_graph *g, mn_tensor *m) { return mn_add(g, m, transposed(g, m)); }
static mn_tensor *gram_of(mn_graph *g, mn_tensor *x) { return mn_matmul(g, x, transposed(g, x)); } /* known to be symmetric by its form */

/* What a run of steps makes of its Gram matrix, for each step: A, P, B (but of the last) and R. */
typedef struct run {
  mn_tensor *A[LONGEST_RUN], *P[LONGEST_RUN], *B[LONGEST_RUN], *R[LONGEST_RUN];
  int steps;
} run;

static double power(int k) { return pow(a, k); }

static run run_of(mn_graph *g, mn_tensor *x, int steps) {
  run r = {.steps = steps};
  for (int k = 0; k < steps; k++) {
    r.A[k] = k ? plus_product(g, a, r.B[k - 1], r.P[k - 1]) : gram_of(g, x);
    r.P[k] = combined(g, b, r.A[k], c, gram_of(g, r.A[k]));
    if (k + 1 < steps) r.B[k] = plus_product(g, a, r.A[k], r.P[k]);
    r.R[k] = k ? combined(g, power(k), r.P[k], 1, plus_product(g, a, r.R[k - 1], r.P[k])) : r.P[k];
  }
  return r;
}

static mn_tensor *after(mn_graph *g, const run *r, mn_tensor *x) { return plus_product(g, power(r->steps), x, r->R[r->steps - 1]); }

/* what reaches x from d, which reaches what it is after the run */
static mn_tensor *before(mn_graph *g, const run *r, mn_tensor *x, mn_tensor *d) {
  mn_tensor *G = twice_sym(g, mn_matmul(g, d, transposed(g, x))), *H = NULL;
  for (int k = r->steps - 1; k >= 0; k--) {
    mn_tensor *K = G;
    if (k) {
      K = combined(g, power(k), G, 0.5, twice_sym(g, mn_matmul(g, G, r->R[k - 1])));
      G = combined(g, a, G, 0.5, twice_sym(g, mn_matmul(g, r->P[k], G)));
    }
    if (H) {
      mn_tensor *T = plus_product(g, a, H, r->P[k]);
      K = mn_add(g, K, twice_sym(g, mn_matmul(g, H, r->B[k])));
      H = combined(g, a, T, 1, mn_matmul(g, T, r->P[k]));
    }
    mn_tensor *of_P = combined(g, b, K, c, twice_sym(g, mn_matmul(g, K, r->A[k])));
    H = H ? mn_add(g, H, of_P) : of_P;
  }
  return mn_add(g, after(g, r, d), mn_matmul(g, H, x));
}

/* Steps in a run: in bf16 a Gram matrix would lose what small singular values grow from. */
static int longest_run(const mn_tensor *x) {
  return mn_dtype_size(x->dtype) >= 4 && mn_dim(x, -1) >= WIDE * mn_dim(x, -2) ? LONGEST_RUN : 1;
}

static void newton_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  const int longest = longest_run(in[0]);
  mn_tensor *x = in[0];
  for (int left = ((const newton_attr *)n->attr)->steps; left > 0; left -= longest) {
    const run r = run_of(g, x, left < longest ? left : longest);
    x = after(g, &r, x);
  }
  out[0] = x;
}

static void newton_grad_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  mn_tensor *x[MOST_STEPS], *d = in[1];
  run runs[MOST_STEPS];
  const int longest = longest_run(in[0]);
  int count = 0;
  for (int left = ((const newton_attr *)n->attr)->steps; left > 0; left -= longest, count++) {
    x[count] = count ? after(g, &runs[count - 1], x[count - 1]) : in[0];
    runs[count] = run_of(g, x[count], left < longest ? left : longest);
  }
  while (count-- > 0) d = before(g, &runs[count], x[count], d);
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
