/* experts.c - the networks of a mixture of experts: rows are sorted by the expert that they chose, and each expert that was chosen
 * multiplies its rows at once. Its matrices are read where they lie, in types of storage too, and those of the others are not.
 *
 * For expert e and the pairs (n,j) with index[n,j] = e, at most PIECE at a time:
 *     X = rows x_n    G = X gate_e^T    U = X up_e^T    H = weight * silu(G) * U    y_n += H down_e^T
 * Experts add to a row one after the other, in their order, so that no sum depends on the threads. */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/product.h"
#include "backend/cpu/stored.h"
#include "base/bf16.h"
#include "graph/fused_experts.h"

enum { PIECE = 256, TASK = 16384 }; /* rows of a product; elements of a task, about */

typedef struct sizes {
  int64_t N, k, D, F, E;
  bool bf16;
  size_t element;
} sizes;

static sizes sizes_of(const mn_call *c) {
  const mn_view *x = &c->in[0], *gate = &c->in[1], *index = &c->in[4];
  const bool bf16 = x->dtype == MN_BF16;
  return (sizes){x->dim[0], index->dim[1], x->dim[1], gate->dim[1], gate->dim[0], bf16, bf16 ? 2 : 4};
}

/* M rows of width K by the [N,K] matrix b: c [M,N] in f32. */
static mn_product product_of(const sizes *z, int64_t M, int64_t N, int64_t K) {
  return (mn_product){.M = M, .N = N, .K = K, .a_rs = K, .a_cs = 1, .b_rs = 1, .b_cs = K, .ldc = N, .bf16 = z->bf16, .alpha = 1};
}

/* The same by expert e's matrix of an operand that is kept in a type of storage. */
static mn_stored_matrix stored_of(const mn_call *c, const sizes *z, int64_t M, int64_t N, int64_t K, int operand, int64_t e) {
  const mn_view *w = &c->in[operand];
  return (mn_stored_matrix){.M = M,
                            .N = N,
                            .K = K,
                            .x_type = z->bf16 ? MN_BF16 : MN_F32,
                            .type = w->dtype,
                            .w = w->data ? (const char *)w->data + mn_dtype_bytes(w->dtype, e * N * K) : NULL,
                            .exact = ((const mn_experts_attr *)c->attr)->exact};
}

/* Where things lie in the workspace. */
typedef struct rooms {
  int32_t *first, *order; /* pairs of expert e: order[first[e]] .. order[first[e + 1]], each n k + j */
  void *x, *h;            /* [PIECE,D], [PIECE,F] in x's type     */
  float *g, *u, *y;       /* [PIECE,F] twice, [PIECE,D]           */
  float *sum;             /* [N,D]: y before it is rounded        */
  void *scratch;
  size_t bytes;
} rooms;

static void *room(rooms *r, void *base, size_t bytes) {
  void *at = (char *)base + r->bytes;
  r->bytes += (bytes + 63) & ~(size_t)63;
  return at;
}

static rooms rooms_in(const sizes *z, void *base, size_t scratch) {
  rooms r = {0};
  const int64_t rows = z->N * z->k < PIECE ? z->N * z->k : PIECE;
  r.first = room(&r, base, (size_t)(z->E + 2) * sizeof(int32_t));
  r.order = room(&r, base, (size_t)(z->N * z->k) * sizeof(int32_t));
  r.x = room(&r, base, (size_t)(rows * z->D) * z->element);
  r.h = room(&r, base, (size_t)(rows * z->F) * z->element);
  r.g = room(&r, base, (size_t)(rows * z->F) * sizeof(float));
  r.u = room(&r, base, (size_t)(rows * z->F) * sizeof(float));
  r.y = room(&r, base, (size_t)(rows * z->D) * sizeof(float));
  r.sum = room(&r, base, z->bf16 ? (size_t)(z->N * z->D) * sizeof(float) : 0);
  r.scratch = room(&r, base, scratch);
  return r;
}

/* The most that a product of so many rows asks for: its way, and so its scratch, follows from how many there are. */
static size_t scratch_of(const mn_call *c, const sizes *z) {
  const int64_t rows = z->N * z->k < PIECE ? z->N * z->k : PIECE;
  size_t most = 0;
  for (int64_t m = 1; m <= rows; m++)
    for (int operand = 1; operand <= 3; operand++) {
      const int64_t N = operand == 3 ? z->D : z->F, K = operand == 3 ? z->F : z->D;
      const mn_product p = product_of(z, m, N, K);
      const mn_stored_matrix s = stored_of(c, z, m, N, K, operand, 0);
      const size_t bytes =
          mn_dtype_is_stored(s.type) ? mn_stored_scratch(&s, c->backend, c->pool) : mn_product_scratch(&p, mn_cpu_isa(c->backend), c->pool);
      if (bytes > most) most = bytes;
    }
  return most;
}

static size_t workspace(const mn_call *c) {
  const sizes z = sizes_of(c);
  return rooms_in(&z, NULL, scratch_of(c, &z)).bytes;
}

static bool accepts(const mn_node *n) {
  const mn_dtype t = n->in[0]->dtype;
  return (t == MN_F32 || t == MN_BF16) && n->in[5]->dtype == MN_F32 && mn_shape_count(&n->in[4]->shape) < INT32_MAX &&
         mn_dim(n->in[1], 0) < INT32_MAX - 2;
}

