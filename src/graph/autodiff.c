/* autodiff.c - reverse-mode differentiation as a graph transformation. The gradient is made of ordinary nodes, so it can
 * be differentiated again. Also: copying part of a graph into another. */
#include "graph/ops.h"
#include "graph/compose.h"

#include <stdlib.h>
#include <string.h>

/* A value for every tensor of the first n nodes of a graph, found by node id and output number. */
typedef struct tensor_map {
  int n_nodes;
  int *base;
  mn_tensor **at;
} tensor_map;

static mn_status map_init(tensor_map *m, const mn_graph *g) {
  *m = (tensor_map){.n_nodes = g->n_nodes};
  int total = 0;
  m->base = mn_alloc(((size_t)g->n_nodes + 1) * sizeof *m->base);
  if (!m->base) return MN_ERR_MEMORY;
  for (int i = 0; i < g->n_nodes; i++) {
    m->base[i] = total;
    total += g->nodes[i]->n_out;
  }
  m->base[g->n_nodes] = total;
  m->at = mn_calloc((size_t)total + 1, sizeof *m->at);
  return m->at ? MN_OK : MN_ERR_MEMORY;
}

static void map_free(tensor_map *m) {
  free(m->base);
  free(m->at);
}

static mn_tensor **slot(tensor_map *m, const mn_tensor *t) {
  int id = t->node->id;
  if (id >= m->n_nodes || t->out >= m->base[id + 1] - m->base[id]) return NULL;
  return &m->at[m->base[id] + t->out];
}

/* ---- mn_grad ---- */
typedef struct differentiation {
  mn_graph *g;
  tensor_map grad;
  bool *active; /* per node: depends on one of xs */
  int n_xs;
  mn_tensor *const *xs;
} differentiation;

static bool is_x(const differentiation *d, const mn_tensor *t) {
  for (int i = 0; i < d->n_xs; i++)
    if (d->xs[i] == t) return true;
  return false;
}

static bool wants(const differentiation *d, const mn_tensor *t) {
  if (!mn_dtype_is_float(t->dtype) || t->node->id >= d->grad.n_nodes) return false;
  return d->active[t->node->id] || is_x(d, t);
}

static void accumulate(differentiation *d, mn_tensor *t, mn_tensor *grad) {
  mn_tensor **s = slot(&d->grad, t);
  if (!s || !grad) return;
  if (grad->dtype != t->dtype) grad = mn_cast(d->g, grad, t->dtype);
  *s = *s ? mn_add(d->g, *s, grad) : grad;
}

static void differentiate_node(differentiation *d, mn_node *n, mn_tensor **dout, bool *need, mn_tensor **din) {
  if (n->op->grad) {
    n->op->grad(d->g, n, dout, need, din);
    return;
  }
  if (!n->op->compose) {
    mn_graph_fault(d->g, MN_ERR_UNSUPPORTED, "%s has no gradient", n->op->name);
    return;
  }
  mn_vjp_composed(d->g, n, n->in, dout, need, din);
}

