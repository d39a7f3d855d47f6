/* pass_fuse.c - element-wise nodes of one shape that can run together become one `ew` node: a small register program
 * that reads each input once and writes each result once. Two groups may be joined when no path leads from one to the
 * other through a third. The groups are kept in a topological order of their own (node ids are none: a group's members lie
 * apart), so that the search for such a path stays between the two, and a join moves only what lies there. */
#include "compile/draft.h"

#include <stdlib.h>
#include <string.h>

static size_t program_bytes(const void *attr) {
  const mn_ew_attr *a = attr;
  return offsetof(mn_ew_attr, instr) + (size_t)a->n_instr * sizeof *a->instr;
}
const mn_op mn_op_ew = {
    .name = "ew", .traits = MN_IS_PROGRAM, .cls = MN_OP_CORE, .attr_size = sizeof(mn_ew_attr), .attr_used = program_bytes};

typedef struct fusion {
  mn_rebuild r;
  const mn_graph *g;
  int n;
  int *group; /* per node: representative (a node id); itself when alone */
  int *next;  /* members of a group: circular list                        */
  int *size;
  bool *ew;        /* per node: element-wise. What is asked for often is here, in arrays: nodes lie far from one another */
  int *after;      /* per node with an effect: the one before it, -1 none; an edge like that of a value */
  int **producers; /* per needed node: ids of the nodes that it reads (all in `producer`), and of the one in `after` */
  int *n_producers, *producer;
  int **consumers; /* per node: ids of the nodes that read it (all in `consumer`), or come after its effect */
  int *n_consumers, *consumer;
  int *stamp, epoch; /* visited marks of the path search                         */
  int *stack;
  int *hi;         /* per group: largest member id                             */
  int *order, *at; /* per group: its place in a topological order; per place: the group, -1 none */
  int *moved;      /* room for a piece of the order                            */
} fusion;

/* Groups that lie further apart are not joined, and a path is not sought along more edges: what is read in every layer
 * (a mask, a rate) would otherwise be walked from anew in every layer. */
enum { FAR = 4096, MANY = 4096 };

static bool is_ew(const mn_node *n) { return n->op->cls == MN_OP_ELEMENTWISE && !n->op->effect; }

