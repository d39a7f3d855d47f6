/* cpu_kernel.h - calls one kernel of the CPU backend by hand: tensors of any type that are read and written as doubles,
 * the call, and the comparison with numbers computed in double. */
#ifndef CPU_KERNEL_H
#define CPU_KERNEL_H

#include "backend/cpu/cpu.h"
#include "graph/ops.h"
#include "isa_set.h"
#include "test.h"

enum { TENSOR_MAX = 16 };

static inline double element_get(const void *p, mn_dtype t, int64_t i) {
  if (t == MN_F32) return ((const float *)p)[i];
  if (t == MN_I32) return ((const int32_t *)p)[i];
  uint32_t bits = (uint32_t)((const uint16_t *)p)[i] << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
static inline void element_set(void *p, mn_dtype t, int64_t i, double x) {
  float f = (float)x;
  uint32_t bits;
  memcpy(&bits, &f, 4);
  if (t == MN_F32) ((float *)p)[i] = f;
  else if (t == MN_I32) ((int32_t *)p)[i] = (int32_t)x;
  else ((uint16_t *)p)[i] = (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* Rows of the last axis lie `pad` elements further apart than they are long. What lies between is NaN. */
static inline mn_view tensor_new(mn_dtype t, int64_t pad, int ndim, const int64_t *dim) {
  mn_view v = {.dtype = t, .ndim = ndim};
  int64_t n = 1;
  for (int i = ndim - 1; i >= 0; i--) {
    v.dim[i] = dim[i];
    v.stride[i] = n;
    n *= i == ndim - 1 ? dim[i] + pad : dim[i];
  }
  size_t bytes = (size_t)n * mn_dtype_size(t);
  v.data = mn_alloc_aligned(bytes + 64);
  memset(v.data, 0xff, bytes + 64);
  return v;
}
#define TENSOR(t, pad, ...) tensor_new(t, pad, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})
#define SCALAR(t)           tensor_new(t, 0, 0, NULL)

static inline int64_t tensor_offset(const mn_view *v, int64_t i) { /* of element i in row-major order */
  int64_t offset = 0;
  for (int a = v->ndim - 1; a >= 0; a--) {
    offset += i % v->dim[a] * v->stride[a];
    i /= v->dim[a];
  }
  return offset;
}
static inline double tensor_get(const mn_view *v, int64_t i) { return element_get(v->data, v->dtype, tensor_offset(v, i)); }
static inline void tensor_set(mn_view *v, int64_t i, double x) { element_set(v->data, v->dtype, tensor_offset(v, i), x); }
static inline mn_view tensor_random(mn_view v, uint64_t key, double scale, double shift) {
  for (int64_t i = 0; i < mn_view_count(&v); i++) tensor_set(&v, i, scale * mn_random_normal(key, 0, (uint64_t)i) + shift);
  return v;
}
/* as doubles, row-major; free() it */
static inline double *tensor_values(const mn_view *v) {
  int64_t n = mn_view_count(v);
  double *x = mn_alloc(sizeof(double) * (size_t)(n + 1));
  for (int64_t i = 0; i < n; i++) x[i] = tensor_get(v, i);
  return x;
}
static inline void tensors_free(int n, mn_view *v) {
  for (int i = 0; i < n; i++) free(v[i].data);
}

typedef const mn_kernel *const *(*kernels_of)(mn_isa isa, int *n);

/* Runs the kernel of `op` that accepts the node, on `isa` with `threads` threads; outputs and workspace start as NaN.
 */
static inline mn_status kernel_run(kernels_of list, const mn_op *op, const void *attr, mn_isa isa, int threads, int n_in, mn_view *in,
                                   int n_out, mn_view *out) {
  mn_tensor tensors[2 * TENSOR_MAX], *in_ptr[TENSOR_MAX], *out_ptr[TENSOR_MAX];
  union {
    const void *in;
    void *out;
  } unqualified = {.in = attr};
  mn_node node = {.op = op, .n_in = n_in, .n_out = n_out, .in = in_ptr, .out = out_ptr, .attr = unqualified.out};
  for (int i = 0; i < n_in + n_out; i++) {
    const mn_view *v = i < n_in ? &in[i] : &out[i - n_in];
    tensors[i] = (mn_tensor){.node = &node, .dtype = v->dtype, .shape = mn_shape_of(v->ndim, v->dim)};
    *(i < n_in ? &in_ptr[i] : &out_ptr[i - n_in]) = &tensors[i];
  }
  for (int i = 0; i < n_out; i++) memset(out[i].data, 0xff, (size_t)mn_view_count(&out[i]) * mn_dtype_size(out[i].dtype));
  mn_cpu cpu = {.isa = isa};
  cpu.backend.impl = &cpu;
  int n;
  const mn_kernel *const *kernels = list(isa, &n);
  for (int k = 0; k < n; k++) {
    if (kernels[k]->op != op || (kernels[k]->accepts && !kernels[k]->accepts(&node))) continue;
    mn_call call = {.kernel = kernels[k],
                    .node = &node,
                    .attr = attr,
                    .n_in = n_in,
                    .n_out = n_out,
                    .in = in,
                    .out = out,
                    .backend = &cpu.backend,
                    .pool = mn_pool_new(threads)};
    size_t bytes = kernels[k]->workspace ? kernels[k]->workspace(&call) : 0;
    call.workspace = mn_alloc_aligned(bytes + 64);
    memset(call.workspace, 0xff, bytes + 64);
    mn_status status = kernels[k]->prepare ? kernels[k]->prepare(&call) : MN_OK;
    if (status == MN_OK) status = kernels[k]->run(&call);
    if (kernels[k]->release) kernels[k]->release(&call);
    for (size_t b = bytes; b < bytes + 64; b++) CHECK(((unsigned char *)call.workspace)[b] == 0xff, "wrote behind the workspace");
    free(call.workspace);
    mn_pool_free(call.pool);
    return status;
  }
  return mn_fail(MN_ERR_UNSUPPORTED, "no kernel accepts the node");
}

/* The same with 1 and 2 threads: the bits must agree. */
static inline void kernel_check_run(kernels_of list, const mn_op *op, const void *attr, mn_isa isa, int n_in, mn_view *in, int n_out,
                                    mn_view *out) {
  void *first[TENSOR_MAX];
  CHECK_OK(kernel_run(list, op, attr, isa, 1, n_in, in, n_out, out));
  for (int i = 0; i < n_out; i++) {
    size_t bytes = (size_t)mn_view_count(&out[i]) * mn_dtype_size(out[i].dtype);
    first[i] = mn_alloc(bytes + 1);
    memcpy(first[i], out[i].data, bytes);
  }
  CHECK_OK(kernel_run(list, op, attr, isa, 2, n_in, in, n_out, out));
  for (int i = 0; i < n_out; i++) {
    size_t bytes = (size_t)mn_view_count(&out[i]) * mn_dtype_size(out[i].dtype);
    CHECK(!memcmp(first[i], out[i].data, bytes), "%s: output %d differs with 2 threads", mn_isa_name(isa), i);
    free(first[i]);
  }
}

/* Largest difference between a tensor and `expect`, in units of the largest of `expect` (at least `floor`). */
static inline double tensor_error(const mn_view *v, const double *expect, double floor) {
  double most = floor, diff = 0;
  for (int64_t i = 0; i < mn_view_count(v); i++) {
    double d = fabs(tensor_get(v, i) - expect[i]);
    if (isnan(d)) return INFINITY;
    if (d > diff) diff = d;
    if (fabs(expect[i]) > most) most = fabs(expect[i]);
  }
  return diff / most;
}

#endif
