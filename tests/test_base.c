/* The ground floor: messages, checked sizes, arenas, random numbers, threads. Files are in test_files.c. */
#include "base/precision.h"
#include "test.h"

#include <langinfo.h>
#include <locale.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

/* ---- messages, sizes, arenas ---- */
static void messages_stack(void) {
  CHECK(mn_fail(MN_ERR_SHAPE, "k is %d", 3) == MN_ERR_SHAPE, "status is passed through");
  CHECK(mn_context(MN_ERR_SHAPE, "layer %d", 2) == MN_ERR_SHAPE, "status is passed through");
  CHECK(!strcmp(mn_message(), "layer 2: k is 3"), "%s", mn_message());
  mn_fail(MN_ERR_ARG, "again: %s", mn_message());
  CHECK(!strcmp(mn_message(), "again: layer 2: k is 3"), "a message may quote the old one: %s", mn_message());
  char longer[4096];
  memset(longer, 'x', sizeof longer);
  longer[sizeof longer - 1] = 0;
  mn_fail(MN_ERR_ARG, "%s", longer);
  CHECK(strlen(mn_message()) < sizeof longer - 1, "long messages are cut, not overrun");
}

static void sizes_are_checked(void) {
  size_t out = 7;
  CHECK(!mn_size_mul(SIZE_MAX, 2, &out), "overflow found");
  CHECK(!mn_size_add(SIZE_MAX, 1, &out), "overflow found");
  CHECK(mn_size_mul(6, 7, &out) && out == 42, "%zu", out);
  CHECK(mn_align(65, 64) == 128 && mn_align(64, 64) == 64 && mn_align(0, 64) == 0, "align");
  CHECK(mn_alloc_aligned(SIZE_MAX) == NULL, "an impossible size is refused");
  void *p = mn_alloc_aligned(10);
  CHECK(p && (uintptr_t)p % 64 == 0, "aligned");
  free(p);
}

static void arenas_hold_and_zero(void) {
  mn_arena *a = NULL;
  bool zero = true, aligned = true;
  for (int turn = 0; turn < 2; turn++) /* the second finds what the first has left */
    for (int i = 0; i < 2000; i++) {
      if (i == 0) mn_arena_free(a), a = mn_arena_new();
      unsigned char *p = mn_arena_alloc(a, (size_t)(i * 37 % 5000));
      aligned &= (uintptr_t)p % _Alignof(max_align_t) == 0;
      for (int j = 0; j < i * 37 % 5000; j++) zero &= p[j] == 0, p[j] = 0xFF;
    }
  CHECK(zero, "arena memory is zeroed and never handed out twice");
  CHECK(aligned, "arena memory is aligned");
  CHECK(!strcmp(mn_arena_format(a, "%s-%d", "mem", 7), "mem-7"), "format");
  CHECK(mn_arena_alloc(a, SIZE_MAX - 3) == NULL, "an impossible size is refused");
  mn_arena_free(a);
}

/* ---- random numbers ---- */
static void philox_is_the_published_function(void) {
  /* Random123's known answers for philox4x32-10: counter and key all zero, and all ones. */
  uint32_t out[4];
  mn_philox(0, 0, 0, out);
  CHECK(out[0] == 0x6627e8d5u && out[1] == 0xe169c58du && out[2] == 0xbc57ac4cu && out[3] == 0x9b00dbd8u, "%08x %08x %08x %08x", out[0],
        out[1], out[2], out[3]);
  mn_philox(UINT64_MAX, UINT64_MAX, UINT64_MAX, out);
  CHECK(out[0] == 0x408f276du && out[1] == 0x41c83b0eu && out[2] == 0xa20bc7c6u && out[3] == 0x6d5451fdu, "%08x %08x %08x %08x", out[0],
        out[1], out[2], out[3]);
}

static void random_streams_have_their_moments(void) {
  uint64_t key = mn_random_key(1, "weights"), other = mn_random_key(1, "bias");
  CHECK(key != other && key != mn_random_key(2, "weights"), "keys depend on seed and name");
  enum { N = 40000 };
  double sum = 0, square = 0, cross = 0, uniform = 0, low = 1, high = 0;
  for (uint64_t i = 0; i < N; i++) {
    double x = mn_random_normal(key, 0, i), y = mn_random_normal(key, 1, i), u = mn_random_uniform(other, 0, i);
    sum += x, square += x * x, cross += x * y, uniform += u;
    low = fmin(low, u), high = fmax(high, u);
  }
  CHECK(fabs(sum / N) < 0.025, "mean %g", sum / N); /* 5 standard errors */
  CHECK(fabs(square / N - 1) < 0.036, "variance %g", square / N);
  CHECK(fabs(cross / N) < 0.025, "steps are independent: %g", cross / N);
  CHECK(fabs(uniform / N - 0.5) < 0.0073, "uniform mean %g", uniform / N);
  CHECK(low >= 0 && high < 1, "uniform range [%g, %g]", low, high);
}

