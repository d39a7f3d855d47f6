/* reduce.c - sums, maxima, sums of squares, argmax and running sums on the CPU.
 *
 * A reduction is cut into units by its shape alone: units of one output hold a fixed share of its elements, are folded
 * each on its own, and their partial results are folded in order. So any number of threads gives the same bits, and long
 * f32 sums stay accurate. */
#include "backend/cpu/cpu.h"
#include "backend/cpu/isa/reduce.h"
#include "base/bf16.h"
#include "graph/ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SEGMENT = 8192, PART = 32768, TASK = 16384, COLUMNS = 1024, MIN_ROWS = 128 }; /* elements, but the last: rows */

typedef struct axes {
  int n;
  int64_t dim[MN_MAX_DIMS], stride[MN_MAX_DIMS];
  int64_t count;
} axes;

typedef struct plan {
  mn_reduce_fold fold;
  mn_dtype type, acc_type, out_type;
  size_t size, acc_size;
  bool rows;                   /* along a row for each output; else down columns of neighbouring outputs */
  axes kept, reduced;          /* outer axes only: without `inner`                                        */
  int64_t inner, inner_stride; /* rows: elements of a row. columns: neighbouring outputs          */
  int64_t outputs;
  int64_t segments;                /* rows: pieces of one row */
  int64_t per_part, parts, blocks; /* pieces (rows) or rows (columns) of a unit; units of an output; column blocks */
  int64_t units, per_task;
} plan;

static void add_axis(axes *a, int64_t dim, int64_t stride) { /* merges with the axis outside it where they are one */
  a->count *= dim;
  if (dim == 1) return;
  if (a->n && a->stride[a->n - 1] == stride * dim) {
    a->dim[a->n - 1] *= dim;
    a->stride[a->n - 1] = stride;
    return;
  }
  a->dim[a->n] = dim;
  a->stride[a->n++] = stride;
}
static int64_t offset_of(const axes *a, int64_t i) {
  int64_t o = 0;
  for (int d = a->n - 1; d >= 0; d--) {
    o += i % a->dim[d] * a->stride[d];
    i /= a->dim[d];
  }
  return o;
}
static void take_last(axes *a, int64_t *dim, int64_t *stride) {
  *dim = 1, *stride = 1;
  if (!a->n) return;
  a->n--;
  *dim = a->dim[a->n];
  *stride = a->stride[a->n];
  a->count /= *dim ? *dim : 1;
}

static plan make_plan(const mn_call *c, mn_reduce_fold fold, unsigned mask) {
  const mn_view *x = &c->in[0];
  plan p = {.fold = fold, .type = x->dtype, .out_type = c->out[0].dtype, .kept.count = 1, .reduced.count = 1};
  p.acc_type = x->dtype == MN_BF16 ? MN_F32 : x->dtype == MN_I32 ? MN_I64 : x->dtype;
  p.size = mn_dtype_size(p.type);
  p.acc_size = mn_dtype_size(p.acc_type);
  for (int d = 0; d < x->ndim; d++) add_axis(mask >> d & 1 ? &p.reduced : &p.kept, x->dim[d], x->stride[d]);
  p.outputs = p.kept.count;
  int64_t elements = p.kept.count * p.reduced.count;
  if (elements == 0) return p;
  /* the reduced axis that is nearest in memory goes last; within sums the order of axes is ours to choose */
  for (int d = 0; d < p.reduced.n - 1; d++) {
    int l = p.reduced.n - 1;
    if (llabs(p.reduced.stride[d]) >= llabs(p.reduced.stride[l])) continue;
    int64_t dim = p.reduced.dim[d], stride = p.reduced.stride[d];
    p.reduced.dim[d] = p.reduced.dim[l], p.reduced.stride[d] = p.reduced.stride[l];
    p.reduced.dim[l] = dim, p.reduced.stride[l] = stride;
  }
  int k = p.kept.n - 1, r = p.reduced.n - 1;
  p.rows = k < 0 || (r >= 0 && llabs(p.reduced.stride[r]) < llabs(p.kept.stride[k])) || p.kept.stride[k] == 0;
  int64_t unit;
  if (p.rows) {
    take_last(&p.reduced, &p.inner, &p.inner_stride);
    p.segments = (p.inner + SEGMENT - 1) / SEGMENT;
    int64_t pieces = p.reduced.count * p.segments, length = p.inner < SEGMENT ? p.inner : SEGMENT;
    p.per_part = PART / length;
    p.parts = (pieces + p.per_part - 1) / p.per_part;
    p.blocks = 1;
    p.units = p.outputs * p.parts;
    unit = (p.parts > 1 ? p.per_part : pieces) * length;
  } else {
    take_last(&p.kept, &p.inner, &p.inner_stride);
    int64_t width = p.inner < COLUMNS ? p.inner : COLUMNS;
    p.blocks = (p.inner + COLUMNS - 1) / COLUMNS;
    p.per_part = PART / width < MIN_ROWS ? MIN_ROWS : PART / width;
    p.parts = (p.reduced.count + p.per_part - 1) / p.per_part;
    p.units = p.kept.count * p.blocks * p.parts;
    unit = (p.parts > 1 ? p.per_part : p.reduced.count) * width;
  }
  p.per_task = unit >= TASK ? 1 : TASK / unit;
  return p;
}

