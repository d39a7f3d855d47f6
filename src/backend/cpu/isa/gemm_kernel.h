/* gemm_kernel.h - the innermost parts of the products, for gemm.c only: vectors, packing, micro-kernels.
 *
 * Packed operands are panels of 32-bit units [U][W]: unit u of lane w is element (w, k = u), or, where the processor
 * multiplies pairs of bf16 (MN_GEMM_PAIR), the two elements k = 2u and 2u+1. A missing last element is zero, and so are
 * missing lanes, so a micro-kernel needs no edges but where it writes C. */
#ifndef MN_ISA_GEMM_KERNEL_H
#define MN_ISA_GEMM_KERNEL_H

#include "backend/cpu/isa/gemm.h"

#include "backend/cpu/isa/units.h"
#include "backend/cpu/isa/vec.h"

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
#if defined(__clang__)
#define NO_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define NO_UNROLL _Pragma("GCC unroll 1")
#endif
#define INLINE static inline __attribute__((always_inline))

/* VW lanes of a vector; the block kernel's tile is MR rows of NV vectors, its panels of A are AP lanes apart; the small
 * kernel's tile is SMR rows of SNV vectors. Chosen so that the tile fills the registers of the set. */
#if defined(MN_VEC_512)
enum { VW = MN_VL, MR = 14, NV = 2, AP = 16, SMR = 6, SNV = 4 };
#elif defined(MN_VEC_256)
enum { VW = MN_VL, MR = 6, NV = 2, AP = 6, SMR = 6, SNV = 2 };
#else
enum { VW = MN_VL, MR = 4, NV = 2, AP = 4, SMR = 4, SNV = 2 };
#endif
enum { NR = NV * VW };
/* Units of K to a line of memory that is asked for: a line comes in some 20 cycles, and whoever asks faster waits. */
#if defined(MN_VEC_256)
enum { LINE_EVERY = 8 };
#else
enum { LINE_EVERY = 1 };
#endif

/* What the units of a panel are made from. */
typedef enum { UNIT_F32, UNIT_BF16_AS_F32, UNIT_BF16_PAIR, UNIT_ROUNDED, UNIT_ROUNDED_PAIR } unit_kind; /* rounded: f32 made bf16 */
#if defined(MN_ISA_avx512_bf16)
#define BF16_UNIT    UNIT_BF16_PAIR
#define ROUNDED_UNIT UNIT_ROUNDED_PAIR
enum { BF16_PER_UNIT = 2 };
#else
#define BF16_UNIT    UNIT_BF16_AS_F32
#define ROUNDED_UNIT UNIT_ROUNDED
enum { BF16_PER_UNIT = 1 };
#endif

INLINE vu vu_load(const void *p) {
  vu r;
  memcpy(&r, p, sizeof r);
  return r;
}
INLINE void vu_store(uint32_t *p, vu x) { memcpy(p, &x, sizeof x); }

/* c + a b, of f32 units or of pairs of bf16 */
INLINE vf dot_step(unit_kind kind, vf c, vf a, vf b) {
#if defined(MN_ISA_avx512_bf16)
  if (kind == UNIT_BF16_PAIR) return (vf)_mm512_dpbf16_ps((__m512)c, (__m512bh)(__m512)a, (__m512bh)(__m512)b);
#endif
  (void)kind;
  return c + a * b;
}

/* One 32-bit unit, at any address (a pair of bf16 may lie at an even one), in all lanes of a register. Where `uses` vectors are multiplied by it, it must be loaded once: GCC would
 * rather load it again for each, as an operand in memory, and the load units would become the limit. */
INLINE vf broadcast(const void *a, const int uses) {
  float unit;
  memcpy(&unit, a, sizeof unit);
  vf x = vf_set1(unit);
#if defined(MN_VEC_512)
  if (uses > 1) __asm__("" : "+v"(x));
#elif defined(MN_VEC_256)
  if (uses > 1) __asm__("" : "+x"(x));
#endif
  (void)uses;
  return x;
}

