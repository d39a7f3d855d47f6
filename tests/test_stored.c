/* test_stored.c - types of storage: what blocks unpack to, rows of tables, and products that read them where they lie, on each instruction
 * set, against the values that format/quant.h reads one by one. */
#include "graph/stored.h"

#include "backend/cpu/isa/blocks.h"
#include "base/bf16.h"
#include "base/blocks.h"
#include "base/f16.h"
#include "compile/plan.h"
#include "cpu_kernel.h"
#include "format/quant.h"
#include "graph/fused_loss.h"
#include "model/params.h"
#include "nn/layers.h"
#include "rounded.h"

static mn_isa isa;

/* Bytes of any kind, with scales that are small numbers: every code of every type occurs. */
static void *random_blocks(mn_dtype t, int64_t n, uint64_t key) {
  const size_t bytes = mn_dtype_bytes(t, n), block = mn_block_bytes(t);
  uint8_t *p = mn_alloc_aligned(bytes);
  for (size_t i = 0; i < bytes; i++) p[i] = (uint8_t)(mn_random_uniform(key, 1, i) * 256);
  for (size_t b = 0; b * block < bytes; b++) {
    const double size = 0.002 * (1 + mn_random_uniform(key, 2, b)), sign = b % 3 ? 1 : -1;
    const uint16_t d = mn_float_to_f16((float)(sign * size)), m = mn_float_to_f16((float)(size * 3 * (0.5 - mn_random_uniform(key, 3, b))));
    uint8_t *x = p + b * block;
    switch (t) {
    case MN_F16: {
      const uint16_t h = mn_float_to_f16((float)mn_random_normal(key, 4, b));
      memcpy(x, &h, 2);
      break;
    }
    case MN_STORED_BF16: {
      const uint16_t h = mn_float_to_bf16((float)mn_random_normal(key, 4, b));
      memcpy(x, &h, 2);
      break;
    }
    case MN_MXFP4:
      x[0] = (uint8_t)(120 + b % 5);
      break;
    case MN_Q2_K:
      ((mn_q2_k *)(void *)x)->d = d, ((mn_q2_k *)(void *)x)->dmin = m;
      break;
    case MN_Q3_K:
      ((mn_q3_k *)(void *)x)->d = d;
      break;
    case MN_Q6_K:
      ((mn_q6_k *)(void *)x)->d = d;
      break;
    default:
      memcpy(x, &d, 2);
      if (t == MN_Q4_1 || t == MN_Q5_1 || t == MN_Q4_K || t == MN_Q5_K) memcpy(x + 2, &m, 2);
    }
  }
  return p;
}

static mn_view stored(mn_dtype t, int64_t n, int64_t k, uint64_t key) {
  return (mn_view){.data = random_blocks(t, n * k, key), .dtype = t, .ndim = 2, .dim = {n, k}, .stride = {k, 1}};
}
static float *values_of(const mn_view *w) {
  float *y = mn_alloc(sizeof(float) * (size_t)(mn_view_count(w) + 1));
  mn_dequantize(w->dtype, w->data, mn_view_count(w), y);
  return y;
}
static int64_t some_columns(mn_dtype t) { return mn_block_values(t) == 256 ? 768 : mn_block_values(t) == 32 ? 352 : 77; }

/* ---- values and rows ---- */
static void values(mn_dtype t) {
  enum { N = 37 };
  const int64_t K = some_columns(t);
  mn_view w = stored(t, N, K, 5);
  float *expect = values_of(&w);
  for (int bf16 = 0; bf16 < 2; bf16++) {
    mn_view y = TENSOR(bf16 ? MN_BF16 : MN_F32, 0, N, K);
    kernel_check_run(mn_cpu_stored_kernels, &mn_op_unpack, NULL, isa, 1, &w, 1, &y);
    int wrong = 0;
    for (int64_t i = 0; i < N * K; i++) {
      uint16_t narrow;
      element_set(&narrow, MN_BF16, 0, (double)expect[i]);
      wrong += tensor_get(&y, i) != (bf16 ? element_get(&narrow, MN_BF16, 0) : (double)expect[i]);
    }
    CHECK(!wrong, "%s to %s: %d values differ from those of its layout", mn_dtype_name(t), mn_dtype_name(y.dtype), wrong);
    free(y.data);
  }
  mn_view idx = TENSOR(MN_I32, 0, 2, 3), io[2] = {w, idx}, y = TENSOR(MN_F32, 0, 2, 3, K);
  const int at[] = {36, 0, -1, 7, 37, 7};
  for (int i = 0; i < 6; i++) tensor_set(&idx, i, at[i]);
  kernel_check_run(mn_cpu_stored_kernels, &mn_op_stored_rows, NULL, isa, 2, io, 1, &y);
  int wrong = 0;
  for (int64_t i = 0; i < 6 * K; i++) {
    const int row = at[i / K];
    wrong += tensor_get(&y, i) != (row < 0 || row >= N ? 0 : (double)expect[row * K + i % K]);
  }
  CHECK(!wrong, "%s: rows of a table, %d values", mn_dtype_name(t), wrong);
  free(y.data);
  free(idx.data);
  free(w.data);
  free(expect);
}

