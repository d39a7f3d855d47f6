/* lean.h - one step of decoding cut into equal shares (Lean Attention, Sanovar et al. 2024, arXiv 2405.10480).
 *
 * Output o, a request, has first[o + 1] - first[o] tiles of keys, by its own length; all tiles lie in one line, request behind request, and a
 * share is a piece of the line: where requests begin and end is no matter. So a share is whole requests, and at its ends parts of one. What
 * a part makes is (o, m, l) of its keys, and the parts of a request are joined in their order. A share begins inside a request with its
 * first piece alone, and ends inside one with its last: it hands on two parts at most.
 *
 * How many shares there are follows from lengths and shapes, never from threads: each has as much to read as pays for waking a thread, and
 * there are as many as keep many threads equally busy. So the bits are the same for any number of threads. */
#ifndef MN_LEAN_H
#define MN_LEAN_H

#include <stdint.h>

enum {
  MN_LEAN_TILE = 64,        /* keys */
  MN_LEAN_SHARES = 64,      /* at most */
  MN_LEAN_LEAST = 64 << 10, /* bytes of keys and values of a share, at least */
};

static inline int64_t mn_lean_tiles(int64_t keys) { return (keys + MN_LEAN_TILE - 1) / MN_LEAN_TILE; }

/* Of `tiles` tiles of so many bytes: at least 1. */
static inline int64_t mn_lean_shares(int64_t tiles, int64_t tile_bytes) {
  const int64_t worth = tiles * tile_bytes / MN_LEAN_LEAST, most = worth < MN_LEAN_SHARES ? worth : MN_LEAN_SHARES;
  const int64_t n = most < tiles ? most : tiles;
  return n < 1 ? 1 : n;
}

/* Tiles [*begin, *end) of share w: sizes differ by one at most, the larger ones come first. */
static inline void mn_lean_range(int64_t tiles, int64_t shares, int64_t w, int64_t *begin, int64_t *end) {
  const int64_t large = (tiles + shares - 1) / shares, n_large = tiles - (large - 1) * shares;
  *begin = w < n_large ? w * large : n_large * large + (w - n_large) * (large - 1);
  *end = *begin + (w < n_large ? large : large - 1);
}

/* The share that has tile t. */
static inline int64_t mn_lean_share_of(int64_t tiles, int64_t shares, int64_t t) {
  const int64_t large = (tiles + shares - 1) / shares, n_large = tiles - (large - 1) * shares;
  return t < n_large * large ? t / large : n_large + (t - n_large * large) / (large - 1);
}

/* The output that has tile t: the last o with first[o] <= t, so that it is none of those without tiles. */
static inline int64_t mn_lean_output_of(const int64_t *first, int64_t outputs, int64_t t) {
  int64_t lo = 0, hi = outputs;
  while (hi - lo > 1) {
    const int64_t mid = lo + (hi - lo) / 2;
    if (first[mid] <= t) lo = mid;
    else hi = mid;
  }
  return lo;
}

#endif
