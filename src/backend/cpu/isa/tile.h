/* tile.h - small products that live in the first two caches: what the kernels of attention and of linear recurrences
 * are made of. Only included by isa/<x>.c; everything is static.
 *
 *     C[M,N] (+|-)= A[M,K] B[K,N]
 *
 * A is read one element at a time and spread over a register, so it may have any two strides (a transposed operand
 * costs nothing). Rows of B and C are whole vectors: their leading dimensions are multiples of TILE_PAD floats, and
 * columns from N up to the next whole vector are computed too (callers keep their scratch padded). */
#ifndef MN_CPU_TILE_H
#define MN_CPU_TILE_H

#include "backend/cpu/isa/units.h"
#include "backend/cpu/isa/vec.h"

enum { TILE_PAD = MN_VL }; /* rows of scratch are whole vectors */

#if defined(__clang__)
#define TILE_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TILE_UNROLL _Pragma("GCC unroll 32")
#endif
#define TILE_FN static __attribute__((unused))

MN_INLINE int64_t tile_pad(int64_t n) { return (n + TILE_PAD - 1) / TILE_PAD * TILE_PAD; }

/* ---- scratch ---- */
typedef struct take { /* hands out a kernel's scratch; with base NULL it only counts */
  char *base;
  size_t used;
} take;
MN_INLINE void *take_bytes(take *s, int64_t n) {
  char *p = s->base ? s->base + s->used : NULL;
  s->used += ((size_t)n + 63) / 64 * 64;
  return p;
}
MN_INLINE float *take_floats(take *s, int64_t n) { return take_bytes(s, 4 * n); }

/* ---- moving rows in and out of scratch ---- bf16: the source's type, else f32 */
TILE_FN void tile_row_in(float *dst, const void *src, int bf16, int64_t n) { /* pads with zeros to tile_pad(n) */
  int64_t i = 0;
  if (bf16) {
    const uint16_t *s = src;
    for (; i + MN_VL <= n; i += MN_VL) vf_store(dst + i, vf_load_bf16(s + i));
    for (; i < n; i++) dst[i] = bf16_to_f32(s[i]);
  } else {
    const float *s = src;
    for (; i + MN_VL <= n; i += MN_VL) vf_store(dst + i, vf_load(s + i));
    for (; i < n; i++) dst[i] = s[i];
  }
  for (int64_t p = tile_pad(n); i < p; i++) dst[i] = 0;
}
TILE_FN void tile_row_out(void *dst, const float *src, int bf16, int64_t n) {
  int64_t i = 0;
  if (bf16) {
    uint16_t *d = dst;
    for (; i + 2 * MN_VL <= n; i += 2 * MN_VL) vf_store2_bf16(d + i, vf_load(src + i), vf_load(src + i + MN_VL));
    for (; i + MN_VL <= n; i += MN_VL) vf_store_bf16(d + i, vf_load(src + i));
    for (; i < n; i++) d[i] = bf16_from_f32(src[i]);
  } else {
    float *d = dst;
    for (; i + MN_VL <= n; i += MN_VL) vf_store(d + i, vf_load(src + i));
    for (; i < n; i++) d[i] = src[i];
  }
}
MN_INLINE float tile_scalar_in(const void *p, int bf16, int64_t i) {
  return bf16 ? bf16_to_f32(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}
MN_INLINE void tile_scalar_out(void *p, int bf16, int64_t i, float x) {
  if (bf16) ((uint16_t *)p)[i] = bf16_from_f32(x);
  else ((float *)p)[i] = x;
}

/* ---- transposition ---- */
enum { TILE_ROUNDS = MN_VL == 16 ? 4 : 2 }; /* log2(MN_VL) */
/* One block of MN_VL x MN_VL: log2(MN_VL) rounds of interleaving row i with row i + MN_VL/2; each round moves the
 * top bit of the row index to the bottom of the column index and the top bit of the column index back. */
MN_INLINE void tile_transpose_block(vf r[MN_VL]) {
  vf t[MN_VL];
#if defined(MN_VEC_256) /* halves of 128 bits stay apart until the end: half as many instructions */
  TILE_UNROLL
  for (int i = 0; i < 8; i += 2) {
    t[i] = (vf)_mm256_unpacklo_ps((__m256)r[i], (__m256)r[i + 1]);
    t[i + 1] = (vf)_mm256_unpackhi_ps((__m256)r[i], (__m256)r[i + 1]);
  }
  TILE_UNROLL
  for (int i = 0; i < 8; i += 4) {
    r[i] = (vf)_mm256_unpacklo_pd((__m256d)t[i], (__m256d)t[i + 2]);
    r[i + 1] = (vf)_mm256_unpackhi_pd((__m256d)t[i], (__m256d)t[i + 2]);
    r[i + 2] = (vf)_mm256_unpacklo_pd((__m256d)t[i + 1], (__m256d)t[i + 3]);
    r[i + 3] = (vf)_mm256_unpackhi_pd((__m256d)t[i + 1], (__m256d)t[i + 3]);
  }
  TILE_UNROLL
  for (int i = 0; i < 4; i++) {
    t[i] = (vf)_mm256_permute2f128_ps((__m256)r[i], (__m256)r[4 + i], 0x20);
    t[4 + i] = (vf)_mm256_permute2f128_ps((__m256)r[i], (__m256)r[4 + i], 0x31);
  }
  TILE_UNROLL
  for (int i = 0; i < 8; i++) r[i] = t[i];
#else
  TILE_UNROLL
  for (int round = 0; round < TILE_ROUNDS; round++) {
    TILE_UNROLL
    for (int i = 0; i < MN_VL / 2; i++) {
#if defined(MN_VEC_512)
      t[2 * i] = (vf)_mm512_permutex2var_ps((__m512)r[i], _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
                                            (__m512)r[i + MN_VL / 2]);
      t[2 * i + 1] = (vf)_mm512_permutex2var_ps(
          (__m512)r[i], _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), (__m512)r[i + MN_VL / 2]);
#else
      t[2 * i] = __builtin_shufflevector(r[i], r[i + MN_VL / 2], 0, 4, 1, 5);
      t[2 * i + 1] = __builtin_shufflevector(r[i], r[i + MN_VL / 2], 2, 6, 3, 7);
#endif
    }
    TILE_UNROLL
    for (int i = 0; i < MN_VL; i++) r[i] = t[i];
  }
#endif
}
/* dst[cols, ldd] = src[rows, lds]^T; with add: +=. src rows are padded to whole vectors (lds), rows beyond `rows` are
 * taken as zero, so dst's padding columns become zero. dst gets tile-padded columns for `cols` rows. */
