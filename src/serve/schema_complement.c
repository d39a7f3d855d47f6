/* schema_complement.c - see schema_complement.h. */
#include "serve/schema_complement.h"

#include <stdio.h>
#include <string.h>

#include "format/json.h"
#include "serve/schema_keys.h"
#include "serve/schema_merge.h"

enum { MOST_WAYS = 64, MOST_DEPTH = 32, MOST_VALUES = 32, A_SCHEMA = 4096 /* comparisons that one costs */ };

typedef struct complement {
  schema_compiler *c;
  const mn_value *at, *beside, *type; /* the schema; what stands beside it, or NULL; what types there may be, NULL: any */
  const mn_value *ways[MOST_WAYS];
  size_t n;
} complement;

static const char *const types[] = {"object", "array", "string", "number", "boolean", "null"};
enum { N_TYPES = 6 };

static const mn_value *refuse(schema_compiler *c, const mn_value *at, const char *what) {
  schema_refuse(c, at, what);
  return NULL;
}

static const mn_value *map_of(schema_compiler *c, size_t n, const char *const *keys, const mn_value *const *values) {
  const mn_value *out = mn_value_map(c->arena, n, keys, values);
  return out ? out : refuse(c, c->root, "needs more memory than there is");
}

static const mn_value *one_key(schema_compiler *c, const char *key, const mn_value *value) { return map_of(c, 1, &key, &value); }

/* {"type": type, key: value} */
static const mn_value *typed(schema_compiler *c, const char *type, const char *key, const mn_value *value) {
  const mn_value *values[] = {mn_value_text(c->arena, type), value};
  return map_of(c, key ? 2 : 1, (const char *const[]){"type", key}, values);
}

const mn_value *schema_keeps_null_out(schema_compiler *c, const mn_value *schema) {
  if (!schema || schema->kind != MN_MAP || mn_value_get(schema, "nullable")) return schema;
  const char **keys = mn_arena_alloc(c->arena, (schema->count + 1) * sizeof *keys);
  const mn_value **values = mn_arena_alloc(c->arena, (schema->count + 1) * sizeof *values);
  if (!keys || !values) return refuse(c, schema, "needs more memory than there is");
  for (size_t i = 0; i < schema->count; i++) keys[i] = schema->as.entries[i].key, values[i] = schema->as.entries[i].value;
  keys[schema->count] = "nullable", values[schema->count] = mn_value_bool(c->arena, false);
  return map_of(c, schema->count + 1, keys, values);
}

static void add(complement *k, const mn_value *way) {
  if (!(way = schema_keeps_null_out(k->c, way))) return;
  if (k->n < MOST_WAYS) k->ways[k->n++] = way;
  else schema_refuse(k->c, k->at, "has not, if or contains that would become more than 64 ways: the grammar would explode");
}

static bool says(const mn_value *type, const char *name) {
  if (!type) return true;
  if (type->kind == MN_TEXT) return !strcmp(type->as.text, name);
  for (size_t i = 0; type->kind == MN_LIST && i < type->count; i++)
    if (schema_text(type->as.items[i]) && !strcmp(schema_text(type->as.items[i]), name)) return true;
  return false;
}

/* ---- types ---- */
static void not_of_type(complement *k, const mn_value *type) {
  const mn_value *others[N_TYPES];
  size_t n = 0;
  if (type->kind != MN_TEXT && type->kind != MN_LIST) {
    schema_refuse(k->c, type, "has a type that is neither a word nor a list of words");
    return;
  }
  for (size_t i = 0; i < (type->kind == MN_LIST ? type->count : 1); i++) {
    const char *word = schema_text(type->kind == MN_LIST ? type->as.items[i] : type);
    bool known = word && !strcmp(word, "integer");
    for (int t = 0; t < N_TYPES && word; t++) known = known || !strcmp(word, types[t]);
    if (known) continue;
    schema_refuse(k->c, type, word ? "has an unknown type" : "has a type that is neither a word nor a list of words");
    return;
  }
  const bool numbers = !k->type || says(k->type, "number");
  if (says(type, "integer") && !says(type, "number") && numbers) {
    schema_refuse(k->c, type, "has not or if of the type integer where there may be numbers: those that are none are no type");
    return;
  }
  for (int i = 0; i < N_TYPES; i++) {
    const bool integer = !strcmp(types[i], "number") && says(type, "integer");
    if (!says(type, types[i]) && !integer) others[n++] = mn_value_text(k->c->arena, types[i]);
  }
  if (n) add(k, one_key(k->c, "type", mn_value_list(k->c->arena, n, others)));
}

