/* cached.c - kernels that write caches in types of their own. A task has whole rows of one token; which depends on the shapes alone. */
#include "graph/cached.h"

#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/isa/narrow.h"

enum { TASK = 4096 }; /* values */

static const mn_narrow_vec *vec_of(const mn_call *c) { return MN_ISA_PICK(mn_narrow_table, mn_cpu_isa(c->backend)); }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- as it is read back ---- dense */
static void narrowed_task(void *ctx, int64_t task, int thread) {
  const mn_call *c = ctx;
  const mn_dtype type = (mn_dtype)((const mn_narrowed_attr *)c->attr)->type;
  const int64_t at = task * TASK, n = least(TASK, mn_view_count(&c->in[0]) - at);
  _Alignas(64) char kept[TASK * 2];
  (void)thread;
  vec_of(c)->narrow(type, (const float *)c->in[0].data + at, n, kept);
  vec_of(c)->widen(type, kept, n, (float *)c->out[0].data + at);
}
static mn_status narrowed_run(mn_call *c) {
  mn_pool_run(c->pool, (mn_view_count(&c->in[0]) + TASK - 1) / TASK, narrowed_task, c);
  return MN_OK;
}

/* ---- rows into slots ---- */
static void put_task(void *ctx, int64_t i, int thread) {
  const mn_call *c = ctx;
  const mn_view *cache = &c->out[0], *slots = &c->in[1], *rows = &c->in[2];
  const int64_t N = rows->dim[1], b = i / N, t = i % N, S = cache->dim[1], G = cache->dim[2], K = cache->dim[3];
  const int64_t slot = ((const int32_t *)slots->data)[b * slots->stride[0] + t * slots->stride[1]];
  (void)thread;
  if (slot < 0 || slot >= S) return;
  for (int64_t g = 0; g < G; g++) {
    const float *from = (const float *)rows->data + b * rows->stride[0] + t * rows->stride[1] + g * rows->stride[2];
    vec_of(c)->narrow(cache->dtype, from, K, (char *)cache->data + mn_dtype_bytes(cache->dtype, ((b * S + slot) * G + g) * K));
  }
}
static mn_status put_run(mn_call *c) {
  const mn_view *before = &c->in[0], *rows = &c->in[2];
  if (c->out[0].data != before->data) memcpy(c->out[0].data, before->data, mn_dtype_bytes(before->dtype, mn_view_count(before)));
  const int64_t n = rows->dim[0] * rows->dim[1];
  mn_pool_run(mn_view_count(rows) < TASK ? NULL : c->pool, n, put_task, c);
  return MN_OK;
}

static const mn_kernel narrowed = {.op = &mn_op_narrowed, .name = "cpu.narrowed", .layout = MN_LAYOUT_DENSE, .run = narrowed_run};
/* ROWS, but for the cache, which as a variable is dense */
static bool accepts(const mn_node *n) { return n->in[0]->dtype == n->out[0]->dtype; }
static const mn_kernel put = {
    .op = &mn_op_cache_put, .name = "cpu.cache_put", .layout = MN_LAYOUT_ROWS, .accepts = accepts, .run = put_run};

const mn_kernel *const *mn_cpu_cached_kernels(mn_isa isa, int *n) {
  static const mn_kernel *const kernels[] = {&narrowed, &put};
  (void)isa;
  *n = 2;
  return kernels;
}