static void start(const plan *p, void *acc, int64_t n) {
  if (p->fold != MN_FOLD_MAX) memset(acc, 0, (size_t)n * p->acc_size);
  else if (p->acc_type == MN_F32)
    for (int64_t i = 0; i < n; i++) ((float *)acc)[i] = -INFINITY;
  else if (p->acc_type == MN_F64)
    for (int64_t i = 0; i < n; i++) ((double *)acc)[i] = -INFINITY;
  else
    for (int64_t i = 0; i < n; i++) ((int64_t *)acc)[i] = INT64_MIN;
}

static void finish(const plan *p, void *out, int64_t at, const void *acc, int64_t n) {
  if (p->out_type == p->acc_type) {
    memcpy((char *)out + (size_t)at * p->acc_size, acc, (size_t)n * p->acc_size);
    return;
  }
  for (int64_t i = 0; i < n; i++) {
    if (p->out_type == MN_BF16) {
      ((uint16_t *)out)[at + i] = mn_float_to_bf16(((const float *)acc)[i]);
    } else if (p->acc_type == MN_I64) {
      ((int32_t *)out)[at + i] = (int32_t)((const int64_t *)acc)[i];
    } else {
      ((float *)out)[at + i] = (float)((const double *)acc)[i];
    }
  }
}

typedef struct job {
  const plan *p;
  const mn_reduce_vec *vec;
  const char *x;
  void *out;
  char *partial; /* [parts][outputs] */
} job;

static void fold_unit(const job *j, int64_t unit) {
  const plan *p = j->p;
  _Alignas(64) char acc[COLUMNS * 8], few[COLUMNS * 8];
  int64_t part = unit % p->parts, rest = unit / p->parts, first = part * p->per_part, at, n;
  if (p->rows) {
    at = rest, n = 1;
    start(p, acc, 1);
    const char *x = j->x + offset_of(&p->kept, at) * (int64_t)p->size;
    int64_t pieces = p->reduced.count * p->segments, end = first + p->per_part < pieces ? first + p->per_part : pieces;
    for (int64_t i = first; i < end; i++) {
      int64_t from = i % p->segments * SEGMENT, len = p->inner - from < SEGMENT ? p->inner - from : SEGMENT;
      int64_t o = p->reduced.n ? offset_of(&p->reduced, i / p->segments) : 0;
      j->vec->row[p->fold][p->type](acc, x + (o + from * p->inner_stride) * (int64_t)p->size, len, p->inner_stride);
    }
  } else {
    int64_t block = rest % p->blocks, outer = rest / p->blocks, column = block * COLUMNS;
    at = outer * p->inner + column;
    n = p->inner - column < COLUMNS ? p->inner - column : COLUMNS;
    start(p, acc, n);
    const char *x = j->x + (offset_of(&p->kept, outer) + column * p->inner_stride) * (int64_t)p->size;
    int64_t end = first + p->per_part < p->reduced.count ? first + p->per_part : p->reduced.count;
    int last = p->reduced.n - 1;
    int64_t run = last >= 0 ? p->reduced.dim[last] : 1, stride = last >= 0 ? p->reduced.stride[last] : 0;
    bool direct = end - first <= MIN_ROWS || p->fold == MN_FOLD_MAX; /* longer sums go by few rows at a time */
    for (int64_t i = first; i < end;) {
      int64_t rows = run - i % run < end - i ? run - i % run : end - i;
      if (!direct) {
        rows = rows < MIN_ROWS ? rows : MIN_ROWS;
        start(p, few, n);
      }
      j->vec->columns[p->fold][p->type](direct ? acc : few, x + offset_of(&p->reduced, i) * (int64_t)p->size, rows, stride, n,
                                        p->inner_stride);
      if (!direct) j->vec->columns[MN_FOLD_SUM][p->acc_type](acc, few, 1, 0, n, 1);
      i += rows;
    }
  }
  if (p->parts == 1) finish(p, j->out, at, acc, n);
  else memcpy(j->partial + (size_t)(part * p->outputs + at) * p->acc_size, acc, (size_t)n * p->acc_size);
}
/* Outputs that are a row each, rows at one distance: the same calls, without working out where each row lies. */
static bool plain_rows(const plan *p) {
  return p->rows && p->parts == 1 && p->segments == 1 && p->reduced.count == 1 && p->kept.n <= 1 && p->out_type == p->acc_type;
}
static void fold_rows(const job *j, int64_t first, int64_t end) {
  const plan *p = j->p;
  const int64_t step = (p->kept.n ? p->kept.stride[0] : 0) * (int64_t)p->size;
  const char *x = j->x + first * step;
  char *out = (char *)j->out + (size_t)first * p->acc_size;
  start(p, out, end - first);
  for (int64_t u = first; u < end; u++, x += step, out += p->acc_size) j->vec->row[p->fold][p->type](out, x, p->inner, p->inner_stride);
}
static void fold_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const job *j = ctx;
  int64_t end = (i + 1) * j->p->per_task < j->p->units ? (i + 1) * j->p->per_task : j->p->units;
  if (plain_rows(j->p)) fold_rows(j, i * j->p->per_task, end);
  else
    for (int64_t u = i * j->p->per_task; u < end; u++) fold_unit(j, u);
}
static void join_task(void *ctx, int64_t i, int thread) { /* partial results of one block of outputs, in order */
  (void)thread;
  const job *j = ctx;
  const plan *p = j->p;
  _Alignas(64) char acc[COLUMNS * 8];
  int64_t at = i * COLUMNS, n = p->outputs - at < COLUMNS ? p->outputs - at : COLUMNS;
  mn_reduce_fold fold = p->fold == MN_FOLD_MAX ? MN_FOLD_MAX : MN_FOLD_SUM;
  start(p, acc, n);
  const char *x = j->partial + (size_t)at * p->acc_size;
  /* one output: its partial results are a row, summed as rows are */
  if (p->outputs == 1) j->vec->row[fold][p->acc_type](acc, x, p->parts, 1);
  else j->vec->columns[fold][p->acc_type](acc, x, p->parts, p->outputs, n, 1);
  finish(p, j->out, at, acc, n);
}

