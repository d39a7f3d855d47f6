/* pass_loops.c - what a loop does at every step and need not. In the body of each loop
 *   - what depends on constants alone leaves it: casts of weights, masks, products of weights;
 *   - a product of few rows that depends on the slices alone is made of all slices at once, before the loop;
 *   - a product whose result no later step reads, such as the gradient of the slices, is made of all steps at once, after it;
 *   - a sum over the steps of products a_t d_t, such as the gradient of a weight, is one product of the stacked a and d after it.
 * What an operation is for all steps at once it says itself (mn_over_steps).
 * Stacks take memory: MOST_BYTES a loop at most, beyond which things stay as they are. A gradient of a long loop runs in
 * segments, each a loop, and then this holds for a segment. Loops of one step, and with a live length, are left alone: there
 * what is not live must cost nothing. Inner loops come first, so that what is constant in all leaves all. */
#include "base/table.h"
#include "compile/draft.h"
#include "graph/compose.h"

#include <stdlib.h>
#include <string.h>

enum { FEW_ROWS = 256 };                            /* a product of more rows is as fast alone */
static const int64_t MOST_BYTES = (int64_t)1 << 27; /* of stacks, for one loop */

typedef struct loop {
  mn_graph *g;           /* the loop's new surroundings */
  const mn_scan_attr *a; /* as it was                   */
  mn_tensor **in;        /* its operands, in g          */
  mn_draft body;         /* cleaned; roots: the new carries, then the ys */
  int n_nodes, n_tensors;
  int *base;           /* flat number of each node's first result    */
  int *operand;        /* per node: which operand of the loop it is, -1 none */
  int *readers;        /* per tensor: nodes and roots                */
  bool *fixed;         /* per node: depends on constants alone       */
  bool *early;         /* per node: on slices and constants, and can be made of all steps at once */
  bool *late;          /* per node: no later step reads it, and it can be made of all steps at once */
  bool *before;        /* per node: is made before the loop          */
  mn_tensor **outside; /* per tensor: its value in g; of what varies: of all steps, [length, ...] */
  int *stack;          /* per tensor: its number among the stacked, -1 none */
  int n_stacked;
  mn_tensor **stacked; /* of the body */
  bool *gone;          /* per root: made after the loop */
  int64_t bytes;       /* of stacks so far */
} loop;

static int64_t bytes_of(const mn_tensor *t) { return (int64_t)mn_shape_bytes(&t->shape, t->dtype); }
static int at(const loop *l, const mn_tensor *t) { return l->base[t->node->id] + t->out; }
static bool is_view(const mn_node *n) { return n->op->cls == MN_OP_VIEW; }

/* ---- what each node depends on, and who depends on it ---- */
static int64_t rows_of(const mn_node *product) {
  const mn_shape *s = &product->out[0]->shape;
  const int64_t columns = s->dim[s->ndim - 1];
  return columns ? mn_shape_count(s) / columns : 0;
}

/* Has it a meaning for all steps at once, if its operands have? */
static bool for_all_steps(const loop *l, const mn_node *n) {
  if (n->n_out != 1 || n->op->effect || n->out[0]->shape.ndim + 1 > MN_MAX_DIMS) return false;
  for (int k = 0; k < n->n_in; k++)
    if (n->in[k]->shape.ndim + 1 > MN_MAX_DIMS) return false;
  const mn_over_steps *steps = n->op->steps;
  for (int k = 0; steps && k < n->n_in; k++)
    if (steps->same >> k & 1 && !l->fixed[n->in[k]->node->id]) return false;
  return n->op->cls == MN_OP_ELEMENTWISE || (steps && steps->all);
}

static void look_forward(loop *l) {
  for (int i = 0; i < l->n_nodes; i++) {
    const mn_node *n = l->body.g->nodes[i];
    const int operand = l->operand[i], slices = l->a->n_carry;
    if (n->op->cls == MN_OP_LEAF) {
      l->fixed[i] = operand < 0 || operand >= slices + l->a->n_xs;
      l->early[i] = operand >= slices && operand < slices + l->a->n_xs;
      continue;
    }
    bool fixed = !mn_node_has_effect(n), early = true;
    for (int k = 0; k < n->n_in; k++) {
      const int p = n->in[k]->node->id;
      fixed &= l->fixed[p];
      early &= l->fixed[p] || l->early[p];
    }
    l->fixed[i] = fixed;
    l->early[i] = early && !fixed && for_all_steps(l, n);
  }
}

