/* tokenizer_normalize.c - normalisers: a part of a text, valid UTF-8, becomes another. Composition is utf8proc's; each other one is
 * written here, character by character. A long text is normalised part by part, cut where no normaliser joins two characters. */
#define _GNU_SOURCE /* memmem */

#include "format/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define BIT(x) (1u << MN_CAT_##x)

static void put_char(mn_text *out, uint32_t c) {
  char utf8[4];
  mn_text_add_bytes(out, utf8, mn_utf8_put(utf8, c));
}

static bool is_ascii(const char *s, size_t n) {
  for (size_t i = 0; i < n; i++)
    if ((unsigned char)s[i] >= 0x80) return false;
  return true;
}

/* ---- composition: ASCII stays as it is; a run of other characters goes through utf8proc with the character before it ---- */

static void compose_run(const char *s, size_t n, utf8proc_option_t options, mn_text *out) {
  utf8proc_uint8_t *mapped = NULL;
  utf8proc_ssize_t len = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &mapped, options);
  if (len < 0) out->failed = true; /* memory: the text is valid */
  else mn_text_add_bytes(out, mapped, (size_t)len);
  free(mapped);
}

/* What was given a decomposition after the reference's tables (Unicode 12) were made stays as it is. */
static bool is_later(uint32_t c) {
  return c == 0x32FF || (c >= 0xA7F2 && c <= 0xA7F4) || c == 0xAB69 || (c >= 0x10781 && c <= 0x107BA) || c == 0x11938 || c == 0x1F16C ||
         (c >= 0x1FBF0 && c <= 0x1FBF9);
}

static void compose(const char *s, size_t n, mn_norm_kind kind, mn_text *out) {
  utf8proc_option_t options = UTF8PROC_STABLE | (kind == NORM_NFC || kind == NORM_NFKC ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE);
  if (kind == NORM_NFKC || kind == NORM_NFKD) options |= UTF8PROC_COMPAT;
  for (size_t at = 0; at < n;) {
    size_t end = at, len;
    while (end < n && (unsigned char)s[end] < 0x80) end++;
    if (end < n && end > at) end--; /* a mark after it may join it */
    mn_text_add_bytes(out, s + at, end - at);
    at = end;
    for (; end < n && ((unsigned char)s[end] >= 0x80 || end == at); end += len) {
      if (!is_later(mn_utf8_next(s + end, n - end, &len))) continue;
      if (end > at) compose_run(s + at, end - at, options, out);
      mn_text_add_bytes(out, s + end, len);
      at = end + len;
    }
    if (end > at) compose_run(s + at, end - at, options, out);
    at = end;
  }
}

/* ---- character by character ---- */

static void lower(const char *s, size_t n, mn_text *out) {
  for (size_t i = 0, len; i < n; i += len) {
    uint32_t c = mn_utf8_next(s + i, n - i, &len);
    if (c == 0x130) mn_text_add(out, "i\xCC\x87"); /* the only one that becomes two */
    else put_char(out, mn_unicode_lower(c));
  }
}

static void drop(const char *s, size_t n, bool (*goes)(uint32_t), mn_text *out) {
  for (size_t i = 0, len; i < n; i += len)
    if (!goes(mn_utf8_next(s + i, n - i, &len))) mn_text_add_bytes(out, s + i, len);
}

