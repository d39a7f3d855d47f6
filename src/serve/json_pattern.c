/* json_pattern.c - see json_pattern.h. Of each pattern, and of what is looked ahead for, all states that can be reached together are one (Rabin
 * and Scott 1959, "Finite Automata and Their Decision Problems"): only so it is known where none ends, and a string goes one way alone. Where the
 * first pattern has too many such sets its states are followed one by one, as they are. They and a counter of characters become nodes of the
 * grammar, those alone from which the string can still be ended. */
#include "serve/json_pattern.h"

#include <stdlib.h>
#include <string.h>

#include "serve/json_regex.h"

enum {
  MOST_PLACES = 1 << 16,
  MOST_SUBSETS = 4096,
  MOST_MEMBERS = 1 << 20, /* of all subsets of a regex */
  MOST_SPLITS = 1 << 21,
  MOST_GROUPS = 64,
  WIDTH = MOST_REGEXES + 1,
  NONE = -1
};

typedef struct edge {
  int32_t set, to; /* a place */
} edge;

static int by_place(const void *a, const void *b) {
  const edge *x = a, *y = b;
  return x->to != y->to ? (x->to > y->to) - (x->to < y->to) : (x->set > y->set) - (x->set < y->set);
}

/* ---- keys by hashes ---- */
typedef struct table { /* keys[i] is what place or subset i is; slots are twice as many as there may be */
  int32_t *slots, cap;
} table;

static bool open_table(table *t, int32_t most) {
  t->cap = 2 * most;
  t->slots = mn_alloc((size_t)t->cap * sizeof *t->slots);
  for (int32_t i = 0; t->slots && i < t->cap; i++) t->slots[i] = NONE;
  return t->slots != NULL;
}

typedef struct subset { /* of a regex's states, sorted */
  int32_t first, n;
} subset;

typedef struct group { /* edges of a subset that want the same characters: targets [first, first + n) */
  int32_t set, first, n;
} group;

typedef struct together { /* the subsets of one regex that were reached */
  int32_t *states;        /* of all subsets, one behind the other */
  subset *all;
  int32_t n, n_states, cap_states;
  table of;
  edge *edges; /* of the subset that is looked at: [states of the regex], sorted by what they want */
  int32_t *targets, n_edges, n_groups;
  group groups[MOST_GROUPS];
  bool accepts; /* one of its states does */
} together;

typedef struct product { /* places: a state, subsets, and how many characters were before, up to a bound. The first is where none was */
  json_regex regexes[MOST_REGEXES];
  int n_regexes, width; /* of a key */
  char_sets sets;
  together sets_of[MOST_REGEXES];
  bool one_by_one;        /* the states of the first are followed as they are */
  const char *why;        /* it failed */
  bool for_good, nothing; /* another way would, too; as there is no such string */
  double *left;           /* comparisons that may still be made */
  int64_t least, most, counts;
  int32_t *keys; /* [places, width]: of a place the count, and for each regex the subset, or the state */
  table of;
  int32_t n, splits;
  edge *edges;
  int32_t n_edges, cap_edges, *first; /* of a place its first edge; and one more */
  bool *accepts, *lives;
  int32_t *seen, *stack, n_stack, round; /* [2 * states], [2 * states]: states, and those behind a $ */
} product;

static int32_t fail(product *p, const char *why) {
  if (!p->why) p->why = why;
  return 0;
}

static int32_t give_up(product *p, const char *why) {
  p->for_good = true;
  return fail(p, why);
}

static const char multiply[] = "has a pattern and a length that multiply: the grammar would explode";
static const char no_memory[] = "needs more memory than there is";
static const char too_long[] = "has patterns so long, or so many, that it would take too long";

static void spend(product *p, double comparisons) {
  if ((*p->left -= comparisons) < 0) give_up(p, too_long);
}

/* The number of a set, which is looked for among all. */
static int32_t number_of(product *p, const char_set *s) {
  spend(p, 4 + (double)p->sets.n / 2);
  return char_sets_add(&p->sets, s);
}

