/* template_functions.c - how functions, methods, filters and tests are called; the tests (what stands behind `is`) and the functions that
 * every template has. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "format/template_internal.h"

typedef const mn_tpl_value *const *given;

const mn_tpl_def *mn_tpl_find(const mn_tpl_def *table, const char *name) {
  for (; table->name; table++)
    if (!strcmp(table->name, name)) return table;
  return NULL;
}
const mn_tpl_def *mn_tpl_filter(const char *name) { return mn_tpl_find(mn_tpl_filters, name); }
const mn_tpl_def *mn_tpl_test(const char *name) { return mn_tpl_find(mn_tpl_tests, name); }

/* Which argument of "!old !new count" has this name; -1: none. *n: how many there are; *needed: how many must be there. */
static int argument(const char *takes, const char *name, int *n, int *needed) {
  int found = -1;
  *n = *needed = 0;
  while (*takes) {
    const bool must = *takes == '!';
    takes += must;
    const size_t len = strcspn(takes, " ");
    if (name && strlen(name) == len && !memcmp(name, takes, len)) found = *n;
    if (must) *needed = *n + 1;
    ++*n;
    takes += len + (takes[len] == ' ');
  }
  return found;
}

/* For the texts that a call looks through; tests know themselves whether they do. */
static bool charge(mn_tpl_run *r, mn_tpl_value self, const mn_tpl_args *args) {
  size_t n = self.kind == TPL_STRING ? self.as.string->n : 0;
  for (int i = 0; i < args->n; i++) n += args->at[i].kind == TPL_STRING ? args->at[i].as.string->n : 0;
  for (int i = 0; i < args->n_named; i++) n += args->named[i].kind == TPL_STRING ? args->named[i].as.string->n : 0;
  return mn_tpl_read(r, n);
}

mn_tpl_value mn_tpl_apply(mn_tpl_run *r, const mn_tpl_def *def, const char *kind, mn_tpl_value self, const mn_tpl_args *args) {
  const mn_tpl_value *arg[TPL_ARGS] = {0};
  int n = 0, needed = 0;
  if (r->status != MN_OK || !mn_tpl_step(r, 1) || (strcmp(kind, "test") != 0 && !charge(r, self, args))) return mn_tpl_undefined();
  if (!def->takes) {
    if (!mn_tpl_enter(r)) return mn_tpl_undefined();
    const mn_tpl_value v = def->call(r, self, NULL, args);
    mn_tpl_leave(r);
    return v;
  }
  argument(def->takes, NULL, &n, &needed);
  if (args->n > n) return mn_tpl_fail(r, "the %s '%s' takes at most %d arguments, not %d", kind, def->name, n, args->n);
  for (int i = 0; i < args->n; i++) arg[i] = &args->at[i];
  for (int i = 0; i < args->n_named; i++) {
    char shown[MN_PRINTABLE];
    const int at = argument(def->takes, args->name[i], &n, &needed);
    if (at < 0) return mn_tpl_fail(r, "the %s '%s' has no argument '%s'", kind, def->name, mn_printable(args->name[i], shown));
    if (arg[at]) return mn_tpl_fail(r, "the %s '%s' is given '%s' twice", kind, def->name, mn_printable(args->name[i], shown));
    arg[at] = &args->named[i];
  }
  for (int i = 0; i < needed; i++)
    if (!arg[i]) return mn_tpl_fail(r, "the %s '%s' wants %d arguments", kind, def->name, needed);
  return def->call(r, self, arg, args);
}

/* ---- tests ---- */
#define TEST(name, expression)                                                                                                             \
  static mn_tpl_value name(mn_tpl_run *r, mn_tpl_value v, given arg, const mn_tpl_args *all) {                                             \
    (void)r, (void)v, (void)arg, (void)all;                                                                                                \
    return mn_tpl_bool(expression);                                                                                                        \
  }

