/* thin.c - products of few rows (see thin.h), up to four at a time. Two orders, by how B lies in memory, each in f32
 * (bf16 widened) and, where the processor has it, by dot products of pairs of bf16. */
#include "backend/cpu/isa/thin.h"

#include "backend/cpu/isa/vec.h"

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
#define INLINE static inline __attribute__((always_inline))

enum { VW = MN_VL, ROWS = 4, COLS = 512, AHEAD = 8 /* columns that are asked for early */ };

static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE vf load_b(bool bf16, const void *b, int64_t at) {
  return bf16 ? vf_load_bf16((const uint16_t *)b + at) : vf_load((const float *)b + at);
}
INLINE vf load_bn(bool bf16, const void *b, int64_t at, int64_t n) {
  return bf16 ? vf_load_bf16n((const uint16_t *)b + at, (int)n) : vf_loadn((const float *)b + at, (int)n);
}
/* A in a register of its own: GCC would rather read it again for each use */
INLINE vf hold(float a) {
  vf x = vf_set1(a);
#if defined(MN_VEC_512)
  __asm__("" : "+v"(x));
#endif
  return x;
}

/* n finished sums of row i, from column j on */
INLINE void put(const mn_product *p, int64_t i, int64_t j, const float *sum, int64_t n) {
  const vf alpha = vf_set1(p->alpha);
  float *f = (float *)p->c + i * p->ldc + j;
  uint16_t *h = (uint16_t *)p->c + i * p->ldc + j;
  for (int64_t l = 0; l < n; l += VW) {
    const int part = (int)min64(VW, n - l);
    const vf x = alpha * vf_load(sum + l);
    if (p->c_bf16) vf_store_bf16n(h + l, x, part);
    else vf_storen(f + l, p->accumulate ? vf_loadn(f + l, part) + x : x, part);
  }
}

/* the sums over the lanes of four vectors */
INLINE void sum4(float out[4], vf a, vf b, vf c, vf d) {
#if defined(MN_VEC_512)
  const __m512 A = (__m512)a, B = (__m512)b, C = (__m512)c, D = (__m512)d;
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(A, B), _mm512_unpackhi_ps(A, B));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(C, D), _mm512_unpackhi_ps(C, D));
  const __m512d lo = _mm512_unpacklo_pd((__m512d)ab, (__m512d)cd), hi = _mm512_unpackhi_pd((__m512d)ab, (__m512d)cd);
  const __m512 s = _mm512_add_ps((__m512)lo, (__m512)hi); /* a b c d, in each quarter */
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
#else
  out[0] = vf_sum(a), out[1] = vf_sum(b), out[2] = vf_sum(c), out[3] = vf_sum(d);
#endif
}

/* ---- the columns of B are dense (a weight stored [N,K]): dot products, n columns at a time ---- */
INLINE void dots(const int M, const int n, const bool bf16, const mn_product *p, const float *A, int64_t j, float sum[ROWS][COLS]) {
  vf c[ROWS * 4];
  UNROLL for (int i = 0; i < M * n; i++) c[i] = vf_zero();
  const int64_t K = p->K, ldb = p->b_cs, at = j * ldb;
  for (int64_t k = 0; k < K; k += VW) {
    const int64_t left = K - k;
    vf b[4];
    UNROLL for (int q = 0; q < n; q++) {
      b[q] = left >= VW ? load_b(bf16, p->b, at + q * ldb + k) : load_bn(bf16, p->b, at + q * ldb + k, left);
      __builtin_prefetch((const char *)p->b + (at + (q + AHEAD) * ldb + k) * (bf16 ? 2 : 4));
    }
    UNROLL for (int i = 0; i < M; i++) {
      const vf a = left >= VW ? vf_load(A + i * K + k) : vf_loadn(A + i * K + k, (int)left);
      UNROLL for (int q = 0; q < n; q++) c[i * n + q] += a * b[q];
    }
  }
  UNROLL for (int i = 0; i < M; i++) {
    if (n == 4) sum4(&sum[i][j % COLS], c[i * n], c[i * n + 1], c[i * n + 2], c[i * n + 3]);
    else sum[i][j % COLS] = vf_sum(c[i * n]);
  }
}

