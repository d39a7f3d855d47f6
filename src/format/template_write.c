/* template_write.c - values as text: as Python writes them (str, repr), as JSON, and in formats ("%s" % x, "{}".format(x)). */
#define _GNU_SOURCE /* memmem, qsort_r */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/template_internal.h"

/* The fewest digits that read back the same: d.ddd and the exponent of ten of the first. */
static void digits_of(double d, char digits[32], int *exponent) {
  char text[40];
  for (int precision = 1; precision <= 17; precision++) {
    snprintf(text, sizeof text, "%.*e", precision - 1, d);
    if (strtod(text, NULL) == d) break;
  }
  char *e = strchr(text, 'e');
  *exponent = atoi(e + 1);
  size_t n = 0;
  for (const char *s = text; s < e; s++)
    if (*s >= '0' && *s <= '9') digits[n++] = *s;
  digits[n] = 0;
}

void mn_tpl_add_real(double d, mn_text *out) {
  char digits[32];
  int exponent;
  if (isnan(d)) mn_text_add(out, "nan");
  else if (isinf(d)) mn_text_add(out, d < 0 ? "-inf" : "inf");
  if (isnan(d) || isinf(d)) return;
  digits_of(fabs(d), digits, &exponent);
  const int n = (int)strlen(digits);
  if (signbit(d)) mn_text_add(out, "-");
  if (exponent < -4 || exponent >= 16) {
    mn_text_addf(out, "%c%s%s", digits[0], n > 1 ? "." : "", digits + 1);
    mn_text_addf(out, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
  } else if (exponent < 0) {
    mn_text_addf(out, "0.%.*s%s", -exponent - 1, "0000", digits);
  } else {
    for (int i = 0; i <= exponent || i < n; i++) {
      if (i == exponent + 1) mn_text_add(out, ".");
      mn_text_addf(out, "%c", i < n ? digits[i] : '0');
    }
    if (n <= exponent + 1) mn_text_add(out, ".0");
  }
}

/* ---- str and repr ---- */
static void add_quoted(mn_tpl_run *r, const mn_tpl_string *s, mn_text *out) {
  const char quote = memchr(s->data, '\'', s->n) && !memchr(s->data, '"', s->n) ? '"' : '\'';
  mn_text_add_bytes(out, &quote, 1);
  for (size_t at = 0, passed = 0; at < s->n && mn_tpl_goes_on(r, &passed);) {
    const size_t begin = at;
    const int32_t c = mn_tpl_next(s, &at);
    if (c == '\n' || c == '\r' || c == '\t') mn_text_add(out, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
    else if (c == quote || c == '\\') mn_text_addf(out, "\\%c", (char)c);
    else if (mn_tpl_is_printable(c)) mn_text_add_bytes(out, s->data + begin, at - begin);
    else mn_text_addf(out, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
  }
  mn_text_add_bytes(out, &quote, 1);
}

static bool fits(mn_tpl_run *r, const mn_text *out) {
  if (out->len > r->limits.memory) mn_tpl_fail(r, "the template makes values of more than %zu bytes", r->limits.memory);
  return mn_tpl_step(r, 1);
}

static void add_list(mn_tpl_run *r, const mn_tpl_list *l, mn_text *out) {
  const bool tuple = l->form == TPL_TUPLE;
  mn_text_add(out, tuple ? "(" : "[");
  for (size_t i = 0; i < l->n && fits(r, out); i++) {
    if (i) mn_text_add(out, ", ");
    mn_tpl_add_repr(r, l->at[i], out);
  }
  mn_text_add(out, tuple && l->n == 1 ? ",)" : tuple ? ")" : "]");
}

static void add_map(mn_tpl_run *r, const mn_tpl_map *m, mn_text *out) {
  mn_text_add(out, "{");
  for (size_t i = 0; i < m->n && fits(r, out); i++) {
    if (i) mn_text_add(out, ", ");
    mn_tpl_add_repr(r, m->at[i].key, out);
    mn_text_add(out, ": ");
    mn_tpl_add_repr(r, m->at[i].value, out);
  }
  mn_text_add(out, "}");
}

void mn_tpl_add_repr(mn_tpl_run *r, mn_tpl_value v, mn_text *out) {
  if (!mn_tpl_enter(r)) return;
  switch (v.kind) {
  case TPL_UNDEFINED:
    mn_text_add(out, "Undefined");
    break;
  case TPL_NONE:
    mn_text_add(out, "None");
    break;
  case TPL_BOOL:
    mn_text_add(out, v.as.boolean ? "True" : "False");
    break;
  case TPL_INT:
    mn_text_addf(out, "%lld", (long long)v.as.integer);
    break;
  case TPL_FLOAT:
    mn_tpl_add_real(v.as.real, out);
    break;
  case TPL_STRING:
    add_quoted(r, v.as.string, out);
    break;
  case TPL_LIST:
    add_list(r, v.as.list, out);
    break;
  case TPL_MAP:
    add_map(r, v.as.map, out);
    break;
  case TPL_NAMESPACE:
    mn_text_add(out, "<Namespace ");
    add_map(r, v.as.map, out);
    mn_text_add(out, ">");
    break;
  default:
    mn_tpl_fail(r, "%s is not written as text", mn_tpl_type_name(v));
  }
  mn_tpl_leave(r);
}

void mn_tpl_add_str(mn_tpl_run *r, mn_tpl_value v, mn_text *out) {
  if (v.kind == TPL_STRING) mn_text_add_bytes(out, v.as.string->data, v.as.string->n);
  else if (v.kind != TPL_UNDEFINED) mn_tpl_add_repr(r, v, out);
}

mn_tpl_value mn_tpl_str(mn_tpl_run *r, mn_tpl_value v) {
  mn_text out = {0};
  if (v.kind == TPL_STRING) return v;
  mn_tpl_add_str(r, v, &out);
  return mn_tpl_take(r, &out);
}

/* ---- JSON, as Python's json.dumps ---- */
static void add_json_string(mn_tpl_run *r, const mn_tpl_string *s, bool ascii, mn_text *out) {
  static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
  mn_text_add(out, "\"");
  for (size_t at = 0, passed = 0; at < s->n && mn_tpl_goes_on(r, &passed);) {
    const size_t begin = at;
    const int32_t c = mn_tpl_next(s, &at);
    const char *known = c > 0 && c < 0x80 ? strchr(from, c) : NULL;
    if (known) mn_text_addf(out, "\\%c", to[known - from]);
    else if (c >= 0x10000 && ascii) mn_text_addf(out, "\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10), 0xDC00 + ((c - 0x10000) & 0x3FF));
    else if (c < 32 || (c >= 0x7F && ascii && c != 0x7F)) mn_text_addf(out, "\\u%04x", (unsigned)c);
    else mn_text_add_bytes(out, s->data + begin, at - begin);
  }
  mn_text_add(out, "\"");
}

static void add_line(const mn_tpl_json *how, int level, mn_text *out) {
  if (!how->indent) return;
  mn_text_add(out, "\n");
  for (int i = 0; i < level; i++) mn_text_add(out, how->indent);
}

static void add_json(mn_tpl_run *r, mn_tpl_value v, const mn_tpl_json *how, int level, mn_text *out);

static void add_json_key(mn_tpl_run *r, mn_tpl_value key, const mn_tpl_json *how, mn_text *out) {
  if (key.kind == TPL_LIST) mn_tpl_fail(r, "%s is no key of a JSON object", mn_tpl_type_name(key));
  const bool text = key.kind == TPL_STRING;
  if (!text) mn_text_add(out, "\"");
  add_json(r, key, how, 0, out);
  if (!text) mn_text_add(out, "\"");
}

typedef struct sorting {
  mn_tpl_run *r;
  const mn_tpl_map *m;
} sorting;

static int by_key(const void *a, const void *b, void *ctx) {
  const sorting *s = ctx;
  return mn_tpl_order(s->r, s->m->at[*(const uint32_t *)a].key, s->m->at[*(const uint32_t *)b].key);
}

static void add_object(mn_tpl_run *r, const mn_tpl_map *m, const mn_tpl_json *how, int level, mn_text *out) {
  uint32_t *order = m->n ? mn_tpl_alloc(r, m->n * sizeof *order) : NULL;
  for (size_t i = 0; order && i < m->n; i++) order[i] = (uint32_t)i;
  if (order && how->sorted) qsort_r(order, m->n, sizeof *order, by_key, &(sorting){r, m});
  mn_text_add(out, "{");
  for (size_t i = 0; order && i < m->n && fits(r, out); i++) {
    if (i) mn_text_add(out, how->comma);
    add_line(how, level + 1, out);
    add_json_key(r, m->at[order[i]].key, how, out);
    mn_text_add(out, how->colon);
    add_json(r, m->at[order[i]].value, how, level + 1, out);
  }
  if (m->n) add_line(how, level, out);
  mn_text_add(out, "}");
}

static void add_json(mn_tpl_run *r, mn_tpl_value v, const mn_tpl_json *how, int level, mn_text *out) {
  if (!mn_tpl_enter(r)) return;
  switch (v.kind) {
  case TPL_NONE:
    mn_text_add(out, "null");
    break;
  case TPL_BOOL:
    mn_text_add(out, v.as.boolean ? "true" : "false");
    break;
  case TPL_INT:
    mn_text_addf(out, "%lld", (long long)v.as.integer);
    break;
  case TPL_FLOAT:
    if (isfinite(v.as.real)) mn_tpl_add_real(v.as.real, out);
    else mn_text_add(out, isnan(v.as.real) ? "NaN" : v.as.real < 0 ? "-Infinity" : "Infinity");
    break;
  case TPL_STRING:
    add_json_string(r, v.as.string, how->ascii, out);
    break;
  case TPL_LIST:
    if (v.as.list->form > TPL_TUPLE) mn_tpl_fail(r, "what is gone through once has no JSON: make it a list by the filter 'list'");
    mn_text_add(out, "[");
    for (size_t i = 0; i < v.as.list->n && fits(r, out); i++) {
      if (i) mn_text_add(out, how->comma);
      add_line(how, level + 1, out);
      add_json(r, v.as.list->at[i], how, level + 1, out);
    }
    if (v.as.list->n) add_line(how, level, out);
    mn_text_add(out, "]");
    break;
  case TPL_MAP:
    add_object(r, v.as.map, how, level, out);
    break;
  default:
    mn_tpl_fail(r, "%s has no JSON", mn_tpl_type_name(v));
  }
  mn_tpl_leave(r);
}

void mn_tpl_add_json(mn_tpl_run *r, mn_tpl_value v, const mn_tpl_json *how, mn_text *out) { add_json(r, v, how, 0, out); }
