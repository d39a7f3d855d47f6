/* ladder.h - which segments a text of any length is fed in: the one place that knows.
 *
 * Segments are powers of two up to a longest one (which may be any), and a handful of lengths is compiled in all. What is left of a
 * text is fed in several, or in one that is longer and padded, whichever costs less, so that cost follows length. A model that looks at where a segment begins (memories that work by chunks
 * and segments) gains much where it begins at their multiples: such a model's long segments are whole numbers of them, each is
 * taken where it begins at one, and a stream that stands in between is first brought there by shorter ones. */
#ifndef MN_RUN_LADDER_H
#define MN_RUN_LADDER_H

#include "base/base.h"

typedef struct mn_rung {
  int64_t length;   /* of the next segment                                  */
  int64_t counts;   /* tokens of it that are there: fewer than length where it is padded */
  int64_t multiple; /* of which every row's position is one: say so in the form */
} mn_rung;

/* Of n >= 1 tokens to come, the next segment of at most `longest`. position [rows]; alignment: mn_program_alignment. pads: the
 * segment may be padded. */
mn_rung mn_ladder_next(int64_t longest, int64_t alignment, int64_t rows, const int64_t *position, int64_t n, bool pads);
/* The shortest of the lengths 1, 2, 3, 4, 6, 8, 12, 16, 24, ... that holds n >= 1, and `most` where that is shorter: what is read whole is
 * padded to it. */
int64_t mn_ladder_cover(int64_t n, int64_t most);
/* The lengths that it may give, longest first: *length is the i-th; false: there are no more. */
bool mn_ladder_length(int64_t longest, int64_t alignment, int i, int64_t *length);

#endif