/* The compiler shall not see how a pointer came about: it would rather keep one for each row than add strides. */
#define HIDE_POINTER(p) __asm__("" : "+r"(p))

/* ---- packing ---- */
INLINE bool of_pairs(unit_kind kind) { return kind == UNIT_BF16_PAIR || kind == UNIT_ROUNDED_PAIR; }
INLINE int64_t element_size(unit_kind kind) { return kind == UNIT_BF16_AS_F32 || kind == UNIT_BF16_PAIR ? 2 : 4; }
/* The pairs (lo[i], hi[i]) of f32 that were rounded */
INLINE vu pairs_of(vf lo, vf hi) { return (vu)hi | (vu)lo >> 16; }
INLINE vu load_units(unit_kind kind, const void *p) { /* VW units that follow each other along k */
  if (kind == UNIT_BF16_AS_F32) return (vu)vf_load_bf16(p);
  if (kind == UNIT_ROUNDED) return (vu)vf_round_bf16(vf_load(p));
#if defined(MN_ISA_avx512_bf16)
  if (kind == UNIT_ROUNDED_PAIR) return (vu)_mm512_cvtne2ps_pbh((__m512)vf_load((const float *)p + VW), (__m512)vf_load(p));
#endif
  return vu_load(p);
}
INLINE vu load_units_part(unit_kind kind, const void *p, int64_t n) { /* n elements (not units) */
  if (kind == UNIT_BF16_AS_F32) return (vu)vf_load_bf16n(p, (int)n);
  if (kind == UNIT_ROUNDED) return (vu)vf_round_bf16(vf_loadn(p, (int)n));
  if (kind == UNIT_ROUNDED_PAIR) {
    float both[2 * VW] = {0};
    memcpy(both, p, sizeof *both * (size_t)n);
    return load_units(kind, both);
  }
  vu x = {0};
  memcpy(&x, p, (kind == UNIT_F32 ? sizeof(float) : sizeof(uint16_t)) * (size_t)n);
  return x;
}

/* VW x VW transposition in registers */
INLINE void transpose(vu r[VW]) {
#if defined(MN_VEC_512)
  __m512 a[16], b[16];
  UNROLL for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps((__m512)r[i], (__m512)r[i + 1]);
    a[i + 1] = _mm512_unpackhi_ps((__m512)r[i], (__m512)r[i + 1]);
  }
  UNROLL for (int i = 0; i < 16; i += 4) {
    b[i] = (__m512)_mm512_unpacklo_pd((__m512d)a[i], (__m512d)a[i + 2]);
    b[i + 1] = (__m512)_mm512_unpackhi_pd((__m512d)a[i], (__m512d)a[i + 2]);
    b[i + 2] = (__m512)_mm512_unpacklo_pd((__m512d)a[i + 1], (__m512d)a[i + 3]);
    b[i + 3] = (__m512)_mm512_unpackhi_pd((__m512d)a[i + 1], (__m512d)a[i + 3]);
  }
  /* b[4g+i] lane q: column 4q+i of rows 4g .. 4g+3 */
  UNROLL for (int i = 0; i < 4; i++) {
    __m512 lo02 = _mm512_shuffle_f32x4(b[i], b[4 + i], 0x88), lo13 = _mm512_shuffle_f32x4(b[i], b[4 + i], 0xdd);
    __m512 hi02 = _mm512_shuffle_f32x4(b[8 + i], b[12 + i], 0x88);
    __m512 hi13 = _mm512_shuffle_f32x4(b[8 + i], b[12 + i], 0xdd);
    r[i] = (vu)_mm512_shuffle_f32x4(lo02, hi02, 0x88);
    r[8 + i] = (vu)_mm512_shuffle_f32x4(lo02, hi02, 0xdd);
    r[4 + i] = (vu)_mm512_shuffle_f32x4(lo13, hi13, 0x88);
    r[12 + i] = (vu)_mm512_shuffle_f32x4(lo13, hi13, 0xdd);
  }
