/* groups.h - which parameters belong to which group of the recipe (private to src/train). */
#ifndef MN_GROUPS_H
#define MN_GROUPS_H

#include "base/text.h"
#include "train/optimizer.h"

/* group[n]: of each parameter info[n] the first group that fits, or NULL; all NULL before. MN_ERR_CONFIG by name for a group that fits
 * none, or none that is left. */
mn_status mn_groups_assign(const mn_param_groups *groups, const mn_param_info *info, int n, const mn_param_group **group);

#endif
