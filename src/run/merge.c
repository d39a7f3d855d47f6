/* merge.c - see merge.h. For a projection of `in` entries the policy is applied to the rows of the identity: y [in,out] = W^T. */
#include "run/merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run/program.h"

typedef struct merging {
  const mn_model *model;
  const mn_params *from;
  mn_params *to;
  int i;            /* the matrix, of `to`, that is made */
  char path[512];   /* where its projection stands: "layers.0.mixer" ... */
  const char *name; /* ... and its name there: "q_proj"; points into path's buffer */
} merging;

/* Parameter i of `to` is the matrix [out,in] of some projection. */
static bool is_projection(merging *m, int i) {
  const mn_param_info *p = &m->to->info[i];
  snprintf(m->path, sizeof m->path, "%s", p->name);
  char *end = strrchr(m->path, '.');
  if (!(p->flags & MN_PARAM_MATRIX) || p->shape.ndim != 2 || !end || strcmp(end, ".weight") != 0) return false;
  *end = 0;
  char *dot = strrchr(m->path, '.');
  m->name = dot ? dot + 1 : m->path;
  if (dot) *dot = 0;
  m->i = i;
  return true;
}

/* The scope in which the projection is made, with the model's policies. */
static mn_scope *scope_of(mn_scope *s, const merging *m) {
  mn_scope_set_linear(s, &m->model->linear);
  return m->name == m->path ? s : mn_scope_in(s, "%s", m->path);
}

static mn_status build(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  const merging *m = ctx;
  mn_graph *g = mn_scope_graph(s);
  const mn_param_info *p = &m->to->info[m->i];
  const int64_t in = p->shape.dim[1];
  mn_scope *at = scope_of(s, m);
  const mn_linear_rule *rule = mn_linear_rule_of(at, m->name);
  const mn_linear_use use = {.name = m->name, .out = p->shape.dim[0], .init = p->init, .result = MN_F32};
  (void)form;
  mn_tensor *row = mn_iota(g, MN_I32, MN_SHAPE(in, in), 0), *column = mn_iota(g, MN_I32, MN_SHAPE(in, in), 1);
  mn_tensor *y = rule ? rule->def->apply(at, rule->config, &use, mn_cast(g, mn_eq(g, row, column), MN_F32)) : NULL;
  if (y) mn_parts_give(parts, "weight", mn_transpose(g, y, 0, 1));
  return MN_OK;
}

static mn_status made_by_policy(merging *m, float *host) {
  const mn_program_config c = {
      .backend = m->from->backend, .params = m->from, .build = {.param = MN_F32, .compute = MN_F32}, .builder = build, .ctx = m};
  const mn_form form = {.batch = 1, .length = 1, .multiple = 1};
  mn_program *p = NULL;
  mn_routine *r;
  mn_status status = mn_program_new(&c, &p);
  if (status == MN_OK) status = mn_program_enter(p, &form, &r);
  if (status == MN_OK) {
    status = mn_routine_run(r, NULL);
    if (status == MN_OK) status = mn_routine_get_all(r, 0, host);
    mn_program_leave(p);
  }
  mn_program_free(p);
  return status;
}

/* Which projections have a policy is known from names alone. */
static bool has_policy(const merging *m) {
  mn_graph *g = mn_graph_new();
  mn_scope *s = g ? mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32}, 1) : NULL;
  const bool yes = s && mn_linear_rule_of(scope_of(s, m), m->name);
  mn_graph_free(g);
  return yes;
}

static mn_status copied(const merging *m, int i, void *host, size_t bytes) {
  const char *name = m->to->info[i].name;
  const int k = mn_params_find(m->from, name);
  if (k < 0 || mn_params_bytes(m->from, k) != bytes || !m->from->data[k])
    return mn_fail(MN_ERR_INTERNAL, "%s has no place in the model that is merged", name);
  return m->from->backend->download(m->from->backend, host, m->from->data[k], bytes);
}

static mn_status fill(merging *m, int i, int *merged) {
  const size_t bytes = mn_params_bytes(m->to, i);
  void *host = mn_alloc(bytes + 1);
  mn_status status = host ? mn_params_writable(m->to, i) : MN_ERR_MEMORY;
  if (status == MN_OK && is_projection(m, i) && has_policy(m)) {
    status = mn_context(made_by_policy(m, host), "%s", m->to->info[i].name);
    ++*merged;
  } else if (status == MN_OK) status = copied(m, i, host, bytes);
  if (status == MN_OK) status = m->to->backend->upload(m->to->backend, m->to->data[i], host, bytes);
  free(host);
  return status;
}

/* The same model without policies. */
static mn_status without_policies(const mn_model *model, mn_model **out) {
  mn_arena *arena = mn_arena_new();
  const mn_value *v = arena ? mn_model_to_value(arena, model) : NULL;
  const char **keys = v ? mn_arena_alloc(arena, (v->count + 1) * sizeof *keys) : NULL;
  const mn_value **values = v ? mn_arena_alloc(arena, (v->count + 1) * sizeof *values) : NULL;
  size_t n = 0;
  for (size_t i = 0; keys && values && i < v->count; i++) {
    if (!strcmp(v->as.entries[i].key, "linear")) continue;
    keys[n] = v->as.entries[i].key;
    values[n++] = v->as.entries[i].value;
  }
  const mn_value *map = keys && values ? mn_value_map(arena, n, keys, values) : NULL;
  mn_status status = map ? mn_model_parse(map, "model", 0, out) : MN_ERR_MEMORY;
  mn_arena_free(arena);
  return status;
}

mn_status mn_merge_linear(const mn_model *model, const mn_params *p, mn_model **out, mn_params **params, int *merged) {
  merging m = {.model = model, .from = p};
  *out = NULL;
  *params = NULL;
  *merged = 0;
  if (!model->linear.n) return mn_fail(MN_ERR_CONFIG, "the model has no linear policies (model.linear): there is nothing to merge");
  mn_status status = without_policies(model, out);
  if (status == MN_OK) status = mn_params_declare(*out, p->backend, MN_F32, params);
  m.to = *params;
  for (int i = 0; status == MN_OK && i < m.to->n_all; i++) status = fill(&m, i, merged);
  if (status == MN_OK) return MN_OK;
  mn_params_free(*params);
  mn_model_free(*out);
  *params = NULL;
  *out = NULL;
  return status;
}