static void look_back(loop *l) {
  const mn_draft *b = &l->body;
  for (int i = 0; i < l->n_nodes; i++) l->late[i] = true;
  for (int r = 0; r < b->n_roots; r++) {
    l->readers[at(l, b->roots[r])]++;
    if (r < l->a->n_carry) l->late[b->roots[r]->node->id] = false;
  }
  for (int i = l->n_nodes - 1; i >= 0; i--) {
    const mn_node *n = b->g->nodes[i];
    l->late[i] &= !l->fixed[i] && n->op->cls != MN_OP_LEAF && for_all_steps(l, n);
    for (int k = 0; k < n->n_in; k++) {
      l->readers[at(l, n->in[k])]++;
      l->late[n->in[k]->node->id] &= l->late[i];
    }
  }
}

/* ---- values outside ---- */
static mn_shape of_all(const loop *l, const mn_shape *s) {
  mn_shape all = {.ndim = s->ndim + 1, .dim = {l->a->length}};
  for (int i = 0; i < s->ndim; i++) all.dim[i + 1] = s->dim[i];
  return all;
}

/* In the graph's arena; a lack of memory is the graph's fault, so that nobody takes what was not made for something left out. */
static void *some(mn_graph *g, size_t n, size_t size) {
  void *p = mn_arena_alloc(g->arena, (n + 1) * size);
  if (!p) mn_graph_fault(g, MN_ERR_MEMORY, "%s", mn_message());
  return p;
}

static mn_tensor *copy_node(mn_graph *g, const mn_node *n, mn_tensor **in, const mn_shape *shape, mn_tensor **out) {
  const mn_const_attr *constant = n->op == &mn_op_const ? n->attr : NULL;
  if (constant && constant->is_full && n->out[0]->shape.ndim == 0) { /* a pass may have made it: its memory goes with it */
    mn_tensor *t = mn_scalar(g, n->out[0]->dtype, constant->value);
    return out ? *out = t : t;
  }
  enum { FEW = 16 };
  mn_dtype few_types[FEW], *types = n->n_out <= FEW ? few_types : some(g, (size_t)n->n_out, sizeof *types);
  mn_shape few_shapes[FEW], *shapes = n->n_out <= FEW ? few_shapes : some(g, (size_t)n->n_out, sizeof *shapes);
  for (int j = 0; types && shapes && j < n->n_out; j++) {
    types[j] = n->out[j]->dtype;
    shapes[j] = shape ? *shape : n->out[j]->shape;
  }
  mn_node *copy = types && shapes ? mn_node_new(g, n->op, n->n_in, in, n->n_out, types, shapes, n->attr) : NULL;
  if (!copy) return NULL;
  copy->mute = n->mute;
  for (int j = 0; j < n->n_out; j++) {
    copy->out[j]->name = n->out[j]->name;
    if (out) out[j] = copy->out[j];
  }
  return copy->n_out ? copy->out[0] : NULL;
}

/* Something that depends on constants alone, as it is. */
static mn_tensor *fixed_outside(loop *l, const mn_tensor *t) {
  mn_tensor **known = &l->outside[at(l, t)];
  const mn_node *n = t->node;
  if (*known) return *known;
  mn_tensor **in = some(l->g, (size_t)n->n_in, sizeof *in);
  for (int k = 0; in && k < n->n_in; k++)
    if (!(in[k] = fixed_outside(l, n->in[k]))) return NULL;
  if (!in || (!copy_node(l->g, n, in, NULL, &l->outside[l->base[n->id]]) && l->g->status != MN_OK)) return NULL;
  return *known;
}

static mn_tensor *all_steps(loop *l, const mn_tensor *t);

/* x of all steps [length, ...], of `ndim` axes besides the first: as broadcasting wants it. */
static mn_tensor *operand_of_all(loop *l, const mn_tensor *t, int ndim) {
  mn_shape s = {.ndim = ndim + 1}, one;
  mn_tensor *x = l->fixed[t->node->id] ? fixed_outside(l, t) : all_steps(l, t);
  const int missing = ndim - t->shape.ndim;
  s.dim[0] = l->fixed[t->node->id] ? 1 : l->a->length;
  for (int i = 0; i < ndim; i++) s.dim[i + 1] = i < missing ? 1 : t->shape.dim[i - missing];
  one = s;
  one.dim[0] = l->a->length;
  return mn_expand(l->g, mn_reshape(l->g, x, s), one);
}

