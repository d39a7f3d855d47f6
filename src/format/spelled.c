/* spelled.c - see spelled.h. */
#define _GNU_SOURCE
#include "format/spelled.h"

#include <string.h>

/* The length of "<|name|>" at the beginning of s[0..n), name of small letters, digits and '_'; 0: there is none. */
static size_t length_of(const char *s, size_t n) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789_";
  size_t k = 2;
  while (k < n && k < MN_SPELLED_NAME - 3 && s[k] && strchr(letters, s[k])) k++;
  return k > 2 && k + 1 < n && s[k] == '|' && s[k + 1] == '>' ? k + 2 : 0;
}

void mn_spelled_add(mn_spelled *s, const char *text, size_t n) {
  for (const char *at = text, *end = text + n; (at = memmem(at, (size_t)(end - at), "<|", 2)); at += 2) {
    size_t length = length_of(at, (size_t)(end - at));
    if (!length) continue;
    if (!*s->name) memcpy(s->name, at, length); /* zeros follow */
    if (strlen(s->name) == length && memcmp(s->name, at, length) == 0) s->count++;
  }
}