static bool has_case(mn_tpl_run *r, mn_tpl_value v, bool upper) {
  v = mn_tpl_str(r, v);
  bool any = false;
  if (r->status != MN_OK || !mn_tpl_read(r, v.as.string->n)) return false;
  for (size_t at = 0, passed = 0; at < v.as.string->n && mn_tpl_goes_on(r, &passed);) {
    const int32_t c = mn_tpl_next(v.as.string, &at);
    if (mn_tpl_is_title(c) || (upper ? mn_tpl_is_lower(c) : mn_tpl_is_upper(c))) return false;
    any = any || (upper ? mn_tpl_is_upper(c) : mn_tpl_is_lower(c));
  }
  return any;
}

static bool divisible(mn_tpl_run *r, mn_tpl_value v, mn_tpl_value by) {
  const mn_tpl_value rest = v.kind == TPL_STRING ? mn_tpl_fail(r, "a string is not divided") : mn_tpl_binary(r, TPL_MOD, v, by);
  return mn_tpl_number(rest) == 0;
}

static bool odd(mn_tpl_run *r, mn_tpl_value v) {
  const mn_tpl_value rest =
      v.kind == TPL_STRING ? mn_tpl_fail(r, "a string is not odd or even") : mn_tpl_binary(r, TPL_MOD, v, mn_tpl_int(2));
  return mn_tpl_number(rest) == 1;
}

/* The same object, in Python. Of equal texts and floats nobody can say: that is up to how it keeps them. */
static bool same(mn_tpl_run *r, mn_tpl_value a, mn_tpl_value b) {
  if (a.kind != b.kind) return false;
  if (a.kind == TPL_NONE) return true;
  if (a.kind == TPL_BOOL) return a.as.boolean == b.as.boolean;
  if (a.kind == TPL_INT) return a.as.integer == b.as.integer;
  if (a.kind == TPL_UNDEFINED) return false;
  if (a.kind != TPL_FLOAT && a.as.map == b.as.map) return true;
  const bool kept = a.kind == TPL_STRING || a.kind == TPL_FLOAT || (a.kind == TPL_LIST && a.as.list->form == TPL_TUPLE);
  if (kept && mn_tpl_equal(r, a, b))
    mn_tpl_fail(r, "'sameas' of %s and an equal one, which is up to Python's memory, is not supported: use ==", mn_tpl_type_name(a));
  return false;
}

TEST(is_defined, v.kind != TPL_UNDEFINED)
TEST(is_undefined, v.kind == TPL_UNDEFINED)
TEST(is_none, v.kind == TPL_NONE)
TEST(is_boolean, v.kind == TPL_BOOL)
TEST(is_true, v.kind == TPL_BOOL && v.as.boolean)
TEST(is_false, v.kind == TPL_BOOL && !v.as.boolean)
TEST(is_integer, v.kind == TPL_INT)
TEST(is_float, v.kind == TPL_FLOAT)
TEST(is_number, mn_tpl_is_number(v))
TEST(is_string, v.kind == TPL_STRING)
TEST(is_mapping, v.kind == TPL_MAP)
TEST(is_iterable, v.kind == TPL_STRING || v.kind == TPL_LIST || v.kind == TPL_MAP || v.kind == TPL_UNDEFINED || v.kind == TPL_LOOP)
TEST(is_sequence, v.kind == TPL_STRING || v.kind == TPL_MAP || v.kind == TPL_UNDEFINED ||
                      (v.kind == TPL_LIST && v.as.list->form != TPL_LAZY && v.as.list->form != TPL_VIEW))
