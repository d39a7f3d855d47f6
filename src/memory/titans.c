/* titans.c - Titans: learning to memorize at test time (Behrouz, Zhong & Mirrokni 2024).
 *
 * What it remembers: the weights M of a small network per head, which every token trains by one step of gradient descent
 * with momentum S ("past surprise") and weight decay (forgetting) on a key-to-value regression:
 *     k_t = l2norm(silu(conv(W_K x_t)))   q_t likewise   v_t = silu(conv(W_V x_t))
 *     theta_t = lr_max sigmoid(lr_proj x_t)   eta_t = sigmoid(momentum_proj x_t)   alpha_t = sigmoid(decay_proj x_t)
 *     S_t = eta_t S_{t-1} - theta_t grad 1/2 |M_anchor(k_t) - v_t|^2       anchor: M before the chunk's first token
 *     M_t = (1 - alpha_t) M_{t-1} + S_t                                    M_0 is learned
 *     o_t = W_O (RMSNorm_head(M_t(q_t)) * silu(W_G x_t))
 * The chunk is part of the model: it decides where gradients are taken.
 *
 * Four uses, by type:
 *     titans_lmm (titans)  o = LMM(x)
 *     titans_mag           o = RMSNorm_a(attention(x)) * sigmoid(RMSNorm_b(LMM(x)))
 *     titans_mal           o = attention(LMM(x))
 *     titans_mac           by segments, M_{s-1} the memory at a segment's start, hq_j = M_{s-1}(q_j):
 *                          y_i = attention of x_i over [persistent | hq_0..hq_i | x_0..x_i] of the segment
 *                          o = RMSNorm_a(y) * sigmoid(RMSNorm_b(LMM(y)))
 * In MAC row i sees the memory rows up to its own only: hq_j is read with token j, so later rows would tell row i its
 * future. So the layer is causal and streams token by token. */
#include "nn/mixer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "memory/attention.h"
#include "nn/fast_memory.h"

typedef struct titans_config {
  int64_t heads, head_dim, memory_depth, memory_expand, chunk, conv, window, persistent, segment, max_context, trunc_bptt;
  int memory_net, granularity, read;
  bool memory_residual, momentum, decay, output_gate;
  double lr_max, grad_clamp, rope_theta;
} titans_config;

static const char *const nets[] = {"linear", "mlp", "ln_mlp", NULL}; /* as mn_fast_net */
static const char *const granularities[] = {"token", "chunk", NULL};
static const char *const reads[] = {"after", "before", NULL};

#define S titans_config
#define MEMORY                                                                                                                             \
  MN_FIELD_INT(S, heads, 4, 1, 4096, "heads H, each with a memory of its own"),                                                            \
      MN_FIELD_INT(S, head_dim, 0, 0, 4096, "width d of a head; 0: d_model / heads"),                                                      \
      MN_FIELD_ENUM(S, memory_net, nets, MN_FAST_LINEAR, "what the memory is: one matrix, an MLP, or an MLP with LayerNorm"),              \
      MN_FIELD_INT(S, memory_depth, 2, 1, MN_FAST_DEPTH, "matrices of the memory; linear has one"),                                        \
      MN_FIELD_INT(S, memory_expand, 4, 1, 64, "hidden width of the memory over head_dim"),                                                \
      MN_FIELD_BOOL(S, memory_residual, true, "mlp: M(x) = x + ..."),                                                                      \
      MN_FIELD_INT(S, chunk, 64, 1, 65536, "tokens between anchors; part of the model, keep it when streaming", MN_TOKENS),                \
      MN_FIELD_ENUM(S, granularity, granularities, 0, "one step of the memory per token, or per chunk"),                                   \
      MN_FIELD_ENUM(S, read, reads, 0, "a token reads the memory after or before its own write"),                                          \
      MN_FIELD_FLOAT(S, lr_max, -1, -1, 1e6, "upper bound theta_max of the learned step size; -1: 0.1, with chunks over 16 1.6 / chunk"),  \
      MN_FIELD_BOOL(S, momentum, true, "past surprise"), MN_FIELD_BOOL(S, decay, true, "forgetting"),                                      \
      MN_FIELD_FLOAT(S, grad_clamp, 1, 0, 1e9, "m: a token's gradient of norm n becomes m tanh(n/m); 0: off"),                             \
      MN_FIELD_INT(S, conv, 4, 0, 1 << 20, "kernel of the causal depthwise convolution on q, k and v; 0: none"),                           \
      MN_FIELD_BOOL(S, output_gate, true, "what is read is gated by silu(x W_g)")
