/* What must be true of products: every instruction set, against a plain double-precision product, at odd shapes, for
 * every orientation of the operands. */
#include "test.h"

#include "backend/cpu/cpu.h"
#include "backend/cpu/product.h"
#include "isa_set.h"

static uint64_t seed = 1;
static float uniform(void) { /* [-1, 1) */
  seed = mn_splitmix64(seed);
  return (float)((double)(seed >> 11) * 0x1p-52 - 1);
}
static uint16_t bf16_of(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}
static float f32_of(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float x;
  memcpy(&x, &u, 4);
  return x;
}

static mn_isa best;

static const int64_t small_shapes[][3] = {
    {1, 1, 1},    {1, 7, 3},    {2, 16, 16},  {3, 17, 5},   {4, 33, 64},  {5, 64, 33},    {6, 65, 31}, {7, 31, 257},
    {13, 48, 64}, {14, 32, 32}, {15, 63, 65}, {16, 16, 16}, {64, 64, 64}, {29, 100, 300}, {97, 20, 2}, {33, 130, 513},
};
enum { N_SMALL = sizeof small_shapes / sizeof *small_shapes };

/* One thread's own products. C is surrounded by a frame that must stay untouched. */
enum { SMALL_F32, BLOCK_F32, BLOCK_BF16, KINDS };
static const char *const kind_names[] = {"small f32", "block f32", "block bf16"};

static void small_one(const mn_gemm *g, mn_isa isa, int kind, const int64_t s[3], int ta, int tb, bool accumulate) {
  const int64_t M = s[0], N = s[1], K = s[2], ldc = N + 5;
  const bool bf16 = kind == BLOCK_BF16;
  const int64_t pad = 3;
  const int64_t a_rs = ta ? 1 : K + pad, a_cs = ta ? M + pad : 1;
  /* tb 2: both strides larger than one */
  const int64_t b_rs = tb == 0 ? N + pad : tb == 1 ? 1 : 2 * N + 1, b_cs = tb == 0 ? 1 : tb == 1 ? K + pad : 2;
  const int64_t na = (M + pad) * (K + pad), nb = 2 * (N + pad) * (K + pad) + 2 * K;
  float *a = malloc(sizeof(float) * (size_t)na), *b = malloc(sizeof(float) * (size_t)nb);
  uint16_t *ah = malloc(2 * (size_t)na), *bh = malloc(2 * (size_t)nb);
  float *c = malloc(sizeof(float) * (size_t)((M + 1) * ldc)), *c0 = malloc(sizeof(float) * (size_t)((M + 1) * ldc));
  for (int64_t i = 0; i < na; i++) a[i] = uniform(), ah[i] = bf16_of(a[i]);
  for (int64_t i = 0; i < nb; i++) b[i] = uniform(), bh[i] = bf16_of(b[i]);
  for (int64_t i = 0; i < (M + 1) * ldc; i++) c[i] = c0[i] = uniform();
  const float alpha = accumulate ? 0.5f : 1;
  if (kind == SMALL_F32) {
    g->small_f32(M, N, K, alpha, a, a_rs, a_cs, b, b_rs, b_cs, c, ldc, accumulate);
  } else {
    const mn_product p = {.M = M,
                          .N = N,
                          .K = K,
                          .a = bf16 ? (void *)ah : a,
                          .b = bf16 ? (void *)bh : b,
                          .a_rs = a_rs,
                          .a_cs = a_cs,
                          .b_rs = b_rs,
                          .b_cs = b_cs,
                          .c = c,
                          .ldc = ldc,
                          .bf16 = bf16,
                          .accumulate = accumulate,
                          .alpha = alpha};
    void *scratch = mn_alloc_aligned(g->block_scratch(&p, false));
    if (scratch) g->block(&p, NULL, scratch);
    free(scratch);
  }
  double worst = 0;
  bool frame = true;
  for (int64_t i = 0; i <= M; i++)
    for (int64_t j = 0; j < ldc; j++) {
      if (i == M || j >= N) {
        frame &= c[i * ldc + j] == c0[i * ldc + j];
        continue;
      }
      double sum = 0, size = 0;
      for (int64_t k = 0; k < K; k++) {
        const int64_t ia = i * a_rs + k * a_cs, ib = k * b_rs + j * b_cs;
        const double x = bf16 ? (double)f32_of(ah[ia]) * f32_of(bh[ib]) : (double)a[ia] * b[ib];
        sum += x;
        size += fabs(x);
      }
      const double want = alpha * sum + (accumulate ? c0[i * ldc + j] : 0);
      const double error = fabs(c[i * ldc + j] - want) / (size + fabs(want) + 1e-30);
      if (!(error <= worst)) worst = error;
    }
  /* the summands are exact bf16 products, so bf16 differs from f32 only by the processor's own rounding inside a pair
   */
  CHECK(worst < 1e-6 && frame, "%s, %s: M %lld N %lld K %lld ta %d tb %d acc %d: error %g frame %d", mn_isa_name(isa), kind_names[kind],
        (long long)M, (long long)N, (long long)K, ta, tb, accumulate, worst, frame);
  free(a), free(b), free(ah), free(bh), free(c), free(c0);
}