#elif defined(MN_VEC_256)
  __m256 a[8], b[8];
  UNROLL for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps((__m256)r[i], (__m256)r[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps((__m256)r[i], (__m256)r[i + 1]);
  }
  UNROLL for (int i = 0; i < 8; i += 4) {
    b[i] = (__m256)_mm256_unpacklo_pd((__m256d)a[i], (__m256d)a[i + 2]);
    b[i + 1] = (__m256)_mm256_unpackhi_pd((__m256d)a[i], (__m256d)a[i + 2]);
    b[i + 2] = (__m256)_mm256_unpacklo_pd((__m256d)a[i + 1], (__m256d)a[i + 3]);
    b[i + 3] = (__m256)_mm256_unpackhi_pd((__m256d)a[i + 1], (__m256d)a[i + 3]);
  }
  UNROLL for (int i = 0; i < 4; i++) {
    r[i] = (vu)_mm256_permute2f128_ps(b[i], b[4 + i], 0x20);
    r[4 + i] = (vu)_mm256_permute2f128_ps(b[i], b[4 + i], 0x31);
  }
#else
  uint32_t t[VW][VW];
  for (int i = 0; i < VW; i++)
    for (int j = 0; j < VW; j++) t[j][i] = r[i][j];
  for (int i = 0; i < VW; i++) memcpy(&r[i], t[i], sizeof r[i]);
#endif
}

INLINE uint32_t one_element(unit_kind kind, const void *src, int64_t at) {
  uint32_t x;
  if (kind == UNIT_F32) memcpy(&x, (const float *)src + at, sizeof x);
  else if (element_size(kind) == 4) x = (uint32_t)bf16_from_f32(((const float *)src)[at]) << (kind == UNIT_ROUNDED ? 16 : 0);
  else x = (uint32_t)((const uint16_t *)src)[at] << (kind == UNIT_BF16_AS_F32 ? 16 : 0);
  return x;
}

/* `panels` panels [U][W], W a multiple of VW or below VW (then whole vectors are written, each over the end of the one before,
 * and the last goes beyond the panel's end by VW - W), panel_size units apart, from an operand whose lane w, element k is
 * src[w*w_stride + k*k_stride], w < n, k < K. Panel p begins at lane p*step and takes what there is of the W lanes from
 * there on (with step < W, the last W - step lanes are those of the next panel, and not used). */
