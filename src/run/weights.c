/* weights.c - see weights.h. Eight values at a time, in vectors as wide as every processor has them. */
#include "run/weights.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { WIDE = 8 };
typedef float reals __attribute__((vector_size(4 * WIDE)));
typedef uint32_t wholes __attribute__((vector_size(4 * WIDE)));

int64_t mn_largest(const float *x, int64_t n) {
  float most[WIDE], all = -INFINITY;
  for (int k = 0; k < WIDE; k++) most[k] = -INFINITY;
  int64_t i = 0;
  for (; i + WIDE <= n; i += WIDE)
    for (int k = 0; k < WIDE; k++) most[k] = x[i + k] > most[k] ? x[i + k] : most[k];
  for (; i < n; i++) most[0] = x[i] > most[0] ? x[i] : most[0];
  for (int k = 0; k < WIDE; k++) all = most[k] > all ? most[k] : all;
  for (i = 0; i + 1 < n && x[i] != all; i++) continue;
  return i;
}

/* Eight of them, y = (x - top) by: 2^y is 2^n 2^r with |r| <= 1/2, and the series of the second; 0 where y < -126. Nothing is handed on in
 * registers: vectors of this width are an agreement of instruction sets. */
static inline void eight(const float *x, float top, float by, float least, float *to, reals *sum) {
  const float round = 0x1.8p23f; /* added, it leaves no room for a fraction */
  reals y;
  memcpy(&y, x, sizeof y);
  y = (y - top) * by;
  const wholes small = (wholes)(y < -126.0f);
  y = (reals)((wholes)y & ~small);
  const reals up = y + round, r = y - (up - round);
  const wholes n = (wholes)up << 23; /* of `round` itself nothing is left */
  reals p = 1.5252734e-5f + (reals){0};
  p = p * r + 1.5403530e-4f;
  p = p * r + 1.3333558e-3f;
  p = p * r + 9.6181291e-3f;
  p = p * r + 5.5504109e-2f;
  p = p * r + 2.4022651e-1f;
  p = p * r + 6.9314718e-1f;
  p = p * r + 1.0f;
  p = (reals)(((wholes)p + n) & ~small);
  p = (reals)((wholes)p & ~(wholes)(p < least));
  *sum += p;
  memcpy(to, &p, sizeof p);
}

double mn_weights(const float *x, int64_t n, float top, double temperature, double least, float *to, double *sums) {
  const float by = (float)fmin(1.4426950408889634 / temperature, FLT_MAX), bar = (float)least;
  double all = 0;
  for (int64_t from = 0; from < n; from += MN_WEIGHTS_BLOCK) {
    const int64_t end = n - from < MN_WEIGHTS_BLOCK ? n : from + MN_WEIGHTS_BLOCK;
    reals part = {0};
    double sum = 0;
    int64_t i = from;
    for (; i + WIDE <= end; i += WIDE) eight(x + i, top, by, bar, to + i, &part);
    if (i < end) {
      float last[WIDE], w[WIDE];
      for (int k = 0; k < WIDE; k++) last[k] = i + k < end ? x[i + k] : -INFINITY;
      eight(last, top, by, bar, w, &part);
      memcpy(to + i, w, sizeof *w * (size_t)(end - i));
    }
    for (int k = 0; k < WIDE; k++) sum += (double)part[k];
    all += sums[from / MN_WEIGHTS_BLOCK] = sum;
  }
  return all;
}
