/* schema_merge.c - see schema_merge.h. */
#include "serve/schema_merge.h"

#include <math.h>
#include <string.h>

#include "serve/schema_admit.h"
#include "serve/schema_keys.h"

enum {
  MOST = 64,      /* keys of a schema, and ways of anyOf */
  MOST_DEPTH = 6, /* schemas within schemas that are merged at once, where ways are crossed */
  A_MERGE = 1024  /* comparisons that each of those costs */
};

typedef struct merger {
  mn_arena *arena;
  double *left; /* comparisons that may still be made */
  schema_why *why;
  const mn_value *a, *b;
  int depth; /* 0: subschemas that meet are merged later */
  const char *keys[2 * MOST];
  const mn_value *values[2 * MOST];
  size_t n;
} merger;

static const mn_value *refuse(merger *m, const char *text, bool nothing) {
  if (!m->why->text) *m->why = (schema_why){text, nothing};
  return NULL;
}

static const mn_value *fail(merger *m, const char *text) { return refuse(m, text, false); }
static const mn_value *fail_as_nothing(merger *m, const char *text) { return refuse(m, text, true); } /* no value fits both */

static const mn_value *at_once(merger *m, const mn_value *a, const mn_value *b, bool ways);

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

static const mn_value *later(merger *m, const mn_value *a, const mn_value *b) {
  static const char *const all_of[] = {"allOf"};
  if (!a || !b) return a ? a : b;
  if (a->kind == MN_BOOLEAN && a->as.boolean) return b;
  if (b->kind == MN_BOOLEAN && b->as.boolean) return a;
  if (a->kind == MN_BOOLEAN) return a; /* nothing */
  if (b->kind == MN_BOOLEAN) return b;
  const mn_value *pair[] = {a, b}, *list = mn_value_list(m->arena, 2, pair);
  return mn_value_map(m->arena, 1, all_of, &list);
}

static const mn_value *both(merger *m, const mn_value *a, const mn_value *b) {
  return m->depth && a && b ? at_once(m, a, b, false) : later(m, a, b);
}

/* ---- values that are the same ---- */
int mn_schema_order(const mn_value *a, const mn_value *b) {
  if (a->kind == MN_REAL && b->kind == MN_REAL) return (a->as.real > b->as.real) - (a->as.real < b->as.real);
  if (a->kind == MN_REAL) return -mn_schema_order(b, a);
  if (b->kind == MN_INTEGER) return (a->as.integer > b->as.integer) - (a->as.integer < b->as.integer);
  if (!(b->as.real < 0x1p63)) return -1;
  if (b->as.real < -0x1p63) return 1;
  const double whole = floor(b->as.real);
  const int64_t x = a->as.integer, y = (int64_t)whole;
  return x != y ? (x > y) - (x < y) : -(whole < b->as.real);
}

static bool is_number(const mn_value *v) { return v->kind == MN_INTEGER || v->kind == MN_REAL; }

const char *mn_schema_type_of(const mn_value *v) {
  switch (v->kind) {
  case MN_TEXT:
    return "string";
  case MN_INTEGER:
  case MN_REAL:
    return "number";
  case MN_BOOLEAN:
    return "boolean";
  case MN_NULL:
    return "null";
  case MN_LIST:
    return "array";
  default:
    return "object";
  }
}

bool mn_schema_equal(const mn_value *a, const mn_value *b) {
  if (is_number(a) && is_number(b)) return mn_schema_order(a, b) == 0;
  if (a->kind != b->kind || (a->kind != MN_LIST && a->kind != MN_MAP)) return mn_value_equal(a, b);
  bool same = a->count == b->count;
  for (size_t i = 0; i < a->count && same; i++) {
    const mn_value *x = a->kind == MN_LIST ? a->as.items[i] : a->as.entries[i].value;
    const mn_value *y = a->kind == MN_LIST ? b->as.items[i] : mn_value_get(b, a->as.entries[i].key);
    same = y && mn_schema_equal(x, y);
  }
  return same;
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
  if (!n) return fail_as_nothing(m, "wants two types at once");
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
      if (mn_schema_equal(a->as.items[i], b->as.items[k])) {
        values[n++] = a->as.items[i];
        break;
      }
  if (!n) return fail_as_nothing(m, "wants one of two lists of values that have none in common");
  return values ? mn_value_list(m->arena, n, values) : NULL;
}

