/* move.c - transposes of small planes, for elements of 1, 2, 4 and 8 bytes: squares of 16 bytes are turned in registers. */
#include "backend/cpu/isa/move.h"

#include <string.h>

typedef uint32_t v4 __attribute__((vector_size(16)));
typedef uint16_t v8 __attribute__((vector_size(16)));
typedef uint64_t v2 __attribute__((vector_size(16)));

static inline void square4(uint32_t *y, int64_t ys, const uint32_t *x, int64_t xs) {
  v4 a[4], b[4];
  for (int i = 0; i < 4; i++) memcpy(&a[i], x + i * xs, 16);
  for (int i = 0; i < 2; i++) {
    b[2 * i] = __builtin_shufflevector(a[2 * i], a[2 * i + 1], 0, 4, 1, 5);
    b[2 * i + 1] = __builtin_shufflevector(a[2 * i], a[2 * i + 1], 2, 6, 3, 7);
  }
  for (int i = 0; i < 2; i++) {
    v2 lo = __builtin_shufflevector((v2)b[i], (v2)b[2 + i], 0, 2), hi = __builtin_shufflevector((v2)b[i], (v2)b[2 + i], 1, 3);
    memcpy(y + 2 * i * ys, &lo, 16);
    memcpy(y + (2 * i + 1) * ys, &hi, 16);
  }
}

static inline void square8(uint16_t *y, int64_t ys, const uint16_t *x, int64_t xs) {
  v8 a[8], b[8];
  for (int i = 0; i < 8; i++) memcpy(&a[i], x + i * xs, 16);
  /* pairs of rows (i, i+4) are interleaved three times: each step moves one bit of the row number into the column */
  for (int step = 0; step < 3; step++) {
    for (int i = 0; i < 4; i++) {
      b[2 * i] = __builtin_shufflevector(a[i], a[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
      b[2 * i + 1] = __builtin_shufflevector(a[i], a[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    memcpy(a, b, sizeof a);
  }
  for (int i = 0; i < 8; i++) memcpy(y + i * ys, &a[i], 16);
}

/* Columns in blocks, so that the lines of x that one block reads stay in the cache from one run of rows to the next. */
enum { BLOCK = 64 };
#define TRANSPOSE(T, WIDTH, SQUARE)                                                                                                        \
  static void transpose_##T(void *py, int64_t ys, const void *px, int64_t xs, int64_t rows, int64_t columns) {                             \
    T *y = py;                                                                                                                             \
    const T *x = px;                                                                                                                       \
    for (int64_t c0 = 0; c0 < columns; c0 += BLOCK) {                                                                                      \
      int64_t c1 = c0 + BLOCK < columns ? c0 + BLOCK : columns, r = 0;                                                                     \
      for (; r + (WIDTH) <= rows; r += (WIDTH)) {                                                                                          \
        int64_t c = c0;                                                                                                                    \
        for (; c + (WIDTH) <= c1; c += (WIDTH)) SQUARE(y + r * ys + c, ys, x + c * xs + r, xs);                                            \
        for (; c < c1; c++)                                                                                                                \
          for (int i = 0; i < (WIDTH); i++) y[(r + i) * ys + c] = x[c * xs + r + i];                                                       \
      }                                                                                                                                    \
      for (; r < rows; r++)                                                                                                                \
        for (int64_t c = c0; c < c1; c++) y[r * ys + c] = x[c * xs + r];                                                                   \
    }                                                                                                                                      \
  }
#define SQUARE1(T)                                                                                                                         \
  static inline void square1_##T(T *y, int64_t ys, const T *x, int64_t xs) {                                                               \
    for (int c = 0; c < 4; c++)                                                                                                            \
      for (int r = 0; r < 4; r++) y[r * ys + c] = x[c * xs + r];                                                                           \
  }
SQUARE1(uint8_t)
SQUARE1(uint64_t)
TRANSPOSE(uint8_t, 4, square1_uint8_t)
TRANSPOSE(uint16_t, 8, square8)
TRANSPOSE(uint32_t, 4, square4)
TRANSPOSE(uint64_t, 4, square1_uint64_t)

const mn_move_vec MN_ISA_NAME(mn_move_table) = {
    .transpose = {transpose_uint8_t, transpose_uint16_t, transpose_uint32_t, transpose_uint64_t}};
