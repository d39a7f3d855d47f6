/* arch_phi3.c - Phi-3, Phi-3.5 and Phi-4 (Abdin et al. 2024, arXiv 2404.14219): as Llama, with queries, keys and values in one matrix, and
 * the two halves of swiglu in another. */
#include "checkpoint/say.h"
#include "checkpoint/transformer.h"

static mn_status recipe(mn_settings *s, const mn_value **out) {
  mn_transformer t;
  mn_keys model = {.arena = s->arena}, attention = model, gated = model;
  const char *activation;
  int64_t window;
  MN_TRY(mn_transformer_read(s, false, &t));
  const int64_t told = t.context;
  t.partial = true;
  MN_TRY(mn_setting_only_bool(s, "attention_bias", NULL, false));
  MN_TRY(mn_setting_int(s, "sliding_window", "attention.sliding_window", 0, &window));
  MN_TRY(mn_transformer_activation(s, "hidden_act", "silu", &activation));
  MN_TRY(mn_transformer_rope(s, &t, 10000, NULL, &attention));
  if (window >= t.context) window = 0; /* it would never be left */
  if (window && t.context < told)      /* a window has no end, and the frequencies do */
    return mn_setting_refuse(s, "sliding_window", "attention.sliding_window", "is %lld beside longrope; only %lld and more are done",
                             (long long)window, (long long)t.context);
  mn_transformer_heads(&t, window, &attention);
  mn_keys_text(&gated, "type", "glu");
  mn_keys_text(&gated, "activation", activation);
  const mn_value *block = mn_transformer_block(s, &t, &attention, NULL, mn_keys_map(&gated), NULL);
  mn_transformer_model(&t, "decoder", "rms", &model);
  mn_transformer_blocks(s, &t, &block, NULL, &model);
  *out = mn_keys_map(&model);
  return MN_OK;
}

/* longrope's tables are tensors in GGUF, and the length that the first of them is for a setting. */
static mn_status say(const mn_settings *from, const mn_value *recipe, mn_checkpoint_form to, mn_keys *keys) {
  const mn_value *attention = mn_recipe_attention(recipe, false), *divisors = mn_value_get(attention, "rope_divisors");
  const mn_checkpoint_tensor *far = mn_checkpoint_find(from->from, "rope_factors_long.weight");
  const double original = mn_recipe_number(attention, "max_context", 0);
  if (!divisors) return MN_OK;
  if (to == MN_FORM_GGUF) {
    mn_keys_int(keys, "rope.scaling.original_context_length", (int64_t)original);
    return MN_OK;
  }
  mn_keys map = {.arena = keys->arena};
  const mn_value *list = divisors;
  if (far) MN_TRY(mn_transformer_numbers(keys->arena, far, &list));
  mn_keys_text(&map, "rope_type", "longrope");
  mn_keys_put(&map, "short_factor", mn_value_copy(keys->arena, divisors));
  mn_keys_put(&map, "long_factor", mn_value_copy(keys->arena, list));
  mn_keys_real(&map, "attention_factor", mn_recipe_number(attention, "rope_gain", 1));
  mn_keys_put(keys, "rope_scaling", mn_keys_map(&map));
  mn_keys_int(keys, "original_max_position_embeddings", (int64_t)original);
  return MN_OK;
}

#define PART(param, hf, gguf) MN_ROW(param, hf, gguf, MN_T_PART, MN_T_PART)
static const mn_arch_tensor tensors[] = {MN_ROWS_TRUNK(0),
                                         MN_ROWS_PRE_NORMS(0),
                                         PART("layers.#.mixer.q_proj", "model.layers.#.self_attn.qkv_proj", "blk.#.attn_qkv"),
                                         PART("layers.#.mixer.k_proj", "model.layers.#.self_attn.qkv_proj", "blk.#.attn_qkv"),
                                         PART("layers.#.mixer.v_proj", "model.layers.#.self_attn.qkv_proj", "blk.#.attn_qkv"),
                                         MN_ROW("layers.#.mixer.o_proj", "model.layers.#.self_attn.o_proj", "blk.#.attn_output", 0, 0),
                                         PART("layers.#.channel.gate_proj", "model.layers.#.mlp.gate_up_proj", "blk.#.ffn_up"),
                                         PART("layers.#.channel.up_proj", "model.layers.#.mlp.gate_up_proj", "blk.#.ffn_up"),
                                         MN_ROW("layers.#.channel.down_proj", "model.layers.#.mlp.down_proj", "blk.#.ffn_down", 0, 0),
                                         {NULL, NULL, "rope_factors_long.weight", 0, 0}, /* of streams beyond the original context */
                                         {NULL, NULL, "rope_factors_short.weight", 0, 0},
                                         {0}};

const mn_arch_def mn_arch_phi3 = {
    .name = "phi3",
    .summary = "Phi-3, Phi-3.5, Phi-4",
    .types = "phi3",
    .classes = "Phi3ForCausalLM",
    .gguf = "phi3",
    .idle = "embd_pdrop resid_pdrop hidden_dropout",
    .recipe = recipe,
    .tensors = tensors,
    .say = say,
};
