/* compare.h - the trainings of `mneme compare` and the table that is made of them. */
#ifndef MN_COMPARE_H
#define MN_COMPARE_H

#include "cli/cli.h"
#include "format/json.h"
#include "train/out_dir.h"
#include "train/trainer.h"

enum { MN_COMPARE_RECIPES = 32, MN_COMPARE_SEEDS = 32, MN_COMPARE_CURVES = 64 };

typedef struct mn_compared { /* one training */
  int recipe;                /* which of the arguments */
  int64_t seed;
  const char *name, *out_dir;
  mn_train_result result;
  const char *fault; /* why there is no result; NULL: there is one */
} mn_compared;

typedef struct mn_comparison {
  mn_cli *cli;
  mn_arena *arena;
  int n_recipes, n_seeds, n_runs;
  mn_out_dir *dir; /* --out */
  int64_t seeds[MN_COMPARE_SEEDS];
  mn_recipe *recipes[MN_COMPARE_RECIPES]; /* as read with the first seed */
  bool same_objectives, same_tokens;      /* of all recipes: losses compare only then */
  mn_compared *runs;
  int faults;            /* trainings that failed */
  mn_status first_fault; /* what was the matter with the first of them */
  int n_curves;
  const char *curves[MN_COMPARE_CURVES]; /* as the run log calls them */
} mn_comparison;

/* --out, for this process alone: the trainings have directories in it, and it is none of a training itself. To be closed, also after a failure. */
mn_status mn_compare_open_dir(const mn_cli *cli, mn_out_dir **dir);

/* A directory that a recipe is to be trained in: ours, no link, holds no run that --resume does not go on with, and none of the recipes[n]
 * lies where the training writes. */
mn_status mn_compare_try_dir(const mn_cli *cli, const char *dir, const char *const *recipes, int n);

/* A row for each recipe: parameters, the last loss of the training, every figure of the evaluations (evaluate.h), rate and memory. Over
 * several seeds means, with the lowest and the highest. The best recipe of each figure that compares is marked. Trainings that failed have
 * no part in it. */
mn_status mn_compare_print(const mn_comparison *c);
mn_status mn_compare_json(const mn_comparison *c, json_t **out);

#endif
