/* regex_match.c - backtracking over a program (regex_compile.c). What is still to be tried stands on a stack: for a repeat of one
 * character a single entry with the range of places, so the stack does not grow with the text of such a run. */
#include "format/regex_internal.h"

#include <stdlib.h>
#include <string.h>

enum { LIMIT = 1000000, MOST_TRIES = 1 << 20, GIVE_UP = 4096 };
static const size_t nowhere = (size_t)-1;

void mn_matcher_close(mn_matcher *m) {
  free(m->stack);
  *m = (mn_matcher){0};
}

static bool push(mn_matcher *m, mn_regex_try t) {
  if (m->n == m->cap) {
    size_t cap = m->cap ? m->cap * 2 : 64;
    if (cap > MOST_TRIES) return false;
    mn_regex_try *stack = mn_realloc(m->stack, cap * sizeof *stack);
    if (!stack) {
      m->failed = true;
      return false;
    }
    m->stack = stack;
    m->cap = cap;
  }
  m->stack[m->n++] = t;
  return true;
}

static bool word_at(const char *s, size_t n, size_t at) {
  size_t len;
  if (at >= n) return false;
  uint32_t c = mn_utf8_next(s + at, n - at, &len);
  if (c == 0xB2 || c == 0xB3 || c == 0xB9 || (c >= 0xBC && c <= 0xBE)) return true; /* \w of this language, as in regex_parse.c */
  return mn_unicode_word(c) && c != 0x200C && c != 0x200D;
}

static bool is_place(mn_matcher *m, mn_place place, const char *s, size_t n, size_t at) {
  if (at == n && place != PLACE_BEGIN && place != PLACE_LINE_BEGIN) m->touched = true;
  switch (place) {
  case PLACE_BEGIN:
    return at == 0;
  case PLACE_LINE_BEGIN:
    return at == 0 || (s[at - 1] == '\n' && at < n);
  case PLACE_END:
    return at == n;
  case PLACE_LINE_END:
    return at == n || s[at] == '\n';
  case PLACE_END_OR_NEWLINE:
    if (at + 1 == n) m->touched = true;
    return at == n || (at + 1 == n && s[at] == '\n');
  default:
    break;
  }
  bool before = at > 0 && word_at(s, n, mn_utf8_before(s, at));
  return (before != word_at(s, n, at)) == (place == PLACE_WORD);
}

/* One character of the set at s[at], *at behind it. */
static inline bool one_of(mn_matcher *m, const mn_set *set, const char *s, size_t n, size_t *at) {
  if (*at >= n) {
    m->touched = true;
    return false;
  }
  unsigned char b = (unsigned char)s[*at];
  size_t len = 1;
  if (!mn_set_has(set, b < 0x80 ? b : mn_utf8_next(s + *at, n - *at, &len))) return false;
  *at += len;
  return true;
}

static size_t run_of(mn_matcher *m, const mn_set *set, int64_t most, const char *s, size_t n, size_t at) {
  for (int64_t k = 0; k < most; k++) {
    if (at < n && (unsigned char)s[at] < 0x80) { /* the quick way */
      unsigned char b = (unsigned char)s[at];
      if (!(set->ascii[b >> 6] >> (b & 63) & 1)) return at;
      at++;
    } else if (!one_of(m, set, s, n, &at)) {
      return at;
    }
  }
  return at;
}

typedef enum { FAILS, MATCHES, TOO_MUCH } outcome;