/* ---- products ---- */
enum { MATRICES = 2 };
typedef struct shape_case {
  int64_t M, N[MATRICES], K;
} shape_case;

static void fill(mn_view *x, uint64_t key) {
  for (int64_t i = 0; i < mn_view_count(x); i++) tensor_set(x, i, mn_random_normal(key, 0, (uint64_t)i));
}

/* A row as products with blocks of type t see it: x^ [K], and by how much the sum of 32 values that goes to an offset differs from theirs. */
static void rounded_plainly(mn_dtype t, const float *x, int64_t K, double *seen, double *sum_off) {
  const mn_rounding how = mn_rounding_of(t);
  const int64_t n = how == MN_ROUND_256 ? 256 : 32;
  for (int64_t u = 0; u < K; u += n) {
    int64_t at = u;
    for (int64_t c = u; c < u + n; c++)
      if (fabsf(x[c]) > fabsf(x[at])) at = c;
    const float most = fabsf(x[at]), wide = most / 127, d16 = mn_f16_to_float(mn_float_to_f16(wide));
    const float scale = most == 0 ? 0 : how == MN_ROUND_256 ? -127 / x[at] : 127 / most;
    const float d = how != MN_ROUND_256 ? d16 : most == 0 ? 0 : 1 / scale;
    int whole = 0;
    for (int64_t c = u; c < u + n; c++) {
      const float q = rintf(scale * x[c]);
      seen[c] = (double)d * (double)q;
      whole += (int)q;
    }
    if (how == MN_ROUND_SUMS) sum_off[u / 32] = (double)mn_f16_to_float(mn_float_to_f16(wide * (float)whole)) - (double)d * whole;
  }
}
/* The offset of the u-th 32 values of a row. */
static double offset_of(const mn_view *w, int64_t row, int64_t u) {
  const char *block = (const char *)w->data + mn_dtype_bytes(w->dtype, row * w->dim[1] + u * 32);
  return (double)mn_f16_to_float(((const mn_q4_1 *)(const void *)block)->m); /* of a q5_1 too */
}

/* The largest error of columns that came from one matrix, in units of what the sums' own rounding may be, or that of factors in bf16. */
static double off_by(const mn_view *x, const mn_view *w, const mn_view *y, int64_t column, bool exact) {
  const int64_t M = x->dim[0], K = x->dim[1], columns = y->dim[1];
  const bool halves = mn_block_values(w->dtype) == 1, rounds = !halves && !exact,
             sums = rounds && mn_rounding_of(w->dtype) == MN_ROUND_SUMS;
  const double part = w->dtype == MN_F16 && !exact && M > 12 && isa >= MN_ISA_LEVEL_AVX512_BF16 ? 0x1p-7 : 0x1p-20;
  float *v = values_of(w), *row = mn_alloc(sizeof(float) * (size_t)K);
  double *seen = mn_alloc(sizeof(double) * (size_t)K), *sum_off = mn_alloc(sizeof(double) * (size_t)(K / 32 + 1)), worst = 0;
  for (int64_t i = 0; i < M; i++) {
    for (int64_t k = 0; k < K; k++) seen[k] = tensor_get(x, i * K + k), row[k] = (float)seen[k];
    if (rounds) rounded_plainly(w->dtype, row, K, seen, sum_off);
    for (int64_t j = 0; j < w->dim[0]; j++) {
      double sum = 0, size = 0;
      for (int64_t k = 0; k < K; k++) {
        const double a = seen[k] * (double)v[j * K + k];
        sum += a;
        size += fabs(a);
      }
      for (int64_t u = 0; sums && u < K / 32; u++) sum += offset_of(w, j, u) * sum_off[u];
      const double off = fabs(tensor_get(y, i * columns + column + j) - sum), eps = y->dtype == MN_BF16 ? 0x1p-8 * fabs(sum) : 0;
      /* offsets add sums of both signs that the values' own sum does not have */
      worst = fmax(worst, fmax(0, off - eps) / (size * part + 1e-6));
    }
  }
  free(v), free(row), free(seen), free(sum_off);
  return worst;
}

