/* schema_keys.h - the keys of a JSON schema: which are known, of what type's values each speaks, and which say nothing where they stand. */
#ifndef MN_SERVE_SCHEMA_KEYS_H
#define MN_SERVE_SCHEMA_KEYS_H

#include "serve/json_schema_internal.h"

bool schema_knows(const char *key);
bool schema_describes(const char *key); /* it changes nothing */

/* Where no type is said: those that its keys speak of, a word or a list of words. Values of other types would fit, too, and are not made. NULL: it
 * speaks of none, or (c->status) memory ran out. */
const mn_value *schema_types_spoken_of(schema_compiler *c, const mn_value *schema);
/* Keys that speak of values of none of these types say nothing, and nothing is read of them but whether they are what such keys are. False, refused:
 * one is not. */
bool schema_others_are_formed(schema_compiler *c, const mn_value *schema, const mn_value *type);

/* A key that speaks of another one beside it, which is not there: minContains and maxContains of contains, additionalItems of a list of items, then
 * and else of if, and if of them. It says nothing. */
bool schema_says_nothing(const mn_value *schema, const char *key);

#endif
