/* hmt.c - Hierarchical Memory Transformer (He et al. 2024, arXiv 2405.06067): a decoder that reads a stream by segments of L tokens.
 * Each segment leaves one vector in a cache of the last N; before a segment, one look-up there gives a prompt that stands at both ends
 * of it, beside the last k tokens of the segment before. BBM is the base over vectors, up to its last norm, from position 0 each time.
 *     S_n = BBM([T; E[j tokens]; T]) at the end          the first j of segment n (query: head), or the last j of n-1 (prev_tail)
 *     P_n = softmax(W_q S_n (W_k M)^T / sqrt(d_h)) M     M = (M_{max(0,n-N)} .. M_{n-1}); P_0 = P_init
 *     [.., H_n, M_n] = BBM([P_n; E[last k of n-1]; E[segment n]; P_n])          the first segment has no k tokens before it
 * Without retrieval P_n = M_{n-1}: a recurrent memory transformer, which is also what one slot is (N = 1).
 *
 * With `head` the prompt knows the segment's first j tokens before they are said: the paper's way, and no stream. With `prev_tail`
 * nothing is known early. A whole segment is one call of the base. One that comes in pieces is three steps of one stream of the base:
 * the head [P_n; k tokens] where it begins, the tokens as they come, and P_n where it ends; so a token costs a token. */
#include "graph/fused_attention.h"
#include "model/model.h"

#include <math.h>
#include <string.h>

typedef struct hmt_config {
  const mn_value *base; /* while parsing */
  int64_t segment, sensory, summary_tokens, cache, key_dim, truncate;
  double retrieval_loss;
  int query;
  bool retrieval;
} hmt_config;
enum { HEAD, PREV_TAIL };
static const char *const queries[] = {"head", "prev_tail", NULL};
#define S hmt_config
static const mn_field fields[] = {
    MN_FIELD_VALUE(S, base, "the decoder inside: {d_model: 64, layers: 2, block: {...}}"),
    MN_FIELD_INT(S, segment, 256, 2, 1 << 20, "tokens L of a segment", MN_TOKENS),
    MN_FIELD_INT(S, sensory, 32, 0, 1 << 20, "tokens k of the segment before that are read again"),
    MN_FIELD_INT(S, summary_tokens, 0, 0, 1 << 20, "tokens j that the look-up is made from; 0: half a segment"),
    MN_FIELD_INT(S, cache, 300, 1, 1 << 20, "segments N that are remembered"),
    MN_FIELD_INT(S, key_dim, 0, 0, 1 << 20, "width d_h of the look-up; 0: d_model"),
    MN_FIELD_ENUM(S, query, queries, PREV_TAIL,
                  "the look-up is made from a segment's first tokens (the paper's), or from the last before it"),
    MN_FIELD_BOOL(S, retrieval, true, "false: the prompt is the last segment's memory (RMT)"),
    MN_FIELD_FLOAT(S, retrieval_loss, 0, 0, 1e6, "weight of the look-up's own loss: the segment that the data's `evidence` names; 0: none",
                   MN_SPARSE),
    MN_FIELD_INT(S, truncate, 0, 0, 1 << 20, "gradients stop at every so many segments' starts; 0: they go through all", MN_SPARSE),
    MN_FIELD_END};
#undef S

static const mn_port plain[] = {{"tokens", MN_I32, "BT", false, "token ids"}, {0}};
static const mn_port with_evidence[] = {{"tokens", MN_I32, "BT", false, "token ids"},
                                        {"evidence", MN_I32, "BT", MN_PORT_TAUGHT,
                                         "where in the row what is asked for at a token was said, or -1: what look-ups are taught by"},
                                        {0}};

/* The base reads a segment, the tokens before it and two prompts as one stream: it must have room for them. */
static mn_status check_room(const mn_model *m, const mn_value *map, const char *where) {
  const hmt_config *c = m->own;
  mn_graph *g = mn_graph_new();
  mn_scope *s = g ? mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32}, 1) : NULL;
  if (s) mn_model_declare(s, m->base);
  mn_status status = !g || !s ? MN_ERR_MEMORY : mn_graph_status(g);
  int64_t n = c->segment + c->sensory + 2;
  if (status == MN_OK) {
    mn_limit limit = mn_scope_limit_of(s);
    if (limit.tokens < n)
      status =
          mn_config_fail(map, where, "segment",
                         "makes %lld vectors of %lld tokens with sensory and two prompts, more than the base holds: "
                         "its %s%s%s is %lld; raise it, or shorten the segment",
                         (long long)n, (long long)c->segment, limit.where, *limit.where ? " " : "", limit.key, (long long)limit.tokens);
  }
  mn_graph_free(g);
  return status;
}

