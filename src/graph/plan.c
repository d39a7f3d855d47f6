/* plan.c - compiling: passes, then layouts and copies, then steps with their memory. */
#include "graph/plan_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct builder {
  mn_plan *p;
  mn_plan_request q;
  int *base;     /* flat index of each node's first output */
  value *values; /* per tensor */
  value *dense;  /* per tensor: its contiguous copy */
  bool *needed;
  int n_nodes;
  int n_layouts;
  const mn_tensor *const *layout_of;
  const mn_layout *layouts;
} builder;

static void *grow(void *p, int n, int *cap, size_t size) {
  if (n < *cap) return p;
  int c = *cap ? 2 * *cap : 32;
  void *q = mn_realloc(p, (size_t)c * size);
  if (q) *cap = c;
  return q;
}

static int storage_new(mn_plan *p, storage_kind kind, size_t bytes) {
  storage *s = grow(p->storages, p->n_storages, &p->cap_storages, sizeof *s);
  if (!s) return -1;
  p->storages = s;
  p->storages[p->n_storages] = (storage){.kind = kind, .alias = -1, .bytes = bytes, .first = -1, .last = -1};
  return p->n_storages++;
}

static size_t tensor_bytes(const mn_tensor *t) { return (size_t)mn_shape_count(&t->shape) * mn_dtype_size(t->dtype); }

static mn_layout dense_layout(const mn_shape *s) {
  mn_layout l = {0};
  int64_t expect = 1;
  for (int i = s->ndim - 1; i >= 0; i--) l.stride[i] = expect, expect *= s->dim[i];
  return l;
}

static bool is_dense(const mn_shape *s, const mn_layout *l) {
  int64_t expect = 1;
  for (int i = s->ndim - 1; i >= 0; i--) {
    if (s->dim[i] != 1 && l->stride[i] != expect) return false;
    expect *= s->dim[i];
  }
  return true;
}

/* Does the tensor fill its storage exactly, in order? */
static bool is_whole(const mn_plan *p, const mn_tensor *t, const value *v) {
  return v->layout.offset == 0 && is_dense(&t->shape, &v->layout) && tensor_bytes(t) == p->storages[v->storage].bytes;
}

static bool layout_fits(mn_layout_rule rule, const mn_shape *s, const mn_layout *l) {
  int n = s->ndim;
  if (n == 0 || rule == MN_LAYOUT_ANY) return true;
  if (rule == MN_LAYOUT_DENSE) return is_dense(s, l);
  bool last = s->dim[n - 1] == 1 || l->stride[n - 1] == 1;
  if (rule == MN_LAYOUT_ROWS) return last;
  return n < 2 ? last : last || s->dim[n - 2] == 1 || l->stride[n - 2] == 1;
}

static value *value_of(builder *b, const mn_tensor *t) { return &b->values[b->base[t->node->id] + t->out]; }

static mn_view view_of(const mn_tensor *t, const mn_layout *l) {
  mn_view v = {.dtype = t->dtype, .ndim = t->shape.ndim};
  for (int i = 0; i < v.ndim; i++) v.dim[i] = t->shape.dim[i], v.stride[i] = l->stride[i];
  return v;
}

static step *step_new(builder *b, const mn_kernel *k, const mn_node *n) {
  mn_plan *p = b->p;
  step **steps = grow(p->steps, p->n_steps, &p->cap_steps, sizeof *steps);
  if (!steps) return NULL;
  p->steps = steps;
  step *s = mn_arena_alloc(p->arena, sizeof *s);
  if (!s) return NULL;
  s->call = (mn_call){.kernel = k, .node = n, .attr = n->attr, .n_in = n->n_in, .n_out = n->n_out,
                      .pool = p->backend->pool, .backend = p->backend};
  s->call.in = mn_arena_alloc(p->arena, (size_t)(n->n_in + 1) * sizeof *s->call.in);
  s->call.out = mn_arena_alloc(p->arena, (size_t)(n->n_out + 1) * sizeof *s->call.out);
  s->in_storage = mn_arena_alloc(p->arena, (size_t)(n->n_in + 1) * sizeof *s->in_storage);
  s->in_layout = mn_arena_alloc(p->arena, (size_t)(n->n_in + 1) * sizeof *s->in_layout);
  s->out_storage = mn_arena_alloc(p->arena, (size_t)(n->n_out + 1) * sizeof *s->out_storage);
  if (!s->call.in || !s->call.out || !s->in_storage || !s->in_layout || !s->out_storage) return NULL;
  s->buffer = -1;
  p->steps[p->n_steps++] = s;
  return s;
}

