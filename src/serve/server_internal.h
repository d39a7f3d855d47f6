/* server_internal.h - what the rooms of a server share. */
#ifndef MN_SERVE_SERVER_INTERNAL_H
#define MN_SERVE_SERVER_INTERNAL_H

#include <pthread.h>
#include <stdio.h>
#include <time.h>

#include "run/chat.h"
#include "run/embedder.h"
#include "run/shelf.h"
#include "serve/ask.h"
#include "serve/keys.h"
#include "serve/metrics.h"
#include "serve/readers.h"
#include "serve/server.h"

typedef struct mn_talk mn_talk; /* a request that a model answers (talk.c) */

struct mn_server {
  mn_server_config config;
  mn_web *web;
  mn_batcher *batcher;
  mn_keys *keys; /* NULL: everybody */
  mn_metrics metrics;
  mn_readers *readers; /* of what requests ask for */
  mn_lexicon *lexicon; /* of the vocabulary, when it was first needed */
  pthread_mutex_t lexicon_lock;
  mn_chat_format *chat;  /* NULL: there is none */
  mn_shelf *shelf;       /* of kept sessions; NULL: the model makes no text */
  bool kept;             /* sessions were, at the end */
  mn_embedder *embedder; /* NULL: the model is no encoder of texts */
  int errands;           /* of sessions, that are under way */
  mn_talk *talks;        /* that are not over */
  char *headers;         /* of every reply */
  FILE *log;
  int64_t log_lost; /* lines that could not be written since it was last written */
  time_t created;
  uint64_t number, salt; /* of the next reply; what ids begin with */
  const atomic_int *stop;
  double drains_until; /* 0: it does not end yet */
};

/* ---- endpoints: each replies, now or later ---- */
typedef struct mn_request {
  mn_exchange *x;
  uint64_t client;  /* whose turn it is, and who began so before: the key, or the address */
  uint64_t owner;   /* whose sessions are meant: the key's; 0, without keys: everybody's */
  const char *rest; /* of the path, behind that of the endpoint: a session's name; "" */
} mn_request;
void mn_serve_generate(mn_server *s, const mn_request *r, mn_ask_kind kind);
void mn_serve_embeddings(mn_server *s, const mn_request *r);
void mn_serve_sessions(mn_server *s, const mn_request *r);
/* The methods that a path below /sessions is for, "GET, HEAD"; NULL: there is nothing at it. */
const char *mn_serve_sessions_methods(const char *rest);
/* Every generation ends now: the server does. */
void mn_serve_cancel_all(mn_server *s);
void mn_serve_check_times(mn_server *s); /* those that took too long */

void mn_serve_refuse(mn_exchange *x, const mn_refusal *why);
/* The refusal for a status of the library. */
void mn_serve_failed(mn_exchange *x, mn_status status, const char *message);
/* Names keys that have no effect in the reply's header. */
void mn_serve_name_labels(mn_exchange *x, const mn_ask *ask);
int mn_serve_http_status(mn_status status);
bool mn_serve_check_model(const mn_server *s, const mn_ask *ask, mn_refusal *why);

#endif
