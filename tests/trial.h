/* trial.h - a computation of a test's own around a scope, run as the house runs its models: by a program (src/run/program.h), on
 * parameters and inputs that are numbers by name. Functions give 0 where they fail, and have printed why. */
#ifndef MN_TEST_TRIAL_H
#define MN_TEST_TRIAL_H

#include "mixer_values.h"
#include "run/program.h"

typedef struct trial {
  mn_program *program;
  mn_params *params;
} trial;

static inline int mc_complain(const char *what) {
  printf("  %s: %s\n", what, mn_message());
  return 0;
}

static inline void trial_close(trial *t) {
  mn_program_free(t->program);
  mn_params_free(t->params);
  *t = (trial){0};
}

typedef struct trial_declaring {
  const mn_program_config *config;
  mn_params *params;
} trial_declaring;
static inline mn_status trial_declare(void *ctx, const mn_scope *s) {
  trial_declaring *d = ctx;
  return mn_params_declare_scope(s, d->config->backend, d->config->build.param, &d->params);
}

/* Tensor i from doubles. */
static inline int trial_put_value(trial *t, int i, const double *x) {
  mn_params *p = t->params;
  const int64_t n = mn_shape_count(&p->info[i].shape);
  mn_backend *b = p->backend;
  void *host = mc_pack(x, p->type[i], n);
  int ok = mn_params_writable(p, i) == MN_OK && b->upload(b, p->data[i], host, (size_t)n * mn_dtype_size(p->type[i])) == MN_OK;
  free(host);
  return ok || mc_complain(p->info[i].name);
}

/* Parameters and buffers from the bag: each has a value of its shape there. */
static inline int trial_put_values(trial *t, const mc_bag *values) {
  for (int i = 0; i < t->params->n_all; i++) {
    const mn_param_info *info = &t->params->info[i];
    const mc_tensor *x = mc_get((mc_bag *)values, info->name);
    if (!x || !mn_shape_equal(&x->shape, &info->shape)) {
      printf("  parameter %s: %s\n", info->name, x ? "another shape is given" : "no value is given");
      return 0;
    }
    if (!trial_put_value(t, i, x->x)) return 0;
  }
  return 1;
}

/* config.learn: a form that asks for all parameters. */
static inline int trial_open(trial *t, const mn_program_config *config, const mc_bag *values) {
  trial_declaring d = {.config = config};
  *t = (trial){0};
  mn_status status = mn_program_new(config, &t->program);
  if (status == MN_OK) status = mn_program_look(t->program, &mn_program_config_of(t->program)->learn, trial_declare, &d);
  t->params = d.params;
  if (status == MN_OK) {
    mn_program_use(t->program, t->params);
    if (trial_put_values(t, values)) return 1;
  } else {
    mc_complain("building");
  }
  trial_close(t);
  return 0;
}

static inline int trial_feed(mn_routine *r, const mc_bag *in) {
  for (int i = 0; i < mn_routine_feeds(r); i++) {
    const mn_shape *shape = mn_routine_feed_shape(r, i);
    const mc_tensor *x = mc_get((mc_bag *)in, mn_routine_feed_name(r, i));
    if (!strcmp(mn_routine_feed_name(r, i), "length") && !x) continue; /* the run's own */
    if (!x || !mn_shape_equal(&x->shape, shape)) {
      printf("  input %s: %s\n", mn_routine_feed_name(r, i), x ? "another shape is given" : "no value is given");
      return 0;
    }
    void *host = mc_pack(x->x, mn_routine_feed_type(r, i), mn_shape_count(shape));
    mn_status status = mn_routine_put(r, i, host);
    free(host);
    if (status != MN_OK) return mc_complain(x->name);
  }
  return 1;
}

static inline int trial_take(const mn_routine *r, mc_bag *out) {
  for (int j = 0; j < mn_routine_results(r); j++) {
    const mn_shape *shape = mn_routine_result_shape(r, j);
    const int64_t n = mn_shape_count(shape);
    void *host = mn_alloc_aligned((size_t)(n + 1) * 8);
    int ok = mn_routine_get_all(r, j, host) == MN_OK || mc_complain(mn_routine_result_name(r, j));
    if (ok) mc_unpack(host, mn_routine_result_type(r, j), n, mc_put(out, mn_routine_result_name(r, j), *shape, NULL));
    free(host);
    if (!ok) return 0;
  }
  return 1;
}

/* One run of the form: what it is fed from `in`, its results to `out` (NULL: not wanted), by their names. states: of a carried program;
 * length: [B], of a form with lengths. */
static inline int trial_run(trial *t, const mn_form *form, mn_states *states, const int32_t *length, const mc_bag *in, mc_bag *out) {
  mn_routine *r;
  if (mn_program_enter(t->program, form, &r) != MN_OK) return mc_complain("building");
  int ok = trial_feed(r, in);
  if (ok) ok = (form->lengths ? mn_routine_run_rows(r, states, length) : mn_routine_run(r, states)) == MN_OK || mc_complain("run");
  ok = ok && (!out || trial_take(r, out));
  mn_program_leave(t->program);
  return ok;
}

/* ---- states and numbers ---- */
static inline int trial_states_put(mn_states *s, const mc_bag *from) {
  for (int i = 0; i < mn_states_count(s); i++) {
    const mn_state_info *info = mn_states_info(s, i);
    const mc_tensor *x = mc_get((mc_bag *)from, info->name);
    if (!x || !mn_shape_equal(&x->shape, &info->shape)) {
      printf("  state %s: %s\n", info->name, x ? "another shape is given" : "no value is given");
      return 0;
    }
    void *host = mc_pack(x->x, info->dtype, mn_shape_count(&info->shape));
    mn_status status = mn_states_put(s, i, host);
    free(host);
    if (status != MN_OK) return mc_complain(info->name);
  }
  return 1;
}
static inline int trial_states_get(const mn_states *s, mc_bag *to) {
  for (int i = 0; i < mn_states_count(s); i++) {
    const mn_state_info *info = mn_states_info(s, i);
    void *host = mn_alloc_aligned(mn_states_bytes(s, i) + 8);
    int ok = mn_states_get(s, i, host) == MN_OK || mc_complain(info->name);
    if (ok) mc_unpack(host, info->dtype, mn_shape_count(&info->shape), mc_put(to, info->name, info->shape, NULL));
    free(host);
    if (!ok) return 0;
  }
  return 1;
}

#endif
