/* regex.h - the regular expressions that tokenizers cut text with, matched by our own tables of characters (unicode.h), so that
 * the pieces do not depend on the libraries of a machine.
 *
 * The language is Oniguruma's Ruby syntax, which the reference uses: literals, classes (nested, &&, POSIX), \p{...} of general
 * categories and a few scripts, \s \d \w \h, alternation, groups, the greedy, lazy and possessive repeats, atomic groups, looking
 * ahead and (by a fixed width) behind, ^ $ \A \z \Z \b \B, (?i) and (?m). Back references, \G, \X, \R, (?x), conditions and
 * repeated groups that can be empty are refused by name. Matching is by backtracking, leftmost and first alternative first. A search
 * that gets long remembers what has failed where (regex_memo.c), so that nothing is tried twice: such patterns take time in
 * proportion to the text. What takes too much even so is an error that names pattern and byte, never another match. */
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
  struct mn_regex_memo *memo; /* of searches that got long; NULL: there was none yet                                 */
  bool remembers;             /* this search does                                                                    */
  bool careful;               /* remember from the first step on, not only in long searches                          */
  bool same_text;             /* set by the caller: text, n and re are those of the last search, which was sure        */
  bool touched;               /* did the last attempt look past the end of the text?                                 */
  size_t unsure;              /* where the first attempt of the last search began that did: with more text the search might end otherwise */
  /* of a search */
  mn_status status;
  uint64_t work, check; /* steps taken; at how many the next look at limits and at the stop flag is due */
  size_t from, attempt; /* where the search and its last attempt began */
} mn_matcher;
void mn_matcher_close(mn_matcher *m);
/* The next match in valid UTF-8 text[from..n): [*begin, *end), or [n, n) when there is none. An empty match is a place to cut;
 * at `from` it does not count. MN_ERR_UNSUPPORTED: the pattern takes too many steps or too much memory on this text;
 * MN_ERR_CANCELLED: interrupted (mn_stop_watch). */
mn_status mn_matcher_next(mn_matcher *m, const mn_regex *re, const char *text, size_t n, size_t from, size_t *begin, size_t *end);

#endif
