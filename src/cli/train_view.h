/* train_view.h - a training as the terminal shows it; shared by the verbs that train. */
#ifndef MN_TRAIN_VIEW_H
#define MN_TRAIN_VIEW_H

#include "cli/progress.h"
#include "train/trainer.h"

typedef struct mn_train_view {
  mn_cli *cli;
  const char *label;
  mn_progress *vocabulary, *data, *steps;
  bool stepped, validated;
  double loss; /* mean of the last steps: what the eye follows */
  double validation_loss, metric;
  char metric_name[72]; /* the first that says more than the loss; "": there is none */
} mn_train_view;

/* For mn_train_options: its event and its watch's progress, with the view as the watch's ctx. */
void mn_train_view_event(void *ctx, const mn_train_event *e);
bool mn_train_view_data(void *ctx, const char *what, int64_t done, int64_t total);
void mn_train_view_end(mn_train_view *v);

/* Every --set of the command line, and --seed as one more: for mn_recipe_read. free() the list. */
mn_status mn_train_settings(const mn_cli *cli, const char ***set, int *n);
/* Its figures by name, and how much was looked at; null where nothing was. */
json_t *mn_evaluation_json(const mn_evaluation *e);

#endif
