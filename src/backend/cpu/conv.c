/* conv.c - the causal depthwise convolution over time and its gradient. Time is cut into tasks; each is worked off in
 * blocks of a few steps, given to the vector code as addresses of rows, so that the prefix, the zeros before the
 * beginning and a strided input cost nothing. The gradient of the input is the same convolution with the taps reversed.
 * Many taps go to conv_wide.c; an element is summed in the same order there. */
#include "backend/cpu/conv.h"
#include "backend/cpu/rows.h"
#include "base/bf16.h"
#include "graph/fused_conv.h"
#include "graph/ops.h"

#include <string.h>

/* From WIDE taps on, and for more than a few steps, packing pays; fewer steps of any width need no packing (decoding). */
enum { BLOCK = 8, WIDE = 32, FEW_STEPS = 4, TASK_ELEMENTS = 1 << 15, WIDE_STEPS = 512, MAX_PARTS = 32 };

static bool is_wide(int64_t T, int64_t W) { return W >= WIDE && T > FEW_STEPS; }

static inline float load_as_f32(const void *p, mn_dtype t, int64_t i) {
  return t == MN_F32 ? ((const float *)p)[i] : mn_bf16_to_float(((const uint16_t *)p)[i]);
}
static inline void store_from_f32(void *p, mn_dtype t, int64_t i, float f) {
  if (t == MN_F32) ((float *)p)[i] = f;
  else ((uint16_t *)p)[i] = mn_float_to_bf16(f);
}

static void conv_task(void *ctx, int64_t i, int thread) {
  const mn_conv_job *j = ctx;
  int64_t b = i / j->per_row, t0 = i % j->per_row * j->per, end = t0 + j->per < j->T ? t0 + j->per : j->T;
  for (int64_t t = t0; t < end; t += BLOCK) {
    int64_t n = end - t < BLOCK ? end - t : BLOCK;
    const void **row = (const void **)(j->scratch + (size_t)thread * j->each);
    void *y[BLOCK];
    for (int64_t k = 0; k < n + j->W - 1; k++) row[k] = mn_conv_input(j, b, t + k - j->W + 1);
    for (int64_t k = 0; k < n; k++) y[k] = mn_conv_dx(j, b, t + k);
    j->isa->conv(j->type, n, j->W, j->D, row, j->taps, j->bias, y);
  }
}

/* dx_s = sum over k of w[W-1-k] dy_{s+k}, for s from 1 - W (the prefix) on. The task of the first steps does the
 * prefix. */
static void conv_grad_task(void *ctx, int64_t i, int thread) {
  const mn_conv_job *j = ctx;
  int64_t W = j->W, b = i / j->per_row, t0 = i % j->per_row * j->per, end = t0 + j->per < j->T ? t0 + j->per : j->T;
  const void **row = (const void **)(j->scratch + (size_t)thread * j->each), *dy[BLOCK];
  void *y[BLOCK];
  float *sum = j->parts ? j->parts + i * (W + 1) * j->D : NULL;
  if (sum) memset(sum, 0, sizeof(float) * (size_t)((W + 1) * j->D));
  for (int64_t s = t0 == 0 && j->dprefix ? 1 - W : t0; s < end;) {
    int64_t next = s < 0 ? 0 : s + BLOCK < end ? s + BLOCK : end, n = next - s < BLOCK ? next - s : BLOCK;
    for (int64_t k = 0; k < n + W - 1; k++) row[k] = s + k >= 0 && s + k < j->T ? mn_conv_row(j->dy, b, s + k) : j->zeros;
    for (int64_t k = 0; k < n && (s < 0 || j->y); k++) y[k] = mn_conv_dx(j, b, s + k);
    if (s < 0 || j->y) j->isa->conv(j->type, n, W, j->D, row, j->taps, NULL, y);
    if (s >= 0 && sum) {
      for (int64_t k = 0; k < n + W - 1; k++) row[k] = mn_conv_input(j, b, s + k - W + 1);
      for (int64_t k = 0; k < n; k++) dy[k] = mn_conv_row(j->dy, b, s + k);
      j->isa->conv_weight_grad(j->type, n, W, j->D, row, dy, sum);
    }
    s += n;
  }
}

