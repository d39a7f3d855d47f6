/* norm.c - the kernels that work on one row (last axis) at a time: norms and their gradient, softmax, rotary embedding.
 * Here rows are cut into tasks; the vector code is in isa/norm.c. A row is read from memory once: whatever passes the
 * arithmetic needs, the later ones find it in cache. */
#include "backend/cpu/cpu.h"
#include "backend/cpu/isa/norm.h"
#include "backend/cpu/rows.h"
#include "graph/fused_gated_norm.h"
#include "graph/fused_norm.h"
#include "graph/fused_rope.h"
#include "graph/fused_softmax.h"
#include "graph/ops.h"

#include <string.h>

enum { TASK_ELEMENTS = 1 << 15, MAX_PARTS = 64 };

static bool float_type(mn_dtype t) { return t == MN_F32 || t == MN_BF16; }
static int64_t tasks_of(int64_t rows, int64_t per) { return (rows + per - 1) / per; }
static int64_t min3(int64_t a, int64_t b, int64_t c) { return a < b ? (a < c ? a : c) : (b < c ? b : c); }

/* ---- norm ------------------------------------------------------------------------------------------------------- */
typedef struct norm_job {
  const mn_norm_isa *isa;
  mn_norm_rows rows; /* what all tasks share */
  mn_rows x, dy;
  int64_t per;
  char *y;
  float *parts; /* gradient: [tasks, 1 or 2, D]: dweight then dbias */
  bool has_bias;
} norm_job;

static void norm_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const norm_job *j = ctx;
  int64_t D = j->x.length, end = (i + 1) * j->per < j->x.count ? (i + 1) * j->per : j->x.count;
  bool grad = j->rows.dy != NULL;
  mn_norm_rows a = j->rows;
  if (j->parts) {
    a.dweight = j->parts + i * D * (j->has_bias ? 2 : 1);
    a.dbias = j->has_bias ? a.dweight + D : NULL;
    for (int64_t d = 0; d < D * (j->has_bias ? 2 : 1); d++) a.dweight[d] = 0;
  }
  for (int64_t r = i * j->per; r < end; r += a.n) {
    int64_t x_run, dy_run = INT64_MAX;
    a.x = mn_rows_at(&j->x, r, &x_run);
    if (grad) a.dy = mn_rows_at(&j->dy, r, &dy_run);
    a.n = min3(x_run, dy_run, end - r);
    a.y = j->y + r * D * (int64_t)mn_dtype_size(grad ? a.x_type : a.y_type);
    (grad ? j->isa->norm_grad : j->isa->norm)(&a);
  }
}

static norm_job norm_job_of(const mn_call *c) {
  const mn_norm_attr *attr = c->attr;
  int at = 1;
  norm_job j = {.isa = MN_ISA_PICK(mn_norm_isa_table, mn_cpu_isa(c->backend)), .x = mn_rows_of(&c->in[0])};
  j.rows = (mn_norm_rows){.kind = attr->kind, .eps = (float)attr->eps, .D = j.x.length, .x_type = c->in[0].dtype};
  j.rows.x_step = mn_rows_step(&j.x);
  if (attr->has_weight) j.rows.weight = c->in[at++].data;
  if (attr->has_bias) j.rows.bias = c->in[at++].data;
  j.has_bias = attr->has_bias;
  j.y = c->out[0].data;
  return j;
}

static mn_status norm_run(mn_call *c) {
  norm_job j = norm_job_of(c);
  j.rows.y_type = c->out[0].dtype;
  j.per = mn_rows_per_task(j.x.count, j.x.length, TASK_ELEMENTS);
  mn_pool_run(c->pool, tasks_of(j.x.count, j.per), norm_task, &j);
  return MN_OK;
}

static bool norm_accepts(const mn_node *n) {
  const mn_norm_attr *attr = n->attr;
  for (int i = 0; i < n->n_in; i++) {
    bool parameter = i >= 1 && i < 1 + attr->has_weight + attr->has_bias;
    if (parameter ? n->in[i]->dtype != MN_F32 : !float_type(n->in[i]->dtype)) return false;
  }
  return float_type(n->out[0]->dtype);
}

