/* gemm.c - products of matrices on one thread: small ones in place, large ones in packed blocks (see
 * gemm.h). The summation order of an element of C depends on the shape alone. */
#include "backend/cpu/isa/gemm_kernel.h"

static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

static void scale_or_clear(int64_t M, int64_t N, float *C, int64_t ldc, bool accumulate) { /* K = 0 */
  if (accumulate) return;
  for (int64_t i = 0; i < M; i++) memset(C + i * ldc, 0, sizeof *C * (size_t)N);
}

/* ---- small f32: B in place where its rows are dense, else packed by panels --------------------------------------- */
typedef void (*direct_fn)(int64_t K, const float *A, int64_t a_rs, int64_t a_cs, const float *B, int64_t ldb, const tile_out *o,
                          int64_t tail);
#define DIRECT(mr, nv)                                                                                                                     \
  static void direct_##mr##_##nv##_0(int64_t K, const float *A, int64_t a_rs, int64_t a_cs, const float *B, int64_t ldb,                   \
                                     const tile_out *o, int64_t tail) {                                                                    \
    direct_tile(mr, nv, false, K, A, a_rs, a_cs, B, ldb, o, tail);                                                                         \
  }                                                                                                                                        \
  static void direct_##mr##_##nv##_1(int64_t K, const float *A, int64_t a_rs, int64_t a_cs, const float *B, int64_t ldb,                   \
                                     const tile_out *o, int64_t tail) {                                                                    \
    direct_tile(mr, nv, true, K, A, a_rs, a_cs, B, ldb, o, tail);                                                                          \
  }