static void step_read(step *s, int i, const mn_tensor *t, const value *v) {
  s->call.in[i] = view_of(t, &v->layout);
  s->in_storage[i] = v->storage;
  s->in_layout[i] = v->layout;
}

static void step_write(step *s, int j, const mn_tensor *t, int into) {
  mn_layout l = dense_layout(&t->shape);
  s->call.out[j] = view_of(t, &l);
  s->out_storage[j] = into;
}

/* A copy step from `v` into storage `into` (dense). */
static mn_status add_copy(builder *b, mn_tensor *t, const value *v, int into) {
  mn_tensor *y = mn_copy(b->p->program.g, t);
  if (!y) return mn_graph_status(b->p->program.g);
  const mn_kernel *k = mn_backend_find(b->p->backend, y->node);
  if (!k) return mn_fail(MN_ERR_INTERNAL, "backend %s cannot copy %s", b->p->backend->name, mn_dtype_name(t->dtype));
  y->node->phase = t->node->phase;
  step *s = step_new(b, k, y->node);
  if (!s) return MN_ERR_MEMORY;
  step_read(s, 0, t, v);
  step_write(s, 0, y, into);
  b->p->report.copies++;
  return MN_OK;
}

static mn_status densify(builder *b, mn_tensor *t, value **out) {
  value *d = &b->dense[b->base[t->node->id] + t->out];
  if (d->storage < 0) {
    int s = storage_new(b->p, STORAGE_TEMP, tensor_bytes(t));
    if (s < 0) return MN_ERR_MEMORY;
    MN_TRY(add_copy(b, t, value_of(b, t), s));
    *d = (value){s, dense_layout(&t->shape)};
  }
  *out = d;
  return MN_OK;
}

static mn_status place_leaf(builder *b, mn_node *n) {
  mn_plan *p = b->p;
  mn_tensor *t = n->out[0];
  value *v = value_of(b, t);
  v->layout = dense_layout(&t->shape);
  if (n->op == &mn_op_const) {
    const mn_const_attr *a = n->attr;
    v->storage = storage_new(p, STORAGE_CONST, tensor_bytes(t));
    if (v->storage < 0) return MN_ERR_MEMORY;
    p->storages[v->storage].data = a->data;
    return MN_OK;
  }
  v->storage = storage_new(p, STORAGE_LEAF, tensor_bytes(t));
  if (v->storage < 0) return MN_ERR_MEMORY;
  for (int i = 0; i < p->program.n_leaves; i++)
    if (p->program.leaves[i] == t) {
      p->leaf_storage[i] = v->storage;
      for (int k = 0; k < b->n_layouts; k++)
        if (b->layout_of[k] == p->program.given[i]) v->layout = b->layouts[k];
    }
  return MN_OK;
}

static mn_status place_view(builder *b, mn_node *n) {
  value *in = value_of(b, n->in[0]), *out = value_of(b, n->out[0]);
  if (!n->op->view(n, &in->layout, &out->layout)) {
    MN_TRY(densify(b, n->in[0], &in));
    if (!n->op->view(n, &in->layout, &out->layout)) return mn_fail(MN_ERR_INTERNAL, "%s of a dense tensor failed", n->op->name);
  }
  out->storage = in->storage;
  return MN_OK;
}

/* ---- scan: its body is a plan of its own ---- */
static void report_body(mn_plan_report *r, const mn_plan_report *body) {
  r->nodes_given += body->nodes_given;
  r->nodes_lowered += body->nodes_lowered;
  r->nodes_simplified += body->nodes_simplified;
  r->nodes_recomputed += body->nodes_recomputed;
  r->nodes_fused += body->nodes_fused;
  r->steps += body->steps;
  r->copies += body->copies;
  r->in_place += body->in_place;
  r->elementwise_before += body->elementwise_before;
  r->elementwise_after += body->elementwise_after;
  r->bytes_constants += body->bytes_constants;
}

