/* compose.c - gradients through compositions: the path of a fused operation without a gradient rule of its own, and the
 * meaning of every "_grad" operation. */
#include "graph/compose.h"
#include "graph/ops.h"

/* Each input gets a fresh name, so that the composition's own inputs are leaves for mn_grad even
 * when two of them are the same tensor. */
void mn_vjp_of(mn_graph *g, const mn_op *op, const void *attr, int n_in, mn_tensor *const *in, int n_out, const mn_dtype *types,
               const mn_shape *shapes, mn_tensor **dout, const bool *need, mn_tensor **din, mn_tensor **out) {
  mn_node shell = {.op = op, .graph = g, .n_in = n_in, .n_out = n_out, .attr = (void *)attr};
  mn_tensor **cut = mn_arena_alloc(g->arena, (size_t)(n_in + 1) * sizeof *cut);
  mn_tensor **ys = mn_arena_alloc(g->arena, (size_t)(n_out + 1) * sizeof *ys);
  mn_tensor *values = mn_arena_alloc(g->arena, (size_t)(n_out + 1) * sizeof *values);
  mn_tensor **y = mn_arena_alloc(g->arena, (size_t)(n_out + 1) * sizeof *y);
  mn_tensor **dy = mn_arena_alloc(g->arena, (size_t)(n_out + 1) * sizeof *dy);
  mn_tensor **x = mn_arena_alloc(g->arena, (size_t)(n_in + 1) * sizeof *x);
  mn_tensor **dx = mn_arena_alloc(g->arena, (size_t)(n_in + 1) * sizeof *dx);
  if (!cut || !ys || !values || !y || !dy || !x || !dx) {
    mn_graph_fault(g, MN_ERR_MEMORY, "%s", mn_message());
    return;
  }
  for (int i = 0; i < n_in; i++) cut[i] = mn_identity(g, in[i]);
  for (int j = 0; j < n_out; j++) {
    values[j] = (mn_tensor){.node = &shell, .out = j, .dtype = types[j], .shape = shapes[j]};
    ys[j] = &values[j];
  }
  shell.in = cut;
  shell.out = ys;
  mn_tensor **made = mn_arena_alloc(g->arena, (size_t)(n_out + 1) * sizeof *made);
  if (!made) {
    mn_graph_fault(g, MN_ERR_MEMORY, "%s", mn_message());
    return;
  }
  op->compose(g, &shell, cut, made);
  if (g->status != MN_OK) return;
  int ny = 0, nx = 0;
  for (int j = 0; j < n_out; j++) {
    if (out) out[j] = made[j];
    if (dout[j] && made[j]) y[ny] = made[j], dy[ny++] = dout[j];
  }
  for (int i = 0; i < n_in; i++)
    if (need[i]) x[nx++] = cut[i];
  if (nx == 0) return;
  if (mn_grad(g, ny, y, dy, nx, x, dx) != MN_OK) {
    mn_graph_fault(g, MN_ERR_INTERNAL, "the gradient of %s: %s", op->name, mn_message());
    return;
  }
  nx = 0;
  for (int i = 0; i < n_in; i++)
    if (need[i]) din[i] = dx[nx++];
}

void mn_vjp_composed(mn_graph *g, mn_node *n, mn_tensor *const *in, mn_tensor **dout, const bool *need, mn_tensor **din) {
  mn_dtype *types = mn_arena_alloc(g->arena, (size_t)(n->n_out + 1) * sizeof *types);
  mn_shape *shapes = mn_arena_alloc(g->arena, (size_t)(n->n_out + 1) * sizeof *shapes);
  if (!types || !shapes) {
    mn_graph_fault(g, MN_ERR_MEMORY, "%s", mn_message());
    return;
  }
  for (int j = 0; j < n->n_out; j++) types[j] = n->out[j]->dtype, shapes[j] = n->out[j]->shape;
  mn_vjp_of(g, n->op, n->attr, n->n_in, in, n->n_out, types, shapes, dout, need, din, NULL);
}

enum { GRAD_IN = 8 };
void mn_grad_by_node(mn_graph *g, mn_node *n, const mn_op *grad, mn_tensor **dout, mn_tensor **din) {
  mn_tensor *in[GRAD_IN + 1];
  mn_dtype types[GRAD_IN];
  mn_shape shapes[GRAD_IN];
  for (int i = 0; i < n->n_in; i++) in[i] = n->in[i], types[i] = n->in[i]->dtype, shapes[i] = n->in[i]->shape;
  in[n->n_in] = dout[0];
  mn_node *d = mn_node_new(g, grad, n->n_in + 1, in, n->n_in, types, shapes, n->attr);
  for (int i = 0; d && i < n->n_in; i++) din[i] = d->out[i];
}
void mn_grad_by_node_compose(mn_graph *g, mn_node *n, const mn_op *op, mn_tensor **in, mn_tensor **out) {
  const int k = n->n_in - 1;
  bool need[GRAD_IN];
  for (int i = 0; i < k; i++) need[i] = true;
  mn_vjp_of(g, op, n->attr, k, in, 1, &in[k]->dtype, &in[k]->shape, &in[k], need, out, NULL);
}
