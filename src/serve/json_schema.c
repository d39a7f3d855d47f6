/* json_schema.c - see json_schema.h. */
#include "serve/json_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/json.h"
#include "serve/http.h"
#include "serve/json_schema_internal.h"
#include "serve/schema_complement.h"
#include "serve/schema_keys.h"
#include "serve/schema_merge.h"

enum {
  MOST_DEPTH = 64,
  MOST_REFS = 512,
  MOST_MERGES = 4096,
  MOST_KEYS = 64,
  MOST_COMPARISONS = 1 << 27,
  MOST_PLAIN = 800, /* letters of a number in full */
  OF_A_NODE = 4,    /* comparisons that looking at one costs */
  DEAD = -1
};

static const mn_value *flat_target(schema_compiler *c, const mn_value *schema);
static const mn_value *merge(schema_compiler *c, const mn_value *a, const mn_value *b, const mn_value *at);
static mn_status compiled(schema_compiler *whole, const mn_value *schema, mn_grammar **out);

mn_bytes_node schema_refuse(schema_compiler *c, const mn_value *at, const char *what) {
  if (c->status == MN_OK) c->status = mn_fail(MN_ERR_CONFIG, "the schema%s%s %s", at && *at->path ? " at " : "", at ? at->path : "", what);
  return MN_NO_NODE;
}

bool schema_spend(schema_compiler *c, const mn_value *at, double comparisons) {
  if ((c->budget->left -= comparisons) >= 0) return true;
  schema_refuse(c, at, "has lists so long, or so often, that comparing them would take too long");
  return false;
}

static bool may_merge(schema_compiler *c, const mn_value *at) {
  if (++c->budget->merges <= MOST_MERGES) return true;
  schema_refuse(c, at, "merges more than 4096 schemas, or has references that go round: the grammar would explode");
  return false;
}

bool schema_is_full(const schema_compiler *c) { return c->status != MN_OK || mn_grammar_nodes(c->g) >= MN_GRAMMAR_NODES; }

mn_bytes_node schema_refuse_as_nothing(schema_compiler *c, const mn_value *at, const char *what) {
  if (c->status == MN_OK) c->nothing = true;
  return schema_refuse(c, at, what);
}

mn_bytes_node schema_refuse_because(schema_compiler *c, const mn_value *at, const schema_why *why) {
  if (!why->text) return schema_refuse(c, at, "needs more memory than there is");
  return why->nothing ? schema_refuse_as_nothing(c, at, why->text) : schema_refuse(c, at, why->text);
}

const char *schema_text(const mn_value *v) { return v && v->kind == MN_TEXT ? v->as.text : NULL; }

/* ---- literals ---- */
static mn_bytes_node literal(schema_compiler *c, const mn_value *v, mn_bytes_node next) {
  mn_text t = {0};
  mn_status status = mn_value_to_json(v, 0, &t);
  if (status == MN_OK) status = mn_text_status(&t);
  if (status != MN_OK) c->status = c->status == MN_OK ? status : c->status;
  else next = mn_grammar_text(c->g, t.data, t.len, next);
  mn_text_free(&t);
  return next;
}

/* ---- references ---- */
/* "#/$defs/name/...": the place in the schema; NULL: there is none. */
static const mn_value *look_up(schema_compiler *c, const char *ref) {
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
    if (!schema_spend(c, at, at->kind == MN_MAP ? (double)at->count : 1)) return NULL;
    if (at->kind == MN_LIST) {
      char *end;
      const long i = strtol(key, &end, 10);
      at = *key && !*end && i >= 0 && (size_t)i < at->count ? at->as.items[i] : NULL;
    } else at = mn_value_get(at, key);
  }
  return *ref ? NULL : at;
}

/* A $ref is a URI, whose part behind '#' has signs as %XX; not all who write schemas write them so. */
static const mn_value *look_up_either_way(schema_compiler *c, const char *ref) {
  char *plain = strchr(ref, '%') ? mn_strdup(ref) : NULL;
  const mn_value *at = plain && mn_percent_decode(plain, false) ? look_up(c, plain) : NULL;
  free(plain);
  return at ? at : look_up(c, ref);
}

const mn_value *schema_look_up(schema_compiler *c, const mn_value *ref) {
  const mn_value *at = schema_text(ref) ? look_up_either_way(c, schema_text(ref)) : NULL;
  if (!at) schema_refuse(c, ref, "has a $ref that leads nowhere: it begins with '#', and names a place of this schema");
  return at;
}

