/* compare_work.h - the trainings and measurements of `mneme compare --tracks`, and the report that is made of them. What was found
 * lies in the run database: a measurement is a metric of its run, at the last step. So an interrupted comparison knows what it has,
 * and `mneme runs` shows it. */
#ifndef MN_COMPARE_WORK_H
#define MN_COMPARE_WORK_H

#include "cli/cli.h"
#include "cli/compare_tracks.h"
#include "train/runs.h"

typedef struct mn_work_run { /* a recipe in a track, with a seed */
  int track, recipe;
  int64_t seed;
  const char *name, *label, *out_dir; /* name: of the recipe; label: "text/gla", for messages */
  mn_track_recipe of;
  const char *fault; /* why there is no model; NULL: none */
  int64_t id;        /* in the run database; 0: not there */
  mn_run found;      /* and what it says there */
  size_t n_values;
  mn_metric_summary *values;
} mn_work_run;

typedef struct mn_work {
  mn_cli *cli;
  mn_arena *arena;
  const char *db_path;
  int n_tracks, n_recipes, n_seeds, n_runs;
  mn_track *tracks;
  const char **paths, **names; /* [n_recipes] */
  int64_t *seeds;              /* -1: the recipe's */
  mn_work_run *runs;           /* track by track, recipe by recipe */
  int faults;                  /* trainings and measurements that failed */
  const char **said;           /* [faults]: what was said of each */
  mn_status first_status;      /* of the first of them */
} mn_work;

/* The whole verb. `seeds` as the verb read them. */
mn_status mn_compare_work(mn_cli *cli, mn_arena *arena, const int64_t *seeds, int n_seeds);

/* What the database knows of a run under a name; NaN: nothing. */
double mn_work_value(const mn_work_run *r, const char *name);
/* Mean over a recipe's seeds in a track; NaN where there is none. */
double mn_work_mean(const mn_work *w, int track, int recipe, const char *name);
/* The name under which a measure's value lies in the database; in the arena. */
const char *mn_work_metric(mn_arena *arena, const mn_measure *m);

/* Before any work: can what mn_work_report writes be written? */
mn_status mn_work_try_report(const mn_work *w);
/* table.md, table.json and the pictures in --out, from what there is by now; the table also on the terminal. */
mn_status mn_work_report(mn_work *w, mn_runs *db);

#endif
