/* lm.h - what the rooms of the public interface know of a model's handle. */
#ifndef MN_API_LM_H
#define MN_API_LM_H

#include "checkpoint/bundle.h"
#include "run/program.h"

const mn_bundle *mn_lm_bundle(const mn_lm *lm);
/* The program that all its streams of f32 run, which do not forget; the handle's own. */
mn_status mn_lm_program(const mn_lm *lm, mn_program **out);

#endif