const mn_value *schema_lone_reference(const mn_value *schema, schema_sense *sense) {
  const mn_value *ref = NULL, *no = NULL;
  bool null = true;
  for (size_t i = 0; schema->kind == MN_MAP && i < schema->count; i++) {
    const mn_entry *e = &schema->as.entries[i];
    if (!strcmp(e->key, "$ref")) ref = e->value;
    else if (!strcmp(e->key, "not")) no = e->value;
    else if (!strcmp(e->key, "nullable") && e->value->kind == MN_BOOLEAN && !e->value->as.boolean) null = false;
    else if (!schema_describes(e->key)) return NULL;
  }
  if ((ref != NULL) == (no != NULL)) return NULL;
  if (no && (!(ref = schema_lone_reference(no, sense)) || *sense == SCHEMA_OPPOSITE)) return NULL;
  *sense = no ? SCHEMA_OPPOSITE : null ? SCHEMA_AS_IT_IS : SCHEMA_WITHOUT_NULL;
  return ref;
}

/* Both; none where one is not there. */
static const mn_value *all_of(schema_compiler *c, const mn_value *a, const mn_value *b) {
  static const char *const keys[] = {"allOf"};
  const mn_value *pair[] = {a, b}, *list = a && b ? mn_value_list(c->arena, 2, pair) : NULL,
                 *out = list ? mn_value_map(c->arena, 1, keys, &list) : NULL;
  if (a && b && !out) schema_refuse(c, a, "needs more memory than there is");
  return out;
}

/* The place as it is meant. NULL: refused. */
static const mn_value *in_sense(schema_compiler *c, const schema_reference *r, const mn_value *ref) {
  static const char *const nullable[] = {"nullable"};
  const mn_value *at = r->at;
  if (r->sense == SCHEMA_AS_IT_IS) return at;
  if (r->sense == SCHEMA_OPPOSITE) {
    const mn_value *other = schema_may_complement(c, ref) ? schema_keeps_null_out(c, schema_opposite_of(c, at, r->beside)) : NULL;
    return r->beside ? all_of(c, r->beside, other) : other;
  }
  if (r->beside) return all_of(c, r->beside, schema_keeps_null_out(c, at));
  const mn_value *none = mn_value_bool(c->arena, false), *kept_out = mn_value_map(c->arena, 1, nullable, &none);
  if (!kept_out) schema_refuse(c, ref, "needs more memory than there is");
  const mn_value *target = kept_out ? flat_target(c, at) : NULL;
  return target ? merge(c, kept_out, target, ref) : NULL;
}

/* May the reference be called here? Where lists count what holds itself, the counts that are alive grow with each turn, unless there is one; and those of
 * what is there already are alive beside those around. */
static bool may_call(schema_compiler *c, const mn_value *ref, int i) {
  const schema_reference *r = &c->refs[i];
  const int outermost = r->open ? i : r->outermost;
  if (c->refs[outermost].open) {
    if (c->ways > c->refs[outermost].around)
      return schema_refuse(
                 c, ref,
                 "leads to what holds itself, in a minContains or maxContains that counts beyond one: the counts would multiply with each level"),
             false;
    if (outermost < c->outermost) c->outermost = outermost;
  }
  if (r->open) return true;
  if (c->overlaps * r->within > SCHEMA_OVERLAPS)
    return schema_refuse(c, ref, "leads to counts of items within counts of items, of more than 32 in all"), false;
  if (c->overlaps * r->within > c->widest) c->widest = c->overlaps * r->within;
  return true;
}