static void product(mn_dtype t, mn_dtype second, const shape_case *s, mn_dtype x_type, mn_dtype y_type, bool exact) {
  mn_view x = TENSOR(x_type, 3, s->M, s->K), y = TENSOR(y_type, 0, s->M, s->N[0] + s->N[1]);
  mn_view io[1 + MATRICES] = {x, stored(t, s->N[0], s->K, 11), stored(second, s->N[1], s->K, 12)};
  fill(&io[0], 3);
  const mn_stored_product_attr attr = {exact};
  kernel_check_run(mn_cpu_stored_kernels, &mn_op_stored_product, &attr, isa, 1 + MATRICES, io, 1, &y);
  const double worst = fmax(off_by(&io[0], &io[1], &y, 0, exact), off_by(&io[0], &io[2], &y, s->N[0], exact));
  CHECK(worst <= 1, "%s and %s, %lld x %lld, %s to %s%s: off by %.3g of what is allowed", mn_dtype_name(t), mn_dtype_name(second),
        (long long)s->M, (long long)s->K, mn_dtype_name(x_type), mn_dtype_name(y_type), exact ? ", exact" : "", worst);
  tensors_free(1 + MATRICES, io);
  free(y.data);
}

static void products(mn_dtype t) {
  const int64_t block = mn_block_values(t);
  const shape_case cases[] = {{1, {70, 1}, 2 * 256}, {2, {5, 40}, 256 * 3},    {3, {7, 1}, 256},   {5, {33, 3}, 4096 + 512},
                              {8, {64, 9}, 256 * 3}, {13, {100, 41}, 256 * 3}, {33, {40, 70}, 512}};
  const mn_dtype seconds[] = {MN_Q6_K, MN_F16, MN_Q4_1};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (int how = 0; how < 4; how++) product(t, seconds[(i + (size_t)how) % 3], &cases[i], MN_F32, MN_F32, how & 1);
  product(t, MN_Q8_0, &cases[1], MN_BF16, MN_BF16, false);
  product(t, MN_Q8_0, &cases[6], MN_BF16, MN_F32, false);
  product(t, MN_F16, &cases[6], MN_BF16, MN_F32, false);
  product(t, MN_Q8_0, &cases[6], MN_F32, MN_BF16, false);
  product(t, MN_Q8_0, &cases[2], MN_BF16, MN_F32, true);
  const shape_case odd = {1, {3, 65}, block == 256 ? 256 : 32 * 7};
  product(t, t, &odd, MN_F32, MN_F32, false);
}

/* What 8 bits make of rows that ggml's own functions rounded (golden/rounded.py). */
static void as_ggml_rounds(void) {
  float x[ROUNDED_K], d[ROUNDED_K / 32], sum[ROUNDED_K / 32], d_half[ROUNDED_K / 16], sum_half[ROUNDED_K / 16];
  int8_t q[ROUNDED_K];
  int32_t lifted[ROUNDED_K / 32];
  mn_rounded r = {.M = 1, .K = ROUNDED_K, .q = q, .d = d, .sum = sum, .d_of_half = d_half, .sum_of_half = sum_half, .lifted = lifted};
  for (int i = 0; i < ROUNDED_K; i++) x[i] = rounded_x(i);
  for (mn_rounding how = 0; how < MN_ROUNDINGS; how++) {
    int wrong = 0;
    MN_ISA_PICK(mn_blocks_table, isa)->round(how, x, &r, 0);
    for (int u = 0; u < ROUNDED_K / 32; u++) {
      for (int i = 0; i < 32; i++) lifted[u] += 128 * q[32 * u + i];
      wrong += lifted[u] != 0;
    }
    for (int i = 0; i < ROUNDED_K; i++) wrong += q[i] != (how == MN_ROUND_256 ? rounded_q_256 : rounded_q_32)[i];
    CHECK(!wrong, "rounding %d: %d of %d whole numbers", (int)how, wrong, ROUNDED_K);
    for (int u = 0; u < ROUNDED_K / 32; u++) {
      const float of = how == MN_ROUND_256 ? rounded_d_256[u / 8] : rounded_d_32[u];
      int whole[2] = {0};
      for (int i = 0; i < 32; i++) whole[i / 16] += q[u * 32 + i];
      CHECK(d[u] == of && sum[u] == (how == MN_ROUND_SUMS ? rounded_sum[u] : of * (float)(whole[0] + whole[1])),
            "rounding %d: unit %d, %.9g and %.9g", (int)how, u, (double)d[u], (double)sum[u]);
      for (int h = 0; how == MN_ROUND_256 && h < 2; h++)
        CHECK(d_half[2 * u + h] == of && sum_half[2 * u + h] == of * (float)whole[h], "unit %d, half %d", u, h);
    }
  }
}

/* Where a prompt is cut does not change what weights meet: each way of the kernel gives an output that differs by its sums' order alone, and
 * where rows are too many for the way of few, however many they are, not at all. */
