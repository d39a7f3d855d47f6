/* plan.c - compiling: passes, then layouts and copies, then steps with their memory. */
#include "compile/plan_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct builder {
  mn_plan *p;
  mn_plan_request q;
  mn_arena *scratch; /* of the passes */
  int *base;         /* flat index of each node's first output */
  mn_placed *values; /* per tensor */
  int *dense;        /* per tensor: the storage of its contiguous copy, -1: it has none */
  bool *needed;
  int *uses;    /* per tensor: readers among the needed nodes, and roots */
  int *leaf_of; /* per node: its number among the program's leaves, -1 none */
  int n_nodes;
  mn_table layout_at; /* leaf of the user's graph -> number in layouts */
  const mn_layout *layouts;
  mn_bodies bodies; /* of its loops */
} builder;

static int storage_new(mn_plan *p, mn_storage_kind kind, size_t bytes) {
  mn_storage *s = mn_plan_grow(p->storages, p->n_storages, &p->cap_storages, sizeof *s);
  if (!s) return -1;
  p->storages = s;
  p->storages[p->n_storages] = (mn_storage){.kind = kind, .alias = -1, .bytes = bytes, .first = -1, .last = -1};
  return p->n_storages++;
}

static mn_layout dense_layout(const mn_shape *s) {
  mn_layout l = {0};
  int64_t expect = 1;
  for (int i = s->ndim - 1; i >= 0; i--) l.stride[i] = expect, expect *= s->dim[i];
  return l;
}

/* Does the tensor fill its storage exactly, in order? */
static bool is_whole(const mn_plan *p, const mn_tensor *t, const mn_placed *v) {
  return v->layout.offset == 0 && mn_layout_is_dense(&t->shape, &v->layout) && mn_tensor_bytes(t) == p->storages[v->storage].bytes;
}

static bool layout_fits(mn_layout_rule rule, const mn_shape *s, const mn_layout *l) {
  int n = s->ndim;
  if (n == 0 || rule == MN_LAYOUT_ANY) return true;
  if (rule == MN_LAYOUT_DENSE) return mn_layout_is_dense(s, l);
  bool last = s->dim[n - 1] == 1 || l->stride[n - 1] == 1;
  if (rule == MN_LAYOUT_ROWS) return last;
  return n < 2 ? last : last || s->dim[n - 2] == 1 || l->stride[n - 2] == 1;
}

static mn_placed *value_of(builder *b, const mn_tensor *t) { return &b->values[b->base[t->node->id] + t->out]; }

static mn_view view_of(const mn_tensor *t, const mn_layout *l) {
  mn_view v = {.dtype = t->dtype, .ndim = t->shape.ndim};
  for (int i = 0; i < v.ndim; i++) v.dim[i] = t->shape.dim[i], v.stride[i] = l->stride[i];
  return v;
}

/* In one piece: a plan has as many steps as the model has operations. It is not among the plan's steps yet. */
static mn_plan_step *step_new(builder *b, const mn_kernel *k, mn_backend *owner, const mn_node *n) {
  const size_t n_in = (size_t)n->n_in, n_out = (size_t)n->n_out;
  mn_plan_step *s = mn_arena_alloc(b->p->arena, sizeof *s + (n_in + n_out) * (sizeof(mn_view) + sizeof(int)) + n_in * sizeof(int64_t));
  if (!s) return NULL;
  s->call = (mn_call){.kernel = k, .node = n, .attr = n->attr, .n_in = n->n_in, .n_out = n->n_out, .pool = owner->pool, .backend = owner};
  s->call.in = (mn_view *)(s + 1);
  s->call.out = s->call.in + n_in;
  s->in_offset = (int64_t *)(s->call.out + n_out);
  s->in_storage = (int *)(s->in_offset + n_in);
  s->out_storage = s->in_storage + n_in;
  s->buffer = -1;
  return s;
}

static mn_status step_add(mn_plan *p, mn_plan_step *s) {
  mn_plan_step **steps = mn_plan_grow(p->steps, p->n_steps, &p->cap_steps, sizeof *steps);
  if (!steps) return MN_ERR_MEMORY;
  p->steps = steps;
  p->steps[p->n_steps++] = s;
  return MN_OK;
}

