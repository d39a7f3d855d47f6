/* template_methods.c - the methods of strings, lists, maps and loops that templates call: Python's. */
#define _GNU_SOURCE /* memmem, qsort_r */
#include <stdlib.h>
#include <string.h>

#include "format/template_internal.h"

typedef const mn_tpl_value *const *given;
#define METHOD(name) static mn_tpl_value name(mn_tpl_run *r, mn_tpl_value self, given arg, const mn_tpl_args *all)
#define UNUSED       (void)all, (void)arg

/* An argument that must be a string. */
static const mn_tpl_string *text(mn_tpl_run *r, const mn_tpl_value *v) {
  static const mn_tpl_string none = {"", 0, 0, false};
  if (v->kind != TPL_STRING) mn_tpl_fail(r, "a string is wanted, not %s", mn_tpl_type_name(*v));
  return v->kind == TPL_STRING ? v->as.string : &none;
}

static int64_t integer(mn_tpl_run *r, const mn_tpl_value *v, int64_t otherwise) {
  if (!v || v->kind == TPL_NONE) return otherwise;
  if (v->kind == TPL_INT || v->kind == TPL_BOOL) return v->kind == TPL_INT ? v->as.integer : v->as.boolean;
  mn_tpl_fail(r, "an integer is wanted, not %s", mn_tpl_type_name(*v));
  return otherwise;
}

static const mn_tpl_string *if_given(mn_tpl_run *r, const mn_tpl_value *v) { return v && v->kind != TPL_NONE ? text(r, v) : NULL; }

/* ---- strings ---- */
METHOD(string_strip) { return (void)all, mn_tpl_strip(r, self.as.string, if_given(r, arg[0]), 3); }
METHOD(string_lstrip) { return (void)all, mn_tpl_strip(r, self.as.string, if_given(r, arg[0]), 1); }
METHOD(string_rstrip) { return (void)all, mn_tpl_strip(r, self.as.string, if_given(r, arg[0]), 2); }
METHOD(string_upper) { return UNUSED, mn_tpl_cased(r, self.as.string, TPL_UPPER); }
METHOD(string_lower) { return UNUSED, mn_tpl_cased(r, self.as.string, TPL_LOWER); }
METHOD(string_casefold) { return UNUSED, mn_tpl_cased(r, self.as.string, TPL_FOLDED); }
METHOD(string_title) { return UNUSED, mn_tpl_cased(r, self.as.string, TPL_TITLE); }
METHOD(string_capitalize) { return UNUSED, mn_tpl_cased(r, self.as.string, TPL_CAPITAL); }
METHOD(string_swapcase) { return UNUSED, mn_tpl_cased(r, self.as.string, TPL_SWAPPED); }
METHOD(string_replace) {
  (void)all;
  const mn_tpl_string *from = text(r, arg[0]), *to = text(r, arg[1]);
  return mn_tpl_replace(r, self.as.string, from, to, integer(r, arg[2], -1));
}
METHOD(string_format) { return (void)arg, mn_tpl_format(r, self.as.string, all); }
METHOD(string_splitlines) { return (void)all, mn_tpl_list_value(mn_tpl_lines(r, self.as.string, arg[0] && mn_tpl_truth(*arg[0]))); }

/* The string from character `from` to `to`, of which either may be left out or count from the end. */
static mn_tpl_string part(mn_tpl_run *r, mn_tpl_string *s, const mn_tpl_value *from, const mn_tpl_value *to, int64_t *begin) {
  const int64_t n = mn_tpl_count(s);
  int64_t a = integer(r, from, 0), b = integer(r, to, n);
  if (a < 0) a = a + n < 0 ? 0 : a + n;
  if (b < 0) b = b + n < 0 ? 0 : b + n;
  if (b > n) b = n;
  *begin = a;
  if (a > b) return (mn_tpl_string){NULL, 0, 0, false};
  const size_t at = mn_tpl_offset(s, a);
  return (mn_tpl_string){s->data + at, mn_tpl_offset(s, b) - at, -1, false};
}

