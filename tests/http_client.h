/* http_client.h - a client that says exactly the bytes it is told, and what came back: for tests of a server. */
#ifndef MN_TEST_HTTP_CLIENT_H
#define MN_TEST_HTTP_CLIENT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/base.h"

static int http_port; /* whom all of this talks to */

static inline int http_open(void) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)http_port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof at) == 0) return fd;
  if (fd >= 0) close(fd);
  return -1;
}

static inline bool http_say(int fd, const char *data, size_t n) {
  while (n) {
    const ssize_t done = send(fd, data, n, MSG_NOSIGNAL);
    if (done <= 0) return false;
    data += done, n -= (size_t)done;
  }
  return true;
}

static char http_reply[1 << 22]; /* what came last, head and all */
static size_t http_n;

/* Reads until `until` was seen, the end, or 60 seconds without a byte. NULL: the end. */
static inline bool http_hear(int fd, const char *until) {
  for (http_n = 0; http_n + 1 < sizeof http_reply;) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, 60000) <= 0) return false;
    const ssize_t got = recv(fd, http_reply + http_n, sizeof http_reply - 1 - http_n, 0);
    if (got <= 0) break;
    http_n += (size_t)got;
    http_reply[http_n] = 0;
    if (until && strstr(http_reply, until)) return true;
  }
  http_reply[http_n] = 0;
  return !until;
}

static inline int http_status(void) { return !strncmp(http_reply, "HTTP/1.1 ", 9) ? atoi(http_reply + 9) : 0; }

/* These bytes on a connection of their own, which is closed behind the reply: its status; 0: none came. */
static inline int http_bytes(const char *data, size_t n) {
  const int fd = http_open();
  http_n = 0, http_reply[0] = 0;
  if (fd < 0) return 0;
  http_say(fd, data, n);
  http_hear(fd, NULL);
  close(fd);
  return http_status();
}

static inline char *http_request(const char *method, const char *path, const char *headers, const char *body) {
  return mn_format("%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n%s", method, path, headers, strlen(body),
                   body);
}

static inline int http_ask(const char *method, const char *path, const char *headers, const char *body) {
  char *text = http_request(method, path, headers, body);
  const int status = text ? http_bytes(text, strlen(text)) : 0;
  free(text);
  return status;
}

static inline int http_get(const char *path) { return http_ask("GET", path, "", ""); }
static inline int http_post(const char *path, const char *fmt, ...) MN_PRINTF(2, 3);
static inline int http_post(const char *path, const char *fmt, ...) {
  char body[1 << 14];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(body, sizeof body, fmt, ap);
  va_end(ap);
  return http_ask("POST", path, "", body);
}

static inline const char *http_body(void) {
  const char *at = strstr(http_reply, "\r\n\r\n");
  return at ? at + 4 : "";
}

static inline int http_times(const char *word) { /* how often the reply holds it */
  int n = 0;
  for (const char *at = http_reply; (at = strstr(at, word)); at += strlen(word)) n++;
  return n;
}

/* What stands in the first "key": "..." behind `from`, as it is written, in a buffer of this function's. */
static inline const char *http_text(const char *from, const char *key) {
  static char out[1 << 16];
  char name[80];
  snprintf(name, sizeof name, "\"%s\": \"", key);
  const char *at = from ? strstr(from, name) : NULL;
  size_t n = 0;
  for (at = at ? at + strlen(name) : ""; *at && *at != '"' && n + 2 < sizeof out; at++) {
    if (*at == '\\') out[n++] = *at++;
    out[n++] = *at;
  }
  out[n] = 0;
  return out;
}

static inline long http_number(const char *key) {
  char name[80];
  snprintf(name, sizeof name, "\"%s\": ", key);
  const char *at = strstr(http_reply, name);
  return at ? atol(at + strlen(name)) : -1;
}

#endif
