/* plan_bodies.c - loops in a plan. A loop's body is a plan of its own, whose carries, slices and constants are bound anew whenever the loop
 * runs. So loops that do the same, as those of a deep model's layers do, share one: it is compiled once, and each loop gives it its own
 * memory. Two bodies are the same when they have the same nodes in the same order, and find what they read lying alike
 * (graph/loops_alike.h). */
#include "compile/plan_internal.h"
#include "graph/loops_alike.h"

#include <stdlib.h>
#include <string.h>

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
