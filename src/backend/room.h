/* room.h - memory of a backend for what may never be filled. */
#ifndef MN_BACKEND_ROOM_H
#define MN_BACKEND_ROOM_H

#include "backend/backend.h"
#include "base/pages.h"

/* Whether a room is pages (base/pages.h), which its owner may drop and share: where the backend's memory is the process's own. */
static inline bool mn_backend_has_pages(const mn_backend *b) { return b->on_host; }
/* Zeros that cost memory as far as they are written, where rooms are pages; else all of it. Not for mn_backend.free. */
void *mn_backend_room(mn_backend *b, size_t bytes);
void mn_backend_room_free(mn_backend *b, void *p, size_t bytes);

#endif
