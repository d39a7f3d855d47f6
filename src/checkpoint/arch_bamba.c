/* arch_bamba.c - Bamba: Mamba-2, attention in some layers, a channel part in all. Half of a head is rotated. */
#include "checkpoint/arch.h"
#include "checkpoint/hybrid.h"

static mn_status recipe(mn_settings *s, const mn_value **out) {
  mn_transformer t;
  mn_keys model = {.arena = s->arena}, mamba = model, attention = model;
  MN_TRY(mn_hybrid_read(s, "rms_norm_eps", false, &t));
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
    blocks[i] = mn_hybrid_block(s, mixer[attends], swiglu, t.hidden, 1);
  }
  mn_transformer_model(&t, "decoder", "rms", &model);
  mn_keys_put(&model, "blocks", mn_value_list(s->arena, (size_t)t.layers, blocks));
  *out = mn_keys_map(&model);
  return MN_OK;
}

#define HF "model.layers.#."
static const mn_arch_tensor tensors[] = {{"embed_tokens.weight", "model.embed_tokens.weight", NULL, 0, 0},
                                         {"layers.#.mixer_norm.weight", HF "input_layernorm.weight", NULL, 0, 0},
                                         MN_MAMBA_TENSORS("layers.#.mixer.", HF "mamba.", 0),
                                         MN_ATTENTION_TENSORS("layers.#.mixer.", HF "self_attn.", 0, 0),
                                         {"layers.#.channel_norm.weight", HF "pre_ff_layernorm.weight", NULL, 0, 0},
                                         {"layers.#.channel.gate_proj.weight", HF "feed_forward.gate_proj.weight", NULL, 0, 0},
                                         {"layers.#.channel.up_proj.weight", HF "feed_forward.up_proj.weight", NULL, 0, 0},
                                         {"layers.#.channel.down_proj.weight", HF "feed_forward.down_proj.weight", NULL, 0, 0},
                                         {"norm.weight", "model.final_layernorm.weight", NULL, 0, 0},
                                         {"lm_head.weight", "lm_head.weight", NULL, 0, 0},
                                         {0}};

const mn_arch_def mn_arch_bamba = {
    .name = "bamba",
    .summary = "Bamba",
    .types = "bamba",
    .classes = "BambaForCausalLM",
    .idle = "attn_rotary_emb mamba_chunk_size num_logits_to_keep z_loss_coefficient",
    .recipe = recipe,
    .tensors = tensors,
    .shape = mn_hybrid_mamba_shape,
};
