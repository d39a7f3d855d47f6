/* What must be true of chains of turns: each turn is taken once, after the one before it, in a room of its own; and turns get shorter. */
#include "backend/cpu/chains.h"

#include <stdatomic.h>

#include "test.h"

enum { CHAINS = 40, TURNS = 9 };
typedef struct watch {
  int64_t turns; /* chain c has 1 + c % turns of them */
  int rooms, threads;
  atomic_int taken[CHAINS];      /* turns of each chain that have ended     */
  atomic_int held[2 * CHAINS];   /* by chain + 1; 0: nobody has the room    */
  atomic_int at_once, most, bad; /* turns that run, and the most of them    */
} watch;

static bool turn_of(void *ctx, int64_t chain, int64_t turn, int room, int thread) {
  watch *w = ctx;
  const int now = atomic_fetch_add(&w->at_once, 1) + 1;
  for (int most = atomic_load(&w->most); now > most && !atomic_compare_exchange_weak(&w->most, &most, now);) {
  }
  if (room < 0 || room >= w->rooms || thread < 0 || thread >= w->threads) atomic_fetch_add(&w->bad, 1);
  if (atomic_load(&w->taken[chain]) != turn) atomic_fetch_add(&w->bad, 1);
  if (atomic_load(&w->held[room]) != (turn ? (int)chain + 1 : 0)) atomic_fetch_add(&w->bad, 1);
  atomic_store(&w->held[room], (int)chain + 1);
  volatile double work = 1;
  for (int i = 0; i < 2000 * (1 + thread % 2); i++) work = work * 0.999 + 1;
  const bool more = turn + 1 < 1 + chain % w->turns;
  if (!more) atomic_store(&w->held[room], 0);
  atomic_fetch_add(&w->taken[chain], 1);
  atomic_fetch_sub(&w->at_once, 1);
  return more;
}

static void each_turn_follows_the_one_before_it(void) {
  for (int threads = 1; threads <= 5; threads++) {
    mn_pool *pool = mn_pool_new(threads);
    for (int64_t chains = 0; chains <= CHAINS; chains = chains < 8 ? chains + 1 : 2 * chains + 4) {
      watch w = {.turns = TURNS, .rooms = mn_chain_rooms(chains, threads), .threads = threads};
      void *memory = mn_alloc_aligned(mn_chain_bytes(chains, threads));
      mn_chains_run(pool, chains, turn_of, &w, memory);
      free(memory);
      CHECK(atomic_load(&w.bad) == 0, "%d chains, %d threads: %d wrong", (int)chains, threads, atomic_load(&w.bad));
      CHECK(atomic_load(&w.most) <= threads, "%d at once", atomic_load(&w.most));
      for (int64_t c = 0; c < chains; c++)
        CHECK(atomic_load(&w.taken[c]) == 1 + c % TURNS, "chain %d: %d", (int)c, atomic_load(&w.taken[c]));
    }
    mn_pool_free(pool);
  }
}

/* A turn that uses the pool itself, as kernels inside kernels do, and a job that meets a busy pool, run on one thread. */
static bool inner(void *ctx, int64_t chain, int64_t turn, int room, int thread) {
  (void)chain, (void)room, (void)thread;
  atomic_fetch_add((atomic_int *)ctx, 1);
  return turn < 2;
}
typedef struct nest {
  mn_pool *pool;
  atomic_int count;
} nest;
static bool outer(void *ctx, int64_t chain, int64_t turn, int room, int thread) {
  (void)chain, (void)turn, (void)room, (void)thread;
  nest *n = ctx;
  void *memory = mn_alloc_aligned(mn_chain_bytes(3, 2));
  mn_chains_run(n->pool, 3, inner, &n->count, memory);
  free(memory);
  return false;
}
static void chains_inside_chains_end(void) {
  nest n = {.pool = mn_pool_new(2)};
  void *memory = mn_alloc_aligned(mn_chain_bytes(5, 2));
  mn_chains_run(n.pool, 5, outer, &n, memory);
  free(memory);
  mn_pool_free(n.pool);
  CHECK(atomic_load(&n.count) == 5 * 3 * 3, "%d", atomic_load(&n.count));
}

static void rooms_are_few_and_filled_evenly(void) {
  for (int threads = 1; threads <= 9; threads++)
    for (int64_t chains = 1; chains <= 100; chains++) {
      const int64_t rooms = mn_chain_rooms(chains, threads), times = (chains + rooms - 1) / rooms;
      CHECK(rooms >= 1 && rooms <= chains && rooms <= 2 * threads, "%d rooms", (int)rooms);
      if (threads == 1) continue;
      CHECK(rooms >= (chains < threads ? chains : threads), "a thread has no room: %d of %d", (int)rooms, threads);
      CHECK(times * rooms - chains < times, "%d chains, %d rooms", (int)chains, (int)rooms);
    }
}

static void turns_get_shorter(void) {
  for (int64_t n = 0; n <= 130; n++)
    for (int64_t least = 1; least <= 5; least++) {
      CHECK(mn_turn_begin(n, least, 0) == 0, "%d", (int)n);
      int64_t before = n + 1, at = 0;
      for (int64_t turn = 0; at < n; turn++) {
        const int64_t next = mn_turn_begin(n, least, turn + 1), size = next - at;
        CHECK(size > 0 && size <= before, "turn %d of %d: %d after %d", (int)turn, (int)n, (int)size, (int)before);
        CHECK(size >= least || next == n, "turn %d of %d: %d", (int)turn, (int)n, (int)size);
        CHECK(size <= least || 2 * size <= n - at, "turn %d of %d: %d of %d", (int)turn, (int)n, (int)size, (int)(n - at));
        before = size, at = next;
      }
      CHECK(at == n, "%d of %d", (int)at, (int)n);
    }
}

int main(void) {
  RUN(each_turn_follows_the_one_before_it);
  RUN(chains_inside_chains_end);
  RUN(rooms_are_few_and_filled_evenly);
  RUN(turns_get_shorter);
  return test_end();
}
