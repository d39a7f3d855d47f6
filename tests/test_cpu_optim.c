/* What must be true of the AdamW kernel: several steps agree with the equations in double, for f32 and bf16 gradients, any
 * size, in place and not, on every instruction set, to the same bits for one thread and for two. */
#include "cpu_kernel_test.h"
#include "graph/fused_adamw.h"

enum { MAX_N = 40000, STEPS = 4 };
static mn_pool *pool2;

static void adamw_one_isa(void) {
  static float p0[MAX_N], state[2][3][MAX_N], other[3][MAX_N];
  static double want[3][MAX_N];
  static char g[MAX_N * 4];
  static const int64_t sizes[] = {1, 15, 37, 16384, 39999};
  mn_adamw_attr a = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
  double b1 = a.beta1, b2 = a.beta2;
  for (int size = 0; size < 5; size++)
    for (int bf16 = 0; bf16 < 2; bf16++)
      for (int inplace = 0; inplace < 2; inplace++) {
        int64_t n = sizes[size], five = 5;
        mn_dtype gt = bf16 ? MN_BF16 : MN_F32;
        memset(state, 0, sizeof state);
        memset(want, 0, sizeof want);
        for (int64_t i = 0; i < n; i++) want[0][i] = state[0][0][i] = state[1][0][i] = p0[i] = (float)draw(-1, 1);
        for (int step = 1; step <= STEPS; step++) {
          for (int64_t i = 0; i < n; i++) put(g, gt, i, draw(-1, 1) * (i % 4 ? 1 : 1e-6));
          float s[5] = {1e-2f, (float)(1 - pow(b1, step)), (float)(1 - pow(b2, step)), 0.37f, size % 2 ? 0.1f : 0};
          for (int t = 0; t < 2; t++) {
            mn_view in[5] = {dense(state[t][0], MN_F32, 1, &n), dense(g, gt, 1, &n), dense(state[t][1], MN_F32, 1, &n),
                             dense(state[t][2], MN_F32, 1, &n), dense(s, MN_F32, 1, &five)};
            mn_view out[3];
            for (int k = 0; k < 3; k++) out[k] = dense(inplace ? state[t][k] : other[k], MN_F32, 1, &n);
            CHECK(run_kernel(mn_cpu_optim_kernels, &mn_op_adamw, &a, 5, in, 3, out, t ? pool2 : NULL), "no kernel");
            if (!inplace)
              for (int k = 0; k < 3; k++) memcpy(state[t][k], other[k], (size_t)n * 4);
          }
          for (int64_t i = 0; i < n; i++) {
            double d = get(g, gt, i) * s[3], *p = &want[0][i], *m = &want[1][i], *v = &want[2][i];
            *m = b1 * *m + (1 - b1) * d;
            *v = b2 * *v + (1 - b2) * d * d;
            *p -= s[0] * ((*m / s[1]) / (sqrt(*v / s[2]) + a.eps) + s[4] * *p);
          }
        }
        CHECK(!memcmp(state[0], state[1], sizeof state[0]), "one and two threads differ");
        double worst = 0;
        for (int64_t i = 0; i < n; i++) {
          /* the moments relative to the gradients' size; the parameter relative to 1 */
          double scale = i % 4 ? 1 : 1e-6;
          double e = relative(state[0][0][i], want[0][i], 1);
          double em = relative(state[0][1][i], want[1][i], fabs(want[1][i]) + 0.01 * scale);
          double ev = relative(state[0][2][i], want[2][i], fabs(want[2][i]) + 1e-30);
          e = e > em ? e : em;
          e = e > ev ? e : ev;
          if (e > worst) worst = e;
        }
        CHECK(worst < 1e-5, "isa %s n %lld bf16 %d inplace %d: %g", mn_isa_name(cpu.isa), (long long)n, bf16, inplace, worst);
      }
}
static void test_adamw(void) { each_isa(adamw_one_isa); }

int main(void) {
  pool2 = mn_pool_new(2);
  RUN(test_adamw);
  mn_pool_free(pool2);
  return test_end();
}
