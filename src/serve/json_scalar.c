/* json_scalar.c - strings and numbers of a schema as parts of a grammar: their lengths, formats, patterns, bounds and steps. */
#include "serve/json_number.h"
#include "serve/json_pattern.h"
#include "serve/json_schema_internal.h"

enum { MOST_COUNT = 4096, PATTERN_COSTS = 8192 };

/* ---- counts ---- */
bool schema_count(schema_compiler *c, const mn_value *schema, const char *key, int64_t *out) {
  const mn_value *v = mn_value_get(schema, key);
  if (!v) return true;
  if (v->kind != MN_INTEGER || v->as.integer < 0) return schema_refuse(c, v, "has a count that is not a number from 0 on"), false;
  if (v->as.integer > MOST_COUNT) return schema_refuse(c, v, "counts to more than 4096: the grammar would explode"), false;
  *out = v->as.integer;
  return true;
}

mn_bytes_node schema_string(schema_compiler *c, const mn_value *schema, mn_bytes_node next) {
  int64_t least = 0, most = -1;
  const mn_value *format = mn_value_get(schema, "format"), *pattern = mn_value_get(schema, "pattern");
  const bool counted = mn_value_get(schema, "minLength") || mn_value_get(schema, "maxLength");
  if (!schema_count(c, schema, "minLength", &least) || !schema_count(c, schema, "maxLength", &most)) return MN_NO_NODE;
  if (format) {
    const int32_t rule = schema_text(format) ? json_format(c->g, schema_text(format)) : -1;
    if (rule < 0) return schema_refuse(c, format, "has a format that is not known here: date, time, date-time and uuid are");
    if (counted || pattern) return schema_refuse(c, schema, "has both a format and a length or a pattern");
    return mn_grammar_call(c->g, rule, next);
  }
  if (most >= 0 && most < least) return schema_refuse(c, schema, "has a maxLength below its minLength");
  if (pattern) {
    const char *why = "has a pattern that is not a text";
    if (!schema_spend(c, pattern, PATTERN_COSTS)) return MN_NO_NODE; /* of which few nodes may be left */
    const mn_bytes_node out = schema_text(pattern) ? json_pattern(c->g, schema_text(pattern), least, most, next, &why) : MN_NO_NODE;
    return why ? schema_refuse(c, pattern, why) : out;
  }
  if (!counted) return mn_grammar_call(c->g, c->rules.string, next);
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

/* ---- numbers ---- */
mn_bytes_node schema_number(schema_compiler *c, const mn_value *schema, bool whole, mn_bytes_node next) {
  const json_bounds bounds = {mn_value_get(schema, "minimum"),    mn_value_get(schema, "exclusiveMinimum"),
                              mn_value_get(schema, "maximum"),    mn_value_get(schema, "exclusiveMaximum"),
                              mn_value_get(schema, "multipleOf"), whole};
  const char *why;
  const mn_value *at;
  if (!bounds.least && !bounds.above && !bounds.most && !bounds.below && !bounds.step)
    return mn_grammar_call(c->g, whole ? c->rules.integer : c->rules.number, next);
  const mn_bytes_node out = json_number(c->g, &bounds, next, &why, &at);
  return why ? schema_refuse(c, at ? at : schema, why) : out;
}
