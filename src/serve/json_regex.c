/* json_regex.c - see json_regex.h. */
#include "serve/json_regex.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_STATES = 8192, MOST_SETS = 4096, MOST_NESTED = 50, MOST_REPEATS = 1000, MOST_DIGITS = 9, MOST_NAME = 64, NONE = -1 };

/* ---- sets of characters ---- */
typedef struct reader {
  const char *s;
  regex_state *states;
  char_sets *sets;
  int32_t n;
  int depth;
  double *left;    /* comparisons that may still be made */
  bool wide;       /* of a class that readings differ in: all that is in one of them */
  const char *why; /* it failed */
} reader;

static int32_t fail(reader *r, const char *why) {
  if (!r->why) r->why = why;
  return 0;
}

static void spend(reader *r, double comparisons) {
  if ((*r->left -= comparisons) < 0) fail(r, "has patterns so long, or so many, that it would take too long");
}

static void add_range(reader *r, char_set *s, uint32_t first, uint32_t last) {
  if (first > last) fail(r, "has a pattern with a class that runs backwards");
  else if (s->n == MOST_RANGES) fail(r, "has a pattern with a class of more than 64 ranges");
  else s->first[s->n] = first, s->last[s->n++] = last;
}

static void tidy(char_set *s) {
  for (int i = 1; i < s->n; i++)
    for (int k = i; k > 0 && s->first[k] < s->first[k - 1]; k--) {
      const uint32_t first = s->first[k], last = s->last[k];
      s->first[k] = s->first[k - 1], s->last[k] = s->last[k - 1], s->first[k - 1] = first, s->last[k - 1] = last;
    }
  int n = 0;
  for (int i = 0; i < s->n; i++) {
    if (n && s->first[i] <= s->last[n - 1] + 1) s->last[n - 1] = s->last[i] > s->last[n - 1] ? s->last[i] : s->last[n - 1];
    else s->first[n] = s->first[i], s->last[n++] = s->last[i];
  }
  s->n = n;
}

/* All others from `from` to `to`. */
static void invert(reader *r, char_set *s, uint32_t from, uint32_t to) {
  char_set out = {.n = 0};
  uint32_t next = from;
  tidy(s);
  for (int i = 0; i < s->n; i++) {
    if (s->first[i] > next && next <= to) add_range(r, &out, next, s->first[i] - 1 < to ? s->first[i] - 1 : to);
    if (s->last[i] + 1 > next) next = s->last[i] + 1;
  }
  if (next <= to) add_range(r, &out, next, to);
  *s = out;
}

/* Of two sorted sets; with: what both have, else what the first has alone. */
static bool pick(const char_set *a, const char_set *b, bool with, char_set *out) {
  int k = 0;
  out->n = 0;
  for (int i = 0; i < a->n; i++) {
    uint32_t from = a->first[i];
    const uint32_t last = a->last[i];
    while (k < b->n && b->last[k] < from) k++;
    for (int j = k; from <= last; j++) {
      const bool meets = j < b->n && b->first[j] <= last;
      const uint32_t begin = !meets ? last + 1 : b->first[j] > from ? b->first[j] : from;
      const uint32_t end = meets && b->last[j] < last ? b->last[j] : last;
      const bool some = with ? meets : begin > from;
      if (some && out->n == MOST_RANGES) return false;
      if (some) out->first[out->n] = with ? begin : from, out->last[out->n++] = with ? end : begin - 1;
      if (!meets) break;
      from = end + 1;
    }
  }
  return true;
}

bool char_set_both(const char_set *a, const char_set *b, char_set *out) { return pick(a, b, true, out); }
bool char_set_less(const char_set *a, const char_set *b, char_set *out) { return pick(a, b, false, out); }

bool char_set_either(const char_set *a, const char_set *b, char_set *out) {
  char_set rest;
  if (!char_set_less(b, a, &rest) || a->n + rest.n > MOST_RANGES) return false;
  *out = *a;
  for (int i = 0; i < rest.n; i++) out->first[out->n] = rest.first[i], out->last[out->n++] = rest.last[i];
  tidy(out);
  return true;
}

