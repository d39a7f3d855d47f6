/* arch_qwen3_next.c - Qwen3-Next and Qwen3.5: Gated DeltaNet, and in some layers attention whose output is gated (Yang et al. 2024,
 * arXiv 2412.06464; Qiu et al. 2025, arXiv 2505.06708). Gains of norms are 1 + w, but for that of what a memory is read for. Qwen3-Next keeps
 * its projections head by head, q, k, v and z of each key head behind one another; Qwen3.5 keeps each whole, and in GGUF with another order
 * of the heads of values. */
#include "checkpoint/arch.h"
#include "checkpoint/hybrid.h"
#include "checkpoint/say.h"
#include "memory/attention.h"

#include <stdio.h>
#include <string.h>

enum { DELTA, ATTENTION };

/* GGUF: true for layers that have a memory instead of attention; layers behind the model's last stand there, too. */
static mn_status read_recurrent(mn_settings *s, const mn_transformer *t, int **kinds) {
  static const char key[] = "attention.recurrent_layers";
  const mn_value *v = mn_setting(s, NULL, key);
  if (!v) return MN_OK;
  if (v->kind != MN_LIST || (int64_t)v->count < t->layers)
    return mn_setting_refuse(s, NULL, key, "must be a list of a truth for each layer");
  if (!(*kinds = mn_arena_alloc(s->arena, (size_t)t->layers * sizeof **kinds))) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < t->layers; i++) {
    if (v->as.items[i]->kind != MN_BOOLEAN) return mn_setting_refuse(s, NULL, key, "must be a list of truths");
    (*kinds)[i] = v->as.items[i]->as.boolean ? DELTA : ATTENTION;
  }
  return MN_OK;
}

static mn_status read_kinds(mn_settings *s, const mn_transformer *t, int **kinds) {
  static const char *const words[] = {"linear_attention", "full_attention", NULL};
  int64_t every;
  MN_TRY(mn_hybrid_layers(s, "layer_types", t->layers, words, kinds));
  if (s->form == MN_FORM_GGUF) MN_TRY(read_recurrent(s, t, kinds));
  MN_TRY(mn_setting_int(s, "full_attention_interval", "full_attention_interval", 4, &every));
  if (*kinds) return MN_OK;
  if (every < 1) return mn_setting_refuse(s, "full_attention_interval", "full_attention_interval", "must be at least 1");
  if (!(*kinds = mn_arena_alloc(s->arena, (size_t)t->layers * sizeof **kinds))) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < t->layers; i++) (*kinds)[i] = (i + 1) % every ? DELTA : ATTENTION;
  return MN_OK;
}

static mn_status delta_keys(mn_settings *s, const mn_transformer *t, mn_keys *delta) {
  int64_t heads, key_heads, key_dim, value_dim, conv;
  MN_TRY(mn_setting_int(s, "linear_num_value_heads", "ssm.time_step_rank", MN_NEEDED, &heads));
  MN_TRY(mn_setting_int(s, "linear_num_key_heads", "ssm.group_count", MN_NEEDED, &key_heads));
  MN_TRY(mn_setting_int(s, "linear_key_head_dim", "ssm.state_size", MN_NEEDED, &key_dim));
  if (s->form == MN_FORM_GGUF) { /* of all heads together */
    MN_TRY(mn_setting_int(s, NULL, "ssm.inner_size", MN_NEEDED, &value_dim));
    if (!heads || value_dim % heads) return mn_setting_refuse(s, NULL, "ssm.inner_size", "is no multiple of the number of heads");
    value_dim /= heads;
  } else {
    MN_TRY(mn_setting_int(s, "linear_value_head_dim", NULL, MN_NEEDED, &value_dim));
  }
  MN_TRY(mn_setting_int(s, "linear_conv_kernel_dim", "ssm.conv_kernel", 4, &conv));
  if (key_heads < 1) return mn_setting_refuse(s, "linear_num_key_heads", "ssm.group_count", "must be at least 1");
  if (key_dim < 1) return mn_setting_refuse(s, "linear_key_head_dim", "ssm.state_size", "must be at least 1");
  if (value_dim < 1) return mn_setting_refuse(s, "linear_value_head_dim", "ssm.inner_size", "must be at least 1 for each head");
  mn_keys_text(delta, "type", "gated_deltanet");
  mn_keys_int(delta, "heads", heads);
  mn_keys_int(delta, "key_heads", key_heads);
  mn_keys_int(delta, "head_dim", key_dim);
  mn_keys_int(delta, "value_dim", value_dim);
  mn_keys_int(delta, "conv", conv);
  mn_keys_real(delta, "norm_eps", t->norm_eps);
  return MN_OK;
}

