/* template_format.c - Python's two ways of putting values into a text: "%s: %.2f" % (a, b) and "{}: {x:>4}".format(a, x=b). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/template_internal.h"

enum { WIDEST = 10000 };

typedef struct spec { /* [[fill]align][sign][#][0][width][,][.precision][type] */
  int32_t fill;
  char align, sign, type;
  bool alternative, zero, comma;
  int width, precision; /* precision -1: none */
} spec;

/* Of a text, which may hold a zero byte, and strchr finds the zero that ends its list. */
static bool is_one_of(const char *signs, char c) { return c && strchr(signs, c); }

/* Letters in front of width: to the side that align says. */
static void add_padded(const spec *s, const mn_text *body, size_t sign, char usual, mn_text *out) {
  mn_tpl_string text = {body->data ? body->data : "", body->len, -1, false};
  const int64_t length = mn_tpl_count(&text), pad = s->width > length ? s->width - length : 0;
  const char align = s->align ? s->align : s->zero ? '=' : usual;
  const int64_t left = align == '>' || align == '=' ? pad : align == '^' ? pad / 2 : 0;
  const int32_t fill = s->fill ? s->fill : s->zero ? '0' : ' ';
  if (align == '=') mn_text_add_bytes(out, text.data, sign);
  for (int64_t i = 0; i < left; i++) mn_tpl_add_char(out, fill);
  mn_text_add_bytes(out, text.data + (align == '=' ? sign : 0), text.n - (align == '=' ? sign : 0));
  for (int64_t i = left; i < pad; i++) mn_tpl_add_char(out, fill);
}

static void add_digits(const char *digits, bool comma, mn_text *out) {
  const size_t n = strspn(digits, "0123456789");
  for (size_t i = 0; i < n; i++) {
    if (comma && i && (n - i) % 3 == 0) mn_text_add(out, ",");
    mn_text_add_bytes(out, digits + i, 1);
  }
  mn_text_add(out, digits + n);
}

static void add_number(mn_tpl_run *r, const spec *s, mn_tpl_value v, mn_text *out) {
  char text[512], format[16];
  mn_text body = {0};
  const bool real = v.kind == TPL_FLOAT || is_one_of("eEfFgG%", s->type);
  const double d = mn_tpl_number(v) * (s->type == '%' ? 100 : 1);
  const bool negative = real ? signbit(d) : (v.kind == TPL_INT && v.as.integer < 0);
  const uint64_t whole = v.kind == TPL_INT    ? (negative ? 0 - (uint64_t)v.as.integer : (uint64_t)v.as.integer)
                         : v.kind == TPL_BOOL ? v.as.boolean
                                              : 0;
  if (negative) mn_text_add(&body, "-");
  else if (s->sign == '+' || s->sign == ' ') mn_text_add_bytes(&body, &s->sign, 1);
  const size_t sign = body.len;
  if (!real) {
    const char *prefix = !s->alternative  ? ""
                         : s->type == 'x' ? "0x"
                         : s->type == 'X' ? "0X"
                         : s->type == 'o' ? "0o"
                         : s->type == 'b' ? "0b"
                                          : "";
    mn_text_add(&body, prefix);
    if (s->type == 'b') {
      int top = 63;
      while (top > 0 && !(whole >> top & 1)) top--;
      for (; top >= 0; top--) mn_text_add(&body, whole >> top & 1 ? "1" : "0");
    } else {
      snprintf(text, sizeof text,
               s->type == 'x'   ? "%llx"
               : s->type == 'X' ? "%llX"
               : s->type == 'o' ? "%llo"
                                : "%llu",
               (unsigned long long)whole);
      for (int n = (int)strlen(text); n < s->precision; n++) mn_text_add(&body, "0");
      add_digits(text, s->comma, &body);
    }
  } else if (!s->type && s->precision < 0) {
    mn_text plain = {0};
    mn_tpl_add_real(fabs(d), &plain);
    if (plain.data) add_digits(plain.data, s->comma, &body);
    mn_text_free(&plain);
  } else {
    const int precision = s->precision < 0 ? 6 : s->precision < 100 ? s->precision : 100;
    snprintf(format, sizeof format, s->alternative ? "%%#.*%c" : "%%.*%c", s->type == '%' ? 'f' : s->type ? s->type : 'g');
    snprintf(text, sizeof text, format, precision, fabs(d));
    add_digits(text, s->comma, &body);
    if (s->type == '%') mn_text_add(&body, "%");
  }
  add_padded(s, &body, sign, '>', out);
  if (mn_text_status(&body) != MN_OK) r->status = MN_ERR_MEMORY;
  mn_text_free(&body);
}

static void add_text(mn_tpl_run *r, const spec *s, mn_tpl_value v, bool repr, mn_text *out) {
  mn_text body = {0};
  if (repr) mn_tpl_add_repr(r, v, &body);
  else mn_tpl_add_str(r, v, &body);
  mn_tpl_string text = {body.data ? body.data : "", body.len, -1, false};
  if (mn_tpl_read(r, body.len) && s->precision >= 0 && mn_tpl_count(&text) > s->precision) body.len = mn_tpl_offset(&text, s->precision);
  add_padded(s, &body, 0, '<', out);
  mn_text_free(&body);
}

