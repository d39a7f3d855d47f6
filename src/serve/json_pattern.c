/* json_pattern.c - see json_pattern.h. A pattern becomes an automaton over characters (Thompson 1968, "Regular Expression Search Algorithm"); it
 * and a counter of characters become nodes of the grammar, those alone from which the string can still be ended. */
#include "serve/json_pattern.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_STATES = 8192, MOST_PLACES = 1 << 16, MOST_RANGES = 64, MOST_NESTED = 50, MOST_REPEATS = 1000, LAST = 0x10FFFF, NONE = -1 };

/* ---- sets of characters ---- */
typedef struct char_set { /* sorted and apart once tidied */
  uint32_t first[MOST_RANGES], last[MOST_RANGES];
  int n;
} char_set;

typedef enum kind { STEP, SPLIT, CHARACTER, AT_BEGIN, AT_END, ACCEPT } kind;
typedef struct nfa_state {
  kind kind;
  int32_t set, a, b; /* what a CHARACTER may be; where it goes on, and of a SPLIT where else */
} nfa_state;

typedef struct reader {
  const char *s;
  nfa_state *states;
  char_set *sets;
  int32_t n, n_sets, cap_sets;
  int depth;
  const char *why; /* it failed */
} reader;

static int32_t fail(reader *r, const char *why) {
  if (!r->why) r->why = why;
  return 0;
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
  if (n < least || c > LAST) fail(r, "has a pattern with an escape that is no character");
  return c;
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
    if (e != low) invert(r, &own, ' ', '~');
    for (int i = 0; i < own.n; i++) add_range(r, s, own.first[i], own.last[i]);
    return true;
  }
  if (name) *c = (unsigned char)means[name - names];
  else if (e == 'x') *c = take_hex(r, 2, 2);
  else if (e == 'u' && *r->s == '{') {
    r->s++;
    *c = take_hex(r, 1, 6);
    if (*r->s++ != '}') fail(r, "has a pattern with an escape that is no character"), r->s--;
  } else if (e == 'u') *c = take_hex(r, 4, 4);
  else if (e && !(low >= 'a' && low <= 'z') && !(e >= '1' && e <= '9') && (unsigned char)e < 0x80) *c = (unsigned char)e;
  else {
    fail(r, "has a pattern with an escape that is not known here: \\d \\w \\s \\D \\W \\S, \\t \\n \\r \\f \\v, \\x, \\u and signs are");
    *c = 0;
  }
  return false;
}

static void take_class(reader *r, char_set *s) { /* behind the '[' */
  const bool negative = *r->s == '^';
  bool named = false;
  r->s += negative;
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
  if (negative) invert(r, s, named ? ' ' : 0, named ? '~' : LAST);
}

/* ---- the automaton ---- */
typedef struct fragment {
  int32_t begin, end; /* the end is a STEP that leads nowhere yet */
} fragment;

static int32_t state(reader *r, kind is, int32_t a, int32_t b) {
  if (r->n == MOST_STATES) return fail(r, "has a pattern that repeats too much: the grammar would explode");
  r->states[r->n] = (nfa_state){is, NONE, a, b};
  return r->n++;
}
static void lead(reader *r, int32_t from, int32_t to) {
  if (!r->why) r->states[from].a = to;
}

static fragment character(reader *r, const char_set *s) {
  const int32_t end = state(r, STEP, NONE, NONE), begin = state(r, CHARACTER, end, NONE);
  if (r->n_sets == r->cap_sets && !r->why) {
    const int32_t cap = r->cap_sets ? 2 * r->cap_sets : 16;
    char_set *more = mn_realloc(r->sets, (size_t)cap * sizeof *more);
    if (more) r->sets = more, r->cap_sets = cap;
    else fail(r, "needs more memory than there is");
  }
  if (r->why) return (fragment){0, 0};
  int32_t i = 0; /* equal ones are one */
  while (i < r->n_sets && (r->sets[i].n != s->n || memcmp(r->sets[i].first, s->first, (size_t)s->n * sizeof *s->first) != 0 ||
                           memcmp(r->sets[i].last, s->last, (size_t)s->n * sizeof *s->last) != 0))
    i++;
  if (i == r->n_sets) r->sets[r->n_sets++] = *s;
  r->states[begin].set = i;
  return (fragment){begin, end};
}

