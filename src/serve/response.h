/* response.h - the JSON of /v1/responses: a response, and the events that a stream of one is made of. */
#ifndef MN_SERVE_RESPONSE_H
#define MN_SERVE_RESPONSE_H

#include "serve/answer.h"
#include "serve/tools.h"

typedef struct mn_response { /* as far as it is; all of it is borrowed */
  const char *id, *model;
  int64_t created;
  const mn_ask *ask;
  enum { MN_RESPONSE_GOES_ON, MN_RESPONSE_WHOLE, MN_RESPONSE_CUT, MN_RESPONSE_FAILED } state;
  const char *text; /* what was said beside calls */
  size_t n;
  const mn_tool_call *calls;
  int n_calls;
  const mn_answer_usage *usage; /* NULL: not known yet */
  const char *why;              /* of a failure */
} mn_response;
void mn_response_write(mn_text *out, const mn_response *r);

/* A stream: its events in order, as lines of SSE. Zero-initialise. */
typedef struct mn_response_stream {
  int64_t number; /* of the next event */
  bool message;   /* the item of the text is open */
  mn_text said;   /* so far */
} mn_response_stream;
void mn_response_begin(mn_text *out, mn_response_stream *s, const mn_response *r);
void mn_response_say(mn_text *out, mn_response_stream *s, const mn_response *r, const char *text, size_t n);
/* What is left to say: the end of the text, calls, and the response as a whole. */
void mn_response_end(mn_text *out, mn_response_stream *s, const mn_response *r);

#endif