static mn_status compile_body(builder *b, step *s) {
  const mn_scan_attr *a = s->call.attr;
  int n_in = a->n_carry + a->n_xs + a->n_const;
  mn_layout *layouts = mn_arena_alloc(b->p->arena, (size_t)(n_in + 1) * sizeof *layouts);
  if (!layouts) return MN_ERR_MEMORY;
  for (int i = 0; i < n_in; i++) {
    layouts[i] = s->in_layout[i];
    layouts[i].offset = 0;
    if (i < a->n_carry || i >= a->n_carry + a->n_xs) continue;
    for (int d = 0; d + 1 < s->call.in[i].ndim; d++) layouts[i].stride[d] = s->in_layout[i].stride[d + 1];
  }
  mn_plan_request q = b->q;
  q.graph = a->body;
  q.n_outputs = a->n_ys;
  q.outputs = a->body_out + a->n_carry;
  q.n_assigns = a->n_carry;
  q.variables = a->body_in;
  q.values = a->body_out;
  MN_TRY(mn_plan_compile_with(&q, n_in, (const mn_tensor *const *)a->body_in, layouts, true, &s->body));
  report_body(&b->p->report, &s->body->report);
  scan_binding *bind = mn_arena_alloc(b->p->arena, sizeof *bind);
  if (!bind) return MN_ERR_MEMORY;
  bind->carry = mn_arena_alloc(b->p->arena, (size_t)(a->n_carry + 1) * sizeof(int));
  bind->xs = mn_arena_alloc(b->p->arena, (size_t)(a->n_xs + 1) * sizeof(int));
  bind->consts = mn_arena_alloc(b->p->arena, (size_t)(a->n_const + 1) * sizeof(int));
  bind->ys = mn_arena_alloc(b->p->arena, (size_t)(a->n_ys + 1) * sizeof(int));
  bind->x_bytes = mn_arena_alloc(b->p->arena, (size_t)(a->n_xs + 1) * sizeof(size_t));
  bind->y_bytes = mn_arena_alloc(b->p->arena, (size_t)(a->n_ys + 1) * sizeof(size_t));
  bind->carry_bytes = mn_arena_alloc(b->p->arena, (size_t)(a->n_carry + 1) * sizeof(size_t));
  if (!bind->carry || !bind->xs || !bind->consts || !bind->ys || !bind->x_bytes || !bind->y_bytes || !bind->carry_bytes)
    return MN_ERR_MEMORY;
  for (int i = 0; i < a->n_carry; i++) {
    bind->carry[i] = mn_plan_leaf_storage(s->body, a->body_in[i]);
    bind->carry_bytes[i] = tensor_bytes(a->body_in[i]);
  }
  for (int i = 0; i < a->n_xs; i++) {
    const mn_view *x = &s->call.in[a->n_carry + i];
    bind->xs[i] = mn_plan_leaf_storage(s->body, a->body_in[a->n_carry + i]);
    bind->x_bytes[i] = (size_t)x->stride[0] * mn_dtype_size(x->dtype);
  }
  for (int i = 0; i < a->n_const; i++) bind->consts[i] = mn_plan_leaf_storage(s->body, a->body_in[a->n_carry + a->n_xs + i]);
  for (int j = 0; j < a->n_ys; j++) {
    bind->ys[j] = s->body->output_storage[j];
    bind->y_bytes[j] = tensor_bytes(a->body_out[a->n_carry + j]);
  }
  s->call.state = bind;
  return MN_OK;
}

