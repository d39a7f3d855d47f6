/* channel.c - finding, parsing and applying channel parts. */
#include "nn/channel.h"

#include <math.h>

const char *const mn_activation_names[] = {"gelu", "gelu_tanh", "relu", "silu", NULL};

mn_tensor *mn_activate(mn_graph *g, mn_activation a, mn_tensor *x) {
  switch (a) {
  case MN_GELU_TANH:
    return mn_gelu_tanh(g, x);
  case MN_RELU:
    return mn_relu(g, x);
  case MN_SILU:
    return mn_silu(g, x);
  default:
    return mn_gelu(g, x);
  }
}

static const char *name_at(int i) { return mn_channel_at(i)->name; }

typedef struct type_config {
  const char *type;
} type_config;
static const mn_field type_fields[] = {MN_FIELD_STRING_REQUIRED(type_config, type, "which channel part"), MN_FIELD_END};

/* The word of `channel`, and its own keys where it is a map. */
static mn_status word_of(const mn_value *block, const char *where, const char **word, const mn_value **keys) {
  const mn_value *v = mn_value_get(block, "channel"), *type = v;
  *keys = NULL;
  if (!v || v->kind == MN_NULL) {
    *word = "swiglu";
    return MN_OK;
  }
  if (v->kind == MN_MAP) {
    *keys = v;
    type = mn_value_get(v, "type");
    if (!type) MN_TRY(mn_config_misspelt(v, "type"));
  }
  if (!type || type->kind != MN_TEXT)
    return mn_config_fail(block, where, "channel", "must be a word such as swiglu, or a map: {type: mlp, activation: relu}");
  *word = type->as.text;
  return MN_OK;
}

mn_status mn_channel_parse(mn_arena *arena, const mn_value *block, const char *where, int64_t d_model, int64_t hidden, mn_channel *out) {
  static const mn_field none[] = {MN_FIELD_END};
  const char *word = NULL;
  const mn_value *keys;
  type_config t = {0};
  *out = (mn_channel){0};
  int i;
  MN_TRY(word_of(block, where, &word, &keys));
  MN_TRY(mn_config_choose(mn_value_get(block, "channel"), "channel part", word, mn_channel_count(), name_at, &i));
  out->def = mn_channel_at(i);
  const mn_channel_def *d = out->def;
  const mn_field *own = d->fields ? d->fields : none;
  if (!(out->config = mn_arena_alloc(arena, d->config_size + 1))) return MN_ERR_MEMORY;
  mn_config_defaults(own, out->config);
  const mn_config_part parts[] = {{type_fields, &t}, {own, out->config}};
  if (keys) MN_TRY(mn_config_parse(arena, keys, NULL, parts, 2));
  if (!d->expand && mn_config_given(block, "hidden"))
    return mn_config_fail(block, where, "hidden", "has no effect with channel %s; leave it out", d->name);
  out->hidden = hidden ? hidden : ((int64_t)ceil((d->expand ? d->expand : 8.0 / 3.0) * (double)d_model) + 31) / 32 * 32;
  return d->check ? d->check(keys, NULL, d_model, out->config) : MN_OK;
}

const mn_value *mn_channel_to_value(mn_arena *arena, const mn_channel *c) {
  if (c->def->fields) {
    type_config t = {c->def->name};
    const mn_config_part parts[] = {{type_fields, &t}, {c->def->fields, c->config}};
    const mn_value *map = mn_config_to_value(arena, parts, 2);
    if (!map || map->count > 1) return map;
  }
  return mn_value_text(arena, c->def->name);
}

bool mn_channel_same(const mn_channel *a, const mn_channel *b) { return a->config == b->config && a->hidden == b->hidden; }

mn_tensor *mn_channel_apply(mn_scope *s, const mn_channel *c, mn_tensor *x) { return c->def->apply(s, c->config, c->hidden, x); }
