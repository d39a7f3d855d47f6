/* stored.c - parameters in types of storage on the CPU: their values, rows of them, and products that read them where they lie.
 *
 * The rows of x are rounded to 8 bits (mn_rounding), and blocks meet them in whole numbers, whether rows are few or many: a prompt that is
 * cut elsewhere meets the same numbers, in sums of another order. With few rows each weight is read once, and that is their time; for many
 * rows eight rows of weights at a time are unpacked to their codes. Where products are to be exact, and for many rows with f16 and bf16,
 * so many rows of weights as stay in a near cache are unpacked and multiplied as any other matrix; nobody ever holds all of them. Then x and
 * f16 are in bf16 where the processor multiplies that faster, and in f32 where products are to be exact; bf16 meets x in x's own type. An
 * output depends on its own row of weights and of x alone, so the bits are the same with any number of threads. */
#include "graph/stored.h"

#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/isa/blocks.h"
#include "backend/cpu/isa/gemm.h"
#include "backend/cpu/isa/thin.h"
#include "backend/cpu/stored.h"
#include "base/blocks.h"

enum { VALUES = 4096 /* unpacked at a time, of whole blocks */ };

static bool gives_real(const mn_node *n) { return n->out[0]->dtype == MN_F32 || n->out[0]->dtype == MN_BF16; }
static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static const mn_blocks_vec *vec_of(const mn_call *c) { return MN_ISA_PICK(mn_blocks_table, mn_cpu_isa(c->backend)); }

/* n values from the first of a block on, to element `at` of y. */
static void unpack_to(const mn_blocks_vec *vec, mn_dtype type, const char *from, int64_t n, mn_dtype to, void *y, int64_t at) {
  float wide[VALUES];
  if (to == MN_F32) {
    vec->unpack(type, from, n, (float *)y + at);
    return;
  }
  for (int64_t k = 0; k < n; k += VALUES) {
    const int64_t m = min64(VALUES, n - k);
    vec->unpack(type, from + mn_dtype_bytes(type, k), m, wide);
    vec->narrow(wide, m, (uint16_t *)y + at + k);
  }
}

/* ---- values ---- */
static void unpack_row_task(void *ctx, int64_t row, int thread) { /* of what is not dense */
  const mn_call *c = ctx;
  const mn_view *x = &c->in[0];
  const int64_t K = x->dim[x->ndim - 1];
  int64_t from = 0, i = row;
  (void)thread;
  for (int d = x->ndim - 2; d >= 0; d--) from += i % x->dim[d] * x->stride[d], i /= x->dim[d];
  unpack_to(vec_of(c), x->dtype, (const char *)x->data + mn_dtype_bytes(x->dtype, from), K, c->out[0].dtype, c->out[0].data, row * K);
}
static void unpack_task(void *ctx, int64_t task, int thread) {
  const mn_call *c = ctx;
  const mn_view *x = &c->in[0];
  const int64_t at = task * VALUES, n = min64(VALUES, mn_view_count(x) - at);
  (void)thread;
  unpack_to(vec_of(c), x->dtype, (const char *)x->data + mn_dtype_bytes(x->dtype, at), n, c->out[0].dtype, c->out[0].data, at);
}
static mn_status unpack_run(mn_call *c) {
  const mn_view *x = &c->in[0];
  if (mn_view_count(x) && !mn_view_dense(x)) {
    mn_pool_run(c->pool, mn_view_count(x) / x->dim[x->ndim - 1], unpack_row_task, c);
    return MN_OK;
  }
  mn_pool_run(c->pool, (mn_view_count(&c->in[0]) + VALUES - 1) / VALUES, unpack_task, c);
  return MN_OK;
}

/* ---- rows ---- */
static void row_task(void *ctx, int64_t i, int thread) {
  const mn_call *c = ctx;
  const mn_view *x = &c->in[0], *y = &c->out[0];
  const int32_t s = ((const int32_t *)c->in[1].data)[i];
  const int64_t K = x->dim[1];
  const size_t size = mn_dtype_size(y->dtype);
  (void)thread;
  if (s < 0 || s >= x->dim[0]) memset((char *)y->data + (size_t)(i * K) * size, 0, (size_t)K * size);
  else unpack_to(vec_of(c), x->dtype, (const char *)x->data + mn_dtype_bytes(x->dtype, s * K), K, y->dtype, y->data, i * K);
}
static mn_status rows_run(mn_call *c) {
  mn_pool_run(c->pool, mn_view_count(&c->in[1]), row_task, c);
  return MN_OK;
}

