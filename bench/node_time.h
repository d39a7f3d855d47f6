/* node_time.h - for benches of single kernels: the time of a node's kernel on memory of its own, beside copying as many bytes. */
#ifndef MN_BENCH_NODE_TIME_H
#define MN_BENCH_NODE_TIME_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/cpu/cpu.h"
#include "graph/ops.h"

enum { MAX_IO = 12, COPY_BLOCK = 1 << 17 };
static int repeat = 20;
static bool cpu_clock; /* the calling thread's processor time in place of the wall's */
static int64_t whole_below = 8192;

static double now(void) {
  if (!cpu_clock) return mn_now();
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct copy_job {
  char *from, *to;
  int64_t bytes;
} copy_job;
static void copy_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const copy_job *j = ctx;
  int64_t at = i * COPY_BLOCK, n = j->bytes - at < COPY_BLOCK ? j->bytes - at : COPY_BLOCK;
  memcpy(j->to + at, j->from + at, (size_t)n);
}

/* Memory for a tensor: a constant's data, or numbers drawn from [-0.5, 0.5) and whole numbers below whole_below. */
static mn_view view_new(mn_backend *b, const mn_tensor *t, uint64_t key) {
  mn_view v = {.dtype = t->dtype, .ndim = t->shape.ndim};
  int64_t n = 1;
  for (int i = v.ndim - 1; i >= 0; i--) {
    v.dim[i] = t->shape.dim[i];
    v.stride[i] = n;
    n *= v.dim[i];
  }
  v.data = b->alloc(b, (size_t)n * mn_dtype_size(t->dtype));
  if (!v.data) return v;
  const mn_const_attr *constant = t->node->op == &mn_op_const ? t->node->attr : NULL;
  if (constant && !constant->is_full) {
    memcpy(v.data, constant->data, (size_t)n * mn_dtype_size(t->dtype));
    return v;
  }
  for (int64_t i = 0; i < n; i++) {
    float x = (float)mn_random_uniform(key, 0, (uint64_t)i) - 0.5f;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (t->dtype == MN_F32) ((float *)v.data)[i] = x;
    else if (t->dtype == MN_BF16) ((uint16_t *)v.data)[i] = (uint16_t)(bits >> 16);
    else ((int32_t *)v.data)[i] = (int32_t)(i * 7919 % whole_below);
  }
  return v;
}

/* The least time of the node's kernel; *bytes of its tensors; *copy: the least time of copying half of them. */
static double time_node(mn_backend *b, mn_node *n, double *bytes, double *copy) {
  mn_view in[MAX_IO], out[MAX_IO];
  *bytes = 0;
  for (int i = 0; i < n->n_in + n->n_out; i++) {
    const mn_tensor *t = i < n->n_in ? n->in[i] : n->out[i - n->n_in];
    *bytes += (double)mn_shape_count(&t->shape) * (double)mn_dtype_size(t->dtype);
    *(i < n->n_in ? &in[i] : &out[i - n->n_in]) = view_new(b, t, (uint64_t)i + 1);
  }
  mn_call c = {.kernel = mn_backend_find(b, n, NULL),
               .node = n,
               .attr = n->attr,
               .n_in = n->n_in,
               .n_out = n->n_out,
               .in = in,
               .out = out,
               .pool = b->pool,
               .backend = b};
  copy_job job = {.bytes = (int64_t)(*bytes / 2)};
  job.from = b->alloc(b, (size_t)job.bytes);
  job.to = b->alloc(b, (size_t)job.bytes);
  double best = -1;
  if (c.kernel && job.from && job.to) {
    if (c.kernel->workspace) c.workspace = mn_alloc_aligned(c.kernel->workspace(&c) + 64);
    if (c.kernel->prepare && c.kernel->prepare(&c) != MN_OK) fprintf(stderr, "%s\n", mn_message());
    memset(job.from, 1, (size_t)job.bytes);
    *copy = -1;
    for (int r = 0; r < repeat; r++) {
      double t0 = now();
      mn_pool_run(b->pool, (job.bytes + COPY_BLOCK - 1) / COPY_BLOCK, copy_task, &job);
      double t1 = now();
      if (c.kernel->run(&c) != MN_OK) fprintf(stderr, "%s\n", mn_message());
      double t2 = now();
      if (*copy < 0 || t1 - t0 < *copy) *copy = t1 - t0;
      if (best < 0 || t2 - t1 < best) best = t2 - t1;
    }
    if (c.kernel->release) c.kernel->release(&c);
    free(c.workspace);
  }
  if (job.from) b->free(b, job.from, (size_t)job.bytes);
  if (job.to) b->free(b, job.to, (size_t)job.bytes);
  for (int i = 0; i < n->n_in + n->n_out; i++) {
    mn_view *v = i < n->n_in ? &in[i] : &out[i - n->n_in];
    if (v->data) b->free(b, v->data, (size_t)mn_view_count(v) * mn_dtype_size(v->dtype));
  }
  return best;
}

#endif
