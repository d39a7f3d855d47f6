/* groups.h - which parameters belong to which group of the recipe (private to src/train). */
#ifndef MN_GROUPS_H
#define MN_GROUPS_H

#include "base/text.h"
#include "train/optimizer.h"

/* group[params->n]: the first group that fits each, or NULL. */
mn_status mn_groups_assign(const mn_param_groups *groups, const mn_params *params, const mn_param_group **group);

#endif
