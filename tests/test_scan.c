/* test_scan.c - what a loop promises beyond test_graph's: with a live length it is the loop of that many steps, in values and in
 * gradients of any order, whatever lies in the rows beyond; what is not live does not run; a live length of 0 or 1 is a condition.
 * What need not be done at every step leaves a loop, and nothing changes but the number of products. */
#include "gradcheck.h"
#include "graph/ops.h"

#define SHAPE(...)                                                                                                                         \
  {                                                                                                                                        \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), { __VA_ARGS__ }                                                             \
  }

/* ---- an operation that counts how often it runs; its gradient is itself ---- */
static int64_t runs;

static mn_status count_run(mn_call *c) {
  runs++;
  memcpy(c->out[0].data, c->in[0].data, (size_t)mn_view_count(&c->in[0]) * mn_dtype_size(c->in[0].dtype));
  return MN_OK;
}
static void counter_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)need;
  din[0] = mn_node1(g, n->op, 1, dout, dout[0]->dtype, dout[0]->shape, NULL);
}
static const mn_op op_counter = {.name = "counter", .cls = MN_OP_CORE, .grad = counter_grad};
static const mn_kernel counter = {.op = &op_counter, .name = "counter", .run = count_run};
static mn_backend counting[2]; /* the reference and the processor, with a kernel for it */

static mn_tensor *counted(mn_graph *g, mn_tensor *x) { return mn_node1(g, &op_counter, 1, &x, x->dtype, x->shape, NULL); }

/* c' = tanh(c w + x_t + s / 10), y_t = c' * c, s' = s + 1; x: c [2,3], x [n,2,3], w [3,3]; y: final c, ys. */
static bool segments = true;

static void loop(mn_graph *g, mn_tensor **x, mn_tensor **y, int64_t n, bool reverse, mn_tensor *live, bool counting_steps) {
  if (segments) g->keep_bytes = 0;
  mn_tensor *c[2], *xt, *final[2], *carry[2] = {x[0], mn_full(g, MN_I32, (mn_shape){0}, 0)};
  mn_scan_builder *b = mn_scan_begin(g, n, reverse, 2, carry, 1, &x[1], c, &xt);
  mn_graph *body = mn_scan_body(b);
  if (!body) return;
  if (live) mn_scan_set_live(b, live);
  mn_tensor *steps = mn_mul_scalar(body, mn_cast(body, c[1], x[0]->dtype), 0.1);
  mn_tensor *next = mn_tanh(body, mn_add(body, mn_add(body, mn_matmul(body, c[0], x[2]), xt), steps));
  if (counting_steps) next = counted(body, next);
  mn_tensor *out = mn_mul(body, next, c[0]);
  mn_scan_end(b, (mn_tensor *[]){next, mn_add_scalar(body, c[1], 1)}, 1, &out, final, &y[1]);
  y[0] = final[0];
}

/* ---- gradients in float64 ---- */
static void f_forward(mn_graph *g, mn_tensor **x, mn_tensor **y) { loop(g, x, y, mn_dim(x[1], 0), false, x[3], false); }
static void f_reverse(mn_graph *g, mn_tensor **x, mn_tensor **y) { loop(g, x, y, mn_dim(x[1], 0), true, x[3], false); }

/* Turns of segments: the outer loop is over turns, the inner one over as many segments as the turn has. */
static void f_nested(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  mn_tensor *c, *in[2], *xs[2] = {x[1], x[3]}, *inner[2];
  mn_scan_builder *b = mn_scan_begin(g, mn_dim(x[1], 0), MN_FORWARD, 1, x, 2, xs, &c, in);
  mn_graph *body = mn_scan_body(b);
  if (!body) return;
  mn_scan_set_live(b, x[4]);
  loop(body, (mn_tensor *[]){c, in[0], x[2]}, inner, mn_dim(in[0], 0), false, in[1], false);
  mn_scan_end(b, inner, 1, inner + 1, &y[0], &y[1]);
}

