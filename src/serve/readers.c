/* readers.c - see readers.h. */
#include "serve/readers.h"
#include "base/threads.h"

#include <pthread.h>
#include <stdlib.h>

enum { MOST_THREADS = 8 };

typedef struct job {
  struct job *next;
  void (*fn)(void *arg);
  void *arg;
} job;

struct mn_readers {
  pthread_t threads[MOST_THREADS];
  int n, count;
  int64_t waiting, most; /* of the count those that are not begun */
  bool ends;
  job *first, **last;
  pthread_mutex_t mutex;
  pthread_cond_t wake;
};

static void *work(void *arg) {
  mn_readers *r = arg;
  pthread_mutex_lock(&r->mutex);
  for (;;) {
    while (!r->first && !r->ends) pthread_cond_wait(&r->wake, &r->mutex);
    job *j = r->first;
    if (!j) break;
    r->first = j->next;
    if (!r->first) r->last = &r->first;
    r->waiting--;
    pthread_mutex_unlock(&r->mutex);
    j->fn(j->arg);
    free(j);
    pthread_mutex_lock(&r->mutex);
    r->count--;
  }
  pthread_mutex_unlock(&r->mutex);
  return NULL;
}

mn_status mn_readers_new(int threads, int64_t waiting, mn_readers **out) {
  mn_readers *r = mn_calloc(1, sizeof *r);
  *out = NULL;
  if (!r) return MN_ERR_MEMORY;
  r->last = &r->first, r->most = waiting;
  pthread_mutex_init(&r->mutex, NULL);
  pthread_cond_init(&r->wake, NULL);
  while (r->n < threads && r->n < MOST_THREADS && mn_thread_begin(&r->threads[r->n], work, r) == 0) r->n++;
  if (r->n) *out = r;
  else mn_readers_free(r);
  return *out ? MN_OK : mn_fail(MN_ERR_MEMORY, "no thread can be made that reads requests");
}

void mn_readers_free(mn_readers *r) {
  if (!r) return;
  pthread_mutex_lock(&r->mutex);
  r->ends = true;
  pthread_cond_broadcast(&r->wake);
  pthread_mutex_unlock(&r->mutex);
  for (int i = 0; i < r->n; i++) pthread_join(r->threads[i], NULL);
  pthread_cond_destroy(&r->wake);
  pthread_mutex_destroy(&r->mutex);
  free(r);
}

static mn_status post(mn_readers *r, void (*fn)(void *arg), void *arg, int64_t most, bool *full) {
  job *j = mn_alloc(sizeof *j);
  *full = false;
  if (!j) return MN_ERR_MEMORY;
  *j = (job){NULL, fn, arg};
  pthread_mutex_lock(&r->mutex);
  const int64_t n = r->waiting;
  *full = n >= most;
  if (!*full) {
    *r->last = j, r->last = &j->next;
    r->count++, r->waiting++;
    pthread_cond_signal(&r->wake);
  }
  pthread_mutex_unlock(&r->mutex);
  if (!*full) return MN_OK;
  free(j);
  return mn_fail(MN_ERR_MEMORY, "%lld requests wait already", (long long)n);
}

mn_status mn_readers_post(mn_readers *r, void (*fn)(void *arg), void *arg) {
  bool full;
  return post(r, fn, arg, INT64_MAX, &full);
}

mn_status mn_readers_ask(mn_readers *r, void (*fn)(void *arg), void *arg, bool *full) { return post(r, fn, arg, r->most, full); }

int mn_readers_count(mn_readers *r) {
  pthread_mutex_lock(&r->mutex);
  const int n = r->count;
  pthread_mutex_unlock(&r->mutex);
  return n;
}