int32_t schema_rule_of(schema_compiler *c, const mn_value *at, const mn_value *beside, schema_sense sense, const mn_value *ref) {
  for (int i = 0; i < c->n_refs; i++) {
    const schema_reference *r = &c->refs[i];
    if (r->at != at || r->beside != beside || r->sense != sense) continue;
    if (r->rule == DEAD) schema_refuse_as_nothing(c, ref, "leads to a schema that no value fits");
    return r->rule != DEAD && may_call(c, ref, i) ? r->rule : -1;
  }
  if (c->n_refs == MOST_REFS) return schema_refuse(c, ref, "has more than 512 places that $ref leads to"), -1;
  const int32_t rule = mn_grammar_rule(c->g), own = c->n_refs;
  const int outermost = c->outermost;
  const double widest = c->widest;
  schema_reference *const r = &c->refs[c->n_refs++];
  *r = (schema_reference){at, beside, sense, rule, .open = true, .around = c->ways};
  c->outermost = own, c->widest = c->overlaps;
  const mn_value *meant = in_sense(c, r, ref);
  const mn_bytes_node begin = meant ? schema_value(c, meant, mn_grammar_return(c->g)) : MN_NO_NODE;
  r->open = false, r->outermost = c->outermost, r->within = c->widest / c->overlaps;
  c->outermost = outermost < c->outermost ? outermost : c->outermost, c->widest = widest > c->widest ? widest : c->widest;
  if (c->status != MN_OK && c->nothing) { /* a rule that says nothing; what was compiled within it may call it, and is compiled again */
    r->rule = DEAD, c->n_refs = own + 1;
    mn_grammar_define(c->g, rule, mn_grammar_place(c->g));
    return -1;
  }
  mn_grammar_define(c->g, rule, begin == MN_NO_NODE ? mn_grammar_place(c->g) : begin); /* refused: nobody calls it */
  return c->status == MN_OK ? rule : -1;
}

static mn_bytes_node reference_to(schema_compiler *c, const mn_value *ref, schema_sense sense, mn_bytes_node next) {
  const mn_value *at = schema_look_up(c, ref);
  const int32_t rule = at ? schema_rule_of(c, at, NULL, sense, ref) : -1;
  return rule < 0 ? MN_NO_NODE : mn_grammar_call(c->g, rule, next);
}

/* ---- a schema ---- */
static mn_bytes_node typed(schema_compiler *c, const mn_value *schema, const char *type, mn_bytes_node next) {
  if (!strcmp(type, "object")) return schema_object(c, schema, next);
  if (!strcmp(type, "array")) return schema_array(c, schema, next);
  if (!strcmp(type, "string")) return schema_string(c, schema, next);
  if (!strcmp(type, "integer") || !strcmp(type, "number")) return schema_number(c, schema, !strcmp(type, "integer"), next);
  if (!strcmp(type, "boolean"))
    return mn_grammar_either(c->g, mn_grammar_text(c->g, "true", 4, next), mn_grammar_text(c->g, "false", 5, next));
  if (!strcmp(type, "null")) return mn_grammar_text(c->g, "null", 4, next);
  return schema_refuse(c, mn_value_get(schema, "type"), "has an unknown type");
}

static mn_bytes_node of_types(schema_compiler *c, const mn_value *schema, const mn_value *type, mn_bytes_node next) {
  mn_bytes_node out = MN_NO_NODE;
  mn_status last = MN_OK;
  if (type->kind == MN_TEXT) return typed(c, schema, type->as.text, next);
  if (type->kind != MN_LIST || !type->count) return schema_refuse(c, type, "has a type that is neither a word nor a list of words");
  for (size_t i = 0; i < type->count && c->status == MN_OK; i++) {
    if (type->as.items[i]->kind != MN_TEXT) return schema_refuse(c, type, "has a type that is neither a word nor a list of words");
    const mn_bytes_node one = typed(c, schema, type->as.items[i]->as.text, next);
    if (!schema_took_nothing(c, &last)) out = out == MN_NO_NODE ? one : mn_grammar_either(c->g, out, one);
  }
  if (out == MN_NO_NODE && c->status == MN_OK && last != MN_OK) c->status = last, c->nothing = true;
  return out;
}

/* ---- keys that say in several ways what a value is ---- */
static const mn_value *merge(schema_compiler *c, const mn_value *a, const mn_value *b, const mn_value *at) {
  schema_why why;
  if (!may_merge(c, at)) return NULL;
  const mn_value *out = mn_schema_merge(c->arena, a, b, &c->budget->left, &why);
  if (!out) schema_refuse_because(c, at, &why);
  return out;
}

static const mn_value *without(schema_compiler *c, const mn_value *schema, const char *key) {
  const mn_value *out = mn_schema_without(c->arena, schema, (const char *const[]){key, NULL});
  if (!out) schema_refuse(c, schema, "needs more memory than there is");
  return out;
}

static bool has_others(const mn_value *schema, const char *key) {
  for (size_t i = 0; i < schema->count; i++)
    if (strcmp(schema->as.entries[i].key, key) != 0 && schema_knows(schema->as.entries[i].key)) return true;
  return false;
}

