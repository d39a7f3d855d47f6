/* hybrid.c - see hybrid.h. */
#include "checkpoint/hybrid.h"
#include "checkpoint/say.h"

#include <math.h>
#include <string.h>

#include "base/text.h"

mn_status mn_hybrid_read(mn_settings *s, const char *eps_key, bool tied, mn_transformer *t) {
  *t = (mn_transformer){0};
  MN_TRY(mn_transformer_size(s, "hidden_size", "num_hidden_layers", t));
  MN_TRY(mn_setting_int(s, "num_attention_heads", "attention.head_count", 0, &t->heads));
  t->kv_heads = t->heads;
  if (s->form == MN_FORM_HF) MN_TRY(mn_setting_count(s, "num_key_value_heads", NULL, t->heads, &t->kv_heads));
  MN_TRY(mn_setting_count(s, "head_dim", "attention.key_length", t->heads ? t->d_model / t->heads : 0, &t->head_dim));
  if (!mn_setting(s, NULL, "attention.key_length_mla")) MN_TRY(mn_transformer_one_width(s, t)); /* or it speaks of what a cache keeps */
  MN_TRY(mn_setting_int(s, "intermediate_size", "feed_forward_length", 0, &t->hidden));
  MN_TRY(mn_setting_count(s, "max_position_embeddings", "context_length", 2048, &t->context));
  MN_TRY(mn_setting_between(s, eps_key, "attention.layer_norm_rms_epsilon", MN_NEEDED_REAL, 0, 1, &t->norm_eps));
  return mn_transformer_tied(s, tied, t);
}

mn_status mn_hybrid_layers(mn_settings *s, const char *key, int64_t layers, const char *const *words, int **kinds) {
  const mn_value *v = mn_setting(s, key, NULL);
  char shown[MN_PRINTABLE];
  *kinds = NULL;
  if (!v) return MN_OK;
  if (v->kind != MN_LIST || (int64_t)v->count != layers) return mn_setting_refuse(s, key, NULL, "must be a list of a word for each layer");
  if (!(*kinds = mn_arena_alloc(s->arena, (size_t)layers * sizeof **kinds))) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < layers; i++) {
    const mn_value *one = v->as.items[i];
    int k = 0;
    if (one->kind != MN_TEXT) return mn_setting_refuse(s, key, NULL, "must be a list of words");
    while (words[k] && strcmp(words[k], one->as.text) != 0) k++;
    if (!words[k]) return mn_setting_refuse(s, key, NULL, "has a layer of kind '%s', which is not done", mn_printable(one->as.text, shown));
    (*kinds)[i] = k;
  }
  return MN_OK;
}

mn_status mn_hybrid_kv_layers(mn_settings *s, int64_t layers, int **kinds, int64_t *kv_heads) {
  static const char key[] = "attention.head_count_kv";
  const mn_value *v = mn_setting(s, NULL, key);
  *kv_heads = 0;
  if (!v || (v->kind == MN_LIST && (int64_t)v->count != layers) || (v->kind != MN_LIST && v->kind != MN_INTEGER))
    return mn_setting_refuse(s, NULL, key, "must be a number, or a list of one for each layer");
  if (!(*kinds = mn_arena_alloc(s->arena, (size_t)layers * sizeof **kinds))) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < layers; i++) {
    const mn_value *one = v->kind == MN_LIST ? v->as.items[i] : v;
    if (one->kind != MN_INTEGER || one->as.integer < 0 || one->as.integer > 1 << 16)
      return mn_setting_refuse(s, NULL, key, "must hold numbers of heads");
    (*kinds)[i] = one->as.integer > 0;
    if (one->as.integer && *kv_heads && one->as.integer != *kv_heads)
      return mn_setting_refuse(s, NULL, key, "has layers of different numbers of heads, which is not done");
    if (one->as.integer) *kv_heads = one->as.integer;
  }
  return MN_OK;
}

mn_status mn_hybrid_holds(mn_settings *s, const char *key, int64_t x, bool *out) {
  const mn_value *v = mn_setting(s, key, NULL);
  *out = false;
  if (!v) return MN_OK;
  if (v->kind != MN_LIST) return mn_setting_refuse(s, key, NULL, "must be a list of layers");
  for (size_t i = 0; i < v->count; i++) {
    if (v->as.items[i]->kind != MN_INTEGER) return mn_setting_refuse(s, key, NULL, "must be a list of layers");
    *out = *out || v->as.items[i]->as.integer == x;
  }
  return MN_OK;
}

/* A number, or infinity as programs spell it that write JSON by its rules. */
static bool number(const mn_value *v, double *out) {
  const mn_value *word = v->kind == MN_MAP ? mn_value_get(v, "__float__") : NULL;
  if (word) {
    *out = HUGE_VAL;
    return word->kind == MN_TEXT && !strcmp(word->as.text, "Infinity");
  }
  return mn_value_number(v, out);
}

