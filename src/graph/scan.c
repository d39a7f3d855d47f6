/* scan.c - time as a loop: building a scan. Its gradient is in scan_grad.c. */
#include "graph/compose.h"
#include "graph/ops.h"
#include "graph/scan_internal.h"

#include <string.h>

struct mn_scan_builder {
  mn_graph *g, *body;
  mn_scan_attr attr;
  mn_tensor **outer; /* carries, then xs */
  mn_tensor **inner; /* their body inputs */
  mn_tensor *live;   /* or NULL */
};

mn_shape mn_shape_without_first(const mn_shape *s) {
  mn_shape out = {.ndim = s->ndim - 1};
  for (int i = 0; i < out.ndim; i++) out.dim[i] = s->dim[i + 1];
  return out;
}

mn_shape mn_shape_with_first(const mn_shape *s, int64_t n) {
  mn_shape out = {.ndim = s->ndim + 1, .dim = {n}};
  for (int i = 0; i < s->ndim && i + 1 < MN_MAX_DIMS; i++) out.dim[i + 1] = s->dim[i];
  if (out.ndim > MN_MAX_DIMS) out.ndim = -1;
  return out;
}

static mn_graph *body_new(mn_graph *g) { /* lives in the arena of the outermost graph */
  mn_graph *body = mn_arena_alloc(g->arena, sizeof *body);
  if (!body) {
    mn_graph_fault(g, MN_ERR_MEMORY, "%s", mn_message());
    return NULL;
  }
  *body = (mn_graph){.arena = g->arena, .parent = g, .keep_bytes = g->keep_bytes};
  return body;
}

void *mn_graph_grab(mn_graph *g, size_t n, size_t size) {
  void *p = mn_arena_alloc(g->arena, (n + 1) * size);
  if (!p) mn_graph_fault(g, MN_ERR_MEMORY, "%s", mn_message());
  return p;
}

mn_scan_builder *mn_scan_begin(mn_graph *g, int64_t length, mn_direction direction, int n_carry, mn_tensor *const *carries, int n_xs,
                               mn_tensor *const *xs, mn_tensor **carry_in, mn_tensor **x_in) {
  for (int i = 0; i < n_carry; i++) carry_in[i] = NULL;
  for (int i = 0; i < n_xs; i++) x_in[i] = NULL;
  if (g->status != MN_OK) return NULL;
  mn_scan_builder *b = NEW(g, mn_scan_builder, 1);
  if (!b) return NULL;
  *b = (mn_scan_builder){.g = g, .body = body_new(g)};
  b->outer = NEW(g, mn_tensor *, n_carry + n_xs);
  b->inner = NEW(g, mn_tensor *, n_carry + n_xs);
  if (!b->body || !b->outer || !b->inner) return NULL;
  b->attr = (mn_scan_attr){.body = b->body, .n_carry = n_carry, .n_xs = n_xs, .length = length, .reverse = direction == MN_BACKWARD};
  if (length < 1) {
    mn_graph_fault(g, MN_ERR_SHAPE, "scan: needs at least one step, got %lld", (long long)length);
    return NULL;
  }
  for (int i = 0; i < n_carry + n_xs; i++) {
    mn_tensor *t = i < n_carry ? carries[i] : xs[i - n_carry];
    if (!t) {
      mn_graph_fault(g, MN_ERR_ARG, "scan: operand %d is missing", i);
      return NULL;
    }
    if (i >= n_carry && (t->shape.ndim < 1 || t->shape.dim[0] != length)) {
      mn_graph_fault(g, MN_ERR_SHAPE, "scan: slice operand %d has %lld rows, not the loop's %lld", i - n_carry, (long long)mn_dim(t, 0),
                     (long long)length);
      return NULL;
    }
    b->outer[i] = t;
    b->inner[i] = mn_input(b->body, t->name, t->dtype, i < n_carry ? t->shape : mn_shape_without_first(&t->shape));
    if (i < n_carry) carry_in[i] = b->inner[i];
    else x_in[i - n_carry] = b->inner[i];
  }
  return b;
}

mn_graph *mn_scan_body(mn_scan_builder *b) { return b ? b->body : NULL; }

