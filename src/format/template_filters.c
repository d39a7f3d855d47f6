/* template_filters.c - the filters of templates: what stands behind |. */
#define _GNU_SOURCE /* memmem, qsort_r */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/json.h"
#include "format/template_internal.h"

typedef const mn_tpl_value *const *given; /* arguments in the order of `takes`; NULL: not given */
#define FILTER(name) static mn_tpl_value name(mn_tpl_run *r, mn_tpl_value self, given arg, const mn_tpl_args *all)
#define UNUSED       (void)all, (void)arg

static bool yes(const mn_tpl_value *v) { return v && mn_tpl_truth(*v); }

/* As text; a fault where there is none. */
static mn_tpl_string *text_of(mn_tpl_run *r, mn_tpl_value v) {
  static mn_tpl_string none = {"", 0, 0, false};
  v = mn_tpl_str(r, v);
  return r->status == MN_OK ? v.as.string : &none;
}

static int64_t integer(mn_tpl_run *r, const mn_tpl_value *v, int64_t otherwise) {
  if (!v || v->kind == TPL_NONE) return otherwise;
  if (v->kind == TPL_INT || v->kind == TPL_BOOL) return v->kind == TPL_INT ? v->as.integer : v->as.boolean;
  mn_tpl_fail(r, "an integer is wanted, not %s", mn_tpl_type_name(*v));
  return otherwise;
}

/* ---- text ---- */
FILTER(filter_upper) { return UNUSED, mn_tpl_cased(r, text_of(r, self), TPL_UPPER); }
FILTER(filter_lower) { return UNUSED, mn_tpl_cased(r, text_of(r, self), TPL_LOWER); }
FILTER(filter_capitalize) { return UNUSED, mn_tpl_cased(r, text_of(r, self), TPL_CAPITAL); }
FILTER(filter_string) { return UNUSED, mn_tpl_str(r, self); }
FILTER(filter_safe) { return UNUSED, mn_tpl_safe(r, text_of(r, self)); }
FILTER(filter_trim) {
  (void)all;
  const bool by = arg[0] && arg[0]->kind != TPL_NONE;
  return mn_tpl_strip(r, text_of(r, self), by ? text_of(r, *arg[0]) : NULL, 3);
}
FILTER(filter_replace) {
  (void)all;
  return mn_tpl_replace(r, text_of(r, self), text_of(r, *arg[0]), text_of(r, *arg[1]), integer(r, arg[2], -1));
}

/* Is the character at s[at] a space or an opening sign, behind which a word begins? */
static bool begins_word(const mn_tpl_string *s, size_t at) {
  const int32_t c = mn_tpl_next(s, &at);
  return mn_tpl_is_space(c) || (c > 0 && c < 0x80 && strchr("-({[<", c));
}

FILTER(filter_title) {
  UNUSED;
  const mn_tpl_string *s = text_of(r, self);
  mn_text out = {0};
  for (size_t at = 0, passed = 0; at < s->n && mn_tpl_goes_on(r, &passed);) {
    size_t first = at, second, end;
    if (begins_word(s, at)) {
      mn_tpl_add_char(&out, mn_tpl_next(s, &at));
      continue;
    }
    mn_tpl_next(s, &at);
    for (second = end = at; end < s->n && mn_tpl_goes_on(r, &passed) && !begins_word(s, end);) mn_tpl_next(s, &end);
    mn_tpl_add_cased(r, &(mn_tpl_string){s->data + first, second - first, -1, false}, TPL_UPPER, &out);
    mn_tpl_add_cased(r, &(mn_tpl_string){s->data + second, end - second, -1, false}, TPL_LOWER, &out);
    at = end;
  }
  return mn_tpl_take(r, &out);
}

FILTER(filter_escape) { return UNUSED, mn_tpl_escaped(r, text_of(r, self)); }

