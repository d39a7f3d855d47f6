/* test_products.c - what must be true of products that take over what stands beside them: alpha a b + c on every instruction set, in
 * place and apart; plans in which a product is scaled and summed up where the sum lies give what plans without it give, and have fewer
 * passes; a sum stays where it is one pass with its neighbours, where somebody else reads its terms, or where the product is of a matrix and its
 * transpose, half of which is a mirror. */
#include "compile/plan.h"
#include "cpu_kernel_test.h"
#include "graph/fused_product.h"
#include "graph/ops.h"

const mn_kernel *const *mn_cpu_matmul_kernels(mn_isa isa, int *n);

/* ---- the kernel ---- */
static void fill(float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] = (float)draw(-1, 1);
}

/* c: 0 none, 1 in place, 2 apart, 3 apart with room between its rows */
static void kernel_one(int64_t B, int64_t M, int64_t N, int64_t K, int c, mn_pool *pool) {
  float *a = malloc(4 * (size_t)(B * M * K)), *b = malloc(4 * (size_t)(B * K * N)), *from = malloc(4 * (size_t)(B * M * (N + 3))),
        *y = malloc(4 * (size_t)(B * M * N)), *again = malloc(4 * (size_t)(B * M * N));
  if (!a || !b || !from || !y || !again) abort();
  fill(a, B * M * K), fill(b, B * K * N), fill(from, B * M * (N + 3));
  const int64_t da[] = {B, M, K}, db[] = {B, K, N}, dc[] = {B, M, N}, ldc = c == 3 ? N + 3 : N;
  const mn_scaled_product_attr attr = {-0.5};
  for (int threads = 0; threads < 2; threads++) {
    float *out = threads ? again : y;
    mn_view in[3] = {dense(a, MN_F32, 3, da), dense(b, MN_F32, 3, db), dense(c == 1 ? out : from, MN_F32, 3, dc)};
    mn_view result = dense(out, MN_F32, 3, dc);
    if (c == 1) memcpy(out, from, 4 * (size_t)(B * M * N));
    if (c == 3) in[2].stride[0] = M * ldc, in[2].stride[1] = ldc;
    CHECK(run_kernel(mn_cpu_matmul_kernels, &mn_op_scaled_product, &attr, c ? 3 : 2, in, 1, &result, threads ? pool : NULL), "no kernel");
  }
  double worst = 0;
  for (int64_t p = 0; p < B; p++)
    for (int64_t i = 0; i < M; i++)
      for (int64_t j = 0; j < N; j++) {
        double sum = 0;
        for (int64_t k = 0; k < K; k++) sum += (double)a[(p * M + i) * K + k] * b[(p * K + k) * N + j];
        const double want = -0.5 * sum + (c ? from[(p * M + i) * ldc + j] : 0);
        worst = fmax(worst, fabs(want - y[(p * M + i) * N + j]));
      }
  CHECK(worst < 2e-5, "%lld x %lld x %lld x %lld, c %d: error %g", (long long)B, (long long)M, (long long)N, (long long)K, c, worst);
  CHECK(memcmp(y, again, 4 * (size_t)(B * M * N)) == 0, "two threads: other bits");
  free(a), free(b), free(from), free(y), free(again);
}
static void kernel_on_isa(void) {
  mn_pool *pool = mn_pool_new(2);
  for (int c = 0; c < 4; c++) {
    kernel_one(3, 13, 29, 17, c, pool);
    kernel_one(1, 3, 700, 40, c, pool);    /* few rows           */
    kernel_one(1, 150, 1, 33, c, pool);    /* one column         */
    kernel_one(2, 130, 150, 120, c, pool); /* blocks             */
    kernel_one(1, 40, 50, 1100, c, pool);  /* K in several slices */
  }
  mn_pool_free(pool);
}
static void kernel(void) { each_isa(kernel_on_isa); }