INLINE void pack(unit_kind kind, int W, int step, uint32_t *dst, int64_t panels, int64_t panel_size, int64_t n, int64_t K, const void *src,
                 int64_t w_stride, int64_t k_stride) {
  const int per_unit = of_pairs(kind) ? 2 : 1;
  const int64_t U = (K + per_unit - 1) / per_unit;
  const int64_t size = element_size(kind);
  const char *s = src;
  if (k_stride == 1) { /* the lanes are rows in memory: transpose squares of VW lanes by VW units */
    for (int64_t p = 0; p < panels; p++)
      for (int w = 0; w < W; w += VW) {
        const int64_t first = p * step + w, rows = n - first < 0 ? 0 : n - first < VW ? n - first : VW;
        const char *row = s + size * first * w_stride;
        const int64_t pitch = size * w_stride;
        int64_t u = 0;
        if (kind == UNIT_BF16_AS_F32) { /* pairs are transposed as one unit, and widened where they stand: half the work */
          for (; u + 2 * VW <= U; u += 2 * VW) {
            const char *at = row + u * size;
            vu r[VW];
            UNROLL for (int i = 0; i < VW; i++) __builtin_prefetch(at + (VW + i) * pitch, 0, 2); /* the next lanes */
            if (rows == VW) {
              UNROLL for (int i = 0; i < VW; i++) r[i] = vu_load(at + i * pitch);
            } else {
              UNROLL for (int i = 0; i < VW; i++) r[i] = i < rows ? vu_load(at + i * pitch) : (vu){0};
            }
            transpose(r);
            uint32_t *d = dst + p * panel_size + u * W + w;
            UNROLL for (int i = 0; i < VW; i++) {
              vu_store(d + 2 * i * W, r[i] << 16);
              vu_store(d + (2 * i + 1) * W, r[i] & 0xffff0000u);
            }
          }
        }
        for (; u < U; u += VW) {
          const int64_t left = K - u * per_unit; /* elements */
          const char *at = row + u * per_unit * size;
          vu r[VW];
          if (left >= VW * per_unit) {
            UNROLL for (int i = 0; i < VW; i++) __builtin_prefetch(at + (VW + i) * pitch, 0, 2); /* the next lanes */
            if (rows == VW) {
              UNROLL for (int i = 0; i < VW; i++) r[i] = load_units(kind, at + i * pitch);
            } else {
              UNROLL for (int i = 0; i < VW; i++) r[i] = i < rows ? load_units(kind, at + i * pitch) : (vu){0};
            }
          } else {
            for (int i = 0; i < VW; i++) r[i] = i < rows ? load_units_part(kind, at + i * pitch, left) : (vu){0};
          }
          transpose(r);
          uint32_t *d = dst + p * panel_size + u * W + w;
          if (U - u >= VW) {
            UNROLL for (int i = 0; i < VW; i++) vu_store(d + i * W, r[i]);
          } else {
            for (int i = 0; i < U - u; i++) vu_store(d + i * W, r[i]);
          }
        }
      }
  } else if (w_stride == 1) { /* the lanes follow each other in memory: whole rows at a time, the next ones asked for */
    enum { AHEAD = 16 };
    const int64_t pitch = size * per_unit * k_stride, line = 64;
    const int64_t used = (panels - 1) * step + W, bytes = size * (n < used ? n : used);
    for (int64_t u = 0; u < U; u++) {
      const char *row = s + u * pitch;
      const bool pair = of_pairs(kind) && 2 * u + 1 < K;
      if (u + AHEAD < U) {
        for (int64_t at = 0; at < bytes; at += line) __builtin_prefetch(row + AHEAD * pitch + at, 0, 2);
        if (of_pairs(kind))
          for (int64_t at = 0; at < bytes; at += line) __builtin_prefetch(row + AHEAD * pitch + pitch / 2 + at, 0, 2);
      }
      uint32_t *d = dst + u * W;
      for (int64_t p = 0; p < panels; p++, d += panel_size)
        for (int w = 0; w < W; w += VW) {
          const int64_t first = p * step + w, part = n - first;
          vu x;
          if (kind == UNIT_F32) {
            const float *q = (const float *)row + first;
            x = (vu)(part >= VW ? vf_load(q) : vf_loadn(q, part < 0 ? 0 : (int)part));
          } else if (size == 4) {
            const float *q = (const float *)row + first;
            const vf lo = vf_round_bf16(part >= VW ? vf_load(q) : vf_loadn(q, part < 0 ? 0 : (int)part));
            const vf hi =
                !pair ? vf_zero() : vf_round_bf16(part >= VW ? vf_load(q + k_stride) : vf_loadn(q + k_stride, part < 0 ? 0 : (int)part));
            x = of_pairs(kind) ? pairs_of(lo, hi) : (vu)lo;
          } else {
            const uint16_t *q = (const uint16_t *)row + first;
            x = (vu)(part >= VW ? vf_load_bf16(q) : vf_load_bf16n(q, part < 0 ? 0 : (int)part));
            if (kind == UNIT_BF16_PAIR) x >>= 16;
            if (pair) x |= (vu)(part >= VW ? vf_load_bf16(q + k_stride) : vf_load_bf16n(q + k_stride, part < 0 ? 0 : (int)part));
          }
          vu_store(d + w, x);
        }
    }
  } else {
    for (int64_t p = 0; p < panels; p++)
      for (int64_t u = 0; u < U; u++)
        for (int w = 0; w < W; w++) {
          uint32_t x = 0;
          const int64_t at = (p * step + w) * w_stride + u * per_unit * k_stride;
          if (p * step + w < n) {
            x = one_element(kind, src, at);
            if (of_pairs(kind) && 2 * u + 1 < K) x |= one_element(kind, src, at + k_stride) << 16;
          }
          dst[p * panel_size + u * W + w] = x;
        }
  }
}

