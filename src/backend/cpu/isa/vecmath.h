/* vecmath.h - elementary functions on vectors of f32. In the normal range the error is at most about two units in the last
 * place; 0, infinities, NaN and denormals give what C's functions give (only the sign of a zero may be lost).
 *
 * Each function is a reduction to a small interval and a polynomial. The polynomials are minimax fits made for these
 * intervals by Remez exchange (relative error of the function below 2^-27), rounded to f32. Where a reduction needs an
 * exact product it is written so that it holds with and without a fused multiply-add. */
#ifndef MN_VECMATH_H
#define MN_VECMATH_H

#include "backend/cpu/isa/vec.h"

/* ---- exp ---- e^x = 2^n e^r, n = round(x/ln 2) */
MN_INLINE vf vf_exp_core_(vf r) { /* e^r - 1, |r| <= 0.35 */
  vf r2 = r * r;
  vf p = vf_fma(vf_set1(0x1.6dbc66p-10f), r, vf_set1(0x1.124148p-7f));
  p = vf_fma(p, r, vf_set1(0x1.555454p-5f));
  p = vf_fma(p, r, vf_set1(0x1.555486p-3f));
  p = vf_fma(p, r, vf_set1(0.5f));
  return vf_fma(p, r2, r);
}
MN_INLINE vf vf_scale2_(vf x, vi n) { /* x 2^n for |n| <= 252, overflow and denormals right */
  vi half = n >> 1;
  return x * (vf)((vu)(half + 127) << 23) * (vf)((vu)(n - half + 127) << 23);
}
MN_INLINE vf vf_exp(vf x) {
  vf c = vf_max(vf_set1(-104.0f), vf_min(vf_set1(89.0f), x)); /* NaN passes: it is the second operand */
  vf n = vf_round(c * vf_set1(0x1.715476p+0f));
  vf r = vf_fnma(n, vf_set1(0x1.62e4p-1f), c); /* 15 bits of ln 2: the product is exact */
  r = vf_fnma(n, vf_set1(0x1.7f7d1cp-20f), r); /* the rest */
  vf p = vf_exp_core_(r) + 1.0f;
#ifdef MN_VEC_512
  return (vf)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  return vf_scale2_(p, vi_of(n));
#endif
}

/* ---- log ---- log(m 2^e) = e ln 2 + log(1+f), 1+f in [sqrt(1/2), sqrt(2)] */
MN_INLINE vf vf_log_core_(vf f, vf e) {
  vf f2 = f * f;
  vf p = vf_fma(vf_set1(0x1.153d74p-4f), f, vf_set1(-0x1.dfc4e8p-4f));
  p = vf_fma(p, f, vf_set1(0x1.e760c2p-4f));
  p = vf_fma(p, f, vf_set1(-0x1.fbed1ap-4f));
  p = vf_fma(p, f, vf_set1(0x1.232ce2p-3f));
  p = vf_fma(p, f, vf_set1(-0x1.555d4ep-3f));
  p = vf_fma(p, f, vf_set1(0x1.99a538p-3f));
  p = vf_fma(p, f, vf_set1(-0x1.000006p-2f));
  p = vf_fma(p, f, vf_set1(0x1.555546p-2f));
  vf tail = vf_fma(p * f, f2, vf_fma(e, vf_set1(0x1.7f7d1cp-20f), f2 * -0.5f));
  return vf_fma(e, vf_set1(0x1.62e4p-1f), f + tail);
}
/* x = (1+f) 2^e for normal positive x; returns the bits of the exponent that was taken out */
MN_INLINE vi vf_log_split_(vf x, vf *f) {
  vi e = (vi)((vu)x - 0x3f3504f3u) >> 23; /* 0x3f3504f3: sqrt(1/2) */
  *f = (vf)((vu)x - ((vu)e << 23)) - 1.0f;
  return e;
}
MN_INLINE vf vf_log_special_(vf x, vf y) { /* the ends: log 0, log inf, log of NaN and of negatives */
  vf inf = vf_set1(INFINITY);
  y = vf_select(vf_lt(x, inf), y, x); /* +inf and NaN pass through */
  y = vf_select(vf_eq(x, vf_zero()), -inf, y);
  return vf_select(vf_lt(x, vf_zero()), vf_set1(NAN), y);
}
MN_INLINE vf vf_log(vf x) {
  vm tiny = vf_lt(x, vf_set1(0x1p-126f));
  vf f, scaled = vf_select(tiny, x * 0x1p24f, x);
  vf e = vf_of(vf_log_split_(scaled, &f)) - vf_select(tiny, vf_set1(24.0f), vf_zero());
  return vf_log_special_(x, vf_log_core_(f, e));
}
MN_INLINE vf vf_log1p(vf x) {
  vf u = x + 1.0f, t = u - 1.0f;
  vf lost = (1.0f - (u - t)) + (x - t); /* 1 + x = u + lost exactly */
  vf f;
  vi e = vf_log_split_(u, &f);
  /* The lost part in the scale of 1+f. Past e = 126 the scale underflows to 0, where nothing was lost. */
  vf scale = (vf)((vu)(127 - vi_select(vi_lt(e, vi_set1(127)), e, vi_set1(127))) << 23);
  vf lost_f = vf_select(vf_lt(u, vf_set1(INFINITY)), lost * scale, vf_zero());
  return vf_log_special_(u, vf_log_core_(f + lost_f, vf_of(e)));
}