static void step_read(mn_plan_step *s, int i, const mn_tensor *t, const mn_placed *v) {
  s->call.in[i] = view_of(t, &v->layout);
  s->in_storage[i] = v->storage;
  s->in_offset[i] = v->layout.offset;
}

static void step_write(mn_plan_step *s, int j, const mn_tensor *t, int into) {
  mn_layout l = dense_layout(&t->shape);
  s->call.out[j] = view_of(t, &l);
  s->out_storage[j] = into;
}

/* A copy step from `v` into storage `into` (dense). */
static mn_status add_copy(builder *b, mn_tensor *t, const mn_placed *v, int into) {
  mn_tensor *y = mn_copy(b->p->program.g, t);
  if (!y) return mn_graph_status(b->p->program.g);
  mn_backend *owner;
  const mn_kernel *k = mn_backend_find(b->p->backend, y->node, &owner);
  if (!k) return mn_fail(MN_ERR_INTERNAL, "backend %s cannot copy %s", b->p->backend->name, mn_dtype_name(t->dtype));
  y->node->phase = t->node->phase;
  mn_plan_step *s = step_new(b, k, owner, y->node);
  if (!s) return MN_ERR_MEMORY;
  step_read(s, 0, t, v);
  step_write(s, 0, y, into);
  b->p->report.copies++;
  return step_add(b->p, s);
}

static mn_status densify(builder *b, mn_tensor *t, mn_placed *out) {
  int *d = &b->dense[b->base[t->node->id] + t->out];
  if (*d < 0) {
    const int s = storage_new(b->p, MN_STORAGE_TEMP, mn_tensor_bytes(t));
    if (s < 0) return MN_ERR_MEMORY;
    MN_TRY(add_copy(b, t, value_of(b, t), s));
    *d = s;
  }
  *out = (mn_placed){*d, dense_layout(&t->shape)};
  return MN_OK;
}

static mn_status place_leaf(builder *b, mn_node *n) {
  mn_plan *p = b->p;
  mn_tensor *t = n->out[0];
  mn_placed *v = value_of(b, t);
  v->layout = dense_layout(&t->shape);
  if (mn_is(n, MN_IS_CONST)) {
    const mn_const_attr *a = n->attr;
    v->storage = storage_new(p, MN_STORAGE_CONST, mn_tensor_bytes(t));
    if (v->storage < 0) return MN_ERR_MEMORY;
    p->storages[v->storage].data = a->data;
    return MN_OK;
  }
  v->storage = storage_new(p, MN_STORAGE_LEAF, mn_tensor_bytes(t));
  if (v->storage < 0) return MN_ERR_MEMORY;
  const int leaf = b->leaf_of[n->id];
  if (leaf < 0) return MN_OK;
  p->leaf_storage[leaf] = v->storage;
  const int k = mn_table_find(&b->layout_at, p->program.given[leaf], -1);
  if (k >= 0) v->layout = b->layouts[k];
  return MN_OK;
}

static mn_status place_view(builder *b, mn_node *n) {
  mn_placed in = *value_of(b, n->in[0]), *out = value_of(b, n->out[0]);
  if (!n->op->view(n, &in.layout, &out->layout)) {
    MN_TRY(densify(b, n->in[0], &in));
    if (!n->op->view(n, &in.layout, &out->layout)) return mn_fail(MN_ERR_INTERNAL, "%s of a dense tensor failed", n->op->name);
  }
  out->storage = in.storage;
  return MN_OK;
}

