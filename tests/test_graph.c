/* What must be true of the graph: every operation's gradient agrees with central differences in float64, gradients can be
 * differentiated again, a scan is a loop with a gradient, and no pass changes a result. */
#include "gradcheck.h"
#include "graph/fused_adamw.h"
#include "graph/fused_attention.h"
#include "graph/fused_conv.h"
#include "graph/fused_gated_norm.h"
#include "graph/fused_loss.h"
#include "graph/fused_masked_product.h"
#include "graph/fused_norm.h"
#include "graph/fused_product.h"
#include "graph/fused_recurrence.h"
#include "graph/fused_rope.h"
#include "graph/fused_softmax.h"
#include "graph/orthogonal.h"

#define SHAPE(...)                                                                                                                         \
  {                                                                                                                                        \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), { __VA_ARGS__ }                                                             \
  }
#define F64(lo, hi, ...)                                                                                                                   \
  { MN_F64, SHAPE(__VA_ARGS__), lo, hi, false }
#define CONST64(lo, hi, ...)                                                                                                               \
  { MN_F64, SHAPE(__VA_ARGS__), lo, hi, true }
#define I32(lo, hi, ...)                                                                                                                   \
  { MN_I32, SHAPE(__VA_ARGS__), lo, hi, true }

/* ---- element-wise ---- */
#define UNARY(name)                                                                                                                        \
  static void f_##name(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_##name(g, x[0]); }
#define BINARY(name)                                                                                                                       \
  static void f_##name(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_##name(g, x[0], x[1]); }
UNARY(neg)
UNARY(abs)
UNARY(sqrt)
UNARY(rsqrt)
UNARY(recip)
UNARY(exp)
UNARY(log)
UNARY(log1p)
UNARY(sin)
UNARY(cos) UNARY(tanh) UNARY(sigmoid) UNARY(erf) UNARY(softplus) UNARY(silu) UNARY(silu_slope) UNARY(normal_cdf) UNARY(normal_pdf) UNARY(gelu_slope) UNARY(gelu) UNARY(gelu_tanh) UNARY(relu)
    UNARY(log_sigmoid) UNARY(square) BINARY(add) BINARY(sub) BINARY(mul) BINARY(div) BINARY(maximum) BINARY(minimum) BINARY(pow)
        BINARY(mod) static void f_select(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  y[0] = mn_select(g, mn_lt(g, x[0], x[1]), x[0], mn_exp(g, x[1]));
}

/* ---- views and moving ---- */
static void f_reshape(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_reshape(g, mn_transpose(g, x[0], 0, 2), MN_SHAPE(4, 6)); }
static void f_slice(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_slice(g, mn_slice(g, x[0], 1, 1, 2), 2, 1, 3); }
static void f_expand(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_expand(g, x[0], MN_SHAPE(2, 3, 4)); }
static void f_concat(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_concat(g, 2, x, 1); }
static void f_pad(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_pad(g, x[0], 1, 2, 1); }
static void f_take(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_take(g, x[0], x[1], 0); }
static void f_take_batch(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_take(g, x[0], x[1], 1); }
static void f_put_add(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_put(g, x[0], x[1], x[2], 1, MN_PUT_ADD); }
static void f_put_set(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  y[0] = mn_put(g, x[0], mn_iota(g, MN_I32, MN_SHAPE(2, 3), 1), x[1], 1, MN_PUT_SET);
}
static void f_copy(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_copy(g, mn_transpose(g, x[0], 0, 1)); }

/* ---- reductions, products ---- */
static void f_sum(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_square(g, mn_sum(g, x[0], 5)); }
static void f_max(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_max(g, x[0], 2); }
static void f_many_axes(mn_graph *g, mn_tensor **x, mn_tensor **y) { /* eight */
  mn_tensor *t = mn_permute(g, mn_mul(g, x[0], x[1]), (int[]){7, 2, 5, 0, 1, 6, 3, 4});
  y[0] = mn_square(g, mn_sum(g, mn_exp(g, mn_slice(g, t, 6, 1, 2)), 0x52));
  y[1] = mn_concat(g, 2, (mn_tensor *[]){mn_pad(g, x[0], 6, 1, 0), mn_pad(g, x[1], 6, 0, 1)}, 2);
}
static void f_cumsum(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  y[0] = mn_square(g, mn_cumsum(g, x[0], 1, MN_FORWARD));
  y[1] = mn_cumsum(g, x[0], 0, MN_BACKWARD);
}
static void f_sumsq(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_sumsq(g, x[0]); }
static void f_matmul(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_matmul(g, x[0], x[1]); }
static void f_matmul_t(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_matmul(g, mn_transpose(g, x[0], 1, 2), x[1]); }

