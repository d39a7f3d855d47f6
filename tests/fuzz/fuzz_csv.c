/* Any bytes as a table: refused with a message, or every cell can be looked at. */
#include "format/csv.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  for (int header = 0; header < 2; header++) {
    mn_csv *c;
    if (mn_csv_parse("fuzz", (const char *)data, size, header, &c) != MN_OK) {
      if (c || !*mn_message()) abort();
      continue;
    }
    size_t bytes = 0;
    double v;
    for (int64_t r = 0; r < mn_csv_rows(c); r++)
      for (int k = 0; k < mn_csv_columns(c); k++) {
        bytes += strlen(mn_csv_text(c, r, k));
        if ((mn_csv_number(c, r, k, &v) == MN_OK) != mn_csv_is_number(c, r, k)) abort();
      }
    if (bytes > size || mn_csv_rows(c) < 1) abort();
    mn_csv_free(c);
  }
  return 0;
}