static mn_status place_op(builder *b, mn_node *n) {
  bool scan = mn_is(n, MN_IS_LOOP);
  mn_backend *owner = b->p->backend;
  const mn_kernel *k = scan ? &mn_kernel_scan : mn_backend_find(b->p->backend, n, &owner);
  char shape[96];
  const mn_tensor *y = n->n_out ? n->out[0] : NULL; /* what has an effect may have no result */
  if (!k)
    return mn_fail(MN_ERR_UNSUPPORTED, "backend %s has no kernel for %s giving %s %s", b->p->backend->name, n->op->name,
                   y ? mn_dtype_name(y->dtype) : "nothing", y ? mn_shape_str(&y->shape, shape) : "");
  mn_plan_step *s = step_new(b, k, owner, n);
  if (!s) return MN_ERR_MEMORY;
  for (int i = 0; i < n->n_in; i++) {
    mn_layout_rule rule = !scan ? k->layout : i < ((const mn_scan_attr *)n->attr)->n_carry ? MN_LAYOUT_DENSE : MN_LAYOUT_ANY;
    mn_placed v = *value_of(b, n->in[i]);
    if (!layout_fits(rule, &n->in[i]->shape, &v.layout)) MN_TRY(densify(b, n->in[i], &v)); /* a step before this one */
    step_read(s, i, n->in[i], &v);
  }
  MN_TRY(step_add(b->p, s));
  for (int j = 0; j < n->n_out; j++) {
    if (j < 64 && k->optional >> j & 1 && b->uses[b->base[n->id] + j] == 0) {
      s->call.unread |= (uint64_t)1 << j;
      step_write(s, j, n->out[j], -1);
      continue;
    }
    int st = storage_new(b->p, MN_STORAGE_TEMP, mn_tensor_bytes(n->out[j]));
    if (st < 0) return MN_ERR_MEMORY;
    b->p->storages[st].phase = n->phase;
    *value_of(b, n->out[j]) = (mn_placed){st, dense_layout(&n->out[j]->shape)};
    step_write(s, j, n->out[j], st);
  }
  b->p->report.flops += mn_is(n, MN_IS_PROGRAM) ? mn_shape_count(&y->shape) * ((mn_ew_attr *)n->attr)->n_instr
                        : n->op->flops          ? n->op->flops(n)
                        : y                     ? mn_shape_count(&y->shape)
                                                : 0;
  return scan ? mn_plan_body(b->p, &b->q, b->scratch, &b->bodies, s) : MN_OK;
}

/* ---- roots: outputs in memory of their own, assigned values into their variables ---- */

/* Where each assigned value waits until everything has read the old ones: from[i], -1 when it lies in its variable already. */
static mn_status save_assigned(builder *b, int *from) {
  mn_plan *p = b->p;
  for (int i = 0; i < b->q.n_assigns; i++) {
    mn_tensor *t = p->program.roots[b->q.n_outputs + i];
    const mn_tensor *variable = b->q.variables[i];
    mn_placed *v = value_of(b, t);
    int var = mn_plan_leaf_storage(p, variable);
    mn_storage *s = &p->storages[v->storage];
    if (var < 0) return mn_fail(MN_ERR_ARG, "plan: assigned variable %d is not a leaf of the graph", i);
    if (t->dtype != variable->dtype || !mn_shape_equal(&t->shape, &variable->shape))
      return mn_fail(MN_ERR_SHAPE, "plan: variable %d%s%s is assigned a value of another shape or type", i, variable->name ? " " : "",
                     variable->name ? variable->name : "");
    if (p->storages[var].claimed) return mn_fail(MN_ERR_ARG, "plan: variable %d is assigned twice", i);
    p->storages[var].claimed = true;
    if (v->storage == var && is_whole(p, t, v)) from[i] = -1;
    else if (s->kind == MN_STORAGE_TEMP && is_whole(p, t, v) && !s->claimed) {
      s->claimed = true;
      from[i] = v->storage;
    } else {
      int copy = storage_new(p, MN_STORAGE_TEMP, mn_tensor_bytes(t));
      if (copy < 0) return MN_ERR_MEMORY;
      MN_TRY(add_copy(b, t, v, copy));
      p->storages[copy].claimed = true;
      from[i] = copy;
    }
  }
  return MN_OK;
}

static mn_status write_assigned(builder *b, const int *from) {
  for (int i = 0; i < b->q.n_assigns; i++) {
    if (from[i] < 0) continue;
    mn_tensor *t = b->p->program.roots[b->q.n_outputs + i];
    mn_placed v = {from[i], dense_layout(&t->shape)};
    MN_TRY(add_copy(b, t, &v, mn_plan_leaf_storage(b->p, b->q.variables[i])));
  }
  return MN_OK;
}

