/* batcher_internal.h - what the rooms of a batcher share: batcher.c (who is read and fed when), batcher_draw.c (tokens are drawn and told). */
#ifndef MN_SERVE_BATCHER_INTERNAL_H
#define MN_SERVE_BATCHER_INTERNAL_H

#include <pthread.h>

#include "serve/batcher.h"
#include "serve/clients.h"

typedef struct row { /* of the batch; task NULL: empty */
  mn_task *task;
  int64_t answer;
  mn_voice *voice;
  int32_t token;    /* was drawn, and is fed next */
  mn_ending ending; /* with it */
  mn_status status; /* of the draw */
  char why[256];
} row;

typedef struct call {
  struct call *next;
  void (*fn)(void *arg);
  void *arg;
} call;

struct mn_batcher {
  mn_batcher_config config;
  mn_program *program;
  const mn_states *first; /* the program's */
  mn_limit limit;
  size_t stream_bytes; /* of one that fills its caches */
  size_t demand;       /* the worker's: of all that run, when they will have come to their ends */
  pthread_t thread;
  bool runs;
  atomic_int stop;
  pthread_mutex_t mutex; /* of what others than the worker touch: */
  pthread_cond_t wake;
  mn_task *posted, **posted_end;
  call *calls, **calls_end;
  mn_batcher_counts counts;
  /* the worker's own: */
  mn_task *waiting, *reading; /* in the order of posting */
  mn_clients clients;
  mn_session *batch, *spare; /* NULL: none */
  int64_t room, live;        /* rows of the batch; of them full */
  int64_t promised;          /* answers of the prompts that are read */
  row *rows;
  int32_t *tokens, *count; /* [config.rows] */
  bool *left;              /* [config.rows] rows that were left and still have their memory */
  int n_rooms;
  mn_sampler_room **rooms; /* of each thread that draws */
  uint64_t *has;           /* ids that have a token */
  const float *logits;     /* of the step whose tokens are drawn */
};

/* The next token of a row, which is told later: nothing but the row, its voice and the room is touched. */
void batcher_draw(row *r, int64_t position, const float *logits, mn_sampler_room *room);
/* Of all rows, from b->logits, by the threads of the model's pool. */
void batcher_draw_all(mn_batcher *b);
/* What was drawn is told. *whole: the answer is. */
mn_status batcher_tell(mn_batcher *b, mn_task *t, const row *r, int64_t position, bool *whole);

#endif