#define WINDOW      MN_FIELD_INT(S, window, 0, 0, 1 << 24, "the attention's window; 0: all tokens")
#define PERSISTENT  MN_FIELD_INT(S, persistent, 0, 0, 65536, "learned key/value pairs that every query sees")
#define SEGMENT     MN_FIELD_INT(S, segment, 256, 1, 1 << 20, "tokens of a segment", MN_TOKENS)
#define ROPE_THETA  MN_FIELD_FLOAT(S, rope_theta, 10000, 1, 1e12, "base of the attention's rotary frequencies")
#define MAX_CONTEXT MN_FIELD_INT(S, max_context, 4096, 1, 1 << 28, "without a window: how many tokens a stream's cache holds")
#define TRUNC_BPTT  MN_FIELD_INT(S, trunc_bptt, 0, 0, 1 << 24, "the memory's outer gradient stops every so many chunks; 0: never")
static const mn_field lmm_fields[] = {MEMORY, TRUNC_BPTT, MN_FIELD_END};
static const mn_field attended_fields[] = {MEMORY, WINDOW, PERSISTENT, ROPE_THETA, MAX_CONTEXT, TRUNC_BPTT, MN_FIELD_END}; /* MAG, MAL */
static const mn_field mac_fields[] = {MEMORY, PERSISTENT, SEGMENT, ROPE_THETA, TRUNC_BPTT, MN_FIELD_END};
static const mn_field written[] = {MEMORY, WINDOW, PERSISTENT, SEGMENT, ROPE_THETA, MAX_CONTEXT, TRUNC_BPTT, MN_FIELD_END};
#undef S

static const mn_init projection = {MN_INIT_XAVIER_UNIFORM, 1, 0}; /* near 1/sqrt(d_model), narrow models too */

/* A step size that nobody chose. Inside a chunk all gradients are taken at one place, so their steps add up: by the sum over the
 * chunk of theta_i / (1 - eta) times the square of what the keys have in common, which after a silu is most of them. Above 2 a
 * chunk overshoots and a stream of chunks would run away; at the start (theta half its bound, eta half) 1.6 / chunk makes it 1.6
 * at most. Trained gates may leave that behind, and the curvature of a network grows with its own weights, so no step size is
 * safe for ever: grad_clamp is, as it bounds what a token can write. */
static mn_status check_steps(const mn_value *map, const char *where, titans_config *c) {
  if (c->lr_max < 0 && c->lr_max > -1) return mn_config_fail(map, where, "lr_max", "must be at least 0, or -1");
  if (c->lr_max < 0) c->lr_max = c->chunk > 16 ? 1.6 / (double)c->chunk : 0.1;
  return MN_OK;
}

static mn_status check_lmm(const mn_value *map, const char *where, int64_t d_model, void *config) {
  titans_config *c = config;
  MN_TRY(mn_check_heads(map, where, d_model, c->heads, &c->head_dim));
  if (c->memory_net == MN_FAST_LINEAR) c->memory_depth = 1;
  return check_steps(map, where, c);
}

static mn_status check_attended(const mn_value *map, const char *where, int64_t d_model, void *config) {
  titans_config *c = config;
  MN_TRY(check_lmm(map, where, d_model, config));
  if (c->head_dim % 2)
    return mn_config_fail(map, where, "head_dim", "must be even for rotary positions, it is %lld", (long long)c->head_dim);
  return MN_OK;
}

static mn_status check_mac(const mn_value *map, const char *where, int64_t d_model, void *config) {
  titans_config *c = config;
  MN_TRY(check_attended(map, where, d_model, config));
  if (c->heads * c->head_dim != d_model)
    return mn_config_fail(map, where, "head_dim",
                          "times heads must be d_model %lld for titans_mac: what the memory reads stands"
                          " beside the tokens",
                          (long long)d_model);
  return MN_OK;
}

