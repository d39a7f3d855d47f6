/* json_number.c - see json_number.h. A number is read digit by digit: as long as they are those of a bound, the next digit may not pass its;
 * beside that what was read has a remainder by the step. */
#include "serve/json_number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_DIGITS = 400, MOST_STEPS = 4096, EXACT = 15, FINEST = 320, UNKNOWN = -2 };

/* ---- decimals ---- */
typedef struct decimal { /* n digits, `point` of them before its point: no zero is the first of several of these */
  char digit[MOST_DIGITS];
  int n, point;
  bool negative;
} decimal;

static int digit_at(const decimal *d, int i) { return i < d->n ? d->digit[i] - '0' : 0; }
static bool is_zero(const decimal *d) { return strspn(d->digit, "0") >= (size_t)d->n; }
static bool zeros_from(const decimal *d, int i) { return i >= d->n || strspn(d->digit + i, "0") >= (size_t)(d->n - i); }

static void tidy(decimal *d) {
  int zeros = 0;
  while (zeros + 1 < d->point && d->digit[zeros] == '0') zeros++;
  memmove(d->digit, d->digit + zeros, (size_t)(d->n - zeros));
  d->n -= zeros, d->point -= zeros;
  while (d->n > d->point && d->digit[d->n - 1] == '0') d->n--;
  d->digit[d->n] = 0;
  if (is_zero(d)) d->negative = false;
}

/* The fewest digits that read back the same; all of them where the last before the point is one of more than 15. */
static bool read_decimal(const mn_value *v, decimal *out) {
  char text[MOST_DIGITS];
  double x;
  if (!mn_value_number(v, &x) || !isfinite(x)) return false;
  *out = (decimal){.negative = x < 0};
  if (v->kind == MN_INTEGER) snprintf(text, sizeof text, "%lld", (long long)v->as.integer);
  else if (fabs(x) >= 1e15) snprintf(text, sizeof text, "%.0f", x);
  else {
    int precision = 0;
    while (snprintf(text, sizeof text, "%.*e", precision, x), precision < 17 && strtod(text, NULL) != x) precision++;
  }
  const char *power = strchr(text, 'e');
  const int exponent = power ? atoi(power + 1) : 0;
  int before = 1;                                                /* the point */
  for (int i = exponent; i < 0; i++) out->digit[out->n++] = '0'; /* 0.00... */
  for (const char *c = text; *c && *c != 'e'; c++)
    if (*c >= '0' && *c <= '9') out->digit[out->n++] = *c;
  if (!power) before = out->n;
  else if (exponent > 0) before = exponent + 1;
  while (out->n < before) out->digit[out->n++] = '0';
  out->point = before;
  tidy(out);
  return true;
}

/* One unit of the digit at i more, or less: 0 where it is not that much. Digits behind it stay. */
static void move_by_one(decimal *d, int i, bool more) {
  while (d->n <= i) d->digit[d->n++] = '0';
  d->digit[d->n] = 0;
  if (!more && strspn(d->digit, "0") > (size_t)i) {
    d->n = d->point;
    tidy(d);
    return;
  }
  for (; i >= 0; i--) {
    d->digit[i] = (char)(d->digit[i] + (more ? 1 : -1));
    if (d->digit[i] >= '0' && d->digit[i] <= '9') break;
    d->digit[i] = more ? '0' : '9';
  }
  if (i < 0 && more) {
    memmove(d->digit + 1, d->digit, (size_t)d->n);
    d->digit[0] = '1';
    d->n++, d->point++;
  }
  tidy(d);
}

/* The next number behind an excluded bound, up or down; units: f64 has each whole number there. */
static void pass(decimal *d, bool up, bool whole, bool units) {
  const bool zero = is_zero(d), more = zero || up != d->negative;
  int first = 0;
  while (!zero && d->digit[first] == '0') first++;
  int unit = zero ? EXACT : first + EXACT - 1;
  if (whole && (units || unit >= d->point)) unit = d->point - 1;
  move_by_one(d, unit < d->point + FINEST ? unit : d->point + FINEST - 1, more);
  if (zero) d->negative = !up;
}

