/* buffers.h - memory of a backend for a plan's inputs and states: made zeroed, bound, written and read by number. */
#ifndef MN_BUFFERS_H
#define MN_BUFFERS_H

#include "compile/plan.h"

typedef struct mn_buffer {
  const char *name; /* of the leaf; lives as long as its graph */
  mn_dtype dtype;
  mn_shape shape;
  void *data;
  size_t bytes;
} mn_buffer;

typedef struct mn_buffers {
  mn_backend *backend;
  mn_buffer *list;
  int n, cap;
} mn_buffers;

/* *index (may be NULL) receives its number. plan may be NULL. */
mn_status mn_buffers_add(mn_buffers *b, mn_backend *backend, mn_plan *plan, const mn_tensor *leaf, int *index);
mn_status mn_buffers_put(mn_buffers *b, int index, const void *host);
void mn_buffers_free(mn_buffers *b);

#endif
