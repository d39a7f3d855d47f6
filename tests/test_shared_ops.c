/* What must be true of operations that systems share, beside those of test_graph.c: windows (convolution, pooling), order and groups,
 * the two-level softmax. Each agrees with loops written from its definition, its gradients with central differences in float64, its CPU
 * kernels with its composition, to the same bits for any number of threads. */
#include "backend/cpu/cpu.h"
#include "gradcheck.h"
#include "graph/fused_attention.h"
#include "graph/gather.h"
#include "graph/orthogonal.h"
#include "graph/window.h"

#define SHAPE(...)                                                                                                                         \
  {                                                                                                                                        \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), { __VA_ARGS__ }                                                             \
  }
#define F64(lo, hi, ...)                                                                                                                   \
  { MN_F64, SHAPE(__VA_ARGS__), lo, hi, false }
#define I32(lo, hi, ...)                                                                                                                   \
  { MN_I32, SHAPE(__VA_ARGS__), lo, hi, true }

static const mn_window conv_window = {.stride = {2, 1}, .dilation = {1, 2}, .before = {1, 2}, .after = {2, 1}};
static const mn_window pool_window = {.size = {3, 2}, .stride = {2, 3}, .before = {1, 1}, .after = {1, 0}};

static void f_conv2d(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_conv2d(g, x[0], x[1], x[2], conv_window); }
static void f_conv1d(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  y[0] = mn_conv1d(g, x[0], x[1], x[2], (mn_window){.stride = {3}, .before = {2}, .after = {1}});
}
static void f_side_by_side(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  y[0] = mn_conv2d(g, x[0], x[1], NULL, (mn_window){.stride = {2, 3}});
}
static void f_max_pool(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_max_pool(g, x[0], pool_window); }
static void f_mean_pool(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_mean_pool(g, x[0], pool_window); }
static void f_pool_series(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  y[0] = mn_max_pool(g, x[0], (mn_window){.size = {3}, .stride = {2}});
  y[1] = mn_mean_pool(g, x[0], (mn_window){.size = {3}, .stride = {2}});
}
static void f_sort(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  y[0] = mn_sort(g, x[0], false, NULL);
  y[1] = mn_sort(g, mn_square(g, x[0]), true, NULL);
}
static void f_cummax(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  y[0] = mn_cummax(g, x[0], 1, NULL);
  y[1] = mn_cummax(g, mn_square(g, x[0]), -1, NULL);
}
static void f_segment(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_segment_sum(g, mn_square(g, x[0]), x[1], 4, 1); }
static void f_bag(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_bag(g, x[0], x[1], x[2]); }
static void f_gated(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_gated_attention(g, x[0], x[1], x[2], 0.6, 4, 3); }

/* Scores by distance: q, k, v, a table [H,N], and what places queries and keys. */
static mn_tensor *attend(mn_graph *g, mn_attention_io io, mn_attention_attr a) {
  a.scale = 0.6;
  mn_attend(g, &io, a);
  return io.o;
}
static void f_distance(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  y[0] = attend(g, (mn_attention_io){x[0], x[1], x[2], .by_distance = x[3]}, (mn_attention_attr){.causal = true, .q_start = 3});
}
static void f_distance_both_sides(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  y[0] = attend(g, (mn_attention_io){x[0], x[1], x[2], .by_distance = x[3]}, (mn_attention_attr){.distance_zero = 4, .prefix = 2});
}
static void f_distance_anywhere(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  y[0] = attend(g, (mn_attention_io){x[0], x[1], x[2], .by_distance = x[3], .q_pos = x[4], .k_pos = x[5]},
                (mn_attention_attr){.distance_zero = 7});
}
static void f_distance_in_ring(mn_graph *g, mn_tensor **x, mn_tensor **y) { /* queries behind what is written */
  y[0] = attend(g, (mn_attention_io){x[0], x[1], x[2], .by_distance = x[3], .q_pos = x[4], .length = x[4]},
                (mn_attention_attr){.causal = true, .ring = true, .window = 20, .sinks = 2});
}
/* Blocks of 16 and 6 keys, a whole tile, and more than a kernel does at once. */
static void f_gated_16(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_gated_attention(g, x[0], x[1], x[2], 0.6, 16, 20); }
static void f_gated_6(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_gated_attention(g, x[0], x[1], x[2], 0.6, 6, 0); }
static void f_gated_64(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_gated_attention(g, x[0], x[1], x[2], 0.6, 64, 40); }
static void f_gated_96(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_gated_attention(g, x[0], x[1], x[2], 0.6, 96, 0); }

