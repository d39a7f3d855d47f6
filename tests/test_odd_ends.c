/* test_odd_ends.c - what vector code does at its edges is what the plain reference does: at sizes beside the width of a register, where one
 * number is infinite, NaN, a zero with a sign or below the normal ones, results have the same infinities and NaNs in the same places, and the
 * same numbers elsewhere. A lane that is not there counts for nothing, whatever the others hold. */
#include "base/bf16.h"
#include "graph/fused_attention.h"
#include "graph/fused_conv.h"
#include "graph/fused_norm.h"
#include "graph/fused_rope.h"
#include "graph/fused_softmax.h"
#include "graph/ops.h"
#include "compile/plan.h"
#include "test.h"

#include <math.h>

static mn_backend *cpu;
static uint64_t drawn;

static float draw(void) { return (float)mn_random_normal(7, 0, drawn++); }

static const float ends[] = {INFINITY, -INFINITY, NAN, -0.0F, 0x1p-130F, -0x1p-149F, 3e38F};
enum { ENDS = sizeof ends / sizeof *ends, MOST = 80 * 80 };

typedef mn_tensor *(*build)(mn_graph *g, mn_tensor *x, int64_t n);

static mn_tensor *all_max(mn_graph *g, mn_tensor *x, int64_t n) { return (void)n, mn_max(g, x, mn_last_axis(x)); }
static mn_tensor *rows_max(mn_graph *g, mn_tensor *x, int64_t n) { return (void)n, mn_max(g, x, MN_AXIS(0)); }
static mn_tensor *all_sum(mn_graph *g, mn_tensor *x, int64_t n) { return (void)n, mn_sum(g, x, mn_last_axis(x)); }
static mn_tensor *rows_sum(mn_graph *g, mn_tensor *x, int64_t n) { return (void)n, mn_sum(g, x, MN_AXIS(0)); }
static mn_tensor *squares(mn_graph *g, mn_tensor *x, int64_t n) { return (void)n, mn_sumsq(g, x); }
static mn_tensor *argmax(mn_graph *g, mn_tensor *x, int64_t n) { return (void)n, mn_argmax(g, x); }
static mn_tensor *largest(mn_graph *g, mn_tensor *x, int64_t n) { return mn_topk(g, x, n < 3 ? n : 3); }
static mn_tensor *sums(mn_graph *g, mn_tensor *x, int64_t n) { return (void)n, mn_cumsum(g, x, 1, MN_FORWARD); }
static mn_tensor *sums_down(mn_graph *g, mn_tensor *x, int64_t n) { return (void)n, mn_cumsum(g, x, 0, MN_BACKWARD); }
static mn_tensor *softmax(mn_graph *g, mn_tensor *x, int64_t n) { return (void)n, mn_softmax(g, x); }
static mn_tensor *rms(mn_graph *g, mn_tensor *x, int64_t n) { return (void)n, mn_norm(g, MN_NORM_RMS, x, NULL, NULL, 1e-6, x->dtype); }
static mn_tensor *layer(mn_graph *g, mn_tensor *x, int64_t n) { return (void)n, mn_norm(g, MN_NORM_LAYER, x, NULL, NULL, 1e-6, x->dtype); }
static mn_tensor *turned(mn_graph *g, mn_tensor *x, int64_t n) { return (void)n, mn_copy(g, mn_transpose(g, x, 0, 1)); }
static mn_tensor *padded(mn_graph *g, mn_tensor *x, int64_t n) { return (void)n, mn_pad(g, x, 1, 1, 2); }
static mn_tensor *product(mn_graph *g, mn_tensor *x, int64_t n) { return (void)n, mn_matmul(g, x, mn_transpose(g, x, 0, 1)); }
static mn_tensor *inner(mn_graph *g, mn_tensor *x, int64_t n) { return (void)n, mn_matmul(g, mn_transpose(g, x, 0, 1), x); }
static mn_tensor *wide(mn_graph *g, mn_tensor *x, int64_t n) { return (void)n, mn_matmul_as(g, x, mn_transpose(g, x, 0, 1), MN_F32); }
static mn_tensor *first_row(mn_graph *g, mn_tensor *x, int64_t n) {
  return (void)n, mn_matmul(g, mn_slice(g, x, 0, 0, 1), mn_transpose(g, x, 0, 1));
}
static mn_tensor *first_column(mn_graph *g, mn_tensor *x, int64_t n) {
  return (void)n, mn_matmul(g, mn_transpose(g, mn_slice(g, x, 1, 0, 1), 0, 1), x);
}
static mn_tensor *cast(mn_graph *g, mn_tensor *x, int64_t n) { return (void)n, mn_cast(g, x, x->dtype == MN_F32 ? MN_BF16 : MN_F32); }
static mn_tensor *limits(mn_graph *g, mn_tensor *x, int64_t n) {
  return (void)n, mn_maximum(g, mn_minimum(g, x, mn_full(g, x->dtype, x->shape, 0.5)), mn_full(g, x->dtype, x->shape, -0.5));
}
static mn_tensor *conv(mn_graph *g, mn_tensor *x, int64_t n) {
  return mn_causal_conv(g, mn_unsqueeze(g, x, 0), mn_full(g, MN_F32, MN_SHAPE(n, 3), 0.5), NULL, NULL);
}
static mn_tensor *attention(mn_graph *g, mn_tensor *x, int64_t n) {
  mn_tensor *q = mn_reshape(g, x, MN_SHAPE(1, mn_dim(x, 0), 1, n));
  return mn_attention(g, q, q, q, NULL, NULL, NULL, (mn_attention_attr){.scale = 0.25, .causal = true}, NULL);
}

