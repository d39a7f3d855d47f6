/* needle_stream.h - needles in an endless token stream (vocabulary of prose.h): constant memory and recall against
 * distance, in one pass.
 *
 * Needle j is written at P_j ([1 w1 w2 3 value... 3]) and asked at P_j + distance ([2 w1 w2 3]); the value is never fed
 * back: the stream goes on with prose. An evaluator reads the stream in pieces of any size, and at a query takes the
 * model's answer from a fork of its state (or scores its first digit in place). Any part of the stream can be read at
 * any time: token `position` is a pure function of (settings, position); only the plan of the needles is kept. */
#ifndef MN_NEEDLE_STREAM_H
#define MN_NEEDLE_STREAM_H

#include "base/base.h"

enum { MN_STREAM_BLOCK = 1024, MN_STREAM_VALUE = 7 };

typedef struct mn_needle_stream_config {
  uint64_t seed;
  int64_t length;                       /* tokens of the stream; default 10,000,000                       */
  int needles;                          /* J, default 64; raised so that every octave has its 4            */
  int min_log2, max_log2;               /* distances are log-uniform over [2^min, 2^max): default 8 and 23 */
  double updates, unknown, distractors; /* fractions: 0.25, 0.10, 0.5                                    */
  bool loop;                            /* background: the fixed loop (PK) instead of Markov prose (N)     */
} mn_needle_stream_config;

typedef struct mn_needle_query {
  int64_t position; /* of the query's last token: the model answers after reading it                  */
  int64_t distance; /* from the (last) writing of the value to the query, in tokens                   */
  int octave;       /* floor(log2(planned distance))                                                  */
  bool unknown;     /* the key was never written: the answer is MN_ID_UNKNOWN                         */
  bool updated;     /* the key was written twice; the answer is the last value                        */
  bool distractor;  /* another needle with the same first word was written in between or before       */
  int n_value;      /* 7, or 1 for an unknown key                                                     */
  int32_t value[MN_STREAM_VALUE];
} mn_needle_query;

typedef struct mn_needle_stream mn_needle_stream;

void mn_needle_stream_defaults(mn_needle_stream_config *config);
/* Refuses a length that cannot hold the plan, saying which is needed. */
mn_status mn_needle_stream_open(const mn_needle_stream_config *config, mn_needle_stream **out);
void mn_needle_stream_close(mn_needle_stream *stream);
/* Tokens [position, position + n) into out; n is cut at the end of the stream. Returns how many were written. The
 * handle keeps the last block it made, so one thread at a time reads from it. */
int64_t mn_needle_stream_read(mn_needle_stream *stream, int64_t position, int64_t n, int32_t *out);
/* The queries in the order of their positions. */
const mn_needle_query *mn_needle_stream_queries(const mn_needle_stream *stream, int *count);
/* True where a token belongs to a needle or a query, not to the background (prose loss is measured elsewhere). */
bool mn_needle_stream_is_planted(const mn_needle_stream *stream, int64_t position);

#endif
