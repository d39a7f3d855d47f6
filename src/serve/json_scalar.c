/* json_scalar.c - strings and numbers of a schema as parts of a grammar: their lengths, formats, patterns, bounds and steps. */
#include <math.h>
#include <string.h>

#include "serve/json_format.h"
#include "serve/json_number.h"
#include "serve/json_pattern.h"
#include "serve/json_schema_internal.h"
#include "serve/schema_merge.h"

enum { MOST_COUNT = 4096, MOST_MADE = 1024, MOST_OF_FORMAT = 512, PATTERN_COSTS = 8192 };

/* ---- counts ---- */
bool schema_count(schema_compiler *c, const mn_value *schema, const char *key, int64_t *out) {
  const mn_value *v = mn_value_get(schema, key);
  double x;
  if (!v) return true;
  if (!mn_value_number(v, &x) || x < 0 || x != floor(x)) return schema_refuse(c, v, "has a count that is not a number from 0 on"), false;
  if (x > MOST_COUNT) return schema_refuse(c, v, "counts to more than 4096: the grammar would explode"), false;
  *out = (int64_t)x;
  return true;
}

bool schema_most(schema_compiler *c, const mn_value *schema, const char *key, int64_t least, int64_t *out) {
  const mn_value *v = mn_value_get(schema, key);
  double x;
  if (v && mn_value_number(v, &x) && x > MOST_COUNT && x == floor(x)) *out = MOST_COUNT;
  else if (!schema_count(c, schema, key, out)) return false;
  return *out < 0 || *out >= least || (schema_refuse_as_nothing(c, v, "is below the least that there may be"), false);
}

int64_t schema_most_made(int64_t most, int64_t least, int64_t named) {
  int64_t made = MOST_MADE;
  made = made < least ? least : made;
  made = made < named ? named : made;
  return most < made ? most : made;
}

/* ---- strings ---- */
/* The pattern of a name under that key, behind the *n that are there. */
static bool read_format(schema_compiler *c, const mn_value *schema, const char *key, const char **patterns, int *n) {
  const mn_value *v = mn_value_get(schema, key);
  if (!v || schema_is_format_of_numbers(v)) return true;
  const char *name = schema_text(v), *pattern = name ? json_format_pattern(name) : NULL;
  if (name && !pattern && mn_value_get(schema, "pattern") && json_format_names_its_pattern(name)) return true;
  if (!pattern) return schema_refuse(c, v, json_formats_known), false;
  if (*pattern && !(*n && !strcmp(patterns[*n - 1], pattern))) patterns[(*n)++] = pattern;
  return true;
}

