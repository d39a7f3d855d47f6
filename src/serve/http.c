/* http.c - see http.h. */
#define _GNU_SOURCE /* memmem */
#include "serve/http.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "serve/hosts.h"

static int64_t refuse(mn_http_fault *fault, int status, const char *message) {
  *fault = (mn_http_fault){status, message};
  return -1;
}

enum { TLS_RECORD = 0x16 }; /* what a client says first who begins TLS */

static bool of_a_token(unsigned char c) { return isalnum(c) || (c && strchr("!#$%&'*+-.^_`|~", c)); }

static int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool mn_percent_decode(char *s, bool plus) {
  char *to = s;
  for (; *s; s++) {
    if (*s == '%') {
      int high = hex(s[1]), low = high < 0 ? -1 : hex(s[2]);
      if (low < 0 || high * 16 + low == 0) return false;
      *to++ = (char)(high * 16 + low);
      s += 2;
    } else *to++ = plus && *s == '+' ? ' ' : *s;
  }
  *to = 0;
  return true;
}

static bool climbs(const char *path) { /* has a part ".." */
  for (const char *at = path; (at = strstr(at, "..")); at += 2)
    if ((at == path || at[-1] == '/' || at[-1] == '\\') && (!at[2] || at[2] == '/' || at[2] == '\\')) return true;
  return false;
}

/* "GET /path?query HTTP/1.1", zero-terminated. */
static int64_t request_line(char *line, mn_http_head *h, mn_http_fault *fault) {
  char *target = strchr(line, ' '), *version = target ? strchr(target + 1, ' ') : NULL;
  if (!version || strchr(version + 1, ' ')) return refuse(fault, 400, "the request line is not METHOD PATH HTTP/1.1");
  *target++ = *version++ = 0;
  if (strncmp(version, "HTTP/", 5) != 0) return refuse(fault, 400, "the request line is not METHOD PATH HTTP/1.1");
  if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0)
    return refuse(fault, 505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
  h->minor = version[7] - '0';
  h->method = line;
  if (!*line) return refuse(fault, 400, "the request line has no method");
  for (const char *c = line; *c; c++)
    if (!of_a_token((unsigned char)*c)) return refuse(fault, 400, "the method is not a word");
  if (!strncasecmp(target, "http://", 7) || !strncasecmp(target, "https://", 8)) { /* as a proxy asks */
    char *from = strchr(target, ':') + 3, *path = strchr(from, '/');
    if (!path) return refuse(fault, 400, "the request has no path");
    h->host = memmove(from - 1, from, (size_t)(path - from)); /* its end takes the room of a '/' */
    path[-1] = 0;
    target = path;
  }
  if (*target != '/' && strcmp(target, "*") != 0) return refuse(fault, 400, "the path does not begin with '/'");
  char *end = strpbrk(target, "?#");
  h->query = "";
  if (end && *end == '#') return refuse(fault, 400, "the path has a '#'");
  if (end) *end = 0, h->query = end + 1;
  if (!mn_percent_decode(target, false))
    return refuse(fault, 400, "the path has a '%' that two hexadecimal digits do not follow, or a zero byte");
  if (climbs(target)) return refuse(fault, 400, "the path has a part '..'");
  h->path = target;
  return 0;
}

/* Those that are there once: of two, each reader could take another. */
static bool is_single(const char *name) {
  static const char *const all[] = {"host", "authorization", "content-type", "content-encoding"};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (!strcmp(name, all[i])) return true;
  return false;
}

static int64_t header_line(char *line, mn_http_head *h, mn_http_fault *fault) {
  char *colon = strchr(line, ':');
  if (*line == ' ' || *line == '\t') return refuse(fault, 400, "a header goes on in a second line");
  if (!colon || colon == line) return refuse(fault, 400, "a header is not NAME: VALUE");
  if (h->n_headers == MN_HTTP_HEADERS) return refuse(fault, 431, "the request has more than 100 headers");
  for (char *c = line; c < colon; c++) {
    if (!of_a_token((unsigned char)*c)) return refuse(fault, 400, "a header's name is not a word");
    *c = (char)tolower((unsigned char)*c);
  }
  char *value = colon + 1, *end = colon + strlen(colon);
  *colon = 0;
  while (*value == ' ' || *value == '\t') value++;
  while (end > value && (end[-1] == ' ' || end[-1] == '\t')) *--end = 0;
  for (const char *c = value; *c; c++)
    if ((unsigned char)*c < 0x20 && *c != '\t') return refuse(fault, 400, "a header's value has a control character");
  if (is_single(line) && mn_http_header_of(h, line))
    return refuse(fault, 400, "the request has two headers of which there is one: Host, Authorization, Content-Type or Content-Encoding");
  h->headers[h->n_headers++] = (mn_http_header){line, value};
  return 0;
}

