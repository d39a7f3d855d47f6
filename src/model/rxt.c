/* rxt.c - Reactive Transformer (Filipek 2025, arXiv 2510.03561): a decoder answers in turns, of which only the present one is in its
 * context; what came before it stands in a memory of S slots a layer, which the decoder looks at and does not change. After a turn an
 * encoder reads it and memory attention (nn/memory_attention.h) writes what it found into the slots.
 *     h_n = Norm(blocks_i(E[turn n], cross Norm_i(M_i)))     logits = h_n W^T          queries turned, slots in no order
 *     X_i = the encoder's residual stream after its block i over E[turn n], both ways
 *     M' = write(M, X)                                        every layer from the old M
 * A row of a training is one dialogue: T = n L tokens, turn after turn, each in L places of which `masks` says how many are there. A
 * turn's memory is written when the next begins, so that the loss of turn n reaches the encoder's reading of turn n - 1, and by
 * `truncate` how much further back. M begins as N(0,1), in training other numbers for each row and step, else those of the parameter
 * `initial_memory`. A stream is one turn until it is told that the turn is over (`turn_ends`): then it writes, and begins the next.
 *
 * Given `masked`, the same turns with hidden tokens, decoder and encoder are trained together without memory attention: the decoder
 * looks at what the encoder made of its own turn in place of the memory, and the encoder says what was hidden. */
#include "nn/memory_attention.h"
#include "graph/fused_norm.h"
#include "model/encoder_keys.h"

#include <string.h>

typedef struct rxt_config {
  const mn_value *encoder, *memory; /* while parsing */
  int64_t slots, turn, truncate, group;
  double joint_noise, write_noise;
  int write, gate, gate_act;
  mn_stack stack; /* the encoder's */
  mn_memory_attention_config attention;
  int64_t layers; /* of memory: blocks of the decoder that look at it */
} rxt_config;
#define S rxt_config
static const mn_field fields[] = {
    MN_FIELD_VALUE(S, encoder,
                   "who reads a turn that is over: {layers: 2, block: {mixer: {type: attention, causal: false}}} or {blocks: [...]}"),
    MN_FIELD_VALUE(S, memory, "heads of the attention that writes: {heads: 4, kv_heads: 4, head_dim: 16}"),
    MN_FIELD_INT(S, slots, 256, 1, 1 << 20, "slots S of a layer's memory"),
    MN_FIELD_INT(S, turn, 256, 2, 1 << 20, "tokens L that a turn may have, question and answer", MN_TOKENS),
    MN_FIELD_ENUM(S, write, mn_write_names, MN_WRITE_INTERLAYER, "what slots look at before they ask what was read"),
    MN_FIELD_INT(S, group, 0, 0, 4096, "with grouped: adjacent layers whose mean they look at", MN_SPARSE),
    MN_FIELD_ENUM(S, gate, mn_slot_gate_names, MN_GATE_LINEAR, "how much of the new a slot takes: what that depends on"),
    MN_FIELD_ENUM(S, gate_act, mn_slot_gate_act_names, MN_GATE_SIGMOID, "sigmoid: a mean of new and old; tanh: the sum may grow",
                  MN_SPARSE),
    MN_FIELD_INT(S, truncate, 1, 0, 1 << 20, "gradients through the memory stop at every so many turns' starts; 0: they go through all"),
    MN_FIELD_FLOAT(S, joint_noise, 0.1, 0, 100, "in joint training: of the noise on what the decoder looks at"),
    MN_FIELD_FLOAT(S, write_noise, 0.05, 0, 100, "in training of the memory alone: of the noise on what was read"),
    MN_FIELD_END};
#undef S

static const mn_port inputs[] = {
    {"tokens", MN_I32, "BT", false, "token ids: turns of L places each; of a stream, the next of the present turn"},
    {"masks", MN_I32, "BT", true, "1 where a place of a turn is there, which are its first; 0 where none is; left out: all are"},
    {"masked", MN_I32, "BT", true, "the same turns with hidden tokens: for joint training"},
    {"turn_ends", MN_I32, "B", true, "of a stream: 1 in rows whose turn is over after these tokens"},
    {0}};
