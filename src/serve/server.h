/* server.h - an HTTP server of one model, whose interface is OpenAI's: completions, streams of tokens, embeddings, sessions that are kept
 * (docs/server.md). The loop's thread reads requests and writes replies; the batcher's worker computes. */
#ifndef MN_SERVE_SERVER_H
#define MN_SERVE_SERVER_H

#include "checkpoint/bundle.h"
#include "serve/batcher.h"
#include "serve/connection.h"

typedef struct mn_server mn_server;

typedef struct mn_server_config {
  const mn_bundle *bundle; /* the model, which outlives the server; with its tokenizer */
  const char *name;        /* what the interface calls it */
  const char *template;    /* a file with a chat template, instead of the model's own; NULL */
  const char *dir;         /* of a model of ours: its recipe.json says how its dialogues were written; NULL */
  /* How it is run: batcher.h. */
  mn_dtype compute;
  bool forget;
  int64_t rows, piece, waiting;
  size_t state_bytes;
  int64_t most_tokens;  /* of an answer where the request says nothing; 0: as many as fit */
  double most_seconds;  /* of a generation; 0: any */
  const char *sessions; /* a folder of kept sessions; NULL: they are kept in memory, and end with the server */
  size_t session_bytes; /* for those that nobody uses just now; 0: 1 GiB */
  /* Who may ask, and from where: connection.h. */
  const char *host, *tls_cert, *tls_key;
  int port, most_connections;
  size_t most_head, most_body;
  double request_seconds, idle_seconds, drain_seconds;
  const char *keys;         /* a file of API keys; NULL: everybody may ask */
  double rate;              /* requests per minute of a key that says none; 0: any */
  const char *const *hosts; /* patterns of names that it may be asked by beside its own (hosts.h), where there are neither keys nor TLS */
  int n_hosts;
  const char *cors; /* an origin whose pages may ask, or "*"; NULL: none */
  const char *log;  /* a file that gets a line for each reply, "-" for standard error; NULL: none */
} mn_server_config;

/* Listens when it returns. */
mn_status mn_server_new(const mn_server_config *config, mn_server **out);
/* After it has run: nobody is answered any more, and all sessions are given back. The first failure to keep one of them (mn_shelf_keep). */
mn_status mn_server_end(mn_server *s);
void mn_server_free(mn_server *s); /* may be NULL */
int mn_server_port(const mn_server *s);
int64_t mn_server_rows(const mn_server *s);
/* Serves until *stop is not 0, and what is being answered then to its end, drain_seconds at most. */
mn_status mn_server_run(mn_server *s, const atomic_int *stop);

#endif
