/* test_loop_parts.c - a loop that does the same to each head, apart from the others, runs head by head (plan_parts.c): to the same bits with
 * any number of threads and with the pass switched off, forwards and in its gradient, and to the values of the reference. A loop whose
 * heads meet, or that multiplies all heads by one matrix, is left as it is. */
#include "gradcheck.h"

#include <signal.h>

#include "graph/fused_softmax.h"

enum { B = 1, H = 4, C = 16, K = 32, V = 48, OUTPUTS = 8 };

typedef enum kind { APART, WITH_ROWS, HEADS_MEET, ONE_MATRIX, SMALL, KINDS } kind;
static const struct {
  const char *name;
  bool parts;
  int64_t rows, tokens;
} kinds[KINDS] = {[APART] = {"heads", true, 1, C},
                  [WITH_ROWS] = {"rows of heads", true, 3, C},
                  [HEADS_MEET] = {"heads that meet", false, 1, C},
                  [ONE_MATRIX] = {"one matrix for all heads", false, 1, C},
                  [SMALL] = {"too little work", false, 1, 1}};

/* S' = decay S + k^T (v - k S) / C, y = (mask * q k^T) v + q S, as the memories have it; y leaves with its heads beside each other.
 * x: S [B,H,K,V], q and k [n,B,C,H,K], v [n,B,C,H,V], decay [n,B,H], one matrix [V,V]; y: S, ys. */
static void loop(mn_graph *g, kind what, mn_tensor **x, mn_tensor **y, int64_t n, bool reverse) {
  g->keep_bytes = 0;
  mn_tensor *s, *in[4];
  mn_scan_builder *b = mn_scan_begin(g, n, reverse, 1, x, 4, x + 1, &s, in);
  mn_graph *h = mn_scan_body(b);
  if (!h) return;
  mn_tensor *t[3];
  for (int i = 0; i < 3; i++) t[i] = mn_transpose(h, in[i], 1, 2); /* [B,H,C,.] */
  const int64_t rows = mn_dim(s, 0), tokens = mn_dim(t[0], 2);
  mn_tensor *error = mn_sub(h, t[2], mn_matmul(h, t[1], s));
  if (what == ONE_MATRIX) error = mn_matmul(h, error, x[5]);
  mn_tensor *write = mn_mul_scalar(h, mn_matmul(h, mn_transpose(h, t[1], -1, -2), error), 1.0 / (double)tokens);
  mn_tensor *decay = mn_sigmoid(h, mn_reshape(h, in[3], MN_SHAPE(rows, H, 1, 1)));
  if (what == HEADS_MEET) decay = mn_mean(h, decay, MN_AXIS(1));
  mn_tensor *next = mn_add(h, mn_mul(h, s, decay), write);
  mn_tensor *pairs = mn_matmul(h, t[0], mn_transpose(h, t[1], -1, -2)); /* [B,H,C,C] */
  mn_tensor *later = mn_cumsum(h, mn_softmax(h, pairs), 2, MN_FORWARD);
  mn_tensor *out = mn_add(h, mn_matmul(h, later, t[2]), mn_matmul(h, t[0], s));
  out = mn_div(h, out, mn_add_scalar(h, mn_sum(h, mn_mul(h, out, out), MN_AXIS(3)), 1));
  out = mn_copy(h, mn_transpose(h, out, 1, 2));
  mn_scan_end(b, &next, 1, &out, y, y + 1);
}

static bool run(kind what, mn_backend *backend, unsigned off, int64_t n, bool reverse, int *in_parts, double *out[OUTPUTS],
                size_t bytes[OUTPUTS]) {
  mn_graph *g = mn_graph_new();
  const int64_t rows = kinds[what].rows, tokens = kinds[what].tokens;
  mn_tensor *x[6] = {mn_input(g, "s", MN_F32, MN_SHAPE(rows, H, K, V)),         mn_input(g, "q", MN_F32, MN_SHAPE(n, rows, tokens, H, K)),
                     mn_input(g, "k", MN_F32, MN_SHAPE(n, rows, tokens, H, K)), mn_input(g, "v", MN_F32, MN_SHAPE(n, rows, tokens, H, V)),
                     mn_input(g, "decay", MN_F32, MN_SHAPE(n, rows, H)),        mn_input(g, "w", MN_F32, MN_SHAPE(V, V))};
  mn_tensor *y[OUTPUTS];
  double *value[6];
  for (int i = 0; i < 6; i++) {
    const int64_t count = mn_shape_count(&x[i]->shape);
    value[i] = malloc((size_t)count * sizeof(double));
    for (int64_t j = 0; j < count; j++) value[i][j] = 0.3 * mn_random_normal((uint64_t)i, 4, (uint64_t)j);
  }
  loop(g, what, x, y, n, reverse);
  mn_tensor *dy[2] = {mn_full(g, MN_F32, y[0]->shape, 0.5), y[1]};
  const int given = what == ONE_MATRIX ? 6 : 5;
  CHECK_OK(mn_grad(g, 2, y, dy, given, x, y + 2));
  for (int i = 0; i < 2 + given; i++) bytes[i] = (size_t)mn_shape_count(&y[i]->shape) * sizeof(double);
  mn_plan *plan = NULL;
  CHECK_OK(
      mn_plan_compile(&(mn_plan_request){.graph = g, .n_outputs = 2 + given, .outputs = y, .backend = backend, .passes_off = off}, &plan));
  *in_parts = plan ? mn_plan_get_report(plan)->loops_in_parts : -1;
  mn_plan_free(plan);
  const bool ok = gc_run(g, backend, off, MN_KEEP, given, x, value, 2 + given, y, out);
  CHECK(ok, "%s", mn_message());
  for (int i = 0; i < 6; i++) free(value[i]);
  mn_graph_free(g);
  return ok;
}

