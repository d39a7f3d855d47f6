/* fused_recurrence.c - the chunked linear recurrence: shape rule, meaning (token by token, a loop), gradient. */
#include "graph/compose.h"
#include "graph/fused_recurrence.h"
#include "graph/ops.h"

typedef struct recurrence_in { /* the operands, by name */
  mn_tensor *q, *k, *v, *beta, *log_a, *log_eta, *erase, *probe, *w0, *s0, *a0, *phase;
} recurrence_in;
enum { RECURRENCE_IN = 12, RECURRENCE_OUT = 5 }; /* at most */

static recurrence_in unpack(const mn_recurrence_attr *a, mn_tensor *const *in) {
  recurrence_in r = {.q = in[0], .k = in[1], .v = in[2], .beta = in[3]};
  int i = 4;
  if (a->decay) r.log_a = in[i++];
  if (a->momentum) r.log_eta = in[i++];
  if (a->write == MN_WRITE_ERASE) r.erase = in[i++], r.probe = in[i++];
  r.w0 = in[i++];
  if (a->momentum) r.s0 = in[i++];
  if (a->write == MN_WRITE_ANCHOR) r.a0 = in[i++];
  if (a->has_phase) r.phase = in[i++];
  return r;
}

static mn_tensor *time_first(mn_graph *g, mn_tensor *x, mn_dtype t) { /* [B,T,H(,W)] -> [T,B,H(,W)] */
  return mn_transpose(g, mn_cast(g, x, t), 0, 1);
}

/* u [B,H,1,V] scaled so that the norm n of k^T u becomes m tanh(n/m) */
static mn_tensor *clamped(mn_graph *g, double m, mn_tensor *k, mn_tensor *u) {
  mn_tensor *n2 = mn_mul(g, mn_sum(g, mn_square(g, k), MN_AXIS(3)), mn_sum(g, mn_square(g, u), MN_AXIS(3)));
  mn_tensor *ratio = mn_mul_scalar(g, mn_sqrt(g, mn_add_scalar(g, n2, 1e-12)), 1 / m);
  return mn_mul(g, u, mn_div(g, mn_tanh(g, ratio), ratio));
}

/* The states before tokens 0, E, 2E, ... of those before all of them, [T,B,H,K,V]: [B,H,ceil(T/E),K,V] */
static mn_tensor *kept_of(mn_graph *g, mn_tensor *before) {
  const int64_t every = mn_recurrence_every(mn_dim(before, 3), mn_dim(before, 4)), n = (mn_dim(before, 0) + every - 1) / every;
  mn_tensor *at = mn_mul_scalar(g, mn_iota(g, MN_I32, MN_SHAPE(n), 0), (double)every);
  mn_tensor *x = mn_take(g, before, at, 0); /* [n,B,H,K,V] */
  return mn_transpose(g, mn_transpose(g, x, 0, 1), 1, 2);
}

