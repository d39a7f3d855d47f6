/* blocks_codes.h - the codes of blocks, their scales and offsets, for kernels: whatever the type, 32 consecutive values of a row are codes c
 * (whole numbers of at most 8 bits), and a scale s and an offset o for all of them or for each half: w = s c + o. Codes are read as numbers
 * from 0, or signed where a type has no offset. Everything here is inlined for a type that is known when it is compiled. */
#ifndef MN_ISA_BLOCKS_CODES_H
#define MN_ISA_BLOCKS_CODES_H

#include "backend/cpu/isa/blocks.h"
#include "backend/cpu/isa/vec.h"
#include "base/blocks.h"
#include "base/bf16.h"
#include "base/f16.h"

#if !defined(__AVX2__) /* plain loops over bytes: nothing to gain, and much to compile */
#define UNROLL
#pragma GCC diagnostic ignored "-Wpsabi" /* vectors are handed on within this file alone */
#elif defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
#define INLINE static inline __attribute__((always_inline, unused))

enum { UNIT = 32 };

/* Bytes that come later from memory are asked for beside what is computed now; NULL: none. */
INLINE void ask(const char *next, const int64_t bytes) {
  for (int64_t at = 0; next && at < bytes; at += 64) __builtin_prefetch(next + at);
}
/* The same, no nearer than the second cache: more can be on its way to it at a time. */
INLINE void ask_early(const char *next, const int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(next + at, 0, 1);
}

typedef uint8_t vb __attribute__((vector_size(32)));  /* codes of a unit */
typedef int8_t vs __attribute__((vector_size(32)));   /* the same, signed, or 8 bits of x */
typedef int32_t v8i __attribute__((vector_size(32))); /* sums of four in a row: the first four lanes are of the first half */
typedef float v8f __attribute__((vector_size(32)));

INLINE float half(const uint16_t *h) {
#if defined(__F16C__)
  return _cvtsh_ss(*h);
#else
  return mn_f16_to_float(*h);
#endif
}
INLINE vb load32(const void *p) {
  vb r;
  memcpy(&r, p, sizeof r);
  return r;
}
INLINE v8f load8f(const float *p) {
  v8f r;
  memcpy(&r, p, sizeof r);
  return r;
}
INLINE v8f splat(float x) { return (v8f){0} + x; }

/* ---- whole numbers ---- */
/* 16 bytes: their low halves, then their high ones */
INLINE vb nibbles(const uint8_t *p) {
#if defined(__AVX2__)
  const __m128i n = _mm_loadu_si128((const __m128i *)(const void *)p);
  return (vb)_mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(n, 4), n), _mm256_set1_epi8(15));
#else
  vb r;
  for (int i = 0; i < 16; i++) r[i] = p[i] & 15, r[i + 16] = p[i] >> 4;
  return r;
#endif
}
/* bit j of 32 as `value` in byte j */
INLINE vb bits(const uint8_t *p, uint8_t value) {
  uint32_t all;
  memcpy(&all, p, 4);
#if defined(__AVX512BW__) && defined(__AVX512VL__)
  return (vb)_mm256_maskz_set1_epi8(all, (char)value);
#elif defined(__AVX2__)
  const __m256i spread =
      _mm256_shuffle_epi8(_mm256_set1_epi32((int)all), _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
  const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201ull);
  return (vb)_mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit), _mm256_set1_epi8((char)value));
#else
  vb r;
  for (int i = 0; i < 32; i++) r[i] = all >> i & 1 ? value : 0;
  return r;
#endif
}
INLINE vb looked_up(const int8_t table[16], vb at) {
#if defined(__AVX2__)
  return (vb)_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)table)), (__m256i)at);
#else
  vb r;
  for (int i = 0; i < 32; i++) r[i] = (uint8_t)table[at[i]];
  return r;
#endif
}

