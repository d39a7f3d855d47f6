/* elementwise.c - the instructions of element-wise programs, one loop each: f32 with the vectors of vec.h, the other types
 * as plain loops that the compiler vectorises. No shapes, no programs here: see cpu/elementwise.c. */
#include "backend/cpu/isa/elementwise.h"
#include "backend/cpu/isa/vecmath.h"

/* An operand may be written in place: element i is read before it is written, so there is no dependence between
 * iterations, which the compiler cannot see. */
#if defined(__clang__) /* whose pragma warns of each loop that cannot be vectorised for another reason */
#define INDEPENDENT
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif
#define ARGS void *py, const void *pa, const void *pb, const void *pc, int64_t n, unsigned scalar

/* ---- f32 ---- */
#define UNARY_F32(name, expr)                                                                                                              \
  static void f32_##name(ARGS) {                                                                                                           \
    (void)pb, (void)pc, (void)scalar;                                                                                                      \
    float *y = py;                                                                                                                         \
    const float *a = pa;                                                                                                                   \
    int64_t i = 0;                                                                                                                         \
    for (; i + MN_VL <= n; i += MN_VL) {                                                                                                   \
      vf x = vf_load(a + i);                                                                                                               \
      vf_store(y + i, expr);                                                                                                               \
    }                                                                                                                                      \
    if (i < n) {                                                                                                                           \
      vf x = vf_loadn(a + i, (int)(n - i));                                                                                                \
      vf_storen(y + i, expr, (int)(n - i));                                                                                                \
    }                                                                                                                                      \
  }
UNARY_F32(neg, -x)
UNARY_F32(abs, vf_abs(x))
UNARY_F32(sign, vf_select(vf_lt(vf_zero(), x), vf_set1(1), vf_select(vf_lt(x, vf_zero()), vf_set1(-1), x)))
UNARY_F32(sqrt, vf_sqrt(x))
UNARY_F32(rsqrt, vf_rsqrt(x))
UNARY_F32(recip, 1.0f / x)
UNARY_F32(exp, vf_exp(x))
UNARY_F32(log, vf_log(x))
UNARY_F32(log1p, vf_log1p(x))
UNARY_F32(sin, vf_sin(x))
UNARY_F32(cos, vf_cos(x))
UNARY_F32(tanh, vf_tanh(x))
UNARY_F32(sigmoid, vf_sigmoid(x))
UNARY_F32(silu, x *vf_sigmoid(x))
UNARY_F32(silu_slope, vf_silu_slope(x))
UNARY_F32(erf, vf_erf(x))
UNARY_F32(normal_cdf, vf_normal_cdf(x))
UNARY_F32(normal_pdf, vf_normal_pdf(x))
UNARY_F32(softplus, vf_softplus(x))
UNARY_F32(floor, vf_floor(x))
UNARY_F32(round_bf16, vf_round_bf16(x))

/* A loop over vectors with up to three operands, each a vector or one value for all; `scalar` is a constant where it is
 * inlined, so each combination gets a loop without tests. */
#define BINARY_F32(name, type_y, store, expr)                                                                                              \
  MN_INLINE void loop_##name(type_y *y, const float *a, const float *b, int64_t n, unsigned scalar) {                                      \
    int64_t i = 0;                                                                                                                         \
    vf s = vf_set1(scalar & 1 ? *a : scalar & 2 ? *b : 0.0f);                                                                              \
    for (; i + MN_VL <= n; i += MN_VL) {                                                                                                   \
      vf u = scalar & 1 ? s : vf_load(a + i), v = scalar & 2 ? s : vf_load(b + i);                                                         \
      store(y + i, expr);                                                                                                                  \
    }                                                                                                                                      \
    if (i < n) {                                                                                                                           \
      int rest = (int)(n - i);                                                                                                             \
      vf u = scalar & 1 ? s : vf_loadn(a + i, rest), v = scalar & 2 ? s : vf_loadn(b + i, rest);                                           \
      store##n(y + i, expr, rest);                                                                                                         \
    }                                                                                                                                      \
  }                                                                                                                                        \
  static void f32_##name(ARGS) {                                                                                                           \
    (void)pc;                                                                                                                              \
    if (scalar & 1) loop_##name(py, pa, pb, n, 1);                                                                                         \
    else if (scalar & 2) loop_##name(py, pa, pb, n, 2);                                                                                    \
    else loop_##name(py, pa, pb, n, 0);                                                                                                    \
  }
