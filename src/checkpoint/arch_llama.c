/* arch_llama.c - Llama 1 to 3, SmolLM and SmolLM2, Mistral: attention with rotary positions and grouped queries, swiglu, norms before
 * each part (Touvron et al. 2023, arXiv 2302.13971; Jiang et al. 2023, arXiv 2310.06825). GGUF orders the rows of queries and keys for
 * rotations of neighbours. */
#include "checkpoint/say.h"
#include "checkpoint/transformer.h"

#include <string.h>

static mn_status recipe(mn_settings *s, const mn_value **out) {
  mn_transformer t;
  mn_keys model = {.arena = s->arena}, attention = model, gated = model;
  int64_t window = 0;
  bool bias, gated_bias;
  const char *activation;
  MN_TRY(mn_transformer_read(s, false, &t));
  const bool gguf = s->form == MN_FORM_GGUF; /* where it is the tensors that say so */
  const mn_value *type = gguf ? NULL : mn_value_get(s->map, "model_type");
  if (gguf || !strcmp(type->as.text, "mistral")) /* Llama's own has no window, whatever its settings say */
    MN_TRY(mn_setting_int(s, "sliding_window", "attention.sliding_window", gguf || mn_setting_is_null(s, "sliding_window") ? 0 : 4096,
                          &window));
  MN_TRY(mn_setting_bool(s, "attention_bias", NULL, gguf && mn_checkpoint_find(s->from, "blk.0.attn_q.bias"), &bias));
  MN_TRY(mn_setting_bool(s, "mlp_bias", NULL, gguf && mn_checkpoint_find(s->from, "blk.0.ffn_gate.bias"), &gated_bias));
  MN_TRY(mn_transformer_activation(s, "hidden_act", "silu", &activation));
  MN_TRY(mn_transformer_rope(s, &t, 10000, NULL, &attention));
  mn_transformer_heads(&t, window, &attention);
  if (bias) mn_keys_bool(&attention, "bias", true);
  mn_keys_text(&gated, "type", "glu");
  mn_keys_text(&gated, "activation", activation);
  mn_keys_bool(&gated, "bias", gated_bias);
  const mn_value *block = mn_transformer_block(s, &t, &attention, NULL, mn_keys_map(&gated), NULL);
  mn_transformer_model(&t, "decoder", "rms", &model);
  mn_transformer_blocks(s, &t, &block, NULL, &model);
  *out = mn_keys_map(&model);
  return MN_OK;
}

static mn_status say(const mn_settings *from, const mn_value *recipe, mn_checkpoint_form to, mn_keys *keys) {
  const mn_value *block = mn_recipe_block(recipe, 0);
  (void)from;
  if (to == MN_FORM_GGUF) return MN_OK;
  mn_keys_bool(keys, "attention_bias", mn_recipe_true(mn_value_get(block, "mixer"), "bias"));
  mn_keys_bool(keys, "mlp_bias", mn_recipe_true(mn_value_get(block, "channel"), "bias"));
  return MN_OK;
}

static const mn_arch_tensor tensors[] = {
    MN_ROWS_TRUNK(0),
    MN_ROWS_PRE_NORMS(0),
    MN_ROWS_ATTENTION(MN_T_ROTARY),
    MN_ROWS_GATED,
    {NULL, "model.layers.#.self_attn.rotary_emb.inv_freq", "rope_freqs.weight", 0, 0}, /* made from the settings; a setting */
    {0}};

const mn_arch_def mn_arch_llama = {
    .name = "llama",
    .summary = "Llama 1 to 3, SmolLM, SmolLM2, Mistral",
    .types = "llama mistral",
    .classes = "LlamaForCausalLM MistralForCausalLM",
    .gguf = "llama",
    .recipe = recipe,
    .tensors = tensors,
    .say = say,
};