static void recurrence_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  const mn_recurrence_attr *a = n->attr;
  recurrence_in r = unpack(a, in);
  mn_dtype t = r.w0->dtype;
  int64_t B = mn_dim(r.q, 0), T = mn_dim(r.q, 1), H = mn_dim(r.q, 2), K = mn_dim(r.q, 3), V = mn_dim(r.v, 3);
  mn_tensor *xs[8] = {time_first(g, r.q, t), time_first(g, r.k, t), time_first(g, r.v, t), time_first(g, r.beta, t)};
  int n_xs = 4, i_a = 0, i_eta = 0, i_erase = 0;
  if (a->decay) i_a = n_xs, xs[n_xs++] = time_first(g, r.log_a, t);
  if (a->momentum) i_eta = n_xs, xs[n_xs++] = time_first(g, r.log_eta, t);
  if (r.erase) {
    i_erase = n_xs;
    xs[n_xs++] = time_first(g, r.erase, t), xs[n_xs++] = time_first(g, r.probe, t);
  }
  mn_tensor *carry[4] = {r.w0}, *c[4], *x[8], *next[4], *final[4], *ys[2];
  int n_carry = 1, i_s = 0, i_anchor = 0, i_count = 0;
  if (a->momentum) i_s = n_carry, carry[n_carry++] = r.s0;
  if (a->write == MN_WRITE_ANCHOR) {
    i_anchor = n_carry, carry[n_carry++] = r.a0;
    i_count = n_carry, carry[n_carry++] = r.phase ? r.phase : mn_full(g, MN_I32, MN_SHAPE(B), 0);
  }
  mn_scan_builder *s = mn_scan_begin(g, T, MN_FORWARD, n_carry, carry, n_xs, xs, c, x);
  mn_graph *b = mn_scan_body(s);
  if (!b) return;
  mn_tensor *q = mn_reshape(b, x[0], MN_SHAPE(B, H, 1, K)), *k = mn_reshape(b, x[1], MN_SHAPE(B, H, 1, K));
  mn_tensor *v = mn_reshape(b, x[2], MN_SHAPE(B, H, 1, V)), *beta = mn_reshape(b, x[3], MN_SHAPE(B, H, 1, 1));
  mn_tensor *W = c[0], *anchor = NULL, *u = v;
  mn_tensor *kept = a->decay ? mn_exp(b, mn_reshape(b, x[i_a], MN_SHAPE(B, H, 1, a->by_channel ? K : 1))) : NULL; /* of a row */
  mn_tensor *keep = a->by_channel ? mn_transpose(b, kept, 2, 3) : kept;
  if (a->write == MN_WRITE_ANCHOR) { /* a chunk begins: the anchor moves here */
    mn_tensor *begins = mn_eq(b, mn_reshape(b, c[i_count], MN_SHAPE(B, 1, 1, 1)), mn_scalar(b, MN_I32, 0));
    anchor = mn_select(b, begins, W, c[i_anchor]);
    u = mn_sub(b, v, mn_matmul(b, k, anchor));
    if (a->grad_clamp > 0) u = clamped(b, a->grad_clamp, k, u);
  } else if (a->write == MN_WRITE_DELTA) {
    u = mn_sub(b, v, mn_matmul(b, kept ? mn_mul(b, kept, k) : k, W));
  }
  mn_tensor *write = mn_matmul(b, mn_transpose(b, mn_mul(b, k, beta), 2, 3), u); /* [B,H,K,V] */
  if (r.erase) {
    mn_tensor *read = mn_matmul(b, mn_reshape(b, x[i_erase + 1], MN_SHAPE(B, H, 1, K)), W);
    write = mn_sub(b, write, mn_matmul(b, mn_reshape(b, x[i_erase], MN_SHAPE(B, H, K, 1)), read));
  }
  if (a->momentum) {
    mn_tensor *eta = mn_exp(b, mn_reshape(b, x[i_eta], MN_SHAPE(B, H, 1, 1)));
    write = mn_add(b, mn_mul(b, eta, c[i_s]), write);
    next[i_s] = write;
  }
  next[0] = mn_add(b, keep ? mn_mul(b, keep, W) : W, write);
  mn_tensor *o = mn_reshape(b, mn_matmul(b, q, a->read_before ? W : next[0]), MN_SHAPE(B, H, V));
  if (anchor) {
    next[i_anchor] = anchor;
    next[i_count] = mn_mod(b, mn_add_scalar(b, c[i_count], 1), mn_scalar(b, MN_I32, (double)a->chunk));
  }
  const bool keeps = mn_recurrence_keeps(a);
  mn_scan_end(s, next, keeps ? 2 : 1, (mn_tensor *[]){o, W}, final, ys);
  if (g->status != MN_OK) return;
  out[0] = mn_cast(g, mn_transpose(g, ys[0], 0, 1), n->out[0]->dtype);
  out[1] = final[0];
  int j = 2;
  if (a->momentum) out[j++] = final[i_s];
  if (anchor) { /* at a chunk's end the next anchor is the state itself */
    mn_tensor *ended = mn_eq(g, mn_reshape(g, final[i_count], MN_SHAPE(B, 1, 1, 1)), mn_scalar(g, MN_I32, 0));
    out[j++] = mn_select(g, ended, final[0], final[i_anchor]);
  }
  if (keeps) out[j] = kept_of(g, ys[1]);
}

/* Results that have a gradient: all but what is kept. */
static int n_results(const mn_recurrence_attr *a) { return 2 + a->momentum + (a->write == MN_WRITE_ANCHOR); }

