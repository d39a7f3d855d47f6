/* test_cpu_norm.c - norms, softmax and rotary embedding of the CPU backend against loops in double, on each instruction
 * set of this machine: both types, odd sizes, strided rows; 1 and 2 threads must give the same bits. */
#include "cpu_kernel.h"
#include "graph/fused_gated_norm.h"
#include "graph/fused_norm.h"
#include "graph/fused_rope.h"
#include "graph/fused_softmax.h"

static double tolerance(mn_dtype a, mn_dtype b) { return a == MN_F32 && b == MN_F32 ? 1e-5 : 2e-2; }

/* ---- norm ---- */
static void norm_expect(const mn_norm_attr *attr, int64_t rows, int64_t D, const double *x, const double *w, const double *b,
                        const double *dy, double *y, double *dx, double *dw, double *db) {
  for (int64_t d = 0; d < D; d++) dw[d] = db[d] = 0;
  for (int64_t r = 0; r < rows; r++) {
    const double *v = x + r * D, *u = dy + r * D;
    double mean = 0, sq = 0, M = attr->kind == MN_NORM_L2 ? 1 : (double)D, mean_g = 0, dot = 0;
    if (attr->kind == MN_NORM_LAYER)
      for (int64_t d = 0; d < D; d++) mean += v[d] / (double)D;
    for (int64_t d = 0; d < D; d++) sq += (v[d] - mean) * (v[d] - mean);
    double scale = 1 / sqrt(sq / M + attr->eps);
    for (int64_t d = 0; d < D; d++) {
      double xhat = (v[d] - mean) * scale, g = u[d] * (w ? w[d] : 1);
      y[r * D + d] = xhat * (w ? w[d] : 1) + (b ? b[d] : 0);
      if (attr->kind == MN_NORM_LAYER) mean_g += g / (double)D;
      dot += g * xhat;
      dw[d] += u[d] * xhat;
      db[d] += u[d];
    }
    for (int64_t d = 0; d < D; d++) dx[r * D + d] = scale * (u[d] * (w ? w[d] : 1) - mean_g - (v[d] - mean) * scale * dot / M);
  }
}

static void norm_case(mn_isa isa, mn_norm_kind kind, mn_dtype xt, mn_dtype yt, int64_t B, int64_t T, int64_t D, int64_t pad,
                      bool has_weight, bool has_bias) {
  mn_norm_attr attr = {.kind = kind, .eps = 1e-5, .has_weight = has_weight, .has_bias = has_bias};
  mn_view in[4], fwd[1] = {TENSOR(yt, 0, B, T, D)}, bwd[3] = {TENSOR(xt, 0, B, T, D)};
  int n_in = 0, n_bwd = 1, w_at = 0, b_at = 0;
  in[n_in++] = tensor_random(TENSOR(xt, pad, B, T, D), 1, 1.5, 0.25);
  if (has_weight) in[w_at = n_in++] = tensor_random(TENSOR(MN_F32, 0, D), 2, 1, 1), bwd[n_bwd++] = TENSOR(MN_F32, 0, D);
  if (has_bias) in[b_at = n_in++] = tensor_random(TENSOR(MN_F32, 0, D), 3, 1, 0), bwd[n_bwd++] = TENSOR(MN_F32, 0, D);
  in[n_in] = tensor_random(TENSOR(yt, pad / 2, B, T, D), 4, 1, 0);
  double *x = tensor_values(&in[0]), *dy = tensor_values(&in[n_in]), *w = w_at ? tensor_values(&in[w_at]) : NULL,
         *b = b_at ? tensor_values(&in[b_at]) : NULL;
  double *y = mn_alloc(sizeof(double) * (size_t)(2 * (B * T + 1) * D));
  double *dx = y + B * T * D, *dw = dx + B * T * D, *db = dw + D;
  norm_expect(&attr, B * T, D, x, w, b, dy, y, dx, dw, db);
  double tol = tolerance(xt, yt);
  kernel_check_run(mn_cpu_norm_kernels, &mn_op_norm, &attr, isa, n_in, in, 1, fwd);
  CHECK(tensor_error(&fwd[0], y, 0.1) < tol, "%s kind %d %d->%d [%d,%d,%d]: y %g", mn_isa_name(isa), kind, xt, yt, (int)B, (int)T, (int)D,
        tensor_error(&fwd[0], y, 0.1));
  kernel_check_run(mn_cpu_norm_kernels, &mn_op_norm_grad, &attr, isa, n_in + 1, in, n_bwd, bwd);
  /* dx of a row of one element is a difference of equal numbers */
  CHECK(tensor_error(&bwd[0], dx, D < 3 || B * T == 0 ? 1 : 0) < tol, "%s kind %d %d->%d [%d,%d,%d]: dx %g", mn_isa_name(isa), kind, xt, yt,
        (int)B, (int)T, (int)D, tensor_error(&bwd[0], dx, 0));
  if (has_weight)
    CHECK(tensor_error(&bwd[1], dw, 0.1) < tol, "%s kind %d D %d: dweight %g", mn_isa_name(isa), kind, (int)D,
          tensor_error(&bwd[1], dw, 0.1));
  if (has_bias)
    CHECK(tensor_error(&bwd[2], db, 0.1) < tol, "%s kind %d D %d: dbias %g", mn_isa_name(isa), kind, (int)D,
          tensor_error(&bwd[2], db, 0.1));
  tensors_free(n_in + 1, in), tensors_free(1, fwd), tensors_free(n_bwd, bwd);
  free(x), free(dy), free(w), free(b), free(y);
}

