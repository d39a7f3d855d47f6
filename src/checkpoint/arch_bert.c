/* arch_bert.c - BERT (Devlin et al. 2018, arXiv 1810.04805) and the encoders of sentences that are made of it, such as all-MiniLM-L6-v2: a
 * word's, a place's and a type's vector and their norm, attention to both sides, norms after each part. What it says of each token is its
 * `hidden`; the pooler and heads for masked words are left aside. */
#include "checkpoint/transformer.h"

static mn_status recipe(mn_settings *s, const mn_value **out) {
  mn_transformer t = {.tied = true};
  mn_keys model = {.arena = s->arena}, attention = model, mlp = model;
  const mn_checkpoint_tensor *kinds = s->form == MN_FORM_GGUF ? mn_checkpoint_find(s->from, "token_types.weight") : NULL;
  const char *activation;
  int64_t types;
  MN_TRY(mn_transformer_size(s, "hidden_size", "num_hidden_layers", &t));
  MN_TRY(mn_setting_int(s, "num_attention_heads", "attention.head_count", MN_NEEDED, &t.heads));
  MN_TRY(mn_setting_int(s, "intermediate_size", "feed_forward_length", MN_NEEDED, &t.hidden));
  MN_TRY(mn_setting_int(s, "max_position_embeddings", "context_length", MN_NEEDED, &t.context));
  MN_TRY(mn_setting_int(s, "type_vocab_size", NULL, kinds && kinds->shape.ndim == 2 ? kinds->shape.dim[0] : 2, &types));
  MN_TRY(mn_setting_between(s, "layer_norm_eps", "attention.layer_norm_epsilon", 1e-12, 0, 1, &t.norm_eps));
  MN_TRY(mn_setting_only_text(s, "position_embedding_type", NULL, "absolute"));
  MN_TRY(mn_setting_only_bool(s, "is_decoder", NULL, false));
  MN_TRY(mn_setting_only_bool(s, "add_cross_attention", NULL, false));
  MN_TRY(mn_setting_only_bool(s, NULL, "attention.causal", false));
  MN_TRY(mn_transformer_activation(s, "hidden_act", "gelu", &activation));
  mn_keys_text(&attention, "type", "attention");
  mn_keys_int(&attention, "heads", t.heads);
  mn_keys_bool(&attention, "causal", false);
  mn_keys_bool(&attention, "rope", false);
  mn_keys_bool(&attention, "bias", true);
  mn_keys_text(&mlp, "type", "mlp");
  mn_keys_text(&mlp, "activation", activation);
  const mn_value *block = mn_transformer_block(s, &t, &attention, NULL, mn_keys_map(&mlp), "post");
  mn_transformer_model(&t, "encoder", "layer", &model);
  if (types) mn_keys_int(&model, "token_types", types);
  mn_keys_bool(&model, "embed_norm", true);
  mn_keys_text(&model, "positions", "learned");
  mn_keys_int(&model, "max_positions", t.context);
  mn_transformer_blocks(s, &t, &block, NULL, &model);
  *out = mn_keys_map(&model);
  return MN_OK;
}

#define LAYER "bert.encoder.layer.#."
static const mn_arch_tensor tensors[] = {
    MN_ROW("embed_tokens", "bert.embeddings.word_embeddings", "token_embd", 0, 0),
    MN_ROW("embed_positions", "bert.embeddings.position_embeddings", "position_embd", 0, 0),
    MN_ROW("embed_types", "bert.embeddings.token_type_embeddings", "token_types", 0, 0),
    MN_ROW_BIASED("embed_norm", "bert.embeddings.LayerNorm", "token_embd_norm", 0, 0),
    MN_ROW_BIASED("layers.#.mixer.q_proj", LAYER "attention.self.query", "blk.#.attn_q", 0, 0),
    MN_ROW_BIASED("layers.#.mixer.k_proj", LAYER "attention.self.key", "blk.#.attn_k", 0, 0),
    MN_ROW_BIASED("layers.#.mixer.v_proj", LAYER "attention.self.value", "blk.#.attn_v", 0, 0),
    MN_ROW_BIASED("layers.#.mixer.o_proj", LAYER "attention.output.dense", "blk.#.attn_output", 0, 0),
    MN_ROW_BIASED("layers.#.mixer_norm", LAYER "attention.output.LayerNorm", "blk.#.attn_output_norm", 0, 0),
    MN_ROW_BIASED("layers.#.channel.up_proj", LAYER "intermediate.dense", "blk.#.ffn_up", 0, 0),
    MN_ROW_BIASED("layers.#.channel.down_proj", LAYER "output.dense", "blk.#.ffn_down", 0, 0),
    MN_ROW_BIASED("layers.#.channel_norm", LAYER "output.LayerNorm", "blk.#.layer_output_norm", 0, 0),
    {NULL, "bert.pooler.dense.weight", NULL, 0, 0},
    {NULL, "bert.pooler.dense.bias", NULL, 0, 0},
    {NULL, "bert.embeddings.position_ids", NULL, 0, 0},
    {0}};

/* Other programs take attention that sees what came before alone for the usual one. */
static mn_status say(const mn_settings *from, const mn_value *recipe, mn_checkpoint_form to, mn_keys *keys) {
  (void)from, (void)recipe;
  if (to == MN_FORM_GGUF) mn_keys_bool(keys, "attention.causal", false);
  return MN_OK;
}

const mn_arch_def mn_arch_bert = {
    .name = "bert",
    .summary = "BERT as an encoder of sentences: all-MiniLM-L6-v2 and its like",
    .types = "bert",
    .classes = "BertModel",
    .gguf = "bert",
    .prefix = "bert.",
    .idle = "classifier_dropout hidden_dropout_prob attention_probs_dropout_prob gradient_checkpointing pooling_type tie_word_embeddings",
    .recipe = recipe,
    .tensors = tensors,
    .say = say,
};