static int32_t place(product *p, const int32_t *key) {
  const size_t bytes = (size_t)p->width * sizeof *key;
  uint32_t at = (uint32_t)mn_hash_bytes(key, bytes, 1) & ((uint32_t)p->of.cap - 1);
  for (; p->of.slots[at] != NONE; at = (at + 1) & ((uint32_t)p->of.cap - 1))
    if (!memcmp(&p->keys[(size_t)p->of.slots[at] * (size_t)p->width], key, bytes)) return p->of.slots[at];
  if (p->n == MOST_PLACES) return fail(p, multiply);
  memcpy(&p->keys[(size_t)p->n * (size_t)p->width], key, bytes);
  p->of.slots[at] = p->n;
  return p->n++;
}

static void add_edge(product *p, int32_t set, int32_t to) {
  if (p->n_edges == MN_GRAMMAR_NODES) { /* each is a node, and more */
    fail(p, multiply);
    return;
  }
  if (p->n_edges == p->cap_edges) {
    const int32_t cap = p->cap_edges ? 2 * p->cap_edges : 256;
    edge *more = mn_realloc(p->edges, (size_t)cap * sizeof *more);
    if (!more) {
      give_up(p, no_memory);
      return;
    }
    p->edges = more, p->cap_edges = cap;
  }
  p->edges[p->n_edges++] = (edge){set, to};
}

/* ---- states that are reached without a character ---- */
static void reach(product *p, int32_t state, bool ended) {
  const int32_t i = state * 2 + ended;
  if (state < 0 || p->seen[i] == p->round) return;
  p->seen[i] = p->round;
  p->stack[p->n_stack++] = i;
}

/* Goes on from one of them; behind a $ nothing but the end counts. The CHARACTER that it is, or NULL. */
static const regex_state *follow(product *p, const json_regex *re, bool none, bool *accepts) {
  const int32_t i = p->stack[--p->n_stack];
  const regex_state *s = &re->states[i / 2];
  const bool ended = i % 2;
  if (s->kind == REGEX_ACCEPT) *accepts = true;
  else if (s->kind == REGEX_CHARACTER) return ended ? NULL : s;
  else if (s->kind != REGEX_AT_BEGIN || none) reach(p, s->a, ended || s->kind == REGEX_AT_END);
  if (s->kind == REGEX_SPLIT) reach(p, s->b, ended);
  return NULL;
}

/* ---- subsets ---- */
static int by_number(const void *a, const void *b) {
  return (*(const int32_t *)a > *(const int32_t *)b) - (*(const int32_t *)a < *(const int32_t *)b);
}

static const char too_many[] = "has patterns that must hold at once in too many ways: the grammar would explode";

/* The subset of these states, which are sorted here. */
static int32_t subset_of(product *p, together *t, int32_t *states, int32_t n) {
  int32_t k = 0;
  spend(p, 16 + 8.0 * n); /* it is sorted */
  qsort(states, (size_t)n, sizeof *states, by_number);
  for (int32_t i = 0; i < n; i++)
    if (!k || states[k - 1] != states[i]) states[k++] = states[i];
  uint32_t at = (uint32_t)mn_hash_bytes(states, (size_t)k * sizeof *states, 1) & ((uint32_t)t->of.cap - 1);
  for (; t->of.slots[at] != NONE; at = (at + 1) & ((uint32_t)t->of.cap - 1)) {
    const subset *s = &t->all[t->of.slots[at]];
    if (s->n == k && !memcmp(&t->states[s->first], states, (size_t)k * sizeof *states)) return t->of.slots[at];
  }
  if (t->n == MOST_SUBSETS || t->n_states + k > MOST_MEMBERS) return fail(p, too_many);
  if (t->n_states + k > t->cap_states) {
    const int32_t cap = 2 * (t->cap_states + k);
    int32_t *more = mn_realloc(t->states, (size_t)cap * sizeof *more);
    if (!more) return give_up(p, no_memory);
    t->states = more, t->cap_states = cap;
  }
  if (k) memcpy(&t->states[t->n_states], states, (size_t)k * sizeof *states);
  t->all[t->n] = (subset){t->n_states, k};
  t->n_states += k;
  t->of.slots[at] = t->n;
  return t->n++;
}

static int by_set(const void *a, const void *b) {
  const edge *x = a, *y = b;
  return x->set != y->set ? (x->set > y->set) - (x->set < y->set) : (x->to > y->to) - (x->to < y->to);
}

