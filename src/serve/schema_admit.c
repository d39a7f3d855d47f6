/* schema_admit.c - see schema_admit.h. */
#include "serve/schema_admit.h"

#include <string.h>

#include "base/text.h"
#include "serve/schema_merge.h"

enum { MOST_DEPTH = 16 };

/* ---- patterns that exclude texts ---- */
static const char before[] = "^(?!(?:", after[] = ")$)", special[] = "^$\\.*+?()[]{}|/";

/* What stands between, n letters; NULL: it is another pattern. */
static const char *excluded(const mn_value *pattern, size_t *n) {
  const size_t head = sizeof before - 1, tail = sizeof after - 1;
  const char *s = pattern && pattern->kind == MN_TEXT ? pattern->as.text : "";
  const size_t len = strlen(s);
  if (len < head + tail || strncmp(s, before, head) != 0 || strcmp(s + len - tail, after) != 0) return NULL;
  *n = len - head - tail;
  for (size_t i = head; i < head + *n; i++) {
    const bool escaped = s[i] == '\\';
    if (escaped && ++i == head + *n) return NULL;
    if (s[i] != '|' && escaped != (strchr(special, s[i]) != NULL)) return NULL;
  }
  return s + head;
}

static bool excludes(const mn_value *pattern, const char *text) {
  size_t n;
  const char *s = excluded(pattern, &n);
  for (size_t i = 0, at = 0; s && i <= n; i++) {
    if (i == n || s[i] == '|') { /* an end of one: the whole text, or begin again */
      if (at != (size_t)-1 && !text[at]) return true;
      at = 0;
      continue;
    }
    if (s[i] == '\\') i++;
    if (at != (size_t)-1) at = text[at] && text[at] == s[i] ? at + 1 : (size_t)-1;
  }
  return false;
}

const mn_value *mn_schema_exclude_both(mn_arena *arena, const mn_value *a, const mn_value *b) {
  size_t n, k;
  const char *x = excluded(a, &n), *y = excluded(b, &k);
  mn_text t = {0};
  if (!x || !y) return NULL;
  mn_text_add(&t, before);
  mn_text_add_bytes(&t, x, n);
  mn_text_add(&t, "|");
  mn_text_add_bytes(&t, y, k);
  mn_text_add(&t, after);
  const mn_value *out = mn_text_status(&t) == MN_OK ? mn_value_text(arena, t.data) : NULL;
  mn_text_free(&t);
  return out;
}

/* ---- values ---- */
static bool is_number(const mn_value *v) { return v && (v->kind == MN_INTEGER || v->kind == MN_REAL); }

static bool is_named(const mn_value *v, const char *type) {
  return !strcmp(type, mn_schema_type_of(v)) || (is_number(v) && !strcmp(type, "integer"));
}

static bool is_of(const mn_value *v, const mn_value *type) {
  if (!type || (type->kind != MN_TEXT && type->kind != MN_LIST)) return true;
  if (type->kind == MN_TEXT) return is_named(v, type->as.text);
  for (size_t i = 0; i < type->count; i++)
    if (type->as.items[i]->kind != MN_TEXT || is_named(v, type->as.items[i]->as.text)) return true;
  return false;
}

/* Does the order of a and b go against a bound? */
static bool beyond(const mn_value *a, const mn_value *b, bool or_equal) {
  if (!is_number(a) || !is_number(b)) return false;
  return mn_schema_order(a, b) > 0 || (or_equal && mn_schema_order(a, b) == 0);
}

static bool within_bounds(const mn_value *schema, const mn_value *v) {
  return !beyond(mn_value_get(schema, "minimum"), v, false) && !beyond(mn_value_get(schema, "exclusiveMinimum"), v, true) &&
         !beyond(v, mn_value_get(schema, "maximum"), false) && !beyond(v, mn_value_get(schema, "exclusiveMaximum"), true);
}

static bool is_among(const mn_value *list, const mn_value *v) {
  bool among = !list || list->kind != MN_LIST;
  for (size_t i = 0; !among && i < list->count; i++) among = mn_schema_equal(list->as.items[i], v);
  return among;
}

static bool is_nullable(const mn_value *schema) {
  const mn_value *v = mn_value_get(schema, "nullable");
  return v && (v->kind != MN_BOOLEAN || v->as.boolean);
}

/* Could the value fit? False is certain. */
static bool admits(const mn_value *schema, const mn_value *v, int depth, double *left) {
  const mn_value *one = mn_value_get(schema, "const"), *ways = mn_value_get(schema, "anyOf"), *all = mn_value_get(schema, "allOf");
  if (schema->kind == MN_BOOLEAN) return schema->as.boolean;
  if (schema->kind != MN_MAP || depth == MOST_DEPTH || is_nullable(schema)) return true;
  *left -= 16.0 * (double)schema->count + mn_schema_weight(v) * (1 + mn_schema_weight(mn_value_get(schema, "enum"))) +
           mn_schema_weight(mn_value_get(schema, "pattern"));
  if (*left < 0) return true;
  if (!is_of(v, mn_value_get(schema, "type")) || (one && !mn_schema_equal(one, v))) return false;
  if (!is_among(mn_value_get(schema, "enum"), v) || !within_bounds(schema, v)) return false;
  if (v->kind == MN_TEXT && excludes(mn_value_get(schema, "pattern"), v->as.text)) return false;
  bool good = !ways || ways->kind != MN_LIST;
  for (size_t i = 0; !good && i < ways->count; i++) good = admits(ways->as.items[i], v, depth + 1, left);
  for (size_t i = 0; good && all && all->kind == MN_LIST && i < all->count; i++) good = admits(all->as.items[i], v, depth + 1, left);
  return good;
}

static bool has_no_number(const mn_value *schema) {
  const mn_value *type = mn_value_get(schema, "type");
  if (!type || type->kind != MN_TEXT || (strcmp(type->as.text, "number") != 0 && strcmp(type->as.text, "integer") != 0)) return false;
  static const char *const low[] = {"minimum", "exclusiveMinimum"}, *const high[] = {"maximum", "exclusiveMaximum"};
  for (int i = 0; i < 4; i++)
    if (beyond(mn_value_get(schema, low[i & 1]), mn_value_get(schema, high[i >> 1]), i > 0)) return true;
  return false;
}

bool mn_schema_admits_nothing(const mn_value *schema, double *left) {
  const mn_value *one = mn_value_get(schema, "const"), *list = mn_value_get(schema, "enum");
  if (schema->kind != MN_MAP || is_nullable(schema)) return schema->kind == MN_BOOLEAN && !schema->as.boolean;
  if (one) return !admits(schema, one, 0, left);
  for (size_t i = 0; list && list->kind == MN_LIST && i < list->count; i++)
    if (admits(schema, list->as.items[i], 0, left)) return false;
  return (list && list->kind == MN_LIST) || has_no_number(schema);
}
