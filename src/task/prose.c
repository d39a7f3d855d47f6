/* prose.c - order-2 Markov prose without a table.
 *
 * A row of the transition table is a draw from a symmetric Dirichlet law, alpha = 0.1 over 320 ids. Kept as a table the
 * 102,400 rows would take 130 MB; drawn as a Polya urn a row needs no memory at all: slot n of the urn is a new uniform
 * id with probability A / (A + n), A = 320 alpha, and else a copy of an earlier slot, uniformly chosen. The slots of
 * the urn are exchangeable and their frequencies tend to a Dirichlet draw; with 65,536 slots they are one to within 0.2
 * %. Each slot's choice is a hash of (row, slot), so following the copies of one random slot gives one draw from the
 * row. */
#include "task/prose.h"

enum { URN_SLOTS = 1 << 16, URN_A = 32 };
#define PROSE_SEED 0x4D6E656D6550726Full /* fixed: all prose is of one language */

int32_t mn_prose_next(mn_rng *rng, int32_t a, int32_t b) {
  uint64_t row = mn_splitmix64(PROSE_SEED ^ ((uint64_t)(uint32_t)a << 32 | (uint32_t)b));
  uint64_t slot = mn_rng_below(rng, URN_SLOTS);
  for (;;) {
    uint64_t h = mn_splitmix64(row + slot);
    uint64_t pick = (uint64_t)(((unsigned __int128)h * (URN_A + slot)) >> 64); /* uniform in [0, A + slot) */
    if (pick >= slot) return MN_ID_PROSE + (int32_t)(mn_splitmix64(h) % MN_PROSE);
    slot = pick;
  }
}

void mn_prose_fill(mn_rng *rng, int32_t *out, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    out[i] = i < 2 ? MN_ID_PROSE + (int32_t)mn_rng_below(rng, MN_PROSE) : mn_prose_next(rng, out[i - 2], out[i - 1]);
}