FILTER(filter_indent) {
  (void)all;
  const mn_tpl_string *s = text_of(r, self);
  const bool text = arg[0] && arg[0]->kind == TPL_STRING;
  const int64_t width = text ? 0 : integer(r, arg[0], 4);
  const mn_tpl_value by = text ? *arg[0] : mn_tpl_binary(r, TPL_MUL, mn_tpl_string_of(r, " ", 1), mn_tpl_int(width));
  mn_text in = {0}, out = {0};
  mn_text_add_bytes(&in, s->data, s->n);
  mn_text_add(&in, "\n"); /* as Jinja does, so that the end of a last line stays */
  const mn_tpl_value ended = mn_tpl_take(r, &in);
  const mn_tpl_list *lines = r->status == MN_OK ? mn_tpl_lines(r, ended.as.string, false) : mn_tpl_new_list(r, 0, TPL_PLAIN);
  for (size_t i = 0; i < lines->n && r->status == MN_OK; i++) {
    const bool blank = !lines->at[i].as.string->n;
    if (i) mn_text_add(&out, "\n");
    if (i ? !blank || yes(arg[2]) : yes(arg[1])) mn_tpl_add_str(r, by, &out);
    mn_tpl_add_str(r, lines->at[i], &out);
  }
  return mn_tpl_take(r, &out);
}

FILTER(filter_center) {
  (void)all;
  mn_tpl_string *s = text_of(r, self);
  const int64_t width = integer(r, arg[0], 80), pad = width - mn_tpl_count(s), left = pad / 2 + (pad & width & 1);
  mn_text out = {0};
  if (width > (int64_t)r->limits.memory) return mn_tpl_fail(r, "a line of %lld characters", (long long)width);
  for (int64_t i = 0; i < left && pad > 0; i++) mn_text_add(&out, " ");
  mn_text_add_bytes(&out, s->data, s->n);
  for (int64_t i = left; i < pad; i++) mn_text_add(&out, " ");
  return mn_tpl_take(r, &out);
}

FILTER(filter_truncate) {
  (void)all;
  mn_tpl_string *s = text_of(r, self), *end = arg[2] ? text_of(r, *arg[2]) : NULL;
  const int64_t most = integer(r, arg[0], 255), leeway = integer(r, arg[3], 5), dots = end ? mn_tpl_count(end) : 3;
  if (most < dots) return mn_tpl_fail(r, "truncate to %lld characters has no room for its end", (long long)most);
  if (mn_tpl_count(s) <= most + leeway) return (mn_tpl_value){.kind = TPL_STRING, .as.string = s};
  size_t n = mn_tpl_offset(s, most - dots);
  if (!yes(arg[1])) { /* at the last space */
    size_t at = n;
    while (at > 0 && s->data[at - 1] != ' ') at--;
    if (at > 0) n = at - 1;
  }
  mn_text out = {0};
  mn_text_add_bytes(&out, s->data, n);
  if (end) mn_text_add_bytes(&out, end->data, end->n);
  else mn_text_add(&out, "...");
  return mn_tpl_take(r, &out);
}

FILTER(filter_wordcount) {
  UNUSED;
  const mn_tpl_string *s = text_of(r, self);
  int64_t n = 0;
  for (size_t at = 0, passed = 0; at < s->n && r->status == MN_OK;) { /* runs of letters, digits and _ */
    int32_t c = 0;
    bool word = false;
    while (at < s->n && mn_tpl_goes_on(r, &passed) && (mn_tpl_is_letter(c = mn_tpl_next(s, &at)) || mn_tpl_is_numeric(c) || c == '_'))
      word = true;
    n += word;
  }
  return mn_tpl_int(n);
}

FILTER(filter_format) {
  UNUSED;
  mn_tpl_list places = {.at = NULL, .n = (size_t)all->n, .form = TPL_TUPLE};
  mn_tpl_map *named = all->n_named ? mn_tpl_new_map(r) : NULL;
  if (all->n && all->n_named) return mn_tpl_fail(r, "the filter 'format' takes values by place or by name, not both");
  for (int i = 0; i < all->n_named; i++) mn_tpl_put(r, named, mn_tpl_string_of(r, all->name[i], strlen(all->name[i])), all->named[i]);
  mn_tpl_list *copy = mn_tpl_new_list(r, places.n, TPL_TUPLE);
  for (int i = 0; i < all->n; i++) mn_tpl_push(r, copy, all->at[i]);
  return mn_tpl_percent(r, text_of(r, self), copy, named);
}

