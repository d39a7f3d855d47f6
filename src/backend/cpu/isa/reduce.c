/* reduce.c - the inner loops of reductions: along a row, and down columns. Orders are fixed: a row is summed in four vectors
 * of partial sums, columns row by row. No shapes here: see cpu/reduce.c. */
#include "backend/cpu/isa/reduce.h"
#include "backend/cpu/isa/vec.h"

/* ---- f32 and bf16, dense: vectors ---- */
MN_INLINE vf get_f32(const float *p) { return vf_load(p); }
MN_INLINE vf getn_f32(const float *p, int n) { return vf_loadn(p, n); }
MN_INLINE vf get_bf16(const uint16_t *p) { return vf_load_bf16(p); }
MN_INLINE vf getn_bf16(const uint16_t *p, int n) { return vf_load_bf16n(p, n); }
MN_INLINE float one_f32(const float *p) { return *p; }
MN_INLINE float one_bf16(const uint16_t *p) { return bf16_to_f32(*p); }

MN_INLINE vf fold_sum(vf acc, vf x) { return acc + x; }
MN_INLINE vf fold_sumsq(vf acc, vf x) { return vf_fma(x, x, acc); }
MN_INLINE vf fold_max(vf acc, vf x) { return vf_max_nan(acc, x); }
MN_INLINE double scalar_sum(double acc, double x) { return acc + x; }
MN_INLINE double scalar_sumsq(double acc, double x) { return acc + x * x; }
MN_INLINE double scalar_max(double acc, double x) { return x > acc || x != x ? x : acc; }
MN_INLINE float across_sum(vf a) { return vf_sum(a); }
MN_INLINE float across_max(vf a) { /* NaN too */
  float t[MN_VL];
  vf_store(t, a);
  float m = t[0];
  for (int i = 1; i < MN_VL; i++) m = (float)scalar_max(m, t[i]);
  return m;
}
#define across_sumsq      across_sum
#define scalar_join_sum   scalar_sum
#define scalar_join_sumsq scalar_sum
#define scalar_join_max   scalar_max
#define join_sum(a, b)    ((a) + (b))
#define join_sumsq(a, b)  ((a) + (b))
#define join_max(a, b)    vf_max_nan(a, b)
static const float start_sum = 0, start_sumsq = 0, start_max = -INFINITY;

#define FLOAT_FOLDS(fold, type, T)                                                                                                         \
  static void row_##fold##_##type(void *acc, const void *px, int64_t n, int64_t stride) {                                                  \
    const T *x = px;                                                                                                                       \
    float *out = acc;                                                                                                                      \
    if (stride != 1) {                                                                                                                     \
      double s = *out; /* one chain of additions: f32 would drift */                                                                       \
      for (int64_t i = 0; i < n; i++) s = scalar_##fold(s, one_##type(x + i * stride));                                                    \
      *out = (float)s;                                                                                                                     \
      return;                                                                                                                              \
    }                                                                                                                                      \
    vf a0 = vf_set1(start_##fold), a1 = a0, a2 = a0, a3 = a0;                                                                              \
    int64_t i = 0;                                                                                                                         \
    for (; i + 4 * MN_VL <= n; i += 4 * MN_VL) {                                                                                           \
      a0 = fold_##fold(a0, get_##type(x + i));                                                                                             \
      a1 = fold_##fold(a1, get_##type(x + i + MN_VL));                                                                                     \
      a2 = fold_##fold(a2, get_##type(x + i + 2 * MN_VL));                                                                                 \
      a3 = fold_##fold(a3, get_##type(x + i + 3 * MN_VL));                                                                                 \
    }                                                                                                                                      \
    for (; i + MN_VL <= n; i += MN_VL) a0 = fold_##fold(a0, get_##type(x + i));                                                            \
    if (i < n) a1 = vf_select(vm_first((int)(n - i)), fold_##fold(a1, getn_##type(x + i, (int)(n - i))), a1);                              \
    *out = (float)scalar_join_##fold(*out, across_##fold(join_##fold(join_##fold(a0, a1), join_##fold(a2, a3))));                          \
  }                                                                                                                                        \
  static void columns_##fold##_##type(void *pacc, const void *px, int64_t rows, int64_t row_stride, int64_t n, int64_t stride) {           \
    const T *x = px;                                                                                                                       \
    float *acc = pacc;                                                                                                                     \
    if (stride != 1) {                                                                                                                     \
      for (int64_t r = 0; r < rows; r++)                                                                                                   \
        for (int64_t j = 0; j < n; j++) acc[j] = (float)scalar_##fold(acc[j], one_##type(x + r * row_stride + j * stride));                \
      return;                                                                                                                              \
    }                                                                                                                                      \
    int64_t j = 0;                                                                                                                         \
    for (; j + 4 * MN_VL <= n; j += 4 * MN_VL) {                                                                                           \
      vf a0 = vf_load(acc + j), a1 = vf_load(acc + j + MN_VL), a2 = vf_load(acc + j + 2 * MN_VL), a3 = vf_load(acc + j + 3 * MN_VL);       \
      const T *p = x + j;                                                                                                                  \
      for (int64_t r = 0; r < rows; r++, p += row_stride) {                                                                                \
        a0 = fold_##fold(a0, get_##type(p));                                                                                               \
        a1 = fold_##fold(a1, get_##type(p + MN_VL));                                                                                       \
        a2 = fold_##fold(a2, get_##type(p + 2 * MN_VL));                                                                                   \
        a3 = fold_##fold(a3, get_##type(p + 3 * MN_VL));                                                                                   \
      }                                                                                                                                    \
      vf_store(acc + j, a0);                                                                                                               \
      vf_store(acc + j + MN_VL, a1);                                                                                                       \
      vf_store(acc + j + 2 * MN_VL, a2);                                                                                                   \
      vf_store(acc + j + 3 * MN_VL, a3);                                                                                                   \
    }                                                                                                                                      \
    for (; j < n; j += MN_VL) {                                                                                                            \
      int w = n - j < MN_VL ? (int)(n - j) : MN_VL;                                                                                        \
      vf a = vf_loadn(acc + j, w);                                                                                                         \
      const T *p = x + j;                                                                                                                  \
      for (int64_t r = 0; r < rows; r++, p += row_stride) a = fold_##fold(a, getn_##type(p, w));                                           \
      vf_storen(acc + j, a, w);                                                                                                            \
    }                                                                                                                                      \
  }
