/* blocks.h - the table that every instruction set's isa/blocks.c exports: weights read from the blocks that they are stored in
 * (base/blocks.h), or as f16. */
#ifndef MN_ISA_BLOCKS_H
#define MN_ISA_BLOCKS_H

#include "backend/cpu/isa.h"
#include "base/types.h"

/* Rows of activations in 8 bits: 32 values share a scale, x = d q with |q| <= 127. Sums of x over 16 and 32 values are kept beside, for
 * blocks whose values have an offset. K is a multiple of 32. */
typedef struct mn_rounded {
  int64_t M, K;
  int8_t *q;                      /* [M,K]    */
  float *d, *sum;                 /* [M,K/32] */
  float *d_of_half, *sum_of_half; /* [M,K/16] */
} mn_rounded;

typedef struct mn_blocks_vec {
  /* n values, of whole blocks: bit for bit those of mn_dequantize. */
  void (*unpack)(mn_dtype type, const void *from, int64_t n, float *to);
  /* n values to the nearest bf16, and back. */
  void (*narrow)(const float *from, int64_t n, uint16_t *to);
  void (*widen)(const uint16_t *from, int64_t n, float *to);
  /* x [M,K] with rows x_stride apart, into r, whose memory is there. */
  void (*round)(const float *x, int64_t x_stride, mn_rounded *r);
  /* y[i, j] = sum_k x[i,k] w[j,k] for N rows of w, in blocks: whole numbers within 32 (or 16) values, f32 across. */
  void (*product)(mn_dtype type, const void *w, int64_t N, const mn_rounded *x, float *y, int64_t y_stride);
  /* The same of f16 weights and activations as they are. */
  void (*product_f16)(const uint16_t *w, int64_t N, int64_t K, const float *x, int64_t x_stride, int64_t M, float *y, int64_t y_stride);
} mn_blocks_vec;

MN_ISA_DECLARE(mn_blocks_vec, mn_blocks_table);

#endif
