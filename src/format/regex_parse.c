/* regex_parse.c - a pattern becomes a tree. Sets of characters are lists of ranges here, laid out for look-up at the end. */
#include "format/regex_internal.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { LAST = 0x10FFFF, MAX_DEPTH = 50, MAX_COUNT = 1000 };

/* ---- ranges ---- */

void mn_ranges_add(void *ranges, uint32_t first, uint32_t last) {
  mn_ranges *r = ranges;
  if (r->n == r->cap) {
    size_t cap = r->cap ? r->cap * 2 : 16;
    struct mn_range *at = mn_realloc(r->at, cap * sizeof *at);
    if (!at) {
      r->failed = true;
      return;
    }
    r->at = at;
    r->cap = cap;
  }
  r->at[r->n++] = (struct mn_range){first, last};
}

static int by_first(const void *a, const void *b) {
  const struct mn_range *x = a, *y = b;
  return (x->first > y->first) - (x->first < y->first);
}

void mn_ranges_tidy(mn_ranges *r) {
  size_t out = 0;
  if (r->n) qsort(r->at, r->n, sizeof *r->at, by_first);
  for (size_t i = 0; i < r->n; i++) {
    if (out && r->at[i].first <= r->at[out - 1].last + 1) {
      if (r->at[i].last > r->at[out - 1].last) r->at[out - 1].last = r->at[i].last;
    } else {
      r->at[out++] = r->at[i];
    }
  }
  r->n = out;
}

void mn_ranges_invert(mn_ranges *r) {
  mn_ranges_tidy(r);
  mn_ranges out = {.failed = r->failed};
  uint32_t next = 0;
  for (size_t i = 0; i < r->n; i++) {
    if (r->at[i].first > next) mn_ranges_add(&out, next, r->at[i].first - 1);
    next = r->at[i].last + 1;
  }
  if (next <= LAST) mn_ranges_add(&out, next, LAST);
  free(r->at);
  *r = out;
}

void mn_ranges_keep(mn_ranges *r, const mn_ranges *also) { /* A and B = not (not A or not B) */
  mn_ranges other = {.failed = also->failed};
  for (size_t i = 0; i < also->n; i++) mn_ranges_add(&other, also->at[i].first, also->at[i].last);
  mn_ranges_invert(&other);
  mn_ranges_invert(r);
  for (size_t i = 0; i < other.n; i++) mn_ranges_add(r, other.at[i].first, other.at[i].last);
  r->failed |= other.failed;
  mn_ranges_invert(r);
  mn_ranges_free(&other);
}

void mn_ranges_fold(mn_ranges *r) {
  enum { SMALL = 512 }; /* what is larger is a class, which holds both cases or is meant as it is */
  for (size_t i = 0, n = r->n; i < n; i++) {
    struct mn_range x = r->at[i];
    if (x.last - x.first >= SMALL) continue;
    for (uint32_t c = x.first; c <= x.last; c++) {
      uint32_t lower = (uint32_t)utf8proc_tolower(utf8proc_toupper((int32_t)c)), upper = (uint32_t)utf8proc_toupper((int32_t)c);
      if (lower != c) mn_ranges_add(r, lower, lower);
      if (upper != c) mn_ranges_add(r, upper, upper);
      if (lower == 's') mn_ranges_add(r, 0x17F, 0x17F);
      if (lower == 'k') mn_ranges_add(r, 0x212A, 0x212A);
    }
  }
  mn_ranges_tidy(r);
}

void mn_ranges_free(mn_ranges *r) {
  free(r->at);
  *r = (mn_ranges){0};
}

/* ---- the reader ---- */

typedef struct parser {
  const char *name, *pattern, *s, *end;
  mn_arena *arena;
  bool fold, dot_all; /* (?i), (?m) */
  int depth;
} parser;

static mn_status wrong(const parser *p, mn_status status, const char *why) {
  return mn_fail(status, "%s: the pattern of the pre-tokenizer is %s at byte %zu: %s", p->name,
                 status == MN_ERR_UNSUPPORTED ? "not supported" : "wrong", (size_t)(p->s - p->pattern), why);
}
#define WRONG(p, why)    wrong(p, MN_ERR_FORMAT, why)
#define NOT_HERE(p, why) wrong(p, MN_ERR_UNSUPPORTED, why)

