/* model.c - a recipe's model: its kind, its keys, its ports, and back to a tree. */
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/fused_norm.h"
#include "nn/positions.h"

static const char *const positions[] = {"none", "learned", "sinusoidal", NULL}; /* in the order of mn_position_kind */

#define S      mn_model_config
#define TYPE   MN_FIELD_STRING(S, type, "decoder", "which kind of model", MN_SPARSE)
#define WIDTH  MN_FIELD_INT(S, d_model, 256, 1, 1 << 20, "width D of the residual stream")
#define LAYERS MN_FIELD_INT(S, layers, 2, 1, 4096, "how many times `block` stands in the stack")
#define NORM                                                                                                                               \
  MN_FIELD_ENUM(S, norm, mn_norm_names, 0, "normalisation of blocks and before the head"),                                                 \
      MN_FIELD_FLOAT(S, norm_eps, 1e-6, 0, 1, "added to the mean square before the root")
#define POSITIONS                                                                                                                          \
  MN_FIELD_ENUM(S, positions, positions, 0, "vectors added to what is read: none, a learned one for each place, or sines", MN_SPARSE),     \
      MN_FIELD_INT(S, max_positions, 0, 0, 1 << 28, "learned: places that have one", MN_SPARSE)
#define LINEAR                                                                                                                             \
  MN_FIELD_VALUE(S, linear, "how projections are made, by names, the first that fits: [{match: \"*.q_proj\", type: lora}]", MN_SPARSE)
#define CONDITION                                                                                                                          \
  MN_FIELD_INT(S, condition_classes, 0, 0, 1 << 24, "blocks with a condition: it is one of so many classes", MN_SPARSE),                   \
      MN_FIELD_INT(S, condition_width, 0, 0, 1 << 20, "blocks with a condition: it is so many numbers", MN_SPARSE)
#define BLOCKS                                                                                                                             \
  MN_FIELD_VALUE(S, block, "one block: {mixer: {type: ...}, channel: swiglu, hidden: n}"),                                                 \
      MN_FIELD_VALUE(S, blocks, "several: a list of blocks, each with repeat: n")
const mn_field mn_model_fields[] = {
    TYPE,
    MN_FIELD_INT(S, vocab_size, 0, 0, 1 << 26, "tokens; 0: the tokenizer's"),
    WIDTH,
    LAYERS,
    MN_FIELD_BOOL(S, tie_embeddings, true, "the head is the embedding"),
    NORM,
    MN_FIELD_FLOAT(S, init_std, 0.02, 0, 10, "standard deviation of the embedding at the start"),
    MN_FIELD_BOOL(S, scale_embeddings, false, "an embedding is multiplied by sqrt(d_model) when it is read", MN_SPARSE),
    MN_FIELD_FLOAT(S, logit_softcap, 0, 0, 1e6, "c: logits z become c tanh(z / c); 0: they stay", MN_SPARSE),
    MN_FIELD_BOOL(S, embed_norm, false, "a norm of what was read, with its positions, before the blocks", MN_SPARSE),
    MN_FIELD_FLOAT(S, embedding_scale, 0, 0, 1e6, "what an embedding is multiplied by when it is read; 0: as scale_embeddings says",
                   MN_SPARSE),
    POSITIONS,
    LINEAR,
    CONDITION,
    BLOCKS,
    MN_FIELD_END};
static const mn_field plain_fields[] = {
    TYPE,
    WIDTH,
    LAYERS,
    NORM,
    MN_FIELD_FLOAT(S, init_std, 0.02, 0, 10, "standard deviation of learned positions at the start", MN_SPARSE),
    POSITIONS,
    LINEAR,
    CONDITION,
    BLOCKS,
    MN_FIELD_END};
static const mn_field type_fields[] = {TYPE, MN_FIELD_END}, no_fields[] = {MN_FIELD_END};
#undef S

