/* fast_memory.c - a fast memory over a segment (fast_memory.h): the segment is cut into blocks of one chunk, a loop runs over them
 * (fast_step.c, fast_gather.c, fast_muon.c are what happens in one), and what a block reads is joined along time. */
#include "nn/fast_memory.h"

#include "graph/fused_recurrence.h"
#include "graph/scan_over.h"
#include "nn/fast_block.h"
#include "nn/layers.h"

/* ---- rows of different lengths ---- */
/* Of lengths [B] of a segment, those of its tokens [start, start + most), and of n pieces of it, [n,B]. */
static mn_tensor *to_room(mn_graph *g, mn_tensor *length, int64_t most) {
  return mn_minimum(g, mn_maximum(g, length, mn_scalar(g, MN_I32, 0)), mn_scalar(g, MN_I32, (double)most));
}
static mn_tensor *lengths_from(mn_graph *g, mn_tensor *length, int64_t start, int64_t n, int64_t most) {
  if (!length) return NULL;
  mn_tensor *at = mn_add_scalar(g, mn_mul_scalar(g, mn_iota(g, MN_I32, MN_SHAPE(n, 1), 0), (double)most), (double)start);
  return to_room(g, mn_sub(g, mn_unsqueeze(g, length, 0), at), most);
}

/* ---- pieces of a segment ---- */
/* Tokens [start, start + n len) of x as n pieces, [n, ...]: the time axis is cut in two and the pieces come first. */
static mn_tensor *pieces(mn_graph *g, mn_tensor *x, int axis, int64_t start, int64_t n, int64_t len) {
  if (!x) return NULL;
  mn_shape cut = {.ndim = mn_ndim(x) + 1};
  int order[MN_MAX_DIMS] = {axis};
  for (int i = 0; i < cut.ndim; i++) cut.dim[i] = i < axis ? mn_dim(x, i) : i == axis ? n : i == axis + 1 ? len : mn_dim(x, i - 1);
  for (int i = 1; i < cut.ndim; i++) order[i] = i <= axis ? i - 1 : i;
  return mn_permute(g, mn_reshape(g, mn_slice(g, x, axis, start, n * len), cut), order);
}
/* The same, each piece with the `past` tokens before it: x begins with those of the first. */
static mn_tensor *pieces_and_past(mn_graph *g, mn_tensor *x, int axis, int64_t start, int64_t n, int64_t len, int64_t past) {
  if (!past) return pieces(g, x, axis, start, n, len);
  mn_tensor *joined = NULL;
  const int64_t room = start + (n - 1 + (past + len + len - 1) / len) * len - mn_dim(x, axis);
  if (room > 0) x = mn_pad(g, x, axis, 0, room);
  for (int64_t have = 0; have < past + len; have += len) {
    mn_tensor *part = pieces(g, x, axis, start + have, n, len);
    const int64_t rest = past + len - have;
    if (rest < len) part = mn_slice(g, part, axis + 1, 0, rest);
    joined = joined ? mn_concat(g, 2, (mn_tensor *[]){joined, part}, axis + 1) : part;
  }
  return joined;
}
static mn_tensor *joined_pieces(mn_graph *g, mn_tensor *x) { /* [n,B,len,...] -> [B,n len,...] */
  mn_shape s = {.ndim = mn_ndim(x) - 1, .dim = {mn_dim(x, 1), mn_dim(x, 0) * mn_dim(x, 2)}};
  for (int i = 2; i < s.ndim; i++) s.dim[i] = mn_dim(x, i + 1);
  return mn_reshape(g, mn_transpose(g, x, 0, 1), s);
}

/* A walk over a segment in pieces of `len` tokens; the last may be shorter. `cut` gives the inputs of n pieces from token `start` on, each
 * [n, ...]; `piece` runs over one. */
typedef struct walk walk;
struct walk {
  const mn_fast_config *c;
  const mn_fast_input *in;
  int64_t len;
  mn_fast_input (*cut)(mn_graph *g, const walk *w, int64_t start, int64_t n, int64_t len);
  mn_fast_result (*piece)(mn_graph *g, const walk *w, const mn_fast_state *state, const mn_fast_input *in);
  bool chunks; /* a piece is a chunk, from its first token to its last */
};
enum { INPUTS = sizeof(mn_fast_input) / sizeof(mn_tensor *) };