/* ---- where a tile goes ---- */
typedef enum { TO_F32, ADD_F32, TO_BF16 } tile_mode;
typedef struct tile_out {
  void *c;
  int64_t ldc;
  float alpha;
  tile_mode mode;
  const char *next; /* what will be packed later: a line is asked for every LINE_EVERY units, `step` bytes apart */
  int64_t step;
} tile_out;

INLINE void write_vector(tile_mode mode, void *c, int64_t at, vf x, int64_t n) {
  float *f = (float *)c + at;
  uint16_t *h = (uint16_t *)c + at;
  if (n >= VW) {
    if (mode == TO_BF16) vf_store_bf16(h, x);
    else vf_store(f, mode == ADD_F32 ? vf_load(f) + x : x);
  } else {
    if (mode == TO_BF16) vf_store_bf16n(h, x, (int)n);
    else vf_storen(f, mode == ADD_F32 ? vf_loadn(f, (int)n) + x : x, (int)n);
  }
}
/* nv whole vectors of a row */
INLINE void write_row(tile_mode mode, const int nv, void *c, int64_t at, vf alpha, const vf *x) {
  if (mode == TO_BF16 && nv == 2) {
    vf_store2_bf16((uint16_t *)c + at, alpha * x[0], alpha * x[1]);
    return;
  }
  UNROLL for (int j = 0; j < nv; j++) write_vector(mode, c, at + j * VW, alpha * x[j], VW);
}
/* rows x cols of the registers c[mr][nv] (of `width` vectors a row) */
INLINE void write_tile(tile_mode mode, const int mr, const int nv, const vf *c, const int width, const tile_out *o, int64_t rows,
                       int64_t cols) {
  const vf alpha = vf_set1(o->alpha);
  const int64_t ldc = o->ldc;
  void *out = o->c;
  if (cols == nv * VW && rows >= mr) {
    UNROLL for (int i = 0; i < mr; i++) write_row(mode, nv, out, i * ldc, alpha, c + i * width);
  } else if (cols == nv * VW) {
    UNROLL for (int i = 0; i < mr; i++) {
      if (i >= rows) break;
      write_row(mode, nv, out, i * ldc, alpha, c + i * width);
    }
  } else {
    UNROLL for (int i = 0; i < mr; i++) {
      if (i >= rows) break;
      UNROLL for (int j = 0; j < nv; j++) {
        if (j < nv - 1) write_vector(mode, out, i * ldc + j * VW, alpha * c[i * width + j], VW);
        else write_vector(mode, out, i * ldc + j * VW, alpha * c[i * width + j], cols - j * VW);
      }
    }
  }
}
#define WRITE_TILE(mr, nv, c, width, o, rows, cols)                                                                                        \
  do {                                                                                                                                     \
    if ((o)->mode == TO_F32) write_tile(TO_F32, mr, nv, c, width, o, rows, cols);                                                          \
    else if ((o)->mode == ADD_F32) write_tile(ADD_F32, mr, nv, c, width, o, rows, cols);                                                   \
    else write_tile(TO_BF16, mr, nv, c, width, o, rows, cols);                                                                             \
  } while (0)

