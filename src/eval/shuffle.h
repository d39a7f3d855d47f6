/* shuffle.h - a control for probes of memory: a trained model whose queries and keys no longer fit each other. */
#ifndef MN_SHUFFLE_H
#define MN_SHUFFLE_H

#include "model/params.h"

/* The entries of every q_proj.weight and k_proj.weight change places within their tensor, by a permutation of the seed; values, biases and
 * all else stay. `back`: by the inverse permutation, which brings every bit back. The parameters are the set's own afterwards
 * (mn_params_own). MN_ERR_CONFIG where there are none. */
mn_status mn_shuffle_queries_and_keys(mn_params *p, uint64_t seed, bool back);

#endif
