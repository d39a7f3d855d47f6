/* blocks.c - products with weights in blocks, and their values.
 *
 * Whatever the type, 32 consecutive values of a row are codes c (whole numbers of at most 8 bits), and a scale s and an offset o for all of
 * them or for each half: w = s c + o. So with x = d q in 8 bits, a row's product is, over its units of 32 values (or halves of them),
 *     sum_u s_u d_u (sum_k c_k q_k) + sum_u o_u (sum_k x_k),
 * where the inner sum is of whole numbers and the last one is known before any weight is read. For each row scales and offsets are taken
 * out of its blocks first, then the codes follow. d q within a block and 16 bits of a scale times few bits are exact in f32, so values
 * that are unpacked have the bits that the layouts say, however they are rounded. */
#include "backend/cpu/isa/blocks.h"

#include "backend/cpu/isa/vec.h"
#include "base/blocks.h"
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

enum { UNIT = 32, PIECE = 4096, UNITS = PIECE / UNIT, HALVES = PIECE / 16, LINES = 4 /* rows of x at a time */ };

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
/* Eight halves, `stride` bytes apart. */
INLINE v8f halves_apart(const char *p, const int64_t stride) {
  __m128i h = _mm_cvtsi32_si128(*(const uint16_t *)(const void *)p);
#define AT(i) h = _mm_insert_epi16(h, *(const uint16_t *)(const void *)(p + i * stride), i);
  AT(1)
  AT(2)
  AT(3)
  AT(4)
  AT(5)
  AT(6) AT(7)
#undef AT
      return (v8f)_mm256_cvtph_ps(h);
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
  } else if (t == MN_MXFP4) { /* as in scales */
    uint8_t e[8];
    UNROLL for (int i = 0; i < 8; i++) e[i] = ((const mn_mxfp4 *)(const void *)w)[k + i].e;
    const __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)e)), one = _mm256_set1_epi32(1);
    const __m256i least = _mm256_sllv_epi32(_mm256_set1_epi32(0x200000), x), other = _mm256_slli_epi32(_mm256_sub_epi32(x, one), 23);
    s[0] = (v8f)_mm256_blendv_epi8(least, other, _mm256_cmpgt_epi32(x, one));
  } else { /* d comes first in all of them, and m after it */
    s[0] = halves_apart(w + k * size_of(t), size_of(t));
    if (t == MN_Q4_0 || t == MN_Q5_0) o[0] = s[0] * splat(t == MN_Q4_0 ? -8 : -16);
    else if (!is_signed(t)) o[0] = halves_apart(w + k * size_of(t) + 2, size_of(t));
  }
}
#endif

/* ---- values ---- */
INLINE void unpack_unit(const mn_dtype t, vb c, const float *s, const float *o, float *to) {
#if defined(__AVX2__)
  UNROLL for (int i = 0; i < 4; i++) {
    const __m128i of = i < 2 ? _mm256_castsi256_si128((__m256i)c) : _mm256_extracti128_si256((__m256i)c, 1);
    const __m128i e = i % 2 ? _mm_unpackhi_epi64(of, of) : of;
    v8f x = (v8f)_mm256_cvtepi32_ps(is_signed(t) ? _mm256_cvtepi8_epi32(e) : _mm256_cvtepu8_epi32(e));
    const int at = by_halves(t) ? i / 2 : 0;
    x *= s[at];
    if (!is_signed(t)) x += o[at];
    memcpy(to + 8 * i, &x, sizeof x);
  }
#else
  for (int i = 0; i < UNIT; i++) {
    const int at = by_halves(t) ? i / 16 : 0;
    to[i] = is_signed(t) ? (float)(int8_t)c[i] * s[at] : (float)c[i] * s[at] + o[at];
  }
#endif
}
INLINE void unpack_of(const mn_dtype t, const void *from, int64_t n, float *to) {
  const int units = is_super(t) ? 8 : 1, per = by_halves(t) ? 2 : 1;
  const char *block = from;
  for (int64_t at = 0; at < n; at += units * UNIT, block += size_of(t)) {
    float s[16], o[16];
    scales(t, block, s, o);
    UNROLL for (int g = 0; g < units; g++) unpack_unit(t, codes(t, block, g), s + g * per, o + g * per, to + at + g * UNIT);
  }
}

