/* pass_fuse.c - element-wise nodes of one shape that can run together become one `ew` node: a small register program
 * that reads each input once and writes each result once. Two groups may be joined when no path leads from one to the
 * other through a third. The groups are kept in a topological order of their own (node ids are none: a group's members lie
 * apart), so that the search for such a path stays between the two, and a join moves only what lies there. */
#include "graph/program.h"

#include <stdlib.h>
#include <string.h>

const mn_op mn_op_ew = {.name = "ew", .cls = MN_OP_CORE, .attr_size = sizeof(mn_ew_attr)};

typedef struct fusion {
  mn_rebuild r;
  const mn_graph *g;
  int n;
  int *group; /* per node: representative (a node id); itself when alone */
  int *next;  /* members of a group: circular list                        */
  int *size;
  int **consumers; /* per node: ids of the nodes that read it                  */
  int *n_consumers;
  int *stamp, epoch; /* visited marks of the path search                         */
  int *stack;
  int *hi;         /* per group: largest member id                             */
  int *order, *at; /* per group: its place in a topological order; per place: the group, -1 none */
  int *moved;      /* room for a piece of the order                            */
} fusion;

static bool is_ew(const mn_node *n) { return n->op->cls == MN_OP_ELEMENTWISE; }

static void groups_free(fusion *f) {
  for (int i = 0; f->consumers && i < f->n; i++) free(f->consumers[i]);
  free(f->consumers);
  free(f->n_consumers);
  free(f->group);
  free(f->next);
  free(f->size);
  free(f->stamp);
  free(f->stack);
  free(f->hi);
  free(f->order);
  free(f->at);
  free(f->moved);
}

static mn_status groups_init(fusion *f) {
  size_t n = (size_t)f->n + 1;
  f->group = mn_alloc(n * sizeof(int));
  f->next = mn_alloc(n * sizeof(int));
  f->size = mn_alloc(n * sizeof(int));
  f->stamp = mn_calloc(n, sizeof(int));
  f->stack = mn_alloc(n * sizeof(int));
  f->hi = mn_alloc(n * sizeof(int));
  f->order = mn_alloc(n * sizeof(int));
  f->at = mn_alloc(n * sizeof(int));
  f->moved = mn_alloc(n * sizeof(int));
  f->consumers = mn_calloc(n, sizeof(int *));
  f->n_consumers = mn_calloc(n, sizeof(int));
  if (!f->group || !f->next || !f->size || !f->stamp || !f->stack || !f->hi || !f->order || !f->at || !f->moved || !f->consumers ||
      !f->n_consumers)
    return MN_ERR_MEMORY;
  for (int i = 0; i < f->n; i++) f->group[i] = f->next[i] = f->hi[i] = f->order[i] = f->at[i] = i, f->size[i] = 1;
  for (int pass = 0; pass < 2; pass++) {
    for (int i = 0; i < f->n; i++) {
      const mn_node *node = f->g->nodes[i];
      if (!f->r.needed[i]) continue;
      for (int k = 0; k < node->n_in; k++) {
        int p = node->in[k]->node->id;
        if (pass) f->consumers[p][f->n_consumers[p]] = i;
        f->n_consumers[p]++;
      }
    }
    for (int i = 0; i < f->n && !pass; i++) {
      f->consumers[i] = mn_alloc((size_t)f->n_consumers[i] * sizeof(int));
      if (!f->consumers[i]) return MN_ERR_MEMORY;
      f->n_consumers[i] = 0;
    }
  }
  return MN_OK;
}

/* Is there a path from group a to the later group b through a third? Marks what lies behind a and before b. */
static bool path_around(fusion *f, int a, int b) {
  int top = 0, limit = f->order[b];
  f->epoch++;
  f->stack[top++] = a;
  while (top) {
    int t = f->stack[--top];
    for (int m = t, first = 1; first || m != t; m = f->next[m], first = 0)
      for (int c = 0; c < f->n_consumers[m]; c++) {
        int u = f->group[f->consumers[m][c]];
        if (u == b && t != a) return true;
        if (u == t || f->order[u] >= limit || f->stamp[u] == f->epoch) continue;
        f->stamp[u] = f->epoch;
        f->stack[top++] = u;
      }
  }
  return false;
}