static void small(void) {
  EACH_ISA(isa) {
    const mn_gemm *g = MN_ISA_PICK(mn_gemm_table, isa);
    for (int i = 0; i < N_SMALL; i++)
      for (int kind = 0; kind < KINDS; kind++)
        for (int v = 0; v < 12; v++) small_one(g, isa, kind, small_shapes[i], v & 1, v / 4, v >> 1 & 1);
  }
}

/* ---- products on threads: each path, orientation, type and broadcast ---- */
typedef struct shape {
  int64_t batch, M, N, K;
} shape;
/* At the end: B packed once for all blocks, in two slices, and cut in columns; several tiles that pass over a panel of a wide B
 * in three slices; rows of a transposed A that are pages apart; a last block of a few columns, whose tiles write no more than these;
 * few rows of long sums. */
static const shape shapes[] = {
    {1, 1, 300, 70},    {1, 1, 65, 1000},   {1, 3, 129, 260},   {1, 4, 1030, 33},  {5, 2, 70, 80},     {1, 300, 1, 90},
    {3, 200, 1, 64},    {1, 20, 700, 50},   {1, 1, 777, 65},    {1, 2, 600, 47},   {1, 11, 300, 131},  {2, 5, 90, 70},
    {7, 16, 16, 16},    {40, 9, 8, 7},      {1, 150, 130, 90},  {2, 129, 33, 800}, {1, 257, 100, 900}, {1, 1000, 5, 40},
    {3, 100, 120, 110}, {1, 64, 640, 300},  {1, 1, 1, 1},       {2, 1, 1, 500},    {1, 530, 70, 1},    {1, 770, 40, 530},
    {1, 790, 310, 300}, {1, 70, 330, 1040}, {1, 1100, 20, 520}, {1, 60, 70, 2050}, {1, 150, 90, 1024}, {1, 33, 250, 1031},
    {1, 210, 40, 1101}, {1, 31, 22, 4000},  {1, 200, 38, 3000}, {1, 16, 8, 1024},  {1, 13, 5, 1024},   {1, 16, 130, 2050},
};

enum { SHARE_NONE, SHARE_A, SHARE_B, SHARES };
static const char *const share_names[] = {"none", "A shared", "B shared"};

/* And the sum of the terms' sizes. Four sums at once: the definition takes most of the time here. */
static double dot(const double *a, const double *b, int64_t n, double *size) {
  double sum[4] = {0}, sizes[4] = {0};
  int64_t k = 0;
  for (; k + 4 <= n; k += 4)
    for (int i = 0; i < 4; i++) {
      const double x = a[k + i] * b[k + i];
      sum[i] += x, sizes[i] += fabs(x);
    }
  for (; k < n; k++) sum[0] += a[k] * b[k], sizes[0] += fabs(a[k] * b[k]);
  *size = sizes[0] + sizes[1] + sizes[2] + sizes[3];
  return sum[0] + sum[1] + sum[2] + sum[3];
}

