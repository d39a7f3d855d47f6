/* elementwise.c - element-wise programs on the CPU. A program is made ready once (elementwise_plan.c): steps over tiles that stay in the
 * first-level cache, which a task takes one after the other. A tensor of one group of tiles runs in the calling thread without waking any
 * other; groups are of some microseconds and alike. */
#include "backend/cpu/copy.h"
#include "backend/cpu/elementwise_plan.h"

#include <stdlib.h>
#include <string.h>

static void release_plan(mn_call *call) {
  free(call->state);
  call->state = NULL;
}
static mn_status prepare_program(mn_call *call, const mn_ew_attr *a) {
  mn_status status = mn_ew_plan_new(call, a);
  if (status != MN_OK) release_plan(call);
  return status;
}
static mn_status prepare(mn_call *call) {
  if (call->node->op == &mn_op_ew) return prepare_program(call, call->attr);
  const mn_node *n = call->node;
  mn_ew_attr a = {.n_in = call->n_in, .n_out = 1, .n_instr = 1, .out_reg = {(uint8_t)call->n_in}};
  a.instr[0] = (mn_ew_instr){.code = (uint8_t)n->op->code,
                             .dtype = (uint8_t)call->out[0].dtype,
                             .src_dtype = (uint8_t)call->in[call->n_in - 1].dtype,
                             .src = {0, 1, 2}};
  return prepare_program(call, &a);
}

/* Rows along the innermost axis of elements [start, start + n) of the output, one after another. */
static void gather(const mn_ew_strided *s, const char *data, size_t from_size, size_t to_size, int64_t start, int64_t n, char *to) {
  int64_t index[MN_MAX_DIMS], offset = 0, rest = start;
  int last = s->ndim - 1;
  for (int d = last; d >= 0; d--) {
    index[d] = rest % s->dim[d];
    rest /= s->dim[d];
    offset += index[d] * s->stride[d];
  }
  int64_t stride = s->stride[last];
  while (n > 0) {
    int64_t len = s->dim[last] - index[last] < n ? s->dim[last] - index[last] : n;
    const char *row = data + offset * (int64_t)from_size;
    if (stride == 1) s->load(to, row, row, row, len, 0);
    else s->spread(to, row, len, stride);
    to += (size_t)len * to_size;
    n -= len;
    offset += len * stride;
    index[last] += len;
    for (int d = last; d > 0 && index[d] == s->dim[d]; d--) {
      offset += s->stride[d - 1] - s->dim[d] * s->stride[d];
      index[d] = 0;
      index[d - 1]++;
    }
  }
}

typedef struct job {
  const mn_call *call;
  const mn_ew_plan *plan;
  mn_ew_number value[EW_MAX_REG];
  int64_t tiles; /* of a group */
} job;

static void set_places(const job *j, char *place[EW_PLACES], char *slots, int64_t start) {
  const mn_ew_plan *p = j->plan;
  const mn_call *c = j->call;
  int n_instr = c->node->op == &mn_op_ew ? ((const mn_ew_attr *)c->attr)->n_instr : 1;
  for (int r = 0; r < c->n_in + n_instr; r++) place[EW_VALUE + r] = (char *)&j->value[r];
  for (int i = 0; i < n_instr; i++) place[EW_IMM + i] = (char *)&p->imm[i];
  for (int i = 0; i < c->n_in; i++) {
    char *data = p->turned[i] == EW_NONE ? c->in[i].data : (char *)c->workspace + p->turned[i];
    place[EW_IN + i] = data + start * p->in_size[i];
  }
  for (int i = 0; i < c->n_out; i++) place[EW_OUT + i] = (char *)c->out[i].data + start * p->out_size[i];
  for (int s = 0; s < p->n_slot; s++) place[EW_SLOT + s] = slots + s * p->tile * p->slot_size;
}

