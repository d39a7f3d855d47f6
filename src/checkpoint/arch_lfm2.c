/* arch_lfm2.c - LFM2 and LFM2-MoE: short convolutions, and attention with normed queries and keys in some layers (Liquid AI 2025,
 * arXiv 2511.23404). Of the experts' models all layers but the first few have experts, chosen by sigmoids with a bias. */
#include "checkpoint/arch.h"
#include "checkpoint/hybrid.h"
#include "checkpoint/say.h"

enum { CONV, ATTENTION };

/* Settings of before layer_types name the layers with attention; GGUF's, those without key/value heads. */
static mn_status read_kinds(mn_settings *s, mn_transformer *t, int **kinds) {
  static const char *const words[] = {"conv", "full_attention", NULL};
  if (s->form == MN_FORM_GGUF) return mn_hybrid_kv_layers(s, t->layers, kinds, &t->kv_heads);
  MN_TRY(mn_hybrid_layers(s, "layer_types", t->layers, words, kinds));
  const mn_value *old = mn_setting(s, "full_attn_idxs", NULL);
  if (*kinds) return MN_OK;
  if (!(*kinds = mn_arena_alloc(s->arena, (size_t)t->layers * sizeof **kinds))) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < t->layers; i++) {
    bool attends = !old;
    if (old) MN_TRY(mn_hybrid_holds(s, "full_attn_idxs", i, &attends));
    (*kinds)[i] = attends ? ATTENTION : CONV;
  }
  return MN_OK;
}

/* The width that config.json says is made smaller, unless it says that it is not; GGUF's is as it is. */
static mn_status read_hidden(mn_settings *s, mn_transformer *t) {
  bool adjust;
  int64_t multiple;
  double times;
  MN_TRY(mn_setting_int(s, "block_ff_dim", NULL, t->hidden, &t->hidden));
  MN_TRY(mn_setting_bool(s, "block_auto_adjust_ff_dim", NULL, true, &adjust));
  MN_TRY(mn_setting_int(s, "block_multiple_of", NULL, 256, &multiple));
  MN_TRY(mn_setting_real(s, "block_ffn_dim_multiplier", NULL, 1, &times));
  if (s->form == MN_FORM_GGUF || !adjust) return MN_OK;
  if (multiple < 1 || times <= 0) return mn_setting_refuse(s, "block_multiple_of", NULL, "and block_ffn_dim_multiplier must be above 0");
  t->hidden = (int64_t)(times * (double)(2 * t->hidden / 3));
  t->hidden = (t->hidden + multiple - 1) / multiple * multiple;
  return MN_OK;
}

static mn_status read_experts(mn_settings *s, const mn_transformer *t, int64_t *dense, mn_hybrid_experts *e) {
  *e = (mn_hybrid_experts){.sigmoid = true};
  *dense = t->layers;
  MN_TRY(mn_setting_int(s, "num_experts", "expert_count", 0, &e->experts));
  if (!e->experts) return MN_OK;
  MN_TRY(mn_hybrid_sigmoids(s));
  MN_TRY(mn_setting_int(s, "num_dense_layers", "leading_dense_block_count", s->form == MN_FORM_GGUF ? 0 : 2, dense));
  MN_TRY(mn_setting_int(s, "num_experts_per_tok", "expert_used_count", MN_NEEDED, &e->top_k));
  MN_TRY(mn_setting_int(s, "moe_intermediate_size", "expert_feed_forward_length", MN_NEEDED, &e->hidden));
  MN_TRY(mn_setting_bool(s, "norm_topk_prob", NULL, true, &e->normalize));
  MN_TRY(mn_setting_bool(s, "use_expert_bias", NULL, true, &e->choice_bias));
  return mn_setting_real(s, "routed_scaling_factor", NULL, 1, &e->scale);
}

