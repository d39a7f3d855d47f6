/* rng.h - the random numbers of task generators: xoshiro256** (Blackman & Vigna 2018), filled by SplitMix64, and the
 * rule that gives every sample its own seed. A sample depends on (task, split, base seed, index) only, so any sample
 * can be made alone, in any order, on any thread. The engine's own randomness (Philox, base.h) is separate. */
#ifndef MN_TASK_RNG_H
#define MN_TASK_RNG_H

#include "base/base.h"

typedef struct mn_rng {
  uint64_t s[4];
} mn_rng;

void mn_rng_seed(mn_rng *rng, uint64_t seed);
uint64_t mn_rng_next(mn_rng *rng);
/* Uniform in [0, n), without bias (Lemire's multiply-shift with rejection). 0 for n = 0. */
uint64_t mn_rng_below(mn_rng *rng, uint64_t n);
/* Uniform in [0, 1), 53 bits. */
double mn_rng_uniform(mn_rng *rng);
void mn_rng_shuffle(mn_rng *rng, int32_t *items, size_t n);
/* `m` distinct values of {first ... first + n - 1} in random order (partial Fisher-Yates). `scratch` holds n values and
 * may be `out` when m == n. Requires m <= n. */
void mn_rng_choose(mn_rng *rng, int32_t first, size_t n, size_t m, int32_t *scratch, int32_t *out);
/* `m` distinct values of {0 ... n - 1}, drawn without replacement with weights exp(log_weight[i]): the m largest Gumbel
 * keys, largest first, which is the order of drawing one by one and renormalising. `scratch` holds n doubles. */
void mn_rng_choose_weighted(mn_rng *rng, const double *log_weight, size_t n, size_t m, double *scratch, int32_t *out);

/* The seed of sample `index` of a split (0 train, 1 validation, 2 test). The split is part of the hash: train and test
 * never share a stream. */
uint64_t mn_sample_seed(const char *task, uint64_t split, uint64_t base_seed, uint64_t index);

#endif
