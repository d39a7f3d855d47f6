/* beside_attention.c - see beside_attention.h. */
#include "memory/beside_attention.h"

#include <math.h>

#include "graph/fused_attention.h"
#include "graph/fused_norm.h"
#include "graph/fused_rope.h"

static mn_tensor *attention(mn_scope *s, const mn_beside_attention *c, mn_tensor *x) {
  mn_attention_config a = {.heads = c->heads,
                           .kv_heads = c->heads,
                           .head_dim = c->head_dim,
                           .window = c->window,
                           .persistent = c->persistent,
                           .max_context = c->max_context,
                           .causal = true,
                           .rope = true,
                           .rope_theta = c->rope_theta,
                           .rope_factor = 1,
                           .rope_original_context = 4096};
  return mn_attention_apply(mn_scope_in(s, "attn"), &a, x);
}

static mn_tensor *gated(mn_scope *s, mn_tensor *y, mn_tensor *m) { /* [B,T,D] twice */
  mn_graph *g = mn_scope_graph(s);
  mn_dtype t = mn_scope_compute(s);
  mn_tensor *a = mn_norm_layer(s, "mag_norm_a", MN_NORM_RMS, y, 1e-6, t), *b = mn_norm_layer(s, "mag_norm_b", MN_NORM_RMS, m, 1e-6, t);
  return mn_mul(g, a, mn_sigmoid(g, b));
}

/* ---- memory as context ---- */
typedef struct mac_context {
  const mn_beside_attention *c;
  bool stream; /* a later call goes on inside the segment: what it needs is state */
} mac_context;

/* M_{s-1}: the memory as it was when the segment began, or as it is when one begins now (phase 0). */
static mn_fast_state frozen(mn_scope *memory, const mn_fast_config *f, mn_tensor *phase, bool stream) {
  mn_graph *g = mn_scope_graph(memory);
  mn_fast_state at = mn_fast_load(memory, f, &mn_fast_lmm_names);
  if (!stream) return at;
  mn_tensor *begins = phase ? mn_eq(g, phase, mn_scalar(g, MN_I32, 0)) : NULL, *length = mn_scope_length(memory); /* [B] */
  if (length) { /* a row that is only padding begins nothing */
    mn_tensor *any = mn_lt(g, mn_scalar(g, MN_I32, 0), length);
    begins = begins ? mn_and(g, begins, any) : any;
  }
  for (int p = 0; p < mn_fast_parts(f); p++) {
    mn_tensor *kept = mn_fast_part(memory, f, 'F', p, "the memory where the segment began");
    const mn_shape rows = {mn_fast_shape(f, p, 1).ndim, {mn_scope_batch(memory), 1, 1, 1}};
    if (begins) at.W[p] = mn_select(g, mn_reshape(g, begins, rows), at.W[p], kept);
    mn_fast_part_set(memory, f, 'F', p, at.W[p]);
  }
  return at;
}

/* Keys or values of the segment so far: [B, N + 2 Cs, H, d], persistent pairs, then hq_j at N + j, then x_j at N + Cs + j. The
 * persistent rows are parameters: written anew where they are read, so that what is kept of them is never seen. */
static mn_tensor *segment_store(mn_scope *s, const mn_beside_attention *c, const char *name, mn_tensor *prefix, mn_tensor *slots,
                                mn_tensor *rows) {
  mn_graph *g = mn_scope_graph(s);
  int64_t B = mn_dim(rows, 0), N = c->persistent, H = c->heads, d = c->head_dim;
  mn_shape shape = MN_SHAPE(B, N + 2 * c->segment, H, d);
  mn_tensor *kept = mn_state(s, name, mn_type(rows), shape, NULL, "the segment's persistent, memory and token rows");
  if (prefix) { /* one put of all, so that it happens in place */
    rows = mn_concat(g, 2, (mn_tensor *[]){mn_expand(g, prefix, MN_SHAPE(B, N, H, d)), rows}, 1);
    mn_tensor *first = mn_iota(g, MN_I32, MN_SHAPE(B, N), 1), *live = mn_scope_live(s, 1); /* of the first token: is there any? */
    if (live) first = mn_select(g, live, first, mn_scalar(g, MN_I32, -1));
    slots = mn_concat(g, 2, (mn_tensor *[]){first, slots}, 1);
  }
  kept = mn_put(g, kept, slots, rows, 1, MN_PUT_SET);
  mn_state_set(s, name, kept);
  return kept;
}

