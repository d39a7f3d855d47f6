/* vec.h - vectors of f32 whose width follows the instruction set that the file is compiled for: 16 lanes with AVX-512,
 * 8 with AVX2, 4 otherwise. Only the files of isa/ (and tests of them) include it. Arithmetic is written with the
 * operators of GCC's vector extension; functions are here for what has no operator. Everything is static inline, so each
 * instruction set has its own copy.
 *
 *   vf  MN_VL floats     vi  MN_VL int32     vu  MN_VL uint32     vm  a truth value for each lane
 *
 * Loads and stores need no alignment. The `n` forms touch the first n lanes only (0 <= n <= MN_VL); lanes beyond read as
 * zero. bf16 is kept as uint16_t. */
#ifndef MN_VEC_H
#define MN_VEC_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

#include "base/types.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define MN_VEC_512 1
enum { MN_VL = 16 };
#elif defined(__AVX2__) && defined(__FMA__)
#define MN_VEC_256 1
enum { MN_VL = 8 };
#else
enum { MN_VL = 4 };
#endif
#if defined(MN_VEC_512) || defined(MN_VEC_256)
#define MN_VEC_FMA 1 /* a fused multiply-add is one instruction */
#endif

#define MN_INLINE static inline __attribute__((always_inline, unused))

typedef float vf __attribute__((vector_size(4 * MN_VL)));
typedef int32_t vi __attribute__((vector_size(4 * MN_VL)));
typedef uint32_t vu __attribute__((vector_size(4 * MN_VL)));
typedef uint16_t vh __attribute__((vector_size(2 * MN_VL))); /* MN_VL bf16 */
#ifdef MN_VEC_512
typedef __mmask16 vm;
#else
typedef vi vm; /* all ones: true */
#endif

/* ---- one bf16 ---- */
MN_INLINE float bf16_to_f32(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}
MN_INLINE uint16_t bf16_from_f32(float f) { /* to nearest, ties to even; a NaN stays a (quiet) NaN */
  uint32_t u;
  memcpy(&u, &f, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40);
  return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

/* ---- constants and bits ---- */
MN_INLINE vf vf_set1(float x) { return (vf){0} + x; }
MN_INLINE vi vi_set1(int32_t x) { return (vi){0} + x; }
MN_INLINE vf vf_zero(void) { return (vf){0}; }
MN_INLINE vf vf_of(vi x) { return __builtin_convertvector(x, vf); } /* value */
MN_INLINE vi vi_of(vf x) { return __builtin_convertvector(x, vi); } /* value, towards zero */
MN_INLINE vf vf_bits(vi x) { return (vf)x; }                        /* bits  */
MN_INLINE vi vi_bits(vf x) { return (vi)x; }
MN_INLINE vi vi_iota(void) { /* 0, 1, 2, ... */
  static const int32_t iota[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  vi r;
  memcpy(&r, iota, sizeof r);
  return r;
}

/* ---- truth values ---- */
#ifdef MN_VEC_512
MN_INLINE vm vf_lt(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ); }
MN_INLINE vm vf_le(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LE_OQ); }
MN_INLINE vm vf_eq(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ); }
MN_INLINE vm vf_is_nan(vf a) { return _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_UNORD_Q); }
MN_INLINE vm vi_lt(vi a, vi b) { return _mm512_cmp_epi32_mask((__m512i)a, (__m512i)b, _MM_CMPINT_LT); }
MN_INLINE vm vi_eq(vi a, vi b) { return _mm512_cmp_epi32_mask((__m512i)a, (__m512i)b, _MM_CMPINT_EQ); }
MN_INLINE vm vm_not(vm a) { return (vm)~a; }
MN_INLINE vm vm_and(vm a, vm b) { return (vm)(a & b); }
MN_INLINE vm vm_or(vm a, vm b) { return (vm)(a | b); }
MN_INLINE bool vm_any(vm a) { return a != 0; }
MN_INLINE vm vm_first(int n) { return (vm)((1u << n) - 1); } /* the first n lanes, 0 <= n <= MN_VL */
MN_INLINE vf vf_select(vm m, vf a, vf b) { return (vf)_mm512_mask_blend_ps(m, (__m512)b, (__m512)a); } /* m ? a : b */
MN_INLINE vi vi_select(vm m, vi a, vi b) { return (vi)_mm512_mask_blend_epi32(m, (__m512i)b, (__m512i)a); }
#else
MN_INLINE vm vf_lt(vf a, vf b) { return (vm)(a < b); }
MN_INLINE vm vf_le(vf a, vf b) { return (vm)(a <= b); }
MN_INLINE vm vf_eq(vf a, vf b) { return (vm)(a == b); }
MN_INLINE vm vf_is_nan(vf a) { return (vm)(a != a); }
MN_INLINE vm vi_lt(vi a, vi b) { return (vm)(a < b); }
MN_INLINE vm vi_eq(vi a, vi b) { return (vm)(a == b); }
MN_INLINE vm vm_not(vm a) { return ~a; }
MN_INLINE vm vm_and(vm a, vm b) { return a & b; }
MN_INLINE vm vm_or(vm a, vm b) { return a | b; }
MN_INLINE bool vm_any(vm a) {
#if defined(MN_VEC_256)
  return _mm256_movemask_ps((__m256)a) != 0;
#else
  int32_t any = 0;
  for (int i = 0; i < MN_VL; i++) any |= a[i];
  return any != 0;
#endif
}
MN_INLINE vm vm_first(int n) { return (vm)(vi_iota() < vi_set1(n)); }
MN_INLINE vi vi_select(vm m, vi a, vi b) {
#if defined(MN_VEC_256)
  return (vi)_mm256_blendv_epi8((__m256i)b, (__m256i)a, (__m256i)m);
#else
  return (m & a) | (~m & b);
#endif
}
MN_INLINE vf vf_select(vm m, vf a, vf b) { return (vf)vi_select(m, (vi)a, (vi)b); } /* m ? a : b */
#endif

