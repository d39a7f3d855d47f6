/* arch_kimi_linear.c - Kimi Linear: Kimi Delta Attention, and multi-head latent attention without positions in some layers; all layers but
 * the first few have experts, chosen by sigmoids with a bias, and a network that every token goes through (Kimi Team 2025, arXiv
 * 2510.26692). */
#include "checkpoint/arch.h"
#include "checkpoint/hybrid.h"
#include "checkpoint/say.h"

#include <string.h>

enum { DELTA, LATENT };

/* Some settings stand in a map of their own, where the layers of either kind are counted from 1. */
static const mn_value *delta_map(mn_settings *s) {
  const mn_value *map = mn_setting(s, "linear_attn_config", NULL);
  return map && map->kind == MN_MAP ? map : NULL;
}

static mn_status of_map(mn_settings *s, const char *key, const char *hf, const char *gguf, int64_t otherwise, int64_t *out) {
  const mn_value *map = delta_map(s), *v = map ? mn_value_get(map, key) : NULL;
  MN_TRY(mn_setting_int(s, hf, gguf, otherwise, out));
  if (!v) return MN_OK;
  *out = v->kind == MN_INTEGER ? v->as.integer : 0;
  return *out > 0 ? MN_OK : mn_setting_refuse(s, "linear_attn_config", NULL, "has a %s that is no number above 0", key);
}

static bool holds(const mn_value *list, int64_t x) {
  for (size_t i = 0; list && list->kind == MN_LIST && i < list->count; i++)
    if (list->as.items[i]->kind == MN_INTEGER && list->as.items[i]->as.integer == x) return true;
  return false;
}

static mn_status read_kinds(mn_settings *s, const mn_transformer *t, int **kinds) {
  int64_t one;
  static const char *const words[] = {"linear_attention", "full_attention", NULL};
  const mn_value *map = delta_map(s), *full = map ? mn_value_get(map, "full_attn_layers") : NULL,
                 *delta = map ? mn_value_get(map, "kda_layers") : NULL;
  if (s->form == MN_FORM_GGUF) return mn_hybrid_kv_layers(s, t->layers, kinds, &one); /* one head of keys where there is any */
  MN_TRY(mn_hybrid_layers(s, "layer_types", t->layers, words, kinds));
  if (*kinds) return MN_OK;
  if (!(*kinds = mn_arena_alloc(s->arena, (size_t)t->layers * sizeof **kinds))) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < t->layers; i++) {
    (*kinds)[i] = full ? (holds(full, i + 1) ? LATENT : DELTA) : i && i % 4 == 0 ? LATENT : DELTA;
    if (full && holds(full, i + 1) == holds(delta, i + 1))
      return mn_setting_refuse(s, "linear_attn_config", NULL, "must have layer %lld in full_attn_layers or in kda_layers",
                               (long long)i + 1);
  }
  return MN_OK;
}

static mn_status delta_keys(mn_settings *s, const mn_transformer *t, mn_keys *delta) {
  int64_t heads, head_dim, conv;
  MN_TRY(of_map(s, "num_heads", "linear_num_heads", NULL, s->form == MN_FORM_GGUF ? t->heads : 32, &heads));
  MN_TRY(of_map(s, "head_dim", "linear_head_dim", "kda.head_dim", 128, &head_dim));
  MN_TRY(of_map(s, "short_conv_kernel_size", "linear_conv_kernel_dim", "ssm.conv_kernel", 4, &conv));
  mn_keys_text(delta, "type", "kimi_delta");
  mn_keys_int(delta, "heads", heads);
  mn_keys_int(delta, "head_dim", head_dim);
  mn_keys_int(delta, "conv", conv);
  mn_keys_real(delta, "norm_eps", t->norm_eps);
  return MN_OK;
}

