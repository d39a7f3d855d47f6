/* tensor.c - graphs, nodes and leaves. */
#include "graph/compose.h"
#include "graph/fused_loss.h"
#include "graph/ops.h"

#include "base/bf16.h"
#include "base/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const int64_t mn_graph_keep_bytes = (int64_t)512 << 20;

mn_graph *mn_graph_in(mn_arena *arena, int64_t keep_bytes) {
  mn_graph *g = mn_arena_alloc(arena, sizeof *g);
  if (g) *g = (mn_graph){.arena = arena, .keep_bytes = keep_bytes};
  return g;
}

mn_graph *mn_graph_new(void) {
  mn_arena *arena = mn_arena_new();
  mn_graph *g = arena ? mn_graph_in(arena, mn_graph_keep_bytes) : NULL;
  if (!g) mn_arena_free(arena);
  return g;
}

void mn_graph_free(mn_graph *g) {
  if (g) mn_arena_free(g->arena);
}

mn_status mn_graph_status(const mn_graph *g) {
  if (g->status == MN_OK) return MN_OK;
  if (!g->message) return mn_fail(g->status, "%s: the graph could not be built", mn_status_name(g->status));
  return mn_fail(g->status, "%s", g->message);
}

void mn_graph_fault(mn_graph *g, mn_status status, const char *fmt, ...) {
  va_list ap;
  char text[1024];
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  for (; g; g = g->parent) { /* a fault in a body is a fault of the whole */
    if (g->status != MN_OK) continue;
    g->status = status;
    g->message = mn_arena_strdup(g->arena, text);
  }
}

static bool graph_push(mn_graph *g, mn_node *n) {
  if (g->n_nodes == g->cap_nodes) {
    int cap = g->cap_nodes ? 2 * g->cap_nodes : 64;
    mn_node **nodes = mn_arena_alloc(g->arena, (size_t)cap * sizeof *nodes);
    if (!nodes) return false;
    if (g->n_nodes) memcpy(nodes, g->nodes, (size_t)g->n_nodes * sizeof *nodes);
    g->nodes = nodes;
    g->cap_nodes = cap;
  }
  n->id = g->n_nodes;
  g->nodes[g->n_nodes++] = n;
  return true;
}

static bool shape_is_valid(mn_graph *g, const mn_op *op, const mn_shape *s, mn_dtype t) {
  char buf[96];
  size_t bytes = mn_block_bytes(t); /* as if no axis were empty, or all were of single values: strides must be representable, too */
  if (s->ndim < 0 || s->ndim > MN_MAX_DIMS || bytes == 0) {
    mn_graph_fault(g, MN_ERR_SHAPE, "%s: a tensor has 0 to %d dimensions and a known type", op->name, MN_MAX_DIMS);
    return false;
  }
  if (!mn_shape_holds(s, t)) {
    mn_graph_fault(g, MN_ERR_SHAPE, "%s: %s cannot be kept as %s, whose blocks are %lld values of the last axis", op->name,
                   mn_shape_str(s, buf), mn_dtype_name(t), (long long)mn_block_values(t));
    return false;
  }
  for (int i = 0; i < s->ndim; i++)
    if (s->dim[i] < 0 || !mn_size_mul(bytes, (size_t)(s->dim[i] ? s->dim[i] : 1), &bytes) || bytes > (size_t)1 << 46) {
      mn_graph_fault(g, MN_ERR_SHAPE, "%s: impossible shape %s", op->name, mn_shape_str(s, buf));
      return false;
    }
  return true;
}

bool mn_node_has_effect(const mn_node *n) {
  return !n->mute && (n->op->effect || (mn_is(n, MN_IS_LOOP) && ((const mn_scan_attr *)n->attr)->body->effects));
}

/* Every pass builds nodes: this is where compiling, like building, hears that it should stop. */
static bool told_to_stop(mn_graph *g) {
  enum { OFTEN = 1024 };
  if (g->n_nodes % OFTEN != OFTEN - 1 || !mn_stopped()) return false;
  mn_graph_fault(g, MN_ERR_CANCELLED, "interrupted while compiling");
  return true;
}

/* Nothing is computed with types of storage: few operations read them, and only leaves have them, and views that are the leaf itself. */
static bool reads_types(mn_graph *g, const mn_op *op, int n_in, mn_tensor *const *in) {
  for (int i = 0; i < n_in; i++) {
    if (!mn_dtype_is_stored(in[i]->dtype) || op->stored >> (i < 31 ? i : 31) & 1) continue;
    const char *name = in[i]->name;
    mn_graph_fault(g, MN_ERR_UNSUPPORTED, "%s: operand %d%s%s is kept as %s, which is a type of storage: cast it first", op->name, i,
                   name ? ", " : "", name ? name : "", mn_dtype_name(in[i]->dtype));
    return false;
  }
  return true;
}
static bool gives_type(mn_graph *g, const mn_op *op, mn_dtype t) {
  if (!mn_dtype_is_stored(t) || op->bound || op->cls == MN_OP_VIEW || op == &mn_op_capped_head) return true; /* which hands it on */
  if ((op->inplace && op->stored & 1) || op == &mn_op_copy) return true; /* it writes a cache, and that is its result; what plans move */
  mn_graph_fault(g, MN_ERR_UNSUPPORTED, "%s: nothing is computed in %s, which is a type of storage", op->name, mn_dtype_name(t));
  return false;
}