/* Sums of four products in a row, of codes below 128 in magnitude; their sum of two is below 2^15. */
INLINE v8i dot(vb w, vs x) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
  return (v8i)_mm256_dpbusd_epi32(_mm256_setzero_si256(), (__m256i)w, (__m256i)x);
#elif defined(__AVX2__)
  return (v8i)_mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)w, (__m256i)x), _mm256_set1_epi16(1));
#else
  v8i r;
  for (int i = 0; i < 8; i++) {
    int32_t sum = 0;
    for (int k = 4 * i; k < 4 * i + 4; k++) sum += w[k] * x[k];
    r[i] = sum;
  }
  return r;
#endif
}
INLINE v8i dot_signed(vs w, vs x) { /* |w| (x with the sign of w) */
#if defined(__AVX2__)
  return dot((vb)_mm256_abs_epi8((__m256i)w), (vs)_mm256_sign_epi8((__m256i)x, (__m256i)w));
#else
  v8i r;
  for (int i = 0; i < 8; i++) {
    int32_t sum = 0;
    for (int k = 4 * i; k < 4 * i + 4; k++) sum += w[k] * x[k];
    r[i] = sum;
  }
  return r;
#endif
}

/* ---- types ---- */
INLINE bool is_super(const mn_dtype t) {
  return t == MN_Q2_K || t == MN_Q3_K || t == MN_Q4_K || t == MN_Q5_K || t == MN_Q6_K || t == MN_IQ4_XS;
}
INLINE bool is_signed(const mn_dtype t) { return t == MN_Q8_0 || t == MN_IQ4_NL || t == MN_IQ4_XS || t == MN_MXFP4; } /* no offsets */
INLINE bool by_halves(const mn_dtype t) { return t == MN_Q2_K || t == MN_Q3_K || t == MN_Q6_K; }

INLINE int64_t size_of(const mn_dtype t) {
  return t == MN_Q4_0     ? (int64_t)sizeof(mn_q4_0)
         : t == MN_Q4_1   ? (int64_t)sizeof(mn_q4_1)
         : t == MN_Q5_0   ? (int64_t)sizeof(mn_q5_0)
         : t == MN_Q5_1   ? (int64_t)sizeof(mn_q5_1)
         : t == MN_Q8_0   ? (int64_t)sizeof(mn_q8_0)
         : t == MN_IQ4_NL ? (int64_t)sizeof(mn_iq4_nl)
         : t == MN_MXFP4  ? (int64_t)sizeof(mn_mxfp4)
         : t == MN_Q2_K   ? (int64_t)sizeof(mn_q2_k)
         : t == MN_Q3_K   ? (int64_t)sizeof(mn_q3_k)
         : t == MN_Q4_K   ? (int64_t)sizeof(mn_q4_k)
         : t == MN_Q5_K   ? (int64_t)sizeof(mn_q5_k)
         : t == MN_Q6_K   ? (int64_t)sizeof(mn_q6_k)
                          : (int64_t)sizeof(mn_iq4_xs);
}

