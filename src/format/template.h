/* template.h - chat templates: the part of Jinja that models' templates use, so that a conversation becomes the text that a model was
 * trained on.
 *
 * A template comes with a model's files and is trusted no more than they are: it reads the values that it is given and writes text,
 * touches nothing else, and ends: output, memory, steps and depth have limits. What the language has and this file does not (inheritance,
 * includes, translations, the filters for web pages) is refused by name. Semantics are those of Jinja as transformers sets it up: Python's
 * for values, a block's line end and the spaces before it go (trim_blocks, lstrip_blocks), `tojson` writes plain JSON, break, continue
 * and {% generation %} are there, and so are raise_exception and strftime_now. Beyond that lists and maps may be changed in place, and
 * `from_json` reads JSON. */
#ifndef MN_TEMPLATE_H
#define MN_TEMPLATE_H

#include "format/value.h"

typedef struct mn_template mn_template; /* never changed once it is read: any number of threads may render it */

enum { MN_TEMPLATE_BYTES = 1 << 20 }; /* a longer text is refused */

/* `name` is for messages. MN_ERR_FORMAT: name, line and what was not understood. */
mn_status mn_template_parse(const char *name, const char *text, size_t n, mn_template **out);
void mn_template_free(mn_template *t); /* may be NULL */

typedef struct mn_template_limits { /* 0: the usual one */
  size_t output;                    /* bytes of text: 64 MiB                      */
  size_t memory;                    /* bytes of all values on the way: 512 MiB    */
  int64_t steps;                    /* parts of the template that are run: 20e6   */
  int depth;                        /* of calls in calls and parts in parts: 1000 */
  int64_t now;                      /* what strftime_now takes for now, in seconds since 1970; 0: the clock */
} mn_template_limits;

/* Appends what the template makes of `values`, a map from names to what they mean there. limits NULL: the usual ones. MN_ERR_CONFIG with
 * the template's own words where it refuses (raise_exception); MN_ERR_FORMAT with name, line and reason where it goes wrong or reaches a
 * limit. Nothing is appended then. */
mn_status mn_template_render(const mn_template *t, const mn_value *values, const mn_template_limits *limits, mn_text *out);
/* Does the template mention this name? E.g. "tools", "enable_thinking". */
bool mn_template_mentions(const mn_template *t, const char *name);

#endif