/* ---- fused ---- */
static void f_rms(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_norm(g, MN_NORM_RMS, x[0], x[1], NULL, 1e-6, MN_F64); }
static void f_layer(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_norm(g, MN_NORM_LAYER, x[0], x[1], x[2], 1e-5, MN_F64); }
static void f_gated(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  y[0] = mn_gated_norm(g, x[0], x[2], x[1], MN_GATED_BY_SILU, 1e-6, x[1]->dtype);
}
static void f_gated_bare(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  y[0] = mn_gated_norm(g, x[0], NULL, x[1], MN_GATED_BY_SIGMOID, 1e-6, x[1]->dtype);
}
static void f_l2(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_norm(g, MN_NORM_L2, x[0], NULL, NULL, 1e-6, MN_F64); }
static void f_softmax(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_softmax(g, x[0]); }
static void f_rope(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  y[0] = mn_rope(g, x[0], x[1], x[2], MN_ROPE_HALVES);
  y[1] = mn_rope(g, x[0], x[1], x[2], MN_ROPE_INTERLEAVED);
}
static void f_attention(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  y[0] = mn_attention(g, x[0], x[1], x[2], NULL, NULL, x[3], (mn_attention_attr){.scale = 0.5, .causal = true, .window = 4, .prefix = 2},
                      &y[1]);
}
static void f_attention_pos(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  y[0] =
      mn_attention(g, x[0], x[1], x[2], x[3], x[4], NULL, (mn_attention_attr){.scale = 0.7, .causal = true, .window = 6, .sinks = 2}, NULL);
}
static void f_attention_lengths(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  mn_attention_io io = {.q = x[0], .k = x[1], .v = x[2], .q_pos = x[3], .length = x[4]};
  mn_attend(g, &io, (mn_attention_attr){.scale = 0.7, .window = 5});
  y[0] = io.o;
}
static void f_attention_ring(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  mn_attention_io io = {.q = x[0], .k = x[1], .v = x[2], .q_pos = x[3], .length = x[4]};
  mn_attend(g, &io, (mn_attention_attr){.scale = 0.7, .causal = true, .ring = true, .prefix = 1, .sinks = 2});
  y[0] = io.o;
}
static void f_masked(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_masked_product(g, x[0], x[1], x[2], x[3]); }
static void f_scaled(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_scaled_product(g, -0.7, x[0], x[1], x[2]); }
static void f_ce(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_linear_cross_entropy(g, x[0], x[1], x[2], x[3], &y[1]); }
static void f_conv(mn_graph *g, mn_tensor **x, mn_tensor **y) { y[0] = mn_causal_conv(g, x[0], x[1], x[2], x[3]); }
static void recurrence(mn_graph *g, mn_tensor **x, mn_tensor **y, mn_recurrence_attr a) {
  mn_recurrence_io io = {
      .q = x[0], .k = x[1], .v = x[2], .beta = x[3], .log_a = mn_neg(g, x[4]), .log_eta = mn_neg(g, x[5]), .w0 = x[6], .s0 = x[7]};
  if (a.write == MN_WRITE_ANCHOR) io.a0 = x[8];
  mn_linear_recurrence(g, &io, a);
  y[0] = io.o;
  y[1] = io.w;
  y[2] = io.s;
}
static void f_recurrence_value(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  recurrence(g, x, y, (mn_recurrence_attr){.write = MN_WRITE_VALUE, .chunk = 4});
}
static void f_recurrence_anchor(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  recurrence(g, x, y, (mn_recurrence_attr){.write = MN_WRITE_ANCHOR, .chunk = 3});
}
static void f_recurrence_delta(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  recurrence(g, x, y, (mn_recurrence_attr){.write = MN_WRITE_DELTA, .chunk = 4, .read_before = true});
}
static void f_adamw(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  mn_adamw(g, x[0], x[1], x[2], x[3], x[4], (mn_adamw_attr){0.9, 0.95, 1e-8}, &y[0], &y[1], &y[2]);
}

/* ---- scan ---- */
static void loop(mn_graph *g, mn_tensor **x, mn_tensor **y, int64_t n, bool reverse) {
  /* c' = tanh(c w + x_t), y_t = c' * c; a counter shows that integer carries pass */
  g->keep_bytes = 0; /* long loops in segments */
  mn_tensor *c[2], *xt, *final[2], *carry[2] = {x[0], mn_full(g, MN_I32, (mn_shape){0}, 0)};
  mn_scan_builder *b = mn_scan_begin(g, n, reverse, 2, carry, 1, &x[1], c, &xt);
  mn_graph *body = mn_scan_body(b);
  if (!body) return;
  mn_tensor *next = mn_tanh(body, mn_add(body, mn_matmul(body, c[0], x[2]), xt));
  mn_tensor *out = mn_mul(body, next, mn_mul(body, c[0], mn_cast(body, mn_add_scalar(body, c[1], 1), x[0]->dtype)));
  mn_scan_end(b, (mn_tensor *[]){next, mn_add_scalar(body, c[1], 1)}, 1, &out, final, &y[1]);
  y[0] = final[0];
}
static void f_scan(mn_graph *g, mn_tensor **x, mn_tensor **y) { loop(g, x, y, 5, false); }
static void f_scan_reverse(mn_graph *g, mn_tensor **x, mn_tensor **y) { loop(g, x, y, 5, true); }
static void f_scan_long(mn_graph *g, mn_tensor **x, mn_tensor **y) { loop(g, x, y, 23, false); }
static void f_scan_long_reverse(mn_graph *g, mn_tensor **x, mn_tensor **y) { loop(g, x, y, 23, true); }

#define SCAN_X(n)                                                                                                                          \
  { F64(-1, 1, 2, 3), F64(-1, 1, n, 2, 3), F64(-1, 1, 3, 3) }
#define RECURRENCE_X                                                                                                                       \
  {                                                                                                                                        \
    F64(-1, 1, 2, 7, 2, 3), F64(-1, 1, 2, 7, 2, 3), F64(-1, 1, 2, 7, 2, 4), F64(0.1, 0.6, 2, 7, 2), F64(0.05, 1, 2, 7, 2),                 \
        F64(0.1, 1.5, 2, 7, 2), F64(-1, 1, 2, 2, 3, 4), F64(-1, 1, 2, 2, 3, 4), F64(-1, 1, 2, 2, 3, 4)                                     \
  }