/* ---- sin, cos ---- x = q pi/2 + r. pi/2 in three pieces of 12 bits and a rest: for |q| < 2^12 the first products are
 * exact. Larger arguments are rare and go to the C library lane by lane. */
MN_INLINE vf vf_sincos_(vf x, int shift) { /* shift 0: sin, 1: cos */
  vf q = vf_round(x * vf_set1(0x1.45f306p-1f));
  vf r = vf_fnma(q, vf_set1(0x1.92p+0f), x);
  r = vf_fnma(q, vf_set1(0x1.fb4p-12f), r);
  r = vf_fnma(q, vf_set1(0x1.444p-24f), r);
  r = vf_fnma(q, vf_set1(0x1.68c234p-39f), r);
  vf z = r * r;
  vf s = vf_fma(vf_set1(0x1.6cbecep-19f), z, vf_set1(-0x1.a00f32p-13f));
  s = vf_fma(s, z, vf_set1(0x1.111108p-7f));
  s = vf_fma(s, z, vf_set1(-0x1.555556p-3f));
  s = vf_fma(s * z, r, r);
  vf c = vf_fma(vf_set1(-0x1.2417e0p-22f), z, vf_set1(0x1.a010c4p-16f));
  c = vf_fma(c, z, vf_set1(-0x1.6c16b8p-10f));
  c = vf_fma(c, z, vf_set1(0x1.555556p-5f));
  c = vf_fma(c * z, z, vf_fma(z, vf_set1(-0.5f), vf_set1(1.0f)));
  vi k = (vi)((vu)vi_of(q) + (uint32_t)shift); /* quadrant: sin, cos, -sin, -cos */
  vf y = vf_select(vi_eq(k & 1, vi_set1(0)), s, c);
  y = (vf)((vu)y ^ ((vu)(k & 2) << 30));
  vm far = vm_not(vf_le(vf_abs(x), vf_set1(4096.0f)));
  if (__builtin_expect(vm_any(far), 0))
    for (int i = 0; i < MN_VL; i++)
      if (!(x[i] <= 4096.0f && x[i] >= -4096.0f)) y[i] = shift ? cosf(x[i]) : sinf(x[i]);
  return y;
}
MN_INLINE vf vf_sin(vf x) { return vf_sincos_(x, 0); }
MN_INLINE vf vf_cos(vf x) { return vf_sincos_(x, 1); }

/* ---- tanh, sigmoid ---- */
MN_INLINE vf vf_tanh(vf x) {
  vf z = x * x, a = vf_abs(x);
  vf p = vf_fma(vf_set1(0x1.190bcap-9f), z, vf_set1(-0x1.0c03dap-7f));
  p = vf_fma(p, z, vf_set1(0x1.638f22p-6f));
  p = vf_fma(p, z, vf_set1(-0x1.b9eefep-5f));
  p = vf_fma(p, z, vf_set1(0x1.111068p-3f));
  p = vf_fma(p, z, vf_set1(-0x1.555554p-2f));
  vf near = vf_fma(p * z, x, x);
  vf big = 1.0f - 2.0f / (vf_exp(a + a) + 1.0f);
  return vf_select(vf_lt(a, vf_set1(0.625f)), near, vf_copysign(big, x));
}
/* below -88.7, where the result is denormal, it is 0 */
MN_INLINE vf vf_sigmoid(vf x) { return 1.0f / (1.0f + vf_exp(-x)); }
MN_INLINE vf vf_silu_slope(vf x) { /* of silu(x) = x sigmoid(x) */
  vf s = vf_sigmoid(x);
  return s + x * s * (1.0f - s);
}