static mn_status place_op(builder *b, mn_node *n) {
  bool scan = n->op == &mn_op_scan;
  const mn_kernel *k = scan ? &mn_kernel_scan : mn_backend_find(b->p->backend, n);
  char shape[96];
  if (!k)
    return mn_fail(MN_ERR_UNSUPPORTED, "backend %s has no kernel for %s giving %s %s", b->p->backend->name, n->op->name,
                   mn_dtype_name(n->out[0]->dtype), mn_shape_str(&n->out[0]->shape, shape));
  value **vin = mn_arena_alloc(b->p->arena, (size_t)(n->n_in + 1) * sizeof *vin); /* a loop may capture any number */
  if (!vin) return MN_ERR_MEMORY;
  for (int i = 0; i < n->n_in; i++) {
    mn_layout_rule rule = !scan                                               ? k->layout
                          : i < ((const mn_scan_attr *)n->attr)->n_carry ? MN_LAYOUT_DENSE
                                                                              : MN_LAYOUT_ANY;
    vin[i] = value_of(b, n->in[i]);
    if (!layout_fits(rule, &n->in[i]->shape, &vin[i]->layout)) MN_TRY(densify(b, n->in[i], &vin[i]));
  }
  step *s = step_new(b, k, n);
  if (!s) return MN_ERR_MEMORY;
  for (int i = 0; i < n->n_in; i++) step_read(s, i, n->in[i], vin[i]);
  for (int j = 0; j < n->n_out; j++) {
    int st = storage_new(b->p, STORAGE_TEMP, tensor_bytes(n->out[j]));
    if (st < 0) return MN_ERR_MEMORY;
    b->p->storages[st].phase = n->phase;
    *value_of(b, n->out[j]) = (value){st, dense_layout(&n->out[j]->shape)};
    step_write(s, j, n->out[j], st);
  }
  b->p->report.flops += n->op == &mn_op_ew        ? mn_shape_count(&n->out[0]->shape) * ((mn_ew_attr *)n->attr)->n_instr
                        : n->op->flops            ? n->op->flops(n)
                                                  : mn_shape_count(&n->out[0]->shape);
  return scan ? compile_body(b, s) : MN_OK;
}

/* ---- roots: outputs in memory of their own, assigned values into their variables ---- */

