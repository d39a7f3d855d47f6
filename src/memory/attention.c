/* attention.c - softmax attention with a KV cache.
 *
 * What it remembers: the tokens themselves, as rotated keys and values. Full attention keeps max_context of them (a longer
 * stream is refused, or where its runner says `forget` loses the oldest, as a window would); a sliding window keeps the last `window` in a ring; attention
 * sinks (Xiao et al. 2023) keep the first `sinks`, too; persistent tokens (Titans, 2.4) are learned keys and values that
 * every query sees.
 *     q_t = R_t W_Q x_t,  k_t = R_t W_K x_t,  v_t = W_V x_t
 *     y_t = W_O concat_h softmax_j(f(q_t . k_j / sqrt(K)) + b_h(t - j)) v_j,   j visible to t
 * f(s) is s, or with softcap: c it is c tanh(s / c) (Riviere et al. 2024, arXiv 2408.00118).
 * b is a learned bias by distance where one is asked for. Queries and keys may be normalised before they are rotated (Henry et al. 2020,
 * arXiv 2010.04245), and what the heads read may be let through by sigmoid(W_G x_t) (Qiu et al. 2025, arXiv 2505.06708). With causal: false every token of a sequence sees every other, and
 * nothing is remembered; the padding behind what is shared as `length` (i32 [B]) is seen by nobody. */
#include "graph/cached.h"
#include "graph/fused_attention.h"
#include "graph/fused_rope.h"
#include "nn/mixer.h"

#include <math.h>

#include "memory/attention.h"
#include "nn/cross_attention.h"
#include "nn/positions.h"
#include "nn/prefix.h"

#define S mn_attention_config
static const char *const qk_norms[] = {"none", "heads", "all", NULL}; /* in the order of mn_qk_norm */
static const char *const scalings[] = {"none", "linear", "ntk", "yarn", "llama3", NULL};
const mn_field mn_attention_fields[] = {
    MN_FIELD_INT(S, heads, 4, 1, 4096, "query heads H"),
    MN_FIELD_INT(S, kv_heads, 0, 0, 4096, "key/value heads G, a divisor of heads; 0: as many as heads"),
    MN_FIELD_INT(S, head_dim, 0, 0, 4096, "width K of a head; 0: d_model / heads"),
    MN_FIELD_INT(S, window, 0, 0, 1 << 24, "a query sees the last `window` tokens, itself among them; 0: all"),
    MN_FIELD_INT(S, sinks, 0, 0, 65536, "the first tokens of a stream that stay visible"),
    MN_FIELD_INT(S, persistent, 0, 0, 65536, "learned key/value pairs that every query sees"),
    MN_FIELD_INT(S, max_context, MN_USUAL_CONTEXT, 1, 1 << 28, "without a window: how many tokens a stream's cache holds"),
    MN_FIELD_BOOL(S, rope, true, "rotary position embedding"),
    MN_FIELD_FLOAT(S, rope_theta, 10000, 1, 1e12, "base of the rotary frequencies"),
    MN_FIELD_ENUM(S, rope_scaling, scalings, 0, "how rotary frequencies are stretched for longer contexts"),
    MN_FIELD_FLOAT(S, rope_factor, 1, 1, 1e6, "how many times longer than rope_original_context"),
    MN_FIELD_INT(S, rope_original_context, 4096, 1, 1 << 28, "context before stretching"),
    MN_FIELD_INT(S, conv, 0, 0, 1 << 20, "kernel of a causal depthwise convolution on q, k and v; 0: none"),
    MN_FIELD_BOOL(S, bias, false, "biases in the projections"),
    MN_FIELD_BOOL(S, causal, true, "false: a token sees all tokens of its sequence, later ones too; no stream then", MN_SPARSE),
    MN_FIELD_INT(S, rope_dim, 0, 0, 4096, "entries of a head that are rotated, the first ones; 0: all", MN_SPARSE),
    MN_FIELD_INT(S, relative_bias, 0, 0, 4096, "a learned bias of scores by distance, in so many buckets; 0: none", MN_SPARSE),
    MN_FIELD_INT(S, relative_distance, 128, 2, 1 << 16, "distance from which on all share one bucket", MN_SPARSE),
    MN_FIELD_ENUM(S, qk_norm, qk_norms, MN_QK_PLAIN,
                  "RMS norm of queries and keys before they are rotated: of each head, or of all heads at once", MN_SPARSE),
    MN_FIELD_FLOAT(S, qk_norm_eps, 1e-6, DBL_MIN, 1, "added to its mean square", MN_SPARSE),
    MN_FIELD_FLOAT(S, score_scale, 0, 0, 1e6, "what scores are multiplied by; 0: 1 / sqrt(head_dim)", MN_SPARSE),
    MN_FIELD_BOOL(S, output_gate, false, "what the heads read is let through by a sigmoid of the input", MN_SPARSE),
    MN_FIELD_BOOL(S, qkv_bias, false, "biases in the projections to queries, keys and values, and none in the output's", MN_SPARSE),
    MN_FIELD_FLOAT(S, softcap, 0, 0, 1e6, "c: scores s become c tanh(s / c); 0: they stay", MN_SPARSE),
    MN_FIELD_FLOATS(S, rope_divisors, DBL_MIN, 1e9, "a number for each pair that is rotated: its frequency is divided by it", MN_SPARSE),
    MN_FIELD_FLOAT(S, rope_gain, 0, 0, 1e3, "what is rotated is multiplied by it; 0: as rope_scaling says", MN_SPARSE),
    MN_FIELD_END};