static int number_at(const mn_tpl_string *f, size_t *at) {
  int n = 0;
  for (; *at < f->n && f->data[*at] >= '0' && f->data[*at] <= '9'; ++*at) n = n < WIDEST ? n * 10 + (f->data[*at] - '0') : WIDEST;
  return n < WIDEST ? n : WIDEST;
}

/* ---- % ---- */
static mn_tpl_value whole_part(mn_tpl_run *r, double d) {
  return d > -9.2e18 && d < 9.2e18 ? mn_tpl_int((int64_t)d) : (mn_tpl_fail(r, "an integer of more than 64 bits"), mn_tpl_int(0));
}

mn_tpl_value mn_tpl_percent(mn_tpl_run *r, const mn_tpl_string *f, const mn_tpl_list *values, const mn_tpl_map *named) {
  mn_text out = {0};
  size_t used = 0;
  bool by_name = false;
  for (size_t at = 0; at < f->n && r->status == MN_OK;) {
    spec s = {.precision = -1};
    if (f->data[at] != '%') {
      const char *next = memchr(f->data + at, '%', f->n - at);
      const size_t end = next ? (size_t)(next - f->data) : f->n;
      mn_text_add_bytes(&out, f->data + at, end - at);
      at = end;
      continue;
    }
    const mn_tpl_value *v = NULL;
    if (++at < f->n && f->data[at] == '(') {
      const char *close = memchr(f->data + at, ')', f->n - at);
      const mn_tpl_value key = close ? mn_tpl_string_of(r, f->data + at + 1, (size_t)(close - f->data) - at - 1) : mn_tpl_undefined();
      if (!named || !close) mn_tpl_fail(r, "a format with names needs a map behind its %%");
      v = named && close && r->status == MN_OK ? mn_tpl_get(r, named, key) : NULL;
      if (!v) mn_tpl_fail(r, "a format names what its map does not have");
      if (!v) break;
      at = (size_t)(close - f->data) + 1, by_name = true;
    }
    for (; at < f->n && is_one_of("-+ #0", f->data[at]); at++) {
      if (f->data[at] == '-') s.align = '<';
      else if (f->data[at] == '#') s.alternative = true;
      else if (f->data[at] == '0') s.zero = true;
      else s.sign = f->data[at];
    }
    if (s.align) s.zero = false;
    else if (!s.zero) s.align = '>';
    s.width = number_at(f, &at);
    if (at < f->n && f->data[at] == '.') at++, s.precision = number_at(f, &at);
    const char type = at < f->n ? f->data[at++] : 0;
    if (type == '%') {
      mn_text_add(&out, "%");
      continue;
    }
    if (!is_one_of("srdiufFeEgGxXoc", type)) {
      mn_tpl_fail(r, "'%%%c' is no format", type ? type : ' ');
      break;
    }
    if (!v && used >= values->n) mn_tpl_fail(r, "a format has more places than values");
    if (r->status != MN_OK) break;
    if (!v) v = &values->at[used++];
    s.type = type;
    if (type == 's' || type == 'r') add_text(r, &s, *v, type == 'r', &out);
    else if (!mn_tpl_is_number(*v)) mn_tpl_fail(r, "%%%c wants a number, not %s", type, mn_tpl_type_name(*v));
    else if (type == 'c')
      mn_tpl_add_char(&out, v->kind == TPL_INT && v->as.integer >= 0 && v->as.integer < 0x110000 ? (int32_t)v->as.integer : 0xFFFD);
    else if (is_one_of("diu", type)) s.type = 0, add_number(r, &s, v->kind == TPL_FLOAT ? whole_part(r, v->as.real) : *v, &out);
    else if (is_one_of("xXo", type) && v->kind == TPL_FLOAT) mn_tpl_fail(r, "%%%c wants an integer", type);
    else add_number(r, &s, *v, &out);
  }
  if (!by_name && !named && used < values->n) mn_tpl_fail(r, "a format has fewer places than values");
  return mn_tpl_take(r, &out);
}

/* ---- format ---- */
static bool is_align(int32_t c) { return c == '<' || c == '>' || c == '^' || c == '='; }

static spec parse_spec(mn_tpl_run *r, const mn_tpl_string *f) {
  spec s = {.precision = -1};
  size_t at = 0, next = 0;
  const int32_t first = f->n ? mn_tpl_next(f, &next) : 0;
  if (next < f->n && is_align(f->data[next])) s.fill = first, s.align = f->data[next], at = next + 1;
  else if (is_align(first)) s.align = (char)first, at = 1;
  if (at < f->n && is_one_of("+- ", f->data[at])) s.sign = f->data[at++];
  if (at < f->n && f->data[at] == '#') s.alternative = true, at++;
  if (at < f->n && f->data[at] == '0') s.zero = true, at++;
  s.width = number_at(f, &at);
  if (at < f->n && f->data[at] == ',') s.comma = true, at++;
  if (at < f->n && f->data[at] == '.') at++, s.precision = number_at(f, &at);
  if (at < f->n && is_one_of("sdxXobeEfFgG%", f->data[at])) s.type = f->data[at++];
  if (at < f->n) mn_tpl_fail(r, "'%.*s' is no format", (int)(f->n < 40 ? f->n : 40), f->data);
  if (s.align) s.zero = s.zero && s.align == '=';
  return s;
}