/* Codes of the g-th 32 values of a block. */
INLINE vb codes(const mn_dtype t, const void *block, const int g) {
  switch (t) {
  case MN_Q4_0:
    return nibbles(((const mn_q4_0 *)block)->qs);
  case MN_Q4_1:
    return nibbles(((const mn_q4_1 *)block)->qs);
  case MN_Q5_0:
    return nibbles(((const mn_q5_0 *)block)->qs) | bits(((const mn_q5_0 *)block)->qh, 16);
  case MN_Q5_1:
    return nibbles(((const mn_q5_1 *)block)->qs) | bits(((const mn_q5_1 *)block)->qh, 16);
  case MN_Q8_0:
    return load32(((const mn_q8_0 *)block)->qs);
  case MN_IQ4_NL:
    return looked_up(mn_iq4_values, nibbles(((const mn_iq4_nl *)block)->qs));
  case MN_IQ4_XS:
    return looked_up(mn_iq4_values, nibbles(((const mn_iq4_xs *)block)->qs + 16 * g));
  case MN_MXFP4:
    return looked_up(mn_fp4_values, nibbles(((const mn_mxfp4 *)block)->qs));
  case MN_Q2_K:
    return load32(((const mn_q2_k *)block)->qs + 32 * (g / 4)) >> 2 * (g % 4) & 3;
  case MN_Q3_K: {
    const mn_q3_k *b = block;
    return (load32(b->qs + 32 * (g / 4)) >> 2 * (g % 4) & 3) | (load32(b->hmask) >> g & 1) << 2;
  }
  case MN_Q4_K:
    return load32(((const mn_q4_k *)block)->qs + 32 * (g / 2)) >> 4 * (g % 2) & 15;
  case MN_Q5_K: {
    const mn_q5_k *b = block;
    return (load32(b->qs + 32 * (g / 2)) >> 4 * (g % 2) & 15) | (load32(b->qh) >> g & 1) << 4;
  }
  default: { /* MN_Q6_K */
    const mn_q6_k *b = block;
    const vb low = load32(b->ql + 64 * (g / 4) + 32 * (g % 2)) >> 4 * (g % 4 / 2) & 15;
    return low | (load32(b->qh + 32 * (g / 4)) >> 2 * (g % 4) & 3) << 4;
  }
  }
}

/* n bytes, 8 or 16, as numbers times d. */
INLINE void scaled(const void *bytes, const bool with_sign, const int n, float d, float *to) {
#if defined(__AVX2__)
  UNROLL for (int i = 0; i < n; i += 8) {
    const __m128i b = _mm_loadl_epi64((const __m128i *)(const void *)((const char *)bytes + i));
    const v8f x = d * (v8f)_mm256_cvtepi32_ps(with_sign ? _mm256_cvtepi8_epi32(b) : _mm256_cvtepu8_epi32(b));
    memcpy(to + i, &x, sizeof x);
  }
#else
  for (int i = 0; i < n; i++) to[i] = d * (with_sign ? (float)((const int8_t *)bytes)[i] : (float)((const uint8_t *)bytes)[i]);
#endif
}
/* Four bytes of up to 63, less 32 each. */
INLINE uint32_t less_32(uint32_t x) { return ((x | 0x80808080u) - 0x20202020u) ^ 0x80808080u; }
INLINE void times(const float *x, const int n, float by, float *to) { UNROLL for (int i = 0; i < n; i++) to[i] = by * x[i]; }

