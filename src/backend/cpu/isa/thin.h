/* thin.h - products of few rows, as one step of decoding makes them: B is much larger than A, and reading it once, in the
 * order in which it lies in memory, is all the time there is. */
#ifndef MN_ISA_THIN_H
#define MN_ISA_THIN_H

#include "backend/cpu/isa/gemm.h"

typedef struct mn_thin {
  /* C (+)= alpha A B on the calling thread. A is given apart, dense [M,K]: bf16 where a_bf16 says so for the type of B,
   * else f32; p->a, p->a_rs and p->a_cs are not read. One of B's strides must be 1. Any M is right; fast are up to 4 rows,
   * or a dozen when the columns of B are dense. */
  void (*run)(const mn_product *p, const void *A);
  bool a_bf16; /* A is wanted in bf16 when B is bf16 */
} mn_thin;

MN_ISA_DECLARE(mn_thin, mn_thin_table);

#endif