/* What a subset's characters are, and does it accept. */
static void look_at(product *p, together *t, const json_regex *re, int32_t number, bool none) {
  const subset s = t->all[number];
  t->n_edges = t->n_groups = 0, t->accepts = false;
  int32_t steps = 0;
  p->round++;
  for (int32_t i = 0; i < s.n; i++) reach(p, t->states[s.first + i], false);
  for (; p->n_stack; steps++) {
    const regex_state *c = follow(p, re, none, &t->accepts);
    if (c) t->edges[t->n_edges++] = (edge){c->set, c->a};
  }
  spend(p, 16 + 4.0 * steps + 8.0 * t->n_edges);
  qsort(t->edges, (size_t)t->n_edges, sizeof *t->edges, by_set);
  for (int32_t i = 0; i < t->n_edges && !p->why; i++) {
    t->targets[i] = t->edges[i].to;
    if (i && t->edges[i].set == t->edges[i - 1].set) t->groups[t->n_groups - 1].n++;
    else if (t->n_groups == MOST_GROUPS) fail(p, too_many);
    else t->groups[t->n_groups++] = (group){t->edges[i].set, i, 1};
  }
}

/* The subset behind those groups of edges. */
static int32_t behind(product *p, together *t, uint64_t groups) {
  int32_t *to = mn_alloc((size_t)(t->n_edges + 1) * sizeof *to), n = 0, out = 0;
  for (int32_t i = 0; to && i < t->n_groups; i++)
    if (groups >> i & 1) memcpy(&to[n], &t->targets[t->groups[i].first], (size_t)t->groups[i].n * sizeof *to), n += t->groups[i].n;
  if (to) out = subset_of(p, t, to, n);
  else give_up(p, no_memory);
  free(to);
  return out;
}

/* Of the characters of `set`, which `groups` of the k-th regex want, each part that leads elsewhere by its groups from the i-th on: an edge of the
 * product. */
static void split(product *p, int k, int32_t i, const char_set *set, uint64_t groups, const int32_t *key) {
  if (p->why || !set->n) return;
  if (k == p->n_regexes) {
    const int32_t number = number_of(p, set);
    if (number < 0) fail(p, "has patterns of too many classes that must hold at once");
    else add_edge(p, number, place(p, key));
    return;
  }
  together *t = &p->sets_of[k];
  if (i == t->n_groups) {
    int32_t next[WIDTH];
    if (!groups && !p->regexes[k].negative) return;
    memcpy(next, key, (size_t)p->width * sizeof *next);
    next[1 + k] = behind(p, t, groups);
    split(p, k + 1, 0, set, 0, next);
    return;
  }
  char_set part;
  spend(p, 8 + set->n + p->sets.all[t->groups[i].set].n);
  if (++p->splits > MOST_SPLITS) fail(p, too_many);
  if (!char_set_both(set, &p->sets.all[t->groups[i].set], &part)) fail(p, "has patterns of too many classes that must hold at once");
  const bool in_it = part.n > 0;
  split(p, k, i + 1, &part, groups | (uint64_t)1 << i, key);
  if (!in_it) split(p, k, i + 1, set, groups, key);
  else if (!char_set_less(set, &p->sets.all[t->groups[i].set], &part)) fail(p, "has patterns of too many classes that must hold at once");
  else split(p, k, i + 1, &part, groups, key);
}

/* ---- places ---- */
/* Edges of a place that lead to the same one are one, where its characters are a set. */
static void join(product *p, int32_t from) {
  int32_t n = from;
  spend(p, 8.0 * (p->n_edges - from));
  qsort(&p->edges[from], (size_t)(p->n_edges - from), sizeof *p->edges, by_place);
  for (int32_t i = from; i < p->n_edges && !p->why; i++) {
    edge *last = n > from ? &p->edges[n - 1] : NULL;
    char_set both;
    int32_t set = NONE;
    if (last && last->to == p->edges[i].to && char_set_either(&p->sets.all[last->set], &p->sets.all[p->edges[i].set], &both))
      set = number_of(p, &both);
    if (set != NONE) last->set = set;
    else p->edges[n++] = p->edges[i];
  }
  p->n_edges = n;
}