TEST(is_callable, v.kind == TPL_MACRO || v.kind == TPL_FUNCTION)
TEST(is_upper, has_case(r, v, true))
TEST(is_lower, has_case(r, v, false))
TEST(is_escaped, false)
TEST(is_odd, odd(r, v))
TEST(is_even, !odd(r, v))
TEST(is_divisible, divisible(r, v, *arg[0]))
TEST(is_same, same(r, v, *arg[0]))
TEST(is_in, mn_tpl_contains(r, *arg[0], v))
TEST(is_eq, mn_tpl_equal(r, v, *arg[0]))
TEST(is_ne, !mn_tpl_equal(r, v, *arg[0]))
TEST(is_lt, mn_tpl_order(r, v, *arg[0]) < 0)
TEST(is_le, mn_tpl_order(r, v, *arg[0]) <= 0)
TEST(is_gt, mn_tpl_order(r, v, *arg[0]) > 0)
TEST(is_ge, mn_tpl_order(r, v, *arg[0]) >= 0)
TEST(is_filter, v.kind == TPL_STRING && mn_tpl_filter(v.as.string->data) != NULL)
TEST(is_test, v.kind == TPL_STRING && mn_tpl_test(v.as.string->data) != NULL)

const mn_tpl_def mn_tpl_tests[] = {{"boolean", "", is_boolean},
                                   {"callable", "", is_callable},
                                   {"defined", "", is_defined},
                                   {"divisibleby", "!num", is_divisible},
                                   {"eq", "!b", is_eq},
                                   {"equalto", "!b", is_eq},
                                   {"==", "!b", is_eq},
                                   {"escaped", "", is_escaped},
                                   {"even", "", is_even},
                                   {"false", "", is_false},
                                   {"filter", "", is_filter},
                                   {"float", "", is_float},
                                   {"ge", "!b", is_ge},
                                   {">=", "!b", is_ge},
                                   {"greaterthan", "!b", is_gt},
                                   {"gt", "!b", is_gt},
                                   {">", "!b", is_gt},
                                   {"in", "!seq", is_in},
                                   {"integer", "", is_integer},
                                   {"iterable", "", is_iterable},
                                   {"le", "!b", is_le},
                                   {"<=", "!b", is_le},
                                   {"lessthan", "!b", is_lt},
                                   {"lower", "", is_lower},
                                   {"lt", "!b", is_lt},
                                   {"<", "!b", is_lt},
                                   {"mapping", "", is_mapping},
                                   {"ne", "!b", is_ne},
                                   {"!=", "!b", is_ne},
                                   {"none", "", is_none},
                                   {"number", "", is_number},
                                   {"odd", "", is_odd},
                                   {"sameas", "!other", is_same},
                                   {"sequence", "", is_sequence},
                                   {"string", "", is_string},
                                   {"test", "", is_test},
                                   {"true", "", is_true},
                                   {"undefined", "", is_undefined},
                                   {"upper", "", is_upper},
                                   {0}};

/* ---- functions ---- */
#define FUNCTION(name) static mn_tpl_value name(mn_tpl_run *r, mn_tpl_value self, given arg, const mn_tpl_args *all)

FUNCTION(raise_exception) {
  (void)self, (void)all;
  const mn_tpl_value said = mn_tpl_str(r, *arg[0]);
  mn_text shown = {0};
  if (r->status != MN_OK) return said;
  mn_text_add_shown(&shown, said.as.string->data, said.as.string->n < 400 ? said.as.string->n : 400, false);
  r->status = mn_fail(MN_ERR_CONFIG, "the template refuses: %s (%s:%d)", shown.data ? shown.data : "", r->t->name, r->line);
  mn_text_free(&shown);
  return mn_tpl_undefined();
}

FUNCTION(range) {
  (void)self, (void)arg;
  int64_t part[3] = {0, 0, 1};
  enum { MOST = 100000 };
  if (all->n < 1 || all->n > 3 || all->n_named) return mn_tpl_fail(r, "range takes one to three integers");
  for (int i = 0; i < all->n; i++) {
    if (all->at[i].kind != TPL_INT && all->at[i].kind != TPL_BOOL)
      return mn_tpl_fail(r, "range wants integers, not %s", mn_tpl_type_name(all->at[i]));
    part[all->n == 1 ? 1 : i] = all->at[i].kind == TPL_INT ? all->at[i].as.integer : all->at[i].as.boolean;
  }
  const int64_t from = part[0], to = part[1], step = part[2];
  if (step == 0) return mn_tpl_fail(r, "range with the step 0");
  mn_tpl_list *l = mn_tpl_new_list(r, 0, TPL_RANGE);
  for (int64_t i = from; step > 0 ? i < to : i > to;) {
    if (l->n == MOST) return mn_tpl_fail(r, "a range of more than %d numbers", MOST);
    if (!mn_tpl_push(r, l, mn_tpl_int(i)) || __builtin_add_overflow(i, step, &i)) break;
  }
  return mn_tpl_list_value(l);
}

