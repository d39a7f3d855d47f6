/* connection.h - HTTP/1.1 over sockets, on libevent: who listens, connections, TLS, and replies whole or in pieces. One thread runs the
 * loop, and all of this is called in it, but for mn_web_post and mn_web_stop.
 *
 * A connection has one request at a time, its exchange; what a client sends beyond it waits. Every wait has an end: for a head, for a
 * body, for the next request, for a client that does not read. A client that closes its side has left: whoever works for it is told. */
#ifndef MN_SERVE_CONNECTION_H
#define MN_SERVE_CONNECTION_H

#include "serve/http.h"

typedef struct mn_web mn_web;
typedef struct mn_exchange mn_exchange;

typedef struct mn_web_config {
  const char *host;               /* an address or a name */
  int port;                       /* 0: any that is free */
  const char *tls_cert, *tls_key; /* PEM files; NULL: plain HTTP */
  size_t most_head, most_body;    /* bytes */
  int most_connections;
  double request_seconds; /* a request must be whole so long after its first byte */
  double idle_seconds;    /* a connection without a request is closed then, and so is one whose client does not read a reply */
  const char *headers;    /* of every reply: "Name: value\r\n" each; "" */
  /* A request is whole. The handler replies now or later; until then the exchange is its own. */
  void (*handle)(void *ctx, mn_exchange *x);
  /* A reply has gone out, or its client has left: for logs. NULL: nobody asks. */
  void (*over)(void *ctx, const mn_exchange *x);
  void *ctx;
} mn_web_config;

/* Listens already when it returns. */
mn_status mn_web_new(const mn_web_config *config, mn_web **out);
void mn_web_free(mn_web *w); /* connections are closed; nobody is told */
int mn_web_port(const mn_web *w);
bool mn_web_secure(const mn_web *w);
int mn_web_connections(const mn_web *w);
/* Runs the loop until mn_web_stop; `tick` is called ten times a second. */
mn_status mn_web_run(mn_web *w, void (*tick)(void *ctx), void *ctx);
void mn_web_stop(mn_web *w);
/* Connections that wait for a request are closed, and others behind their reply; new ones are taken, for one request each, so that who asks
 * is told that the server ends. */
void mn_web_drain(mn_web *w);
int mn_web_late(const mn_web *w); /* of the connections: those that were opened since */
/* Behind that: no new connections, and those that wait for a request are closed. */
void mn_web_shut(mn_web *w);
/* From any thread: fn(arg) is called in the loop, in the order of posting. False: out of memory, and it is not. */
bool mn_web_post(mn_web *w, void (*fn)(void *arg), void *arg);
/* For a thread that posts much: waits while the loop has more to call than it keeps up with. */
void mn_web_wait(mn_web *w);
void mn_web_settle(mn_web *w); /* calls what was posted, when the loop has ended */

/* ---- an exchange ---- */
const mn_http_head *mn_exchange_head(const mn_exchange *x);
const char *mn_exchange_body(const mn_exchange *x, size_t *n); /* zero-terminated */
/* The same, from now on the caller's, who frees it: for who reads it in another thread. NULL: it is empty. */
char *mn_exchange_take_body(mn_exchange *x, size_t *n);
const char *mn_exchange_peer(const mn_exchange *x); /* the client's address: "127.0.0.1" */
/* What the reply was, so far. left: the client did not wait for its end. */
typedef struct mn_exchange_record {
  int status;
  size_t bytes;
  double seconds;
  bool left;
} mn_exchange_record;
mn_exchange_record mn_exchange_so_far(const mn_exchange *x);
/* Called once if the client leaves before the reply is whole; the exchange is gone when it returns. fn NULL: no more. */
void mn_exchange_on_leave(mn_exchange *x, void (*fn)(void *ctx), void *ctx);
/* One more header of the reply, before it begins. */
void mn_exchange_header(mn_exchange *x, const char *name, const char *value);
/* The whole reply, after which the exchange is gone. */
void mn_exchange_reply(mn_exchange *x, int status, const char *type, const char *body, size_t n);
/* Or in pieces. After mn_exchange_end it is gone. */
void mn_exchange_begin(mn_exchange *x, int status, const char *type);
void mn_exchange_send(mn_exchange *x, const char *data, size_t n);
void mn_exchange_end(mn_exchange *x);
void mn_exchange_drop(mn_exchange *x); /* closes its connection, in the middle of whatever it is */
/* Bytes that the client has not taken yet. */
size_t mn_exchange_behind(const mn_exchange *x);
/* A refusal as JSON: {"error": {"message", "type", "param", "code"}}. param and code: NULL is null. */
void mn_exchange_refuse(mn_exchange *x, int status, const char *type, const char *param, const char *code, const char *message);

#endif
