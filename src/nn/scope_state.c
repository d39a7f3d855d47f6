/* scope_state.c - what a stream remembers: states, the position, and how long it may become; see scope.h. */
#include "nn/scope_internal.h"

#include <string.h>

#include "base/narrow.h"

/* ---- where states are kept ---- */
mn_state_store *mn_state_store_new(mn_scope_root *r, mn_graph *home, bool carried) {
  mn_state_store *t = mn_scope_alloc(r, 1, sizeof *t);
  if (!t) return NULL;
  *t = (mn_state_store){.home = home, .carried = carried};
  t->at = t->group_at = t->calls = (mn_table){.arena = r->arena, .names = true};
  return t;
}

int mn_state_find(const mn_state_store *t, const char *full) { return mn_table_find(&t->at, full, -1); }

const mn_state_group *mn_state_group_of(const mn_state_store *t, const char *path) {
  int i = mn_table_find(&t->group_at, path, -1);
  return i >= 0 ? &t->groups[i] : NULL;
}

/* Notes a new state with every scope that it lies below, so that a loop over one of thousand layers asks for its own alone. */
static bool join_groups(mn_scope_root *r, mn_state_store *t, const char *full, int state) {
  for (const char *end = full; end; end = strchr(end, '.')) {
    if (end > full) end++;
    const char *path = mn_arena_format(r->arena, "%.*s", (int)(end - full), full);
    if (!path) return false;
    int i = mn_table_find(&t->group_at, path, -1);
    if (i < 0) {
      i = t->n_groups;
      if (!mn_scope_grow(r, &t->groups, i, &t->cap_groups, sizeof *t->groups)) return false;
      t->groups[i] = (mn_state_group){0};
      if (!mn_scope_remember(r, &t->group_at, path, i)) return false;
      t->n_groups++;
    }
    mn_state_group *of = &t->groups[i];
    if (!mn_scope_grow(r, &of->state, of->n, &of->cap, sizeof *of->state)) return false;
    of->state[of->n++] = state;
  }
  return true;
}

/* ---- state ---- */
static mn_tensor *chosen(mn_graph *g, mn_tensor *reset, const mn_built_state *e, mn_tensor *value) {
  const mn_shape rows = mn_rows_shape(e->info.shape.ndim, mn_dim(reset, 0), 1);
  return mn_select(g, mn_reshape(g, mn_capture(g, reset), rows), mn_capture(g, e->init), mn_capture(g, value));
}

mn_tensor *mn_state_begun(mn_scope_root *r, const mn_scope_frame *f, const mn_built_state *e, mn_tensor *value) {
  const mn_state_store *t = f->store;
  for (; f && f->store == t; f = f->parent)
    if (f->reset) value = chosen(r->graph, f->reset, e, value);
  return value;
}

static mn_built_state *new_state(mn_scope *s, const char *full, mn_dtype dtype, mn_shape shape, mn_tensor *init, const char *help) {
  mn_scope_root *r = s->r;
  mn_state_store *t = s->frame->store;
  if (init && (init->dtype != dtype || !mn_shape_equal(&init->shape, &shape))) {
    mn_graph_fault(r->graph, MN_ERR_INTERNAL, "state %s starts with another shape or type than it has", full);
    return NULL;
  }
  if (r->graph != t->home) {
    mn_graph_fault(r->graph, MN_ERR_INTERNAL, "state %s is first asked for inside a loop", full);
    return NULL;
  }
  if (!mn_scope_can_hold(r, "state", full, &shape, dtype)) return NULL;
  if (!mn_scope_grow(r, &t->states, t->n, &t->cap, sizeof *t->states) || !mn_scope_remember(r, &t->at, full, t->n) ||
      !join_groups(r, t, full, t->n))
    return NULL;
  mn_built_state *e = &t->states[t->n++];
  *e = (mn_built_state){.info = {full, dtype, shape, help, 0}};
  e->zeros = !init;
  if (init) e->init = mn_capture(t->home, init);
  else if (!mn_dtype_is_stored(dtype)) e->init = mn_full(t->home, dtype, shape, 0);
  e->leaf = t->carried ? mn_variable(t->home, full, dtype, shape) : NULL;
  e->before = e->leaf ? e->leaf : e->init;
  if (e->leaf && t->reset) e->before = chosen(t->home, t->reset, e, e->leaf); /* gradients reach the start of streams that begin here */
  e->value = mn_state_begun(r, s->frame, e, e->before);
  return e;
}

