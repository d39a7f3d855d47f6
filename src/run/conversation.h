/* conversation.h - a stream that can go back: a session of one row, the tokens that it has read, and snapshots of its state on the way.
 *
 * A chat is rendered anew for every turn, and most of it was read before. A conversation is asked to stand at a list of tokens: it keeps
 * what the list and its own tokens have in common, goes back to the nearest snapshot there where they part, and reads the rest. So a turn
 * costs its new tokens, an undone turn costs nothing, and a fork costs a copy.
 *
 * A snapshot holds what cannot be cut: recurrent states, windows that turn over, the ends of convolutions. A cache that is only appended
 * to (mn_state_info.appended) is not copied: its first rows are what they were, and what lies behind the position is never read. A model
 * whose memory is nothing but such caches goes back to any token without a snapshot.
 *
 * One thread at a time for each; conversations of one program may run in different threads. */
#ifndef MN_CONVERSATION_H
#define MN_CONVERSATION_H

#include "base/text.h"
#include "run/session.h"

typedef struct mn_conversation mn_conversation;

typedef struct mn_conversation_config {
  int64_t every;     /* while a text is read, a snapshot after so many tokens; 0: 256; -1: only where one is asked for */
  int64_t snapshots; /* how many are kept at most; 0: 32 */
  size_t bytes;      /* and in how much memory; 0: 512 MiB. The last two stay in any case */
} mn_conversation_config;

/* A model whose streams are tokens; one that answers in turns (rxt) or speaks about a source is refused. session: as for mn_session_new,
 * of batch 1; with its program shared nothing is compiled again. config NULL: all usual. Model and parameters must outlive it. */
mn_status mn_conversation_new(const mn_model *model, const mn_params *params, const mn_session_config *session,
                              const mn_conversation_config *config, mn_conversation **out);
void mn_conversation_free(mn_conversation *c); /* may be NULL */
/* An independent conversation that stands where this one stands; snapshots are shared. */
mn_status mn_conversation_fork(const mn_conversation *c, mn_conversation **out);

/* ---- what it has read ---- */
int64_t mn_conversation_length(const mn_conversation *c); /* in tokens */
const int32_t *mn_conversation_tokens(const mn_conversation *c);
/* Its session, to ask for room, limits, positions. Who feeds it goes by mn_conversation_feed. */
mn_session *mn_conversation_session(const mn_conversation *c);
/* How many tokens at the beginning of these it has read. */
int64_t mn_conversation_common(const mn_conversation *c, const int32_t *tokens, int64_t n);
/* How far back it can go without reading anything again: the furthest place that is no later than `length`. */
int64_t mn_conversation_snapshot_before(const mn_conversation *c, int64_t length);
int64_t mn_conversation_snapshots(const mn_conversation *c);
size_t mn_conversation_bytes(const mn_conversation *c); /* of its state and snapshots; shared ones count for each */
uint64_t mn_conversation_fed(const mn_conversation *c); /* tokens computed since it was made, those read again among them */

/* ---- going on ---- */
/* n >= 1 tokens more; logits (may be NULL) as mn_session_feed gives them. Where it fails it stands at the last whole piece. */
mn_status mn_conversation_feed(mn_conversation *c, const int32_t *tokens, int64_t n, const float **logits);
/* A snapshot here: the end of a turn. It is thinned out later than those taken on the way. */
mn_status mn_conversation_mark(mn_conversation *c);

/* ---- going back ---- */
/* Forgets all but the first `length` tokens; what lies behind the snapshot is read again. */
mn_status mn_conversation_back(mn_conversation *c, int64_t length);
/* For who feeds `tokens` by other means, or piece by piece: goes back to the furthest place that these tokens, without the last, and
 * its own share and that has a snapshot. *kept: tokens[kept, n) are to be fed. Nothing is computed. */
mn_status mn_conversation_prepare(mn_conversation *c, const int32_t *tokens, int64_t n, int64_t *kept);
typedef struct mn_conversation_step {
  int64_t kept;  /* of the tokens: they were known, and stand */
  int64_t fed;   /* the others: kept + fed is their number */
  int64_t gone;  /* tokens that stood behind the kept ones */
  int64_t known; /* of the tokens, how many at the beginning it had read: known - kept of them are read again */
} mn_conversation_step;
/* Both: it has read these n >= 1 tokens then, and nothing else. did and logits may be NULL. */
mn_status mn_conversation_become(mn_conversation *c, const int32_t *tokens, int64_t n, mn_conversation_step *did, const float **logits);

/* ---- rows of a batch ---- A server reads and writes many conversations at once, each in a row of one session. */
/* The row stands where the conversation stands. */
mn_status mn_conversation_to_row(const mn_conversation *c, mn_session *batch, int64_t row);
/* The conversation stands where the row stands, which since mn_conversation_to_row was fed these n tokens. A snapshot is taken when
 * `mark`. */
mn_status mn_conversation_from_row(mn_conversation *c, const mn_session *batch, int64_t row, const int32_t *tokens, int64_t n, bool mark);

/* ---- files ---- One safetensors file, whole or not at all, with a checksum of every part: the tokens, the state, of caches only the rows
 * that were written, the snapshots, and a note of whoever saves it: a text such as the messages as they were said. */
mn_status mn_conversation_save(mn_conversation *c, const char *path, const char *note);
/* As mn_session_save_over. */
mn_status mn_conversation_save_over(mn_conversation *c, const char *path, const char *note, mn_file_stamp *stamp);
/* A new conversation that stands where the saved one stood; what follows has the same bits. A file of another model or tokenizer, of another
 * precision, that was cut, changed, or has no checksums is refused. note: the note is appended; may be NULL. */
mn_status mn_conversation_open(const mn_model *model, const mn_params *params, const mn_session_config *session,
                               const mn_conversation_config *config, const char *path, mn_text *note, mn_conversation **out);
/* The note of a file alone, appended: of its header what stands there is looked at, and of the rest nothing. */
mn_status mn_conversation_note(const char *path, mn_text *note);

#endif