/* ---- numbers ---- */
static bool read_real(mn_tpl_run *r, const mn_tpl_string *s, double *out) {
  mn_tpl_reading read;
  const mn_status status = mn_tpl_read_real(s, &read, out);
  if (status != MN_OK && r->status == MN_OK) r->status = status;
  return read == TPL_NUMBER;
}

static bool to_integer(double d, mn_tpl_value *out, bool *wide) {
  *wide = isfinite(d) && !(d >= -0x1p63 && d < 0x1p63);
  if (*wide || !isfinite(d)) return false;
  *out = mn_tpl_int((int64_t)d);
  return true;
}

FILTER(filter_int) {
  (void)all;
  mn_tpl_value v;
  int64_t i;
  double d;
  const int64_t base = integer(r, arg[1], 10);
  if (base < 0 || base == 1 || base > 36) return mn_tpl_fail(r, "there are no digits to base %lld", (long long)base);
  if (self.kind == TPL_INT || self.kind == TPL_BOOL) return mn_tpl_int(self.kind == TPL_INT ? self.as.integer : self.as.boolean);
  bool wide = false;
  if (self.kind == TPL_FLOAT && isinf(self.as.real)) return mn_tpl_fail(r, "infinity is no integer");
  if (self.kind == TPL_FLOAT && to_integer(self.as.real, &v, &wide)) return v;
  mn_tpl_reading read = TPL_NO_NUMBER;
  if (self.kind == TPL_STRING && r->status == MN_OK) r->status = mn_tpl_read_int(self.as.string, (int)base, &read, &i);
  if (read == TPL_NUMBER) return mn_tpl_int(i);
  wide = wide || read == TPL_WIDE;
  if (self.kind == TPL_STRING && !wide && read_real(r, self.as.string, &d) && to_integer(d, &v, &wide)) return v;
  if (wide) return mn_tpl_fail(r, "an integer of more than 64 bits");
  return arg[0] ? *arg[0] : mn_tpl_int(0);
}

FILTER(filter_float) {
  (void)all;
  double d;
  if (mn_tpl_is_number(self)) return mn_tpl_real(mn_tpl_number(self));
  if (self.kind == TPL_STRING && read_real(r, self.as.string, &d)) return mn_tpl_real(d);
  return arg[0] ? *arg[0] : mn_tpl_real(0);
}

FILTER(filter_abs) {
  UNUSED;
  if (!mn_tpl_is_number(self)) return mn_tpl_fail(r, "%s has no absolute value", mn_tpl_type_name(self));
  if (self.kind == TPL_FLOAT) return mn_tpl_real(fabs(self.as.real));
  const int64_t i = self.kind == TPL_INT ? self.as.integer : self.as.boolean;
  return i < 0 ? mn_tpl_binary(r, TPL_SUB, mn_tpl_int(0), self) : mn_tpl_int(i);
}

FILTER(filter_round) {
  (void)all;
  const int64_t digits = integer(r, arg[0], 0);
  const bool common = !arg[1] || mn_tpl_is_text(*arg[1], "common"), up = arg[1] && mn_tpl_is_text(*arg[1], "ceil");
  if (!common && !up && !mn_tpl_is_text(*arg[1], "floor")) return mn_tpl_fail(r, "round goes by 'common', 'ceil' or 'floor'");
  if (!mn_tpl_is_number(self)) return mn_tpl_fail(r, "%s is not rounded", mn_tpl_type_name(self));
  const double d = mn_tpl_number(self), unit = pow(10, (double)digits);
  const double rounded = common ? mn_tpl_round_real(d, digits) : up ? ceil(d * unit) / unit : floor(d * unit) / unit;
  if (!common && self.kind != TPL_FLOAT && digits >= 0) return mn_tpl_real(d);
  if (!common || self.kind == TPL_FLOAT)
    return isfinite(rounded) || (common && !isfinite(d)) ? mn_tpl_real(rounded)
                                                         : mn_tpl_fail(r, "the number is not rounded to %lld digits", (long long)digits);
  int64_t i = self.kind == TPL_INT ? self.as.integer : self.as.boolean;
  return mn_tpl_round_int(i, digits, &i) ? mn_tpl_int(i) : mn_tpl_fail(r, "an integer of more than 64 bits");
}