static mn_status recipe(mn_settings *s, const mn_value **out) {
  mn_transformer t;
  mn_keys model = {.arena = s->arena}, conv = model, attention = model;
  mn_hybrid_experts experts;
  int64_t kernel, dense, window;
  int *kinds;
  bool bias, tied;
  MN_TRY(mn_hybrid_read(s, "norm_eps", true, &t));
  MN_TRY(mn_setting_bool(s, "tie_embedding", NULL, t.tied, &tied));
  t.tied = tied;
  MN_TRY(read_kinds(s, &t, &kinds));
  MN_TRY(mn_setting_int(s, "conv_L_cache", "shortconv.l_cache", 3, &kernel));
  MN_TRY(mn_setting_bool(s, "conv_bias", NULL, false, &bias));
  MN_TRY(read_experts(s, &t, &dense, &experts));
  if (!experts.experts) MN_TRY(read_hidden(s, &t)); /* with experts the width is as it is said */
  mn_keys_text(&conv, "type", "short_conv");
  mn_keys_int(&conv, "conv", kernel);
  if (bias) mn_keys_bool(&conv, "bias", true);
  MN_TRY(mn_setting_int(s, NULL, "attention.sliding_window", 0, &window));
  mn_transformer_heads(&t, window, &attention);
  mn_keys_text(&attention, "qk_norm", "heads");
  mn_keys_real(&attention, "qk_norm_eps", t.norm_eps);
  MN_TRY(mn_transformer_rope(s, &t, 1000000, NULL, &attention));
  const mn_value *mixer[] = {mn_keys_map(&conv), mn_keys_map(&attention)};
  const mn_value *swiglu = mn_value_text(s->arena, "swiglu"), *moe = experts.experts ? mn_hybrid_moe(s, &experts) : NULL;
  const mn_value **blocks = mn_arena_alloc(s->arena, (size_t)t.layers * sizeof *blocks);
  if (!blocks) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < t.layers; i++)
    blocks[i] = mn_hybrid_block(s, mixer[kinds[i]], i < dense ? swiglu : moe, i < dense ? t.hidden : experts.hidden, 1);
  mn_transformer_model(&t, "decoder", "rms", &model);
  mn_keys_put(&model, "blocks", mn_value_list(s->arena, (size_t)t.layers, blocks));
  *out = mn_keys_map(&model);
  return MN_OK;
}

static mn_status say(const mn_settings *from, const mn_value *recipe, mn_checkpoint_form to, mn_keys *keys) {
  const mn_value *attention = mn_recipe_attention(recipe, false);
  const int64_t heads = (int64_t)mn_recipe_number(attention, "kv_heads", 0), n = mn_recipe_layers(recipe);
  int64_t hidden = 0;
  bool experts = false;
  (void)from;
  for (int64_t i = 0; i < n; i++) {
    const mn_value *block = mn_recipe_block(recipe, i), *channel = mn_value_get(block, "channel");
    if (channel && channel->kind == MN_TEXT) hidden = (int64_t)mn_recipe_number(block, "hidden", 0);
    else experts = true;
  }
  if (to == MN_FORM_GGUF) {
    if (hidden) mn_keys_int(keys, "feed_forward_length", hidden);
    if (experts) mn_keys_int(keys, "expert_gating_func", 2); /* sigmoids */
    return mn_say_kv_heads(recipe, keys, "attention", heads);
  }
  if (hidden) mn_keys_int(keys, "intermediate_size", hidden);
  mn_keys_bool(keys, "block_auto_adjust_ff_dim", false);
  mn_keys_int(keys, "num_key_value_heads", heads);
  mn_keys_bool(keys, "tie_embedding", mn_recipe_true(recipe, "tie_embeddings"));
  return mn_say_layer_types(recipe, keys, "attention", "full_attention", "conv");
}

