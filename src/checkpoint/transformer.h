/* transformer.h - settings that most decoders have, and the keys of a recipe that they are: for the files of architectures. */
#ifndef MN_TRANSFORMER_H
#define MN_TRANSFORMER_H

#include "checkpoint/arch.h"

typedef struct mn_transformer {
  int64_t vocab_size, d_model, layers, heads, kv_heads, head_dim, hidden, context;
  double norm_eps;
  bool tied, partial; /* partial: this architecture may rotate a part of each head, as partial_rotary_factor says */
} mn_transformer;

/* The vocabulary, the width and the number of layers; width, layers: their names in config.json. GGUF need not say how many tokens there
 * are: the embedding does. */
mn_status mn_transformer_size(mn_settings *s, const char *width, const char *layers, mn_transformer *out);
/* tied: the default of tie_word_embeddings; GGUF: there is no output.weight. */
mn_status mn_transformer_tied(mn_settings *s, bool tied, mn_transformer *out);
/* By the names that Llama gave them, and GGUF's. */
mn_status mn_transformer_read(mn_settings *s, bool tied, mn_transformer *out);
/* Of GGUF: keys and values have one width, as head_dim says. MN_ERR_UNSUPPORTED or the like, by name, where they have two. */
mn_status mn_transformer_one_width(mn_settings *s, const mn_transformer *t);
/* What llama.cpp takes for rope_theta of any architecture, where a GGUF file does not say it. */
#define MN_GGUF_THETA 10000
/* rope_theta and rope_scaling (rope_parameters), as keys of attention. theta: of a config.json that does not say. kind: of layers of several
 * kinds with settings of their own ("full_attention"); NULL: all are of one. *context falls to what the frequencies reach. What is not
 * done is refused by name. */
mn_status mn_transformer_rope(mn_settings *s, mn_transformer *t, double theta, const char *kind, mn_keys *attention);
/* Entries of a head that are rotated, where partial_rotary_factor is `partial`. whole: this architecture rotates all of them. A part that is
 * none, or more than a head, is refused. */
mn_status mn_transformer_rotated(mn_settings *s, const mn_transformer *t, double partial, bool whole, int64_t *out);
/* A table's numbers as a list, in the arena. */
mn_status mn_transformer_numbers(mn_arena *arena, const mn_checkpoint_tensor *t, const mn_value **out);
/* What llama3 divides the frequency of pair i by: long waves by the factor, short ones by 1, those between by what lies between. */
double mn_llama3_divisor(double theta, double head_dim, int64_t i, double factor, double original, double low, double high);
/* Which layers see a window alone, as layer_types says, and where it says nothing: all but each period-th. [t->layers], in the arena. */
mn_status mn_transformer_local(mn_settings *s, const mn_transformer *t, int64_t period, const bool **out);
/* type, heads, kv_heads, head_dim; max_context or, where window is not 0, that. */
void mn_transformer_heads(const mn_transformer *t, int64_t window, mn_keys *attention);
/* A block of a mixer and a channel (a word, or NULL where its map is given) of the width t->hidden. */
const mn_value *mn_transformer_block(mn_settings *s, const mn_transformer *t, const mn_keys *attention, const char *word,
                                     const mn_value *channel, const char *norm_position);
/* The key `blocks`: block 1 where local says so, else block 0; local NULL: all are block 0. */
void mn_transformer_blocks(mn_settings *s, const mn_transformer *t, const mn_value *const *block, const bool *local, mn_keys *model);
/* The model's own keys: type, vocabulary, width, norms. */
void mn_transformer_model(const mn_transformer *t, const char *type, const char *norm, mn_keys *model);
/* hidden_act and its kin as a channel part's word for an activation; what has none is refused. */
mn_status mn_transformer_activation(mn_settings *s, const char *hf, const char *otherwise, const char **out);

/* ---- rows of tensors that most have ---- how: MN_T_ of either form */
#define MN_ROW(param, hf, gguf, hf_how, gguf_how)                                                                                          \
  { param ".weight", hf ".weight", gguf ".weight", hf_how, gguf_how }
#define MN_ROW_BIASED(param, hf, gguf, hf_how, gguf_how)                                                                                   \
  MN_ROW(param, hf, gguf, hf_how, gguf_how), { param ".bias", hf ".bias", gguf ".bias", hf_how, gguf_how }
#define MN_ROWS_TRUNK(norm_how)                                                                                                            \
  MN_ROW("embed_tokens", "model.embed_tokens", "token_embd", 0, 0), MN_ROW("norm", "model.norm", "output_norm", norm_how, 0),              \
      MN_ROW("lm_head", "lm_head", "output", 0, 0)
#define MN_ROWS_ATTENTION(gguf_how)                                                                                                        \
  MN_ROW_BIASED("layers.#.mixer.q_proj", "model.layers.#.self_attn.q_proj", "blk.#.attn_q", 0, gguf_how),                                  \
      MN_ROW_BIASED("layers.#.mixer.k_proj", "model.layers.#.self_attn.k_proj", "blk.#.attn_k", 0, gguf_how),                              \
      MN_ROW_BIASED("layers.#.mixer.v_proj", "model.layers.#.self_attn.v_proj", "blk.#.attn_v", 0, 0),                                     \
      MN_ROW_BIASED("layers.#.mixer.o_proj", "model.layers.#.self_attn.o_proj", "blk.#.attn_output", 0, 0)
#define MN_ROWS_QK_NORM(norm_how)                                                                                                          \
  MN_ROW("layers.#.mixer.q_norm", "model.layers.#.self_attn.q_norm", "blk.#.attn_q_norm", norm_how, 0),                                    \
      MN_ROW("layers.#.mixer.k_norm", "model.layers.#.self_attn.k_norm", "blk.#.attn_k_norm", norm_how, 0)
#define MN_ROWS_GATED                                                                                                                      \
  MN_ROW_BIASED("layers.#.channel.gate_proj", "model.layers.#.mlp.gate_proj", "blk.#.ffn_gate", 0, 0),                                     \
      MN_ROW_BIASED("layers.#.channel.up_proj", "model.layers.#.mlp.up_proj", "blk.#.ffn_up", 0, 0),                                       \
      MN_ROW_BIASED("layers.#.channel.down_proj", "model.layers.#.mlp.down_proj", "blk.#.ffn_down", 0, 0)
#define MN_ROWS_PRE_NORMS(norm_how)                                                                                                        \
  MN_ROW("layers.#.mixer_norm", "model.layers.#.input_layernorm", "blk.#.attn_norm", norm_how, 0),                                         \
      MN_ROW("layers.#.channel_norm", "model.layers.#.post_attention_layernorm", "blk.#.ffn_norm", norm_how, 0)

#endif
