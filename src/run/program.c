/* program.c - see program.h. */
#include "run/program_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- making and ending ---- */
mn_status mn_program_new(const mn_program_config *config, mn_program **out) {
  *out = NULL;
  mn_program *p = mn_calloc(1, sizeof *p);
  if (!p) return MN_ERR_MEMORY;
  p->config = *config;
  if (p->config.learn.batch < 1) p->config.learn = (mn_form){.batch = 1, .length = 1};
  p->arena = mn_arena_new();
  p->kept_at = (mn_table){.arena = p->arena, .names = true};
  if (!p->arena || pthread_mutex_init(&p->mutex, NULL) != 0) {
    mn_arena_free(p->arena);
    free(p);
    return MN_ERR_MEMORY;
  }
  atomic_store(&p->owners, 1);
  *out = p;
  return MN_OK;
}

mn_program *mn_program_share(mn_program *p) {
  atomic_fetch_add(&p->owners, 1);
  return p;
}

static void routine_free(mn_routine *r) {
  if (!r) return;
  mn_plan_free(r->plan);
  mn_buffers_free(&r->feeds);
  mn_arena_free(r->arena);
  free(r);
}

void mn_program_free(mn_program *p) {
  if (!p || atomic_fetch_sub(&p->owners, 1) > 1) return;
  for (int i = 0; i < p->n_routines; i++) routine_free(p->routines[i]);
  free(p->routines);
  mn_plan_free(p->first_plan);
  mn_plan_room_free(p->room);
  mn_prologue_free(p->prologue);
  mn_states_free(p->first);
  mn_states_free(p->blank);
  mn_buffers_free(&p->kept);
  pthread_mutex_destroy(&p->mutex);
  mn_arena_free(p->arena);
  free(p);
}

void mn_program_use(mn_program *p, const mn_params *params) { p->config.params = params; }
const mn_program_config *mn_program_config_of(const mn_program *p) { return &p->config; }
int64_t mn_program_compiled(const mn_program *p) { return atomic_load(&p->compiled); }
size_t mn_program_room_bytes(const mn_program *p) { return p->room ? mn_plan_room_bytes(p->room) : 0; }

/* ---- building a form ---- */
typedef struct built {
  const mn_form *form;
  mn_graph *g;
  mn_scope *s;
  mn_parts parts;
} built;

static mn_status build(const mn_program *p, const mn_form *form, built *b) {
  *b = (built){.form = form, .g = mn_graph_new()};
  if (!b->g) return MN_ERR_MEMORY;
  b->parts.g = b->g;
  mn_build how = p->config.build;
  if (!how.types.of) how.types = mn_params_types(p->config.params);
  how.exact_products |= p->config.params && p->config.params->exact_products;
  if (p->config.params && how.carried && !how.training) how.cache = p->config.params->cache;
  how.position_multiple = form->multiple;
  if (form->lengths) how.length = mn_parts_feed(&b->parts, "length", MN_I32, MN_SHAPE(form->batch));
  if (form->resets) how.reset = mn_parts_feed(&b->parts, "reset", MN_BOOL, MN_SHAPE(form->batch));
  if (p->config.fresh) how.reset = mn_full(b->g, MN_BOOL, MN_SHAPE(form->batch), 1);
  if (how.training) how.step = mn_parts_feed(&b->parts, "step", MN_I64, (mn_shape){0});
  b->s = mn_scope_new(b->g, how, form->batch);
  if (!b->s) return MN_ERR_MEMORY;
  mn_status status = p->config.builder(p->config.ctx, b->s, form, &b->parts);
  if (status != MN_OK && status == b->g->status) return status; /* the graph's fault, and what the builder adds to it */
  mn_status fault = mn_graph_status(b->g);                      /* it says better what is wrong */
  return fault != MN_OK ? fault : status;
}

static void built_free(built *b) { mn_graph_free(b->g); }

mn_status mn_program_look(mn_program *p, const mn_form *form, mn_program_look_fn look, void *ctx) {
  built b;
  mn_status status = build(p, form, &b);
  if (status == MN_OK) status = look(ctx, b.s);
  built_free(&b);
  return status;
}

