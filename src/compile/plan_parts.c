/* plan_parts.c - loops whose parts run apart from each other. The body of a memory's loop does the same to each row of a batch, or to each
 * head, and a head never meets another: so a thread can take one head through all steps of the loop with its state in the nearest caches,
 * and threads need not wait for each other after each operation, only at the end of the loop.
 *
 * Whether it is so is read off the compiled steps. Each result is either whole (it depends on nothing of any part), or it lies in parts
 * along its first axis that is not 1; operations say which axis of an operand goes with which axis of a result (mn_op.slices). Then each
 * thread has a plan that is the body's but for its views, of which that axis is 1, and its pointers, which move from part to part.
 * It depends on the graph alone, never on the number of threads, so the bits do not, either. */
#include "compile/plan_internal.h"

#include <string.h>

/* What the body has written into a storage, or finds there */
typedef enum held { HELD_NOTHING, HELD_WHOLE, HELD_PARTS, HELD_SPREAD /* parts not one after the other: nobody reads them */ } held;

typedef struct look {
  const mn_plan *body;
  int64_t parts;
  held *held;                     /* per storage            */
  size_t *unit;                   /* per storage with parts: bytes of one */
  size_t *written;                /* per storage: bytes of a part of what was written there, under whatever name; 0: nothing yet */
  int **in_axis;                  /* per step and operand: the axis that is cut, -1: none */
  int *out_axis;                  /* per step: that of its results, -1: they are whole    */
  int64_t work_whole, work_parts; /* of a step of the loop  */
} look;

static size_t size_of(const mn_view *v) { return mn_dtype_size(v->dtype); }

/* The axis that parts lie along: the first that is not 1. */
static int first_axis(const mn_view *v) {
  for (int d = 0; d < v->ndim; d++)
    if (v->dim[d] != 1) return d;
  return -1;
}

static size_t view_bytes(const mn_view *v) { return (size_t)mn_view_count(v) * size_of(v); }

static bool is_elementwise(const mn_node *n) { return n->op->cls == MN_OP_ELEMENTWISE || mn_is(n, MN_IS_PROGRAM); }

/* Which axis of each operand goes with `axis` of the results */
static bool axes_of(const mn_node *n, int axis, int *in_axis) {
  if (!is_elementwise(n)) return n->op->slices && n->op->slices(n, axis, in_axis);
  for (int i = 0; i < n->n_in; i++) in_axis[i] = axis - (n->out[0]->shape.ndim - n->in[i]->shape.ndim);
  return true;
}

/* Does operand i, cut along `axis` (-1: read whole), see its part alone, where it holds parts? */
static bool reads_its_part(const look *l, const mn_plan_step *s, int i, int *axis) {
  const mn_view *v = &s->call.in[i];
  const int at = s->in_storage[i];
  if (*axis >= 0 && v->dim[*axis] == 1) *axis = -1; /* the same for all parts */
  if (*axis >= 0 && v->dim[*axis] != l->parts) return false;
  switch (l->held[at]) {
  case HELD_WHOLE: /* what all parts read alike is better read once, unless it is read element by element */
    return *axis < 0 || v->stride[*axis] > 0 || (v->stride[*axis] == 0 && is_elementwise(s->call.node));
  case HELD_PARTS: {
    const size_t size = size_of(v);
    if (*axis < 0 || v->stride[*axis] <= 0 || (size_t)v->stride[*axis] * size != l->unit[at]) return false;
    size_t end = (size_t)s->in_offset[i] * size + size;
    for (int d = 0; d < v->ndim; d++) {
      if (v->stride[d] < 0) return false;
      if (d != *axis) end += (size_t)((v->dim[d] - 1) * v->stride[d]) * size;
    }
    return end <= l->unit[at];
  }
  default:
    return false;
  }
}

static bool fits(look *l, const mn_plan_step *s, int axis, int *in_axis) {
  const mn_call *c = &s->call;
  if (axis < 0 || !axes_of(c->node, axis, in_axis)) return false;
  for (int j = 0; j < c->n_out; j++) /* all results alike */
    if (axis >= c->out[j].ndim || c->out[j].dim[axis] != l->parts) return false;
  for (int i = 0; i < c->n_in; i++)
    if (!reads_its_part(l, s, i, &in_axis[i])) return false;
  return true;
}

static bool is_external(const mn_plan *p, int storage) { return p->storages[mn_storage_root(p, storage)].kind != MN_STORAGE_TEMP; }