static mn_status latent_keys(mn_settings *s, const mn_transformer *t, mn_keys *latent) {
  int64_t q_rank, rank, nope, rope, value;
  MN_TRY(mn_setting_int(s, "q_lora_rank", "attention.q_lora_rank", 0, &q_rank));
  MN_TRY(mn_setting_int(s, "kv_lora_rank", "attention.kv_lora_rank", 512, &rank));
  MN_TRY(mn_setting_int(s, "qk_nope_head_dim", NULL, 128, &nope));
  MN_TRY(mn_setting_int(s, "qk_rope_head_dim", "rope.dimension_count", 64, &rope));
  MN_TRY(mn_setting_int(s, "v_head_dim", "attention.value_length_mla", 128, &value));
  if (s->form == MN_FORM_GGUF) { /* of both parts of a key */
    MN_TRY(mn_setting_int(s, NULL, "attention.key_length_mla", MN_NEEDED, &nope));
    if (nope <= rope) return mn_setting_refuse(s, NULL, "attention.key_length_mla", "is no more than rope.dimension_count");
    nope -= rope;
  }
  MN_TRY(mn_setting_only_bool(s, "mla_use_nope", NULL, true));
  if (t->kv_heads != t->heads)
    return mn_setting_refuse(s, "num_key_value_heads", NULL, "must be num_attention_heads: each head makes keys of its own");
  mn_keys_text(latent, "type", "mla");
  mn_keys_int(latent, "heads", t->heads);
  if (q_rank) mn_keys_int(latent, "q_lora_rank", q_rank);
  mn_keys_int(latent, "kv_lora_rank", rank);
  mn_keys_int(latent, "qk_nope_head_dim", nope);
  mn_keys_int(latent, "qk_rope_head_dim", rope);
  mn_keys_int(latent, "v_head_dim", value);
  mn_keys_int(latent, "max_context", t->context);
  mn_keys_bool(latent, "rope", false);
  return MN_OK;
}

/* Settings have two names each: what was published first, and what transformers calls them. */
static mn_status either(mn_settings *s, const char *a, const char *b, const char *gguf, int64_t otherwise, int64_t *out) {
  MN_TRY(mn_setting_int(s, a, gguf, otherwise, out));
  return mn_setting_int(s, b, gguf, *out, out);
}

static mn_status read_experts(mn_settings *s, mn_hybrid_experts *e, int64_t *dense, int64_t *every) {
  const bool gguf = s->form == MN_FORM_GGUF; /* what is left out there is none, and not as in Kimi Linear itself */
  int64_t shared, groups, chosen;
  const char *score;
  *e = (mn_hybrid_experts){.sigmoid = true, .choice_bias = true};
  MN_TRY(either(s, "num_experts", "num_local_experts", "expert_count", 0, &e->experts));
  MN_TRY(mn_setting_int(s, "first_k_dense_replace", "leading_dense_block_count", gguf ? 0 : 1, dense));
  MN_TRY(mn_setting_int(s, "moe_layer_freq", NULL, 1, every));
  if (!e->experts) {
    mn_setting(s, NULL, "expert_gating_func"); /* written all the same: how none are chosen */
    return MN_OK;
  }
  MN_TRY(mn_hybrid_sigmoids(s));
  if (*every < 1) return mn_setting_refuse(s, "moe_layer_freq", NULL, "must be at least 1");
  MN_TRY(either(s, "num_experts_per_token", "num_experts_per_tok", "expert_used_count", 8, &e->top_k));
  MN_TRY(either(s, "num_shared_experts", "n_shared_experts", "expert_shared_count", 1, &shared));
  MN_TRY(mn_setting_int(s, "moe_intermediate_size", "expert_feed_forward_length", MN_NEEDED, &e->hidden));
  MN_TRY(either(s, "num_expert_group", "n_group", "expert_group_count", 1, &groups));
  MN_TRY(mn_setting_int(s, "topk_group", "expert_group_used_count", 1, &chosen));
  if (groups != chosen) return mn_setting_refuse(s, "topk_group", NULL, "is not the number of groups: choosing groups first is not done");
  MN_TRY(mn_setting_text(s, "moe_router_activation_func", NULL, "sigmoid", &score));
  MN_TRY(mn_setting_only_text(s, "moe_router_activation_func", NULL, "sigmoid"));
  MN_TRY(mn_setting_bool(s, "moe_renormalize", NULL, true, &e->normalize));
  MN_TRY(mn_setting_bool(s, "norm_topk_prob", NULL, e->normalize, &e->normalize));
  MN_TRY(mn_setting_real(s, "routed_scaling_factor", "expert_weights_scale", gguf ? 1 : 2.446, &e->scale));
  if (gguf && e->scale == 0) e->scale = 1; /* so its program takes it */
  e->shared = shared * e->hidden;
  return MN_OK;
}

