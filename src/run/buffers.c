/* buffers.c - see buffers.h. */
#include "run/buffers.h"

#include <stdlib.h>

mn_status mn_buffers_add(mn_buffers *b, mn_backend *backend, mn_plan *plan, const mn_tensor *leaf, int *index) {
  b->backend = backend;
  if (b->n == b->cap) {
    int cap = b->cap ? 2 * b->cap : 16;
    mn_buffer *list = mn_realloc(b->list, (size_t)cap * sizeof *list);
    if (!list) return MN_ERR_MEMORY;
    b->list = list;
    b->cap = cap;
  }
  mn_buffer *x = &b->list[b->n];
  *x = (mn_buffer){.name = leaf->name, .dtype = leaf->dtype, .shape = leaf->shape};
  x->bytes = (size_t)mn_shape_count(&leaf->shape) * mn_dtype_size(leaf->dtype);
  x->data = backend->alloc(backend, x->bytes);
  if (!x->data) return MN_ERR_MEMORY;
  if (index) *index = b->n;
  b->n++;
  mn_status status = backend->zero(backend, x->data, x->bytes);
  if (plan) mn_plan_bind(plan, leaf, x->data);
  return status;
}

mn_status mn_buffers_put(mn_buffers *b, int index, const void *host) {
  return b->backend->upload(b->backend, b->list[index].data, host, b->list[index].bytes);
}

void mn_buffers_free(mn_buffers *b) {
  for (int i = 0; i < b->n; i++) b->backend->free(b->backend, b->list[i].data, b->list[i].bytes);
  free(b->list);
  *b = (mn_buffers){0};
}
