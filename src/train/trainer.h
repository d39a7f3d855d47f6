/* trainer.h - a recipe being trained: one compiled plan per step, and the loop around it. */
#ifndef MN_TRAINER_H
#define MN_TRAINER_H

#include "eval/evaluate.h"
#include "train/recipe.h"

/* ---- one step after the other ---- */
typedef struct mn_trainer mn_trainer;

typedef struct mn_step_result {
  double loss;      /* the recipe's objectives, each a mean over what counts, before the update; NAN: in none did anything count */
  double grad_norm; /* of all gradients together, before clipping          */
  double learning_rate;
  int n_parts;                /* of several objectives, each one's loss without its weight; 0: there is one */
  double part[MN_OBJECTIVES]; /* NAN: nothing counted */
  bool unasked;               /* of an objective nothing counted: what it lacks is in no loss */
} mn_step_result;

/* Everything that a training needs, ready for step 0. threads 0: the recipe's. `saved_tokenizer`: see mn_recipe_tokenizer. `watch` (or
 * NULL) is told of text and vocabulary, and copied. The recipe must outlive it. */
mn_status mn_trainer_new(const mn_recipe *recipe, int threads, const char *saved_tokenizer, const mn_watch *watch, mn_trainer **out);
void mn_trainer_free(mn_trainer *t);
/* One update. MN_ERR_NUMERIC when loss or gradients are not finite or the loss runs away: the message names step and tensor
 * and says what to try. MN_ERR_CONFIG when nothing counted for an objective in a whole pass over the data, or in all of a stage. */
mn_status mn_trainer_step(mn_trainer *t, mn_step_result *out);
/* On held-out data; no such data: MN_OK with batches = 0. Of `watch` (or NULL) only `stop` is looked at. */
mn_status mn_trainer_validate(mn_trainer *t, const mn_watch *watch, mn_evaluation *out);

int mn_trainer_stage(const mn_trainer *t); /* of the recipe's stages, the one that the last update was of */
int64_t mn_trainer_steps_done(const mn_trainer *t);
int64_t mn_trainer_tokens(const mn_trainer *t);
const mn_model *mn_trainer_model(const mn_trainer *t);
mn_params *mn_trainer_params(mn_trainer *t);
const mn_tokenizer *mn_trainer_tokenizer(const mn_trainer *t); /* NULL: token ids */
const mn_plan *mn_trainer_plan(const mn_trainer *t);
const mn_source *mn_trainer_source(const mn_trainer *t);

/* ---- a whole training ---- */
typedef struct mn_train_event {
  enum { MN_EVENT_BEGIN, MN_EVENT_STEP, MN_EVENT_VALIDATION, MN_EVENT_CHECKPOINT, MN_EVENT_REMARK } kind;
  int64_t step, steps;             /* updates done; of all          */
  const mn_step_result *result;    /* STEP                          */
  double tokens_per_second;        /* STEP: over the last seconds   */
  const char *unit;                /* what those are: "tokens", "images", ... (source.h) */
  const mn_evaluation *validation; /* VALIDATION                    */
  const char *text;                /* REMARK: a line for the user   */
} mn_train_event;

typedef struct mn_train_options {
  const char *out_dir; /* NULL: nothing is kept                      */
  bool resume;
  int threads;                                       /* 0: the recipe's                            */
  const char *db_path;                               /* run database, as in mn_runlog_open         */
  mn_watch watch;                                    /* stop: save and end; progress: of text and vocabulary */
  void (*event)(void *ctx, const mn_train_event *e); /* with the watch's ctx; may be NULL */
} mn_train_options;

typedef struct mn_train_result {
  int64_t steps, tokens, parameters, run; /* run: its number in the database; 0 none */
  double loss;                            /* of the last step                   */
  mn_evaluation validation;               /* batches = 0: there was none        */
  double seconds;                         /* in steps, compiling not counted    */
  double tokens_per_second;
  const char *unit;   /* what is called tokens here: "tokens", "images", "frames", "rows" */
  int64_t peak_bytes; /* resident memory of the process     */
  bool already_done;  /* resumed at its end: nothing to do  */
} mn_train_result;

/* Trains to the end of the recipe. OUT receives recipe.json, config.json, tokenizer.json, model.safetensors,
 * metrics.jsonl and checkpoints/. MN_ERR_CANCELLED after `watch.stop`: a checkpoint was saved. */
mn_status mn_train(const mn_recipe *recipe, const mn_train_options *options, mn_train_result *out);

#endif