/* After path_around(a, b): what lies between them and does not depend on a goes first, then the joined group (named a),
 * then what depends on a. */
static void join_orders(fusion *f, int a, int b) {
  int place = f->order[a], end = f->order[b], n = 0;
  for (int i = place + 1; i < end; i++) {
    int t = f->at[i];
    if (t < 0) continue;
    if (f->stamp[t] == f->epoch) f->moved[n++] = t;
    else f->at[f->order[t] = place++] = t;
  }
  f->at[f->order[a] = place++] = a;
  for (int i = 0; i < n; i++) f->at[f->order[f->moved[i]] = place++] = f->moved[i];
  while (place <= end) f->at[place++] = -1;
}

/* ---- does the joint program fit? ---- */
static bool scalar_constant(const mn_tensor *t, double *value) {
  const mn_node *n = t->node;
  while (n->op->cls == MN_OP_VIEW) n = n->in[0]->node;
  if (n->op != &mn_op_const || !((const mn_const_attr *)n->attr)->is_full) return false;
  *value = ((const mn_const_attr *)n->attr)->value;
  return true;
}

static bool in_group(const fusion *f, const mn_node *n, int a, int b) {
  int g = f->group[n->id];
  return is_ew(n) && (g == a || g == b);
}

static bool fits(const fusion *f, int a, int b) {
  const mn_tensor *inputs[MN_EW_MAX_IN];
  int n_in = 0, n_out = 0, n_instr = f->size[a] + f->size[b];
  if (n_instr > MN_EW_MAX_INSTR) return false;
  for (int pass = 0; pass < 2; pass++) {
    int head = pass ? b : a;
    for (int m = head, first = 1; first || m != head; m = f->next[m], first = 0) {
      const mn_node *n = f->g->nodes[m];
      bool leaves = false;
      int immediates = 0;
      for (int c = 0; c < f->n_consumers[m]; c++) leaves |= !in_group(f, f->g->nodes[f->consumers[m][c]], a, b);
      leaves |= mn_uses(&f->r, n->out[0]) > f->n_consumers[m]; /* a root */
      n_out += leaves;
      for (int k = 0; k < n->n_in; k++) {
        double v;
        const mn_tensor *t = n->in[k];
        if (in_group(f, t->node, a, b)) continue;
        if (immediates == 0 && scalar_constant(t, &v)) {
          immediates++;
          continue;
        }
        int i = 0;
        while (i < n_in && inputs[i] != t) i++;
        if (i < n_in) continue;
        if (n_in == MN_EW_MAX_IN) return false;
        inputs[n_in++] = t;
      }
    }
  }
  return n_out <= MN_EW_MAX_OUT;
}

static bool try_join(fusion *f, int x, int y) {
  int a = f->group[x], b = f->group[y];
  if (a == b) return true;
  if (f->order[a] > f->order[b]) {
    int t = a;
    a = b, b = t;
  }
  if (!fits(f, a, b) || path_around(f, a, b)) return false;
  join_orders(f, a, b);
  for (int m = b, first = 1; first || m != b; m = f->next[m], first = 0) f->group[m] = a;
  int t = f->next[a];
  f->next[a] = f->next[b];
  f->next[b] = t;
  f->size[a] += f->size[b];
  if (f->hi[b] > f->hi[a]) f->hi[a] = f->hi[b];
  return true;
}

static bool joinable(const fusion *f, const mn_node *a, const mn_node *b) {
  return is_ew(a) && is_ew(b) && f->r.needed[a->id] && f->r.needed[b->id] && mn_shape_equal(&a->out[0]->shape, &b->out[0]->shape) &&
         a->phase == b->phase;
}