static void f_orthogonal(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_orthogonal(g, x[0], 5); }
static void f_orthogonal_7(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_orthogonal(g, x[0], 7); }

static const gc_case cases[] = {
    {"conv2d", 3, 1, {F64(-1, 1, 2, 7, 6, 3), F64(-1, 1, 4, 3, 2, 3), F64(-1, 1, 4)}, f_conv2d},
    {"conv1d", 3, 1, {F64(-1, 1, 2, 11, 3), F64(-1, 1, 4, 5, 3), F64(-1, 1, 4)}, f_conv1d},
    {"conv2d_side_by_side", 2, 1, {F64(-1, 1, 2, 6, 9, 2), F64(-1, 1, 3, 2, 3, 2)}, f_side_by_side},
    {"max_pool", 1, 1, {F64(-1, 1, 2, 7, 9, 3)}, f_max_pool},
    {"mean_pool", 1, 1, {F64(-1, 1, 2, 7, 9, 3)}, f_mean_pool},
    {"pool_series", 1, 2, {F64(-1, 1, 2, 9, 3)}, f_pool_series},
    {"sort", 1, 2, {F64(-1, 1, 3, 9)}, f_sort},
    {"cummax", 1, 2, {F64(-1, 1, 2, 9, 7)}, f_cummax},
    {"segment_sum", 2, 1, {F64(-1, 1, 2, 9, 3), I32(-1, 4, 2, 9)}, f_segment},
    {"bag", 3, 1, {F64(-1, 1, 8, 5), I32(-1, 8, 2, 3, 4), F64(-1, 1, 2, 3, 4)}, f_bag},
    {"orthogonal", 1, 1, {F64(-1, 1, 2, 2, 3, 4)}, f_orthogonal},
    {"orthogonal_tall", 1, 1, {F64(-1, 1, 5, 2)}, f_orthogonal},
    {"orthogonal_wide", 1, 1, {F64(-1, 1, 2, 3, 9)}, f_orthogonal_7},
    {"gated_attention", 3, 1, {F64(-2, 2, 2, 6, 4, 3), F64(-2, 2, 2, 12, 2, 3), F64(-1, 1, 2, 12, 2, 5)}, f_gated},
    {"attention_by_distance", 4, 1, {F64(-2, 2, 2, 6, 4, 3), F64(-2, 2, 2, 9, 2, 3), F64(-1, 1, 2, 9, 2, 5), F64(-1, 1, 4, 5)}, f_distance},
    {"attention_by_distance_both_sides",
     4,
     1,
     {F64(-2, 2, 1, 6, 2, 3), F64(-2, 2, 1, 7, 2, 3), F64(-1, 1, 1, 7, 2, 5), F64(-1, 1, 2, 8)},
     f_distance_both_sides},
};
enum { CASES = sizeof cases / sizeof *cases };
/* Several blocks, tiles and tasks: for kernels. */
static const gc_case larger[] = {
    {"orthogonal in blocks", 1, 1, {F64(-1, 1, 130, 300)}, f_orthogonal},
    {"bag of many rows", 3, 1, {F64(-1, 1, 5000, 7), I32(-1, 5000, 3, 50, 9), F64(-1, 1, 3, 50, 9)}, f_bag},
    {"bag of a few rows, again and again", 3, 1, {F64(-1, 1, 3, 40), I32(-1, 4, 400, 5), F64(-1, 1, 400, 5)}, f_bag},
    {"gated, 16", 3, 1, {F64(-2, 2, 2, 70, 4, 16), F64(-2, 2, 2, 96, 2, 16), F64(-1, 1, 2, 96, 2, 20)}, f_gated_16},
    {"gated, 16, one query", 3, 1, {F64(-2, 2, 2, 1, 4, 16), F64(-2, 2, 2, 48, 2, 16), F64(-1, 1, 2, 48, 2, 20)}, f_gated_16},
    {"gated, 6", 3, 1, {F64(-2, 2, 1, 96, 4, 5), F64(-2, 2, 1, 96, 4, 5), F64(-1, 1, 1, 96, 4, 3)}, f_gated_6},
    {"gated, 64", 3, 1, {F64(-2, 2, 1, 150, 2, 16), F64(-2, 2, 1, 192, 1, 16), F64(-1, 1, 1, 192, 1, 16)}, f_gated_64},
    {"gated, 96", 3, 1, {F64(-2, 2, 1, 150, 2, 16), F64(-2, 2, 1, 192, 1, 16), F64(-1, 1, 1, 192, 1, 16)}, f_gated_96},
    {"by distance", 4, 1, {F64(-2, 2, 2, 150, 4, 16), F64(-2, 2, 2, 153, 2, 16), F64(-1, 1, 2, 153, 2, 20), F64(-3, 3, 4, 40)}, f_distance},
    {"by distance, both sides",
     4,
     1,
     {F64(-2, 2, 2, 75, 4, 16), F64(-2, 2, 2, 70, 2, 16), F64(-1, 1, 2, 70, 2, 20), F64(-3, 3, 4, 9)},
     f_distance_both_sides},
    {"by distance, anywhere",
     6,
     1,
     {F64(-2, 2, 2, 75, 4, 16), F64(-2, 2, 2, 70, 2, 16), F64(-1, 1, 2, 70, 2, 20), F64(-3, 3, 4, 30), I32(0, 40, 2, 75),
      I32(-1, 40, 2, 70)},
     f_distance_anywhere},
    {"by distance, in a ring",
     5,
     1,
     {F64(-2, 2, 3, 9, 4, 16), F64(-2, 2, 3, 24, 2, 16), F64(-1, 1, 3, 24, 2, 20), F64(-3, 3, 4, 30), I32(0, 90, 3)},
     f_distance_in_ring},
    {"by distance, in a ring, one query",
     5,
     1,
     {F64(-2, 2, 3, 1, 4, 16), F64(-2, 2, 3, 24, 2, 16), F64(-1, 1, 3, 24, 2, 20), F64(-3, 3, 4, 30), I32(0, 90, 3)},
     f_distance_in_ring},
};
enum { LARGER = sizeof larger / sizeof *larger };

