/* blocks.h - the table that every instruction set's isa/blocks.c exports: weights read from the blocks that they are stored in
 * (base/blocks.h), or as f16 or bf16. */
#ifndef MN_ISA_BLOCKS_H
#define MN_ISA_BLOCKS_H

#include "backend/cpu/isa.h"
#include "base/types.h"

/* How activations are rounded to 8 bits, x = d q with |q| <= 127, before they meet blocks: the ways of ggml, which files of blocks are made
 * and judged with (Q8_0, Q8_1 and Q8_K there; the forms of its kernels for x86). Halves of whole numbers go to the even one.
 *   32    32 values to a scale: q = round(x (127 / most)), d the f16 nearest to most / 127, most the largest magnitude
 *   SUMS  the same, and the sum of 32 values, (most / 127) sum q, is a f16 too
 *   256   256 values to a scale: q = round(x i), d = 1 / i, where i = -127 / the first value of largest magnitude, all in f32
 * A scale that no f16 can hold stays f32. */
typedef enum mn_rounding { MN_ROUND_32, MN_ROUND_SUMS, MN_ROUND_256, MN_ROUNDINGS } mn_rounding;

static inline mn_rounding mn_rounding_of(mn_dtype t) { /* of what meets weights in such blocks */
  const bool super = t == MN_Q2_K || t == MN_Q3_K || t == MN_Q4_K || t == MN_Q5_K || t == MN_Q6_K || t == MN_IQ4_XS;
  return super ? MN_ROUND_256 : t == MN_Q4_1 || t == MN_Q5_1 ? MN_ROUND_SUMS : MN_ROUND_32;
}

/* Rounded rows. Sums of x over 16 and 32 values are kept beside, for blocks whose values have an offset. K is a multiple of 32, or of 256. */
typedef struct mn_rounded {
  int64_t M, K;
  int8_t *q;                      /* [M,K]    */
  float *d, *sum;                 /* [M,K/32] */
  float *d_of_half, *sum_of_half; /* [M,K/16], for MN_ROUND_256 alone */
  int32_t *lifted;                /* [M,K/32], -128 sum q: what codes that stand 128 higher have too much */
} mn_rounded;

typedef struct mn_blocks_vec {
  /* n values, of whole blocks: bit for bit those of mn_dequantize. */
  void (*unpack)(mn_dtype type, const void *from, int64_t n, float *to);
  /* n values to the nearest bf16, and back. */
  void (*narrow)(const float *from, int64_t n, uint16_t *to);
  void (*widen)(const uint16_t *from, int64_t n, float *to);
  /* x [K] as row i of r, whose memory is there. */
  void (*round)(mn_rounding how, const float *x, mn_rounded *r, int64_t i);
  /* y[i, j] = sum_k x[i,k] w[j,k] for N rows of w, in blocks, and x rounded as they want it: whole numbers within 32 (or 16) values, f32
   * across. A few rows of x. */
  void (*product)(mn_dtype type, const void *w, int64_t N, const mn_rounded *x, float *y, int64_t y_stride);
  /* y of weights in f16 or bf16 and activations as they are. */
  void (*product_halves)(mn_dtype type, const uint16_t *w, int64_t N, int64_t K, const float *x, int64_t x_stride, int64_t M, float *y,
                         int64_t y_stride);
} mn_blocks_vec;

/* What `product` gives, sums in another order, for many rows of x: some rows of w at a time are unpacked to whole numbers, into `scratch` of
 * mn_blocks_scratch(K) bytes, aligned to 64. */
typedef struct mn_blocks_many_vec {
  void (*product)(mn_dtype type, const void *w, int64_t N, const mn_rounded *x, void *scratch, float *y, int64_t y_stride);
} mn_blocks_many_vec;
static inline size_t mn_blocks_scratch(int64_t K) { return sizeof(float) * 8 * (size_t)(K + 4 * (K / 16)); }

/* Up to so many rows of x mn_blocks_vec's product is the faster one (bench-blocks). With vectors it is not for any number where a block has
 * one scale and its codes are halves of bytes: those are laid in lanes at little cost. */
static inline int64_t mn_blocks_few(mn_dtype t, mn_isa isa) {
  if (isa < MN_ISA_LEVEL_AVX2 || t == MN_Q3_K || (t == MN_Q5_K && isa >= MN_ISA_LEVEL_AVX512)) return 2;
  if (t == MN_IQ4_XS && isa >= MN_ISA_LEVEL_AVX512_BF16) return 0;
  return t == MN_Q4_0 || t == MN_Q4_1 || t == MN_IQ4_NL ? 0 : 1;
}

MN_ISA_DECLARE(mn_blocks_vec, mn_blocks_table);
MN_ISA_DECLARE(mn_blocks_many_vec, mn_blocks_many_table);

#endif