int32_t char_sets_add(char_sets *sets, const char_set *s) {
  for (int32_t i = 0; i < sets->n; i++)
    if (sets->all[i].n == s->n && !memcmp(sets->all[i].first, s->first, (size_t)s->n * sizeof *s->first) &&
        !memcmp(sets->all[i].last, s->last, (size_t)s->n * sizeof *s->last))
      return i;
  if (sets->n == MOST_SETS) return NONE;
  if (sets->n == sets->cap) {
    const int32_t cap = sets->cap ? 2 * sets->cap : 16;
    char_set *more = mn_realloc(sets->all, (size_t)cap * sizeof *more);
    if (!more) return NONE;
    sets->all = more, sets->cap = cap;
  }
  sets->all[sets->n] = *s;
  return sets->n++;
}

/* ---- characters and classes ---- */
static uint32_t take_utf8(reader *r) { /* the pattern is valid UTF-8 */
  const unsigned char *s = (const unsigned char *)r->s;
  const int n = *s < 0x80 ? 1 : *s < 0xe0 ? 2 : *s < 0xf0 ? 3 : 4;
  uint32_t c = n == 1 ? *s : *s & (0xff >> (n + 1));
  for (int i = 1; i < n && s[i]; i++) c = c << 6 | (s[i] & 0x3f), r->s++;
  r->s++;
  return c;
}

static uint32_t take_hex(reader *r, int least, int most) {
  uint32_t c = 0;
  int n = 0;
  for (; n < most; n++, r->s++) {
    const char x = *r->s, low = (char)(x | 32);
    if (x >= '0' && x <= '9') c = c << 4 | (uint32_t)(x - '0');
    else if (low >= 'a' && low <= 'f') c = c << 4 | (uint32_t)(low - 'a' + 10);
    else break;
  }
  if (n < least || c > LAST_CHARACTER) fail(r, "has a pattern with an escape that is no character");
  return c;
}

/* Behind \u: half of a pair takes the other half along, where that follows. */
static uint32_t take_code(reader *r) {
  const uint32_t c = take_hex(r, 4, 4);
  const bool pair =
      c >= 0xd800 && c < 0xdc00 && r->s[0] == '\\' && r->s[1] == 'u' && (r->s[2] | 32) == 'd' && r->s[3] && strchr("cdefCDEF", r->s[3]);
  if (!pair) return c;
  r->s += 2;
  return 0x10000 + ((c - 0xd800) << 10) + (take_hex(r, 4, 4) - 0xdc00);
}

/* Behind a backslash: a class by its letter, added to the set; or else *c. */
static bool take_escape(reader *r, char_set *s, uint32_t *c) {
  static const char names[] = "tnrfv0", means[] = "\t\n\r\f\v";
  const char e = *r->s, *name = e ? strchr(names, e) : NULL, low = (char)(e | 32);
  char_set own = {.n = 0};
  r->s += e != 0;
  if (e && (low == 'd' || low == 'w' || low == 's')) {
    if (low != 's') add_range(r, &own, '0', '9');
    if (low == 'w') add_range(r, &own, 'A', 'Z'), add_range(r, &own, 'a', 'z'), add_range(r, &own, '_', '_');
    if (low == 's') add_range(r, &own, '\t', '\r'), add_range(r, &own, ' ', ' ');
    if (e == 's' && r->wide) add_range(r, &own, 0x1c, 0x1f);
    if (e != low) invert(r, &own, r->wide ? 0 : ' ', r->wide ? 0x7f : '~');
    if (r->wide) add_range(r, &own, 0x80, LAST_CHARACTER);
    for (int i = 0; i < own.n; i++) add_range(r, s, own.first[i], own.last[i]);
    return true;
  }
  if (name) *c = (unsigned char)means[name - names];
  else if (e == 'x') *c = take_hex(r, 2, 2);
  else if (e == 'u' && *r->s == '{') {
    r->s++;
    *c = take_hex(r, 1, 6);
    if (*r->s++ != '}') fail(r, "has a pattern with an escape that is no character"), r->s--;
  } else if (e == 'u') *c = take_code(r);
  else if (e && !(low >= 'a' && low <= 'z') && !(e >= '1' && e <= '9') && (unsigned char)e < 0x80) *c = (unsigned char)e;
  else {
    fail(r, "has a pattern with an escape that is not known here: \\d \\w \\s \\D \\W \\S, \\t \\n \\r \\f \\v, \\x, \\u and signs are");
    *c = 0;
  }
  return false;
}

