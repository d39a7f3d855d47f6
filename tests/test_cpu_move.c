/* What must be true of the CPU kernels that move elements: copies between any layouts, concat, pad, take, put, top-k, iota
 * and random numbers agree with plain loops, for every size of element, and for one thread and two. */
#include "cpu_kernel_test.h"

enum { MAX_N = 300000 };
static mn_pool *pool2;
static char x[MAX_N * 8], u[MAX_N * 8], ya[MAX_N * 8], yb[MAX_N * 8];
static int32_t index_[MAX_N];
static const mn_dtype types[] = {MN_F32, MN_BF16, MN_F64, MN_I32, MN_I64, MN_BOOL};
enum { TYPES = 6 };

static void fill(void *p, mn_dtype t, int64_t n) {
  for (int64_t i = 0; i < n; i++) put(p, t, i, trunc(draw(-99, 99)));
}
static void run2(const mn_op *op, const void *attr, int n_in, mn_view *in, mn_view out) {
  out.data = yb;
  CHECK(run_kernel(mn_cpu_move_kernels, op, attr, n_in, in, 1, &out, pool2), "no kernel of %s", op->name);
  out.data = ya;
  run_kernel(mn_cpu_move_kernels, op, attr, n_in, in, 1, &out, NULL);
  CHECK(!memcmp(ya, yb, (size_t)mn_view_count(&out) * mn_dtype_size(out.dtype)), "%s: one and two threads differ", op->name);
}

static void copy_one_isa(void) {
  static const int64_t shapes[][4] = {{1, 1, 1, 1}, {2, 37, 5, 64}, {1, 1, 301, 517}, {3, 17, 129, 9}, {1, 1, 1, 100000}};
  static const int orders[][4] = {{0, 1, 2, 3}, {0, 2, 1, 3}, {0, 1, 3, 2}, {3, 2, 1, 0}, {1, 3, 0, 2}, {2, 3, 1, 0}};
  for (int ti = 0; ti < TYPES; ti++) {
    mn_dtype t = types[ti];
    fill(x, t, MAX_N);
    for (int s = 0; s < 5; s++)
      for (int o = 0; o < 8; o++) {
        mn_view d = dense(x, t, 4, shapes[s]), v = d;
        if (o < 6)
          for (int k = 0; k < 4; k++) v.dim[k] = d.dim[orders[o][k]], v.stride[k] = d.stride[orders[o][k]];
        else if (o == 6) v.stride[1] = v.stride[3] = 0;
        else v.dim[3] = (v.dim[3] + 1) / 2, v.stride[3] = 2;
        run2(&mn_op_copy, NULL, 1, &v, dense(NULL, t, 4, v.dim));
        int64_t wrong = 0, n = mn_view_count(&v);
        for (int64_t i = 0; i < n; i++) wrong += get(ya, t, i) != get(x, t, at(&v, i));
        CHECK(wrong == 0, "copy %s shape %d order %d: %lld wrong", mn_dtype_name(t), s, o, (long long)wrong);
      }
  }
}
static void test_copy(void) { each_isa(copy_one_isa); }

static void test_concat_pad(void) {
  for (int ti = 0; ti < TYPES; ti++)
    for (int axis = 0; axis < 3; axis++) {
      mn_dtype t = types[ti];
      fill(x, t, MAX_N);
      int64_t dim[3][3] = {{4, 5, 6}, {4, 5, 6}, {4, 5, 6}}, out_dim[3] = {4, 5, 6};
      dim[1][axis] = 1, dim[2][axis] = 9;
      out_dim[axis] += 10;
      mn_view in[3] = {dense(x, t, 3, dim[0]), dense(x, t, 3, dim[1]), dense(x, t, 3, dim[2])};
      in[0].stride[0] = 1, in[0].stride[1] = 24, in[0].stride[2] = 4; /* permuted */
      in[2].stride[0] = 0;
      mn_view out = dense(ya, t, 3, out_dim);
      run2(&mn_op_concat, &(mn_axis_attr){axis}, 3, in, out);
      int wrong = 0;
      for (int64_t i = 0; i < mn_view_count(&out); i++) {
        int64_t k[3] = {i / out.stride[0], i / out.stride[1] % out_dim[1], i % out_dim[2]}, part = 0;
        while (k[axis] >= dim[part][axis]) k[axis] -= dim[part++][axis];
        const mn_view *v = &in[part];
        wrong += get(ya, t, i) != get(x, t, k[0] * v->stride[0] + k[1] * v->stride[1] + k[2] * v->stride[2]);
      }
      CHECK(wrong == 0, "concat %s axis %d: %d wrong", mn_dtype_name(t), axis, wrong);

      mn_pad_attr a = {axis, 2, axis == 1 ? 0 : 3};
      memcpy(out_dim, dim[0], sizeof out_dim);
      out_dim[axis] += a.before + a.after;
      out = dense(ya, t, 3, out_dim);
      run2(&mn_op_pad, &a, 1, in, out);
      wrong = 0;
      for (int64_t i = 0; i < mn_view_count(&out); i++) {
        int64_t k[3] = {i / out.stride[0], i / out.stride[1] % out_dim[1], i % out_dim[2]};
        k[axis] -= a.before;
        bool inside = k[axis] >= 0 && k[axis] < dim[0][axis];
        double want = inside ? get(x, t, k[0] * in[0].stride[0] + k[1] * in[0].stride[1] + k[2] * in[0].stride[2]) : 0;
        wrong += get(ya, t, i) != want;
      }
      CHECK(wrong == 0, "pad %s axis %d: %d wrong", mn_dtype_name(t), axis, wrong);
    }
}