/* What step t writes, in parts or whole; false: neither. */
static bool see_step(look *l, int t) {
  const mn_plan *p = l->body;
  const mn_plan_step *s = p->steps[t];
  const mn_call *c = &s->call;
  const mn_node *n = c->node;
  if (s->body || mn_node_has_effect(n) || c->backend != p->backend || c->n_out < 1) return false;
  int axis = first_axis(&c->out[0]);
  const int64_t work = n->op->flops ? n->op->flops(n) : mn_view_count(&c->out[0]);
  bool in_parts = fits(l, s, axis, l->in_axis[t]);
  held how = HELD_PARTS;
  if (!in_parts && mn_is(n, MN_IS_COPY) && p->storages[s->out_storage[0]].kind == MN_STORAGE_OUTPUT)
    for (int d = 0; d < c->out[0].ndim && !in_parts; d++) /* a copy writes where it is told */
      if (fits(l, s, d, l->in_axis[t])) in_parts = true, axis = d, how = HELD_SPREAD;
  if (in_parts) {
    l->work_parts += work;
    l->out_axis[t] = axis;
    for (int j = 0; j < c->n_out; j++) {
      const int at = s->out_storage[j];
      if (at < 0) continue;
      const size_t unit = (size_t)c->out[j].stride[axis] * size_of(&c->out[j]);
      if (how == HELD_PARTS && (view_bytes(&c->out[j]) != p->storages[at].bytes || unit * (size_t)l->parts != p->storages[at].bytes))
        return false;
      const int root = mn_storage_root(p, at);
      const size_t mine = how == HELD_SPREAD ? SIZE_MAX : unit;
      if (is_external(p, at) && l->written[root] && l->written[root] != mine) return false;
      l->written[root] = mine;
      l->held[at] = how;
      l->unit[at] = unit;
    }
    return true;
  }
  for (int i = 0; i < c->n_in; i++)
    if (l->held[s->in_storage[i]] != HELD_WHOLE) return false;
  l->work_whole += work;
  for (int j = 0; j < c->n_out; j++)
    if (s->out_storage[j] >= 0) {
      if (is_external(p, s->out_storage[j])) return false; /* all parts would write it */
      l->held[s->out_storage[j]] = HELD_WHOLE;
    }
  return true;
}

static bool see(look *l, const mn_plan_step *scan) {
  enum { SHARE = 16, LEAST = 1 << 15 }; /* what every part does anew is at most this share of all; a part's step is worth its calls */
  const mn_scan_attr *a = scan->call.attr;
  const mn_scan_binding *b = scan->call.state;
  const mn_plan *p = l->body;
  for (int i = 0; i < a->n_carry; i++) {
    const mn_view *v = &scan->call.out[i];
    const int axis = first_axis(v);
    if (axis < 0 || (i > 0 && v->dim[axis] != l->parts)) return false;
    l->parts = v->dim[axis];
    if (l->parts < 2) return false;
    if (b->carry[i] < 0) continue;
    l->held[b->carry[i]] = HELD_PARTS;
    l->unit[b->carry[i]] = l->written[b->carry[i]] = b->carry_bytes[i] / (size_t)l->parts;
  }
  for (int i = 0; i < p->n_storages; i++)
    if ((p->storages[i].kind == MN_STORAGE_LEAF || p->storages[i].kind == MN_STORAGE_CONST) && l->held[i] == HELD_NOTHING)
      l->held[i] = HELD_WHOLE;
  for (int t = 0; t < p->n_steps; t++)
    if (!p->steps[t]->dropped && !see_step(l, t)) return false;
  for (int j = 0; j < a->n_ys; j++)
    if (l->held[b->ys[j]] != HELD_PARTS && l->held[b->ys[j]] != HELD_SPREAD) return false;
  return l->work_whole * SHARE <= l->work_parts && l->work_parts / l->parts >= LEAST;
}

/* ---- a plan of calls that see one part ---- */
static mn_status part_step(mn_plan *p, const mn_plan_step *from, const int *in_axis, int out_axis, mn_plan_step **out, bool *fits_memory) {
  mn_plan_step *s = *out = mn_arena_alloc(p->arena, sizeof *s);
  if (!s) return MN_ERR_MEMORY;
  *s = *from;
  mn_call *c = &s->call;
  c->in = mn_arena_alloc(p->arena, (size_t)(c->n_in + 1) * sizeof *c->in);
  c->out = mn_arena_alloc(p->arena, (size_t)(c->n_out + 1) * sizeof *c->out);
  s->in_part = mn_arena_alloc(p->arena, (size_t)(c->n_in + 1) * sizeof *s->in_part);
  s->out_part = mn_arena_alloc(p->arena, (size_t)(c->n_out + 1) * sizeof *s->out_part);
  if (!c->in || !c->out || !s->in_part || !s->out_part) return MN_ERR_MEMORY;
  c->pool = NULL; /* a part is of one thread */
  c->state = NULL;
  s->shares_state = false;
  for (int i = 0; i < c->n_in; i++) {
    const int axis = out_axis < 0 ? -1 : in_axis[i];
    c->in[i] = from->call.in[i];
    s->in_part[i] = 0;
    if (axis < 0) continue;
    s->in_part[i] = (size_t)c->in[i].stride[axis] * size_of(&c->in[i]);
    c->in[i].dim[axis] = 1;
  }
  for (int j = 0; j < c->n_out; j++) {
    c->out[j] = from->call.out[j];
    s->out_part[j] = 0;
    if (out_axis < 0 || from->out_storage[j] < 0) continue;
    s->out_part[j] = (size_t)c->out[j].stride[out_axis] * size_of(&c->out[j]);
    c->out[j].dim[out_axis] = 1;
  }
  size_t (*const workspace)(const mn_call *) = c->kernel->workspace;
  *fits_memory = !s->dropped && workspace ? workspace(c) <= workspace(&from->call) : true;
  return MN_OK;
}

