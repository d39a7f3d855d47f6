/* attention.c - kernels of softmax attention, its gradient, and the masked product: what is given to which thread.
 * Tasks depend on the shapes only, and sums over tasks are made in a fixed order: the same bits for any number of
 * threads. */
#include "backend/cpu/cpu.h"
#include "backend/cpu/isa/attention.h"
#include "backend/cpu/isa/masked_product.h"
#include "backend/cpu/lean.h"
#include "base/narrow.h"
#include "graph/fused_attention.h"
#include "graph/fused_masked_product.h"
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

static bool wants_dbias(const mn_call *c) { return mn_attention_biased(c->attr) && mn_call_wants(c, 3); }
/* Its view as one of a tensor that broadcasts to [B,H,T,S]: a table by distance, [H,N], is one row of N for each head. */
static mn_view dbias_view(const mn_call *c) {
  mn_view v = c->out[3];
  if (!((const mn_attention_attr *)c->attr)->by_distance) return v;
  const int64_t H = v.dim[0], N = v.dim[1];
  v.ndim = 4;
  v.dim[0] = v.dim[2] = 1, v.dim[1] = H, v.dim[3] = N;
  v.stride[0] = v.stride[2] = 0, v.stride[1] = N, v.stride[3] = 1; /* results are dense */
  return v;
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
      .softcap = attr->softcap > 0 ? (float)attr->softcap : 0,
      .window = attr->window,
      .prefix = attr->prefix,
      .sinks = attr->sinks,
      .q_start = attr->q_start,
      .causal = attr->causal,
      .ring = attr->ring,
      .gate = attr->gate,
      .has_bias = attr->has_bias,
      .by_distance = attr->by_distance,
      .bf16 = in[0].dtype == MN_BF16,
      .kv = in[1].dtype,
      .q = token_tensor(&in[0]),
      .k = token_tensor(&in[1]),
      .v = token_tensor(&in[2]),
  };
  int i = 3;
  if (attr->has_q_pos) {
    a.q_pos = in[i].data;
    a.q_pos_b = in[i].stride[0];
    a.q_pos_t = in[i].ndim == 2 ? in[i].stride[1] : 0;
    i++;
  }
  if (attr->has_k_pos) {
    a.k_pos = in[i].data;
    a.k_pos_b = in[i].stride[0];
    a.k_pos_s = in[i].stride[1];
    i++;
  }
  if (attr->has_length) {
    a.length = in[i].data;
    a.length_b = in[i].stride[0];
    i++;
  }
  int64_t s[4];
  if (attr->has_blocks) {
    broadcast_strides(&in[i], s);
    a.has_blocks = true;
    a.blocks = in[i].data;
    a.blocks_b = s[0], a.blocks_h = s[1], a.blocks_q = s[2], a.blocks_n = s[3], a.listed = in[i].dim[3];
    a.block_q = attr->block_q, a.block_k = attr->block_k;
    i++;
  }
  if (attr->has_bias) {
    broadcast_strides(&in[i], s);
    a.bias = in[i++].data;
    a.bias_b = s[0], a.bias_h = s[1], a.bias_t = s[2], a.bias_s = s[3];
  }
  if (attr->by_distance) {
    a.distance = in[i].data;
    a.distance_h = in[i].stride[0], a.distances = in[i].dim[1], a.distance_zero = attr->distance_zero;
    i++;
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
  if (wants_dbias(c)) {
    const mn_view dbias = dbias_view(c);
    broadcast_strides(&dbias, s);
    a.dbias = dbias.data;
    a.dbias_b = s[0], a.dbias_h = s[1], a.dbias_t = s[2], a.dbias_s = s[3];
  }
  return a;
}

static bool accepts(const mn_node *n) { /* one type, f32 or bf16 (forward k and v of a cache's, too); positions i32; the rest f32 */
  const mn_attention_attr *attr = n->attr;
  const mn_dtype t = n->in[0]->dtype;
  if (t != MN_F32 && t != MN_BF16) return false;
  int i = mn_attention_operands(attr);
  const mn_dtype kv = n->in[1]->dtype;
  if (n->in[2]->dtype != kv || (kv != t && (!mn_is_narrow(kv) || n->op != &mn_op_attention || attr->gate))) return false;
  if (attr->gate > MN_ATTN_KEYS) return false; /* a gated block is done at once */
  if (attr->softcap > 0 && mn_attention_biased(attr)) return false;
  if (mn_attention_biased(attr) && n->in[i++]->dtype != MN_F32) return false;
  if (i == n->n_in) return n->out[0]->dtype == t && n->out[1]->dtype == MN_F32;
  if (n->in[i]->dtype != t || n->in[i + 1]->dtype != MN_F32 || n->in[i + 2]->dtype != t || n->in[i + 3]->dtype != MN_F32) return false;
  return n->out[0]->dtype == t && n->out[1]->dtype == t && n->out[2]->dtype == t &&
         (!mn_attention_biased(attr) || n->out[3]->dtype == MN_F32);
}