/* ---- products ---- (x, w0 .. wn-1) -> y */
enum {
  FEW = 12 /* rows of x */,
  TILE = 64 /* rows of weights */,
  GROUP = 16 /* that are unpacked at once */,
  SHARED = 4096 /* values of x: fewer are less than waking the others costs */,
  LEAST = 8 << 10,
  MOST = 1 << 20 /* bytes of weights in a task of few rows */
};

typedef enum way { FEW_BLOCKS, MANY_BLOCKS, FEW_HALVES, TILES } way; /* halves: f16 and bf16 */

typedef struct plan {
  int64_t M, N, K;
  way ways[MN_STORED_MOST];               /* of each matrix */
  bool bf16;                              /* tiles, and x for them */
  bool rounds[MN_ROUNDINGS];              /* x has a copy in 8 bits */
  bool widens, narrows;                   /* x has one in f32; in bf16 */
  int64_t rows[MN_STORED_MOST];           /* of each matrix in a task */
  int64_t first[MN_STORED_MOST + 1];      /* its first task */
  int64_t widest;                         /* of rows */
  mn_product part;                        /* a tile's, without pointers */
  size_t at_rounded[MN_ROUNDINGS], at_x;  /* places in the workspace */
  size_t at_own, own, own_product, own_y; /* of each thread */
} plan;

static size_t place(size_t *at, size_t bytes) {
  const size_t here = *at;
  *at += mn_align(bytes, 64);
  return here;
}

static way way_of(int64_t M, mn_dtype t, bool exact, mn_isa isa) {
  if (mn_block_values(t) == 1) return M <= FEW ? FEW_HALVES : TILES;
  return exact ? TILES : M <= mn_blocks_few(t, isa) ? FEW_BLOCKS : MANY_BLOCKS;
}
/* Rows of x in 8 bits, from `at` of the workspace on; returns where they end. */
static size_t rounded_at(mn_rounding how, int64_t M, int64_t K, char *work, size_t at, mn_rounded *r) {
  const size_t units = (size_t)(M * K / MN_BLOCK), bytes[] = {(size_t)(M * K), 4 * units, 4 * units, 4 * units, 8 * units, 8 * units};
  size_t places[6];
  for (int i = 0; i < (how == MN_ROUND_256 ? 6 : 4); i++) places[i] = place(&at, bytes[i]);
  if (!r) return at;
  *r = (mn_rounded){.M = M, .K = K, .q = (int8_t *)(work + places[0])};
  r->d = (float *)(void *)(work + places[1]);
  r->sum = (float *)(void *)(work + places[2]);
  r->lifted = (int32_t *)(void *)(work + places[3]);
  if (how == MN_ROUND_256) r->d_of_half = (float *)(void *)(work + places[4]), r->sum_of_half = (float *)(void *)(work + places[5]);
  return at;
}

/* Groups of rows in a task, `most` or somewhat fewer: such that all threads have as many tasks of the matrix, or all tasks are as large. */
static int64_t groups_of_task(int64_t groups, int64_t most, int64_t threads) {
  for (int64_t g = most; 2 * g > most; g--)
    if (groups % (g * threads) == 0) return g;
  for (int64_t g = most; 2 * g > most; g--)
    if (groups % g == 0) return g;
  return most;
}

