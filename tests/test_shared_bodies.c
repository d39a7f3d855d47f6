/* test_shared_bodies.c - loops that do the same share one body (plan_bodies.c): layers whose loops differ in nothing but their parameters
 * compile as many bodies as one layer does, and give what the same layers give without a loop, forwards and in their gradients. Loops that
 * differ in a number, in how an operand lies, in their direction or in their length share nothing. */
#include "gradcheck.h"

#include "compile/plan_internal.h"

enum {
  LAYERS = 3,
  N = 5,
  X = 1 + LAYERS,
  Y = 1 + LAYERS
}; /* x: the sequence, then a matrix a layer; y: the result, then gradients of those */

typedef enum kind { SAME, IN_PARTS, INSIDE_ANOTHER, OTHER_NUMBER, OTHER_STRIDES, OTHER_WAY, KINDS } kind;
static const char *const names[KINDS] = {"the same",       "the same, in parts", "the same, with a loop inside",
                                         "another number", "other strides",      "another way"};
static bool alike(kind what) { return what <= INSIDE_ANOTHER; }

typedef struct layer { /* what layer l does */
  kind what;
  int l;
} layer;

/* One step, s' = c tanh(s w + x), and what it shows, s' (s' w); with a loop inside, tanh and the product are done twice by it. */
static mn_tensor *inner(mn_graph *g, const layer *a, mn_tensor *s, mn_tensor *w, mn_tensor *x) {
  mn_tensor *y = mn_tanh(g, mn_add(g, mn_matmul(g, s, w), x));
  return mn_mul_scalar(g, y, a->what == OTHER_NUMBER ? 0.5 + 0.1 * a->l : 0.5);
}

static mn_tensor *step(mn_graph *g, const layer *a, bool loops, mn_tensor *s, mn_tensor *w, mn_tensor *x, mn_tensor **shown) {
  mn_tensor *y = s;
  if (a->what != INSIDE_ANOTHER) {
    y = inner(g, a, s, w, x);
  } else if (!loops) {
    for (int i = 0; i < 2; i++) y = inner(g, a, y, w, x);
  } else {
    mn_tensor *in, *out;
    mn_scan_builder *b = mn_scan_begin(g, 2, MN_FORWARD, 1, &y, 0, NULL, &in, NULL);
    mn_graph *body = mn_scan_body(b);
    out = inner(body, a, in, mn_capture(body, w), mn_capture(body, x));
    mn_scan_end(b, &out, 0, NULL, &y, NULL);
  }
  *shown = mn_mul(g, y, mn_matmul(g, y, w));
  return y;
}

/* xs [N, ...] to ys [N, ...], by a loop or without one. */
static mn_tensor *layer_of(mn_graph *g, const layer *a, bool loops, mn_tensor *xs, mn_tensor *w) {
  const bool reverse = a->what == OTHER_WAY && a->l % 2;
  if (a->what == OTHER_STRIDES && a->l % 2) xs = mn_transpose(g, mn_copy(g, mn_transpose(g, xs, -1, -2)), -1, -2);
  mn_shape one = {.ndim = xs->shape.ndim - 1};
  for (int d = 0; d < one.ndim; d++) one.dim[d] = xs->shape.dim[d + 1];
  mn_tensor *s = mn_full(g, MN_F32, one, 0.25), *ys;
  if (loops) {
    mn_tensor *in, *x, *shown, *last;
    mn_scan_builder *b = mn_scan_begin(g, N, reverse ? MN_BACKWARD : MN_FORWARD, 1, &s, 1, &xs, &in, &x);
    mn_graph *body = mn_scan_body(b);
    mn_tensor *next = step(body, a, true, in, mn_capture(body, w), x, &shown);
    mn_scan_end(b, &next, 1, &shown, &last, &ys);
    return ys;
  }
  mn_tensor *rows[N];
  for (int i = 0; i < N; i++) {
    const int t = reverse ? N - 1 - i : i;
    s = step(g, a, false, s, w, mn_squeeze(g, mn_slice(g, xs, 0, t, 1), 0), &rows[t]);
    rows[t] = mn_unsqueeze(g, rows[t], 0);
  }
  return mn_concat(g, N, rows, 0);
}

