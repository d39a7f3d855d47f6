/* linear.h - the contract of a linear policy: how a projection y = W x + b is made. The recipe's model chooses by names, the first
 * that fits counts, and what none fits is dense:
 *     linear: [{match: "*.q_proj", type: lora, rank: 8, alpha: 16}, {match: "layers.0.channel.*", type: low_rank, rank: 32}]
 * A policy is a definition `const mn_linear_def mn_linear_<name> = {` in a file of src/nn or src/memory; the build finds it. All
 * of mn_linear, mn_linear_exact and mn_linears_exact pass through here; nobody who projects knows. */
#ifndef MN_LINEAR_H
#define MN_LINEAR_H

#include "format/config.h"
#include "nn/scope.h"

typedef struct mn_linear_use { /* one projection, as who builds asked for it */
  const char *name;            /* below the scope: "q_proj" */
  int64_t out;
  bool bias;
  mn_init init, bias_init;
  mn_dtype result; /* type of y */
} mn_linear_use;

typedef struct mn_linear_def {
  const char *name;    /* the recipe's `type` */
  const char *summary; /* one line            */
  const char *paper;   /* NULL: none          */
  size_t config_size;
  const mn_field *fields;                                                                     /* NULL: none */
  mn_status (*check)(const mn_value *map, const char *where, void *config);                   /* NULL: nothing to check */
  mn_tensor *(*apply)(mn_scope *s, const void *config, const mn_linear_use *u, mn_tensor *x); /* x [...,in] -> [...,out]; NULL: dense */
} mn_linear_def;

int mn_linear_count(void);
const mn_linear_def *mn_linear_at(int i);

typedef struct mn_linear_rule {
  const char *match; /* of names as "layers.0.mixer.q_proj": * any signs, ? one */
  const mn_linear_def *def;
  void *config;
  const mn_value *at; /* where it was written, while that tree lives */
} mn_linear_rule;
struct mn_linear_rules {
  int n;
  mn_linear_rule *list;
};

/* list: the recipe's `linear`; NULL: none. Lives in the arena. */
mn_status mn_linear_rules_parse(mn_arena *arena, const mn_value *list, const char *where, mn_linear_rules *out);
const mn_value *mn_linear_rules_to_value(mn_arena *arena, const mn_linear_rules *rules); /* NULL: there are none, or no memory */
/* The rule for the projection `name` below s; NULL: dense. */
const mn_linear_rule *mn_linear_rule_of(const mn_scope *s, const char *name);
/* MN_OK when every rule fits at least one name of the n parameters; else the rule, with names that are like it. */
mn_status mn_linear_rules_check(const mn_linear_rules *rules, int n, const mn_param_info *params);

#endif