static void set_split(mn_conv_job *j, const mn_view *x, int64_t W, bool grad) {
  j->B = x->dim[0], j->T = x->dim[1], j->D = x->dim[2], j->W = W;
  j->per = mn_rows_per_task(j->T, j->D, TASK_ELEMENTS);
  if (grad && j->B > 0) {
    int64_t parts = MAX_PARTS / j->B > 0 ? MAX_PARTS / j->B : 1, least = (j->T + parts - 1) / parts;
    if (j->per < least) j->per = least;
  }
  j->groups = 1;
  j->each = mn_align(sizeof(void *) * (size_t)(BLOCK + W), 64);
  if (is_wide(j->T, W)) {
    j->groups = mn_conv_wide_groups(j->D);
    j->each = mn_align(mn_conv_wide_scratch(W), 64);
    const int64_t least = W > WIDE_STEPS ? W : WIDE_STEPS; /* each task packs the taps, and steps before its first */
    if (j->per < least) j->per = least;
  }
  j->per = (j->per + BLOCK - 1) / BLOCK * BLOCK;
  j->per_row = (j->T + j->per - 1) / j->per;
}

static size_t taps_bytes(const mn_call *c) { return (size_t)((c->in[1].dim[1] + 2) * c->in[1].dim[0]) * sizeof(float); }

/* Taps, then the shares of the gradient's tasks, then what each thread has to itself. */
static size_t shares_bytes(const mn_conv_job *j) { return (size_t)(j->B * j->per_row + 1) * sizeof(float) * (size_t)((j->W + 1) * j->D); }

static mn_conv_job job_of(const mn_call *c, bool grad) {
  const mn_conv_attr *attr = c->attr;
  const mn_view *x = &c->in[0], *w = &c->in[1];
  mn_conv_job j = {.isa = MN_ISA_PICK(mn_conv_isa_table, mn_cpu_isa(c->backend)), .type = x->dtype, .x = x};
  set_split(&j, x, w->dim[1], grad);
  int at = 2;
  float *taps = c->workspace; /* w transposed, as f32: [W, D]; then the bias [D], then zeros [D] */
  for (int64_t d = 0; d < j.D; d++)
    for (int64_t k = 0; k < j.W; k++)
      taps[(grad ? j.W - 1 - k : k) * j.D + d] = load_as_f32(w->data, w->dtype, d * w->stride[0] + k * w->stride[1]);
  j.taps = taps;
  if (attr->has_bias) {
    const mn_view *bias = &c->in[at++];
    for (int64_t d = 0; d < j.D; d++) taps[j.W * j.D + d] = load_as_f32(bias->data, bias->dtype, d * bias->stride[0]);
    j.bias = taps + j.W * j.D;
  }
  j.zeros = memset(taps + (j.W + 1) * j.D, 0, sizeof(float) * (size_t)j.D);
  if (attr->has_prefix) j.prefix = &c->in[at++];
  if (grad) j.dy = &c->in[at];
  j.y = c->out[0].data;
  j.scratch = (char *)c->workspace + mn_align(taps_bytes(c) + (grad ? shares_bytes(&j) : 0), 64);
  return j;
}

static size_t workspace_of(const mn_call *c, bool grad) {
  mn_conv_job j = {0};
  set_split(&j, &c->in[0], c->in[1].dim[1], grad);
  const size_t shared = mn_align(taps_bytes(c) + (grad ? shares_bytes(&j) : 0), 64);
  return shared + j.each * (size_t)mn_pool_threads(c->pool);
}
static size_t conv_workspace(const mn_call *c) { return workspace_of(c, false); }
static size_t conv_grad_workspace(const mn_call *c) { return workspace_of(c, true); }