static const mn_port outputs[] = {{"hidden", MN_F32, "BTD", false, "after the last norm, in the compute type: what the head projects"},
                                  {"head", MN_F32, "VD", false, "the projection to the vocabulary"},
                                  {"joint_hidden", MN_F32, "BTD", true, "hidden, looking at what the encoder made of `masked`"},
                                  {"masked_hidden", MN_F32, "BTD", true, "what the encoder says of `masked`"},
                                  {"masked_head", MN_F32, "VD", true, "its projection to the vocabulary"},
                                  {"memory_before", MN_F32, "BNMD", true, "the memory that each turn's beginning wrote to"},
                                  {"memory_after", MN_F32, "BNMD", true, "what it wrote"},
                                  {"memory_read", MN_F32, "BNMD", true, "what was read, brought to as many places as there are slots"},
                                  {"memory_written", MN_F32, "BN", true, "1 where something was written; 0: no turn was there before"},
                                  {0}};

/* ---- keys ---- */

/* The decoder reads a turn as one stream: its caches must have room for it. Faults of its mixers are said where a model is made of them. */
static mn_status check_room(const mn_model *m, const mn_stack *decoder, const mn_value *map, const char *where) {
  const rxt_config *c = m->own;
  mn_graph *g = mn_graph_new();
  mn_scope *s = g ? mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32, .carried = true}, 1) : NULL;
  mn_tensor *x = s ? mn_full(g, MN_F32, MN_SHAPE(1, 1, m->config.d_model), 0) : NULL;
  mn_status status = s ? MN_OK : MN_ERR_MEMORY;
  for (int i = 0; s && i < decoder->n; i++)
    mn_mixer_apply(mn_scope_in(mn_scope_in(s, "layers.%d", i), "mixer"), &decoder->blocks[i].mixer, x);
  const mn_limit limit = s ? mn_scope_limit_of(s) : (mn_limit){.tokens = MN_LIMIT_NONE};
  if (limit.tokens < c->turn)
    status =
        mn_config_fail(map, where, "turn", "is %lld tokens, more than the decoder holds: %s of %s is %lld; raise it, or shorten the turn",
                       (long long)c->turn, limit.key, limit.where, (long long)limit.tokens);
  mn_graph_free(g);
  return status;
}

/* A memory for each of the encoder's layers, and for each block of the decoder that looks at one; the decoder sees nothing before it is said. */
static mn_status count_layers(mn_model *m, const mn_value *map, const char *where) {
  rxt_config *c = m->own;
  const mn_model_config *k = &m->config;
  mn_stack decoder;
  MN_TRY(mn_stack_parse(m->arena, map, where,
                        &(mn_stack_config){.source = true,
                                           .turned = true,
                                           .d_model = k->d_model,
                                           .layers = k->layers,
                                           .norm = k->norm,
                                           .norm_eps = k->norm_eps,
                                           .block = k->block,
                                           .blocks = k->blocks},
                        &decoder));
  const char *why = mn_stack_not_causal(&decoder);
  if (why)
    return mn_config_fail(map, where, k->blocks ? "blocks" : "block", "must be causal, so that it can answer token by token: %s", why);
  for (int i = 0; i < decoder.n; i++) c->layers += decoder.blocks[i].cross != NULL;
  if (c->layers == c->stack.n) return check_room(m, &decoder, map, where);
  return mn_config_fail(
      map, where, "encoder",
      "has %d layers, and %lld blocks of the decoder look at a memory: each looks at what one layer wrote, so give as many "
      "(a block without: cross: none)",
      c->stack.n, (long long)c->layers);
}