static mn_status check(mn_model *m, const mn_value *map, const char *where) {
  hmt_config *c = m->own;
  MN_TRY(mn_model_parse_base(m, map, where, c->base));
  c->base = NULL;
  if (!c->summary_tokens) c->summary_tokens = (c->segment + 1) / 2;
  if (!c->key_dim) c->key_dim = m->config.d_model;
  if (c->summary_tokens > c->segment)
    return mn_config_fail(map, where, "summary_tokens", "must be at most segment %lld", (long long)c->segment);
  if (c->sensory > c->segment) return mn_config_fail(map, where, "sensory", "must be at most segment %lld", (long long)c->segment);
  static const char *const of_retrieval[] = {"summary_tokens", "key_dim", "query", "cache", "retrieval_loss"};
  for (int i = 0; i < 5 && !c->retrieval; i++)
    if (mn_config_given(map, of_retrieval[i]))
      return mn_config_fail(map, where, of_retrieval[i], "has no effect with retrieval: false; leave it out");
  if (c->retrieval_loss > 0) m->inputs = with_evidence;
  if (!c->retrieval) c->cache = c->summary_tokens = 1; /* as little as can be: nothing else is read */
  return check_room(m, map, where);
}

static mn_status spell(mn_arena *arena, const mn_model *m, void *own) {
  ((hmt_config *)own)->base = mn_model_to_value(arena, m->base);
  return ((hmt_config *)own)->base ? MN_OK : MN_ERR_MEMORY;
}

static const char *base_path(mn_scope *s) { return mn_arena_format(mn_scope_graph(s)->arena, "%sbase", mn_scope_path(s)); }

/* BBM: vectors x [B,n,D] -> [B,n,D] in the compute type. Always the same parameters, never a state. */
static mn_tensor *run_base(mn_scope *s, const mn_model *m, const char *call, mn_tensor *x) {
  mn_scope *in = mn_scope_call(s, call, (mn_call_options){.params = base_path(s), .fresh = true});
  return mn_decoder_run(in, m->base, x);
}

/* The same for a segment that comes in steps: each goes on where the last one stopped. begins: bool [B], rows whose segment begins
 * here, or NULL: this is not its first step; length: i32 [B], or NULL: all of x counts. */
static mn_tensor *run_step(mn_scope *s, const mn_model *m, mn_tensor *begins, mn_tensor *length, mn_tensor *x) {
  const hmt_config *c = m->own;
  mn_call_options how = {.params = base_path(s), .reset = begins, .length = length, .again = !begins};
  how.longest = c->segment + c->sensory + 2;
  mn_scope *in = mn_scope_call(s, "segment", how);
  return mn_decoder_run(in, m->base, x);
}

static mn_tensor *embedded(mn_scope *s, const mn_model *m, mn_tensor *tokens) { /* i32 [B,n] -> [B,n,D], exact */
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *e = mn_take(g, mn_model_embedding(mn_scope_in(s, "base"), m->base), tokens, 0);
  return mn_model_scaled(s, m->base, mn_cast(g, e, mn_scope_exact(s)));
}

static mn_tensor *learned(mn_scope *s, const mn_model *m, const char *name, const char *help, int64_t B) { /* [B,1,D] */
  mn_graph *g = mn_scope_graph(s);
  int64_t D = m->config.d_model;
  mn_tensor *p = mn_param(s, name, MN_SHAPE(D), MN_NORMAL(m->base->config.init_std), MN_PARAM_NO_DECAY, help);
  return mn_expand(g, mn_reshape(g, mn_cast(g, p, mn_scope_exact(s)), MN_SHAPE(1, 1, D)), MN_SHAPE(B, 1, D));
}

/* Where a row stands: its place in the segment, the segment's number, whether it is the first. Each of B. */
typedef struct place {
  mn_tensor *phase, *segment, *first;
} place;

static place place_of(mn_scope *s, const hmt_config *c, int64_t B) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *at = mn_scope_position(s), *L = mn_scalar(g, MN_I32, (double)c->segment);
  if (!at) at = mn_full(g, MN_I32, MN_SHAPE(B), 0);
  place p = {.phase = mn_mod(g, at, L), .segment = mn_div(g, at, L)};
  p.first = mn_eq(g, p.segment, mn_scalar(g, MN_I32, 0));
  return p;
}