static mn_status place_outputs(builder *b) {
  mn_plan *p = b->p;
  p->n_outputs = b->q.n_outputs;
  p->outputs = mn_arena_alloc(p->arena, (size_t)(p->n_outputs + 1) * sizeof *p->outputs);
  p->output_storage = mn_arena_alloc(p->arena, (size_t)(p->n_outputs + 1) * sizeof *p->output_storage);
  if (!p->outputs || !p->output_storage) return MN_ERR_MEMORY;
  for (int j = 0; j < p->n_outputs; j++) {
    mn_tensor *t = p->program.roots[j];
    mn_placed *v = value_of(b, t);
    mn_storage *s = &p->storages[v->storage];
    mn_layout dense = dense_layout(&t->shape);
    p->outputs[j] = view_of(t, &dense);
    p->output_storage[j] = v->storage;
    if (s->kind == MN_STORAGE_TEMP && is_whole(p, t, v) && !s->claimed) {
      s->kind = MN_STORAGE_OUTPUT;
      s->claimed = true;
      continue;
    }
    int out = storage_new(p, MN_STORAGE_OUTPUT, mn_tensor_bytes(t));
    if (out < 0) return MN_ERR_MEMORY;
    p->storages[out].claimed = true;
    p->output_storage[j] = out;
    MN_TRY(add_copy(b, t, v, out));
  }
  return MN_OK;
}

/* ---- compiling ---- */
static int count_nodes(const mn_draft *p) {
  int n = 0;
  for (int i = 0; i < p->g->n_nodes; i++) n += p->g->nodes[i]->op->cls != MN_OP_LEAF && p->g->nodes[i]->op->cls != MN_OP_VIEW;
  return n;
}

static mn_status next_arena(mn_arena **arena, mn_arena **before) {
  mn_arena_free(*before);
  *before = *arena;
  *arena = mn_arena_new();
  return *arena ? MN_OK : MN_ERR_MEMORY;
}

/* Each pass writes a graph of its own. What is taken and lowered lies in `scratch` (loops' bodies and constants stay there); of
 * the later ones each has an arena, freed when the next has done, and the last writes into the plan's. */
static mn_status run_passes_in(mn_plan *p, const mn_plan_request *q, mn_arena *scratch, mn_arena **arena, mn_arena **before) {
  mn_plan_report *r = &p->report;
  MN_TRY(mn_graph_status(q->graph));
  MN_TRY(mn_draft_take(q, scratch, &p->program, &r->nodes_given));
  const mn_graph *taken = p->program.g;
  MN_TRY(mn_pass_lower(q->backend, scratch, &p->program));
  r->nodes_lowered = p->program.g == taken ? r->nodes_given : count_nodes(&p->program);
  if (!(q->passes_off & MN_PASS_LOOPS)) MN_TRY(mn_pass_loops(q, scratch, &p->program, &r->nodes_moved));
  if (!(q->passes_off & MN_PASS_SIMPLIFY)) MN_TRY(mn_pass_simplify(arena, &p->program));
  r->nodes_simplified = count_nodes(&p->program);
  if (q->prologue && !p->is_body) {
    MN_TRY(next_arena(arena, before));
    MN_TRY(mn_pass_prologue(q, *arena, p->arena, &p->program, &p->prologue));
    r->from_prologue = p->prologue.n;
  }
  if (!(q->passes_off & MN_PASS_RECOMPUTE) && q->activations != MN_KEEP) {
    MN_TRY(next_arena(arena, before));
    MN_TRY(mn_pass_recompute(q->activations, *arena, &p->program, &r->nodes_recomputed));
  }
  if (!(q->passes_off & MN_PASS_FUSE) && q->backend->fuse_elementwise) {
    MN_TRY(next_arena(arena, before));
    MN_TRY(mn_pass_products(q->backend, *arena, &p->program));
    if (mn_has_siblings(&p->program)) {
      MN_TRY(next_arena(arena, before));
      MN_TRY(mn_pass_siblings(*arena, &p->program));
    }
    MN_TRY(mn_pass_fuse(p->arena, &p->program, r));
  } else {
    MN_TRY(mn_draft_keep(p->arena, &p->program));
  }
  r->nodes_fused = count_nodes(&p->program);
  return mn_draft_settle(p->arena, &p->program);
}