#undef S

/* Keys that say something of others, which must then be there. */
static mn_status check_pairs(const mn_value *map, const char *where, const mn_attention_config *c) {
  const int64_t pairs = (c->rope_dim ? c->rope_dim : c->head_dim) / 2;
  if (c->bias && c->qkv_bias) return mn_config_fail(map, where, "qkv_bias", "has no effect beside bias: true; leave it out");
  if (c->rope_divisors.count && c->rope_divisors.count != pairs)
    return mn_config_fail(map, where, "rope_divisors", "must be %lld numbers, one for each pair that is rotated, and are %d",
                          (long long)pairs, c->rope_divisors.count);
  if (c->softcap > 0 && c->relative_bias)
    return mn_config_fail(map, where, "softcap", "is not done beside a relative_bias; leave one of them out");
  return MN_OK;
}

mn_status mn_attention_check_context(const mn_value *map, const char *where, int64_t window, int64_t max_context) {
  if (!window || max_context == MN_USUAL_CONTEXT) return MN_OK;
  return mn_config_fail(map, where, "max_context",
                        "has no effect beside window: %lld, which says what a stream's cache holds; leave one of them out",
                        (long long)window);
}

mn_status mn_attention_check(const mn_value *map, const char *where, int64_t d_model, mn_attention_config *c) {
  if (c->kv_heads == 0) c->kv_heads = c->heads;
  if (c->heads % c->kv_heads)
    return mn_config_fail(map, where, "kv_heads", "must divide heads: %lld does not divide %lld", (long long)c->kv_heads,
                          (long long)c->heads);
  MN_TRY(mn_check_heads(map, where, d_model, c->heads, &c->head_dim));
  if (c->rope_dim > c->head_dim)
    return mn_config_fail(map, where, "rope_dim", "must be at most head_dim, which is %lld", (long long)c->head_dim);
  if (c->rope_dim % 2) return mn_config_fail(map, where, "rope_dim", "must be even, it is %lld", (long long)c->rope_dim);
  if (c->rope && !c->rope_dim && c->head_dim % 2)
    return mn_config_fail(map, where, "head_dim", "must be even for rotary positions, it is %lld", (long long)c->head_dim);
  static const char *const of_rope[] = {"rope_dim",  "rope_theta",  "rope_scaling",         "rope_divisors",
                                        "rope_gain", "rope_factor", "rope_original_context"};
  for (int i = 0; i < 7; i++) {
    if (!mn_config_given(map, of_rope[i])) continue;
    if (!c->rope) return mn_config_fail(map, where, of_rope[i], "has no effect with rope: false; leave it out");
    if (i >= 5 && c->rope_scaling == 0)
      return mn_config_fail(map, where, of_rope[i],
                            "has no effect without a rope_scaling; choose linear, ntk, yarn or llama3, or leave it out");
  }
  static const char *const of_streams[] = {"window", "sinks", "max_context", "conv", "persistent"};
  for (int i = 0; i < 5 && !c->causal; i++)
    if (mn_config_given(map, of_streams[i]))
      return mn_config_fail(map, where, of_streams[i],
                            "has no effect with causal: false, where every token sees every other; leave it out");
  if (!c->relative_bias && mn_config_given(map, "relative_distance"))
    return mn_config_fail(map, where, "relative_distance", "has no effect without a relative_bias; leave it out");
  if (c->relative_bias && c->persistent)
    return mn_config_fail(map, where, "relative_bias", "has no distance to persistent tokens, which stand nowhere; leave one of them out");
  if (c->relative_bias && c->relative_bias < (c->causal ? 2 : 4))
    return mn_config_fail(map, where, "relative_bias", "needs at least %d buckets%s", c->causal ? 2 : 4,
                          c->causal ? "" : ", half of them for either side");
  MN_TRY(check_pairs(map, where, c));
  if (!c->qk_norm && mn_config_given(map, "qk_norm_eps"))
    return mn_config_fail(map, where, "qk_norm_eps", "has no effect without a qk_norm; choose heads or all, or leave it out");
  if (c->sinks && !c->window) return mn_config_fail(map, where, "sinks", "need a window: without one every token is seen");
  return mn_attention_check_context(map, where, c->window, c->max_context);
}

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  return mn_attention_check(map, where, d_model, config);
}

