/* template_chars.c - characters as Python's strings see them: counting, white space; stripping, replacing, lines. */
#define _GNU_SOURCE /* memmem, qsort_r */
#include <string.h>
#include <utf8proc.h>

#include "format/template_internal.h"

int32_t mn_tpl_next(const mn_tpl_string *s, size_t *at) {
  int32_t c = 0;
  const utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s->data + *at, (utf8proc_ssize_t)(s->n - *at), &c);
  *at += n > 0 ? (size_t)n : 1;
  return n > 0 ? c : 0xFFFD;
}

void mn_tpl_add_char(mn_text *out, int32_t c) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t n = utf8proc_encode_char(c, bytes);
  if (n > 0) mn_text_add_bytes(out, bytes, (size_t)n);
}

int64_t mn_tpl_count(mn_tpl_string *s) {
  if (s->length >= 0) return s->length;
  int64_t n = 0;
  for (size_t at = 0; at < s->n; n++) mn_tpl_next(s, &at);
  return s->length = n;
}

size_t mn_tpl_offset(mn_tpl_string *s, int64_t i) {
  if ((size_t)mn_tpl_count(s) == s->n) return (size_t)i; /* a byte each */
  size_t at = 0;
  while (i-- > 0 && at < s->n) mn_tpl_next(s, &at);
  return at;
}

/* What comes of a safe string is safe. */
static mn_tpl_value like(mn_tpl_value v, const mn_tpl_string *s) {
  if (s->safe && v.kind == TPL_STRING) v.as.string->safe = true;
  return v;
}

mn_tpl_value mn_tpl_safe(mn_tpl_run *r, const mn_tpl_string *s) {
  return like(mn_tpl_string_of(r, s->data, s->n), &(mn_tpl_string){.safe = true});
}

mn_tpl_value mn_tpl_escaped(mn_tpl_run *r, const mn_tpl_string *s) {
  mn_text out = {0};
  for (size_t i = 0, passed = 0; i < s->n && mn_tpl_goes_on(r, &passed); i++) {
    const char c = s->data[i];
    const char *as = s->safe     ? NULL
                     : c == '&'  ? "&amp;"
                     : c == '<'  ? "&lt;"
                     : c == '>'  ? "&gt;"
                     : c == '\'' ? "&#39;"
                     : c == '"'  ? "&#34;"
                                 : NULL;
    if (as) mn_text_add(&out, as);
    else mn_text_add_bytes(&out, &c, 1);
  }
  return like(mn_tpl_take(r, &out), &(mn_tpl_string){.safe = true});
}

bool mn_tpl_is_space(int32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool mn_tpl_is_line_end(int32_t c) { return (c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029; }

bool mn_tpl_is_printable(int32_t c) {
  if (c < 0x7F) return c >= 32;
  switch (utf8proc_category(c)) {
  case UTF8PROC_CATEGORY_CN:
  case UTF8PROC_CATEGORY_CC:
  case UTF8PROC_CATEGORY_CF:
  case UTF8PROC_CATEGORY_CS:
  case UTF8PROC_CATEGORY_CO:
  case UTF8PROC_CATEGORY_ZS:
  case UTF8PROC_CATEGORY_ZL:
  case UTF8PROC_CATEGORY_ZP:
    return false;
  default:
    return true;
  }
}

mn_tpl_value mn_tpl_cased(mn_tpl_run *r, const mn_tpl_string *s, mn_tpl_case how) {
  mn_text out = {0};
  if (r->status == MN_OK) mn_tpl_add_cased(r, s, how, &out);
  return like(mn_tpl_take(r, &out), s);
}

static bool is_of(const mn_tpl_string *chars, int32_t c) {
  if (!chars) return mn_tpl_is_space(c);
  for (size_t at = 0; at < chars->n;)
    if (mn_tpl_next(chars, &at) == c) return true;
  return false;
}

mn_tpl_value mn_tpl_strip(mn_tpl_run *r, const mn_tpl_string *s, const mn_tpl_string *chars, int sides) {
  size_t from = 0, to = s->n, passed = 0;
  if (!mn_tpl_step(r, (int64_t)((chars ? chars->n : 0) * s->n / 64))) return mn_tpl_undefined();
  for (size_t at = 0; (sides & 1) && at < s->n && mn_tpl_goes_on(r, &passed); from = at)
    if (!is_of(chars, mn_tpl_next(s, &at))) break;
  while ((sides & 2) && to > from && mn_tpl_goes_on(r, &passed)) {
    size_t begin = to - 1, at;
    while (begin > from && ((unsigned char)s->data[begin] & 0xC0) == 0x80) begin--;
    at = begin;
    if (!is_of(chars, mn_tpl_next(s, &at))) break;
    to = begin;
  }
  return like(mn_tpl_string_of(r, s->data + from, to - from), s);
}

/* most < 0: all. An empty `from` stands before every character and at the end. */
mn_tpl_value mn_tpl_replace(mn_tpl_run *r, const mn_tpl_string *s, const mn_tpl_string *from, const mn_tpl_string *to, int64_t most) {
  mn_text out = {0};
  size_t at = 0;
  for (size_t passed = 0; most != 0; most -= most > 0) {
    if (!mn_tpl_goes_on(r, &passed) || out.len > r->limits.memory) break;
    if (!from->n) {
      const size_t begin = at;
      mn_text_add_bytes(&out, to->data, to->n);
      if (at >= s->n) break;
      mn_tpl_next(s, &at);
      mn_text_add_bytes(&out, s->data + begin, at - begin);
      continue;
    }
    const char *found = at < s->n ? memmem(s->data + at, s->n - at, from->data, from->n) : NULL;
    if (!found) break;
    mn_text_add_bytes(&out, s->data + at, (size_t)(found - s->data) - at);
    mn_text_add_bytes(&out, to->data, to->n);
    at = (size_t)(found - s->data) + from->n;
  }
  mn_text_add_bytes(&out, s->data + at, s->n - at);
  return like(mn_tpl_take(r, &out), s);
}

mn_tpl_list *mn_tpl_lines(mn_tpl_run *r, const mn_tpl_string *s, bool keep_ends) {
  mn_tpl_list *lines = mn_tpl_new_list(r, 0, TPL_PLAIN);
  for (size_t at = 0, begin = 0, passed = 0; at < s->n && r->status == MN_OK; begin = at) {
    size_t end = at;
    int32_t c = 0;
    while (at < s->n && mn_tpl_goes_on(r, &passed) && !mn_tpl_is_line_end(c = mn_tpl_next(s, &at))) end = at;
    if (!mn_tpl_is_line_end(c)) end = at; /* the last has none */
    if (c == '\r' && at < s->n && s->data[at] == '\n') at++;
    mn_tpl_push(r, lines, mn_tpl_string_of(r, s->data + begin, (keep_ends ? at : end) - begin));
  }
  return lines;
}