/* ---- memory: f32 ---- */
MN_INLINE vf vf_load(const float *p) {
  vf r;
  memcpy(&r, p, sizeof r);
  return r;
}
MN_INLINE void vf_store(float *p, vf x) { memcpy(p, &x, sizeof x); }
MN_INLINE vf vf_loadn(const float *p, int n) {
#if defined(MN_VEC_512)
  return (vf)_mm512_maskz_loadu_ps(vm_first(n), p);
#elif defined(MN_VEC_256)
  return (vf)_mm256_maskload_ps(p, (__m256i)vm_first(n));
#else
  vf r = {0};
  for (int i = 0; i < n; i++) r[i] = p[i];
  return r;
#endif
}
MN_INLINE void vf_storen(float *p, vf x, int n) {
#if defined(MN_VEC_512)
  _mm512_mask_storeu_ps(p, vm_first(n), (__m512)x);
#elif defined(MN_VEC_256)
  _mm256_maskstore_ps(p, (__m256i)vm_first(n), (__m256)x);
#else
  for (int i = 0; i < n; i++) p[i] = x[i];
#endif
}
MN_INLINE vi vi_load(const int32_t *p) {
  vi r;
  memcpy(&r, p, sizeof r);
  return r;
}
MN_INLINE void vi_store(int32_t *p, vi x) { memcpy(p, &x, sizeof x); }