static void product_one(const shape *s, bool bf16, bool c_bf16, bool b_f32, int ta, int tb, int share) {
  const int64_t M = s->M, N = s->N, K = s->K, pad = 2;
  const int64_t a_rs = ta ? 1 : K + (share ? 0 : pad), a_cs = ta ? M + pad : 1;
  const int64_t b_rs = tb ? 1 : N + pad, b_cs = tb ? K + pad : 1;
  const int64_t na = ta ? K * a_cs : M * a_rs, nb = tb ? N * b_cs : K * b_rs;
  const int64_t all_a = na * s->batch, all_b = nb * s->batch, all_c = s->batch * M * N;
  float *a = malloc(sizeof(float) * (size_t)all_a), *b = malloc(sizeof(float) * (size_t)all_b),
        *exact = malloc(sizeof(float) * (size_t)all_b);
  uint16_t *ah = malloc(2 * (size_t)all_a), *bh = malloc(2 * (size_t)all_b);
  float *c[3];
  for (int64_t i = 0; i < all_a; i++) a[i] = uniform(), ah[i] = bf16_of(a[i]), a[i] = bf16 ? f32_of(ah[i]) : a[i];
  for (int64_t i = 0; i < all_b; i++) exact[i] = b[i] = uniform(), bh[i] = bf16_of(b[i]), b[i] = bf16 ? f32_of(bh[i]) : b[i];
  double *want = malloc(sizeof(double) * (size_t)all_c), *sizes = malloc(sizeof(double) * (size_t)all_c);
  double *rows = malloc(sizeof(double) * (size_t)((M + N) * K)), *columns = rows + M * K; /* as they are multiplied, one behind the other */
  for (int64_t g = 0; g < s->batch; g++) {
    const float *of_a = a + (share == SHARE_A ? 0 : g * na), *of_b = b + (share == SHARE_B ? 0 : g * nb);
    for (int64_t i = 0; i < M * K; i++) rows[i] = of_a[i / K * a_rs + i % K * a_cs];
    for (int64_t j = 0; j < N * K; j++) columns[j] = of_b[j % K * b_rs + j / K * b_cs];
    for (int64_t i = 0; i < M; i++)
      for (int64_t j = 0; j < N; j++) want[(g * M + i) * N + j] = dot(rows + i * K, columns + j * K, K, &sizes[(g * M + i) * N + j]);
  }
  free(rows);
  EACH_ISA(isa) {
    bool ran = true;
    for (int threads = 1; threads <= 3; threads++) {
      mn_product_plan plan = {.p = {.M = M,
                                    .N = N,
                                    .K = K,
                                    .a = bf16 ? (void *)ah : a,
                                    .b = b_f32  ? (void *)exact
                                         : bf16 ? (void *)bh
                                                : b,
                                    .a_rs = a_rs,
                                    .a_cs = a_cs,
                                    .b_rs = b_rs,
                                    .b_cs = b_cs,
                                    .ldc = N,
                                    .bf16 = bf16,
                                    .c_bf16 = c_bf16,
                                    .b_f32 = b_f32,
                                    .alpha = 1},
                              .n_axes = 1,
                              .threads = threads,
                              .dim = {s->batch},
                              .a_step = {share == SHARE_A ? 0 : na},
                              .b_step = {share == SHARE_B ? 0 : nb}};
      c[threads - 1] = malloc(sizeof(float) * (size_t)(all_c + 1));
      memset(c[threads - 1], 0x7f, sizeof(float) * (size_t)(all_c + 1));
      plan.p.c = c[threads - 1];
      mn_product_plan_make(&plan, isa, MN_ONEDNN_NEVER);
      mn_pool *pool = mn_pool_new(threads);
      void *scratch = mn_alloc_aligned(plan.scratch * (size_t)threads + 64);
      ran &= pool && scratch;
      if (pool && scratch) mn_product_plan_run(&plan, pool, scratch);
      free(scratch);
      mn_pool_free(pool);
    }
    CHECK(ran, "%s", mn_message());
    const size_t bytes = (c_bf16 ? 2 : 4) * (size_t)all_c;
    CHECK(!memcmp(c[0], c[1], bytes) && !memcmp(c[0], c[2], bytes), "same bits with 1, 2 and 3 threads");
    bool frame = true;
    for (const unsigned char *e = (unsigned char *)c[0] + bytes; e < (unsigned char *)(c[0] + all_c + 1); e++) frame &= *e == 0x7f;
    double worst = 0;
    for (int64_t i = 0; i < all_c; i++) {
      const double got = c_bf16 ? f32_of(((uint16_t *)c[0])[i]) : c[0][i];
      const double error = fabs(got - want[i]) / (c_bf16 ? fabs(want[i]) + 1e-4 * sizes[i] + 1e-30 : sizes[i] + 1e-30);
      if (!(error <= worst)) worst = error;
    }
    CHECK(worst < (c_bf16 ? 4e-3 : 1e-6) && frame, "%s %s%s->%s batch %lld M %lld N %lld K %lld ta %d tb %d %s: error %g frame %d",
          mn_isa_name(isa), bf16 ? "bf16" : "f32", b_f32 ? " f32" : "", c_bf16 ? "bf16" : "f32", (long long)s->batch, (long long)M,
          (long long)N, (long long)K, ta, tb, share_names[share], worst, frame);
    for (int t = 0; t < 3; t++) free(c[t]);
  }
  free(want), free(sizes);
  free(a), free(b), free(exact), free(ah), free(bh);
}

