/* pass_prologue.c - see prologue.h. Of a draft, finds what depends on fixed leaves alone, has the prologue compute what it does not
 * hold yet, and puts leaves in its place. */
#include "compile/prologue.h"

#include "base/file.h"
#include "base/table.h"
#include "base/text.h"
#include "compile/draft.h"

#include <stdlib.h>
#include <string.h>

enum { SMALL = 4096 }; /* elements: what is not larger may grow beyond its leaves */

typedef struct part { /* values that one compilation was the first to need */
  mn_plan *plan;
  struct part *before;
} part;

typedef struct held {
  void *data;
  size_t bytes;
} held;

struct mn_prologue {
  mn_arena *arena;
  mn_backend *backend;
  part *parts;
  int n, cap;
  held *values;
  mn_table at; /* what a value is computed from -> its number */
};

mn_status mn_prologue_new(mn_backend *b, mn_prologue **out) {
  *out = NULL;
  mn_prologue *p = mn_calloc(1, sizeof *p);
  if (!p) return MN_ERR_MEMORY;
  *p = (mn_prologue){.arena = mn_arena_new(), .backend = b};
  p->at = (mn_table){.arena = p->arena, .names = true};
  if (!p->arena) {
    free(p);
    return MN_ERR_MEMORY;
  }
  *out = p;
  return MN_OK;
}

void mn_prologue_free(mn_prologue *p) {
  if (!p) return;
  for (part *x = p->parts, *before; x; x = before) {
    before = x->before;
    mn_plan_free(x->plan);
  }
  free(p->values);
  mn_arena_free(p->arena);
  free(p);
}

mn_status mn_prologue_refresh(mn_prologue *p) {
  for (part *x = p->parts; x; x = x->before) MN_TRY(mn_plan_run(x->plan));
  return MN_OK;
}

int mn_prologue_count(const mn_prologue *p) { return p->n; }

size_t mn_prologue_bytes(const mn_prologue *p) {
  size_t bytes = 0;
  for (int i = 0; i < p->n; i++) bytes += p->values[i].bytes;
  return bytes;
}

/* ---- what is fixed ---- */
typedef struct finder {
  mn_arena *arena;
  const mn_draft *draft;
  const mn_plan_request *q;
  mn_table leaves;  /* of the caller's graph: a fixed one's number in q->fixed; of one that is assigned, -1 */
  bool *fixed;      /* per node: depends on fixed leaves and constants alone     */
  int64_t *origin;  /* per node: elements of the fixed leaves that it comes from */
  bool *wanted;     /* per node: computed when the plan runs                     */
  const char **key; /* per node: what it is computed from; NULL: not asked yet   */
  int *value;       /* per node: its number in the prologue; -1: none            */
} finder;

static mn_status list_leaves(finder *f) {
  const mn_plan_request *q = f->q;
  f->leaves = (mn_table){.arena = f->arena};
  for (int k = 0; k < q->n_fixed; k++) MN_TRY(mn_table_put(&f->leaves, q->fixed[k].leaf, k));
  for (int k = 0; k < q->n_assigns; k++) MN_TRY(mn_table_put(&f->leaves, q->variables[k], -1));
  return MN_OK;
}

static const mn_fixed_leaf *fixed_leaf(const finder *f, const mn_tensor *given) {
  const int k = mn_table_find(&f->leaves, given, -1);
  return k >= 0 ? &f->q->fixed[k] : NULL;
}

/* Can n be computed from its operands by itself, once, and be known again? */
static bool may_be_fixed(const mn_node *n) {
  return n->n_out == 1 && !mn_node_has_effect(n) && !mn_is(n, MN_IS_LOOP) && !mn_is(n, MN_IS_DRAWN) && n->op->cls != MN_OP_LEAF;
}

/* Through residual sums every layer doubles what a value comes from: more than any size is enough. */
static int64_t added(int64_t a, int64_t b) { return a < INT64_MAX - b ? a + b : INT64_MAX; }

static void mark_fixed(finder *f) {
  const mn_graph *g = f->draft->g;
  for (int i = 0; i < f->draft->n_leaves; i++) {
    const mn_tensor *here = f->draft->leaves[i], *given = f->draft->given[i];
    if (!here || !fixed_leaf(f, given)) continue;
    f->fixed[here->node->id] = true;
    f->origin[here->node->id] = mn_shape_count(&here->shape);
  }
  for (int i = 0; i < g->n_nodes; i++) {
    const mn_node *n = g->nodes[i];
    if (mn_is(n, MN_IS_CONST)) f->fixed[i] = true;
    if (!may_be_fixed(n)) continue;
    bool all = n->n_in > 0;
    for (int k = 0; k < n->n_in; k++) {
      all = all && f->fixed[n->in[k]->node->id];
      f->origin[i] = added(f->origin[i], f->origin[n->in[k]->node->id]);
    }
    const int64_t size = mn_shape_count(&n->out[0]->shape);
    f->fixed[i] = all && (n->op->cls == MN_OP_VIEW || size <= SMALL || size <= f->origin[i]);
  }
}