static mn_status read_experts(mn_settings *s, mn_hybrid_experts *e, int64_t *every) {
  *e = (mn_hybrid_experts){.scale = 1, .shared_gate = true};
  MN_TRY(mn_setting_int(s, "num_experts", "expert_count", 0, &e->experts));
  MN_TRY(mn_setting_int(s, "decoder_sparse_step", NULL, 1, every));
  if (!e->experts) return MN_OK;
  if (*every < 1) return mn_setting_refuse(s, "decoder_sparse_step", NULL, "must be at least 1");
  MN_TRY(mn_setting_int(s, "num_experts_per_tok", "expert_used_count", MN_NEEDED, &e->top_k));
  MN_TRY(mn_setting_int(s, "moe_intermediate_size", "expert_feed_forward_length", MN_NEEDED, &e->hidden));
  MN_TRY(mn_setting_int(s, "shared_expert_intermediate_size", "expert_shared_feed_forward_length", MN_NEEDED, &e->shared));
  return mn_setting_bool(s, "norm_topk_prob", NULL, true, &e->normalize);
}

/* GGUF: blocks that guess further tokens, for drafts, stand behind the model's own and are counted with them; nothing reads them. */
static mn_status leave_drafts(mn_settings *s, mn_transformer *t) {
  char shown[MN_PRINTABLE];
  int64_t drafts;
  int layer;
  if (s->form != MN_FORM_GGUF) return MN_OK;
  MN_TRY(mn_setting_int(s, NULL, "nextn_predict_layers", 0, &drafts));
  if (drafts >= t->layers)
    return mn_setting_refuse(s, NULL, "nextn_predict_layers", "leaves none of the %lld layers of block_count", (long long)t->layers);
  for (int i = 0; i < mn_checkpoint_count(s->from); i++) {
    const char *name = mn_checkpoint_at(s->from, i)->name;
    if (mn_arch_fits("blk.#.*", name, &layer) && layer >= t->layers)
      return mn_setting_refuse(s, NULL, "block_count", "is %lld, and there is the tensor '%s'", (long long)t->layers,
                               mn_printable(name, shown));
  }
  t->layers -= drafts;
  return MN_OK;
}

