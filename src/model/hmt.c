/* hmt.c - Hierarchical Memory Transformer (He et al. 2024, arXiv 2405.06067): a decoder that reads a stream by segments of L tokens.
 * Each segment leaves one vector in a cache of the last N; before a segment, one look-up there gives a prompt that stands at both ends
 * of it, beside the last k tokens of the segment before. BBM is the base over vectors, up to its last norm, from position 0 each time.
 *     S_n = BBM([T; E[j tokens]; T]) at the end          the first j of segment n (query: head), or the last j of n-1 (prev_tail)
 *     P_n = softmax(W_q S_n (W_k M)^T / sqrt(d_h)) M     M = (M_{max(0,n-N)} .. M_{n-1}); P_0 = P_init
 *     [.., H_n, M_n] = BBM([P_n; E[last k of n-1]; E[segment n]; P_n])          the first segment has no k tokens before it
 * Without retrieval P_n = M_{n-1}: a recurrent memory transformer, which is also what one slot is (N = 1).
 *
 * With `head` the prompt knows the segment's first j tokens before they are said: the paper's way, and no stream. With `prev_tail`
 * nothing is known early. A piece that ends inside a segment is read with all that the segment has so far. */
#include "model/model.h"

#include <math.h>
#include <string.h>

typedef struct hmt_config {
  const mn_value *base; /* while parsing */
  int64_t segment, sensory, summary_tokens, cache, key_dim;
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
    MN_FIELD_END};
#undef S

static mn_status check(mn_model *m, const mn_value *map, const char *where) {
  hmt_config *c = m->own;
  if (!c->base || c->base->kind != MN_MAP)
    return mn_config_fail(map, where, "base", "must be a map: {d_model: 64, layers: 2, block: {...}}");
  MN_TRY(mn_model_parse(c->base, NULL, m->config.vocab_size, &m->base));
  c->base = NULL;
  if (strcmp(m->base->def->name, "decoder") != 0)
    return mn_config_fail(map, where, "base", "must be a decoder, but is of type %s", m->base->def->name);
  const char *why = mn_stack_not_causal(&m->base->stack);
  if (why) return mn_config_fail(map, where, "base", "must be causal: %s", why);
  m->config.vocab_size = m->base->config.vocab_size;
  m->config.d_model = m->base->config.d_model;
  if (!c->summary_tokens) c->summary_tokens = (c->segment + 1) / 2;
  if (!c->key_dim) c->key_dim = m->config.d_model;
  if (c->summary_tokens > c->segment)
    return mn_config_fail(map, where, "summary_tokens", "must be at most segment %lld", (long long)c->segment);
  if (c->sensory > c->segment) return mn_config_fail(map, where, "sensory", "must be at most segment %lld", (long long)c->segment);
  static const char *const of_retrieval[] = {"summary_tokens", "key_dim", "query", "cache"};
  for (int i = 0; i < 4 && !c->retrieval; i++)
    if (mn_config_given(map, of_retrieval[i]))
      return mn_config_fail(map, where, of_retrieval[i], "has no effect with retrieval: false; leave it out");
  return MN_OK;
}

static mn_status spell(mn_arena *arena, const mn_model *m, void *own) {
  ((hmt_config *)own)->base = mn_model_to_value(arena, m->base);
  return ((hmt_config *)own)->base ? MN_OK : MN_ERR_MEMORY;
}

/* BBM: vectors x [B,n,D] -> [B,n,D] in the compute type. Always the same parameters, never a state. */
static mn_tensor *run_base(mn_scope *s, const mn_model *m, const char *call, mn_tensor *x) {
  const char *params = mn_arena_format(mn_scope_graph(s)->arena, "%sbase", mn_scope_path(s));
  mn_scope *in = mn_scope_call(s, call, (mn_call_options){.params = params, .fresh = true});
  return x ? mn_decoder_run(in, m->base, x) : NULL;
}