/* A value of the prologue: computed from a fixed leaf, in memory of its own. */
static bool is_value(const finder *f, const mn_node *n) {
  return f->fixed[n->id] && f->origin[n->id] > 0 && n->op->cls != MN_OP_LEAF && n->op->cls != MN_OP_VIEW;
}

static void mark_wanted(finder *f) {
  const mn_graph *g = f->draft->g;
  for (int i = 0; i < f->draft->n_roots; i++) f->wanted[f->draft->roots[i]->node->id] = true;
  for (int i = g->n_nodes - 1; i >= 0; i--) {
    const mn_node *n = g->nodes[i];
    f->wanted[i] |= mn_node_has_effect(n);
    for (int k = 0; k < n->n_in && f->wanted[i] && !is_value(f, n); k++) f->wanted[n->in[k]->node->id] = true;
  }
}

/* ---- by what a value is known ---- */
static const char *key_of(finder *f, const mn_node *n);

static void describe(finder *f, const mn_node *n, mn_text *t) {
  char shape[96], hex[33];
  mn_text_addf(t, "%s %s %s", n->op->name, mn_dtype_name(n->out[0]->dtype), mn_shape_str(&n->out[0]->shape, shape));
  if (n->op->bound) {
    mn_text_addf(t, " %s", n->out[0]->name);
  } else if (mn_is(n, MN_IS_CONST)) {
    const mn_const_attr *a = n->attr;
    const size_t bytes = (size_t)mn_shape_count(&n->out[0]->shape) * mn_dtype_size(n->out[0]->dtype);
    if (a->is_full) mn_content_hash(&a->value, sizeof a->value, hex);
    else mn_content_hash(a->data, bytes, hex);
    mn_text_addf(t, " %s%s", a->is_full ? "full " : "", hex);
  } else if (n->op->attr_size) {
    mn_content_hash(n->attr, mn_attr_bytes(n->op, n->attr), hex);
    mn_text_addf(t, " %s", hex);
  }
  for (int k = 0; k < n->n_in; k++) {
    const char *key = key_of(f, n->in[k]->node);
    mn_text_addf(t, " %s", key ? key : "");
  }
}

/* NULL when memory is short. */
static const char *key_of(finder *f, const mn_node *n) {
  if (f->key[n->id]) return f->key[n->id];
  mn_text text = {0};
  char hex[33];
  describe(f, n, &text);
  if (mn_text_status(&text) == MN_OK) {
    mn_content_hash(text.data, text.len, hex);
    f->key[n->id] = mn_arena_strdup(f->arena, hex);
  }
  mn_text_free(&text);
  return f->key[n->id];
}

/* ---- having them computed ---- */
static mn_status run_part(mn_prologue *p, finder *f, int n, mn_tensor **outputs, mn_plan **out) {
  const mn_plan_request q = {.graph = f->draft->g, .n_outputs = n, .outputs = outputs, .backend = p->backend};
  MN_TRY(mn_plan_compile(&q, out));
  for (int i = 0; i < f->draft->n_leaves; i++) {
    const mn_fixed_leaf *leaf = fixed_leaf(f, f->draft->given[i]);
    if (leaf && f->draft->leaves[i]) mn_plan_bind(*out, f->draft->leaves[i], leaf->data);
  }
  return mn_plan_run(*out);
}

static mn_status hold(mn_prologue *p, const finder *f, int n, mn_tensor **outputs, mn_plan *plan) {
  while (p->n + n > p->cap) {
    int cap = p->cap ? 2 * p->cap : 32;
    held *list = mn_realloc(p->values, (size_t)cap * sizeof *list);
    if (!list) return MN_ERR_MEMORY;
    p->values = list;
    p->cap = cap;
  }
  for (int j = 0; j < n; j++) {
    const mn_tensor *t = outputs[j];
    const char *key = mn_arena_strdup(p->arena, f->key[t->node->id]);
    if (!key) return MN_ERR_MEMORY;
    p->values[p->n] = (held){mn_plan_output(plan, j)->data, (size_t)mn_shape_count(&t->shape) * mn_dtype_size(t->dtype)};
    MN_TRY(mn_table_put(&p->at, key, p->n));
    f->value[t->node->id] = p->n++;
  }
  return MN_OK;
}

