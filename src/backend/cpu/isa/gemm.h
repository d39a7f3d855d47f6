/* gemm.h - products of matrices in memory, on the calling thread: what the matmul operation is made of, and what other
 * kernels (attention, recurrences, losses) call for their inner products.
 *
 * Everywhere: A is [M,K] with element (i,k) at A[i*a_rs + k*a_cs]; B is [K,N] with (k,j) at B[k*b_rs + j*b_cs]; C is
 * [M,N] with (i,j) at C[i*ldc + j]. Strides are in elements and may be 0 or swapped, so a transposed operand is the
 * same pointer with its strides exchanged. C must not overlap A or B. Sums are f32. bf16 is the upper half of an f32,
 * held in a uint16_t. M, N or K of 0 is allowed (K = 0 gives zeros, or leaves C when accumulating). */
#ifndef MN_ISA_GEMM_H
#define MN_ISA_GEMM_H

#include "backend/cpu/isa.h"

typedef struct mn_product {
  int64_t M, N, K;
  const void *a, *b; /* f32, or bf16 when `bf16` */
  int64_t a_rs, a_cs, b_rs, b_cs;
  void *c; /* f32, or bf16 when `c_bf16` */
  int64_t ldc;
  bool bf16, c_bf16;
  bool b_f32;      /* with bf16: B is f32, and rounded to bf16 on its way in; not with oneDNN */
  bool accumulate; /* C += ...; not with c_bf16 */
  float alpha;
} mn_product;
static inline size_t mn_product_b_size(const mn_product *p) { return p->bf16 && !p->b_f32 ? 2 : 4; }

/* B of a product that is cut into several, packed once for all of them. */
typedef struct mn_packed_b {
  const void *data;      /* by pack_b */
  int64_t panels, first; /* of all of B; the first one that the part multiplies by */
} mn_packed_b;

typedef struct mn_gemm {
  /* C = alpha A B, or C += alpha A B. Made for M, N, K of some 1 .. 256, called many times: needs no scratch memory
   * (at most 96 KiB of stack), right for any size. Fastest when b_cs = 1 (f32). */
  void (*small_f32)(int64_t M, int64_t N, int64_t K, float alpha, const float *A, int64_t a_rs, int64_t a_cs, const float *B, int64_t b_rs,
                    int64_t b_cs, float *C, int64_t ldc, bool accumulate);

  /* f32 and bf16 through packed blocks, for larger products; scratch: 64-byte aligned, block_scratch(p, ...) bytes. b NULL: B
   * is packed whole for each slice of K, so N should be some 704 at most; M and K are unlimited. */
  void (*block)(const mn_product *p, const mn_packed_b *b, void *scratch);
  size_t (*block_scratch)(const mn_product *p, bool b_is_packed);
  bool (*packs_a)(const mn_product *p); /* or reads it where it lies */

  /* B packed for several calls of `block`: panels [first, last) of nr columns each, into `data` of packed_b_bytes(p) bytes,
   * 64-byte aligned. shares_b: that is faster than to pack it for each; near_columns: so many of N
   * to a part, at most. */
  bool shares_b;
  int64_t (*near_columns)(const mn_product *p, bool packed_once);
  size_t (*packed_b_bytes)(const mn_product *p);
  void (*pack_b)(const mn_product *p, int64_t first, int64_t last, void *data);

  int mr, nr;        /* the tile of `block`: M and N should be cut at multiples */
  int bf16_per_unit; /* elements of bf16 that one multiply-add takes: 1 or 2   */
} mn_gemm;

MN_ISA_DECLARE(mn_gemm, mn_gemm_table);

#endif
