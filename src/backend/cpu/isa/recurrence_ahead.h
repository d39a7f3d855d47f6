/* recurrence_ahead.h - rows that a recurrence will want, asked for ahead of their use. Those of one head lie far apart, further than the
 * processor looks ahead by itself, and it has room for few lines on their way: of many that are asked for at once most are dropped. So
 * they are noted when a piece begins, and then asked for a few at a time between its products. */
#ifndef MN_CPU_RECURRENCE_AHEAD_H
#define MN_CPU_RECURRENCE_AHEAD_H

#include "backend/cpu/isa/recurrence.h"
#include "backend/cpu/isa/tile.h"

typedef struct ahead_rows {
  const char *at; /* the next row */
  int64_t pitch, bytes, left;
  bool written;
} ahead_rows;

enum { AHEAD_MOST = 16 };
typedef struct ahead {
  ahead_rows rows[AHEAD_MOST];
  int n, now;
} ahead;

/* What was noted before and not yet asked for is forgotten. */
TILE_FN void ahead_begin(ahead *a) { a->n = a->now = 0; }
TILE_FN void ahead_note(ahead *a, const void *at, int64_t pitch, int64_t bytes, int64_t rows, bool written) {
  if (a->n < AHEAD_MOST && at) a->rows[a->n++] = (ahead_rows){at, pitch, bytes, rows, written};
}

/* Some lines, a row at least. */
TILE_FN void ahead_ask(ahead *a) {
  enum { LINE = 64, LINES = 16 };
  for (int64_t asked = 0; asked < LINES && a->now < a->n;) {
    ahead_rows *r = &a->rows[a->now];
    if (r->left-- <= 0) {
      a->now++;
      continue;
    }
    if (r->written) {
      for (int64_t x = 0; x < r->bytes; x += LINE, asked++) __builtin_prefetch(r->at + x, 1, 3);
    } else {
      for (int64_t x = 0; x < r->bytes; x += LINE, asked++) __builtin_prefetch(r->at + x, 0, 2);
    }
    r->at += r->pitch;
  }
}

#endif