/* ---- what streams hold ---- */
static mn_status copy_limit(mn_program *p, const mn_scope *s) {
  mn_limit l = mn_scope_limit_of(s);
  l.where = mn_arena_strdup(p->arena, l.where ? l.where : "");
  l.key = mn_arena_strdup(p->arena, l.key ? l.key : "");
  l.remedy = mn_arena_strdup(p->arena, l.remedy ? l.remedy : "");
  if (!l.where || !l.key || !l.remedy) return MN_ERR_MEMORY;
  p->limit = l;
  p->knows_limit = true;
  return MN_OK;
}

/* The parameters in the graph, as leaves that no run writes. */
static mn_status fix_params(const mn_program *p, const built *b, mn_plan_request *q) {
  const mn_param_info *info;
  mn_tensor *const *tensors;
  const int n = mn_scope_params(b->s, &info, &tensors);
  mn_fixed_leaf *fixed = mn_arena_alloc(b->g->arena, (size_t)(n + 1) * sizeof *fixed);
  if (!fixed) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) {
    const int k = mn_params_find(p->config.params, info[i].name);
    if (k < 0) continue;
    MN_TRY(mn_params_need(p->config.params, k));
    fixed[q->n_fixed++] = (mn_fixed_leaf){tensors[i], p->config.params->data[k]};
  }
  q->fixed = fixed;
  q->prologue = p->prologue;
  return MN_OK;
}

static mn_status check_params(const mn_program *p, const built *b) {
  const mn_param_info *info;
  for (int i = 0, n = mn_scope_params(b->s, &info, NULL); i < n; i++)
    if (mn_params_find(p->config.params, info[i].name) < 0)
      return mn_fail(MN_ERR_CONFIG, "parameter %s has no value: the model does not have it; is it of a training step alone?", info[i].name);
  return MN_OK;
}

static mn_status plan_of(mn_program *p, const built *b, mn_plan_request *q, mn_plan **out) {
  if (!p->config.params) return mn_fail(MN_ERR_INTERNAL, "a program is compiled before it has parameters");
  MN_TRY(check_params(p, b));
  if (!p->room) MN_TRY(mn_plan_room_new(p->config.backend, &p->room));
  q->room = p->room;
  if (p->config.settled) {
    if (!p->prologue) MN_TRY(mn_prologue_new(p->config.backend, &p->prologue));
    MN_TRY(fix_params(p, b, q));
  }
  const mn_scope *s = b->s;
  MN_TRY(mn_plan_compile(q, out));
  atomic_fetch_add(&p->compiled, 1);
  mn_status status = mn_params_bind(p->config.params, s, *out);
  if (status == MN_OK && p->config.bound) p->config.bound(p->config.ctx, *out);
  if (status == MN_OK) return MN_OK;
  mn_plan_free(*out);
  *out = NULL;
  return status;
}

/* The states' initial expressions (some are parameters) are run into one stream's states. */
static mn_status compute_first(mn_program *p) {
  mn_backend *b = p->config.backend;
  if (p->first_plan) MN_TRY(mn_plan_run(p->first_plan));
  for (int i = 0, at = 0; i < mn_states_count(p->first); i++) {
    if (!p->computed[i]) continue; /* zeros, as it is */
    MN_TRY(b->copy(b, mn_states_data(p->first, i), mn_plan_output(p->first_plan, at++)->data, mn_states_bytes(p->first, i)));
  }
  return MN_OK;
}

/* What the states of a form look like: those of every form. */
static mn_status learn_states(mn_program *p, const built *b, int64_t batch) {
  const mn_built_state *states;
  const int n = mn_scope_states(b->s, &states);
  if (p->blank) return MN_OK;
  mn_state_info *info = mn_arena_alloc(b->g->arena, (size_t)(n + 1) * sizeof *info);
  if (!info) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) info[i] = states[i].info;
  return mn_states_new(p->config.backend, batch, n, info, &p->blank);
}

