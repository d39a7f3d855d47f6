/* schema_complement.h - what does not fit a JSON schema, as a schema: what `not` means, and `if` where it does not hold.
 *
 * A value fits not all keys of a schema where it breaks one of them: anyOf of what breaks each (De Morgan). Known are the complements of type, const
 * and enum (of texts, numbers, true, false and null; not of lists and maps), required, properties, the least and the most of lengths, items, properties and
 * numbers, items, contains, anyOf, allOf, not, $ref, true and false. */
#ifndef MN_SERVE_SCHEMA_COMPLEMENT_H
#define MN_SERVE_SCHEMA_COMPLEMENT_H

#include "serve/json_schema_internal.h"

/* The values that do not fit, of those that fit what stands beside it (NULL: any), whose type and names are looked at. NULL: refused, as it
 * cannot be told. */
const mn_value *schema_complement(schema_compiler *c, const mn_value *schema, const mn_value *beside);

/* The same of a place that a $ref leads to: where it leads to itself, that is left as a `not` of the $ref. */
const mn_value *schema_opposite_of(schema_compiler *c, const mn_value *place, const mn_value *beside);

/* The schema as one that null fits only where it says so itself, whichever nullable it is merged with: a value that must fit, or must not, is told
 * apart by it. NULL: refused. */
const mn_value *schema_keeps_null_out(schema_compiler *c, const mn_value *schema);

/* False, refused: somewhere stands a key that would take what is forbidden for what is evaluated. */
bool schema_may_complement(schema_compiler *c, const mn_value *schema);

/* `not` and if, then, else as keys that say the same: the schema without them, and beside it what they mean (a schema). False: refused. */
bool schema_conditions(schema_compiler *c, const mn_value *schema, const mn_value **rest, const mn_value **meant);

#endif