static void test_norm(void) {
  EACH_ISA(isa)
  for (int kind = MN_NORM_RMS; kind <= MN_NORM_L2; kind++)
    for (int types = 0; types < 4; types++) {
      mn_dtype xt = types & 1 ? MN_BF16 : MN_F32, yt = types & 2 ? MN_BF16 : MN_F32;
      norm_case(isa, kind, xt, yt, 2, 9, 37, 5, true, true);
      norm_case(isa, kind, xt, yt, 1, 5, 1, 0, true, false);
      norm_case(isa, kind, xt, yt, 2, 0, 24, 0, true, true); /* no rows: gradients of zeros */
      norm_case(isa, kind, xt, yt, 3, 70, 64, 128, false, false);
      norm_case(isa, kind, xt, yt, 2, 300, 320, 0, true, false);
    }
}

/* ---- gated norm ---- */
static void gated_case(mn_isa isa, mn_gated_kind kind, mn_dtype xt, mn_dtype yt, int64_t B, int64_t T, int64_t D, int64_t pad,
                       bool has_weight) {
  mn_gated_norm_attr attr = {.kind = kind, .eps = 1e-5, .has_weight = has_weight};
  mn_view in[4], fwd[1] = {TENSOR(yt, 0, B, T, D)}, bwd[3] = {TENSOR(xt, 0, B, T, D), TENSOR(yt, 0, B, T, D)};
  int n_in = 2;
  in[0] = tensor_random(TENSOR(xt, pad, B, T, D), 1, 1.5, 0.25);
  in[1] = tensor_random(TENSOR(yt, pad, B, T, D), 2, 2, 0);
  if (has_weight) in[n_in++] = tensor_random(TENSOR(MN_F32, 0, D), 3, 1, 1), bwd[2] = TENSOR(MN_F32, 0, D);
  in[n_in] = tensor_random(TENSOR(yt, pad / 2, B, T, D), 4, 1, 0);
  double *x = tensor_values(&in[0]), *gate = tensor_values(&in[1]), *dy = tensor_values(&in[n_in]),
         *w = has_weight ? tensor_values(&in[2]) : NULL;
  const int64_t N = B * T * D;
  double *y = mn_alloc(sizeof(double) * (size_t)(3 * N + D)), *dx = y + N, *dgate = dx + N, *dw = dgate + N;
  for (int64_t d = 0; d < D; d++) dw[d] = 0;
  for (int64_t r = 0; r < N; r += D) {
    double square = 0, dot = 0;
    for (int64_t d = 0; d < D; d++) square += x[r + d] * x[r + d] / (double)D;
    const double scale = 1 / sqrt(square + attr.eps);
    for (int pass = 0; pass < 2; pass++)
      for (int64_t d = 0; d < D; d++) {
        const double u = gate[r + d], s = 1 / (1 + exp(-u)), xhat = x[r + d] * scale, gain = w ? w[d] : 1;
        const double act = kind == MN_GATED_BY_SILU ? u * s : s, slope = kind == MN_GATED_BY_SILU ? s * (1 + u * (1 - s)) : s * (1 - s);
        if (pass == 0) {
          dot += dy[r + d] * act * gain * xhat / (double)D;
          dw[d] += dy[r + d] * act * xhat;
        }
        y[r + d] = xhat * gain * act;
        dx[r + d] = scale * (dy[r + d] * act * gain - xhat * dot);
        dgate[r + d] = dy[r + d] * xhat * gain * slope;
      }
  }
  const double tol = tolerance(xt, yt);
  kernel_check_run(mn_cpu_norm_kernels, &mn_op_gated_norm, &attr, isa, n_in, in, 1, fwd);
  kernel_check_run(mn_cpu_norm_kernels, &mn_op_gated_norm_grad, &attr, isa, n_in + 1, in, n_in, bwd);
  const double e[4] = {tensor_error(&fwd[0], y, 0.1), tensor_error(&bwd[0], dx, D < 3 ? 1 : 0.1), tensor_error(&bwd[1], dgate, 0.1),
                       has_weight ? tensor_error(&bwd[2], dw, 0.1) : 0};
  for (int i = 0; i < 4; i++)
    CHECK(e[i] < tol, "%s gate %d %d->%d [%d,%d,%d]: %s %g", mn_isa_name(isa), kind, xt, yt, (int)B, (int)T, (int)D,
          (const char *[]){"y", "dx", "dgate", "dweight"}[i], e[i]);
  tensors_free(n_in + 1, in), tensors_free(1, fwd), tensors_free(n_in, bwd);
  free(x), free(gate), free(dy), free(w), free(y);
}

