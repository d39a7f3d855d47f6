/* isa.h - instruction sets: how one vector source becomes one table of functions per set, and how the set is chosen at
 * run time.
 *
 * A file src/backend/cpu/isa/<y>.c is compiled once per set, with MN_ISA=<set> and MN_ISA_<set>=1, and exports one
 * constant table of function pointers:
 *
 *     in isa/<y>.h:   typedef struct mn_y { void (*f)(...); } mn_y;
 *                     MN_ISA_DECLARE(mn_y, mn_y_table);
 *     in isa/<y>.c:   static void f(...) { ... }
 *                     const mn_y MN_ISA_NAME(mn_y_table) = {f};
 *     in <x>.c:       const mn_y *y = MN_ISA_PICK(mn_y_table, isa);
 *
 * Everything else in such a file is static, so that no two sets share a symbol. */
#ifndef MN_CPU_ISA_H
#define MN_CPU_ISA_H

#include "base/base.h"

typedef enum mn_isa {                           /* each includes the ones before it */
                      MN_ISA_LEVEL_GENERIC,     /* plain vectors of 128 bits (x86-64-v2), or not x86 at all */
                      MN_ISA_LEVEL_AVX2,        /* x86-64-v3: AVX2, FMA, F16C                               */
                      MN_ISA_LEVEL_AVX512,      /* x86-64-v4: AVX-512 F, BW, CD, DQ, VL                     */
                      MN_ISA_LEVEL_AVX512_BF16, /* and AVX-512 BF16 and VNNI                                */
                      MN_ISA_LEVEL_AMX,         /* and AMX-TILE, AMX-BF16; vector code is that of AVX512_BF16 */
                      MN_ISA_LEVELS
} mn_isa;

#define MN_ISA_GLUE2(a, b) a##_##b
#define MN_ISA_GLUE(a, b)  MN_ISA_GLUE2(a, b)
#ifdef MN_ISA /* inside src/backend/cpu/isa/ */
#define MN_ISA_NAME(f) MN_ISA_GLUE(f, MN_ISA)
#endif

#if defined(__x86_64__)
#define MN_ISA_DECLARE(type, table) extern const type table##_generic, table##_avx2, table##_avx512, table##_avx512_bf16
#define MN_ISA_PICK(table, isa)                                                                                                            \
  ((isa) >= MN_ISA_LEVEL_AVX512_BF16 ? &table##_avx512_bf16                                                                                \
   : (isa) == MN_ISA_LEVEL_AVX512    ? &table##_avx512                                                                                     \
   : (isa) == MN_ISA_LEVEL_AVX2      ? &table##_avx2                                                                                       \
                                     : &table##_generic)
#else
#define MN_ISA_DECLARE(type, table) extern const type table##_generic
#define MN_ISA_PICK(table, isa)     ((void)(isa), &table##_generic)
#endif

const char *mn_isa_name(mn_isa isa); /* "avx512_bf16" ... */
mn_isa mn_isa_best(void);            /* the best that this processor and operating system run */
/* The set named by MNEME_CPU_ISA, or the best; fails when the name is unknown or the machine lacks it. */
mn_status mn_isa_choose(mn_isa *out);

#endif