static mn_tpl_value begins_or_ends(mn_tpl_run *r, mn_tpl_value self, given arg, bool ends) {
  int64_t begin;
  const mn_tpl_string s = part(r, self.as.string, arg[1], arg[2], &begin);
  const bool several = arg[0]->kind == TPL_LIST && arg[0]->as.list->form == TPL_TUPLE;
  const mn_tpl_value *one = several ? arg[0]->as.list->at : arg[0];
  for (size_t i = 0; i < (several ? arg[0]->as.list->n : 1) && r->status == MN_OK; i++) {
    const mn_tpl_string *t = text(r, &one[i]);
    if (s.data && t->n <= s.n && !memcmp(s.data + (ends ? s.n - t->n : 0), t->data, t->n)) return mn_tpl_bool(r->status == MN_OK);
  }
  return mn_tpl_bool(false);
}
METHOD(string_startswith) { return (void)all, begins_or_ends(r, self, arg, false); }
METHOD(string_endswith) { return (void)all, begins_or_ends(r, self, arg, true); }

/* Compares at each place. */
static const char *find_last(mn_tpl_run *r, const char *s, size_t n, const mn_tpl_string *what) {
  for (size_t i = n >= what->n ? n - what->n + 1 : 0; i > 0; i--) {
    if (!memcmp(s + i - 1, what->data, what->n)) return s + i - 1;
    if (i % 64 == 0 && !mn_tpl_read(r, 64 + what->n)) return NULL;
  }
  return NULL;
}

static const char *find_first(const char *s, size_t n, const mn_tpl_string *what) {
  return what->n ? memmem(s, n, what->data, what->n) : s;
}

/* In characters; -1: it is not there. */
static int64_t found_at(mn_tpl_run *r, mn_tpl_value self, given arg, bool last) {
  int64_t begin;
  const mn_tpl_string s = part(r, self.as.string, arg[1], arg[2], &begin), *what = text(r, arg[0]);
  if (!s.data || r->status != MN_OK || !mn_tpl_step(r, 1)) return -1;
  const char *at = last ? find_last(r, s.data, s.n, what) : find_first(s.data, s.n, what);
  if (!at) return -1;
  mn_tpl_string before = {s.data, (size_t)(at - s.data), -1, false};
  return begin + mn_tpl_count(&before);
}
METHOD(string_find) { return (void)all, mn_tpl_int(found_at(r, self, arg, false)); }
METHOD(string_rfind) { return (void)all, mn_tpl_int(found_at(r, self, arg, true)); }

static mn_tpl_value need_found(mn_tpl_run *r, int64_t at) {
  return at < 0 ? mn_tpl_fail(r, "the text does not hold what is looked for") : mn_tpl_int(at);
}
METHOD(string_index) { return (void)all, need_found(r, found_at(r, self, arg, false)); }
METHOD(string_rindex) { return (void)all, need_found(r, found_at(r, self, arg, true)); }

METHOD(string_count) {
  (void)all;
  int64_t begin, n = 0;
  mn_tpl_string s = part(r, self.as.string, arg[1], arg[2], &begin);
  const mn_tpl_string *what = text(r, arg[0]);
  if (!s.data) return mn_tpl_int(0);
  if (!what->n) return mn_tpl_int(mn_tpl_count(&s) + 1);
  for (const char *at; (at = find_first(s.data, s.n, what)) != NULL; n++) {
    const size_t pass = (size_t)(at - s.data) + what->n;
    s.data += pass, s.n -= pass;
  }
  return mn_tpl_int(n);
}

METHOD(string_join) {
  (void)all;
  const mn_tpl_list *l = mn_tpl_items(r, *arg[0]);
  mn_text out = {0};
  for (size_t i = 0; i < l->n && mn_tpl_step(r, 1); i++) {
    const mn_tpl_string *s = text(r, &l->at[i]);
    if (i) mn_text_add_bytes(&out, self.as.string->data, self.as.string->n);
    mn_text_add_bytes(&out, s->data, s->n);
    if (out.len > r->limits.memory) mn_tpl_fail(r, "the template makes values of more than %zu bytes", r->limits.memory);
  }
  return mn_tpl_take(r, &out);
}