static bool has_conditions(const mn_value *schema) {
  return mn_value_get(schema, "not") || mn_value_get(schema, "if") || mn_value_get(schema, "then") || mn_value_get(schema, "else");
}

/* A schema with `not` or `if` as one without. NULL: refused. */
static const mn_value *without_conditions(schema_compiler *c, const mn_value *schema) {
  const mn_value *rest, *meant;
  if (!schema_conditions(c, schema, &rest, &meant)) return NULL;
  if (meant->kind == MN_MAP) meant = flat_target(c, meant);
  return meant ? merge(c, rest, meant, schema) : NULL;
}

/* allOf, what stands beside a $ref, and conditions as one schema. NULL: refused. */
static const mn_value *flat(schema_compiler *c, const mn_value *schema) {
  for (const mn_value *v; schema && schema->kind == MN_MAP && c->status == MN_OK;) {
    if (schema->count > MOST_KEYS) return schema_refuse(c, schema, "has more than 64 keys"), NULL;
    if ((v = mn_value_get(schema, "allOf"))) {
      const mn_value *rest = without(c, schema, "allOf");
      if (v->kind != MN_LIST || !v->count) return schema_refuse(c, v, "has allOf that is not a list of schemas"), NULL;
      for (size_t i = 0; i < v->count && rest; i++) {
        const mn_value *one = v->as.items[i];
        if (one->kind == MN_BOOLEAN && one->as.boolean) continue;
        if (v->count > 1 || has_others(schema, "allOf")) one = flat_target(c, one);
        rest = !one ? NULL
               : rest->count || rest->kind != MN_MAP || (v->count > 1 && mn_value_get(one, "unevaluatedProperties"))
                   ? merge(c, rest, one, v)
                   : one;
      }
      schema = rest;
    } else if ((v = mn_value_get(schema, "$ref")) && has_others(schema, "$ref")) {
      const mn_value *place = may_merge(c, v) ? schema_look_up(c, v) : NULL, *target = place ? flat_target(c, place) : NULL;
      const mn_value *rest = target ? without(c, schema, "$ref") : NULL;
      schema = rest ? merge(c, rest, target, v) : NULL;
    } else if (has_conditions(schema)) schema = without_conditions(c, schema);
    else break;
  }
  return schema;
}

/* The same, and where a $ref is all that it says, what that leads to. */
static const mn_value *flat_target(schema_compiler *c, const mn_value *schema) {
  for (const mn_value *ref; (ref = mn_value_get(schema, "$ref")) && !has_others(schema, "$ref");) {
    if (!may_merge(c, ref)) return NULL;
    if (!(schema = schema_look_up(c, ref))) return NULL;
  }
  if (++c->depth > MOST_DEPTH) return schema_refuse(c, schema, "is nested more than 64 deep"), NULL;
  const mn_value *out = flat(c, schema);
  c->depth--;
  return out;
}

/* Was it refused as no value fits? Then the way is none, and the rest goes on. */
bool schema_took_nothing(schema_compiler *c, mn_status *last) {
  if (c->status == MN_OK || !c->nothing) return false;
  *last = c->status, c->status = MN_OK, c->nothing = false;
  return true;
}

/* No value fits two of the list. */
static bool lie_apart(schema_compiler *c, const mn_value *list) {
  const mn_value **all = mn_arena_alloc(c->arena, (list->count + 1) * sizeof *all);
  size_t n = 0;
  mn_status last;
  if (!all) return schema_refuse(c, list, "needs more memory than there is"), false;
  if (!schema_spend(c, list, 16.0 * (double)list->count * (double)list->count)) return false;
  for (size_t i = 0; i < list->count; i++) {
    const mn_value *one = flat_target(c, list->as.items[i]);
    if (schema_took_nothing(c, &last)) continue;
    if (!one) return false;
    all[n++] = one;
  }
  for (size_t i = 0; i < n; i++)
    for (size_t k = 0; k < i; k++)
      if (!mn_schema_apart(all[i], all[k], &c->budget->left)) {
        if (schema_spend(c, list, 0))
          schema_refuse(c, list, "has oneOf of schemas that one value could fit two of: say anyOf, or give each a property of its own");
        return false;
      }
  return true;
}

