/* copy.h - copies between any two strided layouts, spread over threads. */
#ifndef MN_CPU_COPY_H
#define MN_CPU_COPY_H

#include "backend/cpu/cpu.h"

/* y[i] = x[i] for all indices i of dim[ndim]; strides in elements of `size` bytes (1, 2, 4, 8). The elements of y are
 * distinct; x may repeat (stride 0). y and x do not overlap. */
void mn_cpu_copy(mn_pool *pool, mn_isa isa, size_t size, int ndim, const int64_t *dim, void *y, const int64_t *y_stride, const void *x,
                 const int64_t *x_stride);

#endif