/* Which layers have experts: a list, or all but the first few. */
static mn_status read_sparse(mn_settings *s, const mn_transformer *t, const mn_hybrid_experts *e, int64_t dense, int64_t every,
                             int **sparse) {
  static const char *const words[] = {"dense", "sparse", NULL};
  MN_TRY(mn_hybrid_layers(s, "mlp_layer_types", t->layers, words, sparse));
  if (*sparse) return MN_OK;
  if (!(*sparse = mn_arena_alloc(s->arena, (size_t)t->layers * sizeof **sparse))) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < t->layers; i++) (*sparse)[i] = e->experts && i >= dense && i % every == 0;
  return MN_OK;
}

static mn_status recipe(mn_settings *s, const mn_value **out) {
  mn_transformer t;
  mn_keys model = {.arena = s->arena}, delta = model, latent = model;
  mn_hybrid_experts e;
  int64_t dense, every;
  int *kinds, *sparse;
  MN_TRY(mn_hybrid_read(s, "rms_norm_eps", false, &t));
  MN_TRY(mn_setting_int(s, "model_max_length", NULL, t.context, &t.context));
  MN_TRY(read_kinds(s, &t, &kinds));
  MN_TRY(delta_keys(s, &t, &delta));
  MN_TRY(latent_keys(s, &t, &latent));
  MN_TRY(read_experts(s, &e, &dense, &every));
  MN_TRY(read_sparse(s, &t, &e, dense, every, &sparse));
  MN_TRY(mn_setting_only_text(s, "hidden_act", NULL, "silu"));
  MN_TRY(mn_setting_only_bool(s, "attention_bias", NULL, false));
  const mn_value *mixer[] = {mn_keys_map(&delta), mn_keys_map(&latent)};
  const mn_value *swiglu = mn_value_text(s->arena, "swiglu"), *moe = e.experts ? mn_hybrid_moe(s, &e) : NULL;
  const mn_value **blocks = mn_arena_alloc(s->arena, (size_t)t.layers * sizeof *blocks);
  if (!blocks) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < t.layers; i++) {
    if (sparse[i] && !moe) return mn_setting_refuse(s, "mlp_layer_types", NULL, "has a layer of experts, and there are none");
    blocks[i] = mn_hybrid_block(s, mixer[kinds[i]], sparse[i] ? moe : swiglu, sparse[i] ? e.hidden : t.hidden, 1);
  }
  mn_transformer_model(&t, "decoder", "rms", &model);
  mn_keys_put(&model, "blocks", mn_value_list(s->arena, (size_t)t.layers, blocks));
  *out = mn_keys_map(&model);
  return MN_OK;
}

static mn_status say(const mn_settings *from, const mn_value *recipe, mn_checkpoint_form to, mn_keys *keys) {
  const int64_t n = mn_recipe_layers(recipe);
  const mn_value *latent = mn_recipe_first(recipe, "mla"), *delta = mn_recipe_first(recipe, "kimi_delta");
  int64_t dense = 0;
  bool experts = false;
  (void)from;
  for (int64_t i = 0; i < n; i++) {
    const mn_value *channel = mn_value_get(mn_recipe_block(recipe, i), "channel");
    experts = experts || (channel && channel->kind != MN_TEXT);
    if (!experts) dense++;
  }
  const int64_t nope = (int64_t)mn_recipe_number(latent, "qk_nope_head_dim", 0),
                rope = (int64_t)mn_recipe_number(latent, "qk_rope_head_dim", 0),
                rank = (int64_t)mn_recipe_number(latent, "kv_lora_rank", 0), value = (int64_t)mn_recipe_number(latent, "v_head_dim", 0);
  mn_keys_int(keys, to == MN_FORM_GGUF ? "leading_dense_block_count" : "first_k_dense_replace", dense);
  if (to == MN_FORM_GGUF) {
    mn_keys_int(keys, "context_length", (int64_t)mn_recipe_number(latent, "max_context", 0));
    mn_keys_int(keys, "attention.kv_lora_rank", rank);
    mn_keys_int(keys, "attention.key_length", rank + rope); /* what a cache keeps, which is read as one head */
    mn_keys_int(keys, "attention.value_length", rank);
    mn_keys_int(keys, "attention.key_length_mla", nope + rope);
    mn_keys_int(keys, "attention.value_length_mla", value);
    mn_keys_int(keys, "rope.dimension_count", rope);
    mn_keys_int(keys, "kda.head_dim", (int64_t)mn_recipe_number(delta, "head_dim", 0));
    mn_keys_int(keys, "ssm.conv_kernel", (int64_t)mn_recipe_number(delta, "conv", 0));
    mn_keys_int(keys, "expert_gating_func", 2); /* sigmoids */
    mn_keys_bool(keys, "expert_weights_norm", true);
    return mn_say_kv_heads(recipe, keys, "mla", 1);
  }
  mn_say_nothing(keys, "head_dim"); /* a width of the cache in GGUF */
  mn_keys_int(keys, "num_key_value_heads", (int64_t)mn_recipe_number(latent, "heads", 0));
  mn_keys_int(keys, "qk_nope_head_dim", nope);
  mn_keys_int(keys, "linear_num_heads", (int64_t)mn_recipe_number(delta, "heads", 0));
  return mn_say_layer_types(recipe, keys, "mla", "full_attention", "linear_attention");
}