static void add_formatted(mn_tpl_run *r, mn_tpl_value v, const mn_tpl_string *how, char conversion, mn_text *out) {
  if (conversion && conversion != 's' && conversion != 'r') {
    mn_tpl_fail(r, "'!%c' is no conversion of a format; there are !s and !r", conversion);
    return;
  }
  const spec s = parse_spec(r, how);
  if (r->status != MN_OK) return;
  if (!conversion && mn_tpl_is_number(v) && !(v.kind == TPL_BOOL && !s.type)) {
    if (s.type == 's') mn_tpl_fail(r, "the format 's' wants a string, not %s", mn_tpl_type_name(v));
    else if (v.kind == TPL_FLOAT && is_one_of("dxXob", s.type)) mn_tpl_fail(r, "the format '%c' wants an integer", s.type);
    else add_number(r, &s, v, out);
  } else if (s.type && s.type != 's') {
    mn_tpl_fail(r, "the format '%c' wants a number, not %s", s.type, mn_tpl_type_name(v));
  } else {
    add_text(r, &s, v, conversion == 'r', out);
  }
}

/* "0", "name", "" and what follows with . and [ ]. */
static mn_tpl_value field(mn_tpl_run *r, const char *s, size_t n, const mn_tpl_args *args, int *automatic) {
  size_t end = 0, at;
  mn_tpl_value v = mn_tpl_undefined();
  bool found = false;
  while (end < n && s[end] != '.' && s[end] != '[') end++;
  const mn_tpl_string name = {s, end, -1, false};
  at = 0;
  const int number = end ? number_at(&name, &at) : (*automatic)++;
  if (at == end) {
    found = number < args->n;
    if (found) v = args->at[number];
  }
  for (int i = 0; i < args->n_named && !found; i++)
    if (strlen(args->name[i]) == end && !memcmp(args->name[i], s, end)) v = args->named[i], found = true;
  if (!found) return mn_tpl_fail(r, "a format asks for '%.*s', which it is not given", (int)(end < 40 ? end : 40), s);
  for (at = end; at < n && r->status == MN_OK; at = end) {
    const bool item = s[at] == '[';
    for (end = ++at; end < n && (item ? s[end] != ']' : s[end] != '.' && s[end] != '[');) end++;
    const mn_tpl_string part = {s + at, end - at, -1, false};
    size_t digits = 0;
    const int i = number_at(&part, &digits);
    v = mn_tpl_subscript(r, v, item && part.n && digits == part.n ? mn_tpl_int(i) : mn_tpl_string_of(r, part.data, part.n));
    if (item && end < n) end++;
  }
  return v;
}

mn_tpl_value mn_tpl_format(mn_tpl_run *r, const mn_tpl_string *f, const mn_tpl_args *args) {
  mn_text out = {0};
  int automatic = 0;
  for (size_t at = 0; at < f->n && mn_tpl_step(r, 1);) {
    const char c = f->data[at];
    if (c != '{' && c != '}') {
      size_t end = at;
      while (end < f->n && f->data[end] != '{' && f->data[end] != '}') end++;
      mn_text_add_bytes(&out, f->data + at, end - at);
      at = end;
      continue;
    }
    if (at + 1 < f->n && f->data[at + 1] == c) {
      mn_text_add_bytes(&out, &c, 1);
      at += 2;
      continue;
    }
    const char *close = c == '{' ? memchr(f->data + at, '}', f->n - at) : NULL;
    if (!close) {
      mn_tpl_fail(r, "a format with a bracket that is alone");
      break;
    }
    const char *begin = f->data + at + 1, *colon = memchr(begin, ':', (size_t)(close - begin)), *end = colon ? colon : close;
    const char *mark = memchr(begin, '!', (size_t)(end - begin));
    const mn_tpl_string how = {colon ? colon + 1 : "", colon ? (size_t)(close - colon) - 1 : 0, -1, false};
    const char conversion = mark ? (mark + 1 < end ? mark[1] : '?') : 0;
    if (memchr(begin, '{', (size_t)(close - begin))) mn_tpl_fail(r, "a format inside a format is not supported");
    const mn_tpl_value v = r->status == MN_OK ? field(r, begin, (size_t)((mark ? mark : end) - begin), args, &automatic) : mn_tpl_none();
    if (r->status == MN_OK) add_formatted(r, v, &how, conversion, &out);
    at = (size_t)(close - f->data) + 1;
  }
  return mn_tpl_take(r, &out);
}
