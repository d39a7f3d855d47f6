/* pass_memory.c - offsets by lifetime: largest buffer first, each at the lowest offset free during its whole life. */
#include "graph/program.h"

#include <stdlib.h>

enum { ALIGN = 64 };

typedef struct order {
  const mn_lifetime *b;
  int i;
} order;

static int larger_first(const void *x, const void *y) {
  const order *a = x, *b = y;
  if (a->b->bytes != b->b->bytes) return a->b->bytes < b->b->bytes ? 1 : -1;
  return a->i - b->i;
}

static int by_offset(const void *x, const void *y) {
  const order *a = x, *b = y;
  return a->b->offset < b->b->offset ? -1 : a->b->offset > b->b->offset;
}

mn_status mn_pass_memory(int n, mn_lifetime *buffers, bool share, size_t *total) {
  order *sorted = mn_alloc((size_t)n * sizeof *sorted), *live = mn_alloc((size_t)n * sizeof *live);
  *total = 0;
  if (!sorted || !live) {
    free(sorted);
    free(live);
    return MN_ERR_MEMORY;
  }
  for (int i = 0; i < n; i++) sorted[i] = (order){&buffers[i], i};
  qsort(sorted, (size_t)n, sizeof *sorted, larger_first);
  for (int i = 0; i < n; i++) {
    mn_lifetime *b = &buffers[sorted[i].i];
    size_t bytes = mn_align(b->bytes, ALIGN), at = 0;
    if (!share) {
      b->offset = *total;
      *total += bytes;
      continue;
    }
    int n_live = 0;
    for (int j = 0; j < i; j++) {
      const mn_lifetime *o = sorted[j].b;
      if (o->first <= b->last && b->first <= o->last && o->bytes) live[n_live++] = sorted[j];
    }
    qsort(live, (size_t)n_live, sizeof *live, by_offset);
    for (int j = 0; j < n_live; j++) {
      const mn_lifetime *o = live[j].b;
      if (o->offset >= at + bytes) break;
      size_t end = o->offset + mn_align(o->bytes, ALIGN);
      if (end > at) at = end;
    }
    b->offset = at;
    if (at + bytes > *total) *total = at + bytes;
  }
  free(sorted);
  free(live);
  return MN_OK;
}
