/* test_cpu_conv.c - the causal depthwise convolution of the CPU backend and its gradient against loops in double, on
 * each instruction set of this machine: with and without bias and prefix, odd sizes, strided rows, segments shorter
 * than the window; 1 and 2 threads must give the same bits. */
#include "cpu_kernel.h"
#include "graph/fused_conv.h"

typedef struct sizes {
  int64_t B, T, D, W, pad;
} sizes;

static void conv_case(mn_isa isa, mn_dtype t, mn_dtype wt, sizes n, bool has_bias, bool has_prefix) {
  mn_conv_attr attr = {.has_bias = has_bias, .has_prefix = has_prefix};
  int64_t B = n.B, T = n.T, D = n.D, W = n.W, P = W - 1;
  mn_view in[5], y = TENSOR(t, 0, B, T, D), out[4] = {TENSOR(t, 0, B, T, D), TENSOR(wt, 0, D, W)};
  int n_in = 0, n_out = 2;
  in[n_in++] = tensor_random(TENSOR(t, n.pad, B, T, D), 1, 1, 0);
  in[n_in++] = tensor_random(TENSOR(wt, 0, D, W), 2, 0.5, 0);
  mn_view bias = tensor_random(TENSOR(wt, 0, D), 3, 1, 0), prefix = tensor_random(TENSOR(t, 0, B, P, D), 4, 1, 0);
  if (has_bias) in[n_in++] = bias, out[n_out++] = TENSOR(wt, 0, D);
  if (has_prefix) in[n_in++] = prefix, out[n_out++] = TENSOR(t, 0, B, P, D);
  mn_view dy = in[n_in] = tensor_random(TENSOR(t, n.pad / 2, B, T, D), 5, 1, 0);

  size_t count = (size_t)(B * (T + P) * D);
  double *all = mn_calloc(2 * count + (size_t)(B * T * D + D * W + D), sizeof(double)), *dall = all + count;
  double *ys = dall + count, *dw = ys + B * T * D, *db = dw + D * W; /* all: prefix and x; dall: their gradient */
  for (int64_t b = 0; b < B; b++)
    for (int64_t s = 0; s < T + P; s++)
      for (int64_t d = 0; d < D; d++)
        all[(b * (T + P) + s) * D + d] = s >= P       ? tensor_get(&in[0], (b * T + s - P) * D + d)
                                         : has_prefix ? tensor_get(&prefix, (b * P + s) * D + d)
                                                      : 0;
  for (int64_t b = 0; b < B; b++)
    for (int64_t s = 0; s < T; s++)
      for (int64_t d = 0; d < D; d++) {
        double sum = has_bias ? tensor_get(&bias, d) : 0, g = tensor_get(&dy, (b * T + s) * D + d);
        for (int64_t j = 0; j < W; j++) {
          int64_t at = (b * (T + P) + s + j) * D + d;
          double w = tensor_get(&in[1], d * W + j);
          sum += w * all[at];
          dall[at] += w * g;
          dw[d * W + j] += all[at] * g;
        }
        ys[(b * T + s) * D + d] = sum;
        db[d] += g;
      }

  double tol = t == MN_F32 ? 1e-5 : 2e-2, grad_tol = t == MN_F32 && wt == MN_F32 ? 1e-5 : 2e-2;
  kernel_check_run(mn_cpu_conv_kernels, &mn_op_conv, &attr, isa, n_in, in, 1, &y);
  CHECK(tensor_error(&y, ys, 0) < tol, "%s T %d D %d W %d: y %g", mn_isa_name(isa), (int)T, (int)D, (int)W, tensor_error(&y, ys, 0));
  kernel_check_run(mn_cpu_conv_kernels, &mn_op_conv_grad, &attr, isa, n_in + 1, in, n_out, out);
  double *dx = mn_alloc(sizeof(double) * (count + 1));
  for (int64_t i = 0; i < B * T * D; i++) dx[i] = dall[i / (T * D) * (T + P) * D + P * D + i % (T * D)];
  CHECK(tensor_error(&out[0], dx, 0) < tol, "%s T %d D %d W %d: dx %g", mn_isa_name(isa), (int)T, (int)D, (int)W,
        tensor_error(&out[0], dx, 0));
  CHECK(tensor_error(&out[1], dw, 0.1) < grad_tol, "%s T %d D %d W %d: dw %g", mn_isa_name(isa), (int)T, (int)D, (int)W,
        tensor_error(&out[1], dw, 0.1));
  if (has_bias)
    CHECK(tensor_error(&out[2], db, 0.1) < grad_tol, "%s T %d D %d W %d: dbias %g", mn_isa_name(isa), (int)T, (int)D, (int)W,
          tensor_error(&out[2], db, 0.1));
  if (has_prefix && P > 0) {
    for (int64_t i = 0; i < B * P * D; i++) dx[i] = dall[i / (P * D) * (T + P) * D + i % (P * D)];
    CHECK(tensor_error(&out[n_out - 1], dx, 0.1) < tol, "%s T %d D %d W %d: dprefix %g", mn_isa_name(isa), (int)T, (int)D, (int)W,
          tensor_error(&out[n_out - 1], dx, 0.1));
  }
  tensors_free(2, in), free(bias.data), free(prefix.data), free(dy.data), free(y.data), tensors_free(n_out, out);
  free(all), free(dx);
}