/* Where each assigned value waits until everything has read the old ones: from[i], -1 when it lies in its variable already. */
static mn_status save_assigned(builder *b, int *from) {
  mn_plan *p = b->p;
  for (int i = 0; i < b->q.n_assigns; i++) {
    mn_tensor *t = p->program.roots[b->q.n_outputs + i];
    const mn_tensor *variable = b->q.variables[i];
    value *v = value_of(b, t);
    int var = mn_plan_leaf_storage(p, variable);
    storage *s = &p->storages[v->storage];
    if (var < 0) return mn_fail(MN_ERR_ARG, "plan: assigned variable %d is not a leaf of the graph", i);
    if (t->dtype != variable->dtype || !mn_shape_equal(&t->shape, &variable->shape))
      return mn_fail(MN_ERR_SHAPE, "plan: variable %d%s%s is assigned a value of another shape or type", i,
                     variable->name ? " " : "", variable->name ? variable->name : "");
    if (p->storages[var].claimed) return mn_fail(MN_ERR_ARG, "plan: variable %d is assigned twice", i);
    p->storages[var].claimed = true;
    if (v->storage == var && is_whole(p, t, v)) from[i] = -1;
    else if (s->kind == STORAGE_TEMP && is_whole(p, t, v) && !s->claimed) {
      s->claimed = true;
      from[i] = v->storage;
    } else {
      int copy = storage_new(p, STORAGE_TEMP, tensor_bytes(t));
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
    value v = {from[i], dense_layout(&t->shape)};
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
    value *v = value_of(b, t);
    storage *s = &p->storages[v->storage];
    mn_layout dense = dense_layout(&t->shape);
    p->outputs[j] = view_of(t, &dense);
    p->output_storage[j] = v->storage;
    if (s->kind == STORAGE_TEMP && is_whole(p, t, v) && !s->claimed) {
      s->kind = STORAGE_OUTPUT;
      s->claimed = true;
      continue;
    }
    int out = storage_new(p, STORAGE_OUTPUT, tensor_bytes(t));
    if (out < 0) return MN_ERR_MEMORY;
    p->storages[out].claimed = true;
    p->output_storage[j] = out;
    MN_TRY(add_copy(b, t, v, out));
  }
  return MN_OK;
}

/* ---- lifetimes and running in place ---- */
static void lifetimes(mn_plan *p) {
  for (int i = 0; i < p->n_storages; i++) p->storages[i].first = p->storages[i].last = -1;
  for (int t = 0; t < p->n_steps; t++) {
    step *s = p->steps[t];
    if (s->dropped) continue;
    for (int i = 0; i < s->call.n_in; i++) {
      storage *m = &p->storages[storage_root(p, s->in_storage[i])];
      if (m->first < 0) m->first = t;
      m->last = t;
    }
    for (int j = 0; j < s->call.n_out; j++) {
      storage *m = &p->storages[storage_root(p, s->out_storage[j])];
      if (m->first < 0) m->first = t;
      if (m->last < t) m->last = t;
    }
  }
}

/* May output j of step s overwrite input i? The input must be dense and read in no other way by this step. */
static bool may_overwrite(const mn_plan *p, const step *s, int j, int i) {
  const mn_node *n = s->call.node;
  const mn_shape *si = &n->in[i]->shape, *so = &n->out[j]->shape;
  if (n->op == &mn_op_ew || n->op->cls == MN_OP_ELEMENTWISE) {
    if (mn_dtype_size(n->in[i]->dtype) != mn_dtype_size(n->out[j]->dtype)) return false;
  } else if (n->op == &mn_op_scan) {
    if (j >= ((const mn_scan_attr *)n->attr)->n_carry || i != j) return false;
  } else if (!n->op->inplace || n->op->inplace(n, j) != i) {
    return false;
  }
  if (!mn_shape_equal(si, so) || s->in_layout[i].offset != 0 || !is_dense(si, &s->in_layout[i])) return false;
  int root = storage_root(p, s->in_storage[i]);
  bool elementwise = n->op == &mn_op_ew || n->op->cls == MN_OP_ELEMENTWISE;
  for (int k = 0; k < n->n_in; k++) {
    if (k == i || storage_root(p, s->in_storage[k]) != root) continue;
    if (!elementwise || memcmp(&s->in_layout[k], &s->in_layout[i], sizeof s->in_layout[i]) != 0 ||
        !mn_shape_equal(&n->in[k]->shape, si) || mn_dtype_size(n->in[k]->dtype) != mn_dtype_size(n->in[i]->dtype))
      return false;
  }
  for (int k = 0; k < n->n_out; k++)
    if (k != j && storage_root(p, s->out_storage[k]) == root) return false;
  return true;
}

/* An assigned value is written straight into its variable when nothing reads the old value afterwards. */
static mn_status assign_in_place(mn_plan *p) {
  typedef struct use {
    int made, out;        /* the step that writes it, and as which output */
    int last_read, input; /* the last step that reads it, and as which input */
  } use;
  use *uses = mn_alloc(((size_t)p->n_storages + 1) * sizeof *uses);
  if (!uses) return MN_ERR_MEMORY;
  for (int i = 0; i < p->n_storages; i++) uses[i] = (use){-1, -1, -1, -1};
  for (int i = 0; i < p->n_steps; i++) {
    step *s = p->steps[i];
    for (int k = 0; k < s->call.n_in; k++) {
      use *u = &uses[s->in_storage[k]];
      u->last_read = i, u->input = k;
    }
    for (int j = 0; j < s->call.n_out; j++) {
      use *u = &uses[s->out_storage[j]];
      if (u->made < 0) u->made = i, u->out = j;
    }
  }
  for (int t = p->n_steps - 1; t >= 0; t--) {
    step *copy = p->steps[t];
    if (copy->call.node->op != &mn_op_copy) continue;
    int var = copy->out_storage[0], temp = copy->in_storage[0];
    if (p->storages[var].kind != STORAGE_LEAF || p->storages[temp].kind != STORAGE_TEMP || p->storages[temp].alias >= 0) continue;
    if (p->storages[temp].bytes != p->storages[var].bytes) continue;
    int made = uses[temp].made, last_read = uses[var].last_read;
    if (made < 0 || last_read > made) continue;
    if (last_read == made && !may_overwrite(p, p->steps[made], uses[temp].out, uses[var].input)) continue;
    p->storages[temp].alias = var;
    copy->dropped = true;
    p->report.copies--;
    p->report.in_place++;
  }
  free(uses);
  return MN_OK;
}

static void temporaries_in_place(mn_plan *p) {
  for (int t = 0; t < p->n_steps; t++) {
    step *s = p->steps[t];
    if (s->dropped) continue;
    for (int j = 0; j < s->call.n_out; j++) {
      int out = storage_root(p, s->out_storage[j]);
      if (p->storages[out].kind == STORAGE_LEAF || p->storages[out].first != t) continue;
      for (int i = 0; i < s->call.n_in; i++) {
        int in = storage_root(p, s->in_storage[i]);
        storage *m = &p->storages[in];
        if (in == out || m->kind != STORAGE_TEMP || m->last != t || m->bytes != p->storages[out].bytes) continue;
        if (!may_overwrite(p, s, j, i)) continue;
        m->alias = out;
        p->storages[out].first = m->first;
        p->report.in_place++;
        break;
      }
    }
  }
}

/* ---- memory ---- */
static mn_status patch_add(mn_plan *p, int s, void **at, size_t offset) {
  storage *m = &p->storages[storage_root(p, s)];
  patch *q = grow(m->patches, m->n_patches, &m->cap_patches, sizeof *q);
  if (!q) return MN_ERR_MEMORY;
  m->patches = q;
  m->patches[m->n_patches++] = (patch){at, offset};
  return MN_OK;
}

static mn_status connect(mn_plan *p) {
  for (int t = 0; t < p->n_steps; t++) {
    step *s = p->steps[t];
    if (s->dropped) continue;
    for (int i = 0; i < s->call.n_in; i++)
      MN_TRY(patch_add(p, s->in_storage[i], &s->call.in[i].data,
                       (size_t)s->in_layout[i].offset * mn_dtype_size(s->call.in[i].dtype)));
    for (int j = 0; j < s->call.n_out; j++) MN_TRY(patch_add(p, s->out_storage[j], &s->call.out[j].data, 0));
  }
  for (int j = 0; j < p->n_outputs; j++) MN_TRY(patch_add(p, p->output_storage[j], &p->outputs[j].data, 0));
  return MN_OK;
}

static mn_status plan_memory(mn_plan *p, bool share) {
  mn_lifetime *life = mn_calloc((size_t)p->n_storages + (size_t)p->n_steps + 1, sizeof *life);
  int *of = mn_alloc(((size_t)p->n_storages + 1) * sizeof *of), n = 0;
  mn_status status = life && of ? MN_OK : MN_ERR_MEMORY;
  for (int i = 0; i < p->n_storages && status == MN_OK; i++) {
    storage *s = &p->storages[i];
    of[i] = -1;
    if (s->kind != STORAGE_TEMP || s->alias >= 0 || s->first < 0) continue;
    of[i] = n;
    life[n++] = (mn_lifetime){.bytes = s->bytes, .first = s->first, .last = s->last};
    p->report.bytes_unshared += mn_align(s->bytes, 64);
  }
  for (int t = 0; t < p->n_steps && status == MN_OK; t++) {
    step *s = p->steps[t];
    if (s->dropped) continue;
    size_t bytes = s->body ? s->body->block_bytes : s->call.kernel->workspace ? s->call.kernel->workspace(&s->call) : 0;
    if (!bytes) continue;
    if (bytes > p->report.bytes_workspace) p->report.bytes_workspace = bytes;
    s->buffer = n;
    life[n++] = (mn_lifetime){.bytes = bytes, .first = t, .last = t};
  }
  if (status == MN_OK) status = mn_pass_memory(n, life, share, &p->block_bytes);
  for (int i = 0; i < p->n_storages && status == MN_OK; i++)
    if (of[i] >= 0) p->storages[i].bytes = life[of[i]].offset; /* from here on: the offset in the block */
  for (int t = 0; t < p->n_steps && status == MN_OK; t++)
    if (p->steps[t]->buffer >= 0) p->steps[t]->call.workspace = (void *)(uintptr_t)life[p->steps[t]->buffer].offset;
  p->report.bytes_planned = p->block_bytes;
  free(life);
  free(of);
  return status;
}

void mn_plan_place(mn_plan *p, void *block) {
  for (int i = 0; i < p->n_storages; i++) {
    storage *s = &p->storages[i];
    if (s->kind == STORAGE_TEMP && s->alias < 0 && s->first >= 0) mn_storage_bind(p, i, (char *)block + s->bytes);
  }
  for (int t = 0; t < p->n_steps; t++) {
    step *s = p->steps[t];
    if (s->dropped || s->buffer < 0) continue;
    s->call.workspace = (char *)block + (uintptr_t)s->call.workspace;
    if (s->body) mn_plan_place(s->body, s->call.workspace);
  }
}

static mn_status fill_constants(mn_plan *p) {
  for (int pass = 0; pass < 2; pass++) {
    size_t at = 0;
    for (int i = 0; i < p->n_storages; i++) {
      storage *s = &p->storages[i];
      if (s->kind != STORAGE_CONST) continue;
      if (pass) {
        MN_TRY(p->backend->upload(p->backend, (char *)p->const_block + at, s->data, s->bytes));
        mn_storage_bind(p, i, (char *)p->const_block + at);
      }
      at += mn_align(s->bytes, 64);
    }
    if (pass || at == 0) continue;
    p->const_bytes = at;
    p->report.bytes_constants += at;
    p->const_block = p->backend->alloc(p->backend, at);
    if (!p->const_block) return MN_ERR_MEMORY;
  }
  return MN_OK;
}

static mn_status own_outputs(mn_plan *p) {
  for (int pass = 0; pass < 2; pass++) {
    size_t at = 0;
    for (int i = 0; i < p->n_storages; i++) {
      storage *s = &p->storages[i];
      if (s->kind != STORAGE_OUTPUT || s->alias >= 0) continue;
      if (pass) mn_storage_bind(p, i, (char *)p->output_block + at);
      at += mn_align(s->bytes, 64);
    }
    if (pass || at == 0) continue;
    p->output_bytes = p->report.bytes_outputs = at;
    p->output_block = p->backend->alloc(p->backend, at);
    if (!p->output_block) return MN_ERR_MEMORY;
  }
  return MN_OK;
}

static void count_activations(mn_plan *p) {
  bool *counted = mn_calloc((size_t)p->n_storages + 1, 1);
  for (int t = 0; t < p->n_steps && counted; t++)
    for (int i = 0; i < p->steps[t]->call.n_in; i++) {
      int s = storage_root(p, p->steps[t]->in_storage[i]);
      storage *m = &p->storages[s];
      if (counted[s] || m->kind != STORAGE_TEMP || m->phase >= p->steps[t]->call.node->phase) continue;
      counted[s] = true;
      p->report.bytes_activations += m->bytes;
    }
  free(counted);
}

/* ---- compiling ---- */
static int count_nodes(const mn_program *p) {
  int n = 0;
  for (int i = 0; i < p->g->n_nodes; i++)
    n += p->g->nodes[i]->op->cls != MN_OP_LEAF && p->g->nodes[i]->op->cls != MN_OP_VIEW;
  return n;
}

static mn_status run_passes(mn_plan *p, const mn_plan_request *q) {
  mn_plan_report *r = &p->report;
  MN_TRY(mn_graph_status(q->graph));
  MN_TRY(mn_program_take(q, p->arena, &p->program));
  r->nodes_given = count_nodes(&p->program);
  MN_TRY(mn_pass_lower(q->backend, p->arena, &p->program));
  r->nodes_lowered = count_nodes(&p->program);
  if (!(q->passes_off & MN_PASS_SIMPLIFY)) MN_TRY(mn_pass_simplify(p->arena, &p->program));
  r->nodes_simplified = count_nodes(&p->program);
  if (!(q->passes_off & MN_PASS_RECOMPUTE) && q->activations != MN_KEEP)
    MN_TRY(mn_pass_recompute(q->activations, p->arena, &p->program, &r->nodes_recomputed));
  if (!(q->passes_off & MN_PASS_FUSE) && q->backend->fuse_elementwise) MN_TRY(mn_pass_fuse(p->arena, &p->program, r));
  r->nodes_fused = count_nodes(&p->program);
  return MN_OK;
}

static mn_status build_init(builder *b) {
  mn_graph *g = b->p->program.g;
  int total = 0, n = b->n_nodes = g->n_nodes;
  b->base = mn_alloc(((size_t)n + 1) * sizeof *b->base);
  b->needed = mn_calloc((size_t)n + 1, 1);
  if (!b->base || !b->needed) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) b->base[i] = total, total += g->nodes[i]->n_out;
  b->values = mn_calloc((size_t)total + 1, sizeof *b->values);
  b->dense = mn_calloc((size_t)total + 1, sizeof *b->dense);
  b->p->leaf_storage = mn_arena_alloc(b->p->arena, (size_t)(b->p->program.n_leaves + 1) * sizeof(int));
  if (!b->values || !b->dense || !b->p->leaf_storage) return MN_ERR_MEMORY;
  for (int i = 0; i < total; i++) b->values[i].storage = b->dense[i].storage = -1;
  for (int i = 0; i < b->p->program.n_leaves; i++) b->p->leaf_storage[i] = -1;
  b->p->n_leaves = b->p->program.n_leaves;
  for (int i = 0; i < b->p->program.n_roots; i++) b->needed[b->p->program.roots[i]->node->id] = true;
  for (int i = n - 1; i >= 0; i--) {
    mn_node *node = g->nodes[i];
    bool leaf = node->op == &mn_op_input || node->op == &mn_op_variable;
    if (leaf) b->needed[i] = true;
    for (int k = 0; k < node->n_in && b->needed[i]; k++) b->needed[node->in[k]->node->id] = true;
  }
  return MN_OK;
}

