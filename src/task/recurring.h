/* recurring.h - a language of 512 token ids that has no meaning but a rhythm: some follow each other often, all are drawn by Zipf's law. The
 * task `recurring` (recurring.c) trains on it, and the vignettes of models of token ids (vignette.h) are written in it. */
#ifndef MN_TASK_RECURRING_H
#define MN_TASK_RECURRING_H

#include "task/rng.h"

enum {
  MN_RECURRING_VOCAB = 512,
  MN_RECURRING_NOUN = 64 /* ids 64 ... 127, neither common nor rare, stand in lists */,
  MN_RECURRING_NOUNS = 64
};

/* The token after `before`: with probability 1/2 one of eight that often follow it, else any; both by Zipf's law, p(k) = 1/(k + 10) up to
 * a factor. before -1: nothing stands before. */
int32_t mn_recurring_next(mn_rng *rng, int32_t before);
static inline bool mn_recurring_is_noun(int32_t id) { return id >= MN_RECURRING_NOUN && id < MN_RECURRING_NOUN + MN_RECURRING_NOUNS; }

#endif
