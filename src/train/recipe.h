/* recipe.h - everything a training depends on, in one tree: recipe.yaml to structs, every fault named by file, line and
 * key; and back to a self-contained tree that gives the same training. */
#ifndef MN_RECIPE_H
#define MN_RECIPE_H

#include "base/precision.h"
#include "model/model.h"
#include "objective/objective.h"
#include "source/data.h"
#include "train/init.h"
#include "train/optimizer.h"
#include "train/schedule.h"

typedef enum mn_tokenizer_kind { MN_TOKENIZER_BYTES, MN_TOKENIZER_BPE, MN_TOKENIZER_FILE } mn_tokenizer_kind;

typedef struct mn_tokenizer_config { /* the section `tokenizer` */
  int type;                          /* mn_tokenizer_kind                            */
  int64_t vocab_size;                /* bpe: what is trained                         */
  int pattern;                       /* bpe: mn_pattern                              */
  const char *file;                  /* file: a tokenizer.json                       */
} mn_tokenizer_config;

typedef struct mn_train_config { /* the section `train` */
  int64_t steps, batch, seq_len, accumulate;
  int precision; /* mn_precision */
  const mn_value *optimizer_map, *schedule_map;
  mn_optimizer_config optimizer;
  const mn_value *groups_list;
  mn_param_groups groups;
  mn_schedule_config schedule;
  double clip_norm;
  int64_t validate_every, validation_batches;
  int64_t checkpoint_every;
  double checkpoint_minutes;
  int64_t keep_last, log_every;
  bool carry_state;
  int activations; /* mn_activation_policy */
  int64_t threads;
  const char *from; /* weights (and tokenizer) to begin with; NULL: drawn */
} mn_train_config;

typedef struct mn_recipe mn_recipe;
typedef struct mn_stage { /* one training of several on the same weights */
  const char *name;       /* NULL: it has none */
  int64_t begin, steps;   /* updates before it, and in it */
  mn_recipe *recipe;      /* the whole recipe as it is in this stage; train.steps is the stage's */
  const mn_value *at;
} mn_stage;

struct mn_recipe {
  mn_arena *arena;
  const char *name;
  int64_t seed;
  mn_tokenizer_config tokenizer;
  mn_source_config source;   /* the section `data`                                 */
  mn_data_config data;       /* the same where it is text or a task; else defaults */
  bool has_data;             /* files, a task, or whatever data.type reads */
  const mn_value *objective; /* where it stands; NULL: it was not given */
  mn_objectives objectives;
  mn_train_config train;
  mn_init_from init;     /* from NULL: parameters are drawn, or train.from says */
  const mn_value *model; /* the section `model`, parsed when the vocabulary is known (mn_recipe_model) */
  int n_stages;          /* 0: the recipe is one training; else train.steps is the sum */
  mn_stage *stages;
  const mn_value *stages_list;
};

extern const mn_field mn_recipe_fields[], mn_tokenizer_fields[], mn_train_fields[], mn_stage_fields[];

/* Reads and checks a recipe; `set` are n assignments "key=value" that change it first. Free with mn_recipe_free. */
mn_status mn_recipe_read(const char *path, const char *const *set, int n, mn_recipe **out);
mn_status mn_recipe_parse(const mn_value *root, mn_recipe **out); /* the tree may go afterwards */
void mn_recipe_free(mn_recipe *r);
/* All keys and values of the sections that are there, for whoever uses only a part, such as the model. */
mn_status mn_recipe_check(const mn_value *root);
/* Does every pattern of train.groups, and of those of the stages, fit a parameter of the model, which has info[n]? MN_ERR_CONFIG as a
 * training would say it. */
mn_status mn_recipe_check_groups(const mn_value *root, const mn_param_info *info, int n);
/* Tokens of the vocabulary that a training by this recipe would have, as far as that is known before a text is read (bpe: as many as are
 * asked for); 0: it names neither data nor a tokenizer, or data without tokens. */
mn_status mn_recipe_vocabulary(const mn_value *root, int64_t *out);

/* Every key there is, with type, default and range: of sections, mixers and tasks. */
void mn_recipe_help(mn_help_form form, mn_text *out);

/* The tokenizer of the recipe: loaded from `saved` when that file exists (a run that goes on), else made. *out is NULL for
 * a task of token ids, which needs none. `watch` (or NULL) is told of its training. */
mn_status mn_recipe_tokenizer(const mn_recipe *r, const char *saved, const mn_watch *watch, mn_tokenizer **out);
/* The model for a vocabulary, with what only recipe and model together can get wrong checked. */
mn_status mn_recipe_model(const mn_recipe *r, int64_t vocab_size, mn_model **out);

/* The whole recipe as a tree; with a model, its section is spelled out. */
const mn_value *mn_recipe_to_value(mn_arena *arena, const mn_recipe *r, const mn_model *m);
/* The first key, as "train.batch", in which two such trees give different trainings; NULL: none. Keys that change only how
 * a run is kept (threads, checkpoints, logging) do not count. `a` and `b` receive the two values (NULL: not there). */
const char *mn_recipe_difference(mn_arena *arena, const mn_value *x, const mn_value *y, const mn_value **a, const mn_value **b);
/* Hash of all that counts there: equal for two trees without a difference. */
mn_status mn_recipe_hash(const mn_value *x, char hex[33]);

#endif
