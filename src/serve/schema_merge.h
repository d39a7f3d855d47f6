/* schema_merge.h - two JSON schemas that must both hold, as one: what allOf means, and keys beside $ref and anyOf. */
#ifndef MN_SERVE_SCHEMA_MERGE_H
#define MN_SERVE_SCHEMA_MERGE_H

#include "format/value.h"

/* In the arena; subschemas that meet become {"allOf": [both]}. NULL with *why (NULL: out of memory): two ways to say the same that do not
 * go together; it begins with "wants" where no value could fit both. Neither has a $ref or an allOf. */
const mn_value *mn_schema_merge(mn_arena *arena, const mn_value *a, const mn_value *b, const char **why);
/* The map without these keys (zero-terminated), or with these alone. NULL: out of memory. */
const mn_value *mn_schema_without(mn_arena *arena, const mn_value *map, const char *const *keys);

/* Can no value that is made for one of the two fit the other? For certain: false where it cannot be told. */
bool mn_schema_apart(const mn_value *a, const mn_value *b);

#endif