static void test_gated_norm(void) {
  EACH_ISA(isa)
  for (int kind = MN_GATED_BY_SILU; kind <= MN_GATED_BY_SIGMOID; kind++)
    for (int types = 0; types < 4; types++) {
      const mn_dtype xt = types & 1 ? MN_BF16 : MN_F32, yt = types & 2 ? MN_BF16 : MN_F32;
      gated_case(isa, kind, xt, yt, 2, 9, 37, 5, true);
      gated_case(isa, kind, xt, yt, 1, 5, 1, 0, true);
      gated_case(isa, kind, xt, yt, 2, 0, 24, 0, true); /* no rows: a gradient of zeros */
      gated_case(isa, kind, xt, yt, 3, 70, 64, 128, false);
      gated_case(isa, kind, xt, yt, 1, 40, 1030, 0, true); /* more than is kept between the passes */
    }
}

/* A row of a large tensor must not depend on its neighbours: a row of zeros and one of 1e30 stay what they are. */
static void test_norm_extremes(void) {
  mn_norm_attr attr = {.kind = MN_NORM_RMS, .eps = 1e-6};
  EACH_ISA(isa) {
    mn_view x = TENSOR(MN_F32, 0, 3, 20), y = TENSOR(MN_F32, 0, 3, 20);
    for (int64_t i = 0; i < 60; i++) tensor_set(&x, i, i < 20 ? 0 : i < 40 ? 1e15 : 1e-15);
    kernel_check_run(mn_cpu_norm_kernels, &mn_op_norm, &attr, isa, 1, &x, 1, &y);
    CHECK(tensor_get(&y, 0) == 0, "zeros gave %g", tensor_get(&y, 0));
    CHECK(fabs(tensor_get(&y, 39) - 1) < 1e-6, "1e15 gave %g", tensor_get(&y, 39));
    CHECK(fabs(tensor_get(&y, 59) - 1e-12) < 1e-17, "1e-15 gave %g", tensor_get(&y, 59));
    free(x.data), free(y.data);
  }
}