/* What is remembered from segment to segment. */
typedef struct memory {
  mn_tensor *cache;  /* [B,N,D], exact: the memory of segment n in slot n mod N                  */
  mn_tensor *recent; /* i32 [B,max(j,k)]: the last tokens; at a segment's start of the one before */
} memory;

static memory memory_of(mn_scope *s, const mn_model *m, int64_t B) {
  const hmt_config *c = m->own;
  int64_t kept = c->sensory > c->summary_tokens ? c->sensory : c->summary_tokens;
  memory x;
  x.cache = mn_state(s, "memory", mn_scope_exact(s), MN_SHAPE(B, c->cache, m->config.d_model), NULL, "what the last segments left");
  x.recent = mn_state(s, "recent", MN_I32, MN_SHAPE(B, kept), NULL, "the last tokens");
  return x;
}

static mn_tensor *prompt_of(mn_scope *s, const mn_model *m, int64_t B) { /* P_n [B,1,D] of the segment that is being read */
  return mn_state(s, "prompt", mn_scope_exact(s), MN_SHAPE(B, 1, m->config.d_model), NULL, "what stands at both ends of the segment");
}

/* How well each memory fits the query q [B,1,1,d_h]: [B,N], exact; k [B,N,1,d_h], k_pos i32 [B,N], -1 for none. */
static mn_tensor *scores(mn_scope *s, const hmt_config *c, mn_tensor *q, mn_tensor *k, mn_tensor *k_pos) {
  mn_graph *g = mn_scope_graph(s);
  int64_t B = mn_dim(k, 0), N = c->cache, H = c->key_dim;
  mn_dtype exact = mn_scope_exact(s);
  mn_tensor *score = mn_matmul_as(g, mn_reshape(g, k, MN_SHAPE(B, N, H)), mn_reshape(g, q, MN_SHAPE(B, H, 1)), exact);
  score = mn_mul_scalar(g, mn_reshape(g, score, MN_SHAPE(B, N)), 1 / sqrt((double)H));
  mn_tensor *there = mn_le(g, mn_scalar(g, MN_I32, 0), k_pos);
  return mn_select(g, there, score, mn_full(g, exact, MN_SHAPE(B, N), -1e30));
}

/* The memory of the highest score, in segments back: f32 [B,1]. */
static mn_tensor *distance(mn_scope *s, const hmt_config *c, mn_tensor *score, const place *p) {
  mn_graph *g = mn_scope_graph(s);
  int64_t B = mn_dim(score, 0), N = c->cache;
  mn_tensor *slot = mn_argmax(g, score), *size = mn_scalar(g, MN_I32, (double)N); /* the latest segment before this in that slot: */
  mn_tensor *back = mn_add_scalar(g, mn_mod(g, mn_sub(g, mn_add_scalar(g, p->segment, -1), slot), size), 1);
  back = mn_select(g, p->first, mn_scalar(g, MN_I32, 0), back);
  return mn_reshape(g, mn_cast(g, back, MN_F32), MN_SHAPE(B, 1));
}

/* What a segment's look-up should have found: segments i32 [B,n], -1 for none, and how much each counts [B,n]. */
typedef struct lesson {
  mn_tensor *segment, *weight;
} lesson;

/* -sum weight log softmax(score) at the segments that the lesson names, of those that are remembered. */
static void teach(mn_scope *s, const hmt_config *c, mn_tensor *score, mn_tensor *k_pos, const lesson *l) {
  mn_graph *g = mn_scope_graph(s);
  int64_t B = mn_dim(score, 0), N = c->cache, n = mn_dim(l->segment, 1);
  mn_dtype exact = mn_type(score);
  mn_tensor *held = mn_reshape(g, k_pos, MN_SHAPE(B, 1, N)), *named = mn_reshape(g, l->segment, MN_SHAPE(B, n, 1));
  mn_tensor *hit = mn_and(g, mn_eq(g, held, named), mn_le(g, mn_scalar(g, MN_I32, 0), named));
  mn_tensor *weight = mn_mul(g, mn_cast(g, hit, exact), mn_reshape(g, l->weight, MN_SHAPE(B, n, 1)));
  weight = mn_reshape(g, mn_sum(g, weight, MN_AXIS(1)), MN_SHAPE(B, N));
  mn_tensor *top = mn_stop_gradient(g, mn_max(g, score, MN_AXIS(1))), *all = mn_sum(g, mn_exp(g, mn_sub(g, score, top)), MN_AXIS(1));
  mn_tensor *surprise = mn_sub(g, mn_add(g, mn_log(g, all), top), score);
  mn_loss(s, "retrieval", mn_reshape(g, mn_sum(g, mn_mul(g, weight, surprise), MN_ALL_AXES), (mn_shape){0}), c->retrieval_loss);
}

