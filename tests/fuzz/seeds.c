/* seeds.c - every parser of bytes from outside on the seeds of its fuzzer, whole and cut short, without a fuzzer: each text ends where a page
 * begins that belongs to nobody, so who reads one byte behind it is seen, and told with the file and its length.
 * usage: seeds DIR, the folder of the fuzzers. */
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "fence.h"

/* FUZZERS is X(name) for each fuzz_<name>.c, whose entry is called fuzz_<name> here. */
#define X(name) int fuzz_##name(const uint8_t *data, size_t size);
FUZZERS
#undef X

typedef int fuzzer(const uint8_t *data, size_t size);
static const struct {
  const char *name;
  fuzzer *run;
} fuzzers[] = {
#define X(name) {#name, fuzz_##name},
    FUZZERS
#undef X
};

enum { CUTS = 64 };

static char now[600]; /* what is read, for who reads too far */
static size_t now_n;

static void too_far(int signal) {
  (void)signal;
  const ssize_t told = write(STDERR_FILENO, now, now_n);
  _exit(told < 0 ? 2 : 1);
}

static void place(fuzzer *run, const char *path, const char *text, size_t n) {
  now_n =
      (size_t)snprintf(now, sizeof now, "%s: its first %zu bytes are read beyond their end, or what was made of them is wrong\n", path, n);
  if (now_n >= sizeof now) now_n = sizeof now - 1;
  run((const uint8_t *)fence_text(text, n), n);
}

/* Whole, and cut at some CUTS places: at all of them where it is short. */
static bool read_seed(fuzzer *run, const char *path) {
  char *text;
  size_t n;
  if (mn_file_read(path, FENCE_ROOM, &text, &n) != MN_OK) {
    fprintf(stderr, "%s\n", mn_message());
    return false;
  }
  const size_t step = n / CUTS + 1;
  for (size_t cut = 0; cut < n; cut += step) place(run, path, text, cut);
  place(run, path, text, n);
  free(text);
  return true;
}

/* How many there are; -1: they cannot be read. */
static int read_folder(fuzzer *run, const char *dir) {
  int n = 0;
  DIR *d = opendir(dir);
  for (struct dirent *e; d && n >= 0 && (e = readdir(d));) {
    if (e->d_name[0] == '.') continue;
    char *path = mn_path_join(dir, e->d_name);
    n = path && read_seed(run, path) ? n + 1 : -1;
    free(path);
  }
  if (d) closedir(d);
  return n;
}

int main(int argc, char **argv) {
  if (argc != 2 || !fence_end()) {
    fprintf(stderr, "usage: seeds DIR\n");
    return 2;
  }
  for (size_t i = 0; i < 3; i++) signal((const int[]){SIGSEGV, SIGBUS, SIGABRT}[i], too_far);
  for (size_t i = 0; i < sizeof fuzzers / sizeof *fuzzers; i++) {
    char *dir = mn_path_join(argv[1], fuzzers[i].name);
    const int n = dir ? read_folder(fuzzers[i].run, dir) : -1;
    free(dir);
    if (n < 1) {
      fprintf(stderr, "%s: no seeds\n", fuzzers[i].name);
      return 1;
    }
    printf("%s: %d seeds\n", fuzzers[i].name, n);
  }
  return 0;
}
