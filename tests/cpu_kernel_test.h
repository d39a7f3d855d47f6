/* What tests of single CPU kernels share: elements of any type as doubles, dense views, running a kernel by hand on every
 * instruction set of the machine, and drawing numbers. */
#ifndef MN_CPU_KERNEL_TEST_H
#define MN_CPU_KERNEL_TEST_H

#include "backend/cpu/cpu.h"
#include "graph/ops.h"
#include "isa_set.h"
#include "test.h"

static mn_cpu cpu; /* a backend of nothing but an instruction set */

static inline double get(const void *p, mn_dtype t, int64_t i) {
  switch (t) {
  case MN_F32:
    return ((const float *)p)[i];
  case MN_F64:
    return ((const double *)p)[i];
  case MN_I32:
    return ((const int32_t *)p)[i];
  case MN_I64:
    return (double)((const int64_t *)p)[i];
  case MN_BOOL:
    return ((const uint8_t *)p)[i] != 0;
  default: {
    uint32_t u = (uint32_t)((const uint16_t *)p)[i] << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
  }
  }
}
static inline void put(void *p, mn_dtype t, int64_t i, double v) {
  switch (t) {
  case MN_F32:
    ((float *)p)[i] = (float)v;
    break;
  case MN_F64:
    ((double *)p)[i] = v;
    break;
  case MN_I32:
    ((int32_t *)p)[i] = (int32_t)v;
    break;
  case MN_I64:
    ((int64_t *)p)[i] = (int64_t)v;
    break;
  case MN_BOOL:
    ((uint8_t *)p)[i] = v != 0;
    break;
  default: {
    float f = (float)v;
    uint32_t u;
    memcpy(&u, &f, 4);
    ((uint16_t *)p)[i] = f != f ? 0x7fc0 : (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
  }
  }
}

static inline mn_view dense(void *data, mn_dtype t, int ndim, const int64_t *dim) {
  mn_view v = {.data = data, .dtype = t, .ndim = ndim};
  int64_t s = 1;
  for (int i = ndim - 1; i >= 0; i--) v.dim[i] = dim[i], v.stride[i] = s, s *= dim[i];
  return v;
}
static inline int64_t at(const mn_view *v, int64_t i) { /* where logical element i lies */
  int64_t o = 0;
  for (int d = v->ndim - 1; d >= 0; d--) o += i % v->dim[d] * v->stride[d], i /= v->dim[d];
  return o;
}

typedef const mn_kernel *const *(*kernel_list)(mn_isa isa, int *n);
/* Runs the operation on views; false when no kernel of the list accepts it. */
static inline bool run_kernel(kernel_list list, const mn_op *op, const void *attr, int n_in, mn_view *in, int n_out, mn_view *out,
                              mn_pool *pool) {
  mn_tensor t_in[MN_KERNEL_MAX_IO], t_out[MN_KERNEL_MAX_IO], *pin[MN_KERNEL_MAX_IO], *pout[MN_KERNEL_MAX_IO];
  mn_node node = {.op = op, .n_in = n_in, .n_out = n_out, .in = pin, .out = pout, .attr = (void *)attr};
  for (int i = 0; i < n_in + n_out; i++) {
    const mn_view *v = i < n_in ? &in[i] : &out[i - n_in];
    mn_tensor *t = i < n_in ? &t_in[i] : &t_out[i - n_in];
    *(i < n_in ? &pin[i] : &pout[i - n_in]) = t;
    *t = (mn_tensor){.node = &node, .dtype = v->dtype, .shape.ndim = v->ndim};
    for (int d = 0; d < v->ndim; d++) t->shape.dim[d] = v->dim[d];
  }
  int n;
  const mn_kernel *const *ks = list(cpu.isa, &n);
  for (int i = 0; i < n; i++) {
    const mn_kernel *k = ks[i];
    if (k->op != op || (k->accepts && !k->accepts(&node))) continue;
    mn_call call = {.kernel = k,
                    .node = &node,
                    .attr = attr,
                    .n_in = n_in,
                    .n_out = n_out,
                    .in = in,
                    .out = out,
                    .pool = pool,
                    .backend = &cpu.backend};
    call.workspace = mn_alloc_aligned((k->workspace ? k->workspace(&call) : 0) + 64);
    if (k->prepare) CHECK_OK(k->prepare(&call));
    CHECK_OK(k->run(&call));
    if (k->release) k->release(&call);
    free(call.workspace);
    return true;
  }
  return false;
}

static inline void each_isa(void (*fn)(void)) {
  EACH_ISA(isa) {
    cpu = (mn_cpu){.isa = isa};
    cpu.backend.impl = &cpu;
    fn();
  }
}

static uint32_t rng = 1;
static inline double draw(double lo, double hi) {
  rng = rng * 1664525u + 1013904223u;
  return lo + (hi - lo) * (double)(rng >> 8) * 0x1p-24;
}

static inline double relative(double got, double want, double scale) { /* NaN agrees with NaN */
  if (got == want || (got != got && want != want)) return 0;
  double e = fabs(got - want) / scale;
  return e == e ? e : INFINITY;
}

#endif
