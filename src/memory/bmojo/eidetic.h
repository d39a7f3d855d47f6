/* eidetic.h - a bounded set of old tokens that are kept exactly: of those that no other part of a layer sees any more, the M that were
 * hardest to predict. Let C be a chunk, s how many tokens back the other parts see, e_j the surprise of token j. All queries of the chunk
 * that begins at b = cC see
 *     E_c = the M largest e_j of j <= b - s (equal ones: the older), without those below the threshold
 * which is kept as a heap: what has left the other parts since the last chunk is merged into it, and what then is smallest goes.
 * With a store what goes is put there, in turn over its S slots, and the R entries of it that the last chunk asked for most join E_c:
 *     sum over heads h of qbar_h . k_j,   qbar_h the mean query of the last chunk
 * The choice has no gradient; keys and values of what was chosen do. */
#ifndef MN_BMOJO_EIDETIC_H
#define MN_BMOJO_EIDETIC_H

#include "nn/layers.h"

typedef struct mn_eidetic {
  int64_t slots, chunk, span; /* M, C, s */
  int64_t store, retrieve;    /* S, R; 0: there is no store */
  double threshold;
} mn_eidetic;

/* What queries q [B,T,H,d] read of the set: *o [B,T,H,d] in the exact type, *lse [B,H,T] (-inf or -1e30: it is empty). k, v [B,T,G,d] and
 * surprise [B,T] (exact type, at least 0) are those of the segment's tokens. States below s: `kept`, `pending`, with a store `store`,
 * `found`. Reports `kept` [B,T,M] (and `found` [B,T,R]): positions of what
 * each token sees, -1: none. */
void mn_eidetic_read(mn_scope *s, const mn_eidetic *c, mn_tensor *q, mn_tensor *k, mn_tensor *v, mn_tensor *surprise, mn_tensor **o,
                     mn_tensor **lse);

#endif
