/* masked_product.h - ((x y^T) * p) z for one matrix of a batch. */
#ifndef MN_CPU_ISA_MASKED_PRODUCT_H
#define MN_CPU_ISA_MASKED_PRODUCT_H

#include "backend/cpu/isa.h"
#include "graph/fused_masked_product.h"

enum { MN_MASKED_ROWS = 64 }; /* rows of x, p and the result that one call makes */

typedef struct mn_masked_matrix { /* last axis dense; stride of a row in elements */
  const void *data;
  int64_t stride;
  bool bf16;
} mn_masked_matrix;

typedef struct mn_masked_args {
  int64_t M, N, K, V;
  mn_masked_matrix x, y, p, z, o; /* [M,K], [N,K], [M,N], [N,V], [M,V] */
} mn_masked_args;

typedef struct mn_masked_product_isa {
  size_t (*scratch)(const mn_masked_args *a);
  void (*run)(const mn_masked_args *a, int64_t m0, void *scratch); /* rows m0 .. m0 + MN_MASKED_ROWS */
} mn_masked_product_isa;
MN_ISA_DECLARE(mn_masked_product_isa, mn_masked_product);

#endif