static mn_bytes_node counted(schema_compiler *c, int64_t least, int64_t most, mn_bytes_node next) {
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

static bool same_patterns(const char *const *a, const char *const *b) {
  for (; *a && *b; a++, b++)
    if (strcmp(*a, *b) != 0) return false;
  return !*a && !*b;
}

/* The rule of such strings, which is made where there is none; -1: refused. */
static int32_t string_rule(schema_compiler *c, const mn_value *schema, const schema_kept_string *s) {
  schema_why why = {0};
  mn_bytes_node begin;
  for (int i = 0; i < c->n_strings; i++) {
    const schema_kept_string *k = &c->strings[i];
    if (k->least == s->least && k->most == s->most && same_patterns(k->patterns, s->patterns)) return k->rule;
  }
  if (*s->patterns) {
    if (!schema_spend(c, schema, PATTERN_COSTS)) return -1; /* of which few nodes may be left */
    begin = json_pattern(c->g, s->patterns, s->least, s->most, mn_grammar_return(c->g), &c->budget->left, &why);
    const mn_value *pattern = mn_value_get(schema, "pattern");
    if (why.text) return schema_refuse_because(c, pattern ? pattern : schema, &why), -1;
  } else begin = counted(c, s->least, s->most, mn_grammar_return(c->g));
  const int32_t rule = mn_grammar_rule(c->g);
  mn_grammar_define(c->g, rule, begin);
  if (c->n_strings < SCHEMA_STRINGS) {
    c->strings[c->n_strings] = *s;
    c->strings[c->n_strings++].rule = rule;
  }
  return rule;
}

mn_bytes_node schema_string(schema_compiler *c, const mn_value *schema, mn_bytes_node next) {
  schema_kept_string s = {.least = 0, .most = -1};
  const mn_value *pattern = mn_value_get(schema, "pattern");
  int n = 0;
  if (!schema_count(c, schema, "minLength", &s.least) || !schema_most(c, schema, "maxLength", s.least, &s.most)) return MN_NO_NODE;
  if (pattern && !schema_text(pattern)) return schema_refuse(c, pattern, "has a pattern that is not a text");
  if (!read_format(c, schema, "format", s.patterns, &n) || !read_format(c, schema, "contentEncoding", s.patterns, &n)) return MN_NO_NODE;
  if (n && s.most > MOST_OF_FORMAT) s.most = s.least > MOST_OF_FORMAT ? s.least : MOST_OF_FORMAT;
  if (pattern) s.patterns[n] = schema_text(pattern);
  if (!*s.patterns && s.least == 0 && s.most < 0) return mn_grammar_call(c->g, c->rules.string, next);
  const int32_t rule = string_rule(c, schema, &s);
  return rule < 0 ? MN_NO_NODE : mn_grammar_call(c->g, rule, next);
}

/* ---- numbers ---- */
/* OpenAPI's names, as bounds; both 0: there are none. */
typedef struct number_format {
  const char *name;
  double least, most;
  bool whole;
} number_format;

static const number_format *format_of_numbers(const mn_value *format) {
  static const number_format all[] = {{"int8", -128, 127, true},
                                      {"int16", -32768, 32767, true},
                                      {"int32", -2147483648.0, 2147483647.0, true},
                                      {"int64", -9223372036854775808.0, 9223372036854774784.0, true}, /* that f64 has */
                                      {"uint8", 0, 255, true},
                                      {"uint16", 0, 65535, true},
                                      {"uint32", 0, 4294967295.0, true},
                                      {"uint64", 0, 18446744073709549568.0, true},
                                      {"float", 0, 0, false},
                                      {"double", 0, 0, false}};
  const char *name = schema_text(format);
  for (size_t i = 0; name && i < sizeof all / sizeof *all; i++)
    if (!strcmp(all[i].name, name)) return &all[i];
  return NULL;
}

bool schema_is_format_of_numbers(const mn_value *format) { return format_of_numbers(format) != NULL; }

/* The schema with the bounds that its format means. */
static const mn_value *bounded(schema_compiler *c, const mn_value *schema, const number_format *f) {
  static const char *const keys[] = {"minimum", "maximum"};
  schema_why why = {0};
  if (!f || f->least == f->most) return schema;
  const mn_value *values[] = {mn_value_real(c->arena, f->least), mn_value_real(c->arena, f->most)};
  const mn_value *bounds = mn_value_map(c->arena, 2, keys, values);
  const mn_value *out = bounds ? mn_schema_merge(c->arena, schema, bounds, &c->budget->left, &why) : NULL;
  if (!out) schema_refuse_because(c, schema, &why);
  return out;
}

mn_bytes_node schema_number(schema_compiler *c, const mn_value *schema, bool whole, mn_bytes_node next) {
  const number_format *format = format_of_numbers(mn_value_get(schema, "format"));
  if (!(schema = bounded(c, schema, format))) return MN_NO_NODE;
  whole = whole || (format && format->whole);
  const json_bounds bounds = {mn_value_get(schema, "minimum"),    mn_value_get(schema, "exclusiveMinimum"),
                              mn_value_get(schema, "maximum"),    mn_value_get(schema, "exclusiveMaximum"),
                              mn_value_get(schema, "multipleOf"), whole};
  schema_why why;
  const mn_value *at;
  if (!bounds.least && !bounds.above && !bounds.most && !bounds.below && !bounds.step)
    return mn_grammar_call(c->g, whole ? c->rules.integer : c->rules.number, next);
  const mn_bytes_node out = json_number(c->g, &bounds, next, &why, &at);
  return why.text ? schema_refuse_because(c, at ? at : schema, &why) : out;
}