MN_INLINE vf mod_f32(vf a, vf b) { /* exact, as fmod is; then the divisor's sign */
  for (int i = 0; i < MN_VL; i++) {
    float r = fmodf(a[i], b[i]);
    a[i] = r != 0 && (r < 0) != (b[i] < 0) ? r + b[i] : r;
  }
  return a;
}
BINARY_F32(add, float, vf_store, u + v)
BINARY_F32(sub, float, vf_store, u - v)
BINARY_F32(mul, float, vf_store, u *v)
BINARY_F32(div, float, vf_store, u / v)
BINARY_F32(maximum, float, vf_store, vf_max_nan(u, v))
BINARY_F32(minimum, float, vf_store, vf_min_nan(u, v))
BINARY_F32(pow, float, vf_store, vf_pow(u, v))
BINARY_F32(mod, float, vf_store, mod_f32(u, v))
BINARY_F32(lt, uint8_t, vm_store_bool, vf_lt(u, v))
BINARY_F32(le, uint8_t, vm_store_bool, vf_le(u, v))
BINARY_F32(eq, uint8_t, vm_store_bool, vf_eq(u, v))

MN_INLINE void loop_fma(float *y, const float *a, const float *b, const float *c, int64_t n, unsigned scalar) {
  int64_t i = 0;
  vf sa = vf_set1(*a), sb = vf_set1(*b), sc = vf_set1(*c);
  for (; i + MN_VL <= n; i += MN_VL)
    vf_store(y + i, vf_fma(scalar & 1 ? sa : vf_load(a + i), scalar & 2 ? sb : vf_load(b + i), scalar & 4 ? sc : vf_load(c + i)));
  if (i < n) {
    int rest = (int)(n - i);
    vf_storen(
        y + i,
        vf_fma(scalar & 1 ? sa : vf_loadn(a + i, rest), scalar & 2 ? sb : vf_loadn(b + i, rest), scalar & 4 ? sc : vf_loadn(c + i, rest)),
        rest);
  }
}
static void f32_fma(ARGS) {
  switch (scalar & 7) {
  case 0:
    loop_fma(py, pa, pb, pc, n, 0);
    break;
  case 1:
    loop_fma(py, pa, pb, pc, n, 1);
    break;
  case 2:
    loop_fma(py, pa, pb, pc, n, 2);
    break;
  case 3:
    loop_fma(py, pa, pb, pc, n, 3);
    break;
  case 4:
    loop_fma(py, pa, pb, pc, n, 4);
    break;
  case 5:
    loop_fma(py, pa, pb, pc, n, 5);
    break;
  default:
    loop_fma(py, pa, pb, pc, n, 6);
    break;
  }
}

MN_INLINE void loop_select(float *y, const uint8_t *c, const float *a, const float *b, int64_t n, unsigned scalar) {
  int64_t i = 0;
  vf sa = vf_set1(*a), sb = vf_set1(*b);
  for (; i + MN_VL <= n; i += MN_VL)
    vf_store(y + i, vf_select(vm_load_bool(c + i), scalar & 2 ? sa : vf_load(a + i), scalar & 4 ? sb : vf_load(b + i)));
  if (i < n) {
    int rest = (int)(n - i);
    vf_storen(y + i,
              vf_select(vm_load_booln(c + i, rest), scalar & 2 ? sa : vf_loadn(a + i, rest), scalar & 4 ? sb : vf_loadn(b + i, rest)),
              rest);
  }
}
static void f32_select(ARGS) {
  if (scalar & 1) { /* one truth value: copy or fill from one side */
    const float *from = *(const uint8_t *)pa ? pb : pc;
    int64_t step = scalar & (*(const uint8_t *)pa ? 2 : 4) ? 0 : 1;
    float *y = py;
    for (int64_t i = 0; i < n; i++) y[i] = from[i * step];
    return;
  }
  switch (scalar & 6) {
  case 0:
    loop_select(py, pa, pb, pc, n, 0);
    break;
  case 2:
    loop_select(py, pa, pb, pc, n, 2);
    break;
  case 4:
    loop_select(py, pa, pb, pc, n, 4);
    break;
  default:
    loop_select(py, pa, pb, pc, n, 6);
    break;
  }
}

