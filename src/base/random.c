/* random.c - Philox4x32-10, a counter-based generator (Salmon, Moraes, Dror & Shaw, SC 2011), and the uniform and
 * normal streams drawn from it. */
#include "base/base.h"

#include <math.h>

void mn_philox(uint64_t key, uint64_t counter_hi, uint64_t counter_lo, uint32_t out[4]) {
  uint32_t c0 = (uint32_t)counter_lo, c1 = (uint32_t)(counter_lo >> 32);
  uint32_t c2 = (uint32_t)counter_hi, c3 = (uint32_t)(counter_hi >> 32);
  uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
    uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)p1;
    c3 = (uint32_t)p0;
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

uint64_t mn_random_key(uint64_t seed, const char *name) { return mn_splitmix64(mn_splitmix64(seed) ^ mn_hash_str(name)); }

uint64_t mn_random_tick_key(uint64_t key, uint64_t tick) { return mn_splitmix64(key ^ mn_splitmix64(tick)); }

double mn_random_uniform(uint64_t key, uint64_t step, uint64_t i) {
  uint32_t r[4];
  mn_philox(key, step, i >> 1, r);
  return i & 1 ? mn_uniform_from_bits(r[2], r[3]) : mn_uniform_from_bits(r[0], r[1]);
}

double mn_random_normal(uint64_t key, uint64_t step, uint64_t i) { /* Box-Muller on one counter per pair */
  uint32_t r[4];
  mn_philox(key, step, i >> 1, r);
  double u = 1.0 - mn_uniform_from_bits(r[0], r[1]), v = mn_uniform_from_bits(r[2], r[3]);
  double radius = sqrt(-2.0 * log(u)), angle = 6.283185307179586476925 * v;
  return radius * (i & 1 ? sin(angle) : cos(angle));
}
