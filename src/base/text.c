/* text.c - a string that grows. */
#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(mn_text *t, size_t more) {
  size_t need;
  if (t->failed) return false;
  if (!mn_size_add(t->len, more, &need) || !mn_size_add(need, 1, &need)) {
    t->failed = true;
    return false;
  }
  if (need <= t->cap) return true;
  size_t cap = t->cap < 64 ? 64 : t->cap;
  while (cap < need) cap = cap > SIZE_MAX / 2 ? need : cap * 2;
  char *grown = mn_realloc(t->data, cap);
  if (!grown) {
    t->failed = true;
    return false;
  }
  t->data = grown;
  t->cap = cap;
  return true;
}

void mn_text_add_bytes(mn_text *t, const void *data, size_t n) {
  if (!reserve(t, n)) return;
  if (n) memcpy(t->data + t->len, data, n);
  t->len += n;
  t->data[t->len] = 0;
}

void mn_text_add(mn_text *t, const char *s) { mn_text_add_bytes(t, s, strlen(s)); }

void mn_text_addf(mn_text *t, const char *fmt, ...) {
  va_list ap, again;
  va_start(ap, fmt);
  va_copy(again, ap);
  int n = vsnprintf(NULL, 0, fmt, ap);
  va_end(ap);
  if (n < 0) t->failed = true;
  else if (reserve(t, (size_t)n)) {
    vsnprintf(t->data + t->len, (size_t)n + 1, fmt, again);
    t->len += (size_t)n;
  }
  va_end(again);
}

void mn_text_pad(mn_text *t, size_t column) {
  size_t start = t->len;
  while (start > 0 && t->data[start - 1] != '\n') start--;
  for (size_t at = t->len - start; at < column && !t->failed; at++) mn_text_add_bytes(t, " ", 1);
}

mn_status mn_text_status(const mn_text *t) {
  return t->failed ? mn_fail(MN_ERR_MEMORY, "out of memory while %zu bytes of text were put together", t->len) : MN_OK;
}

char *mn_text_take(mn_text *t) {
  char *s = NULL;
  if (mn_text_status(t) == MN_OK) {
    mn_text_add_bytes(t, "", 0); /* an empty text is "", not NULL */
    if (mn_text_status(t) == MN_OK) s = t->data, t->data = NULL;
  }
  mn_text_free(t);
  return s;
}

void mn_text_free(mn_text *t) {
  free(t->data);
  *t = (mn_text){0};
}

/* The bytes of the character at s[0..n), 0 when it is not valid UTF-8 (RFC 3629, table 3-7 of the Unicode standard). */
static size_t utf8_length(const unsigned char *s, size_t n) {
  if (s[0] < 0x80) return 1;
  size_t len = s[0] >= 0xC2 && s[0] <= 0xDF ? 2 : s[0] >= 0xE0 && s[0] <= 0xEF ? 3 : s[0] >= 0xF0 && s[0] <= 0xF4 ? 4 : 0;
  if (len == 0 || len > n) return 0;
  unsigned char low = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80;
  unsigned char high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF;
  if (s[1] < low || s[1] > high) return 0;
  for (size_t i = 2; i < len; i++)
    if (s[i] < 0x80 || s[i] > 0xBF) return 0;
  return len;
}

size_t mn_utf8_mark(const char *s, size_t n) { return n >= 3 && !memcmp(s, "\xEF\xBB\xBF", 3) ? 3 : 0; }

size_t mn_utf8_valid(const char *s, size_t n) {
  size_t at = 0;
  while (at < n) {
    size_t len = utf8_length((const unsigned char *)s + at, n - at);
    if (len == 0) break;
    at += len;
  }
  return at;
}

/* The code point of a character that a terminal would obey, or 0: C0, DEL, C1, and what turns the direction of writing. */
static unsigned obeyed(const unsigned char *s, size_t len) {
  unsigned c = len == 1 ? s[0] : len == 2 ? (s[0] & 0x1Fu) << 6 | (s[1] & 0x3Fu) : 0x100;
  if (len == 3) c = (s[0] & 0x0Fu) << 12 | (s[1] & 0x3Fu) << 6 | (s[2] & 0x3Fu);
  bool turns = c == 0x200E || c == 0x200F || (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || turns ? c : 0;
}

void mn_text_add_shown(mn_text *t, const char *s, size_t n, bool lines) {
  const unsigned char *p = (const unsigned char *)s;
  for (size_t at = 0, len; at < n; at += len) {
    len = utf8_length(p + at, n - at);
    unsigned c = len ? obeyed(p + at, len) : p[at];
    bool plain = len && !(c || p[at] == 0);
    if (!len) len = 1;
    if (plain || (lines && (p[at] == '\n' || p[at] == '\t'))) mn_text_add_bytes(t, s + at, len);
    else if (p[at] == '\n') mn_text_add(t, "\\n");
    else if (p[at] == '\t') mn_text_add(t, "\\t");
    else mn_text_addf(t, c < 0x100 ? "\\x%02x" : "\\u%04x", c);
  }
}

bool mn_utf8_plain(const char *s, size_t n) {
  const unsigned char *p = (const unsigned char *)s;
  for (size_t at = 0, len; at < n; at += len) {
    len = utf8_length(p + at, n - at);
    if (!len || !p[at] || obeyed(p + at, len)) return false;
  }
  return true;
}

void mn_text_add_utf8(mn_text *t, const char *s, size_t n) {
  while (n) {
    size_t valid = mn_utf8_valid(s, n);
    mn_text_add_bytes(t, s, valid);
    if (valid < n) {
      mn_text_add(t, "\xEF\xBF\xBD");
      valid++;
    }
    s += valid;
    n -= valid;
  }
}

const char *mn_printable(const char *s, char buf[MN_PRINTABLE]) {
  size_t n = strlen(s), at = 0, out = 0;
  while (at < n && out + 8 < MN_PRINTABLE) { /* room for one character, "..." and the zero byte */
    size_t len = utf8_length((const unsigned char *)s + at, n - at);
    unsigned char c = (unsigned char)s[at];
    if (len == 0 || c < 0x20 || c == 0x7F || (c == 0xC2 && (unsigned char)s[at + 1] < 0xA0)) {
      buf[out++] = '?';
      at += len ? len : 1;
    } else {
      memcpy(buf + out, s + at, len);
      out += len;
      at += len;
    }
  }
  strcpy(buf + out, at < n ? "..." : "");
  return buf;
}

bool mn_name_matches(const char *pattern, const char *name) {
  const char *star = NULL, *from = NULL; /* where the last * stood, and what it covers up to */
  while (*name) {
    if (*pattern == '*') star = pattern++, from = name;
    else if (*pattern == '?' || *pattern == *name) pattern++, name++;
    else if (star) pattern = star + 1, name = ++from;
    else return false;
  }
  while (*pattern == '*') pattern++;
  return !*pattern;
}