static mn_status check_write(mn_model *m, const mn_value *map, const char *where) {
  rxt_config *c = m->own;
  const bool grouped = c->write == MN_WRITE_GROUPED;
  if (grouped && (!c->group || c->layers % c->group))
    return mn_config_fail(map, where, "group", "must divide the memory's %lld layers with write: grouped, it is %lld", (long long)c->layers,
                          (long long)c->group);
  if (!grouped && c->group) return mn_config_fail(map, where, "group", "has no effect without write: grouped; leave it out");
  if (c->gate == MN_GATE_NONE && mn_config_given(map, "gate_act"))
    return mn_config_fail(map, where, "gate_act", "has no effect with gate: none; leave it out");
  mn_memory_attention_config *a = &c->attention;
  MN_TRY(mn_cross_parse(m->arena, map, where, "memory", c->memory, m->config.d_model, true, &a->heads));
  a->write = c->write, a->gate = c->gate, a->gate_act = c->gate_act, a->group = c->group;
  a->norm = m->config.norm, a->norm_eps = m->config.norm_eps;
  c->memory = NULL;
  return MN_OK;
}

static mn_status check(mn_model *m, const mn_value *map, const char *where) {
  rxt_config *c = m->own;
  MN_TRY(mn_encoder_parse(m, map, where, c->encoder, &c->stack));
  c->encoder = NULL;
  MN_TRY(count_layers(m, map, where));
  return check_write(m, map, where);
}

static mn_status spell(mn_arena *arena, const mn_model *m, void *own) {
  const rxt_config *c = m->own;
  rxt_config *to = own;
  mn_cross_config heads = c->attention.heads;
  const mn_config_part memory = {mn_cross_fields, &heads};
  to->encoder = mn_encoder_to_value(arena, &c->stack);
  to->memory = mn_config_to_value(arena, &memory, 1);
  return to->encoder && to->memory ? MN_OK : MN_ERR_MEMORY;
}

static int64_t size(const mn_model *m, char axis) {
  const rxt_config *c = m->own;
  return axis == 'V' ? m->config.vocab_size : axis == 'D' ? m->config.d_model : axis == 'M' ? c->layers * c->slots : 0;
}

static int64_t whole(const mn_model *m) { return ((const rxt_config *)m->own)->turn; }

static int64_t ids(const mn_model *m, const mn_port *p) {
  return !strcmp(p->name, "turn_ends") ? 2 : m->config.vocab_size; /* tokens, and tokens of which some are hidden */
}

/* ---- the parts ---- */
/* A call below s that has the model's own parameters, or those below `part`. */
static mn_scope *call(mn_scope *s, const char *name, const char *part, mn_call_options how) {
  const char *path = mn_scope_path(s);
  const size_t n = strlen(path);
  how.params = mn_arena_format(mn_scope_graph(s)->arena, "%.*s%s%s", (int)(n ? n - 1 : 0), path, n && *part ? "." : "", part);
  return mn_scope_call(s, name, how);
}

/* Turns tokens [B,L] -> X_i [B,L,D] exact type, of each layer. */
static mn_tensor **encoded(mn_scope *s, const char *name, const mn_model *m, mn_tensor *tokens, mn_tensor *length) {
  const rxt_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor **x = mn_arena_alloc(g->arena, (size_t)(c->stack.n + 1) * sizeof *x);
  mn_scope *in = call(s, name, "encoder", (mn_call_options){.fresh = true, .length = length, .batch = mn_dim(tokens, 0)});
  mn_tensor *y = mn_cast(g, mn_take(g, mn_model_embedding(s, m), tokens, 0), mn_scope_exact(s));
  y = mn_model_place(in, m, mn_model_scaled(s, m, y));
  for (int i = 0; x && i < c->stack.n; i++) x[i] = y = mn_block_apply(mn_scope_in(in, "layers.%d", i), &c->stack.blocks[i], y, NULL);
  mn_scope_advance(in, mn_dim(tokens, 1));
  return x;
}

/* What the decoder looks at in its layer: slots [B,S,D] as they are read, with a norm. */
static mn_tensor *looked_at(mn_scope *s, const mn_model *m, int layer, mn_tensor *slots) {
  return slots ? mn_norm_layer(mn_scope_in(s, "layers.%d", layer), "memory_norm", (mn_norm_kind)m->config.norm, slots, m->config.norm_eps,
                               mn_scope_compute(s))
               : NULL;
}

static mn_tensor *of_layer(mn_graph *g, mn_tensor *memory, int64_t i) { /* [B,S,D] */
  return mn_reshape(g, mn_slice(g, memory, 1, i, 1), MN_SHAPE(mn_dim(memory, 0), mn_dim(memory, 2), mn_dim(memory, 3)));
}

