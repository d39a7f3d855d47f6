/* attention.c - kernels of softmax attention, its gradient, and the masked product: what is given to which thread.
 * Tasks depend on the shapes only, and sums over tasks are made in a fixed order: the same bits for any number of
 * threads. */
#include "backend/cpu/cpu.h"
#include "backend/cpu/isa/attention.h"
#include "backend/cpu/isa/masked_product.h"
#include "graph/ops.h"

#include <string.h>

/* ---- arguments ---- */
static mn_attn_tensor token_tensor(const mn_view *v) { /* [B,T,H,*] */
  return (mn_attn_tensor){v->data, v->stride[0], v->stride[1], v->stride[2]};
}
/* Strides of a tensor that broadcasts to [B,H,T,S]. */
static void broadcast_strides(const mn_view *v, int64_t out[4]) {
  for (int i = 0; i < 4; i++) {
    int own = i - (4 - v->ndim);
    out[i] = own < 0 || v->dim[own] == 1 ? 0 : v->stride[own];
  }
}

static mn_attn_args args_of(const mn_call *c, bool backward) {
  const mn_attention_attr *attr = c->attr;
  const mn_view *in = c->in, *out = c->out;
  mn_attn_args a = {
      .B = in[0].dim[0],
      .T = in[0].dim[1],
      .H = in[0].dim[2],
      .K = in[0].dim[3],
      .S = in[1].dim[1],
      .G = in[1].dim[2],
      .V = in[2].dim[3],
      .scale = (float)attr->scale,
      .window = attr->window,
      .prefix = attr->prefix,
      .sinks = attr->sinks,
      .q_start = attr->q_start,
      .causal = attr->causal,
      .has_bias = attr->has_bias,
      .bf16 = in[0].dtype == MN_BF16,
      .q = token_tensor(&in[0]),
      .k = token_tensor(&in[1]),
      .v = token_tensor(&in[2]),
  };
  int i = 3;
  if (attr->has_pos) {
    a.q_pos = in[i].data;
    a.q_pos_b = in[i].stride[0];
    a.k_pos = in[i + 1].data;
    a.k_pos_b = in[i + 1].stride[0];
    a.k_pos_s = in[i + 1].stride[1];
    i += 2;
  }
  int64_t s[4];
  if (attr->has_bias) {
    broadcast_strides(&in[i], s);
    a.bias = in[i++].data;
    a.bias_b = s[0], a.bias_h = s[1], a.bias_t = s[2], a.bias_s = s[3];
  }
  const mn_view *lse = backward ? &in[i + 1] : &out[1];
  a.o = token_tensor(backward ? &in[i] : &out[0]);
  a.lse = lse->data;
  a.lse_b = lse->stride[0], a.lse_h = lse->stride[1];
  if (!backward) return a;
  a.d_o = token_tensor(&in[i + 2]);
  a.dlse = in[i + 3].data;
  a.dlse_b = in[i + 3].stride[0], a.dlse_h = in[i + 3].stride[1];
  a.dq = token_tensor(&out[0]), a.dk = token_tensor(&out[1]), a.dv = token_tensor(&out[2]);
  if (attr->has_bias) {
    broadcast_strides(&out[3], s);
    a.dbias = out[3].data;
    a.dbias_b = s[0], a.dbias_h = s[1], a.dbias_t = s[2], a.dbias_s = s[3];
  }
  return a;
}

static bool accepts(const mn_node *n) { /* one type, f32 or bf16; positions i32; the rest f32 */
  const mn_attention_attr *attr = n->attr;
  const mn_dtype t = n->in[0]->dtype;
  if (t != MN_F32 && t != MN_BF16) return false;
  int i = 3 + 2 * attr->has_pos;
  if (n->in[1]->dtype != t || n->in[2]->dtype != t) return false;
  if (attr->has_bias && n->in[i++]->dtype != MN_F32) return false;
  if (i == n->n_in) return n->out[0]->dtype == t && n->out[1]->dtype == MN_F32;
  if (n->in[i]->dtype != t || n->in[i + 1]->dtype != MN_F32 || n->in[i + 2]->dtype != t || n->in[i + 3]->dtype != MN_F32) return false;
  return n->out[0]->dtype == t && n->out[1]->dtype == t && n->out[2]->dtype == t && (!attr->has_bias || n->out[3]->dtype == MN_F32);
}

