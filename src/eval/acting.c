/* acting.c - see acting.h. */
#include "eval/acting.h"

#include <math.h>

typedef struct episode {
  double achieved, chance, expert;
} episode;

/* What is asked for falls by what has come. */
static mn_status act(mn_session *s, uint64_t key, uint64_t number, int64_t steps, double ask, episode *e) {
  mn_point w = mn_point_begin(key, number);
  e->chance = mn_rollout_return(key, number, steps, 0);
  e->expert = mn_rollout_return(key, number, steps, 1);
  e->achieved = 0;
  double action[MN_POINT_ACTION] = {0}, to_come = e->chance + ask * (e->expert - e->chance);
  MN_TRY(mn_session_reset(s));
  for (int64_t t = 0; t < steps; t++) {
    float frame[MN_ROLLOUT_FRAME], said[MN_POINT_ACTION];
    mn_rollout_frame(action, to_come, steps, &w, frame);
    MN_TRY(mn_session_feed_frames(s, frame, 1, said));
    for (int i = 0; i < MN_POINT_ACTION; i++) action[i] = (double)said[i];
    const double reward = mn_point_step(&w, action);
    e->achieved += reward;
    to_come -= reward;
  }
  return MN_OK;
}

mn_status mn_eval_acting(const mn_model *m, const mn_params *p, const mn_source *source, const mn_acting_config *c, mn_acting *out) {
  const int64_t steps = mn_rollout_steps(source);
  const uint64_t key = mn_random_key((uint64_t)source->seed, "acting");
  double sum = 0, square = 0;
  mn_session *s = NULL;
  *out = (mn_acting){.episodes = c->episodes};
  if (!steps) return mn_fail(MN_ERR_CONFIG, "data.type %s is no world to act in", source->def->name);
  MN_TRY(mn_session_new(m, p, &(mn_session_config){.compute = c->compute, .prefill = 1}, &s));
  mn_status status = MN_OK;
  if (mn_session_channels(s) != MN_ROLLOUT_FRAME || mn_session_outputs(s) != MN_POINT_ACTION || mn_session_classes(s))
    status = mn_fail(MN_ERR_CONFIG, "a model of type %s does not say what to do in this world: it needs frames of %d numbers and says %d",
                     m->def->name, MN_ROLLOUT_FRAME, MN_POINT_ACTION);
  for (int64_t i = 0; status == MN_OK && i < c->episodes; i++) {
    episode e;
    if (mn_watch_stops(&c->watch)) status = mn_fail(MN_ERR_CANCELLED, "interrupted after %lld episodes", (long long)i);
    if (status == MN_OK) status = act(s, key, (uint64_t)i, steps, c->ask, &e);
    if (status != MN_OK) break;
    const double score = 100 * (e.achieved - e.chance) / (e.expert - e.chance);
    out->achieved += e.achieved / (double)c->episodes;
    out->chance += e.chance / (double)c->episodes;
    out->expert += e.expert / (double)c->episodes;
    sum += score, square += score * score;
  }
  mn_session_free(s);
  const double n = (double)c->episodes;
  out->score = sum / n;
  out->error = n > 1 ? sqrt(fmax(0, square / n - out->score * out->score) / (n - 1)) : (double)NAN;
  return status;
}