static void cut_anywhere(mn_dtype t) {
  enum { M = 29, N = 21 };
  const int64_t K = 512;
  mn_view w = stored(t, N, K, 17), x = TENSOR(MN_F32, 0, M, K), whole = TENSOR(MN_F32, 0, M, N), io[2] = {x, w};
  fill(&x, 18);
  kernel_check_run(mn_cpu_stored_kernels, &mn_op_stored_product, &(mn_stored_product_attr){0}, isa, 2, io, 1, &whole);
  for (int64_t cut = 1; cut < M; cut += cut < 3 ? 1 : 6)
    for (int part = 0; part < 2; part++) {
      const int64_t rows = part ? M - cut : cut, first = part ? cut : 0;
      const bool same = mn_block_values(t) > 1 && rows > mn_blocks_few(t, isa);
      mn_view some = x, y = TENSOR(MN_F32, 0, rows, N);
      double worst = 0, size = 0;
      some.dim[0] = rows, some.data = (float *)x.data + first * K;
      io[0] = some;
      kernel_check_run(mn_cpu_stored_kernels, &mn_op_stored_product, &(mn_stored_product_attr){0}, isa, 2, io, 1, &y);
      for (int64_t i = 0; i < rows * N; i++) {
        worst = fmax(worst, fabs(tensor_get(&y, i) - tensor_get(&whole, first * N + i)));
        size = fmax(size, fabs(tensor_get(&y, i)));
      }
      CHECK(same ? worst == 0 : worst < 1e-5 * size, "%s: rows from %lld on differ by %g of %g where all come at once", mn_dtype_name(t),
            (long long)first, worst, size);
      free(y.data);
    }
  free(x.data), free(w.data), free(whole.data);
}

/* A row of zeros has no scale, whether rows are few or many. */
static void nothing(int64_t M) {
  mn_view x = TENSOR(MN_F32, 0, M, 256), y = TENSOR(MN_F32, 0, M, 18);
  for (int64_t i = 0; i < M * 256; i++) tensor_set(&x, i, i < 32 ? 1 : 0);
  mn_view io[3] = {x, stored(MN_Q4_0, 9, 256, 2), stored(MN_Q4_K, 9, 256, 2)};
  kernel_check_run(mn_cpu_stored_kernels, &mn_op_stored_product, &(mn_stored_product_attr){0}, isa, 3, io, 1, &y);
  for (int64_t i = 18; i < M * 18; i++) CHECK(tensor_get(&y, i) == 0, "a row of zeros gives %g", tensor_get(&y, i));
  tensors_free(3, io);
  free(y.data);
}

/* What is no number does not become one on the way through 8 bits, wherever it stands; other rows do not hear of it. */
static void no_numbers(mn_dtype t) {
  enum { K = 512, N = 9 };
  static const int64_t rows[] = {1, 2, 3, 6, 20}, places[] = {0, 7, 8, 31, 100, 255, 511};
  static const float bad[] = {NAN, INFINITY, -INFINITY};
  const mn_view w = stored(t, N, K, 23);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    for (size_t k = 0; k < sizeof places / sizeof *places; k++)
      for (int b = 0; b < 3; b++) {
        const int64_t M = rows[i], at = M / 2;
        mn_view x = TENSOR(MN_F32, 0, M, K), y = TENSOR(MN_F32, 0, M, N), io[2] = {x, w};
        fill(&x, 24);
        ((float *)x.data)[at * K + places[k]] = bad[b];
        kernel_check_run(mn_cpu_stored_kernels, &mn_op_stored_product, &(mn_stored_product_attr){0}, isa, 2, io, 1, &y);
        for (int64_t e = 0; e < M * N; e++)
          CHECK(!isfinite(tensor_get(&y, e)) == (e / N == at), "%s: %lld rows, %g at %lld of row %lld: element %lld is %g",
                mn_dtype_name(t), (long long)M, (double)bad[b], (long long)places[k], (long long)at, (long long)e, tensor_get(&y, e));
        free(x.data), free(y.data);
      }
  free(w.data);
}

/* Sums of nothing are 0. */
static void no_values(int64_t M) {
  mn_view x = TENSOR(MN_F32, 0, M, 0), y = TENSOR(MN_F32, 0, M, 4);
  mn_view io[2] = {x, {.data = x.data, .dtype = MN_Q8_0, .ndim = 2, .dim = {4, 0}, .stride = {0, 1}}};
  for (int64_t i = 0; i < M * 4; i++) tensor_set(&y, i, 1);
  kernel_check_run(mn_cpu_stored_kernels, &mn_op_stored_product, &(mn_stored_product_attr){0}, isa, 2, io, 1, &y);
  for (int64_t i = 0; i < M * 4; i++) CHECK(tensor_get(&y, i) == 0, "%lld rows: a sum of nothing is %g", (long long)M, tensor_get(&y, i));
  free(x.data), free(y.data);
}

