/* say.c - see say.h. */
#include "checkpoint/say.h"
#include "checkpoint/transformer.h"

#include <math.h>
#include <string.h>

/* ---- a recipe ---- */
double mn_recipe_number(const mn_value *map, const char *key, double otherwise) {
  const mn_value *v = mn_value_get(map, key);
  double number = otherwise;
  if (v) (void)mn_value_number(v, &number);
  return number;
}

bool mn_recipe_true(const mn_value *map, const char *key) {
  const mn_value *v = mn_value_get(map, key);
  return v && v->kind == MN_BOOLEAN && v->as.boolean;
}

static int64_t repeats(const mn_value *block) { return (int64_t)mn_recipe_number(block, "repeat", 1); }

int64_t mn_recipe_layers(const mn_value *recipe) {
  const mn_value *blocks = mn_value_get(recipe, "blocks");
  int64_t n = 0;
  if (!blocks || blocks->kind != MN_LIST) return (int64_t)mn_recipe_number(recipe, "layers", 0);
  for (size_t i = 0; i < blocks->count; i++) n += repeats(blocks->as.items[i]);
  return n;
}

const mn_value *mn_recipe_block(const mn_value *recipe, int64_t layer) {
  const mn_value *blocks = mn_value_get(recipe, "blocks");
  if (!blocks || blocks->kind != MN_LIST) return mn_value_get(recipe, "block");
  for (size_t i = 0; i < blocks->count; i++) {
    layer -= repeats(blocks->as.items[i]);
    if (layer < 0) return blocks->as.items[i];
  }
  return NULL;
}

static bool is_type(const mn_value *mixer, const char *type) {
  const mn_value *is = mn_value_get(mixer, "type");
  return is && is->kind == MN_TEXT && !strcmp(is->as.text, type);
}

/* The mixer itself, or the one of this type of several side by side. */
static const mn_value *mixer_of(const mn_value *block, const char *type) {
  const mn_value *mixer = mn_value_get(block, "mixer"), *several = mn_value_get(mixer, "mixers");
  for (size_t i = 0; several && several->kind == MN_LIST && i < several->count; i++)
    if (is_type(several->as.items[i], type)) return several->as.items[i];
  return is_type(mixer, type) ? mixer : NULL;
}

const mn_value *mn_recipe_mixer(const mn_value *recipe, int64_t layer, const char *type) {
  return mixer_of(mn_recipe_block(recipe, layer), type);
}
bool mn_recipe_has_mixer(const mn_value *recipe, int64_t layer, const char *type) { return mn_recipe_mixer(recipe, layer, type) != NULL; }

const mn_value *mn_recipe_first(const mn_value *recipe, const char *type) {
  const int64_t n = mn_recipe_layers(recipe);
  const mn_value *mixer = NULL;
  for (int64_t i = 0; !mixer && i < n; i++) mixer = mn_recipe_mixer(recipe, i, type);
  return mixer;
}

const mn_value *mn_recipe_attention(const mn_value *recipe, bool local) {
  const int64_t n = mn_recipe_layers(recipe);
  for (int64_t i = 0; i < n; i++) {
    const mn_value *mixer = mixer_of(mn_recipe_block(recipe, i), "attention");
    if (mixer && (mn_value_get(mixer, "window") != NULL) == local) return mixer;
  }
  return NULL;
}

/* ---- keys ---- */
static const mn_value nothing = {.kind = MN_NULL};
void mn_say_nothing(mn_keys *k, const char *key) { mn_keys_put(k, key, &nothing); }
bool mn_is_nothing(const mn_value *v) { return v == &nothing; }
void mn_say_null(mn_keys *k, const char *key) {
  static const mn_value null = {.kind = MN_NULL};
  mn_keys_put(k, key, &null);
}

static void put_list(mn_keys *k, const char *key, int64_t n, const mn_value **items) {
  mn_keys_put(k, key, items ? mn_value_list(k->arena, (size_t)n, items) : NULL);
}
void mn_say_numbers(mn_keys *k, const char *key, int64_t n, const int64_t *x) {
  const mn_value **items = mn_arena_alloc(k->arena, (size_t)(n + 1) * sizeof *items);
  for (int64_t i = 0; items && i < n; i++) items[i] = mn_value_int(k->arena, x[i]);
  put_list(k, key, n, items);
}
void mn_say_words(mn_keys *k, const char *key, int64_t n, const char *const *x) {
  const mn_value **items = mn_arena_alloc(k->arena, (size_t)(n + 1) * sizeof *items);
  for (int64_t i = 0; items && i < n; i++) items[i] = mn_value_text(k->arena, x[i]);
  put_list(k, key, n, items);
}
void mn_say_truths(mn_keys *k, const char *key, int64_t n, const bool *x) {
  const mn_value **items = mn_arena_alloc(k->arena, (size_t)(n + 1) * sizeof *items);
  for (int64_t i = 0; items && i < n; i++) items[i] = mn_value_bool(k->arena, x[i]);
  put_list(k, key, n, items);
}

