/* matmul.c - the products of a training step, Mneme's kernels beside oneDNN and beside the machine's peak, in one run.
 *
 *     OMP_WAIT_POLICY=passive bench-matmul [--threads N] [--seconds S] [--isa NAME] [--only TEXT] [--peer blocks|whole]
 * [--clock wall|cpu]
 *
 * --peer blocks: oneDNN on the blocks that Mneme would give it, one thread each (how the library calls it); whole: each
 * product in one call with oneDNN's own threads.
 *
 * Shapes are those of a decoder of 10M parameters (B*T = 4096, D = 320, F = 864, logits in chunks of 512 tokens),
 * forward and for both gradients. Each figure is the median of repetitions that alternate between the contenders. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/isa/peak.h"
#include "backend/cpu/machine.h"
#include "backend/cpu/product.h"

typedef struct shape {
  const char *what;
  int64_t batch, M, N, K;
  bool ta, tb; /* A stored [K,M], B stored [N,K] */
} shape;

static const shape shapes[] = {
    {"x Wq", 1, 4096, 320, 320, false, false},
    {"dy Wq^T", 1, 4096, 320, 320, false, true},
    {"x^T dy (Wq)", 1, 320, 320, 4096, true, false},
    {"x Wup", 1, 4096, 864, 320, false, false},
    {"dy Wup^T", 1, 4096, 320, 864, false, true},
    {"x^T dy (Wup)", 1, 320, 864, 4096, true, false},
    {"h Wdown", 1, 4096, 320, 864, false, false},
    {"dy Wdown^T", 1, 4096, 864, 320, false, true},
    {"h^T dy (Wdown)", 1, 864, 320, 4096, true, false},
    {"h E^T", 1, 512, 8192, 320, false, true},
    {"dlogits E", 1, 512, 320, 8192, false, false},
    {"dlogits^T h", 1, 8192, 320, 512, true, false},
    {"square", 1, 2048, 2048, 2048, false, false},
    {"chunks 64", 320, 64, 64, 64, false, false},
    {"chunks 64 q k^T", 320, 64, 64, 64, false, true},
    {"chunks 16", 2048, 16, 64, 16, false, false},
    {"decode x W", 1, 1, 864, 320, false, false},
    {"decode h E^T", 1, 1, 8192, 320, false, true},
    {"decode x4 x W", 1, 4, 864, 320, false, false},
    {"decode x8 h E^T", 1, 8, 8192, 320, false, true},
    {"30m x Wq", 1, 2048, 512, 512, false, true},
    {"30m dy Wq", 1, 2048, 512, 512, false, false},
    {"30m dy^T x (Wq)", 1, 512, 512, 2048, true, false},
    {"30m x Wup", 1, 2048, 1408, 512, false, true},
    {"30m dy Wup", 1, 2048, 512, 1408, false, false},
    {"30m dy^T x (Wup)", 1, 1408, 512, 2048, true, false},
    {"30m h Wdown", 1, 2048, 512, 1408, false, true},
    {"30m dy Wdown", 1, 2048, 1408, 512, false, false},
    {"30m dy^T h (Wdown)", 1, 512, 1408, 2048, true, false},
};

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Processor time of the whole process for --threads 1 on a machine that others use too; else the wall clock. */
static bool cpu_time;
static double now(void) {
  if (!cpu_time) return mn_now();
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The arithmetic limit by the same clock as the products. */
static double peak_of(mn_pool *pool, mn_isa isa, bool bf16) {
  if (!cpu_time) return mn_machine_peak(pool, isa, bf16);
  const mn_peak *peak = MN_ISA_PICK(mn_peak_table, isa);
  double best = 0;
  for (int i = 0; i < 10; i++) {
    const double start = now(), work = (bf16 ? peak->bf16 : peak->f32)(2000000);
    best = fmax(best, 1e-9 * work / (now() - start));
  }
  return best;
}

enum { MAX_REPS = 400 };

int main(int argc, char **argv) {
  int threads = 0;
  double seconds = 0.3;
  const char *only = NULL;
  bool native = false;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!strcmp(argv[i], "--threads")) threads = atoi(argv[i + 1]);
    else if (!strcmp(argv[i], "--seconds")) seconds = atof(argv[i + 1]);
    else if (!strcmp(argv[i], "--isa")) setenv("MNEME_CPU_ISA", argv[i + 1], 1);
    else if (!strcmp(argv[i], "--peer")) native = !strcmp(argv[i + 1], "whole");
    else if (!strcmp(argv[i], "--clock")) cpu_time = !strcmp(argv[i + 1], "cpu");
    else if (!strcmp(argv[i], "--only")) only = argv[i + 1];
    else return fprintf(stderr, "bench-matmul: unknown option %s\n", argv[i]), 2;
  }
  mn_backend *b = NULL;
  if (mn_backend_cpu_new(threads, &b) != MN_OK) return fprintf(stderr, "bench-matmul: %s\n", mn_message()), 1;
  const mn_isa isa = mn_cpu_isa(b);
  const int n_threads = mn_pool_threads(b->pool);
  const double peak[2] = {peak_of(b->pool, isa, false), peak_of(b->pool, isa, true)};
  printf("%s, %d threads; peak %.0f GFLOP/s f32, %.0f bf16\n", mn_isa_name(isa), n_threads, peak[0], peak[1]);
  printf("%-18s %5s %5s %5s %5s  %-4s %10s %10s %8s %8s\n", "product", "batch", "M", "N", "K", "type", "Mneme", "oneDNN", "ratio",
         "of peak");
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
    const shape *h = &shapes[s];
    if (only && !strstr(h->what, only)) continue;
    const int64_t na = h->batch * h->M * h->K, nb = h->batch * h->K * h->N, nc = h->batch * h->M * h->N;
    for (int bf16 = 0; bf16 < 2; bf16++) {
      const size_t size = bf16 ? 2 : 4;
      char *A = b->alloc(b, size * (size_t)na), *B = b->alloc(b, size * (size_t)nb);
      float *C = b->alloc(b, 4 * (size_t)nc);
      if (!A || !B || !C) return fprintf(stderr, "bench-matmul: %s\n", mn_message()), 1;
      for (int64_t i = 0; i < na; i++) {
        const float x = (float)mn_random_uniform(1, 0, (uint64_t)i);
        memcpy(A + (int64_t)size * i, (const char *)&x + (bf16 ? 2 : 0), size);
      }
      for (int64_t i = 0; i < nb; i++) {
        const float x = (float)mn_random_uniform(2, 0, (uint64_t)i);
        memcpy(B + (int64_t)size * i, (const char *)&x + (bf16 ? 2 : 0), size);
      }
      const mn_product p = {.M = h->M,
                            .N = h->N,
                            .K = h->K,
                            .a = A,
                            .b = B,
                            .c = C,
                            .ldc = h->N,
                            .bf16 = bf16,
                            .c_bf16 = bf16,
                            .alpha = 1,
                            .a_rs = h->ta ? 1 : h->K,
                            .a_cs = h->ta ? h->M : 1,
                            .b_rs = h->tb ? 1 : h->N,
                            .b_cs = h->tb ? h->K : 1};
      mn_product_plan plan[2];
      size_t scratch_size = 64;
      for (int i = 0; i < 2; i++) { /* ours, oneDNN */
        plan[i] = (mn_product_plan){
            .p = p, .n_axes = 1, .threads = n_threads, .dim = {h->batch}, .a_step = {h->M * h->K}, .b_step = {h->K * h->N}};
        mn_product_plan_make(&plan[i], isa, i ? MN_ONEDNN_ALWAYS : MN_ONEDNN_NEVER);
        if (mn_product_plan_prepare(&plan[i], n_threads) != MN_OK) return fprintf(stderr, "bench-matmul: %s\n", mn_message()), 1;
        if (plan[i].scratch * (size_t)n_threads > scratch_size) scratch_size = plan[i].scratch * (size_t)n_threads;
      }
      mn_onednn *whole = NULL;
      if (native && mn_onednn_new(&p, p.M, p.N, 1, &whole) != MN_OK) return fprintf(stderr, "bench-matmul: %s\n", mn_message()), 1;
      const bool peer = whole || plan[1].path == MN_PRODUCT_ONEDNN;
      void *scratch = mn_alloc_aligned(scratch_size);
      if (!scratch) return 1;
      static double time[2][MAX_REPS];
      int reps = 0;
      for (const double start = now(); reps < MAX_REPS && (reps < 5 || now() - start < seconds); reps++) {
        double t = now();
        mn_product_plan_run(&plan[0], b->pool, scratch);
        time[0][reps] = now() - t;
        t = now();
        if (whole) {
          for (int64_t i = 0; i < h->batch; i++) {
            mn_product one = p;
            one.a = A + (int64_t)size * i * h->M * h->K;
            one.b = B + (int64_t)size * i * h->K * h->N;
            one.c = (char *)C + (int64_t)size * i * h->M * h->N;
            mn_onednn_whole(whole, &one, n_threads);
          }
        } else if (peer) {
          mn_product_plan_run(&plan[1], b->pool, scratch);
        }
        time[1][reps] = now() - t;
      }
      const double work = 2e-9 * (double)h->batch * (double)h->M * (double)h->N * (double)h->K;
      for (int i = 0; i < 2; i++) qsort(time[i], (size_t)reps, sizeof(double), by_value);
      const double ours = work / time[0][reps / 2], theirs = peer ? work / time[1][reps / 2] : NAN;
      printf("%-18s %5lld %5lld %5lld %5lld  %-4s %10.1f %10.1f %8.2f %7.0f%%\n", h->what, (long long)h->batch, (long long)h->M,
             (long long)h->N, (long long)h->K, mn_dtype_name(bf16 ? MN_BF16 : MN_F32), ours, theirs, ours / theirs,
             100 * ours / peak[bf16]);
      fflush(stdout);
      mn_onednn_free(whole);
      for (int i = 0; i < 2; i++) mn_product_plan_release(&plan[i]);
      free(scratch);
      b->free(b, A, size * (size_t)na);
      b->free(b, B, size * (size_t)nb);
      b->free(b, C, 4 * (size_t)nc);
    }
  }
  mn_backend_free(b);
  return 0;
}
