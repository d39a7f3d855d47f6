/* json_pattern.h - the `pattern` of a JSON schema as a part of a grammar: the strings, as JSON writes them, in which it is found.
 *
 * The language is ECMA-262's without what no finite automaton has, or what depends on tables of characters: literals, classes, \d \w \s and
 * their opposites, groups, alternation, repeats, ^ and $, and at the begin ^(?=...) and ^(?!...). Other look-around, references to groups, \b
 * and \p{...} are refused by name. Where readings differ (is an Arabic digit a \d?) only what fits all of them is made: classes by letter are
 * those of ASCII, and a class that excludes one of them holds nothing beyond ASCII. */
#ifndef MN_SERVE_JSON_PATTERN_H
#define MN_SERVE_JSON_PATTERN_H

#include "serve/json_rules.h"
#include "serve/schema_why.h"

/* A string of `least` to `most` characters (-1: any number), with its quotes, that each of the patterns (the list ends with NULL) is found in;
 * then next. MN_NO_NODE with *why: not in the language, no such string (nothing), or too many states. *left: comparisons that may still be made, of which
 * all that is done is taken; below 0 where they ran out. */
mn_bytes_node json_pattern(mn_grammar *g, const char *const *patterns, int64_t least, int64_t most, mn_bytes_node next, double *left,
                           schema_why *why);

#endif