static const mn_value *further(merger *m, const mn_value *a, const mn_value *b, bool larger) {
  if (!is_number(a) || !is_number(b)) return fail(m, "has a bound that is no number");
  return (mn_schema_order(a, b) > 0) == larger ? a : b;
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
    while (k < n && !mn_schema_equal(values[k], v)) k++;
    if (k == n) values[n++] = v;
  }
  return mn_value_list(m->arena, n, values);
}

/* Every way of one with every way of the other. */
static const mn_value *crossed(merger *m, const mn_value *a, const mn_value *b) {
  const mn_value *all[MOST];
  size_t n = 0;
  if (a->kind != MN_LIST || b->kind != MN_LIST) return fail(m, "has anyOf that is not a list of schemas");
  for (size_t i = 0; i < a->count; i++)
    for (size_t k = 0; k < b->count; k++) {
      const mn_value *way =
          m->depth < MOST_DEPTH ? at_once(m, a->as.items[i], b->as.items[k], true) : later(m, a->as.items[i], b->as.items[k]);
      if (!way) return NULL;
      if (is_false(way)) continue;
      if (n == MOST) return fail(m, "has ways of anyOf that multiply to more than 64: the grammar would explode");
      all[n++] = way;
    }
  return n ? mn_value_list(m->arena, n, all)
           : fail_as_nothing(m, "wants one way of each of two anyOf, where none goes with any of the other");
}

/* ---- properties ---- */
/* What a schema wants of a property that it does not name; NULL: anything. Of the first that is merged: what it has of unevaluatedProperties does
 * not speak of what the other names. */
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

/* The second, whose unevaluatedProperties speak of what it does not name itself: additionalProperties then, unless it has those. */
static const mn_value *within(merger *m, const mn_value *b) {
  static const char *const one[] = {"unevaluatedProperties", NULL};
  const mn_value *v = mn_value_get(b, *one);
  if (!v) return b;
  if (mn_value_get(b, "anyOf") || mn_value_get(b, "oneOf"))
    return fail(m, "has unevaluatedProperties beside anyOf or oneOf in one of several schemas that must hold at once");
  const mn_value *rest = mn_schema_without(m->arena, b, one), *values[MOST];
  const char *keys[MOST];
  if (!rest || mn_value_get(rest, "additionalProperties")) return rest;
  for (size_t i = 0; i < rest->count; i++) keys[i] = rest->as.entries[i].key, values[i] = rest->as.entries[i].value;
  keys[rest->count] = "additionalProperties", values[rest->count] = v;
  return mn_value_map(m->arena, rest->count + 1, keys, values);
}

/* ---- keys that one of the two has ---- */
/* Properties of a pattern beside what the other says of all that it does not name. */
static const mn_value *patterned(merger *m, const mn_value *own, const mn_value *other) {
  const mn_value *all = unnamed(other);
  if (!all || own->kind != MN_MAP) return own;
  const char **names = mn_arena_alloc(m->arena, (own->count + 1) * sizeof *names);
  const mn_value **values = mn_arena_alloc(m->arena, (own->count + 1) * sizeof *values);
  if (!names || !values) return NULL;
  if (!spend(m->left, (double)own->count)) return spent(m);
  for (size_t i = 0; i < own->count; i++) names[i] = own->as.entries[i].key, values[i] = both(m, own->as.entries[i].value, all);
  return mn_value_map(m->arena, own->count, names, values);
}

/* The first items beside what the other says of all. */
static const mn_value *numbered(merger *m, const mn_value *own, const mn_value *other) {
  const mn_value *all = mn_value_get(other, "items");
  if (!all || own->kind != MN_LIST) return own;
  if (all->kind == MN_LIST) return fail(m, "has prefixItems, and beside them a list of items");
  const mn_value **values = mn_arena_alloc(m->arena, (own->count + 1) * sizeof *values);
  if (!values) return NULL;
  if (!spend(m->left, (double)own->count)) return spent(m);
  for (size_t i = 0; i < own->count; i++) values[i] = both(m, own->as.items[i], all);
  return mn_value_list(m->arena, own->count, values);
}

static bool is_true(const mn_value *v) { return v && v->kind == MN_BOOLEAN && v->as.boolean; }