TILE_FN void tile_transpose(float *dst, int64_t ldd, const float *src, int64_t lds, int64_t rows, int64_t cols, int add) {
  for (int64_t i = 0; i < rows; i += MN_VL)
    for (int64_t j = 0; j < cols; j += MN_VL) {
      vf r[MN_VL];
      if (i + MN_VL <= rows) {
        TILE_UNROLL
        for (int x = 0; x < MN_VL; x++) r[x] = vf_load(src + (i + x) * lds + j);
      } else {
        TILE_UNROLL
        for (int x = 0; x < MN_VL; x++) r[x] = i + x < rows ? vf_load(src + (i + x) * lds + j) : (vf){0};
      }
      tile_transpose_block(r);
      int64_t left = cols - j;
      if (left >= MN_VL && !add) {
        TILE_UNROLL
        for (int x = 0; x < MN_VL; x++) vf_store(dst + (j + x) * ldd + i, r[x]);
      } else {
        TILE_UNROLL
        for (int x = 0; x < MN_VL; x++)
          if (x < left) {
            float *d = dst + (j + x) * ldd + i;
            vf_store(d, add ? vf_load(d) + r[x] : r[x]);
          }
      }
    }
}

/* ---- products ---- */
typedef enum tile_mode { TILE_SET, TILE_ADD, TILE_SUB, TILE_LINEAR } tile_mode;
typedef struct tile_linear { /* TILE_LINEAR: C = x X + z Z + A B; X may be C, Z may be NULL; both have C's ld */
  float x, z;
  const float *X, *Z;
} tile_linear;