static void gradients_agree_with_differences(void) {
  for (int i = 0; i < CASES; i++) {
    double e = gc_gradient_error(&cases[i], 1, 3);
    CHECK(e <= 1e-6, "%s: %g", cases[i].name, e);
  }
}
static void gradients_can_be_differentiated(void) {
  for (int i = 0; i < CASES; i++) {
    if (!strstr("conv2d conv1d bag gated_attention segment_sum attention_by_distance", cases[i].name))
      continue; /* the others are pieces of lines */
    double e = gc_gradient_error(&cases[i], 2, 4);
    CHECK(e <= 1e-6, "%s: %g", cases[i].name, e);
  }
}

/* Values and gradients of a case in f32 (f64: as it is); how many, 0 on failure. */
static int run(const gc_case *c, mn_backend *b, mn_dtype type, double **out, int64_t *count) {
  mn_graph *g = mn_graph_new();
  mn_tensor *x[GC_MAX], *wrt[GC_MAX], *all[GC_MAX], *dys[GC_MAX];
  double *value[GC_MAX];
  int n_wrt = 0;
  for (int i = 0; i < c->n_x; i++) {
    const bool real = c->x[i].dtype == MN_F64;
    x[i] = mn_input(g, c->name, real ? type : c->x[i].dtype, c->x[i].shape);
    value[i] = malloc((size_t)mn_shape_count(&c->x[i].shape) * sizeof(double));
    gc_fill(value[i], &c->x[i], 8, i);
    if (real) wrt[n_wrt++] = x[i];
  }
  c->f(g, x, all);
  for (int j = 0; j < c->n_y; j++)
    dys[j] = all[j] ? mn_sin(g, mn_cast(g, mn_iota(g, MN_I32, all[j]->shape, all[j]->shape.ndim - 1), type)) : NULL;
  int n = 0;
  if (mn_grad(g, c->n_y, all, dys, n_wrt, wrt, all + c->n_y) == MN_OK &&
      gc_run(g, b, 0, MN_KEEP, c->n_x, x, value, c->n_y + n_wrt, all, out)) {
    n = c->n_y + n_wrt;
    for (int j = 0; j < n; j++) count[j] = mn_shape_count(&all[j]->shape);
  } else printf("  %s: %s\n", c->name, mn_message());
  for (int i = 0; i < c->n_x; i++) free(value[i]);
  mn_graph_free(g);
  return n;
}

