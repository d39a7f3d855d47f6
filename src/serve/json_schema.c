/* json_schema.c - see json_schema.h. */
#include "serve/json_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/json.h"
#include "serve/json_rules.h"

enum { MOST_DEPTH = 64, MOST_REFS = 512, MOST_COUNT = 4096 };

typedef struct reference { /* a place of the schema that is a rule */
  const mn_value *at;
  int32_t rule;
} reference;

typedef struct compiler {
  mn_grammar *g;
  json_rules rules;
  const mn_value *root;
  reference *refs;
  int n_refs, depth;
  mn_status status;
} compiler;

static mn_bytes_node value_of(compiler *c, const mn_value *schema, mn_bytes_node next);

static mn_bytes_node refuse(compiler *c, const mn_value *at, const char *what) {
  if (c->status == MN_OK) c->status = mn_fail(MN_ERR_CONFIG, "the schema%s%s %s", at && *at->path ? " at " : "", at ? at->path : "", what);
  return MN_NO_NODE;
}

static const char *text_of(const mn_value *v) { return v && v->kind == MN_TEXT ? v->as.text : NULL; }

/* ---- literals ---- */
static mn_bytes_node literal(compiler *c, const mn_value *v, mn_bytes_node next) {
  mn_text t = {0};
  mn_status status = mn_value_to_json(v, 0, &t);
  if (status == MN_OK) status = mn_text_status(&t);
  if (status != MN_OK) c->status = c->status == MN_OK ? status : c->status;
  else next = mn_grammar_text(c->g, t.data, t.len, next);
  mn_text_free(&t);
  return next;
}

static mn_bytes_node one_of(compiler *c, const mn_value *list, mn_bytes_node next) {
  mn_bytes_node out = MN_NO_NODE;
  if (list->kind != MN_LIST || !list->count) return refuse(c, list, "has an enum that is not a list of values");
  for (size_t i = 0; i < list->count; i++) {
    const mn_bytes_node one = literal(c, list->as.items[i], next);
    out = i ? mn_grammar_either(c->g, out, one) : one;
  }
  return out;
}

/* ---- counts ---- */
static bool read_count(compiler *c, const mn_value *schema, const char *key, int64_t *out) {
  const mn_value *v = mn_value_get(schema, key);
  if (!v) return true;
  if (v->kind != MN_INTEGER || v->as.integer < 0) return refuse(c, v, "has a count that is not a number from 0 on"), false;
  if (v->as.integer > MOST_COUNT) return refuse(c, v, "counts to more than 4096: the grammar would explode"), false;
  *out = v->as.integer;
  return true;
}

static mn_bytes_node string_of(compiler *c, const mn_value *schema, mn_bytes_node next) {
  int64_t least = 0, most = -1;
  const mn_value *format = mn_value_get(schema, "format");
  const bool counted = mn_value_get(schema, "minLength") || mn_value_get(schema, "maxLength");
  if (!read_count(c, schema, "minLength", &least) || !read_count(c, schema, "maxLength", &most)) return MN_NO_NODE;
  if (format) {
    const int32_t rule = text_of(format) ? json_format(c->g, text_of(format)) : -1;
    if (rule < 0) return refuse(c, format, "has a format that is not known here: date, time, date-time and uuid are");
    if (counted) return refuse(c, schema, "has both a format and a length");
    return mn_grammar_call(c->g, rule, next);
  }
  if (!counted) return mn_grammar_call(c->g, c->rules.string, next);
  if (most >= 0 && most < least) return refuse(c, schema, "has a maxLength below its minLength");
  next = mn_grammar_text(c->g, "\"", 1, next);
  if (most < 0) {
    const mn_bytes_node around = mn_grammar_place(c->g);
    mn_grammar_put(c->g, around, mn_grammar_either(c->g, mn_grammar_call(c->g, c->rules.sign, around), next));
    next = around;
  }
  const mn_bytes_node end = next;
  for (int64_t i = most; i > least; i--) next = mn_grammar_either(c->g, mn_grammar_call(c->g, c->rules.sign, next), end);
  for (int64_t i = 0; i < least; i++) next = mn_grammar_call(c->g, c->rules.sign, next);
  return mn_grammar_text(c->g, "\"", 1, next);
}