/* ---- softmax ---- */
static void softmax_case(mn_isa isa, mn_dtype t, int64_t rows, int64_t D, int64_t pad, double scale) {
  mn_view x = tensor_random(TENSOR(t, pad, rows, D), 5, scale, 0), y = TENSOR(t, 0, rows, D);
  mn_view io[2] = {TENSOR(t, pad, rows, D), tensor_random(TENSOR(t, 0, rows, D), 6, 1, 0)}, dx = TENSOR(t, 0, rows, D);
  double *xs = tensor_values(&x), *dy = tensor_values(&io[1]);
  double *ys = mn_alloc(sizeof(double) * (size_t)(rows * D)), *dxs = mn_alloc(sizeof(double) * (size_t)(rows * D));
  for (int64_t r = 0; r < rows; r++) {
    double most = -INFINITY, sum = 0;
    for (int64_t d = 0; d < D; d++) most = fmax(most, xs[r * D + d]);
    for (int64_t d = 0; d < D; d++) sum += ys[r * D + d] = exp(xs[r * D + d] - most);
    for (int64_t d = 0; d < D; d++) ys[r * D + d] /= sum;
  }
  kernel_check_run(mn_cpu_norm_kernels, &mn_op_softmax, NULL, isa, 1, &x, 1, &y);
  CHECK(tensor_error(&y, ys, 0) < tolerance(t, t), "%s softmax %g", mn_isa_name(isa), tensor_error(&y, ys, 0));
  for (int64_t i = 0; i < rows * D; i++) tensor_set(&io[0], i, ys[i]);
  for (int64_t r = 0; r < rows; r++) {
    double dot = 0;
    for (int64_t d = 0; d < D; d++) dot += tensor_get(&io[0], r * D + d) * dy[r * D + d];
    for (int64_t d = 0; d < D; d++) dxs[r * D + d] = tensor_get(&io[0], r * D + d) * (dy[r * D + d] - dot);
  }
  kernel_check_run(mn_cpu_norm_kernels, &mn_op_softmax_grad, NULL, isa, 2, io, 1, &dx);
  CHECK(tensor_error(&dx, dxs, 0.1) < tolerance(t, t), "%s softmax_grad %g", mn_isa_name(isa), tensor_error(&dx, dxs, 0.1));
  free(x.data), free(y.data), free(io[0].data), free(io[1].data), free(dx.data);
  free(xs), free(dy), free(ys), free(dxs);
}
static void test_softmax(void) {
  EACH_ISA(isa)
  for (int bf16 = 0; bf16 < 2; bf16++) {
    mn_dtype t = bf16 ? MN_BF16 : MN_F32;
    softmax_case(isa, t, 7, 1, 0, 1);
    softmax_case(isa, t, 11, 5, 3, 3);
    softmax_case(isa, t, 200, 129, 0, 3);
    softmax_case(isa, t, 9, 1000, 24, 1e4);
  }
}
static void test_softmax_masked(void) { /* -inf means: not allowed */
  EACH_ISA(isa) {
    mn_view x = TENSOR(MN_F32, 0, 1, 21), y = TENSOR(MN_F32, 0, 1, 21);
    for (int64_t i = 0; i < 21; i++) tensor_set(&x, i, i % 2 ? -INFINITY : 1);
    kernel_check_run(mn_cpu_norm_kernels, &mn_op_softmax, NULL, isa, 1, &x, 1, &y);
    for (int64_t i = 0; i < 21; i++)
      CHECK(fabs(tensor_get(&y, i) - (i % 2 ? 0 : 1.0 / 11)) < 1e-7, "element %d is %g", (int)i, tensor_get(&y, i));
    free(x.data), free(y.data);
  }
}

/* ---- rotary embedding ---- */
static void rope_case(mn_isa isa, mn_dtype t, bool interleaved, bool inverse, int64_t K, bool per_batch) {
  enum { B = 2, T = 13, H = 3 };
  mn_rope_attr attr = {.interleaved = interleaved, .inverse = inverse};
  mn_view in[3] = {tensor_random(TENSOR(t, 2 * K, B, T, H, K), 7, 1, 0)}, y = TENSOR(t, 0, B, T, H, K);
  double *expect = mn_alloc(sizeof(double) * (size_t)(B * T * H * K)), *x = tensor_values(&in[0]);
  for (int i = 1; i < 3; i++)
    in[i] = tensor_random(per_batch ? TENSOR(MN_F32, 3, B, T, K / 2) : TENSOR(MN_F32, 0, T, K / 2), (uint64_t)(10 + i), 1, 0);
  for (int64_t r = 0; r < B * T * H; r++)
    for (int64_t k = 0; k < K / 2; k++) {
      int64_t token = per_batch ? r / H : r / H % T;
      double c = tensor_get(&in[1], token * (K / 2) + k), s = tensor_get(&in[2], token * (K / 2) + k) * (inverse ? -1 : 1);
      int64_t a = r * K + (interleaved ? 2 * k : k), b = r * K + (interleaved ? 2 * k + 1 : k + K / 2);
      expect[a] = x[a] * c - x[b] * s;
      expect[b] = x[b] * c + x[a] * s;
    }
  kernel_check_run(mn_cpu_norm_kernels, &mn_op_rope, &attr, isa, 3, in, 1, &y);
  CHECK(tensor_error(&y, expect, 0) < tolerance(t, t), "%s rope K %d interleaved %d: %g", mn_isa_name(isa), (int)K, interleaved,
        tensor_error(&y, expect, 0));
  tensors_free(3, in), free(y.data), free(expect), free(x);
}
static void test_rope(void) {
  static const int64_t widths[] = {2, 6, 16, 50, 64, 128};
  EACH_ISA(isa)
  for (int bits = 0; bits < 16; bits++)
    for (int k = 0; k < 6; k++) rope_case(isa, bits & 1 ? MN_BF16 : MN_F32, bits & 2, bits & 4, widths[k], bits & 8);
}

int main(void) {
  RUN(test_norm);
  RUN(test_gated_norm);
  RUN(test_norm_extremes);
  RUN(test_softmax);
  RUN(test_softmax_masked);
  RUN(test_rope);
  return test_end();
}