static void shape(const mn_mixer *mixer, const mn_arch_tensor *row, mn_checkpoint_form form, mn_shape *s) {
  if (form == MN_FORM_HF) {
    if (strstr(row->param, "A_log")) *s = MN_SHAPE(1, 1, mn_shape_count(s), 1);
    if (strstr(row->param, "_conv.")) *s = MN_SHAPE(s->dim[0], 1, s->dim[1]);
  } else if (strstr(row->param, "_conv.")) {
    *s = MN_SHAPE(s->dim[0], 1, s->dim[1]); /* a kernel of one channel each */
  } else if (strstr(row->param, "_up.")) {
    const int64_t H = mn_arch_mixer_key(mixer, "heads"), R = s->dim[1], N = s->dim[0] / H;
    *s = row->gguf_how & MN_T_TURNED ? MN_SHAPE(H, R, N) : MN_SHAPE(H, N, R);
  }
}

/* Of a head the rows of its keys, then those of its values. */
static int64_t place(const mn_mixer *mixer, const mn_arch_tensor *row, int64_t r) {
  const int64_t N = mn_arch_mixer_key(mixer, "qk_nope_head_dim"), V = mn_arch_mixer_key(mixer, "v_head_dim");
  if (strstr(row->param, "k_up")) return r / N * (N + V) + r % N;
  return r / V * (N + V) + N + r % V;
}

