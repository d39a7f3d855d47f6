/* objective.h - what a model is trained for and judged by. An objective takes outputs of the model and fields of the source by
 * name and builds a scalar loss; for evaluation also metrics. It is found by its definition, `const mn_objective_def
 * mn_objective_<name> = {` in a file here, and chosen by the recipe's key objective: {type: ..., keys}, or a list of such, whose
 * losses are added with their weights.
 *
 * What is averaged are units: tokens, rows, or whatever the leading axes of the target are. Each unit of a batch has a weight,
 * known before the graph runs (0 where a target is ignored or a row is not there), so that several batches that make one update
 * weigh every unit alike. */
#ifndef MN_OBJECTIVE_H
#define MN_OBJECTIVE_H

#include "model/model.h"
#include "source/source.h"

typedef enum mn_metric_form {
  MN_METRIC_MEAN, /* of the units' values                                   */
  MN_METRIC_ROOT, /* root of that                                           */
  MN_METRIC_EXP,  /* exp of that                                            */
  MN_METRIC_ROWS  /* mean over rows of the mean over each row's units       */
} mn_metric_form;

typedef struct mn_metric_def {
  const char *name; /* "accuracy" */
  mn_metric_form form;
  bool of_loss; /* it is a function of the loss and says nothing new: the run log leaves it out */
  bool rises;   /* more is better */
  const char *help;
} mn_metric_def;

enum { MN_METRICS = 6, MN_OBJECTIVES = 8 };

typedef struct mn_judge { /* what an objective builds from */
  const mn_model_io *outputs, *data;
  mn_tensor *weight;     /* [units], exact type: of each unit's loss */
  bool measure;          /* evaluation: metrics are wanted            */
  bool predict;          /* and the likeliest tokens                  */
  const mn_model *model; /* whose outputs they are; NULL: nothing is known of their axes */
} mn_judge;

typedef struct mn_verdict {
  mn_tensor *loss;               /* []: sum of weight * the units' losses               */
  mn_tensor *each;               /* [units], exact type: the units' losses, unweighted  */
  mn_tensor *metric[MN_METRICS]; /* [units], in the order of def->metrics; NULL: `each` for one of the loss, else it is left out */
  mn_tensor *prediction;         /* i32 [B*T], if predicted                             */
} mn_verdict;

typedef struct mn_objective_def {
  const char *name, *summary;
  const char *paper; /* authors, year, arXiv id; NULL */
  size_t config_size;
  const mn_field *fields;       /* of its keys; `type` and `weight` are everybody's; NULL: none */
  const mn_metric_def *metrics; /* closed by {0}; NULL: none                                    */
  bool pairs;                   /* rows 0 and 1, 2 and 3 ... belong together, and others stand against them */
  bool of_places;               /* where rows are the units, they are means over places: a row of which none is there does not count */
  mn_status (*check)(const mn_value *map, const char *where, void *config); /* NULL: nothing */
  /* What is taken from the model and from the source, each closed by {0}; axes as in ports. Optional ones may be missing. */
  void (*needs)(const void *config, const mn_port **outputs, const mn_port **data);
  /* The field whose i32 values say what counts (negative: nothing), and how many of its leading axes make a unit. NULL: every row
   * that is there is a unit. */
  const char *(*target)(const void *config, int *axes);
  /* Weight of a unit that counts, from the target's values; NULL: 1. */
  double (*weigh)(const void *config, const int32_t *target);
  /* Changes a batch before the model sees it, by chance drawn from `key`; NULL: never. */
  mn_status (*prepare)(const void *config, const mn_model *m, uint64_t key, mn_batch *batch);
  /* Directory of a trained model whose outputs, called teacher.NAME, stand beside the model's; NULL: none. */
  const char *(*teacher)(const void *config);
  /* Faults of shape go to the graph: mn_graph_fault. */
  void (*build)(mn_scope *s, const void *config, const mn_judge *judge, mn_verdict *out);
} mn_objective_def;

int mn_objective_count(void);
const mn_objective_def *mn_objective_at(int i);

typedef struct mn_objective {
  const mn_objective_def *def;
  void *config;
  double weight;
} mn_objective;

typedef struct mn_objectives { /* lives in an arena */
  int n;
  mn_objective list[MN_OBJECTIVES];
} mn_objectives;

