/* kernel_call.h - calling one kernel of the CPU backend by hand: tensors with any strides, a poisoned workspace with a
 * fence behind it. */
#ifndef MN_KERNEL_CALL_H
#define MN_KERNEL_CALL_H

#include "backend/cpu/cpu.h"
#include "compile/plan.h"
#include "isa_set.h"
#include "test.h"

typedef struct held { /* a tensor's memory and its view */
  void *memory;
  mn_view view;
  mn_tensor tensor;
} held;

static inline held hold(mn_dtype type, int ndim, const int64_t *dim,
                        int64_t stretch) { /* stretch > 1: rows of the axes before axis 2 are spread out */
  held x = {0};
  x.view = (mn_view){.dtype = type, .ndim = ndim};
  x.tensor.dtype = type;
  x.tensor.shape.ndim = ndim;
  int64_t step = 1;
  for (int i = ndim - 1; i >= 0; i--) {
    x.view.dim[i] = x.tensor.shape.dim[i] = dim[i];
    x.view.stride[i] = step;
    step *= dim[i];
    if (i == 2) step *= stretch;
  }
  x.memory = malloc((size_t)step * (type == MN_BF16 ? 2 : 4));
  memset(x.memory, 0xff, (size_t)step * (type == MN_BF16 ? 2 : 4)); /* NaN */
  x.view.data = x.memory;
  return x;
}
static inline void put(held *x, int64_t row, int64_t width, const float *src, bool read, float *dst) {
  int64_t off = 0, left = row;
  for (int d = x->view.ndim - 2; d >= 0; d--) {
    off += left % x->view.dim[d] * x->view.stride[d];
    left /= x->view.dim[d];
  }
  for (int64_t j = 0; j < width; j++) {
    if (x->view.dtype == MN_BF16) {
      uint16_t *p = (uint16_t *)x->view.data + off + j;
      uint32_t u;
      if (read) {
        u = (uint32_t)*p << 16;
        memcpy(dst + j, &u, 4);
      } else {
        memcpy(&u, src + j, 4);
        *p = (uint16_t)(u >> 16);
      }
    } else {
      float *p = (float *)x->view.data + off + j;
      if (read) dst[j] = *p;
      else *p = src[j];
    }
  }
}
static inline void fill(held *x, const float *src) {
  int64_t width = x->view.dim[x->view.ndim - 1], rows = mn_view_count(&x->view) / width;
  for (int64_t i = 0; i < rows; i++) put(x, i, width, src + i * width, false, NULL);
}
static inline held hold_filled(mn_dtype type, int ndim, const int64_t *dim, int64_t stretch, const float *src) {
  held x = hold(type, ndim, dim, stretch);
  fill(&x, src);
  return x;
}
static inline float *read_out(held *x) {
  int64_t width = x->view.dim[x->view.ndim - 1], rows = mn_view_count(&x->view) / width;
  float *dst = malloc(sizeof(float) * (size_t)(rows * width));
  for (int64_t i = 0; i < rows; i++) put(x, i, width, NULL, true, dst + i * width);
  return dst;
}

typedef const mn_kernel *const *(*kernel_list)(mn_isa isa, int *n);

