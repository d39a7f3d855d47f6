/* program.c - see program.h. */
#include "run/program.h"

#include "run/buffers.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct pair {
  mn_tensor *leaf, *value;
} pair;

struct mn_parts {
  mn_graph *g;
  int n_feeds, cap_feeds, n_given, cap_given, n_assigned, cap_assigned;
  mn_tensor **feeds, **given;
  const char **given_name;
  pair *assigned;
};

typedef struct result {
  const char *name;
  mn_dtype dtype;
  mn_shape shape;
} result;

struct mn_routine {
  mn_program *program;
  mn_form form;
  mn_arena *arena;
  mn_plan *plan;
  mn_buffers feeds;
  int n_results, n_reports;
  result *results;
  int n_states;
  int *state_slot; /* of the plan */
  uint64_t bound;  /* whose states the plan reads now; 0: nobody's */
};

struct mn_program {
  mn_program_config config;
  atomic_int owners;
  pthread_mutex_t mutex;
  mn_arena *arena;
  int n_routines, cap_routines;
  mn_routine **routines;
  atomic_int_fast64_t compiled;
  mn_prologue *prologue; /* NULL: not settled, or nothing compiled yet */
  mn_plan *first_plan;
  mn_states *first; /* one fresh stream: what that plan gives */
  bool knows_limit;
  mn_limit limit;
  int64_t alignment, aligned_length; /* as a segment of that many tokens sees it; 0: not looked at yet */
};

/* ---- what a builder says ---- */
static bool grow(mn_parts *p, void *list, int n, int *cap, size_t size) {
  if (n < *cap) return true;
  int c = *cap ? 2 * *cap : 8;
  void *old, *now = mn_arena_alloc(p->g->arena, (size_t)c * size);
  if (!now) {
    mn_graph_fault(p->g, MN_ERR_MEMORY, "%s", mn_message());
    return false;
  }
  memcpy(&old, list, sizeof old);
  if (n) memcpy(now, old, (size_t)n * size);
  memcpy(list, &now, sizeof now);
  *cap = c;
  return true;
}

void mn_parts_fed(mn_parts *p, mn_tensor *input) {
  if (input && grow(p, &p->feeds, p->n_feeds, &p->cap_feeds, sizeof *p->feeds)) p->feeds[p->n_feeds++] = input;
}

mn_tensor *mn_parts_feed(mn_parts *p, const char *name, mn_dtype dtype, mn_shape shape) {
  mn_tensor *t = mn_input(p->g, name, dtype, shape);
  mn_parts_fed(p, t);
  return t;
}

void mn_parts_give(mn_parts *p, const char *name, mn_tensor *value) {
  int cap = p->cap_given;
  if (!value || !grow(p, &p->given, p->n_given, &cap, sizeof *p->given) ||
      !grow(p, &p->given_name, p->n_given, &p->cap_given, sizeof *p->given_name))
    return;
  p->given[p->n_given] = value;
  p->given_name[p->n_given++] = name;
}

void mn_parts_assign(mn_parts *p, mn_tensor *variable, mn_tensor *value) {
  if (!variable || !value || !grow(p, &p->assigned, p->n_assigned, &p->cap_assigned, sizeof *p->assigned)) return;
  p->assigned[p->n_assigned++] = (pair){variable, value};
}

/* ---- making and ending ---- */
mn_status mn_program_new(const mn_program_config *config, mn_program **out) {
  *out = NULL;
  mn_program *p = mn_calloc(1, sizeof *p);
  if (!p) return MN_ERR_MEMORY;
  p->config = *config;
  if (p->config.learn.batch < 1) p->config.learn = (mn_form){.batch = 1, .length = 1};
  p->arena = mn_arena_new();
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
  mn_prologue_free(p->prologue);
  mn_states_free(p->first);
  pthread_mutex_destroy(&p->mutex);
  mn_arena_free(p->arena);
  free(p);
}

