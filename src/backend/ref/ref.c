/* ref.c - the reference backend: every core operation in plain C, any layout, one thread. Elements are read as doubles,
 * computed as doubles and rounded to the tensor's type, so for f64 it is the oracle of all tests and for f32 at least as
 * accurate as any other backend. Nothing here is fast, everything is obvious. */
#include "backend/backend.h"
#include "backend/stored_copy.h"
#include "base/element.h"
#include "base/narrow.h"
#include "format/quant.h"
#include "graph/cached.h"
#include "graph/ops.h"
#include "graph/stored.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- walking: an odometer over a shape ---- */
typedef struct walk {
  int ndim;
  int64_t dim[MN_MAX_DIMS], at[MN_MAX_DIMS], count;
} walk;

static walk walk_over(const mn_view *v) {
  walk w = {.ndim = v->ndim, .count = 1};
  for (int i = 0; i < v->ndim; i++) w.dim[i] = v->dim[i], w.count *= v->dim[i];
  return w;
}

static void walk_next(walk *w) {
  for (int i = w->ndim - 1; i >= 0; i--) {
    if (++w->at[i] < w->dim[i]) return;
    w->at[i] = 0;
  }
}

static int64_t offset_at(const mn_view *v, const int64_t *at) {
  int64_t o = 0;
  for (int i = 0; i < v->ndim; i++) o += at[i] * v->stride[i];
  return o;
}

static double get(const mn_view *v, const int64_t *at) { return mn_element_load(v->data, v->dtype, offset_at(v, at)); }
static void put(const mn_view *v, const int64_t *at, double x) { mn_element_store(v->data, v->dtype, offset_at(v, at), x); }

