/* tokenizer_charsmap.c - SentencePiece's table of normalisations ("precompiled_charsmap"): the bytes of a double-array trie, then
 * strings, each ended by a zero. A value of the trie is where its string begins.
 *
 * A unit of the array: bits 0 ... 7 the label, bit 8 "a value hangs here", bit 9 and bits 10 ... 30 the offset to the children
 * (times 256 when bit 9 is set); a unit with bit 31 is a value. */
#include "format/tokenizer_internal.h"

#include <string.h>
#include <utf8proc.h>

mn_status mn_charsmap_read(const char *name, mn_arena *arena, const void *data, size_t n, mn_norm *out) {
  uint32_t size;
  if (n < 4) return mn_fail(MN_ERR_FORMAT, "%s: precompiled_charsmap has %zu bytes; its size alone takes 4", name, n);
  memcpy(&size, data, 4);
  if (size > n - 4 || size % 4 != 0 || size < 4)
    return mn_fail(MN_ERR_FORMAT, "%s: precompiled_charsmap: its trie is said to have %u bytes; it has %zu bytes in all", name, size, n);
  uint32_t *units = mn_arena_alloc(arena, size);
  char *strings = mn_arena_alloc(arena, n - 4 - size + 1); /* ends with a zero in any case */
  if (!units || !strings) return MN_ERR_MEMORY;
  memcpy(units, (const char *)data + 4, size);
  memcpy(strings, (const char *)data + 4 + size, n - 4 - size);
  *out = (mn_norm){.kind = NORM_CHARSMAP, .units = units, .n_units = size / 4, .strings = strings, .n_strings = n - 4 - size};
  return MN_OK;
}

static size_t offset_of(uint32_t unit) { return (size_t)(unit >> 10) << (unit >> 6 & 8); }

/* A string of the table that s begins with, the shortest or the longest: its bytes, *to what it becomes; 0: none. */
static size_t find(const mn_norm *norm, const char *s, size_t n, bool longest, const char **to) {
  size_t node = offset_of(norm->units[0]), found = 0;
  for (size_t i = 0; i < n; i++) {
    unsigned char byte = (unsigned char)s[i];
    node ^= byte;
    if (byte == 0 || node >= norm->n_units) break;
    uint32_t unit = norm->units[node];
    if ((unit & 0x800000FFu) != byte) break;
    node ^= offset_of(unit);
    if (!(unit >> 8 & 1)) continue;
    if (node >= norm->n_units) break;
    size_t at = norm->units[node] & 0x7FFFFFFFu;
    if (at > norm->n_strings) break;
    *to = norm->strings + at;
    found = i + 1;
    if (!longest) break;
  }
  return found;
}

/* As `tokenizers` does: a short grapheme as a whole, else each of its characters. */
static void by_grapheme(const mn_norm *norm, const char *s, size_t n, mn_text *out) {
  const char *to;
  if (n < 6 && find(norm, s, n, false, &to)) {
    mn_text_add(out, to);
    return;
  }
  for (size_t i = 0, len; i < n; i += len) {
    mn_utf8_next(s + i, n - i, &len);
    if (find(norm, s + i, len, false, &to)) mn_text_add(out, to);
    else mn_text_add_bytes(out, s + i, len);
  }
}

void mn_charsmap_run(const mn_norm *norm, const char *s, size_t n, mn_text *out) {
  if (!norm->by_grapheme) {
    for (size_t i = 0, len; i < n; i += len) {
      const char *to;
      len = find(norm, s + i, n - i, true, &to);
      if (len) {
        mn_text_add(out, to);
      } else {
        mn_utf8_next(s + i, n - i, &len);
        mn_text_add_bytes(out, s + i, len);
      }
    }
    return;
  }
  size_t begin = 0, len;
  utf8proc_int32_t state = 0;
  uint32_t before = 0;
  for (size_t i = 0; i < n; i += len) {
    uint32_t c = mn_utf8_next(s + i, n - i, &len);
    if (i && utf8proc_grapheme_break_stateful((utf8proc_int32_t)before, (utf8proc_int32_t)c, &state)) {
      by_grapheme(norm, s + begin, i - begin, out);
      begin = i;
    }
    before = c;
  }
  if (n) by_grapheme(norm, s + begin, n - begin, out);
}
