/* positions.h - what tells tokens apart by where they stand: learned or sinusoidal vectors that are added to what is read, and a
 * learned bias of attention scores by distance. (Rotary tables: layers.h.) All follow the stream's position. */
#ifndef MN_POSITIONS_H
#define MN_POSITIONS_H

#include "nn/layers.h"

/* Positions of this segment's T tokens: i32 [1,T], or [B,T] where the stream's position is data. */
mn_tensor *mn_positions_of(mn_scope *s, int64_t T);
/* The rows of a parameter `name` [max,D] at the tokens' positions: [1 or B, T, D], exact type. A stream ends after max tokens; one
 * that forgets stays at the last row. */
mn_tensor *mn_learned_positions(mn_scope *s, const char *name, int64_t max, int64_t D, int64_t T, double std);
/* Vaswani et al. 2017: p[2i] = sin(t / 10000^(2i/D)), p[2i+1] = cos of the same; D even. [1 or B, T, D], exact type. */
mn_tensor *mn_sinusoidal_positions(mn_scope *s, int64_t D, int64_t T);

/* Relative position bias (Raffel et al. 2020, arXiv 1910.10683): distances d = key - query fall into `buckets`, each of its own up
 * to half of them, then ever wider until `max_distance`, the last beyond it. Where queries see both sides, either has half the buckets.
 * Of the parameter `name` [buckets, H] a table [H, N], exact type, for attention's by_distance: a row's element *zero is that of
 * distance 0, those after it of keys further and further back. */
typedef struct mn_distance_bias {
  int64_t heads, buckets, max_distance;
  bool both_sides;
} mn_distance_bias;
mn_tensor *mn_distance_bias_of(mn_scope *s, const char *name, const mn_distance_bias *c, int64_t *zero);

#endif
