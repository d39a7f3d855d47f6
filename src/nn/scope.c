/* scope.c - see scope.h. One root holds the lists; scopes are names that point to it. */
#include "nn/scope.h"

#include "base/table.h"

#include <stdio.h>
#include <string.h>

typedef struct group { /* the states below one scope, in the order in which they were asked for */
  int n, cap;
  int *state;
} group;

typedef struct root {
  mn_arena *arena;
  mn_build build;
  int64_t batch;
  mn_graph *graph; /* where building happens now: the outer graph, or the body of a loop */
  mn_graph *outer;
  mn_tensor *position; /* of the current segment; NULL: zero   */
  int64_t multiple;    /* position is a multiple of it; 0: it is zero */
  int64_t alignment;   /* all that was asked about it fits into this  */
  bool looping;        /* inside mn_scope_loop, its first look and its last piece included */
  int n_params, cap_params;
  mn_param_info *params;
  mn_tensor **param_tensors;
  mn_table param_at; /* full name -> number */
  int n_states, cap_states;
  mn_built_state *states;
  mn_limit limit;
  mn_table state_at; /* full name -> number */
  int n_groups, cap_groups;
  group *groups;
  mn_table group_at; /* path of a scope -> number */
  int n_reports, cap_reports;
  const char **report_names;
  mn_tensor **reports;
} root;

struct mn_scope {
  root *r;
  const char *path; /* "" at the root, else ending in "." */
};

/* Room for item n of the array *list points to; false (and the array as it was) when memory is short. */
static bool grow(root *r, void *list, int n, int *cap, size_t size) {
  if (n < *cap) return true;
  int c = *cap ? 2 * *cap : 16;
  void *old, *p = mn_arena_alloc(r->arena, (size_t)c * size);
  if (!p) {
    mn_graph_fault(r->graph, MN_ERR_MEMORY, "%s", mn_message());
    return false;
  }
  memcpy(&old, list, sizeof old);
  if (n) memcpy(p, old, (size_t)n * size);
  memcpy(list, &p, sizeof p);
  *cap = c;
  return true;
}

mn_scope *mn_scope_new(mn_graph *g, mn_build build, int64_t batch) {
  root *r = mn_arena_alloc(g->arena, sizeof *r);
  mn_scope *s = mn_arena_alloc(g->arena, sizeof *s);
  if (!r || !s) return NULL;
  *r = (root){.arena = g->arena, .build = build, .batch = batch, .graph = g, .outer = g, .alignment = 1, .limit = {.tokens = MN_LIMIT_NONE}};
  r->param_at = r->state_at = r->group_at = (mn_table){.arena = g->arena, .names = true};
  *s = (mn_scope){r, ""};
  if (batch < 1) mn_graph_fault(g, MN_ERR_SHAPE, "a batch holds at least one sequence");
  if (build.carried) {
    r->position = mn_state(s, "position", MN_I32, MN_SHAPE(batch), NULL, "tokens of the stream so far");
    r->multiple = build.position_multiple > 0 ? build.position_multiple : 1;
  }
  return s;
}

mn_scope *mn_scope_in(mn_scope *s, const char *fmt, ...) {
  char name[128];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(name, sizeof name, fmt, ap);
  va_end(ap);
  mn_scope *in = mn_arena_alloc(s->r->arena, sizeof *in);
  const char *path = in ? mn_arena_format(s->r->arena, "%s%s.", s->path, name) : NULL;
  if (!path) {
    mn_graph_fault(s->r->graph, MN_ERR_MEMORY, "%s", mn_message());
    return s;
  }
  *in = (mn_scope){s->r, path};
  return in;
}

mn_graph *mn_scope_graph(mn_scope *s) { return s->r->graph; }
int64_t mn_scope_batch(const mn_scope *s) { return s->r->batch; }
mn_dtype mn_scope_compute(const mn_scope *s) { return s->r->build.compute; }
mn_dtype mn_scope_exact(const mn_scope *s) { return s->r->build.param; }
const char *mn_scope_path(const mn_scope *s) { return s->path; }

static bool remember(root *r, mn_table *t, const char *name, int number) {
  if (mn_table_put(t, name, number) == MN_OK) return true;
  mn_graph_fault(r->graph, MN_ERR_MEMORY, "%s", mn_message());
  return false;
}