/* ---- the language ---- */
static mn_status fault(mn_graph *g) {
  mn_status s = mn_graph_status(g);
  mn_graph_free(g);
  return s;
}
static void refusals(void) {
  mn_graph *g = mn_graph_new();
  mn_tensor *w = mn_variable(g, "weight", MN_Q4_K, MN_SHAPE(4, 256));
  CHECK(mn_dtype_is_stored(w->dtype) && !mn_dtype_is_float(w->dtype), "a type of storage");
  mn_add(g, w, w);
  CHECK(fault(g) == MN_ERR_UNSUPPORTED && strstr(mn_message(), "operand 0, weight is kept as q4_k") &&
            strstr(mn_message(), "cast it first"),
        "%s", mn_message());
  g = mn_graph_new();
  mn_variable(g, "weight", MN_Q4_K, MN_SHAPE(4, 128));
  CHECK(fault(g) == MN_ERR_SHAPE && strstr(mn_message(), "[4, 128] cannot be kept as q4_k, whose blocks are 256 values"), "%s",
        mn_message());
  g = mn_graph_new();
  mn_cast(g, mn_input(g, "x", MN_F32, MN_SHAPE(4, 32)), MN_Q8_0);
  CHECK(fault(g) == MN_ERR_UNSUPPORTED && strstr(mn_message(), "nothing is computed in q8_0"), "%s", mn_message());
  g = mn_graph_new();
  w = mn_variable(g, "w", MN_Q8_0, MN_SHAPE(4, 32));
  mn_stored_product(g, mn_input(g, "x", MN_F32, MN_SHAPE(3, 64)), 1, &w, false, MN_F32);
  CHECK(fault(g) == MN_ERR_SHAPE && strstr(mn_message(), "stored_product"), "%s", mn_message());
  g = mn_graph_new();
  w = mn_input(g, "w", MN_F32, MN_SHAPE(4, 64));
  mn_stored_product(g, mn_input(g, "x", MN_F32, MN_SHAPE(3, 64)), 1, &w, false, MN_F32);
  CHECK(fault(g) == MN_ERR_SHAPE, "%s", mn_message());
  g = mn_graph_new();
  mn_take(g, mn_variable(g, "w", MN_F16, MN_SHAPE(2, 4, 32)), mn_input(g, "i", MN_I32, MN_SHAPE(2, 3)), 1);
  CHECK(fault(g) == MN_ERR_UNSUPPORTED, "%s", mn_message());
}

/* Through a plan: y = product, d sum(y c) / dx, and the rows of a table, on both backends. The gradient is c W. */
static void plans(mn_dtype t) {
  enum { M = 3, N = 6 };
  const int64_t K = mn_block_values(t) == 1 ? 32 : mn_block_values(t);
  void *blocks = random_blocks(t, N * K, 8);
  float *x = mn_alloc_aligned(sizeof(float) * (size_t)(M * K)), *v = mn_alloc(sizeof(float) * (size_t)(N * K)), *got[2][3];
  int32_t at[2] = {5, 2};
  for (int64_t i = 0; i < M * K; i++) x[i] = (float)mn_random_normal(9, 0, (uint64_t)i);
  mn_dequantize(t, blocks, N * K, v);
  for (int b = 0; b < 2; b++) {
    mn_backend *backend = NULL;
    CHECK_OK(mn_backend_open(b ? "cpu" : "ref", b ? 2 : 1, &backend));
    mn_graph *g = mn_graph_new();
    mn_tensor *w = mn_variable(g, "w", t, MN_SHAPE(N, K)), *in = mn_input(g, "x", MN_F32, MN_SHAPE(M, K));
    mn_tensor *idx = mn_input(g, "i", MN_I32, MN_SHAPE(2));
    mn_tensor *y = mn_stored_product(g, in, 1, &w, true, MN_F32), *dx, *out[3];
    mn_tensor *loss = mn_sum(g, mn_mul(g, y, mn_add_scalar(g, mn_cast(g, mn_iota(g, MN_I32, MN_SHAPE(M, N), 1), MN_F32), 1)), MN_ALL_AXES);
    CHECK_OK(mn_grad(g, 1, &loss, NULL, 1, &in, &dx));
    out[0] = y, out[1] = dx, out[2] = mn_take(g, w, idx, 0);
    CHECK_OK(mn_graph_status(g));
    if (mn_graph_status(g) != MN_OK) exit(test_end());
    mn_plan *p = NULL;
    CHECK_OK(mn_plan_compile(&(mn_plan_request){.graph = g, .n_outputs = 3, .outputs = out, .backend = backend}, &p));
    if (p) {
      mn_plan_bind(p, w, blocks), mn_plan_bind(p, in, x), mn_plan_bind(p, idx, at);
      CHECK_OK(mn_plan_run(p));
    }
    for (int j = 0; j < 3; j++) {
      const size_t bytes = sizeof(float) * (size_t)mn_shape_count(&out[j]->shape);
      got[b][j] = mn_alloc(bytes);
      if (p) memcpy(got[b][j], mn_plan_output(p, j)->data, bytes);
    }
    mn_plan_free(p);
    mn_graph_free(g);
    mn_backend_free(backend);
  }
  double worst[3] = {0};
  for (int b = 0; b < 2; b++) {
    for (int i = 0; i < M * N; i++) {
      double sum = 0;
      for (int64_t k = 0; k < K; k++) sum += (double)x[i / N * K + k] * (double)v[i % N * K + k];
      worst[0] = fmax(worst[0], fabs((double)got[b][0][i] - sum));
    }
    for (int64_t i = 0; i < M * K; i++) {
      double sum = 0;
      for (int n = 0; n < N; n++) sum += (n + 1) * (double)v[n * K + i % K];
      worst[1] = fmax(worst[1], fabs((double)got[b][1][i] - sum));
    }
    for (int64_t i = 0; i < 2 * K; i++) worst[2] = fmax(worst[2], fabs((double)got[b][2][i] - (double)v[at[i / K] * K + i % K]));
  }
  CHECK(worst[0] < 1e-4 && worst[1] < 1e-4 && worst[2] == 0, "%s in plans: %g %g %g", mn_dtype_name(t), worst[0], worst[1], worst[2]);
  for (int b = 0; b < 2; b++)
    for (int j = 0; j < 3; j++) free(got[b][j]);
  free(v);
  free(x);
  free(blocks);
}

