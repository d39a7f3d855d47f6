/* schema_admit.h - what can be told of a JSON schema without a grammar: that no value fits it, and patterns that exclude a list of texts. */
#ifndef MN_SERVE_SCHEMA_ADMIT_H
#define MN_SERVE_SCHEMA_ADMIT_H

#include "format/value.h"

/* Is it certain that no value fits, as none of its const or enum fits what stands beside it, or its bounds leave no number? false where that cannot be
 * told, and where *left, comparisons that may still be made, runs out. */
bool mn_schema_admits_nothing(const mn_value *schema, double *left);

/* A pattern that all texts fit but those of two patterns of this kind, "^(?!(?:ONE|ANOTHER)$)", their letters as they are or escaped. NULL: one
 * is of another kind, or there is no memory. */
const mn_value *mn_schema_exclude_both(mn_arena *arena, const mn_value *a, const mn_value *b);

#endif