/* ---- parameters ---- */
mn_tensor *mn_param(mn_scope *s, const char *name, mn_shape shape, mn_init init, unsigned flags, const char *help) {
  root *r = s->r;
  const char *full = mn_arena_format(r->arena, "%s%s", s->path, name);
  if (!full) return NULL;
  int known = mn_table_find(&r->param_at, full, -1);
  if (known >= 0) {
    if (!mn_shape_equal(&r->params[known].shape, &shape))
      mn_graph_fault(r->graph, MN_ERR_INTERNAL, "parameter %s is used with two shapes", full);
    return r->param_tensors[known];
  }
  int cap = r->cap_params;
  if (!grow(r, &r->param_tensors, r->n_params, &cap, sizeof *r->param_tensors) ||
      !grow(r, &r->params, r->n_params, &r->cap_params, sizeof *r->params) || !remember(r, &r->param_at, full, r->n_params))
    return NULL;
  r->params[r->n_params] = (mn_param_info){full, shape, init, flags, help, NULL};
  mn_tensor *t = mn_variable(r->outer, full, r->build.param, shape); /* a loop's body captures it */
  r->param_tensors[r->n_params++] = t;
  return t;
}

void mn_param_copy(mn_scope *s, const char *name, const char *copy) {
  root *r = s->r;
  const char *full = mn_arena_format(r->arena, "%s%s", s->path, name);
  int i = full ? mn_table_find(&r->param_at, full, -1) : -1;
  if (i >= 0) r->params[i].copy = mn_arena_format(r->arena, "%s%s", s->path, copy);
}

/* ---- state ---- */
static mn_built_state *state_find(root *r, const char *full) {
  int i = mn_table_find(&r->state_at, full, -1);
  return i >= 0 ? &r->states[i] : NULL;
}

static group *group_of(root *r, const char *path) { /* NULL: no state below */
  int i = mn_table_find(&r->group_at, path, -1);
  return i >= 0 ? &r->groups[i] : NULL;
}

/* Notes a new state with every scope that it lies below, so that a loop over one of thousand layers asks for its own alone. */
static bool join_groups(root *r, const char *full, int state) {
  for (const char *end = full; end; end = strchr(end, '.')) {
    if (end > full) end++;
    const char *path = mn_arena_format(r->arena, "%.*s", (int)(end - full), full);
    group *of = path ? group_of(r, path) : NULL;
    if (path && !of) {
      if (!grow(r, &r->groups, r->n_groups, &r->cap_groups, sizeof *r->groups)) return false;
      r->groups[r->n_groups] = (group){0};
      if (!remember(r, &r->group_at, path, r->n_groups)) return false;
      of = &r->groups[r->n_groups++];
    }
    if (!of || !grow(r, &of->state, of->n, &of->cap, sizeof *of->state)) return false;
    of->state[of->n++] = state;
  }
  return true;
}

mn_tensor *mn_state(mn_scope *s, const char *name, mn_dtype dtype, mn_shape shape, mn_tensor *init, const char *help) {
  root *r = s->r;
  const char *full = mn_arena_format(r->arena, "%s%s", s->path, name);
  if (!full) return NULL;
  mn_built_state *e = state_find(r, full);
  if (e) return e->value;
  if (init && (init->dtype != dtype || !mn_shape_equal(&init->shape, &shape))) {
    mn_graph_fault(r->graph, MN_ERR_INTERNAL, "state %s starts with another shape or type than it has", full);
    return NULL;
  }
  if (r->graph != r->outer) {
    mn_graph_fault(r->graph, MN_ERR_INTERNAL, "state %s is first asked for inside a loop", full);
    return NULL;
  }
  if (!grow(r, &r->states, r->n_states, &r->cap_states, sizeof *r->states) || !remember(r, &r->state_at, full, r->n_states) ||
      !join_groups(r, full, r->n_states))
    return NULL;
  e = &r->states[r->n_states++];
  *e = (mn_built_state){.info = {full, dtype, shape, help}};
  e->init = init ? init : mn_full(r->outer, dtype, shape, 0);
  e->leaf = r->build.carried ? mn_variable(r->outer, full, dtype, shape) : NULL;
  e->before = e->leaf ? e->leaf : e->init;
  if (e->leaf && r->build.reset) { /* gradients reach the initial state of streams that begin here */
    mn_shape rows = {.ndim = shape.ndim, .dim = {r->batch, 1, 1, 1, 1, 1}};
    e->before = mn_select(r->outer, mn_reshape(r->outer, r->build.reset, rows), e->init, e->leaf);
  }
  return e->value = e->before;
}

void mn_state_set(mn_scope *s, const char *name, mn_tensor *value) {
  root *r = s->r;
  const char *full = mn_arena_format(r->arena, "%s%s", s->path, name);
  mn_built_state *e = full ? state_find(r, full) : NULL;
  char a[96], b[96];
  if (!value || !full) return;
  if (!e) mn_graph_fault(r->graph, MN_ERR_INTERNAL, "state %s is set before it is asked for", full);
  else if (value->dtype != e->info.dtype || !mn_shape_equal(&value->shape, &e->info.shape))
    mn_graph_fault(r->graph, MN_ERR_INTERNAL, "state %s changes from %s %s to %s %s", full, mn_dtype_name(e->info.dtype),
                   mn_shape_str(&e->info.shape, a), mn_dtype_name(value->dtype), mn_shape_str(&value->shape, b));
  else e->value = value;
}