static void groups_free(fusion *f) {
  free(f->ew);
  free(f->after);
  free(f->producer);
  free(f->producers);
  free(f->n_producers);
  free(f->consumer);
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

static mn_status find_producers(fusion *f) {
  size_t total = 0;
  for (int i = 0; i < f->n; i++) total += f->r.needed[i] ? (size_t)f->g->nodes[i]->n_in + 1 : 0;
  f->producer = mn_alloc((total + 1) * sizeof(int));
  if (!f->producer) return MN_ERR_MEMORY;
  int *at = f->producer;
  for (int i = 0; i < f->n; i++) {
    const mn_node *n = f->g->nodes[i];
    f->producers[i] = at;
    if (!f->r.needed[i]) continue;
    for (int k = 0; k < n->n_in; k++) *at++ = n->in[k]->node->id;
    if (f->after[i] >= 0) *at++ = f->after[i];
    f->n_producers[i] = (int)(at - f->producers[i]);
  }
  return MN_OK;
}

static mn_status find_consumers(fusion *f) {
  size_t total = 0;
  for (int i = 0; i < f->n; i++)
    for (int k = 0; k < f->n_producers[i]; k++) f->n_consumers[f->producers[i][k]]++, total++;
  f->consumer = mn_alloc((total + 1) * sizeof(int));
  if (!f->consumer) return MN_ERR_MEMORY;
  total = 0;
  for (int i = 0; i < f->n; i++) {
    f->consumers[i] = f->consumer + total;
    total += (size_t)f->n_consumers[i];
    f->n_consumers[i] = 0;
  }
  for (int i = 0; i < f->n; i++)
    for (int k = 0; k < f->n_producers[i]; k++) {
      int p = f->producers[i][k];
      f->consumers[p][f->n_consumers[p]++] = i;
    }
  return MN_OK;
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
  f->ew = mn_alloc(n * sizeof *f->ew);
  f->after = mn_alloc(n * sizeof(int));
  f->producers = mn_calloc(n, sizeof(int *));
  f->n_producers = mn_calloc(n, sizeof(int));
  f->consumers = mn_calloc(n, sizeof(int *));
  f->n_consumers = mn_calloc(n, sizeof(int));
  if (!f->ew || !f->producers || !f->n_producers || !f->group || !f->next || !f->size || !f->stamp || !f->stack || !f->hi || !f->order ||
      !f->at || !f->moved || !f->after || !f->consumers || !f->n_consumers)
    return MN_ERR_MEMORY;
  for (int i = 0; i < f->n; i++) f->group[i] = f->next[i] = f->hi[i] = f->order[i] = f->at[i] = i, f->size[i] = 1;
  int last_effect = -1;
  for (int i = 0; i < f->n; i++) {
    bool effect = mn_node_has_effect(f->g->nodes[i]);
    f->after[i] = effect ? last_effect : -1;
    if (effect) last_effect = i;
    f->ew[i] = is_ew(f->g->nodes[i]);
  }
  MN_TRY(find_producers(f));
  return find_consumers(f);
}

/* Is there a path from group a to the later group b through a third? Marks what lies behind a and before b. Too long a search is
 * answered with yes. */
static bool path_around(fusion *f, int a, int b) {
  int top = 0, seen = 0, limit = f->order[b];
  f->epoch++;
  f->stack[top++] = a;
  while (top) {
    int t = f->stack[--top];
    for (int m = t, first = 1; first || m != t; m = f->next[m], first = 0)
      for (int c = 0; c < f->n_consumers[m]; c++) {
        int u = f->group[f->consumers[m][c]];
        if ((u == b && t != a) || ++seen > MANY) return true;
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
  if (t->dtype == MN_BOOL) return false; /* a condition is read from memory */
  if (!mn_is(n, MN_IS_CONST) || !((const mn_const_attr *)n->attr)->is_full) return false;
  *value = ((const mn_const_attr *)n->attr)->value;
  return true;
}

static bool in_group(const fusion *f, int node, int a, int b) {
  int g = f->group[node];
  return f->ew[node] && (g == a || g == b);
}

/* An instruction's immediate has the type of its numbers; the condition of a select has another. */
static bool may_be_immediate(const mn_node *n, int k) { return k > 0 || n->op->code != MN_EW_SELECT; }

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
      for (int c = 0; c < f->n_consumers[m] && !leaves; c++) leaves = !in_group(f, f->consumers[m][c], a, b);
      leaves |= mn_uses(&f->r, n->out[0]) > f->n_consumers[m]; /* a root */
      n_out += leaves;
      for (int k = 0; k < n->n_in; k++) {
        double v;
        const mn_tensor *t = n->in[k];
        if (in_group(f, t->node->id, a, b)) continue;
        if (immediates == 0 && may_be_immediate(n, k) && scalar_constant(t, &v)) {
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
  if (f->order[b] - f->order[a] > FAR || !fits(f, a, b) || path_around(f, a, b)) return false;
  join_orders(f, a, b);
  for (int m = b, first = 1; first || m != b; m = f->next[m], first = 0) f->group[m] = a;
  int t = f->next[a];
  f->next[a] = f->next[b];
  f->next[b] = t;
  f->size[a] += f->size[b];
  if (f->hi[b] > f->hi[a]) f->hi[a] = f->hi[b];
  return true;
}

static bool joinable(const fusion *f, int x, int y) {
  if (!f->ew[x] || !f->ew[y] || !f->r.needed[x] || !f->r.needed[y]) return false;
  const mn_node *a = f->g->nodes[x], *b = f->g->nodes[y];
  return mn_shape_equal(&a->out[0]->shape, &b->out[0]->shape) && a->phase == b->phase;
}

static void form_groups(fusion *f) {
  for (int i = 0; i < f->n; i++) /* chains: producer with consumer */
    for (int k = 0; f->ew[i] && k < f->n_producers[i]; k++)
      if (joinable(f, f->producers[i][k], i)) try_join(f, f->producers[i][k], i);
  for (int i = 0; i < f->n; i++) { /* siblings: readers of one value, near each other */
    const mn_node *n = f->g->nodes[i];
    if (n->op->cls == MN_OP_LEAF || !f->r.needed[i] || n->n_out == 0) continue;
    int previous = -1;
    for (int c = 0; c < f->n_consumers[i]; c++) {
      int m = f->consumers[i][c];
      if (!f->ew[m] || !mn_shape_equal(&f->g->nodes[m]->out[0]->shape, &n->out[0]->shape)) continue;
      if (previous >= 0 && m - previous < 16 && joinable(f, previous, m)) try_join(f, previous, m);
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
        if (in_group(f, t->node->id, group, group)) {
          for (int j = 0; j < i; j++)
            if (members[j] == t->node->id) src = w->attr.n_in + j;
        } else if (!immediate && may_be_immediate(node, k) && scalar_constant(t, &v)) {
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
    for (int c = 0; c < f->n_consumers[members[i]] && !leaves; c++) leaves = !in_group(f, f->consumers[members[i]][c], group, group);
    if (leaves) {
      w->out[w->attr.n_out] = node->out[0];
      w->attr.out_reg[w->attr.n_out++] = (uint8_t)(w->attr.n_in + i);
    }
  }
}

static mn_status emit_group(fusion *f, int group) {
  writer room, *w = &room;
  write_program(f, group, w);
  mn_tensor *in[MN_EW_MAX_IN];
  mn_dtype types[MN_EW_MAX_OUT];
  mn_shape shapes[MN_EW_MAX_OUT];
  for (int i = 0; i < w->attr.n_in; i++) in[i] = *mn_rebuilt(&f->r, w->in[i]);
  for (int j = 0; j < w->attr.n_out; j++) types[j] = w->out[j]->dtype, shapes[j] = w->out[j]->shape;
  mn_node *n = mn_node_new(f->r.now->g, &mn_op_ew, w->attr.n_in, in, w->attr.n_out, types, shapes, &w->attr);
  if (!n) return mn_graph_status(f->r.now->g);
  n->phase = f->g->nodes[group]->phase;
  for (int j = 0; j < w->attr.n_out; j++) {
    n->out[j]->name = w->out[j]->name;
    *mn_rebuilt(&f->r, w->out[j]) = n->out[j];
  }
  return MN_OK;
}

/* ---- groups in an order that respects their edges ---- */
typedef struct queue { /* a heap of groups that wait for nothing: the one whose last member comes first is on top */
  int n;
  int *group;
} queue;

static void push(queue *q, const int *key, int group) {
  int i = q->n++;
  for (; i > 0 && key[q->group[(i - 1) / 2]] > key[group]; i = (i - 1) / 2) q->group[i] = q->group[(i - 1) / 2];
  q->group[i] = group;
}

static int pop(queue *q, const int *key) {
  const int top = q->group[0], last = q->group[--q->n];
  int i = 0;
  for (int child; (child = 2 * i + 1) < q->n; i = child) {
    if (child + 1 < q->n && key[q->group[child + 1]] < key[q->group[child]]) child++;
    if (key[last] <= key[q->group[child]]) break;
    q->group[i] = q->group[child];
  }
  q->group[i] = last;
  return top;
}

static bool is_bound(const mn_node *n) { return n->op->bound; }

static mn_status emit_one(fusion *f, int group) {
  const mn_node *node = f->g->nodes[group];
  if (f->size[group] > 1 || is_ew(node)) return emit_group(f, group);
  return mn_rebuild_copy(&f->r, node) ? MN_OK : mn_graph_status(f->r.now->g);
}

/* A group is keyed by its last member, so the order stays close to the given one. */
static mn_status emit(fusion *f) {
  int *waits = mn_calloc((size_t)f->n + 1, sizeof *waits), emitted = 0, total = 0;
  queue q = {.group = mn_alloc(((size_t)f->n + 1) * sizeof *q.group)};
  mn_status status = waits && q.group ? MN_OK : MN_ERR_MEMORY;
  for (int i = 0; i < f->n && status == MN_OK; i++) {
    if (!f->r.needed[i] && !is_bound(f->g->nodes[i])) continue;
    total += f->group[i] == i;
    for (int k = 0; k < f->n_producers[i]; k++) waits[f->group[i]] += f->group[f->producers[i][k]] != f->group[i];
  }
  for (int i = 0; i < f->n && status == MN_OK; i++)
    if ((f->r.needed[i] || is_bound(f->g->nodes[i])) && f->group[i] == i && waits[i] == 0) push(&q, f->hi, i);
  while (status == MN_OK && q.n) {
    const int pick = pop(&q, f->hi);
    emitted++;
    status = emit_one(f, pick);
    for (int m = pick, first = 1; first || m != pick; m = f->next[m], first = 0)
      for (int c = 0; c < f->n_consumers[m]; c++) {
        int t = f->group[f->consumers[m][c]];
        if (t != pick && --waits[t] == 0) push(&q, f->hi, t);
      }
  }
  if (status == MN_OK && emitted < total) status = mn_fail(MN_ERR_INTERNAL, "fuse: the groups have a cycle");
  free(waits);
  free(q.group);
  return status;
}

mn_status mn_pass_fuse(mn_arena *arena, mn_draft *p, mn_plan_report *report) {
  fusion f = {.g = p->g, .n = p->g->n_nodes};
  mn_draft now;
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
