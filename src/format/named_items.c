/* named_items.c - see named_items.h. */
#include "format/named_items.h"

#include <stdlib.h>
#include <string.h>

mn_status mn_items_room(void **data, size_t count, size_t *cap, size_t size) {
  if (count < *cap) return MN_OK;
  size_t more = *cap ? *cap * 2 : 16;
  void *grown = mn_realloc(*data, more * size);
  if (!grown) return MN_ERR_MEMORY;
  *data = grown;
  *cap = more;
  return MN_OK;
}

static int in_order(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

mn_status mn_items_differ(size_t n, const char *(*name)(const void *ctx, size_t i), const void *ctx) {
  const char **sorted = mn_alloc((n + 1) * sizeof *sorted);
  mn_status status = sorted ? MN_OK : MN_ERR_MEMORY;
  for (size_t i = 0; i < n && sorted; i++) sorted[i] = name(ctx, i);
  if (sorted) qsort(sorted, n, sizeof *sorted, in_order);
  for (size_t i = 1; i < n && status == MN_OK; i++)
    if (!strcmp(sorted[i - 1], sorted[i])) status = mn_fail(MN_ERR_ARG, "two tensors are named '%s'", sorted[i]);
  free(sorted);
  return status;
}