static bool cut(mn_tpl_run *r, mn_tpl_list *l, const char *s, size_t n) { return mn_tpl_push(r, l, mn_tpl_string_of(r, s, n)); }

/* By white space; most < 0: everywhere. Behind the last cut the rest stands as it is. */
static void split_words(mn_tpl_run *r, const mn_tpl_string *s, int64_t most, mn_tpl_list *l) {
  size_t at = 0, passed = 0;
  for (;;) {
    size_t begin = at, end;
    while (at < s->n && mn_tpl_goes_on(r, &passed) && mn_tpl_is_space(mn_tpl_next(s, &at))) begin = at;
    if (begin >= s->n || r->status != MN_OK) return;
    if (most-- == 0) {
      cut(r, l, s->data + begin, s->n - begin);
      return;
    }
    for (at = end = begin; at < s->n && mn_tpl_goes_on(r, &passed) && !mn_tpl_is_space(mn_tpl_next(s, &at));) end = at;
    cut(r, l, s->data + begin, end - begin);
  }
}

/* What stands left of `end` without white space at its end: its length. */
static size_t stripped(const mn_tpl_string *s, size_t end) {
  while (end > 0) {
    size_t begin = end - 1, at;
    while (begin > 0 && ((unsigned char)s->data[begin] & 0xC0) == 0x80) begin--;
    at = begin;
    if (!mn_tpl_is_space(mn_tpl_next(s, &at))) break;
    end = begin;
  }
  return end;
}

/* The same from the end; the pieces stand in order. */
static void split_words_back(mn_tpl_run *r, const mn_tpl_string *s, int64_t most, mn_tpl_list *l) {
  mn_tpl_list *back = mn_tpl_new_list(r, 0, TPL_PLAIN);
  size_t end = stripped(s, s->n);
  for (; most != 0 && end && r->status == MN_OK; most--) {
    size_t begin = end;
    while (begin > 0 && stripped(s, begin) == begin) {
      begin--;
      while (begin > 0 && ((unsigned char)s->data[begin] & 0xC0) == 0x80) begin--;
    }
    cut(r, back, s->data + begin, end - begin);
    end = stripped(s, begin);
  }
  if (end) cut(r, l, s->data, end);
  for (size_t i = back->n; i > 0; i--) mn_tpl_push(r, l, back->at[i - 1]);
}

static void split_by(mn_tpl_run *r, const mn_tpl_string *s, const mn_tpl_string *by, int64_t most, mn_tpl_list *l) {
  size_t at = 0;
  for (; most != 0; most--) {
    const char *found = memmem(s->data + at, s->n - at, by->data, by->n);
    if (!found || !cut(r, l, s->data + at, (size_t)(found - s->data) - at)) break;
    at = (size_t)(found - s->data) + by->n;
  }
  cut(r, l, s->data + at, s->n - at);
}

static void split_by_back(mn_tpl_run *r, const mn_tpl_string *s, const mn_tpl_string *by, int64_t most, mn_tpl_list *l) {
  mn_tpl_list *back = mn_tpl_new_list(r, 0, TPL_PLAIN);
  size_t end = s->n;
  for (; most != 0 && mn_tpl_step(r, 1); most--) {
    const char *found = find_last(r, s->data, end, by);
    if (!found) break;
    const size_t at = (size_t)(found - s->data) + by->n;
    if (!cut(r, back, s->data + at, end - at)) break;
    end = at - by->n;
  }
  cut(r, l, s->data, end);
  for (size_t i = back->n; i > 0; i--) mn_tpl_push(r, l, back->at[i - 1]);
}

static mn_tpl_value split(mn_tpl_run *r, mn_tpl_value self, given arg, bool back) {
  const mn_tpl_string *by = if_given(r, arg[0]);
  const int64_t most = integer(r, arg[1], -1);
  mn_tpl_list *l = mn_tpl_new_list(r, 0, TPL_PLAIN);
  if (by && !by->n) return mn_tpl_fail(r, "a string is split by an empty one");
  if (r->status != MN_OK) return mn_tpl_undefined();
  if (by) (back ? split_by_back : split_by)(r, self.as.string, by, most, l);
  else (back ? split_words_back : split_words)(r, self.as.string, most, l);
  return mn_tpl_list_value(l);
}
METHOD(string_split) { return (void)all, split(r, self, arg, false); }
METHOD(string_rsplit) { return (void)all, split(r, self, arg, true); }