static void kernel_agrees(const gc_case *x, double most, mn_backend *one, mn_backend *three) {
  double *a[GC_MAX] = {NULL}, *b[GC_MAX] = {NULL}, *c[GC_MAX] = {NULL};
  int64_t count[GC_MAX];
  int n = run(x, mn_backend_ref(), MN_F32, a, count), m = run(x, one, MN_F32, b, count), k = run(x, three, MN_F32, c, count);
  CHECK(n > 0 && n == m && n == k, "%s", x->name);
  for (int j = 0; j < n && n == m && n == k; j++) {
    CHECK(gc_difference(a[j], b[j], count[j]) < most, "%s, output %d: %g", x->name, j, gc_difference(a[j], b[j], count[j]));
    CHECK(!memcmp(b[j], c[j], (size_t)count[j] * sizeof(double)), "%s, output %d: other bits with three threads", x->name, j);
  }
  for (int j = 0; j < GC_MAX; j++) free(a[j]), free(b[j]), free(c[j]);
}
static void kernels_agree_with_compositions(void) {
  mn_backend *one = NULL, *three = NULL;
  CHECK_OK(mn_backend_cpu_new(1, &one));
  CHECK_OK(mn_backend_cpu_new(3, &three));
  const double orthogonal = 3e-5; /* small singular values grow by 3.4 a step, rounding too */
  for (int i = 0; i < CASES; i++) kernel_agrees(&cases[i], strstr(cases[i].name, "orthogonal") ? orthogonal : 2e-6, one, three);
  for (int i = 0; i < LARGER; i++) kernel_agrees(&larger[i], strstr(larger[i].name, "orthogonal") ? orthogonal : 1e-5, one, three);
  mn_backend_free(one), mn_backend_free(three);
}

/* Sums are made as in f32 and rounded once. */
static void patches_come_back_in_bf16(void) {
  enum { B = 2, H = 7, W = 6, C = 3 };
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(2, &cpu));
  mn_graph *g = mn_graph_new();
  mn_tensor *at = mn_iota(g, MN_F32, MN_SHAPE(B, 4, 6, 3 * 3 * C), 3), *row = mn_iota(g, MN_F32, at->shape, 2);
  mn_tensor *y = mn_cast(g, mn_sin(g, mn_add(g, at, mn_mul_scalar(g, row, 2.3))), MN_BF16);
  const mn_window w = {.size = {3, 3}, .stride = {2, 1}, .before = {1, 1}, .after = {1, 1}};
  mn_tensor *narrow = mn_cast(g, mn_unpatch(g, y, w, H, W), MN_F64);
  mn_tensor *wide = mn_cast(g, mn_cast(g, mn_unpatch(g, mn_cast(g, y, MN_F32), w, H, W), MN_BF16), MN_F64), *both[2] = {narrow, wide};
  double *out[2] = {NULL};
  CHECK(gc_run(g, cpu, 0, MN_KEEP, 0, NULL, NULL, 2, both, out), "%s", mn_message());
  double most = 0;
  for (int i = 0; i < B * H * W * C && out[0] && out[1]; i++) {
    most = fmax(most, fabs(out[0][i]));
    CHECK(out[0][i] == out[1][i], "element %d: %g and %g", i, out[0][i], out[1][i]);
  }
  CHECK(most > 0.5, "%g", most);
  free(out[0]), free(out[1]);
  mn_graph_free(g);
  mn_backend_free(cpu);
}