/* The same state for another number of streams. */
static mn_state_info info_for(const mn_states *blank, int i, int64_t batch) {
  mn_state_info info = *mn_states_info(blank, i);
  info.shape.dim[0] = info.shape.dim[0] / mn_states_batch(blank) * batch;
  return info;
}

static mn_status blank_states(const mn_program *p, int64_t batch, mn_states **out) {
  const int n = mn_states_count(p->blank);
  mn_state_info *info = mn_alloc((size_t)(n + 1) * sizeof *info);
  *out = NULL;
  if (!info) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) info[i] = info_for(p->blank, i, batch);
  mn_status status = mn_states_new(p->config.backend, batch, n, info, out);
  free(info);
  return status;
}

static mn_status compile_first(mn_program *p, const built *b) {
  const mn_built_state *states;
  const int n = mn_scope_states(b->s, &states);
  mn_tensor **init = mn_arena_alloc(b->g->arena, (size_t)(n + 1) * sizeof *init);
  if (!init) return MN_ERR_MEMORY;
  MN_TRY(learn_states(p, b, p->config.learn.batch));
  mn_plan_request q = {.graph = b->g, .outputs = init, .backend = p->config.backend};
  p->computed = mn_arena_alloc(p->arena, (size_t)(n + 1) * sizeof *p->computed);
  if (!p->computed) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++)
    if ((p->computed[i] = !states[i].zeros)) init[q.n_outputs++] = states[i].init;
  if (q.n_outputs) MN_TRY(plan_of(p, b, &q, &p->first_plan));
  mn_status status = blank_states(p, p->config.learn.batch, &p->first);
  if (status == MN_OK) status = compute_first(p);
  if (status == MN_OK) return MN_OK;
  mn_states_free(p->first);
  mn_plan_free(p->first_plan);
  p->first = NULL;
  p->first_plan = NULL;
  return status;
}

/* That caches are kept in a type of their own is asked for, and some are. */
static mn_status check_cache(const mn_program *p, const built *b) {
  const mn_dtype cache = p->config.params && p->config.build.carried ? p->config.params->cache : MN_F32;
  const mn_built_state *states;
  if (cache == MN_F32) return MN_OK;
  for (int i = 0, n = mn_scope_states(b->s, &states); i < n; i++)
    if (states[i].info.dtype == cache) return MN_OK;
  return mn_fail(MN_ERR_CONFIG, "no cache of this model can be kept as %s: it has no attention that keeps one in whole blocks of %d values",
                 mn_dtype_name(cache), (int)mn_block_values(cache));
}

static mn_status know(mn_program *p, bool first) {
  if (first ? p->first != NULL : p->knows_limit) return MN_OK;
  built b;
  mn_status status = build(p, &p->config.learn, &b);
  if (status == MN_OK) status = check_cache(p, &b);
  if (status == MN_OK && !p->knows_limit) status = copy_limit(p, b.s);
  if (status == MN_OK && first) status = compile_first(p, &b);
  built_free(&b);
  return status;
}

static mn_status know_locked(mn_program *p, bool first) {
  pthread_mutex_lock(&p->mutex);
  mn_status status = know(p, first);
  pthread_mutex_unlock(&p->mutex);
  return status;
}

mn_status mn_program_first(mn_program *p, const mn_states **out) {
  *out = NULL;
  MN_TRY(know_locked(p, true));
  *out = p->first;
  return MN_OK;
}

mn_status mn_program_limit(mn_program *p, mn_limit *out) {
  MN_TRY(know_locked(p, false));
  *out = p->limit;
  return MN_OK;
}

mn_status mn_program_states(mn_program *p, int64_t batch, mn_states **out) {
  const mn_states *first;
  *out = NULL;
  MN_TRY(mn_program_first(p, &first));
  if (batch == mn_states_batch(first)) return mn_states_clone(first, out);
  mn_status status = blank_states(p, batch, out);
  if (status == MN_OK) status = mn_states_reset(*out, first, NULL);
  if (status == MN_OK) return MN_OK;
  mn_states_free(*out);
  *out = NULL;
  return status;
}