/* ---- memory: bf16, computed with as f32 ---- */
/* GCC 12 makes four instructions of __builtin_convertvector where one would do. */
MN_INLINE vu vu_from_vh(vh h) {
#if defined(MN_VEC_512)
  return (vu)_mm512_cvtepu16_epi32((__m256i)h);
#elif defined(MN_VEC_256)
  return (vu)_mm256_cvtepu16_epi32((__m128i)h);
#else
  return __builtin_convertvector(h, vu);
#endif
}
MN_INLINE vh vh_from_vu(vu u) { /* every lane below 2^16 */
#if defined(MN_VEC_512)
  return (vh)_mm512_cvtepi32_epi16((__m512i)u);
#elif defined(MN_VEC_256)
  return (vh)_mm_packus_epi32(_mm256_castsi256_si128((__m256i)u), _mm256_extracti128_si256((__m256i)u, 1));
#else
  return __builtin_convertvector(u, vh);
#endif
}
MN_INLINE vf vf_from_bf16(vh h) { return (vf)(vu_from_vh(h) << 16); }
MN_INLINE vh vf_to_bf16_bits_(vf x) {
  vu u = (vu)x;
  vu rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  vu quiet = (u >> 16) | 0x40u;
  return vh_from_vu((vu)vi_select(vf_is_nan(x), (vi)quiet, (vi)rounded));
}
MN_INLINE vh vf_to_bf16(vf x) { /* to nearest, ties to even; NaN stays NaN */
#if defined(__AVX512BF16__) && defined(MN_VEC_512)
  enum { DENORMAL = 0x20 }; /* the instruction takes them for 0; they are seldom */
  if (__builtin_expect(_mm512_fpclass_ps_mask((__m512)x, DENORMAL) != 0, 0)) return vf_to_bf16_bits_(x);
  return (vh)_mm512_cvtneps_pbh((__m512)x);
#else
  return vf_to_bf16_bits_(x);
#endif
}
#if defined(MN_VEC_256)
/* The bits of x rounded: those of the bf16 above, what is below counts no more. NaN is seldom, so it is looked for and not computed. */
MN_INLINE vu vu_rounded_(vf x, bool nan) {
  const vu u = (vu)x, r = u + (((u >> 16) & 1u) + 0x7fffu);
  return __builtin_expect(nan, 0) ? (vu)vi_select(vf_is_nan(x), (vi)(u | 0x400000u), (vi)r) : r;
}
#endif
MN_INLINE vf vf_round_bf16(vf x) { /* the nearest bf16, as an f32 */
#if defined(MN_VEC_256)
  return (vf)(vu_rounded_(x, vm_any(vf_is_nan(x))) & 0xffff0000u);
#else
  return vf_from_bf16(vf_to_bf16(x));
#endif
}
MN_INLINE vf vf_load_bf16(const uint16_t *p) {
  vh h;
  memcpy(&h, p, sizeof h);
  return vf_from_bf16(h);
}
MN_INLINE void vf_store_bf16(uint16_t *p, vf x) {
  vh h = vf_to_bf16(x);
  memcpy(p, &h, sizeof h);
}
MN_INLINE void vf_store2_bf16(uint16_t *p, vf x, vf y) { /* 2 MN_VL lanes: x, then y */
#if defined(MN_VEC_256)
  const bool nan = _mm256_movemask_ps(_mm256_cmp_ps((__m256)x, (__m256)y, _CMP_UNORD_Q)) != 0;
  const vu a = vu_rounded_(x, nan) >> 16, b = vu_rounded_(y, nan) >> 16;
  _mm256_storeu_si256((__m256i *)(void *)p, _mm256_permute4x64_epi64(_mm256_packus_epi32((__m256i)a, (__m256i)b), 0xd8));
#else
  vf_store_bf16(p, x);
  vf_store_bf16(p + MN_VL, y);
#endif
}
MN_INLINE vf vf_load_bf16n(const uint16_t *p, int n) {
#if defined(MN_VEC_512)
  return vf_from_bf16((vh)_mm256_maskz_loadu_epi16(vm_first(n), p));
#else
  vh h = {0};
  for (int i = 0; i < n; i++) h[i] = p[i];
  return vf_from_bf16(h);
#endif
}
MN_INLINE void vf_store_bf16n(uint16_t *p, vf x, int n) {
  vh h = vf_to_bf16(x);
#if defined(MN_VEC_512)
  _mm256_mask_storeu_epi16(p, vm_first(n), (__m256i)h);
#else
  for (int i = 0; i < n; i++) p[i] = h[i];
#endif
}

/* ---- memory: n of MN_VL numbers from element i on, in f32 or bf16 ---- */
MN_INLINE vf vf_load_of(mn_dtype t, const void *p, int64_t i, int n) {
  if (t == MN_F32) return n == MN_VL ? vf_load((const float *)p + i) : vf_loadn((const float *)p + i, n);
  return n == MN_VL ? vf_load_bf16((const uint16_t *)p + i) : vf_load_bf16n((const uint16_t *)p + i, n);
}
MN_INLINE void vf_store_of(mn_dtype t, void *p, int64_t i, vf x, int n) {
  if (t == MN_F32) {
    if (n == MN_VL) vf_store((float *)p + i, x);
    else vf_storen((float *)p + i, x, n);
  } else if (n == MN_VL) vf_store_bf16((uint16_t *)p + i, x);
  else vf_store_bf16n((uint16_t *)p + i, x, n);
}

/* ---- memory: truth values, one byte each, 0 or 1 (any other value reads as true) ---- */
MN_INLINE vm vm_load_bool(const uint8_t *p) {
#if defined(MN_VEC_512)
  __m128i b = _mm_loadu_si128((const __m128i *)p);
  return _mm_test_epi8_mask(b, b);
#else
  typedef int8_t bytes __attribute__((vector_size(MN_VL)));
  bytes b;
  memcpy(&b, p, sizeof b);
  return (vm)(__builtin_convertvector(b, vi) != 0);
#endif
}
MN_INLINE void vm_store_bool(uint8_t *p, vm m) {
#if defined(MN_VEC_512)
  _mm_storeu_si128((__m128i *)p, _mm_maskz_set1_epi8(m, 1));
#else
  typedef int8_t bytes __attribute__((vector_size(MN_VL)));
  bytes b = __builtin_convertvector(-(vi)m, bytes);
  memcpy(p, &b, sizeof b);
#endif
}
MN_INLINE vm vm_load_booln(const uint8_t *p, int n) {
  uint8_t t[MN_VL] = {0};
  memcpy(t, p, (size_t)n);
  return vm_load_bool(t);
}
MN_INLINE void vm_store_booln(uint8_t *p, vm m, int n) {
  uint8_t t[MN_VL];
  vm_store_bool(t, m);
  memcpy(p, t, (size_t)n);
}