static void test_conv(void) {
  static const sizes cases[] = {{1, 1, 5, 4, 0},      {2, 3, 16, 4, 7},  {2, 37, 33, 3, 0},    {1, 5, 70, 1, 2},    {3, 200, 320, 4, 640},
                                {1, 600, 96, 2, 0},   {2, 12, 17, 9, 1}, {2, 140, 21, 12, 3},  {1, 300, 40, 64, 0}, {2, 90, 17, 65, 1},
                                {1, 130, 33, 256, 0}, {1, 3, 20, 70, 0}, {1, 700, 16, 300, 0}, {1, 5, 48, 513, 0}};
  EACH_ISA(isa)
  for (int i = 0; i < (int)(sizeof cases / sizeof *cases); i++)
    for (int bits = 0; bits < 4; bits++) {
      conv_case(isa, MN_F32, MN_F32, cases[i], bits & 1, bits & 2);
      conv_case(isa, MN_BF16, MN_BF16, cases[i], bits & 1, bits & 2);
      conv_case(isa, MN_BF16, MN_F32, cases[i], bits & 1, bits & 2);
    }
}

/* A sequence cut anywhere gives the same bits when each part gets the end of the one before as its prefix. */
static void test_split(void) {
  enum { D = 19 };
  EACH_ISA(isa) for (int k = 0; k < 3; k++) { /* few taps; many; and many with parts so short that they are done as few */
    const int64_t W = k == 0 ? 4 : k == 1 ? 40 : 70, T = W + 26;
    mn_conv_attr attr = {.has_prefix = true};
    mn_view in[3] = {tensor_random(TENSOR(MN_F32, 0, 1, T, D), 1, 1, 0), tensor_random(TENSOR(MN_F32, 0, D, W), 2, 1, 0),
                     tensor_random(TENSOR(MN_F32, 0, 1, W - 1, D), 3, 0, 0)};
    mn_view whole = TENSOR(MN_F32, 0, 1, T, D), part = TENSOR(MN_F32, 0, 1, T, D);
    kernel_check_run(mn_cpu_conv_kernels, &mn_op_conv, &attr, isa, 3, in, 1, &whole);
    for (int64_t cut = W - 1; cut < T; cut++) {
      mn_view rest[3] = {in[0], in[1], in[2]}, y = part;
      rest[0].dim[1] = y.dim[1] = T - cut;
      rest[0].data = (float *)in[0].data + cut * D;
      rest[2].data = (float *)in[0].data + (cut - W + 1) * D;
      CHECK_OK(kernel_run(mn_cpu_conv_kernels, &mn_op_conv, &attr, isa, 2, 3, rest, 1, &y));
      CHECK(!memcmp(y.data, (float *)whole.data + cut * D, sizeof(float) * (size_t)((T - cut) * D)), "cut at %d", (int)cut);
    }
    tensors_free(3, in), free(whole.data), free(part.data);
  }
}

int main(void) {
  RUN(test_conv);
  RUN(test_split);
  return test_end();
}
