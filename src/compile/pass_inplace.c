/* pass_inplace.c - the lives of storages, and results that are written into the memory of what dies: assigned values into
 * their variables, temporaries into their operands. */
#include "compile/plan_internal.h"

#include <stdlib.h>
#include <string.h>

void mn_plan_lifetimes(mn_plan *p) {
  for (int i = 0; i < p->n_storages; i++) p->storages[i].first = p->storages[i].last = -1;
  for (int t = 0; t < p->n_steps; t++) {
    mn_plan_step *s = p->steps[t];
    mn_steps_ahead(p, t);
    if (s->dropped) continue;
    for (int i = 0; i < s->call.n_in; i++) {
      mn_storage *m = &p->storages[mn_storage_root(p, s->in_storage[i])];
      if (m->first < 0) m->first = t;
      m->last = t;
    }
    for (int j = 0; j < s->call.n_out; j++) {
      if (s->out_storage[j] < 0) continue;
      mn_storage *m = &p->storages[mn_storage_root(p, s->out_storage[j])];
      if (m->first < 0) m->first = t;
      if (m->last < t) m->last = t;
    }
  }
}

static bool is_elementwise(const mn_node *n) { return mn_is(n, MN_IS_PROGRAM) || n->op->cls == MN_OP_ELEMENTWISE; }

/* May output j of step s be where input i is, whatever else the step reads and writes? */
static bool may_share(const mn_plan_step *s, int j, int i) {
  const mn_node *n = s->call.node;
  const mn_shape *si = &n->in[i]->shape, *so = &n->out[j]->shape;
  if (is_elementwise(n)) {
    if (mn_dtype_size(n->in[i]->dtype) != mn_dtype_size(n->out[j]->dtype)) return false;
  } else if (mn_is(n, MN_IS_LOOP)) {
    if (j >= ((const mn_scan_attr *)n->attr)->n_carry || i != j) return false;
  } else if (!n->op->inplace || n->op->inplace(n, j) != i) {
    return false;
  }
  return mn_shape_equal(si, so) && s->in_offset[i] == 0 && mn_view_dense(&s->call.in[i]);
}

static bool lies_like(const mn_plan_step *s, int k, int i) { /* operand k is read where operand i is, element by element */
  const mn_view *a = &s->call.in[k], *b = &s->call.in[i];
  return s->in_offset[k] == s->in_offset[i] && mn_dtype_size(a->dtype) == mn_dtype_size(b->dtype) && a->ndim == b->ndim &&
         memcmp(a->dim, b->dim, sizeof a->dim) == 0 && memcmp(a->stride, b->stride, sizeof a->stride) == 0;
}

/* May output j of step s overwrite input i? The input must be dense and read in no other way by this step. */
static bool may_overwrite(const mn_plan *p, const mn_plan_step *s, int j, int i) {
  if (!may_share(s, j, i)) return false;
  const int root = mn_storage_root(p, s->in_storage[i]);
  for (int k = 0; k < s->call.n_in; k++)
    if (k != i && mn_storage_root(p, s->in_storage[k]) == root && !(is_elementwise(s->call.node) && lies_like(s, k, i))) return false;
  for (int k = 0; k < s->call.n_out; k++)
    if (k != j && s->out_storage[k] >= 0 && mn_storage_root(p, s->out_storage[k]) == root) return false;
  return true;
}

