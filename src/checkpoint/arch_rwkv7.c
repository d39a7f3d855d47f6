/* arch_rwkv7.c - RWKV-7 (Peng et al. 2025, arXiv 2503.14456), as the library fla writes it, and GGUF: the first layer's values are mixed
 * into those of the others, the embedding is normed, and channel parts see the token before. */
#include "checkpoint/arch.h"
#include "checkpoint/hybrid.h"
#include "checkpoint/say.h"

#include <string.h>

/* Widths are not written where they follow from the model's, by rules that changed: what the tensors have counts. */
static mn_status rank(mn_settings *s, const char *hf, const char *gguf, const char *tensor, int64_t *out) {
  const mn_checkpoint_tensor *t = s->form == MN_FORM_HF ? mn_checkpoint_find(s->from, tensor) : NULL;
  return mn_setting_int(s, hf, gguf, t && t->shape.ndim == 2 ? t->shape.dim[0] : MN_NEEDED, out);
}

static mn_status recipe(mn_settings *s, const mn_value **out) {
  mn_transformer t = {0};
  mn_keys model = {.arena = s->arena};
  int64_t width, decay, rate, gate, value = 0, hidden;
  double eps;
  MN_TRY(mn_transformer_size(s, "hidden_size", "num_hidden_layers", &t));
  int64_t heads = 0; /* which counts where there is no width */
  if (mn_setting_is_null(s, "head_dim")) MN_TRY(mn_setting_int(s, "num_heads", NULL, 0, &heads));
  MN_TRY(mn_setting_int(s, "head_dim", "wkv.head_size", heads ? t.d_model / heads : 64, &width));
  if (!width || t.d_model % width)
    return mn_setting_refuse(s, "head_dim", "wkv.head_size", "must divide the width, %lld", (long long)t.d_model);
  MN_TRY(mn_setting_between(s, "norm_eps", "attention.layer_norm_epsilon", 1e-5, 0, 1, &eps));
  MN_TRY(rank(s, "intermediate_size", "feed_forward_length", "model.layers.0.ffn.key.weight", &hidden));
  MN_TRY(rank(s, "decay_low_rank_dim", "attention.decay_lora_rank", "model.layers.0.attn.w_lora.lora.0.weight", &decay));
  MN_TRY(rank(s, "a_low_rank_dim", "attention.iclr_lora_rank", "model.layers.0.attn.a_lora.lora.0.weight", &rate));
  MN_TRY(rank(s, "gate_low_rank_dim", "attention.gate_lora_rank", "model.layers.0.attn.g_lora.lora.0.weight", &gate));
  if (t.layers > 1)
    MN_TRY(rank(s, "v_low_rank_dim", "attention.value_residual_mix_lora_rank", "model.layers.1.attn.v_lora.lora.0.weight", &value));
  MN_TRY(mn_setting_bool(s, "tie_word_embeddings", NULL, false, &t.tied));
  MN_TRY(mn_setting_only_text(s, "hidden_act", NULL, "sqrelu"));
  MN_TRY(mn_setting_only_bool(s, "norm_first", NULL, true));
  MN_TRY(mn_setting_only_bool(s, "norm_bias", NULL, true));
  if (mn_setting(s, "attn", NULL)) return mn_setting_refuse(s, "attn", NULL, "puts attention into layers, which is not done");
  const mn_value **blocks = mn_arena_alloc(s->arena, (size_t)t.layers * sizeof *blocks);
  if (!blocks) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < t.layers; i++) {
    mn_keys mixer = {.arena = s->arena};
    mn_keys_text(&mixer, "type", "rwkv7");
    mn_keys_int(&mixer, "heads", t.d_model / width);
    mn_keys_int(&mixer, "head_dim", width);
    mn_keys_int(&mixer, "decay_rank", decay);
    mn_keys_int(&mixer, "rate_rank", rate);
    mn_keys_int(&mixer, "gate_rank", gate);
    mn_keys_text(&mixer, "values", i ? "mixed" : "first");
    if (i) mn_keys_int(&mixer, "value_rank", value);
    mn_keys_real(&mixer, "norm_eps", (double)width * eps);
    blocks[i] = mn_hybrid_block(s, mn_keys_map(&mixer), mn_value_text(s->arena, "channel_mix"), hidden, 1);
  }
  t.norm_eps = eps;
  mn_transformer_model(&t, "decoder", "layer", &model);
  mn_keys_bool(&model, "embed_norm", true);
  mn_keys_put(&model, "blocks", mn_value_list(s->arena, (size_t)t.layers, blocks));
  *out = mn_keys_map(&model);
  return MN_OK;
}

