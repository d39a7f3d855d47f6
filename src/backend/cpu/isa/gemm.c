/* gemm.c - products of matrices on one thread: small ones in place, large ones in packed blocks, thin ones as streams
 * (see gemm.h). The summation order of an element of C depends on the shape alone. */
#include "backend/cpu/isa/gemm_kernel.h"

static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

static void scale_or_clear(int64_t M, int64_t N, float *C, int64_t ldc, bool accumulate) { /* K = 0 */
  if (accumulate) return;
  for (int64_t i = 0; i < M; i++) memset(C + i * ldc, 0, sizeof *C * (size_t)N);
}

/* ---- small f32: B in place where its rows are dense, else packed by panels --------------------------------------- */
typedef void (*direct_fn)(int64_t K, const float *A, int64_t a_rs, int64_t a_cs, const float *B, int64_t ldb,
                          const tile_out *o, int64_t tail);
#define DIRECT(mr, nv)                                                                                                 \
  static void direct_##mr##_##nv##_0(int64_t K, const float *A, int64_t a_rs, int64_t a_cs, const float *B,            \
                                     int64_t ldb, const tile_out *o, int64_t tail) {                                   \
    direct_tile(mr, nv, false, K, A, a_rs, a_cs, B, ldb, o, tail);                                                     \
  }                                                                                                                    \
  static void direct_##mr##_##nv##_1(int64_t K, const float *A, int64_t a_rs, int64_t a_cs, const float *B,            \
                                     int64_t ldb, const tile_out *o, int64_t tail) {                                   \
    direct_tile(mr, nv, true, K, A, a_rs, a_cs, B, ldb, o, tail);                                                      \
  }
#define ROW(mr, nv) {direct_##mr##_##nv##_0, direct_##mr##_##nv##_1}
#if defined(MN_VEC_512)
#define DIRECTS(mr) DIRECT(mr, 1) DIRECT(mr, 2) DIRECT(mr, 3) DIRECT(mr, 4)
#define ROWS(mr) {ROW(mr, 1), ROW(mr, 2), ROW(mr, 3), ROW(mr, 4)}
#else
#define DIRECTS(mr) DIRECT(mr, 1) DIRECT(mr, 2)
#define ROWS(mr) {ROW(mr, 1), ROW(mr, 2)}
#endif
DIRECTS(1) DIRECTS(2) DIRECTS(3) DIRECTS(4)
#if defined(MN_VEC_512) || defined(MN_VEC_256)
DIRECTS(5) DIRECTS(6)
#endif
static const direct_fn direct[SMR][SNV][2] = {
    ROWS(1), ROWS(2), ROWS(3), ROWS(4),
#if defined(MN_VEC_512) || defined(MN_VEC_256)
    ROWS(5), ROWS(6),
#endif
};

enum { SNR = SNV * VW, SMALL_KC = 256 };

/* one panel of at most SNR columns, B's rows dense */
static void direct_panel(int64_t M, int64_t n, int64_t K, const float *A, int64_t a_rs, int64_t a_cs, const float *B,
                         int64_t ldb, tile_out o) {
  const int64_t nv = (n + VW - 1) / VW, tail = n - (nv - 1) * VW;
  const direct_fn full = direct[SMR - 1][nv - 1][tail < VW];
  int64_t i = 0;
  float *c = o.c;
  for (; i + SMR <= M; i += SMR, o.c = c + i * o.ldc) full(K, A + i * a_rs, a_rs, a_cs, B, ldb, &o, tail);
  if (i < M) direct[M - i - 1][nv - 1][tail < VW](K, A + i * a_rs, a_rs, a_cs, B, ldb, &o, tail);
}

