/* recurrence.c - kernels of the chunked linear recurrence and its gradient: one sequence per (batch, head), whose turns follow each other,
 * whichever thread takes them, so that results do not depend on the number of threads. */
#include "backend/cpu/chains.h"
#include "backend/cpu/cpu.h"
#include "backend/cpu/isa/recurrence.h"
#include "graph/fused_recurrence.h"
#include "graph/ops.h"

/* ---- which inputs there are ---- */
typedef struct inputs { /* index of each input, or -1 */
  int q, k, v, beta, log_a, log_eta, erase, probe, w0, s0, a0, phase, n;
} inputs;

static inputs inputs_of(const mn_recurrence_attr *attr) {
  inputs x = {.q = 0, .k = 1, .v = 2, .beta = 3};
  x.n = 4;
  x.log_a = attr->decay ? x.n++ : -1;
  x.log_eta = attr->momentum ? x.n++ : -1;
  x.erase = attr->write == MN_WRITE_ERASE ? x.n++ : -1;
  x.probe = attr->write == MN_WRITE_ERASE ? x.n++ : -1;
  x.w0 = x.n++;
  x.s0 = attr->momentum ? x.n++ : -1;
  x.a0 = attr->write == MN_WRITE_ANCHOR ? x.n++ : -1;
  x.phase = attr->has_phase ? x.n++ : -1;
  return x;
}

/* One decay per head and token is a number beside a product; by channel it stands inside. */
static bool by_channel(const mn_recurrence_attr *attr) { return attr->by_channel || attr->write == MN_WRITE_ERASE; }
static bool vector_type(mn_dtype t) { return t == MN_F32 || t == MN_BF16; }

static bool accepts(const mn_node *node) {
  const mn_recurrence_attr *attr = node->attr;
  inputs x = inputs_of(attr);
  if (attr->chunk < 1 || (by_channel(attr) && (attr->momentum || attr->write == MN_WRITE_ANCHOR))) return false;
  for (int i = 0; i < node->n_in; i++) {
    mn_dtype t = node->in[i]->dtype;
    bool state = i >= x.w0 && i < x.n && i != x.phase;
    if (i == x.phase ? t != MN_I32 : state ? t != MN_F32 : !vector_type(t)) return false;
  }
  for (int i = 0; i < node->n_out; i++)
    if (!vector_type(node->out[i]->dtype)) return false;
  return true;
}
static bool states_are_f32(const mn_node *node, int from) {
  for (int i = from; i < node->n_out; i++)
    if (node->out[i]->dtype != MN_F32) return false;
  return true;
}
static bool accepts_forward(const mn_node *node) { return accepts(node) && states_are_f32(node, 1); }
static bool accepts_backward(const mn_node *node) {
  const mn_recurrence_attr *attr = node->attr;
  inputs x = inputs_of(attr);
  for (int i = x.n + 1; i < node->n_in; i++)
    if (node->in[i]->dtype != MN_F32) return false;
  return accepts(node) && states_are_f32(node, x.w0);
}
static bool accepts_channels(const mn_node *node) { return by_channel(node->attr) && accepts_forward(node); }

/* ---- arguments ---- */
static mn_rec_tensor token_tensor(const mn_view *v) { /* [B,T,H,*] or [B,T,H] */
  return (mn_rec_tensor){v->data, v->dtype == MN_BF16, v->stride[0], v->stride[1], v->stride[2], 0};
}
static mn_rec_tensor state_tensor(const mn_view *v) { /* [B,H,K,V] */
  return (mn_rec_tensor){v->data, false, v->stride[0], 0, v->stride[1], v->stride[2]};
}

static mn_rec_tensor kept_tensor(const mn_view *v) { /* [B,H,n,K,V] */
  return (mn_rec_tensor){v->data, false, v->stride[0], v->stride[2], v->stride[1], v->stride[3]};
}

static mn_rec_args args_of(const mn_call *c, bool backward) {
  const mn_recurrence_attr *attr = c->attr;
  const inputs x = inputs_of(attr);
  const mn_view *in = c->in, *out = c->out;
  mn_rec_args a = {
      .B = in[0].dim[0],
      .T = in[0].dim[1],
      .H = in[0].dim[2],
      .K = in[0].dim[3],
      .V = in[2].dim[3],
      .chunk = attr->chunk,
      .write = attr->write,
      .momentum = attr->momentum,
      .decay = attr->decay,
      .by_channel = attr->by_channel,
      .read_before = attr->read_before,
      .grad_clamp = (float)attr->grad_clamp,
      .q = token_tensor(&in[x.q]),
      .k = token_tensor(&in[x.k]),
      .v = token_tensor(&in[x.v]),
      .beta = token_tensor(&in[x.beta]),
      .w0 = state_tensor(&in[x.w0]),
  };
  if (a.write == MN_WRITE_ANCHOR && a.chunk == 1 && a.grad_clamp == 0)
    a.write = MN_WRITE_DELTA, a.plain = true; /* solved in larger pieces */
  if (x.log_a >= 0) a.log_a = token_tensor(&in[x.log_a]);
  if (x.log_eta >= 0) a.log_eta = token_tensor(&in[x.log_eta]);
  if (x.erase >= 0) a.erase = token_tensor(&in[x.erase]), a.probe = token_tensor(&in[x.probe]);
  if (x.s0 >= 0) a.s0 = state_tensor(&in[x.s0]);
  if (x.a0 >= 0) a.a0 = state_tensor(&in[x.a0]);
  if (x.phase >= 0) {
    a.phase = in[x.phase].data;
    a.phase_stride = in[x.phase].stride[0];
  }
  /* results, or in the backward pass their gradients: o, w, [s], [a] */
  const mn_view *r = backward ? in + x.n : out;
  int i = 0;
  a.o = token_tensor(&r[i++]);
  a.w = state_tensor(&r[i++]);
  if (attr->momentum) a.s = state_tensor(&r[i++]);
  if (attr->write == MN_WRITE_ANCHOR) a.a = state_tensor(&r[i++]);
  if (mn_recurrence_keeps(attr) && (backward || mn_call_wants(c, i))) a.kept = kept_tensor(&r[i]);
  if (backward) {
    a.dq = token_tensor(&out[x.q]), a.dk = token_tensor(&out[x.k]), a.dv = token_tensor(&out[x.v]);
    a.dbeta = token_tensor(&out[x.beta]);
    if (x.log_a >= 0) a.dlog_a = token_tensor(&out[x.log_a]);
    if (x.log_eta >= 0) a.dlog_eta = token_tensor(&out[x.log_eta]);
    if (x.erase >= 0) a.derase = token_tensor(&out[x.erase]), a.dprobe = token_tensor(&out[x.probe]);
    a.dw0 = state_tensor(&out[x.w0]);
    if (x.s0 >= 0) a.ds0 = state_tensor(&out[x.s0]);
    if (x.a0 >= 0) a.da0 = state_tensor(&out[x.a0]);
  }
  return a;
}

