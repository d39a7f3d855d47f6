/* plan_bodies.c - loops in a plan. A loop's body is a plan of its own, whose carries, slices and constants are bound anew whenever the loop
 * runs. So loops that do the same, as those of a deep model's layers do, share one: it is compiled once, and each loop gives it its own
 * memory. Two bodies are the same when they have the same nodes in the same order, and find what they read lying alike. */
#include "compile/plan_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- are two bodies the same? ---- */

/* What tells n apart from another application of its operation; NULL: everything. Constants are the same number by number: each layer
 * makes its own. */
static const void *identity_of(const mn_node *n, size_t *bytes) {
  const mn_const_attr *constant = n->op == &mn_op_const ? n->attr : NULL;
  if (constant && !constant->is_full) {
    *bytes = mn_tensor_bytes(n->out[0]);
    return *bytes ? constant->data : "";
  }
  *bytes = n->op->attr_size;
  return n->op->identity ? n->op->identity(n, bytes) : *bytes ? n->attr : "";
}

static uint64_t place_of(const mn_tensor *t) { return (uint64_t)t->node->id * 64 + (uint64_t)t->out; }

static bool hash_node(const mn_node *n, uint64_t *h) {
  *h = mn_hash_mix(*h, (uint64_t)(uintptr_t)n->op);
  *h = mn_hash_mix(*h, (uint64_t)n->phase * 2 + n->mute);
  for (int i = 0; i < n->n_in; i++) *h = mn_hash_mix(*h, place_of(n->in[i]));
  for (int j = 0; j < n->n_out; j++) {
    *h = mn_hash_mix(*h, (uint64_t)n->out[j]->dtype);
    for (int d = 0; d < n->out[j]->shape.ndim; d++) *h = mn_hash_mix(*h, (uint64_t)n->out[j]->shape.dim[d]);
  }
  if (n->op == &mn_op_scan) return mn_loop_hash(n->attr, h);
  enum { BEGINNING = 4096 }; /* bytes: enough to tell most apart */
  size_t bytes;
  const void *identity = identity_of(n, &bytes);
  if (identity && bytes) *h = mn_hash_words(identity, bytes < BEGINNING ? bytes : BEGINNING, *h);
  return identity != NULL;
}
bool mn_loop_hash(const mn_scan_attr *a, uint64_t *h) { /* false: it is like no other */
  *h = mn_hash_mix(*h, (uint64_t)a->length);
  for (int i = 0; i < a->body->n_nodes; i++)
    if (!hash_node(a->body->nodes[i], h)) return false;
  return true;
}

static bool same_tensor(const mn_tensor *a, const mn_tensor *b) { return a->node->id == b->node->id && a->out == b->out; }

static bool same_node(const mn_node *a, const mn_node *b) {
  if (a->op != b->op || a->n_in != b->n_in || a->n_out != b->n_out || a->phase != b->phase || a->mute != b->mute) return false;
  for (int i = 0; i < a->n_in; i++)
    if (!same_tensor(a->in[i], b->in[i])) return false;
  for (int j = 0; j < a->n_out; j++)
    if (a->out[j]->dtype != b->out[j]->dtype || !mn_shape_equal(&a->out[j]->shape, &b->out[j]->shape)) return false;
  if (a->op == &mn_op_scan) return mn_loop_same(a->attr, b->attr);
  size_t na, nb;
  const void *x = identity_of(a, &na), *y = identity_of(b, &nb);
  return x && y && na == nb && memcmp(x, y, na) == 0;
}
bool mn_loop_same(const mn_scan_attr *a, const mn_scan_attr *b) {
  if (a->n_carry != b->n_carry || a->n_xs != b->n_xs || a->n_const != b->n_const || a->n_ys != b->n_ys || a->length != b->length ||
      a->has_live != b->has_live || a->reverse != b->reverse || a->settled != b->settled || a->save_every != b->save_every ||
      a->body->n_nodes != b->body->n_nodes)
    return false;
  for (int i = 0; i < a->n_carry + a->n_xs + a->n_const; i++)
    if (!same_tensor(a->body_in[i], b->body_in[i])) return false;
  for (int j = 0; j < a->n_carry + a->n_ys; j++)
    if (!same_tensor(a->body_out[j], b->body_out[j])) return false;
  for (int i = 0; i < a->body->n_nodes; i++)
    if (!same_node(a->body->nodes[i], b->body->nodes[i])) return false;
  return true;
}

/* ---- a body ---- */
static void report_body(mn_plan_report *r, const mn_plan_report *body) {
  r->nodes_given += body->nodes_given;
  r->nodes_lowered += body->nodes_lowered;
  r->nodes_moved += body->nodes_moved;
  r->loops_in_parts += body->loops_in_parts;
  r->nodes_simplified += body->nodes_simplified;
  r->nodes_recomputed += body->nodes_recomputed;
  r->nodes_fused += body->nodes_fused;
  r->steps += body->steps;
  r->copies += body->copies;
  r->in_place += body->in_place;
  r->elementwise_before += body->elementwise_before;
  r->elementwise_after += body->elementwise_after;
}

/* How what the body reads lies: as in the loop's operands, of which slices lack the first axis. */
static mn_layout *layouts_of(const mn_plan_step *s, int n_in, mn_arena *arena) {
  const mn_scan_attr *a = s->call.attr;
  mn_layout *layouts = mn_arena_alloc(arena, (size_t)(n_in + 1) * sizeof *layouts);
  for (int i = 0; i < n_in && layouts; i++) {
    const int step = i >= a->n_carry && i < a->n_carry + a->n_xs;
    for (int d = step; d < s->call.in[i].ndim; d++) layouts[i].stride[d - step] = s->call.in[i].stride[d];
  }
  return layouts;
}

