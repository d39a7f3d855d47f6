/* schema_merge.c - see schema_merge.h. */
#include "serve/schema_merge.h"

#include <string.h>

enum { MOST = 64 }; /* keys of a schema, and ways of anyOf */

typedef struct merger {
  mn_arena *arena;
  double *left; /* comparisons that may still be made */
  const char **why;
  const char *keys[2 * MOST];
  const mn_value *values[2 * MOST];
  size_t n;
} merger;

static const mn_value *fail(merger *m, const char *why) {
  if (!*m->why) *m->why = why;
  return NULL;
}

/* ---- what comparing costs ---- */
double mn_schema_weight(const mn_value *v) {
  if (!v) return 0;
  double all = 1 + (v->kind == MN_TEXT ? (double)strlen(v->as.text) / 16 : 0);
  for (size_t i = 0; v->kind == MN_LIST && i < v->count; i++) all += mn_schema_weight(v->as.items[i]);
  for (size_t i = 0; v->kind == MN_MAP && i < v->count; i++) /* each key is looked for in the other map */
    all += (1 + (double)strlen(v->as.entries[i].key) / 16) * (double)v->count + mn_schema_weight(v->as.entries[i].value);
  return all;
}

static double keys_weight(const mn_value *map) {
  double all = 0;
  for (size_t i = 0; map && map->kind == MN_MAP && i < map->count; i++) all += 1 + (double)strlen(map->as.entries[i].key) / 16;
  return all;
}

static size_t length_of(const mn_value *v) { return v && (v->kind == MN_LIST || v->kind == MN_MAP) ? v->count : 0; }

static bool spend(double *left, double comparisons) { return (*left -= comparisons) >= 0; }

static const mn_value *spent(merger *m) { return fail(m, "has lists so long that comparing them would take too long"); }

const mn_value *mn_schema_without(mn_arena *arena, const mn_value *map, const char *const *keys) {
  const char **names = mn_arena_alloc(arena, (map->count + 1) * sizeof *names);
  const mn_value **values = mn_arena_alloc(arena, (map->count + 1) * sizeof *values);
  size_t n = 0;
  if (!names || !values) return NULL;
  for (size_t i = 0; i < map->count; i++) {
    int k = 0;
    while (keys[k] && strcmp(keys[k], map->as.entries[i].key) != 0) k++;
    if (!keys[k]) names[n] = map->as.entries[i].key, values[n++] = map->as.entries[i].value;
  }
  return mn_value_map(arena, n, names, values);
}

static bool is_false(const mn_value *v) { return v && v->kind == MN_BOOLEAN && !v->as.boolean; }

static const mn_value *both(merger *m, const mn_value *a, const mn_value *b) {
  static const char *const all_of[] = {"allOf"};
  if (!a || (a->kind == MN_BOOLEAN && a->as.boolean)) return b;
  if (!b || (b->kind == MN_BOOLEAN && b->as.boolean)) return a;
  if (a->kind == MN_BOOLEAN) return a; /* nothing */
  if (b->kind == MN_BOOLEAN) return b;
  const mn_value *pair[] = {a, b}, *list = mn_value_list(m->arena, 2, pair);
  return mn_value_map(m->arena, 1, all_of, &list);
}

/* ---- types ---- */
static bool has_type(const mn_value *type, const char *name) {
  if (type->kind == MN_TEXT) return !strcmp(type->as.text, name);
  for (size_t i = 0; type->kind == MN_LIST && i < type->count; i++)
    if (type->as.items[i]->kind == MN_TEXT && !strcmp(type->as.items[i]->as.text, name)) return true;
  return false;
}

/* The types of both; an integer is a number. */
static size_t common_types(const mn_value *a, const mn_value *b, const char *out[8]) {
  static const char *const all[] = {"object", "array", "string", "number", "integer", "boolean", "null"};
  size_t n = 0;
  for (int i = 0; i < 7; i++) {
    const bool x = has_type(a, all[i]), y = has_type(b, all[i]);
    const bool integer = !strcmp(all[i], "integer") && ((x && has_type(b, "number")) || (y && has_type(a, "number")));
    const bool whole = !strcmp(all[i], "integer") && has_type(a, "number") && has_type(b, "number"); /* are in "number" */
    if ((x && y) || (integer && !whole)) out[n++] = all[i];
  }
  return n;
}