/* ---- threads ---- */
enum { TASKS = 10007 };
typedef struct tally {
  int runs[TASKS];
  int bad_thread, threads;
  mn_pool *pool;
} tally;
static void count_run(void *ctx, int64_t i, int thread) {
  tally *t = ctx;
  __atomic_add_fetch(&t->runs[i], 1, __ATOMIC_RELAXED);
  if (thread < 0 || thread >= t->threads) __atomic_add_fetch(&t->bad_thread, 1, __ATOMIC_RELAXED);
}
static void nested(void *ctx, int64_t i, int thread) {
  (void)i, (void)thread;
  tally *t = ctx;
  mn_pool_run(t->pool, 3, count_run, t);
}
static void every_task_runs_once(void) {
  for (int threads = 1; threads <= 4; threads++) {
    tally *t = calloc(1, sizeof *t);
    t->pool = mn_pool_new(threads);
    t->threads = mn_pool_threads(t->pool);
    CHECK(t->threads == threads, "%d threads", t->threads);
    mn_pool_run(t->pool, TASKS, count_run, t);
    int wrong = 0;
    for (int i = 0; i < TASKS; i++) wrong += t->runs[i] != 1;
    CHECK(wrong == 0 && t->bad_thread == 0, "%d tasks not run once with %d threads", wrong, threads);
    mn_pool_run(t->pool, 0, count_run, t);
    memset(t->runs, 0, sizeof t->runs);
    mn_pool_run(t->pool, 50, nested, t);
    CHECK(t->runs[0] == 50 && t->runs[2] == 50 && t->runs[3] == 0, "nested calls run serially: %d", t->runs[0]);
    mn_pool_free(t->pool);
    free(t);
  }
  tally *t = calloc(1, sizeof *t);
  t->threads = 1;
  mn_pool_run(NULL, 5, count_run, t);
  CHECK(t->runs[4] == 1 && t->bad_thread == 0, "no pool: serial");
  free(t);
}

/* As many as were asked for, up to what options and the public interface take. */
static void a_pool_is_as_large_as_it_was_asked_to_be(void) {
  mn_pool *pool = mn_pool_new(1100);
  CHECK(pool ? mn_pool_threads(pool) == 1100 : strstr(mn_message(), "could not be started") != NULL, "%d threads: %s",
        pool ? mn_pool_threads(pool) : 0, mn_message());
  mn_pool_free(pool);
}

static void loops_hear_their_threads_flag(void) {
  atomic_int flag = 0;
  CHECK(!mn_stopped() && mn_stop_check("idle") == MN_OK, "nobody watches");
  mn_stop_watch(&flag);
  CHECK_OK(mn_stop_check("working"));
  flag = 1;
  CHECK(mn_stopped() && mn_stop_check("counting") == MN_ERR_CANCELLED && strstr(mn_message(), "while counting"), "%s", mn_message());
  mn_stop_watch(NULL);
  CHECK(!mn_stopped(), "released");
}

static void a_precision_is_called_as_its_type(void) {
  for (int i = 0; i < MN_PRECISIONS; i++)
    CHECK(!strcmp(mn_precisions_and_f64[i], mn_dtype_name(mn_precision_type(i))), "%s", mn_precisions_and_f64[i]);
  for (int i = 0; mn_precisions[i]; i++) CHECK(!strcmp(mn_precisions[i], mn_precisions_and_f64[i]), "%s", mn_precisions[i]);
  CHECK(!mn_precisions_and_f64[MN_PRECISIONS], "the list ends");
}

/* The program may set a locale whose numbers have a comma, at any time: it is not the workers'. */
enum { WORKERS = 3 };
typedef struct seen_by {
  atomic_int there;
  bool own[WORKERS], point[WORKERS];
} seen_by;
static void look_at_locale(void *ctx, int64_t i, int thread) { /* each waits for all, so that every thread has one */
  seen_by *s = ctx;
  (void)i;
  s->own[thread] = uselocale((locale_t)0) != LC_GLOBAL_LOCALE;
  s->point[thread] = !strcmp(nl_langinfo(RADIXCHAR), ".");
  for (atomic_fetch_add(&s->there, 1); atomic_load(&s->there) < WORKERS;) sched_yield();
}
static void workers_write_points(void) {
  seen_by s = {0};
  mn_pool *pool = mn_pool_new(WORKERS);
  CHECK(pool != NULL, "%s", mn_message());
  if (pool) mn_pool_run(pool, WORKERS, look_at_locale, &s);
  mn_pool_free(pool);
  CHECK(!s.own[0], "whoever runs them keeps its locale");
  for (int i = 1; i < WORKERS; i++) CHECK(s.own[i] && s.point[i], "worker %d has the program's locale", i);
}

int main(void) {
  RUN(messages_stack);
  RUN(sizes_are_checked);
  RUN(arenas_hold_and_zero);
  RUN(philox_is_the_published_function);
  RUN(random_streams_have_their_moments);
  RUN(every_task_runs_once);
  RUN(workers_write_points);
  RUN(a_pool_is_as_large_as_it_was_asked_to_be);
  RUN(loops_hear_their_threads_flag);
  RUN(a_precision_is_called_as_its_type);
  return test_end();
}
