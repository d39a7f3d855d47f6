/* move.c - the CPU's kernels that move or make elements without arithmetic: copy, concat, pad, iota, random numbers, top-k,
 * and the list that also names take and put (index.c). */
#include "backend/cpu/copy.h"
#include "backend/cpu/index.h"
#include "backend/stored_copy.h"
#include "base/bf16.h"
#include "graph/ops.h"

#include <math.h>
#include <string.h>

enum { TASK = 16384 };

static size_t size_of(const mn_view *v) { return mn_dtype_size(v->dtype); }
static bool same_type(const mn_node *n) {
  for (int i = 0; i < n->n_in; i++)
    if (n->in[i]->dtype != n->out[0]->dtype) return false;
  return true;
}

/* ---- copy, concat, pad ---- */
static mn_status copy_run(mn_call *c) {
  const mn_view *x = &c->in[0], *y = &c->out[0];
  if (mn_dtype_is_stored(x->dtype)) return mn_copy_stored(x, &c->out[0]);
  mn_cpu_copy(c->pool, mn_cpu_isa(c->backend), size_of(x), x->ndim, x->dim, y->data, y->stride, x->data, x->stride);
  return MN_OK;
}

static mn_status concat_run(mn_call *c) {
  const mn_view *y = &c->out[0];
  int axis = ((const mn_axis_attr *)c->attr)->axis;
  char *to = y->data;
  for (int i = 0; i < c->n_in; i++) {
    const mn_view *x = &c->in[i];
    mn_cpu_copy(c->pool, mn_cpu_isa(c->backend), size_of(x), x->ndim, x->dim, to, y->stride, x->data, x->stride);
    to += x->dim[axis] * y->stride[axis] * (int64_t)size_of(x);
  }
  return MN_OK;
}

static mn_status pad_run(mn_call *c) {
  static const uint64_t zero = 0;
  static const int64_t no_stride[MN_MAX_DIMS] = {0};
  const mn_pad_attr *a = c->attr;
  const mn_view *x = &c->in[0], *y = &c->out[0];
  mn_isa isa = mn_cpu_isa(c->backend);
  int64_t step = y->stride[a->axis] * (int64_t)size_of(x), dim[MN_MAX_DIMS];
  char *to = y->data;
  memcpy(dim, x->dim, sizeof dim);
  dim[a->axis] = a->before;
  mn_cpu_copy(c->pool, isa, size_of(x), x->ndim, dim, to, y->stride, &zero, no_stride);
  to += a->before * step;
  mn_cpu_copy(c->pool, isa, size_of(x), x->ndim, x->dim, to, y->stride, x->data, x->stride);
  to += x->dim[a->axis] * step;
  dim[a->axis] = a->after;
  mn_cpu_copy(c->pool, isa, size_of(x), x->ndim, dim, to, y->stride, &zero, no_stride);
  return MN_OK;
}

/* ---- iota ---- */
typedef struct iota_job {
  const mn_view *y;
  int64_t n, inner, count;
} iota_job;
static void iota_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const iota_job *j = ctx;
  int64_t at = i * TASK, end = at + TASK < j->count ? at + TASK : j->count;
  int64_t k = at % j->inner, v = at / j->inner % j->n;
  for (; at < end; at++) {
    switch (j->y->dtype) {
    case MN_F32:
      ((float *)j->y->data)[at] = (float)v;
      break;
    case MN_F64:
      ((double *)j->y->data)[at] = (double)v;
      break;
    case MN_I32:
      ((int32_t *)j->y->data)[at] = (int32_t)v;
      break;
    case MN_I64:
      ((int64_t *)j->y->data)[at] = v;
      break;
    case MN_BOOL:
      ((uint8_t *)j->y->data)[at] = v != 0;
      break;
    default:
      ((uint16_t *)j->y->data)[at] = mn_float_to_bf16((float)v);
    }
    if (++k == j->inner) {
      k = 0;
      if (++v == j->n) v = 0;
    }
  }
}
static mn_status iota_run(mn_call *c) {
  const mn_view *y = &c->out[0];
  int axis = ((const mn_iota_attr *)c->attr)->axis;
  iota_job j = {.y = y, .n = y->dim[axis], .inner = 1, .count = mn_view_count(y)};
  for (int d = axis + 1; d < y->ndim; d++) j.inner *= y->dim[d];
  mn_pool_run(c->pool, (j.count + TASK - 1) / TASK, iota_task, &j);
  return MN_OK;
}