/* Is `word` one of the list "a, b"? */
static bool lists(const char *list, const char *word) {
  const size_t n = strlen(word);
  for (const char *at = list; *at;) {
    at += strspn(at, ", \t");
    size_t len = strcspn(at, ","), bare = len;
    while (bare && (at[bare - 1] == ' ' || at[bare - 1] == '\t')) bare--;
    if (bare == n && !strncasecmp(at, word, n)) return true;
    at += len;
  }
  return false;
}

/* What the headers say of the body and of the connection. */
static int64_t understand(mn_http_head *h, mn_http_fault *fault) {
  bool closes = false, stays = false;
  h->length = -1;
  for (int i = 0; i < h->n_headers; i++) {
    const char *name = h->headers[i].name, *value = h->headers[i].value;
    if (!strcmp(name, "content-length")) {
      const size_t digits = strspn(value, "0123456789");
      if (h->length >= 0) return refuse(fault, 400, "the request has two Content-Length headers");
      if (!digits || value[digits] || digits > 18) return refuse(fault, 400, "Content-Length is not a number of bytes");
      h->length = strtoll(value, NULL, 10);
    } else if (!strcmp(name, "transfer-encoding")) {
      if (h->chunked || strcasecmp(value, "chunked") != 0) return refuse(fault, 501, "of transfer encodings only chunked is known here");
      h->chunked = true;
    } else if (!strcmp(name, "content-encoding")) {
      if (*value && strcasecmp(value, "identity") != 0) return refuse(fault, 415, "the body has a Content-Encoding: send it as it is");
    } else if (!strcmp(name, "connection")) {
      closes = closes || lists(value, "close");
      stays = stays || lists(value, "keep-alive");
    } else if (!strcmp(name, "expect")) {
      if (strcasecmp(value, "100-continue") != 0) return refuse(fault, 417, "of expectations only 100-continue is known here");
      h->expects = h->minor >= 1;
    }
  }
  if (h->chunked && h->length >= 0) return refuse(fault, 400, "the request has both Content-Length and Transfer-Encoding");
  const char *host = mn_http_header_of(h, "host");
  if (h->minor >= 1 && !host) return refuse(fault, 400, "the request has no Host header");
  if (!h->host) h->host = host;
  if (h->host && !mn_host_valid(h->host, strlen(h->host))) return refuse(fault, 400, "the request's host is not NAME or NAME:PORT");
  h->keeps = !closes && (h->minor >= 1 || stays);
  return 0;
}

int64_t mn_http_parse_head(const char *data, size_t n, mn_http_head *out, mn_http_fault *fault) {
  size_t before = 0;
  *out = (mn_http_head){0};
  while (before + 1 < n && before < 8 && data[before] == '\r' && data[before + 1] == '\n') before += 2;
  /* No method begins so, and of a client that speaks TLS more would never come. */
  if (n > before && data[before] != '\r' && !of_a_token((unsigned char)data[before]))
    return refuse(fault, 400,
                  data[before] == TLS_RECORD ? "this is TLS, and this server has none: its address begins with http://, not https://"
                                             : "the request line is not METHOD PATH HTTP/1.1");
  const char *end = n > before ? memmem(data + before, n - before, "\r\n\r\n", 4) : NULL;
  if (!end) return 0;
  const size_t size = (size_t)(end - data) - before + 2; /* with the last line's end */
  if (memchr(data + before, 0, size)) return refuse(fault, 400, "the request's head has a zero byte");
  out->text = mn_alloc(size + 1);
  if (!out->text) return refuse(fault, 503, "out of memory");
  memcpy(out->text, data + before, size);
  out->text[size] = 0;
  int64_t fine = 0;
  int line = 0;
  for (char *at = out->text, *next; *at && fine == 0; at = next, line++) {
    next = strstr(at, "\r\n");
    *next = 0;
    next += 2;
    if (strpbrk(at, "\r\n")) fine = refuse(fault, 400, "a line of the request's head does not end with CR LF");
    else fine = line == 0 ? request_line(at, out, fault) : header_line(at, out, fault);
  }
  if (fine == 0) fine = understand(out, fault);
  if (fine < 0) mn_http_head_free(out);
  return fine < 0 ? -1 : (int64_t)(before + size + 2);
}

void mn_http_head_free(mn_http_head *h) {
  free(h->text);
  *h = (mn_http_head){0};
}

const char *mn_http_header_of(const mn_http_head *h, const char *name) {
  for (int i = 0; i < h->n_headers; i++)
    if (!strcmp(h->headers[i].name, name)) return h->headers[i].value;
  return NULL;
}

