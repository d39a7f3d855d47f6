/* rollouts.h - what the source of rollouts (rollouts.c) and who acts in its world share: how a step is seen. */
#ifndef MN_ROLLOUTS_H
#define MN_ROLLOUTS_H

#include "source/source.h"
#include "task/point_mass.h"

enum { MN_ROLLOUT_FRAME = MN_POINT_ACTION + 1 + MN_POINT_STATE };
#define MN_ROLLOUT_MEDIUM 0.2 /* the skill of those who act neither well nor badly */
extern const mn_source_def mn_source_rollouts;

int64_t mn_rollout_steps(const mn_source *s); /* T of an episode; 0: it is another source */
/* The action before (zeros at the beginning), the return that is to come, as a tenth of a step's mean, and the state. */
void mn_rollout_frame(const double before[MN_POINT_ACTION], double to_come, int64_t steps, const mn_point *w,
                      float frame[MN_ROLLOUT_FRAME]);
/* The return of who acts with that skill. */
double mn_rollout_return(uint64_t key, uint64_t episode, int64_t steps, double skill);

#endif