static mn_bytes_node integer_of(compiler *c, const mn_value *schema, mn_bytes_node next) {
  const mn_value *low = mn_value_get(schema, "minimum"), *high = mn_value_get(schema, "maximum");
  if (!low && !high) return mn_grammar_call(c->g, c->rules.integer, next);
  if ((low && low->kind != MN_INTEGER) || (high && high->kind != MN_INTEGER))
    return refuse(c, schema, "has a bound of an integer that is none");
  const mn_bytes_node out = json_integers(c->g, low ? low->as.integer : INT64_MIN, high ? high->as.integer : INT64_MAX, next);
  return out == MN_NO_NODE && mn_grammar_nodes(c->g) < MN_GRAMMAR_NODES ? refuse(c, schema, "has bounds between which no integer is") : out;
}

/* ---- arrays ---- */
static mn_bytes_node item_of(compiler *c, const mn_value *items, mn_bytes_node next) {
  return items && items->kind == MN_MAP ? value_of(c, items, next) : mn_grammar_call(c->g, c->rules.value, next);
}

/* What follows the i-th item (i of them are said), up to the end. */
static mn_bytes_node array_of(compiler *c, const mn_value *schema, mn_bytes_node next) {
  const mn_value *items = mn_value_get(schema, "items"), *prefix = mn_value_get(schema, "prefixItems");
  int64_t least = 0, most = -1;
  const int64_t first = prefix && prefix->kind == MN_LIST ? (int64_t)prefix->count : 0;
  if (!read_count(c, schema, "minItems", &least) || !read_count(c, schema, "maxItems", &most)) return MN_NO_NODE;
  if (prefix && prefix->kind != MN_LIST) return refuse(c, prefix, "has prefixItems that are not a list");
  if (items && items->kind == MN_BOOLEAN && !items->as.boolean) most = most < 0 || most > first ? first : most;
  else if (items && items->kind != MN_MAP && items->kind != MN_BOOLEAN) return refuse(c, items, "has items that are not a schema");
  if (most >= 0 && most < least) return refuse(c, schema, "has a maxItems below its minItems");
  mn_grammar *g = c->g;
  const mn_bytes_node end = mn_grammar_call(g, c->rules.space, mn_grammar_text(g, "]", 1, next));
  const int64_t one_by_one = most >= 0 ? most : least > first ? least : first;
  mn_bytes_node at = end;
  if (most < 0) { /* any number more */
    const mn_bytes_node more = mn_grammar_place(g);
    const mn_bytes_node item = mn_grammar_call(g, c->rules.comma, item_of(c, items, more));
    mn_grammar_put(g, more, mn_grammar_either(g, item, end));
    at = more;
    if (one_by_one == 0) at = mn_grammar_either(g, mn_grammar_call(g, c->rules.space, item_of(c, items, more)), end);
  }
  for (int64_t i = one_by_one - 1; i >= 0 && c->status == MN_OK; i--) { /* the i-th item, and what follows it */
    const mn_bytes_node item = item_of(c, i < first ? prefix->as.items[i] : items, at);
    at = mn_grammar_call(g, i ? c->rules.comma : c->rules.space, item);
    if (i >= least) at = mn_grammar_either(g, at, end);
  }
  return mn_grammar_text(g, "[", 1, at);
}

/* ---- objects ---- */
static bool is_required(const mn_value *required, const char *key) {
  for (size_t i = 0; required && required->kind == MN_LIST && i < required->count; i++)
    if (required->as.items[i]->kind == MN_TEXT && !strcmp(required->as.items[i]->as.text, key)) return true;
  return false;
}

static mn_bytes_node pair(compiler *c, const char *key, const mn_value *schema, mn_bytes_node next) {
  mn_text t = {0};
  mn_json_quote(&t, key);
  mn_bytes_node at = mn_grammar_call(c->g, c->rules.colon, value_of(c, schema, next));
  if (mn_text_status(&t) == MN_OK) at = mn_grammar_text(c->g, t.data, t.len, at);
  mn_text_free(&t);
  return at;
}

/* Pairs whose keys the schema does not name: a list of any length, behind others (`after` leads there) or as the first. */
static void others(compiler *c, const mn_value *extra, mn_bytes_node end, mn_bytes_node *first, mn_bytes_node *after) {
  mn_grammar *g = c->g;
  const mn_bytes_node more = mn_grammar_place(g);
  const mn_bytes_node one = mn_grammar_call(g, c->rules.string, mn_grammar_call(g, c->rules.colon, item_of(c, extra, more)));
  mn_grammar_put(g, more, mn_grammar_either(g, mn_grammar_call(g, c->rules.comma, one), end));
  *after = more;
  *first = mn_grammar_either(g, mn_grammar_call(g, c->rules.space, one), end);
}

