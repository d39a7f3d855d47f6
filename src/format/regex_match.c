/* regex_match.c - backtracking over a program (regex_compile.c). What is still to be tried stands on a stack: for a repeat of one
 * character a single entry with the range of places, so the stack does not grow with the text of such a run.
 *
 * Each way that is tried again, each attempt and each look around is a step. A search that has taken many more of them than it has got on
 * remembers what fails (regex_memo.c); ordinary text never gets there. */
#include "base/text.h"
#include "format/regex_internal.h"

#include <stdlib.h>
#include <string.h>

enum { FEW = 1024, MOST_TRIES = 1 << 22, SOME_WORK = 1 << 22, MOST_OF_A_BYTE = 1024 };

void mn_matcher_close(mn_matcher *m) {
  free(m->stack);
  mn_memo_free(m);
  *m = (mn_matcher){0};
}

static bool push(mn_matcher *m, mn_regex_try t) {
  if (m->n == m->cap) {
    size_t cap = m->cap ? m->cap * 2 : 64;
    if (cap > MOST_TRIES) {
      m->status = mn_fail(MN_ERR_UNSUPPORTED, "more than %d ways are open at once", MOST_TRIES);
      return false;
    }
    mn_regex_try *stack = mn_realloc(m->stack, cap * sizeof *stack);
    if (!stack) {
      m->status = MN_ERR_MEMORY;
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

typedef enum { FAILS, MATCHES, ENDS /* with m->status */ } outcome;

/* Many steps have been taken: may the search go on, and must it remember from now on? */
static bool look_up(mn_matcher *m, const mn_regex *re, size_t n) {
  m->check = m->work + FEW;
  m->status = mn_stop_check("matching a pattern");
  if (m->status != MN_OK) return false;
  const uint64_t of_a_byte = 64 + 8 * re->n < MOST_OF_A_BYTE ? 64 + 8 * re->n : MOST_OF_A_BYTE; /* a few for each instruction */
  if (m->work > SOME_WORK + (n - m->from) * of_a_byte) {
    m->status = mn_fail(MN_ERR_UNSUPPORTED, "more than %llu steps", (unsigned long long)m->work - 1);
    return false;
  }
  if (m->remembers || m->work < FEW + (uint64_t)(m->attempt - m->from) * 16) return true;
  return mn_memo_begin(m, re);
}
static inline bool step(mn_matcher *m, const mn_regex *re, size_t n) { return ++m->work < m->check || look_up(m, re, n); }

/* A SPAN without an upper limit, of a search that remembers: the run of its set that `low` lies in. NULL: ends. */
static mn_regex_run *known_run(mn_matcher *m, const mn_set *set, uint32_t pc, const char *s, size_t n, size_t low) {
  mn_regex_run *run = &m->memo->run[pc];
  const bool is_ours = run->search == m->memo->search, touched = m->touched;
  if (!is_ours || low < run->begin || low > run->high) {
    const size_t stop = is_ours && low < run->begin ? run->begin : n;
    size_t high = run_of(m, set, INT64_MAX, s, stop, low);
    m->work += (high - low) / 64;
    if (high == stop && stop < n) high = run->high; /* they are one */
    m->touched = touched;
    if (!(run = mn_memo_run(m, pc, low, high))) return NULL;
  }
  m->touched |= run->high == n;
  return run;
}

/* All ways out of the SPAN at pc from `lo` to the run's end have failed. */
static bool note_ways(mn_matcher *m, uint32_t pc, size_t lo, size_t high) {
  mn_regex_run *run = mn_memo_run(m, pc, lo, high);
  if (run && lo < run->lo) run->lo = lo;
  return run != NULL;
}

/* At least op->min characters of a SPAN, *at behind them. */
static inline bool least_of_span(mn_matcher *m, const mn_rop *op, const char *s, size_t n, size_t *at) {
  for (int k = 0; k < op->min; k++)
    if (!one_of(m, op->set, s, n, at)) return false;
  return true;
}

/* A SPAN has taken s[low ... start), and could give them back; a lazy one has taken none and could. */
static inline outcome leave_ways(mn_matcher *m, const mn_rop *op, uint32_t pc, size_t low, size_t start, size_t high) {
  uint32_t more = op->max < 0 ? 1 : (uint32_t)(op->max - op->min);
  if (op->repeat == REPEAT_POSSESSIVE || (op->repeat == REPEAT_LAZY ? !more : start == low)) return MATCHES;
  return push(m, (mn_regex_try){pc, more, start, low, high}) ? MATCHES : ENDS;
}

/* Takes the characters of a SPAN, *at behind them, and leaves on the stack what else it could do. */
static inline outcome enter_span(mn_matcher *m, const mn_rop *op, uint32_t pc, const char *s, size_t n, size_t *at) {
  if (!least_of_span(m, op, s, n, at)) return FAILS;
  const size_t low = *at;
  if (op->repeat == REPEAT_LAZY) return leave_ways(m, op, pc, low, low, NOWHERE);
  *at = run_of(m, op->set, op->max < 0 ? INT64_MAX : op->max - op->min, s, n, low);
  m->work += (*at - low) / 64;
  return leave_ways(m, op, pc, low, *at, *at);
}

/* The same of a search that remembers. */
static outcome enter_known_span(mn_matcher *m, const mn_rop *op, uint32_t pc, const char *s, size_t n, size_t *at) {
  const size_t from = *at;
  if (op->max >= 0) {
    if (op->repeat == REPEAT_POSSESSIVE) return enter_span(m, op, pc, s, n, at);
    if (mn_memo_has_failed(m, pc, from)) return FAILS;
    if (!push(m, (mn_regex_try){.pc = pc | TRY_ALL_FAILED, .at = from})) return ENDS;
    return enter_span(m, op, pc, s, n, at);
  }
  if (!least_of_span(m, op, s, n, at)) return FAILS;
  const size_t low = *at;
  const mn_regex_run *run = known_run(m, op->set, pc, s, n, low);
  if (!run) return ENDS;
  if (op->repeat != REPEAT_POSSESSIVE && run->lo <= low) return FAILS;
  if (op->repeat != REPEAT_LAZY) *at = op->repeat == REPEAT_GREEDY && run->lo <= run->high ? mn_utf8_before(s, run->lo) : run->high;
  return leave_ways(m, op, pc, low, *at, run->high);
}

/* The SPAN on the top of the stack goes on with its next way, *at where that leaves it. FAILS: it has none. */
static outcome next_of_span(mn_matcher *m, const mn_rop *op, const char *s, size_t n, size_t *at) {
  mn_regex_try *t = &m->stack[m->n - 1];
  const bool remember = op->max < 0 && m->remembers;
  if (remember && t->high == NOWHERE) { /* a lazy one from before the search did */
    const mn_regex_run *run = known_run(m, op->set, t->pc, s, n, t->low);
    if (!run) return ENDS;
    t->high = run->high;
  }
  if (op->repeat != REPEAT_LAZY) { /* gives one character back */
    if (remember && !note_ways(m, t->pc, t->at, t->high)) return ENDS;
    *at = t->at = mn_utf8_before(s, t->at);
    if (t->at == t->low) m->n--;
    return MATCHES;
  }
  *at = t->at;
  bool more = one_of(m, op->set, s, n, at);
  if (remember) {
    const mn_regex_run *run = mn_memo_run(m, t->pc, t->low, t->high);
    if (!run) return ENDS;
    more = more && *at < run->lo;
    if (!more && !note_ways(m, t->pc, t->low, t->high)) return ENDS;
  }
  t->at = *at;
  if (!more || (op->max >= 0 && --t->mask == 0)) m->n--;
  return more ? MATCHES : FAILS;
}

/* Is a state that chooses known to fail? If not, it is noted once all its ways have. */
static inline outcome choose(mn_matcher *m, uint32_t pc, size_t at) {
  if (!m->remembers) return MATCHES;
  if (mn_memo_has_failed(m, pc, at)) return FAILS;
  return push(m, (mn_regex_try){.pc = pc | TRY_ALL_FAILED, .at = at}) ? MATCHES : ENDS;
}

static outcome run(mn_matcher *m, const mn_regex *re, uint32_t pc, const char *s, size_t n, size_t at, size_t *end);

/* LOOK, ATOMIC: the inside alone, and none of its other ways. */
static outcome run_inside(mn_matcher *m, const mn_regex *re, uint32_t pc, const char *s, size_t n, size_t *at) {
  const mn_rop *op = &re->code[pc];
  size_t from = *at, inner_end = 0;
  bool found = true;
  if (!step(m, re, n)) return ENDS;
  for (int k = 0; op->op == OP_LOOK && op->behind && k < op->width && found; k++) {
    found = from > 0;
    if (found) from = mn_utf8_before(s, from);
  }
  outcome inner = found ? run(m, re, pc + 1, s, n, from, &inner_end) : FAILS;
  if (inner == ENDS) return ENDS;
  found = inner == MATCHES && !(op->op == OP_LOOK && op->behind && inner_end != *at);
  if (op->op == OP_LOOK) return found != op->negative ? MATCHES : FAILS;
  if (found) *at = inner_end;
  return found ? MATCHES : FAILS;
}

/* Runs from pc at s[at]; *end where it matched. */
static outcome run(mn_matcher *m, const mn_regex *re, uint32_t pc, const char *s, size_t n, size_t at, size_t *end) {
  const size_t base = m->n;
  outcome result = MATCHES;
  for (;;) {
    const mn_rop *op = &re->code[pc];
    switch (op->op) {
    case OP_MATCH:
      *end = at;
      m->n = base;
      return MATCHES;
    case OP_SET:
      result = one_of(m, op->set, s, n, &at) ? MATCHES : FAILS;
      pc++;
      break;
    case OP_SPAN:
      result = m->remembers ? enter_known_span(m, op, pc, s, n, &at) : enter_span(m, op, pc, s, n, &at);
      pc++;
      break;
    case OP_JUMP:
      pc = op->a;
      break;
    case OP_SPLIT:
      result = choose(m, pc, at);
      if (result == MATCHES && !push(m, (mn_regex_try){op->b, 0, at, NOWHERE, NOWHERE})) result = ENDS;
      pc = op->a;
      break;
    case OP_ALT: {
      if (at == n) m->touched = true;
      uint32_t mask = at < n ? op->mask[(unsigned char)s[at]] : op->empty;
      if (!mask) {
        result = FAILS;
        break;
      }
      int k = __builtin_ctz(mask);
      if (mask &= mask - 1) {
        result = choose(m, pc, at);
        if (result == MATCHES && !push(m, (mn_regex_try){pc, mask, at, NOWHERE, NOWHERE})) result = ENDS;
      }
      pc = op->target[k];
      break;
    }
    case OP_PLACE:
      result = is_place(m, op->place, s, n, at) ? MATCHES : FAILS;
      pc++;
      break;
    default:
      result = run_inside(m, re, pc, s, n, &at);
      pc = op->b;
    }
    while (result == FAILS && m->n > base) { /* the last way that is left */
      if (!step(m, re, n)) {
        result = ENDS;
        break;
      }
      mn_regex_try *t = &m->stack[m->n - 1];
      if (t->pc & TRY_ALL_FAILED) {
        m->n--;
        if (!mn_memo_fail(m, t->pc & ~TRY_ALL_FAILED, t->at)) result = ENDS;
        continue;
      }
      result = MATCHES;
      op = &re->code[t->pc];
      pc = t->pc;
      at = t->at;
      if (op->op == OP_SPAN && t->low != NOWHERE) {
        result = next_of_span(m, op, s, n, &at);
        pc++;
      } else if (op->op == OP_ALT && t->mask) {
        pc = op->target[__builtin_ctz(t->mask)];
        t->mask &= t->mask - 1;
        if (!t->mask) m->n--;
      } else {
        m->n--;
      }
    }
    if (result != MATCHES) break;
  }
  m->n = base;
  return result;
}

/* m->status, with what could not be done where. */
static mn_status ended(const mn_matcher *m, const mn_regex *re, size_t n) {
  char shown[MN_PRINTABLE];
  if (m->status != MN_ERR_UNSUPPORTED) return m->status;
  return mn_context(m->status, "%s: the pattern '%s' costs too much at byte %zu of the %zu that it is to cut", re->name,
                    mn_printable(re->pattern, shown), m->attempt, n);
}

mn_status mn_matcher_next(mn_matcher *m, const mn_regex *re, const char *text, size_t n, size_t from, size_t *begin, size_t *end) {
  m->unsure = NOWHERE;
  m->status = MN_OK;
  m->work = 0;
  m->check = FEW;
  m->from = from;
  *begin = *end = n;
  if (m->remembers && (!m->same_text || from >= m->memo->far)) mn_memo_end(m);
  if (m->careful && !m->remembers && !mn_memo_begin(m, re)) return m->status;
  for (size_t at = from; at < n;) {
    if (!re->first[(unsigned char)text[at]]) {
      at++; /* a continuing byte begins nothing, either */
      continue;
    }
    size_t stop;
    m->touched = false;
    m->attempt = at;
    outcome result = step(m, re, n) ? run(m, re, 0, text, n, at, &stop) : ENDS;
    if (result == ENDS) break;
    if (m->touched && m->unsure == NOWHERE) m->unsure = at;
    if (result == MATCHES && (stop > at || at > from)) {
      *begin = at;
      *end = stop;
      break;
    }
    for (at++; at < n && ((unsigned char)text[at] & 0xC0) == 0x80;) at++;
  }
  return m->status == MN_OK ? MN_OK : ended(m, re, n);
}