/* Layers that do the same, on what the one before gave; the first has the last one's weight, and only the end of the last is asked for. */
static void f_layers(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  mn_tensor *of[3] = {x[2], x[3], x[2]}, *out[2] = {NULL, x[1]};
  for (int i = 0; i < 3; i++) loop(g, (mn_tensor *[]){x[0], out[1], of[i]}, out, mn_dim(x[1], 0), false, NULL, false);
  y[0] = out[0];
}

static void gradients_agree_with_central_differences(void) {
  static const struct {
    int64_t n;
    int live;
  } lengths[] = {{5, 0}, {5, 1}, {5, 3}, {5, 5}, {23, 0}, {23, 2}, {23, 5}, {23, 13}, {23, 21}, {23, 23}, {25, 11}, {25, -4}, {25, 99}};
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
    for (int reverse = 0; reverse < 2; reverse++)
      for (int order = 1; order <= 2; order++) {
        segments = order == 1 || reverse; /* else as any loop this small: all carries are kept */
        const double n = lengths[i].live;
        gc_case c = {"live length", 4, 2, {{MN_F64, SHAPE(2, 3), -1, 1, false}, {MN_F64, SHAPE(lengths[i].n, 2, 3), -1, 1, false}}, NULL};
        c.x[2] = (gc_input){MN_F64, SHAPE(3, 3), -1, 1, false};
        c.x[3] = (gc_input){MN_I32, {0}, n, n, true};
        c.f = reverse ? f_reverse : f_forward;
        double e = gc_gradient_error(&c, order, 5);
        CHECK(e <= 1e-6, "%g of %lld steps%s, order %d: %g", n, (long long)lengths[i].n, reverse ? " backwards" : "", order, e);
      }
  for (int order = 1; order <= 2; order++) {
    segments = true;
    gc_case c = {"layers", 4, 1, {{MN_F64, SHAPE(2, 3), -1, 1, false}, {MN_F64, SHAPE(5, 2, 3), -1, 1, false}}, f_layers};
    c.x[2] = c.x[3] = (gc_input){MN_F64, SHAPE(3, 3), -1, 1, false};
    const double e = gc_gradient_error(&c, order, 5);
    CHECK(e <= 1e-6, "layers, order %d: %g", order, e);
  }
  for (int outer = 0; outer <= 4; outer++) { /* segments of a turn: 0 to 18 of 17 */
    gc_case c = {"nested", 5, 2, {{MN_F64, SHAPE(2, 3), -1, 1, false}, {MN_F64, SHAPE(4, 17, 2, 3), -1, 1, false}}, f_nested};
    c.x[2] = (gc_input){MN_F64, SHAPE(3, 3), -1, 1, false};
    c.x[3] = (gc_input){MN_I32, SHAPE(4), 0, 18, true};
    c.x[4] = (gc_input){MN_I32, {0}, outer, outer, true};
    double e = gc_gradient_error(&c, 1, 5);
    CHECK(e <= 1e-6, "%d turns: %g", outer, e);
  }
}

/* ---- what only stands beside a loop ---- */
/* The loop above and a carry that no step changes: where `read`, each step reads it. y: final c, ys, the other carry's end. */
static void beside(mn_graph *g, mn_tensor **x, mn_tensor **y, bool read, bool live) {
  g->keep_bytes = 0;
  mn_tensor *c[2], *xt, *carry[2] = {x[0], x[3]}, *final[2];
  mn_scan_builder *b = mn_scan_begin(g, mn_dim(x[1], 0), MN_FORWARD, 2, carry, 1, &x[1], c, &xt);
  mn_graph *body = mn_scan_body(b);
  if (!body) return;
  if (live) mn_scan_set_live(b, x[4]);
  mn_tensor *next = mn_tanh(body, mn_add(body, mn_matmul(body, c[0], x[2]), read ? mn_mul(body, xt, c[1]) : xt));
  mn_scan_end(b, (mn_tensor *[]){next, c[1]}, 1, &next, final, &y[1]);
  y[0] = final[0], y[2] = final[1];
}
static void f_beside(mn_graph *g, mn_tensor **x, mn_tensor **y) { beside(g, x, y, false, true); }
static void f_read(mn_graph *g, mn_tensor **x, mn_tensor **y) { beside(g, x, y, true, true); }

