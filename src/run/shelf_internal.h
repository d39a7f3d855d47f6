/* shelf_internal.h - what the two rooms of a shelf share: shelf.c (taking and giving back), shelf_list.c (which there are). */
#ifndef MN_SHELF_INTERNAL_H
#define MN_SHELF_INTERNAL_H

#include <pthread.h>

#include "base/claim.h"
#include "base/file.h"
#include "run/shelf.h"

#define mn_shelf_ending ".safetensors"

typedef struct mn_shelf_one {
  char *name, *note;   /* NULL: it was laid down */
  uint64_t owner;      /* 0: everybody's */
  mn_conversation *c;  /* NULL: taken, or in its file */
  bool taken, busy;    /* busy: a file of it is being written, or a copy is made */
  bool saved, wrote;   /* its file is as it is; the file is ours */
  mn_claim *claim;     /* of its file; NULL: others may have it */
  mn_file_stamp stamp; /* of its file, as it was read or written */
  uint64_t used;
  size_t bytes;
} mn_shelf_one;

struct mn_shelf {
  mn_shelf_config config;
  char *folder, fingerprint[33];
  pthread_mutex_t lock;
  pthread_cond_t idle; /* nobody is busy with something */
  uint64_t clock;
  mn_shelf_one **at;
  int n, room;
};

/* All with the shelf's lock. */
mn_shelf_one *mn_shelf_find(const mn_shelf *s, uint64_t owner, const char *name); /* NULL: it is not in memory */
void mn_shelf_drop(mn_shelf *s, mn_shelf_one *e);
mn_status mn_shelf_path(const mn_shelf *s, uint64_t owner, const char *name, char **out); /* of its file; NULL: there is no folder */
bool mn_shelf_is_file(const char *path);                                                  /* a directory of that name is no conversation */
size_t mn_shelf_bytes_of(const mn_shelf_one *e);
/* Another process has written the file of what is here as it was saved, and nobody has it here. */
bool mn_shelf_outdated(const mn_shelf *s, const mn_shelf_one *e);

#endif
