/* plan_run.c - running a plan: binding memory, the list of steps, loops, and what is told about it. */
#include "compile/plan_internal.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void mn_storage_bind(mn_plan *p, int s, void *base) {
  mn_storage *m = &p->storages[s];
  m->base = base;
  for (int i = 0; i < m->n_patches; i++) *m->patches[i].at = (char *)base + m->patches[i].offset + (size_t)p->part * m->patches[i].part;
}

int mn_plan_leaf_storage(const mn_plan *p, const mn_tensor *leaf) {
  const int i = mn_table_find(&p->leaf_at, leaf, -1);
  return i >= 0 ? p->leaf_storage[i] : -1;
}

int mn_plan_slot(const mn_plan *p, const mn_tensor *leaf) { return mn_plan_leaf_storage(p, leaf); }

void mn_plan_bind_slot(mn_plan *p, int slot, void *data) {
  if (slot >= 0) mn_storage_bind(p, slot, data);
}

void mn_plan_bind(mn_plan *p, const mn_tensor *leaf, void *data) { mn_plan_bind_slot(p, mn_plan_slot(p, leaf), data); }

bool mn_plan_assigns(const mn_plan *p, const mn_tensor *leaf) {
  const int s = mn_plan_leaf_storage(p, leaf);
  return s >= 0 && p->storages[s].claimed;
}

static mn_status run_steps(mn_plan *p) {
  for (int t = 0; t < p->n_steps; t++) {
    mn_plan_step *s = p->steps[t];
    if (s->dropped) continue;
    if (t < p->left_before) MN_TRY(mn_stop_check("computing"));
    if (p->profiling) {
      double start = mn_now();
      mn_status status = s->call.kernel->run(&s->call);
      const double seconds = mn_now() - start;
      s->seconds += seconds;
      if (s->runs++ == 0 || seconds < s->shortest) s->shortest = seconds;
      if (status != MN_OK) return mn_context(status, "%s", s->call.node->op->name);
    } else {
      mn_status status = s->call.kernel->run(&s->call);
      if (status != MN_OK) return mn_context(status, "%s", s->call.node->op->name);
    }
  }
  return MN_OK;
}

mn_status mn_plan_run(mn_plan *p) {
  for (int i = 0; i < p->n_leaves; i++) {
    int s = p->leaf_storage[i];
    if (s < 0 || !p->storages[s].n_patches) continue;
    const mn_tensor *leaf = p->program.leaves[i];
    const char *name = leaf->name ? leaf->name : "?";
    size_t size = mn_dtype_align(leaf->dtype);
    if (!p->storages[s].base) return mn_fail(MN_ERR_ARG, "plan: input '%s' was not bound", name);
    if ((uintptr_t)p->storages[s].base % size)
      return mn_fail(MN_ERR_ARG, "plan: input '%s' is bound to memory that is not aligned to its elements of %zu bytes; copy it", name,
                     size);
  }
  if (p->room) MN_TRY(mn_plan_settle(p)); /* another plan may have run there, or made it larger */
  return run_steps(p);
}

/* ---- the loop ---- */
static mn_plan_step *step_of(const mn_call *c) { return (mn_plan_step *)((char *)c - offsetof(mn_plan_step, call)); }

/* How many steps run. */
static mn_status live_length(const mn_call *c, const mn_scan_attr *a, int64_t *length) {
  *length = a->length;
  if (!a->has_live) return MN_OK;
  int32_t live;
  MN_TRY(c->backend->download(c->backend, &live, c->in[a->n_carry + a->n_xs + a->n_const].data, sizeof live));
  if (live < *length) *length = live > 0 ? live : 0;
  return MN_OK;
}

/* What steps that do not run would have given. */
static mn_status zero_rows_beyond(const mn_call *c, const mn_scan_attr *a, const mn_scan_binding *b, int64_t live) {
  mn_backend *be = c->backend;
  if (live == a->length) return MN_OK;
  for (int j = 0; j < a->n_ys; j++)
    MN_TRY(be->zero(be, (char *)c->out[a->n_carry + j].data + (size_t)live * b->y_bytes[j], (size_t)(a->length - live) * b->y_bytes[j]));
  if (!a->save_every) return MN_OK;
  const int64_t rows = (a->length - 1) / a->save_every + 1, used = (live + a->save_every - 1) / a->save_every;
  for (int i = 0; i < a->n_carry; i++) {
    char *saved = c->out[a->n_carry + a->n_ys + i].data;
    MN_TRY(be->zero(be, saved + (size_t)used * b->carry_bytes[i], (size_t)(rows - used) * b->carry_bytes[i]));
  }
  return MN_OK;
}