/* ---- chunks ---- */
enum { SIZE, EXTENSION, SIZE_END, DATA, DATA_CR, DATA_LF, TRAILER, TRAILER_LINE, TRAILER_LF, LAST_LF, WHOLE };
enum { MOST_LINE = 4096 };

/* One byte outside of data. The state after it; -1: refused. */
static int64_t step(mn_http_chunks *c, char b, mn_http_fault *fault) {
  const char *const bad = "a chunk of the body is not SIZE, CR LF, bytes, CR LF";
  if (c->state != DATA_CR && c->state != DATA_LF && ++c->line > MOST_LINE)
    return refuse(fault, 431, "the lines between chunks are too long");
  switch (c->state) {
  case SIZE:
    if (hex(b) >= 0) {
      if (c->left >> 56) return refuse(fault, 413, "a chunk of the body is too large");
      c->left = c->left * 16 + (uint64_t)hex(b);
      c->digits = true;
      return SIZE;
    }
    if (!c->digits) return refuse(fault, 400, bad);
    return b == '\r' ? SIZE_END : b == ';' || b == ' ' || b == '\t' ? EXTENSION : refuse(fault, 400, bad);
  case EXTENSION:
    return b == '\r' ? SIZE_END : b == '\n' ? refuse(fault, 400, bad) : EXTENSION;
  case SIZE_END:
    if (b != '\n') return refuse(fault, 400, bad);
    c->line = 0;
    c->digits = false;
    return c->left ? DATA : TRAILER;
  case DATA_CR:
    return b == '\r' ? DATA_LF : refuse(fault, 400, bad);
  case DATA_LF:
    return b == '\n' ? SIZE : refuse(fault, 400, bad);
  case TRAILER: /* at the beginning of a line */
    return b == '\r' ? LAST_LF : TRAILER_LINE;
  case TRAILER_LINE:
    return b == '\r' ? TRAILER_LF : TRAILER_LINE;
  case TRAILER_LF:
    return b == '\n' ? TRAILER : refuse(fault, 400, bad);
  case LAST_LF:
    return b == '\n' ? WHOLE : refuse(fault, 400, bad);
  }
  return refuse(fault, 400, bad);
}

int64_t mn_http_take_chunks(mn_http_chunks *c, const char *data, size_t n, size_t most, mn_text *body, bool *done, mn_http_fault *fault) {
  size_t at = 0;
  *done = false;
  while (at < n && c->state != WHOLE) {
    if (c->state == DATA) {
      const size_t take = c->left < n - at ? (size_t)c->left : n - at;
      mn_text_add_bytes(body, data + at, take);
      if (body->failed) return refuse(fault, 503, "out of memory");
      at += take;
      c->left -= take;
      if (!c->left) c->state = DATA_CR;
      continue;
    }
    const int64_t next = step(c, data[at++], fault);
    if (next < 0) return -1;
    c->state = (int)next;
    if (c->state == DATA && (body->len > most || c->left > most - body->len)) return refuse(fault, 413, "the body is too large");
  }
  *done = c->state == WHOLE;
  return (int64_t)at;
}

/* ---- words ---- */
const char *mn_http_reason(int status) {
  static const struct {
    int status;
    const char *reason;
  } all[] = {{100, "Continue"},
             {200, "OK"},
             {204, "No Content"},
             {400, "Bad Request"},
             {401, "Unauthorized"},
             {403, "Forbidden"},
             {404, "Not Found"},
             {405, "Method Not Allowed"},
             {408, "Request Timeout"},
             {409, "Conflict"},
             {413, "Content Too Large"},
             {415, "Unsupported Media Type"},
             {417, "Expectation Failed"},
             {429, "Too Many Requests"},
             {431, "Request Header Fields Too Large"},
             {500, "Internal Server Error"},
             {501, "Not Implemented"},
             {503, "Service Unavailable"},
             {505, "HTTP Version Not Supported"},
             {507, "Insufficient Storage"}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (all[i].status == status) return all[i].reason;
  return status < 400 ? "OK" : status < 500 ? "Bad Request" : "Internal Server Error";
}

char *mn_http_query(const char *query, const char *name) {
  const size_t n = strlen(name);
  for (const char *at = query; *at; at += at[strcspn(at, "&")] ? strcspn(at, "&") + 1 : strcspn(at, "&")) {
    if (strncmp(at, name, n) != 0 || at[n] != '=') continue;
    const size_t length = strcspn(at + n + 1, "&");
    char *value = mn_alloc(length + 1);
    if (!value) return NULL;
    memcpy(value, at + n + 1, length);
    value[length] = 0;
    if (mn_percent_decode(value, true)) return value;
    free(value);
    return NULL;
  }
  return NULL;
}