static void step_of_walk(mn_graph *g, const void *ctx, mn_tensor **carry, mn_tensor *const *x, mn_tensor **y) {
  const walk *w = ctx;
  mn_fast_state state;
  mn_fast_input in;
  for (int i = 0; i < MN_FAST_STATES; i++) state.each[i] = carry[i];
  for (int i = 0; i < INPUTS; i++) in.each[i] = x[i];
  const mn_fast_result r = w->piece(g, w, &state, &in);
  for (int i = 0; i < MN_FAST_STATES; i++) carry[i] = r.state.each[i];
  y[0] = r.y;
  y[1] = r.surprise;
}

static mn_fast_result after(mn_graph *g, const mn_fast_result *before, mn_fast_result r) { /* two results, one after the other */
  if (!before->y) return r;
  r.y = mn_concat(g, 2, (mn_tensor *[]){before->y, r.y}, 1);
  r.surprise = mn_concat(g, 2, (mn_tensor *[]){before->surprise, r.surprise}, 1);
  return r;
}

static mn_fast_input one_piece(mn_graph *g, const walk *w, int64_t start, int64_t len) {
  mn_fast_input in = w->cut(g, w, start, 1, len);
  for (int i = 0; i < INPUTS; i++) in.each[i] = mn_squeeze(g, in.each[i], 0);
  return in;
}

/* What changes only inside a chunk: taken out of a state between chunks, and put back there. */
static mn_fast_state without_inner(mn_fast_state s) {
  for (int p = 0; p < MN_FAST_PARTS; p++) s.A[p] = s.G[p] = NULL;
  s.momentum_sum = s.decay_sum = NULL;
  return s;
}
static mn_fast_state with_inner(mn_graph *g, mn_fast_state s,
                                const mn_fast_state *like) { /* the anchor is the memory, nothing is gathered */
  for (int p = 0; p < MN_FAST_PARTS; p++) {
    if (like->A[p]) s.A[p] = s.W[p];
    s.G[p] = mn_zeros_like(g, like->G[p]);
  }
  s.momentum_sum = mn_zeros_like(g, like->momentum_sum);
  s.decay_sum = mn_zeros_like(g, like->decay_sum);
  return s;
}

static mn_fast_result walked(mn_graph *g, const walk *w, const mn_fast_state *state, int64_t start) {
  const int64_t T = mn_dim(w->in->q, 1), n = (T - start) / w->len;
  mn_fast_result out = {.state = *state};
  if (n > 1) {
    mn_tensor *ys[2];
    const mn_fast_input in = w->cut(g, w, start, n, w->len);
    if (w->chunks) out.state = without_inner(out.state);
    mn_scan_over(g, &(mn_loop_over){.steps = n,
                                    .f = step_of_walk,
                                    .ctx = w,
                                    .n_carry = MN_FAST_STATES,
                                    .carry = out.state.each,
                                    .n_xs = INPUTS,
                                    .xs = in.each,
                                    .n_ys = 2,
                                    .ys = ys});
    if (w->chunks) out.state = with_inner(g, out.state, state);
    out.y = joined_pieces(g, ys[0]);
    out.surprise = joined_pieces(g, ys[1]);
    start += n * w->len;
  }
  while (start < T && g->status == MN_OK) { /* one whole piece, or what is left */
    const int64_t len = T - start < w->len ? T - start : w->len;
    const mn_fast_input in = one_piece(g, w, start, len);
    out = after(g, &out, w->piece(g, w, &out.state, &in));
    start += len;
  }
  return out;
}

/* ---- blocks: pieces of a chunk, head by head ---- */
static mn_tensor *by_heads(mn_graph *g, mn_tensor *x) { return mn_transpose(g, x, 1, 2); } /* [B,T,H,..] -> [B,H,T,..] */

/* Each block's phase, [n,B]: pieces shorter than a chunk begin at different places of it. */
static mn_tensor *phases_from(mn_graph *g, const walk *w, int64_t start, int64_t n, int64_t len) {
  if (!w->in->phase) return NULL;
  mn_tensor *at = mn_add_scalar(g, mn_mul_scalar(g, mn_iota(g, MN_I32, MN_SHAPE(n, 1), 0), (double)len), (double)start);
  mn_tensor *phase = mn_add(g, mn_unsqueeze(g, w->in->phase, 0), at);
  return mn_mod(g, phase, mn_scalar(g, MN_I32, (double)w->c->chunk));
}

