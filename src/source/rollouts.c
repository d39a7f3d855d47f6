/* rollouts.c - what others did in a world, and what came of it, for who learns to act from that alone (Chen et al. 2021, arXiv 2106.01345):
 * at each step the action before it, the return that is still to come, and the state; what is learned is the action then taken. The world
 * is a point on a plane (task/point_mass.h). Who acts has a skill s from 0 to 1: a = s expert + (1 - s) noise, noise that lasts some steps.
 *     medium: skill 0.2        replay: a skill drawn from 0 to 0.2 for each episode        expert: 0.2 or 1, half of the episodes each
 * Skill 0.2 comes about half of the way from chance to the expert's return. */
#include <math.h>
#include <string.h>

#include "source/rollouts.h"
#include "source/source.h"

typedef struct config {
  int quality;
  int64_t steps, episodes;
} config;
enum { MEDIUM, REPLAY, EXPERT };
static const char *const qualities[] = {"medium", "replay", "expert", NULL};
static const mn_field fields[] = {
    MN_FIELD_ENUM(config, quality, qualities, MEDIUM, "how well those act who are watched: medium, replay (worse), expert (half of them)"),
    MN_FIELD_INT(config, steps, 30, 2, 1 << 16, "steps T of an episode"),
    MN_FIELD_INT(config, episodes, 2000, 4, 1 << 24, "episodes to learn from; 16 more are held out"), MN_FIELD_END};
enum { HELD_OUT = 16, LASTS = 4 };

static mn_status seq_len(const void *c, int64_t *out) {
  *out = ((const config *)c)->steps;
  return MN_OK;
}

static mn_status open_rollouts(mn_source *s, const mn_watch *watch) {
  (void)watch;
  const config *o = s->config;
  s->seq_len = o->steps;
  mn_text_addf(&s->identity, "%s %lld %lld", qualities[o->quality], (long long)o->steps, (long long)o->episodes);
  return MN_OK;
}

/* ---- episodes ---- */
static double skill_of(const config *o, uint64_t key, uint64_t episode) {
  const double u = mn_random_uniform(key, episode, 3);
  return o->quality == MEDIUM ? MN_ROLLOUT_MEDIUM : o->quality == REPLAY ? MN_ROLLOUT_MEDIUM * u : u < 0.5 ? MN_ROLLOUT_MEDIUM : 1;
}

static void act(const mn_point *w, double skill, uint64_t key, uint64_t episode, int64_t t, double action[MN_POINT_ACTION]) {
  mn_point_expert(w, action);
  for (int i = 0; i < MN_POINT_ACTION; i++) {
    const double noise = 2 * mn_random_uniform(key, episode, 4 + (uint64_t)(MN_POINT_ACTION * (t / LASTS) + i)) - 1;
    action[i] = skill * action[i] + (1 - skill) * noise;
  }
}

double mn_rollout_return(uint64_t key, uint64_t episode, int64_t steps, double skill) {
  mn_point w = mn_point_begin(key, episode);
  double sum = 0, action[MN_POINT_ACTION];
  for (int64_t t = 0; t < steps; t++) {
    act(&w, skill, key, episode, t, action);
    sum += mn_point_step(&w, action);
  }
  return sum;
}

int64_t mn_rollout_steps(const mn_source *s) { return s->def == &mn_source_rollouts ? ((const config *)s->config)->steps : 0; }

void mn_rollout_frame(const double before[MN_POINT_ACTION], double to_come, int64_t steps, const mn_point *w,
                      float frame[MN_ROLLOUT_FRAME]) {
  for (int i = 0; i < MN_POINT_ACTION; i++) frame[i] = (float)before[i];
  frame[MN_POINT_ACTION] = (float)(to_come * 10 / (double)steps);
  mn_point_see(w, frame + MN_POINT_ACTION + 1);
}

/* ---- batches ---- */
static void layout(const mn_source *s, mn_batch *batch) {
  const config *o = s->config;
  mn_batch_add(batch, "frames", MN_F32, MN_SHAPE(batch->B, o->steps, MN_ROLLOUT_FRAME), "action before, return to come, state");
  mn_batch_add(batch, "target", MN_F32, MN_SHAPE(batch->B, o->steps, MN_POINT_ACTION), "the action that was taken");
}

static int64_t count(const mn_source *s, int split) { return split == MN_SPLIT_TRAIN ? ((const config *)s->config)->episodes : HELD_OUT; }

static mn_status example(mn_source *s, int split, int64_t index, uint64_t epoch, mn_batch *batch, int64_t b) {
  static const char *const names[] = {"rollouts", "rollouts held out", "rollouts of the test"};
  const config *o = s->config;
  (void)epoch;
  const uint64_t key = mn_random_key((uint64_t)s->seed, names[split]), episode = (uint64_t)index;
  const double skill = skill_of(o, key, episode);
  mn_point w = mn_point_begin(key, episode);
  double to_come = mn_rollout_return(key, episode, o->steps, skill), action[MN_POINT_ACTION] = {0};
  float *frame = mn_batch_row(batch, 0, b), *target = mn_batch_row(batch, 1, b);
  for (int64_t t = 0; t < o->steps; t++, frame += MN_ROLLOUT_FRAME, target += MN_POINT_ACTION) {
    mn_rollout_frame(action, to_come, o->steps, &w, frame);
    act(&w, skill, key, episode, t, action);
    for (int i = 0; i < MN_POINT_ACTION; i++) target[i] = (float)action[i];
    to_come -= mn_point_step(&w, action);
  }
  return MN_OK;
}

const mn_source_def mn_source_rollouts = {
    .name = "rollouts",
    .summary = "what others did in a small world, and what came of it",
    .config_size = sizeof(config),
    .fields = fields,
    .seq_len = seq_len,
    .open = open_rollouts,
    .layout = layout,
    .count = count,
    .example = example,
};
