/* json_array.c - arrays of a schema as parts of a grammar: items one by one as far as they are counted, and any number more. */
#include <string.h>

#include "serve/json_schema_internal.h"
#include "serve/schema_merge.h"

enum { MOST_UNIQUE = 8 };

mn_bytes_node schema_item(schema_compiler *c, const mn_value *items, mn_bytes_node next) {
  return items ? schema_value(c, items, next) : mn_grammar_call(c->g, c->rules.value, next);
}

static bool is_false(const mn_value *v) { return v && v->kind == MN_BOOLEAN && !v->as.boolean; }

typedef struct array {
  const mn_value *const *prefix, *items; /* of the first, and of the others: NULL, any */
  int64_t first, least, most;            /* how many of the first there are; most -1: any number */
  int32_t rule;                          /* of the others, when there is one */
} array;

/* Values of a schema as a rule; where it was refused, nobody calls it. */
static int32_t rule_of(schema_compiler *c, const mn_value *schema) {
  const int32_t rule = mn_grammar_rule(c->g);
  const mn_bytes_node begin = schema_value(c, schema, mn_grammar_return(c->g));
  mn_grammar_define(c->g, rule, begin == MN_NO_NODE ? mn_grammar_place(c->g) : begin);
  return rule;
}

/* The i-th item. Those that are alike are compiled once. */
static mn_bytes_node item_at(schema_compiler *c, array *a, int64_t i, mn_bytes_node next) {
  if (i < a->first) return schema_item(c, a->prefix[i], next);
  if (!a->items || a->items->kind != MN_MAP) return mn_grammar_call(c->g, c->rules.value, next);
  if (a->rule < 0) a->rule = rule_of(c, a->items);
  return mn_grammar_call(c->g, a->rule, next);
}

/* ---- items that differ ---- */
/* The values of a list as rules; how many of them fit what stands beside it. -1: refused. */
static int values_of(schema_compiler *c, const array *a, const mn_value *schema, int32_t rules[MOST_UNIQUE]) {
  static const char *const lists[] = {"enum", "const", NULL}, *const enums[] = {"enum"}, *const both[] = {"allOf"};
  const mn_value *one = mn_value_get(a->items, "const"), *list = one ? mn_value_list(c->arena, 1, &one) : mn_value_get(a->items, "enum");
  int n = 0;
  if (!list || list->kind != MN_LIST || a->first || list->count > MOST_UNIQUE)
    return schema_refuse(c, schema, "has uniqueItems, which no grammar can keep but of an enum of at most 8 values"), -1;
  const mn_value *rest = mn_schema_without(c->arena, a->items, lists);
  for (size_t i = 0; i < list->count; i++) {
    mn_status last;
    for (size_t k = 0; k < i; k++)
      if (mn_schema_equal(list->as.items[i], list->as.items[k])) return schema_refuse(c, list, "has an enum with a value twice"), -1;
    const mn_value *only = mn_value_list(c->arena, 1, &list->as.items[i]), *pair[] = {rest, mn_value_map(c->arena, 1, enums, &only)};
    const mn_value *value = mn_value_list(c->arena, 2, pair);
    if (!rest || !(value = mn_value_map(c->arena, 1, both, &value))) return schema_refuse(c, list, "needs more memory than there is"), -1;
    rules[n] = rule_of(c, value);
    if (!schema_took_nothing(c, &last)) n++;
    if (c->status != MN_OK) return -1;
  }
  return n;
}

