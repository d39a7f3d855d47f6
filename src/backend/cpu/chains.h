/* chains.h - work whose parts follow each other: chains of turns, on all threads. A turn needs the one before it in its chain and nothing of
 * other chains, so a thread that is free takes the next turn of the chain that is furthest behind, and one that is slower takes fewer. With
 * a task for a whole chain, few chains would keep all threads waiting for the slowest. */
#ifndef MN_CPU_CHAINS_H
#define MN_CPU_CHAINS_H

#include "base/base.h"

/* A turn of a chain, counted from 0; true: there is another. room: where the chain keeps what it needs from turn to turn, no other's until it
 * ends; below mn_chain_rooms(). thread: below that of the pool. */
typedef bool (*mn_chain_fn)(void *ctx, int64_t chain, int64_t turn, int room, int thread);

/* Where turn `turn` begins in a chain of n steps: each takes half of what is left, but `least` steps at least, so that first turns are long
 * and threads end together. n: there is no such turn. */
int64_t mn_turn_begin(int64_t n, int64_t least, int64_t turn);

/* So many chains at most have begun and not ended. */
int mn_chain_rooms(int64_t chains, int threads);

/* Runs all chains to their ends; memory: mn_chain_bytes of a multiple of 64, aligned to 64. Which thread takes which turn is left to chance. */
size_t mn_chain_bytes(int64_t chains, int threads);
void mn_chains_run(mn_pool *pool, int64_t chains, mn_chain_fn fn, void *ctx, void *memory);

#endif
