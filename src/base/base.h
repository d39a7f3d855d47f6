/* base.h - the ground floor: status values and messages, checked sizes, arenas, logging, counter-based random
 * numbers and the thread pool. Knows nothing of tensors, files of any format, or models. */
#ifndef MN_BASE_H
#define MN_BASE_H

#include <stdbool.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "mneme.h" /* mn_status, mn_message, mn_status_name: public, and defined there only */

#if defined(__GNUC__)
#define MN_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#else
#define MN_PRINTF(fmt, first)
#endif

/* ---- status ---------------------------------------------------------------------------------------------------
 * Every fallible function returns mn_status. The message is built where the fault is known and kept per thread
 * (as errno is), so that a status can pass through any number of floors unchanged. */

/* Sets this thread's message (printf style, no trailing newline) and returns `status`. */
mn_status mn_fail(mn_status status, const char *fmt, ...) MN_PRINTF(2, 3);
/* Puts "context: " in front of this thread's message and returns `status` (no-op for MN_OK). */
mn_status mn_context(mn_status status, const char *fmt, ...) MN_PRINTF(2, 3);
/* What is tidied up after a fault may fail, too, and the message is to stay that of the fault: kept before, and put back behind it. */
enum { MN_MESSAGE = 2048 };
typedef struct mn_kept_message {
  char text[MN_MESSAGE];
} mn_kept_message;
mn_kept_message mn_message_keep(void);
void mn_message_restore(const mn_kept_message *kept);

#define MN_TRY(expr)                                                                                                                       \
  do {                                                                                                                                     \
    mn_status mn_try_status_ = (expr);                                                                                                     \
    if (mn_try_status_ != MN_OK) return mn_try_status_;                                                                                    \
  } while (0)

/* ---- sizes ----------------------------------------------------------------------------------------------------
 * Checked arithmetic: false (and *out untouched) on overflow. */
static inline bool mn_size_mul(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool mn_size_add(size_t a, size_t b, size_t *out) { return !__builtin_add_overflow(a, b, out); }
static inline size_t mn_align(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* malloc/calloc/realloc that set the message on failure and return NULL. mn_alloc_aligned: 64-byte aligned, free
 * with free(). */
void *mn_alloc(size_t n);
void *mn_calloc(size_t count, size_t size);
void *mn_realloc(void *p, size_t n);
void *mn_alloc_aligned(size_t n);
/* Gives what was freed back to the system, where the C library can: before something that runs for long. */
void mn_release_free_memory(void);
char *mn_strdup(const char *s);
char *mn_format(const char *fmt, ...) MN_PRINTF(1, 2); /* malloc'ed string, free with free() */

/* ---- arena ---- things that live and die together. Memory is zeroed. NULL (message set) when out of memory. */
typedef struct mn_arena mn_arena;
mn_arena *mn_arena_new(void);
void mn_arena_free(mn_arena *arena);
void *mn_arena_alloc(mn_arena *arena, size_t n);
void *mn_arena_room(mn_arena *arena, size_t n); /* the same, but what is in it is undefined */
char *mn_arena_strdup(mn_arena *arena, const char *s);
char *mn_arena_format(mn_arena *arena, const char *fmt, ...) MN_PRINTF(2, 3);
size_t mn_arena_used(const mn_arena *arena);

/* ---- hashing ---- FNV-1a 64 for names, SplitMix64 as a mixer (Steele et al. 2014). */
uint64_t mn_hash_bytes(const void *data, size_t n, uint64_t seed);
uint64_t mn_hash_str(const char *s);
uint64_t mn_splitmix64(uint64_t x);
/* Of numbers, and of bytes eight at a time: for tables that are asked for every node of a graph. */
static inline uint64_t mn_hash_mix(uint64_t h, uint64_t x) {
  h = (h ^ x) * 0x9E3779B97F4A7C15u;
  return h ^ h >> 32;
}
uint64_t mn_hash_words(const void *data, size_t n, uint64_t seed);

/* ---- counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011) -------------------------------------
 * A pure function of (key, counter): no state, so any element can be drawn on any thread in any order. */
void mn_philox(uint64_t key, uint64_t counter_hi, uint64_t counter_lo, uint32_t out[4]);
static inline double mn_uniform_from_bits(uint32_t hi, uint32_t lo) { /* [0,1), 53 bits */
  return (double)((((uint64_t)hi << 32) | lo) >> 11) * 0x1.0p-53;
}
/* Element i of the uniform [0,1) / standard normal stream of (seed, name, step). */
uint64_t mn_random_tick_key(uint64_t key, uint64_t tick); /* of a step of a loop: another key for each tick */
double mn_random_uniform(uint64_t key, uint64_t step, uint64_t i);
double mn_random_normal(uint64_t key, uint64_t step, uint64_t i);
uint64_t mn_random_key(uint64_t seed, const char *name);

/* ---- threads --------------------------------------------------------------------------------------------------
 * One pool, fork-join. mn_pool_run calls fn(ctx, i, thread) for every i in [0, n) exactly once, on any thread, and
 * returns when all are done. `n` must depend on the shapes only, never on the number of threads: that is what keeps
 * results bit-identical for any number of threads. Not re-entrant: a call from inside fn runs serially. */
typedef struct mn_pool mn_pool;
typedef void (*mn_pool_fn)(void *ctx, int64_t i, int thread);
mn_pool *mn_pool_new(int threads); /* threads <= 0: the number of usable processors (affinity and cgroup aware) */
void mn_pool_free(mn_pool *pool);
int mn_pool_threads(const mn_pool *pool);
void mn_pool_run(mn_pool *pool, int64_t n, mn_pool_fn fn, void *ctx); /* pool may be NULL: runs serially */
int mn_cpu_count(void);

/* ---- interruption --------------------------------------------------------------------------------------------
 * Signals reach a process, not a call: who owns the process names the flag that its handler raises, and every loop of the
 * library that may last longer than a second looks at it, however deep it lies. Handlers and other threads may raise it: an
 * atomic_int is free of locks. The flag is this thread's; NULL (as in a program that only uses the library): never interrupted.
 * Gives the flag before it, to who keeps what was done and may not be stopped in that: NULL in front, and that one afterwards. */
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a handler of signals may only set what needs no lock");
const atomic_int *mn_stop_watch(const atomic_int *flag);
bool mn_stopped(void);
/* MN_OK, or MN_ERR_CANCELLED with the message "interrupted while <what>". */
mn_status mn_stop_check(const char *what);

/* ---- log ---- to stderr; level from MNEME_LOG (error, warn, info, debug), default warn. */
typedef enum { MN_LOG_ERROR, MN_LOG_WARN, MN_LOG_INFO, MN_LOG_DEBUG } mn_log_level;
void mn_log_write(mn_log_level level, const char *fmt, ...) MN_PRINTF(2, 3);
double mn_now(void); /* seconds of a monotonic clock */

#endif