/* y of the tokens x [B,n,D] of one segment, beside what the memory reads for them, hq [B,n,D]. */
static mn_tensor *segment_attention(mn_scope *s, const mn_beside_attention *c, mn_tensor *x, mn_tensor *hq, mn_tensor *phase, bool stream) {
  mn_graph *g = mn_scope_graph(s);
  int64_t B = mn_dim(x, 0), n = mn_dim(x, 1), D = mn_dim(x, 2), H = c->heads, d = c->head_dim, N = c->persistent, Cs = c->segment;
  const mn_init init = c->lmm->projection;
  mn_tensor *both = mn_concat(g, 2, (mn_tensor *[]){hq, x}, 1), *cos, *sin, *cos_hq, *sin_hq; /* [B,2n,D] */
  mn_tensor *q = mn_split_heads(s, mn_linear(s, "q_proj", x, H * d, MN_NO_BIAS, init), H);
  mn_tensor *k = mn_split_heads(s, mn_linear(s, "k_proj", both, H * d, MN_NO_BIAS, init), H);
  mn_tensor *v = mn_split_heads(s, mn_linear(s, "v_proj", both, H * d, MN_NO_BIAS, init), H);
  /* hq_j stands at position j, x_j at Cs + j */
  mn_rope_config r = {.theta = c->rope_theta, .factor = 1};
  mn_tensor *zero = mn_full(g, MN_I32, MN_SHAPE(B), 0), *row = phase ? phase : zero; /* of the first token in its segment */
  mn_rope_tables_at(s, &r, d, n, phase, &cos_hq, &sin_hq);
  mn_rope_tables_at(s, &r, d, n, mn_add_scalar(g, row, (double)Cs), &cos, &sin);
  q = mn_rope(g, q, cos, sin, MN_ROPE_HALVES);
  k = mn_concat(g, 2,
                (mn_tensor *[]){mn_rope(g, mn_slice(g, k, 1, 0, n), cos_hq, sin_hq, MN_ROPE_HALVES),
                                mn_rope(g, mn_slice(g, k, 1, n, n), cos, sin, MN_ROPE_HALVES)},
                1);
  mn_tensor *pk = NULL, *pv = NULL;
  if (N) {
    pk = mn_param(s, "prefix_k", MN_SHAPE(N, H, d), init, MN_PARAM_NO_DECAY, "persistent keys [N,H,d], never rotated");
    pv = mn_param(s, "prefix_v", MN_SHAPE(N, H, d), init, MN_PARAM_NO_DECAY, "persistent values [N,H,d]");
    pk = mn_unsqueeze(g, mn_cast(g, pk, mn_type(k)), 0);
    pv = mn_unsqueeze(g, mn_cast(g, pv, mn_type(v)), 0);
  }
  int64_t rows = stream ? Cs : n; /* each of hq and x, as attended */
  if (stream) {
    mn_tensor *i = mn_add(g, mn_reshape(g, row, MN_SHAPE(B, 1)), mn_iota(g, MN_I32, MN_SHAPE(1, n), 1));
    mn_tensor *slots = mn_concat(g, 2, (mn_tensor *[]){mn_add_scalar(g, i, (double)N), mn_add_scalar(g, i, (double)(N + Cs))}, 1);
    mn_tensor *live = mn_scope_live(s, n);
    if (live) live = mn_concat(g, 2, (mn_tensor *[]){live, live}, 1);
    if (live) slots = mn_select(g, live, slots, mn_scalar(g, MN_I32, -1)); /* padding writes no slot */
    k = segment_store(s, c, "k", pk, slots, k);
    v = segment_store(s, c, "v", pv, slots, v);
  } else if (N) {
    k = mn_concat(g, 2, (mn_tensor *[]){mn_expand(g, pk, MN_SHAPE(B, N, H, d)), k}, 1);
    v = mn_concat(g, 2, (mn_tensor *[]){mn_expand(g, pv, MN_SHAPE(B, N, H, d)), v}, 1);
  }
  /* row i sees hq_0..hq_i and x_0..x_i; what an earlier segment left behind it in the store lies after i */
  mn_tensor *j = mn_iota(g, MN_I32, MN_SHAPE(1, rows), 1), *at[3] = {mn_full(g, MN_I32, MN_SHAPE(1, N ? N : 1), 0), j, j};
  mn_tensor *k_pos = mn_expand(g, mn_concat(g, N ? 3 : 2, N ? at : at + 1, 1), MN_SHAPE(B, N + 2 * rows));
  mn_attention_attr attr = {.scale = 1 / sqrt((double)d), .causal = true, .prefix = N};
  mn_tensor *o = mn_attention(g, q, k, v, row, k_pos, NULL, attr, NULL);
  return mn_linear(s, "o_proj", mn_join_heads(s, o), D, MN_NO_BIAS, init);
}