/* Runs from pc at s[at]; *end where it matched. */
static outcome run(mn_matcher *m, const mn_regex *re, uint32_t pc, const char *s, size_t n, size_t at, size_t *end, int *left) {
  const size_t base = m->n;
  outcome result = TOO_MUCH;
  for (;;) {
    const mn_rop *op = &re->code[pc];
    bool fails = false;
    switch (op->op) {
    case OP_MATCH:
      *end = at;
      m->n = base;
      return MATCHES;
    case OP_SET:
      fails = !one_of(m, op->set, s, n, &at);
      pc++;
      break;
    case OP_SPAN: {
      int64_t most = op->max < 0 ? INT64_MAX : op->max;
      size_t low = at;
      bool enough = true;
      for (int k = 0; k < op->min && enough; k++) enough = one_of(m, op->set, s, n, &low);
      if (!enough) {
        fails = true;
        break;
      }
      size_t high = op->repeat == REPEAT_LAZY ? low : run_of(m, op->set, most - op->min, s, n, low);
      if (op->repeat == REPEAT_LAZY && most > op->min) {
        uint32_t more = most - op->min > UINT32_MAX ? UINT32_MAX : (uint32_t)(most - op->min);
        if (!push(m, (mn_regex_try){pc, more, low, nowhere})) goto done;
      } else if (op->repeat == REPEAT_GREEDY && high > low) {
        if (!push(m, (mn_regex_try){pc, 0, high, low})) goto done;
      }
      at = high;
      pc++;
      break;
    }
    case OP_JUMP:
      pc = op->a;
      break;
    case OP_SPLIT:
      if (!push(m, (mn_regex_try){op->b, 0, at, nowhere})) goto done;
      pc = op->a;
      break;
    case OP_ALT: {
      if (at == n) m->touched = true;
      uint32_t mask = at < n ? op->mask[(unsigned char)s[at]] : op->empty;
      if (!mask) {
        fails = true;
        break;
      }
      int k = __builtin_ctz(mask);
      if ((mask &= mask - 1) && !push(m, (mn_regex_try){pc, mask, at, nowhere})) goto done;
      pc = op->target[k];
      break;
    }
    case OP_PLACE:
      fails = !is_place(m, op->place, s, n, at);
      pc++;
      break;
    default: { /* LOOK, ATOMIC: the inside alone, and none of its other ways */
      size_t from = at, inner_end = 0;
      bool found = true;
      for (int k = 0; op->op == OP_LOOK && op->behind && k < op->width && found; k++) {
        found = from > 0;
        if (found) from = mn_utf8_before(s, from);
      }
      outcome inner = found ? run(m, re, pc + 1, s, n, from, &inner_end, left) : FAILS;
      if (inner == TOO_MUCH) goto done;
      found = inner == MATCHES && !(op->op == OP_LOOK && op->behind && inner_end != at);
      if (op->op == OP_ATOMIC) {
        fails = !found;
        at = found ? inner_end : at;
      } else {
        fails = found == op->negative;
      }
      pc = op->b;
    }
    }
    if (!fails) continue;
  back:
    if (m->n == base) {
      result = FAILS;
      break;
    }
    if (--*left < 0) goto done;
    mn_regex_try *t = &m->stack[m->n - 1];
    op = &re->code[t->pc];
    pc = t->pc;
    if (op->op == OP_SPAN && t->low != nowhere) { /* gives one character back */
      at = t->at = mn_utf8_before(s, t->at);
      if (t->at == t->low) m->n--;
      pc++;
    } else if (op->op == OP_SPAN) { /* lazy: takes one more */
      at = t->at;
      bool more = one_of(m, op->set, s, n, &at);
      t->at = at;
      if (!more || --t->mask == 0) m->n--;
      if (!more) goto back;
      pc++;
    } else if (op->op == OP_ALT) {
      at = t->at;
      int k = __builtin_ctz(t->mask);
      t->mask &= t->mask - 1;
      if (!t->mask) m->n--;
      pc = op->target[k];
    } else {
      at = t->at;
      m->n--;
    }
  }
done:
  m->n = base;
  return result;
}

void mn_matcher_next(mn_matcher *m, const mn_regex *re, const char *text, size_t n, size_t from, size_t *begin, size_t *end) {
  m->unsure = nowhere;
  for (size_t at = from; at < n;) {
    if (!re->first[(unsigned char)text[at]]) {
      at++; /* a continuing byte begins nothing, either */
      continue;
    }
    int left = LIMIT;
    size_t stop;
    m->touched = false;
    outcome result = run(m, re, 0, text, n, at, &stop, &left);
    if (m->touched && m->unsure == nowhere) m->unsure = at;
    if (result == MATCHES && (stop > at || at > from)) {
      *begin = at;
      *end = stop;
      return;
    }
    at += result == TOO_MUCH && n - at > GIVE_UP ? GIVE_UP : 1;
    while (at < n && ((unsigned char)text[at] & 0xC0) == 0x80) at++;
  }
  *begin = *end = n;
}
