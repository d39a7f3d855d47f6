/* bootstrap.h - how sure a median or a mean of a few numbers is: the percentile bootstrap (Efron 1979). The numbers are drawn again with
 * replacement, `resamples` times, and the interval holds the middle 95 % of what the statistic of the draws is. */
#ifndef MN_BOOTSTRAP_H
#define MN_BOOTSTRAP_H

#include "base/base.h"

typedef struct mn_estimate {
  double value, low, high; /* NaN of no numbers */
} mn_estimate;

double mn_median(double *x, int64_t n); /* reorders x; NaN of none. The mean of the two in the middle where n is even */
double mn_median_deviation(const double *x, int64_t n, double median, double *scratch); /* median of |x - median|; scratch [n] */
/* The same numbers, resamples and seed give the same interval. */
mn_status mn_bootstrap_median(const double *x, int64_t n, int64_t resamples, uint64_t seed, mn_estimate *out);
mn_status mn_bootstrap_mean(const double *x, int64_t n, int64_t resamples, uint64_t seed, mn_estimate *out);

#endif
