/* optimizer.h - AdamW and Muon as part of a graph: gradients in, parameters and moments out, assigned in place.
 *
 * The step's scalars come from outside as a small vector, so that a compiled plan serves every step. */
#ifndef MN_OPTIMIZER_H
#define MN_OPTIMIZER_H

#include "model/model.h"

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

/* ---- the moments' memory ---- */
typedef struct mn_optimizer {
  mn_optimizer_config config;
  const mn_params *params;
  void **m, **v; /* [params->n], as the parameter; v is NULL where Muon moves the parameter */
} mn_optimizer;
mn_status mn_optimizer_new(const mn_optimizer_config *config, const mn_params *params, mn_optimizer **out); /* zeros */
void mn_optimizer_free(mn_optimizer *o);

/* ---- its part of a graph ---- */
typedef struct mn_update { /* made by mn_optimizer_build; arrays live in the graph's arena */
  mn_tensor *rate;         /* input f32 [3]: {learning rate, 1 - beta1^t, 1 - beta2^t}        */
  mn_tensor *norm;         /* f32 []: of all gradients together, before clipping              */
  mn_tensor **m, **v;      /* variables, one per parameter of the scope; v may hold NULL      */
  int n_assigns;
  mn_tensor **variables, **values;
} mn_update;
/* params[i] and grads[i] are the i-th parameter in mn_params' order. clip_norm 0: no clipping. Where the norm of all gradients is
 * not finite nothing moves: parameters and moments stay as they are. */
void mn_optimizer_build(const mn_optimizer *o, mn_graph *g, mn_tensor *const *params, mn_tensor *const *grads, double clip_norm,
                        mn_update *out);
void mn_optimizer_bind(const mn_optimizer *o, const mn_update *u, mn_plan *plan);
/* What goes into u->rate for step t = 1, 2, ... */
void mn_optimizer_rate(const mn_optimizer *o, double learning_rate, int64_t t, float rate[3]);

#endif
