/* status.c - per-thread messages, checked allocation, small strings, interruption, log, clock, hashing. */
#include "base/base.h"
#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif
#include <string.h>
#include <time.h>

static _Thread_local char message[MN_MESSAGE];

mn_status mn_fail(mn_status status, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  char text[sizeof message]; /* the arguments may quote the old message */
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  memcpy(message, text, sizeof message);
  return status;
}

mn_status mn_context(mn_status status, const char *fmt, ...) {
  if (status == MN_OK) return status;
  char old[sizeof message], context[512];
  memcpy(old, message, sizeof old);
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(context, sizeof context, fmt, ap);
  va_end(ap);
  size_t n = (size_t)snprintf(message, sizeof message, "%s: ", context);
  if (n < sizeof message) snprintf(message + n, sizeof message - n, "%.*s", (int)(sizeof message - n - 1), old);
  return status;
}

const char *mn_message(void) { return message; }

mn_kept_message mn_message_keep(void) {
  mn_kept_message kept;
  memcpy(kept.text, message, sizeof message);
  return kept;
}

void mn_message_restore(const mn_kept_message *kept) { memcpy(message, kept->text, sizeof message); }

const char *mn_status_name(mn_status status) {
  static const char *const names[] = {"ok",         "bad argument",       "bad configuration", "shape mismatch",
                                      "bad format", "input/output error", "out of memory",     "numeric error",
                                      "cancelled",  "unsupported",        "internal error"};
  return (size_t)status < sizeof names / sizeof *names ? names[status] : "unknown status";
}

static void *checked(void *p, size_t n) {
  if (!p) mn_fail(MN_ERR_MEMORY, "out of memory: %zu bytes could not be allocated", n);
  return p;
}

void *mn_alloc(size_t n) { return checked(malloc(n ? n : 1), n); }

void *mn_calloc(size_t count, size_t size) { return checked(calloc(count ? count : 1, size ? size : 1), count * size); }

void *mn_realloc(void *p, size_t n) { return checked(realloc(p, n ? n : 1), n); }

void *mn_alloc_aligned(size_t n) {
  size_t rounded = n > SIZE_MAX - 64 ? 0 : mn_align(n ? n : 1, 64);
  return checked(rounded ? aligned_alloc(64, rounded) : NULL, n);
}

void mn_release_free_memory(void) {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

char *mn_strdup(const char *s) {
  size_t n = strlen(s) + 1;
  char *p = mn_alloc(n);
  if (p) memcpy(p, s, n);
  return p;
}

char *mn_format(const char *fmt, ...) {
  va_list ap, again;
  va_start(ap, fmt);
  va_copy(again, ap);
  int n = vsnprintf(NULL, 0, fmt, ap);
  va_end(ap);
  char *p = n < 0 ? NULL : mn_alloc((size_t)n + 1);
  if (p) vsnprintf(p, (size_t)n + 1, fmt, again);
  va_end(again);
  return p;
}

uint64_t mn_splitmix64(uint64_t x) {
  uint64_t z = x + 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

uint64_t mn_hash_bytes(const void *data, size_t n, uint64_t seed) {
  const unsigned char *p = data;
  uint64_t h = 0xCBF29CE484222325u ^ seed;
  for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001B3u;
  return h;
}

uint64_t mn_hash_words(const void *data, size_t n, uint64_t seed) {
  uint64_t h = seed ^ n;
  for (size_t i = 0; i < n; i += sizeof h) {
    uint64_t word = 0;
    memcpy(&word, (const char *)data + i, n - i < sizeof word ? n - i : sizeof word);
    h = mn_hash_mix(h, word);
  }
  return h;
}

uint64_t mn_hash_str(const char *s) { return mn_hash_bytes(s, strlen(s), 0); }

static _Thread_local const atomic_int *stop_flag;

const atomic_int *mn_stop_watch(const atomic_int *flag) {
  const atomic_int *before = stop_flag;
  stop_flag = flag;
  return before;
}

bool mn_stopped(void) { return stop_flag && atomic_load_explicit(stop_flag, memory_order_relaxed); }

mn_status mn_stop_check(const char *what) { return mn_stopped() ? mn_fail(MN_ERR_CANCELLED, "interrupted while %s", what) : MN_OK; }

static mn_log_level threshold(void) {
  static atomic_int known = -1; /* two that ask at once find the same */
  int level = atomic_load_explicit(&known, memory_order_relaxed);
  if (level < 0) {
    const char *e = getenv("MNEME_LOG");
    level = !e                    ? MN_LOG_WARN
            : !strcmp(e, "error") ? MN_LOG_ERROR
            : !strcmp(e, "info")  ? MN_LOG_INFO
            : !strcmp(e, "debug") ? MN_LOG_DEBUG
                                  : MN_LOG_WARN;
    atomic_store_explicit(&known, level, memory_order_relaxed);
  }
  return (mn_log_level)level;
}

void mn_log_write(mn_log_level level, const char *fmt, ...) {
  if (level > threshold()) return;
  static const char *const names[] = {"error", "warning", "info", "debug"};
  char line[2048];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(line, sizeof line, fmt, ap);
  va_end(ap);
  mn_text shown = {0};
  mn_text_addf(&shown, "mneme: %s: ", names[level]);
  mn_text_add_shown(&shown, line, strlen(line), false);
  mn_text_add(&shown, "\n");
  if (shown.data) fwrite(shown.data, 1, shown.len, stderr);
  mn_text_free(&shown);
}

double mn_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
