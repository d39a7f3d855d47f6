/* move.h - the table that every instruction set's isa/move.c exports: transposes. */
#ifndef MN_CPU_ISA_MOVE_H
#define MN_CPU_ISA_MOVE_H

#include "backend/cpu/isa.h"

typedef struct mn_move_vec {
  /* y[r*y_stride + c] = x[c*x_stride + r] for r < rows, c < columns; by the size of an element: 1, 2, 4, 8 bytes */
  void (*transpose[4])(void *y, int64_t y_stride, const void *x, int64_t x_stride, int64_t rows, int64_t columns);
} mn_move_vec;

MN_ISA_DECLARE(mn_move_vec, mn_move_table);

#endif