static mn_tpl_value in_three(mn_tpl_run *r, const mn_tpl_string *s, const mn_tpl_string *by, bool last) {
  mn_tpl_list *l = mn_tpl_new_list(r, 3, TPL_TUPLE);
  if (!by->n) return mn_tpl_fail(r, "a string is split by an empty one");
  const char *at = last ? find_last(r, s->data, s->n, by) : find_first(s->data, s->n, by);
  const size_t n = at ? (size_t)(at - s->data) : last ? 0 : s->n, rest = at ? n + by->n : n;
  cut(r, l, s->data, n), cut(r, l, by->data, at ? by->n : 0), cut(r, l, s->data + rest, s->n - rest);
  return mn_tpl_list_value(l);
}
METHOD(string_partition) { return (void)all, in_three(r, self.as.string, text(r, arg[0]), false); }
METHOD(string_rpartition) { return (void)all, in_three(r, self.as.string, text(r, arg[0]), true); }

METHOD(string_removeprefix) {
  (void)all;
  const mn_tpl_string *s = self.as.string, *t = text(r, arg[0]);
  return t->n <= s->n && !memcmp(s->data, t->data, t->n) ? mn_tpl_string_of(r, s->data + t->n, s->n - t->n) : self;
}
METHOD(string_removesuffix) {
  (void)all;
  const mn_tpl_string *s = self.as.string, *t = text(r, arg[0]);
  return t->n <= s->n && !memcmp(s->data + s->n - t->n, t->data, t->n) ? mn_tpl_string_of(r, s->data, s->n - t->n) : self;
}

static mn_tpl_value padded(mn_tpl_run *r, mn_tpl_value self, given arg, int side) { /* -1: text at the left, 1: at the right, 0: zeros */
  mn_tpl_string *s = self.as.string;
  const int64_t pad = integer(r, arg[0], 0) - mn_tpl_count(s);
  const mn_tpl_string *fill = side && arg[1] ? text(r, arg[1]) : NULL;
  if (pad > (int64_t)r->limits.memory / 4) return mn_tpl_fail(r, "a text of %lld characters", (long long)pad);
  if (pad <= 0) return self;
  mn_text out = {0};
  const size_t sign = side == 0 && s->n && (s->data[0] == '-' || s->data[0] == '+');
  mn_text_add_bytes(&out, s->data, side < 0 ? s->n : sign);
  for (int64_t i = 0; i < pad; i++) mn_text_add_bytes(&out, fill ? fill->data : side ? " " : "0", fill ? fill->n : 1);
  if (side >= 0) mn_text_add_bytes(&out, s->data + sign, s->n - sign);
  return mn_tpl_take(r, &out);
}
METHOD(string_ljust) { return (void)all, padded(r, self, arg, -1); }
METHOD(string_rjust) { return (void)all, padded(r, self, arg, 1); }
METHOD(string_zfill) { return (void)all, padded(r, self, arg, 0); }

static bool all_are(mn_tpl_run *r, const mn_tpl_string *s, bool (*is)(int32_t)) {
  for (size_t at = 0, passed = 0; at < s->n && mn_tpl_goes_on(r, &passed);)
    if (!is(mn_tpl_next(s, &at))) return false;
  return s->n > 0;
}
static bool letter_or_digit(int32_t c) { return mn_tpl_is_letter(c) || mn_tpl_is_numeric(c); }
METHOD(string_isalpha) { return UNUSED, mn_tpl_bool(all_are(r, self.as.string, mn_tpl_is_letter)); }
METHOD(string_isdecimal) { return UNUSED, mn_tpl_bool(all_are(r, self.as.string, mn_tpl_is_decimal)); }
METHOD(string_isnumeric) { return UNUSED, mn_tpl_bool(all_are(r, self.as.string, mn_tpl_is_numeric)); }
METHOD(string_isdigit) { return UNUSED, mn_tpl_bool(all_are(r, self.as.string, mn_tpl_is_digit)); }
METHOD(string_isalnum) { return UNUSED, mn_tpl_bool(all_are(r, self.as.string, letter_or_digit)); }
METHOD(string_isspace) { return UNUSED, mn_tpl_bool(all_are(r, self.as.string, mn_tpl_is_space)); }
METHOD(string_isupper) {
  const mn_tpl_args none = {0};
  return UNUSED, mn_tpl_apply(r, mn_tpl_test("upper"), "test", self, &none);
}
METHOD(string_islower) {
  const mn_tpl_args none = {0};
  return UNUSED, mn_tpl_apply(r, mn_tpl_test("lower"), "test", self, &none);
}

