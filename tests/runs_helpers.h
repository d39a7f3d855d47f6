/* runs_helpers.h - what the tests of the run database and of the log share: a directory, a run to record, small files. */
#ifndef MN_RUNS_HELPERS_H
#define MN_RUNS_HELPERS_H

#include "base/file.h"
#include "test.h"
#include "train/runs.h"

static char dir[64] = P_tmpdir "/mneme-test-runs-XXXXXX"; /* for mkdtemp */

static inline const char *at(const char *name) { /* sixteen live at a time */
  static char path[16][256];
  static int i;
  i = (i + 1) % 16;
  snprintf(path[i], sizeof path[i], "%s/%s", dir, name);
  return path[i];
}

static inline mn_run example(const char *name, const char *out_dir) {
  return (mn_run){.name = name,
                  .recipe = "{\"model\":{\"layers\":2}}",
                  .fingerprint = "f00d",
                  .parameters = 12345,
                  .isa = "avx2",
                  .threads = 2,
                  .out_dir = out_dir};
}

static inline void write_text(const char *path, const char *text) {
  FILE *f = fopen(path, "w");
  fputs(text, f);
  fclose(f);
}

static inline char *read_text(const char *path) {
  char *data = NULL;
  size_t n;
  return mn_file_read(path, 1 << 24, &data, &n) == MN_OK ? data : strdup("");
}

static inline bool content_is(const char *path, const char *expected) {
  char *data = NULL;
  size_t n = 0;
  bool same = mn_file_read(path, 1 << 20, &data, &n) == MN_OK && n == strlen(expected) && !memcmp(data, expected, n);
  free(data);
  return same;
}

#endif