/* How the backward pass is cut into tasks; pairs: of a batch element and a key head. */
typedef enum cut_kind {
  BY_PAIRS, /* each pair is cut into `parts`, which share nothing but dk and dv                                        */
  BY_SUMS,  /* rows of dbias are shared: `chunks` of pairs times `parts` of each, every task with a dbias of its own    */
  BY_ROWS   /* the same, where that would be too much memory: pair after pair, cut by blocks of queries                 */
} cut_kind;
typedef struct backward_cut {
  cut_kind kind;
  int64_t chunks, parts;
} backward_cut;

typedef struct job {
  mn_attn_args a;
  const mn_attention_isa *fwd;
  const mn_attention_grad_isa *bwd;
  char *scratch;
  size_t scratch_size;
  int64_t blocks;                /* of queries */
  int64_t tiles, shares, *first; /* of decoding (lean.h) */
  backward_cut cut;
  int64_t pair; /* of the cut BY_ROWS: the pair that is being done */
  float *sums, *biases;
  size_t partial, bias_size; /* bytes of one */
} job;

static int64_t at_least_1(int64_t n) { return n < 1 ? 1 : n; }

/* ---- forward ---- */
static size_t floats(int64_t n) { return mn_align((size_t)n * sizeof(float), 64); }

/* With lists each head has its own keys; gated blocks are weighed whole. */
static bool is_decoding(const mn_attn_args *a) { return a->T == 1 && !a->has_blocks && !a->gate; }

static size_t part_bytes(const mn_attn_args *a) { return floats(a->H * (a->V + 2)); }
static size_t first_bytes(const mn_attn_args *a) { return mn_align((size_t)(a->B + 1) * sizeof(int64_t), 64); }

static size_t forward_workspace(const mn_call *c) {
  const mn_attention_isa *isa = MN_ISA_PICK(mn_attention, mn_cpu_isa(c->backend));
  mn_attn_args a = args_of(c, false);
  if (!is_decoding(&a)) return (size_t)mn_pool_threads(c->pool) * isa->forward_scratch(&a);
  return (size_t)mn_pool_threads(c->pool) * isa->decode_scratch(&a) + (size_t)(2 * MN_LEAN_SHARES) * part_bytes(&a) + first_bytes(&a);
}

static void forward_task(void *ctx, int64_t i, int thread) {
  const job *j = ctx;
  const int64_t block = j->blocks - 1 - i % j->blocks, h = i / j->blocks % j->a.H, b = i / j->blocks / j->a.H;
  j->fwd->forward(&j->a, b, h, block * MN_ATTN_QUERIES, j->scratch + (size_t)thread * j->scratch_size);
}
/* Share w hands on the part of a request that it ends in (the request's others come first) and of one that it begins. */
static float *tail_of(const job *j, int64_t w) { return (float *)(void *)((char *)j->sums + (size_t)(2 * w) * j->partial); }
static float *head_of(const job *j, int64_t w) { return (float *)(void *)((char *)j->sums + (size_t)(2 * w + 1) * j->partial); }

static void share_task(void *ctx, int64_t w, int thread) {
  const job *j = ctx;
  const mn_attn_args *a = &j->a;
  int64_t at, end;
  mn_lean_range(j->tiles, j->shares, w, &at, &end);
  for (int64_t stop; at < end; at = stop) {
    const int64_t b = mn_lean_output_of(j->first, a->B, at), filled = mn_attn_filled(a, b);
    stop = j->first[b + 1] < end ? j->first[b + 1] : end;
    const int64_t s0 = (at - j->first[b]) * MN_LEAN_TILE, s1 = (stop - j->first[b]) * MN_LEAN_TILE;
    float *part = at == j->first[b] ? head_of(j, w) : tail_of(j, w);
    j->fwd->decode(a, b, s0, s1 < filled ? s1 : filled, part, j->scratch + (size_t)thread * j->scratch_size);
    if (at == j->first[b] && stop == j->first[b + 1]) j->fwd->decode_join(a, b, 1, (const float *[]){part}); /* all of it */
  }
}

static void join_shares(const job *j, int64_t b) {
  const int64_t begin = j->first[b], end = j->first[b + 1];
  const float *parts[MN_LEAN_SHARES];
  int64_t n = 0;
  if (begin < end) {
    const int64_t w0 = mn_lean_share_of(j->tiles, j->shares, begin), w1 = mn_lean_share_of(j->tiles, j->shares, end - 1);
    if (w0 == w1) return; /* it was whole */
    parts[n++] = head_of(j, w0);
    for (int64_t w = w0 + 1; w <= w1; w++) parts[n++] = tail_of(j, w);
  }
  j->fwd->decode_join(&j->a, b, n, parts);
}