/* ---- the cache ---- [B, slots, G, K]: persistent pairs, then sinks, then a ring. Slot of position p: p among the sinks,
 * else by p modulo the ring's size. Its position is worked out from the stream's, so nothing else is stored. */
typedef struct cache {
  int64_t persistent, sinks, ring, slots;
} cache;

static cache cache_of(const mn_scope *s, const mn_attention_config *c) {
  cache k = {.persistent = c->persistent, .sinks = c->sinks, .ring = c->window ? c->window + c->delay : c->max_context};
  if (mn_scope_longest(s) < k.ring) k.ring = mn_scope_longest(s); /* which then is never full */
  k.slots = k.persistent + k.sinks + k.ring;
  return k;
}

/* slot of each position, i32, same shape */
static mn_tensor *slot_of(mn_graph *g, const cache *c, mn_tensor *p) {
  mn_tensor *first = mn_scalar(g, MN_I32, (double)c->sinks);
  mn_tensor *ring = mn_mod(g, mn_sub(g, p, first), mn_scalar(g, MN_I32, (double)c->ring));
  mn_tensor *slot = mn_add_scalar(g, ring, (double)(c->persistent + c->sinks));
  return c->sinks ? mn_select(g, mn_lt(g, p, first), mn_add_scalar(g, p, (double)c->persistent), slot) : slot;
}

/* What a segment writes: its tokens' rows x [B,T,G,K] into their slots and, in front, the persistent pairs [N,G,K] into theirs.
 * Those are parameters, read where they are used: what their slots held before is never seen, so that a stream follows the
 * weights as they are trained. One put, so that it happens in place. */
typedef struct written {
  mn_tensor *rows, *slots; /* [B,N+T,G,K], i32 [B,N+T] */
} written;

static mn_tensor *pairs_of(mn_graph *g, mn_tensor *pairs, mn_tensor *like) { /* [N,G,K] -> [B,N,G,K] in the type of `like` */
  mn_shape shape = MN_SHAPE(mn_dim(like, 0), mn_dim(pairs, 0), mn_dim(pairs, 1), mn_dim(pairs, 2));
  return mn_expand(g, mn_unsqueeze(g, mn_cast(g, pairs, mn_type(like)), 0), shape);
}

/* any: bool [B], rows that are not only padding, or NULL: all */
static written to_write(mn_graph *g, mn_tensor *pairs, mn_tensor *x, mn_tensor *slots, mn_tensor *any) {
  if (!pairs) return (written){x, slots};
  mn_tensor *first = mn_iota(g, MN_I32, MN_SHAPE(mn_dim(x, 0), mn_dim(pairs, 0)), 1);
  if (any) first = mn_select(g, mn_unsqueeze(g, any, 1), first, mn_scalar(g, MN_I32, -1));
  return (written){mn_concat(g, 2, (mn_tensor *[]){pairs_of(g, pairs, x), x}, 1), mn_concat(g, 2, (mn_tensor *[]){first, slots}, 1)};
}

