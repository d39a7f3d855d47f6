/* block.c - see block.h. */
#include "model/block.h"
#include "graph/fused_norm.h"

#include <string.h>

const char *const mn_norm_names[] = {"rms", "layer", NULL};
static const char *const norm_positions[] = {"pre", "post", "sandwich", NULL}; /* in the order of mn_norm_position */

static const char *const conditions[] = {"none", "adaln_zero", "film", NULL}; /* in the order of mn_condition_kind */

enum { MOST_LAYERS = 4096 };

typedef struct block_config {
  const mn_value *mixer, *cross, *channel;
  int norm_position;
  bool parallel;
  int condition;
  double dropout, locked_dropout, drop_path, residual_scale;
  int64_t hidden, repeat;
} block_config;
#define S block_config
const mn_field mn_block_fields[] = {
    MN_FIELD_VALUE(S, mixer, "how tokens meet the past: {type: attention, ...}"),
    MN_FIELD_VALUE(S, cross, "encoder_decoder: attention to the source, {heads: 4, ...}, or none", MN_SPARSE),
    MN_FIELD_VALUE(S, channel, "after the mixer: none, swiglu (the default), geglu, mlp, channel_mix, moe; or {type: mlp, ...}"),
    MN_FIELD_INT(S, hidden, 0, 0, 1 << 24, "its width F; 0: 8/3 d_model (gated) or 4 d_model, rounded up to 32"),
    MN_FIELD_ENUM(S, norm_position, norm_positions, MN_PRE_NORM, "before each part, after the sum, or before and after", MN_SPARSE),
    MN_FIELD_BOOL(S, parallel, false, "mixer and channel part read the same input and are added at once", MN_SPARSE),
    MN_FIELD_ENUM(
        S, condition, conditions, MN_CONDITION_NONE,
        "what a row is told reaches the parts: adaln_zero scales and shifts what they read and gates what they add, film scales and "
        "shifts what they add",
        MN_SPARSE),
    MN_FIELD_FLOAT(S, dropout, 0, 0, 0.999, "of what each part adds, in training: elements", MN_SPARSE),
    MN_FIELD_FLOAT(S, locked_dropout, 0, 0, 0.999, "of what each part adds, in training: elements, the same ones of all tokens of a row",
                   MN_SPARSE),
    MN_FIELD_FLOAT(S, drop_path, 0, 0, 0.999, "of what each part adds, in training: whole rows of the batch (stochastic depth)", MN_SPARSE),
    MN_FIELD_FLOAT(S, residual_scale, 1, DBL_MIN, 1e6, "what each part adds is multiplied by it", MN_SPARSE),
    MN_FIELD_INT(S, repeat, 1, 1, MOST_LAYERS, "how many times this block stands here"),
    MN_FIELD_END};
#undef S

static mn_status parse_cross(mn_arena *arena, const mn_value *map, const mn_value *cross, const mn_stack_config *stack,
                             const mn_cross_config **out) {
  bool none = cross && cross->kind == MN_TEXT && !strcmp(cross->as.text, "none");
  if (cross && !stack->source)
    return mn_config_fail(map, NULL, "cross", "has no effect: only the decoder of an encoder_decoder or an rxt has a source; leave it out");
  if (none || !stack->source) return MN_OK;
  if (cross && cross->kind != MN_MAP) return mn_config_fail(map, NULL, "cross", "must be none or a map such as {heads: 4}");
  mn_cross_config *c = mn_arena_alloc(arena, sizeof *c);
  if (!c) return MN_ERR_MEMORY;
  *out = c;
  return mn_cross_parse(arena, map, NULL, "cross", cross, stack->d_model, stack->turned, c);
}

