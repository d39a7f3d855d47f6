/* autodiff.c - reverse-mode differentiation as a graph transformation. The gradient is made of ordinary nodes, so it can
 * be differentiated again. Also: copying part of a graph into another. */
#include "graph/ops.h"
#include "graph/compose.h"

#include <stdlib.h>
#include <string.h>

/* A value for every tensor of the nodes [first, end) of a graph, found by node id and output number. Only these cost anything:
 * an operation that is differentiated by its composition asks for a few nodes at the end of a large graph. */
typedef struct tensor_map {
  int first, end;
  int *base; /* [end - first + 1] */
  mn_tensor **at;
} tensor_map;

static mn_status map_init(tensor_map *m, const mn_graph *g, int first) {
  *m = (tensor_map){.first = first, .end = g->n_nodes};
  int total = 0;
  m->base = mn_alloc(((size_t)(m->end - first) + 1) * sizeof *m->base);
  if (!m->base) return MN_ERR_MEMORY;
  for (int i = first; i < m->end; i++) {
    m->base[i - first] = total;
    total += g->nodes[i]->n_out;
  }
  m->base[m->end - first] = total;
  m->at = mn_calloc((size_t)total + 1, sizeof *m->at);
  return m->at ? MN_OK : MN_ERR_MEMORY;
}

static void map_free(tensor_map *m) {
  free(m->base);
  free(m->at);
}

static mn_tensor **slot(tensor_map *m, const mn_tensor *t) {
  int id = t->node->id - m->first;
  if (id < 0 || t->node->id >= m->end || t->out >= m->base[id + 1] - m->base[id]) return NULL;
  return &m->at[m->base[id] + t->out];
}

/* ---- mn_grad ---- */
typedef struct differentiation { /* nodes before the first of xs depend on none of them: arrays begin there */
  mn_graph *g;
  tensor_map grad;
  bool *active;            /* per node: depends on one of xs */
  bool *is_x;              /* per tensor                     */
  mn_tensor **din, **dout; /* of the node that is being differentiated */
  bool *need;
} differentiation;

/* Room for the gradients of any one node of [first, last]. */
static bool room_for_one(differentiation *d, int first, int last) {
  int most = 1;
  for (int i = first; i <= last; i++) {
    const mn_node *n = d->g->nodes[i];
    if (n->n_in > most) most = n->n_in;
    if (n->n_out > most) most = n->n_out;
  }
  d->din = mn_alloc((size_t)most * sizeof *d->din);
  d->dout = mn_alloc((size_t)most * sizeof *d->dout);
  d->need = mn_alloc((size_t)most);
  return d->din && d->dout && d->need;
}

