/* optim.c - the optimiser's step as one kernel: parameter, gradient and moments go through the cache once. */
#include "backend/cpu/cpu.h"
#include "backend/cpu/isa/optim.h"
#include "graph/fused_adamw.h"
#include "graph/ops.h"

#include <math.h>
#include <string.h>

enum { TASK = 16384 };

typedef struct job {
  const mn_call *c;
  const mn_optim_vec *vec;
  mn_adamw_scalars s;
  int64_t count;
} job;

static void adamw_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const job *j = ctx;
  const mn_view *in = j->c->in, *out = j->c->out;
  int64_t at = i * TASK, n = j->count - at < TASK ? j->count - at : TASK;
  bool bf16 = in[1].dtype == MN_BF16;
  const char *g = (const char *)in[1].data + at * (bf16 ? 2 : 4);
  j->vec->adamw[bf16]((float *)out[0].data + at, (float *)out[1].data + at, (float *)out[2].data + at, (const float *)in[0].data + at, g,
                      (const float *)in[2].data + at, (const float *)in[3].data + at, n, &j->s);
}
/* A gradient scale that is not a number: no step. */
static void stay(mn_call *c, size_t bytes) {
  static const int from[] = {0, 2, 3}; /* p, m, v */
  for (int i = 0; i < 3; i++)
    if (c->out[i].data != c->in[from[i]].data) memcpy(c->out[i].data, c->in[from[i]].data, bytes);
}
static mn_status adamw_run(mn_call *c) {
  const mn_adamw_attr *a = c->attr;
  const float *s = c->in[4].data;
  job j = {.c = c,
           .vec = MN_ISA_PICK(mn_optim_table, mn_cpu_isa(c->backend)),
           .count = mn_view_count(&c->in[0]),
           .s = {.learning_rate = s[0],
                 .correction1 = s[1],
                 .correction2 = s[2],
                 .grad_scale = s[3],
                 .weight_decay = s[4],
                 .beta1 = (float)a->beta1,
                 .beta2 = (float)a->beta2,
                 .rest1 = (float)(1 - a->beta1),
                 .rest2 = (float)(1 - a->beta2),
                 .eps = (float)a->eps}};
  if (!isnan(j.s.grad_scale)) mn_pool_run(c->pool, (j.count + TASK - 1) / TASK, adamw_task, &j);
  else stay(c, (size_t)j.count * sizeof(float));
  return MN_OK;
}
static bool accepts(const mn_node *n) {
  mn_dtype g = n->in[1]->dtype;
  return n->in[0]->dtype == MN_F32 && n->in[2]->dtype == MN_F32 && n->in[3]->dtype == MN_F32 && n->in[4]->dtype == MN_F32 &&
         (g == MN_F32 || g == MN_BF16);
}
static const mn_kernel adamw = {.op = &mn_op_adamw, .name = "cpu adamw", .layout = MN_LAYOUT_DENSE, .accepts = accepts, .run = adamw_run};

const mn_kernel *const *mn_cpu_optim_kernels(mn_isa isa, int *n) {
  (void)isa; /* the call's backend says it */
  static const mn_kernel *const list[] = {&adamw};
  *n = 1;
  return list;
}
