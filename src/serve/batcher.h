/* batcher.h - many streams of one model at once: continuous batching. One thread, the worker, owns every session.
 *
 * Streams join and leave between steps. A step feeds one token to every row of a batch, and the next ones are drawn by the threads of the
 * model's pool, a row at a time; between two steps one prompt is read on by one piece in a session of its own, or several are that are
 * short, so that prompts keep no answer waiting for longer than a piece takes. When a prompt is read its
 * state is copied into as many rows as it has answers. A batch has 1, 2, 4, ... rows, as few as hold all; a row that is empty is fed no
 * token and costs its part of the products, and a stream's logits do not depend on who its neighbours are, up to the order of sums.
 *
 * Who is next is decided by counters of tokens (Sheng et al. 2024, "Fairness in Serving Large Language Models", arXiv 2401.00588): each client
 * has one, which grows with what is read and made for it; of those that want something the least served goes first, and whoever comes
 * anew begins where the least served stands. Of one client's prompts the one that was read least goes first. A prompt begins when its rows
 * are free, and its state, as long as its answers may get, fits beside those of all others. */
#ifndef MN_SERVE_BATCHER_H
#define MN_SERVE_BATCHER_H

#include <stdatomic.h>

#include "run/conversation.h"
#include "serve/voice.h"

typedef struct mn_batcher mn_batcher;

typedef struct mn_batcher_config {
  const mn_model *model; /* these three outlive it */
  const mn_params *params;
  const mn_tokenizer *tokenizer;
  mn_dtype compute;
  bool forget;        /* a stream may outgrow its cache (session.h) */
  int64_t rows;       /* streams at once, at most              */
  int64_t piece;      /* tokens of a prompt between two steps  */
  int64_t waiting;    /* tasks that wait, at most              */
  size_t state_bytes; /* for the states of all streams as far as they will be in use; 0: any */
} mn_batcher_config;

typedef struct mn_task_times { /* seconds of mn_now; 0: not yet */
  double posted, admitted, first, over;
} mn_task_times;

/* A prompt and its answers: made and owned by who asks; from mn_batcher_post on the worker's, until `over` was called. */
typedef struct mn_task {
  const int32_t *prompt;
  int64_t n_prompt;
  int64_t answers;  /* at least 1; each is a stream */
  mn_manner manner; /* most 0: nothing is made, the prompt is read */
  uint64_t client;
  /* Where the prompt is read by a conversation that is kept, of one answer: it reads what it does not know yet, and has heard the answer
   * when it is given back. `appends`: the prompt follows what it has read; else it is all that it shall have read. `take` is called when the prompt's turn has come, `give` before `over`,
   * whatever happens; both by the worker. NULL: a stream that is forgotten. */
  mn_status (*take)(void *ctx, mn_conversation **out);
  void (*give)(void *ctx, mn_conversation *c, mn_status status);
  bool appends;
  /* The conversation is given back when the prompt is read and its answers have begun, of which there may be any number: it hears none of
   * them, and stands at the prompt's end for others that begin so. */
  bool lends;
  bool begun; /* set by `take`: what the conversation has read is how this prompt begins, also where it appends */
  /* Of each token of the prompt but the first, what the model says of it; the prompt is read token by token then. NULL: nobody asks. Not
   * beside `take`. */
  void (*heard)(void *ctx, const mn_said *said);
  /* All three are called by the worker, and wait for nobody but who must keep up with them. A token of an answer, and the text that is certain by it; said is NULL where
   * manner.top is -1. */
  void (*told)(void *ctx, int64_t answer, const mn_said *said, const char *text, size_t n);
  void (*ended)(void *ctx, int64_t answer, mn_ending why);
  /* The last call. `why`: of a failure; MN_ERR_CANCELLED after mn_batcher_cancel. */
  void (*over)(void *ctx, mn_status status, const char *why);
  void *ctx;
  /* Filled in by the worker: */
  int64_t made;   /* tokens of all answers */
  int64_t cached; /* of the prompt those that its conversation knew */
  bool no_room;   /* it failed as the prompt does not fit behind what its conversation has read */
  mn_ids drawn;   /* tokens of the answer, where there is a conversation; the asker frees it */
  mn_task_times times;
  atomic_bool cancelled;
  struct mn_task *next; /* from here on the worker's own */
  mn_session *reader;
  mn_conversation *conversation;
  int32_t *whole;     /* what it had read, and the prompt */
  bool promised;      /* rows are kept for its answers */
  bool taken;         /* its conversation was asked for, and its demand is known */
  bool admitted;      /* its demand is part of the worker's */
  size_t demand;      /* bytes of state that it will have when all its answers are as long as they may be */
  int64_t read, live; /* tokens of the prompt; answers that are being made */
} mn_task;

/* model NULL: a worker that only makes calls. MN_ERR_CONFIG for a model that makes no text, with the reason. */
mn_status mn_batcher_new(const mn_batcher_config *config, mn_batcher **out);
/* Whatever is not over ends with MN_ERR_CANCELLED. */
void mn_batcher_free(mn_batcher *b);

/* MN_ERR_MEMORY with *full: as many wait already as may. After MN_OK `over` is called once, whatever happens. */
mn_status mn_batcher_post(mn_batcher *b, mn_task *task, bool *full);
void mn_batcher_cancel(mn_batcher *b, mn_task *task); /* while the task is there */
/* fn(arg) is called by the worker between two steps, in the order of posting: for whatever else uses the model. */
mn_status mn_batcher_call(mn_batcher *b, void (*fn)(void *arg), void *arg);

/* How many tokens a stream may have; MN_LIMIT_NONE: any number. */
int64_t mn_batcher_context(const mn_batcher *b);
size_t mn_batcher_stream_bytes(const mn_batcher *b); /* the state of one that fills its context */
mn_program *mn_batcher_program(const mn_batcher *b);
int64_t mn_batcher_rows(const mn_batcher *b); /* that there may be */

enum { MN_BATCH_SIZES = 12 };
typedef struct mn_batcher_counts {      /* now, and since the start */
  int64_t waiting, reading, rows, room; /* tasks; prompts; answers that are being made; rows of the batch */
  int64_t tokens_read, tokens_made, steps, pieces, row_steps;
  int64_t steps_of[MN_BATCH_SIZES]; /* steps with up to 1, 2, 4 ... rows */
  double step_seconds, piece_seconds;
  size_t state_bytes; /* in use */
} mn_batcher_counts;
mn_batcher_counts mn_batcher_count(mn_batcher *b);

#endif
