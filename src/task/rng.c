/* rng.c - xoshiro256**, bounded integers, choice without replacement, the seed of a sample. */
#include "task/rng.h"

#include <math.h>

void mn_rng_seed(mn_rng *rng, uint64_t seed) {
  for (int i = 0; i < 4; i++) rng->s[i] = mn_splitmix64(seed + (uint64_t)i * 0x9E3779B97F4A7C15u);
}

static uint64_t rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

uint64_t mn_rng_next(mn_rng *rng) {
  uint64_t *s = rng->s, out = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = rotl(s[3], 45);
  return out;
}

uint64_t mn_rng_below(mn_rng *rng, uint64_t n) {
  if (!n) return 0;
  unsigned __int128 product = (unsigned __int128)mn_rng_next(rng) * n;
  if ((uint64_t)product < n) {
    uint64_t reject = -n % n; /* 2^64 mod n */
    while ((uint64_t)product < reject) product = (unsigned __int128)mn_rng_next(rng) * n;
  }
  return (uint64_t)(product >> 64);
}

double mn_rng_uniform(mn_rng *rng) { return (double)(mn_rng_next(rng) >> 11) * 0x1.0p-53; }

void mn_rng_shuffle(mn_rng *rng, int32_t *items, size_t n) {
  for (size_t i = 0; i + 1 < n; i++) {
    size_t j = i + (size_t)mn_rng_below(rng, n - i);
    int32_t x = items[i];
    items[i] = items[j];
    items[j] = x;
  }
}

void mn_rng_choose(mn_rng *rng, int32_t first, size_t n, size_t m, int32_t *scratch, int32_t *out) {
  for (size_t i = 0; i < n; i++) scratch[i] = first + (int32_t)i;
  for (size_t i = 0; i < m; i++) {
    size_t j = i + (size_t)mn_rng_below(rng, n - i);
    int32_t x = scratch[j];
    scratch[j] = scratch[i];
    scratch[i] = x;
    out[i] = x;
  }
}

void mn_rng_choose_weighted(mn_rng *rng, const double *log_weight, size_t n, size_t m, double *scratch, int32_t *out) {
  for (size_t i = 0; i < n; i++) scratch[i] = log_weight[i] - log(-log(mn_rng_uniform(rng)));
  for (size_t j = 0; j < m; j++) { /* m is small beside n: selection keeps the draw order and needs no memory */
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
      if (scratch[i] > scratch[best]) best = i;
    out[j] = (int32_t)best;
    scratch[best] = -INFINITY;
  }
}

uint64_t mn_sample_seed(const char *task, uint64_t split, uint64_t base_seed, uint64_t index) {
  uint64_t h = mn_splitmix64(mn_hash_str(task));
  h = mn_splitmix64(h ^ split);
  h = mn_splitmix64(h ^ base_seed);
  return mn_splitmix64(h ^ index);
}