static mn_status parse_block(mn_arena *arena, const mn_value *map, const mn_stack_config *stack, mn_block *out, int64_t *repeat) {
  block_config c = {0};
  MN_TRY(mn_config_read(arena, map, NULL, mn_block_fields, &c));
  if (!c.mixer || c.mixer->kind != MN_MAP) return mn_config_fail(map, NULL, "mixer", "must be a map such as {type: attention}");
  *out = (mn_block){.norm = stack->norm,
                    .norm_eps = stack->norm_eps,
                    .norm_position = c.norm_position,
                    .parallel = c.parallel,
                    .condition = c.condition,
                    .dropout = c.dropout,
                    .locked_dropout = c.locked_dropout,
                    .drop_path = c.drop_path,
                    .residual_scale = c.residual_scale};
  *repeat = c.repeat;
  MN_TRY(mn_channel_parse(arena, map, NULL, stack->d_model, c.hidden, &out->channel));
  MN_TRY(parse_cross(arena, map, c.cross, stack, &out->cross));
  if (c.parallel && out->cross)
    return mn_config_fail(map, NULL, "parallel", "leaves no place between the parts for attention to the source; set cross: none");
  if (c.condition && !stack->conditioned)
    return mn_config_fail(map, NULL, "condition", "has no effect: nothing tells these blocks about their rows; leave it out");
  if (c.parallel && c.condition)
    return mn_config_fail(map, NULL, "parallel", "leaves the parts one norm, and condition: %s gives each its own; set one of the two",
                          conditions[c.condition]);
  if (c.parallel && out->channel.def->absent) return mn_config_fail(map, NULL, "parallel", "has no effect with channel none; leave it out");
  return mn_mixer_parse(arena, c.mixer, NULL, stack->d_model, &out->mixer);
}

static mn_status check_form(const mn_value *map, const char *where, const mn_stack_config *c) {
  if (!c->block == !c->blocks)
    return mn_config_fail(map, where, "block",
                          "(one block, which stands `layers` times) or `blocks` (a list) must be given: one of the two");
  if (c->blocks && (c->blocks->kind != MN_LIST || c->blocks->count == 0))
    return mn_config_fail(map, where, "blocks", "must be a list of blocks");
  if (c->block && mn_config_given(c->block, "repeat"))
    return mn_config_fail(c->block, NULL, "repeat", "has no effect: `block` stands `layers` times; set layers, or write a list `blocks`");
  return MN_OK;
}

mn_status mn_stack_parse(mn_arena *arena, const mn_value *map, const char *where, const mn_stack_config *c, mn_stack *out) {
  MN_TRY(check_form(map, where, c));
  size_t n = c->blocks ? c->blocks->count : 1;
  mn_block *parsed = mn_arena_alloc(arena, n * sizeof *parsed);
  int64_t *repeat = mn_arena_alloc(arena, n * sizeof *repeat), total = 0;
  if (!parsed || !repeat) return MN_ERR_MEMORY;
  for (size_t i = 0; i < n; i++) {
    const mn_value *block = c->block;
    if (c->blocks) MN_TRY(mn_value_map_in(c->blocks, i, "{mixer: {type: attention}}", &block));
    MN_TRY(parse_block(arena, block, c, &parsed[i], &repeat[i]));
    if (!c->blocks) repeat[i] = c->layers;
    total += repeat[i];
    if (total > MOST_LAYERS) return mn_config_fail(map, where, "blocks", "make more than %d layers", MOST_LAYERS);
  }
  if (c->blocks && mn_config_given(map, "layers") && c->layers != total)
    return mn_config_fail(map, where, "layers", "is %lld, but `blocks` makes %lld; leave it out", (long long)c->layers, (long long)total);
  *out = (mn_stack){.source = c->source, .blocks = mn_arena_alloc(arena, (size_t)total * sizeof *out->blocks)};
  if (!out->blocks) return MN_ERR_MEMORY;
  for (size_t i = 0; i < n; i++)
    for (int64_t k = 0; k < repeat[i]; k++) out->blocks[out->n++] = parsed[i];
  return MN_OK;
}

mn_status mn_stack_check_lengths(const mn_stack *stack, const mn_value *map, int64_t seq_len) {
  const mn_value *one = mn_value_get(map, "block"), *list = mn_value_get(map, "blocks");
  size_t item = 0;
  for (int i = 0; i < stack->n; i++) {
    const mn_mixer *m = &stack->blocks[i].mixer;
    if (i && stack->blocks[i - 1].mixer.config == m->config) continue; /* the same block again */
    const mn_value *block = one ? one : list && item < list->count ? list->as.items[item++] : NULL;
    MN_TRY(mn_mixer_check_lengths(m, mn_value_get(block, "mixer"), seq_len));
  }
  return MN_OK;
}

const char *mn_stack_not_causal(const mn_stack *stack) {
  const char *why = NULL;
  for (int i = 0; i < stack->n && !why; i++) {
    const mn_mixer *m = &stack->blocks[i].mixer;
    why = m->def->not_causal ? m->def->not_causal(m->config) : NULL;
  }
  return why;
}

bool mn_stack_has_condition(const mn_stack *stack) {
  for (int i = 0; i < stack->n; i++)
    if (stack->blocks[i].condition) return true;
  return false;
}

