/* What must be true of the reductions of the CPU backend: sums, maxima, sums of squares, argmax and running sums agree with
 * plain loops in double for any axes, strides and types, on every instruction set, and give the same bits for one thread
 * and for two. */
#include "cpu_kernel_test.h"

enum { MAX_N = 400000 };
static mn_pool *pool2;
static char x[MAX_N * 8], ya[MAX_N * 8], yb[MAX_N * 8];
static double want[MAX_N], scale[MAX_N];

static void check_reduce(const mn_op *op, mn_view in, unsigned mask) {
  bool is_max = op == &mn_op_max, sq = op == &mn_op_sumsq;
  int64_t odim[MN_MAX_DIMS], n = 1, outs = 1;
  for (int d = 0; d < in.ndim; d++) odim[d] = mask >> d & 1 ? 1 : in.dim[d], n *= in.dim[d], outs *= odim[d];
  mn_view o = dense(ya, in.dtype, sq ? 0 : in.ndim, odim);
  if (sq && in.dtype == MN_BF16) o.dtype = MN_F32;
  for (int64_t i = 0; i < outs; i++) want[i] = is_max ? -INFINITY : 0, scale[i] = 1e-30;
  for (int64_t i = 0; i < n; i++) {
    int64_t rest = i, at_out = 0, step = 1;
    for (int d = in.ndim - 1; d >= 0; d--) {
      if (!(mask >> d & 1)) at_out += rest % in.dim[d] * step, step *= in.dim[d];
      rest /= in.dim[d];
    }
    double v = get(in.data, in.dtype, at(&in, i));
    if (is_max) want[at_out] = v > want[at_out] || v != v ? v : want[at_out], scale[at_out] = 1;
    else want[at_out] += sq ? v * v : v, scale[at_out] += sq ? v * v : fabs(v);
  }
  mn_reduce_attr a = {mask};
  CHECK(run_kernel(mn_cpu_reduce_kernels, op, &a, 1, &in, 1, &o, NULL), "no kernel");
  o.data = yb;
  run_kernel(mn_cpu_reduce_kernels, op, &a, 1, &in, 1, &o, pool2);
  CHECK(!memcmp(ya, yb, (size_t)outs * mn_dtype_size(o.dtype)), "%s: one and two threads differ", op->name);
  double worst = 0, limit = is_max ? 0 : o.dtype == MN_BF16 ? 4e-3 : o.dtype == MN_F32 ? 1e-6 : 1e-12;
  for (int64_t i = 0; i < outs; i++) {
    double e = relative(get(ya, o.dtype, i), want[i], o.dtype == MN_BF16 ? fabs(want[i]) + 1e-5 * scale[i] : scale[i]);
    if (e > worst) worst = e;
  }
  CHECK(worst <= limit, "%s %s isa %s axes %x ndim %d [%lld ...]: error %g", op->name, mn_dtype_name(in.dtype), mn_isa_name(cpu.isa), mask,
        in.ndim, (long long)in.dim[0], worst);
}

static void reduce_one_isa(void) {
  static const mn_dtype types[] = {MN_F32, MN_BF16, MN_F64, MN_I32, MN_I64};
  static const int64_t shapes[][4] = {{1, 1, 1, 1},      {3, 5, 7, 11},     {2, 1, 130, 320}, {700, 1, 3, 65},
                                      {1, 1, 1, 100003}, {100003, 1, 1, 1}, {5000, 1, 1, 17}, {1, 40, 1, 2100}};
  for (int ti = 0; ti < 5; ti++) {
    mn_dtype t = types[ti];
    for (int64_t i = 0; i < MAX_N; i++) put(x, t, i, t == MN_I32 || t == MN_I64 ? trunc(draw(-999, 999)) : draw(-1, 1));
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
      mn_view v = dense(x, t, 4, shapes[s]);
      for (unsigned mask = 1; mask < 16; mask += ti < 2 ? 1 : 3) {
        bool empty = false; /* axes of size 1 change nothing */
        for (int d = 0; d < 4; d++) empty |= shapes[s][d] == 1 && mask >> d & 1;
        if (empty && s > 0 && mask != 15) continue;
        check_reduce(&mn_op_sum, v, mask);
        check_reduce(&mn_op_max, v, mask);
        mn_view p = v; /* permuted: axes 3, 1, 0, 2 */
        static const int order[] = {3, 1, 0, 2};
        for (int d = 0; d < 4; d++) p.dim[d] = v.dim[order[d]], p.stride[d] = v.stride[order[d]];
        check_reduce(&mn_op_sum, p, mask);
        mn_view b = v; /* broadcast along axis 0, every other element of axis 3 */
        b.stride[0] = 0;
        b.dim[3] = (b.dim[3] + 1) / 2, b.stride[3] = 2;
        check_reduce(&mn_op_sum, b, mask);
      }
      if (mn_dtype_is_float(t)) check_reduce(&mn_op_sumsq, v, 15);
    }
    if (t == MN_F32 || t == MN_BF16) { /* a NaN is not lost */
      put(x, t, 777, NAN);
      int64_t dim[2] = {40, 100};
      check_reduce(&mn_op_max, dense(x, t, 2, dim), 1);
      check_reduce(&mn_op_max, dense(x, t, 2, dim), 2);
    }
  }
}
static void test_reduce(void) { each_isa(reduce_one_isa); }

