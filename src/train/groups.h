/* groups.h - which parameters belong to which group of the recipe (private to src/train). */
#ifndef MN_GROUPS_H
#define MN_GROUPS_H

#include "train/optimizer.h"

/* Does the name fit the pattern? * stands for any signs, also none and dots, ? for one. */
bool mn_name_matches(const char *pattern, const char *name);
/* group[params->n]: the first group that fits each, or NULL. */
mn_status mn_groups_assign(const mn_param_groups *groups, const mn_params *params, const mn_param_group **group);

#endif