/* ---- random ---- one Philox counter makes a pair; the arithmetic is that of base/random.c, to the same bits */
typedef struct random_job {
  bool normal;
  uint64_t key, step;
  float *y;
  int64_t count;
} random_job;
static void random_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const random_job *j = ctx;
  int64_t at = i * TASK, end = at + TASK < j->count ? at + TASK : j->count;
  for (; at < end; at += 2) { /* TASK is even */
    uint32_t r[4];
    mn_philox(j->key, j->step, (uint64_t)at >> 1, r);
    double a = mn_uniform_from_bits(r[0], r[1]), b = mn_uniform_from_bits(r[2], r[3]);
    if (j->normal) {
      double radius = sqrt(-2.0 * log(1.0 - a)), angle = 6.283185307179586476925 * b;
      a = radius * cos(angle);
      b = radius * sin(angle);
    }
    j->y[at] = (float)a;
    if (at + 1 < end) j->y[at + 1] = (float)b;
  }
}
static mn_status random_run(mn_call *c) {
  const mn_random_attr *a = c->attr;
  random_job j = {.normal = a->normal,
                  .key = c->n_in > 1 ? mn_random_tick_key(a->key, (uint64_t) * (const int64_t *)c->in[1].data) : a->key,
                  .step = (uint64_t) * (const int64_t *)c->in[0].data,
                  .y = c->out[0].data,
                  .count = mn_view_count(&c->out[0])};
  mn_pool_run(c->pool, (j.count + TASK - 1) / TASK, random_task, &j);
  return MN_OK;
}
static bool accepts_random(const mn_node *n) { return n->out[0]->dtype == MN_F32 && n->in[0]->dtype == MN_I64; }

/* ---- top-k ---- a heap of the k best so far, the worst of them on top. Values are mapped to unsigned keys of the same
 * order (NaN above all), so one comparison serves all types. */
typedef struct entry {
  uint64_t key;
  int64_t index;
} entry;
enum { TOPK_TASKS = 32 };