/* ---- running ---- */
typedef struct job {
  mn_rec_args args;
  const mn_recurrence_isa *isa;
  int threads;
  int64_t sequences;
  size_t kept, scratch; /* bytes of a sequence, of a thread */
  char *memory;         /* of the chains, of sequences, of threads */
} job;

static size_t kept_at(const job *j, int room) { return mn_chain_bytes(j->sequences, j->threads) + (size_t)room * j->kept; }
static size_t scratch_at(const job *j, int thread) {
  return kept_at(j, mn_chain_rooms(j->sequences, j->threads)) + (size_t)thread * j->scratch;
}
static bool take_turn(void *ctx, int64_t sequence, int64_t turn, int room, int thread) {
  const job *j = ctx;
  const int64_t H = j->args.H;
  return j->isa->turn(&j->args, sequence / H, sequence % H, turn, j->memory + kept_at(j, room), j->memory + scratch_at(j, thread));
}
static void whole(void *ctx, int64_t sequence, int thread) { take_turn(ctx, sequence, 0, 0, thread); }

static const mn_recurrence_isa *table_of(const mn_call *c, bool backward) {
  const mn_isa isa = mn_cpu_isa(c->backend);
  if (by_channel(c->attr)) return backward ? MN_ISA_PICK(mn_recurrence_channel_grad, isa) : MN_ISA_PICK(mn_recurrence_channel, isa);
  return backward ? MN_ISA_PICK(mn_recurrence_grad, isa) : MN_ISA_PICK(mn_recurrence, isa);
}
static job job_of(const mn_call *c, bool backward) {
  job j = {.args = args_of(c, backward), .isa = table_of(c, backward), .threads = mn_pool_threads(c->pool), .memory = c->workspace};
  j.sequences = j.args.B * j.args.H;
  j.isa->sizes(&j.args, &j.kept, &j.scratch);
  return j;
}

static mn_status run(mn_call *c, bool backward) {
  job j = job_of(c, backward);
  if (j.args.T == 0 || j.args.B == 0) return MN_OK;
  if (j.kept) mn_chains_run(c->pool, j.sequences, take_turn, &j, j.memory);
  else mn_pool_run(c->pool, j.sequences, whole, &j);
  return MN_OK;
}
static mn_status run_forward(mn_call *c) { return run(c, false); }
static mn_status run_backward(mn_call *c) { return run(c, true); }

static size_t workspace(const mn_call *c, bool backward) {
  job j = job_of(c, backward);
  return scratch_at(&j, j.threads);
}
static size_t workspace_forward(const mn_call *c) { return workspace(c, false); }
static size_t workspace_backward(const mn_call *c) { return workspace(c, true); }

static const mn_kernel channel_kernel = {.op = &mn_op_recurrence,
                                         .name = "cpu.recurrence",
                                         .layout = MN_LAYOUT_ROWS,
                                         .optional = 1 << 2, /* what is kept */
                                         .accepts = accepts_channels,
                                         .workspace = workspace_forward,
                                         .run = run_forward};
static const mn_kernel forward_kernel = {.op = &mn_op_recurrence,
                                         .name = "cpu.recurrence",
                                         .layout = MN_LAYOUT_ROWS,
                                         .accepts = accepts_forward,
                                         .workspace = workspace_forward,
                                         .run = run_forward};
static const mn_kernel backward_kernel = {.op = &mn_op_recurrence_grad,
                                          .name = "cpu.recurrence_grad",
                                          .layout = MN_LAYOUT_ROWS,
                                          .accepts = accepts_backward,
                                          .workspace = workspace_backward,
                                          .run = run_backward};

const mn_kernel *const *mn_cpu_recurrence_kernels(mn_isa isa, int *n) {
  (void)isa;
  static const mn_kernel *const list[] = {&channel_kernel, &forward_kernel, &backward_kernel};
  *n = 3;
  return list;
}