/* What is found in the cache for the first `have` of tokens i32 [B,j]: [B,1,D], and how far back it was found, [B,1]. */
static mn_tensor *looked_up(mn_scope *s, const mn_model *m, mn_tensor *cache, mn_tensor *tokens, int64_t have, const place *p,
                            const lesson *taught, mn_tensor **back) {
  const hmt_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  mn_init init = {MN_INIT_UNIFORM, 1 / sqrt((double)m->config.d_model), 0};
  int64_t B = mn_dim(cache, 0), N = c->cache, D = m->config.d_model, j = mn_dim(tokens, 1);
  mn_tensor *T = learned(s, m, "summary_prompt", "T, at both ends of what is summed up [D]", B);
  mn_tensor *e = embedded(s, m, tokens), *parts[] = {T, mn_slice(g, e, 1, 0, have), T, NULL};
  if (have < j) parts[3] = mn_slice(g, e, 1, have, j - have); /* behind the second T, which does not see it */
  mn_tensor *sum = run_base(s, m, "summary", mn_concat(g, have < j ? 4 : 3, parts, 1));
  sum = mn_slice(g, sum, 1, have + 1, 1); /* [B,1,D] */
  mn_tensor *rows = mn_cast(g, cache, mn_scope_compute(s));
  mn_tensor *q = mn_reshape(g, mn_linear(s, "q_proj", sum, c->key_dim, MN_NO_BIAS, init), MN_SHAPE(B, 1, 1, c->key_dim));
  mn_tensor *k = mn_reshape(g, mn_linear(s, "k_proj", rows, c->key_dim, MN_NO_BIAS, init), MN_SHAPE(B, N, 1, c->key_dim));
  mn_tensor *k_pos = mn_key_positions(g, p->segment, N), *q_pos = mn_full(g, MN_I32, MN_SHAPE(B), 0);
  mn_attention_attr attr = {.scale = 1 / sqrt((double)c->key_dim)};
  mn_tensor *found = mn_attention(g, q, k, mn_reshape(g, rows, MN_SHAPE(B, N, 1, D)), q_pos, k_pos, NULL, attr, NULL);
  mn_tensor *score = scores(s, c, q, k, k_pos);
  *back = distance(s, c, score, p);
  if (taught) teach(s, c, score, k_pos, taught);
  return mn_cast(g, mn_reshape(g, found, MN_SHAPE(B, 1, D)), mn_scope_exact(s));
}

static mn_tensor *last_memory(mn_scope *s, const hmt_config *c, mn_tensor *cache, const place *p) { /* M_{n-1} [B,1,D] */
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *slot = mn_mod(g, mn_add_scalar(g, p->segment, -1), mn_scalar(g, MN_I32, (double)c->cache));
  return mn_take(g, cache, mn_reshape(g, slot, MN_SHAPE(mn_dim(slot, 0), 1)), 1);
}

/* P_n [B,1,D] from what is asked for, the first `have` of i32 [B,j]; *back [B,1] as above, 0 where nothing is looked up. */
static mn_tensor *recalled(mn_scope *s, const mn_model *m, mn_tensor *cache, mn_tensor *asked, int64_t have, const place *p,
                           const lesson *taught, mn_tensor **back) {
  const hmt_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  int64_t B = mn_dim(cache, 0);
  *back = mn_full(g, MN_F32, MN_SHAPE(B, 1), 0);
  mn_tensor *found = c->retrieval ? looked_up(s, m, cache, asked, have, p, taught, back) : last_memory(s, c, cache, p);
  mn_tensor *first = learned(s, m, "first_prompt", "P of a stream's first segment [D]", B);
  return mn_select(g, mn_reshape(g, p->first, MN_SHAPE(B, 1, 1)), first, found);
}

