/* index.h - the kernels of take and put, listed in move.c. */
#ifndef MN_CPU_INDEX_H
#define MN_CPU_INDEX_H

#include "backend/backend.h"

extern const mn_kernel mn_cpu_take, mn_cpu_put;

#endif
