/* point_mass.c - see point_mass.h. */
#include "task/point_mass.h"

#include <math.h>

mn_point mn_point_begin(uint64_t key, uint64_t episode) {
  const double angle = 2 * 3.14159265358979323846 * mn_random_uniform(key, episode, 0);
  mn_point w = {{0}, {0}, {2 * mn_random_uniform(key, episode, 1) - 1, 2 * mn_random_uniform(key, episode, 2) - 1}};
  w.p[0] = w.goal[0] + cos(angle);
  w.p[1] = w.goal[1] + sin(angle);
  return w;
}

void mn_point_see(const mn_point *w, float state[MN_POINT_STATE]) {
  for (int i = 0; i < 2; i++) {
    state[i] = (float)(w->p[i] - w->goal[i]);
    state[2 + i] = (float)w->v[i];
    state[4 + i] = (float)w->goal[i];
  }
}

double mn_point_step(mn_point *w, const double action[MN_POINT_ACTION]) {
  for (int i = 0; i < 2; i++) {
    w->v[i] = 0.9 * w->v[i] + 0.1 * fmax(-1, fmin(1, action[i]));
    w->p[i] += 0.25 * w->v[i];
  }
  return -hypot(w->p[0] - w->goal[0], w->p[1] - w->goal[1]);
}

void mn_point_expert(const mn_point *w, double action[MN_POINT_ACTION]) {
  for (int i = 0; i < 2; i++) action[i] = fmax(-1, fmin(1, 8 * (w->goal[i] - w->p[i]) - 6 * w->v[i]));
}