/* ---- erf, Phi and phi ---- erf: a polynomial in x^2 up to 1; then 1 - e^p(x), p fitted to log erfc, which is 1 in f32 from 3.93 on. Vectors
 * whose values are all below 1, as most are that a gelu sees, spare the second, which is three quarters of the work. */
MN_INLINE vf vf_erf_near_(vf x) { /* |x| < 1 */
  vf z = x * x;
  vf p = vf_fma(vf_set1(0x1.4ae4d0p-14f), z, vf_set1(-0x1.a485ecp-11f));
  p = vf_fma(p, z, vf_set1(0x1.5419f6p-8f));
  p = vf_fma(p, z, vf_set1(-0x1.b7fbb4p-6f));
  p = vf_fma(p, z, vf_set1(0x1.ce2d20p-4f));
  p = vf_fma(p, z, vf_set1(-0x1.81273ep-2f));
  p = vf_fma(p, z, vf_set1(0x1.06eba8p-3f));
  return vf_fma(p, x, x);
}
MN_INLINE vf vf_erfc_far_(vf a) { /* a >= 1 */
  vf b = vf_min(vf_set1(4.0f), a);
  vf l = vf_fma(vf_set1(-0x1.6bd7d8p-16f), b, vf_set1(0x1.cec5f8p-12f));
  l = vf_fma(l, b, vf_set1(-0x1.138cbap-8f));
  l = vf_fma(l, b, vf_set1(0x1.9d0302p-6f));
  l = vf_fma(l, b, vf_set1(-0x1.bc1516p-4f));
  l = vf_fma(l, b, vf_set1(-0x1.443566p-1f));
  l = vf_fma(l, b, vf_set1(-0x1.212c0cp+0f));
  l = vf_fma(l, b, vf_set1(0x1.8a5736p-13f));
  return vf_exp(l);
}
MN_INLINE vf vf_erf(vf x) {
  vf a = vf_abs(x), near = vf_erf_near_(x);
  vm below = vf_lt(a, vf_set1(1.0f));
  if (!vm_any(vm_not(below))) return near;
  return vf_select(below, near, vf_copysign(1.0f - vf_erfc_far_(a), x));
}
MN_INLINE vf vf_normal_cdf(vf x) { /* (1 + erf(x / sqrt 2)) / 2; of what is far below 0, erfc / 2, which does not cancel */
  vf y = x * 0x1.6a09e6p-1f, a = vf_abs(y), near = vf_fma(vf_erf_near_(y), vf_set1(0.5f), vf_set1(0.5f));
  vm below = vf_lt(a, vf_set1(1.0f));
  if (!vm_any(vm_not(below))) return near;
  vf tail = vf_select(vf_le(vf_set1(4.0f), a), vf_zero(), 0.5f * vf_erfc_far_(a));
  return vf_select(below, near, vf_select(vf_lt(x, vf_zero()), tail, 1.0f - tail));
}
MN_INLINE vf vf_normal_pdf(vf x) { return 0x1.988454p-2f * vf_exp(-0.5f * x * x); }

/* log(1 + e^x) = max(0, x) + log(1 + t), t = e^-|x| in [0, 1], and log(1 + t) = 2 atanh s with s = t / (2 + t) in [0, 1/3]: a series in
 * s^2 <= 1/9, whose rest is below 2e-8 of it */
MN_INLINE vf vf_softplus(vf x) {
  vf t = vf_exp(-vf_abs(x)), s = t / (t + 2.0f), z = s * s;
  vf p = vf_fma(vf_set1(2.0f / 13), z, vf_set1(2.0f / 11));
  p = vf_fma(p, z, vf_set1(2.0f / 9));
  p = vf_fma(p, z, vf_set1(2.0f / 7));
  p = vf_fma(p, z, vf_set1(2.0f / 5));
  p = vf_fma(p, z, vf_set1(2.0f / 3));
  return vf_max(vf_zero(), x) + vf_fma(p * z, s, s + s);
}

MN_INLINE vf vf_rsqrt(vf x) { return 1.0f / vf_sqrt(x); }

