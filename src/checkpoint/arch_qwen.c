/* arch_qwen.c - Qwen 2 and 2.5 (biases of queries, keys and values: Yang et al. 2024, arXiv 2407.10671) and Qwen 3 (norms of each head's
 * queries and keys instead: Yang et al. 2025, arXiv 2505.09388); otherwise as Llama. */
#include "checkpoint/say.h"
#include "checkpoint/transformer.h"

/* Some layers see a window where use_sliding_window says so: those from max_window_layers on. */
static mn_status read_window(mn_settings *s, const mn_transformer *t, int64_t *window, const bool **local) {
  bool used;
  int64_t first, i = 0;
  *local = NULL;
  MN_TRY(mn_setting_bool(s, "use_sliding_window", NULL, false, &used));
  const bool usual = s->form == MN_FORM_HF && !mn_setting_is_null(s, "sliding_window"); /* where nothing is said */
  MN_TRY(mn_setting_int(s, "sliding_window", "attention.sliding_window", usual ? 4096 : 0, window));
  MN_TRY(mn_setting_int(s, "max_window_layers", NULL, 28, &first));
  if (s->form == MN_FORM_HF && !used) *window = 0;
  bool *from = mn_arena_alloc(s->arena, (size_t)(t->layers + 1) * sizeof *from);
  if (!from) return MN_ERR_MEMORY;
  for (; i < t->layers; i++) from[i] = *window && (s->form == MN_FORM_GGUF || i >= first);
  *local = from;
  const bool listed = mn_setting(s, "layer_types", "attention.sliding_window_pattern") != NULL;
  return listed && *window ? mn_transformer_local(s, t, 0, local) : MN_OK;
}

static mn_status recipe(mn_settings *s, bool third, const mn_value **out) {
  mn_transformer t;
  mn_keys model = {.arena = s->arena}, attention = model, gated = model;
  const mn_value *block[2];
  const bool *local;
  const char *activation;
  int64_t window;
  bool bias;
  MN_TRY(mn_transformer_read(s, false, &t));
  if (third && !mn_setting(s, "head_dim", "attention.key_length")) t.head_dim = 128;
  MN_TRY(read_window(s, &t, &window, &local));
  MN_TRY(mn_setting_bool(s, "attention_bias", NULL, false, &bias));
  MN_TRY(mn_transformer_activation(s, "hidden_act", "silu", &activation));
  MN_TRY(mn_transformer_rope(s, &t, 10000, NULL, &attention));
  if (!third) mn_keys_bool(&attention, "qkv_bias", true);
  if (third && bias) mn_keys_bool(&attention, "bias", true);
  if (third) {
    mn_keys_text(&attention, "qk_norm", "heads");
    mn_keys_real(&attention, "qk_norm_eps", t.norm_eps);
  }
  mn_keys_text(&gated, "type", "glu");
  mn_keys_text(&gated, "activation", activation);
  for (int i = 0; i < 2; i++) {
    mn_keys one = attention;
    mn_transformer_heads(&t, i ? window : 0, &one);
    block[i] = mn_transformer_block(s, &t, &one, NULL, mn_keys_map(&gated), NULL);
  }
  mn_transformer_model(&t, "decoder", "rms", &model);
  mn_transformer_blocks(s, &t, block, local, &model);
  *out = mn_keys_map(&model);
  return MN_OK;
}

static mn_status second_recipe(mn_settings *s, const mn_value **out) { return recipe(s, false, out); }
static mn_status third_recipe(mn_settings *s, const mn_value **out) { return recipe(s, true, out); }

/* config.json may name a window that is not used; which layers have one is a list in GGUF. */
static mn_status say(const mn_settings *from, const mn_value *recipe, mn_checkpoint_form to, mn_keys *keys) {
  const bool *local;
  bool any;
  int64_t first = 0;
  const int64_t n = mn_recipe_layers(recipe), window = (int64_t)mn_recipe_number(mn_recipe_attention(recipe, true), "window", 0);
  (void)from;
  MN_TRY(mn_say_local(recipe, keys->arena, &local, &any));
  while (first < n && !local[first]) first++;
  if (to == MN_FORM_GGUF && !any) mn_say_nothing(keys, "attention.sliding_window");
  if (to == MN_FORM_GGUF && any) mn_say_truths(keys, "attention.sliding_window_pattern", n, local);
  if (to == MN_FORM_GGUF) return MN_OK;
  mn_keys_bool(keys, "use_sliding_window", any);
  if (any) MN_TRY(mn_say_local_words(recipe, keys));
  if (any) mn_keys_int(keys, "sliding_window", window);
  else mn_say_nothing(keys, "sliding_window");
  mn_keys_int(keys, "max_window_layers", first);
  return MN_OK;
}

static const mn_arch_tensor tensors[] = {MN_ROWS_TRUNK(0),   MN_ROWS_PRE_NORMS(0), MN_ROWS_ATTENTION(0),
                                         MN_ROWS_QK_NORM(0), MN_ROWS_GATED,        {0}};

const mn_arch_def mn_arch_qwen2 = {
    .name = "qwen2",
    .summary = "Qwen 2, Qwen 2.5",
    .types = "qwen2",
    .classes = "Qwen2ForCausalLM",
    .gguf = "qwen2",
    .recipe = second_recipe,
    .tensors = tensors,
    .say = say,
};

const mn_arch_def mn_arch_qwen3 = {
    .name = "qwen3",
    .summary = "Qwen 3",
    .types = "qwen3",
    .classes = "Qwen3ForCausalLM",
    .gguf = "qwen3",
    .recipe = third_recipe,
    .tensors = tensors,
    .say = say,
};
