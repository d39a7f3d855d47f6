/* transformer.c - see transformer.h. */
#include "checkpoint/transformer.h"

#include <string.h>

#include "base/text.h"

/* GGUF need not say how many tokens there are: the embedding does. */
static mn_status read_vocabulary(mn_settings *s, int64_t *out) {
  const mn_checkpoint_tensor *t = s->form == MN_FORM_GGUF ? mn_checkpoint_find(s->from, "token_embd.weight") : NULL;
  return mn_setting_int(s, "vocab_size", "vocab_size", t && t->shape.ndim == 2 ? t->shape.dim[0] : MN_NEEDED, out);
}

mn_status mn_transformer_read(mn_settings *s, bool tied, mn_transformer *t) {
  MN_TRY(read_vocabulary(s, &t->vocab_size));
  MN_TRY(mn_setting_int(s, "hidden_size", "embedding_length", MN_NEEDED, &t->d_model));
  MN_TRY(mn_setting_int(s, "num_hidden_layers", "block_count", MN_NEEDED, &t->layers));
  MN_TRY(mn_setting_int(s, "num_attention_heads", "attention.head_count", MN_NEEDED, &t->heads));
  MN_TRY(mn_setting_int(s, "num_key_value_heads", "attention.head_count_kv", t->heads, &t->kv_heads));
  MN_TRY(mn_setting_int(s, "head_dim", "attention.key_length", t->heads ? t->d_model / t->heads : 0, &t->head_dim));
  MN_TRY(mn_setting_int(s, "intermediate_size", "feed_forward_length", MN_NEEDED, &t->hidden));
  MN_TRY(mn_setting_int(s, "max_position_embeddings", "context_length", 2048, &t->context));
  MN_TRY(mn_setting_real(s, "rms_norm_eps", "attention.layer_norm_rms_epsilon", MN_NEEDED_REAL, &t->norm_eps));
  MN_TRY(mn_setting_bool(s, "tie_word_embeddings", NULL, tied, &t->tied));
  if (s->form == MN_FORM_GGUF) t->tied = !mn_checkpoint_find(s->from, "output.weight");
  return MN_OK;
}

/* ---- rotary positions ---- */
typedef struct scaling {
  const char *kind;
  double factor, original;
} scaling;

/* The map's number by name; `otherwise` where it has none. */
static mn_status number(const mn_settings *s, const char *of, const mn_value *map, const char *key, double otherwise, double *out) {
  const mn_value *v = mn_value_get(map, key);
  *out = otherwise;
  if (!v || v->kind == MN_NULL || mn_value_number(v, out)) return MN_OK;
  return mn_setting_refuse(s, of, NULL, "has a %s that is no number", key);
}

static mn_status only(const mn_settings *s, const char *of, const mn_value *map, const char *key, double what) {
  double is;
  MN_TRY(number(s, of, map, key, what, &is));
  return is == what ? MN_OK : mn_setting_refuse(s, of, NULL, "has %s: %g, which is not done; only %g is", key, is, what);
}

/* Every key of the map has a meaning here. */
static mn_status known(const mn_settings *s, const char *of, const mn_value *map, const char *const *keys) {
  char shown[MN_PRINTABLE];
  for (size_t i = 0; i < map->count; i++) {
    int k = 0;
    while (keys[k] && strcmp(keys[k], map->as.entries[i].key) != 0) k++;
    if (!keys[k] && map->as.entries[i].value->kind != MN_NULL)
      return mn_setting_refuse(s, of, NULL, "has the key '%s', which is not done", mn_printable(map->as.entries[i].key, shown));
  }
  return MN_OK;
}