static void take_class(reader *r, char_set *s) { /* behind the '[' */
  const bool negative = *r->s == '^', wide = r->wide;
  bool named = false;
  r->s += negative;
  r->wide = wide && !negative; /* what is left of all is most where the class is least */
  while (*r->s && *r->s != ']' && !r->why) {
    uint32_t first = '\b', last;
    bool is_class = false;
    if (*r->s != '\\') first = take_utf8(r);
    else if (r->s[1] == 'b') r->s += 2;
    else r->s++, is_class = take_escape(r, s, &first);
    named = named || is_class;
    last = first;
    if (!is_class && *r->s == '-' && r->s[1] && r->s[1] != ']') {
      r->s++;
      if (*r->s != '\\') last = take_utf8(r);
      else if (r->s++, take_escape(r, s, &last)) fail(r, "has a pattern with a range to a class");
    }
    if (!is_class) add_range(r, s, first, last);
  }
  if (*r->s == ']') r->s++;
  else fail(r, "has a pattern with a class that has no ]");
  r->wide = wide;
  if (negative) invert(r, s, named && !wide ? ' ' : 0, named && !wide ? '~' : LAST_CHARACTER);
}

/* ---- the automaton ---- */
typedef struct fragment {
  int32_t begin, end; /* the end is a REGEX_STEP that leads nowhere yet */
} fragment;

static int32_t state(reader *r, regex_kind is, int32_t a, int32_t b) {
  if (r->n == MOST_STATES) return fail(r, "has a pattern that repeats too much: the grammar would explode");
  r->states[r->n] = (regex_state){is, NONE, a, b};
  return r->n++;
}
static void lead(reader *r, int32_t from, int32_t to) {
  if (!r->why) r->states[from].a = to;
}

static fragment character(reader *r, const char_set *s) {
  const int32_t end = state(r, REGEX_STEP, NONE, NONE), begin = state(r, REGEX_CHARACTER, end, NONE);
  spend(r, 2 + (double)r->sets->n / 2 + (double)s->n * s->n / 4); /* it is looked for, and was sorted */
  if (r->why) return (fragment){0, 0};
  if ((r->states[begin].set = char_sets_add(r->sets, s)) < 0) fail(r, "needs more memory than there is, or has too many classes");
  return (fragment){begin, end};
}

static fragment alternatives(reader *r);

static fragment group(reader *r) { /* behind the '(' */
  if (!strncmp(r->s, "?:", 2)) r->s += 2;
  else if (!strncmp(r->s, "?<", 2) && r->s[2] != '=' && r->s[2] != '!') {
    const char *name = r->s += 2;
    while (*r->s && *r->s != '>' && r->s - name < MOST_NAME) r->s++; /* it is read as often as the group is repeated */
    if (r->s == name || *r->s != '>') fail(r, "has a pattern with a group that has no name, or one of more than 64 bytes");
    r->s += *r->s == '>';
  } else if (*r->s == '?') fail(r, "has a pattern that looks around itself, which is known at its begin alone: ^(?=...) and ^(?!...)");
  if (++r->depth > MOST_NESTED) fail(r, "has a pattern nested more than 50 deep");
  const fragment inside = r->why ? (fragment){0, 0} : alternatives(r);
  r->depth--;
  if (*r->s == ')') r->s++;
  else fail(r, "has a pattern with a ( that has no )");
  return inside;
}