/* ---- element-wise ---- */
static double floor_mod(double a, double b) {
  double r = fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

static double sigmoid(double a) { return a >= 0 ? 1 / (1 + exp(-a)) : exp(a) / (1 + exp(a)); }

static double apply(mn_ew_code code, double a, double b, double c) {
  switch (code) {
  case MN_EW_NEG:
    return -a;
  case MN_EW_ABS:
    return fabs(a);
  case MN_EW_SIGN:
    return (a > 0) - (a < 0);
  case MN_EW_SQRT:
    return sqrt(a);
  case MN_EW_RSQRT:
    return 1 / sqrt(a);
  case MN_EW_RECIP:
    return 1 / a;
  case MN_EW_EXP:
    return exp(a);
  case MN_EW_LOG:
    return log(a);
  case MN_EW_LOG1P:
    return log1p(a);
  case MN_EW_SIN:
    return sin(a);
  case MN_EW_COS:
    return cos(a);
  case MN_EW_TANH:
    return tanh(a);
  case MN_EW_SIGMOID:
    return sigmoid(a);
  case MN_EW_SILU:
    return a * sigmoid(a);
  case MN_EW_SILU_SLOPE:
    return sigmoid(a) * (1 + a * sigmoid(-a));
  case MN_EW_ERF:
    return erf(a);
  case MN_EW_NORMAL_CDF:
    return 0.5 * erfc(-a * M_SQRT1_2);
  case MN_EW_NORMAL_PDF:
    return exp(-0.5 * a * a) / sqrt(2 * M_PI);
  case MN_EW_FLOOR:
    return floor(a);
  case MN_EW_NOT:
    return a == 0;
  case MN_EW_SOFTPLUS:
    return (a > 0 ? a : 0) + log1p(exp(-fabs(a)));
  case MN_EW_ADD:
    return a + b;
  case MN_EW_SUB:
    return a - b;
  case MN_EW_MUL:
    return a * b;
  case MN_EW_DIV:
    return a / b;
  case MN_EW_MAXIMUM:
    return a >= b || isnan(a) ? a : b;
  case MN_EW_MINIMUM:
    return a <= b || isnan(a) ? a : b;
  case MN_EW_POW:
    return pow(a, b);
  case MN_EW_MOD:
    return floor_mod(a, b);
  case MN_EW_LT:
    return a < b;
  case MN_EW_LE:
    return a <= b;
  case MN_EW_EQ:
    return a == b;
  case MN_EW_AND:
    return a != 0 && b != 0;
  case MN_EW_OR:
    return a != 0 || b != 0;
  case MN_EW_SELECT:
    return a != 0 ? b : c;
  case MN_EW_CAST:
    return a;
  default:
    return 0;
  }
}

static mn_status run_elementwise(mn_call *call) {
  const mn_ew_code code = (mn_ew_code)call->node->op->code;
  bool whole = !mn_dtype_is_float(call->out[0].dtype) && code == MN_EW_DIV; /* integer division truncates */
  walk w = walk_over(&call->out[0]);
  for (int64_t i = 0; i < w.count; i++, walk_next(&w)) {
    double x[3] = {0};
    for (int k = 0; k < call->n_in; k++) x[k] = get(&call->in[k], w.at);
    if (whole && x[1] == 0) return mn_fail(MN_ERR_NUMERIC, "integer division by zero");
    double y = apply(code, x[0], x[1], x[2]);
    put(&call->out[0], w.at, whole ? trunc(y) : y);
  }
  return MN_OK;
}

/* ---- made from nothing ---- */
static mn_status run_iota(mn_call *c) {
  int axis = ((const mn_iota_attr *)c->attr)->axis;
  walk w = walk_over(&c->out[0]);
  for (int64_t i = 0; i < w.count; i++, walk_next(&w)) put(&c->out[0], w.at, (double)w.at[axis]);
  return MN_OK;
}

static mn_status run_random(mn_call *c) {
  const mn_random_attr *a = c->attr;
  uint64_t step = (uint64_t) * (const int64_t *)c->in[0].data, key = a->key;
  float *y = c->out[0].data;
  if (c->n_in > 1) key = mn_random_tick_key(key, (uint64_t) * (const int64_t *)c->in[1].data);
  for (int64_t i = 0, n = mn_view_count(&c->out[0]); i < n; i++)
    y[i] = (float)(a->normal ? mn_random_normal(key, step, (uint64_t)i) : mn_random_uniform(key, step, (uint64_t)i));
  return MN_OK;
}

/* ---- moving ---- */
static mn_status run_copy(mn_call *c) {
  if (mn_dtype_is_stored(c->in[0].dtype)) return mn_copy_stored(&c->in[0], &c->out[0]);
  walk w = walk_over(&c->out[0]);
  size_t size = mn_dtype_size(c->out[0].dtype);
  for (int64_t i = 0; i < w.count; i++, walk_next(&w))
    memcpy((char *)c->out[0].data + (size_t)i * size, (char *)c->in[0].data + offset_at(&c->in[0], w.at) * (int64_t)size, size);
  return MN_OK;
}

static mn_status run_concat(mn_call *c) {
  int axis = ((const mn_axis_attr *)c->attr)->axis;
  int64_t at = 0;
  for (int k = 0; k < c->n_in; k++) {
    walk w = walk_over(&c->in[k]);
    for (int64_t i = 0; i < w.count; i++, walk_next(&w)) {
      double x = get(&c->in[k], w.at);
      w.at[axis] += at;
      put(&c->out[0], w.at, x);
      w.at[axis] -= at;
    }
    at += c->in[k].dim[axis];
  }
  return MN_OK;
}

static mn_status run_pad(mn_call *c) {
  const mn_pad_attr *a = c->attr;
  walk w = walk_over(&c->out[0]);
  for (int64_t i = 0; i < w.count; i++, walk_next(&w)) {
    int64_t t = w.at[a->axis] - a->before, keep = w.at[a->axis];
    double x = 0;
    if (t >= 0 && t < c->in[0].dim[a->axis]) {
      w.at[a->axis] = t;
      x = get(&c->in[0], w.at);
      w.at[a->axis] = keep;
    }
    put(&c->out[0], w.at, x);
  }
  return MN_OK;
}

/* take: out[b.., t.., r..] = x[b.., idx[b.., t..], r..] */
static mn_status run_take(mn_call *c) {
  int b = ((const mn_take_attr *)c->attr)->batch_dims, t = c->in[1].ndim - b;
  walk w = walk_over(&c->out[0]);
  for (int64_t i = 0; i < w.count; i++, walk_next(&w)) {
    int64_t row = (int64_t)get(&c->in[1], w.at), at[MN_MAX_DIMS];
    for (int d = 0; d < b; d++) at[d] = w.at[d];
    at[b] = row;
    for (int d = b + 1; d < c->in[0].ndim; d++) at[d] = w.at[d - 1 + t];
    put(&c->out[0], w.at, row >= 0 && row < c->in[0].dim[b] ? get(&c->in[0], at) : 0);
  }
  return MN_OK;
}

static mn_status run_put(mn_call *c) {
  const mn_take_attr *a = c->attr;
  int b = a->batch_dims;
  walk w = walk_over(&c->out[0]);
  if (c->out[0].data != c->in[0].data)
    for (int64_t i = 0; i < w.count; i++, walk_next(&w)) put(&c->out[0], w.at, get(&c->in[0], w.at));
  w = walk_over(&c->in[2]);
  for (int64_t i = 0; i < w.count; i++, walk_next(&w)) {
    int64_t row = (int64_t)get(&c->in[1], w.at), at[MN_MAX_DIMS];
    if (row < 0 || row >= c->out[0].dim[b]) continue;
    for (int d = 0; d < c->in[2].ndim; d++) at[d] = w.at[d];
    at[b] = row;
    put(&c->out[0], at, get(&c->in[2], w.at) + (a->add ? get(&c->out[0], at) : 0));
  }
  return MN_OK;
}

/* NaN is above all, as in a maximum. */
static bool above(double x, double y) { return x > y || (isnan(x) && !isnan(y)); }

static mn_status run_topk(mn_call *c) {
  int last = c->in[0].ndim - 1;
  int64_t n = c->in[0].dim[last];
  bool *taken = mn_alloc((size_t)n);
  if (!taken) return MN_ERR_MEMORY;
  walk w = walk_over(&c->out[0]);
  for (int64_t i = 0; i < w.count; i++, walk_next(&w)) {
    if (w.at[last] == 0) memset(taken, 0, (size_t)n);
    int64_t best = -1, at[MN_MAX_DIMS];
    memcpy(at, w.at, sizeof at);
    double best_value = 0;
    for (int64_t j = 0; j < n; j++) {
      at[last] = j;
      double x = get(&c->in[0], at);
      if (!taken[j] && (best < 0 || above(x, best_value))) best = j, best_value = x;
    }
    taken[best] = true;
    put(&c->out[0], w.at, (double)best);
  }
  free(taken);
  return MN_OK;
}

/* ---- reductions ---- */
static mn_status run_reduce(mn_call *c) {
  bool max = c->node->op->code == MN_REDUCE_MAX;
  int64_t n = mn_view_count(&c->out[0]);
  double *sum = mn_alloc((size_t)n * sizeof *sum);
  if (!sum) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < n; i++) sum[i] = max ? -INFINITY : 0;
  walk w = walk_over(&c->in[0]);
  for (int64_t i = 0; i < w.count; i++, walk_next(&w)) {
    int64_t o = 0;
    for (int d = 0; d < w.ndim; d++) o = o * c->out[0].dim[d] + (c->out[0].dim[d] == 1 ? 0 : w.at[d]);
    double x = get(&c->in[0], w.at);
    sum[o] = !max ? sum[o] + x : x > sum[o] || isnan(x) ? x : sum[o];
  }
  for (int64_t i = 0; i < n; i++) mn_element_store(c->out[0].data, c->out[0].dtype, i, sum[i]);
  free(sum);
  return MN_OK;
}