/* ---- the micro-kernel of packed panels of B ---- rows <= MR of A times B [U][NR]; (nv-1)*VW < cols <= nv*VW. A's units
 * are `lane` bytes apart from row to row and `unit` bytes along k: a packed panel [U][AP], or the operand where it lies. */
enum { TRIPLES = (MR + 2) / 3, A_UNIT = AP * 4 };
typedef struct block_at {   /* where a tile stands along k */
  const char *row[TRIPLES]; /* rows 3i, 3i + 1 and 3i + 2 are none, one and two strides from a pointer: few registers */
  const float *b;
} block_at;

/* Packing while the first tile that needs an operand is computed, which hides its loads and stores behind multiply-adds. The lanes
 * of the operand lie side by side in memory, units `pitch` bytes apart. */
typedef enum packs { PACKS_NONE = 0, PACKS_A = 1, PACKS_B = 2, PACKS_BOTH = 3 } packs;
typedef struct first_use {
  char *a_to;         /* PACKS_A: here; f32 is read where it lies by the tile itself, bf16 once it stands here */
  const char *a_from; /* bf16: from there */
  int64_t a_pitch;
  const char *b_from;
  int64_t b_pitch; /* PACKS_B: from there to where the tile expects B */
} first_use;

INLINE void block_step(const int mr, block_at *at, const int units, const int64_t unit) {
  at->b += units * NR;
  UNROLL for (int i = 0; 3 * i < mr; i++) {
    at->row[i] += units * unit;
    HIDE_POINTER(at->row[i]);
  }
}
/* n more units. Meanwhile memory is asked for, `step` bytes further each time: two lines to be written, or one to be read. */
INLINE void block_units(unit_kind kind, const int mr, const int nv, const packs now, const unit_kind b_kind, int64_t n, vf *c, block_at *at,
                        first_use *f, const int64_t lane, const int64_t unit, const bool to_write, const char *next, int64_t step) {
  enum { AHEAD = 12 };
  int64_t u = 0;
#if MN_UNITS
  if (!now && !to_write && mr == MR && nv == NV && (unit == 4 || (unit == A_UNIT && lane == 4)))
    for (; u + LINE_EVERY <= n; u += LINE_EVERY, next += step) {
      __builtin_prefetch(next, 0, 2);
      if (unit == A_UNIT) units_packed(c, at->row[0], at->b);
      else units_in_rows(c, at->row[0], at->row[1], lane, at->b);
      block_step(mr, at, LINE_EVERY, unit);
    }
#endif
  for (; u < n; next += step) {
    if (to_write) {
      __builtin_prefetch(next, 1, 3);
      __builtin_prefetch(next + 64, 1, 3);
    } else {
      __builtin_prefetch(next, 0, 2);
    }
    const int64_t end = to_write || LINE_EVERY == 1 ? u + 1 : u + LINE_EVERY < n ? u + LINE_EVERY : n;
    NO_UNROLL for (; u < end; u++) {
      vf bv[NV];
      UNROLL for (int j = 0; j < nv; j++) {
        bv[j] = now & PACKS_B ? (vf)load_units(b_kind, f->b_from + j * VW * element_size(b_kind)) : vf_load(at->b + j * VW);
        if (now & PACKS_B) vu_store((uint32_t *)at->b + j * VW, (vu)bv[j]);
      }
      if (now & PACKS_B) {
        __builtin_prefetch(f->b_from + AHEAD * f->b_pitch, 0, 3);
        f->b_from += f->b_pitch;
      }
      if (now & PACKS_A && kind == UNIT_BF16_AS_F32) {
        vu_store((uint32_t *)f->a_to, load_units(kind, f->a_from));
        __builtin_prefetch(f->a_from + AHEAD * f->a_pitch, 0, 3);
        f->a_from += f->a_pitch;
        f->a_to += A_UNIT;
      } else if (now & PACKS_A) {
        vu_store((uint32_t *)f->a_to, load_units(kind, at->row[0]));
        __builtin_prefetch(at->row[0] + AHEAD * unit, 0, 3);
        f->a_to += A_UNIT;
      }
      UNROLL for (int i = 0; i < mr; i++) {
        const vf av = broadcast(at->row[i / 3] + i % 3 * lane, nv);
        UNROLL for (int j = 0; j < nv; j++) c[i * nv + j] = dot_step(kind, c[i * nv + j], av, bv[j]);
      }
      block_step(mr, at, 1, unit);
    }
  }
}

