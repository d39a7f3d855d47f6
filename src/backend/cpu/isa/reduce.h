/* reduce.h - reductions of one run of elements: the table that every instruction set's isa/reduce.c exports. */
#ifndef MN_CPU_ISA_REDUCE_H
#define MN_CPU_ISA_REDUCE_H

#include "backend/backend.h"
#include "backend/cpu/isa.h"

typedef enum mn_reduce_fold { MN_FOLD_SUM, MN_FOLD_MAX, MN_FOLD_SUMSQ, MN_FOLDS } mn_reduce_fold;

/* What sums are kept in: f32 for f32 and bf16, f64 for f64, i64 for integers. A maximum is NaN where an element is. */
typedef struct mn_reduce_vec {
  /* *acc = fold(*acc, x[0], x[stride], ... n elements) */
  void (*row[MN_FOLDS][MN_DTYPES])(void *acc, const void *x, int64_t n, int64_t stride);
  /* acc[j] = fold(acc[j], x[r*row_stride + j*stride] for r < rows), j < n, rows in order */
  void (*columns[MN_FOLDS][MN_DTYPES])(void *acc, const void *x, int64_t rows, int64_t row_stride, int64_t n, int64_t stride);
  /* the lowest index of the largest of x[0], x[stride], ...; of the first NaN if there is one */
  int64_t (*argmax[MN_DTYPES])(const void *x, int64_t n, int64_t stride);
  /* running sums over axis 1 of x[n, inner] (inner elements of axis 2, of which the pointers show the first `width`) */
  void (*cumsum[MN_DTYPES])(void *y, const void *x, int64_t n, int64_t inner, int64_t width, bool reverse);
} mn_reduce_vec;

enum { MN_CUMSUM_WIDTH = 256 }; /* the most columns of one call */

MN_ISA_DECLARE(mn_reduce_vec, mn_reduce_table);

#endif