/* Values of the outputs of a graph of x [M,K], one after another, with or without the pass that joins products. */
enum { MOST_VALUES = 4096 };
typedef int (*build_fn)(mn_graph *g, mn_tensor *x, mn_tensor *const *w, mn_tensor **out);
static int64_t run_with(build_fn build, int64_t M, int64_t K, unsigned off, double *values) {
  const mn_dtype types[3] = {K % 256 ? MN_Q4_0 : MN_Q4_K, MN_Q8_0, MN_F16};
  const int64_t rows[3] = {24, 40, 8};
  mn_backend *backend = NULL;
  mn_graph *g = mn_graph_new();
  mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(M, K)), *w[3], *out[4];
  void *data[4];
  int64_t n = 0;
  CHECK_OK(mn_backend_open("cpu", 2, &backend));
  for (int i = 0; i < 3; i++) {
    w[i] = mn_variable(g, "w", types[i], MN_SHAPE(rows[i], K));
    data[i] = random_blocks(types[i], rows[i] * K, 20 + (uint64_t)i);
  }
  float *rows_of_x = data[3] = mn_alloc_aligned(sizeof(float) * (size_t)(M * K));
  for (int64_t i = 0; i < M * K; i++) rows_of_x[i] = (float)mn_random_normal(31, 0, (uint64_t)i);
  mn_plan *p = NULL;
  const int outs = build(g, x, w, out);
  CHECK_OK(mn_graph_status(g));
  CHECK_OK(mn_plan_compile(&(mn_plan_request){.graph = g, .n_outputs = outs, .outputs = out, .backend = backend, .passes_off = off}, &p));
  for (int i = 0; p && i < 3; i++) mn_plan_bind(p, w[i], data[i]);
  if (p) mn_plan_bind(p, x, rows_of_x);
  if (p) CHECK_OK(mn_plan_run(p));
  for (int j = 0; p && j < outs; j++)
    for (int64_t i = 0; i < mn_shape_count(&out[j]->shape) && n < MOST_VALUES; i++)
      values[n++] = (double)((const float *)mn_plan_output(p, j)->data)[i];
  mn_plan_free(p);
  mn_graph_free(g);
  mn_backend_free(backend);
  for (int i = 0; i < 4; i++) free(data[i]);
  return n;
}

static int three_products(mn_graph *g, mn_tensor *x, mn_tensor *const *w, mn_tensor **out) {
  for (int i = 0; i < 3; i++) out[i] = mn_stored_product(g, x, 1, &w[i], false, MN_F32);
  out[3] = mn_mul(g, mn_stored_product(g, mn_add_scalar(g, x, 1), 1, &w[0], false, MN_F32), out[0]); /* of other rows */
  return 4;
}
static void siblings(void) {
  double together[MOST_VALUES], apart[MOST_VALUES];
  for (int M = 1; M <= 3; M += 2) {
    const int64_t n = run_with(three_products, M, 256, 0, together), m = run_with(three_products, M, 256, MN_PASS_FUSE, apart);
    CHECK(n == m && n == M * (24 + 40 + 8 + 24) && !memcmp(together, apart, sizeof(double) * (size_t)n), "joined, %d rows", M);
  }
}

