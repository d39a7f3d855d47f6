/* small_llama.h - a Llama of one layer as Hugging Face's programs write it, with rows of 256 values, so that every type of blocks
 * holds them. */
#ifndef MN_SMALL_LLAMA_H
#define MN_SMALL_LLAMA_H

#include "base/base.h"
#include "base/file.h"
#include "format/safetensors.h"
#include "test.h"

/* `config.json` and `model.safetensors` in `dir`, which may be there already; the values are drawn, the same each time. */
static void put_llama(const char *dir, int64_t vocab, int64_t positions) {
  enum { WIDTH = 256, HIDDEN = 256 };
  const struct {
    const char *name;
    int64_t rows, columns;
    double scale;
  } list[] = {{"model.embed_tokens.weight", vocab, WIDTH, 1},
              {"model.layers.0.input_layernorm.weight", 1, WIDTH, 0.1},
              {"model.layers.0.self_attn.q_proj.weight", WIDTH, WIDTH, 0.1},
              {"model.layers.0.self_attn.k_proj.weight", WIDTH / 2, WIDTH, 0.1},
              {"model.layers.0.self_attn.v_proj.weight", WIDTH / 2, WIDTH, 0.06},
              {"model.layers.0.self_attn.o_proj.weight", WIDTH, WIDTH, 0.06},
              {"model.layers.0.post_attention_layernorm.weight", 1, WIDTH, 0.1},
              {"model.layers.0.mlp.gate_proj.weight", HIDDEN, WIDTH, 0.06},
              {"model.layers.0.mlp.up_proj.weight", HIDDEN, WIDTH, 0.06},
              {"model.layers.0.mlp.down_proj.weight", WIDTH, HIDDEN, 0.06},
              {"model.norm.weight", 1, WIDTH, 0.1},
              {"lm_head.weight", vocab, WIDTH, 0.1}};
  enum { N = sizeof list / sizeof *list };
  float *data[N] = {NULL};
  char path[600], config[600];
  uint64_t drawn = 0;
  mn_st_writer *w = mn_st_writer_new();
  CHECK_OK(mn_make_dirs(dir));
  for (int k = 0; k < N; k++) {
    const int64_t n = list[k].rows * list[k].columns;
    const mn_shape shape = list[k].rows == 1 ? MN_SHAPE(list[k].columns) : MN_SHAPE(list[k].rows, list[k].columns);
    data[k] = mn_alloc((size_t)n * sizeof *data[k]);
    CHECK(data[k], "no memory");
    for (int64_t i = 0; data[k] && i < n; i++) data[k][i] = (float)(list[k].scale * mn_random_normal(11, 0, drawn++) + (list[k].rows == 1));
    if (data[k]) CHECK_OK(mn_st_writer_add(w, list[k].name, MN_F32, &shape, data[k]));
  }
  snprintf(path, sizeof path, "%s/model.safetensors", dir);
  CHECK_OK(mn_st_writer_save(w, path));
  mn_st_writer_free(w);
  for (int k = 0; k < N; k++) free(data[k]);
  const int length =
      snprintf(config, sizeof config,
               "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": %d, \"intermediate_size\": %d,\n"
               "\"num_hidden_layers\": 1, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": %lld,\n"
               "\"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, \"max_position_embeddings\": %lld, \"eos_token_id\": 7,\n"
               "\"tie_word_embeddings\": false}\n",
               WIDTH, HIDDEN, (long long)vocab, (long long)positions);
  snprintf(path, sizeof path, "%s/config.json", dir);
  CHECK_OK(mn_file_write(path, config, (size_t)length));
}

#endif
