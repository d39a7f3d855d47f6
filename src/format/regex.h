/* regex.h - the regular expressions that tokenizers cut text with, matched by our own tables of characters (unicode.h), so that
 * the pieces do not depend on the libraries of a machine.
 *
 * The language is Oniguruma's Ruby syntax, which the reference uses: literals, classes (nested, &&, POSIX), \p{...} of general
 * categories and a few scripts, \s \d \w \h, alternation, groups, the greedy, lazy and possessive repeats, atomic groups, looking
 * ahead and (by a fixed width) behind, ^ $ \A \z \Z \b \B, (?i) and (?m). Back references, \G, \X, \R, (?x), conditions and
 * repeated groups that can be empty are refused by name. Matching is by backtracking, leftmost and first alternative first, with
 * a limit, so that no pattern runs for ever. */
#ifndef MN_REGEX_H
#define MN_REGEX_H

#include "base/base.h"

typedef struct mn_regex mn_regex;
/* `name` is for messages; `literal`: the text itself. MN_ERR_FORMAT for a wrong pattern, MN_ERR_UNSUPPORTED for one that is not
 * in this language, with the place. */
mn_status mn_regex_compile(const char *name, const char *pattern, size_t n, bool literal, mn_regex **out);
void mn_regex_free(mn_regex *re); /* may be NULL */
/* Does a match depend on what stands before it (^, \A, \b, looking behind)? */
bool mn_regex_looks_back(const mn_regex *re);

/* A matcher's working memory, one per thread. Zero-initialise. */
typedef struct mn_matcher {
  struct mn_regex_try *stack;
  size_t n, cap;
  bool failed;   /* out of memory, with its message: what was found does not count */
  bool touched;  /* did the last attempt look past the end of the text?                                             */
  size_t unsure; /* where the first attempt of the last search began that did: with more text the search might end otherwise */
} mn_matcher;
void mn_matcher_close(mn_matcher *m);
/* The next match in valid UTF-8 text[from..n): [*begin, *end), or [n, n) when there is none. An empty match is a place to cut;
 * at `from` it does not count. What runs into the limit is left uncut. */
void mn_matcher_next(mn_matcher *m, const mn_regex *re, const char *text, size_t n, size_t from, size_t *begin, size_t *end);

#endif
