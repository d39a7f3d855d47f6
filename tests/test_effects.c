/* test_effects.c - what an operation with an effect promises: it runs once where it was built, after the effects built before it,
 * whether or not anything reads it, under any passes and on both backends; in a loop once a step; the gradient of a loop, which runs
 * the loop's steps again, does not repeat it; building something only to see what it declares does not run it; where that cannot be
 * kept, compiling says so. */
#include "gradcheck.h"
#include "graph/ops.h"
#include "nn/scope.h"

/* ---- two operations that write down what they see ---- */
typedef struct entry {
  int id;
  double value;
} entry;
static entry seen[256];
static int n_seen;

static mn_status see(mn_call *c) {
  if (n_seen < 256) seen[n_seen++] = (entry){*(const int *)c->attr, mn_element_load(c->in[0].data, c->in[0].dtype, 0)};
  if (c->n_out) memcpy(c->out[0].data, c->in[0].data, (size_t)mn_view_count(&c->in[0]) * mn_dtype_size(c->in[0].dtype));
  return MN_OK;
}
static void tap_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  (void)g, (void)n, (void)need;
  din[0] = dout[0];
}
static void tap_alone(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  (void)g, (void)n;
  out[0] = in[0];
}
static const mn_op op_note = {.name = "note", .cls = MN_OP_CORE, .attr_size = sizeof(int), .effect = true, .no_grad = true};
static const mn_op op_tap = {
    .name = "tap", .cls = MN_OP_CORE, .attr_size = sizeof(int), .effect = true, .grad = tap_grad, .compose = tap_alone};
static const mn_op op_meter = {.name = "meter", .cls = MN_OP_CORE, .attr_size = sizeof(int), .effect = true, .grad = tap_grad};
static const mn_op op_lost = {.name = "lost", .cls = MN_OP_FUSED, .attr_size = sizeof(int), .effect = true, .compose = tap_alone};

static void note(mn_graph *g, mn_tensor *x, int id) { mn_node_new(g, &op_note, 1, &x, 0, NULL, NULL, &id); }
static mn_tensor *through(mn_graph *g, const mn_op *op, mn_tensor *x, int id) { return mn_node1(g, op, 1, &x, x->dtype, x->shape, &id); }

/* ---- backends that have kernels for them ---- */
static const mn_kernel kernels[] = {{.op = &op_note, .name = "note", .run = see},
                                    {.op = &op_tap, .name = "tap", .run = see},
                                    {.op = &op_meter, .name = "meter", .run = see}};
static mn_backend backends[2];
static const mn_kernel **lists[2];

static void backend_init(int i, const mn_backend *base) {
  lists[i] = calloc((size_t)base->n_kernels + 3, sizeof *lists[i]);
  for (int k = 0; k < 3; k++) lists[i][k] = &kernels[k];
  for (int k = 0; k < base->n_kernels; k++) lists[i][3 + k] = base->kernels[k];
  backends[i] = *base;
  backends[i].kernels = lists[i];
  backends[i].n_kernels = base->n_kernels + 3;
  backends[i].sorted = false;
}

static const unsigned some_passes[] = {0, MN_PASS_ALL, MN_PASS_SIMPLIFY, MN_PASS_FUSE, MN_PASS_RECOMPUTE, MN_PASS_INPLACE};
enum { N_PASSES = sizeof some_passes / sizeof *some_passes };

/* Runs it once; x is all ones. False when it did not compile. */
static bool run(mn_graph *g, mn_tensor *leaf, int n, mn_tensor **y, int backend, unsigned off, double **out) {
  int64_t count = mn_shape_count(&leaf->shape);
  double *ones = malloc((size_t)count * sizeof *ones);
  for (int64_t i = 0; i < count; i++) ones[i] = 1;
  n_seen = 0;
  bool ok = gc_run(g, &backends[backend], off, MN_RECOMPUTE_NORMS, 1, &leaf, &ones, n, y, out) != 0;
  free(ones);
  return ok;
}

#define EVERYWHERE                                                                                                                         \
  for (int b = 0; b < 2; b++)                                                                                                              \
    for (int k = 0; k < N_PASSES; k++)

static void nobody_reads_it_and_it_runs_once_in_order(void) {
  EVERYWHERE {
    mn_graph *g = mn_graph_new();
    mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(4)), *y, *late;
    double *out[1];
    note(g, x, 1);
    late = mn_exp(g, mn_mul_scalar(g, x, 0)); /* fuses with what is built at the end: 1 */
    note(g, late, 2);
    note(g, x, 3);
    note(g, x, 3); /* the same again is again */
    mn_tensor *t = through(g, &op_tap, mn_add_scalar(g, x, 4), 4);
    through(g, &op_tap, mn_add_scalar(g, x, 4), 4);
    y = mn_sin(g, mn_add(g, mn_mul_scalar(g, late, 2), t));
    CHECK(run(g, x, 1, &y, b, some_passes[k], out), "%s", mn_message());
    static const entry expect[] = {{1, 1}, {2, 1}, {3, 1}, {3, 1}, {4, 5}, {4, 5}};
    CHECK(n_seen == 6, "backend %d, passes off %x: %d effects", b, some_passes[k], n_seen);
    for (int i = 0; i < 6 && i < n_seen; i++)
      CHECK(seen[i].id == expect[i].id && seen[i].value == expect[i].value, "backend %d, off %x, %d: %d saw %g", b, some_passes[k], i,
            seen[i].id, seen[i].value);
    CHECK(fabs(out[0][0] - sin(7)) < 1e-6, "%g", out[0][0]);
    free(out[0]);
    mn_graph_free(g);
  }
}

