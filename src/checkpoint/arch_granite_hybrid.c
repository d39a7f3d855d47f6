/* arch_granite_hybrid.c - Granite 4: Mamba-2, attention in a few layers, most often without positions, and in each a channel part that all
 * tokens go through, beside experts or alone. Embeddings, scores, what layers add and logits are scaled. */
#include "checkpoint/arch.h"
#include "checkpoint/hybrid.h"
#include "checkpoint/say.h"

#include <math.h>
#include <string.h>

enum { MAMBA, ATTENTION };

static mn_status read_kinds(mn_settings *s, mn_transformer *t, int **kinds) {
  static const char *const words[] = {"mamba", "attention", "linear_attention", "full_attention", NULL};
  if (s->form == MN_FORM_GGUF) return mn_hybrid_kv_layers(s, t->layers, kinds, &t->kv_heads);
  MN_TRY(mn_hybrid_layers(s, "layer_types", t->layers, words, kinds));
  if (!*kinds) return mn_setting_refuse(s, "layer_types", NULL, "is missing, and this architecture needs it");
  for (int64_t i = 0; i < t->layers; i++) (*kinds)[i] %= 2;
  return MN_OK;
}

/* Are tokens told apart by where they stand? GGUF: only where positions were ever stretched. */
static mn_status read_positions(mn_settings *s, bool *rope) {
  const char *kind;
  MN_TRY(mn_setting_text(s, "position_embedding_type", NULL, "nope", &kind));
  *rope = !strcmp(kind, "rope");
  if (!*rope && strcmp(kind, "nope") != 0) return mn_setting_refuse(s, "position_embedding_type", NULL, "must be rope or nope");
  return s->form == MN_FORM_GGUF ? mn_setting_bool(s, NULL, "rope.scaling.finetuned", false, rope) : MN_OK;
}

static mn_status recipe(mn_settings *s, const mn_value **out) {
  mn_transformer t;
  mn_keys model = {.arena = s->arena}, mamba = model, attention = model;
  mn_hybrid_experts e = {.normalize = true, .scale = 1};
  double embedding, logits, residual, score;
  int *kinds;
  bool rope;
  MN_TRY(mn_hybrid_read(s, "rms_norm_eps", true, &t));
  MN_TRY(read_kinds(s, &t, &kinds));
  MN_TRY(read_positions(s, &rope));
  MN_TRY(mn_hybrid_mamba(s, t.d_model, t.norm_eps, &mamba));
  MN_TRY(mn_setting_only_text(s, "hidden_act", NULL, "silu"));
  MN_TRY(mn_setting_only_bool(s, "attention_bias", NULL, false));
  MN_TRY(mn_setting_factor(s, "embedding_multiplier", "embedding_scale", 1, &embedding));
  MN_TRY(mn_setting_real(s, "logits_scaling", "logit_scale", 1, &logits));
  MN_TRY(mn_setting_factor(s, "residual_multiplier", "residual_scale", 1, &residual));
  const double usual = s->form == MN_FORM_GGUF && t.head_dim ? 1 / sqrt((double)t.head_dim) : 1; /* where nothing is said */
  MN_TRY(mn_setting_factor(s, "attention_multiplier", "attention.scale", usual, &score));
  MN_TRY(mn_setting_int(s, "num_local_experts", "expert_count", 0, &e.experts));
  MN_TRY(mn_setting_int(s, "num_experts_per_tok", "expert_used_count", 0, &e.top_k));
  MN_TRY(mn_setting_int(s, "shared_intermediate_size", "expert_shared_feed_forward_length", 0, &e.shared));
  if (logits <= 0) return mn_setting_refuse(s, "logits_scaling", "logit_scale", "must be above 0");
  mn_transformer_heads(&t, 0, &attention);
  mn_keys_real(&attention, "score_scale", score);
  if (rope) MN_TRY(mn_hybrid_rope(s, &t, 10000, 1, &attention));
  else mn_keys_bool(&attention, "rope", false);
  const mn_value *mixer[] = {mn_keys_map(&mamba), mn_keys_map(&attention)};
  const mn_value *channel = e.experts ? mn_hybrid_moe(s, &e) : mn_value_text(s->arena, "swiglu");
  const mn_value **blocks = mn_arena_alloc(s->arena, (size_t)t.layers * sizeof *blocks);
  if (!blocks) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < t.layers; i++)
    blocks[i] = mn_hybrid_block(s, mixer[kinds[i]], channel, e.experts || !e.shared ? t.hidden : e.shared, residual);
  mn_transformer_model(&t, "decoder", "rms", &model);
  mn_keys_real(&model, "embedding_scale", embedding);
  mn_keys_real(&model, "logit_scale", 1 / logits);
  mn_keys_put(&model, "blocks", mn_value_list(s->arena, (size_t)t.layers, blocks));
  *out = mn_keys_map(&model);
  return MN_OK;
}

static bool has_experts(const mn_value *recipe) {
  for (int64_t i = 0; i < mn_recipe_layers(recipe); i++) {
    const mn_value *channel = mn_value_get(mn_recipe_block(recipe, i), "channel");
    if (channel && channel->kind == MN_MAP) return true;
  }
  return false;
}