/* The steps of the loop: of all of it on its body, or of one part of it on a plan that sees that part alone. */
static mn_status run_loop(mn_call *c, mn_plan *body, int64_t parts, int64_t length, const atomic_bool *left) {
  const mn_scan_attr *a = c->attr;
  const mn_scan_binding *b = c->state;
  mn_backend *be = c->backend;
  for (int i = 0; i < a->n_carry; i++)
    if (b->carry[i] >= 0) mn_storage_bind(body, b->carry[i], c->out[i].data);
  for (int i = 0; i < a->n_const; i++)
    if (b->consts[i] >= 0) mn_storage_bind(body, b->consts[i], c->in[a->n_carry + a->n_xs + i].data);
  for (int64_t e = 0; e < length; e++) {
    int64_t t = a->reverse ? length - 1 - e : e;
    if (left && atomic_load_explicit(left, memory_order_relaxed)) return MN_OK;
    if (a->save_every) {
      bool enters = a->reverse ? (t + 1) % a->save_every == 0 || t == length - 1 : t % a->save_every == 0;
      for (int i = 0; enters && i < a->n_carry; i++) {
        const size_t bytes = b->carry_bytes[i] / (size_t)parts, from = (size_t)body->part * bytes;
        MN_TRY(be->copy(be, (char *)c->out[a->n_carry + a->n_ys + i].data + (size_t)(t / a->save_every) * b->carry_bytes[i] + from,
                        (char *)c->out[i].data + from, bytes));
      }
    }
    for (int i = 0; i < a->n_xs; i++)
      if (b->xs[i] >= 0) mn_storage_bind(body, b->xs[i], (char *)c->in[a->n_carry + i].data + (ptrdiff_t)t * (ptrdiff_t)b->x_bytes[i]);
    for (int j = 0; j < a->n_ys; j++) mn_storage_bind(body, b->ys[j], (char *)c->out[a->n_carry + j].data + (size_t)t * b->y_bytes[j]);
    mn_status status = run_steps(body);
    if (status != MN_OK) return mn_context(status, "step %lld of a loop of %lld", (long long)t, (long long)length);
  }
  return MN_OK;
}

typedef struct parts_job {
  mn_call *c;
  int64_t length;
  atomic_bool left;  /* a part failed: the others end where they are */
  atomic_int status; /* of the first that failed */
  char message[512];
} parts_job;

static void part_task(void *ctx, int64_t part, int thread) {
  parts_job *j = ctx;
  const mn_plan_step *s = step_of(j->c);
  (void)thread;
  int i = 0; /* there are as many plans as parts that run at a time, so one is free */
  while (atomic_exchange_explicit(&s->parts->taken[i], true, memory_order_acquire)) i = (i + 1) % s->parts->n;
  mn_plan *p = s->parts->plans[i];
  p->part = part;
  mn_plan_place(p, (char *)j->c->workspace + (size_t)i * mn_align(s->body->block_bytes, 64));
  for (int k = 0; k < p->n_storages; k++)
    if (p->storages[k].kind == MN_STORAGE_CONST) mn_storage_bind(p, k, s->body->storages[k].base);
  const mn_status status = run_loop(j->c, p, s->parts->count, j->length, &j->left);
  atomic_store_explicit(&s->parts->taken[i], false, memory_order_release);
  int none = MN_OK;
  if (status == MN_OK || !atomic_compare_exchange_strong(&j->status, &none, (int)status)) return;
  snprintf(j->message, sizeof j->message, "%s", mn_message()); /* a thread's message is its own */
  atomic_store(&j->left, true);
}

static mn_status scan_run(mn_call *c) {
  const mn_scan_attr *a = c->attr;
  const mn_scan_binding *b = c->state;
  const mn_plan_step *s = step_of(c);
  int64_t length;
  MN_TRY(live_length(c, a, &length));
  MN_TRY(zero_rows_beyond(c, a, b, length));
  for (int i = 0; i < a->n_carry; i++)
    if (c->in[i].data != c->out[i].data) MN_TRY(c->backend->copy(c->backend, c->out[i].data, c->in[i].data, b->carry_bytes[i]));
  if (!s->parts) {
    if (s->body->placed != c->workspace) mn_plan_place(s->body, c->workspace); /* another loop of the same body ran last */
    return run_loop(c, s->body, 1, length, NULL);
  }
  parts_job job = {.c = c, .length = length};
  mn_pool_run(c->pool, s->parts->count, part_task, &job);
  const mn_status status = (mn_status)atomic_load(&job.status);
  return status == MN_OK ? MN_OK : mn_fail(status, "%s", job.message);
}

const mn_kernel mn_kernel_scan = {.op = &mn_op_scan, .name = "loop", .layout = MN_LAYOUT_ANY, .run = scan_run};

/* ---- the rest ---- */
const mn_view *mn_plan_output(const mn_plan *p, int j) { return j >= 0 && j < p->n_outputs ? &p->outputs[j] : NULL; }
const mn_plan_report *mn_plan_get_report(const mn_plan *p) { return &p->report; }

