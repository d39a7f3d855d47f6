/* next_token.c - the next token of every token: mean negative log-likelihood, through the head without keeping its logits. */
#include "objective/token_loss.h"

static void needs(const void *config, const mn_port **outputs, const mn_port **data) {
  static const mn_port out[] = {
      {"hidden", MN_F32, "BTD", false, "what the head projects"}, {"head", MN_F32, "VD", false, "the projection to the vocabulary"}, {0}};
  static const mn_port in[] = {{"target", MN_I32, "BT", false, "the token after each"}, {0}};
  (void)config;
  *outputs = out;
  *data = in;
}

static const char *target(const void *config, int *axes) {
  (void)config;
  *axes = 2;
  return "target";
}

static void build(mn_scope *s, const void *config, const mn_judge *judge, mn_verdict *out) {
  (void)config;
  mn_tensor *said = mn_token_loss(s, judge, "hidden", "head", "target", judge->predict, out);
  if (judge->predict) out->prediction = said;
}

static const mn_metric_def metrics[] = {{"perplexity", MN_METRIC_EXP, true, false, "exp of the mean loss per token"}, {0}};

const mn_objective_def mn_objective_next_token = {
    .name = "next_token",
    .summary = "the next token of every token: negative log-likelihood in nats",
    .metrics = metrics,
    .needs = needs,
    .target = target,
    .build = build,
};
