/* hybrid.h - settings that models of layers of several kinds have: which layer is of which kind, and the state-space mixer that many
 * share. For the files of architectures. */
#ifndef MN_HYBRID_H
#define MN_HYBRID_H

#include "checkpoint/transformer.h"

/* As mn_transformer_read, for models whose norms' eps has the name eps_key in config.json, whose attention may be in some layers only
 * (a list of head counts in GGUF), and that may have no channel part of their own (hidden 0). */
mn_status mn_hybrid_read(mn_settings *s, const char *eps_key, bool tied, mn_transformer *out);
/* Of which of `words` (closed by NULL) each layer is, as the list `key` says: kinds[layers], a number of a word, in the arena. Where there is
 * no such list, *kinds is NULL. */
mn_status mn_hybrid_layers(mn_settings *s, const char *key, int64_t layers, const char *const *words, int **kinds);
/* GGUF: 1 for layers that have key/value heads, 0 for others; kv_heads: how many, the same in all that have any. */
mn_status mn_hybrid_kv_layers(mn_settings *s, int64_t layers, int **kinds, int64_t *kv_heads);
/* A list of integers of config.json, such as layers with attention: does it hold x? Absent: false. */
mn_status mn_hybrid_holds(mn_settings *s, const char *key, int64_t x, bool *out);
/* Numbers of a list [n]; absent: `otherwise` for each. Infinity is HUGE_VAL, however it is spelled. */
mn_status mn_hybrid_numbers(mn_settings *s, const char *key, int n, const double *otherwise, double *out);
/* Keys of mamba2 from settings that are named mamba_n_heads, mamba_d_state and so on; GGUF: ssm.*. groups also part the norm. */
mn_status mn_hybrid_mamba(mn_settings *s, int64_t d_model, double eps, mn_keys *mixer);
/* The same of settings that are read already; time_step_limit is read here. */
typedef struct mn_hybrid_state {
  int64_t inner, head_dim, state, groups, conv;
  double norm_eps;
  bool bias, conv_bias;
} mn_hybrid_state;
mn_status mn_hybrid_state_keys(mn_settings *s, const mn_hybrid_state *m, mn_keys *mixer);
/* A number of the block's mamba2, or of the one among several mixers side by side there. */
int64_t mn_hybrid_mamba_key(const mn_mixer *mixer, const char *key);
/* rope_theta and rope_dim of attention, for models of which `partial` of a head is rotated where nothing is said (1: always all of it).
 * Stretched positions are refused. */
mn_status mn_hybrid_rope(mn_settings *s, const mn_transformer *t, double theta, double partial, mn_keys *attention);
/* Keys of a mixture of experts, for the settings of most: num_experts, num_experts_per_tok, norm_topk_prob. 0 experts: none. */
typedef struct mn_hybrid_experts {
  int64_t experts, top_k, hidden, shared;
  bool normalize, sigmoid, choice_bias, shared_gate;
  double scale;
} mn_hybrid_experts;
/* Of experts that are chosen by sigmoids: GGUF says so by number. */
mn_status mn_hybrid_sigmoids(mn_settings *s);
bool mn_hybrid_no_router(const mn_settings *s, int64_t layer); /* GGUF: the layer has no experts, for there is no tensor that chooses */
const mn_value *mn_hybrid_moe(mn_settings *s, const mn_hybrid_experts *e);
/* {mixer, channel, hidden}, where channel is a word or a map. */
const mn_value *mn_hybrid_block(mn_settings *s, const mn_value *mixer, const mn_value *channel, int64_t hidden, double residual_scale);

/* Shapes in files of those rows that are MN_T_RESHAPED (mn_arch_def's `shape`), and settings of config.json that GGUF has no names for. */
void mn_hybrid_mamba_shape(const mn_mixer *mixer, const mn_arch_tensor *row, mn_checkpoint_form form, mn_shape *shape);
mn_status mn_say_mamba(const mn_value *recipe, mn_keys *keys);

/* The same of a convolution of each channel alone: the parameter is [D,k], the file's tensor [D,1,k]. */
void mn_hybrid_conv_shape(const mn_mixer *mixer, const mn_arch_tensor *row, mn_checkpoint_form form, mn_shape *shape);
/* An expert's gate_proj and up_proj that are one matrix there, the gate's rows first: its shape, and where row r of a parameter stands. */
void mn_hybrid_pair_shape(mn_checkpoint_form form, mn_shape *shape);
int64_t mn_hybrid_pair_place(const mn_arch_tensor *row, int64_t r);

/* Rows of the mixer mamba2 in the scope `param`, whose tensors are below `hf`. how: of what is scaled by settings. */
#define MN_MAMBA_TENSORS(param, hf, how)                                                                                                   \
  {param "in_proj.weight", hf "in_proj.weight", "blk.#.ssm_in.weight", MN_T_PART | (how), MN_T_PART},                                      \
      {param "dt_proj.weight", hf "in_proj.weight", "blk.#.ssm_in.weight", MN_T_PART | (how), MN_T_PART},                                  \
      {param "in_proj.bias", hf "in_proj.bias", "blk.#.ssm_in.bias", MN_T_PART | (how), MN_T_PART},                                        \
      {param "dt_proj.bias", hf "in_proj.bias", "blk.#.ssm_in.bias", MN_T_PART | (how), MN_T_PART},                                        \
      {param "conv.weight", hf "conv1d.weight", "blk.#.ssm_conv1d.weight", MN_T_RESHAPED, 0},                                              \
      {param "conv.bias", hf "conv1d.bias", "blk.#.ssm_conv1d.bias", 0, 0}, {param "dt_bias", hf "dt_bias", "blk.#.ssm_dt.bias", 0, 0},    \
      {param "A_log", hf "A_log", "blk.#.ssm_a", 0, MN_T_NEG_EXP | MN_T_RESHAPED},                                                         \
      {param "D", hf "D", "blk.#.ssm_d", MN_T_RESHAPED, MN_T_RESHAPED},                                                                    \
      {param "norm.weight", hf "norm.weight", "blk.#.ssm_norm.weight", 0, MN_T_RESHAPED},                                                  \
      {param "out_proj.weight", hf "out_proj.weight", "blk.#.ssm_out.weight", (how), 0}, {                                                 \
    param "out_proj.bias", hf "out_proj.bias", "blk.#.ssm_out.bias", (how), 0                                                              \
  }
/* And of attention. */
#define MN_ATTENTION_TENSORS(param, hf, how, gguf_how)                                                                                     \
  {param "q_proj.weight", hf "q_proj.weight", "blk.#.attn_q.weight", how, gguf_how},                                                       \
      {param "k_proj.weight", hf "k_proj.weight", "blk.#.attn_k.weight", how, gguf_how},                                                   \
      {param "v_proj.weight", hf "v_proj.weight", "blk.#.attn_v.weight", how, 0}, {                                                        \
    param "o_proj.weight", hf "o_proj.weight", "blk.#.attn_output.weight", how, 0                                                          \
  }

#endif