/* ---- position ---- */
mn_tensor *mn_scope_position(mn_scope *s) { return s->r->position; }
bool mn_scope_is_stream(const mn_scope *s) { return s->r->build.carried || s->r->looping; }

static int64_t common_divisor(int64_t a, int64_t b) {
  while (b) {
    int64_t t = a % b;
    a = b;
    b = t;
  }
  return a;
}

bool mn_scope_aligned(const mn_scope *s, int64_t n) {
  enum { MOST = 1 << 24 };
  root *r = s->r;
  int64_t all = r->alignment / common_divisor(r->alignment, n) * n;
  if (all <= MOST) r->alignment = all; /* beyond that no segment is as long */
  return r->multiple % n == 0;
}

int64_t mn_scope_alignment(const mn_scope *s) { return s->r->alignment; }

void mn_scope_advance(mn_scope *s, int64_t T) {
  mn_scope top = {s->r, ""};
  mn_limit limit = mn_scope_limit_of(s);
  if (s->r->looping) return;
  if (mn_limit_check(&limit, s->r->build.forget, 0, T) != MN_OK) mn_graph_fault(s->r->graph, MN_ERR_CONFIG, "%s", mn_message());
  if (s->r->build.carried) mn_state_set(&top, "position", mn_add_scalar(s->r->graph, s->r->position, (double)T));
}

/* ---- limits ---- */
void mn_scope_limit(mn_scope *s, int64_t tokens, const char *key, const char *remedy) {
  root *r = s->r;
  if (tokens >= r->limit.tokens) return;
  size_t n = strlen(s->path);
  char *where = mn_arena_strdup(r->arena, s->path);
  if (where && n) where[n - 1] = 0; /* the point after the last name */
  r->limit = (mn_limit){tokens, where ? where : "", mn_arena_strdup(r->arena, key), mn_arena_strdup(r->arena, remedy)};
}

mn_limit mn_scope_limit_of(const mn_scope *s) { return s->r->limit; }

mn_status mn_limit_check(const mn_limit *l, bool forget, int64_t position, int64_t n) {
  if (position < 0 || n > MN_POSITION_MAX - position)
    return mn_fail(MN_ERR_CONFIG, "a stream at position %lld cannot take %lld more tokens: positions end at %d", (long long)position,
                   (long long)n, MN_POSITION_MAX);
  if (forget || n <= l->tokens - position) return MN_OK;
  return mn_fail(MN_ERR_CONFIG, "a stream of %lld tokens is longer than %s%sholds: %s is %lld; %s", (long long)(position + n), l->where,
                 *l->where ? " " : "the model ", l->key ? l->key : "its limit", (long long)l->tokens,
                 l->remedy ? l->remedy : "shorten the stream");
}

/* ---- reports ---- */
void mn_report(mn_scope *s, const char *name, mn_tensor *value) {
  root *r = s->r;
  if (!value || r->graph != r->outer || r->looping) return; /* out of a loop only its result leads; its last piece alone is no report */
  int cap = r->cap_reports;
  if (!grow(r, &r->report_names, r->n_reports, &cap, sizeof *r->report_names) ||
      !grow(r, &r->reports, r->n_reports, &r->cap_reports, sizeof *r->reports))
    return;
  r->report_names[r->n_reports] = mn_arena_format(r->arena, "%s%s", s->path, name);
  r->reports[r->n_reports++] = value;
}

/* ---- loops over time ---- */
/* [B, n*len, ...] -> [n, B, len, ...] */
static mn_tensor *to_pieces(mn_graph *g, mn_tensor *x, int64_t n, int64_t len) {
  mn_shape s = {.ndim = x->shape.ndim + 1, .dim = {mn_dim(x, 0), n, len}};
  if (s.ndim > MN_MAX_DIMS) s.ndim = -1;
  for (int i = 2; i < x->shape.ndim && s.ndim > 0; i++) s.dim[i + 1] = x->shape.dim[i];
  return mn_transpose(g, mn_reshape(g, x, s), 0, 1);
}

/* [n, B, len, ...] -> [B, n*len, ...] */
static mn_tensor *from_pieces(mn_graph *g, mn_tensor *y) {
  if (!y) return NULL;
  mn_shape s = {.ndim = y->shape.ndim - 1, .dim = {mn_dim(y, 1), mn_dim(y, 0) * mn_dim(y, 2)}};
  for (int i = 3; i < y->shape.ndim; i++) s.dim[i - 1] = y->shape.dim[i];
  return mn_reshape(g, mn_transpose(g, y, 0, 1), s);
}