static fragment alternatives(reader *r);

static fragment group(reader *r) { /* behind the '(' */
  if (!strncmp(r->s, "?:", 2)) r->s += 2;
  else if (!strncmp(r->s, "?<", 2) && r->s[2] != '=' && r->s[2] != '!') {
    while (*r->s && *r->s != '>') r->s++;
    r->s += *r->s == '>';
  } else if (*r->s == '?') fail(r, "has a pattern that looks around itself, which no grammar can");
  if (++r->depth > MOST_NESTED) fail(r, "has a pattern nested more than 50 deep");
  const fragment inside = r->why ? (fragment){0, 0} : alternatives(r);
  r->depth--;
  if (*r->s == ')') r->s++;
  else fail(r, "has a pattern with a ( that has no )");
  return inside;
}

static fragment atom(reader *r) {
  char_set s = {.n = 0};
  uint32_t c = 0;
  if (*r->s == '(') {
    r->s++;
    return group(r);
  }
  if (*r->s == '^' || *r->s == '$') {
    const int32_t end = state(r, STEP, NONE, NONE);
    return (fragment){state(r, *r->s++ == '^' ? AT_BEGIN : AT_END, end, NONE), end};
  }
  if (strchr("*+?", *r->s)) fail(r, "has a pattern with nothing to repeat");
  if (*r->s == '[') r->s++, take_class(r, &s);
  else if (*r->s == '.') { /* all but the ends of lines */ r->s++;
    add_range(r, &s, '\n', '\n'), add_range(r, &s, '\r', '\r'), add_range(r, &s, 0x2028, 0x2029);
    invert(r, &s, 0, LAST);
  } else if (*r->s == '\\') {
    r->s++;
    if (!take_escape(r, &s, &c)) add_range(r, &s, c, c);
  } else c = take_utf8(r), add_range(r, &s, c, c);
  tidy(&s);
  return character(r, &s);
}

static bool take_number(reader *r, int *out) {
  const char *begin = r->s;
  for (*out = 0; *r->s >= '0' && *r->s <= '9'; r->s++) *out = *out <= MOST_REPEATS ? *out * 10 + (*r->s - '0') : *out;
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

/* An atom as often as what follows it says: it is read once for each time. */
static fragment repeated(reader *r) {
  const char *begin = r->s;
  int min, max;
  fragment x = atom(r);
  if (r->why || !take_repeat(r, &min, &max)) return x;
  const char *behind = r->s;
  const int32_t end = state(r, STEP, NONE, NONE), start = state(r, STEP, NONE, NONE);
  const int times = max < 0 ? (min ? min : 1) : max;
  int32_t at = start;
  for (int i = 0; i < times && !r->why; i++) {
    if (i) r->s = begin, x = atom(r);
    const int32_t first = i >= min ? state(r, SPLIT, x.begin, end) : x.begin;
    lead(r, at, first);
    at = x.end;
    if (max < 0 && i + 1 == times) { /* and again */
      const int32_t again = state(r, SPLIT, x.begin, end);
      lead(r, at, again);
      at = NONE;
    }
  }
  if (at != NONE) lead(r, at, end);
  r->s = behind;
  return (fragment){start, end};
}

static fragment sequence(reader *r) {
  const int32_t begin = state(r, STEP, NONE, NONE);
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
    const int32_t end = state(r, STEP, NONE, NONE);
    lead(r, all.end, end), lead(r, x.end, end);
    all = (fragment){state(r, SPLIT, all.begin, x.begin), end};
  }
  return all;
}

/* Found anywhere: any characters, the pattern, any characters. */
static int32_t whole(reader *r) {
  char_set any = {.first = {0}, .last = {LAST}, .n = 1};
  const fragment before = character(r, &any), x = alternatives(r), after = character(r, &any);
  if (*r->s == ')') fail(r, "has a pattern with a ) without a (");
  const int32_t accept = state(r, ACCEPT, NONE, NONE), begin = state(r, SPLIT, before.begin, x.begin);
  const int32_t behind = state(r, SPLIT, after.begin, accept);
  lead(r, before.end, begin), lead(r, x.end, behind), lead(r, after.end, behind);
  return begin;
}

