/* blocks.c - products with weights in blocks, and their values.
 *
 * Whatever the type, 32 consecutive values of a row are codes c (whole numbers of at most 8 bits), and a scale s and an offset o for all of
 * them or for each half: w = s c + o. So with x = d q in 8 bits, a row's product is, over its units of 32 values (or halves of them),
 *     sum_u s_u d_u (sum_k c_k q_k) + sum_u o_u (sum_k x_k),
 * where the inner sum is of whole numbers and the last one is known before any weight is read. For each row scales and offsets are taken
 * out of its blocks first, then the codes follow. d q within a block and 16 bits of a scale times few bits are exact in f32, so values
 * that are unpacked have the bits that the layouts say, however they are rounded. */
#include "backend/cpu/isa/blocks_codes.h"

#include <math.h>

enum { PIECE = 4096, UNITS = PIECE / UNIT, HALVES = PIECE / 16, LINES = 4 /* rows of x at a time */, AHEAD = 8 /* rows of weights */ };

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
/* The largest magnitude; NaN where there is one, whose bits, as of any number without its sign, stand above those of infinity. */
INLINE float largest(const float *x, const int n) {
  float r;
#if defined(__AVX2__)
  __m256i most = _mm256_setzero_si256();
  UNROLL for (int i = 0; i < n; i += 8) most =
      _mm256_max_epi32(most, _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(const void *)(x + i)), _mm256_set1_epi32(INT32_MAX)));
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
  m = _mm_max_epi32(m, _mm_unpackhi_epi64(m, m));
  const int32_t bits = _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_srli_epi64(m, 32)));
#else
  uint32_t bits = 0;
  for (int i = 0; i < n; i++) {
    uint32_t b;
    memcpy(&b, x + i, 4);
    b &= INT32_MAX;
    bits = b > bits ? b : bits;
  }
#endif
  memcpy(&r, &bits, 4);
  return r;
}
static float as_f16(float x) {
#if defined(__F16C__)
  const float near = _cvtsh_ss(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT));
#else
  const float near = mn_f16_to_float(mn_float_to_f16(x));