mn_status mn_grad(mn_graph *g, int n_ys, mn_tensor *const *ys, mn_tensor *const *dys, int n_xs, mn_tensor *const *xs, mn_tensor **dxs) {
  MN_TRY(mn_graph_status(g));
  differentiation d = {.g = g, .n_xs = n_xs, .xs = xs};
  int phase = g->phase, outer_block = g->block, last = -1;
  for (int i = 0; i < n_xs; i++)
    if (!xs[i] || xs[i]->node->graph != g) return mn_fail(MN_ERR_ARG, "gradient: x %d is not a tensor of this graph", i);
  for (int j = 0; j < n_ys; j++) {
    if (!ys[j] || ys[j]->node->graph != g) return mn_fail(MN_ERR_ARG, "gradient: y %d is not a tensor of this graph", j);
    if (dys && dys[j] && !mn_shape_equal(&dys[j]->shape, &ys[j]->shape))
      return mn_fail(MN_ERR_SHAPE, "gradient: the cotangent of y %d has another shape than y", j);
    if (ys[j]->node->id > last) last = ys[j]->node->id;
  }
  for (int j = 0; j < n_ys; j++)
    if (ys[j]->node->phase + 1 > g->phase) g->phase = ys[j]->node->phase + 1;
  mn_status status = map_init(&d.grad, g);
  d.active = mn_calloc((size_t)g->n_nodes + 1, sizeof *d.active);
  if (status != MN_OK || !d.active) {
    status = MN_ERR_MEMORY;
    goto done;
  }
  for (int i = 0; i <= last; i++) {
    mn_node *n = g->nodes[i];
    if (n->op->no_grad) continue;
    for (int k = 0; k < n->n_in && !d.active[i]; k++) d.active[i] = wants(&d, n->in[k]);
  }
  for (int j = 0; j < n_ys; j++)
    if (mn_dtype_is_float(ys[j]->dtype) && wants(&d, ys[j]))
      accumulate(&d, ys[j], dys && dys[j] ? mn_capture(g, dys[j]) : mn_full(g, ys[j]->dtype, ys[j]->shape, 1));
  for (int i = last; i >= 0 && g->status == MN_OK; i--) {
    mn_node *n = g->nodes[i];
    int n_out = d.grad.base[i + 1] - d.grad.base[i];
    if (!d.active[i]) continue;
    bool arrives = false;
    for (int j = 0; j < n_out; j++) arrives |= d.grad.at[d.grad.base[i] + j] != NULL;
    if (!arrives) continue;
    mn_tensor **din = mn_arena_alloc(g->arena, (size_t)(n->n_in + 1) * sizeof *din);
    mn_tensor **dout = mn_arena_alloc(g->arena, (size_t)(n->n_out + 1) * sizeof *dout);
    bool *need = mn_arena_alloc(g->arena, (size_t)n->n_in + 1);
    if (!din || !dout || !need) {
      status = MN_ERR_MEMORY;
      goto done;
    }
    for (int j = 0; j < n_out; j++) dout[j] = d.grad.at[d.grad.base[i] + j];
    for (int k = 0; k < n->n_in; k++) need[k] = wants(&d, n->in[k]);
    g->block = n->block;
    differentiate_node(&d, n, dout, need, din);
    for (int k = 0; k < n->n_in; k++)
      if (need[k] && din[k]) {
        if (!mn_shape_equal(&din[k]->shape, &n->in[k]->shape)) {
          char a[96], b[96];
          mn_graph_fault(g, MN_ERR_INTERNAL, "the gradient of input %d of %s has shape %s instead of %s", k, n->op->name,
                         mn_shape_str(&din[k]->shape, a), mn_shape_str(&n->in[k]->shape, b));
          break;
        }
        accumulate(&d, n->in[k], din[k]);
      }
  }
  for (int i = 0; i < n_xs; i++) {
    mn_tensor **s = slot(&d.grad, xs[i]);
    dxs[i] = s && *s ? *s : mn_zeros_like(g, xs[i]);
  }
  status = mn_graph_status(g);
done:
  if (status == MN_ERR_MEMORY) mn_graph_fault(g, status, "%s", mn_message()); /* half a gradient is none */
  g->phase = phase;
  g->block = outer_block;
  free(d.active);
  map_free(&d.grad);
  return status;
}

/* ---- copying ---- */
mn_status mn_graph_inline(mn_graph *to, int n_map, mn_tensor *const *map_from, mn_tensor *const *map_to, int n_outs, mn_tensor *const *outs,
                          mn_tensor **outs_in_to) {
  if (n_outs == 0) return MN_OK;
  mn_graph *from = outs[0]->node->graph;
  tensor_map m = {0};
  bool *needed = mn_calloc((size_t)from->n_nodes + 1, 1);
  mn_status status = map_init(&m, from);
  if (status != MN_OK || !needed) {
    status = MN_ERR_MEMORY;
    goto done;
  }
  for (int i = 0; i < n_map; i++) *slot(&m, map_from[i]) = map_to[i];
  for (int j = 0; j < n_outs; j++)
    if (!*slot(&m, outs[j])) needed[outs[j]->node->id] = true;
  for (int i = from->n_nodes - 1; i >= 0; i--) {
    if (!needed[i]) continue;
    for (int k = 0; k < from->nodes[i]->n_in; k++) {
      mn_tensor *t = from->nodes[i]->in[k];
      if (!*slot(&m, t)) needed[t->node->id] = true;
    }
  }
  for (int i = 0; i < from->n_nodes && to->status == MN_OK; i++) {
    mn_node *n = from->nodes[i];
    if (!needed[i]) continue;
    mn_tensor **in = mn_arena_alloc(to->arena, (size_t)(n->n_in + 1) * sizeof *in);
    mn_dtype *types = mn_arena_alloc(to->arena, (size_t)(n->n_out + 1) * sizeof *types);
    mn_shape *shapes = mn_arena_alloc(to->arena, (size_t)(n->n_out + 1) * sizeof *shapes);
    if (!in || !types || !shapes) {
      status = MN_ERR_MEMORY;
      goto done;
    }
    for (int k = 0; k < n->n_in; k++) in[k] = *slot(&m, n->in[k]);
    for (int j = 0; j < n->n_out; j++) types[j] = n->out[j]->dtype, shapes[j] = n->out[j]->shape;
    mn_node *copy = mn_node_new(to, n->op, n->n_in, in, n->n_out, types, shapes, n->attr);
    if (!copy) break;
    copy->block = n->block;
    for (int j = 0; j < n->n_out; j++)
      if (!m.at[m.base[i] + j]) m.at[m.base[i] + j] = copy->out[j];
  }
  for (int j = 0; j < n_outs; j++) outs_in_to[j] = *slot(&m, outs[j]);
  status = mn_graph_status(to);
done:
  if (status == MN_ERR_MEMORY) mn_graph_fault(to, status, "%s", mn_message());
  free(needed);
  map_free(&m);
  return status;
}
