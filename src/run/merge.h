/* merge.h - a model whose projections are made by linear policies (LoRA, low_rank ...), and the same function with one plain matrix for
 * each: what is adapted beside a matrix becomes part of it. */
#ifndef MN_RUN_MERGE_H
#define MN_RUN_MERGE_H

#include "model/params.h"

/* A model without linear policies, and its parameters in memory of their own; *merged: how many matrices policies made before. What a
 * policy makes is asked of the policy itself: the matrix is what comes out for the identity. MN_ERR_CONFIG: there is no policy. `model`
 * has its parameters in p. */
mn_status mn_merge_linear(const mn_model *model, const mn_params *p, mn_model **out, mn_params **params, int *merged);

#endif
