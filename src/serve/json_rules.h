/* json_rules.h - the parts of JSON (RFC 8259) as rules of a grammar: what schemas are made of. */
#ifndef MN_SERVE_JSON_RULES_H
#define MN_SERVE_JSON_RULES_H

#include "serve/grammar.h"

typedef struct json_rules {
  int32_t space, comma, colon; /* between values: nothing, a space, or a line's end and at most 24 spaces                    */
  int32_t sign, string;        /* one character of a string, as itself or escaped: valid UTF-8; the string with its quotes */
  int32_t integer, number, value, object, array;
} json_rules;
json_rules json_rules_of(mn_grammar *g);

#endif