static mn_status recipe(mn_settings *s, const mn_value **out) {
  mn_transformer t;
  mn_keys model = {.arena = s->arena}, delta = model, attention = model;
  mn_hybrid_experts e;
  int64_t every;
  int *kinds;
  MN_TRY(mn_hybrid_read(s, "rms_norm_eps", false, &t));
  MN_TRY(leave_drafts(s, &t));
  if (s->form == MN_FORM_GGUF) MN_TRY(mn_setting_int(s, NULL, "attention.head_count_kv", t.heads, &t.kv_heads));
  MN_TRY(read_kinds(s, &t, &kinds));
  MN_TRY(delta_keys(s, &t, &delta));
  MN_TRY(read_experts(s, &e, &every));
  MN_TRY(mn_setting_only_text(s, "hidden_act", NULL, "silu"));
  MN_TRY(mn_setting_only_bool(s, "attention_bias", NULL, false));
  mn_transformer_heads(&t, 0, &attention);
  mn_keys_text(&attention, "qk_norm", "heads");
  mn_keys_real(&attention, "qk_norm_eps", t.norm_eps);
  mn_keys_bool(&attention, "output_gate", true);
  MN_TRY(mn_hybrid_rope(s, &t, 10000, 0.25, &attention));
  const mn_value *mixer[] = {mn_keys_map(&delta), mn_keys_map(&attention)};
  const mn_value *swiglu = mn_value_text(s->arena, "swiglu"), *moe = e.experts ? mn_hybrid_moe(s, &e) : NULL;
  const mn_value **blocks = mn_arena_alloc(s->arena, (size_t)t.layers * sizeof *blocks);
  if (!blocks) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < t.layers; i++) {
    bool dense;
    MN_TRY(mn_hybrid_holds(s, "mlp_only_layers", i, &dense));
    dense = dense || !e.experts || (i + 1) % every || mn_hybrid_no_router(s, i);
    blocks[i] = mn_hybrid_block(s, mixer[kinds[i]], dense ? swiglu : moe, dense ? t.hidden : e.hidden, 1);
  }
  mn_transformer_model(&t, "decoder", "rms", &model);
  mn_keys_put(&model, "blocks", mn_value_list(s->arena, (size_t)t.layers, blocks));
  *out = mn_keys_map(&model);
  return MN_OK;
}

/* Every so many layers attend, as GGUF says it; 0: they do not stand so. */
static int64_t interval(const mn_value *recipe) {
  const int64_t n = mn_recipe_layers(recipe);
  for (int64_t every = 1; every <= n + 1; every++) {
    int64_t i = 0;
    while (i < n && mn_recipe_has_mixer(recipe, i, "attention") == !((i + 1) % every)) i++;
    if (i == n) return every;
  }
  return 0;
}

static mn_status say_kinds(const mn_value *recipe, mn_keys *keys) {
  const int64_t n = mn_recipe_layers(recipe), every = interval(recipe);
  bool *recurrent = mn_arena_alloc(keys->arena, (size_t)(n + 1) * sizeof *recurrent);
  if (!recurrent) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < n; i++) recurrent[i] = !mn_recipe_has_mixer(recipe, i, "attention");
  if (every) mn_keys_int(keys, "full_attention_interval", every);
  else mn_say_truths(keys, "attention.recurrent_layers", n, recurrent);
  return MN_OK;
}

static mn_status say_both(const mn_value *recipe, mn_checkpoint_form to, mn_keys *keys) {
  const mn_value *attention = mn_recipe_attention(recipe, false), *delta = mn_recipe_first(recipe, "gated_deltanet");
  const double head_dim = mn_recipe_number(attention, "head_dim", 0);
  const double value_dim = mn_recipe_number(delta, "value_dim", 0);
  mn_keys_int(keys, to == MN_FORM_GGUF ? "attention.head_count_kv" : "num_key_value_heads",
              (int64_t)mn_recipe_number(attention, "kv_heads", 0));
  if (to == MN_FORM_GGUF) {
    mn_keys_int(keys, "ssm.inner_size", (int64_t)(value_dim * mn_recipe_number(delta, "heads", 0)));
    return say_kinds(recipe, keys);
  }
  mn_keys_int(keys, "num_hidden_layers", mn_recipe_layers(recipe)); /* without those that GGUF counts for drafts */
  mn_keys_int(keys, "linear_value_head_dim", (int64_t)value_dim);
  mn_keys_real(keys, "partial_rotary_factor", head_dim > 0 ? mn_recipe_number(attention, "rope_dim", head_dim) / head_dim : 1);
  return mn_say_layer_types(recipe, keys, "attention", "full_attention", "linear_attention");
}