const mn_tpl_def mn_tpl_string_methods[] = {{"capitalize", "", string_capitalize},
                                            {"count", "!sub start end", string_count},
                                            {"endswith", "!suffix start end", string_endswith},
                                            {"find", "!sub start end", string_find},
                                            {"format", NULL, string_format},
                                            {"index", "!sub start end", string_index},
                                            {"isalnum", "", string_isalnum},
                                            {"isalpha", "", string_isalpha},
                                            {"isdecimal", "", string_isdecimal},
                                            {"isdigit", "", string_isdigit},
                                            {"islower", "", string_islower},
                                            {"isnumeric", "", string_isnumeric},
                                            {"isspace", "", string_isspace},
                                            {"isupper", "", string_isupper},
                                            {"join", "!iterable", string_join},
                                            {"ljust", "!width fillchar", string_ljust},
                                            {"lower", "", string_lower},
                                            {"casefold", "", string_casefold},
                                            {"lstrip", "chars", string_lstrip},
                                            {"partition", "!sep", string_partition},
                                            {"removeprefix", "!prefix", string_removeprefix},
                                            {"removesuffix", "!suffix", string_removesuffix},
                                            {"replace", "!old !new count", string_replace},
                                            {"rfind", "!sub start end", string_rfind},
                                            {"rindex", "!sub start end", string_rindex},
                                            {"rjust", "!width fillchar", string_rjust},
                                            {"rpartition", "!sep", string_rpartition},
                                            {"rsplit", "sep maxsplit", string_rsplit},
                                            {"rstrip", "chars", string_rstrip},
                                            {"split", "sep maxsplit", string_split},
                                            {"splitlines", "keepends", string_splitlines},
                                            {"startswith", "!prefix start end", string_startswith},
                                            {"strip", "chars", string_strip},
                                            {"swapcase", "", string_swapcase},
                                            {"title", "", string_title},
                                            {"upper", "", string_upper},
                                            {"zfill", "!width", string_zfill},
                                            {0}};

/* ---- lists ---- */
static mn_tpl_list *changing(mn_tpl_run *r, mn_tpl_value self) { /* NULL: it cannot be */
  if (self.as.list->form == TPL_PLAIN && r->status == MN_OK) return self.as.list;
  mn_tpl_fail(r, "%s is not changed", mn_tpl_type_name(self));
  return NULL;
}

METHOD(list_append) {
  (void)all;
  mn_tpl_list *l = changing(r, self);
  if (l) mn_tpl_push(r, l, *arg[0]);
  return mn_tpl_none();
}
METHOD(list_extend) {
  (void)all;
  mn_tpl_list *l = changing(r, self);
  const mn_tpl_list *more = mn_tpl_items(r, *arg[0]);
  const size_t n = more->n; /* it may be itself */
  for (size_t i = 0; l && i < n && mn_tpl_push(r, l, more->at[i]);) i++;
  return mn_tpl_none();
}
METHOD(list_insert) {
  (void)all;
  mn_tpl_list *l = changing(r, self);
  int64_t i = integer(r, arg[0], 0);
  if (!l || !mn_tpl_push(r, l, *arg[1]) || !mn_tpl_step(r, (int64_t)l->n / 16)) return mn_tpl_undefined();
  const int64_t n = (int64_t)l->n - 1;
  if (i < 0) i = i + n < 0 ? 0 : i + n;
  if (i > n) i = n;
  memmove(l->at + i + 1, l->at + i, (size_t)(n - i) * sizeof *l->at);
  l->at[i] = *arg[1];
  return mn_tpl_none();
}
METHOD(list_pop) {
  (void)all;
  mn_tpl_list *l = changing(r, self);
  int64_t i = integer(r, arg[0], -1);
  if (!l) return mn_tpl_undefined();
  if (i < 0) i += (int64_t)l->n;
  if (i < 0 || i >= (int64_t)l->n) return mn_tpl_fail(r, "a list of %zu items has none to take there", l->n);
  const mn_tpl_value v = l->at[i];
  if (!mn_tpl_step(r, (int64_t)l->n / 16)) return mn_tpl_undefined();
  memmove(l->at + i, l->at + i + 1, (l->n - (size_t)i - 1) * sizeof *l->at);
  l->n--;
  return v;
}

