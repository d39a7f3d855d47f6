/* diagnose.c - see diagnose.h. A step that fails changes neither parameters nor moments, and the carried state that it began
 * with was kept, so it can be made again: parameters, states before, then layer by layer states and outputs, the loss, and the
 * gradients in the order of the backward pass. */
#include "train/diagnose.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/ref/element.h"
#include "base/finite.h"

enum { PARAMETER, STATE_BEFORE, STATE, OUTPUT, LOSS, GRADIENT };
static const char *const kinds[] = {"the parameter", "the carried state", "the state", "the activation", "the", "the gradient of"};

typedef struct look { /* one thing to look at */
  int kind;
  const char *name;
  mn_tensor *t;
} look;

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
typedef struct again {
  mn_step_graph x;
  mn_graph *g;
  mn_plan *plan;
  look *looks;
  int n;
  void **state; /* of the states, moved on from batch to batch */
} again;

static bool begins_with(const char *s, const char *start) { return strncmp(s, start, strlen(start)) == 0; }
static bool ends_with(const char *s, const char *end) { return strlen(s) >= strlen(end) && !strcmp(s + strlen(s) - strlen(end), end); }

/* States of a mixer stand before its output, which is made of them. */
static mn_status list_looks(mn_trainer *t, again *a) {
  const char *const *names;
  mn_tensor *const *values;
  const mn_built_state *states;
  int n_reports = mn_scope_reports(a->x.judged.scope, &names, &values), n_states = mn_scope_states(a->x.judged.scope, &states);
  a->looks = mn_arena_alloc(a->g->arena, (size_t)(n_reports + n_states + t->params->n + 1) * sizeof *a->looks);
  if (!a->looks) return MN_ERR_MEMORY;
  for (int i = 0; i < n_reports; i++) {
    if (!ends_with(names[i], ".output")) continue;
    const char *owner = mn_arena_format(a->g->arena, "%.*s", (int)(strlen(names[i]) - strlen("output")), names[i]);
    if (!owner) return MN_ERR_MEMORY;
    for (int k = 0; k < n_states; k++)
      if (begins_with(states[k].info.name, owner)) a->looks[a->n++] = (look){STATE, states[k].info.name, states[k].value};
    a->looks[a->n++] = (look){OUTPUT, names[i], values[i]};
  }
  a->looks[a->n++] = (look){LOSS, "loss", a->x.judged.loss};
  for (int i = t->params->n - 1; i >= 0; i--)
    if (a->x.grads[i]) a->looks[a->n++] = (look){GRADIENT, t->params->info[i].name, a->x.grads[i]};
  return MN_OK;
}

static mn_status build(mn_trainer *t, again *a) {
  a->g = mn_graph_new();
  if (!a->g) return MN_ERR_MEMORY;
  MN_TRY(mn_trainer_build_gradient(t, a->g, &a->x));
  MN_TRY(list_looks(t, a));
  int n = a->x.n_states;
  mn_tensor **outs = mn_arena_alloc(a->g->arena, (size_t)(a->n + 2 * n + 1) * sizeof *outs);
  a->state = mn_arena_alloc(a->g->arena, (size_t)(n + 1) * sizeof *a->state);
  if (!outs || !a->state) return MN_ERR_MEMORY;
  mn_tensor **variables = outs + a->n, **values = variables + n;
  for (int i = 0; i < a->n; i++) outs[i] = a->looks[i].t;
  for (int i = 0; i < n; i++) variables[i] = a->x.states[i].leaf, values[i] = a->x.states[i].value, a->state[i] = NULL;
  mn_plan_request q = {
      .graph = a->g, .n_outputs = a->n, .outputs = outs, .n_assigns = n, .variables = variables, .values = values, .backend = t->backend};
  MN_TRY(mn_plan_compile(&q, &a->plan));
  mn_params_bind(t->params, a->x.judged.scope, a->plan);
  mn_teachers_bind(&t->teachers, &a->x.judged, a->plan);
  for (int i = 0; i < a->x.n_inputs; i++)
    for (int k = 0; k < t->inputs.n; k++)
      if (!strcmp(a->x.inputs[i]->name, t->inputs.list[k].name)) mn_plan_bind(a->plan, a->x.inputs[i], t->inputs.list[k].data);
  for (int i = 0; i < n; i++) {
    a->state[i] = t->backend->alloc(t->backend, t->before.list[i].bytes);
    if (!a->state[i]) return MN_ERR_MEMORY;
    MN_TRY(t->backend->copy(t->backend, a->state[i], t->before.list[i].data, t->before.list[i].bytes));
    mn_plan_bind(a->plan, a->x.states[i].leaf, a->state[i]);
  }
  return MN_OK;
}

static mn_status run(mn_trainer *t, again *a, finding *found, finding *large) {
  MN_TRY(build(t, a));
  for (int64_t batch = 0; batch < t->recipe->train.accumulate; batch++) {
    MN_TRY(mn_trainer_put_batch(t, batch));
    MN_TRY(mn_plan_run(a->plan));
    for (int i = 0; i < a->n; i++) {
      const mn_view *v = mn_plan_output(a->plan, i);
      if (examine_memory(t, a->looks[i].kind, a->looks[i].name, v->dtype, v->data, mn_view_count(v), found, large)) return MN_OK;
    }
  }
  return MN_OK;
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
  again a = {0};
  for (int i = 0; i < t->params->n && !found.name; i++) {
    const mn_param_info *p = &t->params->info[i];
    examine_memory(t, PARAMETER, p->name, t->params->dtype, t->params->data[i], mn_shape_count(&p->shape), &found, &large);
  }
  for (int i = 0; i < t->before.n && !found.name; i++) {
    const mn_buffer *b = &t->before.list[i];
    examine_memory(t, STATE_BEFORE, b->name, b->dtype, b->data, mn_shape_count(&b->shape), &found, &large);
  }
  if (!found.name && run(t, &a, &found, &large) != MN_OK) mn_text_addf(out, " (the step could not be looked at: %s)", mn_message());
  if (!found.name) found = large;
  if (found.name && found.what) mn_text_addf(out, "; the first tensor with %s is %s %s", found.what, kinds[found.kind], found.name);
  else if (found.name) mn_text_addf(out, "; the first huge tensor is %s %s, up to %.3g", kinds[found.kind], found.name, found.size);
  advise(t, found.name, out);
  for (int i = 0; a.state && i < a.x.n_states; i++)
    if (a.state[i]) t->backend->free(t->backend, a.state[i], t->before.list[i].bytes);
  mn_plan_free(a.plan);
  mn_graph_free(a.g);
}
