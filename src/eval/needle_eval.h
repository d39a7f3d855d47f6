/* needle_eval.h - recall against distance in one endless stream (task/needle_stream.h), at constant memory.
 *
 * The model reads the stream once. At a query its state is copied into a second session, which answers greedily; the
 * stream itself never sees an answer. Along the way: the loss of the background, speed, and resident memory. */
#ifndef MN_NEEDLE_EVAL_H
#define MN_NEEDLE_EVAL_H

#include "base/watch.h"
#include "run/session.h"
#include "task/needle_stream.h"

typedef struct mn_needle_eval_config {         /* the settings of the task `stream` */
  int64_t tokens, needles, min_log2, max_log2; /* max_log2 0: the largest that fits into `tokens`, at most 23 */
  double updates, unknown, distractors;
  bool loop;
  int64_t seed;
} mn_needle_eval_config;
extern const mn_field mn_needle_eval_fields[];

/* Who reads and answers: a model, or in tests an oracle. */
typedef struct mn_needle_reader {
  void *ctx;
  /* The stream goes on by n tokens; nll[t] is -log p (nats) of targets[t], 0 where that is negative. */
  mn_status (*read)(void *ctx, const int32_t *tokens, const int32_t *targets, int64_t n, float *nll);
  /* What follows `token`, without moving the stream; *confidence is the probability of the first token. */
  mn_status (*answer)(void *ctx, int32_t token, int n, int32_t *answer, double *confidence);
  /* Before the segment that begins at `position`; may be NULL. */
  mn_status (*boundary)(void *ctx, int64_t position);
} mn_needle_reader;

typedef struct mn_needle_eval_run {
  int64_t segment; /* tokens fed at once; 0: 256                                    */
  mn_dtype compute;
  bool forget;         /* see mn_session_config */
  bool restart;        /* crash test: at the first segment boundary from restart_at on, */
  int64_t restart_at;  /* the state is saved and a new session goes on from the file; for a while the old one runs beside it */
  const char *scratch; /* path of that file; removed afterwards                         */
  mn_watch watch;      /* told the tokens read, and how many needles were right */
} mn_needle_eval_run;

enum { MN_OCTAVES = 41 };

typedef struct mn_needle_octave {
  int64_t asked, right, digits_right;
  double low, high; /* Wilson 95 % */
} mn_needle_octave;

typedef struct mn_needle_tenth {
  int64_t begin, end, scored; /* scored: background tokens */
  double seconds;             /* spent feeding; answers do not count */
  double bits;                /* per background token */
} mn_needle_tenth;

typedef struct mn_needle_eval {
  mn_needle_stream_config stream; /* as it was made */
  int64_t tokens;
  mn_needle_octave octave[MN_OCTAVES], all, updated, distractor, unknown; /* octave o: distances 2^o to 2^(o+1) */
  double half_life;                            /* distance where seq_acc first falls through 0.5; 0: never above; infinite: never below */
  double known_confidence, unknown_confidence; /* mean probability of the first answer token; NaN without such queries */
  mn_needle_tenth tenth[10];
  double seconds, bits;
  int64_t resident_from, resident_start,
      resident_end; /* bytes of memory at token resident_from (a tenth of the stream, at most 1M; after a restart), and at the end */
  int64_t restarted_at, restart_checked; /* -1, or where; tokens for which the restored stream was compared bit by bit */
  bool restart_equal;
  uint64_t digest; /* of all losses and answers: equal digests mean equal bits */
  size_t state_bytes;
} mn_needle_eval;

/* Refuses a model whose vocabulary is too small (512), and a stream that cannot hold its needles. */
mn_status mn_eval_needles(const mn_model *model, const mn_params *params, const mn_needle_eval_config *config,
                          const mn_needle_eval_run *run, mn_needle_eval *out);
/* The same for any reader; what only sessions know (restarts, state_bytes) stays zero. */
mn_status mn_eval_needles_with(const mn_needle_reader *reader, const mn_needle_eval_config *config, const mn_needle_eval_run *run,
                               mn_needle_eval *out);

#endif