/* first[e + 2] counts expert e, then first[e + 1] is where its pairs begin, and moves to where they end as they are filled. */
static void sort_pairs(const sizes *z, const int32_t *index, rooms *r) {
  const int64_t pairs = z->N * z->k;
  memset(r->first, 0, (size_t)(z->E + 2) * sizeof *r->first);
  for (int64_t i = 0; i < pairs; i++)
    if (index[i] >= 0 && index[i] < z->E) r->first[index[i] + 2]++;
  for (int64_t e = 2; e < z->E + 2; e++) r->first[e] += r->first[e - 1];
  for (int64_t i = 0; i < pairs; i++)
    if (index[i] >= 0 && index[i] < z->E) r->order[r->first[index[i] + 1]++] = (int32_t)i;
}

typedef struct job {
  const mn_call *c;
  const sizes *z;
  const rooms *r;
  const int32_t *pair; /* of this piece */
  int64_t rows, per_task;
} job;

static int64_t end_of(const job *j, int64_t i) { return (i + 1) * j->per_task < j->rows ? (i + 1) * j->per_task : j->rows; }

static void gather_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const job *j = ctx;
  const size_t row = (size_t)j->z->D * j->z->element;
  for (int64_t m = i * j->per_task; m < end_of(j, i); m++)
    memcpy((char *)j->r->x + (size_t)m * row, (const char *)j->c->in[0].data + (size_t)(j->pair[m] / j->z->k) * row, row);
}

static void hidden_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const job *j = ctx;
  const int64_t F = j->z->F;
  const float *weight = j->c->in[5].data;
  for (int64_t m = i * j->per_task; m < end_of(j, i); m++) {
    const float *restrict g = j->r->g + m * F, *restrict u = j->r->u + m * F, w = weight[j->pair[m]];
    for (int64_t f = 0; f < F; f++) {
      const float h = w * (g[f] / (1 + expf(-g[f])) * u[f]);
      if (j->z->bf16) ((uint16_t *)j->r->h)[m * F + f] = mn_float_to_bf16(h);
      else ((float *)j->r->h)[m * F + f] = h;
    }
  }
}

/* A task has columns, of all rows: two pairs of a piece may be of one row. */
static void add_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const job *j = ctx;
  const int64_t D = j->z->D, from = i * j->per_task, to = from + j->per_task < D ? from + j->per_task : D;
  float *sum = j->z->bf16 ? j->r->sum : j->c->out[0].data;
  for (int64_t m = 0; m < j->rows; m++)
    for (int64_t d = from; d < to; d++) sum[j->pair[m] / j->z->k * D + d] += j->r->y[m * D + d];
}

static void rows_run(const job *j, int64_t width, void (*task)(void *, int64_t, int)) {
  job t = *j;
  t.per_task = width >= TASK ? 1 : TASK / width;
  mn_pool_run(j->c->pool, (t.rows + t.per_task - 1) / t.per_task, task, &t);
}

static void multiply(const mn_call *c, const sizes *z, const rooms *r, int64_t M, int64_t N, int64_t K, const void *a, int operand,
                     int64_t e, float *to) {
  if (mn_dtype_is_stored(c->in[operand].dtype)) {
    mn_stored_matrix s = stored_of(c, z, M, N, K, operand, e);
    s.x = a;
    s.y = to;
    mn_stored_run(&s, c->backend, c->pool, r->scratch);
    return;
  }
  mn_product p = product_of(z, M, N, K);
  p.a = a;
  p.b = (const char *)c->in[operand].data + (size_t)(e * N * K) * z->element;
  p.c = to;
  mn_product_run(&p, mn_cpu_isa(c->backend), c->pool, r->scratch);
}

static mn_status run(mn_call *c) {
  const sizes z = sizes_of(c);
  rooms r = rooms_in(&z, c->workspace, 0);
  float *sum = z.bf16 ? r.sum : c->out[0].data;
  memset(sum, 0, (size_t)(z.N * z.D) * sizeof *sum);
  sort_pairs(&z, c->in[4].data, &r);
  for (int64_t e = 0; e < z.E; e++)
    for (int64_t at = r.first[e]; at < r.first[e + 1]; at += PIECE) {
      const int64_t left = r.first[e + 1] - at, M = left < PIECE ? left : PIECE;
      job j = {.c = c, .z = &z, .r = &r, .pair = r.order + at, .rows = M};
      rows_run(&j, z.D, gather_task);
      multiply(c, &z, &r, M, z.F, z.D, r.x, 1, e, r.g);
      multiply(c, &z, &r, M, z.F, z.D, r.x, 2, e, r.u);
      rows_run(&j, z.F * 8, hidden_task);
      multiply(c, &z, &r, M, z.D, z.F, r.h, 3, e, r.y);
      j.per_task = M * z.D <= TASK ? z.D : (TASK + M - 1) / M;
      mn_pool_run(c->pool, (z.D + j.per_task - 1) / j.per_task, add_task, &j);
    }
  for (int64_t i = 0; z.bf16 && i < z.N * z.D; i++) ((uint16_t *)c->out[0].data)[i] = mn_float_to_bf16(sum[i]);
  return MN_OK;
}

static const mn_kernel experts = {
    .op = &mn_op_experts, .name = "cpu.experts", .layout = MN_LAYOUT_DENSE, .accepts = accepts, .workspace = workspace, .run = run};

const mn_kernel *const *mn_cpu_experts_kernels(mn_isa isa, int *n) {
  static const mn_kernel *const list[] = {&experts};
  (void)isa; /* products have vector code of their own */
  *n = 1;
  return list;
}
