/* isa.c - which instruction set this machine runs, and which the user wants. */
#define _GNU_SOURCE
#include "backend/cpu/isa.h"

#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

static const char *const names[MN_ISA_LEVELS] = {"generic", "avx2", "avx512", "avx512_bf16", "amx"};

const char *mn_isa_name(mn_isa isa) { return names[isa]; }

#if defined(__x86_64__)
/* AMX needs the processor's word (leaf 7), the system's (XCR0 bits 17, 18: tile state is saved on a switch), and on
 * Linux a permission asked for once per process. */
static bool has_amx(void) {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  if (!(d & 1u << 22) || !(d & 1u << 24)) return false;                 /* AMX-BF16, AMX-TILE */
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 27)) return false; /* OSXSAVE */
  unsigned lo, hi;
  __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  if ((lo & 3u << 17) != 3u << 17) return false;
#if defined(__linux__)
  enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
  if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) != 0) return false;
#endif
  return true;
}
#endif

mn_isa mn_isa_best(void) {
#if defined(__x86_64__)
  __builtin_cpu_init(); /* the builtin also asks XCR0 whether the system saves the wide registers */
  unsigned a, b, c, d;
  bool lzcnt = __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & 1u << 5);
  bool movbe_f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & 1u << 22) && (c & 1u << 29);
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi") ||
      !__builtin_cpu_supports("bmi2") || !lzcnt || !movbe_f16c)
    return MN_ISA_LEVEL_GENERIC;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512cd") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
    return MN_ISA_LEVEL_AVX2;
  if (!__builtin_cpu_supports("avx512bf16") || !__builtin_cpu_supports("avx512vnni")) return MN_ISA_LEVEL_AVX512;
  return has_amx() ? MN_ISA_LEVEL_AMX : MN_ISA_LEVEL_AVX512_BF16;
#else
  return MN_ISA_LEVEL_GENERIC;
#endif
}

mn_status mn_isa_choose(mn_isa *out) {
  mn_isa best = mn_isa_best();
  const char *want = getenv("MNEME_CPU_ISA");
  *out = best;
  if (!want || !*want) return MN_OK;
  for (mn_isa i = 0; i < MN_ISA_LEVELS; i++) {
    if (strcmp(want, names[i])) continue;
    if (i > best)
      return mn_fail(MN_ERR_UNSUPPORTED, "MNEME_CPU_ISA=%s: this machine lacks that instruction set; the best it has is %s", want,
                     names[best]);
    *out = i;
    return MN_OK;
  }
  return mn_fail(MN_ERR_CONFIG, "MNEME_CPU_ISA=%s: unknown instruction set; expected generic, avx2, avx512, avx512_bf16 or amx", want);
}