/* ---- any value ---- */
FILTER(filter_default) {
  (void)r, (void)all;
  const bool absent = yes(arg[1]) ? !mn_tpl_truth(self) : self.kind == TPL_UNDEFINED;
  return !absent ? self : arg[0] ? *arg[0] : mn_tpl_string_of(r, "", 0);
}
FILTER(filter_length) { return UNUSED, mn_tpl_int(mn_tpl_length(r, self)); }
/* An attribute, which a key of a map is not. */
FILTER(filter_attr) {
  (void)all;
  const mn_tpl_string *s = text_of(r, *arg[0]);
  const bool key = self.kind == TPL_MAP && !mn_tpl_find(mn_tpl_map_methods, s->data);
  return key ? mn_tpl_undefined() : mn_tpl_attribute(r, self, s->data);
}

FILTER(filter_tojson) {
  (void)all;
  mn_tpl_json how = {.ascii = yes(arg[0]), .sorted = yes(arg[3]), .comma = ", ", .colon = ": "};
  if (arg[1] && arg[1]->kind != TPL_NONE) {
    const mn_tpl_value by =
        arg[1]->kind == TPL_STRING ? *arg[1] : mn_tpl_binary(r, TPL_MUL, mn_tpl_string_of(r, " ", 1), mn_tpl_int(integer(r, arg[1], 0)));
    if (r->status != MN_OK) return by;
    how.indent = by.as.string->data, how.comma = ",";
  }
  if (arg[2] && arg[2]->kind != TPL_NONE) {
    const mn_tpl_list *two = mn_tpl_items(r, *arg[2]);
    if (r->status == MN_OK && two->n != 2) mn_tpl_fail(r, "tojson's separators are two strings");
    if (r->status != MN_OK) return mn_tpl_undefined();
    how.comma = text_of(r, two->at[0])->data, how.colon = text_of(r, two->at[1])->data;
  }
  mn_text out = {0};
  mn_tpl_add_json(r, self, &how, &out);
  return mn_tpl_take(r, &out);
}

FILTER(filter_from_json) {
  UNUSED;
  const mn_tpl_string *s = text_of(r, self);
  const mn_value *v = NULL;
  if (r->status != MN_OK || !mn_tpl_step(r, (int64_t)s->n)) return mn_tpl_undefined();
  if (s->n > 8 << 20) return mn_tpl_fail(r, "a JSON text of more than 8 MiB");
  if (mn_json_parse(r->arena, "from_json", s->data, s->n, &v) != MN_OK) {
    char why[200];
    snprintf(why, sizeof why, "%s", mn_message());
    return mn_tpl_fail(r, "%s", why);
  }
  return mn_tpl_import(r, v);
}

/* ---- lists ---- */
FILTER(filter_list) {
  UNUSED;
  mn_tpl_list *l = mn_tpl_new_list(r, 0, TPL_PLAIN);
  const mn_tpl_list *items = mn_tpl_items(r, self);
  for (size_t i = 0; i < items->n && r->status == MN_OK; i++) mn_tpl_push(r, l, items->at[i]);
  return mn_tpl_list_value(l);
}

FILTER(filter_items) {
  UNUSED;
  if (self.kind != TPL_MAP && self.kind != TPL_UNDEFINED) return mn_tpl_fail(r, "%s has no pairs", mn_tpl_type_name(self));
  mn_tpl_list *l = mn_tpl_new_list(r, 0, TPL_LAZY);
  for (size_t i = 0; self.kind == TPL_MAP && i < self.as.map->n && r->status == MN_OK; i++) {
    mn_tpl_list *pair = mn_tpl_new_list(r, 2, TPL_TUPLE);
    mn_tpl_push(r, pair, self.as.map->at[i].key);
    mn_tpl_push(r, pair, self.as.map->at[i].value);
    mn_tpl_push(r, l, mn_tpl_list_value(pair));
  }
  return mn_tpl_list_value(l);
}

