/* arch_llama.c - Llama 1 to 3, SmolLM and SmolLM2, Mistral: attention with rotary positions and grouped queries, swiglu, norms before
 * each part (Touvron et al. 2023, arXiv 2302.13971; Jiang et al. 2023, arXiv 2310.06825). GGUF orders the rows of queries and keys for
 * rotations of neighbours. */
#include "checkpoint/arch.h"
#include "checkpoint/transformer.h"

static mn_status recipe(mn_settings *s, const mn_value **out) {
  mn_transformer t;
  mn_keys model = {.arena = s->arena}, block = model, attention = model;
  int64_t window;
  bool bias;
  MN_TRY(mn_transformer_read(s, false, &t));
  MN_TRY(mn_setting_int(s, "sliding_window", "attention.sliding_window", 0, &window));
  MN_TRY(mn_setting_bool(s, "attention_bias", NULL, false, &bias));
  MN_TRY(mn_setting_only_bool(s, "mlp_bias", NULL, false));
  MN_TRY(mn_setting_only_text(s, "hidden_act", NULL, "silu"));
  mn_transformer_heads(&t, window, &attention);
  if (bias) mn_keys_bool(&attention, "bias", true);
  MN_TRY(mn_transformer_rope(s, &t, 10000, &attention));
  mn_keys_put(&block, "mixer", mn_keys_map(&attention));
  mn_keys_text(&block, "channel", "swiglu");
  mn_keys_int(&block, "hidden", t.hidden);
  mn_transformer_model(&t, &model);
  mn_keys_int(&model, "layers", t.layers);
  mn_keys_put(&model, "block", mn_keys_map(&block));
  *out = mn_keys_map(&model);
  return MN_OK;
}

#define ATTENTION(part, hf_name, gguf_name, how)                                                                                           \
  {"layers.#.mixer." part ".weight", "model.layers.#.self_attn." hf_name ".weight", "blk.#." gguf_name ".weight", 0, how}, {               \
    "layers.#.mixer." part ".bias", "model.layers.#.self_attn." hf_name ".bias", "blk.#." gguf_name ".bias", 0, how                        \
  }
#define CHANNEL(part, gguf_name)                                                                                                           \
  { "layers.#.channel." part ".weight", "model.layers.#.mlp." part ".weight", "blk.#." gguf_name ".weight", 0, 0 }
static const mn_arch_tensor tensors[] = {
    {"embed_tokens.weight", "model.embed_tokens.weight", "token_embd.weight", 0, 0},
    {"layers.#.mixer_norm.weight", "model.layers.#.input_layernorm.weight", "blk.#.attn_norm.weight", 0, 0},
    ATTENTION("q_proj", "q_proj", "attn_q", MN_T_ROTARY),
    ATTENTION("k_proj", "k_proj", "attn_k", MN_T_ROTARY),
    ATTENTION("v_proj", "v_proj", "attn_v", 0),
    ATTENTION("o_proj", "o_proj", "attn_output", 0),
    {"layers.#.channel_norm.weight", "model.layers.#.post_attention_layernorm.weight", "blk.#.ffn_norm.weight", 0, 0},
    CHANNEL("gate_proj", "ffn_gate"),
    CHANNEL("up_proj", "ffn_up"),
    CHANNEL("down_proj", "ffn_down"),
    {"norm.weight", "model.norm.weight", "output_norm.weight", 0, 0},
    {"lm_head.weight", "lm_head.weight", "output.weight", 0, 0},
    {NULL, "model.layers.#.self_attn.rotary_emb.inv_freq", NULL, 0, 0}, /* worked out from the settings */
    {0}};

const mn_arch_def mn_arch_llama = {
    .name = "llama",
    .summary = "Llama 1 to 3, SmolLM, SmolLM2, Mistral",
    .types = "llama mistral",
    .classes = "LlamaForCausalLM MistralForCausalLM",
    .gguf = "llama",
    .recipe = recipe,
    .tensors = tensors,
};
