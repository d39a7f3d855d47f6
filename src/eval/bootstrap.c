/* bootstrap.c - see bootstrap.h. */
#include "eval/bootstrap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "task/rng.h"

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double mn_median(double *x, int64_t n) {
  if (n <= 0) return (double)NAN;
  qsort(x, (size_t)n, sizeof *x, by_value);
  return n % 2 || x[n / 2 - 1] == x[n / 2] ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

double mn_median_deviation(const double *x, int64_t n, double median, double *scratch) {
  for (int64_t i = 0; i < n; i++) scratch[i] = x[i] == median ? 0 : fabs(x[i] - median);
  return mn_median(scratch, n);
}

static double mean(double *x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += x[i];
  return sum / (double)n;
}

/* The value below which a part of the sorted x lies, between its neighbours in proportion. */
static double quantile(const double *x, int64_t n, double part) {
  const double at = part * (double)(n - 1);
  const int64_t k = (int64_t)at;
  if (k + 1 >= n || x[k] == x[k + 1]) return x[k];
  return x[k] + (at - (double)k) * (x[k + 1] - x[k]);
}

static mn_status bootstrap(double (*of)(double *, int64_t), const double *x, int64_t n, int64_t resamples, uint64_t seed,
                           mn_estimate *out) {
  *out = (mn_estimate){(double)NAN, (double)NAN, (double)NAN};
  if (n <= 0 || resamples <= 0) return MN_OK;
  double *drawn = mn_alloc((size_t)n * sizeof *drawn), *found = mn_alloc((size_t)resamples * sizeof *found);
  if (drawn && found) {
    mn_rng rng;
    mn_rng_seed(&rng, seed);
    memcpy(drawn, x, (size_t)n * sizeof *drawn);
    out->value = of(drawn, n);
    for (int64_t r = 0; r < resamples; r++) {
      for (int64_t i = 0; i < n; i++) drawn[i] = x[mn_rng_below(&rng, (uint64_t)n)];
      found[r] = of(drawn, n);
    }
    qsort(found, (size_t)resamples, sizeof *found, by_value);
    out->low = quantile(found, resamples, 0.025);
    out->high = quantile(found, resamples, 0.975);
  }
  const bool ok = drawn && found;
  free(drawn);
  free(found);
  return ok ? MN_OK : MN_ERR_MEMORY;
}

mn_status mn_bootstrap_median(const double *x, int64_t n, int64_t resamples, uint64_t seed, mn_estimate *out) {
  return bootstrap(mn_median, x, n, resamples, seed, out);
}
mn_status mn_bootstrap_mean(const double *x, int64_t n, int64_t resamples, uint64_t seed, mn_estimate *out) {
  return bootstrap(mean, x, n, resamples, seed, out);
}