static int64_t where(mn_tpl_run *r, const mn_tpl_list *l, mn_tpl_value v) {
  for (size_t i = 0; i < l->n && mn_tpl_step(r, 1); i++)
    if (mn_tpl_equal(r, l->at[i], v)) return (int64_t)i;
  mn_tpl_fail(r, "the list does not hold what is looked for");
  return -1;
}
METHOD(list_index) { return (void)all, mn_tpl_int(where(r, self.as.list, *arg[0])); }
METHOD(list_remove) {
  (void)all;
  mn_tpl_list *l = changing(r, self);
  const int64_t i = l ? where(r, l, *arg[0]) : -1;
  if (i < 0) return mn_tpl_undefined();
  memmove(l->at + i, l->at + i + 1, (l->n - (size_t)i - 1) * sizeof *l->at);
  l->n--;
  return mn_tpl_none();
}
METHOD(list_count) {
  (void)all;
  int64_t n = 0;
  for (size_t i = 0; i < self.as.list->n && mn_tpl_step(r, 1); i++) n += mn_tpl_equal(r, self.as.list->at[i], *arg[0]);
  return mn_tpl_int(n);
}
METHOD(list_reverse) {
  UNUSED;
  mn_tpl_list *l = changing(r, self);
  if (!l || !mn_tpl_step(r, (int64_t)l->n / 2)) return mn_tpl_none();
  for (size_t i = 0; i < l->n / 2; i++) {
    const mn_tpl_value v = l->at[i];
    l->at[i] = l->at[l->n - 1 - i], l->at[l->n - 1 - i] = v;
  }
  return mn_tpl_none();
}
METHOD(list_clear) {
  UNUSED;
  mn_tpl_list *l = changing(r, self);
  if (l) l->n = 0;
  return mn_tpl_none();
}
METHOD(list_copy) {
  UNUSED;
  mn_tpl_list *l = mn_tpl_new_list(r, self.as.list->n, TPL_PLAIN);
  for (size_t i = 0; i < self.as.list->n && mn_tpl_push(r, l, self.as.list->at[i]);) i++;
  return mn_tpl_list_value(l);
}

const mn_tpl_def mn_tpl_list_methods[] = {{"append", "!object", list_append},
                                          {"clear", "", list_clear},
                                          {"copy", "", list_copy},
                                          {"count", "!value", list_count},
                                          {"extend", "!more", list_extend},
                                          {"index", "!value", list_index},
                                          {"insert", "!index !object", list_insert},
                                          {"pop", "index", list_pop},
                                          {"remove", "!value", list_remove},
                                          {"reverse", "", list_reverse},
                                          {0}};

/* ---- maps ---- */
enum { KEYS, VALUES, PAIRS };
static mn_tpl_value view(mn_tpl_run *r, const mn_tpl_map *m, int what) {
  mn_tpl_list *l = mn_tpl_new_list(r, m->n, TPL_VIEW);
  for (size_t i = 0; i < m->n && r->status == MN_OK; i++) {
    mn_tpl_value v = what == KEYS ? m->at[i].key : m->at[i].value;
    if (what == PAIRS) {
      mn_tpl_list *pair = mn_tpl_new_list(r, 2, TPL_TUPLE);
      mn_tpl_push(r, pair, m->at[i].key), mn_tpl_push(r, pair, m->at[i].value);
      v = mn_tpl_list_value(pair);
    }
    mn_tpl_push(r, l, v);
  }
  return mn_tpl_list_value(l);
}
METHOD(map_keys) { return UNUSED, view(r, self.as.map, KEYS); }
METHOD(map_values) { return UNUSED, view(r, self.as.map, VALUES); }
METHOD(map_items) { return UNUSED, view(r, self.as.map, PAIRS); }