#define U(name, lo, hi)                                                                                                                    \
  { #name, 1, 1, {F64(lo, hi, 3, 5) }, f_##name }
#define B2(name, lo, hi)                                                                                                                   \
  { #name, 2, 1, {F64(lo, hi, 3, 5), F64(lo, hi, 3, 1) }, f_##name }

static const gc_case cases[] = {
    U(neg, -2, 2),
    U(abs, -2, 2),
    U(sqrt, 0.2, 3),
    U(rsqrt, 0.3, 3),
    U(recip, 0.4, 3),
    U(exp, -2, 2),
    U(log, 0.3, 3),
    U(log1p, -0.5, 3),
    U(sin, -3, 3),
    U(cos, -3, 3),
    U(tanh, -2, 2),
    U(sigmoid, -4, 4),
    U(erf, -2, 2),
    U(softplus, -4, 4),
    U(normal_cdf, -3, 3),
    U(normal_pdf, -3, 3),
    U(gelu_slope, -3, 3),
    U(silu_slope, -4, 4),
    U(silu, -3, 3),
    U(gelu, -3, 3),
    U(gelu_tanh, -3, 3),
    U(relu, -2, 2),
    U(log_sigmoid, -4, 4),
    U(square, -2, 2),
    B2(add, -2, 2),
    B2(sub, -2, 2),
    B2(mul, -2, 2),
    B2(div, 0.5, 2),
    B2(maximum, -2, 2),
    B2(minimum, -2, 2),
    B2(pow, 0.5, 2),
    B2(mod, 0.6, 2.2),
    {"select", 2, 1, {F64(-1, 1, 3, 4), F64(-1, 1, 3, 4)}, f_select},
    {"reshape", 1, 1, {F64(-1, 1, 2, 3, 4)}, f_reshape},
    {"slice", 1, 1, {F64(-1, 1, 2, 4, 5)}, f_slice},
    {"expand", 1, 1, {F64(-1, 1, 3, 1)}, f_expand},
    {"concat", 2, 1, {F64(-1, 1, 2, 3), F64(-1, 1, 2, 4)}, f_concat},
    {"pad", 1, 1, {F64(-1, 1, 2, 3)}, f_pad},
    {"take", 2, 1, {F64(-1, 1, 5, 3), I32(-1, 5, 2, 4)}, f_take},
    {"take_batch", 2, 1, {F64(-1, 1, 2, 5, 3), I32(0, 4, 2, 4)}, f_take_batch},
    {"put_add", 3, 1, {F64(-1, 1, 2, 5, 3), I32(-1, 5, 2, 4), F64(-1, 1, 2, 4, 3)}, f_put_add},
    {"put_set", 2, 1, {F64(-1, 1, 2, 5, 3), F64(-1, 1, 2, 3, 3)}, f_put_set},
    {"copy", 1, 1, {F64(-1, 1, 2, 3)}, f_copy},
    {"sum", 1, 1, {F64(-1, 1, 2, 3, 4)}, f_sum},
    {"max", 1, 1, {F64(-1, 1, 2, 5)}, f_max},
    {"many_axes", 2, 2, {F64(-1, 1, 2, 1, 2, 3, 1, 2, 2, 3), F64(-1, 1, 2, 1, 1, 3, 1, 2, 2, 3)}, f_many_axes},
    {"cumsum", 1, 2, {F64(-1, 1, 3, 4)}, f_cumsum},
    {"sumsq", 1, 1, {F64(-1, 1, 3, 4)}, f_sumsq},
    {"matmul", 2, 1, {F64(-1, 1, 2, 3, 4), F64(-1, 1, 4, 5)}, f_matmul},
    {"matmul_transposed", 2, 1, {F64(-1, 1, 2, 4, 3), F64(-1, 1, 2, 4, 5)}, f_matmul_t},
    {"rms_norm", 2, 1, {F64(-1, 1, 3, 4), F64(0.5, 1.5, 4)}, f_rms},
    {"layer_norm", 3, 1, {F64(-1, 1, 3, 4), F64(0.5, 1.5, 4), F64(-1, 1, 4)}, f_layer},
    {"gated_norm", 3, 1, {F64(-1, 1, 3, 4), F64(-2, 2, 3, 4), F64(0.5, 1.5, 4)}, f_gated},
    {"gated_norm, sigmoid", 2, 1, {F64(-1, 1, 3, 4), F64(-2, 2, 3, 4)}, f_gated_bare},
    {"l2_norm", 1, 1, {F64(-1, 1, 3, 4)}, f_l2},
    {"softmax", 1, 1, {F64(-2, 2, 3, 4)}, f_softmax},
    {"rope", 3, 2, {F64(-1, 1, 2, 3, 2, 4), CONST64(-1, 1, 3, 2), CONST64(-1, 1, 3, 2)}, f_rope},
    {"rope_tables", 3, 2, {F64(-1, 1, 2, 3, 2, 4), F64(-1, 1, 2, 3, 2), F64(-1, 1, 2, 3, 2)}, f_rope},
    {"attention", 4, 2, {F64(-1, 1, 2, 5, 4, 3), F64(-1, 1, 2, 7, 2, 3), F64(-1, 1, 2, 7, 2, 2), F64(-1, 1, 4, 1, 7)}, f_attention},
    {"attention_positions",
     5,
     1,
     {F64(-1, 1, 2, 3, 2, 3), F64(-1, 1, 2, 6, 1, 3), F64(-1, 1, 2, 6, 1, 2), I32(3, 5, 2), I32(-1, 7, 2, 6)},
     f_attention_pos},
    {"attention_lengths",
     5,
     1,
     {F64(-1, 1, 3, 4, 2, 3), F64(-1, 1, 3, 7, 2, 3), F64(-1, 1, 3, 7, 2, 2), I32(0, 8, 3, 4), I32(0, 9, 3)},
     f_attention_lengths},
    {"attention_ring",
     5,
     1,
     {F64(-1, 1, 3, 4, 2, 3), F64(-1, 1, 3, 8, 2, 3), F64(-1, 1, 3, 8, 2, 2), I32(0, 30, 3, 4), I32(0, 20, 3)},
     f_attention_ring},
    {"masked_product", 4, 1, {F64(-1, 1, 2, 3, 4), F64(-1, 1, 2, 5, 4), F64(-1, 1, 2, 3, 5), F64(-1, 1, 2, 5, 2)}, f_masked},
    {"scaled_product", 3, 1, {F64(-1, 1, 2, 3, 4), F64(-1, 1, 4, 5), F64(-1, 1, 2, 3, 5)}, f_scaled},
    {"linear_cross_entropy", 4, 2, {F64(-1, 1, 5, 3), F64(-1, 1, 7, 3), I32(-1, 6, 5), F64(0, 1, 5)}, f_ce},
    {"causal_conv", 4, 1, {F64(-1, 1, 2, 5, 3), F64(-1, 1, 3, 4), F64(-1, 1, 3), F64(-1, 1, 2, 3, 3)}, f_conv},
    {"recurrence_value", 8, 3, RECURRENCE_X, f_recurrence_value},
    {"recurrence_anchor", 9, 3, RECURRENCE_X, f_recurrence_anchor},
    {"recurrence_delta", 8, 3, RECURRENCE_X, f_recurrence_delta},
    {"adamw", 5, 3, {F64(-1, 1, 3), F64(0.5, 1, 3), F64(-1, 1, 3), F64(0.5, 1, 3), F64(0.1, 1, 5)}, f_adamw},
    {"scan", 3, 2, SCAN_X(5), f_scan},
    {"scan_reverse", 3, 2, SCAN_X(5), f_scan_reverse},
    {"scan_long", 3, 2, SCAN_X(23), f_scan_long},
    {"scan_long_reverse", 3, 2, SCAN_X(23), f_scan_long_reverse},
};
enum { N_CASES = sizeof cases / sizeof *cases };

static void gradients_agree_with_central_differences(void) {
  for (int i = 0; i < N_CASES; i++) {
    double e = gc_gradient_error(&cases[i], 1, 1);
    CHECK(e <= 1e-6, "%s: %g", cases[i].name, e);
  }
}

static void gradients_of_gradients_agree(void) {
  for (int i = 0; i < N_CASES; i++) {
    if (!strcmp(cases[i].name, "abs") || !strcmp(cases[i].name, "relu")) continue; /* second derivative zero: nothing to see */
    double e = gc_gradient_error(&cases[i], 2, 2);
    CHECK(e <= 1e-6, "%s: %g", cases[i].name, e);
  }
}

/* Values and gradients of case c on backend b; out must hold n_y + n_x arrays. */
static int values_and_gradients(const gc_case *c, mn_backend *b, mn_dtype t, unsigned off, mn_activation_policy policy, double **out,
                                int64_t *count) {
  mn_graph *g = mn_graph_new();
  mn_tensor *x[GC_MAX], *y[GC_MAX], *leaf[GC_MAX], *wrt[GC_MAX], *all[2 * GC_MAX];
  double *value[GC_MAX];
  int n_wrt = 0, n = 0;
  for (int i = 0; i < c->n_x; i++) {
    mn_dtype ti = c->x[i].dtype == MN_F64 ? t : c->x[i].dtype;
    x[i] = leaf[i] = mn_input(g, "x", ti, c->x[i].shape);
    value[i] = malloc((size_t)(mn_shape_count(&c->x[i].shape) + 1) * sizeof(double));
    gc_fill(value[i], &c->x[i], 3, i);
    if (!c->x[i].constant && mn_dtype_is_float(ti)) wrt[n_wrt++] = x[i];
  }
  c->f(g, x, y);
  int ok = mn_graph_status(g) == MN_OK;
  mn_tensor *d[GC_MAX];
  mn_tensor *dy[GC_MAX];
  for (int j = 0; ok && j < c->n_y; j++) {
    int64_t k = mn_shape_count(&y[j]->shape);
    double *w = malloc((size_t)(k + 1) * sizeof *w);
    for (int64_t i = 0; i < k; i++) w[i] = mn_random_normal(17 + (uint64_t)j, 5, (uint64_t)i);
    dy[j] = mn_cast(g, mn_const(g, MN_F64, y[j]->shape, w), y[j]->dtype);
    free(w);
  }
  ok = ok && mn_grad(g, c->n_y, y, dy, n_wrt, wrt, d) == MN_OK;
  for (int j = 0; ok && j < c->n_y; j++) all[n++] = y[j];
  for (int i = 0; ok && i < n_wrt; i++) all[n++] = d[i];
  for (int j = 0; j < n; j++) count[j] = mn_shape_count(&all[j]->shape);
  ok = ok && gc_run(g, b, off, policy, c->n_x, leaf, value, n, all, out);
  if (!ok) printf("  %s: %s\n", c->name, mn_message());
  for (int i = 0; i < c->n_x; i++) free(value[i]);
  mn_graph_free(g);
  return ok ? n : 0;
}

static void compare(const char *what, mn_backend *b, mn_dtype t, unsigned off, mn_activation_policy policy, double tolerance) {
  for (int i = 0; i < N_CASES; i++) {
    double *a[2 * GC_MAX] = {NULL}, *z[2 * GC_MAX] = {NULL};
    int64_t count[2 * GC_MAX];
    int n = values_and_gradients(&cases[i], mn_backend_ref(), t, MN_PASS_ALL, MN_KEEP, a, count);
    int m = values_and_gradients(&cases[i], b, t, off, policy, z, count);
    CHECK(n > 0 && n == m, "%s %s", what, cases[i].name);
    for (int j = 0; j < n && j < m; j++) {
      double e = gc_difference(a[j], z[j], count[j]);
      CHECK(e <= tolerance, "%s %s, output %d: %g", what, cases[i].name, j, e);
    }
    for (int j = 0; j < n; j++) free(a[j]);
    for (int j = 0; j < m; j++) free(z[j]);
  }
}

static void passes_change_nothing(void) {
  compare("all passes", mn_backend_ref(), MN_F64, 0, MN_RECOMPUTE_CHEAP, 1e-12);
  compare("recompute norms", mn_backend_ref(), MN_F64, 0, MN_RECOMPUTE_NORMS, 1e-12);
  compare("only in place", mn_backend_ref(), MN_F64, MN_PASS_ALL & ~(unsigned)MN_PASS_INPLACE, MN_KEEP, 1e-12);
  compare("only shared memory", mn_backend_ref(), MN_F64, MN_PASS_ALL & ~(unsigned)MN_PASS_SHARE_MEMORY, MN_KEEP, 1e-12);
  compare("only simplify", mn_backend_ref(), MN_F64, MN_PASS_ALL & ~(unsigned)MN_PASS_SIMPLIFY, MN_KEEP, 1e-12);
}

static void the_cpu_backend_agrees_with_the_reference(void) {
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(2, &cpu));
  if (!cpu) return;
  compare("cpu f32", cpu, MN_F32, 0, MN_RECOMPUTE_CHEAP, 1e-5);
  compare("cpu f32, no fusion", cpu, MN_F32, MN_PASS_FUSE, MN_KEEP, 1e-5);
  mn_backend_free(cpu);
}

/* The size of the graph and the number of steps must not grow with the length of a loop. */
static void a_loop_costs_the_same_graph_at_any_length(void) {
  int nodes[2], steps[2];
  for (int k = 0; k < 2; k++) {
    int64_t n = k ? 4000 : 40;
    mn_graph *g = mn_graph_new();
    mn_tensor *x[3] = {mn_input(g, "c", MN_F64, MN_SHAPE(2, 3)), mn_input(g, "x", MN_F64, MN_SHAPE(n, 2, 3)),
                       mn_input(g, "w", MN_F64, MN_SHAPE(3, 3))};
    mn_tensor *y[2], *d[3];
    loop(g, x, y, n, false);
    CHECK_OK(mn_grad(g, 2, y, NULL, 3, x, d));
    nodes[k] = g->n_nodes;
    mn_plan *p = NULL;
    mn_plan_request q = {.graph = g, .n_outputs = 3, .outputs = d, .backend = mn_backend_ref()};
    CHECK_OK(mn_plan_compile(&q, &p));
    steps[k] = p ? mn_plan_get_report(p)->steps : k;
    mn_plan_free(p);
    mn_graph_free(g);
  }
  /* 40 and 4000 differ in whether the last segment is short, which costs a few nodes */
  CHECK(abs(nodes[0] - nodes[1]) < 60 && abs(steps[0] - steps[1]) < 30, "nodes %d, %d; steps %d, %d", nodes[0], nodes[1], steps[0],
        steps[1]);
}

/* What the stack held before must not tell two equal nodes apart: each is built twice, after different rubbish. */
static void leave_on_stack(int rubbish) {
  volatile unsigned char bytes[8192];
  for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)rubbish;
}
static mn_tensor *attended(mn_graph *g, mn_tensor *x) {
  return mn_attention(g, x, x, x, NULL, NULL, NULL, (mn_attention_attr){.scale = 0.5, .causal = true}, NULL);
}
static mn_tensor *recurred(mn_graph *g, mn_tensor *x) {
  mn_recurrence_io io = {.q = x, .k = x, .v = x, .w0 = mn_full(g, MN_F32, MN_SHAPE(2, 2, 4, 4), 0)};
  mn_linear_recurrence(g, &io, (mn_recurrence_attr){.write = MN_WRITE_VALUE, .chunk = 4});
  return io.o;
}
static mn_tensor *taken(mn_graph *g, mn_tensor *x) { return mn_take(g, x, mn_iota(g, MN_I32, MN_SHAPE(2), 0), 0); }
static mn_tensor *put(mn_graph *g, mn_tensor *x) { return mn_put(g, x, mn_iota(g, MN_I32, MN_SHAPE(2), 0), x, 0, MN_PUT_ADD); }
static mn_tensor *cumsum(mn_graph *g, mn_tensor *x) { return mn_cumsum(g, x, 1, MN_BACKWARD); }
static mn_tensor *padded(mn_graph *g, mn_tensor *x) { return mn_pad(g, x, 1, 2, 1); }
static mn_tensor *sliced(mn_graph *g, mn_tensor *x) { return mn_slice(g, x, 1, 1, 2); }
static mn_tensor *normed(mn_graph *g, mn_tensor *x) { return mn_norm(g, MN_NORM_RMS, x, NULL, NULL, 1e-6, MN_F32); }
static mn_tensor *drawn(mn_graph *g, mn_tensor *x) {
  return mn_random_normal_op(g, x->shape, 7, mn_full(g, MN_I64, (mn_shape){0}, 3), NULL);
}

