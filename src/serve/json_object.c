/* json_object.c - objects of a schema as parts of a grammar: properties in their order, and others. */
#include <stdlib.h>
#include <string.h>

#include "format/json.h"
#include "serve/json_schema_internal.h"
#include "serve/schema_keys.h"
#include "serve/schema_merge.h"

enum { MOST_NAME = 256 }; /* bytes of a name beside others: other_key goes as deep */

static mn_bytes_node pair(schema_compiler *c, const char *key, const mn_value *schema, mn_bytes_node next) {
  mn_text t = {0};
  mn_json_quote(&t, key);
  mn_bytes_node at = mn_grammar_call(c->g, c->rules.colon, schema_value(c, schema, next));
  if (mn_text_status(&t) == MN_OK) at = mn_grammar_text(c->g, t.data, t.len, at);
  mn_text_free(&t);
  return at;
}

/* A key that is none of the named ones: of ASCII and without escapes, so that it cannot be one in other letters. From the place behind
 * `depth` letters, which the keys of [from, to) share. */
typedef struct key_names {
  const char **all; /* sorted */
  size_t n;
  mn_bytes_node end, any; /* behind the key; its rest, where it can be none of them any more */
} key_names;

static mn_bytes_node other_key(schema_compiler *c, const key_names *k, size_t from, size_t to, size_t depth) {
  mn_grammar *g = c->g;
  const bool named = from < to && !k->all[from][depth];
  mn_bytes_node out = named ? MN_NO_NODE : mn_grammar_text(g, "\"", 1, k->end);
  from += named;
  for (int b = ' '; b <= '~';) {
    size_t until = from;
    while (until < to && (unsigned char)k->all[until][depth] == b) until++;
    int last = b;
    if (until == from && b != '"' && b != '\\') /* letters up to the next that a name has there */
      for (int next = from < to ? (unsigned char)k->all[from][depth] : 127;
           last + 1 < next && last < '~' && last + 1 != '"' && last + 1 != '\\';)
        last++;
    if (b != '"' && b != '\\' && mn_grammar_nodes(g) < MN_GRAMMAR_NODES) {
      const mn_bytes_node one = mn_grammar_range(g, b, last, until > from ? other_key(c, k, from, until, depth + 1) : k->any);
      out = out == MN_NO_NODE ? one : mn_grammar_either(g, out, one);
    }
    from = until, b = last + 1;
  }
  return out;
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static mn_bytes_node key_beside(schema_compiler *c, const mn_value *properties, const mn_value *keys, mn_bytes_node next) {
  mn_grammar *g = c->g;
  if (keys) return schema_value(c, keys, next);
  if (!properties || !properties->count) return mn_grammar_call(g, c->rules.string, next);
  key_names k = {mn_arena_alloc(c->arena, properties->count * sizeof *k.all), 0, next, mn_grammar_place(g)};
  for (size_t i = 0; k.all && i < properties->count; i++) {
    const char *key = properties->as.entries[i].key;
    bool plain = true; /* others are none that is made */
    for (const char *s = key; *s; s++) plain = plain && *s >= ' ' && *s <= '~' && *s != '"' && *s != '\\';
    if (plain && strlen(key) > MOST_NAME)
      return schema_refuse(c, properties,
                           "has a name of more than 256 bytes beside properties that it does not name: the grammar would explode");
    if (plain) k.all[k.n++] = key;
  }
  if (!k.all) return schema_refuse(c, properties, "needs more memory than there is");
  qsort(k.all, k.n, sizeof *k.all, by_text);
  const mn_bytes_node letter =
      mn_grammar_either(g, mn_grammar_either(g, mn_grammar_range(g, ' ', '!', k.any), mn_grammar_range(g, '#', '[', k.any)),
                        mn_grammar_range(g, ']', '~', k.any));
  mn_grammar_put(g, k.any, mn_grammar_either(g, letter, mn_grammar_text(g, "\"", 1, next)));
  return mn_grammar_text(g, "\"", 1, other_key(c, &k, 0, k.n, 0));
}

/* Pairs whose keys the schema does not name (`keys`: what they must fit, or NULL): a list of any length, behind others (`after` leads there)
 * or as the first. */
static void others(schema_compiler *c, const mn_value *properties, const mn_value *keys, const mn_value *extra, mn_bytes_node end,
                   mn_bytes_node *first, mn_bytes_node *after) {
  mn_grammar *g = c->g;
  const mn_bytes_node more = mn_grammar_place(g);
  const mn_bytes_node one = key_beside(c, properties, keys, mn_grammar_call(g, c->rules.colon, schema_item(c, extra, more)));
  mn_grammar_put(g, more, mn_grammar_either(g, mn_grammar_call(g, c->rules.comma, one), end));
  *after = more;
  *first = mn_grammar_either(g, mn_grammar_call(g, c->rules.space, one), end);
}

/* The properties, and behind them those that are required and not described, which are what others must be. (*must)[i]: the
 * i-th is required. */
static const mn_value *all_properties(schema_compiler *c, const mn_value *properties, const mn_value *required, const mn_value *extra,
                                      bool **must) {
  const size_t most = (properties ? properties->count : 0) + (required ? required->count : 0);
  if (!schema_spend(c, required, mn_schema_weight(required) * (double)most)) return NULL;
  const char **keys = mn_arena_alloc(c->arena, (most + 1) * sizeof *keys);
  *must = mn_arena_alloc(c->arena, (most + 1) * sizeof **must);
  const mn_value **values = mn_arena_alloc(c->arena, (most + 1) * sizeof *values), *any = mn_value_bool(c->arena, true);
  size_t n = 0;
  for (size_t i = 0; keys && values && *must && properties && i < properties->count; i++)
    keys[n] = properties->as.entries[i].key, values[n++] = properties->as.entries[i].value;
  for (size_t i = 0; keys && values && *must && required && i < required->count; i++) {
    const char *key = schema_text(required->as.items[i]);
    size_t k = 0;
    while (key && k < n && strcmp(keys[k], key) != 0) k++;
    if (!key) return schema_refuse(c, required, "has required that is not a list of texts"), NULL;
    if (k == n) keys[n] = key, values[n++] = extra ? extra : any;
    (*must)[k] = true;
  }
  const mn_value *out = keys && values && *must ? mn_value_map(c->arena, n, keys, values) : NULL;
  if (!out) schema_refuse(c, properties, "needs more memory than there is");
  return out;
}

static bool is_false(const mn_value *v) { return v && v->kind == MN_BOOLEAN && !v->as.boolean; }

/* ---- what names must be ---- */
static const mn_value *one_key(schema_compiler *c, const char *key, const mn_value *value) {
  return mn_value_map(c->arena, 1, &key, &value);
}

/* Does it say nothing of names but that they are texts and, where `key` is not NULL, what that one says? */
static bool says_alone(const mn_value *names, const char *key) {
  const mn_value *type = mn_value_get(names, "type");
  bool texts = !type || (schema_text(type) && !strcmp(schema_text(type), "string"));
  for (size_t i = 0; type && type->kind == MN_LIST && i < type->count; i++)
    texts = texts || (schema_text(type->as.items[i]) && !strcmp(schema_text(type->as.items[i]), "string"));
  for (size_t i = 0; i < names->count && texts; i++) {
    const char *one = names->as.entries[i].key;
    texts = !strcmp(one, "type") || schema_describes(one) || (key && !strcmp(one, key));
  }
  return texts;
}

/* The names of a propertyNames that is a list of them and nothing else; NULL: it is another. */
static const mn_value *list_of(schema_compiler *c, const mn_value *names) {
  const mn_value *one = mn_value_get(names, "const"), *list = mn_value_get(names, "enum");
  if (one && says_alone(names, "const")) return mn_value_list(c->arena, 1, &one);
  return list && list->kind == MN_LIST && says_alone(names, "enum") ? list : NULL;
}

static bool is_among(const mn_value *list, const char *key) {
  for (size_t i = 0; i < list->count; i++)
    if (schema_text(list->as.items[i]) && !strcmp(schema_text(list->as.items[i]), key)) return true;
  return false;
}

/* Names of a list: those that are named and not among them may not be there; where others may (open), those that are not named yet are what others
 * must be. */
static const mn_value *of_names(schema_compiler *c, const mn_value *named, const mn_value *list, bool open, const mn_value *extra) {
  const size_t most = named->count + list->count;
  if (!schema_spend(c, list, (mn_schema_weight(list) + mn_schema_weight(named)) * (double)most)) return NULL;
  const char **keys = mn_arena_alloc(c->arena, (most + 1) * sizeof *keys);
  const mn_value **values = mn_arena_alloc(c->arena, (most + 1) * sizeof *values), *any = mn_value_bool(c->arena, true),
                 *none = mn_value_bool(c->arena, false);
  size_t n = 0;
  for (size_t i = 0; keys && values && i < named->count; i++) {
    keys[n] = named->as.entries[i].key;
    values[n++] = is_among(list, named->as.entries[i].key) ? named->as.entries[i].value : none;
  }
  for (size_t i = 0; keys && values && open && i < list->count; i++) {
    const char *key = schema_text(list->as.items[i]);
    size_t k = 0;
    while (key && k < n && strcmp(keys[k], key) != 0) k++;
    if (key && k == n) keys[n] = key, values[n++] = extra ? extra : any;
  }
  const mn_value *out = keys && values ? mn_value_map(c->arena, n, keys, values) : NULL;
  if (!out) schema_refuse(c, list, "needs more memory than there is");
  return out;
}

typedef struct object {                 /* what is asked of one */
  const mn_value *named, *keys, *extra; /* properties; what the names of others must be, NULL: any; and their values */
  bool *musts, open;                    /* is the i-th property required; may there be others */
} object;

/* propertyNames, and patternProperties, which say the same of others alone. */
static bool read_names(schema_compiler *c, const mn_value *schema, object *o) {
  const mn_value *names = mn_value_get(schema, "propertyNames"), *by_pattern = mn_value_get(schema, "patternProperties");
  if (names && (names->kind == MN_MAP ? says_alone(names, NULL) : names->kind == MN_BOOLEAN && names->as.boolean)) names = NULL;
  if (by_pattern) {
    if (by_pattern->kind != MN_MAP || by_pattern->count != 1 || o->named->count || names)
      return schema_refuse(c, by_pattern, "has patternProperties that are not one pattern without other names"), false;
    o->keys = one_key(c, "pattern", mn_value_text(c->arena, by_pattern->as.entries[0].key));
    o->extra = by_pattern->as.entries[0].value, o->open = !is_false(o->extra);
  }
  if (!names) return true;
  if (is_false(names)) {
    o->named = of_names(c, o->named, mn_value_list(c->arena, 0, NULL), o->open, o->extra);
    o->open = false;
    return o->named != NULL;
  }
  if (names->kind != MN_MAP) return schema_refuse(c, names, "has propertyNames that are not a schema"), false;
  const mn_value *list = list_of(c, names);
  if (list) {
    o->named = of_names(c, o->named, list, o->open, o->extra);
    o->open = false;
    return o->named != NULL;
  }
  if (o->named->count) return schema_refuse(c, names, "has propertyNames beside names, of which a list alone is known here"), false;
  const mn_value *both[] = {one_key(c, "type", mn_value_text(c->arena, "string")), names};
  o->keys = one_key(c, "allOf", mn_value_list(c->arena, 2, both));
  return o->keys || (schema_refuse(c, names, "needs more memory than there is"), false);
}

/* Was a property refused that no value fits? One that need not be there is not made then. */
static bool is_left_out(schema_compiler *c, bool must) {
  mn_status last;
  return !must && schema_took_nothing(c, &last);
}

/* Were the others refused as no value, or no name, fits them? There are none then. */
static bool there_are_none(schema_compiler *c) {
  mn_status last;
  return schema_took_nothing(c, &last);
}

/* ---- how many there are ---- */
typedef struct counts {
  int64_t least, most; /* most -1: any number */
} counts;

/* Where n are there already, and the schema names no more: others, of which one alone is surely a name that was not there yet. */
static mn_bytes_node counted_others(schema_compiler *c, const counts *k, int64_t n, int32_t other, mn_bytes_node end, mn_bytes_node more) {
  const bool ends = n >= k->least, goes_on = other >= 0 && n + 1 >= k->least && (k->most < 0 || n < k->most);
  mn_bytes_node out = ends ? end : MN_NO_NODE;
  if (!goes_on) return out;
  const mn_bytes_node one = mn_grammar_call(c->g, n ? c->rules.comma : c->rules.space, mn_grammar_call(c->g, other, more));
  return ends ? mn_grammar_either(c->g, one, out) : one;
}

/* behind[i], i up to n + 1: what may follow the first of the others where i are there, up to the most. */
static void others_up_to(schema_compiler *c, const counts *k, int32_t other, mn_bytes_node end, mn_bytes_node *behind, int64_t n) {
  mn_grammar *g = c->g;
  if (k->most < 0) {
    const mn_bytes_node more = mn_grammar_place(g);
    mn_grammar_put(g, more, mn_grammar_either(g, mn_grammar_call(g, c->rules.comma, mn_grammar_call(g, other, more)), end));
    for (int64_t i = 0; i <= n + 1; i++) behind[i] = more;
    return;
  }
  for (int64_t i = k->most + 1; i <= n + 1; i++) behind[i] = MN_NO_NODE;
  for (int64_t i = k->most; i >= 0; i--) {
    const bool last = i == k->most;
    const mn_bytes_node next = last ? end : mn_grammar_call(g, c->rules.comma, mn_grammar_call(g, other, behind[i + 1]));
    behind[i] = last ? end : mn_grammar_either(g, next, end);
  }
}

static int32_t rule_of_pair(schema_compiler *c, const char *key, const mn_value *schema) {
  const int32_t rule = mn_grammar_rule(c->g);
  const mn_bytes_node begin = pair(c, key, schema, mn_grammar_return(c->g));
  mn_grammar_define(c->g, rule, begin == MN_NO_NODE ? mn_grammar_place(c->g) : begin);
  return rule;
}

static int32_t rule_of_others(schema_compiler *c, const object *o) {
  const int32_t rule = mn_grammar_rule(c->g);
  const mn_bytes_node value = schema_item(c, o->extra, mn_grammar_return(c->g));
  const mn_bytes_node begin = key_beside(c, o->named, o->keys, mn_grammar_call(c->g, c->rules.colon, value));
  mn_grammar_define(c->g, rule, begin == MN_NO_NODE ? mn_grammar_place(c->g) : begin);
  return rule;
}

/* The properties with how many of them are there: at[n] is what may follow where n are. Names are told apart as each stands once. */
static mn_bytes_node counted(schema_compiler *c, const mn_value *schema, const object *o, size_t n_musts, const counts *k,
                             mn_bytes_node end) {
  const int64_t named = (int64_t)o->named->count, most = k->most > named ? k->most : named;
  mn_grammar *g = c->g;
  mn_bytes_node *at = mn_arena_alloc(c->arena, (size_t)(most + 2) * sizeof *at),
                *behind = mn_arena_alloc(c->arena, (size_t)(most + 2) * sizeof *at);
  if (!at || !behind) return schema_refuse(c, schema, "needs more memory than there is");
  if (!schema_spend(c, schema, (double)(named + 1) * (double)(most + 1))) return MN_NO_NODE;
  int32_t other = o->open ? rule_of_others(c, o) : -1;
  if (there_are_none(c)) other = -1;
  if (other >= 0) others_up_to(c, k, other, end, behind, named);
  for (int64_t n = 0; n <= named; n++)
    at[n] = k->most >= 0 && n > k->most ? MN_NO_NODE : counted_others(c, k, n, other, end, behind[n + 1]);
  for (int64_t i = named; i-- > 0 && !schema_is_full(c);) {
    const mn_entry *e = &o->named->as.entries[i];
    const bool must = (size_t)i < n_musts && o->musts[i];
    if (is_false(e->value)) continue;
    const int32_t rule = rule_of_pair(c, e->key, e->value);
    if (is_left_out(c, must)) continue;
    for (int64_t n = 0; n <= i && !schema_is_full(c); n++) { /* at most i stand before it */
      mn_bytes_node one = at[n + 1];
      if (one != MN_NO_NODE) one = mn_grammar_call(g, n ? c->rules.comma : c->rules.space, mn_grammar_call(g, rule, one));
      at[n] = must || at[n] == MN_NO_NODE ? one : one == MN_NO_NODE ? at[n] : mn_grammar_either(g, one, at[n]);
    }
  }
  if (schema_is_full(c)) return MN_NO_NODE;
  if (at[0] != MN_NO_NODE) return at[0];
  c->nothing = !o->open && (o->extra || mn_value_get(schema, "propertyNames"));
  return schema_refuse(
      c, schema,
      "has minProperties or maxProperties that what it names cannot reach: counted are properties that it names, and one other "
      "where there may be others");
}

static bool read_counts(schema_compiler *c, const mn_value *schema, counts *k) {
  *k = (counts){.most = -1};
  return schema_count(c, schema, "minProperties", &k->least) && schema_most(c, schema, "maxProperties", k->least, &k->most);
}

mn_bytes_node schema_object(schema_compiler *c, const mn_value *schema, mn_bytes_node next) {
  const mn_value *properties = mn_value_get(schema, "properties"), *required = mn_value_get(schema, "required");
  counts k;
  object o = {.extra = mn_value_get(schema, "additionalProperties")};
  if (!o.extra) o.extra = mn_value_get(schema, "unevaluatedProperties"); /* what allOf and the like say is one with it by now */
  mn_grammar *g = c->g;
  const mn_bytes_node end = mn_grammar_call(g, c->rules.space, mn_grammar_text(g, "}", 1, next));
  mn_bytes_node first = end, after = end; /* where nothing was said yet, and where something was */
  if (properties && properties->kind != MN_MAP) return schema_refuse(c, properties, "has properties that are not a map");
  if (required && required->kind != MN_LIST) return schema_refuse(c, required, "has required that is not a list");
  if (!read_counts(c, schema, &k)) return MN_NO_NODE;
  o.open = o.extra ? !is_false(o.extra) : !properties;
  o.named = all_properties(c, properties, required, o.extra, &o.musts);
  const size_t n_musts = o.named ? o.named->count : 0; /* more are not required */
  if (!o.named || !read_names(c, schema, &o)) return MN_NO_NODE;
  for (size_t i = 0; i < n_musts; i++)
    if (is_false(o.named->as.entries[i].value) && o.musts[i])
      return schema_refuse_as_nothing(c, schema, "requires a property that may not be there");
  k.most = schema_most_made(k.most, k.least, (int64_t)n_musts);
  if (k.least || k.most >= 0) {
    first = counted(c, schema, &o, n_musts, &k, end);
    return first == MN_NO_NODE ? first : mn_grammar_text(g, "{", 1, first);
  }
  if (o.open) others(c, o.named, o.keys, o.extra, end, &first, &after);
  if (there_are_none(c)) first = after = end;
  for (size_t i = o.named->count; i-- > 0 && c->status == MN_OK;) {
    const mn_entry *e = &o.named->as.entries[i];
    const bool must = i < n_musts && o.musts[i];
    if (is_false(e->value)) continue;
    const mn_bytes_node one = pair(c, e->key, e->value, after);
    if (is_left_out(c, must)) continue;
    const mn_bytes_node as_first = mn_grammar_call(g, c->rules.space, one), as_next = mn_grammar_call(g, c->rules.comma, one);
    first = must ? as_first : mn_grammar_either(g, as_first, first);
    after = must ? as_next : mn_grammar_either(g, as_next, after);
  }
  return mn_grammar_text(g, "{", 1, first);
}
