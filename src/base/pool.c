/* pool.c - a fork-join thread pool. Workers spin for a short while after a job, because the next one usually follows
 * within microseconds, then sleep. Tasks are claimed from one atomic counter. A thread begins with the program's locale, whatever that of the
 * thread that made it is; workers have C's, so that what a job writes and reads has a point in its numbers. */
#define _GNU_SOURCE
#include "base/base.h"
#include "base/threads.h"

#include <locale.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SPINS = 20000 };

typedef struct worker {
  mn_pool *pool;
  int index;
  pthread_t thread;
} worker;

struct mn_pool {
  int threads;
  worker *workers;
  atomic_uint job;     /* number of the current job; a change wakes the workers */
  atomic_int running;  /* workers that have not yet finished the job            */
  atomic_int sleepers; /* workers waiting on the condition                      */
  atomic_bool stop;
  _Alignas(64) _Atomic int64_t next;
  int64_t n;
  mn_pool_fn fn;
  void *ctx;
  atomic_bool busy; /* a job runs: a second caller, nested or of another thread, works alone */
  pthread_mutex_t mutex;
  pthread_cond_t wake;
};

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

static void work(mn_pool *p, int thread) {
  for (int64_t i; (i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed)) < p->n;) p->fn(p->ctx, i, thread);
}

static void *worker_main(void *arg) {
  worker *w = arg;
  mn_pool *p = w->pool;
  unsigned seen = 0;
  uselocale(newlocale(LC_ALL_MASK, "C", (locale_t)0)); /* there without memory of its own; 0, which no system gives, would change nothing */
  for (;;) {
    unsigned job = seen;
    for (int spin = 0; spin < SPINS && job == seen; spin++) {
      relax();
      job = atomic_load_explicit(&p->job, memory_order_acquire);
    }
    if (job == seen) {
      pthread_mutex_lock(&p->mutex);
      atomic_fetch_add(&p->sleepers, 1);
      while ((job = atomic_load(&p->job)) == seen) pthread_cond_wait(&p->wake, &p->mutex);
      atomic_fetch_sub(&p->sleepers, 1);
      pthread_mutex_unlock(&p->mutex);
    }
    seen = job;
    if (atomic_load(&p->stop)) return NULL;
    work(p, w->index);
    atomic_fetch_sub_explicit(&p->running, 1, memory_order_release);
  }
}

int mn_cpu_count(void) {
  cpu_set_t set;
  int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
  return n > 0 ? n : 1;
}

int mn_thread_begin(pthread_t *thread, void *(*fn)(void *), void *arg) {
  pthread_attr_t attr;
  size_t size = 0;
  int error = pthread_attr_init(&attr);
  if (error) return error;
  if (pthread_attr_getstacksize(&attr, &size) == 0 && size < MN_STACK_LEAST) error = pthread_attr_setstacksize(&attr, MN_STACK_LEAST);
  if (!error) error = pthread_create(thread, &attr, fn, arg);
  pthread_attr_destroy(&attr);
  return error;
}

mn_pool *mn_pool_new(int threads) {
  if (threads <= 0) threads = mn_cpu_count();
  if (threads > MN_THREADS_MOST) threads = MN_THREADS_MOST;
  mn_pool *p = mn_alloc_aligned(sizeof *p);
  if (!p) return NULL;
  *p = (mn_pool){.threads = 1};
  pthread_mutex_init(&p->mutex, NULL);
  pthread_cond_init(&p->wake, NULL);
  p->workers = mn_calloc((size_t)threads, sizeof *p->workers);
  if (!p->workers) {
    mn_pool_free(p);
    return NULL;
  }
  for (int i = 1; i < threads; i++) {
    p->workers[i] = (worker){.pool = p, .index = i};
    int error = mn_thread_begin(&p->workers[i].thread, worker_main, &p->workers[i]);
    if (error) {
      mn_fail(MN_ERR_MEMORY, "thread %d of %d could not be started: %s; use fewer (--threads 1 needs none)", i + 1, threads,
              strerror(error));
      mn_pool_free(p);
      return NULL;
    }
    p->threads = i + 1;
  }
  return p;
}

void mn_pool_free(mn_pool *p) {
  if (!p) return;
  pthread_mutex_lock(&p->mutex);
  atomic_store(&p->stop, true);
  atomic_fetch_add(&p->job, 1);
  pthread_cond_broadcast(&p->wake);
  pthread_mutex_unlock(&p->mutex);
  for (int i = 1; i < p->threads; i++) pthread_join(p->workers[i].thread, NULL);
  pthread_cond_destroy(&p->wake);
  pthread_mutex_destroy(&p->mutex);
  free(p->workers);
  free(p);
}

int mn_pool_threads(const mn_pool *p) { return p ? p->threads : 1; }

void mn_pool_run(mn_pool *p, int64_t n, mn_pool_fn fn, void *ctx) {
  if (n <= 0) return;
  if (!p || p->threads == 1 || n == 1 || atomic_exchange_explicit(&p->busy, true, memory_order_acquire)) {
    for (int64_t i = 0; i < n; i++) fn(ctx, i, 0);
    return;
  }
  p->fn = fn;
  p->ctx = ctx;
  p->n = n;
  atomic_store_explicit(&p->next, 0, memory_order_relaxed);
  atomic_store_explicit(&p->running, p->threads - 1, memory_order_relaxed);
  atomic_fetch_add(&p->job, 1);
  if (atomic_load(&p->sleepers)) {
    pthread_mutex_lock(&p->mutex);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mutex);
  }
  work(p, 0);
  for (int spin = 0; atomic_load_explicit(&p->running, memory_order_acquire) > 0; spin++) {
    if (spin < SPINS) relax();
    else sched_yield();
  }
  atomic_store_explicit(&p->busy, false, memory_order_release);
}
