/* narrow.h - the table that every instruction set's isa/narrow.c exports: values in the types of caches (base/narrow.h), bit for bit. */
#ifndef MN_CPU_ISA_NARROW_H
#define MN_CPU_ISA_NARROW_H

#include "backend/cpu/isa.h"
#include "base/types.h"

typedef struct mn_narrow_vec {
  void (*narrow)(mn_dtype type, const float *from, int64_t n, void *to); /* mn_narrow */
  void (*widen)(mn_dtype type, const void *from, int64_t n, float *to);  /* mn_widen */
} mn_narrow_vec;

MN_ISA_DECLARE(mn_narrow_vec, mn_narrow_table);

#endif
