/* readers.h - threads that read what requests ask for: their JSON, their templates, their tokens. A body may have many megabytes, and the loop's
 * thread has tokens to pass on meanwhile. */
#ifndef MN_SERVE_READERS_H
#define MN_SERVE_READERS_H

#include "base/base.h"

typedef struct mn_readers mn_readers;
/* waiting: what mn_readers_ask takes that no thread has begun. */
mn_status mn_readers_new(int threads, int64_t waiting, mn_readers **out);
void mn_readers_free(mn_readers *r); /* what was posted is done first; may be NULL */
/* fn(arg) is called by one of the threads; what is posted first is begun first. */
mn_status mn_readers_post(mn_readers *r, void (*fn)(void *arg), void *arg);
/* The same of something new, unless too much waits already: MN_ERR_MEMORY, and *full. */
mn_status mn_readers_ask(mn_readers *r, void (*fn)(void *arg), void *arg, bool *full);
int mn_readers_count(mn_readers *r); /* posted, and not over */

#endif