/* Forward and backward take memory in proportion to T: a matrix of scores [H,T,S] alone would be more. */
static void no_scores_in_memory(void) {
  enum { T = 1024, H = 4, K = 16 };
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  for (int gated = 0; gated < 2; gated++) {
    mn_graph *g = mn_graph_new();
    mn_tensor *x[4], *y, *d[4];
    for (int i = 0; i < 3; i++) x[i] = mn_input(g, "x", MN_F32, MN_SHAPE(1, T, H, K));
    x[3] = mn_input(g, "table", MN_F32, MN_SHAPE(H, 300));
    if (gated) f_gated_16(g, x, &y);
    else f_distance(g, x, &y);
    CHECK_OK(mn_grad(g, 1, &y, NULL, gated ? 3 : 4, x, d));
    mn_plan *plan = NULL;
    mn_plan_request q = {.graph = g, .n_outputs = gated ? 3 : 4, .outputs = d, .backend = cpu};
    CHECK_OK(mn_plan_compile(&q, &plan));
    if (plan)
      CHECK(mn_plan_get_report(plan)->bytes_planned < sizeof(float) * H * T * T / 4, "%zu bytes", mn_plan_get_report(plan)->bytes_planned);
    mn_plan_free(plan);
    mn_graph_free(g);
  }
  mn_backend_free(cpu);
}

/* ---- by definition ---- */
typedef struct values { /* the case `name` in float64: its inputs and first value */
  double *x[3], *y;
  int64_t n;
} values;
static values values_of(const char *name) {
  values v = {0};
  for (int i = 0; i < CASES; i++) {
    if (strcmp(cases[i].name, name) != 0) continue;
    double *out[GC_MAX] = {NULL};
    int64_t count[GC_MAX];
    for (int k = 0; k < cases[i].n_x; k++) {
      v.x[k] = malloc((size_t)mn_shape_count(&cases[i].x[k].shape) * sizeof(double));
      gc_fill(v.x[k], &cases[i].x[k], 8, k);
    }
    CHECK(run(&cases[i], mn_backend_ref(), MN_F64, out, count) > 0, "%s", name);
    v.y = out[0], v.n = count[0];
    for (int k = 1; k < GC_MAX; k++) free(out[k]);
  }
  return v;
}
static void check_values(const char *name, values *v, double *want, int64_t n) {
  CHECK(v->y && v->n == n && gc_difference(v->y, want, n) < 1e-12, "%s: %lld values, %g", name, (long long)v->n,
        v->y && v->n == n ? gc_difference(v->y, want, n) : INFINITY);
  free(v->y), free(want);
  for (int i = 0; i < 3; i++) free(v->x[i]);
}

static void convolution_by_definition(void) {
  enum { B = 2, H = 7, W = 6, C = 3, O = 4, OH = 4, OW = 7 };
  values v = values_of("conv2d");
  double *want = calloc(B * OH * OW * O, sizeof *want), *to = want;
  for (int b = 0; b < B; b++)
    for (int i = 0; i < OH; i++)
      for (int j = 0; j < OW; j++)
        for (int o = 0; o < O; o++, to++) {
          *to = v.x[2][o];
          for (int r = 0; r < 3; r++)
            for (int s = 0; s < 2; s++) {
              const int h = 2 * i - 1 + r, w = j - 2 + 2 * s;
              for (int c = 0; c < C && h >= 0 && h < H && w >= 0 && w < W; c++)
                *to += v.x[0][((b * H + h) * W + w) * C + c] * v.x[1][((o * 3 + r) * 2 + s) * C + c];
            }
        }
  check_values("conv2d", &v, want, B * OH * OW * O);
}

static void pooling_by_definition(void) {
  enum { B = 2, H = 7, W = 9, C = 3, OH = 4, OW = 3 };
  for (int mean = 0; mean < 2; mean++) {
    values v = values_of(mean ? "mean_pool" : "max_pool");
    double *want = calloc(B * OH * OW * C, sizeof *want), *to = want;
    for (int b = 0; b < B; b++)
      for (int i = 0; i < OH; i++)
        for (int j = 0; j < OW; j++)
          for (int c = 0; c < C; c++, to++) {
            double top = -INFINITY, sum = 0, n = 0;
            for (int h = 2 * i - 1; h < 2 * i + 2; h++)
              for (int w = 3 * j - 1; w < 3 * j + 1; w++) {
                if (h < 0 || h >= H || w < 0 || w >= W) continue;
                const double x = v.x[0][((b * H + h) * W + w) * C + c];
                top = fmax(top, x), sum += x, n++;
              }
            *to = mean ? sum / n : top;
          }
    check_values(mean ? "mean_pool" : "max_pool", &v, want, B * OH * OW * C);
  }
}