mn_status mn_plan_passes(mn_plan *p, const mn_plan_request *q, mn_arena *scratch) {
  mn_arena *arena = NULL, *before = NULL;
  mn_status status = run_passes_in(p, q, scratch, &arena, &before);
  mn_arena_free(arena);
  mn_arena_free(before);
  return status;
}

static mn_status run_passes(mn_plan *p, const mn_plan_request *q, mn_arena *scratch) {
  bool done;
  MN_TRY(mn_graph_status(q->graph));
  MN_TRY(mn_pass_layers(p, q, scratch, &done));
  return done ? mn_draft_settle(p->arena, &p->program) : mn_plan_passes(p, q, scratch);
}

static mn_status build_init(builder *b) {
  mn_graph *g = b->p->program.g;
  int total = 0, n = b->n_nodes = g->n_nodes;
  b->base = mn_alloc(((size_t)n + 1) * sizeof *b->base);
  b->needed = mn_calloc((size_t)n + 1, 1);
  b->leaf_of = mn_alloc(((size_t)n + 1) * sizeof *b->leaf_of);
  if (!b->base || !b->needed || !b->leaf_of) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) b->base[i] = total, total += g->nodes[i]->n_out;
  b->values = mn_calloc((size_t)total + 1, sizeof *b->values);
  b->dense = mn_calloc((size_t)total + 1, sizeof *b->dense);
  b->uses = mn_calloc((size_t)total + 1, sizeof *b->uses);
  b->p->leaf_storage = mn_arena_alloc(b->p->arena, (size_t)(b->p->program.n_leaves + 1) * sizeof(int));
  if (!b->values || !b->dense || !b->uses || !b->p->leaf_storage) return MN_ERR_MEMORY;
  for (int i = 0; i < total; i++) b->dense[i] = -1;
  for (int i = 0; i < n; i++) b->leaf_of[i] = -1;
  for (int i = 0; i < b->p->program.n_leaves; i++) {
    const mn_tensor *here = b->p->program.leaves[i];
    b->p->leaf_storage[i] = -1;
    if (here) b->leaf_of[here->node->id] = i;
    MN_TRY(mn_table_put(&b->p->leaf_at, b->p->program.given[i], i));
  }
  b->p->n_leaves = b->p->program.n_leaves;
  for (int i = 0; i < b->p->program.n_roots; i++) {
    const mn_tensor *t = b->p->program.roots[i];
    b->needed[t->node->id] = true;
    b->uses[b->base[t->node->id] + t->out]++;
  }
  for (int i = n - 1; i >= 0; i--) {
    mn_node *node = g->nodes[i];
    mn_ahead(g, i, -1);
    bool leaf = node->op->bound;
    if (leaf || mn_node_has_effect(node)) b->needed[i] = true;
    for (int k = 0; k < node->n_in && b->needed[i]; k++) {
      b->needed[node->in[k]->node->id] = true;
      b->uses[b->base[node->in[k]->node->id] + node->in[k]->out]++;
    }
  }
  return MN_OK;
}

