/* checkpoint.h - all that a training step changes, on disk, whole or not at all: OUT/checkpoints/step-N/ holds
 * model.safetensors, optimizer.safetensors (moments, carried state, parameters of the step alone) and trainer.json. It is written under another name and
 * renamed when everything is on the disk, so that a directory of that name is a checkpoint, whatever happens to the
 * process or the machine. OUT/model.safetensors is a copy, no other name of the same file.
 *
 * Only these files are ever removed, and only from real directories: links among the names below OUT are unlinked when they
 * are in the way, never entered, and a directory in which somebody keeps a file of his own stays, with that file. */
#ifndef MN_CHECKPOINT_H
#define MN_CHECKPOINT_H

#include "run/state.h"
#include "train/loss_watch.h"
#include "train/optimizer.h"

typedef struct mn_train_state {
  mn_params *params;
  mn_optimizer *optimizer;
  mn_states *carried;     /* NULL: none                                         */
  int64_t step, tokens;   /* updates done; tokens seen                          */
  int64_t steps_before;   /* train.steps of the checkpoint that was loaded; 0: none was */
  mn_loss_watch watch;    /* what divergence is judged by                       */
  const mn_value *recipe; /* the effective one (mn_recipe_to_value)             */
  char data_hash[33];     /* of the corpus                                      */
} mn_train_state;

/* Writes OUT/checkpoints/step-N and OUT/model.safetensors, then removes all but the newest `keep_last`. After a failure the
 * earlier checkpoints are as they were. */
mn_status mn_checkpoint_save(const char *out_dir, const mn_train_state *s, int64_t keep_last);

/* What comes after the checkpoint of a step is on the disk: OUT/model.safetensors, and the removal of older ones. A training that
 * was killed in between does it when it goes on. */
mn_status mn_checkpoint_complete(const char *out_dir, int64_t step, int64_t keep_last);

/* Steps of the checkpoints of a directory, newest first; *n = 0 when there are none. Free with free(). */
mn_status mn_checkpoint_list(const char *out_dir, int64_t **steps, size_t *n);
/* Reads one. MN_ERR_CONFIG: it is of another recipe or other data, named by key; another status: it is damaged. */
mn_status mn_checkpoint_load(const char *out_dir, int64_t step, mn_train_state *s);
/* The newest good one; damaged ones are passed over with a warning. *found is false when there is none. `at` makes the state ready for
 * the checkpoint of a step (stages of a training hold different moments); NULL: it always is. */
typedef mn_status (*mn_checkpoint_at)(void *ctx, int64_t step);
mn_status mn_checkpoint_resume(const char *out_dir, mn_train_state *s, mn_checkpoint_at at, void *ctx, bool *found);
/* Removes what an interrupted save left behind, and refuses what would be in the way of the next one. */
mn_status mn_checkpoint_tidy(const char *out_dir);

#endif