/* An operand of all steps, or as it is where it must be the same in each. */
static mn_tensor *operand_for(loop *l, const mn_node *n, int k) {
  const mn_tensor *t = n->in[k];
  return n->op->steps->same >> k & 1 ? fixed_outside(l, t) : operand_of_all(l, t, t->shape.ndim);
}

enum { MOST_OPERANDS = 4 };

/* Node n of all steps at once. */
static mn_tensor *node_of_all(loop *l, const mn_node *n) {
  const mn_shape *s = &n->out[0]->shape, all = of_all(l, s);
  mn_tensor *in[MOST_OPERANDS];
  const bool elementwise = n->op->cls == MN_OP_ELEMENTWISE;
  for (int k = 0; k < n->n_in; k++) in[k] = elementwise ? operand_of_all(l, n->in[k], s->ndim) : operand_for(l, n, k);
  return elementwise ? copy_node(l->g, n, in, &all, NULL) : n->op->steps->all(l->g, n, in, l->a->length);
}

/* Something that varies, of all steps: a slice's operand, what the loop stacks, or made of such. */
static mn_tensor *all_steps(loop *l, const mn_tensor *t) {
  mn_tensor **known = &l->outside[at(l, t)];
  if (!*known) *known = node_of_all(l, t->node);
  return *known;
}

/* ---- choosing: before the loop ---- */
static bool few_rows(const mn_node *n) { return n->op->steps && n->op->steps->product && rows_of(n) < FEW_ROWS; }

static bool take_bytes(loop *l, int64_t bytes) {
  if (bytes > (MOST_BYTES - l->bytes) / l->a->length) return false;
  l->bytes += bytes * l->a->length;
  return true;
}

/* Products of slices; and sums and casts of such, so that one stack is made of several. */
static void choose_before(loop *l) {
  for (int i = 0; i < l->n_nodes; i++) {
    const mn_node *n = l->body.g->nodes[i];
    if (!l->early[i] || n->op->cls == MN_OP_LEAF || is_view(n)) continue;
    bool chosen = few_rows(n), sum = n->op->cls == MN_OP_ELEMENTWISE && (n->op->code == MN_EW_ADD || n->op->code == MN_EW_CAST);
    for (int k = 0; k < n->n_in && sum; k++) chosen |= l->before[n->in[k]->node->id] && l->readers[at(l, n->in[k])] == 1;
    l->before[i] = chosen && take_bytes(l, bytes_of(n->out[0]));
  }
}

/* ---- choosing: after the loop ---- */
/* What must be stacked so that t can be made of all steps. */
static bool stack_for(loop *l, const mn_tensor *t) {
  const mn_node *n = t->node;
  if (l->fixed[n->id] || l->early[n->id] || l->stack[at(l, t)] >= 0) return true;
  if (l->late[n->id]) {
    for (int k = 0; k < n->n_in; k++)
      if (!stack_for(l, n->in[k])) return false;
    return true;
  }
  if (t->shape.ndim + 1 > MN_MAX_DIMS || !take_bytes(l, bytes_of(t))) return false;
  l->stack[at(l, t)] = l->n_stacked;
  l->stacked[l->n_stacked++] = (mn_tensor *)t;
  return true;
}

static void unstack(loop *l, int n, int64_t bytes) {
  while (l->n_stacked > n) l->stack[at(l, l->stacked[--l->n_stacked])] = -1;
  l->bytes = bytes;
}

static bool makes_products_late(const loop *l, const mn_tensor *t) {
  const mn_node *n = t->node;
  if (!l->late[n->id]) return false;
  if (few_rows(n)) return true;
  for (int k = 0; k < n->n_in; k++)
    if (makes_products_late(l, n->in[k])) return true;
  return false;
}

/* Products take their operands in any order of axes, so a view that only moves what it shows is looked through: what lies below is
 * stacked, and the view is made of the stack. */
static bool is_moved(const mn_tensor *t) { return is_view(t->node) && t->node->op->steps && t->node->op->steps->of; }

static bool stack_below(loop *l, const mn_tensor *t) {
  while (is_moved(t) && mn_ndim(t) == mn_ndim(t->node->in[0]) && for_all_steps(l, t->node)) t = t->node->in[0];
  return stack_for(l, t);
}