/* Values that are not there yet: a place for each set of those that are. */
static mn_bytes_node unique(schema_compiler *c, const array *a, const mn_value *schema, mn_bytes_node end) {
  int32_t rules[MOST_UNIQUE];
  mn_bytes_node places[1 << MOST_UNIQUE];
  const int n = values_of(c, a, schema, rules);
  if (n < 0) return MN_NO_NODE;
  if (n < a->least) return schema_refuse(c, schema, "has fewer values than its minItems");
  for (int set = (1 << n) - 1; set >= 0; set--) {
    const int said = __builtin_popcount((unsigned)set);
    mn_bytes_node out = said >= a->least ? end : MN_NO_NODE;
    for (int i = 0; i < n && (a->most < 0 || said < a->most); i++) {
      if (set >> i & 1) continue;
      const mn_bytes_node value = mn_grammar_call(c->g, rules[i], places[set | 1 << i]);
      const mn_bytes_node next = mn_grammar_call(c->g, set ? c->rules.comma : c->rules.space, value);
      out = out == MN_NO_NODE ? next : mn_grammar_either(c->g, out, next);
    }
    places[set] = out == MN_NO_NODE ? mn_grammar_place(c->g) : out; /* more than maxItems: nothing leads there */
  }
  return places[0];
}

/* ---- all ---- */
/* Items of all may be a list, as they were in older drafts: those of the first then. */
static bool read_array(schema_compiler *c, const mn_value *schema, array *a) {
  const mn_value *items = mn_value_get(schema, "items"), *prefix = mn_value_get(schema, "prefixItems");
  const mn_value *more = mn_value_get(schema, "additionalItems");
  if (items && items->kind == MN_LIST && !prefix) prefix = items, items = more;
  else if (more) return schema_refuse(c, more, "has additionalItems, which speak of items behind a list of these"), false;
  *a = (array){.most = -1, .rule = -1, .items = items};
  if (!schema_count(c, schema, "minItems", &a->least) || !schema_most(c, schema, "maxItems", a->least, &a->most)) return false;
  if (prefix && prefix->kind != MN_LIST) return schema_refuse(c, prefix, "has prefixItems that are not a list"), false;
  if (items && items->kind != MN_MAP && items->kind != MN_BOOLEAN) return schema_refuse(c, items, "has items that are not a schema"), false;
  if (prefix) a->prefix = prefix->as.items, a->first = (int64_t)prefix->count;
  if (is_false(items) && (a->most < 0 || a->most > a->first)) a->most = a->first;
  for (int64_t i = 0; i < a->first && (a->most < 0 || i < a->most); i++)
    if (is_false(a->prefix[i])) a->most = i; /* none stands there, and none behind it */
  return a->most < 0 || a->most >= a->least || (schema_refuse_as_nothing(c, schema, "has room for fewer items than its minItems"), false);
}

mn_bytes_node schema_array(schema_compiler *c, const mn_value *schema, mn_bytes_node next) {
  array a;
  mn_grammar *g = c->g;
  const mn_value *differ = mn_value_get(schema, "uniqueItems");
  if (!read_array(c, schema, &a)) return MN_NO_NODE;
  if (differ && differ->kind != MN_BOOLEAN) return schema_refuse(c, differ, "has uniqueItems that is neither true nor false");
  const mn_bytes_node end = mn_grammar_call(g, c->rules.space, mn_grammar_text(g, "]", 1, next));
  if (differ && differ->as.boolean && (a.most < 0 || a.most > 1)) return mn_grammar_text(g, "[", 1, unique(c, &a, schema, end));
  const int64_t one_by_one = a.most >= 0 ? a.most : a.least > a.first ? a.least : a.first;
  mn_bytes_node at = end;
  if (a.most < 0) { /* any number more */
    const mn_bytes_node more = mn_grammar_place(g);
    mn_grammar_put(g, more, mn_grammar_either(g, mn_grammar_call(g, c->rules.comma, item_at(c, &a, a.first, more)), end));
    at = more;
    if (one_by_one == 0) at = mn_grammar_either(g, mn_grammar_call(g, c->rules.space, item_at(c, &a, 0, more)), end);
  }
  for (int64_t i = one_by_one - 1; i >= 0 && c->status == MN_OK; i--) { /* the i-th item, and what follows it */
    at = mn_grammar_call(g, i ? c->rules.comma : c->rules.space, item_at(c, &a, i, at));
    if (i >= a.least) at = mn_grammar_either(g, at, end);
  }
  return mn_grammar_text(g, "[", 1, at);
}
