/* arch_experts.c - decoders whose every channel part is many experts, and otherwise as Llama: Mixtral (Jiang et al. 2024, arXiv 2401.04088),
 * Qwen 3 with experts (Yang et al. 2025, arXiv 2505.09388; norms of each head's queries and keys, some layers may have no experts) and OLMoE
 * (Muennighoff et al. 2024, arXiv 2409.02060; norms of all queries and of all keys at once). GGUF has experts of a layer in one tensor. */
#include "checkpoint/hybrid.h"
#include "checkpoint/say.h"

typedef enum family { MIXTRAL, QWEN3, OLMOE } family;

/* Does a GGUF file of the architecture llama have experts? */
static bool has_experts(const mn_settings *s) {
  const mn_value *v = mn_value_get(s->map, "llama.expert_count");
  return s->form == MN_FORM_HF || (v && v->kind == MN_INTEGER && v->as.integer > 0);
}

static mn_status read_experts(mn_settings *s, family f, const mn_transformer *t, mn_hybrid_experts *e) {
  *e = (mn_hybrid_experts){.normalize = f == MIXTRAL || (f == QWEN3 && s->form == MN_FORM_GGUF), .scale = 1, .hidden = t->hidden};
  const bool local = f == MIXTRAL; /* either name is written, and read */
  MN_TRY(mn_setting_int(s, local ? "num_local_experts" : "num_experts", "expert_count", local ? 8 : f == QWEN3 ? 128 : 64, &e->experts));
  MN_TRY(mn_setting_int(s, local ? "num_experts" : "num_local_experts", "expert_count", e->experts, &e->experts));
  MN_TRY(mn_setting_int(s, "num_experts_per_tok", "expert_used_count", f == MIXTRAL ? 2 : 8, &e->top_k));
  if (f == QWEN3) MN_TRY(mn_setting_int(s, "moe_intermediate_size", "expert_feed_forward_length", MN_NEEDED, &e->hidden));
  return f == MIXTRAL ? MN_OK : mn_setting_bool(s, "norm_topk_prob", NULL, e->normalize, &e->normalize);
}

static mn_status attention_keys(mn_settings *s, family f, mn_transformer *t, mn_keys *attention) {
  int64_t window;
  bool used = f == MIXTRAL, bias = false;
  MN_TRY(mn_transformer_rope(s, t, f == MIXTRAL ? 1e6 : 10000, NULL, attention));
  const bool usual = f == QWEN3 && s->form == MN_FORM_HF && !mn_setting_is_null(s, "sliding_window"); /* where nothing is said */
  MN_TRY(mn_setting_int(s, "sliding_window", "attention.sliding_window", usual ? 4096 : 0, &window));
  if (f == QWEN3) MN_TRY(mn_setting_bool(s, "use_sliding_window", NULL, s->form == MN_FORM_GGUF, &used));
  if (f != MIXTRAL) MN_TRY(mn_setting_bool(s, "attention_bias", NULL, false, &bias));
  if (f == OLMOE && mn_setting(s, "clip_qkv", "attention.clamp_kqv"))
    return mn_setting_refuse(s, "clip_qkv", "attention.clamp_kqv", "is set: clipping queries, keys and values is not done");
  mn_transformer_heads(t, used ? window : 0, attention);
  if (bias) mn_keys_bool(attention, "bias", true);
  if (f == MIXTRAL) return MN_OK;
  mn_keys_text(attention, "qk_norm", f == QWEN3 ? "heads" : "all");
  mn_keys_real(attention, "qk_norm_eps", t->norm_eps);
  return MN_OK;
}

static mn_status qwen_say(const mn_settings *from, const mn_value *recipe, mn_checkpoint_form to, mn_keys *keys) {
  const double window = mn_recipe_number(mn_recipe_attention(recipe, true), "window", 0);
  (void)from;
  if (window <= 0) mn_say_nothing(keys, to == MN_FORM_GGUF ? "attention.sliding_window" : "sliding_window");
  if (to == MN_FORM_GGUF) return MN_OK;
  mn_keys_bool(keys, "use_sliding_window", window > 0);
  return mn_say_dense_layers(recipe, keys);
}

