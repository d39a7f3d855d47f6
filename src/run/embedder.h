/* embedder.h - a text as one vector: what an encoder says of its tokens, their mean or that of one of them, of length 1 (Reimers & Gurevych
 * 2019, arXiv 1908.10084). */
#ifndef MN_RUN_EMBEDDER_H
#define MN_RUN_EMBEDDER_H

#include "run/program.h"

typedef struct mn_embedder mn_embedder;

typedef struct mn_embedder_config {
  const mn_model *model; /* they must outlive it */
  const mn_params *params;
  mn_dtype compute;
  mn_pooling pooling; /* MN_POOL_MEAN, MN_POOL_FIRST or MN_POOL_LAST */
  int64_t most;       /* tokens of a text; 0: as many as the model reads */
} mn_embedder_config;

/* A model that reads tokens and their `length`, gives `hidden` of each and goes on with no text; another is MN_ERR_CONFIG. */
mn_status mn_embedder_new(const mn_embedder_config *c, mn_embedder **out);
void mn_embedder_free(mn_embedder *e);           /* NULL is fine */
int64_t mn_embedder_width(const mn_embedder *e); /* D */
int64_t mn_embedder_most(const mn_embedder *e);  /* tokens of a text */
/* n texts, text i of length[i] >= 1 tokens at tokens[i]: out [n, D]. Texts go in batches of about the same length, padded; what a text's
 * vector is does not depend on the others, up to the order of sums. */
mn_status mn_embedder_texts(mn_embedder *e, int64_t n, const int32_t *const *tokens, const int64_t *length, float *out);

#endif