FILTER(filter_first) {
  UNUSED;
  if (self.kind == TPL_STRING && self.as.string->n) return mn_tpl_subscript(r, self, mn_tpl_int(0));
  const mn_tpl_list *l = mn_tpl_items(r, self);
  mn_tpl_value none = mn_tpl_undefined();
  none.as.missing = "the first item of nothing";
  return l->n ? l->at[0] : none;
}
FILTER(filter_last) {
  UNUSED;
  if (self.kind == TPL_STRING && self.as.string->n) return mn_tpl_subscript(r, self, mn_tpl_int(-1));
  const mn_tpl_list *l = mn_tpl_items(r, self);
  mn_tpl_value none = mn_tpl_undefined();
  none.as.missing = "the last item of nothing";
  return l->n ? l->at[l->n - 1] : none;
}

FILTER(filter_reverse) {
  UNUSED;
  const mn_tpl_list *items = mn_tpl_items(r, self);
  if (self.kind == TPL_STRING) {
    mn_text out = {0};
    for (size_t i = items->n; i > 0; i--) mn_tpl_add_str(r, items->at[i - 1], &out);
    return mn_tpl_take(r, &out);
  }
  mn_tpl_list *l = mn_tpl_new_list(r, items->n, TPL_LAZY);
  for (size_t i = items->n; i > 0 && r->status == MN_OK; i--) mn_tpl_push(r, l, items->at[i - 1]);
  return mn_tpl_list_value(l);
}

static mn_tpl_value by_attribute(mn_tpl_run *r, mn_tpl_value v, const mn_tpl_value *attribute) {
  return attribute && attribute->kind != TPL_NONE ? mn_tpl_path(r, v, *attribute, NULL) : v;
}

FILTER(filter_join) {
  (void)all;
  const mn_tpl_list *l = mn_tpl_items(r, self);
  mn_text out = {0};
  for (size_t i = 0; i < l->n && mn_tpl_step(r, 1); i++) {
    if (i && arg[0]) mn_tpl_add_str(r, *arg[0], &out);
    mn_tpl_add_str(r, by_attribute(r, l->at[i], arg[1]), &out);
    if (out.len > r->limits.memory) mn_tpl_fail(r, "the template makes values of more than %zu bytes", r->limits.memory);
  }
  return mn_tpl_take(r, &out);
}

FILTER(filter_sum) {
  (void)all;
  const mn_tpl_list *l = mn_tpl_items(r, self);
  mn_tpl_value sum = arg[1] ? *arg[1] : mn_tpl_int(0);
  for (size_t i = 0; i < l->n && r->status == MN_OK; i++) sum = mn_tpl_binary(r, TPL_ADD, sum, by_attribute(r, l->at[i], arg[0]));
  return sum;
}

FILTER(filter_batch) {
  (void)all;
  const mn_tpl_list *l = mn_tpl_items(r, self);
  const int64_t n = integer(r, arg[0], 0);
  mn_tpl_list *out = mn_tpl_new_list(r, 0, TPL_LAZY), *row = NULL;
  if (n < 1) return mn_tpl_fail(r, "a batch has at least one item");
  for (size_t i = 0; i < l->n && r->status == MN_OK; i++) {
    if (i % (size_t)n == 0) {
      row = mn_tpl_new_list(r, 0, TPL_PLAIN);
      mn_tpl_push(r, out, mn_tpl_list_value(row));
    }
    if (row) mn_tpl_push(r, row, l->at[i]);
  }
  if (arg[1] && arg[1]->kind != TPL_NONE)
    while (row && (int64_t)row->n < n && mn_tpl_push(r, row, *arg[1])) continue;
  return mn_tpl_list_value(out);
}