void mn_program_use(mn_program *p, const mn_params *params) { p->config.params = params; }
const mn_program_config *mn_program_config_of(const mn_program *p) { return &p->config; }
int64_t mn_program_compiled(const mn_program *p) { return atomic_load(&p->compiled); }

/* ---- building a form ---- */
typedef struct built {
  mn_graph *g;
  mn_scope *s;
  mn_parts parts;
} built;

static mn_status build(const mn_program *p, const mn_form *form, built *b) {
  *b = (built){.g = mn_graph_new()};
  if (!b->g) return MN_ERR_MEMORY;
  b->parts.g = b->g;
  mn_build how = p->config.build;
  how.position_multiple = form->multiple;
  if (form->lengths) how.length = mn_parts_feed(&b->parts, "length", MN_I32, MN_SHAPE(form->batch));
  if (p->config.fresh) how.reset = mn_full(b->g, MN_BOOL, MN_SHAPE(form->batch), 1);
  b->s = mn_scope_new(b->g, how, form->batch);
  if (!b->s) return MN_ERR_MEMORY;
  mn_status status = p->config.builder(p->config.ctx, b->s, form, &b->parts);
  mn_status fault = mn_graph_status(b->g); /* it says better what is wrong */
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
    if (k >= 0) fixed[q->n_fixed++] = (mn_fixed_leaf){tensors[i], p->config.params->data[k]};
  }
  q->fixed = fixed;
  q->prologue = p->prologue;
  return MN_OK;
}

static mn_status plan_of(mn_program *p, const built *b, mn_plan_request *q, mn_plan **out) {
  if (!p->config.params) return mn_fail(MN_ERR_INTERNAL, "a program is compiled before it has parameters");
  if (p->config.settled) {
    if (!p->prologue) MN_TRY(mn_prologue_new(p->config.backend, &p->prologue));
    MN_TRY(fix_params(p, b, q));
  }
  const mn_scope *s = b->s;
  MN_TRY(mn_plan_compile(q, out));
  atomic_fetch_add(&p->compiled, 1);
  mn_params_bind(p->config.params, s, *out);
  if (p->config.bound) p->config.bound(p->config.ctx, *out);
  return MN_OK;
}

/* The states' initial expressions (some are parameters) are run into one stream's states. */
static mn_status compute_first(mn_program *p) {
  mn_backend *b = p->config.backend;
  MN_TRY(mn_plan_run(p->first_plan));
  for (int i = 0; i < mn_states_count(p->first); i++)
    MN_TRY(b->copy(b, mn_states_data(p->first, i), mn_plan_output(p->first_plan, i)->data, mn_states_bytes(p->first, i)));
  return MN_OK;
}

static mn_status compile_first(mn_program *p, const built *b) {
  const mn_built_state *states;
  const int n = mn_scope_states(b->s, &states);
  mn_state_info *info = mn_arena_alloc(b->g->arena, (size_t)(n + 1) * sizeof *info);
  mn_tensor **init = mn_arena_alloc(b->g->arena, (size_t)(n + 1) * sizeof *init);
  if (!info || !init) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) info[i] = states[i].info, init[i] = states[i].init;
  mn_plan_request q = {.graph = b->g, .n_outputs = n, .outputs = init, .backend = p->config.backend};
  mn_states *first = NULL;
  MN_TRY(plan_of(p, b, &q, &p->first_plan));
  mn_status status = mn_states_new(p->config.backend, p->config.learn.batch, n, info, &first);
  p->first = first;
  if (status == MN_OK) status = compute_first(p);
  if (status == MN_OK) return MN_OK;
  mn_states_free(p->first);
  mn_plan_free(p->first_plan);
  p->first = NULL;
  p->first_plan = NULL;
  return status;
}