static void plan_of(const mn_call *c, plan *p) {
  const mn_view *x = &c->in[0], *y = &c->out[0];
  const mn_isa isa = mn_cpu_isa(c->backend);
  const bool exact = ((const mn_stored_product_attr *)c->attr)->exact;
  const int threads = mn_pool_threads(c->pool);
  *p = (plan){.M = x->dim[0], .K = x->dim[1], .N = y->dim[1]};
  bool tiles = false, halves = false, many = false, of_bf16 = false, of_others = false; /* of tiles */
  int64_t all = 0, widest_tile = 0;                                                     /* bytes of weights; rows */
  for (int i = 1; i < c->n_in; i++) {
    const mn_dtype t = c->in[i].dtype;
    const way w = p->ways[i - 1] = way_of(p->M, t, exact, isa);
    if (w == TILES) tiles = true, *(t == MN_STORED_BF16 ? &of_bf16 : &of_others) = true;
    else if (w == FEW_HALVES) halves = true;
    else p->rounds[mn_rounding_of(t)] = true;
    many |= w == MANY_BLOCKS;
    all += (int64_t)mn_dtype_bytes(t, mn_view_count(&c->in[i]));
  }
  p->bf16 = tiles && isa >= MN_ISA_LEVEL_AVX512_BF16 && (of_bf16 ? x->dtype == MN_BF16 && !of_others : !exact);
  for (int i = 1; i < c->n_in; i++) {
    const mn_view *w = &c->in[i];
    const way how = p->ways[i - 1];
    const int64_t bytes = (int64_t)mn_dtype_bytes(w->dtype, p->K), of_tile = (w->dim[0] + TILE - 1) / TILE < 8 * threads ? TILE / 2 : TILE;
    /* Long pieces of what all threads read, so that each reads in order most of the time: a new place costs it several waits. More of
     * them where rows of x make arithmetic of it: one thread may be slower than another, whose core does other work, too. */
    const int64_t share = all / ((p->M > 2 ? 3 : 2) * threads), slice = share < LEAST ? LEAST : share > MOST ? MOST : share;
    const int64_t groups = (w->dim[0] + GROUP - 1) / GROUP, of_slice = slice / (bytes ? bytes : 1) / GROUP;
    int64_t rows = how == TILES || p->M > FEW ? of_tile : groups_of_task(groups, of_slice < 1 ? 1 : of_slice, threads) * GROUP;
    if (rows < 1) rows = 1;
    p->rows[i - 1] = rows;
    p->first[i] = p->first[i - 1] + (w->dim[0] + rows - 1) / rows;
    if (rows > p->widest) p->widest = rows;
    if (how == TILES && rows > widest_tile) widest_tile = rows;
  }
  size_t at = 0;
  p->widens = (tiles && !p->bf16 && (x->dtype == MN_BF16 || x->stride[0] != p->K)) ||
              (halves && x->dtype == MN_BF16); /* a tile's rows follow each other */
  p->narrows = p->bf16 && (x->dtype == MN_F32 || x->stride[0] != p->K);
  for (int k = 0; k < MN_ROUNDINGS; k++) {
    p->at_rounded[k] = at;
    if (p->rounds[k]) at = rounded_at((mn_rounding)k, p->M, p->K, NULL, at, NULL);
  }
  p->at_x = place(&at, p->widens ? sizeof(float) * (size_t)(p->M * p->K) : p->narrows ? sizeof(uint16_t) * (size_t)(p->M * p->K) : 0);
  p->at_own = at;
  p->part =
      (mn_product){.M = p->M, .N = widest_tile, .K = p->K, .a_rs = p->K, .a_cs = 1, .b_rs = 1, .b_cs = p->K, .bf16 = p->bf16, .alpha = 1};
  size_t scratch = many ? mn_blocks_scratch(p->K) : 0; /* one thread's, of one way at a time; a row of x as f32 comes before all */
  if (x->dtype == MN_BF16 && scratch < sizeof(float) * (size_t)p->K) scratch = sizeof(float) * (size_t)p->K;
  at = 0;
  if (tiles) {
    const mn_gemm *gemm = MN_ISA_PICK(mn_gemm_table, isa);
    place(&at, (p->bf16 ? sizeof(uint16_t) : sizeof(float)) * (size_t)(widest_tile * p->K));
    p->own_product = place(&at, gemm->block_scratch(&p->part, false));
  }
  if (at < scratch) at = mn_align(scratch, 64);
  p->own_y = place(&at, y->dtype == MN_BF16 ? sizeof(float) * (size_t)(p->M * p->widest) : 0);
  p->own = at;
}

static size_t bytes_of(const plan *p, mn_pool *pool) { return p->at_own + p->own * (size_t)mn_pool_threads(pool); }
static size_t product_workspace(const mn_call *c) {
  plan p;
  plan_of(c, &p);
  return bytes_of(&p, c->pool);
}
static mn_status product_prepare(mn_call *c) {
  plan *p = mn_alloc(sizeof *p);
  if (!p) return MN_ERR_MEMORY;
  plan_of(c, p);
  c->state = p;
  return MN_OK;
}
static void product_release(mn_call *c) {
  free(c->state);
  c->state = NULL;
}