static int reverse_carries(const mn_graph *g) { /* of the last loop of the graph */
  int n = -1;
  for (int i = 0; i < g->n_nodes; i++)
    if (g->nodes[i]->op == &mn_op_scan) n = ((const mn_scan_attr *)g->nodes[i]->attr)->n_carry;
  return n;
}

static void what_stands_beside_a_loop_pays_for_no_gradient(void) {
  for (int read = 0; read < 2; read++)
    for (int live = 0; live < 3; live++)
      for (int order = 1; order <= 2; order++) {
        gc_case c = {"beside", 5, 3, {{MN_F64, SHAPE(2, 3), -1, 1, false}, {MN_F64, SHAPE(19, 2, 3), -1, 1, false}}, NULL};
        c.x[2] = (gc_input){MN_F64, SHAPE(3, 3), -1, 1, false};
        c.x[3] = (gc_input){MN_F64, SHAPE(2, 3), -1, 1, false};
        c.x[4] = (gc_input){MN_I32, {0}, 9 * live, 9 * live, true};
        c.f = read ? f_read : f_beside;
        const double e = gc_gradient_error(&c, order, 5);
        CHECK(e <= 1e-6, "%s by the steps, %d of them, order %d: %g", read ? "read" : "not read", 9 * live, order, e);
      }
  for (int read = 0; read < 2; read++) {
    mn_graph *g = mn_graph_new();
    mn_tensor *x[4] = {mn_input(g, "c", MN_F32, MN_SHAPE(2, 3)), mn_input(g, "x", MN_F32, MN_SHAPE(5, 2, 3)),
                       mn_input(g, "w", MN_F32, MN_SHAPE(3, 3)), mn_input(g, "beside", MN_F32, MN_SHAPE(2, 3))};
    mn_tensor *y[3], *d[4];
    beside(g, x, y, read, false);
    CHECK_OK(mn_grad(g, 1, y, NULL, 4, x, d));
    CHECK(reverse_carries(g) == 2 + read, "read %d: the loop back carries %d", read, reverse_carries(g)); /* c, the sum for w */
    mn_graph_free(g);
  }
}

/* ---- the loop of so many steps ---- */
typedef struct outcome { /* final carry, ys, d carry, d xs, d w */
  double *at[5];
} outcome;

static outcome run_loop(mn_backend *b, unsigned off, int64_t room, int64_t n, int live, bool reverse) {
  mn_graph *g = mn_graph_new();
  mn_tensor *x[4] = {mn_input(g, "c", MN_F32, MN_SHAPE(2, 3)), mn_input(g, "x", MN_F32, MN_SHAPE(room, 2, 3)),
                     mn_input(g, "w", MN_F32, MN_SHAPE(3, 3)), mn_input(g, "live", MN_I32, (mn_shape){0})};
  mn_tensor *y[5], *some[3] = {x[0], n < room ? mn_slice(g, x[1], 0, 0, n) : x[1], x[2]};
  double *value[4], length = live;
  outcome o = {{NULL}};
  for (int i = 0; i < 3; i++) {
    int64_t count = mn_shape_count(&x[i]->shape);
    value[i] = malloc((size_t)count * sizeof(double));
    for (int64_t k = 0; k < count; k++) value[i][k] = mn_random_normal((uint64_t)i, 8, (uint64_t)k);
    for (int64_t k = live * 6; i == 1 && live >= 0 && k < count; k++) value[i][k] = NAN; /* nothing may come of what lies beyond */
  }
  value[3] = &length;
  loop(g, some, y, n, reverse, live < 0 ? NULL : x[3], true);
  mn_tensor *dy[2] = {mn_full(g, MN_F32, y[0]->shape, 0.5), mn_full(g, MN_F32, y[1]->shape, 2)};
  CHECK_OK(mn_grad(g, 2, y, dy, 3, x, y + 2));
  runs = 0;
  CHECK(gc_run(g, b, off, MN_RECOMPUTE_NORMS, 4, x, value, 5, y, o.at), "%s", mn_message());
  for (int i = 0; i < 3; i++) free(value[i]);
  mn_graph_free(g);
  return o;
}