static void equals_keep_their_order(void) {
  static const float x[2][8] = {{3, 1, 3, -2, 1, 1, 7, -2}, {0, 0, 0, 0, 0, 0, 0, 0}};
  static const int32_t rising[2][8] = {{3, 7, 1, 4, 5, 0, 2, 6}, {0, 1, 2, 3, 4, 5, 6, 7}},
                       falling[2][8] = {{6, 0, 2, 1, 4, 5, 3, 7}, {0, 1, 2, 3, 4, 5, 6, 7}};
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(2, &cpu));
  for (int on_cpu = 0; on_cpu < 2; on_cpu++) {
    mn_graph *g = mn_graph_new();
    mn_tensor *at[3], *in = mn_const(g, MN_F32, MN_SHAPE(2, 8), x), *sorted = mn_sort(g, in, false, &at[0]);
    mn_sort(g, in, true, &at[1]);
    mn_cummax(g, in, 1, &at[2]);
    mn_tensor *y[4] = {at[0], at[1], at[2], sorted};
    double *out[4];
    static const int32_t first[2][8] = {{0, 0, 0, 0, 0, 0, 6, 6}, {0}};
    CHECK(gc_run(g, on_cpu ? cpu : mn_backend_ref(), 0, MN_KEEP, 0, NULL, NULL, 4, y, out), "run");
    for (int i = 0; i < 16 && out[0]; i++) {
      CHECK((int32_t)out[0][i] == rising[i / 8][i % 8] && (int32_t)out[1][i] == falling[i / 8][i % 8], "element %d comes from %g and %g", i,
            out[0][i], out[1][i]);
      CHECK((int32_t)out[2][i] == first[i / 8][i % 8], "the first maximum up to %d is at %g", i, out[2][i]);
      CHECK(out[3][i] == (double)x[i / 8][rising[i / 8][i % 8]], "value %d", i);
    }
    for (int i = 0; i < 4; i++) free(out[i]);
    mn_graph_free(g);
  }
  mn_backend_free(cpu);
}

static void bags_and_segments_by_definition(void) {
  values v = values_of("bag");
  double *want = calloc(2 * 3 * 5, sizeof *want);
  for (int r = 0; r < 6; r++)
    for (int k = 0; k < 4; k++) {
      const int at = (int)v.x[1][r * 4 + k];
      for (int d = 0; d < 5 && at >= 0 && at < 8; d++) want[r * 5 + d] += v.x[2][r * 4 + k] * v.x[0][at * 5 + d];
    }
  check_values("bag", &v, want, 2 * 3 * 5);
  v = values_of("segment_sum");
  want = calloc(2 * 4 * 3, sizeof *want);
  for (int b = 0; b < 2; b++)
    for (int s = 0; s < 9; s++) {
      const int at = (int)v.x[1][b * 9 + s];
      for (int d = 0; d < 3 && at >= 0 && at < 4; d++) want[(b * 4 + at) * 3 + d] += pow(v.x[0][(b * 9 + s) * 3 + d], 2);
    }
  check_values("segment_sum", &v, want, 2 * 4 * 3);
}