/* c' = 2 c, noted and tapped in each step; with a loop in the loop. */
static mn_tensor *doubling(mn_graph *g, mn_tensor *x, int64_t n, const mn_op *op, int inner) {
  mn_tensor *in, *final = NULL;
  mn_scan_builder *b = mn_scan_begin(g, n, MN_FORWARD, 1, &x, 0, NULL, &in, NULL);
  mn_graph *body = mn_scan_body(b);
  if (!body) return NULL;
  note(body, in, 1);
  mn_tensor *next = inner ? doubling(body, in, inner, op, 0) : through(body, op, mn_mul_scalar(body, in, 2), 2);
  mn_scan_end(b, &next, 0, NULL, &final, NULL);
  return final;
}

static void in_a_loop_it_runs_once_a_step(void) {
  EVERYWHERE for (int read = 0; read < 2; read++) {
    mn_graph *g = mn_graph_new();
    mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(4)), *y = doubling(g, x, 5, &op_tap, 0), *out_of = read ? y : mn_neg(g, x);
    double *out[1];
    CHECK(run(g, x, 1, &out_of, b, some_passes[k], out), "%s", mn_message());
    CHECK(n_seen == 10, "backend %d, off %x: %d effects in 5 steps%s", b, some_passes[k], n_seen, read ? "" : " that nobody reads");
    for (int i = 0; i < n_seen; i++)
      CHECK(seen[i].id == 1 + i % 2 && seen[i].value == pow(2, (i + 1) / 2), "%d: %d saw %g", i, seen[i].id, seen[i].value);
    free(out[0]);
    mn_graph_free(g);
  }
}

static void a_gradient_does_not_repeat_it(void) {
  EVERYWHERE for (int shape = 0; shape < 3; shape++) { /* all carries kept; kept by segments, which are run again; a loop in a loop */
    mn_graph *g = mn_graph_new();
    const int length = shape == 1 ? 23 : 4, inner = shape == 2 ? 3 : 0;
    mn_tensor *x = mn_input(g, "x", MN_F64, MN_SHAPE(2)), *y[2];
    y[0] = doubling(g, through(g, &op_tap, x, 7), length, &op_tap, inner);
    CHECK_OK(mn_grad(g, 1, y, NULL, 1, &x, &y[1]));
    double *out[2];
    CHECK(run(g, x, 2, y, b, some_passes[k], out), "%s", mn_message());
    const int steps = inner ? length * inner : length, effects = 1 + (inner ? length : 0) + 2 * steps;
    CHECK(n_seen == effects, "backend %d, off %x, shape %d: %d effects, not %d", b, some_passes[k], shape, n_seen, effects);
    CHECK(out[0][0] == pow(2, steps) && out[1][0] == pow(2, steps), "value %g, gradient %g", out[0][0], out[1][0]);
    free(out[0]);
    free(out[1]);
    mn_graph_free(g);
  }
}

static mn_tensor *noted(mn_scope *s, void *ctx, mn_tensor *x) {
  (void)ctx;
  note(mn_scope_graph(s), x, 5);
  return mn_neg(mn_scope_graph(s), x);
}

static void declaring_is_not_running(void) {
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32}, 1);
  mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(1, 7, 2)), *y = mn_scope_loop(s, 2, noted, NULL, x);
  double *out[1];
  CHECK(run(g, x, 1, &y, 1, 0, out), "%s", mn_message());
  CHECK(n_seen == 4, "%d effects over 3 pieces and a rest; the loop is built once more to see which states it declares", n_seen);
  free(out[0]);
  mn_graph_free(g);
}

static void what_cannot_be_kept_is_said(void) {
  double *out[1];
  mn_graph *g = mn_graph_new();
  mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(2)), *y = through(g, &op_lost, x, 1);
  CHECK(!run(g, x, 1, &y, 0, 0, out) && strstr(mn_message(), "lost"), "an effect without a kernel: %s", mn_message());
  mn_graph_free(g);
  g = mn_graph_new();
  x = mn_input(g, "x", MN_F32, MN_SHAPE(2));
  y = doubling(g, x, 4, &op_meter, 0);
  CHECK(mn_grad(g, 1, &y, NULL, 1, &x, &y) == MN_ERR_UNSUPPORTED && strstr(mn_message(), "meter"), "its value is needed again: %s",
        mn_message());
  mn_graph_free(g);
}

int main(void) {
  mn_backend *cpu;
  if (mn_backend_cpu_new(2, &cpu) != MN_OK) return 1;
  backend_init(0, mn_backend_ref());
  backend_init(1, cpu);
  RUN(nobody_reads_it_and_it_runs_once_in_order);
  RUN(in_a_loop_it_runs_once_a_step);
  RUN(a_gradient_does_not_repeat_it);
  RUN(declaring_is_not_running);
  RUN(what_cannot_be_kept_is_said);
  free(lists[0]);
  free(lists[1]);
  mn_backend_free(cpu);
  return test_end();
}