const mn_field *mn_trunk_fields(mn_trunk t) {
  return t == MN_TRUNK_TOKENS ? mn_model_fields : t == MN_TRUNK_PLAIN ? plain_fields : type_fields;
}

/* ---- inputs and outputs by name ---- */
mn_tensor *mn_io_get(const mn_model_io *io, const char *name) {
  for (int i = 0; i < io->n; i++)
    if (!strcmp(io->name[i], name)) return io->tensor[i];
  return NULL;
}

void mn_io_put(mn_model_io *io, const char *name, mn_tensor *t) {
  if (!t || io->n == MN_IO_MAX) return;
  io->name[io->n] = name;
  io->tensor[io->n++] = t;
}

static const mn_port *find(const mn_port *ports, const char *name) {
  for (; ports && ports->name; ports++)
    if (!strcmp(ports->name, name)) return ports;
  return NULL;
}

const mn_port *mn_model_input(const mn_model *m, const char *name) { return find(m->inputs, name); }
const mn_port *mn_model_output(const mn_model *m, const char *name) { return find(m->outputs, name); }

static int64_t decided(const mn_model *m, char axis) {
  if (axis == 'E') return m->config.condition_width;
  if (m->def->size) return m->def->size(m, axis);
  return axis == 'V' ? m->config.vocab_size : axis == 'D' ? m->config.d_model : 0;
}

mn_shape mn_model_shape(const mn_model *m, const mn_port *port, mn_sizes free) {
  mn_shape s = {.ndim = (int)strlen(port->axes)};
  for (int i = 0; i < s.ndim; i++) {
    char axis = port->axes[i];
    int64_t n = decided(m, axis);
    s.dim[i] = n ? n : axis == 'B' ? free.B : axis == 'T' ? free.T : axis == 'S' ? free.S : 0;
  }
  return s;
}

const char *mn_model_axes(const mn_model *m, const mn_port *port, mn_sizes free, char buf[96]) {
  const mn_shape s = mn_model_shape(m, port, free);
  size_t at = 0;
  for (int i = 0; i < s.ndim && at < 64; i++) {
    const char *before = i ? ", " : "[";
    if (s.dim[i]) at += (size_t)snprintf(buf + at, 96 - at, "%s%lld", before, (long long)s.dim[i]);
    else at += (size_t)snprintf(buf + at, 96 - at, "%s%c", before, port->axes[i]);
  }
  snprintf(buf + at, 96 - at, "]");
  return buf;
}

int64_t mn_model_most(const mn_model *m, char axis) { return m->def->most ? m->def->most(m, axis) : INT64_MAX; }

int64_t mn_model_whole(const mn_model *m) { return m->def->whole ? m->def->whole(m) : 1; }

int64_t mn_model_ids(const mn_model *m, const mn_port *port) {
  if (port->dtype != MN_I32) return 0;
  if (!strcmp(port->name, "condition")) return m->config.condition_classes;
  if (!strcmp(port->name, "masks")) return 2;
  if (m->def->ids) return m->def->ids(m, port);
  return !strcmp(port->name, "tokens") ? m->config.vocab_size : 0;
}

mn_status mn_model_check_input(const mn_model *m, const mn_port *port, mn_sizes sizes, const int32_t *x, int64_t n, const char *where) {
  const int64_t ids = mn_model_ids(m, port), most = !strcmp(port->name, "source_length") ? sizes.S : sizes.T;
  if (port->dtype != MN_I32) return MN_OK;
  for (int64_t i = 0; i < n; i++) {
    if (ids && (x[i] < 0 || x[i] >= ids))
      return mn_fail(MN_ERR_CONFIG, "%s: %s holds %d (element %lld); %s %lld", where, port->name, (int)x[i], (long long)i,
                     !strcmp(port->name, "condition") ? "the model's condition_classes are"
                     : !strcmp(port->name, "masks")   ? "a place is there (1) or not (0): numbers below"
                                                      : "the model's vocabulary has",
                     (long long)ids);
    if (!ids && (x[i] < 0 || x[i] > most))
      return mn_fail(MN_ERR_CONFIG, "%s: %s holds %d (row %lld), and a row has %lld places", where, port->name, (int)x[i], (long long)i,
                     (long long)most);
  }
  return MN_OK;
}