static mn_tensor *last_of(mn_scope *s, mn_tensor *recent, int64_t n) { /* the last n of recent [B,kept] */
  return mn_slice(mn_scope_graph(s), recent, 1, mn_dim(recent, 1) - n, n);
}

/* `recalled` [B,n]: at the first token of a segment, how many segments back the memory lies that was weighed most; else 0. */
static void report(mn_scope *s, mn_tensor *back, int64_t n) {
  mn_graph *g = mn_scope_graph(s);
  if (n > 1) back = mn_concat(g, 2, (mn_tensor *[]){back, mn_full(g, MN_F32, MN_SHAPE(mn_dim(back, 0), n - 1), 0)}, 1);
  mn_report(s, "recalled", back);
}

/* M_n [B,1,D] of the rows that are `whole`, bool [B], goes into the cache; in others nothing changes. */
static mn_tensor *remembered(mn_scope *s, const hmt_config *c, mn_tensor *cache, mn_tensor *left, mn_tensor *whole, const place *p) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *slot = mn_mod(g, p->segment, mn_scalar(g, MN_I32, (double)c->cache));
  if (whole) slot = mn_select(g, whole, slot, mn_scalar(g, MN_I32, -1));
  left = mn_cast(g, left, mn_scope_exact(s));
  return mn_put(g, cache, mn_reshape(g, slot, MN_SHAPE(mn_dim(slot, 0), 1)), left, 1, MN_PUT_SET);
}

/* ---- a segment in one call ---- */
/* [P; k tokens; segment; P], or in a row's first segment [P; segment; P] and something behind it that nothing sees. */
static mn_tensor *arranged(mn_scope *s, const hmt_config *c, mn_tensor *prompt, mn_tensor *sensory, mn_tensor *segment, const place *p) {
  mn_graph *g = mn_scope_graph(s);
  int64_t k = c->sensory, n = mn_dim(segment, 1), B = mn_dim(segment, 0);
  if (!k) return mn_concat(g, 3, (mn_tensor *[]){prompt, segment, prompt}, 1);
  mn_tensor *all = mn_concat(g, 4, (mn_tensor *[]){prompt, sensory, segment, prompt}, 1);
  mn_tensor *i = mn_iota(g, MN_I32, MN_SHAPE(1, k + n + 2), 1), *zero = mn_scalar(g, MN_I32, 0);
  mn_tensor *shift = mn_select(g, p->first, mn_scalar(g, MN_I32, (double)k), zero);
  mn_tensor *at = mn_minimum(g, mn_add(g, i, mn_reshape(g, shift, MN_SHAPE(B, 1))), mn_scalar(g, MN_I32, (double)(k + n + 1)));
  return mn_take(g, all, mn_select(g, mn_eq(g, i, zero), zero, at), 1);
}

/* n <= L tokens i32 [B,n] from the start of a segment; fewer than L only where nothing follows them. Of a loop's pieces the last is
 * filled up, as what its parts report must be of one shape. */
static mn_tensor *whole_segment(mn_scope *s, const mn_model *m, mn_tensor *tokens, const lesson *taught) {
  const hmt_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  int64_t B = mn_dim(tokens, 0), n = mn_dim(tokens, 1), L = c->segment, k = c->sensory, j = c->summary_tokens, full = n;
  memory x = memory_of(s, m, B);
  place p = place_of(s, c, B);
  mn_tensor *filled = tokens;
  if (n < L && (mn_scope_is_stream(s) || n < j)) {
    full = L;
    filled = mn_concat(g, 2, (mn_tensor *[]){tokens, mn_full(g, MN_I32, MN_SHAPE(B, L - n), 0)}, 1);
  }
  bool head = c->query == HEAD;
  mn_tensor *asked = head ? mn_slice(g, filled, 1, 0, j) : last_of(s, x.recent, j), *back;
  mn_tensor *prompt = recalled(s, m, x.cache, asked, head && n < j ? n : j, &p, taught, &back);
  mn_tensor *sensory = k ? embedded(s, m, last_of(s, x.recent, k)) : NULL;
  mn_tensor *y = run_base(s, m, "segment", arranged(s, c, prompt, sensory, embedded(s, m, filled), &p));
  mn_tensor *offset = mn_select(g, p.first, mn_scalar(g, MN_I32, 1), mn_scalar(g, MN_I32, (double)(k + 1))); /* of the tokens in y */
  offset = mn_reshape(g, offset, MN_SHAPE(B, 1));
  mn_state_set(s, "memory", remembered(s, c, x.cache, mn_take(g, y, mn_add_scalar(g, offset, (double)full), 1), NULL, &p));
  mn_state_set(s, "recent", mn_scope_last(s, x.recent, tokens));
  report(s, back, n);
  return mn_take(g, y, mn_add(g, offset, mn_iota(g, MN_I32, MN_SHAPE(1, n), 1)), 1);
}