mn_status mn_say_layer_types(const mn_value *recipe, mn_keys *k, const char *type, const char *yes, const char *no) {
  const int64_t n = mn_recipe_layers(recipe);
  const char **words = mn_arena_alloc(k->arena, (size_t)(n + 1) * sizeof *words);
  if (!words) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < n; i++) words[i] = mn_recipe_has_mixer(recipe, i, type) ? yes : no;
  mn_say_words(k, "layer_types", n, words);
  return MN_OK;
}

mn_status mn_say_kv_heads(const mn_value *recipe, mn_keys *k, const char *type, int64_t heads) {
  const int64_t n = mn_recipe_layers(recipe);
  int64_t *x = mn_arena_alloc(k->arena, (size_t)(n + 1) * sizeof *x);
  if (!x) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < n; i++) x[i] = mn_recipe_has_mixer(recipe, i, type) ? heads : 0;
  mn_say_numbers(k, "attention.head_count_kv", n, x);
  return MN_OK;
}

mn_status mn_say_dense_layers(const mn_value *recipe, mn_keys *keys) {
  const int64_t n = mn_recipe_layers(recipe);
  int64_t *dense = mn_arena_alloc(keys->arena, (size_t)(n + 1) * sizeof *dense), k = 0;
  const mn_value *moe = NULL;
  if (!dense) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < n; i++) {
    const mn_value *channel = mn_value_get(mn_recipe_block(recipe, i), "channel");
    if (channel && channel->kind == MN_TEXT) dense[k++] = i;
    else moe = channel;
  }
  mn_say_numbers(keys, "mlp_only_layers", k, dense);
  mn_keys_bool(keys, "norm_topk_prob", mn_recipe_true(moe, "normalize"));
  return MN_OK;
}

mn_status mn_say_local(const mn_value *recipe, mn_arena *arena, const bool **local, bool *any) {
  const int64_t n = mn_recipe_layers(recipe);
  bool *x = mn_arena_alloc(arena, (size_t)(n + 1) * sizeof *x);
  *any = false;
  if (!x) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < n; i++) {
    x[i] = mn_value_get(mixer_of(mn_recipe_block(recipe, i), "attention"), "window") != NULL;
    *any = *any || x[i];
  }
  *local = x;
  return MN_OK;
}

mn_status mn_say_local_words(const mn_value *recipe, mn_keys *k) {
  const int64_t n = mn_recipe_layers(recipe);
  const char **words = mn_arena_alloc(k->arena, (size_t)(n + 1) * sizeof *words);
  const bool *local;
  bool any;
  MN_TRY(mn_say_local(recipe, k->arena, &local, &any));
  if (!words) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < n; i++) words[i] = local[i] ? "sliding_attention" : "full_attention";
  mn_say_words(k, "layer_types", n, words);
  return MN_OK;
}

/* ---- rotary positions ---- */
static void gguf_rope(const mn_value *attention, mn_keys *k) {
  const mn_value *how = mn_value_get(attention, "rope_scaling");
  const double rotated = mn_recipe_number(attention, "rope_dim", 0), original = mn_recipe_number(attention, "rope_original_context", 0),
               gain = mn_recipe_number(attention, "rope_gain", 0);
  if (mn_value_get(attention, "rope_theta")) mn_keys_real(k, "rope.freq_base", mn_recipe_number(attention, "rope_theta", 0));
  if (rotated > 0) mn_keys_int(k, "rope.dimension_count", (int64_t)rotated);
  if (gain > 0) mn_keys_real(k, "rope.scaling.attn_factor", gain);
  if (!how || how->kind != MN_TEXT) return;
  mn_keys_text(k, "rope.scaling.type", how->as.text);
  mn_keys_real(k, "rope.scaling.factor", mn_recipe_number(attention, "rope_factor", 1));
  if (original > 0) mn_keys_int(k, "rope.scaling.original_context_length", (int64_t)original);
}