/* Scores by distance, where they are asked for. */
static void add_distances(mn_scope *s, const mn_attention_config *c, mn_attention_io *io, mn_attention_attr *attr) {
  if (!c->relative_bias) return;
  const mn_distance_bias how = {c->heads, c->relative_bias, c->relative_distance, !c->causal};
  io->by_distance = mn_distance_bias_of(s, "relative_bias", &how, &attr->distance_zero);
}

mn_tensor *mn_attention_join(mn_graph *g, mn_tensor *o_a, mn_tensor *lse_a, mn_tensor *o_b, mn_tensor *lse_b, mn_tensor **lse) {
  const mn_dtype exact = mn_type(lse_a);
  mn_tensor *blind = mn_lt(g, lse_b, mn_scalar(g, exact, MN_NOTHING / 2)), *a = mn_maximum(g, lse_a, mn_scalar(g, exact, MN_NOTHING));
  mn_tensor *b = mn_select(g, blind, a, lse_b), *over = mn_sub(g, a, b);               /* [B,H,T] */
  mn_tensor *share = mn_select(g, blind, mn_scalar(g, exact, 1), mn_sigmoid(g, over)); /* of a */
  mn_tensor *weight = mn_unsqueeze(g, mn_transpose(g, share, 1, 2), 3);                /* [B,T,H,1] */
  mn_tensor *of_a = mn_cast(g, o_a, exact), *of_b = mn_cast(g, o_b, exact);
  *lse = mn_select(g, blind, a, mn_sub(g, b, mn_log_sigmoid(g, mn_neg(g, over))));
  return mn_cast(g, mn_add(g, of_b, mn_mul(g, weight, mn_sub(g, of_a, of_b))), mn_type(o_a));
}

/* What one segment of a stream works with. */
typedef struct segment {
  const mn_attention_config *c;
  cache size;
  mn_attention_attr attr;
  mn_tensor *q, *k, *v, *pk, *pv; /* of the segment; the persistent pairs or NULL */
  mn_tensor *start, *pos;         /* i32 [B], [B,T]: of its first token, of each  */
  mn_tensor *seen;                /* i32 [B]: of the newest token that its first one sees, which is itself without a delay */
} segment;

/* Several tokens read the cache as it was before them, and each other: what of the window is lost meanwhile is still there. */
static mn_tensor *read_before_writing(mn_scope *s, const segment *x, mn_tensor *K0, mn_tensor *V0, mn_tensor **lse) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t N = x->size.persistent, kept = x->size.slots - N, B = mn_dim(x->q, 0), T = mn_dim(x->q, 1);
  mn_attention_attr old = x->attr, new = x->attr;
  mn_attention_io a = {.q = x->q, .q_pos = x->seen, .length = x->start}, b = {.q = x->q, .k = x->k, .v = x->v};
  a.k = mn_slice(g, K0, 1, N, kept);
  a.v = mn_slice(g, V0, 1, N, kept);
  old.ring = true;
  old.prefix = 0;
  if (N) {
    b.k = mn_concat(g, 2, (mn_tensor *[]){pairs_of(g, x->pk, x->k), x->k}, 1);
    b.v = mn_concat(g, 2, (mn_tensor *[]){pairs_of(g, x->pv, x->v), x->v}, 1);
  }
  if (T <= new.window) new.sinks = 0; /* the window holds them all: only distances count, and those need no positions */
  if (new.sinks) {
    b.q_pos = x->start;
    b.k_pos = N ? mn_concat(g, 2, (mn_tensor *[]){mn_full(g, MN_I32, MN_SHAPE(B, N), 0), x->pos}, 1) : x->pos;
  }
  add_distances(s, x->c, &a, &old);
  b.by_distance = a.by_distance, new.distance_zero = old.distance_zero;
  mn_attend(g, &a, old);
  mn_attend(g, &b, new);
  return mn_attention_join(g, a.o, a.lse, b.o, b.lse, lse);
}

