/* threads.h - how threads of ours begin: with a stack that suffices, whatever `ulimit -s` says. (Pools of them: base.h.) */
#ifndef MN_THREADS_H
#define MN_THREADS_H

#include <pthread.h>

enum {
  MN_THREADS_MOST = 4096,  /* of a pool; who asks for more gets so many */
  MN_STACK_LEAST = 1 << 20 /* bytes that a thread of ours may need      */
};

/* pthread_create; the number of an error, or 0. */
int mn_thread_begin(pthread_t *thread, void *(*fn)(void *), void *arg);

#endif