static void it_is_the_loop_of_so_many_steps(void) {
  for (int room = 5; room <= 23; room += 18)
    for (int n = 1; n <= room; n += room == 5 ? 1 : 3)
      for (int k = 0; k < 8; k++) {
        const int reverse = k & 1, b = k >> 1 & 1;
        const unsigned off = k >> 2 ? MN_PASS_ALL : 0;
        outcome live = run_loop(&counting[b], off, room, room, n, reverse), plain = run_loop(&counting[b], off, room, n, -1, reverse);
        const int64_t rows[5] = {6, n * 6, 6, room * 6, 9};
        for (int i = 0; i < 5 && live.at[i] && plain.at[i]; i++) {
          double e = gc_difference(plain.at[i], live.at[i], rows[i]);
          CHECK(e <= 2e-6, "%d of %d steps, way %d: result %d differs by %g", n, room, k, i, e);
        }
        for (int i = n * 6; i < room * 6 && live.at[1]; i++)
          CHECK(live.at[1][i] == 0, "row %d beyond %d holds %g", i / 6, n, live.at[1][i]);
        for (int i = 0; i < 5; i++) free(live.at[i]), free(plain.at[i]);
      }
}

static void no_step_leaves_what_was_given(void) {
  for (int room = 4; room <= 30; room += 26)
    for (int k = 0; k < 4; k++) {
      outcome o = run_loop(&counting[k >> 1], 0, room, room, 0, k & 1);
      CHECK(runs == 0, "%lld steps ran", (long long)runs);
      for (int i = 0; i < 6 && o.at[4]; i++)
        CHECK((float)o.at[0][i] == (float)mn_random_normal(0, 8, (uint64_t)i) && o.at[2][i] == 0.5, "carry %g, its gradient %g", o.at[0][i],
              o.at[2][i]);
      for (int i = 0; i < room * 6 && o.at[4]; i++) CHECK(o.at[1][i] == 0 && o.at[3][i] == 0, "row %d", i / 6);
      for (int i = 0; i < 9 && o.at[4]; i++) CHECK(o.at[4][i] == 0, "the weight's gradient is %g", o.at[4][i]);
      for (int i = 0; i < 5; i++) free(o.at[i]);
    }
}

static void what_is_not_live_does_not_run(void) {
  for (int reverse = 0; reverse < 2; reverse++)
    for (int room = 10; room <= 100; room += 90) { /* all carries kept; kept by segments of 10, which are run once more */
      for (int n = 0; n <= 10; n++) {
        outcome o = run_loop(&counting[1], 0, room, room, n, reverse);
        const int64_t most = (room == 10 ? 3 : 4) * n; /* forward; perhaps again; and in each step the value and its gradient */
        CHECK(runs >= 2 * n && runs <= most, "%d of %d live steps, forward and backward: %lld runs", n, room, (long long)runs);
        for (int i = 0; i < 5; i++) free(o.at[i]);
      }
    }
}

/* ---- what leaves a loop ---- */
static int64_t products;
static const mn_kernel *product_kernel;
static mn_status count_product(mn_call *c) {
  products++;
  return product_kernel->run(c);
}

