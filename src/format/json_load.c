/* json_load.c - see json_load.h. jansson asks for the text piece by piece, and now and then, between two of them, the stop flag is looked
 * at: a short text is read whole. */
#include "format/json_load.h"

#include <string.h>

typedef struct rest {
  const char *at;
  size_t n, taken; /* taken: since the last look */
} rest;

static size_t feed(void *to, size_t room, void *ctx) {
  rest *r = ctx;
  enum { LOOK_EVERY = 1 << 16 };
  const size_t n = r->n < room ? r->n : room;
  if (r->taken >= LOOK_EVERY && mn_stopped()) return (size_t)-1;
  r->taken = r->taken >= LOOK_EVERY ? n : r->taken + n;
  if (n) memcpy(to, r->at, n);
  r->at += n;
  r->n -= n;
  return n;
}

mn_status mn_json_load(const char *text, size_t n, size_t flags, json_t **out, json_error_t *error) {
  *out = json_load_callback(feed, &(rest){text, n, 0}, flags, error);
  if (*out) return MN_OK;
  MN_TRY(mn_stop_check("reading JSON"));
  return MN_ERR_FORMAT;
}
