/* f16.h - the half floats of IEEE 754 (binary16), of which files make scales and weights: to float without loss, and back rounded to
 * nearest, ties to even. Kernels have vector forms with the same bits. */
#ifndef MN_F16_H
#define MN_F16_H

#include <stdint.h>
#include <string.h>

static inline float mn_f16_to_float(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = h & 0x7FFFu;
  uint32_t u;
  float f;
  if (magnitude >= 0x7C00u) { /* infinities; a NaN keeps its bits and is quiet */
    u = sign | 0x7F800000u | (magnitude & 0x3FFu) << 13 | (magnitude > 0x7C00u ? 0x400000u : 0);
  } else if (magnitude >= 0x400u) {
    u = sign | ((magnitude << 13) + ((127 - 15) << 23));
  } else { /* so many times 2^-24 */
    f = (float)magnitude * 0x1p-24f;
    memcpy(&u, &f, 4);
    u |= sign;
  }
  memcpy(&f, &u, 4);
  return f;
}

static inline uint16_t mn_float_to_f16(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  const uint16_t sign = (uint16_t)(u >> 16 & 0x8000u);
  u &= 0x7FFFFFFFu;
  if (u > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | (u >> 13 & 0x3FFu));
  if (u >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u); /* 65520 and more */
  if (u < 0x38800000u) {                                   /* below the least normal one: added to 0.5, the last bits are those of 2^-24 */
    float x;
    memcpy(&x, &u, 4);
    x += 0.5f;
    memcpy(&u, &x, 4);
    return (uint16_t)(sign | (u - 0x3F000000u));
  }
  u += 0xFFFu + (u >> 13 & 1u); /* the exponent may grow by one */
  return (uint16_t)(sign | (u - ((127 - 15) << 23)) >> 13);
}

#endif
