/* units.h - units of K of whole tiles, written out for AVX2: eight at once of a packed product (gemm_kernel.h), four of the small ones of
 * attention and recurrences (tile.h).
 *
 * A unit of a tile of 6 x 16 is 12 multiply-adds, 6 cycles, and needs 8 loads beside them. As a loop of one unit, with its pointers and its end,
 * that is 24 instructions, 4 in a cycle. A core by itself begins 6, and such a loop is as fast as any. But where another thread runs on the same
 * core, ours or a neighbour's, each gets half of them, and a tile takes 8 cycles for a unit. Eight units at once need 20.6 instructions each: 7
 * cycles. Sums and operands fill all registers, and GCC, left to itself, mixes the units and keeps sums in memory: so what it may choose are only
 * the registers of the sums. */
#ifndef MN_ISA_UNITS_H
#define MN_ISA_UNITS_H

#include "backend/cpu/isa/vec.h"

/* Not where the compiler fuses nothing by itself (below -O2) or watches addresses: a row's bits would depend on the tile that it is in, and
 * what is read here would not be watched. */
#if defined(__SANITIZE_ADDRESS__)
#define MN_WATCHED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MN_WATCHED 1
#endif
#endif
#if defined(MN_VEC_256) && defined(__x86_64__) && defined(__OPTIMIZE__) && !defined(MN_WATCHED)
#define MN_UNITS 1

/* A unit of B, at b and at 32 bytes from there, into ymm12 and ymm13; and a row of A, at a, times it */
#define UNIT_OF_B(at)                                                                                                                      \
  "vmovups " at ", %%ymm12\n\t"                                                                                                            \
  "vmovups 32+" at ", %%ymm13\n\t"
#define UNIT_ROW(at, x, y)                                                                                                                 \
  "vbroadcastss " at ", %%ymm14\n\t"                                                                                                       \
  "vfmadd231ps %%ymm12, %%ymm14, %" #x "\n\t"                                                                                              \
  "vfmadd231ps %%ymm13, %%ymm14, %" #y "\n\t"
#define UNIT_USES          "xmm12", "xmm13", "xmm14", "memory"
#define UNIT_SUMS(c, i, n) "+x"(c[(i) * (n)]), "+x"(c[(i) * (n) + 1])
#define UNIT_SUMS_4(c, n)  UNIT_SUMS(c, 0, n), UNIT_SUMS(c, 1, n), UNIT_SUMS(c, 2, n), UNIT_SUMS(c, 3, n)
#define UNIT_SUMS_6(c, n)  UNIT_SUMS_4(c, n), UNIT_SUMS(c, 4, n), UNIT_SUMS(c, 5, n)

/* Rows of A: six or the first three of those that lie `next` bytes apart, `at` bytes into them */
#define UNIT_ROWS_3(at, first, next, c0, c1, c2, c3, c4, c5)                                                                               \
  UNIT_ROW(at "(" first ")", c0, c1)                                                                                                       \
  UNIT_ROW(at "(" first ", " next ")", c2, c3)                                                                                             \
  UNIT_ROW(at "(" first ", " next ", 2)", c4, c5)
#define UNIT_ROWS_6(at) UNIT_ROWS_3(at, "%[a]", "%[ra]", 0, 1, 2, 3, 4, 5) UNIT_ROWS_3(at, "%[a3]", "%[ra]", 6, 7, 8, 9, 10, 11)
#define UNIT_ROWS_4(at) UNIT_ROWS_3(at, "%[a]", "%[ra]", 0, 1, 2, 3, 4, 5) UNIT_ROW(at "(%[a3])", 6, 7)
/* Rows that lie side by side, from `at` on */
#define UNIT_SIDE_4(at) UNIT_ROW(at, 0, 1) UNIT_ROW("4+" at, 2, 3) UNIT_ROW("8+" at, 4, 5) UNIT_ROW("12+" at, 6, 7)
#define UNIT_SIDE_6(at) UNIT_SIDE_4(at) UNIT_ROW("16+" at, 8, 9) UNIT_ROW("20+" at, 10, 11)