static mn_reduce_fold fold_of(const mn_call *c) {
  return c->node->op == &mn_op_sumsq ? MN_FOLD_SUMSQ : c->node->op->code == MN_REDUCE_MAX ? MN_FOLD_MAX : MN_FOLD_SUM;
}
static plan plan_of(const mn_call *c) {
  mn_reduce_fold fold = fold_of(c);
  return make_plan(c, fold, fold == MN_FOLD_SUMSQ ? ~0u : ((const mn_reduce_attr *)c->attr)->axes);
}
static size_t reduce_workspace(const mn_call *c) {
  plan p = plan_of(c);
  return p.parts > 1 ? (size_t)(p.parts * p.outputs) * p.acc_size : 0;
}
static mn_status reduce_prepare(mn_call *c) {
  plan *p = mn_alloc(sizeof *p);
  if (!p) return MN_ERR_MEMORY;
  *p = plan_of(c);
  c->state = p;
  return MN_OK;
}
static void reduce_release(mn_call *c) {
  free(c->state);
  c->state = NULL;
}
static mn_status reduce_run(mn_call *c) {
  const plan *p = c->state;
  job j = {.p = p,
           .vec = MN_ISA_PICK(mn_reduce_table, mn_cpu_isa(c->backend)),
           .x = c->in[0].data,
           .out = c->out[0].data,
           .partial = c->workspace};
  if (!p->units) { /* nothing to fold: outputs without elements */
    _Alignas(8) char acc[8];
    start(p, acc, 1);
    for (int64_t i = 0; i < p->outputs; i++) finish(p, j.out, i, acc, 1);
    return MN_OK;
  }
  mn_pool_run(c->pool, (p->units + p->per_task - 1) / p->per_task, fold_task, &j);
  if (p->parts > 1) {
    int64_t blocks = (p->outputs + COLUMNS - 1) / COLUMNS;
    mn_pool_run(p->parts * p->outputs < PART ? NULL : c->pool, blocks, join_task, &j);
  }
  return MN_OK;
}
static bool accepts_numbers(const mn_node *n) { return n->in[0]->dtype != MN_BOOL && n->out[0]->dtype == n->in[0]->dtype; }
static bool accepts_floats(const mn_node *n) {
  mn_dtype t = n->in[0]->dtype, out = n->out[0]->dtype;
  return t == MN_F64 ? out == MN_F64 || out == MN_F32 : mn_dtype_is_float(t) && out == MN_F32;
}

/* ---- argmax: the last axis ---- */
typedef struct rows_job {
  const mn_call *c;
  const mn_reduce_vec *vec;
  axes outer;
  int64_t n, stride, per_task;
} rows_job;