mn_status mn_hybrid_numbers(mn_settings *s, const char *key, int n, const double *otherwise, double *out) {
  const mn_value *v = mn_setting(s, key, NULL);
  for (int i = 0; i < n; i++) out[i] = otherwise[i];
  if (!v) return MN_OK;
  bool ok = v->kind == MN_LIST && v->count == (size_t)n;
  for (int i = 0; ok && i < n; i++) ok = number(v->as.items[i], &out[i]);
  return ok ? MN_OK : mn_setting_refuse(s, key, NULL, "must be a list of %d numbers", n);
}

mn_status mn_hybrid_mamba(mn_settings *s, int64_t d_model, double eps, mn_keys *mixer) {
  mn_hybrid_state m = {.norm_eps = eps};
  int64_t heads, expand;
  MN_TRY(mn_setting_int(s, "mamba_n_heads", "ssm.time_step_rank", MN_NEEDED, &heads));
  MN_TRY(mn_setting_int(s, "mamba_d_state", "ssm.state_size", MN_NEEDED, &m.state));
  MN_TRY(mn_setting_int(s, "mamba_n_groups", "ssm.group_count", 1, &m.groups));
  MN_TRY(mn_setting_int(s, "mamba_d_conv", "ssm.conv_kernel", 4, &m.conv));
  MN_TRY(mn_setting_int(s, "mamba_expand", NULL, 2, &expand));
  MN_TRY(mn_setting_int(s, "mamba_d_ssm", "ssm.inner_size", expand * d_model, &m.inner));
  const mn_value *width = mn_setting(s, "mamba_d_head", NULL);
  if (width && width->kind != MN_TEXT) MN_TRY(mn_setting_int(s, "mamba_d_head", NULL, 0, &m.head_dim));
  if (!m.head_dim && heads) m.head_dim = m.inner / heads;
  if (!heads || heads * m.head_dim != m.inner || m.inner < 1)
    return mn_setting_refuse(s, "mamba_n_heads", "ssm.time_step_rank", "and the width of a head do not make the inner width, %lld",
                             (long long)m.inner);
  MN_TRY(mn_setting_bool(s, "mamba_proj_bias", NULL, false, &m.bias));
  MN_TRY(mn_setting_bool(s, "mamba_conv_bias", NULL, true, &m.conv_bias));
  return mn_hybrid_state_keys(s, &m, mixer);
}

mn_status mn_hybrid_state_keys(mn_settings *s, const mn_hybrid_state *m, mn_keys *mixer) {
  static const double none[2] = {0, HUGE_VAL};
  double limit[2];
  MN_TRY(mn_hybrid_numbers(s, "time_step_limit", 2, none, limit));
  mn_keys_text(mixer, "type", "mamba2");
  mn_keys_int(mixer, "inner", m->inner);
  mn_keys_int(mixer, "head_dim", m->head_dim);
  mn_keys_int(mixer, "state", m->state);
  mn_keys_int(mixer, "groups", m->groups);
  mn_keys_int(mixer, "conv", m->conv);
  mn_keys_int(mixer, "norm_groups", m->groups);
  mn_keys_real(mixer, "norm_eps", m->norm_eps);
  if (m->bias) mn_keys_bool(mixer, "bias", true);
  if (!m->conv_bias) mn_keys_bool(mixer, "conv_bias", false);
  if (limit[0] > 0) mn_keys_real(mixer, "dt_min", limit[0]);
  if (limit[1] < 1e300) mn_keys_real(mixer, "dt_max", limit[1]);
  return MN_OK;
}

int64_t mn_hybrid_mamba_key(const mn_mixer *mixer, const char *key) {
  const mn_mixer_list *parts = mixer ? mn_mixer_parts(mixer) : NULL;
  for (int i = 0; parts && i < parts->n; i++)
    if (!strcmp(parts->items[i].def->name, "mamba2")) return mn_hybrid_mamba_key(&parts->items[i], key);
  return mixer && mn_field_find(mixer->def->fields, key) ? mn_arch_mixer_key(mixer, key) : 1;
}

void mn_hybrid_conv_shape(const mn_mixer *mixer, const mn_arch_tensor *row, mn_checkpoint_form form, mn_shape *s) {
  (void)mixer, (void)row;
  if (form == MN_FORM_HF) *s = MN_SHAPE(s->dim[0], 1, s->dim[1]);
}

int64_t mn_hybrid_pair_place(const mn_arch_tensor *row, int64_t r) { return 2 * r + (strstr(row->param, "up_proj") != NULL); }

void mn_hybrid_pair_shape(mn_checkpoint_form form, mn_shape *s) {
  if (form == MN_FORM_HF) *s = MN_SHAPE(s->dim[0] / 2, 2 * s->dim[1], s->dim[2]);
}

void mn_hybrid_mamba_shape(const mn_mixer *mixer, const mn_arch_tensor *row, mn_checkpoint_form form, mn_shape *s) {
  const bool hf = form == MN_FORM_HF;
  const char *name = strrchr(row->param, '.') + 1;
  if (strstr(row->param, "conv.weight")) {
    mn_hybrid_conv_shape(mixer, row, form, s);
  } else if (!strcmp(name, "A_log") || !strcmp(name, "D")) {
    *s = hf ? MN_SHAPE(mn_shape_count(s)) : MN_SHAPE(mn_shape_count(s), 1);
  } else if (!hf && strstr(row->param, "norm.weight")) {
    const int64_t groups = mn_hybrid_mamba_key(mixer, "groups");
    *s = MN_SHAPE(groups, mn_shape_count(s) / groups);
  }
}

