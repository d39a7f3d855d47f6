/* gather.c - kernels of the running maximum and of weighted rows of tables. */
#include "backend/cpu/cpu.h"
#include "graph/ops.h"

#include <string.h>

enum { TASK = 16384 }; /* elements of a task, about */

/* ---- running maximum ---- rows that lie anywhere, elements of a row dense */
typedef struct rows_job {
  const mn_call *c;
  int64_t rows, per_task;
} rows_job;

static int64_t row_offset(const mn_view *v, int64_t row) {
  int64_t at = 0;
  for (int d = v->ndim - 2; d >= 0; d--) at += row % v->dim[d] * v->stride[d], row /= v->dim[d];
  return at;
}
static void cummax_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const rows_job *j = ctx;
  const mn_view *x = &j->c->in[0], *y = &j->c->out[0], *index = &j->c->out[1];
  const int64_t n = x->dim[x->ndim - 1], end = (i + 1) * j->per_task < j->rows ? (i + 1) * j->per_task : j->rows;
  for (int64_t r = i * j->per_task; r < end; r++) {
    const float *from = (const float *)x->data + row_offset(x, r);
    float *to = (float *)y->data + row_offset(y, r), top = from[0];
    int32_t *at = (int32_t *)index->data + row_offset(index, r), where = 0;
    for (int64_t t = 0; t < n; t++) {
      if (top < from[t]) top = from[t], where = (int32_t)t;
      to[t] = top, at[t] = where;
    }
  }
}
static bool cummax_accepts(const mn_node *n) { return n->in[0]->dtype == MN_F32 && mn_dim(n->in[0], -1) > 0; }
static mn_status cummax_run(mn_call *c) {
  const int64_t n = c->in[0].dim[c->in[0].ndim - 1];
  rows_job j = {.c = c, .rows = mn_view_count(&c->in[0]) / n, .per_task = n >= TASK ? 1 : TASK / n};
  mn_pool_run(c->pool, (j.rows + j.per_task - 1) / j.per_task, cummax_task, &j);
  return MN_OK;
}

/* ---- bag ---- rows of the table are read once and never copied */
static void bag_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const rows_job *j = ctx;
  const mn_view *table = &j->c->in[0], *index = &j->c->in[1], *weight = &j->c->in[2], *y = &j->c->out[0];
  const int64_t N = table->dim[0], D = table->dim[1], n = index->dim[index->ndim - 1];
  const int64_t end = (i + 1) * j->per_task < j->rows ? (i + 1) * j->per_task : j->rows;
  for (int64_t r = i * j->per_task; r < end; r++) {
    const int32_t *at = (const int32_t *)index->data + row_offset(index, r);
    const float *w = (const float *)weight->data + row_offset(weight, r);
    float *restrict to = (float *)y->data + row_offset(y, r);
    memset(to, 0, (size_t)D * sizeof *to);
    for (int64_t k = 0; k < n; k++) {
      if (at[k] < 0 || at[k] >= N) continue;
      const float *restrict row = (const float *)table->data + at[k] * table->stride[0], scale = w[k];
      if (k + 1 < n && at[k + 1] >= 0 && at[k + 1] < N) __builtin_prefetch((const float *)table->data + at[k + 1] * table->stride[0]);
      for (int64_t d = 0; d < D; d++) to[d] += scale * row[d];
    }
  }
}
static bool bag_accepts(const mn_node *n) {
  return n->in[0]->dtype == MN_F32 && n->in[2]->dtype == MN_F32 && n->out[0]->dtype == MN_F32 && mn_dim(n->in[1], -1) > 0;
}
static mn_status bag_run(mn_call *c) {
  const int64_t n = c->in[1].dim[c->in[1].ndim - 1], each = n * (c->in[0].dim[1] + 1);
  rows_job j = {.c = c, .rows = mn_view_count(&c->in[1]) / n, .per_task = each >= TASK ? 1 : TASK / each};
  mn_pool_run(c->pool, (j.rows + j.per_task - 1) / j.per_task, bag_task, &j);
  return MN_OK;
}

static const mn_kernel cummax = {
    .op = &mn_op_cummax, .name = "cpu.cummax", .layout = MN_LAYOUT_ROWS, .accepts = cummax_accepts, .run = cummax_run};
static const mn_kernel bag = {.op = &mn_op_bag, .name = "cpu.bag", .layout = MN_LAYOUT_ROWS, .accepts = bag_accepts, .run = bag_run};

const mn_kernel *const *mn_cpu_gather_kernels(mn_isa isa, int *n) {
  (void)isa; /* the reading of rows is the limit */
  static const mn_kernel *const list[] = {&cummax, &bag};
  *n = 2;
  return list;
}