/* ---- values ---- */
/* Of texts: those that are none of the list's. */
static void not_of_texts(complement *k, const mn_value *const *all, size_t n) {
  mn_text t = {0};
  bool first = true;
  mn_text_add(&t, "^(?!(?:");
  for (size_t i = 0; i < n; i++) {
    if (all[i]->kind != MN_TEXT) continue;
    if (!first) mn_text_add(&t, "|");
    first = false;
    for (const char *s = all[i]->as.text; *s; s++) {
      if (strchr("^$\\.*+?()[]{}|/", *s)) mn_text_add(&t, "\\");
      mn_text_add_bytes(&t, s, 1);
    }
  }
  mn_text_add(&t, ")$)");
  if (mn_text_status(&t) == MN_OK) add(k, typed(k->c, "string", "pattern", mn_value_text(k->c->arena, t.data)));
  else refuse(k->c, k->at, "needs more memory than there is");
  mn_text_free(&t);
}

static bool as_number(const mn_value *v, double *x) { return (v->kind == MN_INTEGER || v->kind == MN_REAL) && mn_value_number(v, x); }

/* Of numbers: below the least of the list, between each two that follow each other, above the most. */
static void not_of_numbers(complement *k, const mn_value *const *all, size_t n) {
  const mn_value *sorted[MOST_VALUES];
  size_t m = 0;
  for (size_t i = 0; i < n; i++) {
    double x, y;
    if (!as_number(all[i], &x)) continue;
    if (!(x > -0x1p53 && x < 0x1p53)) {
      schema_refuse(k->c, all[i], "has not or if of a number beyond 2^53");
      return;
    }
    size_t at = m++;
    for (; at && as_number(sorted[at - 1], &y) && y > x; at--) sorted[at] = sorted[at - 1];
    sorted[at] = all[i];
  }
  const char *const above[] = {"type", "exclusiveMinimum", "exclusiveMaximum"}, *const below[] = {"type", "exclusiveMaximum"};
  const mn_value *number = mn_value_text(k->c->arena, "number");
  for (size_t i = 0; i <= m; i++) {
    if (i && i < m && mn_schema_equal(sorted[i - 1], sorted[i])) continue;
    const mn_value *values[] = {number, i ? sorted[i - 1] : sorted[0], i && i < m ? sorted[i] : NULL};
    add(k, i ? map_of(k->c, i < m ? 3 : 2, above, values) : map_of(k->c, 2, below, values));
  }
}

static void not_of_values(complement *k, const mn_value *const *all, size_t n) {
  bool has[N_TYPES] = {false}, truth[2] = {false, false};
  if (n > MOST_VALUES) {
    schema_refuse(k->c, k->at, "has not or if of more than 32 values");
    return;
  }
  for (size_t i = 0; i < n; i++) {
    for (int t = 0; t < N_TYPES; t++) has[t] = has[t] || !strcmp(mn_schema_type_of(all[i]), types[t]);
    if (all[i]->kind == MN_BOOLEAN) truth[all[i]->as.boolean] = true;
    if ((all[i]->kind == MN_LIST && says(k->type, "array")) || (all[i]->kind == MN_MAP && says(k->type, "object"))) {
      schema_refuse(k->c, all[i], "has not or if of a list or a map as a value: texts, numbers, true, false and null are known there");
      return;
    }
  }
  const mn_value *others[N_TYPES];
  size_t m = 0;
  for (int t = 0; t < N_TYPES; t++)
    if (!has[t]) others[m++] = mn_value_text(k->c->arena, types[t]);
  if (m) add(k, one_key(k->c, "type", mn_value_list(k->c->arena, m, others)));
  if (has[2]) not_of_texts(k, all, n);
  if (has[3]) not_of_numbers(k, all, n);
  if (has[4] && truth[0] != truth[1]) add(k, one_key(k->c, "const", mn_value_bool(k->c->arena, !truth[1])));
}

