/* scope_call.c - calling a model or a mixer inside another; see scope.h. */
#include "nn/scope_internal.h"

#include <string.h>

/* How often `path` has been called, this time included; 0: no memory. Calls of a stream of its own are counted apart. */
static int called(mn_scope_root *r, mn_state_store *t, const char *path, bool own) {
  const char *key = mn_arena_format(r->arena, own ? "=%s" : "%s", path);
  const int n = key ? mn_table_find(&t->calls, key, 0) + 1 : 0;
  if (!key) mn_graph_fault(r->graph, MN_ERR_MEMORY, "%s", mn_message());
  if (!key || !mn_scope_grow(r, &t->called, t->n_called, &t->cap_called, sizeof *t->called) || !mn_scope_remember(r, &t->calls, key, n))
    return 0;
  t->called[t->n_called++] = key;
  return n;
}

void mn_scope_uncall(mn_scope_root *r, mn_state_store *t, int n) {
  while (t->n_called > n) {
    const char *key = t->called[--t->n_called];
    const int count = mn_table_find(&t->calls, key, 0); /* 0: begun again meanwhile */
    if (count > 0) mn_scope_remember(r, &t->calls, key, count - 1);
  }
}

/* The number of the last call of `path`; 0: there was none. */
static int last_call(mn_scope_root *r, mn_state_store *t, const char *path) {
  const char *key = mn_arena_format(r->arena, "=%s", path);
  const int n = key ? mn_table_find(&t->calls, key, 0) : 0;
  if (n == 0) mn_graph_fault(r->graph, MN_ERR_INTERNAL, "call %s goes on before it has begun", mn_scope_place(r, path));
  return n;
}

/* What is called below `path` is called as it was the first time. */
static void call_anew(mn_scope_root *r, mn_state_store *t, const char *path) {
  const size_t n = strlen(path);
  for (int i = 0; i < t->n_called; i++) {
    const char *key = t->called[i], *at = *key == '=' ? key + 1 : key;
    if (strncmp(at, path, n) == 0 && (at[n] || at == key)) mn_scope_remember(r, &t->calls, key, 0);
  }
}

int64_t mn_scope_longest(const mn_scope *s) { return s->frame->longest ? s->frame->longest : MN_LIMIT_NONE; }

mn_scope *mn_scope_again(mn_scope *s) {
  mn_scope_root *r = s->r;
  const int n = called(r, s->frame->store, s->state_path, false);
  if (n <= 1) return s;
  mn_scope *again = mn_scope_alloc(r, 1, sizeof *again);
  const char *path = again ? mn_arena_format(r->arena, "%scall%d.", s->state_path, n) : NULL;
  if (!path) {
    mn_graph_fault(r->graph, MN_ERR_MEMORY, "%s", mn_message());
    return s;
  }
  *again = *s;
  again->state_path = path;
  return again;
}

/* A root in the same graph, where nothing has been declared yet. */
static mn_scope_root *root_beside(const mn_scope *s) {
  const mn_scope_root *r = s->r;
  mn_scope_root *own = mn_arena_alloc(r->arena, sizeof *own);
  if (!own) return NULL;
  *own = (mn_scope_root){.arena = r->arena, .build = r->build, .graph = r->graph, .outer = r->outer};
  own->build.training = false;
  own->build.param = mn_scope_exact(s);
  own->build.types = (mn_param_types){0};
  own->param_at = own->buffer_at = own->feed_at = (mn_table){.arena = r->arena, .names = true};
  return own;
}

mn_scope *mn_scope_beside(mn_scope *s, const char *name) {
  mn_scope_root *r = s->r, *own = root_beside(s);
  if (r->graph != r->outer) mn_graph_fault(r->graph, MN_ERR_INTERNAL, "%s is built beside a model from inside a loop", name);
  if (!own) {
    mn_graph_fault(r->graph, MN_ERR_MEMORY, "%s", mn_message());
    return s;
  }
  mn_scope *in = mn_scope_call(s, name, (mn_call_options){.length = s->frame->length, .position_multiple = s->frame->multiple});
  if (in == s) return s;
  in->r = own;
  in->path = "";
  in->linear = NULL;
  return in;
}