static void products(void) {
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
    for (int type = 0; type < 4; type++) /* f32, bf16, bf16 with a result in bf16, bf16 with B in f32 */
      for (int v = 0; v < 4; v++)
        for (int share = 0; share < (shapes[i].batch > 1 ? SHARES : 1); share++)
          product_one(&shapes[i], type > 0, type == 2, type == 3, v & 1, v >> 1, share);
}

/* ---- oneDNN on the same blocks, where this build has it ---- */
static void onednn(void) {
  const int64_t M = 300, N = 280, K = 270;
  for (int v = 0; v < 8; v++) {
    const bool bf16 = v & 1, ta = v & 2, tb = v & 4;
    float *a = malloc(sizeof(float) * (size_t)(M * K)), *b = malloc(sizeof(float) * (size_t)(K * N)), *c[3];
    for (int64_t i = 0; i < M * K; i++) {
      const float x = uniform();
      if (bf16) ((uint16_t *)a)[i] = bf16_of(x);
      else a[i] = x;
    }
    for (int64_t i = 0; i < K * N; i++) {
      const float x = uniform();
      if (bf16) ((uint16_t *)b)[i] = bf16_of(x);
      else b[i] = x;
    }
    for (int i = 0; i < 3; i++) { /* oneDNN on 1 thread, on 2; Mneme's kernels */
      const int threads = i == 1 ? 2 : 1;
      c[i] = malloc(sizeof(float) * (size_t)(M * N));
      mn_product_plan plan = {.p = {.M = M,
                                    .N = N,
                                    .K = K,
                                    .a = a,
                                    .b = b,
                                    .c = c[i],
                                    .a_rs = ta ? 1 : K,
                                    .a_cs = ta ? M : 1,
                                    .b_rs = tb ? 1 : N,
                                    .b_cs = tb ? K : 1,
                                    .ldc = N,
                                    .bf16 = bf16,
                                    .alpha = 1},
                              .threads = threads};
      mn_product_plan_make(&plan, best, i < 2 ? MN_ONEDNN_ALWAYS : MN_ONEDNN_NEVER);
      CHECK_OK(mn_product_plan_prepare(&plan, threads));
      mn_pool *pool = mn_pool_new(threads);
      void *scratch = mn_alloc_aligned(plan.scratch * (size_t)threads + 64);
      if (pool && scratch) CHECK_OK(mn_product_plan_run(&plan, pool, scratch));
      free(scratch);
      mn_pool_free(pool);
      mn_product_plan_release(&plan);
    }
    double worst = 0;
    for (int64_t i = 0; i < M * N; i++) worst = fmax(worst, fabs((double)c[0][i] - c[2][i]));
    CHECK(worst < 1e-4, "%s ta %d tb %d: %g", bf16 ? "bf16" : "f32", ta, tb, worst);
    CHECK(!memcmp(c[0], c[1], sizeof(float) * (size_t)(M * N)), "same bits with 1 and 2 threads");
    free(a), free(b);
    for (int i = 0; i < 3; i++) free(c[i]);
  }
}

