/* kept_tensor.h - a state's tensor in a file: as it is, or where safetensors has no such type, as those of blocks, its bytes (U8, the last
 * axis in bytes). So a saved stream carries the types of its caches, and goes on in them alone. */
#ifndef MN_KEPT_TENSOR_H
#define MN_KEPT_TENSOR_H

#include "format/safetensors.h"

/* What it is given to the writer as. */
mn_dtype mn_kept_type(mn_dtype type);
mn_shape mn_kept_shape(mn_dtype type, const mn_shape *shape);
/* Of its bytes [offset, offset + n), which begin at an even place: the place of one that makes a number that is not finite; -1: none. */
int64_t mn_kept_not_finite(mn_dtype type, size_t offset, size_t n, const void *bytes);
/* Refuses what is missing, of another type or shape, not finite, changed, or (sums) without a checksum; `put` is given its bytes. */
mn_status mn_kept_read(const mn_st *st, const char *name, mn_dtype type, const mn_shape *shape, bool sums, mn_st_sink put, void *ctx);

#endif