/* ---- objects and lists ---- */
/* An object of which `properties` speaks: others may be there too, where nothing beside it names any. */
static void add_object(complement *k, const mn_value *required, const mn_value *properties) {
  const char *keys[4] = {"type", "properties"};
  const mn_value *values[4] = {mn_value_text(k->c->arena, "object"), properties};
  size_t n = 2;
  if (required) keys[n] = "required", values[n++] = required;
  if (!mn_value_get(k->beside, "properties")) keys[n] = "additionalProperties", values[n++] = mn_value_bool(k->c->arena, true);
  add(k, map_of(k->c, n, keys, values));
}

static void not_required(complement *k, const mn_value *list) {
  if (list->kind != MN_LIST) {
    schema_refuse(k->c, list, "has required that is not a list");
    return;
  }
  for (size_t i = 0; i < list->count; i++) {
    const char *key = schema_text(list->as.items[i]);
    if (!key) schema_refuse(k->c, list, "has required that is not a list of texts");
    else add_object(k, NULL, one_key(k->c, key, mn_value_bool(k->c->arena, false)));
  }
}

static bool is_bool(const mn_value *v, bool b) { return v && v->kind == MN_BOOLEAN && v->as.boolean == b; }

static void not_properties(complement *k, const mn_value *map) {
  if (map->kind != MN_MAP) {
    schema_refuse(k->c, map, "has properties that are not a map");
    return;
  }
  for (size_t i = 0; i < map->count; i++) {
    const mn_value *other = schema_complement(k->c, map->as.entries[i].value, NULL),
                   *name = mn_value_text(k->c->arena, map->as.entries[i].key);
    if (!other) return;
    if (is_bool(other, false)) continue; /* any value fits */
    add_object(k, mn_value_list(k->c->arena, 1, &name), one_key(k->c, map->as.entries[i].key, other));
  }
}

/* A list of which `key` many items fit, and no more is said of how many. */
static void add_counted(complement *k, const mn_value *schema, const char *key, int64_t n) {
  const char *const keys[] = {"type", "contains", key, "minContains"};
  const mn_value *values[] = {mn_value_text(k->c->arena, "array"), schema, mn_value_int(k->c->arena, n), mn_value_int(k->c->arena, 0)};
  add(k, map_of(k->c, strcmp(key, "minContains") ? 4 : 3, keys, values));
}

/* Fewer items fit than must, or more than may. */
static void not_contains(complement *k, const mn_value *schema) {
  int64_t least = 1, most = -1;
  if (!schema_count(k->c, k->at, "minContains", &least) || !schema_count(k->c, k->at, "maxContains", &most)) return;
  if (most >= 0) add_counted(k, schema, "minContains", most + 1);
  if (least > 1) add_counted(k, schema, "maxContains", least - 1);
  if (least != 1) return;
  const mn_value *other = schema_complement(k->c, schema, NULL);
  if (!other) return;
  if (is_bool(other, false)) add(k, typed(k->c, "array", "maxItems", mn_value_int(k->c->arena, 0)));
  else add(k, typed(k->c, "array", "items", other));
}

/* One of them does not fit. */
static void not_items(complement *k, const mn_value *schema) {
  if (schema->kind == MN_LIST || mn_value_get(k->at, "prefixItems") || mn_value_get(k->beside, "prefixItems")) {
    schema_refuse(k->c, k->at, "has not or if of items by their number: items that are all alike are known there");
    return;
  }
  const mn_value *other = schema_complement(k->c, schema, NULL);
  if (other && !is_bool(other, false)) add(k, typed(k->c, "array", "contains", other));
}

/* ---- bounds ---- */
static const struct bound {
  const char *key, *type, *other;
  int step; /* of counts: by how much the other is further; 0: a number's */
} bounds[] = {{"minLength", "string", "maxLength", -1},
              {"maxLength", "string", "minLength", 1},
              {"minItems", "array", "maxItems", -1},
              {"maxItems", "array", "minItems", 1},
              {"minProperties", "object", "maxProperties", -1},
              {"maxProperties", "object", "minProperties", 1},
              {"minimum", "number", "exclusiveMaximum", 0},
              {"maximum", "number", "exclusiveMinimum", 0},
              {"exclusiveMinimum", "number", "maximum", 0},
              {"exclusiveMaximum", "number", "minimum", 0}};