static void build(mn_graph *g, kind what, int layers, bool loops, mn_tensor **x, mn_tensor **y) {
  const int64_t d = what == IN_PARTS ? 32 : 8;
  x[0] = mn_input(g, "x", MN_F32, MN_SHAPE(N, 2, d, d));
  mn_tensor *h = x[0];
  for (int l = 0; l < layers; l++) {
    const layer a = {what, l};
    x[1 + l] = mn_input(g, "w", MN_F32, MN_SHAPE(2, d, d));
    h = layer_of(g, &a, loops, h, x[1 + l]);
  }
  y[0] = h;
  CHECK_OK(mn_grad(g, 1, &h, &h, 1 + layers, x, y + 1));
}

static void count_bodies(const mn_plan *p, int *bodies, int *loops, int *parts) {
  for (int t = 0; t < p->n_steps; t++) {
    const mn_plan_step *s = p->steps[t];
    if (!s->body) continue;
    ++*loops;
    *bodies += !s->shares_body;
    *parts += s->parts != NULL;
  }
}

static void count(mn_backend *cpu, kind what, int layers, int *bodies, int *loops, int *parts) {
  mn_graph *g = mn_graph_new();
  mn_tensor *x[X], *y[Y + 1];
  mn_plan *plan = NULL;
  *bodies = *loops = *parts = 0;
  build(g, what, layers, true, x, y);
  CHECK_OK(mn_plan_compile(&(mn_plan_request){.graph = g, .n_outputs = 2 + layers, .outputs = y, .backend = cpu}, &plan));
  if (plan) count_bodies(plan, bodies, loops, parts);
  mn_plan_free(plan);
  mn_graph_free(g);
}

static void loops_share_a_body_where_they_do_the_same(void) {
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(2, &cpu));
  for (int k = 0; k < KINDS && cpu; k++) {
    int one, all, loops_of_one, loops, parts, ignore;
    count(cpu, (kind)k, 1, &one, &loops_of_one, &ignore);
    count(cpu, (kind)k, LAYERS, &all, &loops, &parts);
    CHECK(loops == LAYERS * loops_of_one, "%s: %d loops in one layer, %d in %d", names[k], loops_of_one, loops, LAYERS);
    CHECK((all == one) == alike((kind)k), "%s: %d bodies in one layer, %d in %d", names[k], one, all, LAYERS);
    CHECK((parts == loops) == (k == IN_PARTS), "%s: %d of %d loops run in parts", names[k], parts, loops);
  }
  mn_backend_free(cpu);
}

static void evaluate(mn_backend *backend, kind what, bool loops, mn_activation_policy policy, double **out, size_t *count) {
  mn_graph *g = mn_graph_new();
  mn_tensor *x[X], *y[Y + 1];
  double *value[X];
  build(g, what, LAYERS, loops, x, y);
  for (int i = 0; i < X; i++) {
    const int64_t n = mn_shape_count(&x[i]->shape);
    value[i] = malloc((size_t)n * sizeof(double));
    for (int64_t j = 0; j < n; j++) value[i][j] = 0.3 * mn_random_normal((uint64_t)i, 9, (uint64_t)j);
  }
  for (int j = 0; j < Y + 1; j++) count[j] = (size_t)mn_shape_count(&y[j]->shape);
  CHECK(gc_run(g, backend, 0, policy, X, x, value, Y + 1, y, out), "%s: %s", names[what], mn_message());
  for (int i = 0; i < X; i++) free(value[i]);
  mn_graph_free(g);
}

static void they_give_what_the_layers_give_without_loops(void) {
  for (int threads = 1; threads <= 2; threads++) {
    mn_backend *cpu = NULL;
    CHECK_OK(mn_backend_cpu_new(threads, &cpu));
    for (int k = 0; k < KINDS && cpu; k++) {
      double *exact[Y + 1] = {NULL}, *out[Y + 1] = {NULL};
      size_t n[Y + 1] = {0};
      evaluate(mn_backend_ref(), (kind)k, false, MN_KEEP, exact, n);
      evaluate(cpu, (kind)k, true, threads == 1 ? MN_KEEP : MN_RECOMPUTE_NORMS, out, n);
      for (int j = 0; j < Y + 1; j++) {
        double most = 0, error = 0;
        for (size_t i = 0; i < n[j] && exact[j] && out[j]; i++) {
          most = fmax(most, fabs(exact[j][i]));
          error = fmax(error, fabs(exact[j][i] - out[j][i]));
        }
        CHECK(most > 0 && error <= 2e-5 * most, "%s, %d threads: result %d is off by %g of %g", names[k], threads, j, error, most);
        free(exact[j]);
        free(out[j]);
      }
    }
    mn_backend_free(cpu);
  }
}

int main(void) {
  RUN(loops_share_a_body_where_they_do_the_same);
  RUN(they_give_what_the_layers_give_without_loops);
  return test_end();
}
