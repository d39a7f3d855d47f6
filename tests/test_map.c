/* Mapped files: what shrinks, changes or goes away under a map is said, and ends nobody. */
#define _GNU_SOURCE
#include "base/file.h"
#include "test.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static char scratch[] = P_tmpdir "/mneme-test-map-XXXXXX";

static const char *in_scratch(const char *name) {
  static char path[4][256];
  static int turn;
  char *p = path[turn++ % 4];
  snprintf(p, sizeof path[0], "%s/%s", scratch, name);
  return p;
}

enum { SIZE = 1 << 20 };

static void fill(const char *path) {
  unsigned char *bytes = malloc(SIZE);
  memset(bytes, 0xA5, SIZE);
  CHECK_OK(mn_file_write(path, bytes, SIZE));
  free(bytes);
}

/* ---- the handler ---- */
static sigjmp_buf back;
static volatile sig_atomic_t theirs;

static void their_handler(int sig) {
  (void)sig;
  theirs++;
  siglongjmp(back, 1);
}

/* Before any map of ours: a program with a handler of its own keeps it for its own faults. */
static void a_fault_of_somebody_else_goes_to_their_handler(void) {
  struct sigaction action = {.sa_handler = their_handler};
  sigaction(SIGBUS, &action, NULL);
  mn_map ours;
  fill(in_scratch("ours"));
  fill(in_scratch("theirs"));
  CHECK_OK(mn_map_open(in_scratch("ours"), &ours));
  int fd = open(in_scratch("theirs"), O_RDWR);
  volatile unsigned char *p = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
  CHECK(p != MAP_FAILED && ftruncate(fd, 10) == 0, "a map of theirs, cut");
  if (sigsetjmp(back, 1) == 0) (void)p[SIZE / 2];
  CHECK(theirs == 1, "their handler was called %d times", (int)theirs);
  CHECK_OK(mn_map_check(&ours));
  CHECK(truncate(in_scratch("ours"), 10) == 0 && ours.data[SIZE / 2] == 0, "ours");
  CHECK(theirs == 1 && mn_map_check(&ours) == MN_ERR_IO, "our own fault is none of theirs: %s", mn_message());
  if (sigsetjmp(back, 1) == 0) raise(SIGBUS);
  CHECK(theirs == 2, "a signal that a process sent is passed on");
  munmap((void *)(uintptr_t)p, SIZE);
  close(fd);
  mn_map_close(&ours);
}

/* ---- shrinking ---- */
typedef struct reading {
  const mn_map *map;
  uint64_t sum[64];
} reading;

static void read_part(void *ctx, int64_t i, int thread) {
  reading *r = ctx;
  (void)thread;
  for (size_t k = 0; k < SIZE / 64; k++) r->sum[i] += r->map->data[(size_t)i * (SIZE / 64) + k];
}

static void every_thread_reads_on_and_the_check_says_it(void) {
  mn_pool *pool = mn_pool_new(4);
  for (int64_t left = 0; left <= SIZE / 2; left += SIZE / 2) {
    mn_map map, other;
    fill(in_scratch("shrinks"));
    fill(in_scratch("stays"));
    CHECK_OK(mn_map_open(in_scratch("shrinks"), &map));
    CHECK_OK(mn_map_open(in_scratch("stays"), &other));
    CHECK(truncate(in_scratch("shrinks"), left) == 0, "cut to %lld", (long long)left);
    reading r = {.map = &map};
    mn_pool_run(pool, 64, read_part, &r);
    uint64_t sum = 0;
    for (int i = 0; i < 64; i++) sum += r.sum[i];
    CHECK(sum == (uint64_t)left * 0xA5, "what is left, and zeros: %llu", (unsigned long long)sum);
    CHECK(mn_map_check(&map) == MN_ERR_IO && strstr(mn_message(), "shrinks") && strstr(mn_message(), "cut short"), "%s", mn_message());
    fill(in_scratch("shrinks")); /* another file of that name now: the map's own is still cut */
    CHECK(mn_map_check(&map) == MN_ERR_IO, "what was read is not what was mapped");
    r.map = &other;
    mn_pool_run(pool, 64, read_part, &r);
    CHECK_OK(mn_map_check(&other));
    mn_map_close(&map);
    mn_map_close(&other);
  }
  mn_pool_free(pool);
}

/* Inside of its last page a shorter file gives no fault, and a rewritten one never does. */
static void what_gives_no_fault_is_noticed_too(void) {
  mn_map map;
  CHECK_OK(mn_file_write(in_scratch("small"), "0123456789", 10));
  CHECK_OK(mn_map_open(in_scratch("small"), &map));
  CHECK_OK(mn_map_check(&map));
  CHECK(truncate(in_scratch("small"), 5) == 0 && map.data[7] == 0, "zeros without a fault");
  CHECK(mn_map_check(&map) == MN_ERR_IO && strstr(mn_message(), "has 5"), "%s", mn_message());
  mn_map_close(&map);
  CHECK_OK(mn_file_write(in_scratch("small"), "0123456789", 10));
  CHECK_OK(mn_map_open(in_scratch("small"), &map));
  nanosleep(&(struct timespec){0, 50000000}, NULL); /* file systems count time in ticks */
  int fd = open(in_scratch("small"), O_WRONLY);
  CHECK(pwrite(fd, "x", 1, 3) == 1, "written in place");
  close(fd);
  CHECK(mn_map_check(&map) == MN_ERR_IO && strstr(mn_message(), "was changed"), "%s", mn_message());
  mn_map_close(&map);
}

static void what_is_replaced_or_removed_goes_on(void) {
  mn_map maps[100];
  for (int i = 0; i < 100; i++) {
    fill(in_scratch("goes"));
    CHECK_OK(mn_map_open(in_scratch("goes"), &maps[i]));
  }
  CHECK(remove(in_scratch("goes")) == 0, "removed");
  for (int i = 0; i < 100; i++) {
    CHECK(maps[i].data[SIZE - 1] == 0xA5, "its bytes are there until it is closed");
    CHECK_OK(mn_map_check(&maps[i]));
    mn_map_close(&maps[i]);
  }
  mn_map none = {0};
  CHECK_OK(mn_map_check(&none));
}

int main(void) {
  if (!mkdtemp(scratch)) return 1;
  RUN(a_fault_of_somebody_else_goes_to_their_handler);
  RUN(every_thread_reads_on_and_the_check_says_it);
  RUN(what_gives_no_fault_is_noticed_too);
  RUN(what_is_replaced_or_removed_goes_on);
  char command[300];
  snprintf(command, sizeof command, "rm -rf '%s'", scratch);
  if (system(command) != 0) printf("%s was left behind\n", scratch);
  return test_end();
}
