/* index.c - take and put: rows picked and rows written by an index.
 *
 * put with `add` must give the same bits for any number of threads, and not lose small updates of bf16. So the updates of
 * each row are first chained in order of their place in the index; then each row is taken up once, by one thread, summed
 * in f32 (f64, i64) and written back. */
#include "backend/cpu/index.h"
#include "backend/cpu/copy.h"
#include "backend/cpu/isa/elementwise.h"
#include "backend/cpu/isa/reduce.h"
#include "graph/ops.h"

#include <string.h>

enum { TASK = 16384, CHUNK = 1024 };

/* A view as [batch, index, row]: the first `batch_dims` axes, the axes that the index replaces, and the rest, which is a
 * row: dense when stride is 1. */
typedef struct rows {
  const mn_view *v;
  int batch_dims, first; /* the row's axes are first .. ndim-1 */
  int64_t n, stride;     /* elements of a row; their common stride, or -1 when there is none */
} rows;

static rows rows_of(const mn_view *v, int batch_dims, int index_dims) {
  rows r = {.v = v, .batch_dims = batch_dims, .first = batch_dims + index_dims, .n = 1, .stride = 1};
  bool any = false;
  for (int d = v->ndim - 1; d >= r.first; d--) {
    if (v->dim[d] != 1) {
      if (!any) r.stride = v->stride[d];
      else if (v->stride[d] != r.stride * r.n) r.stride = -1;
      any = true;
    }
    r.n *= v->dim[d];
  }
  return r;
}
/* Offset of flat index i over axes [from, to). */
static int64_t offset_of(const mn_view *v, int from, int to, int64_t i) {
  int64_t o = 0;
  for (int d = to - 1; d >= from; d--) {
    o += i % v->dim[d] * v->stride[d];
    i /= v->dim[d];
  }
  return o;
}
/* n elements, `stride` apart, dense. */
static void gather(char *restrict y, const char *restrict x, int64_t stride, int64_t n, size_t size) {
  const int64_t step = stride * (int64_t)size;
  if (stride == 1) memcpy(y, x, (size_t)n * size);
  else if (size == 4)
    for (int64_t i = 0; i < n; i++) memcpy(y + 4 * i, x + i * step, 4);
  else if (size == 2)
    for (int64_t i = 0; i < n; i++) memcpy(y + 2 * i, x + i * step, 2);
  else
    for (int64_t i = 0; i < n; i++) memcpy(y + i * (int64_t)size, x + i * step, size);
}

/* Copies elements [from, from + n) of the row at x to y, dense: runs along the last axis, where the row has no stride of its own. */
static void row_to(char *y, const rows *r, const char *x, int64_t from, int64_t n, size_t size) {
  const mn_view *v = r->v;
  const int last = v->ndim - 1;
  if (r->stride >= 0) {
    gather(y, x + from * r->stride * (int64_t)size, r->stride, n, size);
    return;
  }
  for (int64_t i = 0; i < n;) {
    const int64_t at = (from + i) % v->dim[last], run = v->dim[last] - at < n - i ? v->dim[last] - at : n - i;
    gather(y + i * (int64_t)size, x + offset_of(v, r->first, v->ndim, from + i) * (int64_t)size, v->stride[last], run, size);
    i += run;
  }
}

/* ---- take: x [b.., S, r..], idx [b.., t..] -> y [b.., t.., r..] ---- */
typedef struct take_job {
  const mn_call *c;
  rows x;
  int64_t per_batch, count, limit, per_task;
  size_t size;
} take_job;

static void take_task(void *ctx, int64_t task, int thread) {
  (void)thread;
  const take_job *j = ctx;
  const mn_view *x = j->x.v, *idx = &j->c->in[1];
  int b = j->x.batch_dims;
  size_t bytes = (size_t)j->x.n * j->size;
  int64_t end = (task + 1) * j->per_task < j->count ? (task + 1) * j->per_task : j->count;
  for (int64_t i = task * j->per_task; i < end; i++) {
    int32_t s = ((const int32_t *)idx->data)[offset_of(idx, 0, idx->ndim, i)];
    char *y = (char *)j->c->out[0].data + (size_t)i * bytes;
    if (s < 0 || s >= j->limit) {
      memset(y, 0, bytes);
      continue;
    }
    int64_t o = s * x->stride[b] + (b ? offset_of(x, 0, b, i / j->per_batch) : 0);
    row_to(y, &j->x, (const char *)x->data + o * (int64_t)j->size, 0, j->x.n, j->size);
  }
}
/* Rows that lie apart and are taken more than once each are laid side by side first. */
static bool lays_out(const mn_call *c) {
  const int b = ((const mn_take_attr *)c->attr)->batch_dims;
  int64_t all = 1;
  for (int d = 0; d <= b; d++) all *= c->in[0].dim[d];
  return rows_of(&c->in[0], b, 1).stride != 1 && mn_view_count(&c->in[1]) > all;
}