#define ROW(mr, nv)                                                                                                                        \
  { direct_##mr##_##nv##_0, direct_##mr##_##nv##_1 }
#if defined(MN_VEC_512)
#define DIRECTS(mr) DIRECT(mr, 1) DIRECT(mr, 2) DIRECT(mr, 3) DIRECT(mr, 4)
#define ROWS(mr)                                                                                                                           \
  { ROW(mr, 1), ROW(mr, 2), ROW(mr, 3), ROW(mr, 4) }
#else
#define DIRECTS(mr) DIRECT(mr, 1) DIRECT(mr, 2)
#define ROWS(mr)                                                                                                                           \
  { ROW(mr, 1), ROW(mr, 2) }
#endif
DIRECTS(1)
DIRECTS(2)
DIRECTS(3)
DIRECTS(4)
#if defined(MN_VEC_512) || defined(MN_VEC_256)
DIRECTS(5)
DIRECTS(6)
#endif
static const direct_fn direct[SMR][SNV][2] = {
    ROWS(1), ROWS(2), ROWS(3), ROWS(4),
#if defined(MN_VEC_512) || defined(MN_VEC_256)
    ROWS(5), ROWS(6),
#endif
};

enum { SNR = SNV * VW, SMALL_KC = 256 };

/* one panel of at most SNR columns, B's rows dense; the first rows ask for what comes next (o.next); lower: of a symmetric C whose diagonal begins here, what is on and below it (and a
 * little above) */
static void direct_panel(int64_t M, int64_t n, int64_t K, const float *A, int64_t a_rs, int64_t a_cs, const float *B, int64_t ldb,
                         tile_out o, bool lower) {
  const int64_t nv = (n + VW - 1) / VW, tail = n - (nv - 1) * VW;
  float *const c = o.c;
  for (int64_t i = 0; i < M; i += SMR) {
    const int64_t rows = min64(SMR, M - i), v = lower ? min64(nv, (i + rows + VW - 1) / VW) : nv;
    o.c = c + i * o.ldc;
    if (i > 0) o.next = NULL;
    direct[rows - 1][v - 1][v == nv && tail < VW](K, A + i * a_rs, a_rs, a_cs, B, ldb, &o, tail);
  }
}

/* A A^T: of it, what lies on and below the diagonal is computed; the sums on the other side are the same ones. */
static bool is_gram(int64_t M, int64_t N, const void *A, int64_t a_rs, int64_t a_cs, const void *B, int64_t b_rs, int64_t b_cs,
                    bool accumulate) {
  return A == B && a_rs == b_cs && a_cs == b_rs && M == N && !accumulate;
}

/* Of the symmetric C [n,n], what stands below the diagonal to its right, too. */
static void mirror(int64_t n, float *C, int64_t ldc) {
  for (int64_t i = 0; i < n; i += VW)
    for (int64_t k = 0; k <= i; k += VW) {
      const int64_t rows = min64(VW, n - i);
      if (rows == VW && k < i) {
        vu r[VW];
        UNROLL for (int v = 0; v < VW; v++) r[v] = vu_load(C + (i + v) * ldc + k);
        transpose(r);
        UNROLL for (int v = 0; v < VW; v++) vu_store((uint32_t *)(C + (k + v) * ldc + i), r[v]);
      } else
        for (int64_t v = 0; v < rows; v++)
          for (int64_t x = 0; x < min64(VW, i + v - k); x++) C[(k + x) * ldc + i + v] = C[(i + v) * ldc + k + x];
    }
}

static void small_f32(int64_t M, int64_t N, int64_t K, float alpha, const float *A, int64_t a_rs, int64_t a_cs, const float *B,
                      int64_t b_rs, int64_t b_cs, float *C, int64_t ldc, bool accumulate) {
  if (K <= 0) {
    scale_or_clear(M, N, C, ldc, accumulate);
    return;
  }
  const bool symmetric = is_gram(M, N, A, a_rs, a_cs, B, b_rs, b_cs, accumulate);
  _Alignas(64) uint32_t panel[SMALL_KC * SNR];
  for (int64_t j = 0; j < N; j += SNR) {
    const int64_t n = min64(SNR, N - j), i = symmetric ? j : 0, step = b_cs == 1 ? K : SMALL_KC;
    for (int64_t k = 0; k < K; k += step) {
      const int64_t kc = min64(step, K - k);
      if (b_cs != 1) pack(UNIT_F32, SNR, SNR, panel, 1, 0, n, kc, B + k * b_rs + j * b_cs, b_cs, b_rs);
      direct_panel(M - i, n, kc, A + i * a_rs + k * a_cs, a_rs, a_cs, b_cs == 1 ? B + j : (const float *)panel, b_cs == 1 ? b_rs : SNR,
                   (tile_out){.c = C + i * ldc + j,
                              .ldc = ldc,
                              .mode = accumulate || k ? ADD_F32 : TO_F32,
                              .alpha = alpha,
                              .next = b_cs == 1 && j + SNR < N ? (const char *)(B + j + SNR) : NULL,
                              .step = (int64_t)sizeof *B * b_rs},
                   symmetric);
    }
  }
  if (symmetric) mirror(N, C, ldc);
}

/* Units of K in a slice, and tiles of A that are packed together: B and a group stay in the second cache. Slices of bf16 are
 * longer, so that a C in bf16 seldom has to be summed in f32 apart; then a panel of B comes from the second cache as fast as it is needed.
 * PASS: so many tiles of packed A pass over a panel of B before the next panel; with 1, a tile of A stays in the first cache and all
 * of B passes over it, as always where A is read in place. Where bf16 is widened all of A is packed, and the panel stays, so that B may
 * be larger than the second cache; under AVX2 tiles have few rows and are read again sooner than panels are, and packed for 6 rows every
 * line of A is used up at once: so there a transposed operand is worth packing, too. */
#if defined(MN_VEC_256)
enum { KC = 512, KC_BF16 = 896, GROUP = 8, PASS = GROUP, COLUMNS_WHERE_THEY_LIE = 0, SHARES_B = 1, PACKS_LATE = 1 };
#elif defined(MN_ISA_avx512_bf16)
enum { KC = 512, KC_BF16 = 704, GROUP = 8, PASS = 1, COLUMNS_WHERE_THEY_LIE = 1, SHARES_B = 0, PACKS_LATE = 0 };
#else
enum { KC = 512, KC_BF16 = 896, GROUP = 8, PASS = GROUP, COLUMNS_WHERE_THEY_LIE = 1, SHARES_B = 0, PACKS_LATE = 0 };
#endif
enum { NEAR_UNITS = 72 << 10 }; /* of B, that stay in the second cache (512 KiB) while tiles of A pass */

/* ---- tiles: whole, and the smaller ones at the edges ------------------------------------------------------------- */
enum { HALF = MR / 2 + 1 };
typedef void (*tile_fn)(int64_t U, const char *a, int64_t lane, const uint32_t *b, const tile_out *o, int64_t rows, int64_t cols);
#define PACKED(name, kind)                                                                                                                 \
  static void name(int64_t U, const char *a, int64_t lane, const uint32_t *b, const tile_out *o, int64_t rows, int64_t cols) {             \
    const float *y = (const float *)b;                                                                                                     \
    (void)lane;                                                                                                                            \
    if (cols > VW) {                                                                                                                       \
      if (rows > HALF) block_tile(kind, MR, NV, U, a, 4, A_UNIT, y, o, rows, cols);                                                        \
      else block_tile(kind, HALF, NV, U, a, 4, A_UNIT, y, o, rows, cols);                                                                  \
    } else {                                                                                                                               \
      if (rows > HALF) block_tile(kind, MR, 1, U, a, 4, A_UNIT, y, o, rows, cols);                                                         \
      else block_tile(kind, HALF, 1, U, a, 4, A_UNIT, y, o, rows, cols);                                                                   \
    }                                                                                                                                      \
  }
PACKED(packed_f32, UNIT_F32)
PACKED(packed_bf16, BF16_UNIT)

/* All MR rows of A where they lie: dense rows `pitch` bytes apart, or rows side by side with units `pitch` bytes apart */
#define IN_PLACE(name, kind, lane, unit)                                                                                                   \
  static void name(int64_t U, const char *a, int64_t pitch, const uint32_t *b, const tile_out *o, int64_t rows, int64_t cols) {            \
    if (cols > VW) block_tile(kind, MR, NV, U, a, lane, unit, (const float *)b, o, rows, cols);                                            \
    else block_tile(kind, MR, 1, U, a, lane, unit, (const float *)b, o, rows, cols);                                                       \
  }
IN_PLACE(rows_f32, UNIT_F32, pitch, 4)
IN_PLACE(rows_bf16, BF16_UNIT, pitch, 4)
IN_PLACE(columns_f32, UNIT_F32, 4, pitch)

/* A line of whole tiles, along a row of C or down a column of it: so many bytes from each to the next */
typedef struct tile_line {
  int64_t count, a, b, c, next;
} tile_line;
typedef void (*line_fn)(int64_t U, const char *a, int64_t pitch, const uint32_t *b, const tile_out *o, const tile_line *l);
#define LINE_OF(name, kind, lane, unit)                                                                                                    \
  static void name(int64_t U, const char *a, int64_t pitch, const uint32_t *b, const tile_out *o, const tile_line *l) {                    \
    tile_out at = *o;                                                                                                                      \
    (void)pitch;                                                                                                                           \
    for (int64_t i = 0; i < l->count; i++) {                                                                                               \
      block_tile(kind, MR, NV, U, a + i * l->a, lane, unit, (const float *)(const void *)((const char *)b + i * l->b), &at, MR, NR);       \
      at.c = (char *)at.c + l->c;                                                                                                          \
      at.next += l->next;                                                                                                                  \
    }                                                                                                                                      \
  }
LINE_OF(line_packed_f32, UNIT_F32, 4, A_UNIT)
LINE_OF(line_packed_bf16, BF16_UNIT, 4, A_UNIT)
LINE_OF(line_rows_f32, UNIT_F32, pitch, 4)
LINE_OF(line_rows_bf16, BF16_UNIT, pitch, 4)
LINE_OF(line_columns_f32, UNIT_F32, 4, pitch)

/* A whole tile that packs what it needs; pitch: from row to row of A, or, where A is packed, from unit to unit of where it lies */
typedef void (*first_fn)(int64_t U, const char *a, int64_t pitch, const uint32_t *b, first_use f, const tile_out *o);
#define FIRST(name, now, kind, b_kind, lane, unit)                                                                                         \
  static void name(int64_t U, const char *a, int64_t pitch, const uint32_t *b, first_use f, const tile_out *o) {                           \
    (void)pitch;                                                                                                                           \
    block_tile_first(kind, MR, NV, now, b_kind, U, a, lane, unit, (const float *)b, f, o, MR, NR);                                         \
  }
#if defined(MN_ISA_avx512_bf16)
static first_fn first_of(const mn_product *p, packs now, bool rows) { return (void)p, (void)now, (void)rows, NULL; }
#else
FIRST(first_a, PACKS_A, UNIT_F32, UNIT_F32, 4, pitch)
FIRST(first_ab, PACKS_BOTH, UNIT_F32, UNIT_F32, 4, pitch)
FIRST(first_b, PACKS_B, UNIT_F32, UNIT_F32, 4, A_UNIT)
FIRST(first_b_rows, PACKS_B, UNIT_F32, UNIT_F32, pitch, 4)
FIRST(first_b_bf16, PACKS_B, UNIT_BF16_AS_F32, UNIT_BF16_AS_F32, 4, A_UNIT)
FIRST(first_b_rounded, PACKS_B, UNIT_BF16_AS_F32, UNIT_ROUNDED, 4, A_UNIT)
/* A in bf16 is widened into its panel, and the tile reads it there. */
#define FIRST_BF16(name, now, b_kind)                                                                                                      \
  static void name(int64_t U, const char *a, int64_t pitch, const uint32_t *b, first_use f, const tile_out *o) {                           \
    f.a_from = a;                                                                                                                          \
    f.a_pitch = pitch;                                                                                                                     \
    block_tile_first(UNIT_BF16_AS_F32, MR, NV, now, b_kind, U, f.a_to, 4, A_UNIT, (const float *)b, f, o, MR, NR);                         \
  }
FIRST_BF16(first_a_bf16, PACKS_A, UNIT_BF16_AS_F32)
FIRST_BF16(first_ab_bf16, PACKS_BOTH, UNIT_BF16_AS_F32)
FIRST_BF16(first_ab_rounded, PACKS_BOTH, UNIT_ROUNDED)
static first_fn first_of(const mn_product *p, packs now, bool rows) {
  if (p->bf16 && now == PACKS_A) return first_a_bf16;
  if (p->bf16 && now == PACKS_BOTH) return p->b_f32 ? first_ab_rounded : first_ab_bf16;
  if (p->bf16) return p->b_f32 ? first_b_rounded : first_b_bf16;
  return rows ? first_b_rows : now == PACKS_BOTH ? first_ab : now == PACKS_A ? first_a : first_b;
}
#endif

/* What needs no packing: dense rows, if units are what lies in memory and not all rows of a tile meet in the same sets of the
 * first cache; and f32 whose rows lie side by side (a transposed operand), if the lines of a slice fit the sets of the second. */
typedef enum { PACKED_A, ROWS_IN_PLACE, COLUMNS_IN_PLACE } a_reading;
static a_reading reading_of(const mn_product *p) {
  enum { LINE = 64, SETS = 64, WAYS = 7, SETS2 = 2048, WAYS2 = 8 };
  if (COLUMNS_WHERE_THEY_LIE && p->a_rs == 1 && p->a_cs != 1 && !p->bf16) {
    int64_t lines = p->a_cs * 4 / LINE, sets = SETS2;
    for (; lines % 2 == 0 && sets > 1; lines /= 2) sets /= 2;
    return p->a_cs * 4 >= LINE && sets * WAYS2 >= KC ? COLUMNS_IN_PLACE : PACKED_A;
  }
  if (p->a_cs != 1 || (p->bf16 && (BF16_PER_UNIT != 2 || p->K % 2 != 0))) return PACKED_A;
  uint8_t rows[SETS] = {0};
  for (int i = 0; i < MR; i++)
    if (++rows[(uint64_t)(i * p->a_rs * (p->bf16 ? 2 : 4)) / LINE % SETS] > WAYS) return PACKED_A;
  return ROWS_IN_PLACE;
}

static bool packs_a(const mn_product *p) { return reading_of(p) == PACKED_A; }

/* What will be packed next. It is asked for while tiles are computed, so seldom that the memory keeps up; asked for at once, or only
 * when it is packed, the processor would wait. */
typedef struct ahead {
  const char *at;          /* the next column of lines `step` bytes apart                                 */
  int64_t columns, step;   /* so many are left                                                            */
  int64_t lines, asked;    /* of a column, and those of this one that were asked for                      */
  int64_t per_row, in_row; /* columns lie side by side, per_row in a row, of which in_row were asked for */
  int64_t row;             /* bytes from one row to the next                                              */
} ahead;
/* Lines that a tile asks for */
static int64_t asks_of(int64_t U) { return U > MR + LINE_EVERY ? (U - MR) / LINE_EVERY : 1; }
/* Lanes along memory (lane_stride 1): a row is one k, and a unit of K takes `per_unit` of them. Else a row is a lane. */
static ahead ahead_of(const void *at, int64_t size, int64_t lanes, int64_t lane_stride, int64_t K, int64_t k_stride, int64_t per_unit) {
  enum { LINE = 64 };
  if (K <= 0 || (k_stride != 1 && lane_stride != 1)) return (ahead){.at = at};
  const int64_t lines = (size * (lane_stride == 1 ? lanes : K) + 2 * LINE - 2) / LINE, /* wherever it begins */
      row = size * (lane_stride == 1 ? k_stride : lane_stride);
  if (lane_stride != 1 && lanes < K / per_unit / LINE_EVERY) return (ahead){.at = at}; /* a column would end too soon */
  const int64_t units = (K + per_unit - 1) / per_unit;
  if (lane_stride != 1) per_unit = 1;
  return (ahead){.at = at,
                 .columns = lines * per_unit,
                 .step = row * per_unit,
                 .lines = lane_stride == 1 ? units : lanes,
                 .per_row = lines,
                 .row = row};
}
/* Tiles until all lines of f were asked for */
static int64_t tiles_for(const ahead *f, int64_t asks) { return f->columns * ((f->lines + asks - 1) / asks); }
/* A line of at most l->count tiles asks for what is left of a column; with no column left the last is asked for again. */
static void ask_for(tile_out *o, tile_line *l, ahead *f, int64_t asks) {
  enum { LINE = 64 };
  o->next = f->at + f->asked * f->step;
  o->step = f->columns > 0 ? f->step : 0;
  l->next = asks * o->step;
  if (f->columns <= 0) return;
  l->count = min64(l->count, (f->lines - f->asked + asks - 1) / asks);
  f->asked += l->count * asks;
  if (f->asked < f->lines) return;
  f->asked = 0;
  f->columns--;
  f->at += LINE;
  if (++f->in_row < f->per_row) return;
  f->in_row = 0;
  f->at += f->row - LINE * f->per_row;
}
/* Tiles ask for rows of A that will be read where they lie, `bytes` of each, `pitch` apart: as many of these rows as there are tiles,
 * from row `row` on, or, where they are one piece of memory, equal shares of it. */
static void ask_for_rows(tile_out *o, tile_line *l, const char *at, int64_t pitch, int64_t bytes, int64_t asks, int64_t tile,
                         int64_t tiles) {
  const int64_t share = pitch == bytes ? MR * bytes / tiles : pitch;
  o->next = at + tile * share;
  l->next = share;
  o->step = ((pitch == bytes ? share : bytes) + asks - 1) / asks;
}

/* A: tiles of MR rows in panels AP wide; n: all rows that can be read, so that most panels are whole vectors */
typedef void (*pack_fn)(uint32_t *dst, int64_t panels, int64_t panel_size, int64_t n, int64_t K, const void *src, int64_t rs, int64_t cs);
#define PACK(name, kind, W, step, w_stride, k_stride)                                                                                      \
  static void name(uint32_t *dst, int64_t panels, int64_t panel_size, int64_t n, int64_t K, const void *src, int64_t rs, int64_t cs) {     \
    pack(kind, W, step, dst, panels, panel_size, n, K, src, w_stride, k_stride);                                                           \
  }
PACK(pack_a_f32, UNIT_F32, AP, MR, rs, cs)
PACK(pack_a_bf16, BF16_UNIT, AP, MR, rs, cs)
PACK(pack_b_f32, UNIT_F32, NR, NR, cs, rs)
PACK(pack_b_bf16, BF16_UNIT, NR, NR, cs, rs)
PACK(pack_b_rounded, ROUNDED_UNIT, NR, NR, cs, rs)

/* ---- blocks: per slice of K all of B is packed, then A by groups of tiles, each tile passed over all panels of B ----
 */

typedef struct block_plan {
  int64_t slices, kc; /* elements of K in a slice */
  int64_t units;      /* of a slice               */
  int64_t panels;     /* of B                     */
  bool sum_apart;     /* bf16 C of several slices: summed in f32 first */
} block_plan;

static block_plan plan_block(const mn_product *p) {
  const int per_unit = p->bf16 ? BF16_PER_UNIT : 1;
  const int64_t units = (p->K + per_unit - 1) / per_unit;
  const int64_t longest = p->bf16 ? KC_BF16 : KC;
  block_plan b = {.slices = (units + longest - 1) / longest, .panels = (p->N + NR - 1) / NR};
  if (b.slices < 1) b.slices = 1;
  b.units = (units + b.slices - 1) / b.slices;
  b.kc = b.units * per_unit;
  b.sum_apart = p->c_bf16 && b.slices > 1;
  return b;
}

/* A packed tile of A: [units][AP], and what the last vector writes beyond it */
static int64_t a_panel(int64_t units) { return units * AP + (AP % VW ? VW : 0); }

static size_t block_scratch(const mn_product *p, bool b_is_packed) {
  const block_plan b = plan_block(p);
  return sizeof(float) * (size_t)(GROUP * a_panel(b.units) + (b_is_packed ? 0 : b.units * b.panels * NR) +
                                  (b.sum_apart ? p->M * mn_align((size_t)p->N, 16) : 0)) +
         64;
}

/* ---- B packed for several blocks: slice after slice, in each all panels ---- */
static pack_fn pack_b_of(const mn_product *p) { return !p->bf16 ? pack_b_f32 : p->b_f32 ? pack_b_rounded : pack_b_bf16; }
static int64_t units_of(const mn_product *p, int64_t elements) {
  return p->bf16 ? (elements + BF16_PER_UNIT - 1) / BF16_PER_UNIT : elements;
}
/* Rows of A that are read where they lie meet all columns one after the other, so these should stay near, where B is packed once;
 * elsewhere reading A again costs more. Packed ones pass over a panel together. */
static int64_t near_columns(const mn_product *p, bool packed_once) {
  const block_plan plan = plan_block(p);
  const int64_t near = NEAR_UNITS / (plan.units + 1) / NR * NR;
  return reading_of(p) == PACKED_A || (!packed_once && plan.slices > 1) ? p->N : near < NR ? NR : near;
}
static size_t packed_b_bytes(const mn_product *p) {
  const block_plan plan = plan_block(p);
  return sizeof(uint32_t) * (size_t)(plan.slices * plan.units * plan.panels * NR);
}
static void pack_b(const mn_product *p, int64_t first, int64_t last, void *data) {
  const block_plan plan = plan_block(p);
  const char *b = (const char *)p->b + (int64_t)mn_product_b_size(p) * first * NR * p->b_cs;
  for (int64_t k = 0, slice = 0; k < p->K; k += plan.kc, slice++) {
    const int64_t kc = min64(plan.kc, p->K - k), U = units_of(p, kc);
    pack_b_of(p)((uint32_t *)data + slice * plan.units * plan.panels * NR + first * U * NR, last - first, U * NR, p->N - first * NR, kc,
                 b + (int64_t)mn_product_b_size(p) * k * p->b_rs, p->b_rs, p->b_cs);
  }
}

/* Tiles of A that pass over a panel of B before the next. Rows that are read where they lie do so one by one, unless B is too large
 * to stay near. */
static int64_t pass_of(const mn_product *p, const block_plan *plan) {
  return reading_of(p) == PACKED_A || (PACKS_LATE && plan->units * plan->panels * NR > NEAR_UNITS) ? PASS : 1;
}

static void blocks(const mn_product *p, const mn_packed_b *ready, void *scratch) {
  if (p->M <= 0 || p->N <= 0) return;
  const block_plan plan = plan_block(p);
  uint32_t *const own = scratch, *const a = own + (ready ? 0 : plan.units * plan.panels * NR);
  float *sum = (float *)(a + GROUP * a_panel(plan.units));
  const int64_t size = p->bf16 ? 2 : 4, b_size = (int64_t)mn_product_b_size(p), per_unit = p->bf16 ? BF16_PER_UNIT : 1;
  const pack_fn pack_a = p->bf16 ? pack_a_bf16 : pack_a_f32;
  const a_reading reading = reading_of(p);
  const bool in_place = reading != PACKED_A;
  const tile_fn packed = p->bf16 ? packed_bf16 : packed_f32, rows_here = reading == COLUMNS_IN_PLACE ? columns_f32
                                                                         : p->bf16                   ? rows_bf16
                                                                                                     : rows_f32;
  const line_fn line = !in_place                     ? p->bf16 ? line_packed_bf16 : line_packed_f32
                       : reading == COLUMNS_IN_PLACE ? line_columns_f32
                       : p->bf16                     ? line_rows_bf16
                                                     : line_rows_f32;
  const int64_t pitch = size * (reading == COLUMNS_IN_PLACE ? p->a_cs : p->a_rs), pass = pass_of(p, &plan);
  /* panels of B, and whether tiles of A, that are packed while they are first used; not where every row is a page of its own */
  enum { PAGE = 4096, OVER = AP % VW ? VW - AP : 0 }; /* OVER: lanes that the last vector of a tile reads beyond it */
  const int64_t b_now = PACKS_LATE && !ready && p->b_cs == 1 && p->M >= MR ? p->N / NR : 0;
  const bool a_now = PACKS_LATE && !in_place && p->a_rs == 1 && size * p->a_cs < PAGE && p->N >= NR; /* a whole tile */
  tile_out o = {.ldc = p->ldc, .alpha = p->alpha};
  const int64_t c_size = p->c_bf16 && !plan.sum_apart ? 2 : 4;
  char *c = p->c;
  if (plan.sum_apart) {
    c = (char *)sum;
    o.ldc = (int64_t)mn_align((size_t)p->N, 16);
  }
  int64_t k = 0;
  do {
    const int64_t kc = min64(plan.kc, p->K - k), U = units_of(p, kc), next_kc = min64(plan.kc, p->K - k - kc), asks = asks_of(U);
    const uint32_t *b = ready ? (const uint32_t *)ready->data + (k / plan.kc * plan.units * ready->panels + ready->first * U) * NR : own;
    o.mode = p->accumulate || k ? ADD_F32 : p->c_bf16 && !plan.sum_apart ? TO_BF16 : TO_F32;
    const char *pa = (const char *)p->a + size * k * p->a_cs, *pb = (const char *)p->b + b_size * k * p->b_rs;
    if (!ready && b_now < plan.panels)
      pack_b_of(p)(own + b_now * U * NR, plan.panels - b_now, U * NR, p->N - b_now * NR, kc, pb + b_size * b_now * NR * p->b_cs, p->b_rs,
                   p->b_cs);
    ahead next_b = ahead_of(pb + b_size * kc * p->b_rs, b_size, b_now ? NR : p->N, p->b_cs, ready ? 0 : next_kc, p->b_rs, per_unit);
    for (int64_t first = 0; first < p->M; first += pass * MR) {
      const int64_t slot = in_place ? 0 : first / MR % GROUP, left = (p->M - first + MR - 1) / MR, tiles = min64(pass, left);
      const int64_t whole = min64(tiles, (p->M - first) / MR), group = in_place ? tiles : min64(GROUP, left);
      const char *rows = pa + size * first * p->a_rs;
      /* so many tiles need not be packed now; the last rows, elsewhere read in place, are packed for themselves */
      const int64_t later = in_place ? whole : a_now ? min64(tiles, (p->M - first - OVER) / MR) : 0;
      if (slot == 0 && later < group)
        pack_a(a + (in_place ? 0 : later * a_panel(U)), group - later, a_panel(U), p->M - first - later * MR, kc,
               rows + size * later * MR * p->a_rs, p->a_rs, p->a_cs);
      /* what A will be read of then: later tiles of this slice, or those of the next slice */
      const int64_t far = MR * (in_place ? pass : GROUP);
      const bool same = first + far < p->M;
      const char *next_rows = same ? rows + size * far * p->a_rs : pa + size * (kc * p->a_cs + slot * MR * p->a_rs);
      ahead next_a = ahead_of(next_rows, size, pass * MR, p->a_rs, same ? kc : next_kc, p->a_cs, per_unit), next_panel = {0};
      const int64_t n = plan.panels * tiles;
      for (int64_t x = 0; x < n;) { /* tiles, in the order in which they are computed */
        const int64_t j = x / tiles, t = x % tiles, i = first + t * MR;
        const bool full = t < whole && (j + 1) * NR <= p->N;
        const packs now = (a_now && j == 0 && t < later ? PACKS_A : PACKS_NONE) | (i == 0 && j < b_now ? PACKS_B : PACKS_NONE);
        tile_line l = {.count = now || !full ? 1
                                : pass == 1  ? p->N / NR - j
                                             : whole - t,
                       .c = pass == 1 ? c_size * NR : c_size * MR * o.ldc};
        if (pass == 1) l.b = 4 * U * NR;
        else l.a = in_place ? MR * pitch : 4 * a_panel(U);
        if (now & PACKS_B && j + 1 < b_now) next_panel = ahead_of(pb + b_size * (j + 1) * NR, b_size, NR, 1, kc, p->b_rs, 1);
        if (reading == ROWS_IN_PLACE && pass == 1 && (pitch == kc * size || j < MR)) {
          if (pitch != kc * size) l.count = min64(l.count, MR - j);
          ask_for_rows(&o, &l, rows + MR * pitch, pitch, kc * size, asks, j, plan.panels);
        } else if (next_panel.columns > 0 && !(now & PACKS_B && tiles > 1)) {
          ask_for(&o, &l, &next_panel, asks);
        } else if (reading == ROWS_IN_PLACE && pass > 1 && n - x <= pass * MR) {
          ask_for_rows(&o, &l, next_rows, pitch, kc * size + (pitch == kc * size), asks, pass * MR - (n - x), 1);
        } else if (reading != ROWS_IN_PLACE && next_a.columns > 0 &&
                   (!a_now || n - x <= tiles_for(&next_a, asks) + tiles_for(&next_b, asks))) {
          ask_for(&o, &l, &next_a, asks);
        } else {
          ask_for(&o, &l, b_now && same ? &(ahead){.at = rows} : &next_b, asks);
        }
        o.c = c + c_size * (i * o.ldc + j * NR);
        const char *from = in_place && t < whole ? rows + t * MR * pitch : (const char *)(a + (in_place ? 0 : slot + t) * a_panel(U));
        const uint32_t *panel = b + j * U * NR;
        const first_use f = {.a_to = (char *)(a + t * a_panel(U)), .b_from = pb + b_size * j * NR, .b_pitch = b_size * p->b_rs};
        if (now & PACKS_A) first_of(p, now, false)(U, rows + size * t * MR, size * p->a_cs, panel, f, &o);
        else if (now) first_of(p, now, in_place)(U, from, pitch, panel, f, &o);
        else if (full) line(U, from, pitch, panel, &o, &l);
        else (in_place && t < whole ? rows_here : packed)(U, from, pitch, panel, &o, min64(MR, p->M - i), min64(NR, p->N - j * NR));
        x += l.count * (pass == 1 ? tiles : 1);
      }
    }
    k += plan.kc;
  } while (k < p->K);
  if (plan.sum_apart)
    for (int64_t i = 0; i < p->M; i++)
      for (int64_t j = 0; j < p->N; j += VW) write_vector(TO_BF16, p->c, i * p->ldc + j, vf_load(sum + i * o.ldc + j), p->N - j);
}

/* Of A A^T what lies on and below the diagonal, stripe by stripe of its columns, and a little above. */
static void block(const mn_product *p, const mn_packed_b *ready, void *scratch) {
  enum { STRIPE = 64 / NR > 0 ? 64 / NR * NR : NR };
  if (ready || p->N < 2 * STRIPE || p->bf16 || p->c_bf16 ||
      !is_gram(p->M, p->N, p->a, p->a_rs, p->a_cs, p->b, p->b_rs, p->b_cs, p->accumulate)) {
    blocks(p, ready, scratch);
    return;
  }
  for (int64_t j = 0; j < p->N; j += STRIPE) {
    mn_product part = *p;
    part.M -= j;
    part.N = min64(STRIPE, part.M);
    part.a = (const float *)p->a + j * p->a_rs;
    part.b = (const float *)p->b + j * p->b_cs;
    part.c = (float *)p->c + j * (p->ldc + 1);
    blocks(&part, NULL, scratch);
  }
  mirror(p->N, p->c, p->ldc);
}

const mn_gemm MN_ISA_NAME(mn_gemm_table) = {
    .small_f32 = small_f32,
    .block = block,
    .block_scratch = block_scratch,
    .packs_a = packs_a,
    .shares_b = SHARES_B,
    .near_columns = near_columns,
    .packed_b_bytes = packed_b_bytes,
    .pack_b = pack_b,
    .mr = MR,
    .nr = NR,
    .bf16_per_unit = BF16_PER_UNIT,
};