static mn_bytes_node object_of(compiler *c, const mn_value *schema, mn_bytes_node next) {
  const mn_value *properties = mn_value_get(schema, "properties"), *required = mn_value_get(schema, "required"),
                 *extra = mn_value_get(schema, "additionalProperties");
  mn_grammar *g = c->g;
  const mn_bytes_node end = mn_grammar_call(g, c->rules.space, mn_grammar_text(g, "}", 1, next));
  mn_bytes_node first = end, after = end; /* where nothing was said yet, and where something was */
  if (properties && properties->kind != MN_MAP) return refuse(c, properties, "has properties that are not a map");
  if (required && required->kind != MN_LIST) return refuse(c, required, "has required that is not a list");
  const bool open = extra ? extra->kind != MN_BOOLEAN || extra->as.boolean : !properties;
  if (open) others(c, extra, end, &first, &after);
  for (size_t i = 0; required && i < required->count; i++) {
    const char *key = text_of(required->as.items[i]);
    if (!key || !mn_value_get(properties, key)) return refuse(c, required, "requires a property that it does not describe");
  }
  for (size_t i = properties ? properties->count : 0; i-- > 0 && c->status == MN_OK;) {
    const mn_entry *e = &properties->as.entries[i];
    const mn_bytes_node one = pair(c, e->key, e->value, after);
    const mn_bytes_node as_first = mn_grammar_call(g, c->rules.space, one), as_next = mn_grammar_call(g, c->rules.comma, one);
    const bool must = is_required(required, e->key);
    first = must ? as_first : mn_grammar_either(g, as_first, first);
    after = must ? as_next : mn_grammar_either(g, as_next, after);
  }
  return mn_grammar_text(g, "{", 1, first);
}

/* ---- references ---- */
/* "#/$defs/name/...": the place in the schema; NULL: there is none. */
static const mn_value *look_up(compiler *c, const char *ref) {
  const mn_value *at = c->root;
  if (*ref++ != '#') return NULL;
  while (*ref == '/' && at) {
    char key[256];
    size_t n = 0;
    for (ref++; *ref && *ref != '/' && n + 1 < sizeof key; ref++) {
      if (*ref == '~' && (ref[1] == '0' || ref[1] == '1')) key[n++] = *++ref == '0' ? '~' : '/';
      else key[n++] = *ref;
    }
    key[n] = 0;
    if (at->kind == MN_LIST) {
      char *end;
      const long i = strtol(key, &end, 10);
      at = *key && !*end && i >= 0 && (size_t)i < at->count ? at->as.items[i] : NULL;
    } else at = mn_value_get(at, key);
  }
  return *ref ? NULL : at;
}

static mn_bytes_node reference_to(compiler *c, const mn_value *ref, mn_bytes_node next) {
  const mn_value *at = text_of(ref) ? look_up(c, text_of(ref)) : NULL;
  if (!at) return refuse(c, ref, "has a $ref that leads nowhere: it begins with '#', and names a place of this schema");
  for (int i = 0; i < c->n_refs; i++)
    if (c->refs[i].at == at) return mn_grammar_call(c->g, c->refs[i].rule, next);
  if (c->n_refs == MOST_REFS) return refuse(c, ref, "has more than 512 places that $ref leads to");
  const int32_t rule = mn_grammar_rule(c->g);
  c->refs[c->n_refs++] = (reference){at, rule};
  mn_grammar_define(c->g, rule, value_of(c, at, mn_grammar_return(c->g)));
  return mn_grammar_call(c->g, rule, next);
}

/* ---- a schema ---- */
static const char *const describing[] = {"title",       "description", "default",  "examples",  "$schema", "$id",  "$comment", "$defs",
                                         "definitions", "deprecated",  "readOnly", "writeOnly", "strict",  "name", NULL};
static const char *const known[] = {"type",   "enum",        "const",    "properties", "required",  "additionalProperties",
                                    "items",  "prefixItems", "minItems", "maxItems",   "minLength", "maxLength",
                                    "format", "minimum",     "maximum",  "anyOf",      "oneOf",     "allOf",
                                    "$ref",   NULL};

static bool among(const char *const *words, const char *word) {
  for (; *words; words++)
    if (!strcmp(*words, word)) return true;
  return false;
}

/* Of what type's values a key speaks, where it speaks of one. */
static const char *type_of_key(const char *key) {
  if (!strcmp(key, "properties") || !strcmp(key, "required") || !strcmp(key, "additionalProperties")) return "object";
  if (!strcmp(key, "items") || !strcmp(key, "prefixItems") || !strcmp(key, "minItems") || !strcmp(key, "maxItems")) return "array";
  if (!strcmp(key, "minLength") || !strcmp(key, "maxLength") || !strcmp(key, "format")) return "string";
  if (!strcmp(key, "minimum") || !strcmp(key, "maximum")) return "integer";
  return NULL;
}

