/* pass_recompute.c - the activation policy. A value of the forward pass that a later phase reads must be kept, unless it
 * is cheap and can be made again from values that are kept anyway (or are leaves): then the later phase gets its own copy
 * of the cheap nodes and the forward value dies early. */
#include "compile/draft.h"
#include "graph/compose.h"

#include <stdlib.h>

enum { DEPTH = MN_MADE_AGAIN };

static size_t bytes_of(const mn_tensor *t) { return mn_shape_bytes(&t->shape, t->dtype); }

/* Element-wise, and yet dearer than reading its result back: an exponential and a logarithm; and, where the result stays in a near cache as
 * in a step of a loop, one alone. In bf16 what is kept would be rounded, and what is made again in a chain is not. */
static bool is_dear(const mn_node *n) {
  enum { NEAR = 256 << 10 };
  if (n->op->cls != MN_OP_ELEMENTWISE) return false;
  if (n->op->code == MN_EW_SOFTPLUS) return true;
  const int code = n->op->code;
  return (code == MN_EW_ERF || code == MN_EW_EXP || code == MN_EW_NORMAL_CDF || code == MN_EW_NORMAL_PDF) && n->out[0]->dtype != MN_BF16 &&
         bytes_of(n->out[0]) <= NEAR;
}

static bool is_cheap(const mn_node *n, mn_activation_policy policy) {
  if (n->op->effect || is_dear(n)) return false;
  if (n->op->cls == MN_OP_ELEMENTWISE || n->op->cls == MN_OP_VIEW) return true;
  return n->op->remake == MN_REMAKE_CHEAP || (policy == MN_RECOMPUTE_NORMS && n->op->remake == MN_REMAKE_NORM);
}

/* The node whose memory a view shows. */
static mn_node *owner(mn_node *n) {
  while (n->op->cls == MN_OP_VIEW) n = n->in[0]->node;
  return n;
}

typedef struct recompute {
  mn_rebuild r;
  mn_activation_policy policy;
  bool *kept;      /* per node: read by a later phase and not made again */
  bool *later;     /* per node: read by a later phase */
  uint8_t *chain;  /* per node: so many sums are made again, one from the other, to make it */
  int *again;      /* per node: whether it can be made again: yes is 2 round, no is 2 round + 1; of another round: unknown */
  int round;       /* answers hold until another value is kept */
  mn_tensor **own; /* per tensor: its copy for the sum that is being made again, if made for it ... */
  int *own_sum;    /* ... which is the one of this number */
  int sums;
  int count;
} recompute;

static bool known(const recompute *c, const mn_node *n) { return c->again[n->id] >> 1 == c->round; }
static bool made_again(const recompute *c, const mn_node *n) { return c->again[n->id] == 2 * c->round; }

/* Can node n be made again from kept values and leaves? */
static bool makeable(recompute *c, const mn_node *n, int depth) {
  if (n->op->cls == MN_OP_LEAF || c->kept[n->id]) return true;
  if (depth == 0 || !is_cheap(n, c->policy)) return false;
  if (known(c, n)) return made_again(c, n);
  bool ok = true;
  for (int i = 0; i < n->n_in && ok; i++) ok = makeable(c, n->in[i]->node, depth - 1);
  c->again[n->id] = 2 * c->round + !ok;
  return ok;
}

/* The value of old tensor t for a reader of phase `phase`, made again where the policy says so. copies: per old tensor, of
 * this phase. What a sum of a chain is made of is its alone (`own`: the number of that sum, or 0): were it shared, all sums of
 * the chain would be made at once, for the reader of the last, and wait for their own readers. */
static mn_tensor *value_for(recompute *c, const mn_tensor *t, int phase, mn_tensor **copies, int own) {
  mn_node *n = t->node;
  mn_tensor *first = *mn_rebuilt(&c->r, t);
  if (n->phase >= phase || n->op->cls == MN_OP_LEAF || c->kept[n->id] || !made_again(c, n)) return first;
  const int at = c->r.base[n->id];
  if (copies[at + t->out]) return copies[at + t->out];
  if (own && c->own_sum[at + t->out] == own) return c->own[at + t->out];
  mn_graph *g = c->r.now->g;
  mn_tensor **in = mn_arena_alloc(g->arena, (size_t)(n->n_in + 1) * sizeof *in);
  if (!in) return first;
  const int inner = own || c->chain[n->id] == 0 ? own : ++c->sums;
  for (int i = 0; i < n->n_in; i++) in[i] = value_for(c, n->in[i], phase, copies, inner);
  mn_node *copy = mn_node_again(g, n, in);
  if (!copy) return first;
  copy->phase = phase;
  if (n->op->cls != MN_OP_VIEW) c->count++;
  for (int j = 0; j < n->n_out; j++) {
    if (own) c->own[at + j] = copy->out[j], c->own_sum[at + j] = own;
    else copies[at + j] = copy->out[j];
  }
  return copy->out[t->out];
}

/* A sum in f32 of a kept value and a product in bf16 (a residual stream) is larger than the product: then the product is
 * kept and the sum is made again. Chains of such sums stay short: all of a chain is there at once when its last is needed. */