FLOAT_FOLDS(sum, f32, float)
FLOAT_FOLDS(sum, bf16, uint16_t)
FLOAT_FOLDS(sumsq, f32, float)
FLOAT_FOLDS(sumsq, bf16, uint16_t)
FLOAT_FOLDS(max, f32, float)
FLOAT_FOLDS(max, bf16, uint16_t)

/* ---- the other types: plain loops ---- */
#define PLAIN_FOLDS(fold, type, T, A, expr)                                                                                                \
  static void row_##fold##_##type(void *acc, const void *px, int64_t n, int64_t stride) {                                                  \
    const T *p = px;                                                                                                                       \
    A s = *(A *)acc;                                                                                                                       \
    for (int64_t i = 0; i < n; i++) {                                                                                                      \
      A x = (A)p[i * stride];                                                                                                              \
      s = (A)(expr);                                                                                                                       \
    }                                                                                                                                      \
    *(A *)acc = s;                                                                                                                         \
  }                                                                                                                                        \
  static void columns_##fold##_##type(void *pacc, const void *px, int64_t rows, int64_t row_stride, int64_t n, int64_t stride) {           \
    const T *p = px;                                                                                                                       \
    A *acc = pacc;                                                                                                                         \
    for (int64_t r = 0; r < rows; r++)                                                                                                     \
      for (int64_t j = 0; j < n; j++) {                                                                                                    \
        A x = (A)p[r * row_stride + j * stride], s = acc[j];                                                                               \
        acc[j] = (A)(expr);                                                                                                                \
      }                                                                                                                                    \
  }
PLAIN_FOLDS(sum, f64, double, double, s + x)
PLAIN_FOLDS(sumsq, f64, double, double, s + x * x)
PLAIN_FOLDS(max, f64, double, double, x > s || x != x ? x : s)
PLAIN_FOLDS(sum, i32, int32_t, int64_t, (uint64_t)s + (uint64_t)x)
PLAIN_FOLDS(sum, i64, int64_t, int64_t, (uint64_t)s + (uint64_t)x)
PLAIN_FOLDS(max, i32, int32_t, int64_t, x > s ? x : s)
PLAIN_FOLDS(max, i64, int64_t, int64_t, x > s ? x : s)

