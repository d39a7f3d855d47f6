/* loss.c - cross-entropy fused with the output projection. The logits of all tokens never exist: a chunk of tokens is
 * taken through all four steps before the next,
 *
 *     logits = h W^T          [R, vocab]   product
 *     nll, dlogits            [R, vocab]   each row once and in place, while it is in cache
 *     dh = dlogits W          [R, D]       product
 *     dW += dlogits^T h       [vocab, D]   product, summed in f32
 *
 * Ignored tokens (negative target) are left out: chunks are made of the counted ones, gathered where there are gaps. */
#include "backend/cpu/cpu.h"
#include "backend/cpu/isa/loss.h"
#include "backend/cpu/product.h"
#include "backend/cpu/rows.h"
#include "graph/fused_loss.h"
#include "graph/ops.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_CHUNK = 4096, MIN_CHUNK = 128, CHUNK_BYTES = 16 << 20, ROWS_PER_TASK = 16, CONVERT = 1 << 15 };

/* The products of a full chunk where oneDNN is faster (on machines with AMX tiles). */
typedef struct ce_plans {
  mn_product_plan logits, dh, dw;
} ce_plans;

typedef struct ce_job {
  mn_isa set;
  const mn_loss_isa *isa;
  mn_pool *pool;
  bool bf16, grad;
  int64_t N, D, vocab, chunk, active; /* active: tokens that count */
  int64_t ld;                         /* elements from one row of logits to the next: no power of two, whose rows would share a cache set */
  mn_rows h;
  const char *w; /* [vocab, D], rows w_step elements apart */
  int64_t w_step;
  bool w_rounds; /* w is f32 and h bf16: products round it on its way in */
  const mn_view *weight, *dnll;
  const int32_t *target;
  float dloss;
  char *dh;
  float *nll;
  /* workspace */
  int32_t *row;        /* [N] the tokens that count */
  char *h_chunk;       /* [R, D] gathered */
  float *logits;       /* [R, ld] */
  char *dh_chunk;      /* [R, D] */
  float *dh_parts;     /* [parts, R, D] */
  float *dw;           /* [vocab, D], the result */
  float *dw_part;      /* [vocab, D] of one chunk, for products that cannot add; none without plans */
  uint16_t *w_rounded; /* [vocab, D], where oneDNN multiplies: it rounds nothing */
  char *scratch;       /* of the products */
  const struct ce_plans *plans;
  int64_t first, rows; /* of the current chunk, among the active */
} ce_job;

/* out[n] = the sum of parts[parts, n], in order */
typedef struct add_job {
  const mn_loss_isa *isa;
  int64_t n, parts, step; /* from one part to the next */
  const float *from;
  void *out;
  bool bf16;
} add_job;
static void add_parts_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const add_job *j = ctx;
  int64_t at = i * CONVERT, n = j->n - at < CONVERT ? j->n - at : CONVERT;
  j->isa->add_parts(n, j->parts, j->step, j->from + at, j->bf16, (char *)j->out + at * (j->bf16 ? 2 : 4));
}

/* row i of w in bf16 */
typedef struct round_job {
  const mn_loss_isa *isa;
  const mn_view *w;
  uint16_t *out;
} round_job;
static void round_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const round_job *j = ctx;
  const int64_t D = j->w->dim[1];
  j->isa->add_parts(D, 1, 0, (const float *)j->w->data + i * j->w->stride[0], true, j->out + i * D);
}

