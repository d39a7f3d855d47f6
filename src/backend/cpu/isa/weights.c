/* weights.c - see weights.h. */
#include "backend/cpu/isa/weights.h"

#include <float.h>
#include <math.h>

#include "backend/cpu/isa/vec.h"

enum { AT_ONCE = 4 /* vectors: none waits for the one before it */ };

/* ---- the largest ---- */
/* All ones where all bits of the exponent are set. */
MN_INLINE vi no_number(vf x) {
  const vi exponent = vi_set1(0x7F800000);
  return (vi)((vi_bits(x) & exponent) == exponent);
}
static float peak(const float *x, int64_t n, vi *bad) {
  vf most[AT_ONCE];
  vi wrong[AT_ONCE];
  for (int k = 0; k < AT_ONCE; k++) most[k] = vf_set1(-INFINITY), wrong[k] = vi_set1(0);
  int64_t i = 0;
  for (; i + AT_ONCE * MN_VL <= n; i += AT_ONCE * MN_VL)
    for (int k = 0; k < AT_ONCE; k++) {
      const vf v = vf_load(x + i + k * MN_VL);
      most[k] = vf_max(most[k], v), wrong[k] |= no_number(v);
    }
  for (; i < n; i += MN_VL) {
    const int left = n - i < MN_VL ? (int)(n - i) : MN_VL;
    const vf v = vf_loadn(x + i, left);
    most[0] = vf_max(most[0], vf_select(vm_first(left), v, vf_set1(-INFINITY))), wrong[0] |= no_number(v);
  }
  *bad |= (wrong[0] | wrong[1]) | (wrong[2] | wrong[3]);
  return vf_hmax(vf_max(vf_max(most[0], most[1]), vf_max(most[2], most[3])));
}
static bool peaks(const float *x, int64_t n, float *of) {
  vi bad = vi_set1(0);
  int32_t each[MN_VL], any = 0;
  for (int64_t i = 0; i < n; i += MN_WEIGHTS_BLOCK) *of++ = peak(x + i, n - i < MN_WEIGHTS_BLOCK ? n - i : MN_WEIGHTS_BLOCK, &bad);
  vi_store(each, bad);
  for (int k = 0; k < MN_VL; k++) any |= each[k];
  return !any;
}

/* ---- weights ---- */
/* y = (x - top) by: 2^y is 2^n 2^r with |r| <= 1/2, and the series of the second; 0 where y < -126. */
MN_INLINE vf weight(vf x, float top, float by, float least) {
  const float round = 0x1.8p23f; /* added, it leaves no room for a fraction */
  vf y = (x - top) * by;
  const vm small = vf_lt(y, vf_set1(-126.0f));
  y = vf_select(small, vf_zero(), y);
  const vf up = y + round, r = y - (up - round);
  const vu n = (vu)vi_bits(up) << 23; /* of `round` itself nothing is left */
  vf p = vf_set1(1.5252734e-5f);
  p = p * r + 1.5403530e-4f;
  p = p * r + 1.3333558e-3f;
  p = p * r + 9.6181291e-3f;
  p = p * r + 5.5504109e-2f;
  p = p * r + 2.4022651e-1f;
  p = p * r + 6.9314718e-1f;
  p = p * r + 1.0f;
  p = vf_select(small, vf_zero(), vf_bits((vi)((vu)vi_bits(p) + n)));
  return vf_select(vf_lt(p, vf_set1(least)), vf_zero(), p);
}
MN_INLINE double weigh_block(const float *x, int64_t n, float top, float by, float least, float *to) {
  vf part[2] = {vf_zero(), vf_zero()};
  int64_t i = 0;
  for (; i + 2 * MN_VL <= n; i += 2 * MN_VL)
    for (int k = 0; k < 2; k++) {
      const vf w = weight(vf_load(x + i + k * MN_VL), top, by, least);
      if (to) vf_store(to + i + k * MN_VL, w);
      part[k] += w;
    }
  for (; i < n; i += MN_VL) {
    const int left = n - i < MN_VL ? (int)(n - i) : MN_VL;
    const vf w = weight(vf_select(vm_first(left), vf_loadn(x + i, left), vf_set1(-INFINITY)), top, by, least);
    if (to) vf_storen(to + i, w, left);
    part[0] += w;
  }
  float each[MN_VL];
  double sum = 0;
  vf_store(each, part[0] + part[1]);
  for (int k = 0; k < MN_VL; k++) sum += (double)each[k];
  return sum;
}
static double weigh(const float *x, int64_t n, float top, double temperature, double least, float *to, double *sums) {
  const float by = (float)fmin(1.4426950408889634 / temperature, FLT_MAX), bar = (float)least;
  double all = 0;
  for (int64_t from = 0; from < n; from += MN_WEIGHTS_BLOCK) {
    const int64_t some = n - from < MN_WEIGHTS_BLOCK ? n - from : MN_WEIGHTS_BLOCK;
    const double sum = to ? weigh_block(x + from, some, top, by, bar, to + from) : weigh_block(x + from, some, top, by, bar, NULL);
    all += sums[from / MN_WEIGHTS_BLOCK] = sum;
  }
  return all;
}

const mn_weights_vec MN_ISA_NAME(mn_weights_table) = {peaks, weigh};