/* v: the recipe's `objective`, a map or a list of maps; NULL: next_token. */
mn_status mn_objectives_parse(mn_arena *arena, const mn_value *v, const char *where, mn_objectives *out);
const mn_value *mn_objectives_to_value(mn_arena *arena, const mn_objectives *o); /* NULL: out of memory */
/* What objective k is called in records: its type, with its number where an earlier one has the same. buf: 64 bytes. */
const char *mn_objective_title(const mn_objectives *o, int k, char buf[64]);
/* Is it what a recipe without the key means? */
bool mn_objectives_usual(const mn_objectives *o);

/* Does the source have every field that model and objectives need, of their types and shapes, and the model every output? Else
 * MN_ERR_CONFIG, which names both sides. `v` is where the recipe says what is trained for; NULL: it is judged only, and inputs that training
 * alone has may be missing. */
mn_status mn_objectives_match(const mn_objectives *o, const mn_value *v, const mn_model *m, const mn_source *s, const mn_batch *batch);

/* ---- units ---- */
int64_t mn_objective_units(const mn_objective *o, const mn_batch *batch);
/* weight[units]: of each unit of the batch, 0 where it does not count. Returns their sum. */
double mn_objective_weights(const mn_objective *o, const mn_batch *batch, float *weight);
/* There is no mean over nothing: MN_ERR_CONFIG, where no unit of `where` ("5 batches of the validation data") counts for the objective. */
mn_status mn_objective_nothing(const mn_objective *o, const char *where);
/* All that objectives change in a batch, by the source's seed, split and step. */
mn_status mn_objectives_prepare(const mn_objectives *o, const mn_model *m, uint64_t seed, int split, int64_t step, mn_batch *batch);

/* ---- graphs ---- */
typedef struct mn_judged { /* a model over the fields of a batch, and what each objective says of it */
  mn_model_io data;        /* inputs, one for each field that somebody needs */
  mn_tensor *weight[MN_OBJECTIVES];
  mn_tensor *loss; /* []: of all objectives, with their weights, and in training of all losses that rooms of the model declare */
  mn_verdict verdict[MN_OBJECTIVES];
  mn_scope *scope;
  mn_scope *teacher[MN_OBJECTIVES]; /* where an objective's teacher was built; NULL: it has none */
} mn_judged;

/* What the input weight[k] is called. */
enum { MN_OBJECTIVE_WEIGHT = 32 };
const char *mn_objective_weight_name(int k, char buf[MN_OBJECTIVE_WEIGHT]);

struct mn_teachers; /* teacher.h; NULL where no objective has one */

/* Builds it in the scope, a root of the batch's rows. The mn_io names in `data` are the batch's. */
mn_status mn_judge_in(mn_scope *s, const mn_objectives *o, const struct mn_teachers *teachers, const mn_model *m, const mn_batch *batch,
                      bool measure, bool predict, mn_judged *out);

/* ---- for objectives ---- */
/* sum over i of weight_i * x_i, a scalar. */
mn_tensor *mn_weighted_sum(mn_graph *g, mn_tensor *x, mn_tensor *weight);
/* log softmax along the last axis. */
mn_tensor *mn_log_softmax(mn_graph *g, mn_tensor *x);
/* x[N,C], index i32 [N] -> [N]; 0 where the index is outside. */
mn_tensor *mn_pick(mn_graph *g, mn_tensor *x, mn_tensor *index);
/* 1 where a row has a place, exact type [B,T]: by the fields `length` and `masks`, which `needs` must list. NULL: all are there. */
mn_tensor *mn_places_there(mn_scope *s, const mn_judge *judge, int64_t B, int64_t T);
/* x [B,n], the same number for each of T places -> [B]: each row's mean over the places that are there; NULL: over all. */
mn_tensor *mn_row_mean(mn_graph *g, mn_tensor *x, mn_tensor *places);
/* Logits [N, C] in the exact type: of the output `logits`, or of `hidden` times `head`; NULL (a fault): neither is there. prefix: of the
 * outputs' names, "" or "teacher.". */
mn_tensor *mn_judge_logits(mn_scope *s, const mn_model_io *outputs, const char *prefix);

#endif
