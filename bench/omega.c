/* omega.c - the inner loop of ATLAS alone, without any training: N random pairs pass once through a memory of one matrix, keys of length 1 in
 * R^16 and values of 16 signs; how many signs of all N values does it say at the end? What a window of pairs (the Omega rule), polynomial
 * keys and orthogonal steps are worth to it. Each figure is the best of six step sizes and two momenta, mean of the seeds.
 *
 *     bench-omega [--pairs "64 32"] [--seeds 4]
 *
 * Closes with one line per bar, for 64 pairs: `measure: value (bar) ok` or `short`; exits with 1 when any is short. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "base/element.h"
#include "compile/plan.h"
#include "nn/fast_memory.h"

enum { D = 16, STEPS = 6, MOMENTA = 2, MOST_SEEDS = 64 };
static const double step_sizes[STEPS] = {0.05, 0.1, 0.2, 0.4, 0.7, 1};
static const double momentum_args[MOMENTA] = {-40, 0}; /* of a sigmoid: 0 and 1/2 */

typedef struct arm {
  const char *name;
  int64_t window;
  bool lifted, orthogonal;
} arm;
static const arm arms[] = {{"plain keys, one pair", 1, false, false},
                           {"plain keys, 16 pairs", 16, false, false},
                           {"polynomial, one pair", 1, true, false},
                           {"polynomial, 4 pairs", 4, true, false},
                           {"polynomial, 16 pairs", 16, true, false},
                           {"orthogonal, polynomial, one pair", 1, true, true},
                           {"orthogonal, polynomial, 16 pairs", 16, true, true}};
enum { PLAIN_1, PLAIN_16, POLY_1, POLY_4, POLY_16, ORTHOGONAL_1, ORTHOGONAL_16, ARMS };

/* Rows: seed, then step size, then momentum. */
static int64_t rows_of(int64_t seeds) { return seeds * STEPS * MOMENTA; }
static int64_t seed_of(int64_t row) { return row / (STEPS * MOMENTA); }
static int step_of(int64_t row) { return (int)(row / MOMENTA % STEPS); }
static int momentum_of(int64_t row) { return (int)(row % MOMENTA); }

typedef struct drawn { /* [rows,N,1,D] each */
  double *k, *v;
} drawn;
static drawn draw(int64_t rows, int64_t N) {
  drawn x = {mn_alloc((size_t)(rows * N * D) * sizeof(double)), mn_alloc((size_t)(rows * N * D) * sizeof(double))};
  for (int64_t i = 0; x.k && x.v && i < rows * N; i++) {
    const uint64_t seed = (uint64_t)seed_of(i / N), pair = (uint64_t)(i % N);
    double length = 0;
    for (uint64_t d = 0; d < D; d++) {
      x.k[i * D + (int64_t)d] = mn_random_normal(seed, 1, pair * D + d);
      x.v[i * D + (int64_t)d] = mn_random_uniform(seed, 2, pair * D + d) < 0.5 ? -1 : 1;
      length += x.k[i * D + (int64_t)d] * x.k[i * D + (int64_t)d];
    }
    for (int d = 0; d < D; d++) x.k[i * D + d] /= sqrt(length);
  }
  return x;
}

/* What the memory says of all keys once it has read them: [rows,1,N,D]. */
static mn_tensor *said(mn_graph *g, const arm *a, int64_t rows, int64_t N, const drawn *x) {
  const mn_shape pairs = MN_SHAPE(rows, N, 1, D), gates = MN_SHAPE(rows, N, 1);
  const double scales[3] = {1, 1, sqrt(0.5)};
  mn_fast_config c = {.net = MN_FAST_LINEAR,
                      .depth = 1,
                      .expand = 1,
                      .heads = 1,
                      .head_dim = D,
                      .chunk = 1,
                      .step = a->orthogonal ? MN_FAST_ORTHOGONAL : MN_FAST_EVERY_TOKEN,
                      .momentum = true,
                      .window = a->window,
                      .steps = 5,
                      .lift_normed = true};
  if (a->lifted) c.lift = mn_const(g, MN_F64, MN_SHAPE(1, 3), scales);
  double *sizes = mn_alloc((size_t)(rows * N) * sizeof *sizes), *args = mn_alloc((size_t)(rows * N) * sizeof *args);
  for (int64_t i = 0; sizes && args && i < rows * N; i++)
    sizes[i] = step_sizes[step_of(i / N)], args[i] = momentum_args[momentum_of(i / N)];
  mn_tensor *k = mn_const(g, MN_F64, pairs, x->k), *v = mn_const(g, MN_F64, pairs, x->v), *size = mn_const(g, MN_F64, gates, sizes);
  mn_fast_input in = {.q = k, .k = k, .v = v, .theta = size, .momentum = mn_const(g, MN_F64, gates, args)};
  if (a->orthogonal) in.theta = mn_full(g, MN_F64, gates, 1), in.rate = size;
  if (a->window > 1) { /* 1 for each pair that exists, the token's own last */
    mn_tensor *t = mn_iota(g, MN_I32, MN_SHAPE(1, N, 1, a->window), 1), *j = mn_iota(g, MN_I32, MN_SHAPE(1, N, 1, a->window), 3);
    mn_tensor *there = mn_le(g, mn_scalar(g, MN_I32, (double)(a->window - 1)), mn_add(g, t, j));
    in.window = mn_expand(g, mn_cast(g, there, MN_F64), MN_SHAPE(rows, N, 1, a->window));
  }
  mn_fast_state s = {.each = {NULL}};
  const mn_shape matrix = mn_fast_shape(&c, 0, rows), past = MN_SHAPE(rows, mn_fast_past(&c), 1, D);
  s.W[0] = s.S[0] = s.A[0] = mn_full(g, MN_F64, matrix, 0);
  if (a->window > 1) s.past_k = s.past_v = mn_full(g, MN_F64, past, 0);
  const mn_fast_result r = mn_fast_memory(g, &c, &s, &in);
  free(sizes);
  free(args);
  return mn_fast_read(g, &c, r.state.W, mn_transpose(g, k, 1, 2));
}