static mn_tensor *embedded(mn_scope *s, const mn_model *m, mn_tensor *tokens) { /* i32 [B,n] -> [B,n,D], exact */
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *e = mn_take(g, mn_capture(g, mn_model_embedding(mn_scope_in(s, "base"), m->base)), tokens, 0);
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
  at = at ? mn_capture(g, at) : mn_full(g, MN_I32, MN_SHAPE(B), 0);
  place p = {.phase = mn_mod(g, at, L), .segment = mn_div(g, at, L)};
  p.first = mn_eq(g, p.segment, mn_scalar(g, MN_I32, 0));
  return p;
}

/* What is found in the cache [B,N,D] for the first `have` of tokens i32 [B,j]: [B,1,D]. */
static mn_tensor *looked_up(mn_scope *s, const mn_model *m, mn_tensor *cache, mn_tensor *tokens, int64_t have, const place *p) {
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
  mn_tensor *q = mn_reshape(g, mn_linear(s, "q_proj", sum, c->key_dim, false, init), MN_SHAPE(B, 1, 1, c->key_dim));
  mn_tensor *k = mn_reshape(g, mn_linear(s, "k_proj", rows, c->key_dim, false, init), MN_SHAPE(B, N, 1, c->key_dim));
  mn_tensor *k_pos = mn_key_positions(g, p->segment, N), *q_pos = mn_full(g, MN_I32, MN_SHAPE(B), 0);
  mn_attention_attr attr = {.scale = 1 / sqrt((double)c->key_dim)};
  mn_tensor *found = mn_attention(g, q, k, mn_reshape(g, rows, MN_SHAPE(B, N, 1, D)), q_pos, k_pos, NULL, attr, NULL);
  return mn_cast(g, mn_reshape(g, found, MN_SHAPE(B, 1, D)), mn_scope_exact(s));
}

static mn_tensor *last_memory(mn_scope *s, const hmt_config *c, mn_tensor *cache, const place *p) { /* M_{n-1} [B,1,D] */
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *slot = mn_mod(g, mn_add_scalar(g, p->segment, -1), mn_scalar(g, MN_I32, (double)c->cache));
  return mn_take(g, cache, mn_reshape(g, slot, MN_SHAPE(mn_dim(slot, 0), 1)), 1);
}

/* [P; k tokens; segment; P], or in a row's first segment [P; segment; P] and something behind it that nothing sees. */
static mn_tensor *arranged(mn_scope *s, const hmt_config *c, mn_tensor *prompt, mn_tensor *sensory, mn_tensor *segment, const place *p) {
  mn_graph *g = mn_scope_graph(s);
  int64_t k = c->sensory, L = c->segment, B = mn_dim(segment, 0);
  if (!k) return mn_concat(g, 3, (mn_tensor *[]){prompt, segment, prompt}, 1);
  mn_tensor *all = mn_concat(g, 4, (mn_tensor *[]){prompt, sensory, segment, prompt}, 1);
  mn_tensor *i = mn_iota(g, MN_I32, MN_SHAPE(1, k + L + 2), 1), *zero = mn_scalar(g, MN_I32, 0);
  mn_tensor *shift = mn_select(g, p->first, mn_scalar(g, MN_I32, (double)k), zero);
  mn_tensor *at = mn_minimum(g, mn_add(g, i, mn_reshape(g, shift, MN_SHAPE(B, 1))), mn_scalar(g, MN_I32, (double)(k + L + 1)));
  return mn_take(g, all, mn_select(g, mn_eq(g, i, zero), zero, at), 1);
}

