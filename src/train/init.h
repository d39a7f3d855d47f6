/* init.h - the recipe's key `init`: the values of a trained model to begin with, some of them under other names. */
#ifndef MN_INIT_H
#define MN_INIT_H

#include "model/params.h"

typedef struct mn_init_from { /* the section `init` */
  const char *from;           /* directory of a trained model; NULL: the section is not there */
  const mn_value *rename;     /* name in the file -> name in the model, * in both for what stays */
  int missing, unknown;       /* MN_INIT_REFUSE, or MN_INIT_DRAW, MN_INIT_IGNORE */
} mn_init_from;
enum { MN_INIT_REFUSE, MN_INIT_DRAW, MN_INIT_IGNORE = 1 };
extern const mn_field mn_init_fields[];

mn_status mn_init_check(const mn_value *map, const char *where, mn_init_from *c);
/* Fills all parameters: from the file what it has, drawn from `seed` what it lacks (where that is allowed). *drawn: how many. What does
 * not fit (names, shapes, values that are not finite, two tensors for one parameter) is named, and nothing counts then. */
mn_status mn_init_load(const mn_init_from *c, mn_params *params, uint64_t seed, int *drawn);

#endif
