/* source.h - where batches come from. A source fills named fields (tokens, target, series, images, label, ...) with the batch of
 * a step; the trainer gives each to the model's port, or to the objective, of that name. A source is found by its definition,
 * `const mn_source_def mn_source_<name> = {` in a file here, and chosen by the recipe's key data.type.
 *
 * A source has no state but what it opened: the batch of a step is a pure function of (split, seed, step), so a run resumes
 * anywhere by its step number. There are two ways to write one: give the batch of a step (`fill`), or, where the data is a
 * list of examples, say how many each split has and fill one row with one of them (`count`, `example`): order, epochs and
 * short last batches are then made here. */
#ifndef MN_SOURCE_H
#define MN_SOURCE_H

#include "base/file.h"
#include "base/watch.h"
#include "format/config.h"
#include "format/tokenizer.h"
#include "graph/graph.h"
#include "task/task.h"

typedef struct mn_source_field {
  const char *name; /* "tokens" */
  mn_dtype dtype;   /* i32, f32 or bool */
  mn_shape shape;   /* the first axis is the batch's B */
  const char *help;
} mn_source_field;

enum { MN_SOURCE_FIELDS = 12 };
typedef struct mn_batch { /* a batch in the host's memory; free with mn_batch_free */
  int64_t B, T;           /* rows, and tokens of a row where that is free */
  int n;
  mn_source_field field[MN_SOURCE_FIELDS];
  void *data[MN_SOURCE_FIELDS];
  int64_t rows;    /* the first so many are there and count */
  int64_t present; /* so many are there; in those behind, every i32 field holds MN_IGNORE or 0 and nothing counts */
} mn_batch;
int mn_batch_find(const mn_batch *batch, const char *name);      /* -1: none */
void *mn_batch_get(const mn_batch *batch, const char *name);     /* NULL: none */
void *mn_batch_row(const mn_batch *batch, int field, int64_t b); /* of one row: the field's shape without its first axis */
void mn_batch_add(mn_batch *batch, const char *name, mn_dtype dtype, mn_shape shape, const char *help);

typedef struct mn_source mn_source;

typedef struct mn_source_def {
  const char *name, *summary;
  size_t config_size;
  const mn_field *fields; /* of the section `data`; `type` and `seed` are everybody's */
  /* What fields cannot say about each other, before anything is opened; may be NULL. */
  mn_status (*check)(const mn_value *map, const char *where, void *config);
  /* Sets *out to the length that the settings give to rows, where they do; NULL: train.seq_len says. */
  mn_status (*seq_len)(const void *config, int64_t *out);
  bool (*reads_text)(const void *config);  /* needs a tokenizer; NULL: never                                      */
  mn_strings (*texts)(const void *config); /* what a tokenizer may be trained on; NULL: nothing                   */
  bool order;                              /* rows can go on from step to step (carried state)                    */
  /* Reads what there is to know: sizes, splits; sets s->seq_len where it is not free, s->vocab_size, s->classes, and adds to
   * s->identity all that batches depend on. `watch` (or NULL) is told what takes long: of text that is tokenised, file and bytes. */
  mn_status (*open)(mn_source *s, const mn_watch *watch);
  void (*close)(mn_source *s);
  /* What the fields of a model's inputs were made of, for whoever makes them anew of a file (features.h); kept with the model. NULL:
   * nothing need be known. */
  const mn_value *(*reads)(const mn_source *s, mn_arena *arena);
  /* The fields of a batch of B rows, of T tokens where that is free: calls of mn_batch_add. */
  void (*layout)(const mn_source *s, mn_batch *batch);
  /* A list of examples: how many a split has, and one of them as row b. `epoch` counts how often the list was gone through (0 in
   * validation and test), for what is drawn anew each time. */
  int64_t (*count)(const mn_source *s, int split); /* INT64_MAX: it never ends */
  mn_status (*example)(mn_source *s, int split, int64_t index, uint64_t epoch, mn_batch *batch, int64_t b);
  /* Or all of it. */
  mn_status (*fits)(const mn_source *s, int split, int64_t B, int64_t T);
  int64_t (*steps)(const mn_source *s, int split, int64_t B, int64_t T);
  mn_status (*fill)(mn_source *s, int split, int64_t step, mn_batch *batch);
} mn_source_def;

