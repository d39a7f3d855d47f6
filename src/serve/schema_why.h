/* schema_why.h - why a schema, or a part of it, is refused: in words for who wrote it, and whether that is so because no value could fit, for who goes
 * on with what is left. */
#ifndef MN_SERVE_SCHEMA_WHY_H
#define MN_SERVE_SCHEMA_WHY_H

#include <stdbool.h>

typedef struct schema_why {
  const char *text; /* NULL: it is not refused */
  bool nothing;     /* no value fits: a way of anyOf that leads there is none */
} schema_why;

#endif