static mn_status say(const mn_settings *from, const mn_value *recipe, mn_checkpoint_form to, mn_keys *keys) {
  (void)from;
  MN_TRY(say_both(recipe, to, keys));
  return to == MN_FORM_HF ? mn_say_dense_layers(recipe, keys) : MN_OK;
}

static bool belongs(const mn_mixer *mixer, const mn_arch_tensor *row) {
  const bool attends = !strcmp(mixer->def->name, "attention");
  if (strstr(row->hf, "self_attn.")) return attends;
  return !strstr(row->hf, "linear_attn.") || !attends;
}

/* A head's rows are its query's, then its gate's. */
static int64_t place_of_query(const mn_mixer *mixer, const mn_arch_tensor *row, int64_t r) {
  const int64_t K = ((const mn_attention_config *)mixer->config)->head_dim;
  return r / K * 2 * K + r % K + (strstr(row->param, "gate_proj") ? K : 0);
}

/* A key head's those of q, k, the values that it serves and their z; and b of all those
 * heads, then a. */
static int64_t place(const mn_mixer *mixer, const mn_arch_tensor *row, int64_t r) {
  if (!strcmp(mixer->def->name, "attention")) return place_of_query(mixer, row, r);
  const int64_t K = mn_arch_mixer_key(mixer, "head_dim"), V = mn_arch_mixer_key(mixer, "value_dim"),
                each = mn_arch_mixer_key(mixer, "heads") / mn_arch_mixer_key(mixer, "key_heads");
  if (strstr(row->param, "b_proj")) return r / each * 2 * each + r % each;
  if (strstr(row->param, "a_proj")) return r / each * 2 * each + each + r % each;
  const int64_t whole = 2 * K + 2 * each * V;
  if (strstr(row->param, "q_proj")) return r / K * whole + r % K;
  if (strstr(row->param, "k_proj")) return r / K * whole + K + r % K;
  if (strstr(row->param, "v_proj")) return r / (each * V) * whole + 2 * K + r % (each * V);
  return r / (each * V) * whole + 2 * K + each * V + r % (each * V);
}