static void form_groups(fusion *f) {
  for (int i = 0; i < f->n; i++) { /* chains: producer with consumer */
    const mn_node *n = f->g->nodes[i];
    for (int k = 0; is_ew(n) && k < n->n_in; k++)
      if (joinable(f, n->in[k]->node, n)) try_join(f, n->in[k]->node->id, i);
  }
  for (int i = 0; i < f->n; i++) { /* siblings: readers of one value, near each other */
    const mn_node *n = f->g->nodes[i];
    if (n->op->cls == MN_OP_LEAF || !f->r.needed[i]) continue;
    int previous = -1;
    for (int c = 0; c < f->n_consumers[i]; c++) {
      int m = f->consumers[i][c];
      const mn_node *s = f->g->nodes[m];
      if (!is_ew(s) || !mn_shape_equal(&s->out[0]->shape, &n->out[0]->shape)) continue;
      if (previous >= 0 && m - previous < 16 && joinable(f, f->g->nodes[previous], s)) try_join(f, previous, m);
      previous = m;
    }
  }
}

/* ---- writing the program ---- */
typedef struct writer {
  mn_ew_attr attr;
  mn_tensor *in[MN_EW_MAX_IN];     /* old tensors */
  mn_tensor *reg[MN_EW_MAX_INSTR]; /* old tensor each instruction makes */
  mn_tensor *out[MN_EW_MAX_OUT];   /* old tensors */
} writer;