/* n tokens i32 [B,n] that lie in one segment -> hidden [B,n,D], compute type. */
static void piece(mn_scope *s, void *ctx, mn_tensor *const *in, mn_tensor **out) {
  const mn_model *m = ctx;
  const hmt_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  mn_dtype exact = mn_scope_exact(s);
  int64_t B = mn_dim(in[0], 0), n = mn_dim(in[0], 1), L = c->segment, k = c->sensory, j = c->summary_tokens, N = c->cache;
  int64_t kept = k > j ? k : j, D = m->config.d_model;
  mn_tensor *cache = mn_state(s, "memory", exact, MN_SHAPE(B, N, D), NULL, "what the last segments left");
  mn_tensor *tokens = mn_state(s, "tokens", MN_I32, MN_SHAPE(B, L), NULL, "the segment so far");
  mn_tensor *before = mn_state(s, "before", MN_I32, MN_SHAPE(B, kept), NULL, "the last tokens of the segment before");
  place p = place_of(s, c, B);
  mn_tensor *at = mn_add(g, mn_reshape(g, p.phase, MN_SHAPE(B, 1)), mn_iota(g, MN_I32, MN_SHAPE(1, n), 1)); /* [B,n] */
  mn_tensor *live = mn_scope_live(s, n), *length = mn_scope_length(s);
  tokens = mn_put(g, tokens, live ? mn_select(g, live, at, mn_scalar(g, MN_I32, -1)) : at, in[0], 1, false);

  mn_tensor *asked = c->query == HEAD ? mn_slice(g, tokens, 1, 0, j) : mn_slice(g, before, 1, kept - j, j);
  mn_tensor *prompt = c->retrieval ? looked_up(s, m, cache, asked, c->query == HEAD && n < j ? n : j, &p) : last_memory(s, c, cache, &p);
  prompt = mn_select(g, mn_reshape(g, p.first, MN_SHAPE(B, 1, 1)), learned(s, m, "first_prompt", "P of a stream's first segment [D]", B),
                     prompt);
  mn_tensor *sensory = k ? embedded(s, m, mn_slice(g, before, 1, kept - k, k)) : NULL;
  mn_tensor *y = run_base(s, m, "segment", arranged(s, c, prompt, sensory, embedded(s, m, tokens), &p));

  mn_tensor *offset = mn_select(g, p.first, mn_scalar(g, MN_I32, 1), mn_scalar(g, MN_I32, (double)(k + 1))); /* of the segment in y */
  offset = mn_reshape(g, offset, MN_SHAPE(B, 1));
  out[0] = mn_take(g, y, mn_add(g, offset, at), 1);
  mn_tensor *left = mn_cast(g, mn_take(g, y, mn_add_scalar(g, offset, (double)L), 1), exact); /* M_n [B,1,D] */
  mn_tensor *end = length ? mn_add(g, p.phase, length) : mn_add_scalar(g, p.phase, (double)n), *size = mn_scalar(g, MN_I32, (double)L);
  mn_tensor *whole = mn_le(g, size, end); /* the segment is complete: it leaves its memory */
  mn_tensor *slot = mn_select(g, whole, mn_mod(g, p.segment, mn_scalar(g, MN_I32, (double)N)), mn_scalar(g, MN_I32, -1));
  mn_state_set(s, "memory", mn_put(g, cache, mn_reshape(g, slot, MN_SHAPE(B, 1)), left, 1, false));
  mn_state_set(s, "tokens", tokens);
  mn_state_set(s, "before", mn_select(g, mn_reshape(g, whole, MN_SHAPE(B, 1)), mn_slice(g, tokens, 1, L - kept, kept), before));
}

static void build(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out) {
  const hmt_config *c = m->own;
  mn_tensor *tokens = mn_io_get(in, "tokens"), *hidden = NULL;
  int64_t length = c->segment; /* pieces never cross the end of a segment */
  while (length > 1 && (c->segment % length || !mn_scope_aligned(s, length))) length--;
  mn_scope_loop_n(s, (mn_loop){.length = length}, piece, (void *)m, 1, &tokens, 1, &hidden);
  mn_scope_advance(s, mn_dim(tokens, 1));
  mn_io_put(out, "hidden", hidden);
  mn_io_put(out, "head", mn_model_head(mn_scope_in(s, "base"), m->base));
}

static const char *not_causal(const mn_model *m) {
  const hmt_config *c = m->own;
  return c->retrieval && c->query == HEAD ? "its prompt is made from a segment's first tokens before they are said (set query: prev_tail)"
                                          : NULL;
}

static const mn_port inputs[] = {{"tokens", MN_I32, "BT", false, "token ids"}, {0}};
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
    .inputs = inputs,
    .outputs = outputs,
    .check = check,
    .spell = spell,
    .build = build,
    .not_causal = not_causal,
};
