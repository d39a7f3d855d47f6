/* lstm-loop.c - a training step of a loop over time as an LSTM's: gates = x_t W + h U + b, written in the body of one loop, with the
 * gradient of everything, beside the same loop compiled without the pass that moves work out of loops, and beside the limit:
 * the machine's peak, and the large products that the loop would be if its steps did not wait for each other.
 *
 *     bench-lstm-loop [--hidden 256] [--steps 256] [--batch 32] [--threads N] [--turns 5] [--bf16 1]
 *
 * All by turns in one run; a figure is the median over the turns, a ratio the median of the ratios of each turn. GFLOP/s count six
 * products a step: x W, h U, and the two gradients of each; what is made once more counts as nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/machine.h"
#include "compile/plan.h"

enum { N_LEAVES = 6 };

typedef struct contender {
  mn_graph *g;
  mn_tensor *leaf[N_LEAVES];
  mn_plan *plan;
  double seconds[64];
} contender;

static mn_tensor *product(mn_graph *g, mn_tensor *x, mn_tensor *w, bool bf16) {
  if (!bf16) return mn_matmul(g, x, w);
  return mn_matmul_as(g, mn_cast(g, x, MN_BF16), mn_cast(g, w, MN_BF16), MN_F32);
}

/* x [T,B,H], w [H,4H], u [H,4H], b [4H], h, c [B,H] */
static void build(contender *c, int64_t H, int64_t T, int64_t B, bool bf16, int64_t keep_bytes) {
  mn_graph *g = c->g = mn_graph_new();
  g->keep_bytes = keep_bytes;
  const mn_shape shapes[N_LEAVES] = {MN_SHAPE(T, B, H), MN_SHAPE(H, 4 * H), MN_SHAPE(H, 4 * H),
                                     MN_SHAPE(4 * H),   MN_SHAPE(B, H),     MN_SHAPE(B, H)};
  for (int i = 0; i < N_LEAVES; i++) c->leaf[i] = mn_input(g, "leaf", MN_F32, shapes[i]);
  mn_tensor **leaf = c->leaf, *in[2], *x, *final[2], *hs, *gate[4];
  mn_scan_builder *b = mn_scan_begin(g, T, MN_FORWARD, 2, &leaf[4], 1, &leaf[0], in, &x);
  mn_graph *s = mn_scan_body(b);
  mn_tensor *gates = mn_add(s, mn_add(s, product(s, x, leaf[1], bf16), product(s, in[0], leaf[2], bf16)), leaf[3]);
  for (int k = 0; k < 4; k++) {
    gate[k] = mn_slice(s, gates, 1, k * H, H);
    gate[k] = k == 3 ? mn_tanh(s, gate[k]) : mn_sigmoid(s, gate[k]);
  }
  mn_tensor *next = mn_add(s, mn_mul(s, gate[1], in[1]), mn_mul(s, gate[0], gate[3]));
  mn_tensor *h = mn_mul(s, gate[2], mn_tanh(s, next));
  mn_scan_end(b, (mn_tensor *[]){h, next}, 1, &h, final, &hs);
}

static mn_status compile(contender *c, mn_backend *b, unsigned off, mn_tensor *y, int n_x) {
  mn_tensor *out[N_LEAVES + 1] = {y}, *d = mn_full(c->g, MN_F32, y->shape, 0.01);
  MN_TRY(mn_grad(c->g, 1, &y, &d, n_x, c->leaf, out + 1));
  return mn_plan_compile(&(mn_plan_request){.graph = c->g, .n_outputs = n_x + 1, .outputs = out, .backend = b, .passes_off = off},
                         &c->plan);
}

/* The same six products, of all steps at once. */
static void build_products(contender *c, int64_t H, int64_t T, int64_t B, bool bf16, mn_tensor **y) {
  c->g = mn_graph_new();
  c->leaf[0] = mn_input(c->g, "x", MN_F32, MN_SHAPE(T * B, 2 * H));
  c->leaf[1] = mn_input(c->g, "w", MN_F32, MN_SHAPE(2 * H, 4 * H));
  *y = product(c->g, c->leaf[0], c->leaf[1], bf16);
}

static mn_tensor *states(const contender *c) { /* the loop is the last node so far: its hs */
  const mn_node *n = c->g->nodes[c->g->n_nodes - 1];
  return n->out[2];
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}
static double median(const double *x, int n) {
  double s[64];
  memcpy(s, x, (size_t)n * sizeof *s);
  qsort(s, (size_t)n, sizeof *s, by_value);
  return s[n / 2];
}