/* fwd + the cotangents -> one gradient node */
static void recurrence_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  const mn_recurrence_attr *a = n->attr;
  mn_tensor *in[RECURRENCE_IN + RECURRENCE_OUT];
  mn_dtype types[RECURRENCE_IN] = {0};
  mn_shape shapes[RECURRENCE_IN] = {0};
  (void)need;
  int n_in = n->n_in, n_out = n_in - a->has_phase;
  for (int i = 0; i < n_in; i++) in[i] = n->in[i];
  for (int i = 0; i < n_out; i++) types[i] = in[i]->dtype, shapes[i] = in[i]->shape;
  for (int j = 0; j < n_results(a); j++) in[n_in++] = dout[j] ? dout[j] : mn_zeros_like(g, n->out[j]);
  if (mn_recurrence_keeps(a)) in[n_in++] = n->out[n_results(a)];
  mn_node *d = mn_node_new(g, &mn_op_recurrence_grad, n_in, in, n_out, types, shapes, a);
  for (int i = 0; d && i < n_out; i++) din[i] = d->out[i];
}

/* Chunk-wise: per token the state is read and written once inside a chunk of C, plus C-wide products. */
static int64_t recurrence_flops(const mn_node *n) {
  const mn_recurrence_attr *a = n->attr;
  int64_t K = mn_dim(n->in[0], 3), V = mn_dim(n->in[2], 3), tokens = mn_shape_count(&n->in[3]->shape);
  int64_t C = a->chunk < mn_dim(n->in[0], 1) ? a->chunk : mn_dim(n->in[0], 1);
  int64_t per_state = 2 * K * V, states = 2 + a->momentum * 2 + (a->write == MN_WRITE_ERASE ? 2 : a->write != MN_WRITE_VALUE);
  return tokens * (states * per_state + 2 * C * (K + V));
}
const mn_op mn_op_recurrence = {.name = "linear_recurrence",
                                .cls = MN_OP_FUSED,
                                .attr_size = sizeof(mn_recurrence_attr),
                                .grad = recurrence_grad,
                                .compose = recurrence_compose,
                                .flops = recurrence_flops};

static void recurrence_grad_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  const mn_recurrence_attr *a = n->attr;
  const int results = n_results(a), keeps = mn_recurrence_keeps(a), n_out = results + keeps, n_in = n->n_in - n_out;
  bool need[RECURRENCE_IN];
  mn_tensor *din[RECURRENCE_IN] = {NULL}, *dout[RECURRENCE_OUT] = {NULL};
  mn_dtype types[RECURRENCE_OUT];
  mn_shape shapes[RECURRENCE_OUT];
  for (int i = 0; i < n_in; i++) need[i] = mn_dtype_is_float(in[i]->dtype);
  for (int j = 0; j < n_out; j++) types[j] = in[n_in + j]->dtype, shapes[j] = in[n_in + j]->shape;
  for (int j = 0; j < results; j++) dout[j] = in[n_in + j];
  mn_vjp_of(g, &mn_op_recurrence, a, n_in, in, n_out, types, shapes, dout, need, din, NULL);
  for (int i = 0; i < n->n_out; i++) out[i] = din[i];
}
static int64_t recurrence_grad_flops(const mn_node *n) { return 3 * recurrence_flops(n); }
const mn_op mn_op_recurrence_grad = {.name = "linear_recurrence_grad",
                                     .cls = MN_OP_FUSED,
                                     .attr_size = sizeof(mn_recurrence_attr),
                                     .compose = recurrence_grad_compose,
                                     .flops = recurrence_grad_flops};

static bool has_shape(mn_tensor *x, mn_shape s) { return x && mn_shape_equal(&x->shape, &s); }

/* x [B,T,G,K] for each of H heads: [B,T,H,K] */
static mn_tensor *for_heads(mn_graph *g, mn_tensor *x, int64_t H) {
  if (!x || x->shape.ndim != 4) return x;
  int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), G = mn_dim(x, 2), K = mn_dim(x, 3);
  if (G == H || G < 1 || H % G) return x;
  x = mn_expand(g, mn_reshape(g, x, MN_SHAPE(B, T, G, 1, K)), MN_SHAPE(B, T, G, H / G, K));
  return mn_reshape(g, x, MN_SHAPE(B, T, H, K));
}

