/* window.c - kernels of patches and of their adjoint: rows are copied, or added where they came from. A task is a row of the result,
 * so sums are made in one order for any number of threads. */
#include "base/bf16.h"
#include "backend/cpu/cpu.h"
#include "graph/ops.h"
#include "graph/window.h"

#include <string.h>

typedef struct job {
  const mn_window *w;
  const mn_view *in, *out;
  int64_t C, size; /* elements of a pixel; bytes of an element */
  float *sums;     /* unpatch to bf16: [threads, W, C] */
} job;

/* Patches of one row of places. x has dense pixels. */
static void patches_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const job *j = ctx;
  const mn_window *w = j->w;
  const mn_view *x = j->in, *y = j->out;
  const int64_t H = x->dim[1], W = x->dim[2], OH = y->dim[1], OW = y->dim[2], b = i / OH, oh = i % OH, pixel = j->C * j->size;
  const char *image = (const char *)x->data + b * x->stride[0] * j->size;
  char *to = (char *)y->data + (b * y->stride[0] + oh * y->stride[1]) * j->size;
  const bool whole = w->dilation[1] == 1 && x->stride[2] == j->C; /* a row of a window is one run */
  for (int64_t ow = 0; ow < OW; ow++, to += y->stride[2] * j->size)
    for (int64_t r = 0; r < w->size[0]; r++) {
      const int64_t h = oh * w->stride[0] - w->before[0] + r * w->dilation[0], first = ow * w->stride[1] - w->before[1];
      char *row = to + r * w->size[1] * pixel;
      if (h < 0 || h >= H) {
        memset(row, 0, (size_t)(w->size[1] * pixel));
        continue;
      }
      const char *line = image + h * x->stride[1] * j->size;
      if (whole && first >= 0 && first + w->size[1] <= W) {
        memcpy(row, line + first * pixel, (size_t)(w->size[1] * pixel));
        continue;
      }
      for (int64_t s = 0; s < w->size[1]; s++) {
        const int64_t at = first + s * w->dilation[1];
        if (at < 0 || at >= W) memset(row + s * pixel, 0, (size_t)pixel);
        else memcpy(row + s * pixel, line + at * x->stride[2] * j->size, (size_t)pixel);
      }
    }
}
static bool patches_accepts(const mn_node *n) { return n->in[0]->dtype == n->out[0]->dtype; }
static mn_status patches_run(mn_call *c) {
  job j = {.w = c->attr, .in = &c->in[0], .out = &c->out[0], .C = c->in[0].dim[3], .size = (int64_t)mn_dtype_size(c->in[0].dtype)};
  mn_pool_run(c->pool, c->out[0].dim[0] * c->out[0].dim[1], patches_task, &j);
  return MN_OK;
}

/* One row of the image: what all places that read it add. Sums are f32; bf16 is rounded once, at the end. */
static void unpatch_task(void *ctx, int64_t i, int thread) {
  const job *j = ctx;
  const mn_window *w = j->w;
  const mn_view *y = j->in, *x = j->out;
  const int64_t H = x->dim[1], W = x->dim[2], OH = y->dim[1], OW = y->dim[2], C = j->C, b = i / H, h = i % H;
  const bool bf16 = x->dtype == MN_BF16;
  const int64_t start = b * x->stride[0] + h * x->stride[1], step = bf16 ? C : x->stride[2]; /* of the row, of its pixels */
  float *row = bf16 ? j->sums + thread * W * C : (float *)x->data + start;
  for (int64_t at = 0; at < W; at++) memset(row + at * step, 0, (size_t)C * sizeof *row);
  for (int64_t r = 0; r < w->size[0]; r++) {
    const int64_t top = h + w->before[0] - r * w->dilation[0], oh = top / w->stride[0];
    if (top < 0 || top % w->stride[0] || oh >= OH) continue;
    for (int64_t ow = 0; ow < OW; ow++) {
      const int64_t from = b * y->stride[0] + oh * y->stride[1] + ow * y->stride[2] + r * w->size[1] * C;
      for (int64_t s = 0; s < w->size[1]; s++) {
        const int64_t at = ow * w->stride[1] - w->before[1] + s * w->dilation[1];
        if (at < 0 || at >= W) continue;
        float *to = row + at * step;
        if (bf16) {
          const uint16_t *add = (const uint16_t *)y->data + from + s * C;
          for (int64_t e = 0; e < C; e++) to[e] += mn_bf16_to_float(add[e]);
        } else {
          const float *add = (const float *)y->data + from + s * C;
          for (int64_t e = 0; e < C; e++) to[e] += add[e];
        }
      }
    }
  }
  for (int64_t at = 0; bf16 && at < W; at++)
    for (int64_t e = 0; e < C; e++) ((uint16_t *)x->data)[start + at * x->stride[2] + e] = mn_float_to_bf16(row[at * C + e]);
}
static bool unpatch_accepts(const mn_node *n) {
  const mn_dtype t = n->in[0]->dtype;
  return (t == MN_F32 || t == MN_BF16) && n->out[0]->dtype == t;
}
static size_t unpatch_workspace(const mn_call *c) {
  const mn_view *x = &c->out[0];
  return x->dtype == MN_BF16 ? (size_t)((c->pool ? mn_pool_threads(c->pool) : 1) * x->dim[2] * x->dim[3]) * sizeof(float) : 0;
}
static mn_status unpatch_run(mn_call *c) {
  job j = {.w = c->attr, .in = &c->in[0], .out = &c->out[0], .C = c->out[0].dim[3], .sums = c->workspace};
  mn_pool_run(c->pool, c->out[0].dim[0] * c->out[0].dim[1], unpatch_task, &j);
  return MN_OK;
}

static const mn_kernel patches = {
    .op = &mn_op_patches, .name = "cpu.patches", .layout = MN_LAYOUT_ROWS, .accepts = patches_accepts, .run = patches_run};
static const mn_kernel unpatch = {.op = &mn_op_unpatch,
                                  .name = "cpu.unpatch",
                                  .layout = MN_LAYOUT_ROWS,
                                  .accepts = unpatch_accepts,
                                  .workspace = unpatch_workspace,
                                  .run = unpatch_run};

const mn_kernel *const *mn_cpu_window_kernels(mn_isa isa, int *n) {
  (void)isa; /* memory's speed is the limit */
  static const mn_kernel *const list[] = {&patches, &unpatch};
  *n = 2;
  return list;
}
