/* has_isa.c - `has-isa` prints the instruction sets that this machine has, one a line, the best last; `has-isa SET` exits with 0
 * where it has that one, with 77 (ctest: skipped) and a line that says so where it lacks it, with 1 where there is no such set. */
#include <stdio.h>
#include <stdlib.h>

#include "backend/cpu/isa.h"

int main(int argc, char **argv) {
  mn_isa isa;
  if (argc < 2) {
    for (isa = 0; isa <= mn_isa_best(); isa++) printf("%s\n", mn_isa_name(isa));
    return 0;
  }
  setenv("MNEME_CPU_ISA", argv[1], 1);
  const mn_status status = mn_isa_choose(&isa);
  if (status != MN_OK) printf("%s\n", mn_message());
  return status == MN_OK ? 0 : status == MN_ERR_UNSUPPORTED ? 77 : 1;
}