static mn_status read_hf(mn_settings *s, const mn_transformer *t, const char *of, const mn_value *map, double *theta, scaling *out) {
  static const char *const plain[] = {"rope_type", "type", "rope_theta", "partial_rotary_factor", NULL};
  static const char *const stretched[] = {
      "rope_type", "type", "rope_theta", "partial_rotary_factor", "factor", "original_max_position_embeddings", NULL};
  static const char *const llama3[] = {
      "rope_type",        "type", "rope_theta", "partial_rotary_factor", "factor", "original_max_position_embeddings", "low_freq_factor",
      "high_freq_factor", NULL};
  static const char *const yarn[] = {
      "rope_type", "type",     "rope_theta", "partial_rotary_factor", "factor", "original_max_position_embeddings", "beta_fast",
      "beta_slow", "truncate", NULL};
  char shown[MN_PRINTABLE];
  if (map->kind != MN_MAP) return mn_setting_refuse(s, of, NULL, "must be a map");
  const mn_value *kind = mn_value_get(map, "rope_type");
  if (!kind) kind = mn_value_get(map, "type");
  if (kind && kind->kind != MN_TEXT) return mn_setting_refuse(s, of, NULL, "has a rope_type that is no text");
  out->kind = kind ? kind->as.text : "default";
  MN_TRY(number(s, of, map, "rope_theta", *theta, theta));
  MN_TRY(number(s, of, map, "factor", 1, &out->factor));
  MN_TRY(number(s, of, map, "original_max_position_embeddings", (double)t->context, &out->original));
  MN_TRY(only(s, of, map, "partial_rotary_factor", 1));
  if (!strcmp(out->kind, "default")) {
    out->kind = "none";
    return known(s, of, map, plain);
  }
  if (!strcmp(out->kind, "linear")) return known(s, of, map, stretched);
  if (!strcmp(out->kind, "llama3")) {
    MN_TRY(only(s, of, map, "low_freq_factor", 1));
    MN_TRY(only(s, of, map, "high_freq_factor", 4));
    return known(s, of, map, llama3);
  }
  if (!strcmp(out->kind, "yarn")) {
    const mn_value *truncate = mn_value_get(map, "truncate");
    MN_TRY(only(s, of, map, "beta_fast", 32));
    MN_TRY(only(s, of, map, "beta_slow", 1));
    if (truncate && (truncate->kind != MN_BOOLEAN || !truncate->as.boolean))
      return mn_setting_refuse(s, of, NULL, "has truncate: false, which is not done");
    return known(s, of, map, yarn);
  }
  return mn_setting_refuse(s, of, NULL, "is of type '%s', which is not done; default, linear, yarn and llama3 are",
                           mn_printable(out->kind, shown));
}

static mn_status read_gguf(mn_settings *s, const mn_transformer *t, scaling *out) {
  const char *kind;
  MN_TRY(mn_setting_text(s, NULL, "rope.scaling.type", "none", &kind));
  MN_TRY(mn_setting_real(s, NULL, "rope.scaling.factor", 1, &out->factor));
  MN_TRY(mn_setting_real(s, NULL, "rope.scaling.original_context_length", (double)t->context, &out->original));
  out->kind = kind;
  if (!strcmp(kind, "none") || !strcmp(kind, "linear") || !strcmp(kind, "yarn")) return MN_OK;
  return mn_setting_refuse(s, "rope_scaling", "rope.scaling.type", "is '%s', which is not done; none, linear and yarn are", kind);
}

mn_status mn_transformer_rope(mn_settings *s, const mn_transformer *t, double theta, mn_keys *attention) {
  scaling how = {"none", 1, 0};
  const mn_value *old = mn_setting(s, "rope_scaling", NULL), *new = mn_setting(s, "rope_parameters", NULL);
  MN_TRY(mn_setting_real(s, "rope_theta", "rope.freq_base", theta, &theta));
  MN_TRY(mn_setting_only_real(s, "partial_rotary_factor", NULL, 1));
  if (s->form == MN_FORM_GGUF) {
    int64_t rotated;
    MN_TRY(mn_setting_int(s, NULL, "rope.dimension_count", t->head_dim, &rotated));
    if (rotated != t->head_dim) mn_keys_int(attention, "rope_dim", rotated);
    MN_TRY(read_gguf(s, t, &how));
  } else if (new || old) {
    MN_TRY(read_hf(s, t, new ? "rope_parameters" : "rope_scaling", new ? new : old, &theta, &how));
  }
  mn_keys_real(attention, "rope_theta", theta);
  if (!strcmp(how.kind, "none")) return MN_OK;
  mn_keys_text(attention, "rope_scaling", how.kind);
  mn_keys_real(attention, "rope_factor", how.factor);
  if (strcmp(how.kind, "linear") != 0) mn_keys_int(attention, "rope_original_context", (int64_t)how.original);
  return MN_OK;
}

void mn_transformer_heads(const mn_transformer *t, int64_t window, mn_keys *attention) {
  mn_keys_text(attention, "type", "attention");
  mn_keys_int(attention, "heads", t->heads);
  mn_keys_int(attention, "kv_heads", t->kv_heads);
  mn_keys_int(attention, "head_dim", t->head_dim);
  if (window) mn_keys_int(attention, "window", window);
  else mn_keys_int(attention, "max_context", t->context);
}

void mn_transformer_model(const mn_transformer *t, mn_keys *model) {
  mn_keys_text(model, "type", "decoder");
  mn_keys_int(model, "vocab_size", t->vocab_size);
  mn_keys_int(model, "d_model", t->d_model);
  mn_keys_bool(model, "tie_embeddings", t->tied);
  mn_keys_text(model, "norm", "rms");
  mn_keys_real(model, "norm_eps", t->norm_eps);
}