/* ---- activations in 8 bits ---- */
static void round_row(const float *x, int64_t K, int8_t *q, float *d, float *sum, float *d_of_half, float *sum_of_half) {
  for (int64_t u = 0; u < K / UNIT; u++, x += UNIT, q += UNIT) {
    vf most = vf_zero();
    for (int i = 0; i < UNIT; i += MN_VL) most = vf_max(most, vf_abs(vf_load(x + i)));
    const float max = vf_hmax(most), scale = max > 0 ? 127 / max : 0;
    int whole[2] = {0};
    d[u] = d_of_half[2 * u] = d_of_half[2 * u + 1] = max / 127;
    for (int i = 0; i < UNIT; i += MN_VL) {
      const vi c = vi_of(vf_round(vf_load(x + i) * scale));
      int32_t each[MN_VL];
      vi_store(each, c);
      for (int k = 0; k < MN_VL; k++) q[i + k] = (int8_t)each[k], whole[i / 16] += each[k];
    }
    sum_of_half[2 * u] = d[u] * (float)whole[0];
    sum_of_half[2 * u + 1] = d[u] * (float)whole[1];
    sum[u] = d[u] * (float)(whole[0] + whole[1]);
  }
}
static void round_rows(const float *x, int64_t x_stride, mn_rounded *r) {
  const int64_t units = r->K / UNIT;
  for (int64_t i = 0; i < r->M; i++)
    round_row(x + i * x_stride, r->K, r->q + i * r->K, r->d + i * units, r->sum + i * units, r->d_of_half + 2 * i * units,
              r->sum_of_half + 2 * i * units);
}

/* ---- products ---- */
typedef struct piece {
  float by[LINES * HALVES]; /* s d, for each of N rows of weights and M of x */
  v8f rest[LINES];          /* parts of sum o x */
} piece;

/* N rows of weights, `apart` bytes apart, with M of x, of which one is 1. */
INLINE void prepare(const mn_dtype t, const int N, const int M, const char *w, int64_t apart, int64_t units, const mn_rounded *x, int64_t i,
                    int64_t first, piece *p) {
  const int per = by_halves(t) ? 2 : 1;
  const int64_t n = units * per, all = x->K / UNIT * per, blocks = n / parts(t);
  const float *ds = (per == 2 ? x->d_of_half : x->d) + i * all + first * per;
  const float *sums = (per == 2 ? x->sum_of_half : x->sum) + i * all + first * per;
  UNROLL for (int r = 0; r < N; r++, w += apart) {
    float *by = p->by + r * M * n;
    v8f *rest = p->rest + r * M;
    UNROLL for (int m = 0; m < M; m++) rest[m] = splat(0);
#if defined(__AVX2__)
    const int step = parts(t) == 16 ? 16 : 8;
    for (int64_t k = 0; n >= 8 && k < n; k += step) { /* the last eight begin earlier, and what was there already counts no more */
      const int64_t at = k + step <= n ? k : n - step;
      v8f s[2], o[2];
      some_scales(t, w, at, s, o);
      UNROLL for (int e = 0; e < step / 8; e++) {
        if (!is_signed(t) && at != k) o[e] = without_first(o[e], (int)(k - at));
        UNROLL for (int m = 0; m < M; m++) {
          const v8f x8 = s[e] * load8f(ds + m * all + at + 8 * e);
          memcpy(by + m * n + at + 8 * e, &x8, sizeof x8);
          if (!is_signed(t)) rest[m] += o[e] * load8f(sums + m * all + at + 8 * e);
        }
      }
    }
    if (n >= 8) continue;
#endif
    for (int64_t b = 0; b < blocks; b++) {
      float s[16], o[16] = {0};
      scales(t, w + b * size_of(t), s, o);
      for (int m = 0; m < M; m++)
        for (int k = 0; k < parts(t); k++) {
          const int64_t at = b * parts(t) + k;
          by[m * n + at] = s[k] * ds[m * all + at];
          if (!is_signed(t)) rest[m][k % 8] += o[k] * sums[m * all + at];
        }
    }
  }
}

