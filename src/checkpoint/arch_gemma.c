/* arch_gemma.c - Gemma: embeddings times sqrt(d_model), geglu, norms whose gain is 1 + w (GGUF holds the sum). Gemma 2 (Riviere et al. 2024,
 * arXiv 2408.00118): norms before and after each part, capped scores and logits, every other layer sees a window. Gemma 3 (Kamath et al.
 * 2025, arXiv 2503.19786): norms of queries and keys instead of caps, five layers of six see a window and rotate with a base of their own. */
#include "checkpoint/say.h"
#include "checkpoint/transformer.h"

#include <math.h>
#include <string.h>

#include "base/text.h"

typedef struct gemma {
  int generation; /* 1 to 3 */
  mn_transformer t;
  double scale, score_cap, logit_cap;
  int64_t window;
  const bool *local;
} gemma;

/* Most GGUF files do not say what scores are multiplied by: it is 1 / sqrt(head_dim) then, but for the models with this many layers. */
static mn_status read_scale(mn_settings *s, gemma *m) {
  const mn_transformer *t = &m->t;
  const bool odd = s->form == MN_FORM_GGUF && t->layers == (m->generation == 2 ? 46 : 62) && t->heads;
  double of;
  MN_TRY(mn_setting_real(s, "query_pre_attn_scalar", NULL,
                         odd ? (double)t->d_model / (double)t->heads : (double)(s->form == MN_FORM_HF ? 256 : t->head_dim), &of));
  if (!(of > 0)) return mn_setting_refuse(s, "query_pre_attn_scalar", NULL, "is %g, and must be above 0", of);
  return mn_setting_real(s, NULL, "attention.scale", 1 / sqrt(of), &m->scale);
}

/* A cap: absent, the architecture's own; null, or 0 in GGUF: none. */
static mn_status read_cap(mn_settings *s, const char *key, double usual, double *cap) {
  MN_TRY(mn_setting_real(s, key, key, mn_setting_is_null(s, key) ? 0 : usual, cap));
  const bool said = mn_setting(s, key, key) != NULL;
  if (*cap < 0 || (said && *cap == 0 && s->form == MN_FORM_HF))
    return mn_setting_refuse(s, key, key, "is %g, and must be above 0; null is no cap", *cap);
  return MN_OK;
}

static mn_status read_settings(mn_settings *s, gemma *m) {
  const bool second = m->generation == 2;
  MN_TRY(mn_transformer_read(s, true, &m->t));
  if (!mn_setting(s, "head_dim", "attention.key_length")) m->t.head_dim = 256;
  MN_TRY(mn_setting_only_bool(s, "attention_bias", NULL, false));
  if (m->generation == 1) return MN_OK;
  MN_TRY(mn_setting_only_bool(s, "use_bidirectional_attention", NULL, false));
  const bool all = s->form == MN_FORM_GGUF && !second; /* where nothing is said, no layer has a window */
  MN_TRY(mn_setting_int(s, "sliding_window", "attention.sliding_window", all ? 0 : 4096, &m->window));
  int64_t period = 2;
  MN_TRY(read_cap(s, "attn_logit_softcapping", second ? 50 : 0, &m->score_cap));
  MN_TRY(read_cap(s, "final_logit_softcapping", second ? 30 : 0, &m->logit_cap));
  if (!second && m->score_cap > 0)
    return mn_setting_refuse(s, "attn_logit_softcapping", "attn_logit_softcapping", "is %g; scores of Gemma 3 have no cap", m->score_cap);
  if (!second) MN_TRY(mn_setting_int(s, "sliding_window_pattern", NULL, 6, &period));
  if (!all || m->window) MN_TRY(mn_transformer_local(s, &m->t, period, &m->local));
  return read_scale(s, m);
}