static mn_bytes_node typed(compiler *c, const mn_value *schema, const char *type, mn_bytes_node next) {
  if (!strcmp(type, "object")) return object_of(c, schema, next);
  if (!strcmp(type, "array")) return array_of(c, schema, next);
  if (!strcmp(type, "string")) return string_of(c, schema, next);
  if (!strcmp(type, "integer")) return integer_of(c, schema, next);
  if (!strcmp(type, "number")) {
    if (mn_value_get(schema, "minimum") || mn_value_get(schema, "maximum"))
      return refuse(c, schema, "has bounds of a number: only those of integers can be kept");
    return mn_grammar_call(c->g, c->rules.number, next);
  }
  if (!strcmp(type, "boolean"))
    return mn_grammar_either(c->g, mn_grammar_text(c->g, "true", 4, next), mn_grammar_text(c->g, "false", 5, next));
  if (!strcmp(type, "null")) return mn_grammar_text(c->g, "null", 4, next);
  return refuse(c, mn_value_get(schema, "type"), "has an unknown type");
}

static mn_bytes_node any_of(compiler *c, const mn_value *list, mn_bytes_node next) {
  mn_bytes_node out = MN_NO_NODE;
  if (list->kind != MN_LIST || !list->count) return refuse(c, list, "has anyOf that is not a list of schemas");
  for (size_t i = 0; i < list->count && c->status == MN_OK; i++) {
    const mn_bytes_node one = value_of(c, list->as.items[i], next);
    out = i ? mn_grammar_either(c->g, out, one) : one;
  }
  return out;
}

static mn_bytes_node of_types(compiler *c, const mn_value *schema, const mn_value *type, mn_bytes_node next) {
  mn_bytes_node out = MN_NO_NODE;
  if (type->kind == MN_TEXT) return typed(c, schema, type->as.text, next);
  if (type->kind != MN_LIST || !type->count) return refuse(c, type, "has a type that is neither a word nor a list of words");
  for (size_t i = 0; i < type->count && c->status == MN_OK; i++) {
    if (type->as.items[i]->kind != MN_TEXT) return refuse(c, type, "has a type that is neither a word nor a list of words");
    const mn_bytes_node one = typed(c, schema, type->as.items[i]->as.text, next);
    out = i ? mn_grammar_either(c->g, out, one) : one;
  }
  return out;
}

/* Keys that say alone what a value is: none of the others may stand beside them. */
static mn_bytes_node alone(compiler *c, const mn_value *schema, const char *key, mn_bytes_node next) {
  for (size_t i = 0; i < schema->count; i++) {
    const char *other = schema->as.entries[i].key;
    const bool with_enum = (!strcmp(key, "enum") || !strcmp(key, "const")) && !strcmp(other, "type"); /* says what they show */
    if (strcmp(other, key) != 0 && among(known, other) && !with_enum)
      return refuse(c, schema, "has keys that say what a value is in two ways: enum, const, anyOf, allOf and $ref stand alone");
  }
  const mn_value *v = mn_value_get(schema, key);
  if (!strcmp(key, "$ref")) return reference_to(c, v, next);
  if (!strcmp(key, "const")) return literal(c, v, next);
  if (!strcmp(key, "enum")) return one_of(c, v, next);
  if (!strcmp(key, "allOf")) {
    if (v->kind != MN_LIST || v->count != 1) return refuse(c, v, "has allOf of other than one schema");
    return value_of(c, v->as.items[0], next);
  }
  return any_of(c, v, next);
}