/* A node lies in one piece, as small as it can be: a model has thousands of nodes in each layer, and every pass of the compiler copies
 * them. Its outputs come first, then where its inputs and outputs are listed, then the attributes. */
typedef struct piece {
  size_t values, ins, outs, attr, attr_bytes, bytes;
} piece;

static piece piece_of(const mn_op *op, int n_in, int n_out, const void *attr) {
  enum { ALIGNED = 16 };
  piece p = {.values = mn_align(sizeof(mn_node), ALIGNED), .attr_bytes = mn_attr_bytes(op, attr)};
  p.ins = p.values + (size_t)n_out * sizeof(mn_tensor);
  p.outs = p.ins + (size_t)n_in * sizeof(mn_tensor *);
  p.attr = mn_align(p.outs + (size_t)n_out * sizeof(mn_tensor *), ALIGNED);
  p.bytes = p.attr + p.attr_bytes;
  return p;
}

/* The inside of a node that lies at `at`, but for its outputs' types and shapes */
static bool wire(mn_graph *g, mn_node *n, char *at, const piece *p, mn_tensor *const *in) {
  mn_tensor *values = (mn_tensor *)(at + p->values);
  n->graph = g;
  n->in = (mn_tensor **)(at + p->ins);
  n->out = (mn_tensor **)(at + p->outs);
  n->attr = n->op->attr_size ? at + p->attr : NULL;
  for (int i = 0; i < n->n_in; i++)
    if (!(n->in[i] = mn_capture(g, in[i]))) return false;
  for (int j = 0; j < n->n_out; j++) {
    values[j].node = n;
    n->out[j] = &values[j];
  }
  return true;
}

static bool no_memory(mn_graph *g) {
  mn_graph_fault(g, MN_ERR_MEMORY, "%s", mn_message());
  return false;
}

static bool are_there(mn_graph *g, const mn_op *op, int n_in, mn_tensor *const *in) {
  for (int i = 0; i < n_in; i++)
    if (!in[i]) {
      mn_graph_fault(g, MN_ERR_ARG, "%s: operand %d is missing", op->name, i);
      return false;
    }
  return true;
}

mn_node *mn_node_new(mn_graph *g, const mn_op *op, int n_in, mn_tensor *const *in, int n_out, const mn_dtype *dtypes,
                     const mn_shape *shapes, const void *attr) {
  if (g->status != MN_OK || told_to_stop(g) || !are_there(g, op, n_in, in) || !reads_types(g, op, n_in, in)) return NULL;
  for (int j = 0; j < n_out; j++)
    if (!shape_is_valid(g, op, &shapes[j], dtypes[j]) || !gives_type(g, op, dtypes[j])) return NULL;
  const piece p = piece_of(op, n_in, n_out, attr);
  char *at = mn_arena_room(g->arena, p.bytes);
  if (!at) return no_memory(g), NULL;
  mn_node *n = (mn_node *)at;
  mn_tensor *values = (mn_tensor *)(at + p.values);
  *n = (mn_node){.op = op, .n_in = n_in, .n_out = n_out, .phase = g->phase, .mute = g->mute};
  for (int j = 0; j < n_out; j++) values[j] = (mn_tensor){.out = j, .dtype = dtypes[j], .shape = shapes[j]};
  if (!wire(g, n, at, &p, in)) return NULL;
  for (int i = 0; i < n_in; i++)
    if (n->in[i]->node->phase > n->phase) n->phase = n->in[i]->node->phase;
  if (attr) memcpy(at + p.attr, attr, p.attr_bytes);
  else memset(at + p.attr, 0, p.attr_bytes);
  g->effects |= mn_node_has_effect(n);
  return graph_push(g, n) ? n : (no_memory(g), NULL);
}