/* ---- with a counter ---- */
typedef struct edge {
  int32_t set, to; /* a place */
} edge;

typedef struct product { /* places: a state, and how many characters were before, up to a bound. The first is where none was */
  reader *r;
  int64_t least, most, counts;
  int32_t *place_of, *where; /* [states * counts], or NONE; of a place what it is */
  int32_t n;
  edge *edges;
  int32_t n_edges, cap_edges, *first; /* of a place its first edge; and one more */
  bool *accepts, *lives;
  int32_t *seen, *stack, n_stack, round; /* [2 * states], [4 * states]: states, and those behind a $ */
} product;

static int32_t place(product *p, int32_t state, int64_t count) {
  int32_t *at = &p->place_of[(int64_t)state * p->counts + count];
  if (*at == NONE) {
    if (p->n == MOST_PLACES) return fail(p->r, "has a pattern and a length that multiply: the grammar would explode");
    p->where[p->n] = (int32_t)(at - p->place_of);
    *at = p->n++;
  }
  return *at;
}

static void add_edge(product *p, int32_t set, int32_t to) {
  if (p->n_edges == MN_GRAMMAR_NODES) { /* each is a node, and more */
    fail(p->r, "has a pattern and a length that multiply: the grammar would explode");
    return;
  }
  if (p->n_edges == p->cap_edges) {
    const int32_t cap = p->cap_edges ? 2 * p->cap_edges : 256;
    edge *more = mn_realloc(p->edges, (size_t)cap * sizeof *more);
    if (!more) {
      fail(p->r, "needs more memory than there is");
      return;
    }
    p->edges = more, p->cap_edges = cap;
  }
  p->edges[p->n_edges++] = (edge){set, to};
}

static void reach(product *p, int32_t state, bool ended) {
  const int32_t i = state * 2 + ended;
  if (state < 0 || p->seen[i] == p->round) return;
  p->seen[i] = p->round;
  p->stack[p->n_stack++] = i;
}

/* The edges of a place: what is reached from its state without a character. Behind a $ nothing but the end counts. */
static void leave(product *p, int32_t here, int32_t state, int64_t count, bool none) {
  const int64_t more = count + 1 < p->counts ? count + 1 : p->most < 0 ? p->counts - 1 : NONE;
  p->first[here] = p->n_edges;
  p->round++;
  reach(p, state, false);
  while (p->n_stack && !p->r->why) {
    const int32_t i = p->stack[--p->n_stack];
    const nfa_state *s = &p->r->states[i / 2];
    const bool ended = i % 2;
    if (s->kind == ACCEPT) p->accepts[here] = p->accepts[here] || count >= p->least;
    else if (s->kind != CHARACTER && (s->kind != AT_BEGIN || none)) reach(p, s->a, ended || s->kind == AT_END);
    else if (s->kind == CHARACTER && !ended && more != NONE) add_edge(p, s->set, place(p, s->a, more));
    if (s->kind == SPLIT) reach(p, s->b, ended);
  }
}

static bool open_product(product *p) {
  const int64_t states = p->r->n, all = states * p->counts;
  if (all > 1 << 22) return fail(p->r, "has a pattern and a length that multiply: the grammar would explode"), false;
  p->place_of = mn_alloc((size_t)all * sizeof *p->place_of);
  p->where = mn_alloc(MOST_PLACES * sizeof *p->where);
  p->first = mn_alloc((MOST_PLACES + 1) * sizeof *p->first);
  p->accepts = mn_calloc(MOST_PLACES, sizeof *p->accepts), p->lives = mn_calloc(MOST_PLACES, sizeof *p->lives);
  p->seen = mn_calloc((size_t)states * 2, sizeof *p->seen), p->stack = mn_alloc((size_t)states * 2 * sizeof *p->stack);
  if (!p->place_of || !p->where || !p->first || !p->accepts || !p->lives || !p->seen || !p->stack)
    return fail(p->r, "needs more memory than there is"), false;
  for (int64_t i = 0; i < all; i++) p->place_of[i] = NONE;
  return true;
}

