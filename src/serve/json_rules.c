/* json_rules.c - see json_rules.h. */
#include "serve/json_rules.h"

#include <string.h>

static mn_bytes_node text(mn_grammar *g, const char *s, mn_bytes_node next) { return mn_grammar_text(g, s, strlen(s), next); }
static mn_bytes_node digit(mn_grammar *g, mn_bytes_node next) { return mn_grammar_range(g, '0', '9', next); }
static mn_bytes_node hex(mn_grammar *g, mn_bytes_node next) {
  return mn_grammar_either(g, digit(g, next),
                           mn_grammar_either(g, mn_grammar_range(g, 'a', 'f', next), mn_grammar_range(g, 'A', 'F', next)));
}

/* digit* next */
static mn_bytes_node digits(mn_grammar *g, mn_bytes_node next) {
  const mn_bytes_node around = mn_grammar_place(g);
  mn_grammar_put(g, around, mn_grammar_either(g, digit(g, around), next));
  return around;
}

/* ---- between values ---- */
enum { MOST_INDENT = 24 };
static mn_bytes_node space(mn_grammar *g, mn_bytes_node next) {
  mn_bytes_node indent = next;
  for (int i = 0; i < MOST_INDENT; i++) indent = mn_grammar_either(g, mn_grammar_range(g, ' ', ' ', indent), next);
  return mn_grammar_either(g, next, mn_grammar_either(g, mn_grammar_range(g, ' ', ' ', next), mn_grammar_range(g, '\n', '\n', indent)));
}

/* ---- strings ---- */
/* \uD800 to \uDFFF come as a pair, a high half first. */
static mn_bytes_node unicode_escape(mn_grammar *g, mn_bytes_node next) {
  const mn_bytes_node two = hex(g, hex(g, next));
  const mn_bytes_node plain = mn_grammar_either(
      g,
      mn_grammar_either(g, mn_grammar_either(g, digit(g, hex(g, two)), mn_grammar_set(g, "abcefABCEF", hex(g, two))),
                        mn_grammar_set(g, "dD", mn_grammar_range(g, '0', '7', two))),
      mn_grammar_set(
          g, "dD",
          mn_grammar_set(g, "89abAB", hex(g, hex(g, text(g, "\\u", mn_grammar_set(g, "dD", mn_grammar_set(g, "cdefCDEF", two))))))));
  return plain;
}

/* RFC 3629, and escapes. */
static mn_bytes_node sign(mn_grammar *g, mn_bytes_node next) {
  const mn_bytes_node one = mn_grammar_range(g, 0x80, 0xbf, next), two = mn_grammar_range(g, 0x80, 0xbf, one),
                      three = mn_grammar_range(g, 0x80, 0xbf, two);
  const mn_bytes_node all[] = {
      mn_grammar_range(g, 0x20, 0x21, next),
      mn_grammar_range(g, 0x23, 0x5b, next),
      mn_grammar_range(g, 0x5d, 0x7e, next),
      mn_grammar_range(g, 0xc2, 0xdf, one),
      mn_grammar_range(g, 0xe0, 0xe0, mn_grammar_range(g, 0xa0, 0xbf, one)),
      mn_grammar_range(g, 0xe1, 0xec, two),
      mn_grammar_range(g, 0xed, 0xed, mn_grammar_range(g, 0x80, 0x9f, one)),
      mn_grammar_range(g, 0xee, 0xef, two),
      mn_grammar_range(g, 0xf0, 0xf0, mn_grammar_range(g, 0x90, 0xbf, two)),
      mn_grammar_range(g, 0xf1, 0xf3, three),
      mn_grammar_range(g, 0xf4, 0xf4, mn_grammar_range(g, 0x80, 0x8f, two)),
      text(g, "\\", mn_grammar_either(g, mn_grammar_set(g, "\"\\/bfnrt", next), text(g, "u", unicode_escape(g, next)))),
  };
  mn_bytes_node out = all[0];
  for (size_t i = 1; i < sizeof all / sizeof *all; i++) out = mn_grammar_either(g, out, all[i]);
  return out;
}