static mn_dtype type_of(const mn_scope *s, const mn_port *p) { return p->dtype == MN_F32 ? mn_scope_exact(s) : p->dtype; }

static bool is_kept(const mn_model *m, const mn_port *p) { return m->def->kept && !strcmp(p->name, m->def->kept); }

void mn_model_inputs(mn_scope *s, const mn_model *m, mn_sizes sizes, mn_inputs which, mn_model_io *io) {
  *io = (mn_model_io){0};
  for (const mn_port *p = m->inputs; p->name; p++) {
    if (which != MN_INPUTS_ALL && (p->optional || (which == MN_INPUTS_LATER && is_kept(m, p)))) continue;
    mn_io_put(io, p->name, mn_input(mn_scope_graph(s), p->name, type_of(s, p), mn_model_shape(m, p, sizes)));
  }
}

mn_tensor *mn_model_answer(mn_scope *s, const mn_model_io *out) {
  mn_tensor *h = mn_io_get(out, "hidden"), *w = mn_io_get(out, "head");
  if (h && w) return mn_logits(s, h, w);
  return out->n ? mn_cast(mn_scope_graph(s), out->tensor[0], mn_scope_exact(s)) : NULL;
}

/* ---- building ---- */
/* Does the tensor fit the port? Free axes agree where they have one letter: the first to have it decides. */
static bool fits(const mn_model *m, const mn_port *p, const mn_tensor *t, mn_sizes *seen) {
  int n = (int)strlen(p->axes);
  if (t->shape.ndim != n) return false;
  for (int i = 0; i < n; i++) {
    char axis = p->axes[i];
    int64_t *size = axis == 'B' ? &seen->B : axis == 'T' ? &seen->T : axis == 'S' ? &seen->S : NULL, want = decided(m, axis);
    if (!want && size && !*size) *size = t->shape.dim[i];
    if (!want && size) want = *size;
    if (want && t->shape.dim[i] != want) return false;
  }
  return true;
}

static bool check_inputs(mn_scope *s, const mn_model *m, const mn_model_io *in) {
  mn_graph *g = mn_scope_graph(s);
  mn_sizes seen = {0};
  char shape[96];
  for (const mn_port *p = m->inputs; p->name; p++) {
    mn_tensor *t = mn_io_get(in, p->name);
    if (!t && (p->optional || (is_kept(m, p) && mn_scope_is_stream(s)))) continue;
    if (!t) mn_graph_fault(g, MN_ERR_CONFIG, "a model of type %s needs %s (%s)", m->def->name, p->name, p->help);
    else if (t->dtype != type_of(s, p) || !fits(m, p, t, &seen))
      mn_graph_fault(g, MN_ERR_SHAPE, "%s of a model of type %s is %s %s, but must be %s [%s]", p->name, m->def->name,
                     mn_dtype_name(t->dtype), mn_shape_str(&t->shape, shape), mn_dtype_name(type_of(s, p)), p->axes);
    else continue;
    return false;
  }
  for (int i = 0; i < in->n; i++)
    if (!mn_model_input(m, in->name[i])) {
      mn_graph_fault(g, MN_ERR_CONFIG, "a model of type %s has no input %s", m->def->name, in->name[i]);
      return false;
    }
  return true;
}

void mn_model_build(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out) {
  *out = (mn_model_io){0};
  if (mn_graph_status(mn_scope_graph(s)) != MN_OK || !check_inputs(s, m, in)) return;
  const mn_linear_rules *before = mn_scope_set_linear(s, m->linear.n ? &m->linear : NULL);
  m->def->build(s, m, in, out);
  mn_scope_set_linear(s, before);
}

