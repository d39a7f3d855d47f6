/* copy.c - copies between strided layouts. Axes that lie alike on both sides are merged; what is left is a set of planes:
 * the axis that is dense in y, and beside it the axis that is dense in x (a transpose) or the next one (rows). */
#include "backend/cpu/copy.h"
#include "backend/cpu/isa/move.h"

#include <stdlib.h>
#include <string.h>

enum { TASK_BYTES = 65536, ROWS = 32 };

typedef struct job {
  size_t size;
  int64_t rows, columns; /* of a plane; columns are the axis that is dense in y (stride y_column) */
  int64_t y_row, x_row, y_column, x_column;
  bool transpose; /* rows are dense in x */
  int n_outer;
  int64_t dim[MN_MAX_DIMS], y_stride[MN_MAX_DIMS], x_stride[MN_MAX_DIMS];
  int64_t row_block, column_block, row_blocks, column_blocks, units, per_task;
  const mn_move_vec *vec;
  char *y;
  const char *x;
} job;

static void copy_row(char *y, int64_t ys, const char *x, int64_t xs, int64_t n, size_t size) {
  if (ys == 1 && xs == 1) {
    memcpy(y, x, (size_t)n * size);
    return;
  }
#define LOOP(T)                                                                                                                            \
  {                                                                                                                                        \
    T *to = (T *)y;                                                                                                                        \
    const T *from = (const T *)x;                                                                                                          \
    if (xs == 0 && ys == 1) {                                                                                                              \
      T v = *from;                                                                                                                         \
      for (int64_t i = 0; i < n; i++) to[i] = v;                                                                                           \
    } else {                                                                                                                               \
      for (int64_t i = 0; i < n; i++) to[i * ys] = from[i * xs];                                                                           \
    }                                                                                                                                      \
    break;                                                                                                                                 \
  }
  switch (size) {
  case 1:
    LOOP(uint8_t)
  case 2:
    LOOP(uint16_t)
  case 4:
    LOOP(uint32_t)
  default:
    LOOP(uint64_t)
  }
#undef LOOP
}

static void copy_unit(const job *j, int64_t unit) {
  int64_t cb = unit % j->column_blocks, rb = unit / j->column_blocks % j->row_blocks;
  int64_t outer = unit / j->column_blocks / j->row_blocks;
  int64_t c = cb * j->column_block, r = rb * j->row_block;
  int64_t columns = j->columns - c < j->column_block ? j->columns - c : j->column_block;
  int64_t rows = j->rows - r < j->row_block ? j->rows - r : j->row_block;
  int64_t yo = r * j->y_row + c * j->y_column, xo = r * j->x_row + c * j->x_column;
  for (int d = j->n_outer - 1; d >= 0; d--) {
    int64_t i = outer % j->dim[d];
    outer /= j->dim[d];
    yo += i * j->y_stride[d];
    xo += i * j->x_stride[d];
  }
  char *y = j->y + yo * (int64_t)j->size;
  const char *x = j->x + xo * (int64_t)j->size;
  if (j->transpose) {
    int k = j->size == 1 ? 0 : j->size == 2 ? 1 : j->size == 4 ? 2 : 3;
    j->vec->transpose[k](y, j->y_row, x, j->x_column, rows, columns);
    return;
  }
  for (int64_t i = 0; i < rows; i++)
    copy_row(y + i * j->y_row * (int64_t)j->size, j->y_column, x + i * j->x_row * (int64_t)j->size, j->x_column, columns, j->size);
}
static void copy_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const job *j = ctx;
  int64_t end = (i + 1) * j->per_task < j->units ? (i + 1) * j->per_task : j->units;
  for (int64_t u = i * j->per_task; u < end; u++) copy_unit(j, u);
}

void mn_cpu_copy(mn_pool *pool, mn_isa isa, size_t size, int ndim, const int64_t *dim, void *y, const int64_t *y_stride, const void *x,
                 const int64_t *x_stride) {
  job j = {.size = size, .y = y, .x = x, .vec = MN_ISA_PICK(mn_move_table, isa), .rows = 1, .columns = 1, .y_column = 1, .x_column = 1};
  for (int d = 0; d < ndim; d++) {
    if (dim[d] == 0) return;
    if (dim[d] == 1) continue;
    int l = j.n_outer - 1;
    if (l >= 0 && j.y_stride[l] == y_stride[d] * dim[d] && j.x_stride[l] == x_stride[d] * dim[d]) {
      j.dim[l] *= dim[d];
      j.y_stride[l] = y_stride[d];
      j.x_stride[l] = x_stride[d];
      continue;
    }
    j.dim[j.n_outer] = dim[d];
    j.y_stride[j.n_outer] = y_stride[d];
    j.x_stride[j.n_outer++] = x_stride[d];
  }
  if (j.n_outer) {
    int c = --j.n_outer;
    j.columns = j.dim[c], j.y_column = j.y_stride[c], j.x_column = j.x_stride[c];
  }
  if (j.n_outer) {
    int r = j.n_outer - 1;
    if (j.y_column == 1 && j.x_column != 1 && j.x_column != 0)
      for (int d = 0; d < j.n_outer; d++)
        if (j.x_stride[d] == 1) r = d, j.transpose = true;
    j.rows = j.dim[r], j.y_row = j.y_stride[r], j.x_row = j.x_stride[r];
    j.n_outer--;
    for (int d = r; d < j.n_outer; d++) j.dim[d] = j.dim[d + 1], j.y_stride[d] = j.y_stride[d + 1], j.x_stride[d] = j.x_stride[d + 1];
  }
  int64_t most = TASK_BYTES / (int64_t)size, outer = 1;
  if (j.transpose) {
    j.row_block = j.rows < ROWS ? j.rows : ROWS;
    j.column_block = most / j.row_block;
  } else {
    j.column_block = most;
    j.row_block = j.columns >= most ? 1 : most / j.columns;
  }
  if (j.column_block > j.columns) j.column_block = j.columns;
  if (j.row_block > j.rows) j.row_block = j.rows;
  j.row_blocks = (j.rows + j.row_block - 1) / j.row_block;
  j.column_blocks = (j.columns + j.column_block - 1) / j.column_block;
  for (int d = 0; d < j.n_outer; d++) outer *= j.dim[d];
  j.units = outer * j.row_blocks * j.column_blocks;
  int64_t unit = j.row_block * j.column_block;
  j.per_task = unit >= most ? 1 : most / unit;
  mn_pool_run(pool, (j.units + j.per_task - 1) / j.per_task, copy_task, &j);
}