static void argmax_one_isa(void) {
  static const mn_dtype types[] = {MN_F32, MN_BF16, MN_F64, MN_I32, MN_I64};
  for (int ti = 0; ti < 5; ti++) {
    mn_dtype t = types[ti];
    for (int64_t i = 0; i < MAX_N; i++) put(x, t, i, trunc(draw(-20, 20))); /* many ties */
    static const int64_t widths[] = {1, 7, 64, 333, 40000};
    for (int w = 0; w < 5; w++)
      for (int strided = 0; strided < 2; strided++) {
        int64_t dim[2] = {9, widths[w]};
        mn_view v = dense(x, t, 2, dim), o = dense(ya, MN_I32, 1, dim);
        if (strided) v.stride[0] = 1, v.stride[1] = 9;
        CHECK(run_kernel(mn_cpu_reduce_kernels, &mn_op_argmax, NULL, 1, &v, 1, &o, pool2), "no kernel");
        int wrong = 0;
        for (int64_t r = 0; r < 9; r++) {
          int64_t best = 0;
          for (int64_t i = 1; i < dim[1]; i++)
            if (get(x, t, at(&v, r * dim[1] + i)) > get(x, t, at(&v, r * dim[1] + best))) best = i;
          wrong += ((int32_t *)ya)[r] != best;
        }
        CHECK(wrong == 0, "argmax %s isa %s width %lld: %d wrong", mn_dtype_name(t), mn_isa_name(cpu.isa), (long long)widths[w], wrong);
      }
  }
}
static void test_argmax(void) { each_isa(argmax_one_isa); }

static void cumsum_one_isa(void) {
  static const mn_dtype types[] = {MN_F32, MN_BF16, MN_F64, MN_I32, MN_I64};
  for (int ti = 0; ti < 5; ti++)
    for (int axis = 0; axis < 3; axis++)
      for (int reverse = 0; reverse < 2; reverse++) {
        mn_dtype t = types[ti];
        int64_t dim[3] = {3, 41, 301}, n = 3 * 41 * 301, stride = axis == 0 ? 41 * 301 : axis == 1 ? 301 : 1;
        for (int64_t i = 0; i < n; i++) put(x, t, i, t == MN_I32 || t == MN_I64 ? trunc(draw(-9, 9)) : draw(-1, 1));
        mn_view v = dense(x, t, 3, dim), o = dense(ya, t, 3, dim);
        mn_cumsum_attr a = {.axis = axis, .reverse = reverse};
        CHECK(run_kernel(mn_cpu_reduce_kernels, &mn_op_cumsum, &a, 1, &v, 1, &o, pool2), "no kernel");
        double worst = 0;
        for (int64_t i = 0; i < n; i++) {
          int64_t k = i / stride % dim[axis];
          double s = 0;
          for (int64_t m = reverse ? dim[axis] - 1 : 0; reverse ? m >= k : m <= k; m += reverse ? -1 : 1)
            s += get(x, t, i + (m - k) * stride);
          double e = relative(get(ya, t, i), s, fabs(s) + 1e-3);
          if (e > worst) worst = e;
        }
        CHECK(worst <= (t == MN_BF16  ? 4e-3
                        : t == MN_F32 ? 1e-6
                                      : 1e-12),
              "cumsum %s axis %d reverse %d: %g", mn_dtype_name(t), axis, reverse, worst);
      }
}
static void test_cumsum(void) { each_isa(cumsum_one_isa); }

int main(void) {
  pool2 = mn_pool_new(2);
  RUN(test_reduce);
  RUN(test_argmax);
  RUN(test_cumsum);
  mn_pool_free(pool2);
  return test_end();
}