static void what_is_constant_runs_once(void) {
  for (int k = 0; k < 8; k++) { /* also from a loop in a loop; not where a loop may have no step that is live */
    const int inner = k & 1, live = k >> 1 & 1;
    mn_graph *g = mn_graph_new();
    mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(2, 3)), *w = mn_input(g, "w", MN_F32, MN_SHAPE(3, 3)), *c[2], *final[2];
    mn_scan_builder *b = mn_scan_begin(g, 9, MN_FORWARD, 1, &x, 0, NULL, &c[0], NULL);
    mn_graph *body = mn_scan_body(b);
    if (live) mn_scan_set_live(b, mn_scalar(g, MN_I32, 4));
    mn_scan_builder *in = inner ? mn_scan_begin(body, 5, MN_BACKWARD, 1, &c[0], 0, NULL, &c[1], NULL) : NULL;
    mn_graph *deep = inner ? mn_scan_body(in) : body;
    mn_tensor *next = mn_tanh(deep, mn_matmul(deep, c[inner], mn_add(deep, counted(deep, mn_transpose(deep, w, 0, 1)), w)));
    if (inner) mn_scan_end(in, &next, 0, NULL, &final[1], NULL), next = final[1];
    mn_scan_end(b, &next, 0, NULL, &final[0], NULL);
    double *value[2], *y[2][1];
    for (int i = 0; i < 2; i++) {
      value[i] = malloc(9 * sizeof(double));
      for (int e = 0; e < 9; e++) value[i][e] = mn_random_normal((uint64_t)i, 4, (uint64_t)e);
    }
    for (int off = 0; off < 2; off++) {
      runs = 0;
      CHECK(gc_run(g, &counting[k >> 2], off ? MN_PASS_LOOPS : 0, MN_KEEP, 2, (mn_tensor *[]){x, w}, value, 1, final, y[off]), "%s",
            mn_message());
      const int64_t steps = live ? 4 : 9, expect = off ? steps * (inner ? 5 : 1) : live ? steps : 1;
      CHECK(runs == expect, "way %d, off %d: %lld runs, not %lld", k, off, (long long)runs, (long long)expect);
    }
    for (int e = 0; e < 6 && y[0][0] && y[1][0]; e++) CHECK(y[0][0][e] == y[1][0][e], "%d: %g, %g", e, y[0][0][e], y[1][0][e]);
    for (int i = 0; i < 2; i++) free(value[i]), free(y[i][0]);
    mn_graph_free(g);
  }
}

/* h' = tanh(x_t w + h u^T + b) with products in `type`: y: hs, final h. */
static void recurrent(mn_graph *g, mn_tensor **x, mn_tensor **y, mn_dtype type, bool reverse) {
  mn_tensor *in, *xt, *h = x[1];
  mn_scan_builder *b = mn_scan_begin(g, mn_dim(x[0], 0), reverse, 1, &h, 1, x, &in, &xt);
  mn_graph *s = mn_scan_body(b);
  mn_tensor *u = mn_transpose(s, mn_cast(s, x[3], type), 0, 1), *w = mn_cast(s, x[2], type);
  mn_tensor *z = mn_matmul_as(s, mn_cast(s, xt, type), w, x[0]->dtype);
  z = mn_add(s, z, mn_matmul_as(s, mn_cast(s, in, type), u, x[0]->dtype));
  mn_tensor *next = mn_tanh(s, mn_add(s, z, x[4]));
  mn_scan_end(b, &next, 1, &next, &y[1], &y[0]);
}

static void products_of_all_steps_are_one(void) {
  for (int k = 0; k < 24; k++) {
    const bool reverse = k & 1, bf16 = k >> 1 & 1, processor = k >> 2 & 1;
    const int how = k >> 3; /* all carries kept; in segments; the gradient's gradient */
    const mn_dtype real = bf16 || processor ? MN_F32 : MN_F64;
    const int64_t T = how == 2 ? 5 : 23;
    mn_graph *g = mn_graph_new();
    if (how == 1) g->keep_bytes = 0;
    const mn_shape shapes[5] = {MN_SHAPE(T, 4, 3), MN_SHAPE(4, 6), MN_SHAPE(3, 6), MN_SHAPE(6, 6), MN_SHAPE(6)};
    mn_tensor *x[5], *y[7];
    double *value[5], *out[2][7];
    for (int i = 0; i < 5; i++) {
      int64_t n = mn_shape_count(&shapes[i]);
      x[i] = mn_input(g, "x", real, shapes[i]);
      value[i] = malloc((size_t)n * sizeof(double));
      for (int64_t e = 0; e < n; e++) value[i][e] = 0.5 * mn_random_normal((uint64_t)i, 6, (uint64_t)e);
    }
    recurrent(g, x, y, bf16 ? MN_BF16 : real, reverse);
    CHECK_OK(mn_grad(g, 2, y, NULL, 5, x, y + 2));
    if (how == 2) {
      mn_tensor *z[5];
      for (int i = 0; i < 5; i++) z[i] = mn_square(g, y[2 + i]);
      CHECK_OK(mn_grad(g, 5, z, NULL, 5, x, y + 2));
    }
    int64_t made[2];
    for (int off = 0; off < 2; off++) {
      products = 0;
      CHECK(gc_run(g, &counting[processor], off ? MN_PASS_LOOPS : 0, MN_RECOMPUTE_CHEAP, 5, x, value, 7, y, out[off]), "%s", mn_message());
      made[off] = products;
    }
    /* forward x w once and h u T times; backward h u once (x w is the same), the gradients of x and the weights once, that of h T times */
    if (how == 0 && !processor)
      CHECK(made[0] == 2 * T + 5 && made[1] > 5 * T, "%lld products, as written %lld", (long long)made[0], (long long)made[1]);
    if (!processor)
      CHECK((how == 2 ? 1 : 2) * made[0] < made[1], "way %d: %lld products, as written %lld", k, (long long)made[0], (long long)made[1]);
    for (int j = 0; j < 7 && out[0][j] && out[1][j]; j++) {
      double e = gc_difference(out[1][j], out[0][j], mn_shape_count(&y[j]->shape));
      CHECK(e <= (bf16 ? 2e-2 : processor ? 1e-5 : 1e-12), "way %d, result %d differs by %g", k, j, e);
    }
    for (int j = 0; j < 7; j++) free(out[0][j]), free(out[1][j]);
    for (int i = 0; i < 5; i++) free(value[i]);
    mn_graph_free(g);
  }
}

