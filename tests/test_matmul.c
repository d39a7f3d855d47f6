/* What must be true of products: every instruction set, against a plain double-precision product, at odd shapes, for
 * every orientation of the operands. */
#include "test.h"

#include "backend/cpu/cpu.h"
#include "backend/cpu/isa/gemm.h"

static uint64_t seed = 1;
static float uniform(void) { /* [-1, 1) */
  seed = mn_splitmix64(seed);
  return (float)((double)(seed >> 11) * 0x1p-52 - 1);
}
static uint16_t bf16_of(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}
static float f32_of(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float x;
  memcpy(&x, &u, 4);
  return x;
}

static mn_isa best;

static const int64_t small_shapes[][3] = {
    {1, 1, 1},    {1, 7, 3},    {2, 16, 16},  {3, 17, 5},   {4, 33, 64},  {5, 64, 33},   {6, 65, 31},  {7, 31, 257},
    {13, 48, 64}, {14, 32, 32}, {15, 63, 65}, {16, 16, 16}, {64, 64, 64}, {29, 100, 300}, {97, 20, 2}, {33, 130, 513},
};
enum { N_SMALL = sizeof small_shapes / sizeof *small_shapes };

/* C is surrounded by a frame that must stay untouched. */
static void small_one(const mn_gemm *g, mn_isa isa, bool bf16, const int64_t s[3], int ta, int tb, bool accumulate) {
  const int64_t M = s[0], N = s[1], K = s[2], ldc = N + 5;
  const int64_t pad = 3;
  const int64_t a_rs = ta ? 1 : K + pad, a_cs = ta ? M + pad : 1;
  /* tb 2: both strides larger than one */
  const int64_t b_rs = tb == 0 ? N + pad : tb == 1 ? 1 : 2 * N + 1, b_cs = tb == 0 ? 1 : tb == 1 ? K + pad : 2;
  const int64_t na = (M + pad) * (K + pad), nb = 2 * (N + pad) * (K + pad) + 2 * K;
  float *a = malloc(sizeof(float) * (size_t)na), *b = malloc(sizeof(float) * (size_t)nb);
  uint16_t *ah = malloc(2 * (size_t)na), *bh = malloc(2 * (size_t)nb);
  float *c = malloc(sizeof(float) * (size_t)((M + 1) * ldc)), *c0 = malloc(sizeof(float) * (size_t)((M + 1) * ldc));
  for (int64_t i = 0; i < na; i++) a[i] = uniform(), ah[i] = bf16_of(a[i]);
  for (int64_t i = 0; i < nb; i++) b[i] = uniform(), bh[i] = bf16_of(b[i]);
  for (int64_t i = 0; i < (M + 1) * ldc; i++) c[i] = c0[i] = uniform();
  const float alpha = accumulate ? 0.5f : 1;
  if (bf16) g->small_bf16(M, N, K, alpha, ah, a_rs, a_cs, bh, b_rs, b_cs, c, ldc, accumulate);
  else g->small_f32(M, N, K, alpha, a, a_rs, a_cs, b, b_rs, b_cs, c, ldc, accumulate);
  double worst = 0;
  bool frame = true;
  for (int64_t i = 0; i <= M; i++)
    for (int64_t j = 0; j < ldc; j++) {
      if (i == M || j >= N) {
        frame &= c[i * ldc + j] == c0[i * ldc + j];
        continue;
      }
      double sum = 0, size = 0;
      for (int64_t k = 0; k < K; k++) {
        const int64_t ia = i * a_rs + k * a_cs, ib = k * b_rs + j * b_cs;
        const double x = bf16 ? (double)f32_of(ah[ia]) * f32_of(bh[ib]) : (double)a[ia] * b[ib];
        sum += x;
        size += fabs(x);
      }
      const double want = alpha * sum + (accumulate ? c0[i * ldc + j] : 0);
      const double error = fabs(c[i * ldc + j] - want) / (size + fabs(want) + 1e-30);
      if (!(error <= worst)) worst = error;
    }
  /* the summands are exact bf16 products, so bf16 differs from f32 only by the processor's own rounding inside a pair */
  CHECK(worst < 1e-6 && frame, "%s %s M %lld N %lld K %lld ta %d tb %d acc %d: error %g frame %d", mn_isa_name(isa),
        bf16 ? "bf16" : "f32", (long long)M, (long long)N, (long long)K, ta, tb, accumulate, worst, frame);
  free(a), free(b), free(ah), free(bh), free(c), free(c0);
}

static void small(void) {
  for (mn_isa isa = 0; isa <= best; isa++) {
    const mn_gemm *g = MN_ISA_PICK(mn_gemm_table, isa);
    for (int i = 0; i < N_SMALL; i++)
      for (int v = 0; v < 24; v++) small_one(g, isa, v & 1, small_shapes[i], v >> 1 & 1, v % 3, v >> 2 & 1);
  }
}

static void empty(void) {
  for (mn_isa isa = 0; isa <= best; isa++) {
    const mn_gemm *g = MN_ISA_PICK(mn_gemm_table, isa);
    float c[6] = {1, 2, 3, 4, 5, 6};
    g->small_f32(2, 2, 0, 1, NULL, 1, 1, NULL, 1, 1, c, 3, true);
    CHECK(c[0] == 1 && c[4] == 5, "an empty sum is added");
    g->small_f32(2, 2, 0, 1, NULL, 1, 1, NULL, 1, 1, c, 3, false);
    CHECK(c[0] == 0 && c[1] == 0 && c[2] == 3 && c[3] == 0 && c[4] == 0, "an empty sum is zero");
  }
}

int main(void) {
  best = mn_isa_best();
  RUN(small);
  RUN(empty);
  return test_end();
}