/* ---- numbers ---- */
static mn_bytes_node integer(mn_grammar *g, mn_bytes_node next) {
  const mn_bytes_node whole = mn_grammar_either(g, text(g, "0", next), mn_grammar_range(g, '1', '9', digits(g, next)));
  return mn_grammar_either(g, text(g, "-", whole), whole);
}

static mn_bytes_node number(mn_grammar *g, mn_bytes_node next) {
  const mn_bytes_node power = digit(g, digits(g, next));
  const mn_bytes_node exponent = mn_grammar_set(g, "eE", mn_grammar_either(g, mn_grammar_set(g, "+-", power), power));
  const mn_bytes_node end = mn_grammar_either(g, next, exponent);
  const mn_bytes_node fraction = text(g, ".", digit(g, digits(g, end)));
  return integer(g, mn_grammar_either(g, end, fraction));
}

/* ---- values ---- */
/* open, and between commas any number of what `rule` says before it, close */
static mn_bytes_node listed(mn_grammar *g, const json_rules *r, const char *open, const char *close, int32_t key, mn_bytes_node next) {
  const mn_bytes_node more = mn_grammar_place(g), end = mn_grammar_call(g, r->space, text(g, close, next));
  mn_bytes_node item = mn_grammar_call(g, r->value, more);
  if (key >= 0) item = mn_grammar_call(g, key, mn_grammar_call(g, r->colon, item));
  mn_grammar_put(g, more, mn_grammar_either(g, mn_grammar_call(g, r->comma, item), end));
  return text(g, open, mn_grammar_either(g, mn_grammar_call(g, r->space, item), end));
}

static mn_bytes_node returned(mn_grammar *g) { return mn_grammar_return(g); }

json_rules json_rules_of(mn_grammar *g) {
  json_rules r = {mn_grammar_rule(g), mn_grammar_rule(g), mn_grammar_rule(g), mn_grammar_rule(g), mn_grammar_rule(g),
                  mn_grammar_rule(g), mn_grammar_rule(g), mn_grammar_rule(g), mn_grammar_rule(g), mn_grammar_rule(g)};
  mn_grammar_define(g, r.space, space(g, returned(g)));
  mn_grammar_define(g, r.comma, mn_grammar_call(g, r.space, text(g, ",", space(g, returned(g)))));
  mn_grammar_define(g, r.colon, text(g, ":", mn_grammar_either(g, text(g, " ", returned(g)), returned(g))));
  mn_grammar_define(g, r.sign, sign(g, returned(g)));
  const mn_bytes_node around = mn_grammar_place(g);
  mn_grammar_put(g, around, mn_grammar_either(g, sign(g, around), text(g, "\"", returned(g))));
  mn_grammar_define(g, r.string, text(g, "\"", around));
  mn_grammar_define(g, r.integer, integer(g, returned(g)));
  mn_grammar_define(g, r.number, number(g, returned(g)));
  mn_grammar_define(g, r.object, listed(g, &r, "{", "}", r.string, returned(g)));
  mn_grammar_define(g, r.array, listed(g, &r, "[", "]", -1, returned(g)));
  const mn_bytes_node end = returned(g), all[] = {mn_grammar_call(g, r.object, end),
                                                  mn_grammar_call(g, r.array, end),
                                                  mn_grammar_call(g, r.string, end),
                                                  mn_grammar_call(g, r.number, end),
                                                  text(g, "true", end),
                                                  text(g, "false", end),
                                                  text(g, "null", end)};
  mn_bytes_node any = all[0];
  for (size_t i = 1; i < sizeof all / sizeof *all; i++) any = mn_grammar_either(g, any, all[i]);
  mn_grammar_define(g, r.value, any);
  return r;
}