#define HF "model.layers.#."
#define NORM(param, hf, gguf)                                                                                                              \
  {param ".weight", hf ".weight", gguf ".weight", 0, 0}, { param ".bias", hf ".bias", gguf ".bias", 0, 0 }
#define MIX(c)                                                                                                                             \
  { "layers.#.mixer.mu_" c, HF "attn.x_" c, "blk.#.time_mix_lerp_fused.weight", MN_T_RESHAPED, MN_T_PART | MN_T_RESHAPED }
/* Two projections; fla keeps the bias with the second. */
#define LOW(c)                                                                                                                             \
  {"layers.#.mixer." c "_down.weight", HF "attn." c "_lora.lora.0.weight", "blk.#.time_mix_" c "1.weight", 0, 0},                          \
      {"layers.#.mixer." c "_up.weight", HF "attn." c "_lora.lora.2.weight", "blk.#.time_mix_" c "2.weight", 0, 0}, {                      \
    "layers.#.mixer." c "_up.bias", HF "attn." c "_lora.lora.2.bias", "blk.#.time_mix_" c "0.weight", 0, MN_T_RESHAPED                     \
  }
static const mn_arch_tensor tensors[] = {
    {"embed_tokens.weight", "model.embeddings.weight", "token_embd.weight", 0, 0},
    NORM("embed_norm", "model.layers.0.pre_norm", "token_embd_norm"),
    NORM("layers.#.mixer_norm", HF "attn_norm", "blk.#.attn_norm"),
    MIX("r"),
    MIX("w"),
    MIX("k"),
    MIX("v"),
    MIX("a"),
    MIX("g"),
    LOW("w"),
    LOW("a"),
    LOW("v"),
    {"layers.#.mixer.g_down.weight", HF "attn.g_lora.lora.0.weight", "blk.#.time_mix_g1.weight", 0, 0},
    {"layers.#.mixer.g_up.weight", HF "attn.g_lora.lora.2.weight", "blk.#.time_mix_g2.weight", 0, 0},
    {"layers.#.mixer.xi", HF "attn.k_k", "blk.#.time_mix_k_k.weight", MN_T_RESHAPED, MN_T_RESHAPED},
    {"layers.#.mixer.alpha", HF "attn.k_a", "blk.#.time_mix_k_a.weight", MN_T_RESHAPED, MN_T_RESHAPED},
    {"layers.#.mixer.rho", HF "attn.r_k", "blk.#.time_mix_r_k.weight", MN_T_RESHAPED, MN_T_RESHAPED},
    {"layers.#.mixer.r_proj.weight", HF "attn.r_proj.weight", "blk.#.time_mix_receptance.weight", 0, 0},
    {"layers.#.mixer.k_proj.weight", HF "attn.k_proj.weight", "blk.#.time_mix_key.weight", 0, 0},
    {"layers.#.mixer.v_proj.weight", HF "attn.v_proj.weight", "blk.#.time_mix_value.weight", 0, 0},
    {"layers.#.mixer.o_proj.weight", HF "attn.o_proj.weight", "blk.#.time_mix_output.weight", 0, 0},
    {"layers.#.mixer.norm.weight", HF "attn.g_norm.weight", "blk.#.time_mix_ln.weight", MN_T_RESHAPED, MN_T_RESHAPED},
    {"layers.#.mixer.norm.bias", HF "attn.g_norm.bias", "blk.#.time_mix_ln.bias", MN_T_RESHAPED, MN_T_RESHAPED},
    NORM("layers.#.channel_norm", HF "ffn_norm", "blk.#.attn_norm_2"),
    {"layers.#.channel.mu_k", HF "ffn.x_k", "blk.#.channel_mix_lerp_k.weight", 0, MN_T_RESHAPED},
    {"layers.#.channel.k_proj.weight", HF "ffn.key.weight", "blk.#.channel_mix_key.weight", 0, 0},
    {"layers.#.channel.v_proj.weight", HF "ffn.value.weight", "blk.#.channel_mix_value.weight", 0, 0},
    NORM("norm", "model.norm", "output_norm"),
    {NULL, NULL, "blk.0.time_mix_v0.weight", 0, 0}, /* of the first layer, which mixes nothing in */
    {NULL, NULL, "blk.0.time_mix_v1.weight", 0, 0},
    {NULL, NULL, "blk.0.time_mix_v2.weight", 0, 0},
    {"lm_head.weight", "lm_head.weight", "output.weight", 0, 0},
    {0}};

