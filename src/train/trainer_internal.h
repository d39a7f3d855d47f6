/* trainer_internal.h - what trainer.c (steps) and train.c (the loop) share. */
#ifndef MN_TRAINER_INTERNAL_H
#define MN_TRAINER_INTERNAL_H

#include "objective/teacher.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

struct mn_trainer {
  const mn_recipe *whole;  /* the recipe                                          */
  const mn_recipe *recipe; /* of the stage that is trained: the same without stages */
  int stage;
  int64_t begin; /* updates made before the stage */
  int threads;
  mn_data_progress progress;
  void *progress_ctx;
  int drawn;    /* of the parameters that init.from should have given */
  bool goes_on; /* the parameters' first values come from a checkpoint */
  mn_backend *backend;
  mn_tokenizer *tok;
  mn_source *source;
  mn_model *model;
  mn_params *params;
  mn_optimizer *optimizer;
  mn_teachers teachers;    /* of the stage's objectives */
  mn_evaluator *evaluator; /* made when first asked for */
  mn_arena *arena;
  /* the step: one plan, or with accumulation one that adds gradients and one that updates */
  mn_graph *graph, *update_graph;
  mn_plan *plan, *update_plan;
  mn_buffers inputs, sums, carried; /* sums: of gradients, while accumulating */
  mn_buffers before;                /* carried, as it was before the last step */
  mn_buffers moved;                 /* buffers of the model that a step assigns, as they were before it */
  int *moved_at;                    /* their numbers in params; the graph's */
  int in_rate;
  mn_batch *batches;            /* [accumulate] */
  float *weight[MN_OBJECTIVES]; /* of each objective's units */
  mn_train_state state;
};

typedef struct mn_step_graph { /* of one batch: the loss and its gradients in the parameters' order */
  mn_graph *g;
  mn_judged judged;
  mn_tensor *step; /* i64 []: what chance in the model is drawn by */
  mn_tensor **params, **grads;
  int n_states;
  const mn_built_state *states;
  int n_buffers;
  const mn_built_buffer *buffers;
  int n_inputs; /* leaves that a batch fills */
  mn_tensor **inputs;
} mn_step_graph;
mn_status mn_trainer_build_gradient(mn_trainer *t, mn_graph *g, mn_step_graph *out);
/* Batch `a` of those that make one update becomes the plan's input; every unit of all of them weighs the same. */
mn_status mn_trainer_put_batch(mn_trainer *t, int64_t a);
/* Makes ready for the updates after `step`, the last one's stage, as mn_trainer_new does for step 0: what stages share stays. */
mn_status mn_trainer_at(mn_trainer *t, int64_t step);
/* As mn_trainer_new, for a run whose checkpoint is loaded next: parameters are not drawn. */
mn_status mn_trainer_reopen(const mn_recipe *recipe, int threads, const char *saved_tokenizer, mn_data_progress progress, void *ctx,
                            mn_trainer **out);

#endif
