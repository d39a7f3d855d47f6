/* json_number.h - the numbers of a JSON schema that have bounds or a step, as a part of a grammar: minimum, maximum, those that exclude, and
 * multipleOf.
 *
 * Digits are held against those of the bounds, so that what is said lies within them as it is written and as f64 reads it: a bound that is
 * excluded is missed by one unit of its 15th digit, of whole numbers below 2^53 by one. Numbers within bounds have no exponent, and none is "-0" where it is whole. */
#ifndef MN_SERVE_JSON_NUMBER_H
#define MN_SERVE_JSON_NUMBER_H

#include "format/value.h"
#include "serve/grammar.h"
#include "serve/schema_why.h"

typedef struct json_bounds {
  const mn_value *least, *above, *most, *below, *step; /* minimum, exclusiveMinimum, maximum, exclusiveMaximum, multipleOf; NULL: none */
  bool whole;                                          /* integers alone, without a point */
} json_bounds;

/* MN_NO_NODE with *why (and *at, where one value is to blame): no number is within (nothing), a bound is none, or a step has too many remainders. */
mn_bytes_node json_number(mn_grammar *g, const json_bounds *bounds, mn_bytes_node next, schema_why *why, const mn_value **at);

#endif