/* The whole number that is not below it (up), or not above. True: it was none. */
static bool round_up_or_down(decimal *d, bool up) {
  if (d->n == d->point) return false;
  const bool away = up != d->negative;
  d->n = d->point;
  if (away) move_by_one(d, d->point - 1, true);
  tidy(d);
  return true;
}

static int compare(const decimal *a, const decimal *b) {
  if (a->negative != b->negative) return a->negative ? -1 : 1;
  int order = (a->point > b->point) - (a->point < b->point);
  for (int i = 0; !order && (i < a->n || i < b->n); i++) order = (digit_at(a, i) > digit_at(b, i)) - (digit_at(a, i) < digit_at(b, i));
  return a->negative ? -order : order;
}

/* ---- an automaton ---- */
typedef struct walk {
  mn_grammar *g;
  mn_bytes_node next;
  decimal low, high; /* of magnitudes, both within */
  bool bounded;      /* high is one */
  bool whole;
  int places;              /* digits behind the point that are held against bounds */
  int64_t step;            /* multiples of step / 10^step_places; 1: any, where step_places < 0 */
  int step_places;         /* and no more digits than these; below 0: any number */
  mn_bytes_node *of_whole; /* [(digits to come) * step + remainder] */
  mn_bytes_node *of_part;  /* [(digits behind the point) * step + remainder] */
} walk;

static mn_bytes_node either(mn_grammar *g, mn_bytes_node all, mn_bytes_node one) {
  return one == MN_NO_NODE ? all : all == MN_NO_NODE ? one : mn_grammar_either(g, all, one);
}

static bool may_end(const walk *w, int places, int64_t rest) {
  for (int i = places; i < w->step_places; i++) rest = rest * 10 % w->step;
  return rest % w->step == 0;
}

typedef mn_bytes_node (*behind)(walk *w, int i, int64_t rest);

/* A digit of [low, high], and what is behind it. */
static mn_bytes_node digits(walk *w, int low, int high, behind then, int i, int64_t rest) {
  mn_bytes_node out = MN_NO_NODE;
  for (int d = low; d <= high;) {
    const mn_bytes_node to = then(w, i, (rest * 10 + d) % w->step);
    int last = d;
    while (last < high && then(w, i, (rest * 10 + last + 1) % w->step) == to) last++;
    if (to != MN_NO_NODE) out = either(w->g, out, mn_grammar_range(w->g, '0' + d, '0' + last, to));
    d = last + 1;
  }
  return out;
}

/* `places` digits are said behind the point, whatever follows. */
static mn_bytes_node part(walk *w, int places, int64_t rest) {
  const bool any = w->step_places < 0;
  mn_bytes_node *kept = &w->of_part[(any ? 0 : places) * w->step + rest];
  if (*kept != UNKNOWN) return *kept;
  if (any) {
    const mn_bytes_node around = *kept = mn_grammar_place(w->g);
    mn_grammar_put(w->g, around, either(w->g, digits(w, 0, 9, part, places, rest), w->next));
    return around;
  }
  const mn_bytes_node out = may_end(w, places, rest) ? w->next : MN_NO_NODE;
  return *kept = places < w->step_places ? either(w->g, out, digits(w, 0, 9, part, places + 1, rest)) : out;
}

static bool has_part(const walk *w, int places) { return !w->whole && (w->step_places < 0 || places < w->step_places); }

static mn_bytes_node point(walk *w, mn_bytes_node first) {
  return first == MN_NO_NODE ? MN_NO_NODE : mn_grammar_range(w->g, '.', '.', first);
}