static const mn_value *types(merger *m, const mn_value *a, const mn_value *b) {
  const char *names[8];
  const mn_value *values[8];
  if ((a->kind != MN_TEXT && a->kind != MN_LIST) || (b->kind != MN_TEXT && b->kind != MN_LIST))
    return fail(m, "has a type that is neither a word nor a list of words");
  if (!spend(m->left, 16.0 * (double)(length_of(a) + length_of(b)))) return spent(m);
  const size_t n = common_types(a, b, names);
  if (!n) return fail(m, "wants two types at once");
  for (size_t i = 0; i < n; i++) values[i] = mn_value_text(m->arena, names[i]);
  return n == 1 ? values[0] : mn_value_list(m->arena, n, values);
}

/* ---- values ---- */
static const mn_value *in_both(merger *m, const mn_value *a, const mn_value *b) {
  if (a->kind != MN_LIST || b->kind != MN_LIST) return fail(m, "has an enum that is not a list of values");
  if (!spend(m->left, mn_schema_weight(a) * (double)b->count)) return spent(m);
  const mn_value **values = mn_arena_alloc(m->arena, (a->count + 1) * sizeof *values);
  size_t n = 0;
  for (size_t i = 0; values && i < a->count; i++)
    for (size_t k = 0; k < b->count; k++)
      if (mn_value_equal(a->as.items[i], b->as.items[k])) {
        values[n++] = a->as.items[i];
        break;
      }
  if (!n) return fail(m, "wants one of two lists of values that have none in common");
  return values ? mn_value_list(m->arena, n, values) : NULL;
}

static const mn_value *further(merger *m, const mn_value *a, const mn_value *b, bool larger) {
  double x, y;
  if (!mn_value_number(a, &x) || !mn_value_number(b, &y)) return fail(m, "has a bound that is no number");
  return (x > y) == larger ? a : b;
}

static const mn_value *union_of(merger *m, const mn_value *a, const mn_value *b) {
  if (a->kind != MN_LIST || b->kind != MN_LIST) return fail(m, "has required that is not a list");
  if (!spend(m->left, (mn_schema_weight(a) + mn_schema_weight(b)) * (double)(a->count + b->count))) return spent(m);
  const mn_value **values = mn_arena_alloc(m->arena, (a->count + b->count + 1) * sizeof *values);
  size_t n = 0;
  if (!values) return NULL;
  for (size_t i = 0; i < a->count + b->count; i++) {
    const mn_value *v = i < a->count ? a->as.items[i] : b->as.items[i - a->count];
    size_t k = 0;
    while (k < n && !mn_value_equal(values[k], v)) k++;
    if (k == n) values[n++] = v;
  }
  return mn_value_list(m->arena, n, values);
}

/* Every way of one with every way of the other. */
static const mn_value *crossed(merger *m, const mn_value *a, const mn_value *b) {
  const mn_value *all[MOST];
  size_t n = 0;
  if (a->kind != MN_LIST || b->kind != MN_LIST) return fail(m, "has anyOf that is not a list of schemas");
  if (a->count * b->count > MOST) return fail(m, "has ways of anyOf that multiply to more than 64: the grammar would explode");
  for (size_t i = 0; i < a->count; i++)
    for (size_t k = 0; k < b->count; k++) all[n++] = both(m, a->as.items[i], b->as.items[k]);
  return mn_value_list(m->arena, n, all);
}

/* ---- properties ---- */
/* What a schema wants of a property that it does not name; NULL: anything. */
static const mn_value *unnamed(const mn_value *schema) { return mn_value_get(schema, "additionalProperties"); }

static const mn_value *properties(merger *m, const mn_value *a, const mn_value *b) {
  const mn_value *x = mn_value_get(a, "properties"), *y = mn_value_get(b, "properties");
  const size_t most = (x && x->kind == MN_MAP ? x->count : 0) + (y && y->kind == MN_MAP ? y->count : 0);
  if ((x && x->kind != MN_MAP) || (y && y->kind != MN_MAP)) return fail(m, "has properties that are not a map");
  if (!spend(m->left, keys_weight(x) * (double)length_of(y) + keys_weight(y) * (double)length_of(x))) return spent(m);
  const char **names = mn_arena_alloc(m->arena, (most + 1) * sizeof *names);
  const mn_value **values = mn_arena_alloc(m->arena, (most + 1) * sizeof *values);
  size_t n = 0;
  if (!names || !values) return NULL;
  for (size_t i = 0; x && i < x->count; i++) {
    const char *key = x->as.entries[i].key;
    const mn_value *other = mn_value_get(y, key);
    names[n] = key, values[n++] = both(m, x->as.entries[i].value, other ? other : unnamed(b));
  }
  for (size_t i = 0; y && i < y->count; i++) {
    const char *key = y->as.entries[i].key;
    if (!mn_value_get(x, key)) names[n] = key, values[n++] = both(m, unnamed(a), y->as.entries[i].value);
  }
  return mn_value_map(m->arena, n, names, values);
}

