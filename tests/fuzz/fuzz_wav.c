/* Any bytes as a sound: refused with a message, or every sample is a number. */
#include "format/wav.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  mn_wav w;
  if (mn_wav_parse("fuzz", data, size, &w) != MN_OK) {
    if (w.samples || !*mn_message()) abort();
    return 0;
  }
  if (w.n < 1 || (size_t)w.n > size || w.rate < 1) abort();
  for (int64_t i = 0; i < w.n; i++)
    if (!isfinite(w.samples[i])) abort();
  mn_wav_free(&w);
  return 0;
}