static mn_tensor *targets(mn_graph *g, int64_t n) { /* 0 .. n-1 modulo 40, the fifth of no weight and the seventh none */
  int32_t *t = mn_arena_alloc(g->arena, sizeof *t * (size_t)n);
  for (int64_t i = 0; i < n; i++) t[i] = i == 7 ? -1 : (int32_t)(i % 40);
  return mn_const(g, MN_I32, MN_SHAPE(n), t);
}
static int loss_of_blocks(mn_graph *g, mn_tensor *x, mn_tensor *const *w, mn_tensor **out) {
  mn_tensor *loss = mn_linear_cross_entropy(g, x, w[1], targets(g, mn_dim(x, 0)), NULL, &out[1]);
  mn_grad(g, 1, &loss, NULL, 1, &x, &out[2]);
  out[0] = loss;
  return 3;
}
static int loss_of_values(mn_graph *g, mn_tensor *x, mn_tensor *const *w, mn_tensor **out) {
  mn_tensor *loss = mn_linear_cross_entropy(g, x, mn_cast(g, w[1], MN_F32), targets(g, mn_dim(x, 0)), NULL, &out[1]);
  mn_grad(g, 1, &loss, NULL, 1, &x, &out[2]);
  out[0] = loss;
  return 3;
}
static void losses(void) { /* of more rows than have their logits at once */
  double blocks[MOST_VALUES], plain[MOST_VALUES], worst = 0;
  const int64_t n = run_with(loss_of_blocks, 67, 32, 0, blocks), m = run_with(loss_of_values, 67, 32, 0, plain);
  for (int64_t i = 0; i < n; i++) worst = fmax(worst, fabs(blocks[i] - plain[i]) / (1 + fabs(plain[i])));
  CHECK(n == m && n == 1 + 67 + 67 * 32 && worst < 1e-5, "%lld values, off by %g", (long long)n, worst);
}

/* The loss over a head with a cap that is kept so is that over its values; more tokens than are taken at a time, and some that do not count. */
static void losses_with_a_cap(void) {
  enum { N = 150, D = 32, V = 7 };
  void *blocks = random_blocks(MN_Q8_0, V * D, 21);
  float *x = mn_alloc_aligned(sizeof(float) * N * D), *v = mn_alloc_aligned(sizeof(float) * V * D), got[2][N] = {{0}};
  int32_t *target = mn_alloc_aligned(sizeof(int32_t) * N);
  for (int i = 0; i < N * D; i++) x[i] = (float)mn_random_normal(22, 0, (uint64_t)i);
  for (int i = 0; i < N; i++) target[i] = i % 5 == 3 ? -1 : i % V;
  mn_dequantize(MN_Q8_0, blocks, V * D, v);
  for (int kept = 0; kept < 2; kept++) {
    mn_graph *g = mn_graph_new();
    mn_tensor *h = mn_input(g, "h", MN_F32, MN_SHAPE(N, D)), *w = mn_variable(g, "w", kept ? MN_Q8_0 : MN_F32, MN_SHAPE(V, D));
    mn_tensor *t = mn_input(g, "t", MN_I32, MN_SHAPE(N)), *nll = NULL;
    mn_tensor *loss = mn_linear_cross_entropy(g, h, mn_head_capped(g, w, 0.9), t, NULL, &nll), *out[3] = {loss, nll};
    mn_plan *p = NULL;
    CHECK_OK(mn_grad(g, 1, &loss, NULL, 1, &h, &out[2]));
    CHECK_OK(mn_plan_compile(&(mn_plan_request){.graph = g, .n_outputs = 3, .outputs = out, .backend = mn_backend_ref()}, &p));
    if (p) {
      mn_plan_bind(p, w, kept ? blocks : (void *)v), mn_plan_bind(p, h, x), mn_plan_bind(p, t, target);
      CHECK_OK(mn_plan_run(p));
      memcpy(got[kept], mn_plan_output(p, 1)->data, sizeof got[kept]);
    }
    mn_plan_free(p);
    mn_graph_free(g);
  }
  double worst = 0, sum = 0;
  for (int i = 0; i < N; i++) worst = fmax(worst, fabs((double)got[0][i] - (double)got[1][i])), sum += (double)got[1][i];
  CHECK(worst < 1e-5 && sum > 1, "losses differ by %g (of %g)", worst, sum);
  free(blocks), free(x), free(v), free(target);
}

/* A loop whose body multiplies by blocks of outside: what depends on slices alone is one product before it, where the pass is on. */
static int looped(mn_graph *g, mn_tensor *x, mn_tensor *const *w, mn_tensor **out) {
  const int64_t K = mn_dim(x, 1);
  mn_tensor *xs = mn_reshape(g, x, MN_SHAPE(3, 2, K)), *zero = mn_full(g, MN_F32, MN_SHAPE(2, 40), 0), *carry, *slice, *y;
  mn_scan_builder *b = mn_scan_begin(g, 3, MN_FORWARD, 1, &zero, 1, &xs, &carry, &slice);
  mn_graph *body = mn_scan_body(b);
  mn_tensor *of = mn_stored_product(body, slice, 1, &(mn_tensor *){mn_capture(body, w[1])}, true, MN_F32);
  mn_tensor *next = mn_add(body, of, mn_mul_scalar(body, carry, 0.5));
  mn_scan_end(b, &next, 1, &next, &out[0], &y);
  out[1] = y;
  return 2;
}
static void loops(void) {
  double on[MOST_VALUES], off[MOST_VALUES], worst = 0;
  const int64_t n = run_with(looped, 6, 256, 0, on), m = run_with(looped, 6, 256, MN_PASS_LOOPS | MN_PASS_FUSE, off);
  for (int64_t i = 0; i < n; i++) worst = fmax(worst, fabs(on[i] - off[i]));
  CHECK(n == m && n == 80 + 240 && worst < 1e-5, "%lld values, off by %g", (long long)n, worst);
}