static mn_status build(builder *b) {
  mn_plan *p = b->p;
  MN_TRY(run_passes(p, &b->q));
  MN_TRY(build_init(b));
  for (int i = 0; i < b->n_nodes; i++) {
    mn_node *n = p->program.g->nodes[i];
    if (!b->needed[i]) continue;
    if (n->op->cls == MN_OP_LEAF) MN_TRY(place_leaf(b, n));
    else if (n->op->cls == MN_OP_VIEW) MN_TRY(place_view(b, n));
    else MN_TRY(place_op(b, n));
  }
  int *from = mn_arena_alloc(p->arena, (size_t)(b->q.n_assigns + 1) * sizeof *from);
  if (!from) return MN_ERR_MEMORY;
  MN_TRY(save_assigned(b, from));
  MN_TRY(place_outputs(b)); /* an output may show what a variable held before */
  MN_TRY(write_assigned(b, from));
  lifetimes(p);
  count_activations(p);
  if (!(b->q.passes_off & MN_PASS_INPLACE)) {
    MN_TRY(assign_in_place(p));
    lifetimes(p);
    temporaries_in_place(p);
  }
  lifetimes(p);
  for (int t = 0; t < p->n_steps; t++) {
    step *s = p->steps[t];
    if (s->dropped) continue;
    p->report.steps++;
    if (!s->body && s->call.kernel->prepare)
      MN_TRY(mn_context(s->call.kernel->prepare(&s->call), "%s", s->call.kernel->name));
  }
  MN_TRY(connect(p));
  MN_TRY(plan_memory(p, !(b->q.passes_off & MN_PASS_SHARE_MEMORY)));
  MN_TRY(fill_constants(p));
  if (p->is_body) return MN_OK;
  if (p->block_bytes) {
    p->block = p->backend->alloc(p->backend, p->block_bytes);
    if (!p->block) return mn_context(MN_ERR_MEMORY, "the plan's intermediate results");
  }
  mn_plan_place(p, p->block);
  return own_outputs(p);
}

mn_status mn_plan_compile_with(const mn_plan_request *q, int n_layouts, const mn_tensor *const *layout_of,
                               const mn_layout *layouts, bool is_body, mn_plan **out) {
  *out = NULL;
  mn_plan *p = mn_calloc(1, sizeof *p);
  if (!p) return MN_ERR_MEMORY;
  p->arena = mn_arena_new();
  p->backend = q->backend;
  p->is_body = is_body;
  builder b = {.p = p, .q = *q, .n_layouts = n_layouts, .layout_of = layout_of, .layouts = layouts};
  mn_status status = p->arena ? build(&b) : MN_ERR_MEMORY;
  free(b.base);
  free(b.values);
  free(b.dense);
  free(b.needed);
  if (status != MN_OK) {
    mn_plan_free(p);
    return status;
  }
  *out = p;
  return MN_OK;
}

mn_status mn_plan_compile(const mn_plan_request *q, mn_plan **out) {
  return mn_plan_compile_with(q, 0, NULL, NULL, false, out);
}
