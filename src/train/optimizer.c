/* optimizer.c - see optimizer.h.
 *
 * AdamW (Loshchilov & Hutter 2019) is one fused operation per tensor. Muon (Jordan et al. 2024) moves the hidden matrices:
 * the momentum, made orthogonal by five Newton-Schulz steps, scaled to AdamW's usual root mean square (Liu et al. 2025), so
 * that one learning rate serves both; all other parameters go by AdamW. */
#include "train/optimizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/element.h"
#include "graph/fused_adamw.h"
#include "graph/orthogonal.h"
#include "train/groups.h"

static const char *const kinds[] = {"adamw", "muon", NULL};
#define S mn_optimizer_config
const mn_field mn_optimizer_fields[] = {
    MN_FIELD_ENUM(S, type, kinds, 0, "adamw, or muon for hidden matrices and adamw for the rest"),
    MN_FIELD_FLOAT(S, lr, 1e-3, 0, 100, "learning rate after the warm-up"),
    MN_FIELD_FLOATS(S, betas, 0, 0.999999, "averaging of the gradient and of its square; none: [0.9, 0.95]"),
    MN_FIELD_FLOAT(S, eps, 1e-8, DBL_MIN, 1, "added to the root of the second moment"),
    MN_FIELD_FLOAT(S, weight_decay, 0.1, 0, 10, "decoupled decay of matrices and embeddings, times the learning rate"),
    MN_FIELD_FLOAT(S, momentum, 0.95, 0, 0.999999, "muon: averaging of the gradient"),
    MN_FIELD_END};
#undef S

mn_status mn_optimizer_check(const mn_value *map, const char *where, mn_optimizer_config *c) {
  static const double usual[2] = {0.9, 0.95};
  if (c->betas.count == 0) c->betas = (mn_floats){usual, 2};
  if (c->betas.count != 2) return mn_config_fail(map, where, "betas", "must be two numbers such as [0.9, 0.95]");
  c->beta1 = c->betas.items[0];
  c->beta2 = c->betas.items[1];
  return MN_OK;
}

/* ---- the moments' memory ---- */

static bool by_muon(const mn_optimizer *o, int i) {
  const mn_param_info *p = &o->params->info[i];
  const mn_param_group *group = o->group[i];
  bool muon = group && group->optimizer ? group->optimizer == MN_GROUP_MUON : o->config.type == MN_OPTIMIZER_MUON;
  return muon && (p->flags & MN_PARAM_MATRIX) && p->shape.ndim == 2;
}

bool mn_optimizer_moves(const mn_optimizer *o, int i) {
  return o->group[i] ? !o->group[i]->frozen : !(o->params->info[i].flags & MN_PARAM_FROZEN);
}

static size_t bytes_of(const mn_optimizer *o, int i) {
  return (size_t)mn_shape_count(&o->params->info[i].shape) * mn_dtype_size(o->moment);
}

static mn_status zeros(mn_backend *b, size_t bytes, void **out) {
  *out = b->alloc(b, bytes);
  void *host = mn_calloc(1, bytes);
  mn_status status = *out && host ? b->upload(b, *out, host, bytes) : MN_ERR_MEMORY;
  free(host);
  return status;
}

mn_status mn_optimizer_new(const mn_optimizer_config *config, const mn_param_groups *groups, const mn_params *params, mn_optimizer **out) {
  *out = NULL;
  mn_optimizer *o = mn_calloc(1, sizeof *o);
  if (!o) return MN_ERR_MEMORY;
  *o = (mn_optimizer){.config = *config, .params = params, .moment = params->dtype == MN_BF16 ? MN_F32 : params->dtype};
  o->m = mn_calloc((size_t)params->n + 1, sizeof *o->m);
  o->v = mn_calloc((size_t)params->n + 1, sizeof *o->v);
  o->group = mn_calloc((size_t)params->n + 1, sizeof *o->group);
  mn_status status = o->m && o->v && o->group ? mn_groups_assign(groups, params->info, params->n, o->group) : MN_ERR_MEMORY;
  for (int i = 0; i < params->n && status == MN_OK; i++) {
    if (!mn_optimizer_moves(o, i)) continue;
    status = zeros(params->backend, bytes_of(o, i), &o->m[i]);
    if (status == MN_OK && !by_muon(o, i)) status = zeros(params->backend, bytes_of(o, i), &o->v[i]);
  }
  if (status != MN_OK) mn_optimizer_free(o);
  else *out = o;
  return status;
}

