/* template_number.c - texts as numbers and numbers rounded, as Python's int(), float() and round() do it: of any length, with digits of any
 * script, and exact. What 64 bits do not hold is said, never cut. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/template_internal.h"

/* ---- texts ---- */
/* What a decimal digit counts: the digits of a script stand in order from 0, and scripts that meet have ten each. */
static int worth(int32_t c) {
  int32_t first = c;
  while (mn_tpl_is_decimal(first - 1)) first--;
  return (c - first) % 10;
}

/* Without white space at its ends, digits of other scripts as ours, and a zero byte behind it. !*is: it has a letter that no number has. */
static mn_status plain(const mn_tpl_string *s, mn_text *out, bool *is) {
  size_t at = 0, end = 0, passed = 0;
  *is = false;
  for (bool begun = false; at < s->n;) {
    const int32_t c = mn_tpl_next(s, &at);
    const bool space = mn_tpl_is_space(c);
    if (++passed % TPL_LOOK_EVERY == 0) MN_TRY(mn_stop_check("rendering a template"));
    if (space && !begun) continue;
    begun = true;
    if (space) mn_text_add_bytes(out, " ", 1);
    else if (c > 0 && c < 0x80) mn_text_add_bytes(out, &(char){(char)c}, 1), end = out->len;
    else if (mn_tpl_is_decimal(c)) mn_text_add_bytes(out, &(char){(char)('0' + worth(c))}, 1), end = out->len;
    else return MN_OK;
  }
  if (out->data) out->data[end] = 0;
  *is = end && out->data && strlen(out->data) == end;
  return mn_text_status(out);
}

/* The value of a digit; one of 36 or more: it is none. */
static int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'z') return c - 'a' + 10;
  return c >= 'A' && c <= 'Z' ? c - 'A' + 10 : 99;
}

/* 16, 8 or 2 where the digits have that sign before them, else 0. */
static int base_of(const char *p) {
  if (p[0] != '0' || !p[1]) return 0;
  return p[1] == 'x' || p[1] == 'X' ? 16 : p[1] == 'o' || p[1] == 'O' ? 8 : p[1] == 'b' || p[1] == 'B' ? 2 : 0;
}

static mn_tpl_reading whole(const char *p, int base, int64_t *out) {
  const bool negative = *p == '-', open = base == 0;
  uint64_t sum = 0, most = negative ? (uint64_t)1 << 63 : INT64_MAX;
  bool wide = false, underscore = true; /* may one not stand here? */
  if (*p == '-' || *p == '+') p++;
  const int said = base_of(p);
  if (said && (open || base == said)) base = said, p += 2, underscore = false;
  if (base == 0) base = 10;
  const bool zero = open && !said && *p == '0'; /* then only zeros follow, as in a program */
  if (!*p) return TPL_NO_NUMBER;
  for (; *p; p++) {
    if (*p == '_' && underscore) return TPL_NO_NUMBER;
    underscore = *p == '_';
    if (underscore) continue;
    const int d = digit(*p);
    if (d >= base || (zero && d)) return TPL_NO_NUMBER;
    wide = wide || sum > (most - (uint64_t)d) / (uint64_t)base;
    sum = wide ? 0 : sum * (uint64_t)base + (uint64_t)d;
  }
  if (underscore) return TPL_NO_NUMBER;
  *out = negative ? (int64_t)(0 - sum) : (int64_t)sum;
  return wide ? TPL_WIDE : TPL_NUMBER;
}

/* Behind digits with single underscores between them; p itself where there are none. */
static const char *digits(const char *p) {
  const char *end = p;
  while (digit(*end) < 10 || (end > p && *end == '_' && digit(end[1]) < 10)) end++;
  return end;
}

/* Is it written as Python writes a float? */
static bool is_real(const char *p) {
  if (*p == '-' || *p == '+') p++;
  if (!strcasecmp(p, "inf") || !strcasecmp(p, "infinity") || !strcasecmp(p, "nan")) return true;
  const char *end = digits(p);
  bool any = end > p;
  if (*end == '.') p = end + 1, end = digits(p), any = any || end > p;
  if (any && (*end == 'e' || *end == 'E')) {
    p = end + 1 + (end[1] == '-' || end[1] == '+');
    end = digits(p);
    any = end > p;
  }
  return any && !*end;
}

static mn_tpl_reading real(char *text, double *out) {
  char *to = text, *end;
  if (!is_real(text)) return TPL_NO_NUMBER;
  for (const char *p = text; *p; p++)
    if (*p != '_') *to++ = *p;
  *to = 0;
  *out = strtod(text, &end); /* too large a number is infinite, there and here */
  return *end ? TPL_NO_NUMBER : TPL_NUMBER;
}

mn_status mn_tpl_read_int(const mn_tpl_string *s, int base, mn_tpl_reading *got, int64_t *out) {
  mn_text text = {0};
  bool is;
  mn_status status = plain(s, &text, &is);
  *got = status == MN_OK && is ? whole(text.data, base, out) : TPL_NO_NUMBER;
  mn_text_free(&text);
  return status;
}

mn_status mn_tpl_read_real(const mn_tpl_string *s, mn_tpl_reading *got, double *out) {
  mn_text text = {0};
  bool is;
  mn_status status = plain(s, &text, &is);
  *got = status == MN_OK && is ? real(text.data, out) : TPL_NO_NUMBER;
  mn_text_free(&text);
  return status;
}

/* ---- rounding: to so many digits behind the point, halves to even ---- */
double mn_tpl_round_real(double d, int64_t digits) {
  char text[700]; /* 309 digits, a point, 323 more */
  if (!isfinite(d) || d == 0 || digits > 323) return d;
  if (digits < -308) return copysign(0, d);
  if (digits >= 0) {
    snprintf(text, sizeof text, "%.*f", (int)(digits), d);
    return strtod(text, NULL);
  }
  snprintf(text, sizeof text, "%.20e", d);
  const int first = atoi(strchr(text, 'e') + 1), kept = first + (int)digits; /* digits behind the first one */
  if (kept < -1) return copysign(0, d);
  if (kept < 0) {
    snprintf(text, sizeof text, "1e%d", (int)-digits);
    const double unit = strtod(text, NULL);
    return copysign(fabs(d) > unit / 2 ? unit : 0, d);
  }
  snprintf(text, sizeof text, "%.*e", kept, d);
  return strtod(text, NULL);
}

bool mn_tpl_round_int(int64_t i, int64_t digits, int64_t *out) {
  *out = i;
  if (digits >= 0) return true;
  const uint64_t size = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
  uint64_t unit = 1;
  for (int64_t k = 0; k > digits && k > -19; k--) unit *= 10; /* 10^19 is the last that fits */
  const uint64_t rest = size % unit, low = size - rest, half = unit / 2;
  const bool up = digits >= -19 && (rest > half || (rest == half && low / unit % 2));
  const uint64_t rounded = digits < -19 ? 0 : low + (up ? unit : 0);
  if (rounded > (uint64_t)INT64_MAX + (i < 0)) return false;
  *out = i < 0 ? (int64_t)(0 - rounded) : (int64_t)rounded;
  return true;
}
