/* unit_arg.c - see unit_arg.h. */
#include "cli/unit_arg.h"

#include "base/file.h"
#include "format/json.h"
#include "format/yaml.h"
#include "train/recipe.h"

#include <stdlib.h>

static mn_status read_tree(const mn_cli *cli, mn_arena *arena, const mn_value **root) {
  const char *path = cli->args[0];
  mn_file_info info;
  MN_TRY(mn_file_stat(path, &info));
  if (!info.is_dir) {
    MN_TRY(mn_yaml_read(arena, path, root));
  } else {
    char *config = mn_path_join(path, "config.json");
    mn_status status = config ? mn_json_read(arena, config, root) : MN_ERR_MEMORY;
    free(config);
    MN_TRY(status);
  }
  for (int i = 0; i < cli->n_set; i++) MN_TRY(mn_value_set(arena, *root, cli->set[i], root));
  return MN_OK;
}

/* A mixer's or a block's keys are checked where they are read; a model may stand in a whole training recipe. */
mn_status mn_cli_unit(const mn_cli *cli, mn_arena *arena, int64_t vocab_size, mn_unit *out) {
  const mn_value *root;
  MN_TRY(read_tree(cli, arena, &root));
  bool part = mn_value_get(root, "mixer") || mn_value_get(root, "block");
  if (mn_value_get(root, "model") && !part) MN_TRY(mn_recipe_check(root));
  else if (!part) { /* none of the three: perhaps one of them is misspelt */
    const mn_config_part known[] = {{mn_recipe_fields, NULL}, {mn_unit_fields, NULL}};
    MN_TRY(mn_config_parse(arena, root, NULL, known, 2));
  }
  return mn_unit_parse(arena, root, vocab_size, out);
}