static mn_tensor *last_query(mn_graph *g, mn_tensor *x, int64_t n) { /* as a stream's next token asks */
  mn_tensor *k = mn_reshape(g, x, MN_SHAPE(1, mn_dim(x, 0), 1, n)), *q = mn_slice(g, k, 1, mn_dim(x, 0) - 1, 1);
  return mn_attention(g, q, k, k, NULL, NULL, NULL, (mn_attention_attr){.scale = 0.25}, NULL);
}

static const struct {
  const char *name;
  build make;
  double slack; /* of the largest number; bf16 has eight bits more */
} all[] = {{"max", all_max, 0},
           {"max of columns", rows_max, 0},
           {"sum", all_sum, 1e-5},
           {"sum of columns", rows_sum, 1e-5},
           {"squares", squares, 1e-5},
           {"argmax", argmax, 0},
           {"largest", largest, 0},
           {"sums", sums, 1e-5},
           {"sums back", sums_down, 1e-5},
           {"softmax", softmax, 1e-5},
           {"rms norm", rms, 1e-5},
           {"layer norm", layer, 1e-5},
           {"transposed", turned, 0},
           {"padded", padded, 0},
           {"product", product, 1e-5},
           {"product of columns", inner, 1e-5},
           {"product in f32", wide, 1e-5},
           {"product of a row", first_row, 1e-5},
           {"product of a column", first_column, 1e-5},
           {"cast", cast, 0},
           {"limits", limits, 0},
           {"convolution", conv, 1e-5},
           {"attention", attention, 1e-5},
           {"attention of the last", last_query, 1e-5}};

static double element(const void *p, mn_dtype t, int64_t i) {
  if (t == MN_I32) return ((const int32_t *)p)[i];
  return t == MN_BF16 ? (double)mn_bf16_to_float(((const uint16_t *)p)[i]) : (double)((const float *)p)[i];
}