/* ---- keys ---- */
static const mn_value *merged(merger *m, const char *key, const mn_value *a, const mn_value *b) {
  static const char *const larger[] = {"minimum", "exclusiveMinimum", "minLength", "minItems", NULL};
  static const char *const single[] = {"patternProperties", "additionalItems", "contentEncoding", NULL};
  static const char *const smaller[] = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", NULL};
  if (!strcmp(key, "type")) return types(m, a, b);
  if (!strcmp(key, "enum")) return in_both(m, a, b);
  if (!strcmp(key, "required")) return union_of(m, a, b);
  if (!strcmp(key, "anyOf")) return crossed(m, a, b);
  if (!strcmp(key, "items") || !strcmp(key, "additionalProperties") || !strcmp(key, "unevaluatedProperties") ||
      !strcmp(key, "propertyNames"))
    return both(m, a, b);
  if (!strcmp(key, "uniqueItems")) return is_false(a) ? b : a;
  if (!strcmp(key, "nullable")) return is_false(a) ? a : b;
  for (int i = 0; larger[i]; i++)
    if (!strcmp(key, larger[i])) return further(m, a, b, true);
  for (int i = 0; smaller[i]; i++)
    if (!strcmp(key, smaller[i])) return further(m, a, b, false);
  if (!spend(m->left, mn_schema_weight(a))) return spent(m);
  if (mn_value_equal(a, b)) return a;
  if (!strcmp(key, "const")) return fail(m, "wants two constants at once");
  if (!strcmp(key, "pattern")) return fail(m, "has two patterns that must hold at once");
  if (!strcmp(key, "format")) return fail(m, "has two formats that must hold at once");
  if (!strcmp(key, "multipleOf")) return fail(m, "has two multipleOf that must hold at once");
  if (!strcmp(key, "oneOf")) return fail(m, "has two lists of oneOf that must hold at once");
  if (!strcmp(key, "prefixItems")) return fail(m, "has two prefixItems that must hold at once");
  for (int i = 0; single[i]; i++)
    if (!strcmp(key, single[i])) return fail(m, "has patternProperties, additionalItems or contentEncoding twice, which must hold at once");
  return b; /* what only describes; anything else is refused by its name later */
}

const mn_value *mn_schema_merge(mn_arena *arena, const mn_value *a, const mn_value *b, double *left, const char **why) {
  merger m = {.arena = arena, .left = left, .why = why};
  *why = NULL;
  if (is_false(a) || is_false(b)) return fail(&m, "wants what is false, which no value fits");
  if (a->kind == MN_BOOLEAN) return b;
  if (b->kind == MN_BOOLEAN) return a;
  if (a->kind != MN_MAP || b->kind != MN_MAP) return fail(&m, "is not a map");
  if (a->count > MOST || b->count > MOST) return fail(&m, "has more than 64 keys");
  for (size_t i = 0; i < a->count; i++) {
    const mn_entry *e = &a->as.entries[i];
    const mn_value *other = mn_value_get(b, e->key);
    if (!strcmp(e->key, "properties")) continue;
    m.keys[m.n] = e->key;
    if (!(m.values[m.n++] = other ? merged(&m, e->key, e->value, other) : e->value)) return NULL;
  }
  for (size_t i = 0; i < b->count; i++) {
    const mn_entry *e = &b->as.entries[i];
    if (mn_value_get(a, e->key) || !strcmp(e->key, "properties")) continue;
    m.keys[m.n] = e->key, m.values[m.n++] = e->value;
  }
  if (mn_value_get(a, "properties") || mn_value_get(b, "properties")) {
    m.keys[m.n] = "properties";
    if (!(m.values[m.n++] = properties(&m, a, b))) return NULL;
  }
  return mn_value_map(arena, m.n, m.keys, m.values);
}

/* ---- apart ---- */
/* The values of an enum or a const; n 0: it is neither. */
static size_t values_of(const mn_value *schema, const mn_value *const **out, const mn_value **one) {
  const mn_value *list = mn_value_get(schema, "enum");
  *one = mn_value_get(schema, "const");
  *out = *one ? one : list && list->kind == MN_LIST ? list->as.items : NULL;
  return *one ? 1 : *out ? list->count : 0;
}