/* A map from pairs or another map, and from arguments by name. */
static mn_tpl_map *map_from(mn_tpl_run *r, const mn_tpl_args *all, const char *what) {
  mn_tpl_map *m = mn_tpl_new_map(r);
  if (all->n > 1) mn_tpl_fail(r, "%s takes one map or list of pairs, and names", what);
  if (r->status == MN_OK && all->n && all->at[0].kind == TPL_MAP) {
    const mn_tpl_map *of = all->at[0].as.map;
    for (size_t i = 0; i < of->n && mn_tpl_put(r, m, of->at[i].key, of->at[i].value);) i++;
  } else if (r->status == MN_OK && all->n) {
    const mn_tpl_list *pairs = mn_tpl_items(r, all->at[0]);
    for (size_t i = 0; i < pairs->n && r->status == MN_OK; i++) {
      const mn_tpl_list *pair = mn_tpl_items(r, pairs->at[i]);
      if (r->status == MN_OK && pair->n != 2) mn_tpl_fail(r, "%s is made of pairs", what);
      if (r->status == MN_OK) mn_tpl_put(r, m, pair->at[0], pair->at[1]);
    }
  }
  for (int i = 0; i < all->n_named && r->status == MN_OK; i++)
    mn_tpl_put(r, m, mn_tpl_string_of(r, all->name[i], strlen(all->name[i])), all->named[i]);
  return m;
}

FUNCTION(dict) { return (void)self, (void)arg, mn_tpl_map_value(map_from(r, all, "dict")); }
FUNCTION(namespace) {
  (void)self, (void)arg;
  mn_tpl_map *m = map_from(r, all, "namespace");
  for (size_t i = 0; i < m->n && r->status == MN_OK; i++)
    if (m->at[i].key.kind == TPL_STRING && m->at[i].key.as.string->data[0] == '_')
      mn_tpl_fail(r, "a namespace has no attribute that begins with _");
  return (mn_tpl_value){.kind = TPL_NAMESPACE, .as.map = m};
}

FUNCTION(strftime_now) {
  (void)self, (void)all;
  char text[1024];
  struct tm local;
  const time_t now = r->limits.now ? (time_t)r->limits.now : time(NULL);
  if (arg[0]->kind != TPL_STRING) return mn_tpl_fail(r, "strftime_now wants a format, not %s", mn_tpl_type_name(*arg[0]));
  const mn_tpl_string *s = arg[0]->as.string;
  if (s->n > 200 || strlen(s->data) != s->n || !localtime_r(&now, &local)) return mn_tpl_fail(r, "strftime_now cannot write this time");
  for (size_t i = 0; i + 1 < s->n; i++) /* widths could be long */
    if (s->data[i] == '%' && (i++, s->data[i] >= '0' && s->data[i] <= '9')) return mn_tpl_fail(r, "strftime_now takes no widths");
  const size_t n = s->n ? strftime(text, sizeof text, s->data, &local) : 0;
  return mn_tpl_string_of(r, text, n);
}

const mn_tpl_def mn_tpl_globals[] = {{"raise_exception", "!message", raise_exception},
                                     {"range", NULL, range},
                                     {"dict", NULL, dict},
                                     {"namespace", NULL, namespace},
                                     {"strftime_now", "!format", strftime_now},
                                     {0}};