/* What the blocks look at: of a memory [B,M,S,D], or M tensors [B,S,D] of which `length` (or NULL: all) are there. first: it is what a
 * stream has from the start. */
typedef struct looking {
  mn_tensor *memory, *const *read, *length;
  bool first;
} looking;

/* tokens [B,L] -> h [B,L,D] after the last norm, in the scope of the turn's stream. */
static mn_tensor *decoded(mn_scope *s, const mn_model *m, mn_tensor *tokens, const looking *at) {
  const rxt_config *c = m->own;
  mn_tensor *x = mn_model_embed(s, m, tokens);
  for (int i = 0, k = 0; i < m->stack.n; i++) {
    const mn_block *b = &m->stack.blocks[i];
    mn_cross_source from = {.length = at->length, .most = c->slots, .turned = true};
    if (b->cross) {
      mn_tensor *slots = looked_at(s, m, i, at->read ? at->read[k] : of_layer(mn_scope_graph(s), at->memory, k));
      if (at->first) from.first = slots;
      else from.x = slots;
      k++;
    }
    x = mn_block_apply(mn_scope_in(s, "layers.%d", i), b, x, &(mn_beside){.source = &from});
  }
  mn_scope_advance(s, mn_dim(tokens, 1));
  return mn_model_norm(s, m, x);
}

/* M' where the rows have tokens, M elsewhere. */
static mn_tensor *written(mn_scope *s, const mn_model *m, mn_tensor *memory, mn_tensor *const *read, mn_tensor *length) {
  const rxt_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *there = mn_reshape(g, mn_lt(g, mn_scalar(g, MN_I32, 0), length), MN_SHAPE(mn_dim(memory, 0), 1, 1, 1));
  return mn_select(g, there, mn_memory_attention(mn_scope_in(s, "memory"), &c->attention, memory, read, length), memory);
}

/* M of a dialogue that begins: [B,M,S,D]. */
static mn_tensor *initial(mn_scope *s, const mn_model *m, bool drawn) {
  const rxt_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  const mn_shape one = MN_SHAPE(c->layers, c->slots, m->config.d_model),
                 all = MN_SHAPE(mn_scope_batch(s), one.dim[0], one.dim[1], one.dim[2]);
  mn_tensor *x = mn_param(s, "initial_memory", one, MN_NORMAL(1), MN_PARAM_FROZEN | MN_PARAM_NO_DECAY,
                          "the memory that a dialogue begins with [layers, slots, d_model]");
  if (drawn) return mn_draw_normal(s, "initial_memory", all);
  return mn_expand(g, mn_unsqueeze(g, mn_cast(g, x, mn_scope_exact(s)), 0), all);
}

static mn_tensor *start(mn_scope *s, const void *m) { return initial(s, m, mn_scope_training(s)); }

static mn_tensor *memory_of(mn_scope *s, const mn_model *m, int64_t B) {
  const rxt_config *c = m->own;
  return mn_state_from(s, "memory", mn_scope_exact(s), MN_SHAPE(B, c->layers, c->slots, m->config.d_model), start, m,
                       "what earlier turns left in the slots of each layer");
}

/* ---- a dialogue in training: a loop over turns ---- */
enum { IN_TOKENS, IN_MASKS, INS };
enum { HIDDEN, BEFORE, AFTER, READ, WRITTEN, OUTS };

static mn_tensor *length_of(mn_scope *s, mn_tensor *masks) { /* i32 [B,L] -> i32 [B] */
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *n = mn_sum(g, mn_cast(g, masks, mn_scope_exact(s)), MN_AXIS(1)); /* counts are exact in it */
  return mn_cast(g, mn_reshape(g, n, MN_SHAPE(mn_dim(masks, 0))), MN_I32);
}

