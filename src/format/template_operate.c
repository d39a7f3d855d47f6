/* template_operate.c - what is done with values: attributes and items of them, slices, arithmetic, as Python does it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/template_internal.h"

/* ---- attributes and items ---- */
static mn_tpl_value missing(mn_tpl_run *r, mn_tpl_value of, const char *name) {
  char shown[MN_PRINTABLE];
  mn_tpl_value v = mn_tpl_undefined();
  const char *said = NULL;
  if (r->status == MN_OK) said = mn_arena_format(r->arena, "the undefined '%s' of %s", mn_printable(name, shown), mn_tpl_type_name(of));
  v.as.missing = said;
  return v;
}

static mn_tpl_value bound(mn_tpl_run *r, const mn_tpl_def *def, mn_tpl_value self) {
  mn_tpl_bound *b = mn_tpl_alloc(r, sizeof *b);
  if (!b) return mn_tpl_undefined();
  *b = (mn_tpl_bound){def, self};
  return (mn_tpl_value){.kind = TPL_FUNCTION, .as.bound = b};
}

static mn_tpl_value of_loop(mn_tpl_run *r, mn_tpl_value v, const char *name) {
  const mn_tpl_loop *l = v.as.loop;
  const int64_t n = (int64_t)l->over->n, at = (int64_t)l->at;
  if (!strcmp(name, "index")) return mn_tpl_int(at + 1);
  if (!strcmp(name, "index0")) return mn_tpl_int(at);
  if (!strcmp(name, "revindex")) return mn_tpl_int(n - at);
  if (!strcmp(name, "revindex0")) return mn_tpl_int(n - at - 1);
  if (!strcmp(name, "first")) return mn_tpl_bool(at == 0);
  if (!strcmp(name, "last")) return mn_tpl_bool(at + 1 >= n);
  if (!strcmp(name, "length")) return mn_tpl_int(n);
  if (!strcmp(name, "depth")) return mn_tpl_int(l->depth);
  if (!strcmp(name, "depth0")) return mn_tpl_int(l->depth - 1);
  if (!strcmp(name, "previtem")) return at > 0 ? l->over->at[at - 1] : missing(r, v, name);
  if (!strcmp(name, "nextitem")) return at + 1 < n ? l->over->at[at + 1] : missing(r, v, name);
  const mn_tpl_def *def = mn_tpl_find(mn_tpl_loop_methods, name);
  return def ? bound(r, def, v) : missing(r, v, name);
}

static mn_tpl_value of_macro(mn_tpl_run *r, mn_tpl_value v, const char *name) {
  const mn_tpl_node *n = v.as.macro->node;
  if (!strcmp(name, "name")) return mn_tpl_string_of(r, n->name, strlen(n->name));
  if (strcmp(name, "arguments") != 0) return missing(r, v, name);
  mn_tpl_list *l = mn_tpl_new_list(r, (size_t)n->n, TPL_TUPLE);
  for (int i = 0; i < n->n; i++) mn_tpl_push(r, l, mn_tpl_string_of(r, n->item[i]->name, strlen(n->item[i]->name)));
  return mn_tpl_list_value(l);
}

static const mn_tpl_def *method_of(mn_tpl_value v, const char *name) {
  if (v.kind == TPL_STRING) return mn_tpl_find(mn_tpl_string_methods, name);
  if (v.kind == TPL_LIST) return mn_tpl_find(mn_tpl_list_methods, name);
  return v.kind == TPL_MAP ? mn_tpl_find(mn_tpl_map_methods, name) : NULL;
}

static mn_tpl_value nothing_of(mn_tpl_run *r, mn_tpl_value of, const char *name) {
  char shown[MN_PRINTABLE];
  return mn_tpl_fail(r, "'%s' is asked of %s", mn_printable(name, shown), mn_tpl_type_name(of));
}

