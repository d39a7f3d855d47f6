/* bf16.h - the upper half of a float: the one way in which everything that is not a vector rounds to it. The vector code (isa/vec.h)
 * gives the same bits. */
#ifndef MN_BF16_H
#define MN_BF16_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float mn_bf16_to_float(uint16_t x) {
  uint32_t u = (uint32_t)x << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

/* To nearest, ties to even; a NaN stays a NaN, quiet, of the same sign. */
static inline uint16_t mn_float_to_bf16(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)((u >> 16) | 0x40);
  return (uint16_t)((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
}

/* In one rounding: through float alone a double would round twice, so an inexact float is first made odd. */
static inline uint16_t mn_double_to_bf16(double d) {
  float f = (float)d;
  if ((double)f != d && !isnan(d)) {
    uint32_t u;
    memcpy(&u, &f, 4);
    if (fabs((double)f) > fabs(d)) u--; /* towards zero */
    u |= 1;
    memcpy(&f, &u, 4);
  }
  return mn_float_to_bf16(f);
}

#endif