/* ---- pow ---- 2^(y log2|x|) in f64, half a vector at a time: the exponent may be 150 and must keep 24 bits behind it */
typedef double vd_ __attribute__((vector_size(4 * MN_VL))); /* MN_VL / 2 lanes */
typedef int64_t vl_ __attribute__((vector_size(4 * MN_VL)));
typedef uint64_t vul_ __attribute__((vector_size(4 * MN_VL)));
typedef float vfh_ __attribute__((vector_size(2 * MN_VL)));
MN_INLINE vd_ vd_select_(vl_ m, vd_ a, vd_ b) { return (vd_)((m & (vl_)a) | (~m & (vl_)b)); }
MN_INLINE vd_ vd_pow_(vd_ x, vd_ y) {
  const double magic = 0x1.8p52; /* adding it rounds to an integer, kept in the low bits */
  vd_ a = (vd_)((vl_)x & INT64_MAX), zero = {0}, inf = zero + (double)INFINITY, nan = zero + (double)NAN;
  /* log2 a = e + log2 m with m in [sqrt(1/2), sqrt(2)]; a came from an f32, so it is never denormal */
  vl_ e = (vl_)((vul_)a - 0x3fe6a09e667f3bcdULL) >> 52;
  vd_ m = (vd_)((vul_)a - ((vul_)e << 52));
  vd_ s = (m - 1.0) / (m + 1.0), z = s * s;
  vd_ p = zero + 0x1.f2731cd04f7e4p-3;
  p = p * z + 0x1.0badfa86e6ba7p-2;
  p = p * z + 0x1.484ff84f62e25p-2;
  p = p * z + 0x1.a6175567b80dep-2;
  p = p * z + 0x1.2776c51781406p-1;
  p = p * z + 0x1.ec709dc39c228p-1;
  p = p * z + 0x1.71547652b82ffp+1;
  vd_ e_value = (vd_)((vul_)(zero + magic) + (vul_)e) - magic;
  vd_ log2a = s * p + e_value;
  log2a = vd_select_((vl_)(a == zero), -inf, vd_select_((vl_)(a < inf), log2a, a));
  vd_ t = y * log2a;
  vd_ c = vd_select_((vl_)(t > zero + 200.0), zero + 200.0, vd_select_((vl_)(t < zero - 200.0), zero - 200.0, t));
  vd_ n = (c + magic) - magic, f = c - n;
  vd_ q = zero + 0x1.6414ba6be925bp-20;
  q = q * f + 0x1.00e141aa8fbbdp-16;
  q = q * f + 0x1.43086917541fbp-13;
  q = q * f + 0x1.5d873e2092e30p-10;
  q = q * f + 0x1.3b2ab74232709p-7;
  q = q * f + 0x1.c6b08ddd5348ep-5;
  q = q * f + 0x1.ebfbdff8022e2p-3;
  q = q * f + 0x1.62e42fef823f4p-1;
  q = q * f + 0x1.0000000000086p+0;
  vd_ r = q * (vd_)(((vul_)(n + magic) << 52) + 0x3ff0000000000000ULL);
  /* negative bases: NaN unless y is an integer, negative when it is odd */
  vd_ ya = (vd_)((vl_)y & INT64_MAX);
  vd_ whole = (ya + magic) - magic;
  vl_ integer = (vl_)(ya >= zero + 0x1p24) | (vl_)(whole == ya);
  vl_ odd = (vl_)(ya < zero + 0x1p24) & integer & -((vl_)(ya + magic) & 1);
  vl_ negative = (vl_)x >> 63;
  vl_ x_nan = (vl_)(x != x), y_nan = (vl_)(y != y);
  r = (vd_)((vl_)r ^ (negative & odd & INT64_MIN));
  r = vd_select_(negative & ~integer & (vl_)(a != zero) & (vl_)(a < inf), nan, r);
  r = vd_select_(x_nan | y_nan, nan, r);
  vl_ one = (vl_)(y == zero) | (vl_)(x == zero + 1.0) | ((vl_)(a == zero + 1.0) & (vl_)(ya == inf)); /* as C has it */
  return vd_select_(one, zero + 1.0, r);
}
MN_INLINE vf vf_pow(vf x, vf y) {
  vfh_ xs[2], ys[2];
  memcpy(xs, &x, sizeof x);
  memcpy(ys, &y, sizeof y);
  for (int i = 0; i < 2; i++)
    xs[i] = __builtin_convertvector(vd_pow_(__builtin_convertvector(xs[i], vd_), __builtin_convertvector(ys[i], vd_)), vfh_);
  memcpy(&x, xs, sizeof x);
  return x;
}

#endif