mn_node *mn_node_again(mn_graph *g, const mn_node *n, mn_tensor *const *in) {
  if (g->status != MN_OK || told_to_stop(g) || !are_there(g, n->op, n->n_in, in)) return NULL;
  const piece p = piece_of(n->op, n->n_in, n->n_out, n->attr);
  char *at = mn_arena_room(g->arena, p.bytes);
  if (!at) return no_memory(g), NULL;
  mn_node *copy = (mn_node *)at;
  mn_tensor *values = (mn_tensor *)(at + p.values);
  *copy = *n;
  for (int j = 0; j < n->n_out; j++) values[j] = *n->out[j]; /* of a loop that was given more results later they lie elsewhere */
  if (!wire(g, copy, at, &p, in)) return NULL;
  if (copy->attr) memcpy(copy->attr, n->attr, p.attr_bytes);
  g->effects |= mn_node_has_effect(copy);
  return graph_push(g, copy) ? copy : (no_memory(g), NULL);
}

mn_tensor *mn_node1(mn_graph *g, const mn_op *op, int n_in, mn_tensor *const *in, mn_dtype dtype, mn_shape shape, const void *attr) {
  mn_node *n = mn_node_new(g, op, n_in, in, 1, &dtype, &shape, attr);
  return n ? n->out[0] : NULL;
}

mn_tensor *mn_named(mn_tensor *t, const char *name) {
  if (t) t->name = mn_arena_strdup(t->node->graph->arena, name);
  return t;
}

int64_t mn_dim(const mn_tensor *t, int axis) {
  if (!t) return 0;
  if (axis < 0) axis += t->shape.ndim;
  return axis >= 0 && axis < t->shape.ndim ? t->shape.dim[axis] : 0;
}

mn_tensor *mn_capture(mn_graph *body, mn_tensor *outer) {
  if (!outer || outer->node->graph == body) return outer;
  if (!body->parent) {
    mn_graph_fault(body, MN_ERR_ARG, "a tensor%s%s of one graph was used in another", outer->name ? " " : "",
                   outer->name ? outer->name : "");
    return NULL;
  }
  mn_tensor *t = mn_capture(body->parent, outer);
  if (!t) return NULL;
  const int known = body->captured_at ? mn_table_find(body->captured_at, t, -1) : -1;
  if (known >= 0) return body->captured_as[known];
  /* A scalar constant is cheaper copied than passed. */
  if (mn_is(t->node, MN_IS_CONST) && ((mn_const_attr *)t->node->attr)->is_full && t->shape.ndim == 0)
    return mn_scalar(body, t->dtype, ((mn_const_attr *)t->node->attr)->value);
  if (body->n_captured == body->cap_captured) {
    int cap = body->cap_captured ? 2 * body->cap_captured : 16;
    mn_tensor **a = mn_arena_alloc(body->arena, (size_t)cap * sizeof *a);
    mn_tensor **b = mn_arena_alloc(body->arena, (size_t)cap * sizeof *b);
    if (!a || !b) {
      mn_graph_fault(body, MN_ERR_MEMORY, "%s", mn_message());
      return NULL;
    }
    if (body->n_captured) {
      memcpy(a, body->captured, (size_t)body->n_captured * sizeof *a);
      memcpy(b, body->captured_as, (size_t)body->n_captured * sizeof *b);
    }
    body->captured = a;
    body->captured_as = b;
    body->cap_captured = cap;
  }
  if (!body->captured_at && (body->captured_at = mn_arena_alloc(body->arena, sizeof *body->captured_at)))
    *body->captured_at = (mn_table){.arena = body->arena};
  mn_tensor *in = mn_input(body, t->name, t->dtype, t->shape);
  if (!in) return NULL;
  if (!body->captured_at || mn_table_put(body->captured_at, t, body->n_captured) != MN_OK) {
    mn_graph_fault(body, MN_ERR_MEMORY, "%s", mn_message());
    return NULL;
  }
  body->captured[body->n_captured] = t;
  body->captured_as[body->n_captured++] = in;
  return in;
}

/* ---- leaves ---- */
const mn_op mn_op_input = {.name = "input", .cls = MN_OP_LEAF, .no_grad = true, .bound = true, .distinct = true};
const mn_op mn_op_variable = {.name = "variable", .cls = MN_OP_LEAF, .no_grad = true, .bound = true, .distinct = true};
bool mn_is_full(const mn_tensor *t, double *value) {
  const mn_node *n = t->node;
  while (n->op->cls == MN_OP_VIEW && n->op != &mn_op_stop_gradient) n = n->in[0]->node;
  if (!mn_is(n, MN_IS_CONST) || !((const mn_const_attr *)n->attr)->is_full) return false;
  *value = ((const mn_const_attr *)n->attr)->value;
  return true;
}

static const void *const_identity(const mn_node *n, size_t *bytes) { /* by value; arrays by where they lie, not number by number */
  const mn_const_attr *a = n->attr;
  *bytes = a->is_full ? sizeof a->value : sizeof *a;
  return a->is_full ? (const void *)&a->value : a;
}
const mn_op mn_op_const = {.name = "const",
                           .traits = MN_IS_CONST,
                           .cls = MN_OP_LEAF,
                           .attr_size = sizeof(mn_const_attr),
                           .no_grad = true,
                           .remake = MN_REMAKE_CHEAP,
                           .identity = const_identity};