static const char *const unread[] = {"blk.0.time_mix_v0.weight",
                                     "blk.0.time_mix_a0.weight",
                                     "blk.0.time_mix_v1.weight",
                                     "blk.0.time_mix_a1.weight",
                                     "blk.0.time_mix_v2.weight",
                                     "blk.0.time_mix_a2.weight",
                                     NULL};

/* fla writes mixtures of tokens as [1,1,D], and rows of heads one behind the other; it is rho alone that it keeps by heads. */
static void shape(const mn_mixer *mixer, const mn_arch_tensor *row, mn_checkpoint_form form, mn_shape *s) {
  const int64_t n = mn_shape_count(s);
  if (strstr(row->param, "mixer.mu_")) *s = form == MN_FORM_HF ? MN_SHAPE(1, 1, n) : MN_SHAPE(6, 1, 1, n / 6);
  else if (form == MN_FORM_HF && strstr(row->param, "rho"))
    *s = MN_SHAPE(n / mn_arch_mixer_key(mixer, "head_dim"), mn_arch_mixer_key(mixer, "head_dim"));
  else *s = MN_SHAPE(n);
}

static mn_status say(const mn_settings *from, const mn_value *recipe, mn_checkpoint_form to, mn_keys *keys) {
  static const struct {
    const char *rank, *gguf;
  } ranks[] = {{"head_dim", "wkv.head_size"},
               {"decay_rank", "attention.decay_lora_rank"},
               {"rate_rank", "attention.iclr_lora_rank"},
               {"gate_rank", "attention.gate_lora_rank"}};
  const mn_value *block = mn_recipe_block(recipe, 0), *mixer = mn_value_get(block, "mixer");
  (void)from;
  if (to == MN_FORM_HF) {
    mn_keys_text(keys, "hidden_act", "sqrelu");
    return MN_OK;
  }
  mn_keys_int(keys, "context_length", MN_SAY_ANY_CONTEXT), mn_keys_int(keys, "attention.head_count", 0);
  for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++)
    mn_keys_int(keys, ranks[i].gguf, (int64_t)mn_recipe_number(mixer, ranks[i].rank, 0));
  if (mn_recipe_layers(recipe) > 1)
    mn_keys_int(keys, "attention.value_residual_mix_lora_rank",
                (int64_t)mn_recipe_number(mn_value_get(mn_recipe_block(recipe, 1), "mixer"), "value_rank", 0));
  mn_keys_int(keys, "feed_forward_length", (int64_t)mn_recipe_number(block, "hidden", 0));
  return MN_OK;
}

const mn_arch_def mn_arch_rwkv7 = {
    .name = "rwkv7",
    .summary = "RWKV-7",
    .types = "rwkv7",
    .classes = "RWKV7ForCausalLM",
    .gguf = "rwkv7",
    .idle =
        "attn_mode elementwise_affine fuse_cross_entropy fuse_linear_cross_entropy fuse_norm hidden_ratio max_position_embeddings num_heads "
        "use_l2warp value_dim attention.head_count context_length",
    .recipe = recipe,
    .tensors = tensors,
    .unread = unread,
    .say = say,
    .shape = shape,
};