/* One token is written first: the slot that it overwrites has just left the window. */
static mn_tensor *read_after_writing(mn_scope *s, const segment *x, mn_tensor *K1, mn_tensor *V1, mn_tensor **lse) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *filled = mn_add_scalar(g, x->start, 1);
  mn_attention_attr attr = x->attr;
  attr.ring = true;
  mn_attention_io io = {.q = x->q, .k = K1, .v = V1, .q_pos = x->seen, .length = filled};
  add_distances(s, x->c, &io, &attr);
  mn_attend(g, &io, attr);
  *lse = io.lse;
  return io.o;
}

/* In the type of x, as they will be read from a cache of type t. */
static mn_tensor *narrowed(mn_graph *g, mn_tensor *x, mn_dtype t) {
  return mn_cast(g, mn_narrowed(g, mn_cast(g, x, MN_F32), t), mn_type(x));
}

static mn_tensor *write_rows(mn_graph *g, mn_tensor *room, const written *w) {
  if (mn_type(room) == mn_type(w->rows)) return mn_put(g, room, w->slots, w->rows, 1, MN_PUT_SET);
  return mn_cache_put(g, room, w->slots, mn_cast(g, w->rows, MN_F32));
}

/* Attention over the cache and the new tokens, and the new tokens into the cache. Its cost is of what is filled, not of the room. */
static mn_tensor *stream(mn_scope *s, const mn_attention_config *c, mn_tensor *q, mn_tensor *k, mn_tensor *v, mn_tensor *pk, mn_tensor *pv,
                         mn_attention_attr attr, mn_tensor **lse) {
  mn_graph *g = mn_scope_graph(s);
  cache size = cache_of(s, c);
  const mn_dtype t = mn_scope_cache(s, mn_type(q), c->head_dim);
  const bool narrow = t != mn_type(q);
  int64_t B = mn_dim(q, 0), T = mn_dim(q, 1), G = c->kv_heads, K = c->head_dim;
  if (narrow) k = narrowed(g, k, t), v = narrowed(g, v, t); /* a segment reads of itself what later ones will read of it */
  mn_shape shape = MN_SHAPE(B, size.slots, G, K);
  const char *kept_keys = c->one_cache ? "latent" : "k";
  mn_tensor *K0 = mn_state(s, kept_keys, t, shape, NULL, "rotated keys: room for the persistent ones, sinks, ring");
  mn_tensor *V0 = c->one_cache ? K0 : mn_state(s, "v", t, shape, NULL, "values, beside the keys");
  mn_tensor *start = mn_scope_position(s);
  if (!start) start = mn_full(g, MN_I32, MN_SHAPE(B), 0);
  mn_tensor *pos = mn_add(g, mn_reshape(g, start, MN_SHAPE(B, 1)), mn_iota(g, MN_I32, MN_SHAPE(1, T), 1)); /* [B,T] */
  if (!attr.window || attr.window > size.ring) attr.window = size.ring;
  mn_tensor *seen = c->delay ? mn_add_scalar(g, start, -(double)c->delay) : start;
  segment x = {c, size, attr, q, k, v, pk, pv, start, pos, seen};
  mn_tensor *slots = slot_of(g, &size, pos), *length = mn_scope_length(s), *live = mn_scope_live(s, T);
  mn_tensor *any = length ? mn_lt(g, mn_full(g, MN_I32, MN_SHAPE(B), 0), length) : NULL;
  int64_t kept = size.ring;
  if (T > kept) { /* of the new tokens only sinks and the last of the ring stay: the others go nowhere */
    mn_tensor *end = mn_reshape(g, start, MN_SHAPE(B, 1));
    end = mn_add_scalar(g, end, (double)((length ? 0 : T) - kept));
    if (length) end = mn_add(g, end, mn_reshape(g, length, MN_SHAPE(B, 1)));
    mn_tensor *stays = mn_le(g, end, pos);
    if (size.sinks) stays = mn_or(g, stays, mn_lt(g, pos, mn_scalar(g, MN_I32, (double)size.sinks)));
    slots = mn_select(g, stays, slots, mn_scalar(g, MN_I32, -1));
  }
  if (live) slots = mn_select(g, live, slots, mn_scalar(g, MN_I32, -1)); /* padding writes no slot */
  mn_tensor *o = T > 1 ? read_before_writing(s, &x, K0, V0, lse) : NULL;
  written wk = to_write(g, pk, k, slots, any);
  mn_tensor *K1 = write_rows(g, K0, &wk), *V1 = K1;
  mn_state_set(s, kept_keys, K1);
  (c->window ? mn_state_ring : mn_state_appended)(s, kept_keys, size.persistent);
  if (!c->one_cache) {
    written wv = to_write(g, pv, v, slots, any);
    V1 = write_rows(g, V0, &wv);
    mn_state_set(s, "v", V1);
    (c->window ? mn_state_ring : mn_state_appended)(s, "v", size.persistent);
  }
  return T > 1 ? o : read_after_writing(s, &x, K1, V1, lse);
}