mn_tensor *mn_input(mn_graph *g, const char *name, mn_dtype t, mn_shape s) {
  mn_tensor *x = mn_node1(g, &mn_op_input, 0, NULL, t, s, NULL);
  return name ? mn_named(x, name) : x;
}

mn_tensor *mn_variable(mn_graph *g, const char *name, mn_dtype t, mn_shape s) {
  return mn_named(mn_node1(g, &mn_op_variable, 0, NULL, t, s, NULL), name);
}

mn_tensor *mn_const(mn_graph *g, mn_dtype t, mn_shape s, const void *data) {
  if (!shape_is_valid(g, &mn_op_const, &s, t)) return NULL;
  size_t bytes = (size_t)mn_shape_count(&s) * mn_dtype_size(t);
  void *copy = mn_arena_alloc(g->arena, bytes);
  if (!copy) {
    mn_graph_fault(g, MN_ERR_MEMORY, "%s", mn_message());
    return NULL;
  }
  if (bytes) memcpy(copy, data, bytes);
  return mn_node1(g, &mn_op_const, 0, NULL, t, s, &(mn_const_attr){.data = copy});
}

static double store_scalar(void *p, mn_dtype t, double value) { /* the value as it is stored */
  switch (t) {
  case MN_F32:
    return *(float *)p = (float)value;
  case MN_F64:
    return *(double *)p = value;
  case MN_BF16:
    return mn_bf16_to_float(*(uint16_t *)p = mn_float_to_bf16((float)value));
  case MN_I32:
    return *(int32_t *)p = (int32_t)value;
  case MN_I64:
    return (double)(*(int64_t *)p = (int64_t)value);
  default:
    return *(uint8_t *)p = value != 0;
  }
}

mn_tensor *mn_scalar(mn_graph *g, mn_dtype t, double value) {
  void *data = mn_arena_alloc(g->arena, 8);
  if (!data) {
    mn_graph_fault(g, MN_ERR_MEMORY, "%s", mn_message());
    return NULL;
  }
  value = store_scalar(data, t, value);
  return mn_node1(g, &mn_op_const, 0, NULL, t, (mn_shape){0}, &(mn_const_attr){.data = data, .is_full = true, .value = value});
}

mn_tensor *mn_full(mn_graph *g, mn_dtype t, mn_shape s, double value) { return mn_expand(g, mn_scalar(g, t, value), s); }

mn_tensor *mn_zeros_like(mn_graph *g, mn_tensor *x) { return x ? mn_full(g, x->dtype, x->shape, 0) : NULL; }

/* ---- made from nothing ---- */
const mn_op mn_op_iota = {.name = "iota", .cls = MN_OP_CORE, .attr_size = sizeof(mn_iota_attr), .no_grad = true, .remake = MN_REMAKE_CHEAP};
const mn_op mn_op_random = {
    .name = "random", .traits = MN_IS_DRAWN, .cls = MN_OP_CORE, .attr_size = sizeof(mn_random_attr), .no_grad = true};

mn_tensor *mn_iota(mn_graph *g, mn_dtype t, mn_shape s, int axis) {
  if (axis < 0) axis += s.ndim;
  if (axis < 0 || axis >= s.ndim) {
    mn_graph_fault(g, MN_ERR_SHAPE, "iota: no axis %d", axis);
    return NULL;
  }
  return mn_node1(g, &mn_op_iota, 0, NULL, t, s, &(mn_iota_attr){axis});
}

static mn_tensor *random_op(mn_graph *g, mn_shape s, uint64_t key, mn_tensor *step, mn_tensor *tick, bool normal) {
  mn_tensor *in[2] = {step, tick};
  for (int i = 0; i < 2; i++)
    if (in[i] && (in[i]->dtype != MN_I64 || in[i]->shape.ndim != 0)) {
      mn_graph_fault(g, MN_ERR_SHAPE, "random: %s must be an i64 scalar", i ? "tick" : "step");
      return NULL;
    }
  return mn_node1(g, &mn_op_random, tick ? 2 : 1, in, MN_F32, s, &(mn_random_attr){.key = key, .normal = normal});
}
mn_tensor *mn_random_uniform_op(mn_graph *g, mn_shape s, uint64_t key, mn_tensor *step, mn_tensor *tick) {
  return random_op(g, s, key, step, tick, false);
}
mn_tensor *mn_random_normal_op(mn_graph *g, mn_shape s, uint64_t key, mn_tensor *step, mn_tensor *tick) {
  return random_op(g, s, key, step, tick, true);
}