mn_tensor *mn_model_embedding(mn_scope *s, const mn_model *m) {
  return mn_param(s, "embed_tokens.weight", MN_SHAPE(m->config.vocab_size, m->config.d_model), MN_NORMAL(m->config.init_std),
                  MN_PARAM_STORED, "token embedding [vocab_size, d_model]");
}

mn_tensor *mn_model_embed(mn_scope *s, const mn_model *m, mn_tensor *tokens) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *e = mn_take(g, mn_model_embedding(s, m), tokens, 0); /* [B,T,D] */
  return mn_model_place(s, m, mn_model_scaled(s, m, mn_cast(g, e, mn_scope_exact(s))));
}

mn_tensor *mn_model_scaled(mn_scope *s, const mn_model *m, mn_tensor *e) {
  if (m->config.embedding_scale > 0) return mn_mul_scalar(mn_scope_graph(s), e, m->config.embedding_scale);
  return m->config.scale_embeddings ? mn_mul_scalar(mn_scope_graph(s), e, sqrt((double)m->config.d_model)) : e;
}

mn_tensor *mn_model_read(mn_scope *s, const mn_model *m, const mn_model_io *in) {
  mn_tensor *tokens = mn_io_get(in, "tokens"), *frames = mn_io_get(in, "frames");
  if (tokens) return mn_model_embed(s, m, tokens);
  mn_tensor *x = mn_linear(s, "embed_frames", mn_cast(mn_scope_graph(s), frames, mn_scope_compute(s)), m->config.d_model, MN_BIAS,
                           (mn_init){MN_INIT_XAVIER_UNIFORM, 1, 0});
  return mn_model_place(s, m, mn_cast(mn_scope_graph(s), x, mn_scope_exact(s)));
}

mn_tensor *mn_model_condition(mn_scope *s, const mn_model *m, const mn_model_io *in) {
  mn_graph *g = mn_scope_graph(s);
  const mn_model_config *c = &m->config;
  mn_tensor *t = mn_io_get(in, "condition");
  if (!t || !mn_stack_has_condition(&m->stack)) return NULL;
  if (c->condition_width) {
    t = mn_cast(g, t, mn_scope_exact(s));
    return mn_linear_exact(s, "embed_condition", t, c->d_model, MN_BIAS, (mn_init){MN_INIT_XAVIER_UNIFORM, 1, 0}, MN_ZEROS);
  }
  mn_tensor *table = mn_param(s, "embed_condition.weight", MN_SHAPE(c->condition_classes, c->d_model), MN_NORMAL(c->init_std), 0,
                              "a vector for each class of the condition [condition_classes, d_model]");
  return mn_cast(g, mn_take(g, table, t, 0), mn_scope_exact(s));
}

mn_tensor *mn_model_place(mn_scope *s, const mn_model *m, mn_tensor *x) {
  const mn_model_config *c = &m->config;
  int64_t T = x ? mn_dim(x, 1) : 0;
  mn_tensor *p = NULL;
  if (x && c->positions == MN_POSITIONS_LEARNED)
    p = mn_learned_positions(s, "embed_positions.weight", c->max_positions, c->d_model, T, c->init_std);
  if (x && c->positions == MN_POSITIONS_SINUSOIDAL) p = mn_sinusoidal_positions(s, c->d_model, T);
  if (p) x = mn_add(mn_scope_graph(s), x, p);
  return x && c->embed_norm ? mn_norm_layer(s, "embed_norm", (mn_norm_kind)c->norm, x, c->norm_eps, mn_scope_exact(s)) : x;
}

mn_tensor *mn_model_norm(mn_scope *s, const mn_model *m, mn_tensor *x) {
  mn_dtype t = mn_scope_compute(s);
  if (!mn_stack_wants_norm(&m->stack)) return mn_cast(mn_scope_graph(s), x, t);
  return mn_norm_layer(s, "norm", (mn_norm_kind)m->config.norm, x, m->config.norm_eps, t);
}

