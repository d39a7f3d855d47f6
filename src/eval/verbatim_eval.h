/* verbatim_eval.h - how much of a list of nouns a model can give word for word when it comes again (task/vignette.h; after Armeni, Honey &
 * Linzen 2022, arXiv 2210.13569).
 *
 * The model reads vignettes, each as a fresh stream. The surprisal of a noun is that of its tokens together, -ln p of the noun; what stands
 * between nouns is not counted, nor are the nouns before `from`. For each vignette x1 and x2 are the mean surprisals of the first and the
 * second list, and 100 x2 / x1 is its repeat surprisal: 100 % when nothing of the first list is left, near 0 for a perfect copy. A cell
 * of the grid is the median over its vignettes (of ratios, which is not the ratio of medians), with a bootstrap interval. */
#ifndef MN_VERBATIM_EVAL_H
#define MN_VERBATIM_EVAL_H

#include "base/watch.h"
#include "eval/bootstrap.h"
#include "format/config.h"
#include "run/session.h"
#include "task/vignette.h"

typedef struct mn_verbatim_config { /* the settings of the task `verbatim`; every list empty: its default */
  mn_strings lists, seconds, contexts;
  mn_ints lengths, delays;
  int control; /* mn_vignette_control */
  int64_t from, resamples, seed;
} mn_verbatim_config;
extern const mn_field mn_verbatim_fields[];

/* Who says how probable tokens are: a model, or in tests an oracle. */
typedef struct mn_verbatim_reader {
  void *ctx;
  int64_t rows; /* it reads at most so many texts at once */
  /* Texts side by side, ids [rows, n], the first length[b] of a row; each begins anew. nats [rows, n]: -ln p of each token after those
   * before it. The first token of a text has none, and what stands there is not looked at; nor is what lies behind the length. */
  mn_status (*read)(void *ctx, const int32_t *ids, const int32_t *length, int64_t rows, int64_t n, double *nats);
} mn_verbatim_reader;

typedef struct mn_verbatim_run {
  int64_t vignettes; /* of each cell, spread over the 230 there are; 0: all */
  int64_t batch;     /* texts side by side in a model; 0: 16 */
  int64_t prefill;   /* 0: 256 */
  mn_dtype compute;
  bool forget;    /* see mn_session_config */
  mn_watch watch; /* told the vignettes read */
} mn_verbatim_run;

typedef struct mn_verbatim_cell {
  mn_vignette_cell of;
  int64_t vignettes, flagged;           /* flagged: the first list has under 1 nat a noun, so that the ratio says little */
  int64_t nothing;                      /* the first list has no surprisal at all: no ratio, and not in the medians */
  double gap;                           /* mean tokens between the lists, as they came out */
  int64_t longest;                      /* tokens of a vignette */
  mn_estimate repeat;                   /* median of 100 x2 / x1, per cent */
  double deviation;                     /* median distance from that median */
  double change;                        /* median of (x2 - x1) / (x2 + x1) */
  double first, second;                 /* medians of x1 and x2, nats */
  mn_estimate at[2][MN_VIGNETTE_NOUNS]; /* mean surprisal of the nouns of both lists by their place, with bootstrap intervals */
} mn_verbatim_cell;

typedef struct mn_verbatim_eval {
  int n;
  mn_verbatim_cell *cells;   /* second lists fastest, then delays, contexts, lengths, kinds of list */
  double *ratio;             /* [n, vignettes] of each vignette; NaN where there is none */
  int64_t vignettes, tokens; /* tokens: read in all */
  double seconds;
  size_t state_bytes; /* of one stream; 0 where no session read */
} mn_verbatim_eval;
void mn_verbatim_free(mn_verbatim_eval *e);

/* tok: the model's, or NULL where it reads token ids; its vocabulary is then that of the task `recurring`, 512 ids or more. Refused: a
 * model that is no stream, and vignettes that are longer than it holds (before any is read; with both numbers). */
mn_status mn_eval_verbatim(const mn_model *model, const mn_params *params, const mn_tokenizer *tok, const mn_verbatim_config *config,
                           const mn_verbatim_run *run, mn_verbatim_eval *out);
/* The same for any reader; run->batch, prefill, compute and forget are those of sessions and not looked at. */
mn_status mn_eval_verbatim_with(const mn_verbatim_reader *reader, const mn_tokenizer *tok, const mn_verbatim_config *config,
                                const mn_verbatim_run *run, mn_verbatim_eval *out);
/* How many vignettes the grid has. */
mn_status mn_verbatim_count(const mn_verbatim_config *config, const mn_verbatim_run *run, int64_t *out);

#endif