/* Rows below `hf`, "model.layers.#."; the whole is below `root`, "model.". */
#define SHARED(root, hf)                                                                                                                   \
  {"embed_tokens.weight", root "embed_tokens.weight", "token_embd.weight", 0, 0},                                                          \
      {"layers.#.mixer_norm.weight", hf "input_layernorm.weight", "blk.#.attn_norm.weight", MN_T_LESS_ONE, 0},                             \
      {"layers.#.mixer.q_proj.weight", hf "self_attn.q_proj.weight", "blk.#.attn_q.weight", MN_T_ROWS, MN_T_ROWS},                         \
      {"layers.#.mixer.gate_proj.weight", hf "self_attn.q_proj.weight", "blk.#.attn_q.weight", MN_T_ROWS, MN_T_ROWS},                      \
      {"layers.#.mixer.k_proj.weight", hf "self_attn.k_proj.weight", "blk.#.attn_k.weight", 0, 0},                                         \
      {"layers.#.mixer.v_proj.weight", hf "self_attn.v_proj.weight", "blk.#.attn_v.weight", 0, 0},                                         \
      {"layers.#.mixer.o_proj.weight", hf "self_attn.o_proj.weight", "blk.#.attn_output.weight", 0, 0},                                    \
      {"layers.#.mixer.q_norm.weight", hf "self_attn.q_norm.weight", "blk.#.attn_q_norm.weight", MN_T_LESS_ONE, 0},                        \
      {"layers.#.mixer.k_norm.weight", hf "self_attn.k_norm.weight", "blk.#.attn_k_norm.weight", MN_T_LESS_ONE, 0},                        \
      {"layers.#.channel_norm.weight", hf "post_attention_layernorm.weight", "blk.#.post_attention_norm.weight", MN_T_LESS_ONE, 0},        \
      {"layers.#.channel.gate_proj.weight", hf "mlp.gate_proj.weight", "blk.#.ffn_gate.weight", 0, 0},                                     \
      {"layers.#.channel.up_proj.weight", hf "mlp.up_proj.weight", "blk.#.ffn_up.weight", 0, 0},                                           \
      {"layers.#.channel.down_proj.weight", hf "mlp.down_proj.weight", "blk.#.ffn_down.weight", 0, 0},                                     \
      {"layers.#.channel.router.weight", hf "mlp.gate.weight", "blk.#.ffn_gate_inp.weight", 0, 0},                                         \
      {"layers.#.channel.experts.gate_proj.weight", hf "mlp.experts.@.gate_proj.weight", "blk.#.ffn_gate_exps.weight", 0, 0},              \
      {"layers.#.channel.experts.up_proj.weight", hf "mlp.experts.@.up_proj.weight", "blk.#.ffn_up_exps.weight", 0, 0},                    \
      {"layers.#.channel.experts.down_proj.weight", hf "mlp.experts.@.down_proj.weight", "blk.#.ffn_down_exps.weight", 0, 0},              \
      {"layers.#.channel.shared.gate_proj.weight", hf "mlp.shared_expert.gate_proj.weight", "blk.#.ffn_gate_shexp.weight", 0, 0},          \
      {"layers.#.channel.shared.up_proj.weight", hf "mlp.shared_expert.up_proj.weight", "blk.#.ffn_up_shexp.weight", 0, 0},                \
      {"layers.#.channel.shared.down_proj.weight", hf "mlp.shared_expert.down_proj.weight", "blk.#.ffn_down_shexp.weight", 0, 0},          \
      {"layers.#.channel.shared_gate.weight", hf "mlp.shared_expert_gate.weight", "blk.#.ffn_gate_inp_shexp.weight", 0, 0},                \
      {"norm.weight", root "norm.weight", "output_norm.weight", MN_T_LESS_ONE, 0}, {                                                       \
    "lm_head.weight", "lm_head.weight", "output.weight", 0, 0                                                                              \
  }

/* What a memory has beside its projections. In GGUF: how parts of the convolution, what there is of each head, and columns stand. */
#define PART_RESHAPED (MN_T_PART | MN_T_RESHAPED)
#define DELTA_TENSORS(hf, parts, heads, columns)                                                                                           \
  {"layers.#.mixer.q_conv.weight", hf "linear_attn.conv1d.weight", "blk.#.ssm_conv1d.weight", PART_RESHAPED, parts},                       \
      {"layers.#.mixer.k_conv.weight", hf "linear_attn.conv1d.weight", "blk.#.ssm_conv1d.weight", PART_RESHAPED, parts},                   \
      {"layers.#.mixer.v_conv.weight", hf "linear_attn.conv1d.weight", "blk.#.ssm_conv1d.weight", PART_RESHAPED, parts},                   \
      {"layers.#.mixer.A_log", hf "linear_attn.A_log", "blk.#.ssm_a", 0, MN_T_NEG_EXP | (heads)},                                          \
      {"layers.#.mixer.dt_bias", hf "linear_attn.dt_bias", "blk.#.ssm_dt.bias", 0, heads},                                                 \
      {"layers.#.mixer.norm.weight", hf "linear_attn.norm.weight", "blk.#.ssm_norm.weight", 0, 0}, {                                       \
    "layers.#.mixer.o_proj.weight", hf "linear_attn.out_proj.weight", "blk.#.ssm_out.weight", 0, columns                                   \
  }

#define JOINED(param, tensor, gguf, gguf_how)                                                                                              \
  { "layers.#.mixer." param ".weight", "model.layers.#.linear_attn." tensor ".weight", gguf, MN_T_ROWS, gguf_how }
