/* optimizer.h - AdamW and Muon as part of a graph: gradients in, parameters and moments out, assigned in place.
 *
 * The step's scalars come from outside as a small vector, so that a compiled plan serves every step. */
#ifndef MN_OPTIMIZER_H
#define MN_OPTIMIZER_H

#include "model/params.h"

typedef enum mn_optimizer_kind { MN_OPTIMIZER_ADAMW, MN_OPTIMIZER_MUON } mn_optimizer_kind;

typedef struct mn_optimizer_config { /* the section `train.optimizer` */
  int type;                          /* mn_optimizer_kind */
  double lr;
  mn_floats betas;
  double beta1, beta2; /* of betas */
  double eps, weight_decay, momentum;
} mn_optimizer_config;
extern const mn_field mn_optimizer_fields[];
mn_status mn_optimizer_check(const mn_value *map, const char *where, mn_optimizer_config *c);

/* ---- groups of parameters ---- what the recipe says of those whose names fit a pattern; the first group that fits counts */
typedef struct mn_param_group { /* of train.groups */
  const char *match;            /* over the whole name; * stands for any signs, ? for one */
  double lr, weight_decay;      /* below 0: the optimizer's */
  int optimizer;                /* MN_GROUP_AS_OPTIMIZER, MN_GROUP_ADAMW, MN_GROUP_MUON */
  bool frozen;                  /* no gradient, no moment, no decay */
  const mn_value *at;           /* where it stands */
} mn_param_group;
enum { MN_GROUP_AS_OPTIMIZER, MN_GROUP_ADAMW, MN_GROUP_MUON };
typedef struct mn_param_groups {
  int n;
  mn_param_group *list;
} mn_param_groups;
extern const mn_field mn_group_fields[];
/* v: the recipe's list (NULL: none); lives in the arena. */
mn_status mn_groups_parse(mn_arena *arena, const mn_value *v, const char *where, const mn_optimizer_config *c, mn_param_groups *out);
const mn_value *mn_groups_to_value(mn_arena *arena, const mn_param_groups *groups);

/* ---- the moments' memory ---- */
typedef struct mn_optimizer {
  mn_optimizer_config config;
  const mn_params *params;
  const mn_param_group **group; /* [params->n]; NULL: none */
  mn_dtype moment;              /* type of the moments: the parameters', of those in bf16 f32 */
  void **m, **v;                /* [params->n], of the parameter's shape; v is NULL where Muon moves it, both where it is frozen */
} mn_optimizer;
/* Moments are zeros. A group that fits no parameter, or none that an earlier one has not, is MN_ERR_CONFIG with the nearest names. */
mn_status mn_optimizer_new(const mn_optimizer_config *config, const mn_param_groups *groups, const mn_params *params, mn_optimizer **out);
bool mn_optimizer_moves(const mn_optimizer *o, int i); /* parameter i is not frozen */
void mn_optimizer_free(mn_optimizer *o);

/* ---- its part of a graph ---- */
typedef struct mn_update { /* made by mn_optimizer_build; arrays live in the graph's arena */
  mn_tensor *rate;         /* input f32 [3]: {learning rate, 1 - beta1^t, 1 - beta2^t}        */
  mn_tensor *norm;         /* f32 []: of all gradients together, before clipping              */
  mn_tensor **m, **v;      /* variables, one per parameter; NULL where there is no such moment  */
  int n_assigns;
  mn_tensor **variables, **values;
} mn_update;
/* params[i] and grads[i] are the i-th parameter in mn_params' order; where a gradient is NULL (frozen, or no part of what is
 * trained) nothing moves. clip_norm 0: no clipping. Where the norm of all gradients is
 * not finite nothing moves: parameters and moments stay as they are. Parameters that are kept in bf16 are moved in f32 and rounded by
 * chance (mn_round_stochastic), whose draws are of the seed, "optimizer.<parameter>" and the step: most of an update is smaller than half
 * their last place, and would be lost by rounding to the nearest. */
void mn_optimizer_build(const mn_optimizer *o, mn_scope *s, mn_tensor *const *params, mn_tensor *const *grads, double clip_norm,
                        mn_update *out);
void mn_optimizer_bind(const mn_optimizer *o, const mn_update *u, mn_plan *plan);
/* What goes into u->rate for step t = 1, 2, ... */
void mn_optimizer_rate(const mn_optimizer *o, double learning_rate, int64_t t, float rate[3]);

#endif