/* ---- a matrix and its transpose ---- */
/* x x^T of x [2,n,K], or of x [2,K,n] seen turned: half of it is computed, to the bits that a copy of x as the other operand gives. */
static void square_one(int64_t n, int64_t K, bool turned) {
  const int64_t dx[] = {2, turned ? K : n, turned ? n : K}, dy[] = {2, n, n};
  float *x = malloc(4 * (size_t)(2 * n * K)), *copy = malloc(4 * (size_t)(2 * n * K)), *y[2];
  for (int i = 0; i < 2; i++) y[i] = malloc(4 * (size_t)(2 * n * n));
  if (!x || !copy || !y[0] || !y[1]) abort();
  fill(x, 2 * n * K);
  memcpy(copy, x, 4 * (size_t)(2 * n * K));
  for (int i = 0; i < 2; i++) {
    mn_view in[2] = {dense(x, MN_F32, 3, dx), dense(i ? copy : x, MN_F32, 3, dx)}, out = dense(y[i], MN_F32, 3, dy);
    mn_view *other = &in[!turned]; /* the one that is seen turned */
    other->dim[1] = dx[2], other->dim[2] = dx[1], other->stride[1] = 1, other->stride[2] = dx[2];
    CHECK(run_kernel(mn_cpu_matmul_kernels, &mn_op_matmul, NULL, 2, in, 1, &out, NULL), "no kernel");
  }
  CHECK(memcmp(y[0], y[1], 4 * (size_t)(2 * n * n)) == 0, "%lld x %lld%s: other bits", (long long)n, (long long)K,
        turned ? ", turned" : "");
  free(x), free(copy), free(y[0]), free(y[1]);
}
static void squares_on_isa(void) {
  static const int64_t n[] = {1, 7, 16, 29, 64, 70, 131, 200}, K[] = {1, 9, 64, 128, 300, 1100};
  for (size_t i = 0; i < sizeof n / sizeof *n; i++)
    for (size_t k = 0; k < sizeof K / sizeof *K; k++) square_one(n[i], K[k], false), square_one(n[i], K[k], true);
}
static void half_of_a_square_is_a_mirror(void) { each_isa(squares_on_isa); }

/* ---- plans ---- */
typedef mn_tensor *build(mn_graph *g, mn_tensor *x, mn_tensor *const *w); /* x [2,6,8], w[4] [8,8] */
enum { WEIGHTS = 4, ROWS = 2 * 6, WIDTH = 8 };

static mn_tensor *sum_of_products(mn_graph *g, mn_tensor *x, mn_tensor *const *w) {
  mn_tensor *y = mn_sub(g, mn_matmul(g, x, w[0]), mn_matmul(g, x, w[1]));
  mn_tensor *rows = mn_reshape(g, x, MN_SHAPE(ROWS, WIDTH));
  return mn_add(g, mn_reshape(g, mn_matmul(g, rows, w[2]), x->shape), y);
}
static mn_tensor *factors(mn_graph *g, mn_tensor *x, mn_tensor *const *w) { /* of the operand and of the result, seen through views */
  mn_tensor *rows = mn_reshape(g, mn_mul_scalar(g, x, 3), MN_SHAPE(ROWS, WIDTH));
  return mn_mul_scalar(g, mn_reshape(g, mn_matmul(g, rows, w[0]), MN_SHAPE(2, 6, 4, 2)), 0.25);
}
static mn_tensor *pass_and_product(mn_graph *g, mn_tensor *x, mn_tensor *const *w) { /* the sum is all that follows the pass */
  return mn_sub(g, mn_tanh(g, mn_square(g, x)), mn_matmul(g, x, w[0]));
}
static mn_tensor *between_passes(mn_graph *g, mn_tensor *x, mn_tensor *const *w) {
  return mn_tanh(g, mn_add(g, mn_square(g, x), mn_matmul(g, x, w[0])));
}
static mn_tensor *term_read_twice(mn_graph *g, mn_tensor *x, mn_tensor *const *w) {
  mn_tensor *p = mn_matmul(g, x, w[0]), *q = mn_cumsum(g, x, 1, MN_FORWARD);
  return mn_mul(g, mn_cumsum(g, mn_add(g, q, p), 1, MN_FORWARD), mn_mul(g, p, q));
}
static mn_tensor *squares(mn_graph *g, mn_tensor *x, mn_tensor *const *w) { /* the sum would keep the kernel from halving its work */
  (void)w;
  mn_tensor *A = mn_matmul(g, x, mn_transpose(g, x, 1, 2)), *AA = mn_matmul(g, A, mn_transpose(g, A, 1, 2));
  return mn_matmul(g, mn_add(g, mn_mul_scalar(g, A, -4), mn_mul_scalar(g, AA, 2)), x);
}
static mn_tensor *gradients(mn_graph *g, mn_tensor *x, mn_tensor *const *w) { /* to x, from four products */
  mn_tensor *y = NULL, *dx;
  for (int i = 0; i < WEIGHTS; i++) {
    mn_tensor *p = mn_silu(g, mn_matmul(g, mn_mul_scalar(g, x, 0.5), w[i]));
    y = y ? mn_mul(g, y, p) : p;
  }
  return mn_grad(g, 1, &y, NULL, 1, &x, &dx) == MN_OK ? dx : NULL;
}

