/* origin.h - what a file of weights belongs to, kept in its metadata: files that lie together must belong together. */
#ifndef MN_ORIGIN_H
#define MN_ORIGIN_H

#include "format/safetensors.h"
#include "format/value.h"

typedef struct mn_origin {
  char config[33];      /* content hash (mn_value_hash) of the config.json beside it; "": unknown, as all that follows */
  char tokenizer[33];   /* mn_tokenizer_hash */
  char recipe[33];      /* mn_recipe_hash of the effective recipe */
  char data[33];        /* mn_corpus_hash */
  const char *run;      /* the recipe's name; NULL: not of a training */
  int64_t step, tokens; /* updates done, tokens seen; count only with `run` */
} mn_origin;

mn_status mn_origin_write(const mn_origin *o, mn_st_writer *w);
void mn_origin_read(const mn_st *st, mn_origin *o); /* run points into st */

/* The config.json whose content is `root` belongs to the weights. One without a checksum (not sealed) that differs was edited
 * by hand: it is used, with a warning. */
mn_status mn_origin_check_config(const mn_origin *o, const char *weights, const char *config, const mn_value *root, bool sealed);
/* The tokenizer at `path` is the one of the training. */
mn_status mn_origin_check_tokenizer(const mn_origin *o, const char *weights, const char *path, const char *hash);

#endif