static bool take_number(reader *r, int *out) {
  const char *begin = r->s;
  for (*out = 0; *r->s >= '0' && *r->s <= '9'; r->s++) *out = *out <= MOST_REPEATS ? *out * 10 + (*r->s - '0') : *out;
  if (r->s - begin > MOST_DIGITS) *out = MOST_REPEATS + 1; /* zeros, which would be read as often as what is around them */
  return r->s > begin;
}

/* max -1: any number. False: none follows. */
static bool take_repeat(reader *r, int *min, int *max) {
  const char *begin = r->s;
  if (*r->s == '*') *min = 0, *max = -1, r->s++;
  else if (*r->s == '+') *min = 1, *max = -1, r->s++;
  else if (*r->s == '?') *min = 0, *max = 1, r->s++;
  else {
    if (*r->s != '{') return false;
    r->s++;
    bool good = take_number(r, min);
    *max = *min;
    if (good && *r->s == ',') {
      r->s++;
      if (!take_number(r, max)) *max = -1;
    }
    if (!good || *r->s != '}') return r->s = begin, false; /* the sign { itself */
    r->s++;
    if (*min > MOST_REPEATS || *max > MOST_REPEATS) fail(r, "has a pattern that repeats more than 1000 times");
    if (*max >= 0 && *max < *min) fail(r, "has a pattern with a repeat that runs backwards");
  }
  if (*r->s == '?') r->s++; /* which strings there are does not depend on who is greedy */
  return true;
}

static const char nothing[] = "has a pattern with nothing to repeat";

static fragment atom(reader *r) {
  char_set s = {.n = 0};
  uint32_t c = 0;
  int min, max;
  if (*r->s == '(') {
    r->s++;
    return group(r);
  }
  if (*r->s == '^' || *r->s == '$') {
    const bool ends = *r->s++ == '$';
    const int32_t end = state(r, REGEX_STEP, NONE, NONE), at = state(r, ends ? REGEX_AT_END : REGEX_AT_BEGIN, end, NONE);
    if (!ends || !r->wide) return (fragment){at, end};
    add_range(r, &s, '\n', '\n'); /* some find it before a last line's end, too */
    const fragment line = character(r, &s);
    lead(r, line.end, at);
    return (fragment){state(r, REGEX_SPLIT, line.begin, at), end};
  }
  if (take_repeat(r, &min, &max)) return fail(r, nothing), (fragment){0, 0};
  if (*r->s == '[') r->s++, take_class(r, &s);
  else if (*r->s == '.') { /* all but the ends of lines */ r->s++;
    add_range(r, &s, '\n', '\n');
    if (!r->wide) add_range(r, &s, '\r', '\r'), add_range(r, &s, 0x2028, 0x2029);
    invert(r, &s, 0, LAST_CHARACTER);
  } else if (*r->s == '\\') {
    r->s++;
    if (!take_escape(r, &s, &c)) add_range(r, &s, c, c);
  } else c = take_utf8(r), add_range(r, &s, c, c);
  tidy(&s);
  return character(r, &s);
}

/* An atom as often as what follows it says: it is read once for each time. */
static fragment repeated(reader *r) {
  const char *begin = r->s;
  int min, max;
  fragment x = atom(r);
  if (r->why || !take_repeat(r, &min, &max)) return x;
  if (*begin == '^' || *begin == '$') return fail(r, nothing), x;
  const char *behind = r->s;
  const int32_t end = state(r, REGEX_STEP, NONE, NONE), start = state(r, REGEX_STEP, NONE, NONE);
  const int times = max < 0 ? (min ? min : 1) : max;
  int32_t at = start;
  for (int i = 0; i < times && !r->why; i++) {
    if (i) r->s = begin, x = atom(r);
    const int32_t first = i >= min ? state(r, REGEX_SPLIT, x.begin, end) : x.begin;
    lead(r, at, first);
    at = x.end;
    if (max < 0 && i + 1 == times) { /* and again */
      const int32_t again = state(r, REGEX_SPLIT, x.begin, end);
      lead(r, at, again);
      at = NONE;
    }
  }
  if (at != NONE) lead(r, at, end);
  r->s = behind;
  return (fragment){start, end};
}