/* Each way of anyOf with what stands beside it. */
static mn_bytes_node ways(schema_compiler *c, const mn_value *schema, const char *key, mn_bytes_node next) {
  const mn_value *list = mn_value_get(schema, key), *rest = has_others(schema, key) ? without(c, schema, key) : NULL;
  mn_bytes_node out = MN_NO_NODE;
  if (list->kind != MN_LIST || !list->count) return schema_refuse(c, list, "has anyOf that is not a list of schemas");
  if (!strcmp(key, "oneOf") && !lie_apart(c, list)) return MN_NO_NODE;
  mn_status last = MN_OK;
  for (size_t i = 0; i < list->count && c->status == MN_OK; i++) {
    const mn_value *way = list->as.items[i];
    if (rest) way = flat_target(c, way);
    if (rest && way) way = merge(c, rest, way, list);
    const mn_bytes_node one = way ? schema_value(c, way, next) : MN_NO_NODE;
    if (!schema_took_nothing(c, &last)) out = out == MN_NO_NODE ? one : mn_grammar_either(c->g, out, one);
  }
  if (out == MN_NO_NODE && c->status == MN_OK && last != MN_OK) c->status = last, c->nothing = true; /* its message stands */
  return out;
}

/* What a text of JSON has up to the end of its first string. */
static size_t in_quotes(const char *s) {
  size_t n = 1;
  while (s[n] && s[n] != '"') n += s[n] == '\\' ? 2 : 1;
  return n + 1;
}

/* A number without its exponent: those within bounds have none. */
static int32_t take_number(mn_machine *m, int32_t at, const char *s, size_t n) {
  char plain[MOST_PLAIN];
  const char *power = memchr(s, 'e', n), *point = memchr(s, '.', n);
  int places = power && point ? (int)(power - point) - 1 : 0;
  if (power)
    places = places > atoi(power + 1) ? places - atoi(power + 1) : 0,
    n = (size_t)snprintf(plain, sizeof plain, "%.*f", places, strtod(s, NULL)), s = plain;
  for (size_t i = 0; i < n && at >= 0; i++) at = mn_machine_next(m, at, (unsigned char)s[i]);
  return at;
}

/* A machine that failed says nothing of the value. */
static mn_status fits(mn_machine *m, const mn_value *v, bool *good) {
  mn_text t = {0};
  int32_t at = mn_machine_begin(m);
  mn_status status = mn_value_to_json(v, 0, &t);
  if (status == MN_OK) status = mn_text_status(&t);
  for (size_t i = 0; status == MN_OK && i < t.len && at >= 0;) {
    const size_t n = t.data[i] == '"' ? in_quotes(t.data + i) : strspn(t.data + i, "+-.eE0123456789");
    if (n > 1 && t.data[i] != '"') at = take_number(m, at, t.data + i, n);
    else
      for (size_t k = 0; k < (n ? n : 1) && at >= 0; k++) at = mn_machine_next(m, at, (unsigned char)t.data[i + k]);
    i += n ? n : 1;
  }
  mn_text_free(&t);
  *good = status == MN_OK && mn_machine_whole(m, at);
  return status == MN_OK ? mn_machine_status(m) : status;
}

/* Where no type is said, each value is held against the keys of its own. */
static const mn_value *of_any_type(schema_compiler *c, const mn_value *schema) {
  static const char *const words[] = {"object", "array", "string", "number", "boolean", "null"};
  const mn_value *types[6], *values[MOST_KEYS + 1];
  const char *keys[MOST_KEYS + 1];
  size_t n = 0;
  if (!schema || mn_value_get(schema, "type") || !schema_types_spoken_of(c, schema)) return schema;
  for (int i = 0; i < 6; i++) types[i] = mn_value_text(c->arena, words[i]);
  for (; n < schema->count; n++) keys[n] = schema->as.entries[n].key, values[n] = schema->as.entries[n].value; /* at most 64 by now */
  keys[n] = "type", values[n] = mn_value_list(c->arena, 6, types);
  const mn_value *out = mn_value_map(c->arena, n + 1, keys, values);
  if (!out) schema_refuse(c, schema, "needs more memory than there is");
  return out;
}