/* ---- a segment in steps ---- */
/* Rows whose segment begins, in[0] bool [B]: their prompt, and [P_n; k tokens] into the base. Gives how far back [B,1]. */
static void begin(mn_scope *s, void *ctx, mn_tensor *const *in, mn_tensor **out) {
  const mn_model *m = ctx;
  const hmt_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *begins = in[0], *one = mn_scalar(g, MN_I32, 1);
  int64_t B = mn_dim(begins, 0), k = c->sensory;
  memory x = memory_of(s, m, B);
  place p = place_of(s, c, B);
  mn_tensor *prompt = recalled(s, m, x.cache, last_of(s, x.recent, c->summary_tokens), c->summary_tokens, &p, NULL, &out[0]);
  mn_tensor *head[] = {prompt, k ? embedded(s, m, last_of(s, x.recent, k)) : NULL};
  mn_tensor *length = mn_select(g, p.first, one, mn_scalar(g, MN_I32, (double)(k + 1)));
  length = mn_select(g, begins, length, mn_scalar(g, MN_I32, 0));
  run_step(s, m, begins, length, k ? mn_concat(g, 2, head, 1) : prompt);
  mn_state_set(s, "prompt", mn_select(g, mn_reshape(g, begins, MN_SHAPE(B, 1, 1)), prompt, prompt_of(s, m, B)));
  out[0] = mn_select(g, mn_reshape(g, begins, MN_SHAPE(B, 1)), out[0], mn_full(g, MN_F32, MN_SHAPE(B, 1), 0));
}

/* Rows whose segment ends, in[0] bool [B]: P_n into the base, and M_n into the cache. */
static void end(mn_scope *s, void *ctx, mn_tensor *const *in, mn_tensor **out) {
  const mn_model *m = ctx;
  const hmt_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  int64_t B = mn_dim(in[0], 0);
  memory x = memory_of(s, m, B);
  place p = place_of(s, c, B);
  mn_tensor *length = mn_cast(g, in[0], MN_I32), *left = run_step(s, m, NULL, length, prompt_of(s, m, B));
  (void)out;
  mn_state_set(s, "memory", remembered(s, c, x.cache, left, in[0], &p));
}

static mn_tensor *any(mn_graph *g, mn_tensor *rows) { /* bool [B] -> i32 [] */
  return mn_reshape(g, mn_max(g, mn_cast(g, rows, MN_I32), MN_ALL_AXES), (mn_shape){0});
}

/* n tokens i32 [B,n] that lie in one segment, which has begun and goes on. */
static mn_tensor *part(mn_scope *s, const mn_model *m, mn_tensor *tokens) {
  const hmt_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  int64_t B = mn_dim(tokens, 0), n = mn_dim(tokens, 1);
  memory_of(s, m, B);
  prompt_of(s, m, B);
  place p = place_of(s, c, B);
  mn_tensor *length = mn_scope_length(s), *zero = mn_scalar(g, MN_I32, 0), *nothing = mn_full(g, MN_F32, MN_SHAPE(B, 1), 0), *back;
  mn_tensor *begins = mn_eq(g, p.phase, zero), *after = length ? mn_add(g, p.phase, length) : mn_add_scalar(g, p.phase, (double)n);
  mn_tensor *ends = mn_eq(g, after, mn_scalar(g, MN_I32, (double)c->segment));
  if (length) begins = mn_and(g, begins, mn_lt(g, zero, length)); /* a row of padding begins nothing */
  if (length) ends = mn_and(g, ends, mn_lt(g, zero, length));
  mn_scope_when(s, any(g, begins), begin, (void *)m, 1, &begins, 1, &nothing, &back);
  mn_tensor *y = run_step(s, m, NULL, length, embedded(s, m, tokens));
  mn_scope_when(s, any(g, ends), end, (void *)m, 1, &ends, 0, NULL, NULL);
  mn_state_set(s, "recent", mn_scope_last(s, memory_of(s, m, B).recent, tokens));
  report(s, back, n);
  return y;
}

