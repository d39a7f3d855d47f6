/* trainer_internal.h - what the rooms of a training share: trainer.c (opening), step_graph.c, step.c, diagnose.c, and train.c (the loop). */
#ifndef MN_TRAINER_INTERNAL_H
#define MN_TRAINER_INTERNAL_H

#include "objective/teacher.h"
#include "run/buffers.h"
#include "run/program.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

struct mn_trainer {
  const mn_recipe *whole;  /* the recipe                                          */
  const mn_recipe *recipe; /* of the stage that is trained: the same without stages */
  int stage;
  char run_data[MN_HASH_HEX]; /* hash of the first stage's source: what a run is known by, whatever stage it is in */
  int64_t begin;              /* updates made before the stage */
  int threads;
  mn_watch watch; /* told of text and vocabulary; what a stage opens, too */
  int drawn;      /* of the parameters that init.from should have given */
  bool goes_on;   /* the parameters' first values come from a checkpoint */
  mn_backend *backend;
  mn_tokenizer *tok;
  mn_source *source;
  mn_model *model;
  mn_params *params;
  mn_optimizer *optimizer;
  mn_teachers teachers;    /* of the stage's objectives */
  mn_evaluator *evaluator; /* made when first asked for */
  mn_arena *arena;
  mn_program *program;            /* of the stage's step                                      */
  mn_routine *step;               /* of a batch, for who looks at its plan                    */
  mn_states *carried;             /* NULL: every row begins a stream                          */
  mn_states *before;              /* carried, as it was before the last step                  */
  mn_buffers moved;               /* buffers of the model that a step assigns, as they were before it */
  int *moved_at;                  /* their numbers in params; the arena's                     */
  bool *summed;                   /* [params->n] while accumulating: gradients are added up; the arena's */
  int *look_kind;                 /* of each result of MN_STEP_LOOK; the arena's              */
  struct mn_step_graph *graph;    /* while a step is built and bound                          */
  mn_batch *batches;              /* [accumulate] */
  float *weight[MN_OBJECTIVES];   /* of each objective's units */
  double total[MN_OBJECTIVES];    /* of the weights of all units of the update; 0: nothing is asked */
  int64_t unasked[MN_OBJECTIVES]; /* updates in a row, the last one included, that ask for nothing of an objective */
  mn_train_state state;
};

/* ---- step_graph.c: what a step computes ---- */
enum {                  /* mn_form.what, of the trainer's program */
       MN_STEP_DECLARE, /* of a batch: forward alone, for what it declares */
       MN_STEP_WHOLE,   /* of a batch: forward, backward, update. Gives the loss, of several objectives each one's, and last the norm */
       MN_STEP_ADD,     /* the same without update: gradients are added up                                                           */
       MN_STEP_UPDATE,  /* from those sums, which are cleared. Gives the norm                                                       */
       MN_STEP_LOOK     /* the step once more, that changes nothing but the states it is run on: gives what diagnose.c looks at     */
};
typedef struct mn_step_graph { /* of one batch: the loss and its gradients in the parameters' order */
  mn_judged judged;
  mn_tensor **params, **grads;
  mn_update update;
} mn_step_graph;
/* mn_program_enter for one of these. */
mn_status mn_trainer_enter(mn_trainer *t, int what, mn_routine **out);
/* The program of the stage's step; its parameters are then known. */
mn_status mn_trainer_open_program(mn_trainer *t);
/* Its routines, which need the optimizer, and the memory of what they carry. */
mn_status mn_trainer_compile(mn_trainer *t);
/* A fault that an objective found, with the place where the recipe asks for it. */
mn_status mn_at_objective(const mn_recipe *r, mn_status status);

/* ---- step.c: taking one ---- */
/* Runs a routine that was entered on batch `a` of those that make one update; every unit of all of them weighs the same. An input
 * that neither the source nor the step has is MN_ERR_CONFIG by name. */
mn_status mn_trainer_run_batch(mn_trainer *t, mn_routine *r, int64_t a, mn_states *states);

/* ---- trainer.c ---- */
/* Makes ready for the updates after `step`, the last one's stage, as mn_trainer_new does for step 0: what stages share stays. */
mn_status mn_trainer_at(mn_trainer *t, int64_t step);
/* As mn_trainer_new, for a run whose checkpoint is loaded next: parameters are not drawn. */
mn_status mn_trainer_reopen(const mn_recipe *recipe, int threads, const char *saved_tokenizer, const mn_watch *watch, mn_trainer **out);

#endif