static void close_product(product *p) {
  free(p->place_of), free(p->where), free(p->first), free(p->accepts), free(p->lives), free(p->seen), free(p->stack), free(p->edges);
}

/* Which places can still come to an end: from the ends backwards, each edge once. */
static void find_living(product *p, const bool *says) {
  int32_t *first = mn_calloc((size_t)p->n + 1, sizeof *first), *before = mn_alloc(((size_t)p->n_edges + 1) * sizeof *before);
  int32_t *stack = mn_alloc((size_t)p->n * sizeof *stack), n = 0;
  const bool room = first && before && stack;
  if (!room) fail(p->r, "needs more memory than there is");
  for (int32_t k = 0; room && k < p->n_edges; k++) first[p->edges[k].to]++;
  for (int32_t i = 0, sum = 0; room && i <= p->n; i++) sum += first[i], first[i] = sum; /* where each ends, for now */
  for (int32_t i = 0; room && i < p->n; i++) {
    for (int32_t k = p->first[i]; k < p->first[i + 1]; k++) before[--first[p->edges[k].to]] = says[p->edges[k].set] ? i : NONE;
    if (p->accepts[i]) p->lives[i] = true, stack[n++] = i;
  }
  while (room && n) {
    const int32_t at = stack[--n];
    for (int32_t k = first[at]; k < first[at + 1]; k++)
      if (before[k] != NONE && !p->lives[before[k]]) p->lives[before[k]] = true, stack[n++] = before[k];
  }
  free(first), free(before), free(stack);
}

/* All places, and which of them can still come to an end. */
static void fill(product *p, int32_t begin, const bool *says) {
  p->n = 1;
  leave(p, 0, begin, 0, true);
  for (int32_t i = 1; i < p->n && !p->r->why; i++) leave(p, i, (int32_t)(p->where[i] / p->counts), p->where[i] % p->counts, false);
  p->first[p->n] = p->n_edges;
  if (!p->r->why) find_living(p, says);
}

/* ---- as nodes ---- */
static mn_bytes_node add(mn_grammar *g, mn_bytes_node all, mn_bytes_node one) {
  return all == MN_NO_NODE ? one : mn_grammar_either(g, all, one);
}

/* Bytes from low to high, continuation bytes behind the first. */
static mn_bytes_node bytes_between(mn_grammar *g, const uint8_t *low, const uint8_t *high, int n, mn_bytes_node next) {
  static const uint8_t least[4] = {0x80, 0x80, 0x80, 0x80}, most[4] = {0xbf, 0xbf, 0xbf, 0xbf};
  if (!n) return next;
  if (*low == *high) return mn_grammar_range(g, *low, *low, bytes_between(g, low + 1, high + 1, n - 1, next));
  mn_bytes_node out = mn_grammar_range(g, *low, *low, bytes_between(g, low + 1, most, n - 1, next));
  if (*high - *low > 1) out = add(g, out, mn_grammar_range(g, *low + 1, *high - 1, bytes_between(g, least, most, n - 1, next)));
  return add(g, out, mn_grammar_range(g, *high, *high, bytes_between(g, least, high + 1, n - 1, next)));
}

static int utf8(uint32_t c, uint8_t out[4]) {
  const int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  for (int i = n - 1; i > 0; i--, c >>= 6) out[i] = (uint8_t)(0x80 | (c & 0x3f));
  out[0] = (uint8_t)(n == 1 ? c : (0xf0 << (4 - n) & 0xff) | c);
  return n;
}