/* Sums over the steps of what an operation gives: it has one of its own, or lets one of its operand through. A cast does too. */
static bool sums(const mn_node *n) {
  const int64_t depth = n->op->steps && n->op->steps->total ? n->op->steps->depth(n) : 0;
  return depth > 0 && (!n->op->steps->product || depth < FEW_ROWS);
}
static bool is_cast(const mn_node *n) { return n->op->cls == MN_OP_ELEMENTWISE && n->op->code == MN_EW_CAST; }
static bool lets_through(const mn_node *n) {
  return n->n_in == 1 && mn_dtype_is_float(n->in[0]->dtype) && (is_cast(n) || is_moved(n->out[0]));
}

/* A term of what a carry sums up over the steps: products, what views and casts make of one, column sums. */
static bool is_summable(const mn_tensor *t) { return sums(t->node) || (lets_through(t->node) && is_summable(t->node->in[0])); }

static bool is_sum(const mn_node *n) { return n->op->cls == MN_OP_ELEMENTWISE && n->op->code == MN_EW_ADD; }

static bool stack_for_term(loop *l, const mn_tensor *t) {
  const mn_node *n = t->node;
  if (!sums(n)) return stack_for_term(l, n->in[0]);
  for (int k = 0; k < n->n_in; k++)
    if (!(n->op->steps->product ? stack_below : stack_for)(l, n->in[k])) return false;
  return true;
}

static bool has_product(const mn_tensor *t) {
  const mn_node *n = t->node;
  return sums(n) ? n->op->steps->product : has_product(n->in[0]);
}

/* The terms of the tree of sums at t that is read by nobody else. */
static int terms_of(const loop *l, const mn_tensor *t, const mn_tensor **terms, int n, int most) {
  if (n < 0 || n == most) return -1;
  if (!is_sum(t->node) || (n > 0 && l->readers[at(l, t)] != 1)) {
    terms[n] = t;
    return n + 1;
  }
  for (int k = 0; k < 2; k++) {
    const mn_tensor *x = t->node->in[k];
    if (is_sum(x->node) && l->readers[at(l, x)] == 1) n = terms_of(l, x, terms, n, most);
    else if (n < 0 || n == most) return -1;
    else terms[n++] = x;
  }
  return n;
}

enum { MOST_TERMS = 16 };

/* Carry i is a sum over the steps and nothing else: its new value is itself plus terms. */
static int sum_over_steps(const loop *l, int i, const mn_tensor **terms) {
  const mn_tensor *next = l->body.roots[i];
  int n, self = -1;
  if (l->a->save_every || !is_sum(next->node) || l->readers[at(l, next)] != 1) return 0;
  n = terms_of(l, next, terms, 0, MOST_TERMS);
  for (int k = 0; k < n; k++)
    if (l->operand[terms[k]->node->id] == i) self = self < 0 ? k : MOST_TERMS;
  if (n < 2 || self < 0 || self == MOST_TERMS || l->readers[at(l, terms[self])] != 1) return 0;
  terms[self] = terms[--n];
  bool product = false;
  for (int k = 0; k < n; k++) {
    if (!is_summable(terms[k])) return 0;
    product |= has_product(terms[k]);
  }
  return product ? n : 0;
}

static void choose_after(loop *l) {
  const mn_tensor *terms[MOST_TERMS];
  for (int r = 0; r < l->body.n_roots; r++) {
    const int before = l->n_stacked;
    const int64_t bytes = l->bytes;
    bool ok;
    if (r < l->a->n_carry) {
      const int n = sum_over_steps(l, r, terms);
      ok = n > 0;
      for (int k = 0; k < n && ok; k++) ok = stack_for_term(l, terms[k]);
    } else {
      ok = makes_products_late(l, l->body.roots[r]) && stack_for(l, l->body.roots[r]);
    }
    l->gone[r] = ok;
    if (!ok) unstack(l, before, bytes);
  }
}

/* The sum over all steps of a term. A cast is left out: the sum is rounded once, in the end. */
static mn_tensor *total(loop *l, const mn_tensor *t, mn_dtype type) {
  const mn_node *n = t->node;
  mn_tensor *in[MOST_OPERANDS];
  if (sums(n)) {
    for (int k = 0; k < n->n_in; k++) in[k] = operand_of_all(l, n->in[k], n->in[k]->shape.ndim);
    return n->op->steps->total(l->g, n, in, type);
  }
  mn_tensor *x = total(l, n->in[0], type);
  return is_cast(n) ? x : n->op->steps->of(l->g, n, x);
}