#endif
  return isfinite(near) ? near : x;
}
/* round(scale x) of a unit, and the sums of its halves. Of what is not finite nothing is known but that the scale of the whole tells it. */
#if defined(__AVX2__)
INLINE float sum_of_8(__m256i x) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
  return (float)_mm_cvtsi128_si32(_mm_add_epi32(s, _mm_srli_epi64(s, 32)));
}
#endif
INLINE void round_unit(const float *x, float scale, int8_t *q, float *whole) {
#if defined(__AVX2__)
  __m256i e[UNIT / 8];
  UNROLL for (int i = 0; i < UNIT / 8; i++) e[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(scale)));
  const __m256i narrow = _mm256_packs_epi16(_mm256_packs_epi32(e[0], e[1]), _mm256_packs_epi32(e[2], e[3]));
  _mm256_storeu_si256((__m256i *)(void *)q, _mm256_permutevar8x32_epi32(narrow, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
  whole[0] = sum_of_8(_mm256_add_epi32(e[0], e[1]));
  whole[1] = sum_of_8(_mm256_add_epi32(e[2], e[3]));
#else
  int32_t each[UNIT];
  int sum[2] = {0};
  for (int i = 0; i < UNIT; i += MN_VL) vi_store(each + i, vi_of(vf_round(vf_load(x + i) * scale)));
  for (int i = 0; i < UNIT; i++) q[i] = (int8_t)each[i];
  for (int i = 0; i < UNIT / 2; i++) sum[0] += q[i], sum[1] += q[UNIT / 2 + i];
  whole[0] = (float)sum[0], whole[1] = (float)sum[1];
#endif
}
/* -128 times the sum of q; of what is not finite its scale tells. */
INLINE int32_t lifted_of(float whole) { return fabsf(whole) <= UNIT * 127 ? -128 * (int32_t)whole : 0; }
static void round_32(bool half_sums, const float *x, int64_t K, int8_t *q, float *d, float *sum, int32_t *lifted) {
  for (int64_t u = 0; u < K / UNIT; u++, x += UNIT, q += UNIT) {
    float whole[2];
    const float most = largest(x, UNIT), wide = most / 127;
    round_unit(x, most > 0 ? 127 / most : 0, q, whole);
    d[u] = as_f16(wide);
    lifted[u] = lifted_of(whole[0] + whole[1]);
    sum[u] = half_sums ? as_f16(wide * (whole[0] + whole[1])) : d[u] * (whole[0] + whole[1]);
  }
}
static void round_256(const float *x, int64_t K, int8_t *q, float *d, float *sum, float *d_of_half, float *sum_of_half, int32_t *lifted) {
  for (int64_t b = 0; b < K; b += MN_SUPER, x += MN_SUPER) {
    const float most = largest(x, MN_SUPER);
    int at = 0;
    while (at + 1 < MN_SUPER && fabsf(x[at]) != most) at++;
    const float scale = most > 0 ? -127 / x[at] : 0, of = most > 0 ? 1 / scale : most; /* 0, or NaN */
    for (int g = 0; g < MN_SUPER / UNIT; g++, q += UNIT, d++, sum++, d_of_half += 2, sum_of_half += 2) {
      float whole[2];
      round_unit(x + g * UNIT, scale, q, whole);
      d[0] = d_of_half[0] = d_of_half[1] = of;
      *lifted++ = lifted_of(whole[0] + whole[1]);
      sum_of_half[0] = of * whole[0];
      sum_of_half[1] = of * whole[1];
      sum[0] = of * (whole[0] + whole[1]);
    }
  }
}
static void round_row(mn_rounding how, const float *x, mn_rounded *r, int64_t i) {
  const int64_t units = r->K / UNIT, u = i * units;
  int8_t *q = r->q + i * r->K;
  if (how == MN_ROUND_256) round_256(x, r->K, q, r->d + u, r->sum + u, r->d_of_half + 2 * u, r->sum_of_half + 2 * u, r->lifted + u);
  else round_32(how == MN_ROUND_SUMS, x, r->K, q, r->d + u, r->sum + u, r->lifted + u);
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
/* N rows of weights by M rows of x, of which one is 1, PIECE values of K at a time (N > 1: K is no more). Two sums each where there are
 * few, so that they need not wait for each other. */
INLINE void rows(const mn_dtype t, const int N, const int M, const char *w, const mn_rounded *x, int64_t i, const char *next, float *y,
                 int64_t y_stride) {
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
      for (int64_t u = 0; u < units; u += 8, w += bytes, next += next ? N * bytes : 0) {
        ask(next, N * bytes);
        UNROLL for (int g = 0; g < 8; g++) one_unit(t, N, M, w, apart, g, u + g, q, x->K, p.by, n, acc + g % two * N * M);
      }
    } else {
      int64_t u = 0;
      for (; u + 2 <= units; u += 2, w += 2 * bytes, next += next ? 2 * N * bytes : 0) {
        ask(next, 2 * N * bytes);
        UNROLL for (int b = 0; b < 2; b++) one_unit(t, N, M, w + b * bytes, apart, 0, u + b, q, x->K, p.by, n, acc + b % two * N * M);
      }
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
  for (; x->M == 1 && x->K <= PIECE && j + LINES <= N; j += LINES)
    rows(t, LINES, 1, w + j * bytes, x, 0, w + (j + AHEAD) * bytes, y + j, y_stride);
#endif
  for (; j < N; j++) {
    int64_t i = 0;
#if defined(__AVX2__)
    for (; i + LINES <= x->M; i += LINES) rows(t, 1, LINES, w + j * bytes, x, i, NULL, y + i * y_stride + j, y_stride);
    for (; i + 2 <= x->M; i += 2) rows(t, 1, 2, w + j * bytes, x, i, w + (j + AHEAD) * bytes, y + i * y_stride + j, y_stride);
#endif
    for (; i < x->M; i++) rows(t, 1, 1, w + j * bytes, x, i, NULL, y + i * y_stride + j, y_stride);
  }
}

#define X(t)                                                                                                                               \
  static void unpack_##t(const void *from, int64_t n, float *to) { unpack_of(t, from, n, to); }                                            \
  static void product_##t(const void *w, int64_t N, const mn_rounded *x, float *y, int64_t y_stride) { rows_of(t, w, N, x, y, y_stride); }
TYPES(X)
#undef X

/* ---- f16 and bf16: t is either ---- */
INLINE v8f from_f16(const uint16_t *h) {
#if defined(__F16C__)
  return (v8f)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)h));
