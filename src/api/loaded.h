/* loaded.h - the file that a handle was loaded from: saving to it again is refused when somebody else has written it meanwhile. */
#ifndef MN_API_LOADED_H
#define MN_API_LOADED_H

#include <stdlib.h>

#include "base/file.h"

typedef struct mn_loaded {
  char *path; /* NULL: from none */
  mn_file_stamp stamp;
} mn_loaded;

/* Before it is read: what comes afterwards is another's. */
static inline mn_status mn_loaded_begin(mn_loaded *l, const char *path) {
  *l = (mn_loaded){mn_strdup(path), mn_file_stamp_of(path)};
  return l->path ? MN_OK : MN_ERR_MEMORY;
}

static inline void mn_loaded_end(mn_loaded *l) {
  free(l->path);
  *l = (mn_loaded){0};
}

/* What saving to `path` may replace: NULL: anything. */
static inline mn_file_stamp *mn_loaded_at(mn_loaded *l, const char *path) {
  return l->path && mn_file_same(l->path, path) ? &l->stamp : NULL;
}

#endif