int mn_source_count(void);
const mn_source_def *mn_source_at(int i);

typedef struct mn_source_config { /* the section `data`, read */
  const mn_source_def *def;
  void *config; /* def->config_size bytes */
  int64_t seed;
} mn_source_config;

/* map: the section `data`. Which source: its key `type`; without one, a task where a task is named, else text. */
mn_status mn_source_parse(mn_arena *arena, const mn_value *map, const char *where, int64_t seed, mn_source_config *out);
const mn_value *mn_source_to_value(mn_arena *arena, const mn_source_config *c);

struct mn_source {
  const mn_source_def *def;
  const void *config;
  int64_t seed;
  const mn_tokenizer *tok; /* NULL where none is needed */
  mn_arena *arena;         /* freed with it */
  void *data;              /* the definition's */
  /* set by def->open */
  int64_t seq_len;           /* tokens (frames, steps) of a row; 0: as many as are asked for */
  int64_t source_len;        /* of a second sequence beside it; 0: none */
  int64_t vocab_size;        /* a model of tokens needs at least so many; 0: no tokens */
  const char *vocab_field;   /* whose largest value that is; NULL: it is a tokenizer's, or a task's */
  int64_t source_vocab_size; /* the same of the second sequence; 0: vocab_size */
  int rows;                  /* that one example fills, side by side; 0: one */
  int64_t classes;           /* labels are in [0, classes); 0: there are none */
  int64_t targets;           /* the same of the field target, where it is no token for certain */
  int64_t conditions;        /* the same of what rows are told, where it is a class */
  mn_text identity;
  char hash[MN_HASH_HEX];
};

/* `tok` may be NULL where the source makes no tokens; it and the config must outlive the source. `watch` (or NULL): as of def->open. */
mn_status mn_source_open(const mn_source_config *config, const mn_tokenizer *tok, const mn_watch *watch, mn_source **out);
void mn_source_close(mn_source *s);
void mn_source_hash(const mn_source *s, char hex[MN_HASH_HEX]); /* of all that batches depend on */
const mn_task *mn_task_of_source(const mn_source *s);           /* NULL: it is none */
/* Can batches of B rows of T tokens be made from this split? MN_ERR_CONFIG with what to change when not. */
mn_status mn_source_check(const mn_source *s, int split, int64_t B, int64_t T);
/* Steps until all has been read once; INT64_MAX: it never ends. */
int64_t mn_source_steps(const mn_source *s, int split, int64_t B, int64_t T);
/* Tokens of the longest stream that carried state can follow in a split; INT64_MAX: a stream goes on to the end. */
int64_t mn_source_longest(const mn_source *s, int split);
/* Fields of a batch, with memory for them. */
mn_status mn_batch_new(const mn_source *s, int64_t B, int64_t T, mn_batch *out);
void mn_batch_free(mn_batch *batch);
/* The batch of a step. Training is endless; the last batch of another split may be short. One thread at a time. */
mn_status mn_source_fill(mn_source *s, int split, int64_t step, mn_batch *batch);
/* What a row is a sequence of, for people: "tokens", "frames", "rows" (of a table), or "images", each of which is a row; "examples" where
 * no field says so. */
const char *mn_source_unit(const mn_source *s);
/* Bytes of text that the field `target` stands for, for bits per byte; 0: it is no text. */
int64_t mn_source_target_bytes(const mn_source *s, const mn_batch *batch);

/* A permutation of [0, n) without a table: the i-th number of the order that `key` stands for. */
int64_t mn_shuffled(uint64_t key, int64_t n, int64_t i);

#endif
