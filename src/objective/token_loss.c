/* token_loss.c - see token_loss.h. */
#include "objective/token_loss.h"
#include "graph/fused_loss.h"

mn_tensor *mn_token_loss(mn_scope *s, const mn_judge *judge, const char *hidden, const char *head, const char *wanted, bool say,
                         mn_verdict *out) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *h = mn_io_get(judge->outputs, hidden), *w = mn_io_get(judge->outputs, head), *target = mn_io_get(judge->data, wanted);
  const int64_t N = mn_dim(h, 0) * mn_dim(h, 1);
  h = mn_reshape(g, h, MN_SHAPE(N, mn_dim(h, 2)));
  out->loss = mn_linear_cross_entropy(g, h, w, mn_reshape(g, target, MN_SHAPE(N)), judge->weight, &out->each);
  return say ? mn_argmax(g, mn_matmul_as(g, h, mn_transpose(g, mn_cast(g, w, mn_type(h)), 0, 1), mn_scope_exact(s))) : NULL;
}

bool mn_mask_exists(mn_graph *g, const mn_tensor *head, int64_t mask_id) {
  if (mask_id < mn_dim(head, 0)) return true;
  mn_graph_fault(g, MN_ERR_CONFIG, "objective.mask_id is %lld, and the model has %lld tokens: the last is %lld", (long long)mask_id,
                 (long long)mn_dim(head, 0), (long long)mn_dim(head, 0) - 1);
  return false;
}