/* Where the outer gradient of the memory stops, with trunc_bptt: at the first segment that begins behind every so many chunks, and inside a
 * segment at every so many from its start (fast_memory.h does that in a longer piece). What is read for a segment is cut with its start. */
static void cut(mn_scope *memory, const mn_fast_config *f, int64_t segment, mn_tensor *phase) {
  mn_graph *g = mn_scope_graph(memory);
  mn_tensor *at = mn_scope_position(memory), *zero = mn_scalar(g, MN_I32, 0);
  if (!f->trunc_bptt || !at) return;
  mn_tensor *every = mn_scalar(g, MN_I32, fmin((double)f->trunc_bptt * (double)f->chunk, INT32_MAX));
  mn_tensor *before = mn_maximum(g, mn_add_scalar(g, at, (double)-segment), zero); /* where the segment before this one began */
  mn_tensor *here = mn_lt(g, mn_div(g, before, every), mn_div(g, at, every));
  if (phase) here = mn_select(g, mn_eq(g, phase, zero), here, mn_eq(g, mn_mod(g, phase, every), zero));
  mn_fast_cut(memory, f, &mn_fast_lmm_names, here);
}

/* n tokens that lie in one segment. */
static mn_tensor *mac_piece(mn_scope *s, void *context, mn_tensor *x) {
  const mac_context *in = context;
  const mn_beside_attention *c = in->c;
  mn_graph *g = mn_scope_graph(s);
  mn_scope *memory = mn_scope_in(s, "memory");
  const mn_fast_config f = c->lmm->fast(memory, c);
  mn_tensor *phase = mn_fast_phase(s, c->segment);
  cut(memory, &f, c->segment, phase);
  const mn_fast_state at = frozen(memory, &f, phase, in->stream);
  mn_tensor *q = c->lmm->questions(memory, c, x); /* [B,n,H,d] */
  mn_tensor *hq = mn_transpose(g, mn_fast_read(g, &f, at.W, mn_transpose(g, q, 1, 2)), 1, 2);
  hq = mn_cast(g, mn_join_heads(s, hq), mn_type(x));
  mn_tensor *y = segment_attention(mn_scope_in(s, "attn"), c, x, hq, phase, in->stream);
  return gated(s, y, c->lmm->layer(memory, c, y));
}

/* Segments one after the other. A stream whose positions are known to be multiples of some divisor of the segment goes on in
 * pieces of that length, which never cross a segment's end; one of which nothing is known, token by token. */
mn_tensor *mn_memory_as_context(mn_scope *s, const void *config, mn_tensor *x) {
  const mn_beside_attention *c = config;
  mac_context context = {c, mn_scope_is_stream(s)};
  int64_t piece = c->segment;
  while (piece > 1 && (c->segment % piece || !mn_scope_aligned(s, piece))) piece--;
  return mn_scope_loop(s, piece, mac_piece, &context, x);
}

/* ---- the memory alone, as gate, as layer ---- */
mn_tensor *mn_memory_alone(mn_scope *s, const void *config, mn_tensor *x) {
  const mn_beside_attention *c = config;
  return c->lmm->layer(mn_scope_in(s, "memory"), c, x);
}
mn_tensor *mn_memory_as_gate(mn_scope *s, const void *config, mn_tensor *x) {
  mn_tensor *y = attention(s, config, x);
  return gated(s, y, mn_memory_alone(s, config, x));
}
mn_tensor *mn_memory_as_layer(mn_scope *s, const void *config, mn_tensor *x) { return attention(s, config, mn_memory_alone(s, config, x)); }

/* ---- what a recipe may not ask for ---- */
mn_status mn_check_beside(const mn_value *map, const char *where, const void *config) {
  const mn_beside_attention *c = config;
  if (c->head_dim % 2)
    return mn_config_fail(map, where, "head_dim", "must be even for rotary positions, it is %lld", (long long)c->head_dim);
  return mn_attention_check_context(map, where, c->window, c->max_context);
}
mn_status mn_check_context_width(const mn_value *map, const char *where, int64_t d_model, const void *config, const char *type) {
  const mn_beside_attention *c = config;
  if (c->heads * c->head_dim == d_model) return MN_OK;
  return mn_config_fail(map, where, "head_dim", "times heads must be d_model %lld for %s: what the memory reads stands beside the tokens",
                        (long long)d_model, type);
}