/* ---- B packed: units of 16 floats ---- */
#define UNIT_PACKED(s)      UNIT_OF_B("64*" #s "(%[b])") UNIT_SIDE_6("24*" #s "(%[a])")
#define UNIT_IN_ROWS(s)     UNIT_OF_B("64*" #s "(%[b])") UNIT_ROWS_6("4*" #s)
#define UNITS_AT_ONCE(unit) unit(0) unit(1) unit(2) unit(3) unit(4) unit(5) unit(6) unit(7)
/* A: packed, units of six floats */
MN_INLINE void units_packed(vf c[12], const char *a, const float *b) {
  __asm__(UNITS_AT_ONCE(UNIT_PACKED) : UNIT_SUMS_6(c, 2) : [a] "r"(a), [b] "r"(b) : UNIT_USES);
}
/* A: rows `ra` bytes apart, the fourth at a3 */
MN_INLINE void units_in_rows(vf c[12], const char *a, const char *a3, int64_t ra, const float *b) {
  __asm__(UNITS_AT_ONCE(UNIT_IN_ROWS) : UNIT_SUMS_6(c, 2) : [a] "r"(a), [a3] "r"(a3), [ra] "r"(ra), [b] "r"(b) : UNIT_USES);
}

/* ---- B as it lies: units `ldb` bytes apart, the fourth at b3; sums four to a row, of which two are used ---- */
typedef struct tile_at { /* bytes */
  const char *a, *a3;    /* a3: three rows on, or, where rows lie side by side, three units */
  const char *b, *b3;
  int64_t step, ldb; /* step: from row to row, or from unit to unit of A */
} tile_at;
#define UNITS_OF_TILE(rows, u0, u1, u2, u3)                                                                                                \
  UNIT_OF_B("0(%[b])")                                                                                                                     \
  rows(u0) UNIT_OF_B("0(%[b], %[ldb])") rows(u1) UNIT_OF_B("0(%[b], %[ldb], 2)") rows(u2) UNIT_OF_B("0(%[b3])") rows(u3)
#define UNITS_IN_ROWS(rows) UNITS_OF_TILE(rows, "0", "4", "8", "12")
#define UNITS_SIDE(rows)    UNITS_OF_TILE(rows, "0(%[a])", "0(%[a], %[ra])", "0(%[a], %[ra], 2)", "0(%[a3])")
#define TILE_UNITS(name, units, sums)                                                                                                      \
  MN_INLINE void name(vf *c, const tile_at *t) {                                                                                           \
    __asm__(units                                                                                                                          \
            : sums(c, 4)                                                                                                                   \
            : [a] "r"(t->a), [a3] "r"(t->a3), [ra] "r"(t->step), [b] "r"(t->b), [b3] "r"(t->b3), [ldb] "r"(t->ldb)                         \
            : UNIT_USES);                                                                                                                  \
  }
TILE_UNITS(tile_units_rows_6, UNITS_IN_ROWS(UNIT_ROWS_6), UNIT_SUMS_6)
TILE_UNITS(tile_units_rows_4, UNITS_IN_ROWS(UNIT_ROWS_4), UNIT_SUMS_4)
TILE_UNITS(tile_units_side_6, UNITS_SIDE(UNIT_SIDE_6), UNIT_SUMS_6)
TILE_UNITS(tile_units_side_4, UNITS_SIDE(UNIT_SIDE_4), UNIT_SUMS_4)

enum { TILE_AT_ONCE = 4 };
/* C += A B, C of `rows` (4 or 6) rows of two vectors in registers, four apart: whole groups of units of K; what is left of it. A has rows ra and
 * units ca apart, one of which is 1: `side`, ra. Where there is a `next`, a line of memory is asked for with each unit, next_step bytes on. */
MN_INLINE int64_t tile_groups(const int rows, const bool side, int64_t K, const float *A, int64_t ra, int64_t ca, const float *B,
                              int64_t ldb, const char *next, int64_t next_step, vf *c) {
  const int64_t size = sizeof(float);
  tile_at t = {.a = (const char *)A, .b = (const char *)B, .step = size * (side ? ca : ra), .ldb = size * ldb};
  t.a3 = t.a + 3 * t.step, t.b3 = t.b + 3 * t.ldb;
  const int64_t a_step = TILE_AT_ONCE * size * ca, b_step = TILE_AT_ONCE * t.ldb;
  for (; K >= TILE_AT_ONCE; K -= TILE_AT_ONCE, t.a += a_step, t.a3 += a_step, t.b += b_step, t.b3 += b_step) {
    if (next) {
      for (int i = 0; i < TILE_AT_ONCE; i++, next += next_step) __builtin_prefetch(next, 0, 3);
    }
    if (side && rows == 6) tile_units_side_6(c, &t);
    else if (side) tile_units_side_4(c, &t);
    else if (rows == 6) tile_units_rows_6(c, &t);
    else tile_units_rows_4(c, &t);
  }
  return K;
}
#else
#define MN_UNITS 0
#endif

#endif
