/* soft_targets.h - what a trained model says of its training data, kept in a file: the likeliest tokens of every position with their
 * probabilities, beside the fields that it read. A source of tensors reads the file, and the objective distillation (from: sparse)
 * learns from it without the model. */
#ifndef MN_EVAL_SOFT_TARGETS_H
#define MN_EVAL_SOFT_TARGETS_H

#include "base/watch.h"
#include "model/params.h"
#include "source/source.h"

typedef struct mn_soft_targets_config {
  int64_t batch, seq_len;
  int64_t batches; /* at most; 0: all of the training split once, which a task has not */
  int64_t top;     /* E: tokens that are kept of each position */
  mn_dtype compute;
  const char *tokenizer; /* hash, written beside them; NULL: none */
  mn_watch watch;        /* told the batches done */
} mn_soft_targets_config;

/* Writes every field of the batches (but `reset`), soft_ids i32 [N,T,E], likeliest first, and soft_weights f32 [N,T,E], their probabilities.
 * Each row is read from a fresh state. *rows: N. MN_ERR_CONFIG where the model does not choose among tokens at every position. */
mn_status mn_soft_targets_write(const mn_model *m, const mn_params *p, mn_source *source, const mn_soft_targets_config *config,
                                const char *path, int64_t *rows);
/* How many batches that are; -1: without end. */
int64_t mn_soft_targets_batches(const mn_source *source, const mn_soft_targets_config *config);

#endif
