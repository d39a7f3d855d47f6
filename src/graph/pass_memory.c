/* pass_memory.c - offsets by lifetime: one buffer after the other, each at the lowest offset free during its whole life. Which
 * order needs least memory cannot be told beforehand, so a few are tried. */
#include "graph/program.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64 };

typedef struct order {
  const mn_lifetime *b;
  int i;
  bool kept;
} order;

typedef struct place { /* a buffer that has its offset */
  size_t offset, end;
  int first, last;
} place;

static int by_number(double x, double y, const order *a, const order *b) { return x != y ? (x < y ? 1 : -1) : a->i - b->i; }
static double bytes_of(const order *a) { return (double)a->b->bytes; }
static double steps_of(const order *a) { return (double)(a->b->last - a->b->first + 1); }
static int larger_first(const void *x, const void *y) { return by_number(bytes_of(x), bytes_of(y), x, y); }
static int longer_first(const void *x, const void *y) { return by_number(steps_of(x) * bytes_of(x), steps_of(y) * bytes_of(y), x, y); }
static int kept_first(const void *x, const void *y) { /* what outlives a tenth of all steps, then by size */
  const order *a = x, *b = y;
  if (a->kept != b->kept) return a->kept ? -1 : 1;
  return larger_first(x, y);
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

/* Offsets in the order of `sorted`; returns the total. */
static size_t place_all(int n, const order *sorted, bool share, place *placed, size_t *offsets) {
  int n_placed = 0;
  size_t total = 0;
  for (int i = 0; i < n; i++) {
    const mn_lifetime *b = sorted[i].b;
    size_t bytes = mn_align(b->bytes, ALIGN), at = 0;
    for (int j = 0; j < n_placed && share && placed[j].offset < at + bytes; j++)
      if (placed[j].first <= b->last && b->first <= placed[j].last && placed[j].end > at) at = placed[j].end;
    if (!share) at = total;
    offsets[sorted[i].i] = at;
    if (at + bytes > total) total = at + bytes;
    if (bytes && share) insert(placed, n_placed++, (place){at, at + bytes, b->first, b->last});
  }
  return total;
}

mn_status mn_pass_memory(int n, mn_lifetime *buffers, bool share, size_t *total) {
  enum { MANY = 4096 }; /* buffers: there, placing them takes longer than it is worth to try again */
  static int (*const rules[])(const void *, const void *) = {larger_first, longer_first, kept_first};
  order *sorted = mn_alloc((size_t)n * sizeof *sorted);
  place *placed = mn_alloc((size_t)n * sizeof *placed);
  size_t *offsets = mn_alloc((size_t)n * sizeof *offsets);
  mn_status status = sorted && placed && offsets ? MN_OK : MN_ERR_MEMORY;
  int steps = 0;
  for (int i = 0; i < n; i++)
    if (buffers[i].last > steps) steps = buffers[i].last;
  *total = 0;
  for (int k = 0; k < (share && n <= MANY ? 3 : 1) && status == MN_OK; k++) {
    for (int i = 0; i < n; i++) sorted[i] = (order){&buffers[i], i, (buffers[i].last - buffers[i].first) * 10 > steps};
    qsort(sorted, (size_t)n, sizeof *sorted, rules[k]);
    const size_t bytes = place_all(n, sorted, share, placed, offsets);
    if (k > 0 && bytes >= *total) continue;
    *total = bytes;
    for (int i = 0; i < n; i++) buffers[i].offset = offsets[i];
  }
  free(sorted);
  free(placed);
  free(offsets);
  return status;
}