/* ---- the neural long-term memory ---- */
static mn_fast_config memory_of(const titans_config *c) {
  return (mn_fast_config){.net = c->memory_net,
                          .depth = c->memory_depth,
                          .expand = c->memory_expand,
                          .residual = c->memory_residual,
                          .heads = c->heads,
                          .head_dim = c->head_dim,
                          .chunk = c->chunk,
                          .per_chunk = c->granularity == 1,
                          .read_before = c->read == 1,
                          .momentum = c->momentum,
                          .decay = c->decay,
                          .grad_clamp = c->grad_clamp,
                          .trunc_bptt = c->trunc_bptt};
}

/* M_0 of a part, [H,in,out]: Xavier uniform, the last matrix at a tenth so that the memory starts near its residual. */
static mn_tensor *initial(mn_scope *s, const mn_fast_config *m, int part) {
  char name[64];
  mn_shape shape = mn_fast_shape(m, part, 1);
  snprintf(name, sizeof name, "init.%s.weight", mn_fast_name(m, part));
  for (int i = 1; i < shape.ndim; i++) shape.dim[i - 1] = shape.dim[i];
  shape.ndim--;
  if (part == m->depth) return mn_param(s, name, shape, MN_ZEROS, MN_PARAM_NO_DECAY, "gamma - 1 of the memory's norm at the start");
  mn_init init = {MN_INIT_XAVIER_UNIFORM, part == m->depth - 1 ? 0.1 : 1, 0};
  return mn_param(s, name, shape, init, 0, "the memory at the start of a stream [H,in,out]");
}

typedef struct memory_part {
  const mn_fast_config *m;
  int part;
} memory_part;

static mn_tensor *initial_rows(mn_scope *s, const void *ctx) { /* M_0 for every row: [B,H,in,out] */
  const memory_part *p = ctx;
  mn_graph *g = mn_scope_graph(s);
  return mn_expand(g, mn_unsqueeze(g, initial(s, p->m, p->part), 0), mn_fast_shape(p->m, p->part, mn_scope_batch(s)));
}

static mn_tensor *part_state(mn_scope *s, const mn_fast_config *m, char kind, int part, bool learned, const char *help) {
  char name[64];
  snprintf(name, sizeof name, "%c.%s", kind, mn_fast_name(m, part));
  mn_shape shape = mn_fast_shape(m, part, mn_scope_batch(s));
  if (!learned) return mn_state(s, name, mn_scope_exact(s), shape, NULL, help);
  return mn_state_from(s, name, mn_scope_exact(s), shape, initial_rows, &(memory_part){m, part}, help);
}
static void part_state_set(mn_scope *s, const mn_fast_config *m, char kind, int part, mn_tensor *value) {
  char name[64];
  snprintf(name, sizeof name, "%c.%s", kind, mn_fast_name(m, part));
  mn_state_set(s, name, value);
}

static void load(mn_scope *s, const mn_fast_config *m, mn_fast_state *state) {
  for (int p = 0; p < mn_fast_parts(m); p++) {
    state->W[p] = part_state(s, m, 'W', p, true, "the memory: fast weights");
    if (m->momentum) state->S[p] = part_state(s, m, 'S', p, false, "momentum of the memory: past surprise");
    if (m->per_chunk) state->G[p] = part_state(s, m, 'G', p, false, "step gathered over the unfinished chunk");
    else state->A[p] = part_state(s, m, 'A', p, true, "anchor: the memory where the chunk began");
  }
  mn_shape gate = MN_SHAPE(mn_scope_batch(s), m->heads);
  mn_dtype exact = mn_scope_exact(s);
  if (m->per_chunk && m->momentum) state->momentum_sum = mn_state(s, "momentum_sum", exact, gate, NULL, "sum of the gate's argument");
  if (m->per_chunk && m->decay) state->decay_sum = mn_state(s, "decay_sum", exact, gate, NULL, "sum of the gate's argument");
}

static void store(mn_scope *s, const mn_fast_config *m, const mn_fast_state *state) {
  for (int p = 0; p < mn_fast_parts(m); p++) {
    part_state_set(s, m, 'W', p, state->W[p]);
    if (m->momentum) part_state_set(s, m, 'S', p, state->S[p]);
    if (m->per_chunk) part_state_set(s, m, 'G', p, state->G[p]);
    else part_state_set(s, m, 'A', p, state->A[p]);
  }
  if (m->per_chunk && m->momentum) mn_state_set(s, "momentum_sum", state->momentum_sum);
  if (m->per_chunk && m->decay) mn_state_set(s, "decay_sum", state->decay_sum);
}