static mn_status run_argmax(mn_call *c) {
  int last = c->in[0].ndim - 1;
  walk w = walk_over(&c->out[0]);
  for (int64_t i = 0; i < w.count; i++, walk_next(&w)) {
    int64_t best = 0, at[MN_MAX_DIMS];
    memcpy(at, w.at, sizeof at);
    double best_value = 0;
    for (int64_t j = 0; j < c->in[0].dim[last]; j++) {
      at[last] = j;
      double x = get(&c->in[0], at);
      if (j == 0 || above(x, best_value)) best = j, best_value = x;
    }
    put(&c->out[0], w.at, (double)best);
  }
  return MN_OK;
}

static mn_status run_cumsum(mn_call *c) {
  const mn_cumsum_attr *a = c->attr;
  int64_t n = c->in[0].dim[a->axis];
  walk w = walk_over(&c->in[0]);
  for (int64_t i = 0; i < w.count; i++, walk_next(&w)) {
    if (w.at[a->axis] != 0) continue;
    int64_t at[MN_MAX_DIMS];
    memcpy(at, w.at, sizeof at);
    double sum = 0;
    for (int64_t j = 0; j < n; j++) {
      at[a->axis] = a->reverse ? n - 1 - j : j;
      sum += get(&c->in[0], at);
      put(&c->out[0], at, sum);
    }
  }
  return MN_OK;
}

