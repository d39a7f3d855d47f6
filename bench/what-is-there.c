/* what-is-there.c - cost follows what is there: a token that reads a large ring with few tokens in it, attention to listed blocks of keys,
 * and depthwise convolutions of any width.
 *
 *     cmake --preset release -DMNEME_BENCH=ON && ninja -C build bench-what-is-there
 *     build/bench-what-is-there [--threads N] [--repeat N] [--clock wall|cpu]
 *
 * Each figure is the least of the repetitions of the kernel alone; a ratio is of two of them. A bar that is missed says so, and the
 * program ends with 1. */
#include "graph/fused_attention.h"
#include "graph/fused_conv.h"
#include "node_time.h"

#include <math.h>

static bool all_held = true;

static void bar(const char *what, double value, double most) {
  printf("%s: %.3f (<= %.3f) %s\n", what, value, most, value <= most ? "ok" : "short");
  all_held = all_held && value <= most;
}

static double seconds(mn_backend *b, mn_tensor *y) {
  double bytes, copy;
  const double best = y ? time_node(b, y->node, &bytes, &copy) : -1;
  if (best < 0) fprintf(stderr, "no kernel ran: %s\n", mn_message());
  return best;
}

static mn_tensor *attended(mn_graph *g, mn_attention_io io, mn_attention_attr attr, int64_t K) {
  attr.scale = 1 / sqrt((double)K);
  mn_attend(g, &io, attr);
  return io.o;
}

/* One token reads a ring of `slots` of which `filled` hold tokens. */
static double ring(mn_backend *b, mn_graph *g, int64_t slots, int32_t filled) {
  enum { H = 8, G = 2, K = 64 };
  const int32_t at = filled - 1;
  mn_attention_io io = {.q = mn_input(g, "q", MN_F32, MN_SHAPE(1, 1, H, K)),
                        .k = mn_input(g, "k", MN_F32, MN_SHAPE(1, slots, G, K)),
                        .v = mn_input(g, "v", MN_F32, MN_SHAPE(1, slots, G, K)),
                        .q_pos = mn_const(g, MN_I32, MN_SHAPE(1), &at),
                        .length = mn_const(g, MN_I32, MN_SHAPE(1), &filled)};
  return seconds(b, attended(g, io, (mn_attention_attr){.causal = true, .ring = true, .window = slots}, K));
}

/* T queries and keys in blocks of 64; each block of queries lists `listed` blocks of keys. */
static double blocks(mn_backend *b, mn_graph *g, int64_t T, int64_t listed) {
  enum { H = 4, K = 64, SIDE = 64 };
  const int64_t n = T / SIDE;
  int32_t *list = mn_alloc((size_t)(n * listed) * sizeof *list);
  if (!list) return -1;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < listed; j++) list[i * listed + j] = (int32_t)((i + j * (n / listed)) % n);
  mn_attention_io io = {.q = mn_input(g, "q", MN_F32, MN_SHAPE(1, T, H, K)),
                        .k = mn_input(g, "k", MN_F32, MN_SHAPE(1, T, H, K)),
                        .v = mn_input(g, "v", MN_F32, MN_SHAPE(1, T, H, K)),
                        .blocks = mn_const(g, MN_I32, MN_SHAPE(1, 1, n, listed), list)};
  free(list);
  return seconds(b, attended(g, io, (mn_attention_attr){.block_q = SIDE, .block_k = SIDE}, K));
}

static double convolution(mn_backend *b, mn_graph *g, int64_t width) {
  mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(4, 512, 256)), *w = mn_input(g, "w", MN_F32, MN_SHAPE(256, width));
  return seconds(b, mn_causal_conv(g, x, w, NULL, NULL));
}

int main(int argc, char **argv) {
  int threads = 0;
  for (int i = 1; i < argc; i += 2) {
    const char *value = i + 1 < argc ? argv[i + 1] : NULL;
    if (value && !strcmp(argv[i], "--threads")) threads = atoi(value);
    else if (value && !strcmp(argv[i], "--repeat") && atoi(value) > 0) repeat = atoi(value);
    else if (value && !strcmp(argv[i], "--clock")) cpu_clock = !strcmp(value, "cpu");
    else {
      fprintf(stderr, "usage: %s [--threads N] [--repeat N] [--clock wall|cpu]\n", argv[0]);
      return 2;
    }
  }
  mn_backend *b;
  if (mn_backend_cpu_new(threads, &b) != MN_OK) {
    fprintf(stderr, "%s\n", mn_message());
    return 1;
  }
  mn_graph *g = mn_graph_new();
  if (!g) return 1;
  printf("%s, %d threads, %s clock\n", mn_isa_name(mn_cpu_isa(b)), mn_pool_threads(b->pool), cpu_clock ? "cpu" : "wall");
  const double small = ring(b, g, 256, 256), large = ring(b, g, 131072, 256), full = ring(b, g, 131072, 131072);
  printf("a token and 256 keys in a ring of 256: %.1f us; of 131,072: %.1f us; 131,072 keys: %.1f us\n", small * 1e6, large * 1e6,
         full * 1e6);
  printf("... over a ring of 256: %.2f\n", large / small);
  bar("256 keys in a ring of 131,072, over 131,072 keys", large / full, 0.02);
  const double all = blocks(b, g, 4096, 64), eighth = blocks(b, g, 4096, 8);
  printf("4,096 queries, all 64 blocks of keys: %.2f ms; 8 of them: %.2f ms\n", all * 1e3, eighth * 1e3);
  bar("8 of 64 blocks, over all", eighth / all, 0.25);
  double per_tap = 0;
  for (int64_t width = 4; width <= 1024; width *= 4) {
    const double took = convolution(b, g, width);
    printf("convolution of %lld: %.2f ms, %.3f us a tap\n", (long long)width, took * 1e3, took * 1e6 / (double)width);
    if (width == 64) per_tap = took / 64;
    if (width > 64) bar("... a tap, over that of width 64", took / (double)width / per_tap, 2);
  }
  if (mn_graph_status(g) != MN_OK) fprintf(stderr, "%s\n", mn_message());
  all_held = all_held && g->status == MN_OK;
  mn_graph_free(g);
  mn_backend_free(b);
  return all_held ? 0 : 1;
}
