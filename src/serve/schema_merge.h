/* schema_merge.h - two JSON schemas that must both hold, as one: what allOf means, and keys beside $ref and anyOf. */
#ifndef MN_SERVE_SCHEMA_MERGE_H
#define MN_SERVE_SCHEMA_MERGE_H

#include "format/value.h"
#include "serve/schema_why.h"

/* In the arena; subschemas that meet become {"allOf": [both]}. NULL with *why (no text: out of memory): two ways to say the same that do not
 * go together, or that no value could fit both (nothing). Neither has a $ref or an allOf. The second stands within the first: what it
 * says of unevaluatedProperties it says of what it does not evaluate itself, the first of what neither does. *left: comparisons that may still be made,
 * of about 16 bytes each; below 0 where they ran out. */
const mn_value *mn_schema_merge(mn_arena *arena, const mn_value *a, const mn_value *b, double *left, schema_why *why);
/* The map without these keys (zero-terminated), or with these alone. NULL: out of memory. */
const mn_value *mn_schema_without(mn_arena *arena, const mn_value *map, const char *const *keys);

/* What `type` calls it: a word; of whole numbers, too, "number". */
const char *mn_schema_type_of(const mn_value *v);
/* The same value of JSON: numbers by what they are, 1 and 1.0, whichever way they are kept. */
bool mn_schema_equal(const mn_value *a, const mn_value *b);

/* Of two numbers: below 0, 0 or above 0, exactly: f64 has not all integers. */
int mn_schema_order(const mn_value *a, const mn_value *b);

/* Comparisons that looking for an equal value costs at most, for each that it is held against. */
double mn_schema_weight(const mn_value *v);

/* Can no value that is made for one of the two fit the other? For certain: false where it cannot be told, and where *left runs out. */
bool mn_schema_apart(const mn_value *a, const mn_value *b, double *left);

#endif