typedef struct reading {
  const mn_model *m;
  bool goes_on; /* tokens may follow that belong to the same stream */
  bool taught;  /* a lesson comes beside the tokens */
} reading;

static void piece(mn_scope *s, void *ctx, mn_tensor *const *in, mn_tensor **out) {
  const reading *r = ctx;
  const mn_model *m = r->m;
  const hmt_config *c = m->own;
  bool begins = mn_scope_aligned(s, c->segment), whole = begins && mn_dim(in[0], 1) == c->segment && !mn_scope_length(s);
  if (r->goes_on) { /* other forms of this stream have these states, too */
    mn_graph *g = mn_scope_graph(s);
    int64_t B = mn_dim(in[0], 0);
    mn_tensor *all = mn_full(g, MN_BOOL, MN_SHAPE(B), 1);
    memory_of(s, m, B);
    prompt_of(s, m, B);
    mn_scope_foresee(s, begin, (void *)m, 1, &all, 1);
  }
  if (r->taught && !whole && (!begins || r->goes_on))
    mn_graph_fault(mn_scope_graph(s), MN_ERR_CONFIG, "retrieval_loss teaches whole segments, and here one of %lld tokens comes in pieces",
                   (long long)c->segment);
  out[0] = whole || (begins && !r->goes_on) ? whole_segment(s, m, in[0], r->taught ? &(lesson){in[1], in[2]} : NULL) : part(s, m, in[0]);
}

/* The segments that evidence i32 [B,T] lies in; each counts so that all that is asked for in a batch counts one. */
static lesson lesson_of(mn_scope *s, const hmt_config *c, mn_tensor *evidence) {
  mn_graph *g = mn_scope_graph(s);
  int64_t B = mn_dim(evidence, 0);
  mn_tensor *start = mn_scope_position(s), *at = evidence, *none = mn_scalar(g, MN_I32, -1);
  if (start) at = mn_add(g, at, mn_reshape(g, start, MN_SHAPE(B, 1)));
  mn_tensor *asked = mn_lt(g, none, evidence), *weight = mn_cast(g, asked, mn_scope_exact(s));
  mn_tensor *number = mn_maximum(g, mn_sum(g, weight, MN_ALL_AXES), mn_scalar(g, mn_type(weight), 1));
  at = mn_select(g, asked, mn_div(g, at, mn_scalar(g, MN_I32, (double)c->segment)), none);
  return (lesson){at, mn_div(g, weight, number)};
}

static void build(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out) {
  const hmt_config *c = m->own;
  mn_tensor *tokens = mn_io_get(in, "tokens"), *evidence = mn_io_get(in, "evidence"), *hidden = NULL;
  const lesson taught = evidence ? lesson_of(s, c, evidence) : (lesson){0};
  mn_tensor *read[] = {tokens, taught.segment, taught.weight};
  reading r = {m, mn_scope_is_stream(s), evidence != NULL};
  int64_t length = c->segment; /* pieces never cross the end of a segment */
  while (length > 1 && (c->segment % length || !mn_scope_aligned(s, length))) length--;
  mn_loop how = {.length = length, .stop_every = c->truncate * (c->segment / length)};
  mn_scope_loop_n(s, how, piece, &r, evidence ? 3 : 1, read, 1, &hidden);
  mn_scope_advance(s, mn_dim(tokens, 1));
  mn_io_put(out, "hidden", hidden);
  mn_io_put(out, "head", mn_model_head(mn_scope_in(s, "base"), m->base));
}

static const char *not_causal(const mn_model *m) {
  const hmt_config *c = m->own;
  return c->retrieval && c->query == HEAD ? "its prompt is made from a segment's first tokens before they are said (set query: prev_tail)"
                                          : NULL;
}

static const mn_port outputs[] = {
    {"hidden", MN_F32, "BTD", false, "after the base's last norm, in the compute type: what the head projects"},
    {"head", MN_F32, "VD", false, "the projection to the vocabulary"},
    {0}};

const mn_model_def mn_model_hmt = {
    .name = "hmt",
    .summary = "a decoder that reads by segments, each of which leaves a vector that later ones look up",
    .paper = "He et al. 2024, arXiv 2405.06067",
    .trunk = MN_TRUNK_NONE,
    .config_size = sizeof(hmt_config),
    .fields = fields,
    .inputs = plain,
    .outputs = outputs,
    .check = check,
    .spell = spell,
    .build = build,
    .not_causal = not_causal,
};
