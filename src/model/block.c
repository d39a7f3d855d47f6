/* block.c - see block.h. */
#include "model/block.h"

#include <math.h>

const char *const mn_norm_names[] = {"rms", "layer", NULL};
static const char *const channels[] = {"none", "swiglu", "geglu", "mlp", NULL};

enum { MOST_LAYERS = 4096 };

typedef struct block_config {
  const mn_value *mixer;
  int channel, norm;
  int64_t hidden, repeat;
  double norm_eps;
} block_config;
#define S block_config
const mn_field mn_block_fields[] = {
    MN_FIELD_VALUE(S, mixer, "how tokens meet the past: {type: attention, ...}"),
    MN_FIELD_ENUM(S, channel, channels, 1, "the part that looks at one token alone"),
    MN_FIELD_INT(S, hidden, 0, 0, 1 << 24, "its width F; 0: 8/3 d_model (gated) or 4 d_model, rounded up to 32"),
    MN_FIELD_INT(S, repeat, 1, 1, MOST_LAYERS, "how many times this block stands here"), MN_FIELD_END};
#undef S

static mn_status parse_block(mn_arena *arena, const mn_value *map, const mn_stack_config *stack, mn_block *out, int64_t *repeat) {
  block_config c = {0};
  MN_TRY(mn_config_read(arena, map, NULL, mn_block_fields, &c));
  if (!c.mixer || c.mixer->kind != MN_MAP) return mn_config_fail(map, NULL, "mixer", "must be a map such as {type: attention}");
  *out = (mn_block){.channel = c.channel, .hidden = c.hidden, .norm = stack->norm, .norm_eps = stack->norm_eps};
  if (out->hidden == 0) {
    double f = (c.channel == MN_CHANNEL_MLP ? 4.0 : 8.0 / 3.0) * (double)stack->d_model;
    out->hidden = ((int64_t)ceil(f) + 31) / 32 * 32;
  }
  if (c.channel == MN_CHANNEL_NONE && mn_config_given(map, "hidden"))
    return mn_config_fail(map, NULL, "hidden", "has no effect with channel none; leave it out");
  *repeat = c.repeat;
  return mn_mixer_parse(arena, c.mixer, NULL, stack->d_model, &out->mixer);
}

static mn_status check_form(const mn_value *map, const char *where, const mn_stack_config *c) {
  if (!c->block == !c->blocks)
    return mn_config_fail(map, where, "block", "give either `block` (one, repeated `layers` times) or `blocks` (a list)");
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
    MN_TRY(parse_block(arena, c->blocks ? c->blocks->as.items[i] : c->block, c, &parsed[i], &repeat[i]));
    if (!c->blocks) repeat[i] = c->layers;
    total += repeat[i];
    if (total > MOST_LAYERS) return mn_config_fail(map, where, "blocks", "make more than %d layers", MOST_LAYERS);
  }
  if (c->blocks && mn_config_given(map, "layers") && c->layers != total)
    return mn_config_fail(map, where, "layers", "is %lld, but `blocks` makes %lld; leave it out", (long long)c->layers, (long long)total);
  *out = (mn_stack){.blocks = mn_arena_alloc(arena, (size_t)total * sizeof *out->blocks)};
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

/* ---- back to a value ---- */
static const mn_value *block_value(mn_arena *arena, const mn_block *b, int64_t repeat) {
  block_config c = {.mixer = mn_mixer_to_value(arena, &b->mixer), .channel = b->channel, .hidden = b->hidden, .repeat = repeat};
  const mn_config_part part = {mn_block_fields, &c};
  return c.mixer ? mn_config_to_value(arena, &part, 1) : NULL;
}

static bool same_block(const mn_block *a, const mn_block *b) {
  return a->mixer.config == b->mixer.config && a->channel == b->channel && a->hidden == b->hidden;
}

const mn_value *mn_stack_to_value(mn_arena *arena, const mn_stack *stack) {
  const mn_value **items = mn_arena_alloc(arena, (size_t)stack->n * sizeof *items);
  size_t n = 0;
  if (!items) return NULL;
  for (int i = 0; i < stack->n;) {
    int k = 1;
    while (i + k < stack->n && same_block(&stack->blocks[i], &stack->blocks[i + k])) k++;
    items[n++] = block_value(arena, &stack->blocks[i], k);
    if (!items[n - 1]) return NULL;
    i += k;
  }
  return mn_value_list(arena, n, items);
}

/* ---- applying ---- */
static mn_tensor *channel_part(mn_scope *s, const mn_block *b, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  mn_init init = MN_NORMAL(0.02);
  int64_t D = mn_dim(x, -1);
  if (b->channel == MN_CHANNEL_MLP)
    return mn_linear(s, "down_proj", mn_gelu(g, mn_linear(s, "up_proj", x, b->hidden, true, init)), D, true, init);
  mn_tensor *gate = mn_linear(s, "gate_proj", x, b->hidden, false, init), *up = mn_linear(s, "up_proj", x, b->hidden, false, init);
  gate = b->channel == MN_CHANNEL_SWIGLU ? mn_silu(g, gate) : mn_gelu(g, gate);
  return mn_linear(s, "down_proj", mn_mul(g, gate, up), D, false, init);
}

mn_tensor *mn_block_apply(mn_scope *s, const mn_block *b, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  mn_dtype t = mn_scope_compute(s), exact = mn_scope_exact(s);
  mn_tensor *h = mn_norm_layer(s, "mixer_norm", (mn_norm_kind)b->norm, x, b->norm_eps, t);
  h = mn_mixer_apply(mn_scope_in(s, "mixer"), &b->mixer, h);
  mn_report(s, "mixer.output", h);
  x = mn_add(g, x, mn_cast(g, h, exact));
  if (b->channel == MN_CHANNEL_NONE) return x;
  h = mn_norm_layer(s, "channel_norm", (mn_norm_kind)b->norm, x, b->norm_eps, t);
  h = channel_part(mn_scope_in(s, "channel"), b, h);
  mn_report(s, "channel.output", h);
  return mn_add(g, x, mn_cast(g, h, exact));
}

mn_tensor *mn_stack_apply(mn_scope *s, const mn_stack *stack, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  int block = g->block;
  for (int i = 0; i < stack->n; i++) {
    g->block = i;
    x = mn_block_apply(mn_scope_in(s, "layers.%d", i), &stack->blocks[i], x);
  }
  g->block = block;
  return x;
}