MN_INLINE void tile_micro(const int MR, const int NR, int64_t K, const float *A, int64_t ra, int64_t ca, const float *B, int64_t ldb,
                          float *C, int64_t ldc, tile_mode mode, const tile_linear *lin) {
  vf acc[8][4];
  TILE_UNROLL
  for (int i = 0; i < MR; i++) {
    TILE_UNROLL
    for (int j = 0; j < NR; j++) acc[i][j] = (vf){0};
  }
#if MN_UNITS
  if (NR == 2 && (MR == 4 || MR == 6) && (ca == 1 || ra == 1)) {
    const int64_t rest = ca == 1 ? tile_groups(MR, false, K, A, ra, ca, B, ldb, NULL, 0, acc[0])
                                 : tile_groups(MR, true, K, A, ra, ca, B, ldb, NULL, 0, acc[0]);
    A += (K - rest) * ca;
    B += (K - rest) * ldb;
    K = rest;
  }
#endif
  const float *A4 = A + 4 * ra;
  const int64_t r2 = 2 * ra, r3 = 3 * ra;
  for (int64_t k = 0; k < K; k++) {
    vf b[4];
    TILE_UNROLL
    for (int j = 0; j < NR; j++) b[j] = vf_load(B + j * MN_VL);
    TILE_UNROLL
    for (int i = 0; i < MR; i++) {
      const float *row = i < 4 ? A : A4;
      int m = i & 3;
      vf a = vf_set1(row[m == 0 ? 0 : m == 1 ? ra : m == 2 ? r2 : r3]);
      TILE_UNROLL
      for (int j = 0; j < NR; j++) acc[i][j] += a * b[j];
    }
    A += ca;
    A4 += ca;
    B += ldb;
  }
  TILE_UNROLL
  for (int i = 0; i < MR; i++) {
    TILE_UNROLL
    for (int j = 0; j < NR; j++) {
      float *c = C + i * ldc + j * MN_VL;
      vf x = acc[i][j];
      if (mode == TILE_ADD) x = vf_load(c) + x;
      if (mode == TILE_SUB) x = vf_load(c) - x;
      if (mode == TILE_LINEAR) {
        x += lin->x * vf_load(lin->X + (c - C));
        if (lin->Z) x += lin->z * vf_load(lin->Z + (c - C));
      }
      vf_store(c, x);
    }
  }
}

/* Which part of A is not zero, so that products with triangular matrices of scores skip the other part. */
typedef enum tile_tri {
  TILE_FULL,
  TILE_OUT_LOWER, /* only C[i, j <= i] is needed        */
  TILE_A_LOWER,   /* A[i,k] = 0 for k > i               */
  TILE_A_UPPER    /* A[i,k] = 0 for k < i               */
} tile_tri;

#if defined(MN_VEC_512)
enum { TILE_MR = 8, TILE_NR = 2 };
#else
enum { TILE_MR = 4, TILE_NR = 2 };
#endif

/* With TILE_OUT_LOWER: so many columns of row i are computed (of a row that long, at least). */
MN_INLINE int64_t tile_lower(int64_t i) { return tile_pad(i / TILE_MR * TILE_MR + TILE_MR); }

/* Rows that will be read soon: `bytes` each, `pitch` apart, so many of them. Under AVX2 memory is asked for them while tiles are computed,
 * as many at a time as the tile has rows: at once, the processor would wait. */
typedef struct tile_ahead {
  const char *at;
  int64_t pitch, bytes, rows;
} tile_ahead;
#if defined(MN_VEC_256)
enum { TILE_ASKS = 1 };
#else
enum { TILE_ASKS = 0 };
#endif
MN_INLINE void tile_ask(tile_ahead *a, int64_t rows) {
  for (; rows > 0 && a->rows > 0; rows--, a->rows--, a->at += a->pitch)
    for (int64_t x = 0; x < a->bytes; x += 64) __builtin_prefetch(a->at + x, 0, 2);
}

/* Rows of the next tile, of so many that are left */
MN_INLINE int64_t tile_rows(int64_t left) {
  if (MN_UNITS && left >= 6 && left != 8) return 6;
  return left >= TILE_MR ? TILE_MR : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}