METHOD(map_get) {
  (void)all;
  const mn_tpl_value *v = mn_tpl_get(r, self.as.map, *arg[0]);
  return v ? *v : arg[1] ? *arg[1] : mn_tpl_none();
}
METHOD(map_setdefault) {
  (void)all;
  const mn_tpl_value *v = mn_tpl_get(r, self.as.map, *arg[0]), otherwise = arg[1] ? *arg[1] : mn_tpl_none();
  if (!v) mn_tpl_put(r, self.as.map, *arg[0], otherwise);
  return v ? *v : otherwise;
}
METHOD(map_pop) {
  (void)all;
  const mn_tpl_value *there = mn_tpl_get(r, self.as.map, *arg[0]), v = there ? *there : mn_tpl_undefined();
  if (!there) return arg[1] ? *arg[1] : mn_tpl_fail(r, "the map does not have the key to take");
  mn_tpl_remove(r, self.as.map, *arg[0]);
  return v;
}
METHOD(map_update) {
  (void)arg;
  const mn_tpl_map *more = all->n && all->at[0].kind == TPL_MAP ? all->at[0].as.map : NULL;
  if (all->n > 1 || (all->n && !more)) return mn_tpl_fail(r, "a map is updated from a map or from names");
  const size_t n = more ? more->n : 0;
  for (size_t i = 0; i < n && mn_tpl_put(r, self.as.map, more->at[i].key, more->at[i].value);) i++;
  for (int i = 0; i < all->n_named; i++) mn_tpl_put(r, self.as.map, mn_tpl_string_of(r, all->name[i], strlen(all->name[i])), all->named[i]);
  return mn_tpl_none();
}
METHOD(map_copy) {
  UNUSED;
  mn_tpl_map *m = mn_tpl_new_map(r);
  for (size_t i = 0; i < self.as.map->n && mn_tpl_put(r, m, self.as.map->at[i].key, self.as.map->at[i].value);) i++;
  return mn_tpl_map_value(m);
}
METHOD(map_clear) {
  UNUSED;
  if (r->status == MN_OK) *self.as.map = (mn_tpl_map){0};
  return mn_tpl_none();
}

const mn_tpl_def mn_tpl_map_methods[] = {{"clear", "", map_clear},
                                         {"copy", "", map_copy},
                                         {"get", "!key default", map_get},
                                         {"items", "", map_items},
                                         {"keys", "", map_keys},
                                         {"pop", "!key default", map_pop},
                                         {"setdefault", "!key default", map_setdefault},
                                         {"update", NULL, map_update},
                                         {"values", "", map_values},
                                         {0}};

/* ---- loops ---- */
METHOD(loop_cycle) {
  (void)arg;
  if (!all->n) return mn_tpl_fail(r, "loop.cycle goes round nothing");
  return all->at[self.as.loop->at % (size_t)all->n];
}
METHOD(loop_changed) {
  (void)arg;
  mn_tpl_list *now = mn_tpl_new_list(r, (size_t)all->n, TPL_TUPLE);
  for (int i = 0; i < all->n; i++) mn_tpl_push(r, now, all->at[i]);
  const mn_tpl_value v = mn_tpl_list_value(now), *before = self.as.loop->changed;
  if (before && mn_tpl_equal(r, *before, v)) return mn_tpl_bool(false);
  mn_tpl_value *kept = mn_tpl_alloc(r, sizeof *kept);
  if (kept) *kept = v, self.as.loop->changed = kept;
  return mn_tpl_bool(true);
}
const mn_tpl_def mn_tpl_loop_methods[] = {{"changed", NULL, loop_changed}, {"cycle", NULL, loop_cycle}, {0}};