/* The best mean accuracy over step sizes and momenta; NaN: it did not run. */
static double accuracy(const arm *a, int64_t seeds, int64_t N) {
  const int64_t rows = rows_of(seeds);
  const drawn x = draw(rows, N);
  mn_graph *g = mn_graph_new();
  mn_tensor *y = said(g, a, rows, N, &x);
  mn_plan *plan = NULL;
  mn_status status = mn_graph_status(g);
  const mn_plan_request q = {.graph = g, .n_outputs = 1, .outputs = &y, .backend = mn_backend_ref()};
  if (status == MN_OK) status = mn_plan_compile(&q, &plan);
  if (status == MN_OK) status = mn_plan_run(plan);
  double right[STEPS * MOMENTA] = {0}, best = 0;
  if (status == MN_OK) {
    const mn_view *view = mn_plan_output(plan, 0);
    const double *out = (const double *)view->data;
    for (int64_t i = 0; i < rows * N * D; i++)
      right[i / (N * D) % (STEPS * MOMENTA)] += out[i] * x.v[i] > 0 ? 1.0 / (double)(seeds * N * D) : 0;
    for (int i = 0; i < STEPS * MOMENTA; i++) best = fmax(best, right[i]);
  } else fprintf(stderr, "bench-omega: %s\n", mn_message());
  mn_plan_free(plan);
  mn_graph_free(g);
  free(x.k);
  free(x.v);
  return status == MN_OK ? best : (double)NAN;
}

static int bar(const char *what, double value, double least) {
  const bool ok = value >= least;
  printf("%s: %.3f (>= %.2f) %s\n", what, value, least, ok ? "ok" : "short");
  return !ok;
}

int main(int argc, char **argv) {
  const char *pairs = "64 32";
  int64_t seeds = 4;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!strcmp(argv[i], "--pairs")) pairs = argv[i + 1];
    else if (!strcmp(argv[i], "--seeds")) seeds = atoll(argv[i + 1]);
    else return fprintf(stderr, "bench-omega: what is %s?\n", argv[i]), 2;
  }
  if (argc % 2 == 0 || seeds < 1 || seeds > MOST_SEEDS) return fprintf(stderr, "usage: bench-omega [--pairs LIST] [--seeds 1..64]\n"), 2;
  double of_64[ARMS] = {0};
  bool seen = false;
  printf("%-36s", "pairs");
  for (const char *at = pairs; *at; at += strcspn(at, " "), at += strspn(at, " ")) printf(" %8d", atoi(at));
  printf("\n");
  for (int a = 0; a < ARMS; a++) {
    printf("%-36s", arms[a].name);
    for (const char *at = pairs; *at; at += strcspn(at, " "), at += strspn(at, " ")) {
      const int64_t N = atoll(at);
      if (N < 1 || N > 4096) return fprintf(stderr, "bench-omega: --pairs are numbers from 1 to 4096\n"), 2;
      const double r = accuracy(&arms[a], seeds, N);
      if (!(r >= 0)) return 1;
      if (N == 64) of_64[a] = r, seen = true;
      printf(" %8.3f", r);
      fflush(stdout);
    }
    printf("\n");
  }
  if (!seen) return 0;
  int n_short = bar("a window of 16 over one pair, polynomial keys", of_64[POLY_16] - of_64[POLY_1], 0.06);
  n_short += bar("a window of 16 and polynomial keys over one pair and plain keys", of_64[POLY_16] - of_64[PLAIN_1], 0.08);
  n_short += bar("an orthogonal step over a plain one, polynomial keys, one pair", of_64[ORTHOGONAL_1] - of_64[POLY_1], 0.02);
  return n_short > 0;
}