#define HF    "model.layers.#."
#define MIXER "layers.#.mixer."
#define PART  "layers.#.channel."
static const mn_arch_tensor tensors[] = {
    {"embed_tokens.weight", "model.embed_tokens.weight", "token_embd.weight", 0, 0},
    {"layers.#.mixer_norm.weight", HF "input_layernorm.weight", "blk.#.attn_norm.weight", 0, 0},
    {MIXER "q_proj.weight", HF "self_attn.q_proj.weight", "blk.#.attn_q.weight", 0, 0},
    {MIXER "k_proj.weight", HF "self_attn.k_proj.weight", "blk.#.attn_k.weight", 0, 0},
    {MIXER "v_proj.weight", HF "self_attn.v_proj.weight", "blk.#.attn_v.weight", 0, 0},
    {MIXER "q_conv.weight", HF "self_attn.q_conv1d.weight", "blk.#.ssm_conv1d_q.weight", MN_T_RESHAPED, MN_T_RESHAPED},
    {MIXER "k_conv.weight", HF "self_attn.k_conv1d.weight", "blk.#.ssm_conv1d_k.weight", MN_T_RESHAPED, MN_T_RESHAPED},
    {MIXER "v_conv.weight", HF "self_attn.v_conv1d.weight", "blk.#.ssm_conv1d_v.weight", MN_T_RESHAPED, MN_T_RESHAPED},
    {MIXER "A_log", HF "self_attn.A_log", "blk.#.ssm_a", MN_T_RESHAPED, MN_T_NEG_EXP},
    {MIXER "dt_bias", HF "self_attn.dt_bias", "blk.#.ssm_dt.bias", 0, 0},
    {MIXER "a_down.weight", HF "self_attn.f_a_proj.weight", "blk.#.ssm_f_a.weight", 0, 0},
    {MIXER "a_up.weight", HF "self_attn.f_b_proj.weight", "blk.#.ssm_f_b.weight", 0, 0},
    {MIXER "b_proj.weight", HF "self_attn.b_proj.weight", "blk.#.ssm_beta.weight", 0, 0},
    {MIXER "gate_down.weight", HF "self_attn.g_a_proj.weight", "blk.#.ssm_g_a.weight", 0, 0},
    {MIXER "gate_up.weight", HF "self_attn.g_b_proj.weight", "blk.#.ssm_g_b.weight", 0, 0},
    {MIXER "norm.weight", HF "self_attn.o_norm.weight", "blk.#.ssm_norm.weight", 0, 0},
    {MIXER "o_proj.weight", HF "self_attn.o_proj.weight", "blk.#.attn_output.weight", 0, 0},
    {MIXER "q_down.weight", HF "self_attn.q_a_proj.weight", "blk.#.attn_q_a.weight", 0, 0},
    {MIXER "q_norm.weight", HF "self_attn.q_a_layernorm.weight", "blk.#.attn_q_a_norm.weight", 0, 0},
    {MIXER "q_up.weight", HF "self_attn.q_b_proj.weight", "blk.#.attn_q_b.weight", 0, 0},
    {MIXER "kv_down.weight", HF "self_attn.kv_a_proj_with_mqa.weight", "blk.#.attn_kv_a_mqa.weight", 0, 0},
    {MIXER "kv_norm.weight", HF "self_attn.kv_a_layernorm.weight", "blk.#.attn_kv_a_norm.weight", 0, 0},
    {MIXER "k_up.weight", HF "self_attn.kv_b_proj.weight", "blk.#.attn_k_b.weight", MN_T_ROWS, MN_T_TURNED | MN_T_RESHAPED},
    {MIXER "v_up.weight", HF "self_attn.kv_b_proj.weight", "blk.#.attn_v_b.weight", MN_T_ROWS, MN_T_RESHAPED},
    {"layers.#.channel_norm.weight", HF "post_attention_layernorm.weight", "blk.#.ffn_norm.weight", 0, 0},
    {PART "gate_proj.weight", HF "mlp.gate_proj.weight", "blk.#.ffn_gate.weight", 0, 0},
    {PART "up_proj.weight", HF "mlp.up_proj.weight", "blk.#.ffn_up.weight", 0, 0},
    {PART "down_proj.weight", HF "mlp.down_proj.weight", "blk.#.ffn_down.weight", 0, 0},
    {PART "gate_proj.weight", HF "block_sparse_moe.gate_proj.weight", "blk.#.ffn_gate.weight", 0, 0}, /* as others save it */
    {PART "up_proj.weight", HF "block_sparse_moe.up_proj.weight", "blk.#.ffn_up.weight", 0, 0},
    {PART "down_proj.weight", HF "block_sparse_moe.down_proj.weight", "blk.#.ffn_down.weight", 0, 0},
    {PART "router.weight", HF "block_sparse_moe.gate.weight", "blk.#.ffn_gate_inp.weight", 0, 0},
    {PART "choice_bias", HF "block_sparse_moe.gate.e_score_correction_bias", "blk.#.exp_probs_b.bias", 0, 0},
    {PART "experts.gate_proj.weight", HF "block_sparse_moe.experts.@.w1.weight", "blk.#.ffn_gate_exps.weight", 0, 0},
    {PART "experts.up_proj.weight", HF "block_sparse_moe.experts.@.w3.weight", "blk.#.ffn_up_exps.weight", 0, 0},
    {PART "experts.down_proj.weight", HF "block_sparse_moe.experts.@.w2.weight", "blk.#.ffn_down_exps.weight", 0, 0},
    {PART "shared.gate_proj.weight", HF "block_sparse_moe.shared_experts.gate_proj.weight", "blk.#.ffn_gate_shexp.weight", 0, 0},
    {PART "shared.up_proj.weight", HF "block_sparse_moe.shared_experts.up_proj.weight", "blk.#.ffn_up_shexp.weight", 0, 0},
    {PART "shared.down_proj.weight", HF "block_sparse_moe.shared_experts.down_proj.weight", "blk.#.ffn_down_shexp.weight", 0, 0},
    {"norm.weight", "model.norm.weight", "output_norm.weight", 0, 0},
    {"lm_head.weight", "lm_head.weight", "output.weight", 0, 0},
    {0}};

const mn_arch_def mn_arch_kimi_linear = {
    .name = "kimi_linear",
    .summary = "Kimi Linear",
    .types = "kimi_linear",
    .classes = "KimiLinearForCausalLM",
    .gguf = "kimi-linear",
    .idle = "router_aux_loss_coef head_dim qk_head_dim num_nextn_predict_layers use_grouped_topk rope_theta rope_scaling rope_parameters "
            "attention.key_length attention.value_length expert_weights_norm rope.freq_base",
    .recipe = recipe,
    .tensors = tensors,
    .place = place,
    .say = say,
    .shape = shape,
};