/* Those of the values that fit what stands beside them. */
static mn_bytes_node fitting(schema_compiler *c, const mn_value *schema, const char *key, mn_bytes_node next) {
  const mn_value *v = mn_value_get(schema, key), *rest = has_others(schema, key) ? without(c, schema, key) : NULL;
  const size_t n = !strcmp(key, "const") ? 1 : v->kind == MN_LIST ? v->count : 0;
  mn_bytes_node out = MN_NO_NODE;
  mn_grammar *g = NULL;
  mn_machine *m = NULL;
  if (!n) return schema_refuse(c, v, "has an enum that is not a list of values");
  if (!may_merge(c, v)) return MN_NO_NODE;
  rest = of_any_type(c, rest);
  if (rest && c->status == MN_OK && (c->status = compiled(c, rest, &g)) == MN_OK) c->status = mn_machine_new(g, &m);
  if (g) schema_spend(c, v, 16 * mn_schema_weight(v) + 16 * (double)mn_grammar_nodes(g));
  for (size_t i = 0; i < n && c->status == MN_OK; i++) {
    const mn_value *one = !strcmp(key, "const") ? v : v->as.items[i];
    bool good = true;
    if (rest) c->status = fits(m, one, &good);
    if (rest && c->status == MN_OK) schema_spend(c, one, OF_A_NODE * (double)mn_machine_take_work(m));
    if (!good || c->status != MN_OK) continue;
    const mn_bytes_node at = literal(c, one, next);
    out = out == MN_NO_NODE ? at : mn_grammar_either(c->g, out, at);
  }
  mn_machine_free(m), mn_grammar_free(g);
  return out == MN_NO_NODE && !schema_is_full(c) ? schema_refuse_as_nothing(c, v, "has no value that fits what stands beside it") : out;
}

/* Is null kept out, whoever is nullable around: of each way, by an opposite or a word of its own? */
static bool keeps_null_out(schema_compiler *c, const mn_value *schema) {
  mn_status last;
  const mn_value *one = flat_target(c, schema), *v = mn_value_get(one, "nullable");
  if (!one) return schema_took_nothing(c, &last); /* a way that is none */
  if (v) return v->kind == MN_BOOLEAN && !v->as.boolean;
  const mn_value *list = mn_value_get(one, "anyOf") ? mn_value_get(one, "anyOf") : mn_value_get(one, "oneOf");
  bool all = list && list->kind == MN_LIST && c->depth < MOST_DEPTH;
  c->depth++;
  for (size_t i = 0; all && i < list->count; i++) all = keeps_null_out(c, list->as.items[i]);
  c->depth--;
  return all;
}

/* OpenAPI's word for one type more. */
static mn_bytes_node or_null(schema_compiler *c, const mn_value *schema, mn_bytes_node next) {
  const mn_value *v = mn_value_get(schema, "nullable"), *rest = without(c, schema, "nullable");
  if (v->kind != MN_BOOLEAN) return schema_refuse(c, v, "is nullable or not: neither true nor false");
  const mn_bytes_node one = rest ? schema_value(c, rest, next) : MN_NO_NODE;
  if (!v->as.boolean || (c->status == MN_OK && rest && keeps_null_out(c, rest))) return one;
  mn_status last;
  const mn_bytes_node null = mn_grammar_text(c->g, "null", 4, next);
  return schema_took_nothing(c, &last) ? null : mn_grammar_either(c->g, null, one);
}

static mn_bytes_node value_at(schema_compiler *c, const mn_value *schema, mn_bytes_node next) {
  static const char *const lists[] = {"anyOf", "oneOf", NULL};
  if (schema->kind == MN_BOOLEAN && schema->as.boolean) return mn_grammar_call(c->g, c->rules.value, next);
  if (schema->kind == MN_BOOLEAN) return schema_refuse_as_nothing(c, schema, "is false, which no value fits");
  if (schema->kind != MN_MAP) return schema_refuse(c, schema, "is not a map");
  for (size_t i = 0; i < schema->count; i++) {
    const char *key = schema->as.entries[i].key;
    char what[160], shown[MN_PRINTABLE];
    if (schema_knows(key) || schema_describes(key)) continue;
    snprintf(what, sizeof what, "has the key '%.100s', which is not known here", mn_printable(key, shown));
    return schema_refuse(c, schema, what);
  }
  schema_sense sense;
  const mn_value *ref = schema_lone_reference(schema, &sense);
  if (ref) return reference_to(c, ref, sense, next);
  const mn_value *const whole = flat(c, schema);
  if (!whole) return MN_NO_NODE;
  if (whole != schema) return schema_value(c, whole, next);
  if (mn_value_get(schema, "nullable")) return or_null(c, schema, next);
  for (int i = 0; lists[i]; i++)
    if (mn_value_get(schema, lists[i])) return ways(c, schema, lists[i], next);
  if (mn_value_get(schema, "const")) return fitting(c, schema, "const", next);
  if (mn_value_get(schema, "enum")) return fitting(c, schema, "enum", next);
  const mn_value *type = mn_value_get(schema, "type");
  if (!type && !(type = schema_types_spoken_of(c, schema))) return mn_grammar_call(c->g, c->rules.value, next);
  return c->status == MN_OK && schema_others_are_formed(c, schema, type) ? of_types(c, schema, type, next) : MN_NO_NODE;
}

