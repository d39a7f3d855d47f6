/* state_internal.h - what the rooms of states share: what states hold. */
#ifndef MN_STATE_INTERNAL_H
#define MN_STATE_INTERNAL_H

#include "backend/room.h"
#include "base/table.h"
#include "run/state.h"

typedef struct mn_sharing mn_sharing;

struct mn_states {
  mn_arena *arena;
  mn_backend *backend;
  int64_t batch;
  int n;
  mn_state_info *info;
  void *block; /* all but caches, one after the other: large pages serve small states, too */
  void *room;  /* caches that are only appended to, each from a page's beginning on; NULL: there is none */
  size_t block_bytes, room_bytes, page;
  size_t *offset;      /* in the block, or in the room */
  mn_table at;         /* name -> number */
  int64_t *position;   /* [batch] */
  int32_t *moved;      /* [batch]: position as the backend has it, on its way */
  mn_sharing *sharing; /* NULL: pages are never shared */
  uint64_t id;
};

size_t mn_states_row_bytes(const mn_states *s, int i);               /* of one stream */
size_t mn_states_token_bytes(const mn_states *s, int i);             /* of a cache in the room, one token's; 0: it is none */
size_t mn_states_reach(const mn_states *s, int i, int64_t position); /* how far one stream's is read that stands there */

/* ---- shared pages (state_share.c) ---- of one stream; all of them allow for s->sharing NULL */
mn_status mn_sharing_new(mn_sharing **out);
void mn_sharing_free(mn_sharing *s);
/* `to` sees the first *tokens tokens of what `from` has, in its caches alone; 0: none, and all is to be copied. Both are of one kind. */
mn_status mn_sharing_show(mn_states *to, const mn_states *from, int64_t *tokens);
/* Caches may be written from this token on. */
void mn_sharing_cut(mn_states *s, int64_t position);
/* Streams have moved: a cache that has turned over is written from its beginning. */
void mn_sharing_turned(mn_states *s);
/* Bytes in use that others pay for. */
size_t mn_sharing_saved(const mn_states *s);

#endif
