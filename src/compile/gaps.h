/* gaps.h - the free ranges of a line that begins at 0 and has no end: taking room and giving it back, each in O(log n). */
#ifndef MN_GAPS_H
#define MN_GAPS_H

#include "base/base.h"

typedef struct mn_gaps mn_gaps;

/* At most `most` ranges are taken at one time. Room is looked for in [0, limit) first; where there is none, the line grows. */
mn_gaps *mn_gaps_new(int most, size_t limit);
void mn_gaps_free(mn_gaps *g);
/* The offset of `bytes` > 0 in the first gap that holds them, counted from the line's low end or from its high end. */
size_t mn_gaps_take(mn_gaps *g, size_t bytes, bool high);
void mn_gaps_give(mn_gaps *g, size_t offset, size_t bytes);
size_t mn_gaps_end(const mn_gaps *g); /* limit, or how far the line has grown */

#endif
