/* gather.c - kernels of the running maximum, and of weighted rows of tables and their gradients. */
#include "backend/cpu/cpu.h"
#include "graph/gather.h"
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

/* ---- its gradient ---- with y_r = sum_k w_rk table[i_rk],
 *
 *     dw_rk     = <dy_r, table[i_rk]>                       row after row of the result
 *     dtable[i] = sum over (r,k) with i_rk = i of w_rk dy_r    row after row of the table, (r,k) in their order
 *
 * A row of the table is written by one task alone: which (r,k) name it is found by counting, as a sort of one pass does. */
typedef struct named { /* reads of row i: number first[i] .. first[i + 1] of order[] */
  int32_t *first, *order;
} named;
typedef struct grad_job {
  const mn_call *c;
  int64_t rows, n, per_task; /* rows of the result, reads of each; rows of the table in a task */
  named named;
} grad_job;

static size_t bag_grad_workspace(const mn_call *c) { return (size_t)(c->in[0].dim[0] + 2 + mn_view_count(&c->in[1])) * sizeof(int32_t); }

/* first[i + 2] counts row i, then first[i + 1] is where it begins, and moves to where it ends as it is filled: the next row's start. */
static void sort_reads(grad_job *j) {
  const mn_view *index = &j->c->in[1];
  const int64_t N = j->c->in[0].dim[0];
  int32_t *first = j->named.first;
  memset(first, 0, (size_t)(N + 2) * sizeof *first);
  for (int64_t r = 0; r < j->rows; r++) {
    const int32_t *at = (const int32_t *)index->data + row_offset(index, r);
    for (int64_t k = 0; k < j->n; k++)
      if (at[k] >= 0 && at[k] < N) first[at[k] + 2]++;
  }
  for (int64_t i = 2; i < N + 2; i++) first[i] += first[i - 1];
  for (int64_t r = 0; r < j->rows; r++) {
    const int32_t *at = (const int32_t *)index->data + row_offset(index, r);
    for (int64_t k = 0; k < j->n; k++)
      if (at[k] >= 0 && at[k] < N) j->named.order[first[at[k] + 1]++] = (int32_t)(r * j->n + k);
  }
}
static void table_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const grad_job *j = ctx;
  const mn_view *weight = &j->c->in[2], *dy = &j->c->in[3], *dtable = &j->c->out[0];
  const int64_t N = dtable->dim[0], D = dtable->dim[1], end = (i + 1) * j->per_task < N ? (i + 1) * j->per_task : N;
  for (int64_t row = i * j->per_task; row < end; row++) {
    float *restrict to = (float *)dtable->data + row * dtable->stride[0];
    memset(to, 0, (size_t)D * sizeof *to);
    for (int32_t x = j->named.first[row]; x < j->named.first[row + 1]; x++) {
      const int64_t r = j->named.order[x] / j->n, k = j->named.order[x] % j->n;
      const float *restrict from = (const float *)dy->data + row_offset(dy, r),
                            scale = ((const float *)weight->data)[row_offset(weight, r) + k];
      for (int64_t d = 0; d < D; d++) to[d] += scale * from[d];
    }
  }
}
static void weight_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const rows_job *j = ctx;
  const mn_view *table = &j->c->in[0], *index = &j->c->in[1], *dy = &j->c->in[3], *dweight = &j->c->out[1];
  const int64_t N = table->dim[0], D = table->dim[1], n = index->dim[index->ndim - 1];
  const int64_t end = (i + 1) * j->per_task < j->rows ? (i + 1) * j->per_task : j->rows;
  for (int64_t r = i * j->per_task; r < end; r++) {
    const int32_t *at = (const int32_t *)index->data + row_offset(index, r);
    const float *from = (const float *)dy->data + row_offset(dy, r);
    float *to = (float *)dweight->data + row_offset(dweight, r);
    for (int64_t k = 0; k < n; k++) {
      float sum[8] = {0}; /* in eight places, so that they are added side by side */
      int64_t d = 0;
      to[k] = 0;
      if (at[k] < 0 || at[k] >= N) continue;
      const float *row = (const float *)table->data + at[k] * table->stride[0];
      for (; d + 8 <= D; d += 8)
        for (int x = 0; x < 8; x++) sum[x] += from[d + x] * row[d + x];
      for (; d < D; d++) sum[0] += from[d] * row[d];
      to[k] = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
    }
  }
}
static bool bag_grad_accepts(const mn_node *n) {
  return n->in[0]->dtype == MN_F32 && n->in[2]->dtype == MN_F32 && n->in[3]->dtype == MN_F32 && mn_dim(n->in[1], -1) > 0 &&
         mn_dim(n->in[0], 0) < INT32_MAX && mn_shape_count(&n->in[1]->shape) < INT32_MAX;
}
static mn_status bag_grad_run(mn_call *c) {
  const int64_t n = c->in[1].dim[c->in[1].ndim - 1], reads = mn_view_count(&c->in[1]), N = c->in[0].dim[0], D = c->in[0].dim[1];
  const int64_t each = n * (D + 1);
  if (mn_call_wants(c, 0)) {
    grad_job j = {.c = c,
                  .rows = reads / n,
                  .n = n,
                  .per_task = D >= TASK ? 1 : TASK / (D + 1) + 1,
                  .named = {c->workspace, (int32_t *)c->workspace + N + 2}};
    sort_reads(&j);
    mn_pool_run(c->pool, (N + j.per_task - 1) / j.per_task, table_task, &j);
  }
  if (mn_call_wants(c, 1)) {
    rows_job j = {.c = c, .rows = reads / n, .per_task = each >= TASK ? 1 : TASK / each};
    mn_pool_run(c->pool, (j.rows + j.per_task - 1) / j.per_task, weight_task, &j);
  }
  return MN_OK;
}

static const mn_kernel cummax = {
    .op = &mn_op_cummax, .name = "cpu.cummax", .layout = MN_LAYOUT_ROWS, .accepts = cummax_accepts, .run = cummax_run};
static const mn_kernel bag = {.op = &mn_op_bag, .name = "cpu.bag", .layout = MN_LAYOUT_ROWS, .accepts = bag_accepts, .run = bag_run};
static const mn_kernel bag_grad = {.op = &mn_op_bag_grad,
                                   .name = "cpu.bag_grad",
                                   .layout = MN_LAYOUT_ROWS,
                                   .optional = 3,
                                   .accepts = bag_grad_accepts,
                                   .workspace = bag_grad_workspace,
                                   .run = bag_grad_run};

const mn_kernel *const *mn_cpu_gather_kernels(mn_isa isa, int *n) {
  (void)isa; /* the reading of rows is the limit */
  static const mn_kernel *const list[] = {&cummax, &bag, &bag_grad};
  *n = 3;
  return list;
}