/* Built once for nothing but its effects: parameters and states become known in the outer graph, and their values are put
 * back. What it computed is read by nobody and disappears. */
static void discover(mn_scope *s, mn_segment_function f, void *ctx, mn_tensor *piece) {
  root *r = s->r;
  const group *below = group_of(r, s->path);
  int n = below ? below->n : 0, reports = r->n_reports;
  mn_tensor **keep = mn_arena_alloc(r->arena, (size_t)(n + 1) * sizeof *keep);
  if (!keep) return;
  for (int i = 0; i < n; i++) keep[i] = r->states[below->state[i]].value;
  const bool mute = r->graph->mute;
  r->graph->mute = true;
  f(s, ctx, piece);
  r->graph->mute = mute;
  below = group_of(r, s->path);
  for (int i = 0; below && i < below->n; i++) {
    mn_built_state *e = &r->states[below->state[i]];
    e->value = i < n ? keep[i] : e->before;
  }
  r->n_reports = reports;
}

mn_tensor *mn_scope_loop(mn_scope *s, int64_t length, mn_segment_function f, void *ctx, mn_tensor *x) {
  root *r = s->r;
  mn_graph *outer = r->graph;
  if (!x) return NULL;
  if (length < 1) {
    mn_graph_fault(outer, MN_ERR_ARG, "a loop over pieces of %lld tokens", (long long)length);
    return NULL;
  }
  int64_t T = mn_dim(x, 1), n = T / length, rest = T - n * length;
  if (n == 0 || (n == 1 && rest == 0)) return f(s, ctx, x);
  mn_tensor *start = r->position;
  int64_t multiple = r->multiple;
  bool looping = r->looping;
  r->looping = true;
  if (r->graph == r->outer) discover(s, f, ctx, mn_slice(outer, x, 1, 0, length));
  if (outer->status != MN_OK) return NULL;

  /* carries: every state below this scope, and the position */
  const group *below = group_of(r, s->path);
  size_t room = (size_t)(below ? below->n : 0) + 2;
  int n_states = 0, *which = mn_arena_alloc(r->arena, room * sizeof *which);
  mn_tensor **carry = mn_arena_alloc(r->arena, room * sizeof *carry), **in = mn_arena_alloc(r->arena, room * sizeof *in);
  mn_tensor **out = mn_arena_alloc(r->arena, room * sizeof *out), ** final = mn_arena_alloc(r->arena, room * sizeof *final);
  if (!which || !carry || !in || !out || !final) return NULL;
  for (int i = 0; below && i < below->n; i++) {
    const mn_built_state *e = &r->states[below->state[i]];
    if (strcmp(e->info.name, "position") != 0) which[n_states] = below->state[i], carry[n_states++] = e->value;
  }
  carry[n_states] = start ? start : mn_full(outer, MN_I32, MN_SHAPE(r->batch), 0);

  mn_tensor *pieces = to_pieces(outer, mn_slice(outer, x, 1, 0, n * length), n, length), *piece, *y, *ys = NULL;
  mn_scan_builder *b = mn_scan_begin(outer, n, false, n_states + 1, carry, 1, &pieces, in, &piece);
  mn_graph *body = mn_scan_body(b);
  if (!body) return NULL;
  r->graph = body;
  r->position = in[n_states];
  r->multiple = common_divisor(multiple, length);
  for (int i = 0; i < n_states; i++) r->states[which[i]].value = in[i];
  y = f(s, ctx, piece);
  for (int i = 0; i < n_states; i++) out[i] = r->states[which[i]].value;
  out[n_states] = mn_add_scalar(body, in[n_states], (double)length);
  r->graph = outer;
  mn_scan_end(b, out, 1, &y, final, &ys);
  if (outer->status != MN_OK) return NULL;
  for (int i = 0; i < n_states; i++) r->states[which[i]].value = final[i];
  y = from_pieces(outer, ys);
  if (rest) {
    r->position = final[n_states];
    mn_tensor *last = f(s, ctx, mn_slice(outer, x, 1, n * length, rest));
    y = mn_concat(outer, 2, (mn_tensor *[]){y, last}, 1);
  }
  r->position = start;
  r->multiple = multiple;
  r->looping = looping;
  return y;
}

/* ---- what was built ---- */
int mn_scope_params(const mn_scope *s, const mn_param_info **info, mn_tensor *const **tensors) {
  if (info) *info = s->r->params;
  if (tensors) *tensors = s->r->param_tensors;
  return s->r->n_params;
}

int mn_scope_states(const mn_scope *s, const mn_built_state **states) {
  *states = s->r->states;
  return s->r->n_states;
}

int mn_scope_reports(const mn_scope *s, const char *const **names, mn_tensor *const **values) {
  *names = s->r->report_names;
  *values = s->r->reports;
  return s->r->n_reports;
}
