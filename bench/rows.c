/* rows.c - the kernels that are bound by memory (norms, softmax, rotary embedding, convolution) beside the rate at
 * which this machine copies as many bytes, and the fused cross-entropy beside the products that it is made of, in one
 * run.
 *
 *     bench-rows [--threads N] [--rows N] [--width D] [--vocab N] [--repeat N] [--clock wall|cpu]
 *
 * `bytes` are those of all inputs and outputs; `of copy` is the time of copying them over the kernel's time (1: as fast
 * as memory allows at this size; more than 1: less time than copying them). Each figure is the least of the
 * repetitions, which alternate with the copies. --clock cpu counts the calling thread's processor time: for a machine
 * that is busy with other work, with --threads 1. */
#include "backend/cpu/product.h"
#include "graph/fused_conv.h"
#include "graph/fused_loss.h"
#include "graph/fused_norm.h"
#include "graph/fused_rope.h"
#include "graph/fused_softmax.h"
#include "node_time.h"

static int64_t rows = 4096, width = 320, vocab_size = 8192;

static void show(mn_backend *b, const char *what, mn_dtype t, mn_tensor *y) {
  double bytes, copy, time = y ? time_node(b, y->node, &bytes, &copy) : -1;
  if (time < 0) {
    printf("%-24s %-5s not run\n", what, mn_dtype_name(t));
    return;
  }
  printf("%-24s %-5s %8.2f MB %9.1f us %7.1f GB/s   of copy %.2f\n", what, mn_dtype_name(t), bytes / 1e6, time * 1e6, bytes / time / 1e9,
         copy / time);
}

/* The node that mn_grad makes for y: the one operation of the given kind. */
static mn_tensor *grad_of(mn_graph *g, mn_tensor *y, int n, mn_tensor **xs, const mn_op *op) {
  mn_tensor *dxs[4], *dy = mn_input(g, "dy", y->dtype, y->shape);
  if (mn_grad(g, 1, &y, &dy, n, xs, dxs) != MN_OK) return NULL;
  for (int i = g->n_nodes - 1; i >= 0; i--)
    if (g->nodes[i]->op == op) return g->nodes[i]->out[0];
  return NULL;
}

static void row_kernels(mn_backend *b, mn_graph *g, mn_dtype t) {
  int64_t D = width, K = 64, H = D / K > 0 ? D / K : 1, T = rows < 512 ? rows : 512, B = rows / T;
  mn_tensor *x = mn_input(g, "x", t, MN_SHAPE(rows, D)), *w = mn_input(g, "w", MN_F32, MN_SHAPE(D));
  mn_tensor *bias = mn_input(g, "bias", MN_F32, MN_SHAPE(D));
  mn_tensor *heads = mn_input(g, "heads", t, MN_SHAPE(B, T, H, K)), *wk = mn_input(g, "wk", MN_F32, MN_SHAPE(K));
  mn_tensor *table = mn_input(g, "table", MN_F32, MN_SHAPE(T, K / 2));
  mn_tensor *time = mn_input(g, "time", t, MN_SHAPE(B, T, D)), *taps = mn_input(g, "taps", t, MN_SHAPE(D, 4));
  mn_tensor *y = mn_norm(g, MN_NORM_RMS, x, w, NULL, 1e-5, t);
  show(b, "RMS norm", t, y);
  show(b, "RMS norm gradient", t, grad_of(g, y, 2, (mn_tensor *[]){x, w}, &mn_op_norm_grad));
  y = mn_norm(g, MN_NORM_LAYER, x, w, bias, 1e-5, t);
  show(b, "layer norm", t, y);
  show(b, "layer norm gradient", t, grad_of(g, y, 3, (mn_tensor *[]){x, w, bias}, &mn_op_norm_grad));
  y = mn_norm(g, MN_NORM_RMS, heads, wk, NULL, 1e-5, t);
  show(b, "RMS norm of heads", t, y);
  show(b, "... gradient", t, grad_of(g, y, 2, (mn_tensor *[]){heads, wk}, &mn_op_norm_grad));
  y = mn_softmax(g, x);
  show(b, "softmax", t, y);
  show(b, "softmax gradient", t, grad_of(g, y, 1, &x, &mn_op_softmax_grad));
  show(b, "rotary, halves", t, mn_rope(g, heads, table, table, MN_ROPE_HALVES));
  show(b, "rotary, interleaved", t, mn_rope(g, heads, table, table, MN_ROPE_INTERLEAVED));
  y = mn_causal_conv(g, time, taps, NULL, NULL);
  show(b, "convolution of 4", t, y);
  show(b, "convolution gradient", t, grad_of(g, y, 2, (mn_tensor *[]){time, taps}, &mn_op_conv_grad));
}

