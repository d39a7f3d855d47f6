/* unicode.h - what kind of character a code point is, from tables of our own: Unicode 16 as the reference tokenizers sort it
 * (their regular expressions' \p{...}, \s, \w). The tables of the installed libraries differ from machine to machine by thousands
 * of code points, and with them the tokens of a text would. */
#ifndef MN_UNICODE_H
#define MN_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum mn_category { /* general categories, in the order of mn_category_names */
                           MN_CAT_LU,
                           MN_CAT_LL,
                           MN_CAT_LT,
                           MN_CAT_LM,
                           MN_CAT_LO,
                           MN_CAT_MN,
                           MN_CAT_MC,
                           MN_CAT_ME,
                           MN_CAT_ND,
                           MN_CAT_NL,
                           MN_CAT_NO,
                           MN_CAT_PC,
                           MN_CAT_PD,
                           MN_CAT_PS,
                           MN_CAT_PE,
                           MN_CAT_PI,
                           MN_CAT_PF,
                           MN_CAT_PO,
                           MN_CAT_SM,
                           MN_CAT_SC,
                           MN_CAT_SK,
                           MN_CAT_SO,
                           MN_CAT_ZS,
                           MN_CAT_ZL,
                           MN_CAT_ZP,
                           MN_CAT_CC,
                           MN_CAT_CF,
                           MN_CAT_CO,
                           MN_CAT_CS,
                           MN_CAT_CN,
                           MN_CATEGORIES
} mn_category;

/* The categories of a name as a mask: "L", "Lu", "P", also the long names "Letter", "Punctuation" ...; 0: no such name. */
uint32_t mn_category_mask(const char *name, size_t n);
mn_category mn_unicode_category(uint32_t c); /* c < 0x110000 */
static inline bool mn_unicode_in(uint32_t c, uint32_t mask) { return mask >> mn_unicode_category(c) & 1; }

/* Classes that are more than categories. */
bool mn_unicode_space(uint32_t c); /* White_Space: \s */
bool mn_unicode_word(uint32_t c);  /* \w: letters, marks, decimal and letter numbers, connectors, circled letters, joiners */

bool mn_unicode_accent(uint32_t c);     /* what StripAccents takes away: marks, as of the reference's older tables */
bool mn_unicode_nonspacing(uint32_t c); /* what BERT's normaliser takes away */
uint32_t mn_unicode_lower(uint32_t c);  /* one character; U+0130 is left as it is */

/* Ranges, for sets of characters: calls add(ctx, first, last) for each. */
typedef void (*mn_range_fn)(void *ctx, uint32_t first, uint32_t last);
void mn_unicode_category_ranges(uint32_t mask, mn_range_fn add, void *ctx);
bool mn_unicode_script_ranges_of(const char *name, size_t n, mn_range_fn add, void *ctx); /* false: no script that is known here */

/* One code point of valid UTF-8 (n >= 1); *len its bytes. */
static inline uint32_t mn_utf8_next(const char *s, size_t n, size_t *len) {
  const unsigned char *p = (const unsigned char *)s;
  if (p[0] < 0x80 || n < 2) return *len = 1, p[0];
  if (p[0] < 0xE0) return *len = 2, (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
  if (n < 3) return *len = 1, p[0];
  if (p[0] < 0xF0) return *len = 3, (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
  if (n < 4) return *len = 1, p[0];
  return *len = 4, (p[0] & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
}
size_t mn_utf8_put(char out[4], uint32_t c);
/* Where the character before s[at] begins; at > 0. */
static inline size_t mn_utf8_before(const char *s, size_t at) {
  do at--;
  while (at > 0 && ((unsigned char)s[at] & 0xC0) == 0x80);
  return at;
}

#endif
