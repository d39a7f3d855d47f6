/* convert.h - a model's file made from another one: other types of numbers, another form. Tensors go one after the other, some megabytes
 * at a time, so models larger than memory are converted; what comes out is written whole or not at all. */
#ifndef MN_CONVERT_H
#define MN_CONVERT_H

#include "base/watch.h"
#include "checkpoint/checkpoint.h"

typedef struct mn_convert_rule { /* tensors whose name in the new file fits the pattern (* any signs, ? one) are of that type */
  const char *pattern;
  mn_dtype type;
} mn_convert_rule;

typedef struct mn_convert_options {
  mn_dtype type;                /* of the weights; MN_DTYPES: each keeps the type it has, where the new form has it, too */
  const mn_convert_rule *rules; /* the first that fits counts, before what mn_convert_type says */
  int n_rules;
  mn_pool *pool; /* NULL: one thread */
  mn_watch watch;
} mn_convert_options;

typedef struct mn_convert_report {
  int tensors, rewritten;           /* in all; of another type or order than they had */
  int64_t values;                   /* of all tensors */
  size_t bytes_before, bytes;       /* of their data */
  double error;                     /* root of the squared error over that of the values, of what was rewritten */
  int64_t tensors_of[MN_ALL_TYPES]; /* tensors in the new file of each type */
  size_t bytes_of[MN_ALL_TYPES];    /* and their bytes */
} mn_convert_report;

/* from: what mn_checkpoint_open takes. to: a GGUF file where its name ends so (.gguf), else a directory as Hugging Face's programs write
 * it. The file that is read is never written to. */
mn_status mn_convert(const char *from, const char *to, const mn_convert_options *options, mn_convert_report *report);

/* What a tensor becomes when weights are wanted in `type`: that, where it is a matrix whose rows are whole blocks. One dimension, norms,
 * routers, small convolutions and positions stay f32 (which costs nothing); embeddings and heads, which are hurt most, get a type of more
 * bits; rows that are no whole blocks go to the nearest type with a block of 32, or to f16. */
mn_dtype mn_convert_type(mn_dtype type, const char *name, const mn_shape *shape);

#endif
