/* acting.h - a model in the world that its training watched (source/rollouts.h): it acts through a session, step by step, and what comes of it
 * is compared with who pushes by chance and with who knows the world. */
#ifndef MN_ACTING_H
#define MN_ACTING_H

#include "base/watch.h"
#include "run/session.h"
#include "source/rollouts.h"

typedef struct mn_acting_config {
  int64_t episodes;
  double ask; /* the return that is asked for, as a part of the way from chance (0) to who knows the world (1) */
  mn_dtype compute;
  mn_watch watch;
} mn_acting_config;

typedef struct mn_acting {
  int64_t episodes;
  double achieved, chance, expert; /* mean returns over the same episodes                  */
  double score, error;             /* 100 (achieved - chance) / (expert - chance), and its standard error over episodes */
} mn_acting;

mn_status mn_eval_acting(const mn_model *m, const mn_params *p, const mn_source *source, const mn_acting_config *config, mn_acting *out);

#endif
