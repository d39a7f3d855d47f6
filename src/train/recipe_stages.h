/* recipe_stages.h - the recipe's key `stages`: one training after the other on the same weights (private to src/train). */
#ifndef MN_RECIPE_STAGES_H
#define MN_RECIPE_STAGES_H

#include "train/recipe.h"

/* Reads the list into r->stages: each is the whole recipe with its own `train`, `data` and `objective` in place of the shared ones
 * (train key by key, the others whole). r->train.steps becomes the sum. */
mn_status mn_stages_parse(mn_recipe *r, const mn_value *root, const mn_value *list);
/* The stage in which update number `step` (from 1) is made; 0 for step 0. */
int mn_stage_of(const mn_recipe *r, int64_t step);

#endif
