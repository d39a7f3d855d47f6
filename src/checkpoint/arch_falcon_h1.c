/* arch_falcon_h1.c - Falcon-H1: attention and Mamba-2 side by side in every layer (Zuo et al. 2025, arXiv 2507.22448). Numbers of the
 * settings multiply what goes into projections and comes out of them; here the projections are multiplied instead, as they are already in
 * GGUF. */
#include "checkpoint/arch.h"
#include "checkpoint/hybrid.h"
#include "checkpoint/say.h"

#include <math.h>
#include <string.h>

/* Settings that are multiplied into matrices must be numbers, for who asks again (scale). */
static mn_status check_factors(mn_settings *s) {
  static const char *const one[] = {"attention_in_multiplier", "attention_out_multiplier", "key_multiplier", "ssm_in_multiplier",
                                    "ssm_out_multiplier"};
  static const double ones[] = {1, 1, 1, 1, 1};
  double got[5];
  for (int i = 0; i < 5; i++) MN_TRY(mn_setting_real(s, one[i], NULL, 1, got));
  MN_TRY(mn_hybrid_numbers(s, "mlp_multipliers", 2, ones, got));
  return mn_hybrid_numbers(s, "ssm_multipliers", 5, ones, got);
}

/* Is what the state says normed, and where? */
static mn_status read_norm(mn_settings *s, mn_keys *mamba) {
  bool norm, before;
  const bool there = s->form == MN_FORM_GGUF && mn_checkpoint_find(s->from, "blk.0.ssm_norm.weight");
  MN_TRY(mn_setting_bool(s, "mamba_rms_norm", NULL, there, &norm));
  MN_TRY(mn_setting_bool(s, "mamba_norm_before_gate", NULL, s->form == MN_FORM_HF, &before));
  if (norm) mn_keys_text(mamba, "norm", before ? "before_gate" : "after_gate");
  else mn_keys_text(mamba, "norm", "none");
  return MN_OK;
}

static mn_status recipe(mn_settings *s, const mn_value **out) {
  mn_transformer t;
  mn_keys model = {.arena = s->arena}, mamba = model, attention = model, both = model;
  double embedding, logits;
  bool bias, out_bias;
  MN_TRY(mn_hybrid_read(s, "rms_norm_eps", false, &t));
  MN_TRY(mn_hybrid_mamba(s, t.d_model, t.norm_eps, &mamba));
  MN_TRY(read_norm(s, &mamba));
  if (s->form == MN_FORM_GGUF) MN_TRY(mn_setting_int(s, NULL, "attention.head_count_kv", t.heads, &t.kv_heads));
  MN_TRY(check_factors(s));
  MN_TRY(mn_setting_factor(s, "embedding_multiplier", NULL, 1, &embedding));
  MN_TRY(mn_setting_factor(s, "lm_head_multiplier", NULL, 1, &logits));
  MN_TRY(mn_setting_only_text(s, "hidden_act", NULL, "silu"));
  MN_TRY(mn_setting_only_bool(s, "attention_bias", NULL, false));
  MN_TRY(mn_setting_only_bool(s, "mlp_bias", NULL, false));
  MN_TRY(mn_setting_bool(s, "mamba_proj_bias", NULL, false, &bias));
  MN_TRY(mn_setting_bool(s, "projectors_bias", NULL, false, &out_bias));
  if (bias != out_bias && s->form == MN_FORM_HF) /* of what goes in, and of what comes out */
    return mn_setting_refuse(s, bias ? "projectors_bias" : "mamba_proj_bias", NULL,
                             "is false beside %s, which is not done; both are, or none", bias ? "mamba_proj_bias" : "projectors_bias");
  mn_transformer_heads(&t, 0, &attention);
  MN_TRY(mn_transformer_rope(s, &t, 10000, NULL, &attention));
  const mn_value *mixers[] = {mn_keys_map(&attention), mn_keys_map(&mamba)};
  mn_keys_text(&both, "type", "parallel");
  mn_keys_put(&both, "mixers", mn_value_list(s->arena, 2, mixers));
  mn_transformer_model(&t, "decoder", "rms", &model);
  if (embedding != 1) mn_keys_real(&model, "embedding_scale", embedding);
  if (logits != 1) mn_keys_real(&model, "logit_scale", logits);
  mn_keys_int(&model, "layers", t.layers);
  mn_keys_put(&model, "block", mn_hybrid_block(s, mn_keys_map(&both), mn_value_text(s->arena, "swiglu"), t.hidden, 1));
  *out = mn_keys_map(&model);
  return MN_OK;
}