void mn_model_declare(mn_scope *s, const mn_model *m) {
  mn_model_io in, out;
  mn_model_inputs(s, m, (mn_sizes){mn_scope_batch(s), 1, 1}, MN_INPUTS_ALL, &in);
  mn_model_build(s, m, &in, &out);
  const mn_param_info *info;
  int n = mn_scope_params(s, &info, NULL);
  if (mn_linear_rules_check(&m->linear, n, info) != MN_OK) mn_graph_fault(mn_scope_graph(s), MN_ERR_CONFIG, "%s", mn_message());
}

mn_status mn_model_check_stream(const mn_model *m) {
  const char *why = m->def->not_causal ? m->def->not_causal(m) : NULL;
  if (!why && mn_stack_has_condition(&m->stack)) why = "its blocks have a condition, and a stream of tokens says none";
  if (!why) why = mn_stack_not_causal(&m->stack);
  if (!why) return MN_OK;
  return mn_fail(MN_ERR_CONFIG, "a model of type %s cannot be run as a stream: %s", m->def->name, why);
}

mn_status mn_model_check_lengths(const mn_model *m, const mn_value *map, int64_t seq_len) {
  if (m->base) MN_TRY(mn_model_check_lengths(m->base, mn_value_get(map, "base"), seq_len));
  return mn_stack_check_lengths(&m->stack, map, seq_len);
}

const mn_mixer *mn_model_owner(const mn_model *m, const char *name) {
  int layer = 0, end = 0;
  if (m->base) return strncmp(name, "base.", 5) ? NULL : mn_model_owner(m->base, name + 5);
  if (sscanf(name, "layers.%d.mixer.%n", &layer, &end) != 1 || !end || layer < 0 || layer >= m->stack.n) return NULL;
  return &m->stack.blocks[layer].mixer;
}

void mn_model_doubt(const mn_model *m, mn_text *out) {
  if (m->base) mn_model_doubt(m->base, out);
  for (int i = 0; i < m->stack.n && !out->len; i++) mn_mixer_doubt(&m->stack.blocks[i].mixer, out);
}

/* ---- reading ---- */
static const char *name_at(int i) { return mn_model_at(i)->name; }

static mn_status find_kind(const mn_value *map, const char *where, const mn_model_def **out) {
  const mn_value *v = mn_value_get(map, "type");
  int i;
  if (v && v->kind != MN_TEXT) return mn_config_fail(map, where, "type", "must name a kind of model, e.g. type: decoder");
  MN_TRY(mn_config_choose(v, "model type", v ? v->as.text : "decoder", mn_model_count(), name_at, &i));
  *out = mn_model_at(i);
  return MN_OK;
}

static mn_status resolve_vocabulary(mn_model *m, const mn_value *map, const char *where, int64_t vocab_size) {
  static const char *const of_tokens[] = {"vocab_size",      "tie_embeddings", "scale_embeddings",
                                          "embedding_scale", "logit_softcap",  "embed_norm"};
  int64_t *size = &m->config.vocab_size;
  for (int i = 0; i < 6 && m->def->reads_tokens && !m->def->reads_tokens(m); i++)
    if (mn_config_given(map, of_tokens[i]))
      return mn_config_fail(map, where, of_tokens[i], "has no effect: this model reads no tokens; leave it out");
  if (m->def->reads_tokens && !m->def->reads_tokens(m)) {
    *size = 0;
    return MN_OK;
  }
  if (m->config.embedding_scale > 0 && m->config.scale_embeddings)
    return mn_config_fail(map, where, "scale_embeddings", "has no effect beside embedding_scale: %g; leave one of them out",
                          m->config.embedding_scale);
  if (*size == 0) *size = vocab_size;
  if (*size <= 0) return mn_config_fail(map, where, "vocab_size", "must be given: there is no tokenizer to take it from");
  if (vocab_size > *size)
    return mn_config_fail(map, where, "vocab_size", "is %lld, but there are %lld tokens", (long long)*size, (long long)vocab_size);
  return MN_OK;
}