/* The results of the operation on rows x n numbers of this type, as doubles; how many; -1: it did not run. */
static int64_t compute(int which, mn_backend *b, mn_dtype t, int64_t rows, int64_t n, void *x, double *to, mn_dtype *type) {
  mn_graph *g = mn_graph_new();
  mn_tensor *in = mn_input(g, "x", t, MN_SHAPE(rows, n)), *y = all[which].make(g, in, n);
  mn_plan *p = NULL;
  int64_t count = -1;
  mn_status status = mn_graph_status(g);
  if (status == MN_OK) status = mn_plan_compile(&(mn_plan_request){.graph = g, .n_outputs = 1, .outputs = &y, .backend = b}, &p);
  if (status == MN_OK) {
    mn_plan_bind(p, in, x);
    status = mn_plan_run(p);
  }
  if (status == MN_OK) {
    count = mn_shape_count(&y->shape);
    *type = y->dtype;
    for (int64_t i = 0; i < count && i < MOST; i++) to[i] = element(mn_plan_output(p, 0)->data, y->dtype, i);
  }
  CHECK(status == MN_OK && count <= MOST, "%s of %lld x %lld: %s", all[which].name, (long long)rows, (long long)n, mn_message());
  mn_plan_free(p);
  mn_graph_free(g);
  return count;
}

static void compare(int which, mn_dtype t, int64_t rows, int64_t n, int64_t at, float end) {
  static float f[MOST];
  static uint16_t h[MOST];
  static double want[MOST], got[MOST];
  mn_dtype type = MN_F32;
  for (int64_t i = 0; i < rows * n; i++) f[i] = draw();
  if (all[which].make == attention && at >= 0) at %= n; /* a key that all see: of others the reference takes 0 times, and kernels nothing */
  if ((all[which].make == attention || all[which].make == last_query) && end == 3e38F)
    end = 1e4F; /* scores beyond 2^30 are not told apart */
  if (at >= 0) f[at] = end;
  for (int64_t i = 0; i < rows * n; i++) h[i] = mn_float_to_bf16(f[i]);
  void *x = t == MN_BF16 ? (void *)h : (void *)f;
  const int64_t count = compute(which, mn_backend_ref(), t, rows, n, x, want, &type);
  if (count < 0 || compute(which, cpu, t, rows, n, x, got, &type) != count) return;
  double most = 1;
  int64_t wrong = -1;
  for (int64_t i = 0; i < count; i++)
    if (isfinite(want[i])) most = fmax(most, fabs(want[i]));
  const double slack = all[which].slack * (type == MN_BF16 ? 1000 : 1) * most;
  for (int64_t i = 0; i < count && wrong < 0; i++) {
    const bool same = isnan(want[i]) ? isnan(got[i]) : isinf(want[i]) ? got[i] == want[i] : fabs(got[i] - want[i]) <= slack;
    if (!same) wrong = i;
  }
  CHECK(wrong < 0, "%s of %lld x %lld in %s, with %g at %lld: %lld is %g, not %g", all[which].name, (long long)rows, (long long)n,
        mn_dtype_name(t), (double)end, (long long)at, (long long)wrong, got[wrong < 0 ? 0 : wrong], want[wrong < 0 ? 0 : wrong]);
}

static void at_their_edges_vectors_are_as_plain_code(void) {
  static const int64_t sizes[][2] = {{1, 1},  {1, 15}, {2, 16}, {3, 17}, {5, 31}, {4, 32},  {6, 33},
                                     {7, 47}, {1, 63}, {9, 65}, {17, 5}, {33, 3}, {15, 16}, {29, 79}};
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
    for (int which = 0; which < (int)(sizeof all / sizeof *all); which++)
      for (int bf16 = 0; bf16 < 2; bf16++) {
        const int64_t rows = sizes[s][0], n = sizes[s][1];
        const mn_dtype t = bf16 ? MN_BF16 : MN_F32;
        compare(which, t, rows, n, -1, 0);
        for (int e = 0; e < ENDS; e++) /* the first, the last, and one of those between */
          compare(which, t, rows, n, e % 3 == 0 ? rows * n - 1 : e % 3 == 1 ? 0 : (int64_t)(drawn % (uint64_t)(rows * n)), ends[e]);
      }
}

int main(void) {
  if (mn_backend_cpu_new(1, &cpu) != MN_OK) return 1;
  RUN(at_their_edges_vectors_are_as_plain_code);
  mn_backend_free(cpu);
  return test_end();
}