void mn_linear_recurrence(mn_graph *g, mn_recurrence_io *io, mn_recurrence_attr attr) {
  io->o = io->w = io->s = io->a = NULL;
  if (!io->q || !io->k || !io->v || !io->w0) return;
  bool shaped = io->q->shape.ndim == 4 && io->v->shape.ndim == 4;
  int64_t B = mn_dim(io->v, 0), T = mn_dim(io->v, 1), H = mn_dim(io->v, 2), V = shaped ? mn_dim(io->v, 3) : 0;
  int64_t K = shaped ? mn_dim(io->q, 3) : 0;
  const bool anchored = attr.write == MN_WRITE_ANCHOR, erases = attr.write == MN_WRITE_ERASE;
  mn_shape keys = MN_SHAPE(B, T, H, K), gate = MN_SHAPE(B, T, H), state = MN_SHAPE(B, H, K, V);
  attr.decay = io->log_a != NULL;
  attr.by_channel = io->log_a && io->log_a->shape.ndim == 4;
  attr.momentum = io->log_eta != NULL;
  attr.has_phase = io->phase != NULL;
  mn_tensor *q = for_heads(g, io->q, H), *k = for_heads(g, io->k, H);
  mn_tensor *erase = erases ? for_heads(g, io->erase, H) : NULL, *probe = erases ? for_heads(g, io->probe, H) : NULL;
  mn_tensor *beta = io->beta ? io->beta : mn_full(g, io->w0->dtype, gate, 1);
  bool ok = shaped && T >= 1 && has_shape(q, keys) && has_shape(k, keys) && has_shape(beta, gate) &&
            (!attr.decay || has_shape(io->log_a, attr.by_channel ? keys : gate)) &&
            (!attr.momentum || (has_shape(io->log_eta, gate) && has_shape(io->s0, state))) && has_shape(io->w0, state) &&
            (!erases || (has_shape(erase, keys) && has_shape(probe, keys) && !attr.momentum)) && (!anchored || has_shape(io->a0, state)) &&
            (!attr.has_phase || has_shape(io->phase, MN_SHAPE(B))) && attr.chunk >= 1 && attr.grad_clamp >= 0 &&
            (anchored || attr.grad_clamp == 0);
  if (!ok) {
    char x[96], y[96];
    mn_graph_fault(g, MN_ERR_SHAPE,
                   "linear_recurrence: q %s, v %s: operands do not fit (q, k, erase, probe [B,T,H or a divisor,K], gates [B,T,H], "
                   "log_a also [B,T,H,K], states [B,H,K,V], T >= 1, chunk >= 1, grad_clamp with anchors only, erase without momentum)",
                   mn_shape_str(&io->q->shape, x), mn_shape_str(&io->v->shape, y));
    return;
  }
  mn_tensor *in[RECURRENCE_IN] = {q, k, io->v, beta};
  int n = 4, n_out = 2;
  if (attr.decay) in[n++] = io->log_a;
  if (attr.momentum) in[n++] = io->log_eta;
  if (erases) in[n++] = erase, in[n++] = probe;
  in[n++] = io->w0;
  if (attr.momentum) in[n++] = io->s0, n_out++;
  if (anchored) in[n++] = io->a0, n_out++;
  if (attr.has_phase) in[n++] = io->phase;
  mn_dtype t = io->w0->dtype, types[RECURRENCE_OUT] = {io->v->dtype, t, t, t, t};
  mn_shape shapes[RECURRENCE_OUT] = {io->v->shape, state, state, state};
  const int64_t every = mn_recurrence_every(K, V);
  if (mn_recurrence_keeps(&attr)) shapes[n_out++] = MN_SHAPE(B, H, (T + every - 1) / every, K, V);
  mn_node *node = mn_node_new(g, &mn_op_recurrence, n, in, n_out, types, shapes, &attr);
  if (!node) return;
  io->o = node->out[0];
  io->w = node->out[1];
  int j = 2;
  if (attr.momentum) io->s = node->out[j++];
  if (anchored) io->a = node->out[j];
}