/* The gradient's tasks each sum their rows' share of dweight and dbias; the shares are then added in order. */
static int64_t norm_grad_per(const mn_rows *x) {
  int64_t per = mn_rows_per_task(x->count, x->length, TASK_ELEMENTS);
  int64_t least = (x->count + MAX_PARTS - 1) / MAX_PARTS;
  return per < least ? least : per;
}

static bool wants_parameters(const mn_call *c) { return mn_call_wants(c, 1) || mn_call_wants(c, 2); }

static size_t norm_grad_workspace(const mn_call *c) {
  const mn_norm_attr *attr = c->attr;
  mn_rows x = mn_rows_of(&c->in[0]);
  size_t parts = (size_t)tasks_of(x.count, norm_grad_per(&x));
  return wants_parameters(c) ? parts * (size_t)x.length * (attr->has_bias ? 2 : 1) * sizeof(float) : 0;
}

static mn_status norm_grad_run(mn_call *c) {
  const mn_norm_attr *attr = c->attr;
  norm_job j = norm_job_of(c);
  const mn_view *dy = &c->in[c->n_in - 1];
  j.dy = mn_rows_of(dy);
  j.rows.dy = dy->data;
  j.rows.dy_step = mn_rows_step(&j.dy);
  j.rows.y_type = dy->dtype;
  j.per = norm_grad_per(&j.x);
  if (wants_parameters(c)) j.parts = c->workspace;
  int64_t tasks = tasks_of(j.x.count, j.per), D = j.x.length;
  mn_pool_run(c->pool, tasks, norm_task, &j);
  if (wants_parameters(c)) { /* of no rows: zeros */
    int64_t step = D * (attr->has_bias ? 2 : 1);
    if (mn_call_wants(c, 1)) j.isa->add_rows(tasks, D, step, j.parts, c->out[1].data);
    if (mn_call_wants(c, 2)) j.isa->add_rows(tasks, D, step, j.parts + D, c->out[2].data);
  }
  return MN_OK;
}

static bool norm_grad_accepts(const mn_node *n) {
  const mn_norm_attr *attr = n->attr;
  return norm_accepts(n) && (attr->has_weight || !attr->has_bias);
}

/* ---- gated norm ------------------------------------------------------------------------------------------------- */
typedef struct gated_job {
  const mn_norm_isa *isa;
  mn_gated_rows rows; /* what all tasks share */
  mn_rows x, gate, dy;
  int64_t per;
  char *y, *dgate;
  float *parts; /* gradient: [tasks, D] */
} gated_job;

static void gated_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const gated_job *j = ctx;
  const int64_t D = j->x.length, end = (i + 1) * j->per < j->x.count ? (i + 1) * j->per : j->x.count;
  mn_gated_rows a = j->rows;
  if (j->parts) a.dweight = memset(j->parts + i * D, 0, sizeof(float) * (size_t)D);
  for (int64_t r = i * j->per; r < end; r += a.n) {
    int64_t x_run, gate_run, dy_run = INT64_MAX;
    a.x = mn_rows_at(&j->x, r, &x_run);
    a.gate = mn_rows_at(&j->gate, r, &gate_run);
    if (j->dgate) a.dy = mn_rows_at(&j->dy, r, &dy_run);
    a.n = min3(min3(x_run, gate_run, end - r), dy_run, end - r);
    a.y = j->y + r * D * (int64_t)mn_dtype_size(j->dgate ? a.x_type : a.y_type);
    a.dgate = j->dgate ? j->dgate + r * D * (int64_t)mn_dtype_size(a.y_type) : NULL;
    (j->dgate ? j->isa->gated_norm_grad : j->isa->gated_norm)(&a);
  }
}

static gated_job gated_job_of(const mn_call *c) {
  const mn_gated_norm_attr *attr = c->attr;
  gated_job j = {.isa = MN_ISA_PICK(mn_norm_isa_table, mn_cpu_isa(c->backend)), .x = mn_rows_of(&c->in[0]), .gate = mn_rows_of(&c->in[1])};
  j.rows =
      (mn_gated_rows){.kind = attr->kind, .eps = (float)attr->eps, .D = j.x.length, .x_type = c->in[0].dtype, .y_type = c->in[1].dtype};
  j.rows.x_step = mn_rows_step(&j.x);
  j.rows.gate_step = mn_rows_step(&j.gate);
  if (attr->has_weight) j.rows.weight = c->in[2].data;
  j.y = c->out[0].data;
  return j;
}

