/* gemm_units.h - eight units of K of a whole tile, written out for AVX2; for gemm_kernel.h only.
 *
 * A unit is 12 multiply-adds, 6 cycles, and needs 8 loads beside them. As a loop of one unit, with its pointers and its end, that is 24
 * instructions, 4 in a cycle. A core by itself begins 6, and such a loop is as fast as any. But where another thread runs on the same core,
 * ours or a neighbour's, each gets half of them, and a tile takes 8 cycles for a unit. Eight units at once need 20.6 instructions each: 7 cycles.
 * Sums and operands fill all registers, and GCC, left to itself, mixes the units and keeps sums in memory: so what it may choose are only the
 * registers of the sums. */
#ifndef MN_ISA_GEMM_UNITS_H
#define MN_ISA_GEMM_UNITS_H

#include "backend/cpu/isa/vec.h"

#if defined(MN_VEC_256) && defined(__x86_64__)
#define MN_GEMM_UNITS 1
/* A row of A, at `a`, times the unit of B in ymm12 and ymm13 */
#define UNIT_ROW(a, x, y)                                                                                                                  \
  "vbroadcastss " a ", %%ymm14\n\t"                                                                                                        \
  "vfmadd231ps %%ymm12, %%ymm14, %" #x "\n\t"                                                                                              \
  "vfmadd231ps %%ymm13, %%ymm14, %" #y "\n\t"
#define UNIT_OF_B(s)                                                                                                                       \
  "vmovups 64*" #s "(%[b]), %%ymm12\n\t"                                                                                                   \
  "vmovups 64*" #s "+32(%[b]), %%ymm13\n\t"
#define UNIT_PACKED(s)                                                                                                                     \
  UNIT_OF_B(s)                                                                                                                             \
  UNIT_ROW("24*" #s "(%[a])", 0, 1)                                                                                                        \
  UNIT_ROW("24*" #s "+4(%[a])", 2, 3)                                                                                                      \
  UNIT_ROW("24*" #s "+8(%[a])", 4, 5)                                                                                                      \
  UNIT_ROW("24*" #s "+12(%[a])", 6, 7)                                                                                                     \
  UNIT_ROW("24*" #s "+16(%[a])", 8, 9)                                                                                                     \
  UNIT_ROW("24*" #s "+20(%[a])", 10, 11)
#define UNIT_IN_ROWS(s)                                                                                                                    \
  UNIT_OF_B(s)                                                                                                                             \
  UNIT_ROW("4*" #s "(%[a])", 0, 1)                                                                                                         \
  UNIT_ROW("4*" #s "(%[a], %[pitch])", 2, 3)                                                                                               \
  UNIT_ROW("4*" #s "(%[a], %[pitch], 2)", 4, 5)                                                                                            \
  UNIT_ROW("4*" #s "(%[a3])", 6, 7)                                                                                                        \
  UNIT_ROW("4*" #s "(%[a3], %[pitch])", 8, 9)                                                                                              \
  UNIT_ROW("4*" #s "(%[a3], %[pitch], 2)", 10, 11)
#define UNITS_AT_ONCE(unit) unit(0) unit(1) unit(2) unit(3) unit(4) unit(5) unit(6) unit(7)
#define UNIT_SUMS(c)                                                                                                                       \
  "+x"(c[0]), "+x"(c[1]), "+x"(c[2]), "+x"(c[3]), "+x"(c[4]), "+x"(c[5]), "+x"(c[6]), "+x"(c[7]), "+x"(c[8]), "+x"(c[9]), "+x"(c[10]),     \
      "+x"(c[11])

/* A: packed, a unit is six floats */
MN_INLINE void units_packed(vf c[12], const char *a, const float *b) {
  __asm__(UNITS_AT_ONCE(UNIT_PACKED) : UNIT_SUMS(c) : [a] "r"(a), [b] "r"(b) : "xmm12", "xmm13", "xmm14", "memory");
}
/* A: rows `pitch` bytes apart, the fourth at a3 */
MN_INLINE void units_in_rows(vf c[12], const char *a, const char *a3, int64_t pitch, const float *b) {
  __asm__(UNITS_AT_ONCE(UNIT_IN_ROWS)
          : UNIT_SUMS(c)
          : [a] "r"(a), [a3] "r"(a3), [pitch] "r"(pitch), [b] "r"(b)
          : "xmm12", "xmm13", "xmm14", "memory");
}
#undef UNIT_ROW
#undef UNIT_OF_B
#undef UNIT_PACKED
#undef UNIT_IN_ROWS
#undef UNITS_AT_ONCE
#undef UNIT_SUMS
#else
#define MN_GEMM_UNITS 0
#endif

#endif
