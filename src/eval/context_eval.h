/* context_eval.h - what a longer past is worth: how well a model says the same tokens of a text when it has read ever more of what stands
 * before them.
 *
 * Places are spread evenly over a text. At each, `judged` tokens are said by a fresh stream that was fed so many tokens before them that
 * it has read `length` in all, for each length in turn. The tokens are the same for all lengths, so what lengths gain on each other is a mean
 * of differences, place by place, and much surer than the difference of two means. A memory that keeps nothing of what left its window
 * gains nothing; one that is harmed by more than it was trained on loses. */
#ifndef MN_CONTEXT_EVAL_H
#define MN_CONTEXT_EVAL_H

#include "base/watch.h"
#include "eval/bootstrap.h"
#include "run/session.h"
#include "source/data.h"

enum { MN_CONTEXTS = 32 };

typedef struct mn_context_config {
  int64_t length[MN_CONTEXTS]; /* tokens that a stream reads before the last it says, rising; n of them */
  int n;
  int64_t judged;  /* tokens that are said at a place, at most length[0] */
  int64_t places;  /* at most so many; fewer where judged tokens would meet */
  int64_t batch;   /* places side by side in a session */
  int64_t prefill; /* see mn_session_config, as are the next two */
  mn_dtype compute;
  bool forget;
  uint64_t seed;  /* of the bootstrap */
  mn_watch watch; /* told the tokens read */
} mn_context_config;

typedef struct mn_context_cell {
  mn_estimate loss;     /* nats a token, mean over places */
  mn_estimate gain;     /* nats a token less than with length[0]; of that one 0 */
  double bits_per_byte; /* NaN where what is judged stands for no bytes */
} mn_context_cell;

typedef struct mn_context_eval {
  int64_t places;
  mn_context_cell cell[MN_CONTEXTS];
  size_t state_bytes; /* of one stream that has read the longest */
  bool forgot;        /* streams outgrew what the model holds */
} mn_context_eval;

/* Tokens that will be read in all, for progress; 0 where the text is too short for any. */
int64_t mn_context_tokens(const mn_corpus *corpus, int split, const mn_context_config *config);
/* The text is a split of `corpus`, read as one: refused are tasks and documents that are each alone, a model that is no stream, a length that it
 * does not hold unless `forget`, and a text that is shorter than the longest length and one token more. */
mn_status mn_eval_contexts(const mn_model *model, const mn_params *params, const mn_corpus *corpus, int split,
                           const mn_context_config *config, mn_context_eval *out);

#endif