/* ---- product ---- */
/* ---- types of storage ---- */
static mn_status run_unpack(mn_call *c) { /* the last axis is dense */
  const mn_view *x = &c->in[0], *y = &c->out[0];
  const int64_t block = mn_block_values(x->dtype), K = x->ndim ? x->dim[x->ndim - 1] : 1;
  float values[256];
  mn_view first = *y; /* of rows their first elements */
  if (first.ndim) first.dim[first.ndim - 1] = K > 0;
  walk w = walk_over(&first);
  for (int64_t i = 0; i < w.count; i++, walk_next(&w)) {
    const char *from = (const char *)x->data + mn_dtype_bytes(x->dtype, offset_at(x, w.at));
    for (int64_t at = 0; at < K; at += block) {
      mn_dequantize(x->dtype, from + mn_dtype_bytes(x->dtype, at), block, values);
      for (int64_t k = 0; k < block; k++) mn_element_store(y->data, y->dtype, offset_at(y, w.at) + at + k, (double)values[k]);
    }
  }
  return MN_OK;
}

static mn_status run_narrowed(mn_call *c) { /* dense */
  const mn_dtype type = (mn_dtype)((const mn_narrowed_attr *)c->attr)->type;
  const int64_t block = mn_block_values(type), n = mn_view_count(&c->in[0]);
  char kept[64];
  for (int64_t i = 0; i < n; i += block) {
    mn_narrow(type, (const float *)c->in[0].data + i, block, kept);
    mn_widen(type, kept, block, (float *)c->out[0].data + i);
  }
  return MN_OK;
}

static mn_status run_cache_put(mn_call *c) {
  const mn_view *cache = &c->out[0], *rows = &c->in[2];
  const int64_t G = rows->dim[2], K = rows->dim[3];
  if (cache->data != c->in[0].data) memcpy(cache->data, c->in[0].data, mn_dtype_bytes(cache->dtype, mn_view_count(cache)));
  mn_view first = *rows;
  first.dim[3] = K > 0;
  walk w = walk_over(&first);
  for (int64_t i = 0; i < w.count; i++, walk_next(&w)) {
    const int64_t slot = ((const int32_t *)c->in[1].data)[offset_at(&c->in[1], w.at)];
    if (slot < 0 || slot >= cache->dim[1]) continue;
    const int64_t at = ((w.at[0] * cache->dim[1] + slot) * G + w.at[2]) * K;
    mn_narrow(cache->dtype, (const float *)rows->data + offset_at(rows, w.at), K, (char *)cache->data + mn_dtype_bytes(cache->dtype, at));
  }
  return MN_OK;
}