/* x [B,L,D] brought to [B,S,D]: as it is, or the mean of equal shares of its first `length` places; zeros where a share is empty. */
static mn_tensor *pooled(mn_scope *s, mn_tensor *x, mn_tensor *length, int64_t S) {
  mn_graph *g = mn_scope_graph(s);
  const mn_dtype exact = mn_scope_exact(s);
  const int64_t B = mn_dim(x, 0), L = mn_dim(x, 1), each = (L + S - 1) / S;
  mn_tensor *t = mn_iota(g, MN_I32, MN_SHAPE(B, S, L), 2), *slot = mn_iota(g, MN_I32, MN_SHAPE(B, S, L), 1);
  mn_tensor *belongs = mn_eq(g, mn_div(g, t, mn_scalar(g, MN_I32, (double)each)), slot);
  belongs = mn_and(g, belongs, mn_lt(g, t, mn_reshape(g, length, MN_SHAPE(B, 1, 1))));
  mn_tensor *w = mn_cast(g, belongs, exact), *n = mn_maximum(g, mn_sum(g, w, MN_AXIS(2)), mn_scalar(g, exact, 1));
  return mn_matmul(g, mn_div(g, w, n), x);
}

/* All layers' side by side: [B,1,M S,D]. */
static mn_tensor *as_slots(mn_scope *s, const rxt_config *c, mn_tensor *const *read, mn_tensor *length) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor **each = mn_arena_alloc(g->arena, (size_t)(c->layers + 1) * sizeof *each);
  for (int64_t i = 0; each && i < c->layers; i++) each[i] = pooled(s, read[i], length, c->slots);
  return each ? mn_unsqueeze(g, mn_concat(g, (int)c->layers, each, 1), 1) : NULL;
}

static mn_tensor *side_by_side(mn_graph *g, mn_tensor *memory) { /* [B,M,S,D] -> [B,1,M S,D] */
  return mn_reshape(g, memory, MN_SHAPE(mn_dim(memory, 0), 1, mn_dim(memory, 1) * mn_dim(memory, 2), mn_dim(memory, 3)));
}

/* x and noise on it, in training. */
static mn_tensor **noisy(mn_scope *s, const rxt_config *c, const char *name, mn_tensor *const *x, double sigma) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor **y = mn_arena_alloc(g->arena, (size_t)(c->layers + 1) * sizeof *y);
  for (int64_t i = 0; y && i < c->layers; i++) {
    y[i] = x[i];
    if (sigma > 0 && mn_scope_training(s))
      y[i] = mn_add(g, x[i], mn_mul_scalar(g, mn_draw_normal(mn_scope_in(s, "noise.%d", (int)i), name, mn_shape_as(x[i])), sigma));
  }
  return y;
}

static void turn(mn_scope *s, void *ctx, mn_tensor *const *in, mn_tensor **out) {
  const mn_model *m = ctx;
  const rxt_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *tokens = in[IN_TOKENS], *length = length_of(s, in[IN_MASKS]);
  const int64_t B = mn_dim(tokens, 0), L = mn_dim(tokens, 1);
  mn_tensor *before = memory_of(s, m, B);
  mn_tensor *last = mn_state(s, "turn", MN_I32, MN_SHAPE(B, L), NULL, "tokens of the turn before");
  mn_tensor *n = mn_state(s, "turn_length", MN_I32, MN_SHAPE(B), NULL, "how many they are");
  mn_tensor **read = encoded(s, "reading", m, last, n), *after = written(s, m, before, read, n);
  mn_tensor **with_noise = noisy(s, c, "write_noise", read, c->write_noise);
  out[BEFORE] = side_by_side(g, before);
  out[AFTER] = side_by_side(g, written(s, m, before, with_noise, n));
  out[READ] = as_slots(s, c, read, n);
  out[WRITTEN] = mn_cast(g, mn_reshape(g, mn_lt(g, mn_scalar(g, MN_I32, 0), n), MN_SHAPE(B, 1)), mn_scope_exact(s));
  out[HIDDEN] = decoded(call(s, "turns", "", (mn_call_options){.fresh = true, .length = length}), m, tokens, &(looking){.memory = after});
  mn_state_set(s, "memory", after);
  mn_state_set(s, "turn", tokens);
  mn_state_set(s, "turn_length", length);
}

