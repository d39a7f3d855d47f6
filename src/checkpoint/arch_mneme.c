/* arch_mneme.c - models of Mneme's own, of any kind and with any memory, in a GGUF file: what config.json says is one text among the
 * metadata, and tensors have the parameters' names. Such files are made by mneme convert; no other program knows the architecture. */
#include "checkpoint/arch.h"
#include "format/json.h"

#include <string.h>

static mn_status recipe(mn_settings *s, const mn_value **out) {
  const mn_value *config = mn_setting(s, NULL, "config.json"), *root = NULL;
  if (!config || config->kind != MN_TEXT) return mn_fail(MN_ERR_FORMAT, "%s: mneme.config.json is missing, or no text", s->file);
  const char *where = mn_arena_format(s->arena, "%s: mneme.config.json", s->file);
  if (!where) return MN_ERR_MEMORY;
  MN_TRY(mn_json_parse(s->arena, where, config->as.text, strlen(config->as.text), &root));
  *out = mn_value_get(root, "model");
  return *out ? MN_OK : mn_fail(MN_ERR_FORMAT, "%s has no model", where);
}

static const mn_arch_tensor tensors[] = {{"*", NULL, "*", 0, 0}, {0}};

const mn_arch_def mn_arch_mneme = {
    .name = "mneme",
    .summary = "models that Mneme trained, of any kind, in a GGUF file",
    .types = "",
    .gguf = "mneme",
    .recipe = recipe,
    .tensors = tensors,
};