/* ---- the new loop ---- */
typedef struct rebuilt_body {
  mn_scan_builder *b;
  mn_graph *g;
  mn_tensor **now; /* per tensor of the old body */
  int n_carry, n_xs;
  mn_tensor **carry, **carry_in, **xs, **xs_in;
} rebuilt_body;

/* Worth passing in: what is made of much smaller things by arithmetic alone is made where it is read. */
static bool worth_passing(const mn_node *n) {
  if (n->op->cls == MN_OP_LEAF || is_view(n)) return false;
  if (n->op->cls != MN_OP_ELEMENTWISE) return true;
  int64_t from = 0;
  for (int k = 0; k < n->n_in; k++) {
    const mn_tensor *t = n->in[k];
    while (is_view(t->node)) t = t->node->in[0];
    from += bytes_of(t);
  }
  return bytes_of(n->out[0]) <= 4 * from;
}

/* Which nodes the new body has. What is made outside is not looked into. */
static void mark_body(const loop *l, bool *needed) {
  for (int r = 0; r < l->body.n_roots; r++)
    if (!l->gone[r]) needed[l->body.roots[r]->node->id] = true;
  for (int k = 0; k < l->n_stacked; k++) needed[l->stacked[k]->node->id] = true;
  for (int i = l->n_nodes - 1; i >= 0; i--) {
    const mn_node *n = l->body.g->nodes[i];
    needed[i] |= mn_node_has_effect(n);
    if (!needed[i] || l->before[i] || (l->fixed[i] && worth_passing(n))) continue;
    for (int k = 0; k < n->n_in; k++) needed[n->in[k]->node->id] = true;
  }
}

/* Carries and slices of the new loop. */
static void open_loop(loop *l, rebuilt_body *r, const bool *needed, bool *is_slice) {
  for (int i = 0; i < l->a->n_carry; i++)
    if (!l->gone[i]) r->carry[r->n_carry++] = l->in[i];
  for (int i = 0; i < l->n_nodes && l->g->status == MN_OK; i++) {
    const mn_node *n = l->body.g->nodes[i];
    const bool slice = l->operand[i] >= l->a->n_carry && l->operand[i] < l->a->n_carry + l->a->n_xs;
    if (!needed[i] || (!slice && !l->before[i])) continue;
    is_slice[i] = true;
    r->xs[r->n_xs++] = all_steps(l, n->out[0]);
  }
  r->b = mn_scan_begin(l->g, l->a->length, l->a->reverse ? MN_BACKWARD : MN_FORWARD, r->n_carry, r->carry, r->n_xs, r->xs, r->carry_in,
                       r->xs_in);
  r->g = mn_scan_body(r->b);
  for (int i = 0, k = 0; i < l->n_nodes; i++)
    if (is_slice[i]) r->now[l->base[i]] = r->xs_in[k++];
}

static void fill_body(loop *l, rebuilt_body *r, const bool *needed, const bool *is_slice) {
  const int *kept = l->operand;
  for (int i = 0; i < l->n_nodes && r->g->status == MN_OK; i++) {
    const mn_node *n = l->body.g->nodes[i];
    if (!needed[i] || is_slice[i]) continue;
    if (kept[i] >= 0 && kept[i] < l->a->n_carry) {
      int k = 0;
      for (int c = 0; c < kept[i]; c++) k += !l->gone[c];
      r->now[l->base[i]] = r->carry_in[k];
    } else if (l->fixed[i] && (kept[i] >= 0 || worth_passing(n))) {
      for (int j = 0; j < n->n_out; j++)
        if (l->readers[l->base[i] + j]) r->now[l->base[i] + j] = mn_capture(r->g, fixed_outside(l, n->out[j]));
    } else {
      mn_tensor **in = some(r->g, (size_t)n->n_in, sizeof *in);
      for (int k = 0; in && k < n->n_in; k++) in[k] = r->now[at(l, n->in[k])];
      if (!in) return;
      r->g->phase = n->phase;
      copy_node(r->g, n, in, NULL, &r->now[l->base[i]]);
      r->g->phase = 0;
    }
  }
}