static void equal_nodes_are_equal_whatever_the_stack_held(void) {
  static mn_tensor *(*const builders[])(mn_graph *, mn_tensor *) = {taken, put, cumsum, padded, sliced, normed, drawn, attended, recurred};
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  for (size_t k = 0; cpu && k < sizeof builders / sizeof *builders; k++) {
    mn_graph *g = mn_graph_new();
    mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(2, 4, 2, 4)), *y[2];
    for (int i = 0; i < 2; i++) {
      leave_on_stack(i ? 0xA5 : 0x5A);
      y[i] = builders[k](g, x);
    }
    CHECK_OK(mn_graph_status(g));
    if (y[0] && y[1]) {
      const mn_node *a = y[0]->node, *b = y[1]->node;
      CHECK(a->op == b->op && memcmp(a->attr, b->attr, mn_attr_bytes(a->op, a->attr)) == 0, "attributes of %s", a->op->name);
    }
    int steps[2] = {0};
    for (int i = 0; i < 2; i++) {
      mn_plan *p = NULL;
      mn_tensor *sum = mn_add(g, y[0], y[i]);
      mn_plan_request q = {.graph = g, .n_outputs = 1, .outputs = &sum, .backend = cpu};
      CHECK_OK(mn_plan_compile(&q, &p));
      if (p) steps[i] = mn_plan_get_report(p)->steps;
      mn_plan_free(p);
    }
    CHECK(steps[0] == steps[1], "%s: %d steps with itself, %d with its equal", y[0] ? y[0]->node->op->name : "?", steps[0], steps[1]);
    mn_graph_free(g);
  }
  mn_backend_free(cpu);
}

