/* text.h - a string that grows, for messages, tables and generated files; and what makes foreign bytes fit to print. */
#ifndef MN_TEXT_H
#define MN_TEXT_H

#include "base/base.h"

/* Zero-initialise it, append without checking each step, and check mn_text_status once (as with a graph). */
typedef struct mn_text {
  char *data; /* always ends with a zero byte; NULL while empty */
  size_t len, cap;
  bool failed; /* out of memory: appends do nothing from then on */
} mn_text;

void mn_text_add(mn_text *t, const char *s);
void mn_text_add_bytes(mn_text *t, const void *data, size_t n);
void mn_text_addf(mn_text *t, const char *fmt, ...) MN_PRINTF(2, 3);
void mn_text_pad(mn_text *t, size_t column); /* spaces until the last line is `column` bytes long */
mn_status mn_text_status(const mn_text *t);  /* MN_OK or MN_ERR_MEMORY with its message */
char *mn_text_take(mn_text *t);              /* the string (free() it), t is empty again; NULL on failure */
void mn_text_free(mn_text *t);

/* The length of the longest valid UTF-8 prefix of s[0..n), surrogates and overlong forms excluded: n when all is valid. */
size_t mn_utf8_valid(const char *s, size_t n);
/* Bytes of the byte order mark that some programs begin a text with: 3 or 0. It is no part of the text. */
size_t mn_utf8_mark(const char *s, size_t n);
/* Appends s[0..n) as a terminal may show it: control characters (C0, DEL, C1), bytes that are not UTF-8 and the marks that turn
 * the direction of writing become \x1b, \u202e; newlines and tabs stay when `lines`. */
void mn_text_add_shown(mn_text *t, const char *s, size_t n, bool lines);
bool mn_utf8_plain(const char *s, size_t n); /* nothing of that is in it: it may be shown as it is */
/* Appends s[0..n) with U+FFFD for what is not UTF-8. */
void mn_text_add_utf8(mn_text *t, const char *s, size_t n);
/* `s` cut to a message's size, with control characters and invalid UTF-8 as '?': for names that come from a file. */
enum { MN_PRINTABLE = 128 };
const char *mn_printable(const char *s, char buf[MN_PRINTABLE]);

/* Does the name fit the pattern? * stands for any signs, also none and dots, ? for one. */
bool mn_name_matches(const char *pattern, const char *name);

#endif
