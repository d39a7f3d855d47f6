/* Any bytes as YAML, as JSON and as a --set: refused with a message, or a tree that survives being written as JSON. */
#include "format/json.h"
#include "format/yaml.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_tree(mn_arena *arena, const mn_value *v) {
  mn_text text = {0};
  if (mn_value_to_json(v, 2, &text) == MN_OK) { /* infinities have no JSON */
    const mn_value *back;
    if (mn_json_parse(arena, "again", text.data, text.len, &back) != MN_OK || !mn_value_equal(v, back)) abort();
  }
  mn_text_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  mn_arena *arena = mn_arena_new();
  const mn_value *yaml, *json, *changed;
  if (mn_yaml_parse(arena, "fuzz", (const char *)data, size, &yaml) == MN_OK) check_tree(arena, yaml);
  else if (yaml || !*mn_message()) abort();
  if (mn_json_parse(arena, "fuzz", (const char *)data, size, &json) == MN_OK) check_tree(arena, json);
  else if (json) abort();
  char *assignment = malloc(size + 1);
  if (assignment) {
    memcpy(assignment, data, size);
    assignment[size] = 0;
    if (mn_value_set(arena, yaml, assignment, &changed) == MN_OK) check_tree(arena, changed);
    else if (changed) abort();
  }
  free(assignment);
  mn_arena_free(arena);
  return 0;
}