static bool is_object(const mn_value *schema) {
  const mn_value *type = mn_value_get(schema, "type");
  return type ? type->kind == MN_TEXT && !strcmp(type->as.text, "object") : mn_value_get(schema, "properties") != NULL;
}

/* May what is made for the schema have this property? */
static bool may_have(const mn_value *schema, const char *key) {
  const mn_value *named = mn_value_get(schema, "properties"), *others = mn_value_get(schema, "additionalProperties");
  return mn_value_get(named, key) || (others ? !is_false(others) : !named);
}

static bool requires(const mn_value *schema, const char *key) {
  const mn_value *list = mn_value_get(schema, "required");
  for (size_t i = 0; list && list->kind == MN_LIST && i < list->count; i++)
    if (list->as.items[i]->kind == MN_TEXT && !strcmp(list->as.items[i]->as.text, key)) return true;
  return false;
}

/* Is an object that is made for `made` never one of `other`, as a property is missing or forbidden? */
static bool lacks(const mn_value *made, const mn_value *other) {
  const mn_value *wanted = mn_value_get(other, "required"), *has = mn_value_get(made, "required"),
                 *named = mn_value_get(other, "properties");
  const bool closed = is_false(mn_value_get(other, "additionalProperties"));
  for (size_t i = 0; wanted && wanted->kind == MN_LIST && i < wanted->count; i++)
    if (wanted->as.items[i]->kind == MN_TEXT && !may_have(made, wanted->as.items[i]->as.text)) return true;
  for (size_t i = 0; closed && has && has->kind == MN_LIST && i < has->count; i++)
    if (has->as.items[i]->kind == MN_TEXT && !mn_value_get(named, has->as.items[i]->as.text)) return true;
  return false;
}

/* Neither's objects fit the other, as a property is missing, forbidden, or required and of another kind. Each pair of properties is looked at
 * once, whichever requires it: what is nested costs what it is long. */
static bool objects_apart(const mn_value *a, const mn_value *b, double *left) {
  const mn_value *x = mn_value_get(a, "properties"), *y = mn_value_get(b, "properties");
  const double required = mn_schema_weight(mn_value_get(a, "required")) + mn_schema_weight(mn_value_get(b, "required"));
  if (!spend(left, (required + keys_weight(x)) * (double)(length_of(x) + length_of(y) + 1))) return false;
  bool never_b = lacks(a, b), never_a = lacks(b, a); /* what is made for a is never one of b, and the other way round */
  for (size_t i = 0; i < length_of(x) && x->kind == MN_MAP && !(never_a && never_b); i++) {
    const mn_entry *e = &x->as.entries[i];
    const mn_value *other = mn_value_get(y, e->key);
    const bool of_a = other && !never_b && requires(a, e->key), of_b = other && !never_a && requires(b, e->key);
    if ((of_a || of_b) && mn_schema_apart(e->value, other, left)) never_b = never_b || of_a, never_a = never_a || of_b;
  }
  return never_a && never_b;
}

bool mn_schema_apart(const mn_value *a, const mn_value *b, double *left) {
  static const char *const hidden[] = {"$ref", "anyOf", "oneOf", "allOf", NULL};
  if (a->kind != MN_MAP || b->kind != MN_MAP) return is_false(a) || is_false(b);
  if (!spend(left, 32.0 + (double)(a->count + b->count))) return false;
  for (int i = 0; hidden[i]; i++)
    if (mn_value_get(a, hidden[i]) || mn_value_get(b, hidden[i])) return false;
  const mn_value *x = mn_value_get(a, "type"), *y = mn_value_get(b, "type");
  const mn_value *const *some, *const *others, *one, *other;
  const char *names[8];
  const size_t n = values_of(a, &some, &one), k = values_of(b, &others, &other);
  double costs = 16.0 * (double)(length_of(x) + length_of(y));
  for (size_t i = 0; i < n; i++) costs += mn_schema_weight(some[i]) * (double)k;
  if (!spend(left, costs)) return false;
  bool shared = !n || !k;
  for (size_t i = 0; i < n && !shared; i++)
    for (size_t j = 0; j < k && !shared; j++) shared = mn_value_equal(some[i], others[j]);
  if (!shared) return true;
  if (x && y && !common_types(x, y, names)) return true;
  return is_object(a) && is_object(b) && objects_apart(a, b, left);
}