/* ---- the rows of B are dense: rows of sums that stay in the L1 cache, `step` rows of B at a time ---- */
INLINE void rows_step(const int M, const int step, const bool bf16, const mn_product *p, const float *A, int64_t k, int64_t j, int64_t n,
                      float sum[ROWS][COLS]) {
  const int64_t K = p->K, ldb = p->b_rs;
  vf a[16];
  UNROLL for (int i = 0; i < M; i++) UNROLL for (int q = 0; q < step; q++) a[i * step + q] = hold(A[i * K + k + q]);
  for (int64_t l = 0; l < n; l += VW) {
    vf s[ROWS];
    UNROLL for (int i = 0; i < M; i++) s[i] = vf_load(&sum[i][l]);
    UNROLL for (int q = 0; q < step; q++) {
      const int64_t at = (k + q) * ldb + j + l;
      const vf b = n - l >= VW ? load_b(bf16, p->b, at) : load_bn(bf16, p->b, at, n - l);
      UNROLL for (int i = 0; i < M; i++) s[i] += a[i * step + q] * b;
    }
    UNROLL for (int i = 0; i < M; i++) vf_store(&sum[i][l], s[i]);
  }
}
INLINE void rows(const int M, const bool bf16, const mn_product *p, const float *A, int64_t j, int64_t n) {
  _Alignas(64) float sum[ROWS][COLS];
  memset(sum, 0, sizeof sum[0] * (size_t)M);
  const int step = M <= 2 ? 8 : 4;
  int64_t k = 0;
  for (; k + step <= p->K; k += step) rows_step(M, step, bf16, p, A, k, j, n, sum);
  for (; k < p->K; k++) rows_step(M, 1, bf16, p, A, k, j, n, sum);
  for (int i = 0; i < M; i++) put(p, i, j, sum[i], n);
}

#if defined(MN_ISA_avx512_bf16)
/* ---- the same two in pairs of bf16 ---- */
INLINE __m512i load_halves(const uint16_t *p, int64_t n) { /* up to 32 */
  return n >= 32 ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16(n <= 0 ? 0 : (__mmask32)((1ull << n) - 1), p);
}
INLINE __m512 pairs(__m512 c, __m512i a, __m512i b) { return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b); }

INLINE void pair_dots(const int M, const int n, const mn_product *p, const uint16_t *A, int64_t j, float sum[ROWS][COLS]) {
  __m512 c[ROWS * 4];
  UNROLL for (int i = 0; i < M * n; i++) c[i] = _mm512_setzero_ps();
  const int64_t K = p->K, ldb = p->b_cs;
  const uint16_t *B = (const uint16_t *)p->b + j * ldb;
  for (int64_t k = 0; k < K; k += 32) {
    __m512i b[4];
    UNROLL for (int q = 0; q < n; q++) {
      b[q] = load_halves(B + q * ldb + k, K - k);
      __builtin_prefetch(B + (q + AHEAD) * ldb + k);
    }
    UNROLL for (int i = 0; i < M; i++) {
      const __m512i a = load_halves(A + i * K + k, K - k);
      UNROLL for (int q = 0; q < n; q++) c[i * n + q] = pairs(c[i * n + q], a, b[q]);
    }
  }
  UNROLL for (int i = 0; i < M; i++) {
    if (n == 4) sum4(&sum[i][j % COLS], (vf)c[i * n], (vf)c[i * n + 1], (vf)c[i * n + 2], (vf)c[i * n + 3]);
    else sum[i][j % COLS] = vf_sum((vf)c[i * n]);
  }
}

/* Rows k and k+1 are interleaved by the processor's own unpacking, which works in quarters of a register: of 32
 * columns, the first vector of sums holds columns 0-3, 8-11, 16-19, 24-27 and the second the others. */
