/* test_cpu_loss.c - the fused linear cross-entropy of the CPU backend and its gradient against loops in double, on each
 * instruction set of this machine: several chunks, odd sizes, ignored tokens, zero weights, huge logits, strided rows;
 * 1 and 2 threads must give the same bits. */
#include "cpu_kernel.h"
#include "graph/fused_loss.h"

static mn_loss_attr no_cap;

typedef struct ce_sizes {
  int64_t N, D, vocab, pad;
  double scale; /* of h: how large logits are */
  int ignore;   /* each ignore-th token has no target; 1: all; 0: none */
} ce_sizes;

static void ce_case(mn_isa isa, mn_dtype t, ce_sizes n) {
  int64_t N = n.N, D = n.D, vocab = n.vocab;
  mn_view in[6] = {tensor_random(TENSOR(t, n.pad, N, D), 1, n.scale, 0),
                   tensor_random(TENSOR(t, 0, vocab, D), 2, 1 / sqrt((double)D), 0),
                   TENSOR(MN_I32, 0, N),
                   tensor_random(TENSOR(MN_F32, 0, N), 3, 1, 1),
                   tensor_random(SCALAR(MN_F32), 4, 1, 2),
                   tensor_random(TENSOR(MN_F32, 0, N), 5, 1, 0)};
  for (int64_t i = 0; i < N; i++) {
    tensor_set(&in[2], i, n.ignore && i % n.ignore == 0 ? -1 - i : (double)(mn_splitmix64((uint64_t)i) % (uint64_t)vocab));
    if (i % 5 == 2) tensor_set(&in[3], i, 0), tensor_set(&in[5], i, 0);
  }
  mn_view fwd[2] = {SCALAR(MN_F32), TENSOR(MN_F32, 0, N)};
  mn_view bwd[4] = {TENSOR(t, 0, N, D), TENSOR(MN_F32, 0, vocab, D), SCALAR(MN_F32), TENSOR(MN_F32, 0, N)};

  double *h = tensor_values(&in[0]), *w = tensor_values(&in[1]), *p = mn_alloc(sizeof(double) * (size_t)vocab);
  double *dh = mn_calloc((size_t)(N * D + vocab * D + N), sizeof(double)), *dw = dh + N * D, *nll = dw + vocab * D;
  double loss = 0, total = 0;
  for (int64_t i = 0; i < N; i++) {
    int64_t target = (int64_t)tensor_get(&in[2], i);
    if (target < 0) continue;
    double most = -INFINITY, sum = 0;
    for (int64_t v = 0; v < vocab; v++) {
      p[v] = 0;
      for (int64_t d = 0; d < D; d++) p[v] += h[i * D + d] * w[v * D + d];
      most = fmax(most, p[v]);
    }
    for (int64_t v = 0; v < vocab; v++) sum += exp(p[v] - most);
    nll[i] = log(sum) + most - p[target];
    double weight = tensor_get(&in[3], i), coef = tensor_get(&in[4], 0) * weight + tensor_get(&in[5], i);
    loss += weight * nll[i];
    total += fabs(weight * nll[i]);
    for (int64_t v = 0; v < vocab; v++) {
      double g = coef * (exp(p[v] - most) / sum - (v == target));
      for (int64_t d = 0; d < D; d++) {
        dh[i * D + d] += g * w[v * D + d];
        dw[v * D + d] += g * h[i * D + d];
      }
    }
  }

  /* The nll is a difference of logits: their own rounding, that of sums of D products, bounds it. */
  double tol = t == MN_F32 ? 1e-5 : 2e-2, value = 1e-5 * fmax(1, n.scale / 10);
  /* where exp is steep, the logits' rounding is the gradient's error */
  double grad_tol = tol * fmax(1, n.scale / 10);
  kernel_check_run(mn_cpu_loss_kernels, &mn_op_linear_ce, &no_cap, isa, 4, in, 2, fwd);
  CHECK(tensor_error(&fwd[0], &loss, total + 1) < value, "%s: loss %g, not %g", mn_isa_name(isa), tensor_get(&fwd[0], 0), loss);
  CHECK(tensor_error(&fwd[1], nll, 1) < value, "%s: nll %g", mn_isa_name(isa), tensor_error(&fwd[1], nll, 1));
  kernel_check_run(mn_cpu_loss_kernels, &mn_op_linear_ce_grad, &no_cap, isa, 6, in, 4, bwd);
  CHECK(tensor_error(&bwd[0], dh, 0.1) < grad_tol, "%s type %d N %d: dh %g", mn_isa_name(isa), t, (int)N, tensor_error(&bwd[0], dh, 0.1));
  CHECK(tensor_error(&bwd[1], dw, 0.1) < grad_tol, "%s type %d N %d: dw %g", mn_isa_name(isa), t, (int)N, tensor_error(&bwd[1], dw, 0.1));
  CHECK(tensor_get(&bwd[2], 0) == tensor_get(&fwd[0], 0), "loss %g beside its gradient, %g alone", tensor_get(&bwd[2], 0),
        tensor_get(&fwd[0], 0));
  CHECK(!memcmp(bwd[3].data, fwd[1].data, sizeof(float) * (size_t)N), "nll differs beside its gradient");
  tensors_free(6, in), tensors_free(2, fwd), tensors_free(4, bwd), free(h), free(w), free(p), free(dh);
}

static void test_linear_ce(void) {
  static const ce_sizes cases[] = {{1, 8, 10, 0, 1, 0},     {37, 19, 101, 6, 1, 0},  {40, 32, 64, 0, 1, 3},    {9, 16, 33, 0, 1, 1},
                                   {700, 24, 130, 0, 2, 0}, {650, 17, 257, 3, 2, 4}, {70, 48, 1030, 0, 1e4, 5}};
  static const ce_sizes chunks[] = {{600, 9, 9001, 0, 1, 7}, {1030, 8, 8200, 0, 1, 0}}; /* of 384 and 512 tokens in f32, fewer in bf16 */
  EACH_ISA(isa)
  for (int i = 0; i < 7; i++) {
    ce_case(isa, MN_F32, cases[i]);
    ce_case(isa, MN_BF16, cases[i]);
  }
  for (int i = 0; i < 2; i++) {
    ce_case(last_tested_isa(), MN_F32, chunks[i]);
    ce_case(last_tested_isa(), MN_BF16, chunks[i]);
  }
}

/* A target outside the vocabulary is an error that names it, not a read out of bounds. */
static void test_target_outside(void) {
  mn_view in[4] = {tensor_random(TENSOR(MN_F32, 0, 3, 4), 1, 1, 0), tensor_random(TENSOR(MN_F32, 0, 5, 4), 2, 1, 0), TENSOR(MN_I32, 0, 3),
                   tensor_random(TENSOR(MN_F32, 0, 3), 3, 0, 1)};
  mn_view out[2] = {SCALAR(MN_F32), TENSOR(MN_F32, 0, 3)};
  for (int64_t i = 0; i < 3; i++) tensor_set(&in[2], i, i == 1 ? 5 : 4);
  mn_status status = kernel_run(mn_cpu_loss_kernels, &mn_op_linear_ce, &no_cap, last_tested_isa(), 1, 4, in, 2, out);
  CHECK(status == MN_ERR_ARG && strstr(mn_message(), "target 5 of token 1"), "%s: %s", mn_status_name(status), mn_message());
  tensors_free(4, in), tensors_free(2, out);
}

int main(void) {
  RUN(test_linear_ce);
  RUN(test_target_outside);
  return test_end();
}