MN_INLINE void tile_gemm_body(int64_t M, int64_t N, int64_t K, const float *A, int64_t ra, int64_t ca, const float *B, int64_t ldb,
                              float *C, int64_t ldc, tile_mode mode, tile_tri tri, const tile_linear *lin, tile_ahead *ahead) {
  int64_t nv = (N + MN_VL - 1) / MN_VL; /* vectors in a row */
  for (int64_t i = 0; i < M;) {
    const int64_t left = M - i, mr = tri == TILE_FULL ? tile_rows(left) : left >= TILE_MR ? TILE_MR : left >= 4 ? 4 : left >= 2 ? 2 : 1;
    if (ahead) tile_ask(ahead, mr);
    int64_t k0 = tri == TILE_A_UPPER ? i : 0;
    int64_t k1 = tri == TILE_A_LOWER && i + mr < K ? i + mr : K;
    int64_t nw = nv;
    if (tri == TILE_OUT_LOWER) {
      int64_t need = (i + mr + MN_VL - 1) / MN_VL;
      if (need < nw) nw = need;
    }
    const float *a = A + i * ra + k0 * ca;
    const float *b = B + k0 * ldb;
    float *c = C + i * ldc;
    tile_linear l = {0};
    if (mode == TILE_LINEAR) {
      l = *lin;
      l.X += i * ldc;
      if (l.Z) l.Z += i * ldc;
    }
    int64_t kn = k1 - k0, j = 0;
#define TILE_CASE(mr_, nr_)                                                                                                                \
  do {                                                                                                                                     \
    tile_linear lj = l;                                                                                                                    \
    if (mode == TILE_LINEAR) lj.X += j * MN_VL, lj.Z = lj.Z ? lj.Z + j * MN_VL : NULL;                                                     \
    tile_micro(mr_, nr_, kn, a, ra, ca, b + j * MN_VL, ldb, c + j * MN_VL, ldc, mode, &lj);                                                \
  } while (0)
    switch (mr) {
#if defined(MN_VEC_512)
    case 8:
      for (; j + 2 <= nw; j += 2) TILE_CASE(8, 2);
      if (j < nw) TILE_CASE(8, 1);
      break;
#endif
#if MN_UNITS
    case 6:
      for (; j + 2 <= nw; j += 2) TILE_CASE(6, 2);
      if (j < nw) TILE_CASE(6, 1);
      break;
#endif
    case 4:
      for (; j + 2 <= nw; j += 2) TILE_CASE(4, 2);
      if (j < nw) TILE_CASE(4, 1);
      break;
    case 2:
      for (; j + 4 <= nw; j += 4) TILE_CASE(2, 4);
      for (; j < nw; j++) TILE_CASE(2, 1);
      break;
    default:
      for (; j + 4 <= nw; j += 4) TILE_CASE(1, 4);
      for (; j < nw; j++) TILE_CASE(1, 1);
    }
#undef TILE_CASE
    i += mr;
  }
}
TILE_FN void tile_gemm(int64_t M, int64_t N, int64_t K, const float *A, int64_t ra, int64_t ca, const float *B, int64_t ldb, float *C,
                       int64_t ldc, tile_mode mode, tile_tri tri) {
  tile_gemm_body(M, N, K, A, ra, ca, B, ldb, C, ldc, mode, tri, NULL, NULL);
}
/* The same, asking for as many rows of `ahead` as A has */
TILE_FN void tile_gemm_asking(int64_t M, int64_t N, int64_t K, const float *A, int64_t ra, int64_t ca, const float *B, int64_t ldb,
                              float *C, int64_t ldc, tile_mode mode, tile_ahead *ahead) {
  tile_gemm_body(M, N, K, A, ra, ca, B, ldb, C, ldc, mode, TILE_FULL, NULL, TILE_ASKS ? ahead : NULL);
}
/* C = x X + z Z + A B */
TILE_FN void tile_gemm_linear(int64_t M, int64_t N, int64_t K, const float *A, int64_t ra, int64_t ca, const float *B, int64_t ldb,
                              float *C, int64_t ldc, float x, const float *X, float z, const float *Z) {
  tile_linear lin = {x, z, X, Z};
  tile_gemm_body(M, N, K, A, ra, ca, B, ldb, C, ldc, TILE_LINEAR, TILE_FULL, &lin, NULL);
}

/* ---- products of bf16 pairs ---- where one instruction multiplies two bf16 and adds both products to an f32.
 * K is counted in pairs. A: a pair is the 4 bytes at A + i*ra + k*ca (strides in bf16, any alignment); B[k, j] is the
 * pair of the 32-bit word at B + k*ldb + j, its lower half the earlier one. C is f32. */
