/* json_array.c - arrays of a schema as parts of a grammar: items one by one as far as they are counted, and any number more. */
#include <string.h>

#include "serve/json_schema_internal.h"
#include "serve/schema_complement.h"
#include "serve/schema_keys.h"
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
  if (n < a->least) return schema_refuse_as_nothing(c, schema, "has fewer values than its minItems");
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

/* ---- what is asked of one ---- */
/* Items of all may be a list, as they were in older drafts: those of the first then. */
static bool read_array(schema_compiler *c, const mn_value *schema, array *a) {
  const mn_value *items = mn_value_get(schema, "items"), *prefix = mn_value_get(schema, "prefixItems");
  const mn_value *more = mn_value_get(schema, "additionalItems");
  if (items && items->kind == MN_LIST && !prefix) prefix = items, items = more;
  else if (more && !schema_says_nothing(schema, "additionalItems"))
    return schema_refuse(c, more, "has additionalItems, which speak of items behind a list of these"), false;
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

/* ---- items that are counted ---- */
enum { ANY, FITS, FITS_NOT, N_KINDS, NONE = -1, NOT_YET = -2 };
typedef int32_t kinds[N_KINDS]; /* the rules of one item: any; one that fits `contains`; one that does not */

typedef struct holds {
  const mn_value *what;
  int64_t least, most; /* of the items, how many fit; most -1: any number */
  bool apart;          /* an item that is not counted is one that does not fit: one count is alive at a time */
  kinds *rules;        /* of the first, and behind them of all others */
} holds;

static bool read_contains(schema_compiler *c, const mn_value *schema, holds *h) {
  *h = (holds){.what = mn_value_get(schema, "contains"), .least = 1, .most = -1};
  if (!h->what) return true;
  return schema_count(c, schema, "minContains", &h->least) && schema_most(c, schema, "maxContains", h->least, &h->most);
}

/* What does not fit, of any item; of a place that a $ref leads to it is a rule, which may lead to itself. */
static const mn_value *opposite(schema_compiler *c, const mn_value *what, const mn_value *item) {
  static const char *const no[] = {"not"};
  schema_sense sense;
  const bool any = !item || item->kind == MN_BOOLEAN;
  if (!any || !schema_lone_reference(what, &sense) || sense == SCHEMA_OPPOSITE) return schema_complement(c, what, item);
  const mn_value *out = mn_value_map(c->arena, 1, no, &what);
  if (!out) schema_refuse(c, what, "needs more memory than there is");
  return out;
}

/* The schema of an item that is of a kind; NULL: none. */
static const mn_value *of_kind(schema_compiler *c, const mn_value *item, const mn_value *what, int kind) {
  static const char *const all_of[] = {"allOf"};
  const mn_value *any = mn_value_bool(c->arena, true), *own = item ? item : any;
  if (kind == ANY) return own;
  const mn_value *pair[] = {own, kind == FITS ? schema_keeps_null_out(c, what) : opposite(c, what, item)};
  if (is_false(pair[0]) || !pair[1] || is_false(pair[1])) return NULL;
  const mn_value *list = mn_value_list(c->arena, 2, pair);
  return !item || item->kind == MN_BOOLEAN ? pair[1] : mn_value_map(c->arena, 1, all_of, &list);
}

/* As a rule, which may lead to itself where `what` is a $ref; NONE: none. */
static int32_t rule_of_kind(schema_compiler *c, const mn_value *item, const mn_value *what, int kind) {
  schema_sense sense;
  if (kind != ANY && item && item->kind == MN_MAP && schema_lone_reference(what, &sense) && sense != SCHEMA_OPPOSITE)
    return schema_rule_of(c, what, item, kind == FITS ? SCHEMA_WITHOUT_NULL : SCHEMA_OPPOSITE, what);
  const mn_value *schema = of_kind(c, item, what, kind);
  return schema ? rule_of(c, schema) : NONE;
}

/* The i-th item of a kind, and what follows it; MN_NO_NODE: there is none. */
static mn_bytes_node kind_at(schema_compiler *c, const array *a, holds *h, int64_t i, int kind, mn_bytes_node next) {
  const int64_t at = i < a->first ? i : a->first;
  int32_t *rule = &h->rules[at][kind];
  mn_status last;
  if (next == MN_NO_NODE || c->status != MN_OK) return MN_NO_NODE;
  if (*rule == NOT_YET) {
    *rule = rule_of_kind(c, i < a->first ? a->prefix[i] : a->items, h->what, kind);
    if (schema_took_nothing(c, &last)) *rule = NONE;
  }
  if (*rule == NONE || c->status != MN_OK) return MN_NO_NODE;
  return mn_grammar_call(c->g, i ? c->rules.comma : c->rules.space, mn_grammar_call(c->g, *rule, next));
}

static mn_bytes_node or_else(schema_compiler *c, mn_bytes_node a, mn_bytes_node b) {
  return a == MN_NO_NODE ? b : b == MN_NO_NODE ? a : mn_grammar_either(c->g, a, b);
}

/* Where n fit of the i items that are there. `more`: what follows where n do behind one more, and where n + 1 do. Where there is no most, one
 * that fits need not be counted any more, or at all, where it is not known what does not fit. */
static mn_bytes_node counted_at(schema_compiler *c, const array *a, holds *h, int64_t i, int64_t n, const mn_bytes_node *more,
                                mn_bytes_node end) {
  const int64_t all = h->most < 0 ? h->least : h->most;
  mn_bytes_node out = i >= a->least && n >= h->least ? end : MN_NO_NODE;
  out = or_else(c, kind_at(c, a, h, i, h->most < 0 && (n == h->least || !h->apart) ? ANY : FITS_NOT, more[0]), out);
  return n < all ? or_else(c, kind_at(c, a, h, i, FITS, more[1]), out) : out;
}

/* May what is refused here be refused alone? Then all is as if it had not been tried: some nodes more, that nobody leads to. */
static bool knows_opposites(schema_compiler *c, const array *a, holds *h) {
  const int depth = c->depth, n_refs = c->n_refs, n_strings = c->n_strings;
  for (int64_t i = 0; i <= a->first && schema_may_complement(c, h->what); i++) kind_at(c, a, h, i, FITS_NOT, mn_grammar_return(c->g));
  if (c->status == MN_OK) return true;
  if (c->budget->left < 0 || c->status == MN_ERR_MEMORY) return false;
  for (int64_t i = 0; i <= a->first; i++) h->rules[i][FITS_NOT] = NOT_YET;
  c->depth = depth, c->n_refs = n_refs, c->n_strings = n_strings, c->status = MN_OK, c->nothing = false;
  return false;
}

/* Are the counts that are alive at once few enough? One more than the least; where they are apart one, but an item is one that fits and one that does
 * not until its end. */
static bool overlaps_run(schema_compiler *c, const array *a, const mn_value *schema, holds *h) {
  h->apart = h->most >= 0 || (h->least > 1 && knows_opposites(c, a, h));
  if (c->status != MN_OK) return false;
  const double ways = h->most == 0 ? 1 : h->apart ? 2 : (double)h->least;
  c->overlaps *= h->apart ? ways : (double)(h->least + 1), c->ways *= ways;
  if (c->overlaps > c->widest) c->widest = c->overlaps;
  if (c->overlaps <= SCHEMA_OVERLAPS) return true;
  schema_refuse(
      c, schema,
      "has minContains above 32, of itself or with lists around it, of what has no opposite that is known here, or more than five lists "
      "within each other whose items are counted");
  return false;
}

/* Lists of which between the least and the most items fit: a place for each number of items, and of those that fit. */
static mn_bytes_node containing(schema_compiler *c, const array *a, const mn_value *schema, holds *h, mn_bytes_node end) {
  const int64_t all = h->most < 0 ? h->least : h->most, least = a->least > a->first ? a->least : a->first;
  const int64_t singly = a->most >= 0 ? a->most : least ? least : 1;
  mn_bytes_node *at = mn_arena_alloc(c->arena, (size_t)(all + 2) * sizeof *at);
  h->rules = mn_arena_alloc(c->arena, (size_t)(a->first + 1) * sizeof *h->rules);
  if (!at || !h->rules) return schema_refuse(c, schema, "needs more memory than there is");
  if (h->most >= 0 && !schema_may_complement(c, schema)) return MN_NO_NODE;
  if (!schema_spend(c, schema, 4 * (double)(all + 1) * (double)(singly + 1))) return MN_NO_NODE;
  for (int64_t i = 0; i <= a->first; i++)
    for (int k = 0; k < N_KINDS; k++) h->rules[i][k] = NOT_YET;
  if (!overlaps_run(c, a, schema, h)) return MN_NO_NODE;
  at[all + 1] = MN_NO_NODE;
  for (int64_t n = all; n >= 0 && !schema_is_full(c); n--) {
    at[n] = n >= h->least ? end : MN_NO_NODE;
    if (a->most >= 0) continue;
    const bool ends = at[n] != MN_NO_NODE;
    at[n] = mn_grammar_place(c->g);
    mn_grammar_put(c->g, at[n], counted_at(c, a, h, singly, n, at + n, end));
    if (!ends && (at[n + 1] == MN_NO_NODE || h->rules[a->first][FITS] == NONE)) at[n] = MN_NO_NODE; /* round and round */
  }
  for (int64_t i = singly - 1; i >= 0; i--)
    for (int64_t n = 0; n <= all && !schema_is_full(c); n++) at[n] = counted_at(c, a, h, i, n, at + n, end);
  if (schema_is_full(c)) return MN_NO_NODE;
  if (at[0] != MN_NO_NODE) return at[0];
  return schema_refuse_as_nothing(c, schema, "has contains that its items cannot reach");
}

/* Of what is asked of no item nothing is made: it is looked at for what is not known. */
static bool is_a_schema(schema_compiler *c, const mn_value *schema) {
  mn_status last;
  rule_of(c, schema);
  return schema_took_nothing(c, &last) || c->status == MN_OK;
}

/* ---- items that follow each other ---- */
/* Where no value fits the others there are none. */
static void look_at_others(schema_compiler *c, array *a) {
  mn_status last;
  if (!a->items || a->items->kind != MN_MAP || (a->most >= 0 && a->most <= a->first)) return;
  a->rule = rule_of(c, a->items);
  if (schema_took_nothing(c, &last)) a->most = a->first;
}

/* The items as far as they are told apart, before `at`. One that no value fits, and all behind it, may be missing, or nothing fits. */
static mn_bytes_node one_by_one(schema_compiler *c, array *a, int64_t n, mn_bytes_node at, mn_bytes_node end) {
  for (int64_t i = n - 1; i >= 0 && !schema_is_full(c); i--) {
    const mn_bytes_node item = item_at(c, a, i, at);
    mn_status last;
    const bool none = schema_took_nothing(c, &last);
    if (none && i < a->least) c->status = last, c->nothing = true;
    if (c->status != MN_OK) return MN_NO_NODE;
    at = none ? end : mn_grammar_call(c->g, i ? c->rules.comma : c->rules.space, item);
    if (!none && i >= a->least) at = mn_grammar_either(c->g, at, end);
  }
  return at;
}

/* ---- all ---- */
mn_bytes_node schema_array(schema_compiler *c, const mn_value *schema, mn_bytes_node next) {
  array a;
  holds h;
  mn_grammar *g = c->g;
  const mn_value *differ = mn_value_get(schema, "uniqueItems");
  if (!read_array(c, schema, &a) || !read_contains(c, schema, &h)) return MN_NO_NODE;
  a.most = schema_most_made(a.most, a.least > a.first ? a.least : a.first, h.what ? h.least : 0);
  if (differ && differ->kind != MN_BOOLEAN) return schema_refuse(c, differ, "has uniqueItems that is neither true nor false");
  const mn_bytes_node end = mn_grammar_call(g, c->rules.space, mn_grammar_text(g, "]", 1, next));
  if (h.what && (h.least || h.most >= 0)) {
    if (differ && differ->as.boolean) return schema_refuse(c, schema, "has uniqueItems beside contains: one of them is known");
    const double overlaps = c->overlaps, ways = c->ways;
    const mn_bytes_node begin = containing(c, &a, schema, &h, end);
    c->overlaps = overlaps, c->ways = ways;
    return begin == MN_NO_NODE ? begin : mn_grammar_text(g, "[", 1, begin);
  }
  if (h.what && !is_a_schema(c, h.what)) return MN_NO_NODE;
  if (differ && differ->as.boolean && (a.most < 0 || a.most > 1)) return mn_grammar_text(g, "[", 1, unique(c, &a, schema, end));
  look_at_others(c, &a);
  if (a.most >= 0 && a.most < a.least) return schema_refuse_as_nothing(c, schema, "has items that no value fits, and a minItems");
  const int64_t n = a.most >= 0 ? a.most : a.least > a.first ? a.least : a.first;
  mn_bytes_node at = end;
  if (a.most < 0) { /* any number more */
    const mn_bytes_node more = mn_grammar_place(g);
    mn_grammar_put(g, more, mn_grammar_either(g, mn_grammar_call(g, c->rules.comma, item_at(c, &a, a.first, more)), end));
    at = more;
    if (n == 0) at = mn_grammar_either(g, mn_grammar_call(g, c->rules.space, item_at(c, &a, 0, more)), end);
  }
  at = one_by_one(c, &a, n, at, end);
  return at == MN_NO_NODE ? at : mn_grammar_text(g, "[", 1, at);
}