/* GGUF has projections that are multiplied already, so all factors are 1 in what is made of it. */
static mn_status say(const mn_settings *from, const mn_value *recipe, mn_checkpoint_form to, mn_keys *keys) {
  const mn_value *attention = mn_recipe_attention(recipe, false), *mixer = mn_value_get(mn_recipe_block(recipe, 0), "mixer"),
                 *several = mn_value_get(mixer, "mixers"), *mamba = several && several->count > 1 ? several->as.items[1] : NULL,
                 *norm = mn_value_get(mamba, "norm");
  const int64_t heads = (int64_t)mn_recipe_number(attention, "kv_heads", 0);
  (void)from;
  mn_keys_int(keys, to == MN_FORM_GGUF ? "attention.head_count_kv" : "num_key_value_heads", heads);
  if (to == MN_FORM_GGUF) {
    mn_keys_int(keys, "ssm.inner_size", (int64_t)mn_recipe_number(mamba, "inner", 0));
    return MN_OK;
  }
  mn_keys_bool(keys, "mamba_rms_norm", norm && strcmp(norm->as.text, "none") != 0);
  mn_keys_bool(keys, "mamba_norm_before_gate", norm && !strcmp(norm->as.text, "before_gate"));
  mn_keys_bool(keys, "projectors_bias", mn_recipe_true(mamba, "bias"));
  return mn_say_mamba(recipe, keys);
}

static double factor(const mn_checkpoint *c, const char *key, int i) {
  const mn_value *v = mn_value_get(mn_checkpoint_settings(c), key);
  double x = 1;
  if (v && i >= 0) v = v->kind == MN_LIST && (size_t)i < v->count ? v->as.items[i] : NULL;
  return v && mn_value_number(v, &x) ? x : 1;
}

/* Rows of the one projection into the state: z, x, B, C, and dt. */
static double of_state(const mn_checkpoint *c, const mn_mixer *mixer, bool step, int64_t r) {
  const int64_t inner = mn_hybrid_mamba_key(mixer, "inner"),
                shared = mn_hybrid_mamba_key(mixer, "groups") * mn_hybrid_mamba_key(mixer, "state");
  const int part = step ? 4 : r < inner ? 0 : r < 2 * inner ? 1 : r < 2 * inner + shared ? 2 : 3;
  return factor(c, "ssm_multipliers", part);
}

static double scale(const mn_checkpoint *c, const mn_mixer *mixer, const mn_arch_tensor *row, int64_t r) {
  const char *name = strrchr(row->param, '.'), *of = row->param;
  const bool bias = !strcmp(name, ".bias");
  if (strstr(of, "in_proj") || strstr(of, "dt_proj"))
    return of_state(c, mixer, strstr(of, "dt_proj") != NULL, r) * (bias ? 1 : factor(c, "ssm_in_multiplier", -1));
  if (strstr(of, "out_proj")) return factor(c, "ssm_out_multiplier", -1);
  if (strstr(of, "q_proj") || strstr(of, "v_proj")) return factor(c, "attention_in_multiplier", -1);
  if (strstr(of, "k_proj")) return factor(c, "attention_in_multiplier", -1) * factor(c, "key_multiplier", -1);
  if (strstr(of, "o_proj")) return factor(c, "attention_out_multiplier", -1);
  return factor(c, "mlp_multipliers", strstr(of, "down_proj") != NULL);
}

#define HF "model.layers.#."
static const mn_arch_tensor tensors[] = {
    {"embed_tokens.weight", "model.embed_tokens.weight", "token_embd.weight", 0, 0},
    {"layers.#.mixer_norm.weight", HF "input_layernorm.weight", "blk.#.attn_norm.weight", 0, 0},
    MN_ATTENTION_TENSORS("layers.#.mixer.mixers.0.", HF "self_attn.", MN_T_SCALED, 0),
    MN_MAMBA_TENSORS("layers.#.mixer.mixers.1.", HF "mamba.", MN_T_SCALED),
    {"layers.#.channel_norm.weight", HF "pre_ff_layernorm.weight", "blk.#.ffn_norm", 0, 0},
    {"layers.#.channel.gate_proj.weight", HF "feed_forward.gate_proj.weight", "blk.#.ffn_gate.weight", MN_T_SCALED, 0},
    {"layers.#.channel.up_proj.weight", HF "feed_forward.up_proj.weight", "blk.#.ffn_up.weight", 0, 0},
    {"layers.#.channel.down_proj.weight", HF "feed_forward.down_proj.weight", "blk.#.ffn_down.weight", MN_T_SCALED, 0},
    {"norm.weight", "model.final_layernorm.weight", "output_norm.weight", 0, 0},
    {"lm_head.weight", "lm_head.weight", "output.weight", 0, 0},
    {0}};

const mn_arch_def mn_arch_falcon_h1 = {
    .name = "falcon_h1",
    .summary = "Falcon-H1",
    .types = "falcon_h1",
    .classes = "FalconH1ForCausalLM",
    .gguf = "falcon-h1",
    .idle = "mamba_chunk_size num_logits_to_keep mamba_use_mlp attn_layer_indices rope.dimension_count",
    .recipe = recipe,
    .tensors = tensors,
    .scale = scale,
    .say = say,
    .shape = mn_hybrid_mamba_shape,
};
