/* task_eval.h - how well a model remembers, through a session.
 *
 * Tasks of text: the model reads the prompt as a stream and goes on greedily; memory does not grow with the prompt beyond
 * the prompt itself and the state. Who answers is an interface (mn_responder), so that the same grid judges a model, an
 * oracle, or another program.
 * Tasks of token ids: the same samples in parallel form and token by token, the stream saved to a file and restored in
 * another session at a random position; what the two give must be equal. */
#ifndef MN_TASK_EVAL_H
#define MN_TASK_EVAL_H

#include "base/watch.h"
#include "format/plot.h"
#include "format/tokenizer.h"
#include "run/session.h"
#include "task/task.h"

/* ---- answering ---- */
typedef struct mn_responder {
  void *ctx;
  /* Appends to `out` what follows the prompt, at most new_tokens tokens; *prompt_tokens is the prompt's length. */
  mn_status (*answer)(void *ctx, const mn_task_text *sample, int64_t new_tokens, mn_text *out, int64_t *prompt_tokens);
  size_t (*count)(void *ctx, const char *text, size_t n); /* the length of a text in tokens; NULL: bytes */
} mn_responder;

/* A model and its tokenizer, greedy: the likeliest token, until the end-of-text token or the limit. */
typedef struct mn_generator mn_generator;
mn_status mn_generator_new(const mn_model *model, const mn_params *params, const mn_tokenizer *tok, int64_t prefill, mn_dtype compute,
                           bool forget, mn_generator **out);
void mn_generator_free(mn_generator *g);
mn_responder mn_generator_responder(mn_generator *g);
bool mn_generator_forgot(const mn_generator *g); /* a prompt was longer than the model holds, and `forget` let it pass */
size_t mn_generator_state_bytes(const mn_generator *g);
/* The first of the largest; -1 when one is not a number. With a tokenizer (or NULL) only of the ids that it has a token for. */
int64_t mn_greedy(const float *logits, int64_t vocab_size, const mn_tokenizer *tok);

/* ---- tasks of text ---- */
typedef struct mn_text_eval_config {
  int64_t examples, new_tokens; /* new_tokens 0: the task's setting, or 10 where it has none */
  int split;
  mn_watch watch; /* told the examples done */
} mn_text_eval_config;

typedef struct mn_text_eval {
  int64_t examples, right; /* right: everything asked for was found          */
  double score;            /* mean: the part of what was asked for           */
  double low, high;        /* Wilson 95 % interval of right / examples       */
  double prompt_tokens;    /* mean                                           */
  int64_t longest;         /* prompt, in tokens                              */
} mn_text_eval;

/* The task's samples 0 ... examples - 1. Sets how the task counts tokens. */
mn_status mn_eval_text(mn_task *task, const mn_responder *who, const mn_text_eval_config *config, mn_text_eval *out);

/* A grid: one setting (or the length in tokens) along the rows, the depth of the needle along the columns. */
typedef struct mn_grid {
  mn_arena *arena;
  const char *row_label; /* "tokens", or the setting's name                    */
  int rows, columns;
  const char **row_names;    /* [rows]                                             */
  const char **depth_names;  /* [columns]; one "any" when depths are drawn       */
  const mn_value **settings; /* [rows, columns] of the task as it was opened    */
  mn_text_eval *cells;       /* [rows, columns]                                    */
} mn_grid;

typedef struct mn_grid_config {
  mn_text_eval_config each;  /* of every cell; its watch counts the examples of all cells */
  const char *vary;          /* "len" and "garbage" are settings; NULL: the length, as the task sets it (mn_task_fit) */
  const char *const *values; /* of `vary`, or lengths in tokens */
  int n_values;              /* 0: one row, as the settings are  */
  int depths;                /* columns: 0 ... 100 % in equal steps; 0 or 1: depths are drawn, or as the settings say */
} mn_grid_config;

mn_status mn_eval_grid(const char *task, const mn_value *settings, const mn_responder *who, const mn_grid_config *config, mn_grid *out);
void mn_grid_free(mn_grid *g);
/* The part right in each cell, for mn_heatmap_write and mn_heatmap_text; points into the grid. NULL values: no memory. */
mn_heatmap mn_grid_heatmap(mn_grid *g, const char *title);

/* ---- tasks of token ids ---- */
typedef struct mn_stream_eval_config {
  int64_t examples, batch; /* batch 0: chosen from the logits' size */
  int split;
  uint64_t seed;       /* of the places where the stream is saved and restored */
  const char *scratch; /* a path for the session file; removed afterwards      */
  mn_dtype compute;
  bool forget;    /* see mn_session_config */
  mn_watch watch; /* told the examples done */
} mn_stream_eval_config;

typedef struct mn_stream_eval {
  mn_task_score parallel, streamed;
  double difference;  /* the largest between the two forms' logits, relative to the largest logit of the example */
  int64_t restores;   /* how often a stream went through a file */
  size_t state_bytes; /* of one stream */
} mn_stream_eval;

/* Parity to expect in f32: difference <= 1e-4 and equal scores. Nothing is judged here. */
mn_status mn_eval_streamed(const mn_model *model, const mn_params *params, const mn_task *task, const mn_stream_eval_config *config,
                           mn_stream_eval *out);

#endif