static bool is_chinese(uint32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

/* Controls and formats, but for those that the reference's tables do not know yet. */
static bool bert_control(uint32_t c) {
  if (!mn_unicode_in(c, BIT(CC) | BIT(CF)) || c == '\t' || c == '\n' || c == '\r') return c == 0 || c == 0xFFFD;
  return c != 0x890 && c != 0x891 && c != 0x8E2 && c != 0x110CD && !(c >= 0x13430 && c <= 0x1343F);
}

static void bert_clean(const mn_norm *norm, const char *s, size_t n, mn_text *out) {
  for (size_t i = 0, len; i < n; i += len) {
    uint32_t c = mn_utf8_next(s + i, n - i, &len);
    if (norm->clean && bert_control(c)) continue;
    if (norm->clean && mn_unicode_space(c)) {
      mn_text_add(out, " ");
      continue;
    }
    bool chinese = norm->chinese && is_chinese(c);
    if (chinese) mn_text_add(out, " ");
    mn_text_add_bytes(out, s + i, len);
    if (chinese) mn_text_add(out, " ");
  }
}

static void nmt(const char *s, size_t n, mn_text *out) { /* the controls go, and what looks like a space is one */
  for (size_t i = 0, len; i < n; i += len) {
    uint32_t c = mn_utf8_next(s + i, n - i, &len);
    if ((c >= 1 && c <= 8) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F) continue;
    bool blank = c == 9 || c == 10 || c == 12 || c == 13 || c == 0x1680 || (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 ||
                 c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
    if (blank) mn_text_add(out, " ");
    else mn_text_add_bytes(out, s + i, len);
  }
}

static mn_status replace(const mn_norm *norm, mn_matcher *m, const char *s, size_t n, mn_text *out) {
  if (norm->regex) {
    for (size_t at = 0, begin, end; at < n; at = end) {
      m->same_text = at > 0;
      MN_TRY(mn_matcher_next(m, norm->regex, s, n, at, &begin, &end));
      mn_text_add_bytes(out, s + at, begin - at);
      if (begin < n) mn_text_add_bytes(out, norm->to, norm->to_n);
    }
    return MN_OK;
  }
  const char *end = s + n, *at;
  while (s < end && (at = memmem(s, (size_t)(end - s), norm->from, norm->from_n))) {
    mn_text_add_bytes(out, s, (size_t)(at - s));
    mn_text_add_bytes(out, norm->to, norm->to_n);
    s = at + norm->from_n;
  }
  if (s < end) mn_text_add_bytes(out, s, (size_t)(end - s));
  return MN_OK;
}

static void strip(const mn_norm *norm, const char *s, size_t n, bool first, bool last, mn_text *out) {
  size_t begin = 0, end = n, len;
  while (norm->left && first && begin < end && mn_unicode_space(mn_utf8_next(s + begin, end - begin, &len))) begin += len;
  while (norm->right && last && end > begin) {
    size_t at = mn_utf8_before(s, end);
    if (!mn_unicode_space(mn_utf8_next(s + at, end - at, &len))) break;
    end = at;
  }
  mn_text_add_bytes(out, s + begin, end - begin);
}

static void bert(const mn_norm *norm, const char *s, size_t n, mn_text *out) {
  mn_text a = {0}, b = {0};
  bert_clean(norm, s, n, &a);
  if (norm->accents && a.len) {
    compose(a.data, a.len, NORM_NFD, &b);
    a.len = 0;
    if (b.len) drop(b.data, b.len, mn_unicode_nonspacing, &a);
  }
  if (a.len && norm->lower) lower(a.data, a.len, out);
  else if (a.len) mn_text_add_bytes(out, a.data, a.len);
  out->failed |= a.failed || b.failed;
  mn_text_free(&a);
  mn_text_free(&b);
}

static mn_status run(const mn_norm *norm, mn_norm_work *w, const char *s, size_t n, bool first, bool last, mn_text *out) {
  switch (norm->kind) {
  case NORM_NFC:
  case NORM_NFD:
  case NORM_NFKC:
  case NORM_NFKD:
    compose(s, n, norm->kind, out);
    break;
  case NORM_LOWERCASE:
    lower(s, n, out);
    break;
  case NORM_STRIP_ACCENTS:
    drop(s, n, mn_unicode_accent, out);
    break;
  case NORM_BERT:
    bert(norm, s, n, out);
    break;
  case NORM_REPLACE:
    return replace(norm, &w->matcher, s, n, out);
  case NORM_PREPEND:
    if (first && n) mn_text_add_bytes(out, norm->to, norm->to_n);
    mn_text_add_bytes(out, s, n);
    break;
  case NORM_STRIP:
    strip(norm, s, n, first, last, out);
    break;
  case NORM_NMT:
    nmt(s, n, out);
    break;
  case NORM_CHARSMAP:
    mn_charsmap_run(norm, s, n, out);
    break;
  }
  return MN_OK;
}

mn_status mn_normalize(const mn_tokenizer *tok, mn_norm_work *w, const char *s, size_t n, bool first, bool last, const char **out,
                       size_t *out_n) {
  for (int i = 0; i < tok->n_norms && n; i++) {
    const mn_norm *norm = &tok->norms[i];
    if (norm->kind <= NORM_NFKD && is_ascii(s, n)) continue;
    mn_text *to = &w->text[i & 1];
    if (to->len && s == to->data) to = &w->text[~i & 1];
    to->len = 0;
    MN_TRY(run(norm, w, s, n, first, last, to));
    MN_TRY(mn_text_status(to));
    s = to->len ? to->data : "";
    n = to->len;
  }
  *out = s;
  *out_n = n;
  return MN_OK;
}

void mn_norm_work_free(mn_norm_work *w) {
  mn_matcher_close(&w->matcher);
  mn_text_free(&w->text[0]);
  mn_text_free(&w->text[1]);
}

/* ---- where to cut ---- */

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

/* Does a replacement reach over s[at]? Looked for around it: what is replaced is short, or a run of blanks. */
static mn_status reaches_over(const mn_norm *norm, mn_matcher *m, const char *s, size_t n, size_t at, bool *over) {
  enum { AROUND = 64 };
  size_t begin = at > AROUND ? at - AROUND : 0, end = n - at > AROUND ? at + AROUND : n, b, e;
  while (begin < at && ((unsigned char)s[begin] & 0xC0) == 0x80) begin++;
  while (end > at && end < n && ((unsigned char)s[end] & 0xC0) == 0x80) end--;
  if (!norm->regex) {
    if (at + norm->from_n < end) end = at + norm->from_n - 1;
    for (const char *p = s + begin; (p = memmem(p, (size_t)(s + end - p), norm->from, norm->from_n)) && p < s + at; p++)
      if (p + norm->from_n > s + at) *over = true;
    return MN_OK;
  }
  for (size_t from = begin; from < end && !*over; from = e) {
    MN_TRY(mn_matcher_next(m, norm->regex, s, end, from, &b, &e));
    if (b >= at) break;
    *over = e > at;
  }
  return MN_OK;
}

/* Between a letter and a single blank before a letter, all ASCII: no normaliser joins these. */
mn_status mn_normalize_cut(const mn_tokenizer *tok, const char *s, size_t n, size_t *cut) {
  mn_matcher m = {0};
  mn_status status = MN_OK;
  *cut = 0;
  for (size_t at = n > 2 ? n - 2 : 0; at > 0 && !*cut && status == MN_OK; at--) {
    if ((s[at] != ' ' && s[at] != '\n') || !is_letter(s[at - 1]) || !is_letter(s[at + 1])) continue;
    bool joined = false;
    for (int i = 0; i < tok->n_norms && !joined && status == MN_OK; i++)
      if (tok->norms[i].kind == NORM_REPLACE) status = reaches_over(&tok->norms[i], &m, s, n, at, &joined);
    if (!joined) *cut = at;
  }
  mn_matcher_close(&m);
  return status;
}
