/* trainer_internal.h - what trainer.c (steps) and train.c (the loop) share. */
#ifndef MN_TRAINER_INTERNAL_H
#define MN_TRAINER_INTERNAL_H

#include "train/checkpoint.h"
#include "train/trainer.h"

struct mn_trainer {
  const mn_recipe *recipe;
  mn_backend *backend;
  mn_tokenizer *tok;
  mn_corpus *corpus;
  mn_model *model;
  mn_params *params;
  mn_optimizer *optimizer;
  mn_evaluator *evaluator; /* made when first asked for */
  mn_arena *arena;
  /* the step: one plan, or with accumulation one that adds gradients and one that updates */
  mn_graph *graph, *update_graph;
  mn_plan *plan, *update_plan;
  mn_buffers inputs, sums, carried; /* sums: of gradients, while accumulating */
  int in_tokens, in_target, in_weight, in_reset, in_rate;
  int32_t *tokens, *target; /* [accumulate, B, T] */
  bool *reset;              /* [accumulate, B]    */
  float *weight;            /* [B, T]             */
  mn_train_state state;
};

#endif
