/* peak.h - loops that keep the multiply-add units busy and do nothing else: the arithmetic limit that speeds are judged
 * against. */
#ifndef MN_ISA_PEAK_H
#define MN_ISA_PEAK_H

#include "backend/cpu/isa.h"

typedef struct mn_peak { /* each runs `rounds` rounds, returns the operations done (multiply-add counts 2) */
  double (*f32)(int64_t rounds);
  double (*bf16)(int64_t rounds); /* by dot products of bf16 where the set has them, else in f32 */
} mn_peak;

MN_ISA_DECLARE(mn_peak, mn_peak_table);

#endif