typedef struct job {
  mn_attn_args a;
  const mn_attention_isa *fwd;
  const mn_attention_grad_isa *bwd;
  char *scratch;
  size_t scratch_size;
  int64_t blocks, splits, parts, batches, heads; /* see where they are set */
  float *sums;
  size_t partial;
} job;

static int threads_of(const mn_call *c) { return c->pool ? mn_pool_threads(c->pool) : 1; }
static int64_t at_least_1(int64_t n) { return n < 1 ? 1 : n; }

/* ---- forward ---- */
/* Decoding: keys are split when there are many of them and few sequences. */
static int64_t splits_of(const mn_attn_args *a) {
  int64_t want = 16 / at_least_1(a->B), most = a->S * a->G * (a->K + a->V) / 65536;
  return at_least_1(want < most ? want : most);
}
static size_t floats(int64_t n) { return mn_align((size_t)n * sizeof(float), 64); }

static size_t forward_workspace(const mn_call *c) {
  const mn_attention_isa *isa = MN_ISA_PICK(mn_attention, mn_cpu_isa(c->backend));
  mn_attn_args a = args_of(c, false);
  if (a.T != 1) return (size_t)threads_of(c) * isa->forward_scratch(&a);
  return (size_t)threads_of(c) * isa->decode_scratch(&a) + floats(a.B * a.H * splits_of(&a) * (a.V + 2));
}

static void forward_task(void *ctx, int64_t i, int thread) {
  const job *j = ctx;
  const int64_t block = j->blocks - 1 - i % j->blocks, h = i / j->blocks % j->a.H, b = i / j->blocks / j->a.H;
  j->fwd->forward(&j->a, b, h, block * MN_ATTN_QUERIES, j->scratch + (size_t)thread * j->scratch_size);
}
static void decode_task(void *ctx, int64_t i, int thread) {
  const job *j = ctx;
  const mn_attn_args *a = &j->a;
  const int64_t split = i % j->splits, each = (a->S + j->splits - 1) / j->splits;
  const int64_t s0 = split * each < a->S ? split * each : a->S, s1 = s0 + each < a->S ? s0 + each : a->S;
  j->fwd->decode(a, i / j->splits, s0, s1, j->sums + i * a->H * (a->V + 2), j->scratch + (size_t)thread * j->scratch_size);
}

static mn_status forward_run(mn_call *c) {
  job j = {.a = args_of(c, false), .fwd = MN_ISA_PICK(mn_attention, mn_cpu_isa(c->backend)), .scratch = c->workspace};
  if (j.a.T == 1) {
    j.scratch_size = j.fwd->decode_scratch(&j.a);
    j.splits = splits_of(&j.a);
    j.sums = (float *)(void *)(j.scratch + (size_t)threads_of(c) * j.scratch_size);
    /* a few keys are done sooner than a thread wakes up */
    mn_pool *pool = j.a.B * j.a.G * j.a.S * (j.a.K + j.a.V) < 65536 ? NULL : c->pool;
    mn_pool_run(pool, j.a.B * j.splits, decode_task, &j);
    for (int64_t b = 0; b < j.a.B; b++) j.fwd->decode_join(&j.a, b, j.splits, j.sums + b * j.splits * j.a.H * (j.a.V + 2));
    return MN_OK;
  }
  j.scratch_size = j.fwd->forward_scratch(&j.a);
  j.blocks = (j.a.T + MN_ATTN_QUERIES - 1) / MN_ATTN_QUERIES;
  mn_pool_run(c->pool, j.a.B * j.a.H * j.blocks, forward_task, &j);
  return MN_OK;
}