FILTER(filter_slice) {
  (void)all;
  const mn_tpl_list *l = mn_tpl_items(r, self);
  const int64_t n = integer(r, arg[0], 0);
  mn_tpl_list *out = mn_tpl_new_list(r, 0, TPL_LAZY);
  size_t at = 0;
  if (n < 1) return mn_tpl_fail(r, "a list is cut into at least one piece");
  for (int64_t i = 0; i < n && mn_tpl_step(r, 1); i++) {
    const bool longer = (size_t)i < l->n % (size_t)n;
    mn_tpl_list *piece = mn_tpl_new_list(r, 0, TPL_PLAIN);
    for (size_t k = l->n / (size_t)n + longer; k > 0 && mn_tpl_push(r, piece, l->at[at]); k--) at++;
    if (arg[1] && arg[1]->kind != TPL_NONE && !longer && l->n % (size_t)n) mn_tpl_push(r, piece, *arg[1]);
    mn_tpl_push(r, out, mn_tpl_list_value(piece));
  }
  return mn_tpl_list_value(out);
}

/* ---- order ---- */
typedef struct keyed {
  mn_tpl_value key, item;
  size_t at;
} keyed;
typedef struct ordering {
  mn_tpl_run *r;
  bool reverse;
} ordering;

static int compare_keyed(const void *a, const void *b, void *ctx) {
  const ordering *o = ctx;
  const keyed *x = a, *y = b;
  const int order = o->r->status == MN_OK ? mn_tpl_order(o->r, x->key, y->key) : 0;
  if (order) return o->reverse ? -order : order;
  return (x->at > y->at) - (x->at < y->at);
}

static mn_tpl_value plain_case(mn_tpl_run *r, mn_tpl_value v, bool sensitive) {
  return v.kind == TPL_STRING && !sensitive ? mn_tpl_cased(r, v.as.string, TPL_LOWER) : v;
}

/* The items by their keys, which the caller has set. */
static mn_tpl_value ordered(mn_tpl_run *r, keyed *k, size_t n, bool reverse) {
  mn_tpl_list *out = mn_tpl_new_list(r, n, TPL_PLAIN);
  if (!mn_tpl_step(r, (int64_t)n) || !k) return mn_tpl_list_value(out);
  qsort_r(k, n, sizeof *k, compare_keyed, &(ordering){r, reverse});
  for (size_t i = 0; i < n && r->status == MN_OK; i++) mn_tpl_push(r, out, k[i].item);
  return mn_tpl_list_value(out);
}

/* "a,b" goes by both. */
static mn_tpl_value sort_key(mn_tpl_run *r, mn_tpl_value v, const mn_tpl_value *attribute, bool sensitive) {
  const bool several = attribute && attribute->kind == TPL_STRING && memchr(attribute->as.string->data, ',', attribute->as.string->n);
  if (!several) return plain_case(r, by_attribute(r, v, attribute), sensitive);
  mn_tpl_list *key = mn_tpl_new_list(r, 0, TPL_TUPLE);
  const mn_tpl_string *s = attribute->as.string;
  for (size_t at = 0; at <= s->n && r->status == MN_OK;) {
    const char *comma = at < s->n ? memchr(s->data + at, ',', s->n - at) : NULL;
    const size_t end = comma ? (size_t)(comma - s->data) : s->n;
    mn_tpl_push(r, key, plain_case(r, mn_tpl_path(r, v, mn_tpl_string_of(r, s->data + at, end - at), NULL), sensitive));
    at = end + 1;
  }
  return mn_tpl_list_value(key);
}

FILTER(filter_sort) {
  (void)all;
  const mn_tpl_list *l = mn_tpl_items(r, self);
  keyed *k = mn_tpl_alloc(r, (l->n + 1) * sizeof *k);
  for (size_t i = 0; k && i < l->n && r->status == MN_OK; i++) k[i] = (keyed){sort_key(r, l->at[i], arg[2], yes(arg[1])), l->at[i], i};
  return ordered(r, k, l->n, yes(arg[0]));
}