/* x [B, S, P, Q] and its views; idx [B, t] or [t1, t2] */
static void test_take(void) {
  for (int ti = 0; ti < TYPES; ti++)
    for (int b = 0; b < 2; b++)
      for (int layout = 0; layout < 3; layout++) {
        mn_dtype t = types[ti];
        fill(x, t, MAX_N);
        int64_t dim[4] = {3, 50, 7, 33}, idim[2] = {3, 41};
        mn_view v = dense(x, t, b ? 4 : 3, b ? dim : dim + 1);
        if (layout == 1) v.stride[v.ndim - 1] = 7, v.stride[v.ndim - 2] = 1;
        if (layout == 2) v.stride[v.ndim - 3] *= 2, v.dim[v.ndim - 3] = 20; /* every other row */
        int64_t limit = v.dim[v.ndim - 3], row = 7 * 33;
        for (int i = 0; i < 123; i++) index_[i] = (int32_t)draw(-3, (double)limit + 3);
        mn_view in[2] = {v, dense(index_, MN_I32, 2, idim)};
        in[1].stride[0] = 1, in[1].stride[1] = 3;
        int64_t odim[4] = {3, 41, 7, 33};
        run2(&mn_op_take, &(mn_take_attr){.batch_dims = b}, 2, in, dense(NULL, t, 4, odim));
        int64_t wrong = 0;
        for (int64_t i = 0; i < 123; i++) {
          int32_t s = index_[at(&in[1], i)];
          mn_view r = v; /* one row */
          for (int k = 0; k < 2; k++) r.dim[k] = v.dim[v.ndim - 2 + k], r.stride[k] = v.stride[v.ndim - 2 + k];
          r.ndim = 2;
          for (int64_t e = 0; e < row; e++) {
            double want = s < 0 || s >= limit ? 0 : get(x, t, (b ? i / 41 * v.stride[0] : 0) + s * v.stride[b] + at(&r, e));
            wrong += get(ya, t, i * row + e) != want;
          }
        }
        CHECK(wrong == 0, "take %s batch %d layout %d: %lld wrong", mn_dtype_name(t), b, layout, (long long)wrong);
      }
}

static void put_one_isa(void) {
  for (int ti = 0; ti < TYPES; ti++)
    for (int b = 0; b < 2; b++)
      for (int add = 0; add < 2; add++)
        for (int layout = 0; layout < 3; layout++) {
          mn_dtype t = types[ti];
          if (add && t == MN_BOOL) continue;
          int64_t dim[3] = {3, 70, 1100}, idim[2] = {3, 50}, udim[3] = {3, 50, 1100};
          if (layout == 2) dim[2] = udim[2] = 5;
          int64_t n = dim[2], batches = b ? 3 : 1;
          fill(x, t, MAX_N);
          fill(u, t, MAX_N);
          for (int64_t g = 0; g < 3; g++)
            for (int64_t k = 0; k < 50; k++) /* with add, many updates of one row */
              index_[g * 50 + k] = add ? (int32_t)draw(-4, 20) : k % 9 == 8 ? 70 : (int32_t)((k * 3 + g) % 70);
          if (!add)
            for (int64_t g = 0; g < 3; g++)
              for (int64_t k = 0; k < 50; k++) /* 3k+g mod 70 repeats from k = 24 on: drop those */
                if (k >= 23) index_[g * 50 + k] = -1;
          mn_view in[3] = {dense(x, t, 2 + b, b ? dim : dim + 1), dense(index_, MN_I32, 1 + b, b ? idim : idim + 1),
                           dense(u, t, 2 + b, b ? udim : udim + 1)};
          if (layout == 1) in[2].stride[b] = 1, in[2].stride[b + 1] = 50; /* transposed updates */
          static double want[MAX_N];
          for (int64_t i = 0; i < batches * 70 * n; i++) want[i] = get(x, t, i);
          for (int64_t g = 0; g < batches; g++)
            for (int64_t k = 0; k < 50; k++) {
              int32_t s = index_[g * 50 + k];
              if (s < 0 || s >= 70) continue;
              for (int64_t e = 0; e < n; e++) {
                double v = get(u, t, (b ? g * in[2].stride[0] : 0) + k * in[2].stride[b] + e * in[2].stride[b + 1]);
                double *w = &want[(g * 70 + s) * n + e];
                *w = add ? *w + v : v;
              }
            }
          mn_take_attr a = {.batch_dims = b, .add = add};
          mn_view out = in[0];
          run2(&mn_op_put, &a, 3, in, out);
          double worst = 0;
          for (int64_t i = 0; i < batches * 70 * n; i++) {
            double e = relative(get(ya, t, i), want[i], fabs(want[i]) + 1);
            if (e > worst) worst = e;
          }
          CHECK(worst <= (t == MN_BF16 ? 4e-3 : 0), "put %s batch %d add %d layout %d: %g", mn_dtype_name(t), b, add, layout, worst);
          out.data = x; /* in place */
          run_kernel(mn_cpu_move_kernels, &mn_op_put, &a, 3, in, 1, &out, pool2);
          CHECK(!memcmp(x, ya, (size_t)(batches * 70 * n) * mn_dtype_size(t)), "put in place differs");
        }
}
static void test_put(void) { each_isa(put_one_isa); }

