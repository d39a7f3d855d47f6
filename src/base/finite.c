/* finite.c - see finite.h. A float is no number where all bits of its exponent are set. Then, and only then, adding one to the
 * exponent carries into the sign's place (cleared before), and never beyond: so whole words of 8 bytes are looked at, 2 to 4
 * elements each, without a branch. */
#include "base/finite.h"

#include "base/blocks.h"

#include <stddef.h>
#include <string.h>

enum { BLOCK = 64 }; /* words looked at before the first question is asked */

typedef struct mask {
  uint64_t exponent, one, sign; /* in every element of a word */
} mask;

static mask mask_of(mn_dtype t) {
  switch (t) {
  case MN_F32:
    return (mask){0x7F8000007F800000u, 0x0080000000800000u, 0x8000000080000000u};
  case MN_BF16:
  case MN_STORED_BF16:
    return (mask){0x7F807F807F807F80u, 0x0080008000800080u, 0x8000800080008000u};
  case MN_F64:
    return (mask){0x7FF0000000000000u, 0x0010000000000000u, 0x8000000000000000u};
  case MN_F16:
    return (mask){0x7C007C007C007C00u, 0x0400040004000400u, 0x8000800080008000u};
  default:
    return (mask){0};
  }
}

static bool word_fails(mask m, const uint8_t *p, size_t n) { /* up to 8 bytes; the missing ones are zeros */
  uint64_t w = 0;
  memcpy(&w, p, n);
  return ((w & m.exponent) + m.one) & m.sign;
}

static bool block_fails(mask m, const uint8_t *p) {
  uint64_t carry = 0;
  for (int i = 0; i < BLOCK; i++) {
    uint64_t w;
    memcpy(&w, p + 8 * i, 8);
    carry |= (w & m.exponent) + m.one;
  }
  return carry & m.sign;
}

/* A block is finite where its scales in f16 are, of which it has `scales` from byte `at` on: all else in it are whole numbers. */
static bool block_is_finite(const uint8_t *block, size_t at, int scales) {
  for (int i = 0; i < scales; i++) {
    uint16_t h;
    memcpy(&h, block + at + 2 * (size_t)i, 2);
    if ((h & 0x7C00) == 0x7C00) return false;
  }
  return true;
}
static int64_t first_not_finite_block(mn_dtype type, const uint8_t *p, int64_t n) {
  static const struct {
    uint8_t at, scales;
  } where[MN_ALL_TYPES] = {
      [MN_Q4_0] = {offsetof(mn_q4_0, d), 1}, [MN_Q4_1] = {offsetof(mn_q4_1, d), 2},     [MN_Q5_0] = {offsetof(mn_q5_0, d), 1},
      [MN_Q5_1] = {offsetof(mn_q5_1, d), 2}, [MN_Q8_0] = {offsetof(mn_q8_0, d), 1},     [MN_Q2_K] = {offsetof(mn_q2_k, d), 2},
      [MN_Q3_K] = {offsetof(mn_q3_k, d), 1}, [MN_Q4_K] = {offsetof(mn_q4_k, d), 2},     [MN_Q5_K] = {offsetof(mn_q5_k, d), 2},
      [MN_Q6_K] = {offsetof(mn_q6_k, d), 1}, [MN_IQ4_NL] = {offsetof(mn_iq4_nl, d), 1}, [MN_IQ4_XS] = {offsetof(mn_iq4_xs, d), 1}};
  const size_t bytes = mn_block_bytes(type);
  const int64_t values = mn_block_values(type);
  for (int64_t i = 0; i < n / values; i++) /* the last exponent of an mxfp4 is none */
    if (type == MN_MXFP4 ? p[i * (int64_t)bytes] == 255 : !block_is_finite(p + i * (int64_t)bytes, where[type].at, where[type].scales))
      return i * values;
  return -1;
}

int64_t mn_first_not_finite(mn_dtype type, const void *data, int64_t n) {
  if (mn_block_values(type) > 1) return first_not_finite_block(type, data, n);
  mask m = mask_of(type);
  if (!m.sign) return -1;
  const uint8_t *p = data;
  size_t size = mn_dtype_size(type), bytes = (size_t)n * size, at = 0;
  while (at + 8 * BLOCK <= bytes && !block_fails(m, p + at)) at += 8 * BLOCK;
  for (; at < bytes; at += size)
    if (word_fails(m, p + at, size)) return (int64_t)(at / size);
  return -1;
}

const char *mn_not_finite_name(mn_dtype type, const void *data, int64_t i) {
  if (mn_block_values(type) > 1) return "of a block with a scale that is no number";
  size_t size = mn_dtype_size(type);
  uint64_t w = 0, sign = (uint64_t)1 << (8 * size - 1);
  memcpy(&w, (const uint8_t *)data + (size_t)i * size, size);
  uint64_t exponent = mask_of(type).exponent & (2 * sign - 1);
  return (w & ~sign) != exponent ? "NaN" : w & sign ? "-infinity" : "infinity";
}