static mn_status know(mn_program *p, bool first) {
  if (first ? p->first != NULL : p->knows_limit) return MN_OK;
  built b;
  mn_status status = build(p, &p->config.learn, &b);
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

/* The same state for another number of streams. */
static mn_state_info info_for(const mn_states *first, int i, int64_t batch) {
  mn_state_info info = *mn_states_info(first, i);
  info.shape.dim[0] = info.shape.dim[0] / mn_states_batch(first) * batch;
  return info;
}

mn_status mn_program_states(mn_program *p, int64_t batch, mn_states **out) {
  const mn_states *first;
  *out = NULL;
  MN_TRY(mn_program_first(p, &first));
  if (batch == mn_states_batch(first)) return mn_states_clone(first, out);
  const int n = mn_states_count(first);
  mn_state_info *info = mn_alloc((size_t)(n + 1) * sizeof *info);
  if (!info) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) info[i] = info_for(first, i, batch);
  mn_status status = mn_states_new(p->config.backend, batch, n, info, out);
  free(info);
  if (status == MN_OK) status = mn_states_reset(*out, first, NULL);
  if (status == MN_OK) return MN_OK;
  mn_states_free(*out);
  *out = NULL;
  return status;
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
  const mn_states *first = p->first;
  if (n != mn_states_count(first))
    return mn_fail(MN_ERR_INTERNAL, "a segment of %" PRId64 " tokens has other state: %d tensors, not %d", r->form.length, n,
                   mn_states_count(first));
  for (int i = 0; i < n; i++) {
    const mn_state_info want = info_for(first, i, r->form.batch);
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
    r->results[j] = (result){mn_arena_strdup(r->arena, parts->given_name[j]), t->dtype, t->shape};
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

static mn_status compile(mn_program *p, mn_routine *r, built *b) {
  const mn_built_state *states = NULL;
  const int n = p->config.build.carried ? mn_scope_states(b->s, &states) : 0, more = b->parts.n_assigned;
  add_feeds(b);
  MN_TRY(add_reports(r, b));
  if (n) MN_TRY(check_states(p, r, n, states));
  mn_tensor **variables = mn_arena_alloc(b->g->arena, (size_t)(2 * (n + more) + 1) * sizeof *variables);
  r->n_states = n;
  r->state_slot = mn_arena_alloc(r->arena, (size_t)(n + 1) * sizeof *r->state_slot);
  if (!variables || !r->state_slot) return MN_ERR_MEMORY;
  mn_tensor **values = variables + n + more;
  for (int i = 0; i < n; i++) variables[i] = states[i].leaf, values[i] = states[i].value;
  for (int i = 0; i < more; i++) variables[n + i] = b->parts.assigned[i].leaf, values[n + i] = b->parts.assigned[i].value;
  mn_plan_request q = {.graph = b->g,
                       .n_outputs = b->parts.n_given,
                       .outputs = b->parts.given,
                       .n_assigns = n + more,
                       .variables = variables,
                       .values = values,
                       .backend = p->config.backend,
                       .activations = p->config.activations};
  MN_TRY(plan_of(p, b, &q, &r->plan));
  for (int i = 0; i < n; i++) r->state_slot[i] = mn_plan_slot(r->plan, states[i].leaf);
  MN_TRY(name_results(r, &b->parts));
  return bind_feeds(r, &b->parts);
}

static mn_status routine_new(mn_program *p, const mn_form *form, mn_routine **out) {
  *out = NULL;
  if (p->config.build.carried) MN_TRY(know(p, true));
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
         !a->report == !b->report && (!a->report || strcmp(a->report, b->report) == 0);
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

/* ---- running ---- */
const mn_form *mn_routine_form(const mn_routine *r) { return &r->form; }
int mn_routine_feeds(const mn_routine *r) { return r->feeds.n; }
const char *mn_routine_feed_name(const mn_routine *r, int i) { return r->feeds.list[i].name; }
mn_dtype mn_routine_feed_type(const mn_routine *r, int i) { return r->feeds.list[i].dtype; }
const mn_shape *mn_routine_feed_shape(const mn_routine *r, int i) { return &r->feeds.list[i].shape; }

int mn_routine_feed(const mn_routine *r, const char *name) {
  for (int i = 0; i < r->feeds.n; i++)
    if (strcmp(r->feeds.list[i].name, name) == 0) return i;
  return -1;
}

mn_status mn_routine_put(mn_routine *r, int feed, const void *host) {
  if (feed < 0 || feed >= r->feeds.n) return mn_fail(MN_ERR_ARG, "a routine of %d feeds has no feed %d", r->feeds.n, feed);
  mn_buffers *b = &r->feeds;
  return b->backend->upload(b->backend, b->list[feed].data, host, b->list[feed].bytes);
}

static mn_status bind_states(mn_routine *r, mn_states *s) {
  if (!s || mn_states_count(s) != r->n_states || mn_states_batch(s) != r->form.batch)
    return mn_fail(MN_ERR_ARG, "a routine for %" PRId64 " streams of %d states is run on %" PRId64 " of %d", r->form.batch, r->n_states,
                   s ? mn_states_batch(s) : 0, s ? mn_states_count(s) : 0);
  for (int64_t b = 0; b < r->form.batch; b++)
    if (mn_states_position(s)[b] % r->form.multiple)
      return mn_fail(MN_ERR_ARG, "row %" PRId64 " stands at %" PRId64 ", which is no multiple of %" PRId64, b, mn_states_position(s)[b],
                     r->form.multiple);
  if (r->bound == mn_states_id(s)) return MN_OK;
  for (int i = 0; i < r->n_states; i++) mn_plan_bind_slot(r->plan, r->state_slot[i], mn_states_data(s, i));
  r->bound = mn_states_id(s);
  return MN_OK;
}

static mn_status run(mn_routine *r, mn_states *states, const int32_t *length) {
  if (r->n_states) MN_TRY(bind_states(r, states));
  MN_TRY(mn_plan_run(r->plan));
  if (r->n_states) mn_states_moved(states, length, r->form.length);
  return MN_OK;
}

mn_status mn_routine_run(mn_routine *r, mn_states *states) {
  if (r->form.lengths) return mn_fail(MN_ERR_ARG, "a form whose rows have lengths is run with them");
  return run(r, states, NULL);
}

mn_status mn_routine_run_rows(mn_routine *r, mn_states *states, const int32_t *length) {
  if (!r->form.lengths) return mn_fail(MN_ERR_ARG, "a form whose rows are all as long is run without lengths");
  for (int64_t b = 0; b < r->form.batch; b++)
    if (length[b] < 0 || length[b] > r->form.length)
      return mn_fail(MN_ERR_ARG, "row %" PRId64 " has %d tokens of %" PRId64, b, (int)length[b], r->form.length);
  MN_TRY(mn_routine_put(r, mn_routine_feed(r, "length"), length));
  return run(r, states, length);
}

int mn_routine_results(const mn_routine *r) { return r->n_results; }
int mn_routine_reports(const mn_routine *r) { return r->n_reports; }
const char *mn_routine_result_name(const mn_routine *r, int j) { return r->results[j].name; }
mn_dtype mn_routine_result_type(const mn_routine *r, int j) { return r->results[j].dtype; }
const mn_shape *mn_routine_result_shape(const mn_routine *r, int j) { return &r->results[j].shape; }

mn_status mn_routine_get(const mn_routine *r, int j, int64_t first, int64_t n, void *host) {
  mn_backend *b = r->program->config.backend;
  if (j < 0 || j >= r->n_results || first < 0 || n < 0 || n > mn_shape_count(&r->results[j].shape) - first)
    return mn_fail(MN_ERR_ARG, "elements %" PRId64 " to %" PRId64 " of result %d: there are no such", first, first + n, j);
  const size_t size = mn_dtype_size(r->results[j].dtype);
  return b->download(b, host, (const char *)mn_plan_output(r->plan, j)->data + (size_t)first * size, (size_t)n * size);
}

mn_status mn_routine_get_all(const mn_routine *r, int j, void *host) {
  if (j < 0 || j >= r->n_results) return mn_fail(MN_ERR_ARG, "a routine of %d results has no result %d", r->n_results, j);
  return mn_routine_get(r, j, 0, mn_shape_count(&r->results[j].shape), host);
}

mn_plan *mn_routine_plan(const mn_routine *r) { return r->plan; }