/* Logits are made of a head. */
static mn_status check_logits(const mn_model *m, const mn_value *map, const char *where) {
  if (mn_model_output(m, "head") || !mn_config_given(map, "logit_softcap")) return MN_OK;
  return mn_config_fail(map, where, "logit_softcap", "has no effect: a model of type %s says no next token; leave it out", m->def->name);
}

static mn_status parse_stack(mn_model *m, const mn_value *map, const char *where) {
  mn_model_config *c = &m->config;
  const mn_stack_config stack = {.source = m->def->source,
                                 .conditioned = m->def->conditioned,
                                 .d_model = c->d_model,
                                 .layers = c->layers,
                                 .norm = c->norm,
                                 .norm_eps = c->norm_eps,
                                 .block = c->block,
                                 .blocks = c->blocks};
  MN_TRY(mn_stack_parse(m->arena, map, where, &stack, &m->stack));
  c->layers = m->stack.n;
  return MN_OK;
}

static const mn_port of_class = {"condition", MN_I32, "B", false, "what each row is told: its class"};
static const mn_port of_numbers = {"condition", MN_F32, "BE", false, "what each row is told: numbers"};

/* Blocks with a condition give the model an input more. */
static mn_status parse_condition(mn_model *m, const mn_value *map, const char *where) {
  const mn_model_config *c = &m->config;
  static const char *const keys[] = {"condition_classes", "condition_width"};
  const bool has = mn_stack_has_condition(&m->stack);
  int n = 0;
  for (int i = 0; i < 2 && !has; i++)
    if (mn_config_given(map, keys[i])) return mn_config_fail(map, where, keys[i], "has no effect: no block has a condition; leave it out");
  if (!has) return MN_OK;
  if (!c->condition_classes == !c->condition_width)
    return mn_config_fail(map, where, "condition_classes",
                          "a block has a condition: give condition_classes, or condition_width where it is numbers, and not both");
  while (m->inputs[n].name) n++;
  mn_port *inputs = mn_arena_alloc(m->arena, (size_t)(n + 2) * sizeof *inputs);
  if (!inputs) return MN_ERR_MEMORY;
  memcpy(inputs, m->inputs, (size_t)n * sizeof *inputs);
  inputs[n] = c->condition_width ? of_numbers : of_class;
  inputs[n + 1] = (mn_port){0};
  m->inputs = inputs;
  return MN_OK;
}

static mn_status check_positions(const mn_model *m, const mn_value *map, const char *where) {
  const mn_model_config *c = &m->config;
  if (c->positions == MN_POSITIONS_SINUSOIDAL && c->d_model % 2)
    return mn_config_fail(map, where, "d_model", "must be even for sinusoidal positions, it is %lld", (long long)c->d_model);
  if (c->positions == MN_POSITIONS_LEARNED && !c->max_positions)
    return mn_config_fail(map, where, "max_positions", "must be given: learned positions need to know how many there are");
  if (c->positions != MN_POSITIONS_LEARNED && mn_config_given(map, "max_positions"))
    return mn_config_fail(map, where, "max_positions", "has no effect with positions: %s; leave it out", positions[c->positions]);
  return MN_OK;
}