mn_tpl_value mn_tpl_attribute(mn_tpl_run *r, mn_tpl_value of, const char *name) {
  if (r->status != MN_OK) return mn_tpl_undefined();
  if (of.kind == TPL_UNDEFINED) return nothing_of(r, of, name);
  if (of.kind == TPL_LOOP) return of_loop(r, of, name);
  if (of.kind == TPL_MACRO) return of_macro(r, of, name);
  const mn_tpl_def *def = method_of(of, name);
  if (def) return bound(r, def, of);
  const mn_tpl_value *v = of.kind == TPL_MAP || of.kind == TPL_NAMESPACE ? mn_tpl_get_text(r, of.as.map, name) : NULL;
  return v ? *v : missing(r, of, name);
}

/* From the end where it is negative. */
static bool place(int64_t *i, int64_t n) {
  if (*i < 0) *i += n;
  return *i >= 0 && *i < n;
}

/* Where characters are not a byte each, the way to character i leads through those before it. */
static bool reads_up_to(mn_tpl_run *r, const mn_tpl_string *s, int64_t i) { return (size_t)s->length == s->n || mn_tpl_read(r, (size_t)i); }

mn_tpl_value mn_tpl_subscript(mn_tpl_run *r, mn_tpl_value of, mn_tpl_value key) {
  char name[64] = "[]";
  if (r->status != MN_OK) return mn_tpl_undefined();
  const bool text =
      key.kind == TPL_STRING && !memchr(key.as.string->data, 0, key.as.string->n < sizeof name ? key.as.string->n : sizeof name);
  if (key.kind == TPL_INT) snprintf(name, sizeof name, "%lld", (long long)key.as.integer);
  if (text) snprintf(name, sizeof name, "%.*s", (int)(key.as.string->n < 60 ? key.as.string->n : 60), key.as.string->data);
  if (of.kind == TPL_UNDEFINED) return nothing_of(r, of, name);
  if (of.kind == TPL_MAP || of.kind == TPL_NAMESPACE) { /* what cannot be a key is not there */
    const bool may =
        mn_tpl_is_number(key) || key.kind == TPL_STRING || key.kind == TPL_NONE || (key.kind == TPL_LIST && key.as.list->form == TPL_TUPLE);
    const mn_tpl_value *v = may ? mn_tpl_get(r, of.as.map, key) : NULL;
    if (v) return *v;
  } else if (of.kind == TPL_LIST && (key.kind == TPL_INT || key.kind == TPL_BOOL)) {
    int64_t i = key.kind == TPL_INT ? key.as.integer : key.as.boolean;
    return place(&i, (int64_t)of.as.list->n) ? of.as.list->at[i] : missing(r, of, name);
  } else if (of.kind == TPL_STRING && (key.kind == TPL_INT || key.kind == TPL_BOOL)) {
    int64_t i = key.kind == TPL_INT ? key.as.integer : key.as.boolean;
    if (!place(&i, mn_tpl_length(r, of))) return missing(r, of, name);
    if (!reads_up_to(r, of.as.string, i)) return mn_tpl_undefined();
    size_t at = mn_tpl_offset(of.as.string, i);
    const size_t begin = at;
    mn_tpl_next(of.as.string, &at);
    return mn_tpl_string_of(r, of.as.string->data + begin, at - begin);
  }
  if (text && key.as.string->n < sizeof name && of.kind != TPL_NAMESPACE) { /* what has no such item may have such an attribute */
    if (of.kind == TPL_LOOP || of.kind == TPL_MACRO) return mn_tpl_attribute(r, of, name);
    const mn_tpl_def *def = method_of(of, name);
    if (def) return bound(r, def, of);
  }
  return missing(r, of, name);
}