/* Landmark Attention: local tokens and the gates before them in one softmax; a gate's share goes to its block's tokens. */
static void two_level_softmax_by_definition(void) {
  enum { B = 2, T = 6, H = 4, K = 3, S = 12, G = 2, V = 5, BLOCK = 4, START = 3 };
  values v = values_of("gated_attention");
  double *want = calloc(B * T * H * V, sizeof *want);
  for (int b = 0; b < B; b++)
    for (int i = 0; i < T; i++)
      for (int h = 0; h < H; h++) {
        const int t = START + i, own = t / BLOCK;
        double e[S] = {0}, outer = 0, *o = want + ((b * T + i) * H + h) * V;
        for (int j = 0; j < S; j++) {
          for (int x = 0; x < K; x++) e[j] += v.x[0][((b * T + i) * H + h) * K + x] * v.x[1][((b * S + j) * G + h / 2) * K + x];
          e[j] = exp(0.6 * e[j]);
        }
        for (int j = 0; j < S; j++) {
          const bool gate = j % BLOCK == BLOCK - 1;
          if (gate ? j / BLOCK < own : j / BLOCK == own && j <= t) outer += e[j];
        }
        for (int j = 0; j < S; j++) {
          if (j % BLOCK == BLOCK - 1 || j > t) continue;
          const int first = j / BLOCK * BLOCK;
          double w = e[j] / outer;
          if (j / BLOCK < own) w = e[first + BLOCK - 1] / outer * e[j] / (e[first] + e[first + 1] + e[first + 2]);
          for (int x = 0; x < V; x++) o[x] += w * v.x[2][((b * S + j) * G + h / 2) * V + x];
        }
      }
  check_values("gated_attention", &v, want, B * T * H * V);
}

/* Rows that are nearly of length 1 and at right angles: singular values lie between 0.68 and 1.14. */
static void rows_become_orthogonal(void) {
  values v = values_of("orthogonal");
  for (int m = 0; m < 4; m++)
    for (int i = 0; i < 3; i++)
      for (int j = 0; j < 3; j++) {
        double dot = 0;
        for (int x = 0; x < 4; x++) dot += v.y[(m * 3 + i) * 4 + x] * v.y[(m * 3 + j) * 4 + x];
        CHECK(fabs(dot - (i == j)) < 0.55, "matrix %d, rows %d and %d: %g", m, i, j, dot);
      }
  free(v.y), free(v.x[0]);
}

/* x and x and zeros side by side: twice as wide, it takes its steps on the Gram matrix, and becomes what x becomes, side by side, over sqrt(2). */
static void wide_steps_are_steps(void) {
  enum { M = 4, N = 6, STEPS = 8 };
  double *x = malloc(sizeof(double) * M * N), *wide = calloc(M * 3 * N, sizeof(double));
  if (!x || !wide) abort();
  for (int i = 0; i < M * N; i++) x[i] = mn_random_normal(5, 0, (uint64_t)i);
  for (int i = 0; i < M * N; i++) wide[i / N * 3 * N + i % N] = wide[i / N * 3 * N + N + i % N] = x[i];
  for (int steps = 1; steps <= STEPS; steps++) {
    mn_graph *g = mn_graph_new();
    mn_tensor *y[2] = {mn_orthogonal(g, mn_const(g, MN_F64, MN_SHAPE(M, N), x), steps),
                       mn_orthogonal(g, mn_const(g, MN_F64, MN_SHAPE(M, 3 * N), wide), steps)};
    mn_plan *plan = NULL;
    mn_plan_request q = {.graph = g, .n_outputs = 2, .outputs = y, .backend = mn_backend_ref()};
    CHECK_OK(mn_plan_compile(&q, &plan));
    CHECK_OK(mn_plan_run(plan));
    const double *a = mn_plan_output(plan, 0)->data, *b = mn_plan_output(plan, 1)->data;
    for (int i = 0; i < M * 3 * N; i++) {
      const double want = i % (3 * N) < 2 * N ? a[i / (3 * N) * N + i % N] / sqrt(2) : 0;
      CHECK(fabs(b[i] - want) < 1e-6, "%d steps, number %d: %g, not %g", steps, i, b[i], want);
    }
    mn_plan_free(plan);
    mn_graph_free(g);
  }
  free(x), free(wide);
}

/* A fading sum of outer products, whose singular values lie decades apart, in f32 beside f64: what a Gram matrix loses of the small ones
 * stays as small as what steps on the matrix lose. Five steps on it would have an error of 2e-4. */
