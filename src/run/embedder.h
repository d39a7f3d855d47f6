/* embedder.h - a text as one vector: what an encoder says of its tokens, their mean, of length 1 (Reimers & Gurevych 2019, arXiv
 * 1908.10084). */
#ifndef MN_RUN_EMBEDDER_H
#define MN_RUN_EMBEDDER_H

#include "run/program.h"

typedef struct mn_embedder mn_embedder;

/* A model that reads tokens and their `length`, and gives `hidden` of each; another is MN_ERR_CONFIG. model and params must outlive it. */
mn_status mn_embedder_new(const mn_model *model, const mn_params *params, mn_dtype compute, mn_embedder **out);
void mn_embedder_free(mn_embedder *e);           /* NULL is fine */
int64_t mn_embedder_width(const mn_embedder *e); /* D */
int64_t mn_embedder_most(const mn_embedder *e);  /* tokens of a text */
/* n texts, text i of length[i] >= 1 tokens at tokens[i]: out [n, D]. Texts go in batches of about the same length, padded; what a text's
 * vector is does not depend on the others, up to the order of sums. */
mn_status mn_embedder_texts(mn_embedder *e, int64_t n, const int32_t *const *tokens, const int64_t *length, float *out);

#endif