/* A residual stream in f32 with products in bf16, of `layers`; `doublings` cheap steps that each read the last twice. */
static mn_plan_report residual_stream(mn_backend *b, int layers, int doublings) {
  const int64_t B = 2, T = 128, D = 64;
  mn_graph *g = mn_graph_new();
  mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(B, T, D)), *w = mn_input(g, "w", MN_BF16, MN_SHAPE(D, D)), *dw = NULL;
  for (int i = 0; i < layers; i++) {
    for (int k = 0; k < doublings; k++) x = mn_mul(g, x, x);
    mn_tensor *h = mn_norm(g, MN_NORM_RMS, x, NULL, NULL, 1e-6, MN_BF16);
    h = mn_matmul_as(g, mn_reshape(g, h, MN_SHAPE(B * T, D)), w, MN_BF16);
    x = mn_add(g, x, mn_cast(g, mn_reshape(g, h, MN_SHAPE(B, T, D)), MN_F32));
  }
  mn_tensor *y = mn_sum(g, mn_square(g, x), 7);
  CHECK_OK(mn_grad(g, 1, &y, NULL, 1, &w, &dw));
  mn_plan *p = NULL;
  mn_plan_request q = {.graph = g, .n_outputs = 1, .outputs = &dw, .backend = b, .activations = MN_RECOMPUTE_NORMS};
  CHECK_OK(mn_plan_compile(&q, &p));
  mn_plan_report r = p ? *mn_plan_get_report(p) : (mn_plan_report){0};
  mn_plan_free(p);
  mn_graph_free(g);
  return r;
}