/* `left` digits are to come before the point: so many, and where there is no bound above any number more. */
static mn_bytes_node before_point(walk *w, int left, int64_t rest) {
  mn_bytes_node *kept = &w->of_whole[left * w->step + rest];
  if (*kept != UNKNOWN) return *kept;
  if (left) return *kept = digits(w, 0, 9, before_point, left - 1, rest);
  const mn_bytes_node around = *kept = mn_grammar_place(w->g);
  mn_bytes_node out = may_end(w, 0, rest) ? w->next : MN_NO_NODE;
  if (has_part(w, 0)) out = either(w->g, out, point(w, digits(w, 0, 9, part, 1, rest)));
  if (!w->bounded) out = either(w->g, out, digits(w, 0, 9, before_point, 0, rest));
  if (out == MN_NO_NODE) return *kept = MN_NO_NODE;
  mn_grammar_put(w->g, around, out);
  return around;
}

static mn_bytes_node along(walk *w, int whole, int i, bool low, bool high, int64_t rest);

/* The digit at i: along the low bound, along the high one, or between. */
static mn_bytes_node next_digit(walk *w, int whole, int i, bool low, bool high, int64_t rest) {
  int least = low ? digit_at(&w->low, i) : i == 0 && whole > 1, most = high ? digit_at(&w->high, i) : 9;
  mn_bytes_node out = MN_NO_NODE;
  if (low && high && least == most) {
    const mn_bytes_node both = along(w, whole, i + 1, true, true, (rest * 10 + least) % w->step);
    return both == MN_NO_NODE ? both : mn_grammar_range(w->g, '0' + least, '0' + least, both);
  }
  if (low && least <= most) {
    const mn_bytes_node to = along(w, whole, i + 1, true, false, (rest * 10 + least) % w->step);
    if (to != MN_NO_NODE) out = mn_grammar_range(w->g, '0' + least, '0' + least, to);
    least++;
  }
  if (high && least <= most) {
    const mn_bytes_node to = along(w, whole, i + 1, false, true, (rest * 10 + most) % w->step);
    if (to != MN_NO_NODE) out = either(w->g, out, mn_grammar_range(w->g, '0' + most, '0' + most, to));
    most--;
  }
  const mn_bytes_node between =
      i < whole ? digits(w, least, most, before_point, whole - i - 1, rest) : digits(w, least, most, part, i - whole + 1, rest);
  return either(w->g, out, between);
}

/* The i digits so far are the low bound's, the high bound's or both's; `whole` of all stand before the point. */
static mn_bytes_node along(walk *w, int whole, int i, bool low, bool high, int64_t rest) {
  if (i < whole) return next_digit(w, whole, i, low, high, rest);
  const int places = i - whole;
  const mn_bytes_node end = may_end(w, places, rest) && (!low || zeros_from(&w->low, i)) ? w->next : MN_NO_NODE;
  if (!has_part(w, places) || (high && places == w->places)) return end;
  const mn_bytes_node more = places < w->places ? next_digit(w, whole, i, low, high, rest) : digits(w, 0, 9, part, places + 1, rest);
  return either(w->g, end, places ? more : point(w, more));
}

/* Numbers of so many digits before the point. */
static mn_bytes_node of_length(walk *w, int whole) {
  const bool low = whole == w->low.point, high = w->bounded && whole == w->high.point;
  return low || high ? along(w, whole, 0, low, high, 0) : digits(w, whole > 1, 9, before_point, whole - 1, 0);
}

static int longest(int a, int b) { return a > b ? a : b; }

/* Magnitudes of [low, high]; false: out of memory. */
static bool magnitudes(walk *w, mn_bytes_node *out) {
  const int most = w->bounded ? w->high.point : w->low.point;
  w->low.negative = w->high.negative = false;
  *out = MN_NO_NODE;
  if (w->bounded && compare(&w->low, &w->high) > 0) return true;
  w->places = longest(longest(w->low.n - w->low.point, w->bounded ? w->high.n - w->high.point : 0), w->step_places);
  const size_t of_whole = (size_t)(most + 1) * (size_t)w->step, of_part = (size_t)(longest(w->step_places, 0) + 1) * (size_t)w->step;
  w->of_whole = mn_alloc(of_whole * sizeof *w->of_whole), w->of_part = mn_alloc(of_part * sizeof *w->of_part);
  const bool room = w->of_whole && w->of_part;
  for (size_t i = 0; room && i < of_whole; i++) w->of_whole[i] = UNKNOWN;
  for (size_t i = 0; room && i < of_part; i++) w->of_part[i] = UNKNOWN;
  for (int whole = w->low.point; room && whole <= most && mn_grammar_nodes(w->g) < MN_GRAMMAR_NODES; whole++)
    *out = either(w->g, *out, of_length(w, whole));
  if (room && !w->bounded) *out = either(w->g, *out, digits(w, 1, 9, before_point, w->low.point, 0));
  free(w->of_whole), free(w->of_part);
  return room;
}

