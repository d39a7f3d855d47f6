/* chains.c - chains of turns on all threads. */
#include "backend/cpu/chains.h"

#include <pthread.h>

typedef struct room { /* a chain that has begun and not ended */
  int64_t chain, turn;
  bool taken, empty; /* a thread is at it; there is none, and no chain is left to begin */
} room;

typedef struct job {
  mn_chain_fn fn;
  void *ctx;
  int64_t chains, next; /* the next to begin */
  room *rooms;
  int n_rooms;
  pthread_mutex_t mutex; /* over all but fn and ctx */
} job;

int64_t mn_turn_begin(int64_t n, int64_t least, int64_t turn) {
  int64_t left = n;
  for (; turn > 0 && left > 0; turn--) left -= left / 2 > least ? left / 2 : left < least ? left : least;
  return n - left;
}

/* Two for a thread, so that another is there when all are taken; and where they are filled several times, as many the last time as before. */
int mn_chain_rooms(int64_t chains, int threads) {
  if (threads <= 1 || chains <= 1) return 1;
  const int64_t most = 2 * (int64_t)threads, times = (chains + most - 1) / most;
  return (int)((chains + times - 1) / times);
}
size_t mn_chain_bytes(int64_t chains, int threads) { return mn_align((size_t)mn_chain_rooms(chains, threads) * sizeof(room), 64); }

static void begin(job *j, room *r) {
  r->turn = 0;
  r->empty = j->next == j->chains;
  if (!r->empty) r->chain = j->next++;
}

/* The room of the chain that is furthest behind, or -1: others are at all that have not ended, and none is left to begin. */
static int take(job *j) {
  int best = -1;
  for (int i = 0; i < j->n_rooms; i++)
    if (!j->rooms[i].taken && !j->rooms[i].empty && (best < 0 || j->rooms[i].turn < j->rooms[best].turn)) best = i;
  if (best >= 0) j->rooms[best].taken = true;
  return best;
}

static void work(void *ctx, int64_t i, int thread) {
  (void)i;
  job *j = ctx;
  pthread_mutex_lock(&j->mutex);
  for (int at; (at = take(j)) >= 0;) {
    room *r = &j->rooms[at];
    pthread_mutex_unlock(&j->mutex);
    const bool more = j->fn(j->ctx, r->chain, r->turn, at, thread);
    pthread_mutex_lock(&j->mutex);
    r->taken = false;
    if (more) r->turn++;
    else begin(j, r);
  }
  pthread_mutex_unlock(&j->mutex);
}

void mn_chains_run(mn_pool *pool, int64_t chains, mn_chain_fn fn, void *ctx, void *memory) {
  const int threads = mn_pool_threads(pool);
  job j = {.fn = fn, .ctx = ctx, .chains = chains, .rooms = memory, .n_rooms = mn_chain_rooms(chains, threads)};
  for (int i = 0; i < j.n_rooms; i++) {
    j.rooms[i] = (room){0};
    begin(&j, &j.rooms[i]);
  }
  pthread_mutex_init(&j.mutex, NULL);
  mn_pool_run(pool, threads < chains ? threads : chains, work, &j);
  pthread_mutex_destroy(&j.mutex);
}
