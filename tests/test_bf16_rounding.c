/* test_bf16_rounding.c - rounding to bf16 is one function, whoever does it: a constant of a graph, the reference, the vector kernels at any
 * width, a file that is read. To nearest, ties to even; infinity where it overflows; a NaN stays a NaN, quiet, of the same sign, even
 * one whose payload lies in the bits that go. And no kernel that writes bf16 turns a NaN into a number. */
#include "base/bf16.h"
#include "base/file.h"
#include "format/safetensors.h"
#include "gradcheck.h"
#include "graph/fused_attention.h"
#include "graph/fused_conv.h"
#include "graph/fused_masked_product.h"
#include "graph/fused_norm.h"
#include "graph/fused_rope.h"
#include "graph/fused_softmax.h"
#include "graph/ops.h"
#include "scratch.h"

static const struct {
  uint32_t f32;
  uint16_t bf16;
} table[] = {
    {0x7F800001, 0x7FC0}, {0xFF800001, 0xFFC0}, /* NaN: the upper half alone would be infinite     */
    {0x7FBFFFFF, 0x7FFF}, {0xFFBFFFFF, 0xFFFF}, {0x7FFFFFFF, 0x7FFF}, {0xFFFFFFFF, 0xFFFF}, /* ... and + 0x7FFF would wrap to zero */
    {0x7FC00000, 0x7FC0}, {0xFFC12345, 0xFFC1}, {0x7F800000, 0x7F80}, {0xFF800000, 0xFF80}, {0x7F7FFFFF, 0x7F80}, {0xFF7F8000, 0xFF80},
    {0x7F7F7FFF, 0x7F7F}, /* too large for a finite one */
    {0x3F800000, 0x3F80}, {0x3F808000, 0x3F80}, {0x3F818000, 0x3F82}, {0x3F808001, 0x3F81}, {0x3F807FFF, 0x3F80}, {0xBF818000, 0xBF82},
    {0x00000000, 0x0000}, {0x80000000, 0x8000}, {0x00800000, 0x0080}, {0x00808000, 0x0080}, {0x00000001, 0x0000}, {0x80000001, 0x8000},
    {0x00008000, 0x0000}, {0x00008001, 0x0001}, {0x00018000, 0x0002}, {0x00400000, 0x0040}, {0x80400001, 0x8040}, {0x007F7FFF, 0x007F},
    {0x007F8000, 0x0080}, {0x807FFFFF, 0x8080}}; /* below the normal numbers */
enum { N = sizeof table / sizeof *table };