/* ---- bounds ---- */
typedef struct limits {
  decimal low, high;
  bool from, to; /* they are bounds */
} limits;

static bool read_limit(const mn_value *v, bool up, bool excluded, bool whole, decimal *limit, bool *is, schema_why *why,
                       const mn_value **at) {
  decimal d;
  double x = 0;
  if (!v) return true;
  if (!mn_value_number(v, &x) || !read_decimal(v, &d)) return why->text = "has a bound that is no number", *at = v, false;
  const bool moved = whole && round_up_or_down(&d, up);
  if (excluded && !moved) pass(&d, up, whole, fabs(x) < 0x1p53);
  if (!*is || (compare(&d, limit) > 0) == up) *limit = d;
  return *is = true;
}

static bool read_limits(const json_bounds *b, limits *l, schema_why *why, const mn_value **at) {
  return read_limit(b->least, true, false, b->whole, &l->low, &l->from, why, at) &&
         read_limit(b->above, true, true, b->whole, &l->low, &l->from, why, at) &&
         read_limit(b->most, false, false, b->whole, &l->high, &l->to, why, at) &&
         read_limit(b->below, false, true, b->whole, &l->high, &l->to, why, at);
}

/* A step of 0.25 is 25 of two places. */
static bool read_step(const mn_value *v, walk *w, schema_why *why, const mn_value **at) {
  decimal d;
  w->step = 1, w->step_places = -1;
  if (!v) return true;
  *at = v;
  if (!read_decimal(v, &d) || d.negative || is_zero(&d)) return why->text = "has a multipleOf that is no number above 0", false;
  w->step = 0, w->step_places = d.n - d.point;
  for (int i = 0; i < d.n && w->step <= MOST_STEPS; i++) w->step = w->step * 10 + digit_at(&d, i);
  if (w->step > MOST_STEPS)
    return why->text = "has a multipleOf of more than 4096 units of its last digit: the grammar would explode", false;
  return true;
}

mn_bytes_node json_number(mn_grammar *g, const json_bounds *bounds, mn_bytes_node next, schema_why *why, const mn_value **at) {
  static const decimal zero = {.digit = "0", .n = 1, .point = 1};
  limits l = {.from = false};
  walk w = {.g = g, .next = next, .whole = bounds->whole};
  mn_bytes_node out = MN_NO_NODE, one;
  *why = (schema_why){0}, *at = NULL;
  if (!read_step(bounds->step, &w, why, at) || !read_limits(bounds, &l, why, at)) return MN_NO_NODE;
  bool room = true;
  if (!l.to || !l.high.negative) { /* from 0 on */
    w.low = l.from && !l.low.negative ? l.low : zero, w.high = l.high, w.bounded = l.to;
    room = magnitudes(&w, &out);
  }
  if (room && (!l.from || l.low.negative)) { /* below 0 */
    w.low = l.to && l.high.negative ? l.high : zero, w.high = l.low, w.bounded = l.from;
    if (w.whole && is_zero(&w.low)) w.low.digit[0] = '1'; /* not "-0" */
    room = magnitudes(&w, &one);
    if (one != MN_NO_NODE) out = either(g, out, mn_grammar_range(g, '-', '-', one));
  }
  if (!room) why->text = "needs more memory than there is";
  else if (out == MN_NO_NODE && mn_grammar_nodes(g) < MN_GRAMMAR_NODES)
    *why =
        (schema_why){bounds->whole ? "has bounds between which no integer is" : "has bounds between which no number is", .nothing = true};
  return out;
}