static bool at_end(const parser *p) { return p->s >= p->end; }
static bool next_is(const parser *p, const char *text) {
  size_t n = strlen(text);
  return (size_t)(p->end - p->s) >= n && !memcmp(p->s, text, n);
}
static bool take(parser *p, const char *text) {
  if (!next_is(p, text)) return false;
  p->s += strlen(text);
  return true;
}
static uint32_t take_char(parser *p) {
  size_t len;
  uint32_t c = mn_utf8_next(p->s, (size_t)(p->end - p->s), &len);
  p->s += len;
  return c;
}

static mn_rnode *new_node(parser *p, mn_node_kind kind) {
  mn_rnode *x = mn_arena_alloc(p->arena, sizeof *x);
  if (x) x->kind = kind;
  return x;
}

/* Lays a set out for look-up, in the arena: blocks 0 and 1 of the bits are none and all. */
static mn_status set_node(parser *p, mn_ranges *r, mn_rnode **out) {
  mn_ranges_tidy(r);
  mn_set *set = mn_arena_alloc(p->arena, sizeof *set);
  *out = new_node(p, NODE_SET);
  if (!set || !*out || r->failed) return MN_ERR_MEMORY;
  (*out)->set = set;
  for (size_t i = 0; i < r->n; i++)
    for (uint32_t c = r->at[i].first; c <= r->at[i].last && c < 0x80; c++) set->ascii[c >> 6] |= 1ull << (c & 63);
  if (!r->n || r->at[r->n - 1].last < 0x80) return MN_OK;
  size_t blocks = 2; /* every range begins and ends at most one block that is neither none nor all */
  uint16_t *block = mn_arena_alloc(p->arena, 0x1100 * sizeof *block);
  uint64_t(*bits)[4] = mn_arena_alloc(p->arena, (2 * r->n + 2) * sizeof *bits);
  if (!block || !bits) return MN_ERR_MEMORY;
  memset(bits[1], 0xFF, sizeof bits[1]);
  for (size_t i = 0; i < r->n; i++)
    for (uint32_t b = r->at[i].first >> 8; b <= r->at[i].last >> 8; b++) {
      uint32_t first = b << 8 > r->at[i].first ? 0 : r->at[i].first & 255,
               last = (b << 8 | 255) < r->at[i].last ? 255 : r->at[i].last & 255;
      if (first == 0 && last == 255) {
        block[b] = 1;
        continue;
      }
      if (!block[b]) block[b] = (uint16_t)blocks++;
      for (uint32_t c = first; c <= last; c++) bits[block[b]][c >> 6] |= 1ull << (c & 63);
    }
  set->block = block;
  set->bits = (const uint64_t(*)[4])bits;
  return MN_OK;
}

static mn_status char_node(parser *p, uint32_t c, mn_rnode **out) {
  mn_ranges r = {0};
  mn_ranges_add(&r, c, c);
  if (p->fold) mn_ranges_fold(&r);
  mn_status status = set_node(p, &r, out);
  mn_ranges_free(&r);
  return status;
}

static mn_status take_hex(parser *p, int most, uint32_t *c) {
  int n = 0;
  for (*c = 0; n < most && !at_end(p); n++) {
    char x = *p->s;
    int digit = x >= '0' && x <= '9' ? x - '0' : (x | 32) >= 'a' && (x | 32) <= 'f' ? (x | 32) - 'a' + 10 : -1;
    if (digit < 0) break;
    *c = *c << 4 | (uint32_t)digit;
    p->s++;
  }
  return n && *c <= LAST ? MN_OK : WRONG(p, "a code point was expected");
}

