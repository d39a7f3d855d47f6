/* state_share.c - clones of one stream share the pages of its caches until one of them writes.
 *
 * What a stream has read lies in pages that are never written again, unless it goes back. When it is cloned, those pages go to a shelf
 * (base/pages.h) that both see; a page that either writes later is its own from then on. So the first clone costs one copy of what came
 * since the last one, and every other clone costs nothing. A stream that is cloned again and again has a list of shelves, each of the
 * tokens [from, to): pages where two meet are in both, and the later one is seen. Why no table of pages: kernels read a cache as the one
 * tensor that it is, and the processor's own tables do the rest. */
#include <pthread.h>
#include <stdlib.h>

#include "run/state_internal.h"

enum {
  SHELVES = 8,      /* of one stream; then all that it has goes to a new one */
  LEAST = 64 << 10, /* bytes: less is copied */
  PART = 8          /* what came since is copied where it is less than such a part of what is shared */
};

typedef struct shared {
  mn_page_shelf *shelf;
  int64_t from, to; /* tokens */
} shared;

struct mn_sharing {
  pthread_mutex_t lock; /* the first values of a program are cloned by many */
  int n;
  shared at[SHELVES];
};

mn_status mn_sharing_new(mn_sharing **out) {
  *out = mn_calloc(1, sizeof **out);
  if (!*out) return MN_ERR_MEMORY;
  pthread_mutex_init(&(*out)->lock, NULL);
  return MN_OK;
}

static void cut(mn_sharing *s, int64_t position) {
  while (s->n && s->at[s->n - 1].from >= position) mn_page_shelf_leave(s->at[--s->n].shelf);
  if (s->n && s->at[s->n - 1].to > position) s->at[s->n - 1].to = position;
}

void mn_sharing_free(mn_sharing *s) {
  if (!s) return;
  cut(s, 0);
  pthread_mutex_destroy(&s->lock);
  free(s);
}

void mn_sharing_cut(mn_states *s, int64_t position) {
  if (s->sharing) cut(s->sharing, position);
}

static bool turned(const mn_states *s) {
  for (int i = 0; i < s->n; i++)
    if (mn_states_token_bytes(s, i) && s->info[i].appended - 1 + s->position[0] > s->info[i].shape.dim[1]) return true;
  return false;
}

void mn_sharing_turned(mn_states *s) {
  if (s->sharing && s->sharing->n && turned(s)) cut(s->sharing, 0);
}

/* The pages of cache i that tokens [from, to) touch; what stands before the first token goes with it. */
static void pages_of(const mn_states *s, int i, int64_t from, int64_t to, size_t *begin, size_t *bytes) {
  const size_t first = from ? mn_states_reach(s, i, from) : 0, end = mn_align(mn_states_reach(s, i, to), s->page);
  *begin = first / s->page * s->page;
  *bytes = end > *begin ? end - *begin : 0;
  *begin += s->offset[i];
}

static size_t bytes_of(const mn_states *s, int64_t from, int64_t to) {
  size_t all = 0;
  for (int i = 0; i < s->n; i++)
    if (mn_states_token_bytes(s, i)) all += mn_states_reach(s, i, to) - (from ? mn_states_reach(s, i, from) : 0);
  return all;
}

static int64_t end_of(const mn_sharing *s) { return s->n ? s->at[s->n - 1].to : 0; }

/* What is not on a shelf yet goes to one, if it is much. */
static mn_status put_up(const mn_states *s) {
  mn_sharing *own = s->sharing;
  const int64_t here = s->position[0];
  if (bytes_of(s, 0, here) < LEAST || bytes_of(s, end_of(own), here) * PART < bytes_of(s, 0, end_of(own))) return MN_OK;
  if (end_of(own) == here) return MN_OK;
  if (own->n == SHELVES) cut(own, 0);
  shared new = {.from = end_of(own), .to = here};
  MN_TRY(mn_page_shelf_new(s->room_bytes, &new.shelf));
  mn_status status = MN_OK;
  for (int i = 0; i < s->n && status == MN_OK; i++) {
    size_t begin, bytes;
    if (!mn_states_token_bytes(s, i)) continue;
    pages_of(s, i, new.from, new.to, &begin, &bytes);
    status = mn_page_shelf_take(new.shelf, begin, (char *)s->room + begin, bytes);
  }
  if (status == MN_OK) own->at[own->n++] = new;
  else mn_page_shelf_leave(new.shelf);
  return status;
}

static mn_status show(mn_states *to, const shared *x) {
  for (int i = 0; i < to->n; i++) {
    size_t begin, bytes;
    if (!mn_states_token_bytes(to, i)) continue;
    pages_of(to, i, x->from, x->to, &begin, &bytes);
    MN_TRY(mn_page_shelf_show(x->shelf, begin, (char *)to->room + begin, bytes));
  }
  return MN_OK;
}

mn_status mn_sharing_show(mn_states *to, const mn_states *from, int64_t *tokens) {
  *tokens = 0;
  if (!to->sharing || !from->sharing || to->backend != from->backend || turned(from)) return MN_OK;
  mn_sharing_cut(to, 0);
  pthread_mutex_lock(&from->sharing->lock);
  mn_status status = put_up(from); /* where pages cannot be shared they are copied */
  for (int i = 0; i < from->sharing->n && status == MN_OK; i++) {
    status = show(to, &from->sharing->at[i]);
    if (status != MN_OK) break;
    to->sharing->at[to->sharing->n] = from->sharing->at[i];
    mn_page_shelf_share(to->sharing->at[to->sharing->n++].shelf);
  }
  *tokens = end_of(to->sharing);
  pthread_mutex_unlock(&from->sharing->lock);
  return MN_OK;
}

size_t mn_sharing_saved(const mn_states *s) {
  size_t saved = 0;
  for (int i = 0; s->sharing && i < s->sharing->n; i++) {
    const shared *x = &s->sharing->at[i];
    const size_t holders = (size_t)mn_page_shelf_holders(x->shelf), bytes = bytes_of(s, x->from, x->to);
    saved += bytes - bytes / holders;
  }
  return saved;
}