static size_t take_workspace(const mn_call *c) {
  return lays_out(c) ? (size_t)mn_view_count(&c->in[0]) * mn_dtype_size(c->in[0].dtype) : 0;
}

static mn_view laid_out(const mn_call *c) {
  const mn_view *x = &c->in[0];
  mn_view dense = *x;
  int64_t stride = 1;
  for (int d = x->ndim - 1; d >= 0; d--) {
    dense.stride[d] = stride;
    stride *= x->dim[d];
  }
  dense.data = c->workspace;
  mn_cpu_copy(c->pool, mn_cpu_isa(c->backend), mn_dtype_size(x->dtype), x->ndim, x->dim, dense.data, dense.stride, x->data, x->stride);
  return dense;
}

static mn_status take_run(mn_call *c) {
  int b = ((const mn_take_attr *)c->attr)->batch_dims;
  const bool lay = lays_out(c);
  const mn_view dense = lay ? laid_out(c) : c->in[0], *x = &dense, *idx = &c->in[1];
  take_job j = {
      .c = c, .x = rows_of(x, b, 1), .per_batch = 1, .count = mn_view_count(idx), .limit = x->dim[b], .size = mn_dtype_size(x->dtype)};
  for (int d = b; d < idx->ndim; d++) j.per_batch *= idx->dim[d];
  if (j.count == 0 || j.x.n == 0) return MN_OK;
  j.per_task = j.x.n >= TASK ? 1 : TASK / j.x.n;
  mn_pool_run(c->pool, (j.count + j.per_task - 1) / j.per_task, take_task, &j);
  return MN_OK;
}

/* ---- put: base [b.., S, r..], idx [b.., t], upd [b.., t, r..] -> y ---- */
typedef struct put_job {
  const mn_call *c;
  rows upd;
  int64_t batches, limit, t, n, per_task, units;
  size_t size;
  int32_t *touched; /* add: the distinct rows of all batches, as batch*S + row; there are `units` of them */
  int32_t *head;    /* [batches*S] first update of a row, -1 none; [batches*t] next: the update after it    */
  int32_t *next;
  const mn_reduce_vec *reduce;
  const mn_ew_vec *ew;
} put_job;

static int64_t index_at(const put_job *j, int64_t batch, int64_t t) {
  const mn_view *idx = &j->c->in[1];
  int b = j->upd.batch_dims;
  int64_t s = ((const int32_t *)idx->data)[(b ? offset_of(idx, 0, b, batch) : 0) + t * idx->stride[b]];
  return s < 0 || s >= j->limit ? -1 : s;
}
static const char *update_at(const put_job *j, int64_t batch, int64_t t) {
  const mn_view *u = j->upd.v;
  int b = j->upd.batch_dims;
  return (const char *)u->data + ((b ? offset_of(u, 0, b, batch) : 0) + t * u->stride[b]) * (int64_t)j->size;
}

static void set_task(void *ctx, int64_t task, int thread) {
  (void)thread;
  const put_job *j = ctx;
  int64_t end = (task + 1) * j->per_task < j->units ? (task + 1) * j->per_task : j->units;
  for (int64_t i = task * j->per_task; i < end; i++) {
    int64_t batch = i / j->t, t = i % j->t, s = index_at(j, batch, t);
    if (s < 0) continue;
    char *y = (char *)j->c->out[0].data + (size_t)((batch * j->limit + s) * j->n) * j->size;
    row_to(y, &j->upd, update_at(j, batch, t), 0, j->n, j->size);
  }
}

