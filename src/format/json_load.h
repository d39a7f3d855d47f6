/* json_load.h - JSON text to jansson's tree. */
#ifndef MN_JSON_LOAD_H
#define MN_JSON_LOAD_H

#include <jansson.h>

#include "base/base.h"

/* As json_loadb does it, but a signal ends it: MN_ERR_CANCELLED, with a message. MN_ERR_FORMAT without one: the text is no JSON, and *error
 * says why. */
mn_status mn_json_load(const char *text, size_t n, size_t flags, json_t **out, json_error_t *error);

#endif