/* q, k or v of the memory: [B,T,D] -> [B,T,H,d], exact type. state: the convolution's. */
static mn_tensor *stream_of(mn_scope *s, const titans_config *c, const char *name, const char *state, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  char proj[16], conv[16];
  snprintf(proj, sizeof proj, "%s_proj", name);
  snprintf(conv, sizeof conv, "%s_conv", name);
  mn_tensor *u = mn_linear_exact(s, proj, x, c->heads * c->head_dim, MN_NO_BIAS, projection, MN_ZEROS);
  if (c->conv) u = mn_conv_layer_of(s, conv, state, u, c->conv);
  u = mn_split_heads(s, mn_silu(g, u), c->heads);
  return *name == 'v' ? u : mn_norm(g, MN_NORM_L2, u, NULL, NULL, 1e-6, mn_scope_exact(s));
}

static mn_tensor *phase_of(mn_scope *s, int64_t period) { /* position modulo period, i32 [B]; NULL when known to be 0 */
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *position = mn_scope_position(s);
  if (!position || mn_scope_aligned(s, period)) return NULL;
  return mn_mod(g, position, mn_scalar(g, MN_I32, (double)period));
}

static mn_tensor *lmm(mn_scope *s, const titans_config *c, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  if (!x) return NULL;
  mn_fast_config m = memory_of(c);
  mn_fast_state state = {0};
  mn_init zero = MN_ZEROS;
  int64_t H = c->heads;
  mn_fast_input in = {
      .q = stream_of(s, c, "q", "q_conv", x), /* [B,T,H,d] */
      .k = stream_of(s, c, "k", "k_conv", x),
      .v = stream_of(s, c, "v", "v_conv", x),
      .phase = phase_of(s, c->chunk),
      .length = mn_scope_length(s),
  };
  mn_projection gates[3] = {{"lr_proj", MN_BIAS, zero, MN_ZEROS}};
  mn_tensor *arg[3], *surprise = NULL; /* [B,T,H] each */
  int n = 1, momentum = 0, decay = 0;
  if (c->momentum) gates[momentum = n++] = (mn_projection){"momentum_proj", MN_BIAS, zero, MN_ZEROS};
  if (c->decay) gates[decay = n++] = (mn_projection){"decay_proj", MN_BIAS, zero, (mn_init){MN_INIT_CONSTANT, -4, 0}};
  mn_linears_exact(s, x, H, n, gates, arg);
  in.theta = mn_mul_scalar(g, mn_sigmoid(g, arg[0]), c->lr_max);
  if (momentum) in.momentum = arg[momentum];
  if (decay) in.decay = arg[decay];
  load(s, &m, &state);
  mn_tensor *y = mn_fast_memory(g, &m, &state, &in, &surprise); /* [B,T,H,d] */
  store(s, &m, &state);
  mn_report(s, "surprise", surprise);
  y = mn_join_heads(s, mn_norm_layer(s, "norm", MN_NORM_RMS, y, 1e-6, mn_scope_compute(s)));
  if (c->output_gate) y = mn_mul(g, y, mn_silu(g, mn_linear(s, "gate_proj", x, H * c->head_dim, MN_NO_BIAS, projection)));
  return mn_linear(s, "o_proj", y, mn_dim(x, 2), MN_NO_BIAS, projection);
}

/* ---- its uses ---- */
static mn_tensor *attention(mn_scope *s, const titans_config *c, mn_tensor *x) {
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
  const titans_config *c;
  bool stream; /* a later call goes on inside the segment: what it needs is state */
} mac_context;