/* ---- back to a value ---- */
static const mn_value *block_value(mn_arena *arena, const mn_block *b, bool source, int64_t repeat) {
  mn_cross_config own = b->cross ? *b->cross : (mn_cross_config){0};
  const mn_config_part cross = {mn_cross_fields, &own};
  block_config c = {.mixer = mn_mixer_to_value(arena, &b->mixer),
                    .cross = b->cross ? mn_config_to_value(arena, &cross, 1)
                             : source ? mn_value_text(arena, "none")
                                      : NULL,
                    .channel = mn_channel_to_value(arena, &b->channel),
                    .norm_position = b->norm_position,
                    .parallel = b->parallel,
                    .condition = b->condition,
                    .dropout = b->dropout,
                    .locked_dropout = b->locked_dropout,
                    .drop_path = b->drop_path,
                    .residual_scale = b->residual_scale,
                    .hidden = b->channel.hidden,
                    .repeat = repeat};
  const mn_config_part part = {mn_block_fields, &c};
  return c.mixer && c.channel ? mn_config_to_value(arena, &part, 1) : NULL;
}

/* Blocks that were made from one place of the recipe share what was parsed there. */
static bool same_block(const mn_block *a, const mn_block *b) { return a->mixer.config == b->mixer.config; }

const mn_value *mn_stack_to_value(mn_arena *arena, const mn_stack *stack) {
  const mn_value **items = mn_arena_alloc(arena, (size_t)stack->n * sizeof *items);
  size_t n = 0;
  if (!items) return NULL;
  for (int i = 0; i < stack->n;) {
    int k = 1;
    while (i + k < stack->n && same_block(&stack->blocks[i], &stack->blocks[i + k])) k++;
    items[n++] = block_value(arena, &stack->blocks[i], stack->source, k);
    if (!items[n - 1]) return NULL;
    i += k;
  }
  return mn_value_list(arena, n, items);
}

/* ---- applying ---- */
bool mn_stack_wants_norm(const mn_stack *stack) { return !stack->n || stack->blocks[stack->n - 1].norm_position != MN_POST_NORM; }

static mn_tensor *norm(mn_scope *s, const char *name, const mn_block *b, mn_tensor *x, mn_dtype t) {
  return mn_norm_layer(s, name, (mn_norm_kind)b->norm, x, b->norm_eps, t);
}

/* What a branch reads: x before a post-norm, its norm otherwise. Compute type. */
static mn_tensor *before(mn_scope *s, const mn_block *b, const char *name, mn_tensor *x) {
  mn_dtype t = mn_scope_compute(s);
  return b->norm_position == MN_POST_NORM ? mn_cast(mn_scope_graph(s), x, t) : norm(s, name, b, x, t);
}

/* What is added to the residual stream, of the output y of a part; norm_name: of a norm there. Exact type. */
static mn_tensor *after(mn_scope *s, const mn_block *b, const char *part, const char *norm_name, mn_tensor *y) {
  mn_dtype exact = mn_scope_exact(s);
  mn_scope *chance = mn_scope_in(s, "%s_output", part); /* not the part's own: it may draw, too */
  y = b->norm_position == MN_SANDWICH_NORM ? norm(s, norm_name, b, y, exact) : mn_cast(mn_scope_graph(s), y, exact);
  if (b->residual_scale != 1) y = mn_mul_scalar(mn_scope_graph(s), y, b->residual_scale);
  y = mn_dropout_locked(chance, "locked_dropout", mn_dropout(chance, "dropout", y, b->dropout), b->locked_dropout);
  return mn_drop_path(chance, "drop_path", y, b->drop_path);
}

/* x + y, and the norm of the sum where it stands there. */
static mn_tensor *joined(mn_scope *s, const mn_block *b, const char *name, mn_tensor *x, mn_tensor *y) {
  x = mn_add(mn_scope_graph(s), x, y);
  return b->norm_position == MN_POST_NORM ? norm(s, name, b, x, mn_scope_exact(s)) : x;
}

/* ---- what a row is told ---- each [B,1,D] exact type, or NULL */
typedef struct modulation {
  mn_tensor *read_scale, *read_shift; /* of what a part reads */
  mn_tensor *said_scale, *said_shift; /* of what it adds      */
} modulation;

