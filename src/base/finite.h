/* finite.h - looking for NaN and infinities in memory, as fast as it can be read. */
#ifndef MN_FINITE_H
#define MN_FINITE_H

#include "base/types.h"

/* Index of the first of n elements that is NaN or infinite; -1: all are numbers, or the type has none that are not. `data`
 * may be unaligned. */
int64_t mn_first_not_finite(mn_dtype type, const void *data, int64_t n);
/* "NaN", "infinity" or "-infinity": what element i, which is not finite, is. */
const char *mn_not_finite_name(mn_dtype type, const void *data, int64_t i);

#endif