/* ---- argmax ---- */
static int64_t argmax_f32(const void *px, int64_t n, int64_t stride) {
  const float *x = px;
  float best = -INFINITY;
  row_max_f32(&best, x, n, stride);
  if (best != best) {
    for (int64_t i = 0; i < n; i++)
      if (x[i * stride] != x[i * stride]) return i;
    return 0;
  }
  int64_t i = 0;
  if (stride == 1) {
    vf b = vf_set1(best);
    while (i + MN_VL <= n && !vm_any(vf_eq(vf_load(x + i), b))) i += MN_VL;
  }
  while (i < n - 1 && x[i * stride] != best) i++;
  return i;
}
static int64_t argmax_bf16(const void *px, int64_t n, int64_t stride) {
  const uint16_t *x = px;
  float best = -INFINITY;
  row_max_bf16(&best, x, n, stride);
  for (int64_t i = 0; i < n; i++) {
    float v = bf16_to_f32(x[i * stride]);
    if (v == best || v != v) return i;
  }
  return 0;
}
#define PLAIN_ARGMAX(type, T)                                                                                                              \
  static int64_t argmax_##type(const void *px, int64_t n, int64_t stride) {                                                                \
    const T *x = px;                                                                                                                       \
    int64_t best = 0;                                                                                                                      \
    for (int64_t i = 0; i < n; i++) {                                                                                                      \
      if (x[i * stride] != x[i * stride]) return i;                                                                                        \
      if (x[i * stride] > x[best * stride]) best = i;                                                                                      \
    }                                                                                                                                      \
    return best;                                                                                                                           \
  }
PLAIN_ARGMAX(f64, double)
PLAIN_ARGMAX(i32, int32_t)
PLAIN_ARGMAX(i64, int64_t)

/* ---- running sums ---- kept in f64 (i64), so that long ones stay accurate */
#define CUMSUM(type, T, A, U, get, set)                                                                                                    \
  static void cumsum_##type(void *py, const void *px, int64_t n, int64_t inner, int64_t width, bool reverse) {                             \
    const T *x = px;                                                                                                                       \
    T *y = py;                                                                                                                             \
    A acc[MN_CUMSUM_WIDTH] = {0};                                                                                                          \
    int64_t at = reverse ? (n - 1) * inner : 0, step = reverse ? -inner : inner;                                                           \
    if (width == 1) {                                                                                                                      \
      A s = 0;                                                                                                                             \
      for (int64_t t = 0; t < n; t++, at += step) {                                                                                        \
        s = (A)((U)s + (U)get(x[at]));                                                                                                     \
        y[at] = (T)set(s);                                                                                                                 \
      }                                                                                                                                    \
      return;                                                                                                                              \
    }                                                                                                                                      \
    for (int64_t t = 0; t < n; t++, at += step)                                                                                            \
      for (int64_t j = 0; j < width; j++) {                                                                                                \
        acc[j] = (A)((U)acc[j] + (U)get(x[at + j]));                                                                                       \
        y[at + j] = (T)set(acc[j]);                                                                                                        \
      }                                                                                                                                    \
  }
#define SAME(v)    (v)
#define TO_BF16(v) bf16_from_f32((float)(v))
CUMSUM(f32, float, double, double, SAME, SAME)
CUMSUM(bf16, uint16_t, double, double, bf16_to_f32, TO_BF16)
CUMSUM(f64, double, double, double, SAME, SAME)
CUMSUM(i32, int32_t, int64_t, uint64_t, SAME, SAME)
CUMSUM(i64, int64_t, int64_t, uint64_t, SAME, SAME)

#define FLOATS(name)  [MN_F32] = name##_f32, [MN_F64] = name##_f64, [MN_BF16] = name##_bf16
#define NUMBERS(name) FLOATS(name), [MN_I32] = name##_i32, [MN_I64] = name##_i64
const mn_reduce_vec MN_ISA_NAME(mn_reduce_table) = {
    .row = {[MN_FOLD_SUM] = {NUMBERS(row_sum)}, [MN_FOLD_MAX] = {NUMBERS(row_max)}, [MN_FOLD_SUMSQ] = {FLOATS(row_sumsq)}},
    .columns = {[MN_FOLD_SUM] = {NUMBERS(columns_sum)}, [MN_FOLD_MAX] = {NUMBERS(columns_max)}, [MN_FOLD_SUMSQ] = {FLOATS(columns_sumsq)}},
    .argmax = {NUMBERS(argmax)},
    .cumsum = {NUMBERS(cumsum)},
};
