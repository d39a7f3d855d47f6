/* schedule.c - see schedule.h. */
#include "train/schedule.h"

#include <math.h>

static const char *const kinds[] = {"cosine", "linear", "constant", "wsd", NULL};
const mn_field mn_schedule_fields[] = {
    MN_FIELD_ENUM(mn_schedule_config, type, kinds, 0, "how the learning rate falls after the warm-up"),
    MN_FIELD_INT(mn_schedule_config, warmup_steps, 0, 0, INT64_MAX, "steps over which it rises from 0 in a line"),
    MN_FIELD_INT(mn_schedule_config, decay_steps, 0, 0, INT64_MAX, "wsd: steps of the fall at the end; 0: a tenth of all"),
    MN_FIELD_FLOAT(mn_schedule_config, min_ratio, 0.1, 0, 1, "what is left of it at the end, as a part of lr"), MN_FIELD_END};

double mn_schedule_factor(const mn_schedule_config *c, int64_t step, int64_t steps) {
  if (step < c->warmup_steps) return (double)(step + 1) / (double)c->warmup_steps;
  if (c->type == MN_SCHEDULE_CONSTANT) return 1;
  int64_t from = c->warmup_steps;
  if (c->type == MN_SCHEDULE_WSD) {
    int64_t decay = c->decay_steps ? c->decay_steps : (steps + 9) / 10;
    from = steps - decay > from ? steps - decay : from;
    if (step < from) return 1;
  }
  double x = (double)(step - from) / (double)(steps - from > 1 ? steps - from : 1);
  if (x > 1) x = 1;
  double fall = c->type == MN_SCHEDULE_COSINE ? 0.5 * (1 + cos(3.14159265358979323846 * x)) : 1 - x;
  return c->min_ratio + (1 - c->min_ratio) * fall;
}
