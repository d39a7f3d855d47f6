/* json_format.h - the formats of a schema's strings as patterns (json_pattern.h): a part of what fits each, which every reading of it takes. */
#ifndef MN_SERVE_JSON_FORMAT_H
#define MN_SERVE_JSON_FORMAT_H

#include <stdbool.h>

/* "": any string, as the name only says what it is for; NULL: it is not known. */
const char *json_format_pattern(const char *name);
/* Is it a name that says nothing beside the pattern that comes with it? */
bool json_format_names_its_pattern(const char *name);
extern const char json_formats_known[]; /* as a refusal lists them */

#endif