static uint64_t key_of(const char *p, mn_dtype t) {
  const uint64_t sign = (uint64_t)1 << 63;
  double v;
  switch (t) {
  case MN_F32: {
    float f;
    memcpy(&f, p, 4);
    v = f;
    break;
  }
  case MN_BF16: {
    uint16_t h;
    memcpy(&h, p, 2);
    v = mn_bf16_to_float(h);
    break;
  }
  case MN_F64:
    memcpy(&v, p, 8);
    break;
  case MN_I32: {
    int32_t i;
    memcpy(&i, p, 4);
    return (uint64_t)(int64_t)i ^ sign;
  }
  case MN_I64: {
    int64_t i;
    memcpy(&i, p, 8);
    return (uint64_t)i ^ sign;
  }
  default:
    return (uint8_t)*p != 0;
  }
  if (v != v) return UINT64_MAX;
  if (v == 0) v = 0; /* -0 equals 0 */
  uint64_t u;
  memcpy(&u, &v, 8);
  return u & sign ? ~u : u | sign;
}
static bool worse(const entry *a, const entry *b) { return a->key != b->key ? a->key < b->key : a->index > b->index; }
static void sift_down(entry *h, int64_t n, int64_t i) {
  entry e = h[i];
  for (int64_t child; (child = 2 * i + 1) < n; i = child) {
    if (child + 1 < n && worse(&h[child + 1], &h[child])) child++;
    if (!worse(&h[child], &e)) break;
    h[i] = h[child];
  }
  h[i] = e;
}
static void topk_row(const char *x, int64_t step, mn_dtype t, int64_t n, int64_t k, entry *h, int32_t *out) {
  for (int64_t i = 0; i < k; i++) h[i] = (entry){key_of(x + i * step, t), i};
  for (int64_t i = k / 2 - 1; i >= 0; i--) sift_down(h, k, i);
  for (int64_t i = k; i < n; i++) {
    entry e = {key_of(x + i * step, t), i};
    if (e.key <= h[0].key) continue; /* a later equal is worse */
    h[0] = e;
    sift_down(h, k, 0);
  }
  for (int64_t m = k - 1; m >= 0; m--) { /* the worst goes to the back */
    out[m] = (int32_t)h[0].index;
    h[0] = h[m];
    sift_down(h, m, 0);
  }
}
typedef struct topk_job {
  const mn_call *c;
  int64_t rows, per_task, n, k;
} topk_job;
static void topk_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const topk_job *j = ctx;
  const mn_view *x = &j->c->in[0];
  int64_t size = (int64_t)size_of(x), end = (i + 1) * j->per_task < j->rows ? (i + 1) * j->per_task : j->rows;
  entry *heap = (entry *)j->c->workspace + i * j->k;
  for (int64_t r = i * j->per_task; r < end; r++) {
    int64_t offset = 0, rest = r;
    for (int d = x->ndim - 2; d >= 0; d--) offset += rest % x->dim[d] * x->stride[d], rest /= x->dim[d];
    topk_row((const char *)x->data + offset * size, x->stride[x->ndim - 1] * size, x->dtype, j->n, j->k, heap,
             (int32_t *)j->c->out[0].data + r * j->k);
  }
}
static topk_job topk_plan(const mn_call *c) {
  topk_job j = {.c = c, .k = c->out[0].dim[c->out[0].ndim - 1], .n = c->in[0].dim[c->in[0].ndim - 1]};
  j.rows = j.k ? mn_view_count(&c->out[0]) / j.k : 0;
  j.per_task = j.n >= TASK ? 1 : TASK / (j.n ? j.n : 1);
  if (j.rows > j.per_task * TOPK_TASKS) j.per_task = (j.rows + TOPK_TASKS - 1) / TOPK_TASKS;
  return j;
}
static size_t topk_workspace(const mn_call *c) {
  topk_job j = topk_plan(c);
  return (size_t)((j.rows + j.per_task - 1) / j.per_task * j.k) * sizeof(entry);
}
static mn_status topk_run(mn_call *c) {
  topk_job j = topk_plan(c);
  mn_pool_run(c->pool, (j.rows + j.per_task - 1) / j.per_task, topk_task, &j);
  return MN_OK;
}

static const mn_kernel copy = {.op = &mn_op_copy, .name = "cpu copy", .layout = MN_LAYOUT_ANY, .accepts = same_type, .run = copy_run};
static const mn_kernel concat = {
    .op = &mn_op_concat, .name = "cpu concat", .layout = MN_LAYOUT_ANY, .accepts = same_type, .run = concat_run};
static const mn_kernel pad = {.op = &mn_op_pad, .name = "cpu pad", .layout = MN_LAYOUT_ANY, .accepts = same_type, .run = pad_run};
static const mn_kernel iota = {.op = &mn_op_iota, .name = "cpu iota", .layout = MN_LAYOUT_ANY, .run = iota_run};
static const mn_kernel random_kernel = {
    .op = &mn_op_random, .name = "cpu random", .layout = MN_LAYOUT_ANY, .accepts = accepts_random, .run = random_run};
static const mn_kernel topk = {
    .op = &mn_op_topk, .name = "cpu topk", .layout = MN_LAYOUT_ANY, .workspace = topk_workspace, .run = topk_run};

const mn_kernel *const *mn_cpu_move_kernels(mn_isa isa, int *n) {
  (void)isa; /* the call's backend says it */
  static const mn_kernel *const list[] = {&copy, &concat, &pad, &iota, &random_kernel, &topk, &mn_cpu_take, &mn_cpu_put};
  *n = (int)(sizeof list / sizeof *list);
  return list;
}