mn_tpl_value mn_tpl_path(mn_tpl_run *r, mn_tpl_value of, mn_tpl_value path, const mn_tpl_value *otherwise) {
  if (path.kind != TPL_STRING) {
    of = mn_tpl_subscript(r, of, path);
    return of.kind == TPL_UNDEFINED && otherwise ? *otherwise : of;
  }
  const mn_tpl_string *s = path.as.string;
  for (size_t at = 0; at <= s->n && r->status == MN_OK;) {
    const char *dot = at < s->n ? memchr(s->data + at, '.', s->n - at) : NULL;
    const size_t end = dot ? (size_t)(dot - s->data) : s->n;
    bool number = end > at && end - at < 18;
    int64_t i = 0;
    for (size_t k = at; k < end && number; k++) number = s->data[k] >= '0' && s->data[k] <= '9', i = i * 10 + (s->data[k] - '0');
    of = mn_tpl_subscript(r, of, number ? mn_tpl_int(i) : mn_tpl_string_of(r, s->data + at, end - at));
    if (of.kind == TPL_UNDEFINED && otherwise) of = *otherwise;
    at = end + 1;
  }
  return of;
}

/* ---- slices ---- */
static bool bound_of(mn_tpl_run *r, mn_tpl_value v, int64_t otherwise, int64_t *out) {
  if (v.kind == TPL_NONE) *out = otherwise;
  else if (v.kind == TPL_INT) *out = v.as.integer;
  else if (v.kind == TPL_BOOL) *out = v.as.boolean;
  else mn_tpl_fail(r, "a slice goes by integers, not by %s", mn_tpl_type_name(v));
  return r->status == MN_OK;
}

static int64_t clamp(int64_t i, int64_t n, int64_t step) {
  if (i < 0) i = i < -n ? -1 : i + n;
  if (i < 0) return step < 0 ? -1 : 0;
  return i < n ? i : step < 0 ? n - 1 : n;
}

mn_tpl_value mn_tpl_slice(mn_tpl_run *r, mn_tpl_value of, const mn_tpl_value part[3]) {
  int64_t from = 0, to = 0, step = 1;
  if (r->status != MN_OK) return mn_tpl_undefined();
  if (of.kind == TPL_UNDEFINED) return nothing_of(r, of, "[:]");
  const bool text = of.kind == TPL_STRING;
  if (!text && of.kind != TPL_LIST) return missing(r, of, "[:]");
  const int64_t n = text ? mn_tpl_length(r, of) : (int64_t)of.as.list->n;
  if (!bound_of(r, part[2], 1, &step)) return mn_tpl_undefined();
  if (step == 0) return mn_tpl_fail(r, "a slice with the step 0");
  if (!bound_of(r, part[0], step < 0 ? INT64_MAX : 0, &from) || !bound_of(r, part[1], step < 0 ? INT64_MIN : n, &to))
    return mn_tpl_undefined();
  from = clamp(from, n, step), to = clamp(to, n, step);
  if (step > n) step = n + 1;
  if (step < -n) step = -n - 1;
  if (text && step == 1) {
    if (!reads_up_to(r, of.as.string, from + to)) return mn_tpl_undefined();
    const size_t begin = mn_tpl_offset(of.as.string, from), end = to > from ? mn_tpl_offset(of.as.string, to) : begin;
    return mn_tpl_string_of(r, of.as.string->data + begin, end - begin);
  }
  mn_tpl_list *all = mn_tpl_items(r, of), *l = mn_tpl_new_list(r, 0, text ? TPL_PLAIN : of.as.list->form);
  if (r->status != MN_OK) return mn_tpl_undefined();
  for (int64_t i = from; step > 0 ? i < to : i > to; i += step)
    if (!mn_tpl_push(r, l, all->at[i])) return mn_tpl_undefined();
  if (!text) return mn_tpl_list_value(l);
  mn_text out = {0};
  for (size_t i = 0; i < l->n; i++) mn_tpl_add_str(r, l->at[i], &out);
  return mn_tpl_take(r, &out);
}

