/* answer.h - the JSON of what a model said, in the shapes of OpenAI's interface. */
#ifndef MN_SERVE_ANSWER_H
#define MN_SERVE_ANSWER_H

#include "serve/ask.h"

typedef struct mn_answer_head { /* of every reply and every piece of one */
  mn_ask_kind kind;
  const char *id, *model;
  int64_t created;
  bool stream, usage; /* in pieces; the last says how many tokens, and the others say null */
} mn_answer_head;

typedef struct mn_answer_logs {       /* log-probabilities of tokens, as lists without their brackets; zero-initialise */
  mn_text tokens, log_p, top, offset; /* completions */
  mn_text content;                    /* chats */
  int64_t n, at;                      /* tokens; characters before the next */
} mn_answer_logs;
/* One token more. */
void mn_answer_log(mn_answer_logs *l, mn_ask_kind kind, const mn_tokenizer *tok, const mn_said *said);
/* The first of a completion's prompt, of which nothing is said. */
void mn_answer_log_first(mn_answer_logs *l, const mn_tokenizer *tok, int32_t token);
void mn_answer_logs_clear(mn_answer_logs *l); /* of the tokens; `at` stays */
void mn_answer_logs_free(mn_answer_logs *l);

typedef struct mn_answer_choice {
  int64_t index;
  const char *text; /* of a completion, or the content of a chat's message */
  size_t n;
  bool begins;                /* the first piece of a chat: says the role */
  const mn_answer_logs *logs; /* NULL: none */
  const char *calls;          /* of functions, as the items of a list; NULL: none */
  const char *finish;         /* "stop"; NULL: it goes on */
} mn_answer_choice;

typedef struct mn_answer_usage {
  int64_t prompt, made, cached; /* tokens; of the prompt those that a session knew */
} mn_answer_usage;

/* A whole reply, or with head.stream a piece of one. usage NULL: it is not the last piece. */
void mn_answer_write(mn_text *out, const mn_answer_head *head, const mn_answer_choice *choices, int64_t n, const mn_answer_usage *usage);

/* A JSON string of these bytes; what is not UTF-8 becomes U+FFFD. */
void mn_answer_quote(mn_text *out, const char *s, size_t n);

#endif
