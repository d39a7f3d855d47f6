/* prose.h - the token-level background of the small needle tasks: order-2 Markov prose and a fixed loop, and the ids
 * that these tasks share (vocabulary 512). */
#ifndef MN_TASK_PROSE_H
#define MN_TASK_PROSE_H

#include "task/rng.h"

enum {
  MN_ID_PAD = 0,
  MN_ID_NEEDLE = 1, /* opens a needle: 1 w1 w2 3 value... 3 */
  MN_ID_QUERY = 2,  /* opens a query:  2 w1 w2 3            */
  MN_ID_SEP = 3,
  MN_ID_UNKNOWN = 4, /* the answer to a key that was never written */
  MN_ID_DIGIT = 16,
  MN_DIGITS = 10,
  MN_ID_HEX = 32,
  MN_HEX = 16,
  MN_ID_WORD = 64,
  MN_WORDS = 128,
  MN_ID_PROSE = 192,
  MN_PROSE = 320,
  MN_PROSE_VOCAB = 512,
  MN_LOOP = 25 /* period of the loop */
};

/* The token after (a, b): a draw from row (a, b) of a fixed table whose rows are Dirichlet(0.1, ... 0.1) over the 320
 * prose ids. a and b are prose ids. */
int32_t mn_prose_next(mn_rng *rng, int32_t a, int32_t b);
/* `n` tokens of prose, its first two uniform. */
void mn_prose_fill(mn_rng *rng, int32_t *out, int64_t n);
/* Token `position` of the fixed loop of 25 tokens. */
static inline int32_t mn_loop_token(int64_t position) { return MN_ID_PROSE + (int32_t)(position % MN_LOOP); }

#endif