FILTER(filter_dictsort) {
  (void)all;
  if (self.kind != TPL_MAP) return mn_tpl_fail(r, "dictsort is of a map, not of %s", mn_tpl_type_name(self));
  const bool by_value = arg[1] && mn_tpl_is_text(*arg[1], "value");
  if (arg[1] && !by_value && !mn_tpl_is_text(*arg[1], "key")) return mn_tpl_fail(r, "dictsort goes by 'key' or by 'value'");
  const mn_tpl_list *pairs = filter_items(r, self, NULL, NULL).as.list;
  if (r->status != MN_OK) return mn_tpl_undefined();
  keyed *k = mn_tpl_alloc(r, (pairs->n + 1) * sizeof *k);
  for (size_t i = 0; k && i < pairs->n && r->status == MN_OK; i++)
    k[i] = (keyed){plain_case(r, pairs->at[i].as.list->at[by_value], yes(arg[0])), pairs->at[i], i};
  return ordered(r, k, pairs->n, yes(arg[2]));
}

static mn_tpl_value extreme(mn_tpl_run *r, mn_tpl_value self, given arg, int sign) {
  const mn_tpl_list *l = mn_tpl_items(r, self);
  mn_tpl_value best = mn_tpl_undefined(), best_key = best;
  best.as.missing = "the largest or smallest of nothing";
  for (size_t i = 0; i < l->n && mn_tpl_step(r, 1); i++) {
    const mn_tpl_value key = plain_case(r, by_attribute(r, l->at[i], arg[1]), yes(arg[0]));
    if (i && sign * mn_tpl_order(r, key, best_key) <= 0) continue;
    best = l->at[i], best_key = key;
  }
  return best;
}
FILTER(filter_min) { return (void)all, extreme(r, self, arg, -1); }
FILTER(filter_max) { return (void)all, extreme(r, self, arg, 1); }

FILTER(filter_unique) {
  (void)all;
  const mn_tpl_list *l = mn_tpl_items(r, self);
  mn_tpl_list *out = mn_tpl_new_list(r, 0, TPL_LAZY);
  mn_tpl_map *seen = mn_tpl_new_map(r);
  for (size_t i = 0; i < l->n && r->status == MN_OK; i++) {
    const mn_tpl_value key = plain_case(r, by_attribute(r, l->at[i], arg[1]), yes(arg[0]));
    if (mn_tpl_get(r, seen, key)) continue;
    mn_tpl_put(r, seen, key, mn_tpl_none());
    mn_tpl_push(r, out, l->at[i]);
  }
  return mn_tpl_list_value(out);
}

/* ---- choosing and mapping: map, select, reject, selectattr, rejectattr ---- What is false, none too, has no items. */
static const mn_tpl_list *items_if_any(mn_tpl_run *r, mn_tpl_value v) { return mn_tpl_items(r, mn_tpl_truth(v) ? v : mn_tpl_undefined()); }

static mn_tpl_args rest_of(const mn_tpl_args *all, int from) {
  return (mn_tpl_args){all->n - from, all->n_named, all->at + from, all->named, all->name};
}

static mn_tpl_value chosen(mn_tpl_run *r, mn_tpl_value self, const mn_tpl_args *all, bool attribute, bool keep) {
  const mn_tpl_list *l = items_if_any(r, self);
  mn_tpl_list *out = mn_tpl_new_list(r, 0, TPL_LAZY);
  const int from = attribute ? 1 : 0;
  const mn_tpl_def *test = NULL;
  if (attribute && all->n < 1) return mn_tpl_fail(r, "the filter wants the name of an attribute");
  if (all->n > from) {
    const char *name = all->at[from].kind == TPL_STRING ? all->at[from].as.string->data : "";
    test = mn_tpl_test(name);
    if (!test) return mn_tpl_fail(r, "there is no test '%.60s'", name);
  }
  const mn_tpl_args args = test ? rest_of(all, from + 1) : (mn_tpl_args){0};
  for (size_t i = 0; i < l->n && r->status == MN_OK; i++) {
    const mn_tpl_value v = attribute ? mn_tpl_path(r, l->at[i], all->at[0], NULL) : l->at[i];
    const bool holds = test ? mn_tpl_truth(mn_tpl_apply(r, test, "test", v, &args)) : mn_tpl_truth(v);
    if (holds == keep) mn_tpl_push(r, out, l->at[i]);
  }
  return mn_tpl_list_value(out);
}
FILTER(filter_select) { return (void)arg, chosen(r, self, all, false, true); }
FILTER(filter_reject) { return (void)arg, chosen(r, self, all, false, false); }
FILTER(filter_selectattr) { return (void)arg, chosen(r, self, all, true, true); }
FILTER(filter_rejectattr) { return (void)arg, chosen(r, self, all, true, false); }