static mn_status build(builder *b) {
  mn_plan *p = b->p;
  MN_TRY(run_passes(p, &b->q, b->scratch));
  MN_TRY(build_init(b));
  for (int i = 0; i < b->n_nodes; i++) {
    mn_node *n = p->program.g->nodes[i];
    mn_ahead(p->program.g, i, 1);
    if (!b->needed[i]) continue;
    if (i % 256 == 255) MN_TRY(mn_stop_check("compiling"));
    if (n->op->cls == MN_OP_LEAF) MN_TRY(place_leaf(b, n));
    else if (n->op->cls == MN_OP_VIEW) MN_TRY(place_view(b, n));
    else MN_TRY(place_op(b, n));
  }
  int *from = mn_arena_alloc(p->arena, (size_t)(b->q.n_assigns + 1) * sizeof *from);
  if (!from) return MN_ERR_MEMORY;
  MN_TRY(save_assigned(b, from));
  MN_TRY(place_outputs(b)); /* an output may show what a variable held before */
  MN_TRY(write_assigned(b, from));
  mn_plan_count_activations(p);
  if (!(b->q.passes_off & MN_PASS_INPLACE)) MN_TRY(mn_pass_inplace(p));
  mn_plan_lifetimes(p);
  MN_TRY(mn_plan_prepare(p));
  MN_TRY(mn_plan_connect(p));
  MN_TRY(mn_plan_memory(p, !(b->q.passes_off & MN_PASS_SHARE_MEMORY)));
  MN_TRY(mn_plan_fill_constants(p));
  if (p->is_body) return MN_OK;
  p->room = b->q.room;
  for (int i = 0; i < p->prologue.n; i++) mn_plan_bind(p, p->prologue.leaf[i], p->prologue.data[i]);
  return mn_plan_settle(p);
}

mn_status mn_plan_compile_with(const mn_plan_request *q, int n_layouts, const mn_tensor *const *layout_of, const mn_layout *layouts,
                               bool is_body, mn_plan **out) {
  *out = NULL;
  mn_plan *p = mn_calloc(1, sizeof *p);
  if (!p) return MN_ERR_MEMORY;
  p->arena = mn_arena_new();
  p->backend = q->backend;
  p->is_body = is_body;
  p->leaf_at = (mn_table){.arena = p->arena};
  builder b = {.p = p, .q = *q, .scratch = mn_arena_new(), .layouts = layouts};
  b.layout_at = (mn_table){.arena = b.scratch};
  mn_status status = p->arena && b.scratch ? MN_OK : MN_ERR_MEMORY;
  for (int k = 0; k < n_layouts && status == MN_OK; k++) status = mn_table_put(&b.layout_at, layout_of[k], k);
  if (status == MN_OK) status = build(&b);
  mn_arena_free(b.scratch);
  free(b.base);
  free(b.values);
  free(b.dense);
  free(b.needed);
  free(b.leaf_of);
  free(b.uses);
  free(b.bodies.list);
  if (status != MN_OK) {
    mn_plan_free(p);
    return status;
  }
  *out = p;
  return MN_OK;
}

/* Which steps are the first to change something that was there before the run: an assigned variable that nobody puts back. */
static mn_status first_change(const mn_plan *p, const mn_plan_request *q, int *first) {
  bool *changes = mn_calloc((size_t)p->n_storages + 1, sizeof *changes);
  if (!changes) return MN_ERR_MEMORY;
  for (int i = 0; i < q->n_assigns - q->n_put_back; i++) changes[mn_plan_leaf_storage(p, q->variables[i])] = true;
  *first = p->n_steps;
  for (int t = 0; t < *first; t++) {
    const mn_plan_step *s = p->steps[t];
    for (int j = 0; j < s->call.n_out && !s->dropped; j++)
      if (s->out_storage[j] >= 0 && changes[mn_storage_root(p, s->out_storage[j])]) *first = t;
  }
  free(changes);
  return MN_OK;
}

/* What may be left before a step may be left within the loops before it; a body that loops on both sides share may not. */
static void may_be_left(mn_plan *p, int before) {
  p->left_before = before;
  for (int t = 0; t < p->n_steps; t++) {
    mn_plan *body = p->steps[t]->body;
    const mn_parts *parts = p->steps[t]->parts;
    if (body) may_be_left(body, t < before ? body->n_steps : 0);
    for (int i = 0; parts && i < parts->n; i++) may_be_left(parts->plans[i], t < before ? parts->plans[i]->n_steps : 0);
  }
}

mn_status mn_plan_compile(const mn_plan_request *q, mn_plan **out) {
  MN_TRY(mn_plan_compile_with(q, 0, NULL, NULL, false, out));
  int first = 0;
  MN_TRY(first_change(*out, q, &first));
  may_be_left(*out, first);
  return MN_OK;
}