static void argmax_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const rows_job *j = ctx;
  const mn_view *x = &j->c->in[0];
  int64_t end = (i + 1) * j->per_task < j->outer.count ? (i + 1) * j->per_task : j->outer.count;
  for (int64_t r = i * j->per_task; r < end; r++) {
    const char *row = (const char *)x->data + offset_of(&j->outer, r) * (int64_t)mn_dtype_size(x->dtype);
    ((int32_t *)j->c->out[0].data)[r] = (int32_t)j->vec->argmax[x->dtype](row, j->n, j->stride);
  }
}
static mn_status argmax_run(mn_call *c) {
  const mn_view *x = &c->in[0];
  int last = x->ndim - 1;
  rows_job j = {
      .c = c, .vec = MN_ISA_PICK(mn_reduce_table, mn_cpu_isa(c->backend)), .outer.count = 1, .n = x->dim[last], .stride = x->stride[last]};
  for (int d = 0; d < last; d++) add_axis(&j.outer, x->dim[d], x->stride[d]);
  if (j.outer.count == 0) return MN_OK;
  j.per_task = j.n >= TASK ? 1 : TASK / (j.n ? j.n : 1);
  mn_pool_run(c->pool, (j.outer.count + j.per_task - 1) / j.per_task, argmax_task, &j);
  return MN_OK;
}
static bool accepts_argmax(const mn_node *n) { return n->in[0]->dtype != MN_BOOL; }

/* ---- running sums: dense x [outer, n, inner]; blocks of neighbouring columns run side by side ---- */
typedef struct cumsum_job {
  const mn_call *c;
  const mn_reduce_vec *vec;
  int64_t outer, n, inner, blocks, per_task;
  bool reverse;
} cumsum_job;

static void cumsum_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const cumsum_job *j = ctx;
  mn_dtype t = j->c->in[0].dtype;
  int64_t size = (int64_t)mn_dtype_size(t), units = j->outer * j->blocks;
  int64_t end = (i + 1) * j->per_task < units ? (i + 1) * j->per_task : units;
  for (int64_t u = i * j->per_task; u < end; u++) {
    int64_t column = u % j->blocks * MN_CUMSUM_WIDTH, at = (u / j->blocks * j->n * j->inner + column) * size;
    int64_t width = j->inner - column < MN_CUMSUM_WIDTH ? j->inner - column : MN_CUMSUM_WIDTH;
    j->vec->cumsum[t]((char *)j->c->out[0].data + at, (const char *)j->c->in[0].data + at, j->n, j->inner, width, j->reverse);
  }
}
static mn_status cumsum_run(mn_call *c) {
  const mn_cumsum_attr *a = c->attr;
  const mn_view *x = &c->in[0];
  cumsum_job j = {.c = c,
                  .vec = MN_ISA_PICK(mn_reduce_table, mn_cpu_isa(c->backend)),
                  .outer = 1,
                  .inner = 1,
                  .n = x->dim[a->axis],
                  .reverse = a->reverse};
  for (int d = 0; d < a->axis; d++) j.outer *= x->dim[d];
  for (int d = a->axis + 1; d < x->ndim; d++) j.inner *= x->dim[d];
  if (j.outer * j.n * j.inner == 0) return MN_OK;
  j.blocks = (j.inner + MN_CUMSUM_WIDTH - 1) / MN_CUMSUM_WIDTH;
  int64_t unit = j.n * (j.inner < MN_CUMSUM_WIDTH ? j.inner : MN_CUMSUM_WIDTH);
  j.per_task = unit >= TASK ? 1 : TASK / unit;
  mn_pool_run(c->pool, (j.outer * j.blocks + j.per_task - 1) / j.per_task, cumsum_task, &j);
  return MN_OK;
}

#define REDUCE(o, label, ok)                                                                                                               \
  {                                                                                                                                        \
    .op = &(o), .name = label, .layout = MN_LAYOUT_ANY, .alike = true, .accepts = ok, .workspace = reduce_workspace,                       \
    .prepare = reduce_prepare, .release = reduce_release, .run = reduce_run                                                                \
  }
static const mn_kernel sum = REDUCE(mn_op_sum, "cpu sum", accepts_numbers);
static const mn_kernel max = REDUCE(mn_op_max, "cpu max", accepts_numbers);
static const mn_kernel sumsq = REDUCE(mn_op_sumsq, "cpu sumsq", accepts_floats);
static const mn_kernel argmax = {
    .op = &mn_op_argmax, .name = "cpu argmax", .layout = MN_LAYOUT_ANY, .accepts = accepts_argmax, .run = argmax_run};
static const mn_kernel cumsum = {
    .op = &mn_op_cumsum, .name = "cpu cumsum", .layout = MN_LAYOUT_DENSE, .accepts = accepts_argmax, .run = cumsum_run};

const mn_kernel *const *mn_cpu_reduce_kernels(mn_isa isa, int *n) {
  (void)isa; /* the call's backend says it */
  static const mn_kernel *const list[] = {&sum, &max, &sumsq, &argmax, &cumsum};
  *n = (int)(sizeof list / sizeof *list);
  return list;
}