static mn_bytes_node value_at(compiler *c, const mn_value *schema, mn_bytes_node next) {
  static const char *const lone[] = {"$ref", "const", "enum", "anyOf", "oneOf", "allOf", NULL};
  if (schema->kind == MN_BOOLEAN && schema->as.boolean) return mn_grammar_call(c->g, c->rules.value, next);
  if (schema->kind != MN_MAP) return refuse(c, schema, "is not a map");
  for (size_t i = 0; i < schema->count; i++) {
    const char *key = schema->as.entries[i].key;
    char what[160], shown[MN_PRINTABLE];
    if (among(known, key) || among(describing, key)) continue;
    snprintf(what, sizeof what, "has the key '%.100s', which is not known here", mn_printable(key, shown));
    return refuse(c, schema, what);
  }
  for (int i = 0; lone[i]; i++)
    if (mn_value_get(schema, lone[i])) return alone(c, schema, lone[i], next);
  const mn_value *type = mn_value_get(schema, "type");
  if (type) {
    for (size_t i = 0; i < schema->count; i++) { /* what no type of it has would have no effect */
      const char *of = type_of_key(schema->as.entries[i].key);
      bool has = !of;
      if (of && type->kind == MN_TEXT) has = !strcmp(type->as.text, of) || (!strcmp(of, "integer") && !strcmp(type->as.text, "number"));
      for (size_t k = 0; of && type->kind == MN_LIST && k < type->count; k++)
        has = has || (text_of(type->as.items[k]) && !strcmp(text_of(type->as.items[k]), of));
      if (!has) return refuse(c, schema, "has keys of another type than its own, which would have no effect");
    }
    return of_types(c, schema, type, next);
  }
  const char *of = NULL;
  for (size_t i = 0; i < schema->count; i++) {
    const char *one = type_of_key(schema->as.entries[i].key);
    if (of && one && strcmp(of, one) != 0) return refuse(c, schema, "says no type, and has keys of two");
    of = one ? one : of;
  }
  return of ? typed(c, schema, of, next) : mn_grammar_call(c->g, c->rules.value, next);
}

static mn_bytes_node value_of(compiler *c, const mn_value *schema, mn_bytes_node next) {
  if (c->status != MN_OK || mn_grammar_nodes(c->g) >= MN_GRAMMAR_NODES) return MN_NO_NODE;
  if (c->depth == MOST_DEPTH) return refuse(c, schema, "is nested more than 64 deep");
  c->depth++;
  const mn_bytes_node out = value_at(c, schema, next);
  c->depth--;
  return out;
}

/* ---- whole ---- */
static mn_status finish(mn_grammar *g, mn_status status, int32_t rule, mn_grammar **out) {
  if (status == MN_OK) status = mn_grammar_end(g, rule);
  if (status != MN_OK) mn_grammar_free(g);
  else *out = g;
  return status;
}

mn_status mn_grammar_of_json(bool only_object, mn_grammar **out) {
  mn_grammar *g;
  *out = NULL;
  MN_TRY(mn_grammar_new(&g));
  const json_rules r = json_rules_of(g);
  return finish(g, MN_OK, only_object ? r.object : r.value, out);
}

mn_status mn_grammar_of_schema(const mn_value *schema, mn_grammar **out) {
  compiler c = {.root = schema};
  *out = NULL;
  MN_TRY(mn_grammar_new(&c.g));
  c.refs = mn_calloc(MOST_REFS, sizeof *c.refs);
  if (!c.refs) {
    mn_grammar_free(c.g);
    return MN_ERR_MEMORY;
  }
  c.rules = json_rules_of(c.g);
  const int32_t rule = mn_grammar_rule(c.g);
  mn_grammar_define(c.g, rule, value_of(&c, schema, mn_grammar_return(c.g)));
  free(c.refs);
  return finish(c.g, c.status, rule, out);
}

mn_status mn_grammar_of_calls(const mn_value *tools, const char *only, mn_grammar **out) {
  compiler c = {0};
  mn_bytes_node any = MN_NO_NODE;
  *out = NULL;
  MN_TRY(mn_grammar_new(&c.g));
  c.refs = mn_calloc(MOST_REFS, sizeof *c.refs);
  if (!c.refs) {
    mn_grammar_free(c.g);
    return MN_ERR_MEMORY;
  }
  c.rules = json_rules_of(c.g);
  const int32_t rule = mn_grammar_rule(c.g);
  for (size_t i = 0; i < tools->count && c.status == MN_OK; i++) {
    const mn_value *f = mn_value_get(tools->as.items[i], "function"), *name = mn_value_get(f, "name"),
                   *parameters = mn_value_get(f, "parameters");
    if (only && strcmp(name->as.text, only) != 0) continue;
    mn_bytes_node at = mn_grammar_text(c.g, "}", 1, mn_grammar_return(c.g));
    c.root = parameters; /* $ref is within one function's */
    at = parameters ? value_of(&c, parameters, at) : mn_grammar_text(c.g, "{}", 2, at);
    at = mn_grammar_text(c.g, ", \"arguments\": ", 15, at);
    at = mn_grammar_text(c.g, "{\"name\": ", 9, literal(&c, name, at));
    any = any == MN_NO_NODE ? at : mn_grammar_either(c.g, any, at);
  }
  mn_grammar_define(c.g, rule, any);
  free(c.refs);
  return finish(c.g, c.status, rule, out);
}