void mn_scan_set_live(mn_scan_builder *b, mn_tensor *live) {
  if (!b) return;
  if (!live) mn_graph_fault(b->g, MN_ERR_ARG, "scan: the live length is missing");
  else if (live->dtype != MN_I32 || live->shape.ndim != 0)
    mn_graph_fault(b->g, MN_ERR_SHAPE, "scan: the live length is an i32 scalar, not %s of %d dimensions", mn_dtype_name(live->dtype),
                   live->shape.ndim);
  else if (b->attr.length > INT32_MAX)
    mn_graph_fault(b->g, MN_ERR_SHAPE, "scan: a loop of %lld steps is too long for a live length", (long long)b->attr.length);
  b->live = live;
}

int mn_scan_body_inputs(const mn_scan_attr *a) { return a->n_carry + a->n_xs + a->n_const; }

mn_node *mn_scan_node(mn_graph *g, const mn_scan_attr *a, mn_tensor *const *in) {
  int n_in = mn_scan_body_inputs(a) + a->has_live, n_out = a->n_carry + a->n_ys + (a->save_every ? a->n_carry : 0);
  mn_dtype *types = NEW(g, mn_dtype, n_out);
  mn_shape *shapes = NEW(g, mn_shape, n_out);
  if (!types || !shapes) return NULL;
  for (int j = 0; j < n_out; j++) {
    bool saved = j >= a->n_carry + a->n_ys;
    mn_tensor *t = saved ? a->body_in[j - a->n_carry - a->n_ys] : a->body_out[j];
    types[j] = t->dtype;
    shapes[j] = j < a->n_carry ? t->shape
                : saved        ? mn_shape_with_first(&t->shape, (a->length + a->save_every - 1) / a->save_every)
                               : mn_shape_with_first(&t->shape, a->length);
  }
  return mn_node_new(g, &mn_op_scan, n_in, in, n_out, types, shapes, a);
}

void mn_scan_end(mn_scan_builder *b, mn_tensor *const *carry_out, int n_ys, mn_tensor *const *y_out, mn_tensor **final, mn_tensor **ys) {
  for (int j = 0; j < n_ys; j++) ys[j] = NULL;
  if (!b) return;
  for (int i = 0; i < b->attr.n_carry; i++) final[i] = NULL;
  mn_graph *g = b->g, *body = b->body;
  mn_scan_attr *a = &b->attr;
  a->n_ys = n_ys;
  a->body_out = NEW(g, mn_tensor *, a->n_carry + n_ys);
  if (g->status != MN_OK || !a->body_out) return;
  for (int j = 0; j < a->n_carry + n_ys; j++) {
    mn_tensor *t = mn_capture(body, j < a->n_carry ? carry_out[j] : y_out[j - a->n_carry]);
    if (!t) {
      mn_graph_fault(g, MN_ERR_ARG, "scan: result %d of the body is missing", j);
      return;
    }
    if (j < a->n_carry && (t->dtype != b->inner[j]->dtype || !mn_shape_equal(&t->shape, &b->inner[j]->shape))) {
      char x[96], y[96];
      mn_graph_fault(g, MN_ERR_SHAPE, "scan: carry %d enters a step as %s %s and leaves it as %s %s", j, mn_dtype_name(b->inner[j]->dtype),
                     mn_shape_str(&b->inner[j]->shape, x), mn_dtype_name(t->dtype), mn_shape_str(&t->shape, y));
      return;
    }
    a->body_out[j] = t;
  }
  a->n_const = body->n_captured;
  a->has_live = b->live != NULL;
  int n_in = mn_scan_body_inputs(a);
  a->body_in = NEW(g, mn_tensor *, n_in);
  mn_tensor **in = NEW(g, mn_tensor *, n_in + 1);
  if (!a->body_in || !in) return;
  in[n_in] = b->live;
  for (int i = 0; i < n_in; i++) {
    int k = i - a->n_carry - a->n_xs;
    in[i] = k < 0 ? b->outer[i] : body->captured[k];
    a->body_in[i] = k < 0 ? b->inner[i] : body->captured_as[k];
  }
  mn_node *n = mn_scan_node(g, a, in);
  if (!n) return;
  for (int j = 0; j < a->n_carry; j++) final[j] = n->out[j];
  for (int j = 0; j < n_ys; j++) ys[j] = n->out[a->n_carry + j];
}