/* The edges of a place: what is reached from its states without a character. */
static void leave(product *p, int32_t here, bool none) {
  static const char_set any = {.first = {0}, .last = {LAST_CHARACTER}, .n = 1};
  int32_t key[WIDTH];
  bool accepts = true, of_first = !p->one_by_one;
  memcpy(key, &p->keys[(size_t)here * (size_t)p->width], (size_t)p->width * sizeof *key);
  const int64_t count = key[0], more = count + 1 < p->counts ? count + 1 : p->most < 0 ? p->counts - 1 : NONE;
  for (int k = p->one_by_one; k < p->n_regexes && !p->why; k++) {
    look_at(p, &p->sets_of[k], &p->regexes[k], key[1 + k], none);
    accepts = accepts && p->sets_of[k].accepts != p->regexes[k].negative;
  }
  p->first[here] = p->n_edges;
  key[0] = (int32_t)more;
  if (!p->one_by_one && more != NONE) split(p, 0, 0, &any, 0, key);
  p->round++;
  if (p->one_by_one) reach(p, key[1], false);
  while (p->n_stack) {
    spend(p, 4);
    const regex_state *s = follow(p, &p->regexes[0], none, &of_first);
    if (!s || more == NONE || p->why) continue;
    key[1] = s->a;
    const char_set set = p->sets.all[s->set];
    split(p, 1, 0, &set, 0, key);
  }
  if (!p->why) join(p, p->first[here]);
  p->accepts[here] = accepts && of_first && count >= p->least;
}

static bool open_product(product *p) {
  int32_t states = 1;
  for (int k = 0; k < p->n_regexes; k++) states = p->regexes[k].n > states ? p->regexes[k].n : states;
  p->width = p->n_regexes + 1;
  p->keys = mn_alloc((size_t)MOST_PLACES * (size_t)p->width * sizeof *p->keys);
  p->first = mn_alloc((MOST_PLACES + 1) * sizeof *p->first);
  p->accepts = mn_calloc(MOST_PLACES, sizeof *p->accepts), p->lives = mn_calloc(MOST_PLACES, sizeof *p->lives);
  p->seen = mn_calloc((size_t)states * 2, sizeof *p->seen), p->stack = mn_alloc((size_t)states * 2 * sizeof *p->stack);
  bool room = open_table(&p->of, MOST_PLACES) && p->keys && p->first && p->accepts && p->lives && p->seen && p->stack;
  for (int k = 0; room && k < p->n_regexes; k++) {
    together *t = &p->sets_of[k];
    const size_t n = (size_t)p->regexes[k].n * 2;
    t->all = mn_alloc(MOST_SUBSETS * sizeof *t->all), t->edges = mn_alloc(n * sizeof *t->edges),
    t->targets = mn_alloc(n * sizeof *t->targets);
    room = open_table(&t->of, MOST_SUBSETS) && t->all && t->edges && t->targets;
  }
  if (!room) give_up(p, no_memory);
  return room;
}

/* All is as it was when it was opened. */
static void begin_again(product *p) {
  memset(p->accepts, 0, MOST_PLACES * sizeof *p->accepts), memset(p->lives, 0, MOST_PLACES * sizeof *p->lives);
  for (int k = 0; k < p->n_regexes; k++) {
    together *t = &p->sets_of[k];
    t->n = t->n_states = 0;
    for (int32_t i = 0; i < t->of.cap; i++) t->of.slots[i] = NONE;
  }
  for (int32_t i = 0; i < p->of.cap; i++) p->of.slots[i] = NONE;
  p->n = p->n_edges = p->n_stack = p->splits = 0;
}

static void close_product(product *p) {
  free(p->keys), free(p->first), free(p->accepts), free(p->lives), free(p->seen), free(p->stack), free(p->edges), free(p->of.slots);
  for (int k = 0; k < p->n_regexes; k++) {
    together *t = &p->sets_of[k];
    free(t->of.slots), free(t->all), free(t->states), free(t->edges), free(t->targets);
  }
  json_regex_free(p->regexes, p->n_regexes, &p->sets);
}