/* ---- the products of a chunk of R tokens; h is that of the chunk ---- */
static bool serves(const mn_product_plan *plan, const mn_product *p) {
  const mn_product *q = &plan->p;
  return plan->path == MN_PRODUCT_ONEDNN && p->M == q->M && p->K == q->K && p->a_rs == q->a_rs && p->b_rs == q->b_rs;
}
static mn_status run_plan(const ce_job *j, const mn_product_plan *plan, const mn_product *p) {
  mn_product_plan now = *plan;
  now.p.a = p->a, now.p.b = p->b, now.p.c = p->c;
  return mn_product_plan_run(&now, j->pool, j->scratch);
}
static void product(const ce_job *j, mn_product p) { mn_product_run(&p, j->set, j->pool, j->scratch); }
static mn_product logits_product(const ce_job *j, int64_t R, const void *h, int64_t h_step) {
  return (mn_product){.M = R,
                      .N = j->vocab,
                      .K = j->D,
                      .a = h,
                      .a_rs = h_step,
                      .a_cs = 1,
                      .b = j->w,
                      .b_rs = 1,
                      .b_cs = j->w_step,
                      .b_f32 = j->w_rounds,
                      .c = j->logits,
                      .ldc = j->ld,
                      .bf16 = j->bf16,
                      .alpha = 1};
}
/* dlogits lie in the rows of logits; those of bf16 fill half a row */
static int64_t dlogits_step(const ce_job *j) { return j->bf16 ? 2 * j->ld : j->ld; }
/* dh sums over the whole vocabulary for few elements: the vocabulary is cut into `parts` slices, each a product of its
 * own into [parts, R, D], which are then added in order. The vocab % parts tokens at the end go with the first part. */
static int64_t dh_parts(const ce_job *j, int64_t R) {
  int64_t blocks = ((R + 511) / 512) * ((j->D + 511) / 512), parts = 2 / (blocks > 0 ? blocks : 1);
  if (parts > j->vocab / 512) parts = j->vocab / 512;
  return parts > 1 ? parts : 1;
}
static mn_product dh_product(const ce_job *j, int64_t R, void *dh, int64_t first, int64_t last) {
  const size_t size = j->h.size, w_size = j->w_rounds ? 4 : size;
  const char *dlogits = (char *)j->logits;
  return (mn_product){.M = R,
                      .N = j->D,
                      .K = last - first,
                      .a = dlogits + first * (int64_t)size,
                      .a_rs = dlogits_step(j),
                      .a_cs = 1,
                      .b = j->w + first * j->w_step * (int64_t)w_size,
                      .b_rs = j->w_step,
                      .b_cs = 1,
                      .b_f32 = j->w_rounds,
                      .c = dh,
                      .ldc = j->D,
                      .bf16 = j->bf16,
                      .alpha = 1};
}
static mn_product_plan dh_plan(const ce_job *j, int64_t R, int64_t parts, mn_product_use onednn) {
  int64_t slice = j->vocab / parts;
  mn_product_plan plan = {
      .p = dh_product(j, R, j->dh_parts, 0, slice), .n_axes = 1, .dim = {parts}, .a_step = {slice}, .b_step = {slice * j->w_step}};
  mn_product_plan_make(&plan, j->set, onednn);
  return plan;
}
static mn_status run_dh(const ce_job *j, void *dh) {
  int64_t R = j->rows, parts = dh_parts(j, R), rest = j->vocab % parts;
  mn_product_plan plan = dh_plan(j, R, parts, MN_ONEDNN_NEVER);
  if (j->plans && R == j->chunk) MN_TRY(run_plan(j, &j->plans->dh, &plan.p));
  else MN_TRY(mn_product_plan_run(&plan, j->pool, j->scratch));
  if (rest > 0) {
    mn_product end = dh_product(j, R, j->dh_parts, j->vocab - rest, j->vocab);
    end.accumulate = true;
    product(j, end);
  }
  mn_pool_run(j->pool, (R * j->D + CONVERT - 1) / CONVERT, add_parts_task,
              &(add_job){j->isa, R * j->D, parts, R * j->D, j->dh_parts, dh, j->bf16});
  return MN_OK;
}
static mn_product dw_product(const ce_job *j, int64_t R, const void *h, int64_t h_step, bool accumulate) {
  return (mn_product){.M = j->vocab,
                      .N = j->D,
                      .K = R,
                      .a = j->logits,
                      .a_rs = 1,
                      .a_cs = dlogits_step(j),
                      .b = h,
                      .b_rs = h_step,
                      .b_cs = 1,
                      .c = j->dw,
                      .ldc = j->D,
                      .bf16 = j->bf16,
                      .accumulate = accumulate,
                      .alpha = 1};
}

/* ---- the chunk --------------------------------------------------------------------------------------------------- */
static inline float at(const mn_view *v, int64_t i) { return ((const float *)v->data)[i * v->stride[0]]; }

