/* unicode_table.h - the tables behind unicode.h. */
#ifndef MN_UNICODE_TABLE_H
#define MN_UNICODE_TABLE_H

#include <stddef.h>
#include <stdint.h>

typedef struct mn_script_range {
  uint32_t first, last;
  uint8_t script;
} mn_script_range;

extern const uint32_t mn_unicode_ranges[]; /* first code point << 5 | mn_category */
extern const int mn_unicode_n_ranges;
extern const char *const mn_unicode_scripts[]; /* ends with NULL */
extern const mn_script_range mn_unicode_script_ranges[];
extern const int mn_unicode_n_script_ranges;
/* Marks that the reference's StripAccents, and BERT's, do not know yet and keep. */
extern const uint32_t mn_unicode_later_accents[][2], mn_unicode_later_nonspacing[][2];
extern const int mn_unicode_n_later_accents, mn_unicode_n_later_nonspacing;

#endif