void mn_plan_profile(mn_plan *p, bool on) {
  p->profiling = on;
  for (int t = 0; t < p->n_steps; t++) {
    if (on) p->steps[t]->seconds = 0, p->steps[t]->runs = 0;
    if (p->steps[t]->body) mn_plan_profile(p->steps[t]->body, on);
    const mn_parts *parts = p->steps[t]->parts;
    for (int i = 0; parts && i < parts->n; i++) mn_plan_profile(parts->plans[i], on);
  }
}

/* parts: of the loop whose body it is, of which p runs one at a time */
static void describe(const mn_plan *p, int depth, int64_t parts, void (*line)(void *ctx, const char *text), void *ctx) {
  char text[512], shape[96];
  for (int t = 0; t < p->n_steps; t++) {
    const mn_plan_step *s = p->steps[t];
    if (s->dropped) continue;
    const mn_node *n = s->call.node;
    const mn_tensor *y = n->n_out ? n->out[0] : NULL; /* what has an effect may have no result */
    int k = snprintf(text, sizeof text, "%*s%4d  %-26s %-22s %-5s %-22s", 2 * depth, "", t, n->op->name, s->call.kernel->name,
                     y ? mn_dtype_name(y->dtype) : "", y ? mn_shape_str(&y->shape, shape) : "");
    if (mn_is(n, MN_IS_PROGRAM) && k < (int)sizeof text)
      k += snprintf(text + k, sizeof text - (size_t)k, " %d in, %d out, %d instructions", n->n_in, n->n_out,
                    ((const mn_ew_attr *)n->attr)->n_instr);
    if (mn_is(n, MN_IS_LOOP) && k < (int)sizeof text)
      k += snprintf(text + k, sizeof text - (size_t)k, " %lld times", (long long)((const mn_scan_attr *)n->attr)->length);
    if (s->parts && k < (int)sizeof text) k += snprintf(text + k, sizeof text - (size_t)k, " in %lld parts", (long long)s->parts->count);
    if (s->runs && k < (int)sizeof text) {
      double seconds = s->seconds / (double)s->runs;
      /* a loop's own rule would look into the user's graph, which may be gone */
      int64_t flops = mn_is(n, MN_IS_PROGRAM) ? 0
                      : s->body               ? s->body->report.flops * ((const mn_scan_attr *)n->attr)->length
                      : n->op->flops          ? n->op->flops(n)
                                              : 0;
      flops /= parts;
      k += snprintf(text + k, sizeof text - (size_t)k, " %9.1f us", 1e6 * seconds);
      if (s->runs > 1 && k < (int)sizeof text) k += snprintf(text + k, sizeof text - (size_t)k, " %9.1f us at best", 1e6 * s->shortest);
      if (flops && k < (int)sizeof text)
        snprintf(text + k, sizeof text - (size_t)k, " %7.1f GFLOP/s", 1e-9 * (double)flops / (s->runs > 1 ? s->shortest : seconds));
    }
    line(ctx, text);
    if (s->body) describe(s->parts ? s->parts->plans[0] : s->body, depth + 1, s->parts ? s->parts->count : 1, line, ctx);
  }
}

void mn_plan_describe(const mn_plan *p, void (*line)(void *ctx, const char *text), void *ctx) {
  describe(p, 0, 1, line, ctx);
  double mean = 0, shortest = 0; /* what lies between them is what the machine did besides */
  for (int t = 0; t < p->n_steps; t++)
    if (!p->steps[t]->dropped && p->steps[t]->runs) {
      mean += p->steps[t]->seconds / (double)p->steps[t]->runs;
      shortest += p->steps[t]->shortest;
    }
  if (shortest <= 0) return;
  char text[160];
  const double flops = 1e-9 * (double)p->report.flops;
  snprintf(text, sizeof text, "sum of the kernels' times: mean %.3f ms, %.1f GFLOP/s; shortest %.3f ms, %.1f GFLOP/s", 1e3 * mean,
           flops / mean, 1e3 * shortest, flops / shortest);
  line(ctx, text);
}

void mn_plan_free(mn_plan *p) {
  if (!p) return;
  for (int t = 0; t < p->n_steps; t++) {
    mn_plan_step *s = p->steps[t];
    for (int i = 0; s->parts && !s->shares_body && i < s->parts->n; i++) mn_plan_free(s->parts->plans[i]);
    if (s->body && !s->shares_body) mn_plan_free(s->body);
    else if (s->body) continue;
    else if (s->call.kernel->release && s->call.state && !s->shares_state) s->call.kernel->release(&s->call);
  }
  if (p->block) p->backend->free(p->backend, p->block, p->block_bytes);
  if (p->output_block) p->backend->free(p->backend, p->output_block, p->output_bytes);
  if (p->const_block) p->backend->free(p->backend, p->const_block, p->const_bytes);
  free(p->storages);
  free(p->steps);
  mn_arena_free(p->arena);
  free(p);
}
