/* loop_choices.c - see loop.h: what in a loop's body depends on what, what of it leaves the loop, and what that is outside. */
#include "compile/loop.h"

typedef mn_loop loop;

enum { FEW_ROWS = 256 };                            /* a product of more rows is as fast alone */
static const int64_t MOST_BYTES = (int64_t)1 << 27; /* of stacks, for one loop */

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
    l->readers[mn_loop_at(l, b->roots[r])]++;
    if (r < l->a->n_carry) l->late[b->roots[r]->node->id] = false;
  }
  for (int i = l->n_nodes - 1; i >= 0; i--) {
    const mn_node *n = b->g->nodes[i];
    l->late[i] &= !l->fixed[i] && n->op->cls != MN_OP_LEAF && for_all_steps(l, n);
    for (int k = 0; k < n->n_in; k++) {
      l->readers[mn_loop_at(l, n->in[k])]++;
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

mn_tensor *mn_loop_copy_node(mn_graph *g, const mn_node *n, mn_tensor **in, const mn_shape *shape, mn_tensor **out) {
  const mn_const_attr *constant = mn_is(n, MN_IS_CONST) ? n->attr : NULL;
  if (constant && constant->is_full && n->out[0]->shape.ndim == 0) { /* a pass may have made it: its memory goes with it */
    mn_tensor *t = mn_scalar(g, n->out[0]->dtype, constant->value);
    return out ? *out = t : t;
  }
  enum { FEW = 16 };
  mn_dtype few_types[FEW], *types = n->n_out <= FEW ? few_types : mn_loop_room(g, (size_t)n->n_out, sizeof *types);
  mn_shape few_shapes[FEW], *shapes = n->n_out <= FEW ? few_shapes : mn_loop_room(g, (size_t)n->n_out, sizeof *shapes);
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
mn_tensor *mn_loop_fixed(loop *l, const mn_tensor *t) {
  mn_tensor **known = &l->outside[mn_loop_at(l, t)];
  const mn_node *n = t->node;
  if (*known) return *known;
  mn_tensor **in = mn_loop_room(l->g, (size_t)n->n_in, sizeof *in);
  for (int k = 0; in && k < n->n_in; k++)
    if (!(in[k] = mn_loop_fixed(l, n->in[k]))) return NULL;
  if (!in || (!mn_loop_copy_node(l->g, n, in, NULL, &l->outside[l->base[n->id]]) && l->g->status != MN_OK)) return NULL;
  return *known;
}

/* x of all steps [length, ...], of `ndim` axes besides the first: as broadcasting wants it. */
static mn_tensor *operand_of_all(loop *l, const mn_tensor *t, int ndim) {
  mn_shape s = {.ndim = ndim + 1}, one;
  mn_tensor *x = l->fixed[t->node->id] ? mn_loop_fixed(l, t) : mn_loop_all_steps(l, t);
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
  return n->op->steps->same >> k & 1 ? mn_loop_fixed(l, t) : operand_of_all(l, t, t->shape.ndim);
}

enum { MOST_OPERANDS = 4 };

/* Node n of all steps at once. */
static mn_tensor *node_of_all(loop *l, const mn_node *n) {
  const mn_shape *s = &n->out[0]->shape, all = of_all(l, s);
  mn_tensor *in[MOST_OPERANDS];
  const bool elementwise = n->op->cls == MN_OP_ELEMENTWISE;
  for (int k = 0; k < n->n_in; k++) in[k] = elementwise ? operand_of_all(l, n->in[k], s->ndim) : operand_for(l, n, k);
  return elementwise ? mn_loop_copy_node(l->g, n, in, &all, NULL) : n->op->steps->all(l->g, n, in, l->a->length);
}

/* Something that varies, of all steps: a slice's operand, what the loop stacks, or made of such. */
mn_tensor *mn_loop_all_steps(loop *l, const mn_tensor *t) {
  mn_tensor **known = &l->outside[mn_loop_at(l, t)];
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
    if (!l->early[i] || n->op->cls == MN_OP_LEAF || mn_is_view(n)) continue;
    bool chosen = few_rows(n), sum = n->op->cls == MN_OP_ELEMENTWISE && (n->op->code == MN_EW_ADD || n->op->code == MN_EW_CAST);
    for (int k = 0; k < n->n_in && sum; k++) chosen |= l->before[n->in[k]->node->id] && l->readers[mn_loop_at(l, n->in[k])] == 1;
    l->before[i] = chosen && take_bytes(l, mn_loop_bytes(n->out[0]));
  }
}

/* ---- choosing: after the loop ---- */
/* What must be stacked so that t can be made of all steps. */
static bool stack_for(loop *l, const mn_tensor *t) {
  const mn_node *n = t->node;
  if (l->fixed[n->id] || l->early[n->id] || l->stack[mn_loop_at(l, t)] >= 0) return true;
  if (l->late[n->id]) {
    for (int k = 0; k < n->n_in; k++)
      if (!stack_for(l, n->in[k])) return false;
    return true;
  }
  if (t->shape.ndim + 1 > MN_MAX_DIMS || !take_bytes(l, mn_loop_bytes(t))) return false;
  l->stack[mn_loop_at(l, t)] = l->n_stacked;
  l->stacked[l->n_stacked++] = (mn_tensor *)t;
  return true;
}

static void unstack(loop *l, int n, int64_t bytes) {
  while (l->n_stacked > n) l->stack[mn_loop_at(l, l->stacked[--l->n_stacked])] = -1;
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
static bool is_moved(const mn_tensor *t) { return mn_is_view(t->node) && t->node->op->steps && t->node->op->steps->of; }

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
  if (!is_sum(t->node) || (n > 0 && l->readers[mn_loop_at(l, t)] != 1)) {
    terms[n] = t;
    return n + 1;
  }
  for (int k = 0; k < 2; k++) {
    const mn_tensor *x = t->node->in[k];
    if (is_sum(x->node) && l->readers[mn_loop_at(l, x)] == 1) n = terms_of(l, x, terms, n, most);
    else if (n < 0 || n == most) return -1;
    else terms[n++] = x;
  }
  return n;
}

/* Carry i is a sum over the steps and nothing else: its new value is itself plus terms. */
int mn_loop_sum_over_steps(const loop *l, int i, const mn_tensor **terms) {
  const mn_tensor *next = l->body.roots[i];
  int n, self = -1;
  if (l->a->save_every || !is_sum(next->node) || l->readers[mn_loop_at(l, next)] != 1) return 0;
  n = terms_of(l, next, terms, 0, MN_LOOP_TERMS);
  for (int k = 0; k < n; k++)
    if (l->operand[terms[k]->node->id] == i) self = self < 0 ? k : MN_LOOP_TERMS;
  if (n < 2 || self < 0 || self == MN_LOOP_TERMS || l->readers[mn_loop_at(l, terms[self])] != 1) return 0;
  terms[self] = terms[--n];
  bool product = false;
  for (int k = 0; k < n; k++) {
    if (!is_summable(terms[k])) return 0;
    product |= has_product(terms[k]);
  }
  return product ? n : 0;
}

static void choose_after(loop *l) {
  const mn_tensor *terms[MN_LOOP_TERMS];
  for (int r = 0; r < l->body.n_roots; r++) {
    const int before = l->n_stacked;
    const int64_t bytes = l->bytes;
    bool ok;
    if (r < l->a->n_carry) {
      const int n = mn_loop_sum_over_steps(l, r, terms);
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
mn_tensor *mn_loop_total(loop *l, const mn_tensor *t, mn_dtype type) {
  const mn_node *n = t->node;
  mn_tensor *in[MOST_OPERANDS];
  if (sums(n)) {
    for (int k = 0; k < n->n_in; k++) in[k] = operand_of_all(l, n->in[k], n->in[k]->shape.ndim);
    return n->op->steps->total(l->g, n, in, type);
  }
  mn_tensor *x = mn_loop_total(l, n->in[0], type);
  return is_cast(n) ? x : n->op->steps->of(l->g, n, x);
}

void mn_loop_choose(loop *l) {
  look_forward(l);
  look_back(l);
  choose_before(l);
  choose_after(l);
}