INLINE void block_tile_first(unit_kind kind, const int mr, const int nv, const packs now, const unit_kind b_kind, int64_t U, const char *a,
                             const int64_t lane, const int64_t unit, const float *b, first_use f, const tile_out *o, int64_t rows,
                             int64_t cols) {
  vf c[MR * NV];
  block_at at = {.b = b};
  UNROLL for (int i = 0; i < mr * nv; i++) c[i] = (vf){0};
  UNROLL for (int i = 0; 3 * i < mr; i++) at.row[i] = a + 3 * i * lane;
  const int64_t pitch = o->ldc * (o->mode == TO_BF16 ? 2 : 4), first = U < rows ? U : rows;
  block_units(kind, mr, nv, now, b_kind, first, c, &at, &f, lane, unit, true, o->c, pitch);
  block_units(kind, mr, nv, now, b_kind, U - first, c, &at, &f, lane, unit, false, o->next, o->step);
  WRITE_TILE(mr, nv, c, nv, o, rows, cols);
}
INLINE void block_tile(unit_kind kind, const int mr, const int nv, int64_t U, const char *a, const int64_t lane, const int64_t unit,
                       const float *b, const tile_out *o, int64_t rows, int64_t cols) {
  block_tile_first(kind, mr, nv, PACKS_NONE, kind, U, a, lane, unit, b, (first_use){0}, o, rows, cols);
}

/* ---- the micro-kernel without packing ---- mr rows of A (any strides) times B (rows dense, ldb apart), f32 */
INLINE void direct_tile(const int mr, const int nv, const bool edge, int64_t K, const float *A, int64_t a_rs, int64_t a_cs, const float *B,
                        int64_t ldb, const tile_out *o, int64_t tail) {
  enum { WIDTH = 4 }; /* vectors from row to row of the sums */
  vf c[SMR * WIDTH];
  UNROLL for (int i = 0; i < mr; i++) { UNROLL for (int j = 0; j < nv; j++) c[i * WIDTH + j] = (vf){0}; }
#if MN_UNITS
  if (!edge && nv == 2 && (mr == 6 || mr == 4) && a_cs == 1) { /* where columns of A lie side by side it was no faster */
    const int64_t rest = o->next ? tile_groups(mr, false, K, A, a_rs, a_cs, B, ldb, o->next, o->step, c)
                                 : tile_groups(mr, false, K, A, a_rs, a_cs, B, ldb, NULL, 0, c);
    A += (K - rest) * a_cs;
    B += (K - rest) * ldb;
    K = rest;
  }
#endif
  for (int64_t k = 0; k < K; k++, A += a_cs, B += ldb) {
    vf bv[SNV];
    UNROLL for (int j = 0; j < nv; j++) bv[j] = edge && j == nv - 1 ? vf_loadn(B + j * VW, (int)tail) : vf_load(B + j * VW);
    UNROLL for (int i = 0; i < mr; i++) {
      const vf av = broadcast(A + i * a_rs, nv);
      UNROLL for (int j = 0; j < nv; j++) c[i * WIDTH + j] += av * bv[j];
    }
  }
  const int64_t cols = edge ? (nv - 1) * VW + tail : nv * VW;
  if (o->mode == TO_F32) write_tile(TO_F32, mr, nv, c, WIDTH, o, mr, cols);
  else write_tile(ADD_F32, mr, nv, c, WIDTH, o, mr, cols);
}

#endif
