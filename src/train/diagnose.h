/* diagnose.h - where a training that has diverged went wrong: the failed step once more, with everything looked at in the order
 * in which it is computed. */
#ifndef MN_DIAGNOSE_H
#define MN_DIAGNOSE_H

#include "train/trainer_internal.h"

/* Adds to `out` which tensor was the first that is not finite (or, when all are, the first that is huge) in the step whose batches
 * the trainer still holds, and what its owner can do about it: "; first the state layers.0... : set grad_clamp: 1 ...". Adds what
 * holds for any training when nothing stands out. Never fails: a look that finds nothing is a look. */
void mn_diagnose(mn_trainer *t, mn_text *out);
/* What a graph that is looked at gives: everything, in the order in which it is computed (MN_STEP_LOOK). */
mn_status mn_diagnose_give(mn_trainer *t, mn_parts *parts);

#endif
