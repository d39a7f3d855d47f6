/* ask.h - what a request asks for: the JSON of POST bodies, read into a struct. The names and meanings of keys are those of OpenAI's
 * interface; top_k, min_p, repetition_penalty, ignore_eos and session_id are this server's own. A key that would have no effect is
 * refused, or, where it is only a label, named in the reply's header Mneme-No-Effect. */
#ifndef MN_SERVE_ASK_H
#define MN_SERVE_ASK_H

#include "format/value.h"
#include "serve/voice.h"

typedef enum mn_ask_kind { MN_ASK_COMPLETION = 1, MN_ASK_CHAT = 2, MN_ASK_EMBEDDING = 4, MN_ASK_RESPONSE = 8 } mn_ask_kind;

typedef struct mn_refusal { /* what the client is told */
  int status;
  const char *code; /* a word for programs: "invalid_value"; NULL */
  char param[64];   /* the key; "": none */
  char message[600];
} mn_refusal;

typedef struct mn_ask_prompt { /* a text, or ids where they are not NULL */
  const char *text;
  size_t n;
  const int32_t *ids;
  int64_t n_ids;
} mn_ask_prompt;

typedef struct mn_ask_limits {
  int64_t vocab_size, most_answers, most_prompts, most_tokens;
} mn_ask_limits;

enum { MN_ASK_STOPS = 16, MN_ASK_LABELS = 12 };
typedef struct mn_ask {
  mn_ask_kind kind;            /* of MN_ASK_RESPONSE, once it is read, MN_ASK_CHAT */
  bool response;               /* it is answered as one */
  const mn_value *asked;       /* the body of a response, as it came */
  bool store;                  /* a response is kept, under its id */
  const char *previous;        /* the response that it goes on from; NULL: none */
  const char *model, *session; /* NULL: not given */
  const char *most_key;        /* what the request calls manner.most */
  const mn_ask_prompt *prompts;
  int64_t n_prompts, n;
  const mn_value *messages;
  mn_manner manner; /* `most` is -1 where the request does not say; ends are the server's */
  bool stream, include_usage, echo, ignore_eos;
  bool seeded;                                                        /* the request says its seed */
  enum { MN_FORMAT_TEXT, MN_FORMAT_OBJECT, MN_FORMAT_SCHEMA } format; /* what the answer must be */
  const mn_value *schema;
  const mn_value *tools; /* chats; NULL: none */
  enum { MN_TOOLS_AUTO, MN_TOOLS_NONE, MN_TOOLS_MUST } choice;
  const char *function;              /* the one that must be called; NULL: any */
  bool one_call;                     /* of several calls the first alone */
  const mn_value *template_values;   /* more for the chat template; NULL: none */
  bool as_base64;                    /* embeddings */
  int64_t dimensions;                /* embeddings; 0: all */
  const char *labels[MN_ASK_LABELS]; /* keys that have no effect */
  int n_labels;
} mn_ask;

/* The body of a request. What `out` points to lives in the arena. False: refused. */
bool mn_ask_read(mn_arena *arena, mn_ask_kind kind, const char *body, size_t n, const mn_ask_limits *limits, mn_ask *out, mn_refusal *why);
/* Fills in a refusal and returns false. param NULL: none. */
bool mn_refuse(mn_refusal *why, int status, const char *param, const char *code, const char *fmt, ...) MN_PRINTF(5, 6);

#endif
