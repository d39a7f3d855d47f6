/* masked_product.c - ((x y^T) * p) z, block by block of z's rows: the scores of a block stay in the first caches. A block goes band by band of
 * rows, and scores are made of those columns alone between which p is not 0 in a band: of a triangle five eighths. */
#include "backend/cpu/isa/masked_product.h"

#include "backend/cpu/isa/tile.h"
#include "graph/fused_masked_product.h"

enum { MB = MN_MASKED_ROWS, NB = 64, BAND = 16 };

typedef struct work {
  float *x, *y, *yt, *g, *p, *z, *o; /* [MB,kp] [NB,kp] [K,NB] [MB,NB] [MB,NB] [NB,vp] [MB,vp] */
} work;

static void take_work(work *w, take *s, const mn_masked_args *a) {
  const int64_t kp = tile_pad(a->K), vp = tile_pad(a->V);
  w->x = take_floats(s, MB * kp);
  w->y = take_floats(s, NB * kp);
  w->yt = take_floats(s, kp * NB);
  w->g = take_floats(s, MB * NB);
  w->p = take_floats(s, MB * NB);
  w->z = take_floats(s, NB * vp);
  w->o = take_floats(s, MB * vp);
}
static size_t scratch_size(const mn_masked_args *a) {
  take s = {NULL, 0};
  work w;
  take_work(&w, &s, a);
  return s.used;
}

static const void *row(const mn_masked_matrix *m, int64_t i, int64_t j) {
  return (const char *)m->data + (i * m->stride + j) * (m->bf16 ? 2 : 4);
}
static void rows_in(float *dst, int64_t ld, const mn_masked_matrix *m, int64_t i0, int64_t n, int64_t j0, int64_t width) {
  for (int64_t i = 0; i < n; i++) tile_row_in(dst + i * ld, row(m, i0 + i, j0), m->bf16, width);
}

/* Rows of f32 and of whole vectors are used where they lie; others are brought into `scratch`. */
typedef struct mat {
  float *p;
  int64_t ld;
} mat;
static bool lies_well(const mn_masked_matrix *m, int64_t width) { return !m->bf16 && width % MN_VL == 0; }
static mat rows_at(const mn_masked_matrix *m, int64_t i0, int64_t n, int64_t j0, int64_t width, float *scratch) {
  if (lies_well(m, width)) return (mat){(float *)(uintptr_t)row(m, i0, j0), m->stride};
  rows_in(scratch, tile_pad(width), m, i0, n, j0, width);
  return (mat){scratch, tile_pad(width)};
}

/* The columns [first, end) of n beyond which p is 0 in these rows, in whole vectors but for the last. */
static void columns_of(const float *p, int64_t ld, int64_t rows, int64_t n, int64_t *first, int64_t *end) {
  *first = n, *end = 0;
  for (int64_t j = 0; j < n; j += MN_VL) {
    vu any = {0};
    for (int64_t i = 0; i < rows; i++) any |= (vu)vf_load(p + i * ld + j);
    if (!vm_any(vm_not(vf_eq(vf_abs((vf)any), vf_zero())))) continue;
    if (*first == n) *first = j;
    *end = j + MN_VL < n ? j + MN_VL : n;
  }
}

/* Rows of the block: scores, masked, times z; `add` to o or not. */
static void band(const mn_masked_args *a, mat x, mat yt, mat p, mat z, mat o, mat g, int64_t rows, int64_t n, bool add) {
  int64_t first, end;
  columns_of(p.p, p.ld, rows, n, &first, &end);
  if (first >= end) {
    for (int64_t i = 0; i < rows && !add; i++) memset(o.p + i * o.ld, 0, sizeof(float) * (size_t)a->V);
    return;
  }
  tile_gemm(rows, end - first, a->K, x.p, x.ld, 1, yt.p + first, yt.ld, g.p + first, g.ld, TILE_SET, TILE_FULL);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = first; j < end; j += MN_VL) vf_store(g.p + i * g.ld + j, vf_load(g.p + i * g.ld + j) * vf_load(p.p + i * p.ld + j));
  tile_gemm(rows, a->V, end - first, g.p + first, g.ld, 1, z.p + first * z.ld, z.ld, o.p, o.ld, add ? TILE_ADD : TILE_SET, TILE_FULL);
}
static mat row_of(mat m, int64_t i) { return (mat){m.p + i * m.ld, m.ld}; }

static void run(const mn_masked_args *a, int64_t m0, void *scratch) {
  take s = {scratch, 0};
  work w;
  take_work(&w, &s, a);
  const int64_t vp = tile_pad(a->V), m = a->M - m0 < MB ? a->M - m0 : MB;
  const bool in_place = lies_well(&a->o, a->V);
  const mat x = rows_at(&a->x, m0, m, 0, a->K, w.x);
  const mat o = in_place ? (mat){(float *)(uintptr_t)row(&a->o, m0, 0), a->o.stride} : (mat){w.o, vp};
  for (int64_t n0 = 0; n0 < a->N; n0 += NB) {
    const int64_t n = a->N - n0 < NB ? a->N - n0 : NB, np = tile_pad(n);
    const mat y = rows_at(&a->y, n0, n, 0, a->K, w.y), p = rows_at(&a->p, m0, m, n0, n, w.p), z = rows_at(&a->z, n0, n, 0, a->V, w.z);
    tile_transpose(w.yt, np, y.p, y.ld, n, a->K, 0);
    const mat yt = {w.yt, np}, g = {w.g, np};
    for (int64_t i = 0; i < m; i += BAND)
      band(a, row_of(x, i), yt, row_of(p, i), z, row_of(o, i), row_of(g, i), m - i < BAND ? m - i : BAND, n, n0 > 0);
  }
  for (int64_t i = 0; i < m && !in_place; i++) tile_row_out((void *)(uintptr_t)row(&a->o, m0 + i, 0), w.o + i * vp, a->o.bf16, a->V);
}

const mn_masked_product_isa MN_ISA_NAME(mn_masked_product) = {scratch_size, run};