/* ---- arithmetic ---- */
static mn_tpl_value no_operation(mn_tpl_run *r, const char *what, mn_tpl_value a, mn_tpl_value b) {
  return mn_tpl_fail(r, "%s and %s cannot be %s", mn_tpl_type_name(a), mn_tpl_type_name(b), what);
}

static mn_tpl_value repeated(mn_tpl_run *r, mn_tpl_value v, int64_t times) {
  const size_t n = v.kind == TPL_STRING ? v.as.string->n : v.as.list->n;
  size_t bytes;
  if (times < 0) times = 0;
  if (!mn_size_mul(n, (size_t)times, &bytes) || bytes > r->limits.memory)
    return mn_tpl_fail(r, "the template makes values of more than %zu bytes", r->limits.memory);
  if (v.kind == TPL_STRING) {
    mn_text out = {0};
    mn_tpl_step(r, (int64_t)(bytes / 1024));
    for (int64_t i = 0; n && i < times && r->status == MN_OK; i++) mn_text_add_bytes(&out, v.as.string->data, n);
    return mn_tpl_take(r, &out);
  }
  mn_tpl_list *l = mn_tpl_new_list(r, 0, v.as.list->form);
  for (int64_t i = 0; n && i < times; i++)
    for (size_t k = 0; k < n; k++)
      if (!mn_tpl_push(r, l, v.as.list->at[k])) return mn_tpl_undefined();
  return mn_tpl_list_value(l);
}

static mn_tpl_value joined(mn_tpl_run *r, mn_tpl_value a, mn_tpl_value b) {
  if (a.kind == TPL_STRING) {
    const bool safe = a.as.string->safe || b.as.string->safe;
    if (safe) a = mn_tpl_escaped(r, a.as.string), b = mn_tpl_escaped(r, b.as.string);
    if (r->status != MN_OK) return mn_tpl_undefined();
    const mn_tpl_string *s = a.as.string, *t = b.as.string;
    mn_tpl_string *sum = mn_tpl_alloc(r, sizeof *sum + s->n + t->n + 1);
    if (!sum) return mn_tpl_undefined();
    char *data = (char *)(sum + 1);
    memcpy(data, s->data, s->n);
    memcpy(data + s->n, t->data, t->n);
    *sum = (mn_tpl_string){data, s->n + t->n, -1, safe};
    return (mn_tpl_value){.kind = TPL_STRING, .as.string = sum};
  }
  mn_tpl_list *l = mn_tpl_new_list(r, a.as.list->n + b.as.list->n, a.as.list->form);
  for (size_t i = 0; i < a.as.list->n; i++) mn_tpl_push(r, l, a.as.list->at[i]);
  for (size_t i = 0; i < b.as.list->n; i++) mn_tpl_push(r, l, b.as.list->at[i]);
  return mn_tpl_list_value(l);
}

static bool power(int64_t base, int64_t exponent, int64_t *out) {
  *out = 1;
  if (base == 0 || base == 1 || base == -1) { /* however large the exponent is */
    *out = exponent == 0 ? 1 : base == -1 && exponent % 2 == 0 ? 1 : base;
    return true;
  }
  for (; exponent > 0; exponent--)
    if (__builtin_mul_overflow(*out, base, out)) return false;
  return true;
}

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

static mn_tpl_value of_integers(mn_tpl_run *r, mn_tpl_op op, int64_t a, int64_t b) {
  int64_t x = 0;
  bool over = false;
  if ((op == TPL_DIV || op == TPL_FLOOR_DIV || op == TPL_MOD) && b == 0) return mn_tpl_fail(r, "a division by zero");
  if (op == TPL_DIV) return mn_tpl_real((double)a / (double)b);
  if (op == TPL_POW && b < 0) return a ? mn_tpl_real(pow((double)a, (double)b)) : mn_tpl_fail(r, "zero to a negative power");
  if (op == TPL_ADD) over = __builtin_add_overflow(a, b, &x);
  else if (op == TPL_SUB) over = __builtin_sub_overflow(a, b, &x);
  else if (op == TPL_MUL) over = __builtin_mul_overflow(a, b, &x);
  else if (op == TPL_POW) over = !power(a, b, &x);
  else if (b == -1) over = op == TPL_FLOOR_DIV && __builtin_sub_overflow(0, a, &x); /* INT64_MIN / -1 */
  else x = op == TPL_FLOOR_DIV ? floor_div(a, b) : a - b * floor_div(a, b);
  return over ? mn_tpl_fail(r, "an integer of more than 64 bits") : mn_tpl_int(x);
}

