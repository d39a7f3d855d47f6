/* convert_types.c - which type a tensor gets when a model's weights are wanted in one. */
#include "checkpoint/convert.h"

#include "base/text.h"

#include <string.h>

/* In GGUF's names, in Hugging Face's and in Mneme's. */
static bool fits_any(const char *const *patterns, const char *name) {
  for (; *patterns; patterns++)
    if (mn_name_matches(*patterns, name)) return true;
  return false;
}

/* Their numbers are few, and decide over all others. */
static bool stays_exact(const char *name) {
  static const char *const patterns[] = {"*norm*",          "*ffn_gate_inp*",
                                         "*router*",        "*conv*",
                                         "*position_embd*", "*embed_positions*",
                                         "*wpe*",           "*token_types*",
                                         "*rope_freqs*",    "*ssm_a*",
                                         "*A_log*",         "*time_mix*",
                                         "*lerp*",          NULL};
  return fits_any(patterns, name);
}

static bool is_embedding(const char *name) {
  static const char *const patterns[] = {"token_embd.weight", "output.weight", "*embed_tokens.weight",
                                         "*lm_head.weight",   "*wte.weight",   NULL};
  return fits_any(patterns, name);
}

/* More bits, for embeddings and heads. */
static mn_dtype better_than(mn_dtype type) {
  switch (type) {
  case MN_Q2_K:
  case MN_Q3_K:
  case MN_Q4_K:
  case MN_Q5_K:
  case MN_IQ4_XS:
    return MN_Q6_K;
  case MN_F32:
  case MN_F16:
  case MN_BF16:
    return type;
  default:
    return MN_Q8_0;
  }
}

/* Of about as many bits, in blocks of 32. */
static mn_dtype in_small_blocks(mn_dtype type) {
  switch (type) {
  case MN_Q2_K:
  case MN_Q3_K:
  case MN_IQ4_XS:
    return MN_IQ4_NL;
  case MN_Q4_K:
    return MN_Q5_0;
  case MN_Q5_K:
    return MN_Q5_1;
  case MN_Q6_K:
    return MN_Q8_0;
  default:
    return type;
  }
}

mn_dtype mn_convert_type(mn_dtype type, const char *name, const mn_shape *shape) {
  const size_t n = strlen(name);
  const int64_t width = shape->ndim ? shape->dim[shape->ndim - 1] : 1;
  int wide = 0; /* axes of more than one */
  for (int i = 0; i < shape->ndim; i++) wide += shape->dim[i] > 1;
  if (wide < 2 || n < 7 || strcmp(name + n - 7, ".weight") != 0 || stays_exact(name)) return MN_F32;
  if (is_embedding(name)) type = better_than(type);
  if (width % mn_block_values(type)) type = in_small_blocks(type);
  return width % mn_block_values(type) ? MN_F16 : type;
}