INLINE v8f of_unit(const mn_dtype t, const float *by, int64_t u) {
  if (!by_halves(t)) return splat(by[u]);
#if defined(__AVX2__)
  double two;
  memcpy(&two, by + 2 * u, 8);
  return (v8f)_mm256_permutevar_ps((__m256)_mm256_set1_pd(two), _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
#else
  const float a = by[2 * u], b = by[2 * u + 1];
  return (v8f){a, a, a, a, b, b, b, b};
#endif
}
INLINE v8f real(v8i x) {
#if defined(__AVX2__)
  return (v8f)_mm256_cvtepi32_ps((__m256i)x);
#else
  return __builtin_convertvector(x, v8f);
#endif
}
/* Unit u of each: N blocks are `apart` bytes apart. */
INLINE void one_unit(const mn_dtype t, const int N, const int M, const char *block, int64_t apart, const int g, int64_t u, const int8_t *q,
                     int64_t K, const float *by, int64_t n, v8f *acc) {
  UNROLL for (int r = 0; r < N; r++) {
    const vb c = codes(t, block + r * apart, g);
    UNROLL for (int m = 0; m < M; m++) {
      const vs x = (vs)load32(q + m * K + u * UNIT);
      acc[r * M + m] += real(is_signed(t) ? dot_signed((vs)c, x) : dot(c, x)) * of_unit(t, by + (r * M + m) * n, u);
    }
  }
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

/* N rows of weights by M rows of x, of which one is 1, PIECE values of K at a time (N > 1: K is no more). Two sums each where there are
 * few, so that they need not wait for each other. */
INLINE void rows(const mn_dtype t, const int N, const int M, const char *w, const mn_rounded *x, int64_t i, float *y, int64_t y_stride) {
  const int two = N * M > 1 ? 1 : 2;
  const int64_t bytes = size_of(t), apart = x->K / (is_super(t) ? MN_SUPER : MN_BLOCK) * bytes;
  piece p;
  float out[LINES] = {0};
  for (int64_t at = 0; at < x->K; at += PIECE) {
    const int64_t units = (x->K - at < PIECE ? x->K - at : PIECE) / UNIT, n = units * (by_halves(t) ? 2 : 1);
    const int8_t *q = x->q + i * x->K + at;
    v8f acc[2 * LINES] = {{0}};
    prepare(t, N, M, w, apart, units, x, i, at / UNIT, &p);
    if (is_super(t)) {
      for (int64_t u = 0; u < units; u += 8, w += bytes)
        UNROLL for (int g = 0; g < 8; g++) one_unit(t, N, M, w, apart, g, u + g, q, x->K, p.by, n, acc + g % two * N * M);
    } else {
      int64_t u = 0;
      for (; u + 2 <= units; u += 2, w += 2 * bytes)
        UNROLL for (int b = 0; b < 2; b++) one_unit(t, N, M, w + b * bytes, apart, 0, u + b, q, x->K, p.by, n, acc + b % two * N * M);
      for (; u < units; u++, w += bytes) one_unit(t, N, M, w, apart, 0, u, q, x->K, p.by, n, acc);
    }
    UNROLL for (int l = 0; l < N * M; l++) out[l] += sum8((two == 2 ? acc[l] + acc[N * M + l] : acc[l]) + p.rest[l]);
  }
  UNROLL for (int l = 0; l < N * M; l++) y[l % M * y_stride + l / M] = out[l];
}
INLINE void rows_of(const mn_dtype t, const char *w, int64_t N, const mn_rounded *x, float *y, int64_t y_stride) {
  const int64_t bytes = x->K / (is_super(t) ? MN_SUPER : MN_BLOCK) * size_of(t);
  int64_t j = 0;
#if defined(__AVX2__)
  for (; x->M == 1 && x->K <= PIECE && j + LINES <= N; j += LINES) rows(t, LINES, 1, w + j * bytes, x, 0, y + j, y_stride);
#endif
  for (; j < N; j++) {
    int64_t i = 0;
#if defined(__AVX2__)
    for (; i + LINES <= x->M; i += LINES) rows(t, 1, LINES, w + j * bytes, x, i, y + i * y_stride + j, y_stride);
    for (; i + 2 <= x->M; i += 2) rows(t, 1, 2, w + j * bytes, x, i, y + i * y_stride + j, y_stride);
#endif
    for (; i < x->M; i++) rows(t, 1, 1, w + j * bytes, x, i, y + i * y_stride + j, y_stride);
  }
}

#define TYPES(X)                                                                                                                           \
  X(MN_Q4_0)                                                                                                                               \
  X(MN_Q4_1)                                                                                                                               \
  X(MN_Q5_0)                                                                                                                               \
  X(MN_Q5_1)                                                                                                                               \
  X(MN_Q8_0) X(MN_Q2_K) X(MN_Q3_K) X(MN_Q4_K) X(MN_Q5_K) X(MN_Q6_K) X(MN_IQ4_NL) X(MN_IQ4_XS) X(MN_MXFP4)
#define X(t)                                                                                                                               \
  static void unpack_##t(const void *from, int64_t n, float *to) { unpack_of(t, from, n, to); }                                            \
  static void product_##t(const void *w, int64_t N, const mn_rounded *x, float *y, int64_t y_stride) { rows_of(t, w, N, x, y, y_stride); }
TYPES(X)
#undef X

/* ---- f16 ---- */
INLINE v8f from_f16(const uint16_t *h) {
#if defined(__F16C__)
  return (v8f)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)h));