static bool wants(differentiation *d, const mn_tensor *t) {
  mn_tensor **s = mn_dtype_is_float(t->dtype) ? slot(&d->grad, t) : NULL;
  return s && (d->active[t->node->id - d->grad.first] || d->is_x[s - d->grad.at]);
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
  differentiation d = {.g = g};
  int phase = g->phase, first = g->n_nodes, last = -1;
  for (int i = 0; i < n_xs; i++) {
    if (!xs[i] || xs[i]->node->graph != g) return mn_fail(MN_ERR_ARG, "gradient: x %d is not a tensor of this graph", i);
    if (xs[i]->node->id < first) first = xs[i]->node->id;
  }
  for (int j = 0; j < n_ys; j++) {
    if (!ys[j] || ys[j]->node->graph != g) return mn_fail(MN_ERR_ARG, "gradient: y %d is not a tensor of this graph", j);
    if (dys && dys[j] && !mn_shape_equal(&dys[j]->shape, &ys[j]->shape))
      return mn_fail(MN_ERR_SHAPE, "gradient: the cotangent of y %d has another shape than y", j);
    if (ys[j]->node->id > last) last = ys[j]->node->id;
  }
  for (int j = 0; j < n_ys; j++)
    if (ys[j]->node->phase + 1 > g->phase) g->phase = ys[j]->node->phase + 1;
  struct mn_reversed *const outer = g->reversed; /* a gradient may need another one */
  g->reversed = NULL;
  mn_status status = map_init(&d.grad, g, first);
  d.active = mn_calloc((size_t)(g->n_nodes - first) + 1, sizeof *d.active);
  d.is_x = mn_calloc((size_t)(status == MN_OK ? d.grad.base[g->n_nodes - first] : 0) + 1, sizeof *d.is_x);
  if (status != MN_OK || !d.active || !d.is_x || !room_for_one(&d, first, last)) {
    status = MN_ERR_MEMORY;
    goto done;
  }
  for (int i = 0; i < n_xs; i++) d.is_x[slot(&d.grad, xs[i]) - d.grad.at] = true;
  for (int i = first; i <= last; i++) {
    mn_node *n = g->nodes[i];
    if (n->op->no_grad) continue;
    for (int k = 0; k < n->n_in && !d.active[i - first]; k++) d.active[i - first] = wants(&d, n->in[k]);
  }
  for (int j = 0; j < n_ys; j++)
    if (mn_dtype_is_float(ys[j]->dtype) && wants(&d, ys[j]))
      accumulate(&d, ys[j], dys && dys[j] ? mn_capture(g, dys[j]) : mn_full(g, ys[j]->dtype, ys[j]->shape, 1));
  for (int i = last; i >= first && g->status == MN_OK; i--) {
    mn_node *n = g->nodes[i];
    if (!d.active[i - first]) continue;
    mn_tensor **arriving = d.grad.at + d.grad.base[i - first];
    int n_out = d.grad.base[i - first + 1] - d.grad.base[i - first];
    bool arrives = false;
    for (int j = 0; j < n_out; j++) arrives |= arriving[j] != NULL;
    if (!arrives) continue;
    mn_tensor **din = d.din, **dout = d.dout;
    bool *need = d.need;
    for (int j = 0; j < n->n_out; j++) dout[j] = j < n_out ? arriving[j] : NULL;
    for (int k = 0; k < n->n_in; k++) need[k] = wants(&d, n->in[k]), din[k] = NULL;
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
  g->reversed = outer;
  free(d.active);
  free(d.is_x);
  free(d.din);
  free(d.dout);
  free(d.need);
  map_free(&d.grad);
  return status;
}

/* ---- copying ---- */
/* Node n on inputs `in` of graph `to`; its results to out. What has an effect is replaced by its results alone. */
static mn_status inline_node(mn_graph *to, mn_node *n, mn_tensor **in, mn_tensor **out) {
  if (mn_node_has_effect(n)) {
    if (n->op->effect && !n->op->compose)
      mn_graph_fault(to, MN_ERR_UNSUPPORTED, "%s has an effect, which the gradient of a loop must not repeat; move it out of the loop",
                     n->op->name);
    else if (n->op->effect) n->op->compose(to, n, in, out);
    else {
      mn_node *loop = mn_scan_without_effects(to, n->attr, in);
      for (int j = 0; loop && j < n->n_out; j++) out[j] = loop->out[j];
    }
    return MN_OK;
  }
  mn_node *copy = mn_node_again(to, n, in);
  if (!copy) return mn_graph_status(to);
  copy->phase = to->phase;
  copy->mute = to->mute;
  for (int k = 0; k < n->n_in; k++)
    if (copy->in[k]->node->phase > copy->phase) copy->phase = copy->in[k]->node->phase;
  for (int j = 0; j < n->n_out; j++) out[j] = copy->out[j];
  return MN_OK;
}

mn_status mn_graph_inline(mn_graph *to, int n_map, mn_tensor *const *map_from, mn_tensor *const *map_to, int n_outs, mn_tensor *const *outs,
                          mn_tensor **outs_in_to) {
  if (n_outs == 0) return MN_OK;
  mn_graph *from = outs[0]->node->graph;
  tensor_map m = {0};
  bool *needed = mn_calloc((size_t)from->n_nodes + 1, 1);
  mn_tensor **values = NULL; /* room for the operands and the results of one node */
  mn_status status = map_init(&m, from, 0);
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
  int most = 0;
  for (int i = 0; i < from->n_nodes; i++) {
    const mn_node *n = from->nodes[i];
    if (needed[i] && n->n_in > most) most = n->n_in;
    if (needed[i] && n->n_out > most) most = n->n_out;
  }
  values = mn_alloc(2 * ((size_t)most + 1) * sizeof *values);
  if (!values) {
    status = MN_ERR_MEMORY;
    goto done;
  }
  for (int i = 0; i < from->n_nodes && to->status == MN_OK; i++) {
    mn_node *n = from->nodes[i];
    if (!needed[i]) continue;
    mn_tensor **in = values, **out = values + most + 1;
    for (int k = 0; k < n->n_in; k++) in[k] = *slot(&m, n->in[k]);
    for (int j = 0; j < n->n_out; j++) out[j] = NULL;
    if ((status = inline_node(to, n, in, out)) != MN_OK) goto done;
    if (to->status != MN_OK) break;
    for (int j = 0; j < n->n_out; j++)
      if (!m.at[m.base[i] + j]) m.at[m.base[i] + j] = out[j];
  }
  for (int j = 0; j < n_outs; j++) outs_in_to[j] = *slot(&m, outs[j]);
  status = mn_graph_status(to);
done:
  if (status == MN_ERR_MEMORY) mn_graph_fault(to, status, "%s", mn_message());
  free(needed);
  free(values);
  map_free(&m);
  return status;
}
