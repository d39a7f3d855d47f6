/* prefix.h - the running maximum of a stream, of all prefixes at once by doubling (Hillis & Steele 1986): what keeps exponentials small
 * in a memory that sums them. */
#ifndef MN_PREFIX_H
#define MN_PREFIX_H

#include "graph/graph.h"

/* Below every score, but finite, so that differences stay numbers: the maximum of nothing. */
#define MN_NOTHING (-1e30)

/* x [B,n,H] moved d places later along the second axis, `fill` in front. */
mn_tensor *mn_later(mn_graph *g, mn_tensor *x, int64_t d, double fill);
/* m_t = max(m_{t-1} + fade_t, x_t), m_0 = first: x [B,T,H], fade [B,T,1 or H] or NULL (0), first [B,H] -> [B,1+T,H], m_0 in front. */
mn_tensor *mn_running_max(mn_graph *g, mn_tensor *first, mn_tensor *x, mn_tensor *fade);

#endif