void mn_optimizer_free(mn_optimizer *o) {
  if (!o) return;
  mn_backend *b = o->params->backend;
  for (int i = 0; i < o->params->n; i++) {
    if (o->m && o->m[i]) b->free(b, o->m[i], bytes_of(o, i));
    if (o->v && o->v[i]) b->free(b, o->v[i], bytes_of(o, i));
  }
  free(o->m);
  free(o->v);
  free(o->group);
  free(o);
}

/* ---- the graph ---- */

static mn_tensor *global_norm(mn_graph *g, int n, mn_tensor *const *grads) {
  mn_tensor *sum = NULL;
  for (int i = 0; i < n; i++) {
    if (!grads[i]) continue;
    mn_tensor *s = mn_sumsq(g, grads[i]);
    sum = sum ? mn_add(g, sum, s) : s;
  }
  return mn_sqrt(g, sum ? sum : mn_scalar(g, MN_F32, 0));
}

/* min(1, clip / norm); NaN when the norm is not finite: no step is made then, and what went wrong can be looked for. */
static mn_tensor *clip_scale(mn_graph *g, mn_tensor *norm, double clip) {
  mn_tensor *scale = mn_scalar(g, mn_type(norm), 1);
  if (clip > 0) scale = mn_minimum(g, scale, mn_div(g, mn_scalar(g, mn_type(norm), clip), mn_add_scalar(g, norm, 1e-6)));
  return mn_select(g, mn_le(g, norm, mn_scalar(g, mn_type(norm), 3e38)), scale, mn_scalar(g, mn_type(norm), (double)NAN));
}

static mn_tensor *vector_of(mn_graph *g, mn_tensor *scalar) { return mn_reshape(g, scalar, MN_SHAPE(1)); }
static mn_tensor *at(mn_graph *g, mn_tensor *x, int64_t i) { return mn_reshape(g, mn_slice(g, x, 0, i, 1), (mn_shape){0}); }

typedef struct step_scalars {
  mn_tensor *lr, *scale;
} step_scalars;

/* {rate, corrections, scale, decay} of a parameter of a group; those without one share two, with decay and without. */
typedef struct rates {
  mn_graph *g;
  mn_tensor *rate, *scale, *shared[2];
  double lr, decay; /* of the optimizer */
} rates;

static mn_tensor *scalars_of(const rates *r, mn_tensor *rate, double decay) {
  mn_graph *g = r->g;
  return mn_concat(g, 3, (mn_tensor *[]){rate, vector_of(g, r->scale), vector_of(g, mn_scalar(g, MN_F32, decay))}, 0);
}

/* A group's rate is a fixed part of the optimizer's, so that the schedule holds for both. */
static mn_tensor *group_scalars(const rates *r, const mn_param_group *group, double decay) {
  mn_graph *g = r->g;
  mn_tensor *rate = r->rate;
  if (group->lr >= 0) {
    const float factor[3] = {(float)(group->lr / r->lr), 1, 1};
    rate = mn_mul(g, rate, mn_const(g, MN_F32, MN_SHAPE(3), factor));
  }
  return scalars_of(r, rate, decay);
}

static void muon(mn_graph *g, const mn_optimizer_config *c, const step_scalars *s, double decay, mn_tensor *p, mn_tensor *grad,
                 mn_tensor *m, mn_tensor **p1, mn_tensor **m1) {
  mn_tensor *moves = mn_eq(g, s->scale, s->scale), *m0 = m; /* not NaN */
  grad = mn_mul(g, mn_cast(g, grad, mn_type(p)), s->scale);
  m = mn_add(g, mn_mul_scalar(g, m, c->momentum), grad);
  mn_tensor *look_ahead = mn_add(g, grad, mn_mul_scalar(g, m, c->momentum)); /* Nesterov */
  double rows = (double)mn_dim(p, 0), cols = (double)mn_dim(p, 1);
  mn_tensor *o = mn_mul_scalar(g, mn_orthogonal(g, look_ahead, 5), 0.2 * sqrt(rows > cols ? rows : cols));
  *p1 = mn_select(g, moves, mn_sub(g, p, mn_mul(g, s->lr, mn_add(g, o, mn_mul_scalar(g, p, decay)))), p);
  *m1 = mn_select(g, moves, m, m0);
}