/* Scales and offsets of one block: of its units, or of their halves. */
INLINE void scales(const mn_dtype t, const void *block, float *s, float *o) {
  switch (t) {
  case MN_Q4_0:
    s[0] = half(&((const mn_q4_0 *)block)->d);
    o[0] = -8 * s[0];
    break;
  case MN_Q4_1:
    s[0] = half(&((const mn_q4_1 *)block)->d);
    o[0] = half(&((const mn_q4_1 *)block)->m);
    break;
  case MN_Q5_0:
    s[0] = half(&((const mn_q5_0 *)block)->d);
    o[0] = -16 * s[0];
    break;
  case MN_Q5_1:
    s[0] = half(&((const mn_q5_1 *)block)->d);
    o[0] = half(&((const mn_q5_1 *)block)->m);
    break;
  case MN_Q8_0:
    s[0] = half(&((const mn_q8_0 *)block)->d);
    break;
  case MN_IQ4_NL:
    s[0] = half(&((const mn_iq4_nl *)block)->d);
    break;
  case MN_MXFP4: { /* 2^(e - 128), which for the least two is below the least normal number */
    const uint32_t e = ((const mn_mxfp4 *)block)->e, u = e < 2 ? 0x200000u << e : (e - 1) << 23;
    memcpy(s, &u, 4);
    break;
  }
  case MN_Q2_K: {
    const mn_q2_k *b = block;
    const float d = half(&b->d), m = -half(&b->dmin);
    uint8_t low[16], high[16];
    for (int i = 0; i < 16; i++) low[i] = b->scales[i] & 15, high[i] = b->scales[i] >> 4;
    scaled(low, false, 16, d, s);
    scaled(high, false, 16, m, o);
    break;
  }
  case MN_Q3_K: { /* see mn_k3_scale: four at a time */
    const mn_q3_k *b = block;
    uint32_t a[3];
    memcpy(a, b->scales, 12);
    const uint32_t four = 0x0F0F0F0Fu, two = 0x03030303u;
    const uint32_t all[4] = {(a[0] & four) | (a[2] & two) << 4, (a[1] & four) | (a[2] >> 2 & two) << 4,
                             (a[0] >> 4 & four) | (a[2] >> 4 & two) << 4, (a[1] >> 4 & four) | (a[2] >> 6 & two) << 4};
    const uint32_t byte[4] = {less_32(all[0]), less_32(all[1]), less_32(all[2]), less_32(all[3])};
    scaled(byte, true, 16, half(&b->d), s);
    times(s, 16, -4, o);
    break;
  }
  case MN_Q4_K:
  case MN_Q5_K: { /* the two begin alike; see mn_k4_scale */
    const mn_q4_k *b = block;
    uint32_t a[3];
    memcpy(a, b->scales, 12);
    const uint32_t six = 0x3F3F3F3Fu, four = 0x0F0F0F0Fu, two = 0x03030303u;
    const uint32_t all[4] = {a[0] & six, (a[2] & four) | (a[0] >> 6 & two) << 4, a[1] & six, (a[2] >> 4 & four) | (a[1] >> 6 & two) << 4};
    scaled(all, false, 8, half(&b->d), s);
    scaled(all + 2, false, 8, -half(&b->dmin), o);
    break;
  }
  case MN_Q6_K: {
    const mn_q6_k *b = block;
    scaled(b->scales, true, 16, half(&b->d), s);
    times(s, 16, -32, o);
    break;
  }
  default: { /* MN_IQ4_XS: see mn_iq4_scale */
    const mn_iq4_xs *b = block;
    uint32_t low;
    memcpy(&low, b->scales_l, 4);
    uint64_t l = low, h = b->scales_h; /* four bits, and two, to a byte */
    l = (l | l << 16) & 0x0000FFFF0000FFFFu, l = (l | l << 8) & 0x00FF00FF00FF00FFu, l = (l | l << 4) & 0x0F0F0F0F0F0F0F0Fu;
    h = (h | h << 24) & 0x000000FF000000FFu, h = (h | h << 12) & 0x000F000F000F000Fu, h = (h | h << 6) & 0x0303030303030303u;
    l |= h << 4;
    const uint32_t byte[2] = {less_32((uint32_t)l), less_32((uint32_t)(l >> 32))};
    scaled(byte, true, 8, half(&b->d), s);
    break;
  }
  }
}
INLINE int parts(const mn_dtype t) { return is_super(t) ? by_halves(t) ? 16 : 8 : 1; } /* scales of a block */

