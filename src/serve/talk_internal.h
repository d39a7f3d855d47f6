/* talk_internal.h - what the two rooms of a talk share: talk.c (a request becomes tasks), talk_reply.c (what is told becomes a reply). */
#ifndef MN_SERVE_TALK_INTERNAL_H
#define MN_SERVE_TALK_INTERNAL_H

#include "serve/answer.h"
#include "serve/response.h"
#include "serve/server_internal.h"

typedef struct choice {
  mn_text text; /* all of it, or in a stream with tools what has not gone out */
  mn_answer_logs logs;
  mn_ending ending;
  bool begun;                /* its first piece has gone out */
  const mn_tool_call *calls; /* that it was, of functions */
  int n_calls;
} choice;

typedef struct part { /* a prompt */
  mn_talk *talk;
  mn_task task;
  mn_ids ids;
  int64_t index;
} part;

struct mn_talk {
  mn_server *server;
  mn_talk *next;
  mn_exchange *x;   /* NULL: the client has left */
  atomic_bool gone; /* the same, for a reader */
  mn_arena *arena;
  char *body;
  size_t n_body;
  bool read;            /* a reader has it: nothing but x, timed_out and next is the loop's meanwhile */
  bool fine, is_set_up; /* what a reader found: it may go on; its prompts are tokens */
  mn_refusal why;       /* or else */
  const char *holds;    /* the session that nobody else may ask for meanwhile; NULL: none */
  uint64_t holder;      /* whose it is */
  mn_ask ask;
  part *parts;
  choice *choices;                  /* [n_prompts * n] */
  int64_t n_parts, n_choices, open; /* parts that are not over */
  mn_grammar *grammar;              /* what answers must be; NULL: any text */
  mn_machine *machine;
  mn_text note; /* of its kept session, as it was; and the next, as far as it is known: kept.h */
  mn_text next_note, said;
  mn_ids known;              /* the tokens that the session stands at, of a chat */
  mn_response_stream events; /* of a response that is a stream */
  bool busy;                 /* another process has the session, or has changed it while this request waited */
  bool lost;                 /* there is no response that it could go on from */
  uint64_t client, owner;    /* as of a mn_request */
  char id[48];
  int64_t created;
  double began;
  bool started, timed_out; /* the reply has begun */
};

typedef struct event_of { /* what the worker tells */
  part *part;
  int64_t answer;
  enum { TOLD, HEARD, ENDED, OVER } what; /* HEARD: of a token of the prompt */
  bool has_said;
  mn_said said;
  mn_ending ending;
  mn_status status;
  size_t n;
  char text[];
} event_of;

/* In the loop, in the order of telling; the event is freed. */
void talk_deliver(void *event);
/* A piece of a stream. last: it says why the answer ended. */
void talk_send(mn_talk *t, int64_t i, const char *text, size_t n, bool last);
/* The key of the request that holds what is to be answered. */
const char *talk_prompt_key(const mn_ask *a);
/* The key of the request that says what form answers have. */
const char *talk_form_key(const mn_talk *t);
/* The client has left: nothing is made for it any more. */
void talk_left(void *talk);
void talk_free(mn_talk *t);

#endif
