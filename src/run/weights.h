/* weights.h - how likely tokens are beside the likeliest: exp((logit - top) / temperature), for a whole vocabulary at each token, so that
 * it must cost little beside the product that made the logits. */
#ifndef MN_WEIGHTS_H
#define MN_WEIGHTS_H

#include "base/base.h"

enum { MN_WEIGHTS_BLOCK = 256 };
static inline int64_t mn_weights_blocks(int64_t n) { return (n + MN_WEIGHTS_BLOCK - 1) / MN_WEIGHTS_BLOCK; }

/* Where the largest of n values, none of them NaN, stands; of equal ones the first. n > 0. */
int64_t mn_largest(const float *x, int64_t n);

/* to[i] = exp((x[i] - top) / temperature) in f32, in proportion within 2e-7 (2 + |ln to[i]|); 0 where x[i] is -inf, or the result is below
 * `least` or 2^-126. x[i] <= top, which is finite, and temperature > 0. sums: of blocks of MN_WEIGHTS_BLOCK. Returns the sum of all. */
double mn_weights(const float *x, int64_t n, float top, double temperature, double least, float *to, double *sums);

#endif