/* Sums of a residual stream are made again one by one, each when it is read, and what they share is not made twice for one. */
static void residual_sums_are_made_again_when_they_are_read(void) {
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  if (!cpu) return;
  const double sum = 256 * 64 * 4; /* workspaces are left out: they follow the instruction set and the threads */
  const mn_plan_report plain = residual_stream(cpu, 5, 0), doubled = residual_stream(cpu, 5, 12);
  /* five when each is made for its reader; all at once, from the first reader on, would be 7.5 */
  CHECK((double)plain.bytes_alive < 6 * sum, "%g sums at the peak", (double)plain.bytes_alive / sum);
  CHECK(doubled.nodes_recomputed < 2000, "%d nodes made again", doubled.nodes_recomputed);
  mn_backend_free(cpu);
}

/* h erf(h), h = x w of `rows` rows of 64: the nodes that its gradient makes again. */
static int made_again(mn_backend *b, int64_t rows, mn_dtype t) {
  mn_graph *g = mn_graph_new();
  mn_tensor *x = mn_input(g, "x", t, MN_SHAPE(rows, 64)), *w = mn_input(g, "w", t, MN_SHAPE(64, 64)), *dw = NULL;
  mn_tensor *h = mn_matmul(g, x, w), *y = mn_sum(g, mn_mul(g, h, mn_erf(g, h)), 3);
  CHECK_OK(mn_grad(g, 1, &y, NULL, 1, &w, &dw));
  mn_plan *p = NULL;
  mn_plan_request q = {.graph = g, .n_outputs = 1, .outputs = &dw, .backend = b, .activations = MN_RECOMPUTE_NORMS};
  CHECK_OK(mn_plan_compile(&q, &p));
  const int count = p ? mn_plan_get_report(p)->nodes_recomputed : -1;
  mn_plan_free(p);
  mn_graph_free(g);
  return count;
}
static void what_is_dear_and_near_is_kept(void) {
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  if (!cpu) return;
  CHECK(made_again(cpu, 16, MN_F32) == 0, "%d nodes made again that stay in a near cache", made_again(cpu, 16, MN_F32));
  CHECK(made_again(cpu, 4096, MN_F32) == 1, "%d nodes made again that do not", made_again(cpu, 4096, MN_F32));
  CHECK(made_again(cpu, 16, MN_BF16) > 0, "bf16: what is kept is rounded");
  mn_backend_free(cpu);
}

