/* isa_set.h - which instruction sets a test of kernels goes through: the one that MNEME_CPU_ISA names, or, without it, all that the
 * machine has. A set that is unknown, or that the machine lacks, ends the test with a message: nothing else is tested in its name. */
#ifndef MN_ISA_SET_H
#define MN_ISA_SET_H

#include <stdio.h>
#include <stdlib.h>

#include "backend/cpu/isa.h"

static inline mn_isa last_tested_isa(void) {
  mn_isa isa;
  if (mn_isa_choose(&isa) == MN_OK) return isa;
  printf("FAILED: %s\n0 passed, 1 failed\n", mn_message());
  exit(1);
}
static inline mn_isa first_tested_isa(void) {
  const char *named = getenv("MNEME_CPU_ISA");
  return named && *named ? last_tested_isa() : MN_ISA_LEVEL_GENERIC;
}
#define EACH_ISA(isa) for (mn_isa isa = first_tested_isa(); isa <= last_tested_isa(); isa++)

#endif
