/* weights.h - the table that every instruction set's isa/weights.c exports: how likely tokens are beside the likeliest,
 * exp((logit - top) / temperature), for a whole vocabulary at each token, so that it must cost little beside the product that made the
 * logits. */
#ifndef MN_ISA_WEIGHTS_H
#define MN_ISA_WEIGHTS_H

#include "backend/cpu/isa.h"

enum { MN_WEIGHTS_BLOCK = 256 };
static inline int64_t mn_weights_blocks(int64_t n) { return (n + MN_WEIGHTS_BLOCK - 1) / MN_WEIGHTS_BLOCK; }

typedef struct mn_weights_vec {
  /* The largest of each block of n values; false: one of them is not finite, and peaks say nothing. */
  bool (*peaks)(const float *x, int64_t n, float *peaks);
  /* to[i] = exp((x[i] - top) / temperature) in f32, in proportion within 2e-7 (2 + |ln to[i]|); 0 where x[i] is -inf, or the result is below
   * `least` or 2^-126. x[i] <= top, which is finite, and temperature > 0. to NULL: their sums alone, of each block. Returns the sum of all. */
  double (*weigh)(const float *x, int64_t n, float top, double temperature, double least, float *to, double *sums);
} mn_weights_vec;

MN_ISA_DECLARE(mn_weights_vec, mn_weights_table);

#endif