/* Rows that begin a stream begin with all that lies below: states that are known, those that will be are begun when they are made. */
static void begin_rows(mn_scope *s) {
  mn_scope_frame *f = s->frame;
  const mn_state_group *below = mn_state_group_of(f->store, s->state_path);
  mn_scope_frame alone = *f;
  alone.parent = NULL; /* those around have begun theirs */
  for (int i = 0; f->reset && below && i < below->n; i++) {
    mn_built_state *e = &f->store->states[below->state[i]];
    e->value = mn_state_begun(s->r, &alone, e, e->value);
  }
}

static bool resets_rows(const mn_scope_frame *f) {
  const mn_state_store *t = f->store;
  for (; f && f->store == t; f = f->parent)
    if (f->reset) return true;
  return t->reset != NULL;
}

/* The position of a stream that goes on is a state; where nothing can have gone before it is known to be 0. */
static void go_on(mn_scope *s, int64_t multiple) {
  mn_scope_frame *f = s->frame;
  mn_tensor *position = mn_state(s, "position", MN_I32, MN_SHAPE(f->batch), NULL, "tokens of the stream so far");
  f->position_state = mn_state_find(f->store, mn_scope_full_state(s, "position"));
  if (!position || f->position_state < 0 || !mn_scope_is_stream(s)) return;
  f->position = position;
  f->multiple = multiple > 0 ? multiple : 1;
}

mn_scope *mn_scope_call(mn_scope *s, const char *name, mn_call_options how) {
  mn_scope_root *r = s->r;
  mn_scope *in = mn_scope_alloc(r, 1, sizeof *in);
  mn_scope_frame *f = mn_scope_alloc(r, 1, sizeof *f);
  const char *path = mn_arena_format(r->arena, "%s%s.", s->state_path, name);
  const int n = !path ? 0 : how.again ? last_call(r, s->frame->store, path) : called(r, s->frame->store, path, true);
  if (n > 1) path = mn_arena_format(r->arena, "%s%s-%d.", s->state_path, name, n);
  if (!in || !f || !path || n == 0) return s;
  if (how.again) call_anew(r, s->frame->store, path);
  *f = (mn_scope_frame){.parent = s->frame,
                        .store = how.fresh ? mn_state_store_new(r, r->graph, false) : s->frame->store,
                        .batch = how.batch > 0 ? how.batch : s->frame->batch,
                        .alignment = 1,
                        .reset = how.reset,
                        .length = how.length,
                        .position_state = -1,
                        .longest = how.longest,
                        .limit = {.tokens = MN_LIMIT_NONE}};
  if (!f->store) return s;
  const mn_shape rows = MN_SHAPE(f->batch);
  if (how.reset && (how.fresh || how.reset->dtype != MN_BOOL || !mn_shape_equal(&how.reset->shape, &rows)))
    mn_graph_fault(r->graph, MN_ERR_ARG, "the rows that call %s resets are a bool [%lld], of a call that goes on", mn_scope_place(r, path),
                   (long long)f->batch);
  if (how.length && (how.length->dtype != MN_I32 || !mn_shape_equal(&how.length->shape, &rows)))
    mn_graph_fault(r->graph, MN_ERR_ARG, "the lengths of call %s are an i32 [%lld]", mn_scope_place(r, path), (long long)f->batch);
  if (!how.fresh && !how.reset && f->batch != s->frame->batch && resets_rows(s->frame))
    mn_graph_fault(r->graph, MN_ERR_ARG,
                   "call %s has %lld rows where its caller, whose rows are reset, has %lld: it must say which of its own are",
                   mn_scope_place(r, path), (long long)f->batch, (long long)s->frame->batch);
  const char *params = s->path;
  if (how.params) params = *how.params ? mn_arena_format(r->arena, "%s.", how.params) : "";
  else params = mn_arena_format(r->arena, "%s%s.", s->path, name);
  if (!params) {
    mn_graph_fault(r->graph, MN_ERR_MEMORY, "%s", mn_message());
    return s;
  }
  *in = (mn_scope){r, f, params, path, s->linear};
  if (!how.fresh) {
    begin_rows(in);
    go_on(in, how.position_multiple);
  }
  return in;
}
