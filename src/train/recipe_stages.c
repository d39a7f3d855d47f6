/* recipe_stages.c - see recipe_stages.h. */
#include "train/recipe_stages.h"

#include <string.h>

#include "base/dir.h"

typedef struct stage_keys {
  const char *name;
  int64_t steps;
  const mn_value *train, *data, *objective;
} stage_keys;
#define S stage_keys
const mn_field mn_stage_fields[] = {
    MN_FIELD_STRING(S, name, NULL, "what the stage is called; none: its number"),
    MN_FIELD_INT_REQUIRED(S, steps, 1, 1000000000000, "updates of the parameters in this stage"),
    MN_FIELD_VALUE(S, train, "keys of `train` that are others in this stage: {optimizer: {lr: 1e-4}, groups: [...]}"),
    MN_FIELD_VALUE(S, data, "in place of the recipe's `data`"),
    MN_FIELD_VALUE(S, objective, "in place of the recipe's `objective`"),
    MN_FIELD_END};
#undef S

/* What a stage may change in `train`: not how the run is kept. */
static mn_status check_train_keys(const mn_value *train) {
  static const char *const of_run[] = {"steps", "threads", "checkpoint_every", "checkpoint_minutes", "keep_last", "log_every", "from"};
  if (!train) return MN_OK;
  if (train->kind != MN_MAP) return mn_value_fail(train, "stages: train must be a map of keys that differ in this stage");
  for (size_t i = 0; i < sizeof of_run / sizeof *of_run; i++) {
    const mn_value *v = mn_value_get(train, of_run[i]);
    if (v && v->kind != MN_NULL)
      return mn_value_fail(v, "stages: train.%s is the run's, not a stage's%s", of_run[i], i ? "" : "; a stage has steps of its own");
  }
  return MN_OK;
}

enum { MOST = 64 };

/* A map with the entries and the place of `like`. */
static const mn_value *map_like(mn_arena *arena, const mn_value *like, const mn_entry *entries, size_t n) {
  mn_value *map = mn_arena_alloc(arena, sizeof *map);
  if (!map) return NULL;
  *map = *like;
  map->kind = MN_MAP;
  map->as.entries = entries;
  map->count = n;
  return map;
}

/* `over` in place of what `base` says; of two maps, key by key. */
static const mn_value *merged(mn_arena *arena, const mn_value *base, const mn_value *over) {
  if (!over || over->kind == MN_NULL) return base;
  if (!base || base->kind != MN_MAP || over->kind != MN_MAP) return over;
  mn_entry *entries = mn_arena_alloc(arena, (base->count + over->count + 1) * sizeof *entries);
  size_t n = 0;
  for (size_t i = 0; entries && i < base->count; i++) {
    const mn_value *own = mn_value_get(over, base->as.entries[i].key);
    entries[n] = base->as.entries[i];
    if (own && !(entries[n].value = merged(arena, entries[n].value, own))) return NULL;
    n++;
  }
  for (size_t i = 0; entries && i < over->count; i++)
    if (!mn_value_get(base, over->as.entries[i].key)) entries[n++] = over->as.entries[i];
  return entries ? map_like(arena, over, entries, n) : NULL;
}

/* The recipe of one stage as a tree. */
static const mn_value *tree_of(mn_arena *arena, const mn_value *root, const mn_value *map, const stage_keys *k) {
  const mn_value *steps = mn_value_int(arena, k->steps);
  const mn_value *own = steps ? mn_value_map(arena, 1, (const char *const[]){"steps"}, &steps) : NULL;
  const mn_value *values[3] = {NULL, k->data, k->objective};
  static const char *const keys[3] = {"train", "data", "objective"};
  mn_entry *entries = mn_arena_alloc(arena, (root->count + 3) * sizeof *entries);
  if (own) values[0] = merged(arena, merged(arena, mn_value_get(root, "train"), k->train), own);
  if (!entries || !values[0]) return NULL;
  size_t n = 0;
  for (size_t i = 0; i < root->count; i++) {
    if (!strcmp(root->as.entries[i].key, "stages")) continue;
    entries[n] = root->as.entries[i];
    for (int j = 0; j < 3; j++)
      if (!strcmp(entries[n].key, keys[j]) && values[j]) entries[n].value = values[j];
    n++;
  }
  for (int j = 0; j < 3; j++)
    if (!mn_value_get(root, keys[j]) && values[j])
      entries[n++] = (mn_entry){.key = keys[j], .file = map->file, .line = map->line, .value = values[j]};
  return map_like(arena, root, entries, n);
}

static mn_status parse_one(mn_recipe *r, const mn_value *root, const mn_value *map, mn_stage *out) {
  stage_keys k;
  for (size_t i = 0; i < map->count; i++)
    if (!strcmp(map->as.entries[i].key, "model") || !strcmp(map->as.entries[i].key, "tokenizer"))
      return mn_value_fail(map->as.entries[i].value, "stages: a stage cannot change the %s: all stages train the same parameters",
                           map->as.entries[i].key);
  MN_TRY(mn_config_read(r->arena, map, NULL, mn_stage_fields, &k));
  const char *fault = k.name ? mn_name_fault(k.name) : NULL;
  if (fault) return mn_config_fail(map, NULL, "name", "%s; give the stage a plain name", fault);
  MN_TRY(check_train_keys(k.train));
  const mn_value *tree = tree_of(r->arena, root, map, &k);
  if (!tree) return MN_ERR_MEMORY;
  out->steps = k.steps;
  out->name = k.name;
  out->at = map;
  return mn_recipe_parse(tree, &out->recipe);
}

mn_status mn_stages_parse(mn_recipe *r, const mn_value *root, const mn_value *list) {
  if (!list || list->kind == MN_NULL) return MN_OK;
  if (list->kind != MN_LIST || !list->count || list->count > MOST)
    return mn_value_fail(list, "stages must be a list of 1 to %d stages such as {steps: 1000, train: {...}}", MOST);
  const mn_value *steps = mn_value_get(mn_value_get(root, "train"), "steps");
  if (steps && mn_config_given(mn_value_get(root, "train"), "steps"))
    return mn_value_fail(steps, "train.steps has no effect beside stages, each of which has its own; leave it out");
  r->stages = mn_arena_alloc(r->arena, list->count * sizeof *r->stages);
  if (!r->stages) return MN_ERR_MEMORY;
  r->stages_list = list;
  int64_t total = 0;
  for (size_t i = 0; i < list->count; i++) {
    mn_stage *s = &r->stages[r->n_stages++];
    const mn_value *map;
    s->begin = total;
    MN_TRY(mn_value_map_in(list, i, "{steps: 1000, train: {...}}", &map));
    MN_TRY(mn_context(parse_one(r, root, map, s), "stages[%zu]", i));
    total += s->steps;
  }
  r->train.steps = total;
  return MN_OK;
}

int mn_stage_of(const mn_recipe *r, int64_t step) {
  int i = 0;
  while (i + 1 < r->n_stages && step > r->stages[i].begin + r->stages[i].steps) i++;
  return i;
}