static double scale_of(const mn_attention_config *c) { return c->score_scale > 0 ? c->score_scale : 1 / sqrt((double)c->head_dim); }

/* Every token of the sequence sees every other. */
static mn_tensor *both_sides(mn_scope *s, const mn_attention_config *c, mn_tensor *q, mn_tensor *k, mn_tensor *v) {
  mn_graph *g = mn_scope_graph(s);
  if (mn_scope_is_stream(s)) {
    mn_graph_fault(g, MN_ERR_CONFIG, "%scausal: false lets attention see later tokens, so it cannot be run as a stream", mn_scope_path(s));
    return NULL;
  }
  int64_t B = mn_dim(q, 0), T = mn_dim(q, 1);
  mn_attention_io io = {.q = q, .k = k, .v = v, .k_pos = mn_key_positions(g, mn_scope_length(s), T)};
  if (io.k_pos) io.q_pos = mn_full(g, MN_I32, MN_SHAPE(B), 0);
  mn_attention_attr attr = {.scale = scale_of(c), .softcap = c->softcap};
  add_distances(s, c, &io, &attr);
  mn_attend(g, &io, attr);
  return io.o;
}

static mn_tensor *rotated(mn_graph *g, const mn_attention_config *c, mn_tensor *x, mn_tensor *cos, mn_tensor *sin) {
  int64_t rest = c->rope_dim ? c->head_dim - c->rope_dim : 0;
  if (!rest) return mn_rope(g, x, cos, sin, MN_ROPE_HALVES);
  mn_tensor *turned = mn_rope(g, mn_slice(g, x, 3, 0, c->rope_dim), cos, sin, MN_ROPE_HALVES);
  return mn_concat(g, 2, (mn_tensor *[]){turned, mn_slice(g, x, 3, c->rope_dim, rest)}, 3);
}

void mn_attention_rotate(mn_scope *s, const mn_attention_config *c, mn_tensor **q, mn_tensor **k) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *cos, *sin;
  mn_rope_config r = {c->rope_theta, (mn_rope_scaling)c->rope_scaling, c->rope_factor, c->rope_original_context, c->rope_divisors,
                      c->rope_gain};
  mn_rope_tables(s, &r, c->rope_dim ? c->rope_dim : c->head_dim, mn_dim(*q, 1), &cos, &sin);
  *q = rotated(g, c, *q, cos, sin);
  *k = rotated(g, c, *k, cos, sin);
}

/* near 1/sqrt(d_model), narrow models too */
static const mn_init xavier = {MN_INIT_XAVIER_UNIFORM, 1, 0};

mn_tensor *mn_attention_heads(mn_scope *s, const mn_attention_config *c, mn_tensor *q, mn_tensor *k, mn_tensor *v, mn_tensor **lse) {
  mn_graph *g = mn_scope_graph(s);
  int64_t T = mn_dim(q, 1), G = c->kv_heads, K = c->head_dim, N = c->persistent;
  mn_tensor *pk = NULL, *pv = NULL, *any;
  if (!lse) lse = &any;
  if (N) {
    pk = mn_param(s, "prefix_k", MN_SHAPE(N, G, K), xavier, MN_PARAM_NO_DECAY, "persistent keys [N,G,K], never rotated");
    pv = mn_param(s, "prefix_v", MN_SHAPE(N, G, K), xavier, MN_PARAM_NO_DECAY, "persistent values [N,G,K]");
  }
  mn_attention_attr attr = {.scale = scale_of(c), .softcap = c->softcap, .causal = true, .prefix = N, .sinks = c->sinks};
  attr.window = c->window, attr.q_start = -c->delay;
  if (!c->window) {
    mn_scope_limit(
        s, c->max_context, "max_context",
        "raise max_context or give the attention a window in its place; or let a model that is run, not trained, forget the oldest tokens "
        "(--forget; in the C API forget=true)");
    if (T > c->max_context) attr.window = c->max_context; /* as the stream will, where it may */
  }
  if (mn_scope_is_stream(s)) return stream(s, c, q, k, v, pk, pv, attr, lse);
  if (N) { /* the whole stream is here */
    k = mn_concat(g, 2, (mn_tensor *[]){pairs_of(g, pk, k), k}, 1);
    v = mn_concat(g, 2, (mn_tensor *[]){pairs_of(g, pv, v), v}, 1);
  }
  mn_attention_io io = {.q = q, .k = k, .v = v};
  add_distances(s, c, &io, &attr);
  mn_attend(g, &io, attr);
  *lse = io.lse;
  return io.o;
}