void mn_optimizer_build(const mn_optimizer *o, mn_scope *scope, mn_tensor *const *params, mn_tensor *const *grads, double clip_norm,
                        mn_update *out) {
  const mn_optimizer_config *c = &o->config;
  mn_graph *g = mn_scope_graph(scope);
  int n = o->params->n;
  *out = (mn_update){0};
  mn_tensor **lists = mn_arena_alloc(g->arena, (size_t)(8 * n + 8) * sizeof *lists);
  if (!lists) {
    mn_graph_fault(g, MN_ERR_MEMORY, "%s", mn_message());
    return;
  }
  out->m = lists;
  out->v = lists + n;
  out->variables = lists + 2 * n;
  out->values = lists + 5 * n;
  out->rate = mn_input(g, "rate", MN_F32, MN_SHAPE(3));
  out->norm = global_norm(g, n, grads);
  if (!out->norm) return;
  step_scalars s = {at(g, out->rate, 0), clip_scale(g, out->norm, clip_norm)};
  rates r = {.g = g, .rate = out->rate, .scale = s.scale, .lr = c->lr, .decay = c->weight_decay};
  for (int d = 0; d < 2; d++) r.shared[d] = scalars_of(&r, out->rate, d ? c->weight_decay : 0);
  for (int i = 0; i < n; i++) {
    const mn_param_info *p = &o->params->info[i];
    const mn_param_group *group = o->group[i];
    if (!grads[i] || !o->m[i]) continue;
    double decay = p->flags & MN_PARAM_NO_DECAY ? 0 : group && group->weight_decay >= 0 ? group->weight_decay : c->weight_decay;
    mn_tensor *scalars = group ? group_scalars(&r, group, decay) : r.shared[!(p->flags & MN_PARAM_NO_DECAY)];
    mn_tensor *p1 = NULL, *m1 = NULL, *v1 = NULL, *was = mn_cast(g, params[i], o->moment);
    out->m[i] = mn_variable(g, mn_arena_format(g->arena, "m.%s", p->name), o->moment, p->shape);
    if (by_muon(o, i)) {
      step_scalars own = {group ? at(g, scalars, 0) : s.lr, s.scale};
      muon(g, c, &own, decay, was, grads[i], out->m[i], &p1, &m1);
    } else {
      out->v[i] = mn_variable(g, mn_arena_format(g->arena, "v.%s", p->name), o->moment, p->shape);
      mn_adamw(g, was, grads[i], out->m[i], out->v[i], scalars, (mn_adamw_attr){c->beta1, c->beta2, c->eps}, &p1, &m1, &v1);
    }
    if (mn_type(params[i]) == MN_BF16) p1 = mn_round_stochastic(mn_scope_in(scope, "optimizer"), p->name, p1, MN_BF16);
    mn_tensor *variables[3] = {params[i], out->m[i], out->v[i]}, *values[3] = {p1, m1, v1};
    for (int k = 0; k < 3; k++) {
      if (!variables[k]) continue;
      out->variables[out->n_assigns] = variables[k];
      out->values[out->n_assigns++] = values[k];
    }
  }
}

void mn_optimizer_bind(const mn_optimizer *o, const mn_update *u, mn_plan *plan) {
  for (int i = 0; i < o->params->n; i++) {
    if (u->m[i]) mn_plan_bind(plan, u->m[i], o->m[i]);
    if (u->v[i]) mn_plan_bind(plan, u->v[i], o->v[i]);
  }
}

void mn_optimizer_rate(const mn_optimizer *o, double learning_rate, int64_t t, float rate[3]) {
  rate[0] = (float)learning_rate;
  rate[1] = (float)(1 - pow(o->config.beta1, (double)t));
  rate[2] = (float)(1 - pow(o->config.beta2, (double)t));
}