/* ---- loops that do the same have one body ---- */
/* Loops one after the other, each with a table of its own that it multiplies by: c' = tanh(k c + x_t). */
static mn_plan_report chained(mn_graph *g, int loops, bool same, mn_tensor *x, mn_tensor *c, mn_tensor **y) {
  for (int i = 0; i < loops; i++) {
    float table[3];
    mn_tensor *in, *xt, *final;
    for (int e = 0; e < 3; e++) table[e] = 0.5f + (float)e + (same ? 0 : (float)i);
    mn_scan_builder *b = mn_scan_begin(g, mn_dim(x, 0), MN_FORWARD, 1, &c, 1, &x, &in, &xt);
    mn_graph *body = mn_scan_body(b);
    mn_tensor *next = mn_tanh(body, mn_add(body, mn_mul(body, mn_const(body, MN_F32, MN_SHAPE(3), table), in), xt));
    mn_scan_end(b, &next, 0, NULL, &final, NULL);
    c = final;
  }
  *y = c;
  mn_plan *p = NULL;
  mn_plan_report report = {0};
  CHECK_OK(mn_plan_compile(&(mn_plan_request){.graph = g, .n_outputs = 1, .outputs = y, .backend = &counting[1]}, &p));
  if (p) report = *mn_plan_get_report(p);
  mn_plan_free(p);
  return report;
}

static void loops_of_equal_tables_share_them(void) {
  size_t bytes[3] = {0};
  for (int k = 0; k < 3; k++) { /* one loop, five alike, five with tables of their own */
    const int loops = k ? 5 : 1;
    mn_graph *g = mn_graph_new();
    mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(4, 3)), *c = mn_input(g, "c", MN_F32, MN_SHAPE(3)), *y;
    bytes[k] = chained(g, loops, k < 2, x, c, &y).bytes_constants;
    double xs[12], state[3], want[3], *value[2] = {xs, state}, *got[1] = {NULL};
    for (int e = 0; e < 12; e++) xs[e] = (float)mn_random_normal(1, 2, (uint64_t)e);
    for (int e = 0; e < 3; e++) want[e] = state[e] = (float)mn_random_normal(2, 2, (uint64_t)e);
    CHECK(gc_run(g, &counting[1], 0, MN_KEEP, 2, (mn_tensor *[]){x, c}, value, 1, &y, got), "%s", mn_message());
    for (int i = 0; i < loops; i++)
      for (int t = 0; t < 4; t++)
        for (int e = 0; e < 3; e++) want[e] = tanh((0.5 + e + (k < 2 ? 0 : i)) * want[e] + xs[3 * t + e]);
    for (int e = 0; e < 3 && got[0]; e++) CHECK(fabs(got[0][e] - want[e]) < 1e-5, "%d: %g, not %g", e, got[0][e], want[e]);
    free(got[0]);
    mn_graph_free(g);
  }
  CHECK(bytes[0] > 0 && bytes[1] == bytes[0] && bytes[2] > bytes[1], "tables of one loop %zu bytes, of five alike %zu, of five others %zu",
        bytes[0], bytes[1], bytes[2]);
}

