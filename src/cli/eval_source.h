/* eval_source.h - a trained model on one source of `mneme eval`: judged in whole segments or rows, by whole answers, or written down as
 * soft targets for a student. */
#ifndef MN_EVAL_SOURCE_H
#define MN_EVAL_SOURCE_H

#include "cli/cli.h"
#include "checkpoint/bundle.h"
#include "eval/context_eval.h"
#include "train/recipe.h"

typedef struct mn_eval_run { /* what the command line and the model say */
  mn_cli *cli;
  mn_arena *arena;
  mn_bundle bundle;
  mn_recipe *recipe;        /* of the training; NULL: the directory has none */
  const mn_recipe *last;    /* of its last stage */
  mn_objectives objectives; /* the recipe's, or next_token */
  int64_t batch, seq_len, batches, examples;
  mn_dtype compute;
  bool carry, held_out;       /* held_out: what the recipe names, as the training had it */
  const char *what;           /* "held-out text of the recipe", the file, the task */
  mn_context_config contexts; /* --lengths of a text; n 0: none */
} mn_eval_run;

/* What --lengths, --judged and --examples ask of a text, before anything is opened (eval_contexts.c). */
mn_status mn_eval_contexts_options(mn_eval_run *e);
/* What is worth how long a past, of an open text: a table or JSON lines, and pictures. */
mn_status mn_eval_view_contexts(mn_eval_run *e, const mn_source *source);
/* Opens the source and does what the options ask: answers, soft-targets, contexts, or else the objectives' figures. */
mn_status mn_eval_on_source(mn_eval_run *e, const mn_source_config *config);

#endif
