/* watch.h - who watches a long piece of work: may ask it to stop, and is told how far it is. Everything that trains, evaluates,
 * reads or tokenises hands it down as one value; all zeros, or NULL where a pointer is taken, is nobody. It is the wish of one
 * call's caller; what a signal asks of a whole thread every loop hears without being handed anything (mn_stop_check, base.h). */
#ifndef MN_WATCH_H
#define MN_WATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mn_watch {
  const atomic_int *stop; /* non-zero: the work ends with MN_ERR_CANCELLED, within a step; NULL: never asked */
  /* Told now and then, on the thread that works: `done` of `total` units, and of what (the file that is read, what was found so
   * far; NULL: there is nothing to say). false ends the work as `stop` does. NULL: nobody listens. */
  bool (*progress)(void *ctx, const char *what, int64_t done, int64_t total);
  void *ctx; /* borrowed; must outlive the work */
} mn_watch;

static inline bool mn_watch_stops(const mn_watch *w) { return w && w->stop && atomic_load_explicit(w->stop, memory_order_relaxed); }
/* Tells the listener; false: the work is to end. */
static inline bool mn_watch_tell(const mn_watch *w, const char *what, int64_t done, int64_t total) {
  return !w || !w->progress || w->progress(w->ctx, what, done, total);
}

#endif
