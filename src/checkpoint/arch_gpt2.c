/* arch_gpt2.c - GPT-2 (Radford et al. 2019): learned positions, layer norms before each part, biases everywhere, an mlp with gelu. Hugging
 * Face keeps its matrices as [in, out], and queries, keys and values in one. */
#include "checkpoint/transformer.h"

static mn_status recipe(mn_settings *s, const mn_value **out) {
  mn_transformer t = {0};
  mn_keys model = {.arena = s->arena}, attention = model, mlp = model;
  const char *activation;
  MN_TRY(mn_transformer_size(s, "n_embd", "n_layer", &t));
  MN_TRY(mn_setting_int(s, "n_head", "attention.head_count", MN_NEEDED, &t.heads));
  MN_TRY(mn_setting_int(s, "n_positions", "context_length", MN_NEEDED, &t.context));
  MN_TRY(mn_setting_count(s, "n_inner", "feed_forward_length", 4 * t.d_model, &t.hidden));
  MN_TRY(mn_setting_between(s, "layer_norm_epsilon", "attention.layer_norm_epsilon", 1e-5, 0, 1, &t.norm_eps));
  MN_TRY(mn_transformer_tied(s, true, &t));
  MN_TRY(mn_setting_only_bool(s, "scale_attn_weights", NULL, true));
  MN_TRY(mn_setting_only_bool(s, "scale_attn_by_inverse_layer_idx", NULL, false));
  MN_TRY(mn_setting_only_bool(s, "add_cross_attention", NULL, false));
  MN_TRY(mn_transformer_activation(s, "activation_function", "gelu_new", &activation));
  t.kv_heads = t.heads;
  t.head_dim = t.heads ? t.d_model / t.heads : 0;
  mn_transformer_heads(&t, 0, &attention);
  mn_keys_bool(&attention, "rope", false);
  mn_keys_bool(&attention, "bias", true);
  mn_keys_text(&mlp, "type", "mlp");
  mn_keys_text(&mlp, "activation", activation);
  const mn_value *block = mn_transformer_block(s, &t, &attention, NULL, mn_keys_map(&mlp), NULL);
  mn_transformer_model(&t, "decoder", "layer", &model);
  mn_keys_text(&model, "positions", "learned");
  mn_keys_int(&model, "max_positions", t.context);
  mn_transformer_blocks(s, &t, &block, NULL, &model);
  *out = mn_keys_map(&model);
  return MN_OK;
}

#define PART(param)                                                                                                                        \
  MN_ROW_BIASED("layers.#.mixer." param, "transformer.h.#.attn.c_attn", "blk.#.attn_qkv", MN_T_PART | MN_T_TRANSPOSED, MN_T_PART)
static const mn_arch_tensor tensors[] = {
    MN_ROW("embed_tokens", "transformer.wte", "token_embd", 0, 0),
    MN_ROW("embed_positions", "transformer.wpe", "position_embd", 0, 0),
    MN_ROW_BIASED("layers.#.mixer_norm", "transformer.h.#.ln_1", "blk.#.attn_norm", 0, 0),
    PART("q_proj"),
    PART("k_proj"),
    PART("v_proj"),
    MN_ROW_BIASED("layers.#.mixer.o_proj", "transformer.h.#.attn.c_proj", "blk.#.attn_output", MN_T_TRANSPOSED, 0),
    MN_ROW_BIASED("layers.#.channel_norm", "transformer.h.#.ln_2", "blk.#.ffn_norm", 0, 0),
    MN_ROW_BIASED("layers.#.channel.up_proj", "transformer.h.#.mlp.c_fc", "blk.#.ffn_up", MN_T_TRANSPOSED, 0),
    MN_ROW_BIASED("layers.#.channel.down_proj", "transformer.h.#.mlp.c_proj", "blk.#.ffn_down", MN_T_TRANSPOSED, 0),
    MN_ROW_BIASED("norm", "transformer.ln_f", "output_norm", 0, 0),
    MN_ROW("lm_head", "lm_head", "output", 0, 0),
    {NULL, "transformer.h.#.attn.bias", NULL, 0, 0}, /* masks */
    {NULL, "transformer.h.#.attn.masked_bias", NULL, 0, 0},
    {0}};

const mn_arch_def mn_arch_gpt2 = {
    .name = "gpt2",
    .summary = "GPT-2",
    .types = "gpt2",
    .classes = "GPT2LMHeadModel",
    .gguf = "gpt2",
    .prefix = "transformer.",
    .idle =
        "attn_pdrop embd_pdrop resid_pdrop n_ctx reorder_and_upcast_attn summary_activation summary_first_dropout summary_proj_to_labels "
        "summary_type summary_use_proj",
    .recipe = recipe,
    .tensors = tensors,
};