static void cross_entropy(mn_backend *b, mn_graph *g, mn_dtype t) {
  mn_tensor *h = mn_input(g, "h", t, MN_SHAPE(rows, width)), *w = mn_input(g, "w", t, MN_SHAPE(vocab_size, width));
  mn_tensor *target = mn_input(g, "target", MN_I32, MN_SHAPE(rows)), *nll;
  mn_tensor *loss = mn_linear_cross_entropy(g, h, w, target, NULL, &nll);
  mn_tensor *grad = loss ? grad_of(g, loss, 2, (mn_tensor *[]){h, w}, &mn_op_linear_ce_grad) : NULL;
  mn_tensor *product = mn_matmul_as(g, mn_input(g, "chunk", t, MN_SHAPE(512, width)), mn_transpose(g, w, 0, 1), MN_F32);
  if (!grad || !product) return;
  double bytes, copy, flops = 2.0 * (double)(rows * width * vocab_size);
  int few = repeat;
  repeat = repeat > 5 ? 5 : repeat;
  double forward = time_node(b, loss->node, &bytes, &copy), both = time_node(b, grad->node, &bytes, &copy);
  repeat = few;
  /* the product of one chunk of 512 tokens, as a matrix product of its own */
  mn_product p = {.M = 512,
                  .N = vocab_size,
                  .K = width,
                  .a_rs = width,
                  .a_cs = 1,
                  .b_rs = 1,
                  .b_cs = width,
                  .ldc = vocab_size,
                  .bf16 = t == MN_BF16,
                  .alpha = 1};
  mn_view a = view_new(b, product->node->in[0], 1), bw = view_new(b, w, 2), c = view_new(b, product, 3);
  void *scratch = mn_alloc_aligned(mn_product_scratch(&p, mn_cpu_isa(b), b->pool) + 64);
  p.a = a.data, p.b = bw.data, p.c = c.data;
  double alone = -1;
  for (int r = 0; r < 5 && scratch && p.a && p.b && p.c; r++) {
    double t0 = now();
    mn_product_run(&p, mn_cpu_isa(b), b->pool, scratch);
    double t1 = now();
    if (alone < 0 || t1 - t0 < alone) alone = t1 - t0;
  }
  double rate = 2.0 * 512 * (double)(width * vocab_size) / alone;
  printf("%-24s %-5s %8.1f ms %7.1f GFLOP/s, %.2f of the product of a chunk (%.1f GFLOP/s)\n", "cross-entropy", mn_dtype_name(t),
         forward * 1e3, flops / forward / 1e9, flops / forward / rate, rate / 1e9);
  printf("%-24s %-5s %8.1f ms %7.1f GFLOP/s, %.2f of it\n", "... with gradient", mn_dtype_name(t), both * 1e3, 3 * flops / both / 1e9,
         3 * flops / both / rate);
  free(scratch);
  mn_view *views[3] = {&a, &bw, &c};
  for (int i = 0; i < 3; i++)
    if (views[i]->data) b->free(b, views[i]->data, (size_t)mn_view_count(views[i]) * mn_dtype_size(views[i]->dtype));
}

int main(int argc, char **argv) {
  int threads = 0;
  for (int i = 1; i < argc; i += 2) {
    const char *value = i + 1 < argc ? argv[i + 1] : NULL;
    if (value && !strcmp(argv[i], "--threads")) threads = atoi(value);
    else if (value && !strcmp(argv[i], "--rows") && atoi(value) > 0) rows = atoi(value);
    else if (value && !strcmp(argv[i], "--width") && atoi(value) > 0) width = atoi(value);
    else if (value && !strcmp(argv[i], "--vocab") && atoi(value) > 0) vocab_size = atoi(value);
    else if (value && !strcmp(argv[i], "--repeat") && atoi(value) > 0) repeat = atoi(value);
    else if (value && !strcmp(argv[i], "--clock")) cpu_clock = !strcmp(value, "cpu");
    else {
      fprintf(stderr, "usage: %s [--threads N] [--rows N] [--width D] [--vocab N] [--repeat N] [--clock wall|cpu]\n", argv[0]);
      return 2;
    }
  }
  whole_below = vocab_size;
  mn_backend *b;
  if (mn_backend_cpu_new(threads, &b) != MN_OK) {
    fprintf(stderr, "%s\n", mn_message());
    return 1;
  }
  printf("%s, %d threads, %lld rows of %lld, %s clock\n", mn_isa_name(mn_cpu_isa(b)), mn_pool_threads(b->pool), (long long)rows,
         (long long)width, cpu_clock ? "cpu" : "wall");
  for (mn_dtype t = MN_F32; t <= MN_BF16; t += MN_BF16 - MN_F32) {
    mn_graph *g = mn_graph_new();
    if (!g) return 1;
    row_kernels(b, g, t);
    cross_entropy(b, g, t);
    if (mn_graph_status(g) != MN_OK) fprintf(stderr, "%s\n", mn_message());
    mn_graph_free(g);
  }
  mn_backend_free(b);
  return 0;
}