static bool beyond(complement *k, const mn_entry *e) {
  double x;
  for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
    const struct bound *b = &bounds[i];
    if (strcmp(b->key, e->key) != 0) continue;
    if (!as_number(e->value, &x) || (b->step && !(x >= 0 && x <= 4096 && x == (double)(int64_t)x)))
      schema_refuse(k->c, e->value, "has not or if of a bound that is no number, or of a count that is none to 4096");
    else if (!b->step) add(k, typed(k->c, b->type, b->other, e->value));
    else if (x + b->step >= 0) add(k, typed(k->c, b->type, b->other, mn_value_int(k->c->arena, (int64_t)x + b->step)));
    return true;
  }
  return false;
}

/* ---- schemas of schemas ---- */
/* What fits none of anyOf fits the complement of each. */
static void not_any(complement *k, const mn_value *list) {
  const mn_value *all[MOST_WAYS];
  if (list->kind != MN_LIST || !list->count || list->count > MOST_WAYS) {
    schema_refuse(k->c, list, "has not or if of anyOf that is not a list of at most 64 schemas");
    return;
  }
  for (size_t i = 0; i < list->count; i++)
    if (!(all[i] = schema_complement(k->c, list->as.items[i], k->beside))) return;
  add(k, one_key(k->c, "allOf", mn_value_list(k->c->arena, list->count, all)));
}

static void not_all(complement *k, const mn_value *list) {
  if (list->kind != MN_LIST || !list->count) {
    schema_refuse(k->c, list, "has allOf that is not a list of schemas");
    return;
  }
  for (size_t i = 0; i < list->count && k->c->status == MN_OK; i++) add(k, schema_complement(k->c, list->as.items[i], k->beside));
}

static void not_ref(complement *k, const mn_value *ref) {
  const mn_value *place = schema_look_up(k->c, ref);
  bool open = false;
  for (int i = 0; i < k->c->n_opposites; i++) open = open || k->c->opposites[i] == place;
  if (place) add(k, open ? one_key(k->c, "not", one_key(k->c, "$ref", ref)) : schema_opposite_of(k->c, place, k->beside));
}

static void not_of_key(complement *k, const mn_entry *e) {
  const mn_value *v = e->value;
  const char *key = e->key;
  char what[240], shown[MN_PRINTABLE];
  if (schema_describes(key) || schema_says_nothing(k->at, key) || (!strcmp(key, "nullable") && is_bool(v, false)) || beyond(k, e) ||
      !strcmp(key, "minContains") || !strcmp(key, "maxContains"))
    return;
  if (!strcmp(key, "type")) not_of_type(k, v);
  else if (!strcmp(key, "const")) not_of_values(k, &v, 1);
  else if (!strcmp(key, "enum") && v->kind == MN_LIST) not_of_values(k, v->as.items, v->count);
  else if (!strcmp(key, "required")) not_required(k, v);
  else if (!strcmp(key, "properties")) not_properties(k, v);
  else if (!strcmp(key, "items")) not_items(k, v);
  else if (!strcmp(key, "contains")) not_contains(k, v);
  else if (!strcmp(key, "anyOf")) not_any(k, v);
  else if (!strcmp(key, "allOf")) not_all(k, v);
  else if (!strcmp(key, "not")) add(k, v);
  else if (!strcmp(key, "$ref")) not_ref(k, v);
  else {
    snprintf(
        what, sizeof what,
        "has not, if or maxContains of '%.60s', whose opposite is not known: type, const, enum, required, properties, items, bounds, contains, anyOf and allOf are",
        mn_printable(key, shown));
    schema_refuse(k->c, v, what);
  }
}