/* Layers of one kind, each with weights of its own: what leaves the first leaves all, made of their own operands. */
/* Loops of the graph, and how many bodies they have among them. */
static int bodies_of(const mn_graph *g, int *loops) {
  int different = 0;
  *loops = 0;
  for (int i = 0; i < g->n_nodes; i++) {
    if (g->nodes[i]->op != &mn_op_scan) continue;
    bool before = false;
    for (int j = 0; j < i && !before; j++)
      before = g->nodes[j]->op == &mn_op_scan && ((mn_scan_attr *)g->nodes[j]->attr)->body == ((mn_scan_attr *)g->nodes[i]->attr)->body;
    ++*loops;
    different += !before;
  }
  return different;
}

static void loops_that_do_the_same_have_operands_of_their_own(void) {
  enum { LAYERS = 4, IN = 1 + 4 * LAYERS, T = 9 };
  for (int k = 0; k < 4; k++) {
    const bool reverse = k & 1, again = k >> 1; /* the last layer once more, on what it gave */
    mn_graph *g = mn_graph_new();
    mn_tensor *x[IN], *y[IN + 1], *out[2] = {NULL};
    double *value[IN], *got[2][IN + 1];
    x[0] = mn_input(g, "x", MN_F32, MN_SHAPE(T, 4, 6));
    for (int i = 1; i < IN; i++) x[i] = mn_input(g, "w", MN_F32, i % 4 == 1 ? MN_SHAPE(4, 6) : i % 4 == 0 ? MN_SHAPE(6) : MN_SHAPE(6, 6));
    for (int i = 0; i < IN; i++) {
      const int64_t n = mn_shape_count(&x[i]->shape);
      value[i] = malloc((size_t)n * sizeof(double));
      for (int64_t e = 0; e < n; e++) value[i][e] = (float)(0.5 * mn_random_normal((uint64_t)i, 11, (uint64_t)e));
    }
    mn_tensor *h = x[0];
    for (int l = 0; l < LAYERS + again; l++) {
      const int of = l < LAYERS ? l : LAYERS - 1;
      mn_tensor *operands[5] = {h, x[1 + 4 * of], x[2 + 4 * of], x[3 + 4 * of], x[4 + 4 * of]};
      recurrent(g, operands, out, MN_F32, reverse);
      h = out[0];
    }
    y[IN] = h;
    const int forward = LAYERS + again;
    int loops, bodies;
    CHECK_OK(mn_grad(g, 1, &h, NULL, IN, x, y));
    bodies = bodies_of(g, &loops);
    CHECK(loops == 2 * forward && bodies == forward + 1, "way %d: %d loops have %d bodies; all gradients have one", k, loops, bodies);
    for (int off = 0; off < 2; off++)
      CHECK(gc_run(g, &counting[1], off ? MN_PASS_LOOPS : 0, MN_RECOMPUTE_CHEAP, IN, x, value, IN + 1, y, got[off]), "%s", mn_message());
    for (int j = 0; j <= IN && got[0][j] && got[1][j]; j++) {
      const double e = gc_difference(got[1][j], got[0][j], mn_shape_count(&y[j]->shape));
      CHECK(e <= 1e-5, "way %d, result %d differs by %g", k, j, e);
    }
    for (int j = 0; j <= IN; j++) free(got[0][j]), free(got[1][j]);
    for (int i = 0; i < IN; i++) free(value[i]);
    mn_graph_free(g);
  }
}

/* ---- room for carries ---- */
/* Three loops of 40 steps, whose carries take 40 (2 3 8 + 4) bytes each, with room for two of them: gradients go backwards, so the first loop goes
 * in segments, and is run once more. */