static mn_status gated_run(mn_call *c) {
  gated_job j = gated_job_of(c);
  j.per = mn_rows_per_task(j.x.count, j.x.length, TASK_ELEMENTS / 2);
  mn_pool_run(c->pool, tasks_of(j.x.count, j.per), gated_task, &j);
  return MN_OK;
}

static size_t gated_grad_workspace(const mn_call *c) {
  const mn_rows x = mn_rows_of(&c->in[0]);
  return mn_call_wants(c, 2) ? (size_t)(tasks_of(x.count, norm_grad_per(&x)) * x.length) * sizeof(float) : 0;
}

static mn_status gated_grad_run(mn_call *c) {
  gated_job j = gated_job_of(c);
  const mn_view *dy = &c->in[c->n_in - 1];
  j.dy = mn_rows_of(dy);
  j.rows.dy_step = mn_rows_step(&j.dy);
  j.dgate = c->out[1].data;
  j.per = norm_grad_per(&j.x);
  if (mn_call_wants(c, 2)) j.parts = c->workspace;
  const int64_t tasks = tasks_of(j.x.count, j.per), D = j.x.length;
  mn_pool_run(c->pool, tasks, gated_task, &j);
  if (mn_call_wants(c, 2)) j.isa->add_rows(tasks, D, D, j.parts, c->out[2].data); /* of no rows: zeros */
  return MN_OK;
}

static bool gated_accepts(const mn_node *n) {
  const mn_gated_norm_attr *attr = n->attr;
  const mn_dtype y = n->in[1]->dtype;
  const bool grad = n->op == &mn_op_gated_norm_grad;
  return float_type(n->in[0]->dtype) && float_type(y) && (!attr->has_weight || n->in[2]->dtype == MN_F32) &&
         (grad ? n->in[n->n_in - 1] : n->out[0])->dtype == y;
}

/* ---- softmax ---------------------------------------------------------------------------------------------------- */
typedef struct softmax_job {
  const mn_norm_isa *isa;
  mn_dtype type;
  mn_rows x, dy; /* the gradient's x is y */
  bool grad;
  int64_t per;
  char *y;
} softmax_job;

static void softmax_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const softmax_job *j = ctx;
  int64_t D = j->x.length, end = (i + 1) * j->per < j->x.count ? (i + 1) * j->per : j->x.count, n;
  for (int64_t r = i * j->per; r < end; r += n) {
    int64_t x_run, dy_run = INT64_MAX;
    const void *x = mn_rows_at(&j->x, r, &x_run), *dy = j->grad ? mn_rows_at(&j->dy, r, &dy_run) : NULL;
    char *y = j->y + r * D * (int64_t)j->x.size;
    n = min3(x_run, dy_run, end - r);
    if (j->grad) j->isa->softmax_grad(j->type, n, D, x, mn_rows_step(&j->x), dy, mn_rows_step(&j->dy), y);
    else j->isa->softmax(j->type, n, D, x, mn_rows_step(&j->x), y);
  }
}

static mn_status softmax_run(mn_call *c) {
  softmax_job j = {.isa = MN_ISA_PICK(mn_norm_isa_table, mn_cpu_isa(c->backend)),
                   .type = c->in[0].dtype,
                   .x = mn_rows_of(&c->in[0]),
                   .grad = c->n_in > 1,
                   .y = c->out[0].data};
  if (j.grad) j.dy = mn_rows_of(&c->in[1]);
  j.per = mn_rows_per_task(j.x.count, j.x.length, TASK_ELEMENTS / 2);
  mn_pool_run(c->pool, tasks_of(j.x.count, j.per), softmax_task, &j);
  return MN_OK;
}

static bool same_float_type(const mn_node *n) {
  for (int i = 0; i < n->n_in; i++)
    if (n->in[i]->dtype != n->out[0]->dtype) return false;
  return float_type(n->out[0]->dtype);
}

/* ---- rotary embedding ------------------------------------------------------------------------------------------- */
typedef struct rope_job {
  const mn_norm_isa *isa;
  mn_rope_rows rows;
  const mn_view *x, *cos, *sin;
  int64_t B, T, per;
  char *y;
} rope_job;

/* Row of token (b, t) in a table [T, K/2] or [B, T, K/2]. */
static const float *table_row(const mn_view *v, int64_t b, int64_t t) {
  const float *data = v->data;
  return v->ndim == 3 ? data + b * v->stride[0] + t * v->stride[1] : data + t * v->stride[0];
}

