/* onednn.h - oneDNN as another way to compute one block of a product on the calling thread. Only onednn.c knows its
 * API. */
#ifndef MN_CPU_ONEDNN_H
#define MN_CPU_ONEDNN_H

#include "backend/cpu/isa/gemm.h"

typedef struct mn_onednn mn_onednn;

/* Prepares blocks of mb x nb and the smaller ones at the edges of a product of p's sizes and strides, for threads
 * 0 .. threads-1. Fails with MN_ERR_UNSUPPORTED when this build or this oneDNN cannot (the caller then uses its own
 * kernels). Not for p->accumulate or an alpha other than 1. */
mn_status mn_onednn_new(const mn_product *p, int64_t mb, int64_t nb, int threads, mn_onednn **out);
void mn_onednn_free(mn_onednn *o);
/* One block, of the size that its M and N say. oneDNN starts no thread of its own here. */
mn_status mn_onednn_block(mn_onednn *o, const mn_product *block, int thread);
/* The whole product by oneDNN's own threads (mb = M, nb = N): for comparisons only. */
mn_status mn_onednn_whole(mn_onednn *o, const mn_product *p, int omp_threads);

#endif
