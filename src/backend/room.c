/* room.c - see room.h. */
#include "backend/room.h"

void *mn_backend_room(mn_backend *b, size_t bytes) {
  if (mn_backend_has_pages(b)) return mn_pages_new(bytes);
  void *p = b->alloc(b, bytes);
  if (!p || b->zero(b, p, bytes) == MN_OK) return p;
  b->free(b, p, bytes);
  return NULL;
}

void mn_backend_room_free(mn_backend *b, void *p, size_t bytes) {
  if (mn_backend_has_pages(b)) mn_pages_free(p, bytes);
  else if (p) b->free(b, p, bytes);
}