static void rows_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const ce_job *j = ctx;
  int64_t end = (i + 1) * ROWS_PER_TASK < j->rows ? (i + 1) * ROWS_PER_TASK : j->rows;
  for (int64_t r = i * ROWS_PER_TASK; r < end; r++) {
    int64_t token = j->row[j->first + r];
    float *logits = j->logits + r * j->ld;
    if (j->grad) {
      float coef = j->dloss * at(j->weight, token) + at(j->dnll, token);
      j->nll[token] = j->isa->nll_grad(j->vocab, logits, logits + j->ld, j->target[token], coef, j->bf16);
    } else {
      j->nll[token] = j->isa->nll(j->vocab, logits, logits + j->ld, j->target[token]);
    }
  }
}

static mn_status run_chunk(ce_job *j) {
  size_t row_bytes = (size_t)j->D * j->h.size;
  int64_t token = j->row[j->first], run;
  const void *h = mn_rows_at(&j->h, token, &run);
  int64_t h_step = mn_rows_step(&j->h);
  bool dense = j->row[j->first + j->rows - 1] - token == j->rows - 1;
  if (!dense) {
    for (int64_t r = 0; r < j->rows; r++)
      memcpy(j->h_chunk + (size_t)r * row_bytes, mn_rows_at(&j->h, j->row[j->first + r], &run), row_bytes);
    h = j->h_chunk;
    h_step = j->D;
  }
  mn_product p = logits_product(j, j->rows, h, h_step);
  if (j->plans && serves(&j->plans->logits, &p)) MN_TRY(run_plan(j, &j->plans->logits, &p));
  else product(j, p);
  mn_pool_run(j->pool, (j->rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK, rows_task, j);
  if (!j->grad) return MN_OK;
  if (j->dh) MN_TRY(run_dh(j, dense ? j->dh + (size_t)token * row_bytes : j->dh_chunk));
  if (!dense && j->dh)
    for (int64_t r = 0; r < j->rows; r++)
      memcpy(j->dh + (size_t)j->row[j->first + r] * row_bytes, j->dh_chunk + (size_t)r * row_bytes, row_bytes);
  if (!j->dw) return MN_OK;
  p = dw_product(j, j->rows, h, h_step, j->first > 0);
  if (!j->plans || !serves(&j->plans->dw, &p)) {
    product(j, p);
    return MN_OK;
  }
  if (j->first > 0) p.c = j->dw_part;
  MN_TRY(run_plan(j, &j->plans->dw, &p));
  if (j->first > 0)
    mn_pool_run(
        j->pool, (j->vocab * j->D + CONVERT - 1) / CONVERT, add_parts_task,
        &(add_job){j->isa, j->vocab * j->D, 2, ((intptr_t)j->dw_part - (intptr_t)j->dw) / (intptr_t)sizeof *j->dw, j->dw, j->dw, false});
  return MN_OK;
}

/* ---- the call ---------------------------------------------------------------------------------------------------- */
static ce_plans plans_of(const ce_job *j) {
  int64_t R = j->chunk, h_step = mn_rows_step(&j->h);
  ce_plans plans = {.logits = {.p = logits_product(j, R, NULL, h_step)}};
  mn_product_plan_make(&plans.logits, j->set, MN_ONEDNN_WHERE_FASTER);
  if (!j->grad) return plans;
  plans.dh = dh_plan(j, R, dh_parts(j, R), MN_ONEDNN_WHERE_FASTER);
  plans.dw.p = dw_product(j, R, NULL, h_step, false);
  mn_product_plan_make(&plans.dw, j->set, MN_ONEDNN_WHERE_FASTER);
  return plans;
}

/* The most that the products ask for: the last chunk may have any number of rows. */
static size_t scratch_bytes(const ce_job *j) {
  size_t most = 0;
  for (int64_t R = 1; R <= j->chunk; R++) {
    int64_t parts = dh_parts(j, R);
    mn_product p[3] = {logits_product(j, R, NULL, j->D), dw_product(j, R, NULL, j->D, true), dh_product(j, R, NULL, 0, j->vocab % parts)};
    for (int i = 0; i < (j->grad ? 3 : 1); i++) {
      size_t bytes = mn_product_scratch(&p[i], j->set, j->pool);
      if (bytes > most) most = bytes;
    }
    size_t bytes = j->grad ? dh_plan(j, R, parts, MN_ONEDNN_NEVER).scratch * (size_t)mn_pool_threads(j->pool) : 0;
    if (bytes > most) most = bytes;
  }
  ce_plans plans = plans_of(j);
  const mn_product_plan *ready[3] = {&plans.logits, &plans.dh, &plans.dw};
  for (int i = 0; i < 3; i++) {
    size_t bytes = ready[i]->scratch * (size_t)mn_pool_threads(j->pool);
    if (bytes > most) most = bytes;
  }
  return most;
}

/* Sizes, and the places of the workspace's parts from `base` on; *bytes: how much that is, without the scratch memory
 * of the products, which comes last. */
static ce_job ce_layout(const mn_call *c, char *base, size_t *bytes) {
  bool grad = c->n_in > 4;
  mn_isa isa = mn_cpu_isa(c->backend);
  ce_job j = {.set = isa, .isa = MN_ISA_PICK(mn_loss_isa_table, isa), .pool = c->pool};
  j.grad = grad;
  j.h = mn_rows_of(&c->in[0]);
  j.w = c->in[1].data;
  j.w_step = c->in[1].stride[0];
  j.bf16 = c->in[0].dtype == MN_BF16;
  j.w_rounds = j.bf16 && c->in[1].dtype == MN_F32;
  j.N = c->in[0].dim[0], j.D = c->in[0].dim[1], j.vocab = c->in[1].dim[0];
  /* half as many tokens where bf16 is multiplied by pairs; else products cost as much as those of f32, and packing counts */
  j.chunk = CHUNK_BYTES / (j.bf16 && isa > MN_ISA_LEVEL_AVX2 ? 2 : 1) / ((j.vocab > 0 ? j.vocab : 1) * (int64_t)sizeof(float)) / MIN_CHUNK *
            MIN_CHUNK;
  j.chunk = j.chunk < MIN_CHUNK ? MIN_CHUNK : j.chunk > MAX_CHUNK ? MAX_CHUNK : j.chunk;
  if (j.chunk > j.N) j.chunk = j.N;
  j.ld = (int64_t)mn_align((size_t)j.vocab, 128) + 32;
  size_t used = 0, R = (size_t)j.chunk, D = (size_t)j.D, vocab = (size_t)j.vocab;
#define PART(field, count)                                                                                                                 \
  do {                                                                                                                                     \
    j.field = (void *)((uintptr_t)base + used);                                                                                            \
    used += mn_align((count) * sizeof *j.field, 64);                                                                                       \
  } while (0)
  PART(row, (size_t)j.N);
  PART(h_chunk, R * D * j.h.size);
  PART(logits, R * (size_t)j.ld);
  if (grad) {
    PART(dh_chunk, R * D * j.h.size);
    size_t part_rows = 0;
    for (int64_t rows = j.chunk; rows > 0; rows = (rows - 1) / 512 * 512) {
      size_t n = (size_t)(rows * dh_parts(&j, rows));
      if (n > part_rows) part_rows = n;
    }
    PART(dh_parts, part_rows * D);
    if (j.bf16 && isa >= MN_ISA_LEVEL_AMX) PART(dw_part, vocab * D);
  }
  if (j.w_rounds && isa >= MN_ISA_LEVEL_AMX) {
    PART(w_rounded, vocab * D);
    j.w = (const char *)j.w_rounded;
    j.w_step = j.D;
    j.w_rounds = false;
  }
  PART(scratch, 0);
#undef PART
  *bytes = used;
  return j;
}

static mn_status ce_run(mn_call *c) {
  size_t bytes;
  ce_job j = ce_layout(c, c->workspace, &bytes);
  bool grad = j.grad;
  j.plans = c->state;
  const mn_view *target = &c->in[2], *loss = &c->out[grad ? 2 : 0];
  j.target = target->data;
  j.weight = &c->in[3];
  j.nll = c->out[grad ? 3 : 1].data;
  for (int64_t i = 0; i < j.N; i++) {
    int32_t t = j.target[i];
    if (t >= j.vocab)
      return mn_fail(MN_ERR_ARG, "linear_cross_entropy: target %d of token %lld is outside the vocabulary of %lld", (int)t, (long long)i,
                     (long long)j.vocab);
    if (t >= 0) j.row[j.active++] = (int32_t)i;
    j.nll[i] = 0;
  }
  if (grad) {
    j.dloss = *(const float *)c->in[4].data;
    j.dnll = &c->in[5];
    j.dh = mn_call_wants(c, 0) ? c->out[0].data : NULL;
    j.dw = mn_call_wants(c, 1) ? c->out[1].data : NULL;
    if (j.dh && j.active < j.N) memset(j.dh, 0, (size_t)(j.N * j.D) * j.h.size);
    if (j.dw && j.active == 0) memset(j.dw, 0, (size_t)(j.vocab * j.D) * sizeof *j.dw);
  }
  if (j.w_rounded) mn_pool_run(j.pool, j.vocab, round_task, &(round_job){j.isa, &c->in[1], j.w_rounded});
  for (j.first = 0; j.first < j.active; j.first += j.chunk) {
    j.rows = j.active - j.first < j.chunk ? j.active - j.first : j.chunk;
    MN_TRY(run_chunk(&j));
  }
  double sum = 0;
  for (int64_t i = 0; i < j.N; i++) sum += (double)at(j.weight, i) * (double)j.nll[i];
  *(float *)loss->data = (float)sum;
  return MN_OK;
}
static size_t ce_workspace(const mn_call *c) {
  size_t bytes;
  ce_job j = ce_layout(c, NULL, &bytes);
  return bytes + scratch_bytes(&j);
}

static void ce_release(mn_call *c) {
  ce_plans *plans = c->state;
  if (!plans) return;
  mn_product_plan_release(&plans->logits);
  mn_product_plan_release(&plans->dh);
  mn_product_plan_release(&plans->dw);
  free(plans);
  c->state = NULL;
}

static mn_status ce_prepare(mn_call *c) {
  size_t bytes;
  ce_job j = ce_layout(c, NULL, &bytes);
  ce_plans plans = plans_of(&j);
  mn_product_plan *each[3] = {&plans.logits, &plans.dh, &plans.dw};
  if (!j.bf16 || plans.logits.path != MN_PRODUCT_ONEDNN || (j.grad && plans.dh.path != MN_PRODUCT_ONEDNN)) return MN_OK;
  ce_plans *kept = c->state = mn_alloc(sizeof *kept);
  if (!kept) return MN_ERR_MEMORY;
  mn_status status = MN_OK;
  for (int i = 0; i < 3 && status == MN_OK; i++) status = mn_product_plan_prepare(each[i], mn_pool_threads(c->pool));
  *kept = plans;
  return status;
}

static bool ce_accepts(const mn_node *n) {
  if (((const mn_loss_attr *)n->attr)->cap > 0) return false;
  mn_dtype t = n->in[0]->dtype;
  if ((t != MN_F32 && t != MN_BF16) || (n->in[1]->dtype != t && n->in[1]->dtype != MN_F32)) return false;
  for (int i = 3; i < n->n_in; i++)
    if (n->in[i]->dtype != MN_F32) return false;
  if (n->op == &mn_op_linear_ce_grad && n->out[1]->dtype != MN_F32) return false;
  return n->in[0]->shape.dim[0] <= INT32_MAX && n->in[1]->shape.dim[0] <= INT32_MAX;
}

static const mn_kernel linear_ce = {.op = &mn_op_linear_ce,
                                    .name = "cpu linear_cross_entropy",
                                    .layout = MN_LAYOUT_ROWS,
                                    .accepts = ce_accepts,
                                    .workspace = ce_workspace,
                                    .prepare = ce_prepare,
                                    .release = ce_release,
                                    .run = ce_run};
static const mn_kernel linear_ce_grad = {.op = &mn_op_linear_ce_grad,
                                         .name = "cpu linear_cross_entropy_grad",
                                         .layout = MN_LAYOUT_ROWS,
                                         .optional = 1 << 0 | 1 << 1,
                                         .accepts = ce_accepts,
                                         .workspace = ce_workspace,
                                         .prepare = ce_prepare,
                                         .release = ce_release,
                                         .run = ce_run};
static const mn_kernel *const kernels[] = {&linear_ce, &linear_ce_grad};

const mn_kernel *const *mn_cpu_loss_kernels(mn_isa isa, int *n) {
  (void)isa;
  *n = (int)(sizeof kernels / sizeof *kernels);
  return kernels;
}