/* A class by its letter or name, after the backslash; *is_class false: not one. */
static mn_status take_class(parser *p, mn_ranges *r, bool *is_class) {
  char kind = at_end(p) ? 0 : *p->s;
  mn_ranges own = {0};
  bool invert = kind == 'D' || kind == 'S' || kind == 'W' || kind == 'H' || kind == 'P';
  *is_class = true;
  if (kind == 'd' || kind == 'D') {
    mn_unicode_category_ranges(mn_category_mask("Nd", 2), mn_ranges_add, &own);
  } else if (kind == 's' || kind == 'S') {
    mn_unicode_category_ranges(mn_category_mask("Z", 1), mn_ranges_add, &own);
    mn_ranges_add(&own, '\t', '\r');
    mn_ranges_add(&own, 0x85, 0x85);
  } else if (kind == 'w' || kind == 'W') { /* Oniguruma counts six superscripts and fractions of Latin-1 in, joiners out */
    static const uint32_t more[][2] = {{0xB2, 0xB3},       {0xB9, 0xB9},       {0xBC, 0xBE},      {0x24B6, 0x24E9},
                                       {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};
    for (const char *const *k = (const char *const[]){"L", "M", "Nd", "Nl", "Pc", NULL}; *k; k++)
      mn_unicode_category_ranges(mn_category_mask(*k, strlen(*k)), mn_ranges_add, &own);
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) mn_ranges_add(&own, more[i][0], more[i][1]);
  } else if (kind == 'h' || kind == 'H') {
    mn_ranges_add(&own, '0', '9');
    mn_ranges_add(&own, 'a', 'f');
    mn_ranges_add(&own, 'A', 'F');
  } else if (kind == 'p' || kind == 'P') {
    const char *name = p->s + 1, *end;
    size_t n = 1;
    if (name < p->end && *name == '{') {
      name++;
      if (name < p->end && *name == '^') {
        invert = !invert;
        name++;
      }
      end = memchr(name, '}', (size_t)(p->end - name));
      if (!end) return WRONG(p, "\\p{ has no }");
      n = (size_t)(end - name);
      end++;
    } else {
      return WRONG(p, "\\p needs a name in braces");
    }
    uint32_t mask = mn_category_mask(name, n);
    if (mask) mn_unicode_category_ranges(mask, mn_ranges_add, &own);
    else if (!mn_unicode_script_ranges_of(name, n, mn_ranges_add, &own))
      return NOT_HERE(
          p,
          "\\p{...} of this name; general categories and the scripts Han, Hiragana, Katakana, Hangul, Latin, Greek, Cyrillic, Arabic, Hebrew, Thai and Devanagari are");
    p->s = end - 1;
  } else {
    *is_class = false;
    return MN_OK;
  }
  p->s++;
  if (invert) mn_ranges_invert(&own);
  for (size_t i = 0; i < own.n; i++) mn_ranges_add(r, own.at[i].first, own.at[i].last);
  r->failed |= own.failed;
  mn_ranges_free(&own);
  return MN_OK;
}

/* One character after a backslash. */
static mn_status take_escape(parser *p, bool in_class, uint32_t *c) {
  if (at_end(p)) return WRONG(p, "it ends with a backslash");
  if (*p->s == 'x') {
    p->s++;
    if (!take(p, "{")) return take_hex(p, 2, c);
    MN_TRY(take_hex(p, 8, c));
    return take(p, "}") ? MN_OK : WRONG(p, "\\x{ has no }");
  }
  if (*p->s == 'u') {
    p->s++;
    return take_hex(p, 4, c);
  }
  static const char names[] = "tnrfvae", means[] = "\t\n\r\f\v\a\x1B";
  const char *name = *p->s ? strchr(names, *p->s) : NULL;
  if (name || (in_class && *p->s == 'b')) {
    *c = name ? (uint32_t)means[name - names] : '\b';
    p->s++;
    return MN_OK;
  }
  if ((*p->s >= 'a' && *p->s <= 'z') || (*p->s >= 'A' && *p->s <= 'Z') || (*p->s >= '0' && *p->s <= '9'))
    return NOT_HERE(p, "this escape (back references, \\G, \\K, \\R, \\X, octal)");
  *c = take_char(p);
  return MN_OK;
}