static int compare_ids(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static void write_program(const fusion *f, int group, writer *w) {
  int members[MN_EW_MAX_INSTR], n = 0;
  memset(w, 0, sizeof *w);
  for (int m = group, first = 1; first || m != group; m = f->next[m], first = 0) members[n++] = m;
  qsort(members, (size_t)n, sizeof *members, compare_ids);
  for (int pass = 0; pass < 2; pass++) /* inputs first: their registers come first */
    for (int i = 0; i < n; i++) {
      const mn_node *node = f->g->nodes[members[i]];
      mn_ew_instr *instr = &w->attr.instr[i];
      bool immediate = false;
      if (pass) {
        instr->code = (uint8_t)node->op->code;
        instr->dtype = (uint8_t)node->out[0]->dtype;
        instr->src_dtype = (uint8_t)node->in[node->n_in - 1]->dtype;
        w->reg[i] = node->out[0];
      }
      for (int k = 0; k < node->n_in; k++) {
        mn_tensor *t = node->in[k];
        double v;
        int src = -1;
        if (in_group(f, t->node, group, group)) {
          for (int j = 0; j < i; j++)
            if (members[j] == t->node->id) src = w->attr.n_in + j;
        } else if (!immediate && scalar_constant(t, &v)) {
          immediate = true;
          src = 0xFF;
          instr->imm = v;
        } else {
          for (int j = 0; j < w->attr.n_in; j++)
            if (w->in[j] == t) src = j;
          if (src < 0) w->in[src = w->attr.n_in++] = t;
        }
        if (pass) instr->src[k] = (uint8_t)src;
      }
    }
  w->attr.n_instr = n;
  for (int i = 0; i < n; i++) {
    const mn_node *node = f->g->nodes[members[i]];
    bool leaves = mn_uses(&f->r, node->out[0]) > f->n_consumers[members[i]];
    for (int c = 0; c < f->n_consumers[members[i]]; c++) leaves |= !in_group(f, f->g->nodes[f->consumers[members[i]][c]], group, group);
    if (leaves) {
      w->out[w->attr.n_out] = node->out[0];
      w->attr.out_reg[w->attr.n_out++] = (uint8_t)(w->attr.n_in + i);
    }
  }
}

static mn_status emit_group(fusion *f, int group) {
  writer *w = mn_arena_alloc(f->r.now->g->arena, sizeof *w);
  if (!w) return MN_ERR_MEMORY;
  write_program(f, group, w);
  mn_tensor *in[MN_EW_MAX_IN];
  mn_dtype types[MN_EW_MAX_OUT];
  mn_shape shapes[MN_EW_MAX_OUT];
  for (int i = 0; i < w->attr.n_in; i++) in[i] = *mn_rebuilt(&f->r, w->in[i]);
  for (int j = 0; j < w->attr.n_out; j++) types[j] = w->out[j]->dtype, shapes[j] = w->out[j]->shape;
  mn_node *n = mn_node_new(f->r.now->g, &mn_op_ew, w->attr.n_in, in, w->attr.n_out, types, shapes, &w->attr);
  if (!n) return mn_graph_status(f->r.now->g);
  n->phase = f->g->nodes[group]->phase;
  n->block = f->g->nodes[group]->block;
  for (int j = 0; j < w->attr.n_out; j++) {
    n->out[j]->name = w->out[j]->name;
    *mn_rebuilt(&f->r, w->out[j]) = n->out[j];
  }
  return MN_OK;
}

/* Emits groups in an order that respects their edges: the ready group with the smallest id bound next. */
static mn_status emit(fusion *f) {
  int *waits = mn_calloc((size_t)f->n + 1, sizeof *waits), emitted = 0, total = 0;
  unsigned char *state = mn_calloc((size_t)f->n + 1, 1); /* 1 ready, 2 emitted */
  mn_status status = waits && state ? MN_OK : MN_ERR_MEMORY;
  for (int i = 0; i < f->n && status == MN_OK; i++) {
    bool leaf = f->g->nodes[i]->op == &mn_op_input || f->g->nodes[i]->op == &mn_op_variable;
    if (!f->r.needed[i] && !leaf) continue;
    if (f->group[i] == i) total++;
    for (int k = 0; k < f->g->nodes[i]->n_in; k++)
      if (f->group[f->g->nodes[i]->in[k]->node->id] != f->group[i]) waits[f->group[i]]++;
  }
  for (int i = 0; i < f->n && status == MN_OK; i++) {
    bool leaf = f->g->nodes[i]->op == &mn_op_input || f->g->nodes[i]->op == &mn_op_variable;
    if ((f->r.needed[i] || leaf) && f->group[i] == i && waits[i] == 0) state[i] = 1;
  }
  /* A group is keyed by its last member, so the order stays close to the given one. */
  int *by_key = mn_alloc(((size_t)f->n + 1) * sizeof *by_key);
  if (!by_key) status = MN_ERR_MEMORY;
  for (int i = 0; i < f->n && status == MN_OK; i++) by_key[i] = -1;
  for (int i = 0; i < f->n && status == MN_OK; i++)
    if (f->group[i] == i) by_key[f->hi[i]] = i;
  int from = 0;
  while (status == MN_OK && emitted < total) {
    int pick = -1;
    for (int key = from; key < f->n; key++)
      if (by_key[key] >= 0 && state[by_key[key]] == 1) {
        pick = by_key[key];
        break;
      }
    if (pick < 0) {
      status = mn_fail(MN_ERR_INTERNAL, "fuse: the groups have a cycle");
      break;
    }
    state[pick] = 2;
    emitted++;
    while (from < f->n && (by_key[from] < 0 || state[by_key[from]] == 2)) from++;
    const mn_node *node = f->g->nodes[pick];
    if (f->size[pick] > 1 || is_ew(node)) status = emit_group(f, pick);
    else if (!mn_rebuild_copy(&f->r, node)) status = mn_graph_status(f->r.now->g);
    for (int m = pick, first = 1; first || m != pick; m = f->next[m], first = 0)
      for (int c = 0; c < f->n_consumers[m]; c++) {
        int t = f->group[f->consumers[m][c]];
        if (t != pick && --waits[t] == 0) state[t] = 1;
      }
  }
  free(by_key);
  free(waits);
  free(state);
  return status;
}

mn_status mn_pass_fuse(mn_arena *arena, mn_program *p, mn_plan_report *report) {
  fusion f = {.g = p->g, .n = p->g->n_nodes};
  mn_program now;
  mn_status status = mn_rebuild_begin(&f.r, p, &now, arena);
  if (status == MN_OK) status = groups_init(&f);
  if (status == MN_OK) {
    form_groups(&f);
    for (int i = 0; i < f.n; i++)
      if (f.r.needed[i] && is_ew(p->g->nodes[i])) {
        report->elementwise_before++;
        report->elementwise_after += f.group[i] == i;
      }
    status = emit(&f);
  }
  groups_free(&f);
  status = mn_rebuild_end(&f.r, status);
  if (status == MN_OK) *p = now;
  return status;
}
