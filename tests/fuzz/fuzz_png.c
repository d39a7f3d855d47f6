/* Any bytes as a picture: refused with a message, or every pixel is there. */
#include "format/png.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  for (int channels = 0; channels <= 3; channels += channels ? 2 : 1) {
    mn_png p;
    if (mn_png_parse("fuzz", data, size, channels, &p) != MN_OK) {
      if (p.data || !*mn_message()) abort();
      continue;
    }
    size_t n = (size_t)(p.width * p.height * p.channels), sum = 0;
    for (size_t i = 0; i < n; i++) sum += p.data[i];
    if (sum > 255 * n) abort();
    mn_png_free(&p);
  }
  return 0;
}
