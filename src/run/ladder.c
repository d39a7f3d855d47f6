/* ladder.c - see ladder.h. */
#include "run/ladder.h"

static int64_t common_divisor(int64_t a, int64_t b) {
  while (b) {
    int64_t t = a % b;
    a = b;
    b = t;
  }
  return a;
}

static int64_t power_below(int64_t n) { /* the longest power of two below n > 1 */
  int64_t power = 1;
  while (power < n - power) power *= 2;
  return power;
}

/* Whole alignments first (the longest number of them, then powers of two of them), below them powers of two. */
static int64_t next_length(int64_t longest, int64_t alignment, int64_t before) {
  if (before == 0) { /* the first */
    if (longest >= alignment) return longest - longest % alignment;
    return alignment % longest == 0 || longest == 1 ? longest : power_below(longest + 1);
  }
  if (before > alignment) return alignment * power_below((before + alignment - 1) / alignment);
  return before > 1 ? power_below(before) : 0;
}

int64_t mn_ladder_cover(int64_t n, int64_t most) {
  int64_t length = 1;
  while (length < n) length *= 2;
  if (length >= 4 && length / 4 * 3 >= n) length = length / 4 * 3;
  return length < most ? length : most;
}

bool mn_ladder_length(int64_t longest, int64_t alignment, int i, int64_t *length) {
  *length = 0;
  for (int k = 0; k <= i; k++) {
    *length = next_length(longest, alignment, *length);
    if (*length == 0) return false;
  }
  return true;
}

/* What n tokens at `position` cost in whole segments, in tokens: each segment as much as its tokens, and reading the weights. */
enum { OVERHEAD = 16 };
static int64_t cost_of(int64_t longest, int64_t alignment, int64_t together, int64_t position, int64_t n) {
  int64_t cost = 0;
  while (n > 0) {
    int64_t length = next_length(longest, alignment, 0);
    while (length > n || position % common_divisor(together, length)) length = next_length(longest, alignment, length);
    cost += length + OVERHEAD;
    position += length;
    n -= length;
  }
  return cost;
}

mn_rung mn_ladder_next(int64_t longest, int64_t alignment, int64_t rows, const int64_t *position, int64_t n, bool pads) {
  int64_t together = alignment; /* rows that stand apart by other than multiples of it never reach it at once */
  for (int64_t b = 1; b < rows && together > 1; b++) {
    int64_t apart = position[b] - position[0];
    together = common_divisor(together, apart < 0 ? -apart : apart);
  }
  for (int64_t length = next_length(longest, alignment, 0); length > 0; length = next_length(longest, alignment, length)) {
    int64_t multiple = common_divisor(together, length);
    if (position[0] % multiple) continue;
    if (length <= n) return (mn_rung){length, length, multiple};
    if (pads && length < 2 * n && length + OVERHEAD < cost_of(longest, alignment, together, position[0], n))
      return (mn_rung){length, n, multiple};
  }
  return (mn_rung){1, 1, 1};
}