#if defined(MN_ISA_avx512_bf16)
#define TILE_PAIRS 1
#else
#define TILE_PAIRS 0
#endif
#if TILE_PAIRS
MN_INLINE void tile_micro_pairs(const int MR, const int NR, int64_t K, const uint16_t *A, int64_t ra, int64_t ca, const uint32_t *B,
                                int64_t ldb, float *C, int64_t ldc, bool add) {
  __m512 acc[8][4];
  TILE_UNROLL
  for (int i = 0; i < MR; i++) {
    TILE_UNROLL
    for (int j = 0; j < NR; j++) acc[i][j] = _mm512_setzero_ps();
  }
  const uint16_t *A4 = A + 4 * ra;
  const int64_t r2 = 2 * ra, r3 = 3 * ra;
  for (int64_t k = 0; k < K; k++) {
    __m512bh b[4];
    TILE_UNROLL
    for (int j = 0; j < NR; j++) b[j] = (__m512bh)_mm512_loadu_si512(B + j * MN_VL);
    TILE_UNROLL
    for (int i = 0; i < MR; i++) {
      const uint16_t *row = i < 4 ? A : A4;
      int m = i & 3;
      int32_t pair;
      memcpy(&pair, row + (m == 0 ? 0 : m == 1 ? ra : m == 2 ? r2 : r3), 4);
      __m512bh a = (__m512bh)_mm512_set1_epi32(pair);
      TILE_UNROLL
      for (int j = 0; j < NR; j++) acc[i][j] = _mm512_dpbf16_ps(acc[i][j], a, b[j]);
    }
    A += ca;
    A4 += ca;
    B += ldb;
  }
  TILE_UNROLL
  for (int i = 0; i < MR; i++) {
    TILE_UNROLL
    for (int j = 0; j < NR; j++) {
      float *c = C + i * ldc + j * MN_VL;
      vf_store(c, add ? vf_load(c) + (vf)acc[i][j] : (vf)acc[i][j]);
    }
  }
}
TILE_FN void tile_gemm_pairs(int64_t M, int64_t N, int64_t K, const uint16_t *A, int64_t ra, int64_t ca, const uint32_t *B, int64_t ldb,
                             float *C, int64_t ldc, bool add) {
  int64_t nw = (N + MN_VL - 1) / MN_VL;
  for (int64_t i = 0; i < M;) {
    int64_t mr = M - i >= 8 ? 8 : M - i >= 4 ? 4 : M - i >= 2 ? 2 : 1, j = 0;
    const uint16_t *a = A + i * ra;
    float *c = C + i * ldc;
#define TILE_CASE(mr_, nr_) tile_micro_pairs(mr_, nr_, K, a, ra, ca, B + j * MN_VL, ldb, c + j * MN_VL, ldc, add)
    switch (mr) {
    case 8:
      for (; j + 2 <= nw; j += 2) TILE_CASE(8, 2);
      if (j < nw) TILE_CASE(8, 1);
      break;
    case 4:
      for (; j + 2 <= nw; j += 2) TILE_CASE(4, 2);
      if (j < nw) TILE_CASE(4, 1);
      break;
    case 2:
      for (; j < nw; j++) TILE_CASE(2, 1);
      break;
    default:
      for (; j < nw; j++) TILE_CASE(1, 1);
    }
#undef TILE_CASE
    i += mr;
  }
}
/* dst[j] = the pair (lo[j], hi[j]) of two rows of bf16; hi NULL: zeros. n is rounded up to whole vectors by the
 * caller's padding of dst; the sources are read only up to n. */
TILE_FN void tile_pair_rows(uint32_t *dst, const uint16_t *lo, const uint16_t *hi, int64_t n) {
  int64_t j = 0;
  for (; j + MN_VL <= n; j += MN_VL) {
    __m512i l = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(lo + j)));
    __m512i h = hi ? _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(hi + j))) : _mm512_setzero_si512();
    _mm512_storeu_si512(dst + j, _mm512_or_si512(l, _mm512_slli_epi32(h, 16)));
  }
  for (; j < n; j++) dst[j] = (uint32_t)lo[j] | (hi ? (uint32_t)hi[j] << 16 : 0);
  for (int64_t p = tile_pad(n); j < p; j++) dst[j] = 0;
}
/* The same from f32, rounded: MN_VL pairs. */
MN_INLINE void tile_pair_round(uint32_t *dst, vf lo, vf hi) {
  const __m512i mix = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18,
                                       2, 17, 1, 16, 0);
  __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)hi, (__m512)lo);
  _mm512_storeu_si512(dst, _mm512_permutexvar_epi16(mix, both));
}
#endif

#endif
