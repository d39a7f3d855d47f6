/* narrow.h - types that caches may be kept in: bf16, f16, and q8_0 (blocks.h), whose blocks of 32 values share a scale of f16. To the nearest
 * value that the type has; a finite value beyond the largest becomes the largest, an infinite one stays so; a block of q8_0 with what is not
 * finite has no numbers. What was read back becomes the same bits again. */
#ifndef MN_NARROW_H
#define MN_NARROW_H

#include "base/types.h"

static inline bool mn_is_narrow(mn_dtype t) { return t == MN_BF16 || t == MN_F16 || t == MN_Q8_0; }
/* n values, whole blocks of the type. */
void mn_narrow(mn_dtype type, const float *from, int64_t n, void *to);
void mn_widen(mn_dtype type, const void *from, int64_t n, float *to);

#endif
