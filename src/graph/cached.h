/* cached.h - caches in types of their own (base/narrow.h): written row by row, and read by attention where they lie. No gradient passes. */
#ifndef MN_CACHED_H
#define MN_CACHED_H

#include "graph/graph.h"

/* x f32 [..., K] as it is read back from a cache of that type: K is a multiple of its blocks. */
mn_tensor *mn_narrowed(mn_graph *g, mn_tensor *x, mn_dtype type);
/* cache [B,S,G,K] in such a type, with rows f32 [B,N,G,K] in the slots that i32 [B,N] names; a slot outside the cache names none. The result
 * is the cache, written in place wherever it is assigned to the variable that it was. */
mn_tensor *mn_cache_put(mn_graph *g, mn_tensor *cache, mn_tensor *slots, mn_tensor *rows);

/* For kernels and passes. */
MN_ATTRS_BEGIN
typedef struct mn_narrowed_attr {
  int type; /* mn_dtype */
} mn_narrowed_attr;
MN_ATTRS_END
extern const mn_op mn_op_narrowed;  /* (x) -> y */
extern const mn_op mn_op_cache_put; /* (cache, slots, rows) -> cache */

#endif
