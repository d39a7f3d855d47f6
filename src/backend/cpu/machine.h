/* machine.h - what this machine allows, measured: the ceilings that speeds are reported against. */
#ifndef MN_CPU_MACHINE_H
#define MN_CPU_MACHINE_H

#include "backend/backend.h"
#include "backend/cpu/isa.h"

/* Multiply-add rate on all threads of the pool in 1e9 operations per second, best of several trials of a few
 * milliseconds. bf16: of dot products of bf16, AMX tiles included, as `isa` has them. */
double mn_machine_peak(mn_pool *pool, mn_isa isa, bool bf16);
/* Rate of reading a block much larger than the caches, in 1e9 bytes per second; 0 when memory is short (message set).
 */
double mn_machine_bandwidth(mn_pool *pool);

#endif
