/* next_token.c - the next token of every token: mean negative log-likelihood, through the head without keeping its logits. */
#include "graph/fused_loss.h"
#include "objective/objective.h"

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
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *h = mn_io_get(judge->outputs, "hidden"), *head = mn_io_get(judge->outputs, "head");
  int64_t N = mn_dim(h, 0) * mn_dim(h, 1);
  h = mn_reshape(g, h, MN_SHAPE(N, mn_dim(h, 2)));
  mn_tensor *wanted = mn_reshape(g, mn_io_get(judge->data, "target"), MN_SHAPE(N));
  out->loss = mn_linear_cross_entropy(g, h, head, wanted, judge->weight, &out->each);
  if (judge->predict)
    out->prediction = mn_argmax(g, mn_matmul_as(g, h, mn_transpose(g, mn_cast(g, head, mn_type(h)), 0, 1), mn_scope_exact(s)));
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