FILTER(filter_map) {
  (void)arg;
  const mn_tpl_list *l = items_if_any(r, self);
  mn_tpl_list *out = mn_tpl_new_list(r, 0, TPL_LAZY);
  const mn_tpl_value *attribute = NULL, *otherwise = NULL;
  for (int i = 0; i < all->n_named && !all->n; i++) {
    if (!strcmp(all->name[i], "attribute")) attribute = &all->named[i];
    else if (!strcmp(all->name[i], "default")) otherwise = &all->named[i];
    else return mn_tpl_fail(r, "the filter 'map' has no argument '%.60s'", all->name[i]);
  }
  if (!attribute && !all->n) return mn_tpl_fail(r, "the filter 'map' wants the name of a filter, or attribute=");
  const char *name = attribute ? "" : all->at[0].kind == TPL_STRING ? all->at[0].as.string->data : "";
  const mn_tpl_def *def = attribute ? NULL : mn_tpl_filter(name);
  if (!attribute && !def) return mn_tpl_fail(r, "there is no filter '%.60s'", name);
  const mn_tpl_args args = def ? rest_of(all, 1) : (mn_tpl_args){0};
  for (size_t i = 0; i < l->n && r->status == MN_OK; i++) {
    const mn_tpl_value v = def ? mn_tpl_apply(r, def, "filter", l->at[i], &args) : mn_tpl_path(r, l->at[i], *attribute, otherwise);
    mn_tpl_push(r, out, v);
  }
  return mn_tpl_list_value(out);
}

const mn_tpl_def mn_tpl_filters[] = {{"abs", "", filter_abs},
                                     {"attr", "!name", filter_attr},
                                     {"batch", "!linecount fill_with", filter_batch},
                                     {"capitalize", "", filter_capitalize},
                                     {"center", "width", filter_center},
                                     {"count", "", filter_length},
                                     {"d", "default_value boolean", filter_default},
                                     {"default", "default_value boolean", filter_default},
                                     {"dictsort", "case_sensitive by reverse", filter_dictsort},
                                     {"e", "", filter_escape},
                                     {"escape", "", filter_escape},
                                     {"first", "", filter_first},
                                     {"float", "default", filter_float},
                                     {"format", NULL, filter_format},
                                     {"from_json", "", filter_from_json},
                                     {"fromjson", "", filter_from_json},
                                     {"indent", "width first blank", filter_indent},
                                     {"int", "default base", filter_int},
                                     {"items", "", filter_items},
                                     {"join", "d attribute", filter_join},
                                     {"last", "", filter_last},
                                     {"length", "", filter_length},
                                     {"list", "", filter_list},
                                     {"lower", "", filter_lower},
                                     {"map", NULL, filter_map},
                                     {"max", "case_sensitive attribute", filter_max},
                                     {"min", "case_sensitive attribute", filter_min},
                                     {"reject", NULL, filter_reject},
                                     {"rejectattr", NULL, filter_rejectattr},
                                     {"replace", "!old !new count", filter_replace},
                                     {"reverse", "", filter_reverse},
                                     {"round", "precision method", filter_round},
                                     {"safe", "", filter_safe},
                                     {"select", NULL, filter_select},
                                     {"selectattr", NULL, filter_selectattr},
                                     {"slice", "!slices fill_with", filter_slice},
                                     {"sort", "reverse case_sensitive attribute", filter_sort},
                                     {"string", "", filter_string},
                                     {"sum", "attribute start", filter_sum},
                                     {"title", "", filter_title},
                                     {"tojson", "ensure_ascii indent separators sort_keys", filter_tojson},
                                     {"trim", "chars", filter_trim},
                                     {"truncate", "length killwords end leeway", filter_truncate},
                                     {"unique", "case_sensitive attribute", filter_unique},
                                     {"upper", "", filter_upper},
                                     {"wordcount", "", filter_wordcount},
                                     {0}};