/* Attention of layers that see all, or a window. */
static mn_status attention_of(mn_settings *s, gemma *m, bool local, mn_keys *attention) {
  const mn_keys empty = *attention;
  double theta = 10000;
  MN_TRY(
      mn_transformer_rope(s, &m->t, m->generation == 3 && !local ? 1e6 : 10000, local ? "sliding_attention" : "full_attention", attention));
  const mn_value *map = mn_setting(s, "rope_parameters", NULL);
  if (map && m->generation == 3 && !(mn_value_get(map, "sliding_attention") && mn_value_get(map, "full_attention")))
    return mn_setting_refuse(s, "rope_parameters", NULL, "must have a map for full_attention, and one for sliding_attention");
  if (local && m->generation == 3 && !(map && mn_value_get(map, "sliding_attention"))) { /* not rope_theta and rope_scaling, but its own */
    *attention = empty;
    MN_TRY(mn_setting_real(s, "rope_local_base_freq", "rope.freq_base_swa", 10000, &theta));
    mn_keys_real(attention, "rope_theta", theta);
  } else if (local && mn_setting(s, NULL, "rope.freq_base_swa")) { /* of Gemma 2, whose directories know one base */
    MN_TRY(mn_setting_between(s, NULL, "rope.freq_base_swa", MN_NEEDED_REAL, 1, 1e12, &theta));
    mn_keys_change(attention, "rope_theta", mn_value_real(attention->arena, theta));
  }
  mn_transformer_heads(&m->t, local ? m->window : 0, attention);
  if (m->scale > 0) mn_keys_real(attention, "score_scale", m->scale);
  if (m->score_cap > 0) mn_keys_real(attention, "softcap", m->score_cap);
  if (m->generation < 3) return MN_OK;
  mn_keys_text(attention, "qk_norm", "heads");
  mn_keys_real(attention, "qk_norm_eps", m->t.norm_eps);
  return MN_OK;
}

/* Gemma 1 is said to have what it never had, in hidden_act: it is gelu_tanh whichever setting says gelu. Later ones do not read hidden_act. */
static mn_status read_activation(mn_settings *s, int generation, const char **out) {
  if (generation > 1) return mn_transformer_activation(s, "hidden_activation", "gelu_pytorch_tanh", out);
  for (int i = 0; i < 2; i++) {
    const char *key = i ? "hidden_act" : "hidden_activation", *word;
    char shown[MN_PRINTABLE];
    MN_TRY(mn_setting_text(s, key, NULL, "gelu_pytorch_tanh", &word));
    if (strcmp(word, "gelu_pytorch_tanh") != 0 && !(i && !strcmp(word, "gelu")))
      return mn_setting_refuse(s, key, NULL, "is '%s', which is not done; only gelu_pytorch_tanh is", mn_printable(word, shown));
  }
  *out = "gelu_tanh";
  return MN_OK;
}

static mn_status recipe(mn_settings *s, int generation, const mn_value **out) {
  gemma m = {.generation = generation};
  mn_keys model = {.arena = s->arena}, gated = model;
  const mn_value *block[2] = {NULL, NULL};
  const char *activation;
  MN_TRY(read_settings(s, &m));
  MN_TRY(read_activation(s, generation, &activation));
  mn_keys_text(&gated, "type", "glu");
  mn_keys_text(&gated, "activation", activation);
  for (int i = 0; i < (m.local ? 2 : 1); i++) {
    mn_keys attention = {.arena = s->arena};
    MN_TRY(attention_of(s, &m, i, &attention));
    block[i] = mn_transformer_block(s, &m.t, &attention, NULL, mn_keys_map(&gated), generation > 1 ? "sandwich" : NULL);
  }
  mn_transformer_model(&m.t, "decoder", "rms", &model);
  mn_keys_bool(&model, "scale_embeddings", true);
  if (m.logit_cap > 0) mn_keys_real(&model, "logit_softcap", m.logit_cap);
  mn_transformer_blocks(s, &m.t, block, m.local, &model);
  *out = mn_keys_map(&model);
  return MN_OK;
}

/* 1 / scale^2, whole where it is. */
static double scalar_of(double scale) {
  const double of = 1 / (scale * scale), near = round(of);
  return fabs(of - near) < 1e-5 * of ? near : of;
}