static mn_fast_input cut_blocks(mn_graph *g, const walk *w, int64_t start, int64_t n, int64_t len) {
  enum { TIME = 2 };
  mn_fast_input out;
  for (int i = 0; i < MN_FAST_STREAMS; i++) out.each[i] = pieces(g, by_heads(g, w->in->each[i]), TIME, start, n, len);
  const int64_t past = mn_fast_past(w->c);
  if (past) {
    out.k = pieces_and_past(g, by_heads(g, w->in->k), TIME, start, n, len, past);
    out.v = pieces_and_past(g, by_heads(g, w->in->v), TIME, start, n, len, past);
  }
  out.length = lengths_from(g, w->in->length, start, n, len);
  out.phase = phases_from(g, w, start, n, len);
  return out;
}

static mn_fast_result block(mn_graph *g, const walk *w, const mn_fast_state *state, const mn_fast_input *in) {
  typedef mn_fast_written by(mn_graph *, const mn_fast_config *, mn_fast_state, const mn_fast_tokens *);
  static by *const step[] = {mn_fast_by_token, mn_fast_by_chunk, mn_fast_by_orthogonal};
  const mn_fast_tokens t = {in->q, in->k, in->v, in->theta, in->momentum, in->decay, in->rate, in->window, in->length, in->phase};
  const mn_fast_written r = step[w->c->step](g, w->c, *state, &t);
  mn_tensor *surprise = mn_reshape(g, mn_mean(g, r.loss, MN_AXIS(1)), MN_SHAPE(mn_dim(t.q, 0), mn_dim(t.q, 2)));
  return (mn_fast_result){mn_transpose(g, r.y, 1, 2), surprise, r.state};
}

/* The last pairs of those before and those of the segment that count; x begins with those before. */
static mn_tensor *last_pairs(mn_graph *g, mn_tensor *x, mn_tensor *length, int64_t past) {
  const int64_t B = mn_dim(x, 0);
  if (!length) return mn_slice(g, x, 1, mn_dim(x, 1) - past, past);
  return mn_take(g, x, mn_add(g, mn_reshape(g, length, MN_SHAPE(B, 1)), mn_iota(g, MN_I32, MN_SHAPE(1, past), 1)), 1);
}

/* The gates as logarithms; clamped, so that forgetting everything stays finite. */
static mn_tensor *log_gate(mn_graph *g, mn_tensor *log) { return mn_maximum(g, log, mn_scalar(g, mn_type(log), -50)); }
static mn_tensor *log_eta(mn_graph *g, mn_tensor *argument) { return argument ? log_gate(g, mn_log_sigmoid(g, argument)) : NULL; }
static mn_tensor *log_keep(mn_graph *g, mn_tensor *argument) { return argument ? log_gate(g, mn_neg(g, mn_softplus(g, argument))) : NULL; }

static mn_fast_result by_blocks(mn_graph *g, const mn_fast_config *c, const mn_fast_state *state, const mn_fast_input *given) {
  mn_fast_input in = *given;
  mn_fast_state s = *state;
  const int64_t past = mn_fast_past(c);
  if (c->step != MN_FAST_EVERY_CHUNK) in.momentum = log_eta(g, in.momentum), in.decay = log_keep(g, in.decay);
  if (past) { /* each block comes with the pairs before it */
    in.k = mn_concat(g, 2, (mn_tensor *[]){s.past_k, in.k}, 1);
    in.v = mn_concat(g, 2, (mn_tensor *[]){s.past_v, in.v}, 1);
    s.past_k = s.past_v = NULL;
  }
  const int64_t len = c->step == MN_FAST_ORTHOGONAL && in.phase ? mn_fast_period(c) : c->chunk;
  const walk blocks = {.c = c, .in = &in, .len = len, .cut = cut_blocks, .piece = block, .chunks = !in.phase};
  mn_fast_result out = walked(g, &blocks, &s, 0);
  if (past) out.state.past_k = last_pairs(g, in.k, in.length, past), out.state.past_v = last_pairs(g, in.v, in.length, past);
  return out;
}