mn_status mn_program_blank(mn_program *p, int64_t batch, mn_states **out) {
  *out = NULL;
  pthread_mutex_lock(&p->mutex);
  mn_status status = p->blank ? MN_OK : know(p, true);
  pthread_mutex_unlock(&p->mutex);
  return status == MN_OK ? blank_states(p, batch, out) : status;
}

static mn_status take_alignment(void *ctx, const mn_scope *s) {
  *(int64_t *)ctx = mn_scope_alignment(s);
  return MN_OK;
}

mn_status mn_program_alignment(mn_program *p, int64_t length, int64_t *out) {
  mn_status status = MN_OK;
  pthread_mutex_lock(&p->mutex);
  if (p->aligned_length < length) {
    const mn_form form = {.batch = 1, .length = length, .multiple = 1};
    status = mn_program_look(p, &form, take_alignment, &p->alignment);
    if (status == MN_OK) p->aligned_length = length;
  }
  *out = p->alignment;
  pthread_mutex_unlock(&p->mutex);
  return status;
}

mn_status mn_program_refresh(mn_program *p) {
  pthread_mutex_lock(&p->mutex);
  mn_status status = p->prologue ? mn_prologue_refresh(p->prologue) : MN_OK;
  if (status == MN_OK && p->first) status = compute_first(p);
  pthread_mutex_unlock(&p->mutex);
  return status;
}

/* ---- compiling a form ---- */

/* Whoever asks for a name means the report of that path, and every one whose path ends with that word. */
static bool is_report(const char *path, const char *wanted) {
  const char *dot = strrchr(path, '.');
  return strcmp(path, wanted) == 0 || strcmp(dot ? dot + 1 : path, wanted) == 0;
}

static mn_status add_reports(mn_routine *r, built *b) {
  const char *const *names;
  mn_tensor *const *values;
  const int n = r->form.report ? mn_scope_reports(b->s, &names, &values) : 0;
  for (int i = 0; i < n; i++) {
    if (!is_report(names[i], r->form.report)) continue;
    mn_parts_give(&b->parts, names[i], mn_cast(b->g, values[i], MN_F32));
    r->n_reports++;
  }
  return mn_graph_status(b->g);
}

/* The states that the form has must be those of every other form: they are run on by all. */
static mn_status check_states(const mn_program *p, const mn_routine *r, int n, const mn_built_state *states) {
  const mn_states *blank = p->blank;
  if (n != mn_states_count(blank))
    return mn_fail(MN_ERR_INTERNAL, "a segment of %" PRId64 " tokens has other state: %d tensors, not %d", r->form.length, n,
                   mn_states_count(blank));
  for (int i = 0; i < n; i++) {
    const mn_state_info want = info_for(blank, i, r->form.batch);
    if (strcmp(states[i].info.name, want.name) != 0 || states[i].info.dtype != want.dtype ||
        !mn_shape_equal(&states[i].info.shape, &want.shape))
      return mn_fail(MN_ERR_INTERNAL, "state %s depends on the segment's length", states[i].info.name);
  }
  return MN_OK;
}

/* Inputs that rooms of the model ask for by name are fed like the builder's. */
static void add_feeds(built *b) {
  const mn_feed_info *info;
  mn_tensor *const *tensors;
  const int n = mn_scope_feeds(b->s, &info, &tensors);
  for (int i = 0; i < n; i++) {
    bool known = false;
    for (int k = 0; k < b->parts.n_feeds; k++) known = known || b->parts.feeds[k] == tensors[i];
    if (!known) mn_parts_fed(&b->parts, tensors[i]);
  }
}

static mn_status name_results(mn_routine *r, const mn_parts *parts) {
  r->n_results = parts->n_given;
  r->results = mn_arena_alloc(r->arena, (size_t)(r->n_results + 1) * sizeof *r->results);
  if (!r->results) return MN_ERR_MEMORY;
  for (int j = 0; j < r->n_results; j++) {
    const mn_tensor *t = parts->given[j];
    r->results[j] = (mn_result){mn_arena_strdup(r->arena, parts->given_name[j]), t->dtype, t->shape};
    if (!r->results[j].name) return MN_ERR_MEMORY;
  }
  return MN_OK;
}