static mn_status take_posix(parser *p, mn_ranges *r) { /* after [: */
  static const struct {
    const char *name, *categories;
  } names[] = {{"alpha:]", "L Nl"}, {"digit:]", "Nd"}, {"punct:]", "P S"}, {"upper:]", "Lu"}, {"lower:]", "Ll"},
               {"cntrl:]", "Cc"},   {"space:]", "Z"},  {"word:]", NULL},   {"xdigit:]", ""}};
  bool invert = take(p, "^");
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (!next_is(p, names[i].name)) continue;
    if (i == 0 || i == 3 || i == 4 || i == 7)
      return NOT_HERE(p, "this POSIX class; [:punct:], [:digit:], [:space:], [:cntrl:] and [:xdigit:] are");
    mn_ranges own = {0};
    bool is_class;
    if (i == 6 || i == 8) { /* like \s and \h */
      parser letter = *p;
      letter.s = i == 6 ? "s" : "h";
      letter.end = letter.s + 1;
      MN_TRY(take_class(&letter, &own, &is_class));
    }
    for (const char *k = names[i].categories; i != 6 && *k; k += strcspn(k, " "), k += *k == ' ')
      mn_unicode_category_ranges(mn_category_mask(k, strcspn(k, " ")), mn_ranges_add, &own);
    if (invert) mn_ranges_invert(&own);
    for (size_t k = 0; k < own.n; k++) mn_ranges_add(r, own.at[k].first, own.at[k].last);
    r->failed |= own.failed;
    mn_ranges_free(&own);
    p->s += strlen(names[i].name);
    return MN_OK;
  }
  return NOT_HERE(p, "this POSIX class; [:punct:], [:digit:], [:space:], [:cntrl:] and [:xdigit:] are");
}

static mn_status take_set(parser *p, mn_ranges *out) { /* after [ */
  if (++p->depth > MAX_DEPTH) return NOT_HERE(p, "classes nested this deep");
  bool invert = take(p, "^"), any = false;
  mn_ranges r = {0};
  mn_status status = MN_OK;
  while (status == MN_OK) {
    uint32_t c = 0;
    bool is_class = false;
    if (at_end(p)) {
      status = WRONG(p, "[ has no ]");
    } else if (*p->s == ']' && any) {
      p->s++;
      break;
    } else if (*p->s == ']') {
      status = WRONG(p, "an empty class; write \\] for the sign itself");
    } else if (take(p, "[:")) {
      status = take_posix(p, &r);
      is_class = true;
    } else if (take(p, "[")) {
      status = take_set(p, &r);
      is_class = true;
    } else if (take(p, "&&")) { /* what is left of the class, up to its ] */
      mn_ranges right = {0};
      parser rest = *p;
      status = take_set(&rest, &right); /* reads to the same ] */
      p->s = rest.s;
      mn_ranges_tidy(&right);
      mn_ranges_keep(&r, &right);
      mn_ranges_free(&right);
      break;
    } else if (take(p, "\\")) {
      status = take_class(p, &r, &is_class);
      if (status == MN_OK && !is_class) status = take_escape(p, true, &c);
    } else {
      c = take_char(p);
    }
    any = true;
    if (status != MN_OK || is_class) continue;
    uint32_t last = c;
    if (p->end - p->s >= 2 && *p->s == '-' && p->s[1] != ']') { /* a range */
      p->s++;
      if (take(p, "\\")) {
        mn_ranges ignored = {0};
        status = take_class(p, &ignored, &is_class);
        mn_ranges_free(&ignored);
        if (status == MN_OK) status = is_class ? WRONG(p, "a class cannot end a range") : take_escape(p, true, &last);
      } else if (*p->s == '[') {
        status = NOT_HERE(p, "a class after -");
      } else {
        last = take_char(p);
      }
      if (status == MN_OK && last < c) status = WRONG(p, "a range that runs backwards");
    }
    if (status == MN_OK) mn_ranges_add(&r, c, last);
  }
  if (p->fold) mn_ranges_fold(&r);
  if (invert) mn_ranges_invert(&r);
  for (size_t i = 0; i < r.n; i++) mn_ranges_add(out, r.at[i].first, r.at[i].last);
  out->failed |= r.failed;
  mn_ranges_free(&r);
  p->depth--;
  return status;
}