static mn_status parse(mn_model *m, const mn_value *map, const char *where, int64_t vocab_size) {
  MN_TRY(find_kind(map, where, &m->def));
  m->inputs = m->def->inputs;
  m->outputs = m->def->outputs;
  m->own = mn_arena_alloc(m->arena, m->def->config_size + 1);
  if (!m->own) return MN_ERR_MEMORY;
  mn_config_part parts[2] = {{mn_trunk_fields(m->def->trunk), &m->config}, {m->def->fields ? m->def->fields : no_fields, m->own}};
  for (int i = 0; i < 2; i++) mn_config_defaults(parts[i].fields, parts[i].target);
  MN_TRY(mn_config_parse(m->arena, map, where, parts, 2));
  if (m->def->trunk == MN_TRUNK_NONE) m->config.vocab_size = vocab_size; /* for the model inside */
  if (m->def->trunk == MN_TRUNK_TOKENS) MN_TRY(resolve_vocabulary(m, map, where, vocab_size));
  if (m->def->check) MN_TRY(m->def->check(m, map, where));
  if (m->def->trunk == MN_TRUNK_NONE) return MN_OK;
  MN_TRY(check_positions(m, map, where));
  MN_TRY(check_logits(m, map, where));
  MN_TRY(mn_linear_rules_parse(m->arena, m->config.linear, where, &m->linear));
  MN_TRY(parse_stack(m, map, where));
  return parse_condition(m, map, where);
}

mn_status mn_model_parse(const mn_value *map, const char *where, int64_t vocab_size, mn_model **out) {
  mn_arena *arena = mn_arena_new();
  mn_model *m = arena ? mn_arena_alloc(arena, sizeof *m) : NULL;
  *out = NULL;
  mn_status status = MN_ERR_MEMORY;
  if (m) {
    m->arena = arena;
    status = parse(m, map, where, vocab_size);
    m->config.block = m->config.blocks = m->config.linear = NULL; /* the tree is the caller's; all that counts was copied */
  }
  if (m && status != MN_OK) mn_model_free(m);
  else if (status != MN_OK) mn_arena_free(arena);
  else *out = m;
  return status;
}

mn_status mn_model_parse_base(mn_model *m, const mn_value *map, const char *where, const mn_value *base) {
  if (!base || base->kind != MN_MAP) return mn_config_fail(map, where, "base", "must be a map: {d_model: 64, layers: 2, block: {...}}");
  if (mn_value_get(base, "from"))
    return mn_config_fail(base, where, "from",
                          "has no meaning here: describe the decoder, and take its weights in by the recipe's init: "
                          "{from: DIR, rename: {\"*\": \"base.*\"}, missing: draw}");
  MN_TRY(mn_model_parse(base, NULL, m->config.vocab_size, &m->base));
  if (strcmp(m->base->def->name, "decoder") != 0)
    return mn_config_fail(map, where, "base", "must be a decoder, but is of type %s", m->base->def->name);
  if (mn_stack_has_condition(&m->base->stack))
    return mn_config_fail(map, where, "base", "has blocks with a condition, and nothing here says what their rows are told; leave it out");
  const char *why = mn_stack_not_causal(&m->base->stack);
  if (why) return mn_config_fail(map, where, "base", "must be causal: %s", why);
  m->config.vocab_size = m->base->config.vocab_size;
  m->config.d_model = m->base->config.d_model;
  return MN_OK;
}

void mn_model_free(mn_model *m) {
  if (!m) return;
  mn_model_free(m->base);
  mn_arena_free(m->arena);
}

/* ---- back to a tree ---- */
const mn_value *mn_model_to_value(mn_arena *arena, const mn_model *m) {
  const mn_model_def *d = m->def;
  mn_model_config c = m->config;
  void *own = mn_arena_alloc(arena, d->config_size + 1);
  if (!own) return NULL;
  memcpy(own, m->own, d->config_size);
  if (d->spell && d->spell(arena, m, own) != MN_OK) return NULL;
  if (d->trunk != MN_TRUNK_NONE && !(c.blocks = mn_stack_to_value(arena, &m->stack))) return NULL;
  c.linear = mn_linear_rules_to_value(arena, &m->linear);
  if (m->linear.n && !c.linear) return NULL;
  const mn_config_part parts[] = {{mn_trunk_fields(d->trunk), &c}, {d->fields ? d->fields : no_fields, own}};
  return mn_config_to_value(arena, parts, 2);
}