/* y = round(x) w: with straight through as if round were not there, by another rule as that says. */
static int asked;
static void third(mn_graph *g, void *ctx, int n, mn_tensor *const *x, mn_tensor *y, mn_tensor *dy, const bool *need, mn_tensor **dx) {
  asked += n == 2 && need[0] && !need[1] && y->shape.ndim == 1;
  dx[0] = mn_mul_scalar(g, mn_mul(g, dy, x[0]), *(const double *)ctx);
}
static void gradients_of_ones_own(void) {
  static const double factor = 3;
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  for (int k = 0; k < 8 && cpu; k++) {
    const bool custom = k & 1, in_loop = k >> 1 & 1;
    mn_graph *g = mn_graph_new();
    mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(3)), *w = mn_input(g, "w", MN_F32, MN_SHAPE(3)), *c, *final, *dx[2], *out[3];
    mn_scan_builder *b = in_loop ? mn_scan_begin(g, 2, MN_FORWARD, 1, &x, 0, NULL, &c, NULL) : NULL;
    mn_graph *s = in_loop ? mn_scan_body(b) : g;
    mn_tensor *v = in_loop ? c : x, *r = mn_floor(s, mn_add_scalar(s, mn_exp(s, mn_log(s, v)), 0.5)); /* what nobody differentiates */
    asked = 0;
    r = custom ? mn_custom_gradient(s, r, 2, (mn_tensor *[]){v, mn_capture(s, w)}, third, (void *)&factor) : mn_with_gradient(s, r, v);
    mn_tensor *y = mn_mul(s, r, w);
    if (in_loop) mn_scan_end(b, &y, 0, NULL, &final, NULL), y = final;
    CHECK_OK(mn_grad(g, 1, &y, NULL, custom ? 1 : 2, (mn_tensor *[]){x, w}, dx));
    out[0] = y, out[1] = dx[0];
    double xs[3] = {1.2, 1.6, 2.4}, ws[3] = {2, 3, 0.5}, *value[2] = {xs, ws}, *z[2];
    CHECK(gc_run(g, k >> 2 ? cpu : mn_backend_ref(), 0, MN_RECOMPUTE_NORMS, 2, (mn_tensor *[]){x, w}, value, 2, out, z), "%s",
          mn_message());
    for (int i = 0; i < 3 && z[0]; i++) {
      const double first = floor(xs[i] + 0.5) * ws[i], second = floor(first + 0.5) * ws[i];
      double d = custom ? 3 * ws[i] * xs[i] : ws[i];
      if (in_loop) d *= custom ? 3 * ws[i] * first : ws[i];
      CHECK(z[0][i] == (in_loop ? second : first), "value %g", z[0][i]);
      CHECK(fabs(z[1][i] - d) < 1e-5 * fabs(d), "way %d: gradient %g, not %g", k, z[1][i], d);
    }
    CHECK(asked == custom, "the rule was asked %d times", asked);
    free(z[0]), free(z[1]);
    mn_graph_free(g);
  }
  mn_backend_free(cpu);
  mn_graph *g = mn_graph_new();
  mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(3)), *z = mn_input(g, "z", MN_F32, MN_SHAPE(4));
  CHECK(!mn_with_gradient(g, x, z), "shapes must agree");
  CHECK(mn_graph_status(g) == MN_ERR_SHAPE && strstr(mn_message(), "[4]"), "%s", mn_message());
  mn_graph_free(g);
}

/* What bends has one slope where it does: relu that of zero, as elsewhere; of two that are equal the first is the larger and the smaller;
 * a matrix of zeros is made orthogonal with a slope that is a number. */
static void slopes_at_corners(void) {
  enum { N = 4 };
  mn_graph *g = mn_graph_new();
  mn_tensor *x = mn_input(g, "x", MN_F64, MN_SHAPE(2, 2)), *zero = mn_scalar(g, MN_F64, 0), *dx[1];
  mn_tensor *y[N] = {mn_relu(g, x), mn_maximum(g, x, zero), mn_minimum(g, zero, x), mn_orthogonal(g, x, 5)}, *slope[N];
  static const double of[N - 1] = {0, 1, 0};
  for (int i = 0; i < N; i++) {
    CHECK_OK(mn_grad(g, 1, &y[i], NULL, 1, &x, dx));
    slope[i] = dx[0];
  }
  double zeros[4] = {0, -0.0, 0, 0}, *value[1] = {zeros}, *z[N] = {0};
  CHECK(gc_run(g, mn_backend_ref(), 0, MN_RECOMPUTE_NORMS, 1, &x, value, N, slope, z), "%s", mn_message());
  for (int i = 0; i < N && z[i]; i++)
    for (int k = 0; k < 4; k++)
      CHECK(i < N - 1 ? z[i][k] == of[i] : isfinite(z[i][k]) && z[i][k] > 0, "%d at %d: slope %g", i, k, z[i][k]);
  for (int i = 0; i < N; i++) free(z[i]);
  mn_graph_free(g);
}