static float float_of(uint32_t bits) {
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

static void one_function(void) {
  for (int i = 0; i < N; i++) {
    CHECK(mn_float_to_bf16(float_of(table[i].f32)) == table[i].bf16, "%08x gives %04x", table[i].f32,
          mn_float_to_bf16(float_of(table[i].f32)));
    CHECK(mn_double_to_bf16((double)float_of(table[i].f32)) == table[i].bf16, "%08x as a double gives %04x", table[i].f32,
          mn_double_to_bf16((double)float_of(table[i].f32)));
  }
  CHECK(mn_double_to_bf16(1 + 0x1p-8 + 0x1p-40) == 0x3F81, "a double just above a tie is rounded once");
}

static void constants_of_a_graph(void) {
  for (int i = 0; i < N; i++) {
    mn_graph *g = mn_graph_new();
    mn_tensor *c = mn_scalar(g, MN_BF16, (double)float_of(table[i].f32));
    const uint16_t made = *(const uint16_t *)((const mn_const_attr *)c->node->attr)->data;
    CHECK(made == table[i].bf16, "%08x gives %04x", table[i].f32, made);
    mn_graph_free(g);
  }
}

/* Runs y over one leaf x bound to `data`; the result's bytes to out. */
static bool run(mn_graph *g, mn_backend *b, mn_tensor *x, void *data, mn_tensor *y, unsigned off, void *out) {
  mn_plan *p = NULL;
  mn_plan_request q = {.graph = g, .n_outputs = 1, .outputs = &y, .backend = b, .passes_off = off};
  mn_status status = mn_plan_compile(&q, &p);
  if (status == MN_OK) {
    mn_plan_bind(p, x, data);
    status = mn_plan_run(p);
  }
  if (status == MN_OK) memcpy(out, mn_plan_output(p, 0)->data, (size_t)mn_shape_count(&y->shape) * mn_dtype_size(y->dtype));
  mn_plan_free(p);
  CHECK_OK(status);
  return status == MN_OK;
}

/* A cast alone, fused with another operation, copied from a strided view, and a sum over an axis of one. */
static mn_tensor *casts(mn_graph *g, mn_tensor *x, int way) { /* x [n] */
  const int64_t n = mn_dim(x, 0);
  switch (way) {
  case 0:
    return mn_cast(g, x, MN_BF16);
  case 1:
    return mn_cast(g, mn_neg(g, mn_neg(g, mn_identity(g, x))), MN_BF16);
  case 2:
    return mn_cast(g, mn_copy(g, mn_expand(g, mn_unsqueeze(g, x, 1), MN_SHAPE(n, 3))), MN_BF16);
  default:
    return mn_reshape(g, mn_sum(g, mn_cast(g, mn_unsqueeze(g, x, 1), MN_BF16), 2), MN_SHAPE(n));
  }
}

static mn_backend *cpu;

static void every_backend_at_every_width(void) {
  mn_backend *backends[] = {mn_backend_ref(), cpu};
  for (int b = 0; b < 2; b++)
    for (int way = 0; way < 4; way++)
      for (int n = 1; n <= 80; n += n < 40 ? 1 : 20)
        for (int first = 0; first < (n < N ? N : 1); first += n < N ? 7 : 1) {
          float x[80];
          uint16_t y[240];
          mn_graph *g = mn_graph_new();
          mn_tensor *in = mn_input(g, "x", MN_F32, MN_SHAPE(n)), *out = casts(g, in, way);
          for (int i = 0; i < n; i++) memcpy(&x[i], &table[(first + i) % N].f32, 4);
          const int step = way == 2 ? 3 : 1;
          bool ok = run(g, backends[b], in, x, out, way ? MN_PASS_SIMPLIFY : 0, y);
          int wrong = -1;
          for (int i = 0; ok && i < step * n; i++)
            if (y[i] != table[(first + i / step) % N].bf16) wrong = i;
          CHECK(wrong < 0, "backend %d, way %d, %d elements: %08x gives %04x", b, way, n, table[(first + wrong / step) % N].f32,
                y[wrong < 0 ? 0 : wrong]);
          mn_graph_free(g);
        }
}

static void a_file_that_is_read(void) {
  uint32_t bits[N];
  uint16_t y[N];
  for (int i = 0; i < N; i++) bits[i] = table[i].f32;
  static const char path[] = "x.safetensors";
  mn_st_writer *w = mn_st_writer_new();
  const mn_shape shape = MN_SHAPE(N);
  CHECK_OK(mn_st_writer_add(w, "x", MN_F32, &shape, bits));
  CHECK_OK(mn_st_writer_save(w, path));
  mn_st_writer_free(w);
  mn_st *st = NULL;
  CHECK_OK(mn_st_open(path, &st));
  CHECK_OK(mn_st_read(st, mn_st_find(st, "x"), MN_BF16, y));
  for (int i = 0; i < N; i++) CHECK(y[i] == table[i].bf16, "%08x gives %04x", table[i].f32, y[i]);
  mn_st_close(st);
}

/* ---- NaN in, NaN out ---- */
static mn_tensor *writers(mn_graph *g, mn_tensor *x, int k) { /* x bf16 [2, 8, 4, 8] */
  mn_tensor *m = mn_reshape(g, x, MN_SHAPE(64, 8)), *zero = mn_scalar(g, MN_F32, 0);
  switch (k) {
  case 0:
    return mn_norm(g, MN_NORM_RMS, m, NULL, NULL, 1e-6, MN_BF16);
  case 1:
    return mn_softmax(g, m);
  case 2:
    return mn_matmul(g, m, mn_transpose(g, m, 0, 1));
  case 3:
    return mn_rope(g, x, mn_full(g, MN_F32, MN_SHAPE(8, 4), 1), mn_full(g, MN_F32, MN_SHAPE(8, 4), 0.5), MN_ROPE_HALVES);
  case 4:
    return mn_attention(g, x, x, x, NULL, NULL, NULL, (mn_attention_attr){.scale = 1, .causal = true}, NULL);
  case 5:
    return mn_causal_conv(g, mn_reshape(g, x, MN_SHAPE(2, 32, 8)), mn_full(g, MN_F32, MN_SHAPE(8, 3), 1), NULL, NULL);
  case 6:
    return mn_sum(g, m, 2);
  case 7:
    return mn_cumsum(g, m, 0, MN_FORWARD);
  case 8:
    return mn_masked_product(g, m, m, mn_matmul(g, m, mn_transpose(g, m, 0, 1)), m);
  case 9:
    return mn_concat(g, 2, (mn_tensor *[]){m, m}, 1);
  default:
    return mn_cast(g, mn_add(g, mn_cast(g, m, MN_F32), mn_expand(g, zero, MN_SHAPE(64, 8))), MN_BF16);
  }
}

static void no_kernel_makes_a_number_of_a_nan(void) {
  static const uint16_t nan[] = {0x7F81, 0xFF81, 0x7FFF, 0xFFFF, 0x7FC0};
  static uint16_t x[512], y[8192];
  for (int k = 0; k <= 10; k++) {
    for (int i = 0; i < 512; i++) x[i] = nan[i % 5];
    mn_graph *g = mn_graph_new();
    mn_tensor *in = mn_input(g, "x", MN_BF16, MN_SHAPE(2, 8, 4, 8)), *out = writers(g, in, k);
    CHECK_OK(mn_graph_status(g));
    if (out && run(g, cpu, in, x, out, 0, y)) {
      int64_t numbers = 0;
      for (int64_t i = 0; i < mn_shape_count(&out->shape); i++) numbers += (y[i] & 0x7FFF) <= 0x7F80;
      CHECK(out->dtype == MN_BF16 && numbers == 0, "operation %d: %lld of %lld are numbers", k, (long long)numbers,
            (long long)mn_shape_count(&out->shape));
    }
    mn_graph_free(g);
  }
}

int main(void) {
  if (mn_backend_cpu_new(1, &cpu) != MN_OK) return 1;
  RUN(one_function);
  RUN(constants_of_a_graph);
  RUN(every_backend_at_every_width);
  RUN(a_file_that_is_read);
  RUN(no_kernel_makes_a_number_of_a_nan);
  mn_backend_free(cpu);
  return test_end();
}