enum { JOINED = 4 /* requests: fewer are less than waking the others costs */ };
static void join_task(void *ctx, int64_t b, int thread) {
  (void)thread;
  join_shares(ctx, b);
}

static void decode_all(job *j, mn_pool *pool) {
  const mn_attn_args *a = &j->a;
  j->first[0] = 0;
  for (int64_t b = 0; b < a->B; b++) j->first[b + 1] = j->first[b] + mn_lean_tiles(mn_attn_filled(a, b));
  j->tiles = j->first[a->B];
  j->shares = mn_lean_shares(j->tiles, (int64_t)mn_dtype_bytes(a->kv, MN_LEAN_TILE * a->G * (a->K + a->V)));
  mn_pool_run(pool, j->tiles ? j->shares : 0, share_task, j);
  mn_pool_run(a->B < JOINED ? NULL : pool, a->B, join_task, j);
}

static mn_status forward_run(mn_call *c) {
  job j = {.a = args_of(c, false), .fwd = MN_ISA_PICK(mn_attention, mn_cpu_isa(c->backend)), .scratch = c->workspace};
  if (is_decoding(&j.a)) {
    j.scratch_size = j.fwd->decode_scratch(&j.a);
    j.partial = part_bytes(&j.a);
    j.sums = (float *)(void *)(j.scratch + (size_t)mn_pool_threads(c->pool) * j.scratch_size);
    j.first = (int64_t *)(void *)((char *)j.sums + (size_t)(2 * MN_LEAN_SHARES) * j.partial);
    decode_all(&j, c->pool);
    return MN_OK;
  }
  j.scratch_size = j.fwd->forward_scratch(&j.a);
  for (int i = 0; i < mn_pool_threads(c->pool); i++) j.fwd->forward_begin(j.scratch + (size_t)i * j.scratch_size);
  j.blocks = (j.a.T + MN_ATTN_QUERIES - 1) / MN_ATTN_QUERIES;
  mn_pool_run(c->pool, j.a.B * j.a.H * j.blocks, forward_task, &j);
  return MN_OK;
}

/* ---- backward ---- */
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* About as many tasks as keep many threads busy, by the shapes alone. dbias: of the call; its data may not be known yet. */
static backward_cut cut_of(const mn_attn_args *a, const mn_view *dbias) {
  enum { TASKS = 8, MOST = 64 << 20 }; /* bytes of biases side by side */
  const int64_t pairs = a->B * a->G, blocks = (a->T + MN_ATTN_QUERIES - 1) / MN_ATTN_QUERIES, units = a->H / a->G * blocks;
  backward_cut cut = {BY_PAIRS, pairs, at_least_1(least((TASKS - 1 + pairs) / at_least_1(pairs), units))};
  if (!dbias) return cut;
  int64_t s[4];
  broadcast_strides(dbias, s);
  const bool shared = (s[0] == 0 && a->B > 1) || (s[1] == 0 && a->H > 1) || (s[2] == 0 && a->T > 1);
  if (!shared) return cut;
  cut.kind = BY_SUMS;
  cut.chunks = at_least_1(least(pairs, TASKS));
  cut.parts = cut.chunks < pairs ? 1 : at_least_1(least(TASKS / cut.chunks, units)); /* a pair's sums are joined where all its parts are */
  if (s[2] == 0 || cut.chunks * cut.parts * mn_view_count(dbias) * (int64_t)sizeof(float) <= MOST) return cut;
  return (backward_cut){BY_ROWS, 1, at_least_1(least(blocks, TASKS))};
}

static const mn_view *dbias_of(const mn_call *c, mn_view *view) {
  if (!wants_dbias(c)) return NULL;
  *view = dbias_view(c);
  return view;
}
static int64_t sums_of(const backward_cut *cut, const mn_call *c, int64_t pairs) { /* so many sums of one key head */
  return cut->kind == BY_ROWS ? cut->parts : cut->parts > 1 ? pairs * cut->parts : mn_pool_threads(c->pool);
}

static size_t backward_workspace(const mn_call *c) {
  const mn_attention_grad_isa *isa = MN_ISA_PICK(mn_attention_grad, mn_cpu_isa(c->backend));
  mn_attn_args a = args_of(c, true);
  mn_view view;
  const mn_view *dbias = dbias_of(c, &view);
  const backward_cut cut = cut_of(&a, dbias);
  const size_t biases = cut.kind == BY_SUMS ? (size_t)(cut.chunks * cut.parts) * floats(mn_view_count(dbias)) : 0;
  return (size_t)mn_pool_threads(c->pool) * isa->scratch(&a) + (size_t)sums_of(&cut, c, a.B * a.G) * floats(isa->sum_floats(&a)) + biases;
}

