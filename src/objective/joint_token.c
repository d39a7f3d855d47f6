/* joint_token.c - the next token of every token, said while looking at what an encoder made of the same turn (a model's joint_hidden): the
 * decoder's part of joint training (Filipek 2025, arXiv 2510.03561). Beside joint_masked, which is the encoder's. */
#include "objective/token_loss.h"

static void needs(const void *config, const mn_port **outputs, const mn_port **data) {
  static const mn_port out[] = {
      {"joint_hidden", MN_F32, "BTD", false, "what the head projects, looking at what the encoder made of `masked`"},
      {"head", MN_F32, "VD", false, "the projection to the vocabulary"},
      {0}};
  static const mn_port in[] = {{"target", MN_I32, "BT", false, "the token after each"},
                               {"masked", MN_I32, "BT", false, "the tokens, of which some are hidden"},
                               {0}};
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
  if (mn_io_get(judge->outputs, "joint_hidden")) mn_token_loss(s, judge, "joint_hidden", "head", "target", false, out);
}

static const mn_metric_def metrics[] = {{"perplexity", MN_METRIC_EXP, true, false, "exp of the mean loss per token"}, {0}};

const mn_objective_def mn_objective_joint_token = {
    .name = "joint_token",
    .summary = "the next token, looking at what an encoder made of the same turn",
    .paper = "Filipek 2025, arXiv 2510.03561",
    .metrics = metrics,
    .needs = needs,
    .target = target,
    .build = build,
};