/* ---- arithmetic ---- */
MN_INLINE vf vf_fma(vf a, vf b, vf c) { /* a*b + c; two roundings where the machine has no fused form */
#if defined(MN_VEC_512)
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(MN_VEC_256)
  return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}
MN_INLINE vf vf_fnma(vf a, vf b, vf c) { return vf_fma(-a, b, c); } /* c - a*b */
/* a < b ? a : b and a > b ? a : b: the second operand where either is NaN */
MN_INLINE vf vf_min(vf a, vf b) {
#if defined(MN_VEC_512)
  return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(MN_VEC_256)
  return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return vf_select(vf_lt(a, b), a, b);
#endif
}
MN_INLINE vf vf_max(vf a, vf b) {
#if defined(MN_VEC_512)
  return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(MN_VEC_256)
  return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return vf_select(vf_lt(b, a), a, b);
#endif
}
/* NumPy's maximum and minimum: NaN where either is NaN */
MN_INLINE vf vf_max_nan(vf a, vf b) { return vf_select(vf_is_nan(a), a, vf_max(a, b)); }
MN_INLINE vf vf_min_nan(vf a, vf b) { return vf_select(vf_is_nan(a), a, vf_min(a, b)); }
MN_INLINE vf vf_abs(vf a) { return (vf)((vi)a & 0x7fffffff); }
MN_INLINE vf vf_copysign(vf magnitude, vf sign) { return (vf)(((vi)magnitude & 0x7fffffff) | ((vi)sign & (int32_t)0x80000000)); }
MN_INLINE vf vf_sqrt(vf a) {
#if defined(MN_VEC_512)
  return (vf)_mm512_sqrt_ps((__m512)a);
#elif defined(MN_VEC_256)
  return (vf)_mm256_sqrt_ps((__m256)a);
#elif defined(__SSE2__)
  return (vf)_mm_sqrt_ps((__m128)a);
#else
  for (int i = 0; i < MN_VL; i++) a[i] = sqrtf(a[i]);
  return a;
#endif
}
MN_INLINE vf vf_floor(vf a) {
#if defined(MN_VEC_512)
  return (vf)_mm512_roundscale_ps((__m512)a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
#elif defined(MN_VEC_256)
  return (vf)_mm256_floor_ps((__m256)a);
#elif defined(__SSE4_1__)
  return (vf)_mm_floor_ps((__m128)a);
#else
  for (int i = 0; i < MN_VL; i++) a[i] = floorf(a[i]);
  return a;
#endif
}
MN_INLINE vf vf_round(vf a) { /* to nearest, ties to even */
#if defined(MN_VEC_512)
  return (vf)_mm512_roundscale_ps((__m512)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(MN_VEC_256)
  return (vf)_mm256_round_ps((__m256)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__SSE4_1__)
  return (vf)_mm_round_ps((__m128)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  for (int i = 0; i < MN_VL; i++) a[i] = rintf(a[i]);
  return a;
#endif
}

/* ---- across the lanes: by halves, in the same order each time ---- */
MN_INLINE float vf_sum(vf a) {
  float t[MN_VL];
  vf_store(t, a);
#if defined(MN_VEC_512) || defined(MN_VEC_256)
#if defined(MN_VEC_512)
  __m256 h = _mm256_add_ps(_mm512_castps512_ps256((__m512)a), _mm512_extractf32x8_ps((__m512)a, 1));
#else
  __m256 h = (__m256)a;
#endif
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
#else
  return (t[0] + t[2]) + (t[1] + t[3]);
#endif
}
MN_INLINE float vf_hmax(vf a) {
#if defined(MN_VEC_512) || defined(MN_VEC_256)
#if defined(MN_VEC_512)
  __m256 h = _mm256_max_ps(_mm512_castps512_ps256((__m512)a), _mm512_extractf32x8_ps((__m512)a, 1));
#else
  __m256 h = (__m256)a;
#endif
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
#else
  float t[MN_VL];
  vf_store(t, a);
  for (int w = MN_VL / 2; w > 0; w /= 2)
    for (int i = 0; i < w; i++) t[i] = t[i] > t[i + w] ? t[i] : t[i + w];
  return t[0];
#endif
}

#endif