/* ---- backward ---- */
/* The query blocks of one (batch, key head) are dealt to several parts, each with its own sums, when there are few such
 * pairs. Where a bias is shared by batches or heads, those run one after the other. */
static int64_t parts_of(const mn_attn_args *a) {
  int64_t units = a->H / a->G * ((a->T + MN_ATTN_QUERIES - 1) / MN_ATTN_QUERIES);
  int64_t want = a->has_bias ? 1 : (7 + a->B * a->G) / at_least_1(a->B * a->G);
  return at_least_1(want < units ? want : units);
}

static size_t backward_workspace(const mn_call *c) {
  const mn_attention_grad_isa *isa = MN_ISA_PICK(mn_attention_grad, mn_cpu_isa(c->backend));
  mn_attn_args a = args_of(c, true);
  int64_t parts = parts_of(&a), slots = parts > 1 ? a.B * a.G * parts : threads_of(c);
  return (size_t)threads_of(c) * isa->scratch(&a) + (size_t)slots * floats(isa->sum_floats(&a));
}

static void whole_task(void *ctx, int64_t i, int thread) { /* parts == 1 */
  const job *j = ctx;
  const mn_attn_args *a = &j->a;
  float *sums = (float *)(void *)((char *)j->sums + (size_t)thread * j->partial);
  const int64_t b0 = j->batches == a->B ? i / j->heads : 0, b1 = j->batches == a->B ? b0 + 1 : a->B;
  const int64_t g0 = j->heads == a->G ? i % j->heads : 0, g1 = j->heads == a->G ? g0 + 1 : a->G;
  for (int64_t b = b0; b < b1; b++)
    for (int64_t g = g0; g < g1; g++) {
      j->bwd->part(a, b, g, 0, 1, sums, j->scratch + (size_t)thread * j->scratch_size);
      j->bwd->finish(a, b, g, 1, sums);
    }
}
static void part_task(void *ctx, int64_t i, int thread) {
  const job *j = ctx;
  const int64_t bg = i / j->parts;
  j->bwd->part(&j->a, bg / j->a.G, bg % j->a.G, i % j->parts, j->parts, (float *)(void *)((char *)j->sums + (size_t)i * j->partial),
               j->scratch + (size_t)thread * j->scratch_size);
}
static void finish_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const job *j = ctx;
  j->bwd->finish(&j->a, i / j->a.G, i % j->a.G, j->parts, (float *)(void *)((char *)j->sums + (size_t)(i * j->parts) * j->partial));
}

static mn_status backward_run(mn_call *c) {
  job j = {.a = args_of(c, true), .bwd = MN_ISA_PICK(mn_attention_grad, mn_cpu_isa(c->backend)), .scratch = c->workspace};
  const mn_attn_args *a = &j.a;
  j.scratch_size = j.bwd->scratch(a);
  j.parts = parts_of(a);
  j.partial = (size_t)j.bwd->sum_floats(a) * sizeof(float);
  j.sums = (float *)(void *)(j.scratch + (size_t)threads_of(c) * j.scratch_size);
  j.batches = a->B, j.heads = a->G;
  if (a->dbias) {
    memset(a->dbias, 0, (size_t)mn_view_count(&c->out[3]) * sizeof(float));
    if (a->dbias_b == 0) j.batches = 1;
    if (a->dbias_h == 0) j.heads = 1;
  }
  if (j.parts == 1) {
    mn_pool_run(c->pool, j.batches * j.heads, whole_task, &j);
    return MN_OK;
  }
  mn_pool_run(c->pool, a->B * a->G * j.parts, part_task, &j);
  mn_pool_run(c->pool, a->B * a->G, finish_task, &j);
  return MN_OK;
}

/* ---- masked product ---- one task for each batch element and block of rows */
typedef struct masked_job {
  mn_masked_args a;
  const mn_masked_product_isa *isa;
  const mn_call *call;
  int64_t blocks;
  size_t scratch_size;
} masked_job;

