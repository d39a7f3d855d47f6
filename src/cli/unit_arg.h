/* unit_arg.h - the recipe argument of `mneme apply` and `mneme inspect`: one mixer, one block, or a model. */
#ifndef MN_UNIT_ARG_H
#define MN_UNIT_ARG_H

#include "cli/cli.h"
#include "model/unit.h"

/* Reads the first word of the command line (a recipe, or a model's directory) with every --set. All keys are checked,
 * those that the verb does not use, too. vocab_size: as for mn_unit_parse. */
mn_status mn_cli_unit(const mn_cli *cli, mn_arena *arena, int64_t vocab_size, mn_unit *out);
/* Do the patterns of the recipe's train.groups fit parameters info[n] of that unit? (mn_recipe_check_groups) */
mn_status mn_cli_unit_groups(const mn_cli *cli, mn_arena *arena, const mn_param_info *info, int n);

#endif