static void add_task(void *ctx, int64_t task, int thread) {
  (void)thread;
  const put_job *j = ctx;
  mn_dtype type = j->upd.v->dtype, acc_type = type == MN_BF16 ? MN_F32 : type == MN_I32 ? MN_I64 : type;
  _Alignas(64) char acc[CHUNK * 8], gathered[CHUNK * 8];
  int64_t end = (task + 1) * j->per_task < j->units ? (task + 1) * j->per_task : j->units;
  for (int64_t i = task * j->per_task; i < end; i++) {
    int64_t row = j->touched[i], batch = row / j->limit;
    char *y = (char *)j->c->out[0].data + (size_t)(row * j->n) * j->size;
    for (int64_t from = 0; from < j->n; from += CHUNK, y += CHUNK * j->size) {
      int64_t n = j->n - from < CHUNK ? j->n - from : CHUNK;
      char *sum = type == acc_type ? y : acc; /* what needs no wider type is summed where it lies */
      if (sum == acc) j->ew->cast[type][acc_type](acc, y, y, y, n, 0);
      for (int32_t t = j->head[row]; t >= 0; t = j->next[batch * j->t + t]) {
        const char *x = update_at(j, batch, t) + from * (int64_t)j->size;
        if (j->upd.stride != 1) {
          row_to(gathered, &j->upd, update_at(j, batch, t), from, n, j->size);
          x = gathered;
        }
        j->reduce->columns[MN_FOLD_SUM][type](sum, x, 1, 0, n, 1);
      }
      if (sum == acc) j->ew->cast[acc_type][type](y, acc, acc, acc, n, 0);
    }
  }
}

static size_t put_workspace(const mn_call *c) {
  const mn_take_attr *a = c->attr;
  if (!a->add) return 0;
  int64_t batches = 1, s = c->in[0].dim[a->batch_dims], t = c->in[1].dim[a->batch_dims];
  for (int d = 0; d < a->batch_dims; d++) batches *= c->in[0].dim[d];
  return (size_t)(batches * (s + 2 * t)) * sizeof(int32_t);
}
static mn_status put_run(mn_call *c) {
  const mn_take_attr *a = c->attr;
  const mn_view *base = &c->in[0], *y = &c->out[0];
  mn_isa isa = mn_cpu_isa(c->backend);
  put_job j = {.c = c,
               .upd = rows_of(&c->in[2], a->batch_dims, 1),
               .batches = 1,
               .limit = base->dim[a->batch_dims],
               .t = c->in[1].dim[a->batch_dims],
               .size = mn_dtype_size(base->dtype),
               .reduce = MN_ISA_PICK(mn_reduce_table, isa),
               .ew = MN_ISA_PICK(mn_ew_table, isa)};
  if (y->data != base->data) mn_cpu_copy(c->pool, isa, j.size, base->ndim, base->dim, y->data, y->stride, base->data, base->stride);
  for (int d = 0; d < a->batch_dims; d++) j.batches *= base->dim[d];
  j.n = j.upd.n;
  if (j.batches * j.t * j.n * j.limit == 0) return MN_OK;
  j.per_task = j.n >= TASK ? 1 : TASK / j.n;
  if (!a->add) {
    j.units = j.batches * j.t;
    mn_pool_run(c->pool, (j.units + j.per_task - 1) / j.per_task, set_task, &j);
    return MN_OK;
  }
  j.head = c->workspace;
  j.next = j.head + j.batches * j.limit;
  j.touched = j.next + j.batches * j.t;
  memset(j.head, 0xff, (size_t)(j.batches * j.limit) * sizeof(int32_t));
  for (int64_t batch = 0; batch < j.batches; batch++)
    for (int64_t t = j.t - 1; t >= 0; t--) { /* backwards, so that chains run forwards */
      int64_t s = index_at(&j, batch, t);
      if (s < 0) continue;
      int64_t row = batch * j.limit + s;
      if (j.head[row] < 0) j.touched[j.units++] = (int32_t)row;
      j.next[batch * j.t + t] = j.head[row];
      j.head[row] = (int32_t)t;
    }
  mn_pool_run(c->pool, (j.units + j.per_task - 1) / j.per_task, add_task, &j);
  return MN_OK;
}

static bool accepts_take(const mn_node *n) { return n->in[1]->dtype == MN_I32 && n->in[0]->dtype == n->out[0]->dtype; }
static bool accepts_put(const mn_node *n) {
  const mn_take_attr *a = n->attr;
  const mn_shape *s = &n->in[0]->shape;
  int64_t count = 1; /* rows are numbered in 32 bits */
  for (int d = 0; d <= a->batch_dims; d++) count *= s->dim[d];
  return accepts_take(n) && n->in[2]->dtype == n->out[0]->dtype && count <= INT32_MAX && (!a->add || n->out[0]->dtype != MN_BOOL);
}
const mn_kernel mn_cpu_take = {
    .op = &mn_op_take, .name = "cpu take", .layout = MN_LAYOUT_ANY, .accepts = accepts_take, .workspace = take_workspace, .run = take_run};
const mn_kernel mn_cpu_put = {
    .op = &mn_op_put, .name = "cpu put", .layout = MN_LAYOUT_ANY, .accepts = accepts_put, .workspace = put_workspace, .run = put_run};
