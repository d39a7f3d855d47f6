/* groups.c - train.groups: what holds for parameters whose names fit a pattern. */
#include "train/groups.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/nearest.h"

static const char *const optimizers[] = {"same", "adamw", "muon", NULL};
#define S mn_param_group
const mn_field mn_group_fields[] = {
    MN_FIELD_STRING_REQUIRED(S, match, "names of parameters: * stands for any signs, ? for one, as in layers.*.mixer.*"),
    MN_FIELD_FLOAT(S, lr, -1, -1, 100, "learning rate after the warm-up; below 0: the optimizer's"),
    MN_FIELD_FLOAT(S, weight_decay, -1, -1, 10, "of what decays at all; below 0: the optimizer's"),
    MN_FIELD_ENUM(S, optimizer, optimizers, 0, "same: as the others; muon moves hidden matrices only"),
    MN_FIELD_BOOL(S, frozen, false, "they stay as they are: no gradient, no moment, no decay"),
    MN_FIELD_END};
#undef S

mn_status mn_groups_parse(mn_arena *arena, const mn_value *v, const char *where, const mn_optimizer_config *c, mn_param_groups *out) {
  *out = (mn_param_groups){0};
  if (!v || v->kind == MN_NULL) return MN_OK;
  if (v->kind != MN_LIST) return mn_value_fail(v, "%s must be a list of groups such as {match: \"layers.0.*\", frozen: true}", where);
  out->list = mn_arena_alloc(arena, (v->count + 1) * sizeof *out->list);
  if (!out->list) return MN_ERR_MEMORY;
  for (size_t i = 0; i < v->count; i++) {
    static const char *const moves[] = {"lr", "weight_decay", "optimizer"};
    const mn_value *map;
    MN_TRY(mn_value_map_in(v, i, "{match: \"layers.0.*\", frozen: true}", &map));
    mn_param_group *group = &out->list[out->n++];
    MN_TRY(mn_config_read(arena, map, NULL, mn_group_fields, group));
    group->at = map;
    for (size_t k = 0; k < sizeof moves / sizeof *moves && group->frozen; k++)
      if (mn_config_given(map, moves[k])) return mn_config_fail(map, NULL, moves[k], "has no effect on what is frozen; leave it out");
    if (group->lr >= 0 && c->lr <= 0)
      return mn_config_fail(map, NULL, "lr", "is a part of train.optimizer.lr, which is 0; give that a value");
  }
  return MN_OK;
}

const mn_value *mn_groups_to_value(mn_arena *arena, const mn_param_groups *groups) {
  const mn_value **items = mn_arena_alloc(arena, ((size_t)groups->n + 1) * sizeof *items);
  for (int i = 0; items && i < groups->n; i++) {
    const mn_config_part part = {mn_group_fields, &groups->list[i]};
    if (!(items[i] = mn_config_to_value(arena, &part, 1))) return NULL;
  }
  return items ? mn_value_list(arena, (size_t)groups->n, items) : NULL;
}

/* The names that are most like the pattern, stars aside. */
static mn_status fits_nothing(const mn_param_group *group, const mn_param_info *info, int count) {
  const char **names = mn_alloc((size_t)(count + 1) * sizeof *names);
  char *plain = mn_strdup(group->match), *w = plain;
  mn_text near = {0};
  if (!names || !plain) {
    free(names);
    free(plain);
    return MN_ERR_MEMORY;
  }
  for (const char *p = group->match; *p; p++)
    if (*p != '*' && *p != '?') *w++ = *p;
  *w = 0;
  int n = count;
  for (int i = 0; i < n; i++) names[i] = info[i].name;
  for (int found = 0; found < 3 && n > 0; found++) {
    const char *one = mn_nearest(plain, names, n);
    if (!one && found == 0) one = names[0]; /* nothing is like it: show what names look like */
    if (!one) break;
    mn_text_addf(&near, "%s%s", found ? ", " : "", one);
    for (int i = 0; i < n; i++)
      if (names[i] == one) {
        names[i] = names[--n];
        break;
      }
  }
  mn_status status = mn_value_fail(group->at, "train.groups: '%s' fits no parameter of the model; there are %d, such as %s", group->match,
                                   count, near.data ? near.data : "none");
  mn_text_free(&near);
  free(names);
  free(plain);
  return status;
}

mn_status mn_groups_assign(const mn_param_groups *groups, const mn_param_info *info, int n, const mn_param_group **group) {
  for (int k = 0; groups && k < groups->n; k++) {
    const mn_param_group *g = &groups->list[k], *taken_by = NULL;
    int fits = 0, taken = 0;
    for (int i = 0; i < n; i++) {
      if (!mn_name_matches(g->match, info[i].name)) continue;
      fits++;
      if (!group[i]) group[i] = g;
      else taken++, taken_by = group[i];
    }
    if (!fits) return fits_nothing(g, info, n);
    if (fits == taken)
      return mn_value_fail(g->at, "train.groups: all that '%s' fits belongs to the group '%s' before it: put the narrower one first",
                           g->match, taken_by->match);
  }
  return MN_OK;
}