static void rope_task(void *ctx, int64_t i, int thread) {
  (void)thread;
  const rope_job *j = ctx;
  mn_rope_rows a = j->rows;
  size_t size = mn_dtype_size(a.type);
  int64_t end = (i + 1) * j->per < j->B * j->T ? (i + 1) * j->per : j->B * j->T;
  for (int64_t r = i * j->per; r < end; r++) {
    int64_t b = r / j->T, t = r % j->T;
    a.x = (const char *)j->x->data + (b * j->x->stride[0] + t * j->x->stride[1]) * (int64_t)size;
    a.y = j->y + r * a.H * a.K * (int64_t)size;
    a.cos = table_row(j->cos, b, t);
    a.sin = table_row(j->sin, b, t);
    j->isa->rope(&a);
  }
}

static mn_status rope_run(mn_call *c) {
  const mn_rope_attr *attr = c->attr;
  const mn_view *x = &c->in[0];
  rope_job j = {.isa = MN_ISA_PICK(mn_norm_isa_table, mn_cpu_isa(c->backend)),
                .rows = {.interleaved = attr->interleaved,
                         .inverse = attr->inverse,
                         .H = x->dim[2],
                         .K = x->dim[3],
                         .type = x->dtype,
                         .x_step = x->stride[2]},
                .x = x,
                .cos = &c->in[1],
                .sin = &c->in[2],
                .B = x->dim[0],
                .T = x->dim[1],
                .y = c->out[0].data};
  j.per = mn_rows_per_task(j.B * j.T, x->dim[2] * x->dim[3], TASK_ELEMENTS);
  mn_pool_run(c->pool, tasks_of(j.B * j.T, j.per), rope_task, &j);
  return MN_OK;
}

static bool rope_accepts(const mn_node *n) {
  return float_type(n->in[0]->dtype) && n->in[0]->dtype == n->out[0]->dtype && n->in[1]->dtype == MN_F32 && n->in[2]->dtype == MN_F32 &&
         n->in[0]->shape.ndim == 4 && n->in[0]->shape.dim[3] % 2 == 0;
}

/* ---- the table -------------------------------------------------------------------------------------------------- */
static const mn_kernel norm = {.op = &mn_op_norm, .name = "cpu norm", .layout = MN_LAYOUT_ROWS, .accepts = norm_accepts, .run = norm_run};
static const mn_kernel norm_grad = {.op = &mn_op_norm_grad,
                                    .name = "cpu norm_grad",
                                    .layout = MN_LAYOUT_ROWS,
                                    .optional = 1 << 1 | 1 << 2,
                                    .accepts = norm_grad_accepts,
                                    .workspace = norm_grad_workspace,
                                    .run = norm_grad_run};
static const mn_kernel gated = {
    .op = &mn_op_gated_norm, .name = "cpu gated_norm", .layout = MN_LAYOUT_ROWS, .accepts = gated_accepts, .run = gated_run};
static const mn_kernel gated_grad = {.op = &mn_op_gated_norm_grad,
                                     .name = "cpu gated_norm_grad",
                                     .layout = MN_LAYOUT_ROWS,
                                     .optional = 1 << 2,
                                     .accepts = gated_accepts,
                                     .workspace = gated_grad_workspace,
                                     .run = gated_grad_run};
static const mn_kernel softmax = {
    .op = &mn_op_softmax, .name = "cpu softmax", .layout = MN_LAYOUT_ROWS, .accepts = same_float_type, .run = softmax_run};
static const mn_kernel softmax_grad = {
    .op = &mn_op_softmax_grad, .name = "cpu softmax_grad", .layout = MN_LAYOUT_ROWS, .accepts = same_float_type, .run = softmax_run};
static const mn_kernel rope = {.op = &mn_op_rope, .name = "cpu rope", .layout = MN_LAYOUT_ROWS, .accepts = rope_accepts, .run = rope_run};
static const mn_kernel *const kernels[] = {&norm, &norm_grad, &gated, &gated_grad, &softmax, &softmax_grad, &rope};

const mn_kernel *const *mn_cpu_norm_kernels(mn_isa isa, int *n) {
  (void)isa;
  *n = (int)(sizeof kernels / sizeof *kernels);
  return kernels;
}
