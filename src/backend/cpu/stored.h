/* stored.h - a product with a matrix in a type of storage (graph/stored.h), for kernels that hold such matrices themselves: what the operation
 * stored_product is, for one matrix and results in f32. */
#ifndef MN_CPU_STORED_H
#define MN_CPU_STORED_H

#include "backend/backend.h"

typedef struct mn_stored_matrix { /* y[M,N] = x[M,K] W^T, rows dense; x of f32 or bf16, W in its type of storage, y of f32 */
  int64_t M, N, K;
  mn_dtype x_type, type;
  const void *x, *w;
  float *y;
  bool exact; /* x is not rounded to 8 bits */
} mn_stored_matrix;

/* Bytes of work that one asks for, which lie on a multiple of 64; its pointers may be NULL. */
size_t mn_stored_scratch(const mn_stored_matrix *m, mn_backend *b, mn_pool *pool);
void mn_stored_run(const mn_stored_matrix *m, mn_backend *b, mn_pool *pool, void *work);

#endif
