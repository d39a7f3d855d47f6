/* permuted.c - pictures as sequences of single numbers: each becomes means of 2 x 2 pixels, in one random order that is the same for all, so
 * that what belongs together lies far apart (permuted sequential pictures, Le, Jaitly & Hinton 2015, arXiv 1504.00941).
 *
 *     bench-permuted PICTURES CLASSES N OUT
 *
 * PICTURES and CLASSES: IDX files, plain or compressed. Writes the first N of them (0: all) to OUT.images and OUT.labels. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "format/idx.h"

static void put_u32(uint8_t *p, int64_t v) {
  for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static mn_status write_idx(const char *path, int ndim, const int64_t *dim, const uint8_t *data) {
  size_t n = 1, head = 4 + 4 * (size_t)ndim;
  for (int i = 0; i < ndim; i++) n *= (size_t)dim[i];
  uint8_t *all = malloc(head + n);
  if (!all) return MN_ERR_MEMORY;
  put_u32(all, 0x0800 + ndim);
  for (int i = 0; i < ndim; i++) put_u32(all + 4 + 4 * i, dim[i]);
  memcpy(all + head, data, n);
  mn_status status = mn_file_write(path, (char *)all, head + n);
  free(all);
  return status;
}

int main(int argc, char **argv) {
  mn_idx x = {0}, c = {0};
  if (argc != 5) {
    fprintf(stderr, "usage: bench-permuted PICTURES CLASSES N OUT\n");
    return 2;
  }
  mn_status status = mn_idx_read(argv[1], &x);
  if (status == MN_OK) status = mn_idx_read(argv[2], &c);
  if (status == MN_OK && (x.ndim != 3 || c.ndim != 1 || c.dim[0] != x.dim[0] || x.dim[1] < 2 || x.dim[2] < 2))
    status = mn_fail(MN_ERR_FORMAT, "%s and %s are no grey pictures and their classes", argv[1], argv[2]);
  const int64_t given = atoll(argv[3]), H = status == MN_OK ? x.dim[1] / 2 : 0, W = status == MN_OK ? x.dim[2] / 2 : 0, P = H * W;
  const int64_t N = status != MN_OK ? 0 : given > 0 && given < x.dim[0] ? given : x.dim[0];
  int64_t *order = malloc((size_t)(P + 1) * sizeof *order);
  uint8_t *out = malloc((size_t)(N * P + 1));
  if (status == MN_OK && (!order || !out)) status = MN_ERR_MEMORY;
  for (int64_t i = 0; status == MN_OK && i < P; i++) { /* inside out */
    const int64_t k = (int64_t)(mn_random_uniform(1, 0, (uint64_t)i) * (double)(i + 1));
    if (k < i) order[i] = order[k];
    order[k] = i;
  }
  for (int64_t n = 0; status == MN_OK && n < N; n++)
    for (int64_t i = 0; i < P; i++) {
      const uint8_t *p = x.data + (n * x.dim[1] + order[i] / W * 2) * x.dim[2] + order[i] % W * 2;
      out[n * P + i] = (uint8_t)((p[0] + p[1] + p[x.dim[2]] + p[x.dim[2] + 1] + 2) / 4);
    }
  char path[4096];
  snprintf(path, sizeof path, "%s.images", argv[4]);
  if (status == MN_OK) status = write_idx(path, 3, (const int64_t[]){N, P, 1}, out);
  snprintf(path, sizeof path, "%s.labels", argv[4]);
  if (status == MN_OK) status = write_idx(path, 1, &N, c.data);
  if (status != MN_OK) fprintf(stderr, "bench-permuted: %s\n", mn_message());
  free(order);
  free(out);
  mn_idx_free(&x);
  mn_idx_free(&c);
  return status != MN_OK;
}