static void test_topk(void) {
  for (int ti = 0; ti < 5; ti++)
    for (int strided = 0; strided < 2; strided++) {
      mn_dtype t = types[ti];
      static const int64_t sizes[][2] = {{1, 1}, {5, 5}, {3, 100}, {64, 1000}, {16, 1000}, {1, 2000}};
      for (int s = 0; s < 6; s++) {
        int64_t k = sizes[s][0], n = sizes[s][1], dim[2] = {11, n}, odim[2] = {11, k};
        for (int64_t i = 0; i < 11 * n; i++) put(x, t, i, trunc(draw(-300, 300)));
        mn_view v = dense(x, t, 2, dim);
        if (strided) v.stride[0] = 1, v.stride[1] = 11;
        run2(&mn_op_topk, NULL, 1, &v, dense(NULL, MN_I32, 2, odim));
        int wrong = 0;
        for (int64_t r = 0; r < 11; r++) {
          static bool taken[2000];
          memset(taken, 0, sizeof taken);
          for (int64_t m = 0; m < k; m++) {
            int64_t best = -1;
            for (int64_t i = 0; i < n; i++)
              if (!taken[i] && (best < 0 || get(x, t, at(&v, r * n + i)) > get(x, t, at(&v, r * n + best)))) best = i;
            taken[best] = true;
            wrong += ((int32_t *)ya)[r * k + m] != best;
          }
        }
        CHECK(wrong == 0, "topk %s %lld of %lld: %d wrong", mn_dtype_name(t), (long long)k, (long long)n, wrong);
      }
    }
}

static void test_iota(void) {
  for (int ti = 0; ti < 5; ti++)
    for (int axis = 0; axis < 3; axis++) {
      mn_dtype t = types[ti];
      int64_t dim[3] = {7, 120, 41}, div[3] = {120 * 41, 41, 1};
      mn_view out = dense(NULL, t, 3, dim);
      run2(&mn_op_iota, &(mn_iota_attr){axis}, 0, NULL, out);
      int wrong = 0;
      for (int64_t i = 0; i < 7 * 120 * 41; i++) wrong += get(ya, t, i) != (double)(i / div[axis] % dim[axis]);
      CHECK(wrong == 0, "iota %s axis %d: %d wrong", mn_dtype_name(t), axis, wrong);
    }
}

static void test_random(void) {
  for (int normal = 0; normal < 2; normal++)
    for (int64_t n = 49999; n <= 50000; n++) {
      int64_t step = -3;
      mn_random_attr a = {.key = 0x123456789abcdefull, .normal = normal};
      mn_view in = {.data = &step, .dtype = MN_I64};
      run2(&mn_op_random, &a, 1, &in, dense(NULL, MN_F32, 1, &n));
      int wrong = 0;
      for (int64_t i = 0; i < n; i++) {
        double w = normal ? mn_random_normal(a.key, (uint64_t)step, (uint64_t)i) : mn_random_uniform(a.key, (uint64_t)step, (uint64_t)i);
        wrong += ((float *)ya)[i] != (float)w;
      }
      CHECK(wrong == 0, "random, normal %d: %d of %lld differ", normal, wrong, (long long)n);
    }
}

int main(void) {
  pool2 = mn_pool_new(2);
  cpu = (mn_cpu){.isa = last_tested_isa()};
  cpu.backend.impl = &cpu;
  RUN(test_copy);
  RUN(test_concat_pad);
  RUN(test_take);
  RUN(test_put);
  RUN(test_topk);
  RUN(test_iota);
  RUN(test_random);
  mn_pool_free(pool2);
  return test_end();
}