mn_status mn_say_mamba(const mn_value *recipe, mn_keys *keys) {
  const mn_value *m = mn_recipe_first(recipe, "mamba2"), *conv_bias = mn_value_get(m, "conv_bias");
  if (!m) return MN_OK;
  mn_keys_int(keys, "mamba_d_head", (int64_t)mn_recipe_number(m, "head_dim", 0));
  mn_keys_int(keys, "mamba_expand", (int64_t)(mn_recipe_number(m, "inner", 0) / mn_recipe_number(recipe, "d_model", 1)));
  mn_keys_bool(keys, "mamba_proj_bias", mn_recipe_true(m, "bias"));
  mn_keys_bool(keys, "mamba_conv_bias", !conv_bias || mn_recipe_true(m, "conv_bias"));
  return MN_OK;
}

mn_status mn_hybrid_rope(mn_settings *s, const mn_transformer *t, double theta, double partial, mn_keys *attention) {
  static const char rope[] = "rope_parameters";
  const mn_value *map = mn_setting(s, rope, NULL), *old = mn_setting(s, "rope_scaling", NULL), *kind = mn_value_get(map, "rope_type");
  const mn_value *given = mn_value_get(map, "rope_theta"), *part = mn_value_get(map, "partial_rotary_factor");
  const bool whole = partial == 1;
  int64_t rotated;
  if (s->form == MN_FORM_GGUF) theta = MN_GGUF_THETA;
  MN_TRY(mn_setting_between(s, "rope_theta", "rope.freq_base", theta, 1, 1e12, &theta));
  MN_TRY(mn_setting_real(s, "partial_rotary_factor", NULL, partial, &partial));
  if (old) return mn_setting_refuse(s, "rope_scaling", NULL, "stretches positions, which is not done for this architecture");
  if (map && (map->kind != MN_MAP || (kind && (kind->kind != MN_TEXT || strcmp(kind->as.text, "default") != 0))))
    return mn_setting_refuse(s, rope, NULL, "must be a map of rope_type default; stretched positions are not done for this architecture");
  if ((given && !mn_value_number(given, &theta)) || (part && !mn_value_number(part, &partial)))
    return mn_setting_refuse(s, rope, NULL, "must have numbers for rope_theta and partial_rotary_factor");
  if (s->form == MN_FORM_GGUF) MN_TRY(mn_setting_count(s, NULL, "rope.dimension_count", t->head_dim, &rotated));
  else MN_TRY(mn_transformer_rotated(s, t, partial, whole, &rotated));
  mn_keys_real(attention, "rope_theta", theta);
  if (rotated != t->head_dim) mn_keys_int(attention, "rope_dim", rotated);
  return MN_OK;
}

mn_status mn_hybrid_sigmoids(mn_settings *s) {
  enum { SIGMOIDS = 2 };
  int64_t how;
  MN_TRY(mn_setting_int(s, NULL, "expert_gating_func", SIGMOIDS, &how));
  if (how == SIGMOIDS) return MN_OK;
  return mn_setting_refuse(s, NULL, "expert_gating_func", "is %lld, which is not done; only 2 (sigmoids) is", (long long)how);
}

bool mn_hybrid_no_router(const mn_settings *s, int64_t layer) {
  char name[MN_ARCH_NAME];
  return s->form == MN_FORM_GGUF && !mn_checkpoint_find(s->from, mn_arch_filled("blk.#.ffn_gate_inp.weight", (int)layer, name));
}

const mn_value *mn_hybrid_moe(mn_settings *s, const mn_hybrid_experts *e) {
  mn_keys channel = {.arena = s->arena};
  mn_keys_text(&channel, "type", "moe");
  mn_keys_int(&channel, "experts", e->experts);
  mn_keys_int(&channel, "top_k", e->top_k);
  if (e->sigmoid) mn_keys_text(&channel, "score", "sigmoid");
  mn_keys_bool(&channel, "normalize", e->normalize);
  if (e->choice_bias) mn_keys_bool(&channel, "choice_bias", true);
  if (e->scale != 1) mn_keys_real(&channel, "scale", e->scale);
  if (e->shared) mn_keys_int(&channel, "shared", e->shared);
  if (e->shared_gate) mn_keys_bool(&channel, "shared_gate", true);
  return mn_keys_map(&channel);
}

const mn_value *mn_hybrid_block(mn_settings *s, const mn_value *mixer, const mn_value *channel, int64_t hidden, double residual_scale) {
  mn_keys block = {.arena = s->arena};
  mn_keys_put(&block, "mixer", mixer);
  mn_keys_put(&block, "channel", channel);
  if (hidden) mn_keys_int(&block, "hidden", hidden);
  if (residual_scale != 1) mn_keys_real(&block, "residual_scale", residual_scale);
  return mn_keys_map(&block);
}