static mn_status bind_new(mn_plan *p, mn_plan_step *s) {
  const mn_scan_attr *a = s->call.attr;
  mn_scan_binding *bind = mn_arena_alloc(p->arena, sizeof *bind);
  if (!bind) return MN_ERR_MEMORY;
  bind->carry = mn_arena_alloc(p->arena, (size_t)(a->n_carry + 1) * sizeof(int));
  bind->xs = mn_arena_alloc(p->arena, (size_t)(a->n_xs + 1) * sizeof(int));
  bind->consts = mn_arena_alloc(p->arena, (size_t)(a->n_const + 1) * sizeof(int));
  bind->ys = mn_arena_alloc(p->arena, (size_t)(a->n_ys + 1) * sizeof(int));
  bind->x_bytes = mn_arena_alloc(p->arena, (size_t)(a->n_xs + 1) * sizeof(size_t));
  bind->y_bytes = mn_arena_alloc(p->arena, (size_t)(a->n_ys + 1) * sizeof(size_t));
  bind->carry_bytes = mn_arena_alloc(p->arena, (size_t)(a->n_carry + 1) * sizeof(size_t));
  if (!bind->carry || !bind->xs || !bind->consts || !bind->ys || !bind->x_bytes || !bind->y_bytes || !bind->carry_bytes)
    return MN_ERR_MEMORY;
  for (int i = 0; i < a->n_carry; i++) {
    bind->carry[i] = mn_plan_leaf_storage(s->body, a->body_in[i]);
    bind->carry_bytes[i] = mn_tensor_bytes(a->body_in[i]);
  }
  for (int i = 0; i < a->n_xs; i++) {
    const mn_view *x = &s->call.in[a->n_carry + i];
    bind->xs[i] = mn_plan_leaf_storage(s->body, a->body_in[a->n_carry + i]);
    bind->x_bytes[i] = mn_dtype_bytes(x->dtype, x->stride[0]);
  }
  for (int i = 0; i < a->n_const; i++) bind->consts[i] = mn_plan_leaf_storage(s->body, a->body_in[a->n_carry + a->n_xs + i]);
  for (int j = 0; j < a->n_ys; j++) {
    bind->ys[j] = s->body->output_storage[j];
    bind->y_bytes[j] = mn_tensor_bytes(a->body_out[a->n_carry + j]);
  }
  s->call.state = bind;
  return MN_OK;
}

static mn_status compile_new(mn_plan *p, const mn_plan_request *request, int n_in, const mn_layout *layouts, mn_plan_step *s) {
  const mn_scan_attr *a = s->call.attr;
  mn_plan_request q = *request;
  q.prologue = NULL;
  q.graph = a->body;
  q.n_outputs = a->n_ys;
  q.outputs = a->body_out + a->n_carry;
  q.n_assigns = a->n_carry;
  q.variables = a->body_in;
  q.values = a->body_out;
  MN_TRY(mn_plan_compile_with(&q, n_in, (const mn_tensor *const *)a->body_in, layouts, true, &s->body));
  p->report.bytes_constants += s->body->report.bytes_constants;
  MN_TRY(bind_new(p, s));
  return q.passes_off & MN_PASS_PARTS ? MN_OK : mn_plan_into_parts(p, s);
}

static bool has_strides_of(const mn_plan_step *s, const mn_plan_step *other, int n_in) {
  for (int i = 0; i < n_in; i++)
    if (memcmp(s->call.in[i].stride, other->call.in[i].stride, sizeof s->call.in[i].stride) != 0) return false;
  return true;
}

mn_status mn_plan_body(mn_plan *p, const mn_plan_request *q, mn_arena *arena, mn_bodies *known, mn_plan_step *s) {
  const mn_scan_attr *a = s->call.attr;
  const int n_in = a->n_carry + a->n_xs + a->n_const;
  uint64_t hash = 0;
  const mn_plan_step *twin = NULL;
  for (int i = 0; i < known->n && !twin; i++) { /* a body that the passes made one is not looked at again */
    const mn_plan_step *other = known->list[i].step;
    if (memcmp(a, other->call.attr, sizeof *a) == 0 && has_strides_of(s, other, n_in)) twin = other;
  }
  const bool comparable = !twin && mn_loop_hash(a, &hash);
  for (int i = 0; i < known->n && comparable && !twin; i++) {
    const mn_plan_step *other = known->list[i].step;
    if (known->list[i].hash == hash && mn_loop_same(a, other->call.attr) && has_strides_of(s, other, n_in)) twin = other;
  }
  if (twin) {
    s->body = twin->body;
    s->parts = twin->parts;
    s->call.state = twin->call.state;
    s->shares_body = true;
  } else {
    const mn_layout *layouts = layouts_of(s, n_in, arena);
    if (!layouts) return MN_ERR_MEMORY;
    MN_TRY(compile_new(p, q, n_in, layouts, s));
    mn_body *list = comparable ? mn_plan_grow(known->list, known->n, &known->cap, sizeof *list) : NULL;
    if (comparable && !list) return MN_ERR_MEMORY;
    if (list) known->list = list, list[known->n++] = (mn_body){hash, s};
  }
  report_body(&p->report, &s->body->report);
  p->report.loops_in_parts += s->parts != NULL;
  return MN_OK;
}