static const mn_arch_tensor joined[] = {SHARED("model.", "model.layers.#."),
                                        DELTA_TENSORS("model.layers.#.", MN_T_PART, 0, 0),
                                        JOINED("q_proj", "in_proj_qkvz", "blk.#.attn_qkv.weight", MN_T_PART),
                                        JOINED("k_proj", "in_proj_qkvz", "blk.#.attn_qkv.weight", MN_T_PART),
                                        JOINED("v_proj", "in_proj_qkvz", "blk.#.attn_qkv.weight", MN_T_PART),
                                        JOINED("gate_proj", "in_proj_qkvz", "blk.#.attn_gate.weight", 0),
                                        JOINED("b_proj", "in_proj_ba", "blk.#.ssm_ba.weight", MN_T_ROWS),
                                        JOINED("a_proj", "in_proj_ba", "blk.#.ssm_ba.weight", MN_T_ROWS),
                                        {NULL, "mtp.*", "blk.#.*", 0, MN_T_BEHIND}, /* guesses of further tokens, for drafts */
                                        {0}};

const mn_arch_def mn_arch_qwen3_next = {
    .name = "qwen3_next",
    .summary = "Qwen3-Next",
    .types = "qwen3_next",
    .classes = "Qwen3NextForCausalLM",
    .gguf = "qwen3next",
    .idle = "router_aux_loss_coef output_router_logits use_sliding_window max_window_layers sliding_window full_attention_interval",
    .recipe = recipe,
    .tensors = joined,
    .place = place,
    .say = say,
    .belongs = belongs,
    .shape = mn_hybrid_conv_shape,
};

/* Of the four positions of a token that sees (time, height, width, and a last one, which is 0) the first three are the same in text, so that a
 * model of text turns its pairs as any other, where none is left to the last: pair i has position i mod 3, below three times its section. */
static mn_status check_sections(mn_settings *s) {
  static const char key[] = "rope.dimension_sections";
  const mn_value *v = mn_setting(s, NULL, key);
  int64_t n[4] = {0}, all = 0;
  if (!v) return MN_OK;
  if (v->kind != MN_LIST || v->count > 4) return mn_setting_refuse(s, NULL, key, "must be a list of up to 4 numbers of pairs");
  for (size_t i = 0; i < v->count; i++) {
    const mn_value *one = v->as.items[i];
    if (one->kind != MN_INTEGER || one->as.integer < 0 || one->as.integer > 4096)
      return mn_setting_refuse(s, NULL, key, "must be a list of up to 4 numbers of pairs");
    all += n[i] = one->as.integer;
  }
  if (!all) return mn_setting_refuse(s, NULL, key, "has no pair that is turned");
  for (int64_t i = 0; i < all; i++)
    if (i >= 3 * n[i % 3])
      return mn_setting_refuse(s, NULL, key, "turns pair %lld by no position of text, which is not done", (long long)i);
  return MN_OK;
}

/* Models that see keep what is for text in a map of its own, and its tensors below language_model; what sees is left aside. */
static mn_status recipe_of_text(mn_settings *s, const mn_value **out) {
  const mn_value *text = s->form == MN_FORM_HF ? mn_setting(s, "text_config", NULL) : NULL;
  bool tied = false;
  if (text && text->kind != MN_MAP) return mn_setting_refuse(s, "text_config", NULL, "must be a map");
  if (text) MN_TRY(mn_setting_bool(s, "tie_word_embeddings", NULL, false, &tied));
  if (text && tied && !mn_value_get(text, "tie_word_embeddings"))
    return mn_setting_refuse(s, "tie_word_embeddings", NULL, "must be said in text_config, too");
  if (text) s->map = text;
  if (s->form == MN_FORM_GGUF) MN_TRY(check_sections(s));
  MN_TRY(mn_setting_only_bool(s, "norm_topk_prob", NULL, true));
  return recipe(s, out);
}