/* ---- the linear memory: one fused operation ---- */
static bool is_recurrence(const mn_fast_config *c) {
  return c->net == MN_FAST_LINEAR && c->step == MN_FAST_EVERY_TOKEN && c->loss == MN_FAST_L2 && !mn_fast_past(c);
}
static mn_fast_result by_recurrence(mn_graph *g, const mn_fast_config *c, const mn_fast_state *s, const mn_fast_input *in) {
  mn_tensor *q = by_heads(g, mn_fast_lifted(g, c, by_heads(g, in->q))), *k = by_heads(g, mn_fast_lifted(g, c, by_heads(g, in->k)));
  mn_recurrence_io io = {.q = q, .k = k, .v = in->v, .beta = in->theta, .w0 = s->W[0], .a0 = s->A[0], .phase = in->phase};
  io.log_a = log_keep(g, in->decay);
  io.log_eta = log_eta(g, in->momentum);
  io.s0 = s->S[0];
  const mn_recurrence_attr attr = {
      .write = MN_WRITE_ANCHOR, .chunk = c->chunk, .read_before = c->read == MN_FAST_BEFORE, .grad_clamp = c->grad_clamp};
  mn_linear_recurrence(g, &io, attr);
  mn_fast_result out = {.y = io.o, .state = *s};
  out.state.W[0] = io.w;
  out.state.S[0] = io.s;
  out.state.A[0] = io.a;
  out.surprise = by_blocks(g, c, s, in).surprise; /* the fused operation does not tell */
  return out;
}

static mn_fast_result whole(mn_graph *g, const mn_fast_config *c, const mn_fast_state *s, const mn_fast_input *in) {
  return is_recurrence(c) && !in->length ? by_recurrence(g, c, s, in) : by_blocks(g, c, s, in);
}

/* ---- truncated backpropagation ---- */
static mn_fast_input cut_segments(mn_graph *g, const walk *w, int64_t start, int64_t n, int64_t len) {
  enum { TIME = 1 };
  mn_fast_input out;
  for (int i = 0; i < MN_FAST_STREAMS; i++) out.each[i] = pieces(g, w->in->each[i], TIME, start, n, len);
  out.length = lengths_from(g, w->in->length, start, n, len);
  out.phase = phases_from(g, w, start, n, len);
  return out;
}
static mn_fast_result from_constants(mn_graph *g, const walk *w, const mn_fast_state *state, const mn_fast_input *in) {
  mn_fast_state s;
  for (int i = 0; i < MN_FAST_STATES; i++) s.each[i] = mn_stop_gradient(g, state->each[i]);
  return whole(g, w->c, &s, in);
}
/* The first piece keeps its gradient (to M_0); the others begin from constants. */
static mn_fast_result truncated(mn_graph *g, const mn_fast_config *c, const mn_fast_state *s, const mn_fast_input *in) {
  const walk w = {.c = c, .in = in, .len = c->trunc_bptt * c->chunk, .cut = cut_segments, .piece = from_constants};
  const mn_fast_input first = one_piece(g, &w, 0, w.len);
  const mn_fast_result begun = whole(g, c, s, &first), rest = walked(g, &w, &begun.state, w.len);
  return after(g, &begun, rest);
}

/* ---- a segment ---- */
static bool fits(mn_graph *g, const mn_fast_config *c) {
  const bool adds = c->net == MN_FAST_LN_MLP || (c->net != MN_FAST_LINEAR && c->residual);
  if (adds && mn_fast_out(c) != c->head_dim)
    mn_graph_fault(g, MN_ERR_CONFIG, "a fast memory that adds its input cannot answer with %lld values for %lld: leave out the residual",
                   (long long)c->value_dim, (long long)c->head_dim);
  if (c->step == MN_FAST_ORTHOGONAL && (!c->momentum || c->chunk % mn_fast_period(c)))
    mn_graph_fault(g, MN_ERR_CONFIG,
                   "a fast memory that moves by an orthogonal momentum has one, and steps %lld tokens apart in chunks of %lld",
                   (long long)mn_fast_period(c), (long long)c->chunk);
  return g->status == MN_OK;
}

mn_fast_result mn_fast_memory(mn_graph *g, const mn_fast_config *c, const mn_fast_state *s, const mn_fast_input *given) {
  mn_fast_input in = *given;
  if (!fits(g, c)) return (mn_fast_result){.state = *s};
  if (in.length && !in.phase) in.phase = mn_full(g, MN_I32, MN_SHAPE(mn_dim(in.q, 0)), 0); /* a chunk may end unfinished */
  const bool cut = c->trunc_bptt > 0 && mn_dim(in.q, 1) > c->trunc_bptt * c->chunk;
  return cut ? truncated(g, c, s, &in) : whole(g, c, s, &in);
}