/* llama3 of this many tokens divides frequencies so, as far as single precision tells. */
static bool is_llama3(const mn_value *attention, const mn_value *list, double factor, double original) {
  const double width = mn_recipe_number(attention, "rope_dim", mn_recipe_number(attention, "head_dim", 0)),
               theta = mn_recipe_number(attention, "rope_theta", 10000);
  for (size_t i = 0; i < list->count; i++) {
    double d = 0;
    (void)mn_value_number(list->as.items[i], &d);
    if (!(fabs(mn_llama3_divisor(theta, width, (int64_t)i, factor, original, 1, 4) / d - 1) < 3e-7)) return false;
  }
  return true;
}

/* What divides the frequencies was llama3 most often; anything is what longrope calls factors. */
static const mn_value *map_of_divisors(const mn_value *attention, const mn_value *list, mn_arena *arena) {
  mn_keys k = {.arena = arena};
  const mn_value *copy = mn_value_copy(arena, list);
  double factor = 1;
  for (size_t i = 0; i < list->count; i++) {
    double d = 1;
    (void)mn_value_number(list->as.items[i], &d);
    factor = fmax(factor, d);
  }
  for (double original = 4; original < 1e7; original *= 2) {
    if (!is_llama3(attention, list, factor, original)) continue;
    mn_keys_text(&k, "rope_type", "llama3");
    mn_keys_real(&k, "factor", factor);
    mn_keys_real(&k, "low_freq_factor", 1);
    mn_keys_real(&k, "high_freq_factor", 4);
    mn_keys_int(&k, "original_max_position_embeddings", (int64_t)original);
    return mn_keys_map(&k);
  }
  const double gain = mn_recipe_number(attention, "rope_gain", 1);
  mn_keys_text(&k, "rope_type", "longrope");
  mn_keys_put(&k, "short_factor", copy);
  mn_keys_put(&k, "long_factor", copy);
  mn_keys_real(&k, "attention_factor", gain);
  mn_keys_int(&k, "original_max_position_embeddings", (int64_t)mn_recipe_number(attention, "max_context", 2048));
  return mn_keys_map(&k);
}

static void hf_rope(const mn_value *attention, mn_keys *config) {
  const mn_value *how = mn_value_get(attention, "rope_scaling"), *divisors = mn_value_get(attention, "rope_divisors");
  const double rotated = mn_recipe_number(attention, "rope_dim", 0), width = mn_recipe_number(attention, "head_dim", 0),
               length = mn_recipe_number(attention, "rope_original_context", 0), gain = mn_recipe_number(attention, "rope_gain", 0);
  if (rotated > 0 && width > 0) mn_keys_real(config, "partial_rotary_factor", rotated / width);
  if (divisors && divisors->kind == MN_LIST) {
    mn_keys_put(config, "rope_scaling", map_of_divisors(attention, divisors, config->arena));
    return;
  }
  if (!how || how->kind != MN_TEXT) return;
  mn_keys k = {.arena = config->arena};
  mn_keys_text(&k, "rope_type", how->as.text);
  mn_keys_real(&k, "factor", mn_recipe_number(attention, "rope_factor", 1));
  if (gain > 0) mn_keys_real(&k, "attention_factor", gain);
  if (length > 0) mn_keys_int(&k, "original_max_position_embeddings", (int64_t)length);
  mn_keys_put(config, "rope_scaling", mn_keys_map(&k));
}

void mn_say_rope_map(const mn_value *attention, mn_keys *map) {
  const double width = mn_recipe_number(attention, "head_dim", 0), rotated = mn_recipe_number(attention, "rope_dim", width);
  mn_keys_text(map, "rope_type", "default");
  mn_keys_real(map, "rope_theta", mn_recipe_number(attention, "rope_theta", 10000));
  mn_keys_real(map, "partial_rotary_factor", width > 0 ? rotated / width : 1);
}

mn_status mn_say_rope(const mn_value *recipe, mn_checkpoint_form to, mn_keys *k) {
  const mn_value *all = mn_recipe_attention(recipe, false), *attention = all ? all : mn_recipe_attention(recipe, true);
  if (!attention) return MN_OK;
  if (to == MN_FORM_GGUF) gguf_rope(attention, k);
  else hf_rope(attention, k);
  return MN_OK;
}
