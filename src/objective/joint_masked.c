/* joint_masked.c - tokens that are hidden from an encoder, while the decoder beside it sees all of them (joint_token): the field `masked`
 * is a copy of the tokens, in which a fraction of the places is given the mask; the loss is that of the tokens that stood there. */
#include "objective/token_loss.h"

typedef struct config {
  double fraction;
  int64_t mask_id;
} config;
static const mn_field fields[] = {
    MN_FIELD_FLOAT(config, fraction, 0.15, DBL_MIN, 1, "of the places, those that are hidden and asked for"),
    MN_FIELD_INT(config, mask_id, -1, -1, 1 << 26, "id of the mask; -1: the model's last (set model.vocab_size one above the tokenizer's)"),
    MN_FIELD_END};

static void needs(const void *c, const mn_port **outputs, const mn_port **data) {
  static const mn_port out[] = {{"masked_hidden", MN_F32, "BTD", false, "what the encoder says of `masked`"},
                                {"masked_head", MN_F32, "VD", false, "its projection to the vocabulary"},
                                {0}};
  static const mn_port in[] = {{"masked", MN_I32, "BT", false, "the tokens, of which some are hidden"},
                               {"masked_target", MN_I32, "BT", false, "what was hidden"},
                               {"masks", MN_I32, "BT", false, "places that are there"},
                               {0}};
  (void)c;
  *outputs = out;
  *data = in;
}

static const char *target(const void *c, int *axes) {
  (void)c;
  *axes = 2;
  return "masked_target";
}

static mn_status prepare(const void *c, const mn_model *m, uint64_t key, mn_batch *batch) {
  const config *o = c;
  int32_t *tokens = mn_batch_get(batch, "masked"), *wanted = mn_batch_get(batch, "masked_target");
  const int32_t *there = mn_batch_get(batch, "masks");
  const int64_t V = m->config.vocab_size, mask = o->mask_id < 0 ? V - 1 : o->mask_id;
  if (mask >= V) return MN_OK; /* its graph is refused */
  for (int64_t i = 0; i < batch->B * batch->T; i++) {
    if (i / batch->T >= batch->rows || !there[i] || mn_random_uniform(key, 0, (uint64_t)i) >= o->fraction) continue;
    wanted[i] = tokens[i];
    tokens[i] = (int32_t)mask;
  }
  return MN_OK;
}

static void build(mn_scope *s, const void *c, const mn_judge *judge, mn_verdict *out) {
  const config *o = c;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *h = mn_io_get(judge->outputs, "masked_hidden"), *head = mn_io_get(judge->outputs, "masked_head"),
            *wanted = mn_io_get(judge->data, "masked_target");
  if (!h || !head || !mn_mask_exists(g, head, o->mask_id)) return;
  mn_tensor *said = mn_token_loss(s, judge, "masked_hidden", "masked_head", "masked_target", judge->measure, out);
  if (!said) return;
  wanted = mn_reshape(g, wanted, MN_SHAPE(mn_dim(h, 0) * mn_dim(h, 1)));
  out->metric[1] = mn_cast(g, mn_eq(g, said, wanted), mn_scope_exact(s));
}

static const mn_metric_def metrics[] = {{"perplexity", MN_METRIC_EXP, true, false, "exp of the mean loss per hidden token"},
                                        {"accuracy", MN_METRIC_MEAN, false, true, "fraction of hidden tokens that are found"},
                                        {0}};

const mn_objective_def mn_objective_joint_masked = {
    .name = "joint_masked",
    .summary = "tokens that are hidden from an encoder whose decoder sees them",
    .paper = "Filipek 2025, arXiv 2510.03561",
    .config_size = sizeof(config),
    .fields = fields,
    .metrics = metrics,
    .needs = needs,
    .target = target,
    .prepare = prepare,
    .build = build,
};