mn_bytes_node schema_value(schema_compiler *c, const mn_value *schema, mn_bytes_node next) {
  if (schema_is_full(c)) return MN_NO_NODE;
  if (c->depth == MOST_DEPTH) return schema_refuse(c, schema, "is nested more than 64 deep");
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

static mn_status open_compiler(schema_compiler *c) {
  MN_TRY(mn_grammar_new(&c->g));
  c->refs = mn_calloc(MOST_REFS, sizeof *c->refs);
  c->arena = mn_arena_new();
  if (!c->refs || !c->arena) return MN_ERR_MEMORY;
  c->rules = json_rules_of(c->g);
  return MN_OK;
}

static mn_status close_compiler(schema_compiler *c, mn_status status, int32_t rule, mn_grammar **out) {
  if (status == MN_OK) status = c->status;
  free(c->refs);
  mn_arena_free(c->arena);
  return finish(c->g, status, rule, out);
}

/* A grammar of its own of a schema whose references lead into the other's. */
static mn_status compiled(schema_compiler *whole, const mn_value *schema, mn_grammar **out) {
  schema_compiler c = {
      .root = whole->root, .depth = whole->depth, .overlaps = 1, .widest = 1, .ways = 1, .outermost = MOST_REFS, .budget = whole->budget};
  mn_status status = open_compiler(&c);
  const int32_t rule = status == MN_OK ? mn_grammar_rule(c.g) : 0;
  *out = NULL;
  if (status == MN_OK) mn_grammar_define(c.g, rule, schema_value(&c, schema, mn_grammar_return(c.g)));
  whole->nothing = c.nothing;
  return close_compiler(&c, status, rule, out);
}

mn_status mn_grammar_of_schema(const mn_value *schema, mn_grammar **out) {
  schema_budget budget = {.left = MOST_COMPARISONS};
  schema_compiler c = {.root = schema, .budget = &budget};
  return compiled(&c, schema, out);
}

static mn_bytes_node call_of(schema_compiler *c, const mn_value *function) {
  const mn_value *name = mn_value_get(function, "name"), *parameters = mn_value_get(function, "parameters");
  mn_bytes_node at = mn_grammar_text(c->g, "}", 1, mn_grammar_return(c->g));
  c->root = parameters; /* $ref is within one function's */
  at = parameters ? schema_value(c, parameters, at) : mn_grammar_text(c->g, "{}", 2, at);
  at = mn_grammar_text(c->g, ", \"arguments\": ", 15, at);
  return mn_grammar_text(c->g, "{\"name\": ", 9, literal(c, name, at));
}

mn_status mn_grammar_of_calls(const mn_value *tools, const char *only, mn_grammar **out) {
  schema_budget budget = {.left = MOST_COMPARISONS};
  schema_compiler c = {.overlaps = 1, .widest = 1, .ways = 1, .outermost = MOST_REFS, .budget = &budget};
  mn_bytes_node any = MN_NO_NODE;
  *out = NULL;
  mn_status status = open_compiler(&c);
  const int32_t rule = status == MN_OK ? mn_grammar_rule(c.g) : 0;
  for (size_t i = 0; status == MN_OK && i < tools->count && c.status == MN_OK; i++) {
    const mn_value *f = mn_value_get(tools->as.items[i], "function");
    if (only && strcmp(mn_value_get(f, "name")->as.text, only) != 0) continue;
    const mn_bytes_node at = call_of(&c, f);
    any = any == MN_NO_NODE ? at : mn_grammar_either(c.g, any, at);
  }
  if (status == MN_OK) mn_grammar_define(c.g, rule, any);
  return close_compiler(&c, status, rule, out);
}