typedef struct seen {
  int scaled, ew;
} seen;
static void look(void *ctx, const char *line) {
  seen *s = ctx;
  s->scaled += strstr(line, "scaled_product  ") != NULL;
  s->ew += strstr(line, " cpu ew") != NULL;
}

/* ew below 0: any number */
static void plan_gives(build *f, const char *what, int scaled, int ew) {
  mn_backend *b = NULL;
  CHECK_OK(mn_backend_cpu_new(1, &b));
  float data[1 + WEIGHTS][ROWS * WIDTH], result[2][ROWS * WIDTH];
  for (int i = 0; i <= WEIGHTS; i++) fill(data[i], ROWS * WIDTH);
  for (int off = 0; off < 2 && b; off++) {
    mn_graph *g = mn_graph_new();
    mn_tensor *leaf[1 + WEIGHTS] = {mn_input(g, "x", MN_F32, MN_SHAPE(2, 6, WIDTH))};
    for (int i = 1; i <= WEIGHTS; i++) leaf[i] = mn_input(g, "w", MN_F32, MN_SHAPE(WIDTH, WIDTH));
    mn_tensor *y = f(g, leaf[0], leaf + 1);
    CHECK_OK(mn_graph_status(g));
    const mn_plan_request q = {.graph = g, .n_outputs = 1, .outputs = &y, .backend = b, .passes_off = off ? MN_PASS_FUSE : 0};
    mn_plan *plan = NULL;
    CHECK_OK(mn_plan_compile(&q, &plan));
    if (plan) {
      for (int i = 0; i <= WEIGHTS; i++) mn_plan_bind(plan, leaf[i], data[i]);
      CHECK_OK(mn_plan_run(plan));
      memcpy(result[off], mn_plan_output(plan, 0)->data, sizeof result[off]);
      seen s = {0, 0};
      mn_plan_describe(plan, look, &s);
      CHECK(off || (s.scaled == scaled && (s.ew == ew || ew < 0)), "%s: %d scaled products and %d passes, not %d and %d", what, s.scaled,
            s.ew, scaled, ew);
      CHECK(!off || s.scaled == 0, "%s: scaled without fusion", what);
    }
    mn_plan_free(plan);
    mn_graph_free(g);
  }
  for (int i = 0; i < ROWS * WIDTH; i++)
    CHECK(fabsf(result[0][i] - result[1][i]) <= 1e-5f * (1 + fabsf(result[1][i])), "%s: %g, not %g", what, result[0][i], result[1][i]);
  mn_backend_free(b);
}
static void plans(void) {
  plan_gives(sum_of_products, "a sum of products", 2, 0);
  plan_gives(factors, "factors", 1, 0);
  plan_gives(pass_and_product, "a pass before a sum", 1, 1);
  plan_gives(between_passes, "a sum between passes", 0, 1);
  plan_gives(term_read_twice, "a term read twice", 0, 2);
  plan_gives(squares, "squares", 1, 1);
  plan_gives(gradients, "gradients", 8, -1);
}

int main(void) {
  RUN(kernel);
  RUN(half_of_a_square_is_a_mirror);
  RUN(plans);
  return test_end();
}