/* Characters of [first, last] as JSON writes them: those that need no escape, and those that have a short one. */
static mn_bytes_node characters_of(mn_grammar *g, uint32_t first, uint32_t last, mn_bytes_node all, mn_bytes_node next) {
  static const uint32_t plain[][2] = {{0x20, 0x21},    {0x23, 0x5b},     {0x5d, 0x7e},   {0x80, 0x7ff},
                                      {0x800, 0xd7ff}, {0xe000, 0xffff}, {0x10000, LAST}};
  static const char escaped[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
  for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
    const uint32_t from = first > plain[i][0] ? first : plain[i][0], to = last < plain[i][1] ? last : plain[i][1];
    uint8_t low[4], high[4];
    if (from > to) continue;
    const int n = utf8(from, low);
    utf8(to, high);
    all = add(g, all, bytes_between(g, low, high, n, next));
  }
  for (int i = 0; escaped[i]; i++)
    if ((uint32_t)escaped[i] >= first && (uint32_t)escaped[i] <= last) {
      const char text[] = {'\\', letters[i]};
      all = add(g, all, mn_grammar_text(g, text, 2, next));
    }
  return all;
}

static mn_bytes_node set_of(mn_grammar *g, const char_set *s, mn_bytes_node next) {
  mn_bytes_node all = MN_NO_NODE;
  for (int i = 0; i < s->n; i++) all = characters_of(g, s->first[i], s->last[i], all, next);
  return all;
}

static mn_bytes_node nodes_of(product *p, mn_grammar *g, const int32_t *rules, mn_bytes_node next) {
  mn_bytes_node *places = mn_alloc((size_t)p->n * sizeof *places);
  const mn_bytes_node end = mn_grammar_text(g, "\"", 1, next);
  if (!places) return fail(p->r, "needs more memory than there is"), MN_NO_NODE;
  for (int32_t i = 0; i < p->n; i++) places[i] = p->lives[i] ? mn_grammar_place(g) : MN_NO_NODE;
  for (int32_t i = 0; i < p->n && mn_grammar_nodes(g) < MN_GRAMMAR_NODES; i++) {
    mn_bytes_node all = p->lives[i] && p->accepts[i] ? end : MN_NO_NODE;
    for (int32_t k = p->first[i]; p->lives[i] && k < p->first[i + 1]; k++)
      if (rules[p->edges[k].set] >= 0 && p->lives[p->edges[k].to])
        all = add(g, all, mn_grammar_call(g, rules[p->edges[k].set], places[p->edges[k].to]));
    if (p->lives[i]) mn_grammar_put(g, places[i], all);
  }
  const mn_bytes_node out = places[0];
  free(places);
  return mn_grammar_text(g, "\"", 1, out);
}

static mn_bytes_node emit(product *p, mn_grammar *g, int32_t begin, mn_bytes_node next) {
  int32_t *rules = mn_alloc((size_t)p->r->n_sets * sizeof *rules);
  bool *says = mn_calloc((size_t)p->r->n_sets, sizeof *says);
  mn_bytes_node out = MN_NO_NODE;
  for (int32_t i = 0; rules && says && i < p->r->n_sets; i++) {
    const mn_bytes_node one = set_of(g, &p->r->sets[i], mn_grammar_return(g));
    says[i] = one != MN_NO_NODE;
    rules[i] = says[i] ? mn_grammar_rule(g) : NONE;
    if (says[i]) mn_grammar_define(g, rules[i], one);
  }
  if (!rules || !says) fail(p->r, "needs more memory than there is");
  else if (open_product(p)) fill(p, begin, says);
  const bool room =
      mn_grammar_nodes(g) < MN_GRAMMAR_NODES; /* else sets are nothing as there are no nodes for them, which the grammar says */
  if (!p->r->why && !p->lives[0] && room) fail(p->r, "has a pattern that no string of its length has");
  if (!p->r->why) out = nodes_of(p, g, rules, next);
  close_product(p);
  free(rules), free(says);
  return out;
}

mn_bytes_node json_pattern(mn_grammar *g, const char *pattern, int64_t least, int64_t most, mn_bytes_node next, const char **why) {
  reader r = {.s = pattern, .states = mn_alloc(MOST_STATES * sizeof *r.states)};
  product p = {.r = &r, .least = least, .most = most, .counts = (most >= 0 ? most : least) + 1};
  mn_bytes_node out = MN_NO_NODE;
  if (!r.states) fail(&r, "needs more memory than there is");
  const int32_t begin = r.why ? 0 : whole(&r);
  if (!r.why) out = emit(&p, g, begin, next);
  free(r.states), free(r.sets);
  *why = r.why;
  return out;
}
