/* test.h - a test program is a list of functions; each check counts. Closes with "N passed, N failed". */
#ifndef MN_TEST_H
#define MN_TEST_H

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* AddressSanitizer reserves address space by the terabyte: `ulimit -v` has no meaning under it. */
#if defined(__SANITIZE_ADDRESS__)
enum { TEST_ADDRESS_SANITIZER = 1 };
#else
enum { TEST_ADDRESS_SANITIZER = 0 };
#endif

static int test_passed, test_failed;
static const char *test_current = "";

#define CHECK(cond, ...)                                                                                                                   \
  do {                                                                                                                                     \
    if (cond) test_passed++;                                                                                                               \
    else {                                                                                                                                 \
      test_failed++;                                                                                                                       \
      printf("FAILED %s (%s:%d): %s: ", test_current, __FILE__, __LINE__, #cond);                                                          \
      printf(__VA_ARGS__);                                                                                                                 \
      printf("\n");                                                                                                                        \
    }                                                                                                                                      \
  } while (0)
#define CHECK_OK(expr)                                                                                                                     \
  do {                                                                                                                                     \
    mn_status check_status_ = (expr);                                                                                                      \
    CHECK(check_status_ == MN_OK, "%s: %s", mn_status_name(check_status_), mn_message());                                                  \
  } while (0)
#define RUN(fn)                                                                                                                            \
  do {                                                                                                                                     \
    test_current = #fn;                                                                                                                    \
    int before_ = test_failed;                                                                                                             \
    fn();                                                                                                                                  \
    printf("%s %s\n", test_failed == before_ ? "ok    " : "FAILED", #fn);                                                                  \
    fflush(stdout);                                                                                                                        \
  } while (0)

/* What the reference alone computes is the same on every instruction set: of a test's runs, one for each set (tests/with-isa), the first has
 * it, and a run that names no set. */
static inline bool test_of_reference(void) {
  const char *set = getenv("MNEME_CPU_ISA");
  return !set || !*set || !strcmp(set, "generic");
}
#define RUN_ONCE(fn)                                                                                                                       \
  do {                                                                                                                                     \
    if (test_of_reference()) RUN(fn);                                                                                                      \
    else printf("once   " #fn ": on the first instruction set\n");                                                                         \
  } while (0)

static inline int test_end(void) {
  printf("%d passed, %d failed\n", test_passed, test_failed);
  return test_failed ? 1 : 0;
}

#endif
