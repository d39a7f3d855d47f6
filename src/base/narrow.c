/* narrow.c - see narrow.h. */
#include "base/narrow.h"

#include <math.h>

#include "base/bf16.h"
#include "base/blocks.h"
#include "base/f16.h"

static const float largest_f16 = 65504, largest_bf16 = 0x1.fep127f;

static float within(float x, float largest) { return isfinite(x) && fabsf(x) > largest ? copysignf(largest, x) : x; }

static float quotient(float x, float d) {
  const float q = d > 0 ? rintf(x / d) : 0;
  return q > 127 ? 127 : q < -127 ? -127 : q;
}

/* d = max |x| / 127 as an f16, q = x / d. Read back, the largest is 127 d: so d, and every q, are found again. Where f16 has few digits
 * left, the largest may be less than 127 d; then d is what would be found. */
static void narrow_block(const float *x, mn_q8_0 *to) {
  float top = 0, sum = 0;
  for (int i = 0; i < MN_BLOCK; i++) top = fmaxf(top, fabsf(x[i])), sum += x[i] * 0;
  to->d = mn_float_to_f16(within(top / 127, largest_f16) + sum); /* sum: 0, or no number */
  float d = mn_f16_to_float(to->d), read = 0;
  while ((read = quotient(top, d) * d) > 0 && read < 127 * d) {
    const uint16_t found = mn_float_to_f16(read / 127);
    if (found == to->d) break;
    to->d = found; /* a smaller one, and so this ends */
    d = mn_f16_to_float(found);
  }
  for (int i = 0; i < MN_BLOCK; i++) to->qs[i] = (int8_t)quotient(x[i], d);
}

void mn_narrow(mn_dtype type, const float *from, int64_t n, void *to) {
  switch (type) {
  case MN_BF16:
    for (int64_t i = 0; i < n; i++) ((uint16_t *)to)[i] = mn_float_to_bf16(within(from[i], largest_bf16));
    break;
  case MN_F16:
    for (int64_t i = 0; i < n; i++) ((uint16_t *)to)[i] = mn_float_to_f16(within(from[i], largest_f16));
    break;
  default:
    for (int64_t i = 0; i < n / MN_BLOCK; i++) narrow_block(from + i * MN_BLOCK, (mn_q8_0 *)to + i);
    break;
  }
}

void mn_widen(mn_dtype type, const void *from, int64_t n, float *to) {
  const mn_q8_0 *block = from;
  switch (type) {
  case MN_BF16:
    for (int64_t i = 0; i < n; i++) to[i] = mn_bf16_to_float(((const uint16_t *)from)[i]);
    break;
  case MN_F16:
    for (int64_t i = 0; i < n; i++) to[i] = mn_f16_to_float(((const uint16_t *)from)[i]);
    break;
  default:
    for (int64_t i = 0; i < n; i++) to[i] = mn_f16_to_float(block[i / MN_BLOCK].d) * (float)block[i / MN_BLOCK].qs[i % MN_BLOCK];
    break;
  }
}
