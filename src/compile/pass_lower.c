/* pass_lower.c - fused operations without a kernel become their compositions, until none is left. */
#include "compile/draft.h"

static mn_status lower_once(mn_backend *b, mn_arena *arena, mn_draft *p, bool *changed) {
  mn_rebuild r;
  mn_draft now;
  *changed = false;
  for (int i = 0; i < p->g->n_nodes && !*changed; i++)
    *changed = p->g->nodes[i]->op->cls == MN_OP_FUSED && !mn_backend_find(b, p->g->nodes[i], NULL);
  if (!*changed) return MN_OK;
  mn_status status = mn_rebuild_begin(&r, p, &now, arena);
  *changed = false;
  for (int i = 0; i < p->g->n_nodes && status == MN_OK && now.g->status == MN_OK; i++) {
    mn_node *n = p->g->nodes[i];
    if (!r.needed[i] && !n->op->bound) continue;
    if (n->op->cls != MN_OP_FUSED || mn_backend_find(b, n, NULL)) {
      mn_rebuild_copy(&r, n);
      continue;
    }
    if (mn_node_has_effect(n)) {
      mn_graph_fault(now.g, MN_ERR_UNSUPPORTED, "backend %s has no kernel for %s, and its effect has no composition", b->name, n->op->name);
      break;
    }
    *changed = true;
    mn_tensor **in = mn_arena_alloc(arena, (size_t)(n->n_in + 1) * sizeof *in);
    mn_tensor **out = mn_arena_alloc(arena, (size_t)(n->n_out + 1) * sizeof *out);
    if (!in || !out) status = MN_ERR_MEMORY;
    if (status != MN_OK) break;
    for (int k = 0; k < n->n_in; k++) in[k] = *mn_rebuilt(&r, n->in[k]);
    now.g->phase = n->phase;
    n->op->compose(now.g, n, in, out);
    now.g->phase = 0;
    for (int j = 0; j < n->n_out; j++) {
      *mn_rebuilt(&r, n->out[j]) = out[j];
      if (out[j] && !mn_shape_equal(&out[j]->shape, &n->out[j]->shape))
        mn_graph_fault(now.g, MN_ERR_INTERNAL, "the composition of %s gives another shape than the operation", n->op->name);
    }
  }
  status = mn_rebuild_end(&r, status);
  if (status == MN_OK) *p = now;
  return status;
}

mn_status mn_pass_lower(mn_backend *b, mn_arena *arena, mn_draft *p) {
  bool changed = true;
  for (int round = 0; changed; round++) {
    if (round == 32) return mn_fail(MN_ERR_INTERNAL, "a composition never ends");
    MN_TRY(lower_once(b, arena, p, &changed));
  }
  return MN_OK;
}