static void free_all(double **a) {
  for (int i = 0; i < OUTPUTS; i++) free(a[i]);
}

static void heads_run_one_by_one_to_the_same_bits(void) {
  static const unsigned off[] = {MN_PASS_PARTS, 0, 0, 0};
  static const int threads[] = {2, 1, 2, 3};
  for (int k = 0; k < KINDS; k++)
    for (int64_t n = 5; n <= 21; n += 16) /* keeping all carries, and in segments */
      for (int reverse = 0; reverse < 2; reverse++) {
        double *first[OUTPUTS] = {NULL}, *exact[OUTPUTS] = {NULL};
        size_t bytes[OUTPUTS] = {0};
        int parts = 0;
        run((kind)k, mn_backend_ref(), 0, n, reverse, &parts, exact, bytes);
        CHECK(parts == 0, "%s: the reference has %d loops in parts", kinds[k].name, parts);
        for (int i = 0; i < 4; i++) {
          mn_backend *cpu = NULL;
          double *out[OUTPUTS] = {NULL};
          if (mn_backend_cpu_new(threads[i], &cpu) != MN_OK) continue; /* the machine has fewer */
          run((kind)k, cpu, off[i], n, reverse, &parts, out, bytes);
          CHECK((parts > 0) == (kinds[k].parts && !off[i]), "%s, %d threads: %d loops in parts", kinds[k].name, threads[i], parts);
          for (int j = 0; j < OUTPUTS && bytes[j]; j++) {
            if (i > 0)
              CHECK(out[j] && first[j] && memcmp(out[j], first[j], bytes[j]) == 0, "%s, %lld steps%s, %d threads: result %d has other bits",
                    kinds[k].name, (long long)n, reverse ? " backwards" : "", threads[i], j);
            double error = 0, most = 0;
            for (size_t e = 0; e < bytes[j] / sizeof(double) && out[j] && exact[j]; e++) {
              error = fmax(error, fabs(out[j][e] - exact[j][e]));
              most = fmax(most, fabs(exact[j][e]));
            }
            CHECK(error <= 1e-5 * most, "%s, %d threads: result %d is off by %g of %g", kinds[k].name, threads[i], j, error, most);
          }
          if (i == 0) memcpy(first, out, sizeof first);
          else free_all(out);
          mn_backend_free(cpu);
        }
        free_all(first);
        free_all(exact);
      }
}

/* Whoever asked for the end hears of it while parts run. */
static void it_is_left_when_the_thread_is_to_stop(void) {
  static atomic_int stop;
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(2, &cpu));
  mn_graph *g = mn_graph_new();
  mn_tensor *x[5] = {mn_input(g, "s", MN_F32, MN_SHAPE(B, H, K, V)), mn_input(g, "q", MN_F32, MN_SHAPE(9, B, C, H, K)),
                     mn_input(g, "k", MN_F32, MN_SHAPE(9, B, C, H, K)), mn_input(g, "v", MN_F32, MN_SHAPE(9, B, C, H, V)),
                     mn_input(g, "decay", MN_F32, MN_SHAPE(9, B, H))};
  mn_tensor *y[2];
  loop(g, APART, x, y, 9, false);
  mn_plan *plan = NULL;
  CHECK_OK(mn_plan_compile(&(mn_plan_request){.graph = g, .n_outputs = 2, .outputs = y, .backend = cpu}, &plan));
  float *data[5];
  for (int i = 0; i < 5; i++) {
    data[i] = calloc((size_t)mn_shape_count(&x[i]->shape), sizeof(float));
    mn_plan_bind(plan, x[i], data[i]);
  }
  mn_stop_watch(&stop);
  CHECK_OK(mn_plan_run(plan));
  stop = 1;
  CHECK(mn_plan_run(plan) == MN_ERR_CANCELLED, "it ran to its end");
  mn_stop_watch(NULL);
  CHECK_OK(mn_plan_run(plan));
  mn_plan_free(plan);
  for (int i = 0; i < 5; i++) free(data[i]);
  mn_graph_free(g);
  mn_backend_free(cpu);
}

int main(void) {
  RUN(heads_run_one_by_one_to_the_same_bits);
  RUN(it_is_left_when_the_thread_is_to_stop);
  return test_end();
}