/* Every value that the draft wants has a number then. */
static mn_status provide(mn_prologue *p, finder *f) {
  const mn_graph *g = f->draft->g;
  mn_tensor **missing = mn_arena_alloc(f->arena, (size_t)(g->n_nodes + 1) * sizeof *missing);
  mn_table asked = {.arena = f->arena, .names = true}; /* what is missing, by its key */
  int n = 0;
  if (!missing) return MN_ERR_MEMORY;
  for (int i = 0; i < g->n_nodes; i++) {
    const mn_node *node = g->nodes[i];
    if (!f->wanted[i] || !is_value(f, node)) continue;
    const char *key = key_of(f, node);
    if (!key) return MN_ERR_MEMORY;
    f->value[i] = mn_table_find(&p->at, key, -1);
    if (f->value[i] >= 0 || mn_table_find(&asked, key, -1) >= 0) continue;
    MN_TRY(mn_table_put(&asked, key, n));
    missing[n++] = node->out[0];
  }
  if (n == 0) return MN_OK;
  part *x = mn_arena_alloc(p->arena, sizeof *x);
  if (!x) return MN_ERR_MEMORY;
  *x = (part){0};
  mn_status status = run_part(p, f, n, missing, &x->plan);
  if (status != MN_OK) {
    mn_plan_free(x->plan);
    return status;
  }
  x->before = p->parts;
  p->parts = x;
  MN_TRY(hold(p, f, n, missing, x->plan));
  for (int i = 0; i < g->n_nodes; i++)
    if (f->wanted[i] && f->value[i] < 0 && is_value(f, g->nodes[i])) f->value[i] = mn_table_find(&p->at, f->key[i], -1);
  return MN_OK;
}

/* ---- the draft without them ---- */
static mn_status leaf_instead(mn_rebuild *r, mn_arena *keep, const mn_node *n, mn_draft *now, mn_tensor **given) {
  static const char name[] = "a value of the prologue";
  mn_tensor *old = n->out[0], *t = mn_variable(now->g, name, old->dtype, old->shape);
  if (!t) return mn_graph_status(now->g);
  t->name = name; /* later passes hand it on, and this graph is gone before the last has done */
  *mn_rebuilt(r, old) = t;
  *given = mn_arena_alloc(keep, sizeof **given); /* an address that is the plan's own */
  if (!*given) return MN_ERR_MEMORY;
  **given = *t;
  return MN_OK;
}

static mn_status replace(finder *f, const mn_prologue *p, mn_arena *arena, mn_arena *keep, mn_draft *draft, mn_prologue_use *use) {
  const mn_graph *g = draft->g;
  int count = 0;
  for (int i = 0; i < g->n_nodes; i++) count += f->wanted[i] && f->value[i] >= 0;
  mn_rebuild r;
  mn_draft now;
  const mn_tensor **given = mn_arena_alloc(keep, (size_t)(draft->n_leaves + count + 1) * sizeof *given);
  mn_tensor **leaves = mn_arena_alloc(arena, (size_t)(draft->n_leaves + count + 1) * sizeof *leaves);
  use->leaf = mn_arena_alloc(keep, (size_t)(count + 1) * sizeof *use->leaf);
  use->data = mn_arena_alloc(keep, (size_t)(count + 1) * sizeof *use->data);
  if (!given || !leaves || !use->leaf || !use->data) return MN_ERR_MEMORY;
  mn_status status = mn_rebuild_begin(&r, draft, &now, arena);
  for (int i = 0; i < g->n_nodes && status == MN_OK && now.g->status == MN_OK; i++) {
    const mn_node *n = g->nodes[i];
    const bool leaf = n->op->bound;
    if (f->wanted[i] && f->value[i] >= 0) {
      mn_tensor *made = NULL;
      status = leaf_instead(&r, keep, n, &now, &made);
      leaves[draft->n_leaves + use->n] = *mn_rebuilt(&r, n->out[0]);
      given[draft->n_leaves + use->n] = use->leaf[use->n] = made;
      use->data[use->n++] = p->values[f->value[i]].data;
    } else if (f->wanted[i] || leaf) {
      mn_rebuild_copy(&r, n);
    }
  }
  status = mn_rebuild_end(&r, status);
  if (status != MN_OK) return status;
  memcpy(given, now.given, (size_t)now.n_leaves * sizeof *given);
  memcpy(leaves, now.leaves, (size_t)now.n_leaves * sizeof *leaves);
  now.given = given;
  now.leaves = leaves;
  now.n_leaves += use->n;
  *draft = now;
  return MN_OK;
}

mn_status mn_pass_prologue(const mn_plan_request *q, mn_arena *arena, mn_arena *keep, mn_draft *draft, mn_prologue_use *use) {
  const size_t n = (size_t)draft->g->n_nodes + 1;
  *use = (mn_prologue_use){0};
  finder f = {.arena = arena, .draft = draft, .q = q};
  f.fixed = mn_calloc(n, sizeof *f.fixed);
  f.origin = mn_calloc(n, sizeof *f.origin);
  f.wanted = mn_calloc(n, sizeof *f.wanted);
  f.key = mn_calloc(n, sizeof *f.key);
  f.value = mn_alloc(n * sizeof *f.value);
  mn_status status = f.fixed && f.origin && f.wanted && f.key && f.value ? MN_OK : MN_ERR_MEMORY;
  for (size_t i = 0; i < n && status == MN_OK; i++) f.value[i] = -1;
  if (status == MN_OK) {
    const mn_draft before = *draft;
    f.draft = &before;
    status = list_leaves(&f);
    if (status == MN_OK) mark_fixed(&f), mark_wanted(&f), status = provide(q->prologue, &f);
    if (status == MN_OK) status = replace(&f, q->prologue, arena, keep, draft, use);
  }
  free(f.fixed);
  free(f.origin);
  free(f.wanted);
  free(f.key);
  free(f.value);
  return status;
}
