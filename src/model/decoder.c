/* decoder.c - a causal stack of blocks over tokens: what it says about a token is what it expects next.
 *     h = Norm(blocks(E[tokens]))     logits = h W^T,  W the embedding E or a head of its own
 * With logit_softcap c they are c tanh(h W^T / c); the head says so (fused_loss.h).
 * The logits of a training are never kept: the outputs are h and W, and losses multiply them piece by piece. */
#include "graph/fused_loss.h"
#include "graph/stored.h"
#include "model/model.h"

typedef struct decoder_config {
  double logit_scale;
} decoder_config;
static const mn_field fields[] = {MN_FIELD_FLOAT(decoder_config, logit_scale, 1, DBL_MIN, 1e6, "what logits are multiplied by", MN_SPARSE),
                                  MN_FIELD_END};

mn_tensor *mn_decoder_norm(mn_scope *s, const mn_model *m, mn_tensor *x) {
  const double scale = ((const decoder_config *)m->own)->logit_scale;
  mn_tensor *h = mn_model_norm(s, m, x);
  return scale == 1 ? h : mn_mul_scalar(mn_scope_graph(s), h, scale); /* the head has no bias */
}

/* x as placed -> what the head projects. */
static mn_tensor *through(mn_scope *s, const mn_model *m, mn_tensor *x, mn_tensor *condition) {
  const mn_linear_rules *before = mn_scope_set_linear(s, m->linear.n ? &m->linear : NULL);
  mn_tensor *y = mn_stack_apply(s, &m->stack, x, &(mn_beside){.condition = condition}); /* [B,T,D] */
  mn_scope_set_linear(s, before);
  mn_scope_advance(s, mn_dim(x, 1));
  return mn_decoder_norm(s, m, y);
}

mn_tensor *mn_decoder_run(mn_scope *s, const mn_model *m, mn_tensor *x) { return through(s, m, mn_model_place(s, m, x), NULL); }

mn_tensor *mn_model_hidden(mn_scope *s, const mn_model *m, mn_tensor *tokens) { return through(s, m, mn_model_embed(s, m, tokens), NULL); }

mn_tensor *mn_model_head(mn_scope *s, const mn_model *m) {
  if (m->config.tie_embeddings) {
    mn_tensor *e = mn_model_embedding(s, m);
    mn_param_copy(s, "embed_tokens.weight", "lm_head.weight");
    return mn_head_capped(mn_scope_graph(s), e, m->config.logit_softcap);
  }
  mn_tensor *w = mn_param(s, "lm_head.weight", MN_SHAPE(m->config.vocab_size, m->config.d_model), MN_NORMAL(m->config.init_std),
                          MN_PARAM_STORED, "output projection [vocab_size, d_model]");
  return mn_head_capped(mn_scope_graph(s), w, m->config.logit_softcap);
}

mn_tensor *mn_logits(mn_scope *s, mn_tensor *h, mn_tensor *w) {
  mn_graph *g = mn_scope_graph(s);
  int64_t B = mn_dim(h, 0), T = mn_dim(h, 1), D = mn_dim(h, 2), V = mn_dim(w, 0);
  mn_tensor *rows = mn_reshape(g, h, MN_SHAPE(B * T, D)), *logits;
  const double cap = mn_head_cap(&w);
  if (w && mn_dtype_is_stored(w->dtype)) logits = mn_stored_product(g, rows, 1, &w, mn_scope_exact_products(s), mn_scope_exact(s));
  else logits = mn_matmul_as(g, rows, mn_transpose(g, mn_cast(g, w, mn_type(h)), 0, 1), mn_scope_exact(s));
  if (cap > 0) logits = mn_mul_scalar(g, mn_tanh(g, mn_mul_scalar(g, logits, 1 / cap)), cap);
  return mn_reshape(g, logits, MN_SHAPE(B, T, V));
}

mn_tensor *mn_model_apply(mn_scope *s, const mn_model *m, mn_tensor *tokens) {
  mn_tensor *h = mn_model_hidden(s, m, tokens);
  return mn_logits(s, h, mn_model_head(s, m));
}

mn_tensor *mn_model_loss(mn_scope *s, const mn_model *m, mn_tensor *tokens, mn_tensor *target, mn_tensor *weight, mn_tensor **nll) {
  mn_graph *g = mn_scope_graph(s);
  mn_shape flat = MN_SHAPE(mn_dim(tokens, 0) * mn_dim(tokens, 1));
  mn_tensor *h = mn_model_hidden(s, m, tokens), *w = mn_model_head(s, m);
  h = mn_reshape(g, h, MN_SHAPE(flat.dim[0], m->config.d_model));
  if (weight) weight = mn_reshape(g, weight, flat);
  return mn_linear_cross_entropy(g, h, w, mn_reshape(g, target, flat), weight, nll);
}

static void build(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out) {
  mn_scope_set_length(s, mn_io_get(in, "length"));
  mn_tensor *x = mn_model_embed(s, m, mn_io_get(in, "tokens"));
  mn_io_put(out, "hidden", through(s, m, x, mn_model_condition(s, m, in)));
  mn_io_put(out, "head", mn_model_head(s, m));
}

static const mn_port inputs[] = {
    {"tokens", MN_I32, "BT", false, "token ids"}, {"length", MN_I32, "B", true, "tokens of each row that are there; left out: all"}, {0}};
static const mn_port outputs[] = {{"hidden", MN_F32, "BTD", false, "after the last norm, in the compute type: what the head projects"},
                                  {"head", MN_F32, "VD", false, "the projection to the vocabulary"},
                                  {0}};

const mn_model_def mn_model_decoder = {
    .name = "decoder",
    .summary = "a causal stack of blocks over tokens, which expects the next one",
    .trunk = MN_TRUNK_TOKENS,
    .conditioned = true,
    .config_size = sizeof(decoder_config),
    .fields = fields,
    .inputs = inputs,
    .outputs = outputs,
    .build = build,
};