static const mn_value *complement_of(schema_compiler *c, const mn_value *schema, const mn_value *beside) {
  if (schema->kind == MN_BOOLEAN) return mn_value_bool(c->arena, !schema->as.boolean);
  if (schema->kind != MN_MAP) return refuse(c, schema, "is not a map");
  if (!schema_spend(c, schema, 16 * mn_schema_weight(schema) + A_SCHEMA)) return NULL;
  complement *k = mn_arena_alloc(c->arena, sizeof *k);
  if (!k) return refuse(c, schema, "needs more memory than there is");
  *k = (complement){.c = c, .at = schema, .beside = beside, .type = mn_value_get(beside, "type")};
  for (size_t i = 0; i < schema->count && c->status == MN_OK; i++) not_of_key(k, &schema->as.entries[i]);
  if (c->status != MN_OK) return NULL;
  if (!k->n) return mn_value_bool(c->arena, false);
  return k->n == 1 ? k->ways[0] : schema_keeps_null_out(c, one_key(c, "anyOf", mn_value_list(c->arena, k->n, k->ways)));
}

const mn_value *schema_complement(schema_compiler *c, const mn_value *schema, const mn_value *beside) {
  if (c->status != MN_OK) return NULL;
  if (c->depth >= MOST_DEPTH) return refuse(c, schema, "has not or if nested too deep, or that leads to itself");
  c->depth++;
  const mn_value *out = complement_of(c, schema, beside);
  c->depth--;
  return out;
}

const mn_value *schema_opposite_of(schema_compiler *c, const mn_value *place, const mn_value *beside) {
  if (c->n_opposites == SCHEMA_OPPOSITES) return refuse(c, place, "has not or if nested too deep");
  c->opposites[c->n_opposites++] = place;
  const mn_value *out = schema_complement(c, place, beside);
  c->n_opposites--;
  return out;
}

/* ---- conditions ---- */
static bool has_key(const mn_value *v, const char *key) {
  if (v->kind == MN_MAP && mn_value_get(v, key)) return true;
  for (size_t i = 0; (v->kind == MN_MAP || v->kind == MN_LIST) && i < v->count; i++)
    if (has_key(v->kind == MN_MAP ? v->as.entries[i].value : v->as.items[i], key)) return true;
  return false;
}

/* Both; either may say anything. */
static const mn_value *both(schema_compiler *c, const mn_value *a, const mn_value *b) {
  const mn_value *pair[] = {a, b};
  if (!b || is_bool(b, true) || is_bool(a, false)) return a;
  return one_key(c, "allOf", mn_value_list(c->arena, 2, pair));
}

bool schema_may_complement(schema_compiler *c, const mn_value *schema) {
  if (!schema_spend(c, schema, 2 * mn_schema_weight(c->root))) return false;
  if (!has_key(c->root, "unevaluatedProperties")) return true;
  return refuse(
      c, schema,
      "has not, if or maxContains, and somewhere unevaluatedProperties, which do not see what these name: say additionalProperties");
}

bool schema_conditions(schema_compiler *c, const mn_value *schema, const mn_value **rest, const mn_value **meant) {
  static const char *const keys[] = {"not", "if", "then", "else", NULL};
  const mn_value *no = mn_value_get(schema, "not"), *when = mn_value_get(schema, "if");
  const mn_value *then = mn_value_get(schema, "then"), *otherwise = mn_value_get(schema, "else"), *null = mn_value_get(schema, "nullable");
  if (schema_says_nothing(schema, "if")) when = NULL;
  if ((no || when) && null && !is_bool(null, false)) return refuse(c, null, "is nullable beside not or if: say null as a type");
  if ((no || when) && !schema_may_complement(c, schema)) return false;
  *meant = no ? schema_complement(c, no, schema) : NULL;
  if (no && !*meant) return false;
  if (when) {
    const mn_value *other = schema_complement(c, when, schema);
    const mn_value *ways[] = {schema_keeps_null_out(c, both(c, when, then)),
                              other ? schema_keeps_null_out(c, both(c, other, otherwise)) : NULL};
    if (!other || c->status != MN_OK) return false;
    *meant = *meant ? both(c, *meant, one_key(c, "anyOf", mn_value_list(c->arena, 2, ways)))
                    : one_key(c, "anyOf", mn_value_list(c->arena, 2, ways));
  }
  *meant = *meant ? schema_keeps_null_out(c, *meant) : mn_value_bool(c->arena, true);
  *rest = mn_schema_without(c->arena, schema, keys);
  return *meant && *rest && c->status == MN_OK;
}