/* ---- the other types ---- */
#define UNARY(prefix, name, T, R, expr)                                                                                                    \
  static void prefix##_##name(ARGS) {                                                                                                      \
    (void)pb, (void)pc, (void)scalar;                                                                                                      \
    R *y = py;                                                                                                                             \
    const T *a = pa;                                                                                                                       \
    INDEPENDENT for (int64_t i = 0; i < n; i++) {                                                                                          \
      T x = a[i];                                                                                                                          \
      y[i] = (R)(expr);                                                                                                                    \
    }                                                                                                                                      \
  }
#define BINARY(prefix, name, T, R, expr)                                                                                                   \
  static void prefix##_##name(ARGS) {                                                                                                      \
    (void)pc;                                                                                                                              \
    R *y = py;                                                                                                                             \
    const T *a = pa, *b = pb;                                                                                                              \
    if (scalar & 1) {                                                                                                                      \
      T u = *a;                                                                                                                            \
      INDEPENDENT for (int64_t i = 0; i < n; i++) {                                                                                        \
        T v = b[i];                                                                                                                        \
        y[i] = (R)(expr);                                                                                                                  \
      }                                                                                                                                    \
    } else if (scalar & 2) {                                                                                                               \
      T v = *b;                                                                                                                            \
      INDEPENDENT for (int64_t i = 0; i < n; i++) {                                                                                        \
        T u = a[i];                                                                                                                        \
        y[i] = (R)(expr);                                                                                                                  \
      }                                                                                                                                    \
    } else {                                                                                                                               \
      INDEPENDENT for (int64_t i = 0; i < n; i++) {                                                                                        \
        T u = a[i], v = b[i];                                                                                                              \
        y[i] = (R)(expr);                                                                                                                  \
      }                                                                                                                                    \
    }                                                                                                                                      \
  }
#define SELECT(prefix, T)                                                                                                                  \
  static void prefix##_select(ARGS) {                                                                                                      \
    T *y = py;                                                                                                                             \
    const uint8_t *c = pa;                                                                                                                 \
    const T *a = pb, *b = pc;                                                                                                              \
    int64_t sc = !(scalar & 1), sa = !(scalar & 2), sb = !(scalar & 4);                                                                    \
    for (int64_t i = 0; i < n; i++) y[i] = c[i * sc] ? a[i * sa] : b[i * sb];                                                              \
  }

MN_INLINE double sign_f64(double x) { return x > 0 ? 1 : x < 0 ? -1 : x; }
MN_INLINE double mod_f64(double u, double v) {
  double r = fmod(u, v);
  return r != 0 && (r < 0) != (v < 0) ? r + v : r;
}
MN_INLINE double softplus_f64(double x) { return (x > 0 ? x : 0) + log1p(exp(-fabs(x))); }
UNARY(f64, neg, double, double, -x)
UNARY(f64, abs, double, double, fabs(x))
UNARY(f64, sign, double, double, sign_f64(x))
UNARY(f64, sqrt, double, double, sqrt(x))
UNARY(f64, rsqrt, double, double, 1 / sqrt(x))
UNARY(f64, recip, double, double, 1 / x)
UNARY(f64, exp, double, double, exp(x))
UNARY(f64, log, double, double, log(x))
UNARY(f64, log1p, double, double, log1p(x))
UNARY(f64, sin, double, double, sin(x))
UNARY(f64, cos, double, double, cos(x))
UNARY(f64, tanh, double, double, tanh(x))
UNARY(f64, sigmoid, double, double, 1 / (1 + exp(-x)))
UNARY(f64, silu, double, double, x / (1 + exp(-x)))
UNARY(f64, silu_slope, double, double, (1 + x / (1 + exp(x))) / (1 + exp(-x)))
UNARY(f64, erf, double, double, erf(x))
UNARY(f64, normal_cdf, double, double, 0.5 * erfc(-x * 0.70710678118654752440))
UNARY(f64, normal_pdf, double, double, 0.39894228040143267794 * exp(-0.5 * x * x))
UNARY(f64, softplus, double, double, x != x ? x : softplus_f64(x))
UNARY(f64, floor, double, double, floor(x))
BINARY(f64, add, double, double, u + v)
BINARY(f64, sub, double, double, u - v)
BINARY(f64, mul, double, double, u *v)
BINARY(f64, div, double, double, u / v)
BINARY(f64, maximum, double, double, u > v || u != u ? u : v)
BINARY(f64, minimum, double, double, u < v || u != u ? u : v)
BINARY(f64, pow, double, double, pow(u, v))
BINARY(f64, mod, double, double, mod_f64(u, v))
BINARY(f64, lt, double, uint8_t, u < v)
BINARY(f64, le, double, uint8_t, u <= v)
BINARY(f64, eq, double, uint8_t, u == v)
SELECT(f64, double)

