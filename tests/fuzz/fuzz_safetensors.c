/* Any bytes as a safetensors file: refused, or every tensor lies inside the file and can be read and looked up. */
#include "format/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  mn_st *st;
  if (mn_st_open_bytes("fuzz", data, size, &st) != MN_OK) {
    if (st || !*mn_message()) abort();
    return 0;
  }
  size_t covered = 0;
  for (int i = 0; i < mn_st_count(st); i++) {
    const mn_st_tensor *t = mn_st_at(st, i);
    const uint8_t *p = t->data;
    if (p < data + 8 || p > data + size || t->bytes > (size_t)(data + size - p)) abort();
    if (mn_st_find(st, t->name) != t) abort();
    covered += t->bytes;
    size_t count = 1;
    for (int d = 0; d < t->shape.ndim; d++) count *= (size_t)t->shape.dim[d];
    void *copy = malloc(count * 8 + 1); /* exactly the widest type's size and a byte for empty tensors */
    for (mn_dtype as = 0; copy && as < MN_DTYPES; as++) (void)mn_st_read(st, t, as, copy);
    free(copy);
  }
  if (covered > size) abort();
  for (int i = 0; i < mn_st_meta_count(st); i++)
    if (mn_st_meta(st, mn_st_meta_key(st, i)) != mn_st_meta_value(st, i)) abort();
  mn_st_close(st);
  return 0;
}
