/* plan_alike.c - what kernels make ready before the first run. In a deep model most steps do what another does with tensors of the same
 * shapes, lying alike: where a kernel says that what it makes ready follows from that alone, such steps share it. */
#include "compile/plan_internal.h"

#include <stdlib.h>
#include <string.h>

typedef struct alike { /* open addressing; a step is beside the place that its hash names */
  const mn_plan_step **at;
  size_t size, used; /* size: a power of two, at most half of it used */
} alike;

static uint64_t hash_view(uint64_t h, const mn_view *v) {
  h = mn_hash_mix(h, (uint64_t)v->dtype * 16 + (uint64_t)v->ndim);
  for (int d = 0; d < v->ndim; d++) h = mn_hash_mix(mn_hash_mix(h, (uint64_t)v->dim[d]), (uint64_t)v->stride[d]);
  return h;
}

static uint64_t hash_step(const mn_call *c) {
  uint64_t h = mn_hash_mix((uint64_t)(uintptr_t)c->kernel, c->unread);
  for (int i = 0; i < c->n_in; i++) h = hash_view(h, &c->in[i]);
  for (int j = 0; j < c->n_out; j++) h = hash_view(h, &c->out[j]);
  const size_t n = mn_attr_bytes(c->node->op, c->attr);
  return n ? mn_hash_words(c->attr, n, h) : h;
}

static bool same_view(const mn_view *a, const mn_view *b) {
  if (a->dtype != b->dtype || a->ndim != b->ndim) return false;
  for (int d = 0; d < a->ndim; d++)
    if (a->dim[d] != b->dim[d] || a->stride[d] != b->stride[d]) return false;
  return true;
}

static bool same_call(const mn_call *a, const mn_call *b) {
  if (a->kernel != b->kernel || a->node->op != b->node->op || a->backend != b->backend || a->n_in != b->n_in || a->n_out != b->n_out ||
      a->unread != b->unread)
    return false;
  for (int i = 0; i < a->n_in; i++)
    if (!same_view(&a->in[i], &b->in[i])) return false;
  for (int j = 0; j < a->n_out; j++)
    if (!same_view(&a->out[j], &b->out[j])) return false;
  const size_t n = mn_attr_bytes(a->node->op, a->attr);
  return n == mn_attr_bytes(b->node->op, b->attr) && (n == 0 || memcmp(a->attr, b->attr, n) == 0);
}

static mn_status grow(alike *t) {
  const alike old = *t;
  t->size = old.size ? 2 * old.size : 64;
  t->at = mn_calloc(t->size, sizeof *t->at);
  if (!t->at) {
    *t = old;
    return MN_ERR_MEMORY;
  }
  for (size_t i = 0; i < old.size; i++) {
    if (!old.at[i]) continue;
    size_t place = hash_step(&old.at[i]->call) & (t->size - 1);
    while (t->at[place]) place = (place + 1) & (t->size - 1);
    t->at[place] = old.at[i];
  }
  free(old.at);
  return MN_OK;
}

/* The earlier step that is like s, or NULL: s is remembered now. */
static mn_status twin_of(alike *t, const mn_plan_step *s, const mn_plan_step **twin) {
  *twin = NULL;
  if (2 * (t->used + 1) > t->size) MN_TRY(grow(t));
  size_t place = hash_step(&s->call) & (t->size - 1);
  for (; t->at[place]; place = (place + 1) & (t->size - 1))
    if (same_call(&t->at[place]->call, &s->call)) {
      *twin = t->at[place];
      return MN_OK;
    }
  t->at[place] = s;
  t->used++;
  return MN_OK;
}

static mn_status prepare(alike *known, mn_plan_step *s) {
  const mn_kernel *k = s->call.kernel;
  const mn_plan_step *twin = NULL;
  if (k->alike) MN_TRY(twin_of(known, s, &twin));
  if (twin) {
    s->call.state = twin->call.state;
    s->workspace_bytes = twin->workspace_bytes;
    s->shares_state = true;
    return MN_OK;
  }
  if (k->prepare) MN_TRY(mn_context(k->prepare(&s->call), "%s", k->name));
  s->workspace_bytes = k->workspace ? k->workspace(&s->call) : 0;
  return MN_OK;
}

mn_status mn_plan_prepare(mn_plan *p) {
  alike known = {0};
  mn_status status = MN_OK;
  for (int t = 0; t < p->n_steps && status == MN_OK; t++) {
    if (p->steps[t]->dropped) continue;
    p->report.steps++;
    if (!p->steps[t]->body) status = prepare(&known, p->steps[t]);
  }
  free(known.at);
  return status;
}
