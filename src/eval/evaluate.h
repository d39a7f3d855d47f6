/* evaluate.h - a model on a split of its data, judged by its objectives: loss, their metrics, and for text bits per byte. */
#ifndef MN_EVALUATE_H
#define MN_EVALUATE_H

#include "base/watch.h"
#include "model/params.h"
#include "objective/objective.h"
#include "source/data.h"

enum { MN_EVALUATION_METRICS = 24 };
typedef struct mn_measured {
  char name[72];            /* "accuracy"; of several objectives "classification.accuracy" */
  const mn_metric_def *def; /* NULL: the loss of one of several objectives */
  double value;
} mn_measured;

typedef struct mn_evaluation {
  int64_t batches, tokens; /* units of the first objective that count (targets, rows) */
  int64_t bytes;           /* of text they stand for; 0: none */
  double loss;             /* the objectives' means, with their weights; of next_token alone: nats per token */
  double bits_per_byte;    /* NaN without bytes               */
  mn_task_score score;     /* of a task's samples             */
  bool forgot;             /* rows outgrew what the model holds */
  int n_metrics;
  mn_measured metrics[MN_EVALUATION_METRICS];
} mn_evaluation;

/* All that an evaluation found, under the names that tables, files and curves use: the loss, what it is per byte of text, how a task's
 * samples were answered, and the objectives' metrics. */
typedef enum mn_figure_kind {
  MN_FIGURE_LOSS,    /* compares where objectives and tokens are the same             */
  MN_FIGURE_OF_LOSS, /* a function of it that says nothing new: the run log leaves it out */
  MN_FIGURE_BITS,    /* per byte of text: compares across tokenizers                  */
  MN_FIGURE_METRIC
} mn_figure_kind;
typedef struct mn_figure {
  const char *name; /* "loss", "bits_per_byte", "accuracy" ...; lives as long as the evaluation */
  mn_figure_kind kind;
  bool rises; /* more is better */
  double value;
} mn_figure;
enum { MN_EVALUATION_FIGURES = MN_EVALUATION_METRICS + 4 };
/* In that order, the loss first; their number, 0 where nothing was evaluated. */
int mn_evaluation_figures(const mn_evaluation *e, mn_figure out[MN_EVALUATION_FIGURES]);
/* What a metric of objective k (def NULL: its loss) is called in an evaluation: with the objective's title where there are several. */
void mn_metric_title(const mn_objectives *o, int k, const mn_metric_def *def, char out[72]);

typedef struct mn_evaluator mn_evaluator;

typedef struct mn_evaluator_config {
  int64_t batch, seq_len;
  mn_dtype compute;
  bool carry_state;                   /* rows go on from batch to batch, as the source's order says */
  bool forget;                        /* a row may outgrow what the model holds: its oldest tokens are forgotten; else that is refused */
  uint64_t seed;                      /* of what objectives draw (masks) */
  const struct mn_teachers *teachers; /* NULL: no objective has one */
} mn_evaluator_config;

/* All arguments must outlive it; parameters are read where they lie. */
mn_status mn_evaluator_new(const mn_model *m, const mn_params *p, mn_source *source, const mn_objectives *objectives,
                           const mn_evaluator_config *config, mn_evaluator **out);
void mn_evaluator_free(mn_evaluator *e);
/* At most max_batches of the split (0: all of it). Of `watch` (or NULL) only `stop` is looked at: MN_ERR_CANCELLED. Where it fails, `out` holds nothing. */
mn_status mn_evaluate(mn_evaluator *e, int split, int64_t max_batches, const mn_watch *watch, mn_evaluation *out);

#endif