static void faults_are_sticky_and_say_what_is_wrong(void) {
  mn_graph *g = mn_graph_new();
  mn_tensor *a = mn_input(g, "a", MN_F32, MN_SHAPE(2, 3)), *b = mn_input(g, "b", MN_F32, MN_SHAPE(4, 5));
  mn_tensor *c = mn_exp(g, mn_matmul(g, a, b));
  CHECK(c == NULL, "a product of [2,3] and [4,5] was built");
  CHECK(mn_graph_status(g) == MN_ERR_SHAPE && strstr(mn_message(), "[2, 3]"), "%s", mn_message());
  mn_graph_free(g);
}

/* A variable is overwritten in place when that is safe, and the old value is seen by all who asked for it. */
static void assignments_happen_after_all_reads(void) {
  for (int swap = 0; swap < 2; swap++) {
    mn_graph *g = mn_graph_new();
    mn_tensor *v[2] = {mn_variable(g, "v0", MN_F32, MN_SHAPE(4)), mn_variable(g, "v1", MN_F32, MN_SHAPE(4))};
    mn_tensor *sum = mn_add(g, v[0], v[1]);
    mn_tensor *next[2] = {swap ? v[1] : mn_mul_scalar(g, v[0], 2), swap ? v[0] : mn_add(g, v[0], v[1])};
    mn_plan *p = NULL;
    mn_plan_request q = {
        .graph = g, .n_outputs = 1, .outputs = &sum, .n_assigns = 2, .variables = v, .values = next, .backend = mn_backend_ref()};
    CHECK_OK(mn_plan_compile(&q, &p));
    float m[2][4] = {{1, 2, 3, 4}, {10, 20, 30, 40}};
    mn_plan_bind(p, v[0], m[0]);
    mn_plan_bind(p, v[1], m[1]);
    CHECK_OK(mn_plan_run(p));
    for (int i = 0; i < 4; i++) {
      float a = (float)(i + 1), b = 10 * a;
      CHECK(((float *)mn_plan_output(p, 0)->data)[i] == a + b, "sum");
      CHECK(m[0][i] == (swap ? b : 2 * a) && m[1][i] == (swap ? a : a + b), "%g %g", (double)m[0][i], (double)m[1][i]);
    }
    mn_plan_free(p);
    mn_graph_free(g);
  }
}

/* The same product, norm and sums wherever their memory begins, as long as that is aligned to an element. */
static void bound_memory_is_aligned_to_its_elements(void) {
  enum { M = 33, K = 70, N = 50 };
  float *x = calloc(M * K + 16, sizeof *x), *w = calloc(K * N + 16, sizeof *w), first[M * N] = {0};
  mn_backend *cpu;
  CHECK_OK(mn_backend_cpu_new(2, &cpu));
  mn_graph *g = mn_graph_new();
  mn_tensor *leaf[2] = {mn_input(g, "x", MN_F32, MN_SHAPE(M, K)), mn_input(g, "w", MN_F32, MN_SHAPE(K, N))};
  mn_tensor *y = mn_silu(g, mn_matmul(g, mn_add(g, leaf[0], mn_mul_scalar(g, leaf[0], 2)), leaf[1]));
  mn_plan *p = NULL;
  CHECK_OK(mn_plan_compile(&(mn_plan_request){.graph = g, .n_outputs = 1, .outputs = &y, .backend = cpu}, &p));
  for (int off = 0; off < 4 && p; off++) {
    for (int i = 0; i < M * K; i++) x[off + i] = (float)(i % 17 - 8) / 8;
    for (int i = 0; i < K * N; i++) w[off + i] = (float)(i % 13 - 6) / 16;
    mn_plan_bind(p, leaf[0], x + off);
    mn_plan_bind(p, leaf[1], w + off);
    CHECK_OK(mn_plan_run(p));
    const float *out = mn_plan_output(p, 0)->data;
    if (!off) memcpy(first, out, sizeof first);
    CHECK(!memcmp(first, out, sizeof first), "the same bits %d elements further", off);
  }
  mn_plan_bind(p, leaf[1], (char *)w + 2);
  CHECK(mn_plan_run(p) == MN_ERR_ARG && strstr(mn_message(), "'w'") && strstr(mn_message(), "aligned"), "%s", mn_message());
  mn_plan_free(p);
  mn_graph_free(g);
  mn_backend_free(cpu);
  free(x);
  free(w);
}

int main(void) {
  RUN(gradients_agree_with_central_differences);
  RUN(gradients_of_gradients_agree);
  RUN(passes_change_nothing);
  RUN(the_cpu_backend_agrees_with_the_reference);
  RUN(a_loop_costs_the_same_graph_at_any_length);
  RUN(equal_nodes_are_equal_whatever_the_stack_held);
  RUN(residual_sums_are_made_again_when_they_are_read);
  RUN(what_is_dear_and_near_is_kept);
  RUN(gradients_of_ones_own);
  RUN(slopes_at_corners);
  RUN(faults_are_sticky_and_say_what_is_wrong);
  RUN(assignments_happen_after_all_reads);
  RUN(bound_memory_is_aligned_to_its_elements);
  return test_end();
}
