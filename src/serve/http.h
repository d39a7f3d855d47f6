/* http.h - the text of HTTP/1.1 (RFC 9112), without sockets: the head of a request, and a body that comes in chunks. All of it is
 * untrusted: what is ambiguous (two lengths, a length beside chunks, folded lines, spaces before a colon) is refused, not guessed. */
#ifndef MN_SERVE_HTTP_H
#define MN_SERVE_HTTP_H

#include "base/text.h"

typedef struct mn_http_header {
  const char *name, *value; /* the name in lower case; the value without spaces around it */
} mn_http_header;

enum { MN_HTTP_HEADERS = 100 };
typedef struct mn_http_head {
  char *text; /* all that the pointers below point into; mn_http_head_free */
  const char *method;
  const char *path;  /* percent-decoded, without the query: "/v1/models"; begins with '/', has no ".." and no zero byte */
  const char *query; /* as it came, after the '?'; "" */
  const char *host;  /* whom it asks, NAME or NAME:PORT: of "http://NAME/path", else the header Host; NULL: nobody is named */
  int minor;         /* HTTP/1.minor */
  int n_headers;
  mn_http_header headers[MN_HTTP_HEADERS];
  int64_t length;               /* Content-Length; -1: none */
  bool chunked, keeps, expects; /* the body comes in chunks; the connection goes on; waits for "100 Continue" */
} mn_http_head;

typedef struct mn_http_fault { /* what the client is told */
  int status;
  const char *message;
} mn_http_fault;

/* The head at the beginning of data[0..n): how many bytes it has, its empty line with it; 0: it is not whole yet; -1: refused, and *fault
 * says why. Empty lines before it are passed over, and counted. */
int64_t mn_http_parse_head(const char *data, size_t n, mn_http_head *out, mn_http_fault *fault);
void mn_http_head_free(mn_http_head *h);
const char *mn_http_header_of(const mn_http_head *h, const char *name); /* in lower case; NULL: not there */

/* A body in chunks; zero-initialise. */
typedef struct mn_http_chunks {
  int state;
  uint64_t left;
  size_t line; /* bytes of a chunk's line, or of the trailer, so far */
  bool digits;
} mn_http_chunks;
/* Takes from data[0..n) and appends what the body holds: how many bytes were taken, -1: refused. *done: the body is whole. `most`: bytes
 * of the whole body. */
int64_t mn_http_take_chunks(mn_http_chunks *c, const char *data, size_t n, size_t most, mn_text *body, bool *done, mn_http_fault *fault);

/* In place, with plus a '+' as a space; false: a '%' without two digits, or a zero byte. */
bool mn_percent_decode(char *s, bool plus);
const char *mn_http_reason(int status); /* "Not Found" */
/* The value of `name` in a query, percent-decoded; free() it. NULL: not there, or out of memory. */
char *mn_http_query(const char *query, const char *name);

#endif