/* What was made after the loop, from what it stacked. */
static void finish(loop *l, mn_tensor **result) {
  const mn_tensor *terms[MOST_TERMS];
  for (int r = 0; r < l->body.n_roots && l->g->status == MN_OK; r++) {
    if (!l->gone[r]) continue;
    if (r >= l->a->n_carry) {
      result[r] = all_steps(l, l->body.roots[r]);
      continue;
    }
    mn_tensor *sum = l->in[r];
    for (int k = 0, n = sum_over_steps(l, r, terms); k < n; k++) {
      mn_tensor *t = total(l, terms[k], sum->dtype);
      sum = mn_add(l->g, sum, t ? mn_cast(l->g, t, sum->dtype) : NULL);
    }
    result[r] = sum;
  }
}

static void new_loop(loop *l, mn_tensor **result) {
  const size_t n = (size_t)(l->n_nodes + 1), t = (size_t)(l->n_tensors + l->body.n_roots + 1);
  bool *needed = mn_calloc(n, 1), *is_slice = mn_calloc(n, 1);
  mn_tensor **space = mn_calloc(9 * t, sizeof *space);
  if (needed && is_slice && space) {
    rebuilt_body r = {.now = space, .carry = space + t, .carry_in = space + 2 * t, .xs = space + 3 * t, .xs_in = space + 4 * t};
    mn_tensor **outs = space + 5 * t, **ys = space + 6 * t, ** final = space + 7 * t, **stacked = space + 8 * t;
    mark_body(l, needed);
    open_loop(l, &r, needed, is_slice);
    if (r.g) fill_body(l, &r, needed, is_slice);
    int n_out = 0, n_y = 0, own;
    for (int i = 0; i < l->body.n_roots; i++) {
      if (l->gone[i]) continue;
      mn_tensor *y = r.now[at(l, l->body.roots[i])];
      if (i < l->a->n_carry) outs[n_out++] = y;
      else ys[n_y++] = y;
    }
    own = n_y;
    for (int k = 0; k < l->n_stacked; k++) ys[n_y++] = r.now[at(l, l->stacked[k])];
    mn_node *node = mn_scan_end_settled(r.b, outs, n_y, ys, l->a->save_every, final, stacked);
    n_out = n_y = 0;
    for (int i = 0; i < l->body.n_roots; i++)
      if (!l->gone[i]) result[i] = i < l->a->n_carry ? final[n_out++] : stacked[n_y++];
    for (int k = 0; k < l->n_stacked; k++) l->outside[at(l, l->stacked[k])] = stacked[own + k];
    for (int i = 0; node && l->a->save_every && i < l->a->n_carry; i++)
      result[l->body.n_roots + i] = node->out[node->n_out - l->a->n_carry + i];
    if (node) finish(l, result);
  } else {
    mn_graph_fault(l->g, MN_ERR_MEMORY, "%s", mn_message());
  }
  free(needed);
  free(is_slice);
  free(space);
}

/* ---- the pass ---- */
/* The body without what the compiler would drop anyway, its own loops done. Loops inside it keep something of the graph that they were
 * taken into; without any, that graph is needed for this one loop. */
static mn_status clean_body(const mn_plan_request *q, mn_arena *keep, mn_arena *taken, mn_arena **scratch, loop *l, int *moved) {
  const mn_scan_attr *a = l->a;
  bool inner = false;
  for (int i = 0; i < a->body->n_nodes && !inner; i++) inner = a->body->nodes[i]->op == &mn_op_scan;
  mn_plan_request body = *q;
  body.graph = a->body;
  body.n_outputs = a->n_carry + a->n_ys;
  body.outputs = a->body_out;
  body.n_assigns = 0;
  int operations;
  MN_TRY(mn_draft_take(&body, inner ? keep : taken, &l->body, &operations));
  MN_TRY(mn_pass_lower(q->backend, keep, &l->body));
  if (!(q->passes_off & MN_PASS_SIMPLIFY)) MN_TRY(mn_pass_simplify(scratch, &l->body));
  return mn_pass_loops(q, keep, &l->body, moved);
}