static void loops_share_the_room_for_their_carries(void) {
  enum { LENGTH = 40, BYTES = LENGTH * (2 * 3 * 8 + 4) };
  segments = false;
  for (int room = 0; room <= 3; room++) {
    mn_graph *g = mn_graph_new();
    g->keep_bytes = room * BYTES + BYTES - 1;
    mn_tensor *x[3] = {mn_input(g, "c", MN_F64, MN_SHAPE(2, 3)), mn_input(g, "x", MN_F64, MN_SHAPE(LENGTH, 2, 3)),
                       mn_input(g, "w", MN_F64, MN_SHAPE(3, 3))};
    mn_tensor *y[2], *w = x[2], *dw;
    for (int i = 0; i < 3; i++) {
      loop(g, x, y, LENGTH, false, NULL, false);
      x[0] = y[0], x[2] = mn_mul_scalar(g, x[2], 0.9);
    }
    CHECK_OK(mn_grad(g, 1, y, NULL, 1, &w, &dw));
    CHECK(g->keep_bytes == BYTES - 1, "room for %d: %lld bytes are left", room, (long long)g->keep_bytes);
    int kept = 0;
    for (int i = 0; i < g->n_nodes; i++)
      if (g->nodes[i]->op == &mn_op_scan) {
        const mn_scan_attr *a = g->nodes[i]->attr;
        kept += a->length == LENGTH && a->save_every == 1;
      }
    CHECK(kept == room, "room for %d: %d keep all", room, kept);
    mn_graph_free(g);
  }
  segments = true;
}

static void a_wrong_live_length_is_refused(void) {
  for (int k = 0; k < 3; k++) {
    mn_graph *g = mn_graph_new();
    mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(2)), *c, *final;
    mn_tensor *live = k == 0 ? mn_scalar(g, MN_F32, 1) : k == 1 ? mn_full(g, MN_I32, MN_SHAPE(2), 1) : NULL;
    mn_scan_builder *b = mn_scan_begin(g, 3, MN_FORWARD, 1, &x, 0, NULL, &c, NULL);
    mn_scan_set_live(b, live);
    mn_scan_end(b, &c, 0, NULL, &final, NULL);
    CHECK(mn_graph_status(g) != MN_OK && strstr(mn_message(), "live length"), "%s", mn_message());
    mn_graph_free(g);
  }
}

int main(void) {
  mn_backend *cpu;
  if (mn_backend_cpu_new(2, &cpu) != MN_OK) return 1;
  const mn_kernel **lists[2];
  static mn_kernel counting_product; /* the reference's */
  for (int i = 0; i < 2; i++) {
    const mn_backend *base = i ? cpu : mn_backend_ref();
    lists[i] = calloc((size_t)base->n_kernels + 1, sizeof *lists[i]);
    lists[i][0] = &counter;
    for (int k = 0; k < base->n_kernels; k++) {
      lists[i][1 + k] = base->kernels[k];
      if (base->kernels[k]->op != &mn_op_matmul || i) continue;
      product_kernel = base->kernels[k];
      lists[i][1 + k] = &counting_product;
      counting_product = *product_kernel;
      counting_product.run = count_product;
    }
    counting[i] = *base;
    counting[i].kernels = lists[i];
    counting[i].sorted = false;
    counting[i].n_kernels = base->n_kernels + 1;
  }
  RUN(gradients_agree_with_central_differences);
  RUN(what_stands_beside_a_loop_pays_for_no_gradient);
  RUN(it_is_the_loop_of_so_many_steps);
  RUN(no_step_leaves_what_was_given);
  RUN(what_is_not_live_does_not_run);
  RUN(what_is_constant_runs_once);
  RUN(products_of_all_steps_are_one);
  RUN(loops_of_equal_tables_share_them);
  RUN(loops_that_do_the_same_have_operands_of_their_own);
  RUN(loops_share_the_room_for_their_carries);
  RUN(a_wrong_live_length_is_refused);
  free(lists[0]);
  free(lists[1]);
  mn_backend_free(cpu);
  return test_end();
}
