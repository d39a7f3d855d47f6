/* idx.h - arrays of bytes as the MNIST family stores them (IDX, yann.lecun.com/exdb/mnist): a magic number, sizes, data; plain or
 * gzip-compressed. The sizes are checked against limits before memory is asked for, and against the data that is there. */
#ifndef MN_IDX_H
#define MN_IDX_H

#include "base/base.h"

typedef struct mn_idx {
  int ndim; /* 1 to 4 */
  int64_t dim[4];
  uint8_t *data;
} mn_idx;

/* At most 2 GiB of data, which is of unsigned bytes. Free with mn_idx_free. */
mn_status mn_idx_read(const char *path, mn_idx *out);
mn_status mn_idx_parse(const char *name, const void *bytes, size_t n, mn_idx *out); /* plain or compressed */
void mn_idx_free(mn_idx *x);

#endif
