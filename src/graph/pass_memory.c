/* pass_memory.c - offsets by lifetime: largest buffer first, each at the lowest offset free during its whole life. */
#include "graph/program.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64 };

typedef struct order {
  const mn_lifetime *b;
  int i;
} order;

typedef struct place { /* a buffer that has its offset */
  size_t offset, end;
  int first, last;
} place;

static int larger_first(const void *x, const void *y) {
  const order *a = x, *b = y;
  if (a->b->bytes != b->b->bytes) return a->b->bytes < b->b->bytes ? 1 : -1;
  return a->i - b->i;
}

/* Keeps the places sorted by offset. */
static void insert(place *placed, int n, place p) {
  int lo = 0, hi = n;
  while (lo < hi) {
    int mid = lo + (hi - lo) / 2;
    if (placed[mid].offset <= p.offset) lo = mid + 1;
    else hi = mid;
  }
  memmove(placed + lo + 1, placed + lo, (size_t)(n - lo) * sizeof *placed);
  placed[lo] = p;
}

mn_status mn_pass_memory(int n, mn_lifetime *buffers, bool share, size_t *total) {
  order *sorted = mn_alloc((size_t)n * sizeof *sorted);
  place *placed = mn_alloc((size_t)n * sizeof *placed);
  int n_placed = 0;
  *total = 0;
  if (!sorted || !placed) {
    free(sorted);
    free(placed);
    return MN_ERR_MEMORY;
  }
  for (int i = 0; i < n; i++) sorted[i] = (order){&buffers[i], i};
  qsort(sorted, (size_t)n, sizeof *sorted, larger_first);
  for (int i = 0; i < n; i++) {
    mn_lifetime *b = &buffers[sorted[i].i];
    size_t bytes = mn_align(b->bytes, ALIGN), at = 0;
    for (int j = 0; j < n_placed && share && placed[j].offset < at + bytes; j++)
      if (placed[j].first <= b->last && b->first <= placed[j].last && placed[j].end > at) at = placed[j].end;
    if (!share) at = *total;
    b->offset = at;
    if (at + bytes > *total) *total = at + bytes;
    if (bytes && share) insert(placed, n_placed++, (place){at, at + bytes, b->first, b->last});
  }
  free(sorted);
  free(placed);
  return MN_OK;
}