/* M_{s-1}: the memory as it was when the segment began, or as it is when one begins now (phase 0). */
static void frozen(mn_scope *memory, const mn_fast_config *m, mn_tensor *phase, bool stream, mn_tensor **F) {
  mn_graph *g = mn_scope_graph(memory);
  mn_fast_state now = {0};
  load(memory, m, &now);
  mn_tensor *begins = phase ? mn_eq(g, phase, mn_scalar(g, MN_I32, 0)) : NULL, *length = mn_scope_length(memory); /* [B] */
  if (length) { /* a row that is only padding begins nothing */
    mn_tensor *any = mn_lt(g, mn_scalar(g, MN_I32, 0), length);
    begins = begins ? mn_and(g, begins, any) : any;
  }
  for (int p = 0; p < mn_fast_parts(m); p++) {
    F[p] = now.W[p];
    if (!stream) continue;
    mn_tensor *kept = part_state(memory, m, 'F', p, false, "the memory where the segment began");
    if (!kept) return;
    if (begins) F[p] = mn_select(g, mn_reshape(g, begins, (mn_shape){kept->shape.ndim, {mn_dim(kept, 0), 1, 1, 1}}), now.W[p], kept);
    part_state_set(memory, m, 'F', p, F[p]);
  }
}

/* Keys or values of the segment so far: [B, N + 2 Cs, H, d], persistent pairs, then hq_j at N + j, then x_j at N + Cs + j. The
 * persistent rows are parameters: written anew where they are read, so that what is kept of them is never seen. */