#if defined(__AVX2__)
/* Eight halves, so many bytes behind p each. */
INLINE v8f halves_at(const char *p, const int64_t at[8]) {
  __m128i h = _mm_setzero_si128();
#define AT(i) h = _mm_insert_epi16(h, *(const uint16_t *)(const void *)(p + at[i]), i);
  AT(0)
  AT(1)
  AT(2)
  AT(3)
  AT(4)
  AT(5)
  AT(6)
  AT(7)
#undef AT
  return (v8f)_mm256_cvtph_ps(h);
}
INLINE int32_t four_of(const char *p) {
  int32_t x;
  memcpy(&x, p, sizeof x);
  return x;
}
/* Eight times two halves, so many bytes behind p each: all that come first, and all that come second. */
INLINE void pairs_at(const char *p, const int64_t at[8], v8f *first, v8f *second) {
  __m256 pair[2]; /* of 0, 1, 4, 5 and of 2, 3, 6, 7 */
  UNROLL for (int i = 0; i < 2; i++) {
    __m128i h = _mm_loadu_si32(p + at[2 * i]);
    h = _mm_insert_epi32(h, four_of(p + at[2 * i + 1]), 1);
    h = _mm_insert_epi32(h, four_of(p + at[2 * i + 4]), 2);
    h = _mm_insert_epi32(h, four_of(p + at[2 * i + 5]), 3);
    pair[i] = _mm256_cvtph_ps(h);
  }
  *first = (v8f)_mm256_shuffle_ps(pair[0], pair[1], 0x88);
  *second = (v8f)_mm256_shuffle_ps(pair[0], pair[1], 0xDD);
}
/* Scales of eight blocks that have one each, and their offsets; d comes first in all of them, and m after it. */
INLINE void eight_scales(const mn_dtype t, const char *w, const int64_t at[8], v8f *s, v8f *o) {
  if (t == MN_MXFP4) { /* as in scales */
    uint8_t e[8];
    UNROLL for (int i = 0; i < 8; i++) e[i] = ((const mn_mxfp4 *)(const void *)(w + at[i]))->e;
    const __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)e)), one = _mm256_set1_epi32(1);
    const __m256i least = _mm256_sllv_epi32(_mm256_set1_epi32(0x200000), x), other = _mm256_slli_epi32(_mm256_sub_epi32(x, one), 23);
    *s = (v8f)_mm256_blendv_epi8(least, other, _mm256_cmpgt_epi32(x, one));
    return;
  }
  if (t == MN_Q4_1 || t == MN_Q5_1) {
    pairs_at(w, at, s, o);
    return;
  }
  *s = halves_at(w, at);
  if (!is_signed(t)) *o = *s * splat(t == MN_Q4_0 ? -8 : -16);
}
INLINE v8f without_first(v8f x, int n) { /* zeros in its first n lanes */
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return (v8f)_mm256_and_ps((__m256)x, _mm256_castsi256_ps(_mm256_cmpgt_epi32(lanes, _mm256_set1_epi32(n - 1))));
}
/* Scales and offsets from k on of a row, which has so many: eight, or the sixteen of a block. */
INLINE void some_scales(const mn_dtype t, const char *w, int64_t k, v8f s[2], v8f o[2]) {
  float each_s[16], each_o[16];
  if (is_super(t)) {
    scales(t, w + k / parts(t) * size_of(t), each_s, each_o);
    UNROLL for (int i = 0; i < parts(t) / 8; i++) {
      s[i] = load8f(each_s + 8 * i);
      if (!is_signed(t)) o[i] = load8f(each_o + 8 * i);
    }
  } else {
    const int64_t by = size_of(t), at[8] = {0, by, 2 * by, 3 * by, 4 * by, 5 * by, 6 * by, 7 * by};
    eight_scales(t, w + k * by, at, s, o);
  }
}
#endif

INLINE v8f real(v8i x) {
#if defined(__AVX2__)
  return (v8f)_mm256_cvtepi32_ps((__m256i)x);
#else
  return __builtin_convertvector(x, v8f);
#endif
}
INLINE float sum8(v8f x) {
#if defined(__AVX2__)
  __m128 q = _mm_add_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
#else
  return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
#endif
}

#define TYPES(X)                                                                                                                           \
  X(MN_Q4_0)                                                                                                                               \
  X(MN_Q4_1)                                                                                                                               \
  X(MN_Q5_0)                                                                                                                               \
  X(MN_Q5_1)                                                                                                                               \
  X(MN_Q8_0) X(MN_Q2_K) X(MN_Q3_K) X(MN_Q4_K) X(MN_Q5_K) X(MN_Q6_K) X(MN_IQ4_NL) X(MN_IQ4_XS) X(MN_MXFP4)

#endif