/* Runs the first kernel of the list that takes the operation with these operands. */
static inline void call_kernel(kernel_list kernels, const mn_op *op, void *attr, mn_isa isa, mn_pool *pool, held *in, int n_in, held *out,
                               int n_out) {
  mn_cpu cpu = {.isa = isa};
  cpu.backend.impl = &cpu;
  mn_tensor *it[MN_KERNEL_MAX_IO], *ot[MN_KERNEL_MAX_IO];
  mn_view iv[MN_KERNEL_MAX_IO], ov[MN_KERNEL_MAX_IO];
  for (int i = 0; i < n_in; i++) it[i] = &in[i].tensor, iv[i] = in[i].view;
  for (int i = 0; i < n_out; i++) ot[i] = &out[i].tensor, ov[i] = out[i].view;
  mn_node node = {.op = op, .n_in = n_in, .n_out = n_out, .in = it, .out = ot, .attr = attr};
  int n;
  const mn_kernel *const *list = kernels(isa, &n);
  const mn_kernel *kernel = NULL;
  for (int i = 0; i < n && !kernel; i++)
    if (list[i]->op == op && list[i]->accepts(&node)) kernel = list[i];
  CHECK(kernel, "no kernel takes the node");
  if (!kernel) return;
  mn_call call = {.kernel = kernel,
                  .node = &node,
                  .attr = attr,
                  .n_in = n_in,
                  .n_out = n_out,
                  .in = iv,
                  .out = ov,
                  .pool = pool,
                  .backend = &cpu.backend};
  mn_view blind[2 * MN_KERNEL_MAX_IO]; /* when a plan is made, memory has no addresses yet */
  for (int i = 0; i < n_in; i++) blind[i] = iv[i], blind[i].data = NULL;
  for (int i = 0; i < n_out; i++) blind[n_in + i] = ov[i], blind[n_in + i].data = NULL;
  call.in = blind, call.out = blind + n_in;
  size_t size = kernel->workspace ? kernel->workspace(&call) : 0;
  call.in = iv, call.out = ov;
  call.workspace = mn_alloc_aligned(size + 64);
  memset(call.workspace, 0xff, size + 64); /* a kernel that reads what it has not written meets NaN */
  unsigned char *end = (unsigned char *)call.workspace + size;
  CHECK_OK(kernel->run(&call));
  bool fence = true;
  for (int i = 0; i < 64; i++) fence &= end[i] == 0xff;
  CHECK(fence, "the workspace was overrun");
  free(call.workspace);
}

/* ---- small helpers of the kernels' tests ---- */
static inline float to_bf16(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  u = (u + 0x7fffu + (u >> 16 & 1u)) & 0xffff0000u;
  memcpy(&x, &u, 4);
  return x;
}
/* the largest error, relative to the largest value; NaN when one is NaN */
static inline double relative_difference(const float *got, const double *want, int64_t n) {
  double top = 1e-30, d = 0;
  for (int64_t i = 0; i < n; i++) {
    if (fabs(want[i]) > top) top = fabs(want[i]);
    double e = fabs((double)got[i] - want[i]);
    if (!(e <= d)) d = e;
  }
  return d / top;
}
static inline mn_isa last_isa(void) { /* AMX has no vector code of its own */
  mn_isa last = last_tested_isa();
  return last < MN_ISA_LEVEL_AVX512_BF16 ? last : MN_ISA_LEVEL_AVX512_BF16;
}
static inline mn_isa first_isa(void) {
  mn_isa first = first_tested_isa();
  return first < last_isa() ? first : last_isa();
}

/* Runs the graph on the CPU backend, with its kernels, and on the reference backend, by composition: all outputs must
 * agree. data[i] belongs to leaves[i]. */
static inline void compare_backends(mn_graph *g, int n_out, mn_tensor **out, int n_leaves, mn_tensor **leaves, void **data,
                                    double tolerance, const char *what) {
  CHECK_OK(mn_graph_status(g));
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(2, &cpu));
  mn_plan *plan[2] = {NULL, NULL};
  for (int i = 0; i < 2; i++) {
    mn_plan_request request = {.graph = g, .n_outputs = n_out, .outputs = out, .backend = i ? cpu : mn_backend_ref()};
    CHECK_OK(mn_plan_compile(&request, &plan[i]));
    if (!plan[i]) return;
    for (int l = 0; l < n_leaves; l++) mn_plan_bind(plan[i], leaves[l], data[l]);
    CHECK_OK(mn_plan_run(plan[i]));
  }
  for (int j = 0; j < n_out; j++) {
    const mn_view *want = mn_plan_output(plan[0], j), *got = mn_plan_output(plan[1], j);
    int64_t n = mn_view_count(want);
    double *w = malloc(sizeof(double) * (size_t)n);
    for (int64_t i = 0; i < n; i++) w[i] = ((const float *)want->data)[i];
    double d = relative_difference(got->data, w, n);
    CHECK(d <= tolerance, "%s, output %d: %g", what, j, d);
    free(w);
  }
  mn_plan_free(plan[0]), mn_plan_free(plan[1]);
  mn_backend_free(cpu);
}

#endif