mn_tensor *mn_state(mn_scope *s, const char *name, mn_dtype dtype, mn_shape shape, mn_tensor *init, const char *help) {
  const char *full = mn_scope_full_state(s, name);
  if (!full) return NULL;
  const int i = mn_state_find(s->frame->store, full);
  const mn_built_state *e = i >= 0 ? &s->frame->store->states[i] : new_state(s, full, dtype, shape, init, help);
  return e ? mn_capture(s->r->graph, e->value) : NULL;
}

mn_tensor *mn_state_from(mn_scope *s, const char *name, mn_dtype dtype, mn_shape shape, mn_state_start start, const void *ctx,
                         const char *help) {
  const char *full = mn_scope_full_state(s, name);
  if (!full) return NULL;
  const bool known = mn_state_find(s->frame->store, full) >= 0;
  if (!known && !mn_scope_can_hold(s->r, "state", full, &shape, dtype)) return NULL;
  return mn_state(s, name, dtype, shape, known ? NULL : start(s, ctx), help);
}

void mn_state_set(mn_scope *s, const char *name, mn_tensor *value) {
  mn_scope_root *r = s->r;
  const char *full = mn_scope_full_state(s, name);
  const int i = full ? mn_state_find(s->frame->store, full) : -1;
  mn_built_state *e = i >= 0 ? &s->frame->store->states[i] : NULL;
  char a[96], b[96];
  if (!value || !full) return;
  if (!e) mn_graph_fault(r->graph, MN_ERR_INTERNAL, "state %s is set before it is asked for", full);
  else if (value->dtype != e->info.dtype || !mn_shape_equal(&value->shape, &e->info.shape))
    mn_graph_fault(r->graph, MN_ERR_INTERNAL, "state %s changes from %s %s to %s %s", full, mn_dtype_name(e->info.dtype),
                   mn_shape_str(&e->info.shape, a), mn_dtype_name(value->dtype), mn_shape_str(&value->shape, b));
  else e->value = value;
}

/* A cache of the stream that is built; NULL: of a call's own, or it does not begin with zeros. */
static mn_state_info *cache_of(mn_scope *s, const char *name) {
  const char *full = mn_scope_full_state(s, name);
  const int i = full ? mn_state_find(s->frame->store, full) : -1;
  return i >= 0 && !s->frame->parent && s->frame->store->states[i].zeros ? &s->frame->store->states[i].info : NULL;
}
void mn_state_appended(mn_scope *s, const char *name, int64_t first) {
  mn_state_info *info = cache_of(s, name);
  if (info) info->appended = first + 1;
}
void mn_state_ring(mn_scope *s, const char *name, int64_t first) {
  mn_state_info *info = cache_of(s, name);
  if (info) info->ring = first + 1;
}

mn_dtype mn_scope_cache(const mn_scope *s, mn_dtype t, int64_t K) {
  const mn_dtype cache = s->r->build.cache;
  const mn_state_store *store = s->frame->store;
  const bool own = !s->frame->parent && store->carried && !store->reset && s->r->graph == store->home;
  return own && mn_is_narrow(cache) && K % mn_block_values(cache) == 0 ? cache : t;
}

void mn_scope_restart(mn_scope *s, mn_tensor *rows, bool (*lasts)(const char *state)) {
  mn_state_store *t = s->frame->store;
  for (int i = 0; i < t->n; i++)
    if (!lasts(t->states[i].info.name) && t->states[i].init) /* of caches in types of their own nothing is read behind the position */
      t->states[i].value = chosen(s->r->graph, rows, &t->states[i], t->states[i].value);
}