#define HF "model.layers.#."
static const mn_arch_tensor tensors[] = {
    {"embed_tokens.weight", "model.embed_tokens.weight", "token_embd.weight", 0, 0},
    {"layers.#.mixer_norm.weight", HF "operator_norm.weight", "blk.#.attn_norm.weight", 0, 0},
    {"layers.#.mixer.in_proj.weight", HF "conv.in_proj.weight", "blk.#.shortconv.in_proj.weight", 0, 0},
    {"layers.#.mixer.in_proj.bias", HF "conv.in_proj.bias", NULL, 0, 0},
    {"layers.#.mixer.conv.weight", HF "conv.conv.weight", "blk.#.shortconv.conv.weight", MN_T_RESHAPED, 0},
    {"layers.#.mixer.conv.bias", HF "conv.conv.bias", NULL, 0, 0},
    {"layers.#.mixer.out_proj.weight", HF "conv.out_proj.weight", "blk.#.shortconv.out_proj.weight", 0, 0},
    {"layers.#.mixer.out_proj.bias", HF "conv.out_proj.bias", NULL, 0, 0},
    {"layers.#.mixer.q_proj.weight", HF "self_attn.q_proj.weight", "blk.#.attn_q.weight", 0, 0},
    {"layers.#.mixer.k_proj.weight", HF "self_attn.k_proj.weight", "blk.#.attn_k.weight", 0, 0},
    {"layers.#.mixer.v_proj.weight", HF "self_attn.v_proj.weight", "blk.#.attn_v.weight", 0, 0},
    {"layers.#.mixer.o_proj.weight", HF "self_attn.out_proj.weight", "blk.#.attn_output.weight", 0, 0},
    {"layers.#.mixer.q_norm.weight", HF "self_attn.q_layernorm.weight", "blk.#.attn_q_norm.weight", 0, 0},
    {"layers.#.mixer.k_norm.weight", HF "self_attn.k_layernorm.weight", "blk.#.attn_k_norm.weight", 0, 0},
    {"layers.#.channel_norm.weight", HF "ffn_norm.weight", "blk.#.ffn_norm.weight", 0, 0},
    {"layers.#.channel.gate_proj.weight", HF "feed_forward.w1.weight", "blk.#.ffn_gate.weight", 0, 0},
    {"layers.#.channel.up_proj.weight", HF "feed_forward.w3.weight", "blk.#.ffn_up.weight", 0, 0},
    {"layers.#.channel.down_proj.weight", HF "feed_forward.w2.weight", "blk.#.ffn_down.weight", 0, 0},
    {"layers.#.channel.router.weight", HF "feed_forward.gate.weight", "blk.#.ffn_gate_inp.weight", 0, 0},
    {"layers.#.channel.choice_bias", HF "feed_forward.expert_bias", "blk.#.exp_probs_b.bias", 0, 0},
    {"layers.#.channel.experts.gate_proj.weight", HF "feed_forward.experts.@.w1.weight", "blk.#.ffn_gate_exps.weight", 0, 0},
    {"layers.#.channel.experts.up_proj.weight", HF "feed_forward.experts.@.w3.weight", "blk.#.ffn_up_exps.weight", 0, 0},
    {"layers.#.channel.experts.down_proj.weight", HF "feed_forward.experts.@.w2.weight", "blk.#.ffn_down_exps.weight", 0, 0},
    {"norm.weight", "model.embedding_norm.weight", "token_embd_norm.weight", 0, 0},
    {"lm_head.weight", "lm_head.weight", "output.weight", 0, 0},
    {0}};

const mn_arch_def mn_arch_lfm2 = {
    .name = "lfm2",
    .summary = "LFM2, LFM2-MoE",
    .types = "lfm2 lfm2_moe",
    .classes = "Lfm2ForCausalLM LFM2ForCausalLM Lfm2MoeForCausalLM",
    .gguf = "lfm2 lfm2moe",
    .idle =
        "block_dim block_mlp_init_scale block_norm_eps block_out_init_scale block_use_swiglu block_use_xavier_init conv_dim conv_dim_out "
        "conv_use_xavier_init num_heads use_pos_enc rope.dimension_count",
    .recipe = recipe,
    .tensors = tensors,
    .say = say,
    .shape = mn_hybrid_conv_shape,
};