/* Encoder and decoder together, every turn alone. */
static void joint(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_tensor *masks, mn_model_io *out) {
  const rxt_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *tokens = mn_io_get(in, "tokens");
  const int64_t B = mn_dim(tokens, 0), T = mn_dim(tokens, 1), L = T < c->turn ? T : c->turn, D = m->config.d_model;
  const mn_shape turns = MN_SHAPE(B * (T / L), L), whole = MN_SHAPE(B, T, D);
  mn_tensor *length = length_of(s, mn_reshape(g, masks, turns));
  mn_tensor **read = encoded(s, "joint_reading", m, mn_reshape(g, mn_io_get(in, "masked"), turns), length);
  mn_tensor **seen = mn_arena_alloc(g->arena, (size_t)(c->layers + 1) * sizeof *seen);
  for (int64_t i = 0; seen && i < c->layers; i++) seen[i] = mn_stop_gradient(g, read[i]);
  if (!seen) return;
  const looking at = {.read = noisy(s, c, "joint_noise", seen, c->joint_noise), .length = length};
  mn_scope *alone = call(s, "joint_turns", "", (mn_call_options){.fresh = true, .length = length, .batch = turns.dim[0]});
  mn_tensor *h = decoded(alone, m, mn_reshape(g, tokens, turns), &at);
  mn_io_put(out, "joint_hidden", mn_reshape(g, h, whole));
  mn_scope *says = mn_scope_in(s, "masked");
  h = mn_linear(says, "dense", mn_cast(g, read[c->layers - 1], mn_scope_compute(s)), D, MN_BIAS, (mn_init){MN_INIT_XAVIER_UNIFORM, 1, 0});
  h = mn_norm_layer(says, "norm", MN_NORM_LAYER, mn_gelu(g, h), m->config.norm_eps, mn_scope_compute(s));
  mn_io_put(out, "masked_hidden", mn_reshape(g, h, whole));
  mn_io_put(out, "masked_head",
            mn_param(says, "head.weight", MN_SHAPE(m->config.vocab_size, D), MN_NORMAL(m->config.init_std), 0,
                     "what was hidden [vocab_size, d_model]"));
}

static void dialogue(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out) {
  const rxt_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *ins[INS] = {mn_io_get(in, "tokens"), mn_io_get(in, "masks")}, *outs[OUTS] = {NULL};
  const int64_t T = mn_dim(ins[IN_TOKENS], 1), L = T < c->turn ? T : c->turn;
  if (T % L) {
    mn_graph_fault(g, MN_ERR_CONFIG, "%lld tokens are no whole number of turns of %lld: choose a multiple of the model's turn",
                   (long long)T, (long long)L);
    return;
  }
  if (!ins[IN_MASKS]) ins[IN_MASKS] = mn_full(g, MN_I32, ins[IN_TOKENS]->shape, 1);
  mn_scope_loop_n(s, (mn_loop){.length = L, .stop_every = c->truncate}, turn, (void *)m, INS, ins, OUTS, outs);
  mn_scope_advance(s, T);
  mn_io_put(out, "hidden", outs[HIDDEN]);
  mn_io_put(out, "head", mn_model_head(s, m));
  static const char *const names[OUTS] = {NULL, "memory_before", "memory_after", "memory_read", "memory_written"};
  for (int i = BEFORE; i < OUTS; i++) mn_io_put(out, names[i], outs[i]);
  if (mn_io_get(in, "masked")) joint(s, m, in, ins[IN_MASKS], out);
}

/* ---- a stream: the present turn, until it is over ---- */
static bool lasts(const char *state) { /* from turn to turn; keys and values are the memory's */
  const size_t n = strlen(state);
  return !strcmp(state, "memory") || !strcmp(state, "turns") ||
         (n > 8 && (!strcmp(state + n - 8, ".cross.k") || !strcmp(state + n - 8, ".cross.v")));
}

static mn_scope *stream_of(mn_scope *s, const mn_model *m) { /* of the present turn */
  const rxt_config *c = m->own;
  return call(s, "turn", "", (mn_call_options){.length = mn_scope_length(s), .longest = c->turn});
}