int mn_scope_states(const mn_scope *s, const mn_built_state **states) {
  *states = s->frame->store->states;
  return s->frame->store->n;
}

/* ---- position ---- */
mn_tensor *mn_scope_position(mn_scope *s) { return mn_capture(s->r->graph, s->frame->position); }
bool mn_scope_is_stream(const mn_scope *s) {
  for (const mn_scope_frame *f = s->frame; f && f->store == s->frame->store; f = f->parent)
    if (f->loops > 0) return true;
  return s->frame->store->carried;
}

int64_t mn_common_divisor(int64_t a, int64_t b) {
  while (b) {
    int64_t t = a % b;
    a = b;
    b = t;
  }
  return a;
}

bool mn_scope_aligned(const mn_scope *s, int64_t n) {
  enum { MOST = 1 << 24 };
  mn_scope_frame *f = s->frame;
  int64_t all = f->alignment / mn_common_divisor(f->alignment, n) * n;
  if (all <= MOST) f->alignment = all; /* beyond that no segment is as long */
  return f->multiple % n == 0;
}

int64_t mn_scope_alignment(const mn_scope *s) { return s->frame->alignment; }

/* ---- limits ---- */
static void lower(mn_scope_frame *f, mn_limit limit) {
  if (limit.tokens < f->limit.tokens) f->limit = limit;
}

void mn_scope_limit(mn_scope *s, int64_t tokens, const char *key, const char *remedy) {
  mn_scope_root *r = s->r;
  if (tokens >= s->frame->limit.tokens) return;
  const char *where = mn_scope_place(r, s->path);
  lower(s->frame, (mn_limit){tokens, where ? where : "", mn_arena_strdup(r->arena, key), mn_arena_strdup(r->arena, remedy)});
}

mn_limit mn_scope_limit_of(const mn_scope *s) { return s->frame->limit; }

void mn_scope_advance(mn_scope *s, int64_t T) {
  mn_scope_frame *f = s->frame, *around = f->parent;
  if (f->loops > 0) return;
  if (mn_limit_check(&f->limit, s->r->build.forget, 0, f->longest ? f->longest : T) != MN_OK)
    mn_graph_fault(s->r->graph, MN_ERR_CONFIG, "%s", mn_message());
  if (around && around->store == f->store && f->limit.tokens < MN_LIMIT_NONE && T > 0 && !f->longest) { /* so often may it be called */
    mn_limit limit = f->limit;
    limit.tokens = limit.tokens / T * (around->loops ? around->piece : T);
    lower(around, limit);
  }
  if (f->moved && f->moved != T)
    mn_graph_fault(s->r->graph, MN_ERR_INTERNAL,
                   "a stream moves by %lld tokens and by %lld in one segment: what has another length is a call", (long long)f->moved,
                   (long long)T);
  f->moved = T;
  if (f->position_state < 0) return;
  mn_tensor *before = f->position ? f->position : mn_full(s->r->graph, MN_I32, MN_SHAPE(f->batch), 0);
  f->store->states[f->position_state].value = mn_moved(s->r->graph, before, mn_length_part(s->r->graph, f->length, 0, T), T);
}

mn_status mn_limit_check(const mn_limit *l, bool forget, int64_t position, int64_t n) {
  if (position < 0 || n > MN_POSITION_MAX - position)
    return mn_fail(MN_ERR_CONFIG, "a stream at position %lld cannot take %lld more tokens: positions end at %d", (long long)position,
                   (long long)n, MN_POSITION_MAX);
  if (forget || n <= l->tokens - position) return MN_OK;
  return mn_fail(MN_ERR_CONFIG, "a stream of %lld tokens is longer than %s%sholds: %s is %lld; %s", (long long)(position + n), l->where,
                 *l->where ? " " : "the model ", l->key ? l->key : "its limit", (long long)l->tokens,
                 l->remedy ? l->remedy : "shorten the stream");
}
