/* masked_token.c - tokens that were hidden (Devlin et al. 2019, arXiv:1810.04805): a fraction of the positions is chosen; of these
 * 80 % become the mask, 10 % another token, 10 % stay; the loss is the next-token loss at the chosen positions, of the token that
 * stands there. The choice is a pure function of (seed, split, step). */
#include "objective/token_loss.h"

typedef struct config {
  double fraction, masked, random;
  int64_t mask_id;
} config;
static const mn_field fields[] = {
    MN_FIELD_FLOAT(config, fraction, 0.15, DBL_MIN, 1, "of the positions, those that are asked for"),
    MN_FIELD_FLOAT(config, masked, 0.8, 0, 1, "of those, the fraction that the mask stands in for"),
    MN_FIELD_FLOAT(config, random, 0.1, 0, 1, "of those, the fraction that another token stands in for"),
    MN_FIELD_INT(config, mask_id, -1, -1, 1 << 26, "id of the mask; -1: the model's last (set model.vocab_size one above the tokenizer's)"),
    MN_FIELD_END};

static mn_status check(const mn_value *map, const char *where, void *c) {
  const config *o = c;
  if (o->masked + o->random > 1)
    return mn_config_fail(map, where, "random", "and masked are fractions of the same positions: their sum is %g", o->masked + o->random);
  return MN_OK;
}

static void needs(const void *c, const mn_port **outputs, const mn_port **data) {
  static const mn_port out[] = {
      {"hidden", MN_F32, "BTD", false, "what the head projects"}, {"head", MN_F32, "VD", false, "the projection to the vocabulary"}, {0}};
  static const mn_port in[] = {{"tokens", MN_I32, "BT", false, "token ids, of which some are hidden"},
                               {"target", MN_I32, "BT", false, "replaced by what was hidden"},
                               {0}};
  (void)c;
  *outputs = out;
  *data = in;
}

static const char *target(const void *c, int *axes) {
  (void)c;
  *axes = 2;
  return "target";
}

static mn_status prepare(const void *c, const mn_model *m, uint64_t key, mn_batch *batch) {
  const config *o = c;
  int32_t *tokens = mn_batch_get(batch, "tokens"), *wanted = mn_batch_get(batch, "target");
  const int32_t *length = mn_batch_get(batch, "length"), *masks = mn_batch_get(batch, "masks");
  int64_t V = m->config.vocab_size, mask = o->mask_id < 0 ? V - 1 : o->mask_id;
  if (mask >= V) return MN_OK; /* its graph is refused */
  for (int64_t i = 0; i < batch->B * batch->T; i++) {
    int64_t b = i / batch->T, t = i % batch->T;
    bool there = b < batch->rows && (!length || t < length[b]) && (!masks || masks[i]);
    bool asked = there && mn_random_uniform(key, 0, (uint64_t)i) < o->fraction;
    double u = mn_random_uniform(key, 1, (uint64_t)i);
    wanted[i] = asked ? tokens[i] : MN_IGNORE;
    if (asked && u < o->masked) tokens[i] = (int32_t)mask;
    else if (asked && u < o->masked + o->random) tokens[i] = (int32_t)(mn_random_uniform(key, 2, (uint64_t)i) * (double)V);
  }
  return MN_OK;
}

static void build(mn_scope *s, const void *c, const mn_judge *judge, mn_verdict *out) {
  const config *o = c;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *h = mn_io_get(judge->outputs, "hidden"), *head = mn_io_get(judge->outputs, "head"), *wanted = mn_io_get(judge->data, "target");
  if (!h || !head || !mn_mask_exists(g, head, o->mask_id)) return;
  mn_tensor *said = mn_token_loss(s, judge, "hidden", "head", "target", judge->measure, out);
  if (!said) return;
  wanted = mn_reshape(g, wanted, MN_SHAPE(mn_dim(h, 0) * mn_dim(h, 1)));
  out->metric[1] = mn_cast(g, mn_eq(g, said, wanted), mn_scope_exact(s));
}

static const mn_metric_def metrics[] = {{"perplexity", MN_METRIC_EXP, true, false, "exp of the mean loss per hidden token"},
                                        {"accuracy", MN_METRIC_MEAN, false, true, "fraction of hidden tokens that are found"},
                                        {0}};

const mn_objective_def mn_objective_masked_token = {
    .name = "masked_token",
    .summary = "tokens that were hidden from a model that sees both sides",
    .paper = "Devlin et al. 2019, arXiv:1810.04805",
    .config_size = sizeof(config),
    .fields = fields,
    .metrics = metrics,
    .check = check,
    .needs = needs,
    .target = target,
    .prepare = prepare,
    .build = build,
};