static mn_status say(const mn_settings *from, const mn_value *recipe, mn_checkpoint_form to, mn_keys *keys) {
  const mn_value *all = mn_recipe_attention(recipe, false), *near = mn_recipe_attention(recipe, true), *one = all ? all : near;
  const double scale = mn_recipe_number(one, "score_scale", 0), cap = mn_recipe_number(one, "softcap", 0),
               last = mn_recipe_number(recipe, "logit_softcap", 0);
  const int64_t n = mn_recipe_layers(recipe);
  const bool *local, second = !mn_value_get(one, "qk_norm"); /* which has caps where nothing is said */
  bool any;
  (void)from;
  MN_TRY(mn_say_local(recipe, keys->arena, &local, &any));
  if (to == MN_FORM_GGUF) {
    mn_keys_real(keys, "attention.scale", scale);
    if (cap > 0 || second) mn_keys_real(keys, "attn_logit_softcapping", cap);
    if (last > 0 || second) mn_keys_real(keys, "final_logit_softcapping", last);
    mn_say_truths(keys, "attention.sliding_window_pattern", n, local);
    if (near) mn_keys_real(keys, "rope.freq_base_swa", mn_recipe_number(near, "rope_theta", 10000));
    return MN_OK;
  }
  const double of = scale > 0 ? scalar_of(scale) : 0;
  if (of > 0 && of == floor(of)) mn_keys_int(keys, "query_pre_attn_scalar", (int64_t)of); /* its only type there */
  else if (of > 0) mn_keys_real(keys, "query_pre_attn_scalar", of);
  if (cap > 0) mn_keys_real(keys, "attn_logit_softcapping", cap);
  else if (second) mn_say_null(keys, "attn_logit_softcapping");
  if (last > 0) mn_keys_real(keys, "final_logit_softcapping", last);
  else if (second) mn_say_null(keys, "final_logit_softcapping");
  if (near) mn_keys_real(keys, "rope_local_base_freq", mn_recipe_number(near, "rope_theta", 10000));
  mn_keys_real(keys, "rope_theta", mn_recipe_number(one, "rope_theta", 10000));
  return mn_say_local_words(recipe, keys);
}

static mn_status first_recipe(mn_settings *s, const mn_value **out) { return recipe(s, 1, out); }
static mn_status second_recipe(mn_settings *s, const mn_value **out) { return recipe(s, 2, out); }
static mn_status third_recipe(mn_settings *s, const mn_value **out) { return recipe(s, 3, out); }

static const mn_arch_tensor first[] = {
    MN_ROWS_TRUNK(MN_T_LESS_ONE), MN_ROWS_PRE_NORMS(MN_T_LESS_ONE), MN_ROWS_ATTENTION(0), MN_ROWS_GATED, {0}};
static const mn_arch_tensor later[] = {
    MN_ROWS_TRUNK(MN_T_LESS_ONE),
    MN_ROWS_ATTENTION(0),
    MN_ROWS_QK_NORM(MN_T_LESS_ONE),
    MN_ROWS_GATED,
    MN_ROW("layers.#.mixer_norm", "model.layers.#.input_layernorm", "blk.#.attn_norm", MN_T_LESS_ONE, 0),
    MN_ROW("layers.#.mixer_post_norm", "model.layers.#.post_attention_layernorm", "blk.#.post_attention_norm", MN_T_LESS_ONE, 0),
    MN_ROW("layers.#.channel_norm", "model.layers.#.pre_feedforward_layernorm", "blk.#.ffn_norm", MN_T_LESS_ONE, 0),
    MN_ROW("layers.#.channel_post_norm", "model.layers.#.post_feedforward_layernorm", "blk.#.post_ffw_norm", MN_T_LESS_ONE, 0),
    {0}};

const mn_arch_def mn_arch_gemma = {
    .name = "gemma",
    .summary = "Gemma 1",
    .types = "gemma",
    .classes = "GemmaForCausalLM",
    .gguf = "gemma",
    .recipe = first_recipe,
    .tensors = first,
};

const mn_arch_def mn_arch_gemma2 = {
    .name = "gemma2",
    .summary = "Gemma 2",
    .types = "gemma2",
    .classes = "Gemma2ForCausalLM",
    .gguf = "gemma2",
    .idle = "hidden_act rope_local_base_freq",
    .recipe = second_recipe,
    .tensors = later,
    .say = say,
};

const mn_arch_def mn_arch_gemma3 = {
    .name = "gemma3",
    .summary = "Gemma 3, its models of text",
    .types = "gemma3_text",
    .classes = "Gemma3ForCausalLM",
    .gguf = "gemma3",
    .idle = "hidden_act",
    .recipe = third_recipe,
    .tensors = later,
    .say = say,
};