/* ---- the operation, as a plan calls it ---- a [B1,B2,M,K] (or [K,M] transposed, shared), b [B2,K,N] */
static void operation_one(mn_backend *backend, mn_shape as, mn_shape bs, int ta, int tb) {
  mn_graph *g = mn_graph_new();
  mn_tensor *a = mn_input(g, "a", MN_F32, as), *b = mn_input(g, "b", MN_F32, bs), *c = mn_matmul(g, a, b);
  CHECK_OK(mn_graph_status(g));
  const mn_kernel *k = c ? mn_backend_find(backend, c->node, NULL) : NULL;
  CHECK(k && !strcmp(k->name, "matmul"), "the CPU has a kernel for f32 matmul");
  if (!k) {
    mn_graph_free(g);
    return;
  }
  mn_view in[2], out = {.dtype = MN_F32, .ndim = c->shape.ndim};
  const mn_tensor *t[3] = {c->node->in[0], c->node->in[1], c};
  float *data[3];
  for (int i = 0; i < 3; i++) {
    mn_view *v = i < 2 ? &in[i] : &out;
    const mn_shape *s = &t[i]->shape;
    *v = (mn_view){.dtype = MN_F32, .ndim = s->ndim};
    int64_t step = 1;
    for (int d = s->ndim - 1; d >= 0; d--) {
      v->dim[d] = s->dim[d];
      v->stride[d] = step;
      step *= s->dim[d];
    }
    const int n = s->ndim;
    if ((i == 0 && ta) || (i == 1 && tb)) v->stride[n - 2] = 1, v->stride[n - 1] = v->dim[n - 2];
    v->data = data[i] = malloc(sizeof(float) * (size_t)(step + 1));
    for (int64_t e = 0; e < step; e++) data[i][e] = uniform();
  }
  mn_call call = {.kernel = k, .node = c->node, .n_in = 2, .n_out = 1, .in = in, .out = &out, .pool = backend->pool, .backend = backend};
  call.workspace = mn_alloc_aligned(k->workspace(&call) + 64);
  CHECK_OK(k->prepare(&call));
  CHECK_OK(k->run(&call));
  k->release(&call);
  const int d = out.ndim;
  int64_t count = mn_view_count(&out);
  double worst = 0;
  for (int64_t e = 0; e < count; e++) {
    int64_t index = e, at_a = 0, at_b = 0;
    for (int x = d - 1; x >= 0; x--) {
      const int64_t i = index % out.dim[x];
      index /= out.dim[x];
      const int xa = x - (d - in[0].ndim), xb = x - (d - in[1].ndim);
      if (x != d - 1 && xa >= 0 && in[0].dim[xa] != 1) at_a += i * in[0].stride[xa];
      if (x != d - 2 && xb >= 0 && in[1].dim[xb] != 1) at_b += i * in[1].stride[xb];
    }
    double want = 0;
    for (int64_t kk = 0; kk < in[0].dim[in[0].ndim - 1]; kk++)
      want += (double)data[0][at_a + kk * in[0].stride[in[0].ndim - 1]] * data[1][at_b + kk * in[1].stride[in[1].ndim - 2]];
    worst = fmax(worst, fabs(want - data[2][e]));
  }
  char sa[96], sb[96];
  CHECK(worst < 1e-5, "%s x %s, transposed %d %d: error %g", mn_shape_str(&as, sa), mn_shape_str(&bs, sb), ta, tb, worst);
  free(call.workspace);
  for (int i = 0; i < 3; i++) free(data[i]);
  mn_graph_free(g);
}

static void operation(void) {
  mn_backend *backend = NULL;
  CHECK_OK(mn_backend_cpu_new(2, &backend));
  if (!backend) return;
  for (int v = 0; v < 4; v++) {
    operation_one(backend, MN_SHAPE(33, 17), MN_SHAPE(17, 40), v & 1, v >> 1);
    operation_one(backend, MN_SHAPE(3, 5, 9, 17), MN_SHAPE(17, 40), v & 1, v >> 1);    /* one weight, many rows */
    operation_one(backend, MN_SHAPE(9, 17), MN_SHAPE(2, 3, 17, 12), v & 1, v >> 1);    /* A shared              */
    operation_one(backend, MN_SHAPE(4, 1, 9, 17), MN_SHAPE(3, 17, 12), v & 1, v >> 1); /* both broadcast        */
    operation_one(backend, MN_SHAPE(2, 200, 30), MN_SHAPE(30, 1), v & 1, v >> 1);      /* one column            */
    operation_one(backend, MN_SHAPE(6, 1, 64), MN_SHAPE(64, 100), v & 1, v >> 1);      /* one row each          */
    operation_one(backend, MN_SHAPE(6, 1, 64), MN_SHAPE(6, 64, 100), v & 1, v >> 1);
  }
  mn_backend_free(backend);
}

static void empty(void) {
  EACH_ISA(isa) {
    const mn_gemm *g = MN_ISA_PICK(mn_gemm_table, isa);
    float c[6] = {1, 2, 3, 4, 5, 6};
    g->small_f32(2, 2, 0, 1, NULL, 1, 1, NULL, 1, 1, c, 3, true);
    CHECK(c[0] == 1 && c[4] == 5, "an empty sum is added");
    g->small_f32(2, 2, 0, 1, NULL, 1, 1, NULL, 1, 1, c, 3, false);
    CHECK(c[0] == 0 && c[1] == 0 && c[2] == 3 && c[3] == 0 && c[4] == 0, "an empty sum is zero");
  }
}

int main(void) {
  best = last_tested_isa();
  RUN(small);
  RUN(products);
  RUN(onednn);
  RUN(operation);
  RUN(empty);
  return test_end();
}
