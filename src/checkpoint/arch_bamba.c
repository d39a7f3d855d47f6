/* arch_bamba.c - Bamba: Mamba-2, attention in some layers, a channel part in all. Half of a head is rotated. In GGUF it is a Granite 4 that turns
 * its heads and multiplies nothing. */
#include "checkpoint/arch.h"
#include "checkpoint/hybrid.h"
#include "checkpoint/say.h"

#include <stdio.h>

static const mn_value *of_granite(const mn_settings *s, const char *key) {
  char name[96];
  snprintf(name, sizeof name, "granitehybrid.%s", key);
  return mn_value_get(s->map, name);
}

static bool is_bamba(const mn_settings *s) {
  static const char *const scales[] = {"attention.scale", "residual_scale", "embedding_scale", "logit_scale", "expert_count"};
  if (s->form == MN_FORM_HF) return true;
  for (size_t i = 0; i < sizeof scales / sizeof *scales; i++)
    if (of_granite(s, scales[i])) return false;
  const mn_value *turned = of_granite(s, "rope.scaling.finetuned");
  return turned && turned->kind == MN_BOOLEAN && turned->as.boolean;
}

static mn_status recipe(mn_settings *s, const mn_value **out) {
  mn_transformer t;
  mn_keys model = {.arena = s->arena}, mamba = model, attention = model;
  int *kinds = NULL;
  MN_TRY(mn_hybrid_read(s, "rms_norm_eps", false, &t));
  if (s->form == MN_FORM_GGUF) MN_TRY(mn_hybrid_kv_layers(s, t.layers, &kinds, &t.kv_heads));
  MN_TRY(mn_setting_only_bool(s, NULL, "rope.scaling.finetuned", true));
  MN_TRY(mn_hybrid_mamba(s, t.d_model, t.norm_eps, &mamba));
  MN_TRY(mn_setting_only_text(s, "hidden_act", NULL, "silu"));
  MN_TRY(mn_setting_only_bool(s, "attention_bias", NULL, false));
  MN_TRY(mn_setting_only_bool(s, "mlp_bias", NULL, false));
  mn_transformer_heads(&t, 0, &attention);
  MN_TRY(mn_hybrid_rope(s, &t, 10000, 0.5, &attention));
  const mn_value *mixer[] = {mn_keys_map(&mamba), mn_keys_map(&attention)}, *swiglu = mn_value_text(s->arena, "swiglu");
  const mn_value **blocks = mn_arena_alloc(s->arena, (size_t)t.layers * sizeof *blocks);
  if (!blocks) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < t.layers; i++) {
    bool attends;
    MN_TRY(mn_hybrid_holds(s, "attn_layer_indices", i, &attends));
    if (kinds) attends = kinds[i];
    blocks[i] = mn_hybrid_block(s, mixer[attends], swiglu, t.hidden, 1);
  }
  mn_transformer_model(&t, "decoder", "rms", &model);
  mn_keys_put(&model, "blocks", mn_value_list(s->arena, (size_t)t.layers, blocks));
  *out = mn_keys_map(&model);
  return MN_OK;
}

/* How much of a head is rotated is read in a map of rotary positions alone; beside it half is what is meant. */
static mn_status say_rope(const mn_value *attention, mn_keys *keys) {
  mn_keys map = {.arena = keys->arena};
  if (!attention) return MN_OK;
  mn_say_rope_map(attention, &map);
  mn_keys_put(keys, "rope_parameters", mn_keys_map(&map));
  mn_say_nothing(keys, "partial_rotary_factor");
  return MN_OK;
}

static mn_status say(const mn_settings *from, const mn_value *recipe, mn_checkpoint_form to, mn_keys *keys) {
  const int64_t n = mn_recipe_layers(recipe), heads = (int64_t)mn_recipe_number(mn_recipe_attention(recipe, false), "kv_heads", 0);
  const mn_value *mamba = mn_recipe_first(recipe, "mamba2");
  int64_t *attends = mn_arena_alloc(keys->arena, (size_t)(n + 1) * sizeof *attends), k = 0;
  (void)from;
  if (!attends) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < n; i++)
    if (mn_recipe_has_mixer(recipe, i, "attention")) attends[k++] = i;
  if (to == MN_FORM_GGUF) {
    if (mamba) mn_keys_int(keys, "ssm.inner_size", (int64_t)mn_recipe_number(mamba, "inner", 0));
    mn_keys_bool(keys, "rope.scaling.finetuned", true);
    return mn_say_kv_heads(recipe, keys, "attention", heads);
  }
  mn_keys_int(keys, "num_key_value_heads", heads);
  mn_say_numbers(keys, "attn_layer_indices", k, attends);
  MN_TRY(say_rope(mn_recipe_attention(recipe, false), keys));
  return mn_say_mamba(recipe, keys);
}

#define HF "model.layers.#."
static const mn_arch_tensor tensors[] = {
    {"embed_tokens.weight", "model.embed_tokens.weight", "token_embd.weight", 0, 0},
    {"layers.#.mixer_norm.weight", HF "input_layernorm.weight", "blk.#.attn_norm.weight", 0, 0},
    MN_MAMBA_TENSORS("layers.#.mixer.", HF "mamba.", 0),
    MN_ATTENTION_TENSORS("layers.#.mixer.", HF "self_attn.", 0, MN_T_ROTARY),
    {"layers.#.channel_norm.weight", HF "pre_ff_layernorm.weight", "blk.#.ffn_norm.weight", 0, 0},
    {"layers.#.channel.gate_proj.weight", HF "feed_forward.gate_proj.weight", "blk.#.ffn_gate.weight", 0, 0},
    {"layers.#.channel.up_proj.weight", HF "feed_forward.up_proj.weight", "blk.#.ffn_up.weight", 0, 0},
    {"layers.#.channel.down_proj.weight", HF "feed_forward.down_proj.weight", "blk.#.ffn_down.weight", 0, 0},
    {"norm.weight", "model.final_layernorm.weight", "output_norm.weight", 0, 0},
    {"lm_head.weight", "lm_head.weight", "output.weight", 0, 0},
    {0}};

const mn_arch_def mn_arch_bamba = {
    .name = "bamba",
    .summary = "Bamba",
    .types = "bamba",
    .classes = "BambaForCausalLM",
    .gguf = "granitehybrid",
    .is = is_bamba,
    .idle = "attn_rotary_emb mamba_chunk_size num_logits_to_keep z_loss_coefficient",
    .recipe = recipe,
    .tensors = tensors,
    .say = say,
    .shape = mn_hybrid_mamba_shape,
};