static float *sums_at(const job *j, int64_t i) { return (float *)(void *)((char *)j->sums + (size_t)i * j->partial); }

static void run_part(const job *j, const mn_attn_args *a, int64_t pair, int64_t part, float *sums, int thread) {
  j->bwd->part(a, pair / a->G, pair % a->G, part, j->cut.parts, sums, j->scratch + (size_t)thread * j->scratch_size);
}
static void finish_pair(const job *j, int64_t pair, float *sums) {
  j->bwd->finish(&j->a, pair / j->a.G, pair % j->a.G, j->cut.parts, sums);
}
static void pair_task(void *ctx, int64_t i, int thread) {
  const job *j = ctx;
  float *sums = sums_at(j, j->cut.parts == 1 ? thread : i);
  run_part(j, &j->a, i / j->cut.parts, i % j->cut.parts, sums, thread);
  if (j->cut.parts == 1) finish_pair(j, i, sums);
}
static void finish_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const job *j = ctx;
  finish_pair(j, i, sums_at(j, i * j->cut.parts));
}
static void sum_task(void *ctx, int64_t i, int thread) { /* the cut BY_SUMS */
  const job *j = ctx;
  mn_attn_args a = j->a;
  const int64_t chunk = i / j->cut.parts, part = i % j->cut.parts, pairs = a.B * a.G;
  a.dbias = memset((char *)j->biases + (size_t)i * j->bias_size, 0, j->bias_size);
  for (int64_t pair = chunk * pairs / j->cut.chunks; pair < (chunk + 1) * pairs / j->cut.chunks; pair++) {
    float *sums = sums_at(j, j->cut.parts == 1 ? thread : pair * j->cut.parts + part);
    run_part(j, &a, pair, part, sums, thread);
    if (j->cut.parts == 1) finish_pair(j, pair, sums);
  }
}
enum { ADD = 1 << 14 }; /* elements of a task */
static void add_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const job *j = ctx;
  const int64_t step = (int64_t)(j->bias_size / sizeof(float)), end = least((i + 1) * ADD, step);
  for (int64_t e = i * ADD; e < end; e++) {
    float sum = j->biases[e];
    for (int64_t k = 1; k < j->cut.chunks * j->cut.parts; k++) sum += j->biases[k * step + e];
    j->biases[e] = sum;
  }
}
static void row_task(void *ctx, int64_t i, int thread) { /* the cut BY_ROWS */
  const job *j = ctx;
  run_part(j, &j->a, j->pair, i, sums_at(j, i), thread);
}

static mn_status backward_run(mn_call *c) {
  job j = {.a = args_of(c, true), .bwd = MN_ISA_PICK(mn_attention_grad, mn_cpu_isa(c->backend)), .scratch = c->workspace};
  const int64_t pairs = j.a.B * j.a.G;
  mn_view view;
  const mn_view *dbias = dbias_of(c, &view);
  j.scratch_size = j.bwd->scratch(&j.a);
  j.cut = cut_of(&j.a, dbias);
  j.partial = (size_t)j.bwd->sum_floats(&j.a) * sizeof(float);
  j.sums = (float *)(void *)(j.scratch + (size_t)mn_pool_threads(c->pool) * j.scratch_size);
  const size_t bias_bytes = dbias ? (size_t)mn_view_count(dbias) * sizeof(float) : 0;
  if (dbias && j.cut.kind != BY_SUMS) memset(j.a.dbias, 0, bias_bytes);
  switch (j.cut.kind) {
  case BY_PAIRS:
    mn_pool_run(c->pool, pairs * j.cut.parts, pair_task, &j);
    if (j.cut.parts > 1) mn_pool_run(c->pool, pairs, finish_task, &j);
    break;
  case BY_SUMS:
    j.bias_size = floats(mn_view_count(dbias));
    j.biases = sums_at(&j, sums_of(&j.cut, c, pairs));
    mn_pool_run(c->pool, j.cut.chunks * j.cut.parts, sum_task, &j);
    if (j.cut.parts > 1) mn_pool_run(c->pool, pairs, finish_task, &j);
    mn_pool_run(c->pool, ((int64_t)(j.bias_size / sizeof(float)) + ADD - 1) / ADD, add_task, &j);
    memcpy(j.a.dbias, j.biases, bias_bytes);
    break;
  case BY_ROWS:
    j.a.whole_blocks = true;
    for (j.pair = 0; j.pair < pairs; j.pair++) {
      mn_pool_run(c->pool, j.cut.parts, row_task, &j);
      finish_pair(&j, j.pair, j.sums);
    }
    break;
  }
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
  return (size_t)mn_pool_threads(c->pool) * MN_ISA_PICK(mn_masked_product, mn_cpu_isa(c->backend))->scratch(&a);
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
                                          .optional = 1 << 3,
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