/* Integers wrap; a division or remainder by zero gives 0; a negative power is 0 unless the base is 1 or -1. */
#define INTEGER(P, T, U)                                                                                                                   \
  MN_INLINE T P##_quotient(T u, T v) { return v == 0 ? 0 : v == -1 ? (T)(0 - (U)u) : u / v; }                                              \
  MN_INLINE T P##_remainder(T u, T v) {                                                                                                    \
    if (v == 0 || v == -1) return 0;                                                                                                       \
    T r = u % v;                                                                                                                           \
    return r != 0 && (r < 0) != (v < 0) ? r + v : r;                                                                                       \
  }                                                                                                                                        \
  MN_INLINE T P##_power(T u, T v) {                                                                                                        \
    if (v < 0) return u == 1 ? 1 : u == -1 ? (v & 1 ? -1 : 1) : 0;                                                                         \
    U r = 1, b = (U)u;                                                                                                                     \
    for (; v; v >>= 1, b *= b)                                                                                                             \
      if (v & 1) r *= b;                                                                                                                   \
    return (T)r;                                                                                                                           \
  }                                                                                                                                        \
  UNARY(P, neg, T, T, 0 - (U)x)                                                                                                            \
  UNARY(P, abs, T, T, x < 0 ? 0 - (U)x : (U)x)                                                                                             \
  UNARY(P, sign, T, T, (x > 0) - (x < 0))                                                                                                  \
  UNARY(P, floor, T, T, x)                                                                                                                 \
  BINARY(P, add, T, T, (U)u + (U)v)                                                                                                        \
  BINARY(P, sub, T, T, (U)u - (U)v)                                                                                                        \
  BINARY(P, mul, T, T, (U)u *(U)v)                                                                                                         \
  BINARY(P, div, T, T, P##_quotient(u, v))                                                                                                 \
  BINARY(P, maximum, T, T, u > v ? u : v)                                                                                                  \
  BINARY(P, minimum, T, T, u < v ? u : v)                                                                                                  \
  BINARY(P, pow, T, T, P##_power(u, v))                                                                                                    \
  BINARY(P, mod, T, T, P##_remainder(u, v))                                                                                                \
  BINARY(P, lt, T, uint8_t, u < v)                                                                                                         \
  BINARY(P, le, T, uint8_t, u <= v)                                                                                                        \
  BINARY(P, eq, T, uint8_t, u == v)                                                                                                        \
  SELECT(P, T)
INTEGER(i32, int32_t, uint32_t)
INTEGER(i64, int64_t, uint64_t)

UNARY(bool, not, uint8_t, uint8_t, !x)
BINARY(bool, and, uint8_t, uint8_t, u &&v)
BINARY(bool, or, uint8_t, uint8_t, u || v)
BINARY(bool, eq, uint8_t, uint8_t, !u == !v)
BINARY(bool, lt, uint8_t, uint8_t, !u && v)
BINARY(bool, le, uint8_t, uint8_t, !u || v)
SELECT(bool, uint8_t)

/* ---- casts ---- */
#define CASTS(from, T)                                                                                                                     \
  UNARY(cast_##from, f32, T, float, x)                                                                                                     \
  UNARY(cast_##from, f64, T, double, x)                                                                                                    \
  UNARY(cast_##from, i32, T, int32_t, x)                                                                                                   \
  UNARY(cast_##from, i64, T, int64_t, x)                                                                                                   \
  UNARY(cast_##from, bool, T, uint8_t, x != 0)                                                                                             \
  UNARY(cast_##from, bf16, T, uint16_t, bf16_from_f32((float)x))
#define ROUND_BF16(from, T) UNARY(from, round_bf16, T, float, bf16_to_f32(bf16_from_f32((float)x)))
ROUND_BF16(f64, double)
ROUND_BF16(i32, int32_t)
ROUND_BF16(i64, int64_t)
CASTS(f64, double)
CASTS(i32, int32_t)
CASTS(i64, int64_t)
UNARY(cast_f32, f64, float, double, x)
UNARY(cast_f32, i32, float, int32_t, x)
UNARY(cast_f32, i64, float, int64_t, x)
UNARY(cast_f32, bool, float, uint8_t, x != 0)
UNARY(cast_bool, f32, uint8_t, float, x ? 1 : 0)
UNARY(cast_bool, f64, uint8_t, double, x ? 1 : 0)
UNARY(cast_bool, i32, uint8_t, int32_t, x ? 1 : 0)
UNARY(cast_bool, i64, uint8_t, int64_t, x ? 1 : 0)
UNARY(cast_bool, bf16, uint8_t, uint16_t, x ? 0x3f80 : 0)
UNARY(cast_bf16, f64, uint16_t, double, bf16_to_f32(x))
UNARY(cast_bf16, i32, uint16_t, int32_t, bf16_to_f32(x))
UNARY(cast_bf16, i64, uint16_t, int64_t, bf16_to_f32(x))
UNARY(cast_bf16, bool, uint16_t, uint8_t, (x & 0x7fff) != 0)

static void cast_f32_bf16(ARGS) {
  (void)pb, (void)pc, (void)scalar;
  uint16_t *y = py;
  const float *a = pa;
  int64_t i = 0;
  for (; i + 2 * MN_VL <= n; i += 2 * MN_VL) vf_store2_bf16(y + i, vf_load(a + i), vf_load(a + i + MN_VL));
  for (; i + MN_VL <= n; i += MN_VL) vf_store_bf16(y + i, vf_load(a + i));
  if (i < n) vf_store_bf16n(y + i, vf_loadn(a + i, (int)(n - i)), (int)(n - i));
}
static void cast_bf16_f32(ARGS) {
  (void)pb, (void)pc, (void)scalar;
  float *y = py;
  const uint16_t *a = pa;
  int64_t i = 0;
  for (; i + MN_VL <= n; i += MN_VL) vf_store(y + i, vf_load_bf16(a + i));
  if (i < n) vf_storen(y + i, vf_load_bf16n(a + i, (int)(n - i)), (int)(n - i));
}
#define COPY(bytes)                                                                                                                        \
  static void copy##bytes(ARGS) {                                                                                                          \
    (void)pb, (void)pc, (void)scalar;                                                                                                      \
    if (py != pa) memmove(py, pa, (size_t)n *(bytes));                                                                                     \
  }
COPY(1)
COPY(2)
COPY(4)

#define SPREAD(name, T, R, expr)                                                                                                           \
  static void spread_##name(void *py, const void *px, int64_t n, int64_t stride) {                                                         \
    R *y = py;                                                                                                                             \
    const T *from = px;                                                                                                                    \
    if (stride == 0) {                                                                                                                     \
      T x = *from;                                                                                                                         \
      R v = (R)(expr);                                                                                                                     \
      for (int64_t i = 0; i < n; i++) y[i] = v;                                                                                            \
      return;                                                                                                                              \
    }                                                                                                                                      \
    for (int64_t i = 0; i < n; i++) {                                                                                                      \
      T x = from[i * stride];                                                                                                              \
      y[i] = (R)(expr);                                                                                                                    \
    }                                                                                                                                      \
  }
SPREAD(1, uint8_t, uint8_t, x)
SPREAD(2, uint16_t, uint16_t, x)
SPREAD(4, uint32_t, uint32_t, x)
SPREAD(8, uint64_t, uint64_t, x)
SPREAD(bf16, uint16_t, uint32_t, (uint32_t)x << 16)

#define NUMERIC(P)                                                                                                                         \
  [MN_EW_NEG] = P##_neg, [MN_EW_ABS] = P##_abs, [MN_EW_SIGN] = P##_sign, [MN_EW_FLOOR] = P##_floor, [MN_EW_ADD] = P##_add,                 \
  [MN_EW_SUB] = P##_sub, [MN_EW_MUL] = P##_mul, [MN_EW_DIV] = P##_div, [MN_EW_MAXIMUM] = P##_maximum, [MN_EW_MINIMUM] = P##_minimum,       \
  [MN_EW_POW] = P##_pow, [MN_EW_MOD] = P##_mod, [MN_EW_LT] = P##_lt, [MN_EW_LE] = P##_le, [MN_EW_EQ] = P##_eq, [MN_EW_SELECT] = P##_select
#define REAL(P)                                                                                                                            \
  [MN_EW_SQRT] = P##_sqrt, [MN_EW_RSQRT] = P##_rsqrt, [MN_EW_RECIP] = P##_recip, [MN_EW_EXP] = P##_exp, [MN_EW_LOG] = P##_log,             \
  [MN_EW_LOG1P] = P##_log1p, [MN_EW_SIN] = P##_sin, [MN_EW_COS] = P##_cos, [MN_EW_TANH] = P##_tanh, [MN_EW_SIGMOID] = P##_sigmoid,         \
  [MN_EW_ERF] = P##_erf, [MN_EW_SOFTPLUS] = P##_softplus, [MN_EW_SILU] = P##_silu, [MN_EW_SILU_SLOPE] = P##_silu_slope,                    \
  [MN_EW_NORMAL_CDF] = P##_normal_cdf, [MN_EW_NORMAL_PDF] = P##_normal_pdf
#define CAST_ROW(from)                                                                                                                     \
  [MN_F32] = cast_##from##_f32, [MN_F64] = cast_##from##_f64, [MN_BF16] = cast_##from##_bf16, [MN_I32] = cast_##from##_i32,                \
  [MN_I64] = cast_##from##_i64, [MN_BOOL] = cast_##from##_bool
#define cast_f32_f32   copy4
#define cast_bf16_bf16 copy2
#define cast_bool_bool copy1

const mn_ew_vec MN_ISA_NAME(mn_ew_table) = {
    .f32 = {NUMERIC(f32), REAL(f32)},
    .f64 = {NUMERIC(f64), REAL(f64)},
    .i32 = {NUMERIC(i32)},
    .i64 = {NUMERIC(i64)},
    .boolean = {[MN_EW_NOT] = bool_not,
                [MN_EW_AND] = bool_and,
                [MN_EW_OR] = bool_or,
                [MN_EW_EQ] = bool_eq,
                [MN_EW_LT] = bool_lt,
                [MN_EW_LE] = bool_le,
                [MN_EW_SELECT] = bool_select},
    .fma_f32 = f32_fma,
    .cast = {[MN_F32] = {CAST_ROW(f32)},
             [MN_F64] = {CAST_ROW(f64)},
             [MN_BF16] = {CAST_ROW(bf16)},
             [MN_I32] = {CAST_ROW(i32)},
             [MN_I64] = {CAST_ROW(i64)},
             [MN_BOOL] = {CAST_ROW(bool)}},
    .round_bf16 = {[MN_F32] = f32_round_bf16,
                   [MN_F64] = f64_round_bf16,
                   [MN_I32] = i32_round_bf16,
                   [MN_I64] = i64_round_bf16,
                   [MN_BOOL] = cast_bool_f32},
    .spread = {spread_1, spread_2, spread_4, spread_8, spread_bf16},
};
