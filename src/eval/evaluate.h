/* evaluate.h - a model on a split of its data: perplexity and bits per byte of text, accuracy of tasks. */
#ifndef MN_EVALUATE_H
#define MN_EVALUATE_H

#include <signal.h>

#include "model/model.h"
#include "source/data.h"

typedef struct mn_evaluation {
  int64_t batches, tokens; /* targets that count            */
  int64_t bytes;           /* of text they stand for; 0: none */
  double loss;             /* mean negative log-likelihood per token, in nats */
  double perplexity;       /* exp(loss)                       */
  double bits_per_byte;    /* NaN without bytes               */
  mn_task_score score;     /* of a task's samples             */
  bool forgot;             /* rows outgrew what the model holds */
} mn_evaluation;

typedef struct mn_evaluator mn_evaluator;

typedef struct mn_evaluator_config {
  int64_t batch, seq_len;
  mn_dtype compute;
  bool carry_state; /* rows go on from batch to batch, as the corpus' order says */
  bool forget;      /* a row may outgrow what the model holds: its oldest tokens are forgotten; else that is refused */
} mn_evaluator_config;

/* All arguments must outlive it; parameters are read where they lie. */
mn_status mn_evaluator_new(const mn_model *m, const mn_params *p, mn_corpus *corpus, const mn_evaluator_config *config, mn_evaluator **out);
void mn_evaluator_free(mn_evaluator *e);
/* At most max_batches of the split (0: all of a text); `stop` (may be NULL) ends it early with MN_ERR_CANCELLED. */
mn_status mn_evaluate(mn_evaluator *e, int split, int64_t max_batches, const volatile sig_atomic_t *stop, mn_evaluation *out);

#endif
