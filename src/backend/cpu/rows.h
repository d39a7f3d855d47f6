/* rows.h - the rows (last axis) of a strided view, in order, and how a kernel over rows is cut into tasks. For kernels
 * that take MN_LAYOUT_ROWS: a slice of a fused projection is read where it lies. */
#ifndef MN_CPU_ROWS_H
#define MN_CPU_ROWS_H

#include "backend/backend.h"

typedef struct mn_rows {
  char *data;
  size_t size;    /* bytes of an element */
  int64_t length; /* elements of a row   */
  int64_t count;  /* rows                */
  int ndim;       /* leading axes, those that follow each other in memory merged; at least 1 */
  int64_t dim[MN_MAX_DIMS], stride[MN_MAX_DIMS];
} mn_rows;

static inline mn_rows mn_rows_of(const mn_view *v) {
  mn_rows r = {.data = v->data, .size = mn_dtype_size(v->dtype), .length = 1, .count = 1};
  if (v->ndim > 0) r.length = v->dim[v->ndim - 1];
  for (int i = 0; i + 1 < v->ndim; i++) {
    r.count *= v->dim[i];
    if (v->dim[i] == 1) continue;
    if (r.ndim > 0 && r.stride[r.ndim - 1] == v->dim[i] * v->stride[i]) {
      r.dim[r.ndim - 1] *= v->dim[i];
      r.stride[r.ndim - 1] = v->stride[i];
    } else {
      r.dim[r.ndim] = v->dim[i];
      r.stride[r.ndim++] = v->stride[i];
    }
  }
  if (r.ndim == 0) {
    r.dim[0] = 1;
    r.stride[0] = r.length;
    r.ndim = 1;
  }
  return r;
}

/* Address of row i. *run: how many rows from i on lie at distance stride[ndim - 1] of each other. */
static inline void *mn_rows_at(const mn_rows *r, int64_t i, int64_t *run) {
  int64_t offset = 0, last = r->ndim - 1, at = i % r->dim[last];
  *run = r->dim[last] - at;
  offset += at * r->stride[last];
  i /= r->dim[last];
  for (int64_t a = last - 1; a >= 0; a--) {
    offset += i % r->dim[a] * r->stride[a];
    i /= r->dim[a];
  }
  return r->data + offset * (int64_t)r->size;
}
static inline int64_t mn_rows_step(const mn_rows *r) { return r->stride[r->ndim - 1]; } /* elements */

/* Rows of one task: about `elements` elements each, so that a small tensor is one task, which the caller runs itself.
 * Depends on shapes only. */
static inline int64_t mn_rows_per_task(int64_t rows, int64_t row_elements, int64_t elements) {
  int64_t per = row_elements > 0 ? elements / row_elements : rows;
  return per < 1 ? 1 : per > rows ? (rows > 0 ? rows : 1) : per;
}

#endif
