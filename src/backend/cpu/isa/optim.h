/* optim.h - optimiser steps over a run of elements: the table that every instruction set's isa/optim.c exports. */
#ifndef MN_CPU_ISA_OPTIM_H
#define MN_CPU_ISA_OPTIM_H

#include "backend/cpu/isa.h"

typedef struct mn_adamw_scalars {
  float learning_rate, correction1, correction2, grad_scale, weight_decay;
  float beta1, beta2, rest1, rest2, eps; /* rest: 1 - beta, which f32 could not form from beta */
} mn_adamw_scalars;

typedef struct mn_optim_vec {
  /* p1, m1, v1 from p, g, m, v; each may be its input. g is f32 or bf16. */
  void (*adamw[2])(float *p1, float *m1, float *v1, const float *p, const void *g, const float *m, const float *v, int64_t n,
                   const mn_adamw_scalars *s);
} mn_optim_vec;

MN_ISA_DECLARE(mn_optim_vec, mn_optim_table);

#endif