static mn_tensor *segment_store(mn_scope *s, const titans_config *c, const char *name, mn_tensor *prefix, mn_tensor *slots,
                                mn_tensor *rows) {
  mn_graph *g = mn_scope_graph(s);
  int64_t B = mn_dim(rows, 0), N = c->persistent, H = c->heads, d = c->head_dim;
  mn_shape shape = MN_SHAPE(B, N + 2 * c->segment, H, d);
  mn_tensor *kept = mn_state(s, name, rows->dtype, shape, NULL, "the segment's persistent, memory and token rows");
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
static mn_tensor *segment_attention(mn_scope *s, const titans_config *c, mn_tensor *x, mn_tensor *hq, mn_tensor *phase, bool stream) {
  mn_graph *g = mn_scope_graph(s);
  if (!x || !hq) return NULL;
  int64_t B = mn_dim(x, 0), n = mn_dim(x, 1), D = mn_dim(x, 2), H = c->heads, d = c->head_dim, N = c->persistent, Cs = c->segment;
  mn_init init = projection;
  mn_tensor *both = mn_concat(g, 2, (mn_tensor *[]){hq, x}, 1), *cos, *sin, *cos_hq, *sin_hq; /* [B,2n,D] */
  mn_tensor *q = mn_split_heads(s, mn_linear(s, "q_proj", x, H * d, MN_NO_BIAS, init), H);
  mn_tensor *k = mn_split_heads(s, mn_linear(s, "k_proj", both, H * d, MN_NO_BIAS, init), H);
  mn_tensor *v = mn_split_heads(s, mn_linear(s, "v_proj", both, H * d, MN_NO_BIAS, init), H);
  /* hq_j stands at position j, x_j at Cs + j */
  mn_rope_config r = {.theta = c->rope_theta, .factor = 1};
  mn_tensor *zero = mn_full(g, MN_I32, MN_SHAPE(B), 0), *row = phase ? phase : zero; /* of the first token in its segment */
  mn_rope_tables_at(s, &r, d, n, phase, &cos_hq, &sin_hq);
  mn_rope_tables_at(s, &r, d, n, mn_add_scalar(g, row, (double)Cs), &cos, &sin);
  q = mn_rope(g, q, cos, sin, false);
  k = mn_concat(
      g, 2,
      (mn_tensor *[]){mn_rope(g, mn_slice(g, k, 1, 0, n), cos_hq, sin_hq, false), mn_rope(g, mn_slice(g, k, 1, n, n), cos, sin, false)}, 1);
  if (!q || !k || !v) return NULL;
  mn_tensor *pk = NULL, *pv = NULL;
  if (N) {
    pk = mn_param(s, "prefix_k", MN_SHAPE(N, H, d), init, MN_PARAM_NO_DECAY, "persistent keys [N,H,d], never rotated");
    pv = mn_param(s, "prefix_v", MN_SHAPE(N, H, d), init, MN_PARAM_NO_DECAY, "persistent values [N,H,d]");
    pk = mn_unsqueeze(g, mn_cast(g, pk, k->dtype), 0);
    pv = mn_unsqueeze(g, mn_cast(g, pv, v->dtype), 0);
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

/* n tokens that lie in one segment. */
static mn_tensor *mac_piece(mn_scope *s, void *context, mn_tensor *x) {
  const mac_context *in = context;
  const titans_config *c = in->c;
  mn_graph *g = mn_scope_graph(s);
  mn_scope *memory = mn_scope_in(s, "memory");
  mn_fast_config m = memory_of(c);
  mn_tensor *F[MN_FAST_PARTS] = {NULL}, *phase = phase_of(s, c->segment);
  frozen(memory, &m, phase, in->stream, F);
  mn_tensor *q = stream_of(memory, c, "q", "x_conv", x); /* [B,n,H,d] */
  mn_tensor *hq = q ? mn_transpose(g, mn_fast_read(g, &m, F, mn_transpose(g, q, 1, 2)), 1, 2) : NULL;
  hq = hq ? mn_cast(g, mn_join_heads(s, hq), x->dtype) : NULL;
  mn_tensor *y = segment_attention(mn_scope_in(s, "attn"), c, x, hq, phase, in->stream);
  return gated(s, y, lmm(memory, c, y));
}

/* Segments one after the other. A stream whose positions are known to be multiples of some divisor of the segment goes on in
 * pieces of that length, which never cross a segment's end; one of which nothing is known, token by token. */
static mn_tensor *apply_mac(mn_scope *s, const void *config, mn_tensor *x) {
  const titans_config *c = config;
  mac_context context = {c, mn_scope_is_stream(s)};
  int64_t piece = c->segment;
  while (piece > 1 && (c->segment % piece || !mn_scope_aligned(s, piece))) piece--;
  return mn_scope_loop(s, piece, mac_piece, &context, x);
}

static mn_tensor *apply_lmm(mn_scope *s, const void *config, mn_tensor *x) { return lmm(mn_scope_in(s, "memory"), config, x); }

static mn_tensor *apply_mag(mn_scope *s, const void *config, mn_tensor *x) {
  return gated(s, attention(s, config, x), apply_lmm(s, config, x));
}

static mn_tensor *apply_mal(mn_scope *s, const void *config, mn_tensor *x) { return attention(s, config, apply_lmm(s, config, x)); }

static void remedy(const void *config, mn_text *out) {
  const titans_config *c = config;
  if (c->grad_clamp > 0) mn_text_addf(out, "lower grad_clamp (%g now) or lr_max (%g now)", c->grad_clamp, c->lr_max);
  else mn_text_addf(out, "set grad_clamp: 1 (off now) or lower lr_max (%g now)", c->lr_max);
  if (c->chunk > 16) mn_text_addf(out, ", or take a smaller chunk (%lld now), over which steps add up", (long long)c->chunk);
}

#define TITANS                                                                                                                             \
  .page = "titans", .kind = "state", .paper = "Behrouz, Zhong & Mirrokni 2024, arXiv 2501.00663", .config_size = sizeof(titans_config),    \
  .written = written, .remedy = remedy
#define LMM                                                                                                                                \
  .summary = "Titans: a memory whose weights are trained while it reads", .fields = lmm_fields, .check = check_lmm, .apply = apply_lmm

const mn_mixer_def mn_mixer_titans = {.name = "titans", TITANS, LMM};
const mn_mixer_def mn_mixer_titans_lmm = {.name = "titans_lmm", TITANS, LMM};
const mn_mixer_def mn_mixer_titans_mag = {
    .name = "titans_mag",
    TITANS,
    .summary = "Titans, memory as gate: what attention says is gated by what the memory says",
    .fields = attended_fields,
    .check = check_attended,
    .apply = apply_mag,
};
const mn_mixer_def mn_mixer_titans_mal = {
    .name = "titans_mal",
    TITANS,
    .summary = "Titans, memory as layer: attention over what the memory says",
    .fields = attended_fields,
    .check = check_attended,
    .apply = apply_mal,
};
const mn_mixer_def mn_mixer_titans_mac = {
    .name = "titans_mac",
    TITANS,
    .summary = "Titans, memory as context: segments attend to what the memory reads for them",
    .fields = mac_fields,
    .check = check_mac,
    .apply = apply_mac,
};
