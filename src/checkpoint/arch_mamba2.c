/* arch_mamba2.c - Mamba-2 alone: blocks that are a mixer without a channel part (Dao & Gu 2024, arXiv 2405.21060). */
#include "checkpoint/arch.h"
#include "checkpoint/hybrid.h"
#include "checkpoint/say.h"

static mn_status recipe(mn_settings *s, const mn_value **out) {
  mn_transformer t;
  mn_hybrid_state m = {0};
  mn_keys model = {.arena = s->arena}, mixer = model;
  int64_t heads, expand;
  MN_TRY(mn_hybrid_read(s, "layer_norm_epsilon", false, &t));
  MN_TRY(mn_setting_int(s, "num_heads", "ssm.time_step_rank", MN_NEEDED, &heads));
  MN_TRY(mn_setting_int(s, "state_size", "ssm.state_size", MN_NEEDED, &m.state));
  MN_TRY(mn_setting_int(s, "n_groups", "ssm.group_count", 1, &m.groups));
  MN_TRY(mn_setting_int(s, "conv_kernel", "ssm.conv_kernel", 4, &m.conv));
  MN_TRY(mn_setting_int(s, "expand", NULL, 2, &expand));
  MN_TRY(mn_setting_int(s, NULL, "ssm.inner_size", expand * t.d_model, &m.inner));
  MN_TRY(mn_setting_int(s, "head_dim", NULL, heads ? m.inner / heads : 0, &m.head_dim));
  if (heads * m.head_dim != m.inner || !m.inner)
    return mn_setting_refuse(s, "num_heads", "ssm.time_step_rank", "times head_dim is not the inner width, %lld", (long long)m.inner);
  const bool there = s->form == MN_FORM_GGUF && mn_checkpoint_find(s->from, "blk.0.ssm_in.bias");
  MN_TRY(mn_setting_bool(s, "use_bias", NULL, there, &m.bias));
  MN_TRY(mn_setting_bool(s, "use_conv_bias", NULL, true, &m.conv_bias));
  MN_TRY(mn_setting_only_text(s, "hidden_act", NULL, "silu"));
  m.norm_eps = t.norm_eps;
  MN_TRY(mn_hybrid_state_keys(s, &m, &mixer));
  mn_transformer_model(&t, "decoder", "rms", &model);
  mn_keys_int(&model, "layers", t.layers);
  mn_keys_put(&model, "block", mn_hybrid_block(s, mn_keys_map(&mixer), mn_value_text(s->arena, "none"), 0, 1));
  *out = mn_keys_map(&model);
  return MN_OK;
}

static mn_status say(const mn_settings *from, const mn_value *recipe, mn_checkpoint_form to, mn_keys *keys) {
  const mn_value *mixer = mn_value_get(mn_recipe_block(recipe, 0), "mixer"), *conv_bias = mn_value_get(mixer, "conv_bias");
  const double inner = mn_recipe_number(mixer, "inner", 0), width = mn_recipe_number(recipe, "d_model", 1);
  (void)from;
  if (to == MN_FORM_GGUF) {
    mn_keys_int(keys, "ssm.inner_size", (int64_t)inner);
    mn_keys_int(keys, "attention.head_count", 0);
    mn_keys_int(keys, "context_length", MN_SAY_ANY_CONTEXT);
    return MN_OK;
  }
  mn_keys_int(keys, "expand", (int64_t)(inner / width));
  mn_keys_int(keys, "head_dim", (int64_t)mn_recipe_number(mixer, "head_dim", 0));
  mn_keys_bool(keys, "use_bias", mn_recipe_true(mixer, "bias"));
  mn_keys_bool(keys, "use_conv_bias", !conv_bias || mn_recipe_true(mixer, "conv_bias"));
  return MN_OK;
}

static const mn_arch_tensor tensors[] = {{"embed_tokens.weight", "backbone.embeddings.weight", "token_embd.weight", 0, 0},
                                         {"layers.#.mixer_norm.weight", "backbone.layers.#.norm.weight", "blk.#.attn_norm.weight", 0, 0},
                                         MN_MAMBA_TENSORS("layers.#.mixer.", "backbone.layers.#.mixer.", 0),
                                         {"norm.weight", "backbone.norm_f.weight", "output_norm.weight", 0, 0},
                                         {"lm_head.weight", "lm_head.weight", "output.weight", 0, 0},
                                         {0}};

const mn_arch_def mn_arch_mamba2 = {
    .name = "mamba2",
    .summary = "Mamba-2",
    .types = "mamba2",
    .classes = "Mamba2ForCausalLM",
    .gguf = "mamba2",
    .idle = "chunk_size norm_before_gate rescale_prenorm_residual residual_in_fp32 rms_norm time_step_floor time_step_max time_step_min "
            "time_step_rank intermediate_size attention.head_count",
    .recipe = recipe,
    .tensors = tensors,
    .say = say,
    .shape = mn_hybrid_mamba_shape,
};