/* Could null fit it? False is certain; true is where it has no anyOf or oneOf. */
static bool takes_null(const mn_value *schema) {
  const mn_value *type = mn_value_get(schema, "type"), *one = mn_value_get(schema, "const"), *list = mn_value_get(schema, "enum");
  if (is_true(mn_value_get(schema, "nullable"))) return true;
  if ((type && !has_type(type, "null")) || (one && one->kind != MN_NULL)) return false;
  bool among = !list || list->kind != MN_LIST;
  for (size_t i = 0; !among && i < list->count; i++) among = list->as.items[i]->kind == MN_NULL;
  return among;
}

/* May what is nullable be null beside another schema that says nothing of it? Where it says no type of its own (OpenAPI's nullable beside a $ref)
 * it speaks of what is there, and else of itself alone. */
static bool may_be_null(const mn_value *own, const mn_value *other, bool around) {
  if (around && !mn_value_get(own, "type") && !mn_value_get(own, "enum") && !mn_value_get(own, "const")) return true;
  return !mn_value_get(other, "anyOf") && !mn_value_get(other, "oneOf") && takes_null(other);
}

/* A key of the first (around), or of the second, alone. */
static bool take_alone(merger *m, const mn_entry *e, const mn_value *own, const mn_value *other, bool around) {
  const mn_value *v = e->value;
  if (!strcmp(e->key, "nullable") && is_true(v) && !may_be_null(own, other, around)) return true;
  if (!strcmp(e->key, "patternProperties")) v = patterned(m, v, other);
  if (!strcmp(e->key, "prefixItems")) v = numbered(m, v, other);
  m->keys[m->n] = e->key, m->values[m->n++] = v;
  return v != NULL;
}

/* ---- keys of both ---- */
static const mn_value *merged(merger *m, const char *key, const mn_value *a, const mn_value *b) {
  static const char *const larger[] = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", NULL};
  static const char *const single[] = {"patternProperties", "additionalItems", "contentEncoding", NULL};
  static const char *const smaller[] = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", NULL};
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
  if (mn_schema_equal(a, b)) return a;
  if (!strcmp(key, "const")) return fail_as_nothing(m, "wants two constants at once");
  if (!strcmp(key, "pattern")) {
    const mn_value *excluding = mn_schema_exclude_both(m->arena, a, b);
    return excluding ? excluding : fail(m, "has two patterns that must hold at once");
  }
  if (!strcmp(key, "format")) return fail(m, "has two formats that must hold at once");
  if (!strcmp(key, "multipleOf")) return fail(m, "has two multipleOf that must hold at once");
  if (!strcmp(key, "oneOf")) return fail(m, "has two lists of oneOf that must hold at once");
  if (!strcmp(key, "prefixItems")) return fail(m, "has two prefixItems that must hold at once");
  for (int i = 0; single[i]; i++)
    if (!strcmp(key, single[i])) return fail(m, "has patternProperties, additionalItems or contentEncoding twice, which must hold at once");
  return b; /* what only describes; anything else is refused by its name later */
}

/* Without keys that speak of what is not beside them: they must not speak of the other's. NULL: no memory. */
static const mn_value *of_its_own(merger *m, const mn_value *schema) {
  static const char *const all[] = {"minContains", "maxContains", "additionalItems"};
  for (int i = 0; schema && i < 3; i++)
    if (mn_value_get(schema, all[i]) && schema_says_nothing(schema, all[i]))
      schema = mn_schema_without(m->arena, schema, (const char *const[]){all[i], NULL});
  return schema;
}

static const mn_value *merge(mn_arena *arena, const mn_value *a, const mn_value *b, double *left, schema_why *why, int depth) {
  merger m = {.arena = arena, .left = left, .why = why, .a = a, .b = b, .depth = depth};
  *why = (schema_why){0};
  if (is_false(a) || is_false(b)) return fail_as_nothing(&m, "wants what is false, which no value fits");
  if (a->kind == MN_BOOLEAN) return b;
  if (b->kind == MN_BOOLEAN) return a;
  if (a->kind != MN_MAP || b->kind != MN_MAP) return fail(&m, "is not a map");
  if (a->count > MOST || b->count > MOST) return fail(&m, "has more than 64 keys");
  if (!(m.a = a = of_its_own(&m, a)) || !(m.b = b = of_its_own(&m, b)) || !(b = within(&m, b))) return NULL;
  if (mn_value_get(a, "contains") && mn_value_get(b, "contains")) return fail(&m, "has two contains that must hold at once");
  for (size_t i = 0; i < a->count; i++) {
    const mn_entry *e = &a->as.entries[i];
    const mn_value *other = mn_value_get(b, e->key);
    if (!strcmp(e->key, "properties")) continue;
    if (!other && !take_alone(&m, e, a, b, true)) return NULL;
    if (!other) continue;
    m.keys[m.n] = e->key;
    if (!(m.values[m.n++] = merged(&m, e->key, e->value, other))) return NULL;
  }
  for (size_t i = 0; i < b->count; i++) {
    const mn_entry *e = &b->as.entries[i];
    if (mn_value_get(a, e->key) || !strcmp(e->key, "properties")) continue;
    if (!take_alone(&m, e, b, a, false)) return NULL;
  }
  if (mn_value_get(a, "properties") || mn_value_get(b, "properties")) {
    m.keys[m.n] = "properties";
    if (!(m.values[m.n++] = properties(&m, a, b))) return NULL;
  }
  return mn_value_map(arena, m.n, m.keys, m.values);
}