static mn_masked_matrix matrix_of(const mn_view *v, int64_t batch) { /* batch counts over v's own leading axes */
  int64_t at = 0;
  for (int i = v->ndim - 3; i >= 0; i--) {
    at += batch % v->dim[i] * v->stride[i];
    batch /= v->dim[i];
  }
  return (mn_masked_matrix){(char *)v->data + at * (int64_t)mn_dtype_size(v->dtype), v->stride[v->ndim - 2], v->dtype == MN_BF16};
}
static mn_masked_args masked_args(const mn_call *c) {
  const mn_view *x = &c->in[0], *y = &c->in[1], *z = &c->in[3];
  return (mn_masked_args){.M = x->dim[x->ndim - 2], .N = y->dim[y->ndim - 2], .K = x->dim[x->ndim - 1], .V = z->dim[z->ndim - 1]};
}
static bool masked_accepts(const mn_node *n) {
  for (int i = 0; i < 4; i++)
    if ((n->in[i]->dtype != MN_F32 && n->in[i]->dtype != MN_BF16) || n->in[i]->shape.ndim != n->out[0]->shape.ndim) return false;
  for (int i = 0; i < 4; i++)
    for (int d = 0; d < n->out[0]->shape.ndim - 2; d++)
      if (n->in[i]->shape.dim[d] != n->out[0]->shape.dim[d]) return false;
  return n->out[0]->dtype == MN_F32 || n->out[0]->dtype == MN_BF16;
}
static size_t masked_workspace(const mn_call *c) {
  mn_masked_args a = masked_args(c);
  return (size_t)threads_of(c) * MN_ISA_PICK(mn_masked_product, mn_cpu_isa(c->backend))->scratch(&a);
}
static void masked_task(void *ctx, int64_t i, int thread) {
  const masked_job *j = ctx;
  mn_masked_args a = j->a;
  const int64_t batch = i / j->blocks;
  a.x = matrix_of(&j->call->in[0], batch), a.y = matrix_of(&j->call->in[1], batch);
  a.p = matrix_of(&j->call->in[2], batch), a.z = matrix_of(&j->call->in[3], batch);
  a.o = matrix_of(&j->call->out[0], batch);
  j->isa->run(&a, i % j->blocks * MN_MASKED_ROWS, (char *)j->call->workspace + (size_t)thread * j->scratch_size);
}
static mn_status masked_run(mn_call *c) {
  masked_job j = {.a = masked_args(c), .isa = MN_ISA_PICK(mn_masked_product, mn_cpu_isa(c->backend)), .call = c};
  const mn_view *o = &c->out[0];
  int64_t batch = 1;
  for (int i = 0; i < o->ndim - 2; i++) batch *= o->dim[i];
  j.blocks = (j.a.M + MN_MASKED_ROWS - 1) / MN_MASKED_ROWS;
  j.scratch_size = j.isa->scratch(&j.a);
  mn_pool_run(c->pool, batch * j.blocks, masked_task, &j);
  return MN_OK;
}

static const mn_kernel forward_kernel = {.op = &mn_op_attention,
                                         .name = "cpu.attention",
                                         .layout = MN_LAYOUT_ROWS,
                                         .accepts = accepts,
                                         .workspace = forward_workspace,
                                         .run = forward_run};
static const mn_kernel backward_kernel = {.op = &mn_op_attention_grad,
                                          .name = "cpu.attention_grad",
                                          .layout = MN_LAYOUT_ROWS,
                                          .accepts = accepts,
                                          .workspace = backward_workspace,
                                          .run = backward_run};
static const mn_kernel masked_kernel = {.op = &mn_op_masked_product,
                                        .name = "cpu.masked_product",
                                        .layout = MN_LAYOUT_ROWS,
                                        .accepts = masked_accepts,
                                        .workspace = masked_workspace,
                                        .run = masked_run};

const mn_kernel *const *mn_cpu_attention_kernels(mn_isa isa, int *n) {
  (void)isa;
  static const mn_kernel *const list[] = {&forward_kernel, &backward_kernel, &masked_kernel};
  *n = 3;
  return list;
}
