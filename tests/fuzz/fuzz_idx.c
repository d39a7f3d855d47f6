/* Any bytes as an IDX array, plain or packed: refused with a message, or all of its data is there. */
#include "format/idx.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  mn_idx x;
  if (mn_idx_parse("fuzz", data, size, &x) != MN_OK) {
    if (x.data || !*mn_message()) abort();
    return 0;
  }
  size_t n = 1, sum = 0;
  for (int i = 0; i < x.ndim; i++) n *= (size_t)x.dim[i];
  for (size_t i = 0; i < n; i++) sum += x.data[i];
  if (n / 1100 > size || sum > 255 * n) abort();
  mn_idx_free(&x);
  return 0;
}