#else
  v8f r;
  for (int i = 0; i < 8; i++) r[i] = mn_f16_to_float(h[i]);
  return r;
#endif
}
static void unpack_f16(const void *from, int64_t n, float *to) {
  const uint16_t *h = from;
  int64_t k = 0;
  for (; k + 8 <= n; k += 8) {
    const v8f x = from_f16(h + k);
    memcpy(to + k, &x, sizeof x);
  }
  for (; k < n; k++) to[k] = half(h + k);
}
INLINE void row_f16(const int M, const uint16_t *w, int64_t K, const float *x, int64_t x_stride, float *y, int64_t y_stride) {
  enum { BY = 4 };
  v8f acc[BY * LINES] = {{0}};
  float out[LINES];
  int64_t k = 0;
  for (; k + 8 * BY <= K; k += 8 * BY) UNROLL for (int b = 0; b < BY; b++) {
      const v8f v = from_f16(w + k + 8 * b);
      UNROLL for (int m = 0; m < M; m++) acc[b * M + m] += v * load8f(x + m * x_stride + k + 8 * b);
    }
  UNROLL for (int m = 0; m < M; m++) out[m] = sum8((acc[m] + acc[M + m]) + (acc[2 * M + m] + acc[3 * M + m]));
  for (; k < K; k++) UNROLL for (int m = 0; m < M; m++) out[m] += half(w + k) * x[m * x_stride + k];
  UNROLL for (int m = 0; m < M; m++) y[m * y_stride] = out[m];
}
static void product_f16(const uint16_t *w, int64_t N, int64_t K, const float *x, int64_t x_stride, int64_t M, float *y, int64_t y_stride) {
  for (int64_t j = 0; j < N; j++, w += K) {
    int64_t i = 0;
    for (; i + LINES <= M; i += LINES) row_f16(LINES, w, K, x + i * x_stride, x_stride, y + i * y_stride + j, y_stride);
    for (; i < M; i++) row_f16(1, w, K, x + i * x_stride, x_stride, y + i * y_stride + j, y_stride);
  }
}

static void narrow(const float *from, int64_t n, uint16_t *to) {
  int64_t i = 0;
  for (; i + MN_VL <= n; i += MN_VL) vf_store_bf16(to + i, vf_load(from + i));
  if (i < n) vf_store_bf16n(to + i, vf_loadn(from + i, (int)(n - i)), (int)(n - i));
}
static void widen(const uint16_t *from, int64_t n, float *to) {
  int64_t i = 0;
  for (; i + MN_VL <= n; i += MN_VL) vf_store(to + i, vf_load_bf16(from + i));
  if (i < n) vf_storen(to + i, vf_load_bf16n(from + i, (int)(n - i)), (int)(n - i));
}

static void unpack(mn_dtype type, const void *from, int64_t n, float *to) {
#define X(t) [t] = unpack_##t,
  static void (*const of[MN_ALL_TYPES])(const void *, int64_t, float *) = {[MN_F16] = unpack_f16, TYPES(X)};
#undef X
  of[type](from, n, to);
}
static void product(mn_dtype type, const void *w, int64_t N, const mn_rounded *x, float *y, int64_t y_stride) {
#define X(t) [t] = product_##t,
  static void (*const of[MN_ALL_TYPES])(const void *, int64_t, const mn_rounded *, float *, int64_t) = {TYPES(X)};
#undef X
  of[type](w, N, x, y, y_stride);
}

const mn_blocks_vec MN_ISA_NAME(mn_blocks_table) = {unpack, narrow, widen, round_rows, product, product_f16};