static mn_status conv_run(mn_call *c) {
  mn_conv_job j = job_of(c, false);
  mn_pool_run(c->pool, j.B * j.per_row * j.groups, is_wide(j.T, j.W) ? mn_conv_wide_task : conv_task, &j);
  return MN_OK;
}

static mn_status conv_grad_run(mn_call *c) {
  const mn_conv_attr *attr = c->attr;
  mn_conv_job j = job_of(c, true);
  int64_t D = j.D, W = j.W, tasks = j.B * j.per_row;
  const int prefix = attr->has_bias ? 3 : 2;
  const bool wants_dw = mn_call_wants(c, 1), wants_dbias = attr->has_bias && mn_call_wants(c, 2);
  if (wants_dw || wants_dbias) j.parts = (float *)c->workspace + (W + 2) * D;
  if (attr->has_prefix && mn_call_wants(c, prefix)) j.dprefix = c->out[prefix].data;
  if (!mn_call_wants(c, 0)) j.y = NULL;
  mn_pool_run(c->pool, tasks * j.groups, is_wide(j.T, W) ? mn_conv_wide_grad_task : conv_grad_task, &j);
  int64_t share = (W + 1) * D;
  if (tasks == 0 && j.parts) memset(j.parts, 0, (size_t)share * sizeof(float));
  for (int64_t i = 1; i < tasks && j.parts; i++) /* the shares of the tasks, in order */
    for (int64_t e = 0; e < share; e++) j.parts[e] += j.parts[i * share + e];
  const mn_view *dw = &c->out[1], *dbias = &c->out[2];
  for (int64_t d = 0; d < D && wants_dw; d++)
    for (int64_t k = 0; k < W; k++) store_from_f32(dw->data, dw->dtype, d * W + k, j.parts[k * D + d]);
  for (int64_t d = 0; wants_dbias && d < D; d++) store_from_f32(dbias->data, dbias->dtype, d, j.parts[W * D + d]);
  if (j.T == 0 && j.dprefix) memset(j.dprefix, 0, (size_t)(j.B * (W - 1) * D) * mn_dtype_size(j.type));
  return MN_OK;
}

/* Activations (x, prefix, y and their gradients) share one type, parameters (w, bias and theirs) may have another. */
static bool conv_accepts(const mn_node *n) {
  const mn_conv_attr *attr = n->attr;
  mn_dtype x = n->in[0]->dtype, w = n->in[1]->dtype;
  if ((x != MN_F32 && x != MN_BF16) || (w != MN_F32 && w != MN_BF16)) return false;
  if (n->in[1]->shape.dim[1] < 1) return false;
  if (attr->has_bias && n->in[2]->dtype != MN_F32 && n->in[2]->dtype != MN_BF16) return false;
  for (int i = attr->has_bias ? 3 : 2; i < n->n_in; i++)
    if (n->in[i]->dtype != x) return false;
  return n->out[0]->dtype == x;
}

static const mn_kernel conv = {
    .op = &mn_op_conv, .name = "cpu conv", .layout = MN_LAYOUT_ROWS, .accepts = conv_accepts, .workspace = conv_workspace, .run = conv_run};
static const mn_kernel conv_grad = {.op = &mn_op_conv_grad,
                                    .name = "cpu conv_grad",
                                    .layout = MN_LAYOUT_ROWS,
                                    .optional = 15,
                                    .accepts = conv_accepts,
                                    .workspace = conv_grad_workspace,
                                    .run = conv_grad_run};
static const mn_kernel *const kernels[] = {&conv, &conv_grad};

const mn_kernel *const *mn_cpu_conv_kernels(mn_isa isa, int *n) {
  (void)isa;
  *n = (int)(sizeof kernels / sizeof *kernels);
  return kernels;
}
