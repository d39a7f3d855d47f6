/* schema_keys.c - see schema_keys.h. */
#include "serve/schema_keys.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "format/json.h"

typedef enum form { ANY, A_COUNT, A_NUMBER, A_TEXT, A_TRUTH, A_SCHEMA, SCHEMAS, SCHEMA_OR_LIST, A_MAP, TEXTS } form;

static const char *const describing[] = {"title",        "description", "default",       "examples", "$schema", "$id",
                                         "$comment",     "$defs",       "definitions",   "strict",   "name",    "deprecated",
                                         "readOnly",     "writeOnly",   "discriminator", "example",  "$anchor", "contentMediaType",
                                         "externalDocs", NULL};
static const struct known { /* and of what type's values a key speaks, where it speaks of one */
  const char *key, *of;
  form form; /* of those */
} known[] = {{"type", NULL, ANY},
             {"enum", NULL, ANY},
             {"const", NULL, ANY},
             {"anyOf", NULL, ANY},
             {"oneOf", NULL, ANY},
             {"allOf", NULL, ANY},
             {"$ref", NULL, ANY},
             {"nullable", NULL, ANY},
             {"not", NULL, ANY},
             {"if", NULL, ANY},
             {"then", NULL, ANY},
             {"else", NULL, ANY},
             {"format", NULL, A_TEXT},
             {"properties", "object", A_MAP},
             {"required", "object", TEXTS},
             {"additionalProperties", "object", A_SCHEMA},
             {"unevaluatedProperties", "object", A_SCHEMA},
             {"patternProperties", "object", A_MAP},
             {"propertyNames", "object", A_SCHEMA},
             {"minProperties", "object", A_COUNT},
             {"maxProperties", "object", A_COUNT},
             {"items", "array", SCHEMA_OR_LIST},
             {"prefixItems", "array", SCHEMAS},
             {"additionalItems", "array", A_SCHEMA},
             {"minItems", "array", A_COUNT},
             {"maxItems", "array", A_COUNT},
             {"uniqueItems", "array", A_TRUTH},
             {"contains", "array", A_SCHEMA},
             {"minContains", "array", A_COUNT},
             {"maxContains", "array", A_COUNT},
             {"minLength", "string", A_COUNT},
             {"maxLength", "string", A_COUNT},
             {"pattern", "string", A_TEXT},
             {"contentEncoding", "string", A_TEXT},
             {"minimum", "number", A_NUMBER},
             {"maximum", "number", A_NUMBER},
             {"exclusiveMinimum", "number", A_NUMBER},
             {"exclusiveMaximum", "number", A_NUMBER},
             {"multipleOf", "number", A_NUMBER}};

static const struct known *find(const char *key) {
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (!strcmp(known[i].key, key)) return &known[i];
  return NULL;
}

bool schema_knows(const char *key) { return find(key) != NULL; }

bool schema_describes(const char *key) {
  for (const char *const *word = describing; *word; word++)
    if (!strcmp(*word, key)) return true;
  return !strncmp(key, "x-", 2); /* whose meaning is somebody's own */
}

/* ---- types ---- */
static const char *type_of(const mn_entry *e) {
  if (!strcmp(e->key, "format")) return schema_is_format_of_numbers(e->value) ? "number" : "string";
  const struct known *k = find(e->key);
  return k ? k->of : NULL;
}

const mn_value *schema_types_spoken_of(schema_compiler *c, const mn_value *schema) {
  static const char *const types[] = {"object", "array", "string", "number"};
  const mn_value *words[4], *out = NULL;
  size_t n = 0;
  for (int t = 0; t < 4; t++) {
    bool speaks = false;
    for (size_t i = 0; i < schema->count; i++) {
      const char *of = type_of(&schema->as.entries[i]);
      speaks = speaks || (of && !strcmp(of, types[t]));
    }
    if (speaks && !(words[n++] = mn_value_text(c->arena, types[t]))) schema_refuse(c, schema, "needs more memory than there is");
  }
  if (!n || c->status != MN_OK) return NULL;
  if (!(out = n == 1 ? words[0] : mn_value_list(c->arena, n, words))) schema_refuse(c, schema, "needs more memory than there is");
  return out;
}

/* Do values of this type have what a key speaks of? */
static bool is_of(const mn_value *type, const char *of) {
  if (type->kind == MN_TEXT) return !strcmp(type->as.text, of) || (!strcmp(type->as.text, "integer") && !strcmp(of, "number"));
  for (size_t i = 0; type->kind == MN_LIST && i < type->count; i++)
    if (schema_text(type->as.items[i]) && is_of(type->as.items[i], of)) return true;
  return false;
}

/* ---- keys that say nothing ---- */
static bool is_schema(const mn_value *v) { return v->kind == MN_MAP || v->kind == MN_BOOLEAN; }

static bool is_list_of(const mn_value *v, bool (*is)(const mn_value *)) {
  for (size_t i = 0; v->kind == MN_LIST && i < v->count; i++)
    if (!is(v->as.items[i])) return false;
  return v->kind == MN_LIST;
}

static bool is_text(const mn_value *v) { return v->kind == MN_TEXT; }

static bool is_formed(form wanted, const mn_value *v) {
  double x = 0;
  const bool number = (v->kind == MN_INTEGER || v->kind == MN_REAL) && mn_value_number(v, &x);
  switch (wanted) {
  case A_COUNT:
    return number && x >= 0 && x == floor(x);
  case A_NUMBER:
    return number;
  case A_TEXT:
    return is_text(v);
  case A_TRUTH:
    return v->kind == MN_BOOLEAN;
  case A_SCHEMA:
    return is_schema(v);
  case SCHEMAS:
    return is_list_of(v, is_schema);
  case SCHEMA_OR_LIST:
    return is_schema(v) || is_list_of(v, is_schema);
  case A_MAP:
    return v->kind == MN_MAP;
  case TEXTS:
    return is_list_of(v, is_text);
  default:
    return true;
  }
}

bool schema_others_are_formed(schema_compiler *c, const mn_value *schema, const mn_value *type) {
  char what[160];
  for (size_t i = 0; i < schema->count; i++) {
    const mn_entry *e = &schema->as.entries[i];
    const char *of = type_of(e);
    if (!of || is_of(type, of) || is_formed(find(e->key)->form, e->value)) continue;
    snprintf(what, sizeof what, "has '%s' of values of another type than its own, and that is no such key", e->key);
    return schema_refuse(c, e->value, what), false;
  }
  return true;
}

bool schema_says_nothing(const mn_value *schema, const char *key) {
  const mn_value *items = mn_value_get(schema, "items");
  if (!strcmp(key, "minContains") || !strcmp(key, "maxContains")) return !mn_value_get(schema, "contains");
  if (!strcmp(key, "additionalItems")) return !mn_value_get(schema, "prefixItems") && !(items && items->kind == MN_LIST);
  if (!strcmp(key, "then") || !strcmp(key, "else")) return !mn_value_get(schema, "if");
  return !strcmp(key, "if") && !mn_value_get(schema, "then") && !mn_value_get(schema, "else");
}
