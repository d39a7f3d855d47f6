/* answers.h - are whole answers right? A model that reads a source and says a target (encoder_decoder) answers examples of a source
 * of pairs, streamed token by token; an answer is right when every token of it is. */
#ifndef MN_EVAL_ANSWERS_H
#define MN_EVAL_ANSWERS_H

#include "base/watch.h"
#include "run/beam.h"
#include "source/source.h"

typedef struct mn_answers_config {
  int split;
  int64_t examples; /* at most */
  int64_t batch;    /* answered side by side; 0: 16 */
  int64_t beams;    /* 1: greedy */
  double length_penalty;
  mn_dtype compute;
  mn_watch watch; /* told the examples answered */
} mn_answers_config;

typedef struct mn_answers {
  int64_t examples, right;
  double low, high; /* Wilson's 95 % interval of their ratio */
} mn_answers;

/* MN_ERR_CONFIG when the source has no fields source, source_length, tokens and target, or the model reads none. */
mn_status mn_eval_answers(const mn_model *model, const mn_params *params, mn_source *source, const mn_answers_config *config,
                          mn_answers *out);

#endif