static mn_status parse_alternatives(parser *p, mn_rnode **out);

static mn_status group(parser *p, mn_rnode **out) { /* after ( */
  bool fold = p->fold, dot_all = p->dot_all;
  mn_node_kind kind = NODE_CAT;
  bool behind = false, negative = false, flags_to_the_end = false;
  if (take(p, "?#")) {
    while (!at_end(p) && *p->s != ')') p->s++;
    *out = new_node(p, NODE_EMPTY);
    return take(p, ")") ? (*out ? MN_OK : MN_ERR_MEMORY) : WRONG(p, "a comment has no )");
  }
  if (take(p, "?:")) {
  } else if (take(p, "?=") || take(p, "?!") || take(p, "?<=") || take(p, "?<!")) {
    kind = NODE_LOOK;
    negative = p->s[-1] == '!';
    behind = p->s[-2] == '<';
  } else if (take(p, "?>")) {
    kind = NODE_ATOMIC;
  } else if (take(p, "?")) {
    bool on = true;
    for (; !at_end(p) && *p->s != ':' && *p->s != ')'; p->s++) {
      if (*p->s == '-') on = false;
      else if (*p->s == 'i') p->fold = on;
      else if (*p->s == 'm') p->dot_all = on;
      else return NOT_HERE(p, "this kind of group; (?:...), (?i), (?m), (?=, (?!, (?<=, (?<!, (?> are");
    }
    if (!take(p, ":")) flags_to_the_end = true; /* (?i)... up to the end of the enclosing group */
    if (flags_to_the_end && !take(p, ")")) return WRONG(p, "( has no )");
  }
  mn_rnode *inside;
  MN_TRY(parse_alternatives(p, &inside));
  if (!flags_to_the_end && !take(p, ")")) return WRONG(p, "( has no )");
  p->fold = fold;
  p->dot_all = dot_all;
  *out = inside;
  if (kind == NODE_CAT) return MN_OK;
  if (!(*out = new_node(p, kind))) return MN_ERR_MEMORY;
  (*out)->child = inside;
  (*out)->behind = behind;
  (*out)->negative = negative;
  return MN_OK;
}

static mn_status place_node(parser *p, mn_place place, mn_rnode **out) {
  if (!(*out = new_node(p, NODE_PLACE))) return MN_ERR_MEMORY;
  (*out)->place = place;
  return MN_OK;
}

static mn_status parse_atom(parser *p, mn_rnode **out) {
  mn_ranges r = {0};
  mn_status status = MN_OK;
  bool is_class = true;
  if (take(p, "(")) {
    if (++p->depth > MAX_DEPTH) return NOT_HERE(p, "groups nested this deep");
    status = group(p, out);
    p->depth--;
    return status;
  }
  if (take(p, "^")) return place_node(p, PLACE_LINE_BEGIN, out);
  if (take(p, "$")) return place_node(p, PLACE_LINE_END, out);
  if (take(p, "[")) {
    status = take_set(p, &r);
  } else if (take(p, ".")) {
    if (!p->dot_all) mn_ranges_add(&r, '\n', '\n');
    mn_ranges_invert(&r);
  } else if (take(p, "\\")) {
    if (take(p, "A")) return place_node(p, PLACE_BEGIN, out);
    if (take(p, "z")) return place_node(p, PLACE_END, out);
    if (take(p, "Z")) return place_node(p, PLACE_END_OR_NEWLINE, out);
    if (take(p, "b")) return place_node(p, PLACE_WORD, out);
    if (take(p, "B")) return place_node(p, PLACE_NO_WORD, out);
    status = take_class(p, &r, &is_class);
    uint32_t c;
    if (status == MN_OK && !is_class) {
      MN_TRY(take_escape(p, false, &c));
      return char_node(p, c, out);
    }
  } else {
    if (*p->s && strchr("*+?", *p->s)) return WRONG(p, "nothing to repeat");
    return char_node(p, take_char(p), out);
  }
  if (status == MN_OK) status = set_node(p, &r, out);
  mn_ranges_free(&r);
  return status;
}

