/* json_regex.h - patterns of JSON schemas as automata over characters (Thompson 1968, "Regular Expression Search Algorithm").
 *
 * A pattern may begin with what looks ahead from the string's begin, ^(?=...) and ^(?!...): each is an automaton of its own, and a string must
 * be of all of them, or not be of those that are negative. Where readings of classes by letter differ, a negative one forbids what any reading
 * would find. */
#ifndef MN_SERVE_JSON_REGEX_H
#define MN_SERVE_JSON_REGEX_H

#include "base/base.h"

enum { MOST_RANGES = 64, MOST_REGEXES = 6, LAST_CHARACTER = 0x10FFFF };

typedef struct char_set { /* sorted and apart */
  uint32_t first[MOST_RANGES], last[MOST_RANGES];
  int n;
} char_set;

typedef struct char_sets { /* each there once */
  char_set *all;
  int32_t n, cap;
} char_sets;
int32_t char_sets_add(char_sets *sets, const char_set *s); /* its number; -1: out of memory, or too many */
/* What both have; what the first has alone; what either has. False: of too many ranges. */
bool char_set_both(const char_set *a, const char_set *b, char_set *out);
bool char_set_less(const char_set *a, const char_set *b, char_set *out);
bool char_set_either(const char_set *a, const char_set *b, char_set *out);

typedef enum regex_kind { REGEX_STEP, REGEX_SPLIT, REGEX_CHARACTER, REGEX_AT_BEGIN, REGEX_AT_END, REGEX_ACCEPT } regex_kind;
typedef struct regex_state {
  regex_kind kind;
  int32_t set, a, b; /* what a CHARACTER may be; where it goes on, and of a SPLIT where else */
} regex_state;

typedef struct json_regex { /* of whole strings: those that the pattern is found in */
  regex_state *states;
  int32_t n, begin;
  bool negative; /* and of all others */
} json_regex;

/* One more pattern, and what it looks ahead for, behind the *n that are there. False, with *why: not in the language, or too long. *left:
 * comparisons that may still be made. */
bool json_regex_add(const char *pattern, char_sets *sets, json_regex out[MOST_REGEXES], int *n, double *left, const char **why);
void json_regex_free(json_regex all[MOST_REGEXES], int n, char_sets *sets);

#endif