INLINE void pair_rows_step(const int M, const int step, const mn_product *p, const uint16_t *A, int64_t k, int64_t j, int64_t n,
                           float sum[ROWS][COLS]) { /* `step` pairs; the last may lack its second row */
  const int64_t K = p->K, ldb = p->b_rs;
  const uint16_t *B = (const uint16_t *)p->b + k * ldb + j;
  __m512i a[16];
  UNROLL for (int i = 0; i < M; i++) UNROLL for (int q = 0; q < step; q++) {
    const uint16_t *x = A + i * K + k + 2 * q;
    a[i * step + q] = _mm512_set1_epi32((int)(x[0] | (k + 2 * q + 1 < K ? (uint32_t)x[1] << 16 : 0)));
    __asm__("" : "+v"(a[i * step + q]));
  }
  for (int64_t l = 0; l < n; l += 32) {
    __m512 s[ROWS][2];
    UNROLL for (int i = 0; i < M; i++) {
      s[i][0] = _mm512_load_ps(&sum[i][l]);
      s[i][1] = _mm512_load_ps(&sum[i][l + 16]);
    }
    UNROLL for (int q = 0; q < step; q++) {
      const __m512i b0 = load_halves(B + 2 * q * ldb + l, n - l);
      const __m512i b1 = k + 2 * q + 1 < K ? load_halves(B + (2 * q + 1) * ldb + l, n - l) : _mm512_setzero_si512();
      const __m512i lo = _mm512_unpacklo_epi16(b0, b1), hi = _mm512_unpackhi_epi16(b0, b1);
      UNROLL for (int i = 0; i < M; i++) {
        s[i][0] = pairs(s[i][0], a[i * step + q], lo);
        s[i][1] = pairs(s[i][1], a[i * step + q], hi);
      }
    }
    UNROLL for (int i = 0; i < M; i++) {
      _mm512_store_ps(&sum[i][l], s[i][0]);
      _mm512_store_ps(&sum[i][l + 16], s[i][1]);
    }
  }
}
INLINE void pair_rows(const int M, const mn_product *p, const uint16_t *A, int64_t j, int64_t n) {
  _Alignas(64) float sum[ROWS][COLS];
  memset(sum, 0, sizeof sum[0] * (size_t)M);
  const int step = M == 1 ? 8 : 4;
  int64_t k = 0;
  for (; k + 2 * step <= p->K; k += 2 * step) pair_rows_step(M, step, p, A, k, j, n, sum);
  for (; k < p->K; k += 2) pair_rows_step(M, 1, p, A, k, j, n, sum);
  const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
  for (int i = 0; i < M; i++) {
    for (int64_t l = 0; l < n; l += 32) {
      const __m512 lo = _mm512_load_ps(&sum[i][l]), hi = _mm512_load_ps(&sum[i][l + 16]);
      _mm512_store_ps(&sum[i][l], _mm512_permutex2var_ps(lo, first, hi));
      _mm512_store_ps(&sum[i][l + 16], _mm512_permutex2var_ps(lo, second, hi));
    }
    put(p, i, j, sum[i], n);
  }
}
#define PAIRS(M)                                                                                                                           \
  static void pair_dots_##M(const mn_product *p, const void *A) {                                                                          \
    _Alignas(64) float sum[ROWS][COLS];                                                                                                    \
    for (int64_t j0 = 0; j0 < p->N; j0 += COLS) {                                                                                          \
      const int64_t end = min64(p->N, j0 + COLS);                                                                                          \
      int64_t j = j0;                                                                                                                      \
      for (; j + 4 <= end; j += 4) pair_dots(M, 4, p, A, j, sum);                                                                          \
      for (; j < end; j++) pair_dots(M, 1, p, A, j, sum);                                                                                  \
      for (int i = 0; i < M; i++) put(p, i, j0, sum[i], end - j0);                                                                         \
    }                                                                                                                                      \
  }                                                                                                                                        \
  static void pair_rows_##M(const mn_product *p, const void *A) {                                                                          \
    for (int64_t j = 0; j < p->N; j += COLS) pair_rows(M, p, A, j, min64(COLS, p->N - j));                                                 \
  }
#define BF16(M) PAIRS(M)
#define BF16_OF(M)                                                                                                                         \
  { pair_rows_##M, pair_dots_##M }
#else
#define BF16(M) WIDENED(M, bf16, true)
#define BF16_OF(M)                                                                                                                         \
  { bf16_rows_##M, bf16_dots_##M }
#endif

#define WIDENED(M, name, bf16)                                                                                                             \
  static void name##_dots_##M(const mn_product *p, const void *A) {                                                                        \
    _Alignas(64) float sum[ROWS][COLS];                                                                                                    \
    for (int64_t j0 = 0; j0 < p->N; j0 += COLS) {                                                                                          \
      const int64_t end = min64(p->N, j0 + COLS);                                                                                          \
      int64_t j = j0;                                                                                                                      \
      for (; j + 4 <= end; j += 4) dots(M, 4, bf16, p, A, j, sum);                                                                         \
      for (; j < end; j++) dots(M, 1, bf16, p, A, j, sum);                                                                                 \
      for (int i = 0; i < M; i++) put(p, i, j0, sum[i], end - j0);                                                                         \
    }                                                                                                                                      \
  }                                                                                                                                        \
  static void name##_rows_##M(const mn_product *p, const void *A) {                                                                        \
    for (int64_t j = 0; j < p->N; j += COLS) rows(M, bf16, p, A, j, min64(COLS, p->N - j));                                                \
  }
WIDENED(1, f32, false)
WIDENED(2, f32, false)
WIDENED(3, f32, false)
WIDENED(4, f32, false)
BF16(1)
BF16(2) BF16(3) BF16(4)

#if defined(MN_ISA_avx512_bf16)
    enum {
      A_BF16 = true
    };
#else
    enum {
      A_BF16 = false
    };
#endif

static void run(const mn_product *p, const void *A) {
  typedef void (*thin_fn)(const mn_product *, const void *);
#define OF(M)                                                                                                                              \
  { {f32_rows_##M, f32_dots_##M}, BF16_OF(M) }
  static const thin_fn fns[ROWS][2][2] = {OF(1), OF(2), OF(3), OF(4)};
  const int64_t passes = (p->M + ROWS - 1) / ROWS, a_size = p->bf16 && A_BF16 ? 2 : 4, c_size = p->c_bf16 ? 2 : 4;
  mn_product part = *p;
  for (int64_t i = 0, pass = 0; i < p->M; i += part.M, pass++) {
    part.M = (p->M - i + passes - pass - 1) / (passes - pass);
    part.c = (char *)p->c + c_size * i * p->ldc;
    fns[part.M - 1][p->bf16][p->b_cs != 1](&part, (const char *)A + a_size * i * p->K);
  }
}

const mn_thin MN_ISA_NAME(mn_thin_table) = {run, A_BF16};