static bool take_number(parser *p, int *out) {
  const char *begin = p->s;
  for (*out = 0; !at_end(p) && *p->s >= '0' && *p->s <= '9' && *out <= MAX_COUNT; p->s++) *out = *out * 10 + (*p->s - '0');
  return p->s > begin;
}

/* {n}, {n,}, {n,m}, {,m}; anything else is the sign { itself. */
static bool take_counts(parser *p, int *min, int *max) {
  const char *begin = p->s;
  if (!take(p, "{")) return false;
  bool low = take_number(p, min), comma = take(p, ","), high = comma && take_number(p, max);
  if (!low) *min = 0;
  if (!comma) *max = *min;
  else if (!high) *max = -1;
  if ((low || high) && take(p, "}")) return true;
  p->s = begin;
  return false;
}

static mn_status parse_repeats(parser *p, mn_rnode *atom, mn_rnode **out) {
  for (*out = atom; !at_end(p);) {
    int min, max;
    bool counted = false;
    if (take(p, "*")) min = 0, max = -1;
    else if (take(p, "+")) min = 1, max = -1;
    else if (take(p, "?")) min = 0, max = 1;
    else if (take_counts(p, &min, &max)) counted = true;
    else return MN_OK;
    if (min > MAX_COUNT || max > MAX_COUNT) return NOT_HERE(p, "more than 1000 repeats");
    if (max >= 0 && max < min) return WRONG(p, "a repeat whose limits run backwards");
    if (atom->kind == NODE_LOOK || atom->kind == NODE_PLACE) return NOT_HERE(p, "a repeated place or look-around");
    mn_rnode *x = new_node(p, NODE_REPEAT);
    if (!x) return MN_ERR_MEMORY;
    x->child = *out;
    x->min = min;
    x->max = max;
    /* {n,m}+ repeats the repeat in this syntax, and so does {n}? */
    if (take(p, "?")) {
      if (counted && min == max) return NOT_HERE(p, "{n}?");
      x->repeat = REPEAT_LAZY;
    } else if (!counted && take(p, "+")) {
      x->repeat = REPEAT_POSSESSIVE;
    }
    *out = x;
  }
  return MN_OK;
}

static mn_status parse_alternatives(parser *p, mn_rnode **out) {
  mn_rnode *alt = NULL, **last_alt = NULL;
  for (;;) {
    mn_rnode *cat = new_node(p, NODE_CAT);
    if (!cat) return MN_ERR_MEMORY;
    for (mn_rnode **last = &cat->child; !at_end(p) && *p->s != '|' && *p->s != ')';) {
      mn_rnode *atom, *x;
      MN_TRY(parse_atom(p, &atom));
      MN_TRY(parse_repeats(p, atom, &x));
      mn_rnode *copy = new_node(p, NODE_CAT); /* a node of its own: the same atom may not stand in two lists */
      if (!copy) return MN_ERR_MEMORY;
      *copy = *x;
      copy->next = NULL;
      *last = copy;
      last = &copy->next;
    }
    if (!alt && (at_end(p) || *p->s == ')')) return *out = cat, MN_OK;
    if (!alt) {
      if (!(alt = new_node(p, NODE_ALT))) return MN_ERR_MEMORY;
      last_alt = &alt->child;
    }
    *last_alt = cat;
    last_alt = &cat->next;
    if (!take(p, "|")) return *out = alt, MN_OK;
  }
}

mn_status mn_regex_parse(const char *name, mn_arena *arena, const char *pattern, size_t n, bool literal, mn_rnode **out) {
  parser p = {.name = name, .pattern = pattern, .s = pattern, .end = pattern + n, .arena = arena};
  if (literal) {
    if (!(*out = new_node(&p, NODE_CAT))) return MN_ERR_MEMORY;
    for (mn_rnode **last = &(*out)->child; !at_end(&p); last = &(*last)->next) MN_TRY(char_node(&p, take_char(&p), last));
    return MN_OK;
  }
  MN_TRY(parse_alternatives(&p, out));
  return at_end(&p) ? MN_OK : WRONG(&p, ") without (");
}