#else
  v8f r;
  for (int i = 0; i < 8; i++) r[i] = mn_f16_to_float(h[i]);
  return r;
#endif
}
INLINE v8f from_bf16(const uint16_t *h) { /* the upper half of an f32 */
  typedef uint16_t v8h __attribute__((vector_size(16)));
  typedef uint32_t v8u __attribute__((vector_size(32)));
  v8h bits;
  memcpy(&bits, h, sizeof bits);
  return (v8f)(__builtin_convertvector(bits, v8u) << 16);
}
INLINE v8f from_halves(const mn_dtype t, const uint16_t *h) { return t == MN_F16 ? from_f16(h) : from_bf16(h); }
INLINE float from_half(const mn_dtype t, const uint16_t *h) { return t == MN_F16 ? half(h) : mn_bf16_to_float(*h); }

INLINE void unpack_halves(const mn_dtype t, const uint16_t *h, int64_t n, float *to) {
  int64_t k = 0;
  for (; k + 8 <= n; k += 8) {
    const v8f x = from_halves(t, h + k);
    memcpy(to + k, &x, sizeof x);
  }
  for (; k < n; k++) to[k] = from_half(t, h + k);
}
static void unpack_f16(const void *from, int64_t n, float *to) { unpack_halves(MN_F16, from, n, to); }
static void unpack_bf16(const void *from, int64_t n, float *to) { unpack_halves(MN_STORED_BF16, from, n, to); }

INLINE void row_halves(const mn_dtype t, const int M, const uint16_t *w, int64_t K, const float *x, int64_t x_stride, float *y,
                       int64_t y_stride) {
  enum { BY = 4 };
  v8f acc[BY * LINES] = {{0}};
  float out[LINES];
  int64_t k = 0;
  for (; k + 8 * BY <= K; k += 8 * BY) UNROLL for (int b = 0; b < BY; b++) {
      const v8f v = from_halves(t, w + k + 8 * b);
      UNROLL for (int m = 0; m < M; m++) acc[b * M + m] += v * load8f(x + m * x_stride + k + 8 * b);
    }
  UNROLL for (int m = 0; m < M; m++) out[m] = sum8((acc[m] + acc[M + m]) + (acc[2 * M + m] + acc[3 * M + m]));
  for (; k < K; k++) UNROLL for (int m = 0; m < M; m++) out[m] += from_half(t, w + k) * x[m * x_stride + k];
  UNROLL for (int m = 0; m < M; m++) y[m * y_stride] = out[m];
}
INLINE void rows_of_halves(const mn_dtype t, const uint16_t *w, int64_t N, int64_t K, const float *x, int64_t x_stride, int64_t M, float *y,
                           int64_t y_stride) {
  for (int64_t j = 0; j < N; j++, w += K) {
    int64_t i = 0;
    for (; i + LINES <= M; i += LINES) row_halves(t, LINES, w, K, x + i * x_stride, x_stride, y + i * y_stride + j, y_stride);
    for (; i < M; i++) row_halves(t, 1, w, K, x + i * x_stride, x_stride, y + i * y_stride + j, y_stride);
  }
}

static void product_halves(mn_dtype type, const uint16_t *w, int64_t N, int64_t K, const float *x, int64_t x_stride, int64_t M, float *y,
                           int64_t y_stride) {
  if (type == MN_F16) rows_of_halves(MN_F16, w, N, K, x, x_stride, M, y, y_stride);
  else rows_of_halves(MN_STORED_BF16, w, N, K, x, x_stride, M, y, y_stride);
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
  static void (*const of[MN_ALL_TYPES])(const void *, int64_t, float *) = {[MN_F16] = unpack_f16, [MN_STORED_BF16] = unpack_bf16, TYPES(X)};
#undef X
  of[type](from, n, to);
}
static void product(mn_dtype type, const void *w, int64_t N, const mn_rounded *x, float *y, int64_t y_stride) {
#define X(t) [t] = product_##t,
  static void (*const of[MN_ALL_TYPES])(const void *, int64_t, const mn_rounded *, float *, int64_t) = {TYPES(X)};
#undef X
  of[type](w, N, x, y, y_stride);
}

const mn_blocks_vec MN_ISA_NAME(mn_blocks_table) = {unpack, narrow, widen, round_row, product, product_halves};
