/* task.h - the field's memory tasks behind one interface: a table of tasks, each with its settings, a generator, an
 * oracle that solves it from the input alone, and a scorer. A task makes token samples (input[T], target[T], already
 * shifted, MN_IGNORE where nothing is asked), labelled sequences (input[T], its length, one class for the whole), sequences in which an
 * answer stands (input[T], its length, the answer's first and last position), or text samples (a prompt and its answers). A task is found by its definition, `const mn_task_def mn_task_<name> = {` in a file here.
 *
 * Every sample is a pure function of (task, settings, split, seed, index), the same on any thread and any machine. */
#ifndef MN_TASK_H
#define MN_TASK_H

#include "format/config.h"
#include "task/rng.h"

enum { MN_IGNORE = -100 }; /* a target that neither the loss nor a metric counts */
enum { MN_SPLIT_TRAIN = 0, MN_SPLIT_VALIDATION = 1, MN_SPLIT_TEST = 2 };

typedef struct mn_task mn_task;

typedef struct mn_task_text { /* a text sample; free with mn_task_text_free */
  char *prompt;
  char *answer;   /* the text that should follow the prompt (what a model is trained on)    */
  char **answers; /* what the scorer looks for                                              */
  int n_answers;
} mn_task_text;

typedef struct mn_task_def {
  const char *name, *help;
  const mn_field *fields; /* its settings (format/config.h) */
  size_t config_size;
  mn_status (*setup)(mn_task *task); /* checks settings against each other; sets seq_len, vocab_size, derived data */
  void (*close)(mn_task *task);      /* frees derived data; may be NULL */
  /* token tasks; NULL in text tasks */
  mn_status (*sample)(const mn_task *task, mn_rng *rng, int32_t *input, int32_t *target);
  mn_status (*oracle)(const mn_task *task, const int32_t *input, int32_t *prediction);
  /* Where what is asked for at each token was said: its position in input, -1 where nothing is asked. NULL: the task does not say. */
  void (*evidence)(const mn_task *task, const int32_t *input, int32_t *position);
  /* labelled sequences: input[seq_len], 0 from *length on, and a label in [0, n_classes); NULL in others. The oracle gives the label. */
  mn_status (*sample_label)(const mn_task *task, int split, mn_rng *rng, int32_t *input, int32_t *length, int32_t *label);
  mn_status (*oracle_label)(const mn_task *task, const int32_t *input, int32_t length, int32_t *label);
  /* answers within a sequence: input[seq_len], 0 from *length on, and span[2], first and last position; NULL in others */
  mn_status (*sample_span)(const mn_task *task, mn_rng *rng, int32_t *input, int32_t *length, int32_t *span);
  mn_status (*oracle_span)(const mn_task *task, const int32_t *input, int32_t length, int32_t *span);
  /* text tasks; NULL in others */
  mn_status (*sample_text)(const mn_task *task, int split, uint64_t seed, mn_task_text *out);
  char *(*oracle_text)(const mn_task *task, const char *prompt); /* malloc'ed output; NULL (message set) on failure */
  double (*score_text)(const mn_task *task, const mn_task_text *sample, const char *output);
} mn_task_def;

struct mn_task {
  const mn_task_def *def;
  void *config; /* the settings, config_size bytes */
  void *data;   /* derived by setup                */
  uint64_t seed;
  int64_t seq_len;                                               /* T of a token sample; 0 in text tasks             */
  int64_t vocab_size;                                            /* ids are in [0, vocab_size); 0 in text tasks      */
  int64_t n_classes;                                             /* of labelled sequences; 0 in others               */
  int64_t new_tokens;                                            /* text tasks: how long an answer may be; 0: any    */
  bool several_answers;                                          /* text tasks: more than one may be asked for        */
  size_t (*count_tokens)(void *ctx, const char *text, size_t n); /* how long is a text, in the model's tokens */
  void *count_ctx;
  mn_arena *arena; /* settings and strings */
};

/* The tasks: mn_task_at(0), (1), ... until NULL. */
int mn_task_count(void);
const mn_task_def *mn_task_at(int i);
const mn_task_def *mn_task_find(const char *name);

/* Opens a task. `settings` is a map of its fields and "seed" (a key "name" is left to the caller), or NULL for the
 * defaults. Unknown keys, wrong types and impossible combinations are refused with the key and the remedy. */
mn_status mn_task_open(const char *name, const mn_value *settings, mn_task **out);
/* The same checks of keys and values, one by one, without opening what they name: for a recipe that is only read. */
mn_status mn_task_check(const char *name, const mn_value *settings);
/* The same from assignments "key=value" or "task.key=value". */
mn_status mn_task_open_set(const char *name, const char *const *assignments, int n, mn_task **out);
void mn_task_close(mn_task *task);
/* Text tasks measure length with this function; the default counts bytes. Set it before the first sample. */
void mn_task_count_with(mn_task *task, size_t (*count)(void *ctx, const char *text, size_t n), void *ctx);

/* Sample `index` of a split: input[T] and target[T], T = task->seq_len. */
mn_status mn_task_sample(const mn_task *task, int split, uint64_t index, int32_t *input, int32_t *target);
/* input[T] with zeros behind its `length`, and the label of the whole. */
mn_status mn_task_sample_label(const mn_task *task, int split, uint64_t index, int32_t *input, int32_t *length, int32_t *label);
/* input[T] with zeros behind its `length`, and where in it the answer stands: first and last position. */
mn_status mn_task_sample_span(const mn_task *task, int split, uint64_t index, int32_t *input, int32_t *length, int32_t span[2]);
mn_status mn_task_sample_text(const mn_task *task, int split, uint64_t index, mn_task_text *out);
void mn_task_text_free(mn_task_text *sample);
/* Solves a sample from its input alone: prediction[t] is right wherever target[t] is not MN_IGNORE. */
mn_status mn_task_oracle(const mn_task *task, const int32_t *input, int32_t *prediction);
/* Score of a generated text in [0, 1]. */
double mn_task_score_text(const mn_task *task, const mn_task_text *sample, const char *output);

/* Scores of predictions (argmax ids): `acc` is averaged per example, then over examples. */
typedef struct mn_task_score {
  int64_t examples, positions; /* seen; non-ignored                          */
  double acc_sum;              /* sum over examples of the fraction right    */
  int64_t all_right;           /* examples with every target right           */
} mn_task_score;
void mn_task_score_add(mn_task_score *score, const int32_t *target, const int32_t *prediction, int64_t seq_len);
double mn_task_acc(const mn_task_score *score);     /* NaN before the first example */
double mn_task_seq_acc(const mn_task_score *score); /* NaN before the first example */
/* Wilson 95 % interval of `right` out of `n`. */
void mn_wilson_interval(int64_t right, int64_t n, double *low, double *high);

#endif