static mn_status loop_init(loop *l) {
  const mn_scan_attr *a = l->a;
  const int n = l->n_nodes = l->body.g->n_nodes, n_in = a->n_carry + a->n_xs + a->n_const;
  mn_arena *arena = l->g->arena;
  l->base = mn_arena_alloc(arena, (size_t)(n + 1) * sizeof *l->base);
  l->operand = mn_arena_alloc(arena, (size_t)(n + 1) * sizeof *l->operand);
  bool *flags = mn_arena_alloc(arena, 4 * (size_t)(n + 1));
  if (!l->base || !l->operand || !flags) return MN_ERR_MEMORY;
  l->fixed = flags, l->early = flags + n + 1, l->late = l->early + n + 1, l->before = l->late + n + 1;
  for (int i = 0; i < n; i++) {
    l->base[i] = l->n_tensors;
    l->operand[i] = -1;
    l->n_tensors += l->body.g->nodes[i]->n_out;
  }
  const size_t tensors = (size_t)l->n_tensors + 1;
  l->readers = mn_arena_alloc(arena, tensors * sizeof *l->readers);
  l->outside = mn_arena_alloc(arena, tensors * sizeof *l->outside);
  l->stack = mn_arena_alloc(arena, tensors * sizeof *l->stack);
  l->stacked = mn_arena_alloc(arena, tensors * sizeof *l->stacked);
  l->gone = mn_arena_alloc(arena, (size_t)l->body.n_roots + 1);
  if (!l->readers || !l->outside || !l->stack || !l->stacked || !l->gone) return MN_ERR_MEMORY;
  for (int t = 0; t < l->n_tensors; t++) l->stack[t] = -1;
  mn_table number = {.arena = arena};
  for (int i = 0; i < n_in; i++) MN_TRY(mn_table_put(&number, a->body_in[i], i));
  for (int k = 0; k < l->body.n_leaves; k++) {
    const mn_tensor *leaf = l->body.leaves[k];
    const int i = mn_table_find(&number, l->body.given[k], -1);
    if (!leaf || i < 0) continue;
    l->operand[leaf->node->id] = i;
    if (i >= a->n_carry) l->outside[at(l, leaf)] = l->in[i];
  }
  return MN_OK;
}

static int count_moved(const loop *l) {
  int n = 0;
  for (int i = 0; i < l->n_nodes; i++) n += l->before[i] || (l->fixed[i] && worth_passing(l->body.g->nodes[i]));
  for (int r = 0; r < l->body.n_roots; r++) n += l->gone[r];
  return n;
}

static mn_status rebuild_loop(const mn_plan_request *q, mn_arena *keep, mn_rebuild *r, const mn_node *n, int *moved) {
  mn_graph *g = r->now->g;
  loop l = {.g = g, .a = n->attr};
  mn_arena *scratch = NULL, *taken = mn_arena_new();
  l.in = mn_arena_alloc(keep, (size_t)(n->n_in + 1) * sizeof *l.in);
  mn_tensor **result = mn_arena_alloc(keep, (size_t)(n->n_out + 1) * sizeof *result);
  mn_status status = l.in && result && taken ? clean_body(q, keep, taken, &scratch, &l, moved) : MN_ERR_MEMORY;
  for (int k = 0; k < n->n_in && l.in; k++) l.in[k] = *mn_rebuilt(r, n->in[k]);
  if (status == MN_OK) status = loop_init(&l);
  if (status == MN_OK) {
    look_forward(&l);
    look_back(&l);
    choose_before(&l);
    choose_after(&l);
    g->phase = n->phase;
    new_loop(&l, result);
    g->phase = 0;
    *moved += count_moved(&l);
    for (int j = 0; j < n->n_out; j++) *mn_rebuilt(r, n->out[j]) = result[j];
    status = mn_graph_status(g);
  }
  mn_arena_free(scratch);
  mn_arena_free(taken);
  return status;
}

static bool to_do(const mn_node *n) {
  const mn_scan_attr *a = n->op == &mn_op_scan ? n->attr : NULL;
  return a && !a->settled && !a->has_live && a->length > 1 && !n->mute;
}

mn_status mn_pass_loops(const mn_plan_request *q, mn_arena *keep, mn_draft *p, int *moved) {
  mn_rebuild r;
  mn_draft now;
  bool any = false;
  for (int i = 0; i < p->g->n_nodes && !any; i++) any = to_do(p->g->nodes[i]);
  if (!any) return MN_OK;
  mn_status status = mn_rebuild_begin(&r, p, &now, keep);
  for (int i = 0; i < p->g->n_nodes && status == MN_OK && now.g->status == MN_OK; i++) {
    const mn_node *n = p->g->nodes[i];
    if (!r.needed[i] && !n->op->bound) continue;
    if (to_do(n)) status = rebuild_loop(q, keep, &r, n, moved);
    else mn_rebuild_copy(&r, n);
  }
  status = mn_rebuild_end(&r, status);
  if (status == MN_OK) *p = now;
  return status;
}