/* ---- parameters ---- */
static mn_tensor *two_layers(mn_scope *s, mn_tensor *x) {
  return mn_linear(s, "b", mn_linear(s, "a", x, 32, MN_NO_BIAS, MN_NORMAL(1)), 3, MN_BIAS, MN_NORMAL(1));
}
static void parameters(void) {
  mn_backend *b = mn_backend_ref();
  mn_graph *g = mn_graph_new();
  mn_params *p = NULL;
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32}, 1);
  two_layers(s, mn_input(g, "x", MN_F32, MN_SHAPE(2, 64)));
  CHECK_OK(mn_params_declare_scope(s, b, MN_F32, &p));
  mn_graph_free(g);
  const int a = mn_params_find(p, "a.weight"), bias = mn_params_find(p, "b.bias");
  CHECK(p->info[a].flags & MN_PARAM_STORED && !(p->info[bias].flags & MN_PARAM_STORED), "which parameters may be kept in other types");
  CHECK(mn_params_keep_exact(p) == MN_ERR_CONFIG && strstr(mn_message(), "no matrix of this model is kept in blocks or f16"), "%s",
        mn_message());
  CHECK(mn_params_store(p, a, MN_Q4_K) == MN_ERR_SHAPE && strstr(mn_message(), "a.weight is [32, 64] and cannot be kept as q4_k"), "%s",
        mn_message());
  CHECK_OK(mn_params_store(p, a, MN_Q8_0));
  CHECK_OK(mn_params_keep_exact(p));
  CHECK(mn_params_bytes(p, a) == 32 * 64 / 32 * 34, "%zu bytes", mn_params_bytes(p, a));
  CHECK(mn_params_draw(p, 1) == MN_ERR_ARG && strstr(mn_message(), "a.weight is kept as q8_0") && strstr(mn_message(), "never drawn"), "%s",
        mn_message());
  for (int i = 0; i < p->n; i++) {
    CHECK_OK(mn_params_need(p, i));
    memset(p->data[i], 0, mn_params_bytes(p, i));
  }
  CHECK(mn_params_store(p, bias, MN_F16) == MN_ERR_ARG, "a value has a type");
  void *blocks = random_blocks(MN_Q8_0, 32 * 64, 3);
  memcpy(p->data[a], blocks, mn_params_bytes(p, a));
  CHECK_OK(mn_params_check_finite(p));
  ((mn_q8_0 *)p->data[a])[5].d = 0x7C00;
  CHECK(mn_params_check_finite(p) == MN_ERR_NUMERIC && strstr(mn_message(), "element 160 is of a block with a scale that is no number"),
        "%s", mn_message());
  CHECK(mn_params_save(p, "stored.safetensors") == MN_ERR_UNSUPPORTED && strstr(mn_message(), "'a.weight' is kept in blocks (q8_0)") &&
            strstr(mn_message(), "GGUF"),
        "%s", mn_message());
  /* a build that is told reads it so, one that is not is refused when it is bound */
  for (int told = 0; told < 2; told++) {
    g = mn_graph_new();
    const mn_build how = {.param = MN_F32, .compute = MN_F32, .types = told ? mn_params_types(p) : (mn_param_types){0}};
    s = mn_scope_new(g, how, 1);
    mn_tensor *y = two_layers(s, mn_input(g, "x", MN_F32, MN_SHAPE(2, 64)));
    mn_plan *plan = NULL;
    CHECK_OK(mn_plan_compile(&(mn_plan_request){.graph = g, .n_outputs = 1, .outputs = &y, .backend = b}, &plan));
    const mn_status status = mn_params_bind(p, s, plan);
    CHECK(status == (told ? MN_OK : MN_ERR_ARG), "told %d: %s", told, mn_message());
    mn_plan_free(plan);
    mn_graph_free(g);
  }
  free(blocks);
  mn_params_free(p);
}

int main(void) {
  isa = last_tested_isa();
  for (mn_dtype t = MN_F16; t < MN_ALL_TYPES; t++) {
    values(t);
    products(t);
    plans(t);
    no_numbers(t);
    if (mn_block_values(t) > 1) cut_anywhere(t);
  }
  as_ggml_rounds();
  losses_with_a_cap();
  nothing(2);
  nothing(20);
  for (int64_t M = 1; M < 14; M += 3) no_values(M);
  refusals();
  siblings();
  losses();
  loops();
  parameters();
  return test_end();
}