static mn_tpl_value of_reals(mn_tpl_run *r, mn_tpl_op op, double a, double b) {
  if ((op == TPL_DIV || op == TPL_FLOOR_DIV || op == TPL_MOD) && b == 0) return mn_tpl_fail(r, "a division by zero");
  switch (op) {
  case TPL_ADD:
    return mn_tpl_real(a + b);
  case TPL_SUB:
    return mn_tpl_real(a - b);
  case TPL_MUL:
    return mn_tpl_real(a * b);
  case TPL_DIV:
    return mn_tpl_real(a / b);
  case TPL_FLOOR_DIV:
    return mn_tpl_real(floor(a / b));
  case TPL_MOD: {
    const double m = fmod(a, b);
    return mn_tpl_real(m && (m < 0) != (b < 0) ? m + b : m);
  }
  default:
    return mn_tpl_real(pow(a, b));
  }
}

mn_tpl_value mn_tpl_binary(mn_tpl_run *r, mn_tpl_op op, mn_tpl_value a, mn_tpl_value b) {
  if (r->status != MN_OK) return mn_tpl_undefined();
  if (mn_tpl_is_number(a) && mn_tpl_is_number(b)) {
    if (a.kind == TPL_FLOAT || b.kind == TPL_FLOAT) return of_reals(r, op, mn_tpl_number(a), mn_tpl_number(b));
    return of_integers(r, op, a.kind == TPL_INT ? a.as.integer : a.as.boolean, b.kind == TPL_INT ? b.as.integer : b.as.boolean);
  }
  const bool lists = a.kind == TPL_LIST && b.kind == TPL_LIST && a.as.list->form <= TPL_TUPLE && a.as.list->form == b.as.list->form;
  if (op == TPL_ADD) return (a.kind == TPL_STRING && b.kind == TPL_STRING) || lists ? joined(r, a, b) : no_operation(r, "added", a, b);
  if (op == TPL_MUL) {
    if (b.kind == TPL_STRING || b.kind == TPL_LIST) { /* either way round */
      const mn_tpl_value swap = a;
      a = b, b = swap;
    }
    const bool many = a.kind == TPL_STRING || (a.kind == TPL_LIST && a.as.list->form <= TPL_TUPLE);
    if (many && (b.kind == TPL_INT || b.kind == TPL_BOOL)) return repeated(r, a, b.kind == TPL_INT ? b.as.integer : b.as.boolean);
    return no_operation(r, "multiplied", a, b);
  }
  if (op == TPL_MOD && a.kind == TPL_STRING) {
    mn_tpl_list one = {.at = &b, .n = 1};
    const bool many = b.kind == TPL_LIST && b.as.list->form == TPL_TUPLE;
    if (!mn_tpl_read(r, a.as.string->n)) return mn_tpl_undefined();
    return mn_tpl_percent(r, a.as.string, many ? b.as.list : &one, b.kind == TPL_MAP ? b.as.map : NULL);
  }
  static const char *const what[] = {
      [TPL_SUB] = "subtracted", [TPL_DIV] = "divided", [TPL_FLOOR_DIV] = "divided", [TPL_MOD] = "divided", [TPL_POW] = "raised to a power"};
  return no_operation(r, what[op], a, b);
}
