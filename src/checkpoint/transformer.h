/* transformer.h - settings that most decoders have, and the keys of a recipe that they are: for the files of architectures. */
#ifndef MN_TRANSFORMER_H
#define MN_TRANSFORMER_H

#include "checkpoint/settings.h"

typedef struct mn_transformer {
  int64_t vocab_size, d_model, layers, heads, kv_heads, head_dim, hidden, context;
  double norm_eps;
  bool tied;
} mn_transformer;

/* By the names that Llama gave them, and GGUF's. tied: the default of tie_word_embeddings; GGUF: there is no output.weight. */
mn_status mn_transformer_read(mn_settings *s, bool tied, mn_transformer *out);
/* rope_theta and rope_scaling (rope_parameters), as keys of attention. theta: of settings that do not say. What is not done is refused by
 * name. */
mn_status mn_transformer_rope(mn_settings *s, const mn_transformer *t, double theta, mn_keys *attention);
/* heads, kv_heads, head_dim; max_context or, where window is not 0, that. */
void mn_transformer_heads(const mn_transformer *t, int64_t window, mn_keys *attention);
/* The model's own keys: type decoder, vocabulary, width, norm: rms. */
void mn_transformer_model(const mn_transformer *t, mn_keys *model);

#endif
