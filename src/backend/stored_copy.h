/* stored_copy.h - a tensor in a type of storage to another place: rows of whole blocks, as they lie. */
#ifndef MN_STORED_COPY_H
#define MN_STORED_COPY_H

#include <string.h>

#include "backend/backend.h"

static inline mn_status mn_copy_stored(const mn_view *x, mn_view *y) { /* y is dense */
  const int64_t K = x->ndim ? x->dim[x->ndim - 1] : 1, rows = K ? mn_view_count(x) / K : 0;
  if (K > 1 && x->stride[x->ndim - 1] != 1) return mn_fail(MN_ERR_UNSUPPORTED, "copy: rows in a type of storage lie in one piece");
  for (int64_t r = 0; r < rows; r++) {
    int64_t from = 0, i = r;
    for (int d = x->ndim - 2; d >= 0; d--) from += i % x->dim[d] * x->stride[d], i /= x->dim[d];
    memcpy((char *)y->data + mn_dtype_bytes(x->dtype, r * K), (const char *)x->data + mn_dtype_bytes(x->dtype, from),
           mn_dtype_bytes(x->dtype, K));
  }
  return MN_OK;
}

#endif