static modulation modulated_by(mn_scope *s, const mn_block *b, const char *part, const mn_beside *beside) {
  mn_graph *g = mn_scope_graph(s);
  modulation m = {0};
  if (!b->condition) return m;
  mn_tensor *c = beside ? beside->condition : NULL;
  if (!c) {
    mn_graph_fault(g, MN_ERR_CONFIG, "a block has condition: %s, and nothing here says what its rows are told", conditions[b->condition]);
    return m;
  }
  const int64_t B = mn_dim(c, 0), D = mn_dim(c, 1);
  const bool adaln = b->condition == MN_CONDITION_ADALN_ZERO;
  c = mn_linear_exact(s, mn_arena_format(g->arena, "%s_condition", part), mn_silu(g, c), (adaln ? 3 : 2) * D, MN_BIAS, MN_ZEROS, MN_ZEROS);
  mn_tensor *each[3] = {NULL};
  for (int i = 0; i < (adaln ? 3 : 2); i++) each[i] = mn_reshape(g, mn_slice(g, c, 1, i * D, D), MN_SHAPE(B, 1, D));
  mn_tensor *scale = mn_add_scalar(g, each[1], 1);
  return adaln ? (modulation){.read_shift = each[0], .read_scale = scale, .said_scale = each[2]}
               : (modulation){.said_shift = each[0], .said_scale = scale};
}

/* scale x + shift, in x's type. */
static mn_tensor *moved(mn_scope *s, mn_tensor *x, mn_tensor *scale, mn_tensor *shift) {
  mn_graph *g = mn_scope_graph(s);
  const mn_dtype t = mn_type(x);
  if (!scale) return x;
  x = mn_mul(g, mn_cast(g, x, mn_scope_exact(s)), scale);
  return mn_cast(g, shift ? mn_add(g, x, shift) : x, t);
}

/* ---- the parts ---- h: what they read; what they say is ready to be added. */
static mn_tensor *mixer_branch(mn_scope *s, const mn_block *b, mn_tensor *h, const modulation *m) {
  mn_tensor *x = moved(s, h, m->read_scale, m->read_shift), *y = mn_mixer_apply(mn_scope_in(s, "mixer"), &b->mixer, x);
  mn_share(s, MN_MIXER_INPUT, x);
  mn_share(s, MN_MIXER_OUTPUT, y);
  mn_report(s, "mixer.output", y);
  return moved(s, after(s, b, "mixer", "mixer_post_norm", y), m->said_scale, m->said_shift);
}

static mn_tensor *cross_branch(mn_scope *s, const mn_block *b, mn_tensor *h, const mn_cross_source *source) {
  mn_tensor *y = mn_cross_attention(mn_scope_in(s, "cross"), b->cross, h, source);
  mn_report(s, "cross.output", y);
  return after(s, b, "cross", "cross_post_norm", y);
}

static mn_tensor *channel_branch(mn_scope *s, const mn_block *b, mn_tensor *h, const modulation *m) {
  mn_tensor *y = mn_channel_apply(mn_scope_in(s, "channel"), &b->channel, moved(s, h, m->read_scale, m->read_shift));
  mn_report(s, "channel.output", y);
  return moved(s, after(s, b, "channel", "channel_post_norm", y), m->said_scale, m->said_shift);
}

mn_tensor *mn_block_apply(mn_scope *s, const mn_block *b, mn_tensor *x, const mn_beside *beside) {
  mn_graph *g = mn_scope_graph(s);
  const mn_cross_source *source = beside ? beside->source : NULL;
  modulation m = modulated_by(s, b, "mixer", beside);
  mn_tensor *h = before(s, b, "mixer_norm", x), *y = mixer_branch(s, b, h, &m);
  if (b->parallel) return joined(s, b, "mixer_norm", x, mn_add(g, y, channel_branch(s, b, h, &m)));
  x = joined(s, b, "mixer_norm", x, y);
  if (b->cross && source) x = joined(s, b, "cross_norm", x, cross_branch(s, b, before(s, b, "cross_norm", x), source));
  if (b->channel.def->absent) return x;
  m = modulated_by(s, b, "channel", beside);
  return joined(s, b, "channel_norm", x, channel_branch(s, b, before(s, b, "channel_norm", x), &m));
}

mn_tensor *mn_stack_apply(mn_scope *s, const mn_stack *stack, mn_tensor *x, const mn_beside *beside) {
  for (int i = 0; i < stack->n; i++) x = mn_block_apply(mn_scope_in(s, "layers.%d", i), &stack->blocks[i], x, beside);
  return x;
}
