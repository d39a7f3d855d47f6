/* point_mass.h - a small world to act in: a point on a plane that is pushed to where it should be. Everything follows from where it begins
 * and from what is done.
 *     v <- 0.9 v + 0.1 a        p <- p + 0.25 v        reward -|p - goal| of each step        a in [-1, 1]^2, its size cut there
 * It begins at rest, a distance of 1 from its goal, in a direction that the episode's number draws. What is seen of it: p - goal, v and the
 * goal. */
#ifndef MN_POINT_MASS_H
#define MN_POINT_MASS_H

#include "base/base.h"

enum { MN_POINT_STATE = 6, MN_POINT_ACTION = 2 };

typedef struct mn_point {
  double p[2], v[2], goal[2];
} mn_point;

mn_point mn_point_begin(uint64_t key, uint64_t episode);
void mn_point_see(const mn_point *w, float state[MN_POINT_STATE]);
double mn_point_step(mn_point *w, const double action[MN_POINT_ACTION]); /* the reward */
/* What a controller that knows the world does: a = k (goal - p) - d v, cut. */
void mn_point_expert(const mn_point *w, double action[MN_POINT_ACTION]);

#endif
