/* unit_arg.c - see unit_arg.h. */
#include "cli/unit_arg.h"

#include "base/file.h"
#include "format/json.h"
#include "format/yaml.h"
#include "model/origin.h"
#include "train/recipe.h"

#include <stdlib.h>

/* The model of DIR/config.json, which must be that of the weights beside it. */
static mn_status read_config(const char *dir, mn_arena *arena, const mn_value **root) {
  char *config = mn_path_join(dir, "config.json"), *weights = mn_path_join(dir, "model.safetensors");
  bool sealed = false;
  mn_st *st = NULL;
  mn_status status = config && weights ? mn_model_read_config(arena, config, root, &sealed) : MN_ERR_MEMORY;
  if (status == MN_OK && mn_file_exists(weights)) status = mn_st_open(weights, &st);
  if (status == MN_OK && st) {
    mn_origin origin;
    mn_origin_read(st, &origin);
    status = mn_origin_check_config(&origin, weights, config, *root, sealed);
  }
  const mn_value *model = status == MN_OK ? mn_value_get(*root, "model") : NULL;
  if (model && !(*root = mn_value_map(arena, 1, (const char *const[]){"model"}, &model))) status = MN_ERR_MEMORY;
  mn_st_close(st);
  free(config);
  free(weights);
  return status;
}

static mn_status read_tree(const mn_cli *cli, mn_arena *arena, const mn_value **root) {
  const char *path = cli->args[0];
  mn_file_info info;
  MN_TRY(mn_file_stat(path, &info));
  MN_TRY(info.is_dir ? read_config(path, arena, root) : mn_yaml_read(arena, path, root));
  for (int i = 0; i < cli->n_set; i++) MN_TRY(mn_value_set(arena, *root, cli->set[i], root));
  return MN_OK;
}

/* The vocabulary is that of a directory's configuration, what a recipe's training would have, what the model says itself, or else `usual`. */
static mn_status parse_model(const mn_cli *cli, mn_arena *arena, const mn_value *root, int64_t usual, mn_unit *out) {
  mn_file_info info;
  int64_t known = 0;
  MN_TRY(mn_file_stat(cli->args[0], &info));
  if (!info.is_dir) MN_TRY(mn_recipe_vocabulary(root, &known));
  if (known || !usual) return mn_unit_parse(arena, root, known, out);
  return mn_unit_parse(arena, root, 0, out) == MN_OK ? MN_OK : mn_unit_parse(arena, root, usual, out);
}

mn_status mn_cli_unit_groups(const mn_cli *cli, mn_arena *arena, const mn_param_info *info, int n) {
  const mn_value *root;
  MN_TRY(read_tree(cli, arena, &root));
  return mn_value_get(root, "train") ? mn_recipe_check_groups(root, info, n) : MN_OK;
}

/* A mixer's or a block's keys are checked where they are read; a model may stand in a whole training recipe. */
mn_status mn_cli_unit(const mn_cli *cli, mn_arena *arena, int64_t vocab_size, mn_unit *out) {
  const mn_value *root;
  MN_TRY(read_tree(cli, arena, &root));
  bool part = mn_value_get(root, "mixer") || mn_value_get(root, "block");
  if (mn_value_get(root, "model") && !part) {
    MN_TRY(mn_recipe_check(root));
    return parse_model(cli, arena, root, vocab_size, out);
  }
  if (!part) { /* none of the three: perhaps one of them is misspelt */
    const mn_config_part known[] = {{mn_recipe_fields, NULL}, {mn_unit_fields, NULL}};
    MN_TRY(mn_config_parse(arena, root, NULL, known, 2));
  }
  return mn_unit_parse(arena, root, vocab_size, out);
}
