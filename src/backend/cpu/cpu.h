/* cpu.h - the CPU backend inside: what its kernel files share. */
#ifndef MN_CPU_H
#define MN_CPU_H

#include "backend/backend.h"
#include "backend/cpu/isa.h"

/* Each file src/backend/cpu/<x>.c of kernels exports
 *     const mn_kernel *const *mn_cpu_<x>_kernels(mn_isa isa, int *n);
 * a static array of *n kernels, in the order in which they are to be asked. cpu.c joins those of all files; CMake
 * writes the list of the files that exist. */
#define X(x) const mn_kernel *const *mn_cpu_##x##_kernels(mn_isa isa, int *n);
#include "cpu_kernels.inc"
#undef X

typedef struct mn_cpu { /* what backend->impl points to */
  mn_backend backend;
  mn_isa isa;
  const mn_kernel **kernels;
} mn_cpu;

/* The instruction set that a kernel of the CPU backend must use: mn_cpu_isa(call->backend). */
static inline mn_isa mn_cpu_isa(const mn_backend *b) { return ((const mn_cpu *)b->impl)->isa; }

#endif
