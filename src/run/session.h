/* session.h - a model that runs on: its state between segments, in memory and in files.
 *
 * A session holds the states (state.h) of `batch` streams of one model and runs a program (program.h) on them, which any number
 * of sessions may share. Feeding tokens moves the states on; the cost of a token does not depend on how many came before, and
 * nothing is compiled or allocated after the first tokens of each segment length (ladder.h). Rows stand where they stand: a batch
 * may hold streams of different lengths. A session file is safetensors: the states, and in the metadata the model's fingerprint
 * and the positions. */
#ifndef MN_SESSION_H
#define MN_SESSION_H

#include "run/program.h"

typedef struct mn_session mn_session;

typedef struct mn_session_config {
  int64_t batch;    /* streams; 0: 1                                                  */
  int64_t prefill;  /* longest segment computed at once; 0: 256                       */
  mn_dtype compute; /* MN_F32, or MN_BF16; MN_F64 where the parameters are            */
  bool forget;      /* a stream may outgrow its cache: the oldest tokens are forgotten; else that is refused */
  bool passing;     /* nobody reads streams of which a run was left (MN_ERR_CANCELLED): it is left in its midst, and a reset comes next, or
                              the end; else only before its first change. Not with `program` */
  const char *fingerprint; /* of the model, as mn_model_fingerprint gives it; NULL: worked out when a file needs it */
  mn_program *program;     /* of the same model and parameters, shared; it says compute and forget. NULL: one of its own */
} mn_session_config;

/* What sessions run: for sharing it from the first on. The model must be a stream (mn_model_check_stream); model and params must
 * outlive it. */
mn_status mn_session_program_new(const mn_model *model, const mn_params *params, mn_dtype compute, bool forget, mn_program **out);
/* model and params must outlive the session. */
mn_status mn_session_new(const mn_model *model, const mn_params *params, const mn_session_config *config, mn_session **out);
void mn_session_free(mn_session *s);
mn_program *mn_session_program(const mn_session *s); /* borrowed */
/* An independent copy of the states on the same program. Nothing is compiled, here and in the next four. */
mn_status mn_session_fork(const mn_session *s, mn_session **out);
/* `to` stands where `from` stands; both are of the same model, parameters, batch and types, here and in the next two. On two backends
 * the models and parameters are equal, by their fingerprints, and the state moves from one to the other. */
mn_status mn_session_copy(mn_session *to, const mn_session *from);
/* The same for one row: batches are put together from streams and taken apart again. */
mn_status mn_session_copy_row(mn_session *to, int64_t to_row, const mn_session *from, int64_t from_row);
/* The same where both rows have read the same first `known` tokens: of caches only what came since is copied. */
mn_status mn_session_copy_row_from(mn_session *to, int64_t to_row, const mn_session *from, int64_t from_row, int64_t known);
/* Row i of `to` becomes row rows[i] of `from`; the two differ and are of one model. */
mn_status mn_session_select(mn_session *to, const mn_session *from, const int64_t *rows);
mn_status mn_session_reset(mn_session *s);                        /* back to fresh streams */
mn_status mn_session_reset_rows(mn_session *s, const bool *rows); /* [batch]: those that are true */
/* Compiles and runs once every length of segment that a stream of at most `most` tokens may take, for who measures what comes afterwards:
 * time or memory. (All others leave a length to be compiled when it is first needed.) scores: for mn_session_score. The streams are
 * fresh then. */
mn_status mn_session_warm_up(mn_session *s, bool scores, int64_t most);

/* Of a model that says something about a source (encoder_decoder): what each row is to be said about, n tokens [batch, n] of which the
 * first length[b] are there (NULL: all). Before the first token; a row that has none, or was reset, cannot be fed. Ids outside the
 * source's vocabulary, and more places than the model's max_source, are refused. A handful of lengths is compiled (ladder.h). */
mn_status mn_session_source(mn_session *s, const int32_t *source, int64_t n, const int32_t *length);
/* The same for a model whose source is frames, such as a sound's: n places of C numbers, [batch, n, C]. */
mn_status mn_session_source_frames(mn_session *s, const float *frames, int64_t n, const int32_t *length);

/* Of a model that answers in turns (rxt): rows that are true (NULL: all) have said all of their turn. Its memory takes the turn in, the
 * row stands at position 0 of the next, and nothing of the turn is left but that. A row that has said nothing is MN_ERR_ARG. What is fed
 * next waits for nobody: whoever ends turns in a thread of its own joins it first. */
mn_status mn_session_end_turn(mn_session *s, const bool *rows);
bool mn_session_has_turns(const mn_session *s);
mn_status mn_session_turns(const mn_session *s, int64_t row, int64_t *out); /* that are over */

/* Feeds n tokens [batch, n] (row-major) and gives the logits [batch, vocab_size] (f32) after the last one: valid until the
 * next call. logits may be NULL. Tokens outside [0, vocab_size) are refused. */