/* How many of n pairs each position turns: as it was said, else a third each. */
static mn_status sections_of(const mn_settings *from, int64_t n, int64_t out[4]) {
  const mn_value *map = from->form == MN_FORM_HF ? mn_value_get(from->map, "rope_parameters") : NULL;
  const mn_value *v = map ? mn_value_get(map, "mrope_section") : NULL;
  char key[64];
  if (from->form == MN_FORM_GGUF) {
    snprintf(key, sizeof key, "%s.rope.dimension_sections", from->word);
    v = mn_value_get(from->map, key);
  }
  for (int i = 0; i < 4; i++) out[i] = i < 3 ? (n + 2 - i) / 3 : 0;
  if (!v) return MN_OK;
  const bool list = v->kind == MN_LIST && v->count <= 4;
  for (size_t i = 0; i < 4; i++) {
    const mn_value *one = list && i < v->count ? v->as.items[i] : NULL;
    out[i] = one && one->kind == MN_INTEGER ? one->as.integer : 0;
    if (!list || (one && (one->kind != MN_INTEGER || out[i] < 0 || out[i] > 4096)))
      return mn_setting_refuse(from, "rope_parameters", "rope.dimension_sections", "must have sections of up to 4 numbers of pairs");
  }
  return MN_OK;
}

static mn_status say_text(const mn_settings *from, const mn_value *recipe, mn_checkpoint_form to, mn_keys *keys) {
  const mn_value *attention = mn_recipe_attention(recipe, false);
  const double width = mn_recipe_number(attention, "head_dim", 0), rotated = mn_recipe_number(attention, "rope_dim", width);
  int64_t sections[4];
  mn_keys rope = {.arena = keys->arena};
  MN_TRY(say_both(recipe, to, keys));
  MN_TRY(sections_of(from, (int64_t)rotated / 2, sections));
  if (to == MN_FORM_GGUF) {
    mn_say_numbers(keys, "rope.dimension_sections", 4, sections);
    return MN_OK;
  }
  mn_say_rope_map(attention, &rope);
  mn_keys_bool(&rope, "mrope_interleaved", true);
  mn_say_numbers(&rope, "mrope_section", 3, sections);
  mn_keys_put(keys, "rope_parameters", mn_keys_map(&rope));
  return MN_OK;
}

/* In GGUF the values that key head 0 serves do not stand side by side: first of each key head its first, then of each its second. */
static int64_t tiled(const mn_mixer *mixer, int64_t head) {
  const int64_t G = mn_arch_mixer_key(mixer, "key_heads"), each = mn_arch_mixer_key(mixer, "heads") / G;
  return head % each * G + head / each;
}

static int64_t place_of_text(const mn_mixer *mixer, const mn_arch_tensor *row, int64_t r) {
  if (strstr(row->param, "experts.")) return mn_hybrid_pair_place(row, r);
  if (!strcmp(mixer->def->name, "attention")) return place_of_query(mixer, row, r);
  const int64_t V = mn_arch_mixer_key(mixer, "value_dim"),
                keys = mn_arch_mixer_key(mixer, "key_heads") * mn_arch_mixer_key(mixer, "head_dim");
  if (strstr(row->param, ".q_")) return r;
  if (strstr(row->param, ".k_")) return keys + r;
  if (strstr(row->param, ".v_")) return 2 * keys + tiled(mixer, r / V) * V + r % V;
  if (strstr(row->param, "gate_proj")) return tiled(mixer, r / V) * V + r % V;
  return tiled(mixer, r); /* what each head has one of, and its columns of what is given on */
}

static int64_t together(const mn_mixer *mixer, const mn_arch_tensor *row) {
  (void)row;
  return mn_arch_mixer_key(mixer, "value_dim");
}

static void shape_of_text(const mn_mixer *mixer, const mn_arch_tensor *row, mn_checkpoint_form form, mn_shape *s) {
  if (!strstr(row->param, "experts.")) mn_hybrid_conv_shape(mixer, row, form, s);
  else mn_hybrid_pair_shape(form, s);
}