const mn_value *mn_schema_merge(mn_arena *arena, const mn_value *a, const mn_value *b, double *left, schema_why *why) {
  return merge(arena, a, b, left, why, 0);
}

/* ---- ways that are merged at once ---- */
static bool requires(const mn_value *schema, const char *key) {
  const mn_value *list = mn_value_get(schema, "required");
  for (size_t i = 0; list && list->kind == MN_LIST && i < list->count; i++)
    if (list->as.items[i]->kind == MN_TEXT && !strcmp(list->as.items[i]->as.text, key)) return true;
  return false;
}

typedef struct conjunction { /* schemas that must all hold */
  const mn_value *plain, *others[MOST];
  size_t n;
  bool none, unknown; /* no value fits; or they are left as they are */
} conjunction;

static bool has_any(const mn_value *schema, const char *const *keys) {
  for (int i = 0; keys[i]; i++)
    if (mn_value_get(schema, keys[i])) return true;
  return false;
}

static bool is_only(const mn_value *schema, const char *word) {
  const mn_value *type = mn_value_get(schema, "type");
  return type && type->kind == MN_TEXT && !strcmp(type->as.text, word);
}

static bool says_no_type_of_objects(const mn_value *schema) {
  return !mn_value_get(schema, "type") && (mn_value_get(schema, "properties") || mn_value_get(schema, "required"));
}

/* A property that is required, and that no value fits: of objects alone. */
static bool lacks_required(merger *m, const mn_value *way, bool ways) {
  const mn_value *of[] = {way, ways ? m->a : NULL, ways ? m->b : NULL}, *map = mn_value_get(way, "properties");
  bool objects = false;
  for (int i = 0; i < 3; i++) objects = objects || (of[i] && (is_only(of[i], "object") || (i && says_no_type_of_objects(of[i]))));
  for (size_t i = 0; objects && map && map->kind == MN_MAP && i < map->count; i++) {
    if (!is_false(map->as.entries[i].value)) continue;
    for (int k = 0; k < 3; k++)
      if (of[k] && spend(m->left, mn_schema_weight(mn_value_get(of[k], "required"))) && requires(of[k], map->as.entries[i].key))
        return true;
  }
  return false;
}

static void add_plain(merger *m, conjunction *c, const mn_value *schema) {
  schema_why why = {0};
  const mn_value *out = c->plain ? merge(m->arena, c->plain, schema, m->left, &why, m->depth + 1) : schema;
  if (out) c->plain = out;
  else if (why.nothing) c->none = true;
  else if (c->n < MOST && why.text) c->others[c->n++] = schema; /* what is refused, where it is made */
  else c->unknown = true;
}

static void add_all(merger *m, conjunction *c, const mn_value *schema, int depth) {
  static const char *const unknown[] = {"unevaluatedProperties", NULL}, *const nullable[] = {"nullable"};
  static const char *const hidden[] = {"$ref", "allOf",    "oneOf",       "if",          "then", "else",
                                       "not",  "contains", "minContains", "maxContains", NULL};
  const mn_value *list = mn_value_get(schema, "allOf"), *null = mn_value_get(schema, "nullable");
  if (!spend(m->left, A_MERGE) || c->none || c->unknown) return;
  if (schema->kind == MN_BOOLEAN) c->none = !schema->as.boolean;
  else if (schema->kind != MN_MAP || depth == MOST || has_any(schema, unknown) || (null && !is_false(null))) c->unknown = true;
  else if (list && list->kind == MN_LIST && schema->count == (null ? 2 : 1)) {
    for (size_t i = 0; i < list->count; i++) add_all(m, c, list->as.items[i], depth + 1);
    const mn_value *kept_out = null && !c->none ? mn_value_map(m->arena, 1, nullable, &null) : NULL;
    if (kept_out) add_plain(m, c, kept_out);
    else c->unknown = c->unknown || (null && !c->none);
  } else if (!has_any(schema, hidden)) add_plain(m, c, schema);
  else if (c->n < MOST) c->others[c->n++] = schema;
  else c->unknown = true;
}