/* Queries or keys by heads, normalised where that is asked for. */
static mn_tensor *split(mn_scope *s, const mn_attention_config *c, const char *norm, mn_tensor *x, int64_t heads) {
  if (c->qk_norm == MN_QK_NORM_ALL) x = mn_norm_layer(s, norm, MN_NORM_RMS, x, c->qk_norm_eps, mn_type(x));
  x = mn_split_heads(s, x, heads);
  return c->qk_norm == MN_QK_NORM_HEADS ? mn_norm_layer(s, norm, MN_NORM_RMS, x, c->qk_norm_eps, mn_type(x)) : x;
}

mn_tensor *mn_attention_apply(mn_scope *s, const mn_attention_config *c, mn_tensor *x) {
  int64_t D = mn_dim(x, 2), H = c->heads, G = c->kv_heads, K = c->head_dim;
  const bool bias = c->bias || c->qkv_bias;
  mn_tensor *q = mn_linear(s, "q_proj", x, H * K, bias, xavier);
  mn_tensor *k = mn_linear(s, "k_proj", x, G * K, bias, xavier);
  mn_tensor *v = mn_linear(s, "v_proj", x, G * K, bias, xavier);
  if (c->conv) {
    q = mn_conv_layer(s, "q_conv", q, c->conv);
    k = mn_conv_layer(s, "k_conv", k, c->conv);
    v = mn_conv_layer(s, "v_conv", v, c->conv);
  }
  q = split(s, c, "q_norm", q, H);
  k = split(s, c, "k_norm", k, G);
  v = mn_split_heads(s, v, G);
  if (c->rope) mn_attention_rotate(s, c, &q, &k);
  mn_tensor *o = c->causal ? mn_attention_heads(s, c, q, k, v, NULL) : both_sides(s, c, q, k, v);
  mn_share(s, MN_ATTENTION_HEADS, o);
  o = mn_join_heads(s, o);
  if (c->output_gate) {
    mn_graph *g = mn_scope_graph(s);
    o = mn_mul(g, o, mn_cast(g, mn_sigmoid(g, mn_linear_exact(s, "gate_proj", x, H * K, c->bias, xavier, MN_ZEROS)), mn_type(o)));
  }
  return mn_linear(s, "o_proj", o, D, c->bias, xavier);
}

static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) { return mn_attention_apply(s, config, x); }

static void remedy(const void *config, mn_text *out) {
  (void)config;
  mn_text_add(out,
              "its scores q . k grow with the square of its weights: train with more weight decay, or with a lower lr or a longer warm-up");
}

static const char *not_causal(const void *config) {
  const mn_attention_config *c = config;
  return c->causal ? NULL : "its attention with causal: false sees later tokens";
}

const mn_mixer_def mn_mixer_attention = {
    .name = "attention",
    .kind = "context",
    .summary = "softmax attention: full, sliding window, attention sinks, grouped queries, persistent tokens",
    .paper = "Vaswani et al. 2017, arXiv 1706.03762; sinks: Xiao et al. 2023, arXiv 2309.17453; GQA: Ainslie et al. 2023, arXiv 2305.13245",
    .config_size = sizeof(mn_attention_config),
    .fields = mn_attention_fields,
    .check = check,
    .apply = apply,
    .remedy = remedy,
    .not_causal = not_causal,
};
