/* files.c - what checksums cost: a file of tensors beside the same bytes without them, written and read by turns in one run.
 *
 *     bench-files [FILE [MIB]]
 *
 * FILE (/dev/shm/bench-files.safetensors, in memory, so that no disk hides the cost) is removed at the end. Each figure is
 * the least of 7 turns, in one thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "format/safetensors.h"

enum { TURNS = 7, TENSOR = 8 << 20 };

typedef struct figures {
  double write_plain, write, read_plain, read;
} figures;

static void least(double *best, double begin) {
  double t = mn_now() - begin;
  if (*best == 0 || t < *best) *best = t;
}

static mn_status plain(const char *path, const char *data, char *to, int n, figures *f) {
  mn_file_writer *w;
  mn_map map;
  double begin = mn_now();
  MN_TRY(mn_file_writer_open(path, &w));
  for (int i = 0; i < n; i++) mn_file_writer_append(w, data, TENSOR);
  MN_TRY(mn_file_writer_commit(w));
  least(&f->write_plain, begin);
  begin = mn_now();
  MN_TRY(mn_map_open(path, &map));
  for (int i = 0; i < n; i++) memcpy(to, map.data + (size_t)i * TENSOR, TENSOR);
  least(&f->read_plain, begin);
  mn_map_close(&map);
  return MN_OK;
}

static mn_status checked(const char *path, const char *data, char *to, int n, figures *f) {
  mn_st *st;
  mn_st_writer *w = mn_st_writer_new();
  mn_status status = w ? MN_OK : MN_ERR_MEMORY;
  double begin = mn_now();
  for (int i = 0; i < n && status == MN_OK; i++) {
    char name[32];
    snprintf(name, sizeof name, "tensor.%d", i);
    status = mn_st_writer_add(w, name, MN_F32, &(mn_shape){1, {TENSOR / 4}}, data);
  }
  if (status == MN_OK) status = mn_st_writer_save(w, path);
  least(&f->write, begin);
  mn_st_writer_free(w);
  MN_TRY(status);
  begin = mn_now();
  MN_TRY(mn_st_open(path, &st));
  for (int i = 0; i < n && status == MN_OK; i++) status = mn_st_read(st, mn_st_at(st, i), MN_F32, to);
  least(&f->read, begin);
  mn_st_close(st);
  return status;
}

int main(int argc, char **argv) {
  const char *path = argc > 1 ? argv[1] : "/dev/shm/bench-files.safetensors";
  int n = (argc > 2 ? atoi(argv[2]) : 512) / 8;
  char *data = malloc(TENSOR), *to = malloc(TENSOR);
  figures f = {0};
  mn_status status = data && to && n > 0 ? MN_OK : mn_fail(MN_ERR_ARG, "files: MIB is at least 8");
  for (int i = 0; status == MN_OK && i < TENSOR; i++) data[i] = (char)(i * 31 >> 3);
  for (int turn = 0; turn < TURNS && status == MN_OK; turn++) {
    status = plain(path, data, to, n, &f);
    if (status == MN_OK) status = checked(path, data, to, n, &f);
  }
  unlink(path);
  free(data);
  free(to);
  if (status != MN_OK) {
    fprintf(stderr, "%s\n", mn_message());
    return 1;
  }
  double gb = (double)n * TENSOR / 1e9;
  printf("%d MiB in %d tensors\n", n * 8, n);
  printf("written with checksums: %.3f s (%.1f GB/s), without: %.3f s, ratio %.2f\n", f.write, gb / f.write, f.write_plain,
         f.write / f.write_plain);
  printf("read with checksums: %.3f s (%.1f GB/s), without: %.3f s, ratio %.2f\n", f.read, gb / f.read, f.read_plain,
         f.read / f.read_plain);
  return 0;
}