static mn_status bind_feeds(mn_routine *r, const mn_parts *parts) {
  for (int i = 0; i < parts->n_feeds; i++) {
    MN_TRY(mn_buffers_add(&r->feeds, r->program->config.backend, r->plan, parts->feeds[i], NULL));
    r->feeds.list[i].name = mn_arena_strdup(r->arena, parts->feeds[i]->name); /* the graph ends with compiling */
    if (!r->feeds.list[i].name) return MN_ERR_MEMORY;
  }
  return MN_OK;
}

/* Memory of the program's own: of a name that an earlier routine had, the same. */
static mn_status bind_kept(mn_program *p, mn_routine *r, const mn_parts *parts) {
  for (int i = 0; i < parts->n_kept; i++) {
    const mn_tensor *t = parts->kept[i];
    int k = mn_table_find(&p->kept_at, t->name, -1);
    if (k < 0) {
      MN_TRY(mn_buffers_add(&p->kept, p->config.backend, NULL, t, &k));
      if (!(p->kept.list[k].name = mn_arena_strdup(p->arena, t->name))) return MN_ERR_MEMORY;
      MN_TRY(mn_table_put(&p->kept_at, p->kept.list[k].name, k));
    }
    const mn_buffer *b = &p->kept.list[k];
    if (b->dtype != t->dtype || !mn_shape_equal(&b->shape, &t->shape))
      return mn_fail(MN_ERR_INTERNAL, "what is kept as %s has another type or shape in another form", t->name);
    mn_plan_bind(r->plan, t, b->data);
  }
  return MN_OK;
}

mn_status mn_program_clear(mn_program *p) {
  mn_status status = MN_OK;
  pthread_mutex_lock(&p->mutex);
  for (int i = 0; i < p->kept.n && status == MN_OK; i++)
    status = p->config.backend->zero(p->config.backend, p->kept.list[i].data, p->kept.list[i].bytes);
  pthread_mutex_unlock(&p->mutex);
  return status;
}

/* All that the plan assigns: what the builder says, and then what is put back after a run that was left. */
static mn_status list_assigns(const mn_program *p, const built *b, int n, const mn_built_state *states, mn_plan_request *q) {
  const mn_parts *parts = &b->parts;
  const int all = parts->n_assigned + parts->n_moved + n;
  mn_tensor **variables = mn_arena_alloc(b->g->arena, (size_t)(2 * all + 1) * sizeof *variables), **values = variables + all;
  if (!variables) return MN_ERR_MEMORY;
  int k = 0;
  for (int i = 0; i < parts->n_assigned; i++, k++) variables[k] = parts->assigned[i].leaf, values[k] = parts->assigned[i].value;
  for (int i = 0; i < parts->n_moved; i++, k++) variables[k] = parts->moved[i].leaf, values[k] = parts->moved[i].value;
  for (int i = 0; i < n; i++, k++) variables[k] = states[i].leaf, values[k] = states[i].value;
  q->n_assigns = all;
  q->variables = variables;
  q->values = values;
  const bool put_back = p->config.put_back && b->form->length > 1; /* a token is soon over, and looking at the flag costs */
  q->n_put_back = parts->n_moved + (put_back ? n : 0);
  return MN_OK;
}

/* The states that runs of the graph go on with. */
static int carried_states(const mn_program *p, const built *b, const mn_built_state **states) {
  *states = NULL;
  return p->config.build.carried && !b->parts.stateless ? mn_scope_states(b->s, states) : 0;
}

/* What of a form's graph is compiled: what is given, and what is assigned. */
static mn_status request_of(const mn_program *p, const built *b, mn_plan_request *q) {
  const mn_built_state *states;
  const int n = carried_states(p, b, &states);
  *q = (mn_plan_request){.graph = b->g,
                         .n_outputs = b->parts.n_given,
                         .outputs = b->parts.given,
                         .backend = p->config.backend,
                         .passes_off = p->config.passes_off,
                         .activations = p->config.activations};
  return list_assigns(p, b, n, states, q);
}