typedef struct product_job {
  const mn_call *c;
  const plan *p;
  const mn_blocks_vec *vec;
  const mn_blocks_many_vec *many;
  mn_rounded rounded[MN_ROUNDINGS];
  const void *x; /* rows in f32, or in bf16 for tiles of bf16 */
  int64_t x_stride;
} product_job;

static char *own_of(const product_job *t, int thread) { return (char *)t->c->workspace + t->p->at_own + (size_t)thread * t->p->own; }

/* Rows [j, j + n) of a matrix, unpacked and multiplied. */
static void tile(const product_job *t, const mn_view *w, int64_t j, int64_t n, char *own, float *y, int64_t y_stride) {
  const plan *p = t->p;
  const mn_isa isa = mn_cpu_isa(t->c->backend);
  mn_product part = p->part;
  const char *from = (const char *)w->data + mn_dtype_bytes(w->dtype, j * p->K);
  const bool as_it_lies = p->bf16 && w->dtype == MN_STORED_BF16;
  if (!as_it_lies) unpack_to(t->vec, w->dtype, from, n * p->K, p->bf16 ? MN_BF16 : MN_F32, own, 0);
  part.N = n;
  part.a = t->x;
  part.b = as_it_lies ? from : own;
  part.c = y;
  part.ldc = y_stride;
  if (p->M <= FEW && !p->bf16) MN_ISA_PICK(mn_thin_table, isa)->run(&part, t->x);
  else MN_ISA_PICK(mn_gemm_table, isa)->block(&part, NULL, own + p->own_product);
}

static void product_task(void *ctx, int64_t task, int thread) {
  const product_job *t = ctx;
  const plan *p = t->p;
  const mn_view *out = &t->c->out[0];
  char *own = own_of(t, thread);
  int i = 0;
  int64_t column = 0;
  for (; task >= p->first[i + 1]; i++) column += t->c->in[1 + i].dim[0];
  const mn_view *w = &t->c->in[1 + i];
  const int64_t j = (task - p->first[i]) * p->rows[i], n = min64(p->rows[i], w->dim[0] - j);
  const bool direct = out->dtype == MN_F32;
  float *y = direct ? (float *)out->data + column + j : (float *)(void *)(own + p->own_y);
  const int64_t y_stride = direct ? p->N : p->widest;
  const char *from = (const char *)w->data + mn_dtype_bytes(w->dtype, j * p->K);
  switch (p->ways[i]) {
  case FEW_BLOCKS:
    t->vec->product(w->dtype, from, n, &t->rounded[mn_rounding_of(w->dtype)], y, y_stride);
    break;
  case MANY_BLOCKS:
    t->many->product(w->dtype, from, n, &t->rounded[mn_rounding_of(w->dtype)], own, y, y_stride);
    break;
  case FEW_HALVES:
    t->vec->product_halves(w->dtype, (const uint16_t *)(const void *)from, n, p->K, t->x, t->x_stride, p->M, y, y_stride);
    break;
  case TILES:
    tile(t, w, j, n, own, y, y_stride);
  }
  for (int64_t m = 0; !direct && m < p->M; m++) t->vec->narrow(y + m * y_stride, n, (uint16_t *)out->data + m * p->N + column + j);
}

