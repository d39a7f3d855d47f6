/* say.h - settings in the other form, of what has no name there that says the same: looked up in the recipe, and written as keys. For the
 * architectures' `say` and for converting. */
#ifndef MN_SAY_H
#define MN_SAY_H

#include "checkpoint/arch.h"

/* ---- a recipe's `model`, as an architecture makes it ---- */
int64_t mn_recipe_layers(const mn_value *recipe);
const mn_value *mn_recipe_block(const mn_value *recipe, int64_t layer); /* its map, without `repeat`; NULL: there is none */
const mn_value *mn_recipe_mixer(const mn_value *recipe, int64_t layer, const char *type); /* of this type, or one of several side by side */
const mn_value *mn_recipe_first(const mn_value *recipe, const char *type); /* the same of the first layer that has one; NULL: none has */
bool mn_recipe_has_mixer(const mn_value *recipe, int64_t layer, const char *type);
const mn_value *mn_recipe_attention(const mn_value *recipe, bool local); /* the first with a window, or without; NULL: none */
double mn_recipe_number(const mn_value *map, const char *key, double otherwise);
bool mn_recipe_true(const mn_value *map, const char *key);

/* ---- keys ---- */
enum { MN_SAY_ANY_CONTEXT = 1 << 20 };            /* GGUF's context_length of what has no end: other programs want a number */
void mn_say_nothing(mn_keys *k, const char *key); /* the setting is left out, though it has a name there */
bool mn_is_nothing(const mn_value *v);
void mn_say_null(mn_keys *k, const char *key); /* config.json: null, which is not the same where there is a default */
/* A list with a number, a word or a truth for each layer. */
void mn_say_numbers(mn_keys *k, const char *key, int64_t n, const int64_t *x);
void mn_say_words(mn_keys *k, const char *key, int64_t n, const char *const *x);
void mn_say_truths(mn_keys *k, const char *key, int64_t n, const bool *x);
/* For each layer `yes` where it has a mixer of this type, else `no`; GGUF's numbers of key/value heads, words of layer_types. */
mn_status mn_say_layer_types(const mn_value *recipe, mn_keys *k, const char *type, const char *yes, const char *no);
mn_status mn_say_kv_heads(const mn_value *recipe, mn_keys *k, const char *type, int64_t heads);
/* config.json's mlp_only_layers, and norm_topk_prob of the others. */
mn_status mn_say_dense_layers(const mn_value *recipe, mn_keys *k);
/* Which layers have attention with a window, [layers] in the arena; *any: some have. */
mn_status mn_say_local(const mn_value *recipe, mn_arena *arena, const bool **local, bool *any);
mn_status mn_say_local_words(const mn_value *recipe, mn_keys *k); /* the same as layer_types */
/* config.json's map of positions that are not stretched: rope_type, rope_theta and which part of a head is rotated. */
void mn_say_rope_map(const mn_value *attention, mn_keys *map);
/* Rotary positions: theta, width, stretching; divisors are a table in GGUF (mn_rope_divisors), and llama3 or longrope in config.json. */
mn_status mn_say_rope(const mn_value *recipe, mn_checkpoint_form to, mn_keys *k);

#endif