mn_status mn_program_plan(mn_program *p, const mn_form *form, mn_program_look_fn look, void *ctx, mn_plan **out) {
  built b;
  mn_plan_request q;
  *out = NULL;
  mn_status status = build(p, form, &b);
  if (status == MN_OK) status = look(ctx, b.s);
  if (status == MN_OK) status = request_of(p, &b, &q);
  if (status == MN_OK) status = mn_plan_compile(&q, out);
  built_free(&b);
  return status;
}

static mn_status compile(mn_program *p, mn_routine *r, built *b) {
  const mn_built_state *states;
  const int n = carried_states(p, b, &states);
  add_feeds(b);
  MN_TRY(add_reports(r, b));
  if (n) MN_TRY(learn_states(p, b, r->form.batch));
  if (n) MN_TRY(check_states(p, r, n, states));
  r->n_states = n;
  r->state_slot = mn_arena_alloc(r->arena, (size_t)(n + 1) * sizeof *r->state_slot);
  if (!r->state_slot) return MN_ERR_MEMORY;
  mn_plan_request q;
  MN_TRY(request_of(p, b, &q));
  MN_TRY(plan_of(p, b, &q, &r->plan));
  for (int i = 0; i < n; i++) r->state_slot[i] = mn_plan_slot(r->plan, states[i].leaf);
  MN_TRY(name_results(r, &b->parts));
  MN_TRY(bind_kept(p, r, &b->parts));
  return bind_feeds(r, &b->parts);
}

static mn_status routine_new(mn_program *p, const mn_form *form, mn_routine **out) {
  *out = NULL;
  if (p->config.build.carried && !form->resets) MN_TRY(know(p, true));
  mn_routine *r = mn_calloc(1, sizeof *r);
  if (!r) return MN_ERR_MEMORY;
  *r = (mn_routine){.program = p, .form = *form, .arena = mn_arena_new()};
  built b = {0};
  mn_status status = r->arena ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK && form->report && !(r->form.report = mn_arena_strdup(r->arena, form->report))) status = MN_ERR_MEMORY;
  if (status == MN_OK) status = build(p, form, &b);
  if (status == MN_OK) status = compile(p, r, &b);
  built_free(&b);
  if (status != MN_OK) routine_free(r);
  else *out = r;
  return status;
}

static bool same_form(const mn_form *a, const mn_form *b) {
  return a->batch == b->batch && a->length == b->length && a->multiple == b->multiple && a->what == b->what && a->lengths == b->lengths &&
         a->resets == b->resets && !a->report == !b->report && (!a->report || strcmp(a->report, b->report) == 0);
}

static mn_status find(mn_program *p, const mn_form *form, mn_routine **out) {
  *out = NULL;
  for (int i = 0; i < p->n_routines; i++)
    if (same_form(&p->routines[i]->form, form)) {
      *out = p->routines[i];
      return MN_OK;
    }
  if (p->n_routines == p->cap_routines) {
    int cap = p->cap_routines ? 2 * p->cap_routines : 8;
    mn_routine **list = mn_realloc(p->routines, (size_t)cap * sizeof *list);
    if (!list) return MN_ERR_MEMORY;
    p->routines = list;
    p->cap_routines = cap;
  }
  MN_TRY(routine_new(p, form, out));
  p->routines[p->n_routines++] = *out;
  return MN_OK;
}

mn_status mn_program_enter(mn_program *p, const mn_form *form, mn_routine **out) {
  mn_form f = *form;
  if (f.multiple < 1) f.multiple = 1;
  *out = NULL;
  if (f.batch < 1 || f.length < 1)
    return mn_fail(MN_ERR_ARG, "a program runs on at least one token of one row, not on %" PRId64 " of %" PRId64, f.length, f.batch);
  pthread_mutex_lock(&p->mutex);
  mn_status status = find(p, &f, out);
  if (status != MN_OK) pthread_mutex_unlock(&p->mutex);
  return status;
}

void mn_program_leave(mn_program *p) { pthread_mutex_unlock(&p->mutex); }