/* Row m of x in the types and the order that products take. */
static void prepare_row(void *ctx, int64_t m, int thread) {
  product_job *t = ctx;
  const plan *p = t->p;
  const mn_view *x = &t->c->in[0];
  const bool bf16 = x->dtype == MN_BF16;
  const void *from = (const char *)x->data + m * x->stride[0] * (bf16 ? 2 : 4), *wide = from;
  if (p->widens || p->narrows) {
    void *to = (char *)t->c->workspace + p->at_x + (size_t)(m * p->K) * (p->widens ? sizeof(float) : sizeof(uint16_t));
    if (p->widens && bf16) t->vec->widen(from, p->K, to);
    else if (p->narrows && !bf16) t->vec->narrow(from, p->K, to);
    else memcpy(to, from, (size_t)p->K * (bf16 ? 2 : 4));
  }
  for (int k = 0; k < MN_ROUNDINGS; k++) {
    if (!p->rounds[k]) continue;
    if (bf16 && wide == from) {
      t->vec->widen(from, p->K, (float *)(void *)own_of(t, thread));
      wide = own_of(t, thread);
    }
    t->vec->round((mn_rounding)k, wide, &t->rounded[k], m);
  }
}
static void prepare_x(product_job *t) {
  const plan *p = t->p;
  const mn_view *x = &t->c->in[0];
  char *work = t->c->workspace;
  bool rounds = false;
  t->x = p->widens || p->narrows ? work + p->at_x : x->data;
  t->x_stride = p->widens || p->narrows ? p->K : x->stride[0];
  for (int k = 0; k < MN_ROUNDINGS; k++) {
    if (p->rounds[k]) rounded_at((mn_rounding)k, p->M, p->K, work, p->at_rounded[k], &t->rounded[k]);
    rounds |= p->rounds[k];
  }
  if (!rounds && !p->widens && !p->narrows) return;
  mn_pool_run(p->M * p->K < SHARED ? NULL : t->c->pool, p->M, prepare_row, t);
}

static void multiply(const mn_call *c, const plan *p) {
  product_job t = {.c = c, .p = p, .vec = vec_of(c), .many = MN_ISA_PICK(mn_blocks_many_table, mn_cpu_isa(c->backend))};
  if (!p->M || !p->N) return;
  prepare_x(&t);
  mn_pool_run(c->pool, p->first[c->n_in - 1], product_task, &t);
}
static mn_status product_run(mn_call *c) {
  multiply(c, c->state);
  return MN_OK;
}

/* ---- one matrix, for other kernels ---- */
typedef struct one { /* as a call of the operation */
  mn_view in[2], out;
  mn_stored_product_attr attr;
  mn_call call;
} one;
static void call_of(const mn_stored_matrix *m, mn_backend *b, mn_pool *pool, one *o) {
  const mn_view rows = {.ndim = 2, .dim = {m->M, m->K}, .stride = {m->K, 1}};
  *o = (one){.in = {rows, rows}, .out = rows, .attr = {m->exact}};
  o->in[0].data = (void *)(uintptr_t)m->x, o->in[0].dtype = m->x_type;
  o->in[1].data = (void *)(uintptr_t)m->w, o->in[1].dtype = m->type, o->in[1].dim[0] = m->N;
  o->out.data = m->y, o->out.dtype = MN_F32, o->out.dim[1] = o->out.stride[0] = m->N;
  o->call = (mn_call){.attr = &o->attr, .n_in = 2, .n_out = 1, .in = o->in, .out = &o->out, .pool = pool, .backend = b};
}
size_t mn_stored_scratch(const mn_stored_matrix *m, mn_backend *b, mn_pool *pool) {
  one o;
  plan p;
  call_of(m, b, pool, &o);
  plan_of(&o.call, &p);
  return bytes_of(&p, pool);
}
void mn_stored_run(const mn_stored_matrix *m, mn_backend *b, mn_pool *pool, void *work) {
  one o;
  plan p;
  call_of(m, b, pool, &o);
  plan_of(&o.call, &p);
  o.call.workspace = work;
  multiply(&o.call, &p);
}

static const mn_kernel unpack = {
    .op = &mn_op_unpack, .name = "cpu.unpack", .layout = MN_LAYOUT_ROWS, .accepts = gives_real, .run = unpack_run};
static const mn_kernel rows = {
    .op = &mn_op_stored_rows, .name = "cpu.stored_rows", .layout = MN_LAYOUT_DENSE, .accepts = gives_real, .run = rows_run};
static bool accepts_product(const mn_node *n) { return gives_real(n) && (n->in[0]->dtype == MN_F32 || n->in[0]->dtype == MN_BF16); }
static const mn_kernel product = {.op = &mn_op_stored_product,
                                  .name = "cpu.stored_product",
                                  .layout = MN_LAYOUT_ROWS,
                                  .accepts = accepts_product,
                                  .workspace = product_workspace,
                                  .prepare = product_prepare,
                                  .release = product_release,
                                  .run = product_run};

const mn_kernel *const *mn_cpu_stored_kernels(mn_isa isa, int *n) {
  static const mn_kernel *const kernels[] = {&unpack, &rows, &product};
  (void)isa;
  *n = 3;
  return kernels;
}