static void run_group(void *ctx, int64_t group, int thread) {
  (void)thread;
  const job *j = ctx;
  const mn_ew_plan *p = j->plan;
  const mn_call *c = j->call;
  _Alignas(64) char slots[EW_SLOT_BYTES + (EW_MAX_REG + MN_EW_MAX_OUT) * 64 * 8]; /* a tile has at least 64 elements */
  char *place[EW_PLACES];
  int64_t at = group * j->tiles * p->tile, end = at + j->tiles * p->tile;
  if (end > p->count) end = p->count;
  set_places(j, place, slots, at);
  while (at < end) {
    int64_t n = end - at < p->tile ? end - at : p->tile;
    for (const mn_ew_step *s = p->steps, *stop = s + p->n_step; s < stop; s++) {
      if (s->gather != EW_NONE) {
        int i = s->gather;
        size_t to = c->in[i].dtype == MN_BF16 ? 4 : p->in_size[i];
        gather(&p->in[i], c->in[i].data, p->in_size[i], to, at, n, place[s->dst]);
      } else if (s->fill) {
        mn_ew_number v;
        s->fn(&v, place[s->src[0]], NULL, NULL, 1, 0);
        int size = p->out_size[s->dst - EW_OUT];
        p->vec->spread[size == 8 ? 3 : size / 2](place[s->dst], &v, n, 0);
      } else {
        s->fn(place[s->dst], place[s->src[0]], place[s->src[1]], place[s->src[2]], n, s->scalar);
      }
    }
    at += n;
    for (int i = 0; i < c->n_in; i++) place[EW_IN + i] += n * p->in_size[i];
    for (int i = 0; i < c->n_out; i++) place[EW_OUT + i] += n * p->out_size[i];
  }
}

static mn_status run(mn_call *c) {
  const mn_ew_plan *p = c->state;
  if (p->count == 0) return MN_OK;
  job j = {.call = c, .plan = p, .tiles = p->tiles};
  for (int i = 0; i < c->n_in; i++) {
    if (p->turned[i] == EW_NONE) continue;
    mn_view x = c->in[i], y = mn_ew_dense(&x);
    mn_cpu_copy(c->pool, mn_cpu_isa(c->backend), p->in_size[i], x.ndim, x.dim, (char *)c->workspace + p->turned[i], y.stride, x.data,
                x.stride);
  }
  if (p->n_once) {
    char *place[EW_PLACES];
    set_places(&j, place, NULL, 0);
    for (int i = 0; i < p->n_once; i++) {
      const mn_ew_step *s = &p->once[i];
      s->fn(place[s->dst], place[s->src[0]], place[s->src[1]], place[s->src[2]], 1, 0);
    }
  }
  int64_t groups = (p->count + j.tiles * p->tile - 1) / (j.tiles * p->tile);
  mn_pool_run(c->pool, groups, run_group, &j);
  return MN_OK;
}

static bool accepts(const mn_node *n) {
  const mn_ew_vec *v = &mn_ew_table_generic;
  if (n->op != &mn_op_ew) return mn_ew_find(v, n->op->code, n->in[n->n_in - 1]->dtype, n->out[0]->dtype) != NULL;
  const mn_ew_attr *a = n->attr;
  for (int i = 0; i < a->n_instr; i++)
    if (!mn_ew_find(v, a->instr[i].code, a->instr[i].src_dtype, a->instr[i].dtype)) return false;
  return true;
}

#define KERNEL(op_address, label)                                                                                                          \
  {                                                                                                                                        \
    .op = op_address, .name = label, .layout = MN_LAYOUT_ANY, .alike = true, .accepts = accepts, .prepare = prepare,                       \
    .workspace = mn_ew_turned_bytes, .release = release_plan, .run = run                                                                   \
  }
#define X(upper, lower) KERNEL(&mn_op_ew_table[MN_EW_##upper], "cpu " #lower),
static const mn_kernel kernels[] = {KERNEL(&mn_op_ew, "cpu ew"), MN_EW_UNARY(X) MN_EW_BINARY(X) X(SELECT, select) X(CAST, cast)};
#undef X
enum { N_KERNELS = (int)(sizeof kernels / sizeof *kernels) };

const mn_kernel *const *mn_cpu_elementwise_kernels(mn_isa isa, int *n) {
  (void)isa; /* the call's backend says it */
#define X(upper, lower) &kernels[1 + MN_EW_##upper],
  static const mn_kernel *const list[] = {&kernels[0], MN_EW_UNARY(X) MN_EW_BINARY(X) X(SELECT, select) X(CAST, cast)};
#undef X
  *n = N_KERNELS;
  return list;
}