mn_status mn_session_feed(mn_session *s, const int32_t *tokens, int64_t n, const float **logits);
/* The same where row b has count[b] tokens, in [0, n]; what lies beyond them is not looked at. Each row moves on by its own, and its
 * logits are those after its last token; of a row of none they are what they were. */
mn_status mn_session_feed_rows(mn_session *s, const int32_t *tokens, int64_t n, const int32_t *count, const float **logits);
/* Either of them, for who draws from the logits at once: they lie where the program made them, until any session of the program is fed, and
 * nobody has looked whether they are numbers. count NULL: all rows have n; else n is 1, and logits of a row of none are anything. */
mn_status mn_session_step(mn_session *s, const int32_t *tokens, int64_t n, const int32_t *count, const float **logits);
/* Feeds n tokens and gives the negative log-likelihood (nats) of each next token: nll [batch, n], entry t is -log
 * p(target[t] | tokens up to t). A negative target is ignored (0). */
mn_status mn_session_score(mn_session *s, const int32_t *tokens, const int32_t *targets, int64_t n, float *nll);

/* Of a model that reads frames: n frames of C numbers, [batch, n, C]. `said` [batch, n, N] receives what it says at each place: of one that
 * judges (lmuformer, classifier) the logits of what came up to there (`running`), where it has them (mn_session_late); of one that acts
 * (decision_transformer) what to do (`forecast`). NULL: nobody asks. */
mn_status mn_session_feed_frames(mn_session *s, const float *frames, int64_t n, float *said);
/* What the streams are if they end here: logits [batch, N], valid until the next call. The streams stay as they are. */
mn_status mn_session_judge(mn_session *s, const float **logits);
/* By how many places `running` is behind: what it says at the first so many is of no frame. -1: the model has none. */
int64_t mn_session_late(const mn_session *s);
int64_t mn_session_classes(const mn_session *s);  /* N of one that judges; 0: it does not */
int64_t mn_session_outputs(const mn_session *s);  /* N of what a model of frames says; 0: nothing */
int64_t mn_session_channels(const mn_session *s); /* C; 0: of a model that reads tokens */

/* From now on every feed and score also gives what the model tells about each token under this name (scope.h), e.g. "surprise";
 * NULL: no more. MN_ERR_CONFIG when nothing tells it. Segments that report are compiled apart from those that do not. */
mn_status mn_session_report(mn_session *s, const char *name);
int mn_session_report_count(const mn_session *s); /* how many tensors of the model have that name; 0: none asked for */
/* The path of the i-th ("layers.0.mixer.memory.surprise") and its values [batch, n] for the n tokens of the last feed or score:
 * valid until the next call; NULL before the first. */
const char *mn_session_report_path(const mn_session *s, int i);
const float *mn_session_report_values(const mn_session *s, int i);

int64_t mn_session_position(const mn_session *s); /* tokens fed so far; of rows that stand apart, the furthest */
int64_t mn_session_row_position(const mn_session *s, int64_t row);
/* How long a stream may be (scope.h), and how many more tokens fit: MN_LIMIT_NONE where nothing ends, or where `forget` is
 * set. Feeding more is MN_ERR_CONFIG, before any of it is fed. */
mn_limit mn_session_limit(const mn_session *s);
int64_t mn_session_room(const mn_session *s);
/* MN_OK, or the refusal of n more tokens: for whoever knows beforehand how many will come. The second form is of a number that
 * may not be reached: positions end later than any stream that was ever meant. */
mn_status mn_session_fits(const mn_session *s, int64_t n);
mn_status mn_session_fits_at_most(const mn_session *s, int64_t n);
bool mn_session_forgets(const mn_session *s); /* the stream has outgrown its cache: the oldest tokens are gone */
int64_t mn_session_batch(const mn_session *s);
int64_t mn_session_vocab_size(const mn_session *s);
size_t mn_session_state_bytes(const mn_session *s); /* what must be kept to go on: of caches what is in use */
size_t mn_session_held_bytes(const mn_session *s);  /* the memory for it: shared pages count in part */
size_t mn_session_room_bytes(const mn_session *s);  /* of streams that fill their caches */

typedef struct mn_session_tensor {
  mn_state_info info;
  size_t bytes;
  double norm; /* root of the sum of squares */
} mn_session_tensor;
int mn_session_count(const mn_session *s);
mn_status mn_session_at(const mn_session *s, int i, mn_session_tensor *out);

/* Whole or not at all. Loading refuses a file of another model (the message says which), a truncated or edited file, a
 * tensor that is missing, unknown or of another shape. The session is unchanged when loading fails. */
mn_status mn_session_save(mn_session *s, const char *path);
/* The same in place of nothing but the file that was read (base/file.h: mn_file_writer_expect): a stamp that was taken before loading, or by the
 * save before. */
mn_status mn_session_save_over(mn_session *s, const char *path, mn_file_stamp *stamp);
mn_status mn_session_load(mn_session *s, const char *path);

#endif