/* Which places can still come to an end: from the ends backwards, each edge once. */
static void find_living(product *p, const bool *says) {
  int32_t *first = mn_calloc((size_t)p->n + 1, sizeof *first), *before = mn_alloc(((size_t)p->n_edges + 1) * sizeof *before);
  int32_t *stack = mn_alloc((size_t)p->n * sizeof *stack), n = 0;
  const bool room = first && before && stack;
  if (!room) give_up(p, no_memory);
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

/* All places. */
static bool fill_in_one_way(product *p) {
  int32_t key[WIDTH] = {0};
  for (int k = 0; k < p->n_regexes; k++) {
    int32_t begin = p->regexes[k].begin;
    key[1 + k] = k < p->one_by_one ? begin : subset_of(p, &p->sets_of[k], &begin, 1);
  }
  place(p, key);
  for (int32_t i = 0; i < p->n && !p->why; i++) leave(p, i, i == 0);
  p->first[p->n] = p->n_edges;
  return !p->why;
}

static bool fill(product *p) {
  if (fill_in_one_way(p)) return true;
  if (p->for_good) return false;
  p->why = NULL, p->one_by_one = true;
  begin_again(p);
  return fill_in_one_way(p);
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

enum { PLAINS = 7 };
static const uint32_t plain[PLAINS][2] = {
    {0x20, 0x21}, {0x23, 0x5b}, {0x5d, 0x7e}, {0x80, 0x7ff}, {0x800, 0xd7ff}, {0xe000, 0xffff}, {0x10000, LAST_CHARACTER}};
static const char escaped[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";

/* Characters of [first, last] as JSON writes them: those that need no escape, and those that have a short one. */
static mn_bytes_node characters_of(mn_grammar *g, uint32_t first, uint32_t last, mn_bytes_node all, mn_bytes_node next) {
  for (int i = 0; i < PLAINS; i++) {
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
  if (!places) return give_up(p, no_memory), MN_NO_NODE;
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

/* May strings of JSON, written without codes, have one of them? */
static bool can_be_said(const char_set *s) {
  for (int i = 0; i < s->n; i++)
    for (int k = 0; k < PLAINS; k++)
      if (s->first[i] <= plain[k][1] && s->last[i] >= plain[k][0]) return true;
  for (int i = 0; i < s->n; i++)
    for (int k = 0; escaped[k]; k++)
      if (s->first[i] <= (uint32_t)escaped[k] && s->last[i] >= (uint32_t)escaped[k]) return true;
  return false;
}

static mn_bytes_node emit(product *p, mn_grammar *g, mn_bytes_node next) {
  int32_t *rules = mn_alloc((size_t)p->sets.n * sizeof *rules);
  bool *says = mn_calloc((size_t)p->sets.n, sizeof *says), *used = mn_calloc((size_t)p->sets.n, sizeof *used);
  mn_bytes_node out = MN_NO_NODE;
  const bool room = rules && says && used;
  for (int32_t i = 0; room && i < p->sets.n; i++) says[i] = can_be_said(&p->sets.all[i]);
  if (!room) give_up(p, no_memory);
  else find_living(p, says);
  if (!p->why && !p->lives[0]) p->nothing = true, fail(p, "has a pattern that no string of its length has");
  for (int32_t i = 0; !p->why && i < p->n; i++)
    for (int32_t k = p->first[i]; p->lives[i] && k < p->first[i + 1]; k++) used[p->edges[k].set] |= p->lives[p->edges[k].to];
  for (int32_t i = 0; !p->why && i < p->sets.n; i++) {
    rules[i] = NONE;
    if (!used[i] || !says[i]) continue;
    const mn_bytes_node one = set_of(g, &p->sets.all[i], mn_grammar_return(g));
    if (one == MN_NO_NODE) continue; /* the grammar is full */
    rules[i] = mn_grammar_rule(g);
    mn_grammar_define(g, rules[i], one);
  }
  if (!p->why) out = nodes_of(p, g, rules, next);
  free(rules), free(says), free(used);
  return out;
}

mn_bytes_node json_pattern(mn_grammar *g, const char *const *patterns, int64_t least, int64_t most, mn_bytes_node next, double *left,
                           schema_why *why) {
  product *p = mn_calloc(1, sizeof *p);
  mn_bytes_node out = MN_NO_NODE;
  *why = (schema_why){.text = no_memory};
  if (!p) return MN_NO_NODE;
  p->left = left, p->least = least, p->most = most, p->counts = (most >= 0 ? most : least) + 1;
  bool good = true;
  for (int i = 0; patterns[i] && good; i++) good = json_regex_add(patterns[i], &p->sets, p->regexes, &p->n_regexes, left, &p->why);
  if (good && open_product(p) && fill(p)) out = emit(p, g, next);
  *why = (schema_why){p->why, p->nothing};
  close_product(p);
  free(p);
  return out;
}