static mn_status say(const mn_settings *from, const mn_value *recipe, mn_checkpoint_form to, mn_keys *keys) {
  const mn_value *attention = mn_recipe_attention(recipe, false), *rope = mn_value_get(attention, "rope");
  const bool turned = attention && !(rope && rope->kind == MN_BOOLEAN && !rope->as.boolean);
  const int64_t heads = (int64_t)mn_recipe_number(attention, "kv_heads", 0);
  const mn_value *mamba = mn_recipe_first(recipe, "mamba2");
  (void)from;
  if (to == MN_FORM_GGUF) {
    if (mamba) mn_keys_int(keys, "ssm.inner_size", (int64_t)mn_recipe_number(mamba, "inner", 0));
    if (!has_experts(recipe)) mn_say_nothing(keys, "expert_used_count"); /* or others look for them */
    mn_keys_bool(keys, "rope.scaling.finetuned", turned);
    mn_keys_real(keys, "attention.scale", mn_recipe_number(attention, "score_scale", 1));
    return mn_say_kv_heads(recipe, keys, "attention", heads);
  }
  mn_keys_text(keys, "position_embedding_type", turned ? "rope" : "nope");
  mn_keys_int(keys, "num_key_value_heads", heads);
  MN_TRY(mn_say_mamba(recipe, keys));
  return mn_say_layer_types(recipe, keys, "attention", "attention", "mamba");
}

static int64_t place(const mn_mixer *mixer, const mn_arch_tensor *row, int64_t r) {
  (void)mixer;
  return mn_hybrid_pair_place(row, r);
}

#define HF    "model.layers.#."
#define PAIRS (MN_T_ROWS | MN_T_RESHAPED)
static const mn_arch_tensor tensors[] = {
    {"embed_tokens.weight", "model.embed_tokens.weight", "token_embd.weight", 0, 0},
    {"layers.#.mixer_norm.weight", HF "input_layernorm.weight", "blk.#.attn_norm.weight", 0, 0},
    MN_MAMBA_TENSORS("layers.#.mixer.", HF "mamba.", 0),
    MN_ATTENTION_TENSORS("layers.#.mixer.", HF "self_attn.", 0, MN_T_ROTARY),
    {"layers.#.channel_norm.weight", HF "post_attention_layernorm.weight", "blk.#.ffn_norm.weight", 0, 0},
    {"layers.#.channel.gate_proj.weight", HF "shared_mlp.input_linear.weight", "blk.#.ffn_gate.weight", MN_T_PART, 0},
    {"layers.#.channel.up_proj.weight", HF "shared_mlp.input_linear.weight", "blk.#.ffn_up.weight", MN_T_PART, 0},
    {"layers.#.channel.down_proj.weight", HF "shared_mlp.output_linear.weight", "blk.#.ffn_down.weight", 0, 0},
    {"layers.#.channel.shared.gate_proj.weight", HF "shared_mlp.input_linear.weight", "blk.#.ffn_gate_shexp.weight", MN_T_PART, 0},
    {"layers.#.channel.shared.up_proj.weight", HF "shared_mlp.input_linear.weight", "blk.#.ffn_up_shexp.weight", MN_T_PART, 0},
    {"layers.#.channel.shared.down_proj.weight", HF "shared_mlp.output_linear.weight", "blk.#.ffn_down_shexp.weight", 0, 0},
    {"layers.#.channel.router.weight", HF "block_sparse_moe.router.layer.weight", "blk.#.ffn_gate_inp.weight", 0, 0},
    {"layers.#.channel.experts.gate_proj.weight", HF "block_sparse_moe.input_linear.weight", "blk.#.ffn_gate_exps.weight", PAIRS, 0},
    {"layers.#.channel.experts.up_proj.weight", HF "block_sparse_moe.input_linear.weight", "blk.#.ffn_up_exps.weight", PAIRS, 0},
    {"layers.#.channel.experts.down_proj.weight", HF "block_sparse_moe.output_linear.weight", "blk.#.ffn_down_exps.weight", 0, 0},
    {"norm.weight", "model.norm.weight", "output_norm.weight", 0, 0},
    {"lm_head.weight", "lm_head.weight", "output.weight", 0, 0},
    {0}};

static void shape(const mn_mixer *mixer, const mn_arch_tensor *row, mn_checkpoint_form form, mn_shape *s) {
  if (!strstr(row->param, "experts.")) mn_hybrid_mamba_shape(mixer, row, form, s);
  else mn_hybrid_pair_shape(form, s);
}

const mn_arch_def mn_arch_granite_hybrid = {
    .name = "granite_hybrid",
    .summary = "Granite 4",
    .types = "granitemoehybrid",
    .classes = "GraniteMoeHybridForCausalLM",
    .gguf = "granitehybrid",
    .idle = "mamba_chunk_size router_aux_loss_coef output_router_logits init_method layer_norm_epsilon normalization_function rope_theta "
            "rope_scaling rope_parameters rope.dimension_count rope.freq_base",
    .recipe = recipe,
    .tensors = tensors,
    .place = place,
    .say = say,
    .shape = shape,
};