/* An assigned value is written straight into its variable when nothing reads the old value afterwards. */
static mn_status assign_in_place(mn_plan *p) {
  typedef struct use {
    int made, out;        /* the step that writes it, and as which output */
    int last_read, input; /* the last step that reads it, and as which input */
  } use;
  use *uses = mn_alloc(((size_t)p->n_storages + 1) * sizeof *uses);
  if (!uses) return MN_ERR_MEMORY;
  for (int i = 0; i < p->n_storages; i++) uses[i] = (use){-1, -1, -1, -1};
  for (int i = 0; i < p->n_steps; i++) {
    mn_plan_step *s = p->steps[i];
    mn_steps_ahead(p, i);
    for (int k = 0; k < s->call.n_in; k++) {
      use *u = &uses[s->in_storage[k]];
      u->last_read = i, u->input = k;
    }
    for (int j = 0; j < s->call.n_out; j++) {
      if (s->out_storage[j] < 0) continue;
      use *u = &uses[s->out_storage[j]];
      if (u->made < 0) u->made = i, u->out = j;
    }
  }
  for (int t = p->n_steps - 1; t >= 0; t--) {
    mn_plan_step *copy = p->steps[t];
    if (!mn_is(copy->call.node, MN_IS_COPY)) continue;
    int var = copy->out_storage[0], temp = copy->in_storage[0];
    if (p->storages[var].kind != MN_STORAGE_LEAF || p->storages[temp].kind != MN_STORAGE_TEMP || p->storages[temp].alias >= 0) continue;
    if (p->storages[temp].bytes != p->storages[var].bytes) continue;
    int made = uses[temp].made, last_read = uses[var].last_read;
    if (made < 0 || last_read > made) continue;
    if (last_read == made && !may_overwrite(p, p->steps[made], uses[temp].out, uses[var].input)) continue;
    p->storages[temp].alias = var;
    copy->dropped = true;
    p->report.copies--;
    p->report.in_place++;
  }
  free(uses);
  return MN_OK;
}

/* How many operands and results of step s lie in each storage, added `sign` times. */
static void count_touched(const mn_plan *p, const mn_plan_step *s, int sign, int *touched) {
  for (int i = 0; i < s->call.n_in; i++) touched[mn_storage_root(p, s->in_storage[i])] += sign;
  for (int j = 0; j < s->call.n_out; j++)
    if (s->out_storage[j] >= 0) touched[mn_storage_root(p, s->out_storage[j])] += sign;
}

/* Output j of step t into the memory of an operand that dies there. A loop may have as many operands as the model has parameters, and of them
 * only operand j comes into question. */
static void output_in_place(mn_plan *p, int t, int j, int *touched) {
  const mn_plan_step *s = p->steps[t];
  const int out = mn_storage_root(p, s->out_storage[j]);
  if (p->storages[out].kind == MN_STORAGE_LEAF || p->storages[out].first != t) return;
  const bool loop = mn_is(s->call.node, MN_IS_LOOP);
  for (int i = loop ? j : 0; i < (loop && j + 1 < s->call.n_in ? j + 1 : s->call.n_in); i++) {
    const int in = mn_storage_root(p, s->in_storage[i]);
    mn_storage *m = &p->storages[in];
    if (in == out || m->kind != MN_STORAGE_TEMP || m->last != t || m->bytes != p->storages[out].bytes) continue;
    if (!(touched[in] == 1 ? may_share(s, j, i) : is_elementwise(s->call.node) && may_overwrite(p, s, j, i))) continue;
    m->alias = out;
    p->storages[out].first = m->first;
    touched[out] += touched[in];
    touched[in] = 0;
    p->report.in_place++;
    return;
  }
}

static mn_status temporaries_in_place(mn_plan *p) {
  int *touched = mn_calloc((size_t)p->n_storages + 1, sizeof *touched);
  if (!touched) return MN_ERR_MEMORY;
  for (int t = 0; t < p->n_steps; t++) {
    const mn_plan_step *s = p->steps[t];
    mn_steps_ahead(p, t);
    if (s->dropped) continue;
    count_touched(p, s, 1, touched);
    for (int j = 0; j < s->call.n_out; j++)
      if (s->out_storage[j] >= 0) output_in_place(p, t, j, touched);
    count_touched(p, s, -1, touched);
  }
  free(touched);
  return MN_OK;
}

mn_status mn_pass_inplace(mn_plan *p) {
  MN_TRY(assign_in_place(p));
  mn_plan_lifetimes(p);
  return temporaries_in_place(p);
}