/* Both, merged as far as that is known here: false where no value fits both, and NULL where comparisons or memory ran out. Of ways, what stands
 * beside them is required, too. */
static const mn_value *at_once(merger *m, const mn_value *a, const mn_value *b, bool ways) {
  static const char *const all_of[] = {"allOf"};
  if (m->depth >= MOST_DEPTH) return later(m, a, b);
  conjunction *c = mn_arena_alloc(m->arena, sizeof *c);
  if (!c) return NULL;
  *c = (conjunction){0};
  add_all(m, c, a, 0);
  add_all(m, c, b, 0);
  const bool none =
      c->none || (!c->unknown && c->plain && (mn_schema_admits_nothing(c->plain, m->left) || lacks_required(m, c->plain, ways)));
  if (*m->left < 0) return spent(m);
  if (none) return mn_value_bool(m->arena, false);
  if (c->unknown || c->n == MOST) return later(m, a, b);
  if (c->plain) c->others[c->n++] = c->plain;
  if (!c->n) return mn_value_bool(m->arena, true);
  if (c->n == 1) return c->others[0];
  const mn_value *list = mn_value_list(m->arena, c->n, c->others);
  return list ? mn_value_map(m->arena, 1, all_of, &list) : NULL;
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

/* What it says of properties that it does not name; NULL: nothing. */
static const mn_value *others_of(const mn_value *schema) {
  const mn_value *others = mn_value_get(schema, "additionalProperties");
  return others ? others : mn_value_get(schema, "unevaluatedProperties");
}

/* May what is made for the schema have this property? */
static bool may_have(const mn_value *schema, const char *key) {
  const mn_value *named = mn_value_get(schema, "properties"), *others = others_of(schema);
  if (mn_value_get(schema, "patternProperties") || requires(schema, key)) return true;
  return mn_value_get(named, key) || (others ? !is_false(others) : !named);
}

/* Is an object that is made for `made` never one of `other`, as a property is missing or forbidden? */
static bool lacks(const mn_value *made, const mn_value *other) {
  const mn_value *wanted = mn_value_get(other, "required"), *has = mn_value_get(made, "required"),
                 *named = mn_value_get(other, "properties");
  const bool closed = is_false(others_of(other)) && !mn_value_get(other, "patternProperties");
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
  static const char *const hidden[] = {"$ref", "anyOf", "oneOf", "allOf", "if", "not", NULL};
  if (a->kind != MN_MAP || b->kind != MN_MAP) return is_false(a) || is_false(b);
  if (!spend(left, 32.0 + (double)(a->count + b->count))) return false;
  for (int i = 0; hidden[i]; i++)
    if (mn_value_get(a, hidden[i]) || mn_value_get(b, hidden[i])) return false;
  if ((is_true(mn_value_get(a, "nullable")) || is_true(mn_value_get(b, "nullable"))) && takes_null(a) && takes_null(b)) return false;
  const mn_value *x = mn_value_get(a, "type"), *y = mn_value_get(b, "type");
  const mn_value *const *some, *const *others, *one, *other;
  const char *names[8];
  const size_t n = values_of(a, &some, &one), k = values_of(b, &others, &other);
  double costs = 16.0 * (double)(length_of(x) + length_of(y));
  for (size_t i = 0; i < n; i++) costs += mn_schema_weight(some[i]) * (double)k;
  if (!spend(left, costs)) return false;
  bool shared = !n || !k;
  for (size_t i = 0; i < n && !shared; i++)
    for (size_t j = 0; j < k && !shared; j++) shared = mn_schema_equal(some[i], others[j]);
  if (!shared) return true;
  if (x && y && !common_types(x, y, names)) return true;
  return is_object(a) && is_object(b) && objects_apart(a, b, left);
}
