/* compare_tracks.h - `mneme compare --tracks FILE`: the same works for all models. A track is a piece of work (data, training, its
 * length, what is measured afterwards) without a model; every recipe gives its model to every track, as wide as the track's number of
 * parameters asks. */
#ifndef MN_COMPARE_TRACKS_H
#define MN_COMPARE_TRACKS_H

#include "format/config.h"
#include "train/recipe.h"

typedef enum mn_measure_kind {
  MN_MEASURE_FIGURE,  /* of the training's last validation: bits_per_byte, loss, accuracy ...   */
  MN_MEASURE_TASK,    /* examples of a task: acc, or the score of generated text                */
  MN_MEASURE_SPEED,   /* time per token and bytes of state after so many tokens of one stream   */
  MN_MEASURE_VERBATIM /* surprisal of a list that comes again, per cent of the first time's     */
} mn_measure_kind;

enum { MN_SPEED_POSITIONS = 8 };

typedef struct mn_measure {
  const char *title; /* of the column */
  int kind;          /* mn_measure_kind */
  const char *figure;
  const mn_value *task;     /* {name: ..., settings} */
  const mn_value *verbatim; /* settings of eval/verbatim_eval.h, of one cell */
  int64_t examples, repeats;
  mn_ints positions;
  const mn_value *at; /* where it stands, and all its settings */
} mn_measure;

typedef struct mn_track {
  const char *name;
  int64_t parameters; /* 0: as wide as the recipes say */
  int64_t tokens;     /* 0: as long as train.steps says */
  const mn_value *recipe, *measure_list;
  int n_measures;
  mn_measure *measures;
} mn_track;

extern const mn_field mn_track_fields[], mn_measure_fields[];

/* The tracks of a file, checked. All lives in the arena. */
mn_status mn_tracks_read(mn_arena *arena, const char *path, mn_track **out, int *n);

typedef struct mn_track_recipe { /* a recipe in a track */
  const mn_value *root;          /* the whole tree as it is trained */
  mn_recipe *recipe;             /* free with mn_recipe_free */
  int64_t d_model, parameters;   /* parameters: before training is begun, as the recipe's model declares them */
} mn_track_recipe;

/* The recipe of a file with the track's sections in the place of its own (`model` is merged key by key), then changed by the n
 * assignments of `set`; model.d_model is the width at which the model's parameters are closest to the track's, among the widths that
 * the model takes; where they are more than 1 % apart, the hidden width of its block takes up the rest. MN_ERR_CONFIG where they
 * stay more than 5 % apart. */
mn_status mn_track_recipe_read(mn_arena *arena, const mn_track *track, const char *path, const char *const *set, int n,
                               mn_track_recipe *out);
/* A number that stands for all that a value says, so that a change of it is seen. */
double mn_value_mark(const mn_value *v);

#endif