static mn_status recipe(mn_settings *s, family f, const mn_value **out) {
  mn_transformer t;
  mn_keys model = {.arena = s->arena}, attention = model;
  mn_hybrid_experts e;
  int64_t every = 1;
  MN_TRY(mn_transformer_read(s, false, &t));
  MN_TRY(attention_keys(s, f, &t, &attention));
  MN_TRY(read_experts(s, f, &t, &e));
  if (f == QWEN3) MN_TRY(mn_setting_int(s, "decoder_sparse_step", NULL, 1, &every));
  if (every < 1) return mn_setting_refuse(s, "decoder_sparse_step", NULL, "must be at least 1");
  MN_TRY(mn_setting_only_text(s, "hidden_act", NULL, "silu"));
  const mn_value *mixer = mn_keys_map(&attention), *moe = mn_hybrid_moe(s, &e), *swiglu = mn_value_text(s->arena, "swiglu");
  const mn_value **blocks = mn_arena_alloc(s->arena, (size_t)(t.layers + 1) * sizeof *blocks);
  if (!blocks) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < t.layers; i++) {
    bool dense = false;
    if (f == QWEN3) MN_TRY(mn_hybrid_holds(s, "mlp_only_layers", i, &dense));
    dense = dense || (i + 1) % every || (f == QWEN3 && mn_hybrid_no_router(s, i));
    blocks[i] = mn_hybrid_block(s, mixer, dense ? swiglu : moe, dense ? t.hidden : e.hidden, 1);
  }
  mn_transformer_model(&t, "decoder", "rms", &model);
  mn_keys_put(&model, "blocks", mn_value_list(s->arena, (size_t)t.layers, blocks));
  *out = mn_keys_map(&model);
  return MN_OK;
}

static mn_status mixtral_recipe(mn_settings *s, const mn_value **out) { return recipe(s, MIXTRAL, out); }
static mn_status qwen_recipe(mn_settings *s, const mn_value **out) { return recipe(s, QWEN3, out); }
static mn_status olmoe_recipe(mn_settings *s, const mn_value **out) { return recipe(s, OLMOE, out); }

#define PART "layers.#.channel."
#define EXPERTS(of, gate, up, down)                                                                                                        \
  {PART "router.weight", "model.layers.#." of ".gate.weight", "blk.#.ffn_gate_inp.weight", 0, 0},                                          \
      {PART "experts.gate_proj.weight", "model.layers.#." of ".experts.@." gate ".weight", "blk.#.ffn_gate_exps.weight", 0, 0},            \
      {PART "experts.up_proj.weight", "model.layers.#." of ".experts.@." up ".weight", "blk.#.ffn_up_exps.weight", 0, 0}, {                \
    PART "experts.down_proj.weight", "model.layers.#." of ".experts.@." down ".weight", "blk.#.ffn_down_exps.weight", 0, 0                 \
  }

static const mn_arch_tensor mixtral[] = {
    MN_ROWS_TRUNK(0),
    MN_ROWS_PRE_NORMS(0),
    MN_ROWS_ATTENTION(MN_T_ROTARY),
    EXPERTS("block_sparse_moe", "w1", "w3", "w2"),
    {PART "experts.gate_proj.weight", NULL, "blk.#.ffn_gate.@.weight", 0, 0}, /* files of before: a tensor for each */
    {PART "experts.up_proj.weight", NULL, "blk.#.ffn_up.@.weight", 0, 0},
    {PART "experts.down_proj.weight", NULL, "blk.#.ffn_down.@.weight", 0, 0},
    {0}};
static const mn_arch_tensor qwen3[] = {MN_ROWS_TRUNK(0),
                                       MN_ROWS_PRE_NORMS(0),
                                       MN_ROWS_ATTENTION(0),
                                       MN_ROWS_QK_NORM(0),
                                       MN_ROWS_GATED,
                                       EXPERTS("mlp", "gate_proj", "up_proj", "down_proj"),
                                       {0}};

const mn_arch_def mn_arch_mixtral = {
    .name = "mixtral",
    .summary = "Mixtral",
    .types = "mixtral",
    .classes = "MixtralForCausalLM",
    .gguf = "llama",
    .idle = "router_aux_loss_coef output_router_logits router_jitter_noise rope.dimension_count",
    .is = has_experts,
    .recipe = mixtral_recipe,
    .tensors = mixtral,
};

const mn_arch_def mn_arch_qwen3_moe = {
    .name = "qwen3_moe",
    .summary = "Qwen 3 with experts",
    .types = "qwen3_moe",
    .classes = "Qwen3MoeForCausalLM",
    .gguf = "qwen3moe",
    .idle = "router_aux_loss_coef output_router_logits max_window_layers rope.dimension_count",
    .recipe = qwen_recipe,
    .tensors = qwen3,
    .say = qwen_say,
};

const mn_arch_def mn_arch_olmoe = {
    .name = "olmoe",
    .summary = "OLMoE",
    .types = "olmoe",
    .classes = "OlmoeForCausalLM",
    .gguf = "olmoe",
    .idle = "router_aux_loss_coef output_router_logits rope.dimension_count",
    .recipe = olmoe_recipe,
    .tensors = qwen3,
};