static void small_f32(int64_t M, int64_t N, int64_t K, float alpha, const float *A, int64_t a_rs, int64_t a_cs,
                      const float *B, int64_t b_rs, int64_t b_cs, float *C, int64_t ldc, bool accumulate) {
  if (K <= 0) {
    scale_or_clear(M, N, C, ldc, accumulate);
    return;
  }
  if (b_cs == 1) {
    for (int64_t j = 0; j < N; j += SNR)
      direct_panel(M, min64(SNR, N - j), K, A, a_rs, a_cs, B + j, b_rs,
                   (tile_out){.c = C + j, .ldc = ldc, .accumulate = accumulate, .alpha = alpha});
    return;
  }
  _Alignas(64) uint32_t panel[SMALL_KC * SNR];
  for (int64_t j = 0; j < N; j += SNR) {
    const int64_t n = min64(SNR, N - j);
    for (int64_t k = 0; k < K; k += SMALL_KC) {
      const int64_t kc = min64(SMALL_KC, K - k);
      pack(UNIT_F32, SNR, panel, n, kc, B + k * b_rs + j * b_cs, b_cs, b_rs);
      direct_panel(M, n, kc, A + k * a_cs, a_rs, a_cs, (const float *)panel, SNR,
                   (tile_out){.c = C + j, .ldc = ldc, .accumulate = accumulate || k, .alpha = alpha});
    }
  }
}

/* ---- packed tiles ------------------------------------------------------------------------------------------------ */
#define PACKED(name, kind)                                                                                             \
  static void name(int64_t U, const uint32_t *a, const uint32_t *b, const tile_out *o, int64_t rows, int64_t cols) {   \
    if (cols > VW) packed_tile(kind, MR, NV, U, (const float *)a, (const float *)b, o, rows, cols);                    \
    else packed_tile(kind, MR, 1, U, (const float *)a, (const float *)b, o, rows, cols);                               \
  }
PACKED(packed_bf16, BF16_UNIT)

static void pack_a_bf16(uint32_t *dst, int64_t n, int64_t K, const void *src, int64_t rs, int64_t cs) {
  pack(BF16_UNIT, AP, dst, n, K, src, rs, cs);
}
static void pack_b_bf16(uint32_t *dst, int64_t n, int64_t K, const void *src, int64_t rs, int64_t cs) {
  pack(BF16_UNIT, NR, dst, n, K, src, cs, rs);
}

/* ---- small bf16: blocks of A and panels of B packed on the stack ------------------------------------------------- */
static void small_bf16(int64_t M, int64_t N, int64_t K, float alpha, const uint16_t *A, int64_t a_rs, int64_t a_cs,
                       const uint16_t *B, int64_t b_rs, int64_t b_cs, float *C, int64_t ldc, bool accumulate) {
  if (K <= 0) {
    scale_or_clear(M, N, C, ldc, accumulate);
    return;
  }
  enum { KC = 128 * BF16_PER_UNIT, TILES = 6 };
  _Alignas(64) uint32_t a[TILES][128 * AP];
  _Alignas(64) uint32_t b[128 * NR];
  for (int64_t i = 0; i < M; i += TILES * MR)
    for (int64_t k = 0; k < K; k += KC) {
      const int64_t kc = min64(KC, K - k), U = (kc + BF16_PER_UNIT - 1) / BF16_PER_UNIT;
      const int64_t m = min64(TILES * MR, M - i);
      for (int64_t t = 0; t * MR < m; t++)
        pack_a_bf16(a[t], min64(MR, m - t * MR), kc, A + (i + t * MR) * a_rs + k * a_cs, a_rs, a_cs);
      for (int64_t j = 0; j < N; j += NR) {
        const int64_t n = min64(NR, N - j);
        pack_b_bf16(b, n, kc, B + k * b_rs + j * b_cs, b_rs, b_cs);
        for (int64_t t = 0; t * MR < m; t++)
          packed_bf16(U, a[t], b,
                      &(tile_out){.c = C + (i + t * MR) * ldc + j, .ldc = ldc, .accumulate = accumulate || k, .alpha = alpha},
                      min64(MR, m - t * MR), n);
      }
    }
}

const mn_gemm MN_ISA_NAME(mn_gemm_table) = {
    .small_f32 = small_f32,
    .small_bf16 = small_bf16,
};