static bool keep_smaller(recompute *c, const mn_node *n) {
  enum { CHAIN = 2 };
  if (n->op->cls != MN_OP_ELEMENTWISE || n->op->effect || n->n_out != 1) return false;
  const mn_tensor *only = NULL;
  int chain = 0;
  for (int i = 0; i < n->n_in; i++) {
    const mn_node *p = n->in[i]->node;
    if (makeable(c, p, DEPTH)) {
      if (c->chain[p->id] > chain) chain = c->chain[p->id];
      continue;
    }
    const mn_tensor *t = n->in[i];
    while (is_cheap(t->node, c->policy) && t->node->n_in == 1) t = t->node->in[0]; /* a cast, a view */
    if (only && only != t) return false;
    only = t;
  }
  if (!only || is_cheap(only->node, c->policy) || 2 * bytes_of(only) > bytes_of(n->out[0]) || chain >= CHAIN) return false;
  c->kept[only->node->id] = true;
  c->round++;
  c->chain[n->id] = (uint8_t)(chain + 1);
  return true;
}

/* In the order of the graph: what comes first decides what later nodes can be made from. */
static void choose(recompute *c) {
  const mn_graph *g = c->r.old->g;
  for (int i = 0; i < c->r.old->n_roots; i++) c->kept[c->r.old->roots[i]->node->id] = true;
  for (int i = 0; i < g->n_nodes; i++) {
    const mn_node *n = g->nodes[i];
    for (int k = 0; c->r.needed[i] && k < n->n_in; k++) {
      mn_node *p = n->in[k]->node;
      if (p->phase >= n->phase) continue;
      c->later[p->id] = true;
      p = owner(p);
      if (p->op->cls != MN_OP_LEAF && !is_cheap(p, c->policy)) c->kept[p->id] = true;
    }
  }
  for (int i = 0; i < g->n_nodes; i++) {
    mn_node *n = g->nodes[i];
    if (!c->later[i] || c->kept[i] || makeable(c, n, DEPTH)) continue;
    if (keep_smaller(c, n) && makeable(c, n, DEPTH)) continue;
    mn_node *o = owner(n); /* a long chain of views over something kept: the view itself counts as kept */
    c->kept[o->op->cls == MN_OP_LEAF || c->kept[o->id] ? n->id : o->id] = true;
    c->round++;
  }
  for (int i = 0; i < g->n_nodes; i++)
    if (c->later[i] && !c->kept[i]) makeable(c, g->nodes[i], DEPTH);
}

mn_status mn_pass_recompute(mn_activation_policy policy, mn_arena *arena, mn_draft *p, int *recomputed) {
  recompute c = {.policy = policy, .round = 1};
  mn_draft now;
  mn_status status = mn_rebuild_begin(&c.r, p, &now, arena);
  int n = p->g->n_nodes, phases = 0, n_in = 0;
  for (int i = 0; i < n; i++) {
    if (p->g->nodes[i]->phase > phases) phases = p->g->nodes[i]->phase;
    if (p->g->nodes[i]->n_in > n_in) n_in = p->g->nodes[i]->n_in;
  }
  c.kept = mn_calloc((size_t)n + 1, 1);
  c.again = mn_calloc((size_t)n + 1, sizeof *c.again);
  c.later = mn_calloc((size_t)n + 1, 1);
  c.chain = mn_calloc((size_t)n + 1, 1);
  const size_t tensors = (size_t)(status == MN_OK ? c.r.base[n] : 0) + 1;
  c.own = mn_calloc(tensors, sizeof *c.own);
  c.own_sum = mn_calloc(tensors, sizeof *c.own_sum);
  mn_tensor ***copies = mn_calloc((size_t)phases + 1, sizeof *copies);
  mn_tensor **saved = mn_calloc(2 * (size_t)n_in + 1, sizeof *saved), **mine = saved + n_in;
  if (!c.kept || !c.again || !c.later || !c.chain || !c.own || !c.own_sum || !copies || !saved) status = MN_ERR_MEMORY;
  for (int i = 0; i <= phases && status == MN_OK; i++)
    if (!(copies[i] = mn_calloc(tensors, sizeof **copies))) status = MN_ERR_MEMORY;
  if (status == MN_OK) choose(&c);
  for (int i = 0; i < n && status == MN_OK && now.g->status == MN_OK; i++) {
    mn_node *node = p->g->nodes[i];
    if (!c.r.needed[i] && !node->op->bound) continue;
    for (int k = 0; k < node->n_in; k++) saved[k] = *mn_rebuilt(&c.r, node->in[k]); /* while it is copied, this node is lent ... */
    for (int k = 0; k < node->n_in; k++) mine[k] = value_for(&c, node->in[k], node->phase, copies[node->phase], 0);
    for (int k = 0; k < node->n_in; k++) *mn_rebuilt(&c.r, node->in[k]) = mine[k]; /* ... the values of its phase */
    mn_rebuild_copy(&c.r, node);
    for (int k = 0; k < node->n_in; k++) *mn_rebuilt(&c.r, node->in[k]) = saved[k];
  }
  status = mn_rebuild_end(&c.r, status);
  for (int i = 0; copies && i <= phases; i++) free(copies[i]);
  free(copies);
  free(saved);
  free(c.kept);
  free(c.again);
  free(c.later);
  free(c.chain);
  free(c.own);
  free(c.own_sum);
  *recomputed = c.count;
  if (status == MN_OK) *p = now;
  return status;
}