/* The tokens of the turn so far, these among them: i32 [B,L]. */
static mn_tensor *noted(mn_scope *s, const mn_model *m, mn_tensor *tokens, mn_tensor *at) {
  const rxt_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(tokens, 0), T = mn_dim(tokens, 1);
  mn_tensor *said = mn_state(s, "said", MN_I32, MN_SHAPE(B, c->turn), NULL, "tokens of the present turn");
  mn_tensor *place = mn_add(g, mn_reshape(g, at, MN_SHAPE(B, 1)), mn_iota(g, MN_I32, MN_SHAPE(1, T), 1)), *live = mn_scope_live(s, T);
  if (live) place = mn_select(g, live, place, mn_scalar(g, MN_I32, -1));
  return mn_put(g, said, place, tokens, 1, MN_PUT_SET);
}

/* Rows whose turn is over, ends i32 [B]: their memory is written, and what they said so far is gone. */
static void end_turns(mn_scope *s, mn_scope *in, const mn_model *m, mn_tensor *ends, mn_tensor *said, mn_tensor *length) {
  mn_graph *g = mn_scope_graph(s);
  const rxt_config *c = m->own;
  const int64_t B = mn_dim(said, 0);
  mn_tensor *over = mn_lt(g, mn_scalar(g, MN_I32, 0), ends), *zero = mn_scalar(g, MN_I32, 0);
  mn_tensor *n = mn_select(g, over, length, zero);
  mn_tensor *memory = written(s, m, memory_of(s, m, B), encoded(s, "reading", m, said, n), n);
  mn_state_set(s, "memory", memory);
  mn_tensor *turns = mn_state(s, "turns", MN_I32, MN_SHAPE(B), NULL, "turns that are over");
  mn_state_set(s, "turns", mn_add(g, turns, mn_select(g, over, mn_full(g, MN_I32, MN_SHAPE(B), 1), zero)));
  for (int i = 0, k = 0; i < m->stack.n; i++) {
    if (!m->stack.blocks[i].cross) continue;
    const mn_cross_source from = {.x = looked_at(in, m, i, of_layer(g, memory, k)),
                                  .first = looked_at(in, m, i, of_layer(g, initial(s, m, false), k)),
                                  .most = c->slots};
    mn_cross_give(mn_scope_in(mn_scope_in(in, "layers.%d", i), "cross"), m->stack.blocks[i].cross, &from, over);
    k++;
  }
  mn_scope_restart(s, over, lasts);
}

static void stream(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out) {
  const rxt_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *tokens = mn_io_get(in, "tokens"), *ends = mn_io_get(in, "turn_ends"), *length = mn_scope_length(s);
  const int64_t B = mn_dim(tokens, 0), T = mn_dim(tokens, 1);
  mn_tensor *at = mn_scope_position(s);
  if (!at) at = mn_full(g, MN_I32, MN_SHAPE(B), 0);
  mn_scope_limit(s, c->turn, "turn", "a turn without an end: end it before it is longer, or raise turn");
  memory_of(s, m, B);
  mn_state(s, "turns", MN_I32, MN_SHAPE(B), NULL, "turns that are over");
  mn_tensor *said = noted(s, m, tokens, at);
  mn_state_set(s, "said", said);
  mn_scope *now = stream_of(s, m);
  const looking first = {.memory = initial(s, m, false), .first = true};
  mn_io_put(out, "hidden", decoded(now, m, tokens, &first));
  mn_io_put(out, "head", mn_model_head(s, m));
  mn_scope_advance(s, T);
  if (!ends) return;
  end_turns(s, now, m, ends, said, length ? mn_add(g, at, length) : mn_add_scalar(g, at, (double)T));
}

static void build(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out) {
  if (mn_scope_is_stream(s)) stream(s, m, in, out);
  else dialogue(s, m, in, out);
}

const mn_model_def mn_model_rxt = {
    .name = "rxt",
    .summary = "answers in turns: a decoder that looks at a memory of slots, which an encoder writes after each turn",
    .paper = "Filipek 2025, arXiv 2510.03561",
    .trunk = MN_TRUNK_TOKENS,
    .source = true,
    .config_size = sizeof(rxt_config),
    .fields = fields,
    .inputs = inputs,
    .outputs = outputs,
    .size = size,
    .whole = whole,
    .ids = ids,
    .check = check,
    .spell = spell,
    .build = build,
};
