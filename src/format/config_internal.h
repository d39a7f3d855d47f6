/* config_internal.h - what reading, writing and describing by a table of fields share. */
#ifndef MN_CONFIG_INTERNAL_H
#define MN_CONFIG_INTERNAL_H

#include "format/config.h"

static inline const mn_field *mn_field_next(const mn_field *f) { return f->type == MN_TYPE_END ? NULL : f; }
#define MN_EACH_FIELD(f, fields)                                                                                                           \
  const mn_field *f = (fields);                                                                                                            \
  f &&mn_field_next(f);                                                                                                                    \
  f++

int mn_field_words(const char *const *names);                     /* how many: an enum's names end with NULL */
double mn_field_real(const mn_field *f, const void *config);      /* the value of a float member */
void mn_field_expected(mn_text *t, const mn_field *f, bool item); /* what the field takes, or, of a list, one item */

#endif
