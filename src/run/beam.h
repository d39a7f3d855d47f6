/* beam.h - beam search (Graves 2012, arXiv 1211.3711; Sutskever, Vinyals & Le 2014): the likeliest whole answers, found by keeping the
 * best few beginnings. With one beam it is the greedy answer: always the likeliest token. */
#ifndef MN_RUN_BEAM_H
#define MN_RUN_BEAM_H

#include "format/tokenizer.h"
#include "run/session.h"

typedef struct mn_beam_config {
  int64_t beams;         /* beginnings that are kept for each answer; 1: greedy                                            */
  int64_t max_tokens;    /* an answer is cut there                                                                          */
  double length_penalty; /* answers are compared by log p / ((5 + tokens) / 6)^this (Wu et al. 2016, arXiv 1609.08144)      */
  const int32_t *ends;   /* tokens that end an answer; they are not part of it                                              */
  int n_ends;
  const mn_tokenizer *tokens; /* only its tokens are said; NULL: every id of the model                                     */
} mn_beam_config;

typedef struct mn_beam_answer { /* free with mn_beam_answers_free */
  mn_ids tokens;
  double log_p; /* of all tokens and, where it ended, its end, nats */
  bool ended;
} mn_beam_answer;

/* The best answer to each of n streams. `session` has n * beams rows, equal in each group of `beams`, whose logits after the last
 * fed token are [n * beams, vocab_size]; `spare` is another of the same model and batch, which is needed when beams > 1. Both move
 * on. answers [n], zeroed by the caller. A logit that is not finite: MN_ERR_NUMERIC; interrupted (base.h): MN_ERR_CANCELLED. */
mn_status mn_beam_search(mn_session *session, mn_session *spare, const mn_beam_config *config, int64_t n, const float *logits,
                         mn_beam_answer *answers);
void mn_beam_answers_free(mn_beam_answer *answers, int64_t n);

#endif