/* Experts are one tensor for all, each its gate and what that gates behind one another, or three tensors each. */
#define PAIRS (MN_T_ROWS | MN_T_RESHAPED)
#define EXPERTS(hf)                                                                                                                        \
  {"layers.#.channel.experts.gate_proj.weight", hf "mlp.experts.gate_up_proj", "blk.#.ffn_gate_exps.weight", PAIRS, 0},                    \
      {"layers.#.channel.experts.up_proj.weight", hf "mlp.experts.gate_up_proj", "blk.#.ffn_up_exps.weight", PAIRS, 0}, {                  \
    "layers.#.channel.experts.down_proj.weight", hf "mlp.experts.down_proj", "blk.#.ffn_down_exps.weight", 0, 0                            \
  }
#define WHOLE(hf)                                                                                                                          \
  DELTA_TENSORS(hf, MN_T_ROWS, MN_T_ROWS, MN_T_COLUMNS),                                                                                   \
      {"layers.#.mixer.q_proj.weight", hf "linear_attn.in_proj_qkv.weight", "blk.#.attn_qkv.weight", MN_T_PART, MN_T_ROWS},                \
      {"layers.#.mixer.k_proj.weight", hf "linear_attn.in_proj_qkv.weight", "blk.#.attn_qkv.weight", MN_T_PART, MN_T_ROWS},                \
      {"layers.#.mixer.v_proj.weight", hf "linear_attn.in_proj_qkv.weight", "blk.#.attn_qkv.weight", MN_T_PART, MN_T_ROWS},                \
      {"layers.#.mixer.gate_proj.weight", hf "linear_attn.in_proj_z.weight", "blk.#.attn_gate.weight", 0, MN_T_ROWS},                      \
      {"layers.#.mixer.b_proj.weight", hf "linear_attn.in_proj_b.weight", "blk.#.ssm_beta.weight", 0, MN_T_ROWS}, {                        \
    "layers.#.mixer.a_proj.weight", hf "linear_attn.in_proj_a.weight", "blk.#.ssm_alpha.weight", 0, MN_T_ROWS                              \
  }
#define TEXT "model.language_model."
static const mn_arch_tensor whole[] = {EXPERTS("model.layers.#."),
                                       SHARED("model.", "model.layers.#."),
                                       WHOLE("model.layers.#."),
                                       EXPERTS(TEXT "layers.#."),
                                       SHARED(TEXT, TEXT "layers.#."),
                                       WHOLE(TEXT "layers.#."),
                                       {NULL, "mtp.*", "blk.#.*", 0, MN_T_BEHIND},
                                       {NULL, "model.visual.*", NULL, 0, 0},
                                       {0}};

#define OF_TEXT                                                                                                                            \
  .idle = "router_aux_loss_coef output_router_logits full_attention_interval mtp_num_hidden_layers mtp_use_dedicated_embeddings "          \
          "attn_output_gate mamba_ssm_dtype mlp_only_layers",                                                                              \
  .recipe = recipe_of_text, .tensors = whole, .place = place_of_text, .together = together, .say = say_text, .belongs = belongs,           \
  .shape = shape_of_text

const mn_arch_def mn_arch_qwen3_5 = {
    .name = "qwen3_5",
    .summary = "Qwen3.5, what it says of text",
    .types = "qwen3_5_text qwen3_5",
    .classes = "Qwen3_5ForCausalLM Qwen3_5ForConditionalGeneration",
    .gguf = "qwen35",
    OF_TEXT,
};

const mn_arch_def mn_arch_qwen3_5_moe = {
    .name = "qwen3_5_moe",
    .summary = "Qwen3.5 with experts, what it says of text",
    .types = "qwen3_5_moe_text qwen3_5_moe",
    .classes = "Qwen3_5MoeForCausalLM Qwen3_5MoeForConditionalGeneration",
    .gguf = "qwen35moe",
    OF_TEXT,
};
