/* diagnose.c - see diagnose.h. A step that fails changes neither parameters nor moments, and the carried state that it began
 * with was kept, so it can be made again: parameters, states before, then layer by layer states and outputs, the loss, and the
 * gradients in the order of the backward pass. */
#include "train/diagnose.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/element.h"
#include "base/finite.h"

enum { PARAMETER, STATE_BEFORE, STATE, OUTPUT, LOSS, GRADIENT };
static const char *const kinds[] = {"the parameter", "the carried state", "the state", "the activation", "the", "the gradient of"};

typedef struct finding {
  int kind;
  const char *name;
  const char *what; /* "NaN", "infinity"; NULL: `size` */
  double size;      /* largest absolute value          */
} finding;

/* Far from anything that trains, and on its way to infinity. */
static const double huge = 1e6;

/* Whether this is the one that is looked for. Finite values only count when nothing is infinite: the first huge one is kept. */
static bool examine(int kind, const char *name, mn_dtype type, const void *host, int64_t n, finding *found, finding *large) {
  int64_t i = mn_first_not_finite(type, host, n);
  if (i >= 0) {
    *found = (finding){kind, name, mn_not_finite_name(type, host, i), 0};
    return true;
  }
  if (large->name || !mn_dtype_is_float(type)) return false;
  double top = 0;
  for (int64_t k = 0; k < n; k++) top = fmax(top, fabs(mn_element_load(host, type, k)));
  if (top > huge) *large = (finding){kind, name, NULL, top};
  return false;
}

static bool examine_memory(const mn_trainer *t, int kind, const char *name, mn_dtype type, const void *data, int64_t n, finding *found,
                           finding *large) {
  size_t bytes = (size_t)n * mn_dtype_size(type);
  void *host = mn_alloc(bytes ? bytes : 1);
  bool is = host && t->backend->download(t->backend, host, data, bytes) == MN_OK && examine(kind, name, type, host, n, found, large);
  free(host);
  return is;
}

/* ---- the step once more ---- */
static bool begins_with(const char *s, const char *start) { return strncmp(s, start, strlen(start)) == 0; }
static bool ends_with(const char *s, const char *end) { return strlen(s) >= strlen(end) && !strcmp(s + strlen(s) - strlen(end), end); }

typedef struct looks {
  mn_parts *parts;
  int *kind, n;
} looks;

static void look_at(looks *l, int kind, const char *name, mn_tensor *value) {
  l->kind[l->n++] = kind;
  mn_parts_give(l->parts, name, value);
}

/* States of a mixer stand before its output, which is made of them. */
mn_status mn_diagnose_give(mn_trainer *t, mn_parts *parts) {
  const char *const *names;
  mn_tensor *const *values;
  const mn_built_state *states;
  mn_scope *s = t->graph->judged.scope;
  mn_arena *arena = mn_scope_graph(s)->arena;
  const int n_reports = mn_scope_reports(s, &names, &values), n_states = mn_scope_states(s, &states), n = t->params->n;
  looks l = {parts, mn_arena_alloc(t->arena, (size_t)(n_reports * (n_states + 1) + n + 1) * sizeof *l.kind), 0};
  if (!l.kind) return MN_ERR_MEMORY;
  for (int i = 0; i < n_reports; i++) {
    if (!ends_with(names[i], ".output")) continue;
    const char *owner = mn_arena_format(arena, "%.*s", (int)(strlen(names[i]) - strlen("output")), names[i]);
    if (!owner) return MN_ERR_MEMORY;
    for (int k = 0; k < n_states; k++)
      if (begins_with(states[k].info.name, owner)) look_at(&l, STATE, states[k].info.name, states[k].value);
    look_at(&l, OUTPUT, names[i], values[i]);
  }
  look_at(&l, LOSS, "loss", t->graph->judged.loss);
  for (int i = n - 1; i >= 0; i--)
    if (t->graph->grads[i]) look_at(&l, GRADIENT, t->params->info[i].name, t->graph->grads[i]);
  t->look_kind = l.kind;
  return MN_OK;
}

static mn_status look_at_results(const mn_trainer *t, const mn_routine *r, finding *found, finding *large) {
  for (int j = 0; j < mn_routine_results(r) && !found->name; j++) {
    const mn_dtype type = mn_routine_result_type(r, j);
    const int64_t n = mn_shape_count(mn_routine_result_shape(r, j));
    void *host = mn_alloc((size_t)n * mn_dtype_size(type) + 1);
    mn_status status = host ? mn_routine_get_all(r, j, host) : MN_ERR_MEMORY;
    if (status == MN_OK) examine(t->look_kind[j], mn_routine_result_name(r, j), type, host, n, found, large);
    free(host);
    MN_TRY(status);
  }
  return MN_OK;
}

/* From the states that it began with, batch after batch. */
static mn_status run(mn_trainer *t, finding *found, finding *large) {
  mn_routine *r;
  mn_states *states = NULL;
  if (t->before) MN_TRY(mn_states_clone(t->before, &states));
  mn_status status = mn_trainer_enter(t, MN_STEP_LOOK, &r);
  if (status == MN_OK) {
    for (int64_t a = 0; a < t->recipe->train.accumulate && status == MN_OK && !found->name; a++) {
      status = mn_trainer_run_batch(t, r, a, states);
      if (status == MN_OK) status = look_at_results(t, r, found, large);
    }
    mn_program_leave(t->program);
  }
  mn_states_free(states);
  return status;
}

/* ---- what it means ---- */
static void advise(const mn_trainer *t, const char *name, mn_text *out) {
  const mn_train_config *c = &t->recipe->train;
  const mn_mixer *m = name ? mn_model_owner(t->model, name) : NULL;
  if (m && m->def->remedy) {
    mn_text_addf(out, "; %s: ", m->def->name);
    m->def->remedy(m->config, out);
  }
  mn_text_addf(out, "; %s a lower train.optimizer.lr (%g now), a longer warm-up, a lower train.clip_norm%s",
               m && m->def->remedy ? "if that does not help," : "try", c->optimizer.lr,
               c->precision == MN_PRECISION_BF16 ? " or train.precision: f32" : "");
}

void mn_diagnose(mn_trainer *t, mn_text *out) {
  finding found = {0}, large = {0};
  for (int i = 0; i < t->params->n && !found.name; i++) {
    const mn_param_info *p = &t->params->info[i];
    examine_memory(t, PARAMETER, p->name, t->params->dtype, t->params->data[i], mn_shape_count(&p->shape), &found, &large);
  }
  for (int i = 0; t->before && i < mn_states_count(t->before) && !found.name; i++) {
    const mn_state_info *b = mn_states_info(t->before, i);
    examine_memory(t, STATE_BEFORE, b->name, b->dtype, mn_states_data(t->before, i), mn_shape_count(&b->shape), &found, &large);
  }
  if (!found.name && run(t, &found, &large) != MN_OK) mn_text_addf(out, " (the step could not be looked at: %s)", mn_message());
  if (!found.name) found = large;
  if (found.name && found.what) mn_text_addf(out, "; the first tensor with %s is %s %s", found.what, kinds[found.kind], found.name);
  else if (found.name) mn_text_addf(out, "; the first huge tensor is %s %s, up to %.3g", kinds[found.kind], found.name, found.size);
  advise(t, found.name, out);
}
