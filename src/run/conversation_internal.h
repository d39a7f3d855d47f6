/* conversation_internal.h - what the rooms of a conversation share: what it holds. */
#ifndef MN_CONVERSATION_INTERNAL_H
#define MN_CONVERSATION_INTERNAL_H

#include <stdatomic.h>

#include "format/tokenizer.h"
#include "run/conversation.h"
#include "run/session_internal.h"

typedef struct mn_snapshot { /* never changed once it is made; conversations share it */
  atomic_int holders;
  mn_backend *backend;
  int64_t position;
  bool mark;   /* the end of a turn */
  void *block; /* the tensors that are kept, one after the other, on the backend */
  size_t bytes;
} mn_snapshot;

struct mn_conversation {
  mn_session *session;
  mn_conversation_config config;
  mn_ids tokens;
  int n, room; /* snapshots, of rising positions, none behind the last token */
  mn_snapshot **at;
  bool *cut;    /* [states] it is not kept in snapshots: cutting it is enough */
  bool cuts;    /* all of them but the position */
  size_t bytes; /* of one snapshot */
  uint64_t fed;
};

/* Memory for one, without values. */
mn_status mn_snapshot_new(const mn_conversation *c, int64_t position, bool mark, mn_snapshot **out);
void mn_snapshot_leave(mn_snapshot *s);
/* It becomes the last; there is no later one. Taken over, also on failure. */
mn_status mn_conversation_keep(mn_conversation *c, mn_snapshot *s);

#endif
