/* blocks.c - products with weights in blocks as few rows of x do them (isa/blocks.c) and as many do (isa/blocks_many.c): where the second way
 * begins to pay. One thread, 256 rows of weights of 1,536 values, which stay in the caches.
 *
 *     bench-blocks [--isa NAME] [TYPE...]
 *
 * Thousand million operations a second of each way, the best of 30 runs; x is rounded before. */
#include "backend/cpu/isa/blocks.h"
#include "base/blocks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 256, K = 1536, MOST = 64, RUNS = 30 };

static void fill(mn_dtype t, uint8_t *w, size_t bytes) { /* codes of any kind, and scales that are small numbers */
  for (size_t i = 0; i < bytes; i++) w[i] = (uint8_t)(i * 2654435761u >> 13);
  for (size_t b = 0; b * mn_block_bytes(t) < bytes; b++)
    for (int i = 0; i < 2; i++) w[b * mn_block_bytes(t) + (size_t)(t == MN_Q6_K ? 209 : 1 + 2 * i)] = 0x20;
}

static void measure(mn_isa isa, mn_dtype t, int64_t M) {
  const size_t bytes = mn_dtype_bytes(t, (int64_t)N * K);
  uint8_t *w = mn_alloc_aligned(bytes);
  void *scratch = mn_alloc_aligned(mn_blocks_scratch(K));
  float *x = mn_alloc(sizeof(float) * K), *y = mn_alloc(sizeof(float) * (size_t)(M * N)),
        *scales = mn_calloc(6 * (size_t)M * K / 32, sizeof(float));
  int32_t *lifted = mn_calloc((size_t)M * K / 32, sizeof *lifted);
  mn_rounded r = {.M = M, .K = K, .q = mn_alloc_aligned((size_t)(M * K)), .lifted = lifted};
  double best[2] = {INFINITY, INFINITY};
  if (w && scratch && x && y && scales && lifted && r.q) {
    r.d = scales, r.sum = r.d + M * K / 32, r.d_of_half = r.sum + M * K / 32, r.sum_of_half = r.d_of_half + M * K / 16;
    fill(t, w, bytes);
    for (int64_t i = 0; i < M; i++) {
      for (int64_t k = 0; k < K; k++) x[k] = sinf((float)(i * K + k));
      MN_ISA_PICK(mn_blocks_table, isa)->round(mn_rounding_of(t), x, &r, i);
    }
    for (int run = 0; run < 2 * RUNS; run++) {
      const double began = mn_now();
      if (run % 2) MN_ISA_PICK(mn_blocks_many_table, isa)->product(t, w, N, &r, scratch, y, N);
      else MN_ISA_PICK(mn_blocks_table, isa)->product(t, w, N, &r, y, N);
      best[run % 2] = fmin(best[run % 2], mn_now() - began);
    }
    printf("%-8s %2lld rows   few %6.1f   many %6.1f\n", mn_dtype_name(t), (long long)M, 2e-9 * (double)(M * N * K) / best[0],
           2e-9 * (double)(M * N * K) / best[1]);
  }
  free(w), free(scratch), free(x), free(y), free(scales), free(r.q);
}

int main(int argc, char **argv) {
  static const int64_t rows[] = {1, 2, 3, 4, 8, 12, MOST};
  mn_isa isa = mn_isa_best();
  int first = 1;
  if (argc > 2 && !strcmp(argv[1], "--isa")) {
    for (isa = MN_ISA_LEVEL_GENERIC; isa < MN_ISA_LEVELS && strcmp(mn_isa_name(isa), argv[2]) != 0;) isa++;
    if (isa > mn_isa_best()) {
      fprintf(stderr, "bench-blocks: this processor has no set of instructions '%s'\n", argv[2]);
      return 2;
    }
    first = 3;
  }
  for (mn_dtype t = MN_F16 + 1; t < MN_ALL_TYPES; t++) {
    bool wanted = first == argc && mn_block_values(t) > 1;
    for (int i = first; i < argc; i++) wanted |= mn_block_values(t) > 1 && !strcmp(argv[i], mn_dtype_name(t));
    for (size_t i = 0; wanted && i < sizeof rows / sizeof *rows; i++) measure(isa, t, rows[i]);
  }
  return 0;
}