static fragment sequence(reader *r) {
  const int32_t begin = state(r, REGEX_STEP, NONE, NONE);
  int32_t at = begin;
  while (*r->s && *r->s != '|' && *r->s != ')' && !r->why) {
    const fragment x = repeated(r);
    lead(r, at, x.begin);
    at = x.end;
  }
  return (fragment){begin, at};
}

static fragment alternatives(reader *r) {
  fragment all = sequence(r);
  while (*r->s == '|' && !r->why) {
    r->s++;
    const fragment x = sequence(r);
    const int32_t end = state(r, REGEX_STEP, NONE, NONE);
    lead(r, all.end, end), lead(r, x.end, end);
    all = (fragment){state(r, REGEX_SPLIT, all.begin, x.begin), end};
  }
  return all;
}

/* ---- whole patterns ---- */
/* Before it, unless it stands at the begin, and behind it are any characters. */
static int32_t found(reader *r, fragment x, bool at_begin) {
  const char_set any = {.first = {0}, .last = {LAST_CHARACTER}, .n = 1};
  const fragment before = character(r, &any), after = character(r, &any);
  const int32_t accept = state(r, REGEX_ACCEPT, NONE, NONE), behind = state(r, REGEX_SPLIT, after.begin, accept);
  lead(r, x.end, behind), lead(r, after.end, behind);
  if (at_begin) return x.begin;
  const int32_t begin = state(r, REGEX_SPLIT, before.begin, x.begin);
  lead(r, before.end, begin);
  return begin;
}

static bool open_reader(reader *r) {
  r->n = 0;
  r->states = mn_alloc(MOST_STATES * sizeof *r->states);
  if (!r->states) fail(r, "needs more memory than there is");
  return r->states != NULL;
}

/* What was read becomes the automaton; false: it was refused. */
static bool close_reader(reader *r, int32_t begin, bool negative, json_regex *out) {
  regex_state *fit = r->why ? NULL : mn_realloc(r->states, (size_t)r->n * sizeof *fit);
  if (r->why) free(r->states);
  else *out = (json_regex){fit ? fit : r->states, r->n, begin, negative};
  return !r->why;
}

static json_regex *one_more(reader *r, json_regex out[MOST_REGEXES], int *n) {
  if (*n == MOST_REGEXES) return fail(r, "has patterns that look ahead more often than is known here"), NULL;
  out[*n] = (json_regex){.states = NULL};
  return &out[(*n)++];
}

static bool looks_ahead(const char *s) { return !strncmp(s, "(?=", 3) || !strncmp(s, "(?!", 3); }

bool json_regex_add(const char *pattern, char_sets *sets, json_regex out[MOST_REGEXES], int *n, double *left, const char **why) {
  const bool ahead = *pattern == '^' && looks_ahead(pattern + 1);
  reader r = {.s = pattern + ahead, .sets = sets, .left = left};
  json_regex *own = one_more(&r, out, n); /* what it looks ahead for comes behind it */
  while (ahead && !r.why && looks_ahead(r.s)) {
    json_regex *one = one_more(&r, out, n);
    const bool negative = r.s[2] == '!';
    if (!one || !open_reader(&r)) break;
    r.wide = negative, r.s += 3;
    const fragment x = alternatives(&r);
    if (*r.s == ')') r.s++;
    else fail(&r, "has a pattern with a ( that has no )");
    close_reader(&r, found(&r, x, true), negative, one);
  }
  r.wide = false;
  if (!r.why && open_reader(&r)) {
    const fragment x = ahead ? sequence(&r) : alternatives(&r);
    if (*r.s == ')') fail(&r, "has a pattern with a ) without a (");
    else if (*r.s) fail(&r, "has a pattern that looks around itself in one of several ways, which is not known here");
    close_reader(&r, found(&r, x, ahead), false, own);
  }
  *why = r.why;
  return !r.why;
}

void json_regex_free(json_regex all[MOST_REGEXES], int n, char_sets *sets) {
  for (int i = 0; i < n; i++) free(all[i].states);
  free(sets->all);
}