void mn_scan_save_carries(mn_graph *g, mn_node *n, int64_t every) {
  mn_scan_attr *a = n->attr;
  if (a->save_every) return;
  int old = n->n_out, total = old + a->n_carry;
  mn_tensor **out = NEW(g, mn_tensor *, total);
  mn_tensor *values = NEW(g, mn_tensor, a->n_carry);
  if (!out || !values) return;
  memcpy(out, n->out, (size_t)old * sizeof *out);
  for (int i = 0; i < a->n_carry; i++) {
    mn_tensor *t = a->body_in[i];
    values[i] =
        (mn_tensor){.node = n, .out = old + i, .dtype = t->dtype, .shape = mn_shape_with_first(&t->shape, (a->length + every - 1) / every)};
    if (values[i].shape.ndim < 0) {
      mn_graph_fault(g, MN_ERR_SHAPE, "scan: a carry of %d dimensions cannot be kept for the gradient", t->shape.ndim);
      return;
    }
    out[old + i] = &values[i];
  }
  a->save_every = every;
  n->out = out;
  n->n_out = total;
}

mn_node *mn_scan_end_settled(mn_scan_builder *b, mn_tensor *const *carry_out, int n_ys, mn_tensor *const *y_out, int64_t save_every,
                             mn_tensor **final, mn_tensor **ys) {
  mn_scan_end(b, carry_out, n_ys, y_out, final, ys);
  if (!b || b->g->status != MN_OK) return NULL;
  mn_node *n = b->g->nodes[b->g->n_nodes - 1];
  if (save_every) mn_scan_save_carries(b->g, n, save_every);
  ((mn_scan_attr *)n->attr)->settled = true;
  return b->g->status == MN_OK ? n : NULL;
}

mn_node *mn_scan_without_effects(mn_graph *g, const mn_scan_attr *a, mn_tensor *const *in) {
  const int n_map = mn_scan_body_inputs(a), n_out = a->n_carry + a->n_ys;
  mn_tensor **map_to = NEW(g, mn_tensor *, n_map), **out = NEW(g, mn_tensor *, n_out), **results = NEW(g, mn_tensor *, n_out);
  if (g->status != MN_OK) return NULL;
  mn_scan_builder *b = mn_scan_begin(g, a->length, a->reverse ? MN_BACKWARD : MN_FORWARD, a->n_carry, in, a->n_xs, in + a->n_carry, map_to,
                                     map_to + a->n_carry);
  mn_graph *body = mn_scan_body(b);
  if (!body) return NULL;
  if (a->has_live) mn_scan_set_live(b, in[n_map]);
  for (int i = a->n_carry + a->n_xs; i < n_map; i++) map_to[i] = mn_capture(body, in[i]);
  if (mn_graph_inline(body, n_map, a->body_in, map_to, n_out, a->body_out, out) != MN_OK) return NULL;
  mn_scan_end(b, out, a->n_ys, out + a->n_carry, results, results + a->n_carry);
  if (g->status != MN_OK || n_out == 0) return NULL;
  mn_node *n = results[0]->node;
  if (a->save_every) mn_scan_save_carries(g, n, a->save_every);
  return g->status == MN_OK ? n : NULL;
}

static int64_t scan_flops(const mn_node *n) {
  const mn_scan_attr *a = n->attr;
  int64_t total = 0;
  for (int i = 0; i < a->body->n_nodes; i++) {
    const mn_node *b = a->body->nodes[i];
    if (b->op->cls == MN_OP_LEAF || b->op->cls == MN_OP_VIEW) continue;
    total += b->op->flops ? b->op->flops(b) : b->n_out ? mn_shape_count(&b->out[0]->shape) : 0;
  }
  return total * a->length;
}

const mn_op mn_op_scan = {.name = "scan",
                          .traits = MN_IS_LOOP,
                          .cls = MN_OP_CORE,
                          .attr_size = sizeof(mn_scan_attr),
                          .distinct = true,
                          .grad = mn_scan_grad,
                          .flops = scan_flops,
                          .stored = ~0u};
