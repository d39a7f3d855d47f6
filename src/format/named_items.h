/* named_items.h - the lists of named tensors that writers of files keep (private to them). */
#ifndef MN_NAMED_ITEMS_H
#define MN_NAMED_ITEMS_H

#include "base/base.h"

/* Room for one more of items of `size` bytes each, in *data, which holds count of them and has memory for *cap. */
mn_status mn_items_room(void **data, size_t count, size_t *cap, size_t size);
/* MN_ERR_ARG where two of n items have one name. */
mn_status mn_items_differ(size_t n, const char *(*name)(const void *ctx, size_t i), const void *ctx);

#endif