static mn_status run_matmul(mn_call *c) {
  int n = c->out[0].ndim;
  int64_t K = c->in[0].dim[n - 1];
  int64_t step_a = c->in[0].stride[n - 1], step_b = c->in[1].stride[n - 2];
  walk w = walk_over(&c->out[0]);
  for (int64_t i = 0; i < w.count; i++, walk_next(&w)) {
    int64_t a = 0, b = 0;
    for (int d = 0; d < n - 2; d++) a += w.at[d] * c->in[0].stride[d], b += w.at[d] * c->in[1].stride[d];
    a += w.at[n - 2] * c->in[0].stride[n - 2];
    b += w.at[n - 1] * c->in[1].stride[n - 1];
    double sum = 0;
    for (int64_t k = 0; k < K; k++)
      sum +=
          mn_element_load(c->in[0].data, c->in[0].dtype, a + k * step_a) * mn_element_load(c->in[1].data, c->in[1].dtype, b + k * step_b);
    put(&c->out[0], w.at, sum);
  }
  return MN_OK;
}

/* ---- the table ---- */
#define KERNEL(op_, run_) {.op = &op_, .name = "ref", .layout = MN_LAYOUT_ANY, .run = run_},
#define X(upper, lower)   KERNEL(mn_op_ew_table[MN_EW_##upper], run_elementwise)
static const mn_kernel table[] = {
    KERNEL(mn_op_iota, run_iota) KERNEL(mn_op_random, run_random) KERNEL(mn_op_copy, run_copy) KERNEL(mn_op_concat, run_concat)
        KERNEL(mn_op_pad, run_pad) KERNEL(mn_op_take, run_take) KERNEL(mn_op_put, run_put) KERNEL(mn_op_topk, run_topk)
            KERNEL(mn_op_sum, run_reduce) KERNEL(mn_op_max, run_reduce) KERNEL(mn_op_argmax, run_argmax) KERNEL(mn_op_cumsum, run_cumsum)
                KERNEL(mn_op_matmul, run_matmul){.op = &mn_op_unpack, .name = "ref", .layout = MN_LAYOUT_ROWS, .run = run_unpack},
    {.op = &mn_op_narrowed, .name = "ref", .layout = MN_LAYOUT_DENSE, .run = run_narrowed},
    {.op = &mn_op_cache_put, .name = "ref", .layout = MN_LAYOUT_ROWS, .run = run_cache_put},
    MN_EW_UNARY(X) MN_EW_BINARY(X) X(SELECT, select) X(CAST, cast)};
#undef X
enum { N_KERNELS = sizeof table / sizeof *table };

static void *ref_alloc(mn_backend *b, size_t n) {
  (void)b;
  return mn_alloc_aligned(n);
}
static void ref_free(mn_backend *b, void *p, size_t n) {
  (void)b, (void)n;
  free(p);
}
static mn_status ref_copy(mn_backend *b, void *dst, const void *src, size_t n) {
  (void)b;
  memmove(dst, src, n);
  return MN_OK;
}
static mn_status ref_sync(mn_backend *b) {
  (void)b;
  return MN_OK;
}
static mn_status ref_zero(mn_backend *b, void *dst, size_t n) {
  (void)b;
  memset(dst, 0, n);
  return MN_OK;
}

mn_backend *mn_backend_ref(void) {
  static const mn_kernel *kernels[N_KERNELS]; /* written with the same values whoever comes first */
  static mn_backend backend = {.name = "ref",
                               .isa = "",
                               .kernels = kernels,
                               .n_kernels = N_KERNELS,
                               .alloc = ref_alloc,
                               .free = ref_free,
                               .upload = ref_copy,
                               .download = ref_copy,
                               .copy = ref_copy,
                               .zero = ref_zero,
                               .sync = ref_sync,
                               .on_host = true};
  for (int i = 0; i < N_KERNELS; i++) kernels[i] = &table[i];
  return &backend;
}
