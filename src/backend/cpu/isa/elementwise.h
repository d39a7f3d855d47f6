/* elementwise.h - one instruction of an element-wise program over a run of elements: the table that every instruction
 * set's isa/elementwise.c exports. */
#ifndef MN_CPU_ISA_ELEMENTWISE_H
#define MN_CPU_ISA_ELEMENTWISE_H

#include "backend/backend.h"
#include "backend/cpu/isa.h"

/* y[i] = f(a[i], b[i], c[i]) for i < n. Bit k of `scalar`: operand k is one element for all i (never all of them are). y
 * may be one of the operands when their elements have one size. */
typedef void (*mn_ew_fn)(void *y, const void *a, const void *b, const void *c, int64_t n, unsigned scalar);

typedef struct mn_ew_vec {
  /* by the type of the operands (select: of the last two); NULL: not defined for the type. bf16 has none: it is
   * computed with as f32 */
  mn_ew_fn f32[MN_EW_CODES], f64[MN_EW_CODES], i32[MN_EW_CODES], i64[MN_EW_CODES], boolean[MN_EW_CODES];
  mn_ew_fn fma_f32;                    /* a*b + c */
  mn_ew_fn cast[MN_DTYPES][MN_DTYPES]; /* [from][to] in memory; equal types copy */
  mn_ew_fn round_bf16[MN_DTYPES];      /* [from, but bf16] -> the nearest bf16, as f32 */
  /* y[i] = x[i*stride], by the size of an element (as log2); [4]: bf16 to f32 */
  void (*spread[5])(void *y, const void *x, int64_t n, int64_t stride);
} mn_ew_vec;

MN_ISA_DECLARE(mn_ew_vec, mn_ew_table);

#endif
