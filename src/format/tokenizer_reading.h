/* tokenizer_reading.h - what the readers of tokenizer.json's sections ask of a value (tokenizer_json.c, tokenizer_parts.c). */
#ifndef MN_TOKENIZER_READING_H
#define MN_TOKENIZER_READING_H

#include <jansson.h>

#include "format/tokenizer_internal.h"

typedef mn_tok_reader reader;

/* A text of the file as a message shows it; until the next call. */
static inline const char *show(reader *r, const char *s) { return mn_printable(s, r->shown); }

/* Is there something else than null? */
static inline bool is_set(const json_t *j) { return j && !json_is_null(j); }

/* The member "type" of a section; "?" where it has none. */
static inline const char *type_of(const json_t *j) {
  const char *type = json_string_value(json_object_get(j, "type"));
  return type ? type : "?";
}

#endif
