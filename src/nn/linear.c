/* linear.c - finding and choosing linear policies. */
#include "nn/linear.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

typedef struct rule_keys {
  const char *match, *type;
} rule_keys;
static const mn_field rule_fields[] = {MN_FIELD_STRING_REQUIRED(rule_keys, match, "which projections: a name, * for any signs, ? for one"),
                                       MN_FIELD_STRING_REQUIRED(rule_keys, type, "how they are made"), MN_FIELD_END};
static const mn_field no_fields[] = {MN_FIELD_END};

static const char *name_at(int i) { return mn_linear_at(i)->name; }

static mn_status find(const mn_value *map, const mn_linear_def **out) {
  const mn_value *type = mn_value_get(map, "type");
  int i;
  if (!type) MN_TRY(mn_config_misspelt(map, "type"));
  if (!type || type->kind != MN_TEXT) return mn_config_fail(map, NULL, "type", "must name a linear policy, e.g. type: lora");
  MN_TRY(mn_config_choose(type, "linear policy", type->as.text, mn_linear_count(), name_at, &i));
  *out = mn_linear_at(i);
  return MN_OK;
}

static mn_status parse_rule(mn_arena *arena, const mn_value *map, mn_linear_rule *out) {
  rule_keys keys = {0};
  MN_TRY(find(map, &out->def));
  const mn_field *own = out->def->fields ? out->def->fields : no_fields;
  if (!(out->config = mn_arena_alloc(arena, out->def->config_size + 1))) return MN_ERR_MEMORY;
  mn_config_defaults(own, out->config);
  const mn_config_part parts[] = {{rule_fields, &keys}, {own, out->config}};
  MN_TRY(mn_config_parse(arena, map, NULL, parts, 2));
  out->match = keys.match;
  out->at = map;
  return out->def->check ? out->def->check(map, NULL, out->config) : MN_OK;
}

mn_status mn_linear_rules_parse(mn_arena *arena, const mn_value *list, const char *where, mn_linear_rules *out) {
  *out = (mn_linear_rules){0};
  if (!list) return MN_OK;
  if (list->kind != MN_LIST)
    return mn_value_fail(list, "%s%slinear must be a list of policies such as {match: \"*.q_proj\", type: lora, rank: 8}",
                         where ? where : "", where && *where ? "." : "");
  out->list = mn_arena_alloc(arena, (list->count + 1) * sizeof *out->list);
  if (!out->list) return MN_ERR_MEMORY;
  for (size_t i = 0; i < list->count; i++) {
    const mn_value *map;
    MN_TRY(mn_value_map_in(list, i, "{match: \"*.q_proj\", type: lora, rank: 8}", &map));
    MN_TRY(parse_rule(arena, map, &out->list[out->n++]));
  }
  return MN_OK;
}

const mn_value *mn_linear_rules_to_value(mn_arena *arena, const mn_linear_rules *rules) {
  const mn_value **items = rules->n ? mn_arena_alloc(arena, (size_t)rules->n * sizeof *items) : NULL;
  for (int i = 0; items && i < rules->n; i++) {
    const mn_linear_rule *r = &rules->list[i];
    rule_keys keys = {r->match, r->def->name};
    const mn_config_part parts[] = {{rule_fields, &keys}, {r->def->fields ? r->def->fields : no_fields, r->config}};
    if (!(items[i] = mn_config_to_value(arena, parts, 2))) return NULL;
  }
  return items ? mn_value_list(arena, (size_t)rules->n, items) : NULL;
}

const mn_linear_rule *mn_linear_rule_of(const mn_scope *s, const char *name) {
  const mn_linear_rules *rules = mn_scope_linear(s);
  char full[512];
  if (!rules || !rules->n) return NULL;
  snprintf(full, sizeof full, "%s%s", mn_scope_path(s), name);
  for (int i = 0; i < rules->n; i++)
    if (mn_name_matches(rules->list[i].match, full)) return rules->list[i].def->apply ? &rules->list[i] : NULL;
  return NULL;
}

/* "layers.0.mixer.q_proj" of its ".weight", ".lora_a.weight" ...: some prefix of the parameter's name that ends at a dot. */
static bool fits(const char *match, const char *param) {
  char name[512];
  snprintf(name, sizeof name, "%s", param);
  for (char *dot = strrchr(name, '.'); dot; dot = strrchr(name, '.')) {
    *dot = 0;
    if (mn_name_matches(match, name)) return true;
  }
  return false;
}

mn_status mn_linear_rules_check(const mn_linear_rules *rules, int n, const mn_param_info *params) {
  for (int k = 0; k < rules->n; k++) {
    int found = 0;
    for (int i = 0; i < n && !found; i++) found = (params[i].flags & MN_PARAM_MATRIX) && fits(rules->list[k].match, params[i].name);
    if (found) continue;
    mn_text names = {0};
    for (int i = 0, shown = 0; i < n && shown < 4; i++) {
      const char *end = strrchr(params[i].name, '.');
      if (!(params[i].flags & MN_PARAM_MATRIX) || !end || strcmp(end, ".weight") != 0) continue;
      mn_text_addf(&names, "%s%.*s", shown++ ? ", " : "", (int)(end - params[i].name), params[i].name);
    }
    mn_status status = mn_fail(MN_ERR_CONFIG, "model.linear: '%s' fits no projection of the model; there are %s ...", rules->list[k].match,
                               names.data ? names.data : "none");
    mn_text_free(&names);
    return status;
  }
  return MN_OK;
}
