/* schedule.h - the learning rate as a function of the step. */
#ifndef MN_SCHEDULE_H
#define MN_SCHEDULE_H

#include "format/config.h"

typedef enum mn_schedule_kind {
  MN_SCHEDULE_COSINE, /* half a cosine from lr to min_ratio lr (Loshchilov & Hutter 2017) */
  MN_SCHEDULE_LINEAR, /* a line between the same                                           */
  MN_SCHEDULE_CONSTANT,
  MN_SCHEDULE_WSD /* constant, then a line over the last decay_steps (Hu et al. 2024)  */
} mn_schedule_kind;

typedef struct mn_schedule_config { /* the section `train.schedule` */
  int type;                         /* mn_schedule_kind */
  int64_t warmup_steps, decay_steps;
  double min_ratio;
} mn_schedule_config;
extern const mn_field mn_schedule_fields[];

/* What the learning rate is multiplied with at step 0 ... steps - 1. */
double mn_schedule_factor(const mn_schedule_config *c, int64_t step, int64_t steps);

#endif