int main(int argc, char **argv) {
  int64_t H = 256, T = 256, B = 32;
  int threads = 0, turns = 5;
  bool bf16 = false;
  for (int i = 1; i + 1 < argc; i += 2) {
    const int64_t v = atoll(argv[i + 1]);
    if (!strcmp(argv[i], "--hidden")) H = v;
    else if (!strcmp(argv[i], "--steps")) T = v;
    else if (!strcmp(argv[i], "--batch")) B = v;
    else if (!strcmp(argv[i], "--threads")) threads = (int)v;
    else if (!strcmp(argv[i], "--turns")) turns = v < 1 ? 1 : v > 64 ? 64 : (int)v;
    else if (!strcmp(argv[i], "--bf16")) bf16 = v != 0;
    else return fprintf(stderr, "bench-lstm-loop: unknown option %s\n", argv[i]), 2;
  }
  enum { AS_WRITTEN, MOVED, PRODUCTS, N };
  static const char *const names[N] = {"loop as written", "loop", "its products at once"};
  mn_backend *b = NULL;
  if (mn_backend_cpu_new(threads, &b) != MN_OK) return fprintf(stderr, "bench-lstm-loop: %s\n", mn_message()), 1;
  static contender c[N];
  mn_tensor *y;
  build(&c[AS_WRITTEN], H, T, B, bf16, 0);
  build(&c[MOVED], H, T, B, bf16, c[AS_WRITTEN].g ? mn_graph_keep_bytes : 0);
  build_products(&c[PRODUCTS], H, T, B, bf16, &y);
  mn_status status = compile(&c[AS_WRITTEN], b, MN_PASS_LOOPS, states(&c[AS_WRITTEN]), N_LEAVES);
  if (status == MN_OK) status = compile(&c[MOVED], b, 0, states(&c[MOVED]), N_LEAVES);
  if (status == MN_OK) status = compile(&c[PRODUCTS], b, 0, y, 2);
  if (status != MN_OK) return fprintf(stderr, "bench-lstm-loop: %s\n", mn_message()), 1;
  for (int k = 0; k < N; k++)
    for (int i = 0; i < (k == PRODUCTS ? 2 : N_LEAVES); i++) {
      const int64_t n = mn_shape_count(&c[k].leaf[i]->shape);
      float *p = b->alloc(b, (size_t)n * sizeof *p);
      if (!p) return 1;
      for (int64_t e = 0; e < n; e++) p[e] = 0.1f * (float)mn_random_normal((uint64_t)i, 1, (uint64_t)e);
      mn_plan_bind(c[k].plan, c[k].leaf[i], p);
    }
  double ratio[64], of_products[64];
  const double work = 3 * 2.0 * (double)(T * B) * 2 * (double)H * 4 * (double)H, peak = mn_machine_peak(b->pool, mn_cpu_isa(b), bf16);
  for (int t = -1; t < turns; t++) { /* the first warms up */
    for (int k = 0; k < N; k++) {
      const double start = mn_now();
      if (mn_plan_run(c[k].plan) != MN_OK) return fprintf(stderr, "bench-lstm-loop: %s\n", mn_message()), 1;
      if (t >= 0) c[k].seconds[t] = mn_now() - start;
    }
    if (t < 0) continue;
    ratio[t] = c[AS_WRITTEN].seconds[t] / c[MOVED].seconds[t];
    of_products[t] = c[PRODUCTS].seconds[t] / c[MOVED].seconds[t];
  }
  printf("H %lld, T %lld, B %lld, %s, %s, %d threads; peak %.1f GFLOP/s; %d turns\n", (long long)H, (long long)T, (long long)B,
         mn_dtype_name(bf16 ? MN_BF16 : MN_F32), mn_isa_name(mn_cpu_isa(b)), mn_pool_threads(b->pool), peak, turns);
  for (int k = 0; k < N; k++)
    printf("%-22s %8.2f ms %7.1f GFLOP/s\n", names[k], 1e3 * median(c[k].seconds, turns), 1e-9 * work / median(c[k].seconds, turns));
  const double gain = median(ratio, turns);
  printf("as written / moved: %.2f (at least 1.5) %s\n", gain, gain >= 1.5 ? "ok" : "short");
  printf("products at once / moved: %.2f\n", median(of_products, turns));
  return gain >= 1.5 ? 0 : 1;
}