static mn_status part_plan(const look *l, mn_plan **out, bool *fits_memory) {
  const mn_plan *body = l->body;
  mn_plan *p = *out = mn_calloc(1, sizeof *p);
  if (!p) return MN_ERR_MEMORY;
  *p = (mn_plan){.backend = body->backend,
                 .is_body = true,
                 .n_outputs = body->n_outputs,
                 .output_storage = body->output_storage,
                 .block_bytes = 0,
                 .arena = mn_arena_new()};
  if (!p->arena) return MN_ERR_MEMORY;
  p->outputs = mn_arena_alloc(p->arena, (size_t)(body->n_outputs + 1) * sizeof *p->outputs);
  p->storages = mn_calloc((size_t)body->n_storages + 1, sizeof *p->storages);
  p->steps = mn_calloc((size_t)body->n_steps + 1, sizeof *p->steps);
  if (!p->outputs || !p->storages || !p->steps) return MN_ERR_MEMORY;
  for (int i = 0; i < body->n_storages; i++) {
    mn_storage *s = &p->storages[p->n_storages++];
    *s = body->storages[i];
    s->patches = NULL;
    s->n_patches = 0;
  }
  for (int t = 0; t < body->n_steps && *fits_memory; t++) {
    mn_plan_step *s;
    MN_TRY(part_step(p, body->steps[t], l->in_axis[t], l->out_axis[t], &s, fits_memory));
    p->steps[p->n_steps++] = s;
    if (!s->dropped && s->call.kernel->prepare) MN_TRY(mn_context(s->call.kernel->prepare(&s->call), "%s", s->call.kernel->name));
  }
  return *fits_memory ? mn_plan_connect(p) : MN_OK;
}

static mn_status look_new(look *l, mn_arena *arena) {
  const mn_plan *p = l->body;
  l->held = mn_arena_alloc(arena, (size_t)(p->n_storages + 1) * sizeof *l->held);
  l->unit = mn_arena_alloc(arena, (size_t)(p->n_storages + 1) * sizeof *l->unit);
  l->written = mn_arena_alloc(arena, (size_t)(p->n_storages + 1) * sizeof *l->written);
  l->in_axis = mn_arena_alloc(arena, (size_t)(p->n_steps + 1) * sizeof *l->in_axis);
  l->out_axis = mn_arena_alloc(arena, (size_t)(p->n_steps + 1) * sizeof *l->out_axis);
  if (!l->held || !l->unit || !l->written || !l->in_axis || !l->out_axis) return MN_ERR_MEMORY;
  for (int i = 0; i < p->n_storages; i++) l->held[i] = HELD_NOTHING, l->unit[i] = l->written[i] = 0;
  for (int t = 0; t < p->n_steps; t++) {
    l->out_axis[t] = -1;
    l->in_axis[t] = mn_arena_alloc(arena, (size_t)(p->steps[t]->call.n_in + 1) * sizeof **l->in_axis);
    if (!l->in_axis[t]) return MN_ERR_MEMORY;
  }
  return MN_OK;
}

static mn_status plans_for(mn_plan *p, mn_plan_step *s, const look *l) {
  const int threads = mn_pool_threads(p->backend->pool);
  mn_parts *parts = mn_arena_alloc(p->arena, sizeof *parts);
  if (!parts) return MN_ERR_MEMORY;
  *parts = (mn_parts){.count = l->parts};
  const int n = l->parts < threads ? (int)l->parts : threads;
  parts->plans = mn_arena_alloc(p->arena, (size_t)n * sizeof *parts->plans);
  parts->taken = mn_arena_alloc(p->arena, (size_t)n * sizeof *parts->taken);
  if (!parts->plans || !parts->taken) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) atomic_init(&parts->taken[i], false);
  bool fits_memory = true;
  s->parts = parts;
  while (parts->n < n && fits_memory) {
    mn_plan *part = NULL;
    const mn_status status = part_plan(l, &part, &fits_memory);
    if (part) parts->plans[parts->n++] = part;
    MN_TRY(status);
  }
  if (fits_memory) return MN_OK;
  for (int i = 0; i < parts->n; i++) mn_plan_free(parts->plans[i]);
  s->parts = NULL;
  return MN_OK;
}

mn_status mn_plan_into_parts(mn_plan *p, mn_plan_step *s) {
  const mn_scan_attr *a = s->call.attr;
  if (!p->backend->fuse_elementwise || a->has_live || a->n_carry == 0 || a->length < 2) return MN_OK;
  mn_arena *arena = mn_arena_new();
  look l = {.body = s->body};
  mn_status status = arena ? look_new(&l, arena) : MN_ERR_MEMORY;
  if (status == MN_OK && see(&l, s)) status = plans_for(p, s, &l);
  mn_arena_free(arena);
  return status;
}