static void small_singular_values_survive_in_f32(void) {
  enum { M = 64, N = 128, TERMS = 200 };
  double *x = calloc(M * N, sizeof(double));
  double *y[2] = {malloc(sizeof(double) * M * N), malloc(sizeof(double) * M * N)};
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  if (!x || !y[0] || !y[1] || !cpu) abort();
  for (int k = 0; k < TERMS; k++)
    for (int i = 0; i < M * N; i++)
      x[i] += pow(0.9, k) * mn_random_normal(5, (uint64_t)k, (uint64_t)(i / N)) * mn_random_normal(5, (uint64_t)k, (uint64_t)(M + i % N));
  for (int f32 = 0; f32 < 2; f32++) {
    mn_graph *g = mn_graph_new();
    mn_tensor *out = mn_const(g, MN_F64, MN_SHAPE(M, N), x);
    out = mn_orthogonal(g, f32 ? mn_cast(g, out, MN_F32) : out, 5);
    out = mn_cast(g, out, MN_F64);
    mn_plan *plan = NULL;
    mn_plan_request q = {.graph = g, .n_outputs = 1, .outputs = &out, .backend = f32 ? cpu : mn_backend_ref()};
    CHECK_OK(mn_plan_compile(&q, &plan));
    CHECK_OK(mn_plan_run(plan));
    memcpy(y[f32], mn_plan_output(plan, 0)->data, sizeof(double) * M * N);
    mn_plan_free(plan);
    mn_graph_free(g);
  }
  const double e = gc_difference(y[0], y[1], M * N);
  CHECK(e < 5e-5, "error %g", e);
  free(x), free(y[0]), free(y[1]);
  mn_backend_free(cpu);
}

static void what_does_not_fit_is_refused(void) {
  for (int i = 0; i < 10; i++) {
    mn_graph *g = mn_graph_new();
    mn_tensor *image = mn_input(g, "x", MN_F32, MN_SHAPE(1, 4, 4, 2)), *at = mn_input(g, "i", MN_I32, MN_SHAPE(3));
    mn_tensor *w = mn_input(g, "w", MN_F32, MN_SHAPE(3, 5, 5, 2)), *row = mn_input(g, "r", MN_F32, MN_SHAPE(3));
    if (i == 0) mn_conv2d(g, image, w, NULL, (mn_window){0});
    if (i == 1) mn_conv2d(g, image, mn_input(g, "v", MN_F32, MN_SHAPE(3, 2, 2, 4)), NULL, (mn_window){0});
    if (i == 2) mn_max_pool(g, image, (mn_window){.size = {2, 2}, .stride = {-1, 1}});
    if (i == 3) mn_bag(g, mn_input(g, "t", MN_F32, MN_SHAPE(4, 2)), at, mn_input(g, "b", MN_F32, MN_SHAPE(2)));
    if (i == 4) mn_cummax(g, row, 3, NULL);
    if (i == 5) mn_segment_sum(g, row, at, 0, 0);
    if (i == 6) mn_orthogonal(g, row, 5);
    mn_attention_io io = {image, image, image, .bias = mn_input(g, "b", MN_F32, MN_SHAPE(1))};
    if (i == 7) io.by_distance = mn_input(g, "d", MN_F32, MN_SHAPE(4, 5));                 /* a bias beside it */
    if (i == 8) io.bias = NULL, io.by_distance = mn_input(g, "d", MN_F32, MN_SHAPE(3, 5)); /* heads */
    if (i == 7 || i == 8) mn_attend(g, &io, (mn_attention_attr){.scale = 1});
    if (i == 9) mn_gated_attention(g, image, image, image, 1, 3, 0); /* 4 keys are no blocks of 3 */
    CHECK(mn_graph_status(g) == MN_ERR_SHAPE, "case %d", i);
    mn_graph_free(g);
  }
}

int main(void) {
  RUN(gradients_agree_with_differences);
  RUN(gradients_can_be_differentiated);
  RUN(kernels_agree_with_compositions);
  RUN(patches_come_back_in_bf16);
  RUN(no_scores_in_memory);
  RUN(convolution_by_definition);
  RUN(pooling_by_definition);
  RUN(equals_keep_their_order);
  RUN(bags_and_segments_by_definition);
  RUN(two_level_softmax_by_definition);
  RUN(rows_become_orthogonal);
  RUN(wide_steps_are_steps);
  RUN(small_singular_values_survive_in_f32);
  RUN(what_does_not_fit_is_refused);
  return test_end();
}
