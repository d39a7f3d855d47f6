/* pass_memory.c - offsets by lifetime. Few buffers: one after the other, each at the lowest offset free during its whole life. Many:
 * step by step, each where there is room when it begins. Which order needs least memory cannot be told beforehand, so a few are
 * tried. */
#include "compile/gaps.h"
#include "compile/draft.h"

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

/* ---- many buffers: in the order of time ---- */
typedef struct by_time {     /* the buffers that begin, and those that end, at each step */
  int steps, *begins, *ends; /* [steps + 1]: where those of a step start in ...          */
  int *born, *dead;          /* ... these lists                                          */
} by_time;

static void by_time_free(by_time *t) {
  free(t->begins);
  free(t->ends);
  free(t->born);
  free(t->dead);
}

static mn_status by_time_new(int n, const mn_lifetime *b, by_time *t) {
  int steps = 1;
  for (int i = 0; i < n; i++)
    if (b[i].last >= steps) steps = b[i].last + 1;
  const size_t ends = ((size_t)steps + 1) * sizeof(int), list = ((size_t)n + 1) * sizeof(int);
  *t = (by_time){steps, mn_calloc(1, ends), mn_calloc(1, ends), mn_alloc(list), mn_alloc(list)};
  if (!t->begins || !t->ends || !t->born || !t->dead) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) t->begins[b[i].first]++, t->ends[b[i].last]++;
  for (int s = 0; s < steps; s++) t->begins[s + 1] += t->begins[s], t->ends[s + 1] += t->ends[s];
  for (int i = n - 1; i >= 0; i--) t->born[--t->begins[b[i].first]] = i, t->dead[--t->ends[b[i].last]] = i;
  return MN_OK;
}

/* What lives longer than `brief` steps is placed from the low end, where in training it grows like a stack; what is brief comes
 * and goes at the high end, `limit`. */
static mn_status place_by_time(int n, const mn_lifetime *b, const by_time *t, int brief, size_t limit, size_t *offsets, size_t *total) {
  mn_gaps *g = mn_gaps_new(n, limit);
  mn_status status = g ? MN_OK : MN_ERR_MEMORY;
  for (int s = 0; s < t->steps && status == MN_OK; s++) {
    for (int k = t->begins[s]; k < t->begins[s + 1]; k++) {
      const int i = t->born[k];
      const size_t bytes = mn_align(b[i].bytes, ALIGN);
      offsets[i] = bytes ? mn_gaps_take(g, bytes, b[i].last - b[i].first <= brief) : 0;
    }
    for (int k = t->ends[s]; k < t->ends[s + 1]; k++) mn_gaps_give(g, offsets[t->dead[k]], mn_align(b[t->dead[k]].bytes, ALIGN));
    if (s % 1024 == 1023) status = mn_stop_check("compiling");
  }
  *total = g ? mn_gaps_end(g) : 0;
  mn_gaps_free(g);
  return status;
}

static size_t most_alive(const mn_lifetime *b, const by_time *t) {
  size_t alive = 0, most = 0;
  for (int s = 0; s < t->steps; s++) {
    for (int k = t->begins[s]; k < t->begins[s + 1]; k++) alive += mn_align(b[t->born[k]].bytes, ALIGN);
    if (alive > most) most = alive;
    for (int k = t->ends[s]; k < t->ends[s + 1]; k++) alive -= mn_align(b[t->dead[k]].bytes, ALIGN);
  }
  return most;
}

/* ---- the pass: the best of a few tries ---- */
static void keep_best(int n, mn_lifetime *buffers, const size_t *offsets, size_t bytes, size_t *total) {
  if (bytes >= *total) return;
  *total = bytes;
  for (int i = 0; i < n; i++) buffers[i].offset = offsets[i];
}

mn_status mn_pass_memory(int n, mn_lifetime *buffers, bool share, size_t *total) {
  static int (*const rules[])(const void *, const void *) = {larger_first, longer_first, kept_first};
  static const int brief[] = {16, 128}; /* steps */
  enum { MANY = 4096 };                 /* buffers: placing them in the order of size takes time with their square */
  by_time time = {0};
  order *sorted = mn_alloc(((size_t)n + 1) * sizeof *sorted);
  place *placed = mn_alloc(((size_t)n + 1) * sizeof *placed);
  size_t *offsets = mn_alloc(((size_t)n + 1) * sizeof *offsets), limit = 0;
  mn_status status = sorted && placed && offsets ? by_time_new(n, buffers, &time) : MN_ERR_MEMORY;
  if (status == MN_OK) limit = most_alive(buffers, &time);
  *total = SIZE_MAX;
  for (int k = 0; k < (share ? 3 : 1) && status == MN_OK && (!share || n <= MANY) && *total > limit; k++) {
    for (int i = 0; i < n; i++) sorted[i] = (order){&buffers[i], i, (buffers[i].last - buffers[i].first) * 10 > time.steps - 1};
    qsort(sorted, (size_t)n, sizeof *sorted, rules[k]);
    keep_best(n, buffers, offsets, place_all(n, sorted, share, placed, offsets), total);
  }
  for (size_t k = 0; k < sizeof brief / sizeof *brief && status == MN_OK && share && *total > limit; k++) {
    size_t bytes;
    status = place_by_time(n, buffers, &time, brief[k], limit, offsets, &bytes);
    if (status == MN_OK) keep_best(n, buffers, offsets, bytes, total);
  }
  by_time_free(&time);
  free(sorted);
  free(placed);
  free(offsets);
  return status;
}
